/* SPDX-License-Identifier: MIT
 *
 * Requests of libstrata. See include/strata/io.h for what is promised.
 *
 *   idle --strata_submit--> busy --done--> idle, callback
 *    ^                         \---------> queued --strata_queue_take--> idle
 *    +--------------------------------------------------------------------'
 *
 * A request belongs to one I/O loop for life. All that others want of it there
 * comes in messages, which stay in order: submit, cancel, free.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib.h"

/* ---- What was asked ---- */

static unsigned
flags_of(enum strata_op op)
{
    switch (op) {
    case STRATA_OP_WRITE:
        return STRATA_FUA;
    case STRATA_OP_WRITE_ZEROES:
        return STRATA_FUA | STRATA_MAY_UNMAP | STRATA_FAST;
    case STRATA_OP_READ:
    case STRATA_OP_FLUSH:
    case STRATA_OP_UNMAP:
    case STRATA_OP_BLOCK_STATUS:
    case STRATA_OP_COMPARE_AND_WRITE:
        break;
    }
    return 0;
}

/* Bytes that its buffers must hold; false if that is not representable. */
static bool
buffer_bytes(const struct strata_io *io, uint64_t *n)
{
    *n = 0;
    if (io->op == STRATA_OP_READ || io->op == STRATA_OP_WRITE)
        *n = io->length;
    else if (io->op == STRATA_OP_COMPARE_AND_WRITE)
        return !__builtin_mul_overflow(io->length, 2, n);
    return true;
}

/* Is IO right in itself? What a disk has to say to it comes later. */
static bool
io_ok(const struct strata_io *io)
{
    uint64_t want, sum = 0;

    if ((unsigned)io->op > STRATA_OP_COMPARE_AND_WRITE ||
        io->flags & ~flags_of(io->op) || !buffer_bytes(io, &want))
        return false;
    if (io->op == STRATA_OP_BLOCK_STATUS && !io->length)
        return false;
    if (!want)
        return true;
    if (io->iovcnt < 0 || io->iovcnt > IOV_MAX || (io->iovcnt && !io->iov))
        return false;
    for (int i = 0; i < io->iovcnt; i++)
        if (__builtin_add_overflow(sum, io->iov[i].iov_len, &sum))
            return false;
    return sum == want;
}

static void
fill(struct st_req *req, const struct strata_io *io)
{
    req->op = (uint8_t)io->op;
    req->flags = (uint8_t)io->flags;
    if (io->op != STRATA_OP_FLUSH) {
        req->offset = io->offset;
        req->len = io->length;
    }
    req->buf.iov = io->iov;
}

static int
give_result(const struct st_req *req, struct strata_result *out)
{
    struct strata_result r = {.status = (enum strata_status)req->status};

    if (req->op == ST_OP_BLOCK_STATUS && r.status == STRATA_OK) {
        r.extent_length = req->extent.len;
        r.extent_flags = req->extent.flags;
    }
    if (r.status == STRATA_MISCOMPARE)
        r.miscompare_at = req->miscompare_at;
    return lib_give(out, &r, sizeof(r));
}

/* ---- Synchronous ---- */

struct run {
    struct lib_call call;
    struct st_chan *chan;
    union {
        struct st_req req;
        char room[sizeof(struct st_req) + LIB_FRAMES * sizeof(struct st_frame)];
    };
};

static void
run_done(struct st_req *req)
{
    lib_call_end(req->owner, 0);
}

static void
run_start(struct lib_call *c)
{
    struct run *r = (struct run *)c;

    st_submit(r->chan, &r->req);
}

enum strata_status
strata_run(struct strata_disk *d, const struct strata_io *from,
           struct strata_result *result)
{
    static const struct st_req invalid = {.status = ST_INVALID};
    struct strata_io io;
    struct run r;
    unsigned i;

    if (lib_may_wait(d->s, NULL) < 0 ||
        lib_take(&io, sizeof(io), from, "strata_io", NULL) < 0 || !io_ok(&io)) {
        if (result)
            give_result(&invalid, result);
        return STRATA_INVALID;
    }
    i = lib_next_loop(d->s);
    r.chan = d->chan[i];
    st_req_init(&r.req, LIB_FRAMES, run_done, &r.call);
    fill(&r.req, &io);
    lib_call(d->s->io[i], &r.call, run_start);
    if (result)
        give_result(&r.req, result);
    return (enum strata_status)r.req.status;
}

enum strata_status
strata_read(struct strata_disk *d, void *buf, size_t length, uint64_t offset)
{
    const struct iovec iov = {buf, length};
    const struct strata_io io = {sizeof(io), STRATA_OP_READ, 0, offset,
                                 length,     &iov,           1};

    return strata_run(d, &io, NULL);
}

enum strata_status
strata_write(struct strata_disk *d, const void *buf, size_t length,
             uint64_t offset, unsigned flags)
{
    const struct iovec iov = {(void *)(uintptr_t)buf, length};
    const struct strata_io io = {
        sizeof(io), STRATA_OP_WRITE, flags, offset, length, &iov, 1};

    return strata_run(d, &io, NULL);
}

enum strata_status
strata_flush(struct strata_disk *d)
{
    const struct strata_io io = {.size = sizeof(io), .op = STRATA_OP_FLUSH};

    return strata_run(d, &io, NULL);
}

enum strata_status
strata_unmap(struct strata_disk *d, uint64_t offset, uint64_t length)
{
    const struct strata_io io = {.size = sizeof(io),
                                 .op = STRATA_OP_UNMAP,
                                 .offset = offset,
                                 .length = length};

    return strata_run(d, &io, NULL);
}

enum strata_status
strata_write_zeroes(struct strata_disk *d, uint64_t offset, uint64_t length,
                    unsigned flags)
{
    const struct strata_io io = {.size = sizeof(io),
                                 .op = STRATA_OP_WRITE_ZEROES,
                                 .flags = flags,
                                 .offset = offset,
                                 .length = length};

    return strata_run(d, &io, NULL);
}

enum strata_status
strata_block_status(struct strata_disk *d, uint64_t offset, uint64_t length,
                    uint64_t *run, unsigned *flags)
{
    const struct strata_io io = {.size = sizeof(io),
                                 .op = STRATA_OP_BLOCK_STATUS,
                                 .offset = offset,
                                 .length = length};
    struct strata_result r = {.size = sizeof(r)};

    if (strata_run(d, &io, &r) == STRATA_OK) {
        *run = r.extent_length;
        *flags = r.extent_flags;
    }
    return r.status;
}

enum strata_status
strata_compare_and_write(struct strata_disk *d, const void *expected,
                         const void *data, size_t length, uint64_t offset,
                         uint64_t *at)
{
    const struct iovec iov[2] = {{(void *)(uintptr_t)expected, length},
                                 {(void *)(uintptr_t)data, length}};
    const struct strata_io io = {
        sizeof(io), STRATA_OP_COMPARE_AND_WRITE, 0, offset, length, iov, 2};
    struct strata_result r = {.size = sizeof(r)};

    if (strata_run(d, &io, &r) == STRATA_MISCOMPARE && at)
        *at = r.miscompare_at;
    return r.status;
}

/* ---- Asynchronous ---- */

static void
request_done(struct st_req *req)
{
    struct strata_request *r = req->owner;

    r->live = false;
    if (r->queue) {
        atomic_store(&r->state, LIB_QUEUED);
        lib_queue_push(r->queue, r);
    } else {
        /* It may be destroyed from here on: its memory stays until this loop
         * has run the message. */
        atomic_store(&r->state, LIB_IDLE);
        r->done(r, r->arg);
    }
}

static void
request_start(struct st_task *t)
{
    struct st_req *req = st_container(t, struct st_req, task);
    struct strata_request *r = req->owner;

    r->live = true;
    st_submit(r->chan, req);
}

static void
request_cancel(struct st_task *t)
{
    struct strata_request *r = st_container(t, struct strata_request, cancel);

    atomic_store(&r->cancelling, false);
    if (r->live && atomic_load(&r->nth) == atomic_load(&r->cancel_nth))
        st_cancel(r->req);
}

static void
request_free(struct st_task *t)
{
    struct strata_request *r = st_container(t, struct strata_request, end);

    free(r->req);
    free(r);
}

int
strata_request_create(struct strata_disk *d, struct strata_queue *queue,
                      strata_done *done, void *arg, struct strata_request **out)
{
    struct strata_request *r;
    unsigned i;

    if (lib_usable(d->s) < 0)
        return -ECHILD;
    if (!queue == !done || (queue && !lib_queue_of(queue, d->s)))
        return -EINVAL;
    r = calloc(1, sizeof(*r));
    if (!r || !(r->req = malloc(st_req_size(LIB_FRAMES)))) {
        free(r);
        return -ENOMEM;
    }
    i = lib_next_loop(d->s);
    r->disk = d;
    r->loop = d->s->io[i];
    r->chan = d->chan[i];
    r->queue = queue;
    r->done = done;
    r->arg = arg;
    r->cancel.run = request_cancel;
    r->end.run = request_free;
    st_req_init(r->req, LIB_FRAMES, request_done, r);
    atomic_fetch_add(&d->users, 1);
    lib_queue_hold(queue);
    *out = r;
    return 0;
}

int
strata_request_destroy(struct strata_request *r)
{
    int idle = LIB_IDLE;
    struct strata_disk *d;
    struct strata_queue *q;

    if (!r)
        return 0;
    d = r->disk;
    q = r->queue;
    if (lib_usable(d->s) < 0)
        return -ECHILD;
    if (!atomic_compare_exchange_strong(&r->state, &idle, LIB_BUSY))
        return -EBUSY;
    /* Behind a cancel that may be under way, and a callback that calls this.
     * The disk's close passes the same way. */
    st_post(r->loop, &r->end);
    lib_queue_let_go(q);
    atomic_fetch_sub(&d->users, 1);
    return 0;
}

int
strata_submit(struct strata_request *r, const struct strata_io *from)
{
    struct strata_io io;
    int idle = LIB_IDLE;
    int rc = lib_usable(r->disk->s);

    if (rc == 0)
        rc = lib_take(&io, sizeof(io), from, "strata_io", NULL);
    if (rc < 0)
        return rc;
    if (!io_ok(&io))
        return -EINVAL;
    if (!atomic_compare_exchange_strong(&r->state, &idle, LIB_BUSY))
        return -EBUSY;
    st_req_init(r->req, LIB_FRAMES, request_done, r);
    fill(r->req, &io);
    atomic_fetch_add(&r->nth, 1);
    r->req->task.run = request_start;
    st_post(r->loop, &r->req->task);
    return 0;
}

int
strata_cancel(struct strata_request *r)
{
    if (lib_usable(r->disk->s) < 0)
        return -ECHILD;
    atomic_store(&r->cancel_nth, atomic_load(&r->nth));
    if (!atomic_exchange(&r->cancelling, true))
        st_post(r->loop, &r->cancel);
    return 0;
}

int
strata_request_result(const struct strata_request *r, struct strata_result *out)
{
    if (atomic_load(&r->state) != LIB_IDLE)
        return -EBUSY;
    return give_result(r->req, out);
}

void *
strata_request_arg(const struct strata_request *r)
{
    return r->arg;
}
