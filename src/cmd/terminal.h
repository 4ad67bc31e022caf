/* SPDX-License-Identifier: MIT
 *
 * The terminal at standard input, raw while it is a guest's:
 *
 *             SIGTSTP: as it was, then stopped
 *     raw  <----------------------------------->  as it was before us
 *             SIGCONT, in the foreground
 *
 * Every key is the guest's, also Ctrl-C and Ctrl-Z: these signals come from
 * elsewhere (kill, a shell's fg and bg, a line that is hung up). In the
 * background the terminal is the shell's: we stop, as all that reads it.
 *
 * Threads: the loop's, but for st_terminal_claim.
 */
#ifndef ST_TERMINAL_H
#define ST_TERMINAL_H

#include <stdbool.h>
#include <sys/types.h>
#include <termios.h>

#include "loop.h"

/* A terminal; zeroed before it is claimed. The caller fills what is public. */
struct st_terminal {
    /* The process is about to be stopped (LENT), or goes on. */
    void (*lend)(void *arg, bool lent);
    void (*hung_up)(void *arg); /* nobody is there any more */
    void *arg;
    /* Private. */
    struct st_loop *loop;
    struct st_watch watch; /* fd is owned */
    bool there, raw, watching;
    pid_t group; /* ours */
    struct termios before;
};

/* Before other threads start: is standard input a terminal? Then the signals
 * above are blocked from now on, and wait for st_terminal_open. */
bool st_terminal_claim(struct st_terminal *t);

/* It is raw from now on; in the background this waits to be in the foreground.
 * 0 or -errno. Harmless for one that is none. */
int st_terminal_open(struct st_terminal *t, struct st_loop *loop);

/* It is as it was. A second time is fine. */
void st_terminal_restore(struct st_terminal *t);

/* The same, and signals are not heard any more. Accepts zeroes, and a second
 * time. */
void st_terminal_close(struct st_terminal *t);

#endif
