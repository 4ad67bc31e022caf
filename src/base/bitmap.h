/* SPDX-License-Identifier: MIT
 *
 * Bitmaps of 64-bit words: set, test and find runs, a word at a time.
 */
#ifndef ST_BITMAP_H
#define ST_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t
st_bitmap_words(size_t bits)
{
    return (bits + 63) / 64;
}

static inline bool
st_bitmap_test(const uint64_t *map, size_t i)
{
    return map[i / 64] >> (i % 64) & 1;
}

static inline void
st_bitmap_set(uint64_t *map, size_t i)
{
    map[i / 64] |= UINT64_C(1) << (i % 64);
}

static inline void
st_bitmap_clear(uint64_t *map, size_t i)
{
    map[i / 64] &= ~(UINT64_C(1) << (i % 64));
}

/* Set COUNT bits from START. */
void st_bitmap_set_range(uint64_t *map, size_t start, size_t count);

/* The first bit at or after START that is VALUE; END if none before END. */
size_t st_bitmap_find(const uint64_t *map, size_t start, size_t end,
                      bool value);

/* How many of the first BITS bits are set. */
size_t st_bitmap_count(const uint64_t *map, size_t bits);

#endif
