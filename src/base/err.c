/* SPDX-License-Identifier: MIT
 *
 * One sentence for a person; see err.h.
 */
#include "err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int
st_err_set(struct st_err *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    if (err) {
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
    }
    return -errnum;
}

void
st_err_prefix(struct st_err *err, const char *fmt, ...)
{
    char old[sizeof(err->text)];
    va_list ap;
    size_t n;

    if (!err)
        return;
    memcpy(old, err->text, sizeof(old));
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    n = strlen(err->text);
    snprintf(err->text + n, sizeof(err->text) - n, ": %s", old);
}

const char *
st_strerror(int rc)
{
    const char *s = strerrordesc_np(rc < 0 ? -rc : rc);

    return s ? s : "unknown error";
}

/* Do the permissions of PATH, or where it does not exist those of its folder,
 * let us open or make it? A Landlock sandbox has no say in this question. */
static bool
err_permitted(const char *path, bool write)
{
    const char *slash = strrchr(path, '/');
    char dir[PATH_MAX] = ".";

    if (faccessat(AT_FDCWD, path, write ? R_OK | W_OK : R_OK, AT_EACCESS) == 0)
        return true;
    if (errno != ENOENT || !write ||
        (slash && (size_t)(slash - path) >= sizeof(dir) - 1))
        return false;
    if (slash) {
        memcpy(dir, path, (size_t)(slash - path) + 1);
        dir[slash - path + 1] = '\0';
    }
    return faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0;
}

const char *
st_strerror_open(const char *path, bool write, int rc)
{
    if ((rc == -EACCES || rc == EACCES) && err_permitted(path, write))
        return "the sandbox does not allow it; name its folder with "
               "--allow-path at the start";
    return st_strerror(rc);
}
