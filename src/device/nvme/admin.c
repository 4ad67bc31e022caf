/* SPDX-License-Identifier: MIT
 *
 * Admin commands (Base 5), but for those that concern queues: see
 * admin_queue.c.
 *
 * They run on the admin loop. Most end at once. Those that ask other workers
 * keep their slot until the answers are there; a reset does not take it from
 * them, but nothing is posted then.
 *
 *   Format:  mark it --> every worker's commands have ended --> erase, a slice
 *            at a time, as a command of the admin worker --> unmark
 */
#include <string.h>
#include <time.h>

#include "nvme_private.h"
#include "range.h"

static struct st_nvme *
nvme_of(const struct nvme_slot *s)
{
    return s->sq->w->nvme;
}

uint64_t
st_nvme_wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- Data: PRPs only (PCIe Transport) ---- */

static uint16_t
data_get(struct nvme_slot *s, uint64_t len, bool to_host)
{
    return st_nvme_data_get(&s->cmd.data, s->sq->w->io.view, &s->cmd.sqe, len,
                            to_host, false);
}

static void
data_put(struct nvme_slot *s)
{
    st_nvme_data_put(&s->cmd.data, s->sq->w->io.view);
}

static uint16_t
send(struct nvme_slot *s, const void *from, uint64_t len)
{
    uint16_t status = data_get(s, len, true);

    if (status == NVME_OK && len)
        st_buf_write((struct st_buf){s->cmd.data.iov, 0}, from, len);
    data_put(s);
    return status;
}

static uint16_t
receive(struct nvme_slot *s, void *to, uint64_t len)
{
    uint16_t status = data_get(s, len, false);

    if (status == NVME_OK && len)
        st_buf_read((struct st_buf){s->cmd.data.iov, 0}, to, len);
    data_put(s);
    return status;
}

/* ---- Identify ---- */

static uint16_t
identify(struct nvme_slot *s)
{
    struct st_nvme *n = nvme_of(s);
    struct nvme_ns_table t;
    uint16_t status;

    st_nvme_ns_table(n, &t);
    status = st_nvme_identify(&n->info, &t, &s->cmd.sqe, n->page);
    return status == NVME_OK ? send(s, n->page, sizeof(n->page)) : status;
}

/* ---- Get Log Page ---- */

static void
smart_update(struct st_nvme *n)
{
    struct nvme_logs *l = &n->logs;

    l->read_blocks = l->written_blocks = 0;
    l->reads = l->writes = l->media_errors = 0;
    for (unsigned i = 0; i < n->nworkers; i++) {
        const struct nvme_io *io = &n->worker[i].io;

        l->read_blocks += st_counter_get(&io->read_blocks);
        l->written_blocks += st_counter_get(&io->written_blocks);
        l->reads += st_counter_get(&io->reads);
        l->writes += st_counter_get(&io->writes);
        l->media_errors += st_counter_get(&io->media_errors);
    }
    l->power_on_hours = (n->admin->io.loop->now - n->made_at) /
                        (UINT64_C(3600) * 1000 * 1000000);
}

/* Of the namespaces that changed, those that LEN bytes from OFFSET of the page
 * name: only they are known to the guest then. */
static void
only_sent(const uint8_t *page, uint64_t offset, uint64_t len,
          uint64_t *delivered)
{
    uint64_t sent[NVME_NN_MAX / 64] = {0};

    for (uint64_t at = offset; at + 4 <= offset + len; at += 4) {
        le32 v;
        uint32_t nsid;

        memcpy(&v, page + at, sizeof(v));
        nsid = le32_get(v);
        if (nsid == NVME_NSID_ALL)
            return; /* all of them */
        if (nsid && nsid <= NVME_NN_MAX)
            sent[(nsid - 1) / 64] |= UINT64_C(1) << (nsid - 1) % 64;
    }
    for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
        delivered[i] &= sent[i];
}

static uint16_t
get_log_page(struct nvme_slot *s)
{
    enum { RAE = 1 << 15, OT = 1 << 23 };
    struct st_nvme *n = nvme_of(s);
    const struct nvme_sqe *e = &s->cmd.sqe;
    uint32_t cdw10 = le32_get(e->cdw10);
    uint8_t lid = (uint8_t)cdw10;
    uint64_t numd = cdw10 >> 16 | (uint64_t)(le32_get(e->cdw11) & 0xffff) << 16;
    uint64_t offset = le32_get(e->cdw12) | (uint64_t)le32_get(e->cdw13) << 32;
    uint64_t size = st_nvme_log_size(lid), len = (numd + 1) * 4;
    uint64_t delivered[NVME_NN_MAX / 64] = {0};
    struct nvme_ns_table t;
    uint16_t status;

    if (!size)
        return NVME_INVALID_LOG_PAGE | NVME_DNR;
    if (offset % 4 || offset > size || le32_get(e->cdw14) & OT)
        return NVME_INVALID_FIELD | NVME_DNR;
    st_nvme_errors_take(n);
    smart_update(n);
    st_nvme_ns_table(n, &t);
    status = st_nvme_log_page(&n->logs, &n->info, &t, e, n->page, delivered);
    if (status != NVME_OK)
        return status;
    len = st_min(len, size - offset);
    if (lid == NVME_LOG_CHANGED)
        only_sent(n->page, offset, len, delivered);
    status = send(s, n->page + offset, len);
    if (status == NVME_OK && !(cdw10 & RAE))
        st_nvme_event_ack(n, lid, delivered);
    return status;
}

/* ---- Features ---- */

void
st_nvme_features_apply(struct st_nvme *n)
{
    const struct nvme_features *f = &n->features;

    atomic_store(&n->write_through, !f->write_cache);
    atomic_store(&n->coalesce,
                 f->coalesce_threshold | (uint32_t)f->coalesce_time << 8);
    for (unsigned v = 0; v < n->info.vectors; v++)
        atomic_store_explicit(&n->coalesce_off[v], f->coalesce_off[v],
                              memory_order_relaxed);
}

static bool
queues_exist(const struct st_nvme *n)
{
    for (unsigned i = 1; i <= n->info.queues; i++)
        if (n->pair[i].sq || n->pair[i].cq)
            return true;
    return false;
}

static uint16_t
feature(struct nvme_slot *s, bool set)
{
    enum { SEL_CAPABILITIES = 3 };
    struct st_nvme *n = nvme_of(s);
    const struct nvme_sqe *e = &s->cmd.sqe;
    uint32_t cdw10 = le32_get(e->cdw10);
    unsigned len = st_nvme_feature_data((uint8_t)cdw10, le32_get(e->cdw11));
    struct nvme_ns_table t;
    struct nvme_feature_env env = {
        .info = &n->info,
        .t = &t,
        .queues_exist = queues_exist(n),
        .volatile_cache = true,
        .now_ms = st_nvme_wall_ms(),
    };
    uint16_t status;

    st_nvme_ns_table(n, &t);
    memset(n->page, 0, len);
    if (!set) {
        status =
            st_nvme_feature_get(&n->features, &env, e, n->page, &s->cmd.dw0);
        if (status == NVME_OK && (cdw10 >> 8 & 7) != SEL_CAPABILITIES)
            status = send(s, n->page, len);
        return status;
    }
    status = receive(s, n->page, len);
    if (status == NVME_OK)
        status =
            st_nvme_feature_set(&n->features, &env, e, n->page, &s->cmd.dw0);
    if (status == NVME_OK) {
        st_nvme_features_apply(n);
        st_nvme_event_temperature(n);
        st_nvme_events(n);
    }
    return status;
}

/* ---- Doorbell Buffer Config (Base 5.8) ---- */

static void config_done(struct st_nvme *n);

/* Carry out the first of n->configs, if its pages are there. */
static void
config_next(struct st_nvme *n)
{
    while (!st_list_empty(&n->configs)) {
        struct nvme_slot *s =
            st_container(st_list_first(&n->configs), struct nvme_slot, link);
        uint64_t shadow = le64_get(s->cmd.sqe.prp1);
        uint64_t event = le64_get(s->cmd.sqe.prp2);
        struct st_gmem_view *v = s->sq->w->io.view;

        if (!s->sq->dead && st_gmem_peek(v, shadow, NVME_PAGE, true) &&
            st_gmem_peek(v, event, NVME_PAGE, true)) {
            atomic_store(&n->shadow_page, shadow);
            atomic_store(&n->event_page, event);
            atomic_store(&n->shadow, true);
            st_nvme_broadcast(n, NVME_ROUND_CONFIG, st_nvme_worker_config,
                              config_done);
            return;
        }
        st_list_remove(&s->link);
        st_nvme_end(s, NVME_DATA_TRANSFER_ERROR | NVME_DNR);
    }
}

static void
config_done(struct st_nvme *n)
{
    struct nvme_slot *s =
        st_container(st_list_first(&n->configs), struct nvme_slot, link);

    st_list_remove(&s->link);
    st_nvme_end(s, NVME_OK);
    config_next(n);
}

static void
doorbell_buffer(struct nvme_slot *s)
{
    struct st_nvme *n = nvme_of(s);
    uint64_t shadow = le64_get(s->cmd.sqe.prp1);
    uint64_t event = le64_get(s->cmd.sqe.prp2);
    bool idle = st_list_empty(&n->configs);

    if (shadow % NVME_PAGE || event % NVME_PAGE || shadow == event) {
        st_nvme_end(s, NVME_INVALID_FIELD | NVME_DNR);
        return;
    }
    st_list_append(&n->configs, &s->link);
    if (idle)
        config_next(n);
}

/* ---- Format NVM (Base 5.24) ---- */

static void
format_end(struct nvme_slot *s, uint16_t status)
{
    struct st_nvme *n = nvme_of(s);

    n->format = NULL;
    st_nvme_end(s, status);
}

static void
format_erased(struct nvme_cmd *c)
{
    struct nvme_slot *s = st_container(c, struct nvme_slot, cmd);
    struct nvme_worker *w = s->sq->w;

    s->in_io = false;
    atomic_store(&c->door->ns->formatting, false);
    st_nvme_door_put(w, c->door);
    c->door = NULL;
    format_end(s, c->status);
}

/* Nobody uses the namespace any more, and nobody will. */
static void
format_drained(struct st_nvme *n)
{
    struct nvme_slot *s = n->format;
    struct nvme_ns *ns = atomic_load(&n->ns[n->format_nsid - 1]);
    struct nvme_cmd *c = &s->cmd;
    uint16_t status;

    if (s->sq->dead) {
        if (ns)
            atomic_store(&ns->formatting, false);
        format_end(s, NVME_ABORT_REQUESTED);
        return;
    }
    c->door = st_nvme_door_get(s->sq->w, n->format_nsid, true, &status);
    if (!c->door) {
        if (ns)
            atomic_store(&ns->formatting, false);
        format_end(s, status);
        return;
    }
    c->done = format_erased;
    s->in_io = true;
    st_nvme_io_erase(c);
}

static void
format(struct nvme_slot *s)
{
    struct st_nvme *n = nvme_of(s);
    uint32_t nsid = le32_get(s->cmd.sqe.nsid);
    uint32_t cdw10 = le32_get(s->cmd.sqe.cdw10);
    unsigned lbaf = (cdw10 & 0xf) | (cdw10 >> 12 & 3) << 4;
    unsigned mset_pi_pil = cdw10 >> 4 & 0x1f, ses = cdw10 >> 9 & 7;
    struct nvme_ns_table t;
    struct nvme_ns *ns;
    uint16_t status = NVME_OK;

    st_nvme_ns_table(n, &t);
    ns = nsid && nsid <= t.nn ? t.ns[nsid - 1] : NULL;
    if (!ns) /* all at once is not offered: FNA bit 3 */
        status = NVME_INVALID_NAMESPACE | NVME_DNR;
    else if (lbaf || mset_pi_pil)
        status = NVME_INVALID_FORMAT | NVME_DNR;
    else if (ses > 1) /* no cryptographic erase */
        status = NVME_INVALID_FIELD | NVME_DNR;
    else if (ns->read_only)
        status = NVME_WRITE_TO_READ_ONLY | NVME_DNR;
    else if (n->format || atomic_exchange(&ns->formatting, true))
        status = NVME_FORMAT_IN_PROGRESS;
    if (status != NVME_OK) {
        st_nvme_end(s, status);
        return;
    }
    n->format = s;
    n->format_nsid = nsid;
    st_nvme_broadcast(n, NVME_ROUND_DRAIN, st_nvme_worker_drain,
                      format_drained);
}

/* ---- Dispatch ---- */

void
st_nvme_admin_reset(struct st_nvme *n)
{
    atomic_store(&n->shadow, false);
    n->naers = 0; /* the slots go with their queue */
    memset(n->event, 0, sizeof(n->event));
}

void
st_nvme_admin_start(struct nvme_slot *s)
{
    const struct nvme_sqe *e = &s->cmd.sqe;

    if (!st_nvme_effects(true, e->opcode, &nvme_of(s)->info)) {
        st_nvme_end(s, NVME_INVALID_OPCODE | NVME_DNR);
        return;
    }
    if (e->flags & NVME_FUSE_MASK || e->flags >> NVME_PSDT_SHIFT) {
        st_nvme_end(s, NVME_INVALID_FIELD | NVME_DNR);
        return;
    }
    switch ((enum nvme_admin_opcode)e->opcode) {
    case NVME_ADMIN_DELETE_SQ:
        st_nvme_delete_sq(s);
        return;
    case NVME_ADMIN_CREATE_SQ:
        st_nvme_create_sq(s);
        return;
    case NVME_ADMIN_GET_LOG_PAGE:
        st_nvme_end(s, get_log_page(s));
        return;
    case NVME_ADMIN_DELETE_CQ:
        st_nvme_delete_cq(s);
        return;
    case NVME_ADMIN_CREATE_CQ:
        st_nvme_create_cq(s);
        return;
    case NVME_ADMIN_IDENTIFY:
        st_nvme_end(s, identify(s));
        return;
    case NVME_ADMIN_ABORT:
        st_nvme_admin_abort(s);
        return;
    case NVME_ADMIN_SET_FEATURES:
        st_nvme_end(s, feature(s, true));
        return;
    case NVME_ADMIN_GET_FEATURES:
        st_nvme_end(s, feature(s, false));
        return;
    case NVME_ADMIN_ASYNC_EVENT:
        st_nvme_event_request(s);
        return;
    case NVME_ADMIN_DOORBELL_BUFFER:
        doorbell_buffer(s);
        return;
    case NVME_ADMIN_FORMAT:
        format(s);
        return;
    }
    st_nvme_end(s, NVME_INVALID_OPCODE | NVME_DNR);
}
