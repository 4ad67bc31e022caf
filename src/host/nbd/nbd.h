/* SPDX-License-Identifier: MIT
 *
 * The NBD door: exports of roots to any NBD client (NBD protocol, fixed
 * newstyle, structured and extended replies; docs/proto.md of the NBD project).
 *
 *   control loop: listening sockets, the export table, the end
 *   I/O loops:    one connection lives on one loop, from accept to close
 *
 * Clients are data, not truth: whatever one sends ends in an error reply or in
 * one log line and the end of its own connection.
 */
#ifndef ST_NBD_H
#define ST_NBD_H

#include "disk.h"

struct st_nbd;

struct st_nbd_opts {
    struct st_loop *control; /* borrowed; home of the disks */
    struct st_loop **loops;  /* borrowed array: where connections live; may
                              * hold just the control loop */
    unsigned nloops;
    uint64_t handshake_ns; /* time for the whole handshake; 0 = 10 s */
};

/* Control loop. 0 or -errno. */
int st_nbd_create(const struct st_nbd_opts *opts, struct st_nbd **out,
                  struct st_err *err);

/* Serve DISK (borrowed until the server is destroyed) as NAME ("" is the
 * default export). READ_ONLY adds to what the disk says. -EEXIST, -EINVAL
 * (name over 4096 bytes). Control loop, before the first listen. */
int st_nbd_export(struct st_nbd *s, const char *name, const char *description,
                  struct st_disk *disk, bool read_only, struct st_err *err);

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

struct st_nbd_stats {
    uint64_t clients, clients_total, requests, errors, protocol_errors;
    uint64_t bytes_in, bytes_out;
};

/* Any thread. */
void st_nbd_stats(struct st_nbd *s, struct st_nbd_stats *out);

#endif
