/* SPDX-License-Identifier: MIT
 *
 * KVM; see kvm.h.
 */
#include "kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    KVM_VERSION = 12,
    IDENTITY = 0xfffbc000,
    MSRS_MAX = 4096,
    CPUID_TSC_DEADLINE = 1 << 24, /* leaf 1, ECX */
};

int
st_kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int rc;

    do
        rc = ioctl(fd, request, arg);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

static int
kvm_has(const struct st_kvm *k, long cap)
{
    int rc = ioctl(k->fd, KVM_CHECK_EXTENSION, cap);

    return rc > 0 ? rc : 0;
}

static int
kvm_capabilities(struct st_kvm *k, const char *path, unsigned n,
                 struct st_err *err)
{
    static const struct {
        long cap;
        const char *name;
    } needed[] = {
        {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
        {KVM_CAP_PIT2, "KVM_CAP_PIT2"},
        {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
        {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
        {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
        {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
        {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    };
    int version = ioctl(k->fd, KVM_GET_API_VERSION, 0);

    if (version < 0)
        return st_err_set(err, ENOTSUP, "%s is no KVM; " ST_KVM_ELSE, path);
    if (version != KVM_VERSION)
        return st_err_set(
            err, ENOTSUP,
            "%s has KVM's interface %d, expected %d; " ST_KVM_ELSE, path,
            version, KVM_VERSION);
    for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (!kvm_has(k, needed[i].cap))
            return st_err_set(err, ENOTSUP, "%s lacks %s; " ST_KVM_ELSE, path,
                              needed[i].name);
    k->vcpus = (unsigned)kvm_has(k, KVM_CAP_MAX_VCPUS);
    if (n > k->vcpus)
        return st_err_set(err, ENOTSUP, "%s runs at most %u vCPUs, not %u",
                          path, k->vcpus, n);
    k->routes = (unsigned)kvm_has(k, KVM_CAP_IRQ_ROUTING);
    k->ioeventfd = kvm_has(k, KVM_CAP_IOEVENTFD);
    k->run_size = (size_t)ioctl(k->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    return 0;
}

static int
kvm_lists(struct st_kvm *k)
{
    struct kvm_msr_list probe = {0};
    int rc;

    k->cpuid = calloc(1, sizeof(*k->cpuid) +
                             ST_KVM_CPUID_MAX * sizeof(k->cpuid->entries[0]));
    if (!k->cpuid)
        return -ENOMEM;
    k->cpuid->nent = ST_KVM_CPUID_MAX;
    rc = st_kvm_ioctl(k->fd, KVM_GET_SUPPORTED_CPUID, k->cpuid);
    if (rc < 0)
        return rc;
    /* KVM does not say so, but has it with its own local APIC. */
    if (kvm_has(k, KVM_CAP_TSC_DEADLINE_TIMER))
        for (unsigned i = 0; i < k->cpuid->nent; i++)
            if (k->cpuid->entries[i].function == 1)
                k->cpuid->entries[i].ecx |= CPUID_TSC_DEADLINE;
    rc = st_kvm_ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, &probe);
    if (rc < 0 && rc != -E2BIG)
        return rc;
    if (probe.nmsrs > MSRS_MAX)
        return -E2BIG;
    k->msrs =
        calloc(1, sizeof(*k->msrs) + probe.nmsrs * sizeof(k->msrs->indices[0]));
    if (!k->msrs)
        return -ENOMEM;
    k->msrs->nmsrs = probe.nmsrs;
    return st_kvm_ioctl(k->fd, KVM_GET_MSR_INDEX_LIST, k->msrs);
}

static int
kvm_machine(struct st_kvm *k)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    __u64 identity = IDENTITY;
    int rc = st_kvm_ioctl(k->fd, KVM_CREATE_VM, NULL);

    if (rc < 0)
        return rc;
    k->vm = rc;
    /* Where it is not needed, it is not known. */
    ioctl(k->vm, KVM_SET_TSS_ADDR, (unsigned long)ST_KVM_TSS);
    ioctl(k->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    rc = st_kvm_ioctl(k->vm, KVM_CREATE_IRQCHIP, NULL);
    return rc < 0 ? rc : st_kvm_ioctl(k->vm, KVM_CREATE_PIT2, &pit);
}

int
st_kvm_open(const char *path, unsigned n, struct st_kvm *k, struct st_err *err)
{
    int rc;

    *k = (struct st_kvm){.fd = -1, .vm = -1};
    k->fd = open(path, O_RDWR | O_CLOEXEC);
    if (k->fd < 0)
        return st_err_set(err, ENOTSUP, "%s: %s; " ST_KVM_ELSE, path,
                          st_strerror(-errno));
    rc = kvm_capabilities(k, path, n, err);
    if (rc < 0)
        return rc;
    rc = kvm_lists(k);
    if (rc < 0)
        return st_err_set(err, -rc, "%s: %s", path, st_strerror(rc));
    rc = kvm_machine(k);
    if (rc < 0)
        return st_err_set(err, -rc, "%s makes no machine: %s", path,
                          st_strerror(rc));
    return 0;
}

void
st_kvm_close(struct st_kvm *k)
{
    if (k->vm >= 0)
        close(k->vm);
    if (k->fd >= 0)
        close(k->fd);
    free(k->cpuid);
    free(k->msrs);
    *k = (struct st_kvm){.fd = -1, .vm = -1};
}

int
st_kvm_set_long_mode(int vcpu, const struct st_kvm_long_mode *m)
{
    struct kvm_regs regs = {
        .rip = m->rip, .rsp = m->rsp, .rsi = m->rsi, .rflags = 2};
    struct kvm_segment code = {.limit = UINT32_MAX,
                               .selector = 2 * 8,
                               .type = 11,
                               .present = 1,
                               .s = 1,
                               .l = 1,
                               .g = 1};
    struct kvm_segment data = {.limit = UINT32_MAX,
                               .selector = 3 * 8,
                               .type = 3,
                               .present = 1,
                               .s = 1,
                               .db = 1,
                               .g = 1};
    struct kvm_sregs s;
    int rc = st_kvm_ioctl(vcpu, KVM_GET_SREGS, &s);

    if (rc < 0)
        return rc;
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.gdt.base = m->gdt;
    s.gdt.limit = m->gdt_limit;
    s.idt.base = s.idt.limit = 0;
    s.cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
    s.cr3 = m->cr3;
    s.cr4 = 0x20;   /* PAE */
    s.efer = 0x500; /* LMA LME */
    rc = st_kvm_ioctl(vcpu, KVM_SET_SREGS, &s);
    return rc < 0 ? rc : st_kvm_ioctl(vcpu, KVM_SET_REGS, &regs);
}
