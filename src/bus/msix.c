/* SPDX-License-Identifier: MIT
 *
 * MSI-X; see msix.h.
 *
 * Raising takes no lock. Either the one who raises sees that the vector can be
 * delivered, or the one who unmasks sees the pending bit: both change their
 * side first and look at the other's after that (sequentially consistent), and
 * the bit is delivered by whoever clears it.
 */
#include "msix.h"

#include <errno.h>
#include <stdlib.h>

#include "range.h"

enum { ENTRY = 16, CONTROL = 3, CONTROL_MASK = 1 };

int
st_msix_alloc(struct st_pci *p)
{
    p->entry = calloc(p->vectors, sizeof(*p->entry));
    p->pending = calloc((p->vectors + 63) / 64, sizeof(*p->pending));
    if (!p->entry || !p->pending)
        return -ENOMEM;
    st_msix_reset(p);
    return 0;
}

void
st_msix_free(struct st_pci *p)
{
    free(p->entry);
    free(p->pending);
    p->entry = NULL;
    p->pending = NULL;
}

void
st_msix_reset(struct st_pci *p)
{
    for (unsigned v = 0; v < p->vectors; v++) {
        for (unsigned i = 0; i < CONTROL; i++)
            atomic_store(&p->entry[v].word[i], 0);
        atomic_store(&p->entry[v].word[CONTROL], CONTROL_MASK);
    }
    for (unsigned i = 0; i < (p->vectors + 63) / 64; i++)
        atomic_store(&p->pending[i], 0);
}

static bool
can_deliver(const struct st_pci *p, unsigned v)
{
    return atomic_load(&p->msix_on) && atomic_load(&p->bus_master) &&
           (p->host->keeps_msix ||
            (!atomic_load(&p->msix_masked) &&
             !(atomic_load(&p->entry[v].word[CONTROL]) & CONTROL_MASK)));
}

/* V may be pending: deliver it if it can be. */
static void
deliver(struct st_pci *p, unsigned v)
{
    uint64_t bit = UINT64_C(1) << v % 64;
    struct st_pci_msix_entry *e = &p->entry[v];

    if (!can_deliver(p, v) ||
        !(atomic_fetch_and(&p->pending[v / 64], ~bit) & bit))
        return;
    p->host->msix(p->host, v,
                  atomic_load(&e->word[0]) | (uint64_t)atomic_load(&e->word[1])
                                                 << 32,
                  atomic_load(&e->word[2]));
}

void
st_pci_raise(struct st_pci *p, unsigned v)
{
    if (v >= p->vectors || !p->host)
        return;
    atomic_fetch_or(&p->pending[v / 64], UINT64_C(1) << v % 64);
    deliver(p, v);
}

bool
st_pci_pending(const struct st_pci *p, unsigned v)
{
    return v < p->vectors && atomic_load(&p->pending[v / 64]) >> v % 64 & 1;
}

void
st_msix_deliver(struct st_pci *p)
{
    for (unsigned i = 0; i < (p->vectors + 63) / 64; i++)
        for (uint64_t bits = atomic_load(&p->pending[i]); bits;
             bits &= bits - 1)
            deliver(p, i * 64 + (unsigned)__builtin_ctzll(bits));
}

void
st_pci_vector_get(struct st_pci *p, unsigned v, struct st_pci_vector *out)
{
    struct st_pci_msix_entry *e = &p->entry[v];

    out->address = atomic_load(&e->word[0]) | (uint64_t)atomic_load(&e->word[1])
                                                  << 32;
    out->data = atomic_load(&e->word[2]);
    out->masked = atomic_load(&e->word[CONTROL]) & CONTROL_MASK;
    out->pending = st_pci_pending(p, v);
}

void
st_pci_vector_set(struct st_pci *p, unsigned v, const struct st_pci_vector *in)
{
    struct st_pci_msix_entry *e = &p->entry[v];

    pthread_mutex_lock(&p->lock);
    atomic_store(&e->word[0], (uint32_t)in->address);
    atomic_store(&e->word[1], (uint32_t)(in->address >> 32));
    atomic_store(&e->word[2], in->data);
    atomic_store(&e->word[CONTROL], in->masked ? CONTROL_MASK : 0);
    if (in->pending)
        atomic_fetch_or(&p->pending[v / 64], UINT64_C(1) << v % 64);
    if (p->host && p->host->msix_changed)
        p->host->msix_changed(p->host, v);
    if (p->host)
        deliver(p, v);
    pthread_mutex_unlock(&p->lock);
}

void
st_msix_control(struct st_pci *p, uint16_t control)
{
    bool on = control & ST_MSIX_ENABLE, masked = control & ST_MSIX_MASK;
    bool changed = atomic_exchange(&p->msix_on, on) != on;

    changed |= atomic_exchange(&p->msix_masked, masked) != masked;
    if (!changed)
        return;
    if (p->host && p->host->msix_changed)
        p->host->msix_changed(p->host, p->vectors);
    if (p->host)
        st_msix_deliver(p);
}

/* One dword of the table. */
static uint32_t
table_word(struct st_pci *p, uint64_t at, bool write, uint32_t value)
{
    unsigned v = (unsigned)(at / ENTRY), i = at % ENTRY / 4;

    if (!write)
        return atomic_load(&p->entry[v].word[i]);
    if (i == CONTROL)
        value &= CONTROL_MASK;
    if (i == 0)
        value &= ~UINT32_C(3);
    atomic_store(&p->entry[v].word[i], value);
    if (p->host && p->host->msix_changed)
        p->host->msix_changed(p->host, v);
    if (p->host)
        deliver(p, v);
    return value;
}

static uint32_t
pba_word(struct st_pci *p, uint64_t at)
{
    return (uint32_t)(atomic_load(&p->pending[at / 8]) >> at % 8 * 8);
}

bool
st_msix_access(struct st_pci *p, struct st_access *a)
{
    uint64_t table = a->offset - p->msix_table, pba = a->offset - p->msix_pba;
    bool in_table = st_range_ok(table, a->len, p->vectors * ENTRY);
    bool in_pba = st_range_ok(pba, a->len, (p->vectors + 63) / 64 * 8);
    uint64_t value = 0;

    if (!in_table && !in_pba)
        return false;
    /* Dwords and quadwords only (6.8.2); the rest reads 0. */
    for (unsigned i = 0; a->len >= 4 && i < a->len; i += 4) {
        uint32_t word = (uint32_t)(a->value >> 8 * i);

        if (in_table)
            word = table_word(p, table + i, a->write, word);
        else
            word = pba_word(p, pba + i);
        value |= (uint64_t)word << 8 * i;
    }
    if (!a->write)
        a->value = value;
    return true;
}
