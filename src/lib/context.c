/* SPDX-License-Identifier: MIT
 *
 * Contexts: a domain, a home loop and some I/O loops, each on a thread of its
 * own. See include/strata/context.h for what is promised.
 *
 * A child after fork() has no such threads: whoever waited for one would wait
 * for ever. So the context has a page that the kernel wipes in a child
 * (MADV_WIPEONFORK), and every function looks at it: one load, no system call.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib.h"

enum { LIB_HERE = 0x57a7a }; /* anything but zero */

struct lib_kind {
    struct st_kind_more more; /* first */
    struct strata_kind kind;
    struct lib_kind *next;
    char name[];
};

const char *
strata_version(void)
{
    return STRATA_VERSION;
}

const char *
strata_engine(const struct strata *s)
{
    return st_domain_engine(s->domain);
}

/* ---- Who calls from where ---- */

int
lib_usable(const struct strata *s)
{
    return *s->here == LIB_HERE ? 0 : -ECHILD;
}

int
lib_may_wait(const struct strata *s, struct strata_error *err)
{
    bool own = false;

    if (lib_usable(s) < 0)
        return lib_err(err, ECHILD,
                       "the library's threads are not in this process, which "
                       "was forked from the one that has them");
    own = st_loop_here(s->home);
    for (unsigned i = 0; i < s->nio; i++)
        own |= st_loop_here(s->io[i]);
    if (own)
        return lib_err(err, EDEADLK,
                       "a callback would wait for the thread that it runs on");
    return 0;
}

/* ---- Calls to a loop ---- */

static void
call_run(struct st_task *t)
{
    struct lib_call *c = st_container(t, struct lib_call, task);

    c->fn(c);
}

int
lib_call(struct st_loop *l, struct lib_call *c, void (*fn)(struct lib_call *c))
{
    c->task.run = call_run;
    c->fn = fn;
    sem_init(&c->sem, 0, 0);
    st_post(l, &c->task);
    while (sem_wait(&c->sem) < 0) /* EINTR: a handler of the embedder's ran */
        ;
    sem_destroy(&c->sem);
    return c->rc;
}

void
lib_call_end(struct lib_call *c, int rc)
{
    c->rc = rc;
    sem_post(&c->sem);
}

static void
nothing(struct lib_call *c)
{
    lib_call_end(c, 0);
}

void
lib_barrier(struct st_loop *l)
{
    struct lib_call c;

    lib_call(l, &c, nothing);
}

/* ---- Threads ---- */

/* The library's threads take no signal but those of their own faults. */
static int
start(struct st_loop *l, const char *name)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++)
        sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = st_loop_start(l, name);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static void
log_line(void *arg, enum st_level level, const char *line)
{
    const struct strata *s = arg;

    s->log_fn(s->log_arg, (enum strata_log_level)level, line);
}

/* Accepts a context that is half built; nobody uses it. */
static void
context_free(struct strata *s)
{
    struct lib_kind *k;

    /* What was posted to a loop runs before it stops, and once the I/O loops
     * are gone nobody posts to the home loop any more. */
    for (unsigned i = 0; i < s->nio; i++)
        st_loop_join(s->io[i]);
    if (s->home)
        st_loop_join(s->home);
    for (unsigned i = 0; i < s->nio; i++)
        st_loop_destroy(s->io[i]);
    st_loop_destroy(s->home);
    st_stack_env_destroy(s->env);
    while ((k = s->kinds)) {
        s->kinds = k->next;
        free(k);
    }
    st_domain_destroy(s->domain);
    if (s->here)
        munmap((void *)(uintptr_t)s->here, (size_t)sysconf(_SC_PAGESIZE));
    free(s);
}

int
lib_check_engine(const char *engine, struct strata_error *err)
{
    static const char *const known[] = {"auto", "io_uring", "threads"};

    if (!engine)
        return 0;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(engine, known[i]) == 0)
            return 0;
    return lib_err(err, EINVAL,
                   "unknown engine '%.80s', expected auto, io_uring or threads",
                   engine);
}

static int
take_options(const struct strata_options *from, struct strata_options *o,
             struct strata_error *err)
{
    static const struct strata_options defaults = {.size = sizeof(defaults)};
    int rc =
        lib_take(o, sizeof(*o), from ? from : &defaults, "strata_options", err);

    if (rc < 0)
        return rc;
    if (o->threads > LIB_THREADS_MAX)
        return lib_err(err, EINVAL, "%u threads, expected at most %d",
                       o->threads, LIB_THREADS_MAX);
    if (o->poll_us > 1000000)
        return lib_err(err, EINVAL, "poll_us is %u, expected at most 1000000",
                       o->poll_us);
    if ((unsigned)o->log_level > STRATA_LOG_DEBUG)
        return lib_err(err, EINVAL, "log_level is %d, expected 0 to %d",
                       (int)o->log_level, STRATA_LOG_DEBUG);
    return lib_check_engine(o->engine, err);
}

static int
start_all(struct strata *s, unsigned threads, struct st_err *err)
{
    int rc = st_loop_create(s->domain, &s->home, err);

    while (rc == 0 && s->nio < threads) {
        rc = st_loop_create(s->domain, &s->io[s->nio], err);
        s->nio += rc == 0;
    }
    if (rc < 0)
        return rc;
    rc = start(s->home, "strata-home");
    for (unsigned i = 0; rc == 0 && i < s->nio; i++) {
        char name[24]; /* the kernel keeps 15 */

        snprintf(name, sizeof(name), "strata-io%u", i);
        rc = start(s->io[i], name);
    }
    if (rc < 0)
        return st_err_set(err, -rc, "cannot start a thread: %s",
                          st_strerror(rc));
    /* From its first turn on a thread is known as ours. */
    lib_barrier(s->home);
    for (unsigned i = 0; i < s->nio; i++)
        lib_barrier(s->io[i]);
    return 0;
}

int
strata_open(const struct strata_options *options, struct strata **out,
            struct strata_error *err)
{
    struct strata_options o;
    struct st_domain_opts d;
    struct st_err e = {""};
    struct strata *s;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *here;
    int rc = take_options(options, &o, err);

    if (rc < 0)
        return rc;
    s = calloc(1, sizeof(*s));
    if (!s)
        return lib_err(err, ENOMEM, "no memory");
    s->log = (struct st_log){(enum st_level)o.log_level, log_line, s};
    s->log_fn = o.log;
    s->log_arg = o.log_arg;
    here = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    s->env = st_stack_env_create();
    if (here == MAP_FAILED || !s->env) {
        if (here != MAP_FAILED)
            munmap(here, page);
        context_free(s);
        return lib_err(err, ENOMEM, "no memory");
    }
    /* Where the kernel is too old for this, the rule is the embedder's own to
     * keep. */
    madvise(here, page, MADV_WIPEONFORK);
    s->here = here;
    *s->here = LIB_HERE;
    d = (struct st_domain_opts){.engine = o.engine,
                                .poll_us = o.poll_us,
                                .log = o.log ? &s->log : NULL};
    rc = st_domain_create(&d, &s->domain, &e);
    if (rc == 0)
        rc = start_all(s, o.threads ? o.threads : 1, &e);
    if (rc < 0) {
        context_free(s);
        return lib_err_from(err, rc, &e);
    }
    *out = s;
    return 0;
}

int
strata_close(struct strata *s)
{
    int rc;

    if (!s)
        return 0;
    rc = lib_may_wait(s, NULL);
    if (rc < 0)
        return rc;
    if (atomic_load(&s->users))
        return -EBUSY;
    for (unsigned i = 0; i < s->nio; i++)
        lib_barrier(s->io[i]);
    lib_barrier(s->home);
    context_free(s);
    return 0;
}

unsigned
lib_next_loop(struct strata *s)
{
    return s->nio == 1 ? 0 : atomic_fetch_add(&s->next, 1) % s->nio;
}

/* ---- Kinds ---- */

static int
kind_make(struct st_kind_more *more, struct st_loop *home, const char *text,
          bool read_only, const char *label, struct st_node **out,
          struct st_err *err)
{
    struct lib_kind *k = (struct lib_kind *)more;
    struct strata_node *n = NULL;
    struct strata_error e = {""};
    int rc = k->kind.open(k->kind.arg, text, read_only, &n, &e);

    if (rc == 0 && !n)
        rc = lib_err(&e, EINVAL, "it gave no node");
    if (rc > 0) /* an errno with the wrong sign is a likely slip */
        rc = -EINVAL;
    e.text[sizeof(e.text) - 1] = '\0';
    if (rc < 0)
        return st_err_set(err, -rc, "'%.160s': %.300s", label,
                          e.text[0] ? e.text : st_strerror(rc));
    *out = lib_node_settle(n, home, label);
    return 0;
}

struct kind_call {
    struct lib_call call;
    struct strata *s;
    struct lib_kind *kind;
    struct st_err err;
};

static void
kind_add(struct lib_call *call)
{
    struct kind_call *c = (struct kind_call *)call;
    int rc = st_stack_env_add(c->s->env, &c->kind->more, &c->err);

    if (rc == 0) {
        c->kind->next = c->s->kinds;
        c->s->kinds = c->kind;
    }
    lib_call_end(call, rc);
}

int
strata_kind_add(struct strata *s, const struct strata_kind *kind,
                struct strata_error *err)
{
    struct kind_call c = {.s = s};
    struct strata_kind k;
    int rc = lib_may_wait(s, err);

    if (rc == 0)
        rc = lib_take(&k, sizeof(k), kind, "strata_kind", err);
    if (rc < 0)
        return rc;
    if (!k.name || !k.open)
        return lib_err(err, EINVAL, "strata_kind has no %s",
                       k.name ? "open function" : "name");
    c.kind = calloc(1, sizeof(*c.kind) + strlen(k.name) + 1);
    if (!c.kind)
        return lib_err(err, ENOMEM, "no memory");
    strcpy(c.kind->name, k.name);
    c.kind->kind = k;
    c.kind->more.name = c.kind->name;
    c.kind->more.make = kind_make;
    rc = lib_call(s->home, &c.call, kind_add);
    if (rc < 0) {
        free(c.kind);
        return lib_err_from(err, rc, &c.err);
    }
    return 0;
}
