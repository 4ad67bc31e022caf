/* SPDX-License-Identifier: MIT
 *
 * The io_uring engine: one ring per loop, one system call per turn.
 *
 *   st_io_start --> starting --\
 *   watch added --> arming   ---+-- flush: SQEs --> ring --> CQEs: ready list
 *   watch gone  --> dying    --/
 *
 * Nothing is put into the ring before the flush, so a full or busy ring only
 * means that the lists wait for the next turn. Watches are multishot polls,
 * which report edges and are armed again when the kernel ends them.
 *
 * The ring is created disabled, restricted to what this file does with it, and
 * enabled by the loop's own thread: a seccomp filter does not see what goes
 * through a ring, and a single issuer's completions run when it asks for them.
 *
 * user_data: an st_io, or an st_watch_half with bit 0 (its poll) or bit 1 (the
 * poll's removal) set; 0 is nobody.
 */
#include <errno.h>

#include "loop_private.h"

#ifdef ST_HAVE_URING

#include <liburing.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "bitmap.h"
#include "range.h"

enum {
    URING_SQ = 256,
    URING_CQ = 4 * URING_SQ,
    URING_SLOTS = 1024,
    URING_BITE = 2,              /* most I/Os that one call submits: of more,
                                  * the kernel holds back (plugs) the first
                                  * until the last is ready, and the device
                                  * has nothing to do meanwhile */
    URING_TRIES = 16,            /* of one I/O after EINTR or EAGAIN */
    URING_MAX_RW = 0x7ffff000,   /* the kernel's MAX_RW_COUNT */
    URING_INT_FLAG_REG_RING = 1, /* liburing's INT_FLAG_REG_RING */
};

/* Best first. TASKRUN_FLAG lets us spin without a system call. */
static const unsigned uring_setups[] = {
    IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
        IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_R_DISABLED,
};

struct uring {
    struct st_engine base; /* first */
    struct io_uring ring;
    struct st_list starting; /* st_io.link */
    struct st_list arming;   /* halves: to be polled */
    struct st_list dying;    /* halves: poll to be cancelled */
    struct st_list resting;  /* halves: nothing to do */
    unsigned inflight;
    bool attached, have_slots;
    uint64_t slots[URING_SLOTS / 64];
};

/* All that is ever put into a ring. */
static const struct {
    int op;
    const char *name;
} uring_ops[] = {
    {IORING_OP_READ, "READ"},
    {IORING_OP_WRITE, "WRITE"},
    {IORING_OP_READV, "READV"},
    {IORING_OP_WRITEV, "WRITEV"},
    {IORING_OP_FSYNC, "FSYNC"},
    {IORING_OP_FALLOCATE, "FALLOCATE"},
    {IORING_OP_POLL_ADD, "POLL_ADD"},
    {IORING_OP_ASYNC_CANCEL, "CANCEL"},
    {IORING_OP_POLL_REMOVE, "POLL_REMOVE"},
};

/* All that is ever registered once it is enabled. */
static const uint8_t uring_registers[] = {
    IORING_REGISTER_FILES_UPDATE,
    IORING_REGISTER_RING_FDS,
    IORING_UNREGISTER_RING_FDS,
};

enum {
    URING_OPS = sizeof(uring_ops) / sizeof(uring_ops[0]),
    URING_REGISTERS = sizeof(uring_registers) / sizeof(uring_registers[0]),
};

static int
uring_init(struct io_uring *ring)
{
    int rc = -EINVAL;

    for (size_t i = 0; i < sizeof(uring_setups) / sizeof(uring_setups[0]);
         i++) {
        struct io_uring_params p = {
            .flags = uring_setups[i] | IORING_SETUP_CQSIZE,
            .cq_entries = URING_CQ,
        };

        rc = io_uring_queue_init_params(URING_SQ, ring, &p);
        if (rc != -EINVAL)
            break;
    }
    return rc;
}

static int
uring_probe(struct st_err *err)
{
    struct io_uring ring;
    struct io_uring_probe *probe;
    const char *missing = NULL;
    int rc = uring_init(&ring);

    if (rc)
        return st_err_set(err, ENOTSUP, "io_uring cannot be set up: %s",
                          st_strerror(rc));
    /* Multishot poll came with 5.13, and so did this feature bit. */
    if (!(ring.features & IORING_FEAT_RSRC_TAGS))
        missing = "multishot POLL_ADD";
    probe = io_uring_get_probe_ring(&ring);
    if (!probe)
        missing = "PROBE";
    for (unsigned i = 0; probe && i < URING_OPS; i++)
        if (!io_uring_opcode_supported(probe, uring_ops[i].op))
            missing = uring_ops[i].name;
    io_uring_free_probe(probe);
    io_uring_queue_exit(&ring);
    if (missing)
        return st_err_set(err, ENOTSUP, "this kernel's io_uring lacks %s",
                          missing);
    return 0;
}

static bool
uring_make_slots(struct io_uring *ring)
{
    int none[URING_SLOTS];

    if (io_uring_register_files_sparse(ring, URING_SLOTS) == 0)
        return true;
    for (size_t i = 0; i < URING_SLOTS; i++)
        none[i] = -1;
    return io_uring_register_files(ring, none, URING_SLOTS) == 0;
}

/* From its enabling on the ring refuses everything else with EACCES, whoever
 * asks. Kernels before 5.10 cannot. 0 or -errno. */
static int
uring_restrict(struct io_uring *ring)
{
    struct io_uring_restriction r[URING_OPS + URING_REGISTERS + 1] = {0};
    unsigned n = 0;

    for (unsigned i = 0; i < URING_OPS; i++) {
        r[n].opcode = IORING_RESTRICTION_SQE_OP;
        r[n++].sqe_op = (uint8_t)uring_ops[i].op;
    }
    for (unsigned i = 0; i < URING_REGISTERS; i++) {
        r[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        r[n++].register_op = uring_registers[i];
    }
    r[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    r[n++].sqe_flags = IOSQE_FIXED_FILE;
    return io_uring_register_restrictions(ring, r, n);
}

static int
uring_create(struct st_loop *l, struct st_engine **out, struct st_err *err)
{
    struct uring *u = calloc(1, sizeof(*u));
    int rc;

    if (!u)
        return st_err_set(err, ENOMEM, "no memory for a loop");
    u->base = (struct st_engine){&st_engine_uring, l};
    st_list_init(&u->starting);
    st_list_init(&u->arming);
    st_list_init(&u->dying);
    st_list_init(&u->resting);
    rc = uring_init(&u->ring);
    if (rc) {
        free(u);
        return st_err_set(err, -rc, "cannot set up an io_uring: %s",
                          st_strerror(rc));
    }
    u->have_slots = uring_make_slots(&u->ring);
    rc = uring_restrict(&u->ring); /* the last that is registered freely */
    if (rc)
        st_debug(l->domain->log, "loop %u: its io_uring is not restricted: %s",
                 l->index, st_strerror(rc));
    *out = &u->base;
    return 0;
}

static int
uring_attach(struct st_engine *e)
{
    struct uring *u = (struct uring *)e;
    int rc = io_uring_enable_rings(&u->ring);

    if (rc)
        return rc;
    io_uring_register_ring_fd(&u->ring); /* only faster */
    u->attached = true;
    return 0;
}

/* ---- Submission ---- */

/* NULL when the ring is full and the kernel takes nothing now. */
static struct io_uring_sqe *
uring_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    if (!sqe && io_uring_submit(&u->ring) > 0)
        sqe = io_uring_get_sqe(&u->ring);
    return sqe;
}

static void
uring_prep(struct io_uring_sqe *sqe, struct st_io *io, bool slots)
{
    int fd = io->fd;
    bool one = io->niov == 1;
    unsigned len = (unsigned)(one ? st_min(io->len, URING_MAX_RW) : 0);

    slots = slots && io->slot >= 0;
    if (slots)
        fd = io->slot;
    switch ((enum st_io_op)io->op) {
    case ST_IO_READ:
        if (one)
            io_uring_prep_read(sqe, fd, io->iov->iov_base, len, io->offset);
        else
            io_uring_prep_readv(sqe, fd, io->iov, io->niov, io->offset);
        break;
    case ST_IO_WRITE:
        if (one)
            io_uring_prep_write(sqe, fd, io->iov->iov_base, len, io->offset);
        else
            io_uring_prep_writev(sqe, fd, io->iov, io->niov, io->offset);
        if (io->flags & ST_IO_DSYNC)
            sqe->rw_flags = RWF_DSYNC;
        break;
    case ST_IO_FSYNC:
        io_uring_prep_fsync(sqe, fd, 0);
        break;
    case ST_IO_FALLOCATE:
        io_uring_prep_fallocate(sqe, fd, io->mode, (off_t)io->offset,
                                (off_t)io->len);
        break;
    }
    if (slots)
        sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, io);
}

enum { URING_POLL = 1, URING_REMOVE = 2 };

static uint64_t
uring_watch_data(const struct st_watch_half *h, unsigned what)
{
    return (uint64_t)(uintptr_t)h | what;
}

/* Turn the lists into SQEs. False when something had to stay behind. */
static bool
uring_flush(struct uring *u)
{
    struct io_uring_sqe *sqe;
    struct st_list *e;

    while ((e = st_list_first(&u->dying)) != NULL) {
        struct st_watch_half *h = st_container(e, struct st_watch_half, link);

        if (!(sqe = uring_sqe(u)))
            return false;
        io_uring_prep_poll_remove(sqe, uring_watch_data(h, URING_POLL));
        sqe->user_data = uring_watch_data(h, URING_REMOVE);
        h->removing = true;
        st_list_remove(e);
        st_list_append(&u->resting, e);
    }
    while ((e = st_list_first(&u->arming)) != NULL) {
        struct st_watch_half *h = st_container(e, struct st_watch_half, link);

        if (!(sqe = uring_sqe(u)))
            return false;
        io_uring_prep_poll_multishot(sqe, h->w->fd, h->w->events);
        sqe->user_data = uring_watch_data(h, URING_POLL);
        h->in_kernel = true;
        st_list_remove(e);
        st_list_append(&u->resting, e);
    }
    while ((e = st_list_first(&u->starting)) != NULL) {
        if (!(sqe = uring_sqe(u)))
            return false;
        st_list_remove(e);
        u->inflight++;
        uring_prep(sqe, st_container(e, struct st_io, link), u->have_slots);
        if (io_uring_sq_ready(&u->ring) >= URING_BITE)
            io_uring_submit(&u->ring);
    }
    return true;
}

static void
uring_start(struct st_engine *e, struct st_io *io)
{
    st_list_append(&((struct uring *)e)->starting, &io->link);
}

static void
uring_cancel(struct st_engine *e, struct st_io *io)
{
    struct uring *u = (struct uring *)e;
    struct io_uring_sqe *sqe;

    if (!st_list_empty(&io->link)) { /* not in the ring yet */
        st_list_remove(&io->link);
        io->res = -ECANCELED;
        st_ready(e->loop, &io->task);
        return;
    }
    /* Into the ring now, not at the flush: should IO complete before, and its
     * memory be used again, the new one comes after this entry. */
    if (!u->attached || !(sqe = uring_sqe(u)))
        return;
    io->tries = URING_TRIES; /* an interrupted one is not tried again */
    io_uring_prep_cancel(sqe, io, 0);
    sqe->user_data = 0;
}

/* ---- Completion ---- */

static void
uring_watch_event(struct uring *u, struct st_watch_half *h, int res, bool more)
{
    h->in_kernel = more;
    if (!h->w) {
        st_watch_half_put(h);
        return;
    }
    /* A poll that fails is reported as an error once and not armed again. */
    st_watch_half_event(h, res < 0 ? EPOLLERR : (unsigned)res);
    if (!more && res >= 0) {
        st_list_remove(&h->link);
        st_list_append(&u->arming, &h->link);
    }
}

/* A poll that fires just when it is to be removed stays (EALREADY), and would
 * hold its file for ever: try again. */
static void
uring_removed(struct uring *u, struct st_watch_half *h, int res)
{
    h->removing = false;
    if (res == -EALREADY && h->in_kernel) {
        st_list_remove(&h->link);
        st_list_append(&u->dying, &h->link);
    } else {
        st_watch_half_put(h);
    }
}

static void
uring_io_done(struct uring *u, struct st_io *io, int res)
{
    u->inflight--;
    if ((res == -EINTR || res == -EAGAIN) && io->tries < URING_TRIES) {
        io->tries++;
        st_list_append(&u->starting, &io->link);
        return;
    }
    /* A worker that is interrupted by our cancel may say EINTR. */
    io->res = res == -EINTR ? -ECANCELED : res;
    st_ready(io->loop, &io->task);
}

static void
uring_collect(struct uring *u)
{
    struct io_uring_cqe *cqes[64];
    unsigned n;

    do {
        /* Enters the kernel only if it has said that something waits. */
        n = io_uring_peek_batch_cqe(&u->ring, cqes, 64);
        for (unsigned i = 0; i < n; i++) {
            uint64_t data = cqes[i]->user_data;
            void *p = (void *)(uintptr_t)(data & ~UINT64_C(3));

            if (data & URING_REMOVE)
                uring_removed(u, p, cqes[i]->res);
            else if (data & URING_POLL)
                uring_watch_event(u, p, cqes[i]->res,
                                  cqes[i]->flags & IORING_CQE_F_MORE);
            else if (p)
                uring_io_done(u, p, cqes[i]->res);
        }
        io_uring_cq_advance(&u->ring, n);
    } while (n == 64);
}

static void
uring_poll(struct st_engine *e, int64_t wait_ns)
{
    struct uring *u = (struct uring *)e;
    struct __kernel_timespec ts;
    struct io_uring_cqe *cqe;

    /* Errors (EINTR, EBUSY, ETIME, ...) leave the rest for the next turn. */
    if (!uring_flush(u))
        wait_ns = 0;
    if (wait_ns) {
        ts.tv_sec = wait_ns / 1000000000;
        ts.tv_nsec = wait_ns % 1000000000;
        io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1,
                                         wait_ns < 0 ? NULL : &ts, NULL);
    } else if (io_uring_sq_ready(&u->ring)) {
        io_uring_submit_and_get_events(&u->ring);
    }
    uring_collect(u);
}

/* ---- Watches and files ---- */

static int
uring_watch(struct st_engine *e, struct st_watch *w)
{
    struct st_watch_half *h = st_watch_half_new(e->loop, w);

    if (!h)
        return -ENOMEM;
    st_list_append(&((struct uring *)e)->arming, &h->link);
    return 0;
}

static void
uring_unwatch(struct st_engine *e, struct st_watch *w)
{
    struct uring *u = (struct uring *)e;
    struct st_watch_half *h = w->engine;

    h->w = NULL;
    st_list_remove(&h->link);
    st_list_append(h->in_kernel ? &u->dying : &u->resting, &h->link);
    st_watch_half_put(h);
}

static int
uring_file_add(struct st_engine *e, int fd)
{
    struct uring *u = (struct uring *)e;
    size_t slot = st_bitmap_find(u->slots, 0, URING_SLOTS, false);

    if (!u->have_slots || slot == URING_SLOTS ||
        io_uring_register_files_update(&u->ring, (unsigned)slot, &fd, 1) != 1)
        return -1;
    st_bitmap_set(u->slots, slot);
    return (int)slot;
}

static void
uring_file_del(struct st_engine *e, int slot)
{
    struct uring *u = (struct uring *)e;
    int none = -1;

    io_uring_register_files_update(&u->ring, (unsigned)slot, &none, 1);
    st_bitmap_clear(u->slots, (size_t)slot);
}

static bool
uring_busy(struct st_engine *e)
{
    struct uring *u = (struct uring *)e;

    return u->inflight || !st_list_empty(&u->starting);
}

static void
uring_destroy(struct st_engine *e)
{
    struct uring *u = (struct uring *)e;

    if (u->attached && st_loop_here(e->loop))
        uring_poll(e, 0); /* so that removed watches let go of their files */
    else /* the registered descriptor is another thread's, and went with it */
        u->ring.int_flags &= (uint8_t)~URING_INT_FLAG_REG_RING;
    io_uring_queue_exit(&u->ring);
    st_watch_half_free_all(&u->arming);
    st_watch_half_free_all(&u->dying);
    st_watch_half_free_all(&u->resting);
    free(u);
}

struct io_uring *
st_uring_of(struct st_loop *l)
{
    struct st_engine *e = st_loop_impl(l)->engine;

    return e->ops == &st_engine_uring ? &((struct uring *)e)->ring : NULL;
}

#else /* no liburing */

static int
uring_probe(struct st_err *err)
{
    return st_err_set(err, ENOTSUP, "built without io_uring");
}

struct io_uring *
st_uring_of(struct st_loop *l)
{
    (void)l;
    return NULL;
}

#endif

const struct st_engine_ops st_engine_uring = {
    .name = "io_uring",
    .probe = uring_probe,
#ifdef ST_HAVE_URING
    .create = uring_create,
    .destroy = uring_destroy,
    .attach = uring_attach,
    .start = uring_start,
    .cancel = uring_cancel,
    .poll = uring_poll,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
    .file_add = uring_file_add,
    .file_del = uring_file_del,
    .busy = uring_busy,
#endif
};
