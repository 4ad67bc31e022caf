/* SPDX-License-Identifier: MIT
 *
 * A controller is saved; the blob is save.c's, and restore.c makes one what a
 * blob says.
 *
 *   home -> admin loop: paused, no worker fetches any more
 *           workers: each answers when nothing is under way, and interrupts
 *                    that were held are out
 *           admin loop: all have, and the state machine rests: values are
 *                    taken, the pause is over
 *
 * What waits for the guest is not under way: requests for events, and the first
 * of a fused pair without its second. They are saved.
 *
 * A host that saves a whole machine holds the controller: the pause goes on
 * until the host ends it, so that memory and disks stay as they were saved.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "range.h"
#include "save.h"

#define LOOK_NS NVME_US(100)

/* For a call C; NULL: no memory, and that is said. Any loop. */
struct nvme_freeze *
st_nvme_freeze_new(struct st_nvme *n, struct st_nvme_call *c)
{
    struct nvme_freeze *f =
        calloc(1, sizeof(*f) + n->nworkers * sizeof(f->worker[0]));

    if (f && !(f->s = calloc(1, sizeof(*f->s)))) {
        free(f);
        f = NULL;
    }
    if (f) {
        f->n = n;
        f->call = c;
        for (unsigned i = 0; i < n->nworkers; i++)
            f->worker[i].w = &n->worker[i];
    }
    return f;
}

void
st_nvme_freeze_free(struct nvme_freeze *f)
{
    for (unsigned i = 0; i < NVME_SAVED_QUEUES; i++) {
        st_nvme_cq_free(f->cq[i]);
        st_nvme_sq_free(f->sq[i]);
    }
    free(f->s);
    free(f);
}

/* Home: the call is over. */
static void
end_run(struct st_task *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, task);
    struct st_nvme_call *c = f->call;
    int rc = f->rc;

    st_nvme_freeze_free(f);
    st_nvme_call_end(c, rc);
}

/* The admin loop: workers go on, unless somebody holds them. */
static void
go_on(struct st_nvme *n)
{
    if (n->freeze || atomic_load(&n->held))
        return;
    atomic_store(&n->paused, false);
    for (unsigned i = 0; i < n->nworkers; i++)
        if (atomic_load(&n->worker[i].used))
            st_nvme_kick(&n->worker[i]);
}

void
st_nvme_thaw_run(struct st_task *t)
{
    go_on(st_container(t, struct st_nvme, thaw));
}

/* The admin loop: everything goes on, and the call ends with RC. */
void
st_nvme_thaw(struct nvme_freeze *f, int rc)
{
    struct st_nvme *n = f->n;

    f->rc = rc;
    n->freeze = NULL;
    if (f->hold && rc == 0)
        atomic_store(&n->held, true);
    go_on(n);
    f->task.run = end_run;
    st_post(n->home, &f->task);
}

/* To the admin loop, where RUN goes on. */
void
st_nvme_freeze_post(struct nvme_freeze *f, void (*run)(struct st_task *t))
{
    f->task.run = run;
    st_post(f->n->admin->io.loop, &f->task);
}

void
st_nvme_freeze_again(struct nvme_freeze *f, void (*fire)(struct st_timer *t))
{
    struct st_loop *l = f->n->admin->io.loop;

    f->timer.fire = fire;
    st_timer_set(l, &f->timer, l->now + LOOK_NS);
}

/* ---- Pause ---- */

/* Does a command of W touch a disk, or the guest's memory? Where the controller
 * has failed nothing is posted, and only the former can end. */
static bool
is_busy(const struct nvme_worker *w)
{
    const struct st_nvme *n = w->nvme;
    bool halted = st_nvme_halted(n);

    if (!st_list_empty(&w->leaving))
        return true;
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link)
    {
        unsigned waits = sq->first ? 1 : 0;

        if (w == n->admin && !sq->qid)
            waits += n->naers;
        if (!halted && sq->in_flight > waits)
            return true;
        for (unsigned i = 0; halted && i < sq->nslots; i++)
            if (sq->slot[i].state != NVME_SLOT_FREE && sq->slot[i].in_io)
                return true;
    }
    return false;
}

static void
pause_look(struct st_timer *t)
{
    struct nvme_freeze_worker *fw =
        st_container(t, struct nvme_freeze_worker, timer);
    struct nvme_worker *w = fw->w;
    struct st_loop *l = w->io.loop;

    if (is_busy(w) && l->now < w->nvme->freeze->deadline) {
        t->fire = pause_look;
        st_timer_set(l, t, l->now + LOOK_NS);
        return;
    }
    st_nvme_raise_all(w);
    st_nvme_answer(w, NVME_ROUND_FREEZE);
}

static void
pause_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_msg, task)->w;

    pause_look(&w->nvme->freeze->worker[w->index].timer);
}

/* ---- What is taken ---- */

static void
take_registers(struct st_nvme *n, struct nvme_saved *s)
{
    s->state = (uint8_t)(enum nvme_state)atomic_load(&n->state);
    s->cc = n->reg.cc;
    s->csts = atomic_load(&n->csts);
    s->aqa = n->reg.aqa;
    s->asq = n->reg.asq;
    s->acq = n->reg.acq;
    s->intms = atomic_load(&n->intms);
}

static void
take_identity(struct st_nvme *n, struct nvme_saved *s)
{
    memcpy(s->subsystem, n->subsystem.b, sizeof(s->subsystem));
    s->cntlid = n->info.cntlid;
    memcpy(s->serial, n->info.serial, sizeof(s->serial));
    memcpy(s->model, n->info.model, sizeof(s->model));
    s->queues = n->info.queues;
    s->entries = n->info.mqes + 1;
    s->vectors = n->info.vectors;
    s->nn = n->info.nn;
    s->intx = n->intx;
    s->mapped = n->mapped;
}

static void
take_pci(struct st_nvme *n, struct nvme_saved *s)
{
    for (unsigned i = 0; i < sizeof(s->config); i += 4) {
        le32 v = le32_of(st_pci_config_read(&n->pci, i, 4));

        memcpy(s->config + i, &v, sizeof(v));
    }
    for (unsigned v = 0; v < n->info.vectors; v++)
        st_pci_vector_get(&n->pci, v, &s->vector[v]);
}

static void
take_logs(struct st_nvme *n, struct nvme_saved *s)
{
    struct nvme_logs *l = &s->logs;
    unsigned i = 0;

    st_nvme_errors_take(n);
    *l = n->logs;
    l->read_blocks = l->written_blocks = 0;
    l->reads = l->writes = l->media_errors = 0;
    for (unsigned k = 0; k < n->nworkers; k++) {
        const struct nvme_io *io = &n->worker[k].io;

        l->read_blocks += st_counter_get(&io->read_blocks);
        l->written_blocks += st_counter_get(&io->written_blocks);
        l->reads += st_counter_get(&io->reads);
        l->writes += st_counter_get(&io->writes);
        l->media_errors += st_counter_get(&io->media_errors);
    }
    s->on_ns = n->admin->io.loop->now - n->made_at;
    memcpy(s->event, n->event, sizeof(s->event));
    for (unsigned k = 0; k < NVME_NN_MAX / 64; k++) {
        uint64_t more = atomic_load(&n->changing[k]);

        l->changed[k] |= more;
        s->event[NVME_EVENT_NOTICE].pending |= more != 0;
    }
    st_list_for(slot, tmp, &n->aers, struct nvme_slot, link) s->aer[i++] =
        le16_get(slot->cmd.sqe.cid);
    s->naers = i;
}

static void
take_cq(const struct nvme_cq *q, struct nvme_saved_cq *s)
{
    *s = (struct nvme_saved_cq){
        .qid = q->qid,
        .vector = q->vector,
        .ien = q->ien,
        .phase = q->phase,
        .base = q->base,
        .size = q->size,
        .head = q->head,
        .tail = q->tail,
        .seen = q->seen,
        .doorbell = atomic_load(&q->w->nvme->db[2u * q->qid + 1]),
    };
}

static void
take_sq(const struct nvme_sq *q, struct nvme_saved_sq *s)
{
    *s = (struct nvme_saved_sq){
        .qid = q->qid,
        .cqid = q->cq->qid,
        .base = q->base,
        .size = q->size,
        .head = q->head,
        .tail = q->tail,
        .seen = q->seen,
        .doorbell = atomic_load(&q->w->nvme->db[2u * q->qid]),
        .ndoomed = (uint8_t)q->ndoomed,
        .has_first = q->first,
    };
    for (unsigned i = 0; i < q->ndoomed; i++)
        s->doomed[i] = q->doomed[i];
    if (q->first)
        s->first = q->first->cmd.sqe;
}

/* Workers have answered: their queues are ours to read. */
static void
take_queues(struct st_nvme *n, struct nvme_saved *s)
{
    s->shadow = atomic_load(&n->shadow);
    s->shadow_page = s->shadow ? atomic_load(&n->shadow_page) : 0;
    s->event_page = s->shadow ? atomic_load(&n->event_page) : 0;
    for (unsigned qid = 0; qid <= n->info.queues; qid++) {
        const struct nvme_pair *p = &n->pair[qid];
        struct nvme_cq *cq =
            p->cq ? st_nvme_find_cq(p->w, (uint16_t)qid) : NULL;
        struct nvme_sq *sq =
            p->sq ? st_nvme_find_sq(qid ? p->sq_w : p->w, (uint16_t)qid) : NULL;

        if (cq)
            take_cq(cq, &s->cq[s->ncq++]);
        if (sq)
            take_sq(sq, &s->sq[s->nsq++]);
    }
}

static void
take_namespaces(struct st_nvme *n, struct nvme_saved *s)
{
    struct nvme_ns_table t;

    st_nvme_ns_table(n, &t);
    for (uint32_t i = 0; i < t.nn; i++) {
        const struct nvme_ns *ns = t.ns[i];
        struct nvme_saved_ns *to = &s->ns[s->nns];

        if (!ns)
            continue;
        s->nns++;
        to->nsid = ns->nsid;
        to->shift = (uint8_t)ns->shift;
        to->read_only = ns->read_only;
        to->size = st_disk_size(ns->disk);
        memcpy(to->uuid, ns->uuid, sizeof(to->uuid));
        memcpy(to->nguid, ns->nguid, sizeof(to->nguid));
    }
}

void
st_nvme_take(struct st_nvme *n, struct nvme_saved *s)
{
    s->state = NVME_DISABLED;
    s->cc = s->csts = s->ncq = s->nsq = s->nns = 0;
    s->shadow = false;
    take_identity(n, s);
    take_pci(n, s);
    s->features = n->features;
    memcpy(s->coalesce_off, n->features.coalesce_off, n->info.vectors);
    take_logs(n, s);
    s->naers = 0;
    take_namespaces(n, s);
}

/* ---- Save ---- */

/* With the lock: does the state machine rest? */
static bool
is_settled(const struct st_nvme *n)
{
    bool en = n->reg.cc & NVME_CC_EN;

    if (n->reg.resets != n->resets || atomic_load(&n->stepping) || n->shutdown)
        return false;
    switch ((enum nvme_state)atomic_load(&n->state)) {
    case NVME_DISABLED:
        return !en;
    case NVME_READY:
        return en && !atomic_load(&n->failed);
    case NVME_FAILED:
        return en;
    case NVME_ENABLING:
    case NVME_RESETTING:
    case NVME_STOPPED:
        break;
    }
    return false;
}

static void
save_end(struct nvme_freeze *f)
{
    struct st_nvme *n = f->n;
    struct nvme_saved *s = f->s;

    take_identity(n, s);
    take_pci(n, s);
    s->features = n->features;
    memcpy(s->coalesce_off, n->features.coalesce_off, n->info.vectors);
    take_logs(n, s);
    if (s->state == NVME_READY)
        take_queues(n, s);
    else
        s->naers = 0;
    take_namespaces(n, s);
    *f->out = st_nvme_saved_write(s, f->len);
    if (*f->out)
        st_nvme_thaw(f, 0);
    else
        st_nvme_thaw(f, st_err_set(&f->call->err, ENOMEM,
                                   "no memory to save the controller"));
}

static void save_again(struct st_timer *t);

/* The admin loop: all workers have answered. */
static void
save_paused(struct st_nvme *n)
{
    struct nvme_freeze *f = n->freeze;
    bool settled = false;

    if (n->admin->io.loop->now >= f->deadline) {
        st_nvme_thaw(
            f, st_err_set(&f->call->err, ETIMEDOUT,
                          "commands have not ended: the controller cannot be "
                          "saved now"));
        return;
    }
    if (atomic_load(&n->stopping) || atomic_load(&n->gone)) {
        st_nvme_thaw(f,
                     st_err_set(&f->call->err, EIO,
                                "the controller has gone: there is nothing to "
                                "save"));
        return;
    }
    if (st_pci_trylock(&n->pci)) {
        settled = is_settled(n);
        if (settled)
            take_registers(n, f->s);
        st_pci_unlock(&n->pci);
    }
    if (settled)
        save_end(f);
    else
        st_nvme_freeze_again(f, save_again);
}

static void
save_round(struct nvme_freeze *f)
{
    st_nvme_broadcast(f->n, NVME_ROUND_FREEZE, pause_run, save_paused);
}

static void
save_again(struct st_timer *t)
{
    save_round(st_container(t, struct nvme_freeze, timer));
}

static void
save_begin(struct st_task *t)
{
    struct nvme_freeze *f = st_container(t, struct nvme_freeze, task);
    struct st_nvme *n = f->n;
    uint64_t now = n->admin->io.loop->now;

    f->deadline = now + st_min(f->call->timeout_ns, UINT64_MAX - now);
    n->freeze = f;
    atomic_store(&n->paused, true);
    save_round(f);
}

static void
save_start(struct st_nvme_call *c)
{
    struct nvme_freeze *f = c->work;

    if (!f)
        st_nvme_call_end(
            c, st_err_set(&c->err, ENOMEM, "no memory to save the controller"));
    else if (c->nvme->closed)
        st_nvme_call_end(
            c, (st_nvme_freeze_free(f),
                st_err_set(&c->err, EIO, "the controller has been stopped")));
    else
        st_nvme_freeze_post(f, save_begin);
}

/* HOLD: it does not go on afterwards. */
static void
save(struct st_nvme *n, uint64_t timeout_ns, bool hold, void **out, size_t *len,
     struct st_nvme_call *c)
{
    struct nvme_freeze *f = st_nvme_freeze_new(n, c);

    if (f) {
        f->hold = hold;
        f->out = out;
        f->len = len;
    }
    c->work = f;
    c->timeout_ns = timeout_ns;
    st_nvme_call(n, c, save_start);
}

void
st_nvme_save(struct st_nvme *n, uint64_t timeout_ns, void **out, size_t *len,
             struct st_nvme_call *c)
{
    save(n, timeout_ns, false, out, len, c);
}

/* ---- As the bus has it ---- */

static struct st_nvme *
of_pci(struct st_pci *p)
{
    return st_container(p, struct st_nvme, pci);
}

static void
host_called(struct st_nvme_call *c, int rc)
{
    struct st_pci_saving *s = c->nvme->saving;

    c->nvme->saving = NULL;
    s->err = c->err;
    s->done(s, rc);
}

void
st_nvme_host_save(struct st_pci *p, struct st_pci_saving *s)
{
    struct st_nvme *n = of_pci(p);

    n->saving = s;
    n->host_call.done = host_called;
    save(n, s->timeout_ns, true, &s->blob, &s->len, &n->host_call);
}

void
st_nvme_host_restore(struct st_pci *p, struct st_pci_saving *s)
{
    struct st_nvme *n = of_pci(p);

    n->saving = s;
    n->host_call.done = host_called;
    st_nvme_restore(n, s->blob, s->len, &n->host_call);
}

void
st_nvme_host_thaw(struct st_pci *p)
{
    struct st_nvme *n = of_pci(p);

    if (atomic_exchange(&n->held, false))
        st_post(n->admin->io.loop, &n->thaw);
}
