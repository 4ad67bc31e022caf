/* SPDX-License-Identifier: MIT
 *
 * --serial: where a serial port of strata run leads.
 */
#ifndef ST_RUN_SERIAL_H
#define ST_RUN_SERIAL_H

#include <termios.h>

#include "cmd.h"
#include "console.h"
#include "options.h"

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
    bool raw;                      /* our terminal is, SAVED is what it was */
    struct termios saved;
    /* A key after the escape key, at a raw terminal. */
    void (*key)(void *arg, char key);
    void *arg;
};

/* Understand TEXT. 0, -EINVAL or -ENOMEM with a sentence;
 * st_run_serial_close in any case. */
int st_run_serial_parse(struct st_run_serial *s, const char *text,
                        struct st_err *err);

/* Open it; a console of LOOP. 0 or -errno with a sentence. */
int st_run_serial_open(struct st_run_serial *s, struct st_loop *loop,
                       struct st_err *err);

/* It was opened for something: a file that was made stays. */
void st_run_serial_keep(struct st_run_serial *s);

/* Remove the socket, if it is ours. */
void st_run_serial_close_socket(struct st_run_serial *s);

/* No port uses it any more. The terminal is as it was. Accepts zeroes, and a
 * second time. */
void st_run_serial_close(struct st_run_serial *s);

#endif
