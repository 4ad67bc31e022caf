/* SPDX-License-Identifier: MIT
 *
 * What disks and doors did between two answers of GET /v1/inspect (control.h):
 * the rows of `strata top`.
 */
#ifndef ST_RATES_H
#define ST_RATES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* A disk or a door, over the last interval. */
struct st_rate {
    const char *name;  /* any text; lent by the rates */
    const char *kind;  /* of a door: "nbd"; of a disk: of its topmost node */
    const char *state; /* "ok", "read-only", "paused", "stopped", ... */
    bool door;
    double ops;           /* a second; of a door: requests */
    double read, written; /* bytes a second; of a door: sent, received */
    double mean_ns;       /* of what ended in between; 0: nothing did */
    /* Of now. p99_ns is an upper bound, a power of two, over all that the disk
     * ever did; 0 for a door. */
    uint64_t p99_ns, size, in_flight, errors, clients;
};

/* All of them, at one moment. */
struct st_rates {
    struct st_rate *row; /* owned: disks, then doors, each in the server's
                          * order until sorted */
    unsigned n;
    json_t *now; /* a reference: the names live there */
};

/* Compare NOW with BEFORE (NULL: all rates are 0), SECONDS earlier. What BEFORE
 * does not have, or what went back (another server answers), has rate 0. What
 * is missing or of another type counts as 0. 0 or -ENOMEM. */
int st_rates_make(json_t *before, json_t *now, double seconds,
                  struct st_rates *out);
void st_rates_free(struct st_rates *r);

/* By what rows are sorted; the names are those of --sort. */
enum st_rate_key {
    ST_RATE_OPS,
    ST_RATE_NAME,
    ST_RATE_SIZE,
    ST_RATE_READ,
    ST_RATE_WRITTEN,
    ST_RATE_MEAN,
    ST_RATE_P99,
    ST_RATE_IN_FLIGHT,
    ST_RATE_ERRORS,
    ST_RATE_CLIENTS,
    ST_RATE_KEYS
};
#define ST_RATE_KEY_WORDS                                                      \
    "ops|name|size|read|written|mean|p99|in-flight|errors|clients"

/* Disks before doors; by KEY, the largest first (names: the first first), or
 * the other way round; then by name. */
void st_rates_sort(struct st_rates *r, enum st_rate_key key, bool reverse);

/* For programs: a line of heads, then a line for each row, fields between
 * spaces, plain numbers, the name last. */
void st_rates_print(FILE *out, const struct st_rates *r);

#endif
