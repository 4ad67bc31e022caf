/* SPDX-License-Identifier: MIT
 *
 * A backend for tests: plain memory, with every behaviour a knob.
 *
 *   memory   what reads see: changed when a request executes
 *   durable  what a power cut would leave: changed by flush and FUA only, and
 *            by a flush only with what had completed before it was submitted
 *
 * It also judges whoever is above: st_testnode_complaint says what was asked
 * of it that the contract of node.h forbids (an operation it does not perform,
 * an unaligned offset or buffer, a write when read-only, ...).
 *
 * Channels of several loops, and knobs from any thread, are fine: one lock.
 */
#ifndef ST_TESTNODE_H
#define ST_TESTNODE_H

#include "node.h"

/* The knobs that are set when it is made. */
struct st_testnode_opts {
    uint64_t size;         /* bytes */
    uint32_t sector;       /* bytes; 0: 512 */
    uint32_t mem_align;    /* bytes; 0: 1 */
    uint32_t max_segments; /* 0: any */
    uint32_t performs;     /* ST_BIT(op) | ...; 0: every operation */
    enum st_unmap unmap;   /* UNSPECIFIED fills with 0xdd */
    bool fua, read_only, fast_zero;
    bool async; /* a timer completes what is held, in an order by SEED;
                 * else a request executes in submit */
    uint64_t seed;
    bool strict; /* when closed with a complaint: print it and abort */
};

/* The node reports itself as "testmem". 0 or -ENOMEM. */
int st_testnode_create(struct st_loop *home, const struct st_testnode_opts *o,
                       struct st_node **out, struct st_err *err);

/* The next COUNT requests whose operation is in OP_MASK end with STATUS and do
 * nothing. UINT32_MAX: all from now on; 0: none any more. */
void st_testnode_fail(struct st_node *n, uint32_t op_mask,
                      enum st_status status, uint32_t count);

/* Hold every request from now on; false lets them go. */
void st_testnode_hang(struct st_node *n, bool hang);

/* Can a request that is held be cancelled? Yes, until this says no. */
void st_testnode_cancellable(struct st_node *n, bool can);

/* Change size by itself and tell everything above. What lies past the end is
 * zeroed, in both memories; 0 or -ENOMEM. */
int st_testnode_set_size(struct st_node *n, uint64_t size);

/* Requests of OP that arrived; that are held now; the most at one time. */
uint64_t st_testnode_count(const struct st_node *n, enum st_op op);
uint64_t st_testnode_held(const struct st_node *n);
uint64_t st_testnode_peak(const struct st_node *n);

/* The memories, lent until the size changes. */
uint8_t *st_testnode_bytes(struct st_node *n);
const uint8_t *st_testnode_durable(struct st_node *n);

/* The first thing that the contract forbids, or NULL. Lent for N's life. */
const char *st_testnode_complaint(const struct st_node *n);

#endif
