/* SPDX-License-Identifier: MIT
 *
 * The conformance kit: the contract of node.h and disk.h as a suite that any
 * node passes with one line. Needs no test library: each check reports its
 * name, a verdict and a detail.
 */
#ifndef ST_KIT_H
#define ST_KIT_H

#include "disk.h"
#include "sync.h"

enum st_verdict { ST_KIT_PASS, ST_KIT_FAIL, ST_KIT_SKIP };

/* What to run the kit on. */
struct st_kit {
    const char *name;     /* of what is tested: before each check's name */
    uint32_t sector;      /* 512 or 4096: what make is asked for */
    struct st_loop *loop; /* borrowed; virtual or real, this thread turns it */

    /* Make a fresh node of about SIZE bytes with that sector size (reading as
     * zeroes unless prefilled says otherwise). 0, -ENOTSUP (this size or
     * sector cannot be made: skip), or -errno (fail). */
    int (*make)(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
                struct st_node **out, struct st_err *err);
    void *arg;

    /* Hears each verdict. NULL prints a line to stdout. */
    void (*report)(void *arg, const char *check, enum st_verdict v,
                   const char *detail);
    void *report_arg;
};

/* Run every check. Returns the number of failures; *RAN (may be NULL) is the
 * number of checks that did not skip. */
unsigned st_kit_run(const struct st_kit *kit, unsigned *ran);

#endif
