/* SPDX-License-Identifier: MIT
 *
 * Layered disk, the splitter: requests that several layers have a part in.
 *
 * A read goes slice by slice:
 *
 *   +-> ASK layer 0, 1, ...: kids for the runs that nobody had so far
 *   |     |      a read_cache layer missed some: from here on into the split's
 *   |     v      private copy
 *   |   fill what is left with zeroes; private copy --> guest
 *   |     v
 *   +-- POPULATE: the private copy --> each cache's missing sectors
 *
 * What lies in the guest's buffer by the first miss was found in upper layers
 * or in that cache: no cache wants it. What comes later goes to the private
 * copy without exception and from there to the guest once, so no run is lost
 * between the two, and the guest cannot alter what a cache takes up.
 *
 * The guest's request completes after the population: it is what drains count,
 * and a population that outlived it could meet a closed channel, or write old
 * data after a shrink.
 *
 * Everything else (WRITE, FLUSH, ... of several written layers) is a CHAIN: one
 * kid at a time, from the top down; the first error ends it.
 *
 * A channel has a fixed number of splits, each with a few kids of its own, so
 * that the split is the only thing to wait for. A layer
 * is asked for several runs at once; all kids are awaited, since they use the
 * guest's buffer, before the first error ends the request.
 */
#include <errno.h>
#include <string.h>

#include "bitmap.h"
#include "layered_private.h"

enum {
    SPLITS = 32, /* a channel */
    KIDS = 4,    /* a split */
    SLICE_SECTORS = 2048,
    SLICE_WORDS = SLICE_SECTORS / 64,
    COPY_BYTES = 128 << 10, /* bounds a slice where there is a read cache */
};

struct split {
    struct st_list link; /* st_layered_chan.idle */
    struct st_layered_chan *chan;
    struct st_req *parent; /* NULL: idle */
    struct st_task task;   /* the next slice, in another round */
    enum { SLICE, ASK, POPULATE, CHAIN } phase;
    enum st_status status; /* the first error */
    unsigned layer;        /* whose turn it is */
    unsigned busy;         /* kids out */
    struct st_list kids;   /* st_req.link of those that are not */
    uint64_t at;        /* bytes done before this slice; CHAIN: by this layer */
    size_t sectors;     /* of this slice */
    size_t pos;         /* sectors of it that are dealt with in this layer */
    size_t held;        /* sectors found before this layer's turn */
    struct st_buf to;   /* where the slice is read to */
    struct iovec copy;  /* private; no base without a read cache */
    uint64_t *switched; /* found before the private copy; NULL: not in use */
    uint64_t found[SLICE_WORDS];
    uint64_t seen[][SLICE_WORDS]; /* per cache: found, after its turn */
};

static void split_go(struct split *s);

/* ---- Kids ---- */

static size_t
split_size(const struct st_layered_chan *c)
{
    return sizeof(struct split) +
           st_layered_of(c)->ncache * sizeof(uint64_t[SLICE_WORDS]);
}

/* The channel's memory: a split, its kids, the next split, ... */
static struct split *
split_at(struct st_layered_chan *c, unsigned i)
{
    size_t each = split_size(c) + KIDS * c->kid_size;

    return (struct split *)(void *)(c->memory + i * each);
}

static struct st_req *
split_kid_at(struct split *s, unsigned i)
{
    char *kids = (char *)s + split_size(s->chan);

    return (struct st_req *)(void *)(kids + i * s->chan->kid_size);
}

static void
kid_done(struct st_req *kid)
{
    struct split *s = kid->owner;
    struct st_layered *n = st_layered_of(s->chan);

    s->busy--;
    st_list_append(&s->kids, &kid->link);
    if (kid->status == ST_OK) {
        if (s->phase == POPULATE)
            st_count(&s->chan->stat[ST_LAYERED_POPULATED], kid->len);
    } else if (s->status == ST_OK && s->phase == POPULATE) {
        st_count(&s->chan->stat[ST_LAYERED_ERRORS], 1);
        st_warn_limited(st_domain_log(n->base.home->domain), &n->limiter,
                        "%s: layer %u: cannot populate: %s", n->base.label,
                        s->layer, st_status_name(kid->status));
    } else if (s->status == ST_OK) {
        /* The request was in range: a lower layer's end is our affair. */
        s->status =
            s->layer > 0 && kid->status == ST_RANGE ? ST_IO : kid->status;
    }
    split_go(s);
}

/* A request for the current layer. */
static struct st_req *
split_kid(struct split *s, unsigned op, unsigned flags)
{
    struct st_req *kid = st_container(s->kids.next, struct st_req, link);

    st_list_remove(&kid->link);
    s->busy++;
    kid->op = (uint8_t)op;
    kid->flags = (uint8_t)flags;
    kid->nexus = s->parent->nexus;
    return kid;
}

/* ---- Reads ---- */

/* The first run of clear bits in [POS, END): its length, 0 if there is none. */
static size_t
gap(const uint64_t *map, size_t pos, size_t end, size_t *start)
{
    *start = st_bitmap_find(map, pos, end, false);
    return st_bitmap_find(map, *start, end, true) - *start;
}

/* Sectors of the slice that the current layer shows; layer n: none. */
static size_t
split_shown(const struct split *s)
{
    uint64_t from = s->parent->offset + s->at;
    uint64_t visible = st_layered_visible(st_layered_of(s->chan), s->layer);

    return visible <= from
               ? 0
               : st_min(s->sectors, (visible - from) >> s->chan->shift);
}

static void
split_slice(struct split *s)
{
    s->sectors =
        st_min(s->chan->slice, (s->parent->len - s->at) >> s->chan->shift);
    s->to = st_buf_advance(s->parent->buf, s->at);
    s->switched = NULL;
    s->layer = 0;
    s->pos = s->held = 0;
    memset(s->found, 0, sizeof(s->found));
    s->phase = ASK;
}

/* Start kids for the gaps of MAP in the first END sectors: ASK: to read what
 * the current layer may have; POPULATE: to write what it, a cache, missed. */
static void
split_scan(struct split *s, const uint64_t *map, size_t end)
{
    const struct st_layered_door *d = &s->chan->door[s->layer];
    bool mark = d->presence && !d->lookup, write = s->phase == POPULATE;
    unsigned shift = s->chan->shift;
    size_t start, count;

    while (!st_list_empty(&s->kids) &&
           (count = gap(map, s->pos, end, &start)) > 0) {
        uint64_t offset = s->at + (start << shift), len = count << shift;
        struct st_buf buf = st_buf_advance(s->to, start << shift);
        enum st_presence what = ST_DATA;
        struct st_req *kid;

        if (d->lookup && !write)
            what = d->lookup(d->chan, s->parent->offset + offset, len, &len);
        s->pos = start + (len >> shift);
        if (what != ST_ABSENT && !mark && !write)
            st_bitmap_set_range(s->found, start, len >> shift);
        if (what == ST_ZERO)
            st_buf_zero(buf, len);
        if (what != ST_DATA)
            continue;
        kid = write ? split_kid(s, ST_OP_WRITE, ST_REQ_NO_OVERWRITE)
                    : split_kid(s, ST_OP_READ, mark ? ST_REQ_MARK : 0);
        kid->offset = s->parent->offset + offset;
        kid->len = len;
        kid->buf = buf;
        kid->marks = s->found;
        kid->mark_first = (uint32_t)start;
        st_submit(d->chan, kid);
    }
}

/* The current layer has answered for END sectors: on to the next one. */
static void
split_answered(struct split *s, size_t end)
{
    const struct st_layered_door *d = &s->chan->door[s->layer];
    size_t found = st_bitmap_count(s->found, s->sectors), missed;

    if (d->cache) {
        missed = end - st_bitmap_count(s->found, end);
        st_count(&s->chan->stat[ST_LAYERED_HIT], (found - s->held)
                                                     << s->chan->shift);
        st_count(&s->chan->stat[ST_LAYERED_MISS], missed << s->chan->shift);
        memcpy(s->seen[d->slot], s->found, sizeof(s->found));
        if (missed && !s->switched) {
            s->switched = s->seen[d->slot];
            s->to = (struct st_buf){&s->copy, 0};
        }
    }
    s->layer++;
    s->pos = 0;
    s->held = found;
}

/* All layers have answered: the rest is zero; the guest gets its data. */
static void
split_deliver(struct split *s)
{
    struct st_buf guest = st_buf_advance(s->parent->buf, s->at);
    unsigned shift = s->chan->shift;
    size_t count, start = 0;

    for (size_t pos = 0; (count = gap(s->found, pos, s->sectors, &start)) > 0;
         pos = start + count)
        st_buf_zero(st_buf_advance(s->to, start << shift), count << shift);
    for (size_t pos = 0;
         s->switched && (count = gap(s->switched, pos, s->sectors, &start)) > 0;
         pos = start + count)
        st_buf_write(st_buf_advance(guest, start << shift),
                     (char *)s->copy.iov_base + (start << shift),
                     count << shift);
    s->phase = POPULATE;
    s->layer = 0;
    s->pos = 0;
}

/* ---- Chains ---- */

/* Start the next kid of a chain. False: there is none. */
static bool
chain_next(struct split *s)
{
    const struct st_layered *n = st_layered_of(s->chan);
    const struct st_req *parent = s->parent;
    bool ranged = ST_BIT(parent->op) & ST_OPS_RANGED;

    for (; s->layer < n->nwritten; s->layer++, s->at = 0) {
        const struct st_layered_door *d = &s->chan->door[s->layer];
        uint64_t end = ranged ? parent->len : 1, size, below;
        unsigned flags = parent->flags;
        struct st_req *kid;

        if (ranged && s->layer > 0) {
            /* A shorter layer: the rest lives above it. */
            size = st_node_size(n->base.child[s->layer]);
            end = st_min(end, size - st_min(size, parent->offset));
        }
        if (s->at >= end)
            continue;
        if (parent->op == ST_OP_UNMAP && d->presence) {
            below = st_layered_visible(n, s->layer + 1);
            below -= st_min(below, parent->offset);
            if (s->at >= below)
                flags |= ST_REQ_NEXT_ZERO;
            else
                end = st_min(end, below);
        }
        kid = split_kid(s, parent->op, flags);
        kid->offset = parent->offset + s->at;
        kid->len = end - s->at;
        kid->buf = parent->buf; /* a write is never cut at its front */
        s->at = end;
        st_submit(d->chan, kid);
        return true;
    }
    return false;
}

/* ---- The machine ---- */

static void
split_finish(struct split *s)
{
    struct st_layered_chan *c = s->chan;
    struct st_req *parent = s->parent;

    s->parent = NULL;
    st_list_append(&c->idle, &s->link);
    if (!st_list_empty(&c->waiting) && !c->scheduled) {
        c->scheduled = true;
        st_ready(c->base.loop, &c->task);
    }
    st_finish(c->base.loop, parent, s->status);
}

/* Go on until there is something to wait for. */
static void
split_go(struct split *s)
{
    const struct st_layered_door *d;
    size_t end;

    while (s->status == ST_OK) {
        switch (s->phase) {
        case SLICE:
            split_slice(s);
            break;
        case ASK:
            end = split_shown(s);
            if (end > 0)
                split_scan(s, s->found, end);
            if (s->busy)
                return;
            if (end > 0)
                split_answered(s, end);
            else
                split_deliver(s);
            break;
        case POPULATE:
            d = &s->chan->door[s->layer];
            end = s->switched ? split_shown(s) : 0;
            if (end > 0 && d->cache)
                split_scan(s, s->seen[d->slot], end);
            if (s->busy)
                return;
            s->layer++;
            s->pos = 0;
            if (end > 0)
                break;
            s->at += (uint64_t)s->sectors << s->chan->shift;
            s->phase = SLICE;
            if (s->at < s->parent->len)
                st_ready(s->chan->base.loop, &s->task);
            else
                split_finish(s);
            return;
        case CHAIN:
            if (!chain_next(s))
                split_finish(s);
            return;
        }
    }
    if (!s->busy)
        split_finish(s);
}

static void
split_again(struct st_task *t)
{
    split_go(st_container(t, struct split, task));
}

static void
split_begin(struct st_layered_chan *c, struct st_req *req)
{
    struct split *s = st_container(st_list_first(&c->idle), struct split, link);

    st_list_remove(&s->link);
    s->parent = req;
    s->status = ST_OK;
    s->at = 0;
    s->layer = 0;
    s->phase = req->op == ST_OP_READ ? SLICE : CHAIN;
    split_go(s);
}

static void
split_serve(struct st_task *t)
{
    struct st_layered_chan *c = st_container(t, struct st_layered_chan, task);

    c->scheduled = false;
    while (!st_list_empty(&c->waiting) && !st_list_empty(&c->idle)) {
        struct st_list *first = st_list_first(&c->waiting);

        st_list_remove(first);
        split_begin(c, st_container(first, struct st_req, link));
    }
}

void
st_layered_split(struct st_layered_chan *c, struct st_req *req)
{
    if (st_list_empty(&c->idle) || !st_list_empty(&c->waiting))
        st_list_append(&c->waiting, &req->link);
    else
        split_begin(c, req);
}

void
st_layered_split_cancel(struct st_chan *chan, struct st_req *req)
{
    struct st_layered_chan *c = st_layered_chan_of(chan);

    if (!st_list_empty(&req->link)) { /* waiting */
        st_list_remove(&req->link);
        st_finish(chan->loop, req, ST_ABORTED);
        return;
    }
    for (unsigned i = 0; i < SPLITS; i++) {
        struct split *s = split_at(c, i);

        if (s->parent != req)
            continue;
        if (s->status == ST_OK)
            s->status = ST_ABORTED;
        for (unsigned k = 0; k < KIDS; k++)
            st_cancel(split_kid_at(s, k));
    }
}

/* ---- The pool ---- */

int
st_layered_split_init(struct st_layered_chan *c, unsigned nframes)
{
    bool cache = st_layered_of(c)->ncache > 0;
    uint64_t slice = SLICE_SECTORS, bytes;

    c->kid_size = st_req_size(nframes);
    c->shift = (unsigned)__builtin_ctz(c->base.node->props.sector_size);
    if (cache)
        slice = st_max(1, st_min(slice, COPY_BYTES >> c->shift));
    c->slice = (unsigned)slice;
    bytes = slice << c->shift;
    st_list_init(&c->idle);
    st_list_init(&c->waiting);
    c->task.run = split_serve;
    c->memory = calloc(SPLITS, split_size(c) + KIDS * c->kid_size);
    c->copies = cache ? st_pages_alloc(SPLITS * bytes) : NULL;
    if (!c->memory || (cache && !c->copies))
        return -ENOMEM;
    for (unsigned i = 0; i < SPLITS; i++) {
        struct split *s = split_at(c, i);

        s->chan = c;
        s->task.run = split_again;
        if (cache)
            s->copy = (struct iovec){c->copies + i * bytes, bytes};
        st_list_init(&s->kids);
        for (unsigned k = 0; k < KIDS; k++) {
            struct st_req *kid = split_kid_at(s, k);

            st_req_init(kid, nframes, kid_done, s);
            st_list_append(&s->kids, &kid->link);
        }
        st_list_append(&c->idle, &s->link);
    }
    return 0;
}

void
st_layered_split_free(struct st_layered_chan *c)
{
    for (unsigned i = 0; c->memory && i < SPLITS; i++)
        assert(!split_at(c, i)->parent && !c->scheduled);
    free(c->memory);
    free(c->copies);
}
