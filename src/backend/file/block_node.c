/* SPDX-License-Identifier: MIT
 *
 * A block device as a node: its I/O is that of a file (file.c); here is what is
 * different.
 *
 *   size     the device's own; resize only takes up what happened to it
 *   unmap    BLKDISCARD, by slices, on the worker pool. No kernel since 4.12
 *            promises what a read gives afterwards.
 *   zeroes   by fallocate, as for files; without a device's own way the kernel
 *            writes them
 *   FUA      RWF_DSYNC: the kernel flushes where the device has no such thing
 *   events   a new size, another medium, the end; heard on the home loop
 *
 * A device that was removed keeps its size: requests fail with what the kernel
 * says (ST_IO), as they do for a guest whose disk dies. An empty drive has size
 * 0.
 *
 * Events go upward only from the home loop, where trees are edited and closed;
 * and not before a channel was opened, unless nothing is above: a tree that is
 * still being built may be given up on a worker.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "file_private.h"

enum {
    BLOCK_SLICE = 256 << 20,       /* bytes, done by the device */
    BLOCK_WRITTEN_SLICE = 16 << 20 /* bytes that the kernel has to write */
};

static struct file_node *
block_of_ear(struct uevent_ear *e)
{
    return st_container(e, struct file_node, block.ear);
}

/* ---- Events ---- */

static void
block_tell(struct file_node *f)
{
    unsigned events = f->block.untold;

    if (!events ||
        (!atomic_load(&f->block.in_use) && atomic_load(&f->base.parent)))
        return;
    f->block.untold = 0;
    st_node_changed(&f->base, events);
}

static void
block_hear(struct uevent_ear *e, unsigned what)
{
    struct file_node *f = block_of_ear(e);
    const struct st_log *log = file_log(f);
    uint64_t was = st_node_size(&f->base), size = 0;
    int rc = 0;

    if (what & UEVENT_REMOVED) {
        /* Anybody who may write to sysfs can make the kernel say so. */
        if ((block_size(f->fd, &size) < 0 || !size) &&
            !atomic_exchange(&f->block.gone, true))
            st_warn(log, "%s: the device was removed: all that comes will fail",
                    f->path);
        return;
    }
    if (atomic_load(&f->block.gone))
        return;
    if (file_remeasure(f, true, &rc)) {
        st_info(log, "%s: size changed from %llu to %llu bytes", f->path,
                (unsigned long long)was,
                (unsigned long long)st_node_size(&f->base));
        f->block.untold |= ST_EVENT_RESIZE;
    }
    if (rc < 0)
        st_warn_limited(log, &f->limiter, "%s: its size cannot be read: %s",
                        f->path, st_strerror(rc));
    if (what & UEVENT_MEDIA)
        f->block.untold |= ST_EVENT_MEDIA;
    block_tell(f);
}

/* ---- The verb resize ---- */

static int
block_resize(struct st_node *n, uint64_t size, struct st_err *err)
{
    struct file_node *f = (struct file_node *)n;
    uint64_t real;
    int rc = block_size(f->fd, &real);

    if (rc < 0)
        return file_no_resize(f->path, size, -rc, err);
    if (st_align_down(real, n->props.sector_size) != size)
        return st_err_set(err, ENOTSUP,
                          "%s: is a device of %llu bytes, and is resized to "
                          "that or by its own tools",
                          f->path, (unsigned long long)real);
    pthread_mutex_lock(&f->resizing);
    st_node_set_size(n, size);
    pthread_mutex_unlock(&f->resizing);
    return 0;
}

/* ---- I/O ---- */

int
block_unmap(struct file_node *f, uint64_t offset, uint64_t len)
{
    int rc;

    if (atomic_load_explicit(&f->block.no_discard, memory_order_relaxed))
        return 0;
    do
        rc = block_discard(f->fd, offset, len);
    while (rc == -EINTR);
    if (rc != -ENOTTY && rc != -EOPNOTSUPP && rc != -ENOSYS)
        return rc;
    if (!atomic_exchange(&f->block.no_discard, true))
        st_warn(file_log(f),
                "%s: the device does not discard after all (%s): unmap does "
                "nothing",
                f->path, st_strerror(rc));
    return 0;
}

uint64_t
block_slice(const struct file_node *f)
{
    return f->block.limits.write_zeroes_max ? BLOCK_SLICE : BLOCK_WRITTEN_SLICE;
}

/* ---- Opening ---- */

static int
block_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct block *b = &((struct file_node *)n)->block;
    int rc = file_open_chan(n, l, out);

    if (rc == 0 && !atomic_exchange(&b->in_use, true))
        uevent_poke(&b->ear); /* what was not told, and a last look */
    return rc;
}

static void
block_props(struct file_node *f, const struct st_file_opts *o)
{
    const struct block_limits *l = &f->block.limits;
    struct st_props *p = &f->base.props;

    p->physical_sector_size = (uint32_t)st_max(l->physical, p->sector_size);
    p->mem_align = o->direct ? l->memory : 1;
    p->max_segments = FILE_SEGMENTS;
    p->performs =
        ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_FLUSH) | ST_BIT(ST_OP_SHUTDOWN);
    p->fua = p->outlives = true;
    p->rotational = l->rotational;
    p->read_only = o->read_only;
    p->has_id = l->has_id;
    memcpy(p->id, l->id, sizeof(p->id));
    atomic_store(&f->no_punch, !l->write_zeroes_max);
    atomic_store(&f->slow_zero, !l->write_zeroes_max);
    if (o->read_only)
        return;
    p->performs |= ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_WRITE_ZEROES);
    p->fast_zero = l->write_zeroes_max;
    if (!l->discard_granularity)
        return;
    p->performs |= ST_BIT(ST_OP_UNMAP);
    p->unmap = ST_UNMAP_UNSPECIFIED;
    p->unmap_granularity =
        (uint32_t)st_max(l->discard_granularity, p->sector_size);
}

int
block_start(struct file_node *f, const struct st_file_opts *o, dev_t rdev,
            struct st_err *err)
{
    const struct block_limits *l = &f->block.limits;
    struct block *b = &f->block;
    uint32_t *sector = &f->base.props.sector_size;
    char dir[64];
    int rc;

    b->is = true;
    b->ear.major = major(rdev);
    b->ear.minor = minor(rdev);
    b->ear.hear = block_hear;
    f->base.ops = &block_ops;
    snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(rdev),
             minor(rdev));
    rc = block_limits(dir, f->fd, o->path, &b->limits, err);
    if (rc < 0)
        return rc;
    if (l->read_only && !o->read_only)
        return st_err_set(err, EROFS,
                          "%s: the device is read-only, expected a disk that "
                          "is read-only or has a layer above",
                          o->path);
    if (o->sector_size && o->sector_size < l->logical)
        return st_err_set(err, EINVAL,
                          "%s: the device has sectors of %u bytes, %u are too "
                          "small",
                          o->path, l->logical, o->sector_size);
    *sector = (uint32_t)st_max(*sector, l->logical);
    if (o->sector_size && l->size % *sector)
        return file_bad_size(o->path, l->size, *sector, err);
    block_props(f, o);
    st_node_set_size(&f->base, st_align_down(l->size, *sector));
    uevent_join(f->base.home, &b->ear);
    /* It may have changed between: whatever comes later is heard. */
    file_remeasure(f, true, &rc);
    return rc < 0 ? file_open_failed(o, -rc, err) : 0;
}

/* ---- The node ---- */

static void
block_inspect(struct st_node *n, struct st_inspect *v)
{
    struct file_node *f = (struct file_node *)n;
    const struct block_limits *l = &f->block.limits;
    char device[32];

    file_inspect(n, v);
    snprintf(device, sizeof(device), "%u:%u", f->block.ear.major,
             f->block.ear.minor);
    v->text(v, "device", device);
    v->u64(v, "device_fua", l->fua);
    v->u64(v, "discard_granularity", l->discard_granularity);
    v->u64(v, "write_zeroes_max", l->write_zeroes_max);
    v->u64(v, "discards",
           l->discard_granularity && !atomic_load(&f->block.no_discard));
    v->u64(v, "removed", atomic_load(&f->block.gone));
}

const struct st_node_ops block_ops = {
    .name = "block",
    .open_chan = block_open_chan,
    .close_chan = file_close_chan,
    .cancel = file_cancel,
    .resize = block_resize,
    .inspect = block_inspect,
    .close = file_close,
};
