/* SPDX-License-Identifier: MIT
 *
 * The NBD door, byte for byte, on one loop that the test turns.
 */
#include <fcntl.h>
#include <unistd.h>

#include "nbd.h"
#include "rand.h"
#include "test_client.h"
#include "testnode.h"

enum { SIZE = 4 << 20, MANY = 40 };

struct fixture {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_node *node;
    struct st_disk *disk;
    struct st_nbd *nbd;
    unsigned ended;
    bool stopped;
    int rc;
    struct client client[MANY]; /* client[0] exists */
    uint8_t *buf, *want;        /* SIZE bytes each */
};

struct flag_task {
    struct st_task task;
    bool done;
};

static void
raise_flag(struct st_task *t)
{
    st_container(t, struct flag_task, task)->done = true;
}

/* One turn of the loop. */
static void
turn(void *arg)
{
    struct fixture *f = arg;
    struct flag_task t = {.task.run = raise_flag};

    st_ready(f->loop, &t.task);
    st_loop_wait(f->loop, &t.done);
}

static void
turns(struct fixture *f, unsigned n)
{
    while (n--)
        turn(f);
}

static void
on_ended(void *arg)
{
    ((struct fixture *)arg)->ended++;
}

static void
on_stopped(void *arg, int rc)
{
    struct fixture *f = arg;

    f->stopped = true;
    f->rc = rc;
}

static struct client *
connect_client(struct fixture *f, unsigned i)
{
    struct client *c = &f->client[i];
    struct st_err err;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    *c = (struct client){.fd = fd[0], .turn = turn, .arg = f};
    assert_int_equal(st_nbd_connection(f->nbd, fd[1], on_ended, f, &err), 0);
    return c;
}

static void
hang_up(struct client *c)
{
    if (c->fd > 0)
        close(c->fd);
    c->fd = 0;
}

static int
setup_with(void **state, struct st_testnode_opts o, uint64_t timeout)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct st_nbd_opts opts = {.nloops = 1, .handshake_ns = timeout};
    struct st_err err;

    o.size = o.size ? o.size : SIZE;
    f->buf = malloc(SIZE);
    f->want = malloc(SIZE);
    assert_int_equal(
        st_domain_create(&(struct st_domain_opts){0}, &f->domain, &err), 0);
    assert_int_equal(st_loop_create(f->domain, &f->loop, &err), 0);
    assert_int_equal(st_testnode_create(f->loop, &o, &f->node, &err), 0);
    assert_int_equal(
        st_disk_create(f->loop, f->node, "d", false, &f->disk, &err), 0);
    opts.control = f->loop;
    opts.loops = &f->loop;
    assert_int_equal(st_nbd_create(&opts, &f->nbd, &err), 0);
    assert_int_equal(st_nbd_export(f->nbd, "", "a disk", f->disk, false, &err),
                     0);
    assert_int_equal(st_nbd_export(f->nbd, "ro", NULL, f->disk, true, &err), 0);
    connect_client(f, 0);
    *state = f;
    return 0;
}

static int
setup(void **state)
{
    return setup_with(state,
                      (struct st_testnode_opts){
                          .fua = true,
                          .fast_zero = true,
                          .unmap = ST_UNMAP_ZEROES,
                      },
                      0);
}

static int
setup_slow_zero(void **state)
{
    return setup_with(state, (struct st_testnode_opts){.mem_align = 512}, 0);
}

static int
setup_hurry(void **state)
{
    return setup_with(state, (struct st_testnode_opts){0}, 1);
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    struct st_caps *caps = st_domain_caps(f->domain);

    st_testnode_hang(f->node, false);
    for (unsigned i = 0; i < MANY; i++)
        hang_up(&f->client[i]);
    if (!f->stopped)
        st_nbd_stop(f->nbd, 0, on_stopped, f);
    while (!f->stopped)
        turn(f);
    st_nbd_destroy(f->nbd);
    assert_null(st_testnode_complaint(f->node));
    assert_int_equal(caps->row[ST_CAP_NBD_MEMORY].used, 0);
    assert_int_equal(caps->row[ST_CAP_NBD_CLIENTS].used, 0);
    st_disk_destroy(f->disk);
    turns(f, 3);
    st_loop_destroy(f->loop);
    st_domain_destroy(f->domain);
    free(f->buf);
    free(f->want);
    free(f);
    return 0;
}

static void
fill(uint8_t *p, size_t n, uint64_t seed)
{
    struct st_rand r = st_rand_seed(seed);

    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)st_rand_next(&r);
}

/* ---- Handshake ----------------------------------------------------------- */

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
    {"starttls", "", 5, D(""), "E1"},
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

/* ---- Transmission -------------------------------------------------------- */

static void
data_come_back_in_every_form(void **state)
{
    static const struct {
        uint64_t offset, len;
    } io[] = {
        {0, 512},      {512, 4096},    {1, 1},       {4095, 2},
        {700, 4097},   {65536, 65536}, {3, 65537},   {4096, 200000},
        {0, 262144},   {1000, 262145}, {0, 1 << 20}, {77, 1234567},
        {SIZE - 1, 1}, {0, SIZE},      {SIZE, 0},    {5, 0},
    };
    struct fixture *f = *state;

    for (unsigned form = SIMPLE; form <= EXTENDED; form++) {
        struct client *c = connect_client(f, 1);

        client_go(c, "", form);
        for (unsigned i = 0; i < sizeof(io) / sizeof(*io); i++) {
            uint16_t df = form != SIMPLE && i & 1 ? NBD_CMD_DF : 0;

            fill(f->want, io[i].len, form * 100 + i);
            assert_int_equal(
                client_write_at(c, 0, io[i].offset, f->want, io[i].len), 0);
            assert_memory_equal(st_testnode_bytes(f->node) + io[i].offset,
                                f->want, io[i].len);
            memset(f->buf, 0, SIZE);
            assert_int_equal(client_read_at(c, df, io[i].offset,
                                            io[i].len ? f->buf : NULL,
                                            io[i].len),
                             0);
            assert_memory_equal(f->buf, f->want, io[i].len);
        }
        hang_up(c);
    }
}

static void
df_and_small_reads_are_one_chunk(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    struct chunk h;
    be64 at;

    client_go(c, "", STRUCTURED);
    client_request(c, NBD_CMD_READ, NBD_CMD_DF, 5, 100, 1 << 20);
    h = client_chunk(c);
    assert_int_equal(h.type, NBD_CHUNK_OFFSET_DATA);
    assert_int_equal(h.flags, NBD_CHUNK_DONE);
    assert_int_equal(h.len, 8 + (1 << 20));
    client_recv(c, &at, 8);
    assert_int_equal(be64_get(at), 100);
    client_recv(c, f->buf, 1 << 20);

    client_request(c, NBD_CMD_READ, 0, 6, 0, 1 << 20); /* in four */
    for (unsigned i = 0; i < 4; i++) {
        h = client_chunk(c);
        assert_int_equal(h.type, NBD_CHUNK_OFFSET_DATA);
        assert_int_equal(h.flags, 0);
        assert_int_equal(h.len, 8 + (256 << 10));
        client_recv(c, f->buf, h.len);
    }
    h = client_chunk(c);
    assert_int_equal(h.type, NBD_CHUNK_NONE);
    assert_int_equal(h.flags, NBD_CHUNK_DONE);
}

static void
requests_in_one_byte_steps(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    uint8_t b[28 + 700];
    struct nbd_request r = {be32_of(NBD_REQUEST_MAGIC),
                            be16_of(0),
                            be16_of(NBD_CMD_WRITE),
                            be64_of(9),
                            be64_of(10),
                            be32_of(700)};

    client_go(c, "", SIMPLE);
    memcpy(b, &r, 28);
    fill(b + 28, 700, 1);
    for (unsigned i = 0; i < sizeof(b); i++) {
        client_send(c, b + i, 1);
        turns(f, 1);
    }
    assert_int_equal(client_reply(c, 9, 10, NULL, 0), 0);
    assert_memory_equal(st_testnode_bytes(f->node) + 10, b + 28, 700);
}

static void
wrong_requests_get_their_error(void **state)
{
    static const struct {
        uint16_t type, flags;
        uint64_t offset, len;
        uint32_t rw, ro; /* expected */
    } bad[] = {
        {NBD_CMD_READ, 0, SIZE, 1, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_READ, 0, SIZE - 1, 2, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_READ, 0, UINT64_MAX, 512, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_READ, 0, 0, (32 << 20) + 1, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_READ, NBD_CMD_NO_HOLE, 0, 512, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_READ, 1 << 6, 0, 512, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_FLUSH, 0, 1, 0, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_FLUSH, 0, 0, 1, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_FLUSH, NBD_CMD_DF, 0, 0, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_FLUSH, NBD_CMD_FUA, 0, 0, 0, 0},
        {NBD_CMD_TRIM, 0, SIZE, 1, NBD_EINVAL, NBD_EPERM},
        {NBD_CMD_TRIM, NBD_CMD_FUA, 0, 4096, 0, NBD_EPERM},
        {NBD_CMD_TRIM, 0, 0, 0, 0, NBD_EPERM},
        {NBD_CMD_CACHE, 0, 0, SIZE, 0, 0},
        {NBD_CMD_CACHE, NBD_CMD_FUA, 0, 512, 0, 0},
        {NBD_CMD_CACHE, NBD_CMD_DF, 0, 512, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_CACHE, 0, 1, SIZE, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_WRITE_ZEROES, 0, 1, SIZE, NBD_ENOSPC, NBD_EPERM},
        {NBD_CMD_WRITE_ZEROES, NBD_CMD_NO_HOLE | NBD_CMD_FUA, 0, SIZE, 0,
         NBD_EPERM},
        {NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 0, 512, 0, NBD_EPERM},
        {NBD_CMD_WRITE_ZEROES, NBD_CMD_REQ_ONE, 0, 512, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_BLOCK_STATUS, 0, 1, SIZE, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_BLOCK_STATUS, 0, 0, 0, NBD_EINVAL, NBD_EINVAL},
        {NBD_CMD_BLOCK_STATUS, NBD_CMD_DF, 0, 512, NBD_EINVAL, NBD_EINVAL},
        {8, 0, 0, 0, NBD_EINVAL, NBD_EINVAL},
        {0xffff, 0xffff & ~NBD_CMD_PAYLOAD_LEN, 5, 7, NBD_EINVAL, NBD_EINVAL},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < 6; i++) {
        struct client *c = connect_client(f, 1);
        bool ro = i & 1;

        client_go(c, ro ? "ro" : "", i / 2);
        for (unsigned k = 0; k < sizeof(bad) / sizeof(*bad); k++) {
            print_message("form %u ro %d case %u\n", i / 2, ro, k);
            assert_int_equal(client_do(c, bad[k].type, bad[k].flags,
                                       bad[k].offset, bad[k].len),
                             ro ? bad[k].ro : bad[k].rw);
        }
        hang_up(c);
    }
}

static void
df_needs_structured_replies(void **state)
{
    struct fixture *f = *state;

    client_go(f->client, "", SIMPLE);
    assert_int_equal(client_do(f->client, NBD_CMD_READ, NBD_CMD_DF, 0, 512),
                     NBD_EINVAL);
    assert_int_equal(client_do(f->client, NBD_CMD_BLOCK_STATUS, 0, 0, 512),
                     NBD_EINVAL); /* no context either */
}

static void
refused_writes_consume_their_payload(void **state)
{
    struct fixture *f = *state;

    for (unsigned form = SIMPLE; form <= EXTENDED; form++) {
        struct client *c = connect_client(f, 1);

        client_go(c, "", form);
        for (uint64_t len = 1; len < SIZE; len = len * 7 + 3) {
            assert_int_equal(client_write_at(c, 0, SIZE - len + 1, f->buf, len),
                             NBD_ENOSPC);
            assert_int_equal(client_write_at(c, NBD_CMD_DF, 0, f->buf, len),
                             NBD_EINVAL);
            assert_int_equal(client_do(c, NBD_CMD_FLUSH, 0, 0, 0), 0);
        }
        hang_up(c);
        c = connect_client(f, 1);
        client_go(c, "ro", form);
        assert_int_equal(client_write_at(c, 0, 0, f->buf, 5000), NBD_EPERM);
        assert_int_equal(client_read_at(c, 0, 0, f->buf, 5000), 0);
        hang_up(c);
    }
    assert_int_equal(st_testnode_count(f->node, ST_OP_WRITE), 0);
}

static void
oversized_payload_is_skipped_or_ends_it(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;
    uint64_t len = (32 << 20) + 1;

    client_go(c, "", SIMPLE);
    client_request(c, NBD_CMD_WRITE, 0, 3, 0, len);
    for (uint64_t n = 0; n < len; n += SIZE)
        client_send(c, f->buf, st_min(SIZE, len - n));
    assert_int_equal(client_reply(c, 3, 0, NULL, 0), NBD_EINVAL);
    assert_int_equal(client_do(c, NBD_CMD_FLUSH, 0, 0, 0), 0);
    client_request(c, NBD_CMD_WRITE, 0, 3, 0, (64 << 20) + 1);
    client_expect_end(c);

    c = connect_client(f, 1); /* extended headers: a hard disconnect */
    client_go(c, "", EXTENDED);
    client_request(c, NBD_CMD_WRITE, NBD_CMD_PAYLOAD_LEN, 3, 0, len);
    client_expect_end(c);
}

static void
payload_flag_belongs_to_extended_writes(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    client_go(c, "", EXTENDED);
    assert_int_equal(client_do(c, NBD_CMD_WRITE, 0, 0, 512), NBD_EINVAL);
    for (unsigned type = 0; type < 9; type++) {
        if (type == NBD_CMD_WRITE || type == NBD_CMD_DISC)
            continue;
        client_request(c, (uint16_t)type, NBD_CMD_PAYLOAD_LEN, 4, 0, 600);
        client_send(c, f->buf, 600);
        assert_int_equal(client_reply(c, 4, 0, NULL, 0), NBD_EINVAL);
    }
    c = connect_client(f, 1); /* compact: never, but the payload is there */
    client_go(c, "", STRUCTURED);
    client_write(c, NBD_CMD_PAYLOAD_LEN, 5, 0, f->buf, 512);
    assert_int_equal(client_reply(c, 5, 0, NULL, 0), NBD_EINVAL);
    assert_int_equal(client_do(c, NBD_CMD_FLUSH, 0, 0, 0), 0);
}

static void
each_status_has_its_error(void **state)
{
    static const struct {
        uint32_t read, write, trim, zero;
    } want[ST_STATUS_COUNT] = {
        [ST_OK] = {0, 0, 0, 0},           [ST_RANGE] = {22, 28, 22, 28},
        [ST_INVALID] = {22, 22, 22, 22},  [ST_UNSUPPORTED] = {22, 22, 22, 95},
        [ST_READ_ONLY] = {1, 1, 1, 1},    [ST_NO_SPACE] = {28, 28, 28, 28},
        [ST_IO] = {5, 5, 5, 5},           [ST_MEDIUM_READ] = {5, 5, 5, 5},
        [ST_MEDIUM_WRITE] = {5, 5, 5, 5}, [ST_GUARD] = {5, 5, 5, 5},
        [ST_APP_TAG] = {5, 5, 5, 5},      [ST_REF_TAG] = {5, 5, 5, 5},
        [ST_MEMORY] = {5, 5, 5, 5},       [ST_CONFLICT] = {5, 5, 5, 5},
        [ST_MISCOMPARE] = {5, 5, 5, 5},   [ST_PREEMPTED] = {5, 5, 5, 5},
        [ST_ABORTED] = {5, 5, 5, 5},
    };
    struct fixture *f = *state;

    for (unsigned form = SIMPLE; form <= EXTENDED; form++) {
        struct client *c = connect_client(f, 1);

        client_go(c, "", form);
        for (unsigned s = ST_OK; s < ST_STATUS_COUNT; s++) {
            if (s != ST_OK)
                st_testnode_fail(f->node, UINT32_MAX, s, UINT32_MAX);
            print_message("status %u\n", s);
            assert_int_equal(client_read_at(c, 0, 0, f->buf, 512),
                             want[s].read);
            assert_int_equal(client_write_at(c, 0, 0, f->buf, 512),
                             want[s].write);
            assert_int_equal(client_do(c, NBD_CMD_TRIM, 0, 0, 4096),
                             want[s].trim);
            assert_int_equal(
                client_do(c, NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 0, 4096),
                want[s].zero);
            /* Large transfers fail as a whole, and the stream stays whole. */
            assert_int_equal(client_write_at(c, 0, 0, f->buf, 600000),
                             want[s].write);
            assert_int_equal(client_read_at(c, 0, 0, f->buf, SIZE),
                             want[s].read);
            st_testnode_fail(f->node, 0, ST_OK, 0);
        }
        hang_up(c);
    }
}

static void
slow_zeroes_are_not_fast(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    memset(st_testnode_bytes(f->node), 1, 8192);
    client_go(c, "", STRUCTURED);
    assert_int_equal(
        client_do(c, NBD_CMD_WRITE_ZEROES, NBD_CMD_FAST_ZERO, 0, 4096),
        NBD_ENOTSUP);
    assert_int_equal(st_testnode_bytes(f->node)[0], 1);
    assert_int_equal(client_do(c, NBD_CMD_WRITE_ZEROES, 0, 0, 4096), 0);
    assert_int_equal(st_testnode_bytes(f->node)[0], 0);
    assert_int_equal(st_testnode_bytes(f->node)[4096], 1);
    fill(f->want, 40000, 3); /* and mem_align 512 is met without a bounce */
    assert_int_equal(client_write_at(c, 0, 512, f->want, 4096), 0);
    assert_int_equal(client_read_at(c, 0, 512, f->buf, 4096), 0);
    assert_memory_equal(f->buf, f->want, 4096);
}

static void
fua_and_flush_make_durable(void **state)
{
    struct fixture *f = *state;
    struct client *a = f->client, *b = connect_client(f, 1);
    const uint8_t *durable = st_testnode_durable(f->node);

    client_go(a, "", STRUCTURED);
    client_go(b, "", SIMPLE);
    fill(f->want, SIZE, 9);
    assert_int_equal(client_write_at(a, NBD_CMD_FUA, 512, f->want, 512), 0);
    assert_memory_equal(durable + 512, f->want, 512);
    /* In pieces: the flush comes last. */
    assert_int_equal(client_write_at(a, NBD_CMD_FUA, 0, f->want, 1 << 20), 0);
    assert_memory_equal(durable, f->want, 1 << 20);
    assert_int_equal(client_do(a, NBD_CMD_TRIM, NBD_CMD_FUA, 0, 4096), 0);
    assert_memory_equal(durable, st_testnode_bytes(f->node), 4096);
    /* A flush on one connection covers the other. */
    assert_int_equal(client_write_at(a, 0, 2 << 20, f->want, 4096), 0);
    assert_memory_not_equal(durable + (2 << 20), f->want, 4096);
    assert_int_equal(client_do(b, NBD_CMD_FLUSH, 0, 0, 0), 0);
    assert_memory_equal(durable + (2 << 20), f->want, 4096);
}

/* Block status from OFFSET: how far it got, and how many extents. */
static uint64_t
status_at(struct client *c, uint16_t flags, uint64_t offset, uint64_t len,
          unsigned *extents)
{
    struct chunk h;
    uint8_t b[4096];
    uint64_t sum = 0;
    bool wide = c->form == EXTENDED;
    size_t head = wide ? 8 : 4, one = wide ? 16 : 8;

    client_request(c, NBD_CMD_BLOCK_STATUS, flags, 1, offset, len);
    h = client_chunk(c);
    assert_int_equal(h.type, wide ? NBD_CHUNK_BLOCK_STATUS_EXT
                                  : NBD_CHUNK_BLOCK_STATUS);
    assert_int_equal(h.flags, NBD_CHUNK_DONE);
    assert_in_range(h.len, head + one, sizeof(b));
    assert_int_equal((h.len - head) % one, 0);
    client_recv(c, b, h.len);
    assert_memory_equal(b, "\0\0\0\1", 4);
    *extents = (unsigned)((h.len - head) / one);
    if (wide)
        assert_int_equal(b[7], *extents & 0xff);
    for (unsigned i = 0; i < *extents; i++) {
        be64 w[2];
        be32 n[2];

        memcpy(w, b + head + i * one, wide ? 16 : 0);
        memcpy(n, b + head + i * one, wide ? 0 : 8);
        sum += wide ? be64_get(w[0]) : be32_get(n[0]);
        assert_true((wide ? be64_get(w[1]) : be32_get(n[1])) <= 3);
        assert_true((wide ? be64_get(w[0]) : be32_get(n[0])) > 0);
    }
    assert_in_range(sum, 1, len);
    return sum;
}

static void
block_status_tiles_the_disk(void **state)
{
    struct fixture *f = *state;

    for (unsigned form = STRUCTURED; form <= EXTENDED; form++) {
        struct client *c = connect_client(f, 1);
        uint64_t at = 0;
        unsigned n, total = 0;

        client_go(c, "", form);
        assert_int_equal(client_do(c, NBD_CMD_WRITE_ZEROES, 0, 0, SIZE), 0);
        for (unsigned i = 0; i < 40; i++)
            client_write_at(c, 0, i * 65536 + 4096, "data", 4);
        while (at < SIZE) {
            at += status_at(c, 0, at, SIZE - at, &n);
            total += n;
        }
        assert_int_equal(at, SIZE);
        assert_true(total >= 1);
        status_at(c, NBD_CMD_REQ_ONE, 0, SIZE, &n);
        assert_int_equal(n, 1);
        status_at(c, 0, 777, 3, &n); /* unaligned */
        hang_up(c);
    }
}

static void
disconnect_answers_what_is_in_flight(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    client_go(c, "", SIMPLE);
    st_testnode_hang(f->node, true);
    client_request(c, NBD_CMD_READ, 0, 1, 0, 4096);
    client_request(c, NBD_CMD_DISC, 0, 2, 0, 0);
    while (!st_testnode_held(f->node))
        turn(f);
    turns(f, 20);
    assert_int_equal(f->ended, 0);
    st_testnode_hang(f->node, false);
    assert_int_equal(client_reply(c, 1, 0, f->buf, 4096), 0);
    client_expect_end(c);
    while (!f->ended)
        turn(f);
}

static void
half_closed_client_gets_its_replies(void **state)
{
    struct fixture *f = *state;
    struct client *c = f->client;

    client_go(c, "", SIMPLE);
    st_testnode_hang(f->node, true);
    client_request(c, NBD_CMD_READ, 0, 1, 0, 4096);
    shutdown(c->fd, SHUT_WR);
    while (!st_testnode_held(f->node))
        turn(f);
    turns(f, 20);
    st_testnode_hang(f->node, false);
    assert_int_equal(client_reply(c, 1, 0, f->buf, 4096), 0);
    client_expect_end(c);
}

static void
bad_request_magic_ends_only_its_connection(void **state)
{
    struct fixture *f = *state;
    struct client *a = f->client, *b = connect_client(f, 1);
    struct st_nbd_stats stats;

    client_go(a, "", SIMPLE);
    client_go(b, "", SIMPLE);
    client_send(a, f->buf, 28);
    client_expect_end(a);
    assert_int_equal(client_read_at(b, 0, 0, f->buf, 4096), 0);
    st_nbd_stats(f->nbd, &stats);
    assert_int_equal(stats.protocol_errors, 1);
    assert_int_equal(stats.requests, 1);
    assert_int_equal(stats.clients, 1);
    assert_int_equal(stats.clients_total, 2);
}

/* ---- Limits -------------------------------------------------------------- */

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
    /* All at the same time: each gets its turn. */
    for (unsigned k = 0; k < K; k++)
        for (unsigned i = 0; i < N; i++)
            assert_int_equal(client_reply(&f->client[i], k, 0, f->buf, 200000),
                             0);
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

/* ---- Listening and stopping ---------------------------------------------- */

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
        T(data_come_back_in_every_form),
        T(df_and_small_reads_are_one_chunk),
        T(requests_in_one_byte_steps),
        T(wrong_requests_get_their_error),
        T(df_needs_structured_replies),
        T(refused_writes_consume_their_payload),
        T(oversized_payload_is_skipped_or_ends_it),
        T(payload_flag_belongs_to_extended_writes),
        T(each_status_has_its_error),
        cmocka_unit_test_setup_teardown(slow_zeroes_are_not_fast,
                                        setup_slow_zero, teardown),
        T(fua_and_flush_make_durable),
        T(block_status_tiles_the_disk),
        T(disconnect_answers_what_is_in_flight),
        T(half_closed_client_gets_its_replies),
        T(bad_request_magic_ends_only_its_connection),
        T(no_more_than_256_requests_at_once),
        T(who_never_reads_is_bounded_and_hurts_nobody),
        T(memory_cap_makes_wait_and_serves_all),
        T(large_writes_share_a_small_cap),
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
