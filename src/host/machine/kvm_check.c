/* SPDX-License-Identifier: MIT
 *
 * Can this KVM run a stock kernel?
 *
 * What is behind /dev/kvm shows in no capability: hardware (SVM, VMX), or
 * software that runs only kernels made for it, whose privileged instructions
 * fault or tell lies. So a guest of one page runs here, in 64-bit mode without
 * interrupt handlers: it does what every kernel does in its first microseconds,
 * and tells what it saw by writes to a port. Where that is not what a CPU
 * gives, or a fault ends it, a kernel would not get far either.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm.h"

enum {
    CHECK_SIZE = 2 << 20,
    CODE = 0x1000,
    STACK = 0x8000,
    TABLES = 0x9000, /* the third page maps 2 MiB by an entry */
    GDT = 0x500,
    GDT_LIMIT = 4 * 8 - 1,
    PORT = 0x80,
    STAR = 0x1234,
    EXITS_MAX = 100,
};

/* Each line sees one thing; the answers are in `expected`. */
__asm__(".pushsection .rodata\n"
        "st_kvm_check_code:\n"
        /* What the mode is. */
        "  mov %cs, %eax; and $3, %eax; out %eax, $0x80\n"
        "  mov %cr0, %rax; and $0x80000001, %eax; out %eax, $0x80\n"
        "  mov %cr4, %rax; and $0x20, %eax; out %eax, $0x80\n"
        "  mov $0xc0000080, %ecx; rdmsr; and $0x500, %eax; out %eax, $0x80\n"
        /* Interrupts on and off. */
        "  sti; pushfq; cli; pop %rax; and $0x200, %eax; out %eax, $0x80\n"
        "  pushq $0x202; popfq; pushfq; cli; pop %rax; and $0x200, %eax\n"
        "  out %eax, $0x80\n"
        /* Tables and segments. */
        "  sgdt -16(%rsp); movzwl -16(%rsp), %eax; out %eax, $0x80\n"
        "  mov $0xc0000101, %ecx; mov $0x1234, %eax; xor %edx, %edx; wrmsr\n"
        "  swapgs; rdmsr; out %eax, $0x80; swapgs; rdmsr; out %eax, $0x80\n"
        /* SYSCALL's target. */
        "  mov $0xc0000082, %ecx; mov $0x1234, %eax; wrmsr; xor %eax, %eax\n"
        "  rdmsr; out %eax, $0x80\n"
        /* Paging: a page is mapped somewhere else. */
        "  mov $0xb008, %rdi; movq $0x83, (%rdi); mov %cr3, %rax\n"
        "  mov %rax, %cr3; invlpg 0x200000; mov 0x201000, %eax\n"
        "  and $0xffff, %eax; out %eax, $0x80\n"
        /* Floating point and vectors. */
        "  mov %cr4, %rax; or $0x600, %eax; mov %rax, %cr4\n"
        "  clts; fninit; movq %rsp, %xmm0; paddq %xmm0, %xmm0\n"
        "  movq %xmm0, %rax; out %eax, $0x80\n"
        "  hlt\n"
        "st_kvm_check_end: .popsection\n");

extern const uint8_t st_kvm_check_code[], st_kvm_check_end[];

static const uint32_t expected[] = {
    0,         0x80000001, 0x20, 0x500, 0x200,  0x200,
    GDT_LIMIT, 0,          STAR, STAR,  0xc88c, 2 * STACK,
};

enum { ANSWERS = sizeof(expected) / sizeof(expected[0]) };

/* The guest's page, and where its tables lead. */
static void
fill(uint8_t *m)
{
    const uint64_t gdt[] = {0, 0, ST_KVM_GDT_CODE, ST_KVM_GDT_DATA};
    const uint64_t top = (TABLES + 0x1000) | 3, next = (TABLES + 0x2000) | 3;
    const uint64_t page = 0x83;

    memcpy(m + CODE, st_kvm_check_code,
           (size_t)(st_kvm_check_end - st_kvm_check_code));
    memcpy(m + GDT, gdt, sizeof(gdt));
    memcpy(m + TABLES, &top, sizeof(top));
    memcpy(m + TABLES + 0x1000, &next, sizeof(next));
    memcpy(m + TABLES + 0x2000, &page, sizeof(page));
}

/* Run it: true when it saw what a CPU gives. */
static bool
answers(int fd, struct kvm_run *run)
{
    unsigned n = 0;

    for (unsigned i = 0; i < EXITS_MAX; i++) {
        uint32_t value;

        if (st_kvm_ioctl(fd, KVM_RUN, NULL) < 0)
            return false;
        if (run->exit_reason == KVM_EXIT_HLT)
            return n == ANSWERS;
        if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT ||
            run->io.size != sizeof(value) || n == ANSWERS)
            return false;
        memcpy(&value, (uint8_t *)run + run->io.data_offset, sizeof(value));
        if (value != expected[n++])
            return false;
    }
    return false;
}

/* 0, -ENOTSUP: it saw something else; or -errno of what came before. */
static int
check_in(const struct st_kvm *k, int vm, uint8_t *memory)
{
    struct kvm_userspace_memory_region m = {.memory_size = CHECK_SIZE,
                                            .userspace_addr =
                                                (uint64_t)(uintptr_t)memory};
    const struct st_kvm_long_mode mode = {.rip = CODE,
                                          .rsp = STACK,
                                          .cr3 = TABLES,
                                          .gdt = GDT,
                                          .gdt_limit = GDT_LIMIT};
    void *run = MAP_FAILED;
    int fd, rc;

    fill(memory);
    rc = st_kvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &m);
    if (rc < 0)
        return rc;
    fd = st_kvm_ioctl(vm, KVM_CREATE_VCPU, NULL);
    if (fd < 0)
        return fd;
    rc = st_kvm_ioctl(fd, KVM_SET_CPUID2, k->cpuid);
    if (rc == 0)
        rc = st_kvm_set_long_mode(fd, &mode);
    if (rc == 0)
        run =
            mmap(NULL, k->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run != MAP_FAILED) {
        rc = answers(fd, run) ? 0 : -ENOTSUP;
        munmap(run, k->run_size);
    } else if (rc == 0) {
        rc = -errno;
    }
    close(fd);
    return rc;
}

int
st_kvm_check(const struct st_kvm *k, struct st_err *err)
{
    int vm = st_kvm_ioctl(k->fd, KVM_CREATE_VM, NULL), rc = vm;
    void *memory;

    if (vm >= 0) {
        /* Where it is not needed, it is not known. */
        ioctl(vm, KVM_SET_TSS_ADDR, (unsigned long)ST_KVM_TSS);
        memory = mmap(NULL, CHECK_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        rc = memory == MAP_FAILED ? -errno : check_in(k, vm, memory);
        if (memory != MAP_FAILED)
            munmap(memory, CHECK_SIZE);
        close(vm);
    }
    if (rc == -ENOTSUP)
        return st_err_set(
            err, ENOTSUP,
            "no hardware is behind it that runs a stock kernel; " ST_KVM_ELSE);
    return rc < 0 ? st_err_set(err, -rc, "%s", st_strerror(rc)) : 0;
}
