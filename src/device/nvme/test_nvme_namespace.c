/* SPDX-License-Identifier: MIT
 *
 * Namespaces that come, go and change, and disks that several controllers
 * have.
 */
#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)
#define SECOND      UINT64_C(1000000000)

static int
add(struct rig *r, uint32_t nsid, uint32_t *out)
{
    struct st_err err;

    return st_nvme_add_namespace(r->nvme, nsid, r->disk, false, out, &err);
}

static int
remove_ns(struct rig *r, uint32_t nsid, uint64_t timeout)
{
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    st_nvme_remove_namespace(r->nvme, nsid, timeout, &c);
    assert_int_equal(rc, RIG_PENDING);
    rig_until(r, rc != RIG_PENDING);
    assert_int_equal(rc < 0, c.err.text[0] != '\0');
    return rc;
}

static unsigned
read_ns(struct rig *r, unsigned qid, uint32_t nsid)
{
    struct nvme_sqe e = rig_rw(NVME_READ, 0, 1, RIG_DATA);

    e.nsid = le32_of(nsid);
    return rig_do(r, qid, e, NULL);
}

static void
numbers_are_checked(void **state)
{
    struct rig *r =
        rig_new(&(struct rig_opts){.no_disk = false, .nvme.namespaces = 4});
    uint32_t nsid = 0;

    (void)state;
    assert_int_equal(add(r, 5, NULL), -EINVAL);
    assert_int_equal(add(r, UINT32_MAX, NULL), -EINVAL);
    assert_int_equal(add(r, 1, NULL), -EEXIST);
    assert_int_equal(add(r, 4, &nsid), 0);
    assert_int_equal(nsid, 4);
    assert_int_equal(add(r, 0, &nsid), 0);
    assert_int_equal(nsid, 2);
    assert_int_equal(add(r, 0, &nsid), 0);
    assert_int_equal(nsid, 3);
    assert_int_equal(add(r, 0, &nsid), -ENOSPC);
    assert_ptr_equal(st_nvme_namespace(r->nvme, 2), r->disk);
    assert_null(st_nvme_namespace(r->nvme, 0));
    assert_null(st_nvme_namespace(r->nvme, 5));
    assert_int_equal(remove_ns(r, 2, SECOND), 0);
    assert_null(st_nvme_namespace(r->nvme, 2));
    assert_int_equal(remove_ns(r, 2, SECOND), -ENOENT);
    assert_int_equal(remove_ns(r, 99, SECOND), -ENOENT);
    assert_int_equal(add(r, 0, &nsid), 0);
    assert_int_equal(nsid, 2);
    assert_int_equal(remove_ns(r, 1, SECOND), 0);
    assert_int_equal(add(r, 0, &nsid), 0);
    assert_int_equal(nsid, 1);
    rig_free(r);
}

static void
namespaces_come_and_go_while_the_guest_runs(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 3});

    (void)state;
    for (unsigned q = 2; q <= 4; q++)
        rig_pair(r, q, 16, 16);
    for (unsigned round = 0; round < 5; round++) {
        assert_int_equal(read_ns(r, 1, 7), DNR(0x00b));
        assert_int_equal(add(r, 7, NULL), 0);
        for (unsigned q = 1; q <= 4; q++)
            assert_int_equal(read_ns(r, q, 7), NVME_OK);
        assert_int_equal(remove_ns(r, 7, SECOND), 0);
        for (unsigned q = 1; q <= 4; q++)
            assert_int_equal(read_ns(r, q, 7), DNR(0x00b));
    }
    assert_int_equal(read_ns(r, 1, 1), NVME_OK);
    rig_free(r);
}

static void
commands_under_way_end_before_removal_does(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};
    struct nvme_cqe e;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    st_nvme_remove_namespace(r->nvme, 1, 10 * SECOND, &c);
    rig_pass(r, SECOND);
    assert_int_equal(rc, RIG_PENDING);
    assert_int_equal(read_ns(r, 1, 1), DNR(0x00b));
    st_testnode_hang(r->node, false);
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    rig_until(r, rc == 0);
    rig_until(r, st_disk_deserted(r->disk));
    rig_free(r);
}

static void
removal_gives_up_and_can_be_asked_again(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    int rc;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    assert_int_equal(remove_ns(r, 1, SECOND), -ETIMEDOUT);
    assert_null(st_nvme_namespace(r->nvme, 1));
    assert_int_equal(add(r, 1, NULL), -EEXIST); /* is still leaving */
    assert_int_equal(remove_ns(r, 1, SECOND), -ETIMEDOUT);
    st_testnode_hang(r->node, false);
    rig_reap(r, 1);
    rc = remove_ns(r, 1, SECOND);
    assert_true(rc == 0 || rc == -ENOENT);
    assert_int_equal(add(r, 1, NULL), 0);
    assert_int_equal(read_ns(r, 1, 1), NVME_OK);
    rig_free(r);
}

/* Which changes there were is read, and the next one is asked for. */
static void
ask_again(struct rig *r)
{
    struct nvme_cqe e;

    assert_int_equal(rig_do(r, 0,
                            rig_admin(NVME_ADMIN_GET_LOG_PAGE, 0, RIG_DATA,
                                      1023 << 16 | 4, 0),
                            NULL),
                     NVME_OK);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_steps(r, 30);
    assert_false(rig_peek(r, 0, &e));
}

static void
a_resize_is_told_and_seen(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_sqe last = rig_rw(NVME_READ, RIG_DISK / 512, 1, RIG_DATA);
    struct nvme_cqe e;
    le64 v;

    (void)state;
    ask_again(r);
    assert_int_equal(rig_do(r, 1, last, NULL), DNR(0x080));
    assert_int_equal(st_testnode_set_size(r->node, 2 * RIG_DISK), 0);
    e = rig_reap(r, 0);
    assert_int_equal(le32_get(e.dw0), 2 | 4 << 16);
    assert_int_equal(rig_do(r, 1, last, NULL), NVME_OK);
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 1, RIG_DATA, 0, 0), NULL),
        NVME_OK);
    memcpy(&v, rig_at(r, RIG_DATA), 8);
    assert_int_equal(le64_get(v), 2 * RIG_DISK / 512);
    rig_free(r);
}

/* Identify Controller's NN: whoever boots asks for each up to it. */
static uint32_t
nn(struct rig *r)
{
    le32 v;

    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0), NULL),
        NVME_OK);
    memcpy(&v, (uint8_t *)rig_at(r, RIG_DATA) + 516, sizeof(v));
    return le32_get(v);
}

static void
their_greatest_number_is_always_the_same(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.nvme.namespaces = 40});

    (void)state;
    assert_int_equal(nn(r), 40);
    assert_int_equal(add(r, 40, NULL), 0);
    assert_int_equal(nn(r), 40);
    assert_int_equal(remove_ns(r, 1, SECOND), 0);
    assert_int_equal(remove_ns(r, 40, SECOND), 0);
    assert_int_equal(nn(r), 40);
    rig_free(r);
}

/* A change is told within so many turns, no time having passed since BEFORE. */
static void
told_within(struct rig *r, unsigned turns, uint64_t before)
{
    uint32_t old = r->q[0].head;
    struct nvme_cqe e;

    while (!rig_peek(r, 0, &e)) {
        assert_true(turns-- > 0);
        rig_step(r);
    }
    assert_int_equal(r->home->now, before);
    rig_ring_cq(r, 0, old);
    assert_int_equal(le32_get(e.dw0), 2 | 4 << 16);
    ask_again(r);
}

static void
changes_are_told_at_once(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint64_t before;

    (void)state;
    ask_again(r);
    for (unsigned round = 0; round < 50; round++) {
        before = r->home->now;
        assert_int_equal(add(r, 7, NULL), 0);
        told_within(r, 1, before);
        before = r->home->now;
        assert_int_equal(
            st_testnode_set_size(r->node, (2 - round % 2) * RIG_DISK), 0);
        told_within(r, 8, before); /* a disk that shrinks drains first */
        before = r->home->now;
        assert_int_equal(remove_ns(r, 7, SECOND), 0);
        told_within(r, 0, before);
    }
    rig_free(r);
}

static void
a_read_only_attachment_takes_no_writes(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_sqe e = rig_rw(NVME_WRITE, 0, 1, RIG_DATA);
    struct st_err err;

    (void)state;
    assert_int_equal(
        st_nvme_add_namespace(r->nvme, 2, r->disk, true, NULL, &err), 0);
    assert_int_equal(rig_do(r, 1, e, NULL), NVME_OK);
    e.nsid = le32_of(2);
    assert_int_equal(rig_do(r, 1, e, NULL), DNR(0x182));
    assert_int_equal(read_ns(r, 1, 2), NVME_OK);
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_FORMAT, 2, 0, 0, 0), NULL),
        DNR(0x182));
    rig_free(r);
}

static void
a_broadcast_flush_reaches_all(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    assert_int_equal(add(r, 9, NULL), 0);
    assert_int_equal(
        rig_do(r, 1, rig_admin(NVME_FLUSH, UINT32_MAX, 0, 0, 0), NULL),
        NVME_OK);
    assert_int_equal(st_testnode_count(r->node, ST_OP_FLUSH), 2);
    rig_free(r);
}

/* Two controllers, one disk: each with a hang of its own. */
static void
controllers_share_a_disk(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
    struct st_nvme_opts o = {.home = r->home,
                             .loops = r->loop,
                             .nloops = 2,
                             .gmem = r->gmem,
                             .cntlid = 1,
                             .shared = true};
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};
    struct st_nvme *other, *mine = r->nvme;
    struct rig_queue q[2];
    struct st_err err;

    (void)state;
    assert_int_equal(st_nvme_create(&o, &other, &err), 0);
    assert_int_equal(
        st_nvme_add_namespace(other, 1, r->disk, false, NULL, &err), 0);
    memset(rig_at(r, RIG_DATA), 0x21, 512);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 5, 1, RIG_DATA), NULL),
                     NVME_OK);
    /* the other one's registers, and rings elsewhere */
    memcpy(q, r->q, sizeof(q));
    r->nvme = other;
    r->pci = st_nvme_pci(other);
    r->pci->host = &r->host;
    rig_pci_on(r, true);
    rig_queue_reset(&r->q[0], RIG_DATA + 0x100000, 8, RIG_DATA + 0x101000, 8);
    rig_write(r, NVME_REG_AQA, 4, 7 << 16 | 7);
    rig_write(r, NVME_REG_ASQ, 8, r->q[0].sq);
    rig_write(r, NVME_REG_ACQ, 8, r->q[0].cq);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_until(r, rig_csts(r) == NVME_CSTS_RDY);
    assert_int_equal(rig_make_cq(r, 1, 8, RIG_DATA + 0x103000, true, 1), 0);
    assert_int_equal(rig_make_sq(r, 1, 8, RIG_DATA + 0x102000, 1), 0);
    rig_queue_reset(&r->q[1], RIG_DATA + 0x102000, 8, RIG_DATA + 0x103000, 8);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 5, 1, RIG_HIGH), NULL),
                     NVME_OK);
    assert_memory_equal(rig_at(r, RIG_HIGH), rig_at(r, RIG_DATA), 512);
    st_nvme_stop(other, SECOND, &c);
    rig_until(r, rc == 0);
    rig_steps(r, 30);
    st_nvme_destroy(other);
    r->nvme = mine;
    r->pci = st_nvme_pci(mine);
    memcpy(r->q, q, sizeof(q));
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 5, 1, RIG_HIGH), NULL),
                     NVME_OK);
    rig_free(r);
}

/* Whatever the order in which loops turn: reads, removals and resets. */
static void
any_order_ends_well(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct rig *r = rig_ready(&(struct rig_opts){
            .seed = seed, .loops = 3, .disk = {.async = true, .seed = seed}});
        struct st_rand rand = st_rand_seed(seed);
        int rc = 0;
        struct st_nvme_call c = {.done = rig_called, .arg = &rc};

        rig_pair(r, 2, 16, 16);
        rig_pair(r, 3, 16, 16);
        for (unsigned i = 0; i < 120; i++) {
            unsigned q = 1 + (unsigned)st_rand_below(&rand, 3);
            struct nvme_cqe e;

            if (!r->q[q].made)
                continue;
            switch (st_rand_below(&rand, 12)) {
            case 0:
                if (rc != RIG_PENDING) {
                    rc = RIG_PENDING;
                    st_nvme_remove_namespace(r->nvme, 1, SECOND, &c);
                }
                break;
            case 1:
                if (rc != RIG_PENDING)
                    add(r, 1, NULL);
                break;
            case 2:
                if (st_rand_below(&rand, 4) == 0) {
                    rig_disable(r);
                    rig_enable(r);
                    for (unsigned k = 1; k <= 3; k++)
                        rig_pair(r, k, 16, 16);
                }
                break;
            case 3:
                if (rig_peek(r, q, &e))
                    rig_write(r, NVME_REG_DOORBELLS + 8 * q + 4, 4,
                              r->q[q].head);
                break;
            default:
                rig_submit(r, q, rig_rw(NVME_READ, i, 1, RIG_DATA));
                break;
            }
            rig_steps(r, (unsigned)st_rand_below(&rand, 20));
        }
        rig_until(r, rc != RIG_PENDING);
        rig_disable(r);
        rig_enable(r);
        rig_free(r);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_checked),
        cmocka_unit_test(namespaces_come_and_go_while_the_guest_runs),
        cmocka_unit_test(commands_under_way_end_before_removal_does),
        cmocka_unit_test(removal_gives_up_and_can_be_asked_again),
        cmocka_unit_test(a_resize_is_told_and_seen),
        cmocka_unit_test(their_greatest_number_is_always_the_same),
        cmocka_unit_test(changes_are_told_at_once),
        cmocka_unit_test(a_read_only_attachment_takes_no_writes),
        cmocka_unit_test(a_broadcast_flush_reaches_all),
        cmocka_unit_test(controllers_share_a_disk),
        cmocka_unit_test(any_order_ends_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
