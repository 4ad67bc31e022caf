/* SPDX-License-Identifier: MIT
 *
 * Rules of faults: what is understood and what is refused, which command meets
 * which rule, and when.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme_fault.h"

static struct nvme_faults *rules;
static struct nvme_sqe sqe;
static struct nvme_fault fault;

static int
teardown(void **state)
{
    (void)state;
    st_nvme_faults_free(rules);
    rules = NULL;
    return 0;
}

static int
setup(void **state)
{
    (void)state;
    memset(&sqe, 0, sizeof(sqe));
    return 0;
}

/* ---- Words ---- */

/* Rules whose bodies are RULE, with ' for ". */
static const char *
quote(const char *rule)
{
    static char text[20000];

    snprintf(text, sizeof(text), "{\"rules\": [%s]}", rule);
    for (char *c = text; *c; c++)
        if (*c == '\'')
            *c = '"';
    return text;
}

static void
use(const char *rule)
{
    struct st_err err;

    teardown(NULL);
    if (st_nvme_faults_parse(quote(rule), &rules, &err))
        fail_msg("%s: %s", rule, err.text);
    assert_non_null(rules);
}

static void
refuse(const char *rule, const char *sentence)
{
    struct st_err err = {""};
    struct nvme_faults *none = (void *)&sqe;

    if (st_nvme_faults_parse(quote(rule), &none, &err) == 0)
        fail_msg("%s is taken", rule);
    assert_null(none);
    if (!strstr(err.text, sentence))
        fail_msg("%s: '%s' does not say '%s'", rule, err.text, sentence);
}

static bool
meets(enum nvme_fault_on on, uint16_t sqid, uint16_t status)
{
    struct nvme_fault_event e = {
        .on = on,
        .sqid = sqid,
        .sqe =
            on == NVME_FAULT_ENABLE || on == NVME_FAULT_REGISTER ? NULL : &sqe,
        .status = status};

    memset(&fault, 0xee, sizeof(fault));
    return st_nvme_faults_hit(rules, &e, &fault);
}

static bool
meets_blocks(uint64_t lba, uint64_t nlb)
{
    struct nvme_fault_event e = {.on = NVME_FAULT_IO_SQE,
                                 .sqe = &sqe,
                                 .lba = lba,
                                 .nlb = nlb,
                                 .has_lba = true};

    return st_nvme_faults_hit(rules, &e, &fault);
}

/* ---- Documents ---- */

static void
no_rule_is_no_set(void **state)
{
    static const char *const none[] = {"", " \n\t", "{\"rules\": []}"};
    struct nvme_fault_ids ids;
    const char *name;
    uint64_t hits;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        rules = (void *)&sqe;
        assert_int_equal(st_nvme_faults_parse(none[i], &rules, NULL), 0);
        assert_null(rules);
    }
    st_nvme_faults_ids(NULL, &ids);
    assert_true(ids.mqes == -1 && ids.vendor == -1 && ids.device == -1);
    assert_int_equal(st_nvme_faults_changed(NULL, NULL, 0), 0);
    assert_false(st_nvme_faults_rule(NULL, 0, &name, &hits));
}

static void
documents_of_another_shape_are_refused(void **state)
{
    static const char *const bad[] = {
        "{",
        "[]",
        "3",
        "{}",
        "{\"rules\": 3}",
        "{\"rules\": {}}",
        "{\"rules\": [], \"more\": 1}",
        "{\"rules\": [], \"rules\": []}",
        "{\"rules\": []} x",
    };
    struct st_err err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        err.text[0] = '\0';
        assert_int_equal(st_nvme_faults_parse(bad[i], &rules, &err), -EINVAL);
        assert_null(rules);
        assert_memory_equal(err.text, "faults: ", 8);
    }
}

static void
there_are_limits(void **state)
{
    static char text[40000];
    struct st_err err;
    size_t at = 0;

    (void)state;
    for (unsigned i = 0; i < 257; i++)
        at += (size_t)sprintf(text + at,
                              "%s{\"on\":\"register\","
                              "\"do\":\"gone\"}",
                              i ? "," : "{\"rules\":[");
    strcpy(text + at, "]}");
    assert_int_equal(st_nvme_faults_parse(text, &rules, &err), -EINVAL);
    assert_non_null(strstr(err.text, "more than 256 rules"));
}

/* ---- Rules that are refused, and how ---- */

static void
mistakes_are_named(void **state)
{
    static const struct {
        const char *rule, *sentence;
    } row[] = {
        {"3", "rule 1, 'rule 1': expected an object"},
        {"{'do':'drop'}", "on: expected admin.sqe, admin.cqe"},
        {"{'on':'io','do':'drop'}", "on: expected admin.sqe"},
        {"{'on':3,'do':'drop'}", "on: expected"},
        {"{'on':'io.sqe'}", "'do' is missing"},
        {"{'on':'io.sqe','do':'drop','oops':1}", "'oops' is not known"},
        {"{'on':'io.sqe','name':'x','do':'fly'}",
         "rule 1, 'x': do: 'fly' is not known"},
        {"{'on':'io.sqe','do':'status'}", "do: 'status' is not known"},
        {"{'on':'io.sqe','do':'gone'},{'on':'io.sqe','name':'b','do':1}",
         "rule 2, 'b': do: expected what happens"},
        {"{'on':'io.sqe','do':{}}", "do: expected what happens"},
        {"{'on':'io.sqe','do':{'fly':1}}", "do: 'fly' is not known"},
        {"{'on':'io.sqe','do':{'drop':1}}", "do: drop: expected true"},
        {"{'on':'io.sqe','do':{'drop':false}}", "drop: expected true"},
        {"{'on':'io.sqe','name':'','do':'drop'}", "name: expected a string"},
        {"{'on':'io.sqe','name':7,'do':'drop'}", "name: expected a string"},
        /* Hooks. */
        {"{'on':'io.sqe','do':'duplicate'}", "duplicate has no use on io.sqe"},
        {"{'on':'enable','do':{'drop':true}}", "drop: has no use on enable"},
        {"{'on':'register','opcode':1,'do':'gone'}",
         "opcode: has no use on register"},
        {"{'on':'admin.sqe','lba':[1,2],'do':'drop'}",
         "lba: has no use on admin.sqe"},
        {"{'on':'io.sqe','status':1,'do':'drop'}",
         "status: has no use on io.sqe"},
        {"{'on':'admin.sqe','do':{'torn':1}}", "torn: has no use on"},
        {"{'on':'io.cqe','do':{'sqe':{'nsid':1}}}", "sqe: has no use on"},
        {"{'on':'io.sqe','do':{'mqes':1}}", "mqes: has no use on"},
        {"{'on':'cap','after':1,'do':{'mqes':1}}", "after: has no use on cap"},
        /* Numbers. */
        {"{'on':'io.sqe','opcode':256,'do':'drop'}",
         "opcode: expected a number from 0 to 255"},
        {"{'on':'io.sqe','opcode':'identify','do':'drop'}",
         "opcode: 'identify' is not known"},
        {"{'on':'admin.sqe','opcode':'read','do':'drop'}",
         "opcode: 'read' is not known"},
        {"{'on':'io.sqe','nsid':-1,'do':'drop'}", "nsid: expected a number"},
        {"{'on':'io.sqe','nsid':4294967296,'do':'drop'}", "nsid: expected"},
        {"{'on':'io.sqe','nsid':1.5,'do':'drop'}", "nsid: expected"},
        {"{'on':'io.sqe','nsid':'0x','do':'drop'}", "nsid: expected"},
        {"{'on':'io.sqe','nsid':'1 ','do':'drop'}", "nsid: expected"},
        {"{'on':'io.sqe','nsid':'99999999999999999999','do':'drop'}",
         "nsid: expected"},
        {"{'on':'io.sqe','nsid':true,'do':'drop'}", "nsid: expected"},
        {"{'on':'io.sqe','sqid':65536,'do':'drop'}", "sqid: expected"},
        {"{'on':'io.sqe','cid':65536,'do':'drop'}", "cid: expected"},
        {"{'on':'io.sqe','lba':5,'do':'drop'}", "lba: expected [FIRST, LAST]"},
        {"{'on':'io.sqe','lba':[5],'do':'drop'}", "lba: expected [FIRST"},
        {"{'on':'io.sqe','lba':[5,4],'do':'drop'}",
         "lba: expected a number from 5"},
        {"{'on':'io.sqe','every':0,'do':'drop'}", "every: expected a number"},
        {"{'on':'io.sqe','count':0,'do':'drop'}", "count: expected a number"},
        {"{'on':'io.sqe','probability':0,'do':'drop'}", "probability: exp"},
        {"{'on':'io.sqe','probability':1.5,'do':'drop'}", "probability: exp"},
        {"{'on':'io.sqe','probability':'1','do':'drop'}", "probability: exp"},
        {"{'on':'io.sqe','do':{'status':2048}}",
         "status: expected a number from 0 to 2047"},
        {"{'on':'io.sqe','do':{'status':'bad-day'}}",
         "status: 'bad-day' is not known"},
        {"{'on':'io.sqe','do':{'dnr':true}}", "dnr: there is no status"},
        {"{'on':'io.sqe','do':{'dnr':1,'status':1}}", "dnr: expected true"},
        {"{'on':'cap','do':{'mqes':0}}", "mqes: expected a number from 1"},
        {"{'on':'pci','do':{'vendor':65536}}", "vendor: expected"},
        {"{'on':'namespace','do':{'changed':[]}}", "changed: expected a list"},
        {"{'on':'namespace','do':{'changed':[1,0]}}", "changed: expected"},
        /* Times. */
        {"{'on':'io.sqe','do':{'delay':10}}", "delay: expected a time"},
        {"{'on':'io.sqe','do':{'delay':'10'}}", "delay: expected a time"},
        {"{'on':'io.sqe','do':{'delay':'ms'}}", "delay: expected a time"},
        {"{'on':'io.sqe','do':{'delay':'1h'}}", "delay: expected a time"},
        {"{'on':'io.sqe','do':{'delay':'3601s'}}", "delay: expected a time"},
        {"{'on':'io.sqe','do':{'stall':'-1s'}}", "stall: expected a time"},
        {"{'on':'io.sqe','do':{'stall':'99999999999999999999999ns'}}",
         "stall: expected a time"},
        /* Bytes. */
        {"{'on':'io.sqe','pattern':'00','do':'drop'}", "pattern: expected 64"},
        {"{'on':'io.sqe','pattern':64,'do':'drop'}", "pattern: expected 64"},
        {"{'on':'io.sqe','mask':'00','do':'drop'}", "mask: there is no pat"},
        {"{'on':'io.cqe','do':{'data':''}}", "data: expected 1 to 4096"},
        {"{'on':'io.cqe','do':{'data':'123'}}", "data: expected 1 to 4096"},
        {"{'on':'io.cqe','do':{'data':'1g'}}", "data: expected 1 to 4096"},
        {"{'on':'io.cqe','do':{'data':'g1'}}", "data: expected 1 to 4096"},
        {"{'on':'io.sqe','do':{'sqe':{}}}", "sqe: expected an object"},
        {"{'on':'io.sqe','do':{'sqe':1}}", "sqe: expected an object"},
        {"{'on':'io.sqe','do':{'sqe':{'x':1}}}", "do: sqe: 'x' is not known"},
        {"{'on':'io.sqe','do':{'sqe':{'opcode':256}}}", "sqe: opcode: exp"},
        {"{'on':'io.cqe','do':{'cqe':{'nsid':1}}}", "cqe: 'nsid' is not"},
        {"{'on':'io.cqe','do':{'cqe':{'mask':'00'}}}", "bytes: expected with"},
        {"{'on':'io.cqe','do':{'cqe':{'bytes':'00'}}}", "bytes: expected 16"},
        /* What does not go together. */
        {"{'on':'io.cqe','do':{'drop':true,'status':1}}",
         "do: drop and status do not go together"},
        {"{'on':'io.cqe','do':{'stuck':true,'delay':'1s'}}",
         "stuck and delay do not"},
        {"{'on':'io.cqe','do':{'delay':'1s','stall':'1s'}}",
         "delay and stall do not"},
        {"{'on':'io.cqe','do':{'interrupt':true,'no-interrupt':true}}",
         "do not go together"},
        {"{'on':'io.sqe','do':{'torn':1,'status':1}}", "torn and status"},
        {"{'on':'io.sqe','do':{'sqe':{'nsid':1},'status':1}}",
         "sqe and status"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++)
        refuse(row[i].rule, row[i].sentence);
}

static void
a_pattern_is_not_contradicted(void **state)
{
    char rule[1000], zeroes[129];

    (void)state;
    memset(zeroes, '0', 128);
    zeroes[128] = '\0';
    snprintf(rule, sizeof(rule),
             "{'on':'io.sqe','pattern':'%s','opcode':1,'do':'drop'}", zeroes);
    refuse(rule, "opcode: contradicts the pattern");
    snprintf(rule, sizeof(rule),
             "{'on':'io.sqe','pattern':'%s','opcode':0,'do':'drop'}", zeroes);
    use(rule);
    snprintf(rule, sizeof(rule),
             "{'on':'io.sqe','pattern':'%s','mask':'%s','opcode':2,"
             "'do':'drop'}",
             zeroes, zeroes);
    use(rule);
    sqe.opcode = 2;
    assert_true(meets(NVME_FAULT_IO_SQE, 1, 0));
}

/* ---- Which command ---- */

static void
a_rule_is_for_its_hook(void **state)
{
    static const char *const on[] = {"admin.sqe", "admin.cqe", "io.sqe",
                                     "io.cqe",    "enable",    "register"};
    char rule[100];

    (void)state;
    for (unsigned i = 0; i < NVME_FAULT_COUNT; i++) {
        snprintf(rule, sizeof(rule), "{'on':'%s','do':'cfs'}", on[i]);
        use(rule);
        for (unsigned k = 0; k < NVME_FAULT_COUNT; k++)
            assert_int_equal(meets((enum nvme_fault_on)k, 0, 0), i == k);
    }
}

static void
names_stand_for_opcodes(void **state)
{
    static const struct {
        const char *on, *name;
        uint8_t opcode;
    } row[] = {
        {"io.sqe", "'flush'", 0},
        {"io.sqe", "'write'", 1},
        {"io.sqe", "'read'", 2},
        {"io.sqe", "'dsm'", 9},
        {"io.sqe", "'copy'", 0x19},
        {"io.sqe", "'0x7f'", 0x7f},
        {"io.sqe", "5", 5},
        {"admin.sqe", "'identify'", 6},
        {"admin.sqe", "'abort'", 8},
        {"admin.sqe", "'async-event'", 0xc},
        {"admin.sqe", "'format'", 0x80},
    };
    char rule[100];

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++) {
        snprintf(rule, sizeof(rule), "{'on':'%s','opcode':%s,'do':'drop'}",
                 row[i].on, row[i].name);
        use(rule);
        for (unsigned op = 0; op < 256; op++) {
            sqe.opcode = (uint8_t)op;
            assert_int_equal(meets(*row[i].on == 'i' ? NVME_FAULT_IO_SQE
                                                     : NVME_FAULT_ADMIN_SQE,
                                   0, 0),
                             op == row[i].opcode);
        }
    }
}

static void
fields_and_queue_match(void **state)
{
    (void)state;
    use("{'on':'io.cqe','nsid':258,'cid':'0x1234','sqid':3,"
        "'status':'lba-out-of-range','do':'drop'}");
    sqe.nsid = le32_of(258);
    sqe.cid = le16_of(0x1234);
    assert_true(meets(NVME_FAULT_IO_CQE, 3, NVME_LBA_OUT_OF_RANGE));
    assert_true(meets(NVME_FAULT_IO_CQE, 3, NVME_LBA_OUT_OF_RANGE | NVME_DNR));
    assert_false(meets(NVME_FAULT_IO_CQE, 3, 0));
    assert_false(meets(NVME_FAULT_IO_CQE, 2, NVME_LBA_OUT_OF_RANGE));
    sqe.cid = le16_of(0x1235);
    assert_false(meets(NVME_FAULT_IO_CQE, 3, NVME_LBA_OUT_OF_RANGE));
    sqe.cid = le16_of(0x1234);
    sqe.nsid = le32_of(2);
    assert_false(meets(NVME_FAULT_IO_CQE, 3, NVME_LBA_OUT_OF_RANGE));
}

static void
blocks_overlap(void **state)
{
    (void)state;
    use("{'on':'io.sqe','lba':[100,200],'do':'drop'}");
    assert_true(meets_blocks(100, 1));
    assert_true(meets_blocks(200, 1));
    assert_true(meets_blocks(0, 101));
    assert_true(meets_blocks(0, 1000));
    assert_true(meets_blocks(99, UINT64_MAX));
    assert_false(meets_blocks(0, 100));
    assert_false(meets_blocks(201, 1));
    assert_false(meets_blocks(UINT64_MAX, 2));
    assert_false(meets_blocks(150, 0));
    assert_false(meets(NVME_FAULT_IO_SQE, 0, 0)); /* has no blocks */
    use("{'on':'io.sqe','lba':[0,'0xffffffffffffffff'],'do':'drop'}");
    assert_true(meets_blocks(UINT64_MAX, 1));
}

/* Byte B of the entry, and no other, decides when the mask has it alone. */
static void
every_byte_of_a_pattern_counts(void **state)
{
    char rule[1000], pattern[129], mask[129];

    (void)state;
    for (unsigned b = 0; b < 64; b++) {
        uint8_t *byte = (uint8_t *)&sqe + b;

        memset(pattern, 'A', 128);
        memset(mask, '0', 128);
        mask[2 * b + 1] = 'f'; /* its low half */
        pattern[128] = mask[128] = '\0';
        snprintf(rule, sizeof(rule),
                 "{'on':'io.sqe','pattern':'%s','mask':'%s','do':'drop'}",
                 pattern, mask);
        use(rule);
        memset(&sqe, 0, sizeof(sqe));
        assert_false(meets(NVME_FAULT_IO_SQE, 0, 0));
        *byte = 0x5a;
        assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
    }
}

static void
the_first_rule_that_matches_decides(void **state)
{
    const char *name;
    uint64_t hits;

    (void)state;
    use("{'on':'io.sqe','opcode':1,'do':'drop'},"
        "{'on':'admin.sqe','do':'cfs'},"
        "{'on':'io.sqe','name':'all','do':{'status':6}},"
        "{'on':'io.sqe','do':'gone'}");
    sqe.opcode = 1;
    assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_DROP);
    sqe.opcode = 2;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
        assert_int_equal(fault.what, NVME_FAULT_STATUS);
    }
    assert_true(st_nvme_faults_rule(rules, 0, &name, &hits));
    assert_string_equal(name, "rule 1");
    assert_int_equal(hits, 1);
    assert_true(st_nvme_faults_rule(rules, 2, &name, &hits));
    assert_string_equal(name, "all");
    assert_int_equal(hits, 3);
    assert_true(st_nvme_faults_rule(rules, 3, &name, &hits));
    assert_int_equal(hits, 0);
    assert_false(st_nvme_faults_rule(rules, 4, &name, &hits));
}

/* ---- When ---- */

/* Which of 20 events meet a rule that has WHEN: a string of + and -. */
static void
turns(const char *when, const char *expected)
{
    char rule[200], got[21] = "";

    snprintf(rule, sizeof(rule), "{'on':'io.sqe',%s,'do':'drop'}", when);
    use(rule);
    for (unsigned i = 0; i < 20; i++)
        got[i] = meets(NVME_FAULT_IO_SQE, 0, 0) ? '+' : '-';
    assert_string_equal(got, expected);
}

static void
turns_come_as_they_should(void **state)
{
    (void)state;
    turns("'after':5", "-----+++++++++++++++");
    turns("'every':3", "--+--+--+--+--+--+--");
    turns("'count':2", "++------------------");
    turns("'after':4,'every':5,'count':2", "--------+----+------");
    turns("'probability':1", "++++++++++++++++++++");
}

static void
chance_is_repeatable(void **state)
{
    char first[2001], again[2001];
    const char *const seed[] = {"1", "1", "2"};
    unsigned n = 0;

    (void)state;
    for (unsigned k = 0; k < 3; k++) {
        char rule[200];

        snprintf(rule, sizeof(rule),
                 "{'on':'io.sqe','probability':0.1,'seed':%s,'do':'drop'}",
                 seed[k]);
        use(rule);
        for (unsigned i = 0; i < 2000; i++) {
            bool met = meets(NVME_FAULT_IO_SQE, 0, 0);

            (k ? again : first)[i] = met ? '+' : '-';
            n += met;
        }
        first[2000] = again[2000] = '\0';
        if (k == 1)
            assert_string_equal(first, again);
        if (k == 2)
            assert_string_not_equal(first, again);
    }
    assert_in_range(n, 500, 700); /* of 6000 */
}

static void
a_turn_that_is_not_a_rules_is_the_next_ones(void **state)
{
    (void)state;
    use("{'on':'io.sqe','count':1,'do':'drop'},{'on':'io.sqe','do':'stuck'}");
    assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_DROP);
    assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_STUCK);
}

static void *
many(void *arg)
{
    struct nvme_fault_event e = {.on = NVME_FAULT_IO_SQE, .sqe = &sqe};
    struct nvme_fault out;

    for (unsigned i = 0; i < 5000; i++)
        *(uint64_t *)arg += st_nvme_faults_hit(rules, &e, &out);
    return NULL;
}

static void
threads_share_a_count(void **state)
{
    uint64_t met[4] = {0}, hits, total = 0;
    pthread_t thread[4];
    const char *name;

    (void)state;
    use("{'on':'io.sqe','every':3,'count':1000,'do':'drop'},"
        "{'on':'io.sqe','after':19000,'do':'drop'}");
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, many, &met[i]), 0);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        total += met[i];
    }
    assert_true(st_nvme_faults_rule(rules, 0, &name, &hits));
    assert_int_equal(hits, 1000);
    assert_int_equal(total, 1000); /* 19000 others: none is after them */
}

/* ---- What ---- */

static void
behaviours_are_told(void **state)
{
    static const struct {
        const char *on, *what;
        unsigned mask;
    } row[] = {
        {"io.sqe", "'drop'", NVME_FAULT_DROP},
        {"io.cqe", "'stuck'", NVME_FAULT_STUCK},
        {"io.cqe", "'duplicate'", NVME_FAULT_DUPLICATE},
        {"io.cqe", "'no-interrupt'", NVME_FAULT_NO_INTERRUPT},
        {"io.cqe", "'interrupt'", NVME_FAULT_INTERRUPT},
        {"io.cqe", "'reorder'", NVME_FAULT_REORDER},
        {"io.cqe", "'wrong-phase'", NVME_FAULT_PHASE},
        {"enable", "'cfs'", NVME_FAULT_CFS},
        {"register", "'gone'", NVME_FAULT_GONE},
        {"io.cqe", "{'duplicate':true,'no-interrupt':true}",
         NVME_FAULT_DUPLICATE | NVME_FAULT_NO_INTERRUPT},
    };
    char rule[200];

    (void)state;
    for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++) {
        snprintf(rule, sizeof(rule), "{'on':'%s','do':%s}", row[i].on,
                 row[i].what);
        use(rule);
        assert_true(meets(!strcmp(row[i].on, "io.sqe")   ? NVME_FAULT_IO_SQE
                          : !strcmp(row[i].on, "io.cqe") ? NVME_FAULT_IO_CQE
                          : !strcmp(row[i].on, "enable") ? NVME_FAULT_ENABLE
                                                         : NVME_FAULT_REGISTER,
                          0, 0));
        assert_int_equal(fault.what, row[i].mask);
    }
}

static void
values_are_told(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } times[] = {{"0ns", 0},
                 {"7ns", 7},
                 {"5us", 5000},
                 {"10ms", 10000000},
                 {"3600s", UINT64_C(3600000000000)}};
    char rule[200];

    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        snprintf(rule, sizeof(rule), "{'on':'enable','do':{'delay':'%s'}}",
                 times[i].text);
        use(rule);
        assert_true(meets(NVME_FAULT_ENABLE, 0, 0));
        assert_int_equal(fault.what, NVME_FAULT_DELAY);
        assert_int_equal(fault.ns, times[i].ns);
    }
    use("{'on':'admin.sqe','do':{'stall':'2s','status':'0x281'}}");
    assert_true(meets(NVME_FAULT_ADMIN_SQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_STALL | NVME_FAULT_STATUS);
    assert_int_equal(fault.status, 0x281);
    assert_int_equal(fault.ns, 2000000000);
    use("{'on':'io.cqe','do':{'status':'unrecovered-read','dnr':true}}");
    assert_true(meets(NVME_FAULT_IO_CQE, 0, 0));
    assert_int_equal(fault.status, NVME_UNRECOVERED_READ | NVME_DNR);
    use("{'on':'io.sqe','do':{'torn':3}}");
    assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_TORN);
    assert_int_equal(fault.blocks, 3);
    use("{'on':'io.cqe','do':{'data':'00fFAb'}}");
    assert_true(meets(NVME_FAULT_IO_CQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_DATA);
    assert_int_equal(fault.data_len, 3);
    assert_memory_equal(fault.data, "\x00\xff\xab", 3);
}

static void
entries_are_replaced_by_field_and_by_byte(void **state)
{
    uint8_t value[64] = {0}, mask[64] = {0};

    (void)state;
    use("{'on':'io.sqe','do':{'sqe':{'nsid':'0x01020304','prp2':5,"
        "'opcode':9}}}");
    assert_true(meets(NVME_FAULT_IO_SQE, 0, 0));
    value[0] = 9;
    memcpy(value + 4, "\4\3\2\1", 4);
    value[32] = 5;
    mask[0] = 0xff;
    memset(mask + 4, 0xff, 4);
    memset(mask + 32, 0xff, 8);
    assert_int_equal(fault.what, NVME_FAULT_SQE);
    assert_memory_equal(fault.value, value, 64);
    assert_memory_equal(fault.mask, mask, 64);

    use("{'on':'io.cqe','do':{'cqe':{'cid':'0x1234','bytes':"
        "'000102030405060708090a0b0c0d0e0f','mask':"
        "'ff0000000000000000000000000000f0'}}}");
    assert_true(meets(NVME_FAULT_IO_CQE, 0, 0));
    assert_int_equal(fault.what, NVME_FAULT_CQE);
    assert_int_equal(fault.value[0], 0);
    assert_int_equal(fault.mask[0], 0xff);
    assert_int_equal(fault.mask[1], 0);
    assert_memory_equal(fault.value + 12, "\x34\x12\x0e\x0f", 4);
    assert_memory_equal(fault.mask + 12, "\xff\xff\x00\xf0", 4);

    use("{'on':'io.cqe','do':{'cqe':{'bytes':"
        "'000102030405060708090a0b0c0d0e0f'}}}");
    assert_true(meets(NVME_FAULT_IO_CQE, 0, 0));
    memset(mask, 0xff, 16);
    assert_memory_equal(fault.mask, mask, 16);
    assert_int_equal(fault.value[15], 15);
}

static void
identities_and_changes_are_told(void **state)
{
    struct nvme_fault_ids ids;
    uint32_t nsid[8];

    (void)state;
    use("{'on':'cap','do':{'mqes':15}},"
        "{'on':'pci','do':{'vendor':'0x8086','device':1}},"
        "{'on':'cap','do':{'mqes':31}},"
        "{'on':'namespace','do':{'changed':[3,'0x10']}},"
        "{'on':'namespace','do':{'changed':[1]}}");
    st_nvme_faults_ids(rules, &ids);
    assert_int_equal(ids.mqes, 15);
    assert_int_equal(ids.vendor, 0x8086);
    assert_int_equal(ids.device, 1);
    assert_int_equal(st_nvme_faults_changed(rules, nsid, 8), 3);
    assert_int_equal(nsid[0], 3);
    assert_int_equal(nsid[1], 16);
    assert_int_equal(nsid[2], 1);
    assert_int_equal(st_nvme_faults_changed(rules, nsid, 2), 2);
    assert_false(meets(NVME_FAULT_ENABLE, 0, 0));
    use("{'on':'pci','do':{'device':1}}");
    st_nvme_faults_ids(rules, &ids);
    assert_true(ids.mqes == -1 && ids.vendor == -1 && ids.device == 1);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(no_rule_is_no_set),
        TEST(documents_of_another_shape_are_refused),
        TEST(there_are_limits),
        TEST(mistakes_are_named),
        TEST(a_pattern_is_not_contradicted),
        TEST(a_rule_is_for_its_hook),
        TEST(names_stand_for_opcodes),
        TEST(fields_and_queue_match),
        TEST(blocks_overlap),
        TEST(every_byte_of_a_pattern_counts),
        TEST(the_first_rule_that_matches_decides),
        TEST(turns_come_as_they_should),
        TEST(chance_is_repeatable),
        TEST(a_turn_that_is_not_a_rules_is_the_next_ones),
        TEST(threads_share_a_count),
        TEST(behaviours_are_told),
        TEST(values_are_told),
        TEST(entries_are_replaced_by_field_and_by_byte),
        TEST(identities_and_changes_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
