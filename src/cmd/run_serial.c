/* SPDX-License-Identifier: MIT
 *
 * --serial; see run_serial.h.
 */
#include "run_serial.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { STDIO, NONE, UNIX, FILE_PATH, MODE, GROUP };

static const struct st_option serial_table[] = {
    [STDIO] = {"stdio", ST_OPTION_FLAG, false, 0},
    [NONE] = {"none", ST_OPTION_FLAG, false, 0},
    [UNIX] = {"unix", ST_OPTION_VALUE, false, 0},
    [FILE_PATH] = {"file", ST_OPTION_VALUE, false, 0},
    [MODE] = {"mode", ST_OPTION_VALUE, false, 0},
    [GROUP] = {"group", ST_OPTION_VALUE, false, 0},
    {0},
};

int
st_run_serial_parse(struct st_run_serial *s, const char *text,
                    struct st_err *err)
{
    const char *const *value = s->options.value;
    unsigned n = 0;
    int rc;

    s->fd = -1;
    rc = st_options_parse("--serial", text, serial_table, &s->options, err);
    if (rc < 0)
        return rc;
    for (unsigned i = STDIO; i <= FILE_PATH; i++)
        n += value[i] != NULL;
    if (n != 1 || ((value[MODE] || value[GROUP]) && !value[UNIX]))
        return st_err_set(err, EINVAL,
                          "--serial '%s', expected stdio, "
                          "unix=PATH[,mode=MODE][,group=GROUP], file=PATH or "
                          "none",
                          text);
    s->path = value[FILE_PATH];
    s->kind = value[STDIO]       ? ST_RUN_SERIAL_STDIO
              : value[UNIX]      ? ST_RUN_SERIAL_UNIX
              : value[FILE_PATH] ? ST_RUN_SERIAL_FILE
                                 : ST_RUN_SERIAL_NONE;
    return value[UNIX]
               ? st_cmd_address_path(&s->address, "--serial", value[UNIX],
                                     value[MODE], value[GROUP], err)
               : 0;
}

/* The process is stopped for a while: what a terminal has, its shell gets. */
static void
lend(void *arg, bool lent)
{
    struct st_run_serial *s = arg;

    if (s->console)
        st_console_lend(s->console, lent);
}

static void
hung_up(void *arg)
{
    struct st_run_serial *s = arg;

    s->hung_up(s->arg);
}

void
st_run_serial_claim(struct st_run_serial *s)
{
    s->terminal.lend = lend;
    s->terminal.hung_up = hung_up;
    s->terminal.arg = s;
    if (s->kind == ST_RUN_SERIAL_STDIO)
        st_terminal_claim(&s->terminal);
}

/* Append to a file, or make it. */
static int
open_file(struct st_run_serial *s, struct st_err *err)
{
    const int flags = O_WRONLY | O_APPEND | O_CLOEXEC;

    s->fd = open(s->path, flags | O_CREAT | O_EXCL, 0666);
    s->made = s->fd >= 0;
    if (s->fd < 0)
        s->fd = open(s->path, flags | O_CREAT, 0666);
    if (s->fd >= 0)
        return 0;
    return st_err_set(err, errno, "--serial 'file=%s': %s", s->path,
                      st_strerror_open(s->path, true, -errno));
}

int
st_run_serial_open(struct st_run_serial *s, struct st_loop *loop,
                   struct st_err *err)
{
    struct st_console_opts o = {
        .loop = loop, .in = -1, .out = -1, .listen = -1, .arg = s->arg};
    int rc = 0;

    switch (s->kind) {
    case ST_RUN_SERIAL_NONE:
        return 0;
    case ST_RUN_SERIAL_STDIO:
        o.in = STDIN_FILENO;
        o.out = STDOUT_FILENO;
        o.escape = s->terminal.there ? s->key : NULL;
        break;
    case ST_RUN_SERIAL_UNIX:
        rc = st_cmd_address_open(&s->address, err);
        o.listen = rc == 0 ? s->address.fd[0] : -1;
        if (rc == 0)
            s->address.fd[0] = -1;
        break;
    case ST_RUN_SERIAL_FILE:
        rc = open_file(s, err);
        o.out = s->fd;
        break;
    }
    if (rc < 0)
        return rc;
    rc = st_console_create(&o, &s->console);
    if (rc == 0)
        rc = st_terminal_open(&s->terminal, loop);
    return rc < 0 ? st_err_set(err, -rc, "--serial: %s", st_strerror(rc)) : 0;
}

void
st_run_serial_keep(struct st_run_serial *s)
{
    s->made = false;
}

void
st_run_serial_leave(struct st_run_serial *s)
{
    st_terminal_restore(&s->terminal);
    st_cmd_address_close(&s->address);
}

void
st_run_serial_close(struct st_run_serial *s)
{
    st_console_destroy(s->console);
    s->console = NULL;
    st_terminal_close(&s->terminal);
    if (s->kind == ST_RUN_SERIAL_FILE && s->fd >= 0)
        close(s->fd);
    if (s->made)
        unlink(s->path);
    s->made = false;
    s->fd = -1;
    st_run_serial_leave(s);
    st_options_free(&s->options);
    memset(&s->options, 0, sizeof(s->options));
}
