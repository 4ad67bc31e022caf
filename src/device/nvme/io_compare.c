/* SPDX-License-Identifier: MIT
 *
 * Compare (NVM Command Set 3.2.1), and the fused pair of Compare and Write
 * (Base 3.4.2).
 *
 * Alone, a compare reads the disk into a buffer, piece by piece, and looks at
 * the guest's data where it is. A pair is one compare_and_write of the disk,
 * which makes it atomic for everybody. What the pair cannot do, one of the two
 * answers for with its own status, the other is Aborted due to Failed Fused.
 */
#include "nvme_io.h"

#include <string.h>

#include "range.h"

/* Where B's first LEN bytes differ from P's: a place at or shortly before the
 * first; LEN: nowhere. The guest may change B meanwhile. */
static size_t
differ_at(struct st_buf b, const uint8_t *p, size_t len)
{
    size_t at = 0;

    for (; at < len; b.iov++, b.skip = 0) {
        const uint8_t *q = (const uint8_t *)b.iov->iov_base + b.skip;
        size_t n = st_min(len - at, b.iov->iov_len - b.skip);

        if (memcmp(q, p + at, n)) {
            for (size_t i = 0; i < n; i++)
                if (q[i] != p[at + i])
                    return at + i;
            return at;
        }
        at += n;
    }
    return len;
}

static void compare_next(struct nvme_cmd *c);

static void
compare_read(struct nvme_cmd *c)
{
    uint64_t n = c->req->len;
    size_t at =
        differ_at(st_buf_advance((struct st_buf){c->data.iov, 0}, c->passed),
                  c->work->data, n);

    if (at < n) {
        c->error_lba = (c->at + at) >> c->door->ns->shift;
        st_nvme_io_end(c, NVME_COMPARE_FAILURE | NVME_DNR);
        return;
    }
    c->at += n;
    c->left -= n;
    c->passed += n;
    compare_next(c);
}

static void
compare_next(struct nvme_cmd *c)
{
    struct nvme_buffer *b = c->work;
    uint64_t n = st_min(c->left, NVME_BUFFER);

    if (!n) {
        st_nvme_io_transferred(c);
        return;
    }
    if (st_nvme_io_stopped(c))
        return;
    b->iov = (struct iovec){b->data, n};
    st_nvme_io_submit(c, ST_OP_READ, 0, c->at, n, (struct st_buf){&b->iov, 0},
                      compare_read);
}

void
st_nvme_io_compare(struct nvme_cmd *c)
{
    uint16_t status = st_nvme_io_blocks(c, NVME_DATA_MAX);

    if (status == NVME_OK)
        status = st_nvme_io_data(c, c->left, false);
    if (status != NVME_OK) {
        st_nvme_io_end_soon(c, status);
        return;
    }
    c->passed = 0;
    st_nvme_pool_get(c, compare_next);
}

/* ---- Fused Compare and Write ---- */

static void
fused_written(struct nvme_cmd *c)
{
    st_nvme_io_count(c->fused);
    st_nvme_io_transferred(c);
}

/* Both data are copied, once: what was compared is what counts. */
static void
fused_go(struct nvme_cmd *c)
{
    struct nvme_buffer *b = c->work;
    uint64_t n = c->left;

    st_buf_read((struct st_buf){c->fused->data.iov, 0}, b->data, n);
    st_buf_read((struct st_buf){c->data.iov, 0}, b->data + n, n);
    st_nvme_data_put(&c->fused->data, c->io->view);
    st_nvme_data_put(&c->data, c->io->view);
    b->iov = (struct iovec){b->data, 2 * n};
    st_nvme_io_submit(c, ST_OP_COMPARE_AND_WRITE, st_nvme_io_fua(c), c->at, n,
                      (struct st_buf){&b->iov, 0}, fused_written);
}

static bool
same_blocks(const struct nvme_sqe *a, const struct nvme_sqe *b)
{
    return le32_get(a->cdw10) == le32_get(b->cdw10) &&
           le32_get(a->cdw11) == le32_get(b->cdw11) &&
           (le32_get(a->cdw12) & 0xffff) == (le32_get(b->cdw12) & 0xffff);
}

/* May the pair of FIRST and C be carried out? Else why not: *ONE and *TWO. */
static void
fused_check(struct nvme_cmd *first, struct nvme_cmd *c, uint16_t *one,
            uint16_t *two)
{
    uint32_t nlb = le32_get(c->sqe.cdw12) & 0xffff;

    if (first->sqe.opcode != NVME_COMPARE || c->sqe.opcode != NVME_WRITE ||
        first->door != c->door || !same_blocks(&first->sqe, &c->sqe)) {
        *one = *two = NVME_INVALID_FIELD | NVME_DNR;
        return;
    }
    if (nlb >= (uint32_t)NVME_FUSED_MAX >> c->door->ns->shift) {
        *one = *two = NVME_ATOMIC_WRITE_UNIT_EXCEEDED | NVME_DNR;
        return;
    }
    if (le32_get(first->sqe.cdw12) & NVME_RW_PRINFO)
        *one = NVME_INVALID_PROTECTION_INFO | NVME_DNR;
    else if (le32_get(c->sqe.cdw12) & NVME_RW_PRINFO)
        *two = NVME_INVALID_PROTECTION_INFO | NVME_DNR;
    else if ((*one = st_nvme_io_blocks(c, NVME_FUSED_MAX)) != NVME_OK)
        first->error_lba = c->error_lba;
    else if ((*two = st_nvme_io_writable(c)) == NVME_OK &&
             (*one = st_nvme_io_data(first, c->left, false)) == NVME_OK)
        *two = st_nvme_io_data(c, c->left, false);
}

void
st_nvme_io_fused(struct nvme_cmd *c)
{
    struct nvme_cmd *first = c->fused;
    uint16_t one = NVME_OK, two = NVME_OK;

    fused_check(first, c, &one, &two);
    if (one == NVME_OK && two == NVME_OK) {
        st_nvme_pool_get(c, fused_go);
        return;
    }
    first->status = one;
    st_nvme_io_end_soon(c, two == NVME_OK ? nvme_because_of(one) : two);
}
