/* SPDX-License-Identifier: MIT
 *
 * Guest memory, as devices see it: guest addresses to host addresses.
 *
 *    host (any one thread at a time)         I/O loops, one view each
 *    ------------------------------         -------------------------
 *    map, unmap --> a new table ---------->  get: address -> iovecs, and
 *                                            a use of each map is counted
 *    unmap's done <-- no use is left <-----  put
 *
 * Maps come and go while the guest runs (firmware moves RAM around, BARs
 * move). The table is replaced whole, so a view looks things up without a lock
 * and counts uses in memory of its own. What a request got stays valid until it
 * is put, whatever is unmapped meanwhile; new requests do not find it.
 *
 * A map without host memory is known but cannot be reached: DMA to it is
 * refused like DMA to nothing, and counted apart, so that a host can say why.
 */
#ifndef ST_GMEM_H
#define ST_GMEM_H

#include "loop.h"

struct st_gmem;
struct st_gmem_view;

enum {
    ST_GMEM_PAGE = 4096,
    ST_GMEM_MAPS = 65535, /* at most so many at a time */
    ST_GMEM_VIEWS = 64,
};

/* HOME borrowed: where old tables are freed and st_gmem_unmap's done runs.
 * NULL: no memory. */
struct st_gmem *st_gmem_create(struct st_loop *home);

/* No view and no unmap is left (asserted). Maps that are still there are
 * released. HOME's thread, its loop may not turn any more. NULL is fine. */
void st_gmem_destroy(struct st_gmem *g);

/* ---- The host's side: one thread at a time ---- */

/* A piece of guest memory and where it lies in ours. */
struct st_gmem_map {
    uint64_t gpa, len; /* multiples of ST_GMEM_PAGE; len > 0, no wrap */
    uint8_t *host;     /* borrowed until released; NULL: cannot be reached */
    bool writable;
    /* Called once when nobody uses the map any more; may be NULL. HOME's
     * thread. */
    void (*release)(const struct st_gmem_map *m);
    void *arg;
};

/* M is copied. 0, -EINVAL (alignment, size, wrap), -EEXIST (overlaps a map),
 * -ENOSPC (ST_GMEM_MAPS), -ENOMEM. */
int st_gmem_map(struct st_gmem *g, const struct st_gmem_map *m);

/* An unmap under way; the caller owns the memory until done. */
struct st_gmem_unmap {
    void (*done)(struct st_gmem_unmap *u); /* on HOME, once */
    void *arg;
    /* Private. */
    struct st_gmem *gmem;
    struct st_task task;
    struct st_deferred defer;
    _Atomic unsigned left;
};

/* Take out the one map that is exactly [GPA, GPA + LEN): 0, -ENOENT or -ENOMEM
 * (nothing is done then); done is called when no request uses it any more,
 * never within this call. */
int st_gmem_unmap(struct st_gmem *g, uint64_t gpa, uint64_t len,
                  struct st_gmem_unmap *u);

/* Take out every map. 0 or -ENOMEM. */
int st_gmem_unmap_all(struct st_gmem *g, struct st_gmem_unmap *u);

/* Devices see what is mapped and unmapped between these two at once, all of it:
 * memory that is taken out and put back in other pieces never seems to be gone.
 * The unmaps are done after the commit. */
void st_gmem_begin(struct st_gmem *g);
void st_gmem_commit(struct st_gmem *g);

/* ---- A device's side: a view belongs to its loop ---- */

/* NULL: no memory, or ST_GMEM_VIEWS are open. On loop L. */
struct st_gmem_view *st_gmem_open(struct st_gmem *g, struct st_loop *l);

/* Every use has been put (asserted). NULL is fine. */
void st_gmem_close(struct st_gmem_view *v);

/* What one request uses; zeroed before the first get. */
struct st_gmem_use {
    void *map[4]; /* private */
    unsigned n;
};

/* Append the host addresses of the guest's [GPA, GPA + LEN), LEN > 0, to IOV,
 * which holds *N of at most MAX pieces; neighbours are joined. WRITE: the
 * device writes there. 0, or nothing is done and -EFAULT (not mapped, cannot be
 * reached, or not to be written) or -E2BIG (more than MAX pieces). */
int st_gmem_get(struct st_gmem_view *v, struct st_gmem_use *use, uint64_t gpa,
                uint64_t len, bool write, struct iovec *iov, unsigned *n,
                unsigned max);

/* The request is over: nothing of what it got is touched any more. */
void st_gmem_put(struct st_gmem_view *v, struct st_gmem_use *use);

/* Copy between the guest's memory and plain memory, at once. 0 or -EFAULT, with
 * nothing copied. Guests change their memory while it is read: copy once, then
 * look at the copy. */
int st_gmem_read(struct st_gmem_view *v, uint64_t gpa, void *to, size_t len);
int st_gmem_write(struct st_gmem_view *v, uint64_t gpa, const void *from,
                  size_t len);

/* The host address of [GPA, GPA + LEN) when it lies in one map, else NULL.
 * Valid until this task returns. */
void *st_gmem_peek(struct st_gmem_view *v, uint64_t gpa, uint64_t len,
                   bool write);

/* What guest memory counts. */
struct st_gmem_stats {
    uint64_t maps, bytes;
    uint64_t refused;     /* gets of what is not mapped, or not to be written */
    uint64_t unreachable; /* gets of maps without host memory */
};

/* Any thread. */
void st_gmem_stats(struct st_gmem *g, struct st_gmem_stats *out);

#endif
