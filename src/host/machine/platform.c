/* SPDX-License-Identifier: MIT
 *
 * The board, and what it boots; see platform.h.
 */
#include "platform.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "machine_private.h"
#include "mem.h"
#include "wire.h"

enum { BIOS_MIN = 64 << 10, BIOS_MAX = 8 << 20 };
enum { MTRR_DEFAULT = 0x2ff, MTRR_WRITE_BACK = 0xc06 };

/* ---- Serial ports ---- */

static void
serial_line(void *arg, bool level)
{
    struct st_platform_serial *s = arg;

    st_irq_line(&s->machine->irq, s->irq, level);
}

static bool
serial_send(void *arg, uint8_t byte)
{
    struct st_platform_serial *s = arg;

    return !s->console || st_console_send(s->console, byte);
}

static void
serial_room(void *arg)
{
    struct st_platform_serial *s = arg;

    if (s->console)
        st_console_room(s->console);
}

static const struct st_serial_ops serial_ops = {
    .line = serial_line, .send = serial_send, .room = serial_room};

static int
make_serials(struct st_platform *p)
{
    static const struct {
        uint16_t base;
        unsigned irq;
    } at[] = {{ST_SERIAL_COM1, ST_SERIAL_COM1_IRQ}, {0x2f8, 3}};
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < ST_MACHINE_SERIALS; i++) {
        struct st_platform_serial *s = &p->serial[i];

        s->machine = p->machine;
        s->console = p->machine->opts.serial[i];
        s->irq = at[i].irq;
        if (i > 0 && !s->console)
            continue; /* COM1 is always there */
        rc = st_serial_create(p->machine->ports, at[i].base, &serial_ops, s,
                              &s->serial);
        if (rc == 0 && s->console)
            st_console_attach(s->console, s->serial);
    }
    return rc;
}

/* ---- What is booted ---- */

static int
open_file(const char *path, int *fd, char **name, struct st_err *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return st_err_set(err, errno, "'%s': %s", path,
                          st_strerror_open(path, false, -errno));
    *name = strdup(path);
    return *name ? 0 : st_err_set(err, ENOMEM, "no memory");
}

static int
open_files(struct st_platform *p, struct st_err *err)
{
    const struct st_machine_opts *o = &p->machine->opts;
    int rc = 0;

    p->cmdline = strdup(o->cmdline ? o->cmdline : "");
    if (!p->cmdline)
        return st_err_set(err, ENOMEM, "no memory");
    if (o->kernel)
        rc = open_file(o->kernel, &p->kernel, &p->kernel_name, err);
    if (rc == 0 && o->initrd)
        rc = open_file(o->initrd, &p->initrd, &p->initrd_name, err);
    return rc;
}

static struct kvm_segment
segment(const struct st_boot_segment *s)
{
    return (struct kvm_segment){.limit = UINT32_MAX,
                                .selector = s->selector,
                                .type = s->type,
                                .present = 1,
                                .s = 1,
                                .l = s->long_mode,
                                .db = s->big,
                                .g = 1};
}

static int
set_registers(int fd, const struct st_boot_regs *b)
{
    struct kvm_regs regs = {
        .rip = b->rip, .rsp = b->rsp, .rsi = b->rsi, .rflags = b->rflags};
    struct kvm_sregs s;
    int rc = st_kvm_ioctl(fd, KVM_GET_SREGS, &s);

    if (rc < 0)
        return rc;
    s.cs = segment(&b->code);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(&b->data);
    s.gdt.base = b->gdt_base;
    s.gdt.limit = b->gdt_limit;
    s.idt.base = s.idt.limit = 0;
    s.cr0 = b->cr0;
    s.cr3 = b->cr3;
    s.cr4 = b->cr4;
    s.efer = b->efer;
    rc = st_kvm_ioctl(fd, KVM_SET_SREGS, &s);
    return rc < 0 ? rc : st_kvm_ioctl(fd, KVM_SET_REGS, &regs);
}

static unsigned
guest_ram(const struct st_machine_ram *r,
          struct st_guest_ram ram[static ST_MACHINE_RAM_PARTS])
{
    for (unsigned i = 0; i < r->parts; i++)
        ram[i] = (struct st_guest_ram){.gpa = r->part[i].gpa,
                                       .len = r->part[i].len,
                                       .host = r->part[i].host};
    return r->parts;
}

/* What is booted, and the memory that it is written to. */
struct linux_boot {
    struct st_boot_file initrd;
    struct st_guest_ram ram[ST_MACHINE_RAM_PARTS];
    struct st_e820 e820[ST_E820_MAX];
    struct st_boot_linux what; /* borrows all of it */
};

static void
describe_linux(const struct st_platform *p, struct linux_boot *l)
{
    l->initrd = (struct st_boot_file){p->initrd, p->initrd_name};
    l->what = (struct st_boot_linux){
        .ram = l->ram,
        .nram = guest_ram(&p->machine->ram, l->ram),
        .e820 = l->e820,
        .kernel = {p->kernel, p->kernel_name},
        .initrd = p->initrd >= 0 ? &l->initrd : NULL,
        .cmdline = p->cmdline,
    };
    l->what.ne820 = st_e820(l->ram, l->what.nram, true, l->e820);
}

/* What is wrong with the files is said now, not when the guest starts. */
static int
check_linux(const struct st_platform *p, struct st_err *err)
{
    struct linux_boot l;

    describe_linux(p, &l);
    return st_boot_linux_check(&l.what, err);
}

static int
boot_linux(struct st_platform *p, struct st_err *err)
{
    struct st_machine *m = p->machine;
    struct linux_boot l;
    struct st_boot_regs regs;
    int rc;

    describe_linux(p, &l);
    rc = st_boot_linux(&l.what, &regs, err);
    if (rc < 0)
        return rc;
    st_acpi_place(
        &p->acpi, ST_MAP_BIOS,
        st_machine_ram_at(&m->ram, ST_MAP_BIOS, st_acpi_size(&p->acpi)));
    st_pci_bus_place_bars(p->bus, p->pci64);
    rc = set_registers(m->vcpus.vcpu[0].fd, &regs);
    /* What firmware would have done: all memory is cached. */
    for (unsigned i = 0; rc == 0 && i < m->vcpus.n; i++)
        st_vcpu_set_msr(m->vcpus.vcpu[i].fd, MTRR_DEFAULT, MTRR_WRITE_BACK);
    return rc < 0 ? st_err_set(err, -rc, "KVM takes no registers: %s",
                               st_strerror(rc))
                  : 0;
}

int
st_platform_boot(struct st_platform *p, struct st_err *err)
{
    /* Firmware is where the vCPUs' reset state leads. */
    if (p->machine->firmware)
        return 0;
    if (p->kernel < 0)
        return st_err_set(err, ENOTSUP,
                          "the machine was restored without its kernel");
    return boot_linux(p, err);
}

/* ---- Firmware ---- */

/* Read IMAGE, whole pages of at most ST_MACHINE_RAM_ROM_MAX, into the ROM. */
static int
load_bios(struct st_platform *p, const char *path, struct st_err *err)
{
    st_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    st_autofree uint8_t *image = NULL;
    struct stat sb;
    ssize_t n;

    if (fd < 0 || fstat(fd, &sb) < 0)
        return st_err_set(err, errno, "'%s': %s", path,
                          st_strerror_open(path, false, -errno));
    if (!S_ISREG(sb.st_mode) || sb.st_size < BIOS_MIN ||
        sb.st_size > BIOS_MAX || sb.st_size % BIOS_MIN)
        return st_err_set(err, EINVAL,
                          "'%s' is no firmware: expected a multiple of 64 KiB, "
                          "up to 8 MiB",
                          path);
    image = malloc((size_t)sb.st_size);
    if (!image)
        return st_err_set(err, ENOMEM, "no memory");
    n = pread(fd, image, (size_t)sb.st_size, 0);
    if (n != sb.st_size)
        return st_err_set(err, n < 0 ? errno : EIO, "'%s': %s", path,
                          n < 0 ? st_strerror(-errno) : "it was cut short");
    if (st_machine_ram_set_rom(&p->machine->ram, image, (uint64_t)n) < 0)
        return st_err_set(err, ENOMEM, "no memory");
    return 0;
}

/* It is in the file of a machine that is restored. */
static int
restore_bios(struct st_platform *p, struct st_err *err)
{
    const struct st_saved_section *rom =
        st_saved_find(p->machine->from, ST_PLATFORM_ROM);

    if (!rom || rom->len < BIOS_MIN || rom->len > BIOS_MAX ||
        rom->len % BIOS_MIN)
        return st_err_set(err, EINVAL, "the saved machine has no firmware");
    return st_machine_ram_set_rom(&p->machine->ram, rom->data, rom->len) < 0
               ? st_err_set(err, ENOMEM, "no memory")
               : 0;
}

static int
make_fw_cfg(struct st_platform *p, const struct st_guest_ram *ram, unsigned n)
{
    const le16 sercon = le16_of(ST_SERIAL_COM1);
    int rc = st_fw_cfg_create(p->machine->ports, ram, n, p->machine->opts.cpus,
                              &p->fw_cfg);

    if (rc == 0)
        rc = st_fw_cfg_add_acpi(p->fw_cfg, &p->acpi);
    if (rc == 0)
        rc = st_fw_cfg_add_e820(p->fw_cfg, true);
    /* SeaBIOS has its screen there, since there is no other. */
    if (rc == 0)
        rc = st_fw_cfg_add(p->fw_cfg, "etc/sercon-port", &sercon,
                           sizeof(sercon));
    return rc;
}

int
st_platform_boot_order(struct st_platform *p, const unsigned *slot, unsigned n)
{
    return p->fw_cfg ? st_fw_cfg_add_boot_order(p->fw_cfg, slot, n) : -ENOTSUP;
}

/* ---- Power management, PCI ---- */

static void
pm_line(void *arg, bool level)
{
    struct st_platform *p = arg;

    st_irq_line(&p->machine->irq, ST_PM_SCI, level);
}

static void
pm_power_off(void *arg)
{
    machine_wanted(((struct st_platform *)arg)->machine, MACHINE_OFF);
}

static void
pm_reset(void *arg)
{
    machine_wanted(((struct st_platform *)arg)->machine, MACHINE_RESET);
}

static uint64_t
pm_now(void *arg)
{
    struct timespec t;

    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static const struct st_pm_ops pm_ops = {.line = pm_line,
                                        .power_off = pm_power_off,
                                        .reset = pm_reset,
                                        .now_ns = pm_now};

/* Firmware says something: whole lines go to the log. */
static void
misc_debug(void *arg, uint8_t byte)
{
    struct st_platform *p = arg;

    if (byte != '\n' && p->said_len < sizeof(p->said) - 1) {
        p->said[p->said_len++] = byte >= ' ' && byte < 0x7f ? (char)byte : '?';
        return;
    }
    p->said[p->said_len] = '\0';
    if (p->said_len)
        st_debug(p->machine->opts.log, "firmware: %s", p->said);
    p->said_len = 0;
}

static const struct st_misc_ops misc_ops = {.reset = pm_reset};
static const struct st_misc_ops misc_debug_ops = {.reset = pm_reset,
                                                  .debug = misc_debug};

/* It takes firmware time to say it: only if somebody reads it. */
static int
make_misc(struct st_platform *p)
{
    const struct st_machine *m = p->machine;
    bool debug =
        m->firmware && m->opts.log && m->opts.log->level >= ST_LOG_DEBUG;

    return st_misc_create(m->ports, debug ? &misc_debug_ops : &misc_ops, p,
                          &p->misc);
}

/* What has no crash kernel gets no further where it would be reset. */
static void
pvpanic_panicked(void *arg, bool goes_on)
{
    struct st_machine *m = ((struct st_platform *)arg)->machine;

    if (goes_on)
        machine_happened(m, MACHINE_CRASHED);
    else if (m->opts.no_reboot)
        machine_wanted(m, MACHINE_PANICKED);
    else
        machine_happened(m, MACHINE_PANICKED);
}

static const struct st_pvpanic_ops pvpanic_ops = {.panicked = pvpanic_panicked};

static uint64_t
cmos_now(void *arg)
{
    struct timespec t;

    (void)arg;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int
make_cmos(struct st_platform *p)
{
    const struct st_machine *m = p->machine;
    const struct st_cmos_options o = {.ram_low = m->ram.low,
                                      .ram_above_4g = m->ram.size - m->ram.low,
                                      .cpus = m->opts.cpus,
                                      .boot = {ST_CMOS_BOOT_DISK},
                                      .now_ns = cmos_now};

    return st_cmos_create(m->ports, &o, &p->cmos);
}

unsigned
st_platform_intx(unsigned slot)
{
    return st_pci_slot_gsi(slot, 0);
}

int
st_platform_add_pci(struct st_platform *p, unsigned slot, struct st_pci *pci)
{
    return st_pci_bus_add(p->bus, slot, 0, pci);
}

void
st_platform_remove_pci(struct st_platform *p, unsigned slot)
{
    st_pci_bus_remove(p->bus, slot, 0);
}

/* ---- Made, reset, freed ---- */

int
st_platform_init(struct st_platform *p, struct st_machine *m,
                 struct st_err *err)
{
    struct st_acpi_options tables = {.cpus = m->opts.cpus, .ecam = true};
    struct st_guest_ram ram[ST_MACHINE_RAM_PARTS];
    int rc;

    p->machine = m;
    p->kernel = p->initrd = -1;
    rc = open_files(p, err);
    if (rc == 0 && m->firmware)
        rc = m->from ? restore_bios(p, err) : load_bios(p, m->opts.bios, err);
    else if (rc == 0 && p->kernel >= 0)
        rc = check_linux(p, err);
    if (rc < 0)
        return rc;
    guest_ram(&m->ram, ram);
    p->pci64 = st_map_pci64(ram, m->ram.parts);
    tables.pci64 = p->pci64;
    rc = st_acpi_build(&tables, &p->acpi);
    if (rc == 0)
        rc = make_serials(p);
    if (rc == 0)
        rc = st_pm_create(m->ports, &pm_ops, p, &p->pm);
    if (rc == 0)
        rc = st_pci_bus_create(m->ports, m->memory, p->pm, &p->bus);
    if (rc == 0)
        rc = make_misc(p);
    if (rc == 0)
        rc = st_pvpanic_create(m->ports, &pvpanic_ops, p, &p->pvpanic);
    if (rc == 0)
        rc = make_cmos(p);
    if (rc == 0 && m->firmware)
        rc = make_fw_cfg(p, ram, m->ram.parts);
    return rc < 0 ? st_err_set(err, -rc, "no memory") : 0;
}

void
st_platform_fini(struct st_platform *p)
{
    if (!p->machine)
        return;
    for (unsigned i = 0; i < ST_MACHINE_SERIALS; i++) {
        if (p->serial[i].console)
            st_console_attach(p->serial[i].console, NULL);
        st_serial_destroy(p->serial[i].serial);
    }
    st_fw_cfg_destroy(p->fw_cfg);
    st_cmos_destroy(p->cmos);
    st_misc_destroy(p->misc);
    st_pvpanic_destroy(p->pvpanic);
    st_pci_bus_destroy(p->bus);
    st_pm_destroy(p->pm);
    st_acpi_free(&p->acpi);
    if (p->kernel >= 0)
        close(p->kernel);
    if (p->initrd >= 0)
        close(p->initrd);
    free(p->kernel_name);
    free(p->initrd_name);
    free(p->cmdline);
}

void
st_platform_reset(struct st_platform *p)
{
    for (unsigned i = 0; i < ST_MACHINE_SERIALS; i++)
        if (p->serial[i].serial)
            st_serial_reset(p->serial[i].serial);
    st_pm_reset(p->pm);
    st_pci_bus_reset(p->bus);
    st_cmos_reset(p->cmos);
    st_misc_reset(p->misc);
    if (p->fw_cfg)
        st_fw_cfg_reset(p->fw_cfg);
}

unsigned
st_platform_saved(struct st_platform *p,
                  struct st_saved_device out[static ST_PLATFORM_SAVED])
{
    const struct st_saved_device all[] = {
        {"serial 0", 1, st_serial_walk, p->serial[0].serial},
        {"serial 1", 1, st_serial_walk, p->serial[1].serial},
        {"pm", 1, st_pm_walk, p->pm},
        {"pci", 1, st_pci_bus_walk, p->bus},
        {"cmos", 1, st_cmos_walk, p->cmos},
        {"misc", 1, st_misc_walk, p->misc},
        {"fw_cfg", 1, st_fw_cfg_walk, p->fw_cfg},
    };
    unsigned n = 0;

    static_assert(sizeof(all) / sizeof(all[0]) <= ST_PLATFORM_SAVED,
                  "ST_PLATFORM_SAVED");
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (all[i].device)
            out[n++] = all[i];
    return n;
}
