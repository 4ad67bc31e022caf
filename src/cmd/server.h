/* SPDX-License-Identifier: MIT
 *
 * What commands share that serve a graph until a signal, the verb quit or
 * something of their own ends them: nbd, serve, run.
 *
 *   main's thread:  the control loop: signals, new clients, edits, the end
 *   N threads:      an I/O loop each
 *
 *   options -> signals, loops, graph -> set_up: disks, sockets -> sandbox
 *           -> threads -> control socket -> open_doors: clients -> ready
 *   SIGTERM: drain, flush, close in reverse; again: cut the clients off
 */
#ifndef ST_SERVER_H
#define ST_SERVER_H

#include "cmd.h"
#include "control.h"
#include "graph.h"
#include "sandbox.h"

enum { ST_SERVER_THREADS_MAX = 64 };

/* Rows of a command that serves. */
#define ST_CMD_API                                                             \
    {                                                                          \
        "api", ST_CMD_TEXT, "PATH[,mode=MODE][,group=GROUP]",                  \
            "control socket for strata ctl, strata top and curl", 0, 0, 0      \
    }
#define ST_CMD_THREADS                                                         \
    {                                                                          \
        "threads", ST_CMD_NUMBER, "N",                                         \
            "I/O loops; by 0, one up to two CPUs, then half of them up to "    \
            "four",                                                            \
            0, 0, ST_SERVER_THREADS_MAX                                        \
    }
#define ST_CMD_STOP_TIMEOUT                                                    \
    {                                                                          \
        "stop-timeout", ST_CMD_NUMBER, "SECONDS",                              \
            "how long SIGTERM waits for clients to leave", 10, 0, 86400        \
    }

struct st_server;

/* What a command wants served; borrowed until st_server_run returns. */
struct st_server_opts {
    enum st_level level;
    unsigned engine, poll_us, threads, stop_s;
    const char *api, *user; /* the options' values, or NULL */
    const char *const *allow;
    unsigned nallow;
    bool no_sandbox, kvm;      /* kvm: a machine runs here */
    struct st_keep *keep;      /* borrowed: of a keeper, or NULL */
    const char *const *socket; /* paths of ours to be unlinked at the end */
    unsigned nsockets;

    /* Open what there is to open: disks and sockets. The graph is there. */
    int (*set_up)(struct st_server *s, struct st_err *err);
    /* Let clients in: the loops run, and nothing can be opened any more. */
    int (*open_doors)(struct st_server *s, struct st_err *err);
    void (*ready)(struct st_server *s); /* say so */
    void (*print)(struct st_server *s); /* for SIGUSR1, before all disks */
    /* It is over, whatever the reason: remove the sockets that are ours. */
    void (*close_sockets)(struct st_server *s);
    /* Optional: the graph is no more, the loops still are. */
    void (*over)(struct st_server *s);
};

/* A server; a command embeds it, zeroed. */
struct st_server {
    const struct st_server_opts *opts;
    struct st_cmd_world world;
    struct st_cmd_address api;
    struct st_graph *graph;
    struct st_control *control;
    struct st_loop *loop[ST_SERVER_THREADS_MAX];
    unsigned nloops, started;
    int notify; /* of notify.h */
    bool stopping, over;
    int rc; /* of st_graph_stop */
};

/* What is wrong with O and needs nothing opened to see it, said as the options
 * that every such command has: 0 or an exit status. */
int st_server_check(struct st_server *s, const struct st_server_opts *o);

/* After st_server_check: serve until the end. An exit status. Where requests
 * never ended the process ends in here. */
int st_server_run(struct st_server *s);

/* Begin the end, as after SIGTERM; S is a st_server. Control loop. */
void st_server_stop(void *s);

#endif
