/* SPDX-License-Identifier: MIT
 *
 * What a Linux block device is and can do (spec: disk.md 8.2).
 *
 *   /sys/dev/block/MAJ:MIN/size, ro, wwid, device/wwid
 *                         /queue/...      of a partition: ../queue/...
 *
 * Where sysfs is not there (many containers) the device itself is asked; what
 * it cannot tell (discard, zeroing) is then not offered.
 */
#ifndef ST_BLOCK_H
#define ST_BLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "uevent.h"

/* What a block device says of itself, from sysfs. */
struct block_limits {
    uint64_t size;     /* bytes; a partial last sector included */
    uint32_t logical;  /* bytes, power of two, >= 512 */
    uint32_t physical; /* bytes, power of two, >= logical */
    uint32_t memory;   /* bytes, power of two: what direct I/O wants of memory;
                        * at least what old kernels want of segments */
    uint32_t discard_granularity; /* bytes, a multiple of logical; 0: cannot */
    uint64_t write_zeroes_max;    /* bytes; 0: zeroes are written one by one */
    bool fua;                     /* natively, not by a flush of the kernel's */
    bool rotational, read_only, has_id;
    uint8_t id[16];
};

/* Ask DIR of sysfs, or where that is not there FD, about the device. 0 or
 * -errno with a sentence that begins with PATH:
 *   -EINVAL   a value breaks the rules above, or cannot be understood
 *   -ENOTSUP  a zoned device */
int block_limits(const char *dir, int fd, const char *path,
                 struct block_limits *out, struct st_err *err);

/* The bytes of FD's device now: a number that the kernel has in memory, so that
 * this does not block. 0 or -errno. */
int block_size(int fd, uint64_t *size);

/* BLKDISCARD. 0 or -errno. Blocks. */
int block_discard(int fd, uint64_t offset, uint64_t len);

/* What a file node has more when it is a block device. */
struct block {
    bool is; /* it is one */
    struct block_limits limits;
    struct uevent_ear ear;
    atomic_bool in_use;     /* a channel was opened: it is below a disk */
    unsigned untold;        /* events; the ear's */
    atomic_bool no_discard; /* it turned out not to; unmap does nothing */
    atomic_bool gone;       /* was removed from the machine */
};

#endif
