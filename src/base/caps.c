/* SPDX-License-Identifier: MIT
 *
 * The table of caps; see caps.h.
 */
#include "caps.h"

#include <assert.h>

void
st_caps_init(struct st_caps *caps)
{
    *caps = (struct st_caps){
        .row =
            {
#define X(id, n, l, u, f)                                                      \
    [ST_CAP_##id] = {.name = n, .limit = l, .unit = u, .when_full = f},
                ST_CAP_ROWS(X)
#undef X
            },
    };
}

static void
raise_peak(struct st_cap_row *r, uint64_t used)
{
    uint64_t peak = atomic_load(&r->peak);

    while (used > peak && !atomic_compare_exchange_weak(&r->peak, &peak, used))
        ;
}

bool
st_cap_take(struct st_caps *caps, enum st_cap cap, uint64_t n)
{
    struct st_cap_row *r = &caps->row[cap];
    uint64_t used = atomic_load(&r->used);

    do {
        if (used && (n > r->limit || used > r->limit - n)) {
            atomic_fetch_add(&r->refused, 1);
            return false;
        }
    } while (!atomic_compare_exchange_weak(&r->used, &used, used + n));
    raise_peak(r, used + n);
    return true;
}

void
st_cap_force(struct st_caps *caps, enum st_cap cap, uint64_t n)
{
    struct st_cap_row *r = &caps->row[cap];

    raise_peak(r, atomic_fetch_add(&r->used, n) + n);
}

void
st_cap_give(struct st_caps *caps, enum st_cap cap, uint64_t n)
{
    uint64_t old = atomic_fetch_sub(&caps->row[cap].used, n);

    assert(old >= n);
    (void)old;
}
