/* SPDX-License-Identifier: MIT
 *
 * RAM: where it lies, what it refuses, what a reset leaves of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "machine_ram.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

static void
sizes_out_of_range_are_refused(void **state)
{
    const uint64_t wrong[] = {
        0,         4096,          15 * MIB,
        17 * MIB,  256 * MIB + 1, (UINT64_C(1) << 40) + 2 * MIB,
        UINT64_MAX};
    struct st_machine_ram r;
    struct st_err err;

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(st_machine_ram_create(wrong[i], false, &r, &err),
                         -EINVAL);
        assert_non_null(strstr(err.text, "expected 16M to 1T"));
        st_machine_ram_destroy(&r);
    }
}

static void
what_no_host_has_is_refused(void **state)
{
    struct st_machine_ram r;
    struct st_err err;

    (void)state;
    assert_int_equal(st_machine_ram_create(UINT64_C(1) << 40, false, &r, &err),
                     -EINVAL);
    assert_non_null(strstr(err.text, "more than this host has"));
    st_machine_ram_destroy(&r);
}

static void
a_small_one_is_below_4_gib(void **state)
{
    struct st_machine_ram r;

    (void)state;
    assert_int_equal(st_machine_ram_create(256 * MIB, false, &r, NULL), 0);
    assert_int_equal(r.parts, 2);
    assert_ptr_equal(st_machine_ram_at(&r, 0, 0xa0000), r.host);
    assert_null(st_machine_ram_at(&r, 0x9ffff, 2));
    assert_null(st_machine_ram_at(&r, 0xa0000, 1));
    assert_null(st_machine_ram_at(&r, 0xbffff, 2));
    assert_ptr_equal(st_machine_ram_at(&r, 0xc0000, 1), r.host + 0xc0000);
    assert_non_null(st_machine_ram_at(&r, 256 * MIB - 1, 1));
    assert_null(st_machine_ram_at(&r, 256 * MIB - 1, 2));
    assert_null(st_machine_ram_at(&r, 256 * MIB, 0x1000));
    assert_null(st_machine_ram_at(&r, UINT64_MAX, 1));
    st_machine_ram_destroy(&r);
}

static void
a_large_one_goes_on_at_4_gib(void **state)
{
    struct st_machine_ram r;

    (void)state;
    assert_int_equal(st_machine_ram_create(5 * GIB, false, &r, NULL), 0);
    assert_int_equal(r.parts, 3);
    assert_non_null(st_machine_ram_at(&r, 3 * GIB - 1, 1));
    assert_null(st_machine_ram_at(&r, 3 * GIB, 1));
    assert_null(st_machine_ram_at(&r, 4 * GIB - 1, 1));
    assert_ptr_equal(st_machine_ram_at(&r, 4 * GIB, 2 * GIB), r.host + 3 * GIB);
    assert_null(st_machine_ram_at(&r, 4 * GIB, 2 * GIB + 1));
    st_machine_ram_destroy(&r);
}

static void
others_can_map_it(void **state)
{
    struct st_machine_ram r;
    char *other;

    (void)state;
    assert_int_equal(st_machine_ram_create(16 * MIB, false, &r, NULL), 0);
    other = mmap(NULL, r.part[1].len, PROT_READ, MAP_SHARED, r.fd,
                 (off_t)r.part[1].offset);
    assert_ptr_not_equal(other, MAP_FAILED);
    strcpy(st_machine_ram_at(&r, 0xc0010, 16), "seen");
    assert_string_equal(other + 0x10, "seen");
    munmap(other, r.part[1].len);
    st_machine_ram_destroy(&r);
}

static void
a_reset_leaves_the_firmware(void **state)
{
    struct st_machine_ram r;
    static uint8_t rom[256 << 10];

    (void)state;
    memset(rom, 1, sizeof(rom));
    memset(rom + (128 << 10), 2, 128 << 10);
    assert_int_equal(st_machine_ram_create(16 * MIB, false, &r, NULL), 0);
    assert_int_equal(st_machine_ram_set_rom(&r, rom, sizeof(rom)), 0);
    memset(r.host, 0xff, 16 * MIB);
    assert_int_equal(st_machine_ram_clear(&r), 0);
    assert_int_equal(r.host[0], 0);
    assert_int_equal(r.host[0xdffff], 0);
    assert_int_equal(r.host[0xe0000], 2);
    assert_int_equal(r.host[0xfffff], 2);
    assert_int_equal(r.host[0x100000], 0);
    assert_int_equal(r.host[16 * MIB - 1], 0);
    st_machine_ram_destroy(&r);
}

static void
devices_see_all_of_it(void **state)
{
    struct st_domain_opts o = {.engine = "virtual", .seed = 1};
    struct st_domain *d;
    struct st_loop *l;
    struct st_gmem *g;
    struct st_gmem_view *v;
    struct st_machine_ram r;
    uint8_t byte = 7;

    (void)state;
    assert_int_equal(st_domain_create(&o, &d, NULL), 0);
    assert_int_equal(st_loop_create(d, &l, NULL), 0);
    g = st_gmem_create(l);
    v = st_gmem_open(g, l);
    assert_int_equal(st_machine_ram_create(5 * GIB, false, &r, NULL), 0);
    assert_int_equal(st_machine_ram_share(&r, g), 0);
    assert_int_equal(st_gmem_write(v, 6 * GIB - 1, &byte, 1), 0);
    assert_int_equal(r.host[5 * GIB - 1], 7);
    assert_int_equal(st_gmem_write(v, 6 * GIB, &byte, 1), -EFAULT);
    assert_int_equal(st_gmem_write(v, 0xa0000, &byte, 1), -EFAULT);
    assert_int_equal(st_gmem_write(v, 3 * GIB, &byte, 1), -EFAULT);
    st_gmem_close(v);
    while (st_domain_step(d))
        ;
    st_gmem_destroy(g);
    st_loop_destroy(l);
    st_domain_destroy(d);
    st_machine_ram_destroy(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_out_of_range_are_refused),
        cmocka_unit_test(what_no_host_has_is_refused),
        cmocka_unit_test(a_small_one_is_below_4_gib),
        cmocka_unit_test(a_large_one_goes_on_at_4_gib),
        cmocka_unit_test(others_can_map_it),
        cmocka_unit_test(a_reset_leaves_the_firmware),
        cmocka_unit_test(devices_see_all_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
