/* SPDX-License-Identifier: MIT
 *
 * Timers of a loop: a binary heap in heap[1..ntimers], earliest first. A timer
 * knows its slot, so that it can be moved and stopped.
 */
#include <assert.h>

#include "loop_private.h"

static void
timer_place(struct st_loop_impl *l, uint32_t slot, struct st_timer *t)
{
    l->heap[slot] = t;
    t->slot = slot;
}

/* Put T where it belongs, starting from the hole at SLOT. */
static void
timer_sift(struct st_loop_impl *l, uint32_t slot, struct st_timer *t)
{
    struct st_timer **h = l->heap;

    for (; slot > 1 && t->at < h[slot / 2]->at; slot /= 2)
        timer_place(l, slot, h[slot / 2]);
    for (;;) {
        uint32_t kid = 2 * slot;

        if (kid < l->ntimers && h[kid + 1]->at < h[kid]->at)
            kid++;
        if (kid > l->ntimers || t->at <= h[kid]->at)
            break;
        timer_place(l, slot, h[kid]);
        slot = kid;
    }
    timer_place(l, slot, t);
}

void
st_timer_set(struct st_loop *loop, struct st_timer *t, uint64_t at)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    t->at = at;
    if (!t->slot) {
        assert(l->ntimers < ST_TIMERS_MAX - 1);
        t->slot = ++l->ntimers;
    }
    timer_sift(l, t->slot, t);
}

void
st_timer_stop(struct st_loop *loop, struct st_timer *t)
{
    struct st_loop_impl *l = st_loop_impl(loop);
    struct st_timer *last;

    if (!t->slot)
        return;
    assert(l->heap[t->slot] == t);
    last = l->heap[l->ntimers--];
    if (last != t)
        timer_sift(l, t->slot, last);
    t->slot = 0;
}

bool
st_timer_due(const struct st_loop_impl *l, uint64_t now)
{
    return l->ntimers && l->heap[1]->at <= now;
}

bool
st_timer_fire(struct st_loop_impl *l)
{
    bool any = false;

    /* At most as many as there are now: one that sets itself again to the
     * present waits for the next turn. */
    for (unsigned n = l->ntimers; n && st_timer_due(l, l->base.now); n--) {
        struct st_timer *t = l->heap[1];

        st_timer_stop(&l->base, t);
        t->fire(t);
        any = true;
    }
    return any;
}
