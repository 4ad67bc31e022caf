/* SPDX-License-Identifier: MIT
 *
 * Loops: order of tasks, end tasks, timers, posts between threads, deferred
 * frees, the worker pool, sleep; in real and virtual domains.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "loop_private.h"

struct world {
    struct st_domain *d;
    struct st_loop *l;
};

static struct world
world_open(const char *engine, unsigned poll_us, uint64_t seed)
{
    struct st_domain_opts opts = {
        .engine = engine, .poll_us = poll_us, .seed = seed};
    struct st_err err = {""};
    struct world w;

    if (st_domain_create(&opts, &w.d, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(st_loop_create(w.d, &w.l, &err), 0);
    return w;
}

static void
world_close(struct world w)
{
    st_loop_destroy(w.l);
    st_domain_destroy(w.d);
}

/* A task that writes its name into a text. */
struct say {
    struct st_task task;
    struct st_loop *l;
    char *text;
    char name;
    bool *done;
    struct st_task *then, *at_end;
};

static void
say(struct st_task *t)
{
    struct say *s = st_container(t, struct say, task);

    strncat(s->text, &s->name, 1);
    if (s->then)
        st_ready(s->l, s->then);
    if (s->at_end)
        st_at_end(s->l, s->at_end);
    if (s->done)
        *s->done = true;
}

static void
tasks_run_in_order_and_end_tasks_last(void **state)
{
    struct world w = world_open(*state, 0, 1);
    char text[16] = "";
    bool done = false;
    struct say e = {{.run = say}, w.l, text, 'e', &done, NULL, NULL};
    struct say c = {{.run = say}, w.l, text, 'c', NULL, NULL, NULL};
    struct say b = {{.run = say}, w.l, text, 'b', NULL, NULL, NULL};
    struct say a = {{.run = say}, w.l, text, 'a', NULL, &c.task, &e.task};

    st_ready(w.l, &a.task);
    st_ready(w.l, &b.task);
    assert_true(st_loop_wait(w.l, &done));
    /* A virtual turn is one round, so there the end task comes earlier. */
    if (st_domain_is_virtual(w.d))
        while (st_domain_step(w.d))
            ;
    assert_string_equal(text, st_domain_is_virtual(w.d) ? "abec" : "abce");
    world_close(w);
}

/* Takes back B, and F, which is ready for the next round. */
struct retractor {
    struct say a;
    struct st_task *later, *same;
};

static void
retract(struct st_task *t)
{
    struct retractor *r = st_container(t, struct retractor, a.task);

    st_ready(r->a.l, r->later);
    say(t);
    st_retract(r->a.l, r->same);
    st_retract(r->a.l, r->later);
    st_retract(r->a.l, r->later); /* harmless */
}

static void
a_task_that_is_taken_back_does_not_run(void **state)
{
    struct world w = world_open(*state, 0, 1);
    char text[16] = "";
    bool done = false;
    struct say b = {{.run = say}, w.l, text, 'b', NULL, NULL, NULL};
    struct say c = {{.run = say}, w.l, text, 'c', NULL, NULL, NULL};
    struct say d = {{.run = say}, w.l, text, 'd', &done, NULL, NULL};
    struct say f = {{.run = say}, w.l, text, 'f', NULL, NULL, NULL};
    struct retractor a = {
        {{.run = retract}, w.l, text, 'a', NULL, &d.task, NULL},
        &f.task,
        &b.task};

    st_ready(w.l, &a.a.task);
    st_ready(w.l, &b.task);
    st_ready(w.l, &c.task);
    assert_true(st_loop_wait(w.l, &done));
    assert_string_equal(text, "acd");
    world_close(w);
}

/* ---- Timers ---- */

struct clock_say {
    struct st_timer timer;
    struct st_loop *l;
    char *text;
    char name;
    bool *done;
    uint64_t fired;
};

static void
clock_say(struct st_timer *t)
{
    struct clock_say *s = st_container(t, struct clock_say, timer);

    assert_true(s->l->now >= t->at);
    assert_int_equal(t->slot, 0);
    s->fired = s->l->now;
    strncat(s->text, &s->name, 1);
    if (s->done)
        *s->done = true;
}

static void
timers_fire_in_order_stop_and_move(void **state)
{
    struct world w = world_open(*state, 50, 1);
    char text[16] = "";
    bool done = false;
    struct clock_say t[5];
    uint64_t now = w.l->now;

    for (int i = 0; i < 5; i++)
        t[i] = (struct clock_say){.timer.fire = clock_say,
                                  .l = w.l,
                                  .text = text,
                                  .name = (char)('a' + i)};
    t[4].done = &done;
    st_timer_set(w.l, &t[4].timer, now + 5000000);
    st_timer_set(w.l, &t[2].timer, now + 3000000);
    st_timer_set(w.l, &t[1].timer, now + 9000000000000);
    st_timer_set(w.l, &t[3].timer, now + 2000000);
    st_timer_set(w.l, &t[0].timer, now);
    st_timer_stop(w.l, &t[3].timer);
    st_timer_stop(w.l, &t[3].timer);
    st_timer_set(w.l, &t[1].timer, now + 4000000); /* moved nearer */
    st_timer_set(w.l, &t[2].timer, now + 4500000); /* moved away */
    assert_true(st_loop_wait(w.l, &done));
    assert_string_equal(text, "abce");
    if (st_domain_is_virtual(w.d))
        assert_true(t[4].fired == now + 5000000);
    world_close(w);
}

static void
many_timers_fire_sorted(void **state)
{
    enum { N = 1000 };
    static struct clock_say t[N];
    struct world w = world_open("virtual", 0, 1);
    char text[2] = "";
    uint64_t last = 0, seed = 1;

    (void)state;
    for (int i = 0; i < N; i++) {
        seed = seed * 6364136223846793005u + 1;
        t[i] =
            (struct clock_say){.timer.fire = clock_say, .l = w.l, .text = text};
        st_timer_set(w.l, &t[i].timer, w.l->now + (seed >> 40));
    }
    for (int i = 0; i < N; i += 3)
        st_timer_stop(w.l, &t[i].timer);
    while (st_domain_step(w.d)) {
        assert_true(w.l->now >= last);
        last = w.l->now;
    }
    for (int i = 0; i < N; i++)
        assert_true(i % 3 ? t[i].fired == t[i].timer.at : !t[i].fired);
    world_close(w);
}

/* ---- Posts ---- */

enum { SENDERS = 4, MESSAGES = 25000 };

struct message {
    struct st_task task;
    struct inbox *in;
    unsigned sender, number;
};

struct inbox {
    struct st_loop *l;
    unsigned next[SENDERS], total;
    bool in_order, done;
};

static void
message_run(struct st_task *t)
{
    struct message *m = st_container(t, struct message, task);
    struct inbox *in = m->in;

    if (m->number != in->next[m->sender]++)
        in->in_order = false;
    if (++in->total == SENDERS * MESSAGES)
        in->done = true;
}

static void *
sender_main(void *arg)
{
    struct message *m = arg;

    for (unsigned i = 0; i < MESSAGES; i++) {
        m[i].number = i;
        st_post(m[i].in->l, &m[i].task);
        if (i % 1000 == 0) /* let it fall asleep now and then */
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

static void
posts_arrive_in_each_senders_order(void **state)
{
    struct world w = world_open(*state, 5, 0);
    struct inbox in = {.l = w.l, .in_order = true};
    struct message *m = calloc(SENDERS * MESSAGES, sizeof(*m));
    pthread_t t[SENDERS];

    assert_non_null(m);
    for (unsigned i = 0; i < SENDERS * MESSAGES; i++)
        m[i] = (struct message){{.run = message_run}, &in, i / MESSAGES, 0};
    for (unsigned s = 0; s < SENDERS; s++)
        assert_int_equal(
            pthread_create(&t[s], NULL, sender_main, m + s * MESSAGES), 0);
    assert_true(st_loop_wait(w.l, &in.done));
    for (unsigned s = 0; s < SENDERS; s++)
        pthread_join(t[s], NULL);
    assert_true(in.in_order);
    free(m);
    world_close(w);
}

/* Run a function on a loop's thread and wait for it on another loop. */
struct errand {
    struct st_task task;
    void (*fn)(struct errand *e);
    struct st_loop *home;
    bool done;
    void *arg;
};

static void
errand_back(struct st_task *t)
{
    st_container(t, struct errand, task)->done = true;
}

static void
errand_there(struct st_task *t)
{
    struct errand *e = st_container(t, struct errand, task);

    e->fn(e);
    t->run = errand_back;
    st_post(e->home, t);
}

static void
errand(struct st_loop *home, struct st_loop *there, void (*fn)(struct errand *),
       void *arg)
{
    struct errand e = {{.run = errand_there}, fn, home, false, arg};

    st_post(there, &e.task);
    assert_true(st_loop_wait(home, &e.done));
}

static void
am_i_here(struct errand *e)
{
    struct st_loop **l = e->arg;

    assert_true(st_loop_here(l[1]));
    assert_true(st_domain_is_virtual(l[0]->domain) || !st_loop_here(l[0]));
}

static void
a_loop_runs_on_its_own_thread(void **state)
{
    struct world w = world_open(*state, 50, 3);
    struct st_loop *other, *again;

    assert_int_equal(st_loop_create(w.d, &other, NULL), 0);
    assert_int_equal(other->index, 1);
    assert_int_equal(st_loop_start(other, "other"), 0);
    for (int i = 0; i < 1000; i++)
        errand(w.l, other, am_i_here, (struct st_loop *[]){w.l, other});
    st_loop_join(other);
    st_loop_destroy(other);
    assert_int_equal(st_loop_create(w.d, &again, NULL), 0);
    assert_int_equal(again->index, 1);
    st_loop_destroy(again);
    world_close(w);
}

static void
nothing(struct errand *e)
{
    (void)e;
}

/* ---- Sleep ---- */

static void
switches(struct errand *e)
{
    struct rusage ru;

    getrusage(RUSAGE_THREAD, &ru);
    *(long *)e->arg = ru.ru_nvcsw;
}

static void
an_idle_loop_does_not_wake(void **state)
{
    struct world w = world_open(*state, 50, 0);
    struct st_loop *other;
    long before, after;

    assert_int_equal(st_loop_create(w.d, &other, NULL), 0);
    assert_int_equal(st_loop_start(other, "idle"), 0);
    errand(w.l, other, switches, &before);
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    errand(w.l, other, switches, &after);
    /* The one sleep from which the second errand woke it. */
    assert_in_range(after - before, 0, 1);
    st_loop_join(other);
    st_loop_destroy(other);
    world_close(w);
}

/* ---- Deferred frees ---- */

struct table {
    struct st_deferred defer;
    struct st_loop *l;
    int value; /* 0 once freed */
};

/* A reader loop that looks at the shared table in every turn. */
struct reader {
    struct st_task task;
    struct st_loop *l;
    _Atomic(struct table *) *shared;
    bool stop, bad;
};

static void
reader_turn(struct st_task *t)
{
    struct reader *r = st_container(t, struct reader, task);
    struct table *tab = *r->shared;

    for (int i = 0; i < 20; i++)
        if (tab->value != 1)
            r->bad = true;
    if (!r->stop)
        st_ready(r->l, t);
}

static unsigned freed;

static void
table_free(struct st_deferred *d)
{
    struct table *t = st_container(d, struct table, defer);

    assert_true(st_loop_here(t->l));
    t->value = 0;
    freed++;
    free(t);
}

static struct table *
table_new(struct st_loop *l)
{
    struct table *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    t->l = l;
    t->value = 1;
    return t;
}

static void
reader_start(struct errand *e)
{
    struct reader *r = e->arg;

    st_ready(r->l, &r->task);
}

static void
reader_stop(struct errand *e)
{
    ((struct reader *)e->arg)->stop = true;
}

static void
deferred_memory_outlives_its_readers(void **state)
{
    enum { ROUNDS = 2000 };
    struct world w = world_open(*state, 5, 9);
    _Atomic(struct table *) shared = table_new(w.l);
    struct st_loop *other;
    struct reader r = {.task.run = reader_turn, .shared = &shared};

    freed = 0;
    assert_int_equal(st_loop_create(w.d, &other, NULL), 0);
    assert_int_equal(st_loop_start(other, "reader"), 0);
    r.l = other;
    errand(w.l, other, reader_start, &r);
    for (int i = 0; i < ROUNDS; i++) {
        struct table *old = atomic_exchange(&shared, table_new(w.l));

        st_defer(w.l, &old->defer, table_free);
        if (i % 16 == 0)
            errand(w.l, other, nothing, NULL);
    }
    errand(w.l, other, reader_stop, &r);
    errand(w.l, other, nothing, NULL); /* behind its last look */
    st_loop_join(other);
    assert_false(r.bad);
    st_loop_destroy(other);
    /* With the others gone, our own turns are enough. */
    for (int i = 0; i < 10; i++)
        errand(w.l, w.l, nothing, NULL);
    assert_int_equal(freed, ROUNDS);
    free(shared);
    world_close(w);
}

static void
block_until(struct errand *e)
{
    atomic_bool *go = e->arg;

    while (!atomic_load(go))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void
deferred_memory_waits_for_a_turn_in_progress(void **state)
{
    struct world w = world_open(*state, 5, 0);
    struct table *t = table_new(w.l);
    struct st_loop *other;
    atomic_bool go = false;
    struct errand e = {{.run = errand_there}, block_until, w.l, false, &go};

    freed = 0;
    assert_int_equal(st_loop_create(w.d, &other, NULL), 0);
    assert_int_equal(st_loop_start(other, "blocked"), 0);
    errand(w.l, other, nothing, NULL);
    st_post(other, &e.task);
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    st_defer(w.l, &t->defer, table_free);
    for (int i = 0; i < 100; i++)
        errand(w.l, w.l, nothing, NULL);
    assert_int_equal(freed, 0);
    atomic_store(&go, true);
    assert_true(st_loop_wait(w.l, &e.done));
    st_loop_join(other);
    for (int i = 0; i < 10; i++)
        errand(w.l, w.l, nothing, NULL);
    assert_int_equal(freed, 1);
    st_loop_destroy(other);
    world_close(w);
}

/* ---- Jobs ---- */

struct work {
    struct st_job job;
    struct st_loop *l;
    atomic_bool *go; /* to hang until */
    unsigned *left;
    bool *done;
    int result;
};

static void
work_do(struct st_job *j)
{
    struct work *w = st_container(j, struct work, job);

    while (w->go && !atomic_load(w->go))
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    w->result = 42;
}

static void
work_done(struct st_job *j)
{
    struct work *w = st_container(j, struct work, job);

    assert_true(st_loop_here(w->l));
    assert_int_equal(w->result, 42);
    if (--*w->left == 0)
        *w->done = true;
}

static void
jobs_pass_a_hung_one(void **state)
{
    enum { N = 500 };
    static struct work job[N + 1];
    struct world w = world_open(*state, 50, 5);
    bool virtual = st_domain_is_virtual(w.d), done = false;
    unsigned left = N, hung_left = 1;
    bool hung_done = false;
    atomic_bool go = virtual;

    job[N] = (struct work){{.work = work_do, .done = work_done},
                           w.l,
                           &go,
                           &hung_left,
                           &hung_done,
                           0};
    st_job_start(w.l, &job[N].job);
    for (int i = 0; i < N; i++) {
        job[i] = (struct work){
            {.work = work_do, .done = work_done}, w.l, NULL, &left, &done, 0};
        st_job_start(w.l, &job[i].job);
    }
    assert_true(st_loop_wait(w.l, &done));
    assert_true(virtual || !hung_done);
    atomic_store(&go, true);
    assert_true(st_loop_wait(w.l, &hung_done));
    assert_true(st_domain_caps(w.d)->row[ST_CAP_WORKERS].peak <= 64);
    world_close(w);
}

/* ---- Virtual domains ---- */

static void
seeds_choose_and_repeat_the_order(void **state)
{
    char text[8][16] = {""};
    unsigned differ = 0;

    (void)state;
    for (int i = 0; i < 8; i++) {
        struct world w = world_open("virtual", 0, (uint64_t)(i / 2));
        struct st_loop *l[4];
        struct say s[12];

        for (int k = 0; k < 4; k++)
            assert_int_equal(st_loop_create(w.d, &l[k], NULL), 0);
        for (int k = 0; k < 12; k++) {
            s[k] = (struct say){{.run = say}, l[k % 4],
                                text[i],      (char)('a' + k),
                                NULL,         k < 8 ? &s[k + 4].task : NULL,
                                NULL};
            if (k < 4)
                st_post(l[k], &s[k].task);
        }
        while (st_domain_step(w.d))
            ;
        assert_int_equal(strlen(text[i]), 12);
        if (i % 2)
            assert_string_equal(text[i], text[i - 1]);
        else
            differ += i && strcmp(text[i], text[i - 1]) != 0;
        for (int k = 0; k < 4; k++)
            st_loop_destroy(l[k]);
        world_close(w);
    }
    assert_true(differ > 0);
}

static void
waiting_for_nothing_ends_in_a_virtual_domain(void **state)
{
    struct world w = world_open("virtual", 0, 1);
    bool never = false;

    (void)state;
    assert_false(st_loop_wait(w.l, &never));
    world_close(w);
}

struct lodger {
    struct st_resident resident;
    struct st_loop *home;
    struct st_task task;
};

static unsigned lodgers_ended;

static void
lodger_ends(struct st_resident *r)
{
    struct lodger *l = (struct lodger *)r;

    st_retract(l->home, &l->task); /* it may still have posted something */
    lodgers_ended++;
    free(l);
}

static struct st_resident *
lodger_make(struct st_loop *l)
{
    struct lodger *n = calloc(1, sizeof(*n));

    assert_non_null(n);
    n->resident.end = lodger_ends;
    n->home = l;
    st_post(l, &n->task);
    return &n->resident;
}

static struct st_resident *
no_lodger(struct st_loop *l)
{
    (void)l;
    return NULL;
}

static void
residents_are_shared_and_end_with_the_loop(void **state)
{
    static const char key[2];
    struct world w = world_open(*state, 0, 1);
    struct st_resident *a = st_loop_resident(w.l, &key[0], lodger_make);
    struct st_resident *b;

    lodgers_ended = 0;
    assert_non_null(a);
    assert_null(st_loop_resident(w.l, &key[1], no_lodger));
    b = st_loop_resident(w.l, &key[1], lodger_make);
    assert_true(b && b != a);
    assert_ptr_equal(st_loop_resident(w.l, &key[0], no_lodger), a);
    st_loop_destroy(w.l);
    assert_int_equal(lodgers_ended, 2);
    /* The loop may be used again, without them. */
    assert_int_equal(st_loop_create(w.d, &w.l, NULL), 0);
    assert_null(st_loop_resident(w.l, &key[0], no_lodger));
    world_close(w);
    assert_int_equal(lodgers_ended, 2);
}

static void
unknown_engines_are_refused(void **state)
{
    struct st_domain_opts opts = {.engine = "steam"};
    struct st_domain *d;
    struct st_err err;

    (void)state;
    assert_int_equal(st_domain_create(&opts, &d, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'steam'"));
}

#define ON(test, eng)                                                          \
    {                                                                          \
#test " (" #eng ")", test, NULL, NULL, name_##eng                      \
    }

static char name_auto[] = "auto", name_threads[] = "threads",
            name_virtual[] = "virtual";

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ON(tasks_run_in_order_and_end_tasks_last, auto),
        ON(tasks_run_in_order_and_end_tasks_last, threads),
        ON(tasks_run_in_order_and_end_tasks_last, virtual),
        ON(a_task_that_is_taken_back_does_not_run, auto),
        ON(a_task_that_is_taken_back_does_not_run, threads),
        ON(a_task_that_is_taken_back_does_not_run, virtual),
        ON(timers_fire_in_order_stop_and_move, auto),
        ON(timers_fire_in_order_stop_and_move, threads),
        ON(timers_fire_in_order_stop_and_move, virtual),
        cmocka_unit_test(many_timers_fire_sorted),
        ON(posts_arrive_in_each_senders_order, auto),
        ON(posts_arrive_in_each_senders_order, threads),
        ON(a_loop_runs_on_its_own_thread, auto),
        ON(a_loop_runs_on_its_own_thread, threads),
        ON(a_loop_runs_on_its_own_thread, virtual),
        ON(an_idle_loop_does_not_wake, auto),
        ON(an_idle_loop_does_not_wake, threads),
        ON(deferred_memory_outlives_its_readers, auto),
        ON(deferred_memory_outlives_its_readers, threads),
        ON(deferred_memory_outlives_its_readers, virtual),
        ON(deferred_memory_waits_for_a_turn_in_progress, auto),
        ON(deferred_memory_waits_for_a_turn_in_progress, threads),
        ON(jobs_pass_a_hung_one, auto),
        ON(jobs_pass_a_hung_one, threads),
        ON(jobs_pass_a_hung_one, virtual),
        ON(residents_are_shared_and_end_with_the_loop, auto),
        ON(residents_are_shared_and_end_with_the_loop, threads),
        ON(residents_are_shared_and_end_with_the_loop, virtual),
        cmocka_unit_test(seeds_choose_and_repeat_the_order),
        cmocka_unit_test(waiting_for_nothing_ends_in_a_virtual_domain),
        cmocka_unit_test(unknown_engines_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
