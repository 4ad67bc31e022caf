/* SPDX-License-Identifier: MIT
 *
 * The controller's life, registers and state machine (Base 3.1.3, 3.5, 3.6).
 *
 *             EN=1              queues made
 *   DISABLED ------> ENABLING -------------> READY (RDY=1) --- SHN: flush,
 *      ^                | bad CC,              | a queue is      SHST 1, 2
 *      |                | no memory            | unusable
 *      |                v                      v
 *      |              FAILED (CFS=1) <---------'
 *      |
 *      '-- workers have stopped -- RESETTING <-- EN=0, FLR, host's reset, from
 *          (RDY=0)                               any state
 *
 * A register write changes the register and wakes the state machine, a task of
 * the admin loop; it never waits. The guest may write faster than the machine
 * runs: each EN 1 -> 0 is counted, so that none is missed and RDY cannot become
 * 1 for one that is over. RDY becomes 1 under the lock, where the count is
 * known to be right.
 *
 * Workers have NVME_RESET_NS to end what is under way; what is left then are
 * orphans. Nothing of them reaches the guest but data that disks are reading.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "range.h"

enum {
    CAP_TO = 0x28,        /* 20 s, in 500 ms */
    VS = 0x00020000,      /* 2.0 */
    CC_KNOWN = 0x01fffff1 /* bits that are stored */
};

#define CAP_CQR   (UINT64_C(1) << 16) /* queues are contiguous */
#define CAP_NVM   (UINT64_C(1) << 37)
#define CAP_CRWMS (UINT64_C(1) << 59) /* ready means namespaces, too */

#define RETRY_NS NVME_MS(1)

static uint32_t
cc_field(uint32_t cc, unsigned shift, unsigned bits)
{
    return cc >> shift & ((1u << bits) - 1);
}

static void
csts_set(struct st_nvme *n, uint32_t clear, uint32_t set)
{
    uint32_t old = atomic_load(&n->csts);

    while (!atomic_compare_exchange_weak(&n->csts, &old, (old & ~clear) | set))
        ;
}

static enum nvme_state
state_of(const struct st_nvme *n)
{
    return (enum nvme_state)atomic_load(&n->state);
}

void
st_nvme_step(struct st_nvme *n)
{
    if (!atomic_exchange(&n->stepping, true))
        st_post(n->admin->io.loop, &n->step);
}

/* ---- Messages ---- */

static void
round_less(struct st_nvme *n, enum nvme_round r)
{
    if (--n->round[r].left == 0)
        n->round[r].then(n);
}

static void
round_answered(struct st_task *t)
{
    struct nvme_msg *m = st_container(t, struct nvme_msg, task);

    round_less(m->w->nvme, m->round);
}

void
st_nvme_answer(struct nvme_worker *w, enum nvme_round r)
{
    w->msg[r].task.run = round_answered;
    st_post(w->nvme->admin->io.loop, &w->msg[r].task);
}

void
st_nvme_broadcast(struct st_nvme *n, enum nvme_round r,
                  void (*ask)(struct st_task *t),
                  void (*then)(struct st_nvme *n))
{
    n->round[r].then = then;
    n->round[r].left = 1;
    for (unsigned i = 0; i < n->nworkers; i++) {
        struct nvme_worker *w = &n->worker[i];

        if (!atomic_load(&w->used))
            continue;
        n->round[r].left++;
        w->msg[r] = (struct nvme_msg){{.run = ask}, w, r};
        st_post(w->io.loop, &w->msg[r].task);
    }
    round_less(n, r);
}

/* ---- Shutdown ---- */

static void
shutdown_free(struct nvme_shutdown *s)
{
    st_nvme_io_slot_free(&s->cmd);
    free(s);
}

static void
shutdown_done(struct nvme_cmd *c)
{
    struct nvme_shutdown *s = st_container(c, struct nvme_shutdown, cmd);
    struct st_nvme *n = s->nvme;

    if (c->status != NVME_OK)
        st_warn(n->log, "%s: shutdown: a flush failed, status %03x", n->name,
                c->status & 0x7ff);
    if (s->orphan) {
        shutdown_free(s);
        return;
    }
    shutdown_free(s);
    n->shutdown = NULL;
    if (state_of(n) == NVME_RESETTING) {
        round_less(n, NVME_ROUND_RESET);
        return;
    }
    csts_set(n, 3u << NVME_CSTS_SHST_SHIFT, 2u << NVME_CSTS_SHST_SHIFT);
    st_nvme_step(n);
}

/* CC.SHN asks for a shutdown (3.6.1): a normal one flushes. */
static void
shutdown_begin(struct st_nvme *n, unsigned shn)
{
    struct nvme_shutdown *s = NULL;

    if (shn == 1)
        s = calloc(1, sizeof(*s));
    if (!s) {
        csts_set(n, 3u << NVME_CSTS_SHST_SHIFT, 2u << NVME_CSTS_SHST_SHIFT);
        return;
    }
    csts_set(n, 3u << NVME_CSTS_SHST_SHIFT, 1u << NVME_CSTS_SHST_SHIFT);
    n->shutdown = s;
    s->nvme = n;
    s->cmd.io = &n->admin->io;
    s->cmd.done = shutdown_done;
    s->cmd.sqe.opcode = NVME_FLUSH;
    s->cmd.sqe.nsid = le32_of(UINT32_MAX);
    st_nvme_io_flush(&s->cmd);
}

/* ---- Reset ---- */

void
st_nvme_power_on(struct st_nvme *n)
{
    n->reg.cc = 0;
    atomic_store(&n->cc, 0);
    n->reg.aqa = 0;
    n->reg.asq = n->reg.acq = 0;
    n->reg.resets++;
    atomic_store(&n->intms, 0);
    st_nvme_line(n);
}

static void
reset_late(struct st_timer *t)
{
    struct st_nvme *n = st_container(t, struct st_nvme, timer);

    st_count(&n->resets_forced, 1);
    st_warn_limited(n->log, &n->limiter,
                    "%s: reset: commands have not ended, it goes on without",
                    n->name);
    for (unsigned i = 0; i < n->nworkers; i++)
        if (atomic_load(&n->worker[i].used))
            st_nvme_worker_abandon(&n->worker[i]);
    if (n->shutdown) {
        n->shutdown->orphan = true;
        n->shutdown = NULL;
        round_less(n, NVME_ROUND_RESET);
    }
}

static void
workers_stopped(struct st_nvme *n)
{
    st_timer_stop(n->admin->io.loop, &n->timer);
    memset(n->pair, 0, (n->info.queues + 1) * sizeof(*n->pair));
    st_nvme_features_reset(&n->features, &n->info);
    n->features.timestamp_set = -(int64_t)st_nvme_wall_ms();
    st_nvme_features_apply(n);
    st_nvme_journal_blob(n, NULL);
    n->reset_ends = true;
    st_nvme_step(n);
}

static void
reset_begin(struct st_nvme *n)
{
    atomic_store(&n->state, NVME_RESETTING);
    n->enabling_since = 0;
    n->enable_asked = false;
    n->timer.fire = reset_late;
    st_timer_set(n->admin->io.loop, &n->timer,
                 n->admin->io.loop->now + NVME_RESET_NS);
    st_nvme_broadcast(n, NVME_ROUND_RESET, st_nvme_worker_stop,
                      workers_stopped);
    if (n->shutdown) { /* the admin worker is used: that was not the end */
        n->round[NVME_ROUND_RESET].left++;
        st_nvme_io_abort(&n->shutdown->cmd);
    }
}

/* With the lock, which is released: the workers are quiet. */
static void
reset_end(struct st_nvme *n)
{
    struct st_access *access[NVME_RESETS];
    unsigned naccess = n->reg.naccess;

    memcpy(access, n->reg.access, sizeof(access));
    n->reg.naccess = 0;
    n->reset_ends = false;
    n->resets = n->reg.resets;
    atomic_store(&n->failed, false);
    atomic_store(&n->csts, 0);
    atomic_store(&n->intms, 0);
    if (n->mapped)
        for (unsigned i = 0; i < n->ndb; i++)
            atomic_store(&n->db[i], 0);
    atomic_store(&n->state, NVME_DISABLED);
    st_count(&n->resets_done, 1);
    st_pci_unlock(&n->pci);
    st_nvme_line(n);
    for (unsigned i = 0; i < naccess; i++)
        st_access_done(access[i]);
}

/* ---- Enable ---- */

static void
failed(struct st_nvme *n, const char *why)
{
    st_warn_limited(n->log, &n->limiter, "%s: enable: %s", n->name, why);
    csts_set(n, 0, NVME_CSTS_CFS);
    atomic_store(&n->state, NVME_FAILED);
}

/* What of CC the controller cannot do; NULL: all is well. */
static const char *
cc_check(uint32_t cc)
{
    uint32_t sqes = cc_field(cc, NVME_CC_IOSQES_SHIFT, 4);
    uint32_t cqes = cc_field(cc, NVME_CC_IOCQES_SHIFT, 4);

    if (cc_field(cc, NVME_CC_MPS_SHIFT, 4))
        return "the page size of CC.MPS is not 4 KiB";
    if (cc_field(cc, NVME_CC_CSS_SHIFT, 3))
        return "the command set of CC.CSS is not NVM";
    if (cc_field(cc, NVME_CC_AMS_SHIFT, 3))
        return "the arbitration of CC.AMS is not round robin";
    /* 0: is said before the first I/O queue is created. */
    if ((sqes && sqes != 6) || (cqes && cqes != 4))
        return "the entry sizes of CC are not 64 and 16 bytes";
    return NULL;
}

static void
look_again(struct st_timer *t)
{
    st_nvme_step(st_container(t, struct st_nvme, timer));
}

/* Can the admin queues be reached? Where the guest lets us do no DMA yet, that
 * is seen later. */
static bool
can_reach(struct nvme_worker *w, uint64_t asq, uint64_t acq)
{
    return !st_pci_bus_master(&w->nvme->pci) ||
           (st_gmem_peek(w->io.view, asq, sizeof(struct nvme_sqe), false) &&
            st_gmem_peek(w->io.view, acq, sizeof(struct nvme_cqe), true));
}

/* Make the admin queues. 0, -EAGAIN (cannot be reached now) or -ENOMEM. */
static int
admin_queues(struct st_nvme *n, uint32_t aqa, uint64_t asq, uint64_t acq)
{
    struct nvme_worker *w = n->admin;
    uint32_t nsq = (uint32_t)st_max(aqa & 0xfff, 1) + 1;
    uint32_t ncq = (uint32_t)st_max(aqa >> 16 & 0xfff, 1) + 1;
    struct nvme_sq *sq;
    struct nvme_cq *cq;

    if (!st_list_empty(&w->sqs))
        return 0; /* only RDY was missing */
    atomic_store(&w->used, true);
    if (st_nvme_worker_open(w) < 0)
        return -ENOMEM;
    if (!can_reach(w, asq, acq))
        return -EAGAIN;
    /* Requests for events occupy slots for long, and Aborts may. */
    sq = st_nvme_sq_new(0, asq, nsq,
                        (unsigned)st_min(nsq, NVME_SLOTS) + NVME_AERL +
                            NVME_ABORTS);
    cq = st_nvme_cq_new(0, acq, ncq);
    if (!sq || !cq) {
        st_nvme_sq_free(sq);
        st_nvme_cq_free(cq);
        return -ENOMEM;
    }
    cq->ien = true;
    n->pair[0] = (struct nvme_pair){.sq = true, .cq = true, .nsq = 1, .w = w};
    st_nvme_attach_cq(w, cq);
    st_nvme_attach_sq(w, sq, cq);
    return 0;
}

/* Does a rule of faults hold the enable back? */
static bool
held(struct st_nvme *n)
{
    struct st_loop *l = n->admin->io.loop;
    uint64_t ns;

    if (!n->enable_asked) {
        n->enable_asked = true;
        atomic_store(&n->enable_released, false);
        ns = st_nvme_fault_enable(n);
        n->enable_at = ns == UINT64_MAX ? ns : l->now + ns;
    }
    if (l->now >= n->enable_at || atomic_load(&n->enable_released))
        return false;
    if (n->enable_at != UINT64_MAX) {
        n->timer.fire = look_again;
        st_timer_set(l, &n->timer, n->enable_at);
    }
    return true;
}

/* One try to become ready. True: the state has changed. */
static bool
enable(struct st_nvme *n, uint32_t cc, uint32_t aqa, uint64_t asq, uint64_t acq)
{
    struct st_loop *l = n->admin->io.loop;
    const char *why = cc_check(cc);
    int rc;

    atomic_store(&n->state, NVME_ENABLING);
    if (why) {
        failed(n, why);
        return true;
    }
    if (held(n))
        return false;
    if (atomic_load(&n->failed)) {
        atomic_store(&n->state, NVME_FAILED);
        return true;
    }
    if (!n->enabling_since)
        n->enabling_since = l->now ? l->now : 1;
    rc = admin_queues(n, aqa, asq, acq);
    if (rc == -EAGAIN && l->now - n->enabling_since < NVME_UNMAPPED_NS) {
        n->timer.fire = look_again;
        st_timer_set(l, &n->timer, l->now + RETRY_NS);
        return false;
    }
    n->enabling_since = 0;
    if (rc < 0) {
        failed(n, rc == -EAGAIN
                      ? "the admin queues are not in the guest's memory"
                      : "no memory for the admin queues");
        return true;
    }
    return true;
}

/* ---- The state machine ---- */

static void
stopped(struct st_nvme *n)
{
    atomic_store(&n->stopped, true);
    st_post(n->home, &n->quiet);
}

/* With the lock, which is released. True: look again. */
static bool
step_locked(struct st_nvme *n)
{
    uint32_t cc = n->reg.cc, aqa = n->reg.aqa;
    uint64_t asq = n->reg.asq, acq = n->reg.acq;
    bool reset = n->reg.resets != n->resets;
    bool stop = atomic_load(&n->stopping);
    enum nvme_state state = state_of(n);
    unsigned shn = cc_field(cc, NVME_CC_SHN_SHIFT, 2);
    bool shut = atomic_load(&n->csts) & 3u << NVME_CSTS_SHST_SHIFT;

    if (state == NVME_RESETTING) {
        if (!n->reset_ends) {
            st_pci_unlock(&n->pci);
            return false;
        }
        reset_end(n);
        if (!atomic_load(&n->stopping))
            return true;
        atomic_store(&n->state, NVME_STOPPED);
        stopped(n);
        return false;
    }
    if (state == NVME_ENABLING && !reset && !stop &&
        !st_list_empty(&n->admin->sqs)) {
        csts_set(n, 3u << NVME_CSTS_SHST_SHIFT, NVME_CSTS_RDY);
        atomic_store(&n->state, NVME_READY);
        st_pci_unlock(&n->pci);
        return true;
    }
    st_pci_unlock(&n->pci);
    switch (state) {
    case NVME_STOPPED:
    case NVME_RESETTING:
        return false;
    case NVME_DISABLED:
    case NVME_ENABLING:
    case NVME_READY:
    case NVME_FAILED:
        break;
    }
    if (reset || stop) {
        st_timer_stop(n->admin->io.loop, &n->timer);
        reset_begin(n);
        return false;
    }
    if (state == NVME_READY && atomic_load(&n->failed)) {
        atomic_store(&n->state, NVME_FAILED);
        return true;
    }
    if (state == NVME_DISABLED || state == NVME_ENABLING) {
        if (cc & NVME_CC_EN)
            return enable(n, cc, aqa, asq, acq);
        csts_set(n, 3u << NVME_CSTS_SHST_SHIFT,
                 shn ? 2u << NVME_CSTS_SHST_SHIFT : 0);
        return false;
    }
    if (shn && !shut && !n->shutdown) {
        if (state == NVME_READY)
            shutdown_begin(n, shn);
        else
            csts_set(n, 0, 2u << NVME_CSTS_SHST_SHIFT);
    }
    return false;
}

void
st_nvme_step_run(struct st_task *t)
{
    struct st_nvme *n = st_container(t, struct st_nvme, step);

    atomic_store(&n->stepping, false);
    if (n->restoring)
        return; /* it steps when it is over */
    do {
        if (!st_pci_trylock(&n->pci)) {
            st_nvme_step(n); /* a register handler is in: later */
            return;
        }
    } while (step_locked(n));
    st_nvme_journal_regs(n);
}

void
st_nvme_step_failed(struct st_nvme *n)
{
    atomic_store(&n->failed, true);
    csts_set(n, 0, NVME_CSTS_CFS);
    st_nvme_step(n);
}

void
st_nvme_fail(struct nvme_worker *w, const char *why)
{
    struct st_nvme *n = w->nvme;

    if (atomic_exchange(&n->failed, true))
        return;
    csts_set(n, 0, NVME_CSTS_CFS);
    st_warn_limited(n->log, &n->limiter, "%s: failed: %s", n->name, why);
    st_nvme_step(n);
}

/* ---- Registers ---- */

void
st_nvme_set_cap(struct st_nvme *n, unsigned mqes)
{
    atomic_store(&n->cap, mqes | CAP_CQR | CAP_TO << 24 | CAP_NVM | CAP_CRWMS);
}

static uint32_t
register_read(const struct st_nvme *n, uint64_t at)
{
    uint64_t cap = atomic_load(&n->cap);

    switch (at) {
    case NVME_REG_CAP:
        return (uint32_t)cap;
    case NVME_REG_CAP + 4:
        return (uint32_t)(cap >> 32);
    case NVME_REG_VS:
        return VS;
    case NVME_REG_INTMS:
    case NVME_REG_INTMC:
        return atomic_load(&n->intms);
    case NVME_REG_CC:
        return n->reg.cc;
    case NVME_REG_CSTS:
        return atomic_load(&n->csts);
    case NVME_REG_AQA:
        return n->reg.aqa;
    case NVME_REG_ASQ:
        return (uint32_t)n->reg.asq;
    case NVME_REG_ASQ + 4:
        return (uint32_t)(n->reg.asq >> 32);
    case NVME_REG_ACQ:
        return (uint32_t)n->reg.acq;
    case NVME_REG_ACQ + 4:
        return (uint32_t)(n->reg.acq >> 32);
    case NVME_REG_CRTO:
        return CAP_TO; /* CRWMT, as CAP.TO */
    default:
        return 0;
    }
}

static void
cc_write(struct st_nvme *n, uint32_t cc)
{
    uint32_t old = n->reg.cc;

    n->reg.cc = cc & CC_KNOWN;
    atomic_store(&n->cc, n->reg.cc);
    if (old & ~n->reg.cc & NVME_CC_EN)
        n->reg.resets++;
    st_nvme_step(n);
}

/* Half of a register of 64 bits; the low 12 bits are 0. */
static void
base_write(uint64_t *base, bool high, uint32_t value)
{
    if (high)
        *base = (*base & UINT32_MAX) | (uint64_t)value << 32;
    else
        *base = (*base & ~(uint64_t)UINT32_MAX) | (value & ~UINT32_C(0xfff));
}

static void
register_write(struct st_nvme *n, uint64_t at, uint32_t value)
{
    bool enabled = n->reg.cc & NVME_CC_EN;

    switch (at) {
    case NVME_REG_INTMS:
        atomic_fetch_or(&n->intms, value);
        st_nvme_line(n);
        return;
    case NVME_REG_INTMC:
        atomic_fetch_and(&n->intms, ~value);
        st_nvme_line(n);
        return;
    case NVME_REG_CC:
        cc_write(n, value);
        return;
    case NVME_REG_AQA:
        if (!enabled)
            n->reg.aqa = value & 0x0fff0fff;
        return;
    case NVME_REG_ASQ:
    case NVME_REG_ASQ + 4:
        if (!enabled)
            base_write(&n->reg.asq, at & 4, value);
        return;
    case NVME_REG_ACQ:
    case NVME_REG_ACQ + 4:
        if (!enabled)
            base_write(&n->reg.acq, at & 4, value);
        return;
    default:
        if (at >= NVME_REG_DOORBELLS)
            st_nvme_ring(n, (unsigned)(at - NVME_REG_DOORBELLS) / 4, value);
        return;
    }
}

static uint64_t
ones(unsigned len)
{
    return len >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * len) - 1;
}

/* Narrow reads are served from the register's dword; narrow writes do nothing
 * (PCIe Transport 3.1.1: they are not supported). */
static bool
register_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    struct st_nvme *n = st_container(p, struct st_nvme, pci);
    bool off = bar != 0 || atomic_load(&n->stopped);

    if (atomic_load(&n->gone) ||
        (st_nvme_has_faults(n) && st_nvme_fault_register(n))) {
        a->value = ones(a->len);
    } else if (!a->write) {
        uint64_t value = off ? 0 : register_read(n, a->offset & ~3ull);

        if (a->len == 8 && !off)
            value |= (uint64_t)register_read(n, a->offset + 4) << 32;
        a->value = value >> 8 * (a->offset & 3) & ones(a->len);
    } else if (!off && a->len >= 4) {
        register_write(n, a->offset, (uint32_t)a->value);
        if (a->len == 8)
            register_write(n, a->offset + 4, (uint32_t)(a->value >> 32));
        st_nvme_journal_regs(n);
    }
    return true;
}

static void
bus_master(struct st_pci *p, bool on)
{
    struct st_nvme *n = st_container(p, struct st_nvme, pci);

    if (!on || atomic_load(&n->stopped))
        return;
    for (unsigned i = 0; i < n->nworkers; i++)
        if (atomic_load(&n->worker[i].used))
            st_nvme_kick(&n->worker[i]);
}

static bool
reset(struct st_pci *p, struct st_access *a)
{
    struct st_nvme *n = st_container(p, struct st_nvme, pci);

    st_nvme_power_on(n);
    st_nvme_journal_regs(n);
    /* Where more wait at a time than anybody sends, one does not. */
    if (atomic_load(&n->stopped) || n->reg.naccess == NVME_RESETS)
        return true;
    n->reg.access[n->reg.naccess++] = a;
    st_nvme_step(n);
    return false;
}

const struct st_pci_ops st_nvme_ops = {
    .name = "nvme",
    .access = register_access,
    .hot = st_nvme_hot,
    .enabled = bus_master,
    .reset = reset,
    .save = st_nvme_host_save,
    .restore = st_nvme_host_restore,
    .thaw = st_nvme_host_thaw,
};

struct st_pci *
st_nvme_pci(struct st_nvme *n)
{
    return &n->pci;
}
