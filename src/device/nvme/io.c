/* SPDX-License-Identifier: MIT
 *
 * The NVM command set (NVM Command Set 3): the life of a command, and those
 * that are one request for each disk: read, write, flush. See nvme_io.h for the
 * others.
 *
 * What is checked, in this order: fields of the command, the largest transfer,
 * the range, read-only, where the data is. Guest memory is not touched before
 * the range is known to be there.
 *
 * A command that changes a namespace which was made read-only gets Attempted
 * Write to Read Only Range. Namespace is Write Protected is for the states of
 * the feature Namespace Write Protection (Base 8.12), which is not offered.
 */
#include "nvme_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "range.h"
#include "stat.h"

/* ---- Statuses ---- */

/* The one table from statuses of disks to those of NVMe: with Do Not Retry
 * where the same command would fail again. */
static uint16_t
status_of(enum st_status s)
{
    switch (s) {
    case ST_OK:
        return NVME_OK;
    case ST_RANGE:
        return NVME_LBA_OUT_OF_RANGE | NVME_DNR;
    case ST_INVALID:
        return NVME_INVALID_FIELD | NVME_DNR;
    case ST_UNSUPPORTED:
        return NVME_INVALID_OPCODE | NVME_DNR;
    case ST_READ_ONLY:
        return NVME_WRITE_TO_READ_ONLY | NVME_DNR;
    case ST_NO_SPACE:
        return NVME_CAPACITY_EXCEEDED | NVME_DNR;
    case ST_IO:
        return NVME_INTERNAL_ERROR;
    case ST_MEDIUM_READ:
        return NVME_UNRECOVERED_READ;
    case ST_MEDIUM_WRITE:
        return NVME_WRITE_FAULT;
    case ST_GUARD:
        return NVME_GUARD_CHECK | NVME_DNR;
    case ST_APP_TAG:
        return NVME_APP_TAG_CHECK | NVME_DNR;
    case ST_REF_TAG:
        return NVME_REF_TAG_CHECK | NVME_DNR;
    case ST_MEMORY:
        return NVME_DATA_TRANSFER_ERROR | NVME_DNR;
    case ST_CONFLICT:
        return NVME_RESERVATION_CONFLICT | NVME_DNR;
    case ST_MISCOMPARE:
        return NVME_COMPARE_FAILURE | NVME_DNR;
    case ST_PREEMPTED:
        return NVME_PREEMPT_AND_ABORT;
    case ST_ABORTED:
        return NVME_ABORT_REQUESTED;
    case ST_STATUS_COUNT:
        break;
    }
    return NVME_INTERNAL_ERROR;
}

/* Media and data integrity errors, as SMART counts them. */
static bool
is_media_error(uint16_t status)
{
    switch ((enum nvme_status)(status & ~NVME_DNR)) {
    case NVME_WRITE_FAULT:
    case NVME_UNRECOVERED_READ:
    case NVME_GUARD_CHECK:
    case NVME_APP_TAG_CHECK:
    case NVME_REF_TAG_CHECK:
        return true;
    default:
        return false;
    }
}

/* ---- The end ---- */

/* SMART's counters: the data of Compare, Read and Verify was read, that of
 * Write written (NVM Command Set 4.1.4.2). */
void
st_nvme_io_count(const struct nvme_cmd *c)
{
    uint64_t n = (le32_get(c->sqe.cdw12) & 0xffff) + 1;
    struct nvme_io *io = c->io;

    n <<= c->door->ns->shift - 9;
    if (c->sqe.opcode == NVME_WRITE) {
        st_count(&io->writes, 1);
        st_count(&io->written_blocks, n);
    } else {
        st_count(&io->reads, 1);
        st_count(&io->read_blocks, n);
    }
}

static void
data_put(struct nvme_cmd *c)
{
    st_nvme_data_put(&c->data, c->io->view);
}

static void
end(struct nvme_cmd *c)
{
    struct nvme_cmd *first = c->fused;

    st_nvme_pool_put(c);
    data_put(c);
    c->state = NVME_IO_IDLE;
    if (is_media_error(c->status) || (first && is_media_error(first->status)))
        st_count(&c->io->media_errors, 1);
    if (first) {
        data_put(first);
        first->second = NULL;
        first->done(first);
    }
    c->done(c);
}

static void
end_run(struct st_task *t)
{
    end(st_container(t, struct nvme_cmd, task));
}

/* C ends with STATUS; so does its first, which has none of its own, for the
 * same reason. */
static void
set_status(struct nvme_cmd *c, uint16_t status)
{
    c->status = status;
    if (c->fused && c->fused->status == NVME_OK && status != NVME_OK)
        c->fused->status = nvme_because_of(status);
}

void
st_nvme_io_end(struct nvme_cmd *c, uint16_t status)
{
    set_status(c, status);
    end(c);
}

void
st_nvme_io_end_soon(struct nvme_cmd *c, uint16_t status)
{
    set_status(c, status);
    st_nvme_pool_put(c);
    c->state = NVME_IO_TASK;
    c->task.run = end_run;
    st_ready(c->io->loop, &c->task);
}

bool
st_nvme_io_stopped(struct nvme_cmd *c)
{
    if (!c->aborted)
        return false;
    if (c->fused)
        c->fused->status = NVME_ABORT_REQUESTED;
    st_nvme_io_end_soon(c, NVME_ABORT_REQUESTED);
    return true;
}

void
st_nvme_io_ended(struct nvme_cmd *c)
{
    st_nvme_io_end(c, NVME_OK);
}

/* ---- The request ---- */

/* Is it the write of a compare and write that failed so? */
static bool
is_writes(enum st_status s)
{
    return s == ST_READ_ONLY || s == ST_NO_SPACE || s == ST_MEDIUM_WRITE ||
           s == ST_CONFLICT;
}

/* The request of C has failed. */
static void
failed(struct nvme_cmd *c, enum st_status s)
{
    const struct st_req *req = c->req;
    uint16_t status = status_of(s);

    if (ST_BIT(req->op) & ST_OPS_RANGED)
        c->error_lba =
            (req->offset + (s == ST_MISCOMPARE ? req->miscompare_at : 0)) >>
            c->door->ns->shift;
    if (c->fused) {
        c->fused->error_lba = c->error_lba;
        if (!is_writes(s)) {
            c->fused->status = status;
            if (s != ST_ABORTED)
                status = nvme_because_of(status);
        }
    }
    st_nvme_io_end(c, status);
}

static void flushed(struct nvme_cmd *c, enum st_status s);

static void
req_done(struct st_req *req)
{
    struct nvme_cmd *c = req->owner;
    enum st_status s = (enum st_status)req->status;

    c->state = NVME_IO_IDLE;
    if (__builtin_expect(c->flushing != NULL, 0))
        flushed(c, s);
    else if (__builtin_expect(s == ST_OK, 1))
        c->next(c);
    else
        failed(c, s);
}

/* Let C have a request that is deep enough for DISK. One that is not does too
 * (the root then carries it), where there is no memory for another. */
static bool
req_ready(struct nvme_cmd *c, const struct st_disk *disk)
{
    unsigned frames = st_disk_frames(disk);
    struct st_req *req;

    if (__builtin_expect(c->req && c->req->nframes >= frames, 1))
        return true;
    req = malloc(st_req_size(frames));
    if (!req)
        return c->req;
    st_req_init(req, frames, req_done, c);
    free(c->req);
    c->req = req;
    return true;
}

static void
submit_at(struct nvme_cmd *c, struct nvme_door *door, enum st_op op,
          void (*next)(struct nvme_cmd *c))
{
    struct st_req *req = c->req;

    req->op = (uint8_t)op;
    req->nexus = door->ns->nexus;
    c->next = next;
    c->state = NVME_IO_DISK;
    st_submit(door->chan, req);
}

void
st_nvme_io_submit(struct nvme_cmd *c, enum st_op op, unsigned flags,
                  uint64_t offset, uint64_t len, struct st_buf buf,
                  void (*next)(struct nvme_cmd *c))
{
    struct st_req *req = c->req;

    req->flags = (uint8_t)flags;
    req->offset = offset;
    req->len = len;
    req->buf = buf;
    submit_at(c, c->door, op, next);
}

bool
st_nvme_io_through(const struct nvme_cmd *c)
{
    return atomic_load_explicit(c->io->write_through, memory_order_relaxed);
}

unsigned
st_nvme_io_fua(const struct nvme_cmd *c)
{
    bool fua = le32_get(c->sqe.cdw12) & NVME_RW_FUA;

    return fua || st_nvme_io_through(c) ? ST_REQ_FUA : 0;
}

/* ---- What a command says ---- */

uint16_t
st_nvme_io_range(struct nvme_cmd *c, uint64_t lba, uint64_t n)
{
    const struct nvme_ns *ns = c->door->ns;
    struct st_req *req = c->req;

    if (st_req_lba(req, lba, n, ns->shift) != ST_OK ||
        !st_range_ok(req->offset, req->len, st_disk_size(ns->disk))) {
        c->error_lba = lba;
        return NVME_LBA_OUT_OF_RANGE | NVME_DNR;
    }
    c->at = req->offset;
    c->left = req->len;
    return NVME_OK;
}

/* The fields that read, write, compare, write zeroes and verify have alike:
 * SLBA, NLB (0-based), PRINFO. At most MAX bytes. */
uint16_t
st_nvme_io_blocks(struct nvme_cmd *c, uint64_t max)
{
    uint64_t lba = le32_get(c->sqe.cdw10) | (uint64_t)le32_get(c->sqe.cdw11)
                                                << 32;
    uint32_t cdw12 = le32_get(c->sqe.cdw12);
    uint64_t n = (cdw12 & 0xffff) + 1;

    if (cdw12 & NVME_RW_PRINFO) /* no namespace has protection information */
        return NVME_INVALID_PROTECTION_INFO | NVME_DNR;
    if (n << c->door->ns->shift > max)
        return NVME_INVALID_FIELD | NVME_DNR;
    return st_nvme_io_range(c, lba, n);
}

uint16_t
st_nvme_io_writable(const struct nvme_cmd *c)
{
    return c->door->ns->read_only ? NVME_WRITE_TO_READ_ONLY | NVME_DNR
                                  : NVME_OK;
}

uint16_t
st_nvme_io_data(struct nvme_cmd *c, uint64_t len, bool to_host)
{
    return st_nvme_data_get(&c->data, c->io->view, &c->sqe, len, to_host,
                            c->io->sgl);
}

/* ---- Read, write ---- */

void
st_nvme_io_transferred(struct nvme_cmd *c)
{
    st_nvme_io_count(c);
    st_nvme_io_end(c, NVME_OK);
}

static void
transfer(struct nvme_cmd *c, bool write)
{
    uint16_t status = st_nvme_io_blocks(c, NVME_DATA_MAX);

    if (write && status == NVME_OK)
        status = st_nvme_io_writable(c);
    if (status == NVME_OK)
        status = st_nvme_io_data(c, c->left, !write);
    if (status != NVME_OK) {
        st_nvme_io_end_soon(c, status);
        return;
    }
    st_nvme_io_submit(c, write ? ST_OP_WRITE : ST_OP_READ,
                      write ? st_nvme_io_fua(c) : 0, c->at, c->left,
                      (struct st_buf){c->data.iov, 0}, st_nvme_io_transferred);
}

/* ---- Flush ---- */

static void
flush_one(struct nvme_cmd *c)
{
    st_nvme_io_submit(c, ST_OP_FLUSH, 0, 0, 0, (struct st_buf){NULL, 0},
                      st_nvme_io_ended);
}

/* A broadcast flush: the next namespace, from NSID c->step + 1 on. */
static void
flush_next(struct nvme_cmd *c)
{
    struct nvme_io *io = c->io;

    while (c->step < io->ndoors) {
        struct nvme_door *door;

        if (st_nvme_io_stopped(c))
            return;
        door = io->open(io, ++c->step);
        if (!door)
            continue;
        if (door->chan && req_ready(c, door->ns->disk)) {
            c->flushing = door;
            c->req->flags = 0;
            submit_at(c, door, ST_OP_FLUSH, NULL);
            return;
        }
        io->close(io, door);
        c->status = NVME_INTERNAL_ERROR;
    }
    st_nvme_io_end_soon(c, c->status);
}

/* One more is flushed, or failed: that keeps none of the others from it. */
static void
flushed(struct nvme_cmd *c, enum st_status s)
{
    struct nvme_door *door = c->flushing;

    c->flushing = NULL;
    if (s != ST_OK)
        c->status = status_of(s);
    c->io->close(c->io, door);
    flush_next(c);
}

/* ---- The contract ---- */

int
st_nvme_io_init(struct nvme_io *io)
{
    return st_nvme_pool_create(io->loop, &io->pool);
}

void
st_nvme_io_fini(struct nvme_io *io)
{
    st_nvme_pool_free(io->pool);
    io->pool = NULL;
}

void
st_nvme_io_slot_free(struct nvme_cmd *c)
{
    free(c->req);
    c->req = NULL;
}

static void
begin(struct nvme_cmd *c)
{
    c->status = NVME_OK;
    c->dw0 = 0;
    c->error_lba = UINT64_MAX;
    c->data.n = 0;
    c->work = NULL;
    c->second = NULL;
    c->flushing = NULL;
    c->state = NVME_IO_IDLE;
    c->step = c->ranges = 0;
    c->aborted = false;
}

static void
dispatch(struct nvme_cmd *c)
{
    switch ((enum nvme_opcode)c->sqe.opcode) {
    case NVME_READ:
        transfer(c, false);
        return;
    case NVME_WRITE:
        transfer(c, true);
        return;
    case NVME_FLUSH:
        flush_one(c);
        return;
    case NVME_COMPARE:
        st_nvme_io_compare(c);
        return;
    case NVME_WRITE_ZEROES:
        st_nvme_io_zeroes(c);
        return;
    case NVME_DSM:
        st_nvme_io_dsm(c);
        return;
    case NVME_VERIFY:
        st_nvme_io_verify(c);
        return;
    case NVME_COPY:
        st_nvme_io_copy(c);
        return;
    case NVME_RESV_REGISTER: /* no disk has reservations yet */
    case NVME_RESV_REPORT:
    case NVME_RESV_ACQUIRE:
    case NVME_RESV_RELEASE:
        break;
    }
    st_nvme_io_end_soon(c, NVME_INVALID_OPCODE | NVME_DNR);
}

/* Begin C, which goes on with GO when its request is there. */
static void
start(struct nvme_cmd *c, void (*go)(struct nvme_cmd *c))
{
    begin(c);
    if (c->fused) {
        begin(c->fused);
        c->fused->second = c;
    }
    if (__builtin_expect(req_ready(c, c->door->ns->disk), 1))
        go(c);
    else
        st_nvme_io_end_soon(c, NVME_INTERNAL_ERROR);
}

static void
start_broadcast(struct nvme_cmd *c)
{
    begin(c);
    flush_next(c);
}

void
st_nvme_io_start(struct nvme_cmd *c)
{
    if (__builtin_expect(c->door != NULL, 1)) {
        start(c, __builtin_expect(c->fused != NULL, 0) ? st_nvme_io_fused
                                                       : dispatch);
    } else if (c->sqe.opcode == NVME_FLUSH && !c->fused) {
        start_broadcast(c);
    } else {
        begin(c);
        if (c->fused) {
            begin(c->fused);
            c->fused->status = NVME_INVALID_NAMESPACE | NVME_DNR;
        }
        st_nvme_io_end_soon(c, NVME_INVALID_NAMESPACE | NVME_DNR);
    }
}

void
st_nvme_io_flush(struct nvme_cmd *c)
{
    if (c->door)
        start(c, flush_one);
    else
        start_broadcast(c);
}

void
st_nvme_io_erase(struct nvme_cmd *c)
{
    start(c, st_nvme_io_wipe);
}

void
st_nvme_io_abort(struct nvme_cmd *c)
{
    if (c->second)
        c = c->second;
    c->aborted = true;
    switch ((enum nvme_io_state)c->state) {
    case NVME_IO_POOL:
        st_nvme_io_stopped(c);
        break;
    case NVME_IO_DISK:
        st_cancel(c->req);
        break;
    case NVME_IO_IDLE:
    case NVME_IO_TASK:
        break;
    }
}
