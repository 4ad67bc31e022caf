/* SPDX-License-Identifier: MIT
 *
 * The other end of a serial port: a terminal, a file, or whoever connects to a
 * Unix socket.
 *
 *   serial --> ring --> descriptor      the ring is emptied once a loop turn
 *   serial <-- descriptor               as fast as the guest reads
 *
 * Bytes that nobody is there to read (no client is connected) are dropped.
 *
 * With an escape key, Ctrl-], what a person types at a raw terminal can still
 * reach us: the key and a letter are for whoever owns the console; twice the
 * key is the key.
 *
 * Threads: the loop's, unless said otherwise.
 */
#ifndef ST_CONSOLE_H
#define ST_CONSOLE_H

#include "loop.h"
#include "serial.h"

struct st_console;

enum { ST_CONSOLE_ESCAPE = 0x1d }; /* Ctrl-] */

/* What a console is made of. */
struct st_console_opts {
    struct st_loop *loop;
    int in, out; /* borrowed, may be the same; -1: none */
    int listen;  /* instead of both: a listening socket; taken. -1: none */
    /* Not NULL: there is an escape key; KEY was typed after it. */
    void (*escape)(void *arg, char key);
    void *arg;
};

/* 0 or -errno. IN and OUT become non-blocking until the end, unless they are
 * regular files. */
int st_console_create(const struct st_console_opts *opts,
                      struct st_console **out);

/* No serial port uses it any more. What the guest has sent is written, if that
 * is possible at once. NULL is fine. */
void st_console_destroy(struct st_console *c);

/* LENT: its descriptors are as they were before it, since somebody else is to
 * use them; nothing may turn the loop until they are C's again (not LENT). */
void st_console_lend(struct st_console *c, bool lent);

/* C is S's other end now; NULL: nobody's. Input that came before waits. Not
 * while a vCPU runs. */
void st_console_attach(struct st_console *c, struct st_serial *s);

/* The port's struct st_serial_ops: send, room. Any thread. */
bool st_console_send(struct st_console *c, uint8_t byte);
void st_console_room(struct st_console *c);

#endif
