/* SPDX-License-Identifier: MIT
 *
 * Layered disk, the node: checks, properties, sizes; see layered.h.
 *
 * Visible sizes, here after layer 0 shrank to 3 sectors and grew again to 6:
 *
 *   layer 0   | A  .  .  .  .  . |   the disk's size
 *   layer 1   | b  b  b |~~~~         visible[1]: the ~ never come back
 *   layer 2   | c  c |                visible[2] <= visible[1]
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "layered_private.h"

/* ---- Sizes ---- */

static struct st_layered *
layered_of(struct st_node *node)
{
    return st_container(node, struct st_layered, base);
}

/* Take over the layers' sizes. True if the node's own changed. */
static bool
layered_measure(struct st_layered *n)
{
    uint64_t size, least;
    bool changed;

    pthread_mutex_lock(&n->lock);
    size = least = st_node_size(n->base.child[0]);
    for (unsigned i = 1; i < n->base.nchild; i++) {
        least = st_min(least, st_node_size(n->base.child[i]));
        least = st_min(least, st_layered_visible(n, i));
        atomic_store_explicit(&n->layer[i].visible, least,
                              memory_order_release);
    }
    changed = size != st_node_size(&n->base);
    st_node_set_size(&n->base, size);
    pthread_mutex_unlock(&n->lock);
    return changed;
}

static bool
layered_child_event(struct st_node *node, struct st_node *child,
                    unsigned events)
{
    (void)child;
    return layered_measure(layered_of(node)) || (events & ST_EVENT_MEDIA);
}

static int
layered_resize(struct st_node *node, uint64_t size, struct st_err *err)
{
    int rc;

    if (node->props.read_only)
        return st_err_set(err, EROFS, "%s is read-only", node->label);
    rc = st_node_resize(node->child[0], size, err);
    layered_measure(layered_of(node));
    return rc;
}

/* ---- Properties ---- */

/* Checks 2 to 5 of spec 4.3, from the bottom up. */
static int
layered_attach(const struct st_layer *layers, unsigned n, struct st_err *err)
{
    for (unsigned i = n; i-- > 0;) {
        struct st_node *node = layers[i].node;
        const struct st_props *p = &node->props;
        uint32_t bottom;

        if (node->ops->attach) {
            int rc = node->ops->attach(
                node, i + 1 < n ? layers[i + 1].node : NULL, err);

            if (rc < 0) {
                st_err_prefix(err, "layer %u: attach failed", i);
                return rc;
            }
        }
        if (layers[i].read_cache && !node->ops->no_overwrite)
            return st_err_set(err, EINVAL,
                              "layer %u: read caching not supported by %s", i,
                              node->ops->name);
        if (!st_is_pow2(p->sector_size) || p->sector_size < 512)
            return st_err_set(err, EINVAL, "layer %u: invalid sector size %u",
                              i, p->sector_size);
        bottom = layers[n - 1].node->props.sector_size;
        if (p->sector_size != bottom)
            return st_err_set(
                err, EINVAL,
                "layer %u: mismatched sector size (expected %u, found %u)", i,
                bottom, p->sector_size);
        /* A piece of a request starts at any sector. */
        if (n > 1 && p->mem_align > p->sector_size)
            return st_err_set(
                err, EINVAL,
                "layer %u: wants buffers aligned to %u bytes, but a layer "
                "among others gets any sector",
                i, p->mem_align);
    }
    return 0;
}

/* Checks 6 to 8, from the top down. */
static int
layered_check_writes(const struct st_layer *layers, unsigned n, bool read_only,
                     struct st_err *err)
{
    bool written = true;

    for (unsigned i = 0; i < n; i++) {
        if (written && !read_only && layers[i].node->props.read_only)
            return st_err_set(
                err, EINVAL, "layer %u: read-only layer in a writable disk", i);
        if (layers[i].write_through && (!written || i + 1 == n))
            return st_err_set(err, EINVAL, "layer %u: nothing to write through",
                              i);
        written = written && layers[i].write_through;
    }
    return 0;
}

/* The properties, from those of the layers (spec 4.3, "Derived"). */
static void
layered_derive(struct st_layered *n, bool read_only)
{
    struct st_props *p = &n->base.props;
    uint32_t all = ~0u, any = 0; /* performed by all written, any layer */

    *p = n->base.child[0]->props;
    p->read_only = read_only;
    /* The deepest copy decides: those above it may be lost. */
    p->outlives = n->base.child[n->nwritten - 1]->props.outlives;
    p->unmap = ST_UNMAP_ZEROES;
    for (unsigned i = 0; i < n->base.nchild; i++) {
        const struct st_props *q = &n->base.child[i]->props;

        p->mem_align = (uint32_t)st_max(p->mem_align, q->mem_align);
        if (q->max_segments &&
            (!p->max_segments || q->max_segments < p->max_segments))
            p->max_segments = q->max_segments;
        p->rotational |= q->rotational;
        if (q->has_id && !p->has_id) {
            p->has_id = true;
            memcpy(p->id, q->id, sizeof(p->id));
        }
        if ((q->performs & ~any) & ST_BIT(ST_OP_EJECT))
            n->eject = i;
        any |= q->performs;
        if (i >= n->nwritten)
            continue;
        all &= q->performs;
        p->fua &= q->fua;
        p->fast_zero &= q->fast_zero;
        p->unmap_granularity =
            (uint32_t)st_max(p->unmap_granularity, q->unmap_granularity);
        /* With write-through all copies must agree, or taking a cache out
         * would change the disk. */
        if (q->unmap != ST_UNMAP_ZEROES)
            p->unmap = n->nwritten == 1 ? q->unmap : ST_UNMAP_IGNORED;
    }
    if (read_only)
        all &= ~ST_OPS_MODIFY;
    if (p->unmap == ST_UNMAP_IGNORED)
        all &= ~ST_BIT(ST_OP_UNMAP);
    if (!(all & ST_BIT(ST_OP_UNMAP))) {
        p->unmap = ST_UNMAP_IGNORED;
        p->unmap_granularity = 0;
    }
    all &= ~(ST_BIT(ST_OP_COMPARE_AND_WRITE) | ST_BIT(ST_OP_EJECT));
    p->performs = ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_BLOCK_STATUS) | all |
                  (any & ST_BIT(ST_OP_EJECT));
}

/* ---- The node ---- */

static void
layered_inspect(struct st_node *node, struct st_inspect *v)
{
    static const char *const names[ST_LAYERED_STATS] = {
        [ST_LAYERED_HIT] = "cache_hit_bytes",
        [ST_LAYERED_MISS] = "cache_miss_bytes",
        [ST_LAYERED_POPULATED] = "cache_populated_bytes",
        [ST_LAYERED_ERRORS] = "cache_populate_errors",
    };
    struct st_layered *n = layered_of(node);

    v->u64(v, "layer_count", node->nchild);
    v->u64(v, "layers_written", n->nwritten);
    for (unsigned i = 0; i < node->nchild; i++) {
        uint64_t size = st_node_size(node->child[i]);
        char name[48];

        snprintf(name, sizeof(name), "layers/%u/read_cache", i);
        v->u64(v, name, n->layer[i].read_cache);
        snprintf(name, sizeof(name), "layers/%u/write_through", i);
        v->u64(v, name, i + 1 < n->nwritten);
        snprintf(name, sizeof(name), "layers/%u/visible_sector_count", i);
        v->u64(v, name,
               (i ? st_layered_visible(n, i) : size) / node->props.sector_size);
    }
    for (unsigned i = 0; n->ncache && i < ST_LAYERED_STATS; i++) {
        uint64_t sum;

        pthread_mutex_lock(&n->lock);
        sum = st_counter_get(&n->past[i]);
        st_list_for(c, tmp, &n->chans, struct st_layered_chan, link)
        {
            sum += st_counter_get(&c->stat[i]);
        }
        pthread_mutex_unlock(&n->lock);
        v->u64(v, names[i], sum);
    }
}

static void
layered_close(struct st_node *node)
{
    struct st_layered *n = layered_of(node);

    pthread_mutex_destroy(&n->lock);
    free(n);
}

static const struct st_node_ops layered_ops = {
    .name = "layered",
    .open_chan = st_layered_open_chan,
    .close_chan = st_layered_close_chan,
    .cancel = st_layered_split_cancel,
    .resize = layered_resize,
    .child_event = layered_child_event,
    .inspect = layered_inspect,
    .close = layered_close,
};

int
st_layered_create(struct st_loop *home, const struct st_layer *layers,
                  unsigned n, bool read_only, const char *label,
                  struct st_node **out, struct st_err *err)
{
    struct st_layered *l;
    int rc;

    if (n == 0)
        return st_err_set(err, EINVAL, "no layers configured");
    rc = layered_attach(layers, n, err);
    if (rc == 0)
        rc = layered_check_writes(layers, n, read_only, err);
    if (rc < 0)
        return rc;

    l = calloc(1, sizeof(*l) + (n + (size_t)1) * sizeof(l->layer[0]));
    if (!l)
        return st_err_set(err, ENOMEM, "no memory for %u layers", n);
    st_node_init(&l->base, &layered_ops, home, label);
    pthread_mutex_init(&l->lock, NULL);
    st_list_init(&l->chans);
    for (unsigned i = 0; i < n; i++) {
        if (st_node_adopt(&l->base, layers[i].node) < 0) {
            rc = st_err_set(err, ENOMEM, "no memory for %u layers", n);
            goto fail;
        }
        l->layer[i].read_cache = layers[i].read_cache;
        l->ncache += layers[i].read_cache;
        atomic_init(&l->layer[i].visible, UINT64_MAX);
    }
    while (layers[l->nwritten++].write_through)
        ;
    layered_derive(l, read_only);
    layered_measure(l);
    *out = &l->base;
    return 0;

fail:
    while (l->base.nchild)
        st_node_disown(&l->base);
    st_node_close(&l->base);
    return rc;
}
