/* SPDX-License-Identifier: MIT
 *
 * Registers and the state machine: enable, disable, shutdown, reset; memory
 * that comes and goes.
 */
#include "test_nvme_rig.h"

enum { CFS = NVME_CSTS_CFS, RDY = NVME_CSTS_RDY };

static unsigned
shst(struct rig *r)
{
    return rig_csts(r) >> NVME_CSTS_SHST_SHIFT & 3;
}

/* ---- Registers ---- */

static void
registers_read_as_they_should(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    assert_int_equal(rig_read(r, 0, 4), 0x280103ff);
    assert_int_equal(rig_read(r, 4, 4), 0x08000020);
    assert_int_equal(rig_read(r, 0, 8), UINT64_C(0x08000020280103ff));
    assert_int_equal(rig_read(r, 2, 2), 0x2801);
    assert_int_equal(rig_read(r, 1, 1), 0x03);
    assert_int_equal(rig_read(r, NVME_REG_VS, 4), 0x20000);
    assert_int_equal(rig_read(r, NVME_REG_CRTO, 4), 0x28);
    assert_int_equal(rig_read(r, 0x18, 4), 0);
    assert_int_equal(rig_read(r, 0xff8, 8), 0);
    assert_int_equal(rig_read(r, NVME_REG_DOORBELLS, 4), 0);
    rig_write(r, 0, 8, UINT64_MAX);
    assert_int_equal(rig_read(r, 0, 4), 0x280103ff);
    rig_free(r);
}

static uint32_t
config(struct rig *r, unsigned at, unsigned len)
{
    return st_pci_config_read(r->pci, at, len);
}

/* Where the capability ID is. */
static unsigned
capability(struct rig *r, uint8_t id)
{
    unsigned at = config(r, 0x34, 1);

    for (unsigned n = 0; at && config(r, at, 1) != id; n++) {
        assert_true(n < 8);
        at = config(r, at + 1, 1);
    }
    assert_int_not_equal(at, 0);
    return at;
}

static uint32_t
bar_size(struct rig *r, unsigned bar)
{
    st_pci_config_write(r->pci, 0x10 + 4 * bar, 4, 0xffffffff);
    return ~(config(r, 0x10 + 4 * bar, 4) & ~0xfu) + 1;
}

static void
the_function_is_as_drivers_look_for_it(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.queues = 300});
    unsigned msix, express;

    (void)state;
    assert_int_equal(config(r, 0, 4), 0xc03e1414);
    assert_int_equal(config(r, 8, 4) >> 8, 0x010802);
    assert_int_equal(config(r, 0x2c, 4), 0x00001414);
    assert_int_equal(config(r, 0x3d, 1), 0); /* no pin */
    assert_int_equal(config(r, 0x10, 4) & 15,
                     4); /* 64 bits, not prefetchable */
    assert_int_equal(bar_size(r, 0), 0x10000);
    /* 301 vectors of 16 bytes, their pending bits, a power of two. */
    msix = capability(r, 0x11);
    assert_int_equal(config(r, msix + 2, 2) & 0x7ff, 300);
    assert_int_equal(config(r, msix + 4, 4), 4); /* the table: BAR 4, 0 */
    assert_int_equal(config(r, msix + 8, 4), 4 | 301 * 16);
    assert_int_equal(bar_size(r, 4), 0x2000);
    express = capability(r, 0x10);
    assert_int_equal(config(r, express + 2, 2) & 0xff, 2); /* an endpoint, v2 */
    assert_true(config(r, express + 4, 4) & 1 << 28);      /* function reset */
    assert_int_equal(config(r, capability(r, 0x01) + 4, 2) & 3, 0); /* D0 */
    rig_free(r);
}

static void
mqes_follows_the_option(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.entries = 65536});

    (void)state;
    assert_int_equal(rig_read(r, 0, 2), 0xffff);
    rig_free(r);
}

static void
halves_of_base_addresses_work_alone(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_write(r, NVME_REG_ASQ + 4, 4, 0x12);
    assert_int_equal(rig_read(r, NVME_REG_ASQ, 8), UINT64_C(0x1200000000));
    rig_write(r, NVME_REG_ASQ, 4, 0xabcdefff);
    assert_int_equal(rig_read(r, NVME_REG_ASQ, 8), UINT64_C(0x12abcde000));
    rig_write(r, NVME_REG_ACQ, 4, 0x1000);
    assert_int_equal(rig_read(r, NVME_REG_ACQ, 8), 0x1000);
    rig_write(r, NVME_REG_AQA, 4, 0xffffffff);
    assert_int_equal(rig_read(r, NVME_REG_AQA, 4), 0x0fff0fff);
    rig_free(r);
}

static void
base_addresses_are_locked_while_enabled(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint64_t asq, acq;

    (void)state;
    rig_enable(r);
    asq = rig_read(r, NVME_REG_ASQ, 8);
    acq = rig_read(r, NVME_REG_ACQ, 8);
    rig_write(r, NVME_REG_ASQ, 8, 0x5000);
    rig_write(r, NVME_REG_ACQ, 8, 0x6000);
    rig_write(r, NVME_REG_ACQ + 4, 4, 0x7000);
    rig_write(r, NVME_REG_AQA, 4, 0);
    assert_int_equal(rig_read(r, NVME_REG_ASQ, 8), asq);
    assert_int_equal(rig_read(r, NVME_REG_ACQ, 8), acq);
    assert_int_equal(rig_read(r, NVME_REG_AQA, 4), 31 << 16 | 31);
    rig_free(r);
}

/* A byte or a word of a register cannot be written: not even where it would be
 * the whole of what is known of it. */
static void
narrow_writes_do_nothing(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_write(r, NVME_REG_INTMS, 4, 0x12345678);
    rig_write(r, NVME_REG_AQA, 4, 0x00010001);
    for (unsigned len = 1; len <= 2; len++)
        for (uint64_t at = 0; at < 0x70; at += len)
            rig_write(r, at, len, 0xffff >> (16 - 8 * len));
    assert_int_equal(rig_read(r, NVME_REG_INTMS, 4), 0x12345678);
    assert_int_equal(rig_read(r, NVME_REG_AQA, 4), 0x00010001);
    assert_int_equal(rig_read(r, NVME_REG_CC, 4), 0);
    assert_int_equal(rig_read(r, NVME_REG_ASQ, 8), 0);
    assert_int_equal(rig_read(r, NVME_REG_ACQ, 8), 0);
    rig_free(r);
}

/* ---- Enable ---- */

static void
what_it_cannot_do_is_fatal_until_disabled(void **state)
{
    static const uint32_t bad[] = {
        1 << NVME_CC_MPS_SHIFT,    1 << NVME_CC_CSS_SHIFT,
        6 << NVME_CC_CSS_SHIFT,    1 << NVME_CC_AMS_SHIFT,
        7 << NVME_CC_AMS_SHIFT,    1 << NVME_CC_IOSQES_SHIFT,
        8 << NVME_CC_IOCQES_SHIFT,
    };
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r); /* so that the rings are there, and no reason */
    rig_disable(r);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint32_t cc = (RIG_CC ^ bad[i]) | NVME_CC_EN;

        rig_write(r, NVME_REG_CC, 4, cc);
        assert_int_equal(rig_read(r, NVME_REG_CC, 4), cc);
        rig_until(r, rig_csts(r) & CFS);
        assert_int_equal(rig_csts(r), CFS);
        rig_write(r, NVME_REG_CC, 4, cc & ~1u);
        assert_int_equal(rig_read(r, NVME_REG_CC, 4), cc & ~1u);
        rig_until(r, !rig_csts(r));
        rig_enable(r);
        rig_disable(r);
    }
    rig_free(r);
}

static void
admin_rings_of_any_size_work(void **state)
{
    static const unsigned sizes[] = {2, 4, 64, 512, 4096};
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned n = sizes[i];
        uint64_t sq = RIG_LOW, cq = RIG_LOW + n * 64;

        memset(rig_at(r, cq), 0, n * 16);
        rig_queue_reset(&r->q[0], sq, n, st_max(cq, RIG_LOW + 4096), n);
        memset(rig_at(r, r->q[0].cq), 0, n * 16);
        rig_write(r, NVME_REG_AQA, 4, (n - 1) << 16 | (n - 1));
        rig_write(r, NVME_REG_ASQ, 8, sq);
        rig_write(r, NVME_REG_ACQ, 8, r->q[0].cq);
        rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
        rig_until(r, rig_csts(r) == RDY);
        for (unsigned k = 0; k < n + 3; k++) {
            memset(rig_at(r, RIG_DATA), 0, 4096);
            assert_int_equal(
                rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0),
                       NULL),
                NVME_OK);
            assert_memory_equal(rig_at(r, RIG_DATA), "\x14\x14", 2);
        }
        rig_disable(r);
    }
    rig_free(r);
}

/* Neither a reset nor an enable may be lost, whatever the order in which the
 * loops turn. */
static void
cycles_without_polling_never_wedge(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct rig *r = rig_new(&(struct rig_opts){.seed = seed, .loops = 2});
        struct st_rand rand = st_rand_seed(seed);

        rig_enable(r);
        for (unsigned i = 0; i < (seed == 1 ? 10000 : 1000); i++) {
            rig_write(r, NVME_REG_CC, 4, RIG_CC | (i % 2 ? NVME_CC_EN : 0));
            rig_steps(r, (unsigned)st_rand_below(&rand, 12));
        }
        rig_write(r, NVME_REG_CC, 4, RIG_CC);
        rig_until(r, !rig_csts(r));
        rig_enable(r);
        rig_pair(r, 1, 16, 16);
        assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                         NVME_OK);
        rig_free(r);
    }
}

/* RDY may not become 1 after the guest has given up, and seen 0. */
static void
ready_does_not_come_after_disable(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct rig *r = rig_new(&(struct rig_opts){.seed = seed});
        struct st_rand rand = st_rand_seed(seed);

        rig_enable(r);
        rig_disable(r);
        rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
        rig_steps(r, (unsigned)st_rand_below(&rand, 6));
        rig_write(r, NVME_REG_CC, 4, RIG_CC);
        if (!rig_csts(r))
            for (unsigned i = 0; i < 50; i++) {
                rig_step(r);
                assert_int_equal(rig_csts(r), 0);
            }
        rig_free(r);
    }
}

/* ---- Shutdown ---- */

static void
shutdown_flushes_and_says_so(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    memset(rig_at(r, RIG_DATA), 0x5a, 512);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 3, 1, RIG_DATA), NULL),
                     NVME_OK);
    assert_int_not_equal(st_testnode_durable(r->node)[3 * 512], 0x5a);
    st_testnode_hang(r->node, true);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN | 1 << NVME_CC_SHN_SHIFT);
    rig_until(r, st_testnode_held(r->node) == 1);
    assert_int_equal(shst(r), 1);
    st_testnode_hang(r->node, false);
    rig_until(r, shst(r) != 1);
    assert_int_equal(rig_csts(r), RDY | 2 << NVME_CSTS_SHST_SHIFT);
    assert_int_equal(st_testnode_durable(r->node)[3 * 512], 0x5a);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_steps(r, 20);
    assert_int_equal(shst(r), 2);
    rig_disable(r);
    assert_int_equal(rig_csts(r), 0);
    rig_enable(r);
    rig_free(r);
}

static void
abrupt_shutdown_does_not_flush(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN | 2 << NVME_CC_SHN_SHIFT);
    rig_until(r, shst(r) == 2);
    assert_int_equal(st_testnode_count(r->node, ST_OP_FLUSH), 0);
    rig_free(r);
}

static void
a_flush_that_hangs_does_not_hold_a_reset(void **state)
{
    for (int can = 0; can < 2; can++) {
        struct rig *r = rig_ready(&(struct rig_opts){0});

        (void)state;
        st_testnode_cancellable(r->node, can);
        st_testnode_hang(r->node, true);
        rig_write(r, NVME_REG_CC, 4,
                  RIG_CC | NVME_CC_EN | 1 << NVME_CC_SHN_SHIFT);
        rig_until(r, st_testnode_held(r->node) == 1);
        rig_disable(r);
        assert_int_equal(rig_counter(r, "resets_forced"), !can);
        rig_enable(r);
        rig_free(r);
    }
}

/* ---- Reset ---- */

/* Reads under way when the controller is disabled: none completes, and the
 * next life is whole. */
static void
reset_with_reads_under_way(bool can_cancel)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct rig_queue old;

    st_testnode_cancellable(r->node, can_cancel);
    st_testnode_hang(r->node, true);
    for (unsigned i = 0; i < 20; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA + i * 512));
    rig_until(r, st_testnode_held(r->node) == 20);
    old = r->q[1];
    rig_disable(r);
    memset(rig_at(r, old.cq), 0xee, old.cq_size * 16);
    assert_int_equal(rig_counter(r, "resets_forced"), !can_cancel);
    assert_int_equal(rig_counter(r, "orphans"), can_cancel ? 0 : 20);
    rig_enable(r);
    rig_pair(r, 2, 16, 16);
    rig_submit(r, 2, rig_rw(NVME_READ, 0, 1, RIG_HIGH));
    rig_until(r, st_testnode_held(r->node) == (can_cancel ? 1 : 21));
    st_testnode_hang(r->node, false);
    rig_reap(r, 2);
    rig_until(r, rig_counter(r, "orphans") == 0);
    for (unsigned i = 0; i < old.cq_size * 16; i++)
        assert_int_equal(((uint8_t *)rig_at(r, old.cq))[i], 0xee);
    rig_free(r);
}

static void
reset_cancels_what_is_under_way(void **state)
{
    (void)state;
    reset_with_reads_under_way(true);
}

static void
reset_leaves_orphans_behind(void **state)
{
    (void)state;
    reset_with_reads_under_way(false);
}

static void
access_done(struct st_access *a)
{
    a->value = 77;
}

static void
function_reset_gives_power_on_state(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct st_access a = {.done = access_done};

    (void)state;
    rig_write(r, NVME_REG_INTMS, 4, 5);
    assert_false(st_pci_reset(r->pci, &a));
    assert_int_equal(a.value, 0);
    rig_until(r, a.value == 77);
    rig_pci_on(r, true);
    assert_int_equal(rig_csts(r), 0);
    assert_int_equal(rig_read(r, NVME_REG_CC, 4), 0);
    assert_int_equal(rig_read(r, NVME_REG_AQA, 4), 0);
    assert_int_equal(rig_read(r, NVME_REG_ASQ, 8), 0);
    assert_int_equal(rig_read(r, NVME_REG_ACQ, 8), 0);
    assert_int_equal(rig_read(r, NVME_REG_INTMS, 4), 0);
    rig_enable(r);
    rig_pair(r, 1, 8, 8);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                     NVME_OK);
    rig_free(r);
}

static void
many_resets_of_the_host_all_end(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct st_access a[12] = {0};

    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        a[i].done = access_done;
        if (st_pci_reset(r->pci, &a[i]))
            a[i].value = 77;
    }
    for (unsigned i = 0; i < 12; i++)
        rig_until(r, a[i].value == 77);
    rig_free(r);
}

/* ---- Memory ---- */

struct unmap {
    struct st_gmem_unmap u; /* first */
    bool done;
};

static void
unmapped(struct st_gmem_unmap *u)
{
    ((struct unmap *)u)->done = true;
}

static void
unmap_low(struct rig *r, struct unmap *u)
{
    *u = (struct unmap){.u = {.done = unmapped}};
    assert_int_equal(st_gmem_unmap(r->gmem, RIG_LOW, RIG_LOW_SIZE, &u->u), 0);
    rig_until(r, u->done);
}

static void
admin_rings_nowhere_are_fatal(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_write(r, NVME_REG_AQA, 4, 7 << 16 | 7);
    rig_write(r, NVME_REG_ASQ, 8, RIG_NOWHERE);
    rig_write(r, NVME_REG_ACQ, 8, RIG_LOW);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_until(r, rig_csts(r));
    assert_int_equal(rig_csts(r), CFS);
    rig_disable(r);
    rig_until(r, !rig_csts(r));
    rig_enable(r);
    rig_free(r);
}

static void
queues_may_be_out_of_reach_for_a_moment(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_cqe e;
    struct unmap u;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_submit(r, 1, rig_rw(NVME_READ, 1, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 2);
    unmap_low(r, &u);
    st_testnode_hang(r->node, false); /* completions have nowhere to go */
    rig_submit(r, 1, rig_rw(NVME_READ, 2, 1, RIG_DATA)); /* nor entries */
    rig_pass(r, 50 * UINT64_C(1000000));
    assert_int_equal(rig_csts(r), RDY);
    rig_map(r, RIG_LOW, RIG_LOW_SIZE);
    for (unsigned i = 0; i < 3; i++) {
        e = rig_reap(r, 1);
        assert_int_equal(rig_status(&e), NVME_OK);
        assert_int_equal(le16_get(e.cid), i);
    }
    rig_free(r);
}

/* A command whose disk was slower completes later, though the queue can be
 * reached again before it is the turn of the one that waited. */
static void
completions_out_of_reach_stay_in_order(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct st_testnode_opts o = {.size = RIG_DISK, .unmap = ST_UNMAP_ZEROES};
    struct nvme_sqe e = rig_rw(NVME_READ, 0, 1, RIG_DATA);
    struct st_node *node;
    struct st_disk *disk;
    int rc = RIG_PENDING;
    struct st_nvme_call call = {.done = rig_called, .arg = &rc};
    struct nvme_cqe c;
    struct unmap u;

    (void)state;
    assert_int_equal(st_testnode_create(r->home, &o, &node, NULL), 0);
    assert_int_equal(st_disk_create(r->home, node, "slow", false, &disk, NULL),
                     0);
    assert_int_equal(st_nvme_add_namespace(r->nvme, 2, disk, false, NULL, NULL),
                     0);
    st_testnode_hang(r->node, true);
    st_testnode_hang(node, true);
    rig_submit(r, 1, e);
    e.nsid = le32_of(2);
    rig_submit(r, 1, e);
    rig_until(r, st_testnode_held(r->node) && st_testnode_held(node));
    unmap_low(r, &u);
    st_testnode_hang(r->node, false);
    rig_until(r, rig_counter(r, "unreachable"));
    rig_map(r, RIG_LOW, RIG_LOW_SIZE);
    st_testnode_hang(node, false);
    for (unsigned i = 0; i < 2; i++) {
        c = rig_reap(r, 1);
        assert_int_equal(le16_get(c.cid), i);
    }
    st_nvme_remove_namespace(r->nvme, 2, UINT64_C(1000000000), &call);
    rig_until(r, rc != RIG_PENDING);
    assert_int_equal(rc, 0);
    rig_until(r, st_disk_deserted(disk));
    st_disk_destroy(disk);
    rig_free(r);
}

static void
queues_out_of_reach_for_long_are_fatal(void **state)
{
    for (int completion = 0; completion < 2; completion++) {
        struct rig *r = rig_ready(&(struct rig_opts){0});
        struct unmap u;

        (void)state;
        st_testnode_hang(r->node, true);
        rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
        rig_until(r, st_testnode_held(r->node) == 1);
        unmap_low(r, &u);
        if (completion)
            st_testnode_hang(r->node, false);
        else
            rig_submit(r, 1, rig_rw(NVME_READ, 1, 1, RIG_DATA));
        rig_until(r, rig_csts(r) & CFS);
        st_testnode_hang(r->node, false);
        rig_disable(r);
        assert_int_equal(rig_csts(r), 0);
        rig_map(r, RIG_LOW, RIG_LOW_SIZE);
        rig_enable(r);
        rig_free(r);
    }
}

static void
without_bus_master_nothing_moves(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_cqe e;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    st_pci_config_write(r->pci, 4, 2, 2);
    st_testnode_hang(r->node, false);
    rig_submit(r, 1, rig_rw(NVME_READ, 1, 1, RIG_DATA));
    rig_pass(r, UINT64_C(1000000000));
    assert_false(rig_peek(r, 1, &e));
    assert_int_equal(rig_csts(r), RDY);
    assert_int_equal(st_testnode_count(r->node, ST_OP_READ), 1);
    st_pci_config_write(r->pci, 4, 2, 6);
    e = rig_reap(r, 1);
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    rig_free(r);
}

/* ---- Harm ---- */

static void
any_access_at_any_place_is_survived(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct rig *r = rig_new(&(struct rig_opts){.seed = seed, .loops = 2});
        struct st_rand rand = st_rand_seed(seed);

        for (unsigned i = 0; i < 40000; i++) {
            unsigned len = 1u << st_rand_below(&rand, 4);
            uint64_t at = st_rand_below(&rand, 0x1400) & ~(uint64_t)(len - 1);

            if (st_rand_below(&rand, 3))
                at &= 0x7f & ~(uint64_t)(len - 1);
            if (st_rand_below(&rand, 2))
                rig_write(r, at, len, st_rand_next(&rand));
            else
                rig_read(r, at, len);
            if (st_rand_below(&rand, 4) == 0)
                rig_step(r);
        }
        rig_write(r, NVME_REG_CC, 4, RIG_CC);
        rig_until(r, !rig_csts(r));
        rig_write(r, NVME_REG_INTMC, 4, UINT32_MAX);
        rig_enable(r);
        rig_free(r);
    }
}

static void
stop_is_for_good(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    (void)state;
    st_testnode_cancellable(r->node, false);
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    st_nvme_stop(r->nvme, UINT64_C(5000000000), &c);
    assert_int_equal(rc, RIG_PENDING);
    rig_until(r, rc != RIG_PENDING);
    assert_int_equal(rc, -ETIMEDOUT);
    assert_string_not_equal(c.err.text, "");
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_steps(r, 100);
    assert_int_equal(rig_csts(r), 0);
    st_testnode_hang(r->node, false);
    rig_steps(r, 1000);
    rig_free(r); /* a second stop finds it closed */
}

static void
options_out_of_range_are_refused(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct st_nvme_opts good = {
        .home = r->home, .loops = r->loop, .nloops = 1, .gmem = r->gmem};
    struct st_nvme_opts bad[8];
    struct st_nvme *n = NULL;
    struct st_err err;

    (void)state;
    for (unsigned i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].nloops = 0;
    bad[1].queues = 512;
    bad[2].entries = 1;
    bad[3].entries = 65537;
    bad[4].vectors = 2049;
    bad[5].namespaces = 1025;
    bad[6].serial = "123456789012345678901";
    bad[7].version = "123456789";
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(st_nvme_create(&bad[i], &n, &err), -EINVAL);
    assert_null(n);
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_read_as_they_should),
        cmocka_unit_test(the_function_is_as_drivers_look_for_it),
        cmocka_unit_test(mqes_follows_the_option),
        cmocka_unit_test(halves_of_base_addresses_work_alone),
        cmocka_unit_test(base_addresses_are_locked_while_enabled),
        cmocka_unit_test(narrow_writes_do_nothing),
        cmocka_unit_test(what_it_cannot_do_is_fatal_until_disabled),
        cmocka_unit_test(admin_rings_of_any_size_work),
        cmocka_unit_test(cycles_without_polling_never_wedge),
        cmocka_unit_test(ready_does_not_come_after_disable),
        cmocka_unit_test(shutdown_flushes_and_says_so),
        cmocka_unit_test(abrupt_shutdown_does_not_flush),
        cmocka_unit_test(a_flush_that_hangs_does_not_hold_a_reset),
        cmocka_unit_test(reset_cancels_what_is_under_way),
        cmocka_unit_test(reset_leaves_orphans_behind),
        cmocka_unit_test(function_reset_gives_power_on_state),
        cmocka_unit_test(many_resets_of_the_host_all_end),
        cmocka_unit_test(admin_rings_nowhere_are_fatal),
        cmocka_unit_test(queues_may_be_out_of_reach_for_a_moment),
        cmocka_unit_test(completions_out_of_reach_stay_in_order),
        cmocka_unit_test(queues_out_of_reach_for_long_are_fatal),
        cmocka_unit_test(without_bus_master_nothing_moves),
        cmocka_unit_test(any_access_at_any_place_is_survived),
        cmocka_unit_test(stop_is_for_good),
        cmocka_unit_test(options_out_of_range_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
