/* SPDX-License-Identifier: MIT
 *
 * The ACPI tables; see acpi.h. Numbers beside fields are their offsets.
 *
 * It is not the hardware-reduced kind of ACPI: that would have no PIC, PIT and
 * ISA interrupts. SMI_CMD is 0, so ACPI mode is always on.
 */
#include "acpi.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "address_map.h"
#include "aml.h"
#include "pci_host.h"
#include "pm.h"
#include "pvpanic.h"
#include "range.h"
#include "wire.h"

enum { HEADER = 36, FACS = 64, FADT = 276 };

/* ---- Tables in the block ---- */

struct writer {
    struct st_aml block;
    struct st_acpi *out;
};

static void
put(struct st_aml *a, uint64_t value, unsigned len)
{
    le64 v = le64_of(value);

    assert(len <= sizeof(v));
    st_aml_bytes(a, &v, len);
}

/* A pointer of SIZE bytes at AT of the block, to the offset that is there. */
static void
pointer(struct st_acpi *out, size_t at, uint8_t size)
{
    assert(out->pointers < ST_ACPI_POINTERS);
    out->pointer[out->pointers].at = (uint32_t)at;
    out->pointer[out->pointers++].size = size;
}

static void
put_pointer(struct writer *w, uint32_t to, uint8_t size)
{
    pointer(w->out, w->block.len, size);
    put(&w->block, to, size);
}

/* The common header (5.2.6), whose length comes at the end. Returns where the
 * table begins. */
static size_t
table(struct writer *w, const char *signature, uint8_t revision)
{
    struct st_aml *a = &w->block;
    size_t start;

    st_aml_bytes(a, NULL, -a->len % 16);
    start = a->len;
    st_aml_bytes(a, signature, 4);
    put(a, 0, 4); /* length */
    put(a, revision, 1);
    put(a, 0, 1); /* checksum */
    st_aml_bytes(a, "STRATASTRATA  ", 14);
    put(a, 1, 4);
    st_aml_bytes(a, "STRA", 4);
    put(a, 1, 4);
    return start;
}

/* The end of what began at START. Returns START. */
static uint32_t
table_end(struct writer *w, size_t start)
{
    struct st_acpi *out = w->out;
    le32 len = le32_of((uint32_t)(w->block.len - start));

    if (w->block.failed)
        return 0;
    memcpy(w->block.data + start + 4, &len, sizeof(len));
    assert(out->tables < ST_ACPI_TABLES);
    out->table[out->tables].start = (uint32_t)start;
    out->table[out->tables++].len = le32_get(len);
    return (uint32_t)start;
}

/* ---- DSDT ---- */

static void
named_id(struct st_aml *a, const char *id, uint64_t uid)
{
    st_aml_name(a, "_HID");
    st_aml_eisa_id(a, id);
    st_aml_name(a, "_UID");
    st_aml_integer(a, uid);
}

/* Each slot's pins, straight to the IOAPIC: no link devices. */
static void
put_prt(struct st_aml *a)
{
    size_t all, one;

    st_aml_name(a, "_PRT");
    all = st_aml_package(a, ST_PCI_SLOTS * 4);
    for (unsigned slot = 0; slot < ST_PCI_SLOTS; slot++)
        for (unsigned pin = 0; pin < 4; pin++) {
            one = st_aml_package(a, 4);
            st_aml_integer(a, slot << 16 | 0xffff);
            st_aml_integer(a, pin);
            st_aml_integer(a, 0);
            st_aml_integer(a, st_pci_slot_gsi(slot, pin));
            st_aml_end(a, one);
        }
    st_aml_end(a, all);
}

static void
put_pci(struct st_aml *a, const struct st_acpi_options *o)
{
    size_t device = st_aml_device(a, "PCI0"), crs;

    named_id(a, "PNP0A03", 0);
    st_aml_name(a, "_CRS");
    crs = st_aml_resources(a);
    st_aml_bus_range(a, 0, 0);
    st_aml_io(a, ST_PCI_PORTS, 8);
    st_aml_io_range(a, 0, ST_PCI_PORTS - 1);
    st_aml_io_range(a, ST_PCI_PORTS + 8, 0xffff);
    st_aml_memory_range(a, o->ecam ? ST_MAP_PCI : ST_MAP_ECAM,
                        ST_MAP_PCI_END - 1);
    if (o->pci64)
        st_aml_memory_range(a, o->pci64, o->pci64 + ST_MAP_PCI64_SIZE - 1);
    st_aml_resources_end(a, crs);
    put_prt(a);
    st_aml_end(a, device);
}

/* A device at LEN ports and an interrupt. */
static void
put_isa(struct st_aml *a, const char *name, const char *id, uint16_t port,
        uint8_t len, unsigned irq)
{
    size_t device = st_aml_device(a, name), crs;

    named_id(a, id, 0);
    st_aml_name(a, "_CRS");
    crs = st_aml_resources(a);
    st_aml_io(a, port, len);
    st_aml_irq(a, irq);
    st_aml_resources_end(a, crs);
    st_aml_end(a, device);
}

/* ECAM's addresses are taken (PCI Firmware 3.3, 4.1.2). */
static void
put_ecam(struct st_aml *a)
{
    size_t device = st_aml_device(a, "ECAM"), crs;

    named_id(a, "PNP0C02", 0);
    st_aml_name(a, "_CRS");
    crs = st_aml_resources(a);
    st_aml_memory_fixed(a, ST_MAP_ECAM, ST_MAP_ECAM_SIZE);
    st_aml_resources_end(a, crs);
    st_aml_end(a, device);
}

/* Where the guest tells its panics. QEMU's has methods that read and write the
 * port as well; Linux has not called them since 4.21. */
static void
put_pvpanic(struct st_aml *a)
{
    size_t device = st_aml_device(a, "PEVT"), crs;

    st_aml_name(a, "_HID");
    st_aml_string(a, "QEMU0001");
    st_aml_name(a, "_STA");
    st_aml_integer(a, 15);
    st_aml_name(a, "_CRS");
    crs = st_aml_resources(a);
    st_aml_io(a, ST_PVPANIC_PORT, 1);
    st_aml_resources_end(a, crs);
    st_aml_end(a, device);
}

static void
put_vmbus(struct st_aml *a)
{
    size_t device = st_aml_device(a, "VMBS");

    st_aml_name(a, "_HID");
    st_aml_string(a, "VMBus");
    st_aml_name(a, "_UID");
    st_aml_integer(a, 0);
    st_aml_name(a, "_DDN");
    st_aml_string(a, "VMBUS");
    st_aml_name(a, "_STA");
    st_aml_integer(a, 15);
    st_aml_end(a, device);
}

static uint32_t
put_dsdt(struct writer *w, const struct st_acpi_options *o)
{
    struct st_aml *a = &w->block;
    size_t start = table(w, "DSDT", 2), scope, s5;

    scope = st_aml_scope(a, "\\_SB_");
    put_pci(a, o);
    put_isa(a, "COM1", "PNP0501", 0x3f8, 8, 4);
    put_isa(a, "RTC0", "PNP0B00", 0x70, 2, 8);
    put_pvpanic(a);
    if (o->ecam)
        put_ecam(a);
    if (o->vmbus)
        put_vmbus(a);
    st_aml_end(a, scope);
    st_aml_name(a, "\\_S5_");
    s5 = st_aml_package(a, 4);
    st_aml_integer(a, ST_PM_S5);
    st_aml_integer(a, ST_PM_S5);
    st_aml_integer(a, 0);
    st_aml_integer(a, 0);
    st_aml_end(a, s5);
    return table_end(w, start);
}

/* ---- The other tables ---- */

/* It belongs to guest and firmware; has no checksum (5.2.10). */
static uint32_t
put_facs(struct writer *w)
{
    struct st_aml *a = &w->block;
    size_t start = a->len;

    st_aml_bytes(a, "FACS", 4);
    put(a, FACS, 4);
    st_aml_bytes(a, NULL, 24);
    put(a, 2, 1); /* version, at 32 */
    st_aml_bytes(a, NULL, FACS - (a->len - start));
    return (uint32_t)start;
}

static void
put_io_address(struct st_aml *a, uint16_t port, uint8_t bytes)
{
    put(a, 1, 1); /* I/O space */
    put(a, bytes * 8u, 1);
    put(a, 0, 1);
    put(a, bytes == 4 ? 3 : bytes, 1); /* access size: 1, 2, then 4 */
    put(a, port, 8);
}

enum { /* FADT flags (5.2.9, table 5.10) */
       FADT_WBINVD = 1 << 0,
       FADT_PROC_C1 = 1 << 2,
       FADT_NO_POWER_BUTTON = 1 << 4,
       FADT_NO_SLEEP_BUTTON = 1 << 5,
       FADT_TIMER_32 = 1 << 8,
       FADT_RESET = 1 << 10
};

static uint32_t
put_fadt(struct writer *w, uint32_t dsdt, uint32_t facs)
{
    struct st_aml *a = &w->block;
    size_t start = table(w, "FACP", 6);

    put_pointer(w, facs, 4);
    put_pointer(w, dsdt, 4);
    put(a, 0, 2);         /* 44 */
    put(a, ST_PM_SCI, 2); /* 46 */
    st_aml_bytes(a, NULL, 8);
    put(a, ST_PM_EVENT, 4); /* 56 */
    put(a, 0, 4);
    put(a, ST_PM_CONTROL, 4); /* 64 */
    st_aml_bytes(a, NULL, 8);
    put(a, ST_PM_TIMER, 4); /* 76 */
    st_aml_bytes(a, NULL, 8);
    put(a, 4, 1); /* 88: lengths of event, control, none, timer */
    put(a, 2, 1);
    put(a, 0, 1);
    put(a, 4, 1);
    st_aml_bytes(a, NULL, 4);
    put(a, 0xffff, 2); /* 96: no C2, no C3 */
    put(a, 0xffff, 2);
    st_aml_bytes(a, NULL, 8);
    put(a, 0x32, 1); /* 108: the century in CMOS */
    put(a, 1, 2);    /* 109: there are ISA devices, and no 8042 */
    put(a, 0, 1);
    put(a,
        FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON |
            FADT_NO_SLEEP_BUTTON | FADT_TIMER_32 | FADT_RESET,
        4);
    put_io_address(a, ST_PM_RESET, 1); /* 116 */
    put(a, ST_PM_RESET_NOW, 1);
    put(a, 0, 3);
    put(a, 0, 8); /* 132: FACS is at 36 */
    put_pointer(w, dsdt, 8);
    put_io_address(a, ST_PM_EVENT, 4); /* 148 */
    st_aml_bytes(a, NULL, 12);
    put_io_address(a, ST_PM_CONTROL, 2); /* 172 */
    st_aml_bytes(a, NULL, 24);
    put_io_address(a, ST_PM_TIMER, 4); /* 208 */
    if (!a->failed)
        st_aml_bytes(a, NULL, FADT - (a->len - start));
    return table_end(w, start);
}

static uint32_t
put_madt(struct writer *w, const struct st_acpi_options *o)
{
    struct st_aml *a = &w->block;
    size_t start = table(w, "APIC", 4);

    put(a, ST_MAP_LAPIC, 4);
    put(a, 1, 4); /* there are PICs, too */
    for (unsigned i = 0; i < o->cpus; i++) {
        put(a, 0, 1); /* a local APIC: processor, id, enabled */
        put(a, 8, 1);
        put(a, i, 1);
        put(a, i, 1);
        put(a, 1, 4);
    }
    put(a, 1, 1); /* the IOAPIC: its id, its first GSI */
    put(a, 12, 1);
    put(a, 0, 2);
    put(a, ST_MAP_IOAPIC, 4);
    put(a, 0, 4);
    for (unsigned i = 0; i < 2; i++) {
        /* The timer is at pin 2; the SCI is a level, active high. */
        put(a, 2, 1);
        put(a, 10, 1);
        put(a, 0, 1);
        put(a, i ? ST_PM_SCI : 0, 1);
        put(a, i ? ST_PM_SCI : 2, 4);
        put(a, i ? 0x0d : 0, 2);
    }
    put(a, 4, 1); /* NMI: at LINT1 of all */
    put(a, 6, 1);
    put(a, 0xff, 1);
    put(a, 0, 2);
    put(a, 1, 1);
    return table_end(w, start);
}

static uint32_t
put_mcfg(struct writer *w)
{
    struct st_aml *a = &w->block;
    size_t start = table(w, "MCFG", 1);

    put(a, 0, 8);
    put(a, ST_MAP_ECAM, 8);
    put(a, 0, 2); /* segment */
    put(a, 0, 1); /* from bus */
    put(a, 0, 1); /* to bus: Linux looks for functions on all of them */
    put(a, 0, 4);
    return table_end(w, start);
}

/* ---- All of it ---- */

static void
write_rsdp(struct st_acpi *out, uint32_t xsdt)
{
    le64 to = le64_of(xsdt);

    memcpy(out->rsdp, "RSD PTR \0STRATA\2", 16);
    out->rsdp[20] = ST_ACPI_RSDP;
    memcpy(out->rsdp + 24, &to, sizeof(to));
}

int
st_acpi_build(const struct st_acpi_options *o, struct st_acpi *out)
{
    struct writer w = {.out = out};
    uint32_t facs, dsdt, table_at[3];
    unsigned n = 0;
    size_t start;

    assert(o->cpus >= 1 && o->cpus <= 64);
    memset(out, 0, sizeof(*out));
    facs = put_facs(&w); /* first, as it wants to be aligned */
    dsdt = put_dsdt(&w, o);
    table_at[n++] = put_fadt(&w, dsdt, facs);
    table_at[n++] = put_madt(&w, o);
    if (o->ecam)
        table_at[n++] = put_mcfg(&w);
    start = table(&w, "XSDT", 1);
    for (unsigned i = 0; i < n; i++)
        put_pointer(&w, table_at[i], 8);
    write_rsdp(out, table_end(&w, start));
    if (w.block.failed) {
        free(w.block.data);
        memset(out, 0, sizeof(*out));
        return -ENOMEM;
    }
    out->data = w.block.data;
    out->len = w.block.len;
    return 0;
}

void
st_acpi_free(struct st_acpi *a)
{
    free(a->data);
    memset(a, 0, sizeof(*a));
}

/* ---- At an address ---- */

static uint64_t
block_offset(void)
{
    return st_align_up(ST_ACPI_RSDP, ST_ACPI_ALIGN);
}

size_t
st_acpi_size(const struct st_acpi *a)
{
    return block_offset() + a->len;
}

static void
relocate(uint8_t *at, unsigned size, uint64_t base)
{
    le64 v = {{0}};

    memcpy(&v, at, size);
    v = le64_of(le64_get(v) + base);
    memcpy(at, &v, size);
}

/* What makes LEN bytes sum up to 0. */
static uint8_t
checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + p[i]);
    return (uint8_t)-sum;
}

void
st_acpi_place(const struct st_acpi *a, uint64_t gpa, uint8_t *to)
{
    uint64_t base = gpa + block_offset();
    uint8_t *block = to + block_offset();

    assert(gpa % ST_ACPI_ALIGN == 0 && gpa + st_acpi_size(a) <= ST_MAP_4G);
    memset(to, 0, block_offset());
    memcpy(to, a->rsdp, ST_ACPI_RSDP);
    relocate(to + 24, 8, base);
    to[8] = checksum(to, 20); /* as of revision 1 */
    to[32] = checksum(to, ST_ACPI_RSDP);
    memcpy(block, a->data, a->len);
    for (unsigned i = 0; i < a->pointers; i++)
        relocate(block + a->pointer[i].at, a->pointer[i].size, base);
    for (unsigned i = 0; i < a->tables; i++) {
        uint8_t *t = block + a->table[i].start;

        t[9] = checksum(t, a->table[i].len);
    }
}
