/* SPDX-License-Identifier: MIT
 *
 * A blocking face of a disk; see sync.h.
 */
#include "sync.h"

#include <errno.h>
#include <stdlib.h>

struct st_sync {
    struct st_disk *disk;
    struct st_loop *loop;
    struct st_chan *chan; /* owned */
    struct st_req *req;   /* owned */
    struct iovec iov;
    bool done;
};

static void
sync_done(struct st_req *req)
{
    ((struct st_sync *)req->owner)->done = true;
}

int
st_sync_open(struct st_disk *d, struct st_loop *loop, struct st_sync **out)
{
    struct st_sync *s = calloc(1, sizeof(*s));
    int rc = -ENOMEM;

    if (!s)
        return rc;
    s->disk = d;
    s->loop = loop;
    s->req = malloc(st_req_size(ST_DEPTH_MAX + 2));
    if (s->req)
        rc = st_disk_open_chan(d, loop, &s->chan);
    if (rc < 0) {
        free(s->req);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void
st_sync_close(struct st_sync *s)
{
    if (!s)
        return;
    st_disk_close_chan(s->chan);
    free(s->req);
    free(s);
}

struct st_req *
st_sync_req(struct st_sync *s)
{
    st_req_init(s->req, ST_DEPTH_MAX + 2, sync_done, s);
    return s->req;
}

enum st_status
st_sync_run(struct st_sync *s)
{
    s->done = false;
    st_submit(s->chan, s->req);
    if (!st_loop_wait(s->loop, &s->done))
        return ST_ABORTED; /* a virtual world in which nothing can happen */
    return (enum st_status)s->req->status;
}

static enum st_status
run(struct st_sync *s, enum st_op op, void *buf, uint64_t offset, uint64_t len,
    size_t buf_len, unsigned flags)
{
    struct st_req *r = st_sync_req(s);

    s->iov = (struct iovec){buf, buf_len};
    r->op = (uint8_t)op;
    r->flags = (uint8_t)flags;
    r->offset = offset;
    r->len = len;
    r->buf.iov = &s->iov;
    return st_sync_run(s);
}

enum st_status
st_sync_read(struct st_sync *s, void *buf, uint64_t offset, size_t len)
{
    return run(s, ST_OP_READ, buf, offset, len, len, 0);
}

enum st_status
st_sync_write(struct st_sync *s, const void *buf, uint64_t offset, size_t len,
              unsigned flags)
{
    return run(s, ST_OP_WRITE, (void *)(uintptr_t)buf, offset, len, len, flags);
}

enum st_status
st_sync_flush(struct st_sync *s)
{
    return run(s, ST_OP_FLUSH, NULL, 0, 0, 0, 0);
}

enum st_status
st_sync_unmap(struct st_sync *s, uint64_t offset, uint64_t len)
{
    return run(s, ST_OP_UNMAP, NULL, offset, len, 0, 0);
}

enum st_status
st_sync_zero(struct st_sync *s, uint64_t offset, uint64_t len, unsigned flags)
{
    return run(s, ST_OP_WRITE_ZEROES, NULL, offset, len, 0, flags);
}

enum st_status
st_sync_block_status(struct st_sync *s, uint64_t offset, uint64_t len,
                     struct st_extent *out)
{
    enum st_status st = run(s, ST_OP_BLOCK_STATUS, NULL, offset, len, 0, 0);

    *out = s->req->extent;
    return st;
}

enum st_status
st_sync_compare_and_write(struct st_sync *s, const void *buf, uint64_t offset,
                          size_t len)
{
    return run(s, ST_OP_COMPARE_AND_WRITE, (void *)(uintptr_t)buf, offset, len,
               2 * len, 0);
}

/* ---- Edits ---- */

struct waited {
    bool done;
    int rc;
};

static void
edit_waited(struct st_edit *e, int rc)
{
    struct waited *w = e->arg;

    w->rc = rc;
    w->done = true;
}

int
st_sync_edit(struct st_loop *loop, void (*start)(void *arg, struct st_edit *e),
             void *arg, struct st_edit *e)
{
    struct waited w = {.rc = -EINTR};

    e->done = edit_waited;
    e->arg = &w;
    start(arg, e);
    st_loop_wait(loop, &w.done);
    return w.rc;
}
