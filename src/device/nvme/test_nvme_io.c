/* SPDX-License-Identifier: MIT
 *
 * The NVM command set: read, write, flush, compare and the fused pair; what is
 * refused, in which order, how a disk's errors are told, and how commands are
 * given up.
 */
#include "test_nvme_io.h"

enum { BLOCKS = 8192 };

static const struct st_testnode_opts plain = {.size = BLOCKS * 512,
                                              .fua = true,
                                              .unmap = ST_UNMAP_ZEROES,
                                              .strict = true};

static int
setup(void **state)
{
    (void)state;
    rig_make(&plain, 1);
    fill(disk_at(0), BLOCKS * 512);
    return 0;
}

static int
setup_4k(void **state)
{
    struct st_testnode_opts o = plain;

    (void)state;
    o.sector = 4096;
    o.size = (uint64_t)BLOCKS * 4096;
    rig_make(&o, 1);
    fill(disk_at(0), o.size);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    rig_free();
    return 0;
}

static void
every_size_is_read_and_written(void **state)
{
    uint32_t max = NVME_DATA_MAX >> rig.shift;

    (void)state;
    for (uint32_t n = 1; n <= max; n = n < 40 ? n + 1 : n * 2 - n / 3) {
        uint64_t lba = st_rand_below(&rig.rand, BLOCKS - n + 1);
        size_t len = (size_t)n << rig.shift;
        struct slot *s = blocks(0, NVME_READ, lba, n);

        memset(s->mem, 0x11, AREA);
        assert_int_equal(run(s), NVME_OK);
        assert_memory_equal(s->mem, disk_at(lba), len);
        assert_int_equal(s->mem[len], 0x11);
        s = blocks(1, NVME_WRITE, lba, n);
        fill(s->mem, len);
        assert_int_equal(run(s), NVME_OK);
        assert_memory_equal(disk_at(lba), s->mem, len);
        assert_int_equal(s->c.error_lba, UINT64_MAX);
        assert_int_equal(s->c.dw0, 0);
    }
    assert_int_equal(run(blocks(0, NVME_READ, 0, max)), NVME_OK);
    assert_int_equal(run(blocks(0, NVME_READ, 0, max + 1)),
                     DNR(NVME_INVALID_FIELD));
    assert_int_equal(run(blocks(0, NVME_WRITE, 0, 65536)),
                     DNR(NVME_INVALID_FIELD));
    assert_int_equal(run(blocks(0, NVME_COMPARE, 0, max + 1)),
                     DNR(NVME_INVALID_FIELD));
}

static void
data_may_be_an_sgl(void **state)
{
    struct slot *s = blocks(0, NVME_WRITE, 7, 5);

    (void)state;
    s->c.sqe.flags = 1 << NVME_PSDT_SHIFT;
    s->c.sqe.sgl = (struct nvme_sgl_desc){.address = le64_of(s->gpa + 13),
                                          .length = le32_of(5 * 512)};
    fill(s->mem, 4096);
    assert_int_equal(run(s), NVME_OK);
    assert_memory_equal(disk_at(7), s->mem + 13, 5 * 512);
    rig.io.sgl = false;
    assert_int_equal(run(s), DNR(NVME_INVALID_FIELD));
}

static void
the_range_is_checked_without_overflow(void **state)
{
    static const enum nvme_opcode ops[] = {NVME_READ, NVME_WRITE, NVME_COMPARE,
                                           NVME_WRITE_ZEROES, NVME_VERIFY};

    (void)state;
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        const uint64_t bad[] = {
            BLOCKS - 1, BLOCKS,    UINT64_MAX, 1ull << 32,       UINT64_MAX - 1,
            1ull << 55, INT64_MAX, 1ull << 63, (1ull << 55) - 2, 1ull << 54};

        for (unsigned k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
            struct slot *s = blocks(0, ops[i], bad[k], 2);

            s->c.sqe.prp1 = le64_of(0); /* nor is memory looked at */
            assert_int_equal(run(s), DNR(NVME_LBA_OUT_OF_RANGE));
            assert_true(s->c.error_lba == bad[k]);
        }
        if (ops[i] != NVME_COMPARE)
            assert_int_equal(run(blocks(0, ops[i], BLOCKS - 2, 2)), NVME_OK);
    }
    /* The disk was asked by the good ones alone. */
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_READ), 2);
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_WRITE), 1);
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_WRITE_ZEROES), 1);
}

static void
protection_is_not_there(void **state)
{
    static const enum nvme_opcode ops[] = {NVME_READ, NVME_WRITE, NVME_COMPARE,
                                           NVME_WRITE_ZEROES, NVME_VERIFY};

    (void)state;
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
        for (unsigned bit = 26; bit < 30; bit++) {
            struct slot *s = blocks(0, ops[i], 0, 1);

            s->c.sqe.cdw12 = le32_of(1u << bit);
            assert_int_equal(run(s), DNR(NVME_INVALID_PROTECTION_INFO));
        }
}

static void
limited_retry_and_hints_are_ignored(void **state)
{
    struct slot *s = blocks(0, NVME_READ, 3, 1);

    (void)state;
    s->c.sqe.cdw12 = le32_of(1u << 31 | 1u << 30 | 0xfu << 20);
    s->c.sqe.cdw13 = le32_of(0xffff00ff);
    assert_int_equal(run(s), NVME_OK);
    assert_memory_equal(s->mem, disk_at(3), 512);
}

static void
unknown_commands_are_refused(void **state)
{
    (void)state;
    for (unsigned op = 0; op < 256; op++) {
        struct slot *s = cmd(0, (enum nvme_opcode)op, 1);

        switch (op) {
        case NVME_FLUSH:
        case NVME_WRITE:
        case NVME_READ:
        case NVME_COMPARE:
        case NVME_WRITE_ZEROES:
        case NVME_DSM:
        case NVME_VERIFY:
        case NVME_COPY:
            break;
        default:
            assert_int_equal(run(s), DNR(NVME_INVALID_OPCODE));
            assert_int_equal(run(cmd(0, (enum nvme_opcode)op, UINT32_MAX)),
                             DNR(NVME_INVALID_NAMESPACE));
        }
    }
    assert_int_equal(run(cmd(0, NVME_READ, UINT32_MAX)),
                     DNR(NVME_INVALID_NAMESPACE));
}

static void
guest_memory_that_is_not_there(void **state)
{
    struct slot *s;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        static const enum nvme_opcode ops[] = {NVME_READ, NVME_WRITE,
                                               NVME_COMPARE};

        s = blocks(0, ops[i], 0, 32);
        s->c.sqe.prp1 = le64_of(0x1000);
        assert_int_equal(run(s), DNR(NVME_DATA_TRANSFER_ERROR));
        s = blocks(0, ops[i], 0, 32);
        s->c.sqe.prp1 = le64_of(s->gpa + 2);
        assert_int_equal(run(s), DNR(NVME_INVALID_PRP_OFFSET));
    }
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_READ), 0);
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_WRITE), 0);
}

static void
a_read_only_namespace_is_only_read(void **state)
{
    static const enum nvme_opcode ops[] = {NVME_WRITE, NVME_WRITE_ZEROES,
                                           NVME_DSM, NVME_COPY};
    struct slot *s;

    (void)state;
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        s = cmd(0, ops[i], 4);
        if (ops[i] == NVME_DSM)
            s->c.sqe.cdw11 = le32_of(4);
        s->c.sqe.prp1 = le64_of(0); /* memory is not looked at */
        assert_int_equal(run(s), DNR(NVME_WRITE_TO_READ_ONLY));
    }
    s = cmd(0, NVME_READ, 4);
    set_data(s, 0, 512);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(run(cmd(0, NVME_FLUSH, 4)), NVME_OK);
    assert_int_equal(run(cmd(0, NVME_VERIFY, 4)), NVME_OK);
    s = cmd(0, NVME_DSM, 4); /* a hint changes nothing */
    memset(s->mem, 0, 16);
    set_data(s, 0, 16);
    assert_int_equal(run(s), NVME_OK);
}

/* ---- What is durable ---- */

static bool
durable(uint64_t lba, size_t len)
{
    return !memcmp(st_testnode_durable(rig.node[0]) + (lba << rig.shift),
                   disk_at(lba), len);
}

static void
written(uint64_t lba, uint32_t cdw12)
{
    struct slot *s = blocks(0, NVME_WRITE, lba, 1);

    s->c.sqe.cdw12 = le32_of(cdw12);
    fill(s->mem, 512);
    assert_int_equal(run(s), NVME_OK);
}

static void
fua_is_durable_and_flush_makes_so(void **state)
{
    (void)state;
    written(1, 0);
    assert_false(durable(1, 512));
    written(2, NVME_RW_FUA);
    assert_true(durable(2, 512));
    assert_false(durable(1, 512));
    assert_int_equal(run(cmd(0, NVME_FLUSH, 1)), NVME_OK);
    assert_true(durable(1, 512));
}

static void
without_a_write_cache_all_is_durable(void **state)
{
    struct slot *s;
    le64 *range;

    (void)state;
    atomic_store(&rig.through, true);
    written(1, 0);
    assert_true(durable(1, 512));
    assert_int_equal(run(blocks(0, NVME_WRITE_ZEROES, 4, 3)), NVME_OK);
    assert_true(durable(4, 3 * 512));
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_FLUSH), 0);
    s = cmd(0, NVME_DSM, 1);
    s->c.sqe.cdw11 = le32_of(4);
    range = (le64 *)(void *)s->mem;
    range[0] = le64_of(2ull << 32);
    range[1] = le64_of(1);
    set_data(s, 0, 16);
    assert_int_equal(run(s), NVME_OK);
    assert_true(durable(1, 2 * 512));
    s = cmd(0, NVME_COPY, 1);
    set_lba(s, 100);
    memset(s->mem, 0, 32);
    range[1] = le64_of(50);
    set_data(s, 0, 32);
    assert_int_equal(run(s), NVME_OK);
    assert_memory_equal(disk_at(100), disk_at(50), 512);
    assert_true(durable(100, 512));
}

/* ---- Flush ---- */

static void
a_broadcast_flush_reaches_all(void **state)
{
    struct slot *s;

    (void)state;
    assert_null(rig.door[1].chan); /* this loop never used it */
    assert_int_equal(run(cmd(0, NVME_FLUSH, UINT32_MAX)), NVME_OK);
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_FLUSH), 1);
    assert_int_equal(st_testnode_count(rig.node[1], ST_OP_FLUSH), 1);
    assert_int_equal(rig.held_doors, 0);
    /* One that fails does not keep the next from it. */
    st_testnode_fail(rig.node[0], ST_BIT(ST_OP_FLUSH), ST_MEDIUM_WRITE, 1);
    assert_int_equal(run(cmd(0, NVME_FLUSH, UINT32_MAX)), NVME_WRITE_FAULT);
    assert_int_equal(st_testnode_count(rig.node[1], ST_OP_FLUSH), 2);
    /* Given up before the second. */
    st_testnode_hang(rig.node[1], true);
    s = cmd(0, NVME_FLUSH, UINT32_MAX);
    go(s);
    settle();
    assert_int_equal(s->ended, 0);
    assert_int_equal(rig.held_doors, 1);
    st_nvme_io_abort(&s->c);
    settle();
    assert_int_equal(s->ended, 1);
    assert_int_equal(s->c.status, NVME_ABORT_REQUESTED);
    assert_int_equal(rig.held_doors, 0);
}

static void
a_door_that_cannot_be_opened_fails_the_flush(void **state)
{
    (void)state;
    rig.no_chan = true;
    assert_int_equal(run(cmd(0, NVME_FLUSH, UINT32_MAX)), NVME_INTERNAL_ERROR);
    rig.no_chan = false;
    assert_int_equal(run(cmd(0, NVME_FLUSH, UINT32_MAX)), NVME_OK);
}

static void
the_flush_of_a_shutdown(void **state)
{
    struct slot *s = cmd(0, NVME_READ, 1); /* the entry does not matter */

    (void)state;
    written(1, 0);
    start(s, st_nvme_io_flush);
    assert_int_equal(wait_for(s), NVME_OK);
    assert_true(durable(1, 512));
    assert_int_equal(rig.io.reads, 0);
    s = cmd(0, NVME_READ, UINT32_MAX);
    start(s, st_nvme_io_flush);
    assert_int_equal(wait_for(s), NVME_OK);
    assert_int_equal(st_testnode_count(rig.node[1], ST_OP_FLUSH), 1);
}

/* ---- Errors ---- */

static void
each_error_of_a_disk_has_its_status(void **state)
{
    static const struct {
        enum st_status s;
        uint16_t status;
        unsigned media;
    } table[] = {
        {ST_RANGE, DNR(0x080), 0},       {ST_INVALID, DNR(0x002), 0},
        {ST_UNSUPPORTED, DNR(0x001), 0}, {ST_READ_ONLY, DNR(0x182), 0},
        {ST_NO_SPACE, DNR(0x081), 0},    {ST_IO, 0x006, 0},
        {ST_MEDIUM_READ, 0x281, 1},      {ST_MEDIUM_WRITE, 0x280, 1},
        {ST_GUARD, DNR(0x282), 1},       {ST_APP_TAG, DNR(0x283), 1},
        {ST_REF_TAG, DNR(0x284), 1},     {ST_MEMORY, DNR(0x004), 0},
        {ST_CONFLICT, DNR(0x083), 0},    {ST_MISCOMPARE, DNR(0x285), 0},
        {ST_PREEMPTED, 0x01b, 0},        {ST_ABORTED, 0x007, 0},
    };

    (void)state;
    assert_int_equal(sizeof(table) / sizeof(table[0]), ST_STATUS_COUNT - 1);
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        for (unsigned write = 0; write < 2; write++) {
            struct slot *s = blocks(0, write ? NVME_WRITE : NVME_READ, 17, 3);
            uint64_t media = rig.io.media_errors;
            uint64_t counted = rig.io.reads + rig.io.writes;

            st_testnode_fail(rig.node[0], UINT32_MAX, table[i].s, 1);
            assert_int_equal(run(s), table[i].status);
            assert_int_equal(s->c.error_lba, 17);
            assert_int_equal(rig.io.media_errors, media + table[i].media);
            assert_int_equal(rig.io.reads + rig.io.writes, counted);
        }
}

static void
what_is_counted(void **state)
{
    struct slot *s;

    (void)state;
    assert_int_equal(run(blocks(0, NVME_READ, 0, 5)), NVME_OK);
    assert_int_equal(run(blocks(0, NVME_VERIFY, 0, 7)), NVME_OK);
    assert_int_equal(run(blocks(0, NVME_WRITE_ZEROES, 9, 2)), NVME_OK);
    s = blocks(0, NVME_COMPARE, 0, 3);
    memcpy(s->mem, disk_at(0), 3 << rig.shift);
    assert_int_equal(run(s), NVME_OK);
    assert_int_equal(run(blocks(0, NVME_WRITE, 0, 4)), NVME_OK);
    assert_int_equal(rig.io.reads, 3);
    assert_int_equal(rig.io.read_blocks, 15ull << (rig.shift - 9));
    assert_int_equal(rig.io.writes, 1);
    assert_int_equal(rig.io.written_blocks, 4ull << (rig.shift - 9));
}

/* ---- Compare ---- */

static void
compare_finds_every_difference(void **state)
{
    uint32_t sizes[] = {1, 2, 255, 256, 257, 1000, 2048};

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t n = (uint32_t)st_min(sizes[i], NVME_DATA_MAX >> rig.shift);
        size_t len = (size_t)n << rig.shift;

        for (unsigned k = 0; k < 20; k++) {
            uint64_t lba = st_rand_below(&rig.rand, BLOCKS - n);
            size_t at = k == 0   ? 0
                        : k == 1 ? len - 1
                                 : st_rand_below(&rig.rand, len);
            struct slot *s = blocks(0, NVME_COMPARE, lba, n);
            unsigned offset = 4 * (unsigned)st_rand_below(&rig.rand, 1024);

            set_data(s, offset, len);
            memcpy(s->mem + offset, disk_at(lba), len);
            assert_int_equal(run(s), NVME_OK);
            s->mem[offset + at] ^= 1;
            assert_int_equal(run(s), DNR(NVME_COMPARE_FAILURE));
            assert_int_equal(s->c.error_lba, lba + (at >> rig.shift));
        }
    }
    assert_int_equal(rig.io.media_errors, 0);
}

/* ---- Fused ---- */

/* A pair at LBA, whose compare succeeds; the write's slot. */
static struct slot *
pair(uint64_t lba, uint32_t n)
{
    struct slot *one = blocks(0, NVME_COMPARE, lba, n);
    struct slot *two = blocks(1, NVME_WRITE, lba, n);

    memcpy(one->mem, disk_at(lba), (size_t)n << rig.shift);
    fill(two->mem, (size_t)n << rig.shift);
    one->c.sqe.flags = 1;
    two->c.sqe.flags = 2;
    two->c.fused = &one->c;
    one->c.door = rig_open(&rig.io, 1);
    rig.held_doors--;
    one->ended = 0;
    return two;
}

static void
both(struct slot *two, uint16_t first, uint16_t second)
{
    struct slot *one = &rig.slot[0];

    assert_int_equal(run(two), second);
    assert_int_equal(one->ended, 1);
    assert_int_equal(one->c.status, first);
    assert_true(one->turn < two->turn); /* the first is done first */
}

static void
a_pair_is_carried_out_as_one(void **state)
{
    uint32_t max = NVME_FUSED_MAX >> rig.shift;
    struct slot *two;

    (void)state;
    for (uint32_t n = 1; n <= max; n++) {
        two = pair(n, n);
        both(two, NVME_OK, NVME_OK);
        assert_memory_equal(disk_at(n), two->mem, n << rig.shift);
    }
    assert_int_equal(rig.io.reads, max);
    assert_int_equal(rig.io.writes, max);
    two = pair(5, 3);
    two->c.sqe.cdw12 = le32_of(2 | NVME_RW_FUA);
    both(two, NVME_OK, NVME_OK);
    assert_true(durable(5, 3 << rig.shift));
}

static void
a_miscompare_writes_nothing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        size_t len = 4 << rig.shift, at = st_rand_below(&rig.rand, len);
        struct slot *two = pair(9, 4);
        st_autofree uint8_t *old = malloc(len);

        memcpy(old, disk_at(9), len);
        rig.slot[0].mem[at] ^= 0x80;
        both(two, DNR(NVME_COMPARE_FAILURE), DNR(NVME_ABORTED_FUSED_FAILED));
        assert_memory_equal(disk_at(9), old, len);
        assert_int_equal(rig.slot[0].c.error_lba, 9 + (at >> rig.shift));
    }
}

static void
pairs_that_are_none(void **state)
{
    uint32_t max = NVME_FUSED_MAX >> rig.shift;
    struct slot *one = &rig.slot[0], *two;
    uint16_t bad = DNR(NVME_INVALID_FIELD);
    uint16_t failed = DNR(NVME_ABORTED_FUSED_FAILED);

    (void)state;
    two = pair(1, 2);
    two->c.sqe.cdw12 = le32_of(0); /* not the same range */
    both(two, bad, bad);
    two = pair(1, 2);
    set_lba(two, 2);
    both(two, bad, bad);
    two = pair(1, 2);
    set_lba(two, 1 + (1ull << 32));
    both(two, bad, bad);
    two = pair(1, 2);
    one->c.sqe.opcode = NVME_READ;
    both(two, bad, bad);
    two = pair(1, 2);
    two->c.sqe.opcode = NVME_COMPARE;
    both(two, bad, bad);
    two = pair(1, max);
    two->c.sqe.cdw12 = one->c.sqe.cdw12 = le32_of(max);
    both(two, DNR(NVME_ATOMIC_WRITE_UNIT_EXCEEDED),
         DNR(NVME_ATOMIC_WRITE_UNIT_EXCEEDED));
    two = pair(1, 2);
    set_lba(one, BLOCKS - 1);
    set_lba(two, BLOCKS - 1);
    both(two, DNR(NVME_LBA_OUT_OF_RANGE), failed);
    two = pair(1, 2);
    one->c.sqe.cdw12 = le32_of(1 | 1 << 29);
    both(two, DNR(NVME_INVALID_PROTECTION_INFO), failed);
    two = pair(1, 2);
    two->c.sqe.cdw12 = le32_of(1 | 1 << 29);
    both(two, failed, DNR(NVME_INVALID_PROTECTION_INFO));
    two = pair(1, 2);
    one->c.sqe.prp1 = le64_of(0);
    both(two, DNR(NVME_DATA_TRANSFER_ERROR), failed);
    two = pair(1, 2);
    two->c.sqe.prp1 = le64_of(0);
    both(two, failed, DNR(NVME_DATA_TRANSFER_ERROR));
    rig.ns[0].read_only = true;
    both(pair(1, 2), failed, DNR(NVME_WRITE_TO_READ_ONLY));
    rig.ns[0].read_only = false;
    /* Errors of the disk: the one that they are the fault of. */
    two = pair(1, 2);
    st_testnode_fail(rig.node[0], ST_BIT(ST_OP_READ), ST_MEDIUM_READ, 1);
    both(two, NVME_UNRECOVERED_READ, NVME_ABORTED_FUSED_FAILED);
    two = pair(1, 2);
    st_testnode_fail(rig.node[0], ST_BIT(ST_OP_WRITE), ST_NO_SPACE, 1);
    both(two, failed, DNR(NVME_CAPACITY_EXCEEDED));
    assert_int_equal(rig.io.media_errors, 1);
    assert_int_equal(rig.io.writes, 0);
}

static void
a_pair_is_given_up_by_either(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct slot *two = pair(1, 2);

        st_testnode_hang(rig.node[0], true);
        go(two);
        settle();
        assert_int_equal(two->ended, 0);
        st_nvme_io_abort(&rig.slot[i].c);
        settle();
        assert_int_equal(rig.slot[0].ended, 1);
        assert_int_equal(rig.slot[1].ended, 1);
        assert_int_equal(rig.slot[0].c.status, NVME_ABORT_REQUESTED);
        assert_int_equal(rig.slot[1].c.status, NVME_ABORT_REQUESTED);
        st_testnode_hang(rig.node[0], false);
    }
}

static void
a_pair_is_given_up_as_its_turn_comes(void **state)
{
    struct slot *two = pair(1, 2);

    (void)state;
    st_testnode_hang(rig.node[0], true);
    for (unsigned i = 2; i < 2 + NVME_BUFFERS; i++)
        go(blocks(i, NVME_VERIFY, 0, 8));
    go(two);
    settle();
    st_nvme_io_abort(&rig.slot[2].c); /* its buffer is the pair's */
    while (!rig.slot[2].ended)
        assert_true(st_domain_step(rig.d));
    st_nvme_io_abort(&two->c);
    settle();
    assert_int_equal(rig.slot[0].c.status, NVME_ABORT_REQUESTED);
    assert_int_equal(two->c.status, NVME_ABORT_REQUESTED);
    assert_int_equal(st_testnode_held(rig.node[0]), NVME_BUFFERS - 1);
    st_testnode_hang(rig.node[0], false);
    settle();
    assert_int_equal(st_testnode_count(rig.node[0], ST_OP_WRITE), 0);
}

/* ---- Giving up ---- */

static void
what_hangs_can_be_given_up(void **state)
{
    static const enum nvme_opcode ops[] = {NVME_READ, NVME_WRITE, NVME_FLUSH,
                                           NVME_COMPARE};

    (void)state;
    st_testnode_hang(rig.node[0], true);
    for (unsigned i = 0; i < 4; i++) {
        struct slot *s = blocks(0, ops[i], 0, 8);

        go(s);
        settle();
        assert_int_equal(s->ended, 0);
        st_nvme_io_abort(&s->c);
        settle();
        assert_int_equal(s->ended, 1);
        assert_int_equal(s->c.status, NVME_ABORT_REQUESTED);
    }
    /* One that the disk holds on to ends as it would have. */
    st_testnode_cancellable(rig.node[0], false);
    for (unsigned i = 0; i < 4; i++) {
        struct slot *s = blocks(i, ops[i], 0, 8);

        memcpy(s->mem, disk_at(0), 8 << rig.shift);
        go(s);
        st_nvme_io_abort(&s->c);
        settle();
        assert_int_equal(s->ended, 0);
    }
    st_testnode_hang(rig.node[0], false);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(wait_for(&rig.slot[i]), NVME_OK);
}

static void
a_refusal_can_be_given_up_too(void **state)
{
    struct slot *s = blocks(0, NVME_READ, BLOCKS, 1);

    (void)state;
    go(s);
    st_nvme_io_abort(&s->c);
    assert_int_equal(wait_for(s), DNR(NVME_LBA_OUT_OF_RANGE));
    settle();
    assert_int_equal(s->ended, 1);
}

/* ---- Slots ---- */

static void
a_slot_keeps_its_request_which_grows(void **state)
{
    struct slot *s = blocks(0, NVME_READ, 0, 1);
    struct st_req *req = malloc(st_req_size(1));

    (void)state;
    /* As made when the disk was not as deep. */
    st_req_init(req, 1, NULL, NULL);
    s->c.req = req;
    assert_int_equal(run(s), NVME_OK);
    req = s->c.req;
    assert_int_equal(req->nframes, st_disk_frames(rig.ns[0].disk));
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(run(blocks(0, NVME_WRITE, i, 1 + i)), NVME_OK);
        assert_ptr_equal(s->c.req, req);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T4K(f)                                                                 \
    {                                                                          \
#f " (4096)", f, setup_4k, teardown, NULL                              \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(every_size_is_read_and_written),
        T4K(every_size_is_read_and_written),
        T(data_may_be_an_sgl),
        T(the_range_is_checked_without_overflow),
        T(protection_is_not_there),
        T(limited_retry_and_hints_are_ignored),
        T(unknown_commands_are_refused),
        T(guest_memory_that_is_not_there),
        T(a_read_only_namespace_is_only_read),
        T(fua_is_durable_and_flush_makes_so),
        T(without_a_write_cache_all_is_durable),
        T(a_broadcast_flush_reaches_all),
        T(a_door_that_cannot_be_opened_fails_the_flush),
        T(the_flush_of_a_shutdown),
        T(each_error_of_a_disk_has_its_status),
        T(what_is_counted),
        T4K(what_is_counted),
        T(compare_finds_every_difference),
        T4K(compare_finds_every_difference),
        T(a_pair_is_carried_out_as_one),
        T4K(a_pair_is_carried_out_as_one),
        T(a_miscompare_writes_nothing),
        T4K(a_miscompare_writes_nothing),
        T(pairs_that_are_none),
        T(a_pair_is_given_up_by_either),
        T(a_pair_is_given_up_as_its_turn_comes),
        T(what_hangs_can_be_given_up),
        T(a_refusal_can_be_given_up_too),
        T(a_slot_keeps_its_request_which_grows),
    };

    return cmocka_run_group_tests_name("nvme_io", tests, NULL, NULL);
}
