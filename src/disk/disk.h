/* SPDX-License-Identifier: MIT
 *
 * The root: a named disk, what front ends hold. The wall lives here and is
 * crossed once, going down and coming back:
 *
 *   gate -> representable -> read-only -> reservation -> range locks
 *        -> alignment (bounce, read-modify-write) -> emulation -> the tree
 *   the tree -> error policy -> counters, histogram -> the front end
 *
 * Threads: a disk has a home loop (the control loop) where it is made, edited
 * and destroyed. Each I/O loop opens its own channel. Nothing on the request
 * path locks or counts on a shared line.
 *
 * What survives a power cut, for any disk: every write that completed before
 * the submission of a flush that completed with ST_OK, and every completed FUA
 * write. A flush that failed is latched: all later ones fail until reopen,
 * because the kernel forgets what it could not write.
 */
#ifndef ST_DISK_H
#define ST_DISK_H

#include "node.h"
#include "stat.h"

struct st_disk;

/* What the root does with ST_IO and ST_NO_SPACE. */
enum st_policy {
    ST_POLICY_REPORT, /* the front end sees it */
    ST_POLICY_STOP,   /* hold the request, close the gate, raise
                       * ST_EVENT_STOPPED; st_disk_resume tries again */
    ST_POLICY_RETRY,  /* try again up to 5 times, 10 ms doubling; report */
};

/* A nexus that nobody reserves for: tools, tests. */
enum { ST_NEXUS_NONE = 0, ST_NEXUS_MAX = 4095 };

/* Make a disk above NODE (taken on success only). Runs st_node_check. NAME is
 * copied. READ_ONLY adds to what the node says. 0 or -errno with a sentence.
 * Home loop. */
int st_disk_create(struct st_loop *home, struct st_node *node, const char *name,
                   bool read_only, struct st_disk **out, struct st_err *err);

/* Close the disk and its tree: no channel, listener or edit is left
 * (asserted). NULL is fine. Home loop. */
void st_disk_destroy(struct st_disk *d);

/* Take D's tree away: st_node_close, which may block, can then be called on any
 * thread, and only after that st_disk_destroy, for which D is otherwise ready.
 * Nothing else may be done with D any more. Home loop. */
struct st_node *st_disk_take_tree(struct st_disk *d);

/* May D be destroyed: is no channel, listener or edit left, and no message
 * under way to a channel that was closed? Those end by themselves, soon. Home
 * loop. */
bool st_disk_deserted(struct st_disk *d);

/* The name that it was created with, lent for its life. Any thread. */
const char *st_disk_name(const struct st_disk *d);

/* Constant for the disk's life, whatever is inserted: what front ends may show.
 * performs holds every operation that the root can carry out, natively or by
 * emulation. Any thread. */
const struct st_props *st_disk_props(const struct st_disk *d);

/* The published size in bytes. Any thread. */
uint64_t st_disk_size(const struct st_disk *d);

/* Frames that a request to this disk needs. Any thread. */
unsigned st_disk_frames(const struct st_disk *d);

/* The tree, for inspect. Home loop. */
struct st_node *st_disk_node(const struct st_disk *d);

/* A handle for one initiator, to put into st_req.nexus; 0 when all are taken.
 * Any thread. */
uint16_t st_disk_attach(struct st_disk *d);
void st_disk_detach(struct st_disk *d, uint16_t nexus);

/* ---- Channels ---- */

/* This loop's door. Takes any operation, any alignment, any buffer. 0 or
 * -errno. On loop L. */
int st_disk_open_chan(struct st_disk *d, struct st_loop *l,
                      struct st_chan **out);

/* No request is in it (asserted). On its loop. */
void st_disk_close_chan(struct st_chan *c);

/* ---- Events ---- */

/* Hears of a disk's events on its own loop: one call for all that came since
 * the last (a flag and the latest size, never a queue). */
struct st_listener {
    struct st_loop *loop;
    void (*event)(struct st_listener *l, unsigned events, uint64_t size);
    void (*gone)(struct st_listener *l); /* after st_disk_unlisten */
    /* The disk's own. */
    struct st_list link;
    struct st_task task;
    struct st_disk *disk;
    _Atomic unsigned pending;
    bool posted, leaving;
};

/* Any thread. */
void st_disk_listen(struct st_disk *d, struct st_listener *l);

/* No EVENT is called once GONE was, on the listener's loop. Any thread. */
void st_disk_unlisten(struct st_listener *l);

/* ---- Edits: serial jobs on the home loop -----------------------------------
 */

enum st_quiesce {
    ST_PARK,   /* new requests wait for st_disk_resume */
    ST_REFUSE, /* new requests end with ST_ABORTED */
    ST_CANCEL, /* what is under way is cancelled; new requests wait */
};

/* An edit under way. The caller fills done (and arg), owns the memory until
 * done is called (once, on the home loop, never before the call returns), and
 * starts one at a time with it. Edits of one disk run in order. */
struct st_edit {
    void (*done)(struct st_edit *e, int rc);
    void *arg;
    unsigned orphans;  /* out, for st_disk_quiesce */
    struct st_err err; /* out: a sentence when rc < 0 */
    /* The disk's own. */
    struct st_list link;
    struct st_task task;
    struct st_disk *disk;
    void (*start)(struct st_edit *e);
    void (*next)(struct st_edit *e, int rc);
    uint64_t size, deadline_ns;
    struct st_node *node;
    const char *kind;
    struct st_timer timer;
    struct st_job job;
    enum st_quiesce mode;
    int rc;
    bool giving_up;
    uint16_t nexus;
    bool no_read, no_write;
    void *old;
};

/* Close the gate and wait until nothing is under way. rc 0: quiet;
 * -ETIMEDOUT: after TIMEOUT_NS (0 = no limit) e->orphans requests were still
 * out; they carry ST_REQ_ORPHAN and complete some day. The gate stays closed
 * either way, until st_disk_resume. */
void st_disk_quiesce(struct st_disk *d, enum st_quiesce mode,
                     uint64_t timeout_ns, struct st_edit *e);

/* Open the gate; parked and stopped requests go on, in order. */
void st_disk_resume(struct st_disk *d, struct st_edit *e);

/* Put NODE, which has adopted nothing yet and is transparent or takes its
 * properties from what it adopts, between the root and its child. rc < 0: not
 * done, NODE is the caller's again: -ETIMEDOUT (requests would not drain
 * within TIMEOUT_NS), -EINVAL (properties that front ends saw would change),
 * -E2BIG (too deep), or what open_chan said. */
void st_disk_insert(struct st_disk *d, struct st_node *node,
                    uint64_t timeout_ns, struct st_edit *e);

/* Take out the topmost transparent node whose ops->name is KIND and close it.
 * -ENOENT, -ETIMEDOUT. KIND is borrowed until done. */
void st_disk_remove(struct st_disk *d, const char *kind, uint64_t timeout_ns,
                    struct st_edit *e);

/* Grow or shrink to SIZE bytes: 0, -EINVAL (not a multiple of the sector),
 * -ENOTSUP (fixed-size), -EROFS, once the size is published; listeners hear of
 * it. A shrink closes the gate and drains first. */
void st_disk_resize(struct st_disk *d, uint64_t size, struct st_edit *e);

/* The same; -ETIMEDOUT (nothing done) when requests would not drain within
 * TIMEOUT_NS (0 = no limit). */
void st_disk_resize_within(struct st_disk *d, uint64_t size,
                           uint64_t timeout_ns, struct st_edit *e);

/* Takes effect at once for requests that fail from now on. Any thread. */
void st_disk_set_policy(struct st_disk *d, enum st_policy p);
enum st_policy st_disk_policy(const struct st_disk *d);

/* NEXUS may not READ and/or WRITE from now on: ST_CONFLICT (SPC reservation
 * rules decide who). rc is 0 when every channel knows. */
void st_disk_set_conflict(struct st_disk *d, uint16_t nexus, bool read,
                          bool write, struct st_edit *e);

/* ---- What it did ------------------------------------------------------------
 */

/* What a disk did, summed up over its channels. */
struct st_disk_stats {
    uint64_t ops[ST_OP_COUNT];    /* completed */
    uint64_t errors[ST_OP_COUNT]; /* of these, not ST_OK */
    uint64_t bytes_read, bytes_written;
    uint64_t bounced;   /* bytes through bounce buffers */
    uint64_t emulated;  /* operations carried out by the root */
    uint64_t retried;   /* by the error policy */
    uint64_t in_flight; /* now */
    uint64_t oldest_ns; /* start of the oldest request, loop clock; 0: none */
    bool flush_failed;  /* latched */
    bool stopped;       /* by the error policy */
    struct st_hist latency[ST_OP_COUNT];
};

/* A sum over all channels, past and present. Any thread. */
void st_disk_stats(struct st_disk *d, struct st_disk_stats *out);

/* The value names of the disk itself (spec: inspect tree). Home loop. */
void st_disk_inspect(struct st_disk *d, struct st_inspect *v);

#endif
