/* SPDX-License-Identifier: MIT
 *
 * Memory; see mem.h.
 */
#include "mem.h"

#include <string.h>

void *
st_pages_alloc(size_t size)
{
    return aligned_alloc(4096, (size + 4095) & ~(size_t)4095);
}

bool
st_mem_is_zero(const void *p, size_t len)
{
    const char *c = p;
    uint64_t w;

    /* Compare the block with itself, shifted, once its head is zero: libc's
     * vector memcmp does the walking. */
    if (len < 16) {
        for (size_t i = 0; i < len; i++)
            if (c[i])
                return false;
        return true;
    }
    memcpy(&w, c, 8);
    if (w)
        return false;
    memcpy(&w, c + 8, 8);
    if (w)
        return false;
    return memcmp(c, c + 16, len - 16) == 0;
}

struct st_buf
st_buf_advance(struct st_buf b, size_t n)
{
    b.skip += n;
    while (b.skip && b.skip >= b.iov->iov_len) {
        b.skip -= b.iov->iov_len;
        b.iov++;
    }
    return b;
}

/* The next piece of at most LEN bytes at B. */
static struct iovec
piece(struct st_buf *b, size_t len)
{
    struct iovec v;

    while (b->skip >= b->iov->iov_len) {
        b->skip -= b->iov->iov_len;
        b->iov++;
    }
    v.iov_base = (char *)b->iov->iov_base + b->skip;
    v.iov_len = b->iov->iov_len - b->skip;
    if (v.iov_len > len)
        v.iov_len = len;
    b->skip += v.iov_len;
    return v;
}

void
st_buf_read(struct st_buf from, void *to, size_t len)
{
    char *p = to;

    while (len) {
        struct iovec v = piece(&from, len);

        memcpy(p, v.iov_base, v.iov_len);
        p += v.iov_len;
        len -= v.iov_len;
    }
}

void
st_buf_write(struct st_buf to, const void *from, size_t len)
{
    const char *p = from;

    while (len) {
        struct iovec v = piece(&to, len);

        memcpy(v.iov_base, p, v.iov_len);
        p += v.iov_len;
        len -= v.iov_len;
    }
}

void
st_buf_zero(struct st_buf to, size_t len)
{
    while (len) {
        struct iovec v = piece(&to, len);

        memset(v.iov_base, 0, v.iov_len);
        len -= v.iov_len;
    }
}

unsigned
st_buf_iov(struct st_buf b, size_t len, struct iovec *out, unsigned max,
           size_t *done)
{
    unsigned n = 0;

    *done = 0;
    while (*done < len && n < max) {
        out[n] = piece(&b, len - *done);
        *done += out[n++].iov_len;
    }
    return n;
}

bool
st_buf_aligned(struct st_buf b, size_t len, size_t a)
{
    while (len) {
        struct iovec v = piece(&b, len);

        if (((uintptr_t)v.iov_base | v.iov_len) & (a - 1))
            return false;
        len -= v.iov_len;
    }
    return true;
}
