/* SPDX-License-Identifier: MIT
 *
 * Features: what may be set, what is said then, and by default.
 */
#include "test_nvme_page.h"

enum { VECTORS = 9 };

static struct nvme_features f;
static uint8_t coalesce_off[VECTORS], data[512];
static struct nvme_feature_env env;
static uint32_t dw0;

static int
setup_features(void **state)
{
    setup(state);
    memset(&f, 0xee, sizeof(f));
    memset(coalesce_off, 0xee, sizeof(coalesce_off));
    f.coalesce_off = coalesce_off;
    f.vectors = VECTORS;
    st_nvme_features_reset(&f, &rig.info);
    env = (struct nvme_feature_env){
        .info = &rig.info, .t = &rig.t, .now_ms = 1000000};
    f.timestamp_set = -1000000;
    return 0;
}

static uint16_t
set_of(uint8_t fid, uint32_t cdw11, uint32_t nsid, bool save)
{
    rig.sqe = (struct nvme_sqe){
        .opcode = NVME_ADMIN_SET_FEATURES,
        .nsid = le32_of(nsid),
        .cdw10 = le32_of(fid | (uint32_t)save << 31),
        .cdw11 = le32_of(cdw11),
    };
    dw0 = 0xeeeeeeee;
    return st_nvme_feature_set(&f, &env, &rig.sqe, data, &dw0);
}

static uint16_t
set(uint8_t fid, uint32_t cdw11)
{
    return set_of(fid, cdw11, 0, false);
}

static uint16_t
get_of(uint8_t fid, unsigned select, uint32_t cdw11)
{
    rig.sqe = (struct nvme_sqe){
        .opcode = NVME_ADMIN_GET_FEATURES,
        .cdw10 = le32_of(fid | select << 8),
        .cdw11 = le32_of(cdw11),
    };
    dw0 = 0xeeeeeeee;
    return st_nvme_feature_get(&f, &env, &rig.sqe, data, &dw0);
}

/* The current value. */
static uint32_t
value(uint8_t fid, uint32_t cdw11)
{
    assert_int_equal(get_of(fid, NVME_SEL_CURRENT, cdw11), NVME_OK);
    return dw0;
}

static const uint8_t known[] = {1, 2,   4,   5,   6,    7,   8,
                                9, 0xa, 0xb, 0xe, 0x16, 0x81};

/* ---- Every feature ---- */

static void
unknown_features_are_refused(void **state)
{
    (void)state;
    for (unsigned fid = 0; fid < 256; fid++) {
        if (memchr(known, (int)fid, sizeof(known)) || fid == 0x82 ||
            fid == 0x83)
            continue;
        assert_int_equal(set((uint8_t)fid, 0), NVME_INVALID_FIELD | NVME_DNR);
        assert_int_equal(get_of((uint8_t)fid, 0, 0),
                         NVME_INVALID_FIELD | NVME_DNR);
        assert_int_equal(get_of((uint8_t)fid, NVME_SEL_CAPABILITIES, 0),
                         NVME_INVALID_FIELD | NVME_DNR);
    }
}

static void
each_can_be_changed_none_saved(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(known); i++) {
        struct nvme_features before;

        assert_int_equal(get_of(known[i], NVME_SEL_CAPABILITIES, 0), NVME_OK);
        assert_int_equal(dw0, 1 << 2);
        memcpy(&before, &f, sizeof(f));
        assert_int_equal(set_of(known[i], 0, 0, true),
                         NVME_FEATURE_NOT_SAVEABLE | NVME_DNR);
        assert_memory_equal(&before, &f, sizeof(f));
        for (unsigned select = 4; select < 8; select++)
            assert_int_equal(get_of(known[i], select, 0),
                             NVME_INVALID_FIELD | NVME_DNR);
    }
}

/* What is saved is the default; neither moves with the current value. */
static void
defaults_stay_as_they_are(void **state)
{
    static const struct {
        uint8_t fid;
        uint32_t select, def, other;
    } row[] = {
        {0x01, 0, 0, 0x01020304},
        {0x02, 0, 0, 1 << 5},
        {0x04, 0, 0x157, 0x100},
        {0x04, 1 << 20, 1 << 20, 1 << 20 | 0x99},
        {0x04, 8 << 16, 8 << 16 | 0xffff, 8 << 16 | 0x98},
        {0x05, 0, 0, 77},
        {0x06, 0, 1, 0},
        {0x07, 0, 7 << 16 | 7, 2 << 16 | 1},
        {0x08, 0, 0, 0x1234},
        {0x09, 3, 3, 1 << 16 | 3},
        {0x0a, 0, 0, 1},
        {0x0b, 0, 0xffffffff, 0xa5a5a5a5},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++) {
        assert_int_equal(value(row[i].fid, row[i].select), row[i].def);
        assert_int_equal(set(row[i].fid, row[i].other), NVME_OK);
        assert_int_equal(dw0, row[i].fid == 0x07 ? row[i].other : 0);
        assert_int_equal(value(row[i].fid, row[i].select), row[i].other);
        assert_int_equal(get_of(row[i].fid, NVME_SEL_DEFAULT, row[i].select),
                         NVME_OK);
        assert_int_equal(dw0, row[i].def);
        assert_int_equal(get_of(row[i].fid, NVME_SEL_SAVED, row[i].select),
                         NVME_OK);
        assert_int_equal(dw0, row[i].def);
        assert_int_equal(value(row[i].fid, row[i].select), row[i].other);
    }
    st_nvme_features_reset(&f, &rig.info);
    for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++)
        assert_int_equal(value(row[i].fid, row[i].select), row[i].def);
}

static void
features_are_of_the_controller(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(known); i++) {
        bool ns = known[i] == 0x05;

        assert_int_equal(set_of(known[i], 0, 1, false),
                         ns ? NVME_OK
                            : NVME_FEATURE_NOT_NS_SPECIFIC | NVME_DNR);
        assert_int_equal(set_of(known[i], 0, NN + 1, false),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(set_of(known[i], 0, 0xffffffff, false), NVME_OK);
        assert_int_equal(set_of(known[i], 0, 0, false), NVME_OK);
    }
}

static void
no_disk_has_reservations(void **state)
{
    (void)state;
    attach(1, 512, NULL);
    for (uint8_t fid = 0x82; fid <= 0x83; fid++) {
        assert_int_equal(set_of(fid, 1, 1, false),
                         NVME_INVALID_FIELD | NVME_DNR);
        assert_int_equal(set_of(fid, 1, 0, false),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(set_of(fid, 1, NN + 1, false),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(get_of(fid, 0, 0), NVME_INVALID_NAMESPACE | NVME_DNR);
    }
}

/* ---- One by one ---- */

static void
there_is_one_power_state(void **state)
{
    (void)state;
    for (uint32_t ps = 1; ps < 32; ps++)
        assert_int_equal(set(0x02, ps), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(value(0x02, 0), 0);
}

static void
temperature_thresholds(void **state)
{
    (void)state;
    assert_int_equal(set(0x04, 2 << 20), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(set(0x04, 3 << 20), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(get_of(0x04, 0, 2 << 20), NVME_INVALID_FIELD | NVME_DNR);
    for (uint32_t sensor = 9; sensor < 15; sensor++)
        assert_int_equal(set(0x04, sensor << 16),
                         NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(get_of(0x04, 0, 15 << 16), NVME_INVALID_FIELD | NVME_DNR);
    /* All at once, over, and none of those under. */
    assert_int_equal(set(0x04, 15 << 16 | 0x111), NVME_OK);
    for (uint32_t sensor = 0; sensor < 9; sensor++) {
        assert_int_equal(value(0x04, sensor << 16), sensor << 16 | 0x111);
        assert_int_equal(value(0x04, 1 << 20 | sensor << 16),
                         1 << 20 | sensor << 16);
    }
}

static void
errors_of_deallocated_blocks_cannot_be_had(void **state)
{
    (void)state;
    assert_int_equal(set(0x05, 1 << 16), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(value(0x05, 0), 0);
}

static void
queues_are_allotted_up_to_what_there_is(void **state)
{
    (void)state;
    assert_int_equal(set(0x07, 100 << 16 | 3), NVME_OK);
    assert_int_equal(dw0, 7 << 16 | 3);
    assert_int_equal(f.nsq, 4);
    assert_int_equal(f.ncq, 8);
    assert_int_equal(set(0x07, 0xfffe), NVME_OK);
    assert_int_equal(dw0, 0 << 16 | 7);
    assert_int_equal(set(0x07, 0xffff), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(set(0x07, 0xffff0000), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(value(0x07, 0), 7);
    env.queues_exist = true;
    assert_int_equal(set(0x07, 0), NVME_COMMAND_SEQUENCE_ERROR | NVME_DNR);
    assert_int_equal(value(0x07, 0), 7);
}

static void
vectors_one_by_one(void **state)
{
    (void)state;
    assert_int_equal(set(0x09, 1 << 16 | (VECTORS - 1)), NVME_OK);
    assert_int_equal(coalesce_off[VECTORS - 1], 1);
    assert_int_equal(value(0x09, 0), 0);
    assert_int_equal(value(0x09, VECTORS - 1), 1 << 16 | (VECTORS - 1));
    assert_int_equal(set(0x09, VECTORS), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(get_of(0x09, 0, VECTORS), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(get_of(0x09, 0, 0xffff), NVME_INVALID_FIELD | NVME_DNR);
    assert_int_equal(set(0x09, VECTORS - 1), NVME_OK);
    assert_int_equal(coalesce_off[VECTORS - 1], 0);
}

/* ---- Those with data ---- */

static void
data_has_a_size(void **state)
{
    (void)state;
    for (unsigned fid = 0; fid < 256; fid++)
        for (uint32_t cdw11 = 0; cdw11 < 2; cdw11++)
            assert_int_equal(st_nvme_feature_data((uint8_t)fid, cdw11),
                             fid == 0x0e   ? 8
                             : fid == 0x16 ? 512
                             : fid == 0x81 ? (cdw11 ? 16 : 8)
                                           : 0);
}

static uint64_t
timestamp(unsigned select)
{
    le64 v;

    memset(data, 0xee, sizeof(data));
    assert_int_equal(get_of(0x0e, select, 0), NVME_OK);
    assert_int_equal(data[8], 0xee);
    memcpy(&v, data, 8);
    return le64_get(v);
}

static void
time_counts_from_reset_until_it_is_set(void **state)
{
    const uint64_t by_host = UINT64_C(1) << 49;
    le64 v = le64_of(UINT64_C(0xffff) << 48 | 5000);

    (void)state;
    assert_int_equal(timestamp(0), 0);
    env.now_ms += 250;
    assert_int_equal(timestamp(0), 250);
    memcpy(data, &v, 8);
    assert_int_equal(set(0x0e, 0), NVME_OK);
    env.now_ms += 7;
    assert_int_equal(timestamp(0), by_host | 5007);
    assert_int_equal(timestamp(NVME_SEL_DEFAULT), 0);
    /* It wraps within its 48 bits. */
    memset(data, 0xff, 6);
    assert_int_equal(set(0x0e, 0), NVME_OK);
    env.now_ms += 2;
    assert_int_equal(timestamp(0), by_host | 1);
}

static void
host_behavior_is_on_or_off(void **state)
{
    uint8_t want[512] = {1, 0, 1};

    (void)state;
    memcpy(data, want, 512);
    assert_int_equal(set(0x16, 0), NVME_OK);
    for (unsigned i = 0; i < 3; i++) {
        memcpy(data, want, 512);
        data[i] = 2;
        assert_int_equal(set(0x16, 0), NVME_INVALID_FIELD | NVME_DNR);
    }
    memset(data, 0xee, 512);
    assert_int_equal(get_of(0x16, 0, 0), NVME_OK);
    assert_memory_equal(data, want, 512);
    assert_int_equal(get_of(0x16, NVME_SEL_DEFAULT, 0), NVME_OK);
    memset(want, 0, 512);
    assert_memory_equal(data, want, 512);
}

static void
host_identifier_has_one_size(void **state)
{
    uint8_t id[16];

    (void)state;
    for (unsigned i = 0; i < 16; i++)
        id[i] = (uint8_t)(0x10 + i);
    memset(data, 0xee, 512);
    assert_int_equal(get_of(0x81, 0, 0), NVME_OK);
    assert_int_equal(data[7], 0);
    assert_int_equal(data[8], 0xee);
    memcpy(data, id, 16);
    assert_int_equal(set(0x81, 1), NVME_OK);
    assert_int_equal(get_of(0x81, 0, 0), NVME_HOST_ID_INCONSISTENT | NVME_DNR);
    memset(data, 0, 16);
    assert_int_equal(get_of(0x81, 0, 1), NVME_OK);
    assert_memory_equal(data, id, 16);
    /* A short one leaves nothing of it. */
    assert_int_equal(set(0x81, 0), NVME_OK);
    assert_int_equal(get_of(0x81, 0, 1), NVME_HOST_ID_INCONSISTENT | NVME_DNR);
    assert_memory_equal(f.host_id, id, 8);
    assert_int_equal(f.host_id[8], 0);
}

static void
a_reset_leaves_nothing(void **state)
{
    struct nvme_features fresh;

    (void)state;
    f.timestamp_set = 0;
    memcpy(&fresh, &f, sizeof(f));
    memset(data, 1, sizeof(data));
    assert_int_equal(set(0x0e, 0), NVME_OK);
    assert_int_equal(set(0x16, 0), NVME_OK);
    assert_int_equal(set(0x81, 1), NVME_OK);
    assert_int_equal(set(0x09, 1 << 16 | 2), NVME_OK);
    st_nvme_features_reset(&f, &rig.info);
    assert_memory_equal(&fresh, &f, sizeof(f));
    for (unsigned i = 0; i < VECTORS; i++)
        assert_int_equal(coalesce_off[i], 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup_features, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(unknown_features_are_refused),
        TEST(each_can_be_changed_none_saved),
        TEST(defaults_stay_as_they_are),
        TEST(features_are_of_the_controller),
        TEST(no_disk_has_reservations),
        TEST(there_is_one_power_state),
        TEST(temperature_thresholds),
        TEST(errors_of_deallocated_blocks_cannot_be_had),
        TEST(queues_are_allotted_up_to_what_there_is),
        TEST(vectors_one_by_one),
        TEST(data_has_a_size),
        TEST(time_counts_from_reset_until_it_is_set),
        TEST(host_behavior_is_on_or_off),
        TEST(host_identifier_has_one_size),
        TEST(a_reset_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
