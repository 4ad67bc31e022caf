/* SPDX-License-Identifier: MIT
 *
 * An NVMe controller: a PCI function whose namespaces are disks (NVM Express
 * Base Specification 2.0c, NVM Command Set 1.0c, PCIe Transport 1.0c).
 *
 *   host: vfio-user, machine, a test        I/O loops, a worker each
 *   --------------------------------        --------------------------------
 *   registers --> lock --> state machine -> fetch a batch -> disks
 *   doorbells --> store, kick ------------> post a batch  -> one interrupt
 *
 * Threads: unless said otherwise a function is the home loop's (the control
 * loop). Queues belong to I/O loops: a completion queue and all submission
 * queues that post to it live on one, the admin queues on the first. Loops may
 * be started after the controller is made.
 *
 * A disk that hangs never holds a reset up: its requests become orphans, which
 * keep what they use until they end.
 */
#ifndef ST_NVME_H
#define ST_NVME_H

#include "disk.h"
#include "gmem.h"
#include "guid.h"
#include "pci.h"

struct st_keep;
struct st_nvme;

enum {
    ST_NVME_QUEUES = 64,      /* default number of I/O queue pairs */
    ST_NVME_QUEUES_MAX = 511, /* doorbells of 4 bytes in 4 KiB, and the admin
                               * queues' */
    ST_NVME_ENTRIES = 1024,   /* default CAP.MQES + 1 */
    ST_NVME_NAMESPACES = 32,  /* default NN */
    ST_NVME_NAMESPACES_MAX = 1024,
};

/* What a controller is made of; zeroes are defaults. All is copied or, where it
 * says so, borrowed for the controller's life. */
struct st_nvme_opts {
    struct st_loop *home;         /* borrowed */
    struct st_loop *const *loops; /* borrowed loops, copied array */
    unsigned nloops;              /* at least 1 */
    struct st_gmem *gmem;         /* borrowed: what it does DMA to */
    const struct st_log *log;     /* borrowed, may be NULL */
    const char *name;             /* for the log, and to be kept by */
    struct st_keep *keep;         /* borrowed: a successor goes on where this
                                   * process dies; or NULL. The host then calls
                                   * on the admin queue's loop, and keeps MSI-X
                                   * and configuration space itself */

    /* The subsystem it belongs to. Controllers of one subsystem may share
     * disks; their identifiers differ. */
    struct st_guid subsystem;
    uint16_t cntlid;
    bool shared;         /* the subsystem has, or may get, other controllers */
    const char *serial;  /* up to 20 characters; NULL: from the subsystem and
                          * the controller's identifier */
    const char *model;   /* up to 40; NULL: "MSFT NVMe Accelerator v1.0" */
    const char *version; /* firmware revision, up to 8; NULL: "1.0" */

    unsigned queues;     /* I/O queue pairs */
    unsigned entries;    /* a queue's largest size, 2 to 65536 */
    unsigned vectors;    /* MSI-X; 0: queues + 1 */
    unsigned namespaces; /* NN, largest namespace identifier */
    bool intx;           /* has an interrupt pin, too */
    bool mapped;         /* guests write doorbells into st_nvme_doorbells, no
                          * access is seen: workers poll while they are awake,
                          * and by a timer when they have nothing to do. Shadow
                          * doorbells are then not offered. */
    unsigned poll_us;    /* how long a worker looks at the doorbells after its
                          * last command before it asks to be told;
                          * ST_NVME_POLL_ALWAYS: for ever */
};
#define ST_NVME_POLL_ALWAYS UINT32_MAX

/* 0 or -errno with a sentence (-EINVAL: out of the ranges above). */
int st_nvme_create(const struct st_nvme_opts *opts, struct st_nvme **out,
                   struct st_err *err);

/* The function that a host drives. Lent. Any thread. */
struct st_pci *st_nvme_pci(struct st_nvme *n);

/* With opts.mapped: the descriptor of memory that is laid out like BAR 0, whose
 * *SIZE bytes (whole pages) from 4096 on are the doorbells. Lent. Else -1. */
int st_nvme_doorbells(struct st_nvme *n, uint64_t *size);

/* An asynchronous call: the caller fills done (and arg), owns the memory until
 * done is called: once, on the home loop, never before the call returns. One
 * call at a time with it; calls of one controller are carried out in order. */
struct st_nvme_call {
    void (*done)(struct st_nvme_call *c, int rc);
    void *arg;
    struct st_err err; /* out: a sentence when rc < 0 */
    /* Private. */
    struct st_nvme *nvme;
    struct st_list link;
    struct st_task task;
    void (*start)(struct st_nvme_call *c);
    uint64_t timeout_ns;
    uint32_t nsid;
    struct st_timer timer;
    const void *in;
    size_t in_len;
    void *work;
    unsigned left;
    int rc;
};

/* Stop for good: no register has an effect any more, no memory of the guest is
 * touched after rc 0. Requests have TIMEOUT_NS to end; then rc is -ETIMEDOUT
 * and the controller can never be destroyed. */
void st_nvme_stop(struct st_nvme *n, uint64_t timeout_ns,
                  struct st_nvme_call *c);

/* After st_nvme_stop's rc 0; the I/O loops may have been joined, their loops
 * not yet destroyed. NULL is fine. Disks stay. */
void st_nvme_destroy(struct st_nvme *n);

/* ---- Namespaces ---- */

/* Attach D (borrowed until it is removed or the controller destroyed) as NSID,
 * or as the lowest free one for 0; *OUT (may be NULL) is what it got. The
 * guest hears of it. -EINVAL (not 1..NN), -EEXIST (taken), -ENOSPC (none
 * free), -ENOMEM. */
int st_nvme_add_namespace(struct st_nvme *n, uint32_t nsid, struct st_disk *d,
                          bool read_only, uint32_t *out, struct st_err *err);

/* Detach it: new commands get Invalid Namespace, those under way end (after
 * TIMEOUT_NS: -ETIMEDOUT, the namespace is gone for the guest, and the
 * disk in use until a second call says 0 or -ENOENT). -ENOENT. */
void st_nvme_remove_namespace(struct st_nvme *n, uint32_t nsid,
                              uint64_t timeout_ns, struct st_nvme_call *c);

/* What is attached as NSID, or NULL. */
struct st_disk *st_nvme_namespace(struct st_nvme *n, uint32_t nsid);

/* ---- State ---- */

/* Save the registers, queues and features, with the bus's part, of a
 * controller that is quiet: commands are not fetched any more, those under way
 * end within TIMEOUT_NS. rc 0: *OUT (malloc'd, the caller's) has *LEN bytes: a
 * blob that begins with a magic and a version, documented in save.c. The
 * controller then goes on. */
void st_nvme_save(struct st_nvme *n, uint64_t timeout_ns, void **out,
                  size_t *len, struct st_nvme_call *c);

/* Make the controller what BLOB (borrowed until done) says. It must be as after
 * power-on and have the same namespaces, of the same identity; one of another
 * size becomes an event. -EINVAL with a sentence; the controller is then as
 * after power-on. */
void st_nvme_restore(struct st_nvme *n, const void *blob, size_t len,
                     struct st_nvme_call *c);

/* With opts.keep: does a controller of this name go on that was killed? */
bool st_nvme_resumes(const struct st_nvme *n);

/* Then, before any register is touched: it goes on, with the guest's memory
 * where it was. Commands that were under way are carried out again, every
 * vector is raised. -EINVAL with a sentence; it is as after power-on then. */
void st_nvme_resume(struct st_nvme *n, struct st_nvme_call *c);

/* Or it does not: its guest has gone. */
void st_nvme_forget(struct st_nvme *n);

/* ---- Faults on demand (guide/faults.md) ---- */

/* Replace the rules by those of TEXT: JSON, {"rules": [{...}, ...]}; "" has
 * none. 0, or -EINVAL with a sentence that names the rule, and the old ones
 * stay. They act at once, on every queue. */
int st_nvme_set_faults(struct st_nvme *n, const char *text, struct st_err *err);

/* Commands that a rule holds (do: "stuck") complete now. */
void st_nvme_release_faults(struct st_nvme *n);

/* ---- What it shows ---- */

/* Registers, queues, namespaces (entered by number), counters. */
void st_nvme_inspect(struct st_nvme *n, struct st_inspect *v);

#endif
