/* SPDX-License-Identifier: MIT
 *
 * What the files of the controller's core share. Private to them.
 *
 *   life.c      create, stop, destroy, calls
 *   ctrl.c      registers, the state machine
 *   doorbell.c  doorbells: written, shadowed, mapped; when a worker sleeps
 *   bell.c      doorbells that a host turns into eventfds
 *   worker.c    an I/O loop's part of a controller, and messages to it
 *   fetch.c     submission queues: fetch, fused pairs, start
 *   queue.c     completion queues: post, interrupts, and slots
 *   admin.c     admin commands; admin_queue.c: those that concern queues
 *   event.c     asynchronous events, the error log
 *   namespace.c namespaces come, go and change
 *   freeze.c    save; restore.c: restore; save.c: the blob between them
 *   journal.c   what a successor needs after a kill; resume.c: it goes on
 *
 * Who may touch what:
 *   - registers that the guest writes: under the PCI function's lock;
 *   - doorbells: atomics, written by anybody;
 *   - queues, slots and doors of a worker: on its loop;
 *   - the state machine, the table of queues, features, logs and events: on
 *     the admin worker's loop ("the admin loop");
 *   - calls, and which namespaces there are: on the home loop.
 * Everybody else posts a message.
 */
#ifndef ST_NVME_PRIVATE_H
#define ST_NVME_PRIVATE_H

#include "nvme.h"
#include "nvme_cmd.h"
#include "nvme_page.h"
#include "stat.h"

enum {
    NVME_SLOTS = 128,       /* commands of one queue under way at most */
    NVME_BUDGET = 32,       /* commands fetched of one queue in one go */
    NVME_BAR = 64 << 10,    /* bytes of BAR 0 */
    NVME_MORE = 0x2000,     /* beside a status: the error log says more */
    NVME_RESETS = 8,        /* resets by the host that wait at a time */
    NVME_TEMPERATURE = 300, /* K */
    NVME_VENDOR = 0x1414,
    NVME_DEVICE = 0xc03e,
};

#define NVME_US(n) ((uint64_t)(n)*1000)
#define NVME_MS(n) ((uint64_t)(n)*1000000)

/* How long a queue may be out of reach, while a guest's firmware moves memory
 * around, before the controller fails. */
#define NVME_UNMAPPED_NS NVME_MS(100)
/* How long a reset waits for what is under way. */
#define NVME_RESET_NS NVME_MS(1000)
/* How long an Abort does. */
#define NVME_ABORT_NS NVME_MS(500)

struct nvme_worker;
struct nvme_sq;
struct nvme_cq;
struct nvme_faults;
struct nvme_journal;
struct nvme_journal_queue;
struct nvme_saved;

/* ---- Slots ---- */

enum nvme_slot_state {
    NVME_SLOT_FREE,
    NVME_SLOT_STARTED, /* io.c or admin.c has it */
    NVME_SLOT_EVENT,   /* an Asynchronous Event Request that waits */
    NVME_SLOT_HELD,    /* by a fault, before start or before completion */
    NVME_SLOT_DONE,    /* waits for its completion queue to be in reach */
};

/* A command, with what its queue needs. */
struct nvme_slot {
    struct nvme_cmd cmd;
    struct nvme_sq *sq;
    struct nvme_slot *next; /* free ones */
    struct st_list link;    /* where it waits: see the state */
    enum nvme_slot_state state;
    bool in_io;    /* STARTED: io.c has it */
    bool executed; /* it has been carried out, and a fault has seen that */
    bool forced;   /* it will not be, and ends with forced_status */
    bool replayed; /* it was under way when a predecessor was killed */
    uint16_t forced_status;
    bool announce; /* its completion raises an interrupt */
    /* An Abort (of the admin queue) that waits for its end. */
    struct nvme_slot *aborter;
    struct st_timer timer; /* of its queue's loop; a fault's delay */
    /* What a fault does to its completion: bits of mask become value. */
    uint8_t cqe_value[16], cqe_mask[16];
    bool cqe_fault, phase_fault;
    unsigned copies; /* of its completion, owed by the queue: 1 */
    /* Admin commands: a message to a worker and its answer. */
    struct st_task msg;
    struct nvme_worker *target;
    struct nvme_slot *victim;    /* Abort: who is aborted, on its loop */
    struct nvme_sq *dying;       /* Delete: who is waited for, on its loop */
    struct st_timer abort_timer; /* of that loop */
    struct nvme_sq *new_sq;
    struct nvme_cq *new_cq;
    unsigned left; /* workers that have not answered */
};

/* ---- Queues ---- */

/* A submission queue; its worker's, who frees it when the last slot is free. */
struct nvme_sq {
    struct st_list link; /* worker.sqs; or leaving */
    struct nvme_worker *w;
    struct nvme_cq *cq; /* borrowed; NULL once dead */
    uint64_t base;
    uint32_t size, head, tail;
    uint32_t seen; /* in its doorbell, last: a tail, or nonsense */
    uint16_t qid;
    bool dead;    /* deleted or reset: nothing is posted any more */
    bool orphan;  /* dead, and nobody waits for its commands */
    bool backlog; /* entries wait for a slot or for room */
    unsigned in_flight;
    struct nvme_slot *free;
    struct nvme_slot *first;    /* of a fused pair, fetched */
    struct nvme_slot *deleter;  /* the Delete that waits for the last one */
    uint64_t unreachable_since; /* ns; 0: is in reach */
    uint64_t stalled_until;     /* ns, by a fault */
    struct st_timer timer;      /* looks again */
    /* Commands that are to be aborted as soon as they are fetched. */
    uint16_t doomed[NVME_ABORTS];
    unsigned ndoomed;
    struct st_list held;         /* slots in state HELD */
    struct nvme_slot *reordered; /* of these, the one that waits for another */
    /* Where a successor finds it, or NULL; how many were fetched. */
    struct nvme_journal_queue *journal;
    uint32_t number;
    unsigned nslots;
    struct nvme_slot *slot; /* owned */
};

/* A completion queue; its worker's. */
struct nvme_cq {
    struct st_list link;  /* worker.cqs */
    struct st_list raise; /* worker.raise, if an interrupt is due */
    struct nvme_worker *w;
    uint64_t base;
    uint32_t size, head, tail;
    uint32_t seen; /* in its doorbell, last: a head, or nonsense */
    unsigned owed; /* entries that commands under way will need */
    uint16_t qid, vector;
    bool ien, phase;
    bool starving;                      /* somebody waits for room */
    unsigned unraised;                  /* posted since the last interrupt */
    uint64_t unraised_at;               /* ns: the first of these */
    struct st_list waiting;             /* slots in state DONE */
    struct nvme_journal_queue *journal; /* or NULL */
    uint64_t unreachable_since;
    struct st_timer retry, hold;
};

/* ---- Workers ---- */

/* Rounds of messages: each goes to every worker that is used, and is over when
 * all have answered. A round of one kind at a time. */
enum nvme_round {
    NVME_ROUND_RESET,  /* stop, or close */
    NVME_ROUND_CONFIG, /* shadow doorbells */
    NVME_ROUND_DRAIN,  /* a namespace, for Format */
    NVME_ROUND_FREEZE, /* commands, for a save; queues, for a restore */
    NVME_ROUNDS
};

/* A worker's part in a round; the round's until it has answered. */
struct nvme_msg {
    struct st_task task; /* there, and back */
    struct nvme_worker *w;
    enum nvme_round round;
};

/* An I/O loop's part of a controller: the queues that are served there. */
struct nvme_worker {
    struct nvme_io io; /* first */
    struct st_nvme *nvme;
    unsigned index;
    _Atomic bool used; /* may have queues, doors and views; once */
    bool open, running;
    struct st_list sqs, cqs, raise;
    struct st_list leaving; /* dead queues with commands under way */
    unsigned nio;           /* I/O submission queues */
    unsigned nwaiting;      /* completion queues whose waiting has some */

    /* Turns: see worker.c. */
    struct st_task kick, turn, end;
    _Atomic bool kicked;
    bool turning, ending, again;
    bool looks;            /* a turn comes without being asked for */
    uint64_t busy_at, nap; /* ns */
    struct st_timer timer; /* naps */

    /* Shadow doorbells, of I/O queues. */
    bool shadow;
    uint64_t shadow_page, event_page;
    struct st_watch bell; /* if has_bell; its fd is owned */
    bool has_bell;

    /* Messages of the admin loop. */
    struct nvme_msg msg[NVME_ROUNDS];
    struct st_task abandon, release;
    _Atomic bool releasing; /* that is posted */
    _Atomic bool abandoned; /* that is posted */
    bool stopping, closing; /* unanswered */
    uint32_t draining;      /* nsid: Format waits for it; or 0 */

    /* Errors on their way to the log: this loop writes, the admin loop
     * reads. */
    struct nvme_error error[32];
    _Atomic unsigned error_in, error_out;
    struct st_task errors;
    _Atomic bool errors_posted;

    st_counter commands, completions, interrupts, spared, turns, arms, wakes,
        bells, aborts, shadow_doorbells, protocol_errors, errors_lost, orphans,
        unreachable;
};

/* A queue pair's number, as the admin loop sees it. */
struct nvme_pair {
    bool sq, cq;           /* exists, or is about to */
    bool sq_made, cq_made; /* its worker has it, and nobody deletes it */
    uint16_t cqid;         /* of the submission queue */
    unsigned nsq;          /* that post to the completion queue */
    struct nvme_worker *w; /* of the completion queue */
    struct nvme_worker *sq_w;
};

/* What inspect shows of one, written by the queues' worker; and what the pin
 * needs of its completion queue, for those who ring. */
struct nvme_shown {
    _Atomic uint32_t sq_size, sq_head, sq_tail, in_flight;
    _Atomic uint32_t cq_size, cq_head, cq_tail;
    _Atomic uint16_t cq_vector;
    _Atomic bool unacked; /* it is counted in st_nvme.unacked */
};

/* ---- The controller ---- */

enum nvme_state {
    NVME_DISABLED,
    NVME_ENABLING,
    NVME_READY,
    NVME_FAILED,
    NVME_RESETTING,
    NVME_STOPPED,
};

/* An event of one type, which may be told to the guest: once, until it has read
 * the log page. */
struct nvme_event {
    bool pending, told;
    uint8_t info, page;
};

/* Types, as in DW0 (Base 5.2.1). */
enum { NVME_EVENT_ERROR, NVME_EVENT_SMART, NVME_EVENT_NOTICE, NVME_EVENTS };

/* The flush at shutdown. */
struct nvme_shutdown {
    struct nvme_cmd cmd; /* first */
    struct st_nvme *nvme;
    bool orphan; /* of a reset: frees itself */
};

/* The controller: the caller of st_nvme_create owns it; its parts say whose
 * they are. */
struct st_nvme {
    struct st_pci pci; /* first */
    struct st_loop *home;
    struct st_gmem *gmem;
    const struct st_log *log;
    struct st_limiter limiter;
    char name[64];
    struct nvme_info info;
    struct st_guid subsystem;
    bool intx, mapped;
    unsigned poll_us;

    /* Registers (3.1.3), under the lock. */
    struct {
        uint32_t cc, aqa, intms;
        uint64_t asq, acq;
        uint64_t resets; /* how often the guest or the host wanted one */
        struct st_access *access[NVME_RESETS]; /* that wait for their end */
        unsigned naccess;
    } reg;
    _Atomic uint64_t cap;
    _Atomic uint32_t csts;
    _Atomic uint32_t cc; /* reg.cc, for those without the lock */
    _Atomic bool failed, stopping, stopped, gone;

    /* The state machine; the admin loop's. */
    _Atomic unsigned state; /* enum nvme_state */
    struct st_task step;
    _Atomic bool stepping;
    uint64_t resets; /* carried out */
    struct {
        unsigned left; /* answers that are missing */
        void (*then)(struct st_nvme *n);
    } round[NVME_ROUNDS];
    struct st_timer timer;
    uint64_t enabling_since;
    struct nvme_shutdown *shutdown;
    bool reset_ends;

    /* Doorbells, by (offset - 0x1000) / 4. */
    unsigned ndb;
    _Atomic uint32_t *db;
    int db_fd; /* opts.mapped: db's memory; else -1 */
    uint64_t db_size;
    _Atomic uint32_t *db_limit;               /* 0: no such queue */
    _Atomic(struct nvme_worker *) *db_worker; /* whose it is */
    _Atomic uint8_t *db_wanted;    /* completion queues: somebody waits */
    bool *db_bell;                 /* bells now; each its worker's */
    _Atomic uint64_t db_writes;    /* by register */
    _Atomic uint64_t bad_doorbell; /* on its way to the log; 0: none */
    struct st_task bad_doorbell_task;

    /* Workers. */
    unsigned nworkers;
    struct nvme_worker *worker; /* owned */
    struct nvme_worker *admin;  /* of these */
    struct nvme_pair *pair;     /* by qid */
    struct nvme_shown *shown;

    /* Interrupts. */
    _Atomic uint32_t intms;
    _Atomic unsigned unacked[32];  /* INTx: queues with entries, by vector */
    _Atomic uint32_t coalesce;     /* threshold | time << 8 */
    _Atomic uint8_t *coalesce_off; /* by vector */

    /* The admin loop's. */
    struct nvme_features features;
    struct nvme_logs logs;
    struct nvme_event event[NVME_EVENTS];
    struct st_list aers; /* slots, oldest first */
    unsigned naers, naborts;
    struct st_list configs;   /* Doorbell Buffer Configs: the first is carried
                               * out */
    struct nvme_slot *format; /* Format NVM, while it is carried out */
    uint32_t format_nsid;
    struct nvme_ns **ns_list;         /* for Identify: scratch */
    uint8_t page[NVME_IDENTIFY_SIZE]; /* scratch */
    /* Shadow doorbells, for workers that begin. */
    _Atomic bool shadow;
    _Atomic uint64_t shadow_page, event_page;
    _Atomic bool write_through;
    uint64_t made_at; /* ns */
    st_counter resets_done, resets_forced;

    /* Namespaces, by nsid - 1. */
    _Atomic(struct nvme_ns *) *ns;

    /* Namespaces that changed, on their way to the admin loop. */
    _Atomic uint64_t changing[NVME_NN_MAX / 64];
    struct st_task changed_task;
    _Atomic bool changed_posted;

    /* The home loop's. */
    struct st_list calls;
    struct st_task next_call;
    struct st_nvme_call *stop_call;
    struct st_task close;
    bool quiet_for; /* workers have been told to close */
    bool closed, has_pci;
    struct st_task quiet; /* the state machine has stopped, or workers have */
    unsigned namespaces_left;
    void (*namespaces_ended)(struct st_nvme *n);

    /* Read with the lock, or on a loop. */
    _Atomic(struct nvme_faults *) faults;

    /* For a successor, and of the predecessor (owned): see journal.h. */
    struct st_keep *keep; /* borrowed, or NULL; then all of this is */
    struct nvme_journal *journal, *journal_old;
    int journal_fd;                   /* owned */
    struct nvme_saved *journal_saved; /* owned: scratch */
    void (*journal_step)(void *arg);  /* a test's */
    void *journal_arg;

    /* A save or a restore; the admin loop's, but for paused: workers do not
     * look at their queues, and no event is told. held: it stays so until the
     * host says otherwise. restoring: the state machine does not run. */
    struct nvme_freeze *freeze;
    _Atomic bool paused, held;
    bool restoring;
    struct st_task thaw;           /* home to the admin loop */
    struct st_nvme_call host_call; /* of the host's saving; home's */
    struct st_pci_saving *saving;  /* borrowed */
    _Atomic bool enable_released;  /* a rule that holds an enable lets go */
    bool enable_asked;             /* rules, about this enable */
    uint64_t enable_at;            /* ns: not before */
};

/* ---- ctrl.c ---- */

/* Have the state machine look. Any thread. */
void st_nvme_step(struct st_nvme *n);

/* A queue cannot be used any more: CSTS.CFS, WHY into the log. On W's loop. */
void st_nvme_fail(struct nvme_worker *w, const char *why);

/* st_nvme.step: one step of the state machine. The admin loop. */
void st_nvme_step_run(struct st_task *t);

extern const struct st_pci_ops st_nvme_ops;

/* CAP, with this MQES. */
void st_nvme_set_cap(struct st_nvme *n, unsigned mqes);

/* ASK every worker that is, or was, used; THEN is called when all have
 * answered, perhaps at once. The admin loop. */
void st_nvme_broadcast(struct st_nvme *n, enum nvme_round r,
                       void (*ask)(struct st_task *t),
                       void (*then)(struct st_nvme *n));
/* On W's loop. */
void st_nvme_answer(struct nvme_worker *w, enum nvme_round r);

/* Nothing is fetched or posted now. */
static inline bool
st_nvme_halted(const struct st_nvme *n)
{
    return __builtin_expect(
        atomic_load_explicit(&n->failed, memory_order_relaxed) ||
            atomic_load_explicit(&n->gone, memory_order_relaxed),
        0);
}

/* The registers as at power-on, and a reset. With the lock. */
void st_nvme_power_on(struct st_nvme *n);

/* As st_nvme_fail, with the lock. */
void st_nvme_step_failed(struct st_nvme *n);

/* ---- inject.c ---- */

/* Rules are asked about S, just fetched, or carried out. False: S is held, or
 * over. On its loop. */
bool st_nvme_fault_sqe(struct nvme_slot *s);
bool st_nvme_fault_cqe(struct nvme_slot *s);

/* S, which is nowhere, waits for st_nvme_worker_release. */
void st_nvme_hold(struct nvme_slot *s);

/* A task: what rules hold on this worker goes on. */
void st_nvme_worker_release(struct st_task *t);

/* A completion of SQ has been posted. */
void st_nvme_posted(struct nvme_sq *sq);

/* An access to a register; with the lock. True: the controller is gone. */
bool st_nvme_fault_register(struct st_nvme *n);

/* How long an enable takes more, ns; UINT64_MAX: until it is released. The
 * admin loop. */
uint64_t st_nvme_fault_enable(struct st_nvme *n);

static inline bool
st_nvme_has_faults(const struct st_nvme *n)
{
    return __builtin_expect(
        atomic_load_explicit(&n->faults, memory_order_acquire) != NULL, 0);
}

/* ---- life.c ---- */

/* C is to be carried out by START, on the home loop; it ends by
 * st_nvme_call_end. */
void st_nvme_call(struct st_nvme *n, struct st_nvme_call *c,
                  void (*start)(struct st_nvme_call *c));
void st_nvme_call_end(struct st_nvme_call *c, int rc);

/* ---- doorbell.c ---- */

/* Doorbells of every queue there may be: 0 or -errno with a sentence; and free
 * them, when nobody rings any more. Home loop. */
int st_nvme_db_create(struct st_nvme *n, struct st_err *err);
void st_nvme_db_free(struct st_nvme *n);

/* st_pci_ops.hot. */
bool st_nvme_hot(struct st_pci *p, unsigned bar, const struct st_access *a);

/* A doorbell write that came another way. */
void st_nvme_ring(struct st_nvme *n, unsigned i, uint32_t value);

/* Doorbell I belongs to a queue of SIZE entries of W from now on: 0, in all
 * its copies. SIZE 0: to none. On W's loop. */
void st_nvme_db_set(struct nvme_worker *w, unsigned i, uint32_t size);

/* What the guest has written last, as it is: tail of SQ, head of CQ. */
uint32_t st_nvme_sq_tail(struct nvme_sq *sq);
uint32_t st_nvme_cq_head(struct nvme_cq *cq);

/* Ask for a ring when CQ's head moves, and false; or true: it has moved. */
bool st_nvme_cq_listen(struct nvme_cq *cq);
void st_nvme_cq_ignore(struct nvme_cq *cq);

/* Ask for a ring of every submission queue of W; false: one has rung. */
bool st_nvme_arm(struct nvme_worker *w);

/* Does W look at doorbells that nobody tells it of? */
bool st_nvme_polls(const struct nvme_worker *w);

/* The pages of Doorbell Buffer Config; the doorbells of W's I/O queues are
 * copied there. */
void st_nvme_shadow(struct nvme_worker *w, uint64_t shadow, uint64_t event);

/* ---- bell.c ---- */

/* Doorbell I, of W, becomes a bell, if it is a submission queue's and the host
 * can do that; or (ON false) a register again. On W's loop. */
void st_nvme_bell_set(struct nvme_worker *w, unsigned i, bool on);

/* The same for every submission queue that W has. */
void st_nvme_bells(struct nvme_worker *w);

/* W has no queue any more. On W's loop. */
void st_nvme_bell_close(struct nvme_worker *w);

/* ---- worker.c ---- */

/* W, number INDEX of N, is to serve queues on LOOP (borrowed). 0 or -ENOMEM.
 * Home loop. */
int st_nvme_worker_init(struct nvme_worker *w, struct st_nvme *n,
                        unsigned index, struct st_loop *loop);
/* Its loop does not turn any more. */
void st_nvme_worker_fini(struct nvme_worker *w);

/* Look at the doorbells soon: from W's loop, from any thread. */
void st_nvme_wake(struct nvme_worker *w);
void st_nvme_kick(struct nvme_worker *w);

/* The end of this turn is W's, too. */
void st_nvme_at_end(struct nvme_worker *w);

/* On W's loop: room for io.c, a view. 0 or -ENOMEM. */
int st_nvme_worker_open(struct nvme_worker *w);

/* Queues begin and end on their worker's loop. SQ and CQ are taken. */
void st_nvme_attach_cq(struct nvme_worker *w, struct nvme_cq *cq);
void st_nvme_attach_sq(struct nvme_worker *w, struct nvme_sq *sq,
                       struct nvme_cq *cq);
void st_nvme_detach_cq(struct nvme_cq *cq);
/* Commands under way are given up; DELETER's msg is posted to the admin loop
 * when they have ended, or NVME_RESET_NS later. */
void st_nvme_detach_sq(struct nvme_sq *sq, struct nvme_slot *deleter);

/* DEAD has no command under way any more: it is freed. */
void st_nvme_sq_left(struct nvme_sq *dead);
/* SQ is dead, and its commands are waited for no longer. */
void st_nvme_orphan(struct nvme_sq *sq);

/* What it is asked: in rounds, and to give up a reset. */
void st_nvme_worker_stop(struct st_task *t);
void st_nvme_worker_close(struct st_task *t);
void st_nvme_worker_config(struct st_task *t);
void st_nvme_worker_drain(struct st_task *t);
void st_nvme_worker_abandon(struct nvme_worker *w);

/* The queue of W with this number, or NULL. On W's loop. */
struct nvme_sq *st_nvme_find_sq(struct nvme_worker *w, uint16_t qid);
struct nvme_cq *st_nvme_find_cq(struct nvme_worker *w, uint16_t qid);

/* ---- queue.c ---- */

/* NULL: no memory. Any thread. */
struct nvme_sq *st_nvme_sq_new(uint16_t qid, uint64_t base, uint32_t size,
                               unsigned nslots);
struct nvme_cq *st_nvme_cq_new(uint16_t qid, uint64_t base, uint32_t size);
void st_nvme_sq_free(struct nvme_sq *sq);
void st_nvme_cq_free(struct nvme_cq *cq);

/* Entries of CQ that nobody was promised; looks at the head where that is
 * fewer than WANT. */
unsigned st_nvme_cq_room(struct nvme_cq *cq, unsigned want);

/* CQ's head, from its doorbell. */
void st_nvme_cq_look(struct nvme_cq *cq);

/* S, whose status and dw0 are set, is over: it is posted and freed, now or as
 * soon as its queue is in reach. On its loop. */
void st_nvme_complete(struct nvme_slot *s);
static inline void
st_nvme_end(struct nvme_slot *s, uint16_t status)
{
    s->cmd.status = status;
    st_nvme_complete(s);
}

/* S goes without a completion. */
void st_nvme_slot_drop(struct nvme_slot *s);

/* Post what waits in CQ. */
void st_nvme_cq_retry(struct nvme_cq *cq);

/* Interrupts that are due, at the end of W's turn. */
void st_nvme_raise(struct nvme_worker *w);

/* At once, also what coalescing holds back. */
void st_nvme_raise_all(struct nvme_worker *w);

/* A controller with INTx: CQ, which interrupts, has an entry that the guest has
 * not taken, and holds the pin. On its loop. */
void st_nvme_pin_hold(struct nvme_cq *cq);

/* INTx: the guest has taken what is before HEAD of completion queue QID; if
 * that is all, the queue lets go of the pin. Any thread. */
void st_nvme_pin_taken(struct st_nvme *n, unsigned qid, uint32_t head);

/* INTx: the pin as it should be. Any thread. */
void st_nvme_line(struct st_nvme *n);

/* ---- fetch.c ---- */

/* Fetch and start commands of SQ. True: there are more at once. *FOUND: some
 * were. */
bool st_nvme_fetch(struct nvme_sq *sq, bool *found);

/* S was just fetched: for a successor (journal.h). */
void st_nvme_journal_fetched(struct nvme_slot *s);

/* A slot for E, one more in flight; there is a free one. */
struct nvme_slot *st_nvme_slot_take(struct nvme_sq *sq,
                                    const struct nvme_sqe *e);

/* Start S, which was fetched. */
void st_nvme_slot_start(struct nvme_slot *s);

/* Give up what is under way of SQ, which is dead. */
void st_nvme_sq_abort(struct nvme_sq *sq);

/* Abort, on the victim's loop: S is the Abort command. Its msg is posted back
 * when it is decided. */
void st_nvme_abort(struct nvme_slot *s);

/* The Abort of VICTIM, if there is one, ends: ABORTED, or not. */
void st_nvme_abort_decided(struct nvme_slot *victim, bool aborted);

/* ---- namespace.c ---- */

/* W's door to NSID, with one more command in it, or NULL and why. FORMAT: it
 * may be formatting. */
struct nvme_door *st_nvme_door_get(struct nvme_worker *w, uint32_t nsid,
                                   bool format, uint16_t *status);
void st_nvme_door_put(struct nvme_worker *w, struct nvme_door *door);

/* Close all doors of W; no command is in them. */
void st_nvme_doors_close(struct nvme_worker *w);

/* Namespaces as they are now, for Identify. The admin loop's scratch. */
void st_nvme_ns_table(struct st_nvme *n, struct nvme_ns_table *t);

/* Remove all, then THEN is called, perhaps at once. Home loop. */
void st_nvme_namespaces_end(struct st_nvme *n, void (*then)(struct st_nvme *n));

/* ---- admin.c, admin_queue.c ---- */

/* Carry out S, a command of the admin queue: it ends now or later. */
void st_nvme_admin_start(struct nvme_slot *s);

/* Features have changed, or been reset: tell those who act by them. */
void st_nvme_features_apply(struct st_nvme *n);

/* Forget commands that wait for others; a reset. */
void st_nvme_admin_reset(struct st_nvme *n);

/* Milliseconds since the epoch. */
uint64_t st_nvme_wall_ms(void);

/* The same, for those that concern queues: Create and Delete, Abort. */
void st_nvme_create_cq(struct nvme_slot *s);
void st_nvme_create_sq(struct nvme_slot *s);
void st_nvme_delete_cq(struct nvme_slot *s);
void st_nvme_delete_sq(struct nvme_slot *s);
void st_nvme_admin_abort(struct nvme_slot *s);

/* The worker of I/O completion queue QID. */
struct nvme_worker *st_nvme_worker_of(struct st_nvme *n, uint16_t qid);

/* ---- event.c: the admin loop's ---- */

/* An Asynchronous Event Request. */
void st_nvme_event_request(struct nvme_slot *s);

/* Abort one that waits. False: there is no room for its completion. */
bool st_nvme_event_abort(struct nvme_slot *s);

/* Complete requests for what there is to tell. */
void st_nvme_events(struct st_nvme *n);

/* A log page was read, and is acknowledged. DELIVERED: of LID 04h. */
void st_nvme_event_ack(struct st_nvme *n, uint8_t page,
                       const uint64_t *delivered);

/* The temperature, or a threshold, has changed. */
void st_nvme_event_temperature(struct st_nvme *n);

/* Put into the log what workers have remembered. */
void st_nvme_errors_take(struct st_nvme *n);

/* NSID has changed. Any thread: posts. */
void st_nvme_ns_changed(struct st_nvme *n, uint32_t nsid);

/* Remember an error, on W's loop. */
void st_nvme_error(struct nvme_worker *w, const struct nvme_error *e);

/* A doorbell write that is wrong, from any thread: INFO of the event (0: no
 * such doorbell, 1: value). */
void st_nvme_bad_doorbell(struct st_nvme *n, unsigned i, uint8_t info);

/* Tasks of the above, for ctrl.c to set up. */
void st_nvme_bad_doorbell_run(struct st_task *t);
void st_nvme_errors_run(struct st_task *t);
void st_nvme_changed_run(struct st_task *t);

#endif
