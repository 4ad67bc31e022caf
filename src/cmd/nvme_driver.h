/* SPDX-License-Identifier: MIT
 *
 * A small NVMe driver in user space, for a controller behind a vfio-user socket
 * (host/vfio_user/vfio_client.h): what `strata bench vfio-user` and tests drive
 * controllers with. It does as Linux does where it matters: one queue pair and
 * one vector a thread, batches, shadow doorbells where they are offered.
 *
 *   slots of queue q, each with a buffer that lies in the memory it shares
 *     submit, submit, ... ring -->  controller  --> reap, reap, ... reaped
 *
 * Set-up calls block. A queue is one thread's; different queues may be used at
 * the same time.
 */
#ifndef ST_NVME_DRIVER_H
#define ST_NVME_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "nvme_spec.h"

enum {
    ST_NVME_DRIVER_QUEUES = 64,
    ST_NVME_DRIVER_DEPTH = 1023,
    ST_NVME_DRIVER_BYTES = 1 << 20, /* of one command's data */
};

struct st_nvme_driver;

/* What a driver wants of its controller. */
struct st_nvme_driver_opts {
    const char *path;
    unsigned queues, depth; /* I/O queue pairs; commands at a time in each */
    size_t bytes;           /* of a slot's buffer, up to
                             * ST_NVME_DRIVER_BYTES */
    uint32_t nsid;
    bool no_shadow; /* ring every doorbell, though shadows are offered */
};

/* Connect, enable, create queues. 0 or -errno with a sentence. */
int st_nvme_driver_open(const struct st_nvme_driver_opts *opts,
                        struct st_nvme_driver **out, struct st_err *err);

/* Disable the controller and disconnect. NULL is fine. */
void st_nvme_driver_close(struct st_nvme_driver *d);

/* What there is. */
struct st_nvme_driver_info {
    uint64_t blocks;
    unsigned block; /* bytes */
    char model[41], serial[21];
    unsigned queues, depth, namespaces; /* NN */
    const char *doorbells;              /* "messages", "shadow", "mapped" */
    int pid;                            /* of the server, or 0 */
};

/* Lent. */
const struct st_nvme_driver_info *
st_nvme_driver_info(const struct st_nvme_driver *d);

/* An admin command, to its end: SQE's data pointers are set for DATA, LEN bytes
 * up to a page (0: none), from or to it (TO_CONTROLLER). 0, -EIO with the
 * status in the sentence, or what became of the server. One thread, no queue in
 * use by another. */
int st_nvme_driver_admin(struct st_nvme_driver *d, struct nvme_sqe *sqe,
                         void *data, size_t len, bool to_controller,
                         struct st_err *err);

/* The buffer of SLOT of queue Q. */
void *st_nvme_driver_data(struct st_nvme_driver *d, unsigned q, unsigned slot);

/* Put a command into queue Q whose data are LEN bytes (0: none) of SLOT's
 * buffer; SLOT is not in use. The controller sees it at the next ring. */
void st_nvme_driver_submit(struct st_nvme_driver *d, unsigned q, unsigned slot,
                           uint8_t opcode, uint64_t lba, unsigned blocks,
                           size_t len);

/* Tell the controller of what was submitted. 0 or -errno: the server is gone.
 */
int st_nvme_driver_ring(struct st_nvme_driver *d, unsigned q);

/* The slot of a command that has completed, and its status (enum nvme_status,
 * with DNR), or -1: none has. */
int st_nvme_driver_reap(struct st_nvme_driver *d, unsigned q, uint16_t *status);

/* Give the controller its room back, after some reaps. As ring. */
int st_nvme_driver_reaped(struct st_nvme_driver *d, unsigned q);

/* Wait for queue Q's interrupt. 0 (perhaps without one: look), -ETIMEDOUT, or
 * -ECONNRESET: the server is gone. */
int st_nvme_driver_wait(struct st_nvme_driver *d, unsigned q, int timeout_ms);

/* What it cost: messages that rang a doorbell of queue Q; interrupts. */
struct st_nvme_driver_counts {
    uint64_t doorbells, interrupts;
};

/* Lent; the queue's thread, or when it is at rest. */
const struct st_nvme_driver_counts *
st_nvme_driver_counts(const struct st_nvme_driver *d, unsigned q);

#endif
