/* SPDX-License-Identifier: MIT
 *
 * What the files behind file.h share.
 *
 *   file.c        the node and its channels: I/O
 *   file_open.c   from options to a node: create, check, align, probe
 *   file_lock.c   the lock that QEMU understands
 *   block_node.c  what is different when it is a block device
 *   block.c       what a device is and can do
 *   uevent.c      what the kernel says of devices
 */
#ifndef ST_FILE_PRIVATE_H
#define ST_FILE_PRIVATE_H

#include <pthread.h>
#include <sys/types.h>

#include "block.h"
#include "file.h"

enum {
    FILE_ZEROES = 1 << 20, /* bytes at file_node.zeroes */
    FILE_SEGMENTS = 1024,  /* of one st_io */
};

/* An image or a block device: what its channels share. */
struct file_node {
    struct st_node base; /* first */
    char *path;          /* owned */
    int fd;              /* owned; all I/O and the lock */
    bool direct, locked;
    void *zeroes;             /* owned; a mapping, read-only */
    pthread_mutex_t resizing; /* held while size and file are compared or
                               * changed; workers only, never a loop */
    /* Found out at first use, then remembered. */
    atomic_bool no_punch, no_zero_range;
    atomic_bool slow_zero; /* what is left may be no faster than writing */
    struct st_limiter limiter;
    struct block block;
};

extern const struct st_node_ops file_ops, block_ops;

static inline const struct st_log *
file_log(const struct file_node *f)
{
    return st_domain_log(f->base.home->domain);
}

/* Sentences: SIZE is no multiple of SECTOR (-EINVAL); the others -ERRNUM. */
int file_open_failed(const struct st_file_opts *o, int errnum,
                     struct st_err *err);
int file_no_resize(const char *path, uint64_t size, int errnum,
                   struct st_err *err);
int file_bad_size(const char *path, uint64_t size, uint32_t sector,
                  struct st_err *err);

/* Look at the size of F's file or device, and store it: whole sectors only. A
 * device's 0 counts only if EMPTY_TOO: it may be gone, which is not a shrink.
 * True when it changed; *RC is 0 or -errno. Blocks only for a file. */
bool file_remeasure(struct file_node *f, bool empty_too, int *rc);

/* file.c's part of block_ops. */
int file_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out);
void file_close_chan(struct st_chan *base);
void file_cancel(struct st_chan *base, struct st_req *req);
void file_inspect(struct st_node *n, struct st_inspect *v);
void file_close(struct st_node *n);

/* F's descriptor is that of the device RDEV: fill properties and size, and
 * listen to the kernel. 0 or -errno with a sentence. */
int block_start(struct file_node *f, const struct st_file_opts *o, dev_t rdev,
                struct st_err *err);

/* One slice of an unmap: 0 or -errno. Does nothing, successfully, on a device
 * that turned out not to discard. Blocks. */
int block_unmap(struct file_node *f, uint64_t offset, uint64_t len);

/* Bytes that one call to zero or discard takes at most, so that others flow and
 * a cancel is heard. */
uint64_t block_slice(const struct file_node *f);

/* Lock FD as a reader or a writer, until it is unlocked or closed. 1; 0 with a
 * warning in LOG where the file system has no locks; -EBUSY or another -errno
 * with a sentence. */
int file_lock(int fd, const char *path, bool writable, const struct st_log *log,
              struct st_err *err);
void file_unlock(int fd);

#endif
