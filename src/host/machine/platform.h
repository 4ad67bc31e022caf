/* SPDX-License-Identifier: MIT
 *
 * The devices of the machine's board, and what it boots (private to the room).
 */
#ifndef ST_PLATFORM_H
#define ST_PLATFORM_H

#include "acpi.h"
#include "boot_linux.h"
#include "cmos.h"
#include "fw_cfg.h"
#include "misc.h"
#include "pci_host.h"
#include "pvpanic.h"
#include "saved.h"
#include "serial.h"

struct st_machine;

enum { ST_PLATFORM_SAVED = 16 }; /* devices that are saved, at most */
#define ST_PLATFORM_ROM "rom"    /* the section of firmware's image */

/* A serial port of the board, between its device and its console. */
struct st_platform_serial {
    struct st_machine *machine;
    struct st_console *console; /* borrowed; NULL: nobody's */
    unsigned irq;
    struct st_serial *serial; /* owned */
};

/* The board. */
struct st_platform {
    struct st_machine *machine;
    struct st_platform_serial serial[2];
    struct st_pm *pm;           /* owned */
    struct st_pci_bus *bus;     /* owned */
    struct st_cmos *cmos;       /* owned */
    struct st_misc *misc;       /* owned */
    struct st_pvpanic *pvpanic; /* owned */
    struct st_fw_cfg *fw_cfg;   /* owned: with firmware; or NULL */
    char said[120];             /* by firmware: a line that is not complete */
    unsigned said_len;          /* both under misc's lock */
    struct st_acpi acpi;
    uint64_t pci64;                            /* the 64-bit PCI window */
    int kernel, initrd;                        /* owned; -1: none */
    char *kernel_name, *initrd_name, *cmdline; /* owned */
};

/* Make M's devices, and open what it boots. 0 or -errno with a sentence;
 * st_platform_fini in any case. P is zeroed. */
int st_platform_init(struct st_platform *p, struct st_machine *m,
                     struct st_err *err);

/* No vCPU runs any more. Accepts zeroes. */
void st_platform_fini(struct st_platform *p);

/* The interrupt line of INTA of what is in SLOT. */
unsigned st_platform_intx(unsigned slot);

/* PCI is in SLOT. 0 or -EEXIST, -EINVAL. */
int st_platform_add_pci(struct st_platform *p, unsigned slot,
                        struct st_pci *pci);

/* It is there no longer; no vCPU runs. */
void st_platform_remove_pci(struct st_platform *p, unsigned slot);

/* All functions are there: tell firmware what to boot from, in this order. N 0:
 * whatever it finds. 0 or -errno of st_fw_cfg_add_boot_order; -ENOTSUP: there
 * is no firmware. */
int st_platform_boot_order(struct st_platform *p, const unsigned *slot,
                           unsigned n);

/* What is saved of the board: each of its devices. Returns how many. */
unsigned st_platform_saved(struct st_platform *p,
                           struct st_saved_device out[ST_PLATFORM_SAVED]);

/* All devices as after power-on. The vCPUs are parked. */
void st_platform_reset(struct st_platform *p);

/* Load what is booted into memory, which is as after power-on, and set the
 * first vCPU's registers. 0 or -errno with a sentence. */
int st_platform_boot(struct st_platform *p, struct st_err *err);

#endif
