/* SPDX-License-Identifier: MIT
 *
 * One sentence for a person: what went wrong, with which thing, what to do.
 *
 * Set-up paths (open, parse, configure) return 0 or -errno and fill an st_err.
 * The I/O path never does: it carries enum st_status (disk/status.h).
 */
#ifndef ST_ERR_H
#define ST_ERR_H

#include <stdarg.h>
#include <stdbool.h>

/* A sentence without full stop, cut at the end of TEXT if it is too long. */
struct st_err {
    char text[512];
};

/* Fill ERR (which may be NULL) and return -ERRNUM, so that a failing function
 * can end with `return st_err_set(err, EINVAL, "size '%s' ...", text)`. */
int st_err_set(struct st_err *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put a prefix before what ERR already says: "prefix: old text". */
void st_err_prefix(struct st_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The name of -RC in words (thread-safe strerror); lends a static string. */
const char *st_strerror(int rc);

/* The same for -RC of opening or making PATH, for reading or also WRITE: where
 * its permissions would have let us, it was the sandbox, and how to widen it is
 * said. Lends a static string. */
const char *st_strerror_open(const char *path, bool write, int rc);

#endif
