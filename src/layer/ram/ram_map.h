/* SPDX-License-Identifier: MIT
 *
 * The RAM layer's map: what every sector is, and where its data are.
 *
 *   directory            table of one region          page
 *   [ region 0 ] ------> | rest | entry | entry |  ->  | sector | sector |...
 *   [ region 1 ] = NULL: all absent        \
 *   [ region 2 ] -> `zero`: all zero        granule, present, data, page
 *
 * A region is 1024 granules; a granule is 4 KiB, or one sector if that is
 * larger. An entry is one word, so that one load tells all about a granule;
 * one that has none is as `rest` says. Tables are open-addressed by granule,
 * have 2 to 1024 slots (then the index is direct), and are replaced whole.
 *
 * Readers, and writers of sectors that are data already, take no lock. All
 * other changes hold the region's lock; it is the innermost but for the
 * arena's. What a reader may still be looking at goes to a bin.
 */
#ifndef ST_RAM_MAP_H
#define ST_RAM_MAP_H

#include <stdatomic.h>
#include <stdint.h>

#include "err.h"
#include "node.h"
#include "ram_arena.h"

enum {
    ST_GRANULES = 1024, /* in a region */
    ST_MAP_LOCKS = 256,
    ST_MAP_PAGE = 4096 / 8, /* regions in a page of the directory */
    ST_MAP_GROUP = 4096,    /* such pages */
};

/* An entry; 0 is an empty slot. */
enum {
    ST_ENTRY_GRANULE = ST_GRANULES - 1, /* number in the region */
    ST_ENTRY_USED = ST_GRANULES,
    ST_ENTRY_PRESENT = 12, /* shift: a bit a sector, zero or data */
    ST_ENTRY_DATA = 20,    /* shift: a subset of it */
    ST_ENTRY_PAGE = 28,    /* shift: address / 4096 */
};

/* The entries of one region. */
struct st_table {
    uint16_t live, used; /* entries other than rest; slots (under the lock) */
    uint8_t shift;       /* log2 of the slots */
    uint8_t rest;        /* present mask of granules without entry: all or 0 */
    _Atomic uint64_t entry[];
};

/* A disk's map. */
struct st_map {
    unsigned sector_shift, granule_shift, region_shift;
    uint32_t granule; /* bytes */
    uint64_t region;  /* bytes */
    uint8_t all;      /* mask of a granule's sectors */
    bool alone;       /* nothing below: zero is the same as absent */
    uint64_t regions; /* that the directory has room for */
    _Atomic(struct st_table *) *slot;
    _Atomic uint64_t *touched; /* bit a directory page: may have tables */
    _Atomic uint8_t *group;    /* byte each 64 words of these: may be set */
    struct st_table *zero;     /* owned, never changes */
    struct st_arena arena;
    /* Pages with data; bytes of tables; pages of the directory. */
    _Atomic uint64_t pages, table_bytes, slot_pages;
    struct {
        pthread_mutex_t mutex;
        char pad[64 - sizeof(pthread_mutex_t)];
    } lock[ST_MAP_LOCKS];
};

/* Tables (tagged) and pages that are out of the map. */
enum { ST_BIN_ROOM = ST_GRANULES + 8 };
struct st_bin {
    unsigned n;
    void *item[ST_BIN_ROOM];
};

/* Empty, for a disk of SIZE bytes, a multiple of SECTOR. -ENOMEM. */
int st_map_init(struct st_map *m, uint64_t size, uint32_t sector,
                struct st_err *err);

/* Nothing uses it any more, but bins may still be emptied. Accepts a zeroed
 * struct. */
void st_map_end(struct st_map *m);

/* Make LEN bytes at OFFSET, all in one region, absent, zero or data (from the
 * first LEN bytes of SRC; granules of zeroes become zero, or, alone, absent).
 */
struct st_change {
    uint64_t offset, len;
    enum st_presence to;
    bool keep; /* only sectors that are absent */
    struct st_buf src;
    struct st_cache *cache; /* for data */
    struct st_bin *bin;     /* with room for granules touched + 2 */
};

/* ST_OK or ST_NO_SPACE (some sectors changed, others not). */
enum st_status st_map_change(struct st_map *m, struct st_change *c);

/* Release what BIN holds: nobody can be looking at it. Pages go to CACHE (may
 * be NULL) while it has room, the rest to the arena. Any thread. */
void st_bin_empty(struct st_bin *bin, struct st_map *m, struct st_cache *cache);

/* Give back the directory page of REGION if no region has a table there. */
void st_map_trim(struct st_map *m, uint64_t region);

/* The first region at or after REGION in a directory page that may have
 * tables: REGION itself, or the start of a page. */
uint64_t st_map_skip(const struct st_map *m, uint64_t region);

/* What is at OFFSET, and for how many of LEN bytes (> 0) in *RUN; a bounded
 * number of steps. MERGE: say ST_ZERO for absent, too. */
enum st_presence st_map_state(const struct st_map *m, uint64_t offset,
                              uint64_t len, bool merge, uint64_t *run);

/* Do the N bytes at B hold only zeroes? */
bool st_buf_is_zero(struct st_buf b, size_t n);

static inline struct st_table *
st_map_table(const struct st_map *m, uint64_t offset)
{
    return atomic_load_explicit(&m->slot[offset >> m->region_shift],
                                memory_order_acquire);
}

/* T's entry of GRANULE (in the region), or what stands for it; *AT is its
 * slot, or a free one, or past the end. */
static inline uint64_t
st_table_find(const struct st_table *t, unsigned granule, unsigned *at)
{
    unsigned mask = (1u << t->shift) - 1, i = granule & mask;

    for (unsigned n = 0; n <= mask; n++, i = (i + 1) & mask) {
        uint64_t e = atomic_load_explicit(&t->entry[i], memory_order_acquire);

        *at = i;
        if (!e)
            return (uint64_t)t->rest << ST_ENTRY_PRESENT;
        if ((e & ST_ENTRY_GRANULE) == granule)
            return e;
    }
    *at = mask + 1;
    return (uint64_t)t->rest << ST_ENTRY_PRESENT;
}

/* The entry of the granule at OFFSET. */
static inline uint64_t
st_map_entry(const struct st_map *m, const struct st_table *t, uint64_t offset)
{
    unsigned at;

    return t ? st_table_find(
                   t, (unsigned)(offset >> m->granule_shift) & ST_ENTRY_GRANULE,
                   &at)
             : 0;
}

static inline unsigned
st_entry_present(uint64_t e)
{
    return e >> ST_ENTRY_PRESENT & 0xff;
}

static inline unsigned
st_entry_data(uint64_t e)
{
    return e >> ST_ENTRY_DATA & 0xff;
}

static inline char *
st_entry_page(uint64_t e)
{
    return (char *)(uintptr_t)(e >> ST_ENTRY_PAGE << 12);
}

/* The sectors of N bytes at IN within a granule. */
static inline unsigned
st_map_mask(const struct st_map *m, unsigned in, unsigned n)
{
    return ((1u << (n >> m->sector_shift)) - 1) << (in >> m->sector_shift);
}

#endif
