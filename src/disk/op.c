/* SPDX-License-Identifier: MIT
 *
 * What the root carries out itself, with kids of its own below the wall.
 *
 *            op_start
 *               |  needs the range for itself (partial sectors, compare)?
 *               |yes
 *            [locking] --> granted
 *               |
 *      +--> [next piece] -- nothing left --> [flush] (FUA) --> end
 *      |        |
 *      |   whole sectors        partial sector           compare_and_write
 *      |   memory fits: as is   read, merge, write       read, compare,
 *      |   else: bounce                                  merge, write
 *      |        |                    |                        |
 *      +--------+--------------------+------------------------+
 *
 * A request goes in pieces of at most BOUNCE bytes where memory is needed, one
 * after the other: a transfer of any length needs one buffer to progress. Each
 * channel may always have one buffer; more come out of the cap "bounce", and
 * ops wait for them in order.
 */
#include "root.h"

#include <stdlib.h>
#include <string.h>

enum {
    BOUNCE = 128 << 10, /* bytes: the largest piece that is copied */
    CACHED = 16,        /* buffers a channel keeps between requests */
    ZEROES = 64 << 10,  /* bytes of the zero page that write_zeroes repeats */
    ZERO_IOVS = 16,     /* a step of emulated write_zeroes is 1 MiB */
    MAX_OPS = 64,       /* per channel */
    MAX_COMPARE = BOUNCE / 2,
};

static const uint8_t zeroes[ZEROES] __attribute__((aligned(4096)));

struct op_buffer {
    struct op_buffer *next;
    uint8_t *mem; /* owned, BOUNCE bytes and a sector at each end */
    size_t size;
};

enum step {
    STEP_PIECE,    /* look what comes next */
    STEP_TRANSFER, /* whole sectors are under way */
    STEP_READ,     /* partial: the old sectors are being read */
    STEP_WRITE,    /* partial: the merged ones are being written */
    STEP_FLUSH,    /* the FUA of it all */
};

struct root_op {
    struct st_list link; /* root_chan.ops_* */
    struct root_chan *rc;
    struct st_req *req; /* the front end's */
    struct op_buffer *buffer;
    struct range_lock lock;
    struct iovec iov[ZERO_IOVS];
    uint64_t pos; /* bytes of the request that are done */
    uint64_t n;   /* bytes of this piece */
    enum step step;
    bool locked, cancelled, ended;
    enum st_status status; /* while the lock is let go */
    struct st_req kid;     /* frames behind */
};

static void op_next(struct root_op *op);
static void kid_done(struct st_req *kid);
static void op_granted(struct range_lock *l);
static void op_released(struct range_lock *l);
static void serve_waiting(struct st_task *t);

/* ---- The channel's stock of ops and buffers ---- */

void
op_init(struct root_chan *rc)
{
    st_list_init(&rc->ops_free);
    st_list_init(&rc->ops_busy);
    st_list_init(&rc->ops_waiting);
    st_list_init(&rc->buffers_waiting);
    rc->ops_task.run = serve_waiting;
}

static void
buffer_drop(struct root_chan *rc, struct op_buffer *b)
{
    st_cap_give(st_domain_caps(rc->base.loop->domain), ST_CAP_BOUNCE, b->size);
    rc->nbuffers--;
    free(b->mem);
    free(b);
}

void
op_free_all(struct root_chan *rc)
{
    struct st_list *l;

    assert(st_list_empty(&rc->ops_busy) && st_list_empty(&rc->ops_waiting) &&
           !rc->ops_scheduled);
    while ((l = st_list_first(&rc->ops_free))) {
        st_list_remove(l);
        free(st_container(l, struct root_op, link));
        rc->nops--;
    }
    for (struct op_buffer *b; (b = rc->buffer_cache); rc->ncached--) {
        rc->buffer_cache = b->next;
        buffer_drop(rc, b);
    }
}

static struct root_op *
op_take(struct root_chan *rc)
{
    struct st_list *l = st_list_first(&rc->ops_free);
    unsigned nframes = st_disk_frames(rc->disk);
    struct root_op *op;

    if (l) {
        op = st_container(l, struct root_op, link);
        st_list_remove(&op->link);
        if (op->kid.nframes >= nframes)
            return op;
        free(op); /* made before a live insertion */
        rc->nops--;
    }
    if (rc->nops >= MAX_OPS)
        return NULL;
    op = malloc(sizeof(*op) + nframes * sizeof(struct st_frame));
    if (!op)
        return NULL;
    rc->nops++;
    st_req_init(&op->kid, nframes, kid_done, op);
    st_list_init(&op->link);
    return op;
}

/* One buffer of BOUNCE bytes plus room for a partial sector at each end. */
static struct op_buffer *
buffer_take(struct root_chan *rc)
{
    size_t size = BOUNCE + 2 * ((size_t)rc->sector_mask + 1);
    struct st_caps *caps = st_domain_caps(rc->base.loop->domain);
    struct op_buffer *b = rc->buffer_cache;

    if (b) {
        rc->buffer_cache = b->next;
        rc->ncached--;
        return b;
    }
    /* The channel's first is granted whatever the others have. */
    if (!st_cap_take(caps, ST_CAP_BOUNCE, size)) {
        if (rc->nbuffers)
            return NULL;
        st_cap_force(caps, ST_CAP_BOUNCE, size);
    }
    b = malloc(sizeof(*b));
    if (b && !(b->mem = st_pages_alloc(size))) {
        free(b);
        b = NULL;
    }
    if (!b) {
        st_cap_give(caps, ST_CAP_BOUNCE, size);
        return NULL;
    }
    b->size = size;
    rc->nbuffers++;
    return b;
}

static void
wake_waiting(struct root_chan *rc)
{
    if (!rc->ops_scheduled && !(st_list_empty(&rc->ops_waiting) &&
                                st_list_empty(&rc->buffers_waiting))) {
        rc->ops_scheduled = true;
        st_ready(rc->base.loop, &rc->ops_task);
    }
}

static void
buffer_give(struct root_chan *rc, struct op_buffer *b)
{
    if (!b)
        return;
    if (rc->ncached < CACHED) {
        b->next = rc->buffer_cache;
        rc->buffer_cache = b;
        rc->ncached++;
    } else {
        buffer_drop(rc, b);
    }
    wake_waiting(rc);
}

/* Both queues are first come, first served; each round serves one of each. */
static void
serve_waiting(struct st_task *t)
{
    struct root_chan *rc = st_container(t, struct root_chan, ops_task);
    struct st_list *l;

    rc->ops_scheduled = false;
    if ((l = st_list_first(&rc->buffers_waiting))) {
        struct root_op *op = st_container(l, struct root_op, link);

        if ((op->buffer = buffer_take(rc))) {
            st_list_remove(l);
            st_list_append(&rc->ops_busy, l);
            op_next(op);
            wake_waiting(rc);
        }
    }
    if ((l = st_list_first(&rc->ops_waiting))) {
        struct st_req *req = st_container(l, struct st_req, link);

        if (!st_list_empty(&rc->ops_free) || rc->nops < MAX_OPS) {
            st_list_remove(l);
            op_start(rc, req);
            if (st_list_empty(&req->link))
                wake_waiting(rc);
        }
    }
}

static void
op_put(struct root_op *op)
{
    struct root_chan *rc = op->rc;

    st_list_remove(&op->link);
    st_list_append(&rc->ops_free, &op->link);
    wake_waiting(rc);
}

/* ---- The end ---- */

static void
op_end(struct root_op *op, enum st_status status)
{
    struct root_chan *rc = op->rc;
    struct st_req *req = op->req;

    buffer_give(rc, op->buffer);
    op->buffer = NULL;
    if (op->locked) {
        /* Once everybody has let go of the lock: then nothing of the request
         * is left when its owner hears of it, and may close the channel. */
        op->locked = false;
        op->ended = true;
        op->status = status;
        lock_release(&op->lock);
        return;
    }
    wall_end(rc, req, status);
    op_put(op);
}

static void
op_released(struct range_lock *l)
{
    struct root_op *op = st_container(l, struct root_op, lock);

    op_end(op, op->status);
}

/* ---- Pieces ---- */

static void
kid_go(struct root_op *op, enum st_op what, uint64_t offset, uint64_t len,
       struct st_buf buf, unsigned flags)
{
    struct st_req *kid = &op->kid;

    kid->op = (uint8_t)what;
    kid->flags = (uint8_t)flags;
    kid->nexus = op->req->nexus;
    kid->offset = offset;
    kid->len = len;
    kid->buf = buf;
    st_submit(op->rc->inner, kid);
}

static struct st_buf
bounce_buf(struct root_op *op, size_t len)
{
    op->iov[0] = (struct iovec){op->buffer->mem, len};
    return (struct st_buf){op->iov, 0};
}

/* FUA: only on the last write of the request where the node has it, and for
 * all of it by a flush where it has not. Since each piece is a write of its
 * own, every one of them must be durable: flag them all. */
static unsigned
piece_flags(struct root_op *op)
{
    return op->req->flags & (ST_REQ_FUA | ST_REQ_MAY_UNMAP) &
           ~op->rc->slow_flags;
}

/* Is the request (or what is left of it) at a boundary of sectors? */
static bool
at_sector(const struct root_op *op)
{
    uint64_t off = op->req->offset + op->pos;

    return !(off & op->rc->sector_mask) &&
           op->req->len - op->pos > op->rc->sector_mask;
}

/* Wait for a buffer; false when op is queued for one. */
static bool
need_buffer(struct root_op *op)
{
    struct root_chan *rc = op->rc;

    if (op->buffer)
        return true;
    if (st_list_empty(&rc->buffers_waiting))
        op->buffer = buffer_take(rc);
    if (op->buffer)
        return true;
    if (rc->nbuffers == 0) { /* not even one: there is no memory at all */
        op_end(op, ST_IO);
        return false;
    }
    st_list_remove(&op->link);
    st_list_append(&rc->buffers_waiting, &op->link);
    return false;
}

/* Whole sectors of a read, write or write_zeroes. */
static void
piece_whole(struct root_op *op)
{
    struct root_chan *rc = op->rc;
    struct st_req *req = op->req;
    uint64_t off = req->offset + op->pos;
    uint64_t left = st_align_down(req->len - op->pos, rc->sector_mask + 1);
    struct st_buf none = {NULL, 0}, at;

    if (req->op == ST_OP_WRITE_ZEROES) {
        if (rc->inner->node->props.performs & ST_BIT(ST_OP_WRITE_ZEROES)) {
            op->n = left;
            op->step = STEP_TRANSFER;
            kid_go(op, ST_OP_WRITE_ZEROES, off, left, none, piece_flags(op));
            return;
        }
        op->n = st_min(left, (uint64_t)ZEROES * ZERO_IOVS);
        for (unsigned i = 0; i < ZERO_IOVS; i++)
            op->iov[i] = (struct iovec){(void *)(uintptr_t)zeroes, ZEROES};
        op->step = STEP_TRANSFER;
        kid_go(op, ST_OP_WRITE, off, op->n, (struct st_buf){op->iov, 0},
               piece_flags(op) & ST_REQ_FUA);
        return;
    }
    at = st_buf_advance(req->buf, op->pos);
    if (wall_memory_ok(rc, at, left)) {
        op->n = left;
        op->step = STEP_TRANSFER;
        kid_go(op, (enum st_op)req->op, off, left, at, piece_flags(op));
        return;
    }
    if (!need_buffer(op))
        return;
    op->n = st_min(left, BOUNCE);
    st_count(&rc->stats.bounced, op->n);
    if (req->op == ST_OP_WRITE)
        st_buf_read(at, op->buffer->mem, op->n);
    op->step = STEP_TRANSFER;
    kid_go(op, (enum st_op)req->op, off, op->n, bounce_buf(op, op->n),
           piece_flags(op));
}

/* A part of one sector, or the range of a compare_and_write: read first. */
static void
piece_partial(struct root_op *op)
{
    struct root_chan *rc = op->rc;
    uint64_t sector = rc->sector_mask + 1;
    uint64_t off = op->req->offset + op->pos;
    uint64_t first = st_align_down(off, sector), len;

    if (!need_buffer(op))
        return;
    op->n = op->req->op == ST_OP_COMPARE_AND_WRITE
                ? op->req->len
                : st_min(op->req->len - op->pos, sector - (off - first));
    st_count(&rc->stats.bounced, op->n);
    op->step = STEP_READ;
    len = st_align_up(off + op->n, sector) - first;
    kid_go(op, ST_OP_READ, first, len, bounce_buf(op, len), 0);
}

/* The old sectors are here: give them out, or merge and write them. */
static void
partial_read(struct root_op *op)
{
    struct st_req *req = op->req;
    uint64_t off = req->offset + op->pos;
    uint64_t first = off & ~op->rc->sector_mask, len = op->kid.len;
    uint8_t *old = op->buffer->mem + (off - first);

    if (req->op == ST_OP_READ) {
        st_buf_write(st_buf_advance(req->buf, op->pos), old, op->n);
        op->pos += op->n;
        op->step = STEP_PIECE;
        op_next(op);
        return;
    }
    if (req->op == ST_OP_COMPARE_AND_WRITE) {
        uint8_t *expected = op->buffer->mem + len;

        /* Guest memory is read once: what was compared is what counts. */
        st_buf_read(req->buf, expected, req->len);
        for (uint64_t i = 0; i < req->len; i++) {
            if (expected[i] != old[i]) {
                req->miscompare_at = i;
                op_end(op, ST_MISCOMPARE);
                return;
            }
        }
        st_buf_read(st_buf_advance(req->buf, req->len), old, req->len);
    } else if (req->op == ST_OP_WRITE) {
        st_buf_read(st_buf_advance(req->buf, op->pos), old, op->n);
    } else {
        memset(old, 0, op->n);
    }
    op->step = STEP_WRITE;
    kid_go(op, ST_OP_WRITE, first, len, bounce_buf(op, len),
           piece_flags(op) & ST_REQ_FUA);
}

static void
op_next(struct root_op *op)
{
    struct root_chan *rc = op->rc;
    struct st_req *req = op->req;

    if (op->cancelled) {
        op_end(op, ST_ABORTED);
        return;
    }
    if (op->pos < req->len && (ST_BIT(req->op) & ST_OPS_RANGED)) {
        if (req->op == ST_OP_COMPARE_AND_WRITE || !at_sector(op))
            piece_partial(op);
        else
            piece_whole(op);
        return;
    }
    if ((req->flags & rc->slow_flags & ST_REQ_FUA) && op->step != STEP_FLUSH) {
        if (atomic_load(&rc->disk->flush_failed)) {
            op_end(op, ST_IO);
            return;
        }
        op->step = STEP_FLUSH;
        kid_go(op, ST_OP_FLUSH, 0, 0, (struct st_buf){NULL, 0}, 0);
        return;
    }
    op_end(op, ST_OK);
}

/* block_status of less than whole sectors; and any request that brings too few
 * frames, as it is. */
static void
op_carry(struct root_op *op)
{
    struct st_req *req = op->req, *kid = &op->kid;
    uint64_t mask = op->rc->sector_mask;

    op->step = STEP_TRANSFER;
    kid->op = req->op;
    kid->flags = req->flags;
    kid->nexus = req->nexus;
    kid->offset = req->offset;
    kid->len = req->len;
    kid->buf = req->buf;
    if (req->op == ST_OP_BLOCK_STATUS || req->op == ST_OP_UNMAP) {
        /* outward for a question, inward for an unmap */
        uint64_t up = req->op == ST_OP_UNMAP ? mask : 0;

        kid->offset = (req->offset + up) & ~mask;
        kid->len =
            ((req->offset + req->len + (mask - up)) & ~mask) - kid->offset;
        if ((int64_t)kid->len <= 0) {
            op_end(op, ST_OK);
            return;
        }
    } else if (!(ST_BIT(req->op) & ST_OPS_RANGED)) {
        if (req->op == ST_OP_SHUTDOWN &&
            !(op->rc->inner->node->props.performs & ST_BIT(ST_OP_SHUTDOWN)))
            kid->op = ST_OP_FLUSH;
        if (!(op->rc->inner->node->props.performs & ST_BIT(kid->op))) {
            op_end(op, ST_OK); /* a read-only disk has nothing to flush */
            return;
        }
    }
    op->n = req->len;
    st_submit(op->rc->inner, kid);
}

static void
kid_done(struct st_req *kid)
{
    struct root_op *op = kid->owner;
    struct st_req *req = op->req;
    enum st_status status = (enum st_status)kid->status;

    if (op->step == STEP_FLUSH)
        wall_flush_failed(op->rc, status);
    if (status != ST_OK) {
        op_end(op, status);
        return;
    }
    switch (op->step) {
    case STEP_READ:
        partial_read(op);
        return;
    case STEP_TRANSFER:
        if (req->op == ST_OP_BLOCK_STATUS) {
            uint64_t before = req->offset - kid->offset;

            req->extent = kid->extent;
            req->extent.len =
                st_min(kid->extent.len > before ? kid->extent.len - before : 1,
                       req->len);
        } else if (req->op == ST_OP_READ && op->buffer &&
                   kid->buf.iov == op->iov) {
            st_buf_write(st_buf_advance(req->buf, op->pos), op->buffer->mem,
                         op->n);
        }
        break;
    case STEP_WRITE:
    case STEP_FLUSH:
    case STEP_PIECE:
        break;
    }
    op->pos += op->n;
    if (op->step != STEP_FLUSH)
        op->step = STEP_PIECE;
    op_next(op);
}

/* ---- The start ---- */

/* In pieces (op_next), or carried as a whole (op_carry)? */
static bool
in_pieces(const struct st_req *req)
{
    return (ST_BIT(req->op) & ST_OPS_RANGED) && req->op != ST_OP_BLOCK_STATUS &&
           req->op != ST_OP_UNMAP;
}

static bool
needs_lock(struct root_chan *rc, const struct st_req *req)
{
    return req->op == ST_OP_COMPARE_AND_WRITE ||
           ((req->op == ST_OP_WRITE || req->op == ST_OP_WRITE_ZEROES) &&
            ((req->offset | req->len) & rc->sector_mask));
}

void
op_start(struct root_chan *rc, struct st_req *req)
{
    struct root_op *op;

    if (req->op == ST_OP_COMPARE_AND_WRITE && req->len > MAX_COMPARE) {
        wall_end(rc, req, ST_INVALID);
        return;
    }
    if (needs_lock(rc, req))
        req->flags |= ST_REQ_LOCKING;
    op = op_take(rc);
    if (!op) {
        if (rc->nops == 0) {
            wall_end(rc, req, ST_IO); /* no memory for even one */
        } else {
            st_list_append(&rc->ops_waiting, &req->link);
        }
        return;
    }
    st_count(&rc->stats.emulated, 1);
    op->rc = rc;
    op->req = req;
    op->buffer = NULL;
    op->pos = 0;
    op->step = STEP_PIECE;
    op->locked = op->cancelled = op->ended = false;
    st_list_append(&rc->ops_busy, &op->link);
    if (req->flags & ST_REQ_LOCKING) {
        /* Whole sectors: two writers of one sector must not merge at once. */
        op->lock.offset = req->offset & ~rc->sector_mask;
        op->lock.len =
            st_align_up(req->offset + req->len, rc->sector_mask + 1) -
            op->lock.offset;
        op->lock.owner = rc;
        op->lock.granted = op_granted;
        op->lock.released = op_released;
        op->locked = true;
        lock_acquire(&op->lock);
    } else if (in_pieces(req)) {
        op_next(op);
    } else {
        op_carry(op);
    }
}

static void
op_granted(struct range_lock *l)
{
    struct root_op *op = st_container(l, struct root_op, lock);

    if (l->failed)
        op_end(op, ST_IO);
    else
        op_next(op);
}

bool
op_cancel(struct root_chan *rc, struct st_req *req)
{
    st_list_for(op, next, &rc->ops_busy, struct root_op, link)
    {
        if (op->req == req && !op->ended) {
            op->cancelled = true;
            st_cancel(&op->kid);
            return true;
        }
    }
    st_list_for(op, next, &rc->buffers_waiting, struct root_op, link)
    {
        if (op->req == req) {
            op->cancelled = true;
            st_list_remove(&op->link);
            st_list_append(&rc->ops_busy, &op->link);
            op_next(op);
            return true;
        }
    }
    /* One that waits for an op is still in flight. */
    if (!st_list_empty(&req->flight) && !st_list_empty(&req->link)) {
        st_list_remove(&req->link);
        wall_end(rc, req, ST_ABORTED);
        return true;
    }
    return false;
}
