/* SPDX-License-Identifier: MIT
 *
 * The NVM command set against a byte array. Slots work at the same time, each
 * in a part of the disk of its own, over a disk that answers in any order; some
 * commands are given up, some are wrong. What a command says must be what the
 * array says, and no byte differs but where a command that failed or was given
 * up may have changed it.
 */
#include "test_nvme_io.h"

#include <stdio.h>

enum {
    PART = 5 << 19, /* bytes of the disk that are a slot's: 2.5 MiB */
    ROUNDS = 4000,
    SEED = 20,
};

static struct part {
    uint8_t *model;      /* PART bytes */
    enum nvme_opcode op; /* under way */
    uint64_t lba, n;     /* from the part's start on; blocks */
    unsigned ranges, offset;
    uint64_t from[8], len[8]; /* blocks */
    uint16_t want;
    bool aborted;
} part[SLOTS];

static uint64_t
below(uint64_t n)
{
    return st_rand_below(&rig.rand, n);
}

static uint64_t
part_blocks(void)
{
    return PART >> rig.shift;
}

/* A place for N blocks in the part, which are fewer where there is no room. */
static void
place(uint64_t *lba, uint64_t *n)
{
    uint64_t all = part_blocks();

    *n = st_min(*n, all);
    *lba = below(all - *n + 1);
}

static uint64_t
some_blocks(uint64_t max)
{
    return 1 + below(below(4) ? st_min(max, 40) : max);
}

/* A command for slot I. */
static void
draw(unsigned i)
{
    static const enum nvme_opcode ops[] = {
        NVME_READ, NVME_READ,         NVME_WRITE, NVME_WRITE,  NVME_FLUSH,
        NVME_DSM,  NVME_WRITE_ZEROES, NVME_COPY,  NVME_VERIFY, NVME_COMPARE};
    struct part *p = &part[i];
    uint64_t base = i * part_blocks();
    uint64_t max = NVME_DATA_MAX >> rig.shift;
    struct slot *s;
    uint32_t cdw12;

    p->op = ops[below(sizeof(ops) / sizeof(ops[0]))];
    p->aborted = false;
    p->want = NVME_OK;
    p->n = some_blocks(p->op == NVME_WRITE_ZEROES || p->op == NVME_VERIFY
                           ? part_blocks()
                           : max);
    place(&p->lba, &p->n);
    s = blocks(i, p->op, base + p->lba, (uint32_t)p->n);
    p->offset = 4 * (unsigned)below(1024);
    cdw12 = le32_get(s->c.sqe.cdw12) | (below(2) ? NVME_RW_FUA : 0);
    switch (p->op) {
    case NVME_WRITE:
        fill(s->mem + p->offset, p->n << rig.shift);
        set_data(s, p->offset, p->n << rig.shift);
        break;
    case NVME_READ:
        set_data(s, p->offset, p->n << rig.shift);
        break;
    case NVME_COMPARE:
        memcpy(s->mem + p->offset, p->model + (p->lba << rig.shift),
               p->n << rig.shift);
        set_data(s, p->offset, p->n << rig.shift);
        if (below(2)) {
            s->mem[p->offset + below(p->n << rig.shift)] ^= 4;
            p->want = DNR(NVME_COMPARE_FAILURE);
        }
        break;
    case NVME_WRITE_ZEROES:
        cdw12 |= below(2) ? NVME_RW_DEAC : 0;
        break;
    case NVME_DSM:
    case NVME_COPY:
        p->ranges = 1 + (unsigned)below(8);
        p->n = 0;
        for (unsigned k = 0; k < p->ranges; k++) {
            le64 raw[4] = {0};
            uint64_t n = some_blocks(part_blocks() / 16);

            place(&p->from[k], &n);
            p->len[k] = n;
            p->n += n;
            if (p->op == NVME_DSM) {
                raw[0] = le64_of(n << 32);
                raw[1] = le64_of(base + p->from[k]);
                memcpy(s->mem + p->offset + 16 * k, raw, 16);
            } else {
                raw[1] = le64_of(base + p->from[k]);
                raw[2] = le64_of(n - 1);
                memcpy(s->mem + p->offset + 32 * k, raw, 32);
            }
        }
        set_data(s, p->offset, (p->op == NVME_DSM ? 16 : 32) * p->ranges);
        s->c.sqe.cdw11 = le32_of(4);
        s->c.sqe.cdw10 = le32_of(p->ranges - 1);
        if (p->op == NVME_COPY) {
            p->lba = below(part_blocks() - p->n + 1);
            set_lba(s, base + p->lba);
            cdw12 = p->ranges - 1;
        }
        break;
    default:
        break;
    }
    s->c.sqe.cdw12 = le32_of(cdw12);
    if (p->op != NVME_FLUSH && p->op != NVME_DSM && below(30) == 0) {
        set_lba(s, SLOTS / 2 * part_blocks() + below(3));
        p->want = DNR(NVME_LBA_OUT_OF_RANGE);
    }
    go(s);
}

/* The command of slot I has ended well: what it did. */
static void
apply(struct part *p, const struct slot *s)
{
    uint8_t *at = p->model + (p->lba << rig.shift);
    size_t len = (size_t)p->n << rig.shift;

    switch (p->op) {
    case NVME_READ:
        assert_memory_equal(s->mem + p->offset, at, len);
        break;
    case NVME_WRITE:
        memcpy(at, s->mem + p->offset, len);
        break;
    case NVME_WRITE_ZEROES:
        memset(at, 0, len);
        break;
    case NVME_DSM:
        for (unsigned k = 0; k < p->ranges; k++)
            memset(p->model + (p->from[k] << rig.shift), 0,
                   p->len[k] << rig.shift);
        break;
    case NVME_COPY:
        for (unsigned k = 0; k < p->ranges; k++) {
            memmove(at, p->model + (p->from[k] << rig.shift),
                    p->len[k] << rig.shift);
            at += p->len[k] << rig.shift;
        }
        break;
    default:
        break;
    }
}

/* Bytes [FROM, TO) of the part, which the command may have changed, in part. */
static void
may_differ(unsigned i, uint64_t from, uint64_t to)
{
    memcpy(part[i].model + from, disk_at(i * part_blocks()) + from, to - from);
}

static void
judge(unsigned i)
{
    struct part *p = &part[i];
    struct slot *s = &rig.slot[i];
    uint16_t status = s->c.status;

    if (status == NVME_ABORT_REQUESTED && p->aborted) {
        if (p->op == NVME_DSM) /* any of them */
            may_differ(i, 0, PART);
        else if (p->op == NVME_WRITE || p->op == NVME_WRITE_ZEROES ||
                 p->op == NVME_COPY)
            may_differ(i, p->lba << rig.shift, (p->lba + p->n) << rig.shift);
        return;
    }
    assert_int_equal(status, p->want);
    if (status == NVME_OK)
        apply(p, s);
}

static void
compare_all(void)
{
    for (unsigned i = 0; i < SLOTS / 2; i++)
        assert_memory_equal(part[i].model, disk_at(i * part_blocks()), PART);
}

static void
random_commands(uint32_t sector, bool fua, uint64_t the_seed)
{
    struct st_testnode_opts o = {.size = (uint64_t)PART * (SLOTS / 2),
                                 .sector = sector,
                                 .fua = fua,
                                 .unmap = ST_UNMAP_ZEROES,
                                 .mem_align = fua ? 1 : 512,
                                 .async = true,
                                 .seed = the_seed,
                                 .strict = true};
    unsigned drawn = 0, left = SLOTS / 2, given_up = 0, good = 0;

    print_message("seed %ju\n", (uintmax_t)the_seed);
    rig_make(&o, the_seed);
    for (unsigned i = 0; i < SLOTS / 2; i++) {
        part[i].model = calloc(1, PART);
        draw(i);
    }
    while (left) {
        assert_true(st_domain_step(rig.d));
        if (below(150) == 0) {
            unsigned i = (unsigned)below(SLOTS / 2);

            if (!rig.slot[i].ended) {
                st_nvme_io_abort(&rig.slot[i].c);
                part[i].aborted = true;
            }
        }
        if (below(200) == 0)
            atomic_store(&rig.through, below(2));
        for (unsigned i = 0; i < SLOTS / 2; i++) {
            if (!rig.slot[i].ended || !part[i].model)
                continue;
            if (part[i].op != (enum nvme_opcode) - 1) {
                judge(i);
                given_up += rig.slot[i].c.status == NVME_ABORT_REQUESTED;
                good += rig.slot[i].c.status == NVME_OK;
                part[i].op = (enum nvme_opcode) - 1;
                if (++drawn < ROUNDS)
                    draw(i);
                else
                    left--;
            }
        }
    }
    settle();
    compare_all();
    assert_true(given_up > ROUNDS / 100 && good > ROUNDS / 2);
    for (unsigned i = 0; i < SLOTS / 2; i++)
        free(part[i].model);
    rig_free();
}

static uint64_t seed = SEED; /* or the argument, to replay one */

static void
with_512(void **state)
{
    (void)state;
    random_commands(512, seed % 2 == 0, seed);
}

static void
with_4096(void **state)
{
    (void)state;
    random_commands(4096, seed % 2 == 1, seed);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(with_512),
                                       cmocka_unit_test(with_4096)};

    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    return cmocka_run_group_tests_name("nvme_model", tests, NULL, NULL);
}
