/* SPDX-License-Identifier: MIT
 *
 * Nodes: what every kind shares; see node.h.
 */
#include "node.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
st_node_init(struct st_node *n, const struct st_node_ops *ops,
             struct st_loop *home, const char *label)
{
    n->ops = ops;
    n->home = home;
    n->props = (struct st_props){
        .sector_size = 512,
        .physical_sector_size = 512,
        .mem_align = 1,
    };
    snprintf(n->label, sizeof(n->label), "%s", label ? label : ops->name);
}

int
st_node_adopt(struct st_node *n, struct st_node *child)
{
    struct st_node **list =
        realloc(n->child, (n->nchild + 1) * sizeof(*n->child));

    if (!list)
        return -ENOMEM;
    n->child = list;
    list[n->nchild++] = child;
    atomic_store(&child->parent, n);
    if (n->ops->transparent) {
        n->props = child->props;
        st_node_set_size(n, st_node_size(child));
    }
    return 0;
}

struct st_node *
st_node_disown(struct st_node *n)
{
    struct st_node *child = n->child[--n->nchild];

    atomic_store(&child->parent, NULL);
    return child;
}

void
st_node_close(struct st_node *n)
{
    struct st_node **child;
    unsigned nchild;

    if (!n)
        return;
    child = n->child;
    nchild = n->nchild;
    n->ops->close(n);
    for (unsigned i = 0; i < nchild; i++)
        st_node_close(child[i]);
    free(child);
}

int
st_node_check(const struct st_node *n, struct st_err *err)
{
    const struct st_props *p = &n->props;

    if (!st_is_pow2(p->sector_size) || p->sector_size < 512)
        return st_err_set(err, EINVAL, "%s: invalid sector size %u", n->label,
                          p->sector_size);
    if (!st_is_pow2(p->physical_sector_size) ||
        p->physical_sector_size < p->sector_size)
        return st_err_set(err, EINVAL, "%s: invalid physical sector size %u",
                          n->label, p->physical_sector_size);
    if (!st_is_pow2(p->mem_align) || p->mem_align > 4096)
        return st_err_set(err, EINVAL, "%s: invalid memory alignment %u",
                          n->label, p->mem_align);
    if (st_node_size(n) % p->sector_size || st_node_size(n) > ST_OFFSET_MAX)
        return st_err_set(err, EINVAL,
                          "%s: size %llu is not a multiple of the sector size "
                          "%u below 2^63",
                          n->label, (unsigned long long)st_node_size(n),
                          p->sector_size);
    if (!(p->performs & ST_BIT(ST_OP_READ)) ||
        (!p->read_only &&
         (~p->performs & (ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_FLUSH)))))
        return st_err_set(err, EINVAL,
                          "%s: does not perform read, write and flush",
                          n->label);
    if (p->unmap != ST_UNMAP_IGNORED && !(p->performs & ST_BIT(ST_OP_UNMAP)))
        return st_err_set(err, EINVAL, "%s: offers unmap but does not do it",
                          n->label);
    if (st_node_depth(n) > ST_DEPTH_MAX)
        return st_err_set(err, E2BIG, "%s: more than %u disks deep", n->label,
                          ST_DEPTH_MAX);
    return 0;
}

unsigned
st_node_depth(const struct st_node *n)
{
    unsigned deepest = 0;

    for (unsigned i = 0; i < n->nchild; i++) {
        unsigned d = st_node_depth(n->child[i]);

        deepest = d > deepest ? d : deepest;
    }
    return deepest + 1;
}

void
st_node_changed(struct st_node *n, unsigned events)
{
    struct st_node *up;

    /* Upward, as long as the parent makes it its own. */
    for (; (up = atomic_load(&n->parent)); n = up) {
        if (up->ops->transparent && !up->ops->child_event)
            st_node_set_size(up, st_node_size(n));
        else if (!up->ops->child_event || !up->ops->child_event(up, n, events))
            return;
    }
    if (n->event)
        n->event(n->event_arg, events);
}

int
st_node_resize(struct st_node *n, uint64_t size, struct st_err *err)
{
    int rc;

    if (n->ops->resize)
        return n->ops->resize(n, size, err);
    if (!n->ops->transparent || n->nchild != 1)
        return st_err_set(err, ENOTSUP, "%s: its size is fixed", n->label);
    rc = st_node_resize(n->child[0], size, err);
    if (rc == 0)
        st_node_set_size(n, st_node_size(n->child[0]));
    return rc;
}
