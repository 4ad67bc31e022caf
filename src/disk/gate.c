/* SPDX-License-Identifier: MIT
 *
 * Messages to every channel of a disk, and the gate that they close.
 *
 *   home loop                        each I/O loop
 *   bcast_start --- msg_post ------> fn(m) ... bcast_ack(m)
 *        done   <------------------- (the last one)
 *
 * The gate is closed by three: somebody who paused the disk, an edit, and the
 * error policy; gate_wanted() says what that makes together. Behind a closed
 * gate new requests wait in order; a drain is acknowledged when the channel
 * has nothing under way.
 */
#include "root.h"

#include <errno.h>
#include <stdlib.h>

/* ---- Broadcasts -------------------------------------------------------------
 */

static void
msg_run(struct st_task *t)
{
    struct root_msg *m = st_container(t, struct root_msg, task);

    m->fn(m);
}

void
msg_post(struct root_msg *m, struct root_chan *rc,
         void (*fn)(struct root_msg *m))
{
    rc->pins++;
    m->rc = rc;
    m->fn = fn;
    m->task.run = msg_run;
    st_post(rc->base.loop, &m->task);
}

void
msg_unpin(struct root_chan *rc)
{
    struct st_disk *d = rc->disk;
    bool gone;

    pthread_mutex_lock(&d->mutex);
    gone = --rc->pins == 0 && rc->closed;
    if (gone)
        d->zombies--;
    pthread_mutex_unlock(&d->mutex);
    if (gone) {
        st_loop_let_go(rc->base.loop);
        free(rc);
    }
}

static void
one_less(struct bcast *b)
{
    if (atomic_fetch_sub(&b->left, 1) == 1)
        st_post(b->disk->home, &b->done);
}

static void
bcast_done(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);

    b->running = false;
    b->then(t);
}

void
bcast_start(struct st_disk *d, enum bcast_slot slot, struct st_edit *e,
            void (*fn)(struct root_msg *m), void (*done)(struct st_task *t))
{
    struct bcast *b = &d->bcast[slot];

    assert(atomic_load(&b->left) == 0);
    b->disk = d;
    b->edit = e;
    b->done.run = bcast_done;
    b->then = done;
    b->running = true;
    atomic_store(&b->rc, 0);
    atomic_store(&b->count, 0);
    atomic_store(&b->left, 1);
    pthread_mutex_lock(&d->mutex);
    st_list_for(rc, next, &d->chans, struct root_chan, link)
    {
        struct root_msg *m = &rc->msg[slot];

        m->bcast = b;
        atomic_fetch_add(&b->left, 1);
        msg_post(m, rc, fn);
    }
    pthread_mutex_unlock(&d->mutex);
    one_less(b); /* the one of the start: all have been told */
}

void
bcast_ack(struct root_msg *m, int err)
{
    struct bcast *b = m->bcast;
    int none = 0;

    if (err < 0)
        atomic_compare_exchange_strong(&b->rc, &none, err);
    msg_unpin(m->rc);
    one_less(b);
}

/* ---- The gate ---- */

enum gate
gate_wanted(const struct st_disk *d)
{
    if (d->edit_gate)
        return GATE_PARK;
    if (d->gate != GATE_OPEN)
        return d->gate;
    return atomic_load(&d->stopped) ? GATE_PARK : GATE_OPEN;
}

void
gate_drained(struct root_chan *rc)
{
    struct root_msg *m = rc->drain;

    rc->drain = NULL;
    wall_update(rc);
    bcast_ack(m, 0);
}

/* Take over what the disk wants; what may go on, goes on. */
static void
gate_apply(struct root_chan *rc)
{
    pthread_mutex_lock(&rc->disk->mutex);
    rc->gate = rc->inner ? gate_wanted(rc->disk) : GATE_REFUSE;
    pthread_mutex_unlock(&rc->disk->mutex);
    wall_update(rc);
    if (rc->gate != GATE_PARK) {
        wall_again(rc, &rc->held);
        wall_again(rc, &rc->parked);
    }
}

static void
chan_close_gate(struct root_msg *m)
{
    struct root_chan *rc = m->rc;

    if (rc->closed) {
        bcast_ack(m, 0);
        return;
    }
    gate_apply(rc);
    if (m->bcast->edit->mode == ST_CANCEL) {
        st_list_for(req, next, &rc->parked, struct st_req, link)
        {
            st_cancel(req);
        }
        st_list_for(req, next, &rc->held, struct st_req, link)
        {
            st_cancel(req);
        }
        st_list_for(req, next, &rc->flight, struct st_req, flight)
        {
            st_cancel(req);
        }
    }
    if (st_list_empty(&rc->flight)) {
        bcast_ack(m, 0);
        return;
    }
    rc->drain = m;
    wall_update(rc);
}

void
chan_open_gate(struct root_msg *m)
{
    if (!m->rc->closed)
        gate_apply(m->rc);
    bcast_ack(m, 0);
}

/* The deadline has passed: who is still out becomes an orphan, and the drain
 * is over. */
static void
chan_give_up(struct root_msg *m)
{
    struct root_chan *rc = m->rc;

    if (!rc->closed) {
        st_list_for(req, next, &rc->flight, struct st_req, flight)
        {
            req->flags |= ST_REQ_ORPHAN;
            atomic_fetch_add(&m->bcast->count, 1);
        }
        if (rc->drain)
            gate_drained(rc);
    }
    bcast_ack(m, 0);
}

static void
gate_closed(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);
    struct st_edit *e = b->edit;

    st_timer_stop(b->disk->home, &e->timer);
    if (e->giving_up)
        return; /* gave_up() goes on */
    e->next(e, 0);
}

static void
gave_up(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);
    struct st_edit *e = b->edit;

    /* Everybody has been told before, so gate_closed() has run: its messages
     * came from the same loops, earlier. */
    e->orphans = atomic_load(&b->count);
    e->giving_up = false;
    e->next(e, e->orphans ? -ETIMEDOUT : 0);
}

static void
gate_timeout(struct st_timer *t)
{
    struct st_edit *e = st_container(t, struct st_edit, timer);

    e->giving_up = true;
    bcast_start(e->disk, BCAST_GIVE_UP, e, chan_give_up, gave_up);
}

void
gate_close(struct st_edit *e, void (*next)(struct st_edit *e, int rc))
{
    struct st_disk *d = e->disk;

    e->next = next;
    e->orphans = 0;
    e->giving_up = false;
    bcast_start(d, BCAST_EDIT, e, chan_close_gate, gate_closed);
    if (e->deadline_ns) {
        e->timer.fire = gate_timeout;
        st_timer_set(d->home, &e->timer, d->home->now + e->deadline_ns);
    }
}

static void
gate_opened(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);
    struct st_edit *e = b->edit;

    e->next(e, 0);
}

void
gate_open(struct st_edit *e, void (*next)(struct st_edit *e, int rc))
{
    e->next = next;
    bcast_start(e->disk, BCAST_EDIT, e, chan_open_gate, gate_opened);
}
