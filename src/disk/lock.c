/* SPDX-License-Identifier: MIT
 *
 * Range locks: one op has a range for itself, on all loops.
 *
 *   acquire --> overlaps one that is held or waits? queue (mutex, FIFO)
 *           --> else tell every channel:        enter  --> park new overlaps,
 *                                                          wait for the old
 *   all channels acknowledged  --> granted (owner's loop)
 *   release --> tell every channel: leave --> parked ones go on
 *           --> all have left  --> released (owner's loop)
 *
 * Locks that are told to channels never overlap one another, so nobody waits
 * in a circle: an op that wants a lock is no obstacle to others
 * (ST_REQ_LOCKING), and what was counted as an obstacle holds no lock.
 * Messages of one loop stay in order, so "leave" of an old lock comes before
 * "enter" of the next. A channel that closes is told no more, and what it was
 * told already it still answers: it holds its loop until then (msg_unpin).
 */
#include "root.h"

#include <errno.h>
#include <stdlib.h>

static bool
overlaps(const struct range_lock *l, uint64_t offset, uint64_t len)
{
    return st_range_overlap(l->offset, l->len, offset, len);
}

/* Is REQ, in flight here, something that lock L has to wait for? */
static bool
obstructs(const struct range_lock *l, const struct st_req *req)
{
    return (ST_BIT(req->op) & ST_OPS_MODIFY) &&
           !(req->flags & ST_REQ_LOCKING) && overlaps(l, req->offset, req->len);
}

static void
lock_tell(struct st_task *t)
{
    struct range_lock *l = st_container(t, struct range_lock, task);

    l->granted(l);
}

static void
lock_gone(struct st_task *t)
{
    struct range_lock *l = st_container(t, struct range_lock, task);

    l->released(l);
}

/* One more channel has done what it was told; the last one tells the owner. */
static void
lock_ack(struct range_lock *l)
{
    struct root_chan *owner = l->owner;

    if (atomic_fetch_sub(&l->left, 1) == 1)
        st_post(owner->base.loop, &l->task);
}

/* RC has no more part in the lock; mutex held, or nobody else knows LM. */
static void
lock_untie(struct lock_msg *lm)
{
    st_list_remove(&lm->here);
    st_list_remove(&lm->peers);
    if (lm->allocated)
        free(lm);
}

static void
lock_enter(struct root_msg *m)
{
    struct lock_msg *lm = st_container(m, struct lock_msg, msg);
    struct range_lock *l = lm->lock;
    struct root_chan *rc = m->rc;

    if (rc->closed) {
        pthread_mutex_lock(&rc->disk->mutex);
        lock_untie(lm);
        pthread_mutex_unlock(&rc->disk->mutex);
        lock_ack(l);
        msg_unpin(rc);
        return;
    }
    st_list_for(req, next, &rc->flight, struct st_req, flight)
    {
        if (obstructs(l, req))
            lm->waits++;
    }
    st_list_append(&rc->locks, &lm->here);
    wall_update(rc);
    if (lm->waits == 0)
        lock_ack(l);
    msg_unpin(rc);
}

static void
lock_leave(struct root_msg *m)
{
    struct lock_msg *lm = st_container(m, struct lock_msg, msg);
    struct range_lock *l = lm->lock;
    struct root_chan *rc = m->rc;

    lock_untie(lm);
    lock_ack(l);
    if (!rc->closed) {
        wall_update(rc);
        if (rc->gate == GATE_OPEN)
            wall_again(rc, &rc->parked);
    }
    msg_unpin(rc);
}

void
lock_abandon(struct root_chan *rc)
{
    st_list_for(lm, next, &rc->locks, struct lock_msg, here)
    {
        assert(lm->waits == 0);
        if (!lm->leaving)
            lock_untie(lm);
    }
}

/* A message that ties LOCK to RC; mutex held. The first few need no malloc. */
static struct lock_msg *
lock_tie(struct range_lock *l, struct root_chan *rc)
{
    struct lock_msg *lm;

    if (l->nown < sizeof(l->own) / sizeof(l->own[0])) {
        lm = &l->own[l->nown++];
        *lm = (struct lock_msg){.allocated = false};
    } else {
        lm = calloc(1, sizeof(*lm));
        if (!lm)
            return NULL;
        lm->allocated = true;
    }
    lm->lock = l;
    lm->msg.rc = rc;
    st_list_init(&lm->here);
    st_list_append(&l->msgs, &lm->peers);
    return lm;
}

/* Tell every channel of L; mutex held. The owner's own channel is among them,
 * so L is told to at least one. */
static void
lock_start(struct st_disk *d, struct range_lock *l)
{
    st_list_append(&d->locks, &l->link);
    atomic_store(&l->left, 1);
    l->task.run = lock_tell;
    st_list_for(rc, next, &d->chans, struct root_chan, link)
    {
        struct lock_msg *lm = lock_tie(l, rc);

        if (!lm) {
            l->failed = true; /* the owner ends with an error, then lets go */
            continue;
        }
        atomic_fetch_add(&l->left, 1);
        msg_post(&lm->msg, rc, lock_enter);
    }
}

void
lock_acquire(struct range_lock *l)
{
    struct st_disk *d = l->owner->disk;
    bool wait = false;

    st_list_init(&l->msgs);
    st_list_init(&l->link);
    l->nown = 0;
    l->failed = false;
    pthread_mutex_lock(&d->mutex);
    st_list_for(o, next, &d->locks, struct range_lock, link)
    {
        wait |= overlaps(o, l->offset, l->len);
    }
    st_list_for(o, next, &d->lock_queue, struct range_lock, link)
    {
        wait |= overlaps(o, l->offset, l->len);
    }
    if (wait)
        st_list_append(&d->lock_queue, &l->link);
    else
        lock_start(d, l);
    pthread_mutex_unlock(&d->mutex);
    if (!wait)
        lock_ack(l); /* the one of lock_start: all have been told */
}

/* The first in the queue that nobody held or before it overlaps; mutex held. */
static struct range_lock *
next_startable(struct st_disk *d)
{
    st_list_for(l, next, &d->lock_queue, struct range_lock, link)
    {
        bool wait = false;

        st_list_for(o, n2, &d->locks, struct range_lock, link)
        {
            wait |= overlaps(o, l->offset, l->len);
        }
        for (struct st_list *e = d->lock_queue.next; e != &l->link; e = e->next)
            wait |= overlaps(st_container(e, struct range_lock, link),
                             l->offset, l->len);
        if (!wait)
            return l;
    }
    return NULL;
}

void
lock_release(struct range_lock *l)
{
    struct st_disk *d = l->owner->disk;
    struct range_lock *start;

    pthread_mutex_lock(&d->mutex);
    st_list_remove(&l->link);
    atomic_store(&l->left, 1);
    l->task.run = lock_gone;
    st_list_for(lm, next, &l->msgs, struct lock_msg, peers)
    {
        st_list_remove(&lm->peers);
        lm->leaving = true;
        atomic_fetch_add(&l->left, 1);
        msg_post(&lm->msg, lm->msg.rc, lock_leave);
    }
    while ((start = next_startable(d))) {
        st_list_remove(&start->link);
        lock_start(d, start);
        lock_ack(start);
    }
    pthread_mutex_unlock(&d->mutex);
    lock_ack(l);
}

bool
lock_blocks(struct root_chan *rc, const struct st_req *req)
{
    st_list_for(lm, next, &rc->locks, struct lock_msg, here)
    {
        if (overlaps(lm->lock, req->offset, req->len))
            return true;
    }
    return false;
}

void
lock_completed(struct root_chan *rc, const struct st_req *req)
{
    st_list_for(lm, next, &rc->locks, struct lock_msg, here)
    {
        if (lm->waits && obstructs(lm->lock, req) && --lm->waits == 0)
            lock_ack(lm->lock);
    }
}

int
lock_adopt(struct root_chan *rc)
{
    st_list_for(l, next, &rc->disk->locks, struct range_lock, link)
    {
        struct lock_msg *lm = lock_tie(l, rc);

        if (!lm)
            return -ENOMEM;
        st_list_append(&rc->locks, &lm->here);
    }
    return 0;
}
