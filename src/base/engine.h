/* SPDX-License-Identifier: MIT
 *
 * The seam between a loop and the kernel, and who may sit in it.
 *
 *   st_io_start --> [seam: recorder, injector] --> engine --> kernel
 *
 * Three engines: io_uring, threads (epoll and the worker pool) and virtual
 * (stepped by a seed). test_engine.c runs over all of them.
 */
#ifndef ST_ENGINE_H
#define ST_ENGINE_H

#include "loop.h"

/* An engine's private part of a loop starts with this. */
struct st_engine {
    const struct st_engine_ops *ops;
    struct st_loop *loop;
};

/* What an engine can do. */
struct st_engine_ops {
    const char *name;

    /* probe, attach, watch, unwatch, file_add and file_del may be NULL. */

    /* Can this process use the engine? 0, or -errno with a sentence. */
    int (*probe)(struct st_err *err);

    int (*create)(struct st_loop *l, struct st_engine **out,
                  struct st_err *err);
    void (*destroy)(struct st_engine *e);

    /* On the loop's own thread, before its first turn. 0 or -errno. */
    int (*attach)(struct st_engine *e);

    void (*start)(struct st_engine *e, struct st_io *io);
    void (*cancel)(struct st_engine *e, struct st_io *io);

    /* Flush all that was started, then collect completions onto the ready
     * list. Wait for one for up to WAIT_NS (0: do not wait, -1: no limit).
     * Without a wait the engine skips the system call when nothing was
     * prepared and nothing can have come. */
    void (*poll)(struct st_engine *e, int64_t wait_ns);

    int (*watch)(struct st_engine *e, struct st_watch *w);
    void (*unwatch)(struct st_engine *e, struct st_watch *w);

    int (*file_add)(struct st_engine *e, int fd); /* slot or -1 */
    void (*file_del)(struct st_engine *e, int slot);

    /* Is any I/O of this loop still under way? */
    bool (*busy)(struct st_engine *e);
};

extern const struct st_engine_ops st_engine_uring;
extern const struct st_engine_ops st_engine_threads;
extern const struct st_engine_ops st_engine_virtual;

/* The io_uring of L, for tests of what it refuses; NULL: another engine, or
 * none was built. L's thread. */
struct io_uring *st_uring_of(struct st_loop *l);

/* Execute IO with plain system calls and set io->res: what a worker or the
 * virtual engine does. */
void st_io_execute(struct st_io *io);

/* Start IO below the seam: what a seam calls to pass it on. */
void st_io_start_below(struct st_loop *l, struct st_io *io);

/* A seam sees every st_io of a domain. START is called instead of the engine's
 * and must, now or later, pass IO on with st_io_start_below or complete it
 * itself (io->res, then st_ready). To see the completion it swaps
 * io->task.run, keeping the old one in io->seam_run. Calls come on the loop's
 * own thread; a seam that serves several threads locks. */
struct st_seam {
    void (*start)(struct st_seam *s, struct st_loop *l, struct st_io *io);
};

#endif
