/* SPDX-License-Identifier: MIT
 *
 * Namespaces come and go, and change their size.
 *
 *   home loop            workers                    disk
 *   ------------------   ------------------------   ---------------------
 *   add: published --->  a door at the first        a nexus, a listener
 *                        command
 *   remove: gone ----->  no command gets in;
 *           message      the last one closes  --->  its channel
 *           <- answer -- the door
 *   all have answered: listener, nexus; freed once nobody can read it
 *
 * The listener is the admin loop's, where events are told.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme_private.h"
#include "range.h"

/* A namespace, with what only this file needs. */
struct ns {
    struct nvme_ns ns; /* first */
    struct st_nvme *nvme;
    struct st_listener listener;
    struct st_deferred defer;
    /* Its removal. */
    struct st_nvme_call *call; /* who waits; NULL: gave up, or nobody yet */
    struct leave *leave;       /* owned: a message for each worker */
    unsigned left;             /* answers that are missing, on home */
    struct st_task unlistened;
};

/* The message to one worker that a namespace leaves. */
struct leave {
    struct st_task task; /* there, and back */
    struct nvme_worker *w;
    struct ns *ns;
};

/* ---- Doors ---- */

struct nvme_door *
st_nvme_door_get(struct nvme_worker *w, uint32_t nsid, bool format,
                 uint16_t *status)
{
    struct nvme_door *door;
    struct nvme_ns *ns;

    *status = NVME_INVALID_NAMESPACE | NVME_DNR;
    if (!nsid || nsid > w->io.ndoors)
        return NULL;
    door = &w->io.door[nsid - 1];
    ns = door->ns;
    if (__builtin_expect(!ns, 0))
        ns = atomic_load_explicit(&w->nvme->ns[nsid - 1], memory_order_acquire);
    if (!ns || atomic_load(&ns->gone))
        return NULL;
    if (__builtin_expect(
            atomic_load_explicit(&ns->formatting, memory_order_acquire) &&
                !format,
            0)) {
        *status = NVME_FORMAT_IN_PROGRESS;
        return NULL;
    }
    if (__builtin_expect(!door->chan, 0)) {
        door->ns = ns;
        if (st_disk_open_chan(ns->disk, w->io.loop, &door->chan) < 0) {
            door->chan = NULL;
            if (!door->in_flight)
                door->ns = NULL;
            *status = NVME_INTERNAL_ERROR;
            return NULL;
        }
    }
    door->in_flight++;
    *status = NVME_OK;
    return door;
}

static void
door_close(struct nvme_door *door)
{
    if (door->chan)
        st_disk_close_chan(door->chan);
    door->chan = NULL;
    door->ns = NULL;
}

void
st_nvme_doors_close(struct nvme_worker *w)
{
    for (unsigned i = 0; i < w->io.ndoors; i++)
        door_close(&w->io.door[i]);
}

/* The door is empty: it closes, if its namespace leaves. */
static void
door_leave(struct nvme_worker *w, struct nvme_door *door, struct ns *ns)
{
    struct leave *l = &ns->leave[w->index];

    door_close(door);
    st_post(w->nvme->home, &l->task);
}

void
st_nvme_door_put(struct nvme_worker *w, struct nvme_door *door)
{
    struct nvme_ns *ns = door->ns;

    if (--door->in_flight)
        return;
    if (__builtin_expect(w->draining == ns->nsid, 0)) {
        w->draining = 0;
        st_nvme_answer(w, NVME_ROUND_DRAIN);
    }
    if (__builtin_expect(door->leaving, 0)) {
        door->leaving = false;
        door_leave(w, door, (struct ns *)ns);
    }
}

void
st_nvme_worker_drain(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_msg, task)->w;
    uint32_t nsid = w->nvme->format_nsid;

    if (w->io.door[nsid - 1].in_flight)
        w->draining = nsid;
    else
        st_nvme_answer(w, NVME_ROUND_DRAIN);
}

/* ---- What there is ---- */

static struct ns *
ns_at(struct st_nvme *n, uint32_t nsid)
{
    return nsid && nsid <= n->info.nn
               ? (struct ns *)atomic_load_explicit(&n->ns[nsid - 1],
                                                   memory_order_acquire)
               : NULL;
}

struct st_disk *
st_nvme_namespace(struct st_nvme *n, uint32_t nsid)
{
    struct ns *ns = ns_at(n, nsid);

    return ns && !atomic_load(&ns->ns.gone) ? ns->ns.disk : NULL;
}

void
st_nvme_ns_table(struct st_nvme *n, struct nvme_ns_table *t)
{
    for (uint32_t i = 0; i < n->info.nn; i++) {
        struct nvme_ns *ns =
            atomic_load_explicit(&n->ns[i], memory_order_acquire);

        n->ns_list[i] = ns && !atomic_load(&ns->gone) ? ns : NULL;
    }
    t->ns = n->ns_list;
    t->nn = n->info.nn;
    t->cntlids = &n->info.cntlid;
    t->ncntlids = 1;
}

/* ---- Add ---- */

static void
changed(struct st_listener *l, unsigned events, uint64_t size)
{
    struct ns *ns = st_container(l, struct ns, listener);

    (void)size;
    if (events & (ST_EVENT_RESIZE | ST_EVENT_MEDIA) &&
        !atomic_load(&ns->ns.gone))
        st_nvme_ns_changed(ns->nvme, ns->ns.nsid);
}

/* Identifiers: the disk's own; else they follow from the subsystem's and the
 * number (a UUID of version 8, RFC 9562: "custom"). */
static void
identify(struct ns *ns, const struct st_nvme *n)
{
    const struct st_props *props = st_disk_props(ns->ns.disk);
    uint8_t *id = ns->ns.uuid;

    if (props->has_id) {
        memcpy(id, props->id, sizeof(props->id));
    } else {
        memcpy(id, n->subsystem.b, sizeof(n->subsystem.b));
        for (unsigned i = 0; i < 4; i++)
            id[12 + i] ^= (uint8_t)(ns->ns.nsid >> (24 - 8 * i));
        id[6] = (uint8_t)((id[6] & 0x0f) | 0x80);
        id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
    }
    memcpy(ns->ns.nguid, id, sizeof(ns->ns.nguid));
}

static uint32_t
free_nsid(struct st_nvme *n)
{
    uint32_t nsid = 1;

    while (nsid <= n->info.nn && ns_at(n, nsid))
        nsid++;
    return nsid;
}

int
st_nvme_add_namespace(struct st_nvme *n, uint32_t nsid, struct st_disk *d,
                      bool read_only, uint32_t *out, struct st_err *err)
{
    const struct st_props *props = st_disk_props(d);
    bool any = nsid == 0;
    struct ns *ns;

    if (any)
        nsid = free_nsid(n);
    if (any && nsid > n->info.nn)
        return st_err_set(err, ENOSPC, "all %u namespaces are taken",
                          n->info.nn);
    if (nsid > n->info.nn)
        return st_err_set(err, EINVAL, "namespace %u is not from 1 to %u", nsid,
                          n->info.nn);
    if (ns_at(n, nsid))
        return st_err_set(err, EEXIST, "namespace %u is taken", nsid);
    ns = calloc(1, sizeof(*ns));
    if (ns)
        ns->leave = calloc(n->nworkers, sizeof(*ns->leave));
    if (!ns || !ns->leave) {
        free(ns);
        return st_err_set(err, ENOMEM, "no memory for a namespace");
    }
    ns->ns.nexus = st_disk_attach(d);
    if (!ns->ns.nexus) {
        free(ns->leave);
        free(ns);
        return st_err_set(err, ENOSPC,
                          "disk '%s' has as many users as it can have",
                          st_disk_name(d));
    }
    ns->nvme = n;
    ns->ns.nsid = nsid;
    ns->ns.disk = d;
    ns->ns.read_only = read_only || props->read_only;
    ns->ns.shared = n->info.shared;
    ns->ns.shift = (unsigned)__builtin_ctz(props->sector_size);
    identify(ns, n);
    ns->listener.loop = n->admin->io.loop;
    ns->listener.event = changed;
    st_disk_listen(d, &ns->listener);
    atomic_store_explicit(&n->ns[nsid - 1], &ns->ns, memory_order_release);
    st_nvme_ns_changed(n, nsid);
    if (out)
        *out = nsid;
    return 0;
}

/* ---- Remove ---- */

static void
ns_free(struct st_deferred *d)
{
    struct ns *ns = st_container(d, struct ns, defer);

    free(ns->leave);
    free(ns);
}

/* Home: one namespace less, of those that end with the controller. */
static void
ended_less(struct st_nvme *n)
{
    if (--n->namespaces_left == 0)
        n->namespaces_ended(n);
}

/* Home: the listener has gone, the last. */
static void
removed(struct st_task *t)
{
    struct ns *ns = st_container(t, struct ns, unlistened);
    struct st_nvme_call *call = ns->call;
    struct st_nvme *n = ns->nvme;

    st_disk_detach(ns->ns.disk, ns->ns.nexus);
    atomic_store(&n->ns[ns->ns.nsid - 1], NULL);
    st_defer(n->home, &ns->defer, ns_free);
    if (call) {
        st_timer_stop(n->home, &call->timer);
        st_nvme_call_end(call, 0);
    }
    if (n->namespaces_ended)
        ended_less(n);
}

/* The admin loop: no event comes any more. */
static void
unlistened(struct st_listener *l)
{
    struct ns *ns = st_container(l, struct ns, listener);

    ns->unlistened.run = removed;
    st_post(ns->nvme->home, &ns->unlistened);
}

/* Home: nobody uses NS, as far as one more is concerned. */
static void
left_less(struct ns *ns)
{
    if (--ns->left)
        return;
    ns->listener.gone = unlistened;
    st_disk_unlisten(&ns->listener);
}

/* Home: a worker has closed its door. */
static void
left_run(struct st_task *t)
{
    left_less(st_container(t, struct leave, task)->ns);
}

/* A worker hears of it. */
static void
leave_run(struct st_task *t)
{
    struct leave *l = st_container(t, struct leave, task);
    struct nvme_door *door = &l->w->io.door[l->ns->ns.nsid - 1];

    l->task.run = left_run;
    if (door->in_flight)
        door->leaving = true;
    else
        door_leave(l->w, door, l->ns);
}

static void
remove_late(struct st_timer *t)
{
    struct st_nvme_call *c = st_container(t, struct st_nvme_call, timer);
    struct ns *ns = c->work;

    ns->call = NULL;
    st_err_set(&c->err, ETIMEDOUT,
               "commands to namespace %u have not ended; its disk is in use",
               c->nsid);
    st_nvme_call_end(c, -ETIMEDOUT);
}

/* Tell every worker that may have a door. One that has never been used cannot
 * get one: whoever uses it first sees that the namespace is gone. */
static void
tell_workers(struct ns *ns)
{
    struct st_nvme *n = ns->nvme;

    atomic_store(&ns->ns.gone, true);
    st_nvme_ns_changed(n, ns->ns.nsid);
    ns->left = 1;
    for (unsigned i = 0; i < n->nworkers; i++) {
        struct nvme_worker *w = &n->worker[i];

        if (!atomic_load(&w->used))
            continue;
        ns->leave[i] = (struct leave){{.run = leave_run}, w, ns};
        ns->left++;
        st_post(w->io.loop, &ns->leave[i].task);
    }
    left_less(ns);
}

static void
remove_start(struct st_nvme_call *c)
{
    struct ns *ns = ns_at(c->nvme, c->nsid);

    if (!ns) {
        st_err_set(&c->err, ENOENT, "there is no namespace %u", c->nsid);
        st_nvme_call_end(c, -ENOENT);
        return;
    }
    c->work = ns;
    ns->call = c;
    c->timer.fire = remove_late;
    st_timer_set(c->nvme->home, &c->timer, c->nvme->home->now + c->timeout_ns);
    if (!atomic_load(&ns->ns.gone))
        tell_workers(ns);
}

void
st_nvme_remove_namespace(struct st_nvme *n, uint32_t nsid, uint64_t timeout_ns,
                         struct st_nvme_call *c)
{
    c->nsid = nsid;
    c->timeout_ns = timeout_ns;
    st_nvme_call(n, c, remove_start);
}

/* ---- The end ---- */

void
st_nvme_namespaces_end(struct st_nvme *n, void (*then)(struct st_nvme *n))
{
    n->namespaces_ended = then;
    n->namespaces_left = 1;
    for (uint32_t nsid = 1; nsid <= n->info.nn; nsid++) {
        struct ns *ns = ns_at(n, nsid);

        if (!ns)
            continue;
        n->namespaces_left++;
        if (!atomic_load(&ns->ns.gone))
            tell_workers(ns);
    }
    ended_less(n);
}
