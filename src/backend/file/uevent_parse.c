/* SPDX-License-Identifier: MIT
 *
 * What a message of the kernel says; see uevent.h.
 *
 *   change@/devices/virtual/block/loop0 NUL
 *   ACTION=change NUL  SUBSYSTEM=block NUL  MAJOR=7 NUL  MINOR=0 NUL ...
 */
#include <string.h>

#include "uevent.h"

/* A decimal number below 2^32, and nothing else. */
static bool
parse_number(const char *text, uint32_t *out)
{
    uint64_t v = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (uint64_t)(*text - '0');
        if (v > UINT32_MAX)
            return false;
    }
    *out = (uint32_t)v;
    return true;
}

bool
uevent_parse(const char *msg, size_t len, struct uevent *out)
{
    const char *end = msg + len, *action = "", *subsystem = "";
    bool has_major = false, has_minor = false, resize = false, media = false;
    const char *s = msg;

    *out = (struct uevent){0};
    if (!len || end[-1] || !strchr(msg, '@') || *msg == '@')
        return false;
    for (s += strlen(s) + 1; s < end; s += strlen(s) + 1) {
        const char *value = strchr(s, '=');
        size_t n;

        if (!value || value == s)
            return false;
        n = (size_t)(value++ - s);
        if (n == 6 && memcmp(s, "ACTION", n) == 0)
            action = value;
        else if (n == 9 && memcmp(s, "SUBSYSTEM", n) == 0)
            subsystem = value;
        else if (n == 5 && memcmp(s, "MAJOR", n) == 0)
            has_major = parse_number(value, &out->major);
        else if (n == 5 && memcmp(s, "MINOR", n) == 0)
            has_minor = parse_number(value, &out->minor);
        else if (n == 6 && memcmp(s, "RESIZE", n) == 0)
            resize = strcmp(value, "1") == 0;
        else if (n == 17 && memcmp(s, "DISK_MEDIA_CHANGE", n) == 0)
            media = strcmp(value, "1") == 0;
    }
    if (!has_major || !has_minor || strcmp(subsystem, "block") != 0)
        return true;
    if (strcmp(action, "remove") == 0)
        out->what = UEVENT_REMOVED;
    else if (strcmp(action, "change") == 0)
        out->what = (resize ? UEVENT_RESIZE : 0u) | (media ? UEVENT_MEDIA : 0u);
    return true;
}
