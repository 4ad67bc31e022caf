/* SPDX-License-Identifier: MIT
 *
 * The journal is written; see journal.h. It is memory of a memfd, which a
 * holder keeps: what is stored there needs no system call.
 */
#include "journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keep.h"
#include "range.h"

static const char magic[8] = {'S', 't', 'r', 'a', 't', 'a', 'N', 'J'};

/* A test may look at the memory between any two steps, as a kill does. */
static void
step(const struct st_nvme *n)
{
    if (__builtin_expect(n->journal_step != NULL, 0))
        n->journal_step(n->journal_arg);
}

/* ---- Memory ---- */

static struct nvme_journal
layout(const struct st_nvme *n)
{
    struct nvme_journal j = {.version = NVME_JOURNAL_VERSION,
                             .queues = n->info.queues};

    memcpy(j.magic, magic, sizeof(magic));
    j.blobs =
        NVME_PAGE + st_align_up(n->ndb * sizeof(*n->db), (uint64_t)NVME_PAGE);
    j.pairs = j.blobs + 2 * NVME_JOURNAL_BLOB;
    j.len = st_align_up(j.pairs + (n->info.queues + 1) *
                                      sizeof(struct nvme_journal_queue),
                        (uint64_t)NVME_PAGE);
    return j;
}

/* The predecessor's journal, if it is of such a controller. */
static void
old_open(struct st_nvme *n, int fd)
{
    const struct nvme_journal want = layout(n);
    struct nvme_journal *old = MAP_FAILED;
    struct stat sb;

    if (fstat(fd, &sb) == 0 && (uint64_t)sb.st_size == want.len)
        old = mmap(NULL, want.len, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (old != MAP_FAILED && !memcmp(old->magic, magic, sizeof(magic)) &&
        old->version == want.version && old->queues == want.queues &&
        old->len == want.len && old->blobs == want.blobs &&
        old->pairs == want.pairs) {
        n->journal_old = old;
        return;
    }
    if (old != MAP_FAILED)
        munmap(old, want.len);
    st_warn(n->log,
            "%s: the controller before this one was of another make, the guest "
            "has to reset it",
            n->name);
}

int
st_nvme_journal_create(struct st_nvme *n, struct st_err *err)
{
    const struct nvme_journal j = layout(n);
    int old = st_keep_get(n->keep, "%s.nvme", n->name);
    void *p = MAP_FAILED;

    if (old >= 0)
        old_open(n, old);
    n->journal_fd = memfd_create("nvme-journal", MFD_CLOEXEC);
    if (n->journal_fd >= 0 && ftruncate(n->journal_fd, (off_t)j.len) == 0)
        p = mmap(NULL, j.len, PROT_READ | PROT_WRITE, MAP_SHARED, n->journal_fd,
                 0);
    if (p == MAP_FAILED)
        return st_err_set(err, errno, "cannot make memory for a journal: %s",
                          st_strerror(-errno));
    n->journal = p;
    *n->journal = j;
    n->journal_saved = calloc(1, sizeof(*n->journal_saved));
    if (!n->journal_saved)
        return st_err_set(err, ENOMEM, "no memory for a journal");
    if (!n->journal_old)
        st_nvme_journal_keep(n);
    return 0;
}

void
st_nvme_journal_free(struct st_nvme *n)
{
    if (n->journal_old)
        munmap(n->journal_old, n->journal->len);
    if (n->journal)
        munmap(n->journal, n->journal->len);
    if (n->journal_fd >= 0)
        close(n->journal_fd);
    free(n->journal_saved);
}

void
st_nvme_journal_keep(struct st_nvme *n)
{
    st_keep_put(n->keep, n->journal_fd, "%s.nvme", n->name);
}

/* ---- The controller ---- */

void
st_nvme_journal_regs(struct st_nvme *n)
{
    struct nvme_journal *j = n->journal;
    unsigned next;

    if (!j)
        return;
    next = !atomic_load(&j->regs_now);
    j->regs[next] = (struct nvme_journal_regs){
        .state = atomic_load(&n->state),
        .cc = n->reg.cc,
        .csts = atomic_load(&n->csts),
        .aqa = n->reg.aqa,
        .intms = atomic_load(&n->intms),
        .asq = n->reg.asq,
        .acq = n->reg.acq,
        .resets = n->reg.resets,
        .resets_done = n->resets,
        .shadow = atomic_load(&n->shadow),
        .shadow_page = atomic_load(&n->shadow_page),
        .event_page = atomic_load(&n->event_page),
    };
    step(n);
    atomic_store(&j->regs_now, next);
    step(n);
}

void
st_nvme_journal_blob(struct st_nvme *n, const struct nvme_slot *s)
{
    struct nvme_journal *j = n->journal;
    unsigned next;

    if (!j || !n->admin->open)
        return;
    next = !atomic_load(&j->blob_now);
    st_nvme_take(n, n->journal_saved);
    j->blob[next] = (struct nvme_journal_blob){
        .len = (uint32_t)st_nvme_saved_put(n->journal_saved,
                                           st_nvme_journal_blob_at(j, next),
                                           NVME_JOURNAL_BLOB)};
    if (s) {
        unsigned i = (unsigned)(s - s->sq->slot);

        j->blob[next].done = true;
        j->blob[next].slot = i;
        j->blob[next].number = s->sq->journal->slot[i].number;
        j->blob[next].status = s->cmd.status;
        j->blob[next].dw0 = s->cmd.dw0;
    }
    step(n);
    atomic_store(&j->blob_now, next);
    step(n);
}

/* ---- Queues ---- */

void
st_nvme_journal_cq(struct nvme_cq *cq)
{
    struct st_nvme *n = cq->w->nvme;
    struct nvme_journal_queue *q;

    if (!n->journal)
        return;
    q = st_nvme_journal_queue(n->journal, cq->qid);
    q->cq_base = cq->base;
    q->cq_size = cq->size;
    q->vector = cq->vector;
    q->ien = cq->ien;
    cq->journal = q;
    atomic_store(&q->cq_head, cq->head);
    atomic_store(&q->posted, (uint64_t)cq->phase << 32 | cq->tail);
    atomic_store(&q->has_cq, 1);
    step(n);
}

void
st_nvme_journal_sq(struct nvme_sq *sq)
{
    struct st_nvme *n = sq->w->nvme;
    struct nvme_journal_queue *q;

    if (!n->journal)
        return;
    q = st_nvme_journal_queue(n->journal, sq->qid);
    for (unsigned i = 0; i < NVME_JOURNAL_SLOTS; i++)
        atomic_store(&q->slot[i].state, NVME_JOURNAL_FREE);
    q->sq_base = sq->base;
    q->sq_size = sq->size;
    q->cqid = sq->cq->qid;
    sq->journal = q;
    atomic_store(&q->fetched, (uint64_t)sq->number << 32 | sq->head);
    atomic_store(&q->has_sq, 1);
    step(n);
}

void
st_nvme_journal_sq_gone(struct nvme_sq *sq)
{
    if (!sq->journal)
        return;
    atomic_store(&sq->journal->has_sq, 0);
    sq->journal = NULL;
    step(sq->w->nvme);
}

void
st_nvme_journal_cq_gone(struct nvme_cq *cq)
{
    if (!cq->journal)
        return;
    atomic_store(&cq->journal->has_cq, 0);
    cq->journal = NULL;
    step(cq->w->nvme);
}

/* ---- Commands ---- */

static struct nvme_journal_slot *
record_of(const struct nvme_slot *s)
{
    return &s->sq->journal->slot[s - s->sq->slot];
}

void
st_nvme_journal_fetched(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;
    struct nvme_journal_slot *r = record_of(s);

    r->sqe = s->cmd.sqe;
    r->number = sq->number++;
    atomic_store_explicit(&r->state, NVME_JOURNAL_STARTED,
                          memory_order_release);
    step(sq->w->nvme);
    atomic_store_explicit(&sq->journal->fetched,
                          (uint64_t)sq->number << 32 | sq->head,
                          memory_order_release);
    step(sq->w->nvme);
}

void
st_nvme_journal_decided(const struct nvme_slot *s)
{
    struct nvme_journal_slot *r;

    if (!s->sq->journal)
        return;
    r = record_of(s);
    r->cqe.dw0 = le32_of(s->cmd.dw0);
    r->cqe.status = le16_of((uint16_t)(s->forced_status << 1));
    r->at = NVME_JOURNAL_NOWHERE;
    atomic_store_explicit(&r->state, NVME_JOURNAL_POSTING,
                          memory_order_release);
}

void
st_nvme_journal_posting(const struct nvme_cq *cq, const struct nvme_slot *s,
                        const struct nvme_cqe *e)
{
    struct nvme_journal_slot *r = record_of(s);

    if (!s->sq->qid) {
        st_nvme_journal_regs(cq->w->nvme);
        st_nvme_journal_blob(cq->w->nvme, s);
    }
    r->cqe = *e;
    r->at = cq->tail;
    atomic_store_explicit(&r->state, NVME_JOURNAL_POSTING,
                          memory_order_release);
    step(cq->w->nvme);
}

void
st_nvme_journal_posted(const struct nvme_cq *cq, const struct nvme_slot *s)
{
    step(cq->w->nvme);
    atomic_store_explicit(&cq->journal->posted,
                          (uint64_t)cq->phase << 32 | cq->tail,
                          memory_order_release);
    step(cq->w->nvme);
    atomic_store_explicit(&record_of(s)->state, NVME_JOURNAL_FREE,
                          memory_order_release);
    step(cq->w->nvme);
}

void
st_nvme_journal_dropped(const struct nvme_slot *s)
{
    if (s->sq->journal)
        atomic_store(&record_of(s)->state, NVME_JOURNAL_FREE);
}

void
st_nvme_journal_head(const struct nvme_cq *cq)
{
    if (cq->journal)
        atomic_store(&cq->journal->cq_head, cq->head);
}
