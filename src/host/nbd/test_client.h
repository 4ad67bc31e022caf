/* SPDX-License-Identifier: MIT
 *
 * A scripted NBD client for tests: bytes out, bytes in, nothing understood that
 * the test did not ask for. The other end of its socket is served by a loop
 * that TURN lets go on (NULL: the loop has its own thread).
 */
#ifndef ST_TEST_CLIENT_H
#define ST_TEST_CLIENT_H

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "nbd_proto.h"

enum form { SIMPLE, STRUCTURED, EXTENDED };

struct client {
    int fd;
    void (*turn)(void *arg);
    void *arg;
    enum form form;
    /* As send and recv without waiting; NULL: those. */
    ssize_t (*send)(struct client *c, const void *p, size_t n);
    ssize_t (*recv)(struct client *c, void *p, size_t n);
    void *ssl; /* test_tls.h */
};

/* A message under construction. */
struct msg {
    uint8_t b[70000];
    size_t n;
};

static inline void
put(struct msg *m, const void *p, size_t n)
{
    assert_true(m->n + n <= sizeof(m->b));
    if (n)
        memcpy(m->b + m->n, p, n);
    m->n += n;
}

static inline void
put16(struct msg *m, uint16_t v)
{
    be16 b = be16_of(v);

    put(m, &b, 2);
}

static inline void
put32(struct msg *m, uint32_t v)
{
    be32 b = be32_of(v);

    put(m, &b, 4);
}

static inline void
put64(struct msg *m, uint64_t v)
{
    be64 b = be64_of(v);

    put(m, &b, 8);
}

static inline void
put_text(struct msg *m, const char *s)
{
    put(m, s, strlen(s));
}

/* A string with its length. */
static inline void
put_string(struct msg *m, const char *s)
{
    put32(m, (uint32_t)strlen(s));
    put_text(m, s);
}

static inline void
client_wait(struct client *c, short events)
{
    struct pollfd p = {.fd = c->fd, .events = events};

    if (c->turn)
        c->turn(c->arg);
    else
        poll(&p, 1, -1);
}

/* Send N bytes; false when the server has closed. */
static inline bool
client_send(struct client *c, const void *p, size_t n)
{
    const uint8_t *b = p;

    while (n) {
        ssize_t k = c->send ? c->send(c, b, n)
                            : send(c->fd, b, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (k < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (k < 0) {
            client_wait(c, POLLOUT);
            continue;
        }
        b += k;
        n -= (size_t)k;
    }
    return true;
}

/* Receive N bytes; fewer (returned) when the server has closed. */
static inline size_t
client_recv(struct client *c, void *p, size_t n)
{
    size_t got = 0;

    while (got < n) {
        uint8_t *b = (uint8_t *)p + got;
        ssize_t k = c->recv ? c->recv(c, b, n - got)
                            : recv(c->fd, b, n - got, MSG_DONTWAIT);

        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
            break;
        if (k < 0)
            client_wait(c, POLLIN);
        else
            got += (size_t)k;
    }
    return got;
}

/* The next bytes are exactly those of M. */
static inline void
client_expect(struct client *c, const struct msg *m)
{
    uint8_t *b = malloc(m->n + 1);

    assert_int_equal(client_recv(c, b, m->n), m->n);
    assert_memory_equal(b, m->b, m->n);
    free(b);
}

static inline void
client_expect_end(struct client *c)
{
    uint8_t b;

    assert_int_equal(client_recv(c, &b, 1), 0);
}

static inline void
client_option(struct client *c, uint32_t option, const struct msg *data)
{
    struct msg *m = calloc(1, sizeof(*m));

    put64(m, NBD_OPTION_MAGIC);
    put32(m, option);
    put32(m, data ? (uint32_t)data->n : 0);
    if (data)
        put(m, data->b, data->n);
    client_send(c, m->b, m->n);
    free(m);
}

/* Append the reply to an option. */
static inline void
put_reply(struct msg *m, uint32_t option, uint32_t type, const void *data,
          size_t len)
{
    put64(m, NBD_REPLY_MAGIC);
    put32(m, option);
    put32(m, type);
    put32(m, (uint32_t)len);
    put(m, data, len);
}

static inline void
client_expect_reply(struct client *c, uint32_t option, uint32_t type,
                    const void *data, size_t len)
{
    struct msg *m = calloc(1, sizeof(*m));

    put_reply(m, option, type, data, len);
    client_expect(c, m);
    free(m);
}

static inline void
client_expect_error(struct client *c, uint32_t option, uint32_t type)
{
    uint8_t head[20], text[4096];
    struct nbd_option_reply r;

    assert_int_equal(client_recv(c, head, 20), 20);
    memcpy(&r, head, 20);
    assert_int_equal(be32_get(r.option), option);
    assert_int_equal(be32_get(r.type), type);
    assert_in_range(be32_get(r.len), 1, 200); /* one sentence */
    client_recv(c, text, be32_get(r.len));
}

/* Greeting and flags. */
static inline void
client_greet(struct client *c)
{
    uint8_t hello[18];
    be32 flags = be32_of(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);

    assert_int_equal(client_recv(c, hello, 18), 18);
    client_send(c, &flags, 4);
}

/* From connection to transmission with export NAME; returns its flags. */
static inline uint16_t
client_go(struct client *c, const char *name, enum form form)
{
    struct msg *m = calloc(1, sizeof(*m));
    uint8_t b[20 + 12 + 20];
    be16 flags;

    c->form = form;
    client_greet(c);
    if (form != SIMPLE) {
        uint32_t opt = form == EXTENDED ? NBD_OPT_EXTENDED_HEADERS
                                        : NBD_OPT_STRUCTURED_REPLY;

        client_option(c, opt, NULL);
        client_expect_reply(c, opt, NBD_REP_ACK, NULL, 0);
        put_string(m, name);
        put32(m, 1);
        put_string(m, "base:allocation");
        client_option(c, NBD_OPT_SET_META_CONTEXT, m);
        client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT,
                            "\0\0\0\1base:allocation", 19);
        client_expect_reply(c, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
    }
    m->n = 0;
    put_string(m, name);
    put16(m, 0);
    client_option(c, NBD_OPT_GO, m);
    free(m);
    assert_int_equal(client_recv(c, b, sizeof(b)), sizeof(b));
    memcpy(&flags, b + 30, 2);
    return be16_get(flags);
}

static inline void
client_request(struct client *c, uint16_t type, uint16_t flags, uint64_t cookie,
               uint64_t offset, uint64_t len)
{
    struct nbd_request r = {be32_of(NBD_REQUEST_MAGIC),
                            be16_of(flags),
                            be16_of(type),
                            be64_of(cookie),
                            be64_of(offset),
                            be32_of((uint32_t)len)};
    struct nbd_request_ext e = {
        be32_of(NBD_REQUEST_EXT), be16_of(flags),  be16_of(type),
        be64_of(cookie),          be64_of(offset), be64_of(len)};

    if (c->form == EXTENDED)
        client_send(c, &e, sizeof(e));
    else
        client_send(c, &r, sizeof(r));
}

/* A write with its payload. */
static inline void
client_write(struct client *c, uint16_t flags, uint64_t cookie, uint64_t offset,
             const void *data, uint64_t len)
{
    if (c->form == EXTENDED)
        flags |= NBD_CMD_PAYLOAD_LEN;
    client_request(c, NBD_CMD_WRITE, flags, cookie, offset, len);
    client_send(c, data, len);
}

struct chunk {
    uint16_t flags, type;
    uint64_t cookie, offset, len;
};

/* The head of the next reply or chunk. Simple replies: type 0 or ERROR, with
 * the error in LEN. */
static inline struct chunk
client_chunk(struct client *c)
{
    if (c->form == SIMPLE) {
        struct nbd_simple h;
        uint32_t error;

        assert_int_equal(client_recv(c, &h, sizeof(h)), sizeof(h));
        assert_int_equal(be32_get(h.magic), NBD_SIMPLE_MAGIC);
        error = be32_get(h.error);
        return (struct chunk){NBD_CHUNK_DONE, error ? NBD_CHUNK_ERROR : 0,
                              be64_get(h.cookie), 0, error};
    } else if (c->form == STRUCTURED) {
        struct nbd_chunk h;

        assert_int_equal(client_recv(c, &h, sizeof(h)), sizeof(h));
        assert_int_equal(be32_get(h.magic), NBD_CHUNK_MAGIC);
        return (struct chunk){be16_get(h.flags), be16_get(h.type),
                              be64_get(h.cookie), 0, be32_get(h.len)};
    } else {
        struct nbd_chunk_ext h;

        assert_int_equal(client_recv(c, &h, sizeof(h)), sizeof(h));
        assert_int_equal(be32_get(h.magic), NBD_CHUNK_EXT_MAGIC);
        return (struct chunk){be16_get(h.flags), be16_get(h.type),
                              be64_get(h.cookie), be64_get(h.offset),
                              be64_get(h.len)};
    }
}

/* The whole reply to a request: its error. DATA gets what a read of LEN bytes
 * at OFFSET brought, which must cover it exactly once. */
static inline uint32_t
client_reply(struct client *c, uint64_t cookie, uint64_t offset, void *data,
             uint64_t len)
{
    uint64_t covered = 0;
    uint32_t error = 0;

    for (;;) {
        struct chunk h = client_chunk(c);

        assert_int_equal(h.cookie, cookie);
        if (c->form == EXTENDED)
            assert_int_equal(h.offset, offset);
        if (c->form == SIMPLE) {
            if (!h.len && data)
                assert_int_equal(client_recv(c, data, len), len);
            return (uint32_t)h.len;
        }
        if (h.type == NBD_CHUNK_OFFSET_DATA) {
            be64 at;
            uint64_t off;

            client_recv(c, &at, 8);
            off = be64_get(at) - offset;
            assert_true(h.len > 8 && off <= len && h.len - 8 <= len - off);
            assert_non_null(data);
            client_recv(c, (uint8_t *)data + off, h.len - 8);
            covered += h.len - 8;
        } else if (h.type == NBD_CHUNK_ERROR) {
            uint8_t b[4096];
            struct nbd_chunk_error e;

            assert_in_range(h.len, 6, sizeof(b));
            client_recv(c, b, h.len);
            memcpy(&e, b, sizeof(e));
            error = be32_get(e.error);
            assert_int_not_equal(error, 0);
            assert_int_equal(be16_get(e.len), h.len - 6);
        } else {
            assert_int_equal(h.type, NBD_CHUNK_NONE);
            assert_int_equal(h.len, 0);
        }
        if (h.flags & NBD_CHUNK_DONE)
            break;
    }
    if (!error && data)
        assert_int_equal(covered, len);
    return error;
}

static inline uint32_t
client_do(struct client *c, uint16_t type, uint16_t flags, uint64_t offset,
          uint64_t len)
{
    client_request(c, type, flags, 77, offset, len);
    return client_reply(c, 77, offset, NULL, 0);
}

static inline uint32_t
client_read_at(struct client *c, uint16_t flags, uint64_t offset, void *data,
               uint64_t len)
{
    client_request(c, NBD_CMD_READ, flags, offset ^ len, offset, len);
    return client_reply(c, offset ^ len, offset, data, len);
}

static inline uint32_t
client_write_at(struct client *c, uint16_t flags, uint64_t offset,
                const void *data, uint64_t len)
{
    client_write(c, flags, ~offset, offset, data, len);
    return client_reply(c, ~offset, offset, NULL, 0);
}

#endif
