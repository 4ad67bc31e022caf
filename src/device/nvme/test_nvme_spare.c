/* SPDX-License-Identifier: MIT
 *
 * Interrupts that are spared: a guest that is at work on what it was told of
 * takes what is new in the same go.
 */
#include "test_nvme_rig.h"

static const struct rig_opts polls = {.nvme.poll_us = 1000000};
static const struct rig_opts naps = {.nvme.poll_us = 10};
static const struct rig_opts sleeps = {0};

static unsigned
told(struct rig *r)
{
    return atomic_load(&r->msix[1]);
}

static struct rig *
ready(const struct rig_opts *o)
{
    struct rig *r = rig_ready(o);

    rig_shadow(r);
    return r;
}

/* A command is carried out, and its completion seen, but not taken. */
static void
complete(struct rig *r)
{
    struct nvme_cqe e;

    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    rig_until(r, rig_peek(r, 1, &e));
    assert_int_equal(rig_status(&e), NVME_OK);
    rig_steps(r, 10);
}

/* The guest has taken what is before HEAD; whoever polls is not rung for. */
static void
take(struct rig *r, uint32_t head)
{
    atomic_store(rig_word(r, r->shadow, 3), head);
    rig_steps(r, 20);
}

/* Two completions; the guest was told of the first, and has taken none. */
static struct rig *
busy(void)
{
    struct rig *r = ready(&polls);

    complete(r);
    assert_int_equal(told(r), 1);
    complete(r);
    assert_int_equal(told(r), 1); /* it is at work */
    return r;
}

static void
a_guest_at_work_is_told_when_it_is_done(void **state)
{
    struct rig *r = busy();

    (void)state;
    take(r, 1);
    assert_int_equal(told(r), 2); /* it has not seen the second */
    take(r, 2);
    assert_int_equal(told(r), 2);
    rig_free(r);
}

static void
what_it_took_meanwhile_needs_no_interrupt(void **state)
{
    struct rig *r = busy();

    (void)state;
    take(r, 2);
    rig_pass(r, 1000000);
    assert_int_equal(told(r), 1);
    assert_int_equal(rig_counter(r, "interrupts_spared"), 1);
    /* The next one is news again. */
    complete(r);
    assert_int_equal(told(r), 2);
    rig_free(r);
}

/* Drivers may be late with what they have taken. */
static void
it_is_not_spared_for_long(void **state)
{
    struct rig *r = busy();

    (void)state;
    rig_pass(r, 60000);
    assert_int_equal(told(r), 2);
    rig_free(r);
}

static void
who_sleeps_spares_none(void **state)
{
    struct rig *r = ready(&naps);

    (void)state;
    complete(r);
    complete(r);
    rig_pass(r, 20000); /* it looks for 10 us */
    assert_int_equal(told(r), 2);
    rig_free(r);
    r = ready(&sleeps);
    for (unsigned i = 1; i <= 5; i++) {
        complete(r);
        assert_int_equal(told(r), i);
    }
    rig_free(r);
}

/* The index wraps; the guest takes two at a time, one later. */
static void
it_goes_on_over_the_end(void **state)
{
    struct rig *r = ready(&polls);
    unsigned before;

    (void)state;
    for (unsigned i = 0; i < 3 * RIG_ENTRIES; i++) {
        before = told(r);
        complete(r);
        assert_int_equal(told(r), before + 1);
        complete(r);
        assert_int_equal(told(r), before + 1);
        take(r, r->q[1].head);
        assert_int_equal(told(r), before + 1);
    }
    rig_free(r);
}

/* Heads that cannot be are the guest's own trouble. */
static void
nonsense_spares_nothing(void **state)
{
    struct rig *r = busy();

    (void)state;
    take(r, 60000);
    assert_int_equal(told(r), 2);
    rig_free(r);
}

#define TEST(f) cmocka_unit_test(f)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_guest_at_work_is_told_when_it_is_done),
        TEST(what_it_took_meanwhile_needs_no_interrupt),
        TEST(it_is_not_spared_for_long),
        TEST(who_sleeps_spares_none),
        TEST(it_goes_on_over_the_end),
        TEST(nonsense_spares_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
