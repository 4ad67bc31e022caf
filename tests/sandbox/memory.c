/* SPDX-License-Identifier: MIT
 *
 * Probes of memory: ours, and what the monitor of a virtual machine shares with
 * a vfio-user door: a file in memory and an eventfd, that came over a socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "probes.h"

enum { FILES = 2, SIZE = 8192 };

int
probe_executable_memory(struct probe_world *w)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)w;
    return p == MAP_FAILED ? errno : 0;
}

int
probe_make_executable(struct probe_world *w)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)w;
    return p == MAP_FAILED                                ? EIO
           : mprotect(p, 4096, PROT_READ | PROT_EXEC) < 0 ? errno
                                                          : 0;
}

void
probe_send_guest(struct probe_world *w)
{
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(FILES * sizeof(int))];
    } c = {.h = {.cmsg_level = SOL_SOCKET,
                 .cmsg_type = SCM_RIGHTS,
                 .cmsg_len = CMSG_LEN(FILES * sizeof(int))}};
    struct iovec iov = {(char[]){'x'}, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &c,
                       .msg_controllen = sizeof(c.room)};
    int fd[FILES] = {memfd_create("guest", MFD_CLOEXEC),
                     eventfd(0, EFD_CLOEXEC)};
    int end[2];

    if (fd[0] < 0 || fd[1] < 0 || ftruncate(fd[0], SIZE) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end) < 0)
        abort();
    memcpy(CMSG_DATA(&c.h), fd, sizeof(fd));
    if (sendmsg(end[0], &m, 0) != 1)
        abort();
    close(fd[0]);
    close(fd[1]);
    w->guest = end[1]; /* the other end stays open, as a client's does */
}

/* What the guest sent: 0 or an errno. */
static int
receive(struct probe_world *w, int fd[FILES])
{
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(FILES * sizeof(int))];
    } c;
    struct iovec iov = {(char[]){0}, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &c,
                       .msg_controllen = sizeof(c.room)};

    if (recvmsg(w->guest, &m, MSG_CMSG_CLOEXEC) != 1)
        return errno;
    if (!CMSG_FIRSTHDR(&m) || c.h.cmsg_len != CMSG_LEN(FILES * sizeof(int)))
        return EBADMSG;
    memcpy(fd, CMSG_DATA(&c.h), FILES * sizeof(int));
    return 0;
}

int
probe_guest_memory(struct probe_world *w)
{
    int fd[FILES], rc = receive(w, fd);
    struct stat sb;
    char *p;

    if (rc)
        return rc;
    if (fstat(fd[0], &sb) < 0 || fcntl(fd[0], F_GET_SEALS) < 0)
        return errno;
    if (sb.st_size != SIZE)
        return EBADMSG;
    p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd[0], 0);
    if (p == MAP_FAILED)
        return errno;
    p[SIZE - 1] = 'x';
    return munmap(p, SIZE) < 0 ? errno : 0;
}

int
probe_guest_code(struct probe_world *w)
{
    int fd[FILES], rc = receive(w, fd);

    if (rc)
        return EBADMSG;
    return mmap(NULL, SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd[0], 0) ==
                   MAP_FAILED
               ? errno
               : 0;
}

int
probe_guest_interrupt(struct probe_world *w)
{
    int fd[FILES], rc = receive(w, fd);

    if (rc)
        return rc;
    return eventfd_write(fd[1], 1) < 0 ? errno : 0;
}

int
probe_memory_file(struct probe_world *w)
{
    (void)w;
    return memfd_create("ours", MFD_CLOEXEC) < 0 ? errno : 0;
}
