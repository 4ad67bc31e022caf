/* SPDX-License-Identifier: MIT
 *
 * A PCI function: what a device model builds and a host drives (PCI Local Bus
 * 3.0; PCI Express Base 4.0, 7.5 and 7.7).
 *
 *   host: machine, vfio-user, a test           device: nvme, ...
 *   ---------------------------------          ----------------------------
 *   st_pci_config_read, _write  ------> pci.c ---> enabled, reset
 *   st_pci_access  ---(MSI-X: msix.c)--> lock ---> access: done, or deferred
 *                  ----------------------------->  hot: no lock
 *   host->msix, intx, bars_moved  <--------------  st_pci_raise, st_pci_line
 *
 * Threads: a host may call from any thread, several at a time. The device's
 * lock is taken here around access, enabled and reset. Nothing waits under it:
 * what has to wait is deferred. A device's loops take it by st_pci_trylock and
 * come back later when it is taken. Raising an interrupt takes no lock.
 */
#ifndef ST_PCI_H
#define ST_PCI_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct st_pci;

enum {
    ST_PCI_BARS = 6,
    ST_PCI_CONFIG = 4096,     /* bytes of configuration space */
    ST_PCI_VECTORS_MAX = 2048 /* MSI-X's own limit */
};

/* One access to a BAR, or a reset. The host fills it and owns the memory until
 * it is done. */
struct st_access {
    uint64_t offset; /* in the BAR */
    unsigned len;    /* 1, 2, 4 or 8; OFFSET is a multiple of it */
    bool write;
    uint64_t value; /* in for a write, out for a read */
    /* Called when a deferred access is done, on any thread, without the
     * lock. */
    void (*done)(struct st_access *a);
};

/* A function is saved, or becomes what was saved. The host fills done, for a
 * save timeout_ns, for a restore blob and len, and owns the memory until done
 * is called: once, on the device's home loop, never before the call returns. */
struct st_pci_saving {
    void (*done)(struct st_pci_saving *s, int rc); /* 0 or -errno */
    uint64_t timeout_ns; /* commands under way have so long to end */
    void *blob;          /* out of a save: malloc'd, the host's, and begins with
                          * a magic and a version of the device's; in to a
                          * restore: lent until done */
    size_t len;
    struct st_err err; /* out: a sentence when rc < 0 */
};

/* What a PCI function can do. */
struct st_pci_ops {
    const char *name;

    /* Carry out A. True: done. False: deferred, A->done will be called (by
     * st_access_done). Registers that are not there read 0 and ignore
     * writes. */
    bool (*access)(struct st_pci *p, unsigned bar, struct st_access *a);

    /* Optional: a write to a doorbell. True: it was one, and is done. Without
     * the lock, on any thread: store and kick, and lower the pin at most. */
    bool (*hot)(struct st_pci *p, unsigned bar, const struct st_access *a);

    /* Optional: Bus Master Enable has changed. While it is off the device does
     * no DMA; interrupts stay pending by themselves. */
    void (*enabled)(struct st_pci *p, bool bus_master);

    /* Function level reset, or the host's: back to power-on state, but for
     * what the device is made of. As access. Its configuration space is reset
     * before. */
    bool (*reset)(struct st_pci *p, struct st_access *a);

    /* Optional, all three or none: it can be saved, with configuration space
     * and MSI-X. On the device's home loop.
     *
     * save: what is under way ends. After rc 0 it stays as it was saved: it
     * takes nothing up, touches no memory and raises nothing until thaw, which
     * a reset is not. -ETIMEDOUT, or what the device says: then it goes on.
     * restore: it is as after power-on; after rc 0 it goes on as it was saved.
     * -EINVAL: the blob is not of such a device; it is as after power-on.
     * thaw: it goes on. */
    void (*save)(struct st_pci *p, struct st_pci_saving *s);
    void (*restore)(struct st_pci *p, struct st_pci_saving *s);
    void (*thaw)(struct st_pci *p);
};

/* What a host does for a function; any thread, nothing may wait. */
struct st_pci_host {
    /* Deliver MSI-X vector V, whose table entry says ADDRESS and DATA. */
    void (*msix)(struct st_pci_host *h, unsigned v, uint64_t address,
                 uint32_t data);
    /* Optional: INTx is now asserted or not. One call at a time. */
    void (*intx)(struct st_pci_host *h, bool level);
    /* Optional, under the lock: a BAR's address or Memory Space Enable has
     * changed; see st_pci_bar_address. */
    void (*bars_moved)(struct st_pci_host *h);
    /* Optional, under the lock: entry V of the MSI-X table (or for V ==
     * vectors, all of them) was written, enabled or masked. */
    void (*msix_changed)(struct st_pci_host *h, unsigned v);
    /* Optional: from now on (ON), a write of LEN bytes at OFFSET of BAR means
     * no more than a write to FD, an eventfd: its value does not matter, and
     * the function need not see it. The descriptor is open until the same is
     * said with ON false. Any thread. */
    void (*bell)(struct st_pci_host *h, unsigned bar, uint64_t offset,
                 unsigned len, int fd, bool on);
    /* The host keeps the MSI-X table and masks vectors itself: every vector
     * that is raised is delivered at once. */
    bool keeps_msix;
};

/* Who a function says it is. */
struct st_pci_id {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint32_t class_code; /* class << 16 | subclass << 8 | interface */
    uint8_t revision;
};

enum { ST_PCI_BAR_64 = 1, ST_PCI_BAR_PREFETCH = 2 }; /* flags of a BAR */

/* One entry of an MSI-X table. */
struct st_pci_msix_entry {
    _Atomic uint32_t word[4]; /* address, upper address, data, control */
};

/* A device model embeds it, first. Private but for host. */
struct st_pci {
    const struct st_pci_ops *ops;
    struct st_pci_host *host; /* borrowed; set before anything is raised */
    pthread_mutex_t lock;
    uint8_t config[ST_PCI_CONFIG];
    uint8_t writable[ST_PCI_CONFIG]; /* bits that a write changes */
    uint8_t reset_to[ST_PCI_CONFIG];
    struct {
        uint64_t size; /* bytes, power of two; 0: none, or upper half */
        unsigned flags;
    } bar[ST_PCI_BARS];
    unsigned last_cap, next_cap; /* offsets */
    unsigned express, msix;      /* capabilities' offsets; 0: none */
    unsigned vectors, msix_bar;
    uint64_t msix_table, msix_pba;   /* offsets in that BAR */
    struct st_pci_msix_entry *entry; /* owned */
    _Atomic uint64_t *pending;       /* owned; a bit a vector */
    _Atomic bool msix_on, msix_masked, bus_master, memory, line, intx_off;
    pthread_mutex_t line_lock; /* innermost; guards told and host->intx */
    bool told;                 /* the level that the host knows */
    struct st_access flr;
    _Atomic bool resetting; /* by flr */
};

/* ---- A device's side ---- */

/* P is zeroed. Fills configuration space with ID, no BAR, no capability. */
void st_pci_init(struct st_pci *p, const struct st_pci_ops *ops,
                 const struct st_pci_id *id);
void st_pci_fini(struct st_pci *p);

/* Say from now on, and after resets, that it is VENDOR and DEVICE. Any
 * thread. */
void st_pci_set_id(struct st_pci *p, uint16_t vendor, uint16_t device);

/* BAR number BAR of SIZE bytes (power of two, at least 4096). One of 64 bits
 * takes the next number as well. Set-up only, as all that begins with add. */
void st_pci_add_bar(struct st_pci *p, unsigned bar, uint64_t size,
                    unsigned flags);

/* A capability of LEN bytes with its header, whose body is BODY (LEN - 2 bytes
 * or NULL for zeroes); nothing of it is writable. Returns its offset. */
unsigned st_pci_add_cap(struct st_pci *p, uint8_t id, unsigned len,
                        const void *body);

/* The guest may write the bits of MASK at OFFSET. */
void st_pci_add_writable(struct st_pci *p, unsigned offset, uint32_t mask);

/* MSI-X with VECTORS entries; table and pending bits in BAR at these offsets.
 * 0 or -ENOMEM. */
int st_pci_add_msix(struct st_pci *p, unsigned vectors, unsigned bar,
                    uint64_t table, uint64_t pba);

/* The PCI Express capability of an endpoint, with function level reset. */
void st_pci_add_express(struct st_pci *p);

/* Power management: D0 and D3hot, no PME. */
void st_pci_add_pm(struct st_pci *p);

/* An interrupt pin, INTA. */
void st_pci_add_intx(struct st_pci *p);

/* Deliver vector V, now, or when it is neither masked nor disabled any more. V
 * beyond the table does nothing. Any thread. */
void st_pci_raise(struct st_pci *p, unsigned v);

/* Assert INTA or not, a level. Any thread. */
void st_pci_line(struct st_pci *p, bool level);

/* May the device access memory? Any thread. */
static inline bool
st_pci_bus_master(const struct st_pci *p)
{
    return atomic_load_explicit(&p->bus_master, memory_order_acquire);
}

/* Is MSI-X enabled? Then INTx is not used. Any thread. */
static inline bool
st_pci_uses_msix(const struct st_pci *p)
{
    return atomic_load_explicit(&p->msix_on, memory_order_acquire);
}

/* A deferred access is done. Any thread, the lock not held. */
static inline void
st_access_done(struct st_access *a)
{
    a->done(a);
}

static inline bool
st_pci_trylock(struct st_pci *p)
{
    return pthread_mutex_trylock(&p->lock) == 0;
}

static inline void
st_pci_unlock(struct st_pci *p)
{
    pthread_mutex_unlock(&p->lock);
}

/* Vector V of MSI-X, for a device that saves itself. */
struct st_pci_vector {
    uint64_t address;
    uint32_t data;
    bool masked, pending;
};

/* Any thread. */
void st_pci_vector_get(struct st_pci *p, unsigned v, struct st_pci_vector *out);

/* As if the guest had written it. What is pending is delivered as soon as it
 * may be. Takes the lock. */
void st_pci_vector_set(struct st_pci *p, unsigned v,
                       const struct st_pci_vector *in);

/* ---- A host's side ---- */

/* Read LEN bytes (1 to 4, any alignment) at OFFSET, little-endian; all ones
 * beyond the end. */
uint32_t st_pci_config_read(struct st_pci *p, unsigned offset, unsigned len);

/* The same for a write. A function level reset begins at once and ends by
 * itself. */
void st_pci_config_write(struct st_pci *p, unsigned offset, unsigned len,
                         uint32_t value);

/* Carry out A on BAR. True: done; false: A->done will be called. What is
 * outside the BAR, badly aligned or long, or while Memory Space Enable is off
 * reads all ones and is not written. */
bool st_pci_access(struct st_pci *p, unsigned bar, struct st_access *a);

/* Where BAR is in the guest's address space, or UINT64_MAX: nowhere now. Under
 * the lock, or when nobody else is in. */
uint64_t st_pci_bar_address(const struct st_pci *p, unsigned bar);

/* Reset the function, as its host. As st_pci_access: A's offset, len and value
 * are ignored. */
bool st_pci_reset(struct st_pci *p, struct st_access *a);

/* Is vector V raised and not delivered? Any thread. */
bool st_pci_pending(const struct st_pci *p, unsigned v);

#endif
