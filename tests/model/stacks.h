/* SPDX-License-Identifier: MIT
 *
 * Random stacks: a backend, layers and decorators, drawn by a seed.
 */
#ifndef STACKS_H
#define STACKS_H

#include "node.h"
#include "rand.h"

struct stack {
    struct st_node *node;     /* given: the whole tree */
    struct st_node *testnode; /* lent, somewhere below; or NULL */
    uint8_t *initial;         /* owned: what it reads as, node->size bytes */
    char words[256];          /* for people: "delay:memdiff:file" */
    char path[64];            /* of the file below; empty if there is none */
};

/* Draw one on HOME. Exits the program when that fails. */
void stack_draw(struct stack *s, struct st_loop *home, struct st_rand *r);

/* A decorator without a child: NAME is delay, throttle or fault. */
struct st_node *stack_decorator(struct st_loop *home, struct st_rand *r,
                                const char *name);

/* After the tree is closed. */
void stack_forget(struct stack *s);

#endif
