/* SPDX-License-Identifier: MIT
 *
 * Controllers, doors and disks from settings; see serving.h.
 */
#include "serving.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "keep.h"
#include "mem.h"
#include "notify.h"
#include "size.h"

enum { POLL_DEFAULT = 50, POLL_MAX = 1000000, FAULTS_MAX = 1 << 20 };

/* ---- Options ---- */

static int
read_poll(struct st_serving *s, const char *text, struct st_err *err)
{
    uint64_t n = st_spin_us(POLL_DEFAULT);
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
read_faults(struct st_serving *s, const char *path, struct st_err *err)
{
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
    s->faults_path = path;
    return 0;
}

static int
read_many(struct st_serving *s, const struct st_cmd_args *a, unsigned row,
          int (*take)(struct st_settings *t, const char *text,
                      struct st_err *err),
          struct st_err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < a->nmany[row]; i++)
        rc = take(&s->settings, a->many[row][i], err);
    return rc;
}

int
st_serving_read(struct st_serving *s, const struct st_cmd *command,
                const struct st_serving_rows *rows, struct st_cmd_args *a,
                struct st_err *err)
{
    int rc = 0;

    if (a->nrest)
        rc =
            st_err_set(err, EINVAL, "'%s' is no option, see 'strata %s --help'",
                       a->rest[0], command->name);
    if (rc == 0)
        rc = read_many(s, a, rows->nvme_pci, st_settings_nvme, err);
    if (rc == 0)
        rc = read_many(s, a, rows->nbd, st_settings_nbd, err);
    if (rc == 0)
        rc = read_many(s, a, rows->disk, st_settings_disk, err);
    if (rc == 0 && rows->old_nvme)
        rc = read_many(s, a, rows->old_nvme, st_settings_old_nvme, err);
    if (rc == 0)
        rc = read_many(s, a, rows->allow_path, st_settings_allow, err);
    if (rc == 0 && a->text[rows->config])
        rc = st_settings_file(&s->settings, a->text[rows->config],
                              command->options, a, err);
    if (rc == 0)
        rc = st_settings_check(&s->settings, err);
    if (rc == 0)
        rc = read_poll(s, a->text[rows->poll_us], err);
    return rc ? rc : read_faults(s, a->text[rows->faults], err);
}

/* How many have a place to listen. */
static unsigned
listeners(const struct st_settings *t)
{
    unsigned n = t->nnbd;

    for (unsigned i = 0; i < t->nnvme; i++)
        n += !t->nvme[i].plugged;
    return n;
}

/* A service manager's sockets for who has none of its own: those that are
 * called like it; one socket for the only one may have any name. */
static int
take_sockets(struct st_serving *s, const char *where, const char *id,
             const char *key, struct st_cmd_address *a, struct st_err *err)
{
    bool alone = listeners(&s->settings) == 1;
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

int
st_serving_sockets(struct st_serving *s, struct st_err *err)
{
    struct st_settings *t = &s->settings;
    const char *left;
    int rc = st_cmd_sockets_open(&s->sockets, err);

    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++) {
        struct st_settings_nvme *n = &t->nvme[i];

        if (n->plugged)
            continue;
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

/* ---- The server ---- */

/* Where a machine connects: it may be there already, from before. */
static int
open_controllers_socket(struct st_serving *s, struct st_settings_nvme *n,
                        struct st_err *err)
{
    int fd = n->address.nfds ? -1 : st_keep_get(s->keep, "%s.listen", n->id);
    int rc = 0;

    if (fd >= 0)
        st_cmd_address_adopt(&n->address, fd);
    else
        rc = st_cmd_address_open(&n->address, err);
    if (rc == 0 && *n->address.path)
        st_keep_put(s->keep, n->address.fd[0], "%s.listen", n->id);
    return rc;
}

int
st_serving_set_up(struct st_server *server, struct st_err *err)
{
    struct st_serving *s = (struct st_serving *)server;
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
    /* Those who say where they want to be come first. */
    for (unsigned i = 0; rc == 0 && i < 2 * t->nnvme; i++) {
        const struct st_settings_nvme *n = &t->nvme[i % t->nnvme];

        if (!n->plugged || (i < t->nnvme) != (n->slot > 0))
            continue;
        rc = st_graph_plug(g, n->id, n->slot, err);
        if (rc < 0)
            st_err_prefix(err, "%s", n->where);
    }
    if (rc == 0)
        rc = st_graph_attach(g, t->disk, t->ndisks, err);
    if (rc == 0 && s->faults) {
        rc = st_graph_faults(g, NULL, s->faults, err);
        if (rc < 0)
            st_err_prefix(err, "--faults '%s'", s->faults_path);
    }
    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++)
        if (!t->nvme[i].plugged)
            rc = open_controllers_socket(s, &t->nvme[i], err);
    for (unsigned i = 0; rc == 0 && i < t->nnbd; i++)
        rc = st_cmd_address_open(&t->nbd[i].address, err);
    return rc;
}

int
st_serving_open_doors(struct st_server *server, struct st_err *err)
{
    struct st_settings *t = &((struct st_serving *)server)->settings;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < t->nnvme; i++) {
        int fd = t->nvme[i].address.fd[0];

        if (t->nvme[i].plugged)
            continue;
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
    st_keep_forget(((struct st_serving *)server)->keep);
    return rc;
}

void
st_serving_ready(struct st_server *server)
{
    const struct st_settings *t = &((struct st_serving *)server)->settings;
    const struct st_log *log = &server->world.notice;

    for (unsigned i = 0; i < t->nnvme; i++) {
        const struct st_cmd_address *a = &t->nvme[i].address;

        if (t->nvme[i].plugged)
            continue;
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

void
st_serving_print(struct st_server *s)
{
    const struct st_graph_controller *c = NULL;
    const struct st_graph_door *d = NULL;
    struct printer p = {.v = {.u64 = print_u64,
                              .text = print_text,
                              .enter = print_enter,
                              .leave = print_leave}};

    fprintf(stderr, "engine='%s' threads=%u\n",
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

void
st_serving_close_sockets(struct st_server *server)
{
    struct st_settings *t = &((struct st_serving *)server)->settings;

    for (unsigned i = 0; i < t->nnvme; i++)
        st_cmd_address_close(&t->nvme[i].address);
    for (unsigned i = 0; i < t->nnbd; i++)
        st_cmd_address_close(&t->nbd[i].address);
}

/* ---- All of it ---- */

int
st_serving_run(struct st_serving *s, struct st_server_opts *o)
{
    const struct st_settings *t = &s->settings;
    unsigned n = t->nnvme + t->nnbd;
    st_autofree const char **socket =
        calloc(n + o->nsockets + 1, sizeof(*socket));
    int status;

    if (!socket)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    for (unsigned i = 0; i < t->nnvme; i++)
        socket[i] = t->nvme[i].address.path;
    for (unsigned i = 0; i < t->nnbd; i++)
        socket[t->nnvme + i] = t->nbd[i].address.path;
    o->poll_us = s->poll_us;
    o->allow = t->allow;
    o->nallow = t->nallow;
    for (unsigned i = 0; i < o->nsockets; i++)
        socket[n++] = o->socket[i];
    o->socket = socket;
    o->nsockets = n;
    status = st_server_check(&s->server, o);
    return status ? status : st_server_run(&s->server);
}

void
st_serving_free(struct st_serving *s)
{
    st_settings_free(&s->settings);
    st_cmd_sockets_close(&s->sockets);
    st_keep_close(s->keep);
    free(s->faults);
}
