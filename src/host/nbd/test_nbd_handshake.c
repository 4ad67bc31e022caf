/* SPDX-License-Identifier: MIT
 *
 * The NBD handshake, byte for byte, until a client has chosen an export.
 */
#include "test_server.h"

static int
setup_hurry(void **state)
{
    return setup_with(state, (struct st_testnode_opts){0}, 1, 1);
}

static void
greets_as_fixed_newstyle(void **state)
{
    struct fixture *f = *state;
    struct msg m = {.n = 0};

    put_text(&m, "NBDMAGICIHAVEOPT");
    put16(&m, 3);
    client_expect(f->client, &m);
}

static void
unknown_client_flags_end_it(void **state)
{
    struct fixture *f = *state;
    struct st_nbd_stats stats;
    uint8_t hello[18];

    client_recv(f->client, hello, 18);
    client_send(f->client, "\0\0\0\7", 4);
    client_expect_end(f->client);
    st_nbd_stats(f->nbd, &stats);
    assert_int_equal(stats.protocol_errors, 1);
}

/* What SETUP options do first, then OPTION with DATA: the replies, in words:
 * "A" ACK, "Exx" error xx, "S" server, "I" info, "M" meta context. */
static const struct {
    const char *name, *setup;
    uint32_t option;
    const char *data;
    size_t len;
    const char *replies;
} options[] = {
#define D(s) s, sizeof(s) - 1
    {"list", "", 3, D(""), "SSA"},
    {"list with data", "", 3, D("x"), "E3"},
    {"peek", "", 4, D(""), "E1"},
    {"starttls", "", 5, D(""), "E2"},
    {"unknown", "", 0xdead, D("abc"), "E1"},
    {"option 0", "", 0, D(""), "E1"},
    {"info", "", 6, D("\0\0\0\0\0\0"), "IA"},
    {"info, everything", "", 6, D("\0\0\0\0\0\5\0\0\0\1\0\2\0\3\0\11"),
     "IIIIA"},
    {"info, asked twice", "", 6, D("\0\0\0\0\0\2\0\3\0\3"), "IIA"},
    {"info, no description", "", 6, D("\0\0\0\2ro\0\1\0\2"), "IA"},
    {"info, unknown", "", 6, D("\0\0\0\1x\0\0"), "E6"},
    {"info, name with nul", "", 6, D("\0\0\0\3ro\0\0\0"), "E6"},
    {"info, empty", "", 6, D(""), "E3"},
    {"info, name too long for data", "", 6, D("\0\0\0\4ro\0\0"), "E3"},
    {"info, huge name", "", 6, D("\377\377\377\377ro\0\0"), "E3"},
    {"info, missing requests", "", 6, D("\0\0\0\0\0\1"), "E3"},
    {"info, trailing", "", 6, D("\0\0\0\0\0\0\0"), "E3"},
    {"go, unknown", "", 7, D("\0\0\0\1x\0\0"), "E6"},
    {"go, bad", "", 7, D("\0"), "E3"},
    {"structured", "", 8, D(""), "A"},
    {"structured with data", "", 8, D("x"), "E3"},
    {"structured after extended", "X", 8, D(""), "Ea"},
    {"extended", "", 11, D(""), "A"},
    {"extended with data", "", 11, D("x"), "E3"},
    {"list meta without structured", "", 9, D("\0\0\0\0\0\0\0\0"), "E3"},
    {"list meta, all", "T", 9, D("\0\0\0\0\0\0\0\0"), "MA"},
    {"list meta, wildcard", "T", 9, D("\0\0\0\0\0\0\0\1\0\0\0\5base:"), "MA"},
    {"list meta, other", "T", 9, D("\0\0\0\0\0\0\0\1\0\0\0\5qemu:"), "A"},
    {"list meta, extended", "X", 9, D("\0\0\0\0\0\0\0\0"), "MA"},
    {"set meta", "T", 10,
     D("\0\0\0\0\0\0\0\2\0\0\0\17base:allocation\0\0\0\3x:y"), "MA"},
    {"set meta, twice the same", "T", 10,
     D("\0\0\0\0\0\0\0\2\0\0\0\17base:allocation\0\0\0\17base:allocation"),
     "MA"},
    {"set meta, none", "T", 10, D("\0\0\0\0\0\0\0\0"), "A"},
    {"set meta, wildcard", "T", 10, D("\0\0\0\0\0\0\0\1\0\0\0\5base:"), "A"},
    {"set meta, unknown export", "T", 10, D("\0\0\0\1x\0\0\0\0"), "E6"},
    {"set meta, truncated query", "T", 10, D("\0\0\0\0\0\0\0\1\0\0\0\17base:"),
     "E3"},
    {"set meta, too few queries", "T", 10, D("\0\0\0\0\377\377\377\377"), "E3"},
    {"set meta, trailing", "T", 10, D("\0\0\0\0\0\0\0\0x"), "E3"},
    {"set meta, without structured", "", 10, D("\0\0\0\0\0\0\0\0"), "E3"},
#undef D
};

static void
expect_replies(struct client *c, uint32_t option, const char *s, bool set)
{
    struct msg *m = calloc(1, sizeof(*m)), *d = calloc(1, sizeof(*d));
    unsigned servers = 0, infos = 0;

    for (; *s; s++) {
        if (*s == 'E') {
            uint32_t n = *++s == 'a' ? 10 : (uint32_t)(*s - '0');

            client_expect_error(c, option, NBD_REP_ERROR + n);
            continue;
        }
        d->n = m->n = 0;
        if (*s == 'S') {
            put_string(d, servers ? "ro" : "");
            put_text(d, servers++ ? "" : "a disk");
        } else if (*s == 'M') {
            put32(d, set);
            put_text(d, "base:allocation");
        } else if (*s == 'I' && infos == 0) {
            struct nbd_option_reply h;
            uint8_t b[12];

            /* flags are another test's matter */
            client_recv(c, &h, sizeof(h));
            assert_int_equal(be32_get(h.type), NBD_REP_INFO);
            assert_int_equal(be32_get(h.len), 12);
            client_recv(c, b, 12);
            assert_memory_equal(b, "\0\0\0\0\0\0\0\x40\0\0", 10);
            infos++;
            continue;
        } else if (*s == 'I' && infos == 1 && s[1] == 'I') {
            put16(d, NBD_INFO_NAME);
        } else if (*s == 'I' && infos == 2) {
            put16(d, NBD_INFO_DESCRIPTION);
            put_text(d, "a disk");
        } else if (*s == 'I') {
            put16(d, NBD_INFO_BLOCK_SIZE);
            put32(d, 1);
            put32(d, 4096);
            put32(d, 32 << 20);
        }
        infos += *s == 'I';
        put_reply(m, option,
                  *s == 'A'   ? NBD_REP_ACK
                  : *s == 'S' ? NBD_REP_SERVER
                  : *s == 'I' ? NBD_REP_INFO
                              : NBD_REP_META_CONTEXT,
                  d->b, d->n);
        client_expect(c, m);
    }
    free(m);
    free(d);
}

static void
each_option_gets_its_replies(void **state)
{
    struct fixture *f = *state;

    /* Once as a whole, once byte by byte. */
    for (unsigned i = 0; i < 2 * sizeof(options) / sizeof(*options); i++) {
        bool slow = i & 1;
        struct msg *m = calloc(1, sizeof(*m));
        struct client *c = connect_client(f, 1);

        print_message("%s\n", options[i / 2].name);
        client_greet(c);
        for (const char *s = options[i / 2].setup; *s; s++) {
            uint32_t opt = *s == 'X' ? 11 : 8;

            client_option(c, opt, NULL);
            client_expect_reply(c, opt, NBD_REP_ACK, NULL, 0);
        }
        put64(m, NBD_OPTION_MAGIC);
        put32(m, options[i / 2].option);
        put32(m, (uint32_t)options[i / 2].len);
        put(m, options[i / 2].data, options[i / 2].len);
        for (size_t k = 0; slow && k < m->n; k++) {
            client_send(c, m->b + k, 1);
            turns(f, 2);
        }
        if (!slow)
            client_send(c, m->b, m->n);
        expect_replies(c, options[i / 2].option, options[i / 2].replies,
                       options[i / 2].option == NBD_OPT_SET_META_CONTEXT);
        client_option(c, NBD_OPT_ABORT, m); /* its data are ignored */
        client_expect_reply(c, NBD_OPT_ABORT, NBD_REP_ACK, NULL, 0);
        client_expect_end(c);
        hang_up(c);
        free(m);
    }
}

static void
export_name_answers_without_header(void **state)
{
    struct fixture *f = *state;

    for (unsigned zeroes = 0; zeroes < 2; zeroes++) {
        struct client *c = connect_client(f, 1);
        struct msg m = {.n = 0}, name = {.n = 0};
        be32 flags = be32_of(zeroes ? 1 : 3);
        uint8_t hello[18];

        client_recv(c, hello, 18);
        client_send(c, &flags, 4);
        put_text(&name, "ro");
        client_option(c, NBD_OPT_EXPORT_NAME, &name);
        put64(&m, SIZE);
        put16(&m, NBD_HAS_FLAGS | NBD_READ_ONLY | NBD_SEND_FLUSH |
                      NBD_SEND_FUA | NBD_CAN_MULTI_CONN | NBD_SEND_CACHE);
        m.n += zeroes ? 124 : 0;
        client_expect(c, &m);
        assert_int_equal(client_read_at(c, 0, 0, f->buf, 512), 0);
        hang_up(c);
    }
}

static void
export_name_that_fails_closes(void **state)
{
    struct fixture *f = *state;
    struct msg name = {.n = 0};
    struct client *c = f->client;

    put_text(&name, "other");
    client_greet(c);
    client_option(c, NBD_OPT_EXPORT_NAME, &name);
    client_expect_end(c);

    /* Extended headers forbid it. */
    c = connect_client(f, 1);
    client_greet(c);
    client_option(c, NBD_OPT_EXTENDED_HEADERS, NULL);
    client_expect_reply(c, NBD_OPT_EXTENDED_HEADERS, NBD_REP_ACK, NULL, 0);
    name.n = 0;
    client_option(c, NBD_OPT_EXPORT_NAME, &name);
    client_expect_end(c);
}

static void
long_names_and_options_are_refused(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    struct msg *m = calloc(1, sizeof(*m));

    client_greet(c);
    put32(m, 4097);
    m->n += 4097;
    put16(m, 0);
    client_option(c, NBD_OPT_INFO, m);
    client_expect_error(c, NBD_OPT_INFO, NBD_REP_ERR_TOO_BIG);

    m->n = 0; /* 64 KiB + 1 are skipped */
    put64(m, NBD_OPTION_MAGIC);
    put32(m, NBD_OPT_INFO);
    put32(m, 65537);
    m->n += 3000;
    client_send(c, m->b, m->n);
    client_send(c, f->buf, 65537 - 3000);
    client_expect_error(c, NBD_OPT_INFO, NBD_REP_ERR_TOO_BIG);
    client_option(c, NBD_OPT_STRUCTURED_REPLY, NULL);
    client_expect_reply(c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);

    m->n = 0; /* a query of 4097 */
    put32(m, 0);
    put32(m, 1);
    put32(m, 4097);
    m->n += 4097;
    client_option(c, NBD_OPT_SET_META_CONTEXT, m);
    client_expect_error(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ERR_TOO_BIG);

    m->n = 0;
    put64(m, NBD_OPTION_MAGIC);
    put32(m, NBD_OPT_INFO);
    put32(m, (16 << 20) + 1);
    client_send(c, m->b, m->n);
    client_expect_end(c);

    c = connect_client(f, 1);
    client_greet(c);
    m->n = 4097;
    client_option(c, NBD_OPT_EXPORT_NAME, m);
    client_expect_end(c);
    free(m);
}

static void
handshake_without_progress_ends(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    client_greet(c);
    for (unsigned i = 0; i < 40; i++) { /* answers are progress */
        client_option(c, NBD_OPT_LIST, NULL);
        expect_replies(c, NBD_OPT_LIST, "SSA", false);
    }
    for (unsigned i = 0; i < 31; i++) {
        client_option(c, 99, NULL);
        client_expect_error(c, 99, NBD_REP_ERR_UNSUP);
    }
    client_option(c, 99, NULL);
    client_expect_end(c);
}

static void
handshake_has_a_time_limit(void **state)
{
    struct fixture *f = *state;
    uint8_t b[18];

    client_recv(f->client, b, 18);
    client_expect_end(f->client);
    while (!f->ended)
        turn(f);
}

static void
bad_option_magic_closes(void **state)
{
    struct fixture *f = *state;

    client_greet(f->client);
    client_send(f->client, "IHAVENOTIHAVENOT", 16);
    client_expect_end(f->client);
}

static void
transmission_flags_follow_the_disk(void **state)
{
    struct fixture *f = *state;
    unsigned rw = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA |
                  NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO |
                  NBD_CAN_MULTI_CONN | NBD_SEND_CACHE;

    assert_int_equal(client_go(f->client, "", SIMPLE), rw);
    assert_int_equal(client_go(connect_client(f, 1), "", STRUCTURED),
                     rw | NBD_SEND_DF);
    assert_int_equal(client_go(connect_client(f, 2), "ro", EXTENDED),
                     NBD_HAS_FLAGS | NBD_READ_ONLY | NBD_SEND_FLUSH |
                         NBD_SEND_FUA | NBD_SEND_DF | NBD_CAN_MULTI_CONN |
                         NBD_SEND_CACHE);
}

static void
context_is_bound_to_its_export(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    struct msg m = {.n = 0};
    uint8_t b[52];

    client_greet(c);
    client_option(c, NBD_OPT_STRUCTURED_REPLY, NULL);
    client_expect_reply(c, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
    put_string(&m, "ro");
    put32(&m, 1);
    put_string(&m, "base:allocation");
    client_option(c, NBD_OPT_SET_META_CONTEXT, &m);
    expect_replies(c, NBD_OPT_SET_META_CONTEXT, "MA", true);
    m.n = 0;
    put_string(&m, "");
    put16(&m, 0);
    client_option(c, NBD_OPT_GO, &m);
    client_recv(c, b, sizeof(b));
    c->form = STRUCTURED;
    assert_int_equal(client_do(c, NBD_CMD_BLOCK_STATUS, 0, 0, 512), NBD_EINVAL);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(greets_as_fixed_newstyle),
        T(unknown_client_flags_end_it),
        T(each_option_gets_its_replies),
        T(export_name_answers_without_header),
        T(export_name_that_fails_closes),
        T(long_names_and_options_are_refused),
        T(handshake_without_progress_ends),
        cmocka_unit_test_setup_teardown(handshake_has_a_time_limit, setup_hurry,
                                        teardown),
        T(bad_option_magic_closes),
        T(transmission_flags_follow_the_disk),
        T(context_is_bound_to_its_export),
    };
#undef T

    return cmocka_run_group_tests(tests, NULL, NULL);
}
