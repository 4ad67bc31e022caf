/* SPDX-License-Identifier: MIT
 *
 * What clients may do to NBD through TLS: stop, lie, die, talk without end.
 */
#include "test_tls_server.h"

static int
setup_hurry(void **state)
{
    return setup_tls(state, ST_NBD_TLS_ON, "server", false, 300000000, 1);
}

static void
a_handshake_that_stops_is_ended(void **state)
{
    struct fixture *f = *state;
    uint8_t b[4000];

    for (unsigned i = 0; i < 4; i++) {
        struct client *c = connect_client(f, 1 + i);

        client_greet(c);
        tls_client_ask(c);
        /* Nothing; the start of a record; a record's head; a whole hello. */
        if (i == 3) {
            tls_client_new(c, (struct manner){.dir = dir});
            SSL_connect(c->ssl);
        } else {
            client_send(c, "\26\3\1\1\0", i == 2 ? 5 : i);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        struct client *c = &f->client[1 + i];

        if (c->ssl)
            tls_client_free(c);
        client_recv(c, b, sizeof(b)); /* until it ends */
    }
    while (f->ended < 4)
        turn(f);
    assert_non_null(strstr(f->lines, "handshake takes too long"));
}

static void
garbage_instead_of_tls(void **state)
{
    struct fixture *f = *state;
    struct st_rand r = st_rand_seed(11);
    uint8_t b[3000];

    for (unsigned i = 0; i < 200; i++) {
        struct client *c = connect_client(f, 1);
        size_t n = 1 + st_rand_below(&r, sizeof(b) - 1);

        client_greet(c);
        tls_client_ask(c);
        for (size_t k = 0; k < n; k++)
            b[k] = (uint8_t)st_rand_next(&r);
        if (i % 3)
            memcpy(b, "\26\3\1\2\0\1\0\1\374\3\3",
                   st_min(n, 11)); /* plausible */
        client_send(c, b, n);
        turns(f, (unsigned)st_rand_below(&r, 6));
        hang_up(c);
    }
    while (f->ended < 200)
        turn(f);
    tls_client_up(f->client, (struct manner){.dir = dir});
}

/* The bytes of a session are changed, or cut off, on their way. */
static void
a_changed_record_ends_it(void **state)
{
    struct fixture *f = *state;
    uint8_t b[64] = "\27\3\3\0\73"; /* application data of 59 bytes: not ours */

    for (unsigned i = 0; i < 2; i++) {
        struct client *c = connect_client(f, 1);

        tls_client_up(
            c, (struct manner){.dir = dir, .version = i ? TLS1_2_VERSION : 0});
        tls_client_go(c, "", SIMPLE);
        assert_int_equal(send(c->fd, b, sizeof(b), 0), sizeof(b));
        client_expect_end(c);
        drop(c);
        while (f->ended <= i)
            turn(f);
    }
    assert_non_null(strstr(f->lines, "tls: "));
}

static void
clients_that_die_anywhere(void **state)
{
    struct fixture *f = *state;
    struct st_rand r = st_rand_seed(5);

    for (unsigned i = 0; i < 120; i++) {
        struct client *c = connect_client(f, 1);

        client_greet(c);
        tls_client_ask(c);
        tls_client_new(c, (struct manner){.dir = dir});
        if (i % 4 == 0) {
            SSL_connect(c->ssl);
            turns(f, (unsigned)st_rand_below(&r, 3));
        } else {
            assert_true(tls_client_shake(c));
        }
        if (i % 4 > 1) {
            st_testnode_hang(f->node, i % 3 == 0);
            tls_client_go(c, "", i % 3);
            client_write(c, 0, 1, 0, f->buf, 1 + i * 500);
            client_request(c, NBD_CMD_READ, 0, 2, 0, 1 + i * 5000);
            client_request(c, NBD_CMD_READ, 0, 3, 0, 1 << 20);
            client_request(c, NBD_CMD_WRITE,
                           c->form == EXTENDED ? NBD_CMD_PAYLOAD_LEN : 0, 3, 0,
                           1 << 20); /* payload never comes whole */
            client_send(c, f->buf, i * 700);
            turns(f, (unsigned)st_rand_below(&r, 6));
        }
        if (i % 2)
            SSL_shutdown(c->ssl);
        drop(c);
    }
    st_testnode_hang(f->node, false);
    while (f->ended < 120)
        turn(f);
    tls_client_up(f->client, (struct manner){.dir = dir});
    tls_client_go(f->client, "", SIMPLE);
    assert_int_equal(client_read_at(f->client, 0, 0, f->buf, 4096), 0);
}

static void
who_never_reads_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct st_cap_row *row = &st_domain_caps(f->domain)->row[ST_CAP_NBD_MEMORY];
    struct client *good = connect_client(f, 20);

    row->limit = 32 << 20;
    for (unsigned i = 0; i < 8; i++) {
        struct client *bad = i ? connect_client(f, i) : f->client;

        tls_client_up(bad, (struct manner){.dir = dir});
        tls_client_go(bad, "", i % 3);
        for (unsigned k = 0; k < 200; k++)
            client_request(bad, NBD_CMD_READ, 0, k, 0, 1 << 20);
        turns(f, 50);
    }
    turns(f, 300);
    assert_in_range(row->peak, 1 << 20, row->limit);
    tls_client_up(good, (struct manner){.dir = dir});
    tls_client_go(good, "", STRUCTURED);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(client_write_at(good, 0, 0, f->want, 1 << 20), 0);
        assert_int_equal(client_read_at(good, 0, 0, f->buf, 1 << 20), 0);
    }
    /* And those get all of it when they do read. */
    for (unsigned k = 0; k < 200; k++)
        assert_int_equal(client_reply(f->client, k, 0, f->buf, 1 << 20), 0);
}

/* What OpenSSL and unread replies take has a cap of its own. */
static void
sessions_are_counted_and_have_an_end(void **state)
{
    struct fixture *f = *state;
    struct st_cap_row *row = &st_domain_caps(f->domain)->row[ST_CAP_NBD_TLS];
    struct client *c = f->client, *other = connect_client(f, 1);
    uint64_t session;

    assert_int_equal(row->used, 0);
    tls_client_up(c, (struct manner){.dir = dir});
    tls_client_go(c, "", SIMPLE);
    session = row->used;
    assert_in_range(session, 32 << 10, 256 << 10);

    /* Another one does not fit: it is told so, and may stay in plain. */
    row->limit = session + 1;
    client_greet(other);
    client_option(other, NBD_OPT_STARTTLS, NULL);
    client_expect_error(other, NBD_OPT_STARTTLS, NBD_REP_ERR_PLATFORM);
    assert_int_equal(row->refused, 1);
    tls_client_go(other, "", SIMPLE);
    assert_int_equal(client_read_at(other, 0, 0, f->buf, 4096), 0);

    /* The first one's replies do not fit, since it does not read. */
    for (unsigned k = 0; k < 64; k++)
        client_request(c, NBD_CMD_READ, 0, k, 0, 1 << 20);
    while (!f->ended)
        turn(f);
    assert_non_null(strstr(f->lines, "too much is kept"));
    assert_int_equal(row->used, 0);
    assert_int_equal(row->refused, 2);
    assert_int_equal(client_read_at(other, 0, 0, f->buf, 4096), 0);
}

static void
half_a_close_still_gets_answers(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    tls_client_up(c, (struct manner){.dir = dir});
    tls_client_go(c, "", SIMPLE);
    st_testnode_hang(f->node, true);
    client_request(c, NBD_CMD_READ, 0, 1, 0, 4096);
    while (!st_testnode_held(f->node))
        turn(f);
    assert_int_equal(SSL_shutdown(c->ssl), 0);
    turns(f, 10);
    st_testnode_hang(f->node, false);
    assert_int_equal(client_reply(c, 1, 0, f->buf, 4096), 0);
    client_expect_end(c);
}

static void
keys_can_be_updated(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    tls_client_up(c, (struct manner){.dir = dir});
    tls_client_go(c, "", SIMPLE);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(
            SSL_key_update(c->ssl, i % 2 ? SSL_KEY_UPDATE_REQUESTED
                                         : SSL_KEY_UPDATE_NOT_REQUESTED),
            1);
        assert_int_equal(client_read_at(c, 0, 0, f->buf, 100000), 0);
    }
}

/* Thousands of wishes for new keys, and no answer is read. */
static void
updates_without_end_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client, *other;
    unsigned n;

    tls_client_up(c, (struct manner){.dir = dir});
    tls_client_go(c, "", SIMPLE);
    for (n = 0; n < 300000; n++) {
        SSL_key_update(c->ssl, SSL_KEY_UPDATE_REQUESTED);
        ERR_clear_error();
        if (SSL_do_handshake(c->ssl) == 1)
            continue;
        if (!SSL_want_write(c->ssl))
            break;
        for (unsigned k = 0; k < 1000 && SSL_want_write(c->ssl); k++) {
            turn(f);
            if (SSL_do_handshake(c->ssl) != 1 && !SSL_want_write(c->ssl))
                break;
        }
        if (f->ended)
            break;
    }
    assert_true(f->ended == 1 && n < 300000);
    other = connect_client(f, 1);
    tls_client_up(other, (struct manner){.dir = dir});
    tls_client_go(other, "", SIMPLE);
    assert_int_equal(client_read_at(other, 0, 0, f->buf, 4096), 0);
}

static void
stop_ends_tls_clients_as_others(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    tls_client_up(c, (struct manner){.dir = dir});
    tls_client_go(c, "", STRUCTURED);
    st_nbd_stop(f->nbd, UINT64_C(1) << 50, on_stopped, f);
    assert_int_equal(client_read_at(c, 0, 0, f->buf, 512), NBD_ESHUTDOWN);
    st_nbd_cut(f->nbd);
    client_expect_end(c);
    while (!f->stopped)
        turn(f);
    assert_int_equal(f->rc, 0);
}

int
main(void)
{
#define T(name, how) cmocka_unit_test_setup_teardown(name, how, teardown_tls)
    const struct CMUnitTest tests[] = {
        T(a_handshake_that_stops_is_ended, setup_hurry),
        T(garbage_instead_of_tls, setup_on),
        T(a_changed_record_ends_it, setup_on),
        T(clients_that_die_anywhere, setup_on),
        T(who_never_reads_is_bounded, setup_on),
        T(sessions_are_counted_and_have_an_end, setup_on),
        T(half_a_close_still_gets_answers, setup_on),
        T(keys_can_be_updated, setup_on),
        T(updates_without_end_are_bounded, setup_on),
        T(stop_ends_tls_clients_as_others, setup_on),
    };
#undef T

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
