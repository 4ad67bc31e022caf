/* SPDX-License-Identifier: MIT
 *
 * Interrupts; see irq.h.
 */
#include "irq.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "range.h"

enum {
    PIC_LINES = 16,
    PIC_PINS = 8,
    CASCADE = 2, /* of the second PIC: nobody's */
    TIMER_PIN = 2,
    FIXED = 2 * PIC_LINES + ST_IRQ_LINES, /* entries at most, for lines */
};

/* ---- The table ---- */

static void
table_chip(struct st_irq *q, unsigned gsi, unsigned chip, unsigned pin)
{
    q->table->entries[q->table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = {.irqchip = chip, .pin = pin}};
}

static void
table_lines(struct st_irq *q)
{
    for (unsigned i = 0; i < PIC_LINES; i++)
        if (i != CASCADE)
            table_chip(q, i,
                       i < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER
                                    : KVM_IRQCHIP_PIC_SLAVE,
                       i % PIC_PINS);
    /* The timer's line is pin 2, as the MADT says. */
    table_chip(q, 0, KVM_IRQCHIP_IOAPIC, TIMER_PIN);
    for (unsigned i = 1; i < ST_IRQ_LINES; i++)
        if (i != TIMER_PIN)
            table_chip(q, i, KVM_IRQCHIP_IOAPIC, i);
}

static int
table_commit(struct st_irq *q)
{
    atomic_fetch_add_explicit(&q->routed, 1, memory_order_relaxed);
    return st_kvm_ioctl(q->kvm->vm, KVM_SET_GSI_ROUTING, q->table);
}

int
st_irq_init(struct st_irq *q, const struct st_kvm *k)
{
    *q = (struct st_irq){.kvm = k, .next = ST_IRQ_LINES};
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->line_lock, NULL);
    q->size = k->routes;
    if (q->size < FIXED)
        return -ENOSPC;
    q->table =
        calloc(1, sizeof(*q->table) + q->size * sizeof(q->table->entries[0]));
    if (!q->table)
        return -ENOMEM;
    table_lines(q);
    return table_commit(q);
}

void
st_irq_fini(struct st_irq *q)
{
    free(q->table);
    q->table = NULL;
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->line_lock);
}

/* ---- Lines ---- */

static void
line_set(struct st_irq *q, unsigned gsi, bool level)
{
    struct kvm_irq_level l = {.irq = gsi, .level = level};

    st_kvm_ioctl(q->kvm->vm, KVM_IRQ_LINE, &l);
}

void
st_irq_line(struct st_irq *q, unsigned gsi, bool level)
{
    unsigned before;

    if (gsi >= ST_IRQ_LINES)
        return;
    pthread_mutex_lock(&q->line_lock);
    before = q->asserted[gsi];
    q->asserted[gsi] += level ? 1 : before ? -1u : 0;
    if (!before != !q->asserted[gsi])
        line_set(q, gsi, level);
    pthread_mutex_unlock(&q->line_lock);
}

void
st_irq_pulse(struct st_irq *q, unsigned gsi)
{
    pthread_mutex_lock(&q->line_lock);
    if (gsi < ST_IRQ_LINES && !q->asserted[gsi]) {
        line_set(q, gsi, true);
        line_set(q, gsi, false);
    }
    pthread_mutex_unlock(&q->line_lock);
}

/* ---- Messages ---- */

void
st_irq_msi_open(struct st_irq *q, struct st_irq_msi *m)
{
    m->fd = -1;
    pthread_mutex_lock(&q->lock);
    /* A GSI is below the number of routes, and has one. */
    if (q->next < q->size && q->next + FIXED - ST_IRQ_LINES < q->size)
        m->gsi = q->next++;
    pthread_mutex_unlock(&q->lock);
}

static int
msi_wire(struct st_irq *q, struct st_irq_msi *m, bool on)
{
    struct kvm_irqfd f = {.fd = (uint32_t)m->fd,
                          .gsi = m->gsi,
                          .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
    int rc = st_kvm_ioctl(q->kvm->vm, KVM_IRQFD, &f);

    if (rc == 0)
        m->wired = on;
    return rc;
}

void
st_irq_msi_close(struct st_irq *q, struct st_irq_msi *m)
{
    if (m->wired)
        msi_wire(q, m, false);
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
}

/* The route of GSI; a new one if there is none. NULL: no room. */
static struct kvm_irq_routing_entry *
table_find(struct st_irq *q, unsigned gsi)
{
    struct kvm_irq_routing *t = q->table;

    for (unsigned i = 0; i < t->nr; i++)
        if (t->entries[i].gsi == gsi)
            return &t->entries[i];
    return t->nr < q->size ? &t->entries[t->nr++] : NULL;
}

static int
table_route(struct st_irq *q, unsigned gsi, uint64_t address, uint32_t data)
{
    struct kvm_irq_routing_entry *e;
    int rc = -ENOSPC;

    pthread_mutex_lock(&q->lock);
    e = table_find(q, gsi);
    if (e) {
        *e = (struct kvm_irq_routing_entry){
            .gsi = gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)address,
                      .address_hi = (uint32_t)(address >> 32),
                      .data = data}};
        rc = table_commit(q);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

void
st_irq_msi_route(struct st_irq *q, struct st_irq_msi *m, uint64_t address,
                 uint32_t data)
{
    int rc;

    if (!m->gsi ||
        (atomic_load(&m->on) && atomic_load(&m->address) == address &&
         atomic_load(&m->data) == data))
        return;
    /* While it changes, messages go the slow way. */
    atomic_store(&m->on, false);
    if (m->fd < 0)
        m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = m->fd < 0 ? -errno : table_route(q, m->gsi, address, data);
    if (rc == 0 && !m->wired)
        rc = msi_wire(q, m, true);
    if (rc < 0)
        return;
    atomic_store(&m->address, address);
    atomic_store(&m->data, data);
    atomic_store(&m->on, true);
}

void
st_irq_msi_send(struct st_irq *q, struct st_irq_msi *m, uint64_t address,
                uint32_t data)
{
    const uint64_t one = 1;
    struct kvm_msi msi = {.address_lo = (uint32_t)address,
                          .address_hi = (uint32_t)(address >> 32),
                          .data = data};

    if (atomic_load(&m->on) && atomic_load(&m->address) == address &&
        atomic_load(&m->data) == data &&
        write(m->fd, &one, sizeof(one)) == sizeof(one)) {
        atomic_fetch_add_explicit(&m->sent, 1, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(&m->slow, 1, memory_order_relaxed);
    st_kvm_ioctl(q->kvm->vm, KVM_SIGNAL_MSI, &msi);
}
