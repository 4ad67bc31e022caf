/* SPDX-License-Identifier: MIT
 *
 * A TLS client for tests (OpenSSL, where Debian's clients use GnuTLS), and the
 * certificates and keys that it and the server need, made on the spot:
 *
 *   DIR/server/  server-cert.pem, server-key.pem
 *   DIR/mutual/  the same, and ca-cert.pem: clients need certificates
 *   DIR/strict/  the same, and ca-crl.pem: that of `revoked` does not count
 *   DIR/WHO-cert.pem, DIR/WHO-key.pem of clients: good, other (another
 *       authority's), expired, revoked
 *   DIR/ca.pem, DIR/psk
 */
#ifndef ST_TEST_TLS_H
#define ST_TEST_TLS_H

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test_client.h"

#define PSK_HEX                                                                \
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

/* ---- Files ---- */

static inline const char *
tls_path(const char *dir, const char *name)
{
    static char room[4][256];
    static unsigned next;
    char *path = room[next++ % 4];

    snprintf(path, sizeof(room[0]), "%s/%s", dir, name);
    return path;
}

static inline void
tls_write(const char *dir, const char *name, const char *text)
{
    FILE *f = fopen(tls_path(dir, name), "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(tls_path(dir, name), 0600);
}

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

/* A certificate for NAME that is valid for DAYS from a day ago, signed by CA
 * (NULL: by itself, and may sign others). */
static inline struct identity
identity_new(const char *name, int days, const struct identity *ca)
{
    struct identity id = {.key = EVP_EC_gen("P-256"), .cert = X509_new()};
    const char *constraint = ca ? "CA:FALSE" : "critical,CA:TRUE";
    X509_NAME *subject = X509_get_subject_name(id.cert);
    static long serial;
    X509_EXTENSION *x;

    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), -86400);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), (days - 1) * 86400L);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(id.cert,
                         X509_get_subject_name(ca ? ca->cert : id.cert));
    X509_set_pubkey(id.cert, id.key);
    x = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, constraint);
    X509_add_ext(id.cert, x, -1);
    X509_EXTENSION_free(x);
    assert_true(X509_sign(id.cert, ca ? ca->key : id.key, EVP_sha256()) > 0);
    return id;
}

static inline void
identity_free(struct identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
}

static inline void
identity_write(const struct identity *id, const char *dir, const char *cert,
               const char *key)
{
    FILE *f = fopen(tls_path(dir, cert), "w");

    PEM_write_X509(f, id->cert);
    fclose(f);
    if (!key)
        return;
    f = fopen(tls_path(dir, key), "w");
    PEM_write_PrivateKey(f, id->key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    chmod(tls_path(dir, key), 0600);
}

/* A certificate for NAME, signed by CA. */
static inline void
identity_make(const char *name, int days, const struct identity *ca,
              const char *dir, const char *cert, const char *key)
{
    struct identity id = identity_new(name, days, ca);

    identity_write(&id, dir, cert, key);
    identity_free(&id);
}

/* CA takes back the certificate of ID, and says so in DIR/FILE. */
static inline void
identity_revoke(const struct identity *id, const struct identity *ca,
                const char *dir, const char *file)
{
    X509_REVOKED *r = X509_REVOKED_new();
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, -60);
    FILE *f = fopen(tls_path(dir, file), "w");

    X509_CRL_set_version(crl, 1);
    X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca->cert));
    X509_CRL_set1_lastUpdate(crl, now);
    X509_REVOKED_set_serialNumber(r, X509_get_serialNumber(id->cert));
    X509_REVOKED_set_revocationDate(r, now);
    X509_CRL_add0_revoked(crl, r);
    X509_gmtime_adj(now, 86400);
    X509_CRL_set1_nextUpdate(crl, now);
    assert_true(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
    PEM_write_X509_CRL(f, crl);
    fclose(f);
    ASN1_TIME_free(now);
    X509_CRL_free(crl);
}

/* DIR ends with XXXXXX and is made. */
static inline void
tls_files_make(char *dir)
{
    static const char *const folder[] = {"server", "mutual", "strict"};
    struct identity ca, other, revoked;

    assert_non_null(mkdtemp(dir));
    ca = identity_new("an authority", 100, NULL);
    other = identity_new("another", 100, NULL);
    identity_write(&ca, dir, "ca.pem", NULL);
    for (unsigned i = 0; i < 3; i++) {
        char path[200];

        snprintf(path, sizeof(path), "%s/%s", dir, folder[i]);
        mkdir(path, 0700);
        identity_make("localhost", 100, &ca, path, "server-cert.pem",
                      "server-key.pem");
        if (i)
            identity_write(&ca, path, "ca-cert.pem", NULL);
    }
    revoked = identity_new("eve", 100, &ca);
    identity_write(&revoked, dir, "revoked-cert.pem", "revoked-key.pem");
    identity_revoke(&revoked, &ca, dir, "strict/ca-crl.pem");
    identity_free(&revoked);
    identity_make("alice", 100, &ca, dir, "good-cert.pem", "good-key.pem");
    identity_make("mallory", 100, &other, dir, "other-cert.pem",
                  "other-key.pem");
    identity_make("old bob", 0, &ca, dir, "expired-cert.pem",
                  "expired-key.pem");
    identity_free(&ca);
    identity_free(&other);
    tls_write(dir, "psk", "# who may come\n\nalice:" PSK_HEX "\n");
}

static inline void
tls_files_remove(const char *dir)
{
    char command[300];

    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

/* ---- The client ---- */

static inline ssize_t
tls_result(struct client *c, int rc)
{
    int how = rc > 0 ? SSL_ERROR_NONE : SSL_get_error(c->ssl, rc);

    if (how == SSL_ERROR_NONE)
        return rc;
    if (how == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = how == SSL_ERROR_WANT_READ || how == SSL_ERROR_WANT_WRITE ? EAGAIN
                                                                      : EPROTO;
    return -1;
}

static inline ssize_t
tls_client_send(struct client *c, const void *p, size_t n)
{
    ERR_clear_error();
    return tls_result(c,
                      SSL_write(c->ssl, p, (int)(n > 1 << 20 ? 1 << 20 : n)));
}

static inline ssize_t
tls_client_recv(struct client *c, void *p, size_t n)
{
    ERR_clear_error();
    return tls_result(c, SSL_read(c->ssl, p, (int)(n > 1 << 20 ? 1 << 20 : n)));
}

static inline unsigned
tls_client_key(SSL *ssl, const char *hint, char *user, unsigned max_user,
               unsigned char *key, unsigned max_key)
{
    const char *text = SSL_get_app_data(ssl); /* user:hexkey */
    const char *colon = strchr(text, ':');
    unsigned n = 0;

    (void)hint;
    (void)max_key;
    snprintf(user, max_user, "%.*s", (int)(colon - text), text);
    for (const char *p = colon + 1; *p; p += 2)
        key[n++] = (unsigned char)strtoul((char[]){p[0], p[1], 0}, NULL, 16);
    return n;
}

/* How to come: what is NULL or 0 is not used. */
struct manner {
    const char *dir;
    const char *who; /* "good": DIR/good-{cert,key}.pem */
    const char *psk; /* "user:hexkey" */
    int version;     /* TLS1_2_VERSION; else the best */
};

/* Make C's TLS; nothing is said yet. */
static inline void
tls_client_new(struct client *c, struct manner m)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    char name[60];

    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (m.version)
        SSL_CTX_set_max_proto_version(ctx, m.version);
    if (m.psk) {
        SSL_CTX_set_psk_client_callback(ctx, tls_client_key);
    } else {
        assert_int_equal(
            SSL_CTX_load_verify_file(ctx, tls_path(m.dir, "ca.pem")), 1);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    }
    if (m.who) {
        snprintf(name, sizeof(name), "%s-cert.pem", m.who);
        SSL_CTX_use_certificate_file(ctx, tls_path(m.dir, name),
                                     SSL_FILETYPE_PEM);
        snprintf(name, sizeof(name), "%s-key.pem", m.who);
        SSL_CTX_use_PrivateKey_file(ctx, tls_path(m.dir, name),
                                    SSL_FILETYPE_PEM);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    SSL_set_fd(c->ssl, c->fd);
    SSL_set_connect_state(c->ssl);
    if (m.psk)
        SSL_set_app_data(c->ssl, (char *)(uintptr_t)m.psk);
    c->send = tls_client_send;
    c->recv = tls_client_recv;
}

static inline void
tls_client_free(struct client *c)
{
    SSL_free(c->ssl);
    c->ssl = NULL;
    c->send = NULL;
    c->recv = NULL;
}

/* Say STARTTLS after the greeting, and be heard. */
static inline void
tls_client_ask(struct client *c)
{
    client_option(c, NBD_OPT_STARTTLS, NULL);
    client_expect_reply(c, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
}

/* The TLS handshake; false when it failed on this side. */
static inline bool
tls_client_shake(struct client *c)
{
    ssize_t rc;

    do {
        ERR_clear_error();
        rc = tls_result(c, SSL_connect(c->ssl));
        if (rc < 0 && errno == EAGAIN)
            client_wait(c, (short)(SSL_want_write(c->ssl) ? POLLOUT : POLLIN));
    } while (rc < 0 && errno == EAGAIN);
    return rc == 1;
}

/* From the connection to options again. */
static inline void
tls_client_up(struct client *c, struct manner m)
{
    client_greet(c);
    tls_client_ask(c);
    tls_client_new(c, m);
    assert_true(tls_client_shake(c));
}

/* As client_go, on a client that is greeted already. */
static inline uint16_t
tls_client_go(struct client *c, const char *name, enum form form)
{
    struct msg *m = calloc(1, sizeof(*m));
    uint8_t b[20 + 12 + 20];
    be16 flags;

    c->form = form;
    if (form != SIMPLE) {
        uint32_t opt = form == EXTENDED ? NBD_OPT_EXTENDED_HEADERS
                                        : NBD_OPT_STRUCTURED_REPLY;

        client_option(c, opt, NULL);
        client_expect_reply(c, opt, NBD_REP_ACK, NULL, 0);
    }
    put_string(m, name);
    put16(m, 0);
    client_option(c, NBD_OPT_GO, m);
    free(m);
    assert_int_equal(client_recv(c, b, sizeof(b)), sizeof(b));
    memcpy(&flags, b + 30, 2);
    return be16_get(flags);
}

#endif
