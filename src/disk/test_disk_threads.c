/* SPDX-License-Identifier: MIT
 *
 * One disk, several loops on threads of their own, edits from the home loop:
 * what must hold between threads. Also run under ThreadSanitizer.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rand.h"
#include "sync.h"
#include "testnode.h"

enum { LOOPS = 3, DEPTH = 8, SIZE = 1 << 20, COUNTERS = 16 };

/* ---- A transparent node to insert and remove -------------------------------
 */

struct through_chan {
    struct st_chan base;
    struct st_chan *inner; /* owned */
};

static void
through_done(struct st_chan *c, struct st_req *req)
{
    (void)c;
    st_complete(req);
}

static void
through_submit(struct st_chan *c, struct st_req *req)
{
    st_push(req, through_done, c);
    st_submit(((struct through_chan *)c)->inner, req);
}

static int
through_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct through_chan *c = calloc(1, sizeof(*c));
    int rc = c ? st_chan_open(n->child[0], l, &c->inner) : -ENOMEM;

    if (rc < 0) {
        free(c);
        return rc;
    }
    st_chan_init(&c->base, n, l, through_submit);
    *out = &c->base;
    return 0;
}

static void
through_close_chan(struct st_chan *c)
{
    st_chan_close(((struct through_chan *)c)->inner);
    free(c);
}

static void
through_close(struct st_node *n)
{
    free(n);
}

static const struct st_node_ops through_ops = {
    .name = "through",
    .transparent = true,
    .open_chan = through_open_chan,
    .close_chan = through_close_chan,
    .close = through_close,
};

/* ---- A loop that keeps requests going ---- */

/* Each counter is an 8-byte number, counted up by compare_and_write from every
 * loop; each loop also writes, unaligned, to a lane of its own. */
struct worker {
    struct st_disk *disk;
    struct st_loop *loop;
    struct st_chan *chan;
    unsigned index, out;
    uint64_t counted, sum;
    _Atomic bool stop, stopped;
    struct st_task start;
    struct slot *slot[DEPTH];
};

struct slot {
    struct worker *w;
    struct iovec iov;
    uint64_t buf[2];
    bool reading;
    uint64_t counter;
    struct st_rand rand;
    struct st_req req; /* frames behind */
};

static void slot_done(struct st_req *req);

static void
slot_go(struct slot *s)
{
    struct st_req *r = &s->req;

    s->iov = (struct iovec){s->buf, sizeof(s->buf)};
    r->buf = (struct st_buf){&s->iov, 0};
    r->flags = 0;
    r->offset = s->counter * 8;
    r->len = 8;
    r->op = s->reading ? ST_OP_READ : ST_OP_COMPARE_AND_WRITE;
    st_submit(s->w->chan, r);
}

static void
slot_done(struct st_req *req)
{
    struct slot *s = req->owner;
    struct worker *w = s->w;

    if (req->status != ST_OK && req->status != ST_MISCOMPARE)
        fail_msg("status %s", st_status_name((enum st_status)req->status));
    if (!s->reading && req->status == ST_OK)
        w->counted++;
    if (s->reading) { /* now try to count it up */
        s->buf[1] = s->buf[0] + 1;
        s->reading = false;
    } else {
        s->counter = st_rand_below(&s->rand, COUNTERS);
        s->reading = true;
        if (atomic_load(&w->stop)) {
            free(s);
            if (--w->out == 0) {
                st_disk_close_chan(w->chan);
                atomic_store(&w->stopped, true);
            }
            return;
        }
    }
    slot_go(s);
}

static void
worker_start(struct st_task *t)
{
    struct worker *w = st_container(t, struct worker, start);
    unsigned frames = 3; /* fewer than after an insertion, on purpose */

    assert_int_equal(st_disk_open_chan(w->disk, w->loop, &w->chan), 0);
    w->out = DEPTH;
    for (unsigned i = 0; i < DEPTH; i++) {
        struct slot *s = malloc(sizeof(*s) + frames * sizeof(struct st_frame));

        s->w = w;
        s->rand = st_rand_seed(w->index * 100 + i);
        s->reading = true;
        s->counter = i;
        st_req_init(&s->req, frames, slot_done, s);
        slot_go(s);
    }
}

static void
start_edit(void *arg, struct st_edit *e)
{
    struct st_disk *d = ((void **)arg)[0];
    struct st_node *n = ((void **)arg)[1];
    const char *what = ((void **)arg)[2];

    switch (*what) {
    case 'i':
        st_disk_insert(d, n, 0, e);
        break;
    case 'r':
        st_disk_remove(d, "through", 0, e);
        break;
    case 'p':
        st_disk_quiesce(d, ST_PARK, 0, e);
        break;
    case 'g':
        st_disk_resume(d, e);
        break;
    case 's':
        st_disk_resize(d, SIZE + 4096, e);
        break;
    case 'b':
        st_disk_resize(d, SIZE, e);
        break;
    }
}

static void
counting_survives_every_edit(void **state)
{
    const char *engine = *state;
    struct st_domain_opts dopts = {.engine = engine};
    struct st_testnode_opts o = {.size = SIZE, .sector = 4096};
    static const char script[] = "ipgsirbirrpsbg";
    struct worker w[LOOPS];
    struct st_domain *domain;
    struct st_loop *home;
    struct st_node *node;
    struct st_disk *disk;
    struct st_sync *sync;
    struct st_err err;
    uint64_t counted = 0, sum = 0, n[COUNTERS];

    if (st_domain_create(&dopts, &domain, &err) == -ENOTSUP) {
        print_message("skip: %s\n", err.text);
        skip();
    }
    assert_int_equal(st_loop_create(domain, &home, &err), 0);
    assert_int_equal(st_testnode_create(home, &o, &node, &err), 0);
    assert_int_equal(st_disk_create(home, node, "d", false, &disk, &err), 0);
    memset(w, 0, sizeof(w));
    for (unsigned i = 0; i < LOOPS; i++) {
        w[i].disk = disk;
        w[i].index = i;
        assert_int_equal(st_loop_create(domain, &w[i].loop, &err), 0);
        w[i].start.run = worker_start;
        st_post(w[i].loop, &w[i].start);
        assert_int_equal(st_loop_start(w[i].loop, "worker"), 0);
    }
    for (unsigned round = 0; round < 10; round++) {
        for (const char *c = script; *c; c++) {
            struct st_node *t = NULL;
            void *arg[3] = {disk, NULL, (void *)(uintptr_t)c};
            struct st_edit e = {0};
            int rc;

            if (*c == 'i') {
                t = calloc(1, sizeof(*t));
                st_node_init(t, &through_ops, home, NULL);
                arg[1] = t;
            }
            rc = st_sync_edit(home, start_edit, arg, &e);
            if (rc)
                fail_msg("edit %c: %s", *c, e.err.text);
        }
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        atomic_store(&w[i].stop, true);
        while (!atomic_load(&w[i].stopped)) /* its loop turns by itself */
            usleep(1000);
        st_loop_join(w[i].loop);
        counted += w[i].counted;
    }
    assert_int_equal(st_sync_open(disk, home, &sync), 0);
    assert_int_equal(st_sync_read(sync, n, 0, sizeof(n)), ST_OK);
    for (unsigned i = 0; i < COUNTERS; i++)
        sum += n[i];
    assert_int_equal(sum, counted);
    assert_true(counted > 0);
    assert_null(st_testnode_complaint(node));
    st_sync_close(sync);
    st_disk_destroy(disk);
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_destroy(w[i].loop);
    st_loop_destroy(home);
    st_domain_destroy(domain);
}

static char io_uring[] = "io_uring", threads[] = "threads";

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(counting_survives_every_edit, io_uring),
        cmocka_unit_test_prestate(counting_survives_every_edit, threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
