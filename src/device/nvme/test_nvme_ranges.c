/* SPDX-License-Identifier: MIT
 *
 * The NVM command set, what goes in slices: write zeroes, verify, dataset
 * management, copy, erasing; the pool of buffers; giving up at every step.
 */
#include "test_nvme_io.h"

enum {
    BLOCKS = 48 << 11, /* 48 MiB of 512 bytes */
    MIB = 1 << 11,     /* blocks */
    DEALLOCATE = 4,
};

static const struct st_testnode_opts plain = {.size = (uint64_t)BLOCKS * 512,
                                              .fua = true,
                                              .fast_zero = true,
                                              .unmap = ST_UNMAP_ZEROES,
                                              .strict = true};

static int
setup(void **state)
{
    (void)state;
    rig_make(&plain, 1);
    return 0;
}

static int
setup_async(void **state)
{
    struct st_testnode_opts o = plain;

    (void)state;
    o.async = true;
    rig_make(&o, 3);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    rig_free();
    return 0;
}

static bool
zero(uint64_t lba, uint64_t n)
{
    return st_mem_is_zero(disk_at(lba), n << rig.shift);
}

static uint64_t
asked(enum st_op op)
{
    return st_testnode_count(rig.node[0], op);
}

/* ---- Write Zeroes ---- */

static void
zeroes_are_written_there_and_nowhere_else(void **state)
{
    uint32_t sizes[] = {1, 7, 4096, 65535, 65536};

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t n = sizes[i];
        uint64_t lba = 1 + st_rand_below(&rig.rand, BLOCKS - n - 1);
        uint64_t before = asked(ST_OP_WRITE_ZEROES);

        memset(disk_at(lba - 1), 0x77, (size_t)(n + 2) << rig.shift);
        assert_int_equal(run(blocks(0, NVME_WRITE_ZEROES, lba, n)), NVME_OK);
        assert_true(zero(lba, n));
        assert_int_equal(disk_at(lba)[-1], 0x77);
        assert_int_equal(disk_at(lba + n)[0], 0x77);
        /* In slices that end at multiples of theirs. */
        assert_int_equal(asked(ST_OP_WRITE_ZEROES) - before,
                         ((lba + n - 1) << rig.shift) / NVME_SLICE -
                             (lba << rig.shift) / NVME_SLICE + 1);
    }
}

static void
zeroes_have_a_limit(void **state)
{
    struct st_testnode_opts o = {.size = 1 << 20, .sector = 8192};

    (void)state;
    rig_make(&o, 1);
    assert_int_equal(run(blocks(0, NVME_WRITE_ZEROES, 0, 32769)),
                     DNR(NVME_INVALID_FIELD));
    assert_int_equal(run(blocks(0, NVME_WRITE_ZEROES, 0, 32768)),
                     DNR(NVME_LBA_OUT_OF_RANGE));
    assert_int_equal(run(blocks(0, NVME_VERIFY, 0, 32769)),
                     DNR(NVME_INVALID_FIELD));
    assert_int_equal(run(blocks(0, NVME_VERIFY, 0, 32768)),
                     DNR(NVME_LBA_OUT_OF_RANGE));
    rig_free();
}

/* What a layer below the wall is asked to do. */
static struct {
    void (*submit)(struct st_chan *c, struct st_req *req);
    unsigned n, flags[64];
    uint64_t offset[64], len[64];
    unsigned ops[64];
} spied;

static void
spy(struct st_chan *c, struct st_req *req)
{
    if (spied.n < 64) {
        spied.ops[spied.n] = req->op;
        spied.flags[spied.n] = req->flags;
        spied.offset[spied.n] = req->offset;
        spied.len[spied.n] = req->len;
    }
    spied.n++;
    spied.submit(c, req);
}

static void
spy_on_namespace_1(void)
{
    struct nvme_door *door = rig_open(&rig.io, 1);

    rig_close(&rig.io, door);
    spied.submit = door->chan->submit;
    spied.n = 0;
    door->chan->submit = spy;
}

static void
zeroes_may_leave_holes_if_the_guest_says_so(void **state)
{
    struct slot *s = blocks(0, NVME_WRITE_ZEROES, 5, 65536);

    (void)state;
    spy_on_namespace_1();
    assert_int_equal(run(s), NVME_OK);
    s->c.sqe.cdw12 = le32_of(65535 | NVME_RW_DEAC);
    assert_int_equal(run(s), NVME_OK);
    s->c.sqe.cdw12 = le32_of(65535 | NVME_RW_FUA);
    assert_int_equal(run(s), NVME_OK);
    s->c.sqe.cdw12 = le32_of(65535 | NVME_RW_DEAC | NVME_RW_FUA);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(spied.n, 12);
    for (unsigned i = 0; i < 12; i++) {
        unsigned want[] = {0, ST_REQ_MAY_UNMAP, ST_REQ_FUA,
                           ST_REQ_MAY_UNMAP | ST_REQ_FUA};

        assert_int_equal(spied.ops[i], ST_OP_WRITE_ZEROES);
        assert_int_equal(spied.flags[i], want[i / 3]);
    }
}

/* ---- Verify ---- */

static void
verify_reads_all_of_it(void **state)
{
    struct slot *s = blocks(0, NVME_VERIFY, 3, 65536);
    uint64_t pieces = (65536ull << 9) / NVME_BUFFER;

    (void)state;
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(asked(ST_OP_READ), pieces);
    assert_int_equal(rig.io.read_blocks, 65536);
    /* Each of the pieces may fail. */
    for (unsigned i = 0; i < 8; i++) {
        uint64_t lba = 1000 + i, seen = asked(ST_OP_READ);

        s = blocks(0, NVME_VERIFY, lba, 8 * NVME_BUFFER >> 9);
        go(s);
        while (asked(ST_OP_READ) < seen + i)
            st_domain_step(rig.d);
        st_testnode_fail(rig.node[0], ST_BIT(ST_OP_READ), ST_MEDIUM_READ, 1);
        assert_int_equal(wait_for(s), NVME_UNRECOVERED_READ);
        assert_true(s->c.error_lba >= lba + i * (NVME_BUFFER >> 9));
        assert_int_equal((s->c.error_lba - lba) % (NVME_BUFFER >> 9), 0);
        assert_int_equal(rig.io.media_errors, i + 1);
    }
    assert_int_equal(rig.io.reads, 1);
}

/* ---- Dataset Management ---- */

/* Set range I of S's list. */
static void
dsm_range(struct slot *s, unsigned i, uint64_t lba, uint32_t n)
{
    le32 raw[4] = {le32_of(0xabcdef01), le32_of(n), le32_of((uint32_t)lba),
                   le32_of((uint32_t)(lba >> 32))};

    memcpy(s->mem + 16 * i, raw, 16);
}

static struct slot *
dsm(unsigned n)
{
    struct slot *s = cmd(0, NVME_DSM, 1);

    s->c.sqe.cdw10 = le32_of(n - 1);
    s->c.sqe.cdw11 = le32_of(DEALLOCATE);
    set_data(s, 0, 16 * n);
    return s;
}

static void
ranges_are_deallocated(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 256; n += n < 4 ? 1 : 63) {
        struct slot *s = dsm(n);

        memset(disk_at(0), 0x55, 1024 << 9);
        for (unsigned i = 0; i < n; i++)
            dsm_range(s, i, 3 + 4 * i, i % 3); /* a third has none */
        assert_int_equal(run(s), NVME_OK);
        for (unsigned i = 0; i < 1024; i++) {
            bool gone =
                i >= 3 && (i - 3) / 4 < n && (i - 3) % 4 < (i - 3) / 4 % 3;

            assert_int_equal(disk_at(i)[0], gone ? 0 : 0x55);
            assert_int_equal(disk_at(i)[511], gone ? 0 : 0x55);
        }
        for (unsigned i = 0; i < 256 * 16; i++)
            s->mem[i] = 0;
    }
}

static void
neighbours_are_joined_and_long_ranges_cut(void **state)
{
    struct slot *s = dsm(5);

    (void)state;
    memset(disk_at(0), 0x55, 48 << 20);
    dsm_range(s, 0, 100, 10);
    dsm_range(s, 1, 110, 20);
    dsm_range(s, 2, 0, 0); /* nothing, in between */
    dsm_range(s, 3, 130, 40 * MIB);
    dsm_range(s, 4, 50, 5); /* before it: another one */
    assert_int_equal(run(s), NVME_OK);
    assert_true(zero(100, 30 + 40 * MIB));
    assert_true(zero(50, 5));
    assert_int_equal(disk_at(100)[-1], 0x55);
    assert_int_equal(disk_at(130 + 40 * MIB)[0], 0x55);
    /* 16 MiB slices: 3 for 40 MiB and a bit, and the other. */
    assert_int_equal(asked(ST_OP_UNMAP), 4);
}

static void
no_range_is_touched_before_all_are_checked(void **state)
{
    static const struct {
        uint64_t lba;
        uint32_t n;
    } bad[] = {{BLOCKS, 1},
               {BLOCKS - 1, 2},
               {0, UINT32_MAX},
               {UINT64_MAX, 1},
               {1ull << 63, 1},
               {1ull << 55, 1},
               {UINT64_MAX, UINT32_MAX}};

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct slot *s = dsm(3);

        dsm_range(s, 0, 0, 8);
        dsm_range(s, 1, 16, 8);
        dsm_range(s, 2, bad[i].lba, bad[i].n);
        assert_int_equal(run(s), DNR(NVME_LBA_OUT_OF_RANGE));
        assert_true(s->c.error_lba == bad[i].lba);
        s = dsm(3); /* a hint, too */
        s->c.sqe.cdw11 = le32_of(3);
        assert_int_equal(run(s), DNR(NVME_LBA_OUT_OF_RANGE));
    }
    assert_int_equal(asked(ST_OP_UNMAP), 0);
}

static void
hints_deallocate_nothing(void **state)
{
    struct slot *s = dsm(1);

    (void)state;
    s->c.sqe.cdw11 = le32_of(~(unsigned)DEALLOCATE);
    dsm_range(s, 0, 0, 8);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(asked(ST_OP_UNMAP), 0);
    /* Nor does a list without blocks. */
    s = dsm(1);
    dsm_range(s, 0, 0, 0);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(asked(ST_OP_UNMAP), 0);
    s = dsm(1);
    s->c.sqe.prp1 = le64_of(0);
    assert_int_equal(run(s), DNR(NVME_DATA_TRANSFER_ERROR));
    /* What fails says where. */
    s = dsm(2);
    dsm_range(s, 0, 0, 8);
    dsm_range(s, 1, 16, 8);
    go(s);
    while (asked(ST_OP_UNMAP) < 1)
        st_domain_step(rig.d);
    st_testnode_fail(rig.node[0], ST_BIT(ST_OP_UNMAP), ST_IO, 1);
    assert_int_equal(wait_for(s), NVME_INTERNAL_ERROR);
    assert_int_equal(s->c.error_lba, 16);
}

/* A disk with blocks of 24 MiB: a slice never ends inside one. */
static void
slices_end_where_the_disks_blocks_do(void **state)
{
    struct st_props *p = &rig.node[0]->props;
    struct slot *s;

    (void)state;
    st_disk_destroy(rig.ns[0].disk); /* and make it anew, with that */
    rig.node[0] = NULL;
    assert_int_equal(st_testnode_create(rig.loop, &plain, &rig.node[0], NULL),
                     0);
    p = &rig.node[0]->props;
    p->unmap_granularity = 24 << 20;
    assert_int_equal(st_disk_create(rig.loop, rig.node[0], "d", false,
                                    &rig.ns[0].disk, NULL),
                     0);
    rig.ns[0].nexus = st_disk_attach(rig.ns[0].disk);
    spy_on_namespace_1();
    s = dsm(1);
    dsm_range(s, 0, 10, BLOCKS - 10);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(spied.n, BLOCKS / (24 * MIB));
    for (unsigned i = 0; i < spied.n && i < 64; i++)
        if (i)
            assert_int_equal(spied.offset[i] % (24 << 20), 0);
    assert_true(zero(10, BLOCKS - 10));
}

/* ---- Copy ---- */

static void
copy_range(struct slot *s, unsigned i, uint64_t lba, uint32_t n)
{
    uint8_t raw[32];
    le64 at = le64_of(lba);
    le16 nlb = le16_of((uint16_t)(n - 1));

    memset(raw, 0xee, sizeof(raw));
    memcpy(raw + 8, &at, 8);
    memcpy(raw + 16, &nlb, 2);
    memcpy(s->mem + 32 * i, raw, 32);
}

static struct slot *
copy(uint64_t lba, unsigned n)
{
    struct slot *s = cmd(0, NVME_COPY, 1);

    set_lba(s, lba);
    s->c.sqe.cdw12 = le32_of(n - 1);
    set_data(s, 0, 32 * n);
    return s;
}

static void
ranges_are_gathered(void **state)
{
    struct slot *s = copy(20000, 128);
    uint64_t to = 20000;

    (void)state;
    fill(disk_at(0), 20000 << 9);
    for (unsigned i = 0; i < 128; i++)
        copy_range(s, i, (127 - i) * 150, 1 + i);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(s->c.dw0, 0);
    for (unsigned i = 0; i < 128; i++) {
        assert_memory_equal(disk_at(to), disk_at((127 - i) * 150),
                            (1 + i) << 9);
        to += 1 + i;
    }
    assert_int_equal(asked(ST_OP_WRITE), 128);
    assert_int_equal(rig.io.writes + rig.io.reads, 0);
}

static void
overlaps_are_copied_as_if_read_before(void **state)
{
    enum { SPAN = 6000 };
    st_autofree uint8_t *want = malloc(SPAN << 9);

    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        uint32_t n = 1 + (uint32_t)st_rand_below(&rig.rand, NVME_MSSRL / 2);
        uint64_t from = st_rand_below(&rig.rand, SPAN - n);
        uint64_t to = st_rand_below(&rig.rand, SPAN - n);
        struct slot *s;

        if (i % 2) /* nearer: within a few buffers */
            to = st_min(from + st_rand_below(&rig.rand, 700), SPAN - n);
        s = copy(to, 1);
        fill(disk_at(0), SPAN << 9);
        memcpy(want, disk_at(0), SPAN << 9);
        memmove(want + (to << 9), want + (from << 9), (size_t)n << 9);
        copy_range(s, 0, from, n);
        assert_int_equal(run(s), NVME_OK);
        assert_memory_equal(disk_at(0), want, SPAN << 9);
    }
}

static void
limits_of_copy(void **state)
{
    uint16_t limit = DNR(NVME_COMMAND_SIZE_LIMIT);
    struct slot *s = copy(0, 129);

    (void)state;
    assert_int_equal(run(s), limit);
    s = copy(0, 256);
    assert_int_equal(run(s), limit);
    s = copy(0, 2);
    copy_range(s, 0, 0, 1);
    copy_range(s, 1, 0, NVME_MSSRL + 1);
    assert_int_equal(run(s), limit);
    assert_int_equal(s->c.dw0, 1);
    copy_range(s, 1, 0, NVME_MSSRL);
    assert_int_equal(run(s), NVME_OK);
    s = copy(8 * NVME_MSSRL, 9); /* MCL is 8 of them */
    for (unsigned i = 0; i < 9; i++)
        copy_range(s, i, i * NVME_MSSRL, i < 8 ? NVME_MSSRL : 1);
    assert_int_equal(run(s), limit);
    assert_int_equal(s->c.dw0, 8);
    s->c.sqe.cdw12 = le32_of(7);
    assert_int_equal(run(s), NVME_OK);
    s = copy(0, 1);
    s->c.sqe.cdw12 = le32_of(1 << 8); /* format 1 */
    assert_int_equal(run(s), DNR(NVME_INVALID_FIELD));
    s->c.sqe.cdw12 = le32_of(1 << 12); /* PRINFOR */
    assert_int_equal(run(s), DNR(NVME_INVALID_PROTECTION_INFO));
    s->c.sqe.cdw12 = le32_of(1 << 29);
    assert_int_equal(run(s), DNR(NVME_INVALID_PROTECTION_INFO));
    s->c.sqe.cdw12 = le32_of(0);
    s->c.sqe.prp1 = le64_of(0);
    assert_int_equal(run(s), DNR(NVME_DATA_TRANSFER_ERROR));
}

static void
ranges_of_copy_are_checked_first(void **state)
{
    const uint64_t bad[] = {BLOCKS - 1, BLOCKS, UINT64_MAX, 1ull << 63,
                            1ull << 55};

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct slot *s = copy(0, 3);

        copy_range(s, 0, 0, 2);
        copy_range(s, 1, 8, 2);
        copy_range(s, 2, bad[i], 2);
        assert_int_equal(run(s), DNR(NVME_LBA_OUT_OF_RANGE));
        assert_int_equal(s->c.dw0, 2);
        assert_true(s->c.error_lba == bad[i]);
        s = copy(bad[i], 2);
        assert_int_equal(run(s), DNR(NVME_LBA_OUT_OF_RANGE));
        assert_true(s->c.error_lba == bad[i]);
    }
    assert_int_equal(asked(ST_OP_READ) + asked(ST_OP_WRITE), 0);
}

static void
a_copy_that_fails_says_at_which_range(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct slot *s = copy(1000, 3);
        uint64_t seen = asked(ST_OP_READ);

        for (unsigned k = 0; k < 3; k++)
            copy_range(s, k, 100 * k, 8);
        go(s);
        while (asked(ST_OP_READ) < seen + i + 1)
            st_domain_step(rig.d);
        st_testnode_fail(rig.node[0], ST_BIT(ST_OP_WRITE), ST_MEDIUM_WRITE, 1);
        assert_int_equal(wait_for(s), NVME_WRITE_FAULT);
        assert_int_equal(s->c.dw0, i);
        assert_int_equal(s->c.error_lba, 1000 + 8 * i);
    }
}

/* ---- Erasing ---- */

static void
a_namespace_is_erased(void **state)
{
    struct slot *s = cmd(0, (enum nvme_opcode)NVME_ADMIN_FORMAT, 1);

    (void)state;
    memset(disk_at(0), 0x55, 48 << 20);
    start(s, st_nvme_io_erase);
    assert_int_equal(wait_for(s), NVME_OK);
    assert_true(zero(0, BLOCKS));
    assert_true(st_mem_is_zero(st_testnode_durable(rig.node[0]), 48 << 20));
    assert_int_equal(asked(ST_OP_UNMAP), 3);
    assert_int_equal(asked(ST_OP_FLUSH), 1);
    s = cmd(0, (enum nvme_opcode)NVME_ADMIN_FORMAT, 4);
    start(s, st_nvme_io_erase);
    assert_int_equal(wait_for(s), DNR(NVME_WRITE_TO_READ_ONLY));
}

static void
where_holes_are_not_zero_it_is_written(void **state)
{
    struct st_testnode_opts o = plain;
    struct slot *s;

    (void)state;
    o.unmap = ST_UNMAP_UNSPECIFIED;
    rig_make(&o, 1);
    s = cmd(0, (enum nvme_opcode)NVME_ADMIN_FORMAT, 1);
    memset(disk_at(0), 0x55, 48 << 20);
    start(s, st_nvme_io_erase);
    assert_int_equal(wait_for(s), NVME_OK);
    assert_true(zero(0, BLOCKS));
    assert_int_equal(asked(ST_OP_UNMAP), 0);
    rig_free();
}

static void
a_disk_that_shrinks_while_it_is_erased(void **state)
{
    struct slot *s = cmd(0, (enum nvme_opcode)NVME_ADMIN_FORMAT, 1);

    (void)state;
    start(s, st_nvme_io_erase);
    while (asked(ST_OP_UNMAP) < 1)
        assert_true(st_domain_step(rig.d));
    assert_int_equal(st_testnode_set_size(rig.node[0], 1 << 20), 0);
    wait_for(s);
    settle();
    /* Either it noticed in time, or the disk said so. */
    assert_true(s->c.status == NVME_OK ||
                s->c.status == DNR(NVME_LBA_OUT_OF_RANGE));
    start(s, st_nvme_io_erase);
    assert_int_equal(wait_for(s), NVME_OK);
}

/* ---- The pool ---- */

static void
buffers_are_had_in_turn(void **state)
{
    enum { N = 14 };

    (void)state;
    st_testnode_hang(rig.node[0], true);
    for (unsigned i = 0; i < N; i++)
        go(blocks(i, NVME_VERIFY, 0, 8));
    settle();
    assert_int_equal(st_testnode_held(rig.node[0]), NVME_BUFFERS);
    /* One that waits is given up at once, whatever the disk does. */
    st_nvme_io_abort(&rig.slot[NVME_BUFFERS + 1].c);
    settle();
    assert_int_equal(rig.slot[NVME_BUFFERS + 1].ended, 1);
    assert_int_equal(rig.slot[NVME_BUFFERS + 1].c.status, NVME_ABORT_REQUESTED);
    /* And one whose turn has just come, before it begins. */
    st_nvme_io_abort(&rig.slot[0].c);
    while (!rig.slot[0].ended)
        st_domain_step(rig.d);
    st_nvme_io_abort(&rig.slot[NVME_BUFFERS].c);
    settle();
    assert_int_equal(rig.slot[NVME_BUFFERS].c.status, NVME_ABORT_REQUESTED);
    st_testnode_hang(rig.node[0], false);
    settle();
    for (unsigned i = 1; i < N; i++) {
        if (i == NVME_BUFFERS || i == NVME_BUFFERS + 1)
            continue;
        assert_int_equal(rig.slot[i].ended, 1);
        assert_int_equal(rig.slot[i].c.status, NVME_OK);
        if (i > 1 && i < NVME_BUFFERS)
            assert_true(rig.slot[i].turn > rig.slot[i - 1].turn);
        if (i > NVME_BUFFERS + 3) /* those that came when nothing hung */
            assert_true(rig.slot[i].turn > rig.slot[i - 1].turn);
    }
    assert_int_equal(st_testnode_peak(rig.node[0]), NVME_BUFFERS);
}

static void
one_buffer_is_enough(void **state)
{
    struct st_cap_row *cap = &st_domain_caps(rig.d)->row[ST_CAP_BOUNCE];

    (void)state;
    cap->limit = 1;
    st_cap_force(st_domain_caps(rig.d), ST_CAP_BOUNCE, 1); /* all is taken */
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = blocks(i, i % 2 ? NVME_COMPARE : NVME_VERIFY, 0, 2048);

        memcpy(s->mem, disk_at(0), 2048 << 9);
        go(s);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(wait_for(&rig.slot[i]), NVME_OK);
    assert_int_equal(cap->used, NVME_BUFFER + 1);
    st_cap_give(st_domain_caps(rig.d), ST_CAP_BOUNCE, 1);
    for (unsigned i = 1; i < SLOTS; i++)
        assert_true(rig.slot[i].turn > rig.slot[i - 1].turn);
}

/* ---- Giving up, at every step ---- */

static struct slot *
long_command(unsigned which)
{
    struct slot *s;

    switch (which) {
    case 0:
        return blocks(0, NVME_WRITE_ZEROES, 9, 65536);
    case 1:
        return blocks(0, NVME_VERIFY, 9, 2000);
    case 2:
        s = blocks(0, NVME_COMPARE, 9, 2000);
        memcpy(s->mem, disk_at(9), 2000 << 9);
        return s;
    case 3:
        s = dsm(8);
        for (unsigned i = 0; i < 8; i++)
            dsm_range(s, i, 10 * i, 5);
        return s;
    case 4:
        s = copy(100, 4);
        for (unsigned i = 0; i < 4; i++)
            copy_range(s, i, 120 * i, 700);
        return s;
    default:
        return cmd(0, (enum nvme_opcode)NVME_ADMIN_FORMAT, 1);
    }
}

static void
give_up_at_every_step(bool cancellable)
{
    st_testnode_cancellable(rig.node[0], cancellable);
    for (unsigned which = 0; which < 6; which++) {
        void (*fn)(struct nvme_cmd *) =
            which < 5 ? st_nvme_io_start : st_nvme_io_erase;
        unsigned aborted = 0;
        bool whole = false;

        for (unsigned steps = 0; !whole; steps++) {
            struct slot *s = long_command(which);

            start(s, fn);
            for (unsigned i = 0; i < steps && !s->ended; i++)
                st_domain_step(rig.d);
            whole = s->ended;
            if (!whole)
                st_nvme_io_abort(&s->c);
            settle();
            assert_int_equal(s->ended, 1);
            aborted += s->c.status == NVME_ABORT_REQUESTED;
            if (s->c.status != NVME_ABORT_REQUESTED)
                assert_int_equal(s->c.status, NVME_OK);
            assert_int_equal(st_testnode_held(rig.node[0]), 0);
        }
        assert_true(aborted > 2);
    }
}

static void
all_can_be_given_up_at_every_step(void **state)
{
    (void)state;
    give_up_at_every_step(true);
}

static void
and_over_a_disk_that_cannot_cancel(void **state)
{
    (void)state;
    give_up_at_every_step(false);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(zeroes_are_written_there_and_nowhere_else),
        cmocka_unit_test(zeroes_have_a_limit),
        T(zeroes_may_leave_holes_if_the_guest_says_so),
        T(verify_reads_all_of_it),
        T(ranges_are_deallocated),
        T(neighbours_are_joined_and_long_ranges_cut),
        T(no_range_is_touched_before_all_are_checked),
        T(hints_deallocate_nothing),
        T(slices_end_where_the_disks_blocks_do),
        T(ranges_are_gathered),
        T(overlaps_are_copied_as_if_read_before),
        T(limits_of_copy),
        T(ranges_of_copy_are_checked_first),
        T(a_copy_that_fails_says_at_which_range),
        T(a_namespace_is_erased),
        cmocka_unit_test(where_holes_are_not_zero_it_is_written),
        T(a_disk_that_shrinks_while_it_is_erased),
        T(buffers_are_had_in_turn),
        T(one_buffer_is_enough),
        cmocka_unit_test_setup_teardown(all_can_be_given_up_at_every_step,
                                        setup_async, teardown),
        cmocka_unit_test_setup_teardown(and_over_a_disk_that_cannot_cancel,
                                        setup_async, teardown),
    };

    return cmocka_run_group_tests_name("nvme_ranges", tests, NULL, NULL);
}
