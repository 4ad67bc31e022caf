/* SPDX-License-Identifier: MIT
 *
 * A function's way into the machine, with a KVM behind it: BARs that move,
 * vectors that get routes, doorbells that become eventfds, a line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "list.h"
#include "pci_kvm.h"

#define KVM "/dev/kvm"

enum {
    COMMAND = 4,
    BAR0 = 0x10,
    BAR4 = 0x20,
    SIZE = 0x4000,
    HERE = 0xf0000000,
    THERE = 0xf0100000,
    TABLE = 0xf0200000,
    DOORBELL = 0x1008,
    GSI = 17,
};

static struct rig {
    struct st_kvm kvm;
    struct st_irq irq;
    struct st_space *memory;
    struct st_pci pci;
    struct st_pci_kvm *plug;
    uint64_t last; /* offset of the device's last access */
} rig;

static bool
device_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    (void)p;
    rig.last = a->offset;
    a->value = bar;
    return true;
}

static bool
device_reset(struct st_pci *p, struct st_access *a)
{
    (void)p;
    (void)a;
    return true;
}

static const struct st_pci_ops ops = {
    .name = "test", .access = device_access, .reset = device_reset};

static int
setup(void **state)
{
    const struct st_pci_id id = {.vendor = 1, .device = 2};
    struct st_pci_kvm_opts o = {
        .pci = &rig.pci, .irq = &rig.irq, .gsi = GSI, .name = "test"};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_kvm_open(KVM, 1, &rig.kvm, NULL), 0);
    assert_int_equal(st_irq_init(&rig.irq, &rig.kvm), 0);
    assert_int_equal(st_space_create(UINT64_MAX, &rig.memory), 0);
    st_pci_init(&rig.pci, &ops, &id);
    st_pci_add_bar(&rig.pci, 0, SIZE, 0);
    st_pci_add_bar(&rig.pci, 4, 0x1000, 0);
    st_pci_add_intx(&rig.pci);
    assert_int_equal(st_pci_add_msix(&rig.pci, 4, 4, 0, 0x800), 0);
    o.memory = rig.memory;
    assert_int_equal(st_pci_kvm_create(&o, &rig.plug), 0);
    st_pci_config_write(&rig.pci, BAR0, 4, HERE);
    st_pci_config_write(&rig.pci, BAR4, 4, TABLE);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    st_pci_kvm_destroy(rig.plug);
    st_pci_fini(&rig.pci);
    st_space_destroy(rig.memory);
    st_irq_fini(&rig.irq);
    st_kvm_close(&rig.kvm);
    return 0;
}

static uint64_t
get(uint64_t address)
{
    struct st_access a = {.offset = address, .len = 4};

    assert_true(st_space_access(rig.memory, &a));
    return a.value;
}

static void
put(uint64_t address, uint32_t value)
{
    struct st_access a = {
        .offset = address, .len = 4, .write = true, .value = value};

    assert_true(st_space_access(rig.memory, &a));
}

static void
decode(bool on)
{
    st_pci_config_write(&rig.pci, COMMAND, 2, on ? 6 : 0);
}

static struct st_pci_kvm_stats
stats(void)
{
    struct st_pci_kvm_stats s;

    st_pci_kvm_stats(rig.plug, &s);
    return s;
}

static void
bars_are_where_the_guest_says(void **state)
{
    (void)state;
    assert_int_equal(get(HERE + 0x10), 0xffffffff);
    decode(true);
    assert_int_equal(get(HERE + 0x10), 0);
    assert_int_equal(rig.last, 0x10);
    st_pci_config_write(&rig.pci, BAR0, 4, THERE);
    assert_int_equal(get(HERE + 0x10), 0xffffffff);
    assert_int_equal(get(THERE + 0x14), 0);
    assert_int_equal(rig.last, 0x14);
    decode(false);
    assert_int_equal(get(THERE), 0xffffffff);
    assert_int_equal(stats().accesses, 2);
    assert_int_equal(stats().refused, 0);
}

static void
a_bar_upon_another_is_nowhere(void **state)
{
    (void)state;
    decode(true);
    st_pci_config_write(&rig.pci, BAR0, 4, TABLE & ~(SIZE - 1));
    assert_int_equal(stats().refused, 1);
    assert_int_equal(get(HERE), 0xffffffff);
    assert_int_equal(get(TABLE + 0xffc), 4); /* is who it was */
    st_pci_config_write(&rig.pci, BAR0, 4, HERE);
    assert_int_equal(get(HERE), 0);
}

static void
entry(unsigned v, uint32_t address, uint32_t data, bool masked)
{
    put(TABLE + 16 * v, address);
    put(TABLE + 16 * v + 4, 0);
    put(TABLE + 16 * v + 8, data);
    put(TABLE + 16 * v + 12, masked);
}

static void
vectors_get_routes_when_they_are_written(void **state)
{
    uint64_t routed = atomic_load(&rig.irq.routed);

    (void)state;
    decode(true);
    st_pci_config_write(&rig.pci, rig.pci.msix + 2, 2, 0x8000);
    entry(1, 0xfee00000, 0x31, true);
    assert_int_equal(atomic_load(&rig.irq.routed), routed); /* is masked */
    put(TABLE + 16 + 12, 0);
    assert_int_equal(atomic_load(&rig.irq.routed), routed + 1);
    st_pci_raise(&rig.pci, 1);
    st_pci_raise(&rig.pci, 1);
    assert_int_equal(stats().sent, 2);
    /* Masked and unmasked as it was: nothing changes. */
    put(TABLE + 16 + 12, 1);
    st_pci_raise(&rig.pci, 1);
    assert_int_equal(stats().sent, 2);
    put(TABLE + 16 + 12, 0);
    assert_int_equal(stats().sent, 3);
    assert_int_equal(atomic_load(&rig.irq.routed), routed + 1);
    /* It goes to another CPU: one change, when it is unmasked again. */
    put(TABLE + 16 + 12, 1);
    entry(1, 0xfee01000, 0x32, true);
    put(TABLE + 16 + 12, 0);
    assert_int_equal(atomic_load(&rig.irq.routed), routed + 2);
    st_pci_raise(&rig.pci, 1);
    assert_int_equal(stats().sent, 4);
    assert_int_equal(stats().slow, 0);
}

/* Does KVM listen for writes at ADDRESS? It takes nobody else there then. */
static bool
listened(uint64_t address)
{
    struct kvm_ioeventfd e = {.addr = address, .len = 4};
    int rc;

    e.fd = eventfd(0, EFD_CLOEXEC);
    rc = st_kvm_ioctl(rig.kvm.vm, KVM_IOEVENTFD, &e);
    if (rc == 0) {
        e.flags = KVM_IOEVENTFD_FLAG_DEASSIGN;
        assert_int_equal(st_kvm_ioctl(rig.kvm.vm, KVM_IOEVENTFD, &e), 0);
    } else {
        assert_int_equal(rc, -EEXIST);
    }
    close(e.fd);
    return rc < 0;
}

static void
bells_follow_their_bar(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    struct st_pci_host *h = rig.pci.host;

    (void)state;
    assert_non_null(h->bell);
    h->bell(h, 0, DOORBELL, 4, fd, true); /* it is nowhere yet */
    assert_false(listened(HERE + DOORBELL));
    decode(true);
    assert_true(listened(HERE + DOORBELL));
    st_pci_config_write(&rig.pci, BAR0, 4, THERE);
    assert_false(listened(HERE + DOORBELL));
    assert_true(listened(THERE + DOORBELL));
    decode(false);
    assert_false(listened(THERE + DOORBELL));
    decode(true);
    assert_true(listened(THERE + DOORBELL));
    h->bell(h, 0, DOORBELL + 8, 4, fd, true);
    h->bell(h, 0, DOORBELL, 4, fd, false);
    assert_false(listened(THERE + DOORBELL));
    assert_true(listened(THERE + DOORBELL + 8)); /* until the end */
    close(fd);
}

static void
a_line_is_asserted_as_long_as_one_does(void **state)
{
    (void)state;
    decode(true);
    st_pci_line(&rig.pci, true);
    assert_int_equal(rig.irq.asserted[GSI], 1);
    st_irq_line(&rig.irq, GSI, true); /* a neighbour */
    st_pci_line(&rig.pci, false);
    assert_int_equal(rig.irq.asserted[GSI], 1);
    st_irq_line(&rig.irq, GSI, false);
    st_irq_line(&rig.irq, GSI, false); /* once too often */
    assert_int_equal(rig.irq.asserted[GSI], 0);
    assert_int_equal(stats().lines, 2);
    st_pci_line(&rig.pci, true); /* it goes with its function */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bars_are_where_the_guest_says, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_bar_upon_another_is_nowhere, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            vectors_get_routes_when_they_are_written, setup, teardown),
        cmocka_unit_test_setup_teardown(bells_follow_their_bar, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_line_is_asserted_as_long_as_one_does,
                                        setup, teardown),
    };

    if (access(KVM, R_OK | W_OK) < 0) {
        puts("skip: no " KVM " that we may use");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
