/* SPDX-License-Identifier: MIT
 *
 * Asynchronous events and the error log (Base 5.2, 5.16.1.2).
 *
 *   something happens --> pending --> told: a request completes --> log page
 *                            ^                                      is read
 *                            '------ happened again meanwhile ------'
 *
 * One event of a type is told until the guest has read its log page. Requests
 * complete in the order in which they came. What the guest has masked stays
 * pending.
 */
#include <string.h>

#include "journal.h"

enum { /* Asynchronous Event Configuration (5.27.1.8) */
       EVENTS_NS_ATTRIBUTE = 1 << 8,
       EVENTS_TEMPERATURE = 1 << 1,
};

enum { PAGE_ERROR = 0x01, PAGE_SMART = 0x02, PAGE_CHANGED = 0x04 };

static bool
any_changed(const struct nvme_logs *l)
{
    for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
        if (l->changed[i])
            return true;
    return false;
}

static bool
may_tell(const struct st_nvme *n, unsigned type)
{
    const struct nvme_event *e = &n->event[type];

    if (!e->pending || e->told)
        return false;
    switch (type) {
    case NVME_EVENT_NOTICE:
        return n->features.events & EVENTS_NS_ATTRIBUTE &&
               any_changed(&n->logs);
    case NVME_EVENT_SMART:
        return n->features.events & EVENTS_TEMPERATURE;
    default:
        return true;
    }
}

/* The requests' queue has room for one more? Else we hear of it. */
static bool
has_room(struct nvme_cq *cq)
{
    while (!st_nvme_cq_room(cq, 1)) {
        cq->starving = true;
        if (!st_nvme_cq_listen(cq))
            return false;
    }
    if (cq->starving && !st_list_empty(&cq->w->sqs))
        st_nvme_wake(cq->w);
    return true;
}

/* The first request, or S, is one no more: it can be completed. */
static void
take(struct st_nvme *n, struct nvme_slot *s)
{
    n->naers--;
    st_list_remove(&s->link);
    s->state = NVME_SLOT_STARTED;
    s->sq->cq->owed++;
}

void
st_nvme_events(struct st_nvme *n)
{
    if (atomic_load(&n->paused))
        return; /* workers look again when that is over */
    for (unsigned type = 0; type < NVME_EVENTS; type++) {
        struct nvme_event *e = &n->event[type];
        struct nvme_slot *s;

        if (st_list_empty(&n->aers) || !may_tell(n, type))
            continue;
        s = st_container(st_list_first(&n->aers), struct nvme_slot, link);
        if (!has_room(s->sq->cq))
            return;
        e->pending = false;
        e->told = true;
        take(n, s);
        s->cmd.dw0 = type | (uint32_t)e->info << 8 | (uint32_t)e->page << 16;
        st_nvme_end(s, NVME_OK);
    }
}

static void
happened(struct st_nvme *n, unsigned type, uint8_t info, uint8_t page)
{
    struct nvme_event *e = &n->event[type];

    if (!e->pending)
        *e = (struct nvme_event){true, e->told, info, page};
    st_nvme_events(n);
}

void
st_nvme_event_request(struct nvme_slot *s)
{
    struct st_nvme *n = s->sq->w->nvme;

    if (n->naers == NVME_AERL) {
        st_nvme_end(s, NVME_AER_LIMIT | NVME_DNR);
        return;
    }
    /* It may wait for ever: it is owed nothing until there is something. */
    s->state = NVME_SLOT_EVENT;
    s->sq->cq->owed--;
    st_list_append(&n->aers, &s->link);
    n->naers++;
    st_nvme_events(n);
}

bool
st_nvme_event_abort(struct nvme_slot *s)
{
    if (!has_room(s->sq->cq))
        return false;
    take(s->sq->w->nvme, s);
    st_nvme_end(s, NVME_ABORT_REQUESTED);
    return true;
}

void
st_nvme_event_ack(struct st_nvme *n, uint8_t page, const uint64_t *delivered)
{
    switch (page) {
    case PAGE_ERROR:
        n->event[NVME_EVENT_ERROR].told = false;
        break;
    case PAGE_SMART:
        n->event[NVME_EVENT_SMART].told = false;
        break;
    case PAGE_CHANGED:
        for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
            n->logs.changed[i] &= ~delivered[i];
        n->event[NVME_EVENT_NOTICE].told = false;
        n->event[NVME_EVENT_NOTICE].pending = false;
        if (any_changed(&n->logs))
            happened(n, NVME_EVENT_NOTICE, 0, PAGE_CHANGED);
        break;
    default:
        return;
    }
    st_nvme_events(n);
}

void
st_nvme_event_temperature(struct st_nvme *n)
{
    const struct nvme_features *f = &n->features;
    uint16_t t = n->logs.temperature;
    bool warn = t >= f->over[0] || t <= f->under[0];
    bool warned = n->logs.critical_warning & 2;

    n->logs.critical_warning =
        (uint8_t)((n->logs.critical_warning & ~2) | (warn ? 2 : 0));
    if (warn && !warned)
        happened(n, NVME_EVENT_SMART, 1, PAGE_SMART);
}

/* ---- Namespaces that changed ---- */

void
st_nvme_ns_changed(struct st_nvme *n, uint32_t nsid)
{
    atomic_fetch_or(&n->changing[(nsid - 1) / 64], UINT64_C(1)
                                                       << (nsid - 1) % 64);
    if (!atomic_exchange(&n->changed_posted, true))
        st_post(n->admin->io.loop, &n->changed_task);
}

void
st_nvme_changed_run(struct st_task *t)
{
    struct st_nvme *n = st_container(t, struct st_nvme, changed_task);

    atomic_store(&n->changed_posted, false);
    for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
        n->logs.changed[i] |= atomic_exchange(&n->changing[i], 0);
    happened(n, NVME_EVENT_NOTICE, 0, PAGE_CHANGED);
    st_nvme_journal_blob(n, NULL);
}

/* ---- Errors ---- */

enum {
    ERRORS =
        sizeof(((struct nvme_worker *)NULL)->error) / sizeof(struct nvme_error)
};

void
st_nvme_error(struct nvme_worker *w, const struct nvme_error *e)
{
    struct st_nvme *n = w->nvme;
    unsigned in = atomic_load_explicit(&w->error_in, memory_order_relaxed);

    if (in - atomic_load_explicit(&w->error_out, memory_order_acquire) ==
        ERRORS) {
        st_count(&w->errors_lost, 1);
        return;
    }
    w->error[in % ERRORS] = *e;
    atomic_store_explicit(&w->error_in, in + 1, memory_order_release);
    if (!atomic_exchange(&w->errors_posted, true))
        st_post(n->admin->io.loop, &w->errors);
}

static void
take_errors(struct nvme_worker *w)
{
    unsigned out = atomic_load_explicit(&w->error_out, memory_order_relaxed);

    while (out != atomic_load_explicit(&w->error_in, memory_order_acquire)) {
        st_nvme_log_error(&w->nvme->logs, &w->error[out % ERRORS]);
        atomic_store_explicit(&w->error_out, ++out, memory_order_release);
    }
}

void
st_nvme_errors_run(struct st_task *t)
{
    struct nvme_worker *w = st_container(t, struct nvme_worker, errors);

    atomic_store(&w->errors_posted, false);
    take_errors(w);
    st_nvme_journal_blob(w->nvme, NULL);
}

void
st_nvme_errors_take(struct st_nvme *n)
{
    for (unsigned i = 0; i < n->nworkers; i++)
        take_errors(&n->worker[i]);
}

/* One at a time: where several come at once, the first is told. */
void
st_nvme_bad_doorbell(struct st_nvme *n, unsigned i, uint8_t info)
{
    uint64_t none = 0, what = UINT64_C(1) << 63 | (uint64_t)info << 32 | i;

    if (atomic_compare_exchange_strong(&n->bad_doorbell, &none, what))
        st_post(n->admin->io.loop, &n->bad_doorbell_task);
}

void
st_nvme_bad_doorbell_run(struct st_task *t)
{
    struct st_nvme *n = st_container(t, struct st_nvme, bad_doorbell_task);
    uint64_t what = atomic_exchange(&n->bad_doorbell, 0);
    struct nvme_error e = {
        .sqid = (uint16_t)((what & 0xffffffff) / 2),
        .cid = 0xffff, /* of no command */
        .status = NVME_INVALID_FIELD,
        .where = 0xffff,
    };

    if (!(atomic_load(&n->csts) & NVME_CSTS_RDY))
        return;
    st_warn_limited(n->log, &n->limiter, "%s: doorbell %u: %s", n->name,
                    (unsigned)(what & 0xffffffff),
                    what >> 32 & 1 ? "the value is not of its queue"
                                   : "there is no such queue");
    st_nvme_log_error(&n->logs, &e);
    happened(n, NVME_EVENT_ERROR, (uint8_t)(what >> 32), PAGE_ERROR);
}
