/* SPDX-License-Identifier: MIT
 *
 * PRPs and SGLs; see data.h.
 *
 *   PRP1: where the data begins, in any page
 *   PRP2: nothing | the second page | a list of pages:
 *
 *     PRP2 --> | page | page | ... | next --> | page | page | ...
 *              '--- to the end of its page --'
 *
 *   The last slot of a page of the list is a pointer to the next one only where
 *   more pages follow than there are slots.
 */
#include "data.h"

#include "range.h"

enum { SLOTS = NVME_PAGE / 8 };

/* The status of a guest address that cannot be used. */
static uint16_t
unreachable(void)
{
    return NVME_DATA_TRANSFER_ERROR | NVME_DNR;
}

static uint16_t
data_add(struct nvme_data *d, struct st_gmem_view *v, uint64_t gpa,
         uint64_t len, bool to_host)
{
    int rc = st_gmem_get(v, &d->use, gpa, len, to_host, d->iov, &d->n,
                         NVME_DATA_PIECES);

    return rc == 0 ? NVME_OK : unreachable();
}

/* The rest, LEN bytes, is in the pages that the list at AT names. */
static uint16_t
prp_list(struct nvme_data *d, struct st_gmem_view *v, uint64_t at, uint64_t len,
         bool to_host)
{
    le64 list[SLOTS];
    uint16_t status = NVME_OK;

    if (at % 8)
        return NVME_INVALID_PRP_OFFSET | NVME_DNR;
    while (status == NVME_OK && len) {
        unsigned slots = (unsigned)(NVME_PAGE - at % NVME_PAGE) / 8;
        uint64_t pages = (len + NVME_PAGE - 1) / NVME_PAGE;
        unsigned n = (unsigned)st_min(pages, slots);
        bool chained = pages > slots;

        if (st_gmem_read(v, at, list, n * sizeof(list[0])) < 0)
            return unreachable();
        for (unsigned i = 0; status == NVME_OK && i < n; i++) {
            uint64_t page = le64_get(list[i]);
            uint64_t part = st_min(len, NVME_PAGE);

            if (page % NVME_PAGE) {
                status = NVME_INVALID_PRP_OFFSET | NVME_DNR;
            } else if (chained && i == n - 1) {
                at = page;
            } else {
                status = data_add(d, v, page, part, to_host);
                len -= part;
            }
        }
    }
    return status;
}

static uint16_t
prp_get(struct nvme_data *d, struct st_gmem_view *v, const struct nvme_sqe *sqe,
        uint64_t len, bool to_host)
{
    uint64_t prp1 = le64_get(sqe->prp1), prp2 = le64_get(sqe->prp2);
    uint64_t first = st_min(len, NVME_PAGE - prp1 % NVME_PAGE);
    uint16_t status;

    if (prp1 % 4)
        return NVME_INVALID_PRP_OFFSET | NVME_DNR;
    status = data_add(d, v, prp1, first, to_host);
    len -= first;
    if (status != NVME_OK || !len)
        return status;
    if (len > NVME_PAGE)
        return prp_list(d, v, prp2, len, to_host);
    if (prp2 % NVME_PAGE)
        return NVME_INVALID_PRP_OFFSET | NVME_DNR;
    return data_add(d, v, prp2, len, to_host);
}

/* ---- SGLs (Base 4.1.2) ---- */

struct walk {
    struct nvme_data *d;
    struct st_gmem_view *v;
    uint64_t left;   /* bytes that no descriptor has named yet */
    unsigned walked; /* descriptors */
    unsigned blocks; /* of these, of data */
    bool to_host;
};

static uint16_t
sgl_block(struct walk *w, const struct nvme_sgl_desc *s)
{
    uint64_t len = le32_get(s->length);

    /* Longer than the transfer: not offered (SGLS bit 18). */
    if (len > w->left)
        return NVME_INVALID_SGL_LENGTH | NVME_DNR;
    if (++w->blocks > NVME_SGL_DESCRIPTORS)
        return NVME_INVALID_SGL_COUNT | NVME_DNR;
    w->left -= len;
    return len ? data_add(w->d, w->v, le64_get(s->address), len, w->to_host)
               : NVME_OK;
}

static enum nvme_sgl_type
sgl_type(const struct nvme_sgl_desc *s)
{
    return (enum nvme_sgl_type)(s->id >> 4);
}

/* The segment that SEGMENT points at; at its end SEGMENT is the next one, or a
 * data block when that was the last. */
static uint16_t
sgl_segment(struct walk *w, struct nvme_sgl_desc *segment)
{
    bool last = sgl_type(segment) == NVME_SGL_LAST_SEGMENT;
    uint64_t at = le64_get(segment->address);
    uint32_t bytes = le32_get(segment->length);
    uint32_t n = bytes / sizeof(*segment);

    if (!bytes || bytes % sizeof(*segment) || at + bytes < at)
        return NVME_INVALID_SGL_SEGMENT | NVME_DNR;
    for (uint32_t i = 0; i < n; i++) {
        struct nvme_sgl_desc s;
        uint16_t status = NVME_OK;

        if (++w->walked > NVME_SGL_WALK)
            return NVME_INVALID_SGL_COUNT | NVME_DNR;
        if (st_gmem_read(w->v, at + i * sizeof(s), &s, sizeof(s)) < 0)
            return unreachable();
        if (s.id & 0xf)
            return NVME_INVALID_SGL_TYPE | NVME_DNR;
        switch (sgl_type(&s)) {
        case NVME_SGL_DATA_BLOCK:
            status = sgl_block(w, &s);
            break;
        case NVME_SGL_SEGMENT:
        case NVME_SGL_LAST_SEGMENT:
            if (last)
                return NVME_INVALID_SGL_SEGMENT | NVME_DNR;
            if (i != n - 1)
                return NVME_INVALID_SGL_COUNT | NVME_DNR;
            *segment = s;
            return NVME_OK;
        case NVME_SGL_BIT_BUCKET: /* not offered (SGLS bit 16) */
        default:
            return NVME_INVALID_SGL_TYPE | NVME_DNR;
        }
        if (status != NVME_OK)
            return status;
    }
    if (!last) /* must end with a pointer to another one */
        return NVME_INVALID_SGL_SEGMENT | NVME_DNR;
    segment->id = NVME_SGL_DATA_BLOCK << 4;
    return NVME_OK;
}

static uint16_t
sgl_get(struct nvme_data *d, struct st_gmem_view *v, const struct nvme_sqe *sqe,
        uint64_t len, bool to_host)
{
    struct walk w = {.d = d, .v = v, .left = len, .to_host = to_host};
    struct nvme_sgl_desc s = sqe->sgl;
    uint16_t status = NVME_OK;

    if (s.id & 0xf)
        return NVME_INVALID_SGL_TYPE | NVME_DNR;
    switch (sgl_type(&s)) {
    case NVME_SGL_DATA_BLOCK:
        status = sgl_block(&w, &s);
        break;
    case NVME_SGL_SEGMENT:
    case NVME_SGL_LAST_SEGMENT:
        while (status == NVME_OK && sgl_type(&s) != NVME_SGL_DATA_BLOCK)
            status = sgl_segment(&w, &s);
        break;
    case NVME_SGL_BIT_BUCKET:
    default:
        return NVME_INVALID_SGL_TYPE | NVME_DNR;
    }
    if (status == NVME_OK && w.left)
        status = NVME_INVALID_SGL_LENGTH | NVME_DNR;
    return status;
}

uint16_t
st_nvme_data_get(struct nvme_data *d, struct st_gmem_view *v,
                 const struct nvme_sqe *sqe, uint64_t len, bool to_host,
                 bool sgl)
{
    unsigned psdt = sqe->flags >> NVME_PSDT_SHIFT;
    uint16_t status;

    d->n = 0;
    if (len > NVME_DATA_MAX || psdt == 3 || (psdt && !sgl))
        return NVME_INVALID_FIELD | NVME_DNR;
    if (!len)
        return NVME_OK;
    status = psdt ? sgl_get(d, v, sqe, len, to_host)
                  : prp_get(d, v, sqe, len, to_host);
    if (status != NVME_OK)
        st_nvme_data_put(d, v);
    return status;
}
