/* SPDX-License-Identifier: MIT
 *
 * Counters and latency histograms: one writer (a loop), any reader.
 */
#ifndef ST_STAT_H
#define ST_STAT_H

#include <stdatomic.h>
#include <stdint.h>

/* A counter with a single writing thread: no locked instruction. */
typedef _Atomic uint64_t st_counter;

static inline void
st_count(st_counter *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline void
st_uncount(st_counter *c, uint64_t n)
{
    st_count(c, -n);
}

static inline uint64_t
st_counter_get(const st_counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}

/* Latencies in powers of two: bucket i counts [2^(i-1), 2^i) ns, bucket 0
 * counts 0 ns, the last one everything longer. */
enum { ST_HIST_BUCKETS = 40 };

/* A histogram of latencies. */
struct st_hist {
    st_counter sum; /* ns */
    st_counter bucket[ST_HIST_BUCKETS];
};

static inline void
st_hist_add(struct st_hist *h, uint64_t ns)
{
    unsigned b = ns ? 64u - (unsigned)__builtin_clzll(ns) : 0;

    st_count(&h->bucket[b < ST_HIST_BUCKETS ? b : ST_HIST_BUCKETS - 1], 1);
    st_count(&h->sum, ns);
}

/* Add FROM to a private sum. */
void st_hist_merge(struct st_hist *to, const struct st_hist *from);

/* How many were added. */
uint64_t st_hist_total(const struct st_hist *h);

/* Upper bound in ns of the bucket that holds quantile Q (0..1); 0 if empty. */
uint64_t st_hist_quantile(const struct st_hist *h, double q);

#endif
