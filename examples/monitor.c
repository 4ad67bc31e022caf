/* SPDX-License-Identifier: MIT
 *
 * A monitor of one's own with parts of Strata's machine (guide,
 * embedding-machine): RAM, a vCPU and its loop are here, what is behind a port
 * is theirs. The guest is a few instructions that say a line on the serial port
 * and switch off.
 *
 *   usage: monitor      status 77: no /dev/kvm that we may use
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pm.h"
#include "pvpanic.h"
#include "serial.h"
#include "space.h"

enum { RAM = 64 << 10, ENTRY = 0x1000, EXITS_MAX = 10000 };

/* Real mode, at ENTRY. */
static const char guest[] =
    "\xfa\xbe\x18\x10"         /* cli; mov si, text */
    "\xba\xf8\x03"             /* mov dx, 0x3f8 */
    "\xac\x84\xc0\x74\x03\xee" /* next: lodsb; test al, al; jz off; out dx */
    "\xeb\xf8"                 /* jmp next */
    "\xba\x04\x06\xb8\x00\x34" /* off: mov dx, 0x604; mov ax, 0x3400 */
    "\xef\xf4\xcc"             /* out dx, ax; hlt; int3 */
    "A guest of borrowed parts.\n";

struct monitor {
    int kvm, vm, vcpu;
    struct kvm_run *run;
    struct st_space *ports;
    struct st_serial *serial;
    struct st_pm *pm;
    struct st_pvpanic *pvpanic;
    bool over; /* the guest has switched off, or wants a reset */
};

/* ---- What the parts ask of us: on the vCPU's thread, nothing may wait ---- */

static void
line(void *arg, bool level)
{
    (void)arg; /* KVM_IRQ_LINE, where there is an interrupt controller */
    (void)level;
}

static bool
send(void *arg, uint8_t byte)
{
    (void)arg;
    putchar(byte);
    return true;
}

static void
over(void *arg)
{
    ((struct monitor *)arg)->over = true;
}

static uint64_t
now_ns(void *arg)
{
    struct timespec t;

    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void
panicked(void *arg, bool goes_on)
{
    (void)arg;
    fprintf(stderr, "the guest has panicked%s\n",
            goes_on ? ", its crash kernel goes on" : "");
}

static const struct st_serial_ops serial_ops = {.line = line, .send = send};
static const struct st_pm_ops pm_ops = {
    .line = line, .power_off = over, .reset = over, .now_ns = now_ns};
static const struct st_pvpanic_ops pvpanic_ops = {.panicked = panicked};

/* The space first, then who is in it, in any order. */
static bool
add_parts(struct monitor *m)
{
    return st_space_create(0x10000, &m->ports) == 0 &&
           st_serial_create(m->ports, ST_SERIAL_COM1, &serial_ops, m,
                            &m->serial) == 0 &&
           st_pm_create(m->ports, &pm_ops, m, &m->pm) == 0 &&
           st_pvpanic_create(m->ports, &pvpanic_ops, m, &m->pvpanic) == 0;
}

/* The other way round; each accepts NULL. No vCPU runs any more. */
static void
remove_parts(struct monitor *m)
{
    st_pvpanic_destroy(m->pvpanic);
    st_pm_destroy(m->pm);
    st_serial_destroy(m->serial);
    st_space_destroy(m->ports);
}

/* ---- KVM, which is ours ---- */

static bool
make_machine(struct monitor *m)
{
    void *ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region r = {
        .memory_size = RAM, .userspace_addr = (uint64_t)(uintptr_t)ram};
    struct kvm_regs regs = {.rip = ENTRY, .rflags = 2};
    struct kvm_sregs s;
    int size;

    if (ram == MAP_FAILED)
        return false;
    memcpy((char *)ram + ENTRY, guest, sizeof(guest));
    m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
    ioctl(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000); /* Intel's wants it */
    if (m->vm < 0 || ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r) < 0)
        return false;
    m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
    if (m->vcpu < 0 || ioctl(m->vcpu, KVM_GET_SREGS, &s) < 0)
        return false;
    s.cs.base = s.cs.selector = 0;
    size = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    m->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
                  m->vcpu, 0);
    return m->run != MAP_FAILED && ioctl(m->vcpu, KVM_SET_SREGS, &s) == 0 &&
           ioctl(m->vcpu, KVM_SET_REGS, &regs) == 0;
}

/* Ports that the guest has accessed: whose they are, the space knows. These
 * parts answer at once; a disk's controller may not (st_access.done). */
static void
handle_io(struct monitor *m)
{
    struct kvm_run *run = m->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (unsigned i = 0; i < run->io.count; i++, data += run->io.size) {
        struct st_access a = {.offset = run->io.port,
                              .len = run->io.size,
                              .write = run->io.direction == KVM_EXIT_IO_OUT};

        if (a.write)
            memcpy(&a.value, data, a.len);
        st_space_access(m->ports, &a);
        if (!a.write)
            memcpy(data, &a.value, a.len);
    }
}

/* 0: the guest has switched off. */
static int
run_guest(struct monitor *m)
{
    for (unsigned i = 0; !m->over && i < EXITS_MAX; i++) {
        if (ioctl(m->vcpu, KVM_RUN, 0) < 0)
            break;
        if (m->run->exit_reason != KVM_EXIT_IO)
            break;
        handle_io(m);
    }
    return !m->over;
}

int
main(void)
{
    struct monitor m = {.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC)};
    int status = 1;

    if (m.kvm < 0) {
        puts("skip: no /dev/kvm that we may use");
        return 77;
    }
    if (add_parts(&m) && make_machine(&m))
        status = run_guest(&m);
    remove_parts(&m);
    return status;
}
