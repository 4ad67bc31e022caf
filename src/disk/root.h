/* SPDX-License-Identifier: MIT
 *
 * What the files of the root share. Not for others.
 *
 *   wall.c   the request path: one channel, down and up
 *   op.c     what the root carries out itself: emulation, bounce, RMW
 *   lock.c   range locks over all channels
 *   gate.c   messages to all channels, quiesce, resume
 *   edit.c   insert, remove, resize, conflicts: serial jobs
 *   disk.c   the object: make, destroy, events, statistics
 *
 * Who may touch what: a root_chan belongs to its loop, but for what st_disk's
 * mutex guards. The mutex is taken on slow paths only, and never while calling
 * out, but to open a channel to a tree that must not be swapped meanwhile.
 */
#ifndef ST_ROOT_H
#define ST_ROOT_H

#include <pthread.h>

#include "disk.h"

enum gate { GATE_OPEN, GATE_PARK, GATE_REFUSE };

struct conflicts { /* one bit a nexus; replaced whole, never changed */
    uint64_t read[(ST_NEXUS_MAX + 1) / 64], write[(ST_NEXUS_MAX + 1) / 64];
};

/* What one channel counts; st_disk_stats adds them up. */
struct chan_stats {
    st_counter ops[ST_OP_COUNT], errors[ST_OP_COUNT];
    st_counter bytes_read, bytes_written, bounced, emulated, retried;
    st_counter in_flight, oldest_ns;
    struct st_hist latency[ST_OP_COUNT];
};

/* A message to one channel, run on its loop. */
struct root_msg {
    struct st_task task;
    struct root_chan *rc;
    void (*fn)(struct root_msg *m);
    struct bcast *bcast;
};

/* Broadcasts that may be under way at the same time; each has its place in the
 * disk and in every channel, so that none needs memory. */
enum bcast_slot {
    BCAST_EDIT,    /* the edit that runs: one after the other */
    BCAST_GIVE_UP, /* its deadline has passed */
    BCAST_EVENT,   /* the error policy stopped the disk */
    BCAST_SLOTS
};

/* A loop's channel to a root: the wall. */
struct root_chan {
    struct st_chan base;
    struct st_chan *inner; /* owned; NULL: could not be reopened by an edit */
    /* The fast path's whole knowledge: operations that go straight down, and
     * flags that make them not. Everything else is derived here: wall_update.*/
    uint32_t fast_ops, slow_flags;
    uint64_t sector_mask;
    unsigned frames;
    bool watched; /* completions have somebody waiting: locks, a drain */

    struct st_disk *disk;
    enum gate gate;
    const struct conflicts *conflicts; /* borrowed from the disk, or NULL */
    struct st_list flight; /* st_req.flight: under way, oldest first */
    struct st_list parked; /* st_req.link: behind the gate or a lock */
    struct st_list held;   /* st_req.link: stopped by the error policy */
    struct st_list retry;  /* st_req.link: until retry_timer fires */
    struct st_timer retry_timer;
    struct st_list locks;   /* lock_msg.here: locked ranges */
    struct root_msg *drain; /* acknowledged when nothing is in flight */
    struct st_chan *next;   /* owned: a door to the edited tree */
    unsigned tree;          /* st_disk.tree that inner belongs to */
    struct chan_stats stats;

    /* op.c */
    struct st_list ops_free, ops_busy, ops_waiting;
    struct st_list buffers_waiting;
    unsigned nops, nbuffers, ncached;
    struct op_buffer *buffer_cache;
    struct st_task ops_task;
    bool ops_scheduled;

    struct root_msg msg[BCAST_SLOTS];
    /* Under the mutex. */
    struct st_list link; /* st_disk.chans */
    unsigned pins;       /* messages under way to it */
    bool closed;
};

/* A message to every channel of a moment; DONE runs on the home loop when each
 * has called bcast_ack. */
struct bcast {
    struct st_disk *disk;
    struct st_edit *edit;            /* whose, or NULL */
    struct st_task done;             /* on the home loop */
    void (*then)(struct st_task *t); /* what it does */
    bool running;                    /* until then; home loop */
    _Atomic unsigned left;
    _Atomic int rc;         /* the first error that a channel met */
    _Atomic unsigned count; /* orphans */
};

/* What one channel knows of a locked range. */
struct lock_msg {
    struct root_msg msg;
    struct range_lock *lock;
    struct st_list here;  /* root_chan.locks */
    struct st_list peers; /* range_lock.msgs, under the mutex */
    unsigned waits;       /* overlapping requests still under way */
    bool allocated;       /* not one of range_lock.own */
    bool leaving;         /* told to leave, under the mutex */
};

/* A range that one op has for itself: no overlapping modification is under
 * way anywhere while it is held, and new ones are parked. */
struct range_lock {
    uint64_t offset, len;
    struct root_chan *owner;
    void (*granted)(struct range_lock *l);  /* on the owner's loop */
    void (*released)(struct range_lock *l); /* memory is free again; there */
    /* lock.c */
    struct st_list link;    /* st_disk.locks or lock_queue, under the mutex */
    struct st_list msgs;    /* lock_msg.peers, under the mutex */
    struct lock_msg own[4]; /* for the first channels */
    unsigned nown;
    bool failed; /* no memory to tell everybody: granted, but to no use */
    _Atomic unsigned left;
    struct st_task task;
};

/* A root. */
struct st_disk {
    char *name;
    struct st_loop *home;
    struct st_props props; /* as front ends see it */
    bool read_only;        /* the opener's flag */
    _Atomic uint64_t size; /* published */
    _Atomic unsigned frames;
    _Atomic int policy;
    _Atomic bool flush_failed, stopped;

    /* Home loop. */
    struct st_list edits; /* st_edit.link; the first one runs */
    struct st_edit own;   /* publishes a resize by the backend itself */
    bool own_busy;
    bool stop_again; /* stopped once more while that was being told */
    struct bcast bcast[BCAST_SLOTS];
    struct st_task event_task;
    _Atomic unsigned events; /* from the tree, not yet looked at */
    _Atomic bool event_posted;

    pthread_mutex_t mutex; /* guards the rest */
    struct st_node *node;  /* the tree; edited behind a closed gate */
    unsigned tree;         /* counts its editions */
    struct st_list chans, listeners, locks, lock_queue;
    unsigned nchans, zombies;
    enum gate gate; /* asked for by st_disk_quiesce */
    bool edit_gate; /* an edit wants it closed */
    struct conflicts *conflicts;
    uint64_t nexus[(ST_NEXUS_MAX + 1) / 64];
    struct chan_stats past; /* of closed channels */
};

/* ---- wall.c ---- */

/* (Re)derive what the fast path knows, after anything changed. */
void wall_update(struct root_chan *rc);

/* Send a request that is in rc->flight through the wall (again). */
void wall_pass(struct root_chan *rc, struct st_req *req);

/* Decide one here. */
void wall_end(struct root_chan *rc, struct st_req *req, enum st_status status);

/* Hand one to the tree, its fields being fit for it. */
void wall_down(struct root_chan *rc, struct st_req *req);

/* Try again everything on LIST (parked or held), in order. */
void wall_again(struct root_chan *rc, struct st_list *list);

/* A flush of this disk failed: latch it. */
void wall_flush_failed(struct root_chan *rc, enum st_status status);

/* The memory of REQ is fit for the node as it is. */
bool wall_memory_ok(struct root_chan *rc, struct st_buf buf, uint64_t len);

/* ---- op.c ------------------------------------------------------------------
 */

/* A new channel's share; the end of it. */
void op_init(struct root_chan *rc);
void op_free_all(struct root_chan *rc); /* none is busy */

/* Carry REQ out with kids of our own; completes it through wall_end. */
void op_start(struct root_chan *rc, struct st_req *req);

/* Is REQ in an op? Then give up on it if that can be. */
bool op_cancel(struct root_chan *rc, struct st_req *req);

/* ---- lock.c -----------------------------------------------------------------
 */

void lock_acquire(struct range_lock *l); /* granted() later, never inline */
void lock_release(struct range_lock *l); /* released() later, never inline */

/* Does a locked range stand in the way of REQ? */
bool lock_blocks(struct root_chan *rc, const struct st_req *req);

/* REQ leaves rc->flight. */
void lock_completed(struct root_chan *rc, const struct st_req *req);

/* A new channel learns of the locks there are; mutex held. 0 or -ENOMEM. */
int lock_adopt(struct root_chan *rc);

/* A channel that closes has no part in them any more; mutex held. */
void lock_abandon(struct root_chan *rc);

/* ---- gate.c ---- */

/* Run FN for every channel, on its loop; each must call bcast_ack in the end.
 * DONE gets the bcast, on the home loop. SLOT must be free. Home loop. */
void bcast_start(struct st_disk *d, enum bcast_slot slot, struct st_edit *e,
                 void (*fn)(struct root_msg *m),
                 void (*done)(struct st_task *t));
void bcast_ack(struct root_msg *m, int err);

/* Post to a channel's loop; mutex held (it pins the channel). */
void msg_post(struct root_msg *m, struct root_chan *rc,
              void (*fn)(struct root_msg *m));

/* A message has been dealt with; may free a closed channel. */
void msg_unpin(struct root_chan *rc);

/* What the gate of a channel should be now; mutex held. */
enum gate gate_wanted(const struct st_disk *d);

/* Every request has left rc->flight, and somebody waits for that. */
void gate_drained(struct root_chan *rc);

/* Close the gate for edit E and drain, then NEXT(e, 0 or -ETIMEDOUT). */
void gate_close(struct st_edit *e, void (*next)(struct st_edit *e, int rc));

/* A message: take over what the disk wants of the gate. */
void chan_open_gate(struct root_msg *m);

/* Let go of the gate, then NEXT(e, 0). */
void gate_open(struct st_edit *e, void (*next)(struct st_edit *e, int rc));

/* ---- edit.c ---- */

/* Queue E; START runs when it is first. */
void edit_queue(struct st_disk *d, struct st_edit *e,
                void (*start)(struct st_edit *e));

/* E is through: tell its owner, start the next one. */
void edit_done(struct st_edit *e, int rc);

/* A task on the home loop: look at what the tree said. */
void edit_event(struct st_task *t);

/* Something happened to the disk: tell the home loop. Any thread. */
void disk_event(struct st_disk *d, unsigned events);

/* ---- disk.c ---- */

/* Tell the listeners. Any thread. */
void disk_publish(struct st_disk *d, unsigned events);

/* Derive what front ends see from the tree. */
void disk_derive(const struct st_disk *d, const struct st_node *n,
                 struct st_props *out);

/* Hear of the tree's events. */
void disk_hook(struct st_disk *d, struct st_node *n);

/* Add up, into a struct with a single writer. */
void stats_merge(struct chan_stats *to, const struct chan_stats *from);

#endif
