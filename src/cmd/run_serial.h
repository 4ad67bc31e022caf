/* SPDX-License-Identifier: MIT
 *
 * --serial: where a serial port of strata run leads.
 */
#ifndef ST_RUN_SERIAL_H
#define ST_RUN_SERIAL_H

#include "cmd.h"
#include "console.h"
#include "options.h"
#include "terminal.h"

enum st_run_serial_kind {
    ST_RUN_SERIAL_NONE,
    ST_RUN_SERIAL_STDIO,
    ST_RUN_SERIAL_UNIX,
    ST_RUN_SERIAL_FILE,
};

/* A port's other end; zeroed before it is parsed. */
struct st_run_serial {
    enum st_run_serial_kind kind;
    struct st_options options;     /* owned; lends what follows */
    const char *path;              /* of FILE */
    struct st_cmd_address address; /* of UNIX */
    struct st_console *console;    /* owned */
    int fd;                        /* owned: of FILE; or -1 */
    bool made;                     /* FILE was, by us: it goes again */
    struct st_terminal terminal;   /* of STDIO, if it is one */
    /* At a terminal: a key after the escape key; and nobody is there any more.
     */
    void (*key)(void *arg, char key);
    void (*hung_up)(void *arg);
    void *arg;
};

/* Understand TEXT. 0, -EINVAL or -ENOMEM with a sentence;
 * st_run_serial_close in any case. */
int st_run_serial_parse(struct st_run_serial *s, const char *text,
                        struct st_err *err);

/* Before other threads start: a terminal's signals are ours from now on. */
void st_run_serial_claim(struct st_run_serial *s);

/* Open it; a console of LOOP. 0 or -errno with a sentence. */
int st_run_serial_open(struct st_run_serial *s, struct st_loop *loop,
                       struct st_err *err);

/* It was opened for something: a file that was made stays. */
void st_run_serial_keep(struct st_run_serial *s);

/* It is over: remove the socket, if it is ours; the terminal is as it was. */
void st_run_serial_leave(struct st_run_serial *s);

/* No port uses it any more. The terminal is as it was. Accepts zeroes, and a
 * second time. */
void st_run_serial_close(struct st_run_serial *s);

#endif
