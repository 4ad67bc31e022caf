/* SPDX-License-Identifier: MIT
 *
 * Admin commands that concern queues: create and delete (Base 5.5, 5.6, PCIe
 * Transport 3.4), Abort (Base 5.1).
 *
 *   admin loop            the queue's worker         admin loop
 *   ------------------    -----------------------    ----------------
 *   check, make it,  -->  put it in its place,   -->  note it, end
 *   note that it comes    or take it out
 *
 * Completion queues are spread over the workers by their numbers, and a
 * submission queue goes where its completion queue is.
 */
#include <stdlib.h>

#include "journal.h"
#include "range.h"

static struct st_nvme *
nvme_of(const struct nvme_slot *s)
{
    return s->sq->w->nvme;
}

struct nvme_worker *
st_nvme_worker_of(struct st_nvme *n, uint16_t qid)
{
    return &n->worker[(qid - 1u + n->info.cntlid) % n->nworkers];
}

/* Send S to W, where RUN carries it out. */
static void
ask(struct nvme_slot *s, struct nvme_worker *w, void (*run)(struct st_task *t))
{
    atomic_store(&w->used, true);
    s->target = w;
    s->msg.run = run;
    st_post(w->io.loop, &s->msg);
}

/* Back to the admin loop, where RUN goes on. */
static void
back(struct nvme_slot *s, uint16_t status, void (*run)(struct st_task *t))
{
    s->cmd.status = status;
    s->msg.run = run;
    st_post(s->sq->w->io.loop, &s->msg);
}

static struct nvme_slot *
slot_of(struct st_task *t)
{
    return st_container(t, struct nvme_slot, msg);
}

struct what {
    uint16_t qid;
    uint32_t size;
    uint32_t cdw11;
    uint64_t base;
};

static struct what
what(const struct nvme_slot *s)
{
    uint32_t cdw10 = le32_get(s->cmd.sqe.cdw10);

    return (struct what){
        .qid = (uint16_t)cdw10,
        .size = (cdw10 >> 16) + 1,
        .cdw11 = le32_get(s->cmd.sqe.cdw11),
        .base = le64_get(s->cmd.sqe.prp1),
    };
}

/* Entries of 2^SHIFT bytes, which CC says in 4 bits at CC_SHIFT. */
static uint16_t
check_size(const struct st_nvme *n, uint32_t size, unsigned cc_shift,
           unsigned shift)
{
    unsigned mqes = (unsigned)(atomic_load(&n->cap) & 0xffff);

    return size < 2 || size > mqes + 1 ||
                   (atomic_load(&n->cc) >> cc_shift & 0xf) != shift
               ? NVME_QUEUE_SIZE_INVALID | NVME_DNR
               : NVME_OK;
}

/* Is all of a queue's memory there, now? On W's loop. */
static bool
reachable(struct nvme_worker *w, uint64_t base, uint64_t bytes, bool write)
{
    if (!st_pci_bus_master(&w->nvme->pci) || base + bytes < base)
        return false;
    for (uint64_t at = 0; at < bytes; at += NVME_PAGE)
        if (!st_gmem_peek(w->io.view, base + at, st_min(bytes - at, NVME_PAGE),
                          write))
            return false;
    return true;
}

/* ---- Completion queues ---- */

static void
create_cq_back(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);

    if (!s->sq->dead) {
        struct nvme_pair *p = &nvme_of(s)->pair[what(s).qid];

        p->cq_made = s->cmd.status == NVME_OK;
        p->cq = p->cq_made;
    }
    st_nvme_complete(s);
}

static void
create_cq_run(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);
    struct nvme_worker *w = s->target;
    struct nvme_cq *cq = s->new_cq;
    uint16_t status = NVME_OK;

    s->new_cq = NULL;
    if (st_nvme_worker_open(w) < 0)
        status = NVME_INTERNAL_ERROR;
    else if (!reachable(w, cq->base, cq->size * sizeof(struct nvme_cqe), true))
        status = NVME_DATA_TRANSFER_ERROR | NVME_DNR;
    if (status == NVME_OK)
        st_nvme_attach_cq(w, cq);
    else
        st_nvme_cq_free(cq);
    back(s, status, create_cq_back);
}

void
st_nvme_create_cq(struct nvme_slot *s)
{
    enum { PC = 1, IEN = 2 };
    struct st_nvme *n = nvme_of(s);
    struct what q = what(s);
    uint16_t status = NVME_OK, vector = (uint16_t)(q.cdw11 >> 16);
    bool ien = q.cdw11 & IEN;

    if (st_nvme_replayed_cq(s, q.qid, q.base, q.size, ien, vector)) {
        st_nvme_end(s, NVME_OK);
        return;
    }
    if (!(q.cdw11 & PC)) /* CAP.CQR */
        status = NVME_INVALID_FIELD | NVME_DNR;
    else if (!q.qid || q.qid > n->features.ncq || n->pair[q.qid].cq)
        status = NVME_QID_INVALID | NVME_DNR;
    else if (ien && vector >= n->info.vectors)
        status = NVME_INVALID_VECTOR | NVME_DNR;
    else
        status = check_size(n, q.size, NVME_CC_IOCQES_SHIFT, 4);
    if (status == NVME_OK && q.base % NVME_PAGE)
        status = NVME_INVALID_PRP_OFFSET | NVME_DNR;
    if (status == NVME_OK) {
        s->new_cq = st_nvme_cq_new(q.qid, q.base, q.size);
        if (!s->new_cq)
            status = NVME_INTERNAL_ERROR;
    }
    if (status != NVME_OK) {
        st_nvme_end(s, status);
        return;
    }
    s->new_cq->ien = ien;
    s->new_cq->vector = ien ? vector : 0;
    n->pair[q.qid].cq = true;
    n->pair[q.qid].nsq = 0;
    n->pair[q.qid].w = st_nvme_worker_of(n, q.qid);
    ask(s, n->pair[q.qid].w, create_cq_run);
}

static void
delete_cq_back(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);

    if (!s->sq->dead)
        nvme_of(s)->pair[what(s).qid].cq = false;
    st_nvme_complete(s);
}

static void
delete_cq_run(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);
    struct nvme_cq *cq = st_nvme_find_cq(s->target, what(s).qid);

    if (cq)
        st_nvme_detach_cq(cq);
    back(s, NVME_OK, delete_cq_back);
}

void
st_nvme_delete_cq(struct nvme_slot *s)
{
    struct st_nvme *n = nvme_of(s);
    uint16_t qid = what(s).qid;
    struct nvme_pair *p = qid && qid <= n->info.queues ? &n->pair[qid] : NULL;

    if (s->replayed && p && !p->cq) {
        st_nvme_end(s, NVME_OK); /* it has been deleted by this one */
    } else if (!p || !p->cq_made) {
        st_nvme_end(s, NVME_QID_INVALID | NVME_DNR);
    } else if (p->nsq) {
        st_nvme_end(s, NVME_INVALID_QUEUE_DELETION | NVME_DNR);
    } else {
        p->cq_made = false; /* leaves */
        ask(s, p->w, delete_cq_run);
    }
}

/* ---- Submission queues ---- */

static void
create_sq_back(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);

    if (!s->sq->dead) {
        struct st_nvme *n = nvme_of(s);
        struct nvme_pair *p = &n->pair[what(s).qid];

        p->sq_made = s->cmd.status == NVME_OK;
        p->sq = p->sq_made;
        if (!p->sq)
            n->pair[p->cqid].nsq--;
    }
    st_nvme_complete(s);
}

static void
create_sq_run(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);
    struct nvme_worker *w = s->target;
    struct nvme_sq *sq = s->new_sq;
    struct nvme_cq *cq = st_nvme_find_cq(w, (uint16_t)(what(s).cdw11 >> 16));
    uint16_t status = NVME_OK;

    s->new_sq = NULL;
    if (!cq)
        status = NVME_INTERNAL_ERROR;
    else if (!reachable(w, sq->base, sq->size * sizeof(struct nvme_sqe), false))
        status = NVME_DATA_TRANSFER_ERROR | NVME_DNR;
    if (status == NVME_OK)
        st_nvme_attach_sq(w, sq, cq);
    else
        st_nvme_sq_free(sq);
    back(s, status, create_sq_back);
}

void
st_nvme_create_sq(struct nvme_slot *s)
{
    enum { PC = 1 };
    struct st_nvme *n = nvme_of(s);
    struct what q = what(s);
    uint16_t status = NVME_OK, cqid = (uint16_t)(q.cdw11 >> 16);

    if (st_nvme_replayed_sq(s, q.qid, q.base, q.size, cqid)) {
        st_nvme_end(s, NVME_OK);
        return;
    }
    if (!(q.cdw11 & PC))
        status = NVME_INVALID_FIELD | NVME_DNR;
    else if (!q.qid || q.qid > n->features.nsq || n->pair[q.qid].sq)
        status = NVME_QID_INVALID | NVME_DNR;
    else if (!cqid || cqid > n->info.queues || !n->pair[cqid].cq_made)
        status = NVME_CQ_INVALID | NVME_DNR;
    else
        status = check_size(n, q.size, NVME_CC_IOSQES_SHIFT, 6);
    if (status == NVME_OK && q.base % NVME_PAGE)
        status = NVME_INVALID_PRP_OFFSET | NVME_DNR;
    if (status == NVME_OK) {
        s->new_sq = st_nvme_sq_new(q.qid, q.base, q.size,
                                   (unsigned)st_min(q.size, NVME_SLOTS));
        if (!s->new_sq)
            status = NVME_INTERNAL_ERROR;
    }
    if (status != NVME_OK) {
        st_nvme_end(s, status);
        return;
    }
    n->pair[q.qid].sq = true;
    n->pair[q.qid].cqid = cqid;
    n->pair[q.qid].sq_w = n->pair[cqid].w;
    n->pair[cqid].nsq++;
    ask(s, n->pair[cqid].w, create_sq_run);
}

static void
delete_sq_back(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);

    if (!s->sq->dead) {
        struct st_nvme *n = nvme_of(s);
        struct nvme_pair *p = &n->pair[what(s).qid];

        p->sq = false;
        n->pair[p->cqid].nsq--;
    }
    st_nvme_end(s, NVME_OK);
}

static void
delete_sq_run(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);
    struct nvme_sq *sq = st_nvme_find_sq(s->target, what(s).qid);

    s->msg.run = delete_sq_back;
    if (sq)
        st_nvme_detach_sq(sq, s);
    else
        back(s, NVME_OK, delete_sq_back);
}

void
st_nvme_delete_sq(struct nvme_slot *s)
{
    struct st_nvme *n = nvme_of(s);
    uint16_t qid = what(s).qid;
    struct nvme_pair *p = qid && qid <= n->info.queues ? &n->pair[qid] : NULL;

    if (s->replayed && p && !p->sq) {
        st_nvme_end(s, NVME_OK); /* it has been deleted by this one */
        return;
    }
    if (!p || !p->sq_made) {
        st_nvme_end(s, NVME_QID_INVALID | NVME_DNR);
        return;
    }
    p->sq_made = false; /* leaves */
    ask(s, p->sq_w, delete_sq_run);
}

/* ---- Abort ---- */

static void
abort_back(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);

    nvme_of(s)->naborts--;
    st_nvme_end(s, NVME_OK);
}

static void
abort_run(struct st_task *t)
{
    struct nvme_slot *s = slot_of(t);

    s->msg.run = abort_back;
    st_nvme_abort(s);
}

void
st_nvme_admin_abort(struct nvme_slot *s)
{
    struct st_nvme *n = nvme_of(s);
    uint16_t sqid = (uint16_t)le32_get(s->cmd.sqe.cdw10);
    bool known = sqid <= n->info.queues && (!sqid || n->pair[sqid].sq_made);

    if (n->naborts == NVME_ABORTS) {
        st_nvme_end(s, NVME_ABORT_LIMIT | NVME_DNR);
    } else if (!known) {
        s->cmd.dw0 = 1;
        st_nvme_end(s, NVME_OK);
    } else {
        n->naborts++;
        ask(s, sqid ? n->pair[sqid].sq_w : n->admin, abort_run);
    }
}
