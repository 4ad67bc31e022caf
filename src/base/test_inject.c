/* SPDX-License-Identifier: MIT
 *
 * The injector: rules hit what they say and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "inject.h"
#include "recorder.h"

struct world {
    struct st_recorder *r;
    struct st_inject *in;
    struct st_domain *d;
    struct st_loop *l;
    int fd;
};

static int
world_open(void **state)
{
    struct st_domain_opts opts = {.engine = "virtual"};
    char path[] = "/tmp/strata-inject-XXXXXX";
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    assert_int_equal(st_recorder_create(&w->r), 0);
    assert_int_equal(st_inject_create(5, st_recorder_seam(w->r), &w->in), 0);
    opts.seam = st_inject_seam(w->in);
    assert_int_equal(st_domain_create(&opts, &w->d, NULL), 0);
    assert_int_equal(st_loop_create(w->d, &w->l, NULL), 0);
    w->fd = mkostemp(path, O_CLOEXEC);
    assert_true(w->fd >= 0);
    unlink(path);
    *state = w;
    return 0;
}

static int
world_close(void **state)
{
    struct world *w = *state;

    st_loop_destroy(w->l);
    st_domain_destroy(w->d);
    st_inject_destroy(w->in);
    st_recorder_destroy(w->r);
    close(w->fd);
    free(w);
    return 0;
}

struct test_io {
    struct st_io io; /* first */
    struct iovec iov[2];
    char data[1024];
    bool done;
};

static void
io_done(struct st_task *t)
{
    ((struct test_io *)st_container(t, struct st_io, task))->done = true;
}

static void
io_start(struct world *w, struct test_io *x, enum st_io_op op, uint64_t off)
{
    *x = (struct test_io){.io = {.task.run = io_done,
                                 .op = (uint8_t)op,
                                 .niov = 2,
                                 .fd = w->fd,
                                 .slot = -1,
                                 .offset = off,
                                 .len = 1024}};
    memset(x->data, 'x', sizeof(x->data));
    x->iov[0] = (struct iovec){x->data, 100};
    x->iov[1] = (struct iovec){x->data + 100, 924};
    x->io.iov = x->iov;
    st_io_start(w->l, &x->io);
}

static int64_t
io(struct world *w, enum st_io_op op, uint64_t off)
{
    struct test_io x;

    io_start(w, &x, op, off);
    assert_true(st_loop_wait(w->l, &x.done));
    return x.io.res;
}

static void
rule(struct world *w, struct st_inject_rule r)
{
    assert_int_equal(st_inject_add(w->in, &r), 0);
}

static void
errors_hit_their_operation_and_range(void **state)
{
    struct world *w = *state;

    rule(w, (struct st_inject_rule){.ops = 1 << ST_IO_WRITE,
                                    .fd = w->fd,
                                    .offset = 2000,
                                    .len = 100,
                                    .every = 1,
                                    .what = ST_INJECT_ERROR,
                                    .arg = ENOSPC});
    assert_int_equal(io(w, ST_IO_WRITE, 0), 1024);
    assert_int_equal(io(w, ST_IO_WRITE, 1024), -ENOSPC);
    assert_int_equal(io(w, ST_IO_WRITE, 2048), -ENOSPC);
    assert_int_equal(io(w, ST_IO_WRITE, 2100), 1024);
    assert_int_equal(io(w, ST_IO_READ, 2048), 1024);
    assert_int_equal(st_inject_hits(w->in), 2);
    assert_int_equal(st_recorder_count(w->r), 4); /* the others never came */
    st_inject_clear(w->in);
    assert_int_equal(io(w, ST_IO_WRITE, 1024), 1024);
}

static void
every_nth_and_limit_count(void **state)
{
    struct world *w = *state;

    rule(w, (struct st_inject_rule){.fd = -1,
                                    .every = 3,
                                    .limit = 2,
                                    .what = ST_INJECT_ERROR,
                                    .arg = EIO});
    for (int i = 1; i <= 12; i++)
        assert_int_equal(io(w, ST_IO_FSYNC, 0), i == 3 || i == 6 ? -EIO : 0);
}

static void
chance_is_by_seed(void **state)
{
    struct world *w = *state;
    unsigned failed = 0;

    rule(w, (struct st_inject_rule){
                .fd = -1, .chance = 250, .what = ST_INJECT_ERROR, .arg = EIO});
    for (int i = 0; i < 400; i++)
        failed += io(w, ST_IO_FSYNC, 0) == -EIO;
    assert_in_range(failed, 60, 140);
}

static void
short_transfers_stop_where_told(void **state)
{
    struct world *w = *state;
    char file[2000];

    rule(w, (struct st_inject_rule){.ops = 1 << ST_IO_WRITE,
                                    .fd = -1,
                                    .every = 1,
                                    .what = ST_INJECT_SHORT,
                                    .arg = 300});
    assert_int_equal(io(w, ST_IO_WRITE, 0), 300);
    assert_int_equal(pread(w->fd, file, sizeof(file), 0), 300);
    assert_int_equal(file[299], 'x');
    assert_int_equal(st_recorder_count(w->r), 2);
}

static void
delays_are_in_the_loops_clock(void **state)
{
    struct world *w = *state;
    uint64_t start;

    assert_int_equal(io(w, ST_IO_FSYNC, 0), 0);
    start = w->l->now;
    rule(w, (struct st_inject_rule){
                .fd = -1, .every = 1, .what = ST_INJECT_DELAY, .arg = 7000});
    assert_int_equal(io(w, ST_IO_FSYNC, 0), 0);
    assert_int_equal(w->l->now - start, 7000);
}

static void
what_hangs_waits_for_its_release(void **state)
{
    struct world *w = *state;
    struct test_io x, y;

    rule(w, (struct st_inject_rule){.ops = 1 << ST_IO_WRITE,
                                    .fd = -1,
                                    .every = 1,
                                    .what = ST_INJECT_HANG});
    io_start(w, &x, ST_IO_WRITE, 0);
    io_start(w, &y, ST_IO_WRITE, 1024);
    assert_int_equal(io(w, ST_IO_FSYNC, 0), 0); /* others pass */
    assert_false(st_loop_wait(w->l, &x.done));
    assert_int_equal(st_inject_hanging(w->in), 2);
    st_inject_release(w->in);
    assert_true(st_loop_wait(w->l, &x.done));
    assert_true(st_loop_wait(w->l, &y.done));
    assert_int_equal(x.io.res, 1024);
    assert_int_equal(st_inject_hanging(w->in), 0);
}

#define T(test) cmocka_unit_test_setup_teardown(test, world_open, world_close)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(errors_hit_their_operation_and_range),
        T(every_nth_and_limit_count),
        T(chance_is_by_seed),
        T(short_transfers_stop_where_told),
        T(delays_are_in_the_loops_clock),
        T(what_hangs_waits_for_its_release),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
