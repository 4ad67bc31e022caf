/* SPDX-License-Identifier: MIT
 *
 * Subcommands: a table in commands.c, a file for each, and what they share.
 *
 * A command never exits by itself: it returns an exit status, and whatever is
 * wrong is one sentence on standard error that quotes the offending text.
 */
#ifndef ST_CMD_H
#define ST_CMD_H

#include <jansson.h>
#include <stdio.h>

#include "disk.h"

enum {
    ST_EXIT_OK = 0,
    ST_EXIT_FAILED = 1, /* while running */
    ST_EXIT_USAGE = 2,  /* a wrong option or SPEC */
    ST_EXIT_DIFFER = 3, /* images differ */
    ST_EXIT_PANIC = 3,  /* of run: the guest has panicked */
};

enum st_cmd_kind {
    ST_CMD_FLAG,
    ST_CMD_TEXT,
    ST_CMD_MAYBE, /* a text that may be missing: the next word is it, unless it
                   * begins with '-' */
    ST_CMD_MANY,
    ST_CMD_NUMBER,
    ST_CMD_WORD
};

/* One row of a command's options; the table ends with a NULL name. */
struct st_cmd_option {
    const char *name; /* without the dashes */
    enum st_cmd_kind kind;
    const char *arg;  /* what --help calls the value; of a WORD: all of them,
                       * a|b|c, the first is the default */
    const char *help; /* NULL: not shown, for it is deprecated, or there to be
                       * refused */
    unsigned def, min, max; /* of a NUMBER */
};

enum { ST_CMD_OPTIONS_MAX = 32 };

/* What a command line said. */
struct st_cmd_args {
    const char *text[ST_CMD_OPTIONS_MAX];  /* by row; NULL: not given; "": a
                                            * FLAG, or a MAYBE without one */
    unsigned number[ST_CMD_OPTIONS_MAX];   /* by row; a WORD's index */
    const char **many[ST_CMD_OPTIONS_MAX]; /* owned: of a MANY row, in order */
    unsigned nmany[ST_CMD_OPTIONS_MAX];
    char **rest; /* lent: what is not an option */
    int nrest;
    enum st_level level; /* -v, -vv */
    bool help;
};

/* A subcommand: a row of the table in main.c. */
struct st_cmd {
    const char *name, *syntax; /* after the name */
    const char *help;          /* one line; more of them in --help: */
    const char *more;
    const struct st_cmd_option *options;
    /* Not NULL: options end at the first word, from there on all is rest, which
     * the command reads itself; this tells --help of those words. */
    void (*words)(FILE *out);
    int (*run)(const struct st_cmd_args *a); /* gives an exit status */
};

extern const struct st_cmd st_cmd_run_machine, st_cmd_nbd, st_cmd_serve,
    st_cmd_info, st_cmd_bench, st_cmd_completion, st_cmd_ctl, st_cmd_top;

/* All of them, ended by NULL (commands.c): for --help, completion, manuals. */
extern const struct st_cmd *const st_cmd_all[];

/* The line of --version: "strata 0.1.0 (io_uring, threads, openssl 3.0.1)". */
void st_cmd_version(FILE *out);

/* Parse ARGV (ARGV[0] is the command) and run C, or print its --help. */
int st_cmd_run(const struct st_cmd *c, int argc, char **argv);

/* Take VALUE (lent; NULL: none) as that of row I, which is O: 0, or -EINVAL
 * with a sentence: twice, or not what the row takes. Not of a MANY row. */
int st_cmd_take(const struct st_cmd_option *o, struct st_cmd_args *a,
                unsigned i, const char *value, struct st_err *err);

/* Say "strata: SENTENCE" on standard error; returns STATUS. */
int st_cmd_fail(int status, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The same for -errno RC of what options or a SPEC asked for: what is wrong in
 * itself is ST_EXIT_USAGE. */
int st_cmd_fail_rc(int rc, const struct st_err *err);

/* ---- The world: what would be global ---- */

/* What would be global: made first, closed last. */
struct st_cmd_world {
    struct st_log log, notice; /* to standard error; NOTICE whatever -v says */
    struct st_domain *domain;
    struct st_loop *home;       /* main's thread turns it */
    struct st_stack_env *stack; /* for st_cmd_disk_open; owned */
    void (*signal)(struct st_cmd_world *w, int signal);
    struct st_watch watch; /* fd is owned */
};

#define ST_CMD_ENGINE                                                          \
    {                                                                          \
        "engine", ST_CMD_WORD, "auto|io_uring|threads", "how files are read",  \
            0, 0, 0                                                            \
    }
#define ST_CMD_POLL                                                            \
    {                                                                          \
        "poll-us", ST_CMD_NUMBER, "N",                                         \
            "spin so long after work, before sleeping; with one CPU 0", 50, 0, \
            1000000                                                            \
    }

/* What the row I of A that is ST_CMD_POLL says, or its default. */
unsigned st_cmd_poll_us(const struct st_cmd_args *a, unsigned i);

/* Zeroes W and fills it, for the engine with index ENGINE. SIGNAL (may be NULL)
 * gets SIGTERM, SIGINT and SIGUSR1 on HOME; they are blocked in all threads,
 * and SIGPIPE is ignored. 0, or says why not and returns an exit status;
 * st_cmd_world_close is due then, too. */
int st_cmd_world_open(struct st_cmd_world *w, enum st_level level,
                      unsigned engine, unsigned poll_us,
                      void (*signal)(struct st_cmd_world *w, int signal));
void st_cmd_world_close(struct st_cmd_world *w);

/* Open SPEC as a disk (the caller's, before the world is closed), or say why
 * not and return an exit status. */
int st_cmd_disk_open(struct st_cmd_world *w, const char *spec, const char *name,
                     bool read_only, struct st_disk **out);

/* ---- address.c: where a server listens ---- */

/* Where a server listens: a Unix socket, TCP, or descriptors that it was
 * given. */
struct st_cmd_address {
    const char *what;     /* the option that says it, for sentences; static */
    char path[108];       /* Unix socket, or "" */
    unsigned mode, group; /* its, group -1: ours */
    char host[256], port[8]; /* TCP */
    int fd[8];               /* owned; -1 when taken */
    unsigned nfds;
    bool connected;               /* fd[0] is one client, no listener */
    char before[320], after[128]; /* its URI, around the export's name */
    uint64_t dev, ino;            /* of the socket that we made */
};

/* Understand the values of --unix, --addr and --fd (NULL: not given; none: the
 * sockets of a service manager, LISTEN_FDS, else localhost, NBD's port); opens
 * nothing. A service manager's sockets are taken by the first call, and its
 * variables out of the environment: before other threads start. 0, or -EINVAL
 * or -ENOTSUP with a sentence. */
int st_cmd_address_parse(struct st_cmd_address *a, const char *unix_text,
                         const char *addr, const char *fd, struct st_err *err);

/* The same for option WHAT, which takes a Unix socket only. */
int st_cmd_address_unix(struct st_cmd_address *a, const char *what,
                        const char *text, struct st_err *err);

/* The words of a Unix socket: MODE and GROUP may be NULL; and of TCP. */
int st_cmd_address_path(struct st_cmd_address *a, const char *what,
                        const char *path, const char *mode, const char *group,
                        struct st_err *err);
int st_cmd_address_tcp(struct st_cmd_address *a, const char *what,
                       const char *text, struct st_err *err);

/* The sockets of a service manager, by the names that it gave them. */
struct st_cmd_sockets {
    char **name; /* owned */
    int n;
    uint64_t taken; /* bits */
};

/* Find them, once in a process and instead of st_cmd_address_parse. 0, -EINVAL
 * or -ENOTSUP with a sentence; close it in any case. */
int st_cmd_sockets_open(struct st_cmd_sockets *s, struct st_err *err);

/* Move those called NAME (NULL: all that are left) into A, zeroed. Gives their
 * number, or -EINVAL: too many of them. */
int st_cmd_sockets_take(struct st_cmd_sockets *s, const char *name,
                        struct st_cmd_address *a, struct st_err *err);

/* The name of one that nobody has taken, or NULL; lent. */
const char *st_cmd_sockets_left(const struct st_cmd_sockets *s);

/* Those that nobody has taken are closed. */
void st_cmd_sockets_close(struct st_cmd_sockets *s);

/* Bind and listen. A Unix socket where nobody answers is removed first. 0 or
 * -errno with a sentence; close it in any case. */
int st_cmd_address_open(struct st_cmd_address *a, struct st_err *err);

/* FD (taken) is the Unix socket at A's path, of a process before this one. */
void st_cmd_address_adopt(struct st_cmd_address *a, int fd);

/* Close what was not taken; remove our Unix socket if it still is ours. */
void st_cmd_address_close(struct st_cmd_address *a);

#endif
