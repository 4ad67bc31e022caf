/* SPDX-License-Identifier: MIT
 *
 * Sizes as people write them; see size.h.
 */
#include "size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Decimal digits of [P, END) into *OUT; false on anything else or overflow. */
static bool
digits(const char *p, const char *end, uint64_t *out)
{
    uint64_t v = 0;

    if (p == end)
        return false;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9')
            return false;
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

int
st_size_parse(const char *text, uint64_t *out, struct st_err *err)
{
    static const char units[] = "KMGT";
    const char *end = text + strlen(text), *u;
    uint64_t v, mul = 1;

    if (strcmp(text, "VMGS_DEFAULT") == 0) {
        *out = 0x400000;
        return 0;
    }
    if (end > text && end[-1] == 'B')
        end--;
    if (end > text && (u = memchr(units, end[-1], 4)) != NULL) {
        mul = UINT64_C(1) << (10 * (u - units + 1));
        end--;
    }
    if (!digits(text, end, &v) || __builtin_mul_overflow(v, mul, &v))
        return st_err_set(err, EINVAL,
                          "invalid size '%s', expected <n>[K|M|G|T][B]", text);
    *out = v;
    return 0;
}

int
st_number_parse(const char *what, const char *text, uint64_t min, uint64_t max,
                uint64_t *out, struct st_err *err)
{
    uint64_t v;

    if (!digits(text, text + strlen(text), &v) || v < min || v > max)
        return st_err_set(err, EINVAL,
                          "invalid %s '%s', expected a number from %" PRIu64
                          " to %" PRIu64,
                          what, text, min, max);
    *out = v;
    return 0;
}

const char *
st_size_format(uint64_t bytes, char buf[static 16])
{
    static const char units[] = " KMGTPE";
    unsigned u = 0, whole, tenth;

    while (u < 6 && bytes >> (10 * (u + 1)))
        u++;
    whole = (unsigned)(bytes >> (10 * u)) & 1023;
    tenth = u ? (unsigned)(bytes >> (10 * (u - 1)) & 1023) * 10 / 1024 : 0;
    if (u == 0)
        snprintf(buf, 16, "%u", whole);
    else if (bytes == (uint64_t)whole << (10 * u))
        snprintf(buf, 16, "%u%c", whole, units[u]);
    else
        snprintf(buf, 16, "%u.%u%c", whole, tenth, units[u]);
    return buf;
}
