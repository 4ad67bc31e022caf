/* SPDX-License-Identifier: MIT
 *
 * Settings from a file; see settings.h. One JSON object (RFC 8259):
 *
 *   {"nvme-pci": [{"id": "nvme0", "vfio-user": "/run/nvme0.sock"}],
 *    "disk": [{"spec": "file:a.img", "on": "nvme0"},
 *             {"spec": "mem:1G", "name": "scratch",
 *              "on": [{"id": "nvme0", "nsid": 4}, {"id": "n0"}]}],
 *    "nbd": [{"id": "n0", "unix": "/run/n0.sock"}],
 *    "threads": 2, "allow-path": ["/srv"]}
 *
 * Keys are those of the command line. Flags are true or false, as is a value
 * that may be missing when it is; numbers are numbers, all else is text. Every
 * key is checked: one that is not known, given twice or of another type is an
 * error, with its place: disk[1].on[0].nsid.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "settings_private.h"
#include "size.h"

enum { PLACE_MAX = 160 };

static const char *
type_name(const json_t *v)
{
    return json_is_object(v)    ? "an object"
           : json_is_array(v)   ? "an array"
           : json_is_string(v)  ? "a string"
           : json_is_integer(v) ? "a number"
           : json_is_real(v)    ? "a number with a fraction"
           : json_is_boolean(v) ? "a boolean"
                                : "null";
}

static int
wrong_type(const char *place, const json_t *v, const char *expected,
           struct st_err *err)
{
    return st_err_set(err, EINVAL, "%s: %s, expected %s", place, type_name(v),
                      expected);
}

/* PLACE is KEY's in the one before; keys can be any text. */
static void
place_key(char place[PLACE_MAX], const char *before, const char *key)
{
    snprintf(place, PLACE_MAX, "%.100s%s%.50s", before, *before ? "." : "",
             key);
}

static void
place_index(char place[PLACE_MAX], const char *before, size_t i)
{
    snprintf(place, PLACE_MAX, "%.130s[%zu]", before, i);
}

/* V as the command line would have it: FLAG: "" or NULL (off). */
static int
to_text(struct st_settings *s, const char *place, const json_t *v, bool flag,
        const char **out, struct st_err *err)
{
    char *text = NULL;

    if (flag) {
        if (!json_is_boolean(v))
            return wrong_type(place, v, "true or false", err);
        *out = json_is_true(v) ? "" : NULL;
        return 0;
    }
    if (json_is_string(v)) {
        *out = json_string_value(v);
        return **out ? 0 : st_err_set(err, EINVAL, "%s: an empty text", place);
    }
    if (!json_is_integer(v))
        return wrong_type(place, v, "a string or a number", err);
    if (asprintf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(v)) < 0)
        text = NULL;
    *out = settings_keep(s, text);
    return *out ? 0 : st_err_set(err, ENOMEM, "no memory");
}

/* ---- Controllers and doors ---- */

/* "a, b, c": the keys of TABLE. */
static void
list_keys(const struct st_option *table, char *buf, size_t size)
{
    size_t n = 0;

    *buf = '\0';
    for (const struct st_option *o = table; o->name && n < size; o++)
        n += (size_t)snprintf(buf + n, size - n, "%s%s", o == table ? "" : ", ",
                              o->name);
}

/* The members of O, by the rows of TABLE, of which the first must be there. */
static int
read_object(struct st_settings *s, const char *place, json_t *o,
            const struct st_option *table, const char *value[ST_OPTIONS_MAX],
            struct st_err *err)
{
    const char *key;
    json_t *v;

    if (!json_is_object(o))
        return wrong_type(place, o, "an object", err);
    json_object_foreach(o, key, v)
    {
        const struct st_option *row = table;
        char at[PLACE_MAX], keys[300];
        bool flag;
        int rc;

        while (row->name && strcmp(row->name, key) != 0)
            row++;
        place_key(at, place, key);
        list_keys(table, keys, sizeof(keys));
        if (!row->name)
            return st_err_set(err, EINVAL,
                              "%s: unknown key, expected one of %s", at, keys);
        flag = row->kind == ST_OPTION_FLAG ||
               (row->kind == ST_OPTION_MAYBE && json_is_boolean(v));
        rc = to_text(s, at, v, flag, &value[row - table], err);
        if (rc < 0)
            return rc;
    }
    return value[0] ? 0
                    : st_err_set(err, EINVAL, "%s: missing key '%s'", place,
                                 table->name);
}

typedef int settings_take(struct st_settings *s, const char *where,
                          const char *const *value, struct st_err *err);

static int
read_things(struct st_settings *s, const char *path, const char *key,
            json_t *list, const struct st_option *table, settings_take *take,
            struct st_err *err)
{
    json_t *o;
    size_t i;

    if (!json_is_array(list))
        return wrong_type(key, list, "an array of objects", err);
    json_array_foreach(list, i, o)
    {
        const char *value[ST_OPTIONS_MAX] = {0}, *where;
        char place[PLACE_MAX], *text = NULL;
        int rc;

        place_index(place, key, i);
        rc = read_object(s, place, o, table, value, err);
        if (rc < 0)
            return rc;
        if (asprintf(&text, "%s: %s", path, place) < 0)
            text = NULL;
        where = settings_keep(s, text);
        if (!where)
            return st_err_set(err, ENOMEM, "no memory");
        rc = take(s, where, value, err);
        if (rc < 0) {
            st_err_prefix(err, "%s", place);
            return rc;
        }
    }
    return 0;
}

/* ---- Disks ---- */

enum { AT_ID, AT_NSID, AT_EXPORT };

static const struct st_option at_table[] = {
    [AT_ID] = {"id", ST_OPTION_VALUE, true, 0},
    [AT_NSID] = {"nsid", ST_OPTION_VALUE, false, 0},
    [AT_EXPORT] = {"export", ST_OPTION_VALUE, false, 0},
    {0},
};

enum { DISK_SPEC, DISK_NAME, DISK_RO };

static const struct st_option disk_table[] = {
    [DISK_SPEC] = {"spec", ST_OPTION_VALUE, true, 0},
    [DISK_NAME] = {"name", ST_OPTION_VALUE, false, 0},
    [DISK_RO] = {"ro", ST_OPTION_FLAG, false, 0},
    {0},
};

static int
read_at(struct st_settings *s, const char *place, json_t *o,
        struct st_attach_at *at, struct st_err *err)
{
    const char *value[ST_OPTIONS_MAX] = {0};
    char key[PLACE_MAX];
    uint64_t nsid;
    int rc;

    if (json_is_string(o)) {
        at->on = json_string_value(o);
        return *at->on ? 0
                       : st_err_set(err, EINVAL, "%s: an empty text", place);
    }
    if (!json_is_object(o))
        return wrong_type(place, o,
                          "the id of a controller or door, or an object", err);
    rc = read_object(s, place, o, at_table, value, err);
    at->on = value[AT_ID];
    at->export = value[AT_EXPORT];
    if (rc == 0 && value[AT_NSID]) {
        place_key(key, place, "nsid");
        rc = st_number_parse("nsid", value[AT_NSID], 1, UINT32_MAX - 1, &nsid,
                             err);
        if (rc < 0)
            st_err_prefix(err, "%s", key);
        at->nsid = rc == 0 ? (uint32_t)nsid : 0;
    }
    return rc;
}

static int
read_places(struct st_settings *s, const char *place, json_t *on,
            struct st_attach *a, struct st_err *err)
{
    char at[PLACE_MAX];
    json_t *o;
    size_t i;
    int rc = 0;

    if (!json_is_array(on)) {
        a->n = 1;
        return read_at(s, place, on, &a->at[0], err);
    }
    if (!json_array_size(on) || json_array_size(on) > ST_ATTACH_MAX)
        return st_err_set(err, EINVAL, "%s: %zu places, expected 1 to %d",
                          place, json_array_size(on), ST_ATTACH_MAX);
    json_array_foreach(on, i, o)
    {
        place_index(at, place, i);
        if (rc == 0)
            rc = read_at(s, at, o, &a->at[i], err);
    }
    a->n = (unsigned)json_array_size(on);
    return rc;
}

/* The object without its member "on" is read like the others; O is left as it
 * was. */
static int
read_disk(struct st_settings *s, const char *path, const char *place, json_t *o,
          struct st_err *err)
{
    const char *value[ST_OPTIONS_MAX] = {0};
    struct st_attach *a = settings_new_disk(s);
    json_t *on = json_object_get(o, "on"), *rest;
    char key[PLACE_MAX], *text = NULL;
    int rc;

    if (!json_is_object(o))
        return wrong_type(place, o, "an object", err);
    rest = json_copy(o);
    if (asprintf(&text, "%s: %s", path, place) < 0)
        text = NULL;
    if (!a || !rest || !(a->where = settings_keep(s, text))) {
        json_decref(rest);
        return st_err_set(err, ENOMEM, "no memory");
    }
    json_object_del(rest, "on");
    rc = read_object(s, place, rest, disk_table, value, err);
    json_decref(rest); /* O has the same strings */
    if (rc < 0)
        return rc;
    if (!on)
        return st_err_set(err, EINVAL, "%s: missing key 'on'", place);
    a->spec = value[DISK_SPEC];
    a->name = value[DISK_NAME] ? value[DISK_NAME] : "";
    a->read_only = value[DISK_RO];
    place_key(key, place, "on");
    return read_places(s, key, on, a, err);
}

static int
read_disks(struct st_settings *s, const char *path, json_t *list,
           struct st_err *err)
{
    char place[PLACE_MAX];
    json_t *o;
    size_t i;
    int rc = 0;

    if (!json_is_array(list))
        return wrong_type("disk", list, "an array of objects", err);
    json_array_foreach(list, i, o)
    {
        place_index(place, "disk", i);
        if (rc == 0)
            rc = read_disk(s, path, place, o, err);
    }
    return rc;
}

/* ---- Options ---- */

static int
read_allow(struct st_settings *s, json_t *list, struct st_err *err)
{
    char place[PLACE_MAX];
    json_t *o;
    size_t i;
    int rc = 0;

    if (!json_is_array(list))
        return wrong_type("allow-path", list, "an array of paths", err);
    json_array_foreach(list, i, o)
    {
        place_index(place, "allow-path", i);
        if (rc == 0 && !json_is_string(o))
            rc = wrong_type(place, o, "a path", err);
        if (rc == 0)
            rc = st_settings_allow(s, json_string_value(o), err);
    }
    return rc;
}

static int
read_option(struct st_settings *s, const char *key, json_t *v,
            const struct st_cmd_option *table, struct st_cmd_args *a,
            struct st_err *err)
{
    const struct st_cmd_option *o = table;
    const char *text;
    bool flag;
    int rc;

    while (o->name && (strcmp(o->name, key) != 0 || o->kind == ST_CMD_MANY ||
                       strcmp(o->name, "config") == 0))
        o++;
    if (!o->name)
        return st_err_set(err, EINVAL,
                          "%.80s: unknown key, expected nvme-pci, nbd, disk or "
                          "the name of an option",
                          key);
    if (o->kind == ST_CMD_NUMBER && !json_is_integer(v))
        return wrong_type(key, v, "a number", err);
    flag = o->kind == ST_CMD_FLAG ||
           (o->kind == ST_CMD_MAYBE && json_is_boolean(v));
    rc = to_text(s, key, v, flag, &text, err);
    if (rc < 0 || !text)
        return rc;
    if (a->text[o - table])
        return st_err_set(err, EINVAL, "%s: option '--%s' says it, too", key,
                          key);
    rc = st_cmd_take(o, a, (unsigned)(o - table), flag ? NULL : text, err);
    if (rc < 0)
        st_err_prefix(err, "%s", key);
    return rc;
}

static int
read_member(struct st_settings *s, const char *path, const char *key, json_t *v,
            const struct st_cmd_option *table, struct st_cmd_args *a,
            struct st_err *err)
{
    if (strcmp(key, "nvme-pci") == 0)
        return read_things(s, path, key, v, settings_nvme_table,
                           settings_take_nvme, err);
    if (strcmp(key, "nbd") == 0)
        return read_things(s, path, key, v, settings_nbd_table,
                           settings_take_nbd, err);
    if (strcmp(key, "disk") == 0)
        return read_disks(s, path, v, err);
    if (strcmp(key, "allow-path") == 0)
        return read_allow(s, v, err);
    return read_option(s, key, v, table, a, err);
}

/* ---- The file ---- */

static int
read_file(struct st_settings *s, const char *path, json_t *o,
          const json_error_t *error, const struct st_cmd_option *table,
          struct st_cmd_args *a, struct st_err *err)
{
    const char *key;
    json_t *v;
    int rc = 0;

    if (!o)
        return st_err_set(err, EINVAL, "%s: line %d, column %d: %s", path,
                          error->line, error->column, error->text);
    s->file = o;
    if (!json_is_object(o))
        rc = wrong_type("all of it", o, "an object", err);
    json_object_foreach(o, key, v)
    {
        if (rc == 0)
            rc = read_member(s, path, key, v, table, a, err);
    }
    if (rc < 0)
        st_err_prefix(err, "%s", path);
    return rc;
}

int
st_settings_text(struct st_settings *s, const char *text, size_t len,
                 const char *path, const struct st_cmd_option *table,
                 struct st_cmd_args *a, struct st_err *err)
{
    json_error_t error;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);

    return read_file(s, path, o, &error, table, a, err);
}

int
st_settings_file(struct st_settings *s, const char *path,
                 const struct st_cmd_option *table, struct st_cmd_args *a,
                 struct st_err *err)
{
    FILE *f = fopen(path, "re");
    json_error_t error;
    json_t *o;

    if (!f)
        return st_err_set(err, errno, "--config '%s': %s", path,
                          st_strerror(-errno));
    o = json_loadf(f, JSON_REJECT_DUPLICATES, &error);
    fclose(f);
    return read_file(s, path, o, &error, table, a, err);
}
