/* SPDX-License-Identifier: MIT
 *
 * The graph: everything that a process serves, as named objects.
 *
 *   door "nbd"  ---- export "a" ------> disk "a"      a tree of nodes
 *               ---- export ""  ------> disk "disk0"  a tree of nodes
 *                                        ^
 *   controller "nvme0" -- namespace 1 ---+
 *       its own door: vfio-user
 *
 * A disk may be behind many doors and controllers at once: they see the same
 * bytes.
 *
 * The command line builds it (the set-up calls, which block); after that only
 * *verbs* change it: serial asynchronous jobs with a deadline. st_graph_verbs
 * is their one table; `strata ctl`, the control socket and the guide are made
 * from it. An edit that fails leaves the graph as it was.
 *
 * Threads: everything here is the control loop's, the home of all disks. What
 * blocks (opening a SPEC) runs on the worker pool; no call here waits.
 */
#ifndef ST_GRAPH_H
#define ST_GRAPH_H

#include "attach.h"
#include "disk.h"
#include "machine.h"
#include "nbd.h"
#include "nvme.h"
#include "stack.h"
#include "vfio_user.h"

struct st_graph;
struct st_keep;

/* What a graph is made of. */
struct st_graph_opts {
    struct st_loop *control; /* borrowed */
    struct st_loop **loops;  /* borrowed array: where I/O is done; they may be
                              * started after the set-up */
    unsigned nloops;
    struct st_keep *keep;    /* borrowed: controllers are to outlive this
                              * process, with their clients; or NULL */
    void (*quit)(void *arg); /* of the verb quit; NULL: refused */
    void *arg;
};

/* 0 or -errno. */
int st_graph_create(const struct st_graph_opts *opts, struct st_graph **out,
                    struct st_err *err);

/* After DONE of st_graph_stop, or when no door was ever opened and no
 * controller added. Disks that requests never left are not freed (DONE got
 * -ETIMEDOUT): the process can only end. The I/O loops have been joined. NULL
 * is fine. */
void st_graph_destroy(struct st_graph *g);

/* ---- Set-up ---- */

/* Open SPEC as the disk NAME ("" gives it the next free of disk0, disk1, ...).
 * -EINVAL for a name that is no UTF-8 or has control characters, -EEXIST for
 * one that is taken, else what st_stack_open says. Blocks. NAME_OUT (may be
 * NULL) is lent for the disk's life. */
int st_graph_open(struct st_graph *g, const char *name, const char *spec,
                  bool read_only, const char **name_out, struct st_err *err);

/* A door NAME that speaks NBD; opts->control and loops are the graph's.
 * -EINVAL (a name as st_graph_open says, or ""), -EEXIST, or what st_nbd_create
 * says. */
int st_graph_add_nbd(struct st_graph *g, const char *name,
                     const struct st_nbd_opts *opts, struct st_err *err);

/* Serve DISK through DOOR as EXPORT, whose name follows the rules of a disk's.
 * -ENOENT, -EINVAL, or what st_nbd_export says. */
int st_graph_export(struct st_graph *g, const char *door, const char *export,
                    const char *disk, struct st_err *err);

/* st_nbd_listen and st_nbd_connection of DOOR. FD is taken. -ENOENT. */
int st_graph_listen(struct st_graph *g, const char *door, int fd,
                    struct st_err *err);
int st_graph_connection(struct st_graph *g, const char *door, int fd,
                        void (*ended)(void *arg), void *arg,
                        struct st_err *err);

/* What an NVMe controller is made of; zeroes and NULLs are defaults. */
struct st_graph_nvme_opts {
    /* Controllers that name the same subsystem are in one: their identifiers
     * differ, namespace N is the same disk for all, they may share disks. NULL:
     * it has its own, of its own name. */
    const char *subsystem;
    const char *serial, *model;
    unsigned queues, entries, vectors, namespaces; /* as of st_nvme_opts */
    bool intx, mapped;
    bool write_multiple; /* of the door: see st_vfio_user_opts */
    unsigned poll_us;    /* or ST_NVME_POLL_ALWAYS */
};

/* A controller NAME. Names of doors and controllers are distinct. -EINVAL,
 * -EEXIST, or what st_nvme_create says. */
int st_graph_add_nvme(struct st_graph *g, const char *name,
                      const struct st_graph_nvme_opts *opts,
                      struct st_err *err);

/* Serve CONTROLLER to the clients of FD, a listening Unix socket (taken): one
 * at a time. The I/O loops run (or are virtual). -ENOENT, -EEXIST (it has a
 * door), or what st_vfio_user_create says. Waits for the loop. */
int st_graph_vfio_user(struct st_graph *g, const char *controller, int fd,
                       struct st_err *err);

/* A machine of this process, the only one; its home is the control loop, its
 * log the domain's, and opts.event is called once the graph's verbs know.
 * -EEXIST, or what st_machine_create says. */
int st_graph_add_machine(struct st_graph *g, const struct st_machine_opts *opts,
                         struct st_err *err);

/* Give CONTROLLER to the machine, in SLOT, or the lowest that is free for 0.
 * -ENOENT, -EEXIST (it has a door), or what st_machine_add_pci says. */
int st_graph_plug(struct st_graph *g, const char *controller, unsigned slot,
                  struct st_err *err);

/* st_machine_boot_from: a CONTROLLER of the machine's. */
int st_graph_boot_from(struct st_graph *g, const char *controller,
                       struct st_err *err);

/* Start the machine: st_machine_start. The I/O loops run. */
int st_graph_start_machine(struct st_graph *g, struct st_err *err);

/* Open N disks and attach them to their places, all or none. Numbers that are
 * not given are the lowest free ones after all that are; the first disk of an
 * NBD door is its default export "", too, if nothing else is. -EINVAL (no such
 * controller or door, or what does not fit it), -EEXIST (taken), -ENOSPC (no
 * number left), or what st_graph_open says. Blocks. After a failure the graph
 * can only be stopped. */
int st_graph_attach(struct st_graph *g, const struct st_attach *a, unsigned n,
                    struct st_err *err);

/* Replace the fault rules (guide/faults.md) of CONTROLLER, or of all for NULL,
 * by those of TEXT. -ENOENT, or what st_nvme_set_faults says. */
int st_graph_faults(struct st_graph *g, const char *controller,
                    const char *text, struct st_err *err);

/* Stop for good, once: edits that wait and new ones end with -ESHUTDOWN, one
 * under way is waited for; disks that are paused or stopped go on, and report
 * their errors from now on; then the machine stops where it is, and every door
 * stops as st_nbd_stop says, or when its vfio-user client has left (TIMEOUT_NS
 * later it is cut off), every controller stops, and every disk is flushed. Each
 * step has TIMEOUT_NS. DONE once, never within this call: 0, -EIO when a flush
 * failed, -ETIMEDOUT when requests or edits had to be abandoned. */
void st_graph_stop(struct st_graph *g, uint64_t timeout_ns,
                   void (*done)(void *arg, int rc), void *arg);

/* After st_graph_stop, hurry: cut the clients off now. */
void st_graph_cut(struct st_graph *g);

/* ---- What is there ---- */

/* A disk of the graph, as others may see it. */
struct st_graph_disk {
    const char *name, *spec;
    struct st_disk *disk;
    bool read_only;
    bool paused;  /* by the verb */
    bool leaving; /* removed, but requests have not come back yet */
};

/* The disk after PREV (NULL: the first), in the order they came; or NULL. Lent
 * until the next turn of the loop. A name is taken until its disk is gone. */
const struct st_graph_disk *
st_graph_next_disk(struct st_graph *g, const struct st_graph_disk *prev);

/* NULL: no such disk, or it is leaving. */
const struct st_graph_disk *st_graph_find_disk(struct st_graph *g,
                                               const char *name);

/* A door of the graph, as others may see it. */
struct st_graph_door {
    const char *name, *kind; /* "nbd" */
    struct st_nbd *nbd;
};

/* The doors in turn, as st_graph_next_disk. */
const struct st_graph_door *
st_graph_next_door(struct st_graph *g, const struct st_graph_door *prev);

/* A controller of the graph, as others may see it. */
struct st_graph_controller {
    const char *name, *kind; /* "nvme" */
    const char *subsystem;
    uint16_t cntlid;
    struct st_nvme *nvme;
    struct st_vfio_user *vfio_user; /* NULL: it has no door (any more) */
    bool plugged;                   /* it is the machine's */
};

/* The controllers in turn, as st_graph_next_disk. */
const struct st_graph_controller *
st_graph_next_controller(struct st_graph *g,
                         const struct st_graph_controller *prev);

/* Values of C: what the graph knows, its door as vfio_user/..., and what
 * st_nvme_inspect says. */
void st_graph_controller_inspect(const struct st_graph_controller *c,
                                 struct st_inspect *v);

/* The machine, lent, or NULL: there is none. */
struct st_machine *st_graph_machine(const struct st_graph *g);

/* Values of the machine, if there is one: its state, exits of its vCPUs,
 * accesses to its devices. */
void st_graph_machine_inspect(struct st_graph *g, struct st_inspect *v);

/* Values of the graph itself: edits_done (all that ended), edits_failed (of
 * these), edits_waiting, edits_under_way. */
void st_graph_inspect(struct st_graph *g, struct st_inspect *v);

/* The control loop, lent. Any thread. */
struct st_loop *st_graph_control(const struct st_graph *g);

/* ---- Edits ---- */

enum { ST_VERB_ARGS = 4 };

struct st_graph_edit;

/* One row of the table, which ends with a NULL name. */
struct st_verb {
    const char *name;   /* "add-export" */
    const char *syntax; /* as ctl takes the words: "NAME=SPEC" */
    const char *help;   /* one line */
    /* The arguments' names, in that order; NULL after the last, each behind one
     * of enum st_verb_arg, if it is special. A JSON body has members of these
     * names. */
    const char *arg[ST_VERB_ARGS];
    void (*start)(struct st_graph_edit *e); /* the graph's own */
};

/* The first character of an argument that is more than a word. The name of a
 * file is the asker's: only its content comes here. */
enum st_verb_arg {
    ST_VERB_OPTIONAL = '?',
    ST_VERB_FILE_TEXT = '<',   /* a file's text */
    ST_VERB_FILE_BYTES = '@',  /* a file's bytes, in base64 */
    ST_VERB_FILE_ANSWER = '>', /* none: the file is for the answer's bytes,
                                * which are a member of this name, in base64 */
};

/* The name of ARG, and what it is: 0 or one of enum st_verb_arg. */
static inline const char *
st_verb_arg_name(const char *arg)
{
    return arg + (strchr("?<@>", *arg) != NULL);
}

static inline char
st_verb_arg_kind(const char *arg)
{
    return strchr("?<@>", *arg) ? *arg : 0;
}

/* Every verb, ended by one with a NULL name; static. */
const struct st_verb *st_graph_verbs(void);

/* NULL: no such verb. */
const struct st_verb *st_graph_verb(const char *name);

/* An edit under way. The caller zeroes it, fills done (and arg, timeout_ns),
 * and owns the memory until done is called: once, on the control loop, never
 * before st_graph_do returns. */
struct st_graph_edit {
    void (*done)(struct st_graph_edit *e, int rc);
    void *arg;
    uint64_t timeout_ns; /* from st_graph_do on; 0 = 30 s */
    struct st_err err;   /* out: a sentence when rc < 0 */
    /* Out, when rc is 0: what the verb has to say, or NULL; lent during done.
     * It is called as its ST_VERB_FILE_ANSWER. */
    char *answer;
    /* The graph's own; start functions read graph and text. */
    struct st_graph *graph;
    const struct st_verb *verb;
    char *text[ST_VERB_ARGS]; /* owned */
    struct st_list link;
    struct st_task task;
    struct st_timer timer;
    void (*freed)(struct st_graph_edit *e); /* it was abandoned */
    void *job;
    int rc;
};

/* Start VERB with its arguments (copied; NULL: missing). rc is 0 or -errno:
 *
 *   -EINVAL     wrong in itself: a size, a SPEC, a missing argument
 *   -ENOENT     no such disk, export, controller, namespace or node
 *   -EEXIST     the name is taken
 *   -EBUSY      contradicts what is: pause of a paused disk, ...
 *   -ENOTSUP, -EROFS, -EACCES, -ENOSPC, -EIO, ... as the disk says
 *   -ETIMEDOUT  not done within the deadline. A pause, an insertion and a disk
 *               that is being opened are undone, if need be later; what was
 *               begun of the others goes on: a disk that is being removed is
 *               `leaving` until then. Other edits of that disk get -EBUSY
 *               meanwhile.
 *   -ESHUTDOWN  the graph is being stopped
 *
 * remove-export and remove-disk may end with -EIO and be done nevertheless: the
 * last flush of its disk failed, and what was written before may be lost.
 */
void st_graph_do(struct st_graph *g, const struct st_verb *verb,
                 const char *const arg[ST_VERB_ARGS], struct st_graph_edit *e);

/* E's caller goes away: done is not called any more; E's memory must still be
 * there until FREED is called, on the control loop. An edit that has not
 * started is not carried out; one that has goes on. */
void st_graph_abandon(struct st_graph_edit *e,
                      void (*freed)(struct st_graph_edit *e));

#endif
