/* SPDX-License-Identifier: MIT
 *
 * The guest of fuzz_nvme.c: memory in pieces, a driver that keeps count of its
 * commands, and disks. On virtual loops, so that an input is a run.
 *
 *   piece  0  0x00010000   64 KiB   rings: queue n has 8 KiB from n * 8 KiB on
 *          1  0x00020000   64 KiB   lists of PRPs and of SGL descriptors
 *          2  0x00100000  128 KiB   data
 *          3  0x00120000  128 KiB   data, right behind
 *          4  0x80000000   64 KiB   data, elsewhere
 *          5  0x90000000   64 KiB   to be read only
 *          6  0xa0000000   64 KiB   is there, and cannot be reached
 *          7  2^64 - 128 KiB        64 KiB at the end of all addresses
 */
#ifndef FUZZ_NVME_GUEST_H
#define FUZZ_NVME_GUEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nvme.h"
#include "nvme_spec.h"
#include "range.h"
#include "testnode.h"

#define MUST(what)                                                             \
    do {                                                                       \
        if (!(what)) {                                                         \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #what);         \
            abort();                                                           \
        }                                                                      \
    } while (0)

enum { K = 1 << 10, PAGE = 4 * K, RINGS = 64 * K, LISTS = 128 * K };
#define DATA UINT64_C(0x100000)

static const struct piece {
    uint64_t gpa, len;
    bool writable, there;
} piece[] = {
    {RINGS, 64 * K, true, true},
    {LISTS, 64 * K, true, true},
    {DATA, 128 * K, true, true},
    {DATA + 128 * K, 128 * K, true, true},
    {UINT64_C(0x80000000), 64 * K, true, true},
    {UINT64_C(0x90000000), 64 * K, false, true},
    {UINT64_C(0xa0000000), 64 * K, true, false},
    {-UINT64_C(128) * K, 64 * K, true, true},
};

enum {
    PIECES = sizeof(piece) / sizeof(piece[0]),
    RAM = 640 * K,
    QUEUES = 4, /* I/O queue pairs */
    VECTORS = 4,
    LOOPS = 2,
    DISKS = 2,
    DISK = 256 * K, /* bytes */
    NN = 4,
    CIDS = 256,
    NEVER = 2000000, /* steps in which what has to happen has happened */
};

/* A queue pair, as the driver has it. */
struct queue {
    uint32_t sq_size, tail, told, sq_head, cq_size, head;
    uint16_t cqid;
    uint8_t cid;
    bool phase;
    unsigned busy; /* of live, those that are COMMAND */
    enum { FREE, COMMAND, EVENT } live[CIDS];
};

struct guest {
    struct st_domain *domain;
    struct st_loop *home, *loop[LOOPS];
    struct st_gmem *gmem;
    struct st_nvme *nvme;
    struct st_pci *pci;
    struct st_pci_host host;
    struct st_node *node[DISKS];
    struct st_disk *disk[DISKS];
    bool mapped[PIECES], leaving[PIECES];
    struct st_gmem_unmap unmap[PIECES];
    struct queue q[QUEUES + 1];
    uint8_t *db; /* mapped doorbells, or NULL */
    uint64_t db_size, shadow;
    bool honest; /* the driver has kept to the rules */
    bool fused;  /* a first of a pair may wait for ever */
    struct st_access reset;
    bool resetting, tick;
    struct st_timer timer;
    struct st_nvme_call call;
    struct st_edit edit;
    bool calling, editing;
    int rc; /* of the last call */
    void *blob;
    size_t blob_len;
    struct st_inspect look;
    unsigned number; /* of the queue that inspect is at */
    uint64_t commands, in_flight[QUEUES + 1];
};

static uint8_t ram[RAM] __attribute__((aligned(4096)));

/* ---- Memory, time ---- */

/* The guest's address AT, or NULL: only where it has memory of its own. */
static inline uint8_t *
at(uint64_t gpa, size_t len)
{
    uint8_t *host = ram;

    for (unsigned i = 0; i < PIECES; i++) {
        if (gpa >= piece[i].gpa && gpa - piece[i].gpa <= piece[i].len - len)
            return piece[i].there ? host + (gpa - piece[i].gpa) : NULL;
        host += piece[i].there ? piece[i].len : 0;
    }
    return NULL;
}

static inline void
map(struct guest *g, unsigned i)
{
    struct st_gmem_map m = {.gpa = piece[i].gpa,
                            .len = piece[i].len,
                            .host = at(piece[i].gpa, 1),
                            .writable = piece[i].writable};

    if (!g->mapped[i])
        MUST(st_gmem_map(g->gmem, &m) == 0);
    g->mapped[i] = true;
}

static inline void
unmapped(struct st_gmem_unmap *u)
{
    *(bool *)u->arg = false;
}

static inline void
unmap(struct guest *g, unsigned i)
{
    if (!g->mapped[i] || g->leaving[i])
        return;
    g->unmap[i].done = unmapped;
    g->unmap[i].arg = &g->leaving[i];
    g->leaving[i] = true;
    g->mapped[i] = false;
    MUST(st_gmem_unmap(g->gmem, piece[i].gpa, piece[i].len, &g->unmap[i]) == 0);
}

static inline void
steps(struct guest *g, unsigned n)
{
    while (n-- && st_domain_step(g->domain))
        ;
}

static inline void
ticked(struct st_timer *t)
{
    st_container(t, struct guest, timer)->tick = true;
}

#define UNTIL(g, what)                                                         \
    for (unsigned turns_ = 0; !(what); turns_++) {                             \
        MUST(turns_ < NEVER);                                                  \
        st_domain_step((g)->domain);                                           \
    }

static inline void
pass(struct guest *g, uint64_t ns)
{
    /* A loop that does nothing does not know the time: it looks first. */
    for (unsigned i = 0; i < 2; i++) {
        g->tick = false;
        g->timer.fire = ticked;
        st_timer_set(g->home, &g->timer, i ? g->home->now + ns : 0);
        UNTIL(g, g->tick)
    }
}

/* ---- Registers ---- */

static inline uint64_t
reg_access(struct guest *g, unsigned bar, uint64_t offset, unsigned len,
           bool write, uint64_t value)
{
    struct st_access a = {
        .offset = offset, .len = len, .write = write, .value = value};

    MUST(st_pci_access(g->pci, bar, &a));
    return a.value;
}

static inline uint32_t
reg(struct guest *g, uint64_t offset)
{
    return (uint32_t)reg_access(g, 0, offset, 4, false, 0);
}

static inline void
reg_write(struct guest *g, uint64_t offset, uint64_t value)
{
    reg_access(g, 0, offset,
               offset == NVME_REG_ASQ || offset == NVME_REG_ACQ ? 8 : 4, true,
               value);
}

static inline void
reset_done(struct st_access *a)
{
    st_container(a, struct guest, reset)->resetting = false;
}

static inline void
host_reset(struct guest *g)
{
    if (g->resetting)
        return;
    g->resetting = true;
    g->reset = (struct st_access){.done = reset_done};
    if (st_pci_reset(g->pci, &g->reset))
        g->resetting = false;
    memset(g->q, 0, sizeof(g->q));
    g->shadow = 0;
}

/* ---- Queues ---- */

static inline uint64_t
ring(unsigned qid, bool cq)
{
    return RINGS + qid * 2 * PAGE + (cq ? PAGE : 0);
}

/* Doorbell I becomes NEW: into the shadow, by Linux's rule, or the register. */
static inline void
bell(struct guest *g, unsigned i, uint32_t old, uint32_t new)
{
    if (g->db && i * 4 < g->db_size) {
        memcpy(g->db + i * 4, &new, 4);
        return;
    }
    if (g->shadow && i >= 2) {
        uint32_t event;

        memcpy(at(g->shadow + i * 4, 4), &new, 4);
        memcpy(&event, at(g->shadow + PAGE + i * 4, 4), 4);
        if ((uint16_t)(new - event - 1) >= (uint16_t)(new - old))
            return;
    }
    reg_write(g, NVME_REG_DOORBELLS + i * 4, new);
}

/* Entries can still be put: none that is not fetched is written over. */
static inline bool
has_room(const struct queue *q)
{
    return q->sq_size && (q->tail + 1) % q->sq_size != q->sq_head;
}

/* Put E into queue QID, without telling. Its identifier, or -1. */
static inline int
put(struct guest *g, unsigned qid, struct nvme_sqe e)
{
    struct queue *q = &g->q[qid];

    for (unsigned i = 0; q->live[q->cid] != FREE && i < CIDS; i++)
        q->cid++;
    if (!has_room(q) || q->live[q->cid] != FREE)
        return -1;
    e.cid = le16_of(q->cid);
    memcpy(at(ring(qid, false) + q->tail * 64, 64), &e, 64);
    q->tail = (q->tail + 1) % q->sq_size;
    q->live[q->cid] =
        !qid && e.opcode == NVME_ADMIN_ASYNC_EVENT ? EVENT : COMMAND;
    q->busy += q->live[q->cid] == COMMAND;
    return q->cid++;
}

static inline void
tell(struct guest *g, unsigned qid)
{
    struct queue *q = &g->q[qid];

    if (q->tail != q->told)
        bell(g, 2 * qid, q->told, q->tail);
    q->told = q->tail;
}

/* Take one completion of queue QID, if there is one. */
static inline bool
take(struct guest *g, unsigned qid, struct nvme_cqe *e)
{
    struct queue *q = &g->q[qid], *sq;
    unsigned sqid, cid;

    if (!q->cq_size)
        return false;
    memcpy(e, at(ring(qid, true) + q->head * 16, 16), 16);
    if ((le16_get(e->status) & 1) != q->phase)
        return false;
    q->head = (q->head + 1) % q->cq_size;
    q->phase ^= q->head == 0;
    sqid = le16_get(e->sqid);
    cid = le16_get(e->cid);
    if (g->honest) { /* it is of a command that waits for one */
        MUST(sqid <= QUEUES && g->q[sqid].cqid == qid && cid < CIDS);
        MUST(g->q[sqid].live[cid] != FREE);
        MUST(le16_get(e->sqhd) < g->q[sqid].sq_size);
    }
    if (sqid <= QUEUES && cid < CIDS) {
        sq = &g->q[sqid];
        sq->busy -= sq->live[cid] == COMMAND;
        sq->live[cid] = FREE;
        if (le16_get(e->sqhd) < sq->sq_size)
            sq->sq_head = le16_get(e->sqhd);
    }
    return true;
}

static inline void
reap(struct guest *g, unsigned qid)
{
    uint32_t old = g->q[qid].head;
    struct nvme_cqe e;

    /* A hostile queue may be full of entries that look new. */
    for (unsigned i = 0; i < PAGE / 16 && take(g, qid, &e); i++)
        ;
    if (g->q[qid].head != old)
        bell(g, 2 * qid + 1, old, g->q[qid].head);
}

/* Carry E out on queue QID. The status; or -1: it takes too long, and the
 * driver has lost count. Other completions are taken, too. */
static inline int
carry_out(struct guest *g, unsigned qid, struct nvme_sqe e)
{
    struct queue *q = &g->q[qid];
    int cid = put(g, qid, e);

    tell(g, qid);
    for (unsigned i = 0; cid >= 0 && i < 3000; i++) {
        uint32_t old = q->head;
        struct nvme_cqe c;

        if (!take(g, qid, &c)) {
            st_domain_step(g->domain);
            continue;
        }
        bell(g, 2 * qid + 1, old, q->head);
        if (le16_get(c.cid) == cid)
            return le16_get(c.status) >> 1 & 0x7ff;
    }
    g->honest = false;
    return -1;
}

/* ---- Bringing it up ---- */

static inline void
power(struct guest *g)
{
    st_pci_config_write(g->pci, 4, 2, 6);
    st_pci_config_write(g->pci, g->pci->msix + 2, 2, 0x8000);
    for (unsigned v = 0; v < VECTORS; v++)
        reg_access(g, 4, v * 16 + 12, 4, true, 0);
}

static inline void
queue_begin(struct guest *g, unsigned qid, uint32_t sq, uint32_t cq)
{
    struct queue *q = &g->q[qid];

    if (sq) {
        q->sq_size = sq;
        q->busy = 0;
        q->tail = q->told = q->sq_head = 0;
        memset(q->live, 0, sizeof(q->live));
    }
    if (cq) {
        q->cq_size = cq;
        q->head = 0;
        q->phase = true;
        memset(at(ring(qid, true), PAGE), 0, PAGE);
    }
}

/* Off and on again. RDY? */
static inline bool
enable(struct guest *g, unsigned entries)
{
    const uint32_t cc = 6 << NVME_CC_IOSQES_SHIFT | 4 << NVME_CC_IOCQES_SHIFT;

    memset(g->q, 0, sizeof(g->q));
    g->shadow = 0;
    power(g);
    reg_write(g, NVME_REG_CC, 0);
    UNTIL(g, !(reg(g, NVME_REG_CSTS) & NVME_CSTS_RDY) ||
                 reg(g, NVME_REG_CSTS) == UINT32_MAX)
    queue_begin(g, 0, entries, entries);
    reg_write(g, NVME_REG_AQA, (entries - 1) << 16 | (entries - 1));
    reg_write(g, NVME_REG_ASQ, ring(0, false));
    reg_write(g, NVME_REG_ACQ, ring(0, true));
    reg_write(g, NVME_REG_CC, cc | NVME_CC_EN);
    for (unsigned i = 0; i < 3000; i++)
        if (reg(g, NVME_REG_CSTS) & (NVME_CSTS_RDY | NVME_CSTS_CFS))
            break;
        else
            st_domain_step(g->domain);
    return reg(g, NVME_REG_CSTS) == NVME_CSTS_RDY;
}

/* Make queue pair QID; its submission queue posts to CQID. */
static inline bool
make_pair(struct guest *g, unsigned qid, uint32_t sq, uint32_t cq,
          unsigned cqid)
{
    struct nvme_sqe c = {.opcode = NVME_ADMIN_CREATE_CQ,
                         .prp1 = le64_of(ring(qid, true)),
                         .cdw10 = le32_of((cq - 1) << 16 | qid),
                         .cdw11 = le32_of(qid % VECTORS << 16 | 3)};
    struct nvme_sqe s = {.opcode = NVME_ADMIN_CREATE_SQ,
                         .prp1 = le64_of(ring(qid, false)),
                         .cdw10 = le32_of((sq - 1) << 16 | qid),
                         .cdw11 = le32_of(cqid << 16 | 1)};

    if (!g->q[qid].cq_size) {
        queue_begin(g, qid, 0, cq);
        if (carry_out(g, 0, c) != NVME_OK) {
            g->q[qid].cq_size = 0;
            return false;
        }
    }
    if (g->q[qid].sq_size || carry_out(g, 0, s) != NVME_OK)
        return false;
    queue_begin(g, qid, sq, 0);
    g->q[qid].cqid = (uint16_t)cqid;
    return true;
}

/* Doorbell Buffer Config, with two pages behind the rings. */
static inline void
shadow(struct guest *g)
{
    uint64_t page = RINGS + 48 * K;
    struct nvme_sqe e = {.opcode = NVME_ADMIN_DOORBELL_BUFFER,
                         .prp1 = le64_of(page),
                         .prp2 = le64_of(page + PAGE)};

    if (g->q[0].sq_size && carry_out(g, 0, e) == NVME_OK)
        g->shadow = page;
}

/* ---- What inspect says ---- */

static inline void
look_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct guest *g = st_container(v, struct guest, look);

    if (strcmp(name, "commands") == 0)
        g->commands = value;
    else if (strcmp(name, "in_flight") == 0 && g->number <= QUEUES)
        g->in_flight[g->number] = value;
}

static inline void
look_text(struct st_inspect *v, const char *name, const char *value)
{
    (void)v;
    (void)name;
    (void)value;
}

static inline void
look_enter(struct st_inspect *v, const char *name)
{
    st_container(v, struct guest, look)->number =
        (unsigned)strtoul(name, NULL, 10);
}

static inline void
look_leave(struct st_inspect *v)
{
    (void)v;
}

static inline void
look(struct guest *g)
{
    g->look = (struct st_inspect){look_u64, look_text, look_enter, look_leave};
    memset(g->in_flight, 0, sizeof(g->in_flight));
    st_nvme_inspect(g->nvme, &g->look);
}

static inline void
called(struct st_nvme_call *c, int rc)
{
    struct guest *g = st_container(c, struct guest, call);

    g->calling = false;
    g->rc = rc;
    free(g->blob);
    g->blob = NULL;
}

static inline void
edited(struct st_edit *e, int rc)
{
    (void)rc;
    st_container(e, struct guest, edit)->editing = false;
}

/* ---- Life ---- */

static inline void
msix(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    (void)h;
    (void)v;
    (void)address;
    (void)data;
}

/* Lists that name the data, page by page, and ranges of blocks in the data. */
static inline void
lists_make(void)
{
    for (unsigned i = 0; i < 8 * 512; i++) {
        le64 prp = le64_of(i % 512 == 511 ? LISTS + (i / 512 + 1) * PAGE
                                          : DATA + i * 7 % 64 * PAGE);

        memcpy(at(LISTS + i * 8, 8), &prp, 8);
    }
    for (unsigned i = 8 * 256; i < 15 * 256; i++) {
        bool end = i % 256 == 255;
        struct nvme_sgl_desc s = {.address =
                                      le64_of(end ? LISTS + (i / 256 + 1) * PAGE
                                                  : DATA + i % 64 * PAGE),
                                  .length = le32_of(end ? 256 : i % 8 * 512),
                                  .id = end ? NVME_SGL_LAST_SEGMENT << 4 : 0};

        memcpy(at(LISTS + i * 16, 16), &s, 16);
    }
    for (unsigned i = 0; i < 64; i++) {
        le64 range[4] = {le64_of((uint64_t)i << 32), le64_of(i * 8),
                         le64_of((uint64_t)i << 32 | i), le64_of(i)};

        memcpy(at(DATA + i % 8 * 32 + i / 8 * PAGE, 32), range, 32);
    }
}

/* Memory is the same at every start. */
static inline void
memory(void)
{
    static uint8_t start[RAM];
    static bool made;

    if (!made) {
        lists_make();
        memcpy(start, ram, RAM);
        made = true;
    }
    memcpy(ram, start, RAM);
}

static inline void
create(struct guest *g, const uint8_t *how)
{
    struct st_domain_opts domain = {.engine = "virtual", .seed = how[1]};
    struct st_nvme_opts o = {.gmem = NULL,
                             .nloops = 1 + how[0] % LOOPS,
                             .loops = g->loop,
                             .queues = QUEUES,
                             .vectors = VECTORS,
                             .entries = 64,
                             .namespaces = NN,
                             .intx = how[0] & 2,
                             .mapped = how[0] & 4,
                             .poll_us = how[0] & 8 ? 50 : 0};

    MUST(st_domain_create(&domain, &g->domain, NULL) == 0);
    MUST(st_loop_create(g->domain, &g->home, NULL) == 0);
    for (unsigned i = 0; i < LOOPS; i++)
        MUST(st_loop_create(g->domain, &g->loop[i], NULL) == 0);
    MUST(g->gmem = st_gmem_create(g->home));
    memory();
    for (unsigned i = 0; i < PIECES; i++)
        map(g, i);
    o.home = g->home;
    o.gmem = g->gmem;
    MUST(st_nvme_create(&o, &g->nvme, NULL) == 0);
    g->pci = st_nvme_pci(g->nvme);
    g->host.msix = msix;
    g->pci->host = &g->host;
    if (o.mapped) {
        int fd = st_nvme_doorbells(g->nvme, &g->db_size);

        g->db = mmap(NULL, g->db_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                     PAGE);
        MUST(g->db != MAP_FAILED);
    }
    for (unsigned i = 0; i < DISKS; i++) {
        struct st_testnode_opts disk = {.size = DISK,
                                        .sector = i ? 4096 : 512,
                                        .unmap = ST_UNMAP_ZEROES,
                                        .fua = how[0] & 16,
                                        .async = how[0] & 32,
                                        .seed = how[1],
                                        .strict = true};

        MUST(st_testnode_create(g->home, &disk, &g->node[i], NULL) == 0);
        MUST(st_disk_create(g->home, g->node[i], "disk", false, &g->disk[i],
                            NULL) == 0);
        MUST(st_nvme_add_namespace(g->nvme, i + 1, g->disk[i], false, NULL,
                                   NULL) == 0);
    }
    g->call.done = called;
    g->edit.done = edited;
    g->honest = true;
    if (how[0] & 64 && enable(g, 2 + how[2] % 63))
        for (unsigned i = 1; i <= how[3] % (QUEUES + 1); i++)
            make_pair(g, i, 2 + how[4] % 63, 2 + how[5] % 63,
                      1 + (how[0] & 128 ? 0 : i - 1));
    if (how[6] & 1 && !o.mapped)
        shadow(g);
}

static inline void
destroy(struct guest *g)
{
    g->calling = true;
    st_nvme_stop(g->nvme, UINT64_C(30000000000), &g->call);
    UNTIL(g, !g->calling)
    MUST(g->rc == 0);
    for (unsigned i = 0; i < DISKS; i++)
        UNTIL(g, st_disk_deserted(g->disk[i]))
    for (unsigned i = 0; i < PIECES; i++)
        UNTIL(g, !g->leaving[i])
    steps(g, 50);
    look(g);
    if (g->db)
        munmap(g->db, g->db_size);
    st_nvme_destroy(g->nvme);
    for (unsigned i = 0; i < DISKS; i++)
        st_disk_destroy(g->disk[i]);
    steps(g, 50);
    st_gmem_destroy(g->gmem);
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_destroy(g->loop[i]);
    st_timer_stop(g->home, &g->timer);
    st_loop_destroy(g->home);
    st_domain_destroy(g->domain);
}

#endif
