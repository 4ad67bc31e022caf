/* SPDX-License-Identifier: MIT
 *
 * What commands share: options, sentences, the world; see cmd.h.
 */
#include "cmd.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "size.h"
#include "stack.h"

int
st_cmd_fail(int status, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "strata: %s\n", text);
    return status;
}

int
st_cmd_fail_rc(int rc, const struct st_err *err)
{
    bool usage = rc == -EINVAL || rc == -ENOTSUP;

    return st_cmd_fail(usage ? ST_EXIT_USAGE : ST_EXIT_FAILED, "%s", err->text);
}

/* ---- Options ---- */

static int
cmd_help(const struct st_cmd *c)
{
    printf("usage: strata %s [OPTION]...%s%s\n\n%s\n%s\noptions:\n", c->name,
           *c->syntax ? " " : "", c->syntax, c->help, c->more);
    for (const struct st_cmd_option *o = c->options; o->name; o++) {
        if (!o->help)
            continue;
        printf("  --%s", o->name);
        if (o->arg)
            printf(o->kind == ST_CMD_MAYBE ? " [%s]" : " %s", o->arg);
        printf("\n      %s", o->help);
        if (o->kind == ST_CMD_NUMBER)
            printf("; %u to %u, default %u", o->min, o->max, o->def);
        putchar('\n');
    }
    printf("  -v, --verbose\n      say more; twice: still more\n"
           "  -h, --help\n      this text\n");
    if (c->words)
        c->words(stdout);
    if (c->words || strstr(c->syntax, "SPEC")) {
        printf("\nSPEC is one of:\n");
        st_stack_help(stdout);
    }
    return ST_EXIT_OK;
}

/* The index of WORD in "a|b|c", or -1. */
static int
word_index(const char *words, const char *word)
{
    size_t len = strlen(word), n;

    for (int i = 0;; i++) {
        n = strcspn(words, "|");
        if (n == len && strncmp(words, word, n) == 0)
            return i;
        if (!words[n])
            return -1;
        words += n + 1;
    }
}

int
st_cmd_take(const struct st_cmd_option *o, struct st_cmd_args *a, unsigned i,
            const char *value, struct st_err *err)
{
    char what[40];
    uint64_t n;
    int index;

    if (a->text[i])
        return st_err_set(err, EINVAL, "option '--%s' is given twice", o->name);
    a->text[i] = value ? value : "";
    if (o->kind == ST_CMD_MAYBE && value && !*value)
        return st_err_set(err, EINVAL, "option '--%s' has an empty value",
                          o->name);
    if (o->kind == ST_CMD_NUMBER) {
        snprintf(what, sizeof(what), "--%s", o->name);
        if (st_number_parse(what, value, o->min, o->max, &n, err) < 0)
            return -EINVAL;
        a->number[i] = (unsigned)n;
    }
    if (o->kind == ST_CMD_WORD) {
        index = word_index(o->arg, value);
        if (index < 0)
            return st_err_set(err, EINVAL, "invalid --%s '%s', expected %s",
                              o->name, value, o->arg);
        a->number[i] = (unsigned)index;
    }
    return 0;
}

/* Take VALUE for row I; 0 or an exit status. */
static int
take_option(const struct st_cmd_option *o, struct st_cmd_args *a, unsigned i,
            const char *value)
{
    struct st_err err;

    if (o->kind == ST_CMD_MANY) {
        a->text[i] = value;
        a->many[i][a->nmany[i]++] = value;
        return 0;
    }
    return st_cmd_take(o, a, i, value, &err) < 0
               ? st_cmd_fail(ST_EXIT_USAGE, "%s", err.text)
               : 0;
}

static int
has_value(const struct st_cmd_option *o)
{
    return o->kind == ST_CMD_FLAG    ? no_argument
           : o->kind == ST_CMD_MAYBE ? optional_argument
                                     : required_argument;
}

/* What getopt leaves out of a value that may be missing: the next word. */
static const char *
maybe_next(const struct st_cmd_option *o, int argc, char **argv)
{
    bool next = o->kind == ST_CMD_MAYBE && !optarg && optind < argc &&
                *argv[optind] != '-';

    return next ? argv[optind++] : optarg;
}

static int
parse(const struct st_cmd *c, struct st_cmd_args *a, int argc, char **argv)
{
    enum { ROWS = 256 };
    struct option opts[ST_CMD_OPTIONS_MAX + 3] = {
        {"help", no_argument, NULL, 'h'},
        {"verbose", no_argument, NULL, 'v'},
    };
    const char *wrong = "unknown option '%s', see 'strata %s --help'";
    int k, status = 0;

    for (int i = 0; c->options[i].name; i++) {
        a->number[i] = c->options[i].def;
        if (c->options[i].kind == ST_CMD_MANY) {
            a->many[i] = calloc((size_t)argc, sizeof(*a->many[i]));
            if (!a->many[i])
                return st_cmd_fail(ST_EXIT_FAILED, "no memory");
        }
        opts[i + 2] = (struct option){
            c->options[i].name, has_value(&c->options[i]), NULL, ROWS + i};
    }
    opterr = 0;
    while (!status && (k = getopt_long(argc, argv, c->words ? "+:hv" : ":hv",
                                       opts, NULL)) != -1) {
        if (k == 'h')
            status = a->help = true;
        else if (k == 'v')
            a->level += a->level < ST_LOG_DEBUG;
        else if (k >= ROWS)
            status = take_option(&c->options[k - ROWS], a, (unsigned)(k - ROWS),
                                 maybe_next(&c->options[k - ROWS], argc, argv));
        else if (k == ':')
            status = st_cmd_fail(ST_EXIT_USAGE, "option '%s' needs a value",
                                 argv[optind - 1]);
        else if (optopt >= ROWS)
            status = st_cmd_fail(ST_EXIT_USAGE, "option '%s' takes no value",
                                 argv[optind - 1]);
        else
            status = st_cmd_fail(ST_EXIT_USAGE, wrong,
                                 optopt ? (char[]){'-', (char)optopt, 0}
                                        : argv[optind - 1],
                                 c->name);
    }
    a->rest = argv + optind;
    a->nrest = argc - optind;
    return status;
}

int
st_cmd_run(const struct st_cmd *c, int argc, char **argv)
{
    struct st_cmd_args a = {.level = ST_LOG_WARN};
    int status = parse(c, &a, argc, argv);

    if (a.help)
        status = cmd_help(c);
    else if (!status)
        status = c->run(&a);
    for (unsigned i = 0; i < ST_CMD_OPTIONS_MAX; i++)
        free(a.many[i]);
    return status;
}

/* ---- The world ---- */

static void
log_line(void *arg, enum st_level level, const char *line)
{
    static const char *const names[] = {"error: ", "warning: ", "", ""};

    (void)arg;
    fprintf(stderr, "strata: %s%s\n", names[level], line);
}

static void
signals_ready(struct st_watch *watch, unsigned events)
{
    struct st_cmd_world *w = st_container(watch, struct st_cmd_world, watch);
    struct signalfd_siginfo info;

    (void)events;
    while (read(watch->fd, &info, sizeof(info)) == sizeof(info))
        w->signal(w, (int)info.ssi_signo);
}

static int
signals_watch(struct st_cmd_world *w, struct st_err *err)
{
    sigset_t mask;
    int rc = 0;

    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    w->watch.ready = signals_ready;
    w->watch.events = EPOLLIN;
    w->watch.fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    rc = w->watch.fd < 0 ? -errno : st_watch_add(w->home, &w->watch);
    return rc < 0 ? st_err_set(err, -rc, "signals: %s", st_strerror(rc)) : 0;
}

unsigned
st_cmd_poll_us(const struct st_cmd_args *a, unsigned i)
{
    return a->text[i] ? a->number[i] : st_spin_us(a->number[i]);
}

int
st_cmd_world_open(struct st_cmd_world *w, enum st_level level, unsigned engine,
                  unsigned poll_us,
                  void (*got)(struct st_cmd_world *w, int signal))
{
    static const char *const engines[] = {"auto", "io_uring", "threads"};
    struct st_domain_opts o = {
        .engine = engines[engine], .poll_us = poll_us, .log = &w->log};
    struct st_err err;
    int rc;

    memset(w, 0, sizeof(*w));
    w->log = (struct st_log){.level = level, .write = log_line};
    w->notice = (struct st_log){.level = ST_LOG_INFO, .write = log_line};
    w->watch.fd = -1;
    w->signal = got;
    rc = st_domain_create(&o, &w->domain, &err);
    if (rc == 0)
        rc = st_loop_create(w->domain, &w->home, &err);
    if (rc == 0 && !(w->stack = st_stack_env_create()))
        rc = st_err_set(&err, ENOMEM, "no memory");
    if (rc == 0 && got)
        rc = signals_watch(w, &err);
    return rc < 0 ? st_cmd_fail(ST_EXIT_FAILED, "%s", err.text) : 0;
}

void
st_cmd_world_close(struct st_cmd_world *w)
{
    if (w->watch.engine)
        st_watch_remove(w->home, &w->watch);
    if (w->watch.fd >= 0)
        close(w->watch.fd);
    st_stack_env_destroy(w->stack);
    st_loop_destroy(w->home);
    st_domain_destroy(w->domain);
}

int
st_cmd_disk_open(struct st_cmd_world *w, const char *spec, const char *name,
                 bool read_only, struct st_disk **out)
{
    struct st_node *node = NULL;
    struct st_err err;
    int rc = st_stack_open(w->home, w->stack, spec, read_only, &node, &err);

    if (rc == 0)
        rc = st_disk_create(w->home, node, name, read_only, out, &err);
    if (rc < 0 && node)
        st_node_close(node);
    return rc < 0 ? st_cmd_fail_rc(rc, &err) : 0;
}
