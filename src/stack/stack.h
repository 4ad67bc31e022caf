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

/* What the disks of one process share: the groups of throttle, which begin with
 * their first member and end with their last. It outlives every node that was
 * opened with it. NULL: no memory. */
struct st_stack_env *st_stack_env_create(void);
void st_stack_env_destroy(struct st_stack_env *env);

/* Build the tree that SPEC names. READ_ONLY: the disk's own flag; below a diff
 * everything is opened read-only. ENV may be NULL: no group= then. 0 or -errno
 * with one sentence that quotes the offending text: -EINVAL for a SPEC that is
 * wrong in itself, other values when opening failed. Blocks.
 *
 * On home's thread, or on worker threads while home turns, several at once:
 * what makes a node may use HOME's log and caps and post to it, nothing else of
 * it. When opening fails half-way, what was open already is closed on the
 * thread that opened it. */
int st_stack_open(struct st_loop *home, struct st_stack_env *env,
                  const char *spec, bool read_only, struct st_node **out,
                  struct st_err *err);

/* The same for a decorator alone, to be inserted into a disk that lives:
 * "delay:5", "throttle:1000;group=g", "fault:rules". -EINVAL for a kind that is
 * no decorator, or when a disk follows. */
int st_stack_decorator(struct st_loop *home, struct st_stack_env *env,
                       const char *text, struct st_node **out,
                       struct st_err *err);

/* One row of the registry. */
struct st_kind {
    const char *name;   /* before the colon; "" for the bare path */
    const char *syntax; /* one line: "file:<path>[;direct][;create=<len>]" */
    const char *help;   /* one line, or NULL: not built into this strata */
    int (*open)(const struct st_kind *k, struct st_stack *s, const char *arg);
    bool decorator; /* passes everything on to its one disk, the last word of
                     * the syntax: can be inserted into a disk that lives */
};

/* All rows, ended by one with a NULL name: for --help, completion, guide. */
const struct st_kind *st_stack_kinds(void);

/* The syntax lines, one a kind that is built in, for --help. */
void st_stack_help(FILE *out);

/* A kind of somebody else's, for disks that are opened with the same ENV:
 * "NAME:TEXT", where TEXT is anything, also nothing. */
struct st_kind_more {
    const char *name; /* at most 31 small letters, digits and hyphens */

    /* Make the node, a backend whose label is LABEL. 0 or -errno with a
     * sentence. Home loop. */
    int (*make)(struct st_kind_more *k, struct st_loop *home, const char *text,
                bool read_only, const char *label, struct st_node **out,
                struct st_err *err);

    /* The stack's own. */
    struct st_kind row;
    char syntax[48];
    struct st_kind_more *next;
};

/* Add K (borrowed for ENV's life). 0, -EINVAL (its name) or -EEXIST (there is
 * one of that name), with a sentence. Home loop. */
int st_stack_env_add(struct st_stack_env *env, struct st_kind_more *k,
                     struct st_err *err);

#endif
