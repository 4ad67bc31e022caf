/* SPDX-License-Identifier: MIT
 *
 * Option strings: every rule of the grammar, and its sentence when broken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "options.h"

static const struct st_option disk[] = {
    {.name = "disk", .kind = ST_OPTION_DISK},
    {.name = "ro", .kind = ST_OPTION_FLAG},
    {.name = "on", .kind = ST_OPTION_VALUE},
    {.name = NULL},
};

static const struct st_option socket_path[] = {
    {.name = "path", .kind = ST_OPTION_FIRST},
    {.name = "mode", .kind = ST_OPTION_VALUE},
    {.name = NULL},
};

static const struct st_option nvme[] = {
    {.name = "id", .kind = ST_OPTION_VALUE, .required = true},
    {.name = "pcie_port", .kind = ST_OPTION_VALUE, .one_of = 1},
    {.name = "vpci", .kind = ST_OPTION_MAYBE, .one_of = 1},
    {.name = "vtl2", .kind = ST_OPTION_FLAG},
    {.name = NULL},
};

static const struct st_option lax[] = {
    {.name = "a", .kind = ST_OPTION_FLAG},
    {.name = "b", .kind = ST_OPTION_FLAG},
    {.name = NULL},
};

/* "value|-|value", by row. */
static void
accepts(const struct st_option *table, const char *text, const char *expected)
{
    char got[200] = "";
    struct st_options o;
    struct st_err err;

    if (st_options_parse("--x", text, table, &o, &err))
        fail_msg("%s", err.text);
    for (unsigned i = 0; table[i].name; i++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s%s",
                 i ? "|" : "", o.value[i] ? o.value[i] : "-");
    assert_string_equal(got, expected);
    st_options_free(&o);
}

static void
refuses(const struct st_option *table, const char *text, const char *says,
        const char *also)
{
    struct st_options o;
    struct st_err err;
    char quoted[200];

    snprintf(quoted, sizeof(quoted), "--x '%s': ", text);
    assert_int_equal(st_options_parse("--x", text, table, &o, &err), -EINVAL);
    if (!strstr(err.text, quoted) || !strstr(err.text, says) ||
        !strstr(err.text, also))
        fail_msg("'%s' lacks '%s', '%s' or '%s'", err.text, quoted, says, also);
    assert_null(o.memory);
}

static void
parts_are_split_at_commas_outside_brackets(void **state)
{
    (void)state;
    accepts(disk, "mem:1G", "mem:1G|-|-");
    accepts(disk, "mem:1G,ro", "mem:1G||-");
    accepts(disk, "mem:1G,on=c0,ro", "mem:1G||c0");
    accepts(disk, "stripe:64K:[a,b][c],ro", "stripe:64K:[a,b][c]||-");
    accepts(disk, "x,on=[a,[b,c],d]", "x|-|[a,[b,c],d]");
    refuses(disk, "stripe:[a,ro", "'[' is not closed", "expected ']'");
    refuses(disk, "x],ro", "']' closes nothing", "\\]");
    refuses(disk, "[x]],ro", "']' closes nothing", "\\]");
}

static void
a_positional_is_taken_as_it_is(void **state)
{
    (void)state;
    accepts(disk, "ro=on", "ro=on|-|-");
    accepts(disk, "ro,ro", "ro||-");
    accepts(disk, "file:a\\,b,ro", "file:a\\,b||-"); /* for st_stack_open */
    accepts(socket_path, "/run/a\\,b\\[,mode=600", "/run/a,b[|600");
    refuses(disk, "", "missing required disk", "");
    refuses(disk, ",ro", "missing required disk", "");
}

static void
empty_parts_are_refused(void **state)
{
    (void)state;
    refuses(disk, "x,", "empty", "commas");
    refuses(disk, "x,,ro", "empty", "commas");
    refuses(lax, "a,", "empty", "commas");
    refuses(lax, ",a", "empty", "commas");
    refuses(lax, "", "missing required", "");
    refuses(nvme, "", "missing required id", "");
    refuses(lax, "=on", "unknown option ''", "a, b");
}

static void
a_flag_is_on_or_off(void **state)
{
    (void)state;
    accepts(lax, "a", "|-");
    accepts(lax, "a=on", "|-");
    accepts(lax, "a=off", "-|-");
    accepts(lax, "b,a=off", "-|");
    refuses(lax, "a=yes", "invalid 'a=yes'", "a=on or a=off");
    refuses(lax, "a=", "invalid 'a='", "a=on or a=off");
    refuses(lax, "a,a", "'a' is given twice", "");
    refuses(lax, "a=off,a", "'a' is given twice", "");
}

static void
a_value_is_there_once(void **state)
{
    (void)state;
    accepts(nvme, "id=x,vpci=a=b", "x|-|a=b|-"); /* split at the first = */
    accepts(disk, "x,on=a\\,b\\\\c\\d", "x|-|a,b\\c\\d");
    refuses(disk, "x,on", "'on' needs a value", "on=<value>");
    refuses(disk, "x,on=", "'on' needs a value", "on=<value>");
    refuses(disk, "x,on=a,on=a", "'on' is given twice", "");
    refuses(disk, "x,no=a", "unknown option 'no'", "ro, on=");
    refuses(nvme, "id=a,vpci=", "'vpci' needs a value", "");
}

static void
exactly_one_of_a_group_is_given(void **state)
{
    (void)state;
    accepts(nvme, "id=x,vpci", "x|-||-");
    accepts(nvme, "id=x,pcie_port=p,vtl2", "x|p|-|");
    refuses(nvme, "id=x", "one of pcie_port=, vpci is required", "");
    refuses(nvme, "id=x,pcie_port=p,vpci", "only one of pcie_port=, vpci", "");
    refuses(nvme, "vpci", "missing required id=<value>", "");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_split_at_commas_outside_brackets),
        cmocka_unit_test(a_positional_is_taken_as_it_is),
        cmocka_unit_test(empty_parts_are_refused),
        cmocka_unit_test(a_flag_is_on_or_off),
        cmocka_unit_test(a_value_is_there_once),
        cmocka_unit_test(exactly_one_of_a_group_is_given),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
