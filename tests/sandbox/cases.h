/* SPDX-License-Identifier: MIT
 *
 * What the files of the sandbox's test share.
 */
#ifndef CASES_H
#define CASES_H

#include <stdio.h>
#include <unistd.h>

#include "probes.h"
#include "sandbox.h"
#include "sandbox_private.h"

enum { TEST_BROKEN = 200 }; /* and above: what no probe says */

/* In a process of a test: what must hold, or the process says so and ends. */
#define must(x)                                                                \
    do {                                                                       \
        if (!(x)) {                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x);    \
            _exit(TEST_BROKEN);                                                \
        }                                                                      \
    } while (0)

/* A server that enters the sandbox. */
struct test_case {
    const char *dir, *engine, *user;
    const char *allow; /* below dir; NULL: "allowed" */
    bool off, new_loops;
    unsigned landlock;
    uint16_t port;
    struct st_log log;
    struct probe_world world;
    struct st_loop *io; /* not started */
};

extern unsigned test_passed, test_failed, test_skipped;

void test_check(bool good, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Run RUN(ARG) in a process; gives its exit status, PROBE_KILLED,
 * PROBE_ABORTED, or TEST_BROKEN and above. */
int test_spawn(void (*run)(void *arg), void *arg);

/* In a process of its own: make the domain, loops, files and sockets. */
void test_prepare(struct test_case *c);

/* ... and enter. */
int test_enter(struct test_case *c, struct st_err *err);

/* The ABI of Landlock here; 0: none. */
int test_landlock(void);

/* ---- cases.c ---- */

/* Whatever is not a probe. V is a server by threads, without --user. */
void test_cases(const struct test_case *v);

#endif
