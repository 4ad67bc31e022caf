/* SPDX-License-Identifier: MIT
 *
 * Byte ranges, compared without overflow.
 */
#ifndef ST_RANGE_H
#define ST_RANGE_H

#include <stdbool.h>
#include <stdint.h>

/* Does [OFF, OFF + LEN) lie inside [0, SIZE)? LEN 0 at SIZE does. */
static inline bool
st_range_ok(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

/* Do two ranges (both representable) share a byte? */
static inline bool
st_range_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return a < b + blen && b < a + alen;
}

static inline uint64_t
st_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t
st_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A is a power of two. */
static inline uint64_t
st_align_down(uint64_t v, uint64_t a)
{
    return v & ~(a - 1);
}

/* A is a power of two; V + A must be representable. */
static inline uint64_t
st_align_up(uint64_t v, uint64_t a)
{
    return (v + a - 1) & ~(a - 1);
}

static inline bool
st_is_pow2(uint64_t v)
{
    return v && !(v & (v - 1));
}

#endif
