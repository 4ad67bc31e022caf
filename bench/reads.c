/* SPDX-License-Identifier: MIT
 *
 * So many reads of a disk, always the same ones, for a guest in which exits are
 * counted: fio's own work would be a part of every count, and its libraries
 * would be most of the guest.
 *
 *   reads DEVICE BYTES DEPTH COUNT
 *
 * Like fio's libaio engine, as long as there is something to read, each read
 * that ends is followed by another one, sent by itself. Prints "iops N".
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    DEPTH_MAX = 256,
    BYTES_MAX = 1 << 20,
};

static void
die(const char *what)
{
    fprintf(stderr, "reads: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void
send(aio_context_t ctx, struct iocb *cb, uint64_t places, uint64_t *dice)
{
    *dice = *dice * 6364136223846793005u + 1442695040888963407u;
    cb->aio_offset = (int64_t)((*dice >> 33) % places * cb->aio_nbytes);
    if (syscall(SYS_io_submit, ctx, 1L, &cb) != 1) {
        die("io_submit");
    }
}

static double
seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
    static struct iocb cbs[DEPTH_MAX];
    struct io_event done[DEPTH_MAX];
    unsigned long bytes, depth, count, sent = 0, ended = 0;
    aio_context_t ctx = 0;
    uint64_t dice = 1;
    int64_t size;
    double start;
    char *memory;
    int fd;

    if (argc != 5) {
        fprintf(stderr, "usage: reads DEVICE BYTES DEPTH COUNT\n");
        return 2;
    }
    bytes = strtoul(argv[2], NULL, 10);
    depth = strtoul(argv[3], NULL, 10);
    count = strtoul(argv[4], NULL, 10);
    if (bytes % 512 || bytes < 1 || bytes > BYTES_MAX || depth < 1 ||
        depth > DEPTH_MAX || count < 1) {
        fprintf(stderr, "reads: BYTES are a multiple of 512, at most %d; "
                        "DEPTH is at most %d\n",
                BYTES_MAX, DEPTH_MAX);
        return 2;
    }
    fd = open(argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
    size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < (int64_t)bytes) {
        die(argv[1]);
    }
    memory = aligned_alloc(4096, (depth * bytes + 4095) / 4096 * 4096);
    if (!memory || syscall(SYS_io_setup, depth, &ctx) < 0) {
        die("set-up");
    }

    start = seconds();
    for (; sent < depth && sent < count; sent++) {
        cbs[sent] = (struct iocb){
            .aio_lio_opcode = IOCB_CMD_PREAD,
            .aio_fildes = (uint32_t)fd,
            .aio_buf = (uintptr_t)(memory + sent * bytes),
            .aio_nbytes = bytes,
        };
        send(ctx, &cbs[sent], (uint64_t)size / bytes, &dice);
    }
    while (ended < count) {
        long n = syscall(SYS_io_getevents, ctx, 1L, (long)depth, done, NULL);

        if (n < 0 && errno != EINTR) {
            die("io_getevents");
        }
        for (long i = 0; i < n; i++) {
            if (done[i].res != (int64_t)bytes) {
                errno = done[i].res < 0 ? (int)-done[i].res : EIO;
                die("read");
            }
            ended++;
            if (sent < count) {
                send(ctx, (struct iocb *)(uintptr_t)done[i].obj,
                     (uint64_t)size / bytes, &dice);
                sent++;
            }
        }
    }
    printf("iops %.0f\n", (double)count / (seconds() - start));
    return 0;
}
