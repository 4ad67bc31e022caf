/* SPDX-License-Identifier: MIT
 *
 * Requests: one object, owned by whoever starts it, that travels a whole tree.
 *
 *   submit:    root -> crypt -> layered -> file      each pushes a frame
 *   complete:  root <- crypt <- layered <- file      each frame popped in turn
 *
 * The frames lie behind the request in the same memory, so that a layer costs
 * a few stores and nothing is allocated. A request lives and dies on one loop.
 *
 * The rules of a submit function (style.md, "Interfaces"):
 *   - it never blocks, never fails, never completes inline;
 *   - it ends in exactly one of: st_finish (status decided here), st_submit to
 *     a child (after st_push, or a tail call without a frame), or keeping the
 *     request until it calls st_complete from a later task on the same loop;
 *   - whatever field it changes on the way down, its done function restores:
 *     above it, a request looks as it did when it was passed on.
 */
#ifndef ST_REQ_H
#define ST_REQ_H

#include <assert.h>
#include <stdint.h>

#include "list.h"
#include "loop.h"
#include "mem.h"
#include "status.h"

struct st_chan;
struct st_req;

enum st_op {
    ST_OP_READ,
    ST_OP_WRITE, /* + ST_REQ_FUA */
    ST_OP_FLUSH, /* all completed before is durable; offset, len unused */
    ST_OP_UNMAP, /* st_props.unmap says what is read afterwards */
    ST_OP_WRITE_ZEROES,      /* + ST_REQ_FUA, ST_REQ_MAY_UNMAP, ST_REQ_FAST */
    ST_OP_BLOCK_STATUS,      /* answers in st_req.extent */
    ST_OP_COMPARE_AND_WRITE, /* buf: len bytes to compare, then len to write */
    ST_OP_EJECT,
    ST_OP_SHUTDOWN, /* flush for ever: no write follows */
    ST_OP_COUNT
};

#define ST_BIT(op) (1u << (op))

/* Operations that change data: refused when read-only, parked by range locks.
 */
#define ST_OPS_MODIFY                                                          \
    (ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_UNMAP) | ST_BIT(ST_OP_WRITE_ZEROES) |  \
     ST_BIT(ST_OP_COMPARE_AND_WRITE))

/* Operations that have an offset and a length. */
#define ST_OPS_RANGED                                                          \
    (ST_OPS_MODIFY | ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_BLOCK_STATUS))

enum st_req_flag {
    ST_REQ_FUA = 1,       /* durable when it completes */
    ST_REQ_MAY_UNMAP = 2, /* write_zeroes may leave a hole */
    ST_REQ_FAST = 4,      /* write_zeroes: ST_UNSUPPORTED if not faster than
                           * writing (NBD FAST_ZERO) */
    /* Layers only (node.h): */
    ST_REQ_MARK = 8,          /* read: only present sectors, and mark them */
    ST_REQ_NO_OVERWRITE = 16, /* write: only absent sectors */
    ST_REQ_NEXT_ZERO = 32,    /* unmap: what lies below reads as zero */
    /* Set by the root, for the front end: */
    ST_REQ_ORPHAN = 64,   /* outlived a quiesce; its guest has been answered */
    ST_REQ_LOCKING = 128, /* the root's own: no range lock waits for it */
};

/* Meaning of st_extent.flags: those of NBD's base:allocation. */
enum { ST_EXTENT_HOLE = 1, ST_EXTENT_ZERO = 2 };

/* The answer to a block status. */
struct st_extent {
    uint64_t len; /* bytes from the request's offset; 0 < len <= its len */
    uint32_t flags;
};

/* Where a request is to come back to, and two words for whoever pushed. */
struct st_frame {
    void (*done)(struct st_chan *c, struct st_req *req);
    struct st_chan *chan;
    uint64_t u[2];
};

/* A request. Its owner sets the first part before each submit. */
struct st_req {
    /* Set by the owner before each submit. */
    uint8_t op;     /* enum st_op */
    uint8_t flags;  /* enum st_req_flag */
    uint8_t status; /* enum st_status; valid in done functions */
    uint8_t tries;  /* root: error policy */
    uint16_t nexus; /* st_disk_attach; children inherit it */
    uint16_t nframes;
    uint64_t offset, len; /* bytes */
    struct st_buf buf;    /* read, write, compare_and_write: borrowed */
    uint64_t *marks;      /* ST_REQ_MARK: one bit a sector, */
    uint32_t mark_first;  /* the request's first sector is this bit */
    void (*done)(struct st_req *req); /* the owner's, after the last frame */
    void *owner;                      /* the owner's */

    /* Results beside the status. */
    struct st_extent extent; /* block_status */
    uint64_t miscompare_at;  /* compare_and_write: first differing byte */

    /* On the way. */
    struct st_task task;   /* free for whoever has it; st_finish's */
    struct st_frame *top;  /* next free frame */
    struct st_chan *at;    /* who has it now (st_cancel); NULL: finished */
    struct st_list link;   /* free for whoever has it: wait lists */
    struct st_list flight; /* the root's */
    uint64_t started;      /* ns, by the root */
    struct st_frame frame[];
};

/* A node's door on one loop; the first member of the node's own struct. */
struct st_chan {
    void (*submit)(struct st_chan *c, struct st_req *req);
    const struct st_node_ops *ops;
    struct st_node *node;
    struct st_loop *loop;
};

/* Bytes of a request with NFRAMES frames. */
static inline size_t
st_req_size(unsigned nframes)
{
    return sizeof(struct st_req) + nframes * sizeof(struct st_frame);
}

/* Make REQ (of st_req_size(NFRAMES) bytes) ready for its first submit. */
void st_req_init(struct st_req *req, unsigned nframes,
                 void (*done)(struct st_req *req), void *owner);

/* Set offset and length from an LBA and a count of sectors of 1 << SHIFT
 * bytes; ST_RANGE when that is not representable (offset + len > 2^63 - 1). */
enum st_status st_req_lba(struct st_req *req, uint64_t lba, uint64_t n,
                          unsigned shift);

/* Start REQ at C. The owner may not touch it until its done function runs. */
static inline void
st_submit(struct st_chan *c, struct st_req *req)
{
    req->at = c;
    c->submit(c, req);
}

/* Remember where to come back to. The frame is lent until DONE returns. */
static inline struct st_frame *
st_push(struct st_req *req, void (*done)(struct st_chan *, struct st_req *),
        struct st_chan *c)
{
    struct st_frame *f = req->top++;

    assert(f < req->frame + req->nframes);
    f->done = done;
    f->chan = c;
    return f;
}

/* In a done function: the frame that is being popped. */
static inline struct st_frame *
st_frame(struct st_req *req)
{
    return req->top;
}

/* Pop one frame, or hand REQ to its owner. From a task of this loop, never
 * from within submit; req->status is set. */
static inline void
st_complete(struct st_req *req)
{
    struct st_frame *f;

    if (req->top == req->frame) {
        req->at = NULL;
        req->done(req);
        return;
    }
    f = --req->top;
    req->at = f->chan;
    f->done(f->chan, req);
}

/* Decide REQ here, on loop L: it completes in a coming round. */
void st_finish(struct st_loop *l, struct st_req *req, enum st_status status);

/* Best effort, on the request's loop: it completes soon, either as it would
 * have or with ST_ABORTED. Harmless at any time between submit and done. */
void st_cancel(struct st_req *req);

#endif
