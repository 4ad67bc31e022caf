/* SPDX-License-Identifier: MIT
 *
 * Power loss: the log of dm-log-writes, version 1 (the kernel's
 * Documentation/admin-guide/device-mapper/log-writes.rst, and the structures of
 * drivers/md/dm-log-writes.c). All numbers are little endian.
 *
 *   sector 0   magic u64, version u64, number of entries u64, sector size u32
 *   then, in sectors of that size, per entry
 *              sector u64, number of sectors u64, flags u64, data length u64
 *              (a mark: its name follows within this sector)
 *              the data, unless it is a discard or a mark
 *
 * The log holds a write once a flush has covered it, or at once if it had FUA:
 * what is not in it may be lost.
 */
#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "power.h"

#define LOG_MAGIC 0x6a736677736872ULL

enum {
    LOG_DISCARD = 1 << 2,
    LOG_MARK = 1 << 3,
    LOG_ENTRY = 32, /* bytes, of which the sector is the frame */
    LOG_SECTOR_MAX = 1 << 16,
    LOG_PIECE = 1 << 20, /* bytes copied at once */
};

struct log {
    const char *path;
    int fd;
    uint64_t entries, index; /* INDEX is of the entry that comes next */
    uint32_t sector_size;
    off_t next; /* where that entry lies */
};

struct entry {
    uint64_t sector, sectors, flags, length;
    char name[64]; /* of a mark */
    off_t data;    /* where its data lies */
};

static void
read_all(const struct log *l, void *to, size_t n, off_t at)
{
    if (pread(l->fd, to, n, at) != (ssize_t)n) {
        err(2, "%s: %zu bytes at %jd", l->path, n, (intmax_t)at);
    }
}

static uint64_t
u64_at(const uint8_t *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    return le64toh(x);
}

static struct log
log_open(const char *path)
{
    struct log l = {.path = path};
    uint8_t head[28];
    uint32_t size;

    l.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (l.fd < 0) {
        err(2, "%s", path);
    }
    read_all(&l, head, sizeof(head), 0);
    memcpy(&size, head + 24, sizeof(size));
    l.sector_size = le32toh(size);
    l.entries = u64_at(head + 16);
    if (u64_at(head) != LOG_MAGIC || u64_at(head + 8) != 1 ||
        l.sector_size < 512 || l.sector_size > LOG_SECTOR_MAX) {
        errx(2, "%s: no log of dm-log-writes, version 1", path);
    }
    l.next = l.sector_size;
    return l;
}

/* Read the next entry. 1, or 0 at the end. */
static int
log_next(struct log *l, struct entry *e)
{
    uint8_t head[LOG_ENTRY + sizeof(e->name)] = {0};
    uint64_t n;

    if (l->index == l->entries) {
        return 0;
    }
    read_all(l, head, sizeof(head), l->next);
    *e = (struct entry){u64_at(head), u64_at(head + 8), u64_at(head + 16),
                        u64_at(head + 24), .data = l->next + l->sector_size};
    l->next = e->data;
    l->index++;
    if (e->flags & LOG_MARK) {
        n = e->length < sizeof(e->name) - 1 ? e->length : sizeof(e->name) - 1;
        memcpy(e->name, head + LOG_ENTRY, n);
    } else if (!(e->flags & LOG_DISCARD)) {
        if (e->sectors > INT32_MAX) {
            errx(2, "%s: entry %" PRIu64 " is no entry", l->path, l->index - 1);
        }
        l->next += (off_t)(e->sectors * l->sector_size);
    }
    return 1;
}

/* One line a mark: how many entries have come when it comes, and its name. */
int
power_marks(int argc, char **argv)
{
    struct log l = log_open(argv[0]);
    struct entry e;

    (void)argc;
    while (log_next(&l, &e)) {
        if (e.flags & LOG_MARK) {
            printf("%" PRIu64 " %s\n", l.index, e.name);
        }
    }
    close(l.fd);
    return 0;
}

/* Write N bytes at AT of TARGET: from the log at FROM, or zeroes. */
static void
put(const struct log *l, int target, off_t at, uint64_t n, off_t from,
    int zeroes)
{
    static uint8_t piece[LOG_PIECE];

    while (n > 0) {
        size_t some = n < sizeof(piece) ? (size_t)n : sizeof(piece);

        if (zeroes) {
            memset(piece, 0, some);
        } else {
            read_all(l, piece, some, from);
        }
        if (pwrite(target, piece, some, at) != (ssize_t)some) {
            err(2, "replay at %jd", (intmax_t)at);
        }
        n -= some;
        at += (off_t)some;
        from += (off_t)some;
    }
}

/* Bring TARGET, which holds the entries before FROM, to those before TO. */
int
power_replay(int argc, char **argv)
{
    struct log l = log_open(argv[0]);
    uint64_t from = strtoull(argv[2], NULL, 10);
    uint64_t to = strtoull(argv[3], NULL, 10);
    int target = open(argv[1], O_WRONLY | O_CLOEXEC);
    struct entry e;

    (void)argc;
    if (target < 0) {
        err(2, "%s", argv[1]);
    }
    while (l.index < to && log_next(&l, &e)) {
        if (l.index > from && !(e.flags & LOG_MARK)) {
            put(&l, target, (off_t)(e.sector * l.sector_size),
                e.sectors * l.sector_size, e.data,
                (e.flags & LOG_DISCARD) != 0);
        }
    }
    if (l.index < to) {
        errx(2, "%s: has %" PRIu64 " entries, not %" PRIu64, l.path, l.index,
             to);
    }
    close(target);
    close(l.fd);
    return 0;
}
