/* SPDX-License-Identifier: MIT
 *
 * strata serve: NVMe controllers over vfio-user and disks over NBD, all in one
 * graph, until a signal or the verb quit ends it; see server.h.
 *
 *   settings -> controllers, doors -> disks at their places -> fault rules
 *            -> sockets -> (server.c) -> clients
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "mem.h"
#include "notify.h"
#include "server.h"
#include "settings.h"
#include "size.h"

enum {
    NVME_PCI,
    NBD,
    DISK,
    CONFIG,
    FAULTS,
    API,
    USER,
    ALLOW_PATH,
    NO_SANDBOX,
    THREADS,
    POLL_US,
    ENGINE,
    STOP_TIMEOUT,
    OPENHCL
};

enum { POLL_DEFAULT = 50, POLL_MAX = 1000000, FAULTS_MAX = 1 << 20 };

static const struct st_cmd_option serve_options[] = {
    {"nvme-pci", ST_CMD_MANY, "id=ID,vfio-user=PATH[,OPTION]...",
     "an NVMe controller for one virtual machine; options: mode=, group= of\n"
     "      the socket, intx=on, write-multi=on, doorbells=trap|mapped, "
     "queues=,\n"
     "      entries=, vectors=, namespaces=, subsystem=, serial=, model=",
     0, 0, 0},
    {"nbd", ST_CMD_MANY, "id=ID,unix=PATH|addr=HOST:PORT[,OPTION]...",
     "an NBD door; options: mode=, group=, tls=off|on|require,\n"
     "      tls-certificates=DIR, tls-psk=FILE",
     0, 0, 0},
    {"disk", ST_CMD_MANY, "SPEC,on=ID[,nsid=N][,on=ID...][,ro][,name=NAME]",
     "a disk, at one or more controllers and doors; behind the on= of a door\n"
     "      export=NAME",
     0, 0, 0},
    {"config", ST_CMD_TEXT, "FILE", "settings, as JSON, beside these options",
     0, 0, 0},
    {"faults", ST_CMD_TEXT, "FILE", "fault rules for all NVMe controllers", 0,
     0, 0},
    ST_CMD_API,
    ST_CMD_USER,
    ST_CMD_ALLOW_PATH,
    ST_CMD_NO_SANDBOX,
    ST_CMD_THREADS,
    {"poll-us", ST_CMD_TEXT, "N|always",
     "look for more work so long before sleeping; up to 1000000, default 50", 0,
     0, 0},
    ST_CMD_ENGINE,
    {"stop-timeout", ST_CMD_NUMBER, "SECONDS",
     "how long SIGTERM waits for clients to leave", 60, 0, 86400},
    {"openhcl-controller", ST_CMD_MANY, "OPTIONS", NULL, 0, 0, 0},
    {0},
};

struct serve {
    struct st_server server; /* first */
    struct st_cmd_args args; /* with what the file says */
    struct st_settings settings;
    struct st_cmd_sockets sockets;
    unsigned poll_us, nvme_poll_us;
    char *faults; /* owned */
};

/* ---- Options ---- */

static int
read_poll(struct serve *s, struct st_err *err)
{
    const char *text = s->args.text[POLL_US];
    uint64_t n = POLL_DEFAULT;
    int rc = 0;

    if (text && strcmp(text, "always") == 0) {
        s->poll_us = POLL_DEFAULT;
        s->nvme_poll_us = ST_NVME_POLL_ALWAYS;
        return 0;
    }
    if (text && st_number_parse("--poll-us", text, 0, POLL_MAX, &n, NULL) < 0)
        rc = st_err_set(err, EINVAL,
                        "invalid --poll-us '%s', expected 0 to %d or always",
                        text, POLL_MAX);
    s->poll_us = s->nvme_poll_us = (unsigned)n;
    return rc;
}

static int
read_faults(struct serve *s, struct st_err *err)
{
    const char *path = s->args.text[FAULTS];
    FILE *f;
    size_t n;

    if (!path)
        return 0;
    if (!s->settings.nnvme)
        return st_err_set(err, EINVAL,
                          "--faults has no effect without --nvme-pci");
    s->faults = malloc(FAULTS_MAX + 1);
    f = fopen(path, "re");
    if (!f || !s->faults)
        return st_err_set(err, f ? ENOMEM : errno, "--faults '%s': %s", path,
                          f ? "no memory" : strerror(errno));
    n = fread(s->faults, 1, FAULTS_MAX + 1, f);
    if (ferror(f) || n > FAULTS_MAX || memchr(s->faults, '\0', n)) {
        fclose(f);
        return st_err_set(err, EINVAL,
                          "--faults '%s' is no text of at most 1 MiB", path);
    }
    fclose(f);
    s->faults[n] = '\0';
    return 0;
}

/* A service manager's sockets for who has none of its own: those that are
 * called like it; one socket for the only one may have any name. */
static int
take_sockets(struct serve *s, const char *where, const char *id,
             const char *key, struct st_cmd_address *a, struct st_err *err)
{
    bool alone = s->settings.nnvme + s->settings.nnbd == 1;
    const char *what = a->what;
    int n;

    if (*a->path || *a->host)
        return 0;
    n = st_cmd_sockets_take(&s->sockets, id, a, err);
    if (n == 0 && alone && s->sockets.n == 1)
        n = st_cmd_sockets_take(&s->sockets, NULL, a, err);
    a->what = what;
    if (n == 0)
        return st_err_set(err, EINVAL,
                          "%s: missing %s, and no socket of a service manager "
                          "(LISTEN_FDNAMES) is called '%s'",
                          where, key, id);
    return n < 0 ? n : 0;
}

/* vfio-user has one socket, and it is a Unix socket: it carries descriptors. */
static int
check_vfio_socket(const struct st_settings_nvme *n, struct st_err *err)
{
    int domain = AF_UNIX;
    socklen_t len = sizeof(domain);

    if (n->address.nfds)
        getsockopt(n->address.fd[0], SOL_SOCKET, SO_DOMAIN, &domain, &len);
    if (n->address.nfds <= 1 && domain == AF_UNIX)
        return 0;
    return st_err_set(err, EINVAL,
                      "%s: LISTEN_FDS: expected one Unix socket for '%s'",
                      n->where, n->id);
}

static int
find_sockets(struct serve *s, struct st_err *err)
{
    struct st_settings *t = &s->settings;
    const char *left;
    int rc = st_cmd_sockets_open(&s->sockets, err);

    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++) {
        struct st_settings_nvme *n = &t->nvme[i];

        rc = take_sockets(s, n->where, n->id, "vfio-user=PATH", &n->address,
                          err);
        if (rc == 0)
            rc = check_vfio_socket(n, err);
    }
    for (unsigned i = 0; rc == 0 && i < t->nnbd; i++)
        rc = take_sockets(s, t->nbd[i].where, t->nbd[i].id,
                          "unix=PATH or addr=HOST:PORT", &t->nbd[i].address,
                          err);
    left = rc == 0 ? st_cmd_sockets_left(&s->sockets) : NULL;
    if (left)
        rc = st_err_set(err, EINVAL,
                        "the socket '%s' of a service manager (LISTEN_FDNAMES) "
                        "is for no controller or door that has none",
                        left);
    return rc;
}

static int
read_many(struct serve *s, unsigned row,
          int (*take)(struct st_settings *s, const char *text,
                      struct st_err *err),
          struct st_err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < s->args.nmany[row]; i++)
        rc = take(&s->settings, s->args.many[row][i], err);
    return rc;
}

static int
read_settings(struct serve *s, struct st_err *err)
{
    struct st_cmd_args *a = &s->args;
    int rc = 0;

    if (a->nrest)
        rc = st_err_set(err, EINVAL,
                        "'%s' is no option, see 'strata serve "
                        "--help'",
                        a->rest[0]);
    else if (a->nmany[OPENHCL])
        rc = st_err_set(err, EINVAL,
                        "--openhcl-controller '%s': there is no OpenHCL here, "
                        "use --nvme-pci id=ID,vfio-user=PATH",
                        a->many[OPENHCL][0]);
    if (rc == 0)
        rc = read_many(s, NVME_PCI, st_settings_nvme, err);
    if (rc == 0)
        rc = read_many(s, NBD, st_settings_nbd, err);
    if (rc == 0)
        rc = read_many(s, DISK, st_settings_disk, err);
    if (rc == 0)
        rc = read_many(s, ALLOW_PATH, st_settings_allow, err);
    if (rc == 0 && a->text[CONFIG])
        rc = st_settings_file(&s->settings, a->text[CONFIG], serve_options, a,
                              err);
    if (rc == 0)
        rc = st_settings_check(&s->settings, err);
    if (rc == 0)
        rc = read_poll(s, err);
    if (rc == 0)
        rc = read_faults(s, err);
    return rc ? rc : find_sockets(s, err);
}

/* ---- The server ---- */

static int
serve_set_up(struct st_server *server, struct st_err *err)
{
    struct serve *s = (struct serve *)server;
    struct st_settings *t = &s->settings;
    struct st_graph *g = server->graph;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++) {
        struct st_graph_nvme_opts o = t->nvme[i].opts;

        o.poll_us = s->nvme_poll_us;
        rc = st_graph_add_nvme(g, t->nvme[i].id, &o, err);
        if (rc < 0)
            st_err_prefix(err, "%s", t->nvme[i].where);
    }
    for (unsigned i = 0; rc == 0 && i < t->nnbd; i++) {
        rc = st_graph_add_nbd(g, t->nbd[i].id, &t->nbd[i].opts, err);
        if (rc < 0)
            st_err_prefix(err, "%s", t->nbd[i].where);
    }
    if (rc == 0)
        rc = st_graph_attach(g, t->disk, t->ndisks, err);
    if (rc == 0 && s->faults) {
        rc = st_graph_faults(g, NULL, s->faults, err);
        if (rc < 0)
            st_err_prefix(err, "--faults '%s'", s->args.text[FAULTS]);
    }
    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++)
        rc = st_cmd_address_open(&t->nvme[i].address, err);
    for (unsigned i = 0; rc == 0 && i < t->nnbd; i++)
        rc = st_cmd_address_open(&t->nbd[i].address, err);
    return rc;
}

static int
serve_open_doors(struct st_server *server, struct st_err *err)
{
    struct st_settings *t = &((struct serve *)server)->settings;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++) {
        int fd = t->nvme[i].address.fd[0];

        t->nvme[i].address.fd[0] = -1;
        listen(fd, 1); /* one client at a time: others wait, or try later */
        rc = st_graph_vfio_user(server->graph, t->nvme[i].id, fd, err);
    }
    for (unsigned i = 0; i < t->nnbd; i++) {
        struct st_cmd_address *a = &t->nbd[i].address;

        for (unsigned k = 0; rc == 0 && k < a->nfds; k++) {
            int fd = a->fd[k];

            a->fd[k] = -1;
            rc = st_graph_listen(server->graph, t->nbd[i].id, fd, err);
        }
    }
    return rc;
}

static void
serve_ready(struct st_server *server)
{
    const struct st_settings *t = &((struct serve *)server)->settings;
    const struct st_log *log = &server->world.notice;

    for (unsigned i = 0; i < t->nnvme; i++) {
        const struct st_cmd_address *a = &t->nvme[i].address;

        st_info(log, "%s: NVMe, vfio-user on %s", t->nvme[i].id,
                *a->path ? a->path : "a socket of the service manager's");
    }
    for (unsigned i = 0; i < t->nnbd; i++)
        st_info(log, "%s: %s%s", t->nbd[i].id, t->nbd[i].address.before,
                t->nbd[i].address.after);
    st_info(log, "serving %u disk%s at %u controller%s and %u door%s",
            t->ndisks, t->ndisks == 1 ? "" : "s", t->nnvme,
            t->nnvme == 1 ? "" : "s", t->nnbd, t->nnbd == 1 ? "" : "s");
    st_cmd_notify_ready(server->notify, "%u disks, %u controllers, %u doors",
                        t->ndisks, t->nnvme, t->nnbd);
}

/* ---- SIGUSR1 ---- */

struct printer {
    struct st_inspect v;
    char path[200];
};

static void
print_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    fprintf(stderr, "    %s%s=%ju\n", ((struct printer *)v)->path, name,
            (uintmax_t)value);
}

static void
print_text(struct st_inspect *v, const char *name, const char *value)
{
    fprintf(stderr, "    %s%s='%s'\n", ((struct printer *)v)->path, name,
            value);
}

static void
print_enter(struct st_inspect *v, const char *name)
{
    char *path = ((struct printer *)v)->path;
    size_t len = strlen(path);

    snprintf(path + len, sizeof(((struct printer *)v)->path) - len, "%s/",
             name);
}

static void
print_leave(struct st_inspect *v)
{
    char *path = ((struct printer *)v)->path, *slash;

    if (*path)
        path[strlen(path) - 1] = '\0';
    slash = strrchr(path, '/');
    path[slash ? slash - path + 1 : 0] = '\0';
}

static void
serve_print(struct st_server *s)
{
    const struct st_graph_controller *c = NULL;
    const struct st_graph_door *d = NULL;
    struct printer p = {.v = {.u64 = print_u64,
                              .text = print_text,
                              .enter = print_enter,
                              .leave = print_leave}};

    fprintf(stderr, "serve engine='%s' threads=%u\n",
            st_domain_engine(s->world.domain), s->nloops);
    while ((c = st_graph_next_controller(s->graph, c))) {
        fprintf(stderr, "  controller '%s'\n", c->name);
        st_graph_controller_inspect(c, &p.v);
    }
    while ((d = st_graph_next_door(s->graph, d))) {
        fprintf(stderr, "  door '%s'\n", d->name);
        st_nbd_inspect(d->nbd, &p.v);
    }
}

/* ---- The command ---- */

static void
serve_close_sockets(struct st_server *server)
{
    struct st_settings *t = &((struct serve *)server)->settings;

    for (unsigned i = 0; i < t->nnvme; i++)
        st_cmd_address_close(&t->nvme[i].address);
    for (unsigned i = 0; i < t->nnbd; i++)
        st_cmd_address_close(&t->nbd[i].address);
}

static int
serve_all(struct serve *s)
{
    const struct st_settings *t = &s->settings;
    const struct st_cmd_args *a = &s->args;
    unsigned n = t->nnvme + t->nnbd;
    st_autofree const char **socket = calloc(n, sizeof(*socket));
    const struct st_server_opts o = {.level = a->level,
                                     .engine = a->number[ENGINE],
                                     .poll_us = s->poll_us,
                                     .threads = a->number[THREADS],
                                     .stop_s = a->number[STOP_TIMEOUT],
                                     .api = a->text[API],
                                     .user = a->text[USER],
                                     .allow = t->allow,
                                     .nallow = t->nallow,
                                     .no_sandbox = a->text[NO_SANDBOX],
                                     .socket = socket,
                                     .nsockets = n,
                                     .set_up = serve_set_up,
                                     .open_doors = serve_open_doors,
                                     .ready = serve_ready,
                                     .print = serve_print,
                                     .close_sockets = serve_close_sockets};
    int status;

    if (!socket)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    for (unsigned i = 0; i < t->nnvme; i++)
        socket[i] = t->nvme[i].address.path;
    for (unsigned i = 0; i < t->nnbd; i++)
        socket[t->nnvme + i] = t->nbd[i].address.path;
    status = st_server_check(&s->server, &o);
    return status ? status : st_server_run(&s->server);
}

static int
serve_run(const struct st_cmd_args *a)
{
    st_autofree struct serve *s = calloc(1, sizeof(*s));
    struct st_err err;
    int rc, status;

    if (!s)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    s->args = *a;
    rc = read_settings(s, &err);
    status = rc < 0 ? st_cmd_fail_rc(rc, &err) : serve_all(s);
    st_settings_free(&s->settings);
    st_cmd_sockets_close(&s->sockets);
    free(s->faults);
    return status;
}

const struct st_cmd st_cmd_serve = {
    .name = "serve",
    .syntax = "[--nvme-pci ...] [--nbd ...] [--disk SPEC,on=ID ...]",
    .help = "serve NVMe controllers to virtual machines, and disks over NBD",
    .more = "SIGTERM or SIGINT: wait for clients to leave, flush, exit; again: "
            "cut them off.\nSIGUSR1: print every controller, door and disk "
            "with its counters.\n",
    .options = serve_options,
    .run = serve_run,
};
