/* SPDX-License-Identifier: MIT
 *
 * The recorder: what may be on the disk after the power is cut?
 *
 * It sits in the seam, logs every write, fallocate and fsync of a domain (with
 * a copy of the data) when it is issued and when it completes, and builds from
 * that one possible content after a cut at any of these events:
 *
 *     event   0     1     2     3     4     5     6
 *             W1+   W1-   W2+   F+    F-    W2-   W3+     + issued, - completed
 *                                  ^
 *             a cut at 4: W1+ W1- W2+ F+ have happened. W2 may be there, whole
 *             or torn; at 5, W1 is durable: F was issued after W1- and is done.
 */
#ifndef ST_RECORDER_H
#define ST_RECORDER_H

#include "engine.h"
#include "rand.h"

struct st_recorder;

/* 0 or -ENOMEM. The domains that use it must be gone before destroy. */
int st_recorder_create(struct st_recorder **out);
void st_recorder_destroy(struct st_recorder *r); /* NULL is fine */

/* For st_domain_opts.seam, or an injector's next; lent by R. */
struct st_seam *st_recorder_seam(struct st_recorder *r);

/* How many events there are; cuts go from 0 (nothing yet) to this. Any
 * thread, as all below. */
size_t st_recorder_count(struct st_recorder *r);

/* Forget all events. Nothing recorded may be in flight (asserted). */
void st_recorder_reset(struct st_recorder *r);

/* IMAGE holds the SIZE bytes of the file behind FD (-1: of all files) when
 * recording began; turn it into one possible content after a power loss at
 * event CUT.
 *
 * - Durable is a write with ST_IO_DSYNC that completed before the cut, or any
 *   write that completed before the issue of an fsync of the same descriptor
 *   which itself completed before the cut. They are applied in order.
 *   Of a short write, the part that was written.
 * - Every other write that was issued is, by RAND, there, not there, or there
 *   in some of its 512-byte sectors; in any order among themselves, but never
 *   over a durable one that was issued later. With RAND NULL none is there.
 * - Punching and zeroing are writes of zeroes; other fallocate modes change no
 *   content. Bytes past SIZE are cut off: growth is out of scope. */
void st_recorder_image(struct st_recorder *r, int fd, size_t cut,
                       struct st_rand *rand, uint8_t *image, size_t size);

#endif
