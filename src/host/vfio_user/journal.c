/* SPDX-License-Identifier: MIT
 *
 * A client that outlives us: what its conversation has come to is in memory
 * that a holder keeps (keep.h), with its socket, the files of its guest's
 * memory and its eventfds. The process that comes after us goes on with them.
 *
 *   bytes of the socket:  | served ... | being served | not yet looked at |
 *                         '- consumed after that      '- only peeked at
 *
 * Messages are peeked at, and consumed when they have been served, so what a
 * process had in hand when it died is still in the socket, and is served again.
 * All commands stand that: values are written again, what is mapped is mapped.
 * What has been served and not yet consumed is in a list; since a message has
 * an identifier, a successor sees whether the first in the socket is of it.
 *
 *   sending := its number, the reply goes out, it is in the list
 *
 * Between the first two and the third nobody can tell whether the reply went
 * out. It is taken to have: sent twice it would end the conversation.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keep.h"
#include "range.h"
#include "vfio_private.h"

enum { VERSION = 1, CHUNK = 16 << 10 };

static const char magic[8] = {'S', 't', 'r', 'a', 't', 'a', 'V', 'U'};

/* ---- Memory ---- */

int
st_vfio_user_journal(struct st_keep *keep, const char *name, struct st_err *err)
{
    int fd = st_keep_get(keep, "%s.door", name);

    if (fd >= 0)
        return fd;
    fd = memfd_create("vfio-user-journal", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(struct vfio_journal)) < 0) {
        int rc = st_err_set(err, errno, "%s: cannot make a journal: %s", name,
                            st_strerror(-errno));

        if (fd >= 0)
            close(fd);
        return rc;
    }
    st_keep_put(keep, fd, "%s.door", name);
    return fd;
}

int
st_vfio_journal_open(struct st_vfio_user *v)
{
    struct vfio_journal *j;
    struct stat sb;

    if (!v->opts.keep)
        return 0;
    if (fstat(v->opts.journal_fd, &sb) < 0)
        return -errno;
    if (sb.st_size != sizeof(*j))
        return -EINVAL;
    j = mmap(NULL, sizeof(*j), PROT_READ | PROT_WRITE, MAP_SHARED,
             v->opts.journal_fd, 0);
    if (j == MAP_FAILED)
        return -errno;
    if (memcmp(j->magic, magic, sizeof(magic)) != 0 || j->version != VERSION) {
        memset(j, 0, sizeof(*j));
        memcpy(j->magic, magic, sizeof(magic));
        j->version = VERSION;
    }
    v->j = j;
    return 0;
}

void
st_vfio_journal_close(struct st_vfio_user *v)
{
    if (v->j)
        munmap(v->j, sizeof(*v->j));
    v->j = NULL;
}

/* ---- The client ---- */

void
st_vfio_journal_came(struct st_vfio_user *v)
{
    const int from = 0;

    if (!v->j)
        return;
    setsockopt(v->conn.fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from));
    v->j->pid = v->conn.pid;
    v->j->versioned = v->j->multi = 0;
    atomic_store(&v->j->behind, 0);
    atomic_store(&v->j->sending, 0);
    atomic_store(&v->j->nserved, 0);
    st_keep_put(v->opts.keep, v->conn.fd, "%s.client", v->name);
    atomic_store(&v->j->connected, 1);
}

void
st_vfio_journal_went(struct st_vfio_user *v)
{
    if (!v->j)
        return;
    atomic_store(&v->j->connected, 0);
    /* The holder's duplicate would keep it open. */
    shutdown(v->conn.fd, SHUT_RDWR);
    st_keep_drop(v->opts.keep, "%s.client", v->name);
    st_vfio_journal_unmapped(v, true, 0, 0);
}

void
st_vfio_journal_version(struct st_vfio_user *v)
{
    if (!v->j)
        return;
    v->j->multi = v->conn.multi;
    atomic_store(&v->j->versioned, 1);
}

void
st_vfio_journal_config(struct st_vfio_user *v)
{
    for (unsigned i = 0; v->j && i < sizeof(v->j->config); i += 4) {
        le32 value = le32_of(st_pci_config_read(v->pci, i, 4));

        memcpy(v->j->config + i, &value, sizeof(value));
    }
}

/* ---- Messages ---- */

void
st_vfio_journal_sending(struct st_vfio_user *v)
{
    if (v->j)
        atomic_store(&v->j->sending, atomic_load(&v->j->nserved) + 1);
}

void
st_vfio_journal_behind(struct st_vfio_user *v, bool behind)
{
    if (v->j)
        atomic_store(&v->j->behind, behind);
}

/* Consume N bytes. False: they are not there. */
static bool
eat(int fd, size_t n)
{
    uint8_t chunk[CHUNK];

    while (n) {
        ssize_t got = recv(fd, chunk, st_min(n, sizeof(chunk)), MSG_DONTWAIT);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        n -= (size_t)got;
    }
    return true;
}

/* Of the list, from entry I on: how many bytes. */
static size_t
served_bytes(const struct vfio_journal *j, unsigned i)
{
    size_t n = 0;

    for (; i < atomic_load(&j->nserved) && i < VFIO_JOURNAL_SERVED; i++)
        n += le32_get(j->served[i].size);
    return n;
}

size_t
st_vfio_journal_consume(struct st_vfio_user *v)
{
    struct vfio_journal *j = v->j;
    size_t n = j ? served_bytes(j, 0) : 0;

    if (!n)
        return 0;
    if (!eat(v->conn.fd, n))
        st_vfio_drop(v, "what it has sent is gone");
    atomic_store(&j->sending, 0);
    atomic_store(&j->nserved, 0);
    v->conn.eaten += n;
    return n;
}

void
st_vfio_journal_served(struct st_vfio_user *v, uint16_t id, uint16_t command,
                       size_t size)
{
    struct vfio_journal *j = v->j;
    unsigned n;

    if (!j || v->conn.dead)
        return;
    n = atomic_load(&j->nserved);
    j->served[n] = (struct vfio_served){
        .id = le16_of(id),
        .command = le16_of(command),
        .size = le32_of((uint32_t)size),
    };
    atomic_store_explicit(&j->nserved, n + 1, memory_order_release);
    if (n + 1 == VFIO_JOURNAL_SERVED)
        st_vfio_journal_consume(v);
}

/* The header that is the first in the socket. False: there is none. */
static bool
peek_header(int fd, struct vfio_header *h)
{
    return recv(fd, h, sizeof(*h), MSG_PEEK | MSG_DONTWAIT) == sizeof(*h);
}

/* The socket stands where the predecessor has served to. */
static bool
catch_up(struct st_vfio_user *v)
{
    struct vfio_journal *j = v->j;
    unsigned n = (unsigned)st_min(atomic_load(&j->nserved),
                                  (unsigned)VFIO_JOURNAL_SERVED);
    bool sent = atomic_load(&j->sending) == n + 1;
    const int off = -1, from = 0;
    struct vfio_header h;
    int fd = v->conn.fd;

    setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &off, sizeof(off));
    for (unsigned i = 0; i < n && peek_header(fd, &h); i++) {
        if (memcmp(&h.id, &j->served[i].id, sizeof(h.id)) != 0 ||
            memcmp(&h.command, &j->served[i].command, sizeof(h.command)) != 0 ||
            memcmp(&h.size, &j->served[i].size, sizeof(h.size)) != 0)
            continue;
        if (!eat(fd, served_bytes(j, i)))
            return false;
        break;
    }
    if (sent && peek_header(fd, &h) && !eat(fd, le32_get(h.size)))
        return false;
    atomic_store(&j->sending, 0);
    atomic_store(&j->nserved, 0);
    return setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &from, sizeof(from)) == 0;
}

/* ---- Guest memory ---- */

int
st_vfio_journal_map(struct st_vfio_user *v, int fd, uint64_t gpa, uint64_t len,
                    uint64_t offset, bool writable, unsigned *slot)
{
    struct vfio_journal *j = v->j;

    *slot = 0;
    for (unsigned i = 0; j && i < VFIO_JOURNAL_MAPS; i++) {
        struct vfio_journal_map *m = &j->map[i];

        if (atomic_load(&m->state) || v->slot_taken[i])
            continue;
        m->gpa = gpa;
        m->len = len;
        m->offset = offset;
        m->writable = writable;
        m->shared = fd >= 0;
        if (fd >= 0)
            st_keep_put(v->opts.keep, fd, "%s.map.%u", v->name, i);
        v->slot_taken[i] = true;
        *slot = i + 1;
        return 0;
    }
    return j ? -ENOSPC : 0;
}

void
st_vfio_journal_mapped(struct st_vfio_user *v, unsigned slot, bool well)
{
    struct vfio_journal_map *m;

    if (!slot)
        return;
    m = &v->j->map[slot - 1];
    v->slot_taken[slot - 1] = false;
    if (well)
        atomic_store(&m->state, 1);
    else if (m->shared)
        st_keep_drop(v->opts.keep, "%s.map.%u", v->name, slot - 1);
}

void
st_vfio_journal_unmapped(struct st_vfio_user *v, bool all, uint64_t gpa,
                         uint64_t len)
{
    for (unsigned i = 0; v->j && i < VFIO_JOURNAL_MAPS; i++) {
        struct vfio_journal_map *m = &v->j->map[i];

        if (!atomic_load(&m->state) ||
            (!all && (m->gpa != gpa || m->len != len)))
            continue;
        atomic_store(&m->state, 0);
        if (m->shared)
            st_keep_drop(v->opts.keep, "%s.map.%u", v->name, i);
    }
}

bool
st_vfio_journal_has_map(const struct st_vfio_user *v, uint64_t gpa,
                        uint64_t len, uint64_t offset)
{
    for (unsigned i = 0; v->j && i < VFIO_JOURNAL_MAPS; i++) {
        const struct vfio_journal_map *m = &v->j->map[i];

        if (atomic_load(&m->state) && m->gpa == gpa && m->len == len &&
            m->offset == offset)
            return true;
    }
    return false;
}

/* ---- Interrupts ---- */

void
st_vfio_journal_vector(struct st_vfio_user *v, unsigned n, int fd)
{
    bool had;

    if (!v->j)
        return;
    had = atomic_load(&v->j->vector[n]);
    if (fd >= 0)
        st_keep_put(v->opts.keep, fd, "%s.irq.%u", v->name, n);
    atomic_store(&v->j->vector[n], fd >= 0);
    if (had && fd < 0)
        st_keep_drop(v->opts.keep, "%s.irq.%u", v->name, n);
}

void
st_vfio_journal_intx(struct st_vfio_user *v, const char *what, int fd)
{
    if (!v->j)
        return;
    if (fd >= 0)
        st_keep_put(v->opts.keep, fd, "%s.%s", v->name, what);
    else
        st_keep_drop(v->opts.keep, "%s.%s", v->name, what);
}

/* ---- The successor ---- */

/* 0 or -errno. */
static int
resume_maps(struct st_vfio_user *v)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < VFIO_JOURNAL_MAPS; i++) {
        const struct vfio_journal_map *m = &v->j->map[i];
        int fd = -1;

        if (!atomic_load(&m->state))
            continue;
        if (m->shared) {
            fd = st_keep_get(v->opts.keep, "%s.map.%u", v->name, i);
            if (fd < 0)
                return -EBADF;
        }
        rc = st_vfio_dma_resume(v, fd, m);
        if (fd >= 0)
            close(fd);
    }
    return rc;
}

static void
resume_config(struct st_vfio_user *v)
{
    for (unsigned i = 0; i < sizeof(v->j->config); i += 4) {
        le32 value;

        memcpy(&value, v->j->config + i, sizeof(value));
        st_pci_config_write(v->pci, i, 4, le32_get(value));
    }
}

static int
resume_irqs(struct st_vfio_user *v)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < v->pci->vectors; i++) {
        int fd;

        if (!atomic_load(&v->j->vector[i]))
            continue;
        fd = st_keep_get(v->opts.keep, "%s.irq.%u", v->name, i);
        rc = fd < 0 ? -EBADF : st_vfio_irq_resume(v, i, fd);
    }
    if (rc == 0)
        st_vfio_intx_resume(v, st_keep_get(v->opts.keep, "%s.intx", v->name),
                            st_keep_get(v->opts.keep, "%s.resample", v->name));
    return rc;
}

int
st_vfio_journal_resume(struct st_vfio_user *v, int fd)
{
    struct vfio_journal *j = v->j;
    int rc;

    v->conn.pid = (int)j->pid;
    v->conn.versioned = atomic_load(&j->versioned);
    v->conn.multi = j->multi;
    v->conn.fd = fd;
    v->conn.again_first = true;
    rc = atomic_load(&j->behind) ? -EPIPE : resume_maps(v);
    if (rc == 0)
        rc = resume_irqs(v);
    if (rc == 0)
        resume_config(v);
    if (rc == 0 && !catch_up(v))
        rc = -EPIPE;
    return rc;
}
