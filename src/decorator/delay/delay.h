/* SPDX-License-Identifier: MIT
 *
 * Delay: each request waits before it goes down (spec: disk.md 7.2). Requests
 * overlap: a thousand of them wait 10 ms together, not one after another.
 * inspect shows, and set changes, read_ns, write_ns and flush_ns.
 */
#ifndef ST_DELAY_H
#define ST_DELAY_H

#include "node.h"

/* How long each operation waits. */
struct st_delay_opts {
    uint64_t read_ns;
    uint64_t write_ns; /* write, write_zeroes, compare_and_write */
    uint64_t flush_ns;
};

/* A transparent node without a child yet: st_node_adopt it or st_disk_insert
 * it. Every other operation is not delayed. Given to the caller. 0 or -ENOMEM.
 * HOME's thread. */
int st_delay_create(struct st_loop *home, const struct st_delay_opts *o,
                    const char *label, struct st_node **out,
                    struct st_err *err);

/* Delay OP by NS (0: not at all) from its next request on. Any thread. */
void st_delay_set(struct st_node *n, enum st_op op, uint64_t ns);

#endif
