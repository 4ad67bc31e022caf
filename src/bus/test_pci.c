/* SPDX-License-Identifier: MIT
 *
 * PCI functions: configuration space, BARs, MSI-X, INTx, resets; driven as a
 * host would, with a device that remembers what it was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "list.h"
#include "pci.h"

enum { VECTORS = 70, TABLE = 0, PBA = VECTORS * 16 };

static struct toy {
    struct st_pci pci;
    struct st_pci_host host;
    uint64_t reg;
    unsigned accesses, hots, resets, enabled, moved, changed;
    bool defer_reset, level;
    struct st_access *deferred;
    _Atomic unsigned got[VECTORS];
    _Atomic uint64_t address; /* two threads deliver */
    _Atomic uint32_t data;
} toy;

static bool
toy_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    (void)p;
    toy.accesses++;
    if (bar == 0 && a->offset == 8) {
        if (a->write)
            toy.reg = a->value;
        else
            a->value = toy.reg;
    } else if (!a->write) {
        a->value = 0;
    }
    return true;
}

static bool
toy_hot(struct st_pci *p, unsigned bar, const struct st_access *a)
{
    (void)p;
    if (bar != 0 || a->offset < 0x1000)
        return false;
    toy.hots++;
    return true;
}

static void
toy_enabled(struct st_pci *p, bool master)
{
    (void)p;
    toy.enabled = toy.enabled * 10 + 1 + master;
}

static bool
toy_reset(struct st_pci *p, struct st_access *a)
{
    (void)p;
    toy.resets++;
    toy.reg = 0;
    if (toy.defer_reset)
        toy.deferred = a;
    return !toy.defer_reset;
}

static const struct st_pci_ops toy_ops = {.name = "toy",
                                          .access = toy_access,
                                          .hot = toy_hot,
                                          .enabled = toy_enabled,
                                          .reset = toy_reset};

static void
host_msix(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    (void)h;
    toy.got[v]++;
    toy.address = address;
    toy.data = data;
}

static void
host_intx(struct st_pci_host *h, bool level)
{
    (void)h;
    assert_true(toy.level != level);
    toy.level = level;
}

static void
host_moved(struct st_pci_host *h)
{
    (void)h;
    toy.moved++;
}

static void
host_changed(struct st_pci_host *h, unsigned v)
{
    (void)h;
    (void)v;
    toy.changed++;
}

static uint32_t
read_config(unsigned at, unsigned len)
{
    return st_pci_config_read(&toy.pci, at, len);
}

static void
write_config(unsigned at, unsigned len, uint32_t value)
{
    st_pci_config_write(&toy.pci, at, len, value);
}

static uint64_t
read_bar(unsigned bar, uint64_t offset, unsigned len)
{
    struct st_access a = {.offset = offset, .len = len};

    assert_true(st_pci_access(&toy.pci, bar, &a));
    return a.value;
}

static void
write_bar(unsigned bar, uint64_t offset, unsigned len, uint64_t value)
{
    struct st_access a = {
        .offset = offset, .len = len, .write = true, .value = value};

    assert_true(st_pci_access(&toy.pci, bar, &a));
}

static int
setup(void **state)
{
    const struct st_pci_id id = {0x1414, 0xc03e, 0x1414, 7, 0x010802, 3};

    (void)state;
    memset(&toy, 0, sizeof(toy));
    toy.host = (struct st_pci_host){.msix = host_msix,
                                    .intx = host_intx,
                                    .bars_moved = host_moved,
                                    .msix_changed = host_changed};
    st_pci_init(&toy.pci, &toy_ops, &id);
    st_pci_add_bar(&toy.pci, 0, 0x10000, ST_PCI_BAR_64);
    st_pci_add_bar(&toy.pci, 4, 0x1000, ST_PCI_BAR_64 | ST_PCI_BAR_PREFETCH);
    assert_int_equal(st_pci_add_msix(&toy.pci, VECTORS, 4, TABLE, PBA), 0);
    st_pci_add_express(&toy.pci);
    st_pci_add_pm(&toy.pci);
    st_pci_add_intx(&toy.pci);
    toy.pci.host = &toy.host;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    st_pci_fini(&toy.pci);
    return 0;
}

static void
identity_is_where_the_standard_says(void **state)
{
    (void)state;
    assert_int_equal(read_config(0, 4), 0xc03e1414);
    assert_int_equal(read_config(8, 4), 0x01080203);
    assert_int_equal(read_config(0x2c, 4), 0x00071414);
    assert_int_equal(read_config(0x3d, 1), 1);
    assert_int_equal(read_config(0x0e, 1), 0); /* header type */
    assert_int_equal(read_config(0x100, 4), 0);
    assert_int_equal(read_config(4096, 4), 0xffffffff);
    assert_int_equal(read_config(4094, 4), 0xffff0000);
    assert_int_equal(read_config(UINT32_MAX, 4), 0xffffffff);
    write_config(0, 4, 0);
    write_config(4094, 4, 0xffffffff);
    write_config(UINT32_MAX, 4, 0xffffffff);
    assert_int_equal(read_config(0, 4), 0xc03e1414);
}

/* A walk over the capabilities meets each once and ends. */
static void
capabilities_are_a_list(void **state)
{
    static const uint8_t ids[] = {0x11, 0x10, 0x01};
    unsigned at, n = 0;

    (void)state;
    assert_true(read_config(6, 2) & 1 << 4);
    for (at = read_config(0x34, 1); at; at = read_config(at + 1, 1)) {
        assert_true(n < 3 && at % 4 == 0 && at >= 0x40);
        assert_int_equal(read_config(at, 1), ids[n++]);
    }
    assert_int_equal(n, 3);
}

static void
bars_tell_their_size_and_move(void **state)
{
    (void)state;
    assert_int_equal(read_config(0x10, 4), 4); /* 64 bits */
    write_config(0x10, 4, 0xffffffff);
    write_config(0x14, 4, 0xffffffff);
    assert_int_equal(read_config(0x10, 4), 0xffff0004);
    assert_int_equal(read_config(0x14, 4), 0xffffffff);
    write_config(0x20, 4, 0xffffffff);
    assert_int_equal(read_config(0x20, 4), 0xfffff00c);
    write_config(0x18, 4, 0xffffffff); /* none there */
    assert_int_equal(read_config(0x18, 4), 0);

    write_config(0x10, 4, 0xfebf1234); /* low bits do not matter */
    write_config(0x14, 1, 1);          /* byte by byte is fine */
    write_config(0x15, 1, 0);
    write_config(0x16, 2, 0);
    assert_int_equal(st_pci_bar_address(&toy.pci, 0), UINT64_MAX);
    toy.moved = 0;
    write_config(4, 2, 2);
    assert_int_equal(toy.moved, 1);
    assert_int_equal(st_pci_bar_address(&toy.pci, 0), 0x1febf0000);
    assert_int_equal(st_pci_bar_address(&toy.pci, 1), UINT64_MAX);
    assert_int_equal(st_pci_bar_address(&toy.pci, 6), UINT64_MAX);
    write_config(4, 2, 2);
    assert_int_equal(toy.moved, 1);
}

static void
accesses_are_checked_before_the_device(void **state)
{
    (void)state;
    assert_int_equal(read_bar(0, 8, 4), 0xffffffff); /* memory is off */
    write_config(4, 2, 2);
    write_bar(0, 8, 4, 42);
    assert_int_equal(read_bar(0, 8, 4), 42);
    toy.accesses = 0;
    assert_int_equal(read_bar(0, 0x10000, 4), 0xffffffff);
    assert_int_equal(read_bar(0, 0xffff, 1), 0);
    assert_int_equal(read_bar(0, UINT64_MAX - 3, 4), 0xffffffff);
    assert_int_equal(read_bar(0, 0xfffc, 8), UINT64_MAX);
    assert_int_equal(read_bar(0, 9, 4), 0xffffffff);
    assert_int_equal(read_bar(0, 9, 3), 0xffffff);
    assert_int_equal(read_bar(0, 0, 0), 0);
    assert_int_equal(read_bar(0, 0, 16), UINT64_MAX);
    assert_int_equal(read_bar(2, 0, 4), 0xffffffff);
    assert_int_equal(read_bar(6, 0, 4), 0xffffffff);
    assert_int_equal(toy.accesses, 1);
}

static void
doorbells_take_no_lock(void **state)
{
    (void)state;
    write_config(4, 2, 2);
    assert_true(st_pci_trylock(&toy.pci));
    write_bar(0, 0x1000, 4, 1); /* would hang */
    st_pci_unlock(&toy.pci);
    assert_int_equal(toy.hots, 1);
    write_bar(0, 8, 4, 1);
    assert_int_equal(toy.hots, 1);
}

/* ---- MSI-X ---- */

static void
msix_set_up(unsigned v)
{
    write_bar(4, TABLE + v * 16, 8, UINT64_C(0xfee00000) | (uint64_t)v << 12);
    write_bar(4, TABLE + v * 16 + 8, 4, 0x4000 + v);
    write_bar(4, TABLE + v * 16 + 12, 4, 0);
}

static void
a_vector_is_delivered_when_it_can_be(void **state)
{
    unsigned control = read_config(0x34, 1) + 2;

    (void)state;
    write_config(4, 2, 2); /* memory; no bus master yet */
    assert_int_equal(read_config(control, 2), VECTORS - 1);
    assert_int_equal(read_bar(4, TABLE + 12, 4), 1); /* masked at reset */
    msix_set_up(3);
    st_pci_raise(&toy.pci, 3);
    assert_int_equal(toy.got[3], 0);
    assert_true(st_pci_pending(&toy.pci, 3));
    assert_int_equal(read_bar(4, PBA, 4), 1 << 3);
    write_config(control, 2, 0x8000);
    assert_int_equal(toy.got[3], 0); /* no bus master */
    write_config(4, 2, 6);
    assert_int_equal(toy.got[3], 1);
    assert_int_equal(toy.address, 0xfee03000);
    assert_int_equal(toy.data, 0x4003);
    assert_false(st_pci_pending(&toy.pci, 3));
    st_pci_raise(&toy.pci, 3);
    assert_int_equal(toy.got[3], 2);

    /* Masked: once, whatever was raised meanwhile. */
    write_bar(4, TABLE + 3 * 16 + 12, 4, 1);
    for (unsigned i = 0; i < 5; i++)
        st_pci_raise(&toy.pci, 3);
    assert_int_equal(toy.got[3], 2);
    write_bar(4, TABLE + 3 * 16 + 12, 4, 0);
    assert_int_equal(toy.got[3], 3);

    /* The function's mask. */
    write_config(control, 2, 0xc000);
    msix_set_up(69);
    st_pci_raise(&toy.pci, 69);
    assert_int_equal(toy.got[69], 0);
    assert_int_equal(read_bar(4, PBA + 8, 8), 1 << 5);
    write_bar(4, PBA + 8, 8, 0); /* read-only */
    assert_int_equal(read_bar(4, PBA + 8, 4), 1 << 5);
    write_config(control, 2, 0x8000);
    assert_int_equal(toy.got[69], 1);

    st_pci_raise(&toy.pci, VECTORS); /* none */
    st_pci_raise(&toy.pci, UINT32_MAX);
    assert_int_equal(read_bar(4, TABLE + 2, 2), 0); /* dwords only */
    assert_int_equal(read_bar(4, PBA + 16, 4), 0);  /* behind both: device */
}

static void
a_host_can_keep_the_table(void **state)
{
    unsigned control = read_config(0x34, 1) + 2;

    (void)state;
    toy.host.keeps_msix = true;
    write_config(4, 2, 6);
    st_pci_raise(&toy.pci, 1);
    assert_int_equal(toy.got[1], 0);
    write_config(control, 2, 0x8000);
    assert_int_equal(toy.got[1], 1);
    st_pci_raise(&toy.pci, 2); /* its entry was never written */
    assert_int_equal(toy.got[2], 1);
}

/* ---- The line ---- */

static void
the_line_is_a_level(void **state)
{
    unsigned control = read_config(0x34, 1) + 2;

    (void)state;
    st_pci_line(&toy.pci, true);
    assert_true(toy.level);
    assert_true(read_config(6, 2) & 1 << 3);
    st_pci_line(&toy.pci, true);
    write_config(4, 2, 1 << 10); /* INTx disable */
    assert_false(toy.level);
    assert_true(read_config(6, 2) & 1 << 3); /* still shown */
    write_config(4, 2, 0);
    assert_true(toy.level);
    write_config(control, 2, 0x8000); /* MSI-X instead */
    assert_false(toy.level);
    write_config(control, 2, 0);
    assert_true(toy.level);
    st_pci_line(&toy.pci, false);
    assert_false(toy.level);
}

/* ---- Resets ---- */

static void
reset_done(struct st_access *a)
{
    a->value = 99;
}

static void
a_reset_restores_power_on_state(void **state)
{
    struct st_access a = {.done = reset_done};
    unsigned msix = read_config(0x34, 1), control = msix + 2;

    (void)state;
    write_config(0x10, 4, 0xfebf0000);
    write_config(0x3c, 1, 11);
    write_config(4, 2, 6);
    write_config(control, 2, 0x8000);
    msix_set_up(0);
    write_bar(4, TABLE + 12, 4, 1);
    st_pci_raise(&toy.pci, 0);
    toy.reg = 5;
    assert_int_equal(toy.enabled, 2);
    assert_true(st_pci_reset(&toy.pci, &a));
    assert_int_equal(toy.reg, 0);
    assert_int_equal(toy.enabled, 21); /* off again */
    assert_int_equal(read_config(0x10, 4), 4);
    assert_int_equal(read_config(0x3c, 1), 0);
    assert_int_equal(read_config(4, 2), 0);
    assert_int_equal(read_config(control, 2), VECTORS - 1);
    assert_int_equal(read_config(0, 4), 0xc03e1414);
    assert_false(st_pci_pending(&toy.pci, 0));

    toy.defer_reset = true;
    assert_false(st_pci_reset(&toy.pci, &a));
    assert_ptr_equal(toy.deferred, &a);
    st_access_done(toy.deferred);
    assert_int_equal(a.value, 99);
}

static void
a_function_level_reset_is_one_at_a_time(void **state)
{
    unsigned express = read_config(read_config(0x34, 1) + 1, 1);
    uint16_t control = (uint16_t)read_config(express + 8, 2);

    (void)state;
    assert_true(read_config(express + 4, 4) & 1 << 28);
    write_config(express + 8, 2, control);
    assert_int_equal(toy.resets, 0);
    write_config(express + 8, 2, control | 1 << 15);
    assert_int_equal(toy.resets, 1);
    assert_int_equal(read_config(express + 8, 2), control); /* reads 0 */
    toy.defer_reset = true;
    write_config(express + 8, 2, 1 << 15);
    write_config(express + 8, 2, 1 << 15); /* under way */
    assert_int_equal(toy.resets, 2);
    st_access_done(toy.deferred);
    write_config(express + 9, 1, 1 << 7);
    assert_int_equal(toy.resets, 3);
    st_access_done(toy.deferred);
}

/* ---- Threads: no interrupt is lost between raise and unmask ---- */

enum { RAISES = 20000 };

static void *
raise_many(void *arg)
{
    _Atomic unsigned *raised = arg;

    for (unsigned i = 0; i < RAISES; i++) {
        unsigned before = atomic_load(&toy.got[5]);

        atomic_fetch_add(raised, 1);
        st_pci_raise(&toy.pci, 5);
        /* As a device with one command in flight: wait until it was heard. */
        while (atomic_load(&toy.got[5]) == before)
            ;
    }
    return NULL;
}

static void
no_interrupt_is_lost(void **state)
{
    _Atomic unsigned raised = 0;
    pthread_t thread;

    (void)state;
    write_config(4, 2, 6);
    write_config(read_config(0x34, 1) + 2, 2, 0x8000);
    msix_set_up(5);
    assert_int_equal(pthread_create(&thread, NULL, raise_many, &raised), 0);
    while (atomic_load(&toy.got[5]) < RAISES) {
        write_bar(4, TABLE + 5 * 16 + 12, 4, 1);
        write_bar(4, TABLE + 5 * 16 + 12, 4, 0);
    }
    pthread_join(thread, NULL);
    assert_int_equal(toy.got[5], RAISES);
    assert_int_equal(raised, RAISES);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(identity_is_where_the_standard_says),
        T(capabilities_are_a_list),
        T(bars_tell_their_size_and_move),
        T(accesses_are_checked_before_the_device),
        T(doorbells_take_no_lock),
        T(a_vector_is_delivered_when_it_can_be),
        T(a_host_can_keep_the_table),
        T(the_line_is_a_level),
        T(a_reset_restores_power_on_state),
        T(a_function_level_reset_is_one_at_a_time),
        T(no_interrupt_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
