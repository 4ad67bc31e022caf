/* SPDX-License-Identifier: MIT
 *
 * What the files behind file.h share.
 *
 *   file.c       the node and its channels: I/O
 *   file_open.c  from options to a node: create, check, align, probe
 *   file_lock.c  the lock that QEMU understands
 */
#ifndef ST_FILE_PRIVATE_H
#define ST_FILE_PRIVATE_H

#include <pthread.h>

#include "file.h"

enum {
    FILE_ZEROES = 1 << 20, /* bytes at file_node.zeroes */
    FILE_SEGMENTS = 1024,  /* of one st_io */
};

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
    struct st_limiter limiter;
};

extern const struct st_node_ops file_ops;

static inline const struct st_log *
file_log(const struct file_node *f)
{
    return st_domain_log(f->base.home->domain);
}

/* Sentences: SIZE is no multiple of SECTOR (-EINVAL); it failed (-ERRNUM). */
int file_no_resize(const char *path, uint64_t size, int errnum,
                   struct st_err *err);
int file_bad_size(const char *path, uint64_t size, uint32_t sector,
                  struct st_err *err);

/* Lock FD as a reader or a writer, until it is unlocked or closed. 1; 0 with a
 * warning in LOG where the file system has no locks; -EBUSY or another -errno
 * with a sentence. */
int file_lock(int fd, const char *path, bool writable, const struct st_log *log,
              struct st_err *err);
void file_unlock(int fd);

#endif
