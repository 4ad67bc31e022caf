/* SPDX-License-Identifier: MIT
 *
 * Power management: ACPI's fixed hardware (ACPI 6.5, 4.8.3), and the reset
 * control register of PC chipsets.
 *
 *   0x600  PM1 status, by writing 1s cleared | 0x604  PM1 control
 *   0x602  PM1 enable                        | 0x608  timer, 3.58 MHz, 32 bits
 *   0xcf9  reset control: lies in the middle of PCI's ports, so it is pci_host
 *          that hands its accesses over
 *
 * Nothing of it happens by itself but the timer: its status bit follows the
 * carry when it is looked at, and interrupts nobody (no system waits for it).
 */
#ifndef ST_PM_H
#define ST_PM_H

#include "pack.h"
#include "space.h"

struct st_pm;

enum {
    ST_PM_EVENT = 0x600,
    ST_PM_CONTROL = 0x604,
    ST_PM_TIMER = 0x608,
    ST_PM_TIMER_HZ = 3579545,
    ST_PM_SCI = 9, /* its interrupt, a level */
    ST_PM_S5 = 5,  /* the sleep type that is power-off */
    ST_PM_RESET = 0xcf9,
    ST_PM_RESET_NOW = 6
};

/* What it asks of its host; any vCPU's thread, and nothing may wait. */
struct st_pm_ops {
    /* The SCI is now at LEVEL. Under a lock: may not come back. */
    void (*line)(void *arg, bool level);
    void (*power_off)(void *arg);
    void (*reset)(void *arg);
    /* A clock that never goes back. */
    uint64_t (*now_ns)(void *arg);
};

/* On the I/O space PORTS; OPS is borrowed until the end. 0, or -errno of
 * st_space_add. */
int st_pm_create(struct st_space *ports, const struct st_pm_ops *ops, void *arg,
                 struct st_pm **out);

/* Takes it out of the space. NULL is fine. */
void st_pm_destroy(struct st_pm *p);

/* As after power-on; the timer goes on. Any thread. */
void st_pm_reset(struct st_pm *p);

/* What is saved of it (saved.h), version 1: the timer stands still meanwhile.
 * No vCPU runs. */
void st_pm_walk(struct st_pack *k, void *pm);

/* Port 0xcf9, by one byte. Any thread. */
uint8_t st_pm_reset_control_read(struct st_pm *p);
void st_pm_reset_control_write(struct st_pm *p, uint8_t value);

#endif
