/* SPDX-License-Identifier: MIT
 *
 * strata nbd: disks over NBD, until a signal or the only client ends it.
 *
 *   main's thread:  the control loop: signals, new clients, the end
 *   N threads:      an I/O loop each
 *
 *   options -> signals -> disks -> threads -> exports -> sockets -> ready
 *   SIGTERM: drain, flush, close in reverse; again: cut the clients off
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cmd.h"
#include "nbd.h"

enum { UNIX, ADDR, FD, EXPORT, RO, THREADS, POLL_US, ENGINE, STOP_TIMEOUT };
enum { THREADS_MAX = 64 };

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
    {"threads", ST_CMD_NUMBER, "N",
     "I/O loops; by 0, one up to two CPUs, then half of them up to four", 0, 0,
     THREADS_MAX},
    ST_CMD_POLL,
    ST_CMD_ENGINE,
    {"stop-timeout", ST_CMD_NUMBER, "SECONDS",
     "how long SIGTERM waits for clients to leave", 10, 0, 86400},
    {0},
};

struct export
{
    char *name; /* owned */
    const char *spec;
    struct st_disk *disk;
};

struct server {
    struct st_cmd_world world;
    struct st_cmd_address address;
    struct st_nbd *nbd;
    struct export *export; /* owned */
    unsigned nexports;
    struct st_loop *loop[THREADS_MAX];
    unsigned nloops, stop_s;
    bool read_only, stopping, over;
    int rc; /* of st_nbd_stop */
};

static int
parse_exports(struct server *s, const struct st_cmd_args *a)
{
    unsigned n = a->nmany[EXPORT] ? a->nmany[EXPORT] : 1;

    if (a->nrest + !!a->nmany[EXPORT] != 1)
        return st_cmd_fail(ST_EXIT_USAGE, "%s '%s', see 'strata nbd --help'",
                           !a->nrest ? "missing SPEC"
                           : a->nmany[EXPORT]
                               ? "either --export or a SPEC, not also"
                               : "one SPEC too many:",
                           a->nrest ? a->rest[a->nrest - 1] : "");
    s->export = calloc(n, sizeof(*s->export));
    for (unsigned i = 0; s->export && i < n; i++) {
        const char *text = a->nmany[EXPORT] ? a->many[EXPORT][i] : a->rest[0];
        const char *eq = strchr(text, '=');

        if (a->nmany[EXPORT] && !eq)
            return st_cmd_fail(ST_EXIT_USAGE,
                               "invalid --export '%s', expected NAME=SPEC",
                               text);
        s->export[i].spec = a->nmany[EXPORT] ? eq + 1 : text;
        s->export[i].name =
            strndup(text, a->nmany[EXPORT] ? (size_t)(eq - text) : 0);
        s->nexports += s->export[i].name != NULL;
    }
    return s->nexports == n ? 0 : st_cmd_fail(ST_EXIT_FAILED, "no memory");
}

static unsigned
default_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n <= 2 ? 1 : n < 8 ? (unsigned)n / 2 : 4;
}

/* ---- The end ---- */

static void
server_stopped(void *arg, int rc)
{
    struct server *s = arg;

    s->rc = rc;
    s->over = true;
}

static void
server_stop(void *arg)
{
    struct server *s = arg;

    if (!s->stopping)
        st_nbd_stop(s->nbd, s->stop_s * UINT64_C(1000000000), server_stopped,
                    s);
    s->stopping = true;
}

static void
server_print(struct server *s)
{
    struct st_nbd_stats n;

    st_nbd_stats(s->nbd, &n);
    fprintf(stderr,
            "nbd '%s' engine='%s' threads=%u clients=%ju clients_total=%ju\n"
            "    requests=%ju errors=%ju protocol_errors=%ju bytes_in=%ju "
            "bytes_out=%ju\n",
            s->address.before, st_domain_engine(s->world.domain), s->nloops,
            (uintmax_t)n.clients, (uintmax_t)n.clients_total,
            (uintmax_t)n.requests, (uintmax_t)n.errors,
            (uintmax_t)n.protocol_errors, (uintmax_t)n.bytes_in,
            (uintmax_t)n.bytes_out);
    for (unsigned i = 0; i < s->nexports; i++)
        st_cmd_tree_print(stderr, s->export[i].disk);
}

static void
server_signal(struct st_cmd_world *w, int signal)
{
    struct server *s = st_container(w, struct server, world);

    if (signal == SIGUSR1)
        server_print(s);
    else if (s->stopping)
        st_nbd_cut(s->nbd);
    else
        server_stop(s);
}

/* ---- The beginning ---- */

/* From disks to the moment when clients can come. 0 or -errno. */
static int
start(struct server *s, unsigned threads, struct st_err *err)
{
    struct st_nbd_opts o = {.control = s->world.home, .loops = s->loop};
    int rc = 0;

    while (rc == 0 && s->nloops < threads) {
        char name[16];

        rc = st_loop_create(s->world.domain, &s->loop[s->nloops], err);
        if (rc < 0)
            return rc;
        snprintf(name, sizeof(name), "io-%u", s->nloops);
        rc = st_loop_start(s->loop[s->nloops++], name);
        if (rc < 0)
            st_err_set(err, -rc, "cannot start a thread: %s", st_strerror(rc));
    }
    o.nloops = s->nloops;
    if (rc == 0)
        rc = st_nbd_create(&o, &s->nbd, err);
    for (unsigned i = 0; rc == 0 && i < s->nexports; i++)
        rc = st_nbd_export(s->nbd, s->export[i].name, s->export[i].spec,
                           s->export[i].disk, s->read_only, err);
    if (rc == 0)
        rc = st_cmd_address_open(&s->address, err);
    for (unsigned i = 0; rc == 0 && i < s->address.nfds; i++) {
        int fd = s->address.fd[i];

        s->address.fd[i] = -1; /* taken, even on failure */
        rc = s->address.connected
                 ? st_nbd_connection(s->nbd, fd, server_stop, s, err)
                 : st_nbd_listen(s->nbd, fd, err);
    }
    return rc;
}

static int
serve(struct server *s, const struct st_cmd_args *a)
{
    const char *name = s->export[0].name;
    struct st_err err;
    int rc = start(
        s, a->number[THREADS] ? a->number[THREADS] : default_threads(), &err);

    if (rc == 0 && s->nexports > 1)
        st_info(&s->world.notice, "serving %u exports on %s%s", s->nexports,
                s->address.before, s->address.after);
    else if (rc == 0)
        st_info(&s->world.notice, "serving %s on %s%s%s", s->export[0].spec,
                s->address.before, name, s->address.after);
    else if (s->nbd)
        server_stop(s);
    if (s->nbd)
        st_loop_wait(s->world.home, &s->over);
    if (rc < 0)
        return st_cmd_fail_rc(rc == -EEXIST ? -EINVAL : rc, &err);
    if (a->level > ST_LOG_WARN)
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
    struct server s = {.read_only = a->text[RO],
                       .stop_s = a->number[STOP_TIMEOUT]};
    int status = parse_exports(&s, a);
    struct rlimit files;
    struct st_err err;

    if (!status && st_cmd_address_parse(&s.address, a->text[UNIX],
                                        a->text[ADDR], a->text[FD], &err) < 0)
        status = st_cmd_fail(ST_EXIT_USAGE, "%s", err.text);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* ST_CAP_NBD_CLIENTS is the limit */
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (!status) {
        status = st_cmd_world_open(&s.world, a->level, a->number[ENGINE],
                                   a->number[POLL_US], server_signal);
        for (unsigned i = 0; !status && i < s.nexports; i++)
            status =
                st_cmd_disk_open(&s.world, s.export[i].spec, s.export[i].name,
                                 s.read_only, &s.export[i].disk);
        if (!status)
            status = serve(&s, a);
        st_cmd_address_close(&s.address);
        if (s.rc == -ETIMEDOUT)
            _exit(status); /* what was abandoned may still use the rest */
        st_nbd_destroy(s.nbd);
        /* The threads first: what they still have to say is about disks. */
        for (unsigned i = 0; i < s.nloops; i++)
            st_loop_join(s.loop[i]);
        for (unsigned i = 0; i < s.nexports; i++)
            st_disk_destroy(s.export[i].disk);
        for (unsigned i = 0; i < s.nloops; i++)
            st_loop_destroy(s.loop[i]);
        st_cmd_world_close(&s.world);
    }
    for (unsigned i = 0; i < s.nexports; i++)
        free(s.export[i].name);
    free(s.export);
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
