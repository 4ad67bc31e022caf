/* SPDX-License-Identifier: MIT
 *
 * An address space of the machine: I/O ports, or memory that is not RAM.
 *
 *   vCPU exit: (address, length, value) --> st_space_access
 *                                             | which region?
 *                                             v
 *                                       region->ops->access
 *
 * A machine has two of them. Regions come and go while vCPUs run (BARs move);
 * the table is replaced whole, and the old one is freed when no vCPU is in it
 * any more. Where nobody is, reads give all ones and writes do nothing.
 */
#ifndef ST_SPACE_H
#define ST_SPACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pci.h"

struct st_region;

/* What a device does with an access. */
struct st_region_ops {
    const char *name;

    /* Carry out A: offset is from the region's start, len 1 to 8 and within
     * the region, but aligned as the guest pleases; A->write is set. True:
     * done. False: deferred, A->done will be called, on any thread; not for
     * the first and last 7 bytes of a region, which may be asked for in pieces.
     * Any vCPU thread, several at a time: a device has its own lock. */
    bool (*access)(struct st_region *r, struct st_access *a);
};

/* A range of addresses that is a device's. The device owns the memory, and
 * fills what is not private; it lives from st_space_add until st_space_remove
 * has said that it is out. */
struct st_region {
    const struct st_region_ops *ops;
    void *arg; /* the device's own */
    uint64_t start, size;
    /* Private. */
    _Atomic uint64_t accesses; /* for inspect; read by anybody */
};

struct st_space;

/* SIZE: how many addresses there are (0x10000 for ports, UINT64_MAX). 0 or
 * -ENOMEM. */
int st_space_create(uint64_t size, struct st_space **out);

/* No vCPU is in it any more. Regions are not freed. NULL is fine. */
void st_space_destroy(struct st_space *s);

/* Accesses to R are R's from now on. 0, -EEXIST (overlaps another), -EINVAL (is
 * empty, or beyond the end), -ENOMEM. Any thread. */
int st_space_add(struct st_space *s, struct st_region *r);

/* Accesses are R's no longer. When this returns nobody is in R; deferred
 * accesses may still be. Harmless for one that is not there. It waits: not
 * from within an access, nor under a lock that an access takes. */
void st_space_remove(struct st_space *s, struct st_region *r);

/* Where a region is while it is nowhere. */
#define ST_SPACE_NOWHERE UINT64_MAX

/* Move R to START, or to ST_SPACE_NOWHERE, at once: no access finds it at both
 * places, nor at neither. It need not be anywhere yet. Fails as st_space_add;
 * then it is nowhere, or after -ENOMEM where it was. Waits for nothing: an
 * access that began before may still be in R. Any thread, also from within an
 * access; R->start changes here, so one thread at a time for a region. */
int st_space_move(struct st_space *s, struct st_region *r, uint64_t start);

/* Carry out A, whose offset is an address here, and is changed. What crosses an
 * edge of a region is split into bytes, each for whom it belongs to. True:
 * done; false: A->done will be called. Any thread. */
bool st_space_access(struct st_space *s, struct st_access *a);

/* Call F for each region, by address, with the address as it is now. F may not
 * come back to S. Any thread. */
void st_space_each(struct st_space *s,
                   void (*f)(void *arg, const struct st_region *r,
                             uint64_t start),
                   void *arg);

#endif
