/* SPDX-License-Identifier: MIT
 *
 * What the server proves itself with and knows its clients by: certificates
 * (X.509) and pre-shared keys (PSK), read once, before a sandbox closes.
 *
 *   certificates/  server-cert.pem   ours, with its chain
 *                  server-key.pem    its key, not encrypted
 *                  ca-cert.pem       if there: who signs clients' certificates,
 *                                    without which they are refused
 *                  ca-crl.pem        if there: those that are revoked
 *
 * TLS 1.2 and 1.3; PSK needs 1.3, and there always an ephemeral key exchange.
 * No renegotiation, no compression, no resumption: a session is a connection.
 */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "nbd_private.h"
#include "tls.h"

enum {
    PSK_FILE_MAX = 1 << 20, /* bytes */
    PSK_KEY_MIN = 16,       /* bytes: who records a handshake can guess on */
    PSK_KEY_MAX = 64,
    READ_AHEAD = 64 << 10, /* of one recv */
};

struct psk {
    char user[NBD_TLS_USER_MAX + 1];
    size_t len;
    uint8_t key[PSK_KEY_MAX];
};

struct nbd_keys {
    SSL_CTX *ctx;    /* owned */
    BIO_METHOD *bio; /* owned */
    struct psk *psk; /* owned */
    size_t npsk, room;
};

/* OpenSSL's reason of what has just failed. */
static const char *
reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    return text ? text : "unknown reason";
}

/* ---- Pre-shared keys ---- */

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static struct psk *
psk_find(const struct nbd_keys *k, const void *user, size_t len)
{
    for (size_t i = 0; i < k->npsk; i++)
        if (strlen(k->psk[i].user) == len &&
            memcmp(k->psk[i].user, user, len) == 0)
            return &k->psk[i];
    return NULL;
}

/* Add what LINE of LEN bytes says. NULL, or what is wrong with it: never a part
 * of the line, which may be a key. */
static const char *
psk_line(struct nbd_keys *k, const char *line, size_t len)
{
    const char *colon = memrchr(line, ':', len);
    size_t nuser = colon ? (size_t)(colon - line) : 0;
    size_t ndigits = colon ? len - nuser - 1 : 0;
    struct psk *p;

    if (!nuser)
        return "expected USER:HEXKEY";
    if (nuser > NBD_TLS_USER_MAX || memchr(line, 0, nuser))
        return "a user has at most 128 bytes, none of them zero";
    if (psk_find(k, line, nuser))
        return "this user has a key already";
    if (ndigits % 2 || ndigits / 2 < PSK_KEY_MIN || ndigits / 2 > PSK_KEY_MAX)
        return "a key has 32 to 128 hexadecimal digits, an even number";
    if (k->npsk == k->room) {
        /* Not realloc, which would leave keys behind. */
        size_t room = 2 * k->room + 16;
        struct psk *more = calloc(room, sizeof(*more));

        if (!more)
            return "out of memory";
        if (k->npsk)
            memcpy(more, k->psk, k->npsk * sizeof(*more));
        OPENSSL_cleanse(k->psk, k->npsk * sizeof(*more));
        free(k->psk);
        k->psk = more;
        k->room = room;
    }
    p = &k->psk[k->npsk];
    memcpy(p->user, line, nuser);
    p->user[nuser] = 0;
    p->len = ndigits / 2;
    for (size_t i = 0; i < p->len; i++) {
        int high = hex_digit(colon[1 + 2 * i]);
        int low = hex_digit(colon[2 + 2 * i]);

        if (high < 0 || low < 0)
            return "a key is hexadecimal digits";
        p->key[i] = (uint8_t)(high << 4 | low);
    }
    k->npsk++;
    return NULL;
}

static int
psk_load(struct nbd_keys *k, const char *path, struct st_err *err)
{
    FILE *f = fopen(path, "re");
    const char *wrong = NULL;
    char *text = NULL, *end;
    unsigned number = 0;
    int rc = 0;
    size_t n;

    if (!f)
        return st_err_set(err, errno, "nbd: cannot read '%s': %s", path,
                          strerror(errno));
    text = malloc(PSK_FILE_MAX + 1);
    if (!text) {
        rc = st_err_set(err, ENOMEM, "nbd: out of memory");
        goto out;
    }
    setbuf(f, NULL); /* no copy of the keys */
    n = fread(text, 1, PSK_FILE_MAX + 1, f);
    if (ferror(f)) {
        rc = st_err_set(err, errno, "nbd: cannot read '%s': %s", path,
                        strerror(errno));
        goto out;
    }
    if (n > PSK_FILE_MAX) {
        rc = st_err_set(err, EINVAL, "nbd: '%s' is longer than 1 MiB", path);
        goto out;
    }
    end = text + n;
    for (char *line = text, *next; line < end && !wrong; line = next) {
        char *stop = memchr(line, '\n', (size_t)(end - line));

        next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > line && stop[-1] == '\r')
            stop--;
        number++;
        if (stop > line && *line != '#')
            wrong = psk_line(k, line, (size_t)(stop - line));
    }
    if (wrong)
        rc = st_err_set(err, EINVAL, "nbd: '%s' line %u: %s", path, number,
                        wrong);
    else if (!k->npsk)
        rc = st_err_set(err, EINVAL, "nbd: '%s' has no key in it", path);
out:
    if (text)
        OPENSSL_cleanse(text, PSK_FILE_MAX + 1);
    free(text);
    fclose(f);
    return rc;
}

/* OpenSSL asks for the key of a client (RFC 8446 4.2.11). */
static int
psk_session(SSL *ssl, const unsigned char *user, size_t len, SSL_SESSION **out)
{
    const unsigned char aes_128_gcm_sha256[] = {0x13, 0x01};
    struct nbd_keys *k = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct psk *p = psk_find(k, user, len);
    SSL_SESSION *s;

    *out = NULL;
    st_nbd_tls_asked(ssl, p ? p->user : NULL);
    if (!p)
        return 1; /* goes on without */
    s = SSL_SESSION_new();
    if (!s || !SSL_SESSION_set1_master_key(s, p->key, p->len) ||
        !SSL_SESSION_set_cipher(s, SSL_CIPHER_find(ssl, aes_128_gcm_sha256)) ||
        !SSL_SESSION_set_protocol_version(s, TLS1_3_VERSION)) {
        SSL_SESSION_free(s);
        return 0;
    }
    *out = s;
    return 1;
}

/* ---- Certificates ---- */

/* No passphrase, and above all no question on the terminal. */
static int
no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* Can PATH be read? 0 or -errno. */
static int
readable(const char *path, struct st_err *err)
{
    FILE *f = fopen(path, "re");

    if (!f)
        return st_err_set(err, errno, "nbd: cannot read '%s': %s", path,
                          strerror(errno));
    fclose(f);
    return 0;
}

static void
warn_if_public(const struct st_log *log, const char *path)
{
    struct stat sb;

    if (stat(path, &sb) == 0 && sb.st_mode & S_IROTH)
        st_warn(log, "nbd: '%s' holds a secret that everybody can read", path);
}

static int
load_authority(SSL_CTX *ctx, const char *path, const char *crl,
               struct st_err *err)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    X509_LOOKUP *lookup;

    if (!names || !SSL_CTX_load_verify_file(ctx, path)) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return st_err_set(err, EINVAL, "nbd: '%s' is no certificate: %s", path,
                          reason());
    }
    SSL_CTX_set_client_CA_list(ctx, names);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       NULL);
    if (readable(crl, NULL) == -ENOENT)
        return 0;
    lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
    if (!lookup || X509_load_crl_file(lookup, crl, X509_FILETYPE_PEM) <= 0)
        return st_err_set(err, EINVAL, "nbd: '%s' is no revocation list: %s",
                          crl, reason());
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    return 0;
}

static int
certificates_load(SSL_CTX *ctx, const char *folder, const struct st_log *log,
                  struct st_err *err)
{
    static const char *const file[] = {"server-cert.pem", "server-key.pem",
                                       "ca-cert.pem", "ca-crl.pem"};
    enum { CERT, KEY, CA, CRL, FILES };
    char *path[FILES] = {NULL};
    int rc = 0;

    for (unsigned i = 0; i < FILES; i++)
        if (asprintf(&path[i], "%s/%s", folder, file[i]) < 0) {
            path[i] = NULL;
            rc = st_err_set(err, ENOMEM, "nbd: out of memory");
            goto out;
        }
    if ((rc = readable(path[CERT], err)) < 0 ||
        (rc = readable(path[KEY], err)) < 0)
        goto out;
    warn_if_public(log, path[KEY]);
    if (SSL_CTX_use_certificate_chain_file(ctx, path[CERT]) != 1)
        rc = st_err_set(err, EINVAL, "nbd: '%s' is no certificate: %s",
                        path[CERT], reason());
    else if (SSL_CTX_use_PrivateKey_file(ctx, path[KEY], SSL_FILETYPE_PEM) != 1)
        rc = st_err_set(err, EINVAL,
                        "nbd: '%s' is no key of '%s' without a passphrase: %s",
                        path[KEY], path[CERT], reason());
    else if ((rc = readable(path[CA], err)) == 0)
        rc = load_authority(ctx, path[CA], path[CRL], err);
    else if (rc == -ENOENT)
        rc = 0; /* whoever knows the address may come */
out:
    for (unsigned i = 0; i < FILES; i++)
        free(path[i]);
    return rc;
}

/* ---- Making and unmaking ---- */

static SSL_CTX *
context_new(struct nbd_keys *k)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    unsigned char warm[16];

    if (!ctx)
        return NULL;
    SSL_CTX_set_app_data(ctx, k);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_NO_TICKET |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 /* NBD's lengths tell a cut-off stream */
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD);
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    /* SHA-256 first: what a PSK is bound to. */
    if (!SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) ||
        !SSL_CTX_set_num_tickets(ctx, 0) ||
        !SSL_CTX_set_session_id_context(ctx, (const uint8_t *)"nbd", 3) ||
        !SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") ||
        !SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:"
                                       "TLS_CHACHA20_POLY1305_SHA256:"
                                       "TLS_AES_256_GCM_SHA384") ||
        RAND_bytes(warm, sizeof(warm)) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

int
st_nbd_keys_load(const struct st_nbd_opts *o, struct nbd_keys **out,
                 struct st_err *err)
{
    const struct st_log *log = st_domain_log(o->control->domain);
    struct nbd_keys *k;
    int rc = 0;

    *out = NULL;
    if (o->tls == ST_NBD_TLS_OFF)
        return 0;
    if (!o->tls_certificates && !o->tls_psk)
        return st_err_set(err, EINVAL,
                          "nbd: TLS needs a folder of certificates or a file "
                          "of pre-shared keys");
    ERR_clear_error();
    k = calloc(1, sizeof(*k));
    if (!k || !(k->ctx = context_new(k)) ||
        !(k->bio = st_nbd_stream_method())) {
        rc = st_err_set(err, ENOMEM, "nbd: cannot start TLS: %s",
                        k ? reason() : "out of memory");
        goto fail;
    }
    if (o->tls_certificates)
        rc = certificates_load(k->ctx, o->tls_certificates, log, err);
    if (rc == 0 && o->tls_psk) {
        rc = psk_load(k, o->tls_psk, err);
        warn_if_public(log, o->tls_psk);
        SSL_CTX_set_psk_find_session_callback(k->ctx, psk_session);
    }
    if (rc < 0)
        goto fail;
    ERR_clear_error();
    *out = k;
    return 0;

fail:
    ERR_clear_error();
    st_nbd_keys_free(k);
    return rc;
}

void
st_nbd_keys_free(struct nbd_keys *k)
{
    if (!k)
        return;
    SSL_CTX_free(k->ctx);
    BIO_meth_free(k->bio);
    if (k->psk)
        OPENSSL_cleanse(k->psk, k->room * sizeof(*k->psk));
    free(k->psk);
    free(k);
}

SSL *
st_nbd_keys_session(struct nbd_keys *k, struct nbd_conn *c)
{
    SSL *ssl = SSL_new(k->ctx);
    BIO *bio = ssl ? BIO_new(k->bio) : NULL;

    if (!bio) {
        SSL_free(ssl);
        return NULL;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, c);
    SSL_set_accept_state(ssl);
    return ssl;
}
