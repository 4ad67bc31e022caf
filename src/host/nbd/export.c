/* SPDX-License-Identifier: MIT
 *
 * Exports come and go while clients are served.
 *
 *   control                       each worker, for its port
 *   unexport: not in the table --SHUT-----> new requests: ESHUTDOWN
 *   1 s later, and each second ----DEAFEN--> reads no more, closes when quiet
 *   at the timeout ----------------CUT-----> cancels and closes
 *   done <--- when all have said left <----- the last user has gone
 *
 * - A worker looks an export up and opens its port within one task. SHUT is
 *   posted after the table has changed: once it has arrived, nobody comes any
 *   more, and the port's users can only become fewer.
 * - port.state says who may post: control's orders only while the worker has
 *   not said left, so that nothing is under way to a port that is freed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd_private.h"

#define SECOND UINT64_C(1000000000)

/* ---- The table ---- */

struct nbd_table *
st_nbd_table_new(unsigned room)
{
    struct nbd_table *t;

    return calloc(1, sizeof(*t) + room * sizeof(t->export[0]));
}

static void
table_free(struct st_deferred *d)
{
    free(st_container(d, struct nbd_table, deferred));
}

struct nbd_export *
st_nbd_find(struct st_nbd *s, const void *name, size_t len)
{
    struct nbd_table *t = st_nbd_table(s);

    for (unsigned i = 0; i < t->n; i++) {
        struct nbd_export *e = t->export[i];

        if (e && e->name_len == len &&
            (!len || memcmp(e->name, name, len) == 0))
            return e;
    }
    return NULL;
}

/* ---- Ports ---- */

struct nbd_port *
st_nbd_port_get(struct nbd_worker *w, struct nbd_export *e)
{
    struct nbd_port *port = &e->port[w->index];

    if (!port->chan && st_disk_open_chan(e->disk, w->loop, &port->chan) < 0) {
        port->chan = NULL;
        return NULL;
    }
    port->users++;
    return port;
}

/* Nobody uses a leaving port: the last word, unless an order is on its way,
 * which then brings us back here. */
static void
port_leave(struct nbd_port *port)
{
    int knows = NBD_PORT_KNOWS;

    if (atomic_compare_exchange_strong(&port->state, &knows, NBD_PORT_LEFT))
        st_post(port->export->server->control, &port->left);
}

void
st_nbd_port_put(struct nbd_port *port)
{
    struct nbd_slot *s;

    if (--port->users)
        return;
    while ((s = port->free)) {
        port->free = s->next;
        free(s);
    }
    st_disk_close_chan(port->chan);
    port->chan = NULL;
    if (port->leaving)
        port_leave(port);
}

/* Message to a worker: port.order. */
static void
port_obey(struct st_task *t)
{
    struct nbd_port *port = st_container(t, struct nbd_port, obey);
    int order;

    atomic_store(&port->state, NBD_PORT_KNOWS);
    order = atomic_load(&port->order);
    port->leaving = true;
    st_list_for(c, tmp, &port->worker->conns, struct nbd_conn, link)
    {
        if (c->port != port)
            continue;
        c->shut = true;
        if (order == NBD_CUT) {
            st_nbd_cancel(c);
            st_nbd_conn_fail(c, NULL);
        } else if (order == NBD_DEAFEN && !c->deaf && !c->in) {
            st_nbd_conn_deafen(c);
            st_nbd_conn_settle(c);
        }
    }
    if (!port->users)
        port_leave(port);
}

/* Message from a worker: nobody there uses the export, nor will. */
static void
port_left(struct st_task *t)
{
    st_nbd_export_let_go(st_container(t, struct nbd_port, left)->export);
}

static void
export_order(struct nbd_export *e, enum nbd_order order)
{
    for (unsigned i = 0; i < e->server->nworkers; i++) {
        struct nbd_port *port = &e->port[i];
        int knows = NBD_PORT_KNOWS;

        atomic_store(&port->order, (int)order);
        if (atomic_compare_exchange_strong(&port->state, &knows,
                                           NBD_PORT_ORDERED))
            st_post(port->worker->loop, &port->obey);
    }
}

/* ---- Coming ---- */

void
st_nbd_export_free(struct nbd_export *e)
{
    if (!e)
        return;
    if (e->nexus)
        st_disk_detach(e->disk, e->nexus);
    free(e->name);
    free(e->description);
    free(e);
}

/* NULL: out of memory. */
static struct nbd_export *
export_new(struct st_nbd *s, const char *name, const char *description,
           struct st_disk *disk, bool read_only)
{
    struct nbd_export *e;
    size_t size = sizeof(*e) + s->nworkers * sizeof(e->port[0]);

    e = aligned_alloc(_Alignof(struct nbd_export), size);
    if (!e)
        return NULL;
    memset(e, 0, size);
    e->server = s;
    e->name = strdup(name);
    e->name_len = strlen(name);
    e->description = strdup(description ? description : "");
    e->id = ++s->last_id;
    e->disk = disk;
    e->read_only = read_only || st_disk_props(disk)->read_only;
    st_list_init(&e->link);
    for (unsigned i = 0; i < s->nworkers; i++) {
        e->port[i].export = e;
        e->port[i].worker = &s->worker[i];
        e->port[i].obey.run = port_obey;
        e->port[i].left.run = port_left;
    }
    if (!e->name || !e->description) {
        st_nbd_export_free(e);
        return NULL;
    }
    return e;
}

int
st_nbd_export(struct st_nbd *s, const char *name, const char *description,
              struct st_disk *disk, bool read_only, struct st_err *err)
{
    struct nbd_table *old = st_nbd_table(s), *t;
    struct nbd_export *e;

    if (s->stopping)
        return st_err_set(err, ESHUTDOWN, "nbd: server is shutting down");
    if (strlen(name) > NBD_NAME_MAX ||
        (description && strlen(description) > NBD_NAME_MAX))
        return st_err_set(err, EINVAL,
                          "nbd: export name or description is "
                          "longer than %d bytes",
                          NBD_NAME_MAX);
    if (st_nbd_find(s, name, strlen(name)))
        return st_err_set(err, EEXIST, "nbd: there is an export '%s' already",
                          name);
    t = st_nbd_table_new(old->n + 1);
    e = export_new(s, name, description, disk, read_only);
    if (!t || !e) {
        free(t);
        st_nbd_export_free(e);
        return st_err_set(err, ENOMEM, "nbd: out of memory");
    }
    e->nexus = st_disk_attach(disk);
    if (!e->nexus) {
        free(t);
        st_nbd_export_free(e);
        return st_err_set(err, ENOSPC, "nbd: too many initiators at disk '%s'",
                          st_disk_name(disk));
    }
    for (unsigned i = 0; i < old->n; i++)
        if (old->export[i])
            t->export[t->n++] = old->export[i];
    t->export[t->n++] = e;
    atomic_store_explicit(&s->table, t, memory_order_release);
    st_defer(s->control, &old->deferred, table_free);
    return 0;
}

/* ---- Leaving ---- */

void
st_nbd_export_let_go(struct nbd_export *e)
{
    struct st_nbd_unexport *u = e->unexport;
    struct st_nbd *s = e->server;

    if (--e->holders)
        return;
    st_timer_stop(s->control, &u->timer);
    st_list_remove(&e->link);
    st_nbd_export_free(e);
    u->export = NULL;
    u->done(u);
    st_nbd_check(s);
}

static void
unexport_task(struct st_task *t)
{
    st_nbd_export_let_go(st_container(t, struct st_nbd_unexport, task)->export);
}

static void
unexport_timer(struct st_timer *t)
{
    struct nbd_export *e =
        st_container(t, struct st_nbd_unexport, timer)->export;
    struct st_loop *l = e->server->control;

    if (l->now >= e->deadline) {
        export_order(e, NBD_CUT);
    } else {
        export_order(e, NBD_DEAFEN);
        st_timer_set(l, t, st_min(l->now + SECOND, e->deadline));
    }
}

int
st_nbd_unexport(struct st_nbd *s, const char *name, uint64_t timeout_ns,
                struct st_nbd_unexport *u)
{
    struct nbd_export *e = st_nbd_find(s, name, strlen(name));
    struct nbd_table *t = st_nbd_table(s);
    uint64_t now = s->control->now;

    if (!e || s->ended)
        return -ENOENT;
    for (unsigned i = 0; i < t->n; i++)
        if (t->export[i] == e)
            atomic_store(&t->export[i], NULL);
    st_list_append(&s->leaving, &e->link);
    e->unexport = u;
    e->deadline = timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX;
    e->holders = s->flushes == e;
    u->export = e;
    u->timer = (struct st_timer){.fire = unexport_timer};
    u->task = (struct st_task){.run = unexport_task};
    if (s->flushing) { /* no connection is left; the workers may be gone, too */
        e->holders++;
        st_post(s->control, &u->task);
        return 0;
    }
    e->holders += s->nworkers;
    export_order(e, NBD_SHUT);
    st_timer_set(s->control, &u->timer, st_min(now + SECOND, e->deadline));
    return 0;
}
