/* SPDX-License-Identifier: MIT
 *
 * What the NBD server bounds, whom it survives, and how it ends.
 */
#include "test_server.h"

static int
setup_loops(void **state)
{
    return setup_with(state, (struct st_testnode_opts){0}, 0, LOOPS);
}

/* ---- Limits ---- */

static void
no_more_than_256_requests_at_once(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    client_go(c, "", SIMPLE);
    st_testnode_hang(f->node, true);
    for (unsigned i = 0; i < 400; i++)
        client_request(c, NBD_CMD_READ, 0, 7, 0, 512);
    while (st_testnode_held(f->node) < 256)
        turn(f);
    turns(f, 50);
    assert_int_equal(st_testnode_held(f->node), 256);
    st_testnode_hang(f->node, false);
    for (unsigned i = 0; i < 400; i++)
        assert_int_equal(client_reply(c, 7, 0, f->buf, 512), 0);
}

static void
who_never_reads_is_bounded_and_hurts_nobody(void **state)
{
    struct fixture *f = *state;
    struct st_cap_row *row = &st_domain_caps(f->domain)->row[ST_CAP_NBD_MEMORY];
    struct client *good;

    row->limit = 32 << 20;
    for (unsigned i = 0; i < 10; i++) {
        struct client *bad = i ? connect_client(f, i) : f->client;

        client_go(bad, "", i % 3);
        for (unsigned k = 0; k < 200; k++)
            client_request(bad, NBD_CMD_READ, 0, k, 0, 1 << 20);
        turns(f, 50);
    }
    turns(f, 500);
    assert_in_range(row->peak, 1 << 20, row->limit);
    good = connect_client(f, 20);
    client_go(good, "", STRUCTURED);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(client_write_at(good, 0, 0, f->want, 1 << 20), 0);
        assert_int_equal(client_read_at(good, 0, 0, f->buf, 1 << 20), 0);
    }
    assert_true(row->peak <= row->limit);
}

static void
memory_cap_makes_wait_and_serves_all(void **state)
{
    struct fixture *f = *state;
    struct st_cap_row *row = &st_domain_caps(f->domain)->row[ST_CAP_NBD_MEMORY];
    enum { N = 8, K = 12 };
    unsigned seen[N] = {0};

    row->limit = 2 << 20;
    st_testnode_hang(f->node, true);
    for (unsigned i = 0; i < N; i++) {
        struct client *c = i ? connect_client(f, i) : f->client;

        client_go(c, "", STRUCTURED);
        for (unsigned k = 0; k < K; k++)
            client_request(c, NBD_CMD_READ, 0, k, 0, 200000);
    }
    turns(f, 200);
    assert_true(row->refused > 0);
    assert_true(row->peak <= row->limit);
    assert_true(st_testnode_held(f->node) < N * K);
    st_testnode_hang(f->node, false);
    /* All at the same time, in any order: each gets its turn. */
    for (unsigned k = 0; k < K; k++) {
        for (unsigned i = 0; i < N; i++) {
            struct chunk h = client_chunk(&f->client[i]);

            assert_int_equal(h.type, NBD_CHUNK_OFFSET_DATA);
            assert_int_equal(h.len, 8 + 200000);
            assert_true(h.cookie < K && !(seen[i] >> h.cookie & 1));
            seen[i] |= 1u << h.cookie;
            client_recv(&f->client[i], f->buf, h.len);
        }
    }
    assert_true(row->peak <= row->limit);
}

static void
large_writes_share_a_small_cap(void **state)
{
    struct fixture *f = *state;
    struct st_cap_row *row = &st_domain_caps(f->domain)->row[ST_CAP_NBD_MEMORY];

    row->limit = 1 << 20;
    for (unsigned i = 0; i < 4; i++) {
        struct client *c = i ? connect_client(f, i) : f->client;

        client_go(c, "", i % 3);
        assert_int_equal(client_write_at(c, 0, 0, f->want, SIZE), 0);
        /* What cannot be sent piece by piece does not fit. */
        assert_int_equal(client_read_at(c, 0, 0, f->buf, SIZE),
                         i % 3 == SIMPLE ? NBD_ENOMEM : 0);
        assert_memory_equal(i % 3 == SIMPLE ? f->want : f->buf, f->want, SIZE);
        assert_int_equal(client_read_at(c, 0, 0, f->buf, 256 << 10), 0);
    }
    assert_true(row->peak <= row->limit);
}

/* Each loop has received a request and holds a block for it, which is less than
 * it needs and, with what it needs, more than its part of the cap. Nothing of
 * that comes back while it waits. */
static void
loops_that_wait_for_each_other_go_on(void **state)
{
    struct fixture *f = *state;
    struct st_cap_row *row = &st_domain_caps(f->domain)->row[ST_CAP_NBD_MEMORY];
    enum { LEN = 256 << 10 };

    row->limit = 1 << 20;
    for (unsigned i = 0; i < LOOPS; i++)
        client_go(i ? connect_client(f, i) : f->client, "", SIMPLE);
    st_testnode_hang(f->node, true);
    for (unsigned i = 0; i < LOOPS; i++)
        client_request(&f->client[i], NBD_CMD_READ, 0, i, 0, LEN);
    turns(f, 50);
    st_testnode_hang(f->node, false);
    f->patience = 1000;
    for (unsigned i = 0; i < LOOPS; i++)
        assert_int_equal(client_reply(&f->client[i], i, 0, f->buf, LEN), 0);
    f->patience = 0;
    assert_true(row->peak <= row->limit);
}

static void
too_many_clients_are_turned_away(void **state)
{
    struct fixture *f = *state;
    struct st_err err;
    int fd[2];
    char b;

    st_domain_caps(f->domain)->row[ST_CAP_NBD_CLIENTS].limit = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(st_nbd_connection(f->nbd, fd[1], NULL, NULL, &err),
                     -EBUSY);
    assert_int_equal(recv(fd[0], &b, 1, 0), 0);
    close(fd[0]);
    client_go(f->client, "", SIMPLE); /* the first one is served */
}

static void
clients_that_die_leave_nothing(void **state)
{
    struct fixture *f = *state;

    st_testnode_hang(f->node, true);
    for (unsigned i = 0; i < 200; i++) {
        struct client *c = connect_client(f, 1);

        client_go(c, "", i % 3);
        client_write(c, 0, 1, 0, f->buf, 1 + i * 500);
        client_request(c, NBD_CMD_READ, 0, 2, 0, 1 + i * 5000);
        client_request(c, NBD_CMD_WRITE,
                       c->form == EXTENDED ? NBD_CMD_PAYLOAD_LEN : 0, 3, 0,
                       1 << 20); /* payload never comes whole */
        client_send(c, f->buf, i * 700);
        if (i % 16 == 0) {
            turns(f, 5);
            st_testnode_hang(f->node, false);
            turns(f, 5);
            st_testnode_hang(f->node, true);
        }
        hang_up(c);
    }
    st_testnode_hang(f->node, false);
    while (f->ended < 200)
        turn(f);
    client_go(f->client, "", SIMPLE);
    assert_int_equal(client_read_at(f->client, 0, 0, f->buf, 4096), 0);
}

static void
garbage_never_hurts(void **state)
{
    struct fixture *f = *state;
    struct st_rand r = st_rand_seed(42);

    for (unsigned i = 0; i < 600; i++) {
        struct client *c = connect_client(f, 1);
        uint8_t b[600];
        size_t n = st_rand_below(&r, sizeof(b));

        if (i % 4 == 1)
            client_greet(c);
        else if (i % 4)
            client_go(c, "", i % 3);
        for (size_t k = 0; k < n; k++)
            b[k] = (uint8_t)st_rand_next(&r);
        for (size_t k = 0; k + 28 < n; k += 28 + st_rand_below(&r, 40)) {
            be32 magic =
                be32_of(i % 3 == 2 ? NBD_REQUEST_EXT : NBD_REQUEST_MAGIC);

            memcpy(b + k, &magic, 4); /* mostly plausible */
            b[k + 4] = b[k + 6] = 0;
            b[k + 7] &= 7;
            b[k + 24] = 0;
        }
        client_send(c, b, n);
        turns(f, (unsigned)st_rand_below(&r, 8));
        hang_up(c);
    }
    while (f->ended < 600)
        turn(f);
}

/* ---- Listening and stopping ---- */

static void
listens_on_tcp(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_storage a = {.ss_family = AF_INET};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct client *c = &f->client[1];
    struct st_err err;

    assert_int_equal(listen(fd, 8), 0); /* any port of any address */
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(st_nbd_listen(f->nbd, fd, &err), 0);
    *c = (struct client){.turn = turn, .arg = f};
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&a, len), 0);
    client_go(c, "", STRUCTURED);
    fill(f->want, SIZE, 8);
    assert_int_equal(client_write_at(c, 0, 0, f->want, SIZE), 0);
    assert_int_equal(client_read_at(c, 0, 0, f->buf, SIZE), 0);
    assert_memory_equal(f->buf, f->want, SIZE);
}

static void
exports_have_one_name_each(void **state)
{
    struct fixture *f = *state;
    struct st_err err;
    char *name = calloc(1, 4098);

    memset(name, 'x', 4097);
    assert_int_equal(st_nbd_export(f->nbd, "ro", "", f->disk, false, &err),
                     -EEXIST);
    assert_int_equal(st_nbd_export(f->nbd, name, "", f->disk, false, &err),
                     -EINVAL);
    free(name);
}

static void
stop_drains_then_flushes(void **state)
{
    struct fixture *f = *state;
    struct client *a = f->client, *b = connect_client(f, 1);
    struct st_err err;
    int fd[2];

    client_go(a, "", STRUCTURED);
    client_greet(b);
    assert_int_equal(client_write_at(a, 0, 0, f->want, 4096), 0);
    st_testnode_hang(f->node, true);
    client_request(a, NBD_CMD_READ, 0, 1, 0, 4096);
    while (!st_testnode_held(f->node))
        turn(f);
    st_nbd_stop(f->nbd, UINT64_C(1) << 50, on_stopped, f);
    client_option(b, NBD_OPT_LIST, NULL);
    client_expect_error(b, NBD_OPT_LIST, NBD_REP_ERR_SHUTDOWN);
    client_option(b, NBD_OPT_ABORT, NULL);
    client_expect_reply(b, NBD_OPT_ABORT, NBD_REP_ACK, NULL, 0);
    client_write(a, 0, 2, 0, f->want, 4096); /* refused, payload consumed */
    assert_int_equal(client_reply(a, 2, 0, NULL, 0), NBD_ESHUTDOWN);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(st_nbd_connection(f->nbd, fd[1], NULL, NULL, &err),
                     -ESHUTDOWN);
    close(fd[0]);
    st_testnode_hang(f->node, false);
    assert_int_equal(client_reply(a, 1, 0, f->buf, 4096), 0);
    turns(f, 20);
    assert_false(f->stopped);
    client_request(a, NBD_CMD_DISC, 0, 3, 0, 0);
    while (!f->stopped)
        turn(f);
    assert_int_equal(f->rc, 0);
    assert_memory_equal(st_testnode_durable(f->node), f->want, 4096);
}

static void
stop_cuts_after_its_timeout(void **state)
{
    struct fixture *f = *state;

    client_go(f->client, "", SIMPLE);
    st_nbd_stop(f->nbd, 0, on_stopped, f);
    client_expect_end(f->client);
    while (!f->stopped)
        turn(f);
    assert_int_equal(f->rc, 0); /* nothing was in flight */
}

static void
cut_cancels_what_is_in_flight(void **state)
{
    struct fixture *f = *state;

    client_go(f->client, "", SIMPLE);
    st_testnode_hang(f->node, true);
    client_request(f->client, NBD_CMD_READ, 0, 1, 0, 4096);
    while (!st_testnode_held(f->node))
        turn(f);
    st_nbd_stop(f->nbd, UINT64_C(1) << 50, on_stopped, f);
    st_nbd_cut(f->nbd);
    client_expect_end(f->client);
    while (!f->ended)
        turn(f);
    st_testnode_hang(f->node, false);
    while (!f->stopped)
        turn(f);
    assert_int_equal(f->rc, -ETIMEDOUT);
}

static void
stop_reports_a_failed_flush(void **state)
{
    struct fixture *f = *state;

    hang_up(f->client);
    st_testnode_fail(f->node, ST_BIT(ST_OP_FLUSH), ST_IO, UINT32_MAX);
    st_nbd_stop(f->nbd, 0, on_stopped, f);
    while (!f->stopped)
        turn(f);
    assert_int_equal(f->rc, -EIO);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(no_more_than_256_requests_at_once),
        T(who_never_reads_is_bounded_and_hurts_nobody),
        T(memory_cap_makes_wait_and_serves_all),
        T(large_writes_share_a_small_cap),
        cmocka_unit_test_setup_teardown(loops_that_wait_for_each_other_go_on,
                                        setup_loops, teardown),
        T(too_many_clients_are_turned_away),
        T(clients_that_die_leave_nothing),
        T(garbage_never_hurts),
        T(listens_on_tcp),
        T(exports_have_one_name_each),
        T(stop_drains_then_flushes),
        T(stop_cuts_after_its_timeout),
        T(cut_cancels_what_is_in_flight),
        T(stop_reports_a_failed_flush),
    };
#undef T

    return cmocka_run_group_tests(tests, NULL, NULL);
}
