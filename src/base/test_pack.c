/* SPDX-License-Identifier: MIT
 *
 * Values in a buffer, and its checksum.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "pack.h"

struct thing {
    uint8_t a;
    uint16_t b;
    uint32_t c, n;
    uint64_t d;
    int64_t e;
    bool f;
    uint8_t text[5];
};

enum { HEAD = 3, LEN = 1 + 2 + 4 + 4 + 8 + 8 + 1 + 5, MAX = 7 };

static void
walk(struct st_pack *k, void *arg)
{
    struct thing *t = arg;

    st_pack_u8(k, &t->a);
    st_pack_u16(k, &t->b);
    st_pack_u32(k, &t->c);
    st_pack_count(k, &t->n, MAX);
    st_pack_u64(k, &t->d);
    st_pack_i64(k, &t->e);
    st_pack_flag(k, &t->f);
    st_pack_bytes(k, t->text, sizeof(t->text));
}

static struct thing thing = {.a = 0xa1,
                             .b = 0xb1b2,
                             .c = 0xc1c2c3c4,
                             .n = MAX,
                             .d = UINT64_C(0xd1d2d3d4d5d6d7d8),
                             .e = -2,
                             .f = true,
                             .text = "hello"};

static uint8_t *
packed(void)
{
    size_t len;
    uint8_t *p = st_pack_new(walk, &thing, HEAD, &len);

    assert_non_null(p);
    assert_int_equal(len, HEAD + LEN);
    return p;
}

/* What of PACKED, LEN bytes, is read into T. */
static struct st_pack
read_back(const uint8_t *p, size_t len, struct thing *t)
{
    struct st_pack k = st_pack_reader(p, len);

    memset(t, 0xee, sizeof(*t));
    walk(&k, t);
    return k;
}

static void
all_is_little_endian_and_not_padded(void **state)
{
    static const uint8_t is[LEN] = {
        0xa1, 0xb2, 0xb1, 0xc4, 0xc3, 0xc2, 0xc1, MAX,  0,    0,    0,
        0xd8, 0xd7, 0xd6, 0xd5, 0xd4, 0xd3, 0xd2, 0xd1, 0xfe, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 1,    'h',  'e',  'l',  'l',  'o'};
    uint8_t *p = packed();

    (void)state;
    assert_memory_equal(p + HEAD, is, LEN);
    free(p);
}

static void
what_is_read_is_what_was_written(void **state)
{
    uint8_t *p = packed();
    struct thing t;
    struct st_pack k = read_back(p + HEAD, LEN, &t);

    (void)state;
    assert_true(st_pack_done(&k));
    assert_int_equal(t.a, thing.a);
    assert_int_equal(t.b, thing.b);
    assert_int_equal(t.c, thing.c);
    assert_int_equal(t.n, thing.n);
    assert_int_equal(t.d, thing.d);
    assert_int_equal(t.e, thing.e);
    assert_true(t.f);
    assert_memory_equal(t.text, thing.text, sizeof(t.text));
    free(p);
}

static void
a_short_buffer_is_bad_and_reads_zeroes(void **state)
{
    static const uint8_t zeroes[5];
    uint8_t *p = packed();
    struct thing t;

    (void)state;
    for (size_t len = 0; len < LEN; len++) {
        /* Of its own, so that a sanitizer sees what is read behind it. */
        uint8_t *part = malloc(len + 1);
        struct st_pack k;

        memcpy(part, p + HEAD, len);
        k = read_back(part, len, &t);
        assert_false(st_pack_done(&k));
        assert_true(k.bad);
        assert_memory_equal(t.text, zeroes, sizeof(zeroes));
        free(part);
    }
    free(p);
}

static void
a_long_buffer_is_not_done(void **state)
{
    uint8_t p[LEN + 1] = {0};
    struct thing t;
    struct st_pack k = read_back(p, sizeof(p), &t);

    (void)state;
    assert_false(k.bad);
    assert_false(st_pack_done(&k));
}

static void
values_that_cannot_be_are_bad(void **state)
{
    uint8_t *p = packed();
    struct thing t;
    struct st_pack k;

    (void)state;
    p[HEAD + 7] = MAX + 1;
    k = read_back(p + HEAD, LEN, &t);
    assert_true(k.bad);
    assert_int_equal(t.n, 0);
    p[HEAD + 7] = MAX;
    p[HEAD + 27] = 2; /* neither false nor true */
    k = read_back(p + HEAD, LEN, &t);
    assert_true(k.bad);
    assert_false(t.f);
    free(p);
}

/* RFC 3720, B.4, and the check value of the catalogue of CRCs. */
static void
checksums_are_the_published_ones(void **state)
{
    uint8_t b[32];

    (void)state;
    assert_int_equal(st_crc32c(0, "123456789", 9), 0xe3069283);
    memset(b, 0, sizeof(b));
    assert_int_equal(st_crc32c(0, b, sizeof(b)), 0x8a9136aa);
    memset(b, 0xff, sizeof(b));
    assert_int_equal(st_crc32c(0, b, sizeof(b)), 0x62a8ab43);
    for (unsigned i = 0; i < sizeof(b); i++)
        b[i] = (uint8_t)i;
    assert_int_equal(st_crc32c(0, b, sizeof(b)), 0x46dd794e);
    assert_int_equal(st_crc32c(0, b, 0), 0);
}

static void
a_checksum_goes_on(void **state)
{
    (void)state;
    for (unsigned n = 0; n <= 9; n++)
        assert_int_equal(
            st_crc32c(st_crc32c(0, "123456789", n), &"123456789"[n], 9 - n),
            0xe3069283);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_little_endian_and_not_padded),
        cmocka_unit_test(what_is_read_is_what_was_written),
        cmocka_unit_test(a_short_buffer_is_bad_and_reads_zeroes),
        cmocka_unit_test(a_long_buffer_is_not_done),
        cmocka_unit_test(values_that_cannot_be_are_bad),
        cmocka_unit_test(checksums_are_the_published_ones),
        cmocka_unit_test(a_checksum_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
