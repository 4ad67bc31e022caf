/* SPDX-License-Identifier: MIT
 *
 * The NBD door: exports of roots to any NBD client (NBD protocol, fixed
 * newstyle, structured and extended replies; docs/proto.md of the NBD project).
 *
 *   control loop: listening sockets, exports that come and go, the end
 *   I/O loops:    one connection lives on one loop, from accept to close
 *
 * Clients are data, not truth: whatever one sends ends in an error reply or in
 * one log line and the end of its own connection.
 */
#ifndef ST_NBD_H
#define ST_NBD_H

#include "disk.h"

struct st_nbd;

/* May, must or cannot a client ask for TLS (NBD_OPT_STARTTLS)? */
enum st_nbd_tls {
    ST_NBD_TLS_OFF,     /* refused: ERR_POLICY */
    ST_NBD_TLS_ON,      /* the client decides */
    ST_NBD_TLS_REQUIRE, /* every other option before it: ERR_TLS_REQD */
};

/* What a server is made of. */
struct st_nbd_opts {
    struct st_loop *control; /* borrowed; home of the disks */
    struct st_loop **loops;  /* borrowed array: where connections live; may
                              * hold just the control loop */
    unsigned nloops;
    uint64_t handshake_ns; /* time for the whole handshake; 0 = 10 s */
    /* Read when the server is made. Not OFF: one of the two at least, both
     * borrowed; else -EINVAL. */
    enum st_nbd_tls tls;
    const char *tls_certificates; /* a folder: server-cert.pem, server-key.pem,
                                   * and ca-cert.pem, with which clients must
                                   * show certificates of their own (that
                                   * ca-crl.pem does not revoke) */
    const char *tls_psk; /* a file of lines "user:hex key", as psktool makes;
                          * empty ones and those with # are skipped. TLS 1.3 */
};

/* Control loop. 0 or -errno: of TLS' files -EINVAL, or why they cannot be read.
 */
int st_nbd_create(const struct st_nbd_opts *opts, struct st_nbd **out,
                  struct st_err *err);

/* Serve DISK (borrowed until it is taken out, or the server is destroyed) as
 * NAME ("" is the default export). READ_ONLY adds to what the disk says.
 * -EEXIST, -EINVAL (name over 4096 bytes), -ESHUTDOWN. Control loop, at any
 * time; who asks from now on finds it. */
int st_nbd_export(struct st_nbd *s, const char *name, const char *description,
                  struct st_disk *disk, bool read_only, struct st_err *err);

/* The end of an export, under way. */
struct st_nbd_unexport {
    void (*done)(struct st_nbd_unexport *u);
    void *arg;
    /* The server's own. */
    struct nbd_export *export;
    struct st_timer timer;
    struct st_task task;
};

/* Serve NAME no more: from now on it is unknown (and may be exported again),
 * and its clients get ESHUTDOWN for new requests. After 1 s each of them is
 * closed as soon as it is quiet: all that it has in flight is answered. After
 * TIMEOUT_NS those that are still there are cut off and what they have in
 * flight is cancelled. DONE when no connection and no channel uses the disk any
 * more, however long that takes, on the control loop, never within this call;
 * U's memory is the server's until then. DONE may do anything but destroy the
 * server; its stop waits for it. 0 or -ENOENT (done is not called; after DONE
 * of st_nbd_stop there are no exports). Control loop. */
int st_nbd_unexport(struct st_nbd *s, const char *name, uint64_t timeout_ns,
                    struct st_nbd_unexport *u);

/* Accept clients on FD, a listening stream socket (taken). Any number. */
int st_nbd_listen(struct st_nbd *s, int fd, struct st_err *err);

/* Serve one client on FD, a connected stream socket (taken). ENDED (may be
 * NULL) is called on the control loop when its connection is closed. */
int st_nbd_connection(struct st_nbd *s, int fd, void (*ended)(void *arg),
                      void *arg, struct st_err *err);

/* Stop accepting; tell clients in the handshake ERR_SHUTDOWN; answer what is
 * in flight, then ESHUTDOWN to new requests until a client disconnects, or
 * until every connection is quiet and TIMEOUT_NS has passed: then cut. Flush
 * every export's disk once. DONE(ARG, RC) on the control loop: 0, or -EIO when
 * a flush failed, -ETIMEDOUT when requests had to be abandoned. */
void st_nbd_stop(struct st_nbd *s, uint64_t timeout_ns,
                 void (*done)(void *arg, int rc), void *arg);

/* After st_nbd_stop was called, hurry: cut the clients off now. */
void st_nbd_cut(struct st_nbd *s);

/* After DONE of st_nbd_stop. NULL is fine. Where requests never came back
 * (DONE got -ETIMEDOUT long after a cut) it frees nothing, for they live there,
 * and their disks still have channels: the process can only end. */
void st_nbd_destroy(struct st_nbd *s);

/* What a server did. */
struct st_nbd_stats {
    uint64_t clients, clients_total, requests, errors, protocol_errors;
    uint64_t bytes_in, bytes_out;
};

/* Any thread. */
void st_nbd_stats(struct st_nbd *s, struct st_nbd_stats *out);

/* Its values (tls; st_nbd_stats, clients as clients_now; leaving: exports that
 * are being taken out) and directories: exports/NAME (disk, description,
 * read_only, clients) and clients/N (peer, export, tls: "off" or a version,
 * user: of a PSK, or a certificate's common name; requests, in_flight,
 * bytes_in, bytes_out, age in seconds). N counts from 1 and is what log lines
 * say. Bytes are those of NBD, not of TLS. Control loop; waits for nobody. */
void st_nbd_inspect(struct st_nbd *s, struct st_inspect *v);

#endif
