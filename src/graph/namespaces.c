/* SPDX-License-Identifier: MIT
 *
 * Disks at their places: namespaces of controllers, exports of doors. The rules
 * of config.md 4.1 and 4.4 that need to know what there is, the numbers that
 * nobody gave, and the verbs add-disk and remove-disk.
 *
 * In a subsystem a namespace identifier means one disk, for all controllers:
 *
 *            nvme0   nvme1    subsystem s
 *   nsid 1     a       a      shared
 *   nsid 2     b       -      not to be had by another disk at nvme1
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph_private.h"
#include "keep.h"
#include "size.h"

enum { LOCK_PAUSE_MS = 20, LOCK_PATIENCE_MS = 30000 };

/* ---- Namespaces ---- */

/* What namespace NSID is in C's subsystem; AT_C: at C itself. */
static struct graph_namespace *
find_namespace(const struct graph_controller *c, uint32_t nsid, bool at_c)
{
    st_list_for(n, next, &c->graph->namespaces, struct graph_namespace, link)
    {
        if (n->nsid == nsid &&
            (at_c ? n->controller == c
                  : n->controller->subsystem == c->subsystem))
            return n;
    }
    return NULL;
}

/* D in C's subsystem, or NULL. */
static struct graph_namespace *
find_disk_at(const struct graph_controller *c, const struct graph_disk *d)
{
    st_list_for(n, next, &c->graph->namespaces, struct graph_namespace, link)
    {
        if (n->disk == d && n->controller->subsystem == c->subsystem)
            return n;
    }
    return NULL;
}

static uint32_t
lowest_free(const struct graph_controller *c)
{
    for (uint32_t nsid = 1; nsid <= c->nn; nsid++)
        if (!find_namespace(c, nsid, false))
            return nsid;
    return 0;
}

/* May the disk D (NULL: one that is not open yet) be NSID of C? */
static int
check_nsid(const struct graph_controller *c, uint32_t nsid,
           const struct graph_disk *d, struct st_err *err)
{
    const struct graph_namespace *n = find_namespace(c, nsid, true);

    if (nsid > c->nn)
        return st_err_set(err, EINVAL,
                          "nsid=%u is not one of controller '%s', which has 1 "
                          "to %u (namespaces=)",
                          nsid, c->name, c->nn);
    if (n)
        return st_err_set(err, EEXIST,
                          "namespace %u of controller '%s' is disk '%s' "
                          "already%s",
                          nsid, c->name, n->disk->name,
                          n->leaving ? ", which is still leaving" : "");
    n = find_namespace(c, nsid, false);
    if (n && n->disk != d)
        return st_err_set(err, EEXIST,
                          "namespace %u of subsystem '%s' is disk '%s', at "
                          "controller '%s': it cannot be another one at '%s'",
                          nsid, c->subsystem->name, n->disk->name,
                          n->controller->name, c->name);
    n = d ? find_disk_at(c, d) : NULL;
    if (n && n->nsid != nsid)
        return st_err_set(err, EEXIST,
                          "disk '%s' is namespace %u at controller '%s' of the "
                          "same subsystem, it cannot be %u at '%s'",
                          d->name, n->nsid, n->controller->name, nsid, c->name);
    return 0;
}

void
graph_namespace_free(struct graph_namespace *n)
{
    st_list_remove(&n->link);
    n->disk->namespaces--;
    free(n);
}

/* May the disk D be at a controller whose guest goes on when we die? */
static int
check_outlives(const struct st_graph *g, const struct graph_disk *d,
               struct st_err *err)
{
    if (!g->opts.keep || d->pub.read_only ||
        st_disk_props(d->pub.disk)->outlives)
        return 0;
    return st_err_set(err, EINVAL,
                      "disk '%s' (%s) cannot be used with --survive: what is "
                      "written to it dies with this process; use a file or a "
                      "block device, or ro",
                      d->name, d->spec);
}

static int
add_namespace(struct graph_controller *c, uint32_t nsid, struct graph_disk *d,
              struct st_err *err)
{
    const struct graph_namespace *shared = find_disk_at(c, d);
    struct graph_namespace *n;
    int rc = check_outlives(c->graph, d, err);

    if (rc < 0)
        return rc;
    if (!nsid)
        nsid = shared ? shared->nsid : lowest_free(c);
    if (!nsid)
        return st_err_set(err, ENOSPC,
                          "controller '%s' has no namespace identifier left of "
                          "its %u (namespaces=)",
                          c->name, c->nn);
    rc = check_nsid(c, nsid, d, err);
    if (rc < 0)
        return rc;
    n = calloc(1, sizeof(*n));
    if (!n)
        return st_err_set(err, ENOMEM, "%s: no memory", d->name);
    rc = st_nvme_add_namespace(c->pub.nvme, nsid, d->pub.disk, d->pub.read_only,
                               &n->nsid, err);
    if (rc < 0) {
        free(n);
        return rc;
    }
    n->controller = c;
    n->disk = d;
    d->namespaces++;
    st_list_append(&c->graph->namespaces, &n->link);
    return 0;
}

static void
remove_again(struct st_timer *t)
{
    graph_namespace_remove(st_container(t, struct graph_namespace, again),
                           GRAPH_S);
}

static void
namespace_removed(struct st_nvme_call *call, int rc)
{
    struct graph_namespace *n =
        st_container(call, struct graph_namespace, call);
    struct st_loop *home = n->controller->graph->control;
    struct graph_op *op = n->leaving;

    if (rc < 0 && rc != -ENOENT) {
        /* Requests that never come back: the guest has none of it any more,
         * and we wait for them. */
        n->again.fire = remove_again;
        st_timer_set(home, &n->again, home->now + GRAPH_S);
        return;
    }
    graph_namespace_free(n);
    graph_out(op);
}

void
graph_namespace_remove(struct graph_namespace *n, uint64_t timeout_ns)
{
    n->call.done = namespace_removed;
    st_nvme_remove_namespace(n->controller->pub.nvme, n->nsid, timeout_ns,
                             &n->call);
}

/* ---- Places ---- */

/* Is AT one that a disk of A can have? D is its disk, NULL: not open yet. */
static int
check_place(struct st_graph *g, const struct st_attach *a,
            const struct st_attach_at *at, const struct graph_disk *d,
            struct st_err *err)
{
    struct graph_controller *c = graph_find_controller(g, at->on);
    struct graph_door *door = graph_find_door(g, at->on);
    const char *what = c ? "an NVMe controller" : "an NBD door";

    if (!c && !door)
        return st_err_set(err, ENOENT, "there is no controller or door '%s'",
                          at->on);
    if (a->dvd)
        return st_err_set(err, EINVAL,
                          "dvd is not supported: '%s' is %s, which has no "
                          "drives for media",
                          at->on, what);
    if (at->has_lun)
        return st_err_set(err, EINVAL,
                          "lun= is of a SCSI controller, '%s' is %s", at->on,
                          what);
    if (door && at->nsid)
        return st_err_set(err, EINVAL,
                          "nsid= is of an NVMe controller, '%s' is %s", at->on,
                          what);
    if (c && at->export)
        return st_err_set(err, EINVAL, "export= is of an NBD door, '%s' is %s",
                          at->on, what);
    return c && at->nsid ? check_nsid(c, at->nsid, d, err) : 0;
}

/* Does A fit what there is? */
static int
check_places(struct st_graph *g, const struct st_attach *a, struct st_err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < a->n; i++) {
        rc = check_place(g, a, &a->at[i], NULL, err);
        for (unsigned k = 0; rc == 0 && k < i; k++)
            if (strcmp(a->at[i].on, a->at[k].on) == 0 &&
                graph_find_controller(g, a->at[i].on))
                rc = st_err_set(err, EEXIST,
                                "on=%s is given twice, a disk is one namespace "
                                "of a controller",
                                a->at[i].on);
    }
    return rc;
}

static int
attach_to(struct st_graph *g, const struct st_attach_at *at,
          struct graph_disk *d, struct st_err *err)
{
    struct graph_controller *c = graph_find_controller(g, at->on);
    struct graph_door *door = c ? NULL : graph_find_door(g, at->on);

    if (c)
        return add_namespace(c, at->nsid, d, err);
    return graph_export_add(g, door, at->export ? at->export : d->name, d, err);
}

/* Attach D to those places of A that say their number, or to the others. */
static int
attach_numbered(struct st_graph *g, const struct st_attach *a, bool numbered,
                struct graph_disk *d, struct st_err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < a->n; i++)
        if ((a->at[i].nsid != 0) == numbered)
            rc = attach_to(g, &a->at[i], d, err);
    return rc;
}

/* ---- Set-up ---- */

static bool
has_default_export(const struct st_graph *g, const struct graph_door *door)
{
    st_list_for(x, next, &g->exports, struct graph_export, link)
    {
        if (x->door == door && !*x->name)
            return true;
    }
    return false;
}

/* The first disk of a door is what clients get who do not say what they want.
 */
static int
add_default_exports(struct st_graph *g, struct st_err *err)
{
    int rc = 0;

    st_list_for(door, next, &g->doors, struct graph_door, link)
    {
        struct graph_disk *first = NULL;

        st_list_for(x, after, &g->exports, struct graph_export, link)
        {
            if (x->door == door && !first)
                first = x->disk;
        }
        if (rc == 0 && first && !has_default_export(g, door))
            rc = graph_export_add(g, door, "", first, err);
    }
    return rc;
}

/* Open the disk of A. A process before this one may have I/O under way there
 * for a while after its death: it has the image's lock as long, and we wait. */
static int
open_disk(struct st_graph *g, const struct st_attach *a, const char **name,
          struct st_err *err)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000};
    int rc;

    for (unsigned ms = 0;; ms += LOCK_PAUSE_MS) {
        rc = st_graph_open(g, a->name, a->spec, a->read_only, name, err);
        if (rc != -EBUSY || !st_keep_resumes(g->opts.keep) ||
            ms >= LOCK_PATIENCE_MS)
            return rc;
        if (ms == 0)
            st_warn(st_domain_log(g->control->domain),
                    "%s: waiting, up to %d s, for what a server before this "
                    "one has under way",
                    err->text, LOCK_PATIENCE_MS / 1000);
        nanosleep(&pause, NULL);
    }
}

static int
attach_all(struct st_graph *g, const struct st_attach *a, unsigned n,
           struct graph_disk **disk, struct st_err *err)
{
    unsigned i;
    int rc = 0;

    for (i = 0; i < n; i++) {
        if (check_places(g, &a[i], err) < 0) {
            rc = -EINVAL; /* of what was asked for: nothing changes it */
            goto fail;
        }
    }
    for (i = 0; i < n; i++) {
        const char *name;

        rc = open_disk(g, &a[i], &name, err);
        if (rc < 0)
            goto fail;
        disk[i] = graph_find_disk(g, name);
    }
    for (unsigned numbered = 2; numbered--;) {
        for (i = 0; i < n; i++) {
            rc = attach_numbered(g, &a[i], numbered, disk[i], err);
            if (rc < 0)
                goto fail;
        }
    }
    return add_default_exports(g, err);

fail:
    st_err_prefix(err, "%s", a[i].where);
    return rc;
}

int
st_graph_attach(struct st_graph *g, const struct st_attach *a, unsigned n,
                struct st_err *err)
{
    struct graph_disk **disk = calloc(n + 1, sizeof(struct graph_disk *));
    int rc = disk ? attach_all(g, a, n, disk, err)
                  : st_err_set(err, ENOMEM, "no memory");

    free(disk);
    return rc;
}

/* ---- add-disk ---- */

static void
spec_work(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);

    op->rc = st_stack_open(op->graph->control, op->graph->env, op->attach.spec,
                           op->attach.read_only, &op->node, &op->err);
}

/* What was attached before a place failed goes again, with the disk. */
static void
undo(struct graph_op *op, struct graph_disk *d)
{
    st_list_for(x, next, &op->graph->exports, struct graph_export, link)
    {
        if (x->disk == d)
            x->leaving = op;
    }
    st_list_for(n, after, &op->graph->namespaces, struct graph_namespace, link)
    {
        if (n->disk == d)
            n->leaving = op;
    }
    op->disk = d;
    op->has_disk = true;
    graph_leave(op);
}

static void
spec_opened(struct st_job *j)
{
    struct graph_op *op = st_container(j, struct graph_op, job);
    const struct st_attach *a = &op->attach;
    struct graph_disk *d = NULL;
    char *name;

    if (op->rc == 0 && !op->e) {
        st_node_close(op->node); /* too late: nobody asks for it any more */
    } else if (op->rc == 0) {
        op->rc = graph_disk_name(op->graph, a->name, &name, &op->err);
        if (op->rc == 0)
            op->rc = graph_disk_add(op->graph, name, a->spec, op->node,
                                    a->read_only, &d, &op->err);
        if (op->rc < 0)
            st_node_close(op->node);
    }
    for (unsigned numbered = 2; d && op->rc == 0 && numbered--;)
        op->rc = attach_numbered(op->graph, a, numbered, d, &op->err);
    if (d && op->rc < 0)
        undo(op, d);
    else
        graph_op_end(op, op->rc);
}

void
graph_add_disk(struct st_graph_edit *e)
{
    struct st_graph *g = e->graph;
    struct st_attach a;
    struct graph_op *op;
    char *name = NULL;
    int rc = st_attach_parse("add-disk", e->text[0], &a, &e->err);

    if (rc == 0) {
        rc = graph_disk_name(g, a.name, &name, &e->err);
        if (rc == 0)
            rc = check_places(g, &a, &e->err);
        if (rc < 0)
            st_attach_free(&a);
    }
    free(name); /* nobody takes it meanwhile: edits are serial */
    if (rc < 0) {
        graph_end(e, rc);
        return;
    }
    op = graph_op_new(e, NULL, "what is being opened will be closed again");
    if (!op) {
        st_attach_free(&a);
        return;
    }
    op->attach = a;
    op->job.work = spec_work;
    op->job.done = spec_opened;
    st_job_start(g->control, &op->job);
}

/* ---- remove-disk ---- */

void
graph_remove_disk(struct st_graph_edit *e)
{
    struct graph_controller *c = graph_verb_controller(e, e->text[0]);
    struct graph_namespace *n;
    struct graph_op *op;
    uint64_t nsid;
    int rc;

    if (!c)
        return;
    rc = st_number_parse("nsid", e->text[1], 1, c->nn, &nsid, &e->err);
    if (rc < 0) {
        graph_end(e, rc);
        return;
    }
    n = find_namespace(c, (uint32_t)nsid, true);
    if (!n || n->leaving) {
        graph_fail(e, ENOENT, "controller '%s' has no namespace %u", c->name,
                   (unsigned)nsid);
        return;
    }
    if (n->disk->late) {
        graph_fail(e, EBUSY,
                   "%s: an edit that timed out is still under way at this disk",
                   n->disk->name);
        return;
    }
    op = graph_op_new(e, n->disk, GRAPH_GOES_ON);
    if (!op)
        return;
    n->leaving = op;
    op->has_disk = n->disk->exports + n->disk->namespaces == 1;
    graph_leave(op);
}
