/* SPDX-License-Identifier: MIT
 *
 * Slots: a request between the client and the disk (proto.md, "Transmission").
 *
 *   small                large write              large read
 *   slot -> disk         slot <- payload          slot
 *     |                    +- piece -> disk         +- piece -> disk
 *     v                    +- piece -> disk         |    ^ sent: next piece
 *   out                  slot -> out when all       +--> out, chunk by chunk
 *
 * - A piece is at most one block (256 KiB), so that it stays in the CPU's cache
 *   between the disk and the socket.
 * - Structured replies send each piece of a large read as a chunk of its own,
 *   NBD_WINDOW at a time. Simple replies and DF gather all of them first: an
 *   error must be known before the header leaves.
 */
#include <stdlib.h>
#include <string.h>

#include "nbd_private.h"

enum { STEPS_MAX = 1024 }; /* lookups of one block status request */

/* ---- Slots ---- */

static void disk_done(struct st_req *req);

/* A slot with enough frames for the disk as it is now, or NULL. */
struct nbd_slot *
st_nbd_slot_get(struct nbd_conn *c, struct nbd_slot *parent)
{
    struct nbd_port *port = c->port;
    struct nbd_slot *s = port->free;
    unsigned frames = st_disk_frames(c->export->disk);

    if (s) {
        port->free = s->next;
        if (s->req.nframes < frames) {
            free(s);
            s = NULL;
        }
    }
    if (!s) {
        s = malloc(offsetof(struct nbd_slot, req) + st_req_size(frames));
        if (!s)
            return NULL;
        st_req_init(&s->req, frames, disk_done, s);
        st_list_init(&s->link);
    }
    s->parent = parent;
    s->conn = c;
    s->block = NULL;
    s->held = 0;
    s->iov = (struct iovec){0};
    s->flush = s->chunked = false;
    s->error = NBD_OK;
    s->started = 0;
    s->pending = s->steps = s->extents = 0;
    s->pieces = NULL;
    s->pieces_tail = &s->pieces;
    s->head_len = 0;
    return s;
}

void
st_nbd_slot_put(struct nbd_slot *s)
{
    struct nbd_conn *c = s->conn;

    if (s->block) {
        c->held -= s->held;
        c->worker->held -= s->held;
        st_nbd_block_put(c->worker, s->block);
    }
    if (!s->parent) {
        st_uncount(&c->inflight, 1);
        if (c->dead)
            st_nbd_conn_settle(c);
    }
    s->next = c->port->free;
    c->port->free = s;
    if (c->stalled)
        st_nbd_conn_wake(c);
}

/* S has BYTES in flight. */
void
st_nbd_slot_hold(struct nbd_slot *s, uint64_t bytes)
{
    s->held = bytes;
    s->conn->held += bytes;
    s->conn->worker->held += bytes;
}

/* Give S a block of SIZE for LEN bytes, out of memory that was taken. */
bool
st_nbd_slot_block(struct nbd_slot *s, uint32_t size, uint64_t len)
{
    s->block = st_nbd_block_new(s->conn->worker, size);
    if (!s->block)
        return false;
    st_nbd_slot_hold(s, size);
    s->iov = (struct iovec){s->block->data, len};
    return true;
}

/* ---- Replies ---- */

/* The one table from statuses to NBD's errors. */
static enum nbd_error
error_of(enum st_status status, const struct nbd_slot *s)
{
    bool write = s->type == NBD_CMD_WRITE || s->type == NBD_CMD_WRITE_ZEROES;

    switch (status) {
    case ST_OK:
        return NBD_OK;
    case ST_RANGE:
        return write ? NBD_ENOSPC : NBD_EINVAL;
    case ST_INVALID:
        return NBD_EINVAL;
    case ST_UNSUPPORTED: /* ENOTSUP says "not fast", and nothing else */
        return s->flags & NBD_CMD_FAST_ZERO ? NBD_ENOTSUP : NBD_EINVAL;
    case ST_READ_ONLY:
        return NBD_EPERM;
    case ST_NO_SPACE:
        return NBD_ENOSPC;
    case ST_IO:
    case ST_MEDIUM_READ:
    case ST_MEDIUM_WRITE:
    case ST_GUARD:
    case ST_APP_TAG:
    case ST_REF_TAG:
    case ST_MEMORY:
    case ST_CONFLICT:
    case ST_MISCOMPARE:
    case ST_PREEMPTED:
    case ST_ABORTED:
    case ST_STATUS_COUNT:
        break;
    }
    return NBD_EIO;
}

void
st_nbd_slot_error(struct nbd_slot *s, enum nbd_error error, const char *why)
{
    if (!s->error) {
        s->error = error;
        s->why = why;
    }
}

/* Compose the head of a chunk with LEN bytes after it. */
static void
chunk(struct nbd_slot *s, unsigned flags, unsigned type, size_t len)
{
    const struct nbd_slot *whole = s->parent ? s->parent : s;

    if (s->conn->extended) {
        struct nbd_chunk_ext h = {
            .magic = be32_of(NBD_CHUNK_EXT_MAGIC),
            .flags = be16_of((uint16_t)flags),
            .type = be16_of((uint16_t)type),
            .cookie = be64_of(whole->cookie),
            .offset = be64_of(whole->offset),
            .len = be64_of(len),
        };

        memcpy(s->head, &h, sizeof(h));
        s->head_len = sizeof(h);
    } else {
        struct nbd_chunk h = {
            .magic = be32_of(NBD_CHUNK_MAGIC),
            .flags = be16_of((uint16_t)flags),
            .type = be16_of((uint16_t)type),
            .cookie = be64_of(whole->cookie),
            .len = be32_of((uint32_t)len),
        };

        memcpy(s->head, &h, sizeof(h));
        s->head_len = sizeof(h);
    }
}

/* OFFSET_DATA: LEN bytes of the export from OFFSET. */
static void
chunk_data(struct nbd_slot *s, unsigned flags, uint64_t offset, size_t len)
{
    be64 off = be64_of(offset);

    chunk(s, flags, NBD_CHUNK_OFFSET_DATA, sizeof(off) + len);
    memcpy(s->head + s->head_len, &off, sizeof(off));
    s->head_len += sizeof(off);
}

static void
chunk_error(struct nbd_slot *s)
{
    size_t len = strlen(s->why);
    struct nbd_chunk_error e = {be32_of(s->error), be16_of((uint16_t)len)};

    chunk(s, NBD_CHUNK_DONE, NBD_CHUNK_ERROR, sizeof(e) + len);
    memcpy(s->head + s->head_len, &e, sizeof(e));
    s->head_len += sizeof(e);
    s->iov = (struct iovec){(char *)(uintptr_t)s->why, len};
}

static void
out_add(struct nbd_slot *s)
{
    struct nbd_conn *c = s->conn;

    s->next = NULL;
    *c->out_tail = s;
    c->out_tail = &s->next;
    c->out_bytes += s->head_len + s->iov.iov_len;
}

/* S is decided: send the reply. */
void
st_nbd_slot_finish(struct nbd_slot *s)
{
    struct nbd_conn *c = s->conn;
    struct nbd_slot *piece = s->pieces, *next;

    s->pieces = NULL;
    if (s->error || c->dead) {
        for (; piece; piece = next) {
            next = piece->next;
            st_nbd_slot_put(piece);
        }
    }
    if (c->dead) {
        st_nbd_slot_put(s);
        return;
    }
    st_count(&c->worker->requests, 1);
    st_count(&c->requests, 1);
    if (s->error)
        st_count(&c->worker->errors, 1);
    if (s->error || s->chunked ||
        (s->type != NBD_CMD_READ && s->type != NBD_CMD_BLOCK_STATUS))
        s->iov.iov_len = 0;
    if (!c->structured) {
        struct nbd_simple h = {
            .magic = be32_of(NBD_SIMPLE_MAGIC),
            .error = be32_of(s->error),
            .cookie = be64_of(s->cookie),
        };

        memcpy(s->head, &h, sizeof(h));
        s->head_len = sizeof(h);
    } else if (s->error) {
        chunk_error(s);
    } else if (s->type == NBD_CMD_BLOCK_STATUS) {
        chunk(s, NBD_CHUNK_DONE,
              c->extended ? NBD_CHUNK_BLOCK_STATUS_EXT : NBD_CHUNK_BLOCK_STATUS,
              s->iov.iov_len);
    } else if (s->type == NBD_CMD_READ && s->len && !s->chunked) {
        chunk_data(s, NBD_CHUNK_DONE, s->offset, s->len);
    } else {
        chunk(s, NBD_CHUNK_DONE, NBD_CHUNK_NONE, 0);
    }
    out_add(s);
    for (; piece; piece = next) {
        next = piece->next;
        out_add(piece);
    }
    st_nbd_conn_dirty(c);
}

/* ---- The disk ---- */

void
st_nbd_slot_submit(struct nbd_slot *s, enum st_op op, unsigned flags,
                   uint64_t offset, uint64_t len)
{
    struct nbd_conn *c = s->conn;
    struct st_req *req = &s->req;

    req->op = (uint8_t)op;
    req->flags = (uint8_t)flags;
    req->nexus = c->export->nexus;
    req->offset = offset;
    req->len = len;
    req->buf = (struct st_buf){&s->iov, 0};
    st_list_append(&c->flight, &s->link);
    st_submit(c->port->chan, req);
}

/* A piece of a read: its next part. */
void
st_nbd_piece_read(struct nbd_slot *piece)
{
    struct nbd_slot *s = piece->parent;

    piece->offset = s->offset + s->started;
    piece->len = st_min(s->len - s->started, NBD_BLOCK_MAX);
    piece->iov.iov_len = piece->len;
    s->started += piece->len;
    st_nbd_slot_submit(piece, ST_OP_READ, 0, piece->offset, piece->len);
}

/* S, or all pieces of it, are done. */
static void
whole_done(struct nbd_slot *s)
{
    if (s->flush && !s->error && !s->conn->dead) {
        s->flush = false;
        st_nbd_slot_submit(s, ST_OP_FLUSH, 0, 0, 0);
    } else {
        st_nbd_slot_finish(s);
    }
}

static void
piece_end(struct nbd_slot *piece)
{
    struct nbd_slot *s = piece->parent;

    st_nbd_slot_put(piece);
    if (--s->pending == 0)
        whole_done(s);
}

static void
piece_done(struct nbd_slot *piece)
{
    struct nbd_slot *s = piece->parent;
    struct nbd_conn *c = s->conn;

    if (s->type == NBD_CMD_WRITE || (s->chunked && (s->error || c->dead))) {
        piece_end(piece);
    } else if (s->chunked) {
        chunk_data(piece, 0, piece->offset, piece->len);
        out_add(piece);
        st_nbd_conn_dirty(c);
    } else if (--s->pending == 0) {
        whole_done(s);
    }
}

/* An extent of block status is known: add it, then the next one or the reply.
 * The context's id comes first; extended: and the number of extents. */
static void
extent_done(struct nbd_slot *s)
{
    bool wide = s->conn->extended;
    uint32_t flags = s->req.extent.flags & (ST_EXTENT_HOLE | ST_EXTENT_ZERO);
    uint64_t len = st_min(s->req.extent.len, s->len - s->started);
    size_t head = wide ? 8 : 4, one = wide ? 16 : 8;
    be32 ids[2];

    if (!s->extents || s->last_flags != flags) {
        s->extents++;
        s->last_flags = flags;
        s->last_len = 0;
    }
    s->last_len += len;
    s->started += len;
    s->iov.iov_len = head + s->extents * one;
    if (wide) {
        be64 e[2] = {be64_of(s->last_len), be64_of(flags)};

        memcpy(s->block->data + s->iov.iov_len - one, e, one);
    } else {
        be32 e[2] = {be32_of((uint32_t)s->last_len), be32_of(flags)};

        memcpy(s->block->data + s->iov.iov_len - one, e, one);
    }
    if (s->started < s->len && !(s->flags & NBD_CMD_REQ_ONE) &&
        s->iov.iov_len + one <= s->block->size && ++s->steps < STEPS_MAX &&
        !s->conn->dead) {
        st_nbd_slot_submit(s, ST_OP_BLOCK_STATUS, 0, s->offset + s->started,
                           s->len - s->started);
        return;
    }
    ids[0] = be32_of(NBD_CONTEXT);
    ids[1] = be32_of(s->extents);
    memcpy(s->block->data, ids, head);
    st_nbd_slot_finish(s);
}

static void
disk_done(struct st_req *req)
{
    struct nbd_slot *s = req->owner, *whole = s->parent ? s->parent : s;

    st_list_remove(&s->link);
    if (req->status != ST_OK)
        st_nbd_slot_error(whole, error_of(req->status, whole),
                          st_status_name(req->status));
    if (s->parent)
        piece_done(s);
    else if (s->type == NBD_CMD_BLOCK_STATUS && !s->error)
        extent_done(s);
    else
        whole_done(s);
}

void
st_nbd_slot_sent(struct nbd_slot *s)
{
    struct nbd_slot *whole = s->parent;

    if (!whole || !whole->chunked)
        st_nbd_slot_put(s);
    else if (whole->started < whole->len && !whole->error && !s->conn->dead)
        st_nbd_piece_read(s);
    else
        piece_end(s);
}

uint64_t
st_nbd_cancel(struct nbd_conn *c)
{
    uint64_t n = 0;

    st_list_for(s, tmp, &c->flight, struct nbd_slot, link)
    {
        st_cancel(&s->req);
        n++;
    }
    return n;
}
