/* SPDX-License-Identifier: MIT
 *
 * ACPI tables: followed from the RSDP as a guest does it, and read by iasl,
 * which must find nothing to say, nor about its own text of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "acpi.h"
#include "address_map.h"
#include "aml.h"
#include "wire.h"

enum { GPA = ST_MAP_BIOS };

static struct rig {
    struct st_acpi acpi;
    uint8_t memory[128 << 10];
} rig;

static void
build_vmbus(unsigned cpus, bool all, bool vmbus)
{
    const struct st_acpi_options opts = {.cpus = cpus,
                                         .ecam = all,
                                         .vmbus = vmbus,
                                         .pci64 = all ? 0x800000000 : 0};

    st_acpi_free(&rig.acpi);
    assert_int_equal(st_acpi_build(&opts, &rig.acpi), 0);
    assert_true(st_acpi_size(&rig.acpi) <= sizeof(rig.memory));
    memset(rig.memory, 0xcc, sizeof(rig.memory));
    st_acpi_place(&rig.acpi, GPA, rig.memory);
}

static void
build(unsigned cpus, bool all)
{
    build_vmbus(cpus, all, all);
}

static const uint8_t *
at(uint64_t gpa)
{
    assert_in_range(gpa, GPA, GPA + sizeof(rig.memory) - 1);
    return rig.memory + (gpa - GPA);
}

static uint32_t
get32(const uint8_t *p)
{
    le32 v;

    memcpy(&v, p, 4);
    return le32_get(v);
}

static uint64_t
get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static unsigned
sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* A table whose sum is right, or NULL. */
static const uint8_t *
find(const char *signature)
{
    const uint8_t *xsdt = at(get64(rig.memory + 24));

    assert_memory_equal(xsdt, "XSDT", 4);
    assert_int_equal(sum(xsdt, get32(xsdt + 4)), 0);
    for (unsigned i = 36; i < get32(xsdt + 4); i += 8) {
        const uint8_t *t = at(get64(xsdt + i));

        assert_int_equal(sum(t, get32(t + 4)), 0);
        if (!memcmp(t, signature, 4))
            return t;
    }
    return NULL;
}

static void
the_root_is_found_and_sums_up(void **state)
{
    (void)state;
    build(1, true);
    assert_memory_equal(rig.memory, "RSD PTR ", 8);
    assert_int_equal(rig.memory[15], 2);
    assert_int_equal(sum(rig.memory, 20), 0);
    assert_int_equal(sum(rig.memory, 36), 0);
    assert_int_equal(get32(rig.memory + 20), 36);
    assert_int_equal(rig.memory[st_acpi_size(&rig.acpi)], 0xcc);
}

static void
the_fadt_says_where_the_hardware_is(void **state)
{
    const uint8_t *f, *dsdt, *facs;

    (void)state;
    build(1, false);
    f = find("FACP");
    assert_non_null(f);
    assert_int_equal(get32(f + 4), 276);
    assert_int_equal(f[8], 6);
    assert_int_equal(f[46], 9);
    assert_int_equal(get32(f + 48), 0); /* always in ACPI mode */
    assert_int_equal(get32(f + 56), 0x600);
    assert_int_equal(get32(f + 64), 0x604);
    assert_int_equal(get32(f + 76), 0x608);
    assert_memory_equal(f + 88, "\4\2\0\4", 4);
    assert_int_equal(f[108], 0x32);
    assert_int_equal(f[109], 1);
    assert_int_equal(get32(f + 112), 0x535);
    assert_memory_equal(f + 116, "\1\10\0\1\xf9\x0c\0\0\0\0\0\0\6", 13);
    assert_int_equal(get32(f + 152), 0x600);
    assert_int_equal(get32(f + 176), 0x604);
    assert_int_equal(get32(f + 212), 0x608);
    dsdt = at(get64(f + 140));
    assert_true(get64(f + 140) == get32(f + 40));
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_int_equal(sum(dsdt, get32(dsdt + 4)), 0);
    facs = at(get32(f + 36));
    assert_memory_equal(facs, "FACS\x40\0\0\0", 8);
    assert_int_equal(get32(f + 36) % 64, 0);
    assert_null(find("MCFG"));
}

static void
the_madt_has_every_processor(void **state)
{
    const uint8_t *m;
    unsigned cpus = 0, overrides = 0, ioapics = 0, nmis = 0;

    (void)state;
    build(64, true);
    m = find("APIC");
    assert_non_null(m);
    assert_int_equal(get32(m + 36), 0xfee00000);
    assert_int_equal(get32(m + 40), 1);
    for (unsigned i = 44; i < get32(m + 4); i += m[i + 1]) {
        assert_true(m[i + 1] >= 2);
        switch (m[i]) {
        case 0:
            assert_int_equal(m[i + 3], cpus);
            assert_int_equal(get32(m + i + 4), 1);
            cpus++;
            break;
        case 1:
            assert_int_equal(get32(m + i + 4), 0xfec00000);
            assert_int_equal(get32(m + i + 8), 0);
            ioapics++;
            break;
        case 2:
            assert_memory_equal(m + i,
                                overrides ? "\2\12\0\11\11\0\0\0\15\0"
                                          : "\2\12\0\0\2\0\0\0\0\0",
                                10);
            overrides++;
            break;
        default:
            assert_int_equal(m[i], 4);
            nmis++;
        }
    }
    assert_int_equal(cpus, 64);
    assert_int_equal(overrides, 2);
    assert_int_equal(ioapics, 1);
    assert_int_equal(nmis, 1);
}

static void
the_mcfg_is_there_with_ecam(void **state)
{
    const uint8_t *m;

    (void)state;
    build(2, true);
    m = find("MCFG");
    assert_non_null(m);
    assert_int_equal(get32(m + 4), 60);
    assert_true(get64(m + 44) == ST_MAP_ECAM);
    assert_int_equal(m[54], 0);
    assert_int_equal(m[55], 0); /* a guest scans all buses up to this one */
}

static void
the_dsdt_says_where_panics_are_told(void **state)
{
    static const uint8_t want[] = {
        'P', 'E', 'V', 'T', 0x08, '_', 'H', 'I', 'D',  0x0d,
        'Q', 'E', 'M', 'U', '0',  '0', '0', '1', 0x00,
    };
    const uint8_t *dsdt;

    (void)state;
    build(1, false);
    dsdt = at(get64(find("FACP") + 140));
    assert_non_null(memmem(dsdt, get32(dsdt + 4), want, sizeof(want)));
    /* IO (Decode16, 0x505, 0x505, 1, 1) */
    assert_non_null(memmem(dsdt, get32(dsdt + 4), "\x47\1\5\5\5\5\1\1", 8));
}

static void
lengths_and_integers_are_aml(void **state)
{
    static const uint8_t want[] = {
        0x10, 0x8c, 0x01, 0x00, '\\', '_',  'S',  'B',  '_', /* 28 bytes */
        0x08, 'A',  'B',  'C',  'D',  0x01,                  /* One */
        0x0a, 0x02, 0x0b, 0x34, 0x12, 0x0c, 0x78, 0x56, 0x34,
        0x12, 0x0d, 'x',  0x00, 0x0c, 0x41, 0xd0, 0x0a, 0x03, /* PNP0A03 */
    };
    struct st_aml a = {0};
    size_t scope = st_aml_scope(&a, "\\_SB_");

    (void)state;
    st_aml_name(&a, "ABCD");
    st_aml_integer(&a, 1);
    st_aml_integer(&a, 2);
    st_aml_integer(&a, 0x1234);
    st_aml_integer(&a, 0x12345678);
    st_aml_string(&a, "x");
    st_aml_end(&a, scope);
    st_aml_eisa_id(&a, "PNP0A03");
    assert_int_equal(a.len, sizeof(want));
    assert_int_equal(a.data[1], 0x80 | (27 & 15));
    a.data[1] = want[1];
    assert_memory_equal(a.data, want, sizeof(want));
    free(a.data);
}

/* ---- iasl ---- */

/* Run a command; what it says, lower case in OUT. Its status. */
static int
run(const char *command, char *out, size_t max)
{
    FILE *f = popen(command, "re");
    size_t n;

    assert_non_null(f);
    n = fread(out, 1, max - 1, f);
    out[n] = '\0';
    return pclose(f);
}

/* Disassemble a table. With BACK, compile that again. */
static void
judge(const char *dir, const char *name, const uint8_t *t, size_t len,
      bool back)
{
    char command[512], path[256];
    static char said[65536];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(t, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    snprintf(command, sizeof(command), "cd %s && iasl -d %s.aml 2>&1", dir,
             name);
    if (run(command, said, sizeof(said)) != 0 || strstr(said, "rror") ||
        strstr(said, "arning") || strstr(said, "ncorrect"))
        fail_msg("iasl -d %s: %s", name, said);
    snprintf(command, sizeof(command),
             "cd %s && grep -niE 'error|warning|invalid|unknown' %s.dsl", dir,
             name);
    if (run(command, said, sizeof(said)) == 0)
        fail_msg("iasl's text of %s: %s", name, said);
    if (!back)
        return;
    snprintf(command, sizeof(command), "cd %s && iasl -p again %s.dsl 2>&1",
             dir, name);
    if (run(command, said, sizeof(said)) != 0 ||
        !strstr(said, "0 Errors, 0 Warnings"))
        fail_msg("iasl %s.dsl: %s", name, said);
}

static void
iasl_finds_nothing_wrong(void **state)
{
    static const char *const tables[] = {"FACP", "APIC", "MCFG"};
    char dir[] = "/tmp/strata-acpi-XXXXXX", command[64];
    const uint8_t *dsdt;

    (void)state;
    if (system("iasl -v > /dev/null 2>&1") != 0) {
        print_message("skip: no iasl here (acpica-tools)\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    for (unsigned round = 0; round < 3; round++) {
        bool all = round > 0, vmbus = round > 1;

        build_vmbus(all ? 64 : 1, all, vmbus);
        for (unsigned i = 0; i < (all ? 3 : 2); i++) {
            const uint8_t *t = find(tables[i]);

            judge(dir, tables[i], t, get32(t + 4), false);
        }
        dsdt = at(get64(find("FACP") + 140));
        /* It calls "VMBus" too short, but that is what guests look for. */
        judge(dir, "DSDT", dsdt, get32(dsdt + 4), !vmbus);
    }
    snprintf(command, sizeof(command), "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_root_is_found_and_sums_up),
        cmocka_unit_test(the_fadt_says_where_the_hardware_is),
        cmocka_unit_test(the_madt_has_every_processor),
        cmocka_unit_test(the_mcfg_is_there_with_ecam),
        cmocka_unit_test(the_dsdt_says_where_panics_are_told),
        cmocka_unit_test(lengths_and_integers_are_aml),
        cmocka_unit_test(iasl_finds_nothing_wrong),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    st_acpi_free(&rig.acpi);
    return failed;
}
