/* SPDX-License-Identifier: MIT
 *
 * Commands of the NVM command set that go over blocks in slices, one after the
 * other, so that a neighbour never waits for long: write zeroes, verify,
 * dataset management, copy, and the erasing of a whole namespace.
 *
 *   [ranges: copied, all checked] --> slice --> slice --> ... --> [flush]
 *
 * Slices of what may leave holes end where the disk's own blocks end: it could
 * not free a block of which it sees but a part at a time.
 */
#include "nvme_io.h"

#include <string.h>

#include "range.h"

static const struct st_buf none = {NULL, 0};

/* Bytes of the next slice of the LEFT at AT of C's disk. */
static uint64_t
slice(const struct nvme_cmd *c, uint64_t at, uint64_t left)
{
    uint64_t block = st_disk_props(c->door->ns->disk)->unmap_granularity;
    uint64_t step = NVME_SLICE;

    if (block > step)
        step = block;
    else if (block)
        step -= step % block;
    return st_min(left, step - at % step);
}

static void
flush_last(struct nvme_cmd *c)
{
    st_nvme_io_submit(c, ST_OP_FLUSH, 0, 0, 0, none, st_nvme_io_ended);
}

/* ---- Write Zeroes (3.2.8), and the erasing of a namespace ---- */

static void zeroed(struct nvme_cmd *c);

static void
zero_next(struct nvme_cmd *c)
{
    bool deallocate = le32_get(c->sqe.cdw12) & NVME_RW_DEAC;

    st_nvme_io_submit(c, ST_OP_WRITE_ZEROES,
                      st_nvme_io_fua(c) | (deallocate ? ST_REQ_MAY_UNMAP : 0),
                      c->at, slice(c, c->at, c->left), none, zeroed);
}

static void
zeroed(struct nvme_cmd *c)
{
    c->at += c->req->len;
    c->left -= c->req->len;
    if (!c->left)
        st_nvme_io_end(c, NVME_OK);
    else if (!st_nvme_io_stopped(c))
        zero_next(c);
}

void
st_nvme_io_zeroes(struct nvme_cmd *c)
{
    uint16_t status =
        st_nvme_io_blocks(c, UINT64_C(1) << NVME_WZSL << NVME_PAGE_SHIFT);

    if (status == NVME_OK)
        status = st_nvme_io_writable(c);
    if (status == NVME_OK)
        zero_next(c);
    else
        st_nvme_io_end_soon(c, status);
}

/* What is left to erase is asked of the disk each time: it may shrink. */
static void
wipe_next(struct nvme_cmd *c)
{
    const struct st_disk *d = c->door->ns->disk;
    uint64_t size = st_disk_size(d);
    bool unmap = st_disk_props(d)->unmap == ST_UNMAP_ZEROES;

    c->at += c->passed;
    if (c->at >= size) {
        flush_last(c);
    } else if (!st_nvme_io_stopped(c)) {
        c->passed = slice(c, c->at, size - c->at);
        st_nvme_io_submit(c, unmap ? ST_OP_UNMAP : ST_OP_WRITE_ZEROES,
                          unmap ? 0 : ST_REQ_MAY_UNMAP, c->at, c->passed, none,
                          wipe_next);
    }
}

void
st_nvme_io_wipe(struct nvme_cmd *c)
{
    uint16_t status = st_nvme_io_writable(c);

    c->at = c->passed = 0;
    if (status == NVME_OK)
        wipe_next(c);
    else
        st_nvme_io_end_soon(c, status);
}

/* ---- Verify (3.2.5): a read to nowhere ---- */

static void verify_next(struct nvme_cmd *c);

static void
verified(struct nvme_cmd *c)
{
    c->at += c->req->len;
    c->left -= c->req->len;
    if (c->left) {
        verify_next(c);
    } else {
        st_nvme_io_count(c);
        st_nvme_io_end(c, NVME_OK);
    }
}

static void
verify_next(struct nvme_cmd *c)
{
    struct nvme_buffer *b = c->work;

    if (st_nvme_io_stopped(c))
        return;
    b->iov = (struct iovec){b->data, st_min(c->left, NVME_BUFFER)};
    st_nvme_io_submit(c, ST_OP_READ, 0, c->at, b->iov.iov_len,
                      (struct st_buf){&b->iov, 0}, verified);
}

void
st_nvme_io_verify(struct nvme_cmd *c)
{
    uint16_t status =
        st_nvme_io_blocks(c, UINT64_C(1) << NVME_VSL << NVME_PAGE_SHIFT);

    if (status == NVME_OK)
        st_nvme_pool_get(c, verify_next);
    else
        st_nvme_io_end_soon(c, status);
}

/* ---- Dataset Management (3.2.3) ---- */

enum { DSM_DEALLOCATE = 1 << 2 }; /* CDW11, AD */

struct dsm_range {
    le32 attributes, nlb; /* not 0-based */
    le64 lba;
};
static_assert(sizeof(struct dsm_range) == 16, "NVM Command Set 3.2.3");

static void
dsm_next(struct nvme_cmd *c)
{
    if (!c->left && c->step == c->ranges) {
        if (st_nvme_io_through(c)) /* no cache: the holes are durable, too */
            flush_last(c);
        else
            st_nvme_io_end_soon(c, NVME_OK);
        return;
    }
    if (st_nvme_io_stopped(c))
        return;
    if (!c->left) {
        const struct nvme_range *r = &c->work->range[c->step++];

        c->at = r->lba << c->door->ns->shift;
        c->left = r->n << c->door->ns->shift;
    }
    c->passed = slice(c, c->at, c->left);
    c->at += c->passed;
    c->left -= c->passed;
    st_nvme_io_submit(c, ST_OP_UNMAP, 0, c->at - c->passed, c->passed, none,
                      dsm_next);
}

/* The guest's ranges: copied, looked at, joined where they are neighbours. */
static void
dsm_ranges(struct nvme_cmd *c)
{
    struct nvme_buffer *b = c->work;
    unsigned n = (le32_get(c->sqe.cdw10) & 0xff) + 1;
    bool deallocate = le32_get(c->sqe.cdw11) & DSM_DEALLOCATE;
    struct nvme_range *last = NULL;

    st_buf_read((struct st_buf){c->data.iov, 0}, b->data,
                n * sizeof(struct dsm_range));
    st_nvme_data_put(&c->data, c->io->view);
    for (unsigned i = 0; i < n; i++) {
        struct dsm_range raw;
        struct nvme_range r;
        uint16_t status;

        memcpy(&raw, b->data + i * sizeof(raw), sizeof(raw));
        r = (struct nvme_range){le64_get(raw.lba), le32_get(raw.nlb)};
        if (!r.n)
            continue;
        status = st_nvme_io_range(c, r.lba, r.n);
        if (status != NVME_OK) {
            st_nvme_io_end_soon(c, status);
            return;
        }
        if (last && last->lba + last->n == r.lba) {
            last->n += r.n;
        } else {
            last = &b->range[c->ranges++];
            *last = r;
        }
    }
    if (!deallocate) /* the other attributes are hints */
        c->ranges = 0;
    c->left = 0;
    dsm_next(c);
}

void
st_nvme_io_dsm(struct nvme_cmd *c)
{
    unsigned n = (le32_get(c->sqe.cdw10) & 0xff) + 1;
    uint16_t status = NVME_OK;

    if (le32_get(c->sqe.cdw11) & DSM_DEALLOCATE)
        status = st_nvme_io_writable(c);
    if (status == NVME_OK)
        status = st_nvme_io_data(c, n * sizeof(struct dsm_range), false);
    if (status == NVME_OK)
        st_nvme_pool_get(c, dsm_ranges);
    else
        st_nvme_io_end_soon(c, status);
}

/* ---- Copy (3.2.2) ----------------------------------------------------------
 *
 * Source ranges are copied in their order, each as if all of it were read
 * before any of it is written: where the destination begins inside the source,
 * from the end to the start. c->at: where the current range goes to; c->left:
 * bytes of it that are not copied yet; c->step: its number.
 */

enum { COPY_FORMAT = 0xf << 8, COPY_PRINFOR = 0xf << 12 }; /* CDW12 */

struct copy_range { /* format 0 */
    uint8_t reserved1[8];
    le64 lba;
    le16 nlb; /* 0-based */
    uint8_t reserved2[6];
    uint8_t tags[8];
};
static_assert(sizeof(struct copy_range) == 32, "NVM Command Set 3.2.2");

static void copy_next(struct nvme_cmd *c);

/* Where the next slice, of the buffer's iov, comes from and goes to. */
static uint64_t
copy_place(const struct nvme_cmd *c, bool to)
{
    const struct nvme_range *r = &c->work->range[c->step];
    uint64_t from = r->lba << c->door->ns->shift;
    uint64_t len = r->n << c->door->ns->shift;
    bool backwards = from < c->at && c->at < from + len;
    uint64_t at = backwards ? c->left - c->work->iov.iov_len : len - c->left;

    return (to ? c->at : from) + at;
}

static void
copied(struct nvme_cmd *c)
{
    const struct nvme_range *r = &c->work->range[c->step];

    c->left -= c->work->iov.iov_len;
    if (!c->left) {
        c->at += r->n << c->door->ns->shift;
        c->dw0 = ++c->step;
        if (c->step < c->ranges)
            c->left = r[1].n << c->door->ns->shift;
    }
    copy_next(c);
}

static void
copy_write(struct nvme_cmd *c)
{
    struct nvme_buffer *b = c->work;

    if (!st_nvme_io_stopped(c))
        st_nvme_io_submit(c, ST_OP_WRITE, st_nvme_io_fua(c),
                          copy_place(c, true), b->iov.iov_len,
                          (struct st_buf){&b->iov, 0}, copied);
}

static void
copy_next(struct nvme_cmd *c)
{
    struct nvme_buffer *b = c->work;

    if (c->step == c->ranges) {
        c->dw0 = 0;
        st_nvme_io_end(c, NVME_OK);
        return;
    }
    if (st_nvme_io_stopped(c))
        return;
    b->iov = (struct iovec){b->data, st_min(c->left, NVME_BUFFER)};
    st_nvme_io_submit(c, ST_OP_READ, 0, copy_place(c, false), b->iov.iov_len,
                      (struct st_buf){&b->iov, 0}, copy_write);
}

/* Range I of the guest's; *TOTAL blocks are before it. */
static uint16_t
copy_range(struct nvme_cmd *c, unsigned i, uint64_t *total)
{
    struct nvme_buffer *b = c->work;
    struct copy_range raw;
    struct nvme_range r;

    memcpy(&raw, b->data + i * sizeof(raw), sizeof(raw));
    r = (struct nvme_range){le64_get(raw.lba), (uint64_t)le16_get(raw.nlb) + 1};
    b->range[i] = r;
    *total += r.n;
    if (r.n > NVME_MSSRL || *total > NVME_MCL)
        return NVME_COMMAND_SIZE_LIMIT | NVME_DNR;
    return st_nvme_io_range(c, r.lba, r.n);
}

static void
copy_ranges(struct nvme_cmd *c)
{
    uint64_t lba = le32_get(c->sqe.cdw10) | (uint64_t)le32_get(c->sqe.cdw11)
                                                << 32;
    unsigned n = (le32_get(c->sqe.cdw12) & 0xff) + 1;
    uint16_t status = NVME_OK;
    uint64_t total = 0;

    st_buf_read((struct st_buf){c->data.iov, 0}, c->work->data,
                n * sizeof(struct copy_range));
    st_nvme_data_put(&c->data, c->io->view);
    for (unsigned i = 0; status == NVME_OK && i < n; i++) {
        c->dw0 = i; /* the first that was not copied */
        status = copy_range(c, i, &total);
    }
    if (status == NVME_OK) {
        c->dw0 = 0;
        status = st_nvme_io_range(c, lba, total);
    }
    if (status != NVME_OK) {
        st_nvme_io_end_soon(c, status);
        return;
    }
    c->left = c->work->range[0].n << c->door->ns->shift;
    c->ranges = n;
    copy_next(c);
}

void
st_nvme_io_copy(struct nvme_cmd *c)
{
    uint32_t cdw12 = le32_get(c->sqe.cdw12);
    unsigned n = (cdw12 & 0xff) + 1;
    uint16_t status = NVME_OK;

    if (cdw12 & COPY_FORMAT)
        status = NVME_INVALID_FIELD | NVME_DNR;
    else if (cdw12 & (COPY_PRINFOR | NVME_RW_PRINFO))
        status = NVME_INVALID_PROTECTION_INFO | NVME_DNR;
    else if (n > NVME_MSRC + 1)
        status = NVME_COMMAND_SIZE_LIMIT | NVME_DNR;
    else
        status = st_nvme_io_writable(c);
    if (status == NVME_OK)
        status = st_nvme_io_data(c, n * sizeof(struct copy_range), false);
    if (status == NVME_OK)
        st_nvme_pool_get(c, copy_ranges);
    else
        st_nvme_io_end_soon(c, status);
}
