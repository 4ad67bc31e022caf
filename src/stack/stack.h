/* SPDX-License-Identifier: MIT
 *
 * Words to nodes: the disk grammar (guide/disk-grammar.md), its registry of
 * kinds, and the resolver.
 *
 *   memdiff:file:base.img
 *   '--+--' '-----+-----'
 *   a layer   the disk below, parsed recursively
 *
 * kinds.c is the registry: one row a kind. Help, completion and the guide's
 * table are printed from it.
 */
#ifndef ST_STACK_H
#define ST_STACK_H

#include <stdio.h>

#include "node.h"

struct st_stack; /* a tree under construction: stack_private.h */
struct st_stack_env;

/* What the disks of one process share: the groups of throttle. It outlives
 * every node that was opened with it. NULL: no memory. */
struct st_stack_env *st_stack_env_create(void);
void st_stack_env_destroy(struct st_stack_env *env);

/* Build the tree that SPEC names. READ_ONLY: the disk's own flag; below a diff
 * everything is opened read-only. ENV may be NULL: no group= then. 0 or -errno with one sentence that quotes
 * the offending text: -EINVAL for a SPEC that is wrong in itself, other values
 * when opening failed. Blocks. On home's thread, or on a worker while nobody
 * else opens with ENV. */
int st_stack_open(struct st_loop *home, struct st_stack_env *env, const char *spec,
                  bool read_only, struct st_node **out, struct st_err *err);

/* The same for a decorator alone, to be inserted into a disk that lives:
 * "delay:5", "throttle:1000;group=g", "fault:rules.json". -EINVAL for a kind
 * that is no decorator, or when a disk follows. */
int st_stack_decorator(struct st_loop *home, struct st_stack_env *env,
                       const char *text, struct st_node **out,
                       struct st_err *err);

/* One row of the registry. */
struct st_kind {
    const char *name;   /* before the colon; "" for the bare path */
    const char *syntax; /* one line: "file:<path>[;direct][;create=<len>]" */
    const char *help;   /* one line, or NULL: not built into this strata */
    int (*open)(const struct st_kind *k, struct st_stack *s, const char *arg);
};

/* All rows, ended by one with a NULL name: for --help, completion, guide. */
const struct st_kind *st_stack_kinds(void);

/* The syntax lines, one a kind that is built in, for --help. */
void st_stack_help(FILE *out);

#endif
