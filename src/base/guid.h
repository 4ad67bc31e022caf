/* SPDX-License-Identifier: MIT
 *
 * GUIDs: 16 bytes in the mixed-endian order of RFC 4122 variant "Microsoft"
 * (first three fields little-endian), text in lower case with hyphens.
 */
#ifndef ST_GUID_H
#define ST_GUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A GUID, in the order in which it is stored. */
struct st_guid {
    uint8_t b[16];
};

/* Parse "8-4-4-4-12" hex digits, any case, optionally in braces. False if
 * TEXT is anything else; *OUT is then untouched. */
bool st_guid_parse(const char *text, struct st_guid *out);

/* 36 characters and a zero into BUF; returns BUF. */
const char *st_guid_format(const struct st_guid *g, char buf[static 37]);

static inline bool
st_guid_equal(const struct st_guid *a, const struct st_guid *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

#endif
