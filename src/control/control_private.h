/* SPDX-License-Identifier: MIT
 *
 * What the files of the control socket share. Not for others.
 *
 *   control.c   the listening socket, connections, deadlines, the end
 *   request.c   a request, from its first line to its answer
 *   parse.c     paths, queries and bodies: what a client can say
 *   inspect.c   the tree of values
 *   metrics.c   the same for Prometheus
 *   page.html   the page at /, built in by tools/embed
 */
#ifndef ST_CONTROL_PRIVATE_H
#define ST_CONTROL_PRIVATE_H

#include <microhttpd.h>

#include "control.h"

enum {
    ST_CONTROL_BODY = 64 << 10,   /* the largest body that is looked at */
    ST_CONTROL_FILE = 512 << 10,  /* the same, where a file is part of it */
    ST_CONTROL_DISCARD = 1 << 20, /* the largest that is read at all */
    ST_CONTROL_SEGMENTS = 64,     /* of a path */
    ST_CONTROL_DEPTH = 1000,      /* of a tree: all of it */
};

#define ST_CONTROL_SLOW  UINT64_C(10000000000) /* ns for a whole request */
#define ST_CONTROL_GRACE UINT64_C(1000000000)  /* the same when all ends */

/* ---- parse.c: any text may come; nothing here knows the graph's objects ----
 */

/* A path of values below /v1/inspect. */
struct st_control_path {
    unsigned n;
    const char *segment[ST_CONTROL_SEGMENTS]; /* decoded */
    char *decoded, *encoded;                  /* owned; encoded is for `set` */
};

/* Split RAW, what follows "/v1/inspect" ("", "/", "/disks/a%2Fb/size"), at its
 * slashes and decode the segments. One slash at the end is dropped. The segment
 * "backing" behind "layers/N" leads where that does (spec: config.md 8) and is
 * dropped, too. 0; -EINVAL: '%' without two hex digits, a NUL, too many
 * segments; -ENOMEM. st_control_path_free is due in any case. */
int st_control_path_parse(const char *raw, struct st_control_path *out,
                          struct st_err *err);
void st_control_path_free(struct st_control_path *p);

/* Is BODY a JSON object with the arguments of V? They go to ARG, each owned,
 * NULL where there is none; no body at all is an empty object. 0; -EINVAL: no
 * JSON, no object, a member twice, one that V does not have, or that is neither
 * a string nor a number (where V takes a file's text, it may be an object: its
 * text is that); -ENOMEM. ARG is filled with what to free in any case.
 */
int st_control_arguments_parse(const struct st_verb *v, const char *body,
                               size_t len, char *arg[ST_VERB_ARGS],
                               struct st_err *err);

/* The value in BODY (NULL if LEN is 0): the text itself without one newline at
 * its end, or, JSON, a string, number, true (1) or false (0). Gives *OUT. 0,
 * -EINVAL, -ENOMEM. */
int st_control_value_parse(const char *body, size_t len, bool json, char **out,
                           struct st_err *err);

/* Content-Type TYPE (NULL: none) without its parameters is one of TYPES, which
 * ends with NULL. */
bool st_control_type_is(const char *type, const char *const *types);

/* May a page of ORIGIN (NULL: no page) talk to us, whom it calls HOST? */
bool st_control_origin_ok(const char *origin, const char *host);

/* ---- inspect.c ---- */

/* TEXT as JSON; what is not UTF-8 gets '?' for its odd bytes. */
json_t *st_inspect_text(const char *text);

/* The operations' names, in the tree and in metrics. */
extern const char *const st_inspect_ops[ST_OP_COUNT];

/* Has D its name for itself? One that leaves may share it with a new one. */
bool st_inspect_shown(struct st_graph *g, const struct st_graph_disk *d);

/* What P leads to, cut at DEPTH levels; gives a reference. NULL and a sentence
 * that names the first segment that is not there. */
json_t *st_inspect_path(struct st_graph *g, const char *version,
                        const struct st_control_path *p, unsigned depth,
                        struct st_err *err);

/* The graph's verbs. Gives a reference. */
json_t *st_inspect_verbs(void);

/* A tree whose every object below DEPTH levels (from 1) is null; changes O. */
void st_inspect_cut(json_t *o, unsigned depth);

/* ---- metrics.c ---- */

/* The text of GET /metrics, of *LEN bytes; given. NULL: no memory. */
char *st_metrics_text(struct st_graph *g, const char *version, size_t *len);

/* ---- request.c ---- */

struct control_conn;

/* A request; its life is that of the library's (req_cls), or of its edit, if
 * that lasts longer. */
struct control_request {
    struct st_list link; /* st_control.requests */
    struct st_control *control;
    struct control_conn *conn; /* NULL: the library has done with it */
    struct MHD_Connection *mhd;
    enum {
        REQUEST_PAGE,
        REQUEST_METRICS,
        REQUEST_VERBS,
        REQUEST_INSPECT,
        REQUEST_SET,
        REQUEST_VERB,
    } what;
    const struct st_verb *verb;
    struct st_control_path path;
    unsigned depth;
    bool json; /* the body says that it is */

    char *body; /* owned */
    size_t len, room;
    uint64_t announced, got; /* bytes of it, with what was not kept */

    unsigned status; /* HTTP's; 0: not decided yet */
    char *answer;    /* owned; NULL with a status: the page */
    size_t answer_len;
    const char *type, *allow;

    struct st_graph_edit edit;
    bool editing;   /* its memory is the graph's */
    bool suspended; /* until the edit is done */
    bool cut;       /* no answer: its client has gone */
};

/* Start: what the first line and the headers say. NULL: no memory. */
struct control_request *st_request_create(struct control_conn *conn,
                                          struct MHD_Connection *mhd,
                                          const char *url, const char *method);

/* Take a piece of the body. False: that is enough, cut it off. */
bool st_request_body(struct control_request *r, const char *data, size_t len);

/* The whole request is there: answer it, or start its edit. */
void st_request_run(struct control_request *r);

/* Decide on a failure, in one sentence. */
void st_request_fail(struct control_request *r, unsigned status,
                     const char *sentence);

/* Send the answer, if MHD takes it. */
enum MHD_Result st_request_answer(struct control_request *r);

/* Its edit is of no interest any more; STATUS and SENTENCE are the answer (0:
 * none). The connection goes on. */
void st_request_abandon(struct control_request *r, unsigned status,
                        const char *sentence);

/* The library has done with it. */
void st_request_end(struct control_request *r);

/* ---- control.c ---- */

/* An accepted connection. */
struct control_conn {
    struct st_list link; /* st_control.conns */
    struct st_control *control;
    int fd;                /* the library's */
    struct st_timer timer; /* the end of patience */
    struct st_watch watch; /* while an edit runs: has the client gone? */
    bool watching;
    bool extra;       /* over the cap */
    unsigned refused; /* status of every answer, or 0 */
    const char *why;
    struct control_request *request; /* owned by the library */
};

/* The control server: its socket, its users, its requests. */
struct st_control {
    struct st_control_opts opts;
    struct st_loop *loop;
    struct MHD_Daemon *daemon;
    struct st_caps *caps;
    const struct st_log *log;
    struct st_limiter limiter;
    struct st_watch listen, epoll;
    struct st_timer accept_again;
    struct st_task turn;
    bool turn_queued, stopping;
    struct st_list conns, requests;
    unsigned nextra;
    struct control_conn *accepted; /* on its way into the library */
    void (*done)(void *arg);
    void *arg;
};

/* Let the library look at its connections in a coming round. */
void st_control_kick(struct st_control *c);

/* CONN's next step has as long as a whole request may take; WAIT: as long as it
 * takes, for an edit has a deadline of its own. */
void st_control_patience(struct control_conn *conn, bool wait);

#endif
