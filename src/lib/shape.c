/* SPDX-License-Identifier: MIT
 *
 * The shapes of the public face: structs that grow, errors, statuses.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib.h"

/* ---- Structs that grow ---- */

int
lib_take(void *to, size_t known, const void *from, const char *what,
         struct strata_error *err)
{
    size_t n;

    memset(to, 0, known);
    if (!from)
        return lib_err(err, EINVAL, "%s is missing", what);
    memcpy(&n, from, sizeof(n));
    if (n < sizeof(n))
        return lib_err(err, EINVAL, "%s has no size, expected its sizeof",
                       what);
    for (size_t i = known; i < n; i++)
        if (((const char *)from)[i])
            return lib_err(err, E2BIG,
                           "%s says more than this library knows: %zu bytes, "
                           "expected at most %zu",
                           what, n, known);
    memcpy(to, from, n < known ? n : known);
    return 0;
}

int
lib_give(void *to, const void *from, size_t known)
{
    size_t n;

    if (!to)
        return -EINVAL;
    memcpy(&n, to, sizeof(n));
    if (n < sizeof(n))
        return -EINVAL;
    memset(to, 0, n);
    memcpy(to, from, n < known ? n : known);
    memcpy(to, &n, sizeof(n));
    return 0;
}

/* ---- Errors ---- */

static_assert(sizeof(struct strata_error) == sizeof(struct st_err),
              "one sentence");

int
lib_err(struct strata_error *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    if (err) {
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
    }
    return -errnum;
}

int
lib_err_from(struct strata_error *err, int rc, const struct st_err *from)
{
    if (from && from->text[0])
        return lib_err(err, -rc, "%s", from->text);
    return lib_err(err, -rc, "%s", st_strerror(rc));
}

/* ---- What mirrors the inside ---- */

#define SAME(a, b) static_assert((int)(a) == (int)(b), #a " is " #b)
SAME(STRATA_OK, ST_OK);
SAME(STRATA_RANGE, ST_RANGE);
SAME(STRATA_INVALID, ST_INVALID);
SAME(STRATA_UNSUPPORTED, ST_UNSUPPORTED);
SAME(STRATA_READ_ONLY, ST_READ_ONLY);
SAME(STRATA_NO_SPACE, ST_NO_SPACE);
SAME(STRATA_IO, ST_IO);
SAME(STRATA_MEDIUM_READ, ST_MEDIUM_READ);
SAME(STRATA_MEDIUM_WRITE, ST_MEDIUM_WRITE);
SAME(STRATA_GUARD, ST_GUARD);
SAME(STRATA_APP_TAG, ST_APP_TAG);
SAME(STRATA_REF_TAG, ST_REF_TAG);
SAME(STRATA_MEMORY, ST_MEMORY);
SAME(STRATA_CONFLICT, ST_CONFLICT);
SAME(STRATA_MISCOMPARE, ST_MISCOMPARE);
SAME(STRATA_PREEMPTED, ST_PREEMPTED);
SAME(STRATA_ABORTED, ST_ABORTED);
SAME(STRATA_ABORTED + 1, ST_STATUS_COUNT);
SAME(STRATA_OP_READ, ST_OP_READ);
SAME(STRATA_OP_WRITE, ST_OP_WRITE);
SAME(STRATA_OP_FLUSH, ST_OP_FLUSH);
SAME(STRATA_OP_UNMAP, ST_OP_UNMAP);
SAME(STRATA_OP_WRITE_ZEROES, ST_OP_WRITE_ZEROES);
SAME(STRATA_OP_BLOCK_STATUS, ST_OP_BLOCK_STATUS);
SAME(STRATA_OP_COMPARE_AND_WRITE, ST_OP_COMPARE_AND_WRITE);
SAME(STRATA_FUA, ST_REQ_FUA);
SAME(STRATA_MAY_UNMAP, ST_REQ_MAY_UNMAP);
SAME(STRATA_FAST, ST_REQ_FAST);
SAME(STRATA_EXTENT_HOLE, ST_EXTENT_HOLE);
SAME(STRATA_EXTENT_ZERO, ST_EXTENT_ZERO);
SAME(STRATA_UNMAP_IGNORED, ST_UNMAP_IGNORED);
SAME(STRATA_UNMAP_UNSPECIFIED, ST_UNMAP_UNSPECIFIED);
SAME(STRATA_UNMAP_ZEROES, ST_UNMAP_ZEROES);
SAME(STRATA_EVENT_RESIZE, ST_EVENT_RESIZE);
SAME(STRATA_EVENT_MEDIA, ST_EVENT_MEDIA);
SAME(STRATA_EVENT_STOPPED, ST_EVENT_STOPPED);
SAME(STRATA_POLICY_REPORT, ST_POLICY_REPORT);
SAME(STRATA_POLICY_STOP, ST_POLICY_STOP);
SAME(STRATA_POLICY_RETRY, ST_POLICY_RETRY);
SAME(STRATA_LOG_ERROR, ST_LOG_ERROR);
SAME(STRATA_LOG_WARN, ST_LOG_WARN);
SAME(STRATA_LOG_INFO, ST_LOG_INFO);
SAME(STRATA_LOG_DEBUG, ST_LOG_DEBUG);

const char *
strata_status_name(enum strata_status status)
{
    return st_status_name((enum st_status)status);
}

const char *
strata_status_text(enum strata_status status)
{
    static const char *const texts[] = {
        [STRATA_OK] = "the operation was carried out",
        [STRATA_RANGE] = "the range does not lie inside the disk",
        [STRATA_INVALID] = "an argument or the place of the call is wrong",
        [STRATA_UNSUPPORTED] = "the disk does not perform this operation",
        [STRATA_READ_ONLY] = "the disk is read-only",
        [STRATA_NO_SPACE] = "there is no room left below the disk",
        [STRATA_IO] = "the host reported an error",
        [STRATA_MEDIUM_READ] = "what is stored there cannot be read",
        [STRATA_MEDIUM_WRITE] = "what should be stored there cannot be written",
        [STRATA_GUARD] = "the guard of the protection information is wrong",
        [STRATA_APP_TAG] =
            "the application tag of the protection information is wrong",
        [STRATA_REF_TAG] =
            "the reference tag of the protection information is wrong",
        [STRATA_MEMORY] = "a buffer cannot be read or written",
        [STRATA_CONFLICT] = "somebody else has reserved the disk",
        [STRATA_MISCOMPARE] = "the disk does not hold what was expected",
        [STRATA_PREEMPTED] =
            "whoever took over the reservation ended the operation",
        [STRATA_ABORTED] = "the operation was cancelled",
    };

    return (unsigned)status < sizeof(texts) / sizeof(*texts)
               ? texts[status]
               : "the status has no meaning";
}
