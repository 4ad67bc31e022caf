/* SPDX-License-Identifier: MIT
 *
 * The file of a saved machine; see saved.h.
 */
#include "saved.h"

#include <assert.h>
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

static const char magic[8] = {'S', 't', 'r', 'a', 't', 'a', 'V', 'M'};

enum {
    VERSION = 1,
    SECTION = 48, /* bytes before those of a section */
    PAGE = ST_MACHINE_RAM_PAGE,
    CHUNK = 1 << 20, /* of RAM, at a time */
};

/* The first bytes of a file. */
struct head {
    char magic[8];
    le32 version, sections;
    le64 bytes, ram_size, ram_at;
    le32 ram_sum, bytes_sum, zero, sum;
};
static_assert(sizeof(struct head) == ST_SAVED_HEADER, "head");

/* The first bytes of a section. */
struct section_head {
    char name[ST_SAVED_NAME];
    le32 version, zero;
    le64 len;
};
static_assert(sizeof(struct section_head) == SECTION, "section");

/* ---- Sections ---- */

void
st_saved_free(struct st_saved *s)
{
    for (unsigned i = 0; i < s->n; i++)
        free(s->section[i].data);
    *s = (struct st_saved){0};
}

int
st_saved_add(struct st_saved *s, const char *name, uint32_t version, void *data,
             size_t len)
{
    struct st_saved_section *to = &s->section[s->n];

    if (!data)
        return -ENOMEM;
    if (s->n == ST_SAVED_SECTIONS) {
        free(data);
        return -ENOSPC;
    }
    s->n++;
    *to =
        (struct st_saved_section){.version = version, .data = data, .len = len};
    snprintf(to->name, sizeof(to->name), "%s", name);
    return 0;
}

int
st_saved_take(struct st_saved *s, const struct st_saved_device *d)
{
    size_t len;
    void *data = st_pack_new(d->walk, d->device, 0, &len);

    return st_saved_add(s, d->name, d->version, data, len);
}

const struct st_saved_section *
st_saved_find(const struct st_saved *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++)
        if (strcmp(s->section[i].name, name) == 0)
            return &s->section[i];
    return NULL;
}

int
st_saved_put(const struct st_saved *s, const struct st_saved_device *d,
             struct st_err *err)
{
    const struct st_saved_section *from = st_saved_find(s, d->name);
    struct st_pack k;

    if (!from)
        return st_err_set(err, EINVAL, "the saved machine has no '%s'",
                          d->name);
    if (!from->version || from->version > d->version)
        return st_err_set(err, EINVAL,
                          "'%s' of the saved machine is of version %u, this "
                          "strata knows up to %u",
                          d->name, from->version, d->version);
    k = st_pack_reader(from->data, from->len);
    k.version = from->version;
    d->walk(&k, d->device);
    return st_pack_done(&k)
               ? 0
               : st_err_set(err, EINVAL,
                            "the values of '%s' of the saved machine make no "
                            "sense",
                            d->name);
}

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

/* All but RAM, *LEN bytes: NULL: no memory. */
static uint8_t *
head_of(const struct st_saved *s, size_t *len)
{
    size_t at = ST_SAVED_HEADER;
    uint8_t *p;

    for (unsigned i = 0; i < s->n; i++)
        at += SECTION + st_align_up(s->section[i].len, 8);
    p = calloc(1, at);
    *len = at;
    at = ST_SAVED_HEADER;
    for (unsigned i = 0; p && i < s->n; i++) {
        const struct st_saved_section *from = &s->section[i];
        struct section_head h = {.version = le32_of(from->version),
                                 .len = le64_of(from->len)};

        memcpy(h.name, from->name, sizeof(h.name));
        memcpy(p + at, &h, sizeof(h));
        memcpy(p + at + SECTION, from->data, from->len);
        at += SECTION + st_align_up(from->len, 8);
    }
    return p;
}

/* The checksum of all sections, in the LEN bytes before RAM. */
static uint32_t
sections_sum(const uint8_t *p, size_t len)
{
    return st_crc32c(0, p + ST_SAVED_HEADER, len - ST_SAVED_HEADER);
}

/* Now that all is known. */
static void
seal(const struct st_saved *s, uint8_t *p, size_t len)
{
    struct head h = {.version = le32_of(VERSION),
                     .sections = le32_of(s->n),
                     .bytes = le64_of(len - ST_SAVED_HEADER),
                     .ram_size = le64_of(s->ram_size),
                     .ram_at = le64_of(s->ram_at),
                     .ram_sum = le32_of(s->ram_sum),
                     .bytes_sum = le32_of(sections_sum(p, len))};

    memcpy(h.magic, magic, sizeof(magic));
    h.sum = le32_of(st_crc32c(0, &h, ST_SAVED_HEADER - sizeof(h.sum)));
    memcpy(p, &h, sizeof(h));
}

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
    size_t len;
    st_autofree uint8_t *p = head_of(s, &len);
    int rc;

    if (!p)
        return -ENOMEM;
    s->ram_size = ram->size;
    s->ram_at = st_align_up(len, ST_SAVED_RAM_AT);
    s->ram_sum = 0;
    rc = write_ram(s, fd, ram, cancel);
    if (rc < 0)
        return rc;
    seal(s, p, len);
    rc = write_all(fd, p, len, 0);
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

static int
no_machine(struct st_err *err)
{
    return st_err_set(err, EINVAL, "this is no saved machine");
}

static int
damaged(struct st_err *err)
{
    return st_err_set(err, EINVAL, "the saved machine is damaged");
}

size_t
st_saved_head(const void *p, size_t len)
{
    struct head h;

    if (len < sizeof(h))
        return 0;
    memcpy(&h, p, sizeof(h));
    if (memcmp(h.magic, magic, sizeof(magic)) != 0 ||
        le64_get(h.bytes) > ST_SAVED_MAX)
        return 0;
    return ST_SAVED_HEADER + (size_t)le64_get(h.bytes);
}

static int
parse_head(struct st_saved *s, const void *p, size_t len, uint64_t file_size,
           unsigned *sections, struct st_err *err)
{
    struct head h;

    if (!st_saved_head(p, len))
        return no_machine(err);
    memcpy(&h, p, sizeof(h));
    if (le32_get(h.version) != VERSION)
        return st_err_set(err, EINVAL,
                          "the saved machine is of version %u, not %d",
                          le32_get(h.version), VERSION);
    if (le32_get(h.sum) != st_crc32c(0, &h, ST_SAVED_HEADER - sizeof(h.sum)) ||
        st_saved_head(p, len) != len ||
        le32_get(h.bytes_sum) != sections_sum(p, len))
        return damaged(err);
    *sections = le32_get(h.sections);
    s->ram_size = le64_get(h.ram_size);
    s->ram_at = le64_get(h.ram_at);
    s->ram_sum = le32_get(h.ram_sum);
    if (s->ram_size > ST_MACHINE_RAM_MAX || s->ram_size % PAGE ||
        s->ram_at < len || s->ram_at % ST_SAVED_RAM_AT ||
        s->ram_at > st_align_up(len, ST_SAVED_RAM_AT))
        return damaged(err);
    if (file_size != s->ram_at + s->ram_size)
        return st_err_set(err, EINVAL,
                          "the saved machine has %ju bytes, not %ju: it was "
                          "cut short",
                          (uintmax_t)file_size,
                          (uintmax_t)(s->ram_at + s->ram_size));
    return 0;
}

int
st_saved_parse(struct st_saved *s, const void *p, size_t len,
               uint64_t file_size, struct st_err *err)
{
    unsigned sections = 0;
    size_t at = ST_SAVED_HEADER;
    int rc = parse_head(s, p, len, file_size, &sections, err);

    for (unsigned i = 0; rc == 0 && i < sections; i++) {
        const uint8_t *from = (const uint8_t *)p + at;
        struct section_head h;
        uint64_t n;
        void *data;

        if (len - at < sizeof(h))
            return damaged(err);
        memcpy(&h, from, sizeof(h));
        n = le64_get(h.len);
        if (n > ST_SAVED_MAX || len - at - SECTION < st_align_up(n, 8) ||
            h.name[ST_SAVED_NAME - 1])
            return damaged(err);
        data = malloc(n ? (size_t)n : 1);
        if (data)
            memcpy(data, from + SECTION, (size_t)n);
        rc = st_saved_add(s, h.name, le32_get(h.version), data, (size_t)n);
        if (rc < 0)
            st_err_set(err, -rc, "the saved machine: %s",
                       rc == -ENOSPC ? "too many sections" : st_strerror(rc));
        at += SECTION + (size_t)st_align_up(n, 8);
    }
    return rc == 0 && at != len ? damaged(err) : rc;
}

int
st_saved_read(struct st_saved *s, int fd, struct st_err *err)
{
    uint8_t first[ST_SAVED_HEADER];
    st_autofree uint8_t *p = NULL;
    struct stat sb;
    size_t len;
    int rc = read_all(fd, first, sizeof(first), 0);

    if (rc == -ENODATA)
        return no_machine(err);
    if (rc == 0 && fstat(fd, &sb) < 0)
        rc = -errno;
    if (rc < 0)
        return st_err_set(err, -rc, "%s", st_strerror(rc));
    len = st_saved_head(first, sizeof(first));
    if (!len)
        return no_machine(err);
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
