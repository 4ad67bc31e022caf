/* SPDX-License-Identifier: MIT
 *
 * Power management: the fixed registers, power-off, reset.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "pm.h"
#include "test_access.h"

static struct rig {
    struct st_space *ports;
    struct st_pm *pm;
    uint64_t ns;
    unsigned offs, resets, lines;
} rig;

static void
rig_line(void *arg, bool level)
{
    (void)level;
    ((struct rig *)arg)->lines++;
}

static void
rig_off(void *arg)
{
    ((struct rig *)arg)->offs++;
}

static void
rig_reset(void *arg)
{
    ((struct rig *)arg)->resets++;
}

static uint64_t
rig_now(void *arg)
{
    return ((struct rig *)arg)->ns;
}

static const struct st_pm_ops rig_ops = {rig_line, rig_off, rig_reset, rig_now};

static int
set_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(st_pm_create(rig.ports, &rig_ops, &rig, &rig.pm), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    st_pm_destroy(rig.pm);
    st_space_destroy(rig.ports);
    return 0;
}

static void
acpi_mode_is_always_on(void **state)
{
    (void)state;
    assert_int_equal(get(rig.ports, 0x604, 2), 1);
    put(rig.ports, 0x604, 2, 0);
    assert_int_equal(get(rig.ports, 0x604, 2), 1);
    put(rig.ports, 0x604, 2, 0xffff & ~(1 << 13));
    assert_int_equal(get(rig.ports, 0x604, 2), 0x1c03);
    assert_int_equal(rig.offs, 0);
}

static void
s5_is_power_off(void **state)
{
    (void)state;
    put(rig.ports, 0x604, 2, 4 << 10 | 1 << 13); /* another sleep */
    put(rig.ports, 0x604, 2, 5 << 10);           /* the type alone */
    assert_int_equal(rig.offs, 0);
    put(rig.ports, 0x604, 2, 5 << 10 | 1 << 13);
    assert_int_equal(rig.offs, 1);
    assert_int_equal(get(rig.ports, 0x604, 2),
                     5 << 10 | 1);             /* SLP_EN reads 0 */
    put(rig.ports, 0x605, 1, 5 << 2 | 1 << 5); /* by its byte */
    assert_int_equal(rig.offs, 2);
}

static void
the_timer_runs_at_its_frequency(void **state)
{
    (void)state;
    assert_int_equal(get(rig.ports, 0x608, 4), 0);
    rig.ns = 1000000000;
    assert_int_equal(get(rig.ports, 0x608, 4), 3579545);
    rig.ns = UINT64_C(3600) * 1000000000 + 500000000;
    assert_int_equal(get(rig.ports, 0x608, 4),
                     (UINT64_C(3579545) * 3600 + 3579545 / 2) & 0xffffffff);
    put(rig.ports, 0x608, 4, 0);
    assert_int_equal(get(rig.ports, 0x60a, 2), get(rig.ports, 0x608, 4) >> 16);
}

static void
the_timers_carry_is_a_status(void **state)
{
    (void)state;
    put(rig.ports, 0x602, 2, 0xffff);
    assert_int_equal(get(rig.ports, 0x602, 2), 0x0721);
    assert_int_equal(get(rig.ports, 0x600, 2), 0);
    rig.ns = UINT64_C(600) * 1000000000; /* 2^31 ticks are 599.9 s */
    assert_int_equal(get(rig.ports, 0x600, 2), 1);
    put(rig.ports, 0x600, 2, 0x8000);
    assert_int_equal(get(rig.ports, 0x600, 2), 1);
    put(rig.ports, 0x600, 2, 1);
    assert_int_equal(get(rig.ports, 0x600, 2), 0);
    rig.ns *= 2;
    assert_int_equal(get(rig.ports, 0x600, 4), 0x07210001);
    assert_int_equal(rig.lines, 0);
}

static void
reset_control_resets_by_an_edge(void **state)
{
    (void)state;
    st_pm_reset_control_write(rig.pm, 0x02);
    assert_int_equal(rig.resets, 0);
    assert_int_equal(st_pm_reset_control_read(rig.pm), 0x02);
    st_pm_reset_control_write(rig.pm, 0xf6);
    assert_int_equal(rig.resets, 1);
    assert_int_equal(st_pm_reset_control_read(rig.pm), 0x06);
    st_pm_reset_control_write(rig.pm, 0x06);
    assert_int_equal(rig.resets, 1);
    st_pm_reset(rig.pm);
    assert_int_equal(st_pm_reset_control_read(rig.pm), 0);
    st_pm_reset_control_write(rig.pm, 0x04);
    assert_int_equal(rig.resets, 2);
}

static void
a_reset_forgets_all_but_the_time(void **state)
{
    (void)state;
    put(rig.ports, 0x602, 2, 0x20);
    put(rig.ports, 0x604, 2, 5 << 10);
    rig.ns = UINT64_C(600) * 1000000000;
    st_pm_reset(rig.pm);
    assert_int_equal(get(rig.ports, 0x600, 4), 0);
    assert_int_equal(get(rig.ports, 0x604, 2), 1);
    assert_int_equal(get(rig.ports, 0x608, 4), UINT64_C(600) * 3579545);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(acpi_mode_is_always_on),
        TEST(s5_is_power_off),
        TEST(the_timer_runs_at_its_frequency),
        TEST(the_timers_carry_is_a_status),
        TEST(reset_control_resets_by_an_edge),
        TEST(a_reset_forgets_all_but_the_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
