/* SPDX-License-Identifier: MIT
 *
 * The file node's I/O: one st_io per request, from the channel's free list.
 *
 *   submit --> io_start --> engine --> io_done --+--> complete
 *                 ^                              |
 *                 +--- the rest of a short one, -+--> job --> complete
 *                      the next slice, a retry,
 *                      another way to zero, fsync
 *
 * A request is carried out front to back: file_io.done bytes are behind it. So
 * a short transfer, more than 1024 segments, and a terabyte to zero are the
 * same thing, a rest to be started again. What blocks (block_status asks lseek;
 * an unexpected end of file asks fstat) runs as a job on the worker pool.
 *
 * A range is zeroed by the best way left: punch (if it may become a hole),
 * zero-range, or writing zeroes. A file system that refuses one with EOPNOTSUPP
 * is not asked again.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "file_private.h"

enum {
    FILE_CHUNK = 64,      /* file_io per allocation */
    FILE_TRIES = 100,     /* of one transfer after EINTR or EAGAIN */
    FILE_SLICE = 1 << 30, /* bytes of one fallocate: others wait for it */
};

struct file_io {
    struct st_io io;    /* first */
    struct st_req *req; /* NULL: free */
    struct file_chan *chan;
    uint64_t done; /* bytes of req that are finished */
    bool in_engine, cancelled;
    unsigned tries;       /* since the last progress */
    struct iovec one;     /* the usual array */
    struct iovec *many;   /* owned: FILE_SEGMENTS, once needed */
    struct file_io *next; /* free list */
    struct st_job job;
    enum st_status status; /* the job's answer */
};

struct file_chunk {
    struct file_chunk *next;
    struct file_io io[FILE_CHUNK];
};

struct file_chan {
    struct st_chan base; /* first */
    int slot;
    struct file_io *free;
    struct file_chunk *chunks;
    struct st_list waiting; /* st_req.link: no memory for another chunk */
};

static struct file_node *
file_of(const struct file_io *f)
{
    return (struct file_node *)f->chan->base.node;
}

/* ---- Size ---- */

static int
file_size(const struct file_node *f, uint64_t *size)
{
    struct stat sb;

    if (f->block.is)
        return block_size(f->fd, size);
    if (fstat(f->fd, &sb) < 0)
        return -errno;
    *size = (uint64_t)sb.st_size;
    return 0;
}

bool
file_remeasure(struct file_node *f, bool empty_too, int *rc)
{
    struct st_node *n = &f->base;
    uint64_t size, was;

    pthread_mutex_lock(&f->resizing);
    was = st_node_size(n);
    *rc = file_size(f, &size);
    if (*rc < 0 || (f->block.is && !size && !empty_too))
        size = was;
    size = st_align_down(size, n->props.sector_size);
    st_node_set_size(n, size);
    pthread_mutex_unlock(&f->resizing);
    return size != was;
}

int
st_file_restat(struct st_node *n)
{
    struct file_node *f = (struct file_node *)n;
    uint64_t was = st_node_size(n);
    int rc;

    if (file_remeasure(f, false, &rc)) {
        st_info(file_log(f), "%s: size changed from %llu to %llu bytes",
                f->path, (unsigned long long)was,
                (unsigned long long)st_node_size(n));
        st_node_changed(n, ST_EVENT_RESIZE);
    }
    return rc;
}

static int
file_resize(struct st_node *n, uint64_t size, struct st_err *err)
{
    struct file_node *f = (struct file_node *)n;
    int rc = 0;

    if (n->props.read_only)
        return st_err_set(err, EROFS, "%s: is open read-only", f->path);
    if (size % n->props.sector_size || size > ST_OFFSET_MAX)
        return file_bad_size(f->path, size, n->props.sector_size, err);
    pthread_mutex_lock(&f->resizing);
    if (ftruncate(f->fd, (off_t)size) == 0)
        st_node_set_size(n, size);
    else
        rc = file_no_resize(f->path, size, errno, err);
    pthread_mutex_unlock(&f->resizing);
    return rc;
}

/* ---- Starting ---- */

/* Point the st_io at what is left of the request's buffer, or the first 1024
 * segments of it. */
static void
io_map(struct file_io *f, struct st_buf b, uint64_t len)
{
    struct st_io *io = &f->io;
    uint64_t have = 0, want = b.skip + len;
    unsigned n = 0;
    size_t copied;

    if (b.iov->iov_len >= want) {
        f->one.iov_base = (char *)b.iov->iov_base + b.skip;
        f->one.iov_len = io->len = len;
        io->iov = &f->one;
        io->niov = 1;
        return;
    }
    while (n < FILE_SEGMENTS && have < want)
        have += b.iov[n++].iov_len;
    if (!b.skip && have <= want) {
        io->iov = b.iov;
        io->niov = (uint16_t)n;
        io->len = have;
        return;
    }
    if (!f->many)
        f->many = malloc(FILE_SEGMENTS * sizeof(*f->many));
    /* Without memory it goes on in smaller steps. */
    io->iov = f->many ? f->many : &f->one;
    io->niov = (uint16_t)st_buf_iov(b, len, f->many ? f->many : &f->one,
                                    f->many ? FILE_SEGMENTS : 1, &copied);
    io->len = copied;
}

/* The fallocate mode to zero REQ's range with; 0: none left. */
static int
zero_mode(struct file_node *f, const struct st_req *req)
{
    bool hole = req->op == ST_OP_UNMAP || req->flags & ST_REQ_MAY_UNMAP;

    if (hole && !atomic_load_explicit(&f->no_punch, memory_order_relaxed))
        return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (!atomic_load_explicit(&f->no_zero_range, memory_order_relaxed))
        return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    return 0;
}

/* Would zeroing REQ's range be faster than writing? */
static bool
zero_is_fast(struct file_node *f, const struct st_req *req)
{
    return zero_mode(f, req) &&
           !atomic_load_explicit(&f->slow_zero, memory_order_relaxed);
}

/* Start what is left of F's request; zero_mode decides a zeroing one's way. */
static void
io_start(struct file_io *f)
{
    struct st_req *req = f->req;
    struct st_io *io = &f->io;
    uint64_t rest = req->len - f->done;

    io->offset = req->offset + f->done;
    switch (req->op) {
    case ST_OP_READ:
    case ST_OP_WRITE:
        io->op = req->op == ST_OP_READ ? ST_IO_READ : ST_IO_WRITE;
        io->flags = req->flags & ST_REQ_FUA ? ST_IO_DSYNC : 0;
        io_map(f, f->done ? st_buf_advance(req->buf, f->done) : req->buf, rest);
        break;
    case ST_OP_UNMAP:
    case ST_OP_WRITE_ZEROES:
        io->flags = 0;
        io->mode = zero_mode(file_of(f), req);
        if (!rest) {
            io->op = ST_IO_FSYNC;
        } else if (io->mode) {
            io->op = ST_IO_FALLOCATE;
            io->len =
                st_min(rest, file_of(f)->block.is ? block_slice(file_of(f))
                                                  : FILE_SLICE);
        } else {
            io->op = ST_IO_WRITE;
            f->one.iov_base = file_of(f)->zeroes;
            f->one.iov_len = io->len = st_min(rest, FILE_ZEROES);
            io->iov = &f->one;
            io->niov = 1;
        }
        break;
    default:
        io->op = ST_IO_FSYNC;
        io->flags = 0;
    }
    f->in_engine = true;
    st_io_start(f->chan->base.loop, io);
}

/* ---- Jobs ---- */

static void job_done(struct st_job *j);

static void
job_start(struct file_io *f, void (*work)(struct st_job *))
{
    f->job.home = f->chan->base.loop;
    f->job.work = work;
    f->job.done = job_done;
    st_job_start(f->chan->base.loop, &f->job);
}

/* The file ended inside the disk, or a device fails as one does that did: did
 * somebody shrink it? Tell everybody before this request fails, so that the
 * next ones are out of range. */
static void
restat_work(struct st_job *j)
{
    struct file_io *f = st_container(j, struct file_io, job);
    struct st_node *n = f->chan->base.node;

    st_file_restat(n);
    if (!st_node_range_ok(n, f->req))
        f->status = ST_IO;
}

/* A device's next slice. */
static void
unmap_work(struct st_job *j)
{
    struct file_io *f = st_container(j, struct file_io, job);
    struct file_node *n = file_of(f);
    uint64_t len = st_min(f->req->len - f->done, block_slice(n));
    int rc = block_unmap(n, f->req->offset + f->done, len);

    f->status = st_status_from_errno(-rc, true);
    if (rc == 0) {
        f->done += len;
        return;
    }
    st_warn_limited(file_log(n), &n->limiter,
                    "%s: discard of %llu bytes at %llu failed: %s", n->path,
                    (unsigned long long)len,
                    (unsigned long long)(f->req->offset + f->done),
                    st_strerror(rc));
    restat_work(j);
}

/* What is at the request's offset, and how far, in whole sectors: one that is
 * partly a hole is data. A file system that does not tell has data. */
static void
status_work(struct st_job *j)
{
    struct file_io *f = st_container(j, struct file_io, job);
    struct st_extent *x = &f->req->extent;
    uint64_t sector = f->chan->base.node->props.sector_size;
    uint64_t start = f->req->offset, end = start + f->req->len, to = end;
    off_t data = lseek(f->io.fd, (off_t)start, SEEK_DATA);

    *x = (struct st_extent){.len = f->req->len};
    f->status = ST_OK;
    if (data < 0 && errno == ENXIO) { /* a hole up to the file's end */
        if (lseek(f->io.fd, 0, SEEK_END) <= (off_t)start) {
            f->status = ST_IO;
            restat_work(j);
        }
        x->flags = ST_EXTENT_HOLE | ST_EXTENT_ZERO;
        return;
    }
    if (data < 0) {
        f->status = errno == EINVAL ? ST_OK : ST_IO;
        return;
    }
    if (st_align_down((uint64_t)data, sector) > start) {
        to = st_align_down((uint64_t)data, sector);
        x->flags = ST_EXTENT_HOLE | ST_EXTENT_ZERO;
    } else {
        off_t hole = lseek(f->io.fd, data, SEEK_HOLE);

        if (hole > data)
            to = st_align_up((uint64_t)hole, sector);
    }
    x->len = st_min(to, end) - start;
}

/* ---- Completion ---- */

static void io_begin(struct file_io *f, struct st_req *req);

/* Free F and complete its request. */
static void
io_finish(struct file_io *f, enum st_status status)
{
    struct st_req *req = f->req;
    struct file_chan *c = f->chan;
    struct st_list *e = st_list_first(&c->waiting);

    f->req = NULL;
    if (__builtin_expect(e != NULL, 0)) {
        st_list_remove(e);
        io_begin(f, st_container(e, struct st_req, link));
    } else {
        f->next = c->free;
        c->free = f;
    }
    req->status = (uint8_t)status;
    st_complete(req);
}

static void
job_done(struct st_job *j)
{
    struct file_io *f = st_container(j, struct file_io, job);
    bool unmaps = f->req->op == ST_OP_UNMAP && f->status == ST_OK;

    if (unmaps && f->cancelled)
        io_finish(f, ST_ABORTED);
    else if (unmaps && f->done < f->req->len)
        job_start(f, unmap_work);
    else if (unmaps && f->req->flags & ST_REQ_FUA)
        io_start(f); /* nothing left of it but to make it durable */
    else
        io_finish(f, f->status);
}

/* The st_io ended with an error, or moved nothing. */
static void
io_failed(struct file_io *f, int errnum)
{
    static const char *const what[] = {"read", "write", "flush", "zeroing"};
    struct file_node *n = file_of(f);
    struct st_io *io = &f->io;

    if (f->cancelled) {
        io_finish(f, ST_ABORTED);
        return;
    }
    if ((errnum == EINTR || errnum == EAGAIN) && f->tries++ < FILE_TRIES) {
        io_start(f);
        return;
    }
    if (io->op == ST_IO_FALLOCATE && errnum == EOPNOTSUPP) {
        bool punch = io->mode & FALLOC_FL_PUNCH_HOLE;

        if (!atomic_exchange(punch ? &n->no_punch : &n->no_zero_range, true))
            st_info(file_log(n), "%s: the %s cannot %s", n->path,
                    n->block.is ? "device" : "file system",
                    punch ? "punch holes" : "zero a range");
        if (n->block.is) /* its zero-range may be the kernel's writing */
            atomic_store(&n->slow_zero, true);
        if (f->req->flags & ST_REQ_FAST && !zero_is_fast(n, f->req))
            io_finish(f, ST_UNSUPPORTED);
        else
            io_start(f);
        return;
    }
    if (errnum != ECANCELED)
        st_warn_limited(file_log(n), &n->limiter,
                        "%s: %s of %llu bytes at %llu failed: %s", n->path,
                        what[io->op], (unsigned long long)io->len,
                        (unsigned long long)io->offset,
                        errnum ? st_strerror(-errnum) : "end of file");
    f->status =
        errnum ? st_status_from_errno(errnum, io->op != ST_IO_READ) : ST_IO;
    if (!errnum || (n->block.is && io->op != ST_IO_FSYNC))
        job_start(f, restat_work);
    else
        io_finish(f, f->status);
}

static void
io_done(struct st_task *t)
{
    struct file_io *f = (struct file_io *)st_container(t, struct st_io, task);
    struct st_req *req = f->req;
    int64_t res = f->io.res;

    f->in_engine = false;
    if (f->io.op == ST_IO_FALLOCATE && res == 0)
        res = (int64_t)f->io.len;
    if (res < 0 || (res == 0 && f->io.op != ST_IO_FSYNC)) {
        io_failed(f, (int)-res);
        return;
    }
    f->tries = 0;
    f->done += (uint64_t)res;
    if (f->io.op == ST_IO_FSYNC ||
        (f->done == req->len &&
         (req->op <= ST_OP_WRITE || !(req->flags & ST_REQ_FUA))))
        io_finish(f, ST_OK);
    else if (f->cancelled)
        io_finish(f, ST_ABORTED);
    else
        io_start(f);
}

/* ---- Submission ---- */

/* Carry out REQ with F, which is free and on no list. */
static void
io_begin(struct file_io *f, struct st_req *req)
{
    f->req = req;
    f->done = 0;
    f->tries = 0;
    f->cancelled = false;
    if (req->op == ST_OP_BLOCK_STATUS)
        job_start(f, status_work);
    else if (req->op == ST_OP_UNMAP && file_of(f)->block.is)
        job_start(f, unmap_work);
    else
        io_start(f);
}

/* More file_io for the free list. */
static bool
chan_grow(struct file_chan *c)
{
    struct file_chunk *k = calloc(1, sizeof(*k));

    if (!k)
        return false;
    k->next = c->chunks;
    c->chunks = k;
    for (unsigned i = 0; i < FILE_CHUNK; i++) {
        struct file_io *f = &k->io[i];

        f->io.task.run = io_done;
        f->io.fd = ((struct file_node *)c->base.node)->fd;
        f->io.slot = c->slot;
        f->chan = c;
        f->next = c->free;
        c->free = f;
    }
    return true;
}

static void
file_submit(struct st_chan *base, struct st_req *req)
{
    struct file_chan *c = (struct file_chan *)base;
    struct file_node *n = (struct file_node *)base->node;
    struct file_io *f;

    if (!(base->node->props.performs & ST_BIT(req->op))) {
        st_finish(base->loop, req, ST_UNSUPPORTED);
        return;
    }
    if (ST_BIT(req->op) & ST_OPS_RANGED) {
        if (!st_node_range_ok(base->node, req)) {
            st_finish(base->loop, req, ST_RANGE);
            return;
        }
        if (!req->len) {
            req->extent = (struct st_extent){0};
            st_finish(base->loop, req, ST_OK);
            return;
        }
        if (req->flags & ST_REQ_FAST && !zero_is_fast(n, req)) {
            st_finish(base->loop, req, ST_UNSUPPORTED);
            return;
        }
    }
    if (!c->free && !chan_grow(c)) {
        st_list_append(&c->waiting, &req->link); /* some are out: chan_open */
        return;
    }
    f = c->free;
    c->free = f->next;
    io_begin(f, req);
}

/* O(file_io of the channel), so that nobody else pays for it. */
void
file_cancel(struct st_chan *base, struct st_req *req)
{
    struct file_chan *c = (struct file_chan *)base;

    for (struct file_chunk *k = c->chunks; k; k = k->next)
        for (unsigned i = 0; i < FILE_CHUNK; i++) {
            struct file_io *f = &k->io[i];

            if (f->req != req)
                continue;
            f->cancelled = true;
            if (f->in_engine)
                st_io_cancel(base->loop, &f->io);
            return;
        }
    st_list_remove(&req->link);
    st_finish(base->loop, req, ST_ABORTED);
}

/* ---- Channels and the node ---- */

void
file_close_chan(struct st_chan *base)
{
    struct file_chan *c = (struct file_chan *)base;
    struct file_chunk *k;

    if (c->slot >= 0)
        st_file_unregister(base->loop, c->slot);
    while ((k = c->chunks) != NULL) {
        c->chunks = k->next;
        for (unsigned i = 0; i < FILE_CHUNK; i++)
            free(k->io[i].many);
        free(k);
    }
    free(c);
}

int
file_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct file_chan *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    st_chan_init(&c->base, n, l, file_submit);
    st_list_init(&c->waiting);
    c->slot = st_file_register(l, ((struct file_node *)n)->fd);
    if (!chan_grow(c)) {
        file_close_chan(&c->base);
        return -ENOMEM;
    }
    *out = &c->base;
    return 0;
}

void
file_inspect(struct st_node *n, struct st_inspect *v)
{
    struct file_node *f = (struct file_node *)n;

    v->text(v, "file", f->path);
    v->u64(v, "size", st_node_size(n));
    v->u64(v, "direct", f->direct);
    v->text(v, "lock",
            !f->locked           ? "none"
            : n->props.read_only ? "reader"
                                 : "writer");
}

/* Every slot of FD is gone with its channel: the lock goes now. */
void
file_close(struct st_node *n)
{
    struct file_node *f = (struct file_node *)n;

    uevent_leave(&f->block.ear);
    if (f->zeroes != MAP_FAILED)
        munmap(f->zeroes, FILE_ZEROES);
    if (f->locked)
        file_unlock(f->fd);
    if (f->fd >= 0)
        close(f->fd);
    pthread_mutex_destroy(&f->resizing);
    free(f->path);
    free(f);
}

const struct st_node_ops file_ops = {
    .name = "file",
    .open_chan = file_open_chan,
    .close_chan = file_close_chan,
    .cancel = file_cancel,
    .resize = file_resize,
    .inspect = file_inspect,
    .close = file_close,
};
