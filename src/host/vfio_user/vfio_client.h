/* SPDX-License-Identifier: MIT
 *
 * The client's side of vfio-user: a device in another process, driven from
 * here, as `strata bench vfio-user` and the tests do.
 *
 * Calls block, for at most 10 s each (-ETIMEDOUT), and return 0 or -errno: what
 * the server answered, or what became of the socket (-ECONNRESET: it is gone).
 * One thread at a time.
 */
#ifndef ST_VFIO_CLIENT_H
#define ST_VFIO_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct st_vfio_client;

/* Connect to the socket at PATH and agree on a version; MULTI: ask for
 * REGION_WRITE_MULTI. */
int st_vfio_client_connect(const char *path, bool multi,
                           struct st_vfio_client **out, struct st_err *err);

/* The same on FD, a connected stream socket (taken, also on failure). */
int st_vfio_client_attach(int fd, bool multi, struct st_vfio_client **out,
                          struct st_err *err);

/* Disconnect; memory and doorbells that it gave are unmapped. NULL is fine. */
void st_vfio_client_close(struct st_vfio_client *c);

/* The socket, for who wants to send something else. Lent. */
int st_vfio_client_fd(const struct st_vfio_client *c);

/* May write_multi be used? */
bool st_vfio_client_multi(const struct st_vfio_client *c);

/* ---- Messages ---- */

/* One message, and its answer. */
struct st_vfio_call {
    unsigned command; /* enum vfio_command */
    const void *out;  /* payload, as it lies on the wire */
    size_t out_len;
    const void *more; /* what follows it, or NULL */
    size_t more_len;
    const int *fds; /* borrowed, go along */
    unsigned nfds;
    void *in;              /* the answer's payload, at most IN_MAX bytes; */
    size_t in_max, in_len; /* IN_LEN: so many came */
    int in_fd;             /* a descriptor that came (the caller's), or -1 */
};

/* Send it and wait for its answer. An error that the server answers is -errno;
 * an answer that is too long, or no vfio-user, is -EPROTO. */
int st_vfio_client_call(struct st_vfio_client *c, struct st_vfio_call *call);

/* Send it without: no answer is wanted (POSTED), or the caller collects it by
 * st_vfio_client_collect, in order. */
int st_vfio_client_send(struct st_vfio_client *c,
                        const struct st_vfio_call *call, bool posted);
int st_vfio_client_collect(struct st_vfio_client *c, struct st_vfio_call *call);

/* ---- The device ---- */

/* Read or write COUNT bytes of a region (0 to 5: BARs, 7: configuration
 * space); post: without waiting for an answer. */
int st_vfio_client_read(struct st_vfio_client *c, unsigned region,
                        uint64_t offset, void *to, uint32_t count);
int st_vfio_client_write(struct st_vfio_client *c, unsigned region,
                         uint64_t offset, const void *from, uint32_t count);
int st_vfio_client_post(struct st_vfio_client *c, unsigned region,
                        uint64_t offset, const void *from, uint32_t count);

/* A write of up to 8 bytes, of many in one message. */
struct st_vfio_write {
    unsigned region;
    uint64_t offset, value;
    unsigned len;
};

/* Post N writes at once. -ENOTSUP where it was not agreed on. */
int st_vfio_client_write_multi(struct st_vfio_client *c,
                               const struct st_vfio_write *w, unsigned n);

/* How large REGION is, in bytes; 0: it is not there. */
int st_vfio_client_region_size(struct st_vfio_client *c, unsigned region,
                               uint64_t *size);

/* Map the part of REGION that can be mapped: *AT is where it is here, *OFFSET
 * and *SIZE where in the region. Lent until the client closes. -ENOENT: there
 * is none. */
int st_vfio_client_doorbells(struct st_vfio_client *c, unsigned region,
                             void **at, uint64_t *offset, uint64_t *size);

/* DEVICE_RESET: the device as after power-on; maps and eventfds stay. */
int st_vfio_client_reset(struct st_vfio_client *c);

/* ---- Memory and interrupts ---- */

/* Make an arena of SIZE bytes (whole pages, once), zeroed, that the client can
 * share: *HOST is where it is here. Lent until the client closes. */
int st_vfio_client_arena(struct st_vfio_client *c, size_t size, void **host);
/* Its file. Lent. */
int st_vfio_client_arena_fd(const struct st_vfio_client *c);

/* The arena's [OFFSET, OFFSET + LEN) is at GPA of the guest, or is not. */
int st_vfio_client_map(struct st_vfio_client *c, uint64_t gpa, uint64_t offset,
                       uint64_t len, bool writable);
int st_vfio_client_unmap(struct st_vfio_client *c, uint64_t gpa, uint64_t len);

/* The eventfds (borrowed) of COUNT interrupts from START on: of MSI-X, or INTX.
 * FDS NULL: none from now on. */
int st_vfio_client_irqs(struct st_vfio_client *c, bool intx, unsigned start,
                        unsigned count, const int *fds);

#endif
