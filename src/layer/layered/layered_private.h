/* SPDX-License-Identifier: MIT
 *
 * What the files of a layered disk share.
 *
 *   layered.c        the node: checks, properties, sizes
 *   layered_chan.c   the door: what can pass as it is does so
 *   layered_split.c  the rest: split into kids for several layers
 */
#ifndef ST_LAYERED_PRIVATE_H
#define ST_LAYERED_PRIVATE_H

#include <pthread.h>

#include "layered.h"
#include "stat.h"

/* Of all read_cache layers together: bytes, and populations that failed. */
enum st_layered_stat {
    ST_LAYERED_HIT,
    ST_LAYERED_MISS,
    ST_LAYERED_POPULATED,
    ST_LAYERED_ERRORS,
    ST_LAYERED_STATS
};

/* A layered disk. */
struct st_layered {
    struct st_node base;
    unsigned nwritten; /* layers that a write goes to: 0 .. nwritten - 1 */
    unsigned ncache;   /* read_cache layers */
    unsigned eject;    /* the layer that gets ST_OP_EJECT */
    struct st_limiter limiter;
    pthread_mutex_t lock; /* for what follows; never on the request path */
    struct st_list chans;
    st_counter past[ST_LAYERED_STATS]; /* of closed channels */
    struct {
        bool read_cache;
        /* What layer I > 0 may show of itself, bytes. Never grows. That of
         * layer n, which does not exist, is 0. */
        _Atomic uint64_t visible;
    } layer[];
};

/* A layer, as seen from one loop. */
struct st_layered_door {
    struct st_chan *chan; /* owned */
    enum st_presence (*lookup)(struct st_chan *c, uint64_t offset, uint64_t len,
                               uint64_t *run);
    _Atomic uint64_t *below; /* borrowed: visible of the next layer */
    bool presence, cache;
    unsigned slot; /* cache: which of split.seen */
};

/* A loop's door to a layered disk. */
struct st_layered_chan {
    struct st_chan base;
    struct st_list link; /* st_layered.chans */
    uint32_t pass;       /* operations that go straight to layer 0 */
    st_counter stat[ST_LAYERED_STATS];
    unsigned shift, slice;  /* log2 of the sector; sectors of one slice */
    struct st_list idle;    /* splits */
    struct st_list waiting; /* st_req.link of requests that want one */
    struct st_task task;    /* serves them */
    bool scheduled;
    size_t kid_size;
    char *memory, *copies; /* owned: splits and their kids; private copies */
    struct st_layered_door door[];
};

static inline struct st_layered_chan *
st_layered_chan_of(struct st_chan *c)
{
    return st_container(c, struct st_layered_chan, base);
}

static inline struct st_layered *
st_layered_of(const struct st_layered_chan *c)
{
    return st_container(c->base.node, struct st_layered, base);
}

static inline uint64_t
st_layered_visible(const struct st_layered *n, unsigned i)
{
    return atomic_load_explicit(&n->layer[i].visible, memory_order_acquire);
}

/* layered_chan.c: ops of the node. */
int st_layered_open_chan(struct st_node *node, struct st_loop *l,
                         struct st_chan **out);
void st_layered_close_chan(struct st_chan *chan);

/* layered_split.c: the channel's pool, 0 or -ENOMEM; free accepts a zeroed
 * channel. */
int st_layered_split_init(struct st_layered_chan *c, unsigned nframes);
void st_layered_split_free(struct st_layered_chan *c);

/* Carry out REQ, whose range was checked, in pieces; it waits, first come first
 * served, while all splits are taken. */
void st_layered_split(struct st_layered_chan *c, struct st_req *req);

/* Give up on REQ if it is here. */
void st_layered_split_cancel(struct st_chan *chan, struct st_req *req);

#endif
