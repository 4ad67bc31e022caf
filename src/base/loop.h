/* SPDX-License-Identifier: MIT
 *
 * Loops: one event loop per thread, and the domain that they share.
 *
 *   a turn:  [ready list] -> [end tasks] -> [engine: flush, collect]
 *                 ^                              |
 *                 +--- mailbox, timers, watches <+
 *
 * - Whatever happens on a loop happens in a task. st_ready() appends one to the
 *   loop's ready list; a turn runs what was ready at its start, so no function
 *   meets its own callback half-way.
 * - When nothing more is ready (or after a bounded number of rounds) the end
 *   tasks run (a door sends its batch of replies), then the engine flushes all
 *   prepared I/O and collects completions.
 * - Other threads reach a loop only through its mailbox (st_post): an atomic
 *   list with an eventfd for a bell, rung only when the loop sleeps.
 * - Before it sleeps a loop spins for up to poll_us, only right after work and
 *   only while spinning pays; an idle loop does not wake at all.
 *
 * A domain is what would otherwise be global: the engine, the worker pool, the
 * caps, the log, the epochs of st_defer. Two domains share nothing. In a
 * virtual domain one thread turns all loops, a seed decides which loop turns
 * next and which completion comes first, and the clock jumps.
 */
#ifndef ST_LOOP_H
#define ST_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "caps.h"
#include "err.h"
#include "list.h"
#include "log.h"

struct st_loop;
struct st_domain;
struct st_seam;

/* ---- Domains ---- */

/* What a domain is made of. */
struct st_domain_opts {
    const char *engine;       /* "auto" (NULL), "io_uring", "threads" or
                               * "virtual" */
    unsigned poll_us;         /* longest spin before sleep; 0 = never spin */
    const struct st_log *log; /* borrowed; may be NULL */
    uint64_t seed;            /* virtual: which run this is */
    struct st_seam *seam;     /* borrowed; recorder or injector, or NULL */
};

/* 0 or -errno: -EINVAL for an unknown engine, -ENOTSUP for io_uring where the
 * kernel does not have all of it. "auto" probes and falls back. Any thread. */
int st_domain_create(const struct st_domain_opts *opts, struct st_domain **out,
                     struct st_err *err);

/* All loops must be gone. Ends the worker threads. NULL is fine. */
void st_domain_destroy(struct st_domain *d);

/* What the domain was made with, and its caps. Any thread. */
const struct st_log *st_domain_log(const struct st_domain *d);
struct st_caps *st_domain_caps(struct st_domain *d);
const char *st_domain_engine(const struct st_domain *d);
bool st_domain_is_virtual(const struct st_domain *d);

/* How many CPUs this thread may run on. */
unsigned st_cpus(void);

/* How long to spin where POLL_US are wanted: not at all with one CPU. Whoever
 * brings work, a vCPU or a client, waits for that CPU as long as we spin. */
unsigned st_spin_us(unsigned poll_us);

/* Virtual domains: let one thing happen. False when nothing can happen any
 * more: no task, no I/O, no job, no timer. */
bool st_domain_step(struct st_domain *d);

/* ---- Tasks and turns ---- */

/* Something to run on a loop. Owned by whoever embeds it; on at most one list
 * at a time. */
struct st_task {
    struct st_task *next;
    void (*run)(struct st_task *t);
};

/* The part of a loop that inline functions need. This loop's thread only. */
struct st_loop {
    uint64_t now; /* ns, monotonic; read once a turn */
    struct st_task *ready, **ready_tail;
    struct st_task *end, **end_tail;
    struct st_domain *domain;
    unsigned index; /* in the domain, from 0; reused after destroy */
};

/* A loop that belongs to no thread yet: the thread of its first turn. Any
 * thread. 0 or -errno. */
int st_loop_create(struct st_domain *d, struct st_loop **out,
                   struct st_err *err);

/* No task, I/O, timer or watch may be left (asserted). NULL is fine. */
void st_loop_destroy(struct st_loop *l);

/* Run TASK in a coming round of this loop, in order. */
static inline void
st_ready(struct st_loop *l, struct st_task *t)
{
    t->next = NULL;
    *l->ready_tail = t;
    l->ready_tail = &t->next;
}

/* Run TASK once, when nothing is ready and before I/O is flushed. */
static inline void
st_at_end(struct st_loop *l, struct st_task *t)
{
    t->next = NULL;
    *l->end_tail = t;
    l->end_tail = &t->next;
}

/* Run TASK on loop L. From any thread; messages of one thread stay in order.
 * What the sender wrote before is visible to the task. */
void st_post(struct st_loop *l, struct st_task *t);

/* T, posted to or ready on this loop and not yet run, shall not run: its owner
 * goes away. Harmless when it is neither; O(tasks). This loop's thread. */
void st_retract(struct st_loop *l, struct st_task *t);

/* Turn until st_loop_stop. */
void st_loop_run(struct st_loop *l);

/* Any thread. st_loop_run returns after its current turn, or when nobody holds
 * the loop any more. */
void st_loop_stop(struct st_loop *l);

/* Something on this loop still waits for messages that are under way: do not
 * stop before it has let go. This loop's thread; every hold is let go once. */
void st_loop_hold(struct st_loop *l);
void st_loop_let_go(struct st_loop *l);

/* Turn (a virtual domain: step) until *DONE, which a task on this loop sets.
 * False if nothing can happen any more (virtual only). */
bool st_loop_wait(struct st_loop *l, const bool *done);

/* Run a loop on a thread of its own; the name shows in ps. 0 or -errno. */
int st_loop_start(struct st_loop *l, const char *name);

/* Stop and join what st_loop_start started. Not from that thread. */
void st_loop_join(struct st_loop *l);

/* Is this the thread that turns L? (In a virtual domain: always.) */
bool st_loop_here(const struct st_loop *l);

/* ---- Timers ---- */

/* Something to run at a time. Owned by whoever embeds it. */
struct st_timer {
    uint64_t at;   /* ns, in the loop's clock */
    uint32_t slot; /* 0: not set */
    void (*fire)(struct st_timer *t);
};

/* Fire once, at the first turn at or after AT ns. Moves a timer that is set.
 * FIRE runs as part of the turn. */
void st_timer_set(struct st_loop *l, struct st_timer *t, uint64_t at);

/* Harmless on a timer that is not set (zero-initialised). */
void st_timer_stop(struct st_loop *l, struct st_timer *t);

/* ---- Watches ---- */

/* Tell when FD becomes readable or writable, *edge-triggered*: the user drains
 * until EAGAIN. Errors and hang-ups report as both. */
struct st_watch {
    void (*ready)(struct st_watch *w, unsigned events);
    int fd;          /* borrowed; open until the watch is gone */
    unsigned events; /* EPOLLIN | EPOLLOUT */
    unsigned got;    /* engine's own */
    void *engine;    /* engine's own */
};

/* 0 or -errno. Reports once at the start if FD is ready already. */
int st_watch_add(struct st_loop *l, struct st_watch *w);

/* W is not called any more from now on, and its memory is the caller's. */
void st_watch_remove(struct st_loop *l, struct st_watch *w);

/* ---- File I/O ---- */

enum st_io_op {
    ST_IO_READ,
    ST_IO_WRITE,
    ST_IO_FSYNC,     /* data and metadata */
    ST_IO_FALLOCATE, /* mode in `mode` */
};

enum { ST_IO_DSYNC = 1 }; /* write: durable when it completes (RWF_DSYNC) */

/* One operation on a file, started on one loop and completed there exactly
 * once. Transfers may be short. Buffers are borrowed until completion. */
struct st_io {
    struct st_task task; /* run on completion, never within st_io_start */
    uint8_t op, flags;
    uint16_t niov; /* at most 1024 */
    int fd;
    int slot; /* from st_file_register, or -1 */
    int mode; /* FALLOCATE: FALLOC_FL_* */
    const struct iovec *iov;
    uint64_t offset, len; /* bytes; len is what iov holds */
    int64_t res;          /* bytes transferred, or -errno */
    /* The engine's and the seam's own. */
    struct st_list link;
    struct st_loop *loop;
    void (*seam_run)(struct st_task *t);
    void *seam_data;
    uint64_t seam_tag;
    unsigned tries; /* the engine's: how often it was interrupted */
};

/* Prepare IO; it starts at the end of this turn at the latest. */
void st_io_start(struct st_loop *l, struct st_io *io);

/* Best effort: IO completes soon, as it would have or with -ECANCELED. */
void st_io_cancel(struct st_loop *l, struct st_io *io);

/* Make FD known to this loop's ring: a slot for st_io.slot, or -1 where the
 * engine has no such thing. The slot keeps the file (and its locks) alive:
 * unregister before close. */
int st_file_register(struct st_loop *l, int fd);
void st_file_unregister(struct st_loop *l, int slot);

/* ---- Blocking work ---- */

/* A job for the worker pool. WORK runs on some worker thread and may block; it
 * touches only what the job holds. Then DONE runs on the loop it came from. */
struct st_job {
    struct st_task task; /* the pool's own */
    struct st_loop *home;
    void (*work)(struct st_job *j);
    void (*done)(struct st_job *j);
};

/* From loop L. Never fails: jobs wait for a free worker in order; where no
 * thread can be started at all, WORK runs here. */
void st_job_start(struct st_loop *l, struct st_job *j);

/* ---- What lives with a loop ---- */

/* Something that the users of a loop share: made by the first who needs it, it
 * ends with the loop. The first member of whatever it is. */
struct st_resident {
    void (*end)(struct st_resident *r); /* within st_loop_destroy: free it */
    /* The loop's own. */
    struct st_resident *next;
    const void *key;
};

/* L's resident of that KEY (any address that is its user's own); if there is
 * none yet, the one that MAKE gives, or NULL when it gives none. Any thread.
 * MAKE runs with a lock that st_loop_create takes. */
struct st_resident *
st_loop_resident(struct st_loop *l, const void *key,
                 struct st_resident *(*make)(struct st_loop *l));

/* ---- Memory that others may still be reading ---- */

/* Memory that waits until nobody can be reading it. */
struct st_deferred {
    struct st_deferred *next;
    uint64_t epoch;
    void (*free)(struct st_deferred *d);
};

/* Call FREE(D) on this loop once every loop of the domain has ended a turn or
 * slept, so that nobody holds a pointer read before this call. */
void st_defer(struct st_loop *l, struct st_deferred *d,
              void (*free_fn)(struct st_deferred *d));

#endif
