/* SPDX-License-Identifier: MIT
 *
 * Layered disks on several threads: channels that read through one cache while
 * a third thread grows the disk and inspects it.
 */
#include "test_layer.h"

enum { THREADS = 2, ROUNDS = 200, SECTORS = 256 };

struct worker {
    struct st_task task;
    struct st_loop *loop;
    struct st_node *node;
    struct st_chan *chan;
    struct st_req *req;
    struct iovec iov;
    unsigned round;
    uint8_t buf[8 * 512];
    atomic_bool done;
    bool wrong;
};

static void worker_next(struct worker *w);

static void
worker_done(struct st_req *req)
{
    struct worker *w = req->owner;

    w->wrong |= req->status != ST_OK;
    for (uint64_t i = 0; i < req->len && req->op == ST_OP_READ; i++)
        w->wrong |= w->buf[i] != (uint8_t)((req->offset + i) / 512);
    worker_next(w);
}

static void
worker_next(struct worker *w)
{
    unsigned round = w->round++;

    if (round == ROUNDS) {
        st_chan_close(w->chan);
        atomic_store(&w->done, true);
        return;
    }
    w->req->op = round % 8 == 7 ? ST_OP_FLUSH : ST_OP_READ;
    w->req->offset = (round * 5 % (SECTORS - 8)) * 512;
    w->req->len = sizeof(w->buf);
    w->iov = (struct iovec){w->buf, sizeof(w->buf)};
    w->req->buf = (struct st_buf){&w->iov, 0};
    st_submit(w->chan, w->req);
}

static void
worker_begin(struct st_task *t)
{
    struct worker *w = st_container(t, struct worker, task);
    unsigned nframes = st_node_depth(w->node);

    w->req = malloc(st_req_size(nframes));
    st_req_init(w->req, nframes, worker_done, w);
    w->wrong = st_chan_open(w->node, w->loop, &w->chan) != 0;
    worker_next(w);
}

static void
sum_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    (void)v;
    assert_non_null(name);
    assert_in_range(value, 0, UINT64_C(1) << 40);
}

static void
loops_share_a_cache(void **state)
{
    const struct tl_opts o[] = {{.lookup = true},
                                {.no_overwrite = true},
                                {.disk = true, .sectors = SECTORS}};
    struct st_layer layers[3] = {{0}, {.read_cache = true}, {0}};
    struct st_inspect v = {.u64 = sum_u64};
    struct worker w[THREADS] = {0};
    struct st_domain *domain;
    struct st_loop *home;
    struct st_node *node;
    struct tl *t[3];
    struct st_err err;
    bool done;

    (void)state;
    assert_int_equal(
        st_domain_create(&(struct st_domain_opts){0}, &domain, &err), 0);
    assert_int_equal(st_loop_create(domain, &home, &err), 0);
    for (unsigned i = 0; i < 3; i++) {
        t[i] = tl_new(home, o[i]);
        layers[i].node = &t[i]->base;
    }
    assert_int_equal(
        st_layered_create(home, layers, 3, false, "test", &node, &err), 0);
    for (unsigned i = 0; i < SECTORS; i++)
        tl_set(t[2], i, 1, ST_DATA, (uint8_t)i);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(st_loop_create(domain, &w[i].loop, &err), 0);
        w[i].task.run = worker_begin;
        w[i].node = node;
        assert_int_equal(st_loop_start(w[i].loop, "worker"), 0);
        st_post(w[i].loop, &w[i].task);
    }
    do {
        if (st_node_size(node) < TL_MAX * 512)
            assert_int_equal(
                st_node_resize(node, st_node_size(node) + 512, &err), 0);
        node->ops->inspect(node, &v);
        done = true;
        for (unsigned i = 0; i < THREADS; i++)
            done = done && atomic_load(&w[i].done);
    } while (!done);
    for (unsigned i = 0; i < THREADS; i++) {
        st_loop_join(w[i].loop);
        st_loop_destroy(w[i].loop);
        assert_false(w[i].wrong);
        free(w[i].req);
    }
    /* Each sector once, whoever came first. */
    assert_in_range(t[1]->populated, SECTORS - 9, SECTORS);
    st_node_close(node);
    st_loop_destroy(home);
    st_domain_destroy(domain);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_share_a_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
