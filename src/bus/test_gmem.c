/* SPDX-License-Identifier: MIT
 *
 * Guest memory: translation, refusals, maps that leave under use; a model by
 * seed; threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "gmem.h"
#include "rand.h"

enum { PAGE = ST_GMEM_PAGE, RAM = 64 * PAGE };

static struct rig {
    struct st_domain *d;
    struct st_loop *home, *loop;
    struct st_gmem *g;
    struct st_gmem_view *v;
    uint8_t *ram; /* RAM bytes */
    unsigned released, unmapped;
} rig;

static int
setup(void **state)
{
    struct st_domain_opts o = {.engine = "virtual", .seed = 7};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_domain_create(&o, &rig.d, NULL), 0);
    assert_int_equal(st_loop_create(rig.d, &rig.home, NULL), 0);
    assert_int_equal(st_loop_create(rig.d, &rig.loop, NULL), 0);
    rig.ram = aligned_alloc(PAGE, RAM);
    rig.g = st_gmem_create(rig.home);
    rig.v = st_gmem_open(rig.g, rig.loop);
    assert_non_null(rig.v);
    for (unsigned i = 0; i < RAM; i++)
        rig.ram[i] = (uint8_t)(i / PAGE + i);
    return 0;
}

static void
settle(void)
{
    while (st_domain_step(rig.d))
        ;
}

static int
teardown(void **state)
{
    (void)state;
    st_gmem_close(rig.v);
    settle();
    st_gmem_destroy(rig.g);
    st_loop_destroy(rig.loop);
    st_loop_destroy(rig.home);
    st_domain_destroy(rig.d);
    free(rig.ram);
    return 0;
}

static void
count_release(const struct st_gmem_map *m)
{
    (void)m;
    rig.released++;
}

/* Map N pages at guest page GPN to the RAM's page PAGE_NO. */
static int
map(uint64_t gpn, uint64_t n, int page_no, bool writable)
{
    struct st_gmem_map m = {.gpa = gpn * PAGE,
                            .len = n * PAGE,
                            .writable = writable,
                            .release = count_release};

    m.host = page_no < 0 ? NULL : rig.ram + page_no * PAGE;
    return st_gmem_map(rig.g, &m);
}

static void
count_unmap(struct st_gmem_unmap *u)
{
    (void)u;
    rig.unmapped++;
}

static void
maps_are_checked(void **state)
{
    struct st_gmem_map m = {.gpa = 100, .len = PAGE};

    (void)state;
    assert_int_equal(st_gmem_map(rig.g, &m), -EINVAL);
    m = (struct st_gmem_map){.gpa = PAGE, .len = 100};
    assert_int_equal(st_gmem_map(rig.g, &m), -EINVAL);
    m = (struct st_gmem_map){.gpa = PAGE, .len = 0};
    assert_int_equal(st_gmem_map(rig.g, &m), -EINVAL);
    m = (struct st_gmem_map){.gpa = -(uint64_t)PAGE, .len = 2 * PAGE};
    assert_int_equal(st_gmem_map(rig.g, &m), -EINVAL);
    /* The last page that there is. */
    m = (struct st_gmem_map){.gpa = -(uint64_t)PAGE, .len = PAGE};
    assert_int_equal(st_gmem_map(rig.g, &m), 0);

    assert_int_equal(map(4, 4, 0, true), 0);
    assert_int_equal(map(4, 4, 0, true), -EEXIST);
    assert_int_equal(map(7, 1, 0, true), -EEXIST);
    assert_int_equal(map(2, 3, 0, true), -EEXIST);
    assert_int_equal(map(0, 20, 0, true), -EEXIST);
    assert_int_equal(map(5, 1, 0, true), -EEXIST);
    assert_int_equal(map(8, 1, 0, true), 0);
    assert_int_equal(map(3, 1, 0, true), 0);
}

/* Memory that is split in other pieces is there all the time. */
static void
a_change_is_seen_whole(void **state)
{
    struct st_gmem_unmap u[3] = {
        {.done = count_unmap}, {.done = count_unmap}, {.done = count_unmap}};
    struct st_gmem_stats stats;
    struct st_gmem_view *late;
    struct st_gmem_use use = {0};
    struct iovec iov[4];
    unsigned n = 0;

    (void)state;
    assert_int_equal(map(0, 16, 0, true), 0);
    assert_int_equal(st_gmem_get(rig.v, &use, 2 * PAGE, PAGE, true, iov, &n, 4),
                     0);
    st_gmem_begin(rig.g);
    assert_int_equal(st_gmem_unmap(rig.g, 0, 16 * PAGE, &u[0]), 0);
    assert_int_equal(st_gmem_unmap(rig.g, 0, 16 * PAGE, &u[1]), -ENOENT);
    assert_int_equal(map(0, 4, 0, true), 0);
    assert_int_equal(map(0, 4, 0, true), -EEXIST);
    assert_int_equal(map(4, 12, 4, false), 0);
    /* Came and went: nobody ever sees it. */
    assert_int_equal(map(40, 1, 40, true), 0);
    assert_int_equal(st_gmem_unmap(rig.g, 40 * PAGE, PAGE, &u[1]), 0);
    settle();
    late = st_gmem_open(rig.g, rig.loop); /* sees the old table, too */
    assert_non_null(st_gmem_peek(late, 8 * PAGE, 8, true));
    assert_int_equal(rig.unmapped, 0);
    assert_non_null(st_gmem_peek(rig.v, 0, 16 * PAGE, true));
    st_gmem_commit(rig.g);
    assert_non_null(st_gmem_peek(rig.v, 0, 4 * PAGE, true));
    assert_null(st_gmem_peek(rig.v, 0, 16 * PAGE, false));
    assert_non_null(st_gmem_peek(late, 8 * PAGE, 8, false));
    assert_null(st_gmem_peek(late, 8 * PAGE, 8, true));
    assert_null(st_gmem_peek(rig.v, 40 * PAGE, 8, false));
    settle();
    assert_int_equal(rig.unmapped, 1); /* page 40's; the other is in use */
    assert_int_equal(rig.released, 1);
    st_gmem_put(rig.v, &use);
    settle();
    assert_int_equal(rig.unmapped, 2);
    assert_int_equal(rig.released, 2);
    st_gmem_stats(rig.g, &stats);
    assert_int_equal(stats.maps, 2);
    assert_int_equal(stats.bytes, 16 * PAGE);

    st_gmem_begin(rig.g);
    assert_int_equal(map(20, 1, 20, true), 0);
    assert_int_equal(st_gmem_unmap_all(rig.g, &u[2]), 0);
    assert_int_equal(map(30, 1, 30, true), 0);
    assert_non_null(st_gmem_peek(rig.v, 0, 4 * PAGE, true));
    st_gmem_commit(rig.g);
    assert_null(st_gmem_peek(rig.v, 0, 8, true));
    assert_non_null(st_gmem_peek(rig.v, 30 * PAGE, 8, true));
    settle();
    assert_int_equal(rig.unmapped, 3);
    assert_int_equal(rig.released, 5);
    st_gmem_begin(rig.g);
    st_gmem_commit(rig.g); /* nothing at all */
    st_gmem_close(late);
}

static void
an_address_becomes_iovecs(void **state)
{
    struct st_gmem_use use = {0};
    struct iovec iov[4];
    unsigned n = 0;

    (void)state;
    /* Pages 10..13 are RAM 0..3; 14 and 15 are RAM 4, 5 in a map of their own;
     * 16 is RAM 9. */
    assert_int_equal(map(14, 2, 4, true), 0);
    assert_int_equal(map(10, 4, 0, true), 0);
    assert_int_equal(map(16, 1, 9, true), 0);

    assert_int_equal(
        st_gmem_get(rig.v, &use, 10 * PAGE + 100, 200, true, iov, &n, 4), 0);
    assert_int_equal(n, 1);
    assert_ptr_equal(iov[0].iov_base, rig.ram + 100);
    assert_int_equal(iov[0].iov_len, 200);
    /* What follows in host memory is joined, over maps and over calls. */
    assert_int_equal(
        st_gmem_get(rig.v, &use, 10 * PAGE + 300, 5 * PAGE, false, iov, &n, 4),
        0);
    assert_int_equal(n, 1);
    assert_int_equal(iov[0].iov_len, 200 + 5 * PAGE);
    /* And what does not is not. */
    assert_int_equal(
        st_gmem_get(rig.v, &use, 16 * PAGE - 8, 16, false, iov, &n, 4), 0);
    assert_int_equal(n, 3);
    assert_ptr_equal(iov[1].iov_base, rig.ram + 6 * PAGE - 8);
    assert_int_equal(iov[1].iov_len, 8);
    assert_ptr_equal(iov[2].iov_base, rig.ram + 9 * PAGE);
    st_gmem_put(rig.v, &use);
}

static void
a_refused_get_changes_nothing(void **state)
{
    struct st_gmem_use use = {0};
    struct st_gmem_stats stats;
    struct iovec iov[2];
    unsigned n = 0;

    (void)state;
    assert_int_equal(map(0, 2, 0, true), 0);
    assert_int_equal(map(2, 1, 8, false), 0);
    assert_int_equal(map(3, 1, -1, true), 0);
    assert_int_equal(st_gmem_get(rig.v, &use, 0, 16, true, iov, &n, 2), 0);
    /* The first piece would have been joined to the one that is there. */
    assert_int_equal(st_gmem_get(rig.v, &use, 16, 2 * PAGE, true, iov, &n, 2),
                     -EFAULT);
    assert_int_equal(n, 1);
    assert_int_equal(iov[0].iov_len, 16);
    assert_int_equal(
        st_gmem_get(rig.v, &use, 2 * PAGE, 2 * PAGE, false, iov, &n, 2),
        -EFAULT);
    assert_int_equal(st_gmem_get(rig.v, &use, 9 * PAGE, 1, false, iov, &n, 2),
                     -EFAULT);
    assert_int_equal(
        st_gmem_get(rig.v, &use, UINT64_MAX - 3, 8, false, iov, &n, 2),
        -EFAULT);
    assert_int_equal(
        st_gmem_get(rig.v, &use, PAGE, 2 * PAGE, false, iov, &n, 2), -E2BIG);
    assert_int_equal(n, 1);
    assert_int_equal(iov[0].iov_len, 16);
    st_gmem_put(rig.v, &use);
    st_gmem_stats(rig.g, &stats);
    assert_int_equal(stats.maps, 3);
    assert_int_equal(stats.bytes, 4 * PAGE);
    assert_int_equal(stats.refused, 2);
    assert_int_equal(stats.unreachable, 1);
}

static void
copies_are_whole_or_nothing(void **state)
{
    uint8_t out[32], zero[32] = {0};

    (void)state;
    assert_int_equal(map(0, 1, 0, true), 0);
    assert_int_equal(map(1, 1, 5, true), 0);
    assert_int_equal(st_gmem_read(rig.v, PAGE - 16, out, 32), 0);
    assert_memory_equal(out, rig.ram + PAGE - 16, 16);
    assert_memory_equal(out + 16, rig.ram + 5 * PAGE, 16);
    assert_int_equal(st_gmem_write(rig.v, PAGE - 16, zero, 32), 0);
    assert_memory_equal(rig.ram + 5 * PAGE, zero, 16);
    memset(out, 7, 32);
    assert_int_equal(st_gmem_read(rig.v, 2 * PAGE - 16, out, 32), -EFAULT);
    assert_int_equal(out[0], 7);
    memset(zero, 9, 32);
    assert_int_equal(st_gmem_write(rig.v, 2 * PAGE - 16, zero, 32), -EFAULT);
    assert_int_not_equal(rig.ram[6 * PAGE - 16], 9);

    assert_ptr_equal(st_gmem_peek(rig.v, 100, PAGE - 100, true), rig.ram + 100);
    assert_null(st_gmem_peek(rig.v, 100, PAGE, true)); /* two maps */
}

static void
an_unmap_waits_for_its_users_only(void **state)
{
    struct st_gmem_use use = {0}, other = {0};
    struct st_gmem_unmap u = {.done = count_unmap}, w = {.done = count_unmap};
    struct iovec iov[2];
    unsigned n = 0, m = 0;

    (void)state;
    assert_int_equal(map(0, 2, 0, true), 0);
    assert_int_equal(map(2, 2, 8, true), 0);
    assert_int_equal(st_gmem_get(rig.v, &use, 0, 8, true, iov, &n, 2), 0);
    assert_int_equal(st_gmem_get(rig.v, &use, 8, 8, true, iov, &n, 2), 0);
    assert_int_equal(st_gmem_unmap(rig.g, 0, PAGE, &u), -ENOENT);
    assert_int_equal(st_gmem_unmap(rig.g, PAGE, PAGE, &u), -ENOENT);
    assert_int_equal(st_gmem_unmap(rig.g, 0, 2 * PAGE, &u), 0);
    assert_int_equal(rig.unmapped, 0);
    /* New requests do not find it; its place can be taken at once. */
    assert_int_equal(st_gmem_get(rig.v, &other, 0, 8, true, iov, &m, 2),
                     -EFAULT);
    assert_int_equal(map(0, 2, 20, true), 0);
    assert_int_equal(st_gmem_get(rig.v, &other, 0, 8, true, iov, &m, 2), 0);
    assert_ptr_equal(iov[0].iov_base, rig.ram + 20 * PAGE);
    settle();
    assert_int_equal(rig.unmapped, 0);
    /* Another map comes and goes meanwhile. */
    assert_int_equal(st_gmem_unmap(rig.g, 2 * PAGE, 2 * PAGE, &w), 0);
    settle();
    assert_int_equal(rig.unmapped, 1);
    assert_int_equal(rig.released, 1);
    st_gmem_put(rig.v, &use);
    settle();
    assert_int_equal(rig.unmapped, 2);
    assert_int_equal(rig.released, 2);
    st_gmem_put(rig.v, &other);
}

static void
a_request_over_many_maps_holds_them_all(void **state)
{
    struct st_gmem_use use = {0};
    struct st_gmem_unmap u[10] = {0};
    struct iovec iov[16];
    unsigned n = 0;

    (void)state;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(map(i, 1, (int)(2 * i), true), 0);
    assert_int_equal(st_gmem_get(rig.v, &use, 0, 9 * PAGE, true, iov, &n, 16),
                     0);
    assert_int_equal(n, 9);
    for (unsigned i = 0; i < 10; i++) {
        u[i].done = count_unmap;
        assert_int_equal(st_gmem_unmap(rig.g, i * PAGE, PAGE, &u[i]), 0);
    }
    settle();
    assert_int_equal(rig.unmapped, 0);
    st_gmem_put(rig.v, &use);
    settle();
    assert_int_equal(rig.unmapped, 10);
    assert_int_equal(rig.released, 10);
}

static void
all_maps_leave_at_once(void **state)
{
    struct st_gmem_use use = {0};
    struct st_gmem_unmap u = {.done = count_unmap}, w = {.done = count_unmap};
    struct iovec iov[2];
    unsigned n = 0;

    (void)state;
    assert_int_equal(st_gmem_unmap_all(rig.g, &w), 0); /* none is fine */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(map(i, 1, (int)(2 * i), true), 0);
    assert_int_equal(st_gmem_get(rig.v, &use, 0, 8, true, iov, &n, 2), 0);
    assert_int_equal(st_gmem_unmap_all(rig.g, &u), 0);
    settle();
    assert_int_equal(rig.unmapped, 1);
    assert_int_equal(rig.released, 9);
    st_gmem_put(rig.v, &use);
    settle();
    assert_int_equal(rig.unmapped, 2);
    assert_int_equal(rig.released, 10);
}

/* Who has unmapped all may destroy it, also where there was nothing. */
static void
nothing_left_means_nothing_left(void **state)
{
    struct st_gmem_unmap u = {.done = count_unmap}, one = {.done = count_unmap};
    struct st_gmem *g = st_gmem_create(rig.home);
    struct st_gmem_map m = {.len = PAGE, .host = rig.ram};

    (void)state;
    assert_int_equal(st_gmem_unmap_all(g, &u), 0);
    while (rig.unmapped < 1)
        assert_true(st_domain_step(rig.d));
    st_gmem_destroy(g);
    g = st_gmem_create(rig.home);
    assert_int_equal(st_gmem_map(g, &m), 0);
    assert_int_equal(st_gmem_unmap(g, 0, PAGE, &one), 0);
    assert_int_equal(st_gmem_unmap_all(g, &u), 0);
    while (rig.unmapped < 3)
        assert_true(st_domain_step(rig.d));
    st_gmem_destroy(g);
}

static void
a_view_can_close_while_a_map_leaves(void **state)
{
    struct st_gmem_unmap u = {.done = count_unmap};
    struct st_gmem_view *second;

    (void)state;
    assert_int_equal(map(0, 2, 0, true), 0);
    second = st_gmem_open(rig.g, rig.loop);
    assert_int_equal(st_gmem_unmap(rig.g, 0, 2 * PAGE, &u), 0);
    st_gmem_close(second); /* its message is still on its way */
    settle();
    assert_int_equal(rig.unmapped, 1);
}

static void
views_are_limited(void **state)
{
    struct st_gmem_view *v[ST_GMEM_VIEWS];

    (void)state;
    for (unsigned i = 1; i < ST_GMEM_VIEWS; i++)
        assert_non_null(v[i] = st_gmem_open(rig.g, rig.loop));
    assert_null(st_gmem_open(rig.g, rig.loop));
    for (unsigned i = 1; i < ST_GMEM_VIEWS; i++)
        st_gmem_close(v[i]);
}

/* ---- Threads: the host changes maps while loops use them ---- */

enum { LOOPS = 3, ROUNDS = 3000, SLOTS = 8 };

/* What a slot of guest memory is backed by: on release it is poisoned, so that
 * a use after that shows (and ASan sees a freed buffer). */
struct backing {
    uint64_t *data;
};

static void
free_backing(const struct st_gmem_map *m)
{
    memset(m->host, 0xee, PAGE);
    free(m->host);
}

struct user {
    struct st_task task;
    struct st_loop *loop;
    struct st_gmem *g;
    struct st_gmem_view *v;
    struct st_gmem_use use[4];
    struct st_rand rand;
    uint64_t *at[4], found;
    unsigned turn;
    _Atomic bool *stop, ended;
};

static void
user_step(struct st_task *t)
{
    struct user *u = st_container(t, struct user, task);
    unsigned slot = u->turn++ % 4, n = 0;
    struct iovec iov[1];
    uint64_t gpn;

    if (!u->v)
        u->v = st_gmem_open(u->g, u->loop);
    if (u->at[slot]) {
        /* Used since some turns ago: still what it was. */
        if (*u->at[slot] >> 32 != 0x600d)
            fail_msg("a map was released under its user");
        st_gmem_put(u->v, &u->use[slot]);
        u->at[slot] = NULL;
    }
    if (atomic_load(u->stop)) {
        bool used = false;

        for (unsigned i = 0; i < 4; i++)
            used |= u->at[i] != NULL;
        if (!used) {
            st_gmem_close(u->v);
            atomic_store(&u->ended, true);
            return;
        }
    } else {
        gpn = st_rand_below(&u->rand, SLOTS);
        if (st_gmem_get(u->v, &u->use[slot], gpn * PAGE, 8, false, iov, &n,
                        1) == 0) {
            u->at[slot] = iov[0].iov_base;
            u->found++;
        }
    }
    st_ready(u->loop, &u->task);
}

static void
unmapped_once(struct st_gmem_unmap *u)
{
    *(bool *)u->arg = true;
}

static void
maps_change_under_many_loops(void **state)
{
    struct st_domain_opts o = {.engine = *state};
    struct st_domain *d;
    struct st_loop *home;
    struct user user[LOOPS] = {0};
    _Atomic bool stop = false;
    struct st_gmem *g;
    struct st_rand rand = st_rand_seed(11);
    uint64_t found = 0;
    bool mapped[SLOTS] = {0};

    assert_int_equal(st_domain_create(&o, &d, NULL), 0);
    assert_int_equal(st_loop_create(d, &home, NULL), 0);
    g = st_gmem_create(home);
    for (unsigned i = 0; i < LOOPS; i++) {
        user[i] = (struct user){.task.run = user_step,
                                .g = g,
                                .rand = st_rand_seed(i + 1),
                                .stop = &stop};
        assert_int_equal(st_loop_create(d, &user[i].loop, NULL), 0);
        assert_int_equal(st_loop_start(user[i].loop, "user"), 0);
        st_post(user[i].loop, &user[i].task);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = (unsigned)st_rand_below(&rand, SLOTS);

        if (!mapped[slot]) {
            uint64_t *page = aligned_alloc(PAGE, PAGE);

            *page = UINT64_C(0x600d) << 32 | round;
            assert_int_equal(
                st_gmem_map(g, &(struct st_gmem_map){.gpa = slot * PAGE,
                                                     .len = PAGE,
                                                     .host = (uint8_t *)page,
                                                     .release = free_backing}),
                0);
        } else {
            bool done = false;
            struct st_gmem_unmap u = {.done = unmapped_once, .arg = &done};

            assert_int_equal(st_gmem_unmap(g, slot * PAGE, PAGE, &u), 0);
            assert_true(st_loop_wait(home, &done));
        }
        mapped[slot] = !mapped[slot];
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < LOOPS; i++) {
        while (!atomic_load(&user[i].ended))
            sched_yield();
        st_loop_join(user[i].loop);
        found += user[i].found;
    }
    {
        bool done = false;
        struct st_gmem_unmap u = {.done = unmapped_once, .arg = &done};

        assert_int_equal(st_gmem_unmap_all(g, &u), 0);
        assert_true(st_loop_wait(home, &done));
    }
    st_gmem_destroy(g);
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_destroy(user[i].loop);
    st_loop_destroy(home);
    st_domain_destroy(d);
    assert_true(found > 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(maps_are_checked),
        T(a_change_is_seen_whole),
        T(an_address_becomes_iovecs),
        T(a_refused_get_changes_nothing),
        T(copies_are_whole_or_nothing),
        T(an_unmap_waits_for_its_users_only),
        T(a_request_over_many_maps_holds_them_all),
        T(all_maps_leave_at_once),
        T(nothing_left_means_nothing_left),
        T(a_view_can_close_while_a_map_leaves),
        T(views_are_limited),
        {"maps_change_under_many_loops (auto)", maps_change_under_many_loops,
         NULL, NULL, (void *)(uintptr_t) "auto"},
        {"maps_change_under_many_loops (threads)", maps_change_under_many_loops,
         NULL, NULL, (void *)(uintptr_t) "threads"},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
