/* SPDX-License-Identifier: MIT
 *
 * Loops: turns, tasks, mailbox, timers, spin and sleep; see loop.h.
 *
 *   turn:  epoch, clock -> due timers -> mail -> up to 16 rounds of the ready
 *          list -> end tasks -> engine (flush; collect, spin or sleep)
 *
 * Spin or sleep, at the end of a turn:
 *
 *     work tends to come soon, --> collect, do not wait
 *     and poll_ns is not over
 *     else ----------------------> say "asleep", look at the mail once more,
 *                                  wait for the engine, the bell or a timer
 *
 * "Soon" is half of poll_ns on average. A spin for longer would burn many times
 * what a sleep costs, to win the little that waking up takes.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#include "loop_private.h"
#include "mem.h"
#include "range.h"

enum {
    LOOP_DEFER_NS = 1000000, /* longest sleep while memory waits */
    LOOP_PROBE = 32,         /* each 32nd sleep is a spin, to learn */
};

uint64_t
st_clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t
loop_clock(const struct st_loop_impl *l)
{
    struct st_domain *d = l->base.domain;

    return st_domain_virtual(d) ? d->clock : st_clock_ns();
}

/* ---- Mailbox ---- */

static void
loop_wake(struct st_loop_impl *l)
{
    if (atomic_load(&l->asleep) && atomic_exchange(&l->asleep, false))
        eventfd_write(l->bell, 1);
}

void
st_post(struct st_loop *loop, struct st_task *t)
{
    struct st_loop_impl *l = st_loop_impl(loop);
    struct st_task *old = atomic_load_explicit(&l->mail, memory_order_relaxed);

    do
        t->next = old;
    while (!atomic_compare_exchange_weak(&l->mail, &old, t));
    /* Whoever filled an empty box wakes the loop; it takes everything. */
    if (!old)
        loop_wake(l);
}

static void
loop_take_mail(struct st_loop_impl *l)
{
    struct st_task *t, *next, *first = NULL, *last;

    if (!atomic_load_explicit(&l->mail, memory_order_relaxed))
        return;
    last = t = atomic_exchange(&l->mail, NULL);
    for (; t; t = next) {
        next = t->next;
        t->next = first;
        first = t;
    }
    *l->base.ready_tail = first;
    l->base.ready_tail = &last->next;
}

void
st_retract(struct st_loop *loop, struct st_task *t)
{
    struct st_loop_impl *l = st_loop_impl(loop);
    struct st_task **p;

    /* A task of the same round may be the one that retracts it. */
    for (p = &l->running; *p; p = &(*p)->next) {
        if (*p == t) {
            *p = t->next;
            return;
        }
    }
    loop_take_mail(l);
    p = &loop->ready;
    while (*p && *p != t)
        p = &(*p)->next;
    if (!*p)
        return;
    *p = t->next;
    if (!*p)
        loop->ready_tail = p;
}

/* ---- Turns ---- */

/* Run a list as it is now; what is added meanwhile waits for the next time. */
static bool
loop_run_list(struct st_loop_impl *l, struct st_task **list,
              struct st_task ***tail)
{
    struct st_task *t;

    if (!*list)
        return false;
    l->running = *list;
    *list = NULL;
    *tail = list;
    while ((t = l->running)) {
        l->running = t->next;
        t->run(t);
    }
    return true;
}

/* Only a wait that was watched tells how long work takes: one that was slept
 * through has waking up in it. One long pause undoes no habit. */
static void
loop_learn(struct st_loop_impl *l, uint64_t wait_ns)
{
    uint64_t most = 2 * l->base.domain->poll_ns;

    l->wait_ns = (7 * l->wait_ns + st_min(wait_ns, most)) / 8;
    l->spins = false;
}

static bool
loop_spins(struct st_loop_impl *l, bool worked)
{
    uint64_t poll_ns = l->base.domain->poll_ns;

    if (worked)
        l->spins = poll_ns && (l->wait_ns < poll_ns / 2 ||
                               ++l->naps % LOOP_PROBE == 0);
    else if (l->spins && l->base.now - l->last_work >= poll_ns)
        loop_learn(l, UINT64_MAX);
    return l->spins;
}

/* What the engine may wait for: 0 no, -1 for ever, or ns. */
static int64_t
loop_may_wait(struct st_loop_impl *l, bool worked, const bool *done)
{
    uint64_t now = l->base.now, wait = UINT64_MAX;
    bool spins = loop_spins(l, worked);

    l->worked = worked;
    if (spins || l->base.ready || (done && *done) ||
        st_domain_virtual(l->base.domain))
        return 0;
    if (l->deferred)
        wait = LOOP_DEFER_NS;
    if (l->ntimers) {
        now = worked ? st_clock_ns() : now;
        if (st_timer_due(l, now))
            return 0;
        wait = st_min(wait, l->heap[1]->at - now);
    }
    return wait > INT64_MAX ? -1 : (int64_t)wait;
}

static void
loop_attach(struct st_loop_impl *l)
{
    int rc;

    atomic_store(&l->owner, pthread_self());
    rc = l->engine->ops->attach ? l->engine->ops->attach(l->engine) : 0;
    if (rc) {
        st_error(l->base.domain->log, "loop %u: cannot attach %s: %s",
                 l->base.index, l->engine->ops->name, st_strerror(rc));
        abort();
    }
}

void
st_loop_turn(struct st_loop_impl *l, const bool *done)
{
    struct st_loop *b = &l->base;
    bool worked;
    int64_t wait;

    assert(!l->turning);
    l->turning = true;
    if (!atomic_load_explicit(&l->owner, memory_order_relaxed))
        loop_attach(l);
    st_defer_enter(l);
    b->now = loop_clock(l);
    loop_take_mail(l);
    if (l->worked)
        l->last_work = b->now;
    else if (b->ready && l->spins)
        loop_learn(l, b->now - l->last_work);
    worked = st_timer_fire(l);
    for (unsigned n = b->domain->rounds;
         n && loop_run_list(l, &b->ready, &b->ready_tail); n--)
        worked = true;
    worked |= loop_run_list(l, &b->end, &b->end_tail);
    if (l->deferred)
        st_defer_collect(l);

    wait = loop_may_wait(l, worked, done);
    if (wait) {
        /* Both sides are sequentially consistent: either we see the mail, or
         * the sender sees us asleep and rings. */
        atomic_store(&l->asleep, true);
        if (atomic_load(&l->mail) ||
            (!done && !l->holds && atomic_load(&l->stop)))
            wait = 0;
        else
            st_defer_leave(l);
    }
    l->engine->ops->poll(l->engine, wait);
    if (atomic_load_explicit(&l->asleep, memory_order_relaxed))
        atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
    l->turning = false;
}

bool
st_loop_runnable(const struct st_loop_impl *l)
{
    return l->base.ready || l->base.end || l->deferred ||
           atomic_load(&l->mail) || st_timer_due(l, l->base.domain->clock);
}

void
st_loop_run(struct st_loop *loop)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    if (st_domain_virtual(loop->domain)) {
        while (!atomic_load(&l->stop) && st_domain_step(loop->domain))
            ;
    } else {
        while (l->holds || !atomic_load(&l->stop))
            st_loop_turn(l, NULL);
        st_defer_leave(l);
    }
    atomic_store(&l->stop, false);
}

void
st_loop_stop(struct st_loop *loop)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    atomic_store(&l->stop, true);
    loop_wake(l);
}

void
st_loop_hold(struct st_loop *loop)
{
    st_loop_impl(loop)->holds++;
}

void
st_loop_let_go(struct st_loop *loop)
{
    st_loop_impl(loop)->holds--;
}

bool
st_loop_wait(struct st_loop *loop, const bool *done)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    while (!*done) {
        if (!st_domain_virtual(loop->domain))
            st_loop_turn(l, done);
        else if (!st_domain_step(loop->domain))
            return false;
    }
    if (!st_domain_virtual(loop->domain))
        st_defer_leave(l);
    return true;
}

bool
st_loop_here(const struct st_loop *loop)
{
    const struct st_loop_impl *l = (const struct st_loop_impl *)loop;

    return st_domain_virtual(loop->domain) ||
           atomic_load_explicit(&l->owner, memory_order_relaxed) ==
               pthread_self();
}

/* ---- A thread for a loop ---- */

static void *
loop_main(void *arg)
{
    struct st_loop_impl *l = arg;

    pthread_setname_np(pthread_self(), l->name);
    st_loop_run(&l->base);
    return NULL;
}

int
st_loop_start(struct st_loop *loop, const char *name)
{
    struct st_loop_impl *l = st_loop_impl(loop);
    int rc;

    assert(!l->started);
    if (st_domain_virtual(loop->domain))
        return 0; /* st_domain_step turns it */
    snprintf(l->name, sizeof(l->name), "%s", name);
    atomic_store(&l->stop, false);
    rc = pthread_create(&l->thread, NULL, loop_main, l);
    l->started = rc == 0;
    return -rc;
}

void
st_loop_join(struct st_loop *loop)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    if (!l->started)
        return;
    st_loop_stop(loop);
    pthread_join(l->thread, NULL);
    l->started = false;
}

/* ---- Creation ---- */

static void
loop_bell_rang(struct st_watch *w, unsigned events)
{
    (void)w; /* the mail is taken at the start of each turn anyway */
    (void)events;
}

/* A loop of this domain that was destroyed, or a new one; holds d->lock. */
static struct st_loop_impl *
loop_find(struct st_domain *d)
{
    struct st_loop_impl *first = atomic_load(&d->loops), *spare = NULL, *l;

    for (l = first; l; l = l->next)
        if (!l->live)
            spare = l; /* the last one has the lowest index */
    if (spare)
        return spare;
    l = aligned_alloc(alignof(struct st_loop_impl), sizeof(*l));
    if (!l)
        return NULL;
    *l = (struct st_loop_impl){
        .base = {.domain = d, .index = first ? first->base.index + 1 : 0},
        .bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .heap =
            mmap(NULL, ST_TIMERS_MAX * sizeof(*l->heap), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
        .epoch = ST_EPOCH_IDLE,
        .next = first,
    };
    if (l->bell < 0 || l->heap == MAP_FAILED) {
        st_loop_free(l);
        return NULL;
    }
    /* One page of timers is plenty; a huge page would be 2 MiB a loop. */
    madvise(l->heap, ST_TIMERS_MAX * sizeof(*l->heap), MADV_NOHUGEPAGE);
    atomic_store(&d->loops, l);
    return l;
}

void
st_loop_free(struct st_loop_impl *l)
{
    if (l->bell >= 0)
        close(l->bell);
    if (l->heap != MAP_FAILED)
        munmap(l->heap, ST_TIMERS_MAX * sizeof(*l->heap));
    free(l);
}

int
st_loop_create(struct st_domain *d, struct st_loop **out, struct st_err *err)
{
    struct st_loop_impl *l;
    int rc;

    pthread_mutex_lock(&d->lock);
    l = loop_find(d);
    if (!l) {
        rc = st_err_set(err, ENOMEM, "no memory or descriptor for a loop");
        goto out;
    }
    l->base.ready = l->base.end = NULL;
    l->base.ready_tail = &l->base.ready;
    l->base.end_tail = &l->base.end;
    l->base.now = loop_clock(l);
    l->deferred_tail = &l->deferred;
    l->wait_ns = l->last_work = 0;
    l->worked = l->spins = false;
    atomic_store(&l->owner, 0);
    atomic_store(&l->stop, false);
    rc = d->ops->create(&l->base, &l->engine, err);
    if (rc)
        goto out;
    if (!st_domain_virtual(d)) {
        l->bell_watch = (struct st_watch){
            .ready = loop_bell_rang, .fd = l->bell, .events = EPOLLIN};
        rc = d->ops->watch(l->engine, &l->bell_watch);
        if (rc) {
            d->ops->destroy(l->engine);
            st_err_set(err, -rc, "cannot watch a loop's bell: %s",
                       st_strerror(rc));
            goto out;
        }
    }
    l->live = true;
    *out = &l->base;
out:
    pthread_mutex_unlock(&d->lock);
    return rc;
}

void
st_loop_destroy(struct st_loop *loop)
{
    struct st_domain *d;
    struct st_loop_impl *l;
    struct st_resident *r;

    if (!loop)
        return;
    l = st_loop_impl(loop);
    d = loop->domain;
    while ((r = l->residents) != NULL) {
        l->residents = r->next;
        r->end(r);
    }
    assert(l->live && !l->turning && !l->started);
    /* Of watches that are gone a task may still be queued: the engine's. */
    for (struct st_task *t = loop->ready; t; t = t->next)
        assert(t->run == st_watch_half_run);
    assert(!loop->end && !atomic_load(&l->mail));
    assert(!l->ntimers && !l->watches && !l->jobs && !l->holds);
    assert(!d->ops->busy(l->engine));
    st_defer_orphan(l);
    d->ops->destroy(l->engine);
    l->engine = NULL;
    pthread_mutex_lock(&d->lock);
    l->live = false;
    pthread_mutex_unlock(&d->lock);
}

struct st_resident *
st_loop_resident(struct st_loop *loop, const void *key,
                 struct st_resident *(*make)(struct st_loop *l))
{
    struct st_loop_impl *l = st_loop_impl(loop);
    struct st_resident *r;

    pthread_mutex_lock(&loop->domain->lock);
    r = l->residents;
    while (r && r->key != key)
        r = r->next;
    if (!r && (r = make(loop)) != NULL) {
        r->key = key;
        r->next = l->residents;
        l->residents = r;
    }
    pthread_mutex_unlock(&loop->domain->lock);
    return r;
}

/* ---- The way to the engine and the pool ---- */

int
st_watch_add(struct st_loop *loop, struct st_watch *w)
{
    struct st_loop_impl *l = st_loop_impl(loop);
    int rc =
        l->engine->ops->watch ? l->engine->ops->watch(l->engine, w) : -ENOTSUP;

    l->watches += rc == 0;
    return rc;
}

void
st_watch_remove(struct st_loop *loop, struct st_watch *w)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    l->engine->ops->unwatch(l->engine, w);
    l->watches--;
}

void
st_io_start(struct st_loop *loop, struct st_io *io)
{
    struct st_seam *seam = loop->domain->seam;

    st_list_init(&io->link);
    io->loop = loop;
    if (seam)
        seam->start(seam, loop, io);
    else
        st_io_start_below(loop, io);
}

void
st_io_start_below(struct st_loop *loop, struct st_io *io)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    st_list_init(&io->link);
    io->loop = loop;
    io->tries = 0;
    l->engine->ops->start(l->engine, io);
}

void
st_io_cancel(struct st_loop *loop, struct st_io *io)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    l->engine->ops->cancel(l->engine, io);
}

int
st_file_register(struct st_loop *loop, int fd)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    return l->engine->ops->file_add ? l->engine->ops->file_add(l->engine, fd)
                                    : -1;
}

void
st_file_unregister(struct st_loop *loop, int slot)
{
    struct st_loop_impl *l = st_loop_impl(loop);

    if (slot >= 0)
        l->engine->ops->file_del(l->engine, slot);
}

static void
job_done(struct st_task *t)
{
    struct st_job *j = st_container(t, struct st_job, task);

    st_loop_impl(j->home)->jobs--;
    j->done(j);
}

static void
job_work(struct st_task *t)
{
    struct st_job *j = st_container(t, struct st_job, task);

    j->work(j);
    t->run = job_done;
    st_post(j->home, t);
}

void
st_job_start(struct st_loop *loop, struct st_job *j)
{
    struct st_domain *d = loop->domain;

    j->home = loop;
    j->task.run = job_work;
    st_loop_impl(loop)->jobs++;
    if (!st_domain_virtual(d)) {
        st_pool_add_job(d->pool, &j->task);
        return;
    }
    j->task.next = NULL;
    *d->jobs_tail = &j->task;
    d->jobs_tail = &j->task.next;
}
