/* SPDX-License-Identifier: MIT
 *
 * Address spaces: who gets an access, at edges too; regions that move and leave
 * under vCPUs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "space.h"
#include "test_access.h"

/* A device that answers with its letter in each byte, and keeps what it got. */
struct device {
    struct st_region r;
    uint8_t letter;
    struct st_access last;
    bool deferred;
};

static bool
device_access(struct st_region *r, struct st_access *a)
{
    struct device *d = r->arg;

    d->last = *a;
    if (!a->write)
        memset(&a->value, d->letter, sizeof(a->value));
    return !d->deferred;
}

static const struct st_region_ops device_ops = {"device", device_access};

static struct device
device(uint64_t start, uint64_t size, uint8_t letter)
{
    return (struct device){
        .r = {.ops = &device_ops, .start = start, .size = size},
        .letter = letter};
}

static int
add(struct st_space *s, struct device *d)
{
    d->r.arg = d;
    return st_space_add(s, &d->r);
}

static struct st_space *
ports(void)
{
    struct st_space *s;

    assert_int_equal(st_space_create(0x10000, &s), 0);
    return s;
}

static void
nobody_reads_all_ones(void **state)
{
    struct st_space *s = ports();

    (void)state;
    assert_int_equal(get(s, 0, 1), 0xff);
    assert_int_equal(get(s, 0x3f8, 2), 0xffff);
    assert_int_equal(get(s, 0x3f8, 8), UINT64_MAX);
    assert_int_equal(get(s, 0xffff, 4), 0xffffffff);
    put(s, 0xffff, 4, 1);
    st_space_destroy(s);
}

static void
an_access_finds_its_region(void **state)
{
    struct st_space *s = ports();
    struct device a = device(0x10, 0x10, 'a'), b = device(0x20, 8, 'b'),
                  c = device(0xfff8, 8, 'c');

    (void)state;
    assert_int_equal(add(s, &c), 0);
    assert_int_equal(add(s, &a), 0);
    assert_int_equal(add(s, &b), 0);
    assert_int_equal(get(s, 0x10, 1), 'a');
    assert_int_equal(get(s, 0x1f, 1), 'a');
    assert_int_equal(a.last.offset, 0xf);
    assert_int_equal(get(s, 0x20, 1), 'b');
    assert_int_equal(get(s, 0x28, 1), 0xff);
    assert_int_equal(get(s, 0xffff, 1), 'c');
    put(s, 0x13, 4, 0x12345678);
    assert_true(a.last.write);
    assert_int_equal(a.last.offset, 3);
    assert_int_equal(a.last.len, 4);
    assert_int_equal(a.last.value, 0x12345678);
    assert_int_equal(a.r.accesses, 3);
    st_space_destroy(s);
}

static void
an_access_across_an_edge_is_split(void **state)
{
    struct st_space *s = ports();
    struct device a = device(0x10, 0x10, 'a'), b = device(0x20, 8, 'b'),
                  c = device(0xcf9, 1, 'c');

    (void)state;
    assert_int_equal(add(s, &a), 0);
    assert_int_equal(add(s, &b), 0);
    assert_int_equal(add(s, &c), 0);
    assert_int_equal(get(s, 0x1e, 4), 0x62626161);
    assert_int_equal(get(s, 0x0f, 2), 0x61ff);
    assert_int_equal(get(s, 0x27, 2), 0xff62);
    assert_int_equal(get(s, 0xcf8, 4), 0xffff63ff); /* in the middle of it */
    put(s, 0x1f, 2, 0x0201);
    assert_int_equal(a.last.value, 1);
    assert_int_equal(a.last.len, 1);
    assert_int_equal(b.last.value, 2);
    assert_int_equal(b.last.offset, 0);
    st_space_destroy(s);
}

static void
a_deferred_access_is_not_done(void **state)
{
    struct st_space *s = ports();
    struct device a = device(0x10, 0x40, 'a');
    struct st_access x = {.offset = 0x20, .len = 4};

    (void)state;
    a.deferred = true;
    assert_int_equal(add(s, &a), 0);
    assert_false(st_space_access(s, &x));
    assert_int_equal(x.offset, 0x10);
    st_space_destroy(s);
}

static void
what_does_not_fit_is_refused(void **state)
{
    struct st_space *s = ports();
    struct device a = device(0x10, 0x10, 'a'), b = device(0x1f, 2, 'b'),
                  c = device(0x8, 0x40, 'c'), d = device(0xffff, 2, 'd'),
                  e = device(0x100, 0, 'e'), f = device(UINT64_MAX, 1, 'f'),
                  g = device(1, UINT64_MAX, 'g');

    (void)state;
    assert_int_equal(add(s, &a), 0);
    assert_int_equal(add(s, &a), -EEXIST);
    assert_int_equal(add(s, &b), -EEXIST);
    assert_int_equal(add(s, &c), -EEXIST);
    assert_int_equal(add(s, &d), -EINVAL);
    assert_int_equal(add(s, &e), -EINVAL);
    assert_int_equal(add(s, &f), -EINVAL);
    assert_int_equal(add(s, &g), -EINVAL);
    assert_int_equal(get(s, 0x1e, 4), 0xffff6161);
    st_space_destroy(s);
}

static void
a_region_moves(void **state)
{
    struct st_space *s = ports();
    struct device a = device(0x10, 0x10, 'a'), b = device(0x20, 0x10, 'b');

    (void)state;
    a.r.arg = &a; /* nowhere yet */
    assert_int_equal(st_space_move(s, &a.r, 0x10), 0);
    assert_int_equal(add(s, &b), 0);
    assert_int_equal(st_space_move(s, &a.r, 0x8), 0); /* over itself */
    assert_int_equal(get(s, 0x8, 1), 'a');
    assert_int_equal(get(s, 0x18, 1), 0xff);
    assert_int_equal(a.r.start, 0x8);
    assert_int_equal(st_space_move(s, &a.r, 0x28), -EEXIST);
    assert_int_equal(a.r.start, ST_SPACE_NOWHERE);
    assert_int_equal(get(s, 0x8, 1), 0xff);
    assert_int_equal(get(s, 0x28, 1), 'b');
    assert_int_equal(st_space_move(s, &a.r, 0xfff1), -EINVAL);
    assert_int_equal(st_space_move(s, &a.r, 0xfff0), 0);
    assert_int_equal(get(s, 0xffff, 1), 'a');
    assert_int_equal(st_space_move(s, &a.r, ST_SPACE_NOWHERE), 0);
    assert_int_equal(get(s, 0xffff, 1), 0xff);
    st_space_remove(s, &b.r);
    st_space_remove(s, &b.r);
    assert_int_equal(get(s, 0x20, 1), 0xff);
    st_space_destroy(s);
}

static void
collect(void *arg, const struct st_region *r, uint64_t start)
{
    char *text = arg;

    snprintf(text + strlen(text), 32, "%c@%jx ",
             ((struct device *)r->arg)->letter, (uintmax_t)start);
}

static void
regions_are_told_in_order(void **state)
{
    struct st_space *s = ports();
    struct device a = device(0x30, 1, 'a'), b = device(0x20, 1, 'b'),
                  c = device(0x40, 1, 'c');
    char text[128] = "";

    (void)state;
    assert_int_equal(add(s, &a) | add(s, &b) | add(s, &c), 0);
    st_space_each(s, collect, text);
    assert_string_equal(text, "b@20 a@30 c@40 ");
    st_space_destroy(s);
}

/* A region that moves another one from within its access, as a write to a
 * configuration register that lies in memory does. */
struct mover {
    struct st_region r;
    struct st_space *space;
    struct device *moved;
};

static bool
mover_access(struct st_region *r, struct st_access *a)
{
    struct mover *m = r->arg;

    assert_int_equal(st_space_move(m->space, &m->moved->r, a->value), 0);
    return true;
}

static void
an_access_may_move_a_region(void **state)
{
    static const struct st_region_ops ops = {"mover", mover_access};
    struct st_space *s = ports();
    struct device d = device(0x100, 0x10, 'd');
    struct mover m = {{.ops = &ops, .start = 0, .size = 8}, s, &d};

    (void)state;
    m.r.arg = &m;
    assert_int_equal(add(s, &d), 0);
    assert_int_equal(st_space_add(s, &m.r), 0);
    for (unsigned i = 1; i < 1000; i++) {
        put(s, 0, 4, 0x10 * i);
        assert_int_equal(get(s, 0x10 * i, 1), 'd');
    }
    st_space_destroy(s);
}

/* ---- Threads ---- */

enum { HIGH = 0x4000, ROUNDS = 200 };

static struct race {
    struct st_space *s;
    struct st_region r; /* moves */
    _Atomic bool over;
    _Atomic unsigned round, wrong;
} race;

static bool
letter_access(struct st_region *r, struct st_access *a)
{
    (void)r;
    a->value = 'd';
    return true;
}

static bool
race_access(struct st_region *r, struct st_access *a)
{
    unsigned round = atomic_load(&race.round);

    (void)r;
    sched_yield(); /* a removal that does not wait is over meanwhile */
    if (atomic_load(&race.round) != round)
        atomic_fetch_add(&race.wrong, 1);
    a->value = 'g';
    return true;
}

static void *
reader(void *arg)
{
    (void)arg;
    while (!atomic_load(&race.over)) {
        struct st_access a = {.offset = 0x100, .len = 1};
        uint64_t low, high;

        st_space_access(race.s, &a);
        low = get(race.s, 0, 1);
        high = get(race.s, HIGH, 1);
        if ((low != 'd' && low != 0xff) || (high != 'd' && high != 0xff))
            atomic_fetch_add(&race.wrong, 1);
    }
    return NULL;
}

static void
what_is_removed_is_left_by_all(void **state)
{
    static const struct st_region_ops ops = {"guest", race_access},
                                      letter = {"letter", letter_access};
    pthread_t t[3];

    (void)state;
    race.s = ports();
    race.r = (struct st_region){.ops = &letter, .size = 0x10};
    assert_int_equal(st_space_add(race.s, &race.r), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, reader, NULL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct st_region r = {.ops = &ops, .start = 0x100, .size = 8};

        assert_int_equal(st_space_add(race.s, &r), 0);
        assert_int_equal(st_space_move(race.s, &race.r, i % 2 ? 0 : HIGH), 0);
        sched_yield(); /* let somebody in */
        st_space_remove(race.s, &r);
        atomic_fetch_add(&race.round, 1);
    }
    atomic_store(&race.over, true);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(race.wrong, 0);
    st_space_destroy(race.s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_reads_all_ones),
        cmocka_unit_test(an_access_finds_its_region),
        cmocka_unit_test(an_access_across_an_edge_is_split),
        cmocka_unit_test(a_deferred_access_is_not_done),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_region_moves),
        cmocka_unit_test(regions_are_told_in_order),
        cmocka_unit_test(an_access_may_move_a_region),
        cmocka_unit_test(what_is_removed_is_left_by_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
