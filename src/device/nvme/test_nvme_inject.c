/* SPDX-License-Identifier: MIT
 *
 * Faults on demand, as a driver meets them.
 */
#include "test_nvme_rig.h"

#define DNR(status) ((status) | NVME_DNR)
#define MS(n)       ((n)*UINT64_C(1000000))

/* The rules are RULES, with ' for ". */
static void
faults(struct rig *r, const char *rules)
{
    char text[1024];
    struct st_err err;

    snprintf(text, sizeof(text), "{\"rules\": [%s]}", rules);
    for (char *c = text; *c; c++)
        if (*c == '\'')
            *c = '"';
    if (st_nvme_set_faults(r->nvme, text, &err) < 0)
        fail_msg("%s", err.text);
}

static uint16_t
read_at(struct rig *r, uint64_t lba)
{
    return rig_submit(r, 1, rig_rw(NVME_READ, lba, 1, RIG_DATA));
}

static unsigned
ends(struct rig *r, uint16_t cid)
{
    struct nvme_cqe e = rig_reap(r, 1);

    assert_int_equal(le16_get(e.cid), cid);
    return rig_status(&e);
}

static void
nothing_ends(struct rig *r, uint64_t ns)
{
    struct nvme_cqe e;

    rig_pass(r, ns);
    assert_false(rig_peek(r, 1, &e));
}

static void
statuses_are_put_in_place(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    faults(r, "{'on':'io.sqe','opcode':'read','lba':[8,15],'count':1,"
              "'do':{'status':'unrecovered-read','dnr':true}},"
              "{'on':'io.cqe','opcode':'read','lba':[100,100],"
              "'do':{'status':'internal-error'}}");
    assert_int_equal(ends(r, read_at(r, 9)), DNR(0x281));
    assert_int_equal(st_testnode_count(r->node, ST_OP_READ), 0);
    assert_int_equal(ends(r, read_at(r, 9)), NVME_OK);
    assert_int_equal(ends(r, read_at(r, 100)), 0x006);
    assert_int_equal(st_testnode_count(r->node, ST_OP_READ), 2);
    faults(r, "");
    assert_int_equal(ends(r, read_at(r, 100)), NVME_OK);
    rig_free(r);
}

/* The block that entry I of the error log names. */
static uint64_t
logged_lba(struct rig *r, unsigned i)
{
    struct nvme_sqe e = rig_admin(NVME_ADMIN_GET_LOG_PAGE, 0, RIG_DATA,
                                  255 << 16 | NVME_LOG_ERROR, 0);
    le64 lba;

    assert_int_equal(rig_do(r, 0, e, NULL), NVME_OK);
    memcpy(&lba, (uint8_t *)rig_at(r, RIG_DATA) + (size_t)i * 64 + 16, 8);
    return le64_get(lba);
}

static void
the_error_log_names_the_block(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_sqe nowhere = rig_rw(NVME_READ, 5, 1, RIG_DATA);

    (void)state;
    faults(r, "{'on':'io.sqe','opcode':'read','lba':[8,15],"
              "'do':{'status':'unrecovered-read'}},"
              "{'on':'io.cqe','opcode':'read','lba':[16,16],"
              "'do':{'status':'internal-error'}},"
              "{'on':'io.cqe','opcode':'flush',"
              "'do':{'status':'write-fault'}}");
    assert_int_equal(ends(r, read_at(r, 9)), 0x281);
    assert_int_equal(logged_lba(r, 0), 9);
    assert_int_equal(ends(r, read_at(r, 16)), 0x006);
    assert_int_equal(logged_lba(r, 0), 16);
    assert_int_equal(logged_lba(r, 1), 9);
    /* What has no block names none, whatever its slot did before. */
    rig_do(r, 1, (struct nvme_sqe){.opcode = NVME_FLUSH, .nsid = le32_of(1)},
           NULL);
    assert_int_equal(logged_lba(r, 0), 0);
    assert_int_equal(ends(r, read_at(r, 9)), 0x281);
    nowhere.nsid = le32_of(7);
    assert_int_equal(rig_do(r, 1, nowhere, NULL), DNR(NVME_INVALID_NAMESPACE));
    assert_int_equal(logged_lba(r, 0), 0);
    rig_free(r);
}

static void
bad_rules_leave_the_old_ones(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct st_err err;

    (void)state;
    faults(r, "{'on':'io.sqe','do':{'status':'internal-error'}}");
    assert_int_equal(st_nvme_set_faults(r->nvme, "{\"rules\": 3}", &err),
                     -EINVAL);
    assert_int_equal(ends(r, read_at(r, 0)), 0x006);
    rig_free(r);
}

static void
dropped_commands_never_end(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    for (int completion = 0; completion < 2; completion++) {
        faults(r, completion ? "{'on':'io.cqe','count':70,'do':'drop'}"
                             : "{'on':'io.sqe','count':70,'do':'drop'}");
        for (unsigned i = 0; i < 70; i++) { /* more than slots, and entries */
            read_at(r, i);
            rig_steps(r, 20);
        }
        nothing_ends(r, MS(5000));
        assert_int_equal(ends(r, read_at(r, 1)), NVME_OK);
    }
    rig_free(r);
}

static void
stuck_commands_wait_for_release_abort_or_reset(void **state)
{
    (void)state;
    for (int completion = 0; completion < 2; completion++) {
        struct rig *r = rig_ready(&(struct rig_opts){.loops = 2});
        uint32_t dw0;
        uint16_t cid;

        faults(r, completion ? "{'on':'io.cqe','count':3,'do':'stuck'}"
                             : "{'on':'io.sqe','count':3,'do':'stuck'}");
        cid = read_at(r, 0);
        read_at(r, 1);
        read_at(r, 2);
        nothing_ends(r, MS(5000));
        assert_int_equal(st_testnode_count(r->node, ST_OP_READ),
                         completion ? 3 : 0);
        assert_int_equal(rig_do(r, 0,
                                rig_admin(NVME_ADMIN_ABORT, 0, 0,
                                          (uint32_t)cid << 16 | 1, 0),
                                &dw0),
                         NVME_OK);
        assert_int_equal(dw0, 0);
        assert_int_equal(ends(r, cid), NVME_ABORT_REQUESTED);
        st_nvme_release_faults(r->nvme);
        assert_int_equal(ends(r, (uint16_t)(cid + 1)), NVME_OK);
        assert_int_equal(ends(r, (uint16_t)(cid + 2)), NVME_OK);
        faults(r, "{'on':'io.cqe','do':'stuck'}");
        read_at(r, 3);
        nothing_ends(r, MS(10));
        rig_disable(r);
        assert_int_equal(rig_counter(r, "resets_forced"), 0);
        rig_free(r);
    }
}

static void
a_delay_is_of_one_command_a_stall_of_its_queue(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint16_t one, two;

    (void)state;
    faults(r, "{'on':'io.sqe','count':1,'do':{'delay':'50ms'}}");
    one = read_at(r, 0);
    two = read_at(r, 1);
    assert_int_equal(ends(r, two), NVME_OK);
    nothing_ends(r, MS(40));
    rig_pass(r, MS(20));
    assert_int_equal(ends(r, one), NVME_OK);
    for (int completion = 0; completion < 2; completion++) {
        faults(r, completion
                      ? "{'on':'io.cqe','count':1,'do':{'stall':'50ms'}}"
                      : "{'on':'io.sqe','count':1,'do':{'stall':'50ms'}}");
        one = read_at(r, 0);
        rig_pass(r, MS(1));
        two = read_at(r, 1);
        nothing_ends(r, MS(40));
        rig_pass(r, MS(20));
        assert_int_equal(ends(r, one), NVME_OK);
        assert_int_equal(ends(r, two), NVME_OK);
    }
    rig_free(r);
}

static void
a_stalled_command_can_be_aborted(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint32_t dw0;
    uint16_t two;

    (void)state;
    faults(r, "{'on':'io.sqe','count':1,'do':{'stall':'50ms'}}");
    read_at(r, 0);
    two = read_at(r, 1);
    rig_steps(r, 3);
    assert_int_equal(
        rig_do(r, 0,
               rig_admin(NVME_ADMIN_ABORT, 0, 0, (uint32_t)two << 16 | 1, 0),
               &dw0),
        NVME_OK);
    assert_int_equal(dw0, 0);
    for (unsigned i = 0; i < 2; i++) {
        struct nvme_cqe e = rig_reap(r, 1);

        assert_int_equal(rig_status(&e), le16_get(e.cid) == two
                                             ? NVME_ABORT_REQUESTED
                                             : NVME_OK);
    }
    rig_free(r);
}

static void
bytes_are_replaced(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_cqe e;
    uint8_t *data = rig_at(r, RIG_DATA);

    (void)state;
    st_testnode_bytes(r->node)[7 * 512] = 0x77;
    faults(r, "{'on':'io.sqe','do':{'sqe':{'cdw10':7}}}");
    assert_int_equal(ends(r, read_at(r, 0)), NVME_OK);
    assert_int_equal(data[0], 0x77);
    faults(r, "{'on':'io.cqe','do':{'cqe':{'cid':4660,'sqid':9}}}");
    read_at(r, 0);
    e = rig_reap(r, 1);
    assert_int_equal(le16_get(e.cid), 0x1234);
    assert_int_equal(le16_get(e.sqid), 9);
    faults(r, "{'on':'io.cqe','do':{'data':'a1b2c3'}}");
    assert_int_equal(ends(r, read_at(r, 7)), NVME_OK);
    assert_memory_equal(data, "\xa1\xb2\xc3\x00", 4);
    faults(r, "{'on':'admin.cqe','opcode':'identify','do':{'data':'ffee'}}");
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0), NULL),
        NVME_OK);
    assert_memory_equal(data, "\xff\xee\x14\x14", 4);
    rig_free(r);
}

static void
data_of_long_reads_goes_where_it_belongs(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    struct nvme_sqe e = rig_rw(NVME_READ, 0, 32, RIG_DATA);
    le64 *list = rig_at(r, RIG_HIGH);

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        list[i] = le64_of(RIG_DATA + 0x10000 + i * 0x1000);
    e.prp2 = le64_of(RIG_HIGH);
    faults(r, "{'on':'io.cqe','do':{'data':'a1b2c3'}}");
    assert_int_equal(ends(r, rig_submit(r, 1, e)), NVME_OK);
    assert_memory_equal(rig_at(r, RIG_DATA), "\xa1\xb2\xc3\x00", 4);
    assert_int_equal(le64_get(list[0]), RIG_DATA + 0x10000);
    rig_free(r);
}

static void
completions_are_doubled_spoilt_and_swapped(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint16_t one, two;
    struct nvme_cqe e;

    (void)state;
    faults(r, "{'on':'io.cqe','count':1,'do':'duplicate'}");
    one = read_at(r, 0);
    assert_int_equal(ends(r, one), NVME_OK);
    assert_int_equal(ends(r, one), NVME_OK);
    faults(r, "{'on':'io.cqe','count':1,'do':'reorder'}");
    one = read_at(r, 0);
    rig_steps(r, 30);
    two = read_at(r, 1);
    assert_int_equal(ends(r, two), NVME_OK);
    assert_int_equal(ends(r, one), NVME_OK);
    faults(r, "{'on':'io.cqe','count':1,'do':'wrong-phase'}");
    read_at(r, 0);
    rig_steps(r, 30);
    assert_false(rig_peek(r, 1, &e));
    rig_free(r);
}

static void
a_reordered_command_is_not_lost(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint16_t one, two;

    (void)state;
    /* Each is to wait for the next one; then one of them has to go. */
    faults(r, "{'on':'io.cqe','do':'reorder'}");
    one = read_at(r, 0);
    rig_steps(r, 30);
    two = read_at(r, 1);
    assert_int_equal(ends(r, two), NVME_OK);
    assert_int_equal(ends(r, one), NVME_OK);
    one = read_at(r, 2);
    rig_steps(r, 30);
    assert_int_equal(rig_delete_sq(r, 1), NVME_OK);
    rig_free(r);
}

static void
interrupts_are_lost_or_too_many(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    faults(r, "{'on':'io.cqe','do':'no-interrupt'}");
    assert_int_equal(ends(r, read_at(r, 0)), NVME_OK);
    rig_steps(r, 20);
    assert_int_equal(atomic_load(&r->msix[1]), 0);
    faults(r, "{'on':'io.cqe','do':'interrupt'}");
    assert_int_equal(ends(r, read_at(r, 0)), NVME_OK);
    rig_steps(r, 20);
    assert_int_equal(atomic_load(&r->msix[1]), 2);
    rig_free(r);
}

static void
a_torn_write_loses_its_end(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});
    uint8_t *disk = st_testnode_bytes(r->node);

    (void)state;
    memset(rig_at(r, RIG_DATA), 0x66, 4096);
    faults(r, "{'on':'io.sqe','opcode':'write','do':{'torn':3}}");
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 0, 8, RIG_DATA), NULL),
                     NVME_OK);
    assert_int_equal(disk[3 * 512 - 1], 0x66);
    assert_int_equal(disk[3 * 512], 0);
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 8, 2, RIG_DATA), NULL),
                     NVME_OK);
    assert_int_equal(disk[10 * 512 - 1], 0x66);
    faults(r, "{'on':'io.sqe','opcode':'write','do':{'torn':0}}");
    assert_int_equal(rig_do(r, 1, rig_rw(NVME_WRITE, 20, 2, RIG_DATA), NULL),
                     NVME_OK);
    assert_int_equal(disk[20 * 512], 0);
    rig_free(r);
}

static void
fatal_status_ends_with_a_reset(void **state)
{
    struct rig *r = rig_ready(&(struct rig_opts){0});

    (void)state;
    faults(r, "{'on':'io.sqe','count':1,'do':'cfs'}");
    read_at(r, 0);
    rig_until(r, rig_csts(r) & NVME_CSTS_CFS);
    nothing_ends(r, MS(100));
    rig_disable(r);
    rig_enable(r);
    rig_pair(r, 1, 8, 8);
    assert_int_equal(ends(r, read_at(r, 0)), NVME_OK);
    rig_free(r);
}

static void
a_controller_that_is_gone_comes_back(void **state)
{
    static const char *const rules[] = {"{'on':'io.cqe','do':'gone'}",
                                        "{'on':'register','do':'gone'}"};

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        for (int release = 0; release < 2; release++) {
            struct rig *r = rig_ready(&(struct rig_opts){0});

            faults(r, rules[i]);
            read_at(r, 0);
            rig_until(r, rig_csts(r) == UINT32_MAX);
            assert_int_equal(rig_read(r, 0, 8), UINT64_MAX);
            assert_int_equal(rig_read(r, 2, 1), 0xff);
            rig_write(r, NVME_REG_CC, 4, RIG_CC);
            nothing_ends(r, MS(100));
            assert_int_equal(rig_csts(r), UINT32_MAX);
            if (release)
                st_nvme_release_faults(r->nvme);
            faults(r, "");
            rig_until(r, rig_csts(r) == 0);
            assert_int_equal(rig_read(r, NVME_REG_CC, 4), 0);
            rig_enable(r);
            rig_pair(r, 1, 8, 8);
            assert_int_equal(ends(r, read_at(r, 0)), NVME_OK);
            rig_free(r);
        }
}

static void
an_enable_takes_its_time(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});

    (void)state;
    faults(r, "{'on':'enable','count':1,'do':{'delay':'300ms'}}");
    rig_write(r, NVME_REG_AQA, 4, 7 << 16 | 7);
    rig_write(r, NVME_REG_ASQ, 8, RIG_LOW);
    rig_write(r, NVME_REG_ACQ, 8, RIG_LOW + 4096);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_pass(r, MS(250));
    assert_int_equal(rig_csts(r), 0);
    rig_pass(r, MS(100));
    assert_int_equal(rig_csts(r), NVME_CSTS_RDY);
    rig_disable(r);
    faults(r, "{'on':'enable','do':{'delay':'300s'}}");
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_pass(r, MS(1000));
    assert_int_equal(rig_csts(r), 0);
    rig_write(r, NVME_REG_CC, 4, RIG_CC); /* gives up */
    rig_pass(r, MS(1));
    faults(r, "");
    rig_enable(r);
    rig_disable(r);
    faults(r, "{'on':'enable','do':'cfs'}");
    rig_write(r, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    rig_until(r, rig_csts(r) == NVME_CSTS_CFS);
    rig_free(r);
}

static void
what_it_says_of_itself_can_be_replaced(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct nvme_cqe e;

    (void)state;
    faults(r, "{'on':'cap','do':{'mqes':4}},"
              "{'on':'pci','do':{'vendor':4660,'device':22136}}");
    assert_int_equal(rig_read(r, 0, 2), 4);
    assert_int_equal(st_pci_config_read(r->pci, 0, 4), 0x56781234);
    faults(r, "");
    assert_int_equal(rig_read(r, 0, 2), 1023);
    assert_int_equal(st_pci_config_read(r->pci, 0, 4), 0xc03e1414);
    rig_enable(r);
    assert_int_equal(rig_do(r, 0,
                            rig_admin(NVME_ADMIN_GET_LOG_PAGE, 0, RIG_DATA,
                                      1023 << 16 | 4, 0),
                            NULL),
                     NVME_OK);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_steps(r, 20);
    faults(r, "{'on':'namespace','do':{'changed':[3,99]}}");
    e = rig_reap(r, 0);
    assert_int_equal(le32_get(e.dw0), 2 | 4 << 16);
    rig_free(r);
}

static void
admin_commands_have_faults_too(void **state)
{
    struct rig *r = rig_new(&(struct rig_opts){0});
    struct nvme_sqe e = rig_admin(NVME_ADMIN_IDENTIFY, 0, RIG_DATA, 1, 0);
    struct nvme_cqe c;
    uint16_t cid;

    (void)state;
    rig_enable(r);
    faults(r, "{'on':'admin.sqe','opcode':'identify','count':1,'do':'stuck'},"
              "{'on':'admin.sqe','opcode':'create-cq','count':1,"
              "'do':{'status':'invalid-field'}}");
    cid = rig_submit(r, 0, e);
    rig_steps(r, 20);
    assert_int_equal(rig_make_cq(r, 1, 8, rig_ring(1, true), true, 0), 0x002);
    st_nvme_release_faults(r->nvme);
    c = rig_reap(r, 0);
    assert_int_equal(le16_get(c.cid), cid);
    assert_int_equal(rig_status(&c), NVME_OK);
    assert_int_equal(rig_make_cq(r, 1, 8, rig_ring(1, true), true, 0), 0);
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_are_put_in_place),
        cmocka_unit_test(the_error_log_names_the_block),
        cmocka_unit_test(bad_rules_leave_the_old_ones),
        cmocka_unit_test(dropped_commands_never_end),
        cmocka_unit_test(stuck_commands_wait_for_release_abort_or_reset),
        cmocka_unit_test(a_delay_is_of_one_command_a_stall_of_its_queue),
        cmocka_unit_test(a_stalled_command_can_be_aborted),
        cmocka_unit_test(bytes_are_replaced),
        cmocka_unit_test(data_of_long_reads_goes_where_it_belongs),
        cmocka_unit_test(completions_are_doubled_spoilt_and_swapped),
        cmocka_unit_test(a_reordered_command_is_not_lost),
        cmocka_unit_test(interrupts_are_lost_or_too_many),
        cmocka_unit_test(a_torn_write_loses_its_end),
        cmocka_unit_test(fatal_status_ends_with_a_reset),
        cmocka_unit_test(a_controller_that_is_gone_comes_back),
        cmocka_unit_test(an_enable_takes_its_time),
        cmocka_unit_test(what_it_says_of_itself_can_be_replaced),
        cmocka_unit_test(admin_commands_have_faults_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
