/* SPDX-License-Identifier: MIT
 *
 * The file of a saved machine, but for RAM: its bytes; see saved.h.
 */
#include "saved.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "range.h"
#include "wire.h"

static const char magic[8] = {'S', 't', 'r', 'a', 't', 'a', 'V', 'M'};

enum {
    VERSION = 1,
    SECTION = 48, /* bytes before those of a section */
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

/* ---- Written ---- */

/* The checksum of all sections, in the LEN bytes before RAM. */
static uint32_t
sections_sum(const uint8_t *p, size_t len)
{
    return st_crc32c(0, p + ST_SAVED_HEADER, len - ST_SAVED_HEADER);
}

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

size_t
st_saved_size(const struct st_saved *s)
{
    size_t at = ST_SAVED_HEADER;

    for (unsigned i = 0; i < s->n; i++)
        at += SECTION + st_align_up(s->section[i].len, 8);
    return at;
}

uint8_t *
st_saved_bytes(const struct st_saved *s)
{
    size_t at = ST_SAVED_HEADER, len = st_saved_size(s);
    uint8_t *p = calloc(1, len);

    for (unsigned i = 0; p && i < s->n; i++) {
        const struct st_saved_section *from = &s->section[i];
        struct section_head h = {.version = le32_of(from->version),
                                 .len = le64_of(from->len)};

        memcpy(h.name, from->name, sizeof(h.name));
        memcpy(p + at, &h, sizeof(h));
        memcpy(p + at + SECTION, from->data, from->len);
        at += SECTION + st_align_up(from->len, 8);
    }
    if (p)
        seal(s, p, len);
    return p;
}

/* ---- Read ---- */

static int
no_machine(struct st_err *err)
{
    return st_err_set(err, EINVAL, ST_SAVED_NONE);
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
    if (s->ram_size > ST_MACHINE_RAM_MAX || s->ram_size % ST_MACHINE_RAM_PAGE ||
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
