/* SPDX-License-Identifier: MIT
 *
 * The root's own rules, over a backend whose every behaviour is a knob: what
 * the wall decides, what it emulates, and that requests come back as they were.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rand.h"
#include "root.h"
#include "sync.h"
#include "testnode.h"

struct world {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_node *node;
    struct st_disk *disk;
    struct st_sync *sync;
};

static void
world_open(struct world *w, const struct st_testnode_opts *o, bool read_only)
{
    struct st_domain_opts dopts = {.engine = "virtual", .seed = 1};
    struct st_err err;

    memset(w, 0, sizeof(*w));
    assert_int_equal(st_domain_create(&dopts, &w->domain, &err), 0);
    assert_int_equal(st_loop_create(w->domain, &w->loop, &err), 0);
    assert_int_equal(st_testnode_create(w->loop, o, &w->node, &err), 0);
    assert_int_equal(
        st_disk_create(w->loop, w->node, "d", read_only, &w->disk, &err), 0);
    assert_int_equal(st_sync_open(w->disk, w->loop, &w->sync), 0);
}

static void
world_close_two(struct world *w, struct st_loop *other)
{
    const char *complaint = st_testnode_complaint(w->node);

    if (complaint)
        fail_msg("the node was asked: %s", complaint);
    st_sync_close(w->sync);
    while (st_domain_step(w->domain))
        ;
    st_disk_destroy(w->disk);
    st_loop_destroy(other);
    st_loop_destroy(w->loop);
    st_domain_destroy(w->domain);
}

static void
world_close(struct world *w)
{
    world_close_two(w, NULL);
}

#define MIB (UINT64_C(1) << 20)

static void
range_is_checked_without_overflow(void **state)
{
    static const struct {
        uint64_t off, len;
        enum st_status want;
    } rows[] = {
        {0, 512, ST_OK},
        {MIB - 512, 512, ST_OK},
        {MIB, 0, ST_OK},
        {MIB + 1, 0, ST_RANGE},
        {MIB, 512, ST_RANGE},
        {MIB - 512, 1024, ST_RANGE},
        {UINT64_MAX, 1, ST_RANGE},
        {UINT64_MAX - 511, 512, ST_RANGE},
        {UINT64_MAX - 511, 1024, ST_RANGE},
        {ST_OFFSET_MAX, 1, ST_RANGE},
        {ST_OFFSET_MAX - 511, 512, ST_RANGE},
        {512, UINT64_MAX - 511, ST_RANGE},
    };
    struct st_testnode_opts o = {.size = MIB, .unmap = ST_UNMAP_ZEROES};
    struct iovec iov = {malloc(1024), 1024};
    struct world w;

    (void)state;
    memset(iov.iov_base, 0, 1024);
    world_open(&w, &o, false);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static const enum st_op ops[] = {ST_OP_READ, ST_OP_WRITE, ST_OP_UNMAP,
                                         ST_OP_WRITE_ZEROES,
                                         ST_OP_BLOCK_STATUS};

        for (unsigned j = 0; j < 5; j++) {
            struct st_req *r = st_sync_req(w.sync);

            r->op = (uint8_t)ops[j];
            r->offset = rows[i].off;
            r->len = rows[i].len;
            r->buf.iov = &iov;
            if (st_sync_run(w.sync) != rows[i].want)
                fail_msg("row %u op %u: %s", i, ops[j],
                         st_status_name((enum st_status)r->status));
        }
    }
    world_close(&w);
    free(iov.iov_base);
}

static void
read_only_refuses_every_change(void **state)
{
    struct st_testnode_opts o = {.size = MIB, .unmap = ST_UNMAP_ZEROES};
    struct world w;
    char buf[1024] = {1};

    (void)state;
    world_open(&w, &o, true);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, 0), ST_READ_ONLY);
    assert_int_equal(st_sync_unmap(w.sync, 0, 512), ST_READ_ONLY);
    assert_int_equal(st_sync_zero(w.sync, 0, 512, 0), ST_READ_ONLY);
    assert_int_equal(st_sync_compare_and_write(w.sync, buf, 0, 512),
                     ST_READ_ONLY);
    assert_int_equal(st_sync_read(w.sync, buf, 0, 512), ST_OK);
    assert_int_equal(st_sync_flush(w.sync), ST_OK);
    world_close(&w);
}

static void
ignored_unmap_is_answered_here(void **state)
{
    struct st_testnode_opts o = {.size = MIB,
                                 .performs = ST_BIT(ST_OP_READ) |
                                             ST_BIT(ST_OP_WRITE) |
                                             ST_BIT(ST_OP_FLUSH)};
    struct world w;

    (void)state;
    world_open(&w, &o, false);
    assert_int_equal(st_sync_unmap(w.sync, 0, MIB), ST_OK);
    assert_int_equal(st_sync_unmap(w.sync, 0, MIB + 512), ST_RANGE);
    assert_int_equal(st_testnode_count(w.node, ST_OP_UNMAP), 0);
    world_close(&w);
}

static void
fua_is_a_write_and_a_flush_where_the_node_has_none(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct world w;
    char buf[512];

    (void)state;
    memset(buf, 7, sizeof(buf));
    world_open(&w, &o, false);
    assert_int_equal(st_sync_write(w.sync, buf, 512, 512, 0), ST_OK);
    assert_int_equal(st_testnode_durable(w.node)[512], 0);
    assert_int_equal(st_sync_write(w.sync, buf, 1024, 512, ST_REQ_FUA), ST_OK);
    assert_int_equal(st_testnode_count(w.node, ST_OP_FLUSH), 1);
    assert_int_equal(st_testnode_durable(w.node)[1024], 7);
    /* The same through read-modify-write and through emulated zeroes. */
    assert_int_equal(st_sync_write(w.sync, buf, 4100, 100, ST_REQ_FUA), ST_OK);
    assert_int_equal(st_testnode_durable(w.node)[4100], 7);
    assert_int_equal(st_sync_zero(w.sync, 1024, 100, ST_REQ_FUA), ST_OK);
    assert_int_equal(st_testnode_durable(w.node)[1024], 0);
    assert_int_equal(st_testnode_durable(w.node)[1124], 7);
    world_close(&w);
}

static void
failed_flush_is_latched(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_disk_stats s;
    struct world w;
    char buf[512] = {0};

    (void)state;
    world_open(&w, &o, false);
    assert_int_equal(st_sync_flush(w.sync), ST_OK);
    st_testnode_fail(w.node, ST_BIT(ST_OP_FLUSH), ST_IO, 1);
    assert_int_equal(st_sync_flush(w.sync), ST_IO);
    assert_int_equal(st_sync_flush(w.sync), ST_IO);
    assert_int_equal(st_testnode_count(w.node, ST_OP_FLUSH), 2);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, 0), ST_OK);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, ST_REQ_FUA), ST_IO);
    assert_int_equal(st_sync_write(w.sync, buf, 9, 99, ST_REQ_FUA), ST_IO);
    assert_int_equal(st_sync_zero(w.sync, 9, 99, ST_REQ_FUA), ST_IO);
    st_disk_stats(w.disk, &s);
    assert_true(s.flush_failed);
    world_close(&w);
}

static void
failed_flush_behind_fua_is_latched_too(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct world w;
    char buf[512] = {0};

    (void)state;
    world_open(&w, &o, false);
    st_testnode_fail(w.node, ST_BIT(ST_OP_FLUSH), ST_IO, 1);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, ST_REQ_FUA), ST_IO);
    assert_int_equal(st_sync_flush(w.sync), ST_IO);
    world_close(&w);
}

static void
any_alignment_gives_the_bytes(void **state)
{
    struct st_testnode_opts rows[] = {
        {.size = MIB},
        {.size = MIB, .sector = 4096},
        {.size = MIB, .mem_align = 512, .max_segments = 4},
        {.size = MIB,
         .sector = 4096,
         .mem_align = 4096,
         .async = true,
         .seed = 3},
    };
    static uint8_t model[1 << 20], buf[300000];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct st_rand rand = st_rand_seed(i);
        struct world w;

        world_open(&w, &rows[i], false);
        memset(model, 0, sizeof(model));
        for (unsigned n = 0; n < 300; n++) {
            uint64_t len = 1 + st_rand_below(&rand, n % 4 ? 9000 : 290000);
            uint64_t off = st_rand_below(&rand, MIB - len);

            for (uint64_t k = 0; k < len; k++)
                buf[k] = (uint8_t)st_rand_next(&rand);
            if (n % 5 == 4) {
                memset(buf, 0, len);
                assert_int_equal(st_sync_zero(w.sync, off, len, 0), ST_OK);
            } else {
                assert_int_equal(st_sync_write(w.sync, buf, off, len, 0),
                                 ST_OK);
            }
            memcpy(model + off, buf, len);
            len = 1 + st_rand_below(&rand, 290000);
            off = st_rand_below(&rand, MIB - len);
            assert_int_equal(st_sync_read(w.sync, buf, off, len), ST_OK);
            assert_memory_equal(buf, model + off, len);
        }
        assert_memory_equal(st_testnode_bytes(w.node), model, MIB);
        world_close(&w);
    }
}

static void
emulated_zeroes_are_bounded_writes_and_never_fast(void **state)
{
    struct st_testnode_opts o = {.size = 8 * MIB,
                                 .performs = ST_BIT(ST_OP_READ) |
                                             ST_BIT(ST_OP_WRITE) |
                                             ST_BIT(ST_OP_FLUSH)};
    struct world w;

    (void)state;
    world_open(&w, &o, false);
    memset(st_testnode_bytes(w.node), 9, 8 * MIB);
    assert_int_equal(st_sync_zero(w.sync, 0, 8 * MIB, ST_REQ_FAST),
                     ST_UNSUPPORTED);
    assert_int_equal(st_testnode_bytes(w.node)[0], 9);
    assert_int_equal(st_sync_zero(w.sync, 512, 8 * MIB - 1024, 0), ST_OK);
    assert_int_equal(st_testnode_count(w.node, ST_OP_WRITE), 8);
    assert_int_equal(st_testnode_bytes(w.node)[511], 9);
    assert_int_equal(st_testnode_bytes(w.node)[512], 0);
    assert_int_equal(st_testnode_bytes(w.node)[8 * MIB - 513], 0);
    assert_int_equal(st_testnode_bytes(w.node)[8 * MIB - 512], 9);
    world_close(&w);
}

static void
compare_and_write_says_where_it_differs(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct world w;
    uint8_t buf[2048];
    struct iovec iov = {buf, sizeof(buf)};
    struct st_req *r;

    (void)state;
    world_open(&w, &o, false);
    memset(buf, 0, 1024);
    memset(buf + 1024, 5, 1024);
    assert_int_equal(st_sync_compare_and_write(w.sync, buf, 512, 1024), ST_OK);
    assert_int_equal(st_testnode_bytes(w.node)[512], 5);
    assert_int_equal(st_testnode_bytes(w.node)[1535], 5);
    memset(buf, 5, 1024);
    buf[700] = 6;
    r = st_sync_req(w.sync);
    r->op = ST_OP_COMPARE_AND_WRITE;
    r->offset = 512;
    r->len = 1024;
    r->buf.iov = &iov;
    assert_int_equal(st_sync_run(w.sync), ST_MISCOMPARE);
    assert_int_equal(r->miscompare_at, 700);
    assert_int_equal(st_testnode_bytes(w.node)[1535], 5);
    world_close(&w);
}

static void
events_carry_the_latest_size(struct st_listener *l, unsigned events,
                             uint64_t size)
{
    uint64_t *got = (uint64_t *)(void *)(l + 1);

    got[0] |= events;
    got[1] = size;
    got[2]++;
}

static void
resize_by_the_backend_is_heard_once_with_the_latest_size(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct {
        struct st_listener l;
        uint64_t got[3];
    } l = {0};
    struct world w;

    (void)state;
    world_open(&w, &o, false);
    l.l.loop = w.loop;
    l.l.event = events_carry_the_latest_size;
    st_disk_listen(w.disk, &l.l);
    assert_int_equal(st_testnode_set_size(w.node, 2 * MIB), 0);
    assert_int_equal(st_testnode_set_size(w.node, 3 * MIB), 0);
    while (st_domain_step(w.domain))
        ;
    assert_int_equal(l.got[0], ST_EVENT_RESIZE);
    assert_int_equal(l.got[1], 3 * MIB);
    assert_int_equal(l.got[2], 1);
    assert_int_equal(st_disk_size(w.disk), 3 * MIB);
    assert_int_equal(st_testnode_set_size(w.node, 512), 0);
    while (st_domain_step(w.domain))
        ;
    assert_int_equal(l.got[1], 512);
    st_disk_unlisten(&l.l);
    while (st_domain_step(w.domain))
        ;
    world_close(&w);
}

/* At every moment of what follows an event of the tree. */
static void
disk_can_go_while_an_event_is_under_way(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 12; steps++) {
        struct st_testnode_opts o = {.size = MIB};
        struct world w;

        world_open(&w, &o, false);
        st_sync_close(w.sync);
        while (st_domain_step(w.domain))
            ;
        assert_int_equal(st_testnode_set_size(w.node, 512), 0);
        for (unsigned i = 0; i < steps; i++)
            st_domain_step(w.domain);
        st_disk_destroy(w.disk);
        while (st_domain_step(w.domain))
            ;
        st_loop_destroy(w.loop);
        st_domain_destroy(w.domain);
    }
}

/* ---- Requests in the background ---- */

struct bg {
    struct world *w;
    struct st_chan *chan;
    struct st_req *req;
    struct iovec iov;
    unsigned done;
};

static void
bg_done(struct st_req *req)
{
    ((struct bg *)req->owner)->done++;
}

static void
bg_start(struct bg *b, struct world *w, enum st_op op, void *buf, uint64_t off,
         uint64_t len)
{
    unsigned nframes = st_disk_frames(w->disk);

    memset(b, 0, sizeof(*b));
    b->w = w;
    assert_int_equal(st_disk_open_chan(w->disk, w->loop, &b->chan), 0);
    b->req = malloc(st_req_size(nframes));
    st_req_init(b->req, nframes, bg_done, b);
    b->req->op = (uint8_t)op;
    b->req->offset = off;
    b->req->len = len;
    b->iov = (struct iovec){buf, len};
    b->req->buf.iov = &b->iov;
    st_submit(b->chan, b->req);
    assert_int_equal(b->done, 0);
}

static enum st_status
bg_end(struct bg *b)
{
    enum st_status status;

    while (!b->done)
        assert_true(st_domain_step(b->w->domain));
    status = (enum st_status)b->req->status;
    assert_int_equal(b->done, 1);
    st_disk_close_chan(b->chan);
    free(b->req);
    return status;
}

static void
start_resume(void *arg, struct st_edit *e)
{
    st_disk_resume(((struct world *)arg)->disk, e);
}

static void
start_park(void *arg, struct st_edit *e)
{
    st_disk_quiesce(((struct world *)arg)->disk, ST_PARK, 1000000, e);
}

static void
start_refuse(void *arg, struct st_edit *e)
{
    st_disk_quiesce(((struct world *)arg)->disk, ST_REFUSE, 1000000, e);
}

static void
start_cancel(void *arg, struct st_edit *e)
{
    st_disk_quiesce(((struct world *)arg)->disk, ST_CANCEL, 1000000, e);
}

static void
parked_requests_go_on_after_resume(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_edit e = {0};
    struct world w;
    struct bg b;
    char buf[512] = {1};

    (void)state;
    world_open(&w, &o, false);
    assert_int_equal(st_sync_edit(w.loop, start_park, &w, &e), 0);
    bg_start(&b, &w, ST_OP_WRITE, buf, 0, 512);
    while (st_domain_step(w.domain))
        ;
    assert_int_equal(b.done, 0);
    assert_int_equal(st_testnode_count(w.node, ST_OP_WRITE), 0);
    assert_int_equal(st_sync_edit(w.loop, start_resume, &w, &e), 0);
    assert_int_equal(bg_end(&b), ST_OK);
    world_close(&w);
}

static void
refused_requests_end_and_a_hung_one_is_an_orphan(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_edit e = {0};
    struct world w;
    struct bg b;
    char buf[512] = {1};

    (void)state;
    world_open(&w, &o, false);
    st_testnode_hang(w.node, true);
    bg_start(&b, &w, ST_OP_WRITE, buf, 0, 512);
    assert_int_equal(st_sync_edit(w.loop, start_refuse, &w, &e), -ETIMEDOUT);
    assert_int_equal(e.orphans, 1);
    assert_true(b.req->flags & ST_REQ_ORPHAN);
    assert_int_equal(st_sync_read(w.sync, buf, 0, 512), ST_ABORTED);
    st_testnode_hang(w.node, false);
    assert_int_equal(bg_end(&b), ST_OK);
    assert_int_equal(st_sync_edit(w.loop, start_resume, &w, &e), 0);
    assert_int_equal(st_sync_read(w.sync, buf, 0, 512), ST_OK);
    world_close(&w);
}

static void
cancel_ends_what_hangs(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_edit e = {0};
    struct world w;
    struct bg b;
    char buf[512] = {1};

    (void)state;
    world_open(&w, &o, false);
    st_testnode_hang(w.node, true);
    bg_start(&b, &w, ST_OP_WRITE, buf, 0, 512);
    assert_int_equal(st_sync_edit(w.loop, start_cancel, &w, &e), 0);
    assert_int_equal(bg_end(&b), ST_ABORTED);
    st_testnode_hang(w.node, false);
    assert_int_equal(st_sync_edit(w.loop, start_resume, &w, &e), 0);
    world_close(&w);
}

static void
start_shrink(void *arg, struct st_edit *e)
{
    st_disk_resize_within(((struct world *)arg)->disk, 512, 1000000, e);
}

static void
a_shrink_that_does_not_drain_changes_nothing(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_edit e = {0};
    struct world w;
    struct bg b;
    char buf[512] = {1};

    (void)state;
    world_open(&w, &o, false);
    st_testnode_hang(w.node, true);
    bg_start(&b, &w, ST_OP_WRITE, buf, 0, 512);
    assert_int_equal(st_sync_edit(w.loop, start_shrink, &w, &e), -ETIMEDOUT);
    assert_int_equal(st_disk_size(w.disk), MIB);
    assert_int_equal(st_node_size(w.node), MIB);
    st_testnode_hang(w.node, false);
    assert_int_equal(bg_end(&b), ST_OK);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, 0), ST_OK);
    world_close(&w);
}

static void
a_disk_is_deserted_when_no_message_can_reach_it(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_loop *other;
    struct st_edit e = {0};
    struct st_chan *chan;
    struct world w;
    bool before;

    (void)state;
    world_open(&w, &o, false);
    assert_int_equal(st_loop_create(w.domain, &other, NULL), 0);
    assert_false(st_disk_deserted(w.disk));
    st_sync_close(w.sync);
    w.sync = NULL;
    assert_true(st_disk_deserted(w.disk));
    assert_int_equal(st_disk_open_chan(w.disk, other, &chan), 0);
    st_disk_set_policy(w.disk, ST_POLICY_STOP);
    assert_int_equal(st_sync_edit(w.loop, start_park, &w, &e), 0);
    atomic_store(&w.disk->stopped, true);
    disk_event(w.disk, ST_EVENT_STOPPED);
    while (!w.disk->bcast[BCAST_EVENT].running)
        assert_true(st_domain_step(w.domain));
    st_disk_close_chan(chan); /* with the message still under way to it */
    before = st_disk_deserted(w.disk);
    while (st_domain_step(w.domain))
        ;
    assert_false(before);
    assert_true(st_disk_deserted(w.disk));
    world_close_two(&w, other);
}

static void
stop_policy_holds_and_resume_tries_again(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_disk_stats s;
    struct st_edit e = {0};
    struct world w;
    struct bg b, c;
    char buf[512] = {1};

    (void)state;
    world_open(&w, &o, false);
    st_disk_set_policy(w.disk, ST_POLICY_STOP);
    st_testnode_fail(w.node, ST_BIT(ST_OP_WRITE), ST_NO_SPACE, 1);
    bg_start(&b, &w, ST_OP_WRITE, buf, 0, 512);
    while (st_domain_step(w.domain))
        ;
    st_disk_stats(w.disk, &s);
    assert_true(s.stopped);
    bg_start(&c, &w, ST_OP_READ, buf, 0, 512);
    while (st_domain_step(w.domain))
        ;
    assert_int_equal(b.done + c.done, 0);
    assert_int_equal(st_sync_edit(w.loop, start_resume, &w, &e), 0);
    assert_int_equal(bg_end(&b), ST_OK);
    assert_int_equal(bg_end(&c), ST_OK);
    world_close(&w);
}

static void
retry_policy_tries_five_times(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct world w;
    char buf[512] = {1};

    (void)state;
    world_open(&w, &o, false);
    st_disk_set_policy(w.disk, ST_POLICY_RETRY);
    st_testnode_fail(w.node, ST_BIT(ST_OP_WRITE), ST_IO, 5);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, 0), ST_OK);
    assert_int_equal(st_testnode_count(w.node, ST_OP_WRITE), 6);
    st_testnode_fail(w.node, ST_BIT(ST_OP_WRITE), ST_IO, UINT32_MAX);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, 0), ST_IO);
    assert_int_equal(st_testnode_count(w.node, ST_OP_WRITE), 12);
    world_close(&w);
}

struct conflict {
    struct world *w;
    uint16_t nexus;
    bool read, write;
};

static void
start_conflict(void *arg, struct st_edit *e)
{
    struct conflict *c = arg;

    st_disk_set_conflict(c->w->disk, c->nexus, c->read, c->write, e);
}

static void
conflicts_are_of_one_nexus(void **state)
{
    struct st_testnode_opts o = {.size = MIB};
    struct st_edit e = {0};
    struct world w;
    struct conflict c = {.w = &w, .write = true};
    char buf[512] = {1};
    struct st_req *r;
    struct iovec iov = {buf, 512};

    (void)state;
    world_open(&w, &o, false);
    c.nexus = st_disk_attach(w.disk);
    assert_int_not_equal(c.nexus, ST_NEXUS_NONE);
    assert_int_equal(st_sync_edit(w.loop, start_conflict, &c, &e), 0);
    assert_int_equal(st_sync_write(w.sync, buf, 0, 512, 0), ST_OK);
    for (unsigned op = ST_OP_READ; op <= ST_OP_WRITE; op++) {
        r = st_sync_req(w.sync);
        r->op = (uint8_t)op;
        r->len = 512;
        r->buf.iov = &iov;
        r->nexus = c.nexus;
        assert_int_equal(st_sync_run(w.sync),
                         op == ST_OP_WRITE ? ST_CONFLICT : ST_OK);
    }
    c.write = false;
    assert_int_equal(st_sync_edit(w.loop, start_conflict, &c, &e), 0);
    r = st_sync_req(w.sync);
    r->op = ST_OP_WRITE;
    r->len = 512;
    r->buf.iov = &iov;
    r->nexus = c.nexus;
    assert_int_equal(st_sync_run(w.sync), ST_OK);
    st_disk_detach(w.disk, c.nexus);
    world_close(&w);
}

/* Read-modify-writes of neighbouring bytes, from two loops at once: each must
 * find the other's byte. */
static void
partial_writes_of_one_sector_from_two_loops_all_count(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct st_testnode_opts o = {
            .size = MIB, .sector = 4096, .async = true, .seed = seed};
        enum { N = 64 };
        struct st_loop *other;
        struct st_err err;
        struct bg b[N];
        struct world w;
        uint8_t bytes[N];

        world_open(&w, &o, false);
        assert_int_equal(st_loop_create(w.domain, &other, &err), 0);
        for (unsigned i = 0; i < N; i++) {
            struct st_loop *home = w.loop;

            bytes[i] = (uint8_t)(i + 1);
            if (i % 2)
                w.loop = other;
            bg_start(&b[i], &w, ST_OP_WRITE, &bytes[i], 100 + i, 1);
            w.loop = home;
        }
        for (unsigned i = 0; i < N; i++)
            assert_int_equal(bg_end(&b[i]), ST_OK);
        while (st_domain_step(w.domain))
            ;
        assert_memory_equal(st_testnode_bytes(w.node) + 100, bytes, N);
        world_close_two(&w, other);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(range_is_checked_without_overflow),
        cmocka_unit_test(read_only_refuses_every_change),
        cmocka_unit_test(ignored_unmap_is_answered_here),
        cmocka_unit_test(fua_is_a_write_and_a_flush_where_the_node_has_none),
        cmocka_unit_test(failed_flush_is_latched),
        cmocka_unit_test(failed_flush_behind_fua_is_latched_too),
        cmocka_unit_test(any_alignment_gives_the_bytes),
        cmocka_unit_test(emulated_zeroes_are_bounded_writes_and_never_fast),
        cmocka_unit_test(compare_and_write_says_where_it_differs),
        cmocka_unit_test(
            resize_by_the_backend_is_heard_once_with_the_latest_size),
        cmocka_unit_test(disk_can_go_while_an_event_is_under_way),
        cmocka_unit_test(parked_requests_go_on_after_resume),
        cmocka_unit_test(refused_requests_end_and_a_hung_one_is_an_orphan),
        cmocka_unit_test(cancel_ends_what_hangs),
        cmocka_unit_test(a_shrink_that_does_not_drain_changes_nothing),
        cmocka_unit_test(a_disk_is_deserted_when_no_message_can_reach_it),
        cmocka_unit_test(stop_policy_holds_and_resume_tries_again),
        cmocka_unit_test(retry_policy_tries_five_times),
        cmocka_unit_test(conflicts_are_of_one_nexus),
        cmocka_unit_test(partial_writes_of_one_sector_from_two_loops_all_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
