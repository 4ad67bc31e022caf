/* SPDX-License-Identifier: MIT
 *
 * Throttle, on a virtual clock: times are exact. A new bucket is full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kit.h"
#include "testnode.h"
#include "throttle.h"

#define MS UINT64_C(1000000)

enum { SIZE = 1 << 20, LOOPS = 2, MAX_OPS = 1000 };

struct op {
    struct st_req *req;
    struct iovec iov;
    uint64_t done_at; /* 0: not yet */
    struct st_loop *loop;
    unsigned *completed; /* counts */
    unsigned order;      /* in completion */
};

/* One throttle over memory, with a channel on each loop; or two throttles of a
 * group, a channel each. */
struct rig {
    struct st_domain *domain;
    struct st_loop *loop[LOOPS];
    struct st_node *memory[LOOPS], *throttle[LOOPS];
    struct st_chan *chan[LOOPS];
    struct op op[MAX_OPS];
    unsigned nops, completed;
};

static struct st_node *
new_throttle(struct rig *r, const struct st_throttle_opts *o, unsigned i)
{
    const struct st_testnode_opts m = {.size = SIZE};
    struct st_node *n;

    assert_int_equal(st_testnode_create(r->loop[0], &m, &r->memory[i], NULL),
                     0);
    assert_int_equal(st_throttle_create(r->loop[0], o, "throttle", &n, NULL),
                     0);
    assert_int_equal(st_node_adopt(n, r->memory[i]), 0);
    return n;
}

static struct rig *
rig_start(struct st_throttle_opts o, bool group)
{
    const struct st_domain_opts d = {.engine = "virtual", .seed = 1};
    struct rig *r = calloc(1, sizeof(*r));

    assert_int_equal(st_domain_create(&d, &r->domain, NULL), 0);
    for (unsigned i = 0; i < LOOPS; i++)
        assert_int_equal(st_loop_create(r->domain, &r->loop[i], NULL), 0);
    r->throttle[0] = r->throttle[1] = new_throttle(r, &o, 0);
    if (group) {
        o.group = r->throttle[0];
        r->throttle[1] = new_throttle(r, &o, 1);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        assert_int_equal(st_chan_open(r->throttle[i], r->loop[i], &r->chan[i]),
                         0);
    return r;
}

static void
rig_stop(struct rig *r)
{
    for (unsigned i = 0; i < LOOPS; i++)
        st_chan_close(r->chan[i]);
    while (st_domain_step(r->domain))
        ;
    st_node_close(r->throttle[0]);
    if (r->throttle[1] != r->throttle[0])
        st_node_close(r->throttle[1]);
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_destroy(r->loop[i]);
    st_domain_destroy(r->domain);
    for (unsigned i = 0; i < r->nops; i++) {
        free(r->op[i].req);
        free(r->op[i].iov.iov_base);
    }
    free(r);
}

static void
op_done(struct st_req *req)
{
    struct op *o = req->owner;

    o->done_at = o->loop->now;
    o->order = (*o->completed)++;
}

static struct op *
start(struct rig *r, unsigned loop, enum st_op op, uint64_t len)
{
    struct op *o = &r->op[r->nops++];

    o->loop = r->loop[loop];
    o->completed = &r->completed;
    o->iov = (struct iovec){calloc(1, len + 1), len};
    o->req = malloc(st_req_size(8));
    st_req_init(o->req, 8, op_done, o);
    o->req->op = (uint8_t)op;
    o->req->len = len;
    o->req->buf.iov = &o->iov;
    st_submit(r->chan[loop], o->req);
    return o;
}

static void
wait_all(struct rig *r)
{
    while (r->completed < r->nops)
        assert_true(st_domain_step(r->domain));
}

static void
requests_come_at_the_rate(void **state)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.iops = 100, .burst_ns = 20 * MS}, false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        start(r, 0, i % 2 ? ST_OP_WRITE : ST_OP_FLUSH, 512);
    wait_all(r);
    /* Two were saved up; then one each 10 ms, in order. */
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(r->op[i].order, i);
        assert_int_equal(r->op[i].done_at - t, i < 2 ? 0 : (i - 1) * 10 * MS);
    }
    rig_stop(r);
}

static void
bytes_come_at_the_rate(void **state)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.bytes = 4096 * 100, .burst_ns = 10 * MS},
        false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    start(r, 0, ST_OP_READ, 4096);      /* was saved up */
    start(r, 0, ST_OP_WRITE, 4096 * 2); /* more than a full bucket: when full */
    start(r, 0, ST_OP_READ, 4096);      /* and the next one waits the longer */
    start(r, 0, ST_OP_FLUSH, 0);        /* in its turn, and free */
    start(r, 0, ST_OP_READ, 2048);
    wait_all(r);
    assert_int_equal(r->op[0].done_at - t, 0);
    assert_int_equal(r->op[1].done_at - t, 10 * MS);
    assert_int_equal(r->op[2].done_at - t, 30 * MS);
    assert_int_equal(r->op[3].done_at - t, 30 * MS);
    assert_int_equal(r->op[4].done_at - t, 35 * MS);
    rig_stop(r);
}

static void
the_slower_of_both_limits_holds(void **state)
{
    struct rig *r = rig_start((struct st_throttle_opts){.iops = 100,
                                                        .bytes = 512 * 10,
                                                        .burst_ns = 100 * MS},
                              false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        start(r, 0, ST_OP_WRITE, 512);
    wait_all(r);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(r->op[i].done_at - t, i * 100 * MS);
    rig_stop(r);
}

static void
what_is_not_counted_passes(void **state)
{
    struct rig *r =
        rig_start((struct st_throttle_opts){.iops = 1, .burst_ns = MS}, false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    start(r, 0, ST_OP_WRITE, 512);
    start(r, 0, ST_OP_WRITE, 512);
    start(r, 0, ST_OP_BLOCK_STATUS, 512);
    wait_all(r);
    assert_int_equal(r->op[1].done_at - t, 1000 * MS);
    assert_int_equal(r->op[2].done_at, t);
    rig_stop(r);
}

static void
a_long_queue_goes_in_steps_of_2_ms(void **state)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.iops = 10000, .burst_ns = 2 * MS}, false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    for (unsigned i = 0; i < 101; i++)
        start(r, 0, ST_OP_READ, 512);
    wait_all(r);
    /* Who asks first asks alone; the others have queued up behind it. */
    for (unsigned i = 0; i < 101; i++)
        assert_int_equal(r->op[i].done_at - t,
                         i < 20    ? 0
                         : i == 20 ? MS / 10
                                   : MS / 10 + (i - 1) / 20 * 2 * MS);
    rig_stop(r);
}

/* So that what follows touches nothing shared. */
static void
a_loop_takes_2_ms_worth_at_once_if_it_is_there(void **state)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.iops = 10000, .burst_ns = 2 * MS}, false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    start(r, 0, ST_OP_READ, 512);
    start(r, 1, ST_OP_READ, 512); /* finds nothing left */
    for (unsigned i = 1; i < 20; i++)
        start(r, 0, ST_OP_READ, 512);
    wait_all(r);
    for (unsigned i = 0; i < r->nops; i++)
        assert_int_equal(r->op[i].done_at - t, i == 1 ? MS / 10 : 0);
    rig_stop(r);
}

/* A rate of 1000 is shared by two who always have something to ask for. */
static void
two_share_fairly(bool group)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.iops = 1000, .burst_ns = 10 * MS}, group);
    uint64_t t = r->loop[0]->now, last = 0;
    unsigned half[LOOPS] = {0};

    for (unsigned i = 0; i < 400; i++)
        start(r, i < 200 ? 0 : 1, ST_OP_READ, 512);
    wait_all(r);
    for (unsigned i = 0; i < 400; i++) {
        if (r->op[i].order < 200)
            half[i < 200 ? 0 : 1]++;
        last = r->op[i].done_at > last ? r->op[i].done_at : last;
    }
    /* 10 were saved up by the burst, all for who asked first. */
    assert_in_range(half[0], 98, 108);
    assert_int_equal(last - t, 390 * MS);
    rig_stop(r);
}

static void
loops_share_fairly(void **state)
{
    (void)state;
    two_share_fairly(false);
}

static void
a_group_shares_its_buckets(void **state)
{
    (void)state;
    two_share_fairly(true);
}

static void
a_group_has_one_limit(void **state)
{
    struct st_throttle_opts o = {.iops = 100};
    struct rig *r = rig_start(o, false);
    struct st_node *n;
    struct st_err err;

    (void)state;
    o.group = r->throttle[0];
    o.iops = 200;
    assert_int_equal(st_throttle_create(r->loop[0], &o, "t", &n, &err),
                     -EINVAL);
    assert_non_null(strstr(err.text, "other limits"));
    o.iops = 0;
    assert_int_equal(st_throttle_create(r->loop[0], &o, "t", &n, &err),
                     -EINVAL);
    assert_non_null(strstr(err.text, "neither"));
    rig_stop(r);
}

static int
set(struct rig *r, const char *name, const char *value)
{
    struct st_err err;

    return r->throttle[0]->ops->set(r->throttle[0], name, value, &err);
}

static void
a_limit_that_is_set_holds_for_those_who_wait(void **state)
{
    for (unsigned group = 0; group < 2; group++) {
        struct rig *r = rig_start(
            (struct st_throttle_opts){.iops = 1, .burst_ns = 1000 * MS}, group);
        uint64_t t, last = 0;

        (void)state;
        for (unsigned i = 0; i < 8; i++)
            start(r, i % 2, ST_OP_READ, 512);
        while (r->completed < 2) /* one was saved up */
            assert_true(st_domain_step(r->domain));
        t = r->op[0].done_at > r->op[1].done_at ? r->op[0].done_at
                                                : r->op[1].done_at;
        assert_int_equal(set(r, "burst_ns", "10000000"), 0);
        assert_int_equal(set(r, "iops", "100"), 0);
        wait_all(r);
        /* A full bucket of one, then one each 10 ms. */
        for (unsigned i = 2; i < 8; i++)
            last = r->op[i].done_at > last ? r->op[i].done_at : last;
        assert_int_equal(last - t, 50 * MS);
        rig_stop(r);
    }
}

static void
a_limit_can_be_lifted_and_come_back(void **state)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.iops = 1, .burst_ns = 1000 * MS}, false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        start(r, i % 2, ST_OP_READ, 4096);
    assert_int_equal(set(r, "iops", "0"), 0);
    wait_all(r);
    assert_int_equal(r->loop[0]->now, t);
    assert_int_equal(set(r, "bytes", "40960"), 0);
    assert_int_equal(set(r, "burst_ns", "100000000"), 0); /* one of 4096 */
    for (unsigned i = 0; i < 10; i++)
        start(r, 0, ST_OP_READ, 4096);
    wait_all(r);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(r->op[100 + i].done_at - t, i * 100 * MS);
    rig_stop(r);
}

/* A large transfer at a low rate leaves a debt of hours; a higher rate does not
 * inherit it. */
static void
a_new_limit_begins_without_debt(void **state)
{
    struct rig *r =
        rig_start((struct st_throttle_opts){.bytes = 1, .burst_ns = MS}, false);
    uint64_t t = r->loop[0]->now;

    (void)state;
    start(r, 0, ST_OP_READ, 65536); /* let through, and owed */
    wait_all(r);
    assert_int_equal(set(r, "bytes", "65536000"), 0);
    t = r->loop[0]->now;
    start(r, 0, ST_OP_READ, 65536);
    start(r, 0, ST_OP_READ, 65536);
    wait_all(r);
    assert_in_range(r->loop[0]->now - t, 0, 3 * MS);
    rig_stop(r);
}

static void
what_cannot_be_set_is_said(void **state)
{
    struct rig *r = rig_start((struct st_throttle_opts){.iops = 100}, false);

    (void)state;
    assert_int_equal(set(r, "iops", "-1"), -EINVAL);
    assert_int_equal(set(r, "bytes", "1M"), -EINVAL);
    assert_int_equal(set(r, "burst_ns", "0"), -EINVAL);
    assert_int_equal(set(r, "burst_ns", "9999999999999999999"), -EINVAL);
    assert_int_equal(set(r, "group_members", "1"), -EACCES);
    assert_int_equal(set(r, "ops", "1"), -ENOENT);
    rig_stop(r);
}

static void
a_waiting_request_can_be_cancelled(void **state)
{
    struct rig *r =
        rig_start((struct st_throttle_opts){.iops = 1, .burst_ns = MS}, false);
    uint64_t t = r->loop[0]->now;
    struct op *huge, *next;

    (void)state;
    start(r, 0, ST_OP_READ, 512);
    huge = start(r, 0, ST_OP_READ, 512);
    next = start(r, 0, ST_OP_READ, 512);
    st_cancel(huge->req);
    wait_all(r);
    assert_int_equal(huge->req->status, ST_ABORTED);
    assert_int_equal(huge->done_at, t);
    assert_int_equal(next->req->status, ST_OK);
    assert_int_equal(next->done_at - t, 1000 * MS); /* not 2000 */
    rig_stop(r);
}

static void
a_cancelled_request_leaves_nothing_for_others_to_wait_for(void **state)
{
    struct rig *r = rig_start(
        (struct st_throttle_opts){.bytes = 4096, .burst_ns = 1000 * MS}, false);
    uint64_t t = r->loop[0]->now;
    struct op *huge, *other;

    (void)state;
    start(r, 0, ST_OP_READ, 4096);
    huge = start(r, 0, ST_OP_READ, 4096 * 100);
    st_cancel(huge->req);
    other = start(r, 1, ST_OP_READ, 4096);
    wait_all(r);
    assert_int_equal(other->done_at - t, 1000 * MS);
    rig_stop(r);
}

static int
make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
     struct st_node **out, struct st_err *err)
{
    const struct st_testnode_opts m = {.size = size,
                                       .sector = sector,
                                       .unmap = ST_UNMAP_ZEROES,
                                       .async = true,
                                       .seed = 3};
    const struct st_throttle_opts o = {
        .iops = 10000, .bytes = 100 << 20, .burst_ns = 1};
    struct st_node *memory;
    int rc = st_throttle_create(loop, &o, "throttle", out, err);

    (void)arg;
    if (rc == 0)
        rc = st_testnode_create(loop, &m, &memory, err);
    return rc ? rc : st_node_adopt(*out, memory);
}

static void
it_keeps_the_contract(void **state)
{
    static const uint32_t sector[] = {512, 4096};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct st_domain_opts d = {.engine = "virtual", .seed = 1};
        struct st_kit kit = {
            .name = "throttle", .sector = sector[i], .make = make};
        struct st_domain *domain;
        unsigned ran;

        assert_int_equal(st_domain_create(&d, &domain, NULL), 0);
        assert_int_equal(st_loop_create(domain, &kit.loop, NULL), 0);
        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 0);
        st_loop_destroy(kit.loop);
        st_domain_destroy(domain);
    }
}

/* ---- On threads of their own ---- */

enum { EACH = 2000, DEPTH = 8 };

struct worker {
    struct st_loop *loop;
    struct st_node *node;
    struct st_chan *chan;
    struct st_task task;
    struct st_req *req[DEPTH];
    struct iovec iov;
    unsigned started, completed;
    struct st_loop *boss;
    struct st_task tell;
    bool done; /* boss's loop */
};

static void
worker_next(struct worker *w, struct st_req *req)
{
    if (w->started == EACH)
        return;
    w->started++;
    req->op = ST_OP_READ;
    req->len = 512;
    req->buf = (struct st_buf){&w->iov, 0};
    st_submit(w->chan, req);
}

static void
worker_done(struct st_req *req)
{
    struct worker *w = req->owner;

    if (++w->completed < EACH) {
        worker_next(w, req);
        return;
    }
    st_chan_close(w->chan);
    st_post(w->boss, &w->tell);
}

static void
worker_start(struct st_task *t)
{
    struct worker *w = st_container(t, struct worker, task);

    st_chan_open(w->node, w->loop, &w->chan);
    for (unsigned i = 0; i < DEPTH; i++)
        worker_next(w, w->req[i]);
}

static void
worker_told(struct st_task *t)
{
    st_container(t, struct worker, tell)->done = true;
}

static void
threads_take_from_one_bucket(void **state)
{
    const struct st_domain_opts d = {.engine = "threads"};
    const struct st_testnode_opts m = {.size = SIZE};
    const struct st_throttle_opts o = {.iops = 200000, .burst_ns = 1};
    struct st_domain *domain;
    struct st_loop *boss;
    struct st_node *memory, *node;
    struct worker w[2] = {0};

    (void)state;
    assert_int_equal(st_domain_create(&d, &domain, NULL), 0);
    assert_int_equal(st_loop_create(domain, &boss, NULL), 0);
    assert_int_equal(st_testnode_create(boss, &m, &memory, NULL), 0);
    assert_int_equal(st_throttle_create(boss, &o, "throttle", &node, NULL), 0);
    assert_int_equal(st_node_adopt(node, memory), 0);
    for (unsigned i = 0; i < 2; i++) {
        w[i] = (struct worker){.node = node,
                               .boss = boss,
                               .task.run = worker_start,
                               .tell.run = worker_told,
                               .iov = {malloc(512), 512}};
        for (unsigned k = 0; k < DEPTH; k++) {
            w[i].req[k] = malloc(st_req_size(4));
            st_req_init(w[i].req[k], 4, worker_done, &w[i]);
        }
        assert_int_equal(st_loop_create(domain, &w[i].loop, NULL), 0);
        assert_int_equal(st_loop_start(w[i].loop, "worker"), 0);
        st_post(w[i].loop, &w[i].task);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_true(st_loop_wait(boss, &w[i].done));
        st_loop_join(w[i].loop);
        st_loop_destroy(w[i].loop);
        assert_int_equal(w[i].completed, EACH);
        for (unsigned k = 0; k < DEPTH; k++)
            free(w[i].req[k]);
        free(w[i].iov.iov_base);
    }
    assert_int_equal(st_testnode_count(memory, ST_OP_READ), 2 * EACH);
    st_node_close(node);
    st_loop_destroy(boss);
    st_domain_destroy(domain);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_come_at_the_rate),
        cmocka_unit_test(bytes_come_at_the_rate),
        cmocka_unit_test(the_slower_of_both_limits_holds),
        cmocka_unit_test(what_is_not_counted_passes),
        cmocka_unit_test(a_long_queue_goes_in_steps_of_2_ms),
        cmocka_unit_test(a_loop_takes_2_ms_worth_at_once_if_it_is_there),
        cmocka_unit_test(loops_share_fairly),
        cmocka_unit_test(a_group_shares_its_buckets),
        cmocka_unit_test(a_group_has_one_limit),
        cmocka_unit_test(a_limit_that_is_set_holds_for_those_who_wait),
        cmocka_unit_test(a_limit_can_be_lifted_and_come_back),
        cmocka_unit_test(a_new_limit_begins_without_debt),
        cmocka_unit_test(what_cannot_be_set_is_said),
        cmocka_unit_test(a_waiting_request_can_be_cancelled),
        cmocka_unit_test(
            a_cancelled_request_leaves_nothing_for_others_to_wait_for),
        cmocka_unit_test(it_keeps_the_contract),
        cmocka_unit_test(threads_take_from_one_bucket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
