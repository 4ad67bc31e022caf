/* SPDX-License-Identifier: MIT
 *
 * A machine's life, with firmware of a few instructions: it speaks, switches
 * off, resets, faults, or spins; others pause, reset and stop it. A software
 * KVM is enough.
 */
#include "test_machine_rig.h"

#include "kvm.h"

/* mov $0x604, %dx; mov $0x3400, %ax; out %ax, %dx; hlt; jmp .-1 */
static const uint8_t off[] = {0xba, 0x04, 0x06, 0xb8, 0x00,
                              0x34, 0xef, 0xf4, 0xeb, 0xfd};
/* mov $0xcf9, %dx; mov $6, %al; out %al, %dx; hlt; jmp .-1 */
static const uint8_t again[] = {0xba, 0xf9, 0x0c, 0xb0, 0x06,
                                0xee, 0xf4, 0xeb, 0xfd};
/* mov $0x505, %dx; mov $1, %al; out %al, %dx, twice; then again */
static const uint8_t panic[] = {0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xee, 0xba,
                                0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd};
/* mov $0x505, %dx; mov $2, %al; out %al, %dx; then off */
static const uint8_t crash[] = {0xba, 0x05, 0x05, 0xb0, 0x02, 0xee, 0xba, 0x04,
                                0x06, 0xb8, 0x00, 0x34, 0xef, 0xf4, 0xeb, 0xfd};
/* jmp . */
static const uint8_t spin[] = {0xeb, 0xfe};
/* out %al, $0x80; jmp .-2 */
static const uint8_t exits[] = {0xe6, 0x80, 0xeb, 0xfc};
/* lidt %cs:0x100, which is zeroes; int3 */
static const uint8_t fault[] = {0x2e, 0x0f, 0x01, 0x1e, 0x00, 0x01, 0xcc};

static void
a_guest_switches_off(void **s)
{
    (void)s;
    open_rig(off, sizeof(off), 1, false);
    assert_int_equal(state(), ST_MACHINE_MADE);
    start();
    wait_for(&rig.happened);
    assert_int_equal(rig.events[ST_MACHINE_OFF], 1);
    assert_int_equal(state(), ST_MACHINE_ENDED);
    assert_int_equal(do_call(st_machine_pause), -EBUSY);
    close_rig("A");
}

static void
a_guest_that_is_off_is_switched_on_by_reset(void **s)
{
    (void)s;
    open_rig(off, sizeof(off), 1, false);
    start();
    wait_for(&rig.happened);
    rig.happened = false;
    assert_int_equal(do_call(st_machine_reset), 0);
    wait_for(&rig.happened);
    assert_int_equal(rig.events[ST_MACHINE_OFF], 2);
    close_rig("AA");
}

static void
a_guest_resets_itself(void **s)
{
    struct st_machine_stats stats;

    (void)s;
    open_rig(again, sizeof(again), 2, false);
    rig.wanted = 4;
    start();
    wait_for(&rig.happened);
    st_machine_stats(rig.machine, &stats);
    assert_true(stats.resets >= 3);
    assert_int_equal(rig.events[ST_MACHINE_OFF], 0);
    close_rig(NULL);
}

static void
without_reboot_a_reset_is_the_end(void **s)
{
    (void)s;
    open_rig(again, sizeof(again), 1, true);
    start();
    wait_for(&rig.happened);
    nap();
    assert_int_equal(rig.events[ST_MACHINE_RESET], 1);
    assert_int_equal(state(), ST_MACHINE_ENDED);
    close_rig("A");
}

static void
a_panic_is_told_once_a_boot(void **s)
{
    struct st_machine_stats stats;

    (void)s;
    open_rig(panic, sizeof(panic), 1, false);
    rig.wanted = 3;
    start();
    wait_for(&rig.happened);
    assert_int_equal(rig.events[ST_MACHINE_RESET], 3);
    assert_int_equal(rig.events[ST_MACHINE_PANICKED], 3);
    assert_int_equal(rig.events[ST_MACHINE_CRASHED], 0);
    st_machine_stats(rig.machine, &stats);
    assert_int_equal(stats.panics, 3);
    close_rig(NULL);
}

static void
without_reboot_a_panic_is_the_end(void **s)
{
    (void)s;
    open_rig(panic, sizeof(panic), 1, true);
    start();
    wait_for(&rig.happened);
    nap();
    assert_int_equal(rig.events[ST_MACHINE_PANICKED], 1);
    assert_int_equal(rig.events[ST_MACHINE_RESET], 0);
    assert_int_equal(state(), ST_MACHINE_ENDED);
    close_rig("A");
}

static void
a_crash_kernel_goes_on(void **s)
{
    struct st_machine_stats stats;

    (void)s;
    open_rig(crash, sizeof(crash), 1, true);
    start();
    wait_for(&rig.happened);
    assert_int_equal(rig.events[ST_MACHINE_CRASHED], 1);
    assert_int_equal(rig.events[ST_MACHINE_PANICKED], 0);
    assert_int_equal(rig.events[ST_MACHINE_OFF], 1);
    st_machine_stats(rig.machine, &stats);
    assert_int_equal(stats.panics, 1);
    close_rig("A");
}

/* Is there hardware behind it? What emulates instructions does not fault as a
 * CPU does. */
static bool
hardware(void)
{
    struct st_kvm k;
    bool yes =
        st_kvm_open(KVM, 1, &k, NULL) == 0 && st_kvm_check(&k, NULL) == 0;

    st_kvm_close(&k);
    return yes;
}

static void
a_triple_fault_is_a_reset(void **s)
{
    (void)s;
    if (!hardware())
        skip();
    open_rig(fault, sizeof(fault), 1, true);
    start();
    wait_for(&rig.happened);
    assert_int_equal(rig.events[ST_MACHINE_RESET], 1);
    close_rig("A");
}

static void
a_guest_that_spins_is_paused_and_stopped(void **s)
{
    (void)s;
    open_rig(spin, sizeof(spin), 2, false);
    start();
    wait_for_exits(0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(do_call(st_machine_resume), -EBUSY);
        assert_int_equal(do_call(st_machine_pause), 0);
        assert_int_equal(state(), ST_MACHINE_PAUSED);
        assert_int_equal(do_call(st_machine_pause), -EBUSY);
        assert_int_equal(do_call(st_machine_resume), 0);
        assert_int_equal(state(), ST_MACHINE_RUNS);
    }
    close_rig("A");
}

static void
a_paused_guest_does_nothing(void **s)
{
    uint64_t n;

    (void)s;
    open_rig(exits, sizeof(exits), 1, false);
    start();
    for (unsigned i = 0; i < 20; i++) {
        wait_for_exits(io_exits());
        assert_int_equal(do_call(st_machine_pause), 0);
        n = io_exits();
        nap();
        assert_int_equal(io_exits(), n);
        assert_int_equal(do_call(st_machine_resume), 0);
    }
    close_rig("A");
}

static void
a_reset_keeps_a_pause(void **s)
{
    uint64_t n;

    (void)s;
    open_rig(exits, sizeof(exits), 1, false);
    start();
    wait_for_exits(0);
    assert_int_equal(do_call(st_machine_pause), 0);
    assert_int_equal(do_call(st_machine_reset), 0);
    assert_int_equal(state(), ST_MACHINE_PAUSED);
    n = io_exits();
    nap();
    assert_int_equal(io_exits(), n);
    assert_int_equal(do_call(st_machine_resume), 0);
    wait_for_exits(n);
    close_rig(NULL);
}

static void
one_that_never_ran_is_stopped(void **s)
{
    (void)s;
    open_rig(spin, sizeof(spin), 2, false);
    assert_int_equal(do_call(st_machine_pause), -EBUSY);
    assert_int_equal(do_call(st_machine_reset), -EBUSY);
    close_rig("");
}

/* ---- Without KVM ---- */

static void
wrong_options_are_one_sentence(void **s)
{
    struct st_machine_opts o = {.memory = 16 * MIB, .cpus = 1};
    struct st_machine *m;
    struct st_err err;

    (void)s;
    assert_int_equal(st_machine_create(&o, &m, &err), -EINVAL);
    assert_string_equal(err.text, "expected a kernel or firmware");
    o.kernel = o.bios = "x";
    assert_int_equal(st_machine_create(&o, &m, &err), -EINVAL);
    o.bios = NULL;
    o.cpus = 65;
    assert_int_equal(st_machine_create(&o, &m, &err), -EINVAL);
    assert_string_equal(err.text, "65 CPUs: expected 1 to 64");
    o.cpus = 1;
    o.kvm = "/nowhere/kvm";
    assert_int_equal(st_machine_create(&o, &m, &err), -ENOTSUP);
    assert_int_equal(st_machine_try_kvm(o.kvm, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "/nowhere/kvm: No such file"));
}

static void
wrong_files_are_one_sentence(void **s)
{
    struct st_domain_opts d = {.engine = "threads"};
    struct st_machine_opts o = {.any_kvm = true, .memory = 16 * MIB, .cpus = 1};
    struct st_domain *domain;
    struct st_machine *m;
    struct st_err err;

    (void)s;
    assert_int_equal(st_domain_create(&d, &domain, NULL), 0);
    assert_int_equal(st_loop_create(domain, &o.home, NULL), 0);
    o.bios = "/nowhere/bios";
    assert_int_equal(st_machine_create(&o, &m, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/bios"));
    o.bios = "/dev/null";
    assert_int_equal(st_machine_create(&o, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is no firmware"));
    o.bios = NULL;
    o.kernel = "/nowhere/kernel";
    assert_int_equal(st_machine_create(&o, &m, &err), -ENOENT);
    o.kernel = "/dev/null";
    assert_int_equal(st_machine_create(&o, &m, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is not a regular file"));
    o.initrd = "/nowhere/initrd";
    assert_int_equal(st_machine_create(&o, &m, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nowhere/initrd"));
    st_loop_destroy(o.home);
    st_domain_destroy(domain);
}

int
main(void)
{
    const struct CMUnitTest anywhere[] = {
        cmocka_unit_test(wrong_options_are_one_sentence),
    };
    const struct CMUnitTest with_kvm[] = {
        cmocka_unit_test(wrong_files_are_one_sentence),
        cmocka_unit_test(a_guest_switches_off),
        cmocka_unit_test(a_guest_that_is_off_is_switched_on_by_reset),
        cmocka_unit_test(a_guest_resets_itself),
        cmocka_unit_test(without_reboot_a_reset_is_the_end),
        cmocka_unit_test(a_panic_is_told_once_a_boot),
        cmocka_unit_test(without_reboot_a_panic_is_the_end),
        cmocka_unit_test(a_crash_kernel_goes_on),
        cmocka_unit_test(a_triple_fault_is_a_reset),
        cmocka_unit_test(a_guest_that_spins_is_paused_and_stopped),
        cmocka_unit_test(a_paused_guest_does_nothing),
        cmocka_unit_test(a_reset_keeps_a_pause),
        cmocka_unit_test(one_that_never_ran_is_stopped),
    };
    int failed = cmocka_run_group_tests(anywhere, NULL, NULL);

    if (access(KVM, R_OK | W_OK) == 0)
        failed += cmocka_run_group_tests(with_kvm, NULL, NULL);
    else
        puts("skip: no " KVM " that we may use");
    return failed;
}
