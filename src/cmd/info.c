/* SPDX-License-Identifier: MIT
 *
 * strata info: what a SPEC is made of. Opens it read-only; an image that a
 * writer has locked is refused.
 */
#include "cmd.h"
#include "control.h"

enum { JSON };

static const struct st_cmd_option info_options[] = {
    {"json", ST_CMD_FLAG, NULL, "as JSON; sizes and counters are numbers", 0, 0,
     0},
    {0},
};

static int
info_run(const struct st_cmd_args *a)
{
    struct st_cmd_world w;
    struct st_disk *d = NULL;
    int status;

    if (a->nrest != 1)
        return st_cmd_fail(ST_EXIT_USAGE, "%s '%s', see 'strata info --help'",
                           a->nrest ? "one SPEC too many:" : "missing SPEC",
                           a->nrest ? a->rest[1] : "");
    status = st_cmd_world_open(&w, a->level, 0, 0, NULL);
    if (!status)
        status = st_cmd_disk_open(&w, a->rest[0], a->rest[0], true, &d);
    if (d && a->text[JSON]) {
        json_t *tree = st_inspect_disk(d);

        json_dumpf(tree, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(tree);
    } else if (d) {
        st_inspect_print(stdout, d);
    }
    st_disk_destroy(d);
    st_cmd_world_close(&w);
    return status;
}

const struct st_cmd st_cmd_info = {
    .name = "info",
    .syntax = "SPEC",
    .help = "show what a disk is made of",
    .more = "It is opened read-only.\n",
    .options = info_options,
    .run = info_run,
};
