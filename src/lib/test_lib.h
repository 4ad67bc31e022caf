/* SPDX-License-Identifier: MIT
 *
 * What the tests of libstrata share. They use the public face alone.
 */
#ifndef ST_TEST_LIB_H
#define ST_TEST_LIB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include <strata/strata.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define MIB(n) ((uint64_t)(n) << 20)

static inline struct strata *
context(unsigned threads, const char *engine)
{
    const struct strata_options o = {
        .size = sizeof(o), .threads = threads, .engine = engine};
    struct strata_error err = {""};
    struct strata *s = NULL;

    if (strata_open(&o, &s, &err) < 0)
        fail_msg("%s", err.text);
    return s;
}

static inline struct strata_disk *
disk(struct strata *s, const char *spec)
{
    struct strata_error err = {""};
    struct strata_disk *d = NULL;

    if (strata_disk_open(s, spec, NULL, &d, &err) < 0)
        fail_msg("%s", err.text);
    return d;
}

/* A test's state is a context with two I/O threads. */
static inline int
setup(void **state)
{
    *state = context(2, NULL);
    return 0;
}

static inline int
teardown(void **state)
{
    assert_int_equal(strata_close(*state), 0);
    return 0;
}

#define T(f)                                                                   \
    {                                                                          \
#f, f, setup, teardown, NULL                                           \
    }

/* ---- Requests that tell when they are done ---- */

struct waiter {
    sem_t sem;
    _Atomic unsigned done;
};

static inline void
waiter_done(struct strata_request *r, void *arg)
{
    struct waiter *w = arg;

    (void)r;
    atomic_fetch_add(&w->done, 1);
    sem_post(&w->sem);
}

static inline void
waiter_init(struct waiter *w)
{
    atomic_store(&w->done, 0);
    sem_init(&w->sem, 0, 0);
}

static inline void
waiter_wait(struct waiter *w)
{
    while (sem_wait(&w->sem) < 0)
        ;
}

static inline enum strata_status
status_of(struct strata_request *r)
{
    struct strata_result res = {.size = sizeof(res)};

    assert_int_equal(strata_request_result(r, &res), 0);
    return res.status;
}

#endif
