/* SPDX-License-Identifier: MIT
 *
 * The firmware configuration device: items by both ways, requests that are
 * wrong, and the loader's script, carried out as firmware does it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fw_cfg.h"
#include "test_access.h"
#include "wire.h"

enum { LOW = 0xa0000, HIGH = 4 << 20, REQUEST = 0x1000, DATA = 0x2000 };

static struct rig {
    struct st_space *ports;
    struct st_fw_cfg *cfg;
    uint8_t *low, *high;
} rig;

static int
set_up(void **state)
{
    struct st_guest_ram ram[3];

    (void)state;
    memset(&rig, 0, sizeof(rig));
    rig.low = calloc(1, LOW);
    rig.high = calloc(1, HIGH);
    assert_true(rig.low && rig.high);
    ram[0] = (struct st_guest_ram){0, LOW, rig.low};
    ram[1] = (struct st_guest_ram){0xc0000, HIGH - 0xc0000, rig.high + 0xc0000};
    ram[2] = (struct st_guest_ram){ST_MAP_4G, 4096, rig.high};
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(st_fw_cfg_create(rig.ports, ram, 3, 2, &rig.cfg), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    st_fw_cfg_destroy(rig.cfg);
    st_space_destroy(rig.ports);
    free(rig.low);
    free(rig.high);
    return 0;
}

/* The first LEN bytes of an item, by the data port. */
static void
read_item(unsigned key, void *to, size_t len)
{
    put(rig.ports, 0x510, 2, key);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)to)[i] = (uint8_t)get(rig.ports, 0x511, 1);
}

/* Key and size of a file, or 0. */
static unsigned
find(const char *name, size_t *size)
{
    uint8_t entry[64];
    be32 count;

    read_item(0x19, &count, 4);
    for (unsigned i = be32_get(count); i; i--) {
        for (unsigned k = 0; k < 64; k++)
            entry[k] = (uint8_t)get(rig.ports, 0x511, 1);
        if (!strcmp((char *)entry + 8, name)) {
            *size = (size_t)(entry[0] << 24 | entry[1] << 16 | entry[2] << 8 |
                             entry[3]);
            return entry[4] << 8 | entry[5];
        }
    }
    return 0;
}

static uint8_t *
read_file(const char *name, size_t *size)
{
    unsigned key = find(name, size);
    uint8_t *data = malloc(*size + 1);

    assert_true(key >= 0x20);
    assert_non_null(data);
    read_item(key, data, *size);
    return data;
}

/* Ask by DMA. What the control word becomes. */
static uint32_t
request(uint32_t control, uint32_t len, uint64_t gpa)
{
    be32 words[2] = {be32_of(control), be32_of(len)};
    be64 address = be64_of(gpa);

    memcpy(rig.low + REQUEST, words, 8);
    memcpy(rig.low + REQUEST + 8, &address, 8);
    put(rig.ports, 0x514, 4, 0);
    put(rig.ports, 0x518, 4, htobe32(REQUEST));
    memcpy(words, rig.low + REQUEST, 4);
    return be32_get(words[0]);
}

/* ---- Items ---- */

static void
it_says_what_it_is(void **state)
{
    uint8_t b[8];

    (void)state;
    read_item(0, b, 6);
    assert_memory_equal(b, "QEMU\0\0", 6);
    read_item(1, b, 4);
    assert_memory_equal(b, "\3\0\0\0", 4);
    read_item(5, b, 2);
    assert_memory_equal(b, "\2\0", 2);
    read_item(15, b, 2);
    assert_memory_equal(b, "\2\0", 2);
    read_item(0x19, b, 4);
    assert_memory_equal(b, "\0\0\0\0", 4);
    read_item(0x20, b, 2); /* there is no file */
    assert_memory_equal(b, "\0\0", 2);
    read_item(0xffff, b, 2);
    assert_memory_equal(b, "\0\0", 2);
    assert_int_equal(get(rig.ports, 0x514, 4), 0x554d4551); /* "QEMU CFG" */
    assert_int_equal(get(rig.ports, 0x518, 4), 0x47464320);
}

static void
files_are_in_the_directory(void **state)
{
    size_t size;
    uint8_t *data;

    (void)state;
    assert_int_equal(st_fw_cfg_add(rig.cfg, "a", "alpha", 5), 0);
    assert_int_equal(st_fw_cfg_add(rig.cfg, "etc/b", "beta", 4), 0);
    data = read_file("etc/b", &size);
    assert_int_equal(size, 4);
    assert_memory_equal(data, "beta", 4);
    assert_int_equal(get(rig.ports, 0x511, 1), 0); /* behind its end */
    put(rig.ports, 0x510, 2, 0x20);
    assert_int_equal(get(rig.ports, 0x511, 2),
                     'a' | 'l' << 8); /* bytes in a row */
    assert_int_equal(get(rig.ports, 0x511, 1), 'p');
    st_fw_cfg_reset(rig.cfg);
    assert_int_equal(get(rig.ports, 0x511, 1), 'Q');
    free(data);
}

static void
files_that_cannot_be_are_refused(void **state)
{
    char name[ST_FW_CFG_NAME + 1];

    (void)state;
    memset(name, 'n', sizeof(name));
    name[ST_FW_CFG_NAME] = '\0';
    assert_int_equal(st_fw_cfg_add(rig.cfg, name, "", 0), -EINVAL);
    assert_int_equal(st_fw_cfg_add(rig.cfg, name + 1, "", 0), 0);
    assert_int_equal(st_fw_cfg_add(rig.cfg, name + 1, "", 0), -EEXIST);
    assert_int_equal(st_fw_cfg_add(rig.cfg, "", "", 0), -EINVAL);
    for (unsigned i = 1; i < ST_FW_CFG_FILES; i++)
        assert_int_equal(st_fw_cfg_add(rig.cfg, name + 1 + i, "", 0), 0);
    assert_int_equal(st_fw_cfg_add(rig.cfg, "more", "", 0), -ENOSPC);
}

/* ---- DMA ---- */

static void
a_request_does_it_in_one_go(void **state)
{
    (void)state;
    assert_int_equal(st_fw_cfg_add(rig.cfg, "f", "0123456789", 10), 0);
    memset(rig.low + DATA, 0xee, 16);
    assert_int_equal(request(0x20 << 16 | 8 | 2, 4, DATA), 0);
    assert_memory_equal(rig.low + DATA, "0123\xee", 5);
    assert_int_equal(request(4, 2, 0), 0); /* skip */
    assert_int_equal(request(2, 8, DATA), 0);
    assert_memory_equal(rig.low + DATA, "6789\0\0\0\0\xee", 9);
    assert_int_equal(request(0x20 << 16 | 8, 0, 0), 0); /* select only */
    assert_int_equal(get(rig.ports, 0x511, 1), '0');
}

static void
wrong_requests_fail_and_change_nothing(void **state)
{
    (void)state;
    assert_int_equal(request(2, 4, LOW - 2), 1); /* ends beyond RAM */
    assert_int_equal(request(2, 4, UINT64_MAX - 1), 1);
    assert_int_equal(request(2, UINT32_MAX, 0), 1);
    assert_int_equal(request(16, 4, DATA), 1); /* nothing can be written */
    assert_int_equal(request(2, 4, ST_MAP_4G), 0);
    assert_memory_equal(rig.high, "QEMU", 4);
    /* A request that is nowhere. */
    put(rig.ports, 0x514, 4, htobe32(0xff));
    put(rig.ports, 0x518, 4, htobe32(0));
    put(rig.ports, 0x518, 4, htobe32(LOW - 8));
    put(rig.ports, 0x510, 1, 0x20); /* half a selector */
    assert_int_equal(request(2, 0, DATA), 0);
}

static void
an_address_can_be_one_long_word(void **state)
{
    be32 control = be32_of(1 << 16 | 8 | 2), len = be32_of(4);
    be64 address = be64_of(DATA);

    (void)state;
    memcpy(rig.high, &control, 4);
    memcpy(rig.high + 4, &len, 4);
    memcpy(rig.high + 8, &address, 8);
    put(rig.ports, 0x514, 8, htobe64(ST_MAP_4G));
    assert_memory_equal(rig.low + DATA, "\3\0\0\0", 4);
    assert_memory_equal(rig.high, "\0\0\0\0", 4);
}

/* ---- What firmware gets ---- */

static void
the_memory_map_is_qemus(void **state)
{
    static const struct {
        le64 gpa, len;
        le32 type;
    } want[] = {
        {{{0}}, {{0, 0, 0x40}}, {{1}}},
        {{{0, 0, 0, 0, 1}}, {{0, 0x10}}, {{1}}},
        {{{0, 0, 0, 0xe0}}, {{0, 0, 0x10}}, {{2}}},
    };
    size_t size;
    uint8_t *data;

    (void)state;
    assert_int_equal(st_fw_cfg_add_e820(rig.cfg, true), 0);
    data = read_file("etc/e820", &size);
    assert_int_equal(size, 60);
    assert_memory_equal(data, want, 60);
    free(data);
}

static void
the_boot_order_names_slots(void **state)
{
    static const unsigned slots[] = {4, 31};
    size_t size;
    uint8_t *data;

    (void)state;
    assert_int_equal(st_fw_cfg_add_boot_order(rig.cfg, slots, 2), 0);
    data = read_file("bootorder", &size);
    assert_string_equal((char *)data,
                        "/pci@i0cf8/disk@4\n/pci@i0cf8/disk@1f\nHALT");
    assert_int_equal(size, strlen((char *)data) + 1);
    free(data);
}

static uint32_t
get32(const uint8_t *p)
{
    le32 v;

    memcpy(&v, p, 4);
    return le32_get(v);
}

/* Carry out the script; tables go to TABLES, the RSDP to RSDP in memory. */
static void
play(const uint8_t *s, size_t size, uint64_t tables, uint64_t rsdp)
{
    unsigned allocated = 0;

    assert_int_equal(size % 128, 0);
    for (; size; size -= 128, s += 128) {
        const char *name = (const char *)s + 4;
        bool is_rsdp = !strcmp(name, "etc/acpi/rsdp");
        uint8_t *file = rig.high + (is_rsdp ? rsdp : tables);
        uint8_t *data, *at, sum = 0;
        le64 v = {{0}};
        size_t len;

        assert_true(is_rsdp || !strcmp(name, "etc/acpi/tables"));
        switch (get32(s)) {
        case 1:
            assert_int_equal(get32(s + 60), is_rsdp ? 16 : 64);
            assert_int_equal(s[64], is_rsdp ? 2 : 1);
            data = read_file(name, &len);
            memcpy(file, data, len);
            free(data);
            allocated++;
            break;
        case 2:
            assert_int_equal(allocated, 2);
            assert_string_equal((const char *)s + 60, "etc/acpi/tables");
            at = file + get32(s + 116);
            memcpy(&v, at, s[120]);
            v = le64_of(le64_get(v) + tables);
            memcpy(at, &v, s[120]);
            break;
        default:
            assert_int_equal(get32(s), 3);
            for (uint32_t i = 0; i < get32(s + 68); i++)
                sum = (uint8_t)(sum + file[get32(s + 64) + i]);
            file[get32(s + 60)] = (uint8_t)(file[get32(s + 60)] - sum);
        }
    }
}

static void
the_script_gives_the_tables_of_direct_boot(void **state)
{
    const struct st_acpi_options opts = {
        .cpus = 3, .ecam = true, .pci64 = 0x800000000};
    static uint8_t want[128 << 10];
    struct st_acpi acpi;
    size_t size;
    uint8_t *script;

    (void)state;
    assert_int_equal(st_acpi_build(&opts, &acpi), 0);
    assert_int_equal(st_fw_cfg_add_acpi(rig.cfg, &acpi), 0);
    assert_int_equal(st_fw_cfg_add_acpi(rig.cfg, &acpi), -EEXIST);
    st_acpi_place(&acpi, 0x200000, want);
    script = read_file("etc/table-loader", &size);
    play(script, size, 0x200040, 0x200000);
    assert_memory_equal(rig.high + 0x200000, want, st_acpi_size(&acpi));
    free(script);
    st_acpi_free(&acpi);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_says_what_it_is),
        TEST(files_are_in_the_directory),
        TEST(files_that_cannot_be_are_refused),
        TEST(a_request_does_it_in_one_go),
        TEST(wrong_requests_fail_and_change_nothing),
        TEST(an_address_can_be_one_long_word),
        TEST(the_memory_map_is_qemus),
        TEST(the_boot_order_names_slots),
        TEST(the_script_gives_the_tables_of_direct_boot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
