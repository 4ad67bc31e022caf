/* SPDX-License-Identifier: MIT
 *
 * Fuzz: the input is what a client sends. Byte 0 says how it behaves; then come
 * records: a byte that says which file descriptors go along (bits 0-2 how many,
 * 3-5 what), two bytes of length, and so many bytes, sent at once. Door, device
 * and client are on one thread, whose loop is turned here.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mem.h"
#include "vfio_proto.h"
#include "vfio_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {                    /* byte 0 */
       HOW_VERSION = 1,   /* a good VERSION goes before */
       HOW_POWER = 2,     /* and what switches the device on */
       HOW_NO_READ = 4,   /* replies are never read */
       HOW_CUT = 8,       /* the door cuts the client off at the end */
       HOW_HALF = 16,     /* it shuts its end down before it closes */
       HOW_TRUNCATE = 32, /* the memory is cut before the last record */
       HOW_SPARSE = 64,   /* a part of BAR 0 can be mapped */
       HOW_LATE = 128,    /* the device is slower than the door waits */
};

enum { MEMORY = 64 << 10, FILES = 6 };

/* A device that does DMA to where it is told, and raises what it is told. */
struct toy {
    struct st_pci pci; /* first */
    struct st_loop *loop;
    struct st_gmem_view *view;
    struct st_gmem_use use;
    struct st_task task;
    struct st_access *late;
    unsigned lazy, left; /* turns that it takes, and still takes */
};

static void
toy_late(struct st_task *t)
{
    struct toy *toy = st_container(t, struct toy, task);
    struct st_access *a = toy->late;

    if (toy->left) {
        toy->left--;
        st_post(toy->loop, &toy->task);
        return;
    }
    toy->late = NULL;
    st_gmem_put(toy->view, &toy->use);
    st_access_done(a);
}

static bool
toy_defer(struct toy *toy, struct st_access *a)
{
    if (toy->late) /* one is enough */
        return true;
    toy->late = a;
    toy->left = toy->lazy;
    st_post(toy->loop, &toy->task);
    return false;
}

static bool
toy_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    struct toy *toy = (struct toy *)p;
    struct iovec iov[4];
    uint8_t bytes[256];
    unsigned n = 0;

    if (bar != 0)
        return true;
    switch (a->offset >> 3 & 7) {
    case 0:
        return toy_defer(toy, a);
    case 1:
        st_pci_raise(p, (unsigned)a->value);
        break;
    case 2:
        st_pci_line(p, a->value & 1);
        break;
    case 3:
        if (st_gmem_read(toy->view, a->value, bytes, sizeof(bytes)) == 0)
            st_gmem_write(toy->view, a->value + 4096, bytes, sizeof(bytes));
        break;
    case 4:
        st_gmem_get(toy->view, &toy->use, a->value, 512, a->write, iov, &n, 4);
        return toy_defer(toy, a);
    }
    a->value = a->write ? a->value : a->offset;
    return true;
}

static bool
toy_reset(struct st_pci *p, struct st_access *a)
{
    st_pci_line(p, false);
    return toy_defer((struct toy *)p, a);
}

static const struct st_pci_ops toy_ops = {
    .name = "toy", .access = toy_access, .reset = toy_reset};

struct flag {
    struct st_task task;
    bool done;
};

static void
raise_flag(struct st_task *t)
{
    st_container(t, struct flag, task)->done = true;
}

static void
turn(struct st_loop *l)
{
    for (unsigned i = 0; i < 4; i++) {
        struct flag f = {.task.run = raise_flag};

        st_ready(l, &f.task);
        st_loop_wait(l, &f.done);
    }
}

static void
stopped(void *arg)
{
    *(bool *)arg = true;
}

/* What a client may send along; memory comes first. */
static void
files_open(int fd[FILES])
{
    int pipes[2];

    fd[0] = memfd_create("memory", MFD_CLOEXEC);
    fd[1] = memfd_create("short", MFD_CLOEXEC);
    fd[2] = eventfd(0, EFD_CLOEXEC);
    fd[3] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pipe(pipes) < 0 || ftruncate(fd[0], MEMORY) < 0 ||
        ftruncate(fd[1], 100) < 0)
        abort();
    fd[4] = pipes[0];
    fd[5] = pipes[1];
}

static void
send_record(int sock, const void *data, size_t len, const int *files, uint8_t b)
{
    int fds[7];
    char room[CMSG_SPACE(sizeof(fds))] = {0};
    size_t n = b & 7;
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n) {
        struct cmsghdr *h;

        for (size_t i = 0; i < n; i++)
            fds[i] = files[(b >> 3 & 7) % FILES];
        msg.msg_control = room;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(h), fds, n * sizeof(int));
    }
    if (len && sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return; /* the door has had enough of it */
}

static void
send_version(int sock)
{
    static const char text[] =
        "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,"
        "\"write_multiple\":true}}";
    struct {
        struct vfio_header h;
        struct vfio_version v;
        char text[sizeof(text)];
    } m = {.h = {.command = le16_of(VFIO_VERSION),
                 .size = le32_of(sizeof(m.h) + sizeof(m.v) + sizeof(text))}};

    memcpy(m.text, text, sizeof(text));
    send_record(sock, &m, sizeof(m.h) + sizeof(m.v) + sizeof(text), NULL, 0);
}

/* Memory space, bus master, MSI-X. */
static void
send_power(int sock)
{
    struct {
        struct vfio_header h;
        struct vfio_region_access a;
        uint8_t data[2];
    } m = {.h = {.command = le16_of(VFIO_REGION_WRITE),
                 .size = le32_of(34),
                 .flags = le32_of(VFIO_NO_REPLY)},
           .a = {le64_of(4), le32_of(VFIO_CONFIG), le32_of(2)},
           .data = {6, 0}};

    send_record(sock, &m, 34, NULL, 0);
    m.a.offset = le64_of(0x42);
    m.data[0] = 0;
    m.data[1] = 0x80;
    send_record(sock, &m, 34, NULL, 0);
}

/* A connection to a listening socket without a name in the file system. */
static int
connected(int *listening)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(a);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(*listening, (struct sockaddr *)&a, sizeof(a.sun_family)) < 0 ||
        getsockname(*listening, (struct sockaddr *)&a, &len) < 0 ||
        listen(*listening, 1) < 0 ||
        connect(fd, (struct sockaddr *)&a, len) < 0)
        abort();
    return fd;
}

static void
play(struct st_loop *loop, int sock, const int *files, uint8_t how,
     const uint8_t *data, size_t size)
{
    static uint8_t sink[1 << 16];

    if (how & HOW_VERSION)
        send_version(sock);
    if (how & HOW_POWER)
        send_power(sock);
    while (size >= 3) {
        size_t len = data[1] | (size_t)data[2] << 8;
        uint8_t b = data[0];

        data += 3;
        size -= 3;
        if (len > size)
            len = size;
        if (how & HOW_TRUNCATE && len == size && ftruncate(files[0], 4096) < 0)
            abort();
        send_record(sock, data, len, files, b);
        data += len;
        size -= len;
        turn(loop);
        while (!(how & HOW_NO_READ) &&
               recv(sock, sink, sizeof(sink), MSG_DONTWAIT) > 0)
            ;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct st_pci_id id = {1, 2, 3, 4, 0x088000, 1};
    struct st_domain_opts dopts = {.engine = "threads"};
    struct st_vfio_user_opts o = {.write_multiple = true};
    struct toy toy = {.task.run = toy_late};
    struct st_domain *domain;
    struct st_vfio_user *v;
    bool done = false;
    uint8_t how = size ? *data : 0;
    int sock, listening, files[FILES];

    if (st_domain_create(&dopts, &domain, NULL) < 0 ||
        st_loop_create(domain, &toy.loop, NULL) < 0)
        abort();
    files_open(files);
    sock = connected(&listening);
    st_pci_init(&toy.pci, &toy_ops, &id);
    st_pci_add_bar(&toy.pci, 0, 4096, 0);
    st_pci_add_bar(&toy.pci, 4, 4096, 0);
    st_pci_add_express(&toy.pci);
    st_pci_add_intx(&toy.pci);
    o.loop = toy.loop;
    o.pci = &toy.pci;
    o.gmem = st_gmem_create(toy.loop);
    o.sparse.fd = files[0];
    o.sparse.size = how & HOW_SPARSE ? 4096 : 0;
    o.timeout_ns = how & HOW_LATE; /* a blink */
    toy.lazy = how & HOW_LATE ? 50 : 0;
    if (!o.gmem || st_pci_add_msix(&toy.pci, 20, 4, 0, 0x800) < 0 ||
        !(toy.view = st_gmem_open(o.gmem, toy.loop)) ||
        st_vfio_user_create(&o, listening, &v, NULL) < 0)
        abort();
    if (size)
        play(toy.loop, sock, files, how, data + 1, size - 1);
    if (how & HOW_HALF)
        shutdown(sock, SHUT_WR);
    if (how & HOW_CUT)
        st_vfio_user_cut(v);
    else
        close(sock);
    st_vfio_user_stop(v, stopped, &done);
    st_vfio_user_cut(v);
    st_loop_wait(toy.loop, &done);
    if (how & HOW_CUT)
        close(sock);
    st_vfio_user_destroy(v);
    st_gmem_close(toy.view);
    turn(toy.loop);
    st_gmem_destroy(o.gmem);
    st_pci_fini(&toy.pci);
    st_loop_destroy(toy.loop);
    st_domain_destroy(domain);
    for (unsigned i = 0; i < FILES; i++)
        close(files[i]);
    return 0;
}
