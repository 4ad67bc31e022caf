/* SPDX-License-Identifier: MIT
 *
 * Any bytes as what a client can say: the first byte chooses whether the rest
 * is a path, a verb's arguments, a value, or headers.
 */
#include <stdlib.h>
#include <string.h>

#include "control_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fuzz_path(const char *text)
{
    struct st_control_path p, again;
    struct st_err err;

    if (st_control_path_parse(text, &p, &err) == 0) {
        /* What is handed on leads to the same place. */
        if (st_control_path_parse(p.encoded, &again, &err) < 0 || again.n > p.n)
            abort();
        for (unsigned i = 0; i < again.n && again.n == p.n; i++)
            if (strcmp(p.segment[i], again.segment[i]) != 0)
                abort();
        st_control_path_free(&again);
    }
    st_control_path_free(&p);
}

static void
fuzz_arguments(const char *body, size_t len)
{
    static const struct st_verb verb = {
        "add-export", "NAME=SPEC", "", {"name", "spec", "?ro", "?door"}, NULL};
    char *arg[ST_VERB_ARGS];
    struct st_err err;

    st_control_arguments_parse(&verb, body, len, arg, &err);
    for (unsigned i = 0; i < ST_VERB_ARGS; i++)
        free(arg[i]);
}

static void
fuzz_value(const char *body, size_t len, bool json)
{
    struct st_err err;
    char *value;

    if (st_control_value_parse(body, len, json, &value, &err) == 0 &&
        strlen(value) > 6 * len + 32)
        abort();
    free(value);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = {"application/json", "", NULL};
    const char *body = (const char *)data + 1;
    size_t len = size ? size - 1 : 0;
    char *text;

    if (!size)
        return 0;
    text = strndup(body, len);
    switch (*data) {
    case 'p':
        fuzz_path(text);
        break;
    case 'a':
        fuzz_arguments(body, len);
        break;
    case 'v':
    case 'j':
        fuzz_value(body, len, *data == 'j');
        break;
    default:
        st_control_type_is(text, types);
        st_control_origin_ok(text, "strata:80");
    }
    free(text);
    return 0;
}
