/* SPDX-License-Identifier: MIT
 *
 * The PCI bus: who answers in configuration space, by both ways; where BARs are
 * put.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "address_map.h"
#include "pci_host.h"
#include "test_access.h"

static struct rig {
    struct st_space *ports, *memory;
    struct st_pm *pm;
    struct st_pci_bus *bus;
    struct st_pci toy[3];
    unsigned resets;
} rig;

static void
pm_line(void *arg, bool level)
{
    (void)arg;
    (void)level;
}

static void
pm_off(void *arg)
{
    (void)arg;
}

static void
pm_reset(void *arg)
{
    ((struct rig *)arg)->resets++;
}

static uint64_t
pm_now(void *arg)
{
    (void)arg;
    return 0;
}

static const struct st_pm_ops pm_ops = {pm_line, pm_off, pm_reset, pm_now};

static bool
toy_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    (void)p;
    (void)bar;
    a->value = 0;
    return true;
}

static bool
toy_reset(struct st_pci *p, struct st_access *a)
{
    (void)p;
    (void)a;
    return true;
}

static const struct st_pci_ops toy_ops = {
    .name = "toy", .access = toy_access, .reset = toy_reset};

static int
set_up(void **state)
{
    static const struct st_pci_id id = {
        .vendor = 0x1234, .device = 0x5678, .class_code = 0x010802};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(st_space_create(UINT64_MAX, &rig.memory), 0);
    assert_int_equal(st_pm_create(rig.ports, &pm_ops, &rig, &rig.pm), 0);
    assert_int_equal(st_pci_bus_create(rig.ports, rig.memory, rig.pm, &rig.bus),
                     0);
    for (unsigned i = 0; i < 3; i++)
        st_pci_init(&rig.toy[i], &toy_ops, &id);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        st_pci_fini(&rig.toy[i]);
    st_pci_bus_destroy(rig.bus);
    st_pm_destroy(rig.pm);
    st_space_destroy(rig.memory);
    st_space_destroy(rig.ports);
    return 0;
}

static uint64_t
config(unsigned bus, unsigned slot, unsigned fn, unsigned reg, unsigned len)
{
    put(rig.ports, 0xcf8, 4,
        UINT32_C(0x80000000) | bus << 16 | slot << 11 | fn << 8 | (reg & 0xfc));
    return get(rig.ports, 0xcfc + (reg & 3), len);
}

static uint64_t
ecam(unsigned bus, unsigned slot, unsigned fn, unsigned reg, unsigned len)
{
    return get(rig.memory,
               ST_MAP_ECAM + (bus << 20 | slot << 15 | fn << 12 | reg), len);
}

static void
the_host_bridge_is_a_440fx(void **state)
{
    (void)state;
    assert_int_equal(config(0, 0, 0, 0, 4), 0x12378086);
    assert_int_equal(config(0, 0, 0, 8, 4), 0x06000002);
    assert_int_equal(config(0, 0, 0, 0x0e, 1), 0);
    assert_int_equal(config(0, 0, 0, 0x34, 1), 0);
    assert_int_equal(config(0, 0, 0, 0x3d, 1), 0);
    assert_int_equal(ecam(0, 0, 0, 0, 4), 0x12378086);
}

static void
what_is_not_there_reads_all_ones(void **state)
{
    (void)state;
    assert_int_equal(config(0, 1, 0, 0, 4), 0xffffffff);
    assert_int_equal(config(0, 0, 1, 0, 2), 0xffff);
    assert_int_equal(config(1, 0, 0, 0, 4), 0xffffffff); /* no other bus */
    assert_int_equal(ecam(1, 0, 0, 0, 4), 0xffffffff);
    assert_int_equal(ecam(255, 31, 7, 0xffc, 4), 0xffffffff);
    put(rig.ports, 0xcf8, 4, 0); /* not enabled */
    assert_int_equal(get(rig.ports, 0xcfc, 4), 0xffffffff);
    assert_true(get(rig.memory, ST_MAP_ECAM, 8) == UINT64_MAX);
    assert_int_equal(get(rig.memory, ST_MAP_ECAM + 2, 4), 0xffffffff);
}

static void
functions_answer_in_their_slot(void **state)
{
    (void)state;
    assert_int_equal(st_pci_bus_free_slot(rig.bus), 1);
    assert_int_equal(st_pci_bus_add(rig.bus, 1, 0, &rig.toy[0]), 0);
    assert_int_equal(st_pci_bus_add(rig.bus, 1, 0, &rig.toy[1]), -EEXIST);
    assert_int_equal(st_pci_bus_add(rig.bus, 0, 1, &rig.toy[1]), -EINVAL);
    assert_int_equal(st_pci_bus_add(rig.bus, 32, 0, &rig.toy[1]), -EINVAL);
    assert_int_equal(st_pci_bus_add(rig.bus, 3, 8, &rig.toy[1]), -EINVAL);
    assert_int_equal(st_pci_bus_add(rig.bus, 31, 7, &rig.toy[1]), 0);
    assert_int_equal(st_pci_bus_free_slot(rig.bus), 2);
    assert_int_equal(config(0, 1, 0, 0, 4), 0x56781234);
    assert_int_equal(config(0, 1, 0, 1, 1), 0x12);
    assert_int_equal(config(0, 1, 0, 2, 2), 0x5678);
    assert_int_equal(config(0, 31, 7, 0, 4), 0x56781234);
    assert_int_equal(ecam(0, 31, 7, 0, 4), 0x56781234);
    assert_int_equal(ecam(0, 1, 0, 0x100, 4), 0);
    st_pci_bus_remove(rig.bus, 1, 0);
    assert_int_equal(config(0, 1, 0, 0, 4), 0xffffffff);
    st_pci_bus_remove(rig.bus, 1, 0);
    st_pci_bus_remove(rig.bus, 0, 0); /* the bridge stays */
    assert_int_equal(config(0, 0, 0, 0, 2), 0x8086);
}

static void
writes_reach_the_register(void **state)
{
    (void)state;
    assert_int_equal(st_pci_bus_add(rig.bus, 4, 0, &rig.toy[0]), 0);
    config(0, 4, 0, 0x3c, 1);
    put(rig.ports, 0xcfc, 1, 0x5a);
    assert_int_equal(st_pci_config_read(&rig.toy[0], 0x3c, 1), 0x5a);
    config(0, 4, 0, 4, 4);
    put(rig.ports, 0xcfc, 2, 6);
    assert_int_equal(config(0, 4, 0, 4, 2), 6);
    put(rig.memory, ST_MAP_ECAM + (4 << 15) + 4, 2, 2);
    assert_int_equal(config(0, 4, 0, 4, 2), 2);
    config(0, 4, 0, 0x0c, 1); /* a byte in the middle of a word */
    put(rig.ports, 0xcfe, 1, 0xff);
    assert_int_equal(config(0, 4, 0, 0x0c, 4), 0);
}

static void
only_a_whole_word_is_latched(void **state)
{
    (void)state;
    put(rig.ports, 0xcf8, 4, 0xffffffff);
    assert_int_equal(get(rig.ports, 0xcf8, 4), 0x80fffffc);
    put(rig.ports, 0xcfb, 1, 0x01);
    put(rig.ports, 0xcf8, 2, 0);
    assert_int_equal(get(rig.ports, 0xcf8, 4), 0x80fffffc);
    assert_int_equal(get(rig.ports, 0xcf8, 2), 0xffff);
    st_pci_bus_reset(rig.bus);
    assert_int_equal(get(rig.ports, 0xcf8, 4), 0);
}

static void
a_byte_at_0xcf9_is_reset_control(void **state)
{
    (void)state;
    put(rig.ports, 0xcf8, 4, 0x80000600); /* a word that holds a 6 there */
    assert_int_equal(rig.resets, 0);
    put(rig.ports, 0xcf9, 1, 0x02);
    assert_int_equal(get(rig.ports, 0xcf9, 1), 0x02);
    put(rig.ports, 0xcf9, 1, 0x06);
    assert_int_equal(rig.resets, 1);
    assert_int_equal(get(rig.ports, 0xcf8, 4), 0x80000600);
}

static void
function_0_says_that_there_are_others(void **state)
{
    (void)state;
    assert_int_equal(st_pci_bus_add(rig.bus, 2, 0, &rig.toy[0]), 0);
    assert_int_equal(config(0, 2, 0, 0x0e, 1), 0);
    assert_int_equal(st_pci_bus_add(rig.bus, 2, 3, &rig.toy[1]), 0);
    assert_int_equal(config(0, 2, 0, 0x0e, 1), 0x80);
    assert_int_equal(config(0, 2, 0, 0x0c, 4), 0x00800000);
    assert_int_equal(ecam(0, 2, 0, 0x0e, 2), 0x0080);
    assert_int_equal(config(0, 2, 3, 0x0e, 1), 0);
    assert_int_equal(config(0, 2, 0, 0x0d, 1), 0);
    assert_int_equal(config(0, 2, 0, 0x10, 4), 0);
}

static void
bars_get_addresses_that_fit(void **state)
{
    (void)state;
    st_pci_add_bar(&rig.toy[0], 0, 16384, ST_PCI_BAR_64);
    st_pci_add_bar(&rig.toy[0], 2, 4096, 0);
    st_pci_add_intx(&rig.toy[0]);
    st_pci_add_bar(&rig.toy[1], 0, UINT64_C(1) << 33, ST_PCI_BAR_64);
    st_pci_add_bar(&rig.toy[2], 1, 1 << 20, 0);
    st_pci_add_bar(&rig.toy[2], 2, 1 << 30, 0); /* fits nowhere */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(st_pci_bus_add(rig.bus, 3 + i, 0, &rig.toy[i]), 0);
    st_pci_bus_place_bars(rig.bus, 0x800000000);
    assert_int_equal(config(0, 3, 0, 0x10, 4), 0xf0000004);
    assert_int_equal(config(0, 3, 0, 0x14, 4), 0);
    assert_int_equal(config(0, 3, 0, 0x18, 4), 0xf0004000);
    assert_int_equal(config(0, 3, 0, 0x3c, 1), 19);
    assert_int_equal(config(0, 3, 0, 4, 2), 0);
    assert_int_equal(config(0, 4, 0, 0x10, 4), 0x00000004);
    assert_int_equal(config(0, 4, 0, 0x14, 4), 0x8);
    assert_int_equal(config(0, 4, 0, 0x3c, 1), 0);
    assert_int_equal(config(0, 5, 0, 0x14, 4), 0xf0100000);
    assert_int_equal(config(0, 5, 0, 0x18, 4), 0);
}

static void
pins_are_spread_over_the_ioapics_lines(void **state)
{
    (void)state;
    assert_int_equal(st_pci_slot_gsi(0, 0), 16);
    assert_int_equal(st_pci_slot_gsi(7, 0), 23);
    assert_int_equal(st_pci_slot_gsi(7, 1), 16);
    assert_int_equal(st_pci_slot_gsi(31, 3), 18);
}

static void
without_ecam_its_addresses_are_nobodys(void **state)
{
    struct st_space *ports;
    struct st_pci_bus *bus;

    (void)state;
    assert_int_equal(st_space_create(0x10000, &ports), 0);
    assert_int_equal(st_pci_bus_create(ports, NULL, rig.pm, &bus), 0);
    st_pci_bus_destroy(bus);
    st_space_destroy(ports);
    st_pci_bus_destroy(NULL);
    /* What cannot be put there is not half there. */
    assert_int_equal(st_pci_bus_create(rig.ports, NULL, rig.pm, &bus), -EEXIST);
    assert_int_equal(config(0, 0, 0, 0, 4), 0x12378086);
}

/* ---- Threads ---- */

static void *
come_and_go(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 2000; i++) {
        if (st_pci_bus_add(rig.bus, 9, 0, &rig.toy[0]) < 0)
            break;
        st_pci_bus_remove(rig.bus, 9, 0);
    }
    return NULL;
}

static void
functions_come_and_go_under_accesses(void **state)
{
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t id = ecam(0, 9, 0, 0, 4);

        assert_true(id == 0xffffffff || id == 0x56781234);
    }
    pthread_join(thread, NULL);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_host_bridge_is_a_440fx),
        TEST(what_is_not_there_reads_all_ones),
        TEST(functions_answer_in_their_slot),
        TEST(writes_reach_the_register),
        TEST(only_a_whole_word_is_latched),
        TEST(a_byte_at_0xcf9_is_reset_control),
        TEST(function_0_says_that_there_are_others),
        TEST(bars_get_addresses_that_fit),
        TEST(pins_are_spread_over_the_ioapics_lines),
        TEST(without_ecam_its_addresses_are_nobodys),
        TEST(functions_come_and_go_under_accesses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
