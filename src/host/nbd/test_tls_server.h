/* SPDX-License-Identifier: MIT
 *
 * test_server.h with TLS: the files of test_tls.h in a folder of the program's
 * own, and clients that are freed with their TLS.
 */
#ifndef ST_TEST_TLS_SERVER_H
#define ST_TEST_TLS_SERVER_H

#include "test_server.h"
#include "test_tls.h"

static char dir[64];

static inline int
make_files(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN); /* OpenSSL's sockets */
    snprintf(dir, sizeof(dir), "/tmp/nbd-tls-XXXXXX");
    tls_files_make(dir);
    return 0;
}

static inline int
remove_files(void **state)
{
    (void)state;
    tls_files_remove(dir);
    return 0;
}

static inline int
setup_tls(void **state, enum st_nbd_tls tls, const char *certificates, bool psk,
          uint64_t handshake_ns, unsigned nloops)
{
    struct st_nbd_opts o = {
        .tls = tls,
        .tls_certificates = certificates ? tls_path(dir, certificates) : NULL,
        .tls_psk = psk ? tls_path(dir, "psk") : NULL,
        .handshake_ns = handshake_ns,
        .nloops = nloops,
    };

    return setup_opts(state, (struct st_testnode_opts){.fua = true}, o);
}

static inline int
setup_on(void **state)
{
    return setup_tls(state, ST_NBD_TLS_ON, "server", false, 0, 1);
}

/* Frees the clients' side, too. */
static inline int
teardown_tls(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < MANY; i++)
        if (f->client[i].ssl)
            tls_client_free(&f->client[i]);
    assert_null(strstr(f->lines, "00010203")); /* a key */
    return teardown(state);
}

static inline void
drop(struct client *c)
{
    if (c->ssl)
        tls_client_free(c);
    hang_up(c);
}

#endif
