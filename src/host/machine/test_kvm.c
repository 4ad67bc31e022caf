/* SPDX-License-Identifier: MIT
 *
 * /dev/kvm, where there is one: opened, refused, judged by what it can do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kvm.h"

#define KVM "/dev/kvm"

/* Does the host say that it has hardware for guests? */
static bool
hardware(void)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[8192];
    bool found = false;

    assert_non_null(f);
    while (!found && fgets(line, sizeof(line), f))
        found = strncmp(line, "flags", 5) == 0 &&
                (strstr(line, " svm") || strstr(line, " vmx"));
    fclose(f);
    return found;
}

static void
it_can_run_a_kernel_if_it_has_hardware(void **state)
{
    struct st_kvm k;
    struct st_err err;

    (void)state;
    assert_int_equal(st_kvm_open(KVM, 1, &k, &err), 0);
    if (hardware()) {
        assert_int_equal(st_kvm_check(&k, &err), 0);
    } else {
        assert_int_equal(st_kvm_check(&k, &err), -ENOTSUP);
        assert_non_null(strstr(err.text, "strata serve"));
    }
    st_kvm_close(&k);
}

static void
more_cpus_than_it_has_are_refused(void **state)
{
    struct st_kvm k;
    struct st_err err;

    (void)state;
    assert_int_equal(st_kvm_open(KVM, 1000000, &k, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "not 1000000"));
    st_kvm_close(&k);
}

static void
what_is_no_kvm_is_refused(void **state)
{
    struct st_kvm k;
    struct st_err err;

    (void)state;
    assert_int_equal(st_kvm_open("/nowhere/kvm", 1, &k, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "/nowhere/kvm"));
    assert_non_null(strstr(err.text, "strata serve"));
    st_kvm_close(&k);
    assert_int_equal(st_kvm_open("/dev/null", 1, &k, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "/dev/null is no KVM"));
    st_kvm_close(&k);
}

int
main(void)
{
    const struct CMUnitTest anywhere[] = {
        cmocka_unit_test(what_is_no_kvm_is_refused),
    };
    const struct CMUnitTest with_kvm[] = {
        cmocka_unit_test(it_can_run_a_kernel_if_it_has_hardware),
        cmocka_unit_test(more_cpus_than_it_has_are_refused),
    };
    int failed = cmocka_run_group_tests(anywhere, NULL, NULL);

    if (access(KVM, R_OK | W_OK) == 0)
        failed += cmocka_run_group_tests(with_kvm, NULL, NULL);
    else
        puts("skip: no " KVM " that we may use");
    return failed;
}
