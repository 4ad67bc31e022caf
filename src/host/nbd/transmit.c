/* SPDX-License-Identifier: MIT
 *
 * Transmission (proto.md, "Transmission" and "Request types"): requests become
 * slots, slots go to the disk, finished slots become replies.
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
 * - What cannot start now (memory, limits) is not read: its header is looked at
 *   again later.
 */
#include <stdlib.h>
#include <string.h>

#include "nbd_private.h"

enum {
    BULK_MIN = 64 << 10,   /* payload that is worth a recv of its own */
    ROUND_MAX = 256 << 10, /* bytes started before others have a turn */
    STEPS_MAX = 1024,      /* lookups of one block status request */
};

struct call {
    uint16_t type, flags;
    uint64_t cookie, offset, len;
};

/* ---- Ports and slots ----------------------------------------------------------- */

struct nbd_port *
st_nbd_port_get(struct nbd_worker *w, struct nbd_export *e)
{
    struct nbd_port *port = &w->port[e - w->server->export];

    if (!port->chan && st_disk_open_chan(e->disk, w->loop, &port->chan) < 0) {
        port->chan = NULL;
        return NULL;
    }
    port->users++;
    return port;
}

void
st_nbd_port_put(struct nbd_port *port)
{
    struct nbd_slot *s;

    if (--port->users)
        return;
    while ((s = port->free)) {
        port->free = s->next;
        free(s);
    }
    st_disk_close_chan(port->chan);
    port->chan = NULL;
}

static void disk_done(struct st_req *req);

/* A slot with enough frames for the disk as it is now, or NULL. */
static struct nbd_slot *
slot_get(struct nbd_conn *c, struct nbd_slot *parent)
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

static void
slot_put(struct nbd_slot *s)
{
    struct nbd_conn *c = s->conn;

    if (s->block) {
        c->held -= s->held;
        c->worker->held -= s->held;
        st_nbd_block_put(c->worker, s->block);
    }
    if (!s->parent) {
        c->inflight--;
        if (c->dead)
            st_nbd_conn_settle(c);
    }
    s->next = c->port->free;
    c->port->free = s;
    if (c->stalled)
        st_nbd_conn_wake(c);
}

/* S has BYTES in flight. */
static void
hold(struct nbd_slot *s, uint64_t bytes)
{
    s->held = bytes;
    s->conn->held += bytes;
    s->conn->worker->held += bytes;
}

/* Give S a block of SIZE for LEN bytes, out of memory that was taken. */
static bool
slot_block(struct nbd_slot *s, uint32_t size, uint64_t len)
{
    s->block = st_nbd_block_new(s->conn->worker, size);
    if (!s->block)
        return false;
    hold(s, size);
    s->iov = (struct iovec){s->block->data, len};
    return true;
}

/* ---- Replies ------------------------------------------------------------------------ */

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

static void
slot_error(struct nbd_slot *s, enum nbd_error error, const char *why)
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
static void
finish(struct nbd_slot *s)
{
    struct nbd_conn *c = s->conn;
    struct nbd_slot *piece = s->pieces, *next;

    s->pieces = NULL;
    if (s->error || c->dead) {
        for (; piece; piece = next) {
            next = piece->next;
            slot_put(piece);
        }
    }
    if (c->dead) {
        slot_put(s);
        return;
    }
    st_count(&c->worker->requests, 1);
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
              c->extended ? NBD_CHUNK_BLOCK_STATUS_EXT
                          : NBD_CHUNK_BLOCK_STATUS,
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

/* ---- The disk -------------------------------------------------------------------------- */

static void
submit(struct nbd_slot *s, enum st_op op, unsigned flags, uint64_t offset,
       uint64_t len)
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
static void
piece_read(struct nbd_slot *piece)
{
    struct nbd_slot *s = piece->parent;

    piece->offset = s->offset + s->started;
    piece->len = st_min(s->len - s->started, NBD_BLOCK_MAX);
    piece->iov.iov_len = piece->len;
    s->started += piece->len;
    submit(piece, ST_OP_READ, 0, piece->offset, piece->len);
}

/* S, or all pieces of it, are done. */
static void
whole_done(struct nbd_slot *s)
{
    if (s->flush && !s->error && !s->conn->dead) {
        s->flush = false;
        submit(s, ST_OP_FLUSH, 0, 0, 0);
    } else {
        finish(s);
    }
}

static void
piece_end(struct nbd_slot *piece)
{
    struct nbd_slot *s = piece->parent;

    slot_put(piece);
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
        submit(s, ST_OP_BLOCK_STATUS, 0, s->offset + s->started,
               s->len - s->started);
        return;
    }
    ids[0] = be32_of(NBD_CONTEXT);
    ids[1] = be32_of(s->extents);
    memcpy(s->block->data, ids, head);
    finish(s);
}

static void
disk_done(struct st_req *req)
{
    struct nbd_slot *s = req->owner, *whole = s->parent ? s->parent : s;

    st_list_remove(&s->link);
    if (req->status != ST_OK)
        slot_error(whole, error_of(req->status, whole),
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
        slot_put(s);
    else if (whole->started < whole->len && !whole->error && !s->conn->dead)
        piece_read(s);
    else
        piece_end(s);
}

uint64_t
st_nbd_cancel(struct nbd_conn *c)
{
    uint64_t n = 0;

    st_list_for (s, tmp, &c->flight, struct nbd_slot, link) {
        st_cancel(&s->req);
        n++;
    }
    return n;
}

/* ---- Payload of writes -------------------------------------------------------------------- */

/* May C have BYTES more in flight? False: it goes on when it may. */
static bool
room(struct nbd_conn *c, uint64_t bytes)
{
    if (c->held && c->held + bytes > NBD_CONN_BYTES) {
        c->stalled = true;
        return false;
    }
    return !bytes || st_nbd_mem_take(c, bytes);
}

static unsigned
write_flags(const struct nbd_slot *s)
{
    return s->flags & NBD_CMD_FUA ? ST_REQ_FUA : 0;
}

/* No memory for what is to come of C->in: drop it. */
static void
payload_drop(struct nbd_conn *c)
{
    struct nbd_slot *s = c->in;

    slot_error(s, NBD_ENOMEM, "out of memory");
    c->discard = s->len - s->started;
    c->in = NULL;
    if (--s->pending == 0)
        finish(s);
}

/* Make room for the next piece of a large write. False: not now. */
static bool
payload_next(struct nbd_conn *c)
{
    struct nbd_slot *s = c->in, *piece;
    uint64_t len = st_min(s->len - s->started, NBD_BLOCK_MAX);

    if (!room(c, NBD_BLOCK_MAX))
        return false;
    piece = slot_get(c, s);
    if (!piece) {
        st_nbd_mem_give(c->worker, NBD_BLOCK_MAX);
        payload_drop(c);
        return true;
    }
    if (!slot_block(piece, NBD_BLOCK_MAX, len)) {
        slot_put(piece);
        payload_drop(c);
        return true;
    }
    piece->offset = s->offset + s->started;
    piece->len = len;
    s->started += len;
    s->pending++;
    s->pieces = piece;
    c->fill = piece->block->data;
    c->fill_room = len;
    return true;
}

void
st_nbd_payload_full(struct nbd_conn *c)
{
    struct nbd_slot *s = c->in, *piece = s->pieces;

    if (s->started == s->len)
        c->in = NULL;
    if (!piece) {
        submit(s, ST_OP_WRITE, write_flags(s), s->offset, s->len);
        return;
    }
    s->pieces = NULL;
    submit(piece, ST_OP_WRITE, 0, piece->offset, piece->len);
    if (!c->in)
        s->pending--; /* the payload is complete */
}

void
st_nbd_payload_lost(struct nbd_conn *c)
{
    struct nbd_slot *s = c->in;

    c->in = NULL;
    c->fill_room = 0;
    if (!s)
        return;
    if (s->pieces) {
        slot_put(s->pieces);
        s->pieces = NULL;
        s->pending--;
    }
    if (s->pending == 0 || --s->pending == 0)
        finish(s);
}

/* ---- Requests ------------------------------------------------------------------------------- */

/* What is wrong with R, if anything; *WHY is for people. */
static enum nbd_error
check(struct nbd_conn *c, const struct call *r, const char **why)
{
    static const struct {
        uint16_t flags;  /* that the command may carry */
        uint16_t needs;  /* transmission flag that exposes it */
        bool modifies;
    } cmd[NBD_CMD_COUNT] = {
        [NBD_CMD_READ] = {NBD_CMD_FUA | NBD_CMD_DF, 0, false},
        [NBD_CMD_WRITE] = {NBD_CMD_FUA, 0, true},
        [NBD_CMD_FLUSH] = {NBD_CMD_FUA, 0, false},
        [NBD_CMD_TRIM] = {NBD_CMD_FUA, NBD_SEND_TRIM, true},
        [NBD_CMD_CACHE] = {NBD_CMD_FUA, 0, false},
        [NBD_CMD_WRITE_ZEROES] = {NBD_CMD_FUA | NBD_CMD_NO_HOLE |
                                      NBD_CMD_FAST_ZERO,
                                  NBD_SEND_WRITE_ZEROES, true},
        [NBD_CMD_BLOCK_STATUS] = {NBD_CMD_FUA | NBD_CMD_REQ_ONE, 0, false},
    };
    unsigned flags = r->flags;

    if (c->worker->stopping) {
        *why = "server is shutting down";
        return NBD_ESHUTDOWN;
    }
    *why = "unknown command";
    if (r->type >= NBD_CMD_COUNT)
        return NBD_EINVAL;
    *why = "flags not valid for this command";
    if (c->extended && r->type == NBD_CMD_WRITE)
        flags ^= NBD_CMD_PAYLOAD_LEN; /* required */
    if (flags & ~(unsigned)cmd[r->type].flags ||
        (flags & NBD_CMD_DF && !(c->tflags & NBD_SEND_DF)))
        return NBD_EINVAL;
    *why = "export is read-only";
    if (cmd[r->type].modifies && c->export->read_only)
        return NBD_EPERM;
    *why = "command was not announced";
    if (cmd[r->type].needs & ~c->tflags)
        return NBD_EINVAL;
    if (r->type == NBD_CMD_BLOCK_STATUS && !c->meta)
        return NBD_EINVAL;
    if (r->type == NBD_CMD_FLUSH) {
        *why = "flush has no range";
        return r->offset || r->len ? NBD_EINVAL : NBD_OK;
    }
    *why = "longer than 32 MiB";
    if ((r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE) &&
        r->len > NBD_PAYLOAD_MAX)
        return NBD_EINVAL;
    *why = "past the end of the export";
    if (!st_range_ok(r->offset, r->len, st_disk_size(c->export->disk)))
        return r->type == NBD_CMD_WRITE || r->type == NBD_CMD_WRITE_ZEROES
                   ? NBD_ENOSPC
                   : NBD_EINVAL;
    *why = "no length";
    return r->type == NBD_CMD_BLOCK_STATUS && !r->len ? NBD_EINVAL : NBD_OK;
}

static unsigned
npieces(uint64_t len)
{
    return (unsigned)((len + NBD_BLOCK_MAX - 1) / NBD_BLOCK_MAX);
}

/* Start a read of several pieces, for N of which memory was taken. */
static void
read_pieces(struct nbd_slot *s, unsigned n)
{
    struct nbd_conn *c = s->conn;

    for (; n; n--) {
        struct nbd_slot *piece = slot_get(c, s);

        if (!piece || !slot_block(piece, NBD_BLOCK_MAX, NBD_BLOCK_MAX)) {
            /* A block that could not be made gave its memory back. */
            st_nbd_mem_give(c->worker,
                            (uint64_t)(piece ? n - 1 : n) * NBD_BLOCK_MAX);
            if (piece)
                slot_put(piece);
            slot_error(s, NBD_ENOMEM, "out of memory");
            if (!s->pending)
                finish(s);
            return;
        }
        if (!s->chunked) {
            piece->next = NULL;
            *s->pieces_tail = piece;
            s->pieces_tail = &piece->next;
        }
        s->pending++;
        piece_read(piece);
    }
}

/* Start S, whose memory was taken; a write's payload starts at *AT. */
static void
start(struct nbd_slot *s, uint64_t memory, const uint8_t **at, bool in_place,
      struct nbd_block *home)
{
    struct nbd_conn *c = s->conn;
    unsigned flags = write_flags(s);
    bool pieces = s->type == NBD_CMD_READ && s->len > NBD_BLOCK_MAX;

    if (in_place) {
        s->block = home;
        s->block->refs++;
        hold(s, s->len);
        s->iov = (struct iovec){(uint8_t *)(uintptr_t)*at, s->len};
        *at += s->len;
    } else if (memory && !pieces &&
               !slot_block(s, (uint32_t)memory, s->len)) {
        slot_error(s, NBD_ENOMEM, "out of memory");
        c->discard = s->type == NBD_CMD_WRITE ? s->len : 0;
        finish(s);
        return;
    }
    switch ((enum nbd_cmd)s->type) {
    case NBD_CMD_READ:
        if (pieces)
            read_pieces(s, (unsigned)(memory / NBD_BLOCK_MAX));
        else
            submit(s, ST_OP_READ, 0, s->offset, s->len);
        return;
    case NBD_CMD_WRITE:
        if (in_place) {
            submit(s, ST_OP_WRITE, flags, s->offset, s->len);
            return;
        }
        c->in = s;
        c->bulk = s->len > BULK_MIN;
        if (s->len > NBD_BLOCK_MAX) {
            s->pending = 1; /* for the payload */
            s->flush = flags;
        } else {
            s->started = s->len;
            c->fill = s->block->data;
            c->fill_room = s->len;
        }
        return;
    case NBD_CMD_FLUSH:
        submit(s, ST_OP_FLUSH, 0, 0, 0);
        return;
    case NBD_CMD_TRIM:
        s->flush = flags;
        submit(s, ST_OP_UNMAP, 0, s->offset, s->len);
        return;
    case NBD_CMD_WRITE_ZEROES:
        if (!(s->flags & NBD_CMD_NO_HOLE))
            flags |= ST_REQ_MAY_UNMAP;
        if (s->flags & NBD_CMD_FAST_ZERO)
            flags |= ST_REQ_FAST;
        submit(s, ST_OP_WRITE_ZEROES, flags, s->offset, s->len);
        return;
    case NBD_CMD_BLOCK_STATUS:
        submit(s, ST_OP_BLOCK_STATUS, 0, s->offset, s->len);
        return;
    case NBD_CMD_CACHE:
    case NBD_CMD_DISC:
    case NBD_CMD_COUNT:
        break;
    }
    finish(s);
}

static bool
decode(struct nbd_conn *c, const uint8_t *p, struct call *r)
{
    if (c->extended) {
        struct nbd_request_ext h;

        memcpy(&h, p, sizeof(h));
        *r = (struct call){be16_get(h.type), be16_get(h.flags),
                           be64_get(h.cookie), be64_get(h.offset),
                           be64_get(h.len)};
        return be32_get(h.magic) == NBD_REQUEST_EXT;
    } else {
        struct nbd_request h;

        memcpy(&h, p, sizeof(h));
        *r = (struct call){be16_get(h.type), be16_get(h.flags),
                           be64_get(h.cookie), be64_get(h.offset),
                           be32_get(h.len)};
        return be32_get(h.magic) == NBD_REQUEST_MAGIC;
    }
}

/* A request whose header is at H; its payload, if any, starts at *AT. False:
 * it cannot start now. */
static bool
request(struct nbd_conn *c, const uint8_t *h, const uint8_t **at,
        const uint8_t *end, struct nbd_block *home)
{
    size_t align = st_disk_props(c->export->disk)->mem_align;
    uint64_t share = st_nbd_mem_share(c->worker);
    uint64_t memory = 0, payload;
    bool chunked = false, in_place = false;
    enum nbd_error error;
    struct nbd_slot *s;
    const char *why;
    struct call r;

    if (!decode(c, h, &r)) {
        st_nbd_conn_fail(c, "bad request magic");
        return true;
    }
    if (r.type == NBD_CMD_DISC) {
        c->deaf = true;
        return true;
    }
    payload = (c->extended ? r.flags & NBD_CMD_PAYLOAD_LEN
                           : r.type == NBD_CMD_WRITE)
                  ? r.len
                  : 0;
    if (payload > (c->extended ? NBD_PAYLOAD_MAX : NBD_PAYLOAD_SKIP_MAX)) {
        st_nbd_conn_fail(c, "payload is too long");
        return true;
    }
    error = check(c, &r, &why);
    if (!error && r.type == NBD_CMD_READ && r.len) {
        unsigned n = npieces(r.len);

        uint64_t most = st_max(1, share / NBD_BLOCK_MAX);

        chunked = n > 1 && c->structured && !(r.flags & NBD_CMD_DF);
        if (chunked)
            n = (unsigned)st_min(n, st_min(NBD_WINDOW, most));
        memory = n > 1 ? (uint64_t)n * NBD_BLOCK_MAX
                       : st_nbd_block_size(r.len);
        if (n > most) {
            error = NBD_ENOMEM;
            why = "more than the memory cap allows at once";
            memory = 0;
        }
    } else if (!error && r.type == NBD_CMD_WRITE) {
        in_place = payload && payload <= (uint64_t)(end - *at) &&
                   !(((uintptr_t)*at | payload) & (align - 1));
        if (payload && !in_place && payload <= NBD_BLOCK_MAX)
            memory = st_nbd_block_size(payload);
    } else if (!error && r.type == NBD_CMD_BLOCK_STATUS) {
        memory = NBD_BLOCK_MIN;
    }
    if (c->inflight >= NBD_CONN_REQUESTS) {
        c->stalled = true;
        return false;
    }
    if (!room(c, memory))
        return false;
    s = slot_get(c, NULL);
    if (!s) {
        st_nbd_mem_give(c->worker, memory);
        st_nbd_conn_fail(c, NULL);
        return true;
    }
    c->inflight++;
    c->bulk = false;
    s->cookie = r.cookie;
    s->offset = r.offset;
    s->len = r.len;
    s->type = r.type;
    s->flags = r.flags;
    s->chunked = chunked;
    c->round += s->len;
    if (error) {
        c->discard = payload;
        slot_error(s, error, why);
        finish(s);
    } else if (!r.len && r.type != NBD_CMD_FLUSH) {
        finish(s); /* nothing to do, and that succeeds */
    } else {
        start(s, memory, at, in_place, home);
    }
    return true;
}

size_t
st_nbd_transmit(struct nbd_conn *c, const uint8_t *p, size_t n,
                struct nbd_block *home)
{
    size_t header = c->extended ? sizeof(struct nbd_request_ext)
                                : sizeof(struct nbd_request);
    const uint8_t *at = p, *end = p + n, *h;

    while (!c->deaf) {
        if (c->discard) {
            uint64_t k = st_min(c->discard, (uint64_t)(end - at));

            at += k;
            c->discard -= k;
            if (c->discard)
                break;
        } else if (c->in && !c->fill_room) {
            if (!payload_next(c))
                break;
        } else if (c->in) {
            size_t k = st_min(c->fill_room, (uint64_t)(end - at));

            if (!k)
                break;
            memcpy(c->fill, at, k);
            at += k;
            c->fill += k;
            c->fill_room -= k;
            if (!c->fill_room)
                st_nbd_payload_full(c);
        } else if (c->round >= ROUND_MAX) {
            c->stalled = true;
            st_nbd_conn_wake(c);
            break;
        } else {
            h = st_nbd_collect(c, &at, end, header);
            if (!h)
                break;
            if (!request(c, h, &at, end, home)) {
                if (!c->nstash)
                    at -= header;
                break;
            }
            c->nstash = 0;
        }
    }
    return (size_t)(at - p);
}
