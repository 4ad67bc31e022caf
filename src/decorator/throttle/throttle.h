/* SPDX-License-Identifier: MIT
 *
 * Throttle: so many requests and bytes a second, and no more.
 *
 *   a bucket:  | saved up, at most burst_ns of the rate |<- fills at the rate
 *                    | taken by requests
 *
 * A request takes one token of the first bucket (read, write, flush, unmap,
 * write_zeroes, compare_and_write; others pass) and its length in bytes of the
 * second (read, write, compare_and_write); both directions share. It waits
 * until both have what it wants. One that wants more than a full bucket is let
 * through when the bucket is full, and the next one waits the longer.
 *
 * Loops share the buckets fairly: each takes for its next few requests at
 * once, 2 ms worth at most, and gets its turn in the order of asking. A loop
 * may thus hold 2 ms worth unused. Within a channel the order is kept.
 *
 * inspect shows, and set changes for the whole group, iops, bytes (0: any
 * number, also both) and burst_ns (from 1); it shows group_members. A limit
 * that is set begins with a full bucket, also for requests that wait already.
 */
#ifndef ST_THROTTLE_H
#define ST_THROTTLE_H

#include "node.h"

/* How much may pass. */
struct st_throttle_opts {
    uint64_t iops;         /* requests a second; 0: any number */
    uint64_t bytes;        /* bytes a second; 0: any number */
    uint64_t burst_ns;     /* 0: 100 ms, or what the group has */
    struct st_node *group; /* borrowed: another throttle, to share the buckets
                            * of (its limits must be the same), or NULL */
    bool keeper;           /* only keeps what a group shares: counts as none of
                            * its members, and is in no tree */
};

/* A transparent node without a child yet: st_node_adopt it or st_disk_insert
 * it. Given to the caller. 0, -EINVAL (no limit, another one than the group's),
 * -ENOMEM. HOME's thread; a group may span several homes of one domain. */
int st_throttle_create(struct st_loop *home, const struct st_throttle_opts *o,
                       const char *label, struct st_node **out,
                       struct st_err *err);

/* How many throttles share N's buckets, keepers left out. Any thread. */
unsigned st_throttle_members(const struct st_node *n);

#endif
