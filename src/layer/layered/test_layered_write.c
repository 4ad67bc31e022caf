/* SPDX-License-Identifier: MIT
 *
 * Layered disks: writes, flushes and unmaps, layer by layer; block status
 * (spec: disk 4.5).
 */
#include "test_layer.h"

/* ---- Writes, flushes, unmaps ---- */

static const struct st_layer through2[] = {
    {.write_through = true}, {.write_through = true}, {0}, {0}};

static void
write_through_goes_down_in_order(void **state)
{
    char buf[1032];

    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        if (ss != 512)
            continue;
        rig_make(&r, 4,
                 (struct tl_opts[]){kind(k, 0, 0), kind((k + 1) % KINDS, 0, 0),
                                    kind(k, 0, 0), kind(k, 8, ss)},
                 through2, false);
        memset(buf, A, sizeof(buf));
        assert_int_equal(rig_run(&r, ST_OP_WRITE, buf + 8, 512, 1024, 1),
                         ST_OK);
        assert_string_equal(r.trace, "012");
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(r.l[i]->flags, ST_REQ_FUA);
            assert_int_equal(r.l[i]->data[512], A);
            assert_int_equal(r.l[i]->data[1535], A);
            assert_int_equal(r.l[i]->state[0], ST_ABSENT);
            assert_int_equal(r.l[i]->state[3], ST_ABSENT);
        }
        assert_int_equal(r.l[3]->count[ST_OP_WRITE], 0);
        memset(r.trace, 0, sizeof(r.trace));
        assert_int_equal(rig_run(&r, ST_OP_FLUSH, buf + 8, 0, 0, 0), ST_OK);
        assert_string_equal(r.trace, "012");
        memset(r.trace, 0, sizeof(r.trace));
        assert_int_equal(rig_run(&r, ST_OP_WRITE_ZEROES, buf + 8, 512, 512, 0),
                         ST_OK);
        assert_string_equal(r.trace, "012");
        rig_expect(&r, 0, 0, 0, A, 0);
        rig_close(&r);
    }
}

static void
first_error_stops_a_write_through(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(&r, 4,
                 (struct tl_opts[]){kind(k, 0, 0), kind(k, 0, 0), kind(k, 0, 0),
                                    kind(k, 8, ss)},
                 through2, false);
        r.l[1]->fail_op = ST_OP_WRITE;
        r.l[1]->fail = ST_NO_SPACE;
        assert_int_equal(rig_write(&r, 0, 2, A), ST_NO_SPACE);
        assert_string_equal(r.trace, "01");
        assert_int_equal(r.l[0]->data[0], A);
        assert_int_equal(r.l[2]->count[ST_OP_WRITE], 0);
        rig_close(&r);
    }
}

static void
write_past_a_shorter_target_stays_above_it(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(&r, 2, (struct tl_opts[]){kind(k, 8, ss), kind(k, 4, ss)},
                 (struct st_layer[]){{.write_through = true}, {0}}, false);
        assert_int_equal(rig_write(&r, 2, 4, A), ST_OK);
        assert_int_equal(rig_write(&r, 6, 2, B), ST_OK);
        rig_expect(&r, 0, 0, 0, A, A, A, A, B, B);
        assert_int_equal(r.l[1]->bytes[ST_OP_WRITE], 2 * ss);
        rig_close(&r);
    }
}

static void
lower_layers_end_is_no_range_error(void **state)
{
    char buf[1032];
    struct rig r;

    (void)state;
    rig_make(&r, 2,
             (struct tl_opts[]){{.lookup = true}, {.disk = true, .sectors = 8}},
             NULL, false);
    tl_set(r.l[0], 0, 1, ST_DATA, A);
    r.l[1]->fail_op = ST_OP_READ;
    r.l[1]->fail = ST_RANGE;
    assert_int_equal(rig_run(&r, ST_OP_READ, buf + 8, 0, 1024, 0), ST_IO);
    rig_close(&r);
}

static void
shutdown_is_performed_if_every_written_layer_does(void **state)
{
    (void)state;
    for (unsigned know = 1; know <= 2; know++) {
        struct st_layer layers[3] = {{.write_through = true}, {0}, {0}};
        struct tl *t[3];
        char buf[16];
        struct rig r;

        rig_open(&r, 1);
        for (unsigned i = 0; i < 3; i++) {
            t[i] = tl_new(r.loop, (struct tl_opts){.sectors = 8});
            layers[i].node = &t[i]->base;
            if (i < know)
                t[i]->base.props.performs |= ST_BIT(ST_OP_SHUTDOWN);
        }
        assert_int_equal(
            st_layered_create(r.loop, layers, 3, false, "x", &r.node, &r.err),
            0);
        assert_int_equal(st_chan_open(r.node, r.loop, &r.chan), 0);
        assert_int_equal(rig_run(&r, ST_OP_SHUTDOWN, buf + 8, 0, 0, 0),
                         know == 2 ? ST_OK : ST_UNSUPPORTED);
        assert_int_equal(t[0]->count[ST_OP_SHUTDOWN], know == 2);
        assert_int_equal(t[1]->count[ST_OP_SHUTDOWN], know == 2);
        assert_int_equal(t[2]->count[ST_OP_SHUTDOWN], 0);
        rig_close(&r);
    }
}

static void
unmap(struct rig *r, uint64_t sector, uint64_t n)
{
    uint32_t ss = r->node->props.sector_size;
    char buf[16];

    assert_int_equal(rig_run(r, ST_OP_UNMAP, buf + 8, sector * ss, n * ss, 0),
                     ST_OK);
}

static void
unmap_tells_a_layer_whether_zeroes_lie_below(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct tl_opts o[] = {kind(k, 8, ss), kind(k, 4, ss)};
        struct rig r;

        o[0].unmap = ST_UNMAP_ZEROES;
        rig_make(&r, 2, o, NULL, false);
        tl_set(r.l[1], 0, 4, ST_DATA, B);
        tl_set(r.l[0], 0, 8, ST_DATA, A);
        unmap(&r, 0, 1); /* data below: zeroes are recorded */
        assert_int_equal(r.l[0]->flags & ST_REQ_NEXT_ZERO, 0);
        assert_int_equal(r.l[0]->state[0], ST_ZERO);
        unmap(&r, 6, 1); /* nothing below: presence is dropped */
        assert_int_equal(r.l[0]->state[6], ST_ABSENT);
        unmap(&r, 2, 3); /* across the end: split there */
        assert_int_equal(r.l[0]->count[ST_OP_UNMAP], 4);
        assert_int_equal(r.l[0]->state[3], ST_ZERO);
        assert_int_equal(r.l[0]->state[4], ST_ABSENT);
        rig_expect(&r, 0, 0, A, 0, 0, 0, A, 0, A);
        assert_int_equal(r.l[1]->count[ST_OP_UNMAP], 0);
        rig_close(&r);
    }
}

/* Spec 9.4, with a RAM layer of the reference's kind: it leaves data where it
 * cannot record zeroes. */
static void
unspecified_unmap_may_leave_data(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct tl_opts o[] = {kind(k, 0, 0),
                              {.disk = true, .sectors = 8, .sector = ss}};
        struct rig r;

        o[0].unmap = ST_UNMAP_UNSPECIFIED;
        rig_make(&r, 2, o, NULL, false);
        tl_set(r.l[0], 0, 8, ST_DATA, A);
        unmap(&r, 0, 7);
        rig_expect(&r, 0, A, A, A, A, A, A, A, A);
        rig_close(&r);
    }
}

static void
unmap_goes_through_every_written_layer(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct tl_opts o[] = {kind(k, 0, 0), kind(k, 0, 0), kind(k, 8, ss),
                              kind(k, 4, ss)};
        struct rig r;

        for (unsigned i = 0; i < 3; i++)
            o[i].unmap = ST_UNMAP_ZEROES;
        rig_make(&r, 4, o, through2, false);
        assert_int_equal(rig_write(&r, 0, 8, A), ST_OK);
        memset(r.trace, 0, sizeof(r.trace));
        unmap(&r, 2, 4);
        /* Only the last written one has an end below it. */
        assert_string_equal(r.trace, "0122");
        assert_int_equal(r.l[0]->state[5], ST_ZERO);
        assert_int_equal(r.l[1]->state[5], ST_ZERO);
        assert_int_equal(r.l[2]->state[3], ST_ZERO);
        assert_int_equal(r.l[2]->state[5], ST_ABSENT);
        rig_expect(&r, 0, A, A, 0, 0, 0, 0, A, A);
        rig_close(&r);
    }
}

static void
last_layer_may_always_drop(void **state)
{
    struct rig r;

    (void)state;
    rig_make(&r, 1,
             (struct tl_opts[]){{.sectors = 8, .unmap = ST_UNMAP_ZEROES}}, NULL,
             false);
    tl_set(r.l[0], 0, 8, ST_DATA, A);
    unmap(&r, 0, 7); /* all but the last sector */
    assert_int_equal(r.l[0]->state[6], ST_ABSENT);
    rig_expect(&r, 0, 0, 0, 0, 0, 0, 0, 0, A);
    rig_close(&r);
}

/* ---- Block status ---- */

static void
expect_status(struct rig *r, uint64_t sector, uint64_t n, uint64_t len,
              unsigned flags)
{
    uint32_t ss = r->node->props.sector_size;
    char buf[16];
    struct rig_req *q = rig_start(r->node, r->chan, ST_OP_BLOCK_STATUS, buf + 8,
                                  sector * ss, n * ss, 0);

    assert_true(st_loop_wait(r->loop, &q->done));
    assert_int_equal(q->req->extent.len, len * ss);
    assert_int_equal(q->req->extent.flags, flags);
    assert_int_equal(rig_end(r->loop, q), ST_OK);
}

static void
block_status_is_that_of_the_topmost_holder(void **state)
{
    enum { NOTHING = ST_EXTENT_HOLE | ST_EXTENT_ZERO };
    struct rig r;

    (void)state;
    rig_make(&r, 3,
             (struct tl_opts[]){{.lookup = true, .sectors = 12},
                                {.lookup = true, .sectors = 8},
                                {.disk = true, .sectors = 6}},
             NULL, false);
    tl_set(r.l[0], 2, 1, ST_DATA, A);
    tl_set(r.l[0], 3, 2, ST_ZERO, 0);
    tl_set(r.l[1], 0, 1, ST_DATA, B);
    expect_status(&r, 2, 10, 1, 0);
    expect_status(&r, 3, 9, 2, NOTHING);
    expect_status(&r, 0, 12, 1, 0);
    expect_status(&r, 1, 11, 1, ST_EXTENT_ZERO); /* the disk's own answer */
    expect_status(&r, 5, 7, 1, ST_EXTENT_ZERO);  /* up to the disk's end */
    expect_status(&r, 6, 6, 2, NOTHING);         /* up to layer 1's end */
    expect_status(&r, 9, 2, 2, NOTHING);
    rig_close(&r);

    rig_make(&r, 2, (struct tl_opts[]){{.sectors = 8}, {.sectors = 4}}, NULL,
             false);
    expect_status(&r, 0, 8, 8, 0); /* cannot say: data */
    rig_close(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_through_goes_down_in_order),
        cmocka_unit_test(first_error_stops_a_write_through),
        cmocka_unit_test(write_past_a_shorter_target_stays_above_it),
        cmocka_unit_test(lower_layers_end_is_no_range_error),
        cmocka_unit_test(shutdown_is_performed_if_every_written_layer_does),
        cmocka_unit_test(unmap_tells_a_layer_whether_zeroes_lie_below),
        cmocka_unit_test(unspecified_unmap_may_leave_data),
        cmocka_unit_test(unmap_goes_through_every_written_layer),
        cmocka_unit_test(last_layer_may_always_drop),
        cmocka_unit_test(block_status_is_that_of_the_topmost_holder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
