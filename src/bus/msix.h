/* SPDX-License-Identifier: MIT
 *
 * MSI-X of a PCI function: table, pending bits, masks (PCI Local Bus 3.0, 6.8;
 * private to the room, see pci.h).
 */
#ifndef ST_MSIX_H
#define ST_MSIX_H

#include "pci.h"

enum { /* Message Control */
       ST_MSIX_ENABLE = 1 << 15,
       ST_MSIX_MASK = 1 << 14, /* of the whole function */
};

/* 0 or -ENOMEM. */
int st_msix_alloc(struct st_pci *p);
void st_msix_free(struct st_pci *p);

/* All entries masked, nothing pending. Under the lock, as what follows. */
void st_msix_reset(struct st_pci *p);

/* Message Control is now CONTROL. */
void st_msix_control(struct st_pci *p, uint16_t control);

/* Deliver what is pending and can be delivered now. */
void st_msix_deliver(struct st_pci *p);

/* Carry out A on the table or the pending bits. False: it is for neither. */
bool st_msix_access(struct st_pci *p, struct st_access *a);

#endif
