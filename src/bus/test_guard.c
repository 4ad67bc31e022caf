/* SPDX-License-Identifier: MIT
 *
 * Mapped files that are cut short: zeroes, a mark and a bell, on every thread;
 * and what is not ours goes where it went before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guard.h"

enum { PAGE = 4096, PAGES = 16, LEN = PAGES * PAGE };

/* cmocka has a handler of its own while a test runs: this one is put back. */
static struct sigaction guarding;

/* Guard a file of LEN bytes, all 0x5a; its descriptor. */
static int
guard_file(struct st_guard *r)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);

    assert_true(fd >= 0);
    if (guarding.sa_sigaction)
        sigaction(SIGBUS, &guarding, NULL);
    assert_int_equal(ftruncate(fd, LEN), 0);
    r->len = LEN;
    r->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    r->start = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(r->start != MAP_FAILED);
    memset(r->start, 0x5a, LEN);
    assert_int_equal(st_guard_add(r), 0);
    return fd;
}

static void
drop_file(struct st_guard *r, int fd)
{
    st_guard_remove(r);
    munmap(r->start, LEN);
    close(r->bell);
    close(fd);
}

static uint64_t
rings(const struct st_guard *r)
{
    uint64_t n = 0;

    if (read(r->bell, &n, sizeof(n)) < 0)
        assert_int_equal(errno, EAGAIN);
    return n;
}

static uint8_t
load(const struct st_guard *r, size_t at)
{
    return ((volatile uint8_t *)r->start)[at];
}

static void
what_was_cut_off_reads_zero(void **state)
{
    struct st_guard r = {0}, other = {0};
    int fd = guard_file(&r), fd2 = guard_file(&other);

    (void)state;
    assert_int_equal(load(&r, LEN - 1), 0x5a);
    assert_false(st_guard_broken(&r));
    assert_int_equal(ftruncate(fd, PAGE), 0);
    assert_int_equal(load(&r, LEN - 1), 0);
    assert_true(st_guard_broken(&r));
    assert_int_equal(rings(&r), 1);
    /* The whole range is zeroes: it breaks once. */
    assert_int_equal(load(&r, 0), 0);
    assert_int_equal(load(&r, 5 * PAGE), 0);
    assert_int_equal(rings(&r), 0);
    /* A store is carried out, and harms no file. */
    ((volatile uint8_t *)r.start)[7 * PAGE] = 1;
    assert_int_equal(load(&r, 7 * PAGE), 1);
    assert_int_equal(load(&other, LEN - 1), 0x5a);
    assert_false(st_guard_broken(&other));
    drop_file(&r, fd);
    drop_file(&other, fd2);
}

static void
a_slot_is_used_again(void **state)
{
    struct st_guard r = {0};
    unsigned first;
    int fd = guard_file(&r);

    (void)state;
    first = r.slot;
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(load(&r, 0), 0);
    drop_file(&r, fd);
    fd = guard_file(&r);
    assert_int_equal(r.slot, first);
    assert_false(st_guard_broken(&r));
    assert_int_equal(load(&r, 0), 0x5a);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(load(&r, 0), 0);
    assert_int_equal(rings(&r), 1);
    drop_file(&r, fd);
}

static void *
touch_all(void *arg)
{
    const struct st_guard *r = arg;
    size_t sum = 0;

    for (unsigned i = 0; i < PAGES; i++)
        sum += load(r, i * PAGE);
    return sum ? arg : NULL;
}

/* Ranges come and go on one thread while others break theirs. */
static void
threads_break_ranges_of_their_own(void **state)
{
    enum { THREADS = 4, ROUNDS = 50 };

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct st_guard r[THREADS] = {0}, mine = {0};
        pthread_t thread[THREADS];
        int fd[THREADS];
        void *rc;

        for (unsigned i = 0; i < THREADS; i++) {
            fd[i] = guard_file(&r[i]);
            assert_int_equal(ftruncate(fd[i], 0), 0);
            assert_int_equal(pthread_create(&thread[i], NULL, touch_all, &r[i]),
                             0);
        }
        for (unsigned i = 0; i < 8; i++)
            drop_file(&mine, guard_file(&mine));
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(thread[i], &rc);
            assert_null(rc);
            assert_true(st_guard_broken(&r[i]));
            drop_file(&r[i], fd[i]);
        }
    }
}

/* How a child ends that does WHAT. */
static int
child(void (*what)(void))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void
touch_unguarded(void)
{
    struct st_guard r = {0};
    int fd = guard_file(&r);

    st_guard_remove(&r);
    if (ftruncate(fd, 0) == 0)
        load(&r, 0);
}

/* The handler that was there before. */
static void
leave(int sig)
{
    _exit(sig == SIGBUS ? 42 : 1);
}

static void
install_over_handler(void)
{
    signal(SIGBUS, leave);
    if (st_guard_install() == 0)
        touch_unguarded();
}

static void
install_over_nothing(void)
{
    signal(SIGBUS, SIG_DFL);
    if (st_guard_install() == 0)
        touch_unguarded();
}

/* Before this process installs it. */
static void
other_faults_go_where_they_went(void **state)
{
    int status = child(install_over_handler);

    (void)state;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    status = child(install_over_nothing);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

int
main(void)
{
    const struct CMUnitTest before[] = {
        cmocka_unit_test(other_faults_go_where_they_went),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_cut_off_reads_zero),
        cmocka_unit_test(a_slot_is_used_again),
        cmocka_unit_test(threads_break_ranges_of_their_own),
    };
    int rc = cmocka_run_group_tests(before, NULL, NULL);

    if (st_guard_install() < 0 || st_guard_install() < 0 ||
        sigaction(SIGBUS, NULL, &guarding) < 0)
        return 1;
    return rc + cmocka_run_group_tests(tests, NULL, NULL);
}
