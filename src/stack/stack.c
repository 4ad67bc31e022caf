/* SPDX-License-Identifier: MIT
 *
 * From a description to nodes (spec: config.md 5.1, disk.md 4.8).
 *
 *   memdiff : memdiff : delay:5 : file:x      three layers of one layered disk,
 *   ram       ram       '--- one node ---'    the third one a disk of its own
 *
 * A single element is used as it is. Read-only runs downwards: below a layer
 * that takes the writes everything is opened read-only.
 */
#include <errno.h>
#include <stdlib.h>

#include "layered.h"
#include "stack_private.h"

int
st_stack_not_built(struct st_stack *s, const char *what)
{
    return st_err_set(s->err, ENOTSUP,
                      "'%.*s': '%s' is not built into this "
                      "strata",
                      s->spec->own > 160 ? 160 : s->spec->own, s->spec->text,
                      what);
}

/* Open SPEC without what may lie below it as further layers. */
static int
open_element(struct st_stack *s)
{
    const struct st_kind *k = s->spec->kind;
    char label[sizeof(s->node->label)];

    snprintf(label, sizeof(label), "%.*s", s->spec->own, s->spec->text);
    if (!k->open)
        return st_stack_not_built(s, k->name);
    return k->open(k, s, label);
}

/* Open SPEC as a whole disk; depth is bounded by the parser. */
static int
open_disk(struct st_loop *home, struct st_stack_env *env,
          const struct st_spec *spec, bool read_only, struct st_node **out,
          struct st_err *err)
{
    struct st_stack s = {.home = home,
                         .env = env,
                         .spec = spec,
                         .read_only = read_only,
                         .err = err,
                         .diff = true};
    struct st_layer layer[ST_DEPTH_MAX] = {0};
    unsigned n = 0;
    int rc = 0;

    while (s.diff) {
        s.diff = false;
        rc = open_element(&s);
        if (rc)
            goto fail;
        layer[n++].node = s.node;
        if (s.diff) {
            s.spec = s.spec->child[0];
            s.read_only = true;
        }
    }
    if (n > 1) {
        char label[sizeof(s.node->label)];

        snprintf(label, sizeof(label), "%.*s", spec->len, spec->text);
        rc = st_layered_create(home, layer, n, read_only, label, out, err);
    } else {
        *out = layer[0].node;
        if (s.node->ops->attach)
            rc = s.node->ops->attach(s.node, NULL, err);
    }
    if (rc == 0)
        return 0;

fail:
    while (n > 0)
        st_node_close(layer[--n].node);
    return rc;
}

int
st_stack_adopt(struct st_stack *s)
{
    struct st_node *below;
    int rc;

    if (!s->spec->nchild)
        return 0;
    rc = open_disk(s->home, s->env, s->spec->child[0], s->read_only, &below,
                   s->err);
    if (rc == 0) {
        rc = st_node_adopt(s->node, below);
        if (rc == 0)
            return 0;
        st_err_set(s->err, -rc, "no memory");
        st_node_close(below);
    }
    st_node_close(s->node);
    return rc;
}

struct st_stack_env *
st_stack_env_create(void)
{
    struct st_stack_env *env = calloc(1, sizeof(*env));

    if (env) {
        pthread_mutex_init(&env->lock, NULL);
        st_list_init(&env->groups);
    }
    return env;
}

void
st_stack_env_destroy(struct st_stack_env *env)
{
    if (!env)
        return;
    st_stack_groups_free(env);
    pthread_mutex_destroy(&env->lock);
    free(env);
}

int
st_stack_decorator(struct st_loop *home, struct st_stack_env *env,
                   const char *text, struct st_node **out, struct st_err *err)
{
    struct st_stack s = {.home = home, .env = env, .err = err};
    struct st_spec *spec;
    int rc = st_spec_parse_decorator(text, &spec, err);

    if (rc)
        return rc;
    s.spec = spec;
    rc = open_element(&s);
    if (rc == 0)
        *out = s.node;
    st_spec_free(spec);
    return rc;
}

int
st_stack_open(struct st_loop *home, struct st_stack_env *env, const char *text,
              bool read_only, struct st_node **out, struct st_err *err)
{
    struct st_spec *spec;
    int rc = st_spec_parse_more(text, env ? env->more : NULL, &spec, err);

    if (rc)
        return rc;
    rc = open_disk(home, env, spec, read_only, out, err);
    st_spec_free(spec);
    return rc;
}
