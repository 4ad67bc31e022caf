/* SPDX-License-Identifier: MIT
 *
 * Submission queues: entries are fetched, checked for being a fused pair, and
 * started (Base 3.3.1, "Fused Operations").
 *
 *   head ... tail --> copy into a slot --> doomed? --> fused? --> start
 *                     |                                           |
 *     no slot:     until one is free                  io.c or admin.c
 *     no room:     until the completion queue's head moves
 *     no memory:   100 ms, then the controller fails
 *
 * An entry is copied once; what is looked at is the copy. The second of a fused
 * pair may arrive later than the first, which waits for it.
 */
#include <string.h>

#include "nvme_private.h"
#include "range.h"

#define RETRY_NS NVME_MS(1)

enum { FUSE_NONE, FUSE_FIRST, FUSE_SECOND };

/* ---- Start ---- */

static void
io_done(struct nvme_cmd *c)
{
    struct nvme_slot *s = st_container(c, struct nvme_slot, cmd);

    s->in_io = false;
    if (c->door) {
        st_nvme_door_put(s->sq->w, c->door);
        c->door = NULL;
    }
    st_nvme_complete(s);
}

/* Find S's namespace. NVME_OK: its door, or NULL where it is all of them. */
static uint16_t
find_door(struct nvme_slot *s)
{
    struct nvme_cmd *c = &s->cmd;
    uint32_t nsid = le32_get(c->sqe.nsid);
    uint16_t status = NVME_OK;

    c->done = io_done;
    c->door = NULL;
    if (nsid == UINT32_MAX && c->sqe.opcode == NVME_FLUSH)
        return NVME_OK;
    c->door = st_nvme_door_get(s->sq->w, nsid, false, &status);
    return status;
}

void
st_nvme_slot_start(struct nvme_slot *s)
{
    uint16_t status;

    if (__builtin_expect(!s->sq->qid, 0)) {
        st_nvme_admin_start(s);
        return;
    }
    status = find_door(s);
    if (__builtin_expect(status != NVME_OK, 0)) {
        st_nvme_end(s, status);
        return;
    }
    s->in_io = true;
    st_nvme_io_start(&s->cmd);
}

static uint16_t
because_of(uint16_t status)
{
    return (uint16_t)(NVME_ABORTED_FUSED_FAILED | (status & NVME_DNR));
}

static void
start_pair(struct nvme_slot *first, struct nvme_slot *second)
{
    uint16_t one = find_door(first), two = find_door(second);

    if (one == NVME_OK && two == NVME_OK) {
        first->in_io = second->in_io = true;
        second->cmd.fused = &first->cmd;
        st_nvme_io_start(&second->cmd);
        return;
    }
    first->cmd.status = one == NVME_OK ? because_of(two) : one;
    second->cmd.status = two == NVME_OK ? because_of(one) : two;
    io_done(&first->cmd);
    io_done(&second->cmd);
}

/* ---- Fused pairs ---- */

/* The first of a pair that has no second: FIRST ends with STATUS. */
static void
unpair(struct nvme_sq *sq, uint16_t status)
{
    struct nvme_slot *first = sq->first;

    sq->first = NULL;
    sq->cq->owed--; /* its second's */
    st_nvme_end(first, status);
}

static void
arrived(struct nvme_sq *sq, struct nvme_slot *s)
{
    unsigned fuse = s->cmd.sqe.flags & NVME_FUSE_MASK;
    struct nvme_slot *first = sq->first;

    if (first) { /* S is its second: see fetch_run */
        sq->first = NULL;
        start_pair(first, s);
    } else if (fuse == FUSE_SECOND) {
        st_nvme_end(s, NVME_ABORTED_FUSED_MISSING | NVME_DNR);
    } else if (fuse == FUSE_FIRST && sq->cq->size > 2) {
        sq->first = s;
    } else {
        st_nvme_end(s, NVME_INVALID_FIELD | NVME_DNR);
    }
}

/* How many completions will be owed for an entry more than now. The second of
 * a pair has the room that its first holds. */
static unsigned
owes(const struct nvme_sq *sq, const struct nvme_sqe *e)
{
    unsigned fuse = e->flags & NVME_FUSE_MASK;

    if (!sq->qid || fuse == FUSE_NONE)
        return 1;
    if (fuse == FUSE_FIRST)
        return sq->cq->size > 2 ? 2 : 1;
    return fuse == FUSE_SECOND && sq->first ? 0 : 1;
}

/* ---- Fetch ---- */

/* Shall S, just fetched, end as it was aborted before? */
static bool
is_doomed(struct nvme_sq *sq, const struct nvme_slot *s)
{
    uint16_t cid = le16_get(s->cmd.sqe.cid);

    for (unsigned i = 0; i < sq->ndoomed; i++) {
        if (sq->doomed[i] == cid) {
            sq->doomed[i] = sq->doomed[--sq->ndoomed];
            return true;
        }
    }
    return false;
}

/* S was aborted before it was fetched. So is the first that waits for it; and a
 * first waits no more. */
static void
end_doomed(struct nvme_sq *sq, struct nvme_slot *s)
{
    struct nvme_slot *first = sq->first;

    if (first) {
        sq->first = NULL;
        st_nvme_end(first, because_of(NVME_ABORT_REQUESTED));
    } else {
        sq->cq->owed -= owes(sq, &s->cmd.sqe) - 1; /* its second's */
    }
    st_nvme_end(s, NVME_ABORT_REQUESTED);
}

static void
fetched(struct nvme_sq *sq, struct nvme_slot *s)
{
    if (st_nvme_has_faults(sq->w->nvme) && !st_nvme_fault_sqe(s))
        return;
    if (__builtin_expect(sq->ndoomed && is_doomed(sq, s), 0))
        end_doomed(sq, s);
    else if (__builtin_expect(sq->qid && s->cmd.sqe.flags & NVME_FUSE_MASK, 0))
        arrived(sq, s);
    else
        st_nvme_slot_start(s);
}

struct nvme_slot *
st_nvme_slot_take(struct nvme_sq *sq, const struct nvme_sqe *e)
{
    struct nvme_slot *s = sq->free;

    sq->free = s->next;
    sq->in_flight++;
    s->state = NVME_SLOT_STARTED;
    s->in_io = s->executed = s->forced = s->replayed = false;
    s->announce = true;
    s->cmd.error_lba = UINT64_MAX;
    s->copies = 1;
    s->cqe_fault = s->phase_fault = false;
    s->cmd.sqe = *e;
    s->cmd.io = &sq->w->io;
    s->cmd.door = NULL;
    s->cmd.fused = NULL;
    s->cmd.dw0 = 0;
    s->cmd.error_lba = UINT64_MAX;
    if (__builtin_expect(sq->journal != NULL, 0))
        st_nvme_journal_fetched(s);
    return s;
}

static void
timer_fired(struct st_timer *t)
{
    st_nvme_wake(st_container(t, struct nvme_sq, timer)->w);
}

/* The entries of SQ cannot be read. */
static void
out_of_reach(struct nvme_sq *sq)
{
    struct st_loop *l = sq->w->io.loop;

    st_count(&sq->w->unreachable, 1);
    if (!sq->unreachable_since)
        sq->unreachable_since = l->now ? l->now : 1;
    if (l->now - sq->unreachable_since >= NVME_UNMAPPED_NS) {
        st_nvme_fail(sq->w, "a submission queue is not in the guest's memory");
        return;
    }
    sq->timer.fire = timer_fired;
    st_timer_set(l, &sq->timer, l->now + RETRY_NS);
}

/* There is no room in the completion queue. True: now there may be. */
static bool
starve(struct nvme_sq *sq)
{
    sq->backlog = true;
    sq->cq->starving = true;
    return st_nvme_cq_listen(sq->cq);
}

/* Fetch at most N entries from SQ's head on, which lie in a row at FROM, or
 * somewhere (NULL). Returns how many; *MORE: there is room again. */
static unsigned
fetch_run(struct nvme_sq *sq, const struct nvme_sqe *from, unsigned n,
          bool *more)
{
    struct nvme_cq *cq = sq->cq;

    for (unsigned i = 0; i < n; i++) {
        struct nvme_sqe e;
        unsigned owed;

        if (!sq->free) {
            sq->backlog = true;
            return i;
        }
        if (from) {
            e = from[i];
        } else if (st_gmem_read(sq->w->io.view, sq->base + sq->head * sizeof(e),
                                &e, sizeof(e)) < 0) {
            out_of_reach(sq);
            return i;
        }
        /* Before it needs room: the second that does not come holds some. */
        if (__builtin_expect(
                sq->first && (e.flags & NVME_FUSE_MASK) != FUSE_SECOND, 0))
            unpair(sq, NVME_ABORTED_FUSED_MISSING | NVME_DNR);
        owed = owes(sq, &e);
        if (owed && st_nvme_cq_room(cq, owed) < owed) {
            *more = starve(sq);
            return i;
        }
        if (__builtin_expect(cq->starving, 0)) {
            cq->starving = false;
            st_nvme_cq_ignore(cq);
        }
        cq->owed += owed;
        sq->head = sq->head + 1 == sq->size ? 0 : sq->head + 1;
        fetched(sq, st_nvme_slot_take(sq, &e));
        if (st_nvme_halted(sq->w->nvme) || sq->stalled_until)
            return i + 1;
    }
    return n;
}

/* What the guest says the tail is now. */
static void
look(struct nvme_sq *sq)
{
    struct nvme_worker *w = sq->w;
    uint32_t tail = st_nvme_sq_tail(sq);

    if (tail == sq->seen)
        return;
    sq->seen = tail;
    if (tail >= sq->size) {
        st_count(&w->protocol_errors, 1);
        st_nvme_bad_doorbell(w->nvme, 2u * sq->qid, 1);
        return;
    }
    sq->tail = tail;
    if (w->shadow && sq->qid)
        st_count(&w->shadow_doorbells, 1);
    atomic_store_explicit(&w->nvme->shown[sq->qid].sq_tail, tail,
                          memory_order_relaxed);
}

bool
st_nvme_fetch(struct nvme_sq *sq, bool *found)
{
    struct nvme_worker *w = sq->w;
    unsigned left = NVME_BUDGET;
    bool more = false;

    look(sq);
    sq->backlog = false;
    if (sq->head == sq->tail || st_nvme_halted(w->nvme) ||
        !st_pci_bus_master(&w->nvme->pci))
        return false;
    if (__builtin_expect(sq->stalled_until != 0, 0)) {
        if (w->io.loop->now < sq->stalled_until)
            return false;
        sq->stalled_until = 0;
    }
    while (left && sq->head != sq->tail) {
        uint32_t end = sq->tail > sq->head ? sq->tail : sq->size;
        unsigned n = (unsigned)st_min(end - sq->head, left), got;
        const struct nvme_sqe *from =
            st_gmem_peek(w->io.view, sq->base + sq->head * sizeof(*from),
                         n * sizeof(*from), false);

        got = fetch_run(sq, from, n, &more);
        if (got) {
            *found = true;
            sq->unreachable_since = 0;
            st_count(&w->commands, got);
        }
        left -= got;
        if (got < n || sq->stalled_until)
            break;
    }
    atomic_store_explicit(&w->nvme->shown[sq->qid].sq_head, sq->head,
                          memory_order_relaxed);
    if (sq->stalled_until)
        return false; /* its timer wakes us */
    return more || (!left && sq->head != sq->tail);
}

/* ---- Abort ---- */

void
st_nvme_sq_abort(struct nvme_sq *sq)
{
    struct nvme_slot *first = sq->first;

    sq->first = NULL;
    if (first && sq->cq)
        sq->cq->owed--; /* its second's */
    for (unsigned i = 0; i < sq->nslots; i++) {
        struct nvme_slot *s = &sq->slot[i];

        if (s->state == NVME_SLOT_FREE)
            continue;
        if (s->in_io)
            st_nvme_io_abort(&s->cmd);
        else if (s == first || s->state != NVME_SLOT_STARTED)
            st_nvme_slot_drop(s);
    }
}

/* A, an Abort command, goes home. */
static void
answer(struct nvme_slot *a, bool aborted)
{
    a->cmd.dw0 = !aborted;
    a->victim = NULL;
    st_post(a->sq->w->io.loop, &a->msg);
}

void
st_nvme_abort_decided(struct nvme_slot *victim, bool aborted)
{
    struct nvme_slot *a = victim->aborter;

    if (!a)
        return;
    victim->aborter = NULL;
    st_timer_stop(a->target->io.loop, &a->abort_timer);
    answer(a, aborted);
}

static void
abort_late(struct st_timer *t)
{
    struct nvme_slot *a = st_container(t, struct nvme_slot, abort_timer);

    a->victim->aborter = NULL;
    answer(a, false);
}

static struct nvme_slot *
find_command(struct nvme_sq *sq, uint16_t cid)
{
    for (unsigned i = 0; i < sq->nslots; i++)
        if (sq->slot[i].state != NVME_SLOT_FREE &&
            le16_get(sq->slot[i].cmd.sqe.cid) == cid)
            return &sq->slot[i];
    return NULL;
}

/* CID has been submitted and not fetched: it ends when it is. */
static bool
doom(struct nvme_sq *sq, uint16_t cid)
{
    enum { ROOM = sizeof(sq->doomed) / sizeof(sq->doomed[0]) };

    if (sq->ndoomed == ROOM)
        return false;
    for (uint32_t i = sq->head; i != sq->tail;
         i = i + 1 == sq->size ? 0 : i + 1) {
        le16 id;

        if (st_gmem_read(sq->w->io.view,
                         sq->base + i * sizeof(struct nvme_sqe) +
                             offsetof(struct nvme_sqe, cid),
                         &id, sizeof(id)) < 0)
            return false;
        if (le16_get(id) == cid) {
            sq->doomed[sq->ndoomed++] = cid;
            return true;
        }
    }
    return false;
}

void
st_nvme_abort(struct nvme_slot *a)
{
    struct nvme_worker *w = a->target;
    uint32_t cdw10 = le32_get(a->cmd.sqe.cdw10);
    uint16_t cid = (uint16_t)(cdw10 >> 16);
    struct nvme_sq *sq = st_nvme_find_sq(w, (uint16_t)cdw10);
    struct nvme_slot *v = sq ? find_command(sq, cid) : NULL;

    st_count(&w->aborts, 1);
    if (!sq) {
        answer(a, false);
    } else if (!v) {
        answer(a, doom(sq, cid));
    } else if (v == sq->first) {
        unpair(sq, NVME_ABORT_REQUESTED);
        answer(a, true);
    } else if (v->state == NVME_SLOT_EVENT) {
        answer(a, st_nvme_event_abort(v));
    } else if (v->state == NVME_SLOT_HELD) {
        st_timer_stop(w->io.loop, &v->timer);
        st_list_remove(&v->link);
        if (sq->reordered == v)
            sq->reordered = NULL;
        v->state = NVME_SLOT_STARTED;
        st_nvme_end(v, NVME_ABORT_REQUESTED);
        answer(a, true);
    } else if (v->in_io && !v->aborter) {
        v->aborter = a;
        a->victim = v;
        a->abort_timer.fire = abort_late;
        st_timer_set(w->io.loop, &a->abort_timer,
                     w->io.loop->now + NVME_ABORT_NS);
        st_nvme_io_abort(&v->cmd);
    } else {
        answer(a, false);
    }
}
