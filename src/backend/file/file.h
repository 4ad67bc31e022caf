/* SPDX-License-Identifier: MIT
 *
 * The file backend: a regular file or a block device as a disk (spec: disk.md
 * 8.1, 8.2). A device is a node named "block".
 *
 * One descriptor does all the I/O, asynchronously, and holds the lock that
 * keeps other writers out: QEMU's programs and we refuse each other's images.
 *
 * What survives a power cut: a write that was followed by a flush, and a FUA
 * write, if the file system or device keeps its promises for fsync and
 * RWF_DSYNC.
 */
#ifndef ST_FILE_H
#define ST_FILE_H

#include "node.h"

/* How to open an image or a device. */
struct st_file_opts {
    const char *path; /* borrowed */
    bool read_only;
    bool direct;          /* O_DIRECT: past the host's page cache */
    bool create;          /* make the file; it must not exist yet */
    uint64_t create_size; /* bytes, a multiple of the sector size */
    uint32_t sector_size; /* bytes; 0: 512, or more if direct needs more, or a
                           * device has more */
};

/* Open or create a file as a node (given to the caller; st_node_close). 0, or
 * -errno with a sentence that names the file:
 *   -EINVAL   sector size or disk size wrong, neither a regular file nor a
 * block device, no direct I/O with this file system or sector size, or a device
 * with limits that make no sense -EEXIST   to be created, but there already
 *   -EBUSY    locked by another process, or by another open in this one; a
 *             device to be written is mounted, or part of another
 *   -EROFS    a device to be written is read-only
 *   -ENOTSUP  a zoned device
 *   -EISDIR, -ENOENT, -EACCES, -ENOSPC, ... as the system says
 * A file that was created is removed again on failure. Blocks. HOME's thread,
 * or a worker's on its behalf. */
int st_file_open(struct st_loop *home, const struct st_file_opts *o,
                 struct st_node **out, struct st_err *err);

/* Look at the size of a file node's file or device again, and publish it if
 * somebody outside changed it; a partial last sector is not shown, nor is a
 * device's size of 0. 0 or -errno. Any thread that may block, while something
 * (a request in it, an edit) keeps the tree. A device's node does this by
 * itself when the kernel says so. */
int st_file_restat(struct st_node *n);

#endif
