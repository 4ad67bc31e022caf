/* SPDX-License-Identifier: MIT
 *
 * Block devices as disks, on loop devices: limits, the contract, zeroes and
 * discard, errors, claims. (Sizes and messages: test_block_size.c.) On every
 * engine.
 */
#include <linux/fs.h>

#include "test_device.h"

/* ---- Properties ---- */

static void
a_device_has_its_own_limits(void **state)
{
    struct world *w = *state;
    const struct st_props *p;
    struct st_err err;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    p = &w->node->props;
    assert_string_equal(w->node->ops->name, "block");
    assert_int_equal(st_disk_size(w->disk), MIB);
    assert_int_equal(p->sector_size, 512);
    assert_int_equal(p->mem_align, 1);
    assert_int_equal(p->unmap, ST_UNMAP_UNSPECIFIED);
    assert_true(p->unmap_granularity >= 512);
    assert_true(p->fua && p->fast_zero && !p->read_only);
    assert_false(p->performs & ST_BIT(ST_OP_BLOCK_STATUS));
    leave(w);
    use_device(w, (struct st_file_opts){.direct = true, .sector_size = 4096});
    assert_int_equal(w->node->props.sector_size, 4096);
    assert_int_equal(w->node->props.mem_align, 512);
    leave(w);
    use_device(w, (struct st_file_opts){.read_only = true});
    assert_true(w->node->props.read_only);
    assert_int_equal(w->node->props.performs & ST_OPS_MODIFY, 0);
    detach(w);

    attach(w, MIB + 512, 4096); /* the last sector is not whole */
    use_device(w, (struct st_file_opts){0});
    assert_int_equal(w->node->props.sector_size, 4096);
    assert_int_equal(w->node->props.physical_sector_size, 4096);
    assert_int_equal(st_disk_size(w->disk), MIB);
    leave(w);
    assert_int_equal(
        try_device(w, (struct st_file_opts){.sector_size = 512}, &err),
        -EINVAL);
    says(&err, "has sectors of 4096 bytes, 512 are too small");
    detach(w);

    attach(w, MIB + 512, 512);
    assert_int_equal(
        try_device(w, (struct st_file_opts){.sector_size = 4096}, &err),
        -EINVAL);
    says(&err, "invalid disk size: 1049088 bytes are not a multiple");
    assert_int_equal(
        try_device(w, (struct st_file_opts){.create = true, .create_size = MIB},
                   &err),
        -EEXIST);
    assert_int_equal(access(w->device, F_OK), 0);
}

struct seen {
    struct st_inspect v;
    char text[512];
};

static void
see_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%llu ", name,
             (unsigned long long)value);
}

static void
see_text(struct st_inspect *v, const char *name, const char *value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%s ", name, value);
}

static void
inspect_says_which_device(void **state)
{
    struct world *w = *state;
    struct seen s = {{.u64 = see_u64, .text = see_text}, ""};
    char want[160];

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    w->node->ops->inspect(w->node, &s.v);
    snprintf(want, sizeof(want),
             "file=%s size=1048576 direct=0 lock=writer device=7:%s ",
             w->device, w->device + strlen("/dev/loop"));
    assert_memory_equal(s.text, want, strlen(want));
    assert_non_null(strstr(s.text, "discards=1 removed=0 "));
}

/* ---- The contract ---- */

struct kit_device {
    struct world *w;
    bool direct;
};

static int
kit_make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
         struct st_node **out, struct st_err *err)
{
    struct kit_device *k = arg;
    struct st_file_opts o = {
        .path = k->w->device, .direct = k->direct, .sector_size = sector};
    uint64_t all[2] = {0, size};

    if (ioctl(k->w->device_fd, BLKZEROOUT, all) < 0)
        return -errno;
    return st_file_open(loop, &o, out, err);
}

static void
keep_the_contract(struct world *w, uint32_t sector, bool direct)
{
    struct kit_device k = {w, direct};
    struct st_kit kit = {
        .name = direct ? "block;direct" : "block",
        .loop = w->loop,
        .make = kit_make,
        .arg = &k,
    };
    unsigned ran;

    attach(w, MIB + 3 * 4096, sector);
    for (kit.sector = sector; kit.sector <= 4096; kit.sector *= 8) {
        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 20);
    }
    detach(w);
}

static void
the_contract_is_kept(void **state)
{
    keep_the_contract(*state, 512, false);
    keep_the_contract(*state, 4096, false);
}

static void
the_contract_is_kept_by_direct_io(void **state)
{
    keep_the_contract(*state, 512, true);
    keep_the_contract(*state, 4096, true);
}

/* ---- Zeroes and discard ---- */

static void
fill_device(struct world *w, uint64_t size)
{
    uint8_t *mem = malloc(MIB);

    assert_non_null(mem);
    memset(mem, 0x5a, MIB);
    for (uint64_t at = 0; at < size; at += MIB)
        assert_int_equal(st_sync_write(w->sync, mem, at, MIB, 0), ST_OK);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
    free(mem);
}

static void
unmap_frees_what_lies_below(void **state)
{
    struct world *w = *state;
    struct st_req *r;

    attach(w, 16 * MIB, 512);
    use_device(w, (struct st_file_opts){0});
    fill_device(w, 8 * MIB);
    assert_true(allocated(w) >= 8 * MIB);
    assert_int_equal(st_sync_unmap(w->sync, 0, 4 * MIB), ST_OK);
    assert_in_range(allocated(w), 4 * MIB, 5 * MIB);
    r = st_sync_req(w->sync);
    r->op = ST_OP_UNMAP;
    r->flags = ST_REQ_FUA;
    r->offset = 4 * MIB;
    r->len = 12 * MIB;
    assert_int_equal(st_sync_run(w->sync), ST_OK);
    assert_in_range(allocated(w), 0, MIB);
    assert_int_equal(st_sync_unmap(w->sync, 16 * MIB, 0), ST_OK);
    assert_int_equal(st_sync_unmap(w->sync, 16 * MIB - 512, 1024), ST_RANGE);
}

/* More than one slice; and a neighbour is served between them. */
static void
a_long_unmap_goes_in_slices(void **state)
{
    const uint64_t size = UINT64_C(5) << 30;
    struct world *w = *state;
    struct st_req *unmap, *read;
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct door d;

    attach(w, size, 512);
    use_device(w, (struct st_file_opts){0});
    fill_device(w, MIB);
    assert_int_equal(st_sync_write(w->sync, buf, size - 512, 512, 0), ST_OK);
    door_open(w, &d);
    unmap = door_start(&d, ST_OP_UNMAP, 0, size, NULL, 0, 0);
    read = door_start(&d, ST_OP_READ, size - MIB, 512, &iov, 0, 0);
    assert_true(st_loop_wait(w->loop, &d.done));
    assert_int_equal(unmap->status, ST_OK);
    assert_int_equal(read->status, ST_OK);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
    assert_in_range(allocated(w), 0, MIB - 1);

    /* One that is cancelled ends between two slices. */
    free(unmap);
    unmap = door_start(&d, ST_OP_UNMAP, 0, size, NULL, 0, 0);
    st_cancel(unmap);
    assert_int_equal(door_end(&d, unmap), ST_ABORTED);
    free(read);
    st_chan_close(d.chan);
}

static void
a_device_that_does_not_discard_after_all(void **state)
{
    struct world *w = *state;
    uint8_t buf[512], got[512];
    struct file_node *f;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    f = (struct file_node *)w->node;
    memset(buf, 0x31, sizeof(buf));
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_OK);
    /* /dev/null answers BLKDISCARD with ENOTTY. */
    {
        int real = f->fd;
        st_autoclose int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        f->fd = null;
        assert_int_equal(block_unmap(f, 0, 512), 0);
        f->fd = real;
    }
    assert_true(atomic_load(&f->block.no_discard));
    assert_int_equal(st_sync_unmap(w->sync, 0, MIB), ST_OK);
    assert_int_equal(st_sync_read(w->sync, got, 0, 512), ST_OK);
    assert_memory_equal(got, buf, 512);
}

static void
zeroes_are_zeroes(void **state)
{
    struct world *w = *state;
    uint8_t *got = malloc(MIB);

    assert_non_null(got);
    for (unsigned direct = 0; direct < 2; direct++) {
        attach(w, 8 * MIB, 512);
        use_device(w, (struct st_file_opts){.direct = direct});
        fill_device(w, 8 * MIB);
        assert_int_equal(st_sync_zero(w->sync, 0, 2 * MIB, ST_REQ_MAY_UNMAP),
                         ST_OK);
        assert_in_range(allocated(w), 6 * MIB, 7 * MIB);
        assert_int_equal(st_sync_zero(w->sync, 2 * MIB, MIB, ST_REQ_FUA),
                         ST_OK);
        assert_int_equal(
            st_sync_zero(w->sync, 3 * MIB, MIB, ST_REQ_FAST | ST_REQ_MAY_UNMAP),
            ST_OK);
        for (uint64_t at = 0; at < 4 * MIB; at += MIB) {
            assert_int_equal(st_sync_read(w->sync, got, at, MIB), ST_OK);
            assert_true(st_mem_is_zero(got, MIB));
        }
        assert_int_equal(st_sync_read(w->sync, got, 4 * MIB, 512), ST_OK);
        assert_int_equal(got[0], 0x5a);
        detach(w);
    }
    free(got);
}

/* The kernel would write them: not fast, and never said to be. */
static void
zeroes_without_help_of_the_device(void **state)
{
    struct world *w = *state;
    struct file_node *f;
    uint8_t got[8192];

    attach(w, 8 * MIB, 512);
    use_device(w, (struct st_file_opts){0});
    fill_device(w, 8 * MIB);
    f = (struct file_node *)w->node;
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 1);
    assert_int_equal(st_sync_zero(w->sync, 0, MIB, ST_REQ_MAY_UNMAP), ST_OK);
    assert_true(atomic_load(&f->no_punch));
    assert_false(atomic_load(&f->no_zero_range));
    assert_int_equal(st_sync_zero(w->sync, MIB, MIB, ST_REQ_FAST),
                     ST_UNSUPPORTED);
    assert_int_equal(st_sync_read(w->sync, got, MIB, 512), ST_OK);
    assert_int_equal(got[0], 0x5a);
    st_inject_clear(w->inject);
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 0);
    assert_int_equal(st_sync_zero(w->sync, MIB, MIB, ST_REQ_MAY_UNMAP), ST_OK);
    st_inject_clear(w->inject);
    for (uint64_t at = 0; at < 2 * MIB; at += sizeof(got)) {
        assert_int_equal(st_sync_read(w->sync, got, at, sizeof(got)), ST_OK);
        assert_true(st_mem_is_zero(got, sizeof(got)));
    }
}

/* ---- Errors ---- */

static void
what_the_device_cannot_read_is_an_error(void **state)
{
    struct world *w = *state;
    uint8_t *buf = calloc(1, MIB);

    assert_non_null(buf);
    for (unsigned direct = 0; direct < 2; direct++) {
        attach(w, 4 * MIB, 512);
        use_device(w, (struct st_file_opts){.direct = direct});
        assert_int_equal(truncate(w->path, MIB), 0);
        assert_int_equal(st_sync_read(w->sync, buf, 2 * MIB, MIB), ST_IO);
        assert_int_equal(st_sync_read(w->sync, buf, MIB - 512, 1024), ST_IO);
        assert_int_equal(st_sync_read(w->sync, buf, 0, MIB), ST_OK);
        assert_int_equal(st_disk_size(w->disk),
                         4 * MIB); /* it has not shrunk */
        detach(w);
    }
    free(buf);
}

static void
each_errno_of_a_device_has_its_class(void **state)
{
    static const struct {
        int errnum;
        enum st_status read, write;
    } table[] = {
        {EIO, ST_IO, ST_IO},
        {ENODEV, ST_IO, ST_IO},
        {ENXIO, ST_IO, ST_IO},
        {EREMOTEIO, ST_IO, ST_IO},
        {ETIMEDOUT, ST_IO, ST_IO},
        {ENOLINK, ST_IO, ST_IO},
        {ENOSPC, ST_NO_SPACE, ST_NO_SPACE},
        {EBADE, ST_CONFLICT, ST_CONFLICT},
        {ENODATA, ST_MEDIUM_READ, ST_MEDIUM_WRITE},
        {EILSEQ, ST_GUARD, ST_GUARD},
        {EROFS, ST_IO, ST_READ_ONLY},
        {EPERM, ST_IO, ST_READ_ONLY},
        {EFAULT, ST_MEMORY, ST_MEMORY},
    };
    struct world *w = *state;
    uint8_t buf[512] = {0};

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        inject(w, ST_IO_READ, ST_INJECT_ERROR, (uint64_t)table[i].errnum, 1);
        inject(w, ST_IO_WRITE, ST_INJECT_ERROR, (uint64_t)table[i].errnum, 1);
        assert_int_equal(st_sync_read(w->sync, buf, 0, 512), table[i].read);
        assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0),
                         table[i].write);
        st_inject_clear(w->inject);
    }
    assert_int_equal(st_disk_size(w->disk), MIB);
}

/* ---- Claims ---- */

static void
a_writer_has_the_device_alone(void **state)
{
    struct world *w = *state;
    struct st_file_opts ro = {.read_only = true};
    st_autoclose int claim = -1;
    struct st_err err;
    struct st_node *n;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), -EBUSY);
    says(&err, "in use: mounted, part of another device, or open for writing");
    assert_int_equal(try_device(w, ro, &err), -EBUSY);
    says(&err, "in use by another process (");
    assert_int_equal(open(w->device, O_RDONLY | O_EXCL | O_CLOEXEC), -1);
    leave(w);

    claim = open(w->device, O_RDONLY | O_EXCL | O_CLOEXEC); /* like a mount */
    assert_true(claim >= 0);
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), -EBUSY);
    assert_int_equal(try_device(w, ro, &err), 0);
    close(claim);
    claim = -1;

    ro.path = w->device;
    assert_int_equal(try_open(w, ro, &n, &err), 0);
    assert_int_equal(try_device(w, ro, &err), 0); /* readers share */
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), -EBUSY);
    says(&err, "in use by another process (");
    st_node_close(n);
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), 0);
}

static void
a_read_only_device_is_not_opened_for_writing(void **state)
{
    struct world *w = *state;
    struct st_err err;
    uint8_t buf[512];
    int rc;

    attach_as(w, MIB, 512, LO_FLAGS_READ_ONLY);
    rc = try_device(w, (struct st_file_opts){0}, &err);
    assert_true(rc == -EROFS || rc == -EACCES || rc == -EPERM);
    assert_memory_equal(err.text, w->device, strlen(w->device));
    use_device(w, (struct st_file_opts){.read_only = true});
    assert_int_equal(st_sync_read(w->sync, buf, 0, 512), ST_OK);
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_READ_ONLY);
}

static const struct CMUnitTest tests[] = {
    D(a_device_has_its_own_limits),
    D(inspect_says_which_device),
    D(the_contract_is_kept),
    D(the_contract_is_kept_by_direct_io),
    D(unmap_frees_what_lies_below),
    D(a_long_unmap_goes_in_slices),
    D(a_device_that_does_not_discard_after_all),
    D(zeroes_are_zeroes),
    D(zeroes_without_help_of_the_device),
    D(what_the_device_cannot_read_is_an_error),
    D(each_errno_of_a_device_has_its_class),
    D(a_writer_has_the_device_alone),
    D(a_read_only_device_is_not_opened_for_writing),
};

int
main(void)
{
    return run_on_loop_devices(tests, sizeof(tests) / sizeof(tests[0]));
}
