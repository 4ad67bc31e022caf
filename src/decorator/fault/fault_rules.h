/* SPDX-License-Identifier: MIT
 *
 * The rules of a fault node: parsed once, then only matched and counted.
 */
#ifndef ST_FAULT_RULES_H
#define ST_FAULT_RULES_H

#include "node.h"

enum { ST_FAULT_RULES_MAX = 256 };

/* One rule of a rules file. */
struct st_fault_rule {
    uint32_t ops;        /* ST_BIT(op) | ... */
    uint64_t start, end; /* bytes; end 0: everywhere */
    int error;           /* errno; 0: does not fail */
    bool hang;
    uint64_t delay_ns, after, every, seed;
    uint64_t count;  /* 0: any number */
    uint64_t chance; /* in 2^64; 0: always */
    _Atomic uint64_t matched, fired;
    char text[80]; /* for inspect, cut */
};

/* A rules file, as it was read. */
struct st_fault_rules {
    struct st_deferred deferred;
    unsigned n;
    struct st_fault_rule rule[];
};

/* Parse TEXT; free with free(). 0 or -EINVAL, -ENOMEM with a sentence. */
int st_fault_rules_parse(const char *name, const char *text,
                         struct st_fault_rules **out, struct st_err *err);

/* The rule that decides REQ, or NULL. Counts. Any thread. */
const struct st_fault_rule *st_fault_rules_match(struct st_fault_rules *rules,
                                                 const struct st_req *req);

#endif
