/* SPDX-License-Identifier: MIT */
/** @file
 * @brief The conformance kit: does a node of your own keep the contract?
 *
 * It makes a fresh node for each check, with or without a disk above it, and
 * tries ranges up to 2^64, alignments, neighbours, zeroes, unmap and block
 * status against the data, many at once, cancel, pause, resize, and more. It
 * needs no test framework.
 */
#ifndef STRATA_KIT_H
#define STRATA_KIT_H

#include <stddef.h>
#include <stdint.h>

#include <strata/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What became of a check. */
enum strata_verdict {
    STRATA_KIT_PASS, /**< the contract is kept */
    STRATA_KIT_FAIL, /**< it is not */
    STRATA_KIT_SKIP  /**< does not apply */
};

/** What to run the kit on. */
struct strata_kit {
    size_t size;          /**< sizeof(struct strata_kit) */
    const char *name;     /**< of what is tested; NULL: "node" */
    uint32_t sector_size; /**< bytes, what make is asked for; 0: 512 */
    const char *engine; /**< as in struct strata_options, for the kit's loop */
    /** Make a fresh node of about BYTES bytes with sectors of SECTOR_SIZE
     * bytes. Called on the thread that runs the kit. Returns 0, -ENOTSUP (this
     * size or sector cannot be made: skip), or another negative errno and a
     * sentence in ERR (the check fails). */
    int (*make)(void *arg, uint32_t sector_size, uint64_t bytes,
                struct strata_node **out, struct strata_error *err);
    void *arg; /**< for make; borrowed for the call */
    /** Hears each verdict, on the thread that runs the kit: the name of the
     * CHECK and a DETAIL (perhaps ""), both lent for the call. NULL: each is
     * printed to standard output, a line each. */
    void (*report)(void *arg, const char *check, enum strata_verdict verdict,
                   const char *detail);
    void *report_arg; /**< for report; borrowed for the call */
};

/** Run every check, one after the other, on the calling thread, which takes the
 * part of the I/O thread. No context is needed.
 *
 * A check whose request is never completed does not return. The kit aborts the
 * process when there is no memory: a test without memory proves nothing.
 *
 * @param kit what to run it on; copied
 * @param ran gives how many checks were not skipped; may be NULL
 * @param err a sentence when it cannot run; may be NULL
 * @return the number of checks that failed, or a negative errno: -EINVAL (no
 *         make function, or the engine), -E2BIG, -ENOTSUP (the engine), ...
 */
int strata_kit_run(const struct strata_kit *kit, unsigned *ran,
                   struct strata_error *err);

#ifdef __cplusplus
}
#endif

#endif
