/* SPDX-License-Identifier: MIT
 *
 * Writing AML; see aml.h. A package length always has three bytes, so that it
 * can be filled in when its content has been written.
 */
#include "aml.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { /* ACPI 6.5, 20.2 */
       OP_ZERO = 0x00,
       OP_NAME = 0x08,
       OP_BYTE = 0x0a,
       OP_WORD = 0x0b,
       OP_DWORD = 0x0c,
       OP_STRING = 0x0d,
       OP_QWORD = 0x0e,
       OP_SCOPE = 0x10,
       OP_BUFFER = 0x11,
       OP_PACKAGE = 0x12,
       OP_EXTENDED = 0x5b,
       OP_DEVICE = 0x82
};

enum { LENGTH = 3, BUFFER_SIZE = 3 /* a word, for the size of a buffer */ };

void
st_aml_bytes(struct st_aml *a, const void *data, size_t len)
{
    if (a->failed)
        return;
    if (len > a->max - a->len) {
        size_t max = 2 * a->max + len + 1024;
        uint8_t *more = realloc(a->data, max);

        if (!more) {
            a->failed = true;
            return;
        }
        a->data = more;
        a->max = max;
    }
    if (data)
        memcpy(a->data + a->len, data, len);
    else
        memset(a->data + a->len, 0, len);
    a->len += len;
}

/* The lower LEN bytes of VALUE. */
static void
put(struct st_aml *a, uint64_t value, unsigned len)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < len; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    st_aml_bytes(a, bytes, len);
}

void
st_aml_integer(struct st_aml *a, uint64_t value)
{
    if (value < 2) {
        put(a, OP_ZERO + value, 1); /* One is 1 */
    } else if (value <= UINT8_MAX) {
        put(a, OP_BYTE, 1);
        put(a, value, 1);
    } else if (value <= UINT16_MAX) {
        put(a, OP_WORD, 1);
        put(a, value, 2);
    } else if (value <= UINT32_MAX) {
        put(a, OP_DWORD, 1);
        put(a, value, 4);
    } else {
        put(a, OP_QWORD, 1);
        put(a, value, 8);
    }
}

void
st_aml_string(struct st_aml *a, const char *text)
{
    put(a, OP_STRING, 1);
    st_aml_bytes(a, text, strlen(text) + 1);
}

static void
put_name(struct st_aml *a, const char *name)
{
    assert(strlen(name) == (*name == '\\' ? 5 : 4));
    st_aml_bytes(a, name, strlen(name));
}

void
st_aml_name(struct st_aml *a, const char *name)
{
    put(a, OP_NAME, 1);
    put_name(a, name);
}

/* ---- What has a length ---- */

static size_t
begin(struct st_aml *a)
{
    size_t at = a->len;

    st_aml_bytes(a, NULL, LENGTH);
    return at;
}

size_t
st_aml_scope(struct st_aml *a, const char *name)
{
    size_t at;

    put(a, OP_SCOPE, 1);
    at = begin(a);
    put_name(a, name);
    return at;
}

size_t
st_aml_device(struct st_aml *a, const char *name)
{
    size_t at;

    put(a, OP_EXTENDED, 1);
    put(a, OP_DEVICE, 1);
    at = begin(a);
    put_name(a, name);
    return at;
}

size_t
st_aml_package(struct st_aml *a, uint8_t n)
{
    size_t at;

    put(a, OP_PACKAGE, 1);
    at = begin(a);
    put(a, n, 1);
    return at;
}

void
st_aml_end(struct st_aml *a, size_t begun)
{
    size_t len = a->len - begun;

    if (a->failed)
        return;
    assert(len < 1 << 20);
    a->data[begun] = (uint8_t)(0x80 | (len & 0x0f)); /* two more follow */
    a->data[begun + 1] = (uint8_t)(len >> 4);
    a->data[begun + 2] = (uint8_t)(len >> 12);
}

void
st_aml_eisa_id(struct st_aml *a, const char *id)
{
    unsigned long product = strtoul(id + 3, NULL, 16);
    unsigned vendor =
        (unsigned)((id[0] - '@') << 10 | (id[1] - '@') << 5 | (id[2] - '@'));

    /* Big-endian, both halves. */
    put(a, OP_DWORD, 1);
    put(a, vendor >> 8, 1);
    put(a, vendor, 1);
    put(a, product >> 8, 1);
    put(a, product, 1);
}

/* ---- Resources ---- */

enum { /* general flags of ranges: both ends are fixed, for others to use */
       RANGE_FIXED = 0x0c,
       RANGE_MEMORY = 0,
       RANGE_IO = 1,
       RANGE_BUS = 2
};

size_t
st_aml_resources(struct st_aml *a)
{
    size_t at;

    put(a, OP_BUFFER, 1);
    at = begin(a);
    put(a, OP_WORD, 1);
    put(a, 0, 2);
    return at;
}

void
st_aml_resources_end(struct st_aml *a, size_t begun)
{
    size_t len;

    put(a, 0x79, 2); /* end; a checksum of 0 is not looked at */
    if (a->failed)
        return;
    len = a->len - begun - LENGTH - BUFFER_SIZE;
    a->data[begun + LENGTH + 1] = (uint8_t)len;
    a->data[begun + LENGTH + 2] = (uint8_t)(len >> 8);
    st_aml_end(a, begun);
}

void
st_aml_io(struct st_aml *a, uint16_t port, uint8_t len)
{
    put(a, 0x47, 1);
    put(a, 1, 1); /* decodes 16 bits */
    put(a, port, 2);
    put(a, port, 2);
    put(a, 1, 1); /* alignment */
    put(a, len, 1);
}

void
st_aml_irq(struct st_aml *a, unsigned irq)
{
    put(a, 0x22, 1); /* edge, active high */
    put(a, UINT64_C(1) << irq, 2);
}

void
st_aml_memory_fixed(struct st_aml *a, uint32_t address, uint32_t len)
{
    put(a, 0x86, 1);
    put(a, 9, 2);
    put(a, 1, 1); /* may be written */
    put(a, address, 4);
    put(a, len, 4);
}

/* An address space descriptor whose numbers have WIDTH bytes. */
static void
put_range(struct st_aml *a, uint8_t tag, unsigned width, uint8_t type,
          uint8_t flags, uint64_t min, uint64_t max)
{
    put(a, tag, 1);
    put(a, 3 + 5 * width, 2);
    put(a, type, 1);
    put(a, RANGE_FIXED, 1);
    put(a, flags, 1);
    put(a, 0, width); /* granularity */
    put(a, min, width);
    put(a, max, width);
    put(a, 0, width); /* translation */
    put(a, max - min + 1, width);
}

void
st_aml_bus_range(struct st_aml *a, uint16_t min, uint16_t max)
{
    put_range(a, 0x88, 2, RANGE_BUS, 0, min, max);
}

void
st_aml_io_range(struct st_aml *a, uint16_t min, uint16_t max)
{
    put_range(a, 0x88, 2, RANGE_IO, 3, min, max); /* ISA and not */
}

void
st_aml_memory_range(struct st_aml *a, uint64_t min, uint64_t max)
{
    bool wide = max > UINT32_MAX;

    /* Not cached, may be written. */
    put_range(a, wide ? 0x8a : 0x87, wide ? 8 : 4, RANGE_MEMORY, 1, min, max);
}
