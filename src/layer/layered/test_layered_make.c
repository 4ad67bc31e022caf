/* SPDX-License-Identifier: MIT
 *
 * Layered disks: how they are made, what is refused, what they say of
 * themselves (spec: disk 4.3).
 */
#include "test_layer.h"

/* What comes of two or three layers; checks the sentence if it is refused. */
static void
expect_made(unsigned n, const struct tl_opts *opts, const struct st_layer *conf,
            bool read_only, int rc, const char *sentence)
{
    struct rig r;

    rig_open(&r, 1);
    assert_int_equal(rig_build(&r, n, opts, conf, read_only), rc);
    if (rc < 0)
        assert_non_null(strstr(r.err.text, sentence));
    rig_close(&r);
}

static void
no_layers_are_refused(void **state)
{
    struct st_node *node = NULL;
    struct st_err err;

    (void)state;
    assert_int_equal(st_layered_create(NULL, NULL, 0, false, "x", &node, &err),
                     -EINVAL);
    assert_string_equal(err.text, "no layers configured");
    assert_null(node);
}

static void
failed_attach_names_the_layer(void **state)
{
    (void)state;
    expect_made(2, (struct tl_opts[]){{.sectors = 8}, {.sectors = 0}}, NULL,
                false, -EINVAL, "layer 1: attach failed: empty disk");
}

static void
attach_goes_from_the_bottom_up(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r, 1);
    assert_int_equal(
        rig_build(&r, 3,
                  (struct tl_opts[]){{.lookup = true},
                                     {.lookup = true},
                                     {.sectors = 9, .sector = 4096}},
                  NULL, false),
        0);
    assert_int_equal(r.node->props.sector_size, 4096);
    assert_int_equal(r.node->props.physical_sector_size, 4096);
    assert_int_equal(st_node_size(r.node), 9 * 4096);
    rig_close(&r);
}

static void
cache_without_no_overwrite_is_refused(void **state)
{
    const struct st_layer conf[] = {{.read_cache = true}, {0}};

    (void)state;
    expect_made(2, (struct tl_opts[]){{.lookup = true}, {.sectors = 8}}, conf,
                true, -EINVAL, "layer 0: read caching not supported");
    expect_made(2, (struct tl_opts[]){{.no_overwrite = true}, {.sectors = 8}},
                conf, true, 0, NULL);
}

static void
disk_is_no_cache(void **state)
{
    (void)state;
    expect_made(
        2, (struct tl_opts[]){{.disk = true, .sectors = 8}, {.sectors = 8}},
        (struct st_layer[]){{.read_cache = true}, {0}}, true, -EINVAL,
        "layer 0: read caching not supported");
}

static void
odd_sector_size_is_refused(void **state)
{
    (void)state;
    expect_made(2,
                (struct tl_opts[]){{.sectors = 8, .sector = 512},
                                   {.sectors = 8, .sector = 520}},
                NULL, false, -EINVAL, "layer 1: invalid sector size 520");
    expect_made(1, (struct tl_opts[]){{.sectors = 8, .sector = 256}}, NULL,
                false, -EINVAL, "layer 0: invalid sector size 256");
}

static void
sector_size_mismatch_is_refused_both_ways(void **state)
{
    (void)state;
    expect_made(2,
                (struct tl_opts[]){{.sectors = 8, .sector = 512},
                                   {.sectors = 8, .sector = 4096}},
                NULL, false, -EINVAL,
                "layer 0: mismatched sector size (expected 4096, found 512)");
    expect_made(3,
                (struct tl_opts[]){{.sectors = 8, .sector = 512},
                                   {.sectors = 8, .sector = 4096},
                                   {.sectors = 8, .sector = 512}},
                NULL, false, -EINVAL,
                "layer 1: mismatched sector size (expected 512, found 4096)");
}

static void
bottom_up_checks_come_before_top_down_ones(void **state)
{
    (void)state;
    expect_made(2,
                (struct tl_opts[]){{.read_only = true, .sectors = 8},
                                   {.sectors = 8, .sector = 520}},
                NULL, false, -EINVAL, "layer 1: invalid sector size 520");
}

static void
written_layer_must_be_writable(void **state)
{
    const struct tl_opts top[] = {{.read_only = true}, {.sectors = 8}};
    const struct tl_opts below[] = {{.lookup = true},
                                    {.sectors = 8, .read_only = true}};
    const struct st_layer through[] = {{.write_through = true}, {0}};

    (void)state;
    expect_made(2, top, NULL, false, -EINVAL,
                "layer 0: read-only layer in a writable disk");
    expect_made(2, top, NULL, true, 0, NULL);
    expect_made(2, below, NULL, false, 0, NULL);
    expect_made(2, below, through, false, -EINVAL,
                "layer 1: read-only layer in a writable disk");
    expect_made(2, below, through, true, 0, NULL);
}

static void
write_through_needs_a_written_layer_and_one_below(void **state)
{
    const struct tl_opts o[] = {{.lookup = true}, {0}, {.sectors = 8}};

    (void)state;
    expect_made(3, o, (struct st_layer[]){{0}, {.write_through = true}, {0}},
                false, -EINVAL, "layer 1: nothing to write through");
    expect_made(3, o, (struct st_layer[]){{0}, {0}, {.write_through = true}},
                false, -EINVAL, "layer 2: nothing to write through");
    expect_made(1, o + 2, (struct st_layer[]){{.write_through = true}}, false,
                -EINVAL, "layer 0: nothing to write through");
    expect_made(3, o,
                (struct st_layer[]){
                    {.write_through = true}, {.write_through = true}, {0}},
                false, 0, NULL);
}

static void
demanding_alignment_is_refused_among_others(void **state)
{
    struct st_node *out;
    struct st_err err;
    struct rig r;

    (void)state;
    rig_open(&r, 1);
    for (unsigned n = 1; n <= 2; n++) {
        struct tl *top = tl_new(r.loop, (struct tl_opts){.sectors = 8});
        struct tl *low = tl_new(r.loop, (struct tl_opts){.sectors = 8});
        struct st_layer layers[] = {{.node = &top->base}, {.node = &low->base}};

        low->base.props.mem_align = 1024;
        if (n == 2) {
            assert_int_equal(
                st_layered_create(r.loop, layers, 2, false, "x", &out, &err),
                -EINVAL);
            assert_non_null(strstr(err.text, "layer 1: wants buffers aligned"));
            st_node_close(&top->base);
            st_node_close(&low->base);
        } else {
            assert_int_equal(st_layered_create(r.loop, layers + 1, 1, false,
                                               "x", &out, &err),
                             0);
            assert_int_equal(out->props.mem_align, 1024);
            st_node_close(out);
            st_node_close(&top->base);
        }
    }
    rig_close(&r);
}

/* Unmap of a disk with WRITTEN layers that behave so. */
static enum st_unmap
merged(unsigned written, enum st_unmap a, enum st_unmap b)
{
    struct tl_opts o[] = {{.unmap = a}, {.unmap = b, .sectors = 8}};
    struct st_layer conf[] = {{.write_through = written == 2}, {0}};
    enum st_unmap u;
    struct rig r;

    rig_open(&r, 1);
    assert_int_equal(rig_build(&r, 2, o, conf, false), 0);
    u = r.node->props.unmap;
    assert_int_equal(u == ST_UNMAP_IGNORED,
                     !(r.node->props.performs & ST_BIT(ST_OP_UNMAP)));
    assert_int_equal(r.node->props.unmap_granularity,
                     u == ST_UNMAP_IGNORED ? 0 : 512);
    rig_close(&r);
    return u;
}

static void
unmap_behaviour_is_merged_over_the_written_layers(void **state)
{
    (void)state;
    for (enum st_unmap a = 0; a <= ST_UNMAP_ZEROES; a++) {
        for (enum st_unmap b = 0; b <= ST_UNMAP_ZEROES; b++) {
            assert_int_equal(merged(1, a, b), a);
            assert_int_equal(merged(2, a, b),
                             a == ST_UNMAP_ZEROES && b == ST_UNMAP_ZEROES
                                 ? ST_UNMAP_ZEROES
                                 : ST_UNMAP_IGNORED);
        }
    }
}

static void
properties_are_derived_from_the_layers(void **state)
{
    struct st_node *out;
    struct st_err err;
    struct rig r;

    (void)state;
    rig_open(&r, 1);
    for (unsigned through = 0; through < 2; through++) {
        struct st_layer layers[3] = {0};
        struct tl *t[3];

        for (unsigned i = 0; i < 3; i++) {
            t[i] = tl_new(r.loop, (struct tl_opts){.sectors = 4 + i,
                                                   .unmap = ST_UNMAP_ZEROES});
            layers[i].node = &t[i]->base;
        }
        layers[0].write_through = through;
        t[0]->base.props.physical_sector_size = 4096;
        t[0]->base.props.mem_align = 4;
        t[1]->base.props.mem_align = 512;
        t[1]->base.props.fua = false;
        t[1]->base.props.performs &= ~ST_BIT(ST_OP_WRITE_ZEROES);
        t[1]->base.props.max_segments = 9;
        t[2]->base.props.max_segments = 7;
        t[1]->base.props.outlives = true;
        t[2]->base.props.rotational = true;
        t[2]->base.props.performs |= ST_BIT(ST_OP_EJECT);
        for (unsigned i = 1; i < 3; i++) {
            t[i]->base.props.has_id = true;
            t[i]->base.props.id[0] = (uint8_t)i;
        }
        assert_int_equal(
            st_layered_create(r.loop, layers, 3, false, "x", &out, &err), 0);
        assert_int_equal(st_node_size(out), 4 * 512);
        assert_int_equal(out->props.physical_sector_size, 4096);
        assert_int_equal(out->props.mem_align, 512);
        assert_int_equal(out->props.max_segments, 7);
        assert_true(out->props.rotational);
        assert_true(out->props.has_id);
        assert_int_equal(out->props.id[0], 1);
        assert_int_equal(out->props.fua, !through);
        assert_int_equal(out->props.outlives, through);
        assert_int_equal(out->props.performs,
                         ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_BLOCK_STATUS) |
                             ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_FLUSH) |
                             ST_BIT(ST_OP_UNMAP) | ST_BIT(ST_OP_EJECT) |
                             (through ? 0 : ST_BIT(ST_OP_WRITE_ZEROES)));
        st_node_close(out);
    }
    rig_close(&r);
}

static void
read_only_disk_performs_no_modification(void **state)
{
    char buf[520] = {0};
    struct rig r;

    (void)state;
    rig_open(&r, 1);
    assert_int_equal(rig_build(&r, 2,
                               (struct tl_opts[]){{.unmap = 2}, {.sectors = 8}},
                               NULL, true),
                     0);
    assert_true(r.node->props.read_only);
    assert_int_equal(r.node->props.performs & ST_OPS_MODIFY, 0);
    assert_int_equal(rig_run(&r, ST_OP_WRITE, buf + 8, 0, 512, 0),
                     ST_UNSUPPORTED);
    assert_int_equal(st_node_resize(r.node, 512, &r.err), -EROFS);
    assert_int_equal(r.l[0]->count[ST_OP_WRITE], 0);
    rig_close(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_layers_are_refused),
        cmocka_unit_test(failed_attach_names_the_layer),
        cmocka_unit_test(attach_goes_from_the_bottom_up),
        cmocka_unit_test(cache_without_no_overwrite_is_refused),
        cmocka_unit_test(disk_is_no_cache),
        cmocka_unit_test(odd_sector_size_is_refused),
        cmocka_unit_test(sector_size_mismatch_is_refused_both_ways),
        cmocka_unit_test(bottom_up_checks_come_before_top_down_ones),
        cmocka_unit_test(written_layer_must_be_writable),
        cmocka_unit_test(write_through_needs_a_written_layer_and_one_below),
        cmocka_unit_test(demanding_alignment_is_refused_among_others),
        cmocka_unit_test(unmap_behaviour_is_merged_over_the_written_layers),
        cmocka_unit_test(properties_are_derived_from_the_layers),
        cmocka_unit_test(read_only_disk_performs_no_modification),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
