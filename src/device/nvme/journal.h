/* SPDX-License-Identifier: MIT
 *
 * A controller's journal: memory that outlives the process (keep.h), so that
 * the next one goes on where this one was killed. Private to the controller.
 *
 *   4 KiB       registers and state, twice; which of two blobs is valid
 *   doorbells   st_nvme.db itself
 *   2 blobs     what save.c writes, without queues: features, logs, events
 *   a record for every queue pair: where it lies, how far it is, its slots
 *
 * What a command's life leaves there, in this order; a kill may come between
 * any two:
 *
 *   fetch     slot: entry, number, STARTED        number = how many before it
 *             queue: how many, head
 *   complete  (admin: the blob, with this outcome; it becomes the valid one)
 *             slot: completion, where it goes, POSTING
 *             the guest's completion queue: the completion
 *             queue: tail and phase
 *             slot: FREE
 *
 * Read backwards that tells everything: a slot whose number is the queue's
 * count was fetched, and the head is one further; a POSTING one has been posted
 * if the tail has moved on, or if the guest's memory has it; all others are
 * under way and are carried out again.
 *
 * Plain stores in program order are enough: a process dies between two
 * instructions, and what it stored before is seen by all. Registers, blobs and
 * the admin queue are one loop's, which must be the door's, too.
 */
#ifndef ST_NVME_JOURNAL_H
#define ST_NVME_JOURNAL_H

#include "save.h"

enum {
    NVME_JOURNAL_SLOTS = NVME_SLOTS + NVME_AERL + NVME_ABORTS,
    NVME_JOURNAL_BLOB = 256 << 10, /* room for one */
    NVME_JOURNAL_VERSION = 1,
};

/* Of a completion that is decided, and waits to be posted. */
#define NVME_JOURNAL_NOWHERE UINT32_MAX

enum nvme_journal_state {
    NVME_JOURNAL_FREE,
    NVME_JOURNAL_STARTED,
    NVME_JOURNAL_POSTING,
};

/* A slot of a submission queue. */
struct nvme_journal_slot {
    struct nvme_sqe sqe;
    struct nvme_cqe cqe; /* POSTING: what is posted */
    uint32_t at;         /* and where in the completion queue */
    uint32_t number;     /* of the entry: how many were fetched before it */
    _Atomic uint32_t state;
    uint32_t unused;
};
static_assert(sizeof(struct nvme_journal_slot) == 96, "an array of them");

/* A queue pair's number; either half may be there. */
struct nvme_journal_queue {
    _Atomic uint32_t has_sq, has_cq;
    uint64_t sq_base, cq_base;
    uint32_t sq_size, cq_size;
    uint16_t cqid, vector;
    uint32_t ien;
    _Atomic uint64_t fetched; /* number of the next entry << 32 | head */
    _Atomic uint64_t posted;  /* phase << 32 | tail */
    _Atomic uint32_t cq_head;
    uint32_t unused;
    struct nvme_journal_slot slot[NVME_JOURNAL_SLOTS];
};

/* What the state machine and the register handlers have. */
struct nvme_journal_regs {
    uint32_t state; /* enum nvme_state */
    uint32_t cc, csts, aqa, intms, shadow;
    uint64_t asq, acq, resets, resets_done, shadow_page, event_page;
};

/* Which blob, and which admin command it has the outcome of. */
struct nvme_journal_blob {
    uint32_t len; /* 0: none */
    uint32_t done, slot, number;
    uint32_t status, dw0;
};

/* The beginning of the memory; the rest is found by its sizes. */
struct nvme_journal {
    char magic[8];
    uint32_t version, queues;
    uint64_t len, blobs, pairs; /* bytes; offsets */
    _Atomic uint32_t regs_now, blob_now;
    struct nvme_journal_regs regs[2];
    struct nvme_journal_blob blob[2];
};
static_assert(sizeof(struct nvme_journal) <= NVME_PAGE, "before the doorbells");

/* ---- journal.c ---- */

/* A new journal for N, whose sizes are known, and the predecessor's, if there
 * is one that fits. 0 or -errno with a sentence. Home loop. */
int st_nvme_journal_create(struct st_nvme *n, struct st_err *err);
void st_nvme_journal_free(struct st_nvme *n);

/* From now on a successor finds this journal. Any thread. */
void st_nvme_journal_keep(struct st_nvme *n);

/* Registers or state may have changed. The admin loop. NULL journal: no
 * more. */
void st_nvme_journal_regs(struct st_nvme *n);

/* Features, logs or events have. S: an admin command that is over, or NULL. */
void st_nvme_journal_blob(struct st_nvme *n, const struct nvme_slot *s);

/* Queues come and go, on their worker's loop; the journal may be NULL. */
void st_nvme_journal_sq(struct nvme_sq *sq);
void st_nvme_journal_cq(struct nvme_cq *cq);
void st_nvme_journal_sq_gone(struct nvme_sq *sq);
void st_nvme_journal_cq_gone(struct nvme_cq *cq);

/* S is to be posted as E to CQ; it has been; it goes without. */
void st_nvme_journal_posting(const struct nvme_cq *cq,
                             const struct nvme_slot *s,
                             const struct nvme_cqe *e);
void st_nvme_journal_posted(const struct nvme_cq *cq,
                            const struct nvme_slot *s);
void st_nvme_journal_dropped(const struct nvme_slot *s);

/* S, fetched before, will end as forced_status and dw0 say. */
void st_nvme_journal_decided(const struct nvme_slot *s);

/* CQ's head has moved. */
void st_nvme_journal_head(const struct nvme_cq *cq);

static inline struct nvme_journal_queue *
st_nvme_journal_queue(const struct nvme_journal *j, unsigned qid)
{
    return (struct nvme_journal_queue *)((uintptr_t)j + j->pairs) + qid;
}

static inline uint8_t *
st_nvme_journal_blob_at(const struct nvme_journal *j, unsigned i)
{
    return (uint8_t *)((uintptr_t)j + j->blobs) + i * NVME_JOURNAL_BLOB;
}

/* ---- resume.c ---- */

/* What OLD says, as a controller that is saved: 0 or -EINVAL with a sentence.
 * S has what a new controller N has before. */
int st_nvme_journal_read(const struct nvme_journal *old, struct nvme_saved *s,
                         struct st_err *err);

/* SQ is there, as it was: take up what was under way. On its loop. */
void st_nvme_replay(const struct nvme_journal *old, struct nvme_sq *sq);

/* A command that created this queue is carried out again: is it that one? */
bool st_nvme_replayed_cq(const struct nvme_slot *s, uint16_t qid, uint64_t base,
                         uint32_t size, bool ien, uint16_t vector);
bool st_nvme_replayed_sq(const struct nvme_slot *s, uint16_t qid, uint64_t base,
                         uint32_t size, uint16_t cqid);

#endif
