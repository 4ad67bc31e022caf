/* SPDX-License-Identifier: MIT
 *
 * The oracle: which values may each byte of a disk have, when requests overlap?
 *
 *   allowed[b]   a set of byte values, as 256 bits
 *
 *   a write begins   its value joins the set, and the sets of all that is under
 *                    way over the same byte
 *   it ends well     the set shrinks to it and those it overlapped
 *   it fails         nothing: the old value, its own, any that overlapped
 *   a read ends      what it saw was in the set at some time while it was under
 *                    way; with no write beside it, it stays: reads repeat
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "list.h"

typedef struct {
    uint64_t w[4];
} byteset;

struct oracle {
    uint64_t size;    /* bytes */
    byteset *allowed; /* owned */
    struct st_list under_way;
};

/* One request over [offset, offset + len), which lie inside the oracle. */
struct oracle_op {
    struct st_list link;
    uint64_t offset, len;
    const uint8_t *value; /* what it writes; borrowed. NULL: it does not */
    bool writes;
    bool overlapped; /* by a write, at some time */
    byteset *seen;   /* owned: what it may have read */
    byteset *beside; /* owned: values of writes beside it */
    byteset *before; /* owned: what was allowed without it */
};

void oracle_open(struct oracle *o, const uint8_t *initial, uint64_t size);
void oracle_close(struct oracle *o);

/* VALUE NULL: OP only reads. */
void oracle_begin(struct oracle *o, struct oracle_op *op, uint64_t offset,
                  uint64_t len, const uint8_t *value);

/* OP may set anything in its range (an unmap that says so). */
void oracle_begin_anything(struct oracle *o, struct oracle_op *op,
                           uint64_t offset, uint64_t len);

enum oracle_end {
    ORACLE_DONE,   /* as asked */
    ORACLE_FAILED, /* perhaps */
    ORACLE_NOT,    /* certainly not written */
};
void oracle_end(struct oracle *o, struct oracle_op *op, enum oracle_end how);

/* Before oracle_end: could OP have seen DATA? LEN if so, else the first byte
 * that is wrong. */
uint64_t oracle_saw(struct oracle *o, struct oracle_op *op, const uint8_t *data,
                    uint64_t len);

/* After oracle_saw was content and no write was beside OP: DATA stays. */
void oracle_settle(struct oracle *o, struct oracle_op *op, const uint8_t *data);

static inline bool
byteset_has(const byteset *s, uint8_t v)
{
    return s->w[v / 64] >> (v % 64) & 1;
}

#endif
