/* SPDX-License-Identifier: MIT
 *
 * Fused pairs, and Abort, also of half a pair.
 */
#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)

/* ---- Fused pairs ---- */

static struct nvme_sqe
fuse(struct nvme_sqe e, unsigned f)
{
    e.flags = (uint8_t)f;
    return e;
}

static unsigned
reap_status(struct rig *r, uint16_t cid)
{
    struct nvme_cqe e = rig_reap(r, 1);

    assert_int_equal(le16_get(e.cid), cid);
    return rig_status(&e);
}

static void
a_fused_pair_is_one(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint32_t old = r->q[1].tail;

    (void)state;
    memset(rig_at(r, RIG_DATA), 0, 512);
    memset(rig_at(r, RIG_HIGH), 7, 512);
    rig_put(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_put(r, 1, fuse(rig_rw(NVME_WRITE, 2, 1, RIG_HIGH), 2));
    rig_ring_sq(r, 1, old);
    assert_int_equal(reap_status(r, 0), NVME_OK);
    assert_int_equal(reap_status(r, 1), NVME_OK);
    assert_int_equal(st_testnode_bytes(r->node)[2 * 512], 7);
    /* It differs now. The second comes in its own time. */
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_steps(r, 20);
    rig_submit(r, 1, fuse(rig_rw(NVME_WRITE, 2, 1, RIG_DATA), 2));
    assert_int_equal(reap_status(r, 2), DNR(0x285));
    assert_int_equal(reap_status(r, 3), DNR(0x009));
    assert_int_equal(st_testnode_bytes(r->node)[2 * 512], 7);
    rig_free(r);
}

static void
a_pair_that_is_none_fails(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_sqe compare = rig_rw(NVME_COMPARE, 2, 1, RIG_DATA);
    struct nvme_sqe write = rig_rw(NVME_WRITE, 2, 1, RIG_DATA);

    (void)state;
    rig_submit(r, 1, fuse(write, 2)); /* no first */
    assert_int_equal(reap_status(r, 0), DNR(0x00a));
    rig_submit(r, 1, fuse(compare, 1));
    rig_submit(r, 1, write); /* no second, and a command by itself */
    assert_int_equal(reap_status(r, 1), DNR(0x00a));
    assert_int_equal(reap_status(r, 2), NVME_OK);
    rig_submit(r, 1, fuse(compare, 1));
    rig_submit(r, 1, fuse(compare, 1));
    rig_submit(r, 1, fuse(write, 2));
    assert_int_equal(reap_status(r, 3), DNR(0x00a));
    assert_int_equal(reap_status(r, 4), NVME_OK);
    assert_int_equal(reap_status(r, 5), NVME_OK);
    rig_submit(r, 1, fuse(compare, 3));
    assert_int_equal(reap_status(r, 6), DNR(0x002));
    write.nsid = le32_of(5);
    rig_submit(r, 1, fuse(compare, 1));
    rig_submit(r, 1, fuse(write, 2));
    assert_int_equal(reap_status(r, 7), DNR(0x009));
    assert_int_equal(reap_status(r, 8), DNR(0x00b));
    rig_free(r);
}

static void
pairs_need_room_for_two(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 16, 2);
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    assert_int_equal(reap_status(r, 0), DNR(0x002));
    rig_pair(r, 2, 16, 3);
    for (unsigned i = 0; i < 12; i++)
        rig_submit(r, 2,
                   i % 2 ? fuse(rig_rw(NVME_WRITE, 2, 1, RIG_DATA), 2)
                         : fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    for (unsigned i = 0; i < 12; i++) {
        struct nvme_cqe e = rig_reap(r, 2);

        assert_int_equal(rig_status(&e), NVME_OK);
        assert_int_equal(le16_get(e.cid), i);
    }
    rig_free(r);
}

/* A first holds room for two completions. Where there is no more, what comes
 * instead of a second must be fetched nevertheless: it needs no more. */
static void
a_first_without_a_second_does_not_stop_its_queue(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 16, 3);
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_steps(r, 20);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    assert_int_equal(reap_status(r, 0), DNR(0x00a));
    assert_int_equal(reap_status(r, 1), NVME_OK);
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_submit(r, 1, fuse(rig_rw(NVME_WRITE, 2, 1, RIG_DATA), 2));
    assert_int_equal(reap_status(r, 2), DNR(0x00a));
    assert_int_equal(reap_status(r, 3), NVME_OK);
    assert_int_equal(reap_status(r, 4), NVME_OK);
    rig_free(r);
}

static void
firsts_of_queues_that_share_one_do_not_stop_them(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 16, 5);
    assert_int_equal(rig_make_sq(r, 2, 16, rig_ring(2, false), 1), NVME_OK);
    rig_queue_reset(&r->q[2], rig_ring(2, false), 16, 0, 0);
    for (unsigned qid = 1; qid <= 2; qid++)
        rig_submit(r, qid, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_steps(r, 20);
    for (unsigned qid = 1; qid <= 2; qid++)
        rig_submit(r, qid, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    for (unsigned i = 0, n[3] = {0}; i < 4; i++) {
        struct nvme_cqe e = rig_reap(r, 1);
        unsigned qid = le16_get(e.sqid);

        assert_in_range(qid, 1, 2);
        assert_int_equal(le16_get(e.cid), n[qid]);
        assert_int_equal(rig_status(&e), n[qid]++ ? NVME_OK : DNR(0x00a));
    }
    rig_free(r);
}

/* ---- Abort ---- */

static unsigned
abort_command(struct rig *r, unsigned sqid, uint16_t cid, uint32_t *dw0)
{
    return rig_do(
        r, 0, rig_admin(NVME_ADMIN_ABORT, 0, 0, (uint32_t)cid << 16 | sqid, 0),
        dw0);
}

static void
abort_ends_what_hangs(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
    uint32_t dw0;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_submit(r, 1, rig_rw(NVME_READ, 1, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 2);
    assert_int_equal(abort_command(r, 1, 1, &dw0), NVME_OK);
    assert_int_equal(dw0, 0);
    assert_int_equal(reap_status(r, 1), NVME_ABORT_REQUESTED);
    assert_int_equal(st_testnode_held(r->node), 1);
    rig_free(r);
}

static void
abort_says_when_it_did_not(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint32_t dw0;

    (void)state;
    st_testnode_cancellable(r->node, false);
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    assert_int_equal(abort_command(r, 1, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 1);
    assert_int_equal(abort_command(r, 1, 77, &dw0), NVME_OK); /* unknown */
    assert_int_equal(dw0, 1);
    assert_int_equal(abort_command(r, 5, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 1);
    assert_int_equal(abort_command(r, 999, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 1);
    st_testnode_hang(r->node, false);
    /* It had been asked to stop, and ran to its end. */
    assert_int_equal(reap_status(r, 0), NVME_OK);
    rig_free(r);
}

static void
abort_finds_what_was_not_fetched(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint32_t dw0;

    (void)state;
    rig_enable(r);
    rig_pair(r, 1, 16, 2);
    for (unsigned i = 0; i < 3; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_steps(r, 50);
    assert_int_equal(abort_command(r, 1, 2, &dw0), NVME_OK);
    assert_int_equal(dw0, 0);
    assert_int_equal(reap_status(r, 0), NVME_OK);
    assert_int_equal(reap_status(r, 1), NVME_OK);
    assert_int_equal(reap_status(r, 2), NVME_ABORT_REQUESTED);
    assert_int_equal(st_testnode_count(r->node, ST_OP_READ), 2);
    rig_free(r);
}

static void
abort_of_half_a_pair(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint32_t dw0;

    (void)state;
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_steps(r, 20);
    assert_int_equal(abort_command(r, 1, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 0);
    assert_int_equal(reap_status(r, 0), NVME_ABORT_REQUESTED);
    rig_free(r);
}

/* No more is posted than there is room for, and no less: commands up to N
 * completions in a queue whose head stays. */
static void
room_is_for(struct rig *r, unsigned n)
{
    uint64_t before = rig_counter(r, "completions");

    for (unsigned i = 0; i < n + 3; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_steps(r, 200);
    assert_int_equal(rig_counter(r, "completions") - before, n);
}

/* A pair of which WHICH, 0 or 1, is aborted before it is fetched. */
static struct rig *
abort_unfetched_half(unsigned which)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint32_t dw0;

    rig_enable(r);
    rig_pair(r, 1, 16, 3);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_steps(r, 50); /* the completion queue is full */
    rig_submit(r, 1, fuse(rig_rw(NVME_COMPARE, 2, 1, RIG_DATA), 1));
    rig_submit(r, 1, fuse(rig_rw(NVME_WRITE, 2, 1, RIG_DATA), 2));
    rig_steps(r, 50);
    assert_int_equal(abort_command(r, 1, (uint16_t)(2 + which), &dw0), NVME_OK);
    assert_int_equal(dw0, 0);
    assert_int_equal(reap_status(r, 0), NVME_OK);
    assert_int_equal(reap_status(r, 1), NVME_OK);
    return r;
}

static void
abort_of_a_second_ends_its_first(void **state)
{
    struct rig *r = abort_unfetched_half(1);

    (void)state;
    assert_int_equal(reap_status(r, 2), NVME_ABORTED_FUSED_FAILED);
    assert_int_equal(reap_status(r, 3), NVME_ABORT_REQUESTED);
    room_is_for(r, 2);
    rig_free(r);
}

static void
abort_of_a_first_leaves_its_second_alone(void **state)
{
    struct rig *r = abort_unfetched_half(0);

    (void)state;
    assert_int_equal(reap_status(r, 2), NVME_ABORT_REQUESTED);
    assert_int_equal(reap_status(r, 3), DNR(0x00a));
    room_is_for(r, 2);
    rig_free(r);
}

static void
five_aborts_at_a_time_are_one_too_many(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    unsigned limit = 0, ok = 0;

    (void)state;
    st_testnode_cancellable(r->node, false);
    st_testnode_hang(r->node, true);
    for (unsigned i = 0; i < 5; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 5);
    for (unsigned i = 0; i < 5; i++)
        rig_submit(r, 0, rig_admin(NVME_ADMIN_ABORT, 0, 0, i << 16 | 1, 0));
    for (unsigned i = 0; i < 5; i++) {
        struct nvme_cqe e = rig_reap(r, 0);

        limit += rig_status(&e) == DNR(NVME_ABORT_LIMIT);
        ok += rig_status(&e) == NVME_OK;
    }
    assert_int_equal(limit, 1);
    assert_int_equal(ok, 4);
    rig_free(r);
}

static void
reset_ends_aborts_under_way(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});

    (void)state;
    st_testnode_cancellable(r->node, false);
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ABORT, 0, 0, 1, 0));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_DELETE_SQ, 0, 0, 1, 0));
    rig_steps(r, 20);
    rig_disable(r);
    rig_enable(r);
    rig_pair(r, 1, 8, 8);
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fused_pair_is_one),
        cmocka_unit_test(a_pair_that_is_none_fails),
        cmocka_unit_test(pairs_need_room_for_two),
        cmocka_unit_test(a_first_without_a_second_does_not_stop_its_queue),
        cmocka_unit_test(firsts_of_queues_that_share_one_do_not_stop_them),
        cmocka_unit_test(abort_ends_what_hangs),
        cmocka_unit_test(abort_says_when_it_did_not),
        cmocka_unit_test(abort_finds_what_was_not_fetched),
        cmocka_unit_test(abort_of_half_a_pair),
        cmocka_unit_test(abort_of_a_second_ends_its_first),
        cmocka_unit_test(abort_of_a_first_leaves_its_second_alone),
        cmocka_unit_test(five_aborts_at_a_time_are_one_too_many),
        cmocka_unit_test(reset_ends_aborts_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
