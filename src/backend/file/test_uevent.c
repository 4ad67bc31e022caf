/* SPDX-License-Identifier: MIT
 *
 * What messages of the kernel say, and who hears them.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "uevent.h"

/* ---- Parsing ---- */

#define MSG(...)                                                               \
    (const char *const[])                                                      \
    {                                                                          \
        __VA_ARGS__, NULL                                                      \
    }

/* The strings, each ended, in memory that ends with them. */
static bool
parse(const char *const *strings, struct uevent *out)
{
    size_t len = 0;
    char *msg;
    bool good;

    for (unsigned i = 0; strings[i]; i++)
        len += strlen(strings[i]) + 1;
    msg = malloc(len);
    assert_non_null(msg);
    len = 0;
    for (unsigned i = 0; strings[i]; i++) {
        memcpy(msg + len, strings[i], strlen(strings[i]) + 1);
        len += strlen(strings[i]) + 1;
    }
    good = uevent_parse(msg, len, out);
    free(msg);
    return good;
}

static void
what_matters_is_found(void **state)
{
    struct uevent ev;

    (void)state;
    assert_true(parse(MSG("change@/devices/virtual/block/loop3",
                          "ACTION=change", "DEVPATH=/devices/virtual/block",
                          "SUBSYSTEM=block", "RESIZE=1", "MAJOR=7", "MINOR=3",
                          "DEVNAME=loop3", "SEQNUM=12"),
                      &ev));
    assert_int_equal(ev.what, UEVENT_RESIZE);
    assert_int_equal(ev.major, 7);
    assert_int_equal(ev.minor, 3);
    assert_true(parse(MSG("change@/x", "MINOR=1048575", "MAJOR=4294967295",
                          "DISK_MEDIA_CHANGE=1", "RESIZE=1", "ACTION=change",
                          "SUBSYSTEM=block"),
                      &ev));
    assert_int_equal(ev.what, UEVENT_RESIZE | UEVENT_MEDIA);
    assert_int_equal(ev.major, UINT32_MAX);
    assert_int_equal(ev.minor, 1048575);
    assert_true(parse(MSG("remove@/x", "ACTION=remove", "SUBSYSTEM=block",
                          "MAJOR=8", "MINOR=1"),
                      &ev));
    assert_int_equal(ev.what, UEVENT_REMOVED);
}

static void
what_does_not_matter_asks_for_nothing(void **state)
{
    const char *const *const cases[] = {
        MSG("add@/x", "ACTION=add", "SUBSYSTEM=block", "MAJOR=7", "MINOR=0",
            "RESIZE=1"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0", "RESIZE=0"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0", "SYNTH_ARG_RESIZE=1"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=net", "MAJOR=7", "MINOR=0",
            "RESIZE=1"),
        MSG("change@/x", "ACTION=change", "MAJOR=7", "MINOR=0", "RESIZE=1"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MAJOR=7"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MINOR=7"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MAJOR=7", "MINOR=4294967296"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MAJOR=7", "MINOR=99999999999999999999999999"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MAJOR=7", "MINOR=0x1"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MAJOR=", "MINOR=1"),
        MSG("change@/x", "ACTION=change", "SUBSYSTEM=block", "RESIZE=1",
            "MAJOR=-7", "MINOR=1"),
        MSG("remove@/x"),
    };
    struct uevent ev;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_true(parse(cases[i], &ev));
        assert_int_equal(ev.what, 0);
    }
}

static void
what_is_no_message_is_refused(void **state)
{
    const char *const *const cases[] = {
        MSG("libudev", "ACTION=remove", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0"),
        MSG("ACTION=remove", "SUBSYSTEM=block", "MAJOR=7", "MINOR=0"),
        MSG("@/x", "ACTION=remove", "SUBSYSTEM=block", "MAJOR=7", "MINOR=0"),
        MSG("", "ACTION=remove"),
        MSG("remove@/x", "ACTION=remove", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0", ""),
        MSG("remove@/x", "ACTION=remove", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0", "WHAT"),
        MSG("remove@/x", "ACTION=remove", "SUBSYSTEM=block", "MAJOR=7",
            "MINOR=0", "=1"),
    };
    static const char open_end[] = {'r', '@', 'x', 0, 'A', '=', 'b'};
    struct uevent ev;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_false(parse(cases[i], &ev));
        assert_int_equal(ev.what, 0);
    }
    assert_false(uevent_parse(open_end, sizeof(open_end), &ev));
    assert_false(uevent_parse(open_end, 0, &ev));
}

/* ---- Ears (what they hear of a device is test_block_size.c's) ---- */

struct ear {
    struct uevent_ear ear;
    unsigned looks;
    bool done;
};

static void
ear_hears(struct uevent_ear *e, unsigned what)
{
    struct ear *x = st_container(e, struct ear, ear);

    assert_int_equal(what, 0);
    x->looks++;
    x->done = true;
}

struct world {
    struct st_domain *domain;
    struct st_loop *loop;
};

static int
setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct st_domain_opts o = {.engine = *state};

    assert_non_null(w);
    assert_int_equal(st_domain_create(&o, &w->domain, NULL), 0);
    assert_int_equal(st_loop_create(w->domain, &w->loop, NULL), 0);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;

    st_loop_destroy(w->loop);
    st_domain_destroy(w->domain);
    free(w);
    return 0;
}

static void *
poke_run(void *arg)
{
    uevent_poke(arg);
    return NULL;
}

static void
ears_come_and_go_on_any_thread(void **state)
{
    struct world *w = *state;
    struct ear x = {.ear = {.major = 7, .hear = ear_hears}};
    pthread_t thread;

    uevent_join(w->loop, &x.ear);
    assert_int_equal(pthread_create(&thread, NULL, poke_run, &x.ear), 0);
    if (st_domain_is_virtual(w->domain)) /* it turns only when there is work */
        assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(st_loop_wait(w->loop, &x.done));
    if (!st_domain_is_virtual(w->domain))
        assert_int_equal(pthread_join(thread, NULL), 0);
    uevent_poke(&x.ear); /* nobody turns the loop any more */
    uevent_leave(&x.ear);
    assert_int_equal(x.looks, 1);
}

static void
a_loop_may_end_before_it_ever_turned(void **state)
{
    struct world *w = *state;
    struct ear x = {.ear = {.major = 7, .hear = ear_hears}};

    uevent_join(w->loop, &x.ear);
    uevent_leave(&x.ear);
    assert_int_equal(x.looks, 0);
}

static char name_auto[] = "auto", name_threads[] = "threads",
            name_virtual[] = "virtual";

#define ON(test, engine)                                                       \
    {                                                                          \
#test " (" #engine ")", test, setup, teardown, name_##engine           \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_matters_is_found),
        cmocka_unit_test(what_does_not_matter_asks_for_nothing),
        cmocka_unit_test(what_is_no_message_is_refused),
        ON(ears_come_and_go_on_any_thread, auto),
        ON(ears_come_and_go_on_any_thread, threads),
        ON(ears_come_and_go_on_any_thread, virtual),
        ON(a_loop_may_end_before_it_ever_turned, auto),
        ON(a_loop_may_end_before_it_ever_turned, threads),
        ON(a_loop_may_end_before_it_ever_turned, virtual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
