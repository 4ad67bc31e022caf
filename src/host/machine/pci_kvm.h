/* SPDX-License-Identifier: MIT
 *
 * A PCI function's way into the machine: the other side of struct st_pci_host
 * (private to the room).
 *
 *   function               here                      KVM
 *   BAR moves, decoding -> regions of the memory  -> exits
 *   bells               -> ioeventfds             -> eventfds, no exits
 *   MSI-X table         -> st_irq_msi_route       -> an eventfd a vector
 *   raises a vector     -> write to that          -> interrupt
 *   INTA                -> st_irq_line            -> IOAPIC
 *
 * Configuration space is pci_host's: it finds the function by its slot.
 */
#ifndef ST_PCI_KVM_H
#define ST_PCI_KVM_H

#include "irq.h"
#include "log.h"
#include "space.h"

struct st_pci_kvm;

/* What a function is plugged into; all is borrowed until st_pci_kvm_destroy. */
struct st_pci_kvm_opts {
    struct st_pci *pci; /* its host is set here */
    struct st_space *memory;
    struct st_irq *irq;
    unsigned gsi; /* of INTA */
    const struct st_log *log;
    const char *name; /* for the log */
};

/* 0 or -ENOMEM. */
int st_pci_kvm_create(const struct st_pci_kvm_opts *opts,
                      struct st_pci_kvm **out);

/* No vCPU runs, and the function raises nothing any more. NULL is fine. */
void st_pci_kvm_destroy(struct st_pci_kvm *p);

/* What a function's plug counts. */
struct st_pci_kvm_stats {
    uint64_t accesses; /* exits to its BARs */
    uint64_t sent;     /* messages by eventfd */
    uint64_t slow;     /* messages by a call of KVM */
    uint64_t lines;    /* changes of INTA */
    uint64_t refused;  /* BARs that were moved where something else is */
};

/* Any thread. */
void st_pci_kvm_stats(const struct st_pci_kvm *p, struct st_pci_kvm_stats *out);

#endif
