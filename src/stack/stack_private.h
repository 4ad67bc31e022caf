/* SPDX-License-Identifier: MIT
 *
 * What the files of the stack share.
 *
 *   words.c    cutting text, escapes
 *   options.c  key=value lists, for the commands
 *   spec.c     text to a description, by the syntax lines of the kinds
 *   kinds.c    the registry: rows, and how each built-in kind is opened
 *   stack.c    a description to nodes: layers, read-only, what lies below
 *   more.c     kinds of somebody else's
 *   group.c    throttles that share their buckets by name
 */
#ifndef ST_STACK_PRIVATE_H
#define ST_STACK_PRIVATE_H

#include <pthread.h>

#include "stack.h"
#include "throttle.h"

/* ---- spec.c: what a text says; nothing is opened ---- */

enum { ST_SPEC_ARGS = 8 };

/* One field or option of a disk's text. */
struct st_spec_arg {
    const char *name; /* in the kind's syntax line, not terminated */
    size_t name_len;
    const char *text; /* without escapes */
    uint64_t number;  /* of sizes and numbers */
};

/* One disk of a spec, with those below it. */
struct st_spec {
    const struct st_kind *kind;
    const char *text; /* as written, from here on, not terminated */
    int len, own;     /* of it: all, and without what is below */
    struct st_spec_arg arg[ST_SPEC_ARGS];
    unsigned narg;
    struct st_spec **child; /* owned */
    unsigned nchild;
    char *memory; /* of the outermost one: where all text lies; owned */
};

/* 0, or -EINVAL with a sentence, or -ENOMEM. */
int st_spec_parse(const char *text, struct st_spec **out, struct st_err *err);

/* The same; MORE kinds beside the registry's, or NULL. */
int st_spec_parse_more(const char *text, const struct st_kind_more *more,
                       struct st_spec **out, struct st_err *err);

/* A decorator without its disk: "delay:5". The same errors, and -EINVAL for
 * another kind or when a disk follows. */
int st_spec_parse_decorator(const char *text, struct st_spec **out,
                            struct st_err *err);

/* NULL is fine. */
void st_spec_free(struct st_spec *s);

/* The field or option NAME ("path", "create"); text is NULL if it is not
 * there. */
const struct st_spec_arg *st_spec_arg(const struct st_spec *s,
                                      const char *name);

/* ---- stack.c: a tree under construction ---- */

/* What disks of one process share. */
struct st_stack_env {
    pthread_mutex_t lock;      /* guards groups; a leaf */
    struct st_list groups;     /* group.c */
    struct st_kind_more *more; /* borrowed */
};

/* What st_kind.open works on: it fills node, or fails. */
struct st_stack {
    struct st_loop *home;
    struct st_stack_env *env;   /* or NULL */
    const struct st_spec *spec; /* the disk that is being opened */
    bool read_only;
    struct st_err *err;
    struct st_node *node; /* out */
    bool diff;            /* out: node is a layer above the disk below, which
                           * is read-only and part of the same layered disk */
};

/* Open the disk below as one of its own and make S->node, a decorator, adopt
 * it; nothing if S->spec has no disk below (st_stack_decorator). 0 or -errno
 * (S->node is closed then). */
int st_stack_adopt(struct st_stack *s);

/* ---- group.c ---- */

/* Make S->node, a throttle that shares with the others of GROUP. 0 or -errno:
 * -EINVAL when its limits are not theirs, -ENOTSUP without an env. */
int st_stack_group_join(struct st_stack *s, const char *group,
                        const struct st_throttle_opts *o, const char *label);

/* No group has members any more. */
void st_stack_groups_free(struct st_stack_env *env);

/* "'vhd' is not built into this strata" */
int st_stack_not_built(struct st_stack *s, const char *what);

#endif
