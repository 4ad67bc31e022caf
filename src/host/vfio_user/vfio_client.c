/* SPDX-License-Identifier: MIT
 *
 * The client's side; see vfio_client.h.
 */
#include "vfio_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "mem.h"
#include "vfio_proto.h"

enum { TIMEOUT_S = 10, DOORBELLS = 6, VERSION_REPLY = 4096 };

struct st_vfio_client {
    int fd; /* owned */
    bool multi;
    uint16_t next_id;
    int arena_fd; /* owned; -1: none */
    uint8_t *arena;
    size_t arena_size;
    struct {
        void *at;
        size_t size;
    } doorbells[DOORBELLS];
    unsigned ndoorbells;
};

/* ---- Messages ---- */

/* All of IOV, with the descriptors at its first byte. */
static int
send_all(int fd, struct iovec *iov, unsigned niov, const int *fds,
         unsigned nfds)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(VFIO_FDS_ROOM * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = niov};

    if (nfds > VFIO_FDS_ROOM)
        return -EINVAL;
    if (nfds) {
        struct cmsghdr *h;

        msg.msg_control = control.room;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(h), fds, nfds * sizeof(int));
    }
    while (msg.msg_iovlen) {
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN  ? -ETIMEDOUT
                   : errno == EPIPE ? -ECONNRESET
                                    : -errno;
        msg.msg_control = NULL;
        msg.msg_controllen = 0;
        while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
            n -= (ssize_t)msg.msg_iov->iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen) {
            msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + n;
            msg.msg_iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

/* LEN bytes, and a descriptor if there is one: *IN_FD, else it stays. */
static int
receive(int fd, void *to, size_t len, int *in_fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;

    while (len) {
        struct iovec iov = {to, len};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.room,
                             .msg_controllen = sizeof(control.room)};
        ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *h;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (n == 0)
            return -ECONNRESET;
        h = CMSG_FIRSTHDR(&msg);
        if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
            if (*in_fd >= 0)
                close(*in_fd);
            memcpy(in_fd, CMSG_DATA(h), sizeof(*in_fd));
        }
        to = (uint8_t *)to + n;
        len -= (size_t)n;
    }
    return 0;
}

int
st_vfio_client_send(struct st_vfio_client *c, const struct st_vfio_call *call,
                    bool posted)
{
    struct vfio_header h = {
        .id = le16_of(c->next_id),
        .command = le16_of((uint16_t)call->command),
        .size = le32_of((uint32_t)(sizeof(h) + call->out_len + call->more_len)),
        .flags = le32_of(VFIO_COMMAND | (posted ? VFIO_NO_REPLY : 0))};
    struct iovec iov[] = {
        {&h, sizeof(h)},
        {(void *)(uintptr_t)call->out, call->out_len},
        {(void *)(uintptr_t)call->more, call->more_len},
    };

    c->next_id++;
    return send_all(c->fd, iov, 3, call->fds, call->nfds);
}

int
st_vfio_client_collect(struct st_vfio_client *c, struct st_vfio_call *call)
{
    struct vfio_header h;
    size_t len;
    int rc;

    call->in_fd = -1;
    call->in_len = 0;
    rc = receive(c->fd, &h, sizeof(h), &call->in_fd);
    if (rc == 0) {
        len = le32_get(h.size) - sizeof(h); /* shorter than that: huge */
        if ((le32_get(h.flags) & VFIO_TYPE) != VFIO_REPLY ||
            le16_get(h.command) != call->command || len > call->in_max)
            rc = -EPROTO;
        else if (le32_get(h.flags) & VFIO_ERROR)
            rc = le32_get(h.error) ? -(int)le32_get(h.error) : -EPROTO;
        else
            rc = receive(c->fd, call->in, call->in_len = len, &call->in_fd);
    }
    if (rc < 0 && call->in_fd >= 0) {
        close(call->in_fd);
        call->in_fd = -1;
    }
    return rc;
}

int
st_vfio_client_call(struct st_vfio_client *c, struct st_vfio_call *call)
{
    int rc;

    call->in_fd = -1; /* also when it cannot be sent */
    rc = st_vfio_client_send(c, call, false);
    return rc < 0 ? rc : st_vfio_client_collect(c, call);
}

/* A call with a payload both ways, of one struct. */
static int
call_struct(struct st_vfio_client *c, unsigned command, void *payload,
            size_t len, size_t in_max)
{
    struct st_vfio_call call = {.command = command,
                                .out = payload,
                                .out_len = len,
                                .in = payload,
                                .in_max = in_max};
    int rc = st_vfio_client_call(c, &call);

    if (call.in_fd >= 0)
        close(call.in_fd);
    if (rc == 0 && call.in_len != in_max)
        rc = -EPROTO;
    return rc;
}

/* ---- Life ---- */

static int
agree(struct st_vfio_client *c, bool multi)
{
    /* Padded: an answer is never longer than the question. */
    static const char text[] =
        "{\"capabilities\": {\"max_msg_fds\": 16, "
        "\"max_data_xfer_size\": 1048576, \"pgsizes\": 4096}}";
    static const char text_multi[] =
        "{\"capabilities\": {\"max_msg_fds\": 16, "
        "\"max_data_xfer_size\": 1048576, \"pgsizes\": 4096, "
        "\"write_multiple\": true}}";
    struct vfio_version out = {.minor = le16_of(1)};
    char in[VERSION_REPLY + 1] = "";
    struct st_vfio_call call = {.command = VFIO_VERSION,
                                .out = &out,
                                .out_len = sizeof(out),
                                .more = multi ? text_multi : text,
                                .more_len =
                                    multi ? sizeof(text_multi) : sizeof(text),
                                .in = in,
                                .in_max = VERSION_REPLY};
    int rc = st_vfio_client_call(c, &call);

    if (call.in_fd >= 0)
        close(call.in_fd);
    if (rc < 0)
        return rc;
    if (call.in_len < sizeof(out) || in[0] || in[1])
        return -EPROTO; /* another major version */
    c->multi = multi && strstr(in + sizeof(out), "\"write_multiple\":true");
    return 0;
}

int
st_vfio_client_attach(int fd, bool multi, struct st_vfio_client **out,
                      struct st_err *err)
{
    struct st_vfio_client *c = calloc(1, sizeof(*c));
    struct timeval tv = {.tv_sec = TIMEOUT_S};
    int rc;

    if (!c) {
        close(fd);
        return st_err_set(err, ENOMEM, "vfio-user: out of memory");
    }
    c->fd = fd;
    c->arena_fd = -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
    rc = agree(c, multi);
    if (rc < 0) {
        st_vfio_client_close(c);
        return st_err_set(err, -rc, "vfio-user: no version agreed on: %s",
                          st_strerror(rc));
    }
    *out = c;
    return 0;
}

int
st_vfio_client_connect(const char *path, bool multi,
                       struct st_vfio_client **out, struct st_err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd, rc;

    if (strlen(path) >= sizeof(a.sun_path))
        return st_err_set(err, ENAMETOOLONG, "%s: path is too long", path);
    strcpy(a.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        rc = st_err_set(err, errno, "%s: %s", path, st_strerror(-errno));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    return st_vfio_client_attach(fd, multi, out, err);
}

void
st_vfio_client_close(struct st_vfio_client *c)
{
    if (!c)
        return;
    close(c->fd);
    for (unsigned i = 0; i < c->ndoorbells; i++)
        munmap(c->doorbells[i].at, c->doorbells[i].size);
    if (c->arena)
        munmap(c->arena, c->arena_size);
    if (c->arena_fd >= 0)
        close(c->arena_fd);
    free(c);
}

int
st_vfio_client_fd(const struct st_vfio_client *c)
{
    return c->fd;
}

bool
st_vfio_client_multi(const struct st_vfio_client *c)
{
    return c->multi;
}

/* ---- The device ---- */

int
st_vfio_client_read(struct st_vfio_client *c, unsigned region, uint64_t offset,
                    void *to, uint32_t count)
{
    struct vfio_region_access a = {le64_of(offset), le32_of(region),
                                   le32_of(count)};
    struct st_vfio_call call = {.command = VFIO_REGION_READ,
                                .out = &a,
                                .out_len = sizeof(a),
                                .in_max = sizeof(a) + count};
    st_autofree uint8_t *in = malloc(sizeof(a) + count);
    int rc;

    if (!in)
        return -ENOMEM;
    call.in = in;
    rc = st_vfio_client_call(c, &call);
    if (call.in_fd >= 0)
        close(call.in_fd);
    if (rc == 0 && call.in_len != sizeof(a) + count)
        rc = -EPROTO;
    if (rc == 0)
        memcpy(to, in + sizeof(a), count);
    return rc;
}

/* A write of either kind. */
static int
region_write(struct st_vfio_client *c, unsigned region, uint64_t offset,
             const void *from, uint32_t count, bool posted)
{
    struct vfio_region_access a = {le64_of(offset), le32_of(region),
                                   le32_of(count)},
                              in;
    struct st_vfio_call call = {.command = VFIO_REGION_WRITE,
                                .out = &a,
                                .out_len = sizeof(a),
                                .more = from,
                                .more_len = count,
                                .in = &in,
                                .in_max = sizeof(in)};

    return posted ? st_vfio_client_send(c, &call, true)
                  : st_vfio_client_call(c, &call);
}

int
st_vfio_client_write(struct st_vfio_client *c, unsigned region, uint64_t offset,
                     const void *from, uint32_t count)
{
    return region_write(c, region, offset, from, count, false);
}

int
st_vfio_client_post(struct st_vfio_client *c, unsigned region, uint64_t offset,
                    const void *from, uint32_t count)
{
    return region_write(c, region, offset, from, count, true);
}

int
st_vfio_client_write_multi(struct st_vfio_client *c,
                           const struct st_vfio_write *w, unsigned n)
{
    st_autofree struct vfio_write_multi *e = calloc(n + 1, sizeof(*e));
    le64 count = le64_of(n);
    struct st_vfio_call call = {.command = VFIO_REGION_WRITE_MULTI,
                                .out = &count,
                                .out_len = sizeof(count),
                                .more = e,
                                .more_len = n * sizeof(*e)};

    if (!c->multi)
        return -ENOTSUP;
    if (!e)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        le64 value = le64_of(w[i].value);

        e[i].offset = le64_of(w[i].offset);
        e[i].region = le32_of(w[i].region);
        e[i].count = le32_of(w[i].len);
        memcpy(e[i].data, &value, sizeof(value));
    }
    return st_vfio_client_send(c, &call, true);
}

int
st_vfio_client_region_size(struct st_vfio_client *c, unsigned region,
                           uint64_t *size)
{
    struct vfio_region_info info = {.argsz = le32_of(sizeof(info)),
                                    .index = le32_of(region)};
    int rc =
        call_struct(c, VFIO_GET_REGION_INFO, &info, sizeof(info), sizeof(info));

    if (rc == 0)
        *size = le64_get(info.size);
    return rc;
}

int
st_vfio_client_doorbells(struct st_vfio_client *c, unsigned region, void **at,
                         uint64_t *offset, uint64_t *size)
{
    struct {
        struct vfio_region_info info;
        struct vfio_sparse sparse;
    } p = {.info = {.argsz = le32_of(sizeof(p)), .index = le32_of(region)}};
    struct st_vfio_call call = {.command = VFIO_GET_REGION_INFO,
                                .out = &p.info,
                                .out_len = sizeof(p.info),
                                .in = &p,
                                .in_max = sizeof(p)};
    st_autoclose int fd = -1;
    int rc = st_vfio_client_call(c, &call);

    fd = call.in_fd;
    if (rc < 0)
        return rc;
    if (call.in_len != sizeof(p) || fd < 0 || le32_get(p.sparse.areas) != 1 ||
        c->ndoorbells == DOORBELLS)
        return -ENOENT;
    *offset = le64_get(p.sparse.offset);
    *size = le64_get(p.sparse.size);
    *at = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
               (off_t)(le64_get(p.info.offset) + *offset));
    if (*at == MAP_FAILED)
        return -errno;
    c->doorbells[c->ndoorbells].at = *at;
    c->doorbells[c->ndoorbells++].size = *size;
    return 0;
}

int
st_vfio_client_reset(struct st_vfio_client *c)
{
    return call_struct(c, VFIO_RESET, NULL, 0, 0);
}

/* ---- Memory and interrupts ---- */

int
st_vfio_client_arena(struct st_vfio_client *c, size_t size, void **host)
{
    void *p;

    if (c->arena || !size || size % VFIO_PAGE)
        return -EINVAL;
    if (c->arena_fd < 0)
        c->arena_fd = memfd_create("guest-memory", MFD_CLOEXEC);
    if (c->arena_fd < 0 || ftruncate(c->arena_fd, (off_t)size) < 0)
        return -errno;
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, c->arena_fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    c->arena = p;
    c->arena_size = size;
    *host = p;
    return 0;
}

int
st_vfio_client_arena_fd(const struct st_vfio_client *c)
{
    return c->arena_fd;
}

int
st_vfio_client_map(struct st_vfio_client *c, uint64_t gpa, uint64_t offset,
                   uint64_t len, bool writable)
{
    struct vfio_dma_map m = {
        .argsz = le32_of(sizeof(m)),
        .flags = le32_of(VFIO_MAP_READ | (writable ? VFIO_MAP_WRITE : 0)),
        .offset = le64_of(offset),
        .address = le64_of(gpa),
        .size = le64_of(len)};
    struct st_vfio_call call = {.command = VFIO_DMA_MAP,
                                .out = &m,
                                .out_len = sizeof(m),
                                .fds = &c->arena_fd,
                                .nfds = c->arena_fd >= 0};

    return st_vfio_client_call(c, &call);
}

int
st_vfio_client_unmap(struct st_vfio_client *c, uint64_t gpa, uint64_t len)
{
    struct vfio_dma_unmap u = {.argsz = le32_of(sizeof(u)),
                               .address = le64_of(gpa),
                               .size = le64_of(len)};

    return call_struct(c, VFIO_DMA_UNMAP, &u, sizeof(u), sizeof(u));
}

int
st_vfio_client_irqs(struct st_vfio_client *c, bool intx, unsigned start,
                    unsigned count, const int *fds)
{
    /* A message takes so many at a time. */
    for (unsigned i = 0; i < count; i += VFIO_FDS) {
        unsigned n = count - i < VFIO_FDS ? count - i : VFIO_FDS;
        struct vfio_set_irqs s = {
            .argsz = le32_of(sizeof(s)),
            .flags = le32_of(VFIO_DATA_EVENTFD | VFIO_TRIGGER),
            .index = le32_of(intx ? VFIO_INTX : VFIO_MSIX),
            .start = le32_of(start + i),
            .count = le32_of(n)};
        struct st_vfio_call call = {.command = VFIO_SET_IRQS,
                                    .out = &s,
                                    .out_len = sizeof(s),
                                    .fds = fds ? fds + i : NULL,
                                    .nfds = fds ? n : 0};
        int rc = st_vfio_client_call(c, &call);

        if (rc < 0)
            return rc;
    }
    return 0;
}
