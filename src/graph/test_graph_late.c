/* SPDX-License-Identifier: MIT
 *
 * Edits that are not done in time, nor wanted any more: deadlines, requests
 * and files that never come back, abandon, and the stop in the middle of it.
 */
#include "test_rig.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int
setup(void **state)
{
    *state = rig_open("virtual", 1);
    return 0;
}

static int
setup_threads(void **state)
{
    *state = rig_open("threads", 1);
    return 0;
}

static int
teardown(void **state)
{
    rig_close(*state);
    return 0;
}

/* Let everything happen that can. */
static void
settle(struct rig *r)
{
    while (st_domain_step(r->domain))
        ;
}

/* A disk "a" with a write that does not come back. */
static void
hang_a(struct rig *r, struct io *io)
{
    must(r, "add-export", "a", "delay:0:test:");
    st_testnode_hang(r->node, true);
    io_write(r, io, "a");
}

static void
unhang(struct rig *r, struct io *io)
{
    st_testnode_hang(r->node, false);
    assert_int_equal(io_end(r, io), ST_OK);
}

/* ---- Requests that do not come back ---- */

static void
a_drain_that_does_not_end_changes_nothing(void **state)
{
    static const char *const edits[][2] = {
        {"pause", NULL},
        {"insert", "throttle:9"},
        {"remove", "delay"},
        {"resize", "512K"},
    };
    struct rig *r = *state;
    struct io io, other;

    hang_a(r, &io);
    for (unsigned i = 0; i < 4; i++) {
        struct edit x;
        uint64_t before = r->control->now;

        edit_start(r, &x, 100 * MS, edits[i][0], "a", edits[i][1], NULL, NULL);
        assert_int_equal(edit_wait(&x), -ETIMEDOUT);
        assert_non_null(strstr(r->err.text, "1 requests did not come back"));
        assert_in_range(r->control->now - before, 100 * MS, 200 * MS);
        assert_false(disk(r, "a")->paused);
        has_shape(r, "a", "delay(testmem)");
        assert_int_equal(st_disk_size(disk(r, "a")->disk), MIB);
    }
    /* The gate is open: one more comes as far as the first. */
    io_write(r, &other, "a");
    settle(r);
    assert_int_equal(st_testnode_held(r->node), 2);
    unhang(r, &io);
    assert_int_equal(io_end(r, &other), ST_OK);
    must(r, "pause", "a", NULL);
}

static void
a_hung_child_is_left_by_rules_too(void **state)
{
    struct rig *r = *state;
    char path[] = "/tmp/graph-rules-XXXXXX", spec[64];
    int fd = mkstemp(path);
    struct edit x;
    struct io io;

    assert_int_equal(write(fd, "write * hang\n", 13), 13);
    close(fd);
    snprintf(spec, sizeof(spec), "fault:%s:mem:1M", path);
    must(r, "add-export", "a", spec);
    io_write(r, &io, "a");
    edit_start(r, &x, 100 * MS, "insert", "a", "delay:1", NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    has_shape(r, "a", "fault(ram)");
    assert_false(io.done);
    st_cancel(io.req);
    assert_int_equal(io_end(r, &io), ST_ABORTED);
    must(r, "insert", "a", "delay:1");
    unlink(path);
}

static void
who_waits_too_long_for_its_turn_is_not_carried_out(void **state)
{
    struct rig *r = *state;
    struct edit x, y, z;
    struct io io;

    hang_a(r, &io);
    edit_start(r, &x, GRAPH_S, "pause", "a", NULL, NULL, NULL);
    edit_start(r, &y, 10 * MS, "policy", "a", "stop", NULL, NULL);
    edit_start(r, &z, 0, "policy", "a", "retry", NULL, NULL);
    assert_int_equal(edit_wait(&y), -ETIMEDOUT);
    assert_non_null(strstr(r->err.text, "did not get its turn within 0.01 s"));
    assert_false(x.done || z.done);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_int_equal(edit_wait(&z), 0);
    assert_int_equal(st_disk_policy(disk(r, "a")->disk), ST_POLICY_RETRY);
    unhang(r, &io);
}

/* The backend shrank, and the root waits for ever to say so: whatever comes
 * behind it at this disk cannot even start. */
static void
block_disk(struct rig *r, struct io *io)
{
    hang_a(r, io);
    must(r, "add-export", "b", "mem:1M");
    assert_int_equal(st_testnode_set_size(
                         st_disk_node(disk(r, "a")->disk)->child[0], MIB / 2),
                     0);
    settle(r);
}

static void
a_late_insertion_is_undone(void **state)
{
    struct rig *r = *state;
    struct edit x;
    struct io io;

    block_disk(r, &io);
    edit_start(r, &x, GRAPH_S, "insert", "a", "throttle:9;group=g", NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_non_null(
        strstr(r->err.text, "insert: not done within 1 s, it will be undone"));
    /* Nobody else waits for it, but for edits of the same disk. */
    must(r, "insert", "b", "throttle:9;group=g");
    refused(r, -EBUSY, "timed out is still under way", "pause", "a", NULL);
    refused(r, -EBUSY, "timed out", "set", "disks/a/policy", "stop");
    refused(r, -EBUSY, "timed out", "remove-export", "a", NULL);
    st_testnode_hang(st_disk_node(disk(r, "a")->disk)->child[0], false);
    assert_int_equal(io_end(r, &io), ST_OK);
    settle(r);
    has_shape(r, "a", "delay(testmem)");
    assert_int_equal(r->graph->nops, 0);
    must(r, "insert", "a", "delay:1");
    has_shape(r, "a", "delay(delay(testmem))");
}

static void
a_late_pause_is_undone_and_a_late_resume_goes_on(void **state)
{
    struct rig *r = *state;
    struct edit x;
    struct io io, other;

    block_disk(r, &io);
    edit_start(r, &x, GRAPH_S, "pause", "a", NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    st_testnode_hang(st_disk_node(disk(r, "a")->disk)->child[0], false);
    assert_int_equal(io_end(r, &io), ST_OK);
    settle(r);
    assert_false(disk(r, "a")->paused);
    io_write(r, &other, "a");
    assert_int_equal(io_end(r, &other), ST_OK);
    /* The other way round. */
    graph_find_disk(r->graph, "a")->pub.paused = true;
    st_testnode_hang(st_disk_node(disk(r, "a")->disk)->child[0], true);
    io_write(r, &io, "a");
    assert_int_equal(
        st_testnode_set_size(st_disk_node(disk(r, "a")->disk)->child[0], 4096),
        0);
    settle(r);
    edit_start(r, &x, GRAPH_S, "resume", "a", NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_non_null(strstr(r->err.text, "it goes on by itself"));
    st_testnode_hang(st_disk_node(disk(r, "a")->disk)->child[0], false);
    assert_int_equal(io_end(r, &io), ST_OK);
    settle(r);
    assert_false(disk(r, "a")->paused);
    assert_int_equal(r->graph->nops, 0);
}

static void
a_disk_that_does_not_flush_is_leaving(void **state)
{
    struct rig *r = *state;
    struct edit x;

    must(r, "add-export", "a", "test:");
    st_testnode_hang(r->node, true);
    edit_start(r, &x, 8 * GRAPH_S, "remove-export", "a", NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    has_disks(r, "[a]");
    assert_null(st_graph_find_disk(r->graph, "a"));
    refused(r, -ENOENT, "no disk", "pause", "a", NULL);
    refused(r, -ENOENT, "no export", "remove-export", "a", NULL);
    refused(r, -EEXIST, "still leaving", "add-export", "a", "mem:1M");
    must(r, "add-export", "b", "mem:1M");
    st_testnode_hang(r->node, false);
    settle(r);
    has_disks(r, "b");
    must(r, "add-export", "a", "mem:1M");
}

/* ---- Files that do not open ---- */

struct flag {
    struct st_timer timer;
    bool done;
};

static void
raise_flag(struct st_timer *t)
{
    st_container(t, struct flag, timer)->done = true;
}

/* Turn the control loop for a millisecond. */
static void
turn(struct rig *r)
{
    struct flag f = {.timer.fire = raise_flag};

    st_timer_set(r->control, &f.timer, r->control->now + MS);
    assert_true(st_loop_wait(r->control, &f.done));
}

static void
wait_until_held(struct rig *r)
{
    bool held = false;

    while (!held) {
        turn(r);
        pthread_mutex_lock(&r->lock);
        held = r->held;
        pthread_mutex_unlock(&r->lock);
    }
}

/* Until X is what is being done. */
static void
wait_for_start(struct rig *r, struct edit *x)
{
    while (r->graph->current != &x->e || !x->e.job)
        turn(r);
}

static void
wait_for_ops(struct rig *r)
{
    while (r->graph->nops)
        turn(r);
}

static void
a_disk_that_opens_too_late_is_closed(void **state)
{
    struct rig *r = *state;
    struct edit x, y;

    rig_hold(r, true);
    edit_start(r, &x, 0, "add-export", "a", "test:", NULL, NULL);
    edit_start(r, &y, 0, "add-export", "a", "memdiff:test:", NULL, NULL);
    wait_until_held(r);
    edit_expire(&x);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_non_null(strstr(x.e.err.text, "will be closed again"));
    wait_for_start(r, &y);
    edit_expire(&y);
    assert_int_equal(edit_wait(&y), -ETIMEDOUT); /* opens in vain as well */
    must(r, "add-export", "a", "mem:1M");        /* the name was never taken */
    must(r, "insert", "a", "delay:0");
    assert_int_equal(r->graph->nops, 2);
    rig_hold(r, false);
    wait_for_ops(r);
    has_disks(r, "a");
    assert_int_equal(atomic_load(&rig_live), 0);
    must(r, "add-export", "b", "test:");
}

static void
a_disk_is_closed_on_a_worker(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a", "test:");
    must(r, "remove-export", "a", NULL);
    assert_int_equal(atomic_load(&rig_live), 0);
    assert_false(pthread_equal(rig_closer, pthread_self()));
}

static void
a_decorator_that_opens_too_late_is_closed(void **state)
{
    char dir[] = "/tmp/graph-XXXXXX", path[40], text[48];
    struct rig *r = *state;
    struct edit x;
    int fd;

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(text, sizeof(text), "fault:%s", path);
    must(r, "add-export", "a", "mem:1M");
    edit_start(r, &x, 0, "insert", "a", text, NULL, NULL);
    wait_for_start(r, &x);
    edit_expire(&x);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    must(r, "insert", "a", "delay:0"); /* the disk is not busy */
    must(r, "remove-export", "a", NULL);
    fd = open(path, O_WRONLY); /* now somebody writes, and ends */
    assert_true(fd >= 0);
    close(fd);
    wait_for_ops(r);
    unlink(path);
    rmdir(dir);
}

static void
a_stop_does_not_wait_for_ever_for_a_file(void **state)
{
    struct rig *r = *state;
    struct edit x;

    rig_hold(r, true);
    edit_start(r, &x, 0, "add-export", "a", "test:", NULL, NULL);
    wait_until_held(r);
    st_graph_stop(r->graph, 20 * MS, rig_stopped, r);
    assert_true(st_loop_wait(r->control, &r->stopped));
    assert_int_equal(r->rc, -ETIMEDOUT);
    assert_int_equal(x.rc, -ETIMEDOUT);
    rig_hold(r, false); /* this process does not end yet */
    edit_start(r, &x, 0, "quit", NULL, NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ESHUTDOWN);
    wait_for_ops(r);
}

/* ---- Order and abandon ---- */

static void
edits_end_in_the_order_of_their_start(void **state)
{
    enum { N = 40 };
    struct rig *r = *state;
    struct edit x[N];
    char size[16];

    must(r, "add-export", "a", "mem:1M");
    for (unsigned i = 0; i < N; i++) {
        snprintf(size, sizeof(size), "%uK", i + 1);
        edit_start(r, &x[i], 0, i % 4 == 3 ? "insert" : "resize", "a",
                   i % 4 == 3 ? "delay:0" : size, NULL, NULL);
    }
    for (unsigned i = 0; i < N; i++) {
        edit_wait(&x[i]);
        for (unsigned k = i + 1; k < N; k++)
            assert_false(x[k].done);
    }
    assert_int_equal(st_disk_size(disk(r, "a")->disk), 39 * 1024);
}

static void
edit_freed(struct st_graph_edit *e)
{
    struct edit *x = st_container(e, struct edit, e);

    assert_false(x->done || x->freed);
    x->freed = true;
}

static void
abandoned_edits_say_no_more(void **state)
{
    struct rig *r = *state;
    struct edit x, y, z;

    must(r, "add-export", "a", "mem:1M");
    edit_start(r, &x, 0, "add-export", "b", "mem:1M", NULL, NULL);
    edit_start(r, &y, 0, "add-export", "c", "mem:1M", NULL, NULL);
    edit_start(r, &z, 0, "add-export", "d", "mem:1M", NULL, NULL);
    while (r->graph->current != &x.e)
        assert_true(st_domain_step(r->domain));
    st_graph_abandon(&x.e, edit_freed); /* has started: goes on */
    st_graph_abandon(&y.e, edit_freed); /* has not: is not carried out */
    assert_false(x.freed || y.freed);
    assert_int_equal(edit_wait(&z), 0);
    assert_true(x.freed && y.freed);
    assert_false(x.done || y.done);
    has_disks(r, "a b d");
}

static void
an_abandoned_edit_has_its_deadline(void **state)
{
    struct rig *r = *state;
    struct edit x;
    struct io io;

    hang_a(r, &io);
    edit_start(r, &x, 10 * MS, "pause", "a", NULL, NULL, NULL);
    while (r->graph->current != &x.e)
        assert_true(st_domain_step(r->domain));
    st_graph_abandon(&x.e, edit_freed);
    assert_true(st_loop_wait(r->control, &x.freed));
    assert_false(disk(r, "a")->paused);
    unhang(r, &io);
}

/* ---- Stop ---- */

static void
a_stop_lets_one_edit_end_and_refuses_the_others(void **state)
{
    struct rig *r = *state;
    struct edit x[3], late;

    for (unsigned i = 0; i < 3; i++)
        edit_start(r, &x[i], 0, "add-export", i ? "b" : "a", "test:", NULL,
                   NULL);
    while (r->graph->current != &x[0].e)
        assert_true(st_domain_step(r->domain));
    st_graph_stop(r->graph, 10 * GRAPH_S, rig_stopped, r);
    assert_false(r->stopped);
    edit_start(r, &late, 0, "quit", NULL, NULL, NULL, NULL);
    assert_true(st_loop_wait(r->control, &r->stopped));
    assert_int_equal(r->rc, 0);
    assert_int_equal(x[0].rc, 0);
    assert_true(x[0].done && x[1].done && x[2].done && late.done);
    assert_int_equal(x[1].rc, -ESHUTDOWN);
    assert_int_equal(x[2].rc, -ESHUTDOWN);
    assert_int_equal(late.rc, -ESHUTDOWN);
    assert_non_null(strstr(late.e.err.text, "being stopped"));
    has_disks(r, "a");
    assert_int_equal(st_testnode_count(r->node, ST_OP_FLUSH), 1);
    assert_int_equal(r->quits, 0);
}

static void
a_stop_wakes_what_is_paused_or_stopped(void **state)
{
    struct rig *r = *state;
    struct st_node *b;
    struct io io, failed;

    must(r, "add-export", "a", "test:");
    must(r, "pause", "a", NULL);
    io_write(r, &io, "a");
    must(r, "add-export", "b", "test:");
    b = r->node;
    must(r, "policy", "b", "stop");
    st_testnode_fail(b, ST_BIT(ST_OP_WRITE), ST_IO, UINT32_MAX);
    io_write(r, &failed, "b");
    settle(r);
    assert_false(io.done || failed.done);
    assert_int_equal(rig_stop(r), 0);
    assert_int_equal(io_end(r, &io), ST_OK);
    assert_int_equal(io_end(r, &failed), ST_IO);
    assert_false(disk(r, "a")->paused);
}

static void
a_stop_leaves_behind_what_does_not_end(void **state)
{
    struct rig *r = *state;
    struct edit x;
    struct io io;

    hang_a(r, &io);
    edit_start(r, &x, 3600 * GRAPH_S, "pause", "a", NULL, NULL, NULL);
    st_domain_step(r->domain);
    assert_int_equal(rig_stop(r), -ETIMEDOUT); /* the flush hangs, too */
    assert_int_equal(x.rc, -ETIMEDOUT);
    unhang(r, &io);
    settle(r);
}

static void
a_cut_hurries_the_stop(void **state)
{
    struct rig *r = *state;
    uint64_t before;
    struct edit x;
    struct io io;

    hang_a(r, &io);
    edit_start(r, &x, 3600 * GRAPH_S, "pause", "a", NULL, NULL, NULL);
    while (r->graph->current != &x.e)
        assert_true(st_domain_step(r->domain));
    before = r->control->now;
    st_graph_cut(r->graph); /* nothing stops yet: no harm */
    st_graph_stop(r->graph, 3600 * GRAPH_S, rig_stopped, r);
    st_graph_cut(r->graph);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_true(r->control->now - before < 10 * GRAPH_S);
    unhang(r, &io);
    assert_true(st_loop_wait(r->control, &r->stopped));
    settle(r);
}

#define TEST(f)    cmocka_unit_test_setup_teardown(f, setup, teardown)
#define THREADS(f) cmocka_unit_test_setup_teardown(f, setup_threads, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_drain_that_does_not_end_changes_nothing),
        TEST(a_hung_child_is_left_by_rules_too),
        TEST(who_waits_too_long_for_its_turn_is_not_carried_out),
        TEST(a_late_insertion_is_undone),
        TEST(a_late_pause_is_undone_and_a_late_resume_goes_on),
        TEST(a_disk_that_does_not_flush_is_leaving),
        THREADS(a_disk_that_opens_too_late_is_closed),
        THREADS(a_disk_is_closed_on_a_worker),
        THREADS(a_decorator_that_opens_too_late_is_closed),
        THREADS(a_stop_does_not_wait_for_ever_for_a_file),
        TEST(edits_end_in_the_order_of_their_start),
        TEST(abandoned_edits_say_no_more),
        TEST(an_abandoned_edit_has_its_deadline),
        TEST(a_stop_lets_one_edit_end_and_refuses_the_others),
        TEST(a_stop_wakes_what_is_paused_or_stopped),
        TEST(a_stop_leaves_behind_what_does_not_end),
        TEST(a_cut_hurries_the_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
