/* SPDX-License-Identifier: MIT
 *
 * An NVMe driver over vfio-user; see nvme_driver.h. The memory that it shares
 * lies in one arena, at guest address ARENA:
 *
 *   admin SQ, CQ | page for data | shadow doorbells | event indexes
 *   queue 0: SQ, CQ | per slot: PRP list, buffer | queue 1: ...
 *
 * Sections are those of the NVMe Base Specification 2.0c.
 */
#include "nvme_driver.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "range.h"
#include "vfio_client.h"

enum {
    PAGE = 4096,
    ADMIN_ENTRIES = 32,
    ENTRIES = 1024, /* of an I/O queue, as Linux has, or what MQES allows: with
                     * room enough nobody waits for a completion queue's head */
    ADMIN_MS = 10000, /* a command's time, and CC.EN's */
    CONFIG = 7,       /* the region */
    CONFIG_COMMAND = 4,
    CONFIG_MEMORY_AND_MASTER = 6,
    CONFIG_CAPABILITIES = 0x34,
    CONFIG_MSIX = 0x11, /* a capability */
    CONFIG_MSIX_ENABLE = 0x8000,
};
#define ARENA UINT64_C(0x100000000) /* above 4 GiB, as much of a guest's is */

struct queue {
    unsigned id, entries;
    struct nvme_sqe *sq;
    struct nvme_cqe *cq;
    uint64_t sq_gpa, cq_gpa;
    unsigned tail, head, rung, told; /* rung, told: as the controller knows */
    unsigned phase;
    uint64_t slots; /* where its slots are in the arena */
    int fd;         /* owned: its interrupt */
    struct st_nvme_driver_counts counts;
};

struct st_nvme_driver {
    struct st_nvme_driver_opts opts;
    struct st_nvme_driver_info info;
    struct st_vfio_client *client;
    pthread_mutex_t lock; /* guards client */
    uint8_t *arena;
    size_t arena_len;
    void *page;
    _Atomic uint32_t *shadow, *event; /* NULL: not used */
    uint8_t *mapped;                  /* NULL; doorbell 0 */
    unsigned stride;                  /* bytes from doorbell to doorbell */
    uint16_t cid;
    struct queue admin, queue[ST_NVME_DRIVER_QUEUES];
};

enum { AT_ASQ = 0, AT_ACQ = PAGE, AT_PAGE = 2 * PAGE };
enum { AT_SHADOW = 3 * PAGE, AT_EVENT = 4 * PAGE, AT_QUEUES = 5 * PAGE };

/* ---- Sizes ---- */

static size_t
pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static size_t
slot_size(const struct st_nvme_driver *d)
{
    return PAGE + pages(d->opts.bytes);
}

static size_t
queue_size(const struct st_nvme_driver *d, unsigned entries)
{
    return pages(entries * sizeof(struct nvme_sqe)) +
           pages(entries * sizeof(struct nvme_cqe)) +
           slot_size(d) * d->opts.depth;
}

/* ---- Registers and doorbells ---- */

static int
write32(struct st_nvme_driver *d, unsigned reg, uint32_t value)
{
    le32 v = le32_of(value);

    return st_vfio_client_write(d->client, 0, reg, &v, sizeof(v));
}

static int
write64(struct st_nvme_driver *d, unsigned reg, uint64_t value)
{
    le64 v = le64_of(value);

    return st_vfio_client_write(d->client, 0, reg, &v, sizeof(v));
}

static int
read_csts(struct st_nvme_driver *d, uint32_t *out)
{
    le32 v = {{0}};
    int rc = st_vfio_client_read(d->client, 0, NVME_REG_CSTS, &v, sizeof(v));

    *out = le32_get(v);
    return rc;
}

/* Doorbell Buffer Config, B.5: has the value gone past EVENT on its way from
 * OLD to NEW? */
static bool
passed(uint32_t event, uint32_t new, uint32_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* Doorbell INDEX of Q becomes NEW; it was OLD. */
static int
ring(struct st_nvme_driver *d, struct queue *q, unsigned index, uint32_t new,
     uint32_t old)
{
    le32 v = le32_of(new);
    int rc;

    if (d->mapped) {
        atomic_store_explicit(
            (_Atomic uint32_t *)(void *)(d->mapped + index * d->stride),
            htole32(new), memory_order_release);
        return 0;
    }
    if (d->shadow && q->id) {
        atomic_store_explicit(&d->shadow[index], htole32(new),
                              memory_order_release);
        atomic_thread_fence(memory_order_seq_cst);
        if (!passed(le32toh(atomic_load(&d->event[index])), new, old))
            return 0;
    }
    q->counts.doorbells++;
    pthread_mutex_lock(&d->lock);
    rc = st_vfio_client_post(
        d->client, 0, NVME_REG_DOORBELLS + index * d->stride, &v, sizeof(v));
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* ---- Queues ---- */

void *
st_nvme_driver_data(struct st_nvme_driver *d, unsigned q, unsigned slot)
{
    return d->arena + d->queue[q].slots + slot * slot_size(d) + PAGE;
}

/* The entry that is next; it is in the queue as soon as TAIL is rung. */
static struct nvme_sqe *
next_entry(struct queue *q)
{
    struct nvme_sqe *sqe = &q->sq[q->tail];

    q->tail = q->tail + 1 == q->entries ? 0 : q->tail + 1;
    return sqe;
}

/* PRPs for LEN bytes at GPA, which begins a page; LIST: where a list may be,
 * filled before. */
static void
set_prps(struct nvme_sqe *sqe, uint64_t gpa, size_t len, uint64_t list)
{
    if (len)
        sqe->prp1 = le64_of(gpa);
    if (len > 2 * PAGE)
        sqe->prp2 = le64_of(list);
    else if (len > PAGE)
        sqe->prp2 = le64_of(gpa + PAGE);
}

void
st_nvme_driver_submit(struct st_nvme_driver *d, unsigned qi, unsigned slot,
                      uint8_t opcode, uint64_t lba, unsigned blocks, size_t len)
{
    struct queue *q = &d->queue[qi];
    uint64_t at = q->slots + slot * slot_size(d);
    struct nvme_sqe *sqe = next_entry(q);

    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = opcode;
    sqe->cid = le16_of((uint16_t)slot);
    sqe->nsid = le32_of(d->opts.nsid);
    set_prps(sqe, ARENA + at + PAGE, len, ARENA + at);
    if (blocks) {
        sqe->cdw10 = le32_of((uint32_t)lba);
        sqe->cdw11 = le32_of((uint32_t)(lba >> 32));
        sqe->cdw12 = le32_of(blocks - 1);
    }
}

static int
ring_tail(struct st_nvme_driver *d, struct queue *q)
{
    unsigned old = q->rung;

    if (q->tail == old)
        return 0;
    q->rung = q->tail;
    return ring(d, q, 2 * q->id, q->tail, old);
}

int
st_nvme_driver_ring(struct st_nvme_driver *d, unsigned q)
{
    return ring_tail(d, &d->queue[q]);
}

/* The next completion, if it is there. */
static bool
take(struct queue *q, struct nvme_cqe *out)
{
    struct nvme_cqe *cqe = &q->cq[q->head];
    uint16_t status = le16toh(__atomic_load_n(
        (const uint16_t *)(const void *)&cqe->status, __ATOMIC_ACQUIRE));

    if ((status & 1) != q->phase)
        return false;
    memcpy(out, cqe, sizeof(*out));
    if (++q->head == q->entries) {
        q->head = 0;
        q->phase ^= 1;
    }
    return true;
}

int
st_nvme_driver_reap(struct st_nvme_driver *d, unsigned q, uint16_t *status)
{
    struct nvme_cqe cqe;

    if (!take(&d->queue[q], &cqe))
        return -1;
    *status = (uint16_t)(le16_get(cqe.status) >> 1);
    /* A controller is data, not truth. */
    return le16_get(cqe.cid) < d->opts.depth ? le16_get(cqe.cid) : 0;
}

static int
ring_head(struct st_nvme_driver *d, struct queue *q)
{
    unsigned old = q->told;

    if (q->head == old)
        return 0;
    q->told = q->head;
    return ring(d, q, 2 * q->id + 1, q->head, old);
}

int
st_nvme_driver_reaped(struct st_nvme_driver *d, unsigned q)
{
    return ring_head(d, &d->queue[q]);
}

static int
wait_for(struct st_nvme_driver *d, struct queue *q, int timeout_ms)
{
    struct pollfd p[] = {
        {.fd = q->fd, .events = POLLIN},
        {.fd = st_vfio_client_fd(d->client), .events = POLLRDHUP}};
    uint64_t n;

    if (poll(p, 2, timeout_ms) == 0)
        return -ETIMEDOUT;
    if (p[1].revents)
        return -ECONNRESET;
    if (p[0].revents && read(q->fd, &n, sizeof(n)) == sizeof(n))
        q->counts.interrupts += n;
    return 0;
}

int
st_nvme_driver_wait(struct st_nvme_driver *d, unsigned q, int timeout_ms)
{
    return wait_for(d, &d->queue[q], timeout_ms);
}

const struct st_nvme_driver_counts *
st_nvme_driver_counts(const struct st_nvme_driver *d, unsigned q)
{
    return &d->queue[q].counts;
}

const struct st_nvme_driver_info *
st_nvme_driver_info(const struct st_nvme_driver *d)
{
    return &d->info;
}

/* ---- Admin commands ---- */

static int
admin_completion(struct st_nvme_driver *d, struct nvme_cqe *cqe)
{
    int rc = 0;

    while (!take(&d->admin, cqe)) {
        if (rc < 0)
            return rc;
        rc = wait_for(d, &d->admin, ADMIN_MS);
    }
    return ring_head(d, &d->admin);
}

/* SQE to its end. *DW0 may be NULL. */
static int
admin_run(struct st_nvme_driver *d, struct nvme_sqe *sqe, uint32_t *dw0,
          struct st_err *err)
{
    uint8_t opcode = sqe->opcode;
    struct nvme_cqe cqe;
    unsigned status;
    int rc;

    sqe->cid = le16_of(d->cid++);
    *next_entry(&d->admin) = *sqe;
    rc = ring_tail(d, &d->admin);
    if (rc == 0)
        rc = admin_completion(d, &cqe);
    if (rc < 0)
        return st_err_set(err, -rc, "%s: admin command %02xh: %s", d->opts.path,
                          opcode, st_strerror(rc));
    status = le16_get(cqe.status) >> 1;
    if (status)
        return st_err_set(err, EIO, "%s: admin command %02xh: status %xh",
                          d->opts.path, opcode, status);
    if (dw0)
        *dw0 = le32_get(cqe.dw0);
    return 0;
}

int
st_nvme_driver_admin(struct st_nvme_driver *d, struct nvme_sqe *sqe, void *data,
                     size_t len, bool to_controller, struct st_err *err)
{
    int rc;

    set_prps(sqe, ARENA + AT_PAGE, len, 0);
    if (to_controller && len)
        memcpy(d->page, data, len);
    rc = admin_run(d, sqe, NULL, err);
    if (rc == 0 && !to_controller && len)
        memcpy(data, d->page, len);
    return rc;
}

static int
identify(struct st_nvme_driver *d, unsigned cns, uint32_t nsid,
         struct st_err *err)
{
    struct nvme_sqe sqe = {.opcode = NVME_ADMIN_IDENTIFY,
                           .nsid = le32_of(nsid),
                           .cdw10 = le32_of(cns),
                           .prp1 = le64_of(ARENA + AT_PAGE)};

    return admin_run(d, &sqe, NULL, err);
}

/* Identify's text: padded with spaces. */
static void
copy_text(char *to, const uint8_t *from, size_t len)
{
    memcpy(to, from, len);
    while (len && to[len - 1] == ' ')
        len--;
    to[len] = '\0';
}

/* What the controller (5.17.2.1) and the namespace (NVM Command Set 4.1.5.1)
 * are. *OACS: Optional Admin Command Support. */
static int
identify_all(struct st_nvme_driver *d, unsigned *oacs, struct st_err *err)
{
    const uint8_t *p = d->page;
    unsigned shift, mdts;
    int rc = identify(d, 1, 0, err);

    if (rc < 0)
        return rc;
    copy_text(d->info.serial, p + 4, 20);
    copy_text(d->info.model, p + 24, 40);
    mdts = p[77];
    *oacs = p[256] | p[257] << 8;
    d->info.namespaces = le32_get(*(const le32 *)(p + 516));
    rc = identify(d, 0, d->opts.nsid, err);
    if (rc < 0)
        return rc;
    d->info.blocks = le64_get(*(const le64 *)p);
    shift = p[128 + 4 * (p[26] & 15) + 2];
    if (!d->info.blocks || shift < 9 || shift > 16)
        return st_err_set(err, ENODEV, "%s: there is no namespace %u",
                          d->opts.path, d->opts.nsid);
    d->info.block = 1u << shift;
    if (mdts && d->opts.bytes > (size_t)PAGE << mdts)
        return st_err_set(err, EINVAL,
                          "%s: takes up to %zu bytes at once, not %zu",
                          d->opts.path, (size_t)PAGE << mdts, d->opts.bytes);
    return 0;
}

/* ---- Beginning ---- */

static int
wait_ready(struct st_nvme_driver *d, bool ready, struct st_err *err)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    uint32_t csts = 0;
    int rc = 0;

    for (unsigned i = 0; i < ADMIN_MS; i++) {
        rc = read_csts(d, &csts);
        if (rc < 0)
            return st_err_set(err, -rc, "%s: %s", d->opts.path,
                              st_strerror(rc));
        if (csts & NVME_CSTS_CFS)
            return st_err_set(err, EIO, "%s: the controller has failed",
                              d->opts.path);
        if (((csts & NVME_CSTS_RDY) != 0) == ready)
            return 0;
        nanosleep(&ms, NULL);
    }
    return st_err_set(err, ETIMEDOUT, "%s: the controller does not become %s",
                      d->opts.path, ready ? "ready" : "disabled");
}

static int
enable(struct st_nvme_driver *d, struct st_err *err)
{
    le16 command = le16_of(CONFIG_MEMORY_AND_MASTER);
    le64 cap;
    int rc;

    rc = st_vfio_client_write(d->client, CONFIG, CONFIG_COMMAND, &command,
                              sizeof(command));
    if (rc == 0)
        rc = st_vfio_client_read(d->client, 0, NVME_REG_CAP, &cap, sizeof(cap));
    if (rc == 0)
        rc = write32(d, NVME_REG_CC, 0);
    if (rc < 0)
        return st_err_set(err, -rc, "%s: %s", d->opts.path, st_strerror(rc));
    if ((le64_get(cap) & 0xffff) < d->opts.depth)
        return st_err_set(err, EINVAL,
                          "%s: queues have up to %u entries, not %u",
                          d->opts.path, (unsigned)(le64_get(cap) & 0xffff) + 1,
                          d->opts.depth + 1);
    for (unsigned i = 0; i < d->opts.queues; i++)
        d->queue[i].entries =
            (unsigned)st_min((le64_get(cap) & 0xffff) + 1, ENTRIES);
    d->stride = 4u << (le64_get(cap) >> 32 & 15);
    rc = wait_ready(d, false, err);
    if (rc < 0)
        return rc;
    write32(d, NVME_REG_AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    write64(d, NVME_REG_ASQ, d->admin.sq_gpa);
    write64(d, NVME_REG_ACQ, d->admin.cq_gpa);
    write32(d, NVME_REG_CC,
            NVME_CC_EN | 6 << NVME_CC_IOSQES_SHIFT | 4 << NVME_CC_IOCQES_SHIFT);
    return wait_ready(d, true, err);
}

static int
use_shadows(struct st_nvme_driver *d, struct st_err *err)
{
    struct nvme_sqe sqe = {.opcode = NVME_ADMIN_DOORBELL_BUFFER,
                           .prp1 = le64_of(ARENA + AT_SHADOW),
                           .prp2 = le64_of(ARENA + AT_EVENT)};
    int rc = admin_run(d, &sqe, NULL, err);

    if (rc == 0) {
        d->shadow = (void *)(d->arena + AT_SHADOW);
        d->event = (void *)(d->arena + AT_EVENT);
        d->info.doorbells = "shadow";
    }
    return rc;
}

static int
create_queue(struct st_nvme_driver *d, struct queue *q, struct st_err *err)
{
    uint32_t size = (q->entries - 1) << 16 | q->id;
    struct nvme_sqe cq = {.opcode = NVME_ADMIN_CREATE_CQ,
                          .prp1 = le64_of(q->cq_gpa),
                          .cdw10 = le32_of(size),
                          .cdw11 = le32_of(q->id << 16 | 3)}; /* IEN, PC */
    struct nvme_sqe sq = {.opcode = NVME_ADMIN_CREATE_SQ,
                          .prp1 = le64_of(q->sq_gpa),
                          .cdw10 = le32_of(size),
                          .cdw11 = le32_of(q->id << 16 | 1)};
    int rc = admin_run(d, &cq, NULL, err);

    return rc ? rc : admin_run(d, &sq, NULL, err);
}

static int
create_queues(struct st_nvme_driver *d, struct st_err *err)
{
    uint32_t n = d->opts.queues - 1, got;
    struct nvme_sqe sqe = {.opcode = NVME_ADMIN_SET_FEATURES,
                           .cdw10 = le32_of(7), /* Number of Queues */
                           .cdw11 = le32_of(n << 16 | n)};
    int rc = admin_run(d, &sqe, &got, err);

    if (rc == 0 && ((got & 0xffff) < n || got >> 16 < n))
        rc = st_err_set(err, EINVAL, "%s: has only %u queues, not %u",
                        d->opts.path, (got & 0xffff) + 1, d->opts.queues);
    for (unsigned i = 0; rc == 0 && i < d->opts.queues; i++)
        rc = create_queue(d, &d->queue[i], err);
    return rc;
}

/* Where things are: queue ID with ENTRIES at the arena's AT. */
static size_t
place_queue(struct st_nvme_driver *d, struct queue *q, unsigned id,
            unsigned entries, size_t at)
{
    q->id = id;
    q->entries = entries;
    q->phase = 1;
    q->sq = (void *)(d->arena + at);
    q->sq_gpa = ARENA + at;
    at += pages(entries * sizeof(struct nvme_sqe));
    q->cq = (void *)(d->arena + at);
    q->cq_gpa = ARENA + at;
    at += pages(entries * sizeof(struct nvme_cqe));
    q->slots = at;
    return at;
}

/* A slot's PRP list never changes: the pages of its buffer but the first. */
static void
fill_lists(struct st_nvme_driver *d, struct queue *q)
{
    for (unsigned slot = 0; slot < d->opts.depth; slot++) {
        size_t at = q->slots + slot * slot_size(d);
        le64 *list = (void *)(d->arena + at);

        for (size_t i = 1; i * PAGE < pages(d->opts.bytes); i++)
            list[i - 1] = le64_of(ARENA + at + PAGE + i * PAGE);
    }
}

static int
make_arena(struct st_nvme_driver *d, struct st_err *err)
{
    size_t at = AT_QUEUES;
    void *arena;
    int rc;

    d->arena_len = AT_QUEUES + d->opts.queues * queue_size(d, ENTRIES);
    rc = st_vfio_client_arena(d->client, d->arena_len, &arena);
    if (rc == 0)
        rc = st_vfio_client_map(d->client, ARENA, 0, d->arena_len, true);
    if (rc < 0)
        return st_err_set(err, -rc, "%s: %zu bytes of memory: %s", d->opts.path,
                          d->arena_len, st_strerror(rc));
    d->arena = arena;
    d->page = d->arena + AT_PAGE;
    place_queue(d, &d->admin, 0, ADMIN_ENTRIES, AT_ASQ);
    for (unsigned i = 0; i < d->opts.queues; i++) {
        at = place_queue(d, &d->queue[i], i + 1, ENTRIES, at) +
             slot_size(d) * d->opts.depth;
        fill_lists(d, &d->queue[i]);
    }
    return 0;
}

/* Switch MSI-X on (PCI Local Bus 3.0, 6.8.2). */
static int
enable_msix(struct st_nvme_driver *d)
{
    uint8_t at = 0, cap[4];
    int rc =
        st_vfio_client_read(d->client, CONFIG, CONFIG_CAPABILITIES, &at, 1);

    for (unsigned i = 0; rc == 0 && at >= 0x40 && i < 48; i++) {
        rc = st_vfio_client_read(d->client, CONFIG, at & ~3u, cap, sizeof(cap));
        if (rc == 0 && cap[0] == CONFIG_MSIX) {
            cap[3] |= CONFIG_MSIX_ENABLE >> 8;
            return st_vfio_client_write(d->client, CONFIG, (at & ~3u) + 2,
                                        cap + 2, 2);
        }
        at = cap[1];
    }
    return rc ? rc : -ENOTSUP;
}

static int
make_interrupts(struct st_nvme_driver *d, struct st_err *err)
{
    int fd[1 + ST_NVME_DRIVER_QUEUES], rc = 0;
    unsigned n = 1 + d->opts.queues;

    for (unsigned i = 0; i < n; i++) {
        struct queue *q = i ? &d->queue[i - 1] : &d->admin;

        fd[i] = q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (q->fd < 0)
            rc = -errno;
    }
    /* As many descriptors go with one message as every server takes. */
    for (unsigned i = 0; rc == 0 && i < n; i += 16)
        rc = st_vfio_client_irqs(d->client, false, i, n - i < 16 ? n - i : 16,
                                 fd + i);
    if (rc == 0)
        rc = enable_msix(d);
    return rc < 0 ? st_err_set(err, -rc, "%s: interrupts: %s", d->opts.path,
                               st_strerror(rc))
                  : 0;
}

/* Doorbells that can be written without a message. */
static void
map_doorbells(struct st_nvme_driver *d)
{
    uint64_t offset, size;
    void *at;

    d->info.doorbells = "messages";
    if (st_vfio_client_doorbells(d->client, 0, &at, &offset, &size) < 0 ||
        offset > NVME_REG_DOORBELLS ||
        offset + size <
            NVME_REG_DOORBELLS + (uint64_t)(2 * d->opts.queues + 2) * d->stride)
        return;
    d->mapped = (uint8_t *)at + (NVME_REG_DOORBELLS - offset);
    d->info.doorbells = "mapped";
}

static int
begin(struct st_nvme_driver *d, struct st_err *err)
{
    struct ucred who = {0};
    socklen_t len = sizeof(who);
    unsigned oacs = 0;
    int rc = st_vfio_client_connect(d->opts.path, false, &d->client, err);

    if (rc < 0)
        return rc;
    if (getsockopt(st_vfio_client_fd(d->client), SOL_SOCKET, SO_PEERCRED, &who,
                   &len) == 0)
        d->info.pid = who.pid;
    rc = make_arena(d, err);
    if (rc == 0)
        rc = make_interrupts(d, err);
    if (rc == 0)
        rc = enable(d, err);
    if (rc == 0)
        rc = identify_all(d, &oacs, err);
    if (rc < 0)
        return rc;
    map_doorbells(d);
    if (!d->mapped && (oacs & 1 << 8) && !d->opts.no_shadow)
        rc = use_shadows(d, err);
    return rc ? rc : create_queues(d, err);
}

int
st_nvme_driver_open(const struct st_nvme_driver_opts *opts,
                    struct st_nvme_driver **out, struct st_err *err)
{
    struct st_nvme_driver *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return st_err_set(err, ENOMEM, "no memory");
    d->opts = *opts;
    pthread_mutex_init(&d->lock, NULL);
    d->admin.fd = -1;
    for (unsigned i = 0; i < ST_NVME_DRIVER_QUEUES; i++)
        d->queue[i].fd = -1;
    d->info.queues = opts->queues;
    d->info.depth = opts->depth;
    rc = begin(d, err);
    if (rc < 0)
        st_nvme_driver_close(d);
    else
        *out = d;
    return rc;
}

void
st_nvme_driver_close(struct st_nvme_driver *d)
{
    if (!d)
        return;
    if (d->arena && write32(d, NVME_REG_CC, 0) == 0)
        wait_ready(d, false, NULL);
    st_vfio_client_close(d->client);
    for (unsigned i = 0; i < ST_NVME_DRIVER_QUEUES; i++)
        if (d->queue[i].fd >= 0)
            close(d->queue[i].fd);
    if (d->admin.fd >= 0)
        close(d->admin.fd);
    pthread_mutex_destroy(&d->lock);
    free(d);
}
