/* SPDX-License-Identifier: MIT
 *
 * Exports that come and go while clients use them, and what the server shows.
 */
#include <stdio.h>

#include "test_server.h"

#define FOREVER (UINT64_C(1) << 60)

struct leave {
    struct st_nbd_unexport u;
    struct fixture *f;
    bool done;
    bool stopped; /* the server, before */
};

static void
on_left(struct st_nbd_unexport *u)
{
    struct leave *l = u->arg;

    assert_false(l->done);
    l->done = true;
    l->stopped = l->f->stopped;
}

static void
unexport(struct fixture *f, const char *name, uint64_t timeout_ns,
         struct leave *l)
{
    *l = (struct leave){.u = {.done = on_left, .arg = l}, .f = f};
    assert_int_equal(st_nbd_unexport(f->nbd, name, timeout_ns, &l->u), 0);
    assert_false(l->done);
}

static void
wait_left(struct fixture *f, struct leave *l)
{
    while (!l->done)
        turn(f);
}

static void export(struct fixture *f, const char *name, bool read_only)
{
    struct st_err err;

    assert_int_equal(
        st_nbd_export(f->nbd, name, "again", f->disk, read_only, &err), 0);
}

/* Option GO for NAME, which is refused with TYPE. */
static void
go_fails(struct client *c, const char *name, uint32_t type)
{
    struct msg m = {.n = 0};

    put_string(&m, name);
    put16(&m, 0);
    client_option(c, NBD_OPT_GO, &m);
    client_expect_error(c, NBD_OPT_GO, type);
}

static int
setup_loops(void **state)
{
    return setup_with(state, (struct st_testnode_opts){0}, 0, LOOPS);
}

/* ---- Coming and going ---- */

static void
comes_while_clients_are_there(void **state)
{
    struct fixture *f = *state;

    client_greet(f->client);
    go_fails(f->client, "late", NBD_REP_ERR_UNKNOWN);
    export(f, "late", true);
    assert_true(client_go(connect_client(f, 1), "late", SIMPLE) &
                NBD_READ_ONLY);
    client_go(connect_client(f, 2), "ro", SIMPLE); /* those before, too */
}

static void
leaves_when_nobody_is_there(void **state)
{
    struct fixture *f = *state;
    struct leave a, b;
    struct st_nbd_unexport never = {.done = on_left};

    unexport(f, "ro", FOREVER, &a);
    assert_int_equal(st_nbd_unexport(f->nbd, "ro", 0, &never), -ENOENT);
    assert_int_equal(st_nbd_unexport(f->nbd, "x", 0, &never), -ENOENT);
    unexport(f, "", 0, &b);
    wait_left(f, &a);
    wait_left(f, &b);
    client_greet(f->client);
    go_fails(f->client, "ro", NBD_REP_ERR_UNKNOWN);
    client_option(f->client, NBD_OPT_LIST, NULL);
    client_expect_reply(f->client, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static void
clients_are_told_then_closed(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client, *other = connect_client(f, 1);
    struct leave l;

    client_go(c, "", STRUCTURED);
    client_go(other, "ro", STRUCTURED);
    st_testnode_hang(f->node, true);
    client_request(c, NBD_CMD_READ, 0, 1, 0, 4096);
    while (!st_testnode_held(f->node))
        turn(f);
    unexport(f, "", FOREVER, &l);
    client_write(c, 0, 2, 0, f->want, 4096); /* refused, payload consumed */
    assert_int_equal(client_reply(c, 2, 0, NULL, 0), NBD_ESHUTDOWN);
    turns(f, 20);
    assert_false(l.done);
    st_testnode_hang(f->node, false);
    assert_int_equal(client_reply(c, 1, 0, f->buf, 4096), 0);
    client_expect_end(c); /* after 1 s */
    wait_left(f, &l);
    assert_int_equal(client_read_at(other, 0, 0, f->buf, 4096), 0);
}

static void
a_client_that_leaves_is_not_waited_for(void **state)
{
    struct fixture *f = *state;
    struct leave l;

    client_go(f->client, "", STRUCTURED);
    unexport(f, "", FOREVER, &l);
    client_request(f->client, NBD_CMD_DISC, 0, 0, 0, 0);
    wait_left(f, &l);
}

/* A second passes while the payload of a write, begun before, still comes. */
static void
a_begun_write_is_finished(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client, *idle = connect_client(f, 1);
    enum { LEN = 1 << 20 };
    struct leave l;

    fill(f->want, LEN, 5);
    client_go(c, "", SIMPLE);
    client_go(idle, "", SIMPLE);
    client_request(c, NBD_CMD_WRITE, 0, 1, 0, LEN);
    client_send(c, f->want, LEN / 2);
    while (st_testnode_count(f->node, ST_OP_WRITE) == 0)
        turn(f);
    unexport(f, "", FOREVER, &l);
    client_expect_end(idle); /* the second has passed */
    client_send(c, f->want + LEN / 2, LEN / 2);
    assert_int_equal(client_reply(c, 1, 0, NULL, 0), 0);
    client_expect_end(c);
    wait_left(f, &l);
    assert_memory_equal(st_testnode_bytes(f->node), f->want, LEN);
}

static void
requests_that_hang_are_cancelled(void **state)
{
    struct fixture *f = *state;
    struct leave l;

    for (unsigned i = 0; i < 5; i++)
        client_go(i ? connect_client(f, i) : f->client, "", i % 3);
    st_testnode_hang(f->node, true);
    for (unsigned i = 0; i < 5; i++)
        client_request(&f->client[i], NBD_CMD_READ, 0, 1, 0, 1 << 20);
    while (st_testnode_held(f->node) < 5)
        turn(f);
    unexport(f, "", 1000, &l);
    for (unsigned i = 0; i < 5; i++)
        client_expect_end(&f->client[i]);
    wait_left(f, &l);
    assert_int_equal(st_testnode_held(f->node), 0);
    st_testnode_hang(f->node, false);
    st_nbd_stop(f->nbd, 0, on_stopped, f);
    while (!f->stopped)
        turn(f);
    assert_int_equal(f->rc, 0); /* that was another matter */
}

static void
what_cannot_be_cancelled_is_waited_for(void **state)
{
    struct fixture *f = *state;
    struct leave l;

    client_go(f->client, "", STRUCTURED);
    st_testnode_cancellable(f->node, false);
    st_testnode_hang(f->node, true);
    client_request(f->client, NBD_CMD_READ, 0, 1, 0, 4096);
    while (!st_testnode_held(f->node))
        turn(f);
    unexport(f, "", 0, &l);
    client_expect_end(f->client);
    turns(f, 100);
    assert_false(l.done);
    st_testnode_hang(f->node, false);
    wait_left(f, &l);
}

static void
the_same_name_can_come_back_at_once(void **state)
{
    struct fixture *f = *state;
    struct client *old = f->client, *new;
    struct leave a, b;

    client_go(old, "", STRUCTURED);
    unexport(f, "", FOREVER, &a);
    export(f, "", true);
    new = connect_client(f, 1);
    assert_true(client_go(new, "", STRUCTURED) & NBD_READ_ONLY);
    assert_int_equal(client_read_at(old, 0, 0, f->buf, 512), NBD_ESHUTDOWN);
    assert_int_equal(client_read_at(new, 0, 0, f->buf, 512), 0);
    unexport(f, "", FOREVER, &b);
    hang_up(new);
    wait_left(f, &b); /* in any order */
    assert_false(a.done);
    hang_up(old);
    wait_left(f, &a);
}

static void
a_context_is_not_inherited_by_name(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    struct msg m = {.n = 0};
    struct leave l;
    uint8_t b[52];

    client_greet(c);
    client_option(c, NBD_OPT_STRUCTURED_REPLY, NULL);
    client_expect_reply(c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
    put_string(&m, "ro");
    put32(&m, 1);
    put_string(&m, "base:allocation");
    client_option(c, NBD_OPT_SET_META_CONTEXT, &m);
    client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT,
                        "\0\0\0\1base:allocation", 19);
    client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
    unexport(f, "ro", 0, &l);
    wait_left(f, &l);
    export(f, "ro", true);
    m.n = 0;
    put_string(&m, "ro");
    put16(&m, 0);
    client_option(c, NBD_OPT_GO, &m);
    client_recv(c, b, sizeof(b));
    c->form = STRUCTURED;
    assert_int_equal(client_do(c, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
}

/* ---- And the end ---- */

static void
the_end_waits_for_who_leaves(void **state)
{
    struct fixture *f = *state;
    struct leave a, b;
    struct st_err err;

    client_go(f->client, "", STRUCTURED);
    client_go(connect_client(f, 1), "ro", STRUCTURED);
    unexport(f, "", FOREVER, &a);
    st_nbd_stop(f->nbd, FOREVER, on_stopped, f);
    unexport(f, "ro", FOREVER, &b);
    assert_int_equal(st_nbd_export(f->nbd, "x", NULL, f->disk, false, &err),
                     -ESHUTDOWN);
    assert_int_equal(client_read_at(f->client, 0, 0, f->buf, 512),
                     NBD_ESHUTDOWN);
    hang_up(f->client);
    hang_up(&f->client[1]);
    while (!f->stopped)
        turn(f);
    assert_true(a.done && !a.stopped && b.done && !b.stopped);
    assert_int_equal(f->rc, 0);
}

static void
leaves_during_the_last_flush(void **state)
{
    struct fixture *f = *state;
    struct leave a, b;

    hang_up(f->client);
    st_testnode_hang(f->node, true);
    st_nbd_stop(f->nbd, FOREVER, on_stopped, f);
    while (!st_testnode_held(f->node))
        turn(f);
    unexport(f, "", 0, &a);
    unexport(f, "ro", 0, &b);
    wait_left(f, &b); /* nothing of it is in use */
    turns(f, 20);
    assert_false(a.done || f->stopped);
    st_testnode_hang(f->node, false);
    while (!f->stopped)
        turn(f);
    assert_true(a.done && !a.stopped);
    assert_int_equal(st_nbd_unexport(f->nbd, "ro", 0, &b.u), -ENOENT);
}

/* ---- Inspect ---- */

struct seen {
    struct st_inspect v; /* first */
    char text[4096];
    size_t n;
};

static void
seen_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct seen *s = (struct seen *)v;

    s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s=%llu ",
                             name, (unsigned long long)value);
}

static void
seen_text(struct st_inspect *v, const char *name, const char *value)
{
    struct seen *s = (struct seen *)v;

    if (strcmp(name, "peer") == 0) {
        assert_int_equal(strncmp(value, "unix, pid ", 10), 0);
        return;
    }
    s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s='%s' ",
                             name, value);
}

static void
seen_enter(struct st_inspect *v, const char *name)
{
    struct seen *s = (struct seen *)v;

    s->n +=
        (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s{ ", name);
}

static void
seen_leave(struct st_inspect *v)
{
    struct seen *s = (struct seen *)v;

    s->n += (size_t)snprintf(s->text + s->n, sizeof(s->text) - s->n, "} ");
}

static void
everything_can_be_inspected(void **state)
{
    struct fixture *f = *state;
    struct seen s = {.v = {seen_u64, seen_text, seen_enter, seen_leave}};
    struct leave l;

    client_go(f->client, "", SIMPLE);
    client_greet(connect_client(f, 1));
    turns(f, 5);
    assert_int_equal(client_read_at(f->client, 0, 0, f->buf, 1000), 0);
    assert_int_equal(client_read_at(f->client, 0, SIZE, f->buf, 1), NBD_EINVAL);
    st_testnode_hang(f->node, true);
    client_request(f->client, NBD_CMD_READ, 0, 1, 0, 4096);
    while (!st_testnode_held(f->node))
        turn(f);
    unexport(f, "ro", FOREVER, &l);
    st_nbd_inspect(f->nbd, &s.v);
    assert_string_equal(
        s.text, "tls='off' clients_now=2 clients_total=2 requests=2 errors=1 "
                "protocol_errors=0 bytes_in=114 bytes_out=1120 leaving=1 "
                "exports{ { disk='d' description='a disk' read_only=0 "
                "clients=1 } } "
                "clients{ 1{ export='' tls='off' requests=2 in_flight=1 "
                "bytes_in=110 bytes_out=1102 age=0 } "
                "2{ tls='off' requests=0 in_flight=0 bytes_in=4 bytes_out=18 "
                "age=0 } } ");
    st_testnode_hang(f->node, false);
    wait_left(f, &l);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define L(name) cmocka_unit_test_setup_teardown(name, setup_loops, teardown)
    const struct CMUnitTest tests[] = {
        T(comes_while_clients_are_there),
        T(leaves_when_nobody_is_there),
        T(clients_are_told_then_closed),
        L(a_client_that_leaves_is_not_waited_for),
        T(a_begun_write_is_finished),
        L(requests_that_hang_are_cancelled),
        T(what_cannot_be_cancelled_is_waited_for),
        L(the_same_name_can_come_back_at_once),
        T(a_context_is_not_inherited_by_name),
        L(the_end_waits_for_who_leaves),
        T(leaves_during_the_last_flush),
        T(everything_can_be_inspected),
    };
#undef L
#undef T

    return cmocka_run_group_tests(tests, NULL, NULL);
}
