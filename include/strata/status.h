/* SPDX-License-Identifier: MIT */
/** @file
 * @brief How I/O ends: a closed set.
 */
#ifndef STRATA_STATUS_H
#define STRATA_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/** How a request ended. */
enum strata_status {
    STRATA_OK,           /**< it was carried out */
    STRATA_RANGE,        /**< outside the disk; nothing was done */
    STRATA_INVALID,      /**< an argument is wrong, or the call would wait for
                          *   itself, or this is a child after fork() */
    STRATA_UNSUPPORTED,  /**< the disk does not do this */
    STRATA_READ_ONLY,    /**< a change of a read-only disk */
    STRATA_NO_SPACE,     /**< inside the disk, but no room below it */
    STRATA_IO,           /**< any other error of the host */
    STRATA_MEDIUM_READ,  /**< what is stored there cannot be read */
    STRATA_MEDIUM_WRITE, /**< it cannot be written */
    STRATA_GUARD,        /**< protection information: guard */
    STRATA_APP_TAG,      /**< protection information: application tag */
    STRATA_REF_TAG,      /**< protection information: reference tag */
    STRATA_MEMORY,       /**< a buffer cannot be read or written */
    STRATA_CONFLICT,     /**< somebody else reserved the disk */
    STRATA_MISCOMPARE,   /**< compare-and-write: the data differ */
    STRATA_PREEMPTED,    /**< ended by the one who took the reservation */
    STRATA_ABORTED       /**< cancelled */
};

/** The name of a status in two or three words: "out of range".
 *
 * @param status any number
 * @return a static string, "unknown status" for a number that is none
 */
const char *strata_status_name(enum strata_status status);

/** A status in one sentence for a person, without full stop.
 *
 * @param status any number
 * @return a static string
 */
const char *strata_status_text(enum strata_status status);

#ifdef __cplusplus
}
#endif

#endif
