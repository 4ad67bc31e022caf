/* SPDX-License-Identifier: MIT
 *
 * The log; see log.h.
 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void
emit(const struct st_log *log, enum st_level level, const char *fmt, va_list ap,
     uint32_t dropped)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1024];
    int n = vsnprintf(line, sizeof(line), fmt, ap);

    if (n < 0)
        return;
    if ((size_t)n >= sizeof(line))
        n = sizeof(line) - 1;
    /* What a peer said may stand in the text: keep it on one line. */
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    if (dropped)
        snprintf(line + n, sizeof(line) - (size_t)n, " (and %u more like it)",
                 dropped);
    if (log->write)
        log->write(log->arg, level, line);
    else
        fprintf(stderr, "strata: %s: %s\n", names[level], line);
}

void
st_log(const struct st_log *log, enum st_level level, const char *fmt, ...)
{
    va_list ap;

    if (!log || level > log->level)
        return;
    va_start(ap, fmt);
    emit(log, level, fmt, ap, 0);
    va_end(ap);
}

void
st_log_limited(const struct st_log *log, struct st_limiter *lim,
               enum st_level level, const char *fmt, ...)
{
    struct timespec ts;
    uint64_t now, next;
    va_list ap;

    if (!log || level > log->level)
        return;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    next = atomic_load(&lim->next_ns);
    if (now < next || !atomic_compare_exchange_strong(&lim->next_ns, &next,
                                                      now + 1000000000u)) {
        atomic_fetch_add(&lim->dropped, 1);
        return;
    }
    va_start(ap, fmt);
    emit(log, level, fmt, ap, atomic_exchange(&lim->dropped, 0));
    va_end(ap);
}
