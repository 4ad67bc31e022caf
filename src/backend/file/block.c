/* SPDX-License-Identifier: MIT
 *
 * Properties of block devices, from sysfs or by ioctl; see block.h.
 */
#include "block.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "mem.h"
#include "range.h"

/* ---- sysfs ---- */

enum { ATTR_SIZE = 256 }; /* of a value; longer ones are none of ours */

/* One reading of a directory; the first failure stays in rc. */
struct attrs {
    const char *dir, *queue, *path;
    struct st_err *err;
    int rc;
};

/* Read an attribute without its newline. False: it is not there. */
static bool
attr_text(struct attrs *a, const char *below, const char *name,
          char text[ATTR_SIZE])
{
    char file[PATH_MAX];
    st_autoclose int fd = -1;
    ssize_t n;

    snprintf(file, sizeof(file), "%s/%s%s", a->dir, below, name);
    fd = open(file, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, ATTR_SIZE - 1);
    if (n < 0)
        return false;
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    text[n] = 0;
    return true;
}

/* Read a number up to MAX; *VALUE stays where this kernel does not tell it. */
static void
attr_number(struct attrs *a, const char *below, const char *name, uint64_t max,
            uint64_t *value)
{
    char text[ATTR_SIZE];
    uint64_t v = 0;
    const char *s = text;

    if (a->rc < 0 || !attr_text(a, below, name, text))
        return;
    for (; *s >= '0' && *s <= '9' && v <= max; s++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            break;
    if (s == text || *s || v > max)
        a->rc = st_err_set(a->err, EINVAL,
                           "%s: sysfs says that the device's %s is '%s', "
                           "expected a number up to %llu",
                           a->path, name, text, (unsigned long long)max);
    else
        *value = v;
}

static void
attr_u32(struct attrs *a, const char *name, uint32_t *value)
{
    uint64_t v = *value;

    attr_number(a, a->queue, name, UINT32_MAX, &v);
    *value = (uint32_t)v;
}

static void
attr_bool(struct attrs *a, const char *below, const char *name, bool *value)
{
    uint64_t v = *value;

    attr_number(a, below, name, UINT32_MAX, &v);
    *value = v != 0;
}

/* A name of 16 bytes that whoever made the device gave it: "uuid.", "eui." or
 * "naa." and 32 digits. Shorter ones and texts are none that fits. A partition
 * has none: its disk's is not its own. */
static void
attr_id(struct attrs *a, struct block_limits *out)
{
    static const char *const kinds[] = {"uuid.", "eui.", "naa."};
    char text[ATTR_SIZE], digits[33];
    const char *s = NULL;
    unsigned n = 0;

    if (!attr_text(a, "", "wwid", text) &&
        !attr_text(a, "device/", "wwid", text))
        return;
    for (unsigned i = 0; i < 3; i++)
        if (strncmp(text, kinds[i], strlen(kinds[i])) == 0)
            s = text + strlen(kinds[i]);
    for (; s && *s; s++) {
        if (*s == '-')
            continue;
        if (n == 32 || !isxdigit((unsigned char)*s))
            return;
        digits[n++] = *s;
    }
    if (n != 32)
        return;
    for (unsigned i = 0; i < 16; i++) {
        char byte[3] = {digits[2 * i], digits[2 * i + 1], 0};

        out->id[i] = (uint8_t)strtoul(byte, NULL, 16);
        out->has_id |= out->id[i] != 0;
    }
}

static int
limits_sysfs(struct attrs *a, struct block_limits *out)
{
    uint64_t sectors = 0, discard_max = UINT64_MAX;
    char text[ATTR_SIZE];
    uint32_t mask = 0;

    attr_number(a, "", "size", INT64_MAX / 512, &sectors);
    out->size = sectors * 512;
    attr_bool(a, "", "ro", &out->read_only);
    attr_u32(a, "logical_block_size", &out->logical);
    out->physical = out->logical;
    attr_u32(a, "physical_block_size", &out->physical);
    attr_u32(a, "discard_granularity", &out->discard_granularity);
    attr_number(a, a->queue, "discard_max_bytes", UINT64_MAX, &discard_max);
    if (!discard_max)
        out->discard_granularity = 0;
    attr_number(a, a->queue, "write_zeroes_max_bytes", UINT64_MAX,
                &out->write_zeroes_max);
    attr_bool(a, a->queue, "fua", &out->fua);
    attr_bool(a, a->queue, "rotational", &out->rotational);
    attr_u32(a, "dma_alignment", &mask);
    out->memory = mask == UINT32_MAX ? mask : mask + 1;
    if (a->rc == 0 && attr_text(a, a->queue, "zoned", text) &&
        strcmp(text, "none") != 0)
        a->rc = st_err_set(a->err, ENOTSUP,
                           "%s: a zoned device (%s), which cannot be written "
                           "like a disk",
                           a->path, text);
    if (!attr_text(a, "", "partition", text))
        attr_id(a, out);
    return a->rc;
}

/* ---- ioctl ---- */

static int
limits_ioctl(int fd, const char *path, struct block_limits *out,
             struct st_err *err)
{
    int logical = 0, read_only = 0;
    unsigned physical = 0, zone = 0;
    unsigned short rotational = 0;
    int rc = block_size(fd, &out->size);

    if (rc < 0 || ioctl(fd, BLKSSZGET, &logical) < 0)
        return st_err_set(err, rc < 0 ? -rc : errno,
                          "%s: the device does not tell its size: %s", path,
                          st_strerror(rc < 0 ? rc : -errno));
    out->logical = (uint32_t)logical;
    out->physical =
        ioctl(fd, BLKPBSZGET, &physical) == 0 ? physical : out->logical;
    out->read_only = ioctl(fd, BLKROGET, &read_only) == 0 && read_only;
    out->rotational = ioctl(fd, BLKROTATIONAL, &rotational) == 0 && rotational;
    if (ioctl(fd, BLKGETZONESZ, &zone) == 0 && zone)
        return st_err_set(err, ENOTSUP,
                          "%s: a zoned device, which cannot be written like a "
                          "disk",
                          path);
    return 0;
}

int
block_size(int fd, uint64_t *size)
{
    return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
}

int
block_discard(int fd, uint64_t offset, uint64_t len)
{
    uint64_t range[2] = {offset, len};

    return ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

/* ---- Both ---- */

static int
limits_check(const char *path, struct block_limits *l, struct st_err *err)
{
    if (!st_is_pow2(l->logical) || l->logical < 512)
        return st_err_set(err, EINVAL,
                          "%s: the device has sectors of %u bytes, expected a "
                          "power of two from 512 on",
                          path, l->logical);
    if (!st_is_pow2(l->physical))
        return st_err_set(err, EINVAL,
                          "%s: the device has physical sectors of %u bytes, "
                          "expected a power of two",
                          path, l->physical);
    if (l->size > INT64_MAX)
        return st_err_set(err, EINVAL, "%s: the device is larger than 2^63",
                          path);
    if (l->discard_granularity % l->logical)
        return st_err_set(err, EINVAL,
                          "%s: the device discards %u bytes at a time, "
                          "expected a multiple of its sectors of %u",
                          path, l->discard_granularity, l->logical);
    if (l->memory > 1 && (!st_is_pow2(l->memory) || l->memory > 4096))
        return st_err_set(err, EINVAL,
                          "%s: the device wants memory aligned to %u bytes, "
                          "expected a power of two up to 4096",
                          path, l->memory);
    l->physical = (uint32_t)st_max(l->physical, l->logical);
    l->memory = (uint32_t)st_max(l->memory, st_min(l->logical, 4096));
    return 0;
}

int
block_limits(const char *dir, int fd, const char *path,
             struct block_limits *out, struct st_err *err)
{
    struct attrs a = {.dir = dir, .queue = "queue/", .path = path, .err = err};
    char text[ATTR_SIZE];
    bool told = attr_text(&a, "", "size", text);
    int rc;

    *out = (struct block_limits){0};
    if (!attr_text(&a, a.queue, "logical_block_size", text)) {
        a.queue = "../queue/";
        told = told && attr_text(&a, a.queue, "logical_block_size", text);
    }
    if (told)
        rc = limits_sysfs(&a, out);
    else
        rc = limits_ioctl(fd, path, out, err);
    return rc < 0 ? rc : limits_check(path, out, err);
}
