/* SPDX-License-Identifier: MIT
 *
 * A PCI function's configuration space, BARs, reset and line; see pci.h.
 *
 *   0x00 header type 0 | 0x40 capabilities, one after the other | 0x100 none
 *
 * Every byte has a mask of what a guest can write. Bytes that mean something
 * (Command, BARs, MSI-X control, FLR) are looked at after the write.
 */
#include "pci.h"

#include <assert.h>
#include <string.h>

#include "list.h"
#include "msix.h"
#include "range.h"

/* PCI Local Bus 3.0, 6.1 */
enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_CACHE_LINE = 0x0c,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM = 0x2e,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
    PCI_FIRST_CAP = 0x40,
};

enum { /* Command */
       COMMAND_MEMORY = 1 << 1,
       COMMAND_MASTER = 1 << 2,
       COMMAND_PARITY = 1 << 6,
       COMMAND_SERR = 1 << 8,
       COMMAND_INTX_OFF = 1 << 10,
};

enum { STATUS_INTERRUPT = 1 << 3, STATUS_CAPABILITIES = 1 << 4 };

enum { CAP_PM = 0x01, CAP_EXPRESS = 0x10, CAP_MSIX = 0x11 };

enum { /* PCI Express capability, offsets (PCI Express 4.0, 7.5.3) */
       EXPRESS_CONTROL = 0x08,
       EXPRESS_FLR = 1 << 15, /* Initiate Function Level Reset: reads 0 */
};

static void
put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static uint16_t
get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void
put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static uint32_t
get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

/* ---- Set-up ---- */

void
st_pci_init(struct st_pci *p, const struct st_pci_ops *ops,
            const struct st_pci_id *id)
{
    p->ops = ops;
    pthread_mutex_init(&p->lock, NULL);
    pthread_mutex_init(&p->line_lock, NULL);
    put16(p->config + PCI_VENDOR, id->vendor);
    put16(p->config + PCI_DEVICE, id->device);
    p->config[PCI_REVISION] = id->revision;
    p->config[PCI_CLASS] = (uint8_t)id->class_code;
    put16(p->config + PCI_CLASS + 1, (uint16_t)(id->class_code >> 8));
    put16(p->config + PCI_SUBSYSTEM_VENDOR, id->subsystem_vendor);
    put16(p->config + PCI_SUBSYSTEM, id->subsystem);
    p->writable[PCI_CACHE_LINE] = 0xff;
    p->writable[PCI_INTERRUPT_LINE] = 0xff;
    put16(p->writable + PCI_COMMAND, COMMAND_MEMORY | COMMAND_MASTER |
                                         COMMAND_PARITY | COMMAND_SERR |
                                         COMMAND_INTX_OFF);
    p->next_cap = PCI_FIRST_CAP;
    memcpy(p->reset_to, p->config, sizeof(p->config));
}

void
st_pci_fini(struct st_pci *p)
{
    st_msix_free(p);
    pthread_mutex_destroy(&p->line_lock);
    pthread_mutex_destroy(&p->lock);
}

/* What stands in configuration space now is what a reset gives. */
static void
set_up_changed(struct st_pci *p)
{
    memcpy(p->reset_to, p->config, sizeof(p->config));
}

void
st_pci_add_bar(struct st_pci *p, unsigned bar, uint64_t size, unsigned flags)
{
    bool wide = flags & ST_PCI_BAR_64;
    uint64_t mask = ~(size - 1);
    unsigned at = PCI_BAR0 + 4 * bar;

    assert(bar + wide < ST_PCI_BARS && size >= 4096 && !(size & (size - 1)));
    assert(wide || size <= UINT32_MAX);
    p->bar[bar].size = size;
    p->bar[bar].flags = flags;
    p->config[at] =
        (uint8_t)((wide ? 4 : 0) | (flags & ST_PCI_BAR_PREFETCH ? 8 : 0));
    put32(p->writable + at, (uint32_t)mask);
    if (wide)
        put32(p->writable + at + 4, (uint32_t)(mask >> 32));
    set_up_changed(p);
}

unsigned
st_pci_add_cap(struct st_pci *p, uint8_t id, unsigned len, const void *body)
{
    unsigned at = p->next_cap;

    assert(len >= 2 && at + len <= 0x100);
    p->config[at] = id;
    if (body)
        memcpy(p->config + at + 2, body, len - 2);
    p->config[p->last_cap ? p->last_cap + 1 : PCI_CAPABILITIES] = (uint8_t)at;
    p->config[PCI_STATUS] |= STATUS_CAPABILITIES;
    p->last_cap = at;
    p->next_cap = (unsigned)st_align_up(at + len, 4);
    set_up_changed(p);
    return at;
}

void
st_pci_add_writable(struct st_pci *p, unsigned offset, uint32_t mask)
{
    put32(p->writable + offset, get32(p->writable + offset) | mask);
}

void
st_pci_add_express(struct st_pci *p)
{
    uint8_t body[0x3c - 2] = {0};

    put16(body + 0x02 - 2, 2);                   /* version 2, endpoint */
    put32(body + 0x04 - 2, 1u << 28 | 1u << 15); /* FLR, role-based errors */
    put32(body + 0x0c - 2, 0x11);                /* one lane at 2.5 GT/s */
    put16(body + 0x12 - 2, 0x11);
    p->express = st_pci_add_cap(p, CAP_EXPRESS, 0x3c, body);
    /* Error reporting, relaxed ordering, payload and read request sizes. */
    put16(p->writable + p->express + EXPRESS_CONTROL, 0x7fff & ~0x0600);
    put16(p->config + p->express + EXPRESS_CONTROL, 0x2810);
    set_up_changed(p);
}

void
st_pci_add_pm(struct st_pci *p)
{
    uint8_t body[6] = {0x03}; /* version 1.2 */
    unsigned at;

    body[2] = 1 << 3; /* D3hot to D0 keeps the state: No_Soft_Reset */
    at = st_pci_add_cap(p, CAP_PM, 8, body);
    p->writable[at + 4] = 0x03;
}

int
st_pci_add_msix(struct st_pci *p, unsigned vectors, unsigned bar,
                uint64_t table, uint64_t pba)
{
    uint8_t body[10];

    assert(vectors && vectors <= ST_PCI_VECTORS_MAX);
    assert(table % 8 == 0 && pba % 8 == 0 && bar < ST_PCI_BARS);
    assert(st_range_ok(table, vectors * 16, p->bar[bar].size));
    assert(st_range_ok(pba, (vectors + 63) / 64 * 8, p->bar[bar].size));
    put16(body, (uint16_t)(vectors - 1));
    put32(body + 2, (uint32_t)table | bar);
    put32(body + 6, (uint32_t)pba | bar);
    p->msix = st_pci_add_cap(p, CAP_MSIX, 12, body);
    put16(p->writable + p->msix + 2, ST_MSIX_ENABLE | ST_MSIX_MASK);
    p->vectors = vectors;
    p->msix_bar = bar;
    p->msix_table = table;
    p->msix_pba = pba;
    return st_msix_alloc(p);
}

void
st_pci_add_intx(struct st_pci *p)
{
    p->config[PCI_INTERRUPT_PIN] = 1;
    set_up_changed(p);
}

void
st_pci_set_id(struct st_pci *p, uint16_t vendor, uint16_t device)
{
    pthread_mutex_lock(&p->lock);
    put16(p->config + PCI_VENDOR, vendor);
    put16(p->config + PCI_DEVICE, device);
    put16(p->reset_to + PCI_VENDOR, vendor);
    put16(p->reset_to + PCI_DEVICE, device);
    pthread_mutex_unlock(&p->lock);
}

/* ---- Configuration space ---- */

/* Tell the host what the line is, if it does not know. */
static void
line_update(struct st_pci *p)
{
    bool level;

    pthread_mutex_lock(&p->line_lock);
    level = atomic_load(&p->line) && !atomic_load(&p->intx_off) &&
            !atomic_load(&p->msix_on);
    if (level != p->told && p->host && p->host->intx) {
        p->told = level;
        p->host->intx(p->host, level);
    }
    pthread_mutex_unlock(&p->line_lock);
}

void
st_pci_line(struct st_pci *p, bool level)
{
    if (atomic_exchange(&p->line, level) != level)
        line_update(p);
}

/* Under the lock: what changes with the bytes. */
static void
config_changed(struct st_pci *p)
{
    uint16_t command = get16(p->config + PCI_COMMAND);
    bool master = command & COMMAND_MASTER;
    bool was_master = atomic_exchange(&p->bus_master, master);

    atomic_store(&p->memory, command & COMMAND_MEMORY);
    atomic_store(&p->intx_off, command & COMMAND_INTX_OFF);
    if (p->msix)
        st_msix_control(p, get16(p->config + p->msix + 2));
    line_update(p);
    if (master != was_master) {
        if (master && p->msix)
            st_msix_deliver(p);
        if (p->ops->enabled)
            p->ops->enabled(p, master);
    }
}

static void
flr_done(struct st_access *a)
{
    /* The guest waits 100 ms, and looks for itself. */
    atomic_store(&st_container(a, struct st_pci, flr)->resetting, false);
}

/* Under the lock. */
static bool
reset_function(struct st_pci *p, struct st_access *a)
{
    memcpy(p->config, p->reset_to, sizeof(p->config));
    if (p->msix)
        st_msix_reset(p);
    config_changed(p);
    if (p->host && p->host->bars_moved)
        p->host->bars_moved(p->host);
    return p->ops->reset(p, a);
}

uint32_t
st_pci_config_read(struct st_pci *p, unsigned offset, unsigned len)
{
    uint32_t value = 0;

    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < len && i < 4; i++) {
        unsigned at = offset + i;
        uint8_t byte = at < ST_PCI_CONFIG && at >= i ? p->config[at] : 0xff;

        if (at == PCI_STATUS && atomic_load(&p->line))
            byte |= STATUS_INTERRUPT;
        value |= (uint32_t)byte << 8 * i;
    }
    pthread_mutex_unlock(&p->lock);
    return value;
}

void
st_pci_config_write(struct st_pci *p, unsigned offset, unsigned len,
                    uint32_t value)
{
    bool moved = false, flr = false;

    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < len && i < 4; i++) {
        unsigned at = offset + i;
        uint8_t byte = (uint8_t)(value >> 8 * i), old;

        if (at < i || at >= ST_PCI_CONFIG)
            break;
        if (p->express && at == p->express + EXPRESS_CONTROL + 1)
            flr = byte & EXPRESS_FLR >> 8;
        old = p->config[at];
        p->config[at] =
            (uint8_t)((old & ~p->writable[at]) | (byte & p->writable[at]));
        moved |= (at == PCI_COMMAND ||
                  (at >= PCI_BAR0 && at < PCI_BAR0 + 4 * ST_PCI_BARS)) &&
                 p->config[at] != old;
    }
    config_changed(p);
    if (moved && p->host && p->host->bars_moved)
        p->host->bars_moved(p->host);
    if (flr && !atomic_exchange(&p->resetting, true)) {
        p->flr.done = flr_done;
        if (reset_function(p, &p->flr))
            atomic_store(&p->resetting, false);
    }
    pthread_mutex_unlock(&p->lock);
}

uint64_t
st_pci_bar_address(const struct st_pci *p, unsigned bar)
{
    const uint8_t *at = p->config + PCI_BAR0 + 4 * bar;
    uint64_t address;

    if (bar >= ST_PCI_BARS || !p->bar[bar].size || !atomic_load(&p->memory))
        return UINT64_MAX;
    address = get32(at) & ~UINT32_C(0xf);
    if (p->bar[bar].flags & ST_PCI_BAR_64)
        address |= (uint64_t)get32(at + 4) << 32;
    return address;
}

/* ---- BARs ---- */

static uint64_t
all_ones(unsigned len)
{
    return len >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * len) - 1;
}

bool
st_pci_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    bool done;

    if (bar >= ST_PCI_BARS || !a->len || a->len > 8 || a->len & (a->len - 1) ||
        a->offset % a->len ||
        !st_range_ok(a->offset, a->len, p->bar[bar].size) ||
        !atomic_load_explicit(&p->memory, memory_order_relaxed)) {
        a->value = all_ones(a->len <= 8 ? a->len : 8);
        return true;
    }
    if (a->write && p->ops->hot && p->ops->hot(p, bar, a))
        return true;
    pthread_mutex_lock(&p->lock);
    done = (p->msix && bar == p->msix_bar && st_msix_access(p, a)) ||
           p->ops->access(p, bar, a);
    pthread_mutex_unlock(&p->lock);
    return done;
}

bool
st_pci_reset(struct st_pci *p, struct st_access *a)
{
    bool done;

    pthread_mutex_lock(&p->lock);
    done = reset_function(p, a);
    pthread_mutex_unlock(&p->lock);
    return done;
}
