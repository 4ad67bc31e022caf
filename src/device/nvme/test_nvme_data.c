/* SPDX-License-Identifier: MIT
 *
 * PRPs and SGLs against a model: data lies in random pages, the lists at every
 * place that they can have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "data.h"
#include "rand.h"
#include "range.h"

enum { PAGE = NVME_PAGE, PAGES = 1024, BASE = 0x40000000, LISTS = PAGES - 8 };

static struct rig {
    struct st_domain *d;
    struct st_loop *loop;
    struct st_gmem *g;
    struct st_gmem_view *v;
    struct st_rand rand;
    uint8_t *ram; /* guest pages from BASE on */
    struct nvme_data data;
} rig;

static int
setup(void **state)
{
    struct st_domain_opts o = {.engine = "virtual", .seed = 1};
    struct st_gmem_map m = {.gpa = BASE, .len = PAGES * PAGE, .writable = true};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_domain_create(&o, &rig.d, NULL), 0);
    assert_int_equal(st_loop_create(rig.d, &rig.loop, NULL), 0);
    rig.ram = aligned_alloc(PAGE, PAGES * PAGE);
    memset(rig.ram, 0xff, PAGES * PAGE); /* no valid pointer by chance */
    m.host = rig.ram;
    rig.g = st_gmem_create(rig.loop);
    rig.v = st_gmem_open(rig.g, rig.loop);
    rig.rand = st_rand_seed(5);
    return st_gmem_map(rig.g, &m);
}

static int
teardown(void **state)
{
    (void)state;
    st_gmem_close(rig.v);
    while (st_domain_step(rig.d))
        ;
    st_gmem_destroy(rig.g);
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.d);
    free(rig.ram);
    return 0;
}

static uint64_t
gpa_of(unsigned page)
{
    return BASE + (uint64_t)page * PAGE;
}

static void
poke64(uint64_t gpa, uint64_t value)
{
    le64 v = le64_of(value);

    memcpy(rig.ram + (gpa - BASE), &v, 8);
}

static unsigned
random_page(void)
{
    return (unsigned)st_rand_below(&rig.rand, LISTS);
}

static uint16_t
get(struct nvme_sqe *sqe, uint64_t len, bool sgl)
{
    return st_nvme_data_get(&rig.data, rig.v, sqe, len, true, sgl);
}

/* Does the data hold these LEN bytes next, from place *AT on? */
static void
expect(uint64_t gpa, uint64_t len, size_t *at)
{
    size_t skip = *at;
    unsigned i = 0;

    *at += len;
    while (i < rig.data.n && skip >= rig.data.iov[i].iov_len)
        skip -= rig.data.iov[i++].iov_len;
    while (len) {
        uint64_t part;

        assert_true(i < rig.data.n);
        part = st_min(len, rig.data.iov[i].iov_len - skip);
        assert_ptr_equal((uint8_t *)rig.data.iov[i].iov_base + skip,
                         rig.ram + (gpa - BASE));
        gpa += part;
        len -= part;
        skip = 0;
        i++;
    }
}

static size_t
bytes_got(void)
{
    size_t n = 0;

    for (unsigned i = 0; i < rig.data.n; i++)
        n += rig.data.iov[i].iov_len;
    return n;
}

/* LEN bytes that begin OFFSET into a page, the list LIST bytes into one. */
static void
prp_case(unsigned offset, uint64_t len, unsigned list)
{
    unsigned page[NVME_DATA_PIECES], n = 0, lists = LISTS;
    uint64_t left = len - st_min(len, PAGE - offset);
    uint64_t pages = (left + PAGE - 1) / PAGE, at = gpa_of(lists) + list;
    struct nvme_sqe sqe = {0};
    size_t place = 0;

    page[n++] = random_page();
    sqe.prp1 = le64_of(gpa_of(page[0]) + offset);
    if (pages == 1) {
        page[n] = random_page();
        sqe.prp2 = le64_of(gpa_of(page[n++]));
    } else if (pages > 1) {
        sqe.prp2 = le64_of(at);
        for (uint64_t todo = pages; todo; todo--) {
            if (at % PAGE == PAGE - 8 && todo > 1) {
                poke64(at, gpa_of(++lists));
                at = gpa_of(lists);
            }
            page[n] = random_page();
            poke64(at, gpa_of(page[n++]));
            at += 8;
        }
    }
    assert_int_equal(get(&sqe, len, false), NVME_OK);
    assert_int_equal(bytes_got(), len);
    for (unsigned i = 0; len; i++) {
        uint64_t part = st_min(len, PAGE - (i ? 0 : offset));

        expect(gpa_of(page[i]) + (i ? 0 : offset), part, &place);
        len -= part;
    }
    st_nvme_data_put(&rig.data, rig.v);
}

static void
prps_name_every_length(void **state)
{
    (void)state;
    for (uint64_t len = 1; len <= 3 * PAGE; len += 61)
        for (unsigned offset = 0; offset < PAGE; offset += 508)
            prp_case(offset, len, 0);
    for (uint64_t len = 512; len <= NVME_DATA_MAX; len += 512)
        prp_case(4 * (unsigned)st_rand_below(&rig.rand, PAGE / 4), len,
                 8 * (unsigned)st_rand_below(&rig.rand, PAGE / 8));
}

static void
a_list_begins_anywhere(void **state)
{
    (void)state;
    for (unsigned list = 0; list < PAGE; list += 8) {
        prp_case(0, 3 * PAGE, list);
        prp_case(512, 7 * PAGE, list);
        prp_case(0, NVME_DATA_MAX, list);
        prp_case(PAGE - 4, NVME_DATA_MAX, list);
    }
}

static void
wrong_prps_are_refused(void **state)
{
    struct nvme_sqe sqe = {.prp1 = le64_of(gpa_of(3) + 2)};
    const uint16_t offset = NVME_INVALID_PRP_OFFSET | NVME_DNR;
    const uint16_t transfer = NVME_DATA_TRANSFER_ERROR | NVME_DNR;

    (void)state;
    assert_int_equal(get(&sqe, 512, false), offset);
    sqe.prp1 = le64_of(gpa_of(3));
    sqe.prp2 = le64_of(gpa_of(4) + 4); /* a second page, not at its start */
    assert_int_equal(get(&sqe, 2 * PAGE, false), offset);
    assert_int_equal(get(&sqe, 3 * PAGE, false), offset); /* a list by 4 */
    sqe.prp2 = le64_of(gpa_of(LISTS));
    poke64(gpa_of(LISTS), gpa_of(5));
    poke64(gpa_of(LISTS) + 8, gpa_of(6) + 512);
    assert_int_equal(get(&sqe, 3 * PAGE, false), offset);
    assert_int_equal(rig.data.n, 0);

    /* A chain pointer into a page. */
    sqe.prp2 = le64_of(gpa_of(LISTS) + PAGE - 8);
    poke64(gpa_of(LISTS) + PAGE - 8, gpa_of(LISTS + 1) + 8);
    assert_int_equal(get(&sqe, 3 * PAGE, false), offset);
    /* The same slot is a page when nothing follows. */
    sqe.prp1 = le64_of(gpa_of(3) + PAGE - 512);
    poke64(gpa_of(LISTS) + PAGE - 8, gpa_of(LISTS + 1));
    poke64(gpa_of(LISTS + 1), gpa_of(7));
    poke64(gpa_of(LISTS + 1) + 8, gpa_of(8));
    assert_int_equal(get(&sqe, 512 + 2 * PAGE, false), NVME_OK);
    st_nvme_data_put(&rig.data, rig.v);

    /* A list that names itself ends with the data. */
    sqe.prp1 = le64_of(gpa_of(3));
    poke64(gpa_of(LISTS) + PAGE - 8, gpa_of(LISTS));
    for (unsigned i = 0; i < 256; i++)
        poke64(gpa_of(LISTS) + 8 * i, gpa_of(LISTS));
    assert_int_equal(get(&sqe, NVME_DATA_MAX, false), NVME_OK);
    assert_int_equal(bytes_got(), NVME_DATA_MAX);
    st_nvme_data_put(&rig.data, rig.v);

    sqe.prp1 = le64_of(4096);
    assert_int_equal(get(&sqe, 512, false), transfer);
    sqe.prp1 = le64_of(gpa_of(PAGES) - 512);
    sqe.prp2 = le64_of(gpa_of(PAGES)); /* just behind */
    assert_int_equal(get(&sqe, 1024, false), transfer);
    assert_int_equal(get(&sqe, 3 * PAGE, false), transfer);
    sqe.prp1 = le64_of(UINT64_MAX - 511);
    assert_int_equal(get(&sqe, 512, false), transfer);

    sqe.prp1 = le64_of(gpa_of(3));
    assert_int_equal(get(&sqe, NVME_DATA_MAX + 1, false),
                     NVME_INVALID_FIELD | NVME_DNR);
    sqe.flags = 1 << NVME_PSDT_SHIFT;
    assert_int_equal(get(&sqe, 512, false), NVME_INVALID_FIELD | NVME_DNR);
    sqe.flags = 3 << NVME_PSDT_SHIFT;
    assert_int_equal(get(&sqe, 512, true), NVME_INVALID_FIELD | NVME_DNR);
    sqe.flags = 0;
    assert_int_equal(get(&sqe, 0, false), NVME_OK);
    assert_int_equal(rig.data.n, 0);
}

/* ---- SGLs ---- */

static struct nvme_sgl_desc
desc(enum nvme_sgl_type type, uint64_t gpa, uint32_t len)
{
    return (struct nvme_sgl_desc){.address = le64_of(gpa),
                                  .length = le32_of(len),
                                  .id = (uint8_t)(type << 4)};
}

static void
put_desc(uint64_t gpa, unsigned i, struct nvme_sgl_desc s)
{
    memcpy(rig.ram + (gpa - BASE) + i * sizeof(s), &s, sizeof(s));
}

static uint16_t
get_sgl(struct nvme_sgl_desc first, uint64_t len)
{
    struct nvme_sqe sqe = {.flags = 1 << NVME_PSDT_SHIFT, .sgl = first};

    return get(&sqe, len, true);
}

static void
sgls_chain(void **state)
{
    uint64_t a = gpa_of(LISTS), b = gpa_of(LISTS + 1) + 5; /* any byte */
    size_t place = 0;

    (void)state;
    assert_int_equal(
        get_sgl(desc(NVME_SGL_DATA_BLOCK, gpa_of(9) + 3, 1001), 1001), NVME_OK);
    expect(gpa_of(9) + 3, 1001, &place);
    st_nvme_data_put(&rig.data, rig.v);

    put_desc(a, 0, desc(NVME_SGL_DATA_BLOCK, gpa_of(20) + 1, 7));
    put_desc(a, 1, desc(NVME_SGL_DATA_BLOCK, 0, 0)); /* nothing, nowhere */
    put_desc(a, 2, desc(NVME_SGL_SEGMENT, b, 32));
    put_desc(b, 0, desc(NVME_SGL_DATA_BLOCK, gpa_of(10), 5 * PAGE));
    put_desc(b, 1, desc(NVME_SGL_LAST_SEGMENT, a + 64, 16));
    put_desc(a + 64, 0, desc(NVME_SGL_DATA_BLOCK, gpa_of(30), 505));
    assert_int_equal(get_sgl(desc(NVME_SGL_SEGMENT, a, 48), 5 * PAGE + 512),
                     NVME_OK);
    place = 0;
    expect(gpa_of(20) + 1, 7, &place);
    expect(gpa_of(10), 5 * PAGE, &place);
    expect(gpa_of(30), 505, &place);
    assert_int_equal(bytes_got(), 5 * PAGE + 512);
    st_nvme_data_put(&rig.data, rig.v);
}

static void
wrong_sgls_are_refused(void **state)
{
    uint64_t a = gpa_of(LISTS);
    struct nvme_sgl_desc s;

    (void)state;
#define REFUSED(first, len, why)                                               \
    assert_int_equal(get_sgl(first, len), (why) | NVME_DNR);                   \
    assert_int_equal(rig.data.n, 0)

    /* Lengths. */
    REFUSED(desc(NVME_SGL_DATA_BLOCK, gpa_of(1), 511), 512,
            NVME_INVALID_SGL_LENGTH);
    REFUSED(desc(NVME_SGL_DATA_BLOCK, gpa_of(1), 513), 512,
            NVME_INVALID_SGL_LENGTH);
    REFUSED(desc(NVME_SGL_SEGMENT, a, 0), 512, NVME_INVALID_SGL_SEGMENT);
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, a, 24), 512, NVME_INVALID_SGL_SEGMENT);
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, UINT64_MAX - 7, 16), 512,
            NVME_INVALID_SGL_SEGMENT);
    /* Types. */
    REFUSED(desc(NVME_SGL_BIT_BUCKET, a, 512), 512, NVME_INVALID_SGL_TYPE);
    REFUSED(desc(4, a, 512), 512, NVME_INVALID_SGL_TYPE);
    s = desc(NVME_SGL_DATA_BLOCK, gpa_of(1), 512);
    s.id |= 1; /* an offset, for fabrics */
    REFUSED(s, 512, NVME_INVALID_SGL_TYPE);
    put_desc(a, 0, s);
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, a, 16), 512, NVME_INVALID_SGL_TYPE);
    put_desc(a, 0, desc(NVME_SGL_BIT_BUCKET, a, 512));
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, a, 16), 512, NVME_INVALID_SGL_TYPE);
    /* Segments in wrong places. */
    put_desc(a, 0, desc(NVME_SGL_SEGMENT, a, 16));
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, a, 16), 512, NVME_INVALID_SGL_SEGMENT);
    put_desc(a, 1, desc(NVME_SGL_DATA_BLOCK, gpa_of(1), 512));
    REFUSED(desc(NVME_SGL_SEGMENT, a, 32), 512, NVME_INVALID_SGL_COUNT);
    put_desc(a, 0, desc(NVME_SGL_DATA_BLOCK, gpa_of(1), 512));
    REFUSED(desc(NVME_SGL_SEGMENT, a, 16), 512, NVME_INVALID_SGL_SEGMENT);
    /* A ring of segments, and one of blocks of nothing. */
    put_desc(a, 0, desc(NVME_SGL_SEGMENT, a, 16));
    REFUSED(desc(NVME_SGL_SEGMENT, a, 16), 512, NVME_INVALID_SGL_COUNT);
    put_desc(a, 0, desc(NVME_SGL_DATA_BLOCK, 0, 0));
    put_desc(a, 1, desc(NVME_SGL_SEGMENT, a, 32));
    REFUSED(desc(NVME_SGL_SEGMENT, a, 32), 512, NVME_INVALID_SGL_COUNT);
    /* More blocks than we said we take. */
    for (unsigned i = 0; i <= NVME_SGL_DESCRIPTORS; i++)
        put_desc(a, i, desc(NVME_SGL_DATA_BLOCK, gpa_of(2 * i), 1));
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, a, 16 * (NVME_SGL_DESCRIPTORS + 1)),
            NVME_SGL_DESCRIPTORS + 1, NVME_INVALID_SGL_COUNT);
    assert_int_equal(
        get_sgl(desc(NVME_SGL_LAST_SEGMENT, a, 16 * NVME_SGL_DESCRIPTORS),
                NVME_SGL_DESCRIPTORS),
        NVME_OK);
    st_nvme_data_put(&rig.data, rig.v);
    /* Memory that is not there: of the data, of a segment. */
    REFUSED(desc(NVME_SGL_DATA_BLOCK, 0, 512), 512, NVME_DATA_TRANSFER_ERROR);
    REFUSED(desc(NVME_SGL_DATA_BLOCK, UINT64_MAX - 100, 512), 512,
            NVME_DATA_TRANSFER_ERROR);
    REFUSED(desc(NVME_SGL_LAST_SEGMENT, 0, 16), 512, NVME_DATA_TRANSFER_ERROR);
#undef REFUSED
}

/* Whatever the guest says: an answer, and within bounds. */
static void
noise_is_answered(void **state)
{
    unsigned ok = 0;

    (void)state;
    for (unsigned i = 0; i < PAGES * PAGE; i += 8) {
        uint64_t r = st_rand_next(&rig.rand);

        /* Mostly addresses that exist, mostly aligned. */
        if (r % 4)
            r = BASE + (r >> 8) % (PAGES * PAGE) / (r % 3 ? PAGE : 1) *
                           (r % 3 ? PAGE : 1);
        memcpy(rig.ram + i, &r, 8);
    }
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t len = st_rand_below(&rig.rand, NVME_DATA_MAX + 1);
        struct nvme_sqe sqe;

        memcpy(&sqe, rig.ram + 64 * st_rand_below(&rig.rand, PAGES * PAGE / 64),
               64);
        if (i % 8 == 0)
            sqe.sgl = desc(i / 8 % 4,
                           BASE + 16 * st_rand_below(&rig.rand, PAGES * 16),
                           16 * (uint32_t)st_rand_below(&rig.rand, 64));
        sqe.flags = (uint8_t)(i % 3 << NVME_PSDT_SHIFT);
        if (get(&sqe, len, true) == NVME_OK) {
            assert_int_equal(bytes_got(), len);
            ok++;
        }
        st_nvme_data_put(&rig.data, rig.v);
    }
    assert_true(ok > 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(prps_name_every_length), T(a_list_begins_anywhere),
        T(wrong_prps_are_refused), T(sgls_chain),
        T(wrong_sgls_are_refused), T(noise_is_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
