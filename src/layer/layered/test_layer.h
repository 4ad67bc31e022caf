/* SPDX-License-Identifier: MIT
 *
 * For tests: a layer (or plain disk) in memory that can do, or refuse, all that
 * node.h has words for, and a rig to send requests to a stack of them.
 */
#ifndef TEST_LAYER_H
#define TEST_LAYER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "layered.h"
#include "rand.h"

enum {
    TL_MAX = 8192,  /* sectors of any test layer */
    TL_TRACE = 256, /* requests that a trace holds */
};

struct tl_opts {
    uint64_t sectors;  /* 0: those of the layer below */
    uint32_t sector;   /* bytes; 0: that of the layer below */
    bool disk;         /* no presence */
    bool lookup;       /* answers at once */
    bool async;        /* executes some time later */
    bool no_overwrite; /* can be a cache */
    bool read_only;
    bool fixed; /* cannot be resized */
    enum st_unmap unmap;
    uint32_t lacks; /* operations that it does not perform */
};

struct tl {
    struct st_node base;
    struct st_node_ops ops;
    struct tl_opts o;
    pthread_mutex_t lock;
    struct st_rand rand;
    uint8_t state[TL_MAX]; /* enum st_presence */
    uint8_t *data;
    /* What happened. */
    unsigned count[ST_OP_COUNT];
    uint64_t populated; /* sectors, by no_overwrite */
    uint64_t bytes[ST_OP_COUNT];
    unsigned in_flight, most; /* requests at a time */
    unsigned flags;           /* of the last request */
    struct st_req *req;       /* the last one */
    char *trace;              /* borrowed: gets a letter a request, or NULL */
    char letter;
    /* What shall happen: the next request with this op fails. */
    enum st_op fail_op;
    enum st_status fail;
    bool hold; /* keep requests until cancelled */
};

struct tl_pending {
    struct st_timer timer;
    struct st_req *req;
    struct tl *t;
    struct st_chan *chan;
    struct tl_pending *next; /* held */
};

struct tl_chan {
    struct st_chan base;
    struct tl_pending *held;
};

static inline struct tl *
tl_of(struct st_node *n)
{
    return st_container(n, struct tl, base);
}

static inline void
tl_set(struct tl *t, uint64_t sector, uint64_t n, enum st_presence p,
       uint8_t value)
{
    uint32_t ss = t->base.props.sector_size;

    for (uint64_t i = sector; i < sector + n; i++) {
        t->state[i] = (uint8_t)p;
        memset(t->data + i * ss, p == ST_DATA ? value : 0, ss);
    }
}

static inline enum st_status
tl_execute(struct tl *t, struct st_req *req)
{
    uint32_t ss = t->base.props.sector_size;
    uint64_t first = req->offset / ss;
    enum st_status fail = t->fail;

    t->count[req->op]++;
    t->bytes[req->op] += req->len;
    t->flags = req->flags;
    t->req = req;
    if (t->trace && strlen(t->trace) < TL_TRACE - 1)
        t->trace[strlen(t->trace)] = t->letter;
    if (fail != ST_OK && t->fail_op == req->op) {
        t->fail = ST_OK;
        return fail;
    }
    if (!(t->base.props.performs & ST_BIT(req->op)))
        return ST_UNSUPPORTED;
    if (!(ST_BIT(req->op) & ST_OPS_RANGED))
        return ST_OK;
    assert_int_equal((req->offset | req->len) % ss, 0);
    if (!st_node_range_ok(&t->base, req))
        return ST_RANGE;
    for (uint64_t i = 0; i < req->len / ss; i++) {
        uint8_t *state = &t->state[first + i], *data;
        struct st_buf buf;

        data = t->data + (first + i) * ss;
        switch (req->op) {
        case ST_OP_READ:
            buf = st_buf_advance(req->buf, i * ss);
            if (*state != ST_ABSENT)
                st_buf_write(buf, data, ss);
            else if (!(req->flags & ST_REQ_MARK))
                st_buf_zero(buf, ss);
            if (*state != ST_ABSENT && (req->flags & ST_REQ_MARK))
                req->marks[(req->mark_first + i) / 64] |=
                    UINT64_C(1) << (req->mark_first + i) % 64;
            break;
        case ST_OP_WRITE:
            if (req->flags & ST_REQ_NO_OVERWRITE) {
                assert_true(t->o.no_overwrite);
                if (*state != ST_ABSENT)
                    break;
                t->populated++;
            } else {
                assert_false(t->o.read_only);
            }
            *state = ST_DATA;
            st_buf_read(st_buf_advance(req->buf, i * ss), data, ss);
            break;
        case ST_OP_UNMAP:
            if ((req->flags & ST_REQ_NEXT_ZERO) && !t->o.disk) {
                *state = ST_ABSENT;
                memset(data, 0, ss);
                break;
            }
            if (t->o.unmap != ST_UNMAP_ZEROES)
                break;
            __attribute__((fallthrough));
        case ST_OP_WRITE_ZEROES:
            *state = t->o.disk ? ST_DATA : ST_ZERO;
            memset(data, 0, ss);
            break;
        }
    }
    if (req->op == ST_OP_BLOCK_STATUS) {
        req->extent.len = req->len;
        req->extent.flags = ST_EXTENT_ZERO;
    }
    return ST_OK;
}

static inline enum st_status
tl_execute_locked(struct tl *t, struct st_req *req)
{
    enum st_status status;

    pthread_mutex_lock(&t->lock);
    status = tl_execute(t, req);
    pthread_mutex_unlock(&t->lock);
    return status;
}

static inline void
tl_fire(struct st_timer *timer)
{
    struct tl_pending *p = st_container(timer, struct tl_pending, timer);
    struct st_req *req = p->req;

    req->status = (uint8_t)tl_execute_locked(p->t, req);
    p->t->in_flight--;
    free(p);
    st_complete(req);
}

static inline void
tl_submit(struct st_chan *c, struct st_req *req)
{
    struct tl *t = tl_of(c->node);
    struct tl_pending *p;

    if (!t->o.async && !t->hold) {
        st_finish(c->loop, req, tl_execute_locked(t, req));
        return;
    }
    p = calloc(1, sizeof(*p));
    *p = (struct tl_pending){.req = req, .t = t, .chan = c};
    p->timer.fire = tl_fire;
    if (++t->in_flight > t->most)
        t->most = t->in_flight;
    if (t->hold) {
        p->next = ((struct tl_chan *)c)->held;
        ((struct tl_chan *)c)->held = p;
        return;
    }
    st_timer_set(c->loop, &p->timer,
                 c->loop->now + 1 + st_rand_below(&t->rand, 1000));
}

static inline void
tl_cancel(struct st_chan *c, struct st_req *req)
{
    struct tl_pending **at = &((struct tl_chan *)c)->held, *p;

    for (; (p = *at); at = &p->next) {
        if (p->req == req) {
            *at = p->next;
            p->t->in_flight--;
            free(p);
            st_finish(c->loop, req, ST_ABORTED);
            return;
        }
    }
}

/* Let what is held go on, in order of its coming. */
static inline void
tl_release(struct st_chan *c)
{
    struct tl_chan *tc = (struct tl_chan *)c;
    struct tl *t = tl_of(c->node);
    struct tl_pending *p, *list = NULL;

    t->hold = false;
    while ((p = tc->held)) {
        tc->held = p->next;
        p->next = list;
        list = p;
    }
    while ((p = list)) {
        list = p->next;
        t->in_flight--;
        st_finish(c->loop, p->req, tl_execute_locked(t, p->req));
        free(p);
    }
}

static inline enum st_presence
tl_lookup(struct st_chan *c, uint64_t offset, uint64_t len, uint64_t *run)
{
    struct tl *t = tl_of(c->node);
    uint32_t ss = t->base.props.sector_size;
    uint64_t first = offset / ss, n = 1;
    enum st_presence p;

    assert_true(len > 0 && st_range_ok(offset, len, st_node_size(&t->base)));
    pthread_mutex_lock(&t->lock);
    p = (enum st_presence)t->state[first];
    while (n < len / ss && t->state[first + n] == p)
        n++;
    pthread_mutex_unlock(&t->lock);
    *run = n * ss;
    return p;
}

static inline int
tl_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct tl_chan *c = calloc(1, sizeof(*c));

    st_chan_init(&c->base, n, l, tl_submit);
    *out = &c->base;
    return 0;
}

static inline void
tl_close_chan(struct st_chan *c)
{
    assert_null(((struct tl_chan *)c)->held);
    free(c);
}

static inline int
tl_attach(struct st_node *n, const struct st_node *lower, struct st_err *err)
{
    struct tl *t = tl_of(n);

    if (!t->o.sectors && !lower)
        return st_err_set(err, EINVAL, "empty disk");
    if (!t->o.sector)
        n->props.sector_size = lower ? lower->props.sector_size : 512;
    n->props.physical_sector_size =
        (uint32_t)st_max(n->props.physical_sector_size, n->props.sector_size);
    if (n->props.unmap_granularity)
        n->props.unmap_granularity = n->props.sector_size;
    st_node_set_size(n, t->o.sectors ? t->o.sectors * n->props.sector_size
                                     : st_node_size(lower));
    if (!t->data)
        t->data = calloc(TL_MAX, n->props.sector_size);
    if (t->o.disk)
        memset(t->state, ST_DATA, TL_MAX);
    return 0;
}

static inline int
tl_resize(struct st_node *n, uint64_t size, struct st_err *err)
{
    struct tl *t = tl_of(n);
    uint32_t ss = n->props.sector_size;

    if (size % ss || size > (uint64_t)TL_MAX * ss)
        return st_err_set(err, EINVAL, "bad size");
    pthread_mutex_lock(&t->lock);
    for (uint64_t i = size / ss; i < st_node_size(n) / ss; i++)
        tl_set(t, i, 1, t->o.disk ? ST_DATA : ST_ABSENT, 0);
    pthread_mutex_unlock(&t->lock);
    st_node_set_size(n, size);
    return 0;
}

static inline void
tl_close(struct st_node *n)
{
    free(tl_of(n)->data);
    free(tl_of(n));
}

static inline struct tl *
tl_new(struct st_loop *l, struct tl_opts o)
{
    struct tl *t = calloc(1, sizeof(*t));
    uint32_t ops = ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_FLUSH) |
                   ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_UNMAP) |
                   ST_BIT(ST_OP_WRITE_ZEROES);

    if (o.disk)
        ops |= ST_BIT(ST_OP_BLOCK_STATUS);
    t->o = o;
    t->ops = (struct st_node_ops){
        .name = o.disk ? "tdisk" : "tlayer",
        .presence = !o.disk,
        .no_overwrite = o.no_overwrite,
        .open_chan = tl_open_chan,
        .close_chan = tl_close_chan,
        .cancel = tl_cancel,
        .lookup = o.lookup ? tl_lookup : NULL,
        .attach = tl_attach,
        .resize = o.fixed ? NULL : tl_resize,
        .close = tl_close,
    };
    st_node_init(&t->base, &t->ops, l, NULL);
    t->base.props.performs = ops & ~o.lacks;
    t->base.props.read_only = o.read_only;
    t->base.props.unmap = o.unmap;
    t->base.props.unmap_granularity = o.unmap != ST_UNMAP_IGNORED;
    t->base.props.fua = true;
    if (o.sector) {
        t->base.props.sector_size = o.sector;
        t->base.props.physical_sector_size = o.sector;
    }
    t->rand = st_rand_seed(o.sectors);
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

/* ---- The rig ---- */

enum { RIG_LAYERS = 8 };

struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_node *node; /* NULL: creation failed */
    struct st_chan *chan;
    struct tl *l[RIG_LAYERS];
    unsigned n;
    struct st_err err;
    char log[512]; /* the last message */
    struct st_log sink;
    char trace[TL_TRACE];
};

static inline void
rig_log(void *arg, enum st_level level, const char *line)
{
    (void)level;
    snprintf(((struct rig *)arg)->log, sizeof(((struct rig *)arg)->log), "%s",
             line);
}

static inline void
rig_open(struct rig *r, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->sink = (struct st_log){ST_LOG_WARN, rig_log, r};
    assert_int_equal(
        st_domain_create(&(struct st_domain_opts){.engine = "virtual",
                                                  .log = &r->sink,
                                                  .seed = seed},
                         &r->domain, &r->err),
        0);
    assert_int_equal(st_loop_create(r->domain, &r->loop, &r->err), 0);
}

/* Build a disk of N layers; CONF gives the flags, OPTS the layers. */
static inline int
rig_build(struct rig *r, unsigned n, const struct tl_opts *opts,
          const struct st_layer *conf, bool read_only)
{
    struct st_layer layers[RIG_LAYERS] = {0};
    int rc;

    r->n = n;
    for (unsigned i = 0; i < n; i++) {
        if (conf)
            layers[i] = conf[i];
        r->l[i] = tl_new(r->loop, opts[i]);
        r->l[i]->trace = r->trace;
        r->l[i]->letter = (char)('0' + i);
        layers[i].node = &r->l[i]->base;
    }
    rc = st_layered_create(r->loop, layers, n, read_only, "test", &r->node,
                           &r->err);
    if (rc < 0) {
        for (unsigned i = 0; i < n; i++)
            st_node_close(layers[i].node);
        return rc;
    }
    assert_int_equal(st_node_check(r->node, &r->err), 0);
    assert_int_equal(st_chan_open(r->node, r->loop, &r->chan), 0);
    return 0;
}

static inline void
rig_close(struct rig *r)
{
    st_chan_close(r->chan);
    st_node_close(r->node);
    st_loop_destroy(r->loop);
    st_domain_destroy(r->domain);
}

/* One request, and what it must look like when it comes back. */
struct rig_req {
    struct iovec iov[3];
    bool done;
    uint64_t offset, len;
    uint8_t flags;
    struct st_buf buf;
    struct st_req *req;
};

static inline void
rig_done(struct st_req *req)
{
    struct rig_req *q = req->owner;

    q->done = true;
    assert_int_equal(req->offset, q->offset);
    assert_int_equal(req->len, q->len);
    assert_int_equal(req->flags, q->flags);
    assert_ptr_equal(req->buf.iov, q->buf.iov);
    assert_int_equal(req->buf.skip, q->buf.skip);
}

static inline struct rig_req *
rig_start(struct st_node *node, struct st_chan *c, enum st_op op, void *buf,
          uint64_t offset, uint64_t len, unsigned flags)
{
    struct rig_req *q = calloc(1, sizeof(*q));

    q->req = malloc(st_req_size(st_node_depth(node)));
    st_req_init(q->req, st_node_depth(node), rig_done, q);
    /* Three segments, the first one behind a gap. */
    q->iov[0] = (struct iovec){(char *)buf - 8, 8 + len / 4};
    q->iov[1] = (struct iovec){(char *)buf + len / 4, len / 4};
    q->iov[2] =
        (struct iovec){(char *)buf + 2 * (len / 4), len - 2 * (len / 4)};
    q->req->op = (uint8_t)op;
    q->req->flags = q->flags = (uint8_t)flags;
    q->req->offset = q->offset = offset;
    q->req->len = q->len = len;
    q->req->buf = q->buf = (struct st_buf){q->iov, 8};
    st_submit(c, q->req);
    assert_false(q->done); /* never inline */
    return q;
}

static inline enum st_status
rig_end(struct st_loop *l, struct rig_req *q)
{
    enum st_status status;

    assert_true(st_loop_wait(l, &q->done));
    status = (enum st_status)q->req->status;
    free(q->req);
    free(q);
    return status;
}

static inline enum st_status
rig_run(struct rig *r, enum st_op op, void *buf, uint64_t offset, uint64_t len,
        unsigned flags)
{
    return rig_end(r->loop,
                   rig_start(r->node, r->chan, op, buf, offset, len, flags));
}

/* In sectors; each byte of sector i of BUF is its value. */
static inline enum st_status
rig_write(struct rig *r, uint64_t sector, uint64_t n, uint8_t value)
{
    uint32_t ss = r->node->props.sector_size;
    char *buf = malloc(n * ss + 8);
    enum st_status status;

    memset(buf + 8, value, n * ss);
    status = rig_run(r, ST_OP_WRITE, buf + 8, sector * ss, n * ss, 0);
    free(buf);
    return status;
}

/* Read N sectors and expect the values in WANT. */
#define rig_expect(r, sector, ...)                                             \
    rig_expect_at(r, sector, (const uint8_t[]){__VA_ARGS__},                   \
                  sizeof((const uint8_t[]){__VA_ARGS__}), __LINE__)

static inline void
rig_expect_at(struct rig *r, uint64_t sector, const uint8_t *want, uint64_t n,
              int line)
{
    uint32_t ss = r->node->props.sector_size;
    uint8_t *buf = malloc(n * ss + 8), *got = buf + 8;

    memset(got, 0xee, n * ss);
    assert_int_equal(rig_run(r, ST_OP_READ, got, sector * ss, n * ss, 0),
                     ST_OK);
    for (uint64_t i = 0; i < n * ss; i++)
        if (got[i] != want[i / ss])
            fail_msg("line %d: sector %llu byte %llu: 0x%x, expected 0x%x",
                     line, (unsigned long long)(sector + i / ss),
                     (unsigned long long)(i % ss), got[i], want[i / ss]);
    free(buf);
}

/* ---- Kinds of layers ---- */

enum { A = 0xa1, B = 0xb2, C = 0xc3, D = 0xd4 };

/* Most cases run for layers that answer lookup, for those that only mark, and
 * for those that take their time. */
static const struct tl_opts kinds[] = {
    {.lookup = true, .no_overwrite = true},
    {.no_overwrite = true},
    {.no_overwrite = true, .async = true},
    {.lookup = true, .no_overwrite = true, .async = true},
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* Options of kind K with SECTORS sectors of SECTOR bytes. */
static inline struct tl_opts
kind(unsigned k, uint64_t sectors, uint32_t sector)
{
    struct tl_opts o = kinds[k];

    o.sectors = sectors;
    o.sector = sector;
    return o;
}

#define for_kinds(k, ss)                                                       \
    for (unsigned k = 0; k < KINDS; k++)                                       \
        for (uint32_t ss = 512; ss <= 4096; ss *= 8)

static inline void
rig_make(struct rig *r, unsigned n, const struct tl_opts *o,
         const struct st_layer *conf, bool read_only)
{
    rig_open(r, 1);
    if (rig_build(r, n, o, conf, read_only) < 0)
        fail_msg("%s", r->err.text);
}

#endif
