/* SPDX-License-Identifier: MIT
 *
 * The RAM layer: what each operation makes of each state, against a model,
 * from many loops, in slices, at the limits; then the conformance kit.
 */
#include "test_ram.h"

#include <errno.h>

#include "kit.h"

/* ---- Every state, every operation ------------------------------------------
 */

enum { SEEN = 0x5a, OLD = 0x11, NEW = 0x22 };

/* Put sector SECTOR of the rig into STATE (data: bytes of OLD). */
static void
make_state(struct rig *r, uint64_t at, uint32_t n, enum st_presence state)
{
    char *buf = malloc(n);

    memset(buf, OLD, n);
    if (state == ST_DATA)
        assert_int_equal(rig_write(r, at, n, buf), ST_OK);
    else
        assert_int_equal(rig_op(r, ST_OP_UNMAP,
                                state == ST_ABSENT ? ST_REQ_NEXT_ZERO : 0, at,
                                n, NULL),
                         ST_OK);
    free(buf);
}

/* The sector is STATE by lookup, marks and block_status, and reads as BYTE. */
static void
expect_state(struct rig *r, uint64_t at, uint32_t n, enum st_presence state,
             int byte)
{
    char *got = malloc(n), *want = malloc(n);
    uint64_t run, marks = 0;
    struct shot s;

    assert_int_equal(r->node->ops->lookup(r->chan, at, n, &run), state);
    assert_int_equal(run, n);

    memset(got, SEEN, n);
    memset(want, state == ST_ABSENT ? SEEN : byte, n);
    shot_fill(&s, ST_OP_READ, ST_REQ_MARK, at, n, got);
    s.req->marks = &marks;
    s.req->mark_first = 7;
    st_submit(r->chan, s.req);
    assert_true(st_loop_wait(r->loop, &s.done));
    assert_int_equal(marks, state == ST_ABSENT ? 0 : 1 << 7);
    assert_memory_equal(got, want, n);

    memset(want, state == ST_DATA ? byte : 0, n);
    assert_int_equal(rig_read(r, at, n, got), ST_OK);
    assert_memory_equal(got, want, n);

    shot_fill(&s, ST_OP_BLOCK_STATUS, 0, at, n, NULL);
    st_submit(r->chan, s.req);
    assert_true(st_loop_wait(r->loop, &s.done));
    assert_int_equal(s.req->extent.len, n);
    assert_int_equal(s.req->extent.flags,
                     state == ST_DATA ? 0 : ST_EXTENT_HOLE | ST_EXTENT_ZERO);
    free(got);
    free(want);
}

static void
operations_move_a_sector_between_three_states(uint32_t sector)
{
    static const struct {
        enum st_op op;
        unsigned flags;
        int byte;                  /* of a write */
        enum st_presence after[3]; /* of absent, data, zero */
    } row[] = {
        {ST_OP_WRITE, 0, NEW, {ST_DATA, ST_DATA, ST_DATA}},
        {ST_OP_WRITE, ST_REQ_FUA, NEW, {ST_DATA, ST_DATA, ST_DATA}},
        {ST_OP_WRITE, 0, 0, {ST_ZERO, ST_ZERO, ST_ZERO}},
        {ST_OP_WRITE, ST_REQ_NO_OVERWRITE, NEW, {ST_DATA, ST_DATA, ST_ZERO}},
        {ST_OP_WRITE, ST_REQ_NO_OVERWRITE, 0, {ST_ZERO, ST_DATA, ST_ZERO}},
        {ST_OP_WRITE_ZEROES, 0, 0, {ST_ZERO, ST_ZERO, ST_ZERO}},
        {ST_OP_WRITE_ZEROES, ST_REQ_MAY_UNMAP, 0, {ST_ZERO, ST_ZERO, ST_ZERO}},
        {ST_OP_UNMAP, 0, 0, {ST_ZERO, ST_ZERO, ST_ZERO}},
        {ST_OP_UNMAP, ST_REQ_NEXT_ZERO, 0, {ST_ABSENT, ST_ABSENT, ST_ABSENT}},
    };
    struct rig r;
    char *buf = malloc(sector);

    rig_open(&r, MIB(64), sector, true);
    for (unsigned i = 0; i < sizeof(row) / sizeof(*row); i++) {
        for (enum st_presence s = ST_ABSENT; s <= ST_ZERO; s++) {
            /* The 3rd of 5 neighbours, in another region for each case. */
            uint64_t at = MIB(4) * (1 + i % 3) - 2 * sector;
            bool stays = row[i].flags & ST_REQ_NO_OVERWRITE && s == ST_DATA;

            for (unsigned j = 0; j < 5; j++)
                make_state(&r, at + j * sector, sector, (s + 1 + j) % 3);
            memset(buf, row[i].byte, sector);
            assert_int_equal(rig_op(&r, row[i].op, row[i].flags,
                                    at + 2 * sector, sector,
                                    row[i].op == ST_OP_WRITE ? buf : NULL),
                             ST_OK);
            for (unsigned j = 0; j < 5; j++)
                if (j == 2)
                    expect_state(&r, at + j * sector, sector, row[i].after[s],
                                 row[i].after[s] != ST_DATA ? 0
                                 : stays                    ? OLD
                                                            : NEW);
                else
                    expect_state(&r, at + j * sector, sector, (s + 1 + j) % 3,
                                 (s + 1 + j) % 3 == ST_DATA ? OLD : 0);
        }
    }
    rig_close(&r);
    free(buf);
}

static void
operations_move_a_sector_512(void **state)
{
    (void)state;
    operations_move_a_sector_between_three_states(512);
}

static void
operations_move_a_sector_4096(void **state)
{
    (void)state;
    operations_move_a_sector_between_three_states(4096);
}

static void
operations_move_a_sector_16384(void **state)
{
    (void)state;
    operations_move_a_sector_between_three_states(16384);
}

static void
alone_zeroes_are_absent(void **state)
{
    char zero[4096] = {0}, data[4096];
    struct rig r;

    (void)state;
    memset(data, NEW, sizeof(data));
    rig_open(&r, MIB(8), 512, false);
    assert_int_equal(rig_write(&r, 4096, 4096, data), ST_OK);
    assert_int_equal(rig_write(&r, 4096, 2048, zero), ST_OK);
    assert_int_equal(rig_op(&r, ST_OP_UNMAP, 0, 6144, 512, NULL), ST_OK);
    assert_int_equal(rig_op(&r, ST_OP_WRITE_ZEROES, 0, 7168, 512, NULL), ST_OK);
    expect_state(&r, 4096, 512, ST_ABSENT, 0);
    expect_state(&r, 6144, 512, ST_ABSENT, 0);
    expect_state(&r, 6656, 512, ST_DATA, NEW);
    expect_state(&r, 7168, 512, ST_ABSENT, 0);
    expect_state(&r, 7680, 512, ST_DATA, NEW);
    rig_close(&r);
}

/* ---- Against a model ---- */

struct model {
    struct rig r;
    uint32_t sector;
    uint64_t size, max;
    uint8_t *bytes, *state; /* of max bytes; of each sector */
    uint8_t *buf;
    struct st_rand rand;
};

static void
model_verify(struct model *m, uint64_t at, uint64_t len)
{
    uint64_t first = at / m->sector, n = len / m->sector, run;
    uint64_t *marks = calloc(st_bitmap_words(n + 3), 8);
    struct shot s;

    assert_int_equal(rig_read(&m->r, at, len, m->buf), ST_OK);
    assert_memory_equal(m->buf, m->bytes + at, len);

    memset(m->buf, SEEN, len);
    shot_fill(&s, ST_OP_READ, ST_REQ_MARK, at, len, m->buf);
    s.req->marks = marks;
    s.req->mark_first = 3;
    st_submit(m->r.chan, s.req);
    assert_true(st_loop_wait(m->r.loop, &s.done));
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *got = m->buf + i * m->sector;

        assert_int_equal(st_bitmap_test(marks, i + 3),
                         m->state[first + i] != ST_ABSENT);
        if (m->state[first + i] == ST_ABSENT)
            assert_true(got[0] == SEEN &&
                        memcmp(got, got + 1, m->sector - 1) == 0);
        else
            assert_memory_equal(got, m->bytes + at + i * m->sector, m->sector);
    }
    free(marks);

    for (uint64_t i = 0; i < n; i += run / m->sector) {
        enum st_presence p = m->r.node->ops->lookup(
            m->r.chan, at + i * m->sector, len - i * m->sector, &run);

        assert_true(run && run % m->sector == 0);
        assert_true(run <= len - i * m->sector);
        for (uint64_t j = i; j < i + run / m->sector; j++)
            assert_int_equal(m->state[first + j], p);
    }
    for (uint64_t i = 0; i < n; i += run / m->sector) {
        shot_fill(&s, ST_OP_BLOCK_STATUS, 0, at + i * m->sector,
                  len - i * m->sector, NULL);
        st_submit(m->r.chan, s.req);
        assert_true(st_loop_wait(m->r.loop, &s.done));
        run = s.req->extent.len;
        assert_true(run && run % m->sector == 0);
        for (uint64_t j = i; j < i + run / m->sector; j++)
            assert_int_equal(m->state[first + j] == ST_DATA,
                             !s.req->extent.flags);
    }
}

/* A range that likes the edges of sectors, granules and regions. */
static uint64_t
model_range(struct model *m, uint64_t *len)
{
    static const uint64_t edge[] = {0, 4096, MIB(4), MIB(16)};
    uint64_t at = st_rand_below(&m->rand, m->size);
    uint64_t e = edge[st_rand_below(&m->rand, 4)];

    if (e)
        at = st_align_down(at, e) +
             (st_rand_below(&m->rand, 3) - 1) * m->sector; /* may wrap */
    if (at >= m->size)
        at = 0;
    at = st_align_down(at, m->sector);
    *len = m->sector *
           (1 + st_rand_below(&m->rand, UINT64_C(1)
                                            << st_rand_below(&m->rand, 16)));
    if (st_rand_below(&m->rand, 8) == 0)
        *len = MIB(4) + st_rand_below(&m->rand, 3) * m->sector;
    *len = st_min(*len, m->size - at);
    return at;
}

static void
model_step(struct model *m)
{
    uint64_t len, at = model_range(m, &len);
    unsigned what = (unsigned)st_rand_below(&m->rand, 12), flags = 0;
    uint8_t byte = (uint8_t)st_rand_below(&m->rand, 256);
    enum st_presence to = ST_ZERO;

    if (what < 7) {
        bool keep = what == 0;

        for (uint64_t i = 0; i < len; i += m->sector)
            memset(m->buf + i, st_rand_below(&m->rand, 8) ? byte : 0,
                   m->sector);
        if (st_rand_below(&m->rand, 3) == 0)
            memset(m->buf, 0, len);
        assert_int_equal(rig_op(&m->r, ST_OP_WRITE,
                                keep ? ST_REQ_NO_OVERWRITE : 0, at, len,
                                m->buf),
                         ST_OK);
        for (uint64_t g, i = 0; i < len; i = g) {
            /* A granule's part of zeroes becomes zero, not data. */
            uint64_t size = m->sector > 4096 ? m->sector : 4096;

            g = st_min(st_align_down(at + i, size) + size - at, len);
            to = st_mem_is_zero(m->buf + i, g - i) ? ST_ZERO : ST_DATA;
            for (uint64_t k = i; k < g; k += m->sector) {
                uint8_t *s = &m->state[(at + k) / m->sector];

                if (keep && *s != ST_ABSENT)
                    continue;
                *s = (uint8_t)to;
                memcpy(m->bytes + at + k, m->buf + k, m->sector);
            }
        }
    } else if (what < 11) {
        enum st_op op = what == 7 ? ST_OP_WRITE_ZEROES : ST_OP_UNMAP;

        if (what > 8) {
            flags = ST_REQ_NEXT_ZERO;
            to = ST_ABSENT;
        }
        assert_int_equal(rig_op(&m->r, op, flags, at, len, NULL), ST_OK);
        memset(m->state + at / m->sector, to, len / m->sector);
        memset(m->bytes + at, 0, len);
    } else {
        uint64_t size =
            m->sector * (1 + st_rand_below(&m->rand, m->max / m->sector));

        rig_resize(&m->r, size);
        if (size < m->size) {
            memset(m->state + size / m->sector, ST_ZERO,
                   (m->max - size) / m->sector);
            memset(m->bytes + size, 0, m->max - size);
        }
        m->size = size;
        at = 0;
        len = m->sector;
    }
    model_verify(m, at, len);
}

static void
model_run(uint32_t sector, uint64_t seed, unsigned steps)
{
    struct model m = {.sector = sector, .rand = st_rand_seed(seed)};

    print_message("sector %u, seed %ju\n", sector, (uintmax_t)seed);
    m.max = m.size = sector > 4096 ? MIB(33) : MIB(9) + 4096;
    m.bytes = calloc(1, m.max);
    m.state = calloc(1, m.max / sector);
    m.buf = malloc(m.max);
    rig_open(&m.r, m.size, sector, true);
    for (unsigned i = 0; i < steps; i++) {
        model_step(&m);
        if (i % 64 == 0)
            model_verify(&m, 0, m.size);
    }
    rig_resize(&m.r, m.max); /* what was cut off stays away */
    m.size = m.max;
    model_verify(&m, 0, m.size);
    rig_close(&m.r);
    free(m.bytes);
    free(m.state);
    free(m.buf);
}

static void
random_operations_match_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        model_run(512, seed, 200);
        model_run(4096, seed, 200);
        model_run(16384, seed, 80);
    }
}

/* ---- Limits ---- */

static void
out_of_range_is_refused_up_to_2_63(void **state)
{
    const uint64_t sizes[] = {KIB(64), TIB(1), (UINT64_C(1) << 63) - 512};
    static const enum st_op ops[] = {ST_OP_READ, ST_OP_WRITE, ST_OP_UNMAP,
                                     ST_OP_WRITE_ZEROES, ST_OP_BLOCK_STATUS};
    char buf[1024], got[512];

    (void)state;
    /* A sanitizer's address space is too small for the last one's index. */
    for (unsigned i = 0; i < 3 - SANITIZED; i++) {
        uint64_t size = sizes[i], run;
        struct rig r;

        rig_open(&r, size, 512, false);
        memset(buf, 1 + (int)i, sizeof(buf));
        assert_int_equal(rig_write(&r, size - 512, 512, buf), ST_OK);
        for (unsigned j = 0; j < 5; j++) {
            assert_int_equal(rig_op(&r, ops[j], 0, size, 512, buf), ST_RANGE);
            assert_int_equal(rig_op(&r, ops[j], 0, size - 512, 1024, buf),
                             ST_RANGE);
            assert_int_equal(rig_op(&r, ops[j], 0, UINT64_MAX - 511, 512, buf),
                             ST_RANGE);
            assert_int_equal(rig_op(&r, ops[j], 0, 512, UINT64_MAX - 511, NULL),
                             ST_RANGE);
            assert_int_equal(rig_op(&r, ops[j], 0, size, 0, NULL), ST_OK);
            assert_int_equal(rig_op(&r, ops[j], 0, size + 512, 0, NULL),
                             ST_RANGE);
        }
        assert_int_equal(
            rig_op(&r, ST_OP_WRITE, ST_REQ_NO_OVERWRITE, size, 512, buf),
            ST_RANGE);
        assert_int_equal(
            rig_op(&r, ST_OP_UNMAP, ST_REQ_NEXT_ZERO, size, 512, NULL),
            ST_RANGE);
        assert_int_equal(rig_read(&r, size - 512, 512, got), ST_OK);
        assert_memory_equal(got, buf, 512);
        assert_int_equal(r.node->ops->lookup(r.chan, size - 512, 512, &run),
                         ST_DATA);
        assert_int_equal(rig_op(&r, ST_OP_UNMAP, 0, 0, size, NULL), ST_OK);
        assert_int_equal(r.node->ops->lookup(r.chan, size - 512, 512, &run),
                         ST_ABSENT);
        rig_close(&r);
    }
}

static void
bad_sizes_get_a_sentence(void **state)
{
    static const struct {
        uint64_t size;
        uint32_t sector;
        const char *says;
    } row[] = {
        {MIB(1), 256, "invalid sector size 256"},
        {MIB(1), 1536, "invalid sector size 1536"},
        {MIB(1), 131072, "invalid sector size 131072"},
        {0, 513, "invalid sector size 513"},
        {1000, 512, "size 1000 is not a multiple of the sector size 512"},
        {4096, 8192, "size 4096 is not a multiple of the sector size 8192"},
        {UINT64_C(1) << 63, 512, "past the largest"},
    };
    struct st_domain_opts opts = {.engine = "virtual"};
    struct st_node *n = NULL;
    struct st_domain *d;
    struct st_loop *l;
    struct st_err err;

    (void)state;
    assert_int_equal(st_domain_create(&opts, &d, &err), 0);
    assert_int_equal(st_loop_create(d, &l, &err), 0);
    for (unsigned i = 0; i < sizeof(row) / sizeof(*row); i++) {
        assert_int_equal(
            st_ram_create(l, row[i].size, row[i].sector, "ram", &n, &err),
            -EINVAL);
        assert_non_null(strstr(err.text, row[i].says));
    }
    assert_int_equal(st_ram_create(l, 0, 0, "ram", &n, &err), 0);
    assert_int_equal(n->ops->attach(n, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "empty disk"));
    st_node_close(n);
    st_loop_destroy(l);
    st_domain_destroy(d);
}

static void
size_and_sector_come_from_below(void **state)
{
    static const struct {
        uint64_t size;
        uint32_t sector;
        uint64_t want;
        uint32_t want_sector;
    } row[] = {{0, 0, MIB(3), 4096},
               {MIB(2), 0, MIB(2), 4096},
               {0, 512, MIB(3), 512},
               {MIB(2), 16384, MIB(2), 16384}};
    struct st_node lower = {.props = {.sector_size = 4096}, .size = MIB(3)};
    struct st_err err;

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        char buf[16384], got[16384];
        struct rig r;

        rig_open(&r, MIB(1), 512, true); /* for its loop */
        st_chan_close(r.chan);
        st_node_close(r.node);
        assert_int_equal(st_ram_create(r.loop, row[i].size, row[i].sector,
                                       "memdiff", &r.node, &err),
                         0);
        assert_int_equal(r.node->ops->attach(r.node, &lower, &err), 0);
        assert_int_equal(st_node_size(r.node), row[i].want);
        assert_int_equal(r.node->props.sector_size, row[i].want_sector);
        assert_int_equal(r.node->props.unmap_granularity, row[i].want_sector);
        assert_int_equal(st_node_check(r.node, &err), 0);
        assert_int_equal(st_chan_open(r.node, r.loop, &r.chan), 0);
        memset(buf, NEW, sizeof(buf));
        assert_int_equal(rig_write(&r, row[i].want - 16384, 16384, buf), ST_OK);
        assert_int_equal(rig_read(&r, row[i].want - 16384, 16384, got), ST_OK);
        assert_memory_equal(buf, got, sizeof(buf));
        rig_close(&r);
    }
}

static void
resize_cuts_grows_and_says_no(void **state)
{
    char data[4096], got[4096], zero[4096] = {0};
    struct st_err err;
    struct rig r;

    (void)state;
    memset(data, NEW, sizeof(data));
    for (unsigned over = 0; over < 2; over++) {
        enum st_presence gone = over ? ST_ZERO : ST_ABSENT;
        uint64_t run;

        rig_open(&r, TIB(1), 512, over);
        assert_int_equal(rig_write(&r, MIB(6), 4096, data), ST_OK);
        assert_int_equal(rig_write(&r, TIB(1) - 4096, 4096, data), ST_OK);
        rig_resize(&r, MIB(6) + 512);
        assert_int_equal(rig_read(&r, MIB(6), 1024, got), ST_RANGE);
        rig_resize(&r, TIB(2)); /* in place */
        expect_state(&r, MIB(6), 512, ST_DATA, NEW);
        expect_state(&r, MIB(6) + 512, 512, gone, 0);
        expect_state(&r, MIB(7), 512, gone, 0);
        expect_state(&r, TIB(1) - 512, 512, gone, 0);
        expect_state(&r, TIB(2) - 512, 512, ST_ABSENT, 0);
        assert_int_equal(rig_read(&r, TIB(1) - 4096, 4096, got), ST_OK);
        assert_memory_equal(got, zero, 4096);
        assert_int_equal(r.node->ops->lookup(r.chan, 0, TIB(2), &run),
                         ST_ABSENT);
        assert_int_equal(run, MIB(6));

        assert_int_equal(st_node_resize(r.node, 0, &err), -EINVAL);
        assert_int_equal(st_node_resize(r.node, 513, &err), -EINVAL);
        assert_int_equal(st_node_resize(r.node, UINT64_C(1) << 60, &err),
                         -ENOTSUP);
        assert_non_null(strstr(err.text, "grow"));
        assert_int_equal(st_node_size(r.node), TIB(2));
        rig_close(&r);
    }
}

/* ---- Slices ---- */

struct neighbour {
    struct rig *r;
    struct shot s;
    char buf[4096];
    unsigned count, stop_at;
    bool home;
    struct st_req *big; /* cancelled at stop_at */
    const bool *big_done;
};

static void
neighbour_again(struct st_req *req)
{
    struct neighbour *n = req->owner;

    assert_int_equal(req->status, ST_OK);
    n->home = *n->big_done;
    if (n->home)
        return;
    if (++n->count == n->stop_at)
        st_cancel(n->big);
    st_submit(n->r->chan, req);
}

/* Run one long request beside one that comes back again and again. */
static enum st_status
beside(struct rig *r, enum st_op op, uint64_t len, void *buf, unsigned stop_at,
       unsigned *count)
{
    struct shot big;
    struct neighbour n = {.r = r, .stop_at = stop_at, .big_done = &big.done};

    shot_fill(&big, op, 0, 0, len, buf);
    shot_fill(&n.s, ST_OP_READ, 0, st_node_size(r->node) - 4096, 4096, n.buf);
    n.big = big.req;
    n.s.req->done = neighbour_again;
    n.s.req->owner = &n;
    st_submit(r->chan, big.req);
    st_submit(r->chan, n.s.req);
    assert_true(st_loop_wait(r->loop, &big.done));
    assert_true(st_loop_wait(r->loop, &n.home));
    *count = n.count;
    return (enum st_status)big.req->status;
}

static void
long_requests_leave_neighbours_flowing(void **state)
{
    uint64_t len = MIB(16), run;
    uint8_t *buf = malloc(len);
    unsigned count;
    struct rig r;

    (void)state;
    memset(buf, NEW, len);
    rig_open(&r, TIB(1), 512, true);
    assert_int_equal(beside(&r, ST_OP_WRITE, len, buf, 0, &count), ST_OK);
    assert_true(count >= len / MIB(1));
    assert_int_equal(beside(&r, ST_OP_READ, len, buf, 0, &count), ST_OK);
    assert_true(count >= len / MIB(1));
    assert_int_equal(beside(&r, ST_OP_UNMAP, TIB(1), NULL, 0, &count), ST_OK);
    assert_true(count >= 200);
    assert_int_equal(r.node->ops->lookup(r.chan, 0, TIB(1), &run), ST_ZERO);
    assert_int_equal(rig_op(&r, ST_OP_UNMAP, ST_REQ_NEXT_ZERO, 0, TIB(1), NULL),
                     ST_OK);

    /* Cancelled between two slices: an end in sight, the rest untouched. */
    assert_int_equal(beside(&r, ST_OP_UNMAP, TIB(1), NULL, 5, &count),
                     ST_ABORTED);
    assert_true(count < 200);
    assert_int_equal(r.node->ops->lookup(r.chan, 0, 512, &run), ST_ZERO);
    assert_int_equal(r.node->ops->lookup(r.chan, TIB(1) - 512, 512, &run),
                     ST_ABSENT);
    rig_close(&r);
    free(buf);
}

/* ---- Many loops ---- */

enum { LOOPS = 4, SHARED = 64, ROUNDS = 4000, SPAN = 1 << 20 };

/* Owns each LOOPS-th sector of the first SPAN bytes, in granules that it shares
 * with the others, and reads what was there before and nobody changes. */
struct actor {
    struct st_loop *loop, *home;
    struct st_node *node;
    struct st_chan *chan;
    struct st_task start, finished;
    struct shot s;
    struct st_rand rand;
    unsigned index, left;
    int *running;
    bool *all_done, bad;
    uint8_t model[SPAN / 512 / LOOPS]; /* byte of each sector */
    bool present[SPAN / 512 / LOOPS];
    uint8_t buf[4096], want[4096];
};

static void actor_done(struct st_req *req);

static void
actor_next(struct actor *a)
{
    unsigned i = (unsigned)st_rand_below(&a->rand, sizeof(a->model));
    uint64_t at = ((uint64_t)i * LOOPS + a->index) * 512, len = 512;
    enum st_op op = ST_OP_WRITE;
    uint8_t old = a->model[i];
    unsigned flags = 0;

    switch (st_rand_below(&a->rand, 6)) {
    case 0:
    case 1:
        a->model[i] = (uint8_t)st_rand_below(&a->rand, 4);
        a->present[i] = true;
        memset(a->buf, a->model[i], len);
        break;
    case 2:
        op = ST_OP_UNMAP;
        flags = st_rand_below(&a->rand, 2) ? ST_REQ_NEXT_ZERO : 0;
        a->model[i] = 0;
        a->present[i] = !flags;
        break;
    case 3:
        flags = ST_REQ_NO_OVERWRITE;
        memset(a->buf, 9, len);
        a->model[i] = a->present[i] ? old : 9;
        a->present[i] = true;
        break;
    case 4:
        op = ST_OP_READ;
        memset(a->want, old, len);
        break;
    default:
        op = ST_OP_READ;
        at = SPAN + st_rand_below(&a->rand, SHARED) * 4096;
        len = 4096;
        memset(a->want, (int)(at >> 12 & 0x7f) + 1, len);
    }
    shot_fill(&a->s, op, flags, at, len, a->buf);
    a->s.req->done = actor_done;
    a->s.req->owner = a;
    st_submit(a->chan, a->s.req);
}

static void
actor_done(struct st_req *req)
{
    struct actor *a = req->owner;

    if (req->status != ST_OK ||
        (req->op == ST_OP_READ && memcmp(a->buf, a->want, req->len) != 0))
        a->bad = true;
    if (--a->left) {
        actor_next(a);
        return;
    }
    st_chan_close(a->chan);
    st_post(a->home, &a->finished);
}

static void
actor_start(struct st_task *t)
{
    struct actor *a = st_container(t, struct actor, start);

    if (st_chan_open(a->node, a->loop, &a->chan) < 0)
        abort();
    actor_next(a);
}

static void
actor_finished(struct st_task *t)
{
    struct actor *a = st_container(t, struct actor, finished);

    if (--*a->running == 0)
        *a->all_done = true;
}

static void
four_loops_share_granules_and_pages(void **state)
{
    struct actor *a = calloc(LOOPS, sizeof(*a));
    uint8_t page[4096];
    struct st_err err;
    int running = LOOPS;
    bool done = false;
    struct rig r;

    (void)state;
    rig_open(&r, MIB(64), 512, true);
    for (unsigned i = 0; i < SHARED; i++) {
        uint64_t at = SPAN + i * 4096;

        memset(page, (int)(at >> 12 & 0x7f) + 1, sizeof(page));
        assert_int_equal(rig_write(&r, at, 4096, page), ST_OK);
    }
    for (unsigned i = 0; i < LOOPS; i++) {
        a[i] = (struct actor){.home = r.loop,
                              .node = r.node,
                              .index = i,
                              .left = ROUNDS,
                              .running = &running,
                              .all_done = &done,
                              .rand = st_rand_seed(i),
                              .start.run = actor_start,
                              .finished.run = actor_finished};
        assert_int_equal(st_loop_create(r.domain, &a[i].loop, &err), 0);
        assert_int_equal(st_loop_start(a[i].loop, "actor"), 0);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        st_post(a[i].loop, &a[i].start);
    assert_true(st_loop_wait(r.loop, &done));
    for (unsigned i = 0; i < LOOPS; i++) {
        st_loop_join(a[i].loop);
        st_loop_destroy(a[i].loop);
        assert_false(a[i].bad);
        for (unsigned j = 0; j < sizeof(a[i].model); j++) {
            uint8_t want[512];

            memset(want, a[i].model[j], sizeof(want));
            assert_int_equal(
                rig_read(&r, ((uint64_t)j * LOOPS + i) * 512, 512, page),
                ST_OK);
            assert_memory_equal(page, want, 512);
        }
    }
    rig_close(&r);
    free(a);
}

/* ---- The contract ---- */

static int
kit_make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
         struct st_node **out, struct st_err *err)
{
    (void)arg;
    return st_ram_create(loop, st_align_down(size, sector), sector, "ram", out,
                         err);
}

static void
the_contract_holds(void **state)
{
    (void)state;
    for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
        struct st_domain_opts opts = {.engine = "virtual", .seed = sector};
        struct st_kit kit = {.name = "ram", .sector = sector, .make = kit_make};
        struct st_domain *d;
        struct st_err err;
        unsigned ran;

        assert_int_equal(st_domain_create(&opts, &d, &err), 0);
        assert_int_equal(st_loop_create(d, &kit.loop, &err), 0);
        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 10);
        st_loop_destroy(kit.loop);
        st_domain_destroy(d);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_move_a_sector_512),
        cmocka_unit_test(operations_move_a_sector_4096),
        cmocka_unit_test(operations_move_a_sector_16384),
        cmocka_unit_test(alone_zeroes_are_absent),
        cmocka_unit_test(random_operations_match_a_model),
        cmocka_unit_test(out_of_range_is_refused_up_to_2_63),
        cmocka_unit_test(bad_sizes_get_a_sentence),
        cmocka_unit_test(size_and_sector_come_from_below),
        cmocka_unit_test(resize_cuts_grows_and_says_no),
        cmocka_unit_test(long_requests_leave_neighbours_flowing),
        cmocka_unit_test(four_loops_share_granules_and_pages),
        cmocka_unit_test(the_contract_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
