/* SPDX-License-Identifier: MIT
 *
 * Small ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "misc.h"
#include "test_access.h"

static struct rig {
    struct st_space *ports;
    struct st_misc *misc;
    unsigned resets, said;
    char text[16];
} rig;

static void
rig_reset(void *arg)
{
    ((struct rig *)arg)->resets++;
}

static void
rig_debug(void *arg, uint8_t byte)
{
    struct rig *r = arg;

    r->text[r->said++ % sizeof(r->text)] = (char)byte;
}

static const struct st_misc_ops rig_ops = {rig_reset, rig_debug};
static const struct st_misc_ops quiet_ops = {rig_reset, NULL};

static int
set_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(st_misc_create(rig.ports, &rig_ops, &rig, &rig.misc), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    st_misc_destroy(rig.misc);
    st_space_destroy(rig.ports);
    return 0;
}

static void
two_ports_reset_the_machine(void **state)
{
    (void)state;
    put(rig.ports, 0x64, 1, 0xd1); /* another command */
    put(rig.ports, 0x60, 1, 0xfe);
    assert_int_equal(rig.resets, 0);
    put(rig.ports, 0x64, 1, 0xfe);
    assert_int_equal(rig.resets, 1);
    assert_int_equal(get(rig.ports, 0x92, 1), 2);
    put(rig.ports, 0x92, 1, 0);
    assert_int_equal(get(rig.ports, 0x92, 1), 2); /* A20 is always on */
    assert_int_equal(rig.resets, 1);
    put(rig.ports, 0x92, 1, 1);
    put(rig.ports, 0x92, 1, 3); /* no edge */
    assert_int_equal(rig.resets, 2);
    st_misc_reset(rig.misc);
    put(rig.ports, 0x92, 1, 1);
    assert_int_equal(rig.resets, 3);
}

static void
there_is_no_key(void **state)
{
    (void)state;
    assert_int_equal(get(rig.ports, 0x64, 1), 0);
    assert_int_equal(get(rig.ports, 0x60, 1), 0);
}

static void
refresh_toggles(void **state)
{
    unsigned first = (unsigned)get(rig.ports, 0x61, 1);

    (void)state;
    assert_int_equal(get(rig.ports, 0x61, 1), first ^ 0x10);
    put(rig.ports, 0x61, 1, 0xf3);
    assert_int_equal(get(rig.ports, 0x61, 1) & 0x0f, 3);
}

static void
firmware_says_where_it_is(void **state)
{
    (void)state;
    put(rig.ports, 0x80, 1, 0x5a);
    assert_int_equal(st_misc_post_code(rig.misc), 0x5a);
    assert_int_equal(get(rig.ports, 0x402, 1), 0xe9);
    put(rig.ports, 0x402, 1, 'o');
    put(rig.ports, 0x402, 1, 'k');
    assert_int_equal(rig.said, 2);
    assert_memory_equal(rig.text, "ok", 2);
    put(rig.ports, 0x80, 4, 0x11223344); /* its neighbours are nobody's */
    assert_int_equal(get(rig.ports, 0x80, 2), 0xff44);
}

static void
without_a_listener_there_is_no_debug_console(void **state)
{
    struct st_misc *other = NULL;

    (void)state;
    assert_int_equal(st_misc_create(rig.ports, &quiet_ops, &rig, &other),
                     -EEXIST);
    assert_null(other);
    st_misc_destroy(rig.misc);
    assert_int_equal(st_misc_create(rig.ports, &quiet_ops, &rig, &rig.misc), 0);
    assert_int_equal(get(rig.ports, 0x402, 1), 0xff);
    st_misc_destroy(NULL);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(two_ports_reset_the_machine),
        TEST(there_is_no_key),
        TEST(refresh_toggles),
        TEST(firmware_says_where_it_is),
        TEST(without_a_listener_there_is_no_debug_console),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
