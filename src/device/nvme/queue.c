/* SPDX-License-Identifier: MIT
 *
 * Completion queues and the slots of commands (Base 3.3, 7.3.2 and 7.5 of
 * PCIe Transport's interrupts).
 *
 *   fetched: an entry is owed        posted: owed no more
 *   |<-- head ... tail -->|<-- owed -->|<-- room -->|
 *
 * A command is fetched only if there is room for its completion, so posting
 * never waits for the guest. It may have to wait for the queue's memory, which
 * firmware takes away for a moment: then slots are kept, and what comes after
 * them as well.
 *
 * All completions of a turn make one interrupt for each queue; those of several
 * turns, while the guest is at work on the ones before, and we look.
 */
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "range.h"

#define RETRY_NS NVME_MS(1)
/* As long as a guest takes for a few completions. */
#define SPARE_NS NVME_US(50)

/* ---- Memory ---- */

struct nvme_sq *
st_nvme_sq_new(uint16_t qid, uint64_t base, uint32_t size, unsigned nslots)
{
    struct nvme_sq *sq = calloc(1, sizeof(*sq));

    if (!sq)
        return NULL;
    sq->slot = calloc(nslots, sizeof(*sq->slot));
    if (!sq->slot) {
        free(sq);
        return NULL;
    }
    sq->qid = qid;
    sq->base = base;
    sq->size = size;
    sq->nslots = nslots;
    st_list_init(&sq->link);
    st_list_init(&sq->held);
    for (unsigned i = nslots; i-- > 0;) {
        struct nvme_slot *s = &sq->slot[i];

        s->sq = sq;
        st_list_init(&s->link);
        s->next = sq->free;
        sq->free = s;
    }
    return sq;
}

struct nvme_cq *
st_nvme_cq_new(uint16_t qid, uint64_t base, uint32_t size)
{
    struct nvme_cq *cq = calloc(1, sizeof(*cq));

    if (!cq)
        return NULL;
    cq->qid = qid;
    cq->base = base;
    cq->size = size;
    cq->phase = true;
    st_list_init(&cq->link);
    st_list_init(&cq->raise);
    st_list_init(&cq->waiting);
    return cq;
}

void
st_nvme_sq_free(struct nvme_sq *sq)
{
    if (!sq)
        return;
    for (unsigned i = 0; i < sq->nslots; i++)
        st_nvme_io_slot_free(&sq->slot[i].cmd);
    free(sq->slot);
    free(sq);
}

void
st_nvme_cq_free(struct nvme_cq *cq)
{
    free(cq);
}

/* ---- Room ---- */

static unsigned
cq_used(const struct nvme_cq *cq)
{
    return cq->tail >= cq->head ? cq->tail - cq->head
                                : cq->tail + cq->size - cq->head;
}

/* ---- The pin ---- */

/* Is what Q says of the pin news? */
static bool
pin_set(struct st_nvme *n, struct nvme_shown *q, bool unacked)
{
    _Atomic unsigned *count = &n->unacked[atomic_load(&q->cq_vector) % 32];

    if (atomic_exchange(&q->unacked, unacked) == unacked)
        return false;
    if (unacked)
        atomic_fetch_add(count, 1);
    else
        atomic_fetch_sub(count, 1);
    return true;
}

void
st_nvme_pin_hold(struct nvme_cq *cq)
{
    struct st_nvme *n = cq->w->nvme;

    if (pin_set(n, &n->shown[cq->qid], true))
        st_nvme_line(n);
}

void
st_nvme_pin_taken(struct st_nvme *n, unsigned qid, uint32_t head)
{
    struct nvme_shown *q = &n->shown[qid];

    if (!n->intx || head != atomic_load(&q->cq_tail) || !pin_set(n, q, false))
        return;
    /* Who has posted one meanwhile has found the pin held. */
    if (head != atomic_load(&q->cq_tail))
        pin_set(n, q, true);
    st_nvme_line(n);
}

void
st_nvme_line(struct st_nvme *n)
{
    bool level;

    /* Whoever changes something tells, and looks again: the last one of
     * several is right. */
    if (!n->intx)
        return;
    do {
        uint32_t masked = atomic_load(&n->intms), on = 0;

        for (unsigned v = 0; v < 32; v++)
            if (atomic_load(&n->unacked[v]))
                on |= UINT32_C(1) << v;
        level = on & ~masked;
        st_pci_line(&n->pci, level);
        masked = atomic_load(&n->intms);
        on = 0;
        for (unsigned v = 0; v < 32; v++)
            if (atomic_load(&n->unacked[v]))
                on |= UINT32_C(1) << v;
        if (level == ((on & ~masked) != 0))
            return;
    } while (true);
}

void
st_nvme_cq_look(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    uint32_t head = st_nvme_cq_head(cq), by;

    if (head == cq->seen)
        return;
    cq->seen = head;
    by = head >= cq->head ? head - cq->head : head + cq->size - cq->head;
    if (head >= cq->size || by > cq_used(cq)) {
        st_count(&w->protocol_errors, 1);
        st_nvme_bad_doorbell(w->nvme, 2u * cq->qid + 1, 1);
        return;
    }
    cq->head = head;
    st_nvme_journal_head(cq);
    atomic_store_explicit(&w->nvme->shown[cq->qid].cq_head, head,
                          memory_order_relaxed);
    st_nvme_pin_taken(w->nvme, cq->qid, head);
    if (w->nvme->intx && st_nvme_cq_listen(cq))
        st_nvme_wake(w);
}

unsigned
st_nvme_cq_room(struct nvme_cq *cq, unsigned want)
{
    unsigned taken = cq_used(cq) + cq->owed;

    if (__builtin_expect(cq->size - 1 < taken + want, 0)) {
        st_nvme_cq_look(cq);
        taken = cq_used(cq) + cq->owed;
    }
    return cq->size - 1 > taken ? cq->size - 1 - taken : 0;
}

/* ---- Slots ---- */

static void
slot_free(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;

    s->state = NVME_SLOT_FREE;
    s->next = sq->free;
    sq->free = s;
    sq->in_flight--;
    if (sq->dead) {
        if (sq->orphan)
            st_uncount(&sq->w->orphans, 1);
        if (!sq->in_flight)
            st_nvme_sq_left(sq);
        return;
    }
    atomic_store_explicit(&sq->w->nvme->shown[sq->qid].in_flight, sq->in_flight,
                          memory_order_relaxed);
    if (sq->backlog || st_nvme_polls(sq->w))
        st_nvme_wake(sq->w);
}

void
st_nvme_slot_drop(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;

    st_nvme_abort_decided(s, false);
    st_timer_stop(sq->w->io.loop, &s->timer);
    if (s->state != NVME_SLOT_STARTED)
        st_list_remove(&s->link);
    if (sq->reordered == s)
        sq->reordered = NULL;
    if (s->state != NVME_SLOT_EVENT && sq->cq)
        sq->cq->owed -= s->copies;
    st_nvme_journal_dropped(s);
    slot_free(s);
}

/* ---- Post ---- */

/* Replace the bits that a fault wants. */
static void
cqe_spoil(struct nvme_cqe *e, const struct nvme_slot *s)
{
    uint8_t b[sizeof(*e)];

    memcpy(b, e, sizeof(b));
    for (unsigned i = 0; i < sizeof(b); i++)
        b[i] = (uint8_t)((b[i] & ~s->cqe_mask[i]) |
                         (s->cqe_value[i] & s->cqe_mask[i]));
    memcpy(e, b, sizeof(b));
}

/* S's completion, as it will stand in CQ. */
static struct nvme_cqe
cqe_of(const struct nvme_cq *cq, const struct nvme_slot *s)
{
    struct nvme_cqe e = {
        .dw0 = le32_of(s->cmd.dw0),
        .sqhd = le16_of((uint16_t)s->sq->head),
        .sqid = le16_of(s->sq->qid),
        .cid = s->cmd.sqe.cid,
        .status = le16_of((uint16_t)(s->cmd.status << 1 | cq->phase)),
    };

    if (__builtin_expect(s->phase_fault, 0))
        e.status.b[0] ^= 1;
    if (__builtin_expect(s->cqe_fault, 0))
        cqe_spoil(&e, s);
    return e;
}

/* Where the next completion goes; NULL: the queue is out of reach. */
static _Atomic uint64_t *
cqe_place(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;

    if (!st_pci_bus_master(&w->nvme->pci) || st_nvme_halted(w->nvme))
        return NULL;
    return st_gmem_peek(w->io.view,
                        cq->base + cq->tail * sizeof(struct nvme_cqe),
                        sizeof(struct nvme_cqe), true);
}

static void
cqe_put(_Atomic uint64_t *to, const struct nvme_cqe *e)
{
    uint64_t half[2];

    /* The phase tag makes an entry visible: it comes last (3.3.3.2.1). */
    memcpy(half, e, sizeof(*e));
    atomic_store_explicit(&to[0], half[0], memory_order_relaxed);
    atomic_store_explicit(&to[1], half[1], memory_order_release);
}

/* S's completion is written: the next one. Every command comes here, and gcc
 * makes a call of what has two callers. */
static inline __attribute__((always_inline)) void
cq_advance(struct nvme_cq *cq, const struct nvme_slot *s)
{
    struct nvme_worker *w = cq->w;

    cq->tail++;
    if (cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    cq->owed--;
    st_count(&w->completions, 1);
    atomic_store_explicit(&w->nvme->shown[cq->qid].cq_tail, cq->tail,
                          memory_order_relaxed);
    if (!cq->ien || !s->announce)
        return;
    if (__builtin_expect(w->nvme->intx, 0))
        st_nvme_pin_hold(cq);
    if (!cq->unraised++)
        cq->unraised_at = w->io.loop->now;
    if (st_list_empty(&cq->raise)) {
        st_list_append(&w->raise, &cq->raise);
        st_nvme_at_end(w);
    }
}

/* Write S's completion, and say so before and after, for a successor. */
static __attribute__((noinline, cold)) void
cqe_put_journaled(struct nvme_cq *cq, const struct nvme_slot *s,
                  _Atomic uint64_t *to, const struct nvme_cqe *e)
{
    st_nvme_journal_posting(cq, s, e);
    cqe_put(to, e);
    cq_advance(cq, s);
    st_nvme_journal_posted(cq, s);
}

/* Post all copies of S, and free it. False: the queue is out of reach. */
static bool
slot_post(struct nvme_cq *cq, struct nvme_slot *s)
{
    while (s->copies) {
        _Atomic uint64_t *to = cqe_place(cq);
        struct nvme_cqe e;

        if (!to)
            return false;
        e = cqe_of(cq, s);
        if (__builtin_expect(cq->journal != NULL, 0)) {
            struct nvme_cqe copy = e;

            cqe_put_journaled(cq, s, to, &copy);
        } else {
            cqe_put(to, &e);
            cq_advance(cq, s);
        }
        s->copies--;
    }
    s->copies = 1;
    slot_free(s);
    return true;
}

static void
cq_out_of_reach(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    uint64_t now = w->io.loop->now;

    if (!st_pci_bus_master(&w->nvme->pci) || st_nvme_halted(w->nvme)) {
        cq->unreachable_since = 0;
        return; /* whoever changes that kicks, or resets */
    }
    if (!cq->unreachable_since)
        cq->unreachable_since = now ? now : 1;
    if (now - cq->unreachable_since >= NVME_UNMAPPED_NS)
        st_nvme_fail(w, "a completion queue is not in the guest's memory");
    else
        st_timer_set(w->io.loop, &cq->retry, now + RETRY_NS);
}

static void
retry_fired(struct st_timer *t)
{
    st_nvme_cq_retry(st_container(t, struct nvme_cq, retry));
}

void
st_nvme_cq_retry(struct nvme_cq *cq)
{
    if (st_list_empty(&cq->waiting))
        return;
    st_list_for(s, tmp, &cq->waiting, struct nvme_slot, link)
    {
        st_list_remove(&s->link);
        if (!slot_post(cq, s)) {
            s->link.next = cq->waiting.next; /* stays the first */
            s->link.prev = &cq->waiting;
            cq->waiting.next->prev = &s->link;
            cq->waiting.next = &s->link;
            cq_out_of_reach(cq);
            return;
        }
    }
    cq->w->nwaiting--;
    cq->unreachable_since = 0;
}

static void
post(struct nvme_slot *s)
{
    struct nvme_cq *cq = s->sq->cq;
    bool first = st_list_empty(&cq->waiting);

    if (__builtin_expect(first && slot_post(cq, s), 1))
        return;
    s->state = NVME_SLOT_DONE;
    st_list_append(&cq->waiting, &s->link);
    if (!first)
        return;
    st_count(&cq->w->unreachable, 1);
    cq->w->nwaiting++;
    cq->retry.fire = retry_fired;
    cq_out_of_reach(cq);
}

/* Is STATUS one for the error log? Not what the guest asked for itself. */
static bool
is_error(uint16_t status)
{
    switch ((enum nvme_status)(status & 0x7ff)) {
    case NVME_OK:
    case NVME_ABORT_REQUESTED:
    case NVME_ABORTED_SQ_DELETION:
    case NVME_ABORTED_FUSED_FAILED:
    case NVME_COMPARE_FAILURE:
        return false;
    default:
        return true;
    }
}

static void
note_error(struct nvme_slot *s)
{
    struct nvme_error e = {
        .sqid = s->sq->qid,
        .cid = le16_get(s->cmd.sqe.cid),
        .status = s->cmd.status,
        .where = 0xffff,
        .lba = s->cmd.error_lba == UINT64_MAX ? 0 : s->cmd.error_lba,
        .nsid = le32_get(s->cmd.sqe.nsid),
    };

    s->cmd.status |= NVME_MORE;
    e.status = s->cmd.status;
    st_nvme_error(s->sq->w, &e);
}

void
st_nvme_complete(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;

    if (__builtin_expect(sq->dead, 0)) {
        st_nvme_slot_drop(s);
        return;
    }
    if (!s->executed && st_nvme_has_faults(sq->w->nvme) &&
        !st_nvme_fault_cqe(s))
        return;
    if (__builtin_expect(s->aborter != NULL, 0))
        st_nvme_abort_decided(s,
                              (s->cmd.status & 0x7ff) == NVME_ABORT_REQUESTED);
    if (__builtin_expect(is_error(s->cmd.status), 0))
        note_error(s);
    post(s);
    if (__builtin_expect(sq->reordered != NULL, 0))
        st_nvme_posted(sq);
}

/* ---- Interrupts ---- */

static void
cq_interrupt(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    struct st_nvme *n = w->nvme;

    cq->unraised = 0;
    st_timer_stop(w->io.loop, &cq->hold);
    st_count(&w->interrupts, 1);
    if (!n->intx || st_pci_uses_msix(&n->pci))
        st_pci_raise(&n->pci, cq->vector);
}

static void
hold_fired(struct st_timer *t)
{
    cq_interrupt(st_container(t, struct nvme_cq, hold));
}

/* Interrupt Coalescing (Base 5.27.1.6): at most time (100 us) after the first
 * completion, at once after threshold + 1 of them. The admin queue has none. */
static bool
cq_holds(struct nvme_cq *cq)
{
    struct st_nvme *n = cq->w->nvme;
    uint32_t c = atomic_load_explicit(&n->coalesce, memory_order_relaxed);
    unsigned threshold = c & 0xff, time = c >> 8 & 0xff;

    if (!time || !cq->qid || cq->unraised > threshold ||
        atomic_load_explicit(&n->coalesce_off[cq->vector],
                             memory_order_relaxed))
        return false;
    if (!cq->hold.slot) {
        cq->hold.fire = hold_fired;
        st_timer_set(cq->w->io.loop, &cq->hold,
                     cq->w->io.loop->now + time * NVME_US(100));
    }
    return true;
}

/* The guest is at work on what it was told of, and takes what is new in the
 * same go: an interrupt would tell it nothing. We see how far it is, and look
 * again soon, while we look at shadow doorbells; but it may take what it has
 * not told us of, so not for long. */
static bool
cq_spares(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    uint32_t head;
    unsigned left;

    if (!w->looks || !cq->qid || w->nvme->intx)
        return false;
    head = st_nvme_cq_head(cq);
    left = cq->tail >= head ? cq->tail - head : cq->tail + cq->size - head;
    if (!left) {
        cq->unraised = 0; /* it has taken these, too */
        st_list_remove(&cq->raise);
        st_count(&w->spared, 1);
        return true;
    }
    return left > cq->unraised && left < cq->size &&
           w->io.loop->now - cq->unraised_at < SPARE_NS;
}

void
st_nvme_raise(struct nvme_worker *w)
{
    st_list_for(cq, tmp, &w->raise, struct nvme_cq, raise)
    {
        if (cq_spares(cq))
            continue;
        st_list_remove(&cq->raise);
        if (!cq_holds(cq))
            cq_interrupt(cq);
    }
}

void
st_nvme_raise_all(struct nvme_worker *w)
{
    st_list_for(cq, tmp, &w->cqs, struct nvme_cq, link)
    {
        st_list_remove(&cq->raise);
        if (cq->unraised)
            cq_interrupt(cq);
    }
}
