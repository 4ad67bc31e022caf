/* SPDX-License-Identifier: MIT
 *
 * What a record of fuzz_nvme.c does: commands, of every kind and many at a
 * time; queues, registers and memory; what the host and the disks do.
 */
#ifndef FUZZ_NVME_RECORDS_H
#define FUZZ_NVME_RECORDS_H

#include "fuzz_nvme_guest.h"

struct record {
    uint8_t op, a, b, c;
    uint32_t d;
};

/* An address in piece I. */
static inline uint64_t
place(struct guest *g, unsigned i, uint32_t offset)
{
    if (i % PIECES == 0)
        g->honest = false; /* into its own rings */
    return piece[i % PIECES].gpa + offset % (64 * K);
}

/* Where E's LEN bytes are: SEL and D say how, and many ways are wrong. */
static inline void
point(struct guest *g, struct nvme_sqe *e, unsigned sel, uint32_t len,
      uint32_t d)
{
    uint64_t data = DATA + d % 64 * PAGE;
    uint64_t list = LISTS + (d >> 6) % 16 * PAGE;
    uint32_t offset = d >> 10;
    struct nvme_sgl_desc sgl = {.address = le64_of(list),
                                .length = le32_of(offset % 256 * 16)};

    e->prp1 = le64_of(data + offset % 1024 * 4);
    e->prp2 = le64_of(data + PAGE);
    switch (sel % 16) {
    case 4:
    case 5:
        e->prp2 = le64_of(list);
        break;
    case 6:
        e->prp2 = le64_of(list + offset % 512 * 8);
        break;
    case 7:
        e->prp2 = le64_of(list + offset % PAGE);
        break;
    case 8:
    case 9:
    case 10:
    case 11:
        e->flags |= 1 << NVME_PSDT_SHIFT;
        sgl.id = (uint8_t)(sel == 11 ? offset : sel << 4 & 0x30);
        if (sel == 8) {
            sgl.address = le64_of(data + offset % PAGE);
            sgl.length = le32_of(len);
        }
        e->sgl = sgl;
        break;
    case 12:
        e->prp1 = le64_of(place(g, d, d >> 3));
        e->prp2 = le64_of(place(g, d >> 19, d >> 22 << 12));
        break;
    case 13: /* across the end */
        e->prp1 = le64_of(place(g, d, UINT16_MAX));
        break;
    case 14:
        e->prp1 = e->prp2 = le64_of((uint64_t)d << 32 | d);
        break;
    case 15:
        e->prp2 = le64_of(place(g, d, d >> 3));
        break;
    }
}

/* ---- Commands ---- */

static inline void
put_or_wait(struct guest *g, unsigned qid, struct nvme_sqe e)
{
    if (put(g, qid, e) >= 0)
        return;
    tell(g, qid);
    steps(g, 16);
    reap(g, g->q[qid].cqid);
    put(g, qid, e);
}

/* Many of one kind, one behind the other. */
static inline void
io(struct guest *g, const struct record *r)
{
    static const uint8_t opcode[16] = {
        NVME_READ,        NVME_WRITE,        NVME_READ,          NVME_WRITE,
        NVME_FLUSH,       NVME_COMPARE,      NVME_WRITE_ZEROES,  NVME_DSM,
        NVME_VERIFY,      NVME_COPY,         NVME_RESV_REGISTER, 0x7f,
        NVME_RESV_REPORT, NVME_RESV_ACQUIRE, NVME_RESV_RELEASE,  NVME_COMPARE};
    enum { PAIR = 15 };
    unsigned qid = 1 + r->a % QUEUES, op = r->b % 16, fuse = r->a >> 6;
    bool dsm = opcode[op] == NVME_DSM, copy = opcode[op] == NVME_COPY;
    uint32_t n = r->c == 255 ? 2047 : r->c, lba = r->d >> 4 & 0x1ff;
    uint32_t shift = r->a >> 2 & 1 ? 12 : 9;

    for (unsigned i = 0; i <= r->d >> 26; i++) {
        struct nvme_sqe e = {
            .opcode = opcode[op],
            .flags = (uint8_t)fuse,
            .nsid = le32_of((r->a >> 2 & 0xf) == 15 ? NVME_NSID_ALL
                                                    : 1u + (r->a >> 2 & 7)),
            .cdw10 = le32_of(dsm ? r->c & 15 : lba),
            .cdw11 = le32_of(dsm ? 4 : r->c == 254),
            .cdw12 = le32_of(copy ? r->c & 15
                                  : n | (r->d >> 20 & 3) << 30 |
                                        (r->d >> 22 & 1) << 25),
        };

        point(g, &e, r->b >> 4, (n + 1) << shift, r->d);
        g->fused |= fuse != 0 || op == PAIR;
        if (g->fused && g->q[qid].sq_size == 2)
            g->honest = false; /* no pair fits, and its first waits */
        if (op == PAIR) {
            e.flags = (uint8_t)((e.flags & ~NVME_FUSE_MASK) | 1);
            put_or_wait(g, qid, e);
            e.opcode = NVME_WRITE;
            e.flags ^= 3;
        }
        put_or_wait(g, qid, e);
        lba += n + 1;
    }
    tell(g, qid);
}

/* The N-th identifier of a command that is under way, or just N. */
static inline uint32_t
some_command(const struct queue *q, uint32_t n)
{
    for (uint32_t i = 0, left = q->busy ? n % q->busy : 0; q->busy; i++)
        if (q->live[i % CIDS] == COMMAND && !left--)
            return i % CIDS;
    return n;
}

static inline void
admin(struct guest *g, const struct record *r)
{
    static const uint8_t opcode[16] = {NVME_ADMIN_IDENTIFY,
                                       NVME_ADMIN_GET_LOG_PAGE,
                                       NVME_ADMIN_SET_FEATURES,
                                       NVME_ADMIN_GET_FEATURES,
                                       NVME_ADMIN_ABORT,
                                       NVME_ADMIN_ASYNC_EVENT,
                                       NVME_ADMIN_FORMAT,
                                       NVME_ADMIN_IDENTIFY,
                                       NVME_ADMIN_CREATE_CQ,
                                       NVME_ADMIN_CREATE_SQ,
                                       NVME_ADMIN_DELETE_CQ,
                                       NVME_ADMIN_DELETE_SQ,
                                       NVME_ADMIN_DOORBELL_BUFFER,
                                       0x18,
                                       0x0d,
                                       0xc1};
    struct nvme_sqe e = {
        .opcode = opcode[r->a % 16],
        .nsid = le32_of(r->a >> 4 == 15 ? NVME_NSID_ALL : r->a >> 4),
        .cdw10 = le32_of(r->c | r->d << 8),
        .cdw11 = le32_of(r->d >> 8),
        .cdw12 = le32_of(r->b & 8 ? r->d : 0),
    };

    point(g, &e, r->b >> 4, PAGE, r->d);
    switch (e.opcode) {
    case NVME_ADMIN_ABORT:
        e.cdw10 = le32_of(
            (r->c & 7) |
            (r->b & 1 ? some_command(&g->q[r->c % (QUEUES + 1)], r->d) : r->d)
                << 16);
        break;
    case NVME_ADMIN_FORMAT:
        e.cdw10 = le32_of(r->c << 8);
        break;
    case NVME_ADMIN_CREATE_CQ:
    case NVME_ADMIN_CREATE_SQ:
        e.cdw10 = le32_of((r->c & 7) | (r->d & 63) << 16);
        e.cdw11 = le32_of((r->c >> 3) | (r->d >> 6 & 7) << 16);
        e.prp1 = le64_of(
            r->b & 8 ? place(g, r->d >> 9, r->d >> 12)
                     : ring(r->c & 7, e.opcode == NVME_ADMIN_CREATE_CQ));
        break;
    }
    if (r->a % 16 >= 8)
        g->honest = false; /* behind the driver's back */
    put_or_wait(g, 0, e);
    tell(g, 0);
}

/* A whole entry, which the records that follow are. */
static inline void
raw(struct guest *g, const struct record *r, const uint8_t *entry)
{
    unsigned qid = r->a % (QUEUES + 1);
    struct queue *q = &g->q[qid];

    if (!q->sq_size)
        return;
    g->honest = false;
    g->fused = true;
    memcpy(at(ring(qid, false) + q->tail * 64, 64), entry, 64);
    q->tail = (q->tail + 1) % q->sq_size;
    tell(g, qid);
}

/* Queues are made and deleted, as a driver does it. */
static inline void
queues(struct guest *g, const struct record *r)
{
    unsigned qid = 1 + r->a % QUEUES, cqid = g->q[qid].cqid;
    struct nvme_sqe e = {.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = le32_of(qid)};

    if (r->b & 1) {
        make_pair(g, qid, 2 + r->c % 63, 2 + r->d % 63,
                  r->b & 2 ? 1 + (r->d >> 6) % QUEUES : qid);
    } else if (g->q[qid].sq_size && carry_out(g, 0, e) == NVME_OK) {
        reap(g, cqid); /* what was posted before */
        g->q[qid].sq_size = g->q[qid].busy = 0;
        memset(g->q[qid].live, 0, sizeof(g->q[qid].live));
        e.opcode = NVME_ADMIN_DELETE_CQ;
        if (cqid == qid && carry_out(g, 0, e) == NVME_OK)
            g->q[qid].cq_size = 0;
    }
}

/* ---- Registers, memory ---- */

static inline void
registers(struct guest *g, const struct record *r)
{
    unsigned offset = r->c | (unsigned)r->b << 8, len = 1u << (r->a & 3);
    bool write = r->a & 4;

    if (r->a & 16) { /* configuration space */
        g->honest &= !write;
        if (write)
            st_pci_config_write(g->pci, offset % ST_PCI_CONFIG, 1 + (r->a & 3),
                                r->d);
        else
            st_pci_config_read(g->pci, offset, 1 + (r->a & 3));
        return;
    }
    if (r->a & 32)
        offset &= 0x3f; /* where the registers are */
    if (write && !(r->a & 8) && (offset & ~7u) != NVME_REG_INTMS - 4)
        g->honest = false;
    if (reg_access(g, r->a & 8 ? 4 : 0, offset, len, write,
                   (uint64_t)r->d << 32 | r->d) > UINT32_MAX &&
        !write)
        MUST(len == 8);
}

static inline void
poke(struct guest *g, const struct record *r)
{
    for (unsigned i = 0; i <= r->a >> 3; i++) {
        uint8_t *to =
            at(place(g, r->a, (r->c | (uint32_t)r->b << 8) * 4 + i * 4), 4);

        if (to)
            memcpy(to, &r->d, 4);
    }
}

/* Entry C of list A: B says what it is. */
static inline void
list(struct guest *g, const struct record *r)
{
    uint64_t page = LISTS + r->a % 16 * PAGE;
    uint64_t address = place(g, r->d >> 29, r->d);
    struct nvme_sgl_desc s = {.address = le64_of(address),
                              .length = le32_of(r->d >> 16 & 0x1fff),
                              .id = (uint8_t)(r->b & 0x33)};
    le64 prp = le64_of(r->b & 4 ? address : address & -UINT64_C(4096));

    if (r->b & 8)
        memcpy(at(page + r->c * 16, 16), &s, 16);
    else
        memcpy(at(page + (r->c | (r->a & 16) << 4) * 8, 8), &prp, 8);
}

/* ---- The host ---- */

/* By A: namespaces come, go and change; disks hang and fail; the controller is
 * saved; faults. */
static inline void
host(struct guest *g, const struct record *r)
{
    static const char *const rules[] = {
        "{'on':'io.sqe','every':3,'do':'stuck'}",
        "{'on':'io.cqe','every':2,'do':{'delay':'2ms'}}",
        "{'on':'io.sqe','every':5,'do':{'stall':'1ms'}}",
        "{'on':'io.cqe','every':3,'do':'reorder'}",
        "{'on':'io.cqe','every':3,'do':'duplicate'}",
        "{'on':'io.sqe','every':4,'do':'drop'}",
        "{'on':'io.cqe','after':5,'do':'cfs'}",
        "{'on':'io.cqe','after':5,'do':'gone'}",
        "{'on':'enable','do':'stuck'}",
        "{'on':'admin.cqe','every':2,'do':'wrong-phase'}",
        "{'on':'admin.sqe','every':3,'do':'stuck'}",
        "{'on':'io.sqe','opcode':'write','do':{'torn':1}}",
    };
    char text[128];
    unsigned i;

    switch (r->a % 8) {
    case 0:
        st_nvme_add_namespace(g->nvme, r->c % (NN + 2), g->disk[r->b % DISKS],
                              r->b & 2, NULL, NULL);
        break;
    case 1:
        if (!g->calling)
            st_nvme_remove_namespace(g->nvme, r->c % (NN + 2), r->d, &g->call);
        g->calling = true;
        break;
    case 2:
        if (!g->editing)
            st_disk_resize_within(g->disk[r->b % DISKS], (8 + r->d % 57) * PAGE,
                                  1000000, &g->edit);
        g->editing = true;
        break;
    case 3:
        st_testnode_hang(g->node[r->b % DISKS], r->b & 2);
        st_testnode_cancellable(g->node[r->b % DISKS], r->b & 4);
        break;
    case 4:
        st_testnode_fail(g->node[r->b % DISKS], r->d, r->c % 12, r->b);
        break;
    case 5:
        if (!g->calling)
            st_nvme_save(g->nvme, r->d, &g->blob, &g->blob_len, &g->call);
        g->calling = true;
        break;
    case 6:
        snprintf(text, sizeof(text), "{'rules':[%s]}",
                 rules[r->b % (sizeof(rules) / sizeof(rules[0]))]);
        for (i = 0; text[i]; i++)
            text[i] = text[i] == '\'' ? '"' : text[i];
        MUST(st_nvme_set_faults(g->nvme, text, NULL) == 0);
        g->honest = false;
        break;
    case 7:
        st_nvme_release_faults(g->nvme);
        break;
    }
}

#endif
