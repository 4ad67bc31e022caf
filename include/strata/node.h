/* SPDX-License-Identifier: MIT */
/** @file
 * @brief A node of one's own: a backend that Strata's disks stand on.
 *
 *     memdiff, delay, throttle, ...      Strata's
 *     the root: locks, emulation, ...    Strata's
 *     ----------- submit --------------  on an I/O thread
 *     your node                          yours; ends each request from any
 *                                        thread, at any time
 *
 * You fill a struct strata_node_ops, make nodes with strata_node_create(), and
 * let strata_kind_add() tell the grammar of them. Then `NAME:TEXT` is a disk
 * like any other, also below other words: `memdiff:NAME:TEXT`. strata_kit_run()
 * says whether it keeps the contract:
 *
 *  - It performs the operations in strata_props.operations: read, write (unless
 *    read-only) and flush at least, beside them unmap, write zeroes and block
 *    status. The rest is made of these, or refused, before it arrives. All that
 *    arrives is in whole sectors, inside the node, in buffers as
 *    strata_props.mem_align and max_segments ask.
 *  - Each request ends once, with strata_node_complete().
 *  - A transfer is whole or it failed. After a write that failed its range
 *    holds anything.
 *  - A flush makes durable every write that had ended before it arrived. A
 *    write with #STRATA_FUA (if it has #STRATA_PROP_FUA) is durable when it
 *    ends.
 */
#ifndef STRATA_NODE_H
#define STRATA_NODE_H

#include <sys/uio.h>

#include <strata/disk.h>
#include <strata/io.h>
#include <strata/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One request to a node of yours (opaque); yours from submit until it is
 * completed. */
struct strata_node_request;

/** What a node of yours can do. ARG is what strata_node_create() got. */
struct strata_node_ops {
    size_t size;      /**< sizeof(struct strata_node_ops) */
    const char *name; /**< the kind, for people: "mine" */
    /** Start REQUEST. On an I/O thread, on several at once if the context has
     * several; must not block. It may complete the request here, or let
     * any thread do so later. */
    void (*submit)(void *arg, struct strata_node_request *request);
    /** Nobody waits for REQUEST any more: complete it soon, with
     * #STRATA_ABORTED or as it is, or leave it. It may have been completed by
     * another thread just now: then do nothing but compare the pointer. On an
     * I/O thread; must not block. NULL: requests cannot be cancelled. */
    void (*cancel)(void *arg, struct strata_node_request *request);
    /** Change the size to BYTES, a multiple of the sector size; on success
     * strata_node_size() is BYTES afterwards. What is cut off and comes back
     * reads as zeroes. For a shrink no request is under way. On a worker
     * thread, one call at a time: may block, but not for a disk above it, which
     * waits for this call (nobody notices such a deadlock here). Returns 0, or
     * a negative errno and a sentence in ERR. NULL: the size is fixed. */
    int (*resize)(void *arg, uint64_t bytes, struct strata_error *err);
    /** The node goes: no request is under way, none will come, and when this
     * has returned the node must not be used any more. On the home thread. */
    void (*close)(void *arg);
};

/** Make a node.
 *
 * @param ops what it can do; the struct is copied, its name is borrowed as long
 *        as the node lives
 * @param props what it is like; copied. operations, sector_size and
 *        physical_sector_size may be 0: read, write and flush; 512; a sector.
 *        mem_align 0 is 1.
 * @param bytes its size, a multiple of the sector size
 * @param arg for the functions of OPS; theirs to free in close
 * @param out gives the node, to be handed on (by strata_kind.open or
 *        strata_kit.make) or destroyed with strata_node_destroy()
 * @param err a sentence when it fails; may be NULL
 * @return 0, -EINVAL, -E2BIG (structs of a newer library) or -ENOMEM; when it
 *         fails close is not called
 */
int strata_node_create(const struct strata_node_ops *ops,
                       const struct strata_props *props, uint64_t bytes,
                       void *arg, struct strata_node **out,
                       struct strata_error *err);

/** Destroy a node that was not handed on; calls its close.
 *
 * @param node a node; NULL is fine
 */
void strata_node_destroy(struct strata_node *node);

/** The size of a node.
 *
 * @param node a node
 * @return bytes
 */
uint64_t strata_node_size(const struct strata_node *node);

/** The node's size changed by itself: requests are checked against BYTES from
 * now on, and the disks above hear of it. Requests beyond a new, smaller end
 * may be under way still. Any thread, from the node's making until its close
 * has returned.
 *
 * @param node a node
 * @param bytes the new size
 * @return 0 or -EINVAL (not a multiple of the sector size, or 2^63 and more)
 */
int strata_node_set_size(struct strata_node *node, uint64_t bytes);

/** The node holds other contents from now on: the disks above hear of it. Any
 * thread, from the node's making until its close has returned.
 *
 * @param node a node
 */
void strata_node_media_changed(struct strata_node *node);

/** What is asked.
 *
 * @param request a request
 * @return one of those that the node performs
 */
enum strata_op
strata_node_request_op(const struct strata_node_request *request);

/** The flags that go with it.
 *
 * @param request a request
 * @return bits of enum strata_flag
 */
unsigned strata_node_request_flags(const struct strata_node_request *request);

/** Where.
 *
 * @param request a request; not a flush
 * @return bytes, a multiple of the sector size
 */
uint64_t strata_node_request_offset(const struct strata_node_request *request);

/** How much.
 *
 * @param request a request; not a flush
 * @return bytes, a multiple of the sector size, more than 0
 */
uint64_t strata_node_request_length(const struct strata_node_request *request);

/** Copy what a write carries.
 *
 * @param request a write
 * @param at bytes from its first one on
 * @param buf takes the bytes
 * @param length bytes
 * @return how many were copied: fewer than LENGTH at the end of the request, 0
 *         when it carries none
 */
size_t strata_node_request_get(const struct strata_node_request *request,
                               uint64_t at, void *buf, size_t length);

/** Give what a read asks for.
 *
 * @param request a read
 * @param at bytes from its first one on
 * @param buf the bytes
 * @param length bytes
 * @return how many were copied: fewer than LENGTH at the end of the request, 0
 *         when it takes none
 */
size_t strata_node_request_put(struct strata_node_request *request, uint64_t at,
                               const void *buf, size_t length);

/** The buffers of a read or write, for preadv() and its like.
 *
 * @param request a read or a write
 * @param at bytes from its first one on
 * @param out takes the buffers; lent until the request is completed
 * @param max how many there is room for, 1 or more
 * @param held gives how many bytes they hold; may be NULL
 * @return how many were stored; 0 when there is nothing from AT on
 */
int strata_node_request_iov(const struct strata_node_request *request,
                            uint64_t at, struct iovec *out, int max,
                            uint64_t *held);

/** Keep a pointer of yours with a request, such as the next one of a list.
 *
 * @param request a request
 * @param mine anything
 */
void strata_node_request_set(struct strata_node_request *request, void *mine);

/** The pointer that was kept last.
 *
 * @param request a request
 * @return the pointer; NULL before the first one was kept
 */
void *strata_node_request_mine(const struct strata_node_request *request);

/** The answer to a block status, to be completed with #STRATA_OK then.
 *
 * @param request a block status
 * @param length bytes from its offset on for which the answer holds, a multiple
 *        of the sector size; cut to the request's length
 * @param flags bits of enum strata_extent
 * @return 0, or -EINVAL (length 0, flags, or another operation)
 */
int strata_node_request_extent(struct strata_node_request *request,
                               uint64_t length, unsigned flags);

/** End a request. It is not yours any more. Any thread; never calls back.
 *
 * @param request a request
 * @param status how it ended; anything that is no status counts as #STRATA_IO,
 *        as does #STRATA_OK for a block status without an answer
 */
void strata_node_complete(struct strata_node_request *request,
                          enum strata_status status);

#ifdef __cplusplus
}
#endif

#endif
