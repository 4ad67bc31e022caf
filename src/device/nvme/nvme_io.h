/* SPDX-License-Identifier: MIT
 *
 * What the files of the NVM command set share: io.c (life of a command, read,
 * write, flush), io_compare.c, io_ranges.c (what goes in slices), io_pool.c
 * (buffers). Private to them.
 *
 *   start --> [data] --> [buffer] --> request --> next --> ... --> end --> done
 *                          wait         disk       |
 *                                        ^---------' more slices
 *
 * A command has one request of its own and is in one state; what ends a request
 * well, or hands the buffer over, calls its `next`. Nothing ends while start
 * runs: what may be reached from there ends by st_nvme_io_end_soon.
 */
#ifndef ST_NVME_IO_H
#define ST_NVME_IO_H

#include "nvme_cmd.h"

enum nvme_io_state {
    NVME_IO_IDLE,
    NVME_IO_POOL, /* waits for a buffer */
    NVME_IO_DISK, /* its request is under way */
    NVME_IO_TASK, /* its task is ready */
};

enum {
    NVME_PAGE_SHIFT = 12,    /* of NVME_PAGE */
    NVME_BUFFER = 128 << 10, /* bytes */
    NVME_BUFFERS = 8,        /* of one loop at most */
    NVME_SLICE = 16 << 20,   /* bytes: of what takes long, at a time */
};

/* Blocks of a namespace. */
struct nvme_range {
    uint64_t lba, n; /* blocks */
};

/* Memory for commands that look at data, and for the ranges of those that have
 * many. */
struct nvme_buffer {
    struct nvme_buffer *next;
    struct nvme_range range[NVME_DSM_RANGES];
    struct iovec iov; /* for a request: all or a part of DATA */
    uint8_t *data;    /* NVME_BUFFER bytes, owned */
};

/* The bits of CDW12 (NVM Command Set 3.2). */
enum {
    NVME_RW_DEAC = 1 << 25,
    NVME_RW_PRINFO = 0xf << 26,
    NVME_RW_FUA = 1 << 30,
};

/* ---- io.c ---- */

/* End C now, with STATUS: what it holds is given back, done is called. From a
 * task of the loop, never from within start. */
void st_nvme_io_end(struct nvme_cmd *c, uint16_t status);

/* The same in a coming round; C is in no list and has no request out. */
void st_nvme_io_end_soon(struct nvme_cmd *c, uint16_t status);

/* Send C's request down; NEXT is called when it ended well, else the command
 * ends with the status's own. OFFSET and LEN are bytes in range of uint63. */
void st_nvme_io_submit(struct nvme_cmd *c, enum st_op op, unsigned flags,
                       uint64_t offset, uint64_t len, struct st_buf buf,
                       void (*next)(struct nvme_cmd *c));

/* Look whether N blocks at LBA are there, in sizes of now: NVME_OK and the
 * bytes in C->at and C->left, or the status, and the error's LBA. */
uint16_t st_nvme_io_range(struct nvme_cmd *c, uint64_t lba, uint64_t n);

/* The fields that read, write, compare, write zeroes and verify have alike:
 * SLBA, NLB (0-based), PRINFO; at most MAX bytes. As st_nvme_io_range. */
uint16_t st_nvme_io_blocks(struct nvme_cmd *c, uint64_t max);

/* May the guest write to C's namespace? NVME_OK or the status. */
uint16_t st_nvme_io_writable(const struct nvme_cmd *c);

/* Have C->data be the LEN bytes that it points at. */
uint16_t st_nvme_io_data(struct nvme_cmd *c, uint64_t len, bool to_host);

/* Does the guest want no volatile cache (WCE = 0)? */
bool st_nvme_io_through(const struct nvme_cmd *c);

/* ST_REQ_FUA where that is so, or C itself wants it; else 0. */
unsigned st_nvme_io_fua(const struct nvme_cmd *c);

/* C has transferred its data: it counts for SMART. */
void st_nvme_io_count(const struct nvme_cmd *c);

/* C shall stop, and does, in a coming round: true. */
bool st_nvme_io_stopped(struct nvme_cmd *c);

/* Its last request has ended well. */
void st_nvme_io_ended(struct nvme_cmd *c);

/* Its last request has ended well, and all its data went over. */
void st_nvme_io_transferred(struct nvme_cmd *c);

/* One of a fused pair failed with STATUS: the other is aborted for that. */
static inline uint16_t
nvme_because_of(uint16_t status)
{
    return (uint16_t)(NVME_ABORTED_FUSED_FAILED | (status & NVME_DNR));
}

/* ---- io_compare.c, io_ranges.c ---------------------------------------------
 *
 * Each begins C, whose request is ready; from within start.
 */

/* Compare; the pair of C->fused and C. */
void st_nvme_io_compare(struct nvme_cmd *c);
void st_nvme_io_fused(struct nvme_cmd *c);

/* Write Zeroes, Verify, Dataset Management, Copy. */
void st_nvme_io_zeroes(struct nvme_cmd *c);
void st_nvme_io_verify(struct nvme_cmd *c);
void st_nvme_io_dsm(struct nvme_cmd *c);
void st_nvme_io_copy(struct nvme_cmd *c);

/* What st_nvme_io_erase does. */
void st_nvme_io_wipe(struct nvme_cmd *c);

/* ---- io_pool.c ---- */

/* -ENOMEM. */
int st_nvme_pool_create(struct st_loop *loop, struct nvme_pool **out);
/* All buffers are back. NULL is fine. */
void st_nvme_pool_free(struct nvme_pool *p);

/* Get C a buffer, then NEXT is called: at once, or when it is C's turn. Where
 * there is no memory for a single one C ends with Internal Error. */
void st_nvme_pool_get(struct nvme_cmd *c, void (*next)(struct nvme_cmd *c));

/* Give C's buffer back, if it has one; or leave the queue. */
void st_nvme_pool_put(struct nvme_cmd *c);

#endif
