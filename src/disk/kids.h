/* SPDX-License-Identifier: MIT
 *
 * Kids: a channel's pool of child requests, for nodes that split.
 *
 * The pool is made when the channel opens; in the steady state nothing is
 * allocated. A splitter must make progress with a single kid; where there is
 * none it queues the parent with st_kids_wait and is called again, in order.
 */
#ifndef ST_KIDS_H
#define ST_KIDS_H

#include "node.h"

struct st_kids {
    struct st_list free;    /* st_req.link */
    struct st_list waiting; /* st_req.link of parents */
    struct st_loop *loop;
    struct st_task task;
    void (*again)(struct st_kids *k, struct st_req *parent);
    struct st_req *serving; /* whom AGAIN is called for */
    bool scheduled;
    char *memory;
    unsigned total, nfree;
};

/* COUNT requests with frames for NODE (the child that they go to, or the one
 * with the deepest tree). AGAIN gets a waiting parent when a kid is free.
 * 0 or -ENOMEM. */
int st_kids_init(struct st_kids *k, struct st_loop *l, unsigned count,
                 unsigned nframes,
                 void (*again)(struct st_kids *k, struct st_req *parent));

/* All kids must be back. Accepts a zeroed struct. */
void st_kids_free(struct st_kids *k);

/* A request with op, flags, nexus of PARENT, the DONE function, owner = PARENT;
 * the caller sets offset, len, buf. NULL when all are out, or when others wait
 * already and PARENT is not the one being served (fairness). */
struct st_req *st_kids_get(struct st_kids *k, struct st_req *parent,
                           void (*done)(struct st_req *kid));

/* Give a kid back; wakes one waiting parent in a coming round. */
void st_kids_put(struct st_kids *k, struct st_req *kid);

/* Queue PARENT for AGAIN. */
void st_kids_wait(struct st_kids *k, struct st_req *parent);

#endif
