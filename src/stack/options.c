/* SPDX-License-Identifier: MIT
 *
 * Option strings; see options.h.
 */
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "words.h"

static bool
is_first(const struct st_option *row)
{
    return row->kind == ST_OPTION_FIRST || row->kind == ST_OPTION_DISK;
}

/* "a, b or c": the keys of TABLE, or those with this ONE_OF number. */
static void
list_keys(const struct st_option *table, unsigned one_of, char *buf,
          size_t size)
{
    const char *sep = "";
    size_t n = 0;

    buf[0] = '\0';
    for (; table->name && n < size; table++) {
        if (is_first(table) || (one_of && table->one_of != one_of))
            continue;
        n += (size_t)snprintf(buf + n, size - n, "%s%s%s", sep, table->name,
                              table->kind == ST_OPTION_VALUE ? "=" : "");
        sep = ", ";
    }
}

static int
parse_part(const struct st_option *table, char *part, const char **value,
           struct st_err *err)
{
    char *eq = strchr(part, '='), keys[256];
    const struct st_option *row = table;
    unsigned i;

    if (!*part)
        return st_err_set(err, EINVAL,
                          "an option is empty, expected text "
                          "before, between and after commas");
    if (eq)
        *eq++ = '\0';
    while (row->name && (is_first(row) || strcmp(row->name, part) != 0))
        row++;
    i = (unsigned)(row - table);
    list_keys(table, 0, keys, sizeof(keys));
    if (!row->name)
        return st_err_set(err, EINVAL,
                          "unknown option '%s', expected one of "
                          "%s",
                          part, keys);
    if (value[i])
        return st_err_set(err, EINVAL, "option '%s' is given twice", part);
    if (row->kind == ST_OPTION_FLAG && eq && strcmp(eq, "on") != 0 &&
        strcmp(eq, "off") != 0)
        return st_err_set(err, EINVAL,
                          "invalid '%s=%s', expected %s, %s=on or "
                          "%s=off",
                          part, eq, part, part, part);
    if (eq ? !*eq : row->kind == ST_OPTION_VALUE)
        return st_err_set(err, EINVAL,
                          "option '%s' needs a value, expected "
                          "%s=<value>",
                          part, part);
    value[i] = row->kind == ST_OPTION_FLAG || !eq ? "" : eq;
    if (eq && row->kind == ST_OPTION_FLAG && strcmp(eq, "off") == 0)
        value[i] = "off";
    else if (eq)
        st_word_unescape(eq);
    return 0;
}

/* What must be there; and flags that are off count as not given. */
static int
check_required(const struct st_option *table, const char **value,
               struct st_err *err)
{
    for (unsigned i = 0; table[i].name; i++) {
        const struct st_option *row = &table[i];
        unsigned given = 0;
        char keys[256];

        if (row->kind == ST_OPTION_FLAG && value[i] && *value[i])
            value[i] = NULL;
        if (row->required && !value[i])
            return st_err_set(err, EINVAL, "missing required %s=<value>",
                              row->name);
        for (unsigned k = 0; row->one_of && table[k].name; k++)
            given += table[k].one_of == row->one_of && value[k];
        if (!row->one_of || given == 1)
            continue;
        list_keys(table, row->one_of, keys, sizeof(keys));
        return st_err_set(err, EINVAL,
                          given ? "only one of %s is allowed"
                                : "one of %s is required",
                          keys);
    }
    return 0;
}

static int
parse(const struct st_option *table, char *p, const char **value,
      struct st_err *err)
{
    bool first = is_first(table);
    int rc = 0;

    for (char *q = p; (q = st_word_find(q, '[')) != NULL; q++) {
        q = st_word_close(q);
        if (!q)
            return st_err_set(err, EINVAL,
                              "a '[' is not closed, expected ']' "
                              "or '\\['");
    }
    if (st_word_find_outside(p, ']'))
        return st_err_set(err, EINVAL,
                          "a ']' closes nothing, expected '[' "
                          "before it or '\\]'");
    if (!*p && !first && (rc = check_required(table, value, err)) == 0)
        return st_err_set(err, EINVAL, "missing required options");
    while (rc == 0 && p) {
        char *next = st_word_find_outside(p, ',');

        if (next)
            *next++ = '\0';
        if (first && !value[0]) {
            if (!*p)
                return st_err_set(err, EINVAL, "missing required %s",
                                  table->name);
            if (table->kind == ST_OPTION_FIRST)
                st_word_unescape(p);
            value[0] = p;
        } else {
            rc = parse_part(table, p, value, err);
        }
        p = next;
    }
    return rc ? rc : check_required(table, value, err);
}

int
st_options_parse(const char *what, const char *text,
                 const struct st_option *table, struct st_options *out,
                 struct st_err *err)
{
    int rc;

    memset(out, 0, sizeof(*out));
    out->memory = strdup(text);
    if (!out->memory)
        return st_err_set(err, ENOMEM, "%s: no memory", what);
    rc = parse(table, out->memory, out->value, err);
    if (rc) {
        st_err_prefix(err, "%s '%.160s'", what, text);
        st_options_free(out);
    }
    return rc;
}

void
st_options_free(struct st_options *o)
{
    free(o->memory);
    memset(o, 0, sizeof(*o));
}
