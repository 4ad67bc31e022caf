/* SPDX-License-Identifier: MIT
 *
 * Nodes: what lies below a root. Backends, decorators and layers form a tree;
 * each knows its children and nothing above.
 *
 * To write one: fill a struct st_node_ops, embed a struct st_node, give it
 * properties (its own, or its child's when it is transparent), and run the
 * conformance kit (disk/kit/kit.h) on it. guide/writing-nodes.md has a whole
 * decorator on one page.
 *
 * What a node owes (spec: disk contract):
 *   - it performs exactly the operations in props.performs and answers the
 *     rest with ST_UNSUPPORTED; the root asks only for those, sector-aligned,
 *     representable, with writes only when not read-only;
 *   - it checks the range of each request against the size that it uses for
 *     that very request: ST_RANGE, nothing done;
 *   - a transfer is whole or it failed; after a failed write the target range
 *     is undefined;
 *   - a flush makes durable every write that completed before it was
 *     submitted, on any channel.
 */
#ifndef ST_NODE_H
#define ST_NODE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "guid.h"
#include "range.h"
#include "req.h"

/* The largest offset + len of any request: 2^63 - 1. */
#define ST_OFFSET_MAX ((uint64_t)INT64_MAX)

/* How deep a tree may be. */
enum { ST_DEPTH_MAX = 16 };

/* What a read gives after an unmap. */
enum st_unmap {
    ST_UNMAP_IGNORED,     /* unchanged; the root answers unmap itself */
    ST_UNMAP_UNSPECIFIED, /* anything */
    ST_UNMAP_ZEROES,
};

/* Constant for the life of a node (the size is not: st_node.size). */
struct st_props {
    uint32_t performs;             /* ST_BIT(op) | ... */
    uint32_t sector_size;          /* bytes, power of two, >= 512 */
    uint32_t physical_sector_size; /* bytes, power of two, >= sector_size */
    uint32_t mem_align;    /* bytes, power of two: buffer addresses and segment
                            * lengths must be multiples, else the root bounces */
    uint32_t max_segments; /* of one read or write; 0 = any; root bounces */
    uint32_t unmap_granularity; /* bytes; 0: unmap is not offered */
    enum st_unmap unmap;
    bool fua; /* ST_REQ_FUA is honoured; else the root flushes */
    bool read_only;
    bool fast_zero; /* write_zeroes is faster than writing */
    bool outlives;  /* what was acknowledged outlives the process, flushed or
                     * not: the kernel, a device or another process has it */
    bool rotational;
    bool has_id;
    uint8_t id[16]; /* natural identity, shown to guests */
};

struct st_node;

/* What a layer holds of a sector. */
enum st_presence {
    ST_ABSENT, /* the next layer down decides */
    ST_DATA,
    ST_ZERO,
};

/* A node's events, a mask. */
enum {
    ST_EVENT_RESIZE = 1,  /* st_node.size changed */
    ST_EVENT_MEDIA = 2,   /* other contents, or none (size 0) */
    ST_EVENT_STOPPED = 4, /* root only: error policy stopped the disk */
    ST_EVENT_DEPTH = 8,   /* root only: requests want more frames */
};

/* Where an inspect function writes: name and value pairs, in directories. */
struct st_inspect {
    void (*u64)(struct st_inspect *v, const char *name, uint64_t value);
    void (*text)(struct st_inspect *v, const char *name, const char *value);
    /* What follows belongs to NAME, until leave. A node does not use these. */
    void (*enter)(struct st_inspect *v, const char *name);
    void (*leave)(struct st_inspect *v);
};

/* What a kind of node can do. */
struct st_node_ops {
    const char *name; /* "file", "ram": for people and inspect */

    /* Properties, size and events are the only child's, unchanged, and every
     * operation is passed on. */
    bool transparent;

    /* This node is a layer: it knows which sectors are present, honours
     * ST_REQ_MARK, ST_REQ_NEXT_ZERO and (if no_overwrite)
     * ST_REQ_NO_OVERWRITE. Without ST_REQ_MARK an absent sector reads zero. */
    bool presence;
    bool no_overwrite;

    /* Open this loop's door to the node, and those of its children, on that
     * loop. 0 or -errno. *OUT has submit, ops, node and loop set. */
    int (*open_chan)(struct st_node *n, struct st_loop *l,
                     struct st_chan **out);

    /* On the channel's loop; no request is in it. */
    void (*close_chan)(struct st_chan *c);

    /* Give up on REQ, which C holds now (req->at == C): finish it soon, or
     * leave it. NULL: cannot. On the loop. */
    void (*cancel)(struct st_chan *c, struct st_req *req);

    /* Layers, optional: what is present at OFFSET, and for how many of the
     * LEN bytes (*RUN > 0). At once, without I/O; on the loop. An answer may
     * be outdated by a concurrent write, never by anything else. */
    enum st_presence (*lookup)(struct st_chan *c, uint64_t offset, uint64_t len,
                               uint64_t *run);

    /* Layers, optional: become usable above LOWER (NULL at the bottom), whose
     * properties and size may be inherited. 0 or -errno with a sentence. */
    int (*attach)(struct st_node *n, const struct st_node *lower,
                  struct st_err *err);

    /* Optional: change the size and store it in n->size. Blocks; called on a
     * worker thread, one at a time; for a shrink no request is in the tree.
     * 0, -EINVAL, -ENOTSUP, -EROFS, -ENOSPC, ... Transparent nodes may leave
     * it NULL: st_node_resize passes it on. */
    int (*resize)(struct st_node *n, uint64_t size, struct st_err *err);

    /* Optional, for nodes with children: CHILD changed in size or media;
     * recompute n->size. True if N's own properties or size changed, so that
     * the event goes on upward. Any thread; must not block. NULL in a
     * transparent node: the size is copied. */
    bool (*child_event)(struct st_node *n, struct st_node *child,
                        unsigned events);

    /* Optional: what is particular to this node. Any thread. */
    void (*inspect)(struct st_node *n, struct st_inspect *v);

    /* Optional: give VALUE to what inspect shows as NAME; it takes effect for
     * requests from now on. Home loop; must not block. 0, -ENOENT (no such
     * value), -EACCES (cannot be set), -EINVAL with a sentence that says what
     * was expected. */
    int (*set)(struct st_node *n, const char *name, const char *value,
               struct st_err *err);

    /* After the last channel is gone: free it. Not its children: the caller
     * (st_node_close) goes on with those. Accepts half-built nodes. May block;
     * any thread. */
    void (*close)(struct st_node *n);
};

/* What every node has; the first member of the node's own struct. */
struct st_node {
    const struct st_node_ops *ops;
    struct st_props props;
    _Atomic uint64_t size;  /* bytes, a multiple of the sector size */
    char label[96];         /* what it was made of, without secrets */
    struct st_loop *home;   /* borrowed: where it was made; its log and caps */
    struct st_node **child; /* owned */
    unsigned nchild;
    /* Who hears of events: the parent, or else the root's hook, which is set
     * before a node becomes the top of a tree. */
    _Atomic(struct st_node *) parent;
    void (*event)(void *arg, unsigned events);
    void *event_arg;
};

/* Fill N, which is zeroed; properties get defaults (512, 512, any memory). */
void st_node_init(struct st_node *n, const struct st_node_ops *ops,
                  struct st_loop *home, const char *label);

/* Take CHILD as N's next child. A transparent node also takes its properties
 * and size. 0 or -ENOMEM (CHILD is then still the caller's). */
int st_node_adopt(struct st_node *n, struct st_node *child);

/* Give up N's last child, in a tree that nobody uses; the caller owns it. */
struct st_node *st_node_disown(struct st_node *n);

/* Close N and then its children, depth first. NULL is fine. */
void st_node_close(struct st_node *n);

/* Check what every node promises of its properties: -EINVAL and a sentence. */
int st_node_check(const struct st_node *n, struct st_err *err);

/* The number of frames that a request needs from N down. */
unsigned st_node_depth(const struct st_node *n);

/* N's size or media changed by itself: tell everything above. Any thread; the
 * new size is in n->size already. */
void st_node_changed(struct st_node *n, unsigned events);

/* See ops->resize. */
int st_node_resize(struct st_node *n, uint64_t size, struct st_err *err);

static inline uint64_t
st_node_size(const struct st_node *n)
{
    return atomic_load_explicit(&n->size, memory_order_acquire);
}

static inline void
st_node_set_size(struct st_node *n, uint64_t size)
{
    atomic_store_explicit(&n->size, size, memory_order_release);
}

/* The range check of a ranged request against N's size of this moment. */
static inline bool
st_node_range_ok(const struct st_node *n, const struct st_req *req)
{
    return st_range_ok(req->offset, req->len, st_node_size(n));
}

/* Open N's door on loop L. 0 or -errno. */
static inline int
st_chan_open(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    return n->ops->open_chan(n, l, out);
}

/* NULL is fine. */
static inline void
st_chan_close(struct st_chan *c)
{
    if (c)
        c->ops->close_chan(c);
}

/* Fill the four fields of a channel. */
static inline void
st_chan_init(struct st_chan *c, struct st_node *n, struct st_loop *l,
             void (*submit)(struct st_chan *, struct st_req *))
{
    c->submit = submit;
    c->ops = n->ops;
    c->node = n;
    c->loop = l;
}

#endif
