/* SPDX-License-Identifier: MIT
 *
 * A host saves the whole machine: the controller stays as it was saved until
 * the host lets it go on, or goes on elsewhere.
 */
#include "test_nvme_save.h"

static const struct rig_opts one = {0};
static const struct rig_opts three = {.loops = 3};

struct saving {
    struct st_pci_saving s; /* first */
    int rc;
};

static void
saving_done(struct st_pci_saving *s, int rc)
{
    ((struct saving *)s)->rc = rc;
}

static void
hold(struct rig *r, struct saving *s)
{
    *s = (struct saving){.s = {.done = saving_done, .timeout_ns = SAVE_NS},
                         .rc = RIG_PENDING};
    r->pci->ops->save(r->pci, &s->s);
    assert_int_equal(s->rc, RIG_PENDING); /* never within the call */
    rig_until(r, s->rc != RIG_PENDING);
    if (s->rc)
        fail_msg("%s", s->s.err.text);
}

static void
thaw(struct rig *r)
{
    r->pci->ops->thaw(r->pci);
}

/* All that the guest's memory holds. */
static uint64_t
memory_of(struct rig *r)
{
    uint64_t h = 1;

    for (size_t i = 0; i < RIG_LOW_SIZE + 2 * RIG_DATA_SIZE; i++)
        h = (h ^ r->ram[i]) * UINT64_C(0x100000001b3);
    return h;
}

static void
what_is_rung_waits(const struct rig_opts *o, bool shadow)
{
    struct rig *r = rig_ready(o);
    struct saving s;
    uint64_t before;
    struct nvme_cqe e;

    if (shadow)
        rig_shadow(r);
    hold(r, &s);
    free(s.s.blob);
    memset(rig_at(r, RIG_DATA), 0x5a, 512);
    rig_submit(r, 1, rig_rw(NVME_WRITE, 7, 1, RIG_DATA));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_HIGH, 1, 0));
    before = memory_of(r);
    rig_pass(r, UINT64_C(2000000000));
    assert_int_equal(memory_of(r), before);
    assert_int_equal(st_testnode_bytes(r->node)[7 * 512], 0);
    assert_false(rig_peek(r, 1, &e));
    thaw(r);
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    e = rig_reap(r, 0);
    assert_int_equal(rig_status(&e), NVME_OK);
    assert_int_equal(st_testnode_bytes(r->node)[7 * 512], 0x5a);
    rig_free(r);
}

static void
doorbells_wait(void **state)
{
    const struct rig_opts mapped = {.nvme.mapped = true};
    const struct rig_opts polls = {.nvme.poll_us = 1000, .loops = 2};

    (void)state;
    what_is_rung_waits(&one, false);
    what_is_rung_waits(&three, true);
    what_is_rung_waits(&mapped, false);
    what_is_rung_waits(&polls, true);
}

static void
events_wait(void **state)
{
    struct rig *r = rig_ready(&one);
    struct saving s;
    struct nvme_cqe e;
    uint64_t before;

    (void)state;
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_reap(r, 0); /* the namespace that was there at first is news */
    assert_int_equal(rig_do(r, 0,
                            rig_admin(NVME_ADMIN_GET_LOG_PAGE, UINT32_MAX,
                                      RIG_HIGH, 1023 << 16 | 4, 0),
                            NULL),
                     NVME_OK);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_steps(r, 100);
    hold(r, &s);
    free(s.s.blob);
    before = memory_of(r);
    assert_int_equal(st_testnode_set_size(r->node, RIG_DISK / 2), 0);
    rig_pass(r, UINT64_C(1000000000));
    assert_false(rig_peek(r, 0, &e));
    assert_int_equal(memory_of(r), before);
    thaw(r);
    e = rig_reap(r, 0);
    assert_int_equal(le32_get(e.dw0), 4 << 16 | 2);
    rig_free(r);
}

/* A second save of one that is held, another that does not hold: it stays. */
static void
it_is_held_until_the_host_says_so(void **state)
{
    struct rig *r = rig_ready(&one);
    struct nvme_cqe e;
    struct saving s;
    struct save t;

    (void)state;
    hold(r, &s);
    free(s.s.blob);
    hold(r, &s);
    free(s.s.blob);
    save_ok(r, &t);
    free(t.blob);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_steps(r, 300);
    assert_false(rig_peek(r, 1, &e));
    thaw(r);
    thaw(r); /* harmless */
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    hold(r, &s);
    free(s.s.blob);
    thaw(r);
    use_block(r, 1, 5);
    rig_free(r);
}

static void
a_reset_while_it_is_held(void **state)
{
    struct rig *r = rig_ready(&three);
    struct saving s;

    (void)state;
    hold(r, &s);
    free(s.s.blob);
    power_on(r);
    rig_pci_on(r, true);
    assert_int_equal(rig_csts(r), 0);
    thaw(r);
    rig_enable(r);
    rig_pair(r, 1, RIG_ENTRIES, RIG_ENTRIES);
    use_block(r, 1, 1);
    rig_free(r);
}

/* The process ends with it: no thaw. */
static void
one_that_is_held_stops(void **state)
{
    struct rig *r = rig_ready(&three);
    struct saving s;

    (void)state;
    hold(r, &s);
    free(s.s.blob);
    rig_submit(r, 1, rig_rw(NVME_WRITE, 7, 1, RIG_DATA));
    rig_free(r);
}

static void
a_save_that_fails_holds_nothing(void **state)
{
    struct rig *r = rig_ready(&one);
    struct saving s = {.s = {.done = saving_done, .timeout_ns = 50000000},
                       .rc = RIG_PENDING};
    struct nvme_cqe e;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_steps(r, 100);
    r->pci->ops->save(r->pci, &s.s);
    rig_until(r, s.rc != RIG_PENDING);
    assert_int_equal(s.rc, -ETIMEDOUT);
    assert_non_null(strstr(s.s.err.text, "cannot be saved now"));
    st_testnode_hang(r->node, false);
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    use_block(r, 1, 5);
    rig_free(r);
}

/* What was rung before the save and what was not fetched is carried out once,
 * by the one that goes on. */
static void
it_goes_on_elsewhere(void **state)
{
    struct rig *r = rig_ready(&one), *to;
    struct saving s;

    (void)state;
    use_block(r, 1, 3);
    rig_submit(r, 1, rig_rw(NVME_READ, 3, 1, RIG_DATA));
    hold(r, &s);
    to = successor(r, &three);
    rig_free(r);
    s.rc = RIG_PENDING;
    to->pci->ops->restore(to->pci, &s.s);
    rig_until(to, s.rc != RIG_PENDING);
    if (s.rc)
        fail_msg("%s", s.s.err.text);
    rig_reap(to, 1);
    use_block(to, 1, 4);
    s.rc = RIG_PENDING;
    s.s.len--;
    to->pci->ops->restore(to->pci, &s.s);
    rig_until(to, s.rc != RIG_PENDING);
    assert_int_equal(s.rc, -EINVAL);
    assert_true(*s.s.err.text);
    free(s.s.blob);
    rig_free(to);
}

#define TEST(f) cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(doorbells_wait),
        TEST(events_wait),
        TEST(it_is_held_until_the_host_says_so),
        TEST(a_reset_while_it_is_held),
        TEST(one_that_is_held_stops),
        TEST(a_save_that_fails_holds_nothing),
        TEST(it_goes_on_elsewhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
