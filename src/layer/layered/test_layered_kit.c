/* SPDX-License-Identifier: MIT
 *
 * Layered disks pass the conformance suite, in every shape.
 */
#include "test_layer.h"

#include "kit.h"
#include "testnode.h"

struct shape {
    const char *name;
    struct tl_opts top;
    bool bottom; /* a plain disk below */
    bool read_only_bottom;
    struct st_layer conf;
};

static const struct shape shapes[] = {
    {.name = "single", .top = {.lookup = true, .unmap = ST_UNMAP_ZEROES}},
    {.name = "diff",
     .top = {.lookup = true, .unmap = ST_UNMAP_ZEROES},
     .bottom = true,
     .read_only_bottom = true},
    {.name = "slow-diff",
     .top = {.async = true, .lacks = ST_BIT(ST_OP_WRITE_ZEROES)},
     .bottom = true,
     .read_only_bottom = true},
    {.name = "write-through-cache",
     .top = {.no_overwrite = true, .async = true, .unmap = ST_UNMAP_ZEROES},
     .bottom = true,
     .conf = {.read_cache = true, .write_through = true}},
};

static int
make_shape(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
           struct st_node **out, struct st_err *err)
{
    const struct shape *s = arg;
    struct st_testnode_opts o = {.size = size,
                                 .sector = sector,
                                 .unmap = ST_UNMAP_ZEROES,
                                 .read_only = s->read_only_bottom,
                                 .fua = true,
                                 .async = true};
    struct tl_opts top = s->top;
    struct st_layer layers[2] = {s->conf};
    int rc;

    top.sectors = s->bottom ? 0 : size / sector;
    top.sector = s->bottom ? 0 : sector;
    layers[0].node = &tl_new(loop, top)->base;
    if (s->bottom) {
        rc = st_testnode_create(loop, &o, &layers[1].node, err);
        assert_int_equal(rc, 0);
    }
    rc = st_layered_create(loop, layers, s->bottom ? 2 : 1, false, s->name, out,
                           err);
    if (rc < 0) {
        st_node_close(layers[0].node);
        st_node_close(layers[1].node);
    }
    return rc;
}

static void
hear_verdict(void *arg, const char *check, enum st_verdict v,
             const char *detail)
{
    if (v == ST_KIT_FAIL)
        print_error("%s: %s: %s\n", (const char *)arg, check, detail);
}

static void
every_shape_conforms(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
            struct shape shape = shapes[i];
            char name[40];
            unsigned ran;
            struct rig r;

            rig_open(&r, 1);
            snprintf(name, sizeof(name), "%s, %u", shape.name, sector);
            assert_int_equal(st_kit_run(&(struct st_kit){.name = shape.name,
                                                         .sector = sector,
                                                         .loop = r.loop,
                                                         .make = make_shape,
                                                         .arg = &shape,
                                                         .report = hear_verdict,
                                                         .report_arg = name},
                                        &ran),
                             0);
            assert_in_range(ran, 10, 1000);
            rig_close(&r);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_conforms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
