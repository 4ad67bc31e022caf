/* SPDX-License-Identifier: MIT
 *
 * The blob of a saved controller, whose values are as pack.h says:
 *
 *   0   8   "StrataNV"
 *   8   4   version, 1
 *   12  4   length of the whole
 *   16  4   CRC-32C of what follows
 *   20  4   0
 *   24      values: see walk(), which reads and writes them
 *
 * A version that is not known is refused. Blobs in golden/ must load for ever:
 * what is added comes with a new version, and walk() then skips it for old
 * ones.
 */
#include "save.h"

#include <errno.h>
#include <string.h>

#include "crc32c.h"
#include "pack.h"
#include "range.h"

static const char magic[8] = {'S', 't', 'r', 'a', 't', 'a', 'N', 'V'};

enum { VERSION = 1 };

/* ---- All values, in their order ---- */

static void
walk_identity(struct st_pack *k, struct nvme_saved *s)
{
    st_pack_bytes(k, s->subsystem, sizeof(s->subsystem));
    st_pack_u16(k, &s->cntlid);
    st_pack_bytes(k, s->serial, sizeof(s->serial));
    st_pack_bytes(k, s->model, sizeof(s->model));
    st_pack_u32(k, &s->queues);
    st_pack_u32(k, &s->entries);
    st_pack_count(k, &s->vectors, ST_PCI_VECTORS_MAX);
    st_pack_u32(k, &s->nn);
    st_pack_flag(k, &s->intx);
    st_pack_flag(k, &s->mapped);
}

static void
walk_registers(struct st_pack *k, struct nvme_saved *s)
{
    st_pack_u8(k, &s->state);
    st_pack_u32(k, &s->cc);
    st_pack_u32(k, &s->csts);
    st_pack_u32(k, &s->aqa);
    st_pack_u32(k, &s->intms);
    st_pack_u64(k, &s->asq);
    st_pack_u64(k, &s->acq);
    st_pack_bytes(k, s->config, sizeof(s->config));
    for (uint32_t i = 0; i < s->vectors; i++) {
        st_pack_u64(k, &s->vector[i].address);
        st_pack_u32(k, &s->vector[i].data);
        st_pack_flag(k, &s->vector[i].masked);
        st_pack_flag(k, &s->vector[i].pending);
    }
}

static void
walk_features(struct st_pack *k, struct nvme_saved *s)
{
    struct nvme_features *f = &s->features;

    st_pack_u32(k, &f->arbitration);
    st_pack_u32(k, &f->power);
    st_pack_u32(k, &f->error_recovery);
    for (unsigned i = 0; i < 9; i++) {
        st_pack_u16(k, &f->over[i]);
        st_pack_u16(k, &f->under[i]);
    }
    st_pack_flag(k, &f->write_cache);
    st_pack_u16(k, &f->nsq);
    st_pack_u16(k, &f->ncq);
    st_pack_u8(k, &f->coalesce_threshold);
    st_pack_u8(k, &f->coalesce_time);
    st_pack_bytes(k, s->coalesce_off, s->vectors);
    st_pack_flag(k, &f->atomicity_off);
    st_pack_u32(k, &f->events);
    st_pack_i64(k, &f->timestamp_set);
    st_pack_flag(k, &f->timestamp_by_host);
    st_pack_bytes(k, f->host_behavior, sizeof(f->host_behavior));
    st_pack_bytes(k, f->host_id, sizeof(f->host_id));
    st_pack_flag(k, &f->host_id_extended);
    st_pack_flag(k, &f->host_id_set);
}

static void
walk_logs(struct st_pack *k, struct nvme_saved *s)
{
    struct nvme_logs *l = &s->logs;

    for (unsigned i = 0; i < NVME_ERROR_ENTRIES; i++) {
        struct nvme_error *e = &l->error[i];

        st_pack_u64(k, &e->count);
        st_pack_u16(k, &e->sqid);
        st_pack_u16(k, &e->cid);
        st_pack_u16(k, &e->status);
        st_pack_u16(k, &e->where);
        st_pack_u64(k, &e->lba);
        st_pack_u32(k, &e->nsid);
    }
    st_pack_u64(k, &l->errors);
    for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
        st_pack_u64(k, &l->changed[i]);
    st_pack_u64(k, &l->read_blocks);
    st_pack_u64(k, &l->written_blocks);
    st_pack_u64(k, &l->reads);
    st_pack_u64(k, &l->writes);
    st_pack_u64(k, &l->media_errors);
    st_pack_u64(k, &l->power_cycles);
    st_pack_u64(k, &l->unsafe_shutdowns);
    st_pack_u64(k, &l->busy_minutes);
    st_pack_u8(k, &l->critical_warning);
    st_pack_u16(k, &l->temperature);
    st_pack_u64(k, &s->on_ns);
    for (unsigned i = 0; i < NVME_EVENTS; i++) {
        st_pack_flag(k, &s->event[i].pending);
        st_pack_flag(k, &s->event[i].told);
        st_pack_u8(k, &s->event[i].info);
        st_pack_u8(k, &s->event[i].page);
    }
    st_pack_count(k, &s->naers, NVME_AERL);
    for (uint32_t i = 0; i < s->naers; i++)
        st_pack_u16(k, &s->aer[i]);
}

static void
walk_queues(struct st_pack *k, struct nvme_saved *s)
{
    st_pack_flag(k, &s->shadow);
    st_pack_u64(k, &s->shadow_page);
    st_pack_u64(k, &s->event_page);
    st_pack_count(k, &s->ncq, NVME_SAVED_QUEUES);
    for (uint32_t i = 0; i < s->ncq; i++) {
        struct nvme_saved_cq *q = &s->cq[i];

        st_pack_u16(k, &q->qid);
        st_pack_u16(k, &q->vector);
        st_pack_flag(k, &q->ien);
        st_pack_flag(k, &q->phase);
        st_pack_u64(k, &q->base);
        st_pack_u32(k, &q->size);
        st_pack_u32(k, &q->head);
        st_pack_u32(k, &q->tail);
        st_pack_u32(k, &q->seen);
        st_pack_u32(k, &q->doorbell);
    }
    st_pack_count(k, &s->nsq, NVME_SAVED_QUEUES);
    for (uint32_t i = 0; i < s->nsq; i++) {
        struct nvme_saved_sq *q = &s->sq[i];

        st_pack_u16(k, &q->qid);
        st_pack_u16(k, &q->cqid);
        st_pack_u64(k, &q->base);
        st_pack_u32(k, &q->size);
        st_pack_u32(k, &q->head);
        st_pack_u32(k, &q->tail);
        st_pack_u32(k, &q->seen);
        st_pack_u32(k, &q->doorbell);
        st_pack_u8(k, &q->ndoomed);
        for (unsigned j = 0; j < NVME_ABORTS; j++)
            st_pack_u16(k, &q->doomed[j]);
        st_pack_flag(k, &q->has_first);
        if (q->has_first)
            st_pack_bytes(k, &q->first, sizeof(q->first));
    }
}

static void
walk(struct st_pack *k, void *arg)
{
    struct nvme_saved *s = arg;

    walk_identity(k, s);
    walk_registers(k, s);
    walk_features(k, s);
    walk_logs(k, s);
    walk_queues(k, s);
    st_pack_count(k, &s->nns, NVME_NN_MAX);
    for (uint32_t i = 0; i < s->nns; i++) {
        st_pack_u32(k, &s->ns[i].nsid);
        st_pack_u8(k, &s->ns[i].shift);
        st_pack_flag(k, &s->ns[i].read_only);
        st_pack_u64(k, &s->ns[i].size);
        st_pack_bytes(k, s->ns[i].uuid, 16);
        st_pack_bytes(k, s->ns[i].nguid, 16);
    }
}

/* ---- Do they agree? ---- */

static const struct nvme_saved_cq *
cq_of(const struct nvme_saved *s, uint16_t qid)
{
    for (uint32_t i = 0; i < s->ncq; i++)
        if (s->cq[i].qid == qid)
            return &s->cq[i];
    return NULL;
}

/* A ring of SIZE entries of BYTES each; QID follows LAST, or -1. */
static bool
ring_ok(const struct nvme_saved *s, int last, uint16_t qid, uint64_t base,
        uint32_t size, unsigned entry, uint32_t head, uint32_t tail)
{
    uint32_t most = qid ? s->entries : 4096;

    return qid > last && qid <= s->queues && base % NVME_PAGE == 0 &&
           size >= 2 && size <= most &&
           base <= UINT64_MAX - (uint64_t)size * entry && head < size &&
           tail < size;
}

static bool
sq_ok(const struct nvme_saved *s, const struct nvme_saved_sq *q)
{
    const struct nvme_saved_cq *cq = cq_of(s, q->cqid);
    unsigned used;

    if (!cq || !q->qid != !q->cqid || q->ndoomed > NVME_ABORTS)
        return false;
    if (!q->has_first)
        return true;
    /* It is owed two entries. */
    used = (cq->tail + cq->size - cq->head) % cq->size;
    return q->qid && (q->first.flags & NVME_FUSE_MASK) == 1 &&
           used + 2 <= cq->size - 1;
}

static bool
queues_ok(const struct nvme_saved *s)
{
    uint32_t firsts = 0;
    int last = -1;

    for (uint32_t i = 0; i < s->ncq; last = s->cq[i++].qid) {
        const struct nvme_saved_cq *q = &s->cq[i];

        if (!ring_ok(s, last, q->qid, q->base, q->size, sizeof(struct nvme_cqe),
                     q->head, q->tail) ||
            q->vector >= s->vectors)
            return false;
    }
    last = -1;
    for (uint32_t i = 0; i < s->nsq; last = s->sq[i++].qid) {
        const struct nvme_saved_sq *q = &s->sq[i];

        if (!ring_ok(s, last, q->qid, q->base, q->size, sizeof(struct nvme_sqe),
                     q->head, q->tail) ||
            !sq_ok(s, q))
            return false;
        for (uint32_t k = 0; k < i; k++)
            if (q->has_first && s->sq[k].has_first && s->sq[k].cqid == q->cqid)
                firsts++;
    }
    /* Several in one completion queue: it must have room for all. */
    for (uint32_t i = 0; firsts && i < s->ncq; i++) {
        const struct nvme_saved_cq *q = &s->cq[i];
        uint64_t need = (q->tail + q->size - q->head) % q->size;

        for (uint32_t k = 0; k < s->nsq; k++)
            need += s->sq[k].has_first && s->sq[k].cqid == q->qid ? 2 : 0;
        if (need > q->size - 1)
            return false;
    }
    return true;
}

/* State and registers are of one controller. */
static bool
state_ok(const struct nvme_saved *s)
{
    const uint32_t rdy = NVME_CSTS_RDY, cfs = NVME_CSTS_CFS;
    const uint32_t shst = 3u << NVME_CSTS_SHST_SHIFT;
    bool admin = s->ncq && s->nsq && !s->cq[0].qid && !s->sq[0].qid;

    if (s->csts & ~(rdy | cfs | shst) ||
        (s->csts & shst) == 3u << NVME_CSTS_SHST_SHIFT ||
        (s->csts & shst) == 1u << NVME_CSTS_SHST_SHIFT)
        return false;
    switch (s->state) {
    case NVME_DISABLED:
        return !(s->cc & NVME_CC_EN) && !(s->csts & (rdy | cfs)) && !s->ncq &&
               !s->nsq && !s->naers && !s->shadow;
    case NVME_READY:
        return s->cc & NVME_CC_EN && (s->csts & (rdy | cfs)) == rdy && admin;
    case NVME_FAILED:
        return s->cc & NVME_CC_EN && s->csts & cfs && !s->ncq && !s->nsq &&
               !s->naers && !s->shadow;
    default:
        return false;
    }
}

static bool
rest_ok(const struct nvme_saved *s)
{
    const struct nvme_features *f = &s->features;
    uint32_t last = 0;

    if (!s->queues || s->queues > ST_NVME_QUEUES_MAX || s->entries < 2 ||
        s->entries > 65536 || !s->vectors || !s->nn || s->nn > NVME_NN_MAX)
        return false;
    if (!f->nsq || f->nsq > s->queues || !f->ncq || f->ncq > s->queues)
        return false;
    if (s->shadow &&
        (s->mapped || s->shadow_page % NVME_PAGE || s->event_page % NVME_PAGE ||
         s->shadow_page == s->event_page))
        return false;
    for (uint32_t i = 0; i < s->vectors; i++)
        if (s->coalesce_off[i] > 1)
            return false;
    for (uint32_t i = 0; i < s->nns; last = s->ns[i++].nsid)
        if (s->ns[i].nsid <= last || s->ns[i].nsid > s->nn ||
            s->ns[i].shift < 9 || s->ns[i].shift > 30)
            return false;
    return true;
}

/* ---- The blob ---- */

void
st_nvme_saved_seal(uint8_t *p, size_t len)
{
    le32 head[4] = {
        le32_of(VERSION),
        le32_of((uint32_t)len),
        le32_of(st_crc32c(0, p + NVME_SAVED_HEADER, len - NVME_SAVED_HEADER)),
        le32_of(0),
    };

    memcpy(p, magic, sizeof(magic));
    memcpy(p + sizeof(magic), head, sizeof(head));
}

void *
st_nvme_saved_write(const struct nvme_saved *from, size_t *len)
{
    /* walk() only reads what it writes. */
    struct nvme_saved *s = (struct nvme_saved *)(uintptr_t)from;
    uint8_t *blob = st_pack_new(walk, s, NVME_SAVED_HEADER, len);

    if (blob)
        st_nvme_saved_seal(blob, *len);
    return blob;
}

size_t
st_nvme_saved_put(const struct nvme_saved *from, uint8_t *to, size_t room)
{
    struct nvme_saved *s = (struct nvme_saved *)(uintptr_t)from;
    struct st_pack k = {.at = NVME_SAVED_HEADER};

    walk(&k, s);
    if (k.at > room)
        return 0;
    k = (struct st_pack){.p = to, .at = NVME_SAVED_HEADER, .len = k.at};
    walk(&k, s);
    st_nvme_saved_seal(to, k.len);
    return k.len;
}

int
st_nvme_saved_check(struct nvme_saved *s, bool journal, struct st_err *err)
{
    const uint32_t cc = s->cc;
    bool ok;

    if (journal && s->state == NVME_DISABLED)
        s->cc &= ~(uint32_t)NVME_CC_EN;
    ok = rest_ok(s) && state_ok(s) && queues_ok(s);
    s->cc = cc;
    return ok ? 0
              : st_err_set(err, EINVAL,
                           "the saved controller's values make no sense");
}

int
st_nvme_saved_read(const void *blob, size_t len, struct nvme_saved *out,
                   struct st_err *err)
{
    struct st_pack k = st_pack_reader(blob, len);
    const uint8_t *p = blob;
    le32 head[4];

    if (len < NVME_SAVED_HEADER || memcmp(p, magic, sizeof(magic)) != 0)
        return st_err_set(err, EINVAL, "this is no saved nvme controller");
    memcpy(head, p + sizeof(magic), sizeof(head));
    if (le32_get(head[0]) != VERSION)
        return st_err_set(err, EINVAL,
                          "the saved controller is of version %u, not %d",
                          le32_get(head[0]), VERSION);
    if (le32_get(head[1]) != len || len > NVME_SAVED_MAX)
        return st_err_set(err, EINVAL,
                          "the saved controller has %zu bytes, not %u", len,
                          le32_get(head[1]));
    if (le32_get(head[2]) !=
        st_crc32c(0, p + NVME_SAVED_HEADER, len - NVME_SAVED_HEADER))
        return st_err_set(err, EINVAL,
                          "the saved controller is damaged: its checksum is "
                          "wrong");
    memset(out, 0, sizeof(*out));
    k.at = NVME_SAVED_HEADER;
    walk(&k, out);
    if (!st_pack_done(&k) || le32_get(head[3]))
        return st_err_set(err, EINVAL,
                          "the saved controller's values make no sense");
    return st_nvme_saved_check(out, false, err);
}
