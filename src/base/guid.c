/* SPDX-License-Identifier: MIT
 *
 * GUIDs; see guid.h.
 */
#include "guid.h"

#include <stdio.h>

/* Text position of each byte, in storage order: the first three fields are
 * little-endian, so their bytes stand in the text in reverse. */
static const uint8_t text_pos[16] = {6,  4,  2,  0,  11, 9,  16, 14,
                                     19, 21, 24, 26, 28, 30, 32, 34};

static int
hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
st_guid_parse(const char *text, struct st_guid *out)
{
    struct st_guid g;
    size_t len = strlen(text);

    if (len == 38 && text[0] == '{' && text[37] == '}') {
        text++;
        len = 36;
    }
    if (len != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' ||
        text[23] != '-')
        return false;
    for (unsigned i = 0; i < 16; i++) {
        int hi = hex(text[text_pos[i]]), lo = hex(text[text_pos[i] + 1]);

        if (hi < 0 || lo < 0)
            return false;
        g.b[i] = (uint8_t)(hi << 4 | lo);
    }
    *out = g;
    return true;
}

const char *
st_guid_format(const struct st_guid *g, char buf[static 37])
{
    static const char digits[] = "0123456789abcdef";

    memset(buf, '-', 36);
    for (unsigned i = 0; i < 16; i++) {
        buf[text_pos[i]] = digits[g->b[i] >> 4];
        buf[text_pos[i] + 1] = digits[g->b[i] & 15];
    }
    buf[36] = 0;
    return buf;
}
