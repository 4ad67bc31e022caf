/* SPDX-License-Identifier: MIT
 *
 * The CPU that a guest sees: its topology, and what `noxsave` hides.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpuid.h"

/* What a KVM supports, in a few leaves with all bits set. */
static struct kvm_cpuid2 *
host(void)
{
    static const struct {
        uint32_t function, index;
    } leaf[] = {{0, 0},          {1, 0},          {4, 0},
                {7, 0},          {7, 1},          {0xb, 0},
                {0xd, 0},        {0xd, 1},        {0x40000000, 0},
                {0x80000001, 0}, {0x80000008, 0}, {0x8000001e, 0}};
    struct kvm_cpuid2 *c =
        calloc(1, sizeof(*c) + ST_KVM_CPUID_MAX * sizeof(c->entries[0]));

    assert_non_null(c);
    for (size_t i = 0; i < sizeof(leaf) / sizeof(leaf[0]); i++)
        c->entries[c->nent++] =
            (struct kvm_cpuid_entry2){.function = leaf[i].function,
                                      .index = leaf[i].index,
                                      .eax = UINT32_MAX,
                                      .ebx = UINT32_MAX,
                                      .ecx = UINT32_MAX,
                                      .edx = UINT32_MAX};
    return c;
}

static const struct kvm_cpuid_entry2 *
leaf_of(const struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
    const struct kvm_cpuid_entry2 *found = NULL;

    for (unsigned i = 0; i < c->nent; i++)
        if (c->entries[i].function == function &&
            c->entries[i].index == index) {
            assert_null(found);
            found = &c->entries[i];
        }
    assert_non_null(found);
    return found;
}

static void
each_cpu_has_its_number(void **state)
{
    const struct st_cpuid_opts o = {0};

    (void)state;
    for (unsigned id = 0; id < 5; id++) {
        struct kvm_cpuid2 *c = host();
        const struct kvm_cpuid_entry2 *e;

        st_cpuid_shape(c, &o, id, 5);
        e = leaf_of(c, 1, 0);
        assert_int_equal(e->ebx >> 24, id);
        assert_int_equal(e->ebx >> 16 & 0xff, 5);
        assert_int_equal(e->ecx >> 31, 1); /* it is a guest */
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(leaf_of(c, 0xb, i)->edx, id);
        e = leaf_of(c, 0xb, 0); /* threads */
        assert_int_equal(e->eax, 0);
        assert_int_equal(e->ebx, 1);
        assert_int_equal(e->ecx, 0x100);
        e = leaf_of(c, 0xb, 1); /* cores: 3 bits number five */
        assert_int_equal(e->eax, 3);
        assert_int_equal(e->ebx, 5);
        assert_int_equal(e->ecx, 0x201);
        assert_int_equal(leaf_of(c, 0xb, 2)->ecx, 2);
        assert_int_equal(leaf_of(c, 0x8000001e, 0)->eax, id);
        assert_int_equal(leaf_of(c, 0x80000008, 0)->ecx & 0xff, 4);
        assert_int_equal(leaf_of(c, 4, 0)->eax >> 26, 4);
        /* KVM's own leaves stay. */
        assert_int_equal(leaf_of(c, 0x40000000, 0)->eax, UINT32_MAX);
        free(c);
    }
}

static void
one_cpu_has_no_others(void **state)
{
    const struct st_cpuid_opts o = {0};
    struct kvm_cpuid2 *c = host();

    (void)state;
    st_cpuid_shape(c, &o, 0, 1);
    assert_int_equal(leaf_of(c, 1, 0)->edx >> 28 & 1, 0);
    assert_int_equal(leaf_of(c, 0xb, 1)->eax, 0);
    assert_int_equal(leaf_of(c, 0xb, 1)->ebx, 1);
    free(c);
}

static void
noxsave_hides_what_needs_it(void **state)
{
    struct kvm_cpuid2 *with = host(), *without = host();
    struct st_cpuid_opts o = {0};
    const struct kvm_cpuid_entry2 *e;

    (void)state;
    st_cpuid_shape(with, &o, 0, 1);
    e = leaf_of(with, 1, 0);
    assert_int_equal(e->ecx >> 26 & 7, 7); /* XSAVE, OSXSAVE, AVX */
    assert_int_equal(leaf_of(with, 7, 0)->ebx >> 5 & 1, 1);
    o.noxsave = true;
    st_cpuid_shape(without, &o, 0, 1);
    e = leaf_of(without, 1, 0);
    assert_int_equal(e->ecx >> 26 & 0xf, 0);
    assert_int_equal(e->ecx >> 12 & 1, 0); /* FMA */
    assert_int_equal(e->ecx >> 25 & 1, 1); /* AES stays */
    e = leaf_of(without, 7, 0);
    assert_int_equal(e->ebx & (1u << 5 | 1u << 16), 0); /* AVX2, AVX-512F */
    assert_int_equal(e->ebx >> 9 & 1, 1);               /* ERMS stays */
    for (unsigned i = 0; i < 2; i++) {
        e = leaf_of(without, 0xd, i);
        assert_int_equal(e->eax | e->ebx | e->ecx | e->edx, 0);
    }
    assert_int_equal(leaf_of(without, 7, 1)->eax, 0);
    assert_int_equal(leaf_of(without, 0x80000001, 0)->ecx >> 11 & 1, 0);
    free(with);
    free(without);
}

/* ---- Of a machine that is restored ---- */

/* K supports all bits but those of MASK in ECX of FUNCTION. */
static void
lack(struct st_kvm *k, uint32_t function, uint32_t mask)
{
    *k = (struct st_kvm){.fd = -1, .vm = -1, .cpuid = host()};
    for (unsigned i = 0; i < k->cpuid->nent; i++)
        if (k->cpuid->entries[i].function == function)
            k->cpuid->entries[i].ecx &= ~mask;
}

static void
refused(struct st_kvm *k, const struct kvm_cpuid2 *was, unsigned n,
        const char *sentence)
{
    const struct kvm_cpuid2 *before = k->cpuid;
    struct st_err err;

    assert_int_equal(st_cpuid_adopt(k, was->entries, n, &err), -EINVAL);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
    assert_ptr_equal(k->cpuid, before);
    free(k->cpuid);
}

static void
features_that_were_there_must_be_there(void **state)
{
    struct kvm_cpuid2 *was = host();
    struct st_kvm k;

    (void)state;
    lack(&k, 1, 1u << 25); /* AES */
    refused(&k, was, was->nent,
            "lacks what the saved machine's had: CPUID leaf "
            "0x1");
    lack(&k, 7, 1u << 1);
    refused(&k, was, was->nent, "CPUID leaf 0x7");
    lack(&k, 0x80000001, 1u << 6);
    refused(&k, was, was->nent, "CPUID leaf 0x80000001");
    lack(&k, 0, 1); /* GenuineIntel, AuthenticAMD */
    refused(&k, was, was->nent, "a CPU of another maker");
    lack(&k, 1, 0);
    refused(&k, was, ST_KVM_CPUID_MAX + 1, "too long");
    lack(&k, 1, 0);
    refused(&k, was, 0, "a CPU of another maker");
    free(was);
}

/* What is new is not shown, what is no feature may differ. */
static void
a_guest_keeps_the_cpu_that_it_had(void **state)
{
    struct kvm_cpuid2 *was = host();
    struct st_kvm k;
    struct st_err err;

    (void)state;
    lack(&k, 0x80000008, 0xff); /* how many cores */
    for (unsigned i = 0; i < was->nent; i++)
        if (was->entries[i].function == 1)
            was->entries[i].ecx = 1u << 25;
    assert_int_equal(st_cpuid_adopt(&k, was->entries, was->nent, &err), 0);
    assert_int_equal(k.cpuid->nent, was->nent);
    assert_int_equal(leaf_of(k.cpuid, 1, 0)->ecx, 1u << 25);
    assert_int_equal(leaf_of(k.cpuid, 0x80000008, 0)->ecx, UINT32_MAX);
    free(k.cpuid);
    free(was);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_cpu_has_its_number),
        cmocka_unit_test(one_cpu_has_no_others),
        cmocka_unit_test(noxsave_hides_what_needs_it),
        cmocka_unit_test(features_that_were_there_must_be_there),
        cmocka_unit_test(a_guest_keeps_the_cpu_that_it_had),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
