/* SPDX-License-Identifier: MIT
 *
 * Admin commands through a whole controller: Identify, log pages, features,
 * events, Format.
 */
#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)

static uint8_t *
page(struct rig *r)
{
    return rig_at(r, RIG_DATA);
}

static uint32_t
word(struct rig *r, unsigned i)
{
    le32 v;

    memcpy(&v, page(r) + 4 * i, sizeof(v));
    return le32_get(v);
}

static unsigned
identify(struct rig *r, uint32_t nsid, uint32_t cns, uint64_t prp1)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, nsid, prp1, cns, 0),
                  NULL);
}

/* ---- Identify ---- */

static void
identify_arrives_with_its_interrupt(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    memset(page(r), 0xcc, 8192);
    assert_int_equal(identify(r, 0, 1, RIG_DATA), NVME_OK);
    assert_int_equal(atomic_load(&r->msix[0]), 1);
    assert_memory_equal(page(r), "\x14\x14\x14\x14", 4);
    assert_memory_equal(page(r) + 24, "MSFT NVMe Accelerator v1.0  ", 28);
    assert_memory_equal(page(r) + 768,
                        "nqn.2014-08.org.nvmexpress:uuid:04030201-0605-0807",
                        50);
    assert_int_equal(page(r)[4096], 0xcc);
    assert_int_equal(identify(r, 1, 0, RIG_DATA), NVME_OK);
    assert_int_equal(word(r, 0), RIG_DISK / 512);
    assert_int_equal(identify(r, 0, 2, RIG_DATA), NVME_OK);
    assert_int_equal(word(r, 0), 1);
    assert_int_equal(word(r, 1), 0);
    assert_int_equal(identify(r, 0, 0xee, RIG_DATA), DNR(0x002));
    rig_free(r);
}

static void
data_pointers_are_checked(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct nvme_sqe e = rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA + 4, 1, 0);

    (void)state;
    rig_enable(r);
    e.prp2 = le64_of(RIG_HIGH);
    memset(rig_at(r, RIG_HIGH), 0x11, 8);
    assert_int_equal(rig_do(r, 0, e, NULL), NVME_OK); /* over two pages */
    assert_memory_equal(page(r) + 4, "\x14\x14", 2);
    assert_int_equal(*(uint8_t *)rig_at(r, RIG_HIGH), 0);
    e.prp2 = le64_of(RIG_HIGH + 8);
    assert_int_equal(rig_do(r, 0, e, NULL), DNR(0x013));
    assert_int_equal(identify(r, 0, 1, RIG_DATA + 1), DNR(0x013));
    assert_int_equal(identify(r, 0, 1, RIG_NOWHERE), DNR(0x004));
    e.flags = 1 << NVME_PSDT_SHIFT;
    assert_int_equal(rig_do(r, 0, e, NULL), DNR(0x002));
    e.flags = 1;
    assert_int_equal(rig_do(r, 0, e, NULL), DNR(0x002));
    rig_free(r);
}

static void
unknown_opcodes_are_refused(void **state)
{
    static const uint8_t known[] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7c, 0x80};
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    for (unsigned op = 0; op < 256; op++) {
        if (memchr(known, (int)op, sizeof(known)))
            continue;
        assert_int_equal(
            rig_do(r, 0, rig_admin((uint8_t)op, 1, RIG_DATA, 0, 0), NULL),
            DNR(0x001));
    }
    rig_free(r);
}

/* ---- Log pages ---- */

static unsigned
get_log(struct rig *r, uint8_t lid, uint64_t dwords, uint64_t offset, bool rae)
{
    struct nvme_sqe e =
        rig_admin(NVME_ADMIN_GET_LOG_PAGE, UINT32_MAX, RIG_DATA,
                  (uint32_t)(dwords - 1) << 16 | (rae ? 1 << 15 : 0) | lid,
                  (uint32_t)((dwords - 1) >> 16));

    e.cdw12 = le32_of((uint32_t)offset);
    e.cdw13 = le32_of((uint32_t)(offset >> 32));
    return rig_do(r, 0, e, NULL);
}

static void
log_pages_are_read_in_parts(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint8_t whole[512];

    (void)state;
    rig_enable(r);
    assert_int_equal(get_log(r, 2, 128, 0, true), NVME_OK);
    memcpy(whole, page(r), 512);
    assert_int_equal(whole[3], 100); /* spare */
    memset(page(r), 0xcc, 4096);
    assert_int_equal(get_log(r, 2, 1, 0, true), NVME_OK);
    assert_memory_equal(page(r), whole, 4);
    assert_int_equal(page(r)[4], 0xcc);
    assert_int_equal(get_log(r, 2, 1 << 20, 508, true), NVME_OK);
    assert_memory_equal(page(r), whole + 508, 4);
    assert_int_equal(page(r)[4], 0xcc);
    assert_int_equal(get_log(r, 2, 1, 512, true), NVME_OK); /* nothing */
    assert_int_equal(get_log(r, 2, 1, 516, true), DNR(0x002));
    assert_int_equal(get_log(r, 2, 1, 2, true), DNR(0x002));
    assert_int_equal(get_log(r, 2, 1, UINT64_MAX & ~3ull, true), DNR(0x002));
    /* 4 GiB dwords are what the page has. */
    assert_int_equal(get_log(r, 5, UINT64_C(1) << 32, 0, true), NVME_OK);
    assert_int_equal(get_log(r, 0x55, 1, 0, true), DNR(0x109));
    rig_free(r);
}

static void
smart_counts_what_was_done(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
    le64 v;

    (void)state;
    rig_pair(r, 2, 16, 16);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(
            rig_do(r, i % 2 + 1,
                   rig_rw(i < 4 ? NVME_READ : NVME_WRITE, 0, 8, RIG_DATA),
                   NULL),
            NVME_OK);
    assert_int_equal(get_log(r, 2, 128, 0, true), NVME_OK);
    memcpy(&v, page(r) + 64, 8);
    assert_int_equal(le64_get(v), 4);
    memcpy(&v, page(r) + 80, 8);
    assert_int_equal(le64_get(v), 2);
    memcpy(&v, page(r) + 32, 8);
    assert_int_equal(le64_get(v), 1); /* 32 sectors, in thousands, up */
    rig_free(r);
}

static void
failed_commands_are_logged_newest_first(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
    struct nvme_cqe e;
    uint16_t cid;
    le64 lba;

    (void)state;
    cid = rig_submit(r, 1, rig_rw(NVME_READ, RIG_DISK, 1, RIG_DATA));
    e = rig_reap(r, 1);
    assert_int_equal(le16_get(e.status) >> 1,
                     0x080 | NVME_DNR | 0x2000); /* More */
    assert_int_equal(identify(r, 0, 0xee, RIG_DATA), DNR(0x002));
    assert_int_equal(get_log(r, 1, 32, 0, false), NVME_OK);
    assert_int_equal(word(r, 0), 2);
    assert_int_equal(word(r, 2) & 0xffff, 0); /* of the admin queue */
    assert_int_equal(word(r, 16), 1);
    assert_int_equal(word(r, 18), (uint32_t)cid << 16 | 1);
    memcpy(&lba, page(r) + 64 + 16, 8);
    assert_int_equal(le64_get(lba), RIG_DISK);
    assert_int_equal(word(r, 22), 1); /* nsid */
    /* What was asked for is no error. */
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_COMPARE, 0, 1, RIG_HIGH), NULL),
                     NVME_OK);
    memset(rig_at(r, RIG_HIGH), 1, 512);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_COMPARE, 0, 1, RIG_HIGH), NULL),
                     DNR(0x285));
    assert_int_equal(get_log(r, 1, 32, 0, false), NVME_OK);
    assert_int_equal(word(r, 0), 2);
    rig_free(r);
}

/* ---- Features ---- */

static unsigned
set_feature(struct rig *r, uint8_t fid, uint32_t v)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_SET_FEATURES, 0, RIG_DATA, fid, v),
                  NULL);
}

static uint32_t
get_feature(struct rig *r, uint8_t fid)
{
    uint32_t dw0;

    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_GET_FEATURES, 0, RIG_DATA, fid, 0),
               &dw0),
        NVME_OK);
    return dw0;
}

static void
features_are_kept_until_reset(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    assert_int_equal(set_feature(r, NVME_FEAT_EVENTS, 0x12345), NVME_OK);
    assert_int_equal(get_feature(r, NVME_FEAT_EVENTS), 0x12345);
    assert_int_equal(set_feature(r, NVME_FEAT_QUEUES, 1 << 16 | 2), NVME_OK);
    assert_int_equal(get_feature(r, NVME_FEAT_QUEUES), 1 << 16 | 2);
    rig_disable(r);
    rig_enable(r);
    assert_int_equal(get_feature(r, NVME_FEAT_EVENTS), UINT32_MAX);
    assert_int_equal(get_feature(r, NVME_FEAT_QUEUES), 6 << 16 | 6);
    rig_free(r);
}

static void
the_number_of_queues_is_fixed_by_the_first(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    assert_int_equal(set_feature(r, NVME_FEAT_QUEUES, 0), NVME_OK);
    assert_int_equal(rig_make_cq(r, 2, 8, rig_ring(2, true), true, 0),
                     DNR(0x101));
    rig_pair(r, 1, 8, 8);
    assert_int_equal(set_feature(r, NVME_FEAT_QUEUES, 0), DNR(0x00c));
    rig_free(r);
}

static void
without_a_write_cache_writes_are_durable(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    memset(page(r), 0x42, 512);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 0, 1, RIG_DATA), NULL),
                     NVME_OK);
    assert_int_equal(st_testnode_durable(r->node)[0], 0);
    assert_int_equal(set_feature(r, NVME_FEAT_WRITE_CACHE, 0), NVME_OK);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 1, 1, RIG_DATA), NULL),
                     NVME_OK);
    assert_int_equal(st_testnode_durable(r->node)[512], 0x42);
    rig_free(r);
}

static void
timestamps_begin_at_reset(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    rig_enable(r);
    get_feature(r, NVME_FEAT_TIMESTAMP);
    assert_int_equal(word(r, 1), 0); /* less than 49 days */
    memcpy(page(r), "\x00\x00\x00\x00\x34\x12\x00\x00", 8);
    assert_int_equal(set_feature(r, NVME_FEAT_TIMESTAMP, 0), NVME_OK);
    get_feature(r, NVME_FEAT_TIMESTAMP);
    assert_int_equal(word(r, 1), 0x1234 | 2 << 16); /* by the host */
    rig_free(r);
}

/* ---- Events ---- */

static uint16_t
request_event(struct rig *r)
{
    return rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
}

static uint32_t
event(struct rig *r, uint16_t cid)
{
    struct nvme_cqe e = rig_reap(r, 0);

    assert_int_equal(le16_get(e.cid), cid);
    assert_int_equal(rig_status(&e), NVME_OK);
    return le32_get(e.dw0);
}

static void
no_event(struct rig *r)
{
    struct nvme_cqe e;

    rig_steps(r, 50);
    assert_false(rig_peek(r, 0, &e));
}

enum { NS_CHANGED = 2 | 4 << 16, BAD_VALUE = 1 << 8 | 1 << 16 };

static void
requests_complete_oldest_first(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.no_disk = true});
    uint16_t cid[5];

    (void)state;
    rig_enable(r);
    for (unsigned i = 0; i < 5; i++)
        cid[i] = request_event(r);
    /* The fifth is one too many. */
    {
        struct nvme_cqe e = rig_reap(r, 0);

        assert_int_equal(le16_get(e.cid), cid[4]);
        assert_int_equal(rig_status(&e), DNR(0x105));
    }
    rig_write(r, NVME_REG_DOORBELLS, 4, 999);
    assert_int_equal(event(r, cid[0]), BAD_VALUE);
    rig_write(r, NVME_REG_DOORBELLS, 4, 999); /* masked until it is read */
    no_event(r);
    assert_int_equal(get_log(r, 1, 16, 0, true), NVME_OK); /* retained */
    no_event(r);
    rig_submit(
        r, 0, rig_admin(NVME_ADMIN_GET_LOG_PAGE, 0, RIG_DATA, 15 << 16 | 1, 0));
    rig_reap(r, 0); /* one of the two; the other is the event */
    rig_reap(r, 0);
    rig_free(r);
}

static void
a_masked_change_is_told_later(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    uint16_t cid;
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    (void)state;
    rig_enable(r);
    assert_int_equal(get_log(r, 4, 1024, 0, false), NVME_OK);
    assert_int_equal(word(r, 0), 1); /* added before */
    assert_int_equal(set_feature(r, NVME_FEAT_EVENTS, 0), NVME_OK);
    cid = request_event(r);
    st_nvme_remove_namespace(r->nvme, 1, UINT64_C(1000000000), &c);
    rig_until(r, rc == 0);
    no_event(r);
    rig_submit(
        r, 0,
        rig_admin(NVME_ADMIN_SET_FEATURES, 0, 0, NVME_FEAT_EVENTS, 0x100));
    {
        struct nvme_cqe a = rig_reap(r, 0), b = rig_reap(r, 0);
        struct nvme_cqe *e = le16_get(a.cid) == cid ? &a : &b;

        assert_int_equal(le16_get(e->cid), cid);
        assert_int_equal(le32_get(e->dw0), NS_CHANGED);
    }
    /* Told once, until the page is read. */
    cid = request_event(r);
    assert_int_equal(
        st_nvme_add_namespace(r->nvme, 3, r->disk, false, NULL, NULL), 0);
    no_event(r);
    assert_int_equal(get_log(r, 4, 1024, 0, true), NVME_OK);
    assert_int_equal(word(r, 0), 1);
    assert_int_equal(word(r, 1), 3);
    assert_int_equal(word(r, 2), 0);
    no_event(r);
    assert_int_equal(get_log(r, 4, 1024, 0, false), NVME_OK);
    assert_int_equal(word(r, 1), 3);
    no_event(r);
    assert_int_equal(get_log(r, 4, 1024, 0, false), NVME_OK);
    assert_int_equal(word(r, 0), 0);
    assert_int_equal(
        st_nvme_add_namespace(r->nvme, 4, r->disk, false, NULL, NULL), 0);
    assert_int_equal(event(r, cid), NS_CHANGED);
    rig_free(r);
}

/* Only what was sent is forgotten. */
static void
a_short_read_of_changes_keeps_the_rest(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct nvme_sqe e;
    uint16_t cid, log;

    (void)state;
    rig_enable(r);
    for (uint32_t i = 2; i <= 4; i++)
        assert_int_equal(
            st_nvme_add_namespace(r->nvme, i, r->disk, false, NULL, NULL), 0);
    cid = request_event(r);
    assert_int_equal(event(r, cid), NS_CHANGED);
    cid = request_event(r);
    no_event(r);
    e = rig_admin(NVME_ADMIN_GET_LOG_PAGE, 0, RIG_DATA, 1 << 16 | 4, 0);
    log = rig_submit(r, 0, e);
    for (unsigned i = 0; i < 2; i++) {
        struct nvme_cqe c = rig_reap(r, 0);

        if (le16_get(c.cid) == cid)
            assert_int_equal(le32_get(c.dw0), NS_CHANGED);
        else
            assert_int_equal(le16_get(c.cid), log);
    }
    assert_int_equal(word(r, 0), 1);
    assert_int_equal(word(r, 1), 2);
    assert_int_equal(get_log(r, 4, 1024, 0, false), NVME_OK);
    assert_int_equal(word(r, 0), 3);
    assert_int_equal(word(r, 1), 4);
    assert_int_equal(word(r, 2), 0);
    rig_free(r);
}

static void
requests_do_not_block_the_smallest_queue(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.admin_entries = 2});
    uint64_t posted;
    uint16_t cid;

    (void)state;
    rig_enable(r);
    assert_int_equal(get_log(r, 4, 1024, 0, false), NVME_OK);
    cid = request_event(r);
    rig_steps(r, 20);
    for (unsigned i = 0; i < 3; i++) {
        request_event(r);
        rig_steps(r, 20);
    }
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(identify(r, 0, 1, RIG_DATA), NVME_OK);
    /* The event waits for room. */
    rig_submit(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0));
    rig_steps(r, 50);
    posted = rig_counter(r, "completions");
    rig_write(r, NVME_REG_DOORBELLS + 4 * 0x50, 4, 0);
    rig_steps(r, 50);
    assert_int_equal(rig_counter(r, "completions"), posted);
    rig_reap(r, 0);
    assert_int_equal(event(r, cid), 1 << 16);
    rig_free(r);
}

static void
requests_can_be_aborted(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.no_disk = true});
    uint16_t cid, abort_cid;

    (void)state;
    rig_enable(r);
    cid = request_event(r);
    abort_cid = rig_submit(
        r, 0, rig_admin(NVME_ADMIN_ABORT, 0, 0, (uint32_t)cid << 16, 0));
    for (unsigned i = 0; i < 2; i++) {
        struct nvme_cqe e = rig_reap(r, 0);

        assert_int_equal(le32_get(e.dw0), 0);
        assert_int_equal(rig_status(&e), le16_get(e.cid) == abort_cid
                                             ? NVME_OK
                                             : NVME_ABORT_REQUESTED);
    }
    rig_free(r);
}

static void
requests_vanish_with_a_reset(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.no_disk = true});

    (void)state;
    rig_enable(r);
    for (unsigned i = 0; i < 4; i++)
        request_event(r);
    rig_steps(r, 30);
    rig_disable(r);
    rig_enable(r);
    rig_write(r, NVME_REG_DOORBELLS, 4, 999);
    no_event(r);
    for (unsigned i = 0; i < 3; i++)
        request_event(r);
    rig_reap(r, 0);
    no_event(r);
    rig_free(r);
}

static void
a_threshold_below_the_temperature_is_an_event(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){.no_disk = true});
    uint16_t cid;

    (void)state;
    rig_enable(r);
    cid = request_event(r);
    rig_submit(
        r, 0,
        rig_admin(NVME_ADMIN_SET_FEATURES, 0, 0, NVME_FEAT_TEMPERATURE, 290));
    for (unsigned i = 0; i < 2; i++) {
        struct nvme_cqe e = rig_reap(r, 0);

        if (le16_get(e.cid) == cid)
            assert_int_equal(le32_get(e.dw0), 1 | 1 << 8 | 2 << 16);
    }
    assert_int_equal(get_log(r, 2, 128, 0, false), NVME_OK);
    assert_int_equal(page(r)[0], 2);
    rig_free(r);
}

/* ---- Format ---- */

static unsigned
format(struct rig *r, uint32_t nsid, uint32_t cdw10)
{
    return rig_do(r, 0, rig_admin(NVME_ADMIN_FORMAT, nsid, 0, cdw10, 0), NULL);
}

static void
format_checks_and_erases(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});

    (void)state;
    memset(st_testnode_bytes(r->node), 0x99, RIG_DISK);
    assert_int_equal(format(r, 0, 0), DNR(0x00b));
    assert_int_equal(format(r, 2, 0), DNR(0x00b));
    assert_int_equal(format(r, UINT32_MAX, 0), DNR(0x00b));
    assert_int_equal(format(r, 1, 1), DNR(0x10a));
    assert_int_equal(format(r, 1, 1 << 5), DNR(0x10a));
    assert_int_equal(format(r, 1, 2 << 9), DNR(0x002));
    assert_int_equal(st_testnode_bytes(r->node)[0], 0x99);
    assert_int_equal(format(r, 1, 1 << 9), NVME_OK);
    assert_true(st_mem_is_zero(st_testnode_bytes(r->node), RIG_DISK));
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                     NVME_OK);
    rig_free(r);
}

static void
format_waits_and_keeps_others_out(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
    uint16_t cid;
    struct nvme_cqe e;

    (void)state;
    st_testnode_hang(r->node, true);
    rig_submit(r, 1, rig_rw(NVME_WRITE, 0, 1, RIG_DATA));
    rig_until(r, st_testnode_held(r->node) == 1);
    cid = rig_submit(r, 0, rig_admin(NVME_ADMIN_FORMAT, 1, 0, 0, 0));
    rig_steps(r, 100);
    assert_int_equal(st_testnode_held(r->node), 1); /* it waits */
    rig_submit(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA));
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), 0x084);
    assert_int_equal(format(r, 1, 0), 0x084);
    st_testnode_hang(r->node, false);
    e = rig_reap(r, 1);
    assert_int_equal(rig_status(&e), NVME_OK);
    e = rig_reap(r, 0);
    assert_int_equal(le16_get(e.cid), cid);
    assert_int_equal(rig_status(&e), NVME_OK);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL),
                     NVME_OK);
    rig_free(r);
}

static void
a_reset_ends_a_format(void **state)
{
    for (int erasing = 0; erasing < 2; erasing++)
        for (int can = 0; can < 2; can++) {
            struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});

            (void)state;
            st_testnode_cancellable(r->node, can);
            st_testnode_hang(r->node, true);
            if (!erasing)
                rig_submit(r, 1, rig_rw(NVME_WRITE, 0, 1, RIG_DATA));
            rig_submit(r, 0, rig_admin(NVME_ADMIN_FORMAT, 1, 0, 0, 0));
            rig_until(r, st_testnode_held(r->node) == 1);
            rig_steps(r, 30);
            rig_disable(r);
            st_testnode_hang(r->node, false);
            rig_steps(r, 100);
            rig_enable(r);
            rig_pair(r, 1, 8, 8);
            assert_int_equal(
                rig_do(r, 1, rig_rw(NVME_READ, 0, 1, RIG_DATA), NULL), NVME_OK);
            rig_free(r);
        }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identify_arrives_with_its_interrupt),
        cmocka_unit_test(data_pointers_are_checked),
        cmocka_unit_test(unknown_opcodes_are_refused),
        cmocka_unit_test(log_pages_are_read_in_parts),
        cmocka_unit_test(smart_counts_what_was_done),
        cmocka_unit_test(failed_commands_are_logged_newest_first),
        cmocka_unit_test(features_are_kept_until_reset),
        cmocka_unit_test(the_number_of_queues_is_fixed_by_the_first),
        cmocka_unit_test(without_a_write_cache_writes_are_durable),
        cmocka_unit_test(timestamps_begin_at_reset),
        cmocka_unit_test(requests_complete_oldest_first),
        cmocka_unit_test(a_masked_change_is_told_later),
        cmocka_unit_test(a_short_read_of_changes_keeps_the_rest),
        cmocka_unit_test(requests_do_not_block_the_smallest_queue),
        cmocka_unit_test(requests_can_be_aborted),
        cmocka_unit_test(requests_vanish_with_a_reset),
        cmocka_unit_test(a_threshold_below_the_temperature_is_an_event),
        cmocka_unit_test(format_checks_and_erases),
        cmocka_unit_test(format_waits_and_keeps_others_out),
        cmocka_unit_test(a_reset_ends_a_format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
