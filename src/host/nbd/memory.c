/* SPDX-License-Identifier: MIT
 *
 * Blocks, and the one memory cap that all connections of a process share.
 *
 *   ST_CAP_NBD_MEMORY --1 MiB steps--> worker --blocks--> connections
 *
 * - A connection that cannot have what it needs is not read; it waits in its
 *   worker's FIFO and gets the memory in turn.
 * - The last quarter of the cap is for connections that hold nothing: clients
 *   that never read their replies cannot lock the others out.
 * - No request asks for more than a quarter of the cap at once.
 * - Workers that wait are HUNGRY. While one is, the others keep no spare
 *   memory, take no more than their share, and call it when they give back.
 * - Freed blocks are used again last in, first out, while they are warm in the
 *   cache of the CPU.
 */
#include <stdlib.h>

#include "nbd_private.h"

enum {
    STEP = 1 << 20,      /* what a worker takes and gives at least */
    CACHE_MAX = 4 << 20, /* free blocks that a worker keeps */
};

static unsigned
class_of(uint32_t size)
{
    return (unsigned)(__builtin_ctz(size) - 12) / 2;
}

uint32_t
st_nbd_block_size(uint64_t len)
{
    uint32_t size = NBD_BLOCK_MIN;

    while (size < len && size < NBD_BLOCK_MAX)
        size *= 4;
    return size;
}

static struct st_cap_row *
cap_of(struct nbd_worker *w)
{
    return &w->server->caps->row[ST_CAP_NBD_MEMORY];
}

bool
st_nbd_mem_short(struct nbd_worker *w)
{
    struct st_cap_row *r = cap_of(w);

    return atomic_load_explicit(&r->used, memory_order_relaxed) > r->limit / 2;
}

uint64_t
st_nbd_mem_share(struct nbd_worker *w)
{
    return cap_of(w)->limit / 4;
}

static void
block_free(struct nbd_block *b)
{
    free(b->data);
    free(b);
}

static void
cache_drop(struct nbd_worker *w)
{
    for (unsigned i = 0; i < NBD_CLASSES; i++) {
        struct nbd_block *b;

        while ((b = w->cache[i])) {
            w->cache[i] = b->next;
            w->cached -= b->size;
            block_free(b);
        }
    }
}

static bool
others_hungry(struct nbd_worker *w)
{
    unsigned n =
        atomic_load_explicit(&w->server->nhungry, memory_order_relaxed);

    return n >
           (atomic_load_explicit(&w->hungry, memory_order_relaxed) != NBD_FED);
}

/* Ask to be called, and the others, who may be idle, to give what they do not
 * use; harmless when a call is on its way already. */
static void
become_hungry(struct nbd_worker *w)
{
    struct st_nbd *s = w->server;
    int fed = NBD_FED;

    if (!atomic_compare_exchange_strong(&w->hungry, &fed, NBD_HUNGRY))
        return;
    atomic_fetch_add(&s->nhungry, 1);
    for (unsigned i = 0; i < s->nworkers; i++) {
        struct nbd_worker *o = &s->worker[i];

        if (o != w && !atomic_exchange(&o->shrinking, true))
            st_post(o->loop, &o->shrink);
    }
}

static void
become_fed(struct nbd_worker *w, int from)
{
    if (atomic_compare_exchange_strong(&w->hungry, &from, NBD_FED))
        atomic_fetch_sub(&w->server->nhungry, 1);
}

/* Give N granted bytes back to the process and call who waits for them. */
static void
cap_give(struct nbd_worker *w, uint64_t n)
{
    struct st_nbd *s = w->server;

    w->granted -= n;
    st_cap_give(s->caps, ST_CAP_NBD_MEMORY, n);
    for (unsigned i = 0; atomic_load(&s->nhungry) && i < s->nworkers; i++) {
        struct nbd_worker *o = &s->worker[i];
        int hungry = NBD_HUNGRY;

        if (atomic_compare_exchange_strong(&o->hungry, &hungry, NBD_CALLED))
            st_post(o->loop, &o->wake);
    }
}

static bool
fits(struct nbd_worker *w, uint64_t bytes)
{
    return w->used + w->cached + bytes <= w->granted;
}

/* Let W have BYTES, if need be out of the cap. */
static bool
obtain(struct nbd_worker *w, uint64_t bytes)
{
    struct st_caps *caps = w->server->caps;
    uint64_t need, step;

    if (fits(w, bytes))
        return true;
    need = step = w->used + w->cached + bytes - w->granted;
    if (others_hungry(w)) {
        /* No more than a fair share, unless nothing of it will come back. */
        if (w->held && w->used + bytes > cap_of(w)->limit / w->server->nworkers)
            return false;
    } else {
        step = st_max(need, STEP);
    }
    /* A whole step, or at the cap's end just what is needed. */
    if (!st_cap_take(caps, ST_CAP_NBD_MEMORY, step)) {
        if (step == need || !st_cap_take(caps, ST_CAP_NBD_MEMORY, need))
            return false;
        step = need;
    }
    w->granted += step;
    return true;
}

/* What C may have now: memory, unless it holds some and memory is short. */
static bool
try_take(struct nbd_conn *c, uint64_t bytes)
{
    struct nbd_worker *w = c->worker;
    struct st_cap_row *r = cap_of(w);

    if (c->held &&
        atomic_load_explicit(&r->used, memory_order_relaxed) > r->limit / 4 * 3)
        return false;
    if (!obtain(w, bytes)) {
        cache_drop(w);
        if (!obtain(w, bytes))
            return false;
    }
    w->used += bytes;
    return true;
}

static void
feed_soon(struct nbd_worker *w)
{
    if (!w->feed_queued && !st_list_empty(&w->waiting)) {
        w->feed_queued = true;
        st_ready(w->loop, &w->feed);
    }
}

bool
st_nbd_mem_take(struct nbd_conn *c, uint64_t bytes)
{
    struct nbd_worker *w = c->worker;

    if (c->grant) {
        uint64_t grant = c->grant;

        c->grant = 0;
        if (grant == bytes)
            return true;
        st_nbd_mem_give(w, grant); /* it changed its mind */
    }
    if (!st_list_empty(&c->wait)) {
        c->need = bytes;
        return false;
    }
    if (st_list_empty(&w->waiting) && try_take(c, bytes))
        return true;
    c->need = bytes;
    st_list_append(&w->waiting, &c->wait);
    feed_soon(w);
    return false;
}

/* Serve those who wait, in order. Who holds memory while it is short is passed
 * over: it gets more when what it holds has been sent. */
void
st_nbd_mem_feed(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, feed);
    bool asked = false;

    w->feed_queued = false;
again:
    st_list_for(c, tmp, &w->waiting, struct nbd_conn, wait)
    {
        if (!try_take(c, c->need)) {
            if (c->held)
                continue;
            break;
        }
        st_list_remove(&c->wait);
        c->grant = c->need;
        st_nbd_conn_wake(c);
    }
    if (st_list_empty(&w->waiting)) {
        become_fed(w, NBD_HUNGRY);
    } else if (!asked) {
        /* Somebody may have given back between the attempt and the asking. */
        become_hungry(w);
        asked = true;
        goto again;
    }
}

void
st_nbd_mem_wake(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, wake);

    become_fed(w, NBD_CALLED);
    feed_soon(w);
}

void
st_nbd_mem_give(struct nbd_worker *w, uint64_t bytes)
{
    uint64_t spare;

    w->used -= bytes;
    if (atomic_load_explicit(&w->server->nhungry, memory_order_relaxed)) {
        cache_drop(w);
        spare = w->granted - w->used;
        if (spare)
            cap_give(w, spare);
    } else {
        spare = w->granted - w->used - w->cached;
        if (spare >= 2 * STEP)
            cap_give(w, spare - STEP);
    }
    feed_soon(w);
}

void
st_nbd_mem_leave(struct nbd_conn *c)
{
    struct nbd_worker *w = c->worker;
    uint64_t grant = c->grant;

    c->grant = 0;
    st_list_remove(&c->wait);
    if (grant)
        st_nbd_mem_give(w, grant);
    else
        feed_soon(w); /* it may have stood in the way */
}

void
st_nbd_mem_shrink(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, shrink);

    atomic_store(&w->shrinking, false);
    if (w->recv && w->recv->refs == 1) {
        st_nbd_block_put(w, w->recv);
        w->recv = NULL;
    }
    st_nbd_mem_give(w, 0);
}

struct nbd_block *
st_nbd_block_new(struct nbd_worker *w, uint32_t size)
{
    unsigned i = class_of(size);
    struct nbd_block *b = w->cache[i];

    if (b) {
        w->cache[i] = b->next;
        w->cached -= size;
    } else {
        b = malloc(sizeof(*b));
        if (b && !(b->data = st_pages_alloc(size))) {
            free(b);
            b = NULL;
        }
        if (!b) {
            st_nbd_mem_give(w, size);
            return NULL;
        }
        b->size = size;
    }
    b->refs = 1;
    return b;
}

void
st_nbd_block_put(struct nbd_worker *w, struct nbd_block *b)
{
    uint32_t size = b->size;

    if (--b->refs)
        return;
    if (w->cached + size <= CACHE_MAX) {
        unsigned i = class_of(size);

        b->next = w->cache[i];
        w->cache[i] = b;
        w->cached += size;
    } else {
        block_free(b);
    }
    st_nbd_mem_give(w, size);
}

void
st_nbd_mem_retire(struct nbd_worker *w)
{
    if (w->recv)
        st_nbd_block_put(w, w->recv);
    w->recv = NULL;
    cache_drop(w);
    assert(w->used == 0);
    cap_give(w, w->granted);
}
