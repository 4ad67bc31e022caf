/* SPDX-License-Identifier: MIT
 *
 * Kinds of somebody else's; see st_stack_env_add. Each gets a row like those of
 * the registry, with a syntax line that takes any text: <uri>, the one type
 * whose semicolons are its own.
 */
#include <errno.h>
#include <string.h>

#include "list.h"
#include "stack_private.h"

static int
more_open(const struct st_kind *row, struct st_stack *s, const char *label)
{
    struct st_kind_more *k =
        st_container((uintptr_t)row, struct st_kind_more, row);

    return k->make(k, s->home, st_spec_arg(s->spec, "uri")->text, s->read_only,
                   label, &s->node, s->err);
}

int
st_stack_env_add(struct st_stack_env *env, struct st_kind_more *k,
                 struct st_err *err)
{
    size_t n = strlen(k->name);

    if (!n || n > 31 ||
        strspn(k->name, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return st_err_set(err, EINVAL,
                          "invalid disk kind '%.40s', expected 1 to 31 small "
                          "letters, digits and hyphens",
                          k->name);
    for (const struct st_kind *b = st_stack_kinds(); b->name; b++)
        if (strcmp(b->name, k->name) == 0)
            return st_err_set(err, EEXIST, "disk kind '%s' is built in",
                              k->name);
    for (const struct st_kind_more *m = env->more; m; m = m->next)
        if (strcmp(m->name, k->name) == 0)
            return st_err_set(err, EEXIST, "disk kind '%s' is there already",
                              k->name);
    snprintf(k->syntax, sizeof(k->syntax), "%s:[<uri>]", k->name);
    k->row = (struct st_kind){k->name, k->syntax, NULL, more_open, false};
    k->next = env->more;
    env->more = k;
    return 0;
}
