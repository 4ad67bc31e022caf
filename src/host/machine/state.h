/* SPDX-License-Identifier: MIT
 *
 * What KVM keeps of a machine: the registers of a vCPU, the interrupt
 * controllers, the timer (private to the room). Taken at power-on, it is what a
 * reset puts back.
 */
#ifndef ST_STATE_H
#define ST_STATE_H

#include "kvm.h"

enum { ST_STATE_CHIPS = 3 };

/* The interrupt controllers and the timer. */
struct st_chips_state {
    struct kvm_irqchip chip[ST_STATE_CHIPS]; /* PIC, PIC, IOAPIC */
    struct kvm_pit_state2 pit;
};

/* A vCPU. */
struct st_vcpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_xsave *xsave; /* owned */
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    unsigned nmsrs;
    struct kvm_msr_entry *msr; /* owned */
};

/* The vCPU of FD is parked: read all of it into S, zeroed. 0 or -errno;
 * st_vcpu_state_free in any case. */
int st_vcpu_state_get(const struct st_kvm *k, int fd, struct st_vcpu_state *s);

/* It is parked: make it so. Its time-stamp counter goes on as it is. 0 or
 * -errno. */
int st_vcpu_state_set(int fd, const struct st_vcpu_state *s);

/* Accepts zeroes. */
void st_vcpu_state_free(struct st_vcpu_state *s);

/* Set one model-specific register. 0 or -errno. */
int st_vcpu_set_msr(int fd, uint32_t index, uint64_t value);

/* All vCPUs are parked. 0 or -errno. */
int st_chips_state_get(const struct st_kvm *k, struct st_chips_state *s);
int st_chips_state_set(const struct st_kvm *k, const struct st_chips_state *s);

#endif
