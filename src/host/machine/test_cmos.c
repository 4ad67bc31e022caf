/* SPDX-License-Identifier: MIT
 *
 * The clock, and the memory beside it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cmos.h"
#include "test_access.h"

#define SECOND UINT64_C(1000000000)

/* Thursday, 29 February 2024 is one of these; 23:59:58. */
#define LEAP_EVE (UINT64_C(1709251198) * SECOND)

static struct rig {
    struct st_space *ports;
    struct st_cmos *cmos;
    uint64_t ns;
} rig;

static uint64_t
rig_now(void *arg)
{
    return ((struct rig *)arg)->ns;
}

static int
set_up(void **state)
{
    const struct st_cmos_options opts = {
        .ram_low = 3u << 30,
        .ram_above_4g = UINT64_C(5) << 30,
        .cpus = 2,
        .boot = {ST_CMOS_BOOT_DISK, ST_CMOS_BOOT_CD, ST_CMOS_BOOT_FLOPPY},
        .floppies = 0x40,
        .now_ns = rig_now,
        .arg = &rig};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    rig.ns = LEAP_EVE;
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(st_cmos_create(rig.ports, &opts, &rig.cmos), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    st_cmos_destroy(rig.cmos);
    st_space_destroy(rig.ports);
    return 0;
}

static unsigned
cmos(unsigned i)
{
    put(rig.ports, 0x70, 1, i);
    return (unsigned)get(rig.ports, 0x71, 1);
}

static void
set_cmos(unsigned i, unsigned value)
{
    put(rig.ports, 0x70, 1, i);
    put(rig.ports, 0x71, 1, value);
}

/* Time, from the century to the second. */
static void
time_is(const char *want)
{
    char got[32];

    snprintf(got, sizeof(got), "%02x%02x-%02x-%02x %02x:%02x:%02x/%x",
             cmos(0x32), cmos(9), cmos(8), cmos(7), cmos(4), cmos(2), cmos(0),
             cmos(6));
    assert_string_equal(got, want);
}

/* ---- Time ---- */

static void
time_is_the_hosts_in_bcd(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x0a), 0x26);
    assert_int_equal(cmos(0x0b), 0x02);
    assert_int_equal(cmos(0x0d), 0x80);
    time_is("2024-02-29 23:59:58/5");
    rig.ns += 2 * SECOND;
    time_is("2024-03-01 00:00:00/6");
}

static void
an_update_is_announced(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x0a) & 0x80, 0);
    rig.ns += SECOND - 244001;
    assert_int_equal(cmos(0x0a) & 0x80, 0);
    rig.ns += 1;
    assert_int_equal(cmos(0x0a) & 0x80, 0x80);
    set_cmos(0x0b, 0x82); /* halted: no update */
    assert_int_equal(cmos(0x0a) & 0x80, 0);
    set_cmos(0x0b, 0x02);
    rig.ns += 244000;
    assert_int_equal(cmos(0x0a) & 0x80, 0);
}

static void
a_new_second_is_told_once(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x0c), 0);
    rig.ns += SECOND;
    assert_int_equal(cmos(0x0c), 0x10);
    assert_int_equal(cmos(0x0c), 0);
    set_cmos(0x0c, 0xff);
    set_cmos(0x0d, 0xff);
    assert_int_equal(cmos(0x0c), 0);
    assert_int_equal(cmos(0x0d), 0x80);
}

static void
time_has_other_forms(void **state)
{
    (void)state;
    set_cmos(0x0b, 0x06); /* binary */
    assert_int_equal(cmos(4), 23);
    assert_int_equal(cmos(0x32), 20);
    set_cmos(0x0b, 0x00); /* 12 hours, BCD */
    assert_int_equal(cmos(4), 0x91);
    rig.ns += 2 * SECOND;
    assert_int_equal(cmos(4), 0x12);
    set_cmos(4, 0x92); /* noon and two hours */
    assert_int_equal(cmos(4), 0x82 | 0x10);
    set_cmos(0x0b, 0x02);
    assert_int_equal(cmos(4), 0x12);
}

static void
a_guest_sets_the_time(void **state)
{
    static const uint8_t at[] = {0x32, 9, 8, 7, 4, 2, 0};
    static const uint8_t to[] = {0x19, 0x99, 0x12, 0x31, 0x11, 0x22, 0x33};

    (void)state;
    set_cmos(0x0b, 0x82);
    for (unsigned i = 0; i < sizeof(at); i++)
        set_cmos(at[i], to[i]);
    rig.ns += 5 * SECOND; /* it stands still */
    assert_int_equal(cmos(0), 0x33);
    set_cmos(0x0b, 0x02);
    time_is("1999-12-31 11:22:33/6");
    rig.ns += 86400 * SECOND;
    time_is("2000-01-01 11:22:33/7");
    st_cmos_reset(rig.cmos);
    time_is("2000-01-01 11:22:33/7");
    set_cmos(2, 0x59); /* without halting it */
    time_is("2000-01-01 11:59:33/7");
}

/* ---- Memory ---- */

static void
memory_says_how_the_machine_is_made(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x15) | cmos(0x16) << 8, 640);
    assert_int_equal(cmos(0x17) | cmos(0x18) << 8, 0xffff);
    assert_int_equal(cmos(0x30) | cmos(0x31) << 8, 0xffff);
    assert_int_equal(cmos(0x34) | cmos(0x35) << 8, (3 * 1024 - 16) * 16);
    assert_int_equal(cmos(0x5b) | cmos(0x5c) << 8 | cmos(0x5d) << 16,
                     5 * 1024 * 16);
    assert_int_equal(cmos(0x5f), 1);
    assert_int_equal(cmos(0x3d), 0x32);
    assert_int_equal(cmos(0x38), 0x11);
    assert_int_equal(cmos(0x10), 0x40);
    assert_int_equal(cmos(0x14), 0x03);
}

static void
memory_is_kept_over_a_reset(void **state)
{
    (void)state;
    set_cmos(0x0f, 0x0a);
    set_cmos(0x8f, 0x0b); /* the highest bit of the index is not its */
    set_cmos(0x7f, 0x77);
    set_cmos(0x0b, 0x72);
    st_cmos_reset(rig.cmos);
    assert_int_equal(cmos(0x0f), 0x0b);
    assert_int_equal(cmos(0x7f), 0x77);
    assert_int_equal(cmos(0x0b), 0x02); /* but no interrupt is enabled */
    assert_int_equal(get(rig.ports, 0x70, 1), 0xff);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(time_is_the_hosts_in_bcd),
        TEST(an_update_is_announced),
        TEST(a_new_second_is_told_once),
        TEST(time_has_other_forms),
        TEST(a_guest_sets_the_time),
        TEST(memory_says_how_the_machine_is_made),
        TEST(memory_is_kept_over_a_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
