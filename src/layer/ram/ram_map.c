/* SPDX-License-Identifier: MIT
 *
 * The RAM layer's map; see ram_map.h.
 */
#include "ram_map.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* Address space of the directory lets a disk grow to this size in place. */
static const uint64_t reserve = UINT64_C(1) << 50;

enum {
    LOCKS_PAGE = 16, /* locks that share a page of the directory */
    STEPS = 1024,    /* of st_map_state */
};

/* ---- Tables ---- */

/* How many entries a table of 1 << SHIFT slots takes. */
static unsigned
table_limit(unsigned shift)
{
    return shift < 4 || shift == 10 ? 1u << shift : (1u << shift) / 8 * 7;
}

static size_t
table_bytes(unsigned shift)
{
    /* As malloc rounds it. */
    return (sizeof(struct st_table) + (sizeof(uint64_t) << shift) + 8 + 15) &
           ~(size_t)15;
}

/* A table with REST for at least N entries. NULL: no memory. */
static struct st_table *
table_new(struct st_map *m, unsigned n, uint8_t rest)
{
    unsigned shift = 1;
    struct st_table *t;

    while (shift < 10 && table_limit(shift) < n)
        shift++;
    t = calloc(1, sizeof(*t) + (sizeof(uint64_t) << shift));
    if (!t)
        return NULL;
    t->shift = (uint8_t)shift;
    t->rest = rest;
    atomic_fetch_add_explicit(&m->table_bytes, table_bytes(shift),
                              memory_order_relaxed);
    return t;
}

static bool
entry_is_rest(uint64_t e, uint8_t rest)
{
    return st_entry_present(e) == rest && !st_entry_data(e);
}

/* Put E into slot AT of T, which was found for its granule. */
static void
table_put(struct st_table *t, unsigned at, uint64_t e)
{
    uint64_t old = atomic_load_explicit(&t->entry[at], memory_order_relaxed);
    bool was = old && !entry_is_rest(old, t->rest);

    t->used = (uint16_t)(t->used + !old);
    t->live = (uint16_t)(t->live + !entry_is_rest(e, t->rest) - was);
    atomic_store_explicit(&t->entry[at], e, memory_order_release);
}

/* ---- The directory ---- */

static size_t
directory_bytes(uint64_t regions)
{
    uint64_t pages = regions / ST_MAP_PAGE;

    return (size_t)(regions * sizeof(void *) + pages / 8 +
                    pages / ST_MAP_GROUP);
}

int
st_map_init(struct st_map *m, uint64_t size, uint32_t sector,
            struct st_err *err)
{
    uint32_t granule = sector > 4096 ? sector : 4096;
    uint64_t want = st_max(size, reserve);
    char *p;

    st_arena_init(&m->arena, granule);
    m->sector_shift = (unsigned)__builtin_ctz(sector);
    m->granule_shift = (unsigned)__builtin_ctz(granule);
    m->region_shift = m->granule_shift + 10;
    m->granule = granule;
    m->region = (uint64_t)granule * ST_GRANULES;
    m->all = (uint8_t)((1u << (granule / sector)) - 1);
    for (unsigned i = 0; i < ST_MAP_LOCKS; i++)
        m->lock[i].mutex =
            (pthread_mutex_t)PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
    m->zero = table_new(m, 0, m->all);
    if (!m->zero)
        return st_err_set(err, ENOMEM, "no memory for a RAM disk");

    for (;; want = size) {
        m->regions = st_align_up(((want - 1) >> m->region_shift) + 1,
                                 ST_MAP_GROUP * ST_MAP_PAGE);
        p = mmap(NULL, directory_bytes(m->regions), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p != MAP_FAILED || want == size)
            break;
    }
    if (p == MAP_FAILED)
        return st_err_set(err, ENOMEM,
                          "no address space for the index of a RAM disk of "
                          "%ju bytes",
                          (uintmax_t)size);
    madvise(p, directory_bytes(m->regions), MADV_NOHUGEPAGE);
    m->slot = (void *)p;
    p += m->regions * sizeof(void *);
    m->touched = (void *)p;
    m->group = (void *)(p + m->regions / ST_MAP_PAGE / 8);
    return 0;
}

void
st_map_end(struct st_map *m)
{
    if (m->slot) {
        for (uint64_t r = 0; (r = st_map_skip(m, r)) < m->regions; r++)
            if (m->slot[r] != m->zero)
                free(m->slot[r]);
        munmap(m->slot, directory_bytes(m->regions));
    }
    free(m->zero);
    if (m->arena.page)
        st_arena_end(&m->arena);
}

static pthread_mutex_t *
region_lock(struct st_map *m, uint64_t region)
{
    return &m->lock[(region / ST_MAP_PAGE * LOCKS_PAGE + region % LOCKS_PAGE) %
                    ST_MAP_LOCKS]
                .mutex;
}

/* Make T (or NULL) the table of REGION, whose lock is held. */
static void
publish(struct st_map *m, uint64_t region, struct st_table *t)
{
    uint64_t page = region / ST_MAP_PAGE, bit = UINT64_C(1) << page % 64;

    if (t && !(m->touched[page / 64] & bit) &&
        !(atomic_fetch_or(&m->touched[page / 64], bit) & bit)) {
        m->group[page / ST_MAP_GROUP] = 1;
        atomic_fetch_add_explicit(&m->slot_pages, 1, memory_order_relaxed);
    }
    atomic_store_explicit(&m->slot[region], t, memory_order_release);
}

void
st_map_trim(struct st_map *m, uint64_t region)
{
    uint64_t page = region / ST_MAP_PAGE, bit = UINT64_C(1) << page % 64;
    bool used = false;

    region = page * ST_MAP_PAGE;
    for (unsigned i = 0; i < LOCKS_PAGE; i++)
        pthread_mutex_lock(region_lock(m, region + i));
    for (unsigned i = 0; i < ST_MAP_PAGE && !used; i++)
        used = atomic_load_explicit(&m->slot[region + i],
                                    memory_order_relaxed) != NULL;
    if (!used && atomic_fetch_and(&m->touched[page / 64], ~bit) & bit) {
        madvise(m->slot + region, 4096, MADV_DONTNEED);
        atomic_fetch_sub_explicit(&m->slot_pages, 1, memory_order_relaxed);
    }
    for (unsigned i = 0; i < LOCKS_PAGE; i++)
        pthread_mutex_unlock(region_lock(m, region + i));
}

uint64_t
st_map_skip(const struct st_map *m, uint64_t region)
{
    uint64_t page = region / ST_MAP_PAGE, end = m->regions / ST_MAP_PAGE, w;

    while (page < end) {
        if (page % ST_MAP_GROUP == 0 && !m->group[page / ST_MAP_GROUP]) {
            page += ST_MAP_GROUP;
            continue;
        }
        w = m->touched[page / 64] >> page % 64;
        if (w)
            return st_max(region,
                          (page + (unsigned)__builtin_ctzll(w)) * ST_MAP_PAGE);
        page = (page | 63) + 1;
    }
    return m->regions;
}

/* ---- Bins ---- */

static void
bin_table(struct st_bin *b, struct st_map *m, struct st_table *t)
{
    if (!t || t == m->zero)
        return;
    atomic_fetch_sub_explicit(&m->table_bytes, table_bytes(t->shift),
                              memory_order_relaxed);
    b->item[b->n++] = (char *)t + 1;
}

void
st_bin_empty(struct st_bin *bin, struct st_map *m, struct st_cache *cache)
{
    unsigned pages = 0;

    for (unsigned i = 0; i < bin->n; i++) {
        char *p = bin->item[i];

        if ((uintptr_t)p & 1)
            free(p - 1);
        else if (cache && cache->n < cache->fill)
            cache->page[cache->n++] = p;
        else
            bin->item[pages++] = p;
    }
    st_arena_give(&m->arena, bin->item, pages);
    bin->n = 0;
}

/* ---- Changes ---- */

bool
st_buf_is_zero(struct st_buf b, size_t n)
{
    for (; n; b.iov++) {
        size_t k = b.iov->iov_len;

        if (b.skip >= k) {
            b.skip -= k;
            continue;
        }
        k = st_min(k - b.skip, n);
        if (!st_mem_is_zero((char *)b.iov->iov_base + b.skip, k))
            return false;
        n -= k;
        b.skip = 0;
    }
    return true;
}

/* Make the N bytes at IN of a granule TO; E is its entry, and the result. */
static enum st_status
change_granule(struct st_map *m, struct st_change *c, enum st_presence to,
               unsigned in, unsigned n, uint64_t *e)
{
    unsigned mask = st_map_mask(m, in, n), whole = mask;
    unsigned present = st_entry_present(*e), data = st_entry_data(*e);
    unsigned sector = 1u << m->sector_shift;
    char *page = st_entry_page(*e);

    if (c->keep)
        mask &= ~present;
    if (to == ST_DATA && mask) {
        if (!page) {
            page = st_cache_get(c->cache, &m->arena);
            if (!page)
                return ST_NO_SPACE;
            atomic_fetch_add_explicit(&m->pages, 1, memory_order_relaxed);
        }
        if (mask == whole)
            st_buf_read(c->src, page + in, n);
        else
            for (unsigned i = 0; i < n; i += sector)
                if (mask & st_map_mask(m, in + i, sector))
                    st_buf_read(st_buf_advance(c->src, i), page + in + i,
                                sector);
    }
    present = to == ST_ABSENT ? present & ~mask : present | mask;
    data = to == ST_DATA ? data | mask : data & ~mask;
    if (page && !data) {
        c->bin->item[c->bin->n++] = page;
        page = NULL;
        atomic_fetch_sub_explicit(&m->pages, 1, memory_order_relaxed);
    }
    *e = (*e & ST_ENTRY_GRANULE) | ST_ENTRY_USED |
         (uint64_t)present << ST_ENTRY_PRESENT |
         (uint64_t)data << ST_ENTRY_DATA |
         (uint64_t)(uintptr_t)page >> 12 << ST_ENTRY_PAGE;
    return ST_OK;
}

/* Copy what T says into a new table for N more entries, and publish that. */
static struct st_table *
region_replace(struct st_map *m, uint64_t region, struct st_table *t,
               unsigned n, struct st_bin *bin)
{
    struct st_table *to =
        table_new(m, (unsigned)st_min((t ? t->live : 0) + n, ST_GRANULES),
                  t ? t->rest : 0);

    if (!to)
        return NULL;
    for (unsigned i = 0, at; t && i < 1u << t->shift; i++) {
        uint64_t e = atomic_load_explicit(&t->entry[i], memory_order_relaxed);

        if (!e || entry_is_rest(e, t->rest))
            continue;
        st_table_find(to, e & ST_ENTRY_GRANULE, &at);
        table_put(to, at, e);
    }
    publish(m, region, to);
    bin_table(bin, m, t);
    return to;
}

/* After changes: T need not be larger than what it says. */
static void
region_settle(struct st_map *m, uint64_t region, struct st_table *t,
              struct st_bin *bin)
{
    if (!t || t == m->zero)
        return;
    if (!t->live) {
        publish(m, region, t->rest ? m->zero : NULL);
        bin_table(bin, m, t);
    } else if (t->live <= table_limit(t->shift) / 8) {
        region_replace(m, region, t, 0, bin); /* may fail */
    }
}

/* What T (or none) says of granules that have no entry. */
static enum st_presence
as_rest(const struct st_map *m, const struct st_table *t)
{
    return t && t->rest == m->all ? ST_ZERO : ST_ABSENT;
}

/* Carry out C granule by granule; T is replaced when it is full. */
static enum st_status
region_change(struct st_map *m, struct st_change *c, uint64_t region,
              struct st_table *t)
{
    unsigned at = 0, in, n;
    enum st_status s = ST_OK;

    for (uint64_t off = c->offset, end = off + c->len; off < end && s == ST_OK;
         off += n) {
        unsigned g = (unsigned)(off >> m->granule_shift) & ST_ENTRY_GRANULE;
        uint64_t e = t ? st_table_find(t, g, &at) : 0;
        enum st_presence to = c->to;

        in = (unsigned)off & (m->granule - 1);
        n = (unsigned)st_min(m->granule - in, end - off);
        if (to == ST_DATA && st_buf_is_zero(c->src, n))
            to = m->alone ? ST_ABSENT : ST_ZERO;
        /* Room for all that is left, so that this happens once. */
        if (!(e & ST_ENTRY_USED) && to != as_rest(m, t) &&
            (!t || t == m->zero || t->used == table_limit(t->shift))) {
            t = region_replace(m, region, t,
                               (unsigned)((end - off + in + m->granule - 1) >>
                                          m->granule_shift),
                               c->bin);
            if (!t)
                return ST_NO_SPACE;
            e = st_table_find(t, g, &at);
        }
        if (e & ST_ENTRY_USED || to != as_rest(m, t)) {
            s = change_granule(m, c, to, in, n, &e);
            if (s == ST_OK)
                table_put(t, at, e | g);
        }
        if (c->to == ST_DATA && off + n < end)
            c->src = st_buf_advance(c->src, n);
    }
    region_settle(m, region, t, c->bin);
    return s;
}

enum st_status
st_map_change(struct st_map *m, struct st_change *c)
{
    uint64_t region = c->offset >> m->region_shift;
    pthread_mutex_t *lock = region_lock(m, region);
    struct st_table *t, *to = c->to == ST_ZERO ? m->zero : NULL;
    enum st_status s = ST_OK;
    unsigned before = c->bin->n;

    pthread_mutex_lock(lock);
    t = st_map_table(m, c->offset);
    if (c->to == ST_DATA || c->keep || c->len < m->region) {
        s = region_change(m, c, region, t);
    } else if (t != to) {
        publish(m, region, to);
        for (unsigned i = 0; t && i < 1u << t->shift; i++)
            if (st_entry_data(t->entry[i]))
                c->bin->item[c->bin->n++] = st_entry_page(t->entry[i]);
        atomic_fetch_sub_explicit(&m->pages, c->bin->n - before,
                                  memory_order_relaxed);
        bin_table(c->bin, m, t);
    }
    pthread_mutex_unlock(lock);
    return s;
}

/* ---- Questions ---- */

enum st_presence
st_map_state(const struct st_map *m, uint64_t offset, uint64_t len, bool merge,
             uint64_t *run)
{
    uint64_t pos = offset, next, end = offset + len;
    enum st_presence what = ST_ABSENT;

    for (unsigned step = 0; pos < end && step < STEPS; step++, pos = next) {
        const struct st_table *t = st_map_table(m, pos);
        uint64_t e = st_map_entry(m, t, pos);
        unsigned s = (unsigned)(pos & (m->granule - 1)) >> m->sector_shift;
        unsigned data = st_entry_data(e), present = st_entry_present(e), as;
        unsigned bit = 1u << s;

        if (step == 0)
            what = data & bit               ? ST_DATA
                   : present & bit || merge ? ST_ZERO
                                            : ST_ABSENT;
        /* The sectors that are as the first one was. */
        as = what == ST_DATA   ? data
             : merge           ? ~data
             : what == ST_ZERO ? present & ~data
                               : ~present;
        next = st_align_down(pos, m->granule) + m->granule;
        if (~as & m->all & -bit) {
            pos += (uint64_t)((unsigned)__builtin_ctz(~as & -bit) - s)
                   << m->sector_shift;
            break;
        }
        if (!t || t == m->zero) {
            uint64_t r = (pos >> m->region_shift) + 1;

            next = (t ? r : st_map_skip(m, r)) << m->region_shift;
        }
    }
    *run = st_min(pos, end) - offset;
    return what;
}
