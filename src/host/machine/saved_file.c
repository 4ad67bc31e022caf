/* SPDX-License-Identifier: MIT
 *
 * The file of a saved machine on a disk, with its RAM; see saved.h.
 */
#include "saved.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32c.h"
#include "mem.h"
#include "range.h"
#include "wire.h"

enum {
    PAGE = ST_MACHINE_RAM_PAGE,
    CHUNK = 1 << 20, /* of RAM, at a time */
};

/* ---- RAM ---- */

uint32_t
st_saved_ram_sum(uint32_t sum, uint64_t offset, const uint8_t *p)
{
    le64 at = le64_of(offset);

    return st_crc32c(st_crc32c(sum, &at, sizeof(at)), p, PAGE);
}

/* The next range of FD at or behind AT that may hold data, below END: false
 * when there is none. A file that knows no holes is one range. */
static bool
next_data(int fd, uint64_t at, uint64_t end, uint64_t *from, uint64_t *to)
{
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    off_t hole;

    if (data < 0 && errno == ENXIO)
        return false;
    if (data < 0)
        data = (off_t)at;
    hole = lseek(fd, data, SEEK_HOLE);
    *from = st_align_down((uint64_t)data, PAGE);
    *to = hole < 0 ? end : st_min(st_align_up((uint64_t)hole, PAGE), end);
    return *from < end;
}

static int
write_all(int fd, const void *p, size_t len, uint64_t at)
{
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p = (const uint8_t *)p + n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

static int
read_all(int fd, void *p, size_t len, uint64_t at)
{
    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENODATA;
        p = (uint8_t *)p + n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

/* Write what is not zero of LEN bytes of RAM at OFFSET. */
static int
write_chunk(struct st_saved *s, int fd, const uint8_t *p, uint64_t offset,
            size_t len)
{
    size_t run = 0; /* bytes before I that are not written yet */
    int rc = 0;

    for (size_t i = 0; rc == 0 && i <= len; i += PAGE) {
        if (i < len && !st_mem_is_zero(p + i, PAGE)) {
            s->ram_sum = st_saved_ram_sum(s->ram_sum, offset + i, p + i);
            run += PAGE;
        } else if (run) {
            rc = write_all(fd, p + i - run, run, s->ram_at + offset + i - run);
            run = 0;
        }
    }
    return rc;
}

static int
write_ram(struct st_saved *s, int fd, const struct st_machine_ram *ram,
          const _Atomic bool *cancel)
{
    uint64_t from, to;
    int rc = ftruncate(fd, (off_t)(s->ram_at + s->ram_size)) < 0 ? -errno : 0;

    for (uint64_t at = 0;
         rc == 0 && next_data(ram->fd, at, ram->size, &from, &to); at = to)
        for (; rc == 0 && from < to; from += CHUNK)
            rc = atomic_load(cancel)
                     ? -ECANCELED
                     : write_chunk(s, fd, ram->host + from, from,
                                   st_min(CHUNK, to - from));
    return rc;
}

static int
read_ram(const struct st_saved *s, int fd, const struct st_machine_ram *ram,
         uint8_t *chunk, uint32_t *sum)
{
    uint64_t end = s->ram_at + s->ram_size, from, to;
    int rc = 0;

    for (uint64_t at = s->ram_at; rc == 0 && next_data(fd, at, end, &from, &to);
         at = to)
        for (; rc == 0 && from < to; from += CHUNK) {
            size_t n = st_min(CHUNK, to - from);

            rc = read_all(fd, chunk, n, from);
            for (size_t i = 0; rc == 0 && i < n; i += PAGE) {
                uint64_t offset = from - s->ram_at + i;

                if (st_mem_is_zero(chunk + i, PAGE))
                    continue;
                *sum = st_saved_ram_sum(*sum, offset, chunk + i);
                memcpy(ram->host + offset, chunk + i, PAGE);
            }
        }
    return rc;
}

int
st_saved_read_ram(const struct st_saved *s, int fd,
                  const struct st_machine_ram *ram, struct st_err *err)
{
    st_autofree uint8_t *chunk = malloc(CHUNK);
    uint32_t sum = 0;
    int rc = chunk ? read_ram(s, fd, ram, chunk, &sum) : -ENOMEM;

    if (rc < 0)
        return st_err_set(err, -rc, "the saved machine's memory: %s",
                          rc == -ENODATA ? "it was cut short"
                                         : st_strerror(rc));
    return sum == s->ram_sum
               ? 0
               : st_err_set(err, EINVAL,
                            "the saved machine's memory is damaged: its "
                            "checksum is wrong");
}

/* ---- Written ---- */

/* What is renamed is on the disk when its folder is. */
static int
sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    st_autofree char *dir =
        slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    st_autoclose int fd =
        dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (!dir)
        return -ENOMEM;
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int
write_file(struct st_saved *s, const struct st_machine_ram *ram, int fd,
           const _Atomic bool *cancel)
{
    size_t len = st_saved_size(s);
    st_autofree uint8_t *p = NULL;
    int rc;

    s->ram_size = ram->size;
    s->ram_at = st_align_up(len, ST_SAVED_RAM_AT);
    s->ram_sum = 0;
    rc = write_ram(s, fd, ram, cancel);
    if (rc < 0)
        return rc;
    p = st_saved_bytes(s);
    rc = p ? write_all(fd, p, len, 0) : -ENOMEM;
    return rc == 0 && fsync(fd) < 0 ? -errno : rc;
}

int
st_saved_write(struct st_saved *s, const struct st_machine_ram *ram,
               const char *path, const _Atomic bool *cancel, struct st_err *err)
{
    st_autoclose int fd = -1;
    char new[4096];
    int rc;

    if (snprintf(new, sizeof(new), "%s.new", path) >= (int)sizeof(new))
        return st_err_set(err, ENAMETOOLONG, "'%s': %s", path,
                          st_strerror(-ENAMETOOLONG));
    fd = open(new, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return st_err_set(err, errno, "'%s': %s", new,
                          st_strerror_open(new, true, -errno));
    rc = write_file(s, ram, fd, cancel);
    if (rc == 0 && rename(new, path) < 0)
        rc = -errno;
    if (rc < 0) {
        unlink(new);
        return st_err_set(err, -rc, "'%s': %s", path,
                          rc == -ECANCELED ? "the machine is being stopped"
                                           : st_strerror(rc));
    }
    rc = sync_folder(path);
    return rc < 0 ? st_err_set(err, -rc,
                               "'%s' is there, but its folder cannot be "
                               "synced: %s",
                               path, st_strerror(rc))
                  : 0;
}

/* ---- Read ---- */

int
st_saved_read(struct st_saved *s, int fd, struct st_err *err)
{
    uint8_t first[ST_SAVED_HEADER];
    st_autofree uint8_t *p = NULL;
    struct stat sb;
    size_t len;
    int rc = read_all(fd, first, sizeof(first), 0);

    if (rc == -ENODATA)
        return st_err_set(err, EINVAL, ST_SAVED_NONE);
    if (rc == 0 && fstat(fd, &sb) < 0)
        rc = -errno;
    if (rc < 0)
        return st_err_set(err, -rc, "%s", st_strerror(rc));
    len = st_saved_head(first, sizeof(first));
    if (!len)
        return st_err_set(err, EINVAL, ST_SAVED_NONE);
    p = malloc(len);
    if (!p)
        return st_err_set(err, ENOMEM, "no memory");
    rc = read_all(fd, p, len, 0);
    if (rc < 0)
        return st_err_set(err, rc == -ENODATA ? EINVAL : -rc, "%s",
                          rc == -ENODATA ? "the saved machine was cut short"
                                         : st_strerror(rc));
    return st_saved_parse(s, p, len, (uint64_t)sb.st_size, err);
}
