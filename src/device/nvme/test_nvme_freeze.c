/* SPDX-License-Identifier: MIT
 *
 * Saving while threads do I/O.
 */
#include "test_nvme_save.h"

/* Saved again and again under I/O of three threads, and moved: every command
 * ends once, and well. */
static void
io_of_threads_goes_on(void **state)
{
    struct rig_opts o = {.loops = 3, .engine = "threads"};
    struct rig *r = rig_ready(&o);
    unsigned submitted[4] = {0}, done[4] = {0};

    (void)state;
    rig_pair(r, 2, 64, 64);
    rig_pair(r, 3, 64, 64);
    for (unsigned round = 0; round < 12; round++) {
        struct save s = {0};
        int rc = RIG_PENDING;
        struct st_nvme_call c = {.done = rig_called, .arg = &rc};

        st_nvme_save(r->nvme, SAVE_NS, &s.blob, &s.len, &c);
        while (rc == RIG_PENDING) {
            for (unsigned qid = 1; qid <= 3; qid++) {
                struct nvme_cqe e;
                uint32_t head = r->q[qid].head;

                if (submitted[qid] - done[qid] < 30) {
                    rig_submit(r, qid,
                               rig_rw(NVME_WRITE, submitted[qid] % 1000, 1,
                                      RIG_DATA + qid * 4096));
                    submitted[qid]++;
                }
                while (rig_peek(r, qid, &e)) {
                    assert_int_equal(rig_status(&e), NVME_OK);
                    done[qid]++;
                }
                if (r->q[qid].head != head)
                    rig_ring_cq(r, qid, head);
            }
            rig_step(r);
        }
        if (rc)
            fail_msg("%s", c.err.text);
        free(s.blob);
        for (unsigned qid = 1; qid <= 3; qid++)
            for (; done[qid] < submitted[qid]; done[qid]++) {
                struct nvme_cqe e = rig_reap(r, qid);

                assert_int_equal(rig_status(&e), NVME_OK);
            }
        if (round % 4 == 3)
            r = move(r, &o);
    }
    for (unsigned qid = 1; qid <= 3; qid++)
        use_block(r, qid, qid);
    rig_free(r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(io_of_threads_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
