/* SPDX-License-Identifier: MIT
 *
 * Interrupts: lines of the IOAPIC and PICs, and messages (private to the room).
 *
 *   GSI  0 .. 15   ISA lines: PIC and IOAPIC (0 is pin 2 of the IOAPIC)
 *       16 .. 23   PCI lines: IOAPIC
 *       24 ..      messages: an eventfd each, and a route {address, data}
 *
 * KVM's routing table is replaced whole, which makes its vCPUs wait: it is
 * changed when a guest writes an MSI-X table, never for an interrupt.
 *
 * Lines that several devices share (PCI's) are asserted as long as one of them
 * asserts it.
 */
#ifndef ST_IRQ_H
#define ST_IRQ_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "kvm.h"

enum { ST_IRQ_LINES = 24 };

/* A message-signalled interrupt: what its eventfd means now. */
struct st_irq_msi {
    unsigned gsi; /* 0: there was none left */
    int fd;       /* eventfd; owned; -1 before its first route */
    bool wired;   /* KVM listens to fd */
    _Atomic bool on;
    _Atomic uint64_t address;
    _Atomic uint32_t data;
    _Atomic uint64_t sent, slow; /* by eventfd; by a call of KVM */
};

/* The interrupts of a machine. */
struct st_irq {
    const struct st_kvm *kvm;      /* borrowed */
    pthread_mutex_t lock;          /* the table */
    struct kvm_irq_routing *table; /* owned; of `size` entries */
    unsigned size, next;           /* the next free GSI */
    _Atomic uint64_t routed;       /* how often the table was replaced */
    pthread_mutex_t line_lock;
    unsigned asserted[ST_IRQ_LINES]; /* by how many */
};

/* The lines work afterwards. 0 or -errno. */
int st_irq_init(struct st_irq *q, const struct st_kvm *k);
void st_irq_fini(struct st_irq *q);

/* Assert line GSI, or not any more: once each, in turn, by each device. Any
 * thread. */
void st_irq_line(struct st_irq *q, unsigned gsi, bool level);

/* Raise line GSI for a moment: an edge. Any thread. */
void st_irq_pulse(struct st_irq *q, unsigned gsi);

/* M, zeroed, gets a GSI, if one is left. Set-up only; st_irq_msi_close in any
 * case. */
void st_irq_msi_open(struct st_irq *q, struct st_irq_msi *m);
void st_irq_msi_close(struct st_irq *q, struct st_irq_msi *m);

/* From now on M's eventfd is the message {ADDRESS, DATA}. Of one M one thread
 * at a time. Where it cannot be, messages still arrive. */
void st_irq_msi_route(struct st_irq *q, struct st_irq_msi *m, uint64_t address,
                      uint32_t data);

/* Send {ADDRESS, DATA}: by M's eventfd, if that is what it means. Any
 * thread. */
void st_irq_msi_send(struct st_irq *q, struct st_irq_msi *m, uint64_t address,
                     uint32_t data);

#endif
