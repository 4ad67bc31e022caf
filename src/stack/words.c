/* SPDX-License-Identifier: MIT
 *
 * Cutting text into words; see words.h.
 */
#include "words.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static bool
escaped(const char *p)
{
    return *p == '\\' && p[1] && strchr(",;:[]\\", p[1]);
}

char *
st_word_find(char *p, char sep)
{
    for (; *p; p++)
        if (escaped(p))
            p++;
        else if (*p == sep)
            return p;
    return NULL;
}

char *
st_word_close(char *p)
{
    unsigned depth = 0;

    for (; *p; p++)
        if (escaped(p))
            p++;
        else if (*p == '[')
            depth++;
        else if (*p == ']' && --depth == 0)
            return p;
    return NULL;
}

char *
st_word_find_outside(char *p, char sep)
{
    for (; *p; p++) {
        char *end;

        if (escaped(p))
            p++;
        else if (*p == sep)
            return p;
        else if (*p == '[' && (end = st_word_close(p)))
            p = end;
    }
    return NULL;
}

void
st_word_unescape(char *p)
{
    char *to = p;

    while (*p) {
        if (escaped(p))
            p++;
        *to++ = *p++;
    }
    *to = '\0';
}
