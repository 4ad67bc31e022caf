/* SPDX-License-Identifier: MIT
 *
 * What the tests of the file backend share: a world with one image file, a
 * door to submit requests by hand, and the run over every engine.
 */
#ifndef TEST_FILE_H
#define TEST_FILE_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "file.h"
#include "inject.h"
#include "kit.h"
#include "sync.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

struct world {
    struct st_inject *inject;
    struct st_domain *domain;
    struct st_loop *loop;
    char dir[64], path[96];
    /* Of test_device.h: a loop device above path, or -1. */
    int device_fd;
    char device[32];
    /* Of use(). */
    struct st_node *node;
    struct st_disk *disk;
    struct st_sync *sync;
};

static inline int
setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct st_domain_opts o = {.engine = *state, .seed = 1};
    const char *tmp = getenv("TMPDIR");
    struct st_err err;

    assert_non_null(w);
    w->device_fd = -1;
    snprintf(w->dir, sizeof(w->dir), "%s/st_file_XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof(w->path), "%s/disk", w->dir);
    assert_int_equal(st_inject_create(1, NULL, &w->inject), 0);
    o.seam = st_inject_seam(w->inject);
    assert_int_equal(st_domain_create(&o, &w->domain, &err), 0);
    assert_int_equal(st_loop_create(w->domain, &w->loop, &err), 0);
    *state = w;
    return 0;
}

static inline void
resume_start(void *arg, struct st_edit *e)
{
    st_disk_resume(arg, e);
}

/* Until the root has published the node's size and is done with that: an edit
 * behind its own. */
static inline void
settle(struct world *w)
{
    struct st_edit e = {0};

    for (unsigned i = 0;
         i < 1000 && st_disk_size(w->disk) != st_node_size(w->node); i++)
        st_sync_flush(w->sync);
    assert_int_equal(st_sync_edit(w->loop, resume_start, w->disk, &e), 0);
}

static inline void
leave(struct world *w)
{
    if (w->sync) {
        settle(w);
        st_sync_close(w->sync);
    }
    st_disk_destroy(w->disk);
    w->sync = NULL;
    w->disk = NULL;
}

static inline int
teardown(void **state)
{
    struct world *w = *state;
    char cmd[128];

    leave(w);
    st_loop_destroy(w->loop);
    st_domain_destroy(w->domain);
    st_inject_destroy(w->inject);
    snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
    assert_int_equal(system(cmd), 0);
    free(w);
    return 0;
}

/* Make w->path SIZE bytes long, all zeroes. */
static inline void
make(struct world *w, uint64_t size)
{
    st_autoclose int fd = open(w->path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
}

static inline void
peek(struct world *w, void *buf, size_t len, uint64_t offset)
{
    st_autoclose int fd = open(w->path, O_RDONLY);

    assert_int_equal(pread(fd, buf, len, (off_t)offset), len);
}

static inline void
poke(struct world *w, const void *buf, size_t len, uint64_t offset)
{
    st_autoclose int fd = open(w->path, O_RDWR);

    assert_int_equal(pwrite(fd, buf, len, (off_t)offset), len);
}

static inline int
try_open(struct world *w, struct st_file_opts o, struct st_node **out,
         struct st_err *err)
{
    if (!o.path)
        o.path = w->path;
    err->text[0] = 0;
    return st_file_open(w->loop, &o, out, err);
}

/* Open w->path as w->disk. */
static inline void
use(struct world *w, struct st_file_opts o)
{
    struct st_err err;

    if (try_open(w, o, &w->node, &err) != 0)
        fail_msg("%s", err.text);
    if (st_disk_create(w->loop, w->node, "d", false, &w->disk, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(st_sync_open(w->disk, w->loop, &w->sync), 0);
}

static inline void
fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i * 7 + (i >> 8) * 13 + (i >> 16));
}

static inline void
inject(struct world *w, enum st_io_op op, enum st_inject_what what,
       uint64_t arg, uint64_t limit)
{
    struct st_inject_rule r = {
        .ops = 1u << op,
        .fd = -1,
        .every = 1,
        .limit = limit,
        .what = what,
        .arg = arg,
    };

    assert_int_equal(st_inject_add(w->inject, &r), 0);
}

/* Requests at the node's own door: what the root would bounce or answer. */
struct door {
    struct world *w;
    struct st_chan *chan;
    unsigned left;
    bool done;
};

static inline void
door_done(struct st_req *req)
{
    struct door *d = req->owner;

    d->done = --d->left == 0;
}

static inline void
door_open(struct world *w, struct door *d)
{
    *d = (struct door){.w = w};
    assert_int_equal(st_chan_open(w->node, w->loop, &d->chan), 0);
}

static inline struct st_req *
door_start(struct door *d, enum st_op op, uint64_t offset, uint64_t len,
           const struct iovec *iov, size_t skip, unsigned flags)
{
    unsigned n = st_node_depth(d->w->node);
    struct st_req *req = malloc(st_req_size(n));

    assert_non_null(req);
    st_req_init(req, n, door_done, d);
    req->op = (uint8_t)op;
    req->flags = (uint8_t)flags;
    req->offset = offset;
    req->len = len;
    req->buf = (struct st_buf){iov, skip};
    d->left++;
    d->done = false;
    st_submit(d->chan, req);
    return req;
}

static inline enum st_status
door_end(struct door *d, struct st_req *req)
{
    enum st_status s;

    assert_true(st_loop_wait(d->w->loop, &d->done));
    s = req->status;
    free(req);
    return s;
}

static inline enum st_status
door_run(struct door *d, enum st_op op, uint64_t offset, uint64_t len,
         const struct iovec *iov, size_t skip, unsigned flags)
{
    return door_end(d, door_start(d, op, offset, len, iov, skip, flags));
}

/* A test that runs in a world of its own. */
#define T(f)                                                                   \
    {                                                                          \
#f, f, setup, teardown, NULL                                           \
    }

/* Leave the test, and say why. */
static inline void
skip_for(const char *why)
{
    print_message("skip: %s\n", why);
    skip();
}

enum {
    ON_VIRTUAL = 1,
    ON_THREADS = 2,
    ON_URING = 4,
    ON_REAL = ON_THREADS | ON_URING,
    ON_ALL = ON_VIRTUAL | ON_REAL,
};

/* Run TESTS once for each engine of the set ENGINES that there is. The number
 * of failures. */
static inline int
run_on_engines(unsigned engines, const struct CMUnitTest *tests, size_t n)
{
    static char engine[3][16] = {"virtual", "threads", "io_uring"};
    int failed = 0;

    for (unsigned e = 0; e < 3; e++) {
        struct CMUnitTest run_now[64];
        struct st_domain_opts o = {.engine = engine[e]};
        struct st_domain *d;
        struct st_err err;

        if (!(engines & 1u << e))
            continue;
        if (st_domain_create(&o, &d, &err) != 0) {
            printf("engine %s left out: %s\n", engine[e], err.text);
            continue;
        }
        st_domain_destroy(d);
        assert(n <= 64);
        memcpy(run_now, tests, n * sizeof(*tests));
        for (size_t i = 0; i < n; i++)
            run_now[i].initial_state = engine[e];
        failed += _cmocka_run_group_tests(engine[e], run_now, n, NULL, NULL);
    }
    return failed;
}

static inline int
run_on_every_engine(const struct CMUnitTest *tests, size_t n)
{
    return run_on_engines(ON_ALL, tests, n);
}

#endif
