/* SPDX-License-Identifier: MIT */
/** @file
 * @brief Disks: open one by its SPEC, look at it, change it while it lives.
 *
 * A SPEC is a text in the disk grammar: `file:base.img`, `memdiff:base.img`,
 * `mem:1G`. Paths in it are relative to the working directory of the process.
 *
 * What survives a power cut is what was on the disk before the call of a flush
 * that ended with #STRATA_OK, and every write with #STRATA_FUA that ended so. A
 * flush that failed is remembered: all later ones fail until the disk is opened
 * again, because the kernel forgets what it could not write.
 */
#ifndef STRATA_DISK_H
#define STRATA_DISK_H

#include <stddef.h>
#include <stdint.h>

#include <strata/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/** An open disk (opaque). */
struct strata_disk;

/** The operations of a disk. */
enum strata_op {
    STRATA_OP_READ,         /**< bytes from the disk */
    STRATA_OP_WRITE,        /**< bytes to the disk; #STRATA_FUA */
    STRATA_OP_FLUSH,        /**< what was written before is durable */
    STRATA_OP_UNMAP,        /**< the bytes are not needed; strata_props.unmap
                             *   says what is read afterwards */
    STRATA_OP_WRITE_ZEROES, /**< #STRATA_FUA, #STRATA_MAY_UNMAP, #STRATA_FAST */
    STRATA_OP_BLOCK_STATUS, /**< is there data, a hole, zeroes? */
    STRATA_OP_COMPARE_AND_WRITE /**< write only if the disk holds what is
                                 *   expected; atomic with regard to other
                                 *   changes */
};

/** Room for operations in arrays and masks, present and future. */
#define STRATA_OPS 16

/** The bit of an operation in a mask. */
#define STRATA_BIT(op) (1u << (op))

/** What a read gives after an unmap. */
enum strata_unmap {
    STRATA_UNMAP_IGNORED,     /**< what was there: an unmap changes nothing */
    STRATA_UNMAP_UNSPECIFIED, /**< anything */
    STRATA_UNMAP_ZEROES       /**< zeroes */
};

/** Yes-or-no properties of a disk, bits of strata_props.flags. */
enum strata_prop {
    STRATA_PROP_READ_ONLY = 1,  /**< every change is refused */
    STRATA_PROP_FUA = 2,        /**< #STRATA_FUA needs no flush of everything;
                                 *   a disk honours it in any case, a node only
                                 *   if it says this */
    STRATA_PROP_FAST_ZERO = 4,  /**< zeroes are faster than writing them */
    STRATA_PROP_ROTATIONAL = 8, /**< neighbours are faster than strangers */
    STRATA_PROP_ID = 16         /**< strata_props.id is its identity */
};

/** What a disk, or a node of your own, is like; constant while it is open. */
struct strata_props {
    size_t size;                   /**< sizeof(struct strata_props) */
    uint32_t operations;           /**< #STRATA_BIT of each it performs */
    uint32_t sector_size;          /**< bytes, a power of two from 512 on */
    uint32_t physical_sector_size; /**< bytes, a power of two, a sector or more:
                                    *   what is written without reading */
    uint32_t unmap_granularity;    /**< bytes; 0: unmap is not worth it */
    uint32_t mem_align;    /**< nodes: address and length of each buffer will be
                            *   multiples (a power of two up to 4096); of disks
                            *   1 */
    uint32_t max_segments; /**< nodes: a read or write has at most so many
                            *   buffers, 0: any number; of disks 0 */
    enum strata_unmap unmap; /**< what is read after an unmap */
    unsigned flags;          /**< bits of enum strata_prop */
    uint8_t id[16];          /**< with #STRATA_PROP_ID: its natural identity */
};

/** What happened to a disk, a mask. */
enum strata_event {
    STRATA_EVENT_RESIZE = 1, /**< its size changed */
    STRATA_EVENT_MEDIA = 2,  /**< other contents */
    STRATA_EVENT_STOPPED = 4 /**< #STRATA_POLICY_STOP stopped it: requests wait
                              *   until strata_disk_resume() */
};

/** How to open a disk, bits. */
enum strata_open_flag {
    STRATA_OPEN_READ_ONLY = 1 /**< refuse every change, open files read-only */
};

/** How to open a disk; all zeroes but for size is a good start. */
struct strata_disk_options {
    size_t size;      /**< sizeof(struct strata_disk_options) */
    const char *name; /**< for messages; NULL: the SPEC */
    unsigned flags;   /**< bits of enum strata_open_flag */
    /** Hears of events, on the home thread: one call for all that came since
     * the last (EVENTS, bits of enum strata_event) with the latest SIZE in
     * bytes. Not called any more when strata_disk_close() has returned 0; the
     * first call may come before strata_disk_open() returns. A program with a
     * loop of its own writes to an eventfd here and asks
     * strata_disk_events() over there. NULL: nobody hears them. */
    void (*event)(struct strata_disk *disk, unsigned events, uint64_t size,
                  void *arg);
    void *arg; /**< borrowed until strata_disk_close() returned 0 */
};

/** What a disk does when its storage fails (#STRATA_IO, #STRATA_NO_SPACE). */
enum strata_policy {
    STRATA_POLICY_REPORT, /**< the request ends with that status */
    STRATA_POLICY_STOP,   /**< the request and all later ones wait;
                           *   strata_disk_resume() tries them again */
    STRATA_POLICY_RETRY   /**< up to 5 times, 10 ms and twice as long each
                           *   time, then report */
};

/** What a disk did so far. */
struct strata_counters {
    size_t size;                         /**< sizeof(struct strata_counters) */
    uint64_t operations[STRATA_OPS];     /**< completed, by enum strata_op */
    uint64_t errors[STRATA_OPS];         /**< of these, not #STRATA_OK */
    uint64_t latency_p50_ns[STRATA_OPS]; /**< half were faster; a power of 2 */
    uint64_t latency_p99_ns[STRATA_OPS]; /**< 99 % were faster */
    uint64_t bytes_read;                 /**< bytes */
    uint64_t bytes_written;              /**< bytes */
    uint64_t bytes_bounced; /**< copied, since a buffer did not fit */
    uint64_t emulated;      /**< operations that the disk made of others */
    uint64_t retried;       /**< by the policy */
    uint64_t in_flight;     /**< under way now */
    uint64_t oldest_age_ns; /**< how long the oldest of them is */
    unsigned flush_failed;  /**< 1: a flush failed, all later ones will */
    unsigned stopped;       /**< 1: the policy stopped the disk */
};

/** Open the disk that a SPEC names. Waits for it.
 *
 * @param s its context
 * @param spec a text in the disk grammar
 * @param options copied; NULL for the defaults
 * @param out gives the disk, to be closed with strata_disk_close()
 * @param err a sentence that quotes what is wrong; may be NULL
 * @return 0, -EINVAL (the SPEC or an option is wrong in itself), -E2BIG
 *         (options of a newer library, or a stack too deep), -ENOTSUP (a kind
 *         that this library has not), -ENOMEM, -EDEADLK (on a thread of the
 *         library), -ECHILD (after fork()), or what opening gave: -ENOENT,
 *         -EACCES, -EBUSY (locked by another process), ...
 */
int strata_disk_open(struct strata *s, const char *spec,
                     const struct strata_disk_options *options,
                     struct strata_disk **out, struct strata_error *err);

/** Close a disk. Every request of it must have been destroyed, and no call
 * that uses it may be under way. Nothing is flushed: what shall survive a power
 * cut is flushed before. Waits for it.
 *
 * @param disk a disk; NULL is fine
 * @return 0, -EBUSY (a request is left; nothing is done), -EDEADLK (on a thread
 *         of the library) or -ECHILD (after fork())
 */
int strata_disk_close(struct strata_disk *disk);

/** The name of a disk: the option's, or its SPEC.
 *
 * @param disk a disk
 * @return a string, lent until the disk is closed
 */
const char *strata_disk_name(const struct strata_disk *disk);

/** The properties of a disk.
 *
 * @param disk a disk
 * @param out filled; its size member says how much of it there is
 * @return 0 or -EINVAL (the size member)
 */
int strata_disk_props(const struct strata_disk *disk, struct strata_props *out);

/** The size of a disk.
 *
 * @param disk a disk
 * @return bytes, a multiple of its sector size
 */
uint64_t strata_disk_size(const struct strata_disk *disk);

/** What happened since the last call of this function; clears it.
 *
 * @param disk a disk
 * @return bits of enum strata_event
 */
unsigned strata_disk_events(struct strata_disk *disk);

/** Make a disk larger or smaller. A shrink waits for requests under way, parks
 * new ones meanwhile, and cuts off what lies beyond the new end. Waits for it.
 *
 * @param disk a disk
 * @param bytes the new size, a multiple of its sector size
 * @param err a sentence when it fails; may be NULL
 * @return 0, -EINVAL (no such multiple), -ENOTSUP (its size is fixed), -EROFS,
 *         -ENOSPC, -EDEADLK (on a thread of the library), -ECHILD (after
 *         fork()), ...
 */
int strata_disk_resize(struct strata_disk *disk, uint64_t bytes,
                       struct strata_error *err);

/** Let nothing through any more: requests that come wait for
 * strata_disk_resume(). Waits until those under way have ended.
 *
 * @param disk a disk
 * @param timeout_ms wait so long at most; 0: without limit
 * @param err a sentence when it fails; may be NULL
 * @return 0, -ETIMEDOUT (some are still under way; new ones wait all the same),
 *         -EDEADLK (on a thread of the library) or -ECHILD (after fork())
 */
int strata_disk_pause(struct strata_disk *disk, unsigned timeout_ms,
                      struct strata_error *err);

/** Let everything through again, after strata_disk_pause() or when
 * #STRATA_POLICY_STOP stopped the disk; what waits goes on in order.
 *
 * @param disk a disk
 * @param err a sentence when it fails; may be NULL
 * @return 0, -EDEADLK (on a thread of the library) or -ECHILD (after fork())
 */
int strata_disk_resume(struct strata_disk *disk, struct strata_error *err);

/** Choose what happens to requests that fail from now on. A disk begins with
 * #STRATA_POLICY_REPORT.
 *
 * @param disk a disk
 * @param policy what to do
 * @return 0, -EINVAL (no such policy) or -ECHILD (after fork())
 */
int strata_disk_set_policy(struct strata_disk *disk, enum strata_policy policy);

/** What happens to requests that fail.
 *
 * @param disk a disk
 * @return the policy
 */
enum strata_policy strata_disk_policy(const struct strata_disk *disk);

/** What a disk did so far, summed up over its threads.
 *
 * @param disk a disk
 * @param out filled; its size member says how much of it there is
 * @return 0, -EINVAL (the size member) or -ECHILD (after fork())
 */
int strata_disk_counters(struct strata_disk *disk, struct strata_counters *out);

#ifdef __cplusplus
}
#endif

#endif
