/* SPDX-License-Identifier: MIT
 *
 * The table of verbs, and those that edit a disk. Each start function judges
 * its arguments when its turn has come: what contradicts depends on the edits
 * before it.
 *
 * In a done function op->e says whether the edit still waits. One that came too
 * late is undone where it can be, and then only frees itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph_private.h"
#include "size.h"

struct graph_disk *
graph_verb_disk(struct st_graph_edit *e, const char *name)
{
    struct graph_disk *d = graph_find_disk(e->graph, name);

    if (!d || d->pub.leaving) {
        graph_fail(e, ENOENT, "no disk '%s'", name);
        return NULL;
    }
    if (d->late) {
        graph_fail(e, EBUSY,
                   "%s: an edit that timed out is still under way at this disk",
                   name);
        return NULL;
    }
    return d;
}

/* The op whose st_edit this is; what the disk said goes into its err. */
static struct graph_op *
edited(struct st_edit *edit, int rc)
{
    struct graph_op *op = st_container(edit, struct graph_op, edit);

    if (rc == -ETIMEDOUT && edit->orphans)
        st_err_set(&op->err, ETIMEDOUT,
                   "%s: %u requests did not come back in time, nothing changed",
                   op->disk->name, edit->orphans);
    else if (rc < 0)
        op->err = edit->err;
    return op;
}

/* An op at the disk that needs nothing more than to end. */
static void
disk_done(struct st_edit *edit, int rc)
{
    graph_op_end(edited(edit, rc), rc);
}

/* ---- Pause and resume ---- */

static void
pause_undone(struct st_edit *edit, int rc)
{
    struct graph_op *op = st_container(edit, struct graph_op, edit);

    (void)rc;
    graph_op_end(op, op->rc);
}

static void
paused(struct st_edit *edit, int rc)
{
    struct graph_op *op = edited(edit, rc);

    if (rc == 0 && op->e) {
        op->disk->pub.paused = true;
        graph_op_end(op, 0);
        return;
    }
    op->rc = rc; /* the gate is closed nevertheless */
    op->edit.done = pause_undone;
    st_disk_resume(op->disk->pub.disk, &op->edit);
}

static void
pause_start(struct st_graph_edit *e)
{
    struct graph_disk *d = graph_verb_disk(e, e->text[0]);
    struct graph_op *op;

    if (!d)
        return;
    if (d->pub.paused) {
        graph_fail(e, EBUSY, "%s: paused already", d->name);
        return;
    }
    op = graph_op_new(e, d, GRAPH_UNDONE);
    if (!op)
        return;
    op->edit.done = paused;
    st_disk_quiesce(d->pub.disk, ST_PARK, graph_left_ns(e), &op->edit);
    graph_op_at_disk(op);
}

static void
resumed(struct st_edit *edit, int rc)
{
    struct graph_op *op = edited(edit, rc);

    op->disk->pub.paused = false;
    graph_op_end(op, rc);
}

static void
resume_start(struct st_graph_edit *e)
{
    struct graph_disk *d = graph_verb_disk(e, e->text[0]);
    struct graph_op *op;

    if (!d)
        return;
    if (!d->pub.paused && !graph_disk_stopped(d)) {
        graph_fail(e, EBUSY, "%s: neither paused nor stopped", d->name);
        return;
    }
    op = graph_op_new(e, d, GRAPH_GOES_ON);
    if (!op)
        return;
    op->edit.done = resumed;
    st_disk_resume(d->pub.disk, &op->edit);
    graph_op_at_disk(op);
}

/* ---- Resize and policy ---- */

void
graph_resize(struct st_graph_edit *e, struct graph_disk *d, const char *size)
{
    struct graph_op *op;
    uint64_t bytes;
    int rc = st_size_parse(size, &bytes, &e->err);

    if (rc < 0) {
        graph_end(e, rc);
        return;
    }
    op = graph_op_new(e, d, GRAPH_GOES_ON);
    if (!op)
        return;
    op->edit.done = disk_done;
    st_disk_resize_within(d->pub.disk, bytes, graph_left_ns(e), &op->edit);
    graph_op_at_disk(op);
}

static void
resize_start(struct st_graph_edit *e)
{
    struct graph_disk *d = graph_verb_disk(e, e->text[0]);

    if (d)
        graph_resize(e, d, e->text[1]);
}

void
graph_policy(struct st_graph_edit *e, struct graph_disk *d, const char *policy)
{
    static const char *const names[] = {
        [ST_POLICY_REPORT] = "report",
        [ST_POLICY_STOP] = "stop",
        [ST_POLICY_RETRY] = "retry",
    };

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(policy, names[i]) == 0) {
            st_disk_set_policy(d->pub.disk, (enum st_policy)i);
            graph_end(e, 0);
            return;
        }
    }
    graph_fail(e, EINVAL, "invalid policy '%s', expected report, stop or retry",
               policy);
}

static void
policy_start(struct st_graph_edit *e)
{
    struct graph_disk *d = graph_verb_disk(e, e->text[0]);

    if (d)
        graph_policy(e, d, e->text[1]);
}

/* ---- Insert and remove ---- */

static void
late_removed(struct st_edit *edit, int rc)
{
    struct graph_op *op = st_container(edit, struct graph_op, edit);

    if (rc < 0)
        st_warn(st_domain_log(op->graph->control->domain),
                "%s: '%s' was inserted too late and stays, %s", op->disk->name,
                op->text[1], edit->err.text);
    graph_op_end(op, 0);
}

static void
inserted(struct st_edit *edit, int rc)
{
    struct graph_op *op = edited(edit, rc);

    if (rc < 0) {
        st_node_close(op->node);
        graph_op_end(op, rc);
    } else if (op->e) {
        graph_op_end(op, 0);
    } else {
        op->edit.done = late_removed;
        st_disk_remove(op->disk->pub.disk, op->node->ops->name, 30 * GRAPH_S,
                       &op->edit);
    }
}

static void
decorator_work(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);

    op->rc = st_stack_decorator(op->graph->control, op->graph->env, op->text[1],
                                &op->node, &op->err);
}

static void
decorator_made(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);

    if (op->rc == 0 && op->e) {
        op->edit.done = inserted;
        st_disk_insert(op->disk->pub.disk, op->node, graph_left_ns(op->e),
                       &op->edit);
        graph_op_at_disk(op);
        return;
    }
    if (op->rc == 0)
        st_node_close(op->node);
    graph_op_end(op, op->rc);
}

static void
insert_start(struct st_graph_edit *e)
{
    struct graph_disk *d = graph_verb_disk(e, e->text[0]);
    struct graph_op *op = d ? graph_op_new(e, d, GRAPH_UNDONE) : NULL;

    if (!op)
        return;
    op->job.work = decorator_work;
    op->job.done = decorator_made;
    st_job_start(e->graph->control, &op->job);
}

static void
remove_start(struct st_graph_edit *e)
{
    struct graph_disk *d = graph_verb_disk(e, e->text[0]);
    struct graph_op *op = d ? graph_op_new(e, d, GRAPH_GOES_ON) : NULL;

    if (!op)
        return;
    op->edit.done = disk_done;
    st_disk_remove(d->pub.disk, op->text[1], graph_left_ns(e), &op->edit);
    graph_op_at_disk(op);
}

/* ---- Quit ---- */

static void
quit_start(struct st_graph_edit *e)
{
    struct st_graph_opts *o = &e->graph->opts;

    if (!o->quit) {
        graph_fail(e, ENOTSUP, "quit: whoever made this graph ends it");
        return;
    }
    graph_end(e, 0);
    o->quit(o->arg);
}

/* ---- The table ---- */

static const struct st_verb verbs[] = {
    {"set",
     "PATH VALUE",
     "give a value of the inspect tree another value",
     {"path", "value"},
     graph_set},
    {"resize",
     "DISK SIZE",
     "make a disk larger or smaller",
     {"disk", "size"},
     resize_start},
    {"insert",
     "DISK KIND:ARG",
     "put a decorator on top of a disk, while it is used",
     {"disk", "node"},
     insert_start},
    {"remove",
     "DISK KIND",
     "take the topmost decorator of that kind out",
     {"disk", "kind"},
     remove_start},
    {"pause",
     "DISK",
     "let what is under way end, and hold new requests",
     {"disk"},
     pause_start},
    {"resume",
     "DISK",
     "go on, after a pause or a stop by the error policy",
     {"disk"},
     resume_start},
    {"policy",
     "DISK report|stop|retry",
     "what to do with requests that fail: EIO, ENOSPC",
     {"disk", "policy"},
     policy_start},
    {"add-export",
     "NAME=SPEC",
     "open a disk and serve it",
     {"name", "spec", "?ro", "?door"},
     graph_add_export},
    {"remove-export",
     "NAME",
     "serve a disk no more, and close it when nobody else does",
     {"name"},
     graph_remove_export},
    {"add-disk",
     "SPEC,on=ID[,nsid=N][,on=ID...][,ro][,name=NAME]",
     "open a disk and attach it to controllers and doors",
     {"disk"},
     graph_add_disk},
    {"remove-disk",
     "ID NSID",
     "take a namespace out, and close its disk when nobody else has it",
     {"controller", "nsid"},
     graph_remove_disk},
    {"fault",
     "FILE [--controller ID]",
     "replace the fault rules of all controllers, or of one, by those of FILE",
     {"<rules", "?controller"},
     graph_fault},
    {"release",
     "[--controller ID]",
     "let commands complete that a fault rule holds",
     {"?controller"},
     graph_release},
    {"save",
     "ID FILE",
     "write what state a controller is in to FILE",
     {"controller", ">state"},
     graph_save},
    {"restore",
     "ID FILE",
     "put a controller into the state of FILE",
     {"controller", "@state"},
     graph_restore},
    {"pause-machine",
     "",
     "hold the vCPUs of strata run",
     {NULL},
     graph_pause_machine},
    {"resume-machine",
     "",
     "let the vCPUs run on",
     {NULL},
     graph_resume_machine},
    {"reset-machine",
     "",
     "press the reset button of the machine",
     {NULL},
     graph_reset_machine},
    {"save-machine",
     "FILE",
     "write the machine, which is paused, to a file of the server's",
     {"file"},
     graph_save_machine},
    {"quit", "", "end as after SIGTERM", {NULL}, quit_start},
    {NULL, NULL, NULL, {NULL}, NULL},
};

const struct st_verb *
st_graph_verbs(void)
{
    return verbs;
}

const struct st_verb *
st_graph_verb(const char *name)
{
    for (const struct st_verb *v = verbs; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}
