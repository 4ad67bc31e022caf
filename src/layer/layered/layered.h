/* SPDX-License-Identifier: MIT
 *
 * Layered disks (spec: disk 4). Layers 0 (top) to n - 1 (bottom), of which each
 * holds some sectors:
 *
 *   guest reads:   | A  b  A  c  0 |      the topmost layer that holds it
 *   layer 0        | A  .  A  .  . |  <-- written; and while write_through,
 *   layer 1        | b  b  .  .  . |      the layers below it too
 *   layer 2        | c  c  c  c |         shorter: zero beyond its end
 *
 * A read_cache layer takes up what it missed. A node without ops->presence is a
 * plain disk: it holds every sector and hides whatever lies below it.
 *
 * Beyond node.h, this asks of a layer that
 *   - it sets marks on the request's own loop, before it completes the request;
 *   - WRITE_ZEROES, with or without ST_REQ_MAY_UNMAP, makes sectors present
 *     (unless it was attached at the bottom, where absent is zero);
 *   - an UNMAP without ST_REQ_NEXT_ZERO makes no present sector absent, and
 *     every one of its range present if props.unmap is ST_UNMAP_ZEROES;
 *   - a read_cache layer takes ST_OP_WRITE with ST_REQ_NO_OVERWRITE even when
 *     its props.read_only says that guests may not write.
 *
 * inspect shows layer_count, layers_written, of each layer layers/N/ with
 * read_cache, write_through and visible_sector_count (of what a guest can see
 * of it), and, where there is a cache, cache_*.
 */
#ifndef ST_LAYERED_H
#define ST_LAYERED_H

#include "node.h"

/* One layer of a layered disk, and what it does beside holding sectors. */
struct st_layer {
    struct st_node *node;
    bool read_cache;    /* takes up what it missed */
    bool write_through; /* a write goes on to the next layer */
};

/* Make a node of N layers, top first: attach them from the bottom up, check
 * them against each other, derive the properties. LAYERS is borrowed; its nodes
 * are taken on success only (they may be attached all the same).
 *
 * The size is that of layer 0 at all times. A lower layer shows only what lay
 * within every layer above it ever since: what a shrink cut off never comes
 * back. A write past the end of a shorter write-through target stays above it.
 *
 * READ_ONLY: no guest writes. LABEL is copied. 0 or -errno with a sentence that
 * names the layer by its index: -EINVAL (spec 4.3), -ENOMEM, or what an attach
 * said. On HOME. */
int st_layered_create(struct st_loop *home, const struct st_layer *layers,
                      unsigned n, bool read_only, const char *label,
                      struct st_node **out, struct st_err *err);

#endif
