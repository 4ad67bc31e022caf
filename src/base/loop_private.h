/* SPDX-License-Identifier: MIT
 *
 * What the files behind loop.h share: the whole of a loop and of a domain.
 *
 *   loop.c     turns, tasks, mailbox, spin and sleep, threads
 *   timer.c    the heap of timers
 *   domain.c   choice of engine, table of loops, virtual stepping
 *   defer.c    epochs: when may memory be freed
 *   pool.c     worker threads
 *   watch.c    the engine's half of a watch
 *   engine_*.c the three engines
 *
 * Nothing outside src/base includes this.
 */
#ifndef ST_LOOP_PRIVATE_H
#define ST_LOOP_PRIVATE_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "engine.h"
#include "loop.h"
#include "rand.h"

/* ---- A loop ---- */

/* Published in st_loop_impl.epoch instead of an epoch. */
enum {
    ST_EPOCH_UNKNOWN = 0, /* awake, no epoch read yet: blocks every free */
};
#define ST_EPOCH_IDLE UINT64_MAX /* holds no pointer: blocks nothing */

/* Loops live as long as their domain and are used again: whoever posted last
 * may still be about to ring the bell of a loop that has been destroyed. */
struct st_loop_impl {
    struct st_loop base; /* first */
    struct st_engine *engine;
    struct st_watch bell_watch;
    int bell; /* eventfd, never read: every write is an edge */
    bool live, turning;
    struct st_task *running; /* what the list that runs has left */
    unsigned watches, jobs, holds;

    /* Binary heap in heap[1..ntimers], earliest first; reserved address space,
     * so that setting a timer cannot fail. */
    struct st_timer **heap;
    unsigned ntimers;

    /* How long work lets us wait on average; see "spin or sleep". */
    uint64_t wait_ns, last_work;
    unsigned naps; /* sleeps because work takes long */
    bool worked;   /* the turn before ran something */
    bool spins;    /* for a while, since the last work */

    struct st_deferred *deferred, **deferred_tail;

    struct st_resident *residents; /* the domain's lock */

    struct st_loop_impl *next; /* in the domain; constant */
    pthread_t thread;          /* of st_loop_start */
    bool started;
    char name[16];

    /* Written by other threads. */
    alignas(64) _Atomic(struct st_task *) mail; /* newest first */
    atomic_bool asleep;                         /* a post must ring the bell */
    atomic_bool stop;

    /* Read by other threads. */
    alignas(64) _Atomic uint64_t epoch;
    _Atomic pthread_t owner; /* 0: not turned yet */
};

static inline struct st_loop_impl *
st_loop_impl(struct st_loop *l)
{
    return st_container(l, struct st_loop_impl, base);
}

/* One turn; sleeps only if *DONE (when given) is false at its end. */
void st_loop_turn(struct st_loop_impl *l, const bool *done);

/* Free the memory of a loop; half-built ones too. */
void st_loop_free(struct st_loop_impl *l);

/* Virtual domains: would a turn do something now? */
bool st_loop_runnable(const struct st_loop_impl *l);

/* Real monotonic clock, ns. */
uint64_t st_clock_ns(void);

/* ---- timer.c ---- */

enum { ST_TIMERS_MAX = 1 << 20 }; /* address space only: 8 MiB */

/* Is the earliest timer due at NOW? */
bool st_timer_due(const struct st_loop_impl *l, uint64_t now);

/* Fire what is due at the loop's now. Was there any? */
bool st_timer_fire(struct st_loop_impl *l);

/* ---- A domain ---- */

struct st_pool;

/* A domain's inside; see loop.h. */
struct st_domain {
    const struct st_engine_ops *ops;
    const struct st_log *log; /* borrowed */
    struct st_seam *seam;     /* borrowed */
    uint64_t poll_ns;
    unsigned rounds; /* of the ready list in one turn, at most */
    struct st_caps caps;
    struct st_pool *pool; /* owned; NULL in a virtual domain */

    pthread_mutex_t lock;                 /* creation of loops; orphans */
    _Atomic(struct st_loop_impl *) loops; /* every loop ever, by next */
    struct st_deferred *orphans;          /* of destroyed loops */
    alignas(64) _Atomic uint64_t epoch;   /* moves with each st_defer */

    /* Virtual. */
    struct st_rand rand;
    uint64_t clock;
    struct st_list ios; /* st_io.link, pending */
    struct st_task *jobs, **jobs_tail;
};

static inline bool
st_domain_virtual(const struct st_domain *d)
{
    return d->ops == &st_engine_virtual;
}

/* ---- defer.c ---- */

/* This loop begins a turn; it goes to sleep or is not turned any more. */
void st_defer_enter(struct st_loop_impl *l);
void st_defer_leave(struct st_loop_impl *l);

/* Free what nobody can hold any more. */
void st_defer_collect(struct st_loop_impl *l);

/* Leave what is left to the domain, which frees it at its end. */
void st_defer_orphan(struct st_loop_impl *l);

/* ---- pool.c ---- */

struct st_pool *st_pool_create(struct st_caps *caps); /* NULL: no memory */
void st_pool_destroy(struct st_pool *p);              /* joins the workers */

/* Hand over a job's task, or a list of N st_io (by link; LIST is then empty).
 * The worker runs the task, executes the I/O and posts it to its loop. */
void st_pool_add_job(struct st_pool *p, struct st_task *job);
void st_pool_add_ios(struct st_pool *p, struct st_list *list, unsigned n);

/* Take IO back if no worker has it yet. */
bool st_pool_cancel(struct st_pool *p, struct st_io *io);

/* engine_threads.c: IO (of that engine) has been executed. Any thread. */
void st_threads_done(struct st_io *io);

/* ---- watch.c ---- */

/* The engine's half of a watch: what the kernel and the ready list point at,
 * so that the user's half can go away at any moment. It is freed when it is
 * removed, its task is not on the ready list, and the kernel has let go. */
struct st_watch_half {
    struct st_task task;
    struct st_watch *w; /* NULL once removed */
    struct st_loop *loop;
    struct st_list link; /* the engine's */
    unsigned got;
    bool queued, in_kernel;
    bool removing; /* the kernel has been asked to let go */
};

/* An engine's half of a watch: made, told of events, run as a task. */
struct st_watch_half *st_watch_half_new(struct st_loop *l, struct st_watch *w);
void st_watch_half_event(struct st_watch_half *h, unsigned events);
void st_watch_half_run(struct st_task *t);

/* Free H if nothing points at it any more. */
void st_watch_half_put(struct st_watch_half *h);

/* Free a whole list of them, whatever their state (an engine's end). */
void st_watch_half_free_all(struct st_list *list);

#endif
