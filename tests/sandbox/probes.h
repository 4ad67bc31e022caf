/* SPDX-License-Identifier: MIT
 *
 * What is tried inside the sandbox, and what must come of it.
 */
#ifndef PROBES_H
#define PROBES_H

#include <stdint.h>

#include "loop.h"

/* What there was before the sandbox was entered. Below `dir`, which everybody
 * may read and write as far as permissions go:
 *
 *   allowed/there   named by --allow-path
 *   allowed/away    a link to outside/file
 *   outside/file    not named
 *   run/sock        a socket of ours
 */
struct probe_world {
    const char *dir;
    int file;               /* outside/file, open for reading and writing */
    int tcp, stream, dgram; /* sockets that are not connected */
    int listener;           /* of run/sock; a client waits to be accepted */
    uint16_t port;          /* where somebody listens on 127.0.0.1 */
    int guest;              /* a socket on which descriptors wait */
    struct st_domain *domain;
    struct st_loop *home; /* the main thread's */
    struct st_loop *loop; /* that of this thread; NULL on a worker */
};

enum {
    /* Instead of an errno: */
    PROBE_KILLED = 1000, /* SIGSYS */
    PROBE_ABORTED,       /* SIGABRT */
    PROBE_ANY,           /* anything but a signal */
    /* Flags: */
    PROBE_ROOT = 1,    /* only root can do it outside */
    PROBE_RING = 2,    /* of the io_uring engine, on a loop's thread */
    PROBE_LOOPS = 4,   /* with st_sandbox_opts.new_loops */
    PROBE_NO_ASAN = 8, /* what a sanitizer needs itself */
    PROBE_TCP = 16,    /* Landlock must know of TCP: ABI 4 */
    PROBE_I386 = 32,   /* the kernel must have 32-bit system calls */
};

struct probe {
    const char *name;
    int inside, outside; /* 0, an errno, or one of the above */
    unsigned flags;
    int (*run)(struct probe_world *w); /* 0 or an errno */
};

/* memory.c: send what a guest shares to W's guest; and what is tried with it.
 */
void probe_send_guest(struct probe_world *w);
int probe_executable_memory(struct probe_world *w);
int probe_make_executable(struct probe_world *w);
int probe_guest_memory(struct probe_world *w);
int probe_guest_code(struct probe_world *w);
int probe_guest_interrupt(struct probe_world *w);
int probe_memory_file(struct probe_world *w);

/* Ends with a NULL name. */
extern const struct probe probes[];

#endif
