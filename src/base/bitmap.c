/* SPDX-License-Identifier: MIT
 *
 * Bitmaps of 64-bit words; see bitmap.h.
 */
#include "bitmap.h"

void
st_bitmap_set_range(uint64_t *map, size_t start, size_t count)
{
    size_t end = start + count;

    while (start < end) {
        size_t n = 64 - start % 64;

        if (n > end - start)
            n = end - start;
        map[start / 64] |= (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1)
                           << (start % 64);
        start += n;
    }
}

size_t
st_bitmap_find(const uint64_t *map, size_t start, size_t end, bool value)
{
    while (start < end) {
        uint64_t w = map[start / 64];

        w = (value ? w : ~w) >> (start % 64);
        if (w) {
            start += (size_t)__builtin_ctzll(w);
            return start < end ? start : end;
        }
        start += 64 - start % 64;
    }
    return end;
}

size_t
st_bitmap_count(const uint64_t *map, size_t bits)
{
    size_t n = 0;

    for (size_t i = 0; i < bits / 64; i++)
        n += (size_t)__builtin_popcountll(map[i]);
    if (bits % 64)
        n += (size_t)__builtin_popcountll(map[bits / 64] &
                                          ((UINT64_C(1) << bits % 64) - 1));
    return n;
}
