/* SPDX-License-Identifier: MIT
 *
 * Pages for the RAM layer, taken and given in lots, so that dozens share a
 * lock and a system call.
 *
 *   channel's cache  <--take, populated--  arena: chunks of 2 MiB
 *   [p p p ... p]                          | descriptor | page | page | ...
 *      |     ^                                  a bit a page: free
 *    write   |                             free pages hold no memory;
 *      v     |                             a chunk all free is unmapped
 *    unmap --+--------give, DONTNEED-->
 */
#ifndef ST_RAM_ARENA_H
#define ST_RAM_ARENA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "list.h"

/* Where the pages of one disk come from. */
struct st_arena {
    pthread_mutex_t lock;      /* innermost */
    uint32_t page;             /* bytes of one: 4096 to 65536 */
    uint32_t pages;            /* in a chunk, with the descriptor's */
    struct st_list some, full; /* chunks with free pages, and without */
    _Atomic uint64_t chunks;
    bool dead;
};

/* No page yet; PAGE bytes each. */
void st_arena_init(struct st_arena *a, uint32_t page);

/* Return all memory, used or not. Later gives are ignored. */
void st_arena_end(struct st_arena *a);

/* Take up to N pages (contents: anything), backed by memory. Returns how many;
 * 0: there is no memory. Any thread. */
unsigned st_arena_take(struct st_arena *a, void **page, unsigned n);

/* Give back N pages that nobody can be looking at. Any thread. */
void st_arena_give(struct st_arena *a, void *const *page, unsigned n);

/* A loop's own supply. Refills grow from one page, so that a disk that is
 * hardly written holds hardly any. */
enum { ST_CACHE_BYTES = 256 << 10 };
struct st_cache {
    unsigned n, fill;
    void *page[ST_CACHE_BYTES / 4096];
};

/* NULL: there is no memory. */
static inline void *
st_cache_get(struct st_cache *c, struct st_arena *a)
{
    if (!c->n) {
        if (c->fill < ST_CACHE_BYTES / a->page)
            c->fill = c->fill ? 2 * c->fill : 1;
        c->n = st_arena_take(a, c->page, c->fill);
    }
    return c->n ? c->page[--c->n] : NULL;
}

#endif
