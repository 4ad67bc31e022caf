/* SPDX-License-Identifier: MIT
 *
 * Pages for the RAM layer; see ram_arena.h.
 */
#include "ram_arena.h"

#include <errno.h>
#include <sys/mman.h>

#include "bitmap.h"

enum { CHUNK = 2 << 20 }; /* bytes, and its alignment */

/* At the start of each chunk; that page is never free. */
struct chunk {
    struct st_list link;
    unsigned nfree;
    uint64_t free[CHUNK / 4096 / 64];
};

void
st_arena_init(struct st_arena *a, uint32_t page)
{
    *a = (struct st_arena){.page = page, .pages = CHUNK / page};
    pthread_mutex_init(&a->lock, NULL);
    st_list_init(&a->some);
    st_list_init(&a->full);
}

void
st_arena_end(struct st_arena *a)
{
    pthread_mutex_lock(&a->lock);
    st_list_splice(&a->some, &a->full);
    st_list_for(c, tmp, &a->some, struct chunk, link) munmap(c, CHUNK);
    a->dead = true;
    pthread_mutex_unlock(&a->lock);
}

static struct chunk *
chunk_new(struct st_arena *a)
{
    const int prot = PROT_READ | PROT_WRITE, how = MAP_PRIVATE | MAP_ANONYMOUS;
    char *p = mmap(NULL, CHUNK, prot, how, -1, 0);
    struct chunk *c;
    size_t head;

    if (p != MAP_FAILED && (uintptr_t)p % CHUNK) {
        munmap(p, CHUNK);
        p = mmap(NULL, 2 * (size_t)CHUNK, prot, how, -1, 0);
        if (p != MAP_FAILED) {
            head = CHUNK - (uintptr_t)p % CHUNK; /* 1 to CHUNK */
            munmap(p, head);
            p += head;
            if (head < CHUNK)
                munmap(p + CHUNK, CHUNK - head);
        }
    }
    if (p == MAP_FAILED)
        return NULL;
    /* A huge page for one written sector is not what was asked for. */
    madvise(p, CHUNK, MADV_NOHUGEPAGE);
    c = (struct chunk *)(void *)p;
    c->nfree = a->pages - 1;
    st_bitmap_set_range(c->free, 1, c->nfree);
    st_list_append(&a->some, &c->link);
    a->chunks++;
    return c;
}

/* Advise for N pages, a call for each run. False: the kernel has no memory. (It
 * says EINVAL for what it does not know: POPULATE_WRITE before 5.14.) */
static bool
advise(struct st_arena *a, void *const *page, unsigned n, int advice)
{
    for (unsigned i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n; end++)
            if ((char *)page[end] != (char *)page[end - 1] + a->page)
                break;
        if (madvise(page[i], (end - i) * (size_t)a->page, advice) < 0 &&
            errno == ENOMEM)
            return false;
    }
    return true;
}

void
st_arena_give(struct st_arena *a, void *const *page, unsigned n)
{
    pthread_mutex_lock(&a->lock);
    if (!a->dead)
        advise(a, page, n, MADV_DONTNEED);
    for (unsigned i = 0; i < n && !a->dead; i++) {
        size_t in = (uintptr_t)page[i] % CHUNK;
        struct chunk *c = (struct chunk *)(void *)((char *)page[i] - in);

        st_bitmap_set(c->free, in / a->page);
        st_list_remove(&c->link);
        /* One mapping too many refuses a hole in another: then it stays. */
        if (++c->nfree == a->pages - 1 && munmap(c, CHUNK) == 0)
            a->chunks--;
        else
            st_list_append(&a->some, &c->link);
    }
    pthread_mutex_unlock(&a->lock);
}

unsigned
st_arena_take(struct st_arena *a, void **page, unsigned n)
{
    unsigned got = 0;

    pthread_mutex_lock(&a->lock);
    while (got < n) {
        struct st_list *l = st_list_first(&a->some);
        struct chunk *c =
            l ? st_container(l, struct chunk, link) : chunk_new(a);
        size_t i;

        if (!c)
            break;
        i = st_bitmap_find(c->free, 1, a->pages, true);
        st_bitmap_clear(c->free, i);
        page[got++] = (char *)c + i * a->page;
        if (--c->nfree == 0) {
            st_list_remove(&c->link);
            st_list_append(&a->full, &c->link);
        }
    }
    pthread_mutex_unlock(&a->lock);
    if (!advise(a, page, got, MADV_POPULATE_WRITE)) {
        st_arena_give(a, page, got);
        return 0;
    }
    return got;
}
