/* SPDX-License-Identifier: MIT
 *
 * The PCI host bridge, and the functions on its one bus: who answers to an
 * access to configuration space (PCI Local Bus 3.0, 3.2.2.3.2; PCI Express Base
 * 4.0, 7.2.2).
 *
 *   ports 0xcf8, 0xcfc  --.                 .-- 0:0.0  host bridge, 8086:1237
 *                          '-> bus, slot, --+-- 0:N.F  a struct st_pci
 *   memory at ECAM  ------'    function     '-- else: all ones
 *
 * Where a function's BARs are decoded, and what its interrupts do, is the
 * business of its struct st_pci_host.
 */
#ifndef ST_PCI_HOST_H
#define ST_PCI_HOST_H

#include "pack.h"
#include "pm.h"
#include "space.h"

struct st_pci_bus;

enum { ST_PCI_SLOTS = 32, ST_PCI_FUNCTIONS = 8, ST_PCI_PORTS = 0xcf8 };

/* The GSI of PIN (0 is INTA) of SLOT: _PRT says the same. */
static inline unsigned
st_pci_slot_gsi(unsigned slot, unsigned pin)
{
    return 16 + (slot + pin) % 8;
}

/* On the I/O space PORTS, and with ECAM on MEMORY (NULL: without). Port 0xcf9
 * is PM's. All is borrowed until the end. 0, or -errno of st_space_add. */
int st_pci_bus_create(struct st_space *ports, struct st_space *memory,
                      struct st_pm *pm, struct st_pci_bus **out);

/* Takes it out of the spaces. NULL is fine. */
void st_pci_bus_destroy(struct st_pci_bus *b);

/* P is function FUNCTION of SLOT from now on, borrowed until it is removed. 0,
 * -EEXIST (there is one), -EINVAL (no such slot or function, or the host
 * bridge's slot 0). Any thread. */
int st_pci_bus_add(struct st_pci_bus *b, unsigned slot, unsigned function,
                   struct st_pci *p);

/* It answers no longer; when this returns, no access is in P. Harmless when
 * nothing is there. Any thread, but not from within an access. */
void st_pci_bus_remove(struct st_pci_bus *b, unsigned slot, unsigned function);

/* The lowest slot without a function, or 0: all are taken. */
unsigned st_pci_bus_free_slot(struct st_pci_bus *b);

/* What firmware does, where there is none: give each BAR an address, from
 * ST_MAP_PCI up, and if it does not fit and may be, from HIGH up (0: nowhere);
 * say in each function's Interrupt Line what its interrupt is. Decoding stays
 * off. No vCPU runs. */
void st_pci_bus_place_bars(struct st_pci_bus *b, uint64_t high);

/* Forget the address that was latched, and reset the host bridge; the other
 * functions are their owners' business. */
void st_pci_bus_reset(struct st_pci_bus *b);

/* What is saved of it (saved.h), version 1 itself: functions are saved by
 * themselves. No vCPU runs. */
void st_pci_bus_walk(struct st_pack *k, void *bus);

#endif
