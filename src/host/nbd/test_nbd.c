/* SPDX-License-Identifier: MIT
 *
 * NBD transmission, byte for byte: requests, and their replies in every form.
 */
#include "test_server.h"

static int
setup_slow_zero(void **state)
{
    return setup_with(state, (struct st_testnode_opts){.mem_align = 512}, 0, 1);
}

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
    client_request(c, NBD_CMD_WRITE, 0, 3, 0, 512); /* as QEMU sends it */
    client_send(c, f->buf, 512);
    assert_int_equal(client_reply(c, 3, 0, NULL, 0), 0);
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

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
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
    };
#undef T

    return cmocka_run_group_tests(tests, NULL, NULL);
}
