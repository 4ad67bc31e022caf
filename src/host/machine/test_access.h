/* SPDX-License-Identifier: MIT
 *
 * Accesses to a space, as a vCPU makes them; for tests.
 */
#ifndef TEST_ACCESS_H
#define TEST_ACCESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "space.h"

/* What LEN bytes at AT are; what is done later is an error. */
static inline uint64_t
get(struct st_space *s, uint64_t at, unsigned len)
{
    struct st_access a = {.offset = at, .len = len};

    assert_true(st_space_access(s, &a));
    return len == 8 ? a.value : a.value & ((UINT64_C(1) << 8 * len) - 1);
}

static inline void
put(struct st_space *s, uint64_t at, unsigned len, uint64_t value)
{
    struct st_access a = {
        .offset = at, .len = len, .write = true, .value = value};

    assert_true(st_space_access(s, &a));
}

#endif
