/* SPDX-License-Identifier: MIT
 *
 * A controller on real loops, each with its thread: many queues, doorbells from
 * several threads, resets, namespaces and memory that go while commands are
 * under way. The test's thread is the home loop and a guest's driver; vCPUs are
 * threads that write registers.
 */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "test_nvme_rig.h"

static const char *const engines[] = {"threads", "io_uring"};

enum { ENGINES = 2, QUEUES = 4 };

static bool
have(const char *engine)
{
    struct st_domain_opts o = {.engine = engine};
    struct st_domain *d;
    struct st_err err;

    if (st_domain_create(&o, &d, &err) < 0)
        return false;
    st_domain_destroy(d);
    return true;
}

#define for_each_engine(e)                                                     \
    for (unsigned e = 0; e < ENGINES; e++)                                     \
        if (have(engines[e]))

static struct rig *
start(const char *engine, struct st_nvme_opts n)
{
    struct rig *r = rig_new(&(struct rig_opts){
        .engine = engine,
        .loops = 3,
        .nvme = n,
        .disk = {.async = true, .seed = 7},
    });

    rig_enable(r);
    return r;
}

static void
pairs(struct rig *r)
{
    for (unsigned q = 1; q <= QUEUES; q++)
        rig_pair(r, q, 32, 16);
}

/* N commands through every queue, which writes blocks of its own, and reads
 * them to elsewhere. */
static void
exercise(struct rig *r, unsigned n)
{
    unsigned sent[QUEUES + 1] = {0}, got[QUEUES + 1] = {0}, total = 0;

    while (total < QUEUES * n) {
        for (unsigned q = 1; q <= QUEUES; q++) {
            struct rig_queue *rq = &r->q[q];
            uint32_t old = rq->tail, head = rq->head;
            struct nvme_cqe e;

            while (sent[q] < n && sent[q] - got[q] < 24) {
                unsigned i = sent[q]++;
                unsigned block = q * 64 + i % 64;
                bool read = i / 64 % 2;

                rig_put(r, q,
                        rig_rw(read ? NVME_READ : NVME_WRITE, block, 1,
                               (read ? RIG_HIGH : RIG_DATA) + block * 512));
            }
            if (rq->tail != old)
                rig_ring_sq(r, q, old);
            while (rig_peek(r, q, &e)) {
                assert_int_equal(rig_status(&e), NVME_OK);
                got[q]++;
                total++;
            }
            if (rq->head != head)
                rig_ring_cq(r, q, head);
        }
        rig_step(r);
    }
}

static void
queues_run_on_their_loops(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){.poll_us = 20});
        uint8_t *data = rig_at(r, RIG_DATA);

        for (unsigned i = 0; i < (QUEUES + 1) * 64; i++)
            memset(data + i * 512, (int)i, 512);
        pairs(r);
        exercise(r, 640);
        for (unsigned i = 64; i < (QUEUES + 1) * 64; i++)
            assert_int_equal(st_testnode_bytes(r->node)[i * 512], i & 0xff);
        rig_disable(r);
        rig_enable(r);
        rig_shadow(r);
        pairs(r);
        exercise(r, 640);
        assert_in_range(rig_counter(r, "completions"), QUEUES * 1280,
                        QUEUES * 1280 + 100);
        rig_free(r);
    }
}

static void
reset_under_load(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){.poll_us = 10});

        for (unsigned round = 0; round < 25; round++) {
            if (round % 2)
                rig_shadow(r);
            pairs(r);
            for (unsigned q = 1; q <= QUEUES; q++) {
                uint32_t old = r->q[q].tail;

                for (unsigned i = 0; i < 15; i++)
                    rig_put(r, q, rig_rw(NVME_READ, i, 8, RIG_DATA));
                rig_ring_sq(r, q, old);
            }
            rig_steps(r, round % 3);
            if (round % 5 == 4) {
                st_pci_config_write(r->pci, r->pci->express + 8, 2, 0x8000);
                rig_until(r, !atomic_load(&r->pci->resetting));
                rig_pci_on(r, true);
                r->shadow = r->event = 0;
            } else {
                rig_disable(r);
            }
            rig_enable(r);
        }
        assert_int_equal(rig_counter(r, "resets_forced"), 0);
        rig_free(r);
    }
}

static void
a_namespace_leaves_under_load(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){0});

        pairs(r);
        for (unsigned round = 0; round < 20; round++) {
            int rc = RIG_PENDING;
            struct st_nvme_call c = {.done = rig_called, .arg = &rc};

            for (unsigned q = 1; q <= QUEUES; q++) {
                uint32_t old = r->q[q].tail;

                for (unsigned i = 0; i < 10; i++)
                    rig_put(r, q, rig_rw(NVME_READ, i, 1, RIG_DATA));
                rig_ring_sq(r, q, old);
            }
            rig_steps(r, round % 2);
            st_nvme_remove_namespace(r->nvme, 1, UINT64_C(10000000000), &c);
            for (unsigned q = 1; q <= QUEUES; q++)
                for (unsigned i = 0; i < 10; i++) {
                    struct nvme_cqe s = rig_reap(r, q);
                    unsigned status = rig_status(&s);

                    assert_true(status == NVME_OK ||
                                status == (NVME_INVALID_NAMESPACE | NVME_DNR));
                }
            rig_until(r, rc != RIG_PENDING);
            assert_int_equal(rc, 0);
            assert_int_equal(
                st_nvme_add_namespace(r->nvme, 1, r->disk, false, NULL, NULL),
                0);
        }
        rig_free(r);
    }
}

/* ---- vCPUs ---- */

struct vcpu {
    struct rig *r;
    uint64_t seed;
    pthread_t thread;
    _Atomic bool stop;
};

/* Doorbells of any queue, to values that mostly mean nothing, and harmless
 * registers. */
static void *
vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    struct st_rand rand = st_rand_seed(v->seed);

    while (!atomic_load(&v->stop)) {
        unsigned i = 10 + (unsigned)st_rand_below(&rand, 40);

        rig_write(v->r, NVME_REG_DOORBELLS + 4 * i, 4,
                  st_rand_below(&rand, 64));
        rig_read(v->r, NVME_REG_CSTS, 4);
        rig_write(v->r, NVME_REG_INTMS, 4, 1);
        rig_write(v->r, NVME_REG_INTMC, 4, 1);
        if (st_rand_below(&rand, 8) == 0)
            sched_yield();
    }
    return NULL;
}

static void
vcpus_start(struct vcpu *v, unsigned n, struct rig *r)
{
    for (unsigned i = 0; i < n; i++) {
        v[i] = (struct vcpu){.r = r, .seed = i + 1};
        assert_int_equal(pthread_create(&v[i].thread, NULL, vcpu_main, &v[i]),
                         0);
    }
}

static void
vcpus_stop(struct vcpu *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        atomic_store(&v[i].stop, true);
        pthread_join(v[i].thread, NULL);
    }
}

static void
registers_are_written_from_everywhere(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){.intx = true});
        struct vcpu v[2];

        rig_pci_on(r, true);
        pairs(r);
        vcpus_start(v, 2, r);
        exercise(r, 200);
        rig_disable(r);
        rig_enable(r);
        pairs(r);
        exercise(r, 200);
        vcpus_stop(v, 2);
        rig_free(r);
    }
}

/* ---- The pin ---- */

/* Until the pin is up, or (UP false) down; it is so late that it is lost. */
static void
await_pin(struct rig *r, bool up)
{
    for (unsigned i = 0; atomic_load(&r->level) != up; i++) {
        assert_true(i < 20000000);
        sched_yield();
    }
}

/* Who takes a completion while the next one is posted is told of that one,
 * and of no more. */
static void
the_pin_tells_of_every_completion(void **state)
{
    enum { COMMANDS = 5000, DEPTH = 2 };

    (void)state;
    for_each_engine(e)
    {
        for (int shadowed = 0; shadowed < 2; shadowed++) {
            struct rig *r = start(
                engines[e], (struct st_nvme_opts){.intx = true, .poll_us = 20});
            unsigned sent = 0, got = 0;

            if (shadowed)
                rig_shadow(r);
            rig_pair(r, 1, 32, 16);
            while (got < COMMANDS) {
                uint32_t tail = r->q[1].tail, head = r->q[1].head;
                struct nvme_cqe s;

                while (sent < COMMANDS && sent - got < DEPTH)
                    rig_put(r, 1, rig_rw(NVME_READ, sent++ % 8, 1, RIG_DATA));
                if (r->q[1].tail != tail)
                    rig_ring_sq(r, 1, tail);
                await_pin(r, true);
                if (rig_peek(r, 1, &s)) {
                    got++;
                    rig_ring_cq(r, 1, head);
                }
            }
            await_pin(r, false);
            rig_free(r);
        }
    }
}

/* ---- One CPU ---- */

/* A guest and its controller share a CPU. Whoever only looks lets the other one
 * go on, so there are some looks between a completion and the next command
 * (370, of 70 ns each), not a whole time slice of them (40,000).
 */
static void
a_worker_that_looks_yields(void **state)
{
    enum { COMMANDS = 30, LOOKS = 4000 };
    cpu_set_t all, one;
    unsigned cpu = 0;

    (void)state;
    if (sched_getaffinity(0, sizeof(all), &all) < 0)
        skip();
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    for_each_engine(e)
    {
        /* Threads inherit the CPU. */
        struct rig *r =
            start(engines[e], (struct st_nvme_opts){.poll_us = 10000000});
        uint64_t before;

        rig_shadow(r);
        rig_pair(r, 1, 32, 16);
        before = rig_counter(r, "turns");
        for (unsigned i = 0; i < COMMANDS; i++) {
            struct nvme_cqe s;
            uint32_t tail = r->q[1].tail, head = r->q[1].head;

            rig_put(r, 1, rig_rw(NVME_READ, i, 1, RIG_DATA));
            rig_ring_sq(r, 1, tail);
            while (!rig_peek(r, 1, &s))
                sched_yield();
            assert_int_equal(rig_status(&s), NVME_OK);
            rig_ring_cq(r, 1, head);
        }
        assert_in_range(rig_counter(r, "turns") - before, COMMANDS,
                        COMMANDS * LOOKS);
        rig_free(r);
    }
    sched_setaffinity(0, sizeof(all), &all);
}

/* ---- Memory ---- */

static void
unmapped(struct st_gmem_unmap *u)
{
    *(bool *)u->arg = true;
}

static void
data_memory_goes_under_load(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){0});

        pairs(r);
        for (unsigned round = 0; round < 20; round++) {
            bool done = false;
            struct st_gmem_unmap u = {.done = unmapped, .arg = &done};
            unsigned left = 0;

            for (unsigned q = 1; q <= QUEUES; q++) {
                uint32_t old = r->q[q].tail;

                for (unsigned i = 0; i < 10; i++, left++)
                    rig_put(r, q, rig_rw(NVME_READ, i, 1, RIG_HIGH + i * 4096));
                rig_ring_sq(r, q, old);
            }
            assert_int_equal(
                st_gmem_unmap(r->gmem, RIG_HIGH, RIG_DATA_SIZE, &u), 0);
            for (unsigned q = 1; q <= QUEUES; q++)
                for (unsigned i = 0; i < 10; i++) {
                    struct nvme_cqe s = rig_reap(r, q);
                    unsigned status = rig_status(&s);

                    assert_true(status == NVME_OK ||
                                status ==
                                    (NVME_DATA_TRANSFER_ERROR | NVME_DNR));
                }
            rig_until(r, done);
            rig_map(r, RIG_HIGH, RIG_DATA_SIZE);
        }
        rig_free(r);
    }
}

static void
rules_are_replaced_under_load(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){0});
        struct st_err err;

        pairs(r);
        for (unsigned round = 0; round < 20; round++) {
            assert_int_equal(
                st_nvme_set_faults(
                    r->nvme,
                    round % 2 ? ""
                              : "{\"rules\": [{\"on\": \"io.cqe\", "
                                "\"every\": 3, \"do\": {\"delay\": \"50us\"}}"
                                ", {\"on\": \"io.sqe\", \"every\": 5, "
                                "\"do\": \"stuck\"}]}",
                    &err),
                0);
            for (unsigned q = 1; q <= QUEUES; q++) {
                uint32_t old = r->q[q].tail;

                for (unsigned i = 0; i < 10; i++)
                    rig_put(r, q, rig_rw(NVME_READ, i, 1, RIG_DATA));
                rig_ring_sq(r, q, old);
            }
            for (unsigned q = 1; q <= QUEUES; q++)
                for (unsigned i = 0; i < 10; i++) {
                    struct nvme_cqe s = {0};
                    uint32_t old = r->q[q].head;

                    rig_until(r, (st_nvme_release_faults(r->nvme),
                                  rig_peek(r, q, &s)));
                    rig_ring_cq(r, q, old);
                    assert_int_equal(rig_status(&s), NVME_OK);
                }
        }
        rig_free(r);
    }
}

/* ---- Bells ---- */

/* A host that turns doorbells into eventfds. */
static struct bells {
    _Atomic int fd[2 * (QUEUES + 1)]; /* by doorbell, + 1; 0: a register */
    _Atomic unsigned wrong;
} bells;

static void
bell(struct st_pci_host *h, unsigned bar, uint64_t offset, unsigned len, int fd,
     bool on)
{
    uint64_t i = (offset - 0x1000) / 4;

    (void)h;
    if (bar != 0 || len != 4 || i >= 2 * (QUEUES + 1) || i < 2 || i % 2 ||
        fd < 0 || atomic_load(&bells.fd[i]) != (on ? 0 : fd + 1))
        atomic_fetch_add(&bells.wrong, 1);
    else
        atomic_store(&bells.fd[i], on ? fd + 1 : 0);
}

static bool
have_bells(bool want)
{
    for (unsigned q = 1; q <= QUEUES; q++)
        if (!atomic_load(&bells.fd[2 * q]) == want)
            return false;
    return true;
}

/* N reads of queue QID, told by its bell alone. */
static void
by_bell(struct rig *r, unsigned qid, unsigned n)
{
    const uint64_t one = 1;

    for (unsigned i = 0; i < n; i++) {
        struct rig_queue *q = &r->q[qid];
        struct nvme_cqe e = {0};
        uint32_t head = q->head;

        rig_put(r, qid, rig_rw(NVME_READ, i % 64, 1, RIG_DATA));
        atomic_store(rig_word(r, r->shadow, 2 * qid), q->tail);
        assert_int_equal(
            write(atomic_load(&bells.fd[2 * qid]) - 1, &one, sizeof(one)),
            sizeof(one));
        rig_until(r, rig_peek(r, qid, &e));
        assert_int_equal(rig_status(&e), NVME_OK);
        rig_ring_cq(r, qid, head);
    }
}

static void
doorbells_become_eventfds(void **state)
{
    (void)state;
    for_each_engine(e)
    {
        struct rig *r = start(engines[e], (struct st_nvme_opts){0});
        uint64_t doorbells;

        memset(&bells, 0, sizeof(bells));
        r->host.bell = bell;
        for (unsigned q = 1; q <= 2; q++)
            rig_pair(r, q, 32, 16);
        assert_true(have_bells(false)); /* nothing is shadowed */
        rig_shadow(r);
        for (unsigned q = 3; q <= QUEUES; q++)
            rig_pair(r, q, 32, 16);
        rig_until(r, have_bells(true));
        doorbells = rig_counter(r, "doorbells");
        for (unsigned q = 1; q <= QUEUES; q++)
            by_bell(r, q, 50);
        /* Nobody has asked for those of completion queues, but that a driver
         * rings once in each lap of 16. */
        assert_true(rig_counter(r, "doorbells") - doorbells <= 4 * QUEUES);
        assert_true(rig_counter(r, "bells") >= 1);
        assert_int_equal(rig_delete_sq(r, 2), NVME_OK);
        assert_int_equal(atomic_load(&bells.fd[4]), 0);
        rig_disable(r);
        assert_true(have_bells(false));
        assert_int_equal(atomic_load(&bells.wrong), 0);
        rig_free(r);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queues_run_on_their_loops),
        cmocka_unit_test(reset_under_load),
        cmocka_unit_test(a_namespace_leaves_under_load),
        cmocka_unit_test(registers_are_written_from_everywhere),
        cmocka_unit_test(the_pin_tells_of_every_completion),
        cmocka_unit_test(a_worker_that_looks_yields),
        cmocka_unit_test(data_memory_goes_under_load),
        cmocka_unit_test(rules_are_replaced_under_load),
        cmocka_unit_test(doorbells_become_eventfds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
