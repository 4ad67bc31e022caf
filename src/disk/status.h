/* SPDX-License-Identifier: MIT
 *
 * How a request ends: the closed set that every front end has one table from.
 */
#ifndef ST_STATUS_H
#define ST_STATUS_H

#include <stdbool.h>

enum st_status {
    ST_OK,
    ST_RANGE,        /* outside the disk */
    ST_INVALID,      /* bad parameter */
    ST_UNSUPPORTED,  /* the disk does not perform this */
    ST_READ_ONLY,    /* write to a read-only disk */
    ST_NO_SPACE,     /* in range, but no room below (thin volume, full disk) */
    ST_IO,           /* any other host error */
    ST_MEDIUM_READ,  /* unrecovered read error */
    ST_MEDIUM_WRITE, /* write fault */
    ST_GUARD,        /* protection information: guard check failed */
    ST_APP_TAG,      /* application tag check failed */
    ST_REF_TAG,      /* reference tag check failed */
    ST_MEMORY,       /* guest buffer unreachable or not writable */
    ST_CONFLICT,     /* persistent reservation */
    ST_MISCOMPARE,   /* compare_and_write: the data differ */
    ST_PREEMPTED,    /* aborted by PREEMPT AND ABORT */
    ST_ABORTED,      /* cancelled, or refused behind a closed gate */
    ST_STATUS_COUNT
};

/* "ok", "out of range", ...: for messages and inspect; static. */
const char *st_status_name(enum st_status s);

/* The class of host errno ERR (positive) of a transfer; WRITE tells which way.
 * ENOSPC is ST_NO_SPACE: what a range check can decide was decided before. */
enum st_status st_status_from_errno(int err, bool write);

#endif
