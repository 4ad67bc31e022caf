/* SPDX-License-Identifier: MIT
 *
 * The JSON text of VERSION: {"capabilities": {...}}.
 *
 * Traps of the peers: QEMU reads the reply into the buffer of its question, so
 * ours is never longer; it warns of keys that it does not know, so ours has
 * only those that the client sent; Cloud Hypervisor wants the key
 * "capabilities" and the final NUL.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "vfio_private.h"

/* The number KEY of O, if it is there, lies in [MIN, MAX]; *HAS: it is. */
static bool
number_ok(const json_t *o, const char *key, json_int_t min, json_int_t max,
          bool *has)
{
    const json_t *n = json_object_get(o, key);

    *has = n != NULL;
    return !n || (json_is_integer(n) && json_integer_value(n) >= min &&
                  json_integer_value(n) <= max);
}

static bool
capabilities_ok(const json_t *caps, struct vfio_offer *out)
{
    const json_t *multi = json_object_get(caps, "write_multiple");
    const json_t *migration = json_object_get(caps, "migration");
    const json_t *pages = json_object_get(caps, "pgsizes");
    const json_t *twin = json_object_get(caps, "twin_socket");
    bool unused;

    out->multi = multi != NULL;
    out->write_multiple = json_is_true(multi);
    if ((multi && !json_is_boolean(multi)) || (twin && !json_is_object(twin)) ||
        (migration &&
         (!json_is_object(migration) ||
          !number_ok(migration, "pgsize", 1, INT64_MAX, &unused) ||
          !number_ok(migration, "max_bitmap_size", 0, INT64_MAX, &unused))))
        return false;
    /* Sizes of pages, or-ed; none is below 4096. */
    if (pages && (!number_ok(caps, "pgsizes", VFIO_PAGE, INT64_MAX, &unused) ||
                  json_integer_value(pages) % VFIO_PAGE))
        return false;
    return number_ok(caps, "max_msg_fds", 0, INT32_MAX, &out->fds) &&
           number_ok(caps, "max_data_xfer_size", 1, UINT32_MAX, &out->xfer) &&
           number_ok(caps, "max_dma_maps", 0, UINT32_MAX, &unused);
}

bool
st_vfio_offer(const char *text, size_t len, struct vfio_offer *out)
{
    json_t *root;
    const json_t *caps;
    bool ok;

    memset(out, 0, sizeof(*out));
    if (!len)
        return true; /* none: all defaults */
    if (memchr(text, 0, len) != text + len - 1)
        return false;
    if (len == 1)
        return true;
    root = json_loadb(text, len - 1, JSON_REJECT_DUPLICATES, NULL);
    caps = json_object_get(root, "capabilities");
    ok = json_is_object(root) &&
         (!caps || (json_is_object(caps) && capabilities_ok(caps, out)));
    json_decref(root);
    return ok;
}

size_t
st_vfio_accept(const struct vfio_offer *offer, char *to, size_t max,
               bool *multi)
{
    bool offered = *multi && offer->multi && offer->write_multiple;
    char text[4][128];

    for (unsigned i = 0; i < 2; i++) {
        bool say = offered && i == 0;
        int n = snprintf(text[i], sizeof(text[i]), "{\"capabilities\":{");

        if (offer->fds)
            n += snprintf(text[i] + n, sizeof(text[i]) - (size_t)n,
                          "\"max_msg_fds\":%d,", VFIO_FDS);
        if (offer->xfer)
            n += snprintf(text[i] + n, sizeof(text[i]) - (size_t)n,
                          "\"max_data_xfer_size\":%d,", VFIO_XFER_MAX);
        if (say)
            n += snprintf(text[i] + n, sizeof(text[i]) - (size_t)n,
                          "\"write_multiple\":true,");
        n -= text[i][n - 1] == ',';
        snprintf(text[i] + n, sizeof(text[i]) - (size_t)n, "}}");
    }
    strcpy(text[2], "{\"capabilities\":{}}");
    strcpy(text[3], "{}");
    for (unsigned i = 0; i < 4; i++) {
        size_t len = strlen(text[i]) + 1;

        if (len > max)
            continue;
        memcpy(to, text[i], len);
        *multi = offered && i == 0;
        return len;
    }
    *multi = false;
    return 0;
}
