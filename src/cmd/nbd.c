/* SPDX-License-Identifier: MIT
 *
 * strata nbd: disks over NBD, until a signal, the verb quit or the only client
 * ends it. What it has of its own are one door and its exports; see server.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "notify.h"
#include "server.h"

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
    ST_CMD_API,
    ST_CMD_USER,
    ST_CMD_ALLOW_PATH,
    ST_CMD_NO_SANDBOX,
    ST_CMD_THREADS,
    ST_CMD_POLL,
    ST_CMD_ENGINE,
    ST_CMD_STOP_TIMEOUT,
    {0},
};

struct nbd {
    struct st_server server; /* first */
    struct st_cmd_address address;
    const struct st_cmd_args *args;
};

/* What is wrong with the command line and needs nothing opened to see it. */
static int
check_args(struct nbd *n)
{
    const struct st_cmd_args *a = n->args;
    bool many = a->nmany[EXPORT];
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
    if (st_cmd_address_parse(&n->address, a->text[UNIX], a->text[ADDR],
                             a->text[FD], &err) < 0)
        return st_cmd_fail(ST_EXIT_USAGE, "%s", err.text);
    return 0;
}

static void
nbd_print(struct st_server *s)
{
    struct nbd *nbd = (struct nbd *)s;
    const struct st_graph_door *door = st_graph_next_door(s->graph, NULL);
    struct st_nbd_stats n = {0};

    if (door)
        st_nbd_stats(door->nbd, &n);
    fprintf(stderr,
            "nbd '%s' engine='%s' threads=%u clients=%ju clients_total=%ju\n"
            "    requests=%ju errors=%ju protocol_errors=%ju bytes_in=%ju "
            "bytes_out=%ju\n",
            nbd->address.before, st_domain_engine(s->world.domain), s->nloops,
            (uintmax_t)n.clients, (uintmax_t)n.clients_total,
            (uintmax_t)n.requests, (uintmax_t)n.errors,
            (uintmax_t)n.protocol_errors, (uintmax_t)n.bytes_in,
            (uintmax_t)n.bytes_out);
}

/* One disk, served by its name. */
static int
add_export(struct nbd *n, const char *text, bool named, struct st_err *err)
{
    const char *spec = named ? strchr(text, '=') + 1 : text, *disk;
    st_autofree char *name =
        strndup(text, named ? (size_t)(spec - text) - 1 : 0);
    struct st_graph *g = n->server.graph;
    int rc = name ? 0 : st_err_set(err, ENOMEM, "no memory");

    if (rc == 0)
        rc = st_graph_open(g, name, spec, n->args->text[RO], &disk, err);
    return rc ? rc : st_graph_export(g, DOOR, name, disk, err);
}

static int
nbd_set_up(struct st_server *s, struct st_err *err)
{
    struct nbd *n = (struct nbd *)s;
    const struct st_cmd_args *a = n->args;
    struct st_nbd_opts door = {.tls = a->number[TLS],
                               .tls_certificates = a->text[TLS_CERTIFICATES],
                               .tls_psk = a->text[TLS_PSK]};
    int rc = st_graph_add_nbd(s->graph, DOOR, &door, err);

    if (rc == 0 && a->nrest)
        rc = add_export(n, a->rest[0], false, err);
    for (unsigned i = 0; rc == 0 && i < a->nmany[EXPORT]; i++)
        rc = add_export(n, a->many[EXPORT][i], true, err);
    return rc ? rc : st_cmd_address_open(&n->address, err);
}

static int
nbd_open_doors(struct st_server *s, struct st_err *err)
{
    struct nbd *n = (struct nbd *)s;
    struct st_cmd_address *a = &n->address;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < a->nfds; i++) {
        int fd = a->fd[i];

        a->fd[i] = -1;
        rc = a->connected ? st_graph_connection(s->graph, DOOR, fd,
                                                st_server_stop, s, err)
                          : st_graph_listen(s->graph, DOOR, fd, err);
    }
    return rc;
}

static void
nbd_ready(struct st_server *s)
{
    struct nbd *nbd = (struct nbd *)s;
    const struct st_cmd_args *a = nbd->args;
    const struct st_log *log = &s->world.notice;
    const char *before = nbd->address.before, *after = nbd->address.after;
    unsigned n = a->nrest ? 1 : a->nmany[EXPORT];

    if (a->nmany[EXPORT] > 1)
        st_info(log, "serving %u exports on %s%s", n, before, after);
    else if (a->nmany[EXPORT])
        st_info(log, "serving %s on %s%.*s%s",
                strchr(a->many[EXPORT][0], '=') + 1, before,
                (int)strcspn(a->many[EXPORT][0], "="), a->many[EXPORT][0],
                after);
    else
        st_info(log, "serving %s on %s%s", a->rest[0], before, after);
    st_cmd_notify_ready(s->notify, "%u export%s on %s%s", n, n == 1 ? "" : "s",
                        before, after);
}

static void
nbd_close_sockets(struct st_server *s)
{
    st_cmd_address_close(&((struct nbd *)s)->address);
}

static int
nbd_run(const struct st_cmd_args *a)
{
    struct nbd n = {.args = a};
    const char *path = n.address.path;
    const struct st_server_opts o = {.level = a->level,
                                     .engine = a->number[ENGINE],
                                     .poll_us = st_cmd_poll_us(a, POLL_US),
                                     .threads = a->number[THREADS],
                                     .stop_s = a->number[STOP_TIMEOUT],
                                     .api = a->text[API],
                                     .user = a->text[USER],
                                     .allow = a->many[ALLOW_PATH],
                                     .nallow = a->nmany[ALLOW_PATH],
                                     .no_sandbox = a->text[NO_SANDBOX],
                                     .socket = &path,
                                     .nsockets = 1,
                                     .set_up = nbd_set_up,
                                     .open_doors = nbd_open_doors,
                                     .ready = nbd_ready,
                                     .print = nbd_print,
                                     .close_sockets = nbd_close_sockets};
    int status = check_args(&n);

    if (!status)
        status = st_server_check(&n.server, &o);
    if (!status)
        return st_server_run(&n.server);
    nbd_close_sockets(&n.server);
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
