/* SPDX-License-Identifier: MIT
 *
 * Any text as a disk spec and as a decorator, parsed and never opened, and as
 * an option string.
 */
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "stack_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct st_option table[] = {
        {.name = "disk", .kind = ST_OPTION_DISK},
        {.name = "ro", .kind = ST_OPTION_FLAG},
        {.name = "on", .kind = ST_OPTION_VALUE, .one_of = 1},
        {.name = "vpci", .kind = ST_OPTION_MAYBE, .one_of = 1},
        {.name = NULL},
    };
    char *text = strndup((const char *)data, size);
    struct st_options options;
    struct st_spec *spec;
    struct st_err err;

    if (!text)
        abort();
    if (st_spec_parse(text, &spec, &err) == 0)
        st_spec_free(spec);
    if (st_spec_parse_decorator(text, &spec, &err) == 0)
        st_spec_free(spec);
    if (st_options_parse("--disk", text, table, &options, &err) == 0)
        st_options_free(&options);
    free(text);
    return 0;
}
