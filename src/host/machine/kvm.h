/* SPDX-License-Identifier: MIT
 *
 * KVM: /dev/kvm and one virtual machine of it (Linux, Documentation/virt/kvm/
 * api.rst; private to the room).
 *
 * The interrupt controllers and the timer of a PC are the kernel's: two PICs,
 * an IOAPIC, a local APIC for each vCPU, and the PIT with port 0x61.
 */
#ifndef ST_KVM_H
#define ST_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "err.h"

enum {
    ST_KVM_CPUID_MAX = 256, /* entries */
    ST_KVM_VCPUS_MAX = 64,
};

/* A virtual machine; shared by the files of the room. */
struct st_kvm {
    int fd, vm;                /* owned; or -1 */
    size_t run_size;           /* of a vCPU's struct kvm_run */
    unsigned vcpus, routes;    /* at most so many */
    bool ioeventfd;            /* writes may become eventfds */
    struct kvm_cpuid2 *cpuid;  /* owned: what it supports */
    struct kvm_msr_list *msrs; /* owned: what there is to be saved */
};

/* How sentences end that say that it is of no use. */
#define ST_KVM_ELSE                                                            \
    "to give the same disks to a guest of QEMU, use 'strata serve'"

enum { ST_KVM_TSS = 0xfffbd000 }; /* 3 pages that Intel's real mode needs */

/* Open PATH, "/dev/kvm", and make a machine of N vCPUs at most: without memory
 * or vCPUs. 0, or -errno with a sentence: -ENOTSUP: it is not there, not ours,
 * or lacks what we need. */
int st_kvm_open(const char *path, unsigned n, struct st_kvm *k,
                struct st_err *err);

/* Accepts what failed to open. */
void st_kvm_close(struct st_kvm *k);

/* Run a few instructions in a machine of their own, as a stock kernel does at
 * its start: 0, or -ENOTSUP with a sentence. */
int st_kvm_check(const struct st_kvm *k, struct st_err *err);

/* Registers of a vCPU in 64-bit mode: flat segments, interrupts off. The GDT
 * holds nothing twice, then code and data. */
struct st_kvm_long_mode {
    uint64_t rip, rsp, rsi, cr3, gdt;
    uint16_t gdt_limit;
};
#define ST_KVM_GDT_CODE UINT64_C(0x00af9b000000ffff)
#define ST_KVM_GDT_DATA UINT64_C(0x00cf93000000ffff)

/* 0 or -errno. */
int st_kvm_set_long_mode(int vcpu, const struct st_kvm_long_mode *m);

/* ioctl, again when a signal interrupted it: what it gives, or -errno. */
int st_kvm_ioctl(int fd, unsigned long request, void *arg);

#endif
