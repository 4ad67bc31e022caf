/* SPDX-License-Identifier: MIT
 *
 * A blocking face of a disk, for tools and tests: the calling thread turns the
 * loop until the answer is there. Any offset and length (the root does the
 * read-modify-write). Never in a program's I/O path.
 */
#ifndef ST_SYNC_H
#define ST_SYNC_H

#include "disk.h"

struct st_sync;

/* A door to D for the calling thread, which turns LOOP (borrowed). 0 or
 * -errno. */
int st_sync_open(struct st_disk *d, struct st_loop *loop, struct st_sync **out);
void st_sync_close(struct st_sync *s);

/* One operation, to its end. */
enum st_status st_sync_read(struct st_sync *s, void *buf, uint64_t offset,
                            size_t len);
enum st_status st_sync_write(struct st_sync *s, const void *buf,
                             uint64_t offset, size_t len, unsigned flags);
enum st_status st_sync_flush(struct st_sync *s);
enum st_status st_sync_unmap(struct st_sync *s, uint64_t offset, uint64_t len);
enum st_status st_sync_zero(struct st_sync *s, uint64_t offset, uint64_t len,
                            unsigned flags);
enum st_status st_sync_block_status(struct st_sync *s, uint64_t offset,
                                    uint64_t len, struct st_extent *out);
/* BUF holds LEN bytes to compare, then LEN to write. */
enum st_status st_sync_compare_and_write(struct st_sync *s, const void *buf,
                                         uint64_t offset, size_t len);

/* Any request: fill r->op, offset, ... of st_sync_req(), then run it. */
struct st_req *st_sync_req(struct st_sync *s);
enum st_status st_sync_run(struct st_sync *s);

/* Wait for an edit: start it in START(arg, e), get its rc. E is filled. */
int st_sync_edit(struct st_loop *loop,
                 void (*start)(void *arg, struct st_edit *e), void *arg,
                 struct st_edit *e);

#endif
