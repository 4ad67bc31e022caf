/* SPDX-License-Identifier: MIT
 *
 * Fault: errors, delays and hangs by rules, for tests of what is above.
 *
 * Rules are text, one a line; what follows a '#' is a comment:
 *
 *   OPS RANGE WHAT... [WHEN...]
 *
 *   OPS     read write flush unmap zero status compare eject shutdown any,
 *           several with commas
 *   RANGE   *       everywhere
 *           A-B     requests that touch bytes A to B-1  (sizes: 0-1M)
 *           A+N     the same from A, N bytes            (4096+512)
 *           Operations without an offset obey only '*'.
 *   WHAT    error=EIO      fail with this errno, or
 *           status=medium  so: medium guard conflict no-space read-only io
 *           delay=10ms     wait first (ns us ms s)
 *           hang           wait until cancelled or released
 *   WHEN    after=N    not for the first N requests that match
 *           every=N    for each N-th of the others
 *           p=0.01     with this probability
 *           seed=N     of the dice; the same requests meet the same faults
 *           count=N    N times at most
 *
 *   write 0-1M error=ENOSPC every=3
 *   read 4096+512 status=medium
 *   any * delay=10ms p=0.01 seed=7
 *
 * The first rule that matches a request, and whose time it is, decides; a
 * request fails whole or not at all. A rule counts its matches on a line that
 * all loops share: this is no node for measuring speed.
 *
 * inspect shows hung, how many hang now, and rules/N with text, matched and
 * fired. set of "rules" does what st_fault_load does, of "hung" to 0 what
 * st_fault_release does.
 */
#ifndef ST_FAULT_H
#define ST_FAULT_H

#include "node.h"

/* A transparent node without a child yet: st_node_adopt it or st_disk_insert
 * it. Rules come from the file PATH; NULL: none yet. Given to the caller. 0,
 * -EINVAL with a sentence that names file, line and word, -ENOMEM, or what the
 * system says of the file. Blocks. HOME's thread. */
int st_fault_create(struct st_loop *home, const char *path, const char *label,
                    struct st_node **out, struct st_err *err);

/* Replace the rules by TEXT, for requests from now on; NAME stands for the
 * file in sentences. Counters start anew. 0, -EINVAL (nothing changed),
 * -ENOMEM. The home loop's thread. */
int st_fault_load(struct st_node *n, const char *name, const char *text,
                  struct st_err *err);

/* Let go of every request that hangs now; it then does or fails what its rule
 * says. Any thread. */
void st_fault_release(struct st_node *n);

#endif
