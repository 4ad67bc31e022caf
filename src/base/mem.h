/* SPDX-License-Identifier: MIT
 *
 * Memory: aligned buffers, scratch that frees itself, iovec arithmetic.
 */
#ifndef ST_MEM_H
#define ST_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

/* Page-aligned memory of at least SIZE bytes, not zeroed; NULL when there is
 * none. Free with free(). */
void *st_pages_alloc(size_t size);

/* True when every byte is zero. Fast on data that is not. */
bool st_mem_is_zero(const void *p, size_t len);

/* A byte position in an iovec array: BUF's first byte is IOV[0] + SKIP. The
 * array is borrowed and must hold the bytes that the user of it asks for. */
struct st_buf {
    const struct iovec *iov;
    size_t skip;
};

/* The position N bytes further on; O(segments). */
struct st_buf st_buf_advance(struct st_buf b, size_t n);

/* Copy LEN bytes between a buffer and plain memory, or zero them. */
void st_buf_read(struct st_buf from, void *to, size_t len);
void st_buf_write(struct st_buf to, const void *from, size_t len);
void st_buf_zero(struct st_buf to, size_t len);

/* Write the first LEN bytes of B as plain iovecs into OUT (room for MAX).
 * Returns how many it wrote; *DONE is how many bytes they hold (short of LEN
 * when MAX segments were not enough). */
unsigned st_buf_iov(struct st_buf b, size_t len, struct iovec *out,
                    unsigned max, size_t *done);

/* Is every segment of the LEN bytes at B aligned to A (address and length)? */
bool st_buf_aligned(struct st_buf b, size_t len, size_t a);

static inline void
st_autofree_fn(void *p)
{
    free(*(void **)p);
}

static inline void
st_autoclose_fn(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define st_autofree  __attribute__((cleanup(st_autofree_fn)))
#define st_autoclose __attribute__((cleanup(st_autoclose_fn)))

/* Hand out what a cleanup attribute would free: `*out = st_steal(p)`. */
#define st_steal(p)                                                            \
    __extension__({                                                            \
        __typeof__(p) st_stolen = (p);                                         \
        (p) = NULL;                                                            \
        st_stolen;                                                             \
    })

#endif
