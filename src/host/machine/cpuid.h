/* SPDX-License-Identifier: MIT
 *
 * The CPU that a guest sees: what KVM supports of the host's, with the guest's
 * own topology, less what the user switches off (private to the room).
 */
#ifndef ST_CPUID_H
#define ST_CPUID_H

#include "kvm.h"

/* How it differs from the host's. */
struct st_cpuid_opts {
    bool noxsave; /* no XSAVE, nor what needs it: AVX and later. For a host that
                   * is a guest itself, of a monitor that gets XSAVE wrong. */
};

/* Make FROM, what KVM supports, that of vCPU ID of N, in place. */
void st_cpuid_shape(struct kvm_cpuid2 *from, const struct st_cpuid_opts *o,
                    unsigned id, unsigned n);

/* What KVM supports (k->cpuid) becomes what it did for a machine that is
 * restored: N entries at E, which this host's CPU can be. 0, or -EINVAL with a
 * sentence: it cannot. */
int st_cpuid_adopt(struct st_kvm *k, const struct kvm_cpuid_entry2 *e,
                   unsigned n, struct st_err *err);

/* Give it to the vCPU of FD. 0 or -errno. */
int st_cpuid_set(const struct st_kvm *k, int fd, const struct st_cpuid_opts *o,
                 unsigned id, unsigned n);

#endif
