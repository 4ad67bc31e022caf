/* SPDX-License-Identifier: MIT
 *
 * Where faults on demand take hold of the controller: rules (nvme_fault.h) say
 * what, this file does it.
 *
 *   fetched --> [SQE] --> started ... carried out --> [CQE] --> posted
 *                 |                                     |
 *                 '-- held: for a time (delay, stall), until the next one of
 *                     its queue is posted (reorder), or until it is released,
 *                     aborted or reset (stuck)
 *
 * Of the entries of a fused pair only bytes are replaced, and not FUSE itself;
 * their completions are like all others. Doorbells do not count as accesses to
 * registers, since nothing of a set of rules may be read there.
 *
 * A controller that is gone comes back, as after power-on, when the rules are
 * replaced or what they hold is released.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme_fault.h"
#include "nvme_private.h"
#include "range.h"

/* A set of rules that was replaced. */
struct retired {
    struct st_deferred defer; /* first */
    struct nvme_faults *faults;
};

/* ---- Slots that are held ---- */

void
st_nvme_hold(struct nvme_slot *s)
{
    s->state = NVME_SLOT_HELD;
    st_list_append(&s->sq->held, &s->link);
}

/* S goes on where it was held. */
static void
go_on(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;

    st_timer_stop(sq->w->io.loop, &s->timer);
    st_list_remove(&s->link);
    if (sq->reordered == s)
        sq->reordered = NULL;
    s->state = NVME_SLOT_STARTED;
    if (s->executed)
        st_nvme_complete(s);
    else if (s->forced)
        st_nvme_end(s, s->forced_status);
    else
        st_nvme_slot_start(s);
}

static void
delay_over(struct st_timer *t)
{
    go_on(st_container(t, struct nvme_slot, timer));
}

static void
hold_for(struct nvme_slot *s, uint64_t ns)
{
    struct st_loop *l = s->sq->w->io.loop;

    st_nvme_hold(s);
    s->timer.fire = delay_over;
    st_timer_set(l, &s->timer, l->now + ns);
}

static void
stall_over(struct st_timer *t)
{
    st_nvme_wake(st_container(t, struct nvme_sq, timer)->w);
}

static void
stall(struct nvme_sq *sq, uint64_t ns)
{
    struct st_loop *l = sq->w->io.loop;

    sq->stalled_until = l->now + ns;
    sq->timer.fire = stall_over;
    st_timer_set(l, &sq->timer, sq->stalled_until);
}

void
st_nvme_posted(struct nvme_sq *sq)
{
    struct nvme_slot *s = sq->reordered;

    if (!s)
        return;
    sq->reordered = NULL;
    go_on(s);
}

/* ---- The controller as a whole ---- */

static void
whole(struct nvme_worker *w, unsigned what)
{
    if (what & NVME_FAULT_CFS)
        st_nvme_fail(w, "by a rule of faults");
    if (what & NVME_FAULT_GONE)
        atomic_store(&w->nvme->gone, true);
}

bool
st_nvme_fault_register(struct st_nvme *n)
{
    struct nvme_faults *f = atomic_load(&n->faults);
    struct nvme_fault_event e = {.on = NVME_FAULT_REGISTER};
    struct nvme_fault hit;

    if (!f || !st_nvme_faults_hit(f, &e, &hit))
        return false;
    if (hit.what & NVME_FAULT_CFS)
        st_nvme_step_failed(n);
    if (!(hit.what & NVME_FAULT_GONE))
        return false;
    atomic_store(&n->gone, true);
    return true;
}

uint64_t
st_nvme_fault_enable(struct st_nvme *n)
{
    struct nvme_faults *f = atomic_load(&n->faults);
    struct nvme_fault_event e = {.on = NVME_FAULT_ENABLE};
    struct nvme_fault hit;

    if (!f || !st_nvme_faults_hit(f, &e, &hit))
        return 0;
    if (hit.what & (NVME_FAULT_CFS | NVME_FAULT_GONE))
        whole(n->admin, hit.what);
    if (hit.what & (NVME_FAULT_STUCK | NVME_FAULT_DROP))
        return UINT64_MAX;
    return hit.what & (NVME_FAULT_DELAY | NVME_FAULT_STALL) ? hit.ns : 0;
}

/* ---- Submission ---- */

static void
describe(struct nvme_fault_event *e, const struct nvme_slot *s, bool completion)
{
    const struct nvme_sqe *sqe = &s->cmd.sqe;
    bool io = s->sq->qid;

    *e = (struct nvme_fault_event){
        .on = io           ? completion ? NVME_FAULT_IO_CQE : NVME_FAULT_IO_SQE
              : completion ? NVME_FAULT_ADMIN_CQE
                           : NVME_FAULT_ADMIN_SQE,
        .sqid = s->sq->qid,
        .sqe = sqe,
        .status = s->cmd.status,
    };
    if (!io)
        return;
    switch (sqe->opcode) {
    case NVME_WRITE:
    case NVME_READ:
    case NVME_COMPARE:
    case NVME_WRITE_ZEROES:
    case NVME_VERIFY:
        e->has_lba = true;
        e->lba = le32_get(sqe->cdw10) | (uint64_t)le32_get(sqe->cdw11) << 32;
        e->nlb = (le32_get(sqe->cdw12) & 0xffff) + 1;
        break;
    default:
        break;
    }
}

/* The error log names the first block of S, unless its disk named another. */
static void
blame(struct nvme_slot *s, const struct nvme_fault_event *e)
{
    if (e->has_lba && s->cmd.error_lba == UINT64_MAX)
        s->cmd.error_lba = e->lba;
}

/* Replace the bits that are masked, but for FUSE: what its queue owes would be
 * wrong. */
static void
spoil_entry(struct nvme_sqe *sqe, const struct nvme_fault *f)
{
    unsigned fuse = sqe->flags & NVME_FUSE_MASK;
    uint8_t b[sizeof(*sqe)];

    memcpy(b, sqe, sizeof(b));
    for (unsigned i = 0; i < sizeof(b); i++)
        b[i] = (uint8_t)((b[i] & ~f->mask[i]) | (f->value[i] & f->mask[i]));
    memcpy(sqe, b, sizeof(b));
    sqe->flags = (uint8_t)((sqe->flags & ~NVME_FUSE_MASK) | fuse);
}

/* A write loses its end, and does not know. False: all of it. */
static bool
tear(struct nvme_slot *s, uint64_t blocks)
{
    struct nvme_sqe *sqe = &s->cmd.sqe;
    uint32_t cdw12 = le32_get(sqe->cdw12);

    if (!s->sq->qid || sqe->opcode != NVME_WRITE ||
        (cdw12 & 0xffff) + 1 <= blocks)
        return true;
    if (!blocks)
        return false;
    sqe->cdw12 = le32_of((cdw12 & ~0xffffu) | (uint32_t)(blocks - 1));
    return true;
}

bool
st_nvme_fault_sqe(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;
    struct nvme_faults *faults = atomic_load(&sq->w->nvme->faults);
    struct nvme_fault_event e;
    struct nvme_fault f;

    if (!faults)
        return true;
    describe(&e, s, false);
    if (!st_nvme_faults_hit(faults, &e, &f))
        return true;
    if (f.what & NVME_FAULT_SQE)
        spoil_entry(&s->cmd.sqe, &f);
    whole(sq->w, f.what);
    if (sq->qid && (sq->first || s->cmd.sqe.flags & NVME_FUSE_MASK))
        return true;
    if (f.what & NVME_FAULT_STALL)
        stall(sq, f.ns);
    if (f.what & NVME_FAULT_DROP) {
        st_nvme_slot_drop(s);
        return false;
    }
    s->forced = f.what & NVME_FAULT_STATUS;
    s->forced_status = f.status;
    if (s->forced)
        blame(s, &e);
    if (f.what & NVME_FAULT_TORN && !tear(s, f.blocks)) {
        s->forced = true;
        s->forced_status = NVME_OK;
    }
    if (f.what & NVME_FAULT_STUCK)
        st_nvme_hold(s);
    else if (f.what & (NVME_FAULT_DELAY | NVME_FAULT_STALL))
        hold_for(s, f.ns);
    else if (s->forced)
        st_nvme_end(s, s->forced_status);
    else
        return true;
    return false;
}

/* ---- Completion ---- */

/* Bytes that S sends to the host. */
static uint64_t
sends(const struct nvme_slot *s)
{
    const struct nvme_sqe *e = &s->cmd.sqe;
    struct st_nvme *n = s->sq->w->nvme;
    uint32_t cdw10 = le32_get(e->cdw10), nsid = le32_get(e->nsid);
    struct nvme_ns *ns;

    if (s->sq->qid) {
        if (e->opcode != NVME_READ || !nsid || nsid > n->info.nn)
            return 0;
        ns = atomic_load(&n->ns[nsid - 1]);
        return ns ? ((uint64_t)(le32_get(e->cdw12) & 0xffff) + 1) << ns->shift
                  : 0;
    }
    switch (e->opcode) {
    case NVME_ADMIN_IDENTIFY:
        return NVME_IDENTIFY_SIZE;
    case NVME_ADMIN_GET_LOG_PAGE:
        return st_min(((cdw10 >> 16) + UINT64_C(1)) * 4,
                      st_nvme_log_size((uint8_t)cdw10));
    case NVME_ADMIN_GET_FEATURES:
        return st_nvme_feature_data((uint8_t)cdw10, le32_get(e->cdw11));
    default:
        return 0;
    }
}

static void
spoil_data(struct nvme_slot *s, const struct nvme_fault *f)
{
    struct nvme_cmd *c = &s->cmd;
    uint64_t len = sends(s);

    if (!len || len > NVME_DATA_MAX || (c->status & 0x7ff) != NVME_OK ||
        st_nvme_data_get(&c->data, c->io->view, &c->sqe, len, true,
                         s->sq->qid && c->io->sgl) != NVME_OK)
        return;
    st_buf_write((struct st_buf){c->data.iov, 0}, f->data,
                 st_min(len, f->data_len));
    st_nvme_data_put(&c->data, c->io->view);
}

static void
spoil_completion(struct nvme_slot *s, const struct nvme_fault *f,
                 const struct nvme_fault_event *e)
{
    struct nvme_cq *cq = s->sq->cq;

    if (f->what & NVME_FAULT_STATUS) {
        s->cmd.status = f->status;
        blame(s, e);
    }
    if (f->what & NVME_FAULT_CQE) {
        memcpy(s->cqe_value, f->value, sizeof(s->cqe_value));
        memcpy(s->cqe_mask, f->mask, sizeof(s->cqe_mask));
        s->cqe_fault = true;
    }
    s->phase_fault = f->what & NVME_FAULT_PHASE;
    if (f->what & NVME_FAULT_DATA)
        spoil_data(s, f);
    if (f->what & NVME_FAULT_DUPLICATE && st_nvme_cq_room(cq, 1)) {
        s->copies++;
        cq->owed++;
    }
    if (f->what & NVME_FAULT_NO_INTERRUPT)
        s->announce = false;
    if (f->what & NVME_FAULT_INTERRUPT && cq->ien)
        st_pci_raise(&cq->w->nvme->pci, cq->vector);
}

bool
st_nvme_fault_cqe(struct nvme_slot *s)
{
    struct nvme_sq *sq = s->sq;
    struct nvme_faults *faults = atomic_load(&sq->w->nvme->faults);
    struct nvme_fault_event e;
    struct nvme_fault f;

    s->executed = true;
    if (!faults)
        return true;
    describe(&e, s, true);
    if (!st_nvme_faults_hit(faults, &e, &f))
        return true;
    whole(sq->w, f.what);
    spoil_completion(s, &f, &e);
    if (f.what & NVME_FAULT_STALL)
        stall(sq, f.ns);
    if (f.what & NVME_FAULT_DROP) {
        st_nvme_slot_drop(s);
    } else if (f.what & NVME_FAULT_STUCK) {
        st_nvme_hold(s);
    } else if (f.what & (NVME_FAULT_DELAY | NVME_FAULT_STALL)) {
        hold_for(s, f.ns);
    } else if (f.what & NVME_FAULT_REORDER && !sq->reordered) {
        st_nvme_hold(s);
        sq->reordered = s;
    } else {
        return true;
    }
    return false;
}

/* ---- Rules come and go ---- */

static void
retired_free(struct st_deferred *d)
{
    struct retired *r = (struct retired *)d;

    st_nvme_faults_free(r->faults);
    free(r);
}

/* Those who are gone come back. With the lock. */
static void
come_back(struct st_nvme *n)
{
    if (!atomic_load(&n->gone))
        return;
    st_nvme_power_on(n);
    atomic_store(&n->gone, false);
    st_nvme_step(n);
}

int
st_nvme_set_faults(struct st_nvme *n, const char *text, struct st_err *err)
{
    struct retired *r = calloc(1, sizeof(*r));
    struct nvme_fault_ids ids = {-1, -1, -1};
    struct nvme_faults *f = NULL;
    uint32_t *changed = calloc(NVME_NN_MAX, sizeof(*changed));
    unsigned nchanged = 0;
    int rc = r && changed ? st_nvme_faults_parse(text, &f, err)
                          : st_err_set(err, ENOMEM, "no memory for rules");

    if (rc < 0) {
        free(r);
        free(changed);
        return rc;
    }
    if (f) {
        st_nvme_faults_ids(f, &ids);
        nchanged = st_nvme_faults_changed(f, changed, NVME_NN_MAX);
    }
    /* Register handlers, on threads that st_defer does not wait for, read rules
     * with the lock; they hold it for no time. */
    pthread_mutex_lock(&n->pci.lock);
    r->faults = atomic_exchange(&n->faults, f);
    st_nvme_set_cap(n, ids.mqes < 0 ? n->info.mqes : (unsigned)ids.mqes);
    come_back(n);
    pthread_mutex_unlock(&n->pci.lock);
    st_pci_set_id(&n->pci,
                  (uint16_t)(ids.vendor < 0 ? NVME_VENDOR : ids.vendor),
                  (uint16_t)(ids.device < 0 ? NVME_DEVICE : ids.device));
    for (unsigned i = 0; i < nchanged; i++)
        if (changed[i] && changed[i] <= n->info.nn)
            st_nvme_ns_changed(n, changed[i]);
    free(changed);
    st_defer(n->home, &r->defer, retired_free);
    return 0;
}

static void
release(struct nvme_sq *sq)
{
    struct st_list all;

    /* One that goes on may be held again. */
    st_list_init(&all);
    st_list_splice(&all, &sq->held);
    while (!st_list_empty(&all)) {
        struct nvme_slot *s =
            st_container(st_list_first(&all), struct nvme_slot, link);

        if (s->timer.slot) {
            st_list_remove(&s->link);
            st_list_append(&sq->held, &s->link);
        } else {
            go_on(s);
        }
    }
}

void
st_nvme_worker_release(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_worker, release);

    atomic_store(&w->releasing, false);
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link) release(sq);
}

void
st_nvme_release_faults(struct st_nvme *n)
{
    pthread_mutex_lock(&n->pci.lock);
    come_back(n);
    pthread_mutex_unlock(&n->pci.lock);
    for (unsigned i = 0; i < n->nworkers; i++) {
        struct nvme_worker *w = &n->worker[i];

        if (atomic_load(&w->used) && !atomic_exchange(&w->releasing, true))
            st_post(w->io.loop, &w->release);
    }
    atomic_store(&n->enable_released, true);
    st_nvme_step(n);
}
