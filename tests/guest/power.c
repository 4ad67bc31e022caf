/* SPDX-License-Identifier: MIT
 *
 * Power loss, judged by the kernel (power.h): the subcommands.
 */
#include <stdio.h>
#include <string.h>

#include "power.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    int args;
    const char *usage;
} commands[] = {
    {"write", power_write, 5, "SOCKET JOURNAL ROUNDS SEED MARK..."},
    {"marks", power_marks, 1, "LOG"},
    {"replay", power_replay, 4, "LOG TARGET FROM TO"},
    {"check", power_check, 3, "TARGET JOURNAL MARK"},
};

int
main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (argc > 1 && strcmp(argv[1], commands[i].name) == 0 &&
            argc - 2 >= commands[i].args) {
            return commands[i].run(argc - 2, argv + 2);
        }
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        fprintf(stderr, "usage: power %s %s\n", commands[i].name,
                commands[i].usage);
    }
    return 2;
}
