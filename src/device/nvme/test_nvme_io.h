/* SPDX-License-Identifier: MIT
 *
 * A rig for tests of the NVM command set: slots whose commands are handed to it
 * as queues would, disks with knobs, guest memory. Each slot has its own part
 * of the guest's memory, AREA bytes from its gpa on, and a page for a list.
 */
#ifndef ST_TEST_NVME_IO_H
#define ST_TEST_NVME_IO_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "nvme_io.h"
#include "rand.h"
#include "range.h"
#include "testnode.h"

enum {
    SLOTS = 16,
    AREA = NVME_DATA_MAX + 2 * NVME_PAGE,
    STRIDE = AREA + 2 * NVME_PAGE,
    BASE = 0x10000000,
    DISKS = 4, /* namespaces 1, 2 and 4 */
};

#define DNR(status) ((status) | NVME_DNR)

struct slot {
    struct nvme_cmd c; /* first */
    uint64_t gpa;
    uint8_t *mem;   /* what the guest has there */
    unsigned ended; /* how often done was called since start */
    unsigned turn;  /* rig.turns then */
    bool starting;
};

static struct rig {
    struct st_domain *d;
    struct st_loop *loop;
    struct st_gmem *g;
    uint8_t *ram;
    struct nvme_io io;
    struct nvme_door door[DISKS];
    struct nvme_ns ns[DISKS];
    struct st_node *node[DISKS];
    _Atomic bool through;
    bool no_chan; /* open cannot open */
    unsigned turns, held_doors;
    unsigned shift;
    struct st_rand rand;
    struct slot slot[SLOTS];
} rig;

static struct nvme_door *
rig_open(struct nvme_io *io, uint32_t nsid)
{
    struct nvme_door *door = &io->door[nsid - 1];

    assert_in_range(nsid, 1, DISKS);
    if (!rig.node[nsid - 1])
        return NULL;
    door->ns = &rig.ns[nsid - 1];
    if (!door->chan && !rig.no_chan)
        assert_int_equal(
            st_disk_open_chan(door->ns->disk, io->loop, &door->chan), 0);
    door->in_flight++;
    rig.held_doors++;
    return door;
}

static void
rig_close(struct nvme_io *io, struct nvme_door *door)
{
    (void)io;
    assert_true(door->in_flight > 0);
    door->in_flight--;
    rig.held_doors--;
}

static void
slot_done(struct nvme_cmd *c)
{
    struct slot *s = (struct slot *)c;

    assert_false(s->starting); /* never within start */
    s->ended++;
    s->turn = ++rig.turns;
    if (c->door)
        c->door->in_flight--;
}

static void
rig_disk(unsigned i, const struct st_testnode_opts *o, bool read_only)
{
    struct nvme_ns *ns = &rig.ns[i];

    assert_int_equal(st_testnode_create(rig.loop, o, &rig.node[i], NULL), 0);
    ns->nsid = i + 1;
    assert_int_equal(
        st_disk_create(rig.loop, rig.node[i], "d", read_only, &ns->disk, NULL),
        0);
    ns->read_only = st_disk_props(ns->disk)->read_only;
    ns->shift = (unsigned)__builtin_ctz(st_disk_props(ns->disk)->sector_size);
    ns->nexus = st_disk_attach(ns->disk);
    assert_int_not_equal(ns->nexus, 0);
}

/* Namespace 1 is as O says, 2 too (and closed), 4 is read-only. */
static void
rig_make(const struct st_testnode_opts *o, uint64_t seed)
{
    struct st_domain_opts dopts = {.engine = "virtual", .seed = seed};
    struct st_gmem_map m = {
        .gpa = BASE, .len = (uint64_t)SLOTS * STRIDE, .writable = true};

    memset(&rig, 0, sizeof(rig));
    rig.rand = st_rand_seed(seed);
    assert_int_equal(st_domain_create(&dopts, &rig.d, NULL), 0);
    assert_int_equal(st_loop_create(rig.d, &rig.loop, NULL), 0);
    rig.ram = aligned_alloc(NVME_PAGE, m.len);
    memset(rig.ram, 0xff, m.len);
    m.host = rig.ram;
    rig.g = st_gmem_create(rig.loop);
    assert_int_equal(st_gmem_map(rig.g, &m), 0);
    rig_disk(0, o, false);
    rig_disk(1, o, false);
    rig_disk(3, o, true);
    rig.shift = rig.ns[0].shift;
    rig.io = (struct nvme_io){.loop = rig.loop,
                              .view = st_gmem_open(rig.g, rig.loop),
                              .door = rig.door,
                              .ndoors = DISKS,
                              .open = rig_open,
                              .close = rig_close,
                              .sgl = true,
                              .write_through = &rig.through};
    assert_int_equal(st_nvme_io_init(&rig.io), 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        rig.slot[i].gpa = BASE + (uint64_t)i * STRIDE;
        rig.slot[i].mem = rig.ram + (size_t)i * STRIDE;
    }
}

static void
rig_free(void)
{
    for (unsigned i = 0; i < SLOTS; i++)
        st_nvme_io_slot_free(&rig.slot[i].c);
    st_nvme_io_fini(&rig.io);
    st_gmem_close(rig.io.view); /* every use was put */
    assert_int_equal(rig.held_doors, 0);
    for (unsigned i = 0; i < DISKS; i++) {
        assert_int_equal(rig.door[i].in_flight, 0);
        if (rig.door[i].chan)
            st_disk_close_chan(rig.door[i].chan);
    }
    while (st_domain_step(rig.d))
        ;
    for (unsigned i = 0; i < DISKS; i++) {
        if (!rig.node[i])
            continue;
        if (st_testnode_complaint(rig.node[i]))
            fail_msg("%s", st_testnode_complaint(rig.node[i]));
        st_disk_detach(rig.ns[i].disk, rig.ns[i].nexus);
        st_disk_destroy(rig.ns[i].disk);
    }
    for (unsigned i = 0; i < ST_CAP_COUNT; i++) /* nothing is kept */
        assert_int_equal(st_domain_caps(rig.d)->row[i].used, 0);
    st_gmem_destroy(rig.g);
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.d);
    free(rig.ram);
}

static uint8_t *
disk_at(uint64_t lba)
{
    return st_testnode_bytes(rig.node[0]) + (lba << rig.shift);
}

static void
fill(uint8_t *p, size_t len)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t v = st_rand_next(&rig.rand);

        memcpy(p + i, &v, 8);
    }
}

/* ---- Commands ---- */

/* A command with all its fields zero but these. */
static struct slot *
cmd(unsigned i, enum nvme_opcode op, uint32_t nsid)
{
    struct slot *s = &rig.slot[i];

    s->c.sqe = (struct nvme_sqe){.opcode = (uint8_t)op,
                                 .cid = le16_of((uint16_t)i),
                                 .nsid = le32_of(nsid)};
    s->c.io = &rig.io;
    s->c.door = NULL;
    s->c.fused = NULL;
    s->c.done = slot_done;
    s->c.status = 0xffff;
    return s;
}

static void
set_lba(struct slot *s, uint64_t lba)
{
    s->c.sqe.cdw10 = le32_of((uint32_t)lba);
    s->c.sqe.cdw11 = le32_of((uint32_t)(lba >> 32));
}

/* Point S at LEN bytes, OFFSET bytes into its area: PRPs. */
static void
set_data(struct slot *s, uint64_t offset, uint64_t len)
{
    uint64_t gpa = s->gpa + offset, list = s->gpa + AREA;
    uint64_t first = NVME_PAGE - gpa % NVME_PAGE;
    le64 *at = (le64 *)(void *)(s->mem + AREA);

    s->c.sqe.prp1 = le64_of(gpa);
    s->c.sqe.prp2 = le64_of(0);
    if (len <= first)
        return;
    gpa += first;
    if (len - first <= NVME_PAGE) {
        s->c.sqe.prp2 = le64_of(gpa);
        return;
    }
    s->c.sqe.prp2 = le64_of(list);
    for (uint64_t left = len - first, i = 0; left; i++) {
        at[i] = le64_of(gpa + i * NVME_PAGE);
        left -= st_min(left, NVME_PAGE);
    }
}

/* One of the commands that have SLBA and NLB, its data at the area's start. */
static struct slot *
blocks(unsigned i, enum nvme_opcode op, uint64_t lba, uint32_t n)
{
    struct slot *s = cmd(i, op, 1);

    set_lba(s, lba);
    s->c.sqe.cdw12 = le32_of(n - 1);
    if (op == NVME_READ || op == NVME_WRITE || op == NVME_COMPARE)
        set_data(s, 0, st_min((uint64_t)n << rig.shift, NVME_DATA_MAX));
    return s;
}

static void
start(struct slot *s, void (*fn)(struct nvme_cmd *c))
{
    uint32_t nsid = le32_get(s->c.sqe.nsid);

    if (nsid != UINT32_MAX) {
        s->c.door = rig_open(&rig.io, nsid);
        assert_non_null(s->c.door);
        rig.held_doors--; /* its own, which done gives back */
    }
    s->ended = 0;
    s->starting = true;
    fn(&s->c);
    s->starting = false;
}

static void
go(struct slot *s)
{
    start(s, st_nvme_io_start);
}

static inline uint16_t
wait_for(struct slot *s)
{
    while (!s->ended)
        assert_true(st_domain_step(rig.d));
    assert_int_equal(s->ended, 1);
    return s->c.status;
}

static inline uint16_t
run(struct slot *s)
{
    go(s);
    return wait_for(s);
}

/* Let all happen that can. */
static inline void
settle(void)
{
    while (st_domain_step(rig.d))
        ;
}

#endif
