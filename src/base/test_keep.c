/* SPDX-License-Identifier: MIT
 *
 * Descriptors at a holder: what was put is there after a death, under its name,
 * and nothing else is.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "keep.h"

/* A process and the holder's end of its socket. */
struct life {
    struct st_keep *keep;
    int socket;
};

static struct life
born(struct st_holder *h)
{
    struct life l;
    struct st_err err;
    int pair[2];

    assert_int_equal(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(st_holder_give(h, pair[0]), 0);
    assert_int_equal(st_keep_open(pair[1], &l.keep, &err), 0);
    l.socket = pair[0];
    return l;
}

/* It dies; the holder hears what is left to hear. */
static void
dies(struct life *l, struct st_holder *h)
{
    char text[ST_KEEP_NAME + 1];
    size_t len;
    int rc;

    st_keep_close(l->keep);
    while ((rc = st_holder_take(h, l->socket, text, sizeof(text), &len)) > 0)
        ;
    assert_int_equal(rc, 0);
    close(l->socket);
}

/* Put an eventfd that counts N. */
static void
put(struct life *l, const char *name, unsigned n)
{
    int fd = eventfd(n, EFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(st_keep_put(l->keep, fd, "%s", name), 0);
    close(fd);
}

/* What is kept as NAME counts N. */
static void
has(struct life *l, const char *name, uint64_t n)
{
    int fd = st_keep_get(l->keep, "%s", name);
    uint64_t got = 0;

    assert_true(fd >= 0);
    assert_int_equal(read(fd, &got, sizeof(got)), sizeof(got));
    assert_int_equal(got, n);
    close(fd);
    assert_int_equal(st_keep_get(l->keep, "%s", name), -1); /* once */
}

static void
what_was_put_outlives_its_process(void **state)
{
    struct st_holder *h = st_holder_create();
    struct life l = born(h);

    (void)state;
    assert_false(st_keep_resumes(l.keep));
    put(&l, "a.one", 1);
    put(&l, "a.two", 2);
    put(&l, "b", 3);
    put(&l, "a.one", 4); /* instead */
    st_keep_drop(l.keep, "b");
    st_keep_drop(l.keep, "never.%d", 7);
    dies(&l, h);
    assert_int_equal(st_holder_count(h), 2);
    l = born(h);
    assert_true(st_keep_resumes(l.keep));
    assert_int_equal(st_keep_get(l.keep, "b"), -1);
    has(&l, "a.one", 4);
    dies(&l, h); /* the other was not even looked at, and stays */
    l = born(h);
    has(&l, "a.two", 2);
    st_keep_drop(l.keep, "a.two");
    st_keep_forget(l.keep); /* the one that nobody has got */
    dies(&l, h);
    assert_int_equal(st_holder_count(h), 0);
    st_holder_destroy(h);
}

static void
other_packets_are_for_the_service_manager(void **state)
{
    struct st_holder *h = st_holder_create();
    struct life l = born(h);
    char text[64];
    size_t len = 0;

    (void)state;
    assert_int_equal(send(st_keep_socket(l.keep), "READY=1", 7, 0), 7);
    assert_int_equal(st_holder_take(h, l.socket, text, sizeof(text), &len), 2);
    assert_int_equal(len, 7);
    assert_string_equal(text, "READY=1");
    /* A put without a descriptor is none. */
    assert_int_equal(send(st_keep_socket(l.keep), "+x", 2, 0), 2);
    assert_int_equal(st_holder_take(h, l.socket, text, sizeof(text), &len),
                     -EPROTO);
    assert_int_equal(st_holder_count(h), 0);
    dies(&l, h);
    st_holder_destroy(h);
}

static void
a_process_does_without_a_holder(void **state)
{
    struct st_holder *h = st_holder_create();
    struct life l = born(h);
    struct st_keep *none;
    struct st_err err;
    int pair[2];

    (void)state;
    assert_int_equal(st_keep_put(NULL, 0, "x"), 0);
    assert_int_equal(st_keep_get(NULL, "x"), -1);
    st_keep_drop(NULL, "x");
    assert_false(st_keep_resumes(NULL));
    close(l.socket);
    assert_int_equal(st_keep_put(l.keep, 0, "x"), -EPIPE);
    st_keep_drop(l.keep, "x");
    st_keep_close(l.keep);
    st_holder_destroy(h);
    /* One that ends before it has said all. */
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    close(pair[0]);
    assert_true(st_keep_open(pair[1], &none, &err) < 0);
    assert_non_null(strstr(err.text, "no keeper is there"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_outlives_its_process),
        cmocka_unit_test(other_packets_are_for_the_service_manager),
        cmocka_unit_test(a_process_does_without_a_holder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
