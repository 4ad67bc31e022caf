/* SPDX-License-Identifier: MIT
 *
 * From options to a file node: create, open, check, lock, align, probe.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file_private.h"

enum {
    FILE_SECTOR = 512,         /* unless asked or needed otherwise */
    FILE_DIRECT_ALIGN = 4096,  /* where the system does not say */
    FILE_PHYSICAL_MAX = 65536, /* a network's st_blksize is more of a wish */
};

int
file_no_resize(const char *path, uint64_t size, int errnum, struct st_err *err)
{
    return st_err_set(err, errnum, "%s: cannot be made %llu bytes long: %s",
                      path, (unsigned long long)size, st_strerror(-errnum));
}

int
file_bad_size(const char *path, uint64_t size, uint32_t sector,
              struct st_err *err)
{
    return st_err_set(err, EINVAL,
                      "%s: invalid disk size: %llu bytes are not a multiple of "
                      "the sector size %u",
                      path, (unsigned long long)size, sector);
}

int
file_open_failed(const struct st_file_opts *o, int errnum, struct st_err *err)
{
    const char *path = o->path;
    const char *why = st_strerror_open(path, !o->read_only, -errnum);
    struct stat sb;

    if (errnum == ENOENT && lstat(path, &sb) == 0)
        why = "a symbolic link that leads nowhere";
    else if (errnum == EISDIR)
        why = "is a directory";
    else if (errnum == EEXIST)
        why = "already exists, and is not overwritten";
    return st_err_set(err, errnum, "%s: %s", path, why);
}

static int
no_direct(const char *path, struct st_err *err)
{
    return st_err_set(err, EINVAL,
                      "%s: this file system has no direct I/O; leave out "
                      "'direct'",
                      path);
}

/* Make the file at its size, and nothing else: it is opened like any other
 * afterwards. */
static int
file_create(const struct st_file_opts *o, uint32_t sector, struct st_err *err)
{
    st_autoclose int fd = -1;
    int rc = 0;

    if (o->create_size % sector || o->create_size > ST_OFFSET_MAX)
        return file_bad_size(o->path, o->create_size, sector, err);
    fd = open(o->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0)
        return file_open_failed(o, errno, err);
    if (ftruncate(fd, (off_t)o->create_size) < 0) {
        rc = file_no_resize(o->path, o->create_size, errno, err);
        unlink(o->path);
    }
    return rc;
}

/* Open a regular file or a block device; SB is filled. The descriptor, or
 * -errno. */
static int
open_path(const struct st_file_opts *o, struct stat *sb, struct st_err *err)
{
    const int flags = (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
    bool device = stat(o->path, sb) == 0 && S_ISBLK(sb->st_mode);
    /* A FIFO would block, and a file that may not block says EAGAIN. Whoever
     * writes to a device wants it alone: no file system is mounted from it. */
    st_autoclose int fd = open(o->path, flags | (!device        ? O_NONBLOCK
                                                 : o->read_only ? 0
                                                                : O_EXCL));
    int stolen;

    if (fd < 0 && device && errno == EBUSY)
        return st_err_set(err, EBUSY,
                          "%s: in use: mounted, part of another device, or "
                          "open for writing elsewhere",
                          o->path);
    if (fd < 0 && !device && errno == ENXIO)
        return st_err_set(err, EINVAL, "%s: not a regular file or block device",
                          o->path);
    if (fd < 0 || fstat(fd, sb) < 0)
        return file_open_failed(o, errno, err);
    if (S_ISDIR(sb->st_mode))
        return file_open_failed(o, EISDIR, err);
    if (S_ISBLK(sb->st_mode) != device)
        return st_err_set(err, EAGAIN, "%s: was replaced while it was opened",
                          o->path);
    if (!device && !S_ISREG(sb->st_mode))
        return st_err_set(err, EINVAL, "%s: not a regular file or block device",
                          o->path);
    if (fcntl(fd, F_SETFL, flags | (o->direct ? O_DIRECT : 0)) < 0)
        return errno == EINVAL ? no_direct(o->path, err)
                               : file_open_failed(o, errno, err);
    stolen = fd;
    fd = -1;
    return stolen;
}

/* Memory and sectors that direct I/O can do, unless a sector size was asked for
 * that it cannot. */
static int
direct_props(struct file_node *f, const struct st_file_opts *o,
             struct st_err *err)
{
    struct st_props *p = &f->base.props;
    uint32_t offset = FILE_DIRECT_ALIGN;

    p->mem_align = FILE_DIRECT_ALIGN;
#ifdef STATX_DIOALIGN
    struct statx sx;

    if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
        sx.stx_mask & STATX_DIOALIGN) {
        if (!sx.stx_dio_offset_align)
            return no_direct(o->path, err);
        offset = sx.stx_dio_offset_align;
        p->mem_align = sx.stx_dio_mem_align;
    }
#endif
    if (o->sector_size && o->sector_size < offset)
        return st_err_set(err, EINVAL,
                          "%s: direct I/O needs sectors of %u bytes here",
                          o->path, offset);
    if (p->sector_size < offset)
        p->sector_size = offset;
    return 0;
}

/* The rest of the properties of F, an open file of SB. */
static void
file_props(struct file_node *f, const struct stat *sb, bool read_only)
{
    struct st_props *p = &f->base.props;
    uint32_t block = FILE_PHYSICAL_MAX;

    while (block > p->sector_size && (uint64_t)sb->st_blksize < block)
        block /= 2;
    p->physical_sector_size = (uint32_t)st_max(block, p->sector_size);
    p->performs = ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_FLUSH) |
                  ST_BIT(ST_OP_BLOCK_STATUS) | ST_BIT(ST_OP_SHUTDOWN);
    p->max_segments = FILE_SEGMENTS;
    p->fua = p->outlives = true;
    p->read_only = read_only;
    if (read_only)
        return;
    p->performs |= ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_WRITE_ZEROES);
    /* A hole past the end changes nothing. What guests are told must hold for
     * the node's life, so try now; should it fail later, zeroes are written. */
    if (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  sb->st_size, 1) < 0) {
        atomic_store(&f->no_punch, true);
        return;
    }
    p->performs |= ST_BIT(ST_OP_UNMAP);
    p->unmap = ST_UNMAP_ZEROES;
    p->unmap_granularity = p->physical_sector_size;
    p->fast_zero = true;
}

/* F's descriptor is that of a regular file, and locked: its properties. 0 or
 * -errno. */
static int
regular_start(struct file_node *f, const struct st_file_opts *o,
              struct st_err *err)
{
    uint32_t *sector = &f->base.props.sector_size;
    int rc = o->direct ? direct_props(f, o, err) : 0;
    struct stat sb;

    if (rc < 0)
        return rc;
    if (fstat(f->fd, &sb) < 0)
        return file_open_failed(o, errno, err);
    if ((uint64_t)sb.st_size % *sector)
        return file_bad_size(o->path, (uint64_t)sb.st_size, *sector, err);
    st_node_set_size(&f->base, (uint64_t)sb.st_size);
    file_props(f, &sb, o->read_only);
    return 0;
}

/* Open F's file. 0 or -errno. */
static int
file_start(struct file_node *f, const struct st_file_opts *o,
           struct st_err *err)
{
    struct stat sb;
    int rc = open_path(o, &sb, err);

    f->fd = rc;
    if (rc >= 0)
        rc = file_lock(f->fd, o->path, !o->read_only, file_log(f), err);
    if (rc < 0)
        return rc;
    f->locked = rc;
    rc = S_ISBLK(sb.st_mode) ? block_start(f, o, sb.st_rdev, err)
                             : regular_start(f, o, err);
    if (rc < 0)
        return rc;
    f->zeroes =
        mmap(NULL, FILE_ZEROES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return f->zeroes == MAP_FAILED ? file_open_failed(o, errno, err) : 0;
}

int
st_file_open(struct st_loop *home, const struct st_file_opts *o,
             struct st_node **out, struct st_err *err)
{
    uint32_t sector = o->sector_size ? o->sector_size : FILE_SECTOR;
    struct file_node *f;
    int rc;

    if (!st_is_pow2(sector) || sector < 512)
        return st_err_set(err, EINVAL, "%s: invalid sector size %u", o->path,
                          sector);
    rc = o->create ? file_create(o, sector, err) : 0;
    if (rc < 0)
        return rc;
    f = calloc(1, sizeof(*f));
    if (!f || !(f->path = strdup(o->path))) {
        free(f);
        f = NULL;
        rc = file_open_failed(o, ENOMEM, err);
        goto fail;
    }
    st_node_init(&f->base, &file_ops, home, o->path);
    f->base.props.sector_size = sector;
    f->fd = -1;
    f->zeroes = MAP_FAILED;
    f->direct = o->direct;
    pthread_mutex_init(&f->resizing, NULL);
    rc = file_start(f, o, err);
    if (rc < 0)
        goto fail;
    *out = &f->base;
    return 0;

fail:
    if (o->create)
        unlink(o->path);
    st_node_close(f ? &f->base : NULL);
    return rc;
}
