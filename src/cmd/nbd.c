/* SPDX-License-Identifier: MIT
 *
 * strata nbd: disks over NBD, until a signal, the verb quit or the only client
 * ends it.
 *
 *   main's thread:  the control loop: signals, new clients, edits, the end
 *   N threads:      an I/O loop each
 *
 *   options -> signals -> disks, exports -> sockets -> sandbox -> threads
 *           -> ready
 *   SIGTERM: drain, flush, close in reverse; again: cut the clients off
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cmd.h"
#include "control.h"
#include "graph.h"
#include "notify.h"
#include "sandbox.h"
#include "version.h"

enum {
    UNIX,
    ADDR,
    FD,
    EXPORT,
    RO,
    TLS,
    TLS_CERTIFICATES,
    TLS_PSK,
    API,
    USER,
    ALLOW_PATH,
    NO_SANDBOX,
    THREADS,
    POLL_US,
    ENGINE,
    STOP_TIMEOUT
};
enum { THREADS_MAX = 64 };

#define DOOR "nbd"

static const struct st_cmd_option nbd_options[] = {
    {"unix", ST_CMD_TEXT, "PATH[,mode=MODE][,group=GROUP]",
     "listen on a Unix socket, by default of mode 600, or 660 with a group", 0,
     0, 0},
    {"addr", ST_CMD_TEXT, "HOST:PORT",
     "listen on TCP; port 0 takes a free one. Without --unix, --addr and --fd\n"
     "      that is localhost:10809, for programs of this machine only",
     0, 0, 0},
    {"fd", ST_CMD_TEXT, "N",
     "serve descriptor N: a listening socket, or one connected client, with\n"
     "      which the server ends",
     0, 0, 0},
    {"export", ST_CMD_MANY, "NAME=SPEC", "serve SPEC as NAME; repeat for more",
     0, 0, 0},
    {"ro", ST_CMD_FLAG, NULL, "read-only", 0, 0, 0},
    {"tls", ST_CMD_WORD, "off|on|require",
     "whether clients may, or must, encrypt", 0, 0, 0},
    {"tls-certificates", ST_CMD_TEXT, "DIR",
     "server-cert.pem, server-key.pem and, to check clients, ca-cert.pem", 0, 0,
     0},
    {"tls-psk", ST_CMD_TEXT, "FILE", "users with keys: lines USER:HEX", 0, 0,
     0},
    {"api", ST_CMD_TEXT, "PATH[,mode=MODE][,group=GROUP]",
     "control socket for strata ctl, strata top and curl", 0, 0, 0},
    ST_CMD_USER,
    ST_CMD_ALLOW_PATH,
    ST_CMD_NO_SANDBOX,
    {"threads", ST_CMD_NUMBER, "N",
     "I/O loops; by 0, one up to two CPUs, then half of them up to four", 0, 0,
     THREADS_MAX},
    ST_CMD_POLL,
    ST_CMD_ENGINE,
    {"stop-timeout", ST_CMD_NUMBER, "SECONDS",
     "how long SIGTERM waits for clients to leave", 10, 0, 86400},
    {0},
};

struct server {
    struct st_cmd_world world;
    struct st_cmd_address address, api;
    const struct st_cmd_args *args;
    struct st_graph *graph;
    struct st_control *control;
    struct st_loop *loop[THREADS_MAX];
    unsigned nloops, started, stop_s;
    int notify; /* of notify.h */
    bool stopping, over;
    int rc; /* of st_graph_stop */
};

static unsigned
default_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n <= 2 ? 1 : n < 8 ? (unsigned)n / 2 : 4;
}

/* What is wrong with the command line and needs nothing opened to see it. */
static int
check_args(struct server *s)
{
    const struct st_cmd_args *a = s->args;
    bool many = a->nmany[EXPORT], sandbox = !a->text[NO_SANDBOX];
    struct st_err err;

    if (a->nrest + many != 1)
        return st_cmd_fail(ST_EXIT_USAGE, "%s '%s', see 'strata nbd --help'",
                           !a->nrest ? "missing SPEC"
                           : many    ? "either --export or a SPEC, not also"
                                     : "one SPEC too many:",
                           a->nrest ? a->rest[a->nrest - 1] : "");
    for (unsigned i = 0; i < a->nmany[EXPORT]; i++)
        if (!strchr(a->many[EXPORT][i], '='))
            return st_cmd_fail(ST_EXIT_USAGE,
                               "invalid --export '%s', expected NAME=SPEC",
                               a->many[EXPORT][i]);
    if (a->number[TLS] == ST_NBD_TLS_OFF &&
        (a->text[TLS_CERTIFICATES] || a->text[TLS_PSK]))
        return st_cmd_fail(ST_EXIT_USAGE,
                           "--tls-certificates and --tls-psk have no effect "
                           "without --tls on or --tls require");
    if (a->nmany[ALLOW_PATH] && (!sandbox || !a->text[API]))
        return st_cmd_fail(ST_EXIT_USAGE,
                           sandbox ? "--allow-path has no effect without --api"
                                   : "--allow-path has no effect with "
                                     "--no-sandbox");
    if (st_cmd_address_parse(&s->address, a->text[UNIX], a->text[ADDR],
                             a->text[FD], &err) < 0 ||
        (a->text[API] &&
         st_cmd_address_unix(&s->api, "--api", a->text[API], &err) < 0))
        return st_cmd_fail(ST_EXIT_USAGE, "%s", err.text);
    return 0;
}

/* ---- The end ---- */

static void
server_over(void *arg)
{
    ((struct server *)arg)->over = true;
}

static void
server_stopped(void *arg, int rc)
{
    struct server *s = arg;

    s->rc = rc;
    if (s->control)
        st_control_destroy(s->control, server_over, s);
    else
        s->over = true;
}

static void
server_stop(void *arg)
{
    struct server *s = arg;

    if (s->stopping)
        return;
    s->stopping = true;
    st_cmd_notify_stopping(s->notify);
    st_graph_stop(s->graph, s->stop_s * UINT64_C(1000000000), server_stopped,
                  s);
}

static void
server_print(struct server *s)
{
    const struct st_graph_disk *d = NULL;
    const struct st_graph_door *door = st_graph_next_door(s->graph, NULL);
    struct st_nbd_stats n = {0};

    if (door)
        st_nbd_stats(door->nbd, &n);
    fprintf(stderr,
            "nbd '%s' engine='%s' threads=%u clients=%ju clients_total=%ju\n"
            "    requests=%ju errors=%ju protocol_errors=%ju bytes_in=%ju "
            "bytes_out=%ju\n",
            s->address.before, st_domain_engine(s->world.domain), s->nloops,
            (uintmax_t)n.clients, (uintmax_t)n.clients_total,
            (uintmax_t)n.requests, (uintmax_t)n.errors,
            (uintmax_t)n.protocol_errors, (uintmax_t)n.bytes_in,
            (uintmax_t)n.bytes_out);
    while ((d = st_graph_next_disk(s->graph, d)))
        st_inspect_print(stderr, d->disk);
}

static void
server_signal(struct st_cmd_world *w, int signal)
{
    struct server *s = st_container(w, struct server, world);

    if (signal == SIGUSR1)
        server_print(s);
    else if (s->stopping)
        st_graph_cut(s->graph);
    else
        server_stop(s);
}

/* ---- The beginning ---- */

/* One disk, served by its name. */
static int
add_export(struct server *s, const char *text, bool named, struct st_err *err)
{
    const char *spec = named ? strchr(text, '=') + 1 : text, *disk;
    st_autofree char *name =
        strndup(text, named ? (size_t)(spec - text) - 1 : 0);
    int rc = name ? 0 : st_err_set(err, ENOMEM, "no memory");

    if (rc == 0)
        rc = st_graph_open(s->graph, name, spec, s->args->text[RO], &disk, err);
    return rc ? rc : st_graph_export(s->graph, DOOR, name, disk, err);
}

/* Everything that opens something. */
static int
set_up(struct server *s, struct st_err *err)
{
    const struct st_cmd_args *a = s->args;
    unsigned threads =
        a->number[THREADS] ? a->number[THREADS] : default_threads();
    struct st_graph_opts graph = {.control = s->world.home,
                                  .loops = s->loop,
                                  .quit = server_stop,
                                  .arg = s};
    struct st_nbd_opts door = {.tls = a->number[TLS],
                               .tls_certificates = a->text[TLS_CERTIFICATES],
                               .tls_psk = a->text[TLS_PSK]};
    int rc = 0;

    while (rc == 0 && s->nloops < threads) {
        rc = st_loop_create(s->world.domain, &s->loop[s->nloops], err);
        s->nloops += rc == 0;
    }
    graph.nloops = s->nloops;
    if (rc == 0)
        rc = st_graph_create(&graph, &s->graph, err);
    if (rc == 0)
        rc = st_graph_add_nbd(s->graph, DOOR, &door, err);
    if (rc == 0 && a->nrest)
        rc = add_export(s, a->rest[0], false, err);
    for (unsigned i = 0; rc == 0 && i < a->nmany[EXPORT]; i++)
        rc = add_export(s, a->many[EXPORT][i], true, err);
    if (rc == 0)
        rc = st_cmd_address_open(&s->address, err);
    if (rc == 0 && a->text[API])
        rc = st_cmd_address_open(&s->api, err);
    return rc;
}

/* From here on nothing is opened but below --allow-path. */
static int
enter_sandbox(struct server *s, struct st_err *err)
{
    const struct st_cmd_args *a = s->args;
    const char *socket[] = {*s->address.path ? s->address.path : NULL,
                            *s->api.path ? s->api.path : NULL};
    const struct st_sandbox_opts o = {.log = &s->world.log,
                                      .off = a->text[NO_SANDBOX],
                                      .user = a->text[USER],
                                      .allow = a->many[ALLOW_PATH],
                                      .nallow = a->nmany[ALLOW_PATH],
                                      .socket = socket,
                                      .nsockets = 2};

    return st_sandbox_enter(&o, err);
}

static int
start_loops(struct server *s, struct st_err *err)
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
start(struct server *s, struct st_err *err)
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
    for (unsigned i = 0; rc == 0 && i < s->address.nfds; i++) {
        int fd = s->address.fd[i];

        s->address.fd[i] = -1;
        rc = s->address.connected
                 ? st_graph_connection(s->graph, DOOR, fd, server_stop, s, err)
                 : st_graph_listen(s->graph, DOOR, fd, err);
    }
    return rc;
}

/* Close what set_up opened. A door closes through its loops; where they cannot
 * run, the process just ends: nobody was served. */
static void
give_up(struct server *s)
{
    if (s->graph && start_loops(s, NULL) == 0) {
        server_stop(s);
        return;
    }
    s->over = true;
    s->rc = s->graph ? -ETIMEDOUT : 0;
}

static void
say_ready(struct server *s)
{
    const struct st_cmd_args *a = s->args;
    const struct st_log *log = &s->world.notice;
    unsigned n = a->nrest ? 1 : a->nmany[EXPORT];

    if (a->nmany[EXPORT] > 1)
        st_info(log, "serving %u exports on %s%s", a->nmany[EXPORT],
                s->address.before, s->address.after);
    else if (a->nmany[EXPORT])
        st_info(log, "serving %s on %s%.*s%s",
                strchr(a->many[EXPORT][0], '=') + 1, s->address.before,
                (int)strcspn(a->many[EXPORT][0], "="), a->many[EXPORT][0],
                s->address.after);
    else
        st_info(log, "serving %s on %s%s", a->rest[0], s->address.before,
                s->address.after);
    st_cmd_notify_ready(s->notify, "%u export%s on %s%s", n, n == 1 ? "" : "s",
                        s->address.before, s->address.after);
}

static int
serve(struct server *s)
{
    struct st_err err;
    int rc = set_up(s, &err);

    s->notify = st_cmd_notify_open(&s->world.log);
    if (rc == 0)
        rc = enter_sandbox(s, &err);
    if (rc == 0)
        rc = start(s, &err);
    if (rc == 0)
        say_ready(s);
    else
        give_up(s);
    st_loop_wait(s->world.home, &s->over);
    if (rc < 0)
        return st_cmd_fail_rc(rc == -EEXIST ? -EINVAL : rc, &err);
    if (s->args->level > ST_LOG_WARN)
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

static int
nbd_run(const struct st_cmd_args *a)
{
    struct server s = {
        .args = a, .stop_s = a->number[STOP_TIMEOUT], .notify = -1};
    int status = check_args(&s);
    struct rlimit files;

    if (status)
        return status;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* ST_CAP_NBD_CLIENTS is the limit */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    status = st_cmd_world_open(&s.world, a->level, a->number[ENGINE],
                               a->number[POLL_US], server_signal);
    if (!status)
        status = serve(&s);
    st_cmd_address_close(&s.address);
    st_cmd_address_close(&s.api);
    if (s.notify >= 0)
        close(s.notify);
    if (s.rc == -ETIMEDOUT)
        _exit(status); /* what was abandoned may still use the rest */
    /* The threads first: what they still have to say is about disks. */
    for (unsigned i = 0; i < s.nloops; i++)
        st_loop_join(s.loop[i]);
    st_graph_destroy(s.graph);
    for (unsigned i = 0; i < s.nloops; i++)
        st_loop_destroy(s.loop[i]);
    st_cmd_world_close(&s.world);
    return status;
}

const struct st_cmd st_cmd_nbd = {
    .name = "nbd",
    .syntax = "SPEC | --export NAME=SPEC ...",
    .help = "serve disks over NBD",
    .more = "SIGTERM or SIGINT: answer what is under way, flush, exit; again: "
            "cut clients off.\nSIGUSR1: print every disk with its counters.\n",
    .options = nbd_options,
    .run = nbd_run,
};
