/* SPDX-License-Identifier: MIT */
/** @file
 * @brief Reading and writing.
 *
 *     strata_read, ...   the calling thread waits
 *     strata_submit      a request that you keep and use again and again; it
 *                        ends with a callback on a thread of the library, or
 *                        in a queue, whose descriptor your own loop polls
 *
 * Any offset, length and buffer will do: what does not fit the disk's sectors
 * or memory is read, changed and written, or copied. Whole sectors in aligned
 * buffers are faster.
 *
 * Requests that are under way at the same time are not ordered. A request that
 * was submitted after another one ended sees what that one did. A transfer is
 * whole or it failed; after a write that failed its range holds anything.
 */
#ifndef STRATA_IO_H
#define STRATA_IO_H

#include <sys/uio.h>

#include <strata/disk.h>
#include <strata/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Flags of operations, a mask. */
enum strata_flag {
    STRATA_FUA = 1,       /**< write, write zeroes: durable when it ends */
    STRATA_MAY_UNMAP = 2, /**< write zeroes: may leave a hole */
    STRATA_FAST = 4       /**< write zeroes: #STRATA_UNSUPPORTED unless it is
                           *   faster than writing */
};

/** What block status found, a mask; 0 is data. */
enum strata_extent {
    STRATA_EXTENT_HOLE = 1, /**< no storage is taken */
    STRATA_EXTENT_ZERO = 2  /**< reads as zeroes */
};

/** One operation. */
struct strata_io {
    size_t size;       /**< sizeof(struct strata_io) */
    enum strata_op op; /**< which */
    unsigned flags;    /**< bits of enum strata_flag that fit it */
    uint64_t offset;   /**< bytes; not for flush */
    uint64_t length;   /**< bytes; not for flush. Of block status more than 0 */
    /** The buffers of read and write, LENGTH bytes in all; of compare and write
     * LENGTH bytes that are expected, then LENGTH bytes to write. Array and
     * buffers are borrowed until the operation has ended. */
    const struct iovec *iov;
    int iovcnt; /**< buffers, 0 to 1024 */
};

/** How an operation ended. */
struct strata_result {
    size_t size;               /**< sizeof(struct strata_result) */
    enum strata_status status; /**< #STRATA_OK, or why not */
    uint64_t extent_length;    /**< block status: bytes from the offset on, more
                                *   than 0, at most the length that was asked */
    unsigned extent_flags;     /**< block status: bits of enum strata_extent */
    uint64_t miscompare_at;    /**< compare and write with #STRATA_MISCOMPARE:
                                *   the first byte that differs, from 0 */
};

/** @name Synchronous
 * These wait; on a thread of the library they return #STRATA_INVALID instead.
 * @{ */

/** Carry out one operation.
 *
 * @param disk a disk
 * @param io what to do; borrowed for the call
 * @param result filled unless NULL; its size member says how much of it there
 *        is
 * @return the status; #STRATA_INVALID also for an argument that is wrong in
 *         itself
 */
enum strata_status strata_run(struct strata_disk *disk,
                              const struct strata_io *io,
                              struct strata_result *result);

/** Read.
 *
 * @param disk a disk
 * @param buf takes the bytes
 * @param length bytes
 * @param offset bytes
 * @return the status
 */
enum strata_status strata_read(struct strata_disk *disk, void *buf,
                               size_t length, uint64_t offset);

/** Write.
 *
 * @param disk a disk
 * @param buf the bytes
 * @param length bytes
 * @param offset bytes
 * @param flags 0 or #STRATA_FUA
 * @return the status
 */
enum strata_status strata_write(struct strata_disk *disk, const void *buf,
                                size_t length, uint64_t offset, unsigned flags);

/** Make durable what was written before this call by whomsoever.
 *
 * @param disk a disk
 * @return the status
 */
enum strata_status strata_flush(struct strata_disk *disk);

/** Say that bytes are not needed any more. Only whole sectors are given up.
 *
 * @param disk a disk
 * @param offset bytes
 * @param length bytes
 * @return the status
 */
enum strata_status strata_unmap(struct strata_disk *disk, uint64_t offset,
                                uint64_t length);

/** Write zeroes.
 *
 * @param disk a disk
 * @param offset bytes
 * @param length bytes
 * @param flags bits of enum strata_flag
 * @return the status
 */
enum strata_status strata_write_zeroes(struct strata_disk *disk,
                                       uint64_t offset, uint64_t length,
                                       unsigned flags);

/** Ask what is there: data, a hole, zeroes.
 *
 * @param disk a disk
 * @param offset bytes
 * @param length bytes, more than 0
 * @param run gives for how many bytes from OFFSET the answer holds; touched
 *        with #STRATA_OK only
 * @param flags gives bits of enum strata_extent; touched with #STRATA_OK only
 * @return the status
 */
enum strata_status strata_block_status(struct strata_disk *disk,
                                       uint64_t offset, uint64_t length,
                                       uint64_t *run, unsigned *flags);

/** Write only if the disk holds what is expected; atomic with regard to other
 * changes of the disk.
 *
 * @param disk a disk
 * @param expected LENGTH bytes
 * @param data LENGTH bytes
 * @param length bytes
 * @param offset bytes
 * @param at with #STRATA_MISCOMPARE it gives the first byte that differs, from
 *        0; may be NULL
 * @return the status
 */
enum strata_status strata_compare_and_write(struct strata_disk *disk,
                                            const void *expected,
                                            const void *data, size_t length,
                                            uint64_t offset, uint64_t *at);

/** @} */

/** @name Asynchronous
 * @{ */

/** A request (opaque): made once, used for one operation after the other. */
struct strata_request;

/** A completion queue (opaque): where requests that ended wait for you. */
struct strata_queue;

/** Hears that a request ended, on an I/O thread. It may submit the request
 * again or destroy it.
 *
 * @param request the request, which is not under way any more
 * @param arg what strata_request_create() got
 */
typedef void strata_done(struct strata_request *request, void *arg);

/** Make a queue.
 *
 * @param s its context
 * @param out gives the queue
 * @param err a sentence when it fails; may be NULL
 * @return 0, -ENOMEM, -EMFILE (no descriptor), ..., or -ECHILD (after fork())
 */
int strata_queue_create(struct strata *s, struct strata_queue **out,
                        struct strata_error *err);

/** Destroy a queue, and close its descriptor.
 *
 * @param queue a queue that no request uses; NULL is fine
 * @return 0, -EBUSY (a request uses it; nothing is done), -EDEADLK (on a thread
 *         of the library) or -ECHILD (after fork())
 */
int strata_queue_destroy(struct strata_queue *queue);

/** The descriptor of a queue: readable as long as there is something to take.
 * Only to be polled (poll, epoll, io_uring), not read.
 *
 * @param queue a queue
 * @return a descriptor, lent until the queue is destroyed
 */
int strata_queue_fd(const struct strata_queue *queue);

/** Take the request that has waited longest. Never waits.
 *
 * @param queue a queue
 * @return a request, which is not under way any more, or NULL
 */
struct strata_request *strata_queue_take(struct strata_queue *queue);

/** Make a request.
 *
 * @param disk its disk
 * @param queue where it goes when it ended (borrowed until it is destroyed), or
 *        NULL: DONE is called
 * @param done with QUEUE NULL: called when it ended; else NULL
 * @param arg for DONE and strata_request_arg(); borrowed until it is destroyed
 * @param out gives the request
 * @return 0, -EINVAL (a queue and a function, neither, or the queue of another
 *         context), -ENOMEM or -ECHILD (after fork())
 */
int strata_request_create(struct strata_disk *disk, struct strata_queue *queue,
                          strata_done *done, void *arg,
                          struct strata_request **out);

/** Destroy a request.
 *
 * @param request a request that is not under way; NULL is fine
 * @return 0, -EBUSY (it is under way, or ended and was not taken from its
 *         queue; nothing is done) or -ECHILD (after fork())
 */
int strata_request_destroy(struct strata_request *request);

/** Start an operation. Never waits and never calls DONE.
 *
 * @param request a request that is not under way
 * @param io what to do; copied, but for what its iov points at
 * @return 0: it ends in a callback or in the queue, whatever becomes of it.
 *         Else it was not started: -EINVAL (an argument that is wrong in
 *         itself), -E2BIG, -EBUSY (it is under way) or -ECHILD (after fork())
 */
int strata_submit(struct strata_request *request, const struct strata_io *io);

/** Let a request end soon: as it would have, or with #STRATA_ABORTED. Harmless
 * at any time before it is destroyed.
 *
 * @param request a request
 * @return 0 or -ECHILD (after fork())
 */
int strata_cancel(struct strata_request *request);

/** How the last operation of a request ended.
 *
 * @param request a request that is not under way
 * @param out filled; its size member says how much of it there is
 * @return 0, -EINVAL (the size member) or -EBUSY (it is under way)
 */
int strata_request_result(const struct strata_request *request,
                          struct strata_result *out);

/** The arg that a request was made with.
 *
 * @param request a request
 * @return the pointer
 */
void *strata_request_arg(const struct strata_request *request);

/** @} */

#ifdef __cplusplus
}
#endif

#endif
