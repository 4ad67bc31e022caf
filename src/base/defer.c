/* SPDX-License-Identifier: MIT
 *
 * When may memory be freed that others could still be reading? (st_defer)
 *
 *   domain epoch   7 ------ 8 -------------- 9 ----->   moves with st_defer
 *   loop 0         [turn in 7][turn in 8]...
 *   loop 1         [  turn in 7  ] idle           <- entry of epoch 8 is free
 *                                                    when both are >= 8 or idle
 *
 * A loop publishes the epoch that it read at the start of its turn. Whoever
 * published E or later has seen everything before the st_defer that made E.
 */
#include "loop_private.h"

void
st_defer_enter(struct st_loop_impl *l)
{
    uint64_t mine = atomic_load_explicit(&l->epoch, memory_order_relaxed), now;

    /* From idle: first say "awake", then read the epoch. Either a collector
     * sees us awake, or we see its epoch and with it the new pointers. */
    if (mine == ST_EPOCH_IDLE)
        atomic_store(&l->epoch, ST_EPOCH_UNKNOWN);
    now = atomic_load(&l->base.domain->epoch);
    if (now != mine)
        atomic_store_explicit(&l->epoch, now, memory_order_release);
}

void
st_defer_leave(struct st_loop_impl *l)
{
    atomic_store_explicit(&l->epoch, ST_EPOCH_IDLE, memory_order_release);
}

void
st_defer(struct st_loop *loop, struct st_deferred *d,
         void (*free_fn)(struct st_deferred *d))
{
    struct st_loop_impl *l = st_loop_impl(loop);

    d->free = free_fn;
    d->next = NULL;
    d->epoch = atomic_fetch_add(&loop->domain->epoch, 1) + 1;
    *l->deferred_tail = d;
    l->deferred_tail = &d->next;
}

void
st_defer_collect(struct st_loop_impl *l)
{
    uint64_t oldest = ST_EPOCH_IDLE;
    struct st_deferred *d;

    for (struct st_loop_impl *o = atomic_load(&l->base.domain->loops); o;
         o = o->next) {
        uint64_t e = atomic_load(&o->epoch);

        if (e < oldest)
            oldest = e;
    }
    while ((d = l->deferred) != NULL && d->epoch <= oldest) {
        l->deferred = d->next;
        if (!l->deferred)
            l->deferred_tail = &l->deferred;
        d->free(d);
    }
}

void
st_defer_orphan(struct st_loop_impl *l)
{
    struct st_domain *d = l->base.domain;

    st_defer_collect(l);
    pthread_mutex_lock(&d->lock);
    *l->deferred_tail = d->orphans;
    d->orphans = l->deferred;
    pthread_mutex_unlock(&d->lock);
    l->deferred = NULL;
    l->deferred_tail = &l->deferred;
}
