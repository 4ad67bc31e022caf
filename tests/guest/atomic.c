/* SPDX-License-Identifier: MIT
 *
 * atomic DEVICE          prints what statx(2) says of atomic writes: the
 *                        smallest and the largest unit, in bytes
 * atomic DEVICE BYTES    writes so many at offset 0, all or none (RWF_ATOMIC)
 *
 * What Debian 12's headers do not know of Linux 6.11 is defined here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    WRITE_ATOMIC = 0x40,     /* RWF_ATOMIC */
    ASK_ATOMIC = 0x00010000, /* STATX_WRITE_ATOMIC */
    STATX_BYTES = 256,       /* struct statx */
    UNIT_MIN = 168,          /* stx_atomic_write_unit_min */
    UNIT_MAX = 172,          /* stx_atomic_write_unit_max */
    ALIGNED = 4096,
};

static int
say(const char *device)
{
    uint8_t st[STATX_BYTES] = {0};
    uint32_t min, max;

    if (syscall(SYS_statx, AT_FDCWD, device, 0, ASK_ATOMIC, st) < 0) {
        perror("statx");
        return 1;
    }
    memcpy(&min, st + UNIT_MIN, sizeof(min));
    memcpy(&max, st + UNIT_MAX, sizeof(max));
    printf("%u %u\n", min, max);
    return 0;
}

static int
put(const char *device, size_t bytes)
{
    int fd = open(device, O_WRONLY | O_DIRECT);
    struct iovec v = {.iov_len = bytes};
    ssize_t n;

    if (fd < 0) {
        perror(device);
        return 1;
    }
    if (posix_memalign(&v.iov_base, ALIGNED, bytes + ALIGNED) != 0)
        return 1;
    memset(v.iov_base, 0xa5, bytes);
    n = pwritev2(fd, &v, 1, 0, WRITE_ATOMIC);
    if (n < 0)
        perror("pwritev2");
    free(v.iov_base);
    close(fd);
    return n != (ssize_t)bytes;
}

int
main(int argc, char **argv)
{
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: atomic DEVICE [BYTES]\n");
        return 2;
    }
    return argc == 2 ? say(argv[1]) : put(argv[1], strtoul(argv[2], NULL, 0));
}
