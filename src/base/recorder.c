/* SPDX-License-Identifier: MIT
 *
 * The recorder; see recorder.h.
 */
#include "recorder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "range.h"

enum { SECTOR = 512 };

struct record {
    uint8_t *data; /* owned; NULL is zeroes */
    uint64_t offset, len;
    size_t issued, done; /* event numbers; SIZE_MAX is not yet */
    int64_t res;
    int fd;
    bool fsync, dsync;
    bool durable; /* for the cut at hand */
};

struct st_recorder {
    struct st_seam seam; /* first */
    pthread_mutex_t lock;
    struct record *log; /* in order of issue */
    size_t n, room, events, inflight;
};

static void
recorder_done(struct st_task *t)
{
    struct st_io *io = st_container(t, struct st_io, task);
    struct st_recorder *r = io->seam_data;
    struct record *rec;

    pthread_mutex_lock(&r->lock);
    rec = &r->log[io->seam_tag];
    rec->done = r->events++;
    rec->res = io->res;
    if (rec->data && io->res >= 0)
        rec->len = (uint64_t)io->res; /* may be short */
    r->inflight--;
    pthread_mutex_unlock(&r->lock);
    t->run = io->seam_run;
    t->run(t);
}

/* Something to log? Then fill REC. */
static bool
recorder_wants(const struct st_io *io, struct record *rec)
{
    *rec = (struct record){.offset = io->offset,
                           .len = io->len,
                           .done = SIZE_MAX,
                           .fd = io->fd,
                           .fsync = io->op == ST_IO_FSYNC,
                           .dsync = io->flags & ST_IO_DSYNC};
    if (io->op == ST_IO_FALLOCATE)
        return io->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
    if (io->op != ST_IO_WRITE)
        return rec->fsync;
    rec->data = malloc(io->len + 1);
    if (!rec->data)
        abort(); /* a recorder with a gap would lie */
    st_buf_read((struct st_buf){io->iov, 0}, rec->data, io->len);
    return true;
}

static void
recorder_start(struct st_seam *s, struct st_loop *l, struct st_io *io)
{
    struct st_recorder *r = (struct st_recorder *)s;
    struct record rec;

    if (recorder_wants(io, &rec)) {
        pthread_mutex_lock(&r->lock);
        if (r->n == r->room) {
            r->room = r->room ? 2 * r->room : 64;
            r->log = reallocarray(r->log, r->room, sizeof(*r->log));
            if (!r->log)
                abort();
        }
        rec.issued = r->events++;
        io->seam_tag = r->n;
        r->log[r->n++] = rec;
        r->inflight++;
        pthread_mutex_unlock(&r->lock);
        io->seam_data = r;
        io->seam_run = io->task.run;
        io->task.run = recorder_done;
    }
    st_io_start_below(l, io);
}

int
st_recorder_create(struct st_recorder **out)
{
    struct st_recorder *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->seam.start = recorder_start;
    pthread_mutex_init(&r->lock, NULL);
    *out = r;
    return 0;
}

void
st_recorder_destroy(struct st_recorder *r)
{
    if (!r)
        return;
    st_recorder_reset(r);
    pthread_mutex_destroy(&r->lock);
    free(r->log);
    free(r);
}

struct st_seam *
st_recorder_seam(struct st_recorder *r)
{
    return &r->seam;
}

size_t
st_recorder_count(struct st_recorder *r)
{
    size_t n;

    pthread_mutex_lock(&r->lock);
    n = r->events;
    pthread_mutex_unlock(&r->lock);
    return n;
}

void
st_recorder_reset(struct st_recorder *r)
{
    pthread_mutex_lock(&r->lock);
    assert(!r->inflight);
    for (size_t i = 0; i < r->n; i++)
        free(r->log[i].data);
    r->n = r->events = 0;
    pthread_mutex_unlock(&r->lock);
}

/* ---- Images ---- */

struct image {
    const struct record *log;
    size_t n; /* issued before the cut */
    int fd;
    uint8_t *bytes;
    size_t size;
};

static bool
image_has(const struct image *im, const struct record *w)
{
    return !w->fsync && (im->fd < 0 || im->fd == w->fd);
}

/* Put bytes [OFF, END) of record I into the image, except where a durable
 * record from NEXT on has written too. */
static void
image_put(struct image *im, size_t i, size_t next, uint64_t off, uint64_t end)
{
    const struct record *w = &im->log[i];

    for (; next < im->n && off < end; next++) {
        const struct record *d = &im->log[next];
        uint64_t d_end = d->offset + d->len;

        if (!d->durable || !image_has(im, d) || d->offset >= end ||
            d_end <= off)
            continue;
        if (d->offset > off)
            image_put(im, i, next + 1, off, d->offset);
        off = d_end;
    }
    end = st_min(end, im->size);
    if (off >= end)
        return;
    if (w->data)
        memcpy(im->bytes + off, w->data + (off - w->offset), end - off);
    else
        memset(im->bytes + off, 0, end - off);
}

/* Whole, torn or not at all. */
static void
image_perhaps(struct image *im, size_t i, struct st_rand *rand)
{
    const struct record *w = &im->log[i];
    uint64_t end = w->offset + w->len, next, kind = st_rand_below(rand, 3);

    if (kind == 0)
        image_put(im, i, i + 1, w->offset, end);
    if (kind != 1)
        return;
    for (uint64_t off = w->offset; off < end; off = next) {
        next = st_min(st_align_down(off, SECTOR) + SECTOR, end);
        if (st_rand_below(rand, 2))
            image_put(im, i, i + 1, off, next);
    }
}

/* The issue of the last fsync of FD that is done at CUT; 0 if there is none. */
static size_t
image_last_fsync(const struct record *log, size_t n, size_t cut, int fd)
{
    for (; n; n--)
        if (log[n - 1].fsync && log[n - 1].fd == fd && log[n - 1].done < cut &&
            log[n - 1].res == 0)
            return log[n - 1].issued;
    return 0;
}

/* Mark what survives for certain. */
static void
image_judge(struct record *log, size_t n, size_t cut)
{
    size_t synced = 0;

    for (size_t i = 0; i < n; i++) {
        struct record *w = &log[i];

        if (i == 0 || w->fd != w[-1].fd)
            synced = image_last_fsync(log, n, cut, w->fd);
        w->durable = !w->fsync && w->done < cut && w->res >= 0 &&
                     (w->dsync || w->done < synced);
    }
}

void
st_recorder_image(struct st_recorder *r, int fd, size_t cut,
                  struct st_rand *rand, uint8_t *bytes, size_t size)
{
    struct image im = {.fd = fd, .bytes = bytes, .size = size};
    size_t *loose, nloose = 0;

    pthread_mutex_lock(&r->lock);
    im.log = r->log;
    while (im.n < r->n && r->log[im.n].issued < cut)
        im.n++;
    loose = calloc(im.n + 1, sizeof(*loose));
    if (!loose)
        abort();
    image_judge(r->log, im.n, cut);
    for (size_t i = 0; i < im.n; i++) {
        const struct record *w = &im.log[i];

        if (!image_has(&im, w))
            continue;
        if (w->durable)
            image_put(&im, i, im.n, w->offset, w->offset + w->len);
        else
            loose[nloose++] = i;
    }
    for (; rand && nloose; nloose--) {
        size_t k = st_rand_below(rand, nloose);

        image_perhaps(&im, loose[k], rand);
        loose[k] = loose[nloose - 1];
    }
    free(loose);
    pthread_mutex_unlock(&r->lock);
}
