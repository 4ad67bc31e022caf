/* SPDX-License-Identifier: MIT
 *
 * Data pointers, through the whole controller: what PRPs and SGLs name is read
 * and written, wherever it begins; what is wrong has its status, and the queue
 * beside goes on. With blocks of 512 and of 4096 bytes.
 */
#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)

/* Where the tests' data and lists lie. */
#define SOURCE  RIG_DATA
#define LISTS   (RIG_DATA + 0x110000) /* and the page behind: the next list */
#define TARGET  RIG_HIGH
#define FIXED   UINT64_C(0x90000000) /* of it, what the guest cannot write */
#define END     (RIG_HIGH + RIG_DATA_SIZE)
#define NO_PAGE UINT64_C(0xfffffffffffff000)

enum { PAGE = NVME_PAGE, BIG = 1 << 20 };

static struct rig *
ready(uint32_t sector)
{
    struct rig *r = rig_ready(
        &(struct rig_opts){.disk.sector = sector, .disk.size = 2 * BIG});
    struct st_gmem_map fixed = {.gpa = FIXED, .len = 16 * PAGE};

    fixed.host = rig_at(r, TARGET);
    assert_int_equal(st_gmem_map(r->gmem, &fixed), 0);
    rig_pair(r, 2, 8, 8);
    for (unsigned i = 0; i < (BIG + PAGE) / 4; i++) {
        uint32_t v = i * 2654435761u;

        memcpy((uint8_t *)rig_at(r, SOURCE) + i * 4, &v, 4);
    }
    return r;
}

static void
poke(struct rig *r, uint64_t gpa, uint64_t value)
{
    le64 v = le64_of(value);

    memcpy(rig_at(r, gpa), &v, 8);
}

/* A command for LEN bytes at the disk's start. */
static struct nvme_sqe
command(const struct rig *r, uint8_t opcode, uint64_t len)
{
    return rig_rw(opcode, 0,
                  (unsigned)(len / st_disk_props(r->disk)->sector_size), 0);
}

static unsigned
prps(struct rig *r, uint8_t opcode, uint64_t len, uint64_t prp1, uint64_t prp2)
{
    struct nvme_sqe e = command(r, opcode, len);

    e.prp1 = le64_of(prp1);
    e.prp2 = le64_of(prp2);
    return rig_do(r, 1, e, NULL);
}

static struct nvme_sgl_desc
desc(unsigned type, uint64_t gpa, uint32_t len)
{
    return (struct nvme_sgl_desc){.address = le64_of(gpa),
                                  .length = le32_of(len),
                                  .id = (uint8_t)(type << 4)};
}

static unsigned
sgl(struct rig *r, uint8_t opcode, uint64_t len, struct nvme_sgl_desc s)
{
    struct nvme_sqe e = command(r, opcode, len);

    e.flags = 1 << NVME_PSDT_SHIFT;
    e.sgl = s;
    return rig_do(r, 1, e, NULL);
}

/* Another queue is served. */
static void
others_go_on(struct rig *r)
{
    assert_int_equal(rig_do(r, 2, rig_rw(NVME_READ, 0, 1, TARGET), NULL),
                     NVME_OK);
}

/* The pages behind FROM, backwards; returns where the list at AT begins. */
static uint64_t
list(struct rig *r, uint64_t at, uint64_t from, unsigned n)
{
    uint64_t begin = at, next = st_align_up(at + 1, PAGE);

    for (unsigned i = 0; i < n; i++, at += 8) {
        if (at % PAGE == PAGE - 8 && i < n - 1) {
            poke(r, at, next);
            at = next;
            next += PAGE;
        }
        poke(r, at, from + (uint64_t)(n - i) * PAGE);
    }
    return begin;
}

/* ---- PRPs ---- */

/* Write from OFFSET in a page, with a list at OFFSET of its page: what arrives
 * on the disk is the first page's rest, then the others backwards. */
static void
from_offset(struct rig *r, unsigned offset, uint64_t len)
{
    const uint8_t *source = rig_at(r, SOURCE);
    const uint8_t *disk = st_testnode_bytes(r->node);
    uint64_t rest = PAGE - offset;
    unsigned n = (unsigned)((len - st_min(len, rest) + PAGE - 1) / PAGE);
    uint64_t prp2 =
        n == 1 ? SOURCE + PAGE : list(r, LISTS + (offset & ~7u), SOURCE, n);

    memset(st_testnode_bytes(r->node), 0, len);
    if (n > 1 && offset % 8) {
        assert_int_equal(prps(r, NVME_WRITE, len, SOURCE + offset, prp2 + 4),
                         DNR(NVME_INVALID_PRP_OFFSET));
        assert_int_equal(disk[0], 0);
    }
    assert_int_equal(prps(r, NVME_WRITE, len, SOURCE + offset, prp2), NVME_OK);
    assert_memory_equal(disk, source + offset, st_min(len, rest));
    for (uint64_t i = 0, at = rest; at < len; i++, at += PAGE)
        assert_memory_equal(disk + at, source + (n - i) * PAGE,
                            st_min(len - at, PAGE));
    /* And back, to the same offset elsewhere. */
    if (n > 1)
        list(r, prp2, TARGET, n);
    else
        prp2 = TARGET + PAGE;
    assert_int_equal(prps(r, NVME_READ, len, TARGET + offset, prp2), NVME_OK);
    assert_memory_equal(rig_at(r, TARGET + offset), source + offset,
                        st_min(len, rest));
    for (uint64_t i = 0, at = rest; at < len; i++, at += PAGE)
        assert_memory_equal(rig_at(r, TARGET + (n - i) * PAGE),
                            source + (n - i) * PAGE, st_min(len - at, PAGE));
}

static void
every_offset(uint32_t sector)
{
    struct rig *r = ready(sector);

    for (unsigned offset = 0; offset < PAGE; offset += 4) {
        from_offset(r, offset, sector);
        from_offset(r, offset, 2 * PAGE);
        from_offset(r, offset, 5 * PAGE);
    }
    /* The largest: its list crosses into the next page from most places. */
    for (unsigned offset = 0; offset < PAGE; offset += 188)
        from_offset(r, offset, BIG);
    for (unsigned odd = 1; odd < 8; odd += odd == 3 ? 2 : 1)
        assert_int_equal(prps(r, NVME_WRITE, sector, SOURCE + odd, 0),
                         odd == 4 ? NVME_OK : DNR(NVME_INVALID_PRP_OFFSET));
    rig_free(r);
}

/* A page at a map's end, one in the other map, one that is not there. */
static void
ends_of_memory(uint32_t sector)
{
    struct rig *r = ready(sector);
    const unsigned nowhere = DNR(NVME_DATA_TRANSFER_ERROR);
    uint64_t last = LISTS + PAGE - 8; /* a list's last slot */

    assert_int_equal(prps(r, NVME_READ, 2 * PAGE, END - PAGE, SOURCE), NVME_OK);
    assert_int_equal(prps(r, NVME_READ, 2 * PAGE, END - PAGE, END), nowhere);
    assert_int_equal(prps(r, NVME_READ, PAGE, END - 4, SOURCE), NVME_OK);
    assert_int_equal(prps(r, NVME_READ, sector, RIG_NOWHERE, 0), nowhere);
    assert_int_equal(prps(r, NVME_READ, sector, 0, 0), nowhere);
    assert_int_equal(prps(r, NVME_READ, sector, NO_PAGE, 0), nowhere);
    assert_int_equal(prps(r, NVME_READ, 2 * PAGE, NO_PAGE + 4, NO_PAGE),
                     nowhere);
    /* A list that is not there; a page of it that is not; a pointer. */
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, RIG_NOWHERE),
                     nowhere);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, NO_PAGE + 8),
                     nowhere);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, END - 8), nowhere);
    poke(r, LISTS, TARGET);
    poke(r, LISTS + 8, RIG_NOWHERE);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, LISTS), nowhere);
    poke(r, LISTS + 8, NO_PAGE);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, LISTS), nowhere);
    poke(r, last, NO_PAGE);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, last), nowhere);
    poke(r, last, TARGET + PAGE + 8);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, last),
                     DNR(NVME_INVALID_PRP_OFFSET));
    /* What cannot be written is a source, and no target. */
    assert_int_equal(prps(r, NVME_WRITE, sector, FIXED, 0), NVME_OK);
    assert_int_equal(prps(r, NVME_READ, sector, FIXED, 0), nowhere);
    list(r, LISTS, TARGET, 2);
    poke(r, LISTS, FIXED);
    assert_int_equal(prps(r, NVME_WRITE, 3 * PAGE, SOURCE, LISTS), NVME_OK);
    assert_int_equal(prps(r, NVME_READ, 3 * PAGE, SOURCE, LISTS), nowhere);
    others_go_on(r);
    rig_free(r);
}

/* Lists that name themselves, or each other, end with the data. */
static void
loops(uint32_t sector)
{
    struct rig *r = ready(sector);
    struct nvme_sgl_desc ring[2] = {desc(NVME_SGL_DATA_BLOCK, SOURCE, 0),
                                    desc(NVME_SGL_SEGMENT, LISTS, 32)};
    uint64_t last = LISTS + PAGE - 8;

    for (unsigned i = 0; i < PAGE / 8; i++)
        poke(r, LISTS + i * 8, LISTS);
    assert_int_equal(prps(r, NVME_WRITE, BIG, SOURCE, LISTS), NVME_OK);
    assert_int_equal(prps(r, NVME_WRITE, BIG, SOURCE, last), NVME_OK);
    /* The target is the list itself, which changes as it is read. */
    assert_int_equal(prps(r, NVME_READ, BIG, LISTS, LISTS), NVME_OK);
    for (unsigned i = 0; i < PAGE / 8; i++)
        poke(r, LISTS + PAGE + i * 8, LISTS);
    poke(r, last, LISTS + PAGE);
    assert_int_equal(prps(r, NVME_WRITE, BIG, SOURCE, last), NVME_OK);
    /* Longer than a transfer can be, before any list is looked at. */
    assert_int_equal(prps(r, NVME_WRITE, BIG + PAGE, SOURCE, LISTS),
                     DNR(NVME_INVALID_FIELD));
    memcpy(rig_at(r, LISTS), ring, sizeof(ring));
    assert_int_equal(
        sgl(r, NVME_WRITE, PAGE, desc(NVME_SGL_SEGMENT, LISTS, 32)),
        DNR(NVME_INVALID_SGL_COUNT));
    others_go_on(r);
    rig_free(r);
}

/* ---- SGLs ---- */

/* Each type and subtype, in the command and in a segment. */
static void
sgl_types(uint32_t sector)
{
    struct rig *r = ready(sector);
    const uint8_t *disk = st_testnode_bytes(r->node);

    for (unsigned id = 0; id < 256; id++) {
        struct nvme_sgl_desc s = desc(0, SOURCE + id, sector);
        bool block = id == NVME_SGL_DATA_BLOCK << 4;
        bool segment =
            id == NVME_SGL_SEGMENT << 4 || id == NVME_SGL_LAST_SEGMENT << 4;

        s.id = (uint8_t)id;
        memset(rig_at(r, SOURCE + id), 0, sector); /* as a segment: nothing */
        assert_int_equal(sgl(r, NVME_WRITE, sector, s),
                         block     ? NVME_OK
                         : segment ? DNR(id == NVME_SGL_SEGMENT << 4
                                             ? NVME_INVALID_SGL_SEGMENT
                                             : NVME_INVALID_SGL_LENGTH)
                                   : DNR(NVME_INVALID_SGL_TYPE));
        memcpy(rig_at(r, LISTS), &s, sizeof(s));
        assert_int_equal(
            sgl(r, NVME_WRITE, sector, desc(NVME_SGL_LAST_SEGMENT, LISTS, 16)),
            block     ? NVME_OK
            : segment ? DNR(NVME_INVALID_SGL_SEGMENT)
                      : DNR(NVME_INVALID_SGL_TYPE));
    }
    /* Blocks of any length and place, in a chain of segments. */
    for (unsigned offset = 0; offset < 64; offset++) {
        struct nvme_sgl_desc a[2] = {
            desc(NVME_SGL_DATA_BLOCK, SOURCE + offset, 1 + offset),
            desc(NVME_SGL_LAST_SEGMENT, LISTS + PAGE + offset, 32)};
        struct nvme_sgl_desc b[2] = {
            desc(NVME_SGL_DATA_BLOCK, TARGET + 9 - offset % 8, 3),
            desc(NVME_SGL_DATA_BLOCK, SOURCE + PAGE - offset,
                 2 * PAGE - 4 - offset)};

        memcpy(rig_at(r, LISTS + offset), a, sizeof(a));
        memcpy(rig_at(r, LISTS + PAGE + offset), b, sizeof(b));
        memset(rig_at(r, TARGET), (int)offset, 16);
        assert_int_equal(sgl(r, NVME_WRITE, 2 * PAGE,
                             desc(NVME_SGL_SEGMENT, LISTS + offset, 32)),
                         NVME_OK);
        assert_memory_equal(disk, rig_at(r, SOURCE + offset), 1 + offset);
        assert_int_equal(disk[1 + offset], offset);
        assert_memory_equal(disk + 4 + offset,
                            rig_at(r, SOURCE + PAGE - offset),
                            2 * PAGE - 4 - offset);
    }
    rig_free(r);
}

static void
sgl_ends_of_memory(uint32_t sector)
{
    struct rig *r = ready(sector);
    const unsigned nowhere = DNR(NVME_DATA_TRANSFER_ERROR);
    struct nvme_sgl_desc s;

    /* Data that is not there, or only in part, or wraps. */
    s = desc(NVME_SGL_DATA_BLOCK, END - sector, sector);
    assert_int_equal(sgl(r, NVME_READ, sector, s), NVME_OK);
    s = desc(NVME_SGL_DATA_BLOCK, END - sector + 1, sector);
    assert_int_equal(sgl(r, NVME_READ, sector, s), nowhere);
    s = desc(NVME_SGL_DATA_BLOCK, UINT64_MAX - sector / 2, sector);
    assert_int_equal(sgl(r, NVME_READ, sector, s), nowhere);
    s = desc(NVME_SGL_DATA_BLOCK, FIXED, sector);
    assert_int_equal(sgl(r, NVME_WRITE, sector, s), NVME_OK);
    assert_int_equal(sgl(r, NVME_READ, sector, s), nowhere);
    /* Too long, too short; a length that is 4 GiB. */
    s = desc(NVME_SGL_DATA_BLOCK, SOURCE, sector + 1);
    assert_int_equal(sgl(r, NVME_WRITE, sector, s),
                     DNR(NVME_INVALID_SGL_LENGTH));
    s = desc(NVME_SGL_DATA_BLOCK, SOURCE, sector - 1);
    assert_int_equal(sgl(r, NVME_WRITE, sector, s),
                     DNR(NVME_INVALID_SGL_LENGTH));
    s = desc(NVME_SGL_DATA_BLOCK, SOURCE, UINT32_MAX);
    assert_int_equal(sgl(r, NVME_WRITE, sector, s),
                     DNR(NVME_INVALID_SGL_LENGTH));
    /* Segments: of no, of an odd length; not there; wrapping. */
    for (unsigned type = NVME_SGL_SEGMENT; type <= NVME_SGL_LAST_SEGMENT;
         type++) {
        for (unsigned len = 0; len < 16; len++)
            assert_int_equal(sgl(r, NVME_WRITE, sector, desc(type, LISTS, len)),
                             DNR(NVME_INVALID_SGL_SEGMENT));
        assert_int_equal(
            sgl(r, NVME_WRITE, sector, desc(type, RIG_NOWHERE, 16)), nowhere);
        assert_int_equal(sgl(r, NVME_WRITE, sector, desc(type, END - 8, 16)),
                         nowhere);
        assert_int_equal(
            sgl(r, NVME_WRITE, sector, desc(type, UINT64_MAX - 7, 16)),
            DNR(NVME_INVALID_SGL_SEGMENT));
        assert_int_equal(
            sgl(r, NVME_WRITE, sector, desc(type, NO_PAGE, UINT32_MAX & ~15u)),
            DNR(NVME_INVALID_SGL_SEGMENT));
    }
    others_go_on(r);
    rig_free(r);
}

#define BOTH(f)                                                                \
    static void f##_512(void **state)                                          \
    {                                                                          \
        (void)state;                                                           \
        f(512);                                                                \
    }                                                                          \
    static void f##_4096(void **state)                                         \
    {                                                                          \
        (void)state;                                                           \
        f(4096);                                                               \
    }

BOTH(every_offset)
BOTH(ends_of_memory)
BOTH(loops)
BOTH(sgl_types)
BOTH(sgl_ends_of_memory)

#define T(f) cmocka_unit_test(f##_512), cmocka_unit_test(f##_4096)

int
main(void)
{
    const struct CMUnitTest tests[] = {T(every_offset), T(ends_of_memory),
                                       T(loops), T(sgl_types),
                                       T(sgl_ends_of_memory)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
