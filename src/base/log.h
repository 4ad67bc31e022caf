/* SPDX-License-Identifier: MIT
 *
 * The log: levels, one line a message, rate limits for what a guest can repeat.
 *
 * A log is owned by main (or a test) and borrowed by everything else; there is
 * no global one. Messages are lower case, without full stop, object first.
 */
#ifndef ST_LOG_H
#define ST_LOG_H

#include <stdatomic.h>
#include <stdint.h>

enum st_level { ST_LOG_ERROR, ST_LOG_WARN, ST_LOG_INFO, ST_LOG_DEBUG };

/* WRITE gets a whole line without newline; any thread. NULL writes to stderr
 * with the level's name. A NULL log drops everything. */
struct st_log {
    enum st_level level; /* messages above it are dropped */
    void (*write)(void *arg, enum st_level level, const char *line);
    void *arg;
};

/* At most one message a second from each limiter; the next one that passes
 * says how many were dropped. Zero-initialise; any thread. */
struct st_limiter {
    _Atomic uint64_t next_ns;
    _Atomic uint32_t dropped;
};

/* Say one line, if LOG wants that level. Any thread. */
void st_log(const struct st_log *log, enum st_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, at most once a second from LIM. */
void st_log_limited(const struct st_log *log, struct st_limiter *lim,
                    enum st_level level, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define st_error(log, ...) st_log(log, ST_LOG_ERROR, __VA_ARGS__)
#define st_warn(log, ...)  st_log(log, ST_LOG_WARN, __VA_ARGS__)
#define st_info(log, ...)  st_log(log, ST_LOG_INFO, __VA_ARGS__)
#define st_debug(log, ...) st_log(log, ST_LOG_DEBUG, __VA_ARGS__)
#define st_warn_limited(log, lim, ...)                                         \
    st_log_limited(log, lim, ST_LOG_WARN, __VA_ARGS__)

#endif
