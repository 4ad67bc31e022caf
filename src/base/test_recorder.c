/* SPDX-License-Identifier: MIT
 *
 * The recorder: what may, must and must not be there after a power cut.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "recorder.h"

enum { SECTOR = 512, SIZE = 8 * SECTOR };

/* A file whose I/O is recorded, in a virtual domain. */
struct world {
    struct st_recorder *r;
    struct st_domain *d;
    struct st_loop *l;
    int fd;
};

static int
world_open(void **state)
{
    struct st_domain_opts opts = {.engine = "virtual", .seed = 3};
    char path[] = "/tmp/strata-recorder-XXXXXX";
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
    assert_int_equal(st_recorder_create(&w->r), 0);
    opts.seam = st_recorder_seam(w->r);
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
    st_recorder_destroy(w->r);
    close(w->fd);
    free(w);
    return 0;
}

struct test_io {
    struct st_io io; /* first */
    struct iovec iov;
    uint8_t data[SIZE];
    bool done;
};

static void
io_done(struct st_task *t)
{
    ((struct test_io *)st_container(t, struct st_io, task))->done = true;
}

static struct test_io *
io_start(struct world *w, enum st_io_op op, unsigned flags, uint64_t off,
         size_t len, int fill)
{
    struct test_io *x = calloc(1, sizeof(*x));

    assert_non_null(x);
    memset(x->data, fill, sizeof(x->data));
    x->iov = (struct iovec){x->data, len};
    x->io = (struct st_io){.task.run = io_done,
                           .op = (uint8_t)op,
                           .flags = (uint8_t)flags,
                           .niov = 1,
                           .fd = w->fd,
                           .slot = -1,
                           .mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           .iov = &x->iov,
                           .offset = off,
                           .len = len};
    st_io_start(w->l, &x->io);
    return x;
}

static void
io_wait(struct world *w, struct test_io *x)
{
    assert_true(st_loop_wait(w->l, &x->done));
    free(x);
}

static void
io(struct world *w, enum st_io_op op, unsigned flags, unsigned sector,
   unsigned n, int fill)
{
    io_wait(w, io_start(w, op, flags, sector * SECTOR, n * SECTOR, fill));
}

/* The image at CUT as one letter per sector, '.' for zero, '?' for mixed. */
static const char *
image(struct world *w, size_t cut, struct st_rand *rand)
{
    static char text[SIZE / SECTOR + 1];
    static uint8_t bytes[SIZE];

    memset(bytes, 0, SIZE);
    st_recorder_image(w->r, w->fd, cut, rand, bytes, SIZE);
    for (size_t s = 0; s < SIZE / SECTOR; s++) {
        const uint8_t *b = bytes + s * SECTOR;

        text[s] = b[0] ? (char)b[0] : '.';
        if (memcmp(b, b + 1, SECTOR - 1) != 0)
            text[s] = '?';
    }
    return text;
}

static void
only_a_finished_flush_makes_durable(void **state)
{
    struct world *w = *state;

    io(w, ST_IO_WRITE, 0, 0, 2, 'a'); /* events 0, 1 */
    io(w, ST_IO_FSYNC, 0, 0, 0, 0);   /* 2, 3 */
    io(w, ST_IO_WRITE, 0, 2, 2, 'b'); /* 4, 5 */
    assert_int_equal(st_recorder_count(w->r), 6);
    for (size_t cut = 0; cut <= 6; cut++)
        assert_string_equal(image(w, cut, NULL),
                            cut < 4 ? "........" : "aa......");
}

static void
dsync_writes_are_durable_when_done(void **state)
{
    struct world *w = *state;

    io(w, ST_IO_WRITE, ST_IO_DSYNC, 1, 1, 'd');
    assert_string_equal(image(w, 1, NULL), "........");
    assert_string_equal(image(w, 2, NULL), ".d......");
}

static void
a_flush_does_not_cover_what_was_not_done(void **state)
{
    struct world *w = *state;
    struct test_io *x = io_start(w, ST_IO_WRITE, 0, 0, SECTOR, 'x');
    struct test_io *f = io_start(w, ST_IO_FSYNC, 0, 0, 0, 0);

    io_wait(w, x);
    io_wait(w, f);
    assert_string_equal(image(w, 4, NULL), "........");
}

static void
loose_writes_are_whole_torn_or_gone(void **state)
{
    struct world *w = *state;
    struct st_rand rand = st_rand_seed(1);
    bool whole = false, gone = false, torn = false;

    io(w, ST_IO_WRITE, 0, 2, 3, 'x');
    for (int i = 0; i < 200; i++) {
        const char *t = image(w, 1 + i % 2, &rand);

        assert_memory_equal(t, "..", 2);
        assert_memory_equal(t + 5, "...", 3);
        assert_null(strchr(t, '?'));
        if (memcmp(t + 2, "xxx", 3) == 0)
            whole = true;
        else if (memcmp(t + 2, "...", 3) == 0)
            gone = true;
        else
            torn = true;
    }
    assert_true(whole && gone && torn);
    assert_string_equal(image(w, 0, &rand), "........");
}

static void
a_later_durable_write_wins(void **state)
{
    struct world *w = *state;
    struct st_rand rand = st_rand_seed(1);
    struct test_io *x = io_start(w, ST_IO_WRITE, 0, 0, SIZE, 'x');
    bool x_seen = false, y_seen = false;

    io_wait(w, x);
    io(w, ST_IO_WRITE, ST_IO_DSYNC, 2, 1, 'd');
    io(w, ST_IO_WRITE, ST_IO_DSYNC, 5, 1, 'e');
    io(w, ST_IO_WRITE, 0, 5, 2, 'y');
    for (int i = 0; i < 200; i++) {
        const char *t = image(w, 8, &rand);

        assert_int_equal(t[2], 'd'); /* never under the earlier x */
        assert_true(t[5] == 'e' || t[5] == 'y');
        assert_null(strchr(t, '?'));
        x_seen |= t[0] == 'x' && t[3] == 'x' && t[7] == 'x';
        y_seen |= t[5] == 'y';
    }
    assert_true(x_seen && y_seen);
}

static void
loose_writes_come_in_any_order(void **state)
{
    struct world *w = *state;
    struct st_rand rand = st_rand_seed(1);
    bool a_over_b = false, b_over_a = false;

    io(w, ST_IO_WRITE, 0, 0, 2, 'a');
    io(w, ST_IO_WRITE, 0, 1, 2, 'b');
    for (int i = 0; i < 400; i++) {
        const char *t = image(w, 4, &rand);

        a_over_b |= memcmp(t, "aab", 3) == 0;
        b_over_a |= memcmp(t, "abb", 3) == 0;
    }
    assert_true(a_over_b && b_over_a);
}

static void
punching_is_a_write_of_zeroes(void **state)
{
    struct world *w = *state;

    io(w, ST_IO_WRITE, ST_IO_DSYNC, 0, 3, 'a');
    io(w, ST_IO_FALLOCATE, 0, 1, 1, 0);
    assert_string_equal(image(w, 4, NULL), "aaa.....");
    io(w, ST_IO_FSYNC, 0, 0, 0, 0);
    assert_string_equal(image(w, 6, NULL), "a.a.....");
}

static void
the_full_image_is_the_file(void **state)
{
    struct world *w = *state;
    struct st_rand rand = st_rand_seed(7);
    uint8_t file[SIZE], bytes[SIZE] = {0};

    assert_int_equal(ftruncate(w->fd, SIZE), 0);
    for (int i = 0; i < 200; i++) {
        uint64_t off = st_rand_below(&rand, SIZE);

        io_wait(w, io_start(w, ST_IO_WRITE, 0, off,
                            1 + st_rand_below(&rand, SIZE - off), i + 1));
    }
    io(w, ST_IO_FSYNC, 0, 0, 0, 0);
    assert_int_equal(pread(w->fd, file, SIZE, 0), SIZE);
    st_recorder_image(w->r, w->fd, st_recorder_count(w->r), &rand, bytes, SIZE);
    assert_memory_equal(file, bytes, SIZE);
}

static void
other_files_and_forgotten_events_do_not_count(void **state)
{
    struct world *w = *state;
    struct world other = *w, all = *w;

    other.fd = dup(w->fd);
    all.fd = -1;
    assert_true(other.fd >= 0);
    io(w, ST_IO_WRITE, 0, 0, 1, 'a');
    io(&other, ST_IO_WRITE, ST_IO_DSYNC, 1, 1, 'b');
    io(&other, ST_IO_FSYNC, 0, 0, 0, 0);
    assert_string_equal(image(w, 6, NULL), "........");
    assert_string_equal(image(&other, 6, NULL), ".b......");
    assert_string_equal(image(&all, 6, NULL), ".b......");
    close(other.fd);
    st_recorder_reset(w->r);
    assert_int_equal(st_recorder_count(w->r), 0);
}

#define T(test) cmocka_unit_test_setup_teardown(test, world_open, world_close)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(only_a_finished_flush_makes_durable),
        T(dsync_writes_are_durable_when_done),
        T(a_flush_does_not_cover_what_was_not_done),
        T(loose_writes_are_whole_torn_or_gone),
        T(a_later_durable_write_wins),
        T(loose_writes_come_in_any_order),
        T(punching_is_a_write_of_zeroes),
        T(the_full_image_is_the_file),
        T(other_files_and_forgotten_events_do_not_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
