/* SPDX-License-Identifier: MIT
 *
 * The table of caps: every limit on what somebody outside can make us hold has
 * a name, a counter and a stated behaviour when it is full.
 *
 *   ST_CAP_ROWS is the table; add a row, and `strata` shows it.
 *
 * A cap counts in units (bytes, requests, sockets). Users take in coarse steps
 * (a megabyte, not a request), so that the counter is never on the fast path.
 */
#ifndef ST_CAPS_H
#define ST_CAPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*   name          default limit  unit        when full */
#define ST_CAP_ROWS(X)                                                         \
    X(NBD_MEMORY, "nbd-memory", UINT64_C(256) << 20, "bytes",                  \
      "the connection is not read until others give back, first come first")   \
    X(NBD_CLIENTS, "nbd-clients", 1024, "sockets",                             \
      "a new connection is closed at once")                                    \
    X(NBD_TLS, "nbd-tls", UINT64_C(256) << 20, "bytes",                        \
      "STARTTLS is refused; whom much is kept for that it does not read is "   \
      "cut off")                                                               \
    X(BOUNCE, "bounce", UINT64_C(256) << 20, "bytes",                          \
      "requests wait in order; one that is alone is always granted")           \
    X(API_CLIENTS, "api-clients", 64, "sockets",                               \
      "a request of a new connection is answered with status 503")             \
    X(WORKERS, "workers", 64, "threads", "jobs wait in order")

enum st_cap {
#define X(id, name, limit, unit, full) ST_CAP_##id,
    ST_CAP_ROWS(X)
#undef X
        ST_CAP_COUNT
};

/* One cap: its name, its limit, what is taken. */
struct st_cap_row {
    const char *name, *unit, *when_full;
    uint64_t limit;
    _Atomic uint64_t used, peak, refused;
};

/* The caps of a domain. */
struct st_caps {
    struct st_cap_row row[ST_CAP_COUNT];
};

/* Nothing taken, the limits of the table. */
void st_caps_init(struct st_caps *caps);

/* Take N units if they fit under the limit; else count a refusal. Any thread.
 * When nothing is taken yet, one take always succeeds, whatever its size. */
bool st_cap_take(struct st_caps *caps, enum st_cap cap, uint64_t n);
/* Take N units whatever the limit says: for the one that must progress. */
void st_cap_force(struct st_caps *caps, enum st_cap cap, uint64_t n);
void st_cap_give(struct st_caps *caps, enum st_cap cap, uint64_t n);

#endif
