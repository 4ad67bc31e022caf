/* SPDX-License-Identifier: MIT
 *
 * Contexts, disks and requests of libstrata.
 */
#include "test_lib.h"

#include <fcntl.h>
#include <limits.h>

/* ---- Contexts ---- */

static int
open_with(struct strata_options o, struct strata_error *err)
{
    struct strata *s = NULL;
    int rc = strata_open(&o, &s, err);

    strata_close(s);
    return rc;
}

static void
options_are_checked(void **state)
{
    const size_t n = sizeof(struct strata_options);
    struct strata_error err;
    struct strata *s = NULL;
    struct {
        struct strata_options o;
        char more[16];
    } newer = {.o.size = sizeof(newer)};

    (void)state;
    assert_int_equal(open_with((struct strata_options){0}, &err), -EINVAL);
    assert_non_null(strstr(err.text, "size"));
    assert_int_equal(
        open_with((struct strata_options){.size = n, .threads = 65}, &err),
        -EINVAL);
    assert_non_null(strstr(err.text, "65 threads"));
    assert_int_equal(
        open_with((struct strata_options){.size = n, .poll_us = 1000001}, NULL),
        -EINVAL);
    assert_int_equal(
        open_with((struct strata_options){.size = n, .engine = "steam"}, &err),
        -EINVAL);
    assert_non_null(strstr(err.text, "'steam'"));
    assert_int_equal(
        open_with((struct strata_options){.size = n, .engine = "virtual"},
                  &err),
        -EINVAL);
    assert_int_equal(
        open_with((struct strata_options){.size = n, .log_level = 4}, &err),
        -EINVAL);
    /* A struct of a newer library, with something new in it and without. */
    newer.more[3] = 1;
    assert_int_equal(strata_open(&newer.o, &s, &err), -E2BIG);
    newer.more[3] = 0;
    assert_int_equal(strata_open(&newer.o, &s, &err), 0);
    assert_int_equal(strata_close(s), 0);
    /* One of an older library that ended behind `engine`. */
    newer.o.size = offsetof(struct strata_options, threads);
    newer.o.threads = 1000;
    assert_int_equal(strata_open(&newer.o, &s, &err), 0);
    assert_int_equal(strata_close(s), 0);
    assert_int_equal(strata_open(NULL, &s, NULL), 0);
    assert_int_equal(strata_close(s), 0);
    assert_int_equal(strata_close(NULL), 0);
}

static void
two_contexts_know_nothing_of_each_other(void **state)
{
    struct strata *a = context(1, "threads"), *b = context(3, "threads");
    struct strata_disk *x = disk(a, "mem:1M"), *y = disk(b, "mem:1M");
    char buf[4] = "abc", got[4];

    (void)state;
    assert_string_equal(strata_engine(a), "threads");
    assert_int_equal(strata_write(x, buf, 4, 512, 0), STRATA_OK);
    assert_int_equal(strata_read(y, got, 4, 512), STRATA_OK);
    assert_memory_equal(got, "\0\0\0", 4);
    assert_int_equal(strata_disk_close(x), 0);
    assert_int_equal(strata_close(a), 0);
    assert_int_equal(strata_write(y, buf, 4, 512, 0), STRATA_OK);
    assert_int_equal(strata_disk_close(y), 0);
    assert_int_equal(strata_close(b), 0);
}

struct heard {
    _Atomic unsigned lines;
    char text[256];
};

static void
hear(void *arg, enum strata_log_level level, const char *line)
{
    struct heard *h = arg;

    assert_int_equal(level, STRATA_LOG_WARN);
    snprintf(h->text, sizeof(h->text), "%s", line);
    atomic_fetch_add(&h->lines, 1);
}

static void
the_log_is_the_embedders(void **state)
{
    struct heard h = {0};
    struct strata_options o = {.size = sizeof(o),
                               .log_level = STRATA_LOG_WARN,
                               .log = hear,
                               .log_arg = &h};
    char path[] = "/tmp/st-lib-XXXXXX", spec[64];
    int fd = mkstemp(path);
    struct strata *s;
    struct strata_disk *d;

    (void)state;
    assert_int_equal(write(fd, "conectix", 8), 8); /* looks like a VHD */
    assert_int_equal(ftruncate(fd, 65536), 0);
    assert_int_equal(strata_open(&o, &s, NULL), 0);
    snprintf(spec, sizeof(spec), "file:%s", path);
    d = disk(s, spec);
    assert_int_equal(h.lines, 1);
    assert_non_null(strstr(h.text, "vhd"));
    assert_int_equal(strata_disk_close(d), 0);
    assert_int_equal(strata_close(s), 0);
    close(fd);
    unlink(path);
}

/* ---- Disks ---- */

static void
a_wrong_spec_is_one_sentence(void **state)
{
    static const struct {
        const char *spec, *text;
        int rc;
    } wrong[] = {
        {"", "missing", -EINVAL},
        {"nosuch:1", "nosuch", -EINVAL},
        {"mem:0", "empty disk", -EINVAL},
        {"memdiff:mem:x", "'x'", -EINVAL},
        {"/nonexistent/file", "/nonexistent/file", -ENOENT},
        {"vhd:x", "not built", -ENOTSUP},
    };
    struct strata_disk_options o = {.size = sizeof(o), .flags = 6};
    struct strata_error err;
    struct strata_disk *d = NULL;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        err.text[0] = '\0';
        assert_int_equal(
            strata_disk_open(*state, wrong[i].spec, NULL, &d, &err),
            wrong[i].rc);
        if (!strstr(err.text, wrong[i].text))
            fail_msg("'%s' does not say '%s'", err.text, wrong[i].text);
    }
    assert_int_equal(strata_disk_open(*state, NULL, NULL, &d, &err), -EINVAL);
    assert_int_equal(strata_disk_open(*state, "mem:1M", &o, &d, &err), -EINVAL);
    assert_null(d);
    assert_int_equal(strata_disk_close(NULL), 0);
}

static void
properties_are_those_of_the_disk(void **state)
{
    struct strata_disk_options o = {
        .size = sizeof(o), .name = "boot", .flags = STRATA_OPEN_READ_ONLY};
    struct strata_props p = {.size = sizeof(p)};
    struct strata_disk *d;
    struct strata_error err;

    assert_int_equal(
        strata_disk_open(*state, "mem:1M;sector=4096", &o, &d, &err), 0);
    assert_string_equal(strata_disk_name(d), "boot");
    assert_int_equal(strata_disk_size(d), MIB(1));
    assert_int_equal(strata_disk_props(d, &p), 0);
    assert_int_equal(p.size, sizeof(p));
    assert_int_equal(p.sector_size, 4096);
    assert_true(p.flags & STRATA_PROP_READ_ONLY);
    assert_true(p.operations & STRATA_BIT(STRATA_OP_READ));
    assert_false(p.operations & STRATA_BIT(STRATA_OP_WRITE));
    assert_int_equal(strata_write(d, "x", 1, 0, 0), STRATA_READ_ONLY);
    /* An older, smaller struct is filled as far as it goes. */
    memset(&p, 0x55, sizeof(p));
    p.size = offsetof(struct strata_props, physical_sector_size);
    assert_int_equal(strata_disk_props(d, &p), 0);
    assert_int_equal(p.sector_size, 4096);
    assert_int_equal(p.physical_sector_size, 0x55555555);
    p.size = 0;
    assert_int_equal(strata_disk_props(d, &p), -EINVAL);
    assert_int_equal(strata_disk_close(d), 0);
    d = disk(*state, "mem:1M");
    assert_string_equal(strata_disk_name(d), "mem:1M");
    p.size = sizeof(p);
    assert_int_equal(strata_disk_props(d, &p), 0);
    assert_int_equal(p.operations,
                     STRATA_BIT(STRATA_OP_COMPARE_AND_WRITE + 1) - 1);
    assert_int_equal(strata_disk_close(d), 0);
}

/* ---- Synchronous ---- */

static void
every_operation_does_what_it_says(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    unsigned char data[3000], got[3000], zero[3000] = {0};
    uint64_t at = 77, run = 0;
    unsigned flags = 99;

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (unsigned char)(i * 7 + 1);
    assert_int_equal(strata_write(d, data, 3000, 1001, STRATA_FUA), STRATA_OK);
    assert_int_equal(strata_read(d, got, 3000, 1001), STRATA_OK);
    assert_memory_equal(got, data, 3000);
    assert_int_equal(strata_flush(d), STRATA_OK);

    assert_int_equal(strata_compare_and_write(d, data, zero, 1000, 1001, &at),
                     STRATA_OK);
    assert_int_equal(at, 77);
    assert_int_equal(strata_read(d, got, 3000, 1001), STRATA_OK);
    assert_memory_equal(got, zero, 1000);
    assert_memory_equal(got + 1000, data + 1000, 2000);
    data[1500] ^= 1;
    assert_int_equal(
        strata_compare_and_write(d, data + 1000, zero, 1000, 2001, &at),
        STRATA_MISCOMPARE);
    assert_int_equal(at, 500);

    assert_int_equal(
        strata_write_zeroes(d, 0, 65536, STRATA_FUA | STRATA_MAY_UNMAP),
        STRATA_OK);
    assert_int_equal(strata_write(d, data, 512, 65536, 0), STRATA_OK);
    assert_int_equal(strata_block_status(d, 0, MIB(1), &run, &flags),
                     STRATA_OK);
    assert_int_equal(run, 65536);
    assert_true(flags & STRATA_EXTENT_ZERO);
    assert_int_equal(strata_block_status(d, 65536, 512, &run, &flags),
                     STRATA_OK);
    assert_int_equal(run, 512);
    assert_int_equal(flags, 0);
    assert_int_equal(strata_unmap(d, 65536, 4096), STRATA_OK);
    assert_int_equal(strata_read(d, got, 512, 65536), STRATA_OK);
    assert_memory_equal(got, zero, 512);

    assert_int_equal(strata_read(d, got, 1, MIB(1)), STRATA_RANGE);
    assert_int_equal(strata_write(d, got, 2, MIB(1) - 1, 0), STRATA_RANGE);
    assert_int_equal(strata_read(d, got, 1, UINT64_MAX), STRATA_RANGE);
    assert_int_equal(strata_read(d, got, 0, 0), STRATA_OK);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
what_is_wrong_in_itself_is_invalid(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    char buf[64];
    struct iovec iov[2] = {{buf, 32}, {buf, 32}},
                 huge[2] = {{buf, SIZE_MAX}, {buf, 33}};
    const struct strata_io good = {.size = sizeof(good),
                                   .op = STRATA_OP_READ,
                                   .length = 64,
                                   .iov = iov,
                                   .iovcnt = 2};
    struct strata_result r = {.size = sizeof(r)};
    struct strata_io io;
    uint64_t run;
    unsigned flags;

#define WRONG(...)                                                             \
    do {                                                                       \
        io = good;                                                             \
        __VA_ARGS__;                                                           \
        r.status = STRATA_OK;                                                  \
        assert_int_equal(strata_run(d, &io, &r), STRATA_INVALID);              \
        assert_int_equal(r.status, STRATA_INVALID);                            \
    } while (0)
    assert_int_equal(strata_run(d, &good, &r), STRATA_OK);
    WRONG(io.size = 0);
    WRONG(io.op = STRATA_OP_COMPARE_AND_WRITE + 1);
    WRONG(io.op = (enum strata_op) - 1);
    WRONG(io.flags = STRATA_FUA);
    WRONG(io.op = STRATA_OP_WRITE; io.flags = STRATA_MAY_UNMAP);
    WRONG(io.op = STRATA_OP_WRITE_ZEROES; io.flags = 64);
    WRONG(io.op = STRATA_OP_BLOCK_STATUS; io.length = 0);
    WRONG(io.length = 33);
    WRONG(io.iovcnt = 1);
    WRONG(io.iovcnt = 0);
    WRONG(io.iovcnt = -1);
    WRONG(io.iovcnt = IOV_MAX + 1);
    WRONG(io.iov = NULL);
    WRONG(io.iov = huge; io.length = 32);
    WRONG(io.op = STRATA_OP_COMPARE_AND_WRITE);
    WRONG(io.op = STRATA_OP_COMPARE_AND_WRITE;
          io.length = (UINT64_C(1) << 63) + 32);
    assert_int_equal(strata_run(d, NULL, NULL), STRATA_INVALID);
    assert_int_equal(strata_write(d, buf, 1, 0, 128), STRATA_INVALID);
    assert_int_equal(strata_block_status(d, 0, 0, &run, &flags),
                     STRATA_INVALID);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
many_small_buffers_and_empty_ones_will_do(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    static unsigned char data[4 * IOV_MAX], got[4 * IOV_MAX];
    static struct iovec iov[IOV_MAX];
    struct strata_io io = {.size = sizeof(io),
                           .op = STRATA_OP_WRITE,
                           .offset = 512,
                           .iov = iov,
                           .iovcnt = IOV_MAX};

    for (unsigned i = 0; i < IOV_MAX; i++) {
        iov[i] = (struct iovec){data + io.length, i % 5};
        io.length += i % 5;
    }
    for (unsigned i = 0; i < io.length; i++)
        data[i] = (unsigned char)(i ^ i >> 8);
    assert_int_equal(strata_run(d, &io, NULL), STRATA_OK);
    assert_int_equal(strata_read(d, got, io.length, 512), STRATA_OK);
    assert_memory_equal(got, data, io.length);
    assert_int_equal(strata_disk_close(d), 0);
}

/* ---- Asynchronous ---- */

struct spinner {
    struct waiter *w;
    struct strata_io io;
    unsigned left;
    struct strata_request *r;
    struct iovec iov;
    char buf[512];
};

static void
spin_on(struct strata_request *r, void *arg)
{
    struct spinner *p = arg;

    assert_int_equal(status_of(r), STRATA_OK);
    assert_ptr_equal(strata_request_arg(r), arg);
    if (--p->left == 0) {
        assert_int_equal(strata_request_destroy(r), 0);
        waiter_done(NULL, p->w);
        return;
    }
    p->io.offset = (p->io.offset + 512) % 4096;
    assert_int_equal(strata_submit(r, &p->io), 0);
}

/* Each is submitted again from its callback, and destroyed from there. */
static void
requests_go_round_by_callbacks(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    static struct spinner p[32];
    struct waiter w;

    waiter_init(&w);
    for (unsigned i = 0; i < 32; i++) {
        p[i] = (struct spinner){.w = &w, .left = 200};
        p[i].iov = (struct iovec){p[i].buf, 512};
        p[i].io = (struct strata_io){sizeof(p[i].io),
                                     i % 2 ? STRATA_OP_WRITE : STRATA_OP_READ,
                                     0,
                                     512 * i,
                                     512,
                                     &p[i].iov,
                                     1};
        assert_int_equal(
            strata_request_create(d, NULL, spin_on, &p[i], &p[i].r), 0);
        assert_int_equal(strata_submit(p[i].r, &p[i].io), 0);
    }
    for (unsigned i = 0; i < 32; i++)
        waiter_wait(&w);
    assert_int_equal(atomic_load(&w.done), 32);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
requests_go_round_by_a_queue(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    struct strata_queue *q, *other;
    struct strata *s2 = context(1, NULL);
    struct strata_request *r[16];
    char buf[16][512];
    struct iovec iov[16];
    unsigned taken = 0, got[16] = {0};
    struct pollfd pfd;

    assert_int_equal(strata_queue_create(*state, &q, NULL), 0);
    assert_int_equal(strata_queue_create(s2, &other, NULL), 0);
    pfd = (struct pollfd){.fd = strata_queue_fd(q), .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 0), 0);
    assert_null(strata_queue_take(q));
    /* A queue or a function, and a queue of the same context. */
    assert_int_equal(strata_request_create(d, NULL, NULL, NULL, &r[0]),
                     -EINVAL);
    assert_int_equal(strata_request_create(d, q, waiter_done, NULL, &r[0]),
                     -EINVAL);
    assert_int_equal(strata_request_create(d, other, NULL, NULL, &r[0]),
                     -EINVAL);
    for (unsigned i = 0; i < 16; i++) {
        iov[i] = (struct iovec){buf[i], 512};
        assert_int_equal(strata_request_create(d, q, NULL, &got[i], &r[i]), 0);
    }
    for (unsigned i = 0; i < 16; i++) {
        struct strata_io io = {sizeof(io), STRATA_OP_READ, 0, 512 * i,
                               512,        &iov[i],        1};

        assert_int_equal(strata_submit(r[i], &io), 0);
    }
    while (taken < 16 * 50) {
        struct strata_request *x;

        assert_int_equal(poll(&pfd, 1, 10000), 1);
        while ((x = strata_queue_take(q))) {
            unsigned *n = strata_request_arg(x);
            struct strata_io io = {sizeof(io), STRATA_OP_READ, 0, 0,
                                   512,        &iov[n - got],  1};

            assert_int_equal(status_of(x), STRATA_OK);
            taken++;
            if (++*n < 50)
                assert_int_equal(strata_submit(x, &io), 0);
        }
    }
    assert_int_equal(poll(&pfd, 1, 0), 0);
    assert_int_equal(strata_queue_destroy(q), -EBUSY);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(got[i], 50);
        assert_int_equal(strata_request_destroy(r[i]), 0);
    }
    assert_int_equal(strata_queue_destroy(q), 0);
    assert_int_equal(strata_queue_destroy(NULL), 0);
    assert_int_equal(strata_close(s2), -EBUSY); /* it has a queue */
    assert_int_equal(strata_queue_destroy(other), 0);
    assert_int_equal(strata_close(s2), 0);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
what_is_in_use_is_not_taken_away(void **state)
{
    struct strata_disk *d = disk(*state, "delay:60000:mem:1M");
    struct strata_request *r;
    struct strata_result res = {.size = sizeof(res)};
    char buf[512];
    struct iovec iov = {buf, 512};
    struct strata_io io = {sizeof(io), STRATA_OP_READ, 0, 0, 512, &iov, 1};
    struct waiter w;

    waiter_init(&w);
    assert_int_equal(strata_close(*state), -EBUSY);
    assert_int_equal(strata_request_create(d, NULL, waiter_done, &w, &r), 0);
    assert_int_equal(strata_disk_close(d), -EBUSY);
    assert_int_equal(strata_submit(r, &io), 0);
    assert_int_equal(strata_submit(r, &io), -EBUSY);
    assert_int_equal(strata_request_destroy(r), -EBUSY);
    assert_int_equal(strata_request_result(r, &res), -EBUSY);
    assert_int_equal(strata_disk_close(d), -EBUSY);
    assert_int_equal(strata_cancel(r), 0);
    waiter_wait(&w);
    assert_int_equal(status_of(r), STRATA_ABORTED);
    assert_int_equal(strata_request_destroy(r), 0);
    assert_int_equal(strata_disk_close(d), 0);
}

/* Cancels of a request that has ended, and is used again, hit nobody. */
static void
a_cancel_hits_its_own_operation_only(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    struct strata_request *r;
    struct strata_io io = {.size = sizeof(io), .op = STRATA_OP_FLUSH};
    struct waiter w;

    waiter_init(&w);
    assert_int_equal(strata_request_create(d, NULL, waiter_done, &w, &r), 0);
    assert_int_equal(strata_cancel(r), 0); /* before its first use */
    for (unsigned i = 0; i < 2000; i++) {
        enum strata_status st;

        assert_int_equal(strata_submit(r, &io), 0);
        if (i % 3 == 0)
            strata_cancel(r);
        waiter_wait(&w);
        st = status_of(r);
        assert_true(st == STRATA_OK || (i % 3 == 0 && st == STRATA_ABORTED));
        if (i % 3 == 1)
            strata_cancel(r);
    }
    strata_cancel(r);
    assert_int_equal(strata_request_destroy(r), 0);
    assert_int_equal(strata_disk_close(d), 0);
}

struct trap {
    struct waiter w;
    struct strata *s;
    struct strata_disk *d;
    int rc[6];
    enum strata_status status;
};

/* In a callback: what would wait for this very thread says so. */
static void
try_to_wait(struct strata_request *r, void *arg)
{
    struct trap *t = arg;
    struct strata_kind k = {.size = sizeof(k)};
    struct strata_disk *d;
    char c;

    t->rc[0] = strata_disk_open(t->s, "mem:1M", NULL, &d, NULL);
    t->rc[1] = strata_disk_close(t->d);
    t->rc[2] = strata_disk_resize(t->d, 512, NULL);
    t->rc[3] = strata_disk_pause(t->d, 0, NULL);
    t->rc[4] = strata_close(t->s);
    t->rc[5] = strata_kind_add(t->s, &k, NULL);
    t->status = strata_read(t->d, &c, 1, 0);
    waiter_done(r, &t->w);
}

static void
nobody_waits_on_a_thread_of_the_library(void **state)
{
    struct trap t = {.s = *state, .d = disk(*state, "mem:1M")};
    struct strata_io io = {.size = sizeof(io), .op = STRATA_OP_FLUSH};
    struct strata_request *r;

    waiter_init(&t.w);
    assert_int_equal(strata_request_create(t.d, NULL, try_to_wait, &t, &r), 0);
    assert_int_equal(strata_submit(r, &io), 0);
    waiter_wait(&t.w);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(t.rc[i], -EDEADLK);
    assert_int_equal(t.status, STRATA_INVALID);
    assert_int_equal(strata_request_destroy(r), 0);
    assert_int_equal(strata_disk_close(t.d), 0);
}

/* ---- Edits and events ---- */

struct events {
    sem_t sem;
    _Atomic unsigned mask;
    _Atomic uint64_t size;
};

static void
note(struct strata_disk *d, unsigned events, uint64_t size, void *arg)
{
    struct events *e = arg;

    (void)d;
    atomic_fetch_or(&e->mask, events);
    atomic_store(&e->size, size);
    sem_post(&e->sem);
}

static void
a_resize_is_an_event(void **state)
{
    struct events e = {.mask = 0};
    struct strata_disk_options o = {
        .size = sizeof(o), .event = note, .arg = &e};
    struct strata_error err;
    struct strata_disk *d;
    char c = 1;

    sem_init(&e.sem, 0, 0);
    assert_int_equal(strata_disk_open(*state, "mem:1M", &o, &d, &err), 0);
    assert_int_equal(strata_disk_events(d), 0);
    assert_int_equal(strata_disk_resize(d, MIB(2), &err), 0);
    while (sem_wait(&e.sem) < 0)
        ;
    assert_int_equal(e.mask, STRATA_EVENT_RESIZE);
    assert_int_equal(e.size, MIB(2));
    assert_int_equal(strata_disk_events(d), STRATA_EVENT_RESIZE);
    assert_int_equal(strata_disk_events(d), 0);
    assert_int_equal(strata_write(d, &c, 1, MIB(2) - 1, 0), STRATA_OK);
    assert_int_equal(strata_disk_resize(d, MIB(1), &err), 0);
    assert_int_equal(strata_write(d, &c, 1, MIB(2) - 1, 0), STRATA_RANGE);
    assert_int_equal(strata_disk_resize(d, 1000, &err), -EINVAL);
    assert_non_null(strstr(err.text, "1000"));
    assert_int_equal(strata_disk_close(d), 0);
}

static void
a_paused_disk_waits_for_resume(void **state)
{
    struct strata_disk *d = disk(*state, "delay:60000;read=0:mem:1M");
    struct strata_request *r, *stuck;
    char buf[512] = "x";
    struct iovec iov = {buf, 512};
    struct strata_io io = {sizeof(io), STRATA_OP_READ, 0, 0, 512, &iov, 1};
    struct strata_error err;
    struct waiter w;

    waiter_init(&w);
    assert_int_equal(strata_request_create(d, NULL, waiter_done, &w, &r), 0);
    assert_int_equal(strata_request_create(d, NULL, waiter_done, &w, &stuck),
                     0);
    assert_int_equal(strata_disk_pause(d, 0, &err), 0);
    assert_int_equal(strata_submit(r, &io), 0);
    usleep(20000);
    assert_int_equal(atomic_load(&w.done), 0);
    assert_int_equal(strata_disk_resume(d, &err), 0);
    waiter_wait(&w);
    assert_int_equal(status_of(r), STRATA_OK);
    /* One that is under way for a minute outlasts a pause of 20 ms. */
    io.op = STRATA_OP_WRITE;
    assert_int_equal(strata_submit(stuck, &io), 0);
    assert_int_equal(strata_disk_pause(d, 20, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.text, "20 ms"));
    assert_int_equal(strata_disk_resume(d, &err), 0);
    assert_int_equal(strata_cancel(stuck), 0);
    waiter_wait(&w);
    assert_int_equal(strata_request_destroy(r), 0);
    assert_int_equal(strata_request_destroy(stuck), 0);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
counters_count(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    struct strata_counters c = {.size = sizeof(c)};
    char buf[1024] = {0};

    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(strata_write(d, buf, 1024, 0, 0), STRATA_OK);
    assert_int_equal(strata_read(d, buf, 512, 0), STRATA_OK);
    assert_int_equal(strata_read(d, buf, 512, MIB(1)), STRATA_RANGE);
    assert_int_equal(strata_disk_counters(d, &c), 0);
    assert_int_equal(c.operations[STRATA_OP_WRITE], 10);
    assert_int_equal(c.operations[STRATA_OP_READ], 2);
    assert_int_equal(c.errors[STRATA_OP_READ], 1);
    assert_int_equal(c.bytes_written, 10240);
    assert_int_equal(c.bytes_read, 512);
    assert_int_equal(c.in_flight, 0);
    assert_int_equal(c.oldest_age_ns, 0);
    assert_int_equal(c.stopped, 0);
    assert_int_equal(strata_disk_set_policy(d, (enum strata_policy)3), -EINVAL);
    assert_int_equal(strata_disk_set_policy(d, STRATA_POLICY_RETRY), 0);
    assert_int_equal(strata_disk_policy(d), STRATA_POLICY_RETRY);
    c.size = 1;
    assert_int_equal(strata_disk_counters(d, &c), -EINVAL);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
every_status_has_a_name_and_a_sentence(void **state)
{
    (void)state;
    for (int i = 0; i <= STRATA_ABORTED; i++) {
        const char *text = strata_status_text((enum strata_status)i);

        assert_true(strlen(text) > 10);
        assert_string_not_equal(strata_status_name((enum strata_status)i),
                                "unknown status");
        for (int j = 0; j < i; j++)
            assert_string_not_equal(text,
                                    strata_status_text((enum strata_status)j));
    }
    assert_string_equal(strata_status_name((enum strata_status)99),
                        "unknown status");
    assert_string_equal(strata_status_text((enum strata_status) - 1),
                        "the status has no meaning");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(two_contexts_know_nothing_of_each_other),
        cmocka_unit_test(the_log_is_the_embedders),
        cmocka_unit_test(every_status_has_a_name_and_a_sentence),
        T(a_wrong_spec_is_one_sentence),
        T(properties_are_those_of_the_disk),
        T(every_operation_does_what_it_says),
        T(what_is_wrong_in_itself_is_invalid),
        T(many_small_buffers_and_empty_ones_will_do),
        T(requests_go_round_by_callbacks),
        T(requests_go_round_by_a_queue),
        T(what_is_in_use_is_not_taken_away),
        T(a_cancel_hits_its_own_operation_only),
        T(nobody_waits_on_a_thread_of_the_library),
        T(a_resize_is_an_event),
        T(a_paused_disk_waits_for_resume),
        T(counters_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
