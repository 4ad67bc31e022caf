/* SPDX-License-Identifier: MIT
 *
 * A controller's state as plain values, and the blob that holds them: what
 * save.c reads and writes, and freeze.c takes from a controller and puts into
 * one. Private to the controller.
 */
#ifndef ST_NVME_SAVE_H
#define ST_NVME_SAVE_H

#include "err.h"
#include "nvme_private.h"

enum {
    NVME_SAVED_HEADER = 24, /* bytes before the values */
    NVME_SAVED_MAX = 1 << 20,
    NVME_SAVED_QUEUES = ST_NVME_QUEUES_MAX + 1,
    NVME_SAVED_CONFIG = 256, /* bytes of configuration space */
};

/* A completion queue; nobody waits in it. */
struct nvme_saved_cq {
    uint16_t qid, vector;
    bool ien, phase;
    uint64_t base;
    uint32_t size, head, tail;
    uint32_t seen, doorbell; /* values, as the guest wrote them */
};

/* A submission queue; only the first of a fused pair may be under way. */
struct nvme_saved_sq {
    uint16_t qid, cqid;
    uint64_t base;
    uint32_t size, head, tail, seen, doorbell;
    uint8_t ndoomed;
    uint16_t doomed[NVME_ABORTS];
    bool has_first;
    struct nvme_sqe first;
};

/* A namespace, to be recognized. */
struct nvme_saved_ns {
    uint32_t nsid;
    uint8_t shift;
    bool read_only;
    uint64_t size; /* bytes, when it was saved */
    uint8_t uuid[16], nguid[16];
};

/* All of it: some hundred KiB. */
struct nvme_saved {
    /* What the controller must be. */
    uint8_t subsystem[16];
    uint16_t cntlid;
    char serial[20], model[40];
    uint32_t queues, entries, vectors, nn;
    bool intx, mapped;

    uint8_t state; /* enum nvme_state: DISABLED, READY or FAILED */
    uint32_t cc, csts, aqa, intms;
    uint64_t asq, acq;
    uint8_t config[NVME_SAVED_CONFIG];
    struct st_pci_vector vector[ST_PCI_VECTORS_MAX];

    struct nvme_features features; /* coalesce_off is the next */
    uint8_t coalesce_off[ST_PCI_VECTORS_MAX];
    struct nvme_logs logs;
    uint64_t on_ns; /* since it was made */
    struct nvme_event event[NVME_EVENTS];
    uint32_t naers;
    uint16_t aer[NVME_AERL]; /* identifiers, oldest first */
    bool shadow;
    uint64_t shadow_page, event_page;

    uint32_t ncq, nsq, nns;
    struct nvme_saved_cq cq[NVME_SAVED_QUEUES];
    struct nvme_saved_sq sq[NVME_SAVED_QUEUES];
    struct nvme_saved_ns ns[NVME_NN_MAX];
};

/* The blob of S, malloc'd, *LEN bytes; NULL: no memory. */
void *st_nvme_saved_write(const struct nvme_saved *s, size_t *len);

/* The same into TO, of ROOM bytes: the length, 0: there is no room. */
size_t st_nvme_saved_put(const struct nvme_saved *s, uint8_t *to, size_t room);

/* Do the values of S agree? JOURNAL: it may also be about to become ready. 0,
 * or -EINVAL with a sentence. */
int st_nvme_saved_check(struct nvme_saved *s, bool journal, struct st_err *err);

/* Write the header of P, a blob of LEN bytes whose values are there. */
void st_nvme_saved_seal(uint8_t *p, size_t len);

/* The values of BLOB: 0, or -EINVAL with a sentence, *OUT is then of no use.
 * They agree with each other: what is a number of something is in its range,
 * and queues are such that a controller can have them. */
int st_nvme_saved_read(const void *blob, size_t len, struct nvme_saved *out,
                       struct st_err *err);

/* ---- freeze.c, restore.c ---- */

/* A worker that waits for its commands. */
struct nvme_freeze_worker {
    struct st_timer timer; /* of its loop */
    struct nvme_worker *w;
};

/* A save or a restore under way. */
struct nvme_freeze {
    struct st_nvme *n;
    struct st_nvme_call *call;
    struct st_task task;   /* between home and the admin loop */
    struct st_timer timer; /* the admin loop's */
    uint64_t deadline;     /* ns */
    bool hold;             /* it stays paused when it was saved */
    int rc;
    struct nvme_saved *s; /* owned */
    /* Save. */
    void **out;
    size_t *len;
    /* Restore: what is not attached yet, by qid; owned. And the journal of a
     * predecessor, if that is where it comes from. */
    const struct nvme_journal *old;
    struct nvme_cq *cq[NVME_SAVED_QUEUES];
    struct nvme_sq *sq[NVME_SAVED_QUEUES];
    _Atomic bool no_memory;
    struct st_access reset; /* after a failure */
    struct nvme_freeze_worker worker[];
};

/* For the call C of N; NULL: no memory. */
struct nvme_freeze *st_nvme_freeze_new(struct st_nvme *n,
                                       struct st_nvme_call *c);
void st_nvme_freeze_free(struct nvme_freeze *f);

/* As struct st_pci_ops says. */
void st_nvme_host_save(struct st_pci *p, struct st_pci_saving *s);
void st_nvme_host_restore(struct st_pci *p, struct st_pci_saving *s);
void st_nvme_host_thaw(struct st_pci *p);

/* st_nvme.thaw, on the admin loop. */
void st_nvme_thaw_run(struct st_task *t);

/* Home to the admin loop, where RUN goes on. */
void st_nvme_freeze_post(struct nvme_freeze *f, void (*run)(struct st_task *t));

/* The admin loop: FIRE goes on in a while. */
void st_nvme_freeze_again(struct nvme_freeze *f,
                          void (*fire)(struct st_timer *t));

/* S is what N is now, but for its queues and registers: it is DISABLED there.
 * The admin loop, or before anything happens. */
void st_nvme_take(struct st_nvme *n, struct nvme_saved *s);

/* The admin loop: workers go on, F is freed and its call ends with RC. */
void st_nvme_thaw(struct nvme_freeze *f, int rc);

#endif
