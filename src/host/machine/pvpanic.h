/* SPDX-License-Identifier: MIT
 *
 * How a guest says that it has panicked: the port of QEMU's pvpanic device
 * (QEMU, docs/specs/pvpanic), which ACPI calls QEMU0001. Without it a panic
 * looks like any reset, or like a guest that has nothing to do.
 *
 *   0x505  reads which events are known; a written bit says that one has
 *          happened:
 *     bit 0  a panic, for the host to act upon
 *     bit 1  a panic that the guest deals with by itself: its crash kernel is
 *            loaded, and comes next
 *
 * It has no state, and the guest may say it as often as it likes.
 */
#ifndef ST_PVPANIC_H
#define ST_PVPANIC_H

#include "space.h"

struct st_pvpanic;

enum { ST_PVPANIC_PORT = 0x505 };

/* What it asks of its host; any vCPU's thread, and nothing may wait. */
struct st_pvpanic_ops {
    /* GOES_ON: the crash kernel comes next. */
    void (*panicked)(void *arg, bool goes_on);
};

/* On the I/O space PORTS; OPS is borrowed until the end. 0, or -errno of
 * st_space_add. */
int st_pvpanic_create(struct st_space *ports, const struct st_pvpanic_ops *ops,
                      void *arg, struct st_pvpanic **out);

/* Takes it out of the space. NULL is fine. */
void st_pvpanic_destroy(struct st_pvpanic *p);

#endif
