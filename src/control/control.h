/* SPDX-License-Identifier: MIT
 *
 * The control socket: HTTP/1.1 with JSON on a Unix socket, beside the graph on
 * the control loop (guide/control.md has every request as a curl line).
 *
 *   GET  /                       the page: the live pipeline in a browser
 *   GET  /v1/inspect[/PATH][?depth=N]     values: {"name": value, ...}, or
 *                                the one value that PATH leads to. Objects
 *                                below the N-th level are null
 *   PUT  /v1/inspect/PATH        body: the new value, as text, or as JSON with
 *                                Content-Type: application/json. The verb set
 *   GET  /v1/verbs               {"verbs": [{"name", "syntax", "help",
 *                                "arguments": [{"name", "optional"}]}]}; of
 *                                a file also "file": "text", "base64", or
 *                                "answer": a member of the answer, in base64
 *   POST /v1/VERB                body: {"argument": "text", ...}; numbers are
 *                                taken as text. {"ok": true} when it is done
 *   GET  /metrics                Prometheus text format 0.0.4
 *
 * Segments of PATH are percent-encoded; HEAD is GET without the body.
 *
 * A failure is {"error": "SENTENCE"} with the status that fits: 400 wrong in
 * itself, 403 another user, another origin or a value that cannot be set, 404,
 * 405, 409 contradicts what is, 413 body over 64 KiB (512 with a
 * file in it), 415, 501 not supported,
 * 503 stopping or too many clients, 504 deadline, 507 no space, else 500. What
 * is no HTTP/1.1 request at all the library answers before we see it: 400, 414,
 * 431 or 505 with its own sentence, as a page, or nothing; and closes.
 *
 * Only root, our own user and ALLOWED_UID may ask (SO_PEERCRED). No handler
 * blocks: an edit suspends its connection. Clients that are slow are cut off
 * after 10 s without a whole request; at most ST_CAP_API_CLIENTS are served.
 */
#ifndef ST_CONTROL_H
#define ST_CONTROL_H

#include <jansson.h>
#include <stdio.h>
#include <sys/types.h>

#include "graph.h"

struct st_control;

/* What a control server is made of. */
struct st_control_opts {
    struct st_graph *graph; /* borrowed */
    int fd;                 /* a listening Unix socket, taken */
    uid_t allowed_uid;      /* besides root and ourselves; (uid_t)-1: nobody */
    const char *version;    /* borrowed */
    uint64_t slow_ns;       /* time for a whole request; 0 = 10 s */
};

/* On the graph's control loop. 0 or -errno; FD is closed on failure, too. */
int st_control_create(const struct st_control_opts *opts,
                      struct st_control **out, struct st_err *err);

/* Answer edits under way with 503 and close every connection. DONE (may be
 * NULL for none) runs on the control loop when nothing of it is left; then the
 * graph may go. Before st_graph_destroy, after st_graph_stop. */
void st_control_destroy(struct st_control *c, void (*done)(void *arg),
                        void *arg);

/* ---- The tree of values, for others as well ---- */

/* A disk with its properties and counters, and the tree below it. Sizes and
 * counters are numbers. Gives a reference. Home loop.
 *
 *   {"name": "a", "size": 1048576, "policy": "report", ...,
 *    "errors": {"read": 0, "write": 0, ...},
 *    "latency": {"read": {"count": 9, "sum_ns": 81000, "p50_ns": 8192,
 *                         "p99_ns": 16384, "max_ns": 16384}, "write": ...},
 *    "backend": {"kind": "delay", "label": "...", "size": 1048576, ...,
 *       "inner": {"kind": "layered", ...,
 *          "layers": {"0": {"kind": "ram", "read_cache": 0, ...}, "1": ...}}}}
 *
 * A transparent node's child is "inner"; a layered disk's children are
 * "layers", each with what the layered disk says of it beside its own values;
 * children of others are "children", by number. The errors and latencies are
 * by operation, since the disk was opened; p50, p99 and max are upper bounds,
 * powers of two. */
json_t *st_inspect_disk(struct st_disk *d);

/* The same for people, at most 79 columns wide. */
void st_inspect_print(FILE *out, struct st_disk *d);

/* The whole of GET /v1/inspect:
 *   {"version", "engine", "caps": {NAME: {used, peak, limit, refused, unit,
 *    when_full}}, "graph": {...}, "disks": {NAME: ...}, "doors": {NAME: ...},
 *    "controllers": {NAME: ...}}
 *
 * Of a disk that the graph has: also "spec", and as 0 or 1 "paused" and
 * "leaving". Of a door: "kind", and what it says itself (st_nbd_inspect):
 * "clients_now", "clients_total", "requests", "errors", "protocol_errors",
 * "bytes_in", "bytes_out", "exports": {NAME: ...}, "clients": {N: ...}. Of a
 * controller: what st_graph_controller_inspect says. Names
 * that are not UTF-8 have '?' for their odd bytes. Gives a reference. */
json_t *st_inspect_graph(struct st_graph *g, const char *version);

#endif
