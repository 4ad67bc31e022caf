/* SPDX-License-Identifier: MIT
 *
 * Between the two files of the NBD door that know OpenSSL: tls.c, the keys of
 * a server, and stream.c, the bytes of a connection.
 */
#ifndef ST_NBD_TLS_H
#define ST_NBD_TLS_H

#include <openssl/ssl.h>

struct nbd_conn;
struct nbd_keys;

/* The server's side of C's session, over a BIO of st_nbd_stream_method with C
 * for its data; NULL: out of memory. Any thread. */
SSL *st_nbd_keys_session(struct nbd_keys *k, struct nbd_conn *c);

/* How OpenSSL reaches a connection's socket. Gives; NULL: out of memory. */
BIO_METHOD *st_nbd_stream_method(void);

/* SSL's client offers a pre-shared key: that of USER, or of nobody we know
 * (NULL). It has not yet shown that it has it. */
void st_nbd_tls_asked(SSL *ssl, const char *user);

#endif
