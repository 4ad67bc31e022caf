/* SPDX-License-Identifier: MIT
 *
 * The client's side of the control socket (control.h), for ctl and top: HTTP
 * over a Unix socket, JSON both ways. libcurl does the HTTP.
 *
 * A server may be anything that listens there: what is not HTTP, is no JSON, is
 * endless or never comes ends in one sentence. One thread; no globals but
 * libcurl's own.
 */
#ifndef ST_API_H
#define ST_API_H

#include <jansson.h>
#include <poll.h>
#include <stddef.h>

#include "err.h"

enum {
    ST_API_TIMEOUT_MS = 35000, /* for a whole answer; an edit may take 30 s */
    ST_API_BODY_MAX = 64 << 20 /* bytes of an answer */
};

struct st_api;

/* Speak to whoever listens at PATH (borrowed until closed), from the first
 * request on. 0 or -errno: -EINVAL when PATH cannot be a socket's. */
int st_api_open(const char *path, struct st_api **out, struct st_err *err);

/* A request under way is dropped. NULL is fine. */
void st_api_close(struct st_api *a);

/* Ask METHOD TARGET ("/v1/verbs", escaped already) with BODY (borrowed until
 * the answer; NULL: none; of POST it is JSON, else text), and wait. 0 and *OUT
 * (given; any JSON value), or a sentence and
 *
 *   -EREMOTEIO     the server says no: the sentence is its own
 *   -ETIMEDOUT     no whole answer within ST_API_TIMEOUT_MS
 *   -EPROTO        an answer that is not HTTP, not JSON or too long
 *   -ENOENT, -ECONNREFUSED, -EACCES, ...  nobody to ask
 */
int st_api_ask(struct st_api *a, const char *method, const char *target,
               const char *body, json_t **out, struct st_err *err);

/* The same in two halves, for who has other descriptors to watch. Start a
 * request when none is under way: 0 or -errno. */
int st_api_start(struct st_api *a, const char *method, const char *target,
                 const char *body, struct st_err *err);

/* Wait up to TIMEOUT_MS (less than 0: without end) for the answer, or for one
 * of the NFDS descriptors of FDS (their revents are filled). -EAGAIN: no answer
 * yet, call again; anything else is what st_api_ask gives. Without a request
 * under way it only waits: -EAGAIN. */
int st_api_wait(struct st_api *a, struct pollfd *fds, unsigned nfds,
                int timeout_ms, json_t **out, struct st_err *err);

/* TEXT as one part of a TARGET or of a query, percent-escaped; what stands in
 * KEEP stays. Gives memory for free(), or NULL. */
char *st_api_escape(const char *text, const char *keep);

/* Copy TEXT for a terminal: control characters, and what is not UTF-8, become
 * '?'. At most COLUMNS columns wide, cut with "~" at the end; OUT has CAP
 * bytes. Returns the columns. Needs setlocale for more than ASCII. */
int st_api_printable(char *out, size_t cap, const char *text, int columns);

#endif
