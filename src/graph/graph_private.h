/* SPDX-License-Identifier: MIT
 *
 * What the files of the graph share.
 *
 *   graph.c    the objects: made by set-up calls, found, inspected
 *   edit.c     the queue of edits, deadlines, abandon
 *   verbs.c    the table of verbs, and those that edit a disk
 *   set.c      the verb set: from a path to what has the value
 *   exports.c  add-export and remove-export: disks that come and go
 *   controllers.c  NVMe controllers, their doors, and how both end
 *   namespaces.c   disks at controllers and doors; add-disk, remove-disk
 *   states.c       fault, release, save, restore
 *   machines.c     the machine of this process: its verbs, its end
 *   attach.c, identity.c   see their headers
 *   stop.c     the end
 *
 * An edit is its caller's memory and lives until its deadline at the latest.
 * What it does is an op, the graph's own, which may come back later:
 *
 *   st_graph_do -> waiting -> current ------------------> done(rc)
 *                               | start     op->e == NULL ^
 *                               op: worker, disk, door ---+-> late: undo, free
 */
#ifndef ST_GRAPH_PRIVATE_H
#define ST_GRAPH_PRIVATE_H

#include "graph.h"

#define GRAPH_S UINT64_C(1000000000)

/* What is said at the deadline of what is still under way. */
#define GRAPH_GOES_ON "it goes on by itself"
#define GRAPH_UNDONE  "it will be undone"

/* A disk of the graph, with what only the graph knows of it. */
struct graph_disk {
    struct st_graph_disk pub; /* first */
    char *name, *spec;        /* owned; pub's */
    struct st_list link;      /* st_graph.disks */
    unsigned exports, namespaces;
    struct graph_op *late; /* an op that lost its edit and still has the disk */
    struct st_edit resume; /* stop.c's */
};

/* A door of the graph, with what only the graph knows of it. */
struct graph_door {
    struct st_graph_door pub; /* first; its nbd is owned */
    char *name;               /* owned; pub's */
    struct st_list link;      /* st_graph.doors */
};

/* A disk behind a door. */
struct graph_export {
    struct st_list link; /* st_graph.exports */
    struct graph_door *door;
    struct graph_disk *disk;
    char *name;               /* owned */
    struct graph_op *leaving; /* who takes it out, or NULL */
    struct st_nbd_unexport un;
};

/* What controllers share when they name the same subsystem. */
struct graph_subsystem {
    struct st_list link; /* st_graph.subsystems */
    char *name;          /* owned */
    struct st_guid guid;
    bool shared; /* it was named, others may name it */
    unsigned controllers;
};

/* A controller with its door. The door lives on LOOP; what goes there and back
 * is in controllers.c. */
struct graph_controller {
    struct st_graph_controller pub; /* first; its nvme is owned */
    char *name;                     /* owned; pub's */
    struct st_graph *graph;
    struct graph_subsystem *subsystem; /* borrowed */
    struct st_list link;               /* st_graph.controllers */
    unsigned nn;                       /* namespaces it has numbers for */
    bool mapped, write_multiple;
    struct st_loop *loop;         /* borrowed: its door's and admin queue's */
    struct st_gmem *gmem;         /* owned */
    struct st_vfio_user *door;    /* owned, LOOP's */
    struct st_task there, back;   /* on LOOP, on the control loop */
    struct st_task cut;           /* on LOOP */
    int journal_fd;               /* owned: its door's, with a keeper */
    int fd, rc;                   /* of the door that is being made */
    struct st_err err;            /* the same */
    bool back_there;              /* what waits for `back` has its answer */
    bool stopping, cutting, over; /* stop was asked, cut is asked, done */
    struct st_timer timer;
    struct st_nvme_call call;
};

/* The machine. */
struct graph_machine {
    struct st_machine *machine; /* owned; NULL: there is none */
    struct st_machine_call stop;
    bool stopped;
};

/* A disk at a controller. */
struct graph_namespace {
    struct st_list link; /* st_graph.namespaces */
    struct graph_controller *controller;
    struct graph_disk *disk;
    uint32_t nsid;
    struct graph_op *leaving; /* who takes it out, or NULL */
    struct st_nvme_call call;
    struct st_timer again;
};

/* What an edit does. */
struct graph_op {
    struct st_graph *graph;
    struct st_graph_edit *e;  /* NULL: late, nobody waits for it any more */
    const char *late;         /* what is said at the deadline (static) */
    char *text[ST_VERB_ARGS]; /* owned; the edit's */
    struct graph_disk *disk;  /* or NULL */
    bool has_disk;            /* the disk is in use: by `edit`, or it leaves */
    struct st_edit edit;      /* at the disk */
    struct st_job job;        /* on a worker */
    struct st_node *node;     /* opened */
    struct graph_door *door;
    unsigned left;           /* exports and namespaces that are not out yet */
    struct st_attach attach; /* add-disk's */
    struct st_nvme_call call;
    struct st_machine_call machine_call;
    void *blob; /* owned */
    size_t blob_len;
    char *answer; /* owned; the edit's when it ends */
    struct st_timer timer;
    struct st_err err;
    int rc;
};

enum graph_stop {
    GRAPH_RUNS,
    GRAPH_STOP_EDITS,  /* the one under way ends */
    GRAPH_STOP_RESUME, /* paused disks go on */
    GRAPH_STOP_DOORS,
    GRAPH_STOP_FLUSH, /* disks that no door has flushed */
    GRAPH_STOP_REST,  /* ops that are late */
    GRAPH_STOPPED,
};

/* The graph: its disks, its doors, its edits. */
struct st_graph {
    struct st_graph_opts opts;
    struct st_loop *control; /* borrowed */
    struct st_stack_env *env;
    struct st_list disks, doors, exports;
    struct st_list controllers, subsystems, namespaces;
    unsigned ncontrollers;
    struct graph_machine machine;

    /* Edits. */
    struct st_list waiting; /* st_graph_edit.link */
    struct st_graph_edit *current;
    struct st_task turn; /* edit.c's next step, and stop.c's */
    bool turning;        /* it is queued */
    unsigned nwaiting, nops;
    uint64_t edits, failed;

    /* Stop. */
    enum graph_stop stop;
    uint64_t timeout_ns;
    struct st_timer timer;
    bool overdue, cutting;
    unsigned pending; /* of this step */
    void (*done)(void *arg, int rc);
    void *arg;
    int rc;
};

/* ---- graph.c ---- */

/* By name; NULL if there is none. */
struct graph_disk *graph_find_disk(struct st_graph *g, const char *name);
struct graph_door *graph_find_door(struct st_graph *g, const char *name);

/* May a new disk be called NAME? *OUT is its name then, owned by the caller:
 * NAME, or the next diskN for "". 0, -EINVAL, -EEXIST, -ENOMEM. */
int graph_disk_name(struct st_graph *g, const char *name, char **out,
                    struct st_err *err);

/* A disk above NODE (taken on success). NAME is taken in any case. */
int graph_disk_add(struct st_graph *g, char *name, const char *spec,
                   struct st_node *node, bool read_only,
                   struct graph_disk **out, struct st_err *err);

/* It is deserted, and no export is left. */
void graph_disk_free(struct graph_disk *d);

/* Put DISK behind DOOR as NAME: 0 or -errno with a sentence; and undo it. */
int graph_export_add(struct st_graph *g, struct graph_door *door,
                     const char *name, struct graph_disk *disk,
                     struct st_err *err);
void graph_export_free(struct graph_export *x);

/* Has the error policy stopped it? */
bool graph_disk_stopped(const struct graph_disk *d);

/* Is NAME one for a door or controller to be? 0, -EINVAL, -EEXIST. */
int graph_check_name(struct st_graph *g, const char *name, struct st_err *err);

/* ---- edit.c ---- */

/* Let the next edit start, or the stop go on, in a coming round. */
void graph_kick(struct st_graph *g);
void graph_turn(struct st_task *t); /* st_graph.turn */

/* E ends. A sentence is made up where rc < 0 and E->err has none. */
void graph_end(struct st_graph_edit *e, int rc);

/* E ends with -ERRNUM and this sentence. */
void graph_fail(struct st_graph_edit *e, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* What E does; LATE is its sentence at the deadline. It takes E's texts. NULL:
 * no memory, E has ended. */
struct graph_op *graph_op_new(struct st_graph_edit *e, struct graph_disk *d,
                              const char *late);

/* OP is through: its edit ends with rc and op->err, if that still waits. */
void graph_op_end(struct graph_op *op, int rc);

/* What is left until E's deadline, at least 1 ns. */
uint64_t graph_left_ns(const struct st_graph_edit *e);

/* The disk has op->edit, with graph_left_ns for a limit: at the deadline it is
 * given one second more to undo what it did. */
void graph_op_at_disk(struct graph_op *op);

/* ---- verbs.c ---- */

/* The disk that E's text I names; NULL: E has ended (no such disk, busy). */
struct graph_disk *graph_verb_disk(struct st_graph_edit *e, const char *name);

/* The verbs of one disk. */
void graph_resize(struct st_graph_edit *e, struct graph_disk *d,
                  const char *size);
void graph_policy(struct st_graph_edit *e, struct graph_disk *d,
                  const char *policy);

/* ---- set.c, exports.c: start functions of verbs ---- */

/* E starts; it ends by graph_end, now or later. */
void graph_set(struct st_graph_edit *e);
void graph_add_export(struct st_graph_edit *e);
void graph_remove_export(struct st_graph_edit *e);

/* OP's disk, which leaves: from its gate on, until it is closed and OP ends.
 * Takes out all exports and namespaces whose `leaving` is OP. */
void graph_leave(struct graph_op *op);

/* One that OP waits for is out. */
void graph_out(struct graph_op *op);

/* ---- controllers.c ---- */

/* By name; NULL if there is none. */
struct graph_controller *graph_find_controller(struct st_graph *g,
                                               const char *name);

/* The one that E's text I names, or NULL: E has ended. */
struct graph_controller *graph_verb_controller(struct st_graph_edit *e,
                                               const char *name);

/* Stop every controller's door, then the controller. Each ends with
 * graph_door_stopped. */
void graph_stop_controllers(struct st_graph *g);
void graph_cut_controllers(struct st_graph *g);

/* Free what has stopped. False: something of it is still in use. */
bool graph_free_controllers(struct st_graph *g);

/* ---- namespaces.c ---- */

/* Start to take N out, with its op's time; graph_out follows. */
void graph_namespace_remove(struct graph_namespace *n, uint64_t timeout_ns);
void graph_namespace_free(struct graph_namespace *n);

/* Verbs: E starts; it ends by graph_end, now or later. */
void graph_add_disk(struct st_graph_edit *e);
void graph_remove_disk(struct st_graph_edit *e);

/* ---- states.c ---- */

/* Verbs: E starts; it ends by graph_end, now or later. */
void graph_fault(struct st_graph_edit *e);
void graph_release(struct st_graph_edit *e);
void graph_save(struct st_graph_edit *e);
void graph_restore(struct st_graph_edit *e);

/* ---- machines.c ---- */

/* Verbs: E starts; it ends by graph_end, now or later. */
void graph_pause_machine(struct st_graph_edit *e);
void graph_resume_machine(struct st_graph_edit *e);
void graph_reset_machine(struct st_graph_edit *e);
void graph_save_machine(struct st_graph_edit *e);

/* Stop the machine, then every controller. Each ends with
 * graph_door_stopped. */
void graph_stop_machine(struct st_graph *g);

/* Values of C's place on the bus. */
void graph_inspect_plug(const struct graph_controller *c, struct st_inspect *v);

/* ---- stop.c ---- */

/* A door or controller has stopped: 0, -EIO, -ETIMEDOUT. ARG is the graph. */
void graph_door_stopped(void *arg, int rc);

/* Something may have happened that the stop waits for. */
void graph_stop_step(struct st_graph *g);

/* Flush D: 0, and DONE gets 0 or -EIO, never within this call; 1: read-only,
 * nothing to do; or -errno. */
int graph_flush(struct st_graph *g, struct graph_disk *d,
                void (*done)(void *arg, int rc), void *arg);

#endif
