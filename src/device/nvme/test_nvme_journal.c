/* SPDX-License-Identifier: MIT
 *
 * A controller is killed between any two steps of its journal, and a successor
 * goes on: every command completes once, with the right data, and nothing else
 * changes for the guest.
 *
 *   the journal says "step" --> memory of guest, disk and journal are copied
 *   later                       a new controller gets the copies, the old one
 *                               is thrown away with its own
 *
 * A message of the host that was being served is served again, as the door
 * does.
 */
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "journal.h"
#include "keep.h"
#include "test_nvme_rig.h"

enum {
    RAM = RIG_LOW_SIZE + 2 * RIG_DATA_SIZE,
    BLOCK = 512,
    COMMANDS = 24, /* under way at most */
    LBAS = 8,      /* of one command */
};

/* A command of the driver's. */
struct command {
    bool used;
    unsigned qid, op, n;
    uint16_t cid;
    uint64_t lba, at;
    uint8_t fill;
};

struct life {
    struct rig_opts opts;
    struct rig *r;
    struct st_keep *keep;
    /* The kill: after so many steps; 0: not yet planned. */
    unsigned left, steps, kills;
    bool killed, power_lost;
    uint8_t *ram, *disk, *journal;
    size_t journal_len;
    /* The driver. */
    struct command c[COMMANDS];
    uint8_t model[RIG_DISK / BLOCK];
    struct st_rand rand;
    unsigned done;
};

/* ---- The kill ---- */

static void
step(void *arg)
{
    struct life *l = arg;
    struct st_nvme *n = l->r->nvme;

    l->steps++;
    if (l->killed || !l->left || --l->left)
        return;
    l->killed = true;
    memcpy(l->ram, l->r->ram, RAM);
    memcpy(l->disk, st_testnode_bytes(l->r->node), RIG_DISK);
    memcpy(l->journal, n->journal_old ? n->journal_old : n->journal,
           l->journal_len);
}

/* A holder's end of a socket with what is to be resumed, or nothing. */
static struct st_keep *
keep_with(int fd)
{
    struct st_holder *h = st_holder_create();
    struct st_keep *k;
    struct st_err err;
    char text[64];
    size_t len;
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    if (fd >= 0) { /* put by the predecessor */
        assert_int_equal(st_holder_give(h, pair[0]), 0);
        assert_int_equal(st_keep_open(pair[1], &k, &err), 0);
        assert_int_equal(st_keep_put(k, fd, "nvme.nvme"), 0);
        assert_int_equal(st_holder_take(h, pair[0], text, sizeof(text), &len),
                         1);
        st_keep_close(k);
        close(pair[0]);
        close(fd);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    }
    assert_int_equal(st_holder_give(h, pair[0]), 0);
    assert_int_equal(st_keep_open(pair[1], &k, &err), 0);
    close(pair[0]); /* puts get lost: it is the memory that is looked at */
    st_holder_destroy(h);
    return k;
}

static void
watch(struct life *l)
{
    struct st_nvme *n = l->r->nvme;

    n->journal_arg = l;
    n->journal_step = step;
    l->journal_len = n->journal->len;
}

static void
born(struct life *l, int fd)
{
    l->keep = keep_with(fd);
    l->opts.nvme.keep = l->keep;
    l->r = rig_new(&l->opts);
}

/* What the guest may have said and was not heard is said again. */
static void
ring_again(struct rig *r)
{
    for (unsigned qid = 0; qid < RIG_QUEUES; qid++) {
        if (!r->q[qid].made)
            continue;
        rig_write(r, NVME_REG_DOORBELLS + 8 * qid, 4, r->q[qid].tail);
        rig_write(r, NVME_REG_DOORBELLS + 8 * qid + 4, 4, r->q[qid].head);
    }
}

/* The successor, which may be killed while it begins. */
static void
reborn(struct life *l)
{
    struct rig *old = l->r;
    struct st_keep *keep = l->keep;
    int rc = RIG_PENDING, fd = memfd_create("journal", MFD_CLOEXEC);
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    assert_true(fd >= 0);
    assert_int_equal(write(fd, l->journal, l->journal_len), l->journal_len);
    l->kills++;
    l->killed = false;
    old->nvme->journal_step = NULL;
    born(l, fd);
    memcpy(l->r->ram, l->ram, RAM);
    memcpy(st_testnode_bytes(l->r->node), l->disk, RIG_DISK);
    memcpy(l->r->q, old->q, sizeof(old->q));
    l->r->shadow = old->shadow;
    l->r->event = old->event;
    rig_free(old);
    st_keep_close(keep);
    watch(l);
    assert_true(st_nvme_resumes(l->r->nvme));
    st_nvme_resume(l->r->nvme, &c);
    while (rc == RIG_PENDING && !l->killed)
        rig_step(l->r);
    if (l->killed) {
        reborn(l);
        return;
    }
    if (rc)
        fail_msg("%s", c.err.text);
    ring_again(l->r);
}

static void
life_step(struct life *l)
{
    if (l->killed)
        reborn(l);
    rig_step(l->r);
}

#define life_until(l, cond)                                                    \
    do {                                                                       \
        unsigned life_n = 0;                                                   \
        while ((l)->killed || !(cond)) {                                       \
            if (life_n++ == 200000)                                            \
                fail_msg("never: %s", #cond);                                  \
            life_step(l);                                                      \
        }                                                                      \
    } while (0)

static struct life *
life_new(unsigned loops, uint64_t seed, unsigned left)
{
    struct life *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    l->opts = (struct rig_opts){
        .loops = loops, .seed = seed, .disk = {.async = true, .seed = seed}};
    l->rand = st_rand_seed(seed);
    l->ram = malloc(RAM);
    l->disk = malloc(RIG_DISK);
    assert_true(l->ram && l->disk);
    born(l, -1);
    watch(l);
    l->journal = malloc(l->journal_len);
    assert_non_null(l->journal);
    l->left = left;
    return l;
}

static void
life_free(struct life *l)
{
    if (l->killed)
        reborn(l);
    l->r->nvme->journal_step = NULL;
    rig_free(l->r);
    st_keep_close(l->keep);
    free(l->ram);
    free(l->disk);
    free(l->journal);
    free(l);
}

/* ---- The driver ---- */

static void
set(struct life *l, uint64_t at, unsigned len, uint64_t value)
{
    rig_write(l->r, at, len, value);
    if (!l->killed)
        return;
    reborn(l);
    rig_write(l->r, at, len, value);
}

static void
enable(struct life *l)
{
    unsigned n = 8;

    memset(rig_at(l->r, rig_ring(0, true)), 0, n * 16);
    set(l, NVME_REG_AQA, 4, (n - 1) << 16 | (n - 1));
    set(l, NVME_REG_ASQ, 8, rig_ring(0, false));
    set(l, NVME_REG_ACQ, 8, rig_ring(0, true));
    set(l, NVME_REG_CC, 4, RIG_CC | NVME_CC_EN);
    life_until(l, rig_csts(l->r) == NVME_CSTS_RDY);
    rig_queue_reset(&l->r->q[0], rig_ring(0, false), n, rig_ring(0, true), n);
}

static void
disable(struct life *l)
{
    set(l, NVME_REG_CC, 4, RIG_CC);
    life_until(l, rig_csts(l->r) == 0);
    for (unsigned i = 0; i < RIG_QUEUES; i++)
        l->r->q[i].made = false;
}

/* The next completion of QID. A ring for its head may get lost. */
static struct nvme_cqe
reap(struct life *l, unsigned qid)
{
    struct nvme_cqe e = {0};
    uint32_t old = l->r->q[qid].head;

    life_until(l, rig_peek(l->r, qid, &e));
    rig_ring_cq(l->r, qid, old);
    return e;
}

static unsigned
admin(struct life *l, struct nvme_sqe e, uint32_t *dw0)
{
    uint16_t cid = rig_submit(l->r, 0, e);
    struct nvme_cqe c = reap(l, 0);

    assert_int_equal(le16_get(c.cid), cid);
    if (dw0)
        *dw0 = le32_get(c.dw0);
    return rig_status(&c);
}

static void
pair(struct life *l, unsigned qid, uint32_t size)
{
    uint64_t sq = rig_ring(qid, false), cq = rig_ring(qid, true);

    memset(rig_at(l->r, cq), 0, size * 16);
    assert_int_equal(admin(l,
                           rig_admin(NVME_ADMIN_CREATE_CQ, 0, cq,
                                     (size - 1) << 16 | qid, qid << 16 | 3),
                           NULL),
                     NVME_OK);
    assert_int_equal(admin(l,
                           rig_admin(NVME_ADMIN_CREATE_SQ, 0, sq,
                                     (size - 1) << 16 | qid, qid << 16 | 1),
                           NULL),
                     NVME_OK);
    rig_queue_reset(&l->r->q[qid], sq, size, cq, size);
}

static void
unpair(struct life *l, unsigned qid)
{
    l->r->q[qid].made = false;
    assert_int_equal(
        admin(l, rig_admin(NVME_ADMIN_DELETE_SQ, 0, 0, qid, 0), NULL), NVME_OK);
    assert_int_equal(
        admin(l, rig_admin(NVME_ADMIN_DELETE_CQ, 0, 0, qid, 0), NULL), NVME_OK);
}

static void
check_done(struct life *l)
{
    for (unsigned i = 0; i < COMMANDS; i++)
        assert_false(l->c[i].used);
}

/* ---- Commands with data, against a model of a byte for each block ---- */

static bool
is_free(const struct life *l, uint64_t lba, unsigned n)
{
    for (unsigned i = 0; i < COMMANDS; i++)
        if (l->c[i].used && lba < l->c[i].lba + l->c[i].n &&
            l->c[i].lba < lba + n)
            return false;
    return true;
}

/* Submit one, if there is room. */
static bool
submit(struct life *l, unsigned qid)
{
    static const uint8_t ops[] = {NVME_WRITE, NVME_READ, NVME_WRITE_ZEROES,
                                  NVME_COMPARE, NVME_FLUSH};
    struct rig_queue *q = &l->r->q[qid];
    struct command *c = NULL;
    unsigned queued = 0;

    for (unsigned i = 0; i < COMMANDS; i++) {
        queued += l->c[i].used && l->c[i].qid == qid;
        if (!l->c[i].used)
            c = &l->c[i];
    }
    if (!c || queued + 1 >= q->sq_size)
        return false;
    c->op = ops[st_rand_below(&l->rand, 5)];
    c->n = 1 + (unsigned)st_rand_below(&l->rand, LBAS);
    c->lba = st_rand_below(&l->rand, 200);
    if (!is_free(l, c->lba, c->n))
        return false;
    c->qid = qid;
    c->used = true;
    c->at = RIG_DATA + (uint64_t)(c - l->c) * LBAS * BLOCK;
    c->fill = (uint8_t)(1 + st_rand_below(&l->rand, 255));
    for (unsigned i = 0; i < c->n; i++)
        memset(rig_at(l->r, c->at + i * BLOCK),
               c->op == NVME_COMPARE ? l->model[c->lba + i] : c->fill, BLOCK);
    c->cid = rig_submit(l->r, qid, rig_rw((uint8_t)c->op, c->lba, c->n, c->at));
    return true;
}

/* E has come: it belongs to a command under way, whose data are right. */
static void
completed(struct life *l, unsigned qid, const struct nvme_cqe *e)
{
    for (unsigned k = 0; k < COMMANDS; k++) {
        struct command *c = &l->c[k];

        if (!c->used || c->qid != qid || c->cid != le16_get(e->cid))
            continue;
        assert_int_equal(rig_status(e), NVME_OK);
        c->used = false;
        l->done++;
        for (unsigned i = 0; i < c->n; i++) {
            uint8_t *m = &l->model[c->lba + i];

            if (c->op == NVME_WRITE)
                *m = c->fill;
            else if (c->op == NVME_WRITE_ZEROES)
                *m = 0;
            else if (c->op == NVME_READ)
                for (unsigned b = 0; b < BLOCK; b++)
                    assert_int_equal(
                        ((uint8_t *)rig_at(l->r, c->at + i * BLOCK))[b], *m);
        }
        return;
    }
    fail_msg("queue %u: %u completed twice", qid, le16_get(e->cid));
}

static void
reap_all(struct life *l)
{
    for (unsigned qid = 1; qid < RIG_QUEUES && !l->killed; qid++) {
        struct nvme_cqe e;
        uint32_t old = l->r->q[qid].head;

        if (!l->r->q[qid].made || !rig_peek(l->r, qid, &e))
            continue;
        completed(l, qid, &e);
        rig_ring_cq(l->r, qid, old);
    }
}

/* COUNT commands on queues 1 to QUEUES. */
static void
io(struct life *l, unsigned queues, unsigned count)
{
    unsigned want = l->done + count, n = 0;

    while (l->done < want) {
        if (n++ == 1000000)
            fail_msg("commands do not end");
        if (!l->killed && st_rand_below(&l->rand, 3) == 0)
            submit(l, 1 + (unsigned)st_rand_below(&l->rand, queues));
        if (!l->killed && st_rand_below(&l->rand, 3) == 0)
            reap_all(l);
        life_step(l);
    }
}

static void
io_ends(struct life *l)
{
    for (unsigned i = 0; i < 5000; i++) {
        if (!l->killed)
            reap_all(l);
        life_step(l);
    }
    check_done(l);
}

/* ---- Tests ---- */

/* What the guest asked to be told, and was told. */
static void
events(struct life *l)
{
    struct nvme_sqe log =
        rig_admin(NVME_ADMIN_GET_LOG_PAGE, 0, RIG_HIGH, 1023u << 16 | 4, 0);
    unsigned kills;
    struct nvme_cqe e;
    uint16_t cid;
    le32 first;

    /* The namespace is news. */
    assert_int_equal(admin(l, log, NULL), NVME_OK);
    cid = rig_submit(l->r, 0, rig_admin(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0, 0));
    /* It waits, whatever happens meanwhile. */
    assert_int_equal(
        admin(l, rig_admin(NVME_ADMIN_SET_FEATURES, 0, 0, 0x04, 350), NULL),
        NVME_OK);
    if (l->killed)
        reborn(l);
    kills = l->kills;
    st_nvme_ns_changed(l->r->nvme, 1);
    life_until(l, !l->r->nvme->changed_posted);
    /* A change that nobody knows of any more is no change. */
    if (l->kills != kills && !l->r->nvme->event[NVME_EVENT_NOTICE].told)
        st_nvme_ns_changed(l->r->nvme, 1);
    e = reap(l, 0);
    assert_int_equal(le16_get(e.cid), cid);
    assert_int_equal(le32_get(e.dw0), 0x040002);
    assert_int_equal(admin(l, log, NULL), NVME_OK);
    memcpy(&first, rig_at(l->r, RIG_HIGH), sizeof(first));
    assert_int_equal(le32_get(first), 1);
}

/* One whole life of a driver, killed at one step. False: that step does not
 * come. */
static bool
whole_life(unsigned kill_at)
{
    struct life *l = life_new(2, 5, kill_at);
    uint32_t value = 0;
    bool killed;

    enable(l);
    events(l);
    pair(l, 1, 8);
    pair(l, 2, 4);
    io(l, 2, 12);
    io_ends(l);
    unpair(l, 2);
    pair(l, 2, 16);
    io(l, 2, 6);
    io_ends(l);
    assert_int_equal(
        admin(l, rig_admin(NVME_ADMIN_GET_FEATURES, 0, 0, 0x04, 0), &value),
        NVME_OK);
    assert_int_equal(value, 350);
    disable(l);
    enable(l);
    assert_int_equal(
        admin(l, rig_admin(NVME_ADMIN_GET_FEATURES, 0, 0, 0x04, 0), &value),
        NVME_OK);
    assert_int_not_equal(value, 350);
    killed = l->kills || l->killed;
    life_free(l);
    return killed;
}

static void
a_kill_at_any_step_is_not_seen(void **state)
{
    unsigned at = 1;

    (void)state;
    while (whole_life(at))
        at++;
    print_message("%u steps\n", at - 1);
    assert_true(at > 100);
}

static void
kills_at_random_are_not_seen(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct life *l = life_new(1 + (unsigned)(seed % 3), seed, 0);

        enable(l);
        for (unsigned qid = 1; qid <= 4; qid++)
            pair(l, qid, 3 + qid * qid);
        for (unsigned i = 0; i < 25; i++) {
            l->left = 1 + (unsigned)st_rand_below(&l->rand, 60);
            io(l, 4, 10);
        }
        l->left = 0;
        io_ends(l);
        if (l->kills < 15)
            fail_msg("seed %ju: %u kills", (uintmax_t)seed, l->kills);
        life_free(l);
    }
}

static void
shadow_doorbells_go_on(void **state)
{
    struct life *l = life_new(2, 3, 0);

    (void)state;
    enable(l);
    for (unsigned qid = 1; qid <= 2; qid++)
        pair(l, qid, 16);
    rig_shadow(l->r);
    for (unsigned i = 0; i < 20; i++) {
        l->left = 1 + (unsigned)st_rand_below(&l->rand, 60);
        io(l, 2, 10);
    }
    l->left = 0;
    io_ends(l);
    assert_true(l->kills > 10);
    life_free(l);
}

/* What cannot be carried out twice ends with a status that says: try again. */
static void
what_is_not_idempotent_is_to_be_tried_again(void **state)
{
    struct life *l = life_new(1, 9, 0);
    struct nvme_sqe first = rig_rw(NVME_COMPARE, 7, 1, RIG_DATA);
    struct nvme_sqe second = rig_rw(NVME_WRITE, 7, 1, RIG_DATA + BLOCK);
    struct nvme_cqe e;

    (void)state;
    enable(l);
    pair(l, 1, 16);
    st_testnode_hang(l->r->node, true);
    first.flags = 1;
    second.flags = 2;
    rig_put(l->r, 1, first);
    rig_submit(l->r, 1, second);
    rig_submit(l->r, 1, rig_rw(NVME_COPY, 9, 1, RIG_DATA));
    rig_put(l->r, 1, first); /* waits for its second */
    rig_ring_sq(l->r, 1, l->r->q[1].tail);
    rig_steps(l->r, 200);
    assert_false(rig_peek(l->r, 1, &e));
    l->left = 1;
    step(l);
    assert_true(l->killed);
    reborn(l);
    for (unsigned i = 0; i < 3; i++) {
        e = reap(l, 1);
        assert_int_equal(le16_get(e.cid), i);
        assert_int_equal(rig_status(&e), NVME_INTERNAL_ERROR); /* no DNR */
    }
    rig_submit(l->r, 1, second);
    for (unsigned i = 3; i < 5; i++) {
        e = reap(l, 1);
        assert_int_equal(le16_get(e.cid), i);
        assert_int_equal(rig_status(&e), NVME_OK);
    }
    life_free(l);
}

/* The guest has gone meanwhile: as after power-on. */
static void
a_predecessor_can_be_forgotten(void **state)
{
    struct life *l = life_new(1, 1, 0);
    struct rig *old = l->r;
    struct st_keep *keep = l->keep;
    int fd;

    (void)state;
    enable(l);
    pair(l, 1, 16);
    l->left = 1;
    step(l);
    fd = memfd_create("journal", MFD_CLOEXEC);
    assert_int_equal(write(fd, l->journal, l->journal_len), l->journal_len);
    born(l, fd);
    old->nvme->journal_step = NULL;
    rig_free(old);
    st_keep_close(keep);
    l->killed = false;
    assert_true(st_nvme_resumes(l->r->nvme));
    st_nvme_forget(l->r->nvme);
    assert_false(st_nvme_resumes(l->r->nvme));
    assert_int_equal(rig_csts(l->r), 0);
    enable(l);
    pair(l, 1, 16);
    io(l, 1, 10);
    io_ends(l);
    life_free(l);
}

/* A journal that says nonsense: the guest has a controller to be reset. */
static void
nonsense_is_refused(void **state)
{
    (void)state;
    for (unsigned what = 0; what < 4; what++) {
        struct life *l = life_new(1, 1, 0);
        struct rig *old = l->r;
        struct st_keep *keep = l->keep;
        struct nvme_journal_queue *q;
        struct nvme_journal *j;
        int rc = RIG_PENDING, fd;
        struct st_nvme_call c = {.done = rig_called, .arg = &rc};

        enable(l);
        pair(l, 1, 16);
        l->left = 1;
        step(l);
        j = (struct nvme_journal *)(void *)l->journal;
        q = st_nvme_journal_queue(j, 1);
        if (what == 0)
            q->sq_size = 70000;
        else if (what == 1)
            q->fetched = 99;
        else if (what == 2)
            st_nvme_journal_blob_at(j, j->blob_now)[100] ^= 1;
        else
            j->blob[j->blob_now].len = UINT32_MAX;
        fd = memfd_create("journal", MFD_CLOEXEC);
        assert_int_equal(write(fd, l->journal, l->journal_len), l->journal_len);
        born(l, fd);
        old->nvme->journal_step = NULL;
        rig_free(old);
        st_keep_close(keep);
        l->killed = false;
        st_nvme_resume(l->r->nvme, &c);
        rig_until(l->r, rc != RIG_PENDING);
        assert_int_equal(rc, -EINVAL);
        assert_int_equal(rig_csts(l->r), 0);
        st_nvme_forget(l->r->nvme);
        enable(l);
        life_free(l);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_step_is_not_seen),
        cmocka_unit_test(kills_at_random_are_not_seen),
        cmocka_unit_test(shadow_doorbells_go_on),
        cmocka_unit_test(what_is_not_idempotent_is_to_be_tried_again),
        cmocka_unit_test(a_predecessor_can_be_forgotten),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
