/* SPDX-License-Identifier: MIT
 *
 * The wall: what every request passes once going down and once coming back.
 *
 *   submit --> fast? --yes--> [frame] --> the tree --> root_done --> owner
 *                |no
 *                v
 *   gate -> representable -> read-only -> conflict -> empty -> locks
 *        -> fit for the tree as it is? --yes--> the tree
 *                |no
 *                v
 *        op.c: bounce, read-modify-write, emulation
 *
 * The fast path knows three words (wall_update): everything that could stand
 * in a request's way clears bits in fast_ops, so that it is one branch.
 */
#include "root.h"

#include "probes.h"

#include <errno.h>
#include <stdlib.h>

static void root_done(struct st_chan *c, struct st_req *req);
static void root_cancel(struct st_chan *c, struct st_req *req);

static const struct st_node_ops root_ops = {
    .name = "disk",
    .close_chan = st_disk_close_chan,
    .cancel = root_cancel,
};

static inline bool
representable(const struct st_req *req)
{
    return st_range_ok(req->offset, req->len, ST_OFFSET_MAX);
}

void
wall_update(struct root_chan *rc)
{
    const struct st_props *p;
    uint32_t ops;

    rc->watched = rc->drain || !st_list_empty(&rc->locks);
    rc->fast_ops = 0;
    if (!rc->inner)
        return;
    p = &rc->inner->node->props;
    ops = p->performs & ST_OPS_RANGED & ~ST_BIT(ST_OP_COMPARE_AND_WRITE);
    if (p->unmap == ST_UNMAP_IGNORED)
        ops &= ~ST_BIT(ST_OP_UNMAP);
    if (p->mem_align > 1 || p->max_segments)
        ops &= ~(ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE));
    if (rc->disk->read_only || p->read_only || !st_list_empty(&rc->locks))
        ops &= ~ST_OPS_MODIFY;
    if (rc->gate != GATE_OPEN || rc->conflicts)
        ops = 0;
    rc->fast_ops = ops;
    rc->slow_flags =
        (p->fua ? 0 : ST_REQ_FUA) | (p->fast_zero ? 0 : ST_REQ_FAST);
    rc->sector_mask = p->sector_size - 1;
    rc->frames = st_disk_frames(rc->disk);
}

/* ---- Coming back ---- */

/* REQ is not in the tree any more: it completes, or waits in front of it. */
static void
leave_flight(struct root_chan *rc, struct st_req *req)
{
    struct chan_stats *s = &rc->stats;
    struct st_list *oldest;

    st_list_remove(&req->flight);
    st_uncount(&s->in_flight, 1);
    oldest = st_list_first(&rc->flight);
    atomic_store_explicit(
        &s->oldest_ns,
        oldest ? st_container(oldest, struct st_req, flight)->started : 0,
        memory_order_relaxed);
}

/* The same, for one that locks or a drain may have been waiting for. */
static void
leave_tree(struct root_chan *rc, struct st_req *req)
{
    leave_flight(rc, req);
    if (__builtin_expect(rc->watched, 0)) {
        lock_completed(rc, req);
        if (rc->drain && st_list_empty(&rc->flight))
            gate_drained(rc);
    }
    req->flags &= (uint8_t)~ST_REQ_LOCKING;
}

static void
account(struct root_chan *rc, const struct st_req *req)
{
    struct chan_stats *s = &rc->stats;
    uint64_t ns = rc->base.loop->now - req->started;

    st_count(&s->ops[req->op], 1);
    st_hist_add(&s->latency[req->op], ns);
    if (__builtin_expect(req->status != ST_OK, 0))
        st_count(&s->errors[req->op], 1);
    else if (req->op == ST_OP_READ)
        st_count(&s->bytes_read, req->len);
    else if (req->op == ST_OP_WRITE)
        st_count(&s->bytes_written, req->len);
    ST_PROBE4(done, req, req->op, req->status, ns);
}

void
wall_flush_failed(struct root_chan *rc, enum st_status status)
{
    if (status == ST_OK || status == ST_ABORTED)
        return;
    if (!atomic_exchange(&rc->disk->flush_failed, true))
        st_error(st_domain_log(rc->base.loop->domain),
                 "%s: a flush failed (%s): all later ones fail until it is "
                 "opened again",
                 rc->disk->name, st_status_name(status));
}

/* The error policy. True when REQ stays here. */
static bool
kept_by_policy(struct root_chan *rc, struct st_req *req)
{
    struct st_disk *d = rc->disk;

    if (req->op == ST_OP_FLUSH || req->op == ST_OP_SHUTDOWN) {
        wall_flush_failed(rc, req->status);
        return false;
    }
    if ((req->status != ST_IO && req->status != ST_NO_SPACE) ||
        atomic_load(&d->flush_failed))
        return false;
    switch ((enum st_policy)atomic_load(&d->policy)) {
    case ST_POLICY_REPORT:
        return false;
    case ST_POLICY_RETRY:
        if (req->tries >= 5)
            return false;
        st_count(&rc->stats.retried, 1);
        leave_tree(rc, req);
        st_list_append(&rc->retry, &req->link);
        if (!rc->retry_timer.slot)
            st_timer_set(rc->base.loop, &rc->retry_timer,
                         rc->base.loop->now +
                             (UINT64_C(10000000) << req->tries));
        req->tries++;
        return true;
    case ST_POLICY_STOP:
        leave_tree(rc, req);
        st_list_append(&rc->held, &req->link);
        rc->gate = GATE_PARK;
        wall_update(rc);
        if (!atomic_exchange(&d->stopped, true))
            disk_event(d, ST_EVENT_STOPPED);
        return true;
    }
    return false;
}

static void
root_done(struct st_chan *c, struct st_req *req)
{
    struct root_chan *rc = (struct root_chan *)c;

    if (__builtin_expect(req->status != ST_OK, 0) && kept_by_policy(rc, req))
        return;
    account(rc, req);
    leave_tree(rc, req);
    st_complete(req);
}

void
wall_end(struct root_chan *rc, struct st_req *req, enum st_status status)
{
    st_push(req, root_done, &rc->base);
    st_finish(rc->base.loop, req, status);
}

/* Decide one that never was in the tree: no lock has counted it, so none may
 * take it for one that it waits for. */
static void
refuse(struct root_chan *rc, struct st_req *req, enum st_status status)
{
    req->flags |= ST_REQ_LOCKING;
    wall_end(rc, req, status);
}

/* ---- FUA over a disk that has none: the write, then a flush ---- */

static void
fua_flushed(struct st_chan *c, struct st_req *req)
{
    struct root_chan *rc = (struct root_chan *)c;

    req->op = (uint8_t)st_frame(req)->u[0];
    req->flags |= ST_REQ_FUA;
    wall_flush_failed(rc, req->status);
    st_complete(req);
}

static void
fua_written(struct st_chan *c, struct st_req *req)
{
    struct root_chan *rc = (struct root_chan *)c;

    if (req->status != ST_OK) {
        req->flags |= ST_REQ_FUA;
        st_complete(req);
        return;
    }
    st_push(req, fua_flushed, c)->u[0] = req->op;
    if (atomic_load(&rc->disk->flush_failed)) {
        st_finish(c->loop, req, ST_IO);
        return;
    }
    req->op = ST_OP_FLUSH;
    st_submit(rc->inner, req);
}

void
wall_down(struct root_chan *rc, struct st_req *req)
{
    st_push(req, root_done, &rc->base);
    if (req->flags & rc->slow_flags & ST_REQ_FUA) {
        st_count(&rc->stats.emulated, 1);
        req->flags &= (uint8_t)~ST_REQ_FUA;
        st_push(req, fua_written, &rc->base);
    }
    st_submit(rc->inner, req);
}

/* ---- Unmap of less than whole sectors: the sectors inside ---- */

static void
shrunk_done(struct st_chan *c, struct st_req *req)
{
    (void)c;
    req->offset = st_frame(req)->u[0];
    req->len = st_frame(req)->u[1];
    st_complete(req);
}

static void
unmap_inside(struct root_chan *rc, struct st_req *req)
{
    uint64_t first = (req->offset + rc->sector_mask) & ~rc->sector_mask;
    uint64_t end = (req->offset + req->len) & ~rc->sector_mask;
    struct st_frame *f;

    if (end <= first) {
        refuse(rc, req, ST_OK);
        return;
    }
    st_push(req, root_done, &rc->base);
    f = st_push(req, shrunk_done, &rc->base);
    f->u[0] = req->offset;
    f->u[1] = req->len;
    req->offset = first;
    req->len = end - first;
    st_submit(rc->inner, req);
}

/* ---- Going down ---- */

bool
wall_memory_ok(struct root_chan *rc, struct st_buf buf, uint64_t len)
{
    const struct st_props *p = &rc->inner->node->props;

    if (p->mem_align > 1 && !st_buf_aligned(buf, len, p->mem_align))
        return false;
    if (p->max_segments) {
        unsigned n = 0;

        for (uint64_t left = len; left; buf.iov++, buf.skip = 0) {
            uint64_t here = buf.iov->iov_len - buf.skip;

            left -= here < left ? here : left;
            n++;
        }
        return n <= p->max_segments;
    }
    return true;
}

static bool
conflicts_with(const struct conflicts *t, const struct st_req *req)
{
    uint16_t n = req->nexus & ST_NEXUS_MAX;
    const uint64_t *map;

    if (ST_BIT(req->op) & ST_OPS_MODIFY)
        map = t->write;
    else if (req->op == ST_OP_READ)
        map = t->read;
    else
        return false;
    return map[n / 64] >> (n % 64) & 1;
}

/* What the disk as a whole says before anything is looked at below. ST_OK:
 * go on. */
static enum st_status
judge(struct root_chan *rc, const struct st_req *req)
{
    const struct st_props *p = &rc->disk->props;

    if (req->op >= ST_OP_COUNT || !(p->performs & ST_BIT(req->op)))
        return req->op < ST_OP_COUNT && p->read_only &&
                       (ST_BIT(req->op) & ST_OPS_MODIFY)
                   ? ST_READ_ONLY
                   : ST_UNSUPPORTED;
    if (!(ST_BIT(req->op) & ST_OPS_RANGED))
        return ST_OK;
    if (!representable(req))
        return ST_RANGE;
    if (rc->conflicts && conflicts_with(rc->conflicts, req))
        return ST_CONFLICT;
    /* Lengths that the root itself decides on: nothing, less than sectors,
     * emulation. The node checks the others, against the size it uses. */
    if (!st_range_ok(req->offset, req->len, st_node_size(rc->inner->node)))
        return ST_RANGE;
    return ST_OK;
}

/* REQ waits in front of the tree, where nobody counts on it. */
static void
park(struct root_chan *rc, struct st_req *req)
{
    leave_flight(rc, req);
    st_list_append(&rc->parked, &req->link);
}

static void
slow(struct root_chan *rc, struct st_req *req)
{
    const struct st_props *p = &rc->inner->node->props;
    enum st_status status;
    bool native, aligned, fits;

    if (rc->gate == GATE_REFUSE) {
        refuse(rc, req, ST_ABORTED);
        return;
    }
    if (rc->gate == GATE_PARK) {
        park(rc, req);
        return;
    }
    status = judge(rc, req);
    if (status != ST_OK) {
        refuse(rc, req, status);
        return;
    }
    native = p->performs & ST_BIT(req->op);
    fits = req->nframes >= rc->frames;
    if (!(ST_BIT(req->op) & ST_OPS_RANGED)) {
        if (req->op != ST_OP_EJECT && atomic_load(&rc->disk->flush_failed))
            refuse(rc, req, ST_IO);
        else if (native && fits)
            wall_down(rc, req);
        else
            op_start(rc, req);
        return;
    }
    if (req->len == 0) {
        refuse(rc, req, ST_OK);
        return;
    }
    if ((ST_BIT(req->op) & ST_OPS_MODIFY) && lock_blocks(rc, req)) {
        park(rc, req);
        return;
    }
    aligned = !((req->offset | req->len) & rc->sector_mask);
    switch ((enum st_op)req->op) {
    case ST_OP_READ:
    case ST_OP_WRITE:
        native = native && wall_memory_ok(rc, req->buf, req->len);
        break;
    case ST_OP_UNMAP:
        if (p->unmap == ST_UNMAP_IGNORED) {
            refuse(rc, req, ST_OK);
            return;
        }
        if (!aligned && fits) {
            unmap_inside(rc, req);
            return;
        }
        break;
    case ST_OP_WRITE_ZEROES:
        if ((req->flags & ST_REQ_FAST) && !(native && p->fast_zero)) {
            refuse(rc, req, ST_UNSUPPORTED);
            return;
        }
        break;
    case ST_OP_BLOCK_STATUS:
        if (!native) {
            req->extent = (struct st_extent){.len = req->len};
            refuse(rc, req, ST_OK);
            return;
        }
        break;
    case ST_OP_COMPARE_AND_WRITE:
        native = false;
        break;
    case ST_OP_FLUSH:
    case ST_OP_EJECT:
    case ST_OP_SHUTDOWN:
    case ST_OP_COUNT:
        break;
    }
    if (native && aligned && fits)
        wall_down(rc, req);
    else
        op_start(rc, req);
}

void
wall_pass(struct root_chan *rc, struct st_req *req)
{
    if (__builtin_expect(
            (rc->fast_ops >> req->op & 1) && !(req->flags & rc->slow_flags) &&
                !((req->offset | req->len) & rc->sector_mask) &&
                representable(req) && req->len && req->nframes >= rc->frames,
            1)) {
        st_push(req, root_done, &rc->base);
        st_submit(rc->inner, req);
        return;
    }
    slow(rc, req);
}

static inline void
enter_flight(struct root_chan *rc, struct st_req *req)
{
    if (st_list_empty(&rc->flight))
        atomic_store_explicit(&rc->stats.oldest_ns, req->started,
                              memory_order_relaxed);
    st_list_append(&rc->flight, &req->flight);
    st_count(&rc->stats.in_flight, 1);
}

static void
root_submit(struct st_chan *c, struct st_req *req)
{
    req->started = c->loop->now;
    req->tries = 0;
    ST_PROBE4(submit, req, req->op, req->offset, req->len);
    enter_flight((struct root_chan *)c, req);
    wall_pass((struct root_chan *)c, req);
}

void
wall_again(struct root_chan *rc, struct st_list *list)
{
    struct st_list todo;

    st_list_init(&todo);
    st_list_splice(&todo, list);
    st_list_for(req, next, &todo, struct st_req, link)
    {
        st_list_remove(&req->link);
        req->at = &rc->base;
        enter_flight(rc, req);
        wall_pass(rc, req);
    }
}

static void
retry_now(struct st_timer *t)
{
    struct root_chan *rc = st_container(t, struct root_chan, retry_timer);

    wall_again(rc, &rc->retry);
}

static void
root_cancel(struct st_chan *c, struct st_req *req)
{
    struct root_chan *rc = (struct root_chan *)c;

    if (op_cancel(rc, req) || st_list_empty(&req->link))
        return;
    /* Parked, held, or waiting for a retry. */
    st_list_remove(&req->link);
    enter_flight(rc, req);
    refuse(rc, req, ST_ABORTED);
}

/* ---- Channels ---- */

int
st_disk_open_chan(struct st_disk *d, struct st_loop *l, struct st_chan **out)
{
    struct root_chan *rc = calloc(1, sizeof(*rc));
    int err;

    if (!rc)
        return -ENOMEM;
    rc->base = (struct st_chan){root_submit, &root_ops, NULL, l};
    rc->disk = d;
    st_list_init(&rc->flight);
    st_list_init(&rc->parked);
    st_list_init(&rc->held);
    st_list_init(&rc->retry);
    rc->retry_timer.fire = retry_now;
    st_list_init(&rc->locks);
    op_init(rc);
    pthread_mutex_lock(&d->mutex);
    err = st_chan_open(d->node, l, &rc->inner);
    if (err == 0) {
        rc->tree = d->tree;
        rc->gate = gate_wanted(d);
        rc->conflicts = d->conflicts;
        err = lock_adopt(rc);
    }
    if (err == 0) {
        st_list_append(&d->chans, &rc->link);
        d->nchans++;
        wall_update(rc);
    }
    pthread_mutex_unlock(&d->mutex);
    if (err < 0) {
        st_chan_close(rc->inner);
        free(rc);
        return err;
    }
    *out = &rc->base;
    return 0;
}

void
st_disk_close_chan(struct st_chan *c)
{
    struct root_chan *rc = (struct root_chan *)c;
    struct st_disk *d;

    if (!rc)
        return;
    d = rc->disk;
    assert(st_list_empty(&rc->flight) && st_list_empty(&rc->parked) &&
           st_list_empty(&rc->held) && st_list_empty(&rc->retry));
    st_timer_stop(c->loop, &rc->retry_timer);
    op_free_all(rc);
    st_chan_close(rc->inner);
    rc->inner = NULL;
    st_loop_hold(c->loop);
    pthread_mutex_lock(&d->mutex);
    lock_abandon(rc);
    st_list_remove(&rc->link);
    d->nchans--;
    d->zombies++;
    rc->closed = true;
    rc->pins++;
    stats_merge(&d->past, &rc->stats);
    pthread_mutex_unlock(&d->mutex);
    msg_unpin(rc);
}
