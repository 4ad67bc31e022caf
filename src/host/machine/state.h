/* SPDX-License-Identifier: MIT
 *
 * What KVM keeps of a machine: the registers of a vCPU, the interrupt
 * controllers, the timer (private to the room). Taken at power-on, it is what a
 * reset puts back; taken later, it is saved. KVM's own structures are saved as
 * they are: they are its interface, and do not change.
 */
#ifndef ST_STATE_H
#define ST_STATE_H

#include "kvm.h"
#include "pack.h"

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
    uint32_t xsave_len;      /* bytes: as many as KVM has on this host */
    struct kvm_xcrs xcrs;
    struct kvm_debugregs debugregs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct kvm_mp_state mp;
    unsigned nmsrs;
    struct kvm_msr_entry *msr; /* owned */
    uint64_t tsc, tsc_adjust;  /* not among them: a reset leaves them alone */
};

/* The vCPU of FD is parked: read all of it into S, zeroed. 0 or -errno;
 * st_vcpu_state_free in any case. */
int st_vcpu_state_get(const struct st_kvm *k, int fd, struct st_vcpu_state *s);

/* It is parked: make it so. Its time-stamp counter goes on as it is. 0 or
 * -errno. */
int st_vcpu_state_set(int fd, const struct st_vcpu_state *s);

/* Its time-stamp counter goes on from where S was: before st_vcpu_state_set, by
 * which its timer is armed. 0 or -errno. */
int st_vcpu_state_set_tsc(int fd, const struct st_vcpu_state *s);

/* Does it run a guest of its own, whose state is KVM's and not saved? */
bool st_vcpu_is_nested(const struct st_kvm *k, int fd);

/* What is saved of STATE, a struct st_vcpu_state (saved.h), version 1. One that
 * is read is zeroed before; st_vcpu_state_free in any case. */
void st_vcpu_state_walk(struct st_pack *k, void *state);

/* Accepts zeroes. */
void st_vcpu_state_free(struct st_vcpu_state *s);

/* Set one model-specific register. 0 or -errno. */
int st_vcpu_set_msr(int fd, uint32_t index, uint64_t value);

/* All vCPUs are parked. 0 or -errno. */
int st_chips_state_get(const struct st_kvm *k, struct st_chips_state *s);
int st_chips_state_set(const struct st_kvm *k, const struct st_chips_state *s);

/* KVM's clock, which guests read without an exit, in ns. 0 or -errno. */
int st_clock_get(const struct st_kvm *k, uint64_t *ns);
int st_clock_set(const struct st_kvm *k, uint64_t ns);

/* What is saved of CHIPS, a struct st_chips_state, version 1. */
void st_chips_state_walk(struct st_pack *k, void *chips);

#endif
