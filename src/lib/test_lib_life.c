/* SPDX-License-Identifier: MIT
 *
 * What a program that embeds the library relies on beside its functions: no
 * leak, no signal of its own, a child after fork() that does not hang.
 */
#include "test_lib.h"

#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>

enum { CYCLES = SANITIZED ? 500 : 10000 };

static unsigned
entries(const char *path)
{
    DIR *d = opendir(path);
    unsigned n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- Leaks ---- */

struct bill {
    unsigned fds, threads;
    size_t bytes;
};

static struct bill
bill(void)
{
    return (struct bill){entries("/proc/self/fd"), entries("/proc/self/task"),
                         mallinfo2().uordblks};
}

/* MORE: threads that a pool may have started meanwhile. */
static void
same_bill(struct bill before, unsigned more)
{
    struct bill now = bill();

    /* A thread that was joined may be on show for a moment. */
    for (unsigned i = 0; i < 1000 && now.threads > before.threads + more; i++) {
        usleep(5000);
        now = bill();
    }
    assert_int_equal(before.fds, now.fds);
    assert_in_range(now.threads, before.threads, before.threads + more);
    /* Arenas are warm; a leak of one byte a cycle would show. */
    assert_true(now.bytes < before.bytes + CYCLES);
}

static void
opening_and_closing_disks_leaks_nothing(void **state)
{
    char path[] = "/tmp/st-lib-XXXXXX", spec[64];
    int fd = mkstemp(path);
    struct bill before = {0};

    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    snprintf(spec, sizeof(spec), "memdiff:delay:0:raw:%s", path);
    for (unsigned i = 0; i < CYCLES + 100; i++) {
        struct strata_disk *d = NULL;
        struct strata_error err;
        char c = 1;

        if (i == 100)
            before = bill();
        if (i % 5 == 4) {
            assert_true(strata_disk_open(*state, "memdiff:raw:/nonexistent",
                                         NULL, &d, &err) < 0);
            continue;
        }
        d = disk(*state, i % 2 ? spec : "mem:1M");
        assert_int_equal(strata_write(d, &c, 1, i % 1000, 0), STRATA_OK);
        assert_int_equal(strata_disk_close(d), 0);
    }
    same_bill(before, 8);
    unlink(path);
}

static void
opening_and_closing_contexts_leaks_nothing(void **state)
{
    struct bill before = {0};

    (void)state;
    for (unsigned i = 0; i < CYCLES / 10 + 20; i++) {
        struct strata *s;
        struct strata_disk *d;
        struct strata_queue *q;
        struct strata_request *r;
        struct strata_io io = {.size = sizeof(io), .op = STRATA_OP_FLUSH};
        struct pollfd p = {.events = POLLIN};

        if (i == 20) {
            usleep(20000); /* threads that were joined are gone by then */
            before = bill();
        }
        s = context(1 + i % 3, i % 2 ? "threads" : NULL);
        d = disk(s, "mem:1M");
        assert_int_equal(strata_queue_create(s, &q, NULL), 0);
        assert_int_equal(strata_request_create(d, q, NULL, NULL, &r), 0);
        assert_int_equal(strata_submit(r, &io), 0);
        p.fd = strata_queue_fd(q);
        assert_int_equal(poll(&p, 1, 10000), 1);
        assert_ptr_equal(strata_queue_take(q), r);
        assert_int_equal(strata_request_destroy(r), 0);
        assert_int_equal(strata_queue_destroy(q), 0);
        assert_int_equal(strata_disk_close(d), 0);
        assert_int_equal(strata_close(s), 0);
    }
    same_bill(before, 0);
}

/* ---- Signals ---- */

/* The blocked signals of a thread: a mask, bit 0 is signal 1. */
static uint64_t
blocked(const char *task, char name[32])
{
    char path[300], line[256];
    uint64_t mask = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%s/status", task);
    f = fopen(path, "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof(line), f)) {
        sscanf(line, "Name: %31s", name);
        sscanf(line, "SigBlk: %lx", &mask);
    }
    fclose(f);
    return mask;
}

#define SIGNAL_BIT(n) (UINT64_C(1) << ((n)-1))

static void
signals_are_for_the_embedders_threads(void **state)
{
    const struct strata_disk_options o = {.size = sizeof(o)};
    struct sigaction pipe_before, pipe_after;
    sigset_t before = {0}, after = {0}; /* the kernel fills 8 bytes */
    struct strata *s;
    struct strata_disk *d;
    unsigned ours = 0;
    struct dirent *e;
    DIR *tasks;

    (void)state;
    sigaction(SIGPIPE, NULL, &pipe_before);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    s = context(3, "threads");
    assert_int_equal(strata_disk_open(s, "mem:1M", &o, &d, NULL), 0);
    assert_int_equal(strata_disk_resize(d, MIB(2), NULL), 0); /* a worker */
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    sigaction(SIGPIPE, NULL, &pipe_after);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_ptr_equal(pipe_before.sa_handler, pipe_after.sa_handler);
    tasks = opendir("/proc/self/task");
    while ((e = readdir(tasks))) {
        const uint64_t must = SIGNAL_BIT(SIGPIPE) | SIGNAL_BIT(SIGTERM) |
                              SIGNAL_BIT(SIGINT) | SIGNAL_BIT(SIGUSR1) |
                              SIGNAL_BIT(SIGCHLD) | SIGNAL_BIT(SIGALRM);
        char name[32] = "";
        uint64_t mask;

        if (e->d_name[0] == '.')
            continue;
        mask = blocked(e->d_name, name);
        if (strncmp(name, "strata-", 7) != 0)
            continue;
        ours++;
        if ((mask & must) != must)
            fail_msg("%s blocks only %#jx", name, (uintmax_t)mask);
        if (strcmp(name, "strata-worker") != 0 && mask & SIGNAL_BIT(SIGSEGV))
            fail_msg("%s blocks its own faults", name);
    }
    closedir(tasks);
    assert_true(ours >= 5); /* home, three for I/O, a worker */
    assert_int_equal(strata_disk_close(d), 0);
    assert_int_equal(strata_close(s), 0);
}

static _Atomic unsigned handled;

static void
handler(int n)
{
    (void)n;
    atomic_fetch_add(&handled, 1);
}

struct storm {
    pthread_t victim;
    _Atomic bool stop;
};

static void *
storm_main(void *arg)
{
    struct storm *w = arg;

    while (!atomic_load(&w->stop)) {
        pthread_kill(w->victim, SIGUSR1);
        usleep(50);
    }
    return NULL;
}

/* A handler without SA_RESTART interrupts whoever waits, not what it does. */
static void
a_handler_does_not_disturb_who_waits(void **state)
{
    struct sigaction act = {.sa_handler = handler}, old;
    struct storm w = {.victim = pthread_self()};
    struct strata_disk *d = disk(*state, "delay:1:mem:1M");
    pthread_t t;
    char c = 0;

    sigaction(SIGUSR1, &act, &old);
    pthread_create(&t, NULL, storm_main, &w);
    for (unsigned i = 0; i < 100; i++) {
        c = (char)i;
        assert_int_equal(strata_write(d, &c, 1, i, 0), STRATA_OK);
        assert_int_equal(strata_read(d, &c, 1, i), STRATA_OK);
        assert_int_equal(c, i);
    }
    atomic_store(&w.stop, true);
    pthread_join(t, NULL);
    assert_true(atomic_load(&handled) > 0);
    assert_int_equal(strata_disk_close(d), 0);
    sigaction(SIGUSR1, &old, NULL);
}

/* ---- Fork ---- */

/* Everything that could hang or harm: 0 if each says that this is a child. */
static int
in_the_child(struct strata *s, struct strata_disk *d, struct strata_queue *q,
             struct strata_request *r)
{
    struct strata_counters c = {.size = sizeof(c)};
    struct strata_io io = {.size = sizeof(io), .op = STRATA_OP_FLUSH};
    struct strata_kind k = {.size = sizeof(k), .name = "x"};
    struct strata_request *r2;
    struct strata_queue *q2;
    struct strata_disk *d2;
    struct strata_error err = {""};
    char b;

    alarm(20);
    return !(
        strata_disk_open(s, "mem:1M", NULL, &d2, &err) == -ECHILD &&
        strstr(err.text, "forked") && strata_kind_add(s, &k, NULL) == -ECHILD &&
        strata_read(d, &b, 1, 0) == STRATA_INVALID &&
        strata_flush(d) == STRATA_INVALID && strata_submit(r, &io) == -ECHILD &&
        strata_cancel(r) == -ECHILD &&
        strata_request_create(d, q, NULL, NULL, &r2) == -ECHILD &&
        strata_request_destroy(r) == -ECHILD &&
        strata_queue_create(s, &q2, NULL) == -ECHILD &&
        strata_queue_take(q) == NULL && strata_queue_destroy(q) == -ECHILD &&
        strata_disk_resize(d, MIB(2), NULL) == -ECHILD &&
        strata_disk_pause(d, 0, NULL) == -ECHILD &&
        strata_disk_resume(d, NULL) == -ECHILD &&
        strata_disk_set_policy(d, STRATA_POLICY_STOP) == -ECHILD &&
        strata_disk_counters(d, &c) == -ECHILD &&
        strata_disk_close(d) == -ECHILD && strata_close(s) == -ECHILD &&
        strata_disk_size(d) == MIB(1));
}

static void
a_child_is_told_that_it_is_one(void **state)
{
    struct strata_disk *d = disk(*state, "mem:1M");
    struct strata_queue *q;
    struct strata_request *r;
    int status;
    pid_t pid;
    char c = 3;

    assert_int_equal(strata_queue_create(*state, &q, NULL), 0);
    assert_int_equal(strata_request_create(d, q, NULL, NULL, &r), 0);
    pid = fork();
    if (pid == 0)
        _exit(in_the_child(*state, d, q, r));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* The parent notices nothing. */
    assert_int_equal(strata_write(d, &c, 1, 5, 0), STRATA_OK);
    assert_int_equal(strata_request_destroy(r), 0);
    assert_int_equal(strata_queue_destroy(q), 0);
    assert_int_equal(strata_disk_close(d), 0);
}

/* What the header says of locks: closing gives them back, even while a child
 * has the descriptors; dying does not. */
static void
a_child_holds_no_lock_of_a_closed_disk(void **state)
{
    char path[] = "/tmp/st-lib-XXXXXX", spec[64];
    int fd = mkstemp(path), hold[2], status;
    struct strata_disk *d, *d2;
    struct strata_error err;
    pid_t pid;
    char c;

    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    assert_int_equal(pipe(hold), 0);
    snprintf(spec, sizeof(spec), "raw:%s", path);
    d = disk(*state, spec);
    assert_int_equal(strata_disk_open(*state, spec, NULL, &d2, &err), -EBUSY);
    pid = fork();
    if (pid == 0) {
        close(hold[1]);
        _exit(read(hold[0], &c, 1) != 0);
    }
    assert_int_equal(strata_disk_close(d), 0);
    d = disk(*state, spec);
    assert_int_equal(strata_disk_close(d), 0);
    close(hold[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(hold[0]);
    unlink(path);
}

/* ---- Many threads ---- */

struct crowd {
    struct strata_disk *d;
    unsigned n;
    unsigned bad;
};

static void *
crowd_main(void *arg)
{
    struct crowd *c = arg;
    unsigned char buf[700], got[700];

    for (unsigned i = 0; i < 200; i++) {
        uint64_t at = c->n * 65536 + i * 300;

        memset(buf, (int)(c->n * 17 + i), sizeof(buf));
        c->bad += strata_write(c->d, buf, 700, at, 0) != STRATA_OK;
        c->bad += strata_read(c->d, got, 700, at) != STRATA_OK;
        c->bad += memcmp(buf, got, 700) != 0;
        if (i % 50 == 0)
            c->bad += strata_disk_pause(c->d, 0, NULL) != 0 ||
                      strata_disk_resume(c->d, NULL) != 0;
    }
    return NULL;
}

static void
a_disk_serves_a_crowd(void **state)
{
    struct strata_disk *d = disk(*state, "memdiff:mem:1M");
    struct crowd c[8];
    pthread_t t[8];

    for (unsigned i = 0; i < 8; i++) {
        c[i] = (struct crowd){.d = d, .n = i};
        pthread_create(&t[i], NULL, crowd_main, &c[i]);
    }
    /* A pause of one may be followed by that of another: nobody is left
     * waiting in the end. */
    for (unsigned i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(c[i].bad, 0);
    assert_int_equal(strata_disk_close(d), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(opening_and_closing_disks_leaks_nothing),
        cmocka_unit_test(opening_and_closing_contexts_leaks_nothing),
        cmocka_unit_test(signals_are_for_the_embedders_threads),
        T(a_handler_does_not_disturb_who_waits),
        T(a_child_is_told_that_it_is_one),
        T(a_child_holds_no_lock_of_a_closed_disk),
        T(a_disk_serves_a_crowd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
