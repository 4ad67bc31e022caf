/* SPDX-License-Identifier: MIT
 *
 * The edges: what does not fit, is not allowed, or is not performed gets its
 * own status, and nothing changes (spec: range validation, acceptance list 1).
 *
 *   0            count                 M = (2^63 - 1) >> shift       2^64
 *   |--- in -----|--- ST_RANGE, the node's --|--- ST_RANGE, the root's ---|
 */
#include "kit_private.h"

#include <string.h>

/* The operations with a range that K performs. */
#define EACH_RANGED(k, op)                                                     \
    for (enum st_op op = 0; op < ST_OP_COUNT; op++)                            \
        if ((ST_OPS_RANGED & ST_BIT(op)) && kit_performs(k, op))

/* Is ST_READ_ONLY as good an answer as ST_RANGE? */
static bool
refused_early(const struct kit *k, enum st_op op)
{
    return k->node->props.read_only && ST_OPS_MODIFY & ST_BIT(op);
}

static void
properties_are_sane(struct kit *k)
{
    const struct st_props *n = &k->node->props, *d = st_disk_props(k->disk);
    struct st_err err = {{0}};

    KIT_CHECK(k, st_node_check(k->node, &err) == 0, "%s", err.text);
    KIT_CHECK(k, n->sector_size == k->sector, "sectors of %u bytes",
              n->sector_size);
    KIT_CHECK(k, k->size && k->size % n->sector_size == 0, "%ju bytes",
              (uintmax_t)k->size);
    KIT_CHECK(k, st_node_depth(k->node) <= ST_DEPTH_MAX, "too deep");
    KIT_CHECK(k, st_disk_size(k->disk) == k->size, "the disk has another size");
    KIT_CHECK(k,
              d->sector_size == n->sector_size && d->unmap == n->unmap &&
                  d->physical_sector_size == n->physical_sector_size &&
                  d->read_only == n->read_only && d->has_id == n->has_id &&
                  d->outlives == n->outlives &&
                  memcmp(d->id, n->id, sizeof(d->id)) == 0,
              "the disk has other properties than its node");
    KIT_CHECK(k, d->performs & ST_BIT(ST_OP_READ), "no reads");
    KIT_CHECK(k,
              d->read_only || ((d->performs & ST_BIT(ST_OP_WRITE)) &&
                               (d->performs & ST_BIT(ST_OP_FLUSH))),
              "writable without writes or flushes");
}

/* The sector cases, through st_req_lba. */
static void
sector_cases_are_refused(struct kit *k)
{
    unsigned shift = (unsigned)__builtin_ctz(k->sector);
    uint64_t m = ST_OFFSET_MAX >> shift, count = k->size >> shift;
    const uint64_t cases[][2] = {
        {UINT64_MAX, 1}, {UINT64_MAX - 1, 2},
        {m, 1},          {m - 1, 2},
        {count, 1},      {count - 1, 2},
        {m - 1, 1},      {UINT64_C(1) << (64 - shift), 1}};

    EACH_RANGED(k, op)
    {
        for (unsigned i = 0; i < 8; i++) {
            struct kit_req *r = kit_req(k, op, 0, 2 * k->sector);
            enum st_status s =
                st_req_lba(r->req, cases[i][0], cases[i][1], shift);

            KIT_CHECK(k, s == ST_OK || s == ST_RANGE, "st_req_lba: %s",
                      st_status_name(s));
            KIT_CHECK(k, (s == ST_OK) == (i >= 4 && i < 7),
                      "st_req_lba case %u: %s", i, st_status_name(s));
            if (s == ST_OK)
                s = kit_run(r);
            KIT_CHECK(
                k, s == ST_RANGE || (s == ST_READ_ONLY && refused_early(k, op)),
                "operation %u of sector %#jx: %s", op, (uintmax_t)cases[i][0],
                st_status_name(s));
        }
    }
    kit_verify(k);
}

/* Bytes: where a sum wraps, where a shift would. */
static void
unrepresentable_bytes_are_refused(struct kit *k)
{
    const uint64_t top = ST_OFFSET_MAX + 1;
    const uint64_t cases[][2] = {{UINT64_MAX, 1},
                                 {UINT64_MAX - 511, 512},
                                 {top, k->sector},
                                 {top - k->sector, k->sector},
                                 {UINT64_MAX, 0},
                                 {1, UINT64_MAX},
                                 {0, UINT64_MAX},
                                 {0, top},
                                 {k->size, 1},
                                 {k->size - 1, 2},
                                 {k->size + 1, 0},
                                 {1, k->size},
                                 {UINT64_MAX - 4095, 8192}};

    EACH_RANGED(k, op)
    {
        for (unsigned i = 0; i < 13; i++) {
            enum st_status s = kit_op(k, op, 0, cases[i][0], cases[i][1]);

            KIT_CHECK(
                k, s == ST_RANGE || (s == ST_READ_ONLY && refused_early(k, op)),
                "operation %u of %#jx+%#jx: %s", op, (uintmax_t)cases[i][0],
                (uintmax_t)cases[i][1], st_status_name(s));
        }
    }
    kit_verify(k);
}

/* What the root lets pass, the node must refuse. */
static void
node_refuses_past_its_end(struct kit *k)
{
    const uint64_t sector = k->sector;
    const uint64_t m = (ST_OFFSET_MAX & ~(sector - 1));
    const uint64_t cases[][2] = {{k->size, sector},
                                 {k->size - sector, 2 * sector},
                                 {m - sector, sector},
                                 {UINT64_C(1) << 55, sector}};

    EACH_RANGED(k, op)
    {
        if (refused_early(k, op))
            continue;
        for (unsigned i = 0; i < 4; i++) {
            enum st_status s = kit_op(k, op, 0, cases[i][0], cases[i][1]);

            KIT_CHECK(k, s == ST_RANGE, "operation %u of %#jx+%#jx: %s", op,
                      (uintmax_t)cases[i][0], (uintmax_t)cases[i][1],
                      st_status_name(s));
        }
    }
}

static void
node_refuses_what_it_does_not_perform(struct kit *k)
{
    for (enum st_op op = 0; op < ST_OP_COUNT; op++) {
        enum st_status s;

        if (kit_performs(k, op) || refused_early(k, op))
            continue;
        s = kit_op(k, op, 0, 0, ST_OPS_RANGED & ST_BIT(op) ? k->sector : 0);
        KIT_CHECK(k, s == ST_UNSUPPORTED, "operation %u: %s", op,
                  st_status_name(s));
    }
}

static void
last_sector_works(struct kit *k)
{
    uint64_t last = k->size - k->sector;

    EACH_RANGED(k, op)
    {
        enum st_status s;

        if (refused_early(k, op) || op == ST_OP_COMPARE_AND_WRITE)
            continue;
        s = kit_op(k, op, 0, last, k->sector);
        KIT_CHECK(k, s == ST_OK, "operation %u: %s", op, st_status_name(s));
    }
    if (k->node->props.read_only)
        return;
    KIT_CHECK(k, kit_write(k, last, k->sector, 0) == ST_OK, "write");
    KIT_CHECK(k, kit_write(k, k->size - 1, 1, 0) == ST_OK, "last byte");
    kit_verify_at(k, last, k->sector);
}

static void
nothing_succeeds_inside(struct kit *k)
{
    EACH_RANGED(k, op)
    {
        if (refused_early(k, op) || op == ST_OP_BLOCK_STATUS)
            continue;
        for (unsigned i = 0; i < 4; i++) {
            const uint64_t at[] = {0, k->size, k->size - 1, k->size + 1};
            enum st_status s = kit_op(k, op, 0, at[i], 0);

            KIT_CHECK(k, s == (i < 3 ? ST_OK : ST_RANGE),
                      "operation %u of nothing at %#jx: %s", op,
                      (uintmax_t)at[i], st_status_name(s));
        }
    }
    kit_verify(k);
}

/* A second disk above the same node would be two owners; so the disk of this
 * check is made anew, read-only. */
static void
read_only_disk_refuses_changes(struct kit *k)
{
    struct st_err err = {{0}};
    int rc;

    st_chan_close(k->chan);
    k->chan = NULL;
    rc = st_disk_create(k->loop, k->node, "kit", true, &k->disk, &err);
    KIT_CHECK(k, rc == 0, "st_disk_create: %s", err.text);
    rc = st_disk_open_chan(k->disk, k->loop, &k->chan);
    KIT_CHECK(k, rc == 0, "st_disk_open_chan: %s", st_strerror(rc));
    KIT_CHECK(k, st_disk_props(k->disk)->read_only, "not said to be");
    for (enum st_op op = 0; op < ST_OP_COUNT; op++) {
        enum st_status s;

        if (!(ST_OPS_MODIFY & ST_BIT(op)))
            continue;
        s = kit_op(k, op, 0, 0, k->sector);
        KIT_CHECK(k, s == ST_READ_ONLY, "operation %u: %s", op,
                  st_status_name(s));
    }
    KIT_CHECK(k, kit_op(k, ST_OP_READ, 0, 1, 600) == ST_OK, "cannot be read");
    KIT_CHECK(k, kit_op(k, ST_OP_FLUSH, 0, 0, 0) == ST_OK, "flush");
}

const struct kit_check kit_wall[] = {
    {"properties_are_sane", 0, properties_are_sane},
    {"sector_cases_are_refused", 0, sector_cases_are_refused},
    {"unrepresentable_bytes_are_refused", 0, unrepresentable_bytes_are_refused},
    {"node_refuses_past_its_end", KIT_NODE, node_refuses_past_its_end},
    {"node_refuses_what_it_does_not_perform", KIT_NODE,
     node_refuses_what_it_does_not_perform},
    {"last_sector_works", 0, last_sector_works},
    {"nothing_succeeds_inside", 0, nothing_succeeds_inside},
    {"read_only_disk_refuses_changes", KIT_NODE,
     read_only_disk_refuses_changes},
    {NULL, 0, NULL},
};
