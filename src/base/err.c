/* SPDX-License-Identifier: MIT
 *
 * One sentence for a person; see err.h.
 */
#include "err.h"

#include <stdio.h>
#include <string.h>

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
