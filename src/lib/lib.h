/* SPDX-License-Identifier: MIT
 *
 * libstrata: what its files share. The public face is include/strata; its names
 * begin with strata_, and only those are exported.
 *
 *   context.c  threads, log, kinds; calls from any thread to a loop
 *   disk.c     open, close, events, edits, counters
 *   io.c       synchronous and asynchronous requests
 *   queue.c    completion queues
 *   node.c     nodes of the embedder's own
 *   kit.c      the conformance kit
 *   shape.c    structs that grow, errors, statuses
 *
 *   caller's thread                home loop        I/O loop
 *   lib_call(home, fn) --post-->   fn()
 *          waits       <--sem---
 *   strata_submit ----------------post------------> st_submit ... done
 */
#ifndef ST_LIB_H
#define ST_LIB_H

#include <semaphore.h>

#include <strata/strata.h>

#include "disk.h"
#include "stack.h"

enum { LIB_THREADS_MAX = 64, LIB_FRAMES = ST_DEPTH_MAX + 2 };

/* ---- shape.c: structs with a size member ---- */

/* Copy the embedder's struct FROM into TO, which has room for KNOWN bytes, and
 * zero the rest. 0, -EINVAL (no size) or -E2BIG (more than we know, and not
 * zero), with a sentence about WHAT. */
int lib_take(void *to, size_t known, const void *from, const char *what,
             struct strata_error *err);

/* Copy FROM, KNOWN bytes, into the embedder's struct TO as far as it has room,
 * and zero what it has beyond. Its size stays. 0 or -EINVAL. */
int lib_give(void *to, const void *from, size_t known);

/* Fill ERR (may be NULL) and return -ERRNUM. */
int lib_err(struct strata_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* An engine that this library offers? 0 or -EINVAL. */
int lib_check_engine(const char *engine, struct strata_error *err);

/* Hand FROM's sentence on, or RC's own when there is none; returns RC. */
int lib_err_from(struct strata_error *err, int rc, const struct st_err *from);

/* ---- context.c ---- */

/* A context. */
struct strata {
    struct st_domain *domain;
    struct st_log log;
    void (*log_fn)(void *arg, enum strata_log_level level, const char *line);
    void *log_arg;
    struct st_loop *home;
    struct st_loop *io[LIB_THREADS_MAX];
    unsigned nio;
    struct st_stack_env *env;
    struct lib_kind *kinds;  /* owned; home loop */
    _Atomic unsigned users;  /* disks and queues */
    _Atomic unsigned next;   /* which I/O loop comes next */
    volatile uint32_t *here; /* owned: a page that a child gets zeroed */
};

/* 0, or -ECHILD in a child after fork(). */
int lib_usable(const struct strata *s);

/* May this thread wait for a loop of S? 0, -EDEADLK, -ECHILD; with a sentence.
 */
int lib_may_wait(const struct strata *s, struct strata_error *err);

/* A call of a function on a loop, for which a thread waits. FN's run ends it
 * with lib_call_end, there and then or later. */
struct lib_call {
    struct st_task task;
    void (*fn)(struct lib_call *c);
    sem_t sem;
    int rc;
};

/* Run C->fn on L and wait until it ended: gives C->rc. lib_may_wait said 0. */
int lib_call(struct st_loop *l, struct lib_call *c,
             void (*fn)(struct lib_call *c));

/* C's memory is gone when this returns. */
void lib_call_end(struct lib_call *c, int rc);

/* Wait until everything that was posted to L before has run. */
void lib_barrier(struct st_loop *l);

/* ---- disk.c ---- */

/* A disk: its root, its events, a channel for each I/O loop. */
struct strata_disk {
    struct strata *s;
    struct st_disk *disk; /* owned; home loop */
    char *name;           /* owned */
    struct st_listener listener;
    void (*event)(struct strata_disk *d, unsigned events, uint64_t size,
                  void *arg);
    void *arg;
    _Atomic unsigned events;  /* for strata_disk_events */
    _Atomic unsigned users;   /* requests */
    struct lib_call *closing; /* home loop */
    unsigned nchans;
    struct st_chan *chan[]; /* owned, by I/O loop */
};

/* The next I/O loop's index: requests are dealt out in turn. */
unsigned lib_next_loop(struct strata *s);

/* ---- queue.c ---- */

/* R has ended. I/O loop. */
void lib_queue_push(struct strata_queue *q, struct strata_request *r);

/* Q (may be NULL) has one user more, or less. */
void lib_queue_hold(struct strata_queue *q);
void lib_queue_let_go(struct strata_queue *q);

/* Is it a queue of S? */
bool lib_queue_of(const struct strata_queue *q, const struct strata *s);

/* ---- io.c ---- */

enum lib_state { LIB_IDLE, LIB_BUSY, LIB_QUEUED };

/* A request of the embedder's. */
struct strata_request {
    struct strata_disk *disk;
    struct st_loop *loop;
    struct st_chan *chan;
    struct strata_queue *queue; /* or NULL */
    strata_done *done;
    void *arg;
    _Atomic int state;                /* enum lib_state */
    _Atomic unsigned nth, cancel_nth; /* which operation this is, and which one
                                       * is to be cancelled */
    _Atomic bool cancelling;          /* the task is posted */
    struct st_task cancel, end;
    bool live;                   /* submitted and not done; I/O loop */
    struct strata_request *next; /* in the queue, under its lock */
    struct st_req *req;          /* owned */
};

/* ---- node.c ---- */

/* Give N a home and a label: it becomes part of a tree. Home loop. */
struct st_node *lib_node_settle(struct strata_node *n, struct st_loop *home,
                                const char *label);

#endif
