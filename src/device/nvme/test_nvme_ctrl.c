/* SPDX-License-Identifier: MIT
 *
 * Registers and the state machine: enable, disable, shutdown, reset.
 */
#include "test_nvme_rig.h"

static void
registers_read_as_they_should(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    assert_int_equal(rig_read(r, 0, 4), 0x280103ff);
    assert_int_equal(rig_read(r, 4, 4), 0x08000020);
    assert_int_equal(rig_read(r, 0, 8), UINT64_C(0x08000020280103ff));
    assert_int_equal(rig_read(r, 2, 2), 0x2801);
    assert_int_equal(rig_read(r, 1, 1), 0x03);
    assert_int_equal(rig_read(r, NVME_REG_VS, 4), 0x20000);
    assert_int_equal(rig_read(r, NVME_REG_CRTO, 4), 0x28);
    assert_int_equal(rig_read(r, 0x18, 4), 0);
    assert_int_equal(rig_read(r, 0xff8, 8), 0);
    assert_int_equal(rig_read(r, NVME_REG_DOORBELLS, 4), 0);
    rig_write(r, 0, 8, UINT64_MAX);
    assert_int_equal(rig_read(r, 0, 4), 0x280103ff);
    rig_free(r);
}

static void
a_command_goes_all_the_way(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint8_t *data = rig_at(r, RIG_DATA);

    (void)state;
    for (unsigned i = 0; i < 4096; i++)
        data[i] = (uint8_t)(i * 7);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 8, 8, RIG_DATA), NULL),
                     NVME_OK);
    assert_memory_equal(st_testnode_bytes(r->node) + 4096, data, 4096);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_READ, 8, 8, RIG_HIGH), NULL),
                     NVME_OK);
    assert_memory_equal(rig_at(r, RIG_HIGH), data, 4096);
    assert_int_equal(atomic_load(&r->msix[1]), 2);
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_read_as_they_should),
        cmocka_unit_test(a_command_goes_all_the_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
