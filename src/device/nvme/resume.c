/* SPDX-License-Identifier: MIT
 *
 * A controller goes on where its predecessor was killed: the journal (see
 * journal.h) becomes what save.c has of one, and restore.c does the rest; then
 * what was under way is taken up.
 *
 *   fetched, not over     again: reads, writes and the others that may be
 *                         carried out twice; a fused pair or a Copy may not,
 *                         and ends with Internal Error, to be tried again
 *   over, not posted      posted, as it was
 *   posted                forgotten
 *
 * The old journal is only read, and the new one is the holder's when all of it
 * is there: a kill in between finds the old one again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "range.h"

/* ---- Queues ---- */

static void
read_cq(const struct nvme_journal *j, const struct nvme_journal_queue *q,
        uint16_t qid, struct nvme_saved_cq *s)
{
    const _Atomic uint32_t *db = (const void *)((uintptr_t)j + NVME_PAGE);
    uint64_t posted = atomic_load(&q->posted);

    *s = (struct nvme_saved_cq){
        .qid = qid,
        .vector = q->vector,
        .ien = q->ien,
        .phase = posted >> 32 & 1,
        .base = q->cq_base,
        .size = q->cq_size,
        .head = atomic_load(&q->cq_head),
        .tail = (uint32_t)posted,
        .doorbell = atomic_load(&db[2u * qid + 1]),
    };
    s->seen = s->head;
}

/* Was the entry whose number is the next one fetched, too? */
static bool
one_more(const struct nvme_journal_queue *q, uint32_t number)
{
    for (unsigned i = 0; i < NVME_JOURNAL_SLOTS; i++)
        if (atomic_load(&q->slot[i].state) != NVME_JOURNAL_FREE &&
            q->slot[i].number == number)
            return true;
    return false;
}

static void
read_sq(const struct nvme_journal *j, const struct nvme_journal_queue *q,
        uint16_t qid, struct nvme_saved_sq *s)
{
    const _Atomic uint32_t *db = (const void *)((uintptr_t)j + NVME_PAGE);
    uint64_t fetched = atomic_load(&q->fetched);

    *s = (struct nvme_saved_sq){
        .qid = qid,
        .cqid = q->cqid,
        .base = q->sq_base,
        .size = q->sq_size,
        .head = (uint32_t)fetched,
        .doorbell = atomic_load(&db[2u * qid]),
    };
    if (one_more(q, (uint32_t)(fetched >> 32)))
        s->head = s->head + 1 == s->size ? 0 : s->head + 1;
    s->tail = s->seen = s->head;
}

static void
read_queues(const struct nvme_journal *j, struct nvme_saved *s)
{
    for (unsigned qid = 0; qid <= j->queues; qid++) {
        const struct nvme_journal_queue *q = st_nvme_journal_queue(j, qid);

        if (atomic_load(&q->has_cq))
            read_cq(j, q, (uint16_t)qid, &s->cq[s->ncq++]);
        if (atomic_load(&q->has_sq))
            read_sq(j, q, (uint16_t)qid, &s->sq[s->nsq++]);
    }
}

/* ---- The controller ---- */

/* Only a controller that is ready has queues. One that was about to be, or
 * about to be reset, begins anew with what its registers say. */
static void
read_regs(const struct nvme_journal_regs *r, const struct nvme_journal *j,
          struct nvme_saved *s)
{
    const uint32_t shst = 3u << NVME_CSTS_SHST_SHIFT;
    bool same = r->cc & NVME_CC_EN && r->resets == r->resets_done;

    s->cc = r->cc;
    s->aqa = r->aqa;
    s->intms = r->intms;
    s->asq = r->asq;
    s->acq = r->acq;
    s->csts = r->csts & shst;
    if (s->csts == 1u << NVME_CSTS_SHST_SHIFT)
        s->csts = 0; /* once more */
    if (same && r->state == NVME_READY) {
        s->state = NVME_READY;
        s->csts |= NVME_CSTS_RDY;
        s->shadow = r->shadow;
        s->shadow_page = r->shadow ? r->shadow_page : 0;
        s->event_page = r->shadow ? r->event_page : 0;
        read_queues(j, s);
    } else if (same && r->state == NVME_FAILED) {
        s->state = NVME_FAILED;
        s->csts = r->csts | NVME_CSTS_CFS;
    } else {
        s->state = NVME_DISABLED;
        s->csts = 0;
    }
}

int
st_nvme_journal_read(const struct nvme_journal *old, struct nvme_saved *s,
                     struct st_err *err)
{
    const struct nvme_journal_regs *r =
        &old->regs[atomic_load(&old->regs_now) & 1];
    const struct nvme_features fresh = s->features;
    unsigned now = atomic_load(&old->blob_now) & 1;
    size_t len = old->blob[now].len;
    int rc = 0;

    if (len > NVME_JOURNAL_BLOB)
        return st_err_set(err, EINVAL, "the journal makes no sense");
    if (len)
        rc = st_nvme_saved_read(st_nvme_journal_blob_at(old, now), len, s, err);
    if (rc < 0)
        return rc;
    s->ncq = s->nsq = s->naers = 0;
    if (r->resets != r->resets_done) { /* it is reset by being new */
        s->features = fresh;
        memset(s->coalesce_off, 0, sizeof(s->coalesce_off));
        memset(s->event, 0, sizeof(s->event));
    }
    read_regs(r, old, s);
    return st_nvme_saved_check(s, true, err);
}

/* ---- What was under way ---- */

/* The records of commands, oldest first; how many. */
static unsigned
under_way(const struct nvme_journal_queue *q, unsigned nslots,
          const struct nvme_journal_slot **r)
{
    unsigned n = 0;

    for (unsigned i = 0; i < st_min(nslots, NVME_JOURNAL_SLOTS); i++) {
        const struct nvme_journal_slot *x = &q->slot[i];
        unsigned at = n;

        if (atomic_load(&x->state) == NVME_JOURNAL_FREE)
            continue;
        for (; at && (int32_t)(x->number - r[at - 1]->number) < 0; at--)
            r[at] = r[at - 1];
        r[at] = x;
        n++;
    }
    return n;
}

/* R is POSTING: has the guest got it? Then the tail is behind it. */
static bool
was_posted(struct nvme_sq *sq, const struct nvme_journal_slot *r)
{
    struct nvme_cq *cq = sq->cq;
    struct nvme_cqe e;

    if (r->at == NVME_JOURNAL_NOWHERE)
        return false;
    if (cq->tail != r->at)
        return true;
    if (st_gmem_read(sq->w->io.view, cq->base + r->at * sizeof(e), &e,
                     sizeof(e)) < 0 ||
        memcmp(&e, &r->cqe, sizeof(e)) != 0)
        return false;
    cq->tail++;
    if (cq->tail == cq->size) {
        cq->tail = 0;
        cq->phase = !cq->phase;
    }
    atomic_store(&sq->w->nvme->shown[cq->qid].cq_tail, cq->tail);
    st_nvme_journal_cq(cq);
    if (sq->w->nvme->intx && cq->ien)
        st_nvme_pin_hold(cq);
    return true;
}

/* May R, of an I/O queue, not be carried out again? */
static bool
only_once(const struct nvme_journal_slot *r)
{
    return r->sqe.flags & NVME_FUSE_MASK || r->sqe.opcode == NVME_COPY;
}

/* The last of N commands: a first of a pair that has no second yet? */
static bool
is_first(const struct nvme_sq *sq, const struct nvme_journal_slot *r)
{
    return sq->qid && sq->cq->size > 2 &&
           (r->sqe.flags & NVME_FUSE_MASK) == 1 &&
           atomic_load(&r->state) == NVME_JOURNAL_STARTED;
}

/* S ends so, also if we die before that. */
static void
force(struct nvme_slot *s, uint16_t status, uint32_t dw0)
{
    s->forced = true;
    s->forced_status = status;
    s->cmd.dw0 = dw0;
    st_nvme_journal_decided(s);
}

/* Take up R. DONE: the blob has the outcome of it. */
static void
take_up(struct nvme_sq *sq, const struct nvme_journal_slot *r,
        const struct nvme_journal_blob *done)
{
    struct nvme_slot *s = st_nvme_slot_take(sq, &r->sqe);
    struct st_nvme *n = sq->w->nvme;

    s->replayed = true;
    if (atomic_load(&r->state) == NVME_JOURNAL_POSTING)
        force(s, (uint16_t)(le16_get(r->cqe.status) >> 1),
              le32_get(r->cqe.dw0));
    else if (done)
        force(s, (uint16_t)done->status, done->dw0);
    else if (sq->qid && only_once(r))
        force(s, NVME_INTERNAL_ERROR, 0);
    if (!sq->qid && r->sqe.opcode == NVME_ADMIN_ASYNC_EVENT && !s->forced &&
        n->naers < NVME_AERL) {
        s->state = NVME_SLOT_EVENT;
        st_list_append(&n->aers, &s->link);
        n->naers++;
        return;
    }
    sq->cq->owed++;
    st_nvme_hold(s);
}

void
st_nvme_replay(const struct nvme_journal *old, struct nvme_sq *sq)
{
    const struct nvme_journal_queue *q = st_nvme_journal_queue(old, sq->qid);
    const struct nvme_journal_blob *b =
        &old->blob[atomic_load(&old->blob_now) & 1];
    const struct nvme_journal_slot *r[NVME_JOURNAL_SLOTS];
    unsigned n = under_way(q, sq->nslots, r);

    for (unsigned i = 0; i < n; i++) {
        bool done = !sq->qid && b->done && b->slot == r[i] - q->slot &&
                    b->number == r[i]->number;

        if (atomic_load(&r[i]->state) == NVME_JOURNAL_POSTING &&
            was_posted(sq, r[i]))
            continue;
        if (i + 1 == n && is_first(sq, r[i])) {
            sq->first = st_nvme_slot_take(sq, &r[i]->sqe);
            sq->cq->owed += 2;
        } else {
            take_up(sq, r[i], done ? b : NULL);
        }
    }
}

/* ---- Commands that concern queues ---- */

static const struct nvme_journal_queue *
queue_of(const struct nvme_slot *s, uint16_t qid)
{
    const struct st_nvme *n = s->sq->w->nvme;

    return s->replayed && n->journal && qid && qid <= n->info.queues
               ? st_nvme_journal_queue(n->journal, qid)
               : NULL;
}

bool
st_nvme_replayed_cq(const struct nvme_slot *s, uint16_t qid, uint64_t base,
                    uint32_t size, bool ien, uint16_t vector)
{
    const struct nvme_journal_queue *q = queue_of(s, qid);

    return q && atomic_load(&q->has_cq) && q->cq_base == base &&
           q->cq_size == size && q->ien == ien && (!ien || q->vector == vector);
}

bool
st_nvme_replayed_sq(const struct nvme_slot *s, uint16_t qid, uint64_t base,
                    uint32_t size, uint16_t cqid)
{
    const struct nvme_journal_queue *q = queue_of(s, qid);

    return q && atomic_load(&q->has_sq) && q->sq_base == base &&
           q->sq_size == size && q->cqid == cqid;
}
