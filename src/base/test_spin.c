/* SPDX-License-Identifier: MIT
 *
 * Spin or sleep: what a loop learns from how soon work comes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <sched.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "loop_private.h"

/* Something that comes from the kernel in a moment: no other thread has a part
 * in it, so that it comes soon on a machine with much to do, too. */
struct soon {
    struct st_watch watch;
    bool done;
};

static void
soon_ready(struct st_watch *w, unsigned events)
{
    uint64_t n;

    (void)events;
    while (read(w->fd, &n, sizeof(n)) == sizeof(n))
        st_container(w, struct soon, watch)->done = true;
}

struct late {
    struct st_timer timer;
    bool done;
};

static void
late_fired(struct st_timer *t)
{
    st_container(t, struct late, timer)->done = true;
}

static void
spinning_adapts(void **state)
{
    const struct itimerspec moment = {.it_value.tv_nsec = 5000};
    struct st_domain_opts opts = {.engine = *state, .poll_us = 50};
    struct soon s = {.watch = {.ready = soon_ready, .events = EPOLLIN}};
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_loop_impl *l;
    struct st_err err;

    assert_int_equal(st_domain_create(&opts, &domain, &err), 0);
    assert_int_equal(st_loop_create(domain, &loop, &err), 0);
    l = st_loop_impl(loop);

    /* Work every 300 us: no spin of 50 us ever finds any. */
    assert_int_equal(l->wait_ns, 0);
    while (l->wait_ns < 50000) {
        struct late late = {.timer.fire = late_fired};

        st_timer_set(loop, &late.timer, loop->now + 300000);
        assert_true(st_loop_wait(loop, &late.done));
    }
    /* Work that comes soon makes it spin again. */
    s.watch.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    assert_true(s.watch.fd >= 0);
    assert_int_equal(st_watch_add(loop, &s.watch), 0);
    while (l->wait_ns >= 25000) {
        s.done = false;
        assert_int_equal(timerfd_settime(s.watch.fd, 0, &moment, NULL), 0);
        assert_true(st_loop_wait(loop, &s.done));
    }
    st_watch_remove(loop, &s.watch);
    close(s.watch.fd);
    st_loop_destroy(loop);
    st_domain_destroy(domain);
}

static void
one_cpu_is_not_spun_on(void **state)
{
    cpu_set_t all, one;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(st_spin_us(50), CPU_COUNT(&all) > 1 ? 50 : 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &all))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(st_cpus(), 1);
    assert_int_equal(st_spin_us(50), 0);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(st_cpus(), CPU_COUNT(&all));
}

#define ON(test, engine)                                                       \
    {                                                                          \
#test " (" #engine ")", test, NULL, NULL, (void *)(uintptr_t) #engine  \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ON(spinning_adapts, auto),
        ON(spinning_adapts, threads),
        cmocka_unit_test(one_cpu_is_not_spun_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
