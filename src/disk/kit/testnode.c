/* SPDX-License-Identifier: MIT
 *
 * The test backend, see testnode.h.
 *
 *   submit -> held, by channel -> timer (async, random pick) -> execute
 *         \-> execute, st_finish (neither async nor hanging)
 *
 * Each write has a number; `dirty` holds, by sector, that of the first write
 * which is not durable (0: none). A flush makes durable what had a number when
 * it was submitted; newer data of the same sectors may come along, as in life.
 */
#include "testnode.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "rand.h"

struct testnode {
    struct st_node base;      /* first */
    pthread_mutex_t lock;     /* everything below */
    uint8_t *bytes, *durable; /* owned */
    uint64_t *dirty;          /* owned */
    uint64_t writes;          /* the last write's number */
    struct st_rand rand;
    bool async, hang, uncancellable, strict;
    uint32_t fail_ops, fail_count;
    enum st_status fail_status;
    uint64_t count[ST_OP_COUNT], held, peak;
    struct st_list chans; /* testnode_chan.link */
    char complaint[160];
};

struct testnode_chan {
    struct st_chan base; /* first */
    struct st_list held; /* st_req.link */
    struct st_list link;
    struct st_timer timer;
    struct st_task kick; /* posted when the node hangs no more */
    bool kicked, closed;
};

static struct testnode *
testnode(const struct st_node *n)
{
    return (struct testnode *)(uintptr_t)n; /* the node's own: never const */
}

/* Make durable the sectors [FIRST, LAST) that became dirty by write UPTO. */
static void
make_durable(struct testnode *t, uint64_t first, uint64_t last, uint64_t upto)
{
    uint32_t sector = t->base.props.sector_size;

    for (uint64_t s = first; s < last; s++) {
        if (t->dirty[s] == 0 || t->dirty[s] > upto)
            continue;
        memcpy(t->durable + s * sector, t->bytes + s * sector, sector);
        t->dirty[s] = 0;
    }
}

/* ---- The judge of those above ---- */

static void __attribute__((format(printf, 2, 3)))
complain(struct testnode *t, const char *fmt, ...)
{
    va_list ap;

    if (t->complaint[0])
        return;
    va_start(ap, fmt);
    vsnprintf(t->complaint, sizeof(t->complaint), fmt, ap);
    va_end(ap);
}

/* Data bytes that REQ's buffer holds. */
static uint64_t
buffer_len(const struct st_req *req)
{
    switch ((enum st_op)req->op) {
    case ST_OP_READ:
    case ST_OP_WRITE:
        return req->len;
    case ST_OP_COMPARE_AND_WRITE:
        return 2 * req->len;
    default:
        return 0;
    }
}

static void
judge(struct testnode *t, const struct st_req *req)
{
    const struct st_props *p = &t->base.props;
    uint64_t len = buffer_len(req);

    if (!(p->performs & ST_BIT(req->op)))
        complain(t, "operation %u is not performed here", req->op);
    if (p->read_only && ST_OPS_MODIFY & ST_BIT(req->op))
        complain(t, "operation %u on a read-only node", req->op);
    if (req->flags & ST_REQ_FUA && !p->fua)
        complain(t, "FUA, which is not honoured here");
    if (!(ST_OPS_RANGED & ST_BIT(req->op)))
        return;
    if ((req->offset | req->len) & (p->sector_size - 1))
        complain(t, "operation %u of %#jx+%#jx is not in whole sectors",
                 req->op, (uintmax_t)req->offset, (uintmax_t)req->len);
    if (!st_range_ok(req->offset, req->len, ST_OFFSET_MAX))
        complain(t, "operation %u of %#jx+%#jx is not representable", req->op,
                 (uintmax_t)req->offset, (uintmax_t)req->len);
    else if (len && !st_buf_aligned(req->buf, len, p->mem_align))
        complain(t, "buffer not aligned to %u", p->mem_align);
    else if (len && p->max_segments) {
        struct iovec iov[64];
        size_t held;

        st_buf_iov(req->buf, len, iov,
                   p->max_segments < 64 ? p->max_segments : 64, &held);
        if (p->max_segments <= 64 && held < len)
            complain(t, "more than %u segments", p->max_segments);
    }
}

/* ---- Carrying out ---- */

static void
wrote(struct testnode *t, const struct st_req *req)
{
    uint32_t sector = t->base.props.sector_size;
    uint64_t first = req->offset / sector;
    uint64_t last = first + req->len / sector;

    t->writes++;
    for (uint64_t s = first; s < last; s++)
        if (t->dirty[s] == 0)
            t->dirty[s] = t->writes;
    if (req->flags & ST_REQ_FUA)
        make_durable(t, first, last, UINT64_MAX);
}

static enum st_status
block_status(struct testnode *t, struct st_req *req)
{
    uint32_t sector = t->base.props.sector_size;
    const uint8_t *p = t->bytes + req->offset;
    bool zero;

    if (req->len == 0)
        return ST_INVALID;
    zero = st_mem_is_zero(p, sector);
    req->extent.flags = zero ? ST_EXTENT_ZERO : 0;
    req->extent.len = sector;
    while (req->extent.len < req->len &&
           st_mem_is_zero(p + req->extent.len, sector) == zero)
        req->extent.len += sector;
    return ST_OK;
}

static enum st_status
compare_and_write(struct testnode *t, struct st_req *req)
{
    uint8_t *at = t->bytes + req->offset;
    st_autofree uint8_t *want = malloc(req->len + 1);

    if (!want)
        return ST_NO_SPACE;
    st_buf_read(req->buf, want, req->len);
    for (uint64_t i = 0; i < req->len; i++) {
        if (want[i] != at[i]) {
            req->miscompare_at = i;
            return ST_MISCOMPARE;
        }
    }
    st_buf_read(st_buf_advance(req->buf, req->len), at, req->len);
    wrote(t, req);
    return ST_OK;
}

static enum st_status
execute(struct testnode *t, struct st_req *req)
{
    bool ranged = ST_OPS_RANGED & ST_BIT(req->op);
    uint8_t *at;

    if (t->fail_count && t->fail_ops & ST_BIT(req->op)) {
        t->fail_count -= t->fail_count != UINT32_MAX;
        return t->fail_status;
    }
    if (!(t->base.props.performs & ST_BIT(req->op)))
        return ST_UNSUPPORTED;
    if (ranged && !st_node_range_ok(&t->base, req))
        return ST_RANGE;
    at = t->bytes + (ranged ? req->offset : 0);
    switch ((enum st_op)req->op) {
    case ST_OP_READ:
        st_buf_write(req->buf, at, req->len);
        return ST_OK;
    case ST_OP_WRITE:
        st_buf_read(req->buf, at, req->len);
        wrote(t, req);
        return ST_OK;
    case ST_OP_UNMAP:
        if (t->base.props.unmap == ST_UNMAP_IGNORED)
            return ST_OK;
        memset(at, t->base.props.unmap == ST_UNMAP_ZEROES ? 0 : 0xdd, req->len);
        wrote(t, req);
        return ST_OK;
    case ST_OP_WRITE_ZEROES:
        if (req->flags & ST_REQ_FAST && !t->base.props.fast_zero)
            return ST_UNSUPPORTED;
        memset(at, 0, req->len);
        wrote(t, req);
        return ST_OK;
    case ST_OP_BLOCK_STATUS:
        return block_status(t, req);
    case ST_OP_COMPARE_AND_WRITE:
        return compare_and_write(t, req);
    case ST_OP_FLUSH:
    case ST_OP_SHUTDOWN:
        make_durable(t, 0, st_node_size(&t->base) / t->base.props.sector_size,
                     req->miscompare_at);
        return ST_OK;
    case ST_OP_EJECT:
        return ST_OK;
    case ST_OP_COUNT:
        break;
    }
    return ST_UNSUPPORTED;
}

/* ---- Channels ---- */

/* Let one held request go, or the next timer do so. Locked. */
static void
chan_arm(struct testnode *t, struct testnode_chan *c)
{
    if (!t->hang && !st_list_empty(&c->held) && !c->timer.slot)
        st_timer_set(c->base.loop, &c->timer,
                     c->base.loop->now +
                         (t->async ? 1 + st_rand_below(&t->rand, 20000) : 0));
}

static void
chan_timer(struct st_timer *timer)
{
    struct testnode_chan *c = st_container(timer, struct testnode_chan, timer);
    struct testnode *t = testnode(c->base.node);
    struct st_req *req = NULL;
    uint64_t n = 0, pick;

    pthread_mutex_lock(&t->lock);
    if (!t->hang) {
        st_list_for(r, tmp, &c->held, struct st_req, link) n++;
        pick = st_rand_below(&t->rand, t->async ? n : 1);
        st_list_for(r, tmp, &c->held, struct st_req, link)
        {
            if (pick-- == 0) {
                req = r;
                break;
            }
        }
    }
    if (req) {
        st_list_remove(&req->link);
        t->held--;
        req->status = (uint8_t)execute(t, req);
    }
    chan_arm(t, c);
    pthread_mutex_unlock(&t->lock);
    if (req)
        st_complete(req);
}

static void
chan_kick(struct st_task *task)
{
    struct testnode_chan *c = st_container(task, struct testnode_chan, kick);
    struct testnode *t;

    if (c->closed) { /* on this very loop; its node may be gone as well */
        free(c);
        return;
    }
    t = testnode(c->base.node);
    pthread_mutex_lock(&t->lock);
    c->kicked = false;
    chan_arm(t, c);
    pthread_mutex_unlock(&t->lock);
}

static void
testnode_submit(struct st_chan *chan, struct st_req *req)
{
    struct testnode_chan *c = st_container(chan, struct testnode_chan, base);
    struct testnode *t = testnode(chan->node);
    enum st_status status = ST_OK;
    bool hold;

    pthread_mutex_lock(&t->lock);
    judge(t, req);
    t->count[req->op]++;
    if (!(ST_OPS_RANGED & ST_BIT(req->op)))
        req->miscompare_at = t->writes; /* what a flush covers */
    hold = t->async || t->hang;
    if (hold) {
        st_list_append(&c->held, &req->link);
        if (++t->held > t->peak)
            t->peak = t->held;
        chan_arm(t, c);
    } else {
        status = execute(t, req);
    }
    pthread_mutex_unlock(&t->lock);
    if (!hold)
        st_finish(chan->loop, req, status);
}

static void
testnode_cancel(struct st_chan *chan, struct st_req *req)
{
    struct testnode *t = testnode(chan->node);
    struct testnode_chan *c = st_container(chan, struct testnode_chan, base);
    bool mine = false;

    pthread_mutex_lock(&t->lock);
    st_list_for(r, tmp, &c->held, struct st_req, link)
    {
        if (r == req && !t->uncancellable) {
            st_list_remove(&r->link);
            t->held--;
            mine = true;
        }
    }
    pthread_mutex_unlock(&t->lock);
    if (mine)
        st_finish(chan->loop, req, ST_ABORTED);
}

static int
testnode_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct testnode *t = testnode(n);
    struct testnode_chan *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    st_chan_init(&c->base, n, l, testnode_submit);
    st_list_init(&c->held);
    c->timer.fire = chan_timer;
    c->kick.run = chan_kick;
    pthread_mutex_lock(&t->lock);
    st_list_append(&t->chans, &c->link);
    pthread_mutex_unlock(&t->lock);
    *out = &c->base;
    return 0;
}

static void
testnode_close_chan(struct st_chan *chan)
{
    struct testnode_chan *c = st_container(chan, struct testnode_chan, base);
    struct testnode *t = testnode(chan->node);
    bool kicked;

    pthread_mutex_lock(&t->lock);
    if (!st_list_empty(&c->held))
        complain(t, "channel closed with a request in it");
    st_timer_stop(chan->loop, &c->timer);
    st_list_remove(&c->link);
    c->closed = true;
    kicked = c->kicked;
    pthread_mutex_unlock(&t->lock);
    if (!kicked)
        free(c);
}

/* ---- The node -------------------------------------------------------------
 */

static int
testnode_resize(struct st_node *n, uint64_t size, struct st_err *err)
{
    struct testnode *t = testnode(n);
    st_autofree uint8_t *bytes = calloc(1, size + 1);
    st_autofree uint8_t *durable = calloc(1, size + 1);
    st_autofree uint64_t *dirty = calloc(size / 512 + 1, sizeof(*dirty));
    uint64_t keep;

    if (t->base.props.read_only)
        return st_err_set(err, EROFS, "testmem is read-only");
    if (size % t->base.props.sector_size)
        return st_err_set(err, EINVAL, "size is not in whole sectors");
    if (!bytes || !durable || !dirty)
        return st_err_set(err, ENOMEM, "no memory for a testmem");
    pthread_mutex_lock(&t->lock);
    keep = st_min(size, st_node_size(n));
    if (keep) {
        memcpy(bytes, t->bytes, keep);
        memcpy(durable, t->durable, keep);
        memcpy(dirty, t->dirty, keep / 512 * sizeof(*dirty));
    }
    free(t->bytes);
    free(t->durable);
    free(t->dirty);
    t->bytes = st_steal(bytes);
    t->durable = st_steal(durable);
    t->dirty = st_steal(dirty);
    st_node_set_size(n, size);
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static void
testnode_close(struct st_node *n)
{
    struct testnode *t = testnode(n);

    if (t->strict && t->complaint[0]) {
        fprintf(stderr, "FAILED: asked of testmem: %s\n", t->complaint);
        abort();
    }
    free(t->bytes);
    free(t->durable);
    free(t->dirty);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static const struct st_node_ops testnode_ops = {
    .name = "testmem",
    .open_chan = testnode_open_chan,
    .close_chan = testnode_close_chan,
    .cancel = testnode_cancel,
    .resize = testnode_resize,
    .close = testnode_close,
};

int
st_testnode_create(struct st_loop *home, const struct st_testnode_opts *o,
                   struct st_node **out, struct st_err *err)
{
    struct testnode *t = calloc(1, sizeof(*t));
    struct st_props *p;
    int rc;

    if (!t)
        return st_err_set(err, ENOMEM, "no memory for a testmem");
    st_node_init(&t->base, &testnode_ops, home, "testmem");
    pthread_mutex_init(&t->lock, NULL);
    st_list_init(&t->chans);
    p = &t->base.props;
    p->performs = o->performs ? o->performs : ST_BIT(ST_OP_COUNT) - 1;
    p->sector_size = o->sector ? o->sector : 512;
    p->physical_sector_size = p->sector_size;
    p->mem_align = o->mem_align ? o->mem_align : 1;
    p->max_segments = o->max_segments;
    p->unmap = p->performs & ST_BIT(ST_OP_UNMAP) ? o->unmap : ST_UNMAP_IGNORED;
    p->unmap_granularity = p->unmap == ST_UNMAP_IGNORED ? 0 : p->sector_size;
    p->fua = o->fua;
    p->fast_zero = o->fast_zero;
    t->async = o->async;
    t->strict = o->strict;
    t->rand = st_rand_seed(o->seed);
    rc = testnode_resize(&t->base, o->size, err);
    p->read_only = o->read_only;
    if (rc < 0)
        testnode_close(&t->base);
    else
        *out = &t->base;
    return rc;
}

/* ---- Knobs ------------------------------------------------------------------
 */

void
st_testnode_fail(struct st_node *n, uint32_t op_mask, enum st_status status,
                 uint32_t count)
{
    struct testnode *t = testnode(n);

    pthread_mutex_lock(&t->lock);
    t->fail_ops = op_mask;
    t->fail_status = status;
    t->fail_count = count;
    pthread_mutex_unlock(&t->lock);
}

void
st_testnode_hang(struct st_node *n, bool hang)
{
    struct testnode *t = testnode(n);

    pthread_mutex_lock(&t->lock);
    t->hang = hang;
    st_list_for(c, tmp, &t->chans, struct testnode_chan, link)
    {
        if (!hang && !c->kicked) {
            c->kicked = true;
            st_post(c->base.loop, &c->kick);
        }
    }
    pthread_mutex_unlock(&t->lock);
}

void
st_testnode_cancellable(struct st_node *n, bool can)
{
    struct testnode *t = testnode(n);

    pthread_mutex_lock(&t->lock);
    t->uncancellable = !can;
    pthread_mutex_unlock(&t->lock);
}

int
st_testnode_set_size(struct st_node *n, uint64_t size)
{
    int rc = testnode_resize(n, size, NULL);

    if (rc == 0)
        st_node_changed(n, ST_EVENT_RESIZE);
    return rc;
}

uint64_t
st_testnode_count(const struct st_node *n, enum st_op op)
{
    return testnode(n)->count[op];
}

uint64_t
st_testnode_held(const struct st_node *n)
{
    return testnode(n)->held;
}

uint64_t
st_testnode_peak(const struct st_node *n)
{
    return testnode(n)->peak;
}

uint8_t *
st_testnode_bytes(struct st_node *n)
{
    return testnode(n)->bytes;
}

const uint8_t *
st_testnode_durable(struct st_node *n)
{
    return testnode(n)->durable;
}

const char *
st_testnode_complaint(const struct st_node *n)
{
    const struct testnode *t = testnode(n);

    return t->complaint[0] ? t->complaint : NULL;
}
