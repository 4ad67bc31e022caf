/* SPDX-License-Identifier: MIT
 *
 * One set of tests over all engines: file I/O, slots, cancel, watches.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "engine.h"
#include "mem.h"

#ifdef ST_HAVE_URING
#include <liburing.h>
#endif

enum { MANY = 500, SEGMENTS = 1024 };

struct world {
    struct st_domain *d;
    struct st_loop *l;
    int fd; /* an unlinked file */
};

struct test_io {
    struct st_io io; /* first */
    struct iovec iov;
    unsigned *left;
    bool *done;
    unsigned completed;
};

static const char *engine_name;

static int
world_open(void **state)
{
    struct st_domain_opts opts = {
        .engine = engine_name, .poll_us = 50, .seed = 11};
    char path[] = "/tmp/strata-engine-XXXXXX";
    struct world *w = calloc(1, sizeof(*w));

    assert_non_null(w);
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
    close(w->fd);
    free(w);
    return 0;
}

static void
io_done(struct st_task *t)
{
    struct test_io *x = (struct test_io *)st_container(t, struct st_io, task);

    x->completed++;
    if (--*x->left == 0)
        *x->done = true;
}

static struct test_io
io_make(struct world *w, enum st_io_op op, uint64_t off, void *buf, size_t len)
{
    return (struct test_io){.io = {.task.run = io_done,
                                   .op = (uint8_t)op,
                                   .fd = w->fd,
                                   .slot = -1,
                                   .niov = 1,
                                   .offset = off,
                                   .len = len,
                                   .res = -9999},
                            .iov = {buf, len}};
}

/* Start N and wait for all. */
static void
io_run(struct world *w, struct test_io *x, unsigned n)
{
    unsigned left = n;
    bool done = false;

    for (unsigned i = 0; i < n; i++) {
        x[i].left = &left;
        x[i].done = &done;
        x[i].completed = 0;
        if (x[i].io.niov == 1)
            x[i].io.iov = &x[i].iov;
        st_io_start(w->l, &x[i].io);
        assert_int_equal(x[i].completed, 0);
    }
    assert_true(st_loop_wait(w->l, &done));
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(x[i].completed, 1);
}

static int64_t
io_one(struct world *w, struct test_io x)
{
    io_run(w, &x, 1);
    return x.io.res;
}

static void
what_was_written_is_read(void **state)
{
    struct world *w = *state;
    char a[4096], b[4096];

    memset(a, 'a', sizeof(a));
    assert_int_equal(io_one(w, io_make(w, ST_IO_WRITE, 8192, a, 4096)), 4096);
    assert_int_equal(io_one(w, io_make(w, ST_IO_FSYNC, 0, NULL, 0)), 0);
    assert_int_equal(io_one(w, io_make(w, ST_IO_READ, 8192, b, 4096)), 4096);
    assert_memory_equal(a, b, 4096);
    /* Short at the end of the file, nothing behind it. */
    assert_int_equal(io_one(w, io_make(w, ST_IO_READ, 12000, b, 4096)), 288);
    assert_int_equal(io_one(w, io_make(w, ST_IO_READ, 12288, b, 4096)), 0);
}

static void
dsync_writes_complete(void **state)
{
    struct world *w = *state;
    char a[512] = "durable", b[512];
    struct test_io x = io_make(w, ST_IO_WRITE, 0, a, 512);

    x.io.flags = ST_IO_DSYNC;
    assert_int_equal(io_one(w, x), 512);
    assert_int_equal(io_one(w, io_make(w, ST_IO_READ, 0, b, 512)), 512);
    assert_memory_equal(a, b, 512);
}

static void
fallocate_punches(void **state)
{
    struct world *w = *state;
    char a[8192], zero[4096] = {0};
    struct test_io x = io_make(w, ST_IO_FALLOCATE, 0, NULL, 4096);
    int64_t res;

    memset(a, 'x', sizeof(a));
    assert_int_equal(io_one(w, io_make(w, ST_IO_WRITE, 0, a, 8192)), 8192);
    x.io.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    res = io_one(w, x);
    if (res == -EOPNOTSUPP) {
        print_message("skip: this file system cannot punch holes\n");
        skip();
    }
    assert_int_equal(res, 0);
    assert_int_equal(io_one(w, io_make(w, ST_IO_READ, 0, a, 8192)), 8192);
    assert_memory_equal(a, zero, 4096);
    assert_int_equal(a[4096], 'x');
}

static void
errors_arrive_as_errno(void **state)
{
    struct world *w = *state;
    char a[512] = "";
    struct test_io x = io_make(w, ST_IO_WRITE, 0, a, 512);
    int pipes[2];

    x.io.fd = 1000000;
    assert_int_equal(io_one(w, x), -EBADF);
    x = io_make(w, ST_IO_FSYNC, 0, NULL, 0);
    x.io.fd = 1000000;
    assert_int_equal(io_one(w, x), -EBADF);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    x = io_make(w, ST_IO_FSYNC, 0, NULL, 0);
    x.io.fd = pipes[1];
    assert_int_equal(io_one(w, x), -EINVAL);
    close(pipes[0]);
    close(pipes[1]);
}

static void
a_thousand_segments_are_one_transfer(void **state)
{
    struct world *w = *state;
    static char a[SEGMENTS * 16], b[SEGMENTS * 16];
    struct iovec in[SEGMENTS], out[SEGMENTS];
    struct test_io x;

    for (int i = 0; i < SEGMENTS; i++) {
        memset(a + i * 16, i, 16);
        in[i] = (struct iovec){a + i * 16, 16};
        out[i] = (struct iovec){b + (SEGMENTS - 1 - i) * 16, 16};
    }
    x = io_make(w, ST_IO_WRITE, 100, a, sizeof(a));
    x.io.niov = SEGMENTS;
    x.io.iov = in;
    assert_int_equal(io_one(w, x), sizeof(a));
    x.io.op = ST_IO_READ;
    x.io.iov = out;
    assert_int_equal(io_one(w, x), sizeof(a));
    for (int i = 0; i < SEGMENTS; i++)
        assert_memory_equal(a + i * 16, b + (SEGMENTS - 1 - i) * 16, 16);
    x.io.niov = 0;
    x.io.len = 0;
    assert_int_equal(io_one(w, x), 0);
}

static void
hundreds_are_in_flight(void **state)
{
    struct world *w = *state;
    static struct test_io x[MANY];
    static char a[MANY][512], b[MANY][512];

    for (int i = 0; i < MANY; i++) {
        memset(a[i], i, 512);
        x[i] = io_make(w, ST_IO_WRITE, (uint64_t)i * 512, a[i], 512);
    }
    io_run(w, x, MANY);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(x[i].io.res, 512);
        x[i] = io_make(w, ST_IO_READ, (uint64_t)i * 512, b[i], 512);
    }
    io_run(w, x, MANY);
    assert_memory_equal(a, b, sizeof(a));
}

static void
slots_stand_for_files(void **state)
{
    struct world *w = *state;
    char a[512] = "slot", b[512];
    int slot = st_file_register(w->l, w->fd), again;
    struct test_io x = io_make(w, ST_IO_WRITE, 0, a, 512);

    x.io.slot = slot;
    assert_int_equal(io_one(w, x), 512);
    x = io_make(w, ST_IO_READ, 0, b, 512);
    x.io.slot = slot;
    assert_int_equal(io_one(w, x), 512);
    assert_string_equal(b, "slot");
    st_file_unregister(w->l, slot);
    again = st_file_register(w->l, w->fd);
    assert_int_equal(again, slot);
    st_file_unregister(w->l, again);
    assert_int_equal(st_file_register(w->l, 1000000), -1);
}

static void
slots_run_out_without_harm(void **state)
{
    struct world *w = *state;
    unsigned n = 0;
    int slot, last = -1;

    while ((slot = st_file_register(w->l, w->fd)) >= 0) {
        last = slot;
        n++;
    }
    assert_true(n == 0 || (n == 1024 && last == 1023));
    while (n--)
        st_file_unregister(w->l, (int)n);
}

static void
cancelled_io_completes_once(void **state)
{
    struct world *w = *state;
    struct test_io x[3];
    unsigned left = 3;
    bool done = false;
    char a[512], b[512] = "";
    int pipes[2], dirty;

    /* A read from an empty pipe can only end by a cancel or a write. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pipes), 0);
    dirty = st_domain_is_virtual(w->d) ? w->fd : pipes[0];
    for (int i = 0; i < 3; i++) {
        x[i] = io_make(w, ST_IO_READ, 0, a, 512);
        x[i].io.fd = dirty;
        x[i].io.iov = &x[i].iov;
        x[i].left = &left;
        x[i].done = &done;
        st_io_start(w->l, &x[i].io);
    }
    st_io_cancel(w->l, &x[1].io); /* not submitted yet */
    if (strcmp(st_domain_engine(w->d), "io_uring") == 0) {
        bool turned = false;
        struct test_io y = io_make(w, ST_IO_FSYNC, 0, NULL, 0);
        unsigned one = 1;

        y.left = &one;
        y.done = &turned;
        st_io_start(w->l, &y.io);
        assert_true(st_loop_wait(w->l, &turned));
    }
    st_io_cancel(w->l, &x[0].io); /* submitted */
    st_io_cancel(w->l, &x[2].io);
    assert_true(write(pipes[1], b, sizeof(b)) == sizeof(b));
    assert_true(write(pipes[1], b, sizeof(b)) == sizeof(b));
    shutdown(pipes[1], SHUT_RDWR);
    assert_true(st_loop_wait(w->l, &done));
    assert_int_equal(x[1].io.res, -ECANCELED);
    for (int i = 0; i < 3; i++)
        assert_int_equal(x[i].completed, 1);
    close(pipes[0]);
    close(pipes[1]);
}

/* ---- Watches ---- */

struct test_watch {
    struct st_watch w; /* first */
    struct st_loop *l;
    unsigned calls, seen;
    bool done, drain, remove_in_call;
    struct test_watch *remove_other;
};

static void
watch_ready(struct st_watch *sw, unsigned events)
{
    struct test_watch *w = (struct test_watch *)sw;
    char buf[64];

    w->calls++;
    w->seen |= events;
    w->done = true;
    if (w->drain)
        while (read(sw->fd, buf, sizeof(buf)) > 0)
            ;
    if (w->remove_other) {
        st_watch_remove(w->l, &w->remove_other->w);
        memset(&w->remove_other->w, 0xee, sizeof(w->remove_other->w));
        w->remove_other = NULL;
    }
    if (w->remove_in_call) {
        st_watch_remove(w->l, sw);
        memset(sw, 0xee, sizeof(*sw));
    }
}

static void
tick(struct st_timer *t)
{
    t->at = 0;
}

/* Let the loop turn until a timer fires, so that what can come has come. */
static void
settle(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        struct st_timer t = {.fire = tick};
        struct test_io x = io_make(w, ST_IO_FSYNC, 0, NULL, 0);

        st_timer_set(w->l, &t, w->l->now + 1000000);
        io_run(w, &x, 1);
        while (t.at) {
            x = io_make(w, ST_IO_FSYNC, 0, NULL, 0);
            io_run(w, &x, 1);
        }
    }
}

static void
pair_open(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX,
                                SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                                pair),
                     0);
}

static bool
no_watches(struct world *w)
{
    struct st_watch x = {.fd = 0};

    if (!st_domain_is_virtual(w->d))
        return false;
    assert_int_equal(st_watch_add(w->l, &x), -ENOTSUP);
    return true;
}

static void
watches_report_edges(void **state)
{
    struct world *w = *state;
    struct test_watch t = {.w = {.ready = watch_ready, .events = EPOLLIN}};
    int pair[2];

    if (no_watches(w))
        return;
    pair_open(pair);
    t.w.fd = pair[0];
    t.l = w->l;
    assert_int_equal(st_watch_add(w->l, &t.w), 0);
    settle(w);
    assert_int_equal(t.calls, 0);
    assert_int_equal(write(pair[1], "a", 1), 1);
    assert_true(st_loop_wait(w->l, &t.done));
    assert_true(t.seen & EPOLLIN);
    settle(w);
    assert_int_equal(t.calls, 1); /* still readable, but no new edge */
    t.done = false;
    assert_int_equal(write(pair[1], "b", 1), 1);
    assert_true(st_loop_wait(w->l, &t.done));
    t.drain = true;
    for (int i = 0; i < 100; i++) {
        t.done = false;
        assert_int_equal(write(pair[1], "c", 1), 1);
        assert_true(st_loop_wait(w->l, &t.done));
    }
    /* The peer goes: both directions. */
    t.done = false;
    close(pair[1]);
    assert_true(st_loop_wait(w->l, &t.done));
    assert_true((t.seen & (EPOLLIN | EPOLLOUT)) == (EPOLLIN | EPOLLOUT));
    st_watch_remove(w->l, &t.w);
    close(pair[0]);
}

static void
watches_report_what_is_ready_already(void **state)
{
    struct world *w = *state;
    struct test_watch t = {
        .w = {.ready = watch_ready, .events = EPOLLIN | EPOLLOUT}};
    int pair[2];
    char fill[4096] = "", sink[65536];

    if (no_watches(w))
        return;
    pair_open(pair);
    t.w.fd = pair[0];
    t.l = w->l;
    assert_int_equal(st_watch_add(w->l, &t.w), 0);
    assert_true(st_loop_wait(w->l, &t.done));
    assert_true(t.seen == EPOLLOUT);
    while (write(pair[0], fill, sizeof(fill)) > 0)
        ;
    settle(w);
    t.seen = 0;
    t.done = false;
    while (read(pair[1], sink, sizeof(sink)) > 0)
        ;
    assert_true(st_loop_wait(w->l, &t.done));
    assert_true(t.seen & EPOLLOUT);
    st_watch_remove(w->l, &t.w);
    close(pair[0]);
    close(pair[1]);
}

static void
a_watch_may_go_in_its_own_call(void **state)
{
    struct world *w = *state;
    struct test_watch t = {.w = {.ready = watch_ready, .events = EPOLLIN},
                           .remove_in_call = true};
    int pair[2];

    if (no_watches(w))
        return;
    pair_open(pair);
    t.w.fd = pair[0];
    t.l = w->l;
    assert_int_equal(st_watch_add(w->l, &t.w), 0);
    assert_int_equal(write(pair[1], "a", 1), 1);
    assert_true(st_loop_wait(w->l, &t.done));
    assert_int_equal(write(pair[1], "b", 1), 1);
    settle(w);
    assert_int_equal(t.calls, 1);
    close(pair[0]);
    close(pair[1]);
}

static void
a_removed_watch_is_not_called(void **state)
{
    struct world *w = *state;
    struct test_watch t[2];
    int pair[2][2];

    if (no_watches(w))
        return;
    /* Both are readable at once; whichever is called first removes the other,
     * whose task is on the ready list by then. */
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 2; i++) {
            pair_open(pair[i]);
            t[i] = (struct test_watch){.w = {.ready = watch_ready,
                                             .fd = pair[i][0],
                                             .events = EPOLLIN},
                                       .l = w->l,
                                       .remove_other = &t[!i]};
            assert_int_equal(write(pair[i][1], "a", 1), 1);
            assert_int_equal(st_watch_add(w->l, &t[i].w), 0);
        }
        settle(w);
        assert_int_equal(t[0].calls + t[1].calls, 1);
        st_watch_remove(w->l, &t[t[1].calls].w);
        /* Removed before it ever reached the kernel. */
        t[0] = (struct test_watch){
            .w = {.ready = watch_ready, .fd = pair[0][0], .events = EPOLLIN}};
        assert_int_equal(st_watch_add(w->l, &t[0].w), 0);
        st_watch_remove(w->l, &t[0].w);
        for (int i = 0; i < 4; i++)
            close(pair[i / 2][i % 2]);
    }
}

static void
closing_after_removal_reaches_the_peer(void **state)
{
    struct world *w = *state;
    struct test_watch t = {.w = {.ready = watch_ready, .events = EPOLLIN}};
    int pair[2];
    char c;

    if (no_watches(w))
        return;
    pair_open(pair);
    t.w.fd = pair[0];
    assert_int_equal(st_watch_add(w->l, &t.w), 0);
    settle(w);
    st_watch_remove(w->l, &t.w);
    close(pair[0]);
    settle(w);
    assert_int_equal(read(pair[1], &c, 1), 0); /* end of file */
    close(pair[1]);
}

/* The watch fires after the loop last looked, and before it is removed. */
static void
a_watch_that_fires_while_it_goes_lets_go_all_the_same(void **state)
{
    struct world *w = *state;

    if (no_watches(w))
        return;
    for (int i = 0; i < 200; i++) {
        struct test_watch t = {.w = {.ready = watch_ready, .events = EPOLLIN}};
        struct pollfd p = {.events = POLLIN};
        int pair[2];
        char c[2];

        pair_open(pair);
        t.w.fd = pair[0];
        assert_int_equal(st_watch_add(w->l, &t.w), 0);
        settle(w);
        assert_int_equal(write(pair[1], "a", 1), 1);
        st_watch_remove(w->l, &t.w);
        close(pair[0]);
        settle(w);
        p.fd = pair[1];
        assert_int_equal(poll(&p, 1, 0), 1);
        assert_true(p.revents & POLLHUP);
        assert_true(read(pair[1], c, 1) <= 0);
        close(pair[1]);
    }
}

/* ---- What a ring refuses ---- */

#ifdef ST_HAVE_URING

enum { RAW = 0x5a0 }; /* user_data that is nobody's */

/* What the kernel answers to the entry SQE, which says nothing of its own. */
static int
ring_answer(struct io_uring *ring, struct io_uring_sqe *sqe)
{
    struct io_uring_cqe *cqe;
    int res;

    sqe->user_data = RAW;
    assert_int_equal(io_uring_submit(ring), 1);
    assert_int_equal(io_uring_wait_cqe(ring, &cqe), 0);
    assert_int_equal(cqe->user_data, RAW);
    res = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return res;
}

/* The ring of a loop that has turned, or NULL. */
static struct io_uring *
ring_enabled(struct world *w)
{
    assert_int_equal(io_one(w, io_make(w, ST_IO_FSYNC, 0, NULL, 0)), 0);
    return st_uring_of(w->l);
}

static void
rings_refuse_other_operations(void **state)
{
    struct io_uring *ring = ring_enabled(*state);
    struct io_uring_sqe *sqe;

    for (unsigned op = 0; ring && op < IORING_OP_LAST; op++) {
        switch (op) {
        case IORING_OP_READ:
        case IORING_OP_WRITE:
        case IORING_OP_READV:
        case IORING_OP_WRITEV:
        case IORING_OP_FSYNC:
        case IORING_OP_FALLOCATE:
        case IORING_OP_POLL_ADD:
        case IORING_OP_POLL_REMOVE:
        case IORING_OP_ASYNC_CANCEL:
            continue;
        }
        sqe = io_uring_get_sqe(ring);
        io_uring_prep_nop(sqe);
        sqe->opcode = (uint8_t)op;
        assert_int_equal(ring_answer(ring, sqe), -EACCES);
    }
    if (!ring)
        return;
    /* Those that would leave a sandbox, as they are really used. */
    sqe = io_uring_get_sqe(ring);
    io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0);
    assert_int_equal(ring_answer(ring, sqe), -EACCES);
    sqe = io_uring_get_sqe(ring);
    io_uring_prep_openat(sqe, AT_FDCWD, "/dev/null", O_RDONLY, 0);
    assert_int_equal(ring_answer(ring, sqe), -EACCES);
}

static void
rings_refuse_other_flags(void **state)
{
    /* Also when refused, a drain makes what comes later wait for the bell. */
    static const unsigned flags[] = {IOSQE_IO_LINK, IOSQE_IO_HARDLINK,
                                     IOSQE_ASYNC, IOSQE_BUFFER_SELECT,
                                     IOSQE_IO_DRAIN};
    struct world *w = *state;
    struct io_uring *ring = ring_enabled(w);

    for (unsigned i = 0; ring && i < 5; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        char byte;

        io_uring_prep_read(sqe, w->fd, &byte, 1, 0);
        sqe->flags |= (uint8_t)flags[i];
        assert_int_equal(ring_answer(ring, sqe), -EACCES);
    }
}

static void
rings_refuse_other_registrations(void **state)
{
    struct io_uring *ring = ring_enabled(*state);
    struct io_uring_restriction all = {.opcode = IORING_RESTRICTION_SQE_OP,
                                       .sqe_op = IORING_OP_SOCKET};
    char page[4096];
    struct iovec iov = {page, sizeof(page)};

    if (!ring)
        return;
    assert_int_equal(io_uring_register_buffers(ring, &iov, 1), -EACCES);
    assert_int_equal(io_uring_register_personality(ring), -EACCES);
    assert_int_equal(io_uring_unregister_files(ring), -EACCES);
    /* Restrictions are for ever. */
    assert_true(io_uring_register_restrictions(ring, &all, 1) < 0);
    assert_true(io_uring_enable_rings(ring) < 0);
}

#else

static void
rings_refuse_other_operations(void **state)
{
    assert_null(st_uring_of(((struct world *)*state)->l));
}
#define rings_refuse_other_flags         rings_refuse_other_operations
#define rings_refuse_other_registrations rings_refuse_other_operations

#endif

#define T(test) cmocka_unit_test_setup_teardown(test, world_open, world_close)

int
main(void)
{
    static const char *const engines[] = {"io_uring", "threads", "virtual"};
    const struct CMUnitTest tests[] = {
        T(what_was_written_is_read),
        T(dsync_writes_complete),
        T(fallocate_punches),
        T(errors_arrive_as_errno),
        T(a_thousand_segments_are_one_transfer),
        T(hundreds_are_in_flight),
        T(slots_stand_for_files),
        T(slots_run_out_without_harm),
        T(cancelled_io_completes_once),
        T(watches_report_edges),
        T(watches_report_what_is_ready_already),
        T(a_watch_may_go_in_its_own_call),
        T(a_removed_watch_is_not_called),
        T(closing_after_removal_reaches_the_peer),
        T(a_watch_that_fires_while_it_goes_lets_go_all_the_same),
        T(rings_refuse_other_operations),
        T(rings_refuse_other_flags),
        T(rings_refuse_other_registrations),
    };
    int failed = 0, skipped = 0;

    for (int i = 0; i < 3; i++) {
        struct st_domain_opts opts = {.engine = engines[i]};
        struct st_domain *d;
        struct st_err err;

        engine_name = engines[i];
        if (st_domain_create(&opts, &d, &err) < 0) {
            print_message("%s skipped: %s\n", engine_name, err.text);
            skipped = 77;
            continue;
        }
        st_domain_destroy(d);
        failed += cmocka_run_group_tests_name(engine_name, tests, NULL, NULL);
    }
    return failed ? failed : skipped;
}
