/* SPDX-License-Identifier: MIT
 *
 * Sizes, GUIDs, wire integers, bitmaps, lists, memory, caps, log, histograms.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "bitmap.h"
#include "caps.h"
#include "err.h"
#include "guid.h"
#include "list.h"
#include "log.h"
#include "mem.h"
#include "rand.h"
#include "range.h"
#include "size.h"
#include "stat.h"
#include "wire.h"

static void
sizes_follow_the_table(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"1G", 1073741824},
        {"1GB", 1073741824},
        {"3MB", 3145728},
        {"512KB", 524288},
        {"10B", 10},
        {"4096", 4096},
        {"0", 0},
        {"2T", UINT64_C(2) << 40},
        {"18446744073709551615", UINT64_MAX},
        {"VMGS_DEFAULT", 0x400000},
    };
    static const char *const bad[] = {"3MiB", "1g",  "1.5G",
                                      "-1",   "",    "B",
                                      "G",    "KB",  "0x10",
                                      "1 G",  "+5",  "18446744073709551615K",
                                      "1BB",  "1KG", "18446744073709551616"};

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t v = ~good[i].bytes;

        assert_int_equal(st_size_parse(good[i].text, &v, NULL), 0);
        assert_true(v == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct st_err err = {""};
        uint64_t v = 77;
        char quoted[64];

        snprintf(quoted, sizeof(quoted), "'%s'", bad[i]);
        assert_int_equal(st_size_parse(bad[i], &v, &err), -EINVAL);
        assert_non_null(strstr(err.text, quoted));
        assert_int_equal(v, 77);
    }
}

static void
sizes_are_written_for_people(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } t[] = {{0, "0"},
             {512, "512"},
             {1023, "1023"},
             {1024, "1K"},
             {1536, "1.5K"},
             {UINT64_C(1) << 30, "1G"},
             {(UINT64_C(1) << 30) + 1, "1.0G"},
             {UINT64_C(1) << 60, "1E"},
             {UINT64_MAX, "15.9E"}};
    char buf[16];

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
        assert_string_equal(st_size_format(t[i].bytes, buf), t[i].text);
}

static void
numbers_have_a_range(void **state)
{
    struct st_err err;
    uint64_t v;

    (void)state;
    assert_int_equal(st_number_parse("port", "7", 1, 7, &v, NULL), 0);
    assert_int_equal(v, 7);
    assert_int_equal(st_number_parse("port", "8", 1, 7, &v, &err), -EINVAL);
    assert_string_equal(err.text,
                        "invalid port '8', expected a number from 1 to 7");
    assert_int_equal(st_number_parse("port", "", 0, 7, &v, NULL), -EINVAL);
}

static void
guids_are_mixed_endian(void **state)
{
    static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
    static const uint8_t bytes[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44,
                                      0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb,
                                      0xcc, 0xdd, 0xee, 0xff};
    static const char *const bad[] = {
        "",
        "00112233-4455-6677-8899-aabbccddeef",
        "00112233-4455-6677-8899-aabbccddeeff0",
        "00112233+4455-6677-8899-aabbccddeeff",
        "0011223g-4455-6677-8899-aabbccddeeff",
        "{00112233-4455-6677-8899-aabbccddeeff",
        "[00112233-4455-6677-8899-aabbccddeeff]",
    };
    struct st_guid g, h;
    char buf[37];

    (void)state;
    assert_true(st_guid_parse(text, &g));
    assert_memory_equal(g.b, bytes, 16);
    assert_string_equal(st_guid_format(&g, buf), text);
    assert_true(st_guid_parse("{00112233-4455-6677-8899-AABBCCDDEEFF}", &h));
    assert_true(st_guid_equal(&g, &h));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(st_guid_parse(bad[i], &h));
        assert_true(st_guid_equal(&g, &h));
    }
}

static void
wire_integers_have_their_order(void **state)
{
    (void)state;
    assert_memory_equal(le32_of(0x01020304).b, "\4\3\2\1", 4);
    assert_memory_equal(be32_of(0x01020304).b, "\1\2\3\4", 4);
    assert_memory_equal(be16_of(0x0102).b, "\1\2", 2);
    assert_true(le64_get(le64_of(UINT64_C(0x1122334455667788))) ==
                UINT64_C(0x1122334455667788));
    assert_true(be64_get(be64_of(5)) == 5);
    assert_int_equal(le16_get(le16_of(0xfffe)), 0xfffe);
}

static void
bitmaps_agree_with_bytes(void **state)
{
    struct st_rand r = st_rand_seed(1);
    enum { N = 300 };

    (void)state;
    for (int round = 0; round < 200; round++) {
        uint64_t map[(N + 63) / 64] = {0};
        uint8_t ref[N] = {0};
        size_t count = 0, a, b;

        for (int k = 0; k < 5; k++) {
            a = st_rand_below(&r, N);
            b = st_rand_below(&r, N - a + 1);
            st_bitmap_set_range(map, a, b);
            memset(ref + a, 1, b);
            a = st_rand_below(&r, N);
            st_bitmap_clear(map, a);
            ref[a] = 0;
        }
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(st_bitmap_test(map, i), ref[i]);
            count += ref[i];
        }
        assert_int_equal(st_bitmap_count(map, N), count);
        for (int v = 0; v < 2; v++) {
            size_t start = st_rand_below(&r, N), want = start;

            while (want < N && ref[want] != v)
                want++;
            assert_int_equal(st_bitmap_find(map, start, N, v), want);
        }
    }
}

static void
lists_link_and_unlink(void **state)
{
    struct item {
        int n;
        struct st_list link;
    } items[4] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};
    struct st_list a, b;
    int want = 0;

    (void)state;
    st_list_init(&a);
    st_list_init(&b);
    assert_null(st_list_first(&a));
    for (int i = 0; i < 4; i++)
        st_list_append(i < 2 ? &a : &b, &items[i].link);
    st_list_splice(&a, &b);
    assert_true(st_list_empty(&b));
    st_list_splice(&a, &b);
    st_list_for(it, tmp, &a, struct item, link)
    {
        assert_int_equal(it->n, want++);
        st_list_remove(&it->link);
        st_list_remove(&it->link);
    }
    assert_int_equal(want, 4);
    assert_true(st_list_empty(&a));
}

static void
buffers_walk_their_segments(void **state)
{
    char a[3] = "abc", b[1], c[5] = "defgh", out[9] = "";
    struct iovec iov[] = {{a, 3}, {b, 0}, {c, 5}}, part[4];
    struct st_buf buf = {iov, 0}, at;
    size_t done;

    (void)state;
    st_buf_read(buf, out, 8);
    assert_string_equal(out, "abcdefgh");
    at = st_buf_advance(buf, 4);
    st_buf_write(at, "XY", 2);
    st_buf_zero(st_buf_advance(buf, 2), 1);
    st_buf_read(buf, out, 8);
    assert_memory_equal(out, "ab\0dXYgh", 8);
    assert_int_equal(st_buf_iov(buf, 5, part, 4, &done), 2);
    assert_int_equal(done, 5);
    assert_int_equal(part[1].iov_len, 2);
    assert_int_equal(st_buf_iov(buf, 5, part, 1, &done), 1);
    assert_int_equal(done, 3);
}

static void
alignment_and_zeroes_are_seen(void **state)
{
    char *p = st_pages_alloc(8192);
    struct iovec iov[] = {{p, 512}, {p + 1024, 1024}};

    (void)state;
    assert_non_null(p);
    assert_true(st_buf_aligned((struct st_buf){iov, 0}, 1536, 512));
    assert_false(st_buf_aligned((struct st_buf){iov, 0}, 1536, 1024));
    assert_false(st_buf_aligned((struct st_buf){iov, 1}, 100, 512));
    memset(p, 0, 8192);
    for (size_t len = 0; len < 70; len++) {
        assert_true(st_mem_is_zero(p, len));
        for (size_t i = 0; i < len; i++) {
            p[i] = 1;
            assert_false(st_mem_is_zero(p, len));
            p[i] = 0;
        }
    }
    free(p);
}

static void
ranges_do_not_overflow(void **state)
{
    (void)state;
    assert_true(st_range_ok(8, 0, 8));
    assert_true(st_range_ok(0, 8, 8));
    assert_false(st_range_ok(1, 8, 8));
    assert_false(st_range_ok(UINT64_MAX, 2, 8));
    assert_true(st_range_overlap(0, 2, 1, 1));
    assert_false(st_range_overlap(0, 2, 2, 1));
    assert_int_equal(st_align_up(513, 512), 1024);
    assert_int_equal(st_align_down(513, 512), 512);
    assert_true(st_is_pow2(4096) && !st_is_pow2(0) && !st_is_pow2(12));
}

static void
caps_refuse_and_count(void **state)
{
    struct st_caps caps;
    struct st_cap_row *w = &caps.row[ST_CAP_WORKERS];

    (void)state;
    st_caps_init(&caps);
    assert_true(st_cap_take(&caps, ST_CAP_WORKERS, 1000)); /* alone */
    assert_false(st_cap_take(&caps, ST_CAP_WORKERS, 1));
    st_cap_give(&caps, ST_CAP_WORKERS, 1000);
    assert_true(st_cap_take(&caps, ST_CAP_WORKERS, 63));
    assert_true(st_cap_take(&caps, ST_CAP_WORKERS, 1));
    assert_false(st_cap_take(&caps, ST_CAP_WORKERS, 1));
    assert_int_equal(w->used, 64);
    assert_int_equal(w->peak, 1000);
    assert_int_equal(w->refused, 2);
    assert_string_equal(w->name, "workers");
}

struct lines {
    int n;
    char last[256];
};

static void
keep_line(void *arg, enum st_level level, const char *line)
{
    struct lines *l = arg;

    (void)level;
    l->n++;
    snprintf(l->last, sizeof(l->last), "%s", line);
}

static void
log_drops_what_is_below_its_level(void **state)
{
    struct lines l = {0};
    struct st_log log = {ST_LOG_WARN, keep_line, &l};

    (void)state;
    st_info(&log, "no");
    st_warn(NULL, "no");
    assert_int_equal(l.n, 0);
    st_warn(&log, "a\nb %d", 5);
    assert_string_equal(l.last, "a?b 5");
}

static void
limited_log_says_what_it_dropped(void **state)
{
    struct lines l = {0};
    struct st_log log = {ST_LOG_WARN, keep_line, &l};
    struct st_limiter lim = {0};

    (void)state;
    for (int i = 0; i < 5; i++)
        st_warn_limited(&log, &lim, "again %d", i);
    assert_int_equal(l.n, 1);
    lim.next_ns = 0; /* a second later */
    st_warn_limited(&log, &lim, "again");
    assert_string_equal(l.last, "again (and 4 more like it)");
}

static void
errors_are_sentences(void **state)
{
    struct st_err err;

    (void)state;
    assert_int_equal(st_err_set(&err, EIO, "read %d", 3), -EIO);
    st_err_prefix(&err, "file '%s'", "x");
    assert_string_equal(err.text, "file 'x': read 3");
    assert_int_equal(st_err_set(NULL, EIO, "x"), -EIO);
    st_err_prefix(NULL, "x");
    assert_string_equal(st_strerror(-ENOENT), "No such file or directory");
    assert_string_equal(st_strerror(99999), "unknown error");
}

/* What a sandbox says is tests/sandbox's. */
static void
permissions_are_not_taken_for_a_sandbox(void **state)
{
    char dir[] = "/tmp/strata-err-XXXXXX", path[64];
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0444);
    assert_true(fd >= 0);
    close(fd);
    /* EACCES where all is permitted can only be a sandbox's. */
    assert_non_null(strstr(st_strerror_open(path, false, -EACCES), "sandbox"));
    assert_string_equal(st_strerror_open(path, false, -EIO), st_strerror(-EIO));
    if (geteuid() == 0) { /* to whom all is permitted */
        assert_int_equal(chmod(dir, 0755), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    assert_string_equal(st_strerror_open(path, true, -EACCES),
                        st_strerror(-EACCES));
    snprintf(path, sizeof(path), "/proc/none");
    assert_string_equal(st_strerror_open(path, true, -EACCES),
                        st_strerror(-EACCES));
    assert_int_equal(seteuid(getuid()), 0);
    snprintf(path, sizeof(path), "%s/new", dir);
    assert_non_null(strstr(st_strerror_open(path, true, -EACCES), "sandbox"));
    assert_string_equal(st_strerror_open(path, false, -EACCES),
                        st_strerror(-EACCES));
    snprintf(path, sizeof(path), "%s/file", dir);
    unlink(path);
    rmdir(dir);
}

static void
histograms_answer_quantiles(void **state)
{
    struct st_hist h = {0}, sum = {0};

    (void)state;
    assert_int_equal(st_hist_quantile(&h, 0.5), 0);
    for (int i = 0; i < 99; i++)
        st_hist_add(&h, 100);
    st_hist_add(&h, UINT64_MAX);
    st_hist_merge(&sum, &h);
    st_hist_merge(&sum, &h);
    assert_int_equal(st_hist_total(&sum), 2 * st_hist_total(&h));
    assert_true(sum.sum == 2 * h.sum);
    assert_int_equal(st_hist_quantile(&sum, 0.5), 128);
    assert_int_equal(st_hist_quantile(&sum, 0.99), 128);
    assert_true(st_hist_quantile(&sum, 1.0) == UINT64_C(1)
                                                   << (ST_HIST_BUCKETS - 1));
    assert_int_equal(st_counter_get(&sum.bucket[7]), 198);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_follow_the_table),
        cmocka_unit_test(sizes_are_written_for_people),
        cmocka_unit_test(numbers_have_a_range),
        cmocka_unit_test(guids_are_mixed_endian),
        cmocka_unit_test(wire_integers_have_their_order),
        cmocka_unit_test(bitmaps_agree_with_bytes),
        cmocka_unit_test(lists_link_and_unlink),
        cmocka_unit_test(buffers_walk_their_segments),
        cmocka_unit_test(alignment_and_zeroes_are_seen),
        cmocka_unit_test(ranges_do_not_overflow),
        cmocka_unit_test(caps_refuse_and_count),
        cmocka_unit_test(log_drops_what_is_below_its_level),
        cmocka_unit_test(limited_log_says_what_it_dropped),
        cmocka_unit_test(errors_are_sentences),
        cmocka_unit_test(permissions_are_not_taken_for_a_sandbox),
        cmocka_unit_test(histograms_answer_quantiles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
