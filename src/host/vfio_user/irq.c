/* SPDX-License-Identifier: MIT
 *
 * Interrupts: eventfds that the client gives and takes away, and what is raised
 * while there is none.
 *
 *   any thread:  file? write it : pending = 1, file now? take it back, write
 *   the loop:    file = new, pending? take it, write       the old one:
 * st_defer
 *
 * Both sides change their word first and look at the other's after that
 * (sequentially consistent): no interrupt is lost, one may come twice. Who
 * wrote to a file that was taken away meanwhile raises once more, for the
 * client may not look at it any more.
 *
 * INTx is a level: it fires, is masked by that, and fires again at UNMASK if it
 * is still up.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "range.h"
#include "vfio_private.h"

enum { PCI_INTERRUPT_PIN = 0x3d, RESAMPLE_READS = 16 };

static void
ring(int fd)
{
    static const uint64_t one = 1;
    ssize_t n;

    do
        n = write(fd, &one, sizeof(one));
    while (n < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, the client has enough to read. */
}

/* ---- MSI-X ---- */

static void
vector_raise(struct vfio_vector *x)
{
    for (;;) {
        struct vfio_irq_file *f = atomic_load(&x->file);

        if (!f) {
            atomic_store(&x->pending, true);
            f = atomic_load(&x->file);
            if (!f || !atomic_exchange(&x->pending, false)) {
                atomic_fetch_add_explicit(&x->kept, 1, memory_order_relaxed);
                return;
            }
        }
        ring(f->fd);
        atomic_fetch_add_explicit(&x->sent, 1, memory_order_relaxed);
        if (atomic_load(&x->file) == f)
            return;
    }
}

static void
host_msix(struct st_pci_host *h, unsigned n, uint64_t address, uint32_t data)
{
    struct st_vfio_user *v = st_container(h, struct st_vfio_user, host);

    (void)address; /* the client keeps the table */
    (void)data;
    vector_raise(&v->vector[n]);
}

static void
file_free(struct st_deferred *d)
{
    struct vfio_irq_file *f = st_container(d, struct vfio_irq_file, defer);
    struct st_vfio_user *v = f->v;

    close(f->fd);
    free(f);
    v->busy--;
    st_vfio_check(v);
}

/* F (taken, or NULL) is the vector's file now. */
static void
vector_set(struct st_vfio_user *v, unsigned n, struct vfio_irq_file *f)
{
    struct vfio_vector *x = &v->vector[n];
    struct vfio_irq_file *old;

    st_vfio_journal_vector(v, n, f ? f->fd : -1);
    old = atomic_exchange(&x->file, f);
    if (old) {
        v->busy++;
        st_defer(v->loop, &old->defer, file_free);
    }
    if (f && atomic_exchange(&x->pending, false)) {
        ring(f->fd);
        atomic_fetch_add_explicit(&x->sent, 1, memory_order_relaxed);
    }
}

/* ---- INTx ---- */

/* With the lock. */
static void
intx_fire(struct vfio_intx *x)
{
    if (!x->level || x->masked || x->fd < 0)
        return;
    x->masked = true;
    x->sent++;
    ring(x->fd);
}

static void
host_intx(struct st_pci_host *h, bool level)
{
    struct vfio_intx *x = &st_container(h, struct st_vfio_user, host)->intx;

    pthread_mutex_lock(&x->lock);
    x->level = level;
    intx_fire(x);
    pthread_mutex_unlock(&x->lock);
}

static void
intx_unmask(struct vfio_intx *x)
{
    pthread_mutex_lock(&x->lock);
    x->masked = false;
    intx_fire(x);
    pthread_mutex_unlock(&x->lock);
}

/* FD (taken, or -1) is the line's eventfd now. */
static void
intx_set(struct st_vfio_user *v, int fd)
{
    struct vfio_intx *x = &v->intx;
    int old;

    st_vfio_journal_intx(v, "intx", fd);
    pthread_mutex_lock(&x->lock);
    old = x->fd;
    x->fd = fd;
    x->masked = false;
    intx_fire(x);
    pthread_mutex_unlock(&x->lock);
    if (old >= 0)
        close(old);
}

/* The guest is done with the interrupt, says KVM. */
static void
resample_ready(struct st_watch *w, unsigned events)
{
    struct vfio_intx *x = st_container(w, struct vfio_intx, resample);
    bool rang = false;
    uint64_t n;

    (void)events;
    for (unsigned i = 0; i < RESAMPLE_READS; i++) {
        if (read(w->fd, &n, sizeof(n)) != sizeof(n))
            break;
        rang = true;
    }
    if (rang)
        intx_unmask(x);
}

/* FD (taken, or -1) is what says so now. 0 or an errno. */
static int
resample_set(struct st_vfio_user *v, int fd)
{
    struct st_watch *w = &v->intx.resample;
    int rc;

    st_vfio_journal_intx(v, "resample", fd);
    if (w->fd >= 0) {
        st_watch_remove(v->loop, w);
        close(w->fd);
    }
    w->fd = fd;
    w->events = EPOLLIN;
    w->ready = resample_ready;
    rc = fd >= 0 ? st_watch_add(v->loop, w) : 0;
    if (rc < 0) {
        close(fd);
        w->fd = -1;
    }
    return -rc;
}

/* ---- GET_IRQ_INFO, SET_IRQS ---- */

static unsigned
irq_count(struct st_vfio_user *v, unsigned index)
{
    if (index == VFIO_INTX)
        return st_pci_config_read(v->pci, PCI_INTERRUPT_PIN, 1) != 0;
    return index == VFIO_MSIX ? v->pci->vectors : 0;
}

void
st_vfio_irq_info(struct st_vfio_user *v)
{
    struct vfio_irq_info in, *out;
    uint32_t index, count, flags = VFIO_IRQ_EVENTFD;

    if (v->conn.len < sizeof(in)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    memcpy(&in, v->conn.payload, sizeof(in));
    index = le32_get(in.index);
    if (le32_get(in.argsz) < sizeof(in) || index >= VFIO_IRQS) {
        st_vfio_error(v, EINVAL);
        return;
    }
    count = irq_count(v, index);
    if (index == VFIO_INTX)
        flags |= VFIO_IRQ_MASKABLE | VFIO_IRQ_AUTOMASKED;
    out = st_vfio_payload(v, sizeof(*out));
    if (!out)
        return;
    *out = (struct vfio_irq_info){.argsz = le32_of(sizeof(*out)),
                                  .flags = le32_of(count ? flags : 0),
                                  .index = in.index,
                                  .count = le32_of(count)};
    st_vfio_reply(v, sizeof(*out), -1);
}

/* Is it an eventfd, or at least none of what has readers elsewhere (a pipe
 * could end us by a signal)? Writes to it never block. */
static bool
fd_prepare(int fd)
{
    struct stat sb;
    int flags = fcntl(fd, F_GETFL);

    return fstat(fd, &sb) == 0 && !(sb.st_mode & S_IFMT) && flags >= 0 &&
           fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

/* Attach one descriptor a vector, or none. 0 or an errno. */
static int
set_eventfds(struct st_vfio_user *v, uint32_t index, uint32_t start,
             uint32_t count, struct vfio_fds *fds)
{
    struct vfio_irq_file *file[VFIO_FDS_ROOM];

    for (unsigned i = 0; fds && i < count; i++)
        if (!fd_prepare(fds->fd[i]))
            return EINVAL;
    if (index == VFIO_INTX) {
        intx_set(v, fds ? fds->fd[0] : -1);
        if (fds)
            fds->fd[0] = -1;
        return 0;
    }
    /* All of them or none. */
    for (unsigned i = 0; fds && i < count; i++) {
        file[i] = malloc(sizeof(*file[i]));
        if (!file[i]) {
            while (i)
                free(file[--i]);
            return ENOMEM;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (fds) {
            file[i]->v = v;
            file[i]->fd = fds->fd[i];
            fds->fd[i] = -1;
        }
        vector_set(v, start + i, fds ? file[i] : NULL);
    }
    return 0;
}

/* As if the device had raised it; BOOL (or NULL) says which of them. */
static void
set_triggers(struct st_vfio_user *v, uint32_t index, uint32_t start,
             uint32_t count, const uint8_t *bools)
{
    struct vfio_intx *x = &v->intx;

    for (uint32_t i = 0; i < count; i++) {
        if (bools && !bools[i])
            continue;
        if (index == VFIO_MSIX) {
            vector_raise(&v->vector[start + i]);
            continue;
        }
        pthread_mutex_lock(&x->lock);
        if (x->fd >= 0) {
            x->masked = true;
            x->sent++;
            ring(x->fd);
        }
        pthread_mutex_unlock(&x->lock);
    }
}

/* MASK and UNMASK, of INTx only. 0 or an errno. */
static int
set_mask(struct st_vfio_user *v, uint32_t flags, const uint8_t *bools,
         struct vfio_fds *fds)
{
    if (flags & VFIO_DATA_EVENTFD) {
        int fd = fds ? fds->fd[0] : -1;

        if (!(flags & VFIO_UNMASK) || (fds && !fd_prepare(fd)))
            return EINVAL;
        if (fds)
            fds->fd[0] = -1;
        return resample_set(v, fd);
    }
    if (bools && !*bools)
        return 0;
    if (flags & VFIO_UNMASK) {
        intx_unmask(&v->intx);
    } else {
        pthread_mutex_lock(&v->intx.lock);
        v->intx.masked = true;
        pthread_mutex_unlock(&v->intx.lock);
    }
    return 0;
}

static bool
one_bit(uint32_t v)
{
    return v && !(v & (v - 1));
}

/* 0 or an errno for the reply. */
static int
set_irqs(struct st_vfio_user *v)
{
    struct vfio_fds *fds = st_vfio_fds(v);
    const uint8_t *data = v->conn.payload + sizeof(struct vfio_set_irqs);
    uint32_t flags, index, start, count, total;
    struct vfio_set_irqs in;
    size_t bools;

    if (v->conn.len < sizeof(in))
        return EINVAL;
    memcpy(&in, v->conn.payload, sizeof(in));
    flags = le32_get(in.flags);
    index = le32_get(in.index);
    start = le32_get(in.start);
    count = le32_get(in.count);
    if (index >= VFIO_IRQS || !one_bit(flags & VFIO_DATA) ||
        !one_bit(flags & VFIO_ACTION) || flags & ~(VFIO_DATA | VFIO_ACTION))
        return EINVAL;
    total = irq_count(v, index);
    bools = flags & VFIO_DATA_BOOL ? count : 0;
    if (le32_get(in.argsz) < sizeof(in) + bools ||
        v->conn.len != sizeof(in) + bools)
        return EINVAL;
    if (!count) { /* disable the index */
        if (flags != (VFIO_DATA_NONE | VFIO_TRIGGER) || start || fds)
            return EINVAL;
        if (index == VFIO_INTX)
            intx_set(v, -1);
        for (unsigned i = 0; index == VFIO_MSIX && i < total; i++)
            vector_set(v, i, NULL);
        return 0;
    }
    if (!st_range_ok(start, count, total) ||
        (fds && (!(flags & VFIO_DATA_EVENTFD) || fds->n != count)) ||
        (!(flags & VFIO_TRIGGER) && index != VFIO_INTX))
        return EINVAL;
    if (!(flags & VFIO_TRIGGER))
        return set_mask(v, flags, bools ? data : NULL, fds);
    if (flags & VFIO_DATA_EVENTFD)
        return set_eventfds(v, index, start, count, fds);
    set_triggers(v, index, start, count, bools ? data : NULL);
    return 0;
}

void
st_vfio_set_irqs(struct st_vfio_user *v)
{
    int error = set_irqs(v);

    st_vfio_fds_close(v);
    if (error)
        st_vfio_error(v, error);
    else if (st_vfio_payload(v, 0))
        st_vfio_reply(v, 0, -1);
}

/* ---- Life ---- */

int
st_vfio_irq_resume(struct st_vfio_user *v, unsigned n, int fd)
{
    struct vfio_irq_file *f = malloc(sizeof(*f));

    if (!f) {
        close(fd);
        return -ENOMEM;
    }
    f->v = v;
    f->fd = fd;
    vector_set(v, n, f);
    return 0;
}

void
st_vfio_intx_resume(struct st_vfio_user *v, int fd, int resample)
{
    if (fd >= 0)
        intx_set(v, fd);
    if (resample >= 0)
        resample_set(v, resample);
}

void
st_vfio_irq_raise_all(struct st_vfio_user *v)
{
    for (unsigned i = 0; i < v->pci->vectors; i++)
        if (atomic_load(&v->vector[i].file))
            vector_raise(&v->vector[i]);
}

void
st_vfio_irq_detach(struct st_vfio_user *v)
{
    for (unsigned i = 0; i < v->pci->vectors; i++)
        vector_set(v, i, NULL);
    intx_set(v, -1);
    resample_set(v, -1);
}

void
st_vfio_irq_reset(struct st_vfio_user *v)
{
    for (unsigned i = 0; i < v->pci->vectors; i++)
        atomic_store(&v->vector[i].pending, false);
}

uint64_t
st_vfio_irq_pending(const struct st_vfio_user *v, unsigned first, unsigned len)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < 8 * len && first + i < v->pci->vectors; i++)
        bits |= (uint64_t)atomic_load(&v->vector[first + i].pending) << i;
    return bits;
}

int
st_vfio_irq_init(struct st_vfio_user *v)
{
    size_t n = v->pci->vectors;

    pthread_mutex_init(&v->intx.lock, NULL);
    v->intx.fd = v->intx.resample.fd = -1;
    v->vector = aligned_alloc(64, (n ? n : 1) * sizeof(*v->vector));
    if (!v->vector)
        return -ENOMEM;
    memset(v->vector, 0, (n ? n : 1) * sizeof(*v->vector));
    v->host = (struct st_pci_host){
        .msix = host_msix, .intx = host_intx, .keeps_msix = true};
    return 0;
}

void
st_vfio_irq_fini(struct st_vfio_user *v)
{
    pthread_mutex_destroy(&v->intx.lock);
    free(v->vector);
}
