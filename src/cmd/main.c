/* SPDX-License-Identifier: MIT
 *
 * strata: what stands before the commands.
 */
#include <errno.h>
#include <string.h>

#include "cmd.h"
#include "stack.h"

static void
help(FILE *out)
{
    fputs("usage: strata COMMAND [OPTION]... [SPEC]\n\n", out);
    for (const struct st_cmd *const *c = st_cmd_all; *c; c++)
        fprintf(out, "  %-12s%s\n", (*c)->name, (*c)->help);
    fputs("\nstrata COMMAND --help tells the options of a command, "
          "strata --version the version.\nA SPEC says what a disk is made "
          "of:\n\n",
          out);
    st_stack_help(out);
    fputs("\nexit status: 0 done, 1 failed while running, 2 wrong option or "
          "SPEC,\n3 images differ\n",
          out);
}

static int
run(int argc, char **argv)
{
    const char *word = argv[1];

    if (argc < 2)
        return st_cmd_fail(ST_EXIT_USAGE, "missing command, see 'strata "
                                          "--help'");
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        help(stdout);
        return ST_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0) {
        st_cmd_version(stdout);
        return ST_EXIT_OK;
    }
    for (const struct st_cmd *const *c = st_cmd_all; *c; c++)
        if (strcmp(word, (*c)->name) == 0)
            return st_cmd_run(*c, argc - 1, argv + 1);
    return st_cmd_fail(ST_EXIT_USAGE, "unknown %s '%s', see 'strata --help'",
                       *word == '-' ? "option" : "command", word);
}

int
main(int argc, char **argv)
{
    int status = run(argc, argv);

    if (fflush(stdout) != 0 && status == ST_EXIT_OK)
        status =
            st_cmd_fail(ST_EXIT_FAILED, "cannot write to standard output: %s",
                        strerror(errno));
    return status;
}
