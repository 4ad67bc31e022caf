/* SPDX-License-Identifier: MIT
 *
 * Layered disk, the door: a request that one layer can carry out is passed on
 * to it as it is, without a frame; everything else is split.
 *
 *   read --> layer 0: lookup: absent ---> layer 1: a plain disk --> pass on
 *                 |     \                      \
 *                 |      data: pass on          nothing shows below: pass on
 *                 |      zeroes: zero-fill
 *                 no lookup, or not the same for the whole request: split
 */
#include <errno.h>

#include "layered_private.h"

/* Apart from chan_submit, which has then no registers to save. */
static void __attribute__((noinline))
chan_read(struct st_layered_chan *c, struct st_req *req)
{
    uint64_t below, run;

    /* The request lies within what each layer that D comes to shows. */
    for (struct st_layered_door *d = c->door;; d++) {
        enum st_presence what;

        /* Where nothing shows below, absent sectors are zero: an unmarked
         * read gives just that. */
        below = atomic_load_explicit(d->below, memory_order_acquire);
        if (req->offset >= below || !d->presence) {
            st_submit(d->chan, req);
            return;
        }
        if (!d->lookup)
            break;
        what = d->lookup(d->chan, req->offset, req->len, &run);
        if (run < req->len)
            break;
        if (what != ST_ABSENT) {
            if (d->cache)
                st_count(&c->stat[ST_LAYERED_HIT], req->len);
            if (what == ST_DATA) {
                st_submit(d->chan, req);
            } else {
                st_buf_zero(req->buf, req->len);
                st_finish(c->base.loop, req, ST_OK);
            }
            return;
        }
        if (d->cache || req->len > below - req->offset)
            break;
    }
    st_layered_split(c, req);
}

static void
status_done(struct st_chan *chan, struct st_req *req)
{
    (void)chan;
    req->len = st_frame(req)->u[0];
    st_complete(req);
}

/* What the topmost layer says that holds the first sector, for as long as no
 * layer above it holds any. A layer that cannot say at once counts as data. */
static void __attribute__((noinline))
chan_status(struct st_layered_chan *c, struct st_req *req)
{
    struct st_layered *n = st_layered_of(c);
    uint64_t len = req->len;
    uint32_t flags = ST_EXTENT_HOLE | ST_EXTENT_ZERO;

    for (unsigned i = 0; i < n->base.nchild; i++) {
        const struct st_layered_door *d = &c->door[i];
        enum st_presence what = ST_DATA;

        if (i > 0) {
            uint64_t visible = st_layered_visible(n, i);

            if (req->offset >= visible)
                break;
            len = st_min(len, visible - req->offset);
        }
        if (!d->presence &&
            n->base.child[i]->props.performs & ST_BIT(ST_OP_BLOCK_STATUS)) {
            st_push(req, status_done, &c->base)->u[0] = req->len;
            req->len = len;
            st_submit(d->chan, req);
            return;
        }
        if (d->lookup)
            what = d->lookup(d->chan, req->offset, len, &len);
        if (what != ST_ABSENT) {
            flags = what == ST_DATA ? 0 : flags;
            break;
        }
    }
    req->extent = (struct st_extent){len, flags};
    st_finish(c->base.loop, req, ST_OK);
}

static void
chan_submit(struct st_chan *chan, struct st_req *req)
{
    struct st_layered_chan *c = st_layered_chan_of(chan);
    uint32_t op = ST_BIT(req->op);
    bool fits;

    if (op & c->pass) {
        st_submit(c->door[0].chan, req);
        return;
    }
    /* Layer 0's own size: the event of a change may still be under way. */
    fits = st_node_range_ok(c->door[0].chan->node, req);
    if (req->op == ST_OP_READ && fits && req->len)
        chan_read(c, req);
    else if (!(chan->node->props.performs & op))
        st_finish(chan->loop, req, ST_UNSUPPORTED);
    else if (req->op == ST_OP_EJECT)
        st_submit(c->door[st_layered_of(c)->eject].chan, req);
    else if ((op & ST_OPS_RANGED) && (!fits || !req->len))
        st_finish(chan->loop, req, fits ? ST_OK : ST_RANGE);
    else if (req->op == ST_OP_BLOCK_STATUS)
        chan_status(c, req);
    else
        st_layered_split(c, req);
}

/* ---- Opening and closing ---- */

int
st_layered_open_chan(struct st_node *node, struct st_loop *l,
                     struct st_chan **out)
{
    struct st_layered *n = st_container(node, struct st_layered, base);
    struct st_layered_chan *c =
        calloc(1, sizeof(*c) + node->nchild * sizeof(c->door[0]));
    unsigned slot = 0;
    int rc;

    if (!c)
        return -ENOMEM;
    st_chan_init(&c->base, node, l, chan_submit);
    st_list_init(&c->link);
    for (unsigned i = 0; i < node->nchild; i++) {
        struct st_layered_door *d = &c->door[i];
        const struct st_node_ops *ops = node->child[i]->ops;

        rc = st_chan_open(node->child[i], l, &d->chan);
        if (rc < 0)
            goto fail;
        d->lookup = ops->presence ? ops->lookup : NULL;
        d->presence = ops->presence;
        d->cache = n->layer[i].read_cache;
        d->below = &n->layer[i + 1].visible;
        d->slot = d->cache ? slot++ : 0;
    }
    /* A single layer needs no help; a single written one only with unmap. */
    if (n->nwritten == 1)
        c->pass = ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_WRITE_ZEROES) |
                  ST_BIT(ST_OP_FLUSH) | ST_BIT(ST_OP_SHUTDOWN);
    if (node->nchild == 1)
        c->pass |= ST_BIT(ST_OP_READ);
    c->pass &= node->props.performs;
    rc = st_layered_split_init(c, st_node_depth(node) - 1);
    if (rc < 0)
        goto fail;
    pthread_mutex_lock(&n->lock);
    st_list_append(&n->chans, &c->link);
    pthread_mutex_unlock(&n->lock);
    *out = &c->base;
    return 0;

fail:
    st_layered_close_chan(&c->base);
    return rc;
}

void
st_layered_close_chan(struct st_chan *chan)
{
    struct st_layered_chan *c = st_layered_chan_of(chan);
    struct st_layered *n = st_layered_of(c);

    pthread_mutex_lock(&n->lock);
    st_list_remove(&c->link);
    for (unsigned i = 0; i < ST_LAYERED_STATS; i++)
        st_count(&n->past[i], st_counter_get(&c->stat[i]));
    pthread_mutex_unlock(&n->lock);
    st_layered_split_free(c);
    for (unsigned i = 0; i < n->base.nchild; i++)
        st_chan_close(c->door[i].chan);
    free(c);
}
