/* SPDX-License-Identifier: MIT
 *
 * A controller is saved, and goes on elsewhere as if nothing had been.
 */
#include "test_nvme_save.h"

static const struct rig_opts one = {0};
static const struct rig_opts three = {.loops = 3};

static unsigned
feature(struct rig *r, bool set, uint8_t fid, uint32_t cdw11, uint32_t *dw0)
{
    return rig_do(
        r, 0,
        rig_admin(set ? NVME_ADMIN_SET_FEATURES : NVME_ADMIN_GET_FEATURES, 0,
                  RIG_HIGH, fid, cdw11),
        dw0);
}

/* ---- It goes on ---- */

static void
a_saved_controller_goes_on(void **state)
{
    struct rig *r = rig_ready(&one);
    struct save s;

    (void)state;
    use_block(r, 1, 3);
    save_ok(r, &s);
    assert_memory_equal(s.blob, "StrataNV\1\0\0\0", 12);
    use_block(r, 1, 4);
    free(s.blob);
    save_ok(r, &s);
    free(s.blob);
    rig_disable(r);
    rig_enable(r);
    rig_free(r);
}

/* Queues stand anywhere, one has wrapped an odd number of times. */
static void
io_goes_on_elsewhere(void **state)
{
    struct rig *r = rig_ready(&three);

    (void)state;
    rig_pair(r, 2, 5, 7);
    rig_pair(r, 3, 64, 64);
    for (unsigned i = 0; i < 9; i++)
        use_block(r, 2, 100 + i);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned qid = 1; qid <= 3; qid++)
            for (unsigned i = 0; i <= round; i++)
                use_block(r, qid, round * 10 + i);
        r = move(r, round % 2 ? &one : &three);
    }
    use_block(r, 2, 1);
    /* What was created can be deleted and made again. */
    assert_int_equal(rig_delete_sq(r, 2), NVME_OK);
    assert_int_equal(rig_delete_cq(r, 1),
                     NVME_INVALID_QUEUE_DELETION | NVME_DNR);
    assert_int_equal(rig_delete_cq(r, 2), NVME_OK);
    rig_pair(r, 2, 32, 32);
    use_block(r, 2, 2);
    rig_disable(r);
    rig_enable(r);
    rig_free(r);
}

/* Submitted while it is saved: carried out here or there, once. */
static void
what_was_not_fetched_is_not_lost(void **state)
{
    struct rig *r = rig_ready(&one), *to;
    struct save s;
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    (void)state;
    st_nvme_save(r->nvme, SAVE_NS, &s.blob, &s.len, &c);
    while (rc == RIG_PENDING) {
        if (r->q[1].tail < 40)
            rig_submit(r, 1, rig_rw(NVME_WRITE, r->q[1].tail, 1, RIG_DATA));
        rig_step(r);
    }
    assert_int_equal(rc, 0);
    to = successor(r, &one);
    rig_free(r);
    assert_int_equal(restore(to, &s), 0);
    free(s.blob);
    /* A ring after the save is lost with the process: ring once more. */
    rig_write(to, NVME_REG_DOORBELLS + 8, 4, to->q[1].tail);
    for (uint32_t i = 0; i < to->q[1].tail; i++) {
        struct nvme_cqe e = rig_reap(to, 1);

        assert_int_equal(rig_status(&e), NVME_OK);
        assert_int_equal(le16_get(e.cid), i);
    }
    use_block(to, 1, 9);
    rig_free(to);
}

static void
completions_that_were_not_taken_are_not_posted_again(void **state)
{
    struct rig *r = rig_ready(&one);
    struct nvme_cqe e;

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    r = move(r, &one);
    for (unsigned i = 0; i < 5; i++) {
        e = rig_reap(r, 1);
        assert_int_equal(le16_get(e.cid), i);
    }
    rig_steps(r, 200);
    assert_false(rig_peek(r, 1, &e));
    use_block(r, 1, 8);
    rig_free(r);
}

/* A completion queue that is full stays so. */
static void
a_full_completion_queue_is_full_elsewhere(void **state)
{
    struct rig *r = rig_ready(&one);

    (void)state;
    rig_pair(r, 2, 32, 4);
    for (unsigned i = 0; i < 20; i++)
        rig_submit(r, 2, rig_rw(NVME_READ, i, 1, RIG_DATA));
    rig_steps(r, 500);
    r = move(r, &one);
    rig_steps(r, 500);
    for (unsigned i = 0; i < 20; i++) {
        struct nvme_cqe e = rig_reap(r, 2);

        assert_int_equal(le16_get(e.cid), i);
    }
    use_block(r, 2, 8);
    rig_free(r);
}

static void
shadow_doorbells_go_on(void **state)
{
    struct rig *r = rig_ready(&three);

    (void)state;
    rig_shadow(r);
    rig_pair(r, 2, 16, 16);
    for (unsigned i = 0; i < 20; i++)
        use_block(r, 2, i);
    r = move(r, &three);
    for (unsigned i = 0; i < 20; i++) {
        use_block(r, 1, i);
        use_block(r, 2, i);
    }
    /* Asleep, it asks for a ring, and gets one. */
    rig_pass(r, 100000000);
    use_block(r, 2, 5);
    assert_true(rig_counter(r, "shadow_doorbells") > 0);
    rig_free(r);
}

static void
mapped_doorbells_go_on(void **state)
{
    struct rig_opts o = {.nvme.mapped = true};
    struct rig *r = rig_ready(&o);

    (void)state;
    use_block(r, 1, 3);
    r = move(r, &o);
    use_block(r, 1, 4);
    rig_free(r);
}

static void
features_and_counters_go_on(void **state)
{
    uint8_t *page;
    struct rig *r = rig_ready(&one);
    uint32_t dw0;
    uint64_t v;

    (void)state;
    assert_int_equal(feature(r, true, 0x04, 0x150, NULL), NVME_OK);
    assert_int_equal(feature(r, true, 0x08, 0x0305, NULL), NVME_OK);
    assert_int_equal(feature(r, true, 0x09, 1 << 16 | 2, NULL), NVME_OK);
    assert_int_equal(feature(r, true, 0x06, 0, NULL), NVME_OK);
    memset(rig_at(r, RIG_HIGH), 0x5a, 16);
    assert_int_equal(feature(r, true, 0x81, 1, NULL), NVME_OK);
    for (unsigned i = 0; i < 3; i++)
        use_block(r, 1, i);
    /* An error for the log. */
    assert_int_equal(
        rig_do(r, 1, rig_rw(NVME_READ, 1 << 30, 1, RIG_DATA), NULL),
        NVME_LBA_OUT_OF_RANGE | NVME_DNR);
    r = move(r, &three);
    assert_int_equal(feature(r, false, 0x04, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 0x150);
    assert_int_equal(feature(r, false, 0x08, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 0x0305);
    assert_int_equal(feature(r, false, 0x09, 2, &dw0), NVME_OK);
    assert_int_equal(dw0, 1 << 16 | 2);
    assert_int_equal(feature(r, false, 0x09, 1, &dw0), NVME_OK);
    assert_int_equal(dw0, 1);
    assert_int_equal(feature(r, false, 0x06, 0, &dw0), NVME_OK);
    assert_int_equal(dw0, 0);
    memset(rig_at(r, RIG_HIGH), 0, 16);
    assert_int_equal(feature(r, false, 0x81, 1, NULL), NVME_OK);
    assert_int_equal(((uint8_t *)rig_at(r, RIG_HIGH))[15], 0x5a);
    page = rig_at(r, RIG_HIGH);
    assert_int_equal(rig_do(r, 0,
                            rig_admin(NVME_ADMIN_GET_LOG_PAGE, UINT32_MAX,
                                      RIG_HIGH, 127 << 16 | 2, 0),
                            NULL),
                     NVME_OK);
    memcpy(&v, page + 64, 8);
    assert_int_equal(v, 3); /* reads */
    memcpy(&v, page + 80, 8);
    assert_int_equal(v, 3);
    memcpy(&v, page + 176, 8);
    assert_int_equal(v, 1); /* errors */
    use_block(r, 1, 9);     /* writes through, now: a flush each */
    rig_free(r);
}

static void
requests_for_events_wait_elsewhere(void **state)
{
    struct rig *r = rig_ready(&one);
    struct nvme_cqe e;
    uint16_t first;

    (void)state;
    first = rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    e = rig_reap(r, 0); /* the namespace that was there at first is news */
    assert_int_equal(le16_get(e.cid), first);
    first = rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_steps(r, 100);
    r = move(r, &three);
    /* Told once, until the log is read. */
    assert_int_equal(st_testnode_set_size(r->node, RIG_DISK / 2), 0);
    rig_steps(r, 300);
    assert_false(rig_peek(r, 0, &e));
    rig_submit(r, 0,
               rig_admin(NVME_ADMIN_GET_LOG_PAGE, UINT32_MAX, RIG_HIGH,
                         1023 << 16 | 4, 0));
    e = rig_reap(r, 0);
    assert_int_equal(rig_status(&e), NVME_OK);
    assert_int_equal(*(uint32_t *)rig_at(r, RIG_HIGH), 1);
    assert_int_equal(st_testnode_set_size(r->node, RIG_DISK), 0);
    e = rig_reap(r, 0);
    assert_int_equal(le16_get(e.cid), first); /* the oldest */
    assert_int_equal(le32_get(e.dw0), 4 << 16 | 2);
    /* Two were saved and two more fit. */
    for (unsigned i = 0; i < 3; i++)
        rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    e = rig_reap(r, 0);
    assert_int_equal(rig_status(&e), NVME_AER_LIMIT | NVME_DNR);
    rig_free(r);
}

/* The first of a fused pair waits for its second, here and there. */
static void
half_a_fused_pair_waits_elsewhere(void **state)
{
    struct nvme_sqe first = rig_rw(NVME_COMPARE, 7, 1, RIG_DATA);
    struct nvme_sqe second = rig_rw(NVME_WRITE, 7, 1, RIG_HIGH);
    struct rig *r = rig_ready(&one);
    struct nvme_cqe e;
    uint16_t cid;

    (void)state;
    memset(rig_at(r, RIG_DATA), 0, 512);
    memset(rig_at(r, RIG_HIGH), 0x77, 512);
    first.flags = 1;
    second.flags = 2;
    cid = rig_submit(r, 1, first);
    rig_steps(r, 200);
    r = move(r, &one);
    rig_steps(r, 200);
    assert_false(rig_peek(r, 1, &e));
    rig_submit(r, 1, second);
    e = rig_reap(r, 1);
    assert_int_equal(le16_get(e.cid), cid);
    assert_int_equal(rig_status(&e), NVME_OK);
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    assert_int_equal(st_testnode_bytes(r->node)[7 * 512], 0x77);
    rig_free(r);
}

static void
interrupts_that_are_pending_are_delivered_elsewhere(void **state)
{
    struct rig *r = rig_ready(&one);
    struct st_access mask = {
        .offset = 1 * 16 + 12, .len = 4, .write = true, .value = 1};

    (void)state;
    assert_true(st_pci_access(r->pci, 4, &mask));
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, st_pci_pending(r->pci, 1));
    r = move(r, &one);
    assert_true(st_pci_pending(r->pci, 1));
    assert_int_equal(atomic_load(&r->msix[1]), 0);
    mask.value = 0;
    assert_true(st_pci_access(r->pci, 4, &mask));
    assert_int_equal(atomic_load(&r->msix[1]), 1);
    rig_reap(r, 1);
    use_block(r, 1, 2);
    assert_true(atomic_load(&r->msix[1]) > 1);
    rig_free(r);
}

static void
the_pin_follows(void **state)
{
    struct rig_opts o = {.nvme.intx = true};
    struct rig *r = rig_ready(&o);

    (void)state;
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, atomic_load(&r->level));
    r = move(r, &o);
    rig_until(r, atomic_load(&r->level));
    rig_reap(r, 1);
    rig_until(r, !atomic_load(&r->level));
    rig_free(r);
}

/* Held back by coalescing: out before it is saved. */
static void
coalesced_interrupts_are_not_held_over_a_save(void **state)
{
    struct rig *r = rig_ready(&one);
    struct nvme_cqe e;
    struct save s;

    (void)state;
    assert_int_equal(feature(r, true, 0x08, 200 << 8 | 200, NULL), NVME_OK);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, rig_peek(r, 1, &e));
    assert_int_equal(atomic_load(&r->msix[1]), 0);
    save_ok(r, &s);
    free(s.blob);
    assert_int_equal(atomic_load(&r->msix[1]), 1);
    rig_free(r);
}

/* ---- Other states ---- */

static void
a_disabled_controller_is_saved(void **state)
{
    struct rig *r = rig_new(&one);

    (void)state;
    rig_write(r, NVME_REG_AQA, 4, 0x00070007);
    rig_write(r, NVME_REG_ASQ, 8, 0x123456000);
    rig_write(r, NVME_REG_CC, 4, RIG_CC);
    r = move(r, &three);
    assert_int_equal(rig_read(r, NVME_REG_AQA, 4), 0x00070007);
    assert_int_equal(rig_read(r, NVME_REG_ASQ, 8), 0x123456000);
    assert_int_equal(rig_read(r, NVME_REG_CC, 4), RIG_CC);
    assert_int_equal(rig_csts(r), 0);
    rig_enable(r);
    rig_pair(r, 1, 8, 8);
    use_block(r, 1, 1);
    rig_free(r);
}

static void
a_failed_controller_is_saved(void **state)
{
    struct rig *r = rig_ready(&one);

    (void)state;
    rig_disable(r);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | 1 << NVME_CC_MPS_SHIFT | NVME_CC_EN);
    rig_until(r, rig_csts(r) & NVME_CSTS_CFS);
    r = move(r, &one);
    assert_int_equal(rig_csts(r), NVME_CSTS_CFS);
    rig_write(r, NVME_REG_CC, 4, 0);
    rig_until(r, !rig_csts(r));
    rig_enable(r);
    rig_free(r);
}

static void
a_controller_that_was_shut_down_is_saved(void **state)
{
    struct rig *r = rig_ready(&one);

    (void)state;
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN | 1 << NVME_CC_SHN_SHIFT);
    r = move(r, &one); /* waits for the flush */
    assert_int_equal(rig_csts(r), NVME_CSTS_RDY | 2 << NVME_CSTS_SHST_SHIFT);
    rig_disable(r);
    rig_enable(r);
    rig_free(r);
}

/* ---- What is under way ---- */

static void
a_save_waits_for_commands(void **state)
{
    struct rig *r = rig_ready(&one);
    struct st_nvme_call c = {.done = rig_called};
    struct save s;
    int rc = RIG_PENDING;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_WRITE, 5, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    c.arg = &rc;
    st_nvme_save(r->nvme, SAVE_NS, &s.blob, &s.len, &c);
    rig_steps(r, 500);
    assert_int_equal(rc, RIG_PENDING);
    st_testnode_hang(r->node, false);
    rig_until(r, rc != RIG_PENDING);
    assert_int_equal(rc, 0);
    free(s.blob);
    rig_reap(r, 1);
    rig_free(r);
}

static void
a_save_gives_up_and_the_controller_goes_on(void **state)
{
    struct rig *r = rig_ready(&one);
    struct save s;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_WRITE, 5, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    assert_int_equal(save_within(r, 1000000, &s), -ETIMEDOUT);
    assert_null(s.blob);
    st_testnode_hang(r->node, false);
    rig_reap(r, 1);
    use_block(r, 1, 6);
    save_ok(r, &s);
    free(s.blob);
    rig_free(r);
}

static void
a_reset_while_it_is_saved_is_carried_out(void **state)
{
    struct rig *r = rig_ready(&three);
    struct save s;
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_WRITE, 5, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    st_nvme_save(r->nvme, SAVE_NS, &s.blob, &s.len, &c);
    rig_steps(r, 100);
    st_testnode_hang(r->node, false);
    rig_disable(r);
    rig_until(r, rc != RIG_PENDING);
    assert_int_equal(rc, 0);
    free(s.blob);
    rig_enable(r);
    rig_pair(r, 1, 8, 8);
    use_block(r, 1, 1);
    rig_free(r);
}

/* ---- What is refused ---- */

static void
another_controller_is_refused(void **state)
{
    struct rig_opts o = {0};
    struct rig *r = rig_ready(&one), *to;
    struct save s;

    (void)state;
    save_ok(r, &s);
    o.nvme.cntlid = 3;
    to = successor(r, &o);
    restore_refused(to, &s, "another controller was saved");
    rig_pci_on(to, true);
    rig_enable(to);
    rig_free(to);
    o.nvme.cntlid = 0;
    o.nvme.queues = 3;
    to = successor(r, &o);
    restore_refused(to, &s, "has 7 queues of 1024 entries");
    rig_free(to);
    o.nvme.queues = 0;
    o.nvme.mapped = true;
    to = successor(r, &o);
    restore_refused(to, &s, "differs in its interrupt pin or its doorbells");
    rig_free(to);
    rig_free(r);
    free(s.blob);
}

static void
other_namespaces_are_refused(void **state)
{
    struct rig *r = rig_ready(&one), *to;
    struct save s;
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};
    struct rig_opts large = {.disk.sector = 4096};

    (void)state;
    save_ok(r, &s);
    to = successor(r, &one);
    assert_int_equal(
        st_nvme_add_namespace(to->nvme, 2, to->disk, false, NULL, NULL), 0);
    restore_refused(to, &s, "namespace 2 is new");
    st_nvme_remove_namespace(to->nvme, 1, SAVE_NS, &c);
    rig_until(to, rc != RIG_PENDING);
    restore_refused(to, &s, "namespace 1 is missing");
    assert_int_equal(
        st_nvme_add_namespace(to->nvme, 1, to->disk, true, NULL, NULL), 0);
    restore_refused(to, &s, "namespace 1 has other sectors, or is read-only");
    rig_free(to);
    to = successor(r, &large);
    restore_refused(to, &s, "namespace 1 has other sectors");
    rig_free(to);
    rig_free(r);
    free(s.blob);
}

static void
a_namespace_of_another_size_is_an_event(void **state)
{
    struct rig_opts half = {.disk.size = RIG_DISK / 2};
    struct rig *r = rig_ready(&one);
    struct nvme_cqe e;

    (void)state;
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_reap(r, 0);
    assert_int_equal(rig_do(r, 0,
                            rig_admin(NVME_ADMIN_GET_LOG_PAGE, UINT32_MAX,
                                      RIG_HIGH, 1023 << 16 | 4, 0),
                            NULL),
                     NVME_OK);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    r = move(r, &one);
    rig_steps(r, 300);
    assert_false(rig_peek(r, 0, &e)); /* the same is none */
    r = move(r, &half);
    e = rig_reap(r, 0);
    assert_int_equal(le32_get(e.dw0), 4 << 16 | 2);
    rig_free(r);
}

static void
a_controller_in_use_is_not_restored(void **state)
{
    struct rig *r = rig_ready(&one), *to;
    struct save s;

    (void)state;
    save_ok(r, &s);
    restore_refused(r, &s, "the controller is in use");
    use_block(r, 1, 3);
    to = successor(r, &one);
    rig_pci_on(to, true);
    rig_write(to, NVME_REG_CC, 4, RIG_CC);
    rig_steps(to, 20);
    restore_refused(to, &s, "the controller is in use");
    rig_enable(to);
    rig_free(to);
    rig_free(r);
    free(s.blob);
}

/* A guest that does not wait gets a reset, and nothing of what was saved. */
static void
a_guest_that_is_too_early_gets_a_reset(void **state)
{
    unsigned refused = 0, taken = 0;
    struct rig *r = rig_ready(&three);
    struct save s;

    (void)state;
    save_ok(r, &s);
    for (unsigned at = 0; at < 60; at++) {
        struct rig_opts o = {.loops = 3, .seed = at + 1};
        struct rig *to = successor(r, &o);
        int rc = RIG_PENDING;
        struct st_nvme_call c = {.done = rig_called, .arg = &rc};

        rig_pci_on(to, true);
        st_nvme_restore(to->nvme, s.blob, s.len, &c);
        rig_steps(to, at);
        if (rc == RIG_PENDING)
            rig_write(to, NVME_REG_CC, 4, RIG_CC);
        rig_until(to, rc != RIG_PENDING);
        if (rc) {
            refused++;
            assert_int_equal(rc, -EINVAL);
            rig_pci_on(to, true); /* that was reset, too */
            assert_int_equal(rig_csts(to), 0);
            assert_int_equal(rig_read(to, NVME_REG_ASQ, 8), 0);
        } else {
            taken++;
            rig_disable(to);
        }
        rig_enable(to);
        rig_pair(to, 1, 8, 8);
        use_block(to, 1, 1);
        rig_free(to);
    }
    assert_true(refused > 0 && taken > 0);
    rig_free(r);
    free(s.blob);
}

/* A host that resets it meanwhile has either, and all of it. */
static void
a_reset_comes_before_a_restore_or_after(void **state)
{
    struct rig *r = rig_ready(&three);
    unsigned first = 0;
    struct save s;

    (void)state;
    save_ok(r, &s);
    for (unsigned at = 0; at < 60; at++) {
        struct rig_opts o = {.loops = 3, .seed = at + 1};
        struct rig *to = successor(r, &o);
        int rc = RIG_PENDING;
        struct st_nvme_call c = {.done = rig_called, .arg = &rc};

        st_nvme_restore(to->nvme, s.blob, s.len, &c);
        rig_steps(to, at);
        power_on(to);
        rig_until(to, rc != RIG_PENDING);
        rig_steps(to, 100);
        rig_pci_on(to, true);
        if (rig_csts(to)) { /* it came first: all that was saved is there */
            first++;
            assert_int_equal(rc, 0);
            use_block(to, 1, 1);
            assert_int_equal(rig_delete_sq(to, 1), NVME_OK);
            assert_int_equal(rig_delete_cq(to, 1), NVME_OK);
            rig_disable(to);
        }
        assert_int_equal(rig_read(to, NVME_REG_CC, 4) & NVME_CC_EN, 0);
        rig_enable(to);
        rig_pair(to, 1, 8, 8);
        use_block(to, 1, 1);
        rig_free(to);
    }
    assert_in_range(first, 1, 59);
    rig_free(r);
    free(s.blob);
}

static void
unmapped(struct st_gmem_unmap *u)
{
    u->done = NULL;
}

/* Queues in memory that is not there fail the controller, and no more. */
static void
queues_out_of_reach_fail_it(void **state)
{
    struct rig *r = rig_ready(&one), *to;
    struct st_gmem_unmap u = {.done = unmapped};
    struct save s;

    (void)state;
    save_ok(r, &s);
    to = successor(r, &one);
    rig_free(r);
    assert_int_equal(st_gmem_unmap_all(to->gmem, &u), 0);
    rig_until(to, !u.done);
    assert_int_equal(restore(to, &s), 0);
    free(s.blob);
    rig_write(to, NVME_REG_DOORBELLS + 8, 4, 1);
    rig_until(to, rig_csts(to) & NVME_CSTS_CFS);
    rig_write(to, NVME_REG_CC, 4, 0);
    rig_until(to, !rig_csts(to));
    rig_map(to, RIG_LOW, RIG_LOW_SIZE);
    rig_map(to, RIG_DATA, RIG_DATA_SIZE);
    rig_enable(to);
    rig_free(to);
}

#define TEST(f) cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_saved_controller_goes_on),
        TEST(io_goes_on_elsewhere),
        TEST(what_was_not_fetched_is_not_lost),
        TEST(completions_that_were_not_taken_are_not_posted_again),
        TEST(a_full_completion_queue_is_full_elsewhere),
        TEST(shadow_doorbells_go_on),
        TEST(mapped_doorbells_go_on),
        TEST(features_and_counters_go_on),
        TEST(requests_for_events_wait_elsewhere),
        TEST(half_a_fused_pair_waits_elsewhere),
        TEST(interrupts_that_are_pending_are_delivered_elsewhere),
        TEST(the_pin_follows),
        TEST(coalesced_interrupts_are_not_held_over_a_save),
        TEST(a_disabled_controller_is_saved),
        TEST(a_failed_controller_is_saved),
        TEST(a_controller_that_was_shut_down_is_saved),
        TEST(a_save_waits_for_commands),
        TEST(a_save_gives_up_and_the_controller_goes_on),
        TEST(a_reset_while_it_is_saved_is_carried_out),
        TEST(another_controller_is_refused),
        TEST(other_namespaces_are_refused),
        TEST(a_namespace_of_another_size_is_an_event),
        TEST(a_controller_in_use_is_not_restored),
        TEST(a_guest_that_is_too_early_gets_a_reset),
        TEST(a_reset_comes_before_a_restore_or_after),
        TEST(queues_out_of_reach_fail_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
