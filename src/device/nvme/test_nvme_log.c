/* SPDX-License-Identifier: MIT
 *
 * Log pages, byte by byte, and the table of commands.
 */
#include "test_nvme_page.h"

static struct nvme_logs logs;
static uint64_t delivered[NVME_NN_MAX / 64];

static int
setup_logs(void **state)
{
    memset(&logs, 0, sizeof(logs));
    memset(delivered, 0, sizeof(delivered));
    return setup(state);
}

static uint16_t
get(uint8_t lid, uint32_t nsid)
{
    memset(rig.page, 0xee, sizeof(rig.page));
    rig.sqe = (struct nvme_sqe){.opcode = NVME_ADMIN_GET_LOG_PAGE,
                                .nsid = le32_of(nsid),
                                .cdw10 = le32_of(lid)};
    return st_nvme_log_page(&logs, &rig.info, &rig.t, &rig.sqe, rig.page,
                            delivered);
}

static void
sizes_are_the_standards(void **state)
{
    static const unsigned size[] = {1024, 4096, 512, 512, 4096, 4096};

    (void)state;
    for (unsigned lid = 0; lid < 256; lid++) {
        unsigned want = lid < 6 ? size[lid] : 0;

        assert_int_equal(st_nvme_log_size((uint8_t)lid), want);
        assert_int_equal(get((uint8_t)lid, 0xffffffff),
                         want ? NVME_OK : NVME_INVALID_LOG_PAGE | NVME_DNR);
        for (unsigned i = want; i < sizeof(rig.page); i++)
            assert_int_equal(rig.page[i], 0xee); /* untouched */
    }
}

static void
supported_pages_are_those_there_are(void **state)
{
    (void)state;
    assert_int_equal(get(0x00, 0), NVME_OK);
    for (unsigned lid = 0; lid < 6; lid++)
        assert_int_equal(take(lid * 4, 4), 1);
    rest_is_zero(1024);
}

/* ---- Errors ---- */

static void
an_error_has_its_fields(void **state)
{
    struct nvme_error e = {.count = 99,
                           .sqid = 0x102,
                           .cid = 0x304,
                           .status = NVME_LBA_OUT_OF_RANGE | NVME_DNR,
                           .where = 0x0328,
                           .lba = UINT64_C(0x1122334455667788),
                           .nsid = 5};

    (void)state;
    st_nvme_log_error(&logs, &e);
    assert_int_equal(get(0x01, 0xffffffff), NVME_OK);
    assert_int_equal(take(0, 8), 1); /* not what the caller said */
    assert_int_equal(take(8, 2), 0x102);
    assert_int_equal(take(10, 2), 0x304);
    assert_int_equal(take(12, 2), 0x8100); /* DNR, 080h, phase 0 */
    assert_int_equal(take(14, 2), 0x0328);
    assert_int_equal(take(16, 8), UINT64_C(0x1122334455667788));
    assert_int_equal(take(24, 4), 5);
    rest_is_zero(4096);
}

static void
errors_are_newest_first_and_the_oldest_go(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 100; i++) {
        struct nvme_error e = {.cid = (uint16_t)(1000 + i)};

        st_nvme_log_error(&logs, &e);
    }
    assert_int_equal(get(0x01, 0), NVME_OK);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(take(i * 64, 8), 100 - i);
        assert_int_equal(take(i * 64 + 10, 2), 1100 - i);
    }
    rest_is_zero(4096);
}

/* ---- SMART, firmware ---- */

static void
smart_has_its_fields(void **state)
{
    (void)state;
    logs = (struct nvme_logs){
        .errors = 11,
        .read_blocks = 1001,
        .written_blocks = 2000,
        .reads = 3,
        .writes = 4,
        .media_errors = 5,
        .power_cycles = 6,
        .unsafe_shutdowns = 7,
        .busy_minutes = 8,
        .power_on_hours = 9,
        .critical_warning = 2,
        .temperature = 300,
    };
    assert_int_equal(get(0x02, 0xffffffff), NVME_OK);
    assert_int_equal(take(0, 1), 2);
    assert_int_equal(take(1, 2), 300);
    assert_int_equal(take(3, 1), 100);
    assert_int_equal(take(4, 1), 10);
    assert_int_equal(take(32, 16), 2); /* rounded up */
    assert_int_equal(take(48, 16), 2);
    assert_int_equal(take(64, 16), 3);
    assert_int_equal(take(80, 16), 4);
    assert_int_equal(take(96, 16), 8);
    assert_int_equal(take(112, 16), 6);
    assert_int_equal(take(128, 16), 9);
    assert_int_equal(take(144, 16), 7);
    assert_int_equal(take(160, 16), 5);
    assert_int_equal(take(176, 16), 11);
    rest_is_zero(512);
}

static void
units_round_up_without_overflow(void **state)
{
    (void)state;
    logs.read_blocks = 1;
    logs.written_blocks = UINT64_MAX;
    assert_int_equal(get(0x02, 0), NVME_OK);
    assert_int_equal(take(32, 8), 1);
    assert_int_equal(take(48, 8), UINT64_MAX / 1000 + 1);
}

static void
firmware_is_in_slot_one(void **state)
{
    (void)state;
    assert_int_equal(get(0x03, 0), NVME_OK);
    assert_int_equal(take(0, 1), 1);
    take_text(8, 8, "1.2", ' ');
    rest_is_zero(512);
}

/* ---- Changed namespaces ---- */

static void
changed_namespaces_ascend_and_are_delivered(void **state)
{
    (void)state;
    logs.changed[0] = 1 | UINT64_C(1) << 63;
    logs.changed[15] = UINT64_C(1) << 63;
    assert_int_equal(get(0x04, 0xffffffff), NVME_OK);
    assert_int_equal(take(0, 4), 1);
    assert_int_equal(take(4, 4), 64);
    assert_int_equal(take(8, 4), 1024);
    rest_is_zero(4096);
    assert_memory_equal(delivered, logs.changed, sizeof(delivered));
}

static void
all_that_can_change_fit(void **state)
{
    (void)state;
    memset(logs.changed, 0xff, sizeof(logs.changed));
    assert_int_equal(get(0x04, 0), NVME_OK);
    for (unsigned i = 0; i < 1024; i++)
        assert_int_equal(take(i * 4, 4), i + 1);
}

/* ---- Effects ---- */

static void
effects_are_what_is_dispatched(void **state)
{
    (void)state;
    rig.info.shadow = true;
    assert_int_equal(get(0x05, 0), NVME_OK);
    for (unsigned op = 0; op < 256; op++) {
        assert_int_equal(take(op * 4, 4),
                         st_nvme_effects(true, (uint8_t)op, &rig.info));
        assert_int_equal(take(1024 + op * 4, 4),
                         st_nvme_effects(false, (uint8_t)op, &rig.info));
    }
    rest_is_zero(4096);
}

static void
effects_of_each_command(void **state)
{
    static const uint8_t admin[] = {0, 1, 2, 4, 5, 6, 8, 9, 0xa, 0xc};
    static const uint8_t plain[] = {0x00, 0x02, 0x05, 0x0c};
    static const uint8_t blocks[] = {0x01, 0x08, 0x09, 0x19};

    (void)state;
    for (unsigned op = 0; op < 256; op++) {
        uint32_t want = memchr(admin, (int)op, sizeof(admin)) ? 1 : 0;

        if (op == 0x80)
            want = 0x10003; /* Format: alone in its namespace */
        assert_int_equal(st_nvme_effects(true, (uint8_t)op, &rig.info), want);
        want = memchr(plain, (int)op, sizeof(plain))     ? 1
               : memchr(blocks, (int)op, sizeof(blocks)) ? 3
                                                         : 0;
        assert_int_equal(st_nvme_effects(false, (uint8_t)op, &rig.info), want);
    }
    rig.info.shadow = true;
    assert_int_equal(st_nvme_effects(true, 0x7c, &rig.info), 1);
}

/* ---- Who may ask for what ---- */

static void
only_smart_is_of_a_namespace(void **state)
{
    (void)state;
    attach(1, 512, NULL);
    atomic_store(&attach(2, 512, NULL)->gone, true);
    for (uint8_t lid = 0; lid < 6; lid++) {
        uint16_t status = lid == 2 ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR;

        assert_int_equal(get(lid, 1), status);
        assert_int_equal(get(lid, 2), NVME_INVALID_FIELD | NVME_DNR);
        assert_int_equal(get(lid, 3), NVME_INVALID_FIELD | NVME_DNR);
        assert_int_equal(get(lid, NN + 1), NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(get(lid, 0xfffffffe),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_logs, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(sizes_are_the_standards),
        TEST(supported_pages_are_those_there_are),
        TEST(an_error_has_its_fields),
        TEST(errors_are_newest_first_and_the_oldest_go),
        TEST(smart_has_its_fields),
        TEST(units_round_up_without_overflow),
        TEST(firmware_is_in_slot_one),
        TEST(changed_namespaces_ascend_and_are_delivered),
        TEST(all_that_can_change_fit),
        TEST(effects_are_what_is_dispatched),
        TEST(effects_of_each_command),
        TEST(only_smart_is_of_a_namespace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
