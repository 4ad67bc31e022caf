/* SPDX-License-Identifier: MIT
 *
 * What tests of saving share: calls that are waited for, and a second rig that
 * takes over memory, disk and driver of a first one.
 */
#ifndef TEST_NVME_SAVE_H
#define TEST_NVME_SAVE_H

#include "test_nvme_rig.h"

#define SAVE_NS UINT64_C(5000000000)

struct save {
    void *blob;
    size_t len;
    struct st_err err;
};

static inline int
save_within(struct rig *r, uint64_t ns, struct save *s)
{
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    s->blob = NULL;
    st_nvme_save(r->nvme, ns, &s->blob, &s->len, &c);
    rig_until(r, rc != RIG_PENDING);
    s->err = c.err;
    return rc;
}

static inline void
save_ok(struct rig *r, struct save *s)
{
    if (save_within(r, SAVE_NS, s))
        fail_msg("%s", s->err.text);
}

static inline int
restore(struct rig *r, struct save *s)
{
    int rc = RIG_PENDING;
    struct st_nvme_call c = {.done = rig_called, .arg = &rc};

    st_nvme_restore(r->nvme, s->blob, s->len, &c);
    rig_until(r, rc != RIG_PENDING);
    s->err = c.err;
    return rc;
}

static inline void
restore_refused(struct rig *r, struct save *s, const char *sentence)
{
    assert_int_equal(restore(r, s), -EINVAL);
    if (!strstr(s->err.text, sentence))
        fail_msg("'%s' does not say '%s'", s->err.text, sentence);
}

struct power {
    struct st_access access; /* first */
    _Atomic bool done;
};

static inline void
power_done(struct st_access *a)
{
    atomic_store(&((struct power *)a)->done, true);
}

/* Power on: the host's reset, whoever has set up what. */
static inline void
power_on(struct rig *r)
{
    struct power p = {.access.done = power_done};

    if (!st_pci_reset(r->pci, &p.access))
        rig_until(r, atomic_load(&p.done));
}

/* A new process in place of OLD's: its own controller and disk, with the same
 * bytes, and the same driver. */
static inline struct rig *
successor(struct rig *old, const struct rig_opts *o)
{
    struct rig *r = rig_new(o);

    power_on(r);
    memcpy(r->ram, old->ram, RIG_LOW_SIZE + 2 * RIG_DATA_SIZE);
    memcpy(st_testnode_bytes(r->node), st_testnode_bytes(old->node),
           st_min(st_node_size(r->node), st_node_size(old->node)));
    memcpy(r->q, old->q, sizeof(r->q));
    r->shadow = old->shadow;
    r->event = old->event;
    return r;
}

/* Save R, end it, and go on in another. */
static inline struct rig *
move(struct rig *r, const struct rig_opts *o)
{
    struct save s;
    struct rig *to;

    save_ok(r, &s);
    to = successor(r, o);
    rig_free(r);
    if (restore(to, &s))
        fail_msg("%s", s.err.text);
    free(s.blob);
    return to;
}

/* Write LBA's number all over its block, and read it back. */
static inline void
use_block(struct rig *r, unsigned qid, uint64_t lba)
{
    uint8_t *p = rig_at(r, RIG_DATA);

    memset(p, (int)(lba * 7 + 1), 512);
    assert_int_equal(rig_do(r, qid, rig_rw(NVME_WRITE, lba, 1, RIG_DATA), NULL),
                     NVME_OK);
    memset(p, 0, 512);
    assert_int_equal(rig_do(r, qid, rig_rw(NVME_READ, lba, 1, RIG_DATA), NULL),
                     NVME_OK);
    for (unsigned i = 0; i < 512; i++)
        assert_int_equal(p[i], (uint8_t)(lba * 7 + 1));
}

#endif
