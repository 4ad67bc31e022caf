/* SPDX-License-Identifier: MIT
 *
 * Layered disks: which layer a read comes from, what read caches take up, what
 * sizes do to it (spec: disk 4.3, 4.4, 9.4).
 */
#include "test_layer.h"

static void
diff_hides_what_it_holds(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(
            &r, 2,
            (struct tl_opts[]){
                kind(k, 0, 0),
                {.disk = true, .read_only = true, .sectors = 8, .sector = ss}},
            NULL, false);
        tl_set(r.l[1], 0, 8, ST_DATA, B);
        rig_expect(&r, 0, B, B, B, B, B, B, B, B);
        assert_int_equal(rig_write(&r, 2, 1, A), ST_OK);
        assert_int_equal(rig_write(&r, 5, 2, C), ST_OK);
        rig_expect(&r, 0, B, B, A, B, B, C, C, B);
        rig_expect(&r, 2, A);
        rig_expect(&r, 7, B);
        assert_int_equal(r.l[1]->count[ST_OP_WRITE], 0);
        rig_close(&r);
    }
}

static void
each_sector_comes_from_the_topmost_layer_that_has_it(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(
            &r, 5,
            (struct tl_opts[]){kind(k, 8, ss), kind(k, 8, ss), kind(k, 8, ss),
                               kind((k + 1) % KINDS, 8, ss), kind(k, 8, ss)},
            NULL, false);
        for (unsigned i = 0; i < 5; i++)
            tl_set(r.l[i], i, 5 - i, ST_DATA, (uint8_t)(0x10 + i));
        tl_set(r.l[1], 5, 1, ST_ZERO, 0);
        tl_set(r.l[4], 5, 2, ST_DATA, D);
        rig_expect(&r, 0, 0x10, 0x10, 0x10, 0x10, 0x10, 0, D, 0);
        tl_set(r.l[0], 1, 4, ST_ABSENT, 0);
        rig_expect(&r, 0, 0x10, 0x11, 0x11, 0x11, 0x11, 0, D, 0);
        tl_set(r.l[1], 1, 3, ST_ABSENT, 0);
        rig_expect(&r, 0, 0x10, 0, 0x12, 0x12, 0x11, 0, D, 0);
        tl_set(r.l[2], 2, 2, ST_ABSENT, 0);
        rig_expect(&r, 1, 0, 0, 0x13);
        rig_close(&r);
    }
}

static void
plain_disk_hides_what_is_below(void **state)
{
    struct rig r;

    (void)state;
    rig_make(&r, 3,
             (struct tl_opts[]){
                 {.sectors = 4}, {.disk = true, .sectors = 4}, {.sectors = 4}},
             NULL, false);
    tl_set(r.l[2], 0, 4, ST_DATA, C);
    tl_set(r.l[0], 1, 1, ST_DATA, A);
    rig_expect(&r, 0, 0, A, 0, 0);
    assert_int_equal(r.l[2]->count[ST_OP_READ], 0);
    rig_close(&r);
}

/* A whole request that one layer has goes there as it is. */
static void
request_of_one_layer_is_passed_on_itself(void **state)
{
    struct rig_req *q;
    struct st_req *passed;
    char buf[2056];
    struct rig r;

    (void)state;
    rig_make(&r, 2,
             (struct tl_opts[]){{.lookup = true, .unmap = ST_UNMAP_ZEROES},
                                {.disk = true, .sectors = 8}},
             NULL, false);
    for (unsigned op = ST_OP_READ; op <= ST_OP_WRITE_ZEROES; op++) {
        if (op == ST_OP_UNMAP)
            continue;
        q = rig_start(r.node, r.chan, op, buf + 8, 0,
                      op == ST_OP_FLUSH ? 0 : 2048, 0);
        passed = q->req;
        assert_int_equal(rig_end(r.loop, q), ST_OK);
        assert_ptr_equal(r.l[op == ST_OP_READ]->req, passed);
    }
    q = rig_start(r.node, r.chan, ST_OP_READ, buf + 8, 2048, 2048, 0);
    passed = q->req;
    assert_int_equal(rig_end(r.loop, q), ST_OK);
    assert_ptr_equal(r.l[1]->req, passed);
    /* All zero in layer 0: no layer is asked to read. */
    rig_expect(&r, 0, 0, 0, 0, 0);
    assert_int_equal(r.l[0]->count[ST_OP_READ], 0);
    rig_close(&r);
}

static void
out_of_range_is_refused_and_nothing_done(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        static const enum st_op ops[] = {ST_OP_READ, ST_OP_WRITE, ST_OP_UNMAP,
                                         ST_OP_WRITE_ZEROES,
                                         ST_OP_BLOCK_STATUS};
        struct tl_opts o[] = {kind(k, 4, ss), kind(k, 9, ss)};
        char *buf = malloc(8 * ss);
        struct rig r;

        o[0].unmap = ST_UNMAP_ZEROES;
        rig_make(&r, 2, o, NULL, false);
        for (unsigned i = 0; i < 5; i++) {
            assert_int_equal(rig_run(&r, ops[i], buf + 8, 4 * ss, ss, 0),
                             ST_RANGE);
            assert_int_equal(rig_run(&r, ops[i], buf + 8, 3 * ss, 2 * ss, 0),
                             ST_RANGE);
            assert_int_equal(
                rig_run(&r, ops[i], buf + 8, ST_OFFSET_MAX - 2 * ss + 1, ss, 0),
                ST_RANGE);
            assert_int_equal(rig_run(&r, ops[i], buf + 8, 5 * ss, 0, 0),
                             ST_RANGE);
            assert_int_equal(rig_run(&r, ops[i], buf + 8, 4 * ss, 0, 0), ST_OK);
            assert_int_equal(rig_run(&r, ops[i], buf + 8, 3 * ss, ss, 0),
                             ST_OK);
        }
        assert_int_equal(rig_run(&r, ST_OP_EJECT, buf + 8, 0, 0, 0),
                         ST_UNSUPPORTED);
        rig_expect(&r, 3, 0);
        free(buf);
        rig_close(&r);
    }
}

/* ---- Smaller lower layers ---- */

/* The reference's crash: a run that starts beyond the lower layer. */
static void
read_beyond_a_smaller_lower_layer_is_zero(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(&r, 3,
                 (struct tl_opts[]){kind(k, 8, ss),
                                    kind(k, 4, ss),
                                    {.disk = true, .sectors = 6, .sector = ss}},
                 NULL, false);
        tl_set(r.l[2], 0, 6, ST_DATA, C);
        tl_set(r.l[1], 1, 1, ST_DATA, B);
        assert_int_equal(st_node_size(r.node), 8 * ss);
        rig_expect(&r, 6, 0, 0); /* strictly beyond every lower layer */
        rig_expect(&r, 4, 0, 0); /* within layer 2, hidden by layer 1's end */
        rig_expect(&r, 0, C, B, C, C, 0, 0, 0, 0);
        tl_set(r.l[0], 5, 2, ST_DATA, A);
        rig_expect(&r, 3, C, 0, A, A, 0);
        rig_close(&r);
    }
}

static void
what_a_shrink_cut_off_never_comes_back(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(&r, 3,
                 (struct tl_opts[]){kind(k, 8, ss),
                                    kind(k, 8, ss),
                                    {.disk = true, .sectors = 8, .sector = ss}},
                 NULL, false);
        tl_set(r.l[2], 0, 8, ST_DATA, C);
        tl_set(r.l[1], 5, 1, ST_DATA, B);
        assert_int_equal(rig_write(&r, 6, 1, A), ST_OK);
        rig_expect(&r, 0, C, C, C, C, C, B, A, C);
        assert_int_equal(st_node_resize(r.node, 3 * ss, &r.err), 0);
        assert_int_equal(st_node_size(r.node), 3 * ss);
        assert_int_equal(st_node_resize(r.node, 10 * ss, &r.err), 0);
        assert_int_equal(st_node_size(r.node), 10 * ss);
        rig_expect(&r, 0, C, C, C, 0, 0, 0, 0, 0, 0, 0);
        assert_int_equal(rig_write(&r, 9, 1, D), ST_OK);
        rig_expect(&r, 8, 0, D);
        rig_close(&r);
    }
}

/* The same for layers that change by themselves, and only then tell. */
static void
sizes_follow_the_layers_events(void **state)
{
    struct rig r;

    (void)state;
    rig_make(&r, 3,
             (struct tl_opts[]){{.sectors = 8}, {.sectors = 8}, {.sectors = 8}},
             NULL, false);
    tl_set(r.l[2], 0, 8, ST_DATA, C);
    assert_int_equal(st_node_resize(&r.l[1]->base, 5 * 512, &r.err), 0);
    st_node_changed(&r.l[1]->base, ST_EVENT_RESIZE);
    assert_int_equal(st_node_size(r.node), 8 * 512);
    assert_int_equal(st_node_resize(&r.l[1]->base, 8 * 512, &r.err), 0);
    st_node_changed(&r.l[1]->base, ST_EVENT_RESIZE);
    rig_expect(&r, 0, C, C, C, C, C, 0, 0, 0);
    assert_int_equal(st_node_resize(&r.l[0]->base, 2 * 512, &r.err), 0);
    /* The event is still under way, the range check knows already. */
    assert_int_equal(rig_write(&r, 2, 1, A), ST_RANGE);
    {
        char buf[520];

        assert_int_equal(rig_run(&r, ST_OP_READ, buf + 8, 1024, 512, 0),
                         ST_RANGE);
    }
    st_node_changed(&r.l[0]->base, ST_EVENT_RESIZE);
    assert_int_equal(st_node_size(r.node), 2 * 512);
    rig_close(&r);
}

static void
hear(void *arg, unsigned events)
{
    *(unsigned *)arg |= events;
}

static void
only_what_changes_the_disk_is_told_upward(void **state)
{
    struct rig r;
    unsigned events = 0;

    (void)state;
    rig_make(&r, 2, (struct tl_opts[]){{.sectors = 8}, {.sectors = 8}}, NULL,
             false);
    r.node->event = hear;
    r.node->event_arg = &events;
    assert_int_equal(st_node_resize(&r.l[1]->base, 4 * 512, &r.err), 0);
    st_node_changed(&r.l[1]->base, ST_EVENT_RESIZE);
    assert_int_equal(events, 0);
    st_node_changed(&r.l[1]->base, ST_EVENT_MEDIA);
    assert_int_equal(events, ST_EVENT_MEDIA);
    events = 0;
    assert_int_equal(st_node_resize(&r.l[0]->base, 4 * 512, &r.err), 0);
    st_node_changed(&r.l[0]->base, ST_EVENT_RESIZE);
    assert_int_equal(events, ST_EVENT_RESIZE);
    rig_close(&r);
}

/* ---- Read caches ---- */

struct finder {
    struct st_inspect v;
    const char *name;
    uint64_t value;
};

static void
found_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct finder *f = st_container(v, struct finder, v);

    if (strcmp(name, f->name) == 0)
        f->value = value;
}

static uint64_t
counter(struct rig *r, const char *name)
{
    struct finder f = {{.u64 = found_u64}, name, UINT64_MAX};

    r->node->ops->inspect(r->node, &f.v);
    return f.value;
}

static void
inspect_tells_the_layers_apart(void **state)
{
    static const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"layer_count", 3},
        {"layers_written", 2},
        {"layers/0/read_cache", 1},
        {"layers/0/write_through", 1},
        {"layers/0/visible_sector_count", 16},
        {"layers/1/read_cache", 0},
        {"layers/1/write_through", 0},
        {"layers/1/visible_sector_count", 8},
        {"layers/2/visible_sector_count", 8},
    };
    struct rig r;

    (void)state;
    rig_make(
        &r, 3,
        (struct tl_opts[]){kind(0, 16, 512), {.sectors = 8}, {.sectors = 16}},
        (struct st_layer[]){
            {.read_cache = true, .write_through = true}, {0}, {0}},
        false);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (counter(&r, rows[i].name) != rows[i].value)
            fail_msg("%s is %ju", rows[i].name,
                     (uintmax_t)counter(&r, rows[i].name));
    rig_close(&r);
}

static const struct st_layer cache_top[] = {{.read_cache = true}, {0}};

static void
cached_reads_populate_once(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(
            &r, 2,
            (struct tl_opts[]){kind(k, 0, 0),
                               {.disk = true, .sectors = 64, .sector = ss}},
            cache_top, true);
        tl_set(r.l[1], 0, 64, ST_DATA, B);
        tl_set(r.l[1], 3, 1, ST_DATA, C);
        rig_expect(&r, 0, B, B, B, C, B);
        assert_int_equal(r.l[0]->populated, 5);
        rig_expect(&r, 0, B, B, B, C, B);
        assert_int_equal(r.l[0]->populated, 5);
        assert_int_equal(r.l[1]->bytes[ST_OP_READ], 5 * ss);
        rig_expect(&r, 1, B, B, C, B, B, B, B, B, B, B, B, B, B, B, B);
        assert_int_equal(r.l[0]->populated, 16);
        assert_int_equal(r.l[1]->bytes[ST_OP_READ], 16 * ss);
        assert_int_equal(counter(&r, "cache_populated_bytes"), 16 * ss);
        assert_int_equal(counter(&r, "cache_miss_bytes"), 16 * ss);
        assert_int_equal(counter(&r, "cache_hit_bytes"), (5 + 4) * ss);
        assert_int_equal(counter(&r, "cache_populate_errors"), 0);
        rig_close(&r);
    }
}

/* The reference's corruption: what a cache below the top has after a miss. */
static void
cache_below_the_top_loses_no_run(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(
            &r, 3,
            (struct tl_opts[]){kind(k, 0, 0),
                               kind((k + 1) % KINDS, 0, 0),
                               {.disk = true, .sectors = 16, .sector = ss}},
            (struct st_layer[]){{0}, {.read_cache = true}, {0}}, false);
        tl_set(r.l[2], 0, 16, ST_DATA, C);
        tl_set(r.l[1], 0, 1, ST_DATA, B);
        tl_set(r.l[1], 3, 2, ST_DATA, B);
        tl_set(r.l[0], 2, 1, ST_DATA, A);
        rig_expect(&r, 0, B, C, A, B, B);
        assert_int_equal(r.l[1]->populated, 1);
        /* A partly present run after the miss, and present ones around. */
        tl_set(r.l[1], 7, 1, ST_DATA, B);
        tl_set(r.l[1], 9, 2, ST_DATA, D);
        tl_set(r.l[0], 8, 1, ST_DATA, A);
        rig_expect(&r, 5, C, C, B, A, D, D, C, C);
        assert_int_equal(r.l[1]->populated, 5);
        rig_expect(&r, 0, B, C, A, B, B, C, C, B, A, D, D, C, C, C, C, C);
        assert_int_equal(r.l[1]->state[2], ST_ABSENT); /* the top has it */
        rig_close(&r);
    }
}

static void
two_caches_take_up_what_each_missed(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(&r, 3,
                 (struct tl_opts[]){kind(k, 0, 0),
                                    kind((k + 2) % KINDS, 4, ss),
                                    {.disk = true, .sectors = 8, .sector = ss}},
                 (struct st_layer[]){
                     {.read_cache = true}, {.read_cache = true}, {0}},
                 true);
        tl_set(r.l[2], 0, 8, ST_DATA, C);
        tl_set(r.l[0], 0, 1, ST_DATA, A);
        tl_set(r.l[1], 1, 1, ST_DATA, B);
        rig_expect(&r, 0, A, B, C, C);
        assert_int_equal(r.l[0]->populated, 3);
        assert_int_equal(r.l[1]->populated, 2);
        assert_int_equal(r.l[0]->data[ss], B);
        rig_close(&r);
    }
}

/* A read misses, the base answers with old data; before the cache takes it up
 * the guest writes. */
static void
guests_write_wins_over_a_population(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        char *got = malloc(ss + 8), *put = malloc(ss + 8);
        struct rig_req *q[2];
        struct rig r;

        rig_make(&r, 2,
                 (struct tl_opts[]){kind(k, 4, ss),
                                    {.disk = true, .sectors = 4, .sector = ss}},
                 (struct st_layer[]){
                     {.read_cache = true, .write_through = true}, {0}},
                 false);
        tl_set(r.l[1], 0, 4, ST_DATA, B);
        memset(put, A, ss + 8);
        q[0] = rig_start(r.node, r.chan, ST_OP_READ, got + 8, 0, ss, 0);
        while (r.l[1]->count[ST_OP_READ] == 0)
            assert_true(st_domain_step(r.domain));
        /* Executed here, ahead of the population. */
        tl_set(r.l[0], 0, 1, ST_DATA, A);
        tl_set(r.l[1], 0, 1, ST_DATA, A);
        q[1] = rig_start(r.node, r.chan, ST_OP_WRITE, put + 8, 0, ss, 0);
        assert_int_equal(rig_end(r.loop, q[0]), ST_OK);
        assert_int_equal((uint8_t)got[8], B);
        assert_int_equal(rig_end(r.loop, q[1]), ST_OK);
        assert_int_equal(r.l[0]->populated, 0);
        rig_expect(&r, 0, A, B);
        free(got);
        free(put);
        rig_close(&r);
    }
}

static void
failed_population_is_counted_and_ignored(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig r;

        rig_make(&r, 2,
                 (struct tl_opts[]){kind(k, 0, 0),
                                    {.disk = true, .sectors = 8, .sector = ss}},
                 cache_top, true);
        tl_set(r.l[1], 0, 8, ST_DATA, B);
        r.l[0]->fail_op = ST_OP_WRITE;
        r.l[0]->fail = ST_NO_SPACE;
        rig_expect(&r, 0, B, B, B);
        assert_int_equal(counter(&r, "cache_populate_errors"), 1);
        assert_int_equal(r.l[0]->populated, 0);
        assert_string_equal(r.log, "test: layer 0: cannot populate: no space");
        rig_expect(&r, 0, B, B, B);
        assert_int_equal(r.l[0]->populated, 3);
        rig_close(&r);
    }
}

static void
failed_read_populates_nothing(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        char *buf = malloc(8 * ss);
        struct rig r;

        rig_make(&r, 2,
                 (struct tl_opts[]){
                     kind(k, 0, 0),
                     {.disk = true, .sectors = 8, .sector = ss, .async = true}},
                 cache_top, true);
        tl_set(r.l[1], 0, 8, ST_DATA, B);
        tl_set(r.l[0], 2, 1, ST_DATA, A); /* two runs in layer 1 */
        r.l[1]->fail_op = ST_OP_READ;
        r.l[1]->fail = ST_MEDIUM_READ;
        assert_int_equal(rig_run(&r, ST_OP_READ, buf + 8, 0, 5 * ss, 0),
                         ST_MEDIUM_READ);
        assert_int_equal(r.l[1]->in_flight, 0); /* all awaited */
        assert_int_equal(r.l[0]->populated, 0);
        rig_expect(&r, 0, B, B, A, B, B);
        free(buf);
        rig_close(&r);
    }
}

/* ---- Long and many requests ---- */

static void
runs_of_a_layer_are_read_in_parallel(void **state)
{
    struct rig r;

    (void)state;
    rig_make(&r, 2,
             (struct tl_opts[]){{.lookup = true},
                                {.disk = true, .sectors = 16, .async = true}},
             NULL, false);
    tl_set(r.l[1], 0, 16, ST_DATA, B);
    for (unsigned i = 1; i < 16; i += 2)
        tl_set(r.l[0], i, 1, ST_DATA, A);
    rig_expect(&r, 0, B, A, B, A, B, A, B, A, B, A, B, A, B, A, B, A);
    assert_int_equal(r.l[1]->count[ST_OP_READ], 8);
    assert_in_range(r.l[1]->most, 2, 8);
    rig_close(&r);
}

static void
long_requests_go_slice_by_slice(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        for (unsigned cache = 0; cache < 2; cache++) {
            uint64_t n = 5000;
            uint8_t *want = malloc(n);
            struct rig r;

            rig_make(&r, 2,
                     (struct tl_opts[]){
                         kind(k, 0, 0),
                         {.disk = true, .sectors = n + 1, .sector = ss}},
                     (struct st_layer[]){{.read_cache = cache}, {0}}, cache);
            for (uint64_t i = 0; i < n; i++) {
                want[i] = (uint8_t)(i * 7 + i / 256);
                tl_set(r.l[i % 11 == 0 ? 0 : 1], i + 1, 1, ST_DATA, want[i]);
            }
            rig_expect_at(&r, 1, want, n, __LINE__);
            rig_expect_at(&r, 1, want, n, __LINE__);
            assert_int_equal(r.l[0]->populated, cache ? n - (n + 10) / 11 : 0);
            free(want);
            rig_close(&r);
        }
    }
}

enum { MANY = 100 };

static void
more_requests_than_splits_wait_their_turn(void **state)
{
    (void)state;
    for_kinds(k, ss)
    {
        struct rig_req *q[MANY];
        char *buf = malloc(MANY * 4 * ss + 8);
        struct rig r;

        rig_make(
            &r, 2,
            (struct tl_opts[]){kind(k, 0, 0),
                               {.disk = true, .sectors = 400, .sector = ss}},
            cache_top, true);
        for (unsigned i = 0; i < 400; i++)
            tl_set(r.l[1], i, 1, ST_DATA, (uint8_t)i);
        for (unsigned i = 0; i < MANY; i++)
            q[i] = rig_start(r.node, r.chan, ST_OP_READ, buf + 8 + i * 4 * ss,
                             i * 4 * ss, 4 * ss, 0);
        for (unsigned i = 0; i < MANY; i++)
            assert_int_equal(rig_end(r.loop, q[i]), ST_OK);
        for (unsigned i = 0; i < 400 * ss; i++)
            assert_int_equal((uint8_t)buf[8 + i], (uint8_t)(i / ss));
        assert_int_equal(r.l[0]->populated, 400);
        free(buf);
        rig_close(&r);
    }
}

/* Requests that cost the same complete in the order of their coming, also those
 * that come while splits become free. */
static void
nobody_overtakes_who_waits(void **state)
{
    struct rig_req *q[MANY];
    char *buf = malloc(MANY * 512 + 8);
    unsigned started = 0, done = 0;
    struct rig r;

    (void)state;
    rig_make(&r, 2, (struct tl_opts[]){{0}, {.disk = true, .sectors = MANY}},
             NULL, false);
    while (done < MANY) {
        unsigned burst = started ? 1 : 40;

        for (; burst && started < MANY; burst--, started++)
            q[started] =
                rig_start(r.node, r.chan, ST_OP_READ, buf + 8 + started * 512,
                          started * 512, 512, 0);
        assert_true(st_domain_step(r.domain));
        while (done < started && q[done]->done)
            done++;
        for (unsigned i = done; i < started; i++)
            assert_false(q[i]->done);
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(rig_end(r.loop, q[i]), ST_OK);
    free(buf);
    rig_close(&r);
}

static void
cancel_reaches_waiting_and_running_requests(void **state)
{
    struct rig_req *q[MANY];
    char *buf = malloc(MANY * 512 + 8);
    unsigned aborted = 0;
    struct rig r;

    (void)state;
    rig_make(&r, 2, (struct tl_opts[]){{0}, {.disk = true, .sectors = 400}},
             NULL, false);
    r.l[0]->hold = true;
    for (unsigned i = 0; i < MANY; i++)
        q[i] = rig_start(r.node, r.chan, ST_OP_READ, buf + 8 + i * 512, i * 512,
                         512, 0);
    while (st_domain_step(r.domain))
        ;
    assert_in_range(r.l[0]->in_flight, 1, MANY - 1);
    for (unsigned i = 0; i < MANY; i++) {
        st_cancel(q[i]->req);
        st_cancel(q[i]->req);
    }
    for (unsigned i = 0; i < MANY; i++)
        aborted += rig_end(r.loop, q[i]) == ST_ABORTED;
    assert_int_equal(aborted, MANY);
    assert_int_equal(r.l[0]->in_flight, 0);
    free(buf);
    rig_close(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(diff_hides_what_it_holds),
        cmocka_unit_test(each_sector_comes_from_the_topmost_layer_that_has_it),
        cmocka_unit_test(plain_disk_hides_what_is_below),
        cmocka_unit_test(request_of_one_layer_is_passed_on_itself),
        cmocka_unit_test(out_of_range_is_refused_and_nothing_done),
        cmocka_unit_test(read_beyond_a_smaller_lower_layer_is_zero),
        cmocka_unit_test(what_a_shrink_cut_off_never_comes_back),
        cmocka_unit_test(sizes_follow_the_layers_events),
        cmocka_unit_test(only_what_changes_the_disk_is_told_upward),
        cmocka_unit_test(inspect_tells_the_layers_apart),
        cmocka_unit_test(cached_reads_populate_once),
        cmocka_unit_test(cache_below_the_top_loses_no_run),
        cmocka_unit_test(two_caches_take_up_what_each_missed),
        cmocka_unit_test(guests_write_wins_over_a_population),
        cmocka_unit_test(failed_population_is_counted_and_ignored),
        cmocka_unit_test(failed_read_populates_nothing),
        cmocka_unit_test(runs_of_a_layer_are_read_in_parallel),
        cmocka_unit_test(long_requests_go_slice_by_slice),
        cmocka_unit_test(more_requests_than_splits_wait_their_turn),
        cmocka_unit_test(nobody_overtakes_who_waits),
        cmocka_unit_test(cancel_reaches_waiting_and_running_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
