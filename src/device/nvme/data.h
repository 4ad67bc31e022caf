/* SPDX-License-Identifier: MIT
 *
 * Where a command's data is: PRPs and SGLs to host addresses (NVMe Base 4.1).
 * Private to the controller.
 *
 * Nothing is allocated by what a guest says: a list is walked on the stack, and
 * what a command can name is bounded by the largest transfer.
 */
#ifndef ST_NVME_DATA_H
#define ST_NVME_DATA_H

#include "gmem.h"
#include "nvme_spec.h"

enum {
    NVME_PAGE = 4096,        /* CC.MPS is 0 */
    NVME_DATA_MAX = 1 << 20, /* bytes; Identify's MDTS */
    NVME_DATA_PIECES = NVME_DATA_MAX / NVME_PAGE + 1,
    NVME_SGL_DESCRIPTORS = 256, /* of data; Identify's MSDBD */
    NVME_SGL_WALK = 1024,       /* descriptors that are looked at */
};

/* A command's data, zeroed at first; valid until st_nvme_data_put. */
struct nvme_data {
    struct st_gmem_use use;
    unsigned n;
    struct iovec iov[NVME_DATA_PIECES];
};

/* Fill D with the LEN bytes (at most NVME_DATA_MAX; 0 is fine) that SQE points
 * at; TO_HOST: the controller writes them. SGLs are taken only if SGL. NVME_OK
 * or a status, with DNR where it is the guest's mistake; D holds nothing then.
 * The view's loop. */
uint16_t st_nvme_data_get(struct nvme_data *d, struct st_gmem_view *v,
                          const struct nvme_sqe *sqe, uint64_t len,
                          bool to_host, bool sgl);

/* The command is over. */
static inline void
st_nvme_data_put(struct nvme_data *d, struct st_gmem_view *v)
{
    if (d->use.n)
        st_gmem_put(v, &d->use);
    d->n = 0;
}

#endif
