/* SPDX-License-Identifier: MIT
 *
 * The guest's panics; see pvpanic.h.
 */
#include "pvpanic.h"

#include <errno.h>
#include <stdlib.h>

enum { PANICKED = 1, CRASH_LOADED = 2 };

struct st_pvpanic {
    struct st_region region;
    struct st_space *ports; /* borrowed */
    const struct st_pvpanic_ops *ops;
    void *arg;
};

/* Of one byte: a longer access was split before. */
static bool
pvpanic_access(struct st_region *r, struct st_access *a)
{
    struct st_pvpanic *p = r->arg;

    if (!a->write)
        a->value = PANICKED | CRASH_LOADED;
    else if (a->value & PANICKED)
        p->ops->panicked(p->arg, false);
    else if (a->value & CRASH_LOADED)
        p->ops->panicked(p->arg, true);
    return true;
}

static const struct st_region_ops pvpanic_ops = {"pvpanic", pvpanic_access};

int
st_pvpanic_create(struct st_space *ports, const struct st_pvpanic_ops *ops,
                  void *arg, struct st_pvpanic **out)
{
    struct st_pvpanic *p = calloc(1, sizeof(*p));
    int rc;

    if (!p)
        return -ENOMEM;
    p->ports = ports;
    p->ops = ops;
    p->arg = arg;
    p->region = (struct st_region){
        .ops = &pvpanic_ops, .arg = p, .start = ST_PVPANIC_PORT, .size = 1};
    rc = st_space_add(ports, &p->region);
    if (rc < 0) {
        free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void
st_pvpanic_destroy(struct st_pvpanic *p)
{
    if (!p)
        return;
    st_space_remove(p->ports, &p->region);
    free(p);
}
