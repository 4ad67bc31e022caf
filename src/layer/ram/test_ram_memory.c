/* SPDX-License-Identifier: MIT
 *
 * The RAM layer's memory: in proportion to what was written, by its own account
 * and by the kernel's; given back by unmaps and zeroes; and none left. Also the
 * values that can be set.
 */
#include "test_ram.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Resident bytes of this process; a sanitizer's own memory makes it useless. */
static int64_t
resident(void)
{
    char text[128] = "";
    long total, pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY);

    assert_true(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    assert_int_equal(sscanf(text, "%ld %ld", &total, &pages), 2);
    return SANITIZED ? 0 : pages * 4096;
}

struct account {
    struct st_inspect v;
    uint64_t sector_size, sector_count, committed, index;
};

static void
account_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct account *a = st_container(v, struct account, v);

    if (strcmp(name, "sector_size") == 0)
        a->sector_size = value;
    else if (strcmp(name, "sector_count") == 0)
        a->sector_count = value;
    else if (strcmp(name, "committed_size") == 0)
        a->committed = value;
    else if (strcmp(name, "index") == 0)
        a->index = value;
}

static struct account
account(struct rig *r)
{
    struct account a = {.v.u64 = account_u64};

    r->node->ops->inspect(r->node, &a.v);
    return a;
}

/* Let what waits to be released be released. */
static void
settle(struct rig *r)
{
    for (unsigned i = 0; i < 4; i++)
        rig_op(r, ST_OP_FLUSH, 0, 0, 0, NULL);
}

static void
a_terabyte_opens_for_nothing(void **state)
{
    int64_t before = resident();
    struct rig r;

    (void)state;
    rig_open(&r, TIB(1), 512, false);
    assert_true(resident() - before < (int64_t)MIB(1));
    assert_int_equal(account(&r).committed, 0);
    assert_true(account(&r).index < 4096);
    assert_int_equal(account(&r).sector_size, 512);
    assert_int_equal(account(&r).sector_count, TIB(1) / 512);
    rig_close(&r);
}

static void
a_lone_sector_costs_a_page_and_its_index(void **state)
{
    char buf[512];
    struct rig r;
    int64_t before;

    (void)state;
    memset(buf, 1, sizeof(buf));
    rig_open(&r, TIB(1), 512, false);
    rig_read(&r, TIB(1) / 2, 512, buf);
    memset(buf, 1, sizeof(buf));
    before = resident();
    assert_int_equal(rig_write(&r, TIB(1) / 2, 512, buf), ST_OK);
    /* The page, one of the directory, its mark, and the chunk's head. */
    assert_true(resident() - before <= 5 * 4096);
    assert_int_equal(account(&r).committed, 4096);
    assert_true(account(&r).index <= 2 * 4096 + 64);
    rig_close(&r);
}

/* Write BYTES in 4 KiB pieces, one each STRIDE or (0) anywhere. */
static void
fill(struct rig *r, uint64_t bytes, uint64_t stride)
{
    struct st_rand rand = st_rand_seed(42);
    uint64_t at = 0, size = st_node_size(r->node);
    char buf[4096];

    for (uint64_t i = 0; i < bytes; i += 4096) {
        at = stride ? i / 4096 * stride
                    : st_align_down(st_rand_below(&rand, size), 4096);
        memset(buf, (int)(i >> 12) | 1, sizeof(buf));
        if (rig_write(r, at, 4096, buf) != ST_OK)
            fail_msg("write at %ju", (uintmax_t)at);
    }
}

static void
fill_costs_two_percent(uint64_t stride, bool over)
{
    const uint64_t data = MIB(64), most = data / 50 + MIB(4);
    int64_t before = resident(), grown;
    struct account a;
    struct rig r;

    rig_open(&r, TIB(1), 512, over);
    fill(&r, data, stride);
    a = account(&r);
    grown = resident() - before;
    print_message("stride %ju: data %ju, index %ju (%.3f %%), resident %+jd\n",
                  (uintmax_t)stride, (uintmax_t)a.committed, (uintmax_t)a.index,
                  100.0 * (double)a.index / (double)a.committed,
                  (intmax_t)(grown - (int64_t)a.committed));
    assert_true(a.committed <= data && a.committed > data - MIB(1));
    assert_true(a.index <= most);
    assert_true(grown <= (int64_t)(data + most));

    /* All of it comes back: the data at once, the directory too. */
    if (over) {
        assert_int_equal(rig_op(&r, ST_OP_WRITE_ZEROES, 0, 0, TIB(1), NULL),
                         ST_OK);
        settle(&r);
        assert_int_equal(account(&r).committed, 0);
        assert_true(account(&r).index <= TIB(1) / MIB(4) * 8 + MIB(1));
    }
    assert_int_equal(rig_op(&r, ST_OP_UNMAP, ST_REQ_NEXT_ZERO, 0, TIB(1), NULL),
                     ST_OK);
    settle(&r);
    malloc_trim(0);
    a = account(&r);
    assert_int_equal(a.committed, 0);
    assert_true(a.index < 64 << 10);
    assert_true(resident() - before <= (int64_t)MIB(4));
    rig_close(&r);
}

static void
random_pages_over_a_terabyte_cost_two_percent(void **state)
{
    (void)state;
    fill_costs_two_percent(0, false);
    fill_costs_two_percent(0, true);
}

static void
sequential_pages_cost_two_percent(void **state)
{
    (void)state;
    fill_costs_two_percent(4096, false);
    fill_costs_two_percent(4096, true);
}

static void
every_other_page_costs_two_percent(void **state)
{
    (void)state;
    fill_costs_two_percent(8192, false);
}

static void
pieces_of_unmap_and_zero_give_back(void **state)
{
    const uint64_t data = MIB(32);
    char *zero = calloc(1, MIB(1));
    int64_t before, full;
    struct rig r;

    (void)state;
    rig_open(&r, MIB(62), 512, true);
    before = resident();
    fill(&r, data, 4096);
    full = resident() - before;
    /* Every other page: no chunk goes, yet its memory does. */
    for (uint64_t at = 0; at < data; at += 8192)
        assert_int_equal(rig_op(&r, ST_OP_UNMAP, 0, at, 4096, NULL), ST_OK);
    settle(&r);
    assert_int_equal(account(&r).committed, data / 2);
    assert_true(SANITIZED || resident() - before <= full / 4 * 3);
    fill(&r, data, 4096);
    /* 64 KiB at a time, alternating, some through written zeroes. */
    for (uint64_t at = 0; at < data; at += KIB(64)) {
        enum st_op op = at >> 16 & 1   ? ST_OP_UNMAP
                        : at >> 17 & 1 ? ST_OP_WRITE
                                       : ST_OP_WRITE_ZEROES;

        assert_int_equal(account(&r).committed, data - at);
        assert_int_equal(rig_op(&r, op, 0, at, KIB(64), zero), ST_OK);
    }
    settle(&r);
    assert_int_equal(account(&r).committed, 0);
    assert_true(SANITIZED || resident() - before <= full / 8);

    /* One sector at a time: the page goes with the last of its sectors. */
    memset(zero, 1, 4096);
    assert_int_equal(rig_write(&r, 0, 4096, zero), ST_OK);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(account(&r).committed, 4096);
        assert_int_equal(rig_op(&r, ST_OP_UNMAP, 0, i * 512, 512, NULL), ST_OK);
    }
    assert_int_equal(account(&r).committed, 0);
    /* Half a region at the end needs no table either. */
    assert_int_equal(rig_op(&r, ST_OP_UNMAP, 0, 0, MIB(62), NULL), ST_OK);
    assert_true(account(&r).index <= 4 * 4096);
    rig_close(&r);
    free(zero);
}

static void
a_shrink_gives_back(void **state)
{
    struct rig r;

    (void)state;
    for (unsigned over = 0; over < 2; over++) {
        int64_t before = resident();

        rig_open(&r, TIB(1), 512, over);
        fill(&r, MIB(32), 0);
        rig_resize(&r, 512);
        assert_true(account(&r).committed <= 4096);
        assert_true(account(&r).index <=
                    (over ? TIB(1) / MIB(4) * 8 : 0) + KIB(64));
        malloc_trim(0);
        assert_true(resident() - before <= (int64_t)MIB(5));
        rig_close(&r);
    }
}

static void
one_page_again_and_again_needs_no_more(void **state)
{
    char buf[4096];
    struct rig r;
    int64_t before;

    (void)state;
    memset(buf, 1, sizeof(buf));
    rig_open(&r, MIB(64), 512, false);
    rig_write(&r, 0, 4096, buf);
    before = resident();
    for (unsigned i = 0; i < 20000; i++) {
        assert_int_equal(rig_write(&r, MIB(4), 4096, buf), ST_OK);
        assert_int_equal(rig_op(&r, ST_OP_UNMAP, 0, MIB(4), 4096, NULL), ST_OK);
    }
    settle(&r);
    assert_true(resident() - before <= (int64_t)KIB(512));
    assert_int_equal(account(&r).committed, 4096);
    rig_close(&r);
}

/* In a child: address space ends, the disk says so, and keeps what it has. */
static int
child_runs_out_of_memory(void)
{
    struct rlimit lim;
    uint64_t at = 0, n;
    char *buf = malloc(KIB(64)), *got = malloc(KIB(64));
    struct rig r;
    long total;
    FILE *f;

    rig_open(&r, TIB(1), 512, true);
    f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld", &total) != 1)
        return 1;
    fclose(f);
    lim.rlim_cur = lim.rlim_max = (rlim_t)total * 4096 + MIB(24);
    setrlimit(RLIMIT_AS, &lim);
    for (;; at += KIB(64)) {
        enum st_status s;

        memset(buf, (int)(at >> 16) | 1, KIB(64));
        s = rig_write(&r, at, KIB(64), buf);
        if (s == ST_NO_SPACE)
            break;
        if (s != ST_OK || at > MIB(64))
            return 2;
    }
    if (at < MIB(8))
        return 3;
    for (n = 0; n < at; n += KIB(64)) {
        memset(buf, (int)(n >> 16) | 1, KIB(64));
        if (rig_read(&r, n, KIB(64), got) != ST_OK ||
            memcmp(buf, got, KIB(64)) != 0)
            return 4;
    }
    /* Room again: unmaps need none. */
    if (rig_op(&r, ST_OP_UNMAP, 0, 0, MIB(4), NULL) != ST_OK)
        return 5;
    settle(&r);
    if (rig_write(&r, at, KIB(64), buf) != ST_OK ||
        rig_read(&r, at, KIB(64), got) != ST_OK ||
        memcmp(buf, got, KIB(64)) != 0)
        return 6;
    rig_close(&r);
    return 0;
}

static void
no_memory_is_no_space_and_nothing_is_lost(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    if (SANITIZED) {
        print_message("skip: a sanitizer needs more memory than the limit\n");
        skip();
    }
    pid = fork();
    if (pid == 0)
        _exit(child_runs_out_of_memory());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void
hear(void *arg, unsigned events)
{
    *(unsigned *)arg |= events;
}

static void
sector_count_can_be_set_to_grow(void **state)
{
    static const struct {
        const char *name, *value;
        int rc;
        const char *sentence;
    } bad[] = {
        {"sector_count", "2047", -EINVAL, "only grow here from 2048"},
        {"sector_count", "0", -EINVAL, "sector_count"},
        {"sector_count", "1M", -EINVAL, "'1M'"},
        {"sector_count", "99999999999999999", -EINVAL, "sector_count"},
        {"sector_count", "1125899906842624", -ENOTSUP, "grow"},
        {"sector_size", "4096", -EACCES, "sector_size cannot be set"},
        {"committed_size", "0", -EACCES, "cannot"},
        {"none", "0", -ENOENT, "'none'"},
    };
    char data[512], got[512];
    unsigned events = 0;
    struct st_err err;
    struct rig r;

    (void)state;
    rig_open(&r, MIB(1), 512, false);
    r.node->event = hear;
    r.node->event_arg = &events;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(
            r.node->ops->set(r.node, bad[i].name, bad[i].value, &err),
            bad[i].rc);
        assert_non_null(strstr(err.text, bad[i].sentence));
    }
    assert_int_equal(r.node->ops->set(r.node, "sector_count", "2048", &err), 0);
    assert_int_equal(events, 0);
    assert_int_equal(st_node_size(r.node), MIB(1));
    assert_int_equal(r.node->ops->set(r.node, "sector_count", "2050", &err), 0);
    assert_int_equal(events, ST_EVENT_RESIZE);
    assert_int_equal(st_node_size(r.node), MIB(1) + 1024);
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(rig_write(&r, MIB(1) + 512, 512, data), ST_OK);
    assert_int_equal(rig_read(&r, MIB(1) + 512, 512, got), ST_OK);
    assert_memory_equal(data, got, 512);
    rig_close(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_terabyte_opens_for_nothing),
        cmocka_unit_test(a_lone_sector_costs_a_page_and_its_index),
        cmocka_unit_test(random_pages_over_a_terabyte_cost_two_percent),
        cmocka_unit_test(sequential_pages_cost_two_percent),
        cmocka_unit_test(every_other_page_costs_two_percent),
        cmocka_unit_test(pieces_of_unmap_and_zero_give_back),
        cmocka_unit_test(a_shrink_gives_back),
        cmocka_unit_test(one_page_again_and_again_needs_no_more),
        cmocka_unit_test(sector_count_can_be_set_to_grow),
        cmocka_unit_test(no_memory_is_no_space_and_nothing_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
