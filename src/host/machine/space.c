/* SPDX-License-Identifier: MIT
 *
 * Address spaces; see space.h.
 *
 *   reader:  slot of the thread + 1 -> load the table -> access -> slot - 1
 *   writer:  publish a new table -> the old one waits in `retired` until each
 *            slot has been seen at 0 since
 *
 * Threads that share a slot by chance only share a cache line. A slot that is
 * seen at 0 after the new table was published has no reader of the old one: who
 * comes later loads the new one. Nobody waits for that but st_space_remove; the
 * last to leave frees what is left.
 */
#include "space.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "range.h"

enum { SLOTS = 64 };

struct place {
    uint64_t start, size;
    struct st_region *region;
};

struct table {
    struct table *next; /* retired before */
    uint64_t busy;      /* slots not yet seen at 0 */
    unsigned n;
    struct place place[]; /* by start; disjoint */
};

struct st_space {
    uint64_t size;
    struct table *_Atomic table;
    _Atomic bool retiring; /* is there a retired one? */
    pthread_mutex_t lock;  /* writers; innermost */
    struct table *retired;
    struct slot {
        _Alignas(64) _Atomic unsigned in;
    } slot[SLOTS];
};

/* ---- Readers ---- */

static struct slot *
my_slot(struct st_space *s)
{
    /* Thread descriptors lie far apart: mix their upper bits in. */
    uint64_t self = (uint64_t)(uintptr_t)pthread_self();

    return &s->slot[self * UINT64_C(0x9e3779b97f4a7c15) >> 58];
}

static struct slot *
enter(struct st_space *s)
{
    struct slot *slot = my_slot(s);

    atomic_fetch_add(&slot->in, 1);
    return slot;
}

/* Free the retired tables that nobody reads any more. Under the lock. */
static void
reap(struct st_space *s)
{
    for (struct table **at = &s->retired, *t; (t = *at);) {
        for (unsigned i = 0; i < SLOTS; i++)
            if (t->busy >> i & 1 && atomic_load(&s->slot[i].in) == 0)
                t->busy &= ~(UINT64_C(1) << i);
        if (t->busy) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        free(t);
    }
    atomic_store(&s->retiring, s->retired != NULL);
}

static void
leave(struct st_space *s, struct slot *slot)
{
    atomic_fetch_sub(&slot->in, 1);
    if (atomic_load_explicit(&s->retiring, memory_order_relaxed) &&
        pthread_mutex_trylock(&s->lock) == 0) {
        reap(s);
        pthread_mutex_unlock(&s->lock);
    }
}

/* How many places begin at or below ADDRESS: the last of them may hold it. */
static unsigned
below(const struct table *t, uint64_t address)
{
    unsigned lo = 0, hi = t->n;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (t->place[mid].start <= address)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The place of [ADDRESS, ADDRESS + LEN) when all of it is one's; *MIXED when
 * only a part is. */
static const struct place *
find(const struct table *t, uint64_t address, unsigned len, bool *mixed)
{
    unsigned n = below(t, address);

    *mixed = false;
    if (n) {
        const struct place *p = &t->place[n - 1];
        uint64_t offset = address - p->start;

        if (st_range_ok(offset, len, p->size))
            return p;
        *mixed = offset < p->size;
    }
    if (n < t->n && t->place[n].start - address < len)
        *mixed = true;
    return NULL;
}

static bool
place_access(const struct place *p, struct st_access *a)
{
    a->offset -= p->start;
    atomic_fetch_add_explicit(&p->region->accesses, 1, memory_order_relaxed);
    return p->region->ops->access(p->region, a);
}

static uint64_t
all_ones(unsigned len)
{
    return len >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * len) - 1;
}

static void
access_bytes(const struct table *t, struct st_access *a)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < a->len; i++) {
        struct st_access b = {.offset = a->offset + i,
                              .len = 1,
                              .write = a->write,
                              .value =
                                  a->write ? a->value >> 8 * i & 0xff : 0xff};
        bool mixed, done = true;
        const struct place *p = find(t, b.offset, 1, &mixed);

        if (p)
            done = place_access(p, &b);
        assert(done); /* space.h: not at an edge */
        (void)done;
        value |= (b.value & 0xff) << 8 * i;
    }
    if (!a->write)
        a->value = value;
}

bool
st_space_access(struct st_space *s, struct st_access *a)
{
    struct slot *slot = enter(s);
    const struct table *t = atomic_load(&s->table);
    bool mixed, done = true;
    const struct place *p = find(t, a->offset, a->len, &mixed);

    if (p)
        done = place_access(p, a);
    else if (mixed)
        access_bytes(t, a);
    else if (!a->write)
        a->value = all_ones(a->len);
    leave(s, slot);
    return done;
}

void
st_space_each(struct st_space *s,
              void (*f)(void *arg, const struct st_region *r, uint64_t start),
              void *arg)
{
    struct slot *slot = enter(s);
    const struct table *t = atomic_load(&s->table);

    for (unsigned i = 0; i < t->n; i++)
        f(arg, t->place[i].region, t->place[i].start);
    leave(s, slot);
}

/* ---- Writers ---- */

/* Put P into T, which has room. 0, -EINVAL, -EEXIST. */
static int
insert(const struct st_space *s, struct table *t, const struct place *p)
{
    unsigned k = below(t, p->start);

    if (!p->size || !st_range_ok(p->start, p->size, s->size))
        return -EINVAL;
    for (unsigned i = 0; i < t->n; i++)
        if (st_range_overlap(t->place[i].start, t->place[i].size, p->start,
                             p->size))
            return -EEXIST;
    memmove(t->place + k + 1, t->place + k, (t->n - k) * sizeof(t->place[0]));
    t->place[k] = *p;
    t->n++;
    return 0;
}

/* Publish the table without OUT (may be NULL) and with IN (likewise). Under the
 * lock. What insert says, or -ENOMEM; then nothing has changed. */
static int
replace(struct st_space *s, const struct st_region *out, const struct place *in)
{
    struct table *old = atomic_load(&s->table);
    struct table *t =
        calloc(1, sizeof(*t) + (old->n + 1) * sizeof(t->place[0]));
    int rc;

    if (!t)
        return -ENOMEM;
    for (unsigned i = 0; i < old->n; i++)
        if (old->place[i].region != out)
            t->place[t->n++] = old->place[i];
    rc = in ? insert(s, t, in) : 0;
    if (rc < 0) {
        free(t);
        return rc;
    }
    atomic_store(&s->table, t);
    old->busy = UINT64_MAX;
    old->next = s->retired;
    s->retired = old;
    reap(s);
    return 0;
}

int
st_space_add(struct st_space *s, struct st_region *r)
{
    const struct place in = {r->start, r->size, r};
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = replace(s, NULL, &in);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int
st_space_move(struct st_space *s, struct st_region *r, uint64_t start)
{
    const struct place in = {start, r->size, r};
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = replace(s, r, start == ST_SPACE_NOWHERE ? NULL : &in);
    if (rc == 0)
        r->start = start;
    else if (rc != -ENOMEM && replace(s, r, NULL) == 0)
        r->start = ST_SPACE_NOWHERE;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void
st_space_remove(struct st_space *s, struct st_region *r)
{
    uint64_t busy = UINT64_MAX;

    pthread_mutex_lock(&s->lock);
    while (replace(s, r, NULL) == -ENOMEM)
        sched_yield();
    pthread_mutex_unlock(&s->lock);
    while (busy) {
        for (unsigned i = 0; i < SLOTS; i++)
            if (busy >> i & 1 && atomic_load(&s->slot[i].in) == 0)
                busy &= ~(UINT64_C(1) << i);
        if (busy)
            sched_yield();
    }
}

int
st_space_create(uint64_t size, struct st_space **out)
{
    struct st_space *s = aligned_alloc(64, sizeof(*s));
    struct table *t = calloc(1, sizeof(*t));

    if (!s || !t) {
        free(s);
        free(t);
        return -ENOMEM;
    }
    memset(s, 0, sizeof(*s));
    s->size = size;
    atomic_store(&s->table, t);
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return 0;
}

void
st_space_destroy(struct st_space *s)
{
    if (!s)
        return;
    reap(s);
    assert(!s->retired);
    free(atomic_load(&s->table));
    pthread_mutex_destroy(&s->lock);
    free(s);
}
