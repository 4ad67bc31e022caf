/* SPDX-License-Identifier: MIT
 *
 * Commands: VERSION, what the device is made of, accesses, reset.
 *
 * An access is cut into pieces that a function takes: in configuration space up
 * to 4 bytes, in a BAR naturally aligned 1, 2, 4 or 8. One that the function
 * defers holds all that comes after it. What lies beyond a region reads all
 * ones and is not written: clients like Cloud Hypervisor wait for data, not for
 * an error.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "range.h"
#include "vfio_private.h"

enum { VERSION_MAX = 16 << 10 /* bytes of text */ };

/* ---- VERSION ---- */

static void
version(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    const char *text = (const char *)c->payload + sizeof(struct vfio_version);
    struct vfio_offer offer;
    struct vfio_version in;
    uint8_t *out;
    size_t len;
    bool multi = v->opts.write_multiple;

    if (c->len < sizeof(in) || (c->versioned && !c->again_first)) {
        st_vfio_error(v, EINVAL);
        if (!c->versioned)
            st_vfio_drop(v, "its VERSION is too short");
        return;
    }
    memcpy(&in, c->payload, sizeof(in));
    len = c->len - sizeof(in);
    if (le16_get(in.major) != 0 || len > VERSION_MAX ||
        !st_vfio_offer(text, len, &offer)) {
        st_vfio_error(v, EINVAL);
        st_count(&v->protocol_errors, 1);
        st_vfio_drop(v, "its VERSION is not understood");
        return;
    }
    out = st_vfio_payload(v, c->len); /* never longer than the question */
    if (!out)
        return;
    len = st_vfio_accept(&offer, (char *)out + sizeof(in), len, &multi);
    in.minor = le16_of((uint16_t)st_min(le16_get(in.minor), 1));
    memcpy(out, &in, sizeof(in));
    c->versioned = true;
    c->multi = multi;
    st_vfio_journal_version(v);
    st_vfio_reply(v, sizeof(in) + len, -1);
}

/* ---- What the device is made of ---- */

static void
get_info(struct st_vfio_user *v)
{
    struct vfio_info in, *out;

    if (v->conn.len < sizeof(in)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    memcpy(&in, v->conn.payload, sizeof(in));
    if (le32_get(in.argsz) < sizeof(in)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    out = st_vfio_payload(v, sizeof(*out));
    if (!out)
        return;
    *out = (struct vfio_info){.argsz = le32_of(sizeof(*out)),
                              .flags =
                                  le32_of(VFIO_DEVICE_RESET | VFIO_DEVICE_PCI),
                              .regions = le32_of(VFIO_REGIONS),
                              .irqs = le32_of(VFIO_IRQS)};
    st_vfio_reply(v, sizeof(*out), -1);
}

static uint64_t
region_size(const struct st_vfio_user *v, unsigned region)
{
    if (region < ST_PCI_BARS)
        return v->pci->bar[region].size;
    return region == VFIO_CONFIG ? ST_PCI_CONFIG : 0;
}

static void
get_region_info(struct st_vfio_user *v)
{
    struct vfio_region_info in, out = {0};
    uint32_t flags = VFIO_REGION_READABLE | VFIO_REGION_WRITABLE, index;
    uint32_t argsz = sizeof(in);
    struct vfio_sparse sparse;
    size_t len = sizeof(out);
    bool mapped;
    uint8_t *p;

    if (v->conn.len < sizeof(in)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    memcpy(&in, v->conn.payload, sizeof(in));
    index = le32_get(in.index);
    if (le32_get(in.argsz) < sizeof(in) || index >= VFIO_REGIONS) {
        st_vfio_error(v, EINVAL);
        return;
    }
    mapped = v->opts.sparse.size && v->opts.sparse.bar == index;
    out.index = in.index;
    out.size = le64_of(region_size(v, index));
    if (mapped) {
        flags |= VFIO_REGION_MMAP | VFIO_REGION_CAPS;
        argsz += (uint32_t)sizeof(sparse);
        out.offset = le64_of(v->opts.sparse.fd_offset - v->opts.sparse.offset);
        /* Also when the capability does not fit: QEMU wants it so. */
        out.cap_offset = le32_of(sizeof(out));
        if (le32_get(in.argsz) >= argsz)
            len = argsz;
    }
    out.argsz = le32_of(argsz);
    out.flags = le32_of(region_size(v, index) ? flags : 0);
    p = st_vfio_payload(v, len);
    if (!p)
        return;
    memcpy(p, &out, sizeof(out));
    if (len > sizeof(out)) {
        sparse = (struct vfio_sparse){.id = le16_of(1),
                                      .version = le16_of(1),
                                      .areas = le32_of(1),
                                      .offset = le64_of(v->opts.sparse.offset),
                                      .size = le64_of(v->opts.sparse.size)};
        memcpy(p + sizeof(out), &sparse, sizeof(sparse));
    }
    st_vfio_reply(v, len, mapped ? v->opts.sparse.fd : -1);
}

/* ---- Accesses ---- */

static void access_run(struct st_vfio_user *v);

/* On the loop: a deferred piece is done. */
static void
access_back(struct st_task *t)
{
    struct vfio_access *x = st_container(t, struct vfio_access, task);
    struct st_vfio_user *v = x->v;

    v->busy--;
    x->out = false;
    if (x->late) {
        free(x);
        st_vfio_check(v);
        return;
    }
    v->conn.waiting = false;
    access_run(v);
}

static void
access_done(struct st_access *a)
{
    struct vfio_access *x = st_container(a, struct vfio_access, access);

    st_post(x->v->loop, &x->task);
}

void
st_vfio_access_abandon(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    if (c->access && c->access->out)
        c->access->late = true;
    else
        free(c->access);
    c->access = NULL;
    c->piece = 0;
}

/* A read of the pending bits also shows those that wait for an eventfd here. */
static uint64_t
pending_bits(const struct st_vfio_user *v, uint64_t offset, unsigned len)
{
    const struct st_pci *p = v->pci;
    uint64_t at = offset - p->msix_pba;

    if (!p->msix || v->conn.region != p->msix_bar || len < 4 ||
        !st_range_ok(at, len, (p->vectors + 63) / 64 * 8))
        return 0;
    return st_vfio_irq_pending(v, (unsigned)at * 8, len);
}

/* The piece in hand is done; its value is VALUE. */
static void
piece_end(struct st_vfio_user *v, uint64_t value)
{
    struct vfio_conn *c = &v->conn;
    le64 wire = le64_of(value);

    if (!c->write)
        memcpy(c->data, &wire, c->piece);
    c->data += c->piece;
    c->offset += c->piece;
    c->left -= c->piece;
    c->piece = 0;
}

/* Nobody waits for the piece any more, and the rest is not even tried. */
static void
access_late(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    st_warn_limited(v->opts.log, &v->limiter,
                    "%s: an access to BAR %u at %#llx takes too long", v->name,
                    v->conn.region, (unsigned long long)v->conn.offset);
    c->access->late = true;
    c->access = NULL;
    c->waiting = false;
    if (!c->write)
        memset(c->data, 0xff, c->left);
    c->left = 0;
    c->piece = 0;
    c->multi_left = 0;
    access_run(v);
}

/* One piece of an access to a BAR: false, it will come back. */
static bool
bar_piece(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    struct vfio_access *x = c->access;
    le64 wire = {0};

    if (!x) {
        x = c->access = calloc(1, sizeof(*x));
        if (!x) {
            st_vfio_drop(v, "out of memory");
            return false;
        }
        x->v = v;
        x->task.run = access_back;
    }
    c->piece = 8;
    while (c->piece > c->left || c->offset % c->piece)
        c->piece /= 2;
    if (c->write)
        memcpy(&wire, c->data, c->piece);
    x->access = (struct st_access){.offset = c->offset,
                                   .len = c->piece,
                                   .write = c->write,
                                   .value = le64_get(wire),
                                   .done = access_done};
    if (st_pci_access(v->pci, c->region, &x->access))
        return true;
    v->busy++;
    x->out = true;
    return false;
}

static void
config_piece(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    uint32_t value = 0;
    le32 wire = {0};

    c->piece = (unsigned)st_min(c->left, 4);
    if (c->write) {
        memcpy(&wire, c->data, c->piece);
        st_pci_config_write(v->pci, (unsigned)c->offset, c->piece,
                            le32_get(wire));
        st_vfio_journal_config(v);
    } else {
        value = st_pci_config_read(v->pci, (unsigned)c->offset, c->piece);
    }
    piece_end(v, value);
}

/* Carry out what is left of an access: false, it waits, or the client is
 * dropped. */
static bool
access_pieces(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    if (c->piece) /* it was deferred, and is back */
        piece_end(v, c->access->access.value |
                         pending_bits(v, c->offset, c->piece));
    while (c->left) {
        if (c->region == VFIO_CONFIG) {
            config_piece(v);
        } else if (bar_piece(v)) {
            piece_end(v, c->access->access.value |
                             pending_bits(v, c->offset, c->piece));
        } else {
            if (!c->dead)
                st_vfio_wait(v, access_late);
            return false;
        }
    }
    return true;
}

/* Begin an access; what is beyond the region is dealt with here. */
static void
access_begin(struct st_vfio_user *v, const struct vfio_region_access *a,
             bool write, uint8_t *data)
{
    struct vfio_conn *c = &v->conn;
    uint32_t count = le32_get(a->count);
    uint64_t size;

    c->write = write;
    c->region = le32_get(a->region);
    c->offset = le64_get(a->offset);
    size = region_size(v, c->region);
    c->left = c->offset < size ? (uint32_t)st_min(count, size - c->offset) : 0;
    c->data = data;
    c->piece = 0;
    if (!write && c->left < count)
        memset(data + c->left, 0xff, count - c->left);
    st_count(write ? &v->writes : &v->reads, 1);
}

/* Entry after entry of WRITE_MULTI: false, one waits. */
static bool
multi_next(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    while (access_pieces(v)) {
        struct vfio_write_multi e;
        struct vfio_region_access a;

        if (!c->multi_left)
            return true;
        memcpy(&e, c->entry, sizeof(e));
        a = (struct vfio_region_access){e.offset, e.region, e.count};
        /* Written from, never to. */
        access_begin(v, &a, true,
                     (uint8_t *)(uintptr_t)c->entry +
                         offsetof(struct vfio_write_multi, data));
        c->entry += sizeof(e);
        c->multi_left--;
    }
    return false;
}

/* Go on with the access of the message, and answer when it is done. */
static void
access_run(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    bool was_waiting = !c->running; /* called back, not from command */
    struct vfio_region_access a;
    uint8_t *out;

    if (c->command == VFIO_REGION_WRITE_MULTI) {
        if (!multi_next(v) || !(out = st_vfio_payload(v, 8)))
            return;
        memcpy(out, c->payload, 8);
        st_vfio_reply(v, 8, -1);
    } else {
        if (!access_pieces(v))
            return;
        memcpy(&a, c->payload, sizeof(a));
        if (c->write && !st_vfio_payload(v, sizeof(a)))
            return;
        memcpy(c->reply + sizeof(struct vfio_header), &a, sizeof(a));
        st_vfio_reply(v, sizeof(a) + (c->write ? 0 : le32_get(a.count)), -1);
    }
    if (was_waiting)
        st_vfio_continue(v);
}

static void
region_access(struct st_vfio_user *v, bool write)
{
    struct vfio_conn *c = &v->conn;
    struct vfio_region_access a;
    uint8_t *data;
    uint32_t count;

    if (c->len < sizeof(a)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    memcpy(&a, c->payload, sizeof(a));
    count = le32_get(a.count);
    if (!count || count > VFIO_XFER_MAX || le32_get(a.region) >= VFIO_REGIONS ||
        c->len != sizeof(a) + (write ? count : 0)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    if (write) {
        data = (uint8_t *)(uintptr_t)c->payload + sizeof(a); /* read only */
    } else {
        data = st_vfio_payload(v, sizeof(a) + count);
        if (!data)
            return;
        data += sizeof(a);
    }
    access_begin(v, &a, write, data);
    access_run(v);
}

static void
write_multi(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    uint64_t n;
    le64 wire;

    if (!c->multi) {
        st_vfio_error(v, ENOTSUP);
        return;
    }
    if (c->len < sizeof(wire)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    memcpy(&wire, c->payload, sizeof(wire));
    n = le64_get(wire);
    if (n > VFIO_MESSAGE_MAX / sizeof(struct vfio_write_multi) ||
        c->len != sizeof(wire) + n * sizeof(struct vfio_write_multi)) {
        st_vfio_error(v, EINVAL);
        return;
    }
    c->entry = c->payload + sizeof(wire);
    for (uint64_t i = 0; i < n; i++) {
        struct vfio_write_multi e;

        memcpy(&e, c->entry + i * sizeof(e), sizeof(e));
        if (!le32_get(e.count) || le32_get(e.count) > sizeof(e.data) ||
            le32_get(e.region) >= VFIO_REGIONS) {
            st_vfio_error(v, EINVAL);
            return;
        }
    }
    c->multi_left = n;
    c->left = 0;
    c->piece = 0;
    access_run(v);
}

/* ---- Reset ---- */

static void
reset_answer(struct st_vfio_user *v)
{
    if (st_vfio_payload(v, 0))
        st_vfio_reply(v, 0, -1);
    if (v->conn.running)
        v->conn.waiting = false; /* at once */
    else
        st_vfio_continue(v);
}

static void
reset_late(struct st_vfio_user *v)
{
    v->reset_then = NULL;
    st_warn_limited(v->opts.log, &v->limiter, "%s: the reset takes too long",
                    v->name);
    reset_answer(v);
}

static void
reset(struct st_vfio_user *v)
{
    st_vfio_wait(v, reset_late);
    st_vfio_reset(v, reset_answer);
    if (!v->conn.waiting)
        st_timer_stop(v->loop, &v->conn.timer);
}

/* ---- All of them ---- */

void
st_vfio_command(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    if (st_vfio_fds(v) && c->command != VFIO_DMA_MAP &&
        c->command != VFIO_SET_IRQS) {
        st_vfio_fds_close(v);
        st_vfio_error(v, EINVAL);
        if (!c->versioned)
            st_vfio_drop(v, "its VERSION has file descriptors");
        return;
    }
    switch (c->command) {
    case VFIO_VERSION:
        version(v);
        break;
    case VFIO_DMA_MAP:
        st_vfio_dma_map(v);
        break;
    case VFIO_DMA_UNMAP:
        st_vfio_dma_unmap(v);
        break;
    case VFIO_GET_INFO:
        get_info(v);
        break;
    case VFIO_GET_REGION_INFO:
        get_region_info(v);
        break;
    case VFIO_GET_IRQ_INFO:
        st_vfio_irq_info(v);
        break;
    case VFIO_SET_IRQS:
        st_vfio_set_irqs(v);
        break;
    case VFIO_REGION_READ:
        region_access(v, false);
        break;
    case VFIO_REGION_WRITE:
        region_access(v, true);
        break;
    case VFIO_REGION_WRITE_MULTI:
        write_multi(v);
        break;
    case VFIO_RESET:
        reset(v);
        break;
    default: /* region I/O fds, DMA from the client, migration, or nothing */
        st_vfio_error(v, ENOTSUP);
    }
}
