/* SPDX-License-Identifier: MIT
 *
 * The blob of a saved controller. All integers are little-endian, a boolean is
 * a byte that is 0 or 1, nothing is padded:
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
#include <stdlib.h>
#include <string.h>

#include "range.h"

static const char magic[8] = {'S', 't', 'r', 'a', 't', 'a', 'N', 'V'};

enum { VERSION = 1 };

/* CRC-32C (RFC 3720, B.4), bit by bit: a blob is small. */
static uint32_t
crc32c(const uint8_t *p, size_t len)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0x82f63b78) : 0);
    }
    return ~crc;
}

/* ---- One value after the other ---- */

struct cursor {
    uint8_t *p; /* NULL: only count */
    size_t at, len;
    bool reading;
    bool bad; /* too short, or no boolean */
};

/* SIZE bytes at P, as they are. */
static void
bytes(struct cursor *c, void *p, size_t size)
{
    if (c->reading) {
        if (c->bad || c->len - c->at < size) {
            c->bad = true;
            memset(p, 0, size);
            return;
        }
        memcpy(p, c->p + c->at, size);
    } else if (c->p) {
        memcpy(c->p + c->at, p, size);
    }
    c->at += size;
}

/* A number of SIZE bytes: gives what it is after that. */
static uint64_t
number(struct cursor *c, uint64_t v, size_t size)
{
    le64 le = le64_of(v);

    bytes(c, &le, size);
    return size == sizeof(le) ? le64_get(le)
                              : le64_get(le) & ((UINT64_C(1) << 8 * size) - 1);
}

static void
u8(struct cursor *c, uint8_t *v)
{
    *v = (uint8_t)number(c, *v, 1);
}

static void
u16(struct cursor *c, uint16_t *v)
{
    *v = (uint16_t)number(c, *v, 2);
}

static void
u32(struct cursor *c, uint32_t *v)
{
    *v = (uint32_t)number(c, *v, 4);
}

static void
u64(struct cursor *c, uint64_t *v)
{
    *v = number(c, *v, 8);
}

static void
i64(struct cursor *c, int64_t *v)
{
    *v = (int64_t)number(c, (uint64_t)*v, 8);
}

static void
flag(struct cursor *c, bool *v)
{
    uint64_t n = number(c, *v, 1);

    c->bad |= n > 1;
    *v = n == 1;
}

/* How many of something, at most MAX. */
static void
count(struct cursor *c, uint32_t *v, uint32_t max)
{
    u32(c, v);
    if (*v > max) {
        c->bad = true;
        *v = 0;
    }
}

/* ---- All values, in their order ---- */

static void
walk_identity(struct cursor *c, struct nvme_saved *s)
{
    bytes(c, s->subsystem, sizeof(s->subsystem));
    u16(c, &s->cntlid);
    bytes(c, s->serial, sizeof(s->serial));
    bytes(c, s->model, sizeof(s->model));
    u32(c, &s->queues);
    u32(c, &s->entries);
    count(c, &s->vectors, ST_PCI_VECTORS_MAX);
    u32(c, &s->nn);
    flag(c, &s->intx);
    flag(c, &s->mapped);
}

static void
walk_registers(struct cursor *c, struct nvme_saved *s)
{
    u8(c, &s->state);
    u32(c, &s->cc);
    u32(c, &s->csts);
    u32(c, &s->aqa);
    u32(c, &s->intms);
    u64(c, &s->asq);
    u64(c, &s->acq);
    bytes(c, s->config, sizeof(s->config));
    for (uint32_t i = 0; i < s->vectors; i++) {
        u64(c, &s->vector[i].address);
        u32(c, &s->vector[i].data);
        flag(c, &s->vector[i].masked);
        flag(c, &s->vector[i].pending);
    }
}

static void
walk_features(struct cursor *c, struct nvme_saved *s)
{
    struct nvme_features *f = &s->features;

    u32(c, &f->arbitration);
    u32(c, &f->power);
    u32(c, &f->error_recovery);
    for (unsigned i = 0; i < 9; i++) {
        u16(c, &f->over[i]);
        u16(c, &f->under[i]);
    }
    flag(c, &f->write_cache);
    u16(c, &f->nsq);
    u16(c, &f->ncq);
    u8(c, &f->coalesce_threshold);
    u8(c, &f->coalesce_time);
    bytes(c, s->coalesce_off, s->vectors);
    flag(c, &f->atomicity_off);
    u32(c, &f->events);
    i64(c, &f->timestamp_set);
    flag(c, &f->timestamp_by_host);
    bytes(c, f->host_behavior, sizeof(f->host_behavior));
    bytes(c, f->host_id, sizeof(f->host_id));
    flag(c, &f->host_id_extended);
    flag(c, &f->host_id_set);
}

static void
walk_logs(struct cursor *c, struct nvme_saved *s)
{
    struct nvme_logs *l = &s->logs;

    for (unsigned i = 0; i < NVME_ERROR_ENTRIES; i++) {
        struct nvme_error *e = &l->error[i];

        u64(c, &e->count);
        u16(c, &e->sqid);
        u16(c, &e->cid);
        u16(c, &e->status);
        u16(c, &e->where);
        u64(c, &e->lba);
        u32(c, &e->nsid);
    }
    u64(c, &l->errors);
    for (unsigned i = 0; i < NVME_NN_MAX / 64; i++)
        u64(c, &l->changed[i]);
    u64(c, &l->read_blocks);
    u64(c, &l->written_blocks);
    u64(c, &l->reads);
    u64(c, &l->writes);
    u64(c, &l->media_errors);
    u64(c, &l->power_cycles);
    u64(c, &l->unsafe_shutdowns);
    u64(c, &l->busy_minutes);
    u8(c, &l->critical_warning);
    u16(c, &l->temperature);
    u64(c, &s->on_ns);
    for (unsigned i = 0; i < NVME_EVENTS; i++) {
        flag(c, &s->event[i].pending);
        flag(c, &s->event[i].told);
        u8(c, &s->event[i].info);
        u8(c, &s->event[i].page);
    }
    count(c, &s->naers, NVME_AERL);
    for (uint32_t i = 0; i < s->naers; i++)
        u16(c, &s->aer[i]);
}

static void
walk_queues(struct cursor *c, struct nvme_saved *s)
{
    flag(c, &s->shadow);
    u64(c, &s->shadow_page);
    u64(c, &s->event_page);
    count(c, &s->ncq, NVME_SAVED_QUEUES);
    for (uint32_t i = 0; i < s->ncq; i++) {
        struct nvme_saved_cq *q = &s->cq[i];

        u16(c, &q->qid);
        u16(c, &q->vector);
        flag(c, &q->ien);
        flag(c, &q->phase);
        u64(c, &q->base);
        u32(c, &q->size);
        u32(c, &q->head);
        u32(c, &q->tail);
        u32(c, &q->seen);
        u32(c, &q->doorbell);
    }
    count(c, &s->nsq, NVME_SAVED_QUEUES);
    for (uint32_t i = 0; i < s->nsq; i++) {
        struct nvme_saved_sq *q = &s->sq[i];

        u16(c, &q->qid);
        u16(c, &q->cqid);
        u64(c, &q->base);
        u32(c, &q->size);
        u32(c, &q->head);
        u32(c, &q->tail);
        u32(c, &q->seen);
        u32(c, &q->doorbell);
        u8(c, &q->ndoomed);
        for (unsigned k = 0; k < NVME_ABORTS; k++)
            u16(c, &q->doomed[k]);
        flag(c, &q->has_first);
        if (q->has_first)
            bytes(c, &q->first, sizeof(q->first));
    }
}

static void
walk(struct cursor *c, struct nvme_saved *s)
{
    walk_identity(c, s);
    walk_registers(c, s);
    walk_features(c, s);
    walk_logs(c, s);
    walk_queues(c, s);
    count(c, &s->nns, NVME_NN_MAX);
    for (uint32_t i = 0; i < s->nns; i++) {
        u32(c, &s->ns[i].nsid);
        u8(c, &s->ns[i].shift);
        flag(c, &s->ns[i].read_only);
        u64(c, &s->ns[i].size);
        bytes(c, s->ns[i].uuid, 16);
        bytes(c, s->ns[i].nguid, 16);
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
        le32_of(crc32c(p + NVME_SAVED_HEADER, len - NVME_SAVED_HEADER)),
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
    struct cursor c = {.at = NVME_SAVED_HEADER};
    uint8_t *blob;

    walk(&c, s);
    *len = c.at;
    blob = malloc(*len);
    if (!blob)
        return NULL;
    c = (struct cursor){.p = blob, .at = NVME_SAVED_HEADER, .len = *len};
    walk(&c, s);
    st_nvme_saved_seal(blob, *len);
    return blob;
}

size_t
st_nvme_saved_put(const struct nvme_saved *from, uint8_t *to, size_t room)
{
    struct nvme_saved *s = (struct nvme_saved *)(uintptr_t)from;
    struct cursor c = {.at = NVME_SAVED_HEADER};

    walk(&c, s);
    if (c.at > room)
        return 0;
    c = (struct cursor){.p = to, .at = NVME_SAVED_HEADER, .len = c.at};
    walk(&c, s);
    st_nvme_saved_seal(to, c.len);
    return c.len;
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
    struct cursor c = {.reading = true, .at = NVME_SAVED_HEADER, .len = len};
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
        crc32c(p + NVME_SAVED_HEADER, len - NVME_SAVED_HEADER))
        return st_err_set(err, EINVAL,
                          "the saved controller is damaged: its checksum is "
                          "wrong");
    memset(out, 0, sizeof(*out));
    c.p = (uint8_t *)(uintptr_t)p;
    walk(&c, out);
    if (c.bad || c.at != len || le32_get(head[3]))
        return st_err_set(err, EINVAL,
                          "the saved controller's values make no sense");
    return st_nvme_saved_check(out, false, err);
}
