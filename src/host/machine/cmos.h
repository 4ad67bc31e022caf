/* SPDX-License-Identifier: MIT
 *
 * The clock and the battery-backed memory of a PC: a Motorola MC146818A behind
 * ports 0x70 (index) and 0x71 (data), of which firmware and systems use 128
 * bytes.
 *
 * Time is the host's, in UTC, plus what the guest has set it forward. The
 * update-in-progress bit is kept as the chip would, so that a guest that obeys
 * it never reads a time that is half old. Alarms and periodic interrupts do not
 * come; the flag of a new second is there to be polled.
 */
#ifndef ST_CMOS_H
#define ST_CMOS_H

#include "pack.h"
#include "space.h"

struct st_cmos;

enum { ST_CMOS_PORT = 0x70 };

/* What firmware may boot from, in the order of its tries. */
enum st_cmos_boot {
    ST_CMOS_BOOT_NONE,
    ST_CMOS_BOOT_FLOPPY,
    ST_CMOS_BOOT_DISK,
    ST_CMOS_BOOT_CD
};

/* What the memory says. */
struct st_cmos_options {
    uint64_t ram_low, ram_above_4g; /* bytes */
    unsigned cpus;
    enum st_cmos_boot boot[3];
    uint8_t floppies; /* types: the first in the upper half; 4 is 1.44 MB */
    /* Nanoseconds since 1970 in UTC. Under a lock: may not come back. */
    uint64_t (*now_ns)(void *arg);
    void *arg;
};

/* On the I/O space PORTS. 0, or -errno of st_space_add. */
int st_cmos_create(struct st_space *ports, const struct st_cmos_options *opts,
                   struct st_cmos **out);

/* Takes it out of the space. NULL is fine. */
void st_cmos_destroy(struct st_cmos *c);

/* What a reset does to it: memory and time stay. Any thread. */
void st_cmos_reset(struct st_cmos *c);

/* What is saved of it (saved.h), version 1: the clock goes on with the host's.
 * No vCPU runs. */
void st_cmos_walk(struct st_pack *k, void *cmos);

#endif
