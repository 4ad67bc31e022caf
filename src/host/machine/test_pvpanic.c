/* SPDX-License-Identifier: MIT
 *
 * The port by which a guest says that it has panicked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "pvpanic.h"
#include "test_access.h"

static struct rig {
    struct st_space *ports;
    struct st_pvpanic *pvpanic;
    unsigned panics, goes_on;
} rig;

static void
rig_panicked(void *arg, bool goes_on)
{
    struct rig *r = arg;

    r->panics += !goes_on;
    r->goes_on += goes_on;
}

static const struct st_pvpanic_ops rig_ops = {rig_panicked};

static int
set_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(st_pvpanic_create(rig.ports, &rig_ops, &rig, &rig.pvpanic),
                     0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    st_pvpanic_destroy(rig.pvpanic);
    st_space_destroy(rig.ports);
    return 0;
}

static void
it_says_which_events_it_knows(void **state)
{
    (void)state;
    assert_int_equal(get(rig.ports, 0x505, 1), 3);
    assert_int_equal(get(rig.ports, 0x504, 1), 0xff);
    assert_int_equal(get(rig.ports, 0x505, 2), 0xff03); /* it is one port */
    assert_int_equal(rig.panics + rig.goes_on, 0);
}

static void
a_panic_is_told(void **state)
{
    (void)state;
    put(rig.ports, 0x505, 1, 1);
    assert_int_equal(rig.panics, 1);
    put(rig.ports, 0x505, 1, 1); /* as often as it is said */
    put(rig.ports, 0x505, 2, 1);
    assert_int_equal(rig.panics, 3);
    put(rig.ports, 0x504, 2, 0x0100);
    assert_int_equal(rig.panics, 4);
    assert_int_equal(rig.goes_on, 0);
}

static void
a_crash_kernel_is_told_apart(void **state)
{
    (void)state;
    put(rig.ports, 0x505, 1, 2);
    assert_int_equal(rig.goes_on, 1);
    assert_int_equal(rig.panics, 0);
    put(rig.ports, 0x505, 1, 3); /* the worse of them */
    assert_int_equal(rig.goes_on, 1);
    assert_int_equal(rig.panics, 1);
}

static void
other_bits_mean_nothing(void **state)
{
    (void)state;
    put(rig.ports, 0x505, 1, 0);
    put(rig.ports, 0x505, 1, 0xfc);
    put(rig.ports, 0x506, 1, 1);
    assert_int_equal(rig.panics + rig.goes_on, 0);
    put(rig.ports, 0x505, 1, 0x81);
    assert_int_equal(rig.panics, 1);
}

static void
its_port_is_its_own(void **state)
{
    struct st_pvpanic *other = NULL;

    (void)state;
    assert_int_equal(st_pvpanic_create(rig.ports, &rig_ops, &rig, &other),
                     -EEXIST);
    assert_null(other);
    st_pvpanic_destroy(NULL);
    st_pvpanic_destroy(rig.pvpanic);
    rig.pvpanic = NULL;
    assert_int_equal(get(rig.ports, 0x505, 1), 0xff);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_says_which_events_it_knows), TEST(a_panic_is_told),
        TEST(a_crash_kernel_is_told_apart),  TEST(other_bits_mean_nothing),
        TEST(its_port_is_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
