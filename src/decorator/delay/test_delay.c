/* SPDX-License-Identifier: MIT
 *
 * Delay, on a virtual clock: times are exact.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "delay.h"
#include "kit.h"
#include "testnode.h"

#define MS UINT64_C(1000000)

enum { SIZE = 1 << 20, OPS = 8 };

struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_node *memory, *delay;
    struct st_disk *disk;
    struct st_chan *chan;
};

struct op {
    struct st_req *req;
    struct iovec iov;
    uint64_t done_at; /* 0: not yet */
    struct st_loop *loop;
};

static void
rig_start(struct rig *r, const struct st_delay_opts *o)
{
    const struct st_domain_opts d = {.engine = "virtual", .seed = 1};
    const struct st_testnode_opts m = {.size = SIZE};

    assert_int_equal(st_domain_create(&d, &r->domain, NULL), 0);
    assert_int_equal(st_loop_create(r->domain, &r->loop, NULL), 0);
    assert_int_equal(st_testnode_create(r->loop, &m, &r->memory, NULL), 0);
    r->delay = NULL;
    if (o) {
        assert_int_equal(st_delay_create(r->loop, o, "delay", &r->delay, NULL),
                         0);
        assert_int_equal(st_node_adopt(r->delay, r->memory), 0);
    }
    assert_int_equal(st_disk_create(r->loop, o ? r->delay : r->memory, "d",
                                    false, &r->disk, NULL),
                     0);
    assert_int_equal(st_disk_open_chan(r->disk, r->loop, &r->chan), 0);
}

static void
rig_stop(struct rig *r)
{
    st_disk_close_chan(r->chan);
    while (st_domain_step(r->domain))
        ;
    st_disk_destroy(r->disk);
    while (st_domain_step(r->domain))
        ;
    st_loop_destroy(r->loop);
    st_domain_destroy(r->domain);
}

static void
op_done(struct st_req *req)
{
    struct op *o = req->owner;

    o->done_at = o->loop->now;
}

static void
op_start(struct rig *r, struct op *o, enum st_op op)
{
    unsigned frames = st_disk_frames(r->disk) + 4; /* for a live insertion */

    o->loop = r->loop;
    o->done_at = 0;
    o->iov = (struct iovec){calloc(1, 4096), 4096};
    o->req = malloc(st_req_size(frames));
    st_req_init(o->req, frames, op_done, o);
    o->req->op = (uint8_t)op;
    o->req->len = 4096;
    o->req->buf.iov = &o->iov;
    st_submit(r->chan, o->req);
}

static enum st_status
op_wait(struct rig *r, struct op *o)
{
    enum st_status status;

    while (!o->done_at)
        assert_true(st_domain_step(r->domain));
    status = (enum st_status)o->req->status;
    free(o->req);
    free(o->iov.iov_base);
    return status;
}

static void
each_operation_waits_its_own_time(void **state)
{
    const struct st_delay_opts o = {
        .read_ns = 5 * MS, .write_ns = 7 * MS, .flush_ns = 3 * MS};
    static const struct {
        enum st_op op;
        uint64_t ms;
    } rows[] = {{ST_OP_READ, 5},  {ST_OP_WRITE, 7}, {ST_OP_WRITE_ZEROES, 7},
                {ST_OP_FLUSH, 3}, {ST_OP_UNMAP, 0}, {ST_OP_BLOCK_STATUS, 0}};
    struct rig r;

    (void)state;
    rig_start(&r, &o);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        uint64_t start = r.loop->now;
        struct op op;

        op_start(&r, &op, rows[i].op);
        assert_int_equal(op_wait(&r, &op), ST_OK);
        assert_int_equal(op.done_at - start, rows[i].ms * MS);
    }
    rig_stop(&r);
}

static void
requests_wait_together(void **state)
{
    const struct st_delay_opts o = {.read_ns = 10 * MS, .write_ns = 2 * MS};
    struct op op[OPS];
    struct rig r;
    uint64_t start;

    (void)state;
    rig_start(&r, &o);
    start = r.loop->now;
    for (unsigned i = 0; i < OPS; i++)
        op_start(&r, &op[i], i % 2 ? ST_OP_WRITE : ST_OP_READ);
    for (unsigned i = 0; i < OPS; i++) {
        assert_int_equal(op_wait(&r, &op[i]), ST_OK);
        assert_int_equal(op[i].done_at - start, i % 2 ? 2 * MS : 10 * MS);
    }
    rig_stop(&r);
}

static void
a_delay_changes_from_the_next_request_on(void **state)
{
    const struct st_delay_opts o = {.read_ns = 50 * MS};
    struct op a, b, c;
    struct rig r;
    uint64_t start;

    (void)state;
    rig_start(&r, &o);
    start = r.loop->now;
    op_start(&r, &a, ST_OP_READ);
    st_delay_set(r.delay, ST_OP_READ, 10 * MS);
    op_start(&r, &b, ST_OP_READ); /* overtakes */
    st_delay_set(r.delay, ST_OP_READ, UINT64_MAX);
    op_start(&r, &c, ST_OP_READ); /* for ever */
    assert_int_equal(op_wait(&r, &b), ST_OK);
    assert_int_equal(b.done_at - start, 10 * MS);
    assert_int_equal(op_wait(&r, &a), ST_OK);
    assert_int_equal(a.done_at - start, 50 * MS);
    st_cancel(c.req);
    assert_int_equal(op_wait(&r, &c), ST_ABORTED);
    rig_stop(&r);
}

static void
see_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    (void)v;
    assert_int_equal(value, strcmp(name, "read_ns") == 0    ? 5 * MS
                            : strcmp(name, "write_ns") == 0 ? 7 * MS
                                                            : 0);
}

static void
its_values_can_be_set(void **state)
{
    static const struct {
        const char *name, *value;
        int rc;
        const char *sentence;
    } bad[] = {
        {"read_ns", "-1", -EINVAL, "'-1'"},
        {"read_ns", "10ms", -EINVAL, "'10ms'"},
        {"flush_ns", "", -EINVAL, "flush_ns"},
        {"write_ns", "18446744073709551616", -EINVAL, "write_ns"},
        {"unmap_ns", "1", -ENOENT, "'unmap_ns'"},
    };
    static const enum st_op ops[] = {ST_OP_READ, ST_OP_WRITE,
                                     ST_OP_WRITE_ZEROES, ST_OP_FLUSH};
    static const uint64_t ms[] = {5, 7, 7, 0};
    const struct st_delay_opts o = {.flush_ns = 50 * MS};
    struct st_inspect v = {.u64 = see_u64};
    struct st_err err;
    struct rig r;

    (void)state;
    rig_start(&r, &o);
    assert_int_equal(r.delay->ops->set(r.delay, "read_ns", "5000000", &err), 0);
    assert_int_equal(r.delay->ops->set(r.delay, "write_ns", "7000000", &err),
                     0);
    assert_int_equal(r.delay->ops->set(r.delay, "flush_ns", "0", &err), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(
            r.delay->ops->set(r.delay, bad[i].name, bad[i].value, &err),
            bad[i].rc);
        assert_non_null(strstr(err.text, bad[i].sentence));
    }
    r.delay->ops->inspect(r.delay, &v);
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        uint64_t start = r.loop->now;
        struct op op;

        op_start(&r, &op, ops[i]);
        assert_int_equal(op_wait(&r, &op), ST_OK);
        assert_int_equal(op.done_at - start, ms[i] * MS);
    }
    rig_stop(&r);
}

static void
a_delayed_request_can_be_cancelled(void **state)
{
    const struct st_delay_opts o = {.read_ns = 10 * MS};
    struct op a, b;
    struct rig r;
    uint64_t start;

    (void)state;
    rig_start(&r, &o);
    start = r.loop->now;
    op_start(&r, &a, ST_OP_READ);
    op_start(&r, &b, ST_OP_READ);
    st_cancel(a.req);
    assert_int_equal(op_wait(&r, &a), ST_ABORTED);
    assert_int_equal(a.done_at, start);
    assert_int_equal(op_wait(&r, &b), ST_OK);
    assert_int_equal(b.done_at - start, 10 * MS);
    assert_int_equal(st_testnode_count(r.memory, ST_OP_READ), 1);
    rig_stop(&r);
}

static void
a_resize_below_is_seen_above(void **state)
{
    const struct st_delay_opts o = {.read_ns = 10 * MS};
    struct rig r;

    (void)state;
    rig_start(&r, &o);
    assert_int_equal(st_testnode_set_size(r.memory, SIZE / 2), 0);
    assert_int_equal(st_node_size(r.delay), SIZE / 2);
    while (st_domain_step(r.domain))
        ;
    assert_int_equal(st_disk_size(r.disk), SIZE / 2);
    assert_int_equal(st_node_resize(r.delay, SIZE * 2, NULL), 0);
    assert_int_equal(st_node_size(r.delay), SIZE * 2);
    rig_stop(&r);
}

struct insertion {
    struct st_disk *disk;
    struct st_node *node; /* NULL: take it out */
};

static void
start_edit(void *arg, struct st_edit *e)
{
    struct insertion *i = arg;

    if (i->node)
        st_disk_insert(i->disk, i->node, 0, e);
    else
        st_disk_remove(i->disk, "delay", 0, e);
}

static void
it_comes_and_goes_under_io(void **state)
{
    const struct st_delay_opts o = {.read_ns = 10 * MS};
    struct insertion insertion;
    struct st_edit edit = {0};
    struct op op[3];
    struct rig r;
    uint64_t start;

    (void)state;
    rig_start(&r, NULL);
    assert_int_equal(st_delay_create(r.loop, &o, "delay", &r.delay, NULL), 0);
    insertion = (struct insertion){r.disk, r.delay};
    op_start(&r, &op[0], ST_OP_READ);
    assert_int_equal(st_sync_edit(r.loop, start_edit, &insertion, &edit), 0);
    assert_int_equal(op_wait(&r, &op[0]), ST_OK);
    assert_ptr_equal(st_disk_node(r.disk), r.delay);

    start = r.loop->now;
    op_start(&r, &op[1], ST_OP_READ);
    insertion.node = NULL;
    edit = (struct st_edit){0};
    assert_int_equal(st_sync_edit(r.loop, start_edit, &insertion, &edit), 0);
    assert_int_equal(op_wait(&r, &op[1]), ST_OK);
    assert_int_equal(op[1].done_at - start, 10 * MS);

    start = r.loop->now;
    op_start(&r, &op[2], ST_OP_READ);
    assert_int_equal(op_wait(&r, &op[2]), ST_OK);
    assert_int_equal(op[2].done_at, start);
    rig_stop(&r);
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
    const struct st_delay_opts o = {
        .read_ns = 3000, .write_ns = 2000, .flush_ns = 1000};
    struct st_node *memory;
    int rc = st_delay_create(loop, &o, "delay", out, err);

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
            .name = "delay", .sector = sector[i], .make = make};
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_operation_waits_its_own_time),
        cmocka_unit_test(requests_wait_together),
        cmocka_unit_test(a_delay_changes_from_the_next_request_on),
        cmocka_unit_test(its_values_can_be_set),
        cmocka_unit_test(a_delayed_request_can_be_cancelled),
        cmocka_unit_test(a_resize_below_is_seen_above),
        cmocka_unit_test(it_comes_and_goes_under_io),
        cmocka_unit_test(it_keeps_the_contract),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
