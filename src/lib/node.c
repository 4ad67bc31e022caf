/* SPDX-License-Identifier: MIT
 *
 * Nodes of the embedder's own. See include/strata/node.h for what is promised.
 *
 *   the tree -> submit: performed? in range? -> [frame] -> ops.submit
 *   any thread: strata_node_complete -> message to the loop -> the tree
 *
 * A request of the embedder's is a st_req whose topmost frame is ours: u[0]
 * says whether it was completed, u[1] is a pointer of the embedder's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib.h"

/* Operations that a node can perform; the root makes the others of them. */
#define NODE_OPS                                                               \
    (ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_FLUSH) |          \
     ST_BIT(ST_OP_UNMAP) | ST_BIT(ST_OP_WRITE_ZEROES) |                        \
     ST_BIT(ST_OP_BLOCK_STATUS))

enum { NODE_OPEN = 0, NODE_COMPLETED = 1 }; /* u[0] */

struct strata_node {
    struct st_node base; /* first */
    struct st_node_ops face;
    struct strata_node_ops ops;
    void *arg;
    _Atomic(struct st_loop *) home; /* NULL: not part of a tree yet */
    _Atomic unsigned events;        /* to be told at home */
    _Atomic bool posted;
    struct st_task task;
};

static struct st_req *
node_req(const struct strata_node_request *request)
{
    return (struct st_req *)(uintptr_t)request; /* the owner's: never const */
}

static struct st_frame *
node_frame(const struct st_req *req)
{
    return req->top - 1;
}

/* ---- Channels ---- */

static void
node_done(struct st_chan *c, struct st_req *req)
{
    (void)c;
    st_complete(req);
}

static void
node_submit(struct st_chan *c, struct st_req *req)
{
    struct strata_node *n = (struct strata_node *)c->node;
    struct st_frame *f;

    if (!(n->base.props.performs & ST_BIT(req->op))) {
        st_finish(c->loop, req, ST_UNSUPPORTED);
        return;
    }
    if (ST_BIT(req->op) & ST_OPS_RANGED && !st_node_range_ok(&n->base, req)) {
        st_finish(c->loop, req, ST_RANGE);
        return;
    }
    f = st_push(req, node_done, c);
    f->u[0] = NODE_OPEN;
    f->u[1] = 0;
    req->extent.len = 0;
    n->ops.submit(n->arg, (struct strata_node_request *)req);
}

static void
node_cancel(struct st_chan *c, struct st_req *req)
{
    struct strata_node *n = (struct strata_node *)c->node;

    /* Completed means: its message is on its way here. */
    if (__atomic_load_n(&node_frame(req)->u[0], __ATOMIC_ACQUIRE) == NODE_OPEN)
        n->ops.cancel(n->arg, (struct strata_node_request *)req);
}

static int
node_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct st_chan *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    st_chan_init(c, n, l, node_submit);
    *out = c;
    return 0;
}

static void
node_close_chan(struct st_chan *c)
{
    free(c);
}

/* ---- Requests ---- */

enum strata_op
strata_node_request_op(const struct strata_node_request *request)
{
    return (enum strata_op)node_req(request)->op;
}

unsigned
strata_node_request_flags(const struct strata_node_request *request)
{
    return node_req(request)->flags &
           (STRATA_FUA | STRATA_MAY_UNMAP | STRATA_FAST);
}

uint64_t
strata_node_request_offset(const struct strata_node_request *request)
{
    return node_req(request)->offset;
}

uint64_t
strata_node_request_length(const struct strata_node_request *request)
{
    return node_req(request)->len;
}

/* How many of LENGTH bytes from AT on are REQ's, if it is an OP. */
static size_t
inside(const struct st_req *req, enum st_op op, uint64_t at, size_t length)
{
    if (req->op != op || at >= req->len)
        return 0;
    return length < req->len - at ? length : (size_t)(req->len - at);
}

size_t
strata_node_request_get(const struct strata_node_request *request, uint64_t at,
                        void *buf, size_t length)
{
    const struct st_req *req = node_req(request);
    size_t n = inside(req, ST_OP_WRITE, at, length);

    if (n)
        st_buf_read(st_buf_advance(req->buf, at), buf, n);
    return n;
}

size_t
strata_node_request_put(struct strata_node_request *request, uint64_t at,
                        const void *buf, size_t length)
{
    const struct st_req *req = node_req(request);
    size_t n = inside(req, ST_OP_READ, at, length);

    if (n)
        st_buf_write(st_buf_advance(req->buf, at), buf, n);
    return n;
}

int
strata_node_request_iov(const struct strata_node_request *request, uint64_t at,
                        struct iovec *out, int max, uint64_t *held)
{
    const struct st_req *req = node_req(request);
    size_t n = inside(req, (enum st_op)req->op, at, SIZE_MAX), done = 0;
    unsigned count = 0;

    if (n && max > 0 && (req->op == ST_OP_READ || req->op == ST_OP_WRITE))
        count = st_buf_iov(st_buf_advance(req->buf, at), n, out, (unsigned)max,
                           &done);
    if (held)
        *held = done;
    return (int)count;
}

void
strata_node_request_set(struct strata_node_request *request, void *mine)
{
    node_frame(node_req(request))->u[1] = (uintptr_t)mine;
}

void *
strata_node_request_mine(const struct strata_node_request *request)
{
    return (void *)(uintptr_t)node_frame(node_req(request))->u[1];
}

int
strata_node_request_extent(struct strata_node_request *request, uint64_t length,
                           unsigned flags)
{
    struct st_req *req = node_req(request);

    if (req->op != ST_OP_BLOCK_STATUS || !length ||
        flags & ~(unsigned)(STRATA_EXTENT_HOLE | STRATA_EXTENT_ZERO))
        return -EINVAL;
    req->extent.len = st_min(length, req->len);
    req->extent.flags = flags;
    return 0;
}

static void
node_completed(struct st_task *t)
{
    st_complete(st_container(t, struct st_req, task));
}

void
strata_node_complete(struct strata_node_request *request,
                     enum strata_status status)
{
    struct st_req *req = node_req(request);
    struct st_frame *f = node_frame(req);
    struct st_loop *l = f->chan->loop;

    if (__atomic_exchange_n(&f->u[0], NODE_COMPLETED, __ATOMIC_ACQ_REL) !=
        NODE_OPEN) {
        st_error(st_domain_log(l->domain), "%s: completes a request twice",
                 f->chan->node->label);
        return;
    }
    if ((unsigned)status >= ST_STATUS_COUNT ||
        (status == STRATA_OK && req->op == ST_OP_BLOCK_STATUS &&
         !req->extent.len))
        status = STRATA_IO;
    req->status = (uint8_t)status;
    req->task.run = node_completed;
    st_post(l, &req->task);
}

/* ---- Events ---- */

static void
node_tell(struct st_task *t)
{
    struct strata_node *n = st_container(t, struct strata_node, task);

    atomic_store(&n->posted, false);
    st_node_changed(&n->base, atomic_exchange(&n->events, 0));
}

/* The tree above is told at home, where it is also taken down. */
static void
node_event(struct strata_node *n, unsigned events)
{
    struct st_loop *home = atomic_load(&n->home);

    atomic_fetch_or(&n->events, events);
    if (home && !atomic_exchange(&n->posted, true))
        st_post(home, &n->task);
}

uint64_t
strata_node_size(const struct strata_node *n)
{
    return st_node_size(&n->base);
}

int
strata_node_set_size(struct strata_node *n, uint64_t bytes)
{
    if (bytes % n->base.props.sector_size || bytes > ST_OFFSET_MAX)
        return -EINVAL;
    st_node_set_size(&n->base, bytes);
    node_event(n, ST_EVENT_RESIZE);
    return 0;
}

void
strata_node_media_changed(struct strata_node *n)
{
    node_event(n, ST_EVENT_MEDIA);
}

/* ---- Life ---- */

static int
node_resize(struct st_node *base, uint64_t size, struct st_err *err)
{
    struct strata_node *n = (struct strata_node *)base;
    struct strata_error e = {""};
    int rc = n->ops.resize(n->arg, size, &e);

    if (rc > 0) /* an errno with the wrong sign is a likely slip */
        rc = -EINVAL;
    e.text[sizeof(e.text) - 1] = '\0';
    if (rc < 0)
        return st_err_set(err, -rc, "%s: %.300s", base->label,
                          e.text[0] ? e.text : st_strerror(rc));
    st_node_set_size(base, size);
    return 0;
}

static void
node_close(struct st_node *base)
{
    struct strata_node *n = (struct strata_node *)base;
    struct st_loop *home = atomic_load(&n->home);

    if (n->ops.close)
        n->ops.close(n->arg);
    if (home)
        st_retract(home, &n->task);
    free(n);
}

struct st_node *
lib_node_settle(struct strata_node *n, struct st_loop *home, const char *label)
{
    n->base.home = home;
    snprintf(n->base.label, sizeof(n->base.label), "%s", label);
    atomic_store(&n->home, home);
    return &n->base;
}

static void
node_props(const struct strata_props *from, struct st_props *p)
{
    p->performs = from->operations ? from->operations
                                   : ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) |
                                         ST_BIT(ST_OP_FLUSH);
    if (from->sector_size)
        p->sector_size = from->sector_size;
    p->physical_sector_size = from->physical_sector_size
                                  ? from->physical_sector_size
                                  : p->sector_size;
    if (from->mem_align)
        p->mem_align = from->mem_align;
    p->max_segments = from->max_segments;
    p->unmap_granularity = from->unmap_granularity;
    p->unmap = (enum st_unmap)from->unmap;
    p->read_only = from->flags & STRATA_PROP_READ_ONLY;
    p->fua = from->flags & STRATA_PROP_FUA;
    p->fast_zero = from->flags & STRATA_PROP_FAST_ZERO;
    p->rotational = from->flags & STRATA_PROP_ROTATIONAL;
    p->has_id = from->flags & STRATA_PROP_ID;
    memcpy(p->id, from->id, sizeof(p->id));
}

static int
node_check(const struct strata_node_ops *ops, const struct strata_props *p,
           struct strata_error *err)
{
    if (!ops->name || !ops->submit)
        return lib_err(err, EINVAL, "strata_node_ops has no %s",
                       ops->name ? "submit function" : "name");
    if (p->operations & ~NODE_OPS)
        return lib_err(err, EINVAL,
                       "%s: operations are %#x, expected some of %#x",
                       ops->name, p->operations, NODE_OPS);
    if (p->flags & ~(unsigned)(STRATA_PROP_ID * 2 - 1))
        return lib_err(err, EINVAL, "%s: unknown flags %#x", ops->name,
                       p->flags);
    if ((unsigned)p->unmap > STRATA_UNMAP_ZEROES)
        return lib_err(err, EINVAL, "%s: unmap is %d, expected 0 to %d",
                       ops->name, (int)p->unmap, STRATA_UNMAP_ZEROES);
    return 0;
}

int
strata_node_create(const struct strata_node_ops *ops,
                   const struct strata_props *props, uint64_t bytes, void *arg,
                   struct strata_node **out, struct strata_error *err)
{
    struct strata_node_ops o;
    struct strata_props p;
    struct strata_node *n;
    struct st_err e = {""};
    int rc = lib_take(&o, sizeof(o), ops, "strata_node_ops", err);

    if (rc == 0)
        rc = lib_take(&p, sizeof(p), props, "strata_props", err);
    if (rc == 0)
        rc = node_check(&o, &p, err);
    if (rc < 0)
        return rc;
    n = calloc(1, sizeof(*n));
    if (!n)
        return lib_err(err, ENOMEM, "%s: no memory", o.name);
    n->ops = o;
    n->arg = arg;
    n->task.run = node_tell;
    n->face = (struct st_node_ops){
        .name = o.name,
        .open_chan = node_open_chan,
        .close_chan = node_close_chan,
        .cancel = o.cancel ? node_cancel : NULL,
        .resize = o.resize ? node_resize : NULL,
        .close = node_close,
    };
    st_node_init(&n->base, &n->face, NULL, o.name);
    node_props(&p, &n->base.props);
    st_node_set_size(&n->base, bytes);
    rc = st_node_check(&n->base, &e);
    if (rc < 0) {
        free(n);
        return lib_err_from(err, rc, &e);
    }
    *out = n;
    return 0;
}

void
strata_node_destroy(struct strata_node *n)
{
    if (n)
        node_close(&n->base);
}
