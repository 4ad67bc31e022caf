/* SPDX-License-Identifier: MIT
 *
 * Repeatable random numbers for the virtual engine, faults and tests
 * (xorshift64*; Vigna, "An experimental exploration of Marsaglia's xorshift
 * generators, scrambled"). Not for secrets.
 */
#ifndef ST_RAND_H
#define ST_RAND_H

#include <stdint.h>

/* A stream of random numbers. */
struct st_rand {
    uint64_t s; /* never 0 */
};

/* Neighbouring seeds give unrelated streams (splitmix64's finaliser). */
static inline struct st_rand
st_rand_seed(uint64_t seed)
{
    uint64_t z = seed + UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return (struct st_rand){z ? z : 1};
}

static inline uint64_t
st_rand_next(struct st_rand *r)
{
    r->s ^= r->s >> 12;
    r->s ^= r->s << 25;
    r->s ^= r->s >> 27;
    return r->s * UINT64_C(0x2545f4914f6cdd1d);
}

/* A number in [0, N); 0 when N is 0. */
static inline uint64_t
st_rand_below(struct st_rand *r, uint64_t n)
{
    return n ? (st_rand_next(r) >> 11) % n : 0;
}

#endif
