/* SPDX-License-Identifier: MIT
 *
 * Groups of throttles: a name, and what its members share.
 *
 *   env -- group "g" -- keeper --+
 *                    member a ---+--> buckets
 *                    member b ---+
 *
 * The keeper is a throttle in no tree: the buckets outlive whichever member
 * leaves first. Nobody tells when the last one has left; a group without
 * members is found and freed when the next throttle asks for any group, so that
 * its name is free again with other limits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stack_private.h"

struct group {
    struct st_list link;    /* st_stack_env.groups */
    struct st_node *keeper; /* owned */
    char name[];
};

static void
group_free(struct group *g)
{
    st_list_remove(&g->link);
    st_node_close(g->keeper);
    free(g);
}

/* The group NAME; those without members are freed on the way. */
static struct group *
group_find(struct st_stack_env *env, const char *name)
{
    struct group *found = NULL;

    st_list_for(g, next, &env->groups, struct group, link)
    {
        if (!st_throttle_members(g->keeper))
            group_free(g);
        else if (strcmp(g->name, name) == 0)
            found = g;
    }
    return found;
}

static struct group *
group_create(struct st_stack *s, const char *name, struct st_throttle_opts o,
             const char *label, int *rc)
{
    struct group *g = malloc(sizeof(*g) + strlen(name) + 1);

    if (!g) {
        *rc = st_err_set(s->err, ENOMEM, "%s: no memory", label);
        return NULL;
    }
    o.keeper = true;
    *rc = st_throttle_create(s->home, &o, label, &g->keeper, s->err);
    if (*rc) {
        free(g);
        return NULL;
    }
    strcpy(g->name, name);
    st_list_append(&s->env->groups, &g->link);
    return g;
}

int
st_stack_group_join(struct st_stack *s, const char *group,
                    const struct st_throttle_opts *o, const char *label)
{
    struct st_throttle_opts mine = *o;
    struct group *g;
    int rc = 0;

    if (!s->env)
        return st_err_set(s->err, ENOTSUP,
                          "'%s': group= joins disks of one process, and this "
                          "one is opened alone",
                          label);
    pthread_mutex_lock(&s->env->lock);
    g = group_find(s->env, group);
    if (!g)
        g = group_create(s, group, mine, label, &rc);
    if (g) {
        mine.group = g->keeper;
        rc = st_throttle_create(s->home, &mine, label, &s->node, s->err);
    }
    pthread_mutex_unlock(&s->env->lock);
    return rc;
}

void
st_stack_groups_free(struct st_stack_env *env)
{
    st_list_for(g, next, &env->groups, struct group, link)
    {
        group_free(g);
    }
}
