/* SPDX-License-Identifier: MIT
 *
 * A rig for tests of a whole controller: a host that drives it register by
 * register, in process, on virtual loops or on real ones, and a small driver.
 *
 *   RAM, in three maps of the guest's addresses:
 *     0x00010000  512 KiB   queues and lists
 *     0x00100000  2 MiB     data
 *     0x80000000  2 MiB     data, elsewhere, too
 *
 * In a virtual domain the test's thread turns all loops; else the home loop is
 * the test's thread, and I/O loops have threads.
 */
#ifndef TEST_NVME_RIG_H
#define TEST_NVME_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kit.h"
#include "nvme.h"
#include "nvme_page.h"
#include "rand.h"
#include "range.h"
#include "testnode.h"

#define RIG_LOW     UINT64_C(0x10000)
#define RIG_DATA    UINT64_C(0x100000)
#define RIG_HIGH    UINT64_C(0x80000000)
#define RIG_NOWHERE UINT64_C(0x40000000)

enum {
    RIG_LOW_SIZE = 512 << 10,
    RIG_DATA_SIZE = 2 << 20,
    RIG_QUEUES = 8,
    RIG_LOOPS = 4,
    RIG_VECTORS = 64,
    RIG_DISK = 1 << 20, /* bytes */
    RIG_ENTRIES = 64,   /* of an I/O queue */
};

/* What a test says; zeroes are defaults. */
struct rig_opts {
    unsigned loops;     /* 1 */
    const char *engine; /* "virtual" */
    uint64_t seed;
    struct st_nvme_opts nvme;
    struct st_testnode_opts disk;
    bool no_disk;
    unsigned admin_entries; /* 32 */
};

/* A queue pair, as the driver has it. */
struct rig_queue {
    uint64_t sq, cq;
    uint32_t sq_size, cq_size, tail, head;
    bool phase;
    uint16_t cid;
    bool made;
};

struct rig {
    struct st_domain *domain;
    struct st_loop *home, *loop[RIG_LOOPS];
    unsigned nloops;
    bool threads;
    struct st_gmem *gmem;
    uint8_t *ram;
    struct st_nvme *nvme;
    struct st_pci *pci;
    struct st_pci_host host;
    _Atomic unsigned msix[RIG_VECTORS];
    _Atomic bool level;
    struct st_node *node;
    struct st_disk *disk;
    struct rig_queue q[RIG_QUEUES];
    uint64_t shadow, event; /* pages; 0: registers only */
    _Atomic unsigned rings; /* register writes of doorbells of I/O queues */
    bool tick;
    struct st_timer timer;
    unsigned admin_entries;
};

/* ---- Memory ---- */

static inline void *
rig_at(struct rig *r, uint64_t gpa)
{
    if (gpa >= RIG_HIGH)
        return r->ram + RIG_LOW_SIZE + RIG_DATA_SIZE + (gpa - RIG_HIGH);
    if (gpa >= RIG_DATA)
        return r->ram + RIG_LOW_SIZE + (gpa - RIG_DATA);
    return r->ram + (gpa - RIG_LOW);
}

static inline void
rig_map(struct rig *r, uint64_t gpa, uint64_t len)
{
    struct st_gmem_map m = {
        .gpa = gpa, .len = len, .host = rig_at(r, gpa), .writable = true};

    assert_int_equal(st_gmem_map(r->gmem, &m), 0);
}

/* ---- Time ---- */

static inline void
rig_ticked(struct st_timer *t)
{
    st_container(t, struct rig, timer)->tick = true;
}

/* Let something happen. */
static inline void
rig_step(struct rig *r)
{
    if (!r->threads) {
        st_domain_step(r->domain);
        return;
    }
    r->tick = false;
    r->timer.fire = rig_ticked;
    st_timer_set(r->home, &r->timer, r->home->now + 20000);
    st_loop_wait(r->home, &r->tick);
}

static inline void
rig_steps(struct rig *r, unsigned n)
{
    while (n--)
        rig_step(r);
}

/* Nanoseconds pass, in a virtual domain. */
static inline void
rig_pass(struct rig *r, uint64_t ns)
{
    r->tick = false;
    r->timer.fire = rig_ticked;
    st_timer_set(r->home, &r->timer, r->home->now + ns);
    while (!r->tick)
        assert_true(st_domain_step(r->domain));
}

#define rig_until(r, cond)                                                     \
    do {                                                                       \
        unsigned rig_n = 0;                                                    \
        while (!(cond)) {                                                      \
            if (rig_n++ == 1000000)                                            \
                fail_msg("never: %s", #cond);                                  \
            rig_step(r);                                                       \
        }                                                                      \
    } while (0)

/* ---- Registers ---- */

static inline uint64_t
rig_read(struct rig *r, uint64_t at, unsigned len)
{
    struct st_access a = {.offset = at, .len = len};

    assert_true(st_pci_access(r->pci, 0, &a));
    return a.value;
}

static inline void
rig_write(struct rig *r, uint64_t at, unsigned len, uint64_t value)
{
    struct st_access a = {
        .offset = at, .len = len, .write = true, .value = value};

    assert_true(st_pci_access(r->pci, 0, &a));
}

static inline uint32_t
rig_csts(struct rig *r)
{
    return (uint32_t)rig_read(r, NVME_REG_CSTS, 4);
}

enum { RIG_CC = 6 << 16 | 4 << 20 };

/* ---- The host ---- */

static inline void
rig_msix(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    struct rig *r = st_container(h, struct rig, host);

    (void)address;
    (void)data;
    atomic_fetch_add(&r->msix[v % RIG_VECTORS], 1);
}

static inline void
rig_intx(struct st_pci_host *h, bool level)
{
    atomic_store(&st_container(h, struct rig, host)->level, level);
}

/* Memory, bus master, MSI-X with all vectors unmasked. */
static inline void
rig_pci_on(struct rig *r, bool msix)
{
    st_pci_config_write(r->pci, 4, 2, 6);
    if (!msix)
        return;
    st_pci_config_write(r->pci, r->pci->msix + 2, 2, 0x8000);
    for (unsigned v = 0; v < r->pci->vectors; v++) {
        struct st_access a = {
            .offset = v * 16 + 12, .len = 4, .write = true, .value = 0};

        assert_true(st_pci_access(r->pci, 4, &a));
    }
}

static inline struct rig *
rig_new(const struct rig_opts *o)
{
    static const struct st_guid guid = {
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};
    struct st_domain_opts d = {.engine = o->engine ? o->engine : "virtual",
                               .seed = o->seed};
    struct st_testnode_opts disk = o->disk;
    struct st_nvme_opts n = o->nvme;
    struct rig *r = calloc(1, sizeof(*r));
    struct st_err err;

    assert_non_null(r);
    r->nloops = o->loops ? o->loops : 1;
    r->threads = o->engine && strcmp(o->engine, "virtual");
    r->admin_entries = o->admin_entries ? o->admin_entries : 32;
    assert_int_equal(st_domain_create(&d, &r->domain, &err), 0);
    assert_int_equal(st_loop_create(r->domain, &r->home, &err), 0);
    for (unsigned i = 0; i < r->nloops; i++)
        assert_int_equal(st_loop_create(r->domain, &r->loop[i], &err), 0);
    r->gmem = st_gmem_create(r->home);
    assert_non_null(r->gmem);
    r->ram = st_pages_alloc(RIG_LOW_SIZE + 2 * RIG_DATA_SIZE);
    assert_non_null(r->ram);
    memset(r->ram, 0, RIG_LOW_SIZE + 2 * RIG_DATA_SIZE);
    rig_map(r, RIG_LOW, RIG_LOW_SIZE);
    rig_map(r, RIG_DATA, RIG_DATA_SIZE);
    rig_map(r, RIG_HIGH, RIG_DATA_SIZE);
    if (!o->no_disk) {
        if (!disk.size)
            disk.size = RIG_DISK;
        disk.fua = true;
        disk.unmap = ST_UNMAP_ZEROES;
        assert_int_equal(st_testnode_create(r->home, &disk, &r->node, &err), 0);
        assert_int_equal(
            st_disk_create(r->home, r->node, "disk", false, &r->disk, &err), 0);
    }
    n.home = r->home;
    n.loops = r->loop;
    n.nloops = r->nloops;
    n.gmem = r->gmem;
    n.subsystem = guid;
    if (!n.queues)
        n.queues = RIG_QUEUES - 1;
    assert_int_equal(st_nvme_create(&n, &r->nvme, &err), 0);
    r->pci = st_nvme_pci(r->nvme);
    r->host.msix = rig_msix;
    r->host.intx = rig_intx;
    r->pci->host = &r->host;
    rig_pci_on(r, !n.intx);
    if (r->disk)
        assert_int_equal(
            st_nvme_add_namespace(r->nvme, 1, r->disk, false, NULL, &err), 0);
    for (unsigned i = 0; i < r->nloops; i++)
        assert_int_equal(st_loop_start(r->loop[i], "nvme-test"), 0);
    return r;
}

static inline void
rig_called(struct st_nvme_call *c, int rc)
{
    *(int *)c->arg = rc;
}

static inline void
rig_edited(struct st_edit *e, int rc)
{
    *(int *)e->arg = rc;
}

enum { RIG_PENDING = 1000 };

static inline void
rig_free(struct rig *r)
{
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    if (r->node)
        st_testnode_hang(r->node, false);
    st_nvme_stop(r->nvme, UINT64_C(30000000000), &c);
    rig_until(r, rc != RIG_PENDING);
    assert_int_equal(rc, 0);
    if (r->disk)
        rig_until(r, st_disk_deserted(r->disk));
    rig_steps(r, 50);
    for (unsigned i = 0; i < r->nloops; i++)
        st_loop_join(r->loop[i]);
    st_nvme_destroy(r->nvme);
    if (r->disk)
        st_disk_destroy(r->disk);
    rig_steps(r, 50);
    st_gmem_destroy(r->gmem);
    for (unsigned i = 0; i < r->nloops; i++)
        st_loop_destroy(r->loop[i]);
    st_timer_stop(r->home, &r->timer);
    st_loop_destroy(r->home);
    st_domain_destroy(r->domain);
    free(r->ram);
    free(r);
}

/* ---- The driver ---- */

/* Where the rings of queue QID lie, by default. */
static inline uint64_t
rig_ring(unsigned qid, bool cq)
{
    return RIG_LOW + qid * 0x4000 + (cq ? 0x2000 : 0);
}

static inline void
rig_queue_reset(struct rig_queue *q, uint64_t sq, uint32_t sq_size, uint64_t cq,
                uint32_t cq_size)
{
    *q = (struct rig_queue){.sq = sq,
                            .cq = cq,
                            .sq_size = sq_size,
                            .cq_size = cq_size,
                            .phase = true,
                            .made = true};
}

/* EN = 1, and wait for RDY. */
static inline void
rig_enable(struct rig *r)
{
    unsigned n = r->admin_entries;

    memset(rig_at(r, rig_ring(0, true)), 0, n * 16);
    rig_queue_reset(&r->q[0], rig_ring(0, false), n, rig_ring(0, true), n);
    rig_write(r, NVME_REG_AQA, 4, (n - 1) << 16 | (n - 1));
    rig_write(r, NVME_REG_ASQ, 8, r->q[0].sq);
    rig_write(r, NVME_REG_ACQ, 8, r->q[0].cq);
    rig_write(r, NVME_REG_CC, 4, RIG_CC);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_until(r, rig_csts(r) & (NVME_CSTS_RDY | NVME_CSTS_CFS));
    assert_int_equal(rig_csts(r), NVME_CSTS_RDY);
}

static inline void
rig_disable(struct rig *r)
{
    rig_write(r, NVME_REG_CC, 4, RIG_CC);
    rig_until(r, !(rig_csts(r) & NVME_CSTS_RDY));
    for (unsigned i = 0; i < RIG_QUEUES; i++)
        r->q[i].made = false;
    r->shadow = r->event = 0;
}

/* Put E into queue QID's ring, without telling. Returns its identifier. */
static inline uint16_t
rig_put(struct rig *r, unsigned qid, struct nvme_sqe e)
{
    struct rig_queue *q = &r->q[qid];

    e.cid = le16_of(q->cid);
    memcpy(rig_at(r, q->sq + q->tail * 64), &e, sizeof(e));
    q->tail = (q->tail + 1) % q->sq_size;
    return q->cid++;
}

static inline _Atomic uint32_t *
rig_word(struct rig *r, uint64_t page, unsigned i)
{
    return (_Atomic uint32_t *)rig_at(r, page + i * 4);
}

/* Doorbell I becomes NEW, which was OLD: as Linux does it. */
static inline void
rig_bell(struct rig *r, unsigned i, uint32_t old, uint32_t new)
{
    if (r->shadow && i >= 2) {
        uint16_t event;

        atomic_store(rig_word(r, r->shadow, i), new);
        event = (uint16_t)atomic_load(rig_word(r, r->event, i));
        if (!((uint16_t)(new - event - 1) < (uint16_t)(new - old)))
            return;
    }
    if (i >= 2)
        atomic_fetch_add(&r->rings, 1);
    rig_write(r, NVME_REG_DOORBELLS + i * 4, 4, new);
}

static inline void
rig_ring_sq(struct rig *r, unsigned qid, uint32_t old)
{
    rig_bell(r, 2 * qid, old, r->q[qid].tail);
}

static inline uint16_t
rig_submit(struct rig *r, unsigned qid, struct nvme_sqe e)
{
    uint32_t old = r->q[qid].tail;
    uint16_t cid = rig_put(r, qid, e);

    rig_ring_sq(r, qid, old);
    return cid;
}

/* Is there a completion? It is taken, the doorbell not yet rung. */
static inline bool
rig_peek(struct rig *r, unsigned qid, struct nvme_cqe *out)
{
    struct rig_queue *q = &r->q[qid];
    _Atomic uint64_t *e = rig_at(r, q->cq + q->head * 16);
    uint64_t half[2];

    half[1] = atomic_load_explicit(&e[1], memory_order_acquire);
    half[0] = atomic_load_explicit(&e[0], memory_order_relaxed);
    memcpy(out, half, sizeof(*out));
    if ((le16_get(out->status) & 1) != q->phase)
        return false;
    q->head++;
    if (q->head == q->cq_size) {
        q->head = 0;
        q->phase = !q->phase;
    }
    return true;
}

static inline void
rig_ring_cq(struct rig *r, unsigned qid, uint32_t old)
{
    rig_bell(r, 2 * qid + 1, old, r->q[qid].head);
}

/* Wait for a completion of QID, and take it. */
static inline struct nvme_cqe
rig_reap(struct rig *r, unsigned qid)
{
    struct nvme_cqe e = {0};
    uint32_t old = r->q[qid].head;

    rig_until(r, rig_peek(r, qid, &e));
    rig_ring_cq(r, qid, old);
    return e;
}

/* A status without More and phase: SCT << 8 | SC, and DNR. */
static inline unsigned
rig_status(const struct nvme_cqe *e)
{
    return (unsigned)le16_get(e->status) >> 1 & (0x7ff | NVME_DNR);
}

/* Carry E out, alone. */
static inline unsigned
rig_do(struct rig *r, unsigned qid, struct nvme_sqe e, uint32_t *dw0)
{
    uint16_t cid = rig_submit(r, qid, e);
    struct nvme_cqe c = rig_reap(r, qid);

    assert_int_equal(le16_get(c.cid), cid);
    assert_int_equal(le16_get(c.sqid), qid);
    assert_int_equal(le16_get(c.sqhd), r->q[qid].tail);
    if (dw0)
        *dw0 = le32_get(c.dw0);
    return rig_status(&c);
}

static inline struct nvme_sqe
rig_admin(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint32_t cdw10,
          uint32_t cdw11)
{
    return (struct nvme_sqe){.opcode = opcode,
                             .nsid = le32_of(nsid),
                             .prp1 = le64_of(prp1),
                             .cdw10 = le32_of(cdw10),
                             .cdw11 = le32_of(cdw11)};
}

static inline struct nvme_sqe
rig_rw(uint8_t opcode, uint64_t lba, unsigned n, uint64_t prp1)
{
    struct nvme_sqe e =
        rig_admin(opcode, 1, prp1, (uint32_t)lba, (uint32_t)(lba >> 32));

    e.cdw12 = le32_of(n - 1);
    return e;
}

static inline unsigned
rig_make_cq(struct rig *r, unsigned qid, uint32_t size, uint64_t at, bool ien,
            unsigned vector)
{
    return rig_do(r, 0,
                  rig_admin(NVME_ADMIN_CREATE_CQ, 0, at, (size - 1) << 16 | qid,
                            vector << 16 | (ien ? 2 : 0) | 1),
                  NULL);
}

static inline unsigned
rig_make_sq(struct rig *r, unsigned qid, uint32_t size, uint64_t at,
            unsigned cqid)
{
    return rig_do(r, 0,
                  rig_admin(NVME_ADMIN_CREATE_SQ, 0, at, (size - 1) << 16 | qid,
                            cqid << 16 | 1),
                  NULL);
}

/* An I/O queue pair of these sizes, with vector QID. */
static inline void
rig_pair(struct rig *r, unsigned qid, uint32_t sq_size, uint32_t cq_size)
{
    uint64_t sq = rig_ring(qid, false), cq = rig_ring(qid, true);

    memset(rig_at(r, cq), 0, cq_size * 16);
    assert_int_equal(rig_make_cq(r, qid, cq_size, cq, true, qid), NVME_OK);
    assert_int_equal(rig_make_sq(r, qid, sq_size, sq, qid), NVME_OK);
    rig_queue_reset(&r->q[qid], sq, sq_size, cq, cq_size);
}

static inline unsigned
rig_delete_sq(struct rig *r, unsigned qid)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_DELETE_SQ, 0, 0, qid, 0), NULL);
}

static inline unsigned
rig_delete_cq(struct rig *r, unsigned qid)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_DELETE_CQ, 0, 0, qid, 0), NULL);
}

/* Doorbell Buffer Config with the two pages after the rings. */
static inline void
rig_shadow(struct rig *r)
{
    uint64_t shadow = RIG_LOW + RIG_LOW_SIZE - 0x2000, event = shadow + 0x1000;
    struct nvme_sqe e = rig_admin(NVME_ADMIN_DOORBELL_BUFFER, 0, shadow, 0, 0);

    e.prp2 = le64_of(event);
    assert_int_equal(rig_do(r, 0, e, NULL), NVME_OK);
    r->shadow = shadow;
    r->event = event;
}

/* Enabled, with one I/O queue pair. */
static inline struct rig *
rig_ready(const struct rig_opts *o)
{
    struct rig *r = rig_new(o);

    rig_enable(r);
    rig_pair(r, 1, RIG_ENTRIES, RIG_ENTRIES);
    return r;
}

/* ---- Counters, by name ---- */

struct rig_look {
    struct st_inspect v;
    const char *name;
    uint64_t value;
    bool found;
};

static inline void
rig_look_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct rig_look *l = st_container(v, struct rig_look, v);

    if (strcmp(name, l->name) == 0) {
        l->value = value;
        l->found = true;
    }
}

static inline void
rig_look_text(struct st_inspect *v, const char *name, const char *value)
{
    (void)v;
    (void)name;
    (void)value;
}

static inline void
rig_look_leave(struct st_inspect *v)
{
    (void)v;
}

static inline void
rig_look_enter(struct st_inspect *v, const char *name)
{
    rig_look_text(v, name, name);
}

/* What inspect says of NAME. */
static inline uint64_t
rig_counter(struct rig *r, const char *name)
{
    struct rig_look l = {
        .v = {rig_look_u64, rig_look_text, rig_look_enter, rig_look_leave},
        .name = name};

    st_nvme_inspect(r->nvme, &l.v);
    assert_true(l.found);
    return l.value;
}

#endif
