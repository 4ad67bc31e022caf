/* SPDX-License-Identifier: MIT
 *
 * Guest memory: files of the client's, mapped here.
 *
 * QEMU takes RAM out and puts it back in other pieces in one burst, for whose
 * replies it waits only at its end. A device must not find its queues gone in
 * between. So an UNMAP opens a change of guest memory, which is committed when
 * a message about something else comes, or none for a while:
 *
 *    UNMAP a --> begin          answers, in order:   a  waits for its users
 *    MAP b                                           b  waits for a
 *    MAP c                                           c
 *    (other, or 2 ms) --> commit --> users let go --> a, b, c are sent
 *
 * An UNMAP is answered when no request uses the memory any more, or when the
 * client would give up soon: the mapping then stays until its users are gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "range.h"
#include "vfio_private.h"

#define SETTLE_NS                                                              \
    UINT64_C(2000000) /* after an UNMAP, for the MAPs behind it                \
                       */
enum { ANSWERS = 4096 /* at most; then the socket waits */ };

/* A file that is mapped. */
struct vfio_map {
    struct st_guard guard; /* what mmap gave */
    struct st_list link;
    struct st_vfio_user *v;
    uint64_t gpa, len;
};

/* The answer to a DMA message that has to wait. */
struct vfio_answer {
    struct st_list link; /* alone: nobody waits for it */
    struct st_gmem_unmap unmap;
    struct st_vfio_user *v;
    uint16_t id, command;
    uint32_t flags;
    uint64_t by; /* ns: at the latest */
    bool done, late;
    int error;
    size_t size;               /* of the message */
    unsigned slot;             /* MAP: in the journal */
    struct vfio_dma_unmap out; /* UNMAP's payload */
};

/* All that a client left. */
struct vfio_clear {
    struct st_gmem_unmap unmap;
    struct st_vfio_user *v;
    struct st_timer timer;
};

/* ---- Answers ---- */

/* What the answer A says is so, for a successor. */
static void
answer_journal(struct vfio_answer *a)
{
    if (a->command == VFIO_DMA_MAP)
        st_vfio_journal_mapped(a->v, a->slot, !a->error);
    else if (!a->error)
        st_vfio_journal_unmapped(a->v, le32_get(a->out.flags),
                                 le64_get(a->out.address),
                                 le64_get(a->out.size));
}

/* Send the reply to a message that came before the one in hand. */
static void
answer_send(struct vfio_answer *a)
{
    struct st_vfio_user *v = a->v;
    struct vfio_conn *c = &v->conn;
    const uint16_t id = c->id, command = c->command;
    const uint32_t flags = c->flags;
    size_t len = a->command == VFIO_DMA_UNMAP ? sizeof(a->out) : 0;
    void *out;

    answer_journal(a);
    c->id = a->id;
    c->command = a->command;
    c->flags = a->flags;
    if (a->error) {
        st_vfio_error(v, a->error);
    } else if ((out = st_vfio_payload(v, len))) {
        memcpy(out, &a->out, len);
        st_vfio_reply(v, len, -1);
    }
    c->id = id;
    c->command = command;
    c->flags = flags;
    st_vfio_journal_served(v, a->id, a->command, a->size);
}

static void
settle_commit(struct st_vfio_user *v)
{
    st_timer_stop(v->loop, &v->settle);
    if (v->changing) {
        v->changing = false;
        st_gmem_commit(v->opts.gmem);
    }
}

static void
answer_drop(struct vfio_answer *a)
{
    st_list_remove(&a->link);
    a->v->nanswers--;
    if (a->done)
        free(a);
    else
        a->late = true;
}

/* Send what is ready, in order; ALL: also what is not. */
static void
answers_send(struct st_vfio_user *v, bool all)
{
    st_list_for(a, tmp, &v->answers, struct vfio_answer, link)
    {
        if (!a->done && !all) {
            st_timer_set(v->loop, &v->overdue, a->by);
            return;
        }
        if (!a->done)
            st_count(&v->late, 1);
        answer_send(a);
        answer_drop(a);
    }
    st_timer_stop(v->loop, &v->overdue);
    if (v->conn.waiting && !v->conn.running)
        st_vfio_resume(v); /* in st_vfio_dma_settled */
}

static void
answers_overdue(struct st_timer *t)
{
    struct st_vfio_user *v = st_container(t, struct st_vfio_user, overdue);

    settle_commit(v);
    st_warn_limited(v->opts.log, &v->limiter,
                    "%s: guest memory that is unmapped is still in use",
                    v->name);
    answers_send(v, true);
}

static void
answer_unmapped(struct st_gmem_unmap *u)
{
    struct vfio_answer *a = st_container(u, struct vfio_answer, unmap);
    struct st_vfio_user *v = a->v;

    v->busy--;
    a->done = true;
    if (a->late)
        free(a);
    else
        answers_send(v, false);
    st_vfio_check(v);
}

/* The answer to the message in hand. NULL: the client is dropped. */
static struct vfio_answer *
answer_new(struct st_vfio_user *v)
{
    struct vfio_answer *a = calloc(1, sizeof(*a));

    if (!a) {
        st_vfio_drop(v, "out of memory");
        return NULL;
    }
    st_list_init(&a->link);
    a->v = v;
    a->id = v->conn.id;
    a->command = v->conn.command;
    a->flags = v->conn.flags;
    a->size = sizeof(struct vfio_header) + v->conn.len;
    a->by = v->loop->now + v->opts.timeout_ns;
    a->unmap.done = answer_unmapped;
    return a;
}

static void
answer_append(struct vfio_answer *a)
{
    st_list_append(&a->v->answers, &a->link);
    a->v->nanswers++;
    a->v->conn.deferred = true;
}

/* The message in hand ends with ERROR or, for 0, well; behind the others. SLOT
 * is in the journal what it has mapped, or 0. */
static void
answer_now(struct st_vfio_user *v, int error, unsigned slot)
{
    struct vfio_answer *a;

    if (!v->nanswers) {
        st_vfio_journal_mapped(v, slot, !error);
        if (error)
            st_vfio_error(v, error);
        else if (st_vfio_payload(v, 0))
            st_vfio_reply(v, 0, -1);
    } else if ((a = answer_new(v))) {
        a->done = true;
        a->error = error;
        a->slot = slot;
        answer_append(a);
    }
}

static void
settle_fire(struct st_timer *t)
{
    settle_commit(st_container(t, struct st_vfio_user, settle));
}

bool
st_vfio_dma_settled(struct st_vfio_user *v, unsigned command)
{
    bool memory = command == VFIO_DMA_MAP || command == VFIO_DMA_UNMAP;

    if (v->nanswers < (memory ? ANSWERS : 1))
        return true;
    settle_commit(v);
    v->conn.waiting = true;
    return false;
}

/* ---- DMA_MAP ---- */

/* On the loop: nobody uses the memory any more. */
static void
map_release(const struct st_gmem_map *gm)
{
    struct vfio_map *m = gm->arg;

    st_guard_remove(&m->guard);
    munmap(m->guard.start, m->guard.len);
    st_list_remove(&m->link);
    free(m);
}

/* Map [OFFSET, OFFSET + LEN) of FD. 0 or -errno. */
static int
map_file(struct st_vfio_user *v, int fd, uint64_t offset, uint64_t len,
         bool writable, struct vfio_map **out, uint8_t **host)
{
    uint64_t page = VFIO_PAGE, start;
    struct vfio_map *m;
    struct statfs fs;
    struct stat sb;
    int rc;

    /* Beyond its end there is nothing but SIGBUS. */
    if (fstat(fd, &sb) < 0 || !S_ISREG(sb.st_mode) ||
        !st_range_ok(offset, len, (uint64_t)sb.st_size))
        return -EINVAL;
    if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC &&
        fs.f_bsize > VFIO_PAGE)
        page = (uint64_t)fs.f_bsize; /* mapped whole only */
    start = offset - offset % page;
    m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->guard.len = (offset - start + len + page - 1) / page * page;
    m->guard.bell = v->bell.fd;
    m->guard.start =
        mmap(NULL, m->guard.len, PROT_READ | (writable ? PROT_WRITE : 0),
             MAP_SHARED | MAP_NORESERVE, fd, (off_t)start);
    if (m->guard.start == MAP_FAILED) {
        rc = -errno;
        free(m);
        return rc;
    }
    rc = st_guard_add(&m->guard);
    if (rc < 0) {
        munmap(m->guard.start, m->guard.len);
        free(m);
        return rc;
    }
    m->v = v;
    st_list_append(&v->maps, &m->link);
    *host = (uint8_t *)m->guard.start + (offset - start);
    *out = m;
    return 0;
}

/* Is it a BAR of ours, that the client maps for other devices? */
static bool
is_bar(const struct st_vfio_user *v, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < ST_PCI_BARS; i++) {
        uint64_t at = st_pci_bar_address(v->pci, i);

        if (at != UINT64_MAX && gpa - at < v->pci->bar[i].size &&
            len <= v->pci->bar[i].size)
            return true;
    }
    return false;
}

/* Memory without a file: known, and DMA to it refused. Firmware's ROM is such,
 * and memory of other devices; the guest's RAM should not be. */
static void
say_unshared(struct st_vfio_user *v, uint64_t gpa, uint64_t len, bool writable)
{
    st_count(&v->unreachable, 1);
    if (!writable || is_bar(v, gpa, len) || v->conn.said_unshared)
        return;
    v->conn.said_unshared = true;
    st_log(v->opts.log, gpa ? ST_LOG_INFO : ST_LOG_WARN,
           "%s: client %d does not share guest memory at %#llx (%llu KiB): DMA "
           "to it fails; if this is the guest's RAM, use "
           "memory-backend-memfd,share=on (QEMU) or --memory shared=on "
           "(Cloud Hypervisor)",
           v->name, v->conn.pid, (unsigned long long)gpa,
           (unsigned long long)len >> 10);
}

/* Make GM, of FD (borrowed; -1: none) from OFFSET on, a map. 0 or -errno. */
static int
map_add(struct st_vfio_user *v, int fd, uint64_t offset, struct st_gmem_map *gm)
{
    struct vfio_map *m = NULL;
    int rc = 0;

    if (fd >= 0)
        rc = map_file(v, fd, offset, gm->len, gm->writable, &m, &gm->host);
    if (rc == 0 && m) {
        m->gpa = gm->gpa;
        m->len = gm->len;
        gm->arg = m;
        gm->release = map_release;
    }
    if (rc == 0)
        rc = st_gmem_map(v->opts.gmem, gm);
    if (rc < 0 && m)
        map_release(gm);
    return rc;
}

int
st_vfio_dma_resume(struct st_vfio_user *v, int fd,
                   const struct vfio_journal_map *m)
{
    struct st_gmem_map gm = {
        .gpa = m->gpa, .len = m->len, .writable = m->writable};

    return map_add(v, fd, m->offset, &gm);
}

/* 0 or an errno for the reply. */
static int
dma_map(struct st_vfio_user *v, unsigned *slot)
{
    const uint32_t known = VFIO_MAP_READ | VFIO_MAP_WRITE;
    struct vfio_fds *fds = st_vfio_fds(v);
    struct st_gmem_map gm = {0};
    struct vfio_dma_map in;
    uint64_t offset;
    uint32_t flags;
    int rc;

    *slot = 0;
    if (v->conn.len != sizeof(in))
        return EINVAL;
    memcpy(&in, v->conn.payload, sizeof(in));
    flags = le32_get(in.flags);
    offset = le64_get(in.offset);
    gm.gpa = le64_get(in.address);
    gm.len = le64_get(in.size);
    gm.writable = flags & VFIO_MAP_WRITE;
    if (le32_get(in.argsz) < sizeof(in) || !flags || flags & ~known ||
        offset % VFIO_PAGE || (fds && fds->n != 1) || !gm.len ||
        (gm.gpa | gm.len) % VFIO_PAGE || gm.gpa + (gm.len - 1) < gm.gpa)
        return EINVAL;
    if (v->conn.again_first &&
        st_vfio_journal_has_map(v, gm.gpa, gm.len, offset))
        return 0; /* by a predecessor */
    rc = st_vfio_journal_map(v, fds ? fds->fd[0] : -1, gm.gpa, gm.len, offset,
                             gm.writable, slot);
    if (rc == 0)
        rc = map_add(v, fds ? fds->fd[0] : -1, offset, &gm);
    if (rc < 0)
        return -rc;
    st_count(&v->mapped, 1);
    if (!fds)
        say_unshared(v, gm.gpa, gm.len, gm.writable);
    return 0;
}

void
st_vfio_dma_map(struct st_vfio_user *v)
{
    unsigned slot;
    int error = dma_map(v, &slot);

    st_vfio_fds_close(v);
    answer_now(v, error, slot);
}

/* ---- DMA_UNMAP ---- */

/* 0 or an errno for the reply. */
static int
dma_unmap(struct st_vfio_user *v, struct vfio_answer *a)
{
    uint64_t gpa, len;
    uint32_t flags;
    int rc;

    if (v->conn.len < sizeof(a->out) || st_vfio_fds(v))
        return EINVAL;
    memcpy(&a->out, v->conn.payload, sizeof(a->out));
    flags = le32_get(a->out.flags);
    gpa = le64_get(a->out.address);
    len = le64_get(a->out.size);
    if (flags == VFIO_UNMAP_BITMAP)
        return ENOTSUP; /* no dirty pages are tracked */
    if (le32_get(a->out.argsz) < sizeof(a->out) || flags & ~VFIO_UNMAP_ALL ||
        v->conn.len != sizeof(a->out) ||
        (flags ? gpa || len
               : !len || (gpa | len) % VFIO_PAGE || gpa + (len - 1) < gpa))
        return EINVAL;
    if (!v->changing)
        st_gmem_begin(v->opts.gmem);
    rc = flags ? st_gmem_unmap_all(v->opts.gmem, &a->unmap)
               : st_gmem_unmap(v->opts.gmem, gpa, len, &a->unmap);
    if (!v->changing && rc < 0)
        st_gmem_commit(v->opts.gmem);
    else
        v->changing = true;
    return -rc;
}

void
st_vfio_dma_unmap(struct st_vfio_user *v)
{
    struct vfio_answer *a = answer_new(v);
    int error;

    if (!a)
        return;
    error = dma_unmap(v, a);
    if (error == ENOENT && v->conn.again_first) { /* by a predecessor */
        answer_send(a);
        v->conn.deferred = true;
        free(a);
        return;
    }
    if (error) {
        free(a);
        answer_now(v, error, 0);
        return;
    }
    v->busy++;
    st_count(&v->unmapped, 1);
    if (!v->nanswers)
        st_timer_set(v->loop, &v->overdue, a->by);
    answer_append(a);
    st_timer_set(v->loop, &v->settle, v->loop->now + SETTLE_NS);
}

/* ---- The end of a client ---- */

void
st_vfio_dma_abandon(struct st_vfio_user *v)
{
    settle_commit(v);
    st_timer_stop(v->loop, &v->overdue);
    st_list_for(a, tmp, &v->answers, struct vfio_answer, link) answer_drop(a);
}

static void
clear_over(struct vfio_clear *c)
{
    struct st_vfio_user *v = c->v;

    v->clear = NULL;
    st_timer_stop(v->loop, &c->timer);
    st_vfio_cleared(v);
}

static void
clear_unmapped(struct st_gmem_unmap *u)
{
    struct vfio_clear *c = st_container(u, struct vfio_clear, unmap);
    struct st_vfio_user *v = c->v;

    v->busy--;
    if (v->clear == c)
        clear_over(c);
    free(c);
    st_vfio_check(v);
}

static void
clear_late(struct st_timer *t)
{
    struct vfio_clear *c = st_container(t, struct vfio_clear, timer);
    struct st_vfio_user *v = c->v;

    st_count(&v->late, 1);
    st_warn_limited(v->opts.log, &v->limiter,
                    "%s: memory of a client that left is still in use",
                    v->name);
    clear_over(c);
}

int
st_vfio_dma_clear(struct st_vfio_user *v)
{
    struct vfio_clear *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->v = v;
    c->unmap.done = clear_unmapped;
    c->timer.fire = clear_late;
    if (st_gmem_unmap_all(v->opts.gmem, &c->unmap) < 0) {
        free(c);
        return -ENOMEM;
    }
    v->busy++;
    v->clear = c;
    st_timer_set(v->loop, &c->timer, v->loop->now + v->opts.timeout_ns);
    return 0;
}

/* ---- Memory that was cut ---- */

/* A handler put zeroes in the place of a file's memory. */
static void
bell_rings(struct st_watch *w, unsigned events)
{
    struct st_vfio_user *v = st_container(w, struct st_vfio_user, bell);
    uint64_t n;

    (void)events;
    if (read(w->fd, &n, sizeof(n)) < 0)
        return;
    st_list_for(m, tmp, &v->maps, struct vfio_map, link)
    {
        if (!st_guard_broken(&m->guard) || v->conn.fd < 0 || v->conn.dead)
            continue;
        st_count(&v->faults, 1);
        st_vfio_drop(v, "it cut the file of guest memory at %#llx",
                     (unsigned long long)m->gpa);
    }
}

int
st_vfio_dma_init(struct st_vfio_user *v)
{
    int rc = st_guard_install();

    if (rc < 0)
        return rc;
    st_list_init(&v->maps);
    st_list_init(&v->answers);
    v->settle.fire = settle_fire;
    v->overdue.fire = answers_overdue;
    v->bell.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (v->bell.fd < 0)
        return -errno;
    v->bell.events = EPOLLIN;
    v->bell.ready = bell_rings;
    rc = st_watch_add(v->loop, &v->bell);
    if (rc < 0) {
        close(v->bell.fd);
        v->bell.fd = -1;
    }
    return rc;
}

void
st_vfio_dma_fini(struct st_vfio_user *v)
{
    if (v->bell.fd < 0)
        return;
    st_watch_remove(v->loop, &v->bell);
    close(v->bell.fd);
    v->bell.fd = -1;
}
