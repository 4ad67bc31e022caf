/* SPDX-License-Identifier: MIT
 *
 * Option strings, the one grammar of --disk, --nvme-pci, --unix, ... (spec:
 * config.md 2):
 *
 *   file:base.img,ro,on=ctrl0
 *   '----+------' |  '---+--'
 *    positional  flag   value
 *
 * Commas inside [...] do not split; `\` escapes , ; : [ ] \ in values.
 */
#ifndef ST_OPTIONS_H
#define ST_OPTIONS_H

#include <stdbool.h>

#include "err.h"

enum st_option_kind {
    ST_OPTION_FLAG,  /* k, k=on, k=off */
    ST_OPTION_VALUE, /* k=value */
    ST_OPTION_MAYBE, /* k or k=value */
    ST_OPTION_FIRST, /* the first part, whatever it is; required */
    ST_OPTION_DISK,  /* the same, its escapes left to st_stack_open */
};

/* One row of a table that ends with a NULL name; at most ST_OPTIONS_MAX rows,
 * FIRST or DISK only in the first one. */
struct st_option {
    const char *name; /* "ro"; of a FIRST: what it is, "disk" */
    enum st_option_kind kind;
    bool required;
    unsigned one_of; /* exactly one of all rows with this number, 0: none */
};

enum { ST_OPTIONS_MAX = 24 };

/* An option string, as it was parsed. */
struct st_options {
    char *memory;                      /* owned */
    const char *value[ST_OPTIONS_MAX]; /* by row; NULL: not given, a flag that
                                        * is on, a MAYBE without value: "" */
};

/* Parse TEXT, the argument of WHAT ("--disk"). 0, or -EINVAL with a sentence
 * that quotes the part and says what was expected, or -ENOMEM. OUT is to be
 * freed on success only. */
int st_options_parse(const char *what, const char *text,
                     const struct st_option *table, struct st_options *out,
                     struct st_err *err);

/* Accepts a zeroed struct. */
void st_options_free(struct st_options *o);

#endif
