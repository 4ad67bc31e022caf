/* SPDX-License-Identifier: MIT
 *
 * The blob of a saved controller: what is read is what was written, what is
 * damaged or makes no sense is refused, and old blobs load for ever.
 *
 *   test_nvme_blob                 the tests; golden blobs are read from
 *                                  src/device/nvme/golden
 *   test_nvme_blob --write DIR     write golden blobs of this version, and
 *                                  seeds for fuzz_nvme_save, into DIR
 */
#include "save.h"
#include "test_nvme_save.h"

#define GOLDEN "src/device/nvme/golden/"

static const struct rig_opts opts = {.loops = 2};

/* A controller with some of everything. */
static struct rig *
busy(void)
{
    struct rig *r = rig_ready(&opts);
    struct nvme_sqe first = rig_rw(NVME_COMPARE, 7, 1, RIG_DATA);

    rig_shadow(r);
    rig_pair(r, 2, 5, 7);
    rig_pair(r, 4, 16, 8);
    for (unsigned i = 0; i < 12; i++) {
        use_block(r, 1, i);
        use_block(r, 2, i);
    }
    assert_int_equal(
        rig_do(r, 0, rig_admin(NVME_ADMIN_SET_FEATURES, 0, 0, 0x08, 0x0305),
               NULL),
        NVME_OK);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_reap(r, 0);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    first.flags = 1;
    rig_submit(r, 4, first);
    rig_submit(r, 1, rig_rw(NVME_READ, 3, 1, RIG_DATA));
    rig_steps(r, 300);
    return r;
}

static struct save blob;
static struct nvme_saved *saved;

static int
setup(void **state)
{
    struct rig *r = busy();

    (void)state;
    save_ok(r, &blob);
    rig_free(r);
    saved = malloc(sizeof(*saved));
    assert_non_null(saved);
    assert_int_equal(st_nvme_saved_read(blob.blob, blob.len, saved, NULL), 0);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    free(blob.blob);
    free(saved);
    return 0;
}

static void
reading_is_the_reverse_of_writing(void **state)
{
    struct nvme_saved *again = malloc(sizeof(*again));
    size_t len;
    void *p = st_nvme_saved_write(saved, &len);

    (void)state;
    assert_non_null(again);
    assert_int_equal(len, blob.len);
    assert_memory_equal(p, blob.blob, len);
    assert_int_equal(st_nvme_saved_read(p, len, again, NULL), 0);
    assert_memory_equal(again, saved, sizeof(*again));
    /* And it holds what there was. */
    assert_int_equal(saved->ncq, 4);
    assert_int_equal(saved->nsq, 4);
    assert_int_equal(saved->sq[2].qid, 2);
    assert_int_equal(saved->sq[2].size, 5);
    assert_true(saved->sq[3].has_first);
    assert_int_equal(saved->sq[3].first.opcode, NVME_COMPARE);
    assert_int_equal(saved->naers, 2);
    assert_true(saved->shadow);
    assert_int_equal(saved->nns, 1);
    assert_int_equal(saved->ns[0].size, RIG_DISK);
    assert_int_equal(saved->features.coalesce_time, 3);
    free(p);
    free(again);
}

/* ---- Damage ---- */

static void
refused(const void *p, size_t len, const char *sentence)
{
    struct nvme_saved *s = malloc(sizeof(*s));
    struct st_err err = {""};

    assert_non_null(s);
    assert_int_equal(st_nvme_saved_read(p, len, s, &err), -EINVAL);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
    free(s);
}

static void
every_byte_counts(void **state)
{
    uint8_t *p = blob.blob;

    (void)state;
    for (size_t i = 0; i < blob.len; i += i < 64 ? 1 : 37) {
        p[i] ^= 0x10;
        refused(p, blob.len, "saved");
        p[i] ^= 0x10;
    }
    refused("", 0, "this is no saved nvme controller");
    p[0] ^= 1;
    refused(p, blob.len, "this is no saved nvme controller");
    p[0] ^= 1;
    p[8] = 2;
    refused(p, blob.len, "of version 2, not 1");
    p[8] = 1;
    p[blob.len - 1] ^= 1;
    refused(p, blob.len, "its checksum is wrong");
    p[blob.len - 1] ^= 1;
}

static void
every_length_counts(void **state)
{
    uint8_t *p = malloc(blob.len + 1);

    (void)state;
    assert_non_null(p);
    memcpy(p, blob.blob, blob.len);
    p[blob.len] = 0;
    for (size_t len = 0; len < blob.len; len += len < 64 ? 1 : 97)
        refused(p, len, "saved");
    refused(p, blob.len + 1, "bytes, not");
    free(p);
}

/* ---- Nonsense: a right checksum, wrong values ---- */

#define SPOIL(name, code)                                                      \
    static void name(struct nvme_saved *s)                                     \
    {                                                                          \
        code;                                                                  \
    }

SPOIL(no_queues, s->queues = 0)
SPOIL(many_queues, s->queues = 512)
SPOIL(one_entry, s->entries = 1)
SPOIL(no_vectors, s->vectors = 0)
SPOIL(many_namespaces, s->nn = 1025)
SPOIL(no_state, s->state = 77)
SPOIL(is_enabling, s->state = NVME_ENABLING)
SPOIL(is_disabled, s->state = NVME_DISABLED)
SPOIL(has_failed, s->state = NVME_FAILED)
SPOIL(not_enabled, s->cc &= ~(uint32_t)NVME_CC_EN)
SPOIL(not_ready, s->csts = 0)
SPOIL(cfs_ready, s->csts |= NVME_CSTS_CFS)
SPOIL(shutting_down, s->csts |= 1 << NVME_CSTS_SHST_SHIFT)
SPOIL(odd_status, s->csts |= 1 << 20)
SPOIL(no_allotment, s->features.nsq = 0)
SPOIL(large_allotment, s->features.ncq = 8)
SPOIL(coalesce, s->coalesce_off[1] = 2)
SPOIL(odd_shadow, s->shadow_page++)
SPOIL(same_shadow, s->shadow_page = s->event_page)
SPOIL(mapped_shadow, s->mapped = true)
SPOIL(no_admin_cq, s->cq[0].qid = 1; s->cq[1].qid = 3)
SPOIL(no_admin_sq, s->nsq = 0)
SPOIL(qid_twice, s->cq[2].qid = s->cq[1].qid)
SPOIL(qid_beyond, s->cq[3].qid = 8)
SPOIL(cq_small, s->cq[1].size = 1)
SPOIL(cq_large, s->cq[1].size = 1025)
SPOIL(admin_large, s->sq[0].size = 4097)
SPOIL(cq_odd, s->cq[1].base += 16)
SPOIL(sq_wraps, s->sq[1].base = UINT64_MAX - 4095)
SPOIL(cq_head, s->cq[1].head = s->cq[1].size)
SPOIL(cq_tail, s->cq[1].tail = s->cq[1].size)
SPOIL(cq_vector, s->cq[1].vector = (uint16_t)s->vectors)
SPOIL(sq_head, s->sq[1].head = s->sq[1].size)
SPOIL(sq_tail, s->sq[1].tail = UINT32_MAX)
SPOIL(sq_cq, s->sq[1].cqid = 3)
SPOIL(sq_admin_cq, s->sq[1].cqid = 0)
SPOIL(admin_sq_cq, s->sq[0].cqid = 1)
SPOIL(sq_doomed, s->sq[1].ndoomed = NVME_ABORTS + 1)
SPOIL(first_plain, s->sq[3].first.flags = 0)
SPOIL(first_admin, s->sq[0].has_first = true; s->sq[0].first.flags = 1)
SPOIL(first_no_room, s->cq[3].head = 0; s->cq[3].tail = s->cq[3].size - 2)
SPOIL(ns_zero, s->ns[0].nsid = 0)
SPOIL(ns_beyond, s->ns[0].nsid = s->nn + 1)
SPOIL(ns_shift, s->ns[0].shift = 8)
SPOIL(ns_large, s->ns[0].shift = 31)

/* Three queues share one, each with half a pair: too much for it. */
static void
firsts_no_room(struct nvme_saved *s)
{
    for (unsigned i = 1; i < 4; i++) {
        s->sq[i].cqid = 2; /* of 7 entries: 6 can be used */
        s->sq[i].has_first = true;
        s->sq[i].first.flags = 1;
    }
    s->cq[2].head = 0;
    s->cq[2].tail = 1;
}

static void
nonsense_is_refused(void **state)
{
    static void (*const spoil[])(struct nvme_saved * s) = {
        no_queues,       many_queues,    one_entry,       no_vectors,
        no_state,        is_enabling,    is_disabled,     has_failed,
        not_enabled,     not_ready,      cfs_ready,       shutting_down,
        odd_status,      no_allotment,   large_allotment, coalesce,
        odd_shadow,      same_shadow,    mapped_shadow,   no_admin_cq,
        no_admin_sq,     qid_twice,      qid_beyond,      cq_small,
        cq_large,        admin_large,    cq_odd,          sq_wraps,
        cq_head,         cq_tail,        cq_vector,       sq_head,
        sq_tail,         sq_cq,          sq_admin_cq,     admin_sq_cq,
        sq_doomed,       first_plain,    first_admin,     first_no_room,
        ns_zero,         ns_beyond,      ns_shift,        ns_large,
        many_namespaces, firsts_no_room,
    };

    (void)state;
    for (size_t i = 0; i < sizeof(spoil) / sizeof(*spoil); i++) {
        struct nvme_saved *s = malloc(sizeof(*s));
        struct st_err err = {""};
        size_t len;
        void *p;

        assert_non_null(s);
        memcpy(s, saved, sizeof(*s));
        spoil[i](s);
        p = st_nvme_saved_write(s, &len);
        if (st_nvme_saved_read(p, len, s, &err) == 0)
            fail_msg("number %zu is taken", i);
        assert_non_null(strstr(err.text, "make no sense"));
        free(p);
        free(s);
    }
}

/* ---- Old ones ---- */

static void
load(const char *name)
{
    char path[200];
    FILE *file;

    snprintf(path, sizeof(path), GOLDEN "%s", name);
    file = fopen(path, "rb");
    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    blob.blob = malloc(1 << 20);
    assert_non_null(blob.blob);
    blob.len = fread(blob.blob, 1, 1 << 20, file);
    fclose(file);
}

/* R becomes BLOB. */
static void
revive(struct rig *r)
{
    if (restore(r, &blob))
        fail_msg("%s", blob.err.text);
    free(blob.blob);
}

static struct rig *
off(void)
{
    struct rig *r = rig_new(&opts);

    power_on(r);
    return r;
}

/* The driver and the guest's memory follow from what was saved, as all
 * completions had been taken. */
static void
guest_of_saved(struct rig *r)
{
    r->shadow = saved->shadow_page;
    r->event = saved->event_page;
    for (uint32_t i = 0; i < saved->nsq; i++) {
        const struct nvme_saved_sq *sq = &saved->sq[i];
        const struct nvme_saved_cq *cq = &saved->cq[i];

        r->q[sq->qid] = (struct rig_queue){.sq = sq->base,
                                           .cq = cq->base,
                                           .sq_size = sq->size,
                                           .cq_size = cq->size,
                                           .tail = sq->tail,
                                           .head = cq->tail,
                                           .phase = cq->phase,
                                           .cid = 1000,
                                           .made = true};
        /* What lies in the ring is of this round, or of the last. */
        for (uint32_t k = 0; k < cq->size; k++) {
            struct nvme_cqe *e = rig_at(r, cq->base + k * sizeof(*e));

            e->status = le16_of(cq->phase == (k < cq->tail));
        }
        if (!sq->qid)
            continue;
        atomic_store(rig_word(r, r->shadow, 2u * sq->qid), sq->tail);
        atomic_store(rig_word(r, r->shadow, 2u * sq->qid + 1), cq->tail);
    }
}

static void
golden_ready_goes_on(void **state)
{
    struct rig *r = off();
    struct nvme_cqe e;

    (void)state;
    load("v1-ready");
    saved = malloc(sizeof(*saved));
    assert_non_null(saved);
    assert_int_equal(st_nvme_saved_read(blob.blob, blob.len, saved, NULL), 0);
    guest_of_saved(r);
    revive(r);
    assert_int_equal(rig_csts(r), NVME_CSTS_RDY);
    use_block(r, 1, 77);
    use_block(r, 2, 78);
    rig_submit(r, 4,
               (struct nvme_sqe){.opcode = NVME_FLUSH, .nsid = le32_of(1)});
    e = rig_reap(r, 4); /* half a pair had no other half */
    assert_int_equal(rig_status(&e), NVME_ABORTED_FUSED_MISSING | NVME_DNR);
    e = rig_reap(r, 4);
    assert_int_equal(rig_status(&e), NVME_OK);
    free(saved);
    rig_free(r);
}

static void
golden_disabled_can_be_enabled(void **state)
{
    struct rig *r = off();

    (void)state;
    load("v1-disabled");
    revive(r);
    assert_int_equal(rig_read(r, NVME_REG_AQA, 4), 0x00070007);
    rig_enable(r);
    rig_free(r);
}

static void
golden_failed_can_be_reset(void **state)
{
    struct rig *r = off();

    (void)state;
    load("v1-failed");
    revive(r);
    assert_int_equal(rig_csts(r), NVME_CSTS_CFS);
    rig_write(r, NVME_REG_CC, 4, 0);
    rig_until(r, !rig_csts(r));
    rig_enable(r);
    rig_free(r);
}

/* ---- To write them ---- */

static void
put_file(const char *dir, const char *name, const uint8_t *p, size_t len)
{
    char path[500];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(p, 1, len, file), len);
    fclose(file);
}

static void
write_all(const char *dir)
{
    static const struct rig_opts seed = {
        .no_disk = true, .nvme = {.queues = 4, .entries = 64, .namespaces = 8}};
    /* What fuzz_nvme_save puts before its input. */
    enum { IDENTITY = NVME_SAVED_HEADER + 16 + 2 + 20 + 40 + 16 + 2 };
    struct rig *r = busy();
    struct save s;

    for (unsigned qid = 0; qid <= 4; qid++)
        for (struct nvme_cqe e; r->q[qid].made && rig_peek(r, qid, &e);)
            ;
    save_ok(r, &s);
    put_file(dir, "v1-ready", s.blob, s.len);
    free(s.blob);
    rig_free(r);
    r = rig_new(&opts);
    rig_write(r, NVME_REG_AQA, 4, 0x00070007);
    save_ok(r, &s);
    put_file(dir, "v1-disabled", s.blob, s.len);
    free(s.blob);
    rig_write(r, NVME_REG_CC, 4, RIG_CC | 1 << NVME_CC_MPS_SHIFT | NVME_CC_EN);
    rig_until(r, rig_csts(r) & NVME_CSTS_CFS);
    save_ok(r, &s);
    put_file(dir, "v1-failed", s.blob, s.len);
    free(s.blob);
    rig_free(r);

    r = rig_new(&seed);
    save_ok(r, &s);
    put_file(dir, "seed-disabled", (uint8_t *)s.blob + IDENTITY,
             s.len - IDENTITY);
    free(s.blob);
    rig_enable(r);
    rig_pair(r, 1, 8, 8);
    save_ok(r, &s);
    put_file(dir, "seed-ready", (uint8_t *)s.blob + IDENTITY, s.len - IDENTITY);
    free(s.blob);
    rig_shadow(r);
    rig_pair(r, 2, 16, 16);
    rig_submit(r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    {
        struct nvme_sqe first = rig_rw(NVME_COMPARE, 7, 1, RIG_DATA);

        first.flags = 1;
        rig_submit(r, 2, first);
    }
    rig_steps(r, 100);
    save_ok(r, &s);
    put_file(dir, "seed-shadow", (uint8_t *)s.blob + IDENTITY,
             s.len - IDENTITY);
    free(s.blob);
    rig_free(r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(reading_is_the_reverse_of_writing),
        TEST(every_byte_counts),
        TEST(every_length_counts),
        TEST(nonsense_is_refused),
        cmocka_unit_test(golden_ready_goes_on),
        cmocka_unit_test(golden_disabled_can_be_enabled),
        cmocka_unit_test(golden_failed_can_be_reset),
    };

    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        write_all(argv[2]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
