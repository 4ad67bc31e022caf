/* SPDX-License-Identifier: MIT
 *
 * Doorbells in the guest's memory and in ours: who rings, who looks, who
 * sleeps. Values that are wrong.
 */
#include <sys/mman.h>

#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)

/* Nothing but timers is left. */
static void
settle(struct rig *r)
{
    rig_steps(r, 300);
}

/* ---- Shadow ---- */

static void
shadow_config_checks_its_pages(void **state)
{
    static const struct {
        uint64_t shadow, event;
        unsigned status;
    } c[] = {
        {RIG_DATA + 8, RIG_DATA + 4096, DNR(0x002)},
        {RIG_DATA, RIG_DATA + 4, DNR(0x002)},
        {RIG_DATA, RIG_DATA, DNR(0x002)},
        {RIG_NOWHERE, RIG_DATA, DNR(0x004)},
        {RIG_DATA, RIG_NOWHERE, DNR(0x004)},
        {RIG_DATA, RIG_DATA + 4096, NVME_OK},
    };
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        struct nvme_sqe e =
            rig_admin(NVME_ADMIN_DOORBELL_BUFFER, 0, c[i].shadow, 0, 0);

        e.prp2 = le64_of(c[i].event);
        assert_int_equal(rig_do(r, 0, e, NULL), c[i].status);
    }
    rig_free(r);
}

static void
read_some(struct rig *r, unsigned qid, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(
            rig_do(r, qid, rig_rw(NVME_READ, i, 1, RIG_DATA), NULL), NVME_OK);
}

static void
shadow_works_for_queues_before_and_after(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 3});

    (void)state;
    read_some(r, 1, 5);
    rig_shadow(r);
    /* what it was, in both pages */
    assert_int_equal(atomic_load(rig_word(r, r->shadow, 2)), 5);
    assert_int_equal(atomic_load(rig_word(r, r->shadow, 3)), 5);
    assert_int_equal(atomic_load(rig_word(r, r->event, 2)), 5);
    rig_pair(r, 2, 16, 16);
    rig_pair(r, 3, 16, 16);
    for (unsigned i = 0; i < 100; i++)
        read_some(r, i % 3 + 1, 1);
    settle(r);
    /* Asleep: the event index is the tail. */
    assert_int_equal(atomic_load(rig_word(r, r->event, 2)), r->q[1].tail);
    assert_int_equal(atomic_load(rig_word(r, r->event, 4)), r->q[2].tail);
    assert_in_range(rig_counter(r, "shadow_doorbells"), 60, 100);
    rig_free(r);
}

/* What an earlier life left in the pages does not matter. */
static void
a_new_queue_begins_with_clean_doorbells(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    memset(rig_at(r, RIG_LOW + RIG_LOW_SIZE - 0x2000), 0x33, 0x2000);
    rig_shadow(r);
    rig_pair(r, 1, 16, 16);
    assert_int_equal(atomic_load(rig_word(r, r->shadow, 2)), 0);
    assert_int_equal(atomic_load(rig_word(r, r->shadow, 3)), 0);
    assert_int_equal(atomic_load(rig_word(r, r->event, 2)), 0);
    read_some(r, 1, 40);
    rig_free(r);
}

static void
a_busy_driver_rarely_rings(void **state)
{
    struct rig *r =
        rig_new(&(struct rig_opts){.nvme.poll_us = 50, .disk.async = true});
    struct rig_queue *q = &r->q[1];
    unsigned sent = 0, got = 0;

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 64, 64);
    atomic_store(&r->rings, 0);
    while (got < 4000) {
        uint32_t old = q->tail, head = q->head;
        struct nvme_cqe e;

        while (sent < 4000 && sent - got < 32)
            rig_put(r, 1, rig_rw(NVME_READ, sent++ % 64, 1, RIG_DATA));
        if (q->tail != old)
            rig_ring_sq(r, 1, old);
        rig_until(r, rig_peek(r, 1, &e));
        do
            got++;
        while (rig_peek(r, 1, &e));
        rig_ring_cq(r, 1, head);
    }
    /* Once in each lap of either ring, and when it fell asleep. */
    assert_in_range(atomic_load(&r->rings), 1, 200);
    rig_free(r);
}

static void
a_ring_means_look_and_no_more(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct nvme_cqe e;

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 16, 16);
    read_some(r, 1, 3);
    settle(r);
    for (unsigned i = 0; i < 2; i++)
        rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    atomic_store(rig_word(r, r->shadow, 2), r->q[1].tail);
    rig_write(r, NVME_REG_DOORBELLS + 8, 4, 4); /* older than the page */
    rig_reap(r, 1);
    rig_reap(r, 1);
    settle(r);
    assert_false(rig_peek(r, 1, &e));
    rig_free(r);
}

static void
the_admin_queue_always_goes_by_registers(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    atomic_store(rig_word(r, r->shadow, 0), 7); /* nobody means that */
    settle(r);
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0), NULL),
        NVME_OK);
    /* and is copied to the page */
    assert_int_equal(atomic_load(rig_word(r, r->shadow, 0)), r->q[0].tail);
    rig_free(r);
}

static void
a_full_completion_queue_asks_for_its_head(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 32, 4);
    assert_int_equal(atomic_load(rig_word(r, r->event, 3)), UINT32_MAX);
    for (unsigned i = 0; i < 20; i++)
        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
    settle(r);
    assert_int_equal(atomic_load(rig_word(r, r->event, 3)), 0);
    for (unsigned i = 0; i < 20; i++)
        rig_reap(r, 1);
    settle(r);
    assert_int_equal(atomic_load(rig_word(r, r->event, 3)), UINT32_MAX);
    rig_free(r);
}

/* A worker that looks all the time still asks for them: the pin falls when the
 * guest rings, and not when the worker gets to look. */
static void
a_pin_asks_for_every_head(void **state)
{
    struct rig *r =
        rig_new(&(struct rig_opts){.nvme.intx = true, .nvme.poll_us = 1000000});
    struct rig_queue *q = &r->q[1];

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 16, 16);
    for (unsigned i = 0; i < 40; i++) {
        uint32_t head = q->head;
        struct nvme_cqe e;

        rig_submit(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
        rig_until(r, rig_peek(r, 1, &e));
        assert_true(atomic_load(&r->level));
        rig_ring_cq(r, 1, head);
        assert_false(atomic_load(&r->level));
    }
    rig_free(r);
}

/* After a reset of either kind the old pages belong to the guest. */
static void
reset_lets_the_pages_go(void **state)
{
    for (int function = 0; function < 2; function++) {
        struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
        uint64_t pages = RIG_LOW + RIG_LOW_SIZE - 0x2000;
        uint8_t *p = rig_at(r, pages);

        (void)state;
        rig_shadow(r);
        rig_pair(r, 2, 16, 16);
        read_some(r, 2, 3);
        if (function) {
            st_pci_config_write(r->pci, r->pci->express + 8, 2, 0x8000);
            rig_until(r, !atomic_load(&r->pci->resetting));
            rig_pci_on(r, true);
        }
        rig_disable(r);
        memset(p, 0xa5, 0x2000);
        rig_enable(r);
        rig_pair(r, 1, 16, 16);
        rig_pair(r, 2, 16, 16);
        read_some(r, 1, 20);
        read_some(r, 2, 20);
        settle(r);
        for (unsigned i = 0; i < 0x2000; i++)
            assert_int_equal(p[i], 0xa5);
        rig_free(r);
    }
}

static void
a_second_config_replaces_the_first(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.loops = 2});
    uint8_t *old;

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 16, 16);
    read_some(r, 1, 5);
    settle(r);
    old = rig_at(r, r->shadow);
    for (uint64_t at = RIG_DATA + 0x10000; at <= RIG_DATA + 0x20000;
         at += 0x10000) {
        struct nvme_sqe e = rig_admin(NVME_ADMIN_DOORBELL_BUFFER, 0, at, 0, 0);

        e.prp2 = le64_of(at + 0x1000);
        assert_int_equal(rig_do(r, 0, e, NULL), NVME_OK);
        assert_int_equal(atomic_load(rig_word(r, at, 2)), r->q[1].tail);
        r->shadow = at;
        r->event = at + 0x1000;
        memset(old, 0x77, 0x2000);
        read_some(r, 1, 20);
        settle(r);
        assert_int_equal(old[8], 0x77);
        assert_int_equal(old[0x1008], 0x77);
        old = rig_at(r, at);
    }
    rig_free(r);
}

static void
a_sleeping_worker_does_not_turn(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.poll_us = 50});
    uint64_t turns;

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 16, 16);
    read_some(r, 1, 5);
    settle(r);
    turns = rig_counter(r, "turns");
    rig_pass(r, UINT64_C(10000000000));
    assert_int_equal(rig_counter(r, "turns"), turns);
    read_some(r, 1, 5); /* rings */
    rig_free(r);
}

/* ---- Mapped ---- */

static void
mapped_doorbells_are_found_by_looking(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){
        .nvme.mapped = true, .nvme.poll_us = 20, .loops = 2});
    _Atomic uint32_t *page;
    uint64_t size, turns;
    int fd = st_nvme_doorbells(r->nvme, &size);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(size, 4096);
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                NVME_REG_DOORBELLS);
    assert_true(page != MAP_FAILED);
    rig_enable(r);
    rig_pair(r, 1, 16, 4);
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_DOORBELL_BUFFER, 0, RIG_DATA, 0, 0),
               NULL),
        DNR(0x001));
    for (unsigned i = 0; i < 100; i++) {
        struct nvme_cqe e;

        rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
        atomic_store(&page[2], r->q[1].tail);
        rig_until(r, rig_peek(r, 1, &e));
        assert_int_equal(rig_status(&e), NVME_OK);
        atomic_store(&page[3], r->q[1].head);
    }
    /* Long without work it looks a hundred times a second. */
    rig_pass(r, UINT64_C(3000000000));
    turns = rig_counter(r, "turns");
    rig_pass(r, UINT64_C(1000000000));
    assert_in_range(rig_counter(r, "turns") - turns, 90, 110);
    /* Disabled, not at all, and the page is clean. */
    rig_disable(r);
    for (unsigned i = 0; i < size / 4; i++)
        assert_int_equal(atomic_load(&page[i]), 0);
    settle(r);
    turns = rig_counter(r, "turns");
    rig_pass(r, UINT64_C(1000000000));
    assert_int_equal(rig_counter(r, "turns"), turns);
    munmap((void *)(uintptr_t)page, size);
    rig_free(r);
}

static void
mapped_doorbells_may_hold_nonsense(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.nvme.mapped = true});
    _Atomic uint32_t *page;
    uint64_t size;
    int fd = st_nvme_doorbells(r->nvme, &size);
    struct nvme_cqe e;

    (void)state;
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                NVME_REG_DOORBELLS);
    rig_enable(r);
    rig_pair(r, 1, 16, 4);
    for (unsigned i = 4; i < size / 4; i++)
        atomic_store(&page[i], 0xdeadbeef); /* queues that do not exist */
    atomic_store(&page[2], 0xffffffff);
    atomic_store(&page[3], 3); /* nothing was posted */
    rig_pass(r, 10000000);
    assert_int_equal(rig_counter(r, "protocol_errors"), 1);
    rig_put(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    atomic_store(&page[2], 1);
    rig_until(r, rig_peek(r, 1, &e));
    assert_int_equal(rig_status(&e), NVME_OK);
    munmap((void *)(uintptr_t)page, size);
    rig_free(r);
}

static void
polling_for_ever_needs_no_ring(void **state)
{
    struct rig *r =
        rig_new(&(struct rig_opts){.nvme.poll_us = ST_NVME_POLL_ALWAYS});
    uint64_t arms;

    (void)state;
    rig_enable(r);
    rig_shadow(r);
    rig_pair(r, 1, 16, 16);
    read_some(r, 1, 2);
    rig_pass(r, 10000000);
    arms = rig_counter(r, "arms");
    for (unsigned i = 0; i < 10; i++) {
        struct nvme_cqe e;

        rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
        atomic_store(rig_word(r, r->shadow, 2), r->q[1].tail);
        rig_until(r, rig_peek(r, 1, &e));
        atomic_store(rig_word(r, r->shadow, 3), r->q[1].head);
        rig_pass(r, 1000000);
    }
    assert_int_equal(rig_counter(r, "arms"), arms);
    rig_free(r);
}

/* ---- Values that are wrong ---- */

static uint32_t
await_event(struct rig *r)
{
    struct nvme_cqe e = rig_reap(r, 0);

    assert_int_equal(rig_status(&e), NVME_OK);
    return le32_get(e.dw0);
}

static void
read_log(struct rig *r, uint8_t lid, unsigned bytes)
{
    assert_int_equal(rig_do(r, 0,
                            rig_admin(NVME_ADMIN_GET_LOG_PAGE, UINT32_MAX,
                                      RIG_DATA, (bytes / 4 - 1) << 16 | lid, 0),
                            NULL),
                     NVME_OK);
}

static void
wrong_doorbells_are_events(void **state)
{
    static const struct {
        unsigned db;
        uint32_t value, info;
    } c[] = {
        {2, 64, 1},         /* as large as the queue */
        {2, 0xffffffff, 1}, /* larger */
        {3, 64, 1},
        {3, 5, 1}, /* nothing was posted that could be taken */
        {4, 1, 0}, /* no such queue */
        {5, 1, 0},
        {0x3ff, 0, 0},
    };
    struct rig *r = rig_ready(&(struct rig_opts){.nvme.intx = true});

    (void)state;
    for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
        uint32_t dw0;
        le16 sqid;

        rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
        rig_steps(r, 20);
        rig_write(r, NVME_REG_DOORBELLS + c[i].db * 4, 4, c[i].value);
        do /* the namespace that was added comes first */
            dw0 = await_event(r);
        while ((dw0 & 7) == 2 &&
               (read_log(r, 4, 4096),
                rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0)),
                true));
        assert_int_equal(dw0, c[i].info << 8 | 1 << 16);
        read_log(r, 1, 64);
        assert_int_equal(((uint8_t *)rig_at(r, RIG_DATA))[0], i + 1);
        memcpy(&sqid, (uint8_t *)rig_at(r, RIG_DATA) + 8, sizeof(sqid));
        assert_int_equal(le16_get(sqid), c[i].db / 2);
        if (c[i].db == 3) /* where the head really is */
            rig_write(r, NVME_REG_DOORBELLS + 12, 4, r->q[1].head);
    }
    assert_int_equal(rig_csts(r), NVME_CSTS_RDY);
    read_some(r, 1, 3);
    rig_free(r);
}

static void
doorbells_of_a_disabled_controller_are_nothing(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    for (unsigned i = 0; i < 0x400; i++)
        rig_write(r, NVME_REG_DOORBELLS + i * 4, 4, i);
    rig_write(r, NVME_REG_DOORBELLS, 8, UINT64_MAX);
    settle(r);
    rig_enable(r);
    read_log(r, 1, 64);
    assert_int_equal(((uint8_t *)rig_at(r, RIG_DATA))[0], 0);
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shadow_config_checks_its_pages),
        cmocka_unit_test(shadow_works_for_queues_before_and_after),
        cmocka_unit_test(a_new_queue_begins_with_clean_doorbells),
        cmocka_unit_test(a_busy_driver_rarely_rings),
        cmocka_unit_test(a_ring_means_look_and_no_more),
        cmocka_unit_test(the_admin_queue_always_goes_by_registers),
        cmocka_unit_test(a_full_completion_queue_asks_for_its_head),
        cmocka_unit_test(a_pin_asks_for_every_head),
        cmocka_unit_test(reset_lets_the_pages_go),
        cmocka_unit_test(a_second_config_replaces_the_first),
        cmocka_unit_test(a_sleeping_worker_does_not_turn),
        cmocka_unit_test(mapped_doorbells_are_found_by_looking),
        cmocka_unit_test(mapped_doorbells_may_hold_nonsense),
        cmocka_unit_test(polling_for_ever_needs_no_ring),
        cmocka_unit_test(wrong_doorbells_are_events),
        cmocka_unit_test(doorbells_of_a_disabled_controller_are_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
