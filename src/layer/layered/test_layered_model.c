/* SPDX-License-Identifier: MIT
 *
 * Layered disks against a byte array: random stacks (with and without lookup,
 * asynchronous, cached, written through, of unequal and changing sizes), random
 * requests on two loops at a time, some of which fail or are cancelled.
 *
 *   test_layered_model [SEED [COUNT]]      a failure prints the seed
 *
 * A batch modifies each sector at most once, so a read that overlaps sees the
 * old or the new value of each. What a failed modification left is taken from
 * the layers themselves, by the rule of spec 4.1, which everything is held
 * against after each batch.
 */
#include "test_layer.h"

#include <stdlib.h>

enum { BATCH = 12, LOOPS = 2 };

static uint64_t first_seed = 1, seeds = 120, seed_now;

struct model {
    struct rig r;
    struct st_loop *loop[LOOPS];
    struct st_chan *chan[LOOPS];
    struct st_rand rand;
    struct st_layer conf[RIG_LAYERS];
    uint32_t ss;
    uint64_t visible[RIG_LAYERS];
    uint8_t now[TL_MAX], next[TL_MAX];
    bool touched[TL_MAX]; /* by a modification of this batch */
    bool vague[TL_MAX];   /* its result is the layers' to say */
    bool faulty, cancelled;
    enum st_status fault;
};

static uint64_t
below(struct model *m, uint64_t n)
{
    return st_rand_below(&m->rand, n);
}

static bool
one_in(struct model *m, uint64_t n)
{
    return below(m, n) == 0;
}

static uint64_t
sectors(struct model *m)
{
    return st_node_size(m->r.node) / m->ss;
}

/* Spec 4.1, sector by sector. */
static uint8_t
compose(struct model *m, uint64_t sector)
{
    for (unsigned i = 0; i < m->r.n; i++) {
        struct tl *t = m->r.l[i];

        if (i > 0 && sector >= m->visible[i])
            break;
        if (t->state[sector] != ST_ABSENT)
            return t->data[sector * m->ss];
    }
    return 0;
}

static void
measure(struct model *m)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < m->r.n; i++) {
        least = st_min(least, st_node_size(&m->r.l[i]->base) / m->ss);
        m->visible[i] = st_min(m->visible[i], least);
    }
}

static void
build(struct model *m)
{
    struct tl_opts o[RIG_LAYERS] = {0};
    unsigned n = 1 + (unsigned)below(m, 5), written;
    bool read_only = one_in(m, 6), large = one_in(m, 12);
    uint64_t size = large ? 2000 + below(m, 3000) : 1 + below(m, 90);

    m->ss = one_in(m, 3) ? 4096 : 512;
    written = 1 + (unsigned)(one_in(m, 2) ? below(m, n) : 0);
    for (unsigned i = 0; i < n; i++) {
        o[i] = (struct tl_opts){
            .sectors = one_in(m, 3) ? 1 + below(m, 2 * size) : size,
            .sector = m->ss,
            .disk = i + 1 == n ? one_in(m, 2) : one_in(m, 15),
            .lookup = one_in(m, 2),
            .async = one_in(m, 2),
            .no_overwrite = true,
            .read_only = i >= written && one_in(m, 2),
            .unmap = (enum st_unmap)below(m, 3),
            .lacks = one_in(m, 5) ? ST_BIT(ST_OP_WRITE_ZEROES) : 0,
        };
        if (one_in(m, 2))
            o[i].unmap = ST_UNMAP_ZEROES;
        m->conf[i] = (struct st_layer){
            .read_cache = !o[i].disk && one_in(m, 3),
            .write_through = i + 1 < written,
        };
    }
    if (rig_build(&m->r, n, o, m->conf, read_only) < 0)
        fail_msg("%s", m->r.err.text);
    memset(m->visible, 0xff, sizeof(m->visible));
    measure(m);
    for (unsigned i = 0; i < n; i++) {
        struct tl *t = m->r.l[i];
        uint64_t all = st_node_size(&t->base) / m->ss;

        for (uint64_t s = 0, run; s < all; s += run) {
            uint64_t p = below(m, 4);

            run = st_min(1 + below(m, large ? 300 : 9), all - s);
            if (p || t->o.disk)
                tl_set(t, s, run,
                       t->o.disk || p == 1 ? ST_DATA
                       : p == 2            ? ST_ABSENT
                                           : ST_ZERO,
                       (uint8_t)(1 + below(m, 255)));
        }
    }
    for (uint64_t s = 0; s < TL_MAX; s++)
        m->now[s] = s < sectors(m) ? compose(m, s) : 0;
}

struct job {
    struct rig_req *q;
    unsigned loop;
    enum st_op op;
    uint64_t first, n;
    char *buf;
    bool cancelled;
};

/* Start something random; false if it would touch a sector twice. */
static bool
start(struct model *m, struct job *j)
{
    static const enum st_op ops[] = {
        ST_OP_READ,         ST_OP_READ,  ST_OP_READ,
        ST_OP_WRITE,        ST_OP_WRITE, ST_OP_UNMAP,
        ST_OP_WRITE_ZEROES, ST_OP_FLUSH, ST_OP_BLOCK_STATUS};
    uint32_t performs = m->r.node->props.performs;
    uint64_t all = sectors(m);
    uint8_t value = (uint8_t)(1 + below(m, 255));

    *j = (struct job){.op = ops[below(m, sizeof(ops) / sizeof(ops[0]))],
                      .loop = (unsigned)below(m, LOOPS)};
    j->first = below(m, all);
    j->n = 1 +
           below(m, one_in(m, 4) ? all - j->first : st_min(all - j->first, 20));
    if (!(performs & ST_BIT(j->op)))
        return false;
    if (ST_BIT(j->op) & ST_OPS_MODIFY) {
        for (uint64_t s = j->first; s < j->first + j->n; s++)
            if (m->touched[s])
                return false;
        for (uint64_t s = j->first; s < j->first + j->n; s++) {
            m->touched[s] = true;
            m->next[s] = j->op == ST_OP_WRITE ? value : 0;
            m->vague[s] = j->op == ST_OP_UNMAP &&
                          m->r.node->props.unmap != ST_UNMAP_ZEROES;
        }
    }
    j->buf = malloc(j->n * m->ss + 8);
    memset(j->buf, value, j->n * m->ss + 8);
    j->q = rig_start(m->r.node, m->chan[j->loop], j->op, j->buf + 8,
                     j->first * m->ss, j->n * m->ss,
                     one_in(m, 3) && j->op == ST_OP_WRITE ? ST_REQ_FUA : 0);
    return true;
}

static void
check_read(struct model *m, const struct job *j)
{
    for (uint64_t s = j->first; s < j->first + j->n; s++) {
        const uint8_t *p = (const uint8_t *)j->buf + 8 + (s - j->first) * m->ss;

        for (uint32_t i = 1; i < m->ss; i++)
            if (p[i] != p[0])
                fail_msg("sector %llu is torn", (unsigned long long)s);
        if (p[0] != m->now[s] && !(m->touched[s] && p[0] == m->next[s]))
            fail_msg("read %llu + %llu: sector %llu is 0x%x, was 0x%x, "
                     "becomes 0x%x",
                     (unsigned long long)j->first, (unsigned long long)j->n,
                     (unsigned long long)s, p[0], m->now[s],
                     m->touched[s] ? m->next[s] : m->now[s]);
    }
}

static void
finish(struct model *m, struct job *j)
{
    struct st_extent e;
    enum st_status status;

    assert_true(st_loop_wait(m->loop[j->loop], &j->q->done));
    e = j->q->req->extent;
    status = rig_end(m->loop[j->loop], j->q);
    if (status != ST_OK) {
        if (!(j->cancelled && status == ST_ABORTED)) {
            assert_true(m->faulty);
            assert_int_equal(status, m->fault);
        }
        for (uint64_t s = j->first; s < j->first + j->n; s++)
            m->vague[s] = true;
    } else if (j->op == ST_OP_READ) {
        check_read(m, j);
    } else if (j->op == ST_OP_BLOCK_STATUS) {
        assert_in_range(e.len, m->ss, j->n * m->ss);
        if (e.flags == (ST_EXTENT_HOLE | ST_EXTENT_ZERO))
            for (uint64_t s = j->first; s < j->first + e.len / m->ss; s++)
                assert_true(m->now[s] == 0 || m->touched[s]);
    }
    free(j->buf);
}

static void
check_all(struct model *m)
{
    uint64_t all = sectors(m);
    struct job j = {.op = ST_OP_READ, .first = 0, .n = all};

    for (uint64_t s = 0; s < all; s++) {
        uint8_t layers = compose(m, s);

        if (m->touched[s] && m->vague[s])
            assert_true(layers == m->now[s] || layers == m->next[s]);
        else if (layers != (m->touched[s] ? m->next[s] : m->now[s]))
            fail_msg("sector %llu: layers say 0x%x, model 0x%x",
                     (unsigned long long)s, layers,
                     m->touched[s] ? m->next[s] : m->now[s]);
        m->now[s] = layers;
    }
    memset(m->touched, 0, sizeof(m->touched));
    memset(m->vague, 0, sizeof(m->vague));
    for (unsigned i = 0; i < m->r.n; i++)
        m->r.l[i]->fail = ST_OK;
    j.buf = malloc(all * m->ss + 8);
    memset(j.buf, 0xee, all * m->ss + 8);
    j.q = rig_start(m->r.node, m->chan[0], ST_OP_READ, j.buf + 8, 0,
                    all * m->ss, 0);
    assert_true(st_loop_wait(m->loop[0], &j.q->done));
    assert_int_equal(rig_end(m->loop[0], j.q), ST_OK);
    check_read(m, &j);
    free(j.buf);
    /* Now every cache that was asked has what it lacked. */
    for (uint64_t s = 0; s < all; s++) {
        bool found = false;

        for (unsigned i = 0; i + 1 < m->r.n && !found; i++) {
            if (i > 0 && s >= m->visible[i])
                break;
            if (s >= m->visible[i + 1])
                break; /* nothing is below: it may be left out */
            found = m->r.l[i]->state[s] != ST_ABSENT;
            if (m->conf[i].read_cache)
                assert_true(found);
        }
    }
}

static void
resize_something(struct model *m)
{
    unsigned i = (unsigned)below(m, m->r.n);
    struct st_node *node = i ? &m->r.l[i]->base : m->r.node;
    uint64_t old = sectors(m), size;

    size = 1 + below(m, st_min(2 * old, TL_MAX - 1));

    if (i == 0 && node->props.read_only)
        return;
    assert_int_equal(st_node_resize(node, size * m->ss, &m->r.err), 0);
    if (i)
        st_node_changed(node, ST_EVENT_RESIZE);
    measure(m);
    assert_int_equal(st_node_size(m->r.node), st_node_size(&m->r.l[0]->base));
    if (i) { /* lower contents went away, or came: ask the layers */
        for (uint64_t s = 0; s < old; s++)
            m->now[s] = compose(m, s);
        return;
    }
    for (uint64_t s = st_min(size, old); s < TL_MAX; s++)
        m->now[s] = 0; /* whatever was there never comes back */
}

static void
batch(struct model *m)
{
    struct job jobs[BATCH];
    unsigned n = 1 + (unsigned)below(m, BATCH), started = 0;

    m->faulty = one_in(m, 8);
    if (m->faulty) {
        struct tl *t = m->r.l[below(m, m->r.n)];

        t->fail_op = one_in(m, 2) ? ST_OP_READ : ST_OP_WRITE;
        t->fail = m->fault = ST_MEDIUM_READ;
    }
    for (unsigned i = 0; i < n; i++) {
        started += start(m, &jobs[started]);
        for (uint64_t k = below(m, 4); k; k--)
            st_domain_step(m->r.domain);
    }
    for (unsigned i = 0; i < started; i++) {
        if (!jobs[i].q->done && one_in(m, 12)) {
            jobs[i].cancelled = true;
            st_cancel(jobs[i].q->req);
        }
    }
    for (unsigned i = 0; i < started; i++)
        finish(m, &jobs[i]);
    check_all(m);
}

static void
run(uint64_t seed)
{
    struct model *m = calloc(1, sizeof(*m));

    m->rand = st_rand_seed(seed);
    rig_open(&m->r, seed);
    build(m);
    m->loop[0] = m->r.loop;
    m->chan[0] = m->r.chan;
    for (unsigned i = 1; i < LOOPS; i++) {
        assert_int_equal(st_loop_create(m->r.domain, &m->loop[i], &m->r.err),
                         0);
        assert_int_equal(st_chan_open(m->r.node, m->loop[i], &m->chan[i]), 0);
    }
    for (unsigned i = 0; i < 30; i++) {
        if (one_in(m, 8))
            resize_something(m);
        batch(m);
    }
    for (unsigned i = 1; i < LOOPS; i++) {
        st_chan_close(m->chan[i]);
        st_loop_destroy(m->loop[i]);
    }
    rig_close(&m->r);
    free(m);
}

static void
random_stacks_equal_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = first_seed; seed < first_seed + seeds; seed++) {
        seed_now = seed;
        run(seed);
    }
}

static int
say_seed(void **state)
{
    (void)state;
    print_message("last seed: %llu\n", (unsigned long long)seed_now);
    return 0;
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(random_stacks_equal_the_model, say_seed),
    };

    if (argc > 1)
        first_seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        seeds = strtoull(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
