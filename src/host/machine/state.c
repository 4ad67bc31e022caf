/* SPDX-License-Identifier: MIT
 *
 * KVM's part of a machine's state; see state.h.
 */
#include "state.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "mem.h"

enum { MSR_TSC = 0x10, MSR_TSC_ADJUST = 0x3b };
enum { XSAVE_MIN = 4096, XSAVE_MAX = 1 << 20, MSRS_MAX = 4096 };

/* A struct kvm_msrs of one register; ioctl says how many it did. */
struct one_msr {
    uint32_t nmsrs, pad;
    struct kvm_msr_entry entry;
};
static_assert(offsetof(struct one_msr, entry) ==
                  offsetof(struct kvm_msrs, entries),
              "struct kvm_msrs");

static int
msr_do(int fd, unsigned long request, struct kvm_msr_entry *e)
{
    struct one_msr m = {.nmsrs = 1, .entry = *e};
    int rc = st_kvm_ioctl(fd, request, &m);

    *e = m.entry;
    return rc < 0 ? rc : rc == 1 ? 0 : -ENOENT;
}

int
st_vcpu_set_msr(int fd, uint32_t index, uint64_t value)
{
    struct kvm_msr_entry e = {.index = index, .data = value};

    return msr_do(fd, KVM_SET_MSRS, &e);
}

/* What is listed need not be there: it depends on what CPUID shows. */
static int
msrs_get(const struct st_kvm *k, int fd, struct st_vcpu_state *s)
{
    s->msr = calloc(k->msrs->nmsrs + 1, sizeof(*s->msr));
    if (!s->msr)
        return -ENOMEM;
    for (unsigned i = 0; i < k->msrs->nmsrs; i++) {
        struct kvm_msr_entry e = {.index = k->msrs->indices[i]};

        if (msr_do(fd, KVM_GET_MSRS, &e) < 0)
            continue;
        if (e.index == MSR_TSC)
            s->tsc = e.data;
        else if (e.index == MSR_TSC_ADJUST)
            s->tsc_adjust = e.data;
        else
            s->msr[s->nmsrs++] = e;
    }
    return 0;
}

int
st_vcpu_state_get(const struct st_kvm *k, int fd, struct st_vcpu_state *s)
{
    int size = ioctl(k->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    int rc;

    s->xsave_len = size > XSAVE_MIN ? (uint32_t)size : XSAVE_MIN;
    s->xsave = calloc(1, s->xsave_len);
    if (!s->xsave)
        return -ENOMEM;
    rc = st_kvm_ioctl(fd, KVM_GET_MP_STATE, &s->mp);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_GET_REGS, &s->regs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_GET_SREGS, &s->sregs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, size > 0 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
                          s->xsave);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_GET_XCRS, &s->xcrs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_GET_DEBUGREGS, &s->debugregs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_GET_LAPIC, &s->lapic);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &s->events);
    return rc < 0 ? rc : msrs_get(k, fd, s);
}

/* The order matters: EFER and the APIC's base before what depends on them, the
 * APIC before its timer's MSR, and what runs last. */
int
st_vcpu_state_set(int fd, const struct st_vcpu_state *s)
{
    struct st_vcpu_state c = *s; /* ioctl takes no const */
    int rc = st_kvm_ioctl(fd, KVM_SET_SREGS, &c.sregs);

    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_SET_REGS, &c.regs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_SET_XSAVE, c.xsave);
    if (rc == 0 && c.xcrs.nr_xcrs)
        rc = st_kvm_ioctl(fd, KVM_SET_XCRS, &c.xcrs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_SET_DEBUGREGS, &c.debugregs);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_SET_LAPIC, &c.lapic);
    /* Read-only ones refuse, and are what they were. */
    for (unsigned i = 0; rc == 0 && i < c.nmsrs; i++)
        msr_do(fd, KVM_SET_MSRS, &c.msr[i]);
    if (rc == 0)
        rc = st_kvm_ioctl(fd, KVM_SET_VCPU_EVENTS, &c.events);
    return rc < 0 ? rc : st_kvm_ioctl(fd, KVM_SET_MP_STATE, &c.mp);
}

int
st_vcpu_state_set_tsc(int fd, const struct st_vcpu_state *s)
{
    int rc = st_vcpu_set_msr(fd, MSR_TSC, s->tsc);

    st_vcpu_set_msr(fd, MSR_TSC_ADJUST, s->tsc_adjust); /* if it has it */
    return rc;
}

bool
st_vcpu_is_nested(const struct st_kvm *k, int fd)
{
    int size = ioctl(k->fd, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE);
    st_autofree struct kvm_nested_state *n =
        size > 0 ? calloc(1, (size_t)size) : NULL;

    if (!n)
        return false;
    n->size = (uint32_t)size;
    if (st_kvm_ioctl(fd, KVM_GET_NESTED_STATE, n) < 0)
        return false;
    if (n->flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING))
        return true;
    return n->format == KVM_STATE_NESTED_FORMAT_SVM
               ? !(n->flags & KVM_STATE_NESTED_GIF_SET)
               : n->hdr.vmx.vmxon_pa != UINT64_MAX;
}

static void
walk_msrs(struct st_pack *k, struct st_vcpu_state *s)
{
    uint32_t n = s->nmsrs;

    st_pack_count(k, &n, MSRS_MAX);
    s->nmsrs = n;
    if (k->reading) {
        s->msr = calloc(n + 1, sizeof(*s->msr));
        k->bad |= !s->msr;
    }
    for (uint32_t i = 0; s->msr && i < n; i++) {
        uint32_t index = s->msr[i].index;
        uint64_t data = s->msr[i].data;

        st_pack_u32(k, &index);
        st_pack_u64(k, &data);
        s->msr[i].index = index;
        s->msr[i].data = data;
    }
}

void
st_vcpu_state_walk(struct st_pack *k, void *state)
{
    struct st_vcpu_state *s = state;

    st_pack_bytes(k, &s->regs, sizeof(s->regs));
    st_pack_bytes(k, &s->sregs, sizeof(s->sregs));
    st_pack_count(k, &s->xsave_len, XSAVE_MAX);
    if (k->reading) {
        s->xsave = calloc(1, s->xsave_len + 1u);
        k->bad |= !s->xsave;
    }
    if (s->xsave)
        st_pack_bytes(k, s->xsave, s->xsave_len);
    st_pack_bytes(k, &s->xcrs, sizeof(s->xcrs));
    st_pack_bytes(k, &s->debugregs, sizeof(s->debugregs));
    st_pack_bytes(k, &s->lapic, sizeof(s->lapic));
    st_pack_bytes(k, &s->events, sizeof(s->events));
    st_pack_bytes(k, &s->mp, sizeof(s->mp));
    st_pack_u64(k, &s->tsc);
    st_pack_u64(k, &s->tsc_adjust);
    walk_msrs(k, s);
}

void
st_vcpu_state_free(struct st_vcpu_state *s)
{
    free(s->xsave);
    free(s->msr);
    *s = (struct st_vcpu_state){0};
}

int
st_chips_state_get(const struct st_kvm *k, struct st_chips_state *s)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < ST_STATE_CHIPS; i++) {
        s->chip[i].chip_id = i;
        rc = st_kvm_ioctl(k->vm, KVM_GET_IRQCHIP, &s->chip[i]);
    }
    return rc < 0 ? rc : st_kvm_ioctl(k->vm, KVM_GET_PIT2, &s->pit);
}

int
st_chips_state_set(const struct st_kvm *k, const struct st_chips_state *s)
{
    struct st_chips_state c = *s;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < ST_STATE_CHIPS; i++)
        rc = st_kvm_ioctl(k->vm, KVM_SET_IRQCHIP, &c.chip[i]);
    return rc < 0 ? rc : st_kvm_ioctl(k->vm, KVM_SET_PIT2, &c.pit);
}

int
st_clock_get(const struct st_kvm *k, uint64_t *ns)
{
    struct kvm_clock_data c = {0};
    int rc = st_kvm_ioctl(k->vm, KVM_GET_CLOCK, &c);

    *ns = c.clock;
    return rc;
}

int
st_clock_set(const struct st_kvm *k, uint64_t ns)
{
    struct kvm_clock_data c = {.clock = ns};

    return st_kvm_ioctl(k->vm, KVM_SET_CLOCK, &c);
}

void
st_chips_state_walk(struct st_pack *k, void *chips)
{
    struct st_chips_state *s = chips;

    st_pack_bytes(k, s->chip, sizeof(s->chip));
    st_pack_bytes(k, &s->pit, sizeof(s->pit));
}
