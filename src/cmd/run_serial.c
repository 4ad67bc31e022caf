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

/* Every key is the guest's, but output still begins lines at their left. */
static void
make_raw(struct st_run_serial *s)
{
    struct termios t;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &s->saved) < 0)
        return;
    t = s->saved;
    cfmakeraw(&t);
    t.c_oflag |= OPOST;
    s->raw = tcsetattr(STDIN_FILENO, TCSANOW, &t) == 0;
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
        make_raw(s);
        o.in = STDIN_FILENO;
        o.out = STDOUT_FILENO;
        o.escape = s->raw ? s->key : NULL;
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
    if (rc == 0 && (rc = st_console_create(&o, &s->console)) < 0)
        st_err_set(err, -rc, "--serial: %s", st_strerror(rc));
    return rc;
}

void
st_run_serial_keep(struct st_run_serial *s)
{
    s->made = false;
}

void
st_run_serial_close_socket(struct st_run_serial *s)
{
    st_cmd_address_close(&s->address);
}

void
st_run_serial_close(struct st_run_serial *s)
{
    st_console_destroy(s->console);
    s->console = NULL;
    if (s->raw)
        tcsetattr(STDIN_FILENO, TCSANOW, &s->saved);
    s->raw = false;
    if (s->kind == ST_RUN_SERIAL_FILE && s->fd >= 0)
        close(s->fd);
    if (s->made)
        unlink(s->path);
    s->made = false;
    s->fd = -1;
    st_run_serial_close_socket(s);
    st_options_free(&s->options);
    memset(&s->options, 0, sizeof(s->options));
}
