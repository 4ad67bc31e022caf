/* SPDX-License-Identifier: MIT
 *
 * Layers: marks, lookup and the two flags that a cache and a diff live by
 * (spec: layer contract). At the layer's own door; present is what `has` says.
 */
#include "kit_private.h"

#include <string.h>

enum { FIRST = 3, SECTORS = 40, SKEW = 5 };

/* Write every sector of FIRST.. whose bit is set in HAS. */
static void
populate(struct kit *k, uint64_t has)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        if (has >> i & 1)
            KIT_CHECK(
                k, kit_write(k, (FIRST + i) * k->sector, k->sector, 0) == ST_OK,
                "write");
    }
}

/* Read FIRST.. with marks, and compare with HAS, the model and a canary. */
static void
expect_present(struct kit *k, uint64_t has)
{
    struct kit_req *r =
        kit_req(k, ST_OP_READ, FIRST * k->sector, SECTORS * k->sector);
    uint64_t marks[2] = {0};

    memset(r->mem, 0xa5, r->req->len);
    r->req->flags = ST_REQ_MARK;
    r->req->marks = marks;
    r->req->mark_first = SKEW;
    KIT_CHECK(k, kit_run(r) == ST_OK, "read with marks");
    KIT_CHECK(k, marks[0] == has << SKEW && marks[1] == 0,
              "marks %#jx, not %#jx", (uintmax_t)marks[0],
              (uintmax_t)(has << SKEW));
    for (unsigned i = 0; i < SECTORS; i++) {
        const uint8_t *got = r->mem + i * k->sector;
        const uint8_t *want = k->model + (FIRST + i) * k->sector;

        if (has >> i & 1)
            KIT_CHECK(k, memcmp(got, want, k->sector) == 0, "wrong data in %u",
                      i);
        else
            KIT_CHECK(
                k, got[0] == 0xa5 && memcmp(got, got + 1, k->sector - 1) == 0,
                "absent sector %u was touched", i);
    }
    if (!k->node->ops->lookup)
        return;
    for (uint64_t i = 0, run; i < SECTORS; i += run / k->sector) {
        enum st_presence p = k->node->ops->lookup(
            k->chan, (FIRST + i) * k->sector, (SECTORS - i) * k->sector, &run);

        KIT_CHECK(
            k, run && run % k->sector == 0 && run <= (SECTORS - i) * k->sector,
            "lookup gives a run of %#jx", (uintmax_t)run);
        for (uint64_t j = i; j < i + run / k->sector; j++) {
            KIT_CHECK(k, (p != ST_ABSENT) == (has >> j & 1),
                      "lookup disagrees about sector %ju", (uintmax_t)j);
            KIT_CHECK(k,
                      p != ST_ZERO ||
                          st_mem_is_zero(k->model + (FIRST + j) * k->sector,
                                         k->sector),
                      "lookup calls sector %ju zero", (uintmax_t)j);
        }
    }
}

static const uint64_t some = UINT64_C(0x5a003ffe11) & ((UINT64_C(1) << 40) - 1);

static void
marks_are_exact(struct kit *k)
{
    expect_present(k, 0);
    populate(k, some);
    expect_present(k, some);
    kit_verify_at(k, 0, 64 * k->sector); /* absent reads as zero */
}

static void
no_overwrite_fills_gaps_only(struct kit *k)
{
    struct kit_req *r;

    if (!k->node->ops->no_overwrite) {
        kit_skip(k, "not offered");
        return;
    }
    populate(k, some);
    r = kit_req(k, ST_OP_WRITE, FIRST * k->sector, SECTORS * k->sector);
    kit_random(k, r->mem, r->req->len);
    r->req->flags = ST_REQ_NO_OVERWRITE;
    KIT_CHECK(k, kit_run(r) == ST_OK, "write");
    for (unsigned i = 0; i < SECTORS; i++) {
        if (!(some >> i & 1))
            memcpy(k->model + (FIRST + i) * k->sector, r->mem + i * k->sector,
                   k->sector);
    }
    expect_present(k, (UINT64_C(1) << SECTORS) - 1);
    kit_verify_at(k, 0, 64 * k->sector);
    KIT_CHECK(k,
              kit_op(k, ST_OP_WRITE, ST_REQ_NO_OVERWRITE, k->size, k->sector) ==
                  ST_RANGE,
              "past the end");
}

/* Does the layer store zeroes as absence? */
static bool
at_the_bottom(struct kit *k)
{
    struct kit_req *r = kit_req(k, ST_OP_READ, 0, k->sector);
    uint64_t mark = 0;

    if (!kit_performs(k, ST_OP_WRITE_ZEROES))
        return false;
    kit_op(k, ST_OP_WRITE_ZEROES, 0, 0, k->sector);
    r->req->flags = ST_REQ_MARK;
    r->req->marks = &mark;
    kit_run(r);
    return !mark;
}

static void
unmap_may_drop_over_zeroes(struct kit *k)
{
    const uint64_t hole = UINT64_C(0x3ff00);

    if (!kit_performs(k, ST_OP_UNMAP)) {
        kit_skip(k, "unmap not performed");
        return;
    }
    populate(k, (UINT64_C(1) << SECTORS) - 1);
    KIT_CHECK(k,
              kit_op(k, ST_OP_UNMAP, ST_REQ_NEXT_ZERO, (FIRST + 8) * k->sector,
                     10 * k->sector) == ST_OK,
              "unmap over zeroes");
    memset(k->model + (FIRST + 8) * k->sector, 0, 10 * k->sector);
    expect_present(k, ((UINT64_C(1) << SECTORS) - 1) & ~hole);
    kit_verify_at(k, 0, 64 * k->sector);

    /* At the bottom zeroes may be absence: nothing is below. */
    if (at_the_bottom(k))
        return;
    /* Over data that must not shine through: present, and zero if it says. */
    KIT_CHECK(k,
              kit_op(k, ST_OP_UNMAP, 0, (FIRST + 20) * k->sector,
                     4 * k->sector) == ST_OK,
              "unmap over data");
    if (k->node->props.unmap == ST_UNMAP_ZEROES)
        memset(k->model + (FIRST + 20) * k->sector, 0, 4 * k->sector);
    expect_present(k, ((UINT64_C(1) << SECTORS) - 1) & ~hole);
    for (unsigned flags = 0; flags <= ST_REQ_NEXT_ZERO;
         flags += ST_REQ_NEXT_ZERO)
        KIT_CHECK(k,
                  kit_op(k, ST_OP_UNMAP, flags, k->size, k->sector) == ST_RANGE,
                  "past the end");
}

const struct kit_check kit_layer[] = {
    {"marks_are_exact", KIT_LAYER | KIT_NODE | KIT_WRITABLE, marks_are_exact},
    {"no_overwrite_fills_gaps_only", KIT_LAYER | KIT_NODE | KIT_WRITABLE,
     no_overwrite_fills_gaps_only},
    {"unmap_may_drop_over_zeroes", KIT_LAYER | KIT_NODE | KIT_WRITABLE,
     unmap_may_drop_over_zeroes},
    {NULL, 0, NULL},
};
