/* SPDX-License-Identifier: MIT
 *
 * The RAM layer: requests and channels; see ram.h, and ram_map.h for where
 * the bytes are.
 *
 * A request is carried out on the loop it came to, within submit; a long one
 * in slices, each a task of its own, so that a neighbour never waits for it.
 *
 *   submit -> slice --done--> st_finish
 *               | ^
 *               | +-- next round
 *               v
 *             (pages and tables taken out) -> batch -> st_defer -> released
 *
 * A channel has a few batches and allocates none: where all are on their way,
 * changes try again in a coming round.
 */
#include "ram.h"

#include <errno.h>
#include <string.h>

#include "bitmap.h"
#include "ram_map.h"
#include "size.h"

enum {
    SLICE = 256 << 10, /* work in one slice, in bytes of copying, about */
    COST_REGION = 512, /* of looking at a region, in the same unit */
    COST_PAGE = 256,   /* of taking out a page */
    BATCHES = 4,
};

struct ram {
    struct st_node node; /* first */
    struct st_map map;
    uint64_t size;         /* as asked for; 0: inherit */
    uint32_t sector;       /* the same */
    _Atomic unsigned refs; /* the node and its channels */
};

struct batch {
    struct st_deferred deferred;
    struct ram_chan *chan;
    struct st_bin bin;
};

struct ram_chan {
    struct st_chan base; /* first */
    struct ram *ram;
    struct st_cache cache;
    struct batch *filling, *idle[BATCHES]; /* owned */
    unsigned nidle;
    unsigned refs; /* open, end queued, batches deferred */
    struct st_task end;
    bool end_queued, closed;
};

/* ---- Life ---- */

static void
ram_put(struct ram *r)
{
    if (atomic_fetch_sub(&r->refs, 1) == 1)
        free(r);
}

static void
chan_put(struct ram_chan *c)
{
    if (--c->refs)
        return;
    while (c->nidle)
        free(c->idle[--c->nidle]);
    ram_put(c->ram);
    free(c);
}

/* ---- Batches ---- */

/* Nobody looks at what is in the batch any more. */
static void
batch_release(struct st_deferred *d)
{
    struct batch *b = st_container(d, struct batch, deferred);
    struct ram_chan *c = b->chan;

    st_bin_empty(&b->bin, &c->ram->map, c->closed ? NULL : &c->cache);
    c->idle[c->nidle++] = b;
    chan_put(c);
}

static void
batch_defer(struct ram_chan *c)
{
    struct batch *b = c->filling;

    c->filling = NULL;
    c->refs++;
    st_defer(c->base.loop, &b->deferred, batch_release);
}

/* A bin with room for N, or NULL: try again in a coming round. */
static struct st_bin *
batch_room(struct ram_chan *c, size_t n)
{
    if (c->filling && c->filling->bin.n + n > ST_BIN_ROOM)
        batch_defer(c);
    if (!c->filling && c->nidle)
        c->filling = c->idle[--c->nidle];
    return c->filling ? &c->filling->bin : NULL;
}

static void
chan_end(struct st_task *t)
{
    struct ram_chan *c = st_container(t, struct ram_chan, end);

    c->end_queued = false;
    if (c->filling && c->filling->bin.n)
        batch_defer(c);
    chan_put(c);
}

/* What was taken out in this turn goes at its end, in one batch. */
static void
chan_at_end(struct ram_chan *c)
{
    if (c->end_queued || !c->filling || !c->filling->bin.n)
        return;
    c->end_queued = true;
    c->refs++;
    st_at_end(c->base.loop, &c->end);
}

/* ---- Requests ---- */

/* What is left of a request, during one slice. */
struct work {
    struct ram_chan *c;
    struct st_req *req;
    uint64_t offset, left;
    struct st_buf buf; /* of reads and writes */
    uint64_t cost;
    bool wait;
    enum st_status status;
};

static inline void
advance(struct work *w, uint64_t n)
{
    w->offset += n;
    w->left -= n;
    if (w->left && w->buf.iov)
        w->buf = st_buf_advance(w->buf, n);
}

/* How much of W there is before the next multiple of SIZE. */
static uint64_t
up_to(const struct work *w, uint64_t size)
{
    return st_min(w->left, size - (w->offset & (size - 1)));
}

/* Read K bytes at IN of the granule whose entry is E. */
static void
read_granule(struct work *w, uint64_t e, unsigned in, unsigned k)
{
    const struct st_map *m = &w->c->ram->map;
    unsigned sector = 1u << m->sector_shift, mask = st_map_mask(m, in, k);
    unsigned data = st_entry_data(e) & mask, fill = mask;
    const char *page = st_entry_page(e);

    if (w->req->flags & ST_REQ_MARK) {
        uint64_t bit = w->req->mark_first +
                       ((w->offset - w->req->offset) >> m->sector_shift);

        fill &= st_entry_present(e);
        for (unsigned f = fill >> (in >> m->sector_shift); f; f &= f - 1)
            st_bitmap_set(w->req->marks, bit + (unsigned)__builtin_ctz(f));
    }
    if (data == mask)
        st_buf_write(w->buf, page + in, k);
    else if (!data && fill == mask)
        st_buf_zero(w->buf, k);
    else
        for (unsigned i = 0; fill && i < k; i += sector) {
            unsigned one = st_map_mask(m, in + i, sector);

            if (data & one)
                st_buf_write(st_buf_advance(w->buf, i), page + in + i, sector);
            else if (fill & one)
                st_buf_zero(st_buf_advance(w->buf, i), sector);
        }
}

static void
step_read(struct work *w)
{
    const struct st_map *m = &w->c->ram->map;
    const struct st_table *t = st_map_table(m, w->offset);
    uint64_t n = up_to(w, SLICE);

    if (!t && w->req->flags & ST_REQ_MARK) {
        advance(w, up_to(w, m->region));
        w->cost += COST_REGION;
        return;
    }
    w->cost += n;
    if (!t) {
        st_buf_zero(w->buf, n);
        advance(w, n);
        return;
    }
    for (unsigned in, k; n; n -= k) {
        in = (unsigned)w->offset & (m->granule - 1);
        k = (unsigned)st_min(m->granule - in, n);
        read_granule(w, st_map_entry(m, t, w->offset), in, k);
        advance(w, k);
    }
}

static void
step_write(struct work *w)
{
    struct st_map *m = &w->c->ram->map;
    const struct st_table *t = st_map_table(m, w->offset);
    uint64_t n = up_to(w, SLICE); /* a divisor of all regions */
    bool keep = w->req->flags & ST_REQ_NO_OVERWRITE;
    struct st_change c;

    w->cost += n;
    /* As long as it only replaces data, in place. */
    while (n && !keep) {
        unsigned in = (unsigned)w->offset & (m->granule - 1);
        unsigned k = (unsigned)st_min(m->granule - in, n);
        unsigned mask = st_map_mask(m, in, k);
        uint64_t e = st_map_entry(m, t, w->offset);

        if ((st_entry_data(e) & mask) != mask || st_buf_is_zero(w->buf, k))
            break;
        st_buf_read(w->buf, st_entry_page(e) + in, k);
        advance(w, k);
        n -= k;
    }
    if (!n)
        return;
    c = (struct st_change){.offset = w->offset,
                           .len = n,
                           .to = ST_DATA,
                           .keep = keep,
                           .src = w->buf,
                           .cache = &w->c->cache,
                           .bin = batch_room(w->c, n / m->granule + 4)};
    w->wait = !c.bin;
    if (w->wait)
        return;
    w->status = st_map_change(m, &c);
    advance(w, n);
}

/* Make the first of LEN bytes at OFFSET on a disk of SIZE bytes zero or absent;
 * returns how many. */
static uint64_t
wipe(struct st_map *m, uint64_t offset, uint64_t len, uint64_t size,
     enum st_presence to, struct st_bin *bin, enum st_status *status)
{
    uint64_t region = offset >> m->region_shift, next;
    uint64_t all = m->region - (offset & (m->region - 1)), n;
    struct st_change c = {.offset = offset, .to = to, .bin = bin};
    bool last;

    if (to == ST_ABSENT && (next = st_map_skip(m, region)) != region)
        return st_min((next << m->region_shift) - offset, len);
    n = st_min(all, len);
    last = offset + n == size;
    /* Nothing shows beyond the end: growing is to show zeroes there. */
    c.len = last && (to == ST_ZERO || m->alone) ? all : n;
    *status = st_map_change(m, &c);
    if (to == ST_ABSENT && c.len == m->region &&
        (last || (region + 1) % ST_MAP_PAGE == 0))
        st_map_trim(m, region);
    return n;
}

static void
step_wipe(struct work *w)
{
    struct st_map *m = &w->c->ram->map;
    bool absent = m->alone || (w->req->op == ST_OP_UNMAP &&
                               w->req->flags & ST_REQ_NEXT_ZERO);
    uint64_t part = up_to(w, m->region);
    struct st_bin *bin = batch_room(w->c, (part >> m->granule_shift) + 4);
    unsigned before;
    uint64_t n;

    w->wait = !bin;
    if (w->wait)
        return;
    before = bin->n;
    n = wipe(m, w->offset, w->left, st_node_size(&w->c->ram->node),
             absent ? ST_ABSENT : ST_ZERO, bin, &w->status);
    w->cost += COST_REGION + (uint64_t)(bin->n - before) * COST_PAGE;
    if (n < m->region)
        w->cost += (n >> m->granule_shift) * (COST_PAGE / 4);
    advance(w, n);
}

static void slice_task(struct st_task *t);

/* One slice of REQ. Until it is done, extent.len says how far it is and
 * extent.flags whether it was cancelled: only block_status answers there. */
static void
slice(struct ram_chan *c, struct st_req *req)
{
    struct work w = {.c = c,
                     .req = req,
                     .offset = req->offset + req->extent.len,
                     .left = req->len - req->extent.len,
                     .status = req->extent.flags ? ST_ABORTED : ST_OK};

    if (req->op == ST_OP_READ || req->op == ST_OP_WRITE)
        w.buf = w.left ? st_buf_advance(req->buf, req->extent.len) : req->buf;
    while (w.left && w.status == ST_OK && !w.wait && w.cost < SLICE) {
        if (req->op == ST_OP_READ)
            step_read(&w);
        else if (req->op == ST_OP_WRITE)
            step_write(&w);
        else
            step_wipe(&w);
    }
    chan_at_end(c);
    if (!w.left || w.status != ST_OK) {
        st_finish(c->base.loop, req, w.status);
        return;
    }
    req->extent.len = req->len - w.left;
    req->task.run = slice_task;
    st_ready(c->base.loop, &req->task);
}

static void
slice_task(struct st_task *t)
{
    struct st_req *req = st_container(t, struct st_req, task);

    slice((struct ram_chan *)req->at, req);
}

static void
ram_submit(struct st_chan *chan, struct st_req *req)
{
    struct ram_chan *c = (struct ram_chan *)chan;
    struct st_map *m = &c->ram->map;

    if (ST_OPS_RANGED & ST_BIT(req->op) &&
        !st_node_range_ok(&c->ram->node, req)) {
        st_finish(chan->loop, req, ST_RANGE);
        return;
    }
    switch ((enum st_op)req->op) {
    case ST_OP_READ:
    case ST_OP_WRITE:
    case ST_OP_UNMAP:
    case ST_OP_WRITE_ZEROES:
        req->extent = (struct st_extent){0};
        slice(c, req);
        return;
    case ST_OP_BLOCK_STATUS:
        req->extent = (struct st_extent){0};
        if (req->len && st_map_state(m, req->offset, req->len, true,
                                     &req->extent.len) != ST_DATA)
            req->extent.flags = ST_EXTENT_HOLE | ST_EXTENT_ZERO;
        st_finish(chan->loop, req, ST_OK);
        return;
    case ST_OP_FLUSH:
    case ST_OP_SHUTDOWN:
        st_finish(chan->loop, req, ST_OK);
        return;
    case ST_OP_COMPARE_AND_WRITE:
    case ST_OP_EJECT:
    case ST_OP_COUNT:
        break;
    }
    st_finish(chan->loop, req, ST_UNSUPPORTED);
}

/* It is between two slices. */
static void
ram_cancel(struct st_chan *chan, struct st_req *req)
{
    (void)chan;
    req->extent.flags = 1;
}

static enum st_presence
ram_lookup(struct st_chan *chan, uint64_t offset, uint64_t len, uint64_t *run)
{
    struct ram *r = ((struct ram_chan *)chan)->ram;

    *run = len;
    if (!st_range_ok(offset, len, st_node_size(&r->node)) || !len)
        return ST_ABSENT;
    return st_map_state(&r->map, offset, len, false, run);
}

/* ---- Channels ---- */

static void
ram_close_chan(struct st_chan *chan)
{
    struct ram_chan *c = (struct ram_chan *)chan;

    c->closed = true;
    st_arena_give(&c->ram->map.arena, c->cache.page, c->cache.n);
    if (c->filling && c->filling->bin.n)
        batch_defer(c);
    else if (c->filling)
        c->idle[c->nidle++] = c->filling;
    chan_put(c);
}

static int
ram_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct ram_chan *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    st_chan_init(&c->base, n, l, ram_submit);
    c->ram = (struct ram *)n;
    atomic_fetch_add(&c->ram->refs, 1);
    c->refs = 1;
    c->end.run = chan_end;
    while (c->nidle < BATCHES) {
        struct batch *b = malloc(sizeof(*b));

        if (!b) {
            chan_put(c);
            return -ENOMEM;
        }
        b->chan = c;
        b->bin.n = 0;
        c->idle[c->nidle++] = b;
    }
    *out = &c->base;
    return 0;
}

/* ---- The node ---- */

/* Check size and sector size and make the map for them. */
static int
ram_setup(struct ram *r, uint64_t size, uint32_t sector, struct st_err *err)
{
    struct st_props *p = &r->node.props;

    if (!st_is_pow2(sector) || sector < 512 || sector > ST_RAM_SECTOR_MAX)
        return st_err_set(err, EINVAL,
                          "invalid sector size %u: a RAM disk takes a power of "
                          "two from 512 to %u",
                          sector, ST_RAM_SECTOR_MAX);
    if (size % sector)
        return st_err_set(err, EINVAL,
                          "size %ju is not a multiple of the sector size %u",
                          (uintmax_t)size, sector);
    if (size > ST_OFFSET_MAX)
        return st_err_set(err, EINVAL,
                          "size %ju is past the largest, 2^63 - %u",
                          (uintmax_t)size, sector);
    p->performs = ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) |
                  ST_BIT(ST_OP_FLUSH) | ST_BIT(ST_OP_UNMAP) |
                  ST_BIT(ST_OP_WRITE_ZEROES) | ST_BIT(ST_OP_BLOCK_STATUS) |
                  ST_BIT(ST_OP_SHUTDOWN);
    p->sector_size = p->physical_sector_size = p->unmap_granularity = sector;
    p->unmap = ST_UNMAP_ZEROES;
    p->fua = p->fast_zero = true;
    if (!size)
        return 0; /* until attach */
    st_map_end(&r->map);
    memset(&r->map, 0, sizeof(r->map));
    st_node_set_size(&r->node, size);
    return st_map_init(&r->map, size, sector, err);
}

static int
ram_attach(struct st_node *n, const struct st_node *lower, struct st_err *err)
{
    struct ram *r = (struct ram *)n;
    uint32_t sector = r->sector ? r->sector
                      : lower   ? lower->props.sector_size
                                : 512;
    uint64_t size = r->size ? r->size : lower ? st_node_size(lower) : 0;
    int rc;

    if (!size)
        return st_err_set(err, EINVAL,
                          "empty disk: a RAM disk needs a size, or a disk "
                          "below to take it from");
    rc = ram_setup(r, size, sector, err);
    r->map.alone = !lower;
    return rc;
}

/* Drop what is past SIZE; over another layer that becomes zero, not absent, so
 * that what is below does not show when the disk grows again. (It never shows
 * past the first size of this layer, so to the region's end is right.) */
static int
ram_shrink(struct ram *r, uint64_t size, uint64_t old)
{
    struct st_map *m = &r->map;
    uint64_t end = st_align_up(old, m->region);
    struct st_bin *bin = malloc(sizeof(*bin));
    enum st_status s = bin ? ST_OK : ST_NO_SPACE;

    if (bin)
        bin->n = 0;
    /* Only the first step can fail, for memory. */
    while (size < end && s == ST_OK) {
        size += wipe(m, size, end - size, end, m->alone ? ST_ABSENT : ST_ZERO,
                     bin, &s);
        st_bin_empty(bin, m, NULL); /* no request is in the tree */
    }
    free(bin);
    return s == ST_OK ? 0 : -ENOMEM;
}

static int
ram_resize(struct st_node *n, uint64_t size, struct st_err *err)
{
    struct ram *r = (struct ram *)n;
    struct st_map *m = &r->map;
    uint64_t old = st_node_size(n);
    uint64_t room = st_min(m->regions << m->region_shift, ST_OFFSET_MAX);

    if (!size || size % n->props.sector_size)
        return st_err_set(err, EINVAL,
                          "%s: size %ju is not a multiple of %u, at least one",
                          n->label, (uintmax_t)size, n->props.sector_size);
    if (size > room)
        return st_err_set(err, ENOTSUP, "%s: it can grow to %ju bytes only",
                          n->label, (uintmax_t)room);
    if (size < old && ram_shrink(r, size, old) < 0)
        return st_err_set(err, ENOMEM, "%s: no memory to shrink", n->label);
    st_node_set_size(n, size);
    return 0;
}

static void
ram_inspect(struct st_node *n, struct st_inspect *v)
{
    struct ram *r = (struct ram *)n;
    struct st_map *m = &r->map;
    uint64_t index = m->table_bytes + (m->slot_pages + m->arena.chunks) * 4096;

    v->u64(v, "sector_size", n->props.sector_size);
    v->u64(v, "sector_count", st_node_size(n) / n->props.sector_size);
    v->u64(v, "committed_size", m->pages << m->granule_shift);
    v->u64(v, "index", index);
}

/* Growing takes no memory and touches nothing that a request looks at. To
 * shrink needs a tree without requests, which is the root's to arrange. */
static int
ram_set(struct st_node *n, const char *name, const char *value,
        struct st_err *err)
{
    uint32_t sector = n->props.sector_size;
    uint64_t count, now = st_node_size(n) / sector;
    int rc;

    if (strcmp(name, "sector_count") != 0) {
        bool shown = strcmp(name, "sector_size") == 0 ||
                     strcmp(name, "committed_size") == 0 ||
                     strcmp(name, "index") == 0;

        return shown ? st_err_set(err, EACCES, "%s cannot be set", name)
                     : st_err_set(err, ENOENT, "%s has no value '%.80s'",
                                  n->label, name);
    }
    rc = st_number_parse(name, value, 1, ST_OFFSET_MAX / sector, &count, err);
    if (rc < 0)
        return rc;
    if (count < now)
        return st_err_set(err, EINVAL,
                          "%s can only grow here from %ju, resize the disk to "
                          "make it smaller",
                          name, (uintmax_t)now);
    rc = count == now ? 0 : ram_resize(n, count * sector, err);
    if (rc == 0 && count != now)
        st_node_changed(n, ST_EVENT_RESIZE);
    return rc;
}

static void
ram_close(struct st_node *n)
{
    struct ram *r = (struct ram *)n;

    st_map_end(&r->map);
    ram_put(r);
}

static const struct st_node_ops ram_ops = {
    .name = "ram",
    .presence = true,
    .no_overwrite = true,
    .open_chan = ram_open_chan,
    .close_chan = ram_close_chan,
    .cancel = ram_cancel,
    .lookup = ram_lookup,
    .attach = ram_attach,
    .resize = ram_resize,
    .inspect = ram_inspect,
    .set = ram_set,
    .close = ram_close,
};

int
st_ram_create(struct st_loop *home, uint64_t size, uint32_t sector_size,
              const char *label, struct st_node **out, struct st_err *err)
{
    struct ram *r = calloc(1, sizeof(*r));
    int rc;

    if (!r)
        return st_err_set(err, ENOMEM, "no memory for a RAM disk");
    st_node_init(&r->node, &ram_ops, home, label);
    r->size = size;
    r->sector = sector_size;
    r->refs = 1;
    rc = ram_setup(r, size, sector_size ? sector_size : 512, err);
    if (rc < 0) {
        ram_close(&r->node);
        return rc;
    }
    *out = &r->node;
    return 0;
}
