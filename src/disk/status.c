/* SPDX-License-Identifier: MIT
 *
 * How a request ends; see status.h.
 */
#include "status.h"

#include <errno.h>

const char *
st_status_name(enum st_status s)
{
    static const char *const names[ST_STATUS_COUNT] = {
        [ST_OK] = "ok",
        [ST_RANGE] = "out of range",
        [ST_INVALID] = "invalid parameter",
        [ST_UNSUPPORTED] = "not supported",
        [ST_READ_ONLY] = "read-only",
        [ST_NO_SPACE] = "no space",
        [ST_IO] = "i/o error",
        [ST_MEDIUM_READ] = "unrecovered read error",
        [ST_MEDIUM_WRITE] = "write fault",
        [ST_GUARD] = "guard check failed",
        [ST_APP_TAG] = "application tag check failed",
        [ST_REF_TAG] = "reference tag check failed",
        [ST_MEMORY] = "guest memory not accessible",
        [ST_CONFLICT] = "reservation conflict",
        [ST_MISCOMPARE] = "miscompare",
        [ST_PREEMPTED] = "preempted",
        [ST_ABORTED] = "aborted",
    };

    return (unsigned)s < ST_STATUS_COUNT ? names[s] : "unknown status";
}

enum st_status
st_status_from_errno(int err, bool write)
{
    switch (err) {
    case 0:
        return ST_OK;
    case EBADE:
        return ST_CONFLICT;
    case ENOSPC:
    case EDQUOT:
        return ST_NO_SPACE;
    case ENODATA:
        return write ? ST_MEDIUM_WRITE : ST_MEDIUM_READ;
    case EILSEQ:
        return ST_GUARD;
    case EROFS:
    case EBADF:
    case EPERM:
        return write ? ST_READ_ONLY : ST_IO;
    case EFAULT:
        return ST_MEMORY;
    case ECANCELED:
        return ST_ABORTED;
    default:
        return ST_IO;
    }
}
