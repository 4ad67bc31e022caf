/* SPDX-License-Identifier: MIT
 *
 * The injector: a seam that makes chosen I/O fail, fall short, be late or hang.
 *
 *   st_io_start --> injector --> [next seam, e.g. a recorder] --> engine
 *
 * The first rule that matches and is due decides; I/O that no rule hits passes
 * unchanged. The same seed and the same order of I/O give the same faults.
 */
#ifndef ST_INJECT_H
#define ST_INJECT_H

#include "engine.h"

struct st_inject;

enum st_inject_what {
    ST_INJECT_ERROR, /* completes with -ARG (an errno); does not reach disk */
    ST_INJECT_SHORT, /* a transfer stops after ARG bytes */
    ST_INJECT_DELAY, /* starts ARG ns later, by the loop's timer */
    ST_INJECT_HANG,  /* starts when it is released */
};

/* Which I/O to hit, how often, and what becomes of it. */
struct st_inject_rule {
    unsigned ops;         /* bits 1 << ST_IO_*; 0 is all */
    int fd;               /* or -1: any */
    uint64_t offset, len; /* bytes that it must touch (not for fsync); len 0:
                           * any */
    uint64_t every;       /* hit each EVERY-th match; 0: by CHANCE */
    unsigned chance;      /* of 1000 */
    uint64_t limit;       /* hits, then the rule is spent; 0: no limit */
    enum st_inject_what what;
    uint64_t arg;
};

/* NEXT (borrowed) is what lies below, or NULL. 0 or -ENOMEM. */
int st_inject_create(uint64_t seed, struct st_seam *next,
                     struct st_inject **out);

/* Nothing may hang or be delayed any more (asserted). NULL is fine. */
void st_inject_destroy(struct st_inject *in);

/* For st_domain_opts.seam, or another seam's next; lent by IN. */
struct st_seam *st_inject_seam(struct st_inject *in);

/* Add a rule behind the others (copied); drop them all; let go of what hangs,
 * each on its own loop. Any thread. st_inject_add: 0 or -ENOMEM. */
int st_inject_add(struct st_inject *in, const struct st_inject_rule *rule);
void st_inject_clear(struct st_inject *in);
void st_inject_release(struct st_inject *in);

/* How often rules have hit; how many I/Os hang now. Any thread. */
uint64_t st_inject_hits(struct st_inject *in);
unsigned st_inject_hanging(struct st_inject *in);

#endif
