/* SPDX-License-Identifier: MIT
 *
 * A worker: what one I/O loop has of one controller.
 *
 *   kick (any thread)  --> turn: look at every submission queue, in turns
 *   a slot is free     -->  |
 *   timer              -->  +-- found some, or more is there: again
 *                           |
 *                           +-- doorbells that nobody tells of?
 *                                no:     sleep until kicked
 *                                for poll_us after the last command: again,
 *                                        after 20 us of it behind those who
 *                                        want the CPU, too
 *                                shadow: arm, sleep until kicked
 *                                mapped: nap: 50 us, doubling to 1 ms; 10 ms
 *                                        when there was no command for 1 s
 *
 *   end of the loop's turn: interrupts, then perhaps again
 *
 * "Again" is a task of the loop's next turn, so that the loop collects I/O in
 * between; in a virtual domain, whose clock stands still while there is
 * something to do, a microsecond later.
 *
 * The admin loop's messages are carried out in the order in which they came,
 * and answered once.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "journal.h"
#include "range.h"

#define NAP_FIRST  NVME_US(50)
#define NAP_LONG   NVME_MS(1)
#define NAP_IDLE   NVME_MS(10)
#define IDLE_AFTER NVME_MS(1000)
/* Longer than most waits for work, so that they cost no system call. */
#define YIELD_AFTER NVME_US(20)

/* ---- Turns ---- */

void
st_nvme_wake(struct nvme_worker *w)
{
    if (w->turning)
        return;
    w->turning = true;
    st_ready(w->io.loop, &w->turn);
}

void
st_nvme_kick(struct nvme_worker *w)
{
    if (!atomic_load(&w->kicked) && !atomic_exchange(&w->kicked, true))
        st_post(w->io.loop, &w->kick);
}

static void
kick_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_worker, kick);

    atomic_store(&w->kicked, false);
    st_count(&w->wakes, 1);
    st_nvme_wake(w);
}

void
st_nvme_at_end(struct nvme_worker *w)
{
    if (w->ending)
        return;
    w->ending = true;
    st_at_end(w->io.loop, &w->end);
}

static void
end_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_worker, end);

    w->ending = false;
    st_nvme_raise(w);
    if (w->again) {
        w->again = false;
        st_nvme_wake(w);
    }
}

static void
timer_fired(struct st_timer *t)
{
    st_nvme_wake(st_container(t, struct nvme_worker, timer));
}

static void
look_at(struct nvme_worker *w, uint64_t ns)
{
    w->timer.fire = timer_fired;
    st_timer_set(w->io.loop, &w->timer, w->io.loop->now + ns);
}

static void
again(struct nvme_worker *w)
{
    w->looks = true;
    if (st_domain_is_virtual(w->io.loop->domain)) {
        look_at(w, NVME_US(1));
    } else {
        w->again = true;
        st_nvme_at_end(w);
    }
}

/* Who looks for a guest's work must not keep the guest from it: where its CPUs
 * share ours, it is asleep otherwise before the guest gets to run. */
static void
yield(struct nvme_worker *w)
{
    if (!st_domain_is_virtual(w->io.loop->domain))
        sched_yield();
}

/* Nothing was found just now. */
static void
idle(struct nvme_worker *w)
{
    const struct st_nvme *n = w->nvme;
    uint64_t quiet = w->io.loop->now - w->busy_at;

    if (!st_nvme_polls(w))
        return;
    if (n->poll_us == ST_NVME_POLL_ALWAYS || quiet < NVME_US(n->poll_us)) {
        if (quiet >= YIELD_AFTER)
            yield(w);
        again(w);
    } else if (n->mapped) {
        look_at(w, w->nap);
        w->nap = quiet > IDLE_AFTER ? NAP_IDLE : st_min(2 * w->nap, NAP_LONG);
    } else if (!st_nvme_arm(w)) {
        st_nvme_wake(w);
    }
}

/* Queues take turns at being the first. */
static bool
fetch_all(struct nvme_worker *w, bool *found)
{
    struct st_list *first = st_list_first(&w->sqs);
    bool more = false;

    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link) more |=
        st_nvme_fetch(sq, found);
    if (first && first->next != &w->sqs) {
        st_list_remove(first);
        st_list_append(&w->sqs, first);
    }
    return more;
}

static void
turn_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_worker, turn);
    bool found = false, more;

    w->turning = w->looks = false;
    st_timer_stop(w->io.loop, &w->timer);
    st_count(&w->turns, 1);
    if (!w->running || st_nvme_halted(w->nvme) ||
        atomic_load_explicit(&w->nvme->paused, memory_order_acquire))
        return;
    if (w->nwaiting || w->nvme->intx)
        st_list_for(cq, tmp, &w->cqs, struct nvme_cq, link)
        {
            st_nvme_cq_retry(cq);
            if (w->nvme->intx)
                st_nvme_cq_look(cq);
        }
    more = fetch_all(w, &found);
    if (w == w->nvme->admin)
        st_nvme_events(w->nvme);
    if (found) {
        w->busy_at = w->io.loop->now;
        w->nap = NAP_FIRST;
    }
    if (more) {
        w->looks = true;
        st_nvme_wake(w);
    } else {
        idle(w);
    }
    if (!st_list_empty(&w->raise)) /* what was spared so far */
        st_nvme_at_end(w);
}

/* ---- Queues ---- */

struct nvme_sq *
st_nvme_find_sq(struct nvme_worker *w, uint16_t qid)
{
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq,
                link) if (sq->qid == qid) return sq;
    return NULL;
}

struct nvme_cq *
st_nvme_find_cq(struct nvme_worker *w, uint16_t qid)
{
    st_list_for(cq, tmp, &w->cqs, struct nvme_cq,
                link) if (cq->qid == qid) return cq;
    return NULL;
}

int
st_nvme_worker_open(struct nvme_worker *w)
{
    struct st_nvme *n = w->nvme;
    int rc;

    w->running = true;
    if (!w->open) {
        rc = st_nvme_io_init(&w->io);
        if (rc < 0)
            return rc;
        w->io.view = st_gmem_open(n->gmem, w->io.loop);
        if (!w->io.view) {
            st_nvme_io_fini(&w->io);
            return -ENOMEM;
        }
        w->open = true;
    }
    if (atomic_load(&n->shadow) && !w->shadow)
        st_nvme_shadow(w, atomic_load(&n->shadow_page),
                       atomic_load(&n->event_page));
    return 0;
}

void
st_nvme_attach_cq(struct nvme_worker *w, struct nvme_cq *cq)
{
    struct nvme_shown *shown = &w->nvme->shown[cq->qid];

    cq->w = w;
    st_list_append(&w->cqs, &cq->link);
    atomic_store(&shown->cq_head, 0);
    atomic_store(&shown->cq_tail, 0);
    atomic_store(&shown->cq_size, cq->size);
    atomic_store(&shown->cq_vector, cq->vector);
    st_nvme_db_set(w, 2u * cq->qid + 1, cq->size);
    st_nvme_journal_cq(cq);
}

void
st_nvme_attach_sq(struct nvme_worker *w, struct nvme_sq *sq, struct nvme_cq *cq)
{
    struct nvme_shown *shown = &w->nvme->shown[sq->qid];

    sq->w = w;
    sq->cq = cq;
    st_list_append(&w->sqs, &sq->link);
    w->nio += sq->qid != 0;
    atomic_store(&shown->sq_head, 0);
    atomic_store(&shown->sq_tail, 0);
    atomic_store(&shown->sq_size, sq->size);
    st_nvme_db_set(w, 2u * sq->qid, sq->size);
    st_nvme_journal_sq(sq);
    w->busy_at = w->io.loop->now;
    w->nap = NAP_FIRST;
    st_nvme_wake(w);
}

void
st_nvme_detach_cq(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    struct st_nvme *n = w->nvme;

    st_nvme_journal_cq_gone(cq);
    st_nvme_db_set(w, 2u * cq->qid + 1, 0);
    atomic_store(&n->shown[cq->qid].cq_size, 0);
    st_timer_stop(w->io.loop, &cq->retry);
    st_timer_stop(w->io.loop, &cq->hold);
    if (!st_list_empty(&cq->waiting)) {
        w->nwaiting--;
        st_list_for(s, tmp, &cq->waiting, struct nvme_slot, link)
            st_nvme_slot_drop(s);
    }
    st_nvme_pin_taken(n, cq->qid, cq->tail);
    st_list_remove(&cq->raise);
    st_list_remove(&cq->link);
    st_nvme_cq_free(cq);
}

/* Everything has left that a reset, or the end, waits for? */
static void
left(struct nvme_worker *w)
{
    if (!st_list_empty(&w->leaving))
        return;
    if (w->stopping) {
        w->stopping = false;
        st_nvme_answer(w, NVME_ROUND_RESET);
    } else if (w->closing) {
        w->closing = false;
        st_nvme_doors_close(w);
        st_nvme_bell_close(w);
        st_retract(w->io.loop, &w->kick);
        st_retract(w->io.loop, &w->turn);
        if (w->open) {
            st_nvme_io_fini(&w->io);
            st_gmem_close(w->io.view);
            w->open = false;
        }
        st_nvme_answer(w, NVME_ROUND_RESET);
    }
}

void
st_nvme_orphan(struct nvme_sq *sq)
{
    if (!sq->orphan)
        st_count(&sq->w->orphans, sq->in_flight);
    sq->orphan = true;
}

void
st_nvme_sq_left(struct nvme_sq *dead)
{
    struct nvme_worker *w = dead->w;

    st_list_remove(&dead->link);
    if (dead->deleter) {
        st_timer_stop(w->io.loop, &dead->deleter->abort_timer);
        st_post(w->nvme->admin->io.loop, &dead->deleter->msg);
    }
    st_nvme_sq_free(dead);
    left(w);
}

/* Commands of a deleted queue do not end: nobody waits any longer. */
static void
delete_late(struct st_timer *t)
{
    struct nvme_slot *s = st_container(t, struct nvme_slot, abort_timer);
    struct nvme_sq *sq = s->dying;

    st_nvme_orphan(sq);
    sq->deleter = NULL;
    st_post(sq->w->nvme->admin->io.loop, &s->msg);
}

/* Nothing of SQ reaches the guest from now on. It is gone, or leaves. */
static void
bury(struct nvme_sq *sq, struct nvme_slot *deleter)
{
    struct nvme_worker *w = sq->w;
    struct nvme_cq *cq = sq->cq;
    bool waited = !st_list_empty(&cq->waiting);

    st_nvme_journal_sq_gone(sq);
    st_nvme_db_set(w, 2u * sq->qid, 0);
    atomic_store(&w->nvme->shown[sq->qid].sq_size, 0);
    atomic_store(&w->nvme->shown[sq->qid].in_flight, 0);
    w->nio -= sq->qid != 0;
    st_timer_stop(w->io.loop, &sq->timer);
    st_list_remove(&sq->link);
    st_list_append(&w->leaving, &sq->link);
    sq->dead = true;
    sq->in_flight++; /* do not go before the end of this */
    st_nvme_sq_abort(sq);
    for (unsigned i = 0; i < sq->nslots; i++)
        if (sq->slot[i].state != NVME_SLOT_FREE)
            cq->owed -= sq->slot[i].copies;
    sq->cq = NULL;
    if (waited && st_list_empty(&cq->waiting))
        w->nwaiting--;
    sq->deleter = deleter;
    if (deleter && sq->in_flight > 1) {
        deleter->dying = sq;
        deleter->abort_timer.fire = delete_late;
        st_timer_set(w->io.loop, &deleter->abort_timer,
                     w->io.loop->now + NVME_RESET_NS);
    }
    if (--sq->in_flight == 0)
        st_nvme_sq_left(sq);
}

void
st_nvme_detach_sq(struct nvme_sq *sq, struct nvme_slot *deleter)
{
    bury(sq, deleter);
}

/* ---- Messages ---- */

static struct nvme_worker *
worker_of(struct st_task *t)
{
    return st_container(t, struct nvme_msg, task)->w;
}

void
st_nvme_worker_stop(struct st_task *t)
{
    struct nvme_worker *w = worker_of(t);

    w->running = false;
    w->shadow = false;
    w->again = false;
    st_timer_stop(w->io.loop, &w->timer);
    if (w == w->nvme->admin)
        st_nvme_admin_reset(w->nvme);
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link) bury(sq, NULL);
    st_list_for(cq, tmp2, &w->cqs, struct nvme_cq, link) st_nvme_detach_cq(cq);
    w->stopping = true;
    left(w);
}

/* The reset does not wait any longer: what is left are orphans. */
static void
abandon_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_worker, abandon);

    atomic_store(&w->abandoned, false);
    if (!w->stopping)
        return;
    st_list_for(sq, tmp, &w->leaving, struct nvme_sq, link) st_nvme_orphan(sq);
    w->stopping = false;
    st_nvme_answer(w, NVME_ROUND_RESET);
}

void
st_nvme_worker_abandon(struct nvme_worker *w)
{
    if (!atomic_exchange(&w->abandoned, true))
        st_post(w->io.loop, &w->abandon);
}

void
st_nvme_worker_close(struct st_task *t)
{
    struct nvme_worker *w = worker_of(t);

    w->closing = true;
    left(w);
}

void
st_nvme_worker_config(struct st_task *t)
{
    struct nvme_worker *w = worker_of(t);

    /* Not if a reset came before us: its stop was the later message. */
    if (w->running)
        st_nvme_shadow(w, atomic_load(&w->nvme->shadow_page),
                       atomic_load(&w->nvme->event_page));
    st_nvme_answer(w, NVME_ROUND_CONFIG);
}

/* ---- Life ---- */

static struct nvme_door *
io_open(struct nvme_io *io, uint32_t nsid)
{
    uint16_t status;

    return st_nvme_door_get(st_container(io, struct nvme_worker, io), nsid,
                            false, &status);
}

static void
io_close(struct nvme_io *io, struct nvme_door *door)
{
    st_nvme_door_put(st_container(io, struct nvme_worker, io), door);
}

int
st_nvme_worker_init(struct nvme_worker *w, struct st_nvme *n, unsigned index,
                    struct st_loop *loop)
{
    w->nvme = n;
    w->index = index;
    w->io.loop = loop;
    w->io.ndoors = n->info.nn;
    w->io.open = io_open;
    w->io.close = io_close;
    w->io.sgl = true;
    w->io.write_through = &n->write_through;
    w->kick.run = kick_run;
    w->turn.run = turn_run;
    w->end.run = end_run;
    w->abandon.run = abandon_run;
    w->release.run = st_nvme_worker_release;
    w->errors.run = st_nvme_errors_run;
    w->nap = NAP_FIRST;
    st_list_init(&w->sqs);
    st_list_init(&w->cqs);
    st_list_init(&w->raise);
    st_list_init(&w->leaving);
    w->io.door = calloc(n->info.nn, sizeof(*w->io.door));
    return w->io.door ? 0 : -ENOMEM;
}

void
st_nvme_worker_fini(struct nvme_worker *w)
{
    free(w->io.door);
}
