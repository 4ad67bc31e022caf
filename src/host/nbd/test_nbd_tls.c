/* SPDX-License-Identifier: MIT
 *
 * NBD through TLS: who gets in and who does not, what goes through, the rules
 * of STARTTLS, and the files.
 */
#include "nbd_private.h"
#include "test_tls_server.h"

static int
setup_mutual(void **state)
{
    return setup_tls(state, ST_NBD_TLS_REQUIRE, "mutual", false, 0, 1);
}

static int
setup_strict(void **state)
{
    return setup_tls(state, ST_NBD_TLS_REQUIRE, "strict", false, 0, 1);
}

static int
setup_psk(void **state)
{
    return setup_tls(state, ST_NBD_TLS_REQUIRE, NULL, true, 0, 1);
}

static int
setup_both(void **state)
{
    return setup_tls(state, ST_NBD_TLS_REQUIRE, "mutual", true, 0, LOOPS);
}

/* A client comes as M says and is turned away; the log says WHY. */
static void
turned_away(struct fixture *f, struct manner m, const char *why)
{
    struct client *c = connect_client(f, MANY - 1);
    unsigned ended = f->ended;
    uint8_t b;

    client_greet(c);
    tls_client_ask(c);
    tls_client_new(c, m);
    if (tls_client_shake(c)) /* TLS 1.3: it learns it later */
        assert_int_equal(client_recv(c, &b, 1), 0);
    drop(c);
    while (f->ended == ended)
        turn(f);
    if (why && !strstr(f->lines, why))
        fail_msg("wanted '%s' in:\n%s", why, f->lines);
    f->lines[0] = 0;
    f->nbd->limiter = (struct st_limiter){0}; /* or wait for a second */
}

/* ---- Who gets in ---- */

static void
certificates_carry_everything(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 6; i++) {
        struct client *c = connect_client(f, 1);
        struct manner m = {.dir = dir, .version = i & 1 ? TLS1_2_VERSION : 0};

        tls_client_up(c, m);
        assert_int_equal(SSL_version(c->ssl),
                         i & 1 ? TLS1_2_VERSION : TLS1_3_VERSION);
        tls_client_go(c, "", i % 3);
        fill(f->want, SIZE, i);
        /* Whole, then in odd pieces. */
        assert_int_equal(client_write_at(c, 0, 0, f->want, SIZE), 0);
        assert_memory_equal(st_testnode_bytes(f->node), f->want, SIZE);
        assert_int_equal(client_read_at(c, 0, 0, f->buf, SIZE), 0);
        assert_memory_equal(f->buf, f->want, SIZE);
        for (unsigned len = 1; len < 70000; len += 1 + len / 3) {
            uint64_t off = 77 * len % (SIZE - len);

            assert_int_equal(client_write_at(c, NBD_CMD_FUA, off, f->buf, len),
                             0);
            assert_int_equal(client_read_at(c, 0, off, f->want, len), 0);
            assert_memory_equal(f->buf, f->want, len);
        }
        assert_int_equal(client_do(c, NBD_CMD_FLUSH, 0, 0, 0), 0);
        client_request(c, NBD_CMD_DISC, 0, 0, 0, 0);
        client_expect_end(c);
        /* The end was said, not cut. */
        assert_true(SSL_get_shutdown(c->ssl) & SSL_RECEIVED_SHUTDOWN);
        drop(c);
    }
    assert_int_equal(f->nlines, 0);
}

static void
many_requests_share_records(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    enum { N = 200 };

    tls_client_up(c, (struct manner){.dir = dir});
    tls_client_go(c, "", STRUCTURED);
    fill(f->want, SIZE, 3);
    for (unsigned i = 0; i < N; i++)
        client_write(c, 0, i, i * 5000, f->want + i * 5000, 5000);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(client_chunk(c).type, NBD_CHUNK_NONE);
    for (unsigned i = 0; i < N; i++)
        client_request(c, NBD_CMD_READ, 0, i, i * 5000, 5000);
    for (unsigned i = 0; i < N; i++) {
        struct chunk h = client_chunk(c);

        assert_int_equal(h.type, NBD_CHUNK_OFFSET_DATA);
        assert_int_equal(client_recv(c, f->buf, 5008), 5008);
        assert_memory_equal(f->buf + 8, f->want + h.cookie * 5000, 5000);
    }
}

static void
only_certificates_of_our_authority(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *who, *why;
    } wrong[] = {
        {NULL, "peer did not return a certificate"},
        {"other", "unable to get local issuer certificate"},
        {"expired", "certificate has expired"},
    };

    for (unsigned i = 0; i < 6; i++) {
        struct manner m = {.dir = dir,
                           .who = wrong[i / 2].who,
                           .version = i & 1 ? TLS1_2_VERSION : 0};

        turned_away(f, m, wrong[i / 2].why);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct client *c = connect_client(f, 1);
        struct manner m = {
            .dir = dir, .who = "good", .version = i ? TLS1_2_VERSION : 0};

        tls_client_up(c, m);
        tls_client_go(c, "", SIMPLE);
        assert_int_equal(client_read_at(c, 0, 0, f->buf, 512), 0);
        drop(c);
    }
}

static void
certificates_can_be_revoked(void **state)
{
    struct fixture *f = *state;

    turned_away(f, (struct manner){.dir = dir, .who = "revoked"},
                "certificate revoked");
    tls_client_up(f->client, (struct manner){.dir = dir, .who = "good"});
    tls_client_go(f->client, "", SIMPLE);
    assert_int_equal(client_read_at(f->client, 0, 0, f->buf, 512), 0);
}

static void
only_with_the_key(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    char key[] = "alice:" PSK_HEX;

    tls_client_up(c, (struct manner){.psk = "alice:" PSK_HEX});
    tls_client_go(c, "", STRUCTURED);
    fill(f->want, SIZE, 3);
    assert_int_equal(client_write_at(c, 0, 0, f->want, SIZE), 0);
    assert_int_equal(client_read_at(c, 0, 0, f->buf, SIZE), 0);
    assert_memory_equal(f->buf, f->want, SIZE);

    key[strlen(key) - 1] ^= 1;
    turned_away(f, (struct manner){.psk = key}, "binder does not verify");
    turned_away(f, (struct manner){.psk = "bob:" PSK_HEX}, "unknown PSK user");
    turned_away(f, (struct manner){.psk = "alic:" PSK_HEX}, "unknown PSK user");
    turned_away(f, (struct manner){.dir = dir}, "tls: "); /* no certificate */
    turned_away(
        f, (struct manner){.psk = "alice:" PSK_HEX, .version = TLS1_2_VERSION},
        "tls: ");
}

struct tls_seen {
    struct st_inspect v; /* first */
    char text[2000];
};

static void
see_text(struct st_inspect *v, const char *name, const char *value)
{
    char *text = ((struct tls_seen *)v)->text;
    size_t n = strlen(text);

    if (strcmp(name, "tls") == 0 || strcmp(name, "user") == 0)
        snprintf(text + n, sizeof(((struct tls_seen *)v)->text) - n, "%s=%s ",
                 name, value);
}

static void
see_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    (void)v;
    (void)name;
    (void)value;
}

static void
see_enter(struct st_inspect *v, const char *name)
{
    (void)v;
    (void)name;
}

static void
see_leave(struct st_inspect *v)
{
    (void)v;
}

/* Four clients on several loops; each of the two ways is enough. */
static void
either_certificate_or_key(void **state)
{
    struct fixture *f = *state;
    struct tls_seen s = {.v = {see_u64, see_text, see_enter, see_leave}};
    static const struct manner by[] = {
        {.dir = dir, .who = "good"},
        {.psk = "alice:" PSK_HEX},
        {.dir = dir, .who = "good", .version = TLS1_2_VERSION},
        {.psk = "alice:" PSK_HEX},
    };

    for (unsigned i = 0; i < 4; i++) {
        struct client *c = i ? connect_client(f, i) : f->client;

        tls_client_up(c, by[i]);
        tls_client_go(c, "", i % 3);
    }
    for (unsigned n = 0; n < 20; n++)
        for (unsigned i = 0; i < 4; i++) {
            fill(f->want, 100000, n * 4 + i);
            assert_int_equal(
                client_write_at(&f->client[i], 0, i * 1000000, f->want, 100000),
                0);
            assert_int_equal(client_read_at(&f->client[(i + 1) % 4], 0,
                                            i * 1000000, f->buf, 100000),
                             0);
            assert_memory_equal(f->buf, f->want, 100000);
        }
    st_nbd_inspect(f->nbd, &s.v);
    assert_string_equal(s.text, "tls=require tls=TLSv1.3 user=alice "
                                "tls=TLSv1.3 user=alice "
                                "tls=TLSv1.2 user=alice "
                                "tls=TLSv1.3 user=alice ");
    turned_away(f, (struct manner){.dir = dir}, "did not return a certificate");
}

/* ---- The rules of STARTTLS ---- */

static void
without_tls_it_is_policy(void **state)
{
    struct fixture *f = *state;

    client_greet(f->client);
    client_option(f->client, NBD_OPT_STARTTLS, NULL);
    client_expect_error(f->client, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY);
    client_option(f->client, NBD_OPT_STRUCTURED_REPLY, NULL);
    client_expect_reply(f->client, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL,
                        0);
}

static void
plain_clients_may_stay_plain(void **state)
{
    struct fixture *f = *state;

    client_go(f->client, "", STRUCTURED);
    assert_int_equal(client_read_at(f->client, 0, 0, f->buf, 4096), 0);
}

static void
required_comes_before_every_option(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    struct msg m = {.n = 6}, big = {.n = 0}, *none = NULL;

    client_greet(c);
    for (uint32_t option = 0; option < 20; option++) {
        if (option == NBD_OPT_EXPORT_NAME || option == NBD_OPT_ABORT ||
            option == NBD_OPT_STARTTLS)
            continue;
        client_option(c, option, option % 2 ? &m : none);
        client_expect_error(c, option, NBD_REP_ERR_TLS_REQD);
    }
    put64(&big, NBD_OPTION_MAGIC); /* too long, too */
    put32(&big, NBD_OPT_INFO);
    put32(&big, 65537);
    client_send(c, big.b, big.n);
    client_send(c, f->buf, 65537);
    client_expect_error(c, NBD_OPT_INFO, NBD_REP_ERR_TLS_REQD);
    client_option(c, NBD_OPT_STARTTLS, &m);
    client_expect_error(c, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID);
    client_option(c, NBD_OPT_ABORT, NULL);
    client_expect_reply(c, NBD_OPT_ABORT, NBD_REP_ACK, NULL, 0);
    client_expect_end(c);

    c = connect_client(f, 1);
    client_greet(c);
    m.n = 0;
    client_option(c, NBD_OPT_EXPORT_NAME, &m);
    client_expect_end(c);
}

static void
once_is_enough(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    tls_client_up(c, (struct manner){.dir = dir});
    client_option(c, NBD_OPT_STARTTLS, NULL);
    client_expect_error(c, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID);
    tls_client_go(c, "", SIMPLE);
    assert_int_equal(client_read_at(c, 0, 0, f->buf, 4096), 0);
}

static void
what_was_said_in_plain_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    struct msg m = {.n = 0};

    client_greet(c);
    client_option(c, NBD_OPT_EXTENDED_HEADERS, NULL);
    client_expect_reply(c, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK, NULL, 0);
    put_string(&m, "");
    put32(&m, 1);
    put_string(&m, "base:allocation");
    client_option(c, NBD_OPT_SET_META_CONTEXT, &m);
    client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT,
                        "\0\0\0\1base:allocation", 19);
    client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
    tls_client_ask(c);
    tls_client_new(c, (struct manner){.dir = dir});
    assert_true(tls_client_shake(c));
    client_option(c, NBD_OPT_SET_META_CONTEXT, &m);
    client_expect_error(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_INVALID);
    assert_int_equal(tls_client_go(c, "", SIMPLE) & NBD_SEND_DF, 0);
    assert_int_equal(client_read_at(c, 0, 0, f->buf, 4096), 0);

    /* A context alone, too. */
    c = connect_client(f, 1);
    client_greet(c);
    client_option(c, NBD_OPT_STRUCTURED_REPLY, NULL);
    client_expect_reply(c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
    client_option(c, NBD_OPT_SET_META_CONTEXT, &m);
    client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT,
                        "\0\0\0\1base:allocation", 19);
    client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
    tls_client_ask(c);
    tls_client_new(c, (struct manner){.dir = dir});
    assert_true(tls_client_shake(c));
    tls_client_go(c, "", STRUCTURED);
    assert_int_equal(client_do(c, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
}

static void
words_behind_starttls_end_it(void **state)
{
    struct fixture *f = *state;

    /* With STARTTLS; and after its answer, where they are no TLS. */
    for (unsigned late = 0; late < 2; late++) {
        struct client *c = connect_client(f, 1);
        struct msg m = {.n = 0};

        client_greet(c);
        put64(&m, NBD_OPTION_MAGIC);
        put32(&m, NBD_OPT_STARTTLS);
        put32(&m, 0);
        if (late) {
            client_send(c, m.b, m.n);
            client_expect_reply(c, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
            m.n = 0;
        }
        put64(&m, NBD_OPTION_MAGIC);
        put32(&m, NBD_OPT_LIST);
        put32(&m, 0);
        client_send(c, m.b, m.n);
        if (late) { /* an alert may come, but no list */
            uint8_t b[100];
            size_t n = client_recv(c, b, sizeof(b));

            assert_in_range(n, 0, 7);
        } else {
            client_expect_end(c);
        }
        drop(c);
        while (f->ended <= late)
            turn(f);
    }
    assert_non_null(strstr(f->lines, "more bytes behind STARTTLS"));
}

/* ---- Files ---- */

static void
create_fails(struct fixture *f, const char *certificates, const char *psk,
             const char *why)
{
    struct st_nbd_opts o = {.control = f->loop[0],
                            .loops = f->loop,
                            .nloops = 1,
                            .tls = ST_NBD_TLS_ON,
                            .tls_certificates = certificates,
                            .tls_psk = psk};
    struct st_nbd *nbd = NULL;
    struct st_err err = {.text = ""};
    int rc = st_nbd_create(&o, &nbd, &err);

    assert_int_equal(rc, strstr(why, "No such file") ? -ENOENT : -EINVAL);
    assert_null(nbd);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
    assert_null(strchr(err.text, '\n'));
    assert_null(strstr(err.text, "00010203"));
}

static void
bad_keys_are_named_by_their_line(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text, *why;
    } file[] = {
        {"", "has no key"},
        {"# only words\n\n", "has no key"},
        {"alice\n", "line 1: expected USER:HEXKEY"},
        {"\n#\n" PSK_HEX "\n", "line 3: expected USER:HEXKEY"},
        {":" PSK_HEX "\n", "line 1: expected USER:HEXKEY"},
        {"alice:\n", "line 1: a key has 32 to 128"},
        {"alice:" PSK_HEX "0\n", "line 1: a key has 32 to 128"},
        {"alice:000102030405060708090a0b0c0d0e\n", "line 1: a key has 32"},
        {"alice:" PSK_HEX PSK_HEX PSK_HEX "\n", "line 1: a key has 32 to 128"},
        {"a:" PSK_HEX "\nb:0001020304050607 8090a0b0c0d0e0f\n",
         "line 2: a key is hex"},
        {"a:" PSK_HEX "\r\nb:" PSK_HEX "\r\na:" PSK_HEX, "line 3: this user"},
    };
    char *big = malloc((1 << 20) + 10);

    for (unsigned i = 0; i < sizeof(file) / sizeof(*file); i++) {
        tls_write(dir, "bad", file[i].text);
        create_fails(f, NULL, tls_path(dir, "bad"), file[i].why);
    }
    memset(big, '#', (1 << 20) + 1);
    big[(1 << 20) + 1] = 0;
    tls_write(dir, "bad", big);
    create_fails(f, NULL, tls_path(dir, "bad"), "longer than 1 MiB");
    memset(big, 'u', 129);
    snprintf(big + 129, 100, ":" PSK_HEX);
    tls_write(dir, "bad", big);
    create_fails(f, NULL, tls_path(dir, "bad"), "line 1: a user has at most");
    create_fails(f, NULL, tls_path(dir, "absent"), "No such file");
    create_fails(f, NULL, NULL, "TLS needs");
    free(big);
}

static void
bad_certificates_are_named(void **state)
{
    struct fixture *f = *state;
    struct identity id = identity_new("x", 1, NULL);
    const char *bad = tls_path(dir, "badcerts");
    char folder[100];
    FILE *file;

    snprintf(folder, sizeof(folder), "%s", bad);
    mkdir(folder, 0700);
    create_fails(f, folder, NULL, "server-cert.pem': No such file");
    identity_write(&id, folder, "server-cert.pem", NULL);
    create_fails(f, folder, NULL, "server-key.pem': No such file");
    tls_write(folder, "server-key.pem", "nonsense\n");
    create_fails(f, folder, NULL, "server-key.pem' is no key");
    identity_make("y", 1, NULL, folder, "y-cert.pem", "server-key.pem");
    create_fails(f, folder, NULL, "key values mismatch");
    /* With a passphrase, which must not be asked for. */
    file = fopen(tls_path(folder, "server-key.pem"), "w");
    PEM_write_PKCS8PrivateKey(file, id.key, EVP_aes_128_cbc(), "secret", 6,
                              NULL, NULL);
    fclose(file);
    create_fails(f, folder, NULL, "without a passphrase");
    identity_write(&id, folder, "server-cert.pem", "server-key.pem");
    tls_write(folder, "ca-cert.pem", "nonsense\n");
    create_fails(f, folder, NULL, "ca-cert.pem' is no certificate");
    identity_write(&id, folder, "ca-cert.pem", NULL);
    tls_write(folder, "ca-crl.pem", "nonsense\n");
    create_fails(f, folder, NULL, "ca-crl.pem' is no revocation list");
    tls_write(folder, "server-cert.pem", "nonsense\n");
    create_fails(f, folder, NULL, "server-cert.pem' is no certificate");
    identity_free(&id);
}

static void
secrets_that_all_can_read_are_warned_of(void **state)
{
    struct fixture *f = *state;
    struct st_nbd_opts o = {.control = f->loop[0],
                            .loops = f->loop,
                            .nloops = 1,
                            .tls = ST_NBD_TLS_ON,
                            .tls_psk = tls_path(dir, "public")};
    struct st_nbd *nbd;

    tls_write(dir, "public", "alice:" PSK_HEX "\n");
    assert_int_equal(st_nbd_create(&o, &nbd, NULL), 0);
    st_nbd_destroy(nbd);
    assert_int_equal(f->nlines, 0);
    chmod(o.tls_psk, 0644);
    assert_int_equal(st_nbd_create(&o, &nbd, NULL), 0);
    st_nbd_destroy(nbd);
    assert_int_equal(f->nlines, 1);
    assert_non_null(strstr(f->line, "public' holds a secret"));
}

int
main(void)
{
#define T(name, how) cmocka_unit_test_setup_teardown(name, how, teardown_tls)
    const struct CMUnitTest tests[] = {
        T(certificates_carry_everything, setup_on),
        T(many_requests_share_records, setup_on),
        T(only_certificates_of_our_authority, setup_mutual),
        T(certificates_can_be_revoked, setup_strict),
        T(only_with_the_key, setup_psk),
        T(either_certificate_or_key, setup_both),
        T(without_tls_it_is_policy, setup),
        T(plain_clients_may_stay_plain, setup_on),
        T(required_comes_before_every_option, setup_psk),
        T(once_is_enough, setup_on),
        T(what_was_said_in_plain_is_forgotten, setup_on),
        T(words_behind_starttls_end_it, setup_on),
        T(bad_keys_are_named_by_their_line, setup),
        T(bad_certificates_are_named, setup),
        T(secrets_that_all_can_read_are_warned_of, setup),
    };
#undef T

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
