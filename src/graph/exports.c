/* SPDX-License-Identifier: MIT
 *
 * Disks that come and go with their export; and how a disk leaves that nobody
 * has any more (remove-disk is in namespaces.c).
 *
 *   add:     worker opens SPEC -> disk -> door serves it
 *   remove:  door knows it no more -> clients gone -> flush -> no message
 *            under way any more -> worker closes the tree
 *
 * A removal cannot be taken back: past its deadline it goes on, and its disk is
 * `leaving` until it is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph_private.h"

/* ---- Add ---- */

static void
spec_work(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);

    op->rc = st_stack_open(op->graph->control, op->graph->env, op->text[1],
                           op->text[2] && strcmp(op->text[2], "on") == 0,
                           &op->node, &op->err);
}

/* The disk and its export above op->node. On failure all of it is undone. */
static int
serve(struct graph_op *op)
{
    struct st_graph *g = op->graph;
    struct graph_disk *d = NULL;
    char *name;
    int rc = graph_disk_name(g, op->text[0], &name, &op->err);

    if (rc == 0)
        rc = graph_disk_add(g, name, op->text[1], op->node,
                            op->text[2] && strcmp(op->text[2], "on") == 0, &d,
                            &op->err);
    if (rc < 0) {
        st_node_close(op->node);
        return rc;
    }
    rc = graph_export_add(g, op->door, op->text[0], d, &op->err);
    if (rc < 0)
        graph_disk_free(d);
    return rc;
}

static void
spec_opened(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);

    if (op->rc == 0 && op->e) {
        op->rc = serve(op);
    } else if (op->rc == 0) {
        st_node_close(op->node); /* too late: nobody asked for it any more */
    }
    graph_op_end(op, op->rc);
}

/* The door that E means; NULL: E has ended. */
static struct graph_door *
choose_door(struct st_graph_edit *e)
{
    struct st_graph *g = e->graph;
    struct graph_door *d;

    if (e->text[3]) {
        d = graph_find_door(g, e->text[3]);
        if (!d)
            graph_fail(e, ENOENT, "no door '%s'", e->text[3]);
        return d;
    }
    if (st_list_empty(&g->doors)) {
        graph_fail(e, ENOENT, "there is no door to serve it");
        return NULL;
    }
    d = st_container(st_list_first(&g->doors), struct graph_door, link);
    if (d->link.next == &g->doors)
        return d;
    graph_fail(e, EINVAL, "there are several doors, expected door=NAME");
    return NULL;
}

void
graph_add_export(struct st_graph_edit *e)
{
    struct st_graph *g = e->graph;
    struct graph_door *door;
    struct graph_op *op;
    char *name;
    int rc;

    if (e->text[2] && strcmp(e->text[2], "on") && strcmp(e->text[2], "off")) {
        graph_fail(e, EINVAL, "invalid ro '%s', expected on or off",
                   e->text[2]);
        return;
    }
    door = choose_door(e);
    if (!door)
        return;
    st_list_for(x, next, &g->exports, struct graph_export, link)
    {
        if (x->door == door && !x->leaving &&
            strcmp(x->name, e->text[0]) == 0) {
            graph_fail(e, EEXIST, "there is an export '%s' already",
                       e->text[0]);
            return;
        }
    }
    rc = graph_disk_name(g, e->text[0], &name, &e->err);
    if (rc < 0) {
        graph_end(e, rc);
        return;
    }
    free(name); /* nobody takes it meanwhile: edits are serial */
    op = graph_op_new(e, NULL, "what is being opened will be closed again");
    if (!op)
        return;
    op->door = door;
    op->job.work = spec_work;
    op->job.done = spec_opened;
    st_job_start(g->control, &op->job);
}

/* ---- Remove ---- */

/* Memory that goes back to the system, a file server: it can take long. */
static void
tree_close(struct st_job *j)
{
    st_node_close(st_container(j, struct graph_op, job)->node);
}

static void
tree_closed(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);

    graph_disk_free(op->disk);
    op->disk = NULL;
    graph_op_end(op, op->rc);
}

static void
close_disk(struct graph_op *op)
{
    struct graph_disk *d = op->disk;

    if (!st_disk_deserted(d->pub.disk)) {
        /* Messages to closed channels: the other loops' next turns. */
        st_timer_set(op->graph->control, &op->timer,
                     op->graph->control->now + GRAPH_S / 1000);
        return;
    }
    st_list_remove(&d->link); /* nobody can look at it any more */
    op->node = st_disk_take_tree(d->pub.disk);
    op->job.work = tree_close;
    op->job.done = tree_closed;
    st_job_start(op->graph->control, &op->job);
}

static void
close_again(struct st_timer *t)
{
    close_disk(st_container(t, struct graph_op, timer));
}

static void
last_flushed(void *arg, int rc)
{
    struct graph_op *op = arg;

    if (rc < 0)
        op->rc = st_err_set(&op->err, EIO,
                            "%s: removed, but its last flush failed, what was "
                            "written before may be lost",
                            op->disk->name);
    if (rc < 0 && !op->e)
        st_error(st_domain_log(op->graph->control->domain), "%s", op->err.text);
    op->timer.fire = close_again;
    close_disk(op);
}

void
graph_out(struct graph_op *op)
{
    int rc;

    if (--op->left)
        return;
    if (!op->has_disk) {
        graph_op_end(op, 0); /* somebody else has the disk */
        return;
    }
    rc = graph_flush(op->graph, op->disk, last_flushed, op);
    if (rc)
        last_flushed(op, rc);
}

static void
export_out(struct st_nbd_unexport *u)
{
    struct graph_export *x = st_container(u, struct graph_export, un);
    struct graph_op *op = x->leaving;

    graph_export_free(x);
    graph_out(op);
}

/* Take all exports and namespaces out that leave with OP. */
static void
take_all_out(struct graph_op *op)
{
    uint64_t left = op->e ? graph_left_ns(op->e) : 1;

    op->left = 1;
    st_list_for(x, next, &op->graph->exports, struct graph_export, link)
    {
        if (x->leaving != op)
            continue;
        op->left++;
        x->un.done = export_out;
        /* Clients have three quarters of the time to leave by themselves; the
         * rest is for cutting them off. */
        if (st_nbd_unexport(x->door->pub.nbd, x->name, left / 4 * 3, &x->un)) {
            graph_export_free(x);
            op->left--;
        }
    }
    st_list_for(n, next, &op->graph->namespaces, struct graph_namespace, link)
    {
        if (n->leaving != op)
            continue;
        op->left++;
        graph_namespace_remove(n, left);
    }
    graph_out(op);
}

static void
opened_gate(struct st_edit *edit, int rc)
{
    struct graph_op *op = st_container(edit, struct graph_op, edit);

    (void)rc;
    op->disk->pub.paused = false;
    take_all_out(op);
}

void
graph_leave(struct graph_op *op)
{
    struct graph_disk *d = op->disk;

    if (!op->has_disk) {
        op->disk = NULL; /* others have it, too */
        take_all_out(op);
        return;
    }
    /* What waits behind a closed gate would keep its clients here. */
    d->pub.leaving = true;
    st_disk_set_policy(d->pub.disk, ST_POLICY_REPORT);
    op->edit.done = opened_gate;
    st_disk_resume(d->pub.disk, &op->edit);
}

void
graph_remove_export(struct st_graph_edit *e)
{
    const char *name = e->text[0];
    struct graph_disk *d = NULL;
    struct graph_op *op;
    unsigned n = 0;

    st_list_for(x, next, &e->graph->exports, struct graph_export, link)
    {
        if (x->leaving || strcmp(x->name, name) != 0 || (d && d != x->disk))
            continue;
        d = x->disk;
        n++;
    }
    if (!d) {
        graph_fail(e, ENOENT, "no export '%s'", name);
        return;
    }
    if (d->late) {
        graph_fail(e, EBUSY,
                   "%s: an edit that timed out is still under way at its disk",
                   name);
        return;
    }
    op = graph_op_new(e, d, GRAPH_GOES_ON);
    if (!op)
        return;
    st_list_for(x, next, &e->graph->exports, struct graph_export, link)
    {
        if (x->disk == d && !x->leaving && strcmp(x->name, op->text[0]) == 0)
            x->leaving = op;
    }
    op->has_disk = n == d->exports + d->namespaces;
    graph_leave(op);
}
