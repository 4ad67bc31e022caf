/* SPDX-License-Identifier: MIT
 *
 * Requests (proto.md, "Request types"): from received bytes to started slots.
 *
 *   bytes --> header --> check --> memory --> slot --> disk
 *               ^          | error: reply, payload is dropped
 *               +----------+-- not now (memory, limits): nothing is consumed,
 *                              the header is looked at again later
 *
 * A payload that lies whole where it was received is used there. Else it gets a
 * block, or one after the other, and is received into those.
 */
#include <string.h>

#include "nbd_private.h"

enum {
    BULK_MIN = 64 << 10,   /* payload that is worth a recv of its own */
    ROUND_MAX = 256 << 10, /* bytes started before others have a turn */
};

struct call {
    uint16_t type, flags;
    uint64_t cookie, offset, len;
};

/* ---- Payload of writes ---- */

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

    st_nbd_slot_error(s, NBD_ENOMEM, "out of memory");
    c->discard = s->len - s->started;
    c->in = NULL;
    if (--s->pending == 0)
        st_nbd_slot_finish(s);
}

/* Make room for the next piece of a large write. False: not now. */
static bool
payload_next(struct nbd_conn *c)
{
    struct nbd_slot *s = c->in, *piece;
    uint64_t len = st_min(s->len - s->started, NBD_BLOCK_MAX);

    if (!room(c, NBD_BLOCK_MAX))
        return false;
    piece = st_nbd_slot_get(c, s);
    if (!piece) {
        st_nbd_mem_give(c->worker, NBD_BLOCK_MAX);
        payload_drop(c);
        return true;
    }
    if (!st_nbd_slot_block(piece, NBD_BLOCK_MAX, len)) {
        st_nbd_slot_put(piece);
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
        st_nbd_slot_submit(s, ST_OP_WRITE, write_flags(s), s->offset, s->len);
        return;
    }
    s->pieces = NULL;
    st_nbd_slot_submit(piece, ST_OP_WRITE, 0, piece->offset, piece->len);
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
        st_nbd_slot_put(s->pieces);
        s->pieces = NULL;
        s->pending--;
    }
    if (s->pending == 0 || --s->pending == 0)
        st_nbd_slot_finish(s);
}

/* ---- Requests ---- */

/* What is wrong with R, if anything; *WHY is for people. */
static enum nbd_error
check(struct nbd_conn *c, const struct call *r, const char **why)
{
    static const struct {
        uint16_t flags; /* that the command may carry */
        uint16_t needs; /* transmission flag that exposes it */
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

    if (c->shut) {
        *why = "server is shutting down";
        return NBD_ESHUTDOWN;
    }
    *why = "unknown command";
    if (r->type >= NBD_CMD_COUNT)
        return NBD_EINVAL;
    *why = "flags not valid for this command";
    if (c->extended && r->type == NBD_CMD_WRITE)
        flags &= ~(unsigned)NBD_CMD_PAYLOAD_LEN; /* QEMU leaves it out */
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
        struct nbd_slot *piece = st_nbd_slot_get(c, s);

        if (!piece || !st_nbd_slot_block(piece, NBD_BLOCK_MAX, NBD_BLOCK_MAX)) {
            /* A block that could not be made gave its memory back. */
            st_nbd_mem_give(c->worker,
                            (uint64_t)(piece ? n - 1 : n) * NBD_BLOCK_MAX);
            if (piece)
                st_nbd_slot_put(piece);
            st_nbd_slot_error(s, NBD_ENOMEM, "out of memory");
            if (!s->pending)
                st_nbd_slot_finish(s);
            return;
        }
        if (!s->chunked) {
            piece->next = NULL;
            *s->pieces_tail = piece;
            s->pieces_tail = &piece->next;
        }
        s->pending++;
        st_nbd_piece_read(piece);
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
        st_nbd_slot_hold(s, s->len);
        s->iov = (struct iovec){(uint8_t *)(uintptr_t)*at, s->len};
        *at += s->len;
    } else if (memory && !pieces &&
               !st_nbd_slot_block(s, (uint32_t)memory, s->len)) {
        st_nbd_slot_error(s, NBD_ENOMEM, "out of memory");
        c->discard = s->type == NBD_CMD_WRITE ? s->len : 0;
        st_nbd_slot_finish(s);
        return;
    }
    switch ((enum nbd_cmd)s->type) {
    case NBD_CMD_READ:
        if (pieces)
            read_pieces(s, (unsigned)(memory / NBD_BLOCK_MAX));
        else
            st_nbd_slot_submit(s, ST_OP_READ, 0, s->offset, s->len);
        return;
    case NBD_CMD_WRITE:
        if (in_place) {
            st_nbd_slot_submit(s, ST_OP_WRITE, flags, s->offset, s->len);
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
        st_nbd_slot_submit(s, ST_OP_FLUSH, 0, 0, 0);
        return;
    case NBD_CMD_TRIM:
        s->flush = flags;
        st_nbd_slot_submit(s, ST_OP_UNMAP, 0, s->offset, s->len);
        return;
    case NBD_CMD_WRITE_ZEROES:
        if (!(s->flags & NBD_CMD_NO_HOLE))
            flags |= ST_REQ_MAY_UNMAP;
        if (s->flags & NBD_CMD_FAST_ZERO)
            flags |= ST_REQ_FAST;
        st_nbd_slot_submit(s, ST_OP_WRITE_ZEROES, flags, s->offset, s->len);
        return;
    case NBD_CMD_BLOCK_STATUS:
        st_nbd_slot_submit(s, ST_OP_BLOCK_STATUS, 0, s->offset, s->len);
        return;
    case NBD_CMD_CACHE:
    case NBD_CMD_DISC:
    case NBD_CMD_COUNT:
        break;
    }
    st_nbd_slot_finish(s);
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
    uint64_t memory = 0, payload = 0;
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
    if (r.type == NBD_CMD_WRITE ||
        (c->extended && r.flags & NBD_CMD_PAYLOAD_LEN))
        payload = r.len;
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
        memory = n > 1 ? (uint64_t)n * NBD_BLOCK_MAX : st_nbd_block_size(r.len);
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
    if (st_counter_get(&c->inflight) >= NBD_CONN_REQUESTS) {
        c->stalled = true;
        return false;
    }
    if (!room(c, memory))
        return false;
    s = st_nbd_slot_get(c, NULL);
    if (!s) {
        st_nbd_mem_give(c->worker, memory);
        st_nbd_conn_fail(c, NULL);
        return true;
    }
    st_count(&c->inflight, 1);
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
        st_nbd_slot_error(s, error, why);
        st_nbd_slot_finish(s);
    } else if (!r.len && r.type != NBD_CMD_FLUSH) {
        st_nbd_slot_finish(s); /* nothing to do, and that succeeds */
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
