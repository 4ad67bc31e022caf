/* SPDX-License-Identifier: MIT
 *
 * Sizes as people write them: <n>[K|M|G|T][B], binary multiples, no fractions.
 */
#ifndef ST_SIZE_H
#define ST_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Parse TEXT into *OUT bytes. Also takes the literal VMGS_DEFAULT (4 MiB).
 * -EINVAL (with a sentence that quotes TEXT) on anything else: signs, spaces,
 * lower case, fractions, hex, overflow. */
int st_size_parse(const char *text, uint64_t *out, struct st_err *err);

/* Parse a plain decimal number without sign in [MIN, MAX]; -EINVAL and a
 * sentence that names WHAT, quotes TEXT and says the range. */
int st_number_parse(const char *what, const char *text, uint64_t min,
                    uint64_t max, uint64_t *out, struct st_err *err);

/* "1G", "512", "1.5G" style text of at most 15 characters; for people. */
const char *st_size_format(uint64_t bytes, char buf[static 16]);

#endif
