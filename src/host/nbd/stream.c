/* SPDX-License-Identifier: MIT
 *
 * The bytes of a connection, plain or through TLS: what conn.c reads and sends
 * passes through st_nbd_recv and st_nbd_send alone.
 *
 *   plain   recv  <-------------------------------------- socket
 *           sendmsg: many replies at once --------------> socket
 *
 *   TLS     SSL_read <-- 64 KiB, OpenSSL's <-- one recv -- socket
 *           replies --16 KiB--> SSL_write --> wire ------> socket
 *                     gathered                  \ what the socket does not take
 *                                                +--> the connection's rest
 *
 * - The wire is the worker's: it holds encrypted bytes only within a call here.
 *   Thus SSL_write always has room and never has to be repeated; while a rest
 *   is left, nothing more is encrypted, and the connection is `blocked`.
 * - SSL_read may say something itself (an alert, an update of keys), which goes
 *   the same way. A client that makes it say much and reads nothing is cut off.
 * - A call reads a bounded number of bytes, however few of those it asked for
 *   are among them: records that carry none are the client's to send.
 * - What OpenSSL and the rest take is not of the blocks of memory.c: it has a
 * cap of its own, which a session's share is taken from when it begins.
 * - A handshake costs this loop a signature, a millisecond with RSA: its other
 *   clients wait that long.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "nbd_private.h"
#include "tls.h"

enum {
    RECORD = 16 << 10,    /* plain bytes of a full record (RFC 8446 5.1) */
    WIRE_SEND = 64 << 10, /* encrypted bytes of one send, about */
    WIRE_MAX = 96 << 10,  /* that, one record more, and alerts */
    REST_MAX = 256 << 10, /* then the client is cut off */
    READ_MORE = 64 << 10, /* encrypted bytes beyond those asked for */
    SESSION = 100 << 10,  /* what OpenSSL takes while bytes flow, about */
};

struct nbd_tls {
    SSL *ssl;                        /* owned */
    uint8_t *rest;                   /* owned; conn.unsent bytes at rest_at */
    size_t rest_at;                  /* of those it had */
    size_t charged;                  /* bytes of ST_CAP_NBD_TLS */
    size_t budget;                   /* bytes that this call may read yet */
    bool up;                         /* the handshake is done */
    bool eof;                        /* of the socket */
    bool broken;                     /* SSL is of no use any more */
    bool unknown;                    /* offered a key of nobody we know */
    char user[NBD_TLS_USER_MAX + 1]; /* whose key was offered */
};

/* ---- Plain ---- */

static ssize_t
plain_recv(struct nbd_conn *c, struct iovec *iov, unsigned n, size_t asked)
{
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t r = n == 1 ? recv(c->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
                       : recvmsg(c->fd, &m, MSG_DONTWAIT);

    if (r >= 0 && (size_t)r < asked)
        c->readable = c->hangup;
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        c->readable = false;
    return r;
}

static ssize_t
plain_send(struct nbd_conn *c, struct iovec *iov, unsigned n)
{
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};

    return sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* ---- Between OpenSSL and the socket ---- */

static int
bio_read(BIO *b, char *p, int n)
{
    struct nbd_conn *c = BIO_get_data(b);
    ssize_t r;

    BIO_clear_retry_flags(b);
    if (!c->tls->budget) {
        BIO_set_retry_read(b);
        return -1;
    }
    do
        r = recv(c->fd, p, st_min((size_t)n, c->tls->budget), MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r > 0) {
        c->tls->budget -= (size_t)r;
    } else if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        c->readable = false;
        BIO_set_retry_read(b);
    } else {
        c->tls->eof = true;
    }
    return (int)r;
}

static int
bio_write(BIO *b, const char *p, int n)
{
    struct nbd_worker *w = ((struct nbd_conn *)BIO_get_data(b))->worker;

    BIO_clear_retry_flags(b);
    if ((size_t)n > WIRE_MAX - w->nwire) {
        BIO_set_retry_write(b);
        return -1;
    }
    memcpy(w->wire + w->nwire, p, (size_t)n);
    w->nwire += (size_t)n;
    return n;
}

static long
bio_ctrl(BIO *b, int command, long n, void *p)
{
    (void)n;
    (void)p;
    if (command == BIO_CTRL_EOF)
        return ((struct nbd_conn *)BIO_get_data(b))->tls->eof;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *
st_nbd_stream_method(void)
{
    /* Of no number: there are few, and nobody looks for it. */
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "nbd");

    if (m && BIO_meth_set_read(m, bio_read) &&
        BIO_meth_set_write(m, bio_write) && BIO_meth_set_ctrl(m, bio_ctrl))
        return m;
    BIO_meth_free(m);
    return NULL;
}

/* C's part of the cap is BYTES from now on. False: there is not so much. */
static bool
charge(struct nbd_conn *c, size_t bytes)
{
    struct st_caps *caps = c->worker->server->caps;
    struct nbd_tls *t = c->tls;

    if (bytes > t->charged &&
        !st_cap_take(caps, ST_CAP_NBD_TLS, bytes - t->charged))
        return false;
    if (bytes < t->charged)
        st_cap_give(caps, ST_CAP_NBD_TLS, t->charged - bytes);
    t->charged = bytes;
    return true;
}

/* Send the rest, then the wire; what the socket does not take is the new rest,
 * and the wire is empty. False: C has failed. */
static bool
push(struct nbd_conn *c)
{
    struct nbd_worker *w = c->worker;
    struct nbd_tls *t = c->tls;
    const char *why = NULL;
    uint8_t *rest;
    size_t left;

    while (c->unsent || w->nwire) {
        struct iovec iov[2];
        unsigned n = 0;
        size_t sent, k;
        ssize_t r;

        if (c->unsent)
            iov[n++] = (struct iovec){t->rest + t->rest_at, c->unsent};
        if (w->nwire)
            iov[n++] = (struct iovec){w->wire, w->nwire};
        r = plain_send(c, iov, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (r < 0)
            goto fail;
        sent = (size_t)r;
        k = st_min(sent, c->unsent);
        t->rest_at += k;
        c->unsent -= k;
        sent -= k;
        memmove(w->wire, w->wire + sent, w->nwire - sent);
        w->nwire -= sent;
    }
    left = c->unsent + w->nwire;
    if (!left) {
        free(t->rest);
        t->rest = NULL;
        t->rest_at = 0;
        charge(c, SESSION);
    }
    if (!w->nwire)
        return true;
    if (left > REST_MAX)
        why = "tls: client makes us talk and does not listen";
    else if (!charge(c, SESSION + left))
        why = "tls: too much is kept for clients that do not read";
    rest = why ? NULL : malloc(left);
    if (!rest)
        goto fail;
    if (c->unsent)
        memcpy(rest, t->rest + t->rest_at, c->unsent);
    memcpy(rest + c->unsent, w->wire, w->nwire);
    free(t->rest);
    t->rest = rest;
    t->rest_at = 0;
    c->unsent = left;
    w->nwire = 0;
    return true;

fail:
    w->nwire = 0;
    t->broken = true;
    st_nbd_conn_fail(c, why);
    return false;
}

/* ---- TLS ---- */

/* Why did RC come of what was done with SSL? For the log. */
static const char *
complaint(struct nbd_tls *t)
{
    unsigned long e = ERR_peek_error();
    long verify = SSL_get_verify_result(t->ssl);
    const char *text = ERR_reason_error_string(e);

    if (t->unknown && !t->up)
        return "unknown PSK user";
    if (ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED &&
        verify != X509_V_OK)
        return X509_verify_cert_error_string(verify);
    return text ? text : "broken off";
}

/* C's TLS cannot go on. */
static void
tls_fail(struct nbd_conn *c, const char *why)
{
    char text[160];

    c->tls->broken = true;
    snprintf(text, sizeof(text), "tls: %s", why);
    st_nbd_conn_fail(c, text);
}

static ssize_t
tls_recv(struct nbd_conn *c, struct iovec *iov, unsigned n, size_t asked)
{
    struct nbd_tls *t = c->tls;
    int how = SSL_ERROR_NONE;
    size_t got = 0;

    if (t->broken)
        return 0;
    t->budget = asked + READ_MORE;
    ERR_clear_error();
    for (unsigned i = 0; i < n && how == SSL_ERROR_NONE; i++) {
        uint8_t *p = iov[i].iov_base;
        size_t left = iov[i].iov_len, k;

        while (left && how == SSL_ERROR_NONE) {
            if (SSL_read_ex(t->ssl, p, left, &k)) {
                p += k;
                left -= k;
                got += k;
            } else {
                how = SSL_get_error(t->ssl, 0);
            }
        }
    }
    if (!push(c))
        return 0;
    if (c->unsent)
        st_nbd_conn_dirty(c);         /* which waits for room */
    if (how == SSL_ERROR_WANT_READ) { /* OpenSSL holds no whole record now */
        if (!got)
            errno = EAGAIN;
        return got ? (ssize_t)got : -1;
    }
    if (how == SSL_ERROR_NONE || how == SSL_ERROR_ZERO_RETURN)
        return (ssize_t)got; /* the end comes again next time */
    if (how == SSL_ERROR_SYSCALL && t->eof)
        t->broken = true; /* a reset */
    else
        tls_fail(c, how == SSL_ERROR_WANT_WRITE ? "client does not read"
                                                : complaint(t));
    return c->dead ? 0 : (ssize_t)got;
}

/* The next record's worth of plain bytes from IOV (which moves on): where they
 * lie, or gathered in ROOM. */
static const uint8_t *
tls_gather(struct iovec **iov, unsigned *n, uint8_t *room, size_t *len)
{
    size_t have = 0;

    while (*n && have < RECORD) {
        struct iovec *v = *iov;
        size_t k = st_min(RECORD - have, v->iov_len);
        uint8_t *p = v->iov_base;

        v->iov_base = p + k;
        v->iov_len -= k;
        if (!v->iov_len) {
            ++*iov;
            --*n;
        }
        *len = k;
        if (k == RECORD)
            return p;
        memcpy(room + have, p, k);
        have += k;
    }
    *len = have;
    return room;
}

static ssize_t
tls_send(struct nbd_conn *c, struct iovec *iov, unsigned n)
{
    struct nbd_worker *w = c->worker;
    struct nbd_tls *t = c->tls;
    size_t taken = 0;

    if (t->broken)
        goto fail;
    if (!push(c))
        goto fail;
    ERR_clear_error();
    while (n && !c->unsent) {
        while (n && w->nwire < WIRE_SEND) {
            size_t k, done;
            const uint8_t *p = tls_gather(&iov, &n, w->wire + WIRE_MAX, &k);

            if (!SSL_write_ex(t->ssl, p, k, &done)) {
                w->nwire = 0;
                t->broken = true;
                goto fail;
            }
            taken += k;
        }
        if (!push(c))
            goto fail;
    }
    return (ssize_t)taken;

fail:
    errno = EPIPE;
    return -1;
}

void
st_nbd_tls_asked(SSL *ssl, const char *user)
{
    struct nbd_conn *c = SSL_get_app_data(ssl);

    if (user)
        snprintf(c->tls->user, sizeof(c->tls->user), "%s", user);
    else
        c->tls->unknown = true;
}

/* Who is it, in words for people? */
static void
tls_user(struct nbd_conn *c)
{
    struct nbd_tls *t = c->tls;
    X509 *x = SSL_get0_peer_certificate(t->ssl);

    snprintf(c->tls_version, sizeof(c->tls_version), "%s",
             SSL_get_version(t->ssl));
    if (SSL_session_reused(t->ssl)) /* so is a PSK called */
        memcpy(c->tls_user, t->user, sizeof(c->tls_user));
    else if (x)
        X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName,
                                  c->tls_user, sizeof(c->tls_user));
    for (char *p = c->tls_user; *p; p++)
        if (*p < ' ' || *p > '~') /* also what may be no UTF-8 */
            *p = '?';
    atomic_store(&c->tls_shown, true);
}

bool
st_nbd_tls_start(struct nbd_conn *c)
{
    struct st_nbd *s = c->worker->server;
    struct nbd_tls *t = calloc(1, sizeof(*t));

    if (!c->worker->wire)
        c->worker->wire = malloc(WIRE_MAX + RECORD);
    c->tls = t;
    if (t && c->worker->wire && charge(c, SESSION))
        t->ssl = st_nbd_keys_session(s->keys, c);
    if (t && t->ssl)
        return true;
    if (t)
        charge(c, 0);
    free(t);
    c->tls = NULL;
    return false;
}

bool
st_nbd_tls_accept(struct nbd_conn *c)
{
    struct nbd_tls *t = c->tls;
    int rc, how;

    c->secure = true;
    t->budget = READ_MORE;
    ERR_clear_error();
    rc = SSL_accept(t->ssl);
    how = SSL_get_error(t->ssl, rc);
    if (!push(c))
        return false;
    if (c->unsent)
        st_nbd_conn_dirty(c);
    if (rc == 1) {
        t->up = true;
        tls_user(c);
        return true;
    }
    if (how != SSL_ERROR_WANT_READ)
        tls_fail(c, t->eof ? "broken off" : complaint(t));
    return false;
}

void
st_nbd_tls_close(struct nbd_conn *c)
{
    struct nbd_tls *t = c->tls;

    if (!t)
        return;
    if (t->up && !t->broken && !c->dead) {
        ERR_clear_error();
        SSL_shutdown(t->ssl);
        push(c); /* if there is room: it does not matter much */
    }
    SSL_free(t->ssl);
    free(t->rest);
    charge(c, 0);
    free(t);
    c->tls = NULL;
    c->unsent = 0;
}

/* ---- Either ---- */

ssize_t
st_nbd_recv(struct nbd_conn *c, struct iovec *iov, unsigned n, size_t asked)
{
    return c->secure ? tls_recv(c, iov, n, asked)
                     : plain_recv(c, iov, n, asked);
}

ssize_t
st_nbd_send(struct nbd_conn *c, struct iovec *iov, unsigned n)
{
    return c->secure ? tls_send(c, iov, n) : plain_send(c, iov, n);
}
