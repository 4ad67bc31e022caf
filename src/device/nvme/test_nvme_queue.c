/* SPDX-License-Identifier: MIT
 *
 * Queues: create, delete, fetch, post, interrupts.
 */
#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)
#define AT(qid)     rig_ring(qid, false)

/* ---- Create and delete ---- */

static unsigned
create_cq(struct rig *r, uint32_t cdw10, uint32_t cdw11, uint64_t at)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_CREATE_CQ, 0, at, cdw10, cdw11),
                  NULL);
}

static unsigned
create_sq(struct rig *r, uint32_t cdw10, uint32_t cdw11, uint64_t at)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_CREATE_SQ, 0, at, cdw10, cdw11),
                  NULL);
}

static void
creation_checks_in_order(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.entries = 256});

    (void)state;
    rig_enable(r);
    assert_int_equal(create_cq(r, 7 << 16 | 0, 0, AT(1)), DNR(0x002)); /* PC */
    assert_int_equal(create_cq(r, 7 << 16 | 0, 3, AT(1)), DNR(0x101));
    assert_int_equal(create_cq(r, 7 << 16 | 8, 3, AT(1)), DNR(0x101));
    assert_int_equal(create_cq(r, 7 << 16 | 1, 8 << 16 | 3, AT(1)), DNR(0x108));
    assert_int_equal(create_cq(r, 0 << 16 | 1, 3, AT(1)), DNR(0x102));
    assert_int_equal(create_cq(r, 256 << 16 | 1, 3, AT(1)), DNR(0x102));
    assert_int_equal(create_cq(r, 7 << 16 | 1, 3, AT(1) + 8), DNR(0x013));
    assert_int_equal(create_cq(r, 7 << 16 | 1, 3, RIG_NOWHERE), DNR(0x004));
    assert_int_equal(create_cq(r, 255 << 16 | 1, 3, UINT64_MAX & ~0xfffull),
                     DNR(0x004));
    /* A vector that does not matter is not looked at. */
    assert_int_equal(create_cq(r, 7 << 16 | 1, 999 << 16 | 1, AT(1)), NVME_OK);
    assert_int_equal(create_cq(r, 7 << 16 | 1, 3, AT(1)), DNR(0x101));

    assert_int_equal(create_sq(r, 7 << 16 | 1, 1 << 16, AT(2)), DNR(0x002));
    assert_int_equal(create_sq(r, 7 << 16 | 0, 1 << 16 | 1, AT(2)), DNR(0x101));
    assert_int_equal(create_sq(r, 7 << 16 | 8, 1 << 16 | 1, AT(2)), DNR(0x101));
    assert_int_equal(create_sq(r, 7 << 16 | 1, 0 << 16 | 1, AT(2)), DNR(0x100));
    assert_int_equal(create_sq(r, 7 << 16 | 1, 2 << 16 | 1, AT(2)), DNR(0x100));
    assert_int_equal(create_sq(r, 7 << 16 | 1, 999 << 16 | 1, AT(2)),
                     DNR(0x100));
    assert_int_equal(create_sq(r, 0 << 16 | 1, 1 << 16 | 1, AT(2)), DNR(0x102));
    assert_int_equal(create_sq(r, 256 << 16 | 1, 1 << 16 | 1, AT(2)),
                     DNR(0x102));
    assert_int_equal(create_sq(r, 7 << 16 | 1, 1 << 16 | 1, AT(2) + 64),
                     DNR(0x013));
    assert_int_equal(create_sq(r, 7 << 16 | 1, 1 << 16 | 1, RIG_NOWHERE),
                     DNR(0x004));
    /* Its first page is there, its second is not. */
    assert_int_equal(create_sq(r, 127 << 16 | 1, 1 << 16 | 1,
                               RIG_LOW + RIG_LOW_SIZE - NVME_PAGE),
                     DNR(0x004));
    assert_int_equal(rig_delete_cq(r, 1), NVME_OK);

    assert_int_equal(rig_delete_sq(r, 1), DNR(0x101));
    assert_int_equal(rig_delete_sq(r, 0), DNR(0x101));
    assert_int_equal(rig_delete_sq(r, 9999), DNR(0x101));
    assert_int_equal(rig_delete_cq(r, 1), DNR(0x101));
    assert_int_equal(rig_delete_cq(r, 0), DNR(0x101));
    rig_free(r);
}

static void
entry_sizes_are_needed_for_io_queues(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_write(r, NVME_REG_CC, 4, NVME_CC_EN);
    assert_int_equal(create_cq(r, 7 << 16 | 1, 3, AT(1)), DNR(0x102));
    rig_write(r, NVME_REG_CC, 4, NVME_CC_EN | 4 << NVME_CC_IOCQES_SHIFT);
    assert_int_equal(create_cq(r, 7 << 16 | 1, 3, AT(1)), NVME_OK);
    assert_int_equal(create_sq(r, 7 << 16 | 1, 1 << 16 | 1, AT(2)), DNR(0x102));
    rig_free(r);
}

static void
a_completion_queue_in_use_is_not_deleted(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 3});

    (void)state;
    assert_int_equal(rig_make_sq(r, 2, 8, AT(2), 1), NVME_OK);
    assert_int_equal(rig_delete_cq(r, 1), DNR(0x10c));
    assert_int_equal(rig_delete_sq(r, 1), NVME_OK);
    assert_int_equal(rig_delete_cq(r, 1), DNR(0x10c));
    assert_int_equal(rig_delete_sq(r, 2), NVME_OK);
    assert_int_equal(rig_delete_cq(r, 1), NVME_OK);
    rig_pair(r, 1, 16, 16); /* anew */
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                     NVME_OK);
    rig_free(r);
}

static void
deletion_drops_what_is_under_way(void **state)
{
    for (int can = 0; can < 2; can++) {
        struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
        struct nvme_cqe e;

        (void)state;
        st_testnode_cancellable(r->node, can);
        st_testnode_hang(r->node, true);
        for (unsigned i = 0; i < 5; i++)
            rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
        rig_until(r, st_testnode_held(r->node) == 5);
        assert_int_equal(rig_delete_sq(r, 1), NVME_OK);
        assert_int_equal(rig_counter(r, "orphans"), can ? 0 : 5);
        assert_int_equal(rig_delete_cq(r, 1), NVME_OK);
        st_testnode_hang(r->node, false);
        rig_steps(r, 200);
        assert_false(rig_peek(r, 1, &e));
        rig_pair(r, 1, 16, 16);
        assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                         NVME_OK);
        rig_free(r);
    }
}

static void
what_was_not_fetched_of_a_deleted_queue_is_not_executed(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 64, 2);
    for (unsigned i = 0; i < 20; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_steps(r, 100); /* one completes, and is not taken */
    assert_int_equal(st_testnode_count(r->node, ST_OP_READ), 1);
    assert_int_equal(rig_delete_sq(r, 1), NVME_OK);
    rig_steps(r, 100);
    assert_int_equal(st_testnode_count(r->node, ST_OP_READ), 1);
    rig_free(r);
}

/* ---- Fetch and post ---- */

static void
unknown_namespaces_are_refused_first(void **state)
{
    static const uint32_t nsids[] = {0, 2, 33, 0xffff, 0xfffffffe, 0xffffffff};
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    for (size_t i = 0; i < sizeof(nsids) / sizeof(nsids[0]); i++) {
        struct nvme_sqe e = rig_rw(NVME_READ, 0, 1, RIG_DATA);

        e.nsid = le32_of(nsids[i]);
        assert_int_equal(rig_do(r, 1, e, NULL), DNR(0x00b));
        e.opcode = 0xff; /* whatever it is */
        assert_int_equal(rig_do(r, 1, e, NULL), DNR(0x00b));
    }
    assert_int_equal(rig_do(r, 1, rig_rw(0xff, 0, 1, 0), NULL), DNR(0x001));
    rig_free(r);
}

static void
completions_not_taken_do_not_hold_the_controller(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct nvme_sqe e = rig_rw(NVME_READ, 0, 1, RIG_DATA);

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 16, 2);
    e.nsid = le32_of(0xffff);
    for (unsigned i = 0; i < 4; i++)
        rig_submit(r, 1, e);
    rig_steps(r, 50);
    assert_int_equal(rig_delete_sq(r, 1), NVME_OK);
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0), NULL),
        NVME_OK);
    rig_free(r);
}

static void
commands_through_a_small_completion_queue_complete_once(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    bool seen[16] = {false};

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 32, 2);
    for (unsigned i = 0; i < 16; i++)
        rig_submit(r, 1, rig_admin(NVME_FLUSH, 1, 0, 0, 0));
    for (unsigned i = 0; i < 16; i++) {
        struct nvme_cqe e = rig_reap(r, 1);

        assert_int_equal(rig_status(&e), NVME_OK);
        assert_in_range(le16_get(e.cid), 0, 15);
        assert_false(seen[le16_get(e.cid)]);
        seen[le16_get(e.cid)] = true;
    }
    assert_int_equal(st_testnode_count(r->node, ST_OP_FLUSH), 16);
    rig_free(r);
}

/* Rings of every small size, filled to the brim, many times round. */
static void
rings_of_any_size_wrap(void **state)
{
    (void)state;
    for (unsigned sq = 2; sq <= 9; sq++)
        for (unsigned cq = 2; cq <= 9; cq++) {
            struct rig *r = rig_new(
                &(struct rig_opts){.seed = sq * 16 + cq, .disk.async = true});
            unsigned sent = 0, got = 0;
            uint64_t once[128] = {0};

            rig_enable(r);
            rig_pair(r, 1, sq, cq);
            while (got < 100) {
                struct rig_queue *q = &r->q[1];
                uint32_t old = q->tail, head = q->head;
                struct nvme_cqe e;

                /* as much as there is room for, as SQHD says */
                while (sent < 100 && sent - got < sq - 1)
                    rig_put(r, 1, rig_rw(NVME_READ, sent++, 1, RIG_DATA));
                if (q->tail != old)
                    rig_ring_sq(r, 1, old);
                rig_until(r, rig_peek(r, 1, &e));
                rig_ring_cq(r, 1, head);
                assert_int_equal(rig_status(&e), NVME_OK);
                assert_in_range(le16_get(e.sqhd), 0, sq - 1);
                once[le16_get(e.cid)]++;
                got++;
            }
            for (unsigned i = 0; i < 100; i++)
                assert_int_equal(once[i], 1);
            rig_free(r);
        }
}

static void
a_busy_queue_does_not_starve_another(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint64_t sq = RIG_HIGH, cq = RIG_HIGH + 0x8000;
    unsigned before = 0;
    struct nvme_cqe e;

    (void)state;
    rig_enable(r);
    assert_int_equal(rig_make_cq(r, 1, 512, cq, true, 1), NVME_OK);
    assert_int_equal(rig_make_sq(r, 1, 256, sq, 1), NVME_OK);
    rig_queue_reset(&r->q[1], sq, 256, cq, 512);
    assert_int_equal(rig_make_sq(r, 2, 8, AT(2), 1), NVME_OK);
    rig_queue_reset(&r->q[2], AT(2), 8, 0, 0);
    for (unsigned i = 0; i < 250; i++)
        rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_ring_sq(r, 1, 0);
    rig_put(r, 2, rig_rw(NVME_READ, 9, 1, RIG_DATA));
    rig_ring_sq(r, 2, 0);
    do {
        e = rig_reap(r, 1);
        before++;
    } while (le16_get(e.sqid) != 2);
    assert_in_range(before, 1, 100);
    rig_free(r);
}

/* Where there is never room for more than two, all queues get some of it. */
static void
queues_take_turns(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    unsigned before[3] = {0};
    struct nvme_cqe e;

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 64, 3);
    for (unsigned qid = 2; qid <= 3; qid++) {
        assert_int_equal(rig_make_sq(r, qid, 64, AT(qid), 1), NVME_OK);
        rig_queue_reset(&r->q[qid], AT(qid), 64, 0, 0);
    }
    for (unsigned i = 0; i < 60; i++)
        for (unsigned qid = 1; qid <= 3; qid++)
            rig_submit(r, qid, rig_rw(NVME_READ, i, 1, RIG_DATA));
    for (unsigned i = 0; i < 60; i++) {
        e = rig_reap(r, 1);
        before[le16_get(e.sqid) - 1]++;
    }
    for (unsigned i = 0; i < 3; i++)
        assert_in_range(before[i], 10, 30);
    rig_free(r);
}

/* SQHD is what was fetched, not what there is. */
static void
completions_say_how_far_was_fetched(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 16, 3);
    for (unsigned i = 0; i < 9; i++)
        rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_ring_sq(r, 1, 0);
    for (unsigned i = 0; i < 9; i++) {
        struct nvme_cqe e = rig_reap(r, 1);

        assert_in_range(le16_get(e.sqhd), i + 1, i + 2);
    }
    rig_free(r);
}

static void
many_more_commands_than_slots_all_complete(void **state)
{
    struct rig *r =
        rig_new(&(struct rig_opts){.disk.async = true, .admin_entries = 8});
    uint64_t sq = RIG_DATA, cq = RIG_DATA + 0x10000;
    unsigned peak;

    (void)state;
    rig_enable(r);
    assert_int_equal(rig_make_cq(r, 1, 1024, cq, true, 1), NVME_OK);
    assert_int_equal(rig_make_sq(r, 1, 1024, sq, 1), NVME_OK);
    rig_queue_reset(&r->q[1], sq, 1024, cq, 1024);
    for (unsigned i = 0; i < 1000; i++)
        rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_HIGH));
    rig_ring_sq(r, 1, 0);
    for (unsigned i = 0; i < 1000; i++) {
        struct nvme_cqe e = rig_reap(r, 1);

        assert_int_equal(rig_status(&e), NVME_OK);
    }
    peak = (unsigned)st_testnode_peak(r->node);
    assert_in_range(peak, 64, 128);
    rig_free(r);
}

static void
failures_are_final_only_where_they_are(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    st_testnode_fail(r->node, ST_BIT(ST_OP_READ), ST_IO, 1);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                     0x006);
    assert_int_equal(
        rig_do(r, 1, rig_rw(NVME_READ, RIG_DISK / 512, 1, RIG_DATA), NULL),
        DNR(0x080));
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_NOWHERE), NULL),
                     DNR(0x004));
    rig_free(r);
}

/* ---- Interrupts ---- */

static void
a_batch_makes_one_interrupt(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_sqe e = rig_rw(NVME_READ, 0, 1, RIG_DATA);

    (void)state;
    e.nsid = le32_of(9); /* end at once */
    for (unsigned i = 0; i < 16; i++)
        rig_put(r, 1, e);
    rig_ring_sq(r, 1, 0);
    for (unsigned i = 0; i < 16; i++)
        rig_reap(r, 1);
    assert_int_equal(atomic_load(&r->msix[1]), 1);
    rig_free(r);
}

static void
a_polled_queue_makes_none(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint64_t sq = AT(1), cq = rig_ring(1, true);

    (void)state;
    rig_enable(r);
    assert_int_equal(rig_make_cq(r, 1, 8, cq, false, 0), NVME_OK);
    assert_int_equal(rig_make_sq(r, 1, 8, sq, 1), NVME_OK);
    rig_queue_reset(&r->q[1], sq, 8, cq, 8);
    assert_int_equal(atomic_load(&r->msix[0]), 2);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                     NVME_OK);
    rig_steps(r, 20);
    assert_int_equal(atomic_load(&r->msix[0]), 2);
    rig_free(r);
}

static unsigned
set_feature(struct rig *r, uint8_t fid, uint32_t value)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_SET_FEATURES, 0, 0, fid, value),
                  NULL);
}

static void
submit_bad(struct rig *r, unsigned n)
{
    struct nvme_sqe e = rig_rw(NVME_READ, 0, 1, RIG_DATA);
    uint32_t old = r->q[1].tail;

    e.nsid = le32_of(9);
    while (n--)
        rig_put(r, 1, e);
    rig_ring_sq(r, 1, old);
}

static void
coalescing_waits_for_threshold_or_time(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    /* 4 completions (0-based 3), or 500 us */
    assert_int_equal(set_feature(r, NVME_FEAT_COALESCING, 5 << 8 | 3), NVME_OK);
    submit_bad(r, 3);
    for (unsigned i = 0; i < 3; i++)
        rig_reap(r, 1);
    rig_pass(r, 400000);
    assert_int_equal(atomic_load(&r->msix[1]), 0);
    rig_pass(r, 200000);
    assert_int_equal(atomic_load(&r->msix[1]), 1);
    submit_bad(r, 4);
    for (unsigned i = 0; i < 4; i++)
        rig_reap(r, 1);
    rig_steps(r, 1);
    assert_int_equal(atomic_load(&r->msix[1]), 2);
    /* not this vector */
    assert_int_equal(set_feature(r, NVME_FEAT_VECTOR, 1 << 16 | 1), NVME_OK);
    submit_bad(r, 1);
    rig_reap(r, 1);
    rig_steps(r, 1);
    assert_int_equal(atomic_load(&r->msix[1]), 3);
    rig_free(r);
}

static void
the_admin_queue_is_never_coalesced(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    assert_int_equal(set_feature(r, NVME_FEAT_COALESCING, 0xffff), NVME_OK);
    assert_int_equal(atomic_load(&r->msix[0]), 1);
    assert_int_equal(set_feature(r, NVME_FEAT_COALESCING, 0xffff), NVME_OK);
    assert_int_equal(atomic_load(&r->msix[0]), 2);
    rig_free(r);
}

static void
the_pin_is_a_level(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.intx = true});
    struct nvme_cqe e;
    uint32_t old;

    (void)state;
    rig_enable(r);
    assert_false(atomic_load(&r->level));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0));
    old = r->q[0].head;
    rig_until(r, rig_peek(r, 0, &e));
    assert_true(atomic_load(&r->level));
    rig_write(r, NVME_REG_INTMS, 4, 1);
    assert_false(atomic_load(&r->level));
    assert_int_equal(rig_read(r, NVME_REG_INTMC, 4), 1);
    rig_write(r, NVME_REG_INTMC, 4, 1);
    assert_true(atomic_load(&r->level));
    rig_ring_cq(r, 0, old); /* one of two is taken */
    rig_steps(r, 20);
    assert_true(atomic_load(&r->level));
    rig_reap(r, 0);
    rig_until(r, !atomic_load(&r->level));
    /* MSI-X takes over */
    rig_pci_on(r, true);
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0), NULL),
        NVME_OK);
    assert_int_equal(atomic_load(&r->msix[0]), 1);
    assert_false(atomic_load(&r->level));
    rig_free(r);
}

/* No worker takes a turn: who rings lowers it. */
static void
the_pin_falls_within_the_doorbell_write(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.intx = true});
    struct nvme_cqe e;

    (void)state;
    rig_enable(r);
    for (unsigned i = 0; i < 3; i++) {
        uint32_t old = r->q[0].head;

        for (unsigned n = 0; n < 2; n++)
            rig_submit(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0));
        rig_steps(r, 100);
        assert_true(rig_peek(r, 0, &e));
        rig_ring_cq(r, 0, old);
        assert_true(atomic_load(&r->level)); /* one of two is taken */
        old = r->q[0].head;
        assert_true(rig_peek(r, 0, &e));
        rig_ring_cq(r, 0, old);
        assert_false(atomic_load(&r->level));
        rig_steps(r, 100);
        assert_false(atomic_load(&r->level));
    }
    rig_free(r);
}

static void
the_pin_falls_with_a_reset(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.intx = true});

    (void)state;
    rig_enable(r);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0));
    rig_until(r, atomic_load(&r->level));
    rig_disable(r);
    assert_false(atomic_load(&r->level));
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creation_checks_in_order),
        cmocka_unit_test(entry_sizes_are_needed_for_io_queues),
        cmocka_unit_test(a_completion_queue_in_use_is_not_deleted),
        cmocka_unit_test(deletion_drops_what_is_under_way),
        cmocka_unit_test(
            what_was_not_fetched_of_a_deleted_queue_is_not_executed),
        cmocka_unit_test(unknown_namespaces_are_refused_first),
        cmocka_unit_test(completions_not_taken_do_not_hold_the_controller),
        cmocka_unit_test(
            commands_through_a_small_completion_queue_complete_once),
        cmocka_unit_test(rings_of_any_size_wrap),
        cmocka_unit_test(a_busy_queue_does_not_starve_another),
        cmocka_unit_test(queues_take_turns),
        cmocka_unit_test(completions_say_how_far_was_fetched),
        cmocka_unit_test(many_more_commands_than_slots_all_complete),
        cmocka_unit_test(failures_are_final_only_where_they_are),
        cmocka_unit_test(a_batch_makes_one_interrupt),
        cmocka_unit_test(a_polled_queue_makes_none),
        cmocka_unit_test(coalescing_waits_for_threshold_or_time),
        cmocka_unit_test(the_admin_queue_is_never_coalesced),
        cmocka_unit_test(the_pin_is_a_level),
        cmocka_unit_test(the_pin_falls_within_the_doorbell_write),
        cmocka_unit_test(the_pin_falls_with_a_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
