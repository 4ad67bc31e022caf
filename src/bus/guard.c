/* SPDX-License-Identifier: MIT
 *
 * Guarded ranges; see guard.h.
 *
 * The handler can interrupt any thread that touches guarded memory, so it takes
 * no lock: ranges are words in chunks that are never freed. A slot that changes
 * has an odd number; the handler passes it by, for nobody touches a range while
 * it comes or goes. The registry is the one thing in the tree that cannot but
 * be global: so is the signal.
 */
#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK = 1024, CHUNKS = ST_GUARDS / CHUNK };

struct slot {
    _Atomic unsigned number; /* odd: changes just now */
    _Atomic uintptr_t start; /* 0: free */
    _Atomic size_t len;
    _Atomic int bell;
    _Atomic bool broken;
    unsigned next_free; /* with the lock; index + 1 */
};

static struct {
    pthread_mutex_t lock; /* of guard, unguard and install; not the handler */
    struct slot *_Atomic chunk[CHUNKS];
    _Atomic unsigned used; /* slots that were ever taken, all below it */
    unsigned free;         /* list of slots; index + 1 */
    bool installed;
    struct sigaction before;
} guards = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct slot *
slot_at(unsigned i)
{
    return &atomic_load_explicit(&guards.chunk[i / CHUNK],
                                 memory_order_acquire)[i % CHUNK];
}

/* The range of S if it holds ADDRESS: true, and S is broken from now on. */
static bool
slot_break(struct slot *s, uintptr_t address)
{
    static const uint64_t one = 1;
    unsigned number = atomic_load(&s->number);
    uintptr_t start = atomic_load(&s->start);
    size_t len = atomic_load(&s->len);
    int bell = atomic_load(&s->bell);

    if (number & 1 || !start || address - start >= len ||
        atomic_load(&s->number) != number)
        return false;
    /* Not only the page: one fault a range, however much is missing. */
    if (mmap((void *)start, len, PROT_READ | PROT_WRITE,
             MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
             0) == MAP_FAILED)
        return false;
    atomic_store(&s->broken, true);
    if (bell >= 0 && write(bell, &one, sizeof(one)) < 0)
        return true; /* it rings already */
    return true;
}

static void
on_sigbus(int sig, siginfo_t *info, void *context)
{
    int saved = errno;
    unsigned n = atomic_load_explicit(&guards.used, memory_order_acquire);
    bool ours = false;

    /* Sent by somebody: no access of ours, and no address. */
    for (unsigned i = 0; i < n && info->si_code > 0 && !ours; i++)
        ours = slot_break(slot_at(i), (uintptr_t)info->si_addr);
    errno = saved;
    if (ours)
        return;
    if (guards.before.sa_flags & SA_SIGINFO) {
        guards.before.sa_sigaction(sig, info, context);
    } else if (guards.before.sa_handler == SIG_IGN && info->si_code <= 0) {
        return;
    } else if (guards.before.sa_handler != SIG_DFL &&
               guards.before.sa_handler != SIG_IGN) {
        guards.before.sa_handler(sig);
    } else {
        /* The access comes again, and ends the process as it would have. */
        signal(sig, SIG_DFL);
        if (info->si_code <= 0)
            raise(sig);
    }
}

int
st_guard_install(void)
{
    struct sigaction sa = {.sa_sigaction = on_sigbus,
                           .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    int rc = 0;

    sigemptyset(&sa.sa_mask);
    pthread_mutex_lock(&guards.lock);
    if (!guards.installed) {
        rc = sigaction(SIGBUS, NULL, &guards.before) < 0 ||
                     sigaction(SIGBUS, &sa, NULL) < 0
                 ? -errno
                 : 0;
        guards.installed = rc == 0;
    }
    pthread_mutex_unlock(&guards.lock);
    return rc;
}

/* With the lock: the index of a free slot, or -errno. */
static int
slot_take(void)
{
    unsigned i = atomic_load(&guards.used);
    struct slot *chunk;

    if (guards.free) {
        i = guards.free - 1;
        guards.free = slot_at(i)->next_free;
        return (int)i;
    }
    if (i == ST_GUARDS)
        return -ENOSPC;
    if (!atomic_load(&guards.chunk[i / CHUNK])) {
        chunk = calloc(CHUNK, sizeof(*chunk));
        if (!chunk)
            return -ENOMEM;
        atomic_store(&guards.chunk[i / CHUNK], chunk);
    }
    atomic_store(&guards.used, i + 1);
    return (int)i;
}

static void
slot_set(struct slot *s, uintptr_t start, size_t len, int bell)
{
    atomic_fetch_add(&s->number, 1);
    atomic_store(&s->start, start);
    atomic_store(&s->len, len);
    atomic_store(&s->bell, bell);
    atomic_store(&s->broken, false);
    atomic_fetch_add(&s->number, 1);
}

int
st_guard_add(struct st_guard *r)
{
    int i;

    pthread_mutex_lock(&guards.lock);
    i = slot_take();
    if (i >= 0) {
        r->slot = (unsigned)i;
        slot_set(slot_at(r->slot), (uintptr_t)r->start, r->len, r->bell);
    }
    pthread_mutex_unlock(&guards.lock);
    return i < 0 ? i : 0;
}

void
st_guard_remove(struct st_guard *r)
{
    struct slot *s = slot_at(r->slot);

    pthread_mutex_lock(&guards.lock);
    slot_set(s, 0, 0, -1);
    s->next_free = guards.free;
    guards.free = r->slot + 1;
    pthread_mutex_unlock(&guards.lock);
}

bool
st_guard_broken(const struct st_guard *r)
{
    return atomic_load(&slot_at(r->slot)->broken);
}
