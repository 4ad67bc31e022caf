/* SPDX-License-Identifier: MIT
 *
 * Serving a graph, from the options to the last flush; see server.h.
 */
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "keep.h"
#include "mem.h"
#include "notify.h"
#include "version.h"

static unsigned
default_threads(void)
{
    unsigned n = st_cpus();

    return n <= 2 ? 1 : n < 8 ? n / 2 : 4;
}

int
st_server_check(struct st_server *s, const struct st_server_opts *o)
{
    struct st_err err;

    s->opts = o;
    s->notify = -1;
    if (o->nallow && (o->no_sandbox || !o->api))
        return st_cmd_fail(ST_EXIT_USAGE,
                           o->no_sandbox ? "--allow-path has no effect with "
                                           "--no-sandbox"
                                         : "--allow-path has no effect without "
                                           "--api");
    if (o->api && st_cmd_address_unix(&s->api, "--api", o->api, &err) < 0)
        return st_cmd_fail(ST_EXIT_USAGE, "%s", err.text);
    return 0;
}

/* ---- The end ---- */

static void
server_over(void *arg)
{
    ((struct st_server *)arg)->over = true;
}

static void
server_stopped(void *arg, int rc)
{
    struct st_server *s = arg;

    s->rc = rc;
    if (s->control)
        st_control_destroy(s->control, server_over, s);
    else
        s->over = true;
}

void
st_server_stop(void *arg)
{
    struct st_server *s = arg;

    if (s->stopping)
        return;
    s->stopping = true;
    st_cmd_notify_stopping(s->notify);
    st_graph_stop(s->graph, s->opts->stop_s * UINT64_C(1000000000),
                  server_stopped, s);
}

static void
server_print(struct st_server *s)
{
    const struct st_graph_disk *d = NULL;

    s->opts->print(s);
    while ((d = st_graph_next_disk(s->graph, d)))
        st_inspect_print(stderr, d->disk);
}

static void
server_signal(struct st_cmd_world *w, int signal)
{
    struct st_server *s = st_container(w, struct st_server, world);

    if (signal == SIGUSR1)
        server_print(s);
    else if (s->stopping)
        st_graph_cut(s->graph);
    else
        st_server_stop(s);
}

/* ---- The beginning ---- */

/* Everything that opens something. */
static int
set_up(struct st_server *s, struct st_err *err)
{
    unsigned threads = s->opts->threads ? s->opts->threads : default_threads();
    struct st_graph_opts graph = {.control = s->world.home,
                                  .loops = s->loop,
                                  .keep = s->opts->keep,
                                  .quit = st_server_stop,
                                  .arg = s};
    int rc = 0;

    while (rc == 0 && s->nloops < threads) {
        rc = st_loop_create(s->world.domain, &s->loop[s->nloops], err);
        s->nloops += rc == 0;
    }
    graph.nloops = s->nloops;
    if (rc == 0)
        rc = st_graph_create(&graph, &s->graph, err);
    if (rc == 0)
        rc = s->opts->set_up(s, err);
    if (rc == 0 && s->opts->api)
        rc = st_cmd_address_open(&s->api, err);
    return rc;
}

/* From here on nothing is opened but below --allow-path. */
static int
enter_sandbox(struct st_server *s, struct st_err *err)
{
    const struct st_server_opts *o = s->opts;
    unsigned n = o->nsockets;
    st_autofree const char **socket = calloc(n + 1, sizeof(*socket));
    struct st_sandbox_opts sandbox = {.log = &s->world.log,
                                      .off = o->no_sandbox,
                                      .kvm = o->kvm,
                                      .user = o->user,
                                      .allow = o->allow,
                                      .nallow = o->nallow,
                                      .nsockets = n + 1};

    if (!socket)
        return st_err_set(err, ENOMEM, "no memory");
    for (unsigned i = 0; i < n; i++)
        socket[i] = o->socket[i] && *o->socket[i] ? o->socket[i] : NULL;
    socket[n] = *s->api.path ? s->api.path : NULL;
    sandbox.socket = socket;
    return st_sandbox_enter(&sandbox, err);
}

static int
start_loops(struct st_server *s, struct st_err *err)
{
    while (s->started < s->nloops) {
        char name[16];
        int rc;

        snprintf(name, sizeof(name), "io-%u", s->started);
        rc = st_loop_start(s->loop[s->started], name);
        if (rc < 0)
            return st_err_set(err, -rc, "cannot start a thread: %s",
                              st_strerror(rc));
        s->started++;
    }
    return 0;
}

/* From the last thing opened to the moment when clients can come. */
static int
start(struct st_server *s, struct st_err *err)
{
    int rc = start_loops(s, err);

    if (rc == 0 && s->api.nfds) {
        struct st_control_opts o = {.graph = s->graph,
                                    .fd = s->api.fd[0],
                                    .allowed_uid = (uid_t)-1,
                                    .version = ST_VERSION};

        s->api.fd[0] = -1; /* taken, even on failure */
        rc = st_control_create(&o, &s->control, err);
    }
    return rc == 0 ? s->opts->open_doors(s, err) : rc;
}

/* Close what set_up opened. A door closes through its loops; where they cannot
 * run, the process just ends: nobody was served. */
static void
give_up(struct st_server *s)
{
    if (s->graph && start_loops(s, NULL) == 0) {
        st_server_stop(s);
        return;
    }
    s->over = true;
    s->rc = s->graph ? -ETIMEDOUT : 0;
}

/* What the options ask for and cannot be is wrong in itself. */
static int
fail_start(int rc, const struct st_err *err)
{
    return st_cmd_fail_rc(rc == -EEXIST ? -EINVAL : rc, err);
}

static int
serve(struct st_server *s)
{
    struct st_err err;
    int rc = set_up(s, &err);

    s->notify = s->opts->keep ? dup(st_keep_socket(s->opts->keep))
                              : st_cmd_notify_open(&s->world.log);
    if (rc == 0)
        rc = enter_sandbox(s, &err);
    if (rc == 0)
        rc = start(s, &err);
    if (rc == 0)
        s->opts->ready(s);
    else
        give_up(s);
    st_loop_wait(s->world.home, &s->over);
    if (rc < 0)
        return fail_start(rc, &err);
    if (s->opts->level > ST_LOG_WARN)
        server_print(s);
    if (s->rc == -ETIMEDOUT)
        return st_cmd_fail(ST_EXIT_FAILED,
                           "requests did not end in time and were abandoned, "
                           "what they were to write may be lost");
    if (s->rc < 0)
        return st_cmd_fail(ST_EXIT_FAILED, "the last flush failed, what was "
                                           "written before may be lost");
    return ST_EXIT_OK;
}

int
st_server_run(struct st_server *s)
{
    const struct st_server_opts *o = s->opts;
    struct rlimit files;
    int status;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* caps are the limits */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    status = st_cmd_world_open(&s->world, o->level, o->engine, o->poll_us,
                               server_signal);
    if (!status)
        status = serve(s);
    st_cmd_address_close(&s->api);
    o->close_sockets(s);
    if (s->notify >= 0)
        close(s->notify);
    if (s->rc == -ETIMEDOUT)
        _exit(status); /* what was abandoned may still use the rest */
    /* The threads first: what they still have to say is about disks. */
    for (unsigned i = 0; i < s->nloops; i++)
        st_loop_join(s->loop[i]);
    st_graph_destroy(s->graph);
    if (o->over)
        o->over(s);
    for (unsigned i = 0; i < s->nloops; i++)
        st_loop_destroy(s->loop[i]);
    st_cmd_world_close(&s->world);
    return status;
}
