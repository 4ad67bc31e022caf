/* SPDX-License-Identifier: MIT
 *
 * Configuration space of the whole bus; see pci_host.h.
 *
 *   0xcf8, 32 bits:  | 31 enable | 23..16 bus | 15..11 slot | 10..8 fn | 7..2 |
 *   ECAM offset:     | 19..15 slot | 14..12 fn | 11..0 |
 *
 * The lock is held while a function is asked: it is taken before the function's
 * own, so a function that is removed is in nobody's hands.
 */
#include "pci_host.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "address_map.h"
#include "list.h"
#include "range.h"

enum {
    HEADER_TYPE = 0x0e,
    BAR0 = 0x10,
    INTERRUPT_LINE = 0x3c,
    INTERRUPT_PIN = 0x3d,
    MULTIFUNCTION = 0x80
};

enum { ENABLE = 1u << 31, LATCHED = 0x80fffffc };

enum { BRIDGE_CONFIG = 256 }; /* bytes that the bridge has of it */

struct st_pci_bus {
    struct st_region config, ecam;
    struct st_space *ports, *memory; /* borrowed */
    struct st_pm *pm;                /* borrowed */
    struct st_pci bridge;            /* 0:0.0 */
    pthread_mutex_t lock;            /* all below */
    uint32_t address;
    struct st_pci *function[ST_PCI_SLOTS * ST_PCI_FUNCTIONS]; /* borrowed */
};

static uint64_t
all_ones(unsigned len)
{
    return len >= 8 ? UINT64_MAX : (UINT64_C(1) << 8 * len) - 1;
}

/* ---- Configuration space ---- */

/* Does SLOT have functions besides 0? Under the lock. */
static bool
is_multifunction(const struct st_pci_bus *b, unsigned slot)
{
    for (unsigned f = 1; f < ST_PCI_FUNCTIONS; f++)
        if (b->function[slot * ST_PCI_FUNCTIONS + f])
            return true;
    return false;
}

/* LEN (1 to 4) bytes at OFFSET of function N of BUS. */
static void
config_access(struct st_pci_bus *b, unsigned bus, unsigned n, unsigned offset,
              struct st_access *a)
{
    struct st_pci *p;

    pthread_mutex_lock(&b->lock);
    p = bus == 0 ? b->function[n] : NULL;
    if (!p) {
        if (!a->write)
            a->value = all_ones(a->len);
    } else if (a->write) {
        st_pci_config_write(p, offset, a->len, (uint32_t)a->value);
    } else {
        a->value = st_pci_config_read(p, offset, a->len);
        if (n % ST_PCI_FUNCTIONS == 0 && offset <= HEADER_TYPE &&
            HEADER_TYPE - offset < a->len &&
            is_multifunction(b, n / ST_PCI_FUNCTIONS))
            a->value |= (uint64_t)MULTIFUNCTION << 8 * (HEADER_TYPE - offset);
    }
    pthread_mutex_unlock(&b->lock);
}

/* Ports 0xcf8 to 0xcff. Only a whole word reaches the address; bytes there are
 * something else, or nothing. */
static bool
ports_access(struct st_region *r, struct st_access *a)
{
    struct st_pci_bus *b = r->arg;
    unsigned at = (unsigned)a->offset;
    uint32_t address;

    if (at >= 4 && a->len <= 4) {
        pthread_mutex_lock(&b->lock);
        address = b->address;
        pthread_mutex_unlock(&b->lock);
        if (address & ENABLE)
            config_access(b, address >> 16 & 0xff, address >> 8 & 0xff,
                          (address & 0xfc) + (at - 4), a);
        else if (!a->write)
            a->value = all_ones(a->len);
    } else if (at == 0 && a->len == 4) {
        pthread_mutex_lock(&b->lock);
        if (a->write)
            b->address = (uint32_t)a->value & LATCHED;
        else
            a->value = b->address;
        pthread_mutex_unlock(&b->lock);
    } else if (at == ST_PM_RESET - ST_PCI_PORTS && a->len == 1) {
        if (a->write)
            st_pm_reset_control_write(b->pm, (uint8_t)a->value);
        else
            a->value = st_pm_reset_control_read(b->pm);
    } else if (!a->write) {
        a->value = all_ones(a->len);
    }
    return true;
}

static const struct st_region_ops config_ops = {"pci config", ports_access};

static bool
ecam_access(struct st_region *r, struct st_access *a)
{
    struct st_pci_bus *b = r->arg;
    unsigned at = (unsigned)a->offset;

    /* Longer ones, and those that cross a word, are nobody's. */
    if (a->len <= 4 && at % a->len == 0)
        config_access(b, 0, at >> 12 & 0xff, at & 0xfff, a);
    else if (!a->write)
        a->value = all_ones(a->len);
    return true;
}

static const struct st_region_ops ecam_ops = {"ecam", ecam_access};

/* ---- The host bridge ---- */

static bool
bridge_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    (void)p;
    (void)bar; /* it has none */
    a->value = 0;
    return true;
}

static bool
bridge_reset(struct st_pci *p, struct st_access *a)
{
    (void)p;
    (void)a;
    return true;
}

static const struct st_pci_ops bridge_ops = {
    .name = "host bridge", .access = bridge_access, .reset = bridge_reset};

static const struct st_pci_id bridge_id = {
    .vendor = 0x8086, .device = 0x1237, .class_code = 0x060000, .revision = 2};

/* ---- Functions come and go ---- */

int
st_pci_bus_add(struct st_pci_bus *b, unsigned slot, unsigned function,
               struct st_pci *p)
{
    unsigned n = slot * ST_PCI_FUNCTIONS + function;
    int rc = 0;

    if (slot == 0 || slot >= ST_PCI_SLOTS || function >= ST_PCI_FUNCTIONS)
        return -EINVAL;
    pthread_mutex_lock(&b->lock);
    if (b->function[n])
        rc = -EEXIST;
    else
        b->function[n] = p;
    pthread_mutex_unlock(&b->lock);
    return rc;
}

void
st_pci_bus_remove(struct st_pci_bus *b, unsigned slot, unsigned function)
{
    if (slot == 0 || slot >= ST_PCI_SLOTS || function >= ST_PCI_FUNCTIONS)
        return;
    pthread_mutex_lock(&b->lock);
    b->function[slot * ST_PCI_FUNCTIONS + function] = NULL;
    pthread_mutex_unlock(&b->lock);
}

unsigned
st_pci_bus_free_slot(struct st_pci_bus *b)
{
    unsigned found = 0;

    pthread_mutex_lock(&b->lock);
    for (unsigned slot = 1; slot < ST_PCI_SLOTS && !found; slot++)
        if (!b->function[slot * ST_PCI_FUNCTIONS] && !is_multifunction(b, slot))
            found = slot;
    pthread_mutex_unlock(&b->lock);
    return found;
}

/* ---- Where BARs are, without firmware ---- */

/* Addresses that are left. */
struct windows {
    uint64_t low, high; /* the next ones */
    uint64_t high_end;  /* 0: there is none */
};

/* Take SIZE from the window at *NEXT that ends at END: 0 when it is full. */
static uint64_t
take(uint64_t *next, uint64_t size, uint64_t end)
{
    uint64_t at = st_align_up(*next, size);

    if (at < *next || at > end || size > end - at)
        return 0;
    *next = at + size;
    return at;
}

/* Give the BAR at OFFSET an address. Returns how many words it has. */
static unsigned
place_bar(struct st_pci *p, unsigned offset, struct windows *w)
{
    uint32_t low, high = UINT32_MAX;
    uint64_t mask, size, at;
    bool wide;

    st_pci_config_write(p, offset, 4, UINT32_MAX);
    low = st_pci_config_read(p, offset, 4);
    wide = (low & 7) == 4;
    if (wide) {
        st_pci_config_write(p, offset + 4, 4, UINT32_MAX);
        high = st_pci_config_read(p, offset + 4, 4);
    }
    mask = (uint64_t)high << 32 | (low & ~UINT32_C(0xf));
    size = ~mask + 1;
    at = 0;
    if (low & ~UINT32_C(0xf) || (wide && high)) {
        at = take(&w->low, size, ST_MAP_PCI_END);
        if (!at && wide)
            at = take(&w->high, size, w->high_end);
    }
    st_pci_config_write(p, offset, 4, (uint32_t)at);
    if (wide)
        st_pci_config_write(p, offset + 4, 4, (uint32_t)(at >> 32));
    return wide ? 2 : 1;
}

void
st_pci_bus_place_bars(struct st_pci_bus *b, uint64_t high)
{
    struct windows w = {ST_MAP_PCI, high, high ? high + ST_MAP_PCI64_SIZE : 0};

    pthread_mutex_lock(&b->lock);
    for (unsigned n = 0; n < ST_PCI_SLOTS * ST_PCI_FUNCTIONS; n++) {
        struct st_pci *p = b->function[n];
        uint8_t pin;

        if (!p)
            continue;
        for (unsigned bar = 0; bar < ST_PCI_BARS;)
            bar += place_bar(p, BAR0 + 4 * bar, &w);
        pin = (uint8_t)st_pci_config_read(p, INTERRUPT_PIN, 1);
        if (pin)
            st_pci_config_write(
                p, INTERRUPT_LINE, 1,
                st_pci_slot_gsi(n / ST_PCI_FUNCTIONS, pin - 1u));
    }
    pthread_mutex_unlock(&b->lock);
}

/* ---- Made and freed ---- */

int
st_pci_bus_create(struct st_space *ports, struct st_space *memory,
                  struct st_pm *pm, struct st_pci_bus **out)
{
    struct st_pci_bus *b = calloc(1, sizeof(*b));
    int rc;

    if (!b)
        return -ENOMEM;
    b->config = (struct st_region){
        .ops = &config_ops, .arg = b, .start = ST_PCI_PORTS, .size = 8};
    b->ecam = (struct st_region){.ops = &ecam_ops,
                                 .arg = b,
                                 .start = ST_MAP_ECAM,
                                 .size = ST_MAP_ECAM_SIZE};
    b->ports = ports;
    b->memory = memory;
    b->pm = pm;
    pthread_mutex_init(&b->lock, NULL);
    st_pci_init(&b->bridge, &bridge_ops, &bridge_id);
    b->function[0] = &b->bridge;
    rc = st_space_add(ports, &b->config);
    if (rc == 0 && memory)
        rc = st_space_add(memory, &b->ecam);
    if (rc < 0) {
        st_pci_bus_destroy(b);
        return rc;
    }
    *out = b;
    return 0;
}

void
st_pci_bus_destroy(struct st_pci_bus *b)
{
    if (!b)
        return;
    st_space_remove(b->ports, &b->config);
    if (b->memory)
        st_space_remove(b->memory, &b->ecam);
    st_pci_fini(&b->bridge);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void
st_pci_bus_walk(struct st_pack *k, void *bus)
{
    struct st_pci_bus *b = bus;

    pthread_mutex_lock(&b->lock);
    st_pack_u32(k, &b->address);
    b->address &= LATCHED;
    for (unsigned i = 0; i < BRIDGE_CONFIG; i += 4) {
        uint32_t word = st_pci_config_read(&b->bridge, i, 4);

        st_pack_u32(k, &word);
        if (k->reading && !k->bad)
            st_pci_config_write(&b->bridge, i, 4, word);
    }
    pthread_mutex_unlock(&b->lock);
}

void
st_pci_bus_reset(struct st_pci_bus *b)
{
    struct st_access a = {0};

    pthread_mutex_lock(&b->lock);
    b->address = 0;
    pthread_mutex_unlock(&b->lock);
    st_pci_reset(&b->bridge, &a);
}
