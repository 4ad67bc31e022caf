/* SPDX-License-Identifier: MIT
 *
 * A controller becomes what a blob says (save.c).
 *
 *   home        the blob is read, identity and namespaces are compared
 *   admin loop  paused, queues are made
 *   workers     queues are attached
 *   home        MSI-X, configuration space
 *   admin loop  registers and state, all at once under the lock; the pause is
 *               over
 *
 * Meanwhile the state machine does not run: a guest that writes registers too
 * early makes the restore fail, and gets the reset of a host. What is not yet
 * in the guest's memory is reached when workers first look at it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "journal.h"
#include "range.h"

/* ---- Is the blob for this controller? ---- */

static int
check_identity(const struct st_nvme *n, const struct nvme_saved *s,
               struct st_err *err)
{
    if (memcmp(s->subsystem, n->subsystem.b, sizeof(s->subsystem)) != 0 ||
        s->cntlid != n->info.cntlid ||
        memcmp(s->serial, n->info.serial, sizeof(s->serial)) != 0 ||
        memcmp(s->model, n->info.model, sizeof(s->model)) != 0)
        return st_err_set(err, EINVAL,
                          "another controller was saved: subsystem, "
                          "identifier, serial or model differ");
    if (s->queues != n->info.queues || s->entries != n->info.mqes + 1 ||
        s->vectors != n->info.vectors || s->nn != n->info.nn)
        return st_err_set(err, EINVAL,
                          "the saved controller has %u queues of %u entries, "
                          "%u vectors, %u namespaces; this one %u of %u, %u, "
                          "%u",
                          s->queues, s->entries, s->vectors, s->nn,
                          n->info.queues, n->info.mqes + 1, n->info.vectors,
                          n->info.nn);
    if (s->intx != n->intx || s->mapped != n->mapped)
        return st_err_set(err, EINVAL,
                          "the saved controller differs in its interrupt pin "
                          "or its doorbells");
    return 0;
}

static const struct nvme_saved_ns *
saved_ns(const struct nvme_saved *s, uint32_t nsid)
{
    for (uint32_t i = 0; i < s->nns; i++)
        if (s->ns[i].nsid == nsid)
            return &s->ns[i];
    return NULL;
}

static int
check_namespaces(struct st_nvme *n, const struct nvme_saved *s,
                 struct st_err *err)
{
    for (uint32_t nsid = 1; nsid <= n->info.nn; nsid++) {
        const struct nvme_saved_ns *was = saved_ns(s, nsid);
        const struct nvme_ns *is = atomic_load(&n->ns[nsid - 1]);

        if (is && atomic_load(&is->gone))
            is = NULL;
        if (!was != !is)
            return st_err_set(err, EINVAL, "namespace %u is %s", nsid,
                              is ? "new: the saved controller has none"
                                 : "missing");
        if (was && (memcmp(was->uuid, is->uuid, sizeof(was->uuid)) != 0 ||
                    memcmp(was->nguid, is->nguid, sizeof(was->nguid)) != 0))
            return st_err_set(err, EINVAL, "namespace %u is another disk",
                              nsid);
        if (was && (was->shift != is->shift || was->read_only != is->read_only))
            return st_err_set(err, EINVAL,
                              "namespace %u has other sectors, or is "
                              "read-only in one",
                              nsid);
    }
    return 0;
}

/* ---- Restore: the last, or back ---- */

/* The reset after a restore that failed is over: F->rc is why. */
static void
undone_run(struct st_task *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, task);

    st_nvme_thaw(f, f->rc);
}

static void
undone(struct st_access *a)
{
    st_nvme_freeze_post(st_container(a, struct nvme_freeze, reset), undone_run);
}

/* Home: as after power-on. */
static void
undo_run(struct st_task *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, task);

    f->reset = (struct st_access){.done = undone};
    if (st_pci_reset(&f->n->pci, &f->reset))
        undone(&f->reset);
}

/* The admin loop: it has failed, and RC is why. */
static void
undo(struct nvme_freeze *f, int rc)
{
    f->rc = rc;
    f->n->restoring = false;
    st_nvme_step(f->n);
    f->task.run = undo_run;
    st_post(f->n->home, &f->task);
}

/* Make the registers and the state what was saved, at once. */
static void
put_registers(struct st_nvme *n, const struct nvme_saved *s)
{
    n->reg.cc = s->cc;
    atomic_store(&n->cc, s->cc);
    n->reg.aqa = s->aqa;
    n->reg.asq = s->asq;
    n->reg.acq = s->acq;
    atomic_store(&n->intms, s->intms);
    atomic_store(&n->csts, s->csts);
    atomic_store(&n->failed, s->state == NVME_FAILED);
    atomic_store(&n->state, s->state);
}

static void
put_rest(struct st_nvme *n, const struct nvme_saved *s)
{
    struct nvme_features *f = &n->features;
    struct nvme_io *io = &n->admin->io;
    uint8_t *coalesce_off = f->coalesce_off;
    unsigned vectors = f->vectors;

    *f = s->features;
    f->coalesce_off = coalesce_off;
    f->vectors = vectors;
    memcpy(coalesce_off, s->coalesce_off, vectors);
    st_nvme_features_apply(n);
    n->logs = s->logs;
    st_count(&io->read_blocks, s->logs.read_blocks);
    st_count(&io->written_blocks, s->logs.written_blocks);
    st_count(&io->reads, s->logs.reads);
    st_count(&io->writes, s->logs.writes);
    st_count(&io->media_errors, s->logs.media_errors);
    n->made_at = n->admin->io.loop->now - s->on_ns;
    memcpy(n->event, s->event, sizeof(n->event));
    atomic_store(&n->shadow_page, s->shadow_page);
    atomic_store(&n->event_page, s->event_page);
    atomic_store(&n->shadow, s->shadow);
    /* Namespaces that came before are no news. */
    for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
        atomic_store(&n->changing[i], 0);
    for (uint32_t nsid = 1; nsid <= n->info.nn; nsid++)
        if (!saved_ns(s, nsid) != !atomic_load(&n->ns[nsid - 1]))
            st_nvme_ns_changed(n, nsid); /* after a kill; else they agree */
    for (uint32_t i = 0; i < s->nns; i++) {
        const struct nvme_ns *ns = atomic_load(&n->ns[s->ns[i].nsid - 1]);

        if (ns && st_disk_size(ns->disk) != s->ns[i].size)
            st_nvme_ns_changed(n, ns->nsid);
    }
}

/* The predecessor is no more: all that it had is here. */
static void
forget(struct st_nvme *n)
{
    munmap(n->journal_old, n->journal->len);
    n->journal_old = NULL;
    st_nvme_journal_keep(n);
}

/* The admin loop: what was under way goes on. */
static void
resumed(struct nvme_freeze *f)
{
    struct st_nvme *n = f->n;

    st_nvme_journal_regs(n);
    st_nvme_journal_blob(n, NULL);
    forget(n);
    for (uint32_t i = 0; i < f->s->ncq; i++)
        if (f->s->cq[i].ien)
            st_pci_raise(&n->pci, f->s->cq[i].vector);
    for (unsigned i = 0; i < n->nworkers; i++)
        if (atomic_load(&n->worker[i].used) &&
            !atomic_exchange(&n->worker[i].releasing, true))
            st_post(n->worker[i].io.loop, &n->worker[i].release);
}

/* The admin loop: everything else is in its place. */
static void
restore_end(struct st_timer *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, timer);
    struct st_nvme *n = f->n;

    if (!st_pci_trylock(&n->pci)) {
        st_nvme_freeze_again(f, restore_end);
        return;
    }
    if (n->reg.cc || n->reg.resets != n->resets || atomic_load(&n->stopping)) {
        st_pci_unlock(&n->pci);
        undo(f, st_err_set(&f->call->err, EINVAL,
                           "the guest has used the controller before it was "
                           "restored"));
        return;
    }
    put_registers(n, f->s);
    st_pci_unlock(&n->pci);
    put_rest(n, f->s);
    n->restoring = false;
    st_nvme_line(n);
    if (f->old)
        resumed(f);
    st_nvme_step(n);
    st_nvme_thaw(f, 0);
}

static void
restore_end_run(struct st_task *t)
{
    restore_end(&st_container(t, struct nvme_freeze, task)->timer);
}

/* Home: what the host keeps. */
static void
restore_pci(struct st_task *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, task);
    struct nvme_saved *s = f->s;

    if (f->old) { /* the host has them */
        st_nvme_freeze_post(f, restore_end_run);
        return;
    }
    for (unsigned v = 0; v < s->vectors; v++)
        st_pci_vector_set(&f->n->pci, v, &s->vector[v]);
    for (unsigned i = 0; i < sizeof(s->config); i += 4) {
        le32 v;

        memcpy(&v, s->config + i, sizeof(v));
        st_pci_config_write(&f->n->pci, i, 4, le32_get(v));
    }
    st_nvme_freeze_post(f, restore_end_run);
}

/* ---- Restore: queues ---- */

static void
put_cq(struct nvme_worker *w, struct nvme_cq *cq, const struct nvme_saved_cq *s)
{
    struct nvme_shown *shown = &w->nvme->shown[cq->qid];

    st_nvme_attach_cq(w, cq);
    cq->head = s->head;
    cq->tail = s->tail;
    cq->seen = s->seen;
    cq->phase = s->phase;
    atomic_store(&shown->cq_head, cq->head);
    atomic_store(&shown->cq_tail, cq->tail);
    atomic_store(&w->nvme->db[2u * cq->qid + 1], s->doorbell);
    st_nvme_journal_cq(cq);
    if (w->nvme->intx && cq->ien && cq->head != cq->tail)
        st_nvme_pin_hold(cq);
}

static void
put_sq(struct nvme_worker *w, struct nvme_sq *sq, const struct nvme_saved_sq *s)
{
    struct nvme_shown *shown = &w->nvme->shown[sq->qid];

    st_nvme_attach_sq(w, sq, st_nvme_find_cq(w, s->cqid));
    sq->head = s->head;
    sq->tail = s->tail;
    sq->seen = s->seen;
    sq->ndoomed = s->ndoomed;
    memcpy(sq->doomed, s->doomed, sizeof(sq->doomed));
    atomic_store(&shown->sq_head, sq->head);
    atomic_store(&shown->sq_tail, sq->tail);
    atomic_store(&w->nvme->db[2u * sq->qid], s->doorbell);
    st_nvme_journal_sq(sq);
    if (s->has_first) {
        sq->first = st_nvme_slot_take(sq, &s->first);
        sq->cq->owed += 2;
    }
}

/* Requests for events: they are owed nothing. */
static void
put_aers(struct st_nvme *n, struct nvme_sq *sq, const struct nvme_saved *s)
{
    for (uint32_t i = 0; i < s->naers; i++) {
        struct nvme_sqe e = {.opcode = NVME_ADMIN_ASYNC_EVENT,
                             .cid = le16_of(s->aer[i])};
        struct nvme_slot *slot = st_nvme_slot_take(sq, &e);

        slot->state = NVME_SLOT_EVENT;
        st_list_append(&n->aers, &slot->link);
        n->naers++;
    }
}

/* A worker attaches what is its. */
static void
attach_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_msg, task)->w;
    struct st_nvme *n = w->nvme;
    struct nvme_freeze *f = n->freeze;
    struct nvme_saved *s = f->s;

    if (st_nvme_worker_open(w) < 0) {
        atomic_store(&f->no_memory, true);
        st_nvme_answer(w, NVME_ROUND_FREEZE);
        return;
    }
    for (uint32_t i = 0; i < s->ncq; i++) {
        uint16_t qid = s->cq[i].qid;

        if (n->pair[qid].w != w)
            continue;
        put_cq(w, f->cq[qid], &s->cq[i]);
        f->cq[qid] = NULL;
    }
    for (uint32_t i = 0; i < s->nsq; i++) {
        uint16_t qid = s->sq[i].qid;
        struct nvme_sq *sq;

        if (n->pair[s->sq[i].cqid].w != w)
            continue;
        sq = f->sq[qid];
        f->sq[qid] = NULL;
        put_sq(w, sq, &s->sq[i]);
        if (!qid)
            put_aers(n, sq, s);
        if (f->old)
            st_nvme_replay(f->old, sq);
    }
    w->shadow = s->shadow;
    w->shadow_page = s->shadow_page;
    w->event_page = s->event_page;
    if (w->shadow)
        st_nvme_bells(w);
    st_nvme_answer(w, NVME_ROUND_FREEZE);
}

static void
attached(struct st_nvme *n)
{
    struct nvme_freeze *f = n->freeze;

    if (atomic_load(&f->no_memory)) {
        undo(f, st_err_set(&f->call->err, ENOMEM,
                           "no memory for the saved queues"));
        return;
    }
    f->task.run = restore_pci;
    st_post(n->home, &f->task);
}

/* Memory for all queues: false where there is none. */
static bool
make_queues(struct nvme_freeze *f)
{
    const struct nvme_saved *s = f->s;

    for (uint32_t i = 0; i < s->ncq; i++) {
        const struct nvme_saved_cq *q = &s->cq[i];
        struct nvme_cq *cq = st_nvme_cq_new(q->qid, q->base, q->size);

        if (!cq)
            return false;
        cq->ien = q->ien;
        cq->vector = q->vector;
        f->cq[q->qid] = cq;
    }
    for (uint32_t i = 0; i < s->nsq; i++) {
        const struct nvme_saved_sq *q = &s->sq[i];
        unsigned slots = (unsigned)st_min(q->size, NVME_SLOTS);

        f->sq[q->qid] =
            st_nvme_sq_new(q->qid, q->base, q->size,
                           q->qid ? slots : slots + NVME_AERL + NVME_ABORTS);
        if (!f->sq[q->qid])
            return false;
    }
    return true;
}

/* Who gets which queue. */
static void
place_queues(struct st_nvme *n, const struct nvme_saved *s)
{
    for (uint32_t i = 0; i < s->ncq; i++) {
        uint16_t qid = s->cq[i].qid;
        struct nvme_pair *p = &n->pair[qid];

        p->cq = true;
        p->cq_made = qid != 0;
        p->w = qid ? st_nvme_worker_of(n, qid) : n->admin;
        atomic_store(&p->w->used, true);
    }
    for (uint32_t i = 0; i < s->nsq; i++) {
        const struct nvme_saved_sq *q = &s->sq[i];
        struct nvme_pair *p = &n->pair[q->qid];

        p->sq = true;
        p->sq_made = q->qid != 0;
        p->cqid = q->cqid;
        p->sq_w = n->pair[q->cqid].w;
        n->pair[q->cqid].nsq++;
    }
}

/* The admin loop: the controller must be as after power-on. */
static void
restore_begin(struct st_timer *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, timer);
    struct st_nvme *n = f->n;
    const struct nvme_saved *s = f->s;
    bool fresh;

    if (!st_pci_trylock(&n->pci)) {
        st_nvme_freeze_again(f, restore_begin);
        return;
    }
    fresh = atomic_load(&n->state) == NVME_DISABLED && !n->reg.cc &&
            n->reg.resets == n->resets && !atomic_load(&n->stepping) &&
            !atomic_load(&n->stopping) && !atomic_load(&n->gone);
    n->restoring = fresh;
    st_pci_unlock(&n->pci);
    n->freeze = f;
    if (!fresh) {
        st_nvme_thaw(
            f, st_err_set(&f->call->err, EINVAL,
                          "the controller is in use: only one that was just "
                          "reset can be restored"));
        return;
    }
    if (!make_queues(f)) {
        n->restoring = false;
        st_nvme_step(n);
        st_nvme_thaw(f, st_err_set(&f->call->err, ENOMEM,
                                   "no memory for the saved queues"));
        return;
    }
    atomic_store(&n->paused, true);
    place_queues(n, s);
    st_nvme_broadcast(n, NVME_ROUND_FREEZE, attach_run, attached);
}

static void
restore_begin_run(struct st_task *t)
{
    restore_begin(&st_container(t, struct nvme_freeze, task)->timer);
}

static void
restore_start(struct st_nvme_call *c)
{
    struct st_nvme *n = c->nvme;
    struct nvme_freeze *f = st_nvme_freeze_new(n, c);
    int rc;

    if (!f) {
        st_nvme_call_end(c, st_err_set(&c->err, ENOMEM,
                                       "no memory to restore the controller"));
        return;
    }
    rc = n->closed
             ? st_err_set(&c->err, EINVAL, "the controller has been stopped")
             : st_nvme_saved_read(c->in, c->in_len, f->s, &c->err);
    if (!rc)
        rc = check_identity(n, f->s, &c->err);
    if (!rc)
        rc = check_namespaces(n, f->s, &c->err);
    if (rc) {
        st_nvme_freeze_free(f);
        st_nvme_call_end(c, rc);
        return;
    }
    st_nvme_freeze_post(f, restore_begin_run);
}

static void
resume_start(struct st_nvme_call *c)
{
    struct st_nvme *n = c->nvme;
    struct nvme_freeze *f = st_nvme_freeze_new(n, c);
    int rc;

    if (!f) {
        st_nvme_call_end(c, st_err_set(&c->err, ENOMEM,
                                       "no memory to restore the controller"));
        return;
    }
    f->old = n->journal_old;
    st_nvme_take(n, f->s);
    rc = f->old ? st_nvme_journal_read(f->old, f->s, &c->err)
                : st_err_set(&c->err, EINVAL, "there is no predecessor");
    if (!rc)
        rc = check_identity(n, f->s, &c->err);
    if (rc) {
        st_nvme_freeze_free(f);
        st_nvme_call_end(c, rc);
        return;
    }
    st_nvme_freeze_post(f, restore_begin_run);
}

bool
st_nvme_resumes(const struct st_nvme *n)
{
    return n->journal_old;
}

void
st_nvme_resume(struct st_nvme *n, struct st_nvme_call *c)
{
    st_nvme_call(n, c, resume_start);
}

void
st_nvme_forget(struct st_nvme *n)
{
    if (n->journal_old)
        forget(n);
}

void
st_nvme_restore(struct st_nvme *n, const void *blob, size_t len,
                struct st_nvme_call *c)
{
    c->in = blob;
    c->in_len = len;
    st_nvme_call(n, c, restore_start);
}
