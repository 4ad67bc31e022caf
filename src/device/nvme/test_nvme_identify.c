/* SPDX-License-Identifier: MIT
 *
 * Identify, byte by byte: offsets are the standard's, not those of our structs.
 */
#include "test_nvme_page.h"

static uint16_t
identify_as(uint8_t cns, uint32_t nsid, uint16_t cntid, uint8_t csi)
{
    memset(rig.page, 0xee, sizeof(rig.page));
    rig.sqe = (struct nvme_sqe){
        .opcode = NVME_ADMIN_IDENTIFY,
        .nsid = le32_of(nsid),
        .cdw10 = le32_of((uint32_t)cntid << 16 | cns),
        .cdw11 = le32_of((uint32_t)csi << 24),
    };
    return st_nvme_identify(&rig.info, &rig.t, &rig.sqe, rig.page);
}

static uint16_t
identify(uint8_t cns, uint32_t nsid)
{
    return identify_as(cns, nsid, 0, 0);
}

/* ---- Controller ---- */

static void
take_controller(uint64_t cmic, uint64_t oacs)
{
    assert_int_equal(take(0, 2), 0x1414);
    assert_int_equal(take(2, 2), 0x1415);
    take_text(4, 20, "serial", ' ');
    take_text(24, 40, "MSFT NVMe Accelerator v1.0", ' ');
    take_text(64, 8, "1.2", ' ');
    assert_int_equal(take(72, 1), 6); /* RAB */
    take_bytes(73, "\x74\xe2\x8c", 3);
    assert_int_equal(take(76, 1), cmic);
    assert_int_equal(take(77, 1), 8); /* MDTS: 1 MiB */
    assert_int_equal(take(78, 2), OWN);
    assert_int_equal(take(80, 4), 0x20000);
    assert_int_equal(take(84, 4), 400000);
    assert_int_equal(take(88, 4), 400000);
    assert_int_equal(take(92, 4), 0x100); /* OAES */
    assert_int_equal(take(96, 4), 1);     /* CTRATT */
    assert_int_equal(take(111, 1), 1);    /* CNTRLTYPE */
    assert_int_equal(take(256, 2), oacs);
    assert_int_equal(take(258, 1), 3);     /* ACL */
    assert_int_equal(take(259, 1), 3);     /* AERL */
    assert_int_equal(take(260, 1), 3);     /* FRMW */
    assert_int_equal(take(261, 1), 7);     /* LPA */
    assert_int_equal(take(262, 1), 63);    /* ELPE */
    assert_int_equal(take(266, 2), 0x157); /* WCTEMP */
    assert_int_equal(take(268, 2), 0x175);
    assert_int_equal(take(512, 1), 0x66);
    assert_int_equal(take(513, 1), 0x44);
    assert_int_equal(take(516, 4), NN);
    /* Compare, DSM, zeroes, save and select, timestamp, verify, copy. */
    assert_int_equal(take(520, 2), 0x1dd);
}

static void
take_controller_rest(bool fused)
{
    assert_int_equal(take(522, 2), fused);
    assert_int_equal(take(524, 1), 8);              /* FNA */
    assert_int_equal(take(525, 1), 7);              /* VWC */
    assert_int_equal(take(532, 2), fused ? 15 : 0); /* ACWU: 64 KiB */
    assert_int_equal(take(534, 2), 1);              /* copy format 0 */
    assert_int_equal(take(536, 4), 1);              /* SGLS */
    take_text(768, 256, "nqn.2014-08.org.nvmexpress:uuid:x", 0);
    assert_int_equal(take(2048, 2), 2500); /* 25 W */
    rest_is_zero(4096);
}

static void
controller_is_as_the_standard_says(void **state)
{
    (void)state;
    assert_int_equal(identify(0x01, 0), NVME_OK);
    take_controller(0, 1 << 1);
    take_controller_rest(true);
}

static void
controller_of_a_shared_subsystem_with_shadow_doorbells(void **state)
{
    (void)state;
    rig.info.shared = rig.info.shadow = true;
    assert_int_equal(identify(0x01, 0xffffffff), NVME_OK);
    take_controller(1 << 1, 1 << 1 | 1 << 8);
    take_controller_rest(true);
}

static void
long_names_fill_their_fields(void **state)
{
    (void)state;
    strcpy(rig.info.serial, "12345678901234567890");
    strcpy(rig.info.model, "1234567890123456789012345678901234567890");
    strcpy(rig.info.firmware, "12345678");
    assert_int_equal(identify(0x01, 0), NVME_OK);
    take_text(4, 20, "12345678901234567890", ' ');
    take_text(24, 40, "1234567890123456789012345678901234567890", ' ');
    take_text(64, 8, "12345678", ' ');
    assert_int_equal(take(72, 1), 6);
}

static void
fused_commands_need_a_namespace_that_can(void **state)
{
    struct st_props ro = {.physical_sector_size = 512, .read_only = true};

    (void)state;
    attach(1, 512, &ro);
    assert_int_equal(identify(0x01, 0), NVME_OK);
    take_controller(0, 1 << 1);
    take_controller_rest(false);
    attach(2, 512, NULL);
    assert_int_equal(identify(0x01, 0), NVME_OK);
    take_controller(0, 1 << 1);
    take_controller_rest(true);
}

static void
controller_of_the_command_set(void **state)
{
    (void)state;
    assert_int_equal(identify(0x06, 0), NVME_OK);
    assert_int_equal(take(0, 1), NVME_VSL);
    assert_int_equal(take(1, 1), NVME_WZSL);
    rest_is_zero(4096);
}

/* ---- Namespaces ---- */

/* The fields from 74 on. */
static void
take_namespace_rest(const struct nvme_ns *ns, uint64_t nsattr)
{
    assert_int_equal(take(74, 2), 4096);  /* MSSRL */
    assert_int_equal(take(76, 4), 32768); /* MCL */
    assert_int_equal(take(80, 1), 127);   /* MSRC */
    assert_int_equal(take(99, 1), nsattr);
    take_bytes(104, ns->nguid, 16);
    assert_int_equal(take(128, 4), ns->shift << 16);
    rest_is_zero(4096);
}

static void
namespace_of_small_sectors(void **state)
{
    struct st_props p = {.physical_sector_size = 4096,
                         .unmap_granularity = 65536,
                         .unmap = ST_UNMAP_ZEROES};
    struct nvme_ns *ns = attach(3, 512, &p);

    (void)state;
    ns->shared = true;
    assert_int_equal(identify(0x00, 3), NVME_OK);
    assert_int_equal(take(0, 8), 2048);
    assert_int_equal(take(8, 8), 2048);
    assert_int_equal(take(16, 8), 2048);
    assert_int_equal(take(24, 1), 1 << 0 | 1 << 1 | 1 << 4); /* NSFEAT */
    assert_int_equal(take(30, 1), 1);                        /* NMIC */
    assert_int_equal(take(33, 1), 1 | 1 << 3);               /* DLFEAT */
    assert_int_equal(take(38, 2), 127);                      /* NACWU: 64 KiB */
    assert_int_equal(take(48, 8), 1 << 20);
    assert_int_equal(take(64, 2), 7);   /* NPWG */
    assert_int_equal(take(66, 2), 7);   /* NPWA */
    assert_int_equal(take(68, 2), 127); /* NPDG */
    assert_int_equal(take(70, 2), 127); /* NPDA */
    assert_int_equal(take(72, 2), 7);   /* NOWS */
    take_namespace_rest(ns, 0);
}

static void
namespace_of_large_sectors_read_only(void **state)
{
    struct st_props p = {.physical_sector_size = 4096, .read_only = true};
    struct nvme_ns *ns = attach(NN, 4096, &p);

    (void)state;
    assert_int_equal(identify(0x11, NN), NVME_OK);
    assert_int_equal(take(0, 8), 256);
    assert_int_equal(take(8, 8), 256);
    assert_int_equal(take(16, 8), 256);
    assert_int_equal(take(24, 1), 1 << 1 | 1 << 4);
    assert_int_equal(take(38, 2), 15); /* NACWU */
    assert_int_equal(take(48, 8), 1 << 20);
    take_namespace_rest(ns, 1); /* preferred sizes: one block, 0 */
}

static void
unmap_without_zeroes_says_so(void **state)
{
    struct st_props p = {.physical_sector_size = 512,
                         .unmap_granularity = 1 << 30,
                         .unmap = ST_UNMAP_UNSPECIFIED};

    (void)state;
    attach(1, 512, &p);
    assert_int_equal(identify(0x00, 1), NVME_OK);
    assert_int_equal(rig.page[24], 1 << 0 | 1 << 1 | 1 << 4);
    assert_int_equal(rig.page[33], 0);
    /* More than the field can say: its largest. */
    assert_int_equal(take(68, 2), 0xffff);
}

static void
size_is_that_of_now(void **state)
{
    (void)state;
    attach(1, 512, NULL);
    assert_int_equal(st_testnode_set_size(st_disk_node(rig.disk[0]), 4096), 0);
    while (st_domain_step(rig.d))
        ;
    assert_int_equal(identify(0x00, 1), NVME_OK);
    assert_int_equal(take(0, 8), 8);
}

static void
namespace_independent_of_command_sets(void **state)
{
    struct st_props ro = {.physical_sector_size = 512, .read_only = true};

    (void)state;
    attach(1, 512, NULL)->shared = true;
    assert_int_equal(identify(0x08, 1), NVME_OK);
    assert_int_equal(take(1, 1), 1);  /* NMIC */
    assert_int_equal(take(14, 1), 1); /* NSTAT */
    rest_is_zero(4096);
    attach(2, 512, &ro);
    assert_int_equal(identify(0x08, 2), NVME_OK);
    assert_int_equal(take(8, 1), 1); /* NSATTR */
    assert_int_equal(take(14, 1), 1);
    rest_is_zero(4096);
}

static void
no_format_has_protection_information(void **state)
{
    (void)state;
    attach(1, 512, NULL);
    assert_int_equal(identify(0x05, 1), NVME_OK);
    rest_is_zero(4096);
}

static void
descriptors_name_a_namespace(void **state)
{
    struct nvme_ns *ns = attach(5, 512, NULL);

    (void)state;
    assert_int_equal(identify(0x03, 5), NVME_OK);
    assert_int_equal(take(0, 4), 2 | 16 << 8);
    take_bytes(4, ns->nguid, 16);
    assert_int_equal(take(20, 4), 3 | 16 << 8);
    take_bytes(24, ns->uuid, 16);
    assert_int_equal(take(40, 4), 4 | 1 << 8);
    rest_is_zero(4096); /* NVM is 0; then the end */
}

static void
inactive_namespaces_are_zeroes(void **state)
{
    static const uint8_t cns[] = {0x00, 0x03, 0x05, 0x08, 0x11, 0x12};

    (void)state;
    atomic_store(&attach(2, 512, NULL)->gone, true);
    for (size_t i = 0; i < sizeof(cns); i++) {
        for (uint32_t nsid = 1; nsid <= 2; nsid++) {
            assert_int_equal(identify(cns[i], nsid), NVME_OK);
            rest_is_zero(4096);
        }
        assert_int_equal(identify(cns[i], NN), NVME_OK);
        assert_int_equal(identify(cns[i], 0),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(identify(cns[i], NN + 1),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(identify(cns[i], 0xffffffff),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        rest_is_zero(4096);
    }
}

/* ---- Lists ---- */

static void
lists_name_active_namespaces_after_one(void **state)
{
    static const uint8_t cns[] = {0x02, 0x07, 0x10};

    (void)state;
    attach(1, 512, NULL);
    attach(4, 512, NULL);
    atomic_store(&attach(9, 512, NULL)->gone, true);
    attach(NN, 512, NULL);
    for (size_t i = 0; i < sizeof(cns); i++) {
        assert_int_equal(identify(cns[i], 0), NVME_OK);
        assert_int_equal(take(0, 4), 1);
        assert_int_equal(take(4, 4), 4);
        assert_int_equal(take(8, 4), NN);
        rest_is_zero(4096);
        assert_int_equal(identify(cns[i], 1), NVME_OK);
        assert_int_equal(take(0, 4), 4);
        assert_int_equal(take(4, 4), NN);
        rest_is_zero(4096);
        assert_int_equal(identify(cns[i], 0xfffffffd), NVME_OK);
        rest_is_zero(4096);
        assert_int_equal(identify(cns[i], 0xfffffffe),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
        assert_int_equal(identify(cns[i], 0xffffffff),
                         NVME_INVALID_NAMESPACE | NVME_DNR);
    }
}

static void
a_list_holds_as_many_as_there_can_be(void **state)
{
    static struct nvme_ns *all[NVME_NN_MAX];

    (void)state;
    for (unsigned i = 0; i < NVME_NN_MAX; i++)
        all[i] = &rig.space[0];
    rig.t.ns = all;
    rig.t.nn = NVME_NN_MAX;
    assert_int_equal(identify(0x02, 0), NVME_OK);
    for (unsigned i = 0; i < NVME_NN_MAX; i++)
        assert_int_equal(take(i * 4, 4), i + 1);
}

static void
controllers_of_a_namespace_and_of_all(void **state)
{
    (void)state;
    attach(1, 512, NULL)->shared = true;
    attach(2, 512, NULL);
    for (uint8_t cns = 0x12; cns <= 0x13; cns++) {
        assert_int_equal(identify_as(cns, 1, 0, 0), NVME_OK);
        assert_int_equal(take(0, 2), 3);
        assert_int_equal(take(2, 2), 2);
        assert_int_equal(take(4, 2), OWN);
        assert_int_equal(take(6, 2), 300);
        rest_is_zero(4096);
        assert_int_equal(identify_as(cns, 1, OWN + 1, 0), NVME_OK);
        assert_int_equal(take(0, 2), 1);
        assert_int_equal(take(2, 2), 300);
        rest_is_zero(4096);
    }
    assert_int_equal(identify_as(0x12, 2, 0, 0), NVME_OK);
    assert_int_equal(take(0, 2), 1);
    assert_int_equal(take(2, 2), OWN);
    rest_is_zero(4096);
}

static void
command_sets_are_nvm(void **state)
{
    static const uint16_t known[] = {2, OWN, 300, 0xffff};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(identify_as(0x1c, 0, known[i], 0), NVME_OK);
        assert_int_equal(take(0, 8), 1);
        rest_is_zero(4096);
    }
    assert_int_equal(identify_as(0x1c, 0, 3, 0), NVME_INVALID_FIELD | NVME_DNR);
    rest_is_zero(4096);
}

static void
other_pages_are_refused(void **state)
{
    static const uint8_t known[] = {0, 1,    2,    3,    5,    6,   7,
                                    8, 0x10, 0x11, 0x12, 0x13, 0x1c};

    (void)state;
    attach(1, 512, NULL);
    for (unsigned cns = 0; cns < 256; cns++) {
        bool there = memchr(known, (int)cns, sizeof(known));

        assert_int_equal(identify_as((uint8_t)cns, 1, 0xffff, 0),
                         there ? NVME_OK : NVME_INVALID_FIELD | NVME_DNR);
        if (!there)
            rest_is_zero(4096);
    }
}

static void
other_command_sets_are_refused(void **state)
{
    (void)state;
    attach(1, 512, NULL);
    for (uint8_t csi = 1; csi < 4; csi++)
        for (uint8_t cns = 0x05; cns <= 0x07; cns++) {
            assert_int_equal(identify_as(cns, 1, 0, csi),
                             NVME_INVALID_FIELD | NVME_DNR);
            rest_is_zero(4096);
        }
    /* Where the field means nothing it is not looked at. */
    assert_int_equal(identify_as(0x00, 1, 0, 2), NVME_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(controller_is_as_the_standard_says),
        TEST(controller_of_a_shared_subsystem_with_shadow_doorbells),
        TEST(long_names_fill_their_fields),
        TEST(fused_commands_need_a_namespace_that_can),
        TEST(controller_of_the_command_set),
        TEST(namespace_of_small_sectors),
        TEST(namespace_of_large_sectors_read_only),
        TEST(unmap_without_zeroes_says_so),
        TEST(size_is_that_of_now),
        TEST(namespace_independent_of_command_sets),
        TEST(no_format_has_protection_information),
        TEST(descriptors_name_a_namespace),
        TEST(inactive_namespaces_are_zeroes),
        TEST(lists_name_active_namespaces_after_one),
        TEST(a_list_holds_as_many_as_there_can_be),
        TEST(controllers_of_a_namespace_and_of_all),
        TEST(command_sets_are_nvm),
        TEST(other_pages_are_refused),
        TEST(other_command_sets_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
