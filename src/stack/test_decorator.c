/* SPDX-License-Identifier: MIT
 *
 * Decorators without a disk, the groups of throttle, and disks that are opened
 * on worker threads while the home loop turns.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "stack.h"
#include "throttle.h"

static struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_stack_env *env;
} rig;

static int
setup_with(const char *engine)
{
    struct st_domain_opts o = {.engine = engine};

    assert_int_equal(st_domain_create(&o, &rig.domain, NULL), 0);
    assert_int_equal(st_loop_create(rig.domain, &rig.loop, NULL), 0);
    rig.env = st_stack_env_create();
    return rig.env ? 0 : -1;
}

static int
setup(void **state)
{
    (void)state;
    return setup_with("virtual");
}

static int
setup_threads(void **state)
{
    (void)state;
    return setup_with("threads");
}

static int
teardown(void **state)
{
    (void)state;
    st_stack_env_destroy(rig.env);
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.domain);
    return 0;
}

/* ---- Alone ---- */

static void
a_decorator_opens_without_a_disk(void **state)
{
    static const char *const rows[][2] = {
        {"delay:5", "delay"},
        {"delay:5;read=1;flush=2", "delay"},
        {"throttle:1000/1M;burst=5", "throttle"},
        {"throttle:1000;group=g", "throttle"},
        {"fault:/dev/null", "fault"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_node *n;
        struct st_err err;

        if (st_stack_decorator(rig.loop, rig.env, rows[i][0], &n, &err))
            fail_msg("%s", err.text);
        assert_string_equal(n->ops->name, rows[i][1]);
        assert_string_equal(n->label, rows[i][0]);
        assert_int_equal(n->nchild, 0);
        st_node_close(n);
    }
}

static void
what_is_no_decorator_alone_is_refused(void **state)
{
    static const struct {
        const char *text;
        int rc;
        const char *says;
    } rows[] = {
        {"delay:5:mem:1M", -EINVAL, "'delay:5:mem:1M': a disk follows"},
        {"delay:5:", -EINVAL, "expected no more than delay:<ms>"},
        {"throttle:5;group=g:mem:1M", -EINVAL, "a disk follows"},
        {"fault:/dev/null:x", -EINVAL, "a disk follows"},
        {"mem:1M", -EINVAL,
         "'mem:1M' is not a decorator, expected delay:..., "
         "throttle:..., fault:..."},
        {"memdiff:mem:1M", -EINVAL, "is not a decorator"},
        {"memdiff:", -EINVAL, "is not a decorator"},
        {"delay", -EINVAL, "'delay' is not a decorator"},
        {"/dev/null", -EINVAL, "'/dev/null' is not a decorator"},
        {"", -EINVAL, "'' is not a decorator"},
        {"nonsense:5", -EINVAL, "invalid disk kind 'nonsense'"},
        {"delay:x", -EINVAL, "'delay:x'"},
        {"delay:", -EINVAL, "'delay:'"},
        {"delay:5;on=1", -EINVAL, "unknown option 'on'"},
        {"throttle:0", -EINVAL, "neither"},
        {"fault:/no/such", -ENOENT, "/no/such"},
        {"prwrap:", -ENOTSUP, "'prwrap' is not built into this strata"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_node *n = NULL;
        struct st_err err = {""};
        int rc = st_stack_decorator(rig.loop, rig.env, rows[i].text, &n, &err);

        if (rc != rows[i].rc || n || !strstr(err.text, rows[i].says))
            fail_msg("'%s': %d, '%s' does not say '%s'", rows[i].text, rc,
                     err.text, rows[i].says);
    }
}

/* ---- Groups ---- */

static struct st_node *
opened(const char *spec)
{
    struct st_node *n;
    struct st_err err;

    if (st_stack_open(rig.loop, rig.env, spec, false, &n, &err))
        fail_msg("%s", err.text);
    return n;
}

static struct st_node *
decorator(const char *text)
{
    struct st_node *n;
    struct st_err err;

    if (st_stack_decorator(rig.loop, rig.env, text, &n, &err))
        fail_msg("%s", err.text);
    return n;
}

static void
refuses(const char *spec, const char *says)
{
    struct st_node *n;
    struct st_err err = {""};

    assert_int_equal(st_stack_open(rig.loop, rig.env, spec, false, &n, &err),
                     -EINVAL);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void
throttles_of_one_group_share(void **state)
{
    struct st_node *a = opened("throttle:100;group=g:mem:1M");
    struct st_node *b = opened("delay:1:throttle:100;group=g:mem:1M");
    struct st_node *c = decorator("throttle:100;group=g");
    struct st_node *other = opened("throttle:100;group=h:mem:1M");
    struct st_node *alone = opened("throttle:100:mem:1M");

    (void)state;
    assert_int_equal(st_throttle_members(a), 3);
    assert_int_equal(st_throttle_members(b->child[0]), 3);
    assert_int_equal(st_throttle_members(c), 3);
    assert_int_equal(st_throttle_members(other), 1);
    assert_int_equal(st_throttle_members(alone), 1);
    st_node_close(a); /* the first one: the others go on */
    assert_int_equal(st_throttle_members(c), 2);
    a = opened("throttle:100;group=g:mem:1M");
    assert_int_equal(st_throttle_members(c), 3);
    st_node_close(a);
    st_node_close(b);
    st_node_close(c);
    st_node_close(other);
    st_node_close(alone);
}

static void
the_limits_of_a_group_agree(void **state)
{
    struct st_node *a = opened("throttle:100/1M;burst=50;group=g:mem:1M"), *b;

    (void)state;
    refuses("throttle:101/1M;group=g:mem:1M", "its group has other limits, "
                                              "throttle:100/1M;burst=50");
    refuses("throttle:100;group=g:mem:1M", "other limits");
    refuses("throttle:100/2M;group=g:mem:1M", "other limits");
    refuses("throttle:100/1M;burst=51;group=g:mem:1M", "other limits");
    b = opened("throttle:100/1M;group=g:mem:1M"); /* any burst will do */
    assert_int_equal(st_throttle_members(a), 2);
    st_node_close(b);
    b = opened("throttle:100/1M;burst=50;group=g:mem:1M");
    st_node_close(b);
    st_node_close(a);
}

static void
a_name_whose_last_member_left_is_free(void **state)
{
    struct st_node *a = opened("throttle:100;group=g:mem:1M");
    struct st_node *b = opened("throttle:100;group=g:mem:1M");

    (void)state;
    st_node_close(a);
    refuses("throttle:7;group=g:mem:1M", "other limits");
    st_node_close(b);
    a = opened("throttle:7;group=g:mem:1M");
    assert_int_equal(st_throttle_members(a), 1);
    st_node_close(a);
    /* A member that failed to open holds nothing. */
    refuses("throttle:5;group=g:mem:0", "'mem:0'");
    a = opened("throttle:9;group=g:mem:1M");
    st_node_close(a);
}

/* ---- On workers ---- */

struct opening {
    struct st_job job;
    struct st_node *node;
    struct st_err err;
    int rc;
    unsigned *left;
    bool *done;
};

static void
open_work(struct st_job *j)
{
    struct opening *o = st_container(j, struct opening, job);

    o->rc = st_stack_open(rig.loop, rig.env,
                          "throttle:100;group=g:memdiff:delay:1:mem:1M", false,
                          &o->node, &o->err);
}

static void
open_done(struct st_job *j)
{
    struct opening *o = st_container(j, struct opening, job);

    *o->done = --*o->left == 0;
}

static void
workers_open_disks_at_once(void **state)
{
    enum { N = 8, ROUNDS = 20 };
    struct opening o[N];

    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned left = N;
        bool done = false;

        for (unsigned i = 0; i < N; i++) {
            o[i] =
                (struct opening){.job = {.work = open_work, .done = open_done},
                                 .left = &left,
                                 .done = &done};
            st_job_start(rig.loop, &o[i].job);
        }
        assert_true(st_loop_wait(rig.loop, &done));
        for (unsigned i = 0; i < N; i++) {
            if (o[i].rc)
                fail_msg("%s", o[i].err.text);
            assert_int_equal(st_throttle_members(o[i].node), N - i);
            st_node_close(o[i].node);
        }
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_decorator_opens_without_a_disk),
        TEST(what_is_no_decorator_alone_is_refused),
        TEST(throttles_of_one_group_share),
        TEST(the_limits_of_a_group_agree),
        TEST(a_name_whose_last_member_left_is_free),
        cmocka_unit_test_setup_teardown(workers_open_disks_at_once,
                                        setup_threads, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
