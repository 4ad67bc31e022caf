/* SPDX-License-Identifier: MIT
 *
 * A PCI function's way into the machine; see pci_kvm.h.
 */
#include "pci_kvm.h"

#include <errno.h>
#include <stdlib.h>

#include "list.h"

struct pci_kvm_bar {
    struct st_region region; /* nowhere, or where the BAR is decoded */
    struct st_pci_kvm *owner;
    unsigned bar;
};

/* A doorbell of a BAR that is an eventfd. */
struct pci_kvm_bell {
    struct st_list link;
    unsigned bar, len;
    uint64_t offset;
    int fd;           /* the function's */
    uint64_t address; /* where KVM listens for it; ST_SPACE_NOWHERE */
};

struct st_pci_kvm {
    struct st_pci_host host;
    struct st_pci_kvm_opts opts;
    struct pci_kvm_bar bar[ST_PCI_BARS];
    struct st_irq_msi *msi; /* owned; one a vector */
    pthread_mutex_t lock;   /* guards where BARs and bells are; innermost */
    struct st_list bells;
    bool asserted; /* INTA */
    _Atomic uint64_t lines, refused;
    struct st_limiter limiter;
};

static struct st_pci_kvm *
of_host(struct st_pci_host *h)
{
    return st_container(h, struct st_pci_kvm, host);
}

/* ---- Bells ---- */

static int
bell_tell(struct st_pci_kvm *p, const struct pci_kvm_bell *b, bool on)
{
    struct kvm_ioeventfd e = {.addr = b->address,
                              .len = b->len,
                              .fd = b->fd,
                              .flags = on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN};

    return st_kvm_ioctl(p->opts.irq->kvm->vm, KVM_IOEVENTFD, &e);
}

/* Under the lock: listen for B where its BAR is now. Where KVM has no room for
 * one more, the doorbell stays an exit, which says the same. */
static void
bell_place(struct st_pci_kvm *p, struct pci_kvm_bell *b)
{
    uint64_t start = p->bar[b->bar].region.start;
    uint64_t to = start == ST_SPACE_NOWHERE ? start : start + b->offset;

    if (b->address == to)
        return;
    if (b->address != ST_SPACE_NOWHERE)
        bell_tell(p, b, false);
    b->address = to;
    if (to != ST_SPACE_NOWHERE && bell_tell(p, b, true) < 0)
        b->address = ST_SPACE_NOWHERE;
}

static void
bell_gone(struct st_pci_kvm *p, struct pci_kvm_bell *b)
{
    if (b->address != ST_SPACE_NOWHERE)
        bell_tell(p, b, false);
    st_list_remove(&b->link);
    free(b);
}

static void
pci_bell(struct st_pci_host *h, unsigned bar, uint64_t offset, unsigned len,
         int fd, bool on)
{
    struct st_pci_kvm *p = of_host(h);
    struct pci_kvm_bell *b;

    pthread_mutex_lock(&p->lock);
    st_list_for(old, next, &p->bells, struct pci_kvm_bell, link)
    {
        if (old->bar == bar && old->offset == offset)
            bell_gone(p, old);
    }
    b = on ? calloc(1, sizeof(*b)) : NULL;
    if (b) {
        *b = (struct pci_kvm_bell){.bar = bar,
                                   .len = len,
                                   .offset = offset,
                                   .fd = fd,
                                   .address = ST_SPACE_NOWHERE};
        st_list_append(&p->bells, &b->link);
        bell_place(p, b);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- BARs ---- */

static bool
bar_access(struct st_region *r, struct st_access *a)
{
    struct pci_kvm_bar *b = r->arg;

    return st_pci_access(b->owner->opts.pci, b->bar, a);
}

static const struct st_region_ops bar_ops = {"pci", bar_access};

/* Under the function's lock. */
static void
bars_moved(struct st_pci_host *h)
{
    struct st_pci_kvm *p = of_host(h);

    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < ST_PCI_BARS; i++) {
        struct pci_kvm_bar *b = &p->bar[i];
        uint64_t to = st_pci_bar_address(p->opts.pci, i);

        if (!b->region.size || to == b->region.start)
            continue;
        /* While a guest asks for a BAR's size, or moves its half, it may lie
         * where others are: it is not decoded there. */
        if (st_space_move(p->opts.memory, &b->region, to) < 0) {
            atomic_fetch_add(&p->refused, 1);
            st_warn_limited(p->opts.log, &p->limiter,
                            "%s: bar %u cannot be at 0x%jx", p->opts.name, i,
                            (uintmax_t)to);
        }
    }
    st_list_for(b, next, &p->bells, struct pci_kvm_bell, link) bell_place(p, b);
    pthread_mutex_unlock(&p->lock);
}

/* ---- Interrupts ---- */

static void
pci_msix(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    struct st_pci_kvm *p = of_host(h);

    st_irq_msi_send(p->opts.irq, &p->msi[v], address, data);
}

static void
route(struct st_pci_kvm *p, unsigned v)
{
    struct st_pci_vector e;

    st_pci_vector_get(p->opts.pci, v, &e);
    if (!e.masked && st_pci_uses_msix(p->opts.pci))
        st_irq_msi_route(p->opts.irq, &p->msi[v], e.address, e.data);
}

/* Under the function's lock. A masked vector keeps its route, which nobody uses
 * then; a kernel that masks and unmasks changes nothing. */
static void
msix_changed(struct st_pci_host *h, unsigned v)
{
    struct st_pci_kvm *p = of_host(h);
    unsigned n = p->opts.pci->vectors;

    if (v < n)
        route(p, v);
    else
        for (unsigned i = 0; i < n; i++)
            route(p, i);
}

static void
pci_intx(struct st_pci_host *h, bool level)
{
    struct st_pci_kvm *p = of_host(h);

    if (level == p->asserted)
        return;
    p->asserted = level;
    atomic_fetch_add(&p->lines, 1);
    st_irq_line(p->opts.irq, p->opts.gsi, level);
}

/* ---- Made and freed ---- */

int
st_pci_kvm_create(const struct st_pci_kvm_opts *opts, struct st_pci_kvm **out)
{
    struct st_pci_kvm *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->opts = *opts;
    p->host = (struct st_pci_host){.msix = pci_msix,
                                   .intx = pci_intx,
                                   .bars_moved = bars_moved,
                                   .msix_changed = msix_changed};
    if (opts->irq->kvm->ioeventfd)
        p->host.bell = pci_bell;
    pthread_mutex_init(&p->lock, NULL);
    st_list_init(&p->bells);
    p->msi = calloc(opts->pci->vectors + 1, sizeof(*p->msi));
    if (!p->msi) {
        free(p);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < opts->pci->vectors; i++)
        st_irq_msi_open(opts->irq, &p->msi[i]);
    for (unsigned i = 0; i < ST_PCI_BARS; i++) {
        struct pci_kvm_bar *b = &p->bar[i];

        *b = (struct pci_kvm_bar){.owner = p, .bar = i};
        b->region = (struct st_region){.ops = &bar_ops,
                                       .arg = b,
                                       .start = ST_SPACE_NOWHERE,
                                       .size = opts->pci->bar[i].size};
    }
    opts->pci->host = &p->host;
    *out = p;
    return 0;
}

void
st_pci_kvm_destroy(struct st_pci_kvm *p)
{
    if (!p)
        return;
    p->opts.pci->host = NULL;
    for (unsigned i = 0; i < ST_PCI_BARS; i++)
        st_space_remove(p->opts.memory, &p->bar[i].region);
    if (p->asserted)
        st_irq_line(p->opts.irq, p->opts.gsi, false);
    for (unsigned i = 0; i < p->opts.pci->vectors; i++)
        st_irq_msi_close(p->opts.irq, &p->msi[i]);
    st_list_for(b, next, &p->bells, struct pci_kvm_bell, link) bell_gone(p, b);
    pthread_mutex_destroy(&p->lock);
    free(p->msi);
    free(p);
}

void
st_pci_kvm_stats(const struct st_pci_kvm *p, struct st_pci_kvm_stats *out)
{
    *out = (struct st_pci_kvm_stats){.lines = atomic_load(&p->lines),
                                     .refused = atomic_load(&p->refused)};
    for (unsigned i = 0; i < ST_PCI_BARS; i++)
        out->accesses += atomic_load(&p->bar[i].region.accesses);
    for (unsigned i = 0; i < p->opts.pci->vectors; i++) {
        out->sent += atomic_load(&p->msi[i].sent);
        out->slow += atomic_load(&p->msi[i].slow);
    }
}
