/* SPDX-License-Identifier: MIT
 *
 * Edits of a disk: one after the other, on the home loop.
 *
 *   insert, remove:  close gate -> change the tree -> every loop opens a door
 *                    to it -> all could? swap : change it back -> open gate
 *   grow:            worker -> publish
 *   shrink:          close gate -> worker -> publish -> open gate
 *   by the backend:  smaller? close gate -> publish -> open gate : publish
 *
 * An edit that fails leaves the disk as it was. Its rc and sentence are kept
 * in the edit until the gate is open again.
 */
#include "root.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- The queue ---- */

static void
edit_run(struct st_task *t)
{
    struct st_edit *e = st_container(t, struct st_edit, task);

    e->start(e);
}

static void
edit_next(struct st_disk *d)
{
    struct st_list *first = st_list_first(&d->edits);
    struct st_edit *e;

    if (!first)
        return;
    e = st_container(first, struct st_edit, link);
    e->task.run = edit_run;
    st_ready(d->home, &e->task);
}

void
edit_queue(struct st_disk *d, struct st_edit *e,
           void (*start)(struct st_edit *e))
{
    bool idle = st_list_empty(&d->edits);

    e->disk = d;
    e->start = start;
    e->rc = 0;
    e->orphans = 0;
    e->err.text[0] = 0;
    e->timer.slot = 0;
    st_list_append(&d->edits, &e->link);
    if (idle)
        edit_next(d);
}

void
edit_done(struct st_edit *e, int rc)
{
    struct st_disk *d = e->disk;

    if (rc < 0 && !e->err.text[0])
        st_err_set(&e->err, -rc, "%s: %s", d->name, st_strerror(rc));
    st_list_remove(&e->link);
    edit_next(d);
    e->done(e, rc);
}

/* ---- The gate, as an edit uses it ---- */

static void
set_edit_gate(struct st_disk *d, bool closed)
{
    pthread_mutex_lock(&d->mutex);
    d->edit_gate = closed;
    pthread_mutex_unlock(&d->mutex);
}

static void
reopened(struct st_edit *e, int rc)
{
    (void)rc;
    edit_done(e, e->rc);
}

/* The edit is decided: open the gate again, then say so. */
static void
finish(struct st_edit *e, int rc)
{
    e->rc = rc;
    set_edit_gate(e->disk, false);
    gate_open(e, reopened);
}

static void
with_gate_closed(struct st_edit *e, void (*next)(struct st_edit *e, int rc))
{
    e->mode = ST_PARK;
    set_edit_gate(e->disk, true);
    gate_close(e, next);
}

/* ---- Pause and resume ---- */

static void
quiesce_start(struct st_edit *e)
{
    pthread_mutex_lock(&e->disk->mutex);
    e->disk->gate = e->mode == ST_REFUSE ? GATE_REFUSE : GATE_PARK;
    pthread_mutex_unlock(&e->disk->mutex);
    gate_close(e, edit_done);
}

void
st_disk_quiesce(struct st_disk *d, enum st_quiesce mode, uint64_t timeout_ns,
                struct st_edit *e)
{
    e->mode = mode;
    e->deadline_ns = timeout_ns;
    edit_queue(d, e, quiesce_start);
}

static void
resume_start(struct st_edit *e)
{
    pthread_mutex_lock(&e->disk->mutex);
    e->disk->gate = GATE_OPEN;
    atomic_store(&e->disk->stopped, false);
    pthread_mutex_unlock(&e->disk->mutex);
    gate_open(e, edit_done);
}

void
st_disk_resume(struct st_disk *d, struct st_edit *e)
{
    edit_queue(d, e, resume_start);
}

/* ---- Insert and remove ---- */

/* Put NODE where the top is, or below PARENT: a new edition of the tree. Only
 * pointers change, since other loops read the properties of what stays. */
static void
set_place(struct st_disk *d, struct st_node *parent, struct st_node *node)
{
    pthread_mutex_lock(&d->mutex);
    if (parent) {
        parent->child[0] = node;
    } else {
        disk_hook(d, node);
        d->node = node;
    }
    atomic_store(&node->parent, parent);
    d->tree++;
    pthread_mutex_unlock(&d->mutex);
}

/* What front ends have seen must stay true: the disk's properties are never
 * written again, since loops read them at any time. What is left out is only a
 * hint to them. */
static bool
same_face(const struct st_props *a, const struct st_props *b)
{
    return a->performs == b->performs && a->sector_size == b->sector_size &&
           a->physical_sector_size == b->physical_sector_size &&
           a->unmap == b->unmap && a->read_only == b->read_only &&
           a->unmap_granularity == b->unmap_granularity &&
           a->has_id == b->has_id && memcmp(a->id, b->id, 16) == 0;
}

/* Take N out of the tree (remove, or an insert that failed): its child is in
 * its place. N goes on pointing at the child, whose old doors lead through it.
 */
static void
unlink_node(struct st_disk *d, struct st_node *n)
{
    set_place(d, atomic_load(&n->parent), n->child[0]);
}

/* The reverse, for a remove that failed. */
static void
link_node(struct st_disk *d, struct st_node *n)
{
    set_place(d, atomic_load(&n->parent), n);
    atomic_store(&n->child[0]->parent, n);
}

static void
chan_prepare(struct root_msg *m)
{
    struct root_chan *rc = m->rc;
    struct st_disk *d = rc->disk;
    int err = 0;

    pthread_mutex_lock(&d->mutex);
    if (!rc->closed && rc->tree != d->tree)
        err = st_chan_open(d->node, rc->base.loop, &rc->next);
    pthread_mutex_unlock(&d->mutex);
    bcast_ack(m, err);
}

/* Through the new door from now on; a channel that was opened meanwhile already
 * is. After a failed edit those have to go back. */
static void
chan_swap(struct root_msg *m)
{
    struct root_chan *rc = m->rc;
    struct st_disk *d = rc->disk;

    pthread_mutex_lock(&d->mutex);
    if (!rc->closed && rc->tree != d->tree) {
        if (!rc->next && st_chan_open(d->node, rc->base.loop, &rc->next) < 0)
            st_error(st_domain_log(d->home->domain),
                     "%s: no memory for a channel: its requests are refused",
                     d->name);
        st_chan_close(rc->inner);
        rc->inner = rc->next;
        rc->next = NULL;
        rc->tree = d->tree;
        wall_update(rc);
    }
    pthread_mutex_unlock(&d->mutex);
    bcast_ack(m, 0);
}

static void
chan_back(struct root_msg *m)
{
    struct root_chan *rc = m->rc;

    if (!rc->closed && rc->next) {
        st_chan_close(rc->next);
        rc->next = NULL;
        rc->tree = rc->disk->tree; /* its old door is the right one again */
    }
    chan_swap(m);
}

static void
swapped(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);
    struct st_edit *e = b->edit;
    struct st_disk *d = e->disk;

    if (e->rc == 0) {
        if (e->kind) {
            e->node->nchild = 0; /* in the tree, not its own any more */
            st_node_close(e->node);
        }
        disk_publish(d, ST_EVENT_DEPTH);
    } else if (!e->kind) {
        e->node->nchild = 0; /* the caller's again, as it was */
    }
    disk_event(d, ST_EVENT_RESIZE); /* one may have been missed */
    finish(e, e->rc);
}

/* Every loop has tried to open a door to the new tree. */
static void
prepared(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);
    struct st_edit *e = b->edit;
    struct st_disk *d = e->disk;

    e->rc = atomic_load(&b->rc);
    if (e->rc < 0) {
        if (e->kind)
            link_node(d, e->node);
        else
            unlink_node(d, e->node);
    }
    atomic_store(&d->frames, st_node_depth(d->node) + 2);
    bcast_start(d, BCAST_EDIT, e, e->rc < 0 ? chan_back : chan_swap, swapped);
}

static void
insert_quiet(struct st_edit *e, int rc)
{
    struct st_disk *d = e->disk;
    struct st_node *n = e->node;
    struct st_props face;

    if (rc == 0)
        rc = st_node_adopt(n, d->node);
    if (rc < 0) {
        finish(e, rc);
        return;
    }
    disk_derive(d, n, &face);
    if (st_node_depth(n) > ST_DEPTH_MAX)
        rc = st_err_set(&e->err, E2BIG, "%s: more than %u disks deep", d->name,
                        ST_DEPTH_MAX);
    else if (!same_face(&face, &d->props) ||
             st_node_size(n) != st_node_size(d->node))
        rc = st_err_set(&e->err, EINVAL,
                        "%s: with a %s on top it would look different to its "
                        "users",
                        d->name, n->ops->name);
    if (rc < 0) {
        st_node_disown(n);
        disk_event(d, ST_EVENT_RESIZE); /* one may have been missed */
        finish(e, rc);
        return;
    }
    set_place(d, NULL, n);
    atomic_store(&n->child[0]->parent, n);
    bcast_start(d, BCAST_EDIT, e, chan_prepare, prepared);
}

static void
insert_start(struct st_edit *e)
{
    with_gate_closed(e, insert_quiet);
}

void
st_disk_insert(struct st_disk *d, struct st_node *node, uint64_t timeout_ns,
               struct st_edit *e)
{
    assert(node->nchild == 0);
    e->node = node;
    e->kind = NULL;
    e->deadline_ns = timeout_ns;
    edit_queue(d, e, insert_start);
}

static void
remove_quiet(struct st_edit *e, int rc)
{
    if (rc < 0) {
        finish(e, rc);
        return;
    }
    unlink_node(e->disk, e->node);
    bcast_start(e->disk, BCAST_EDIT, e, chan_prepare, prepared);
}

static void
remove_start(struct st_edit *e)
{
    struct st_node *n = e->disk->node;

    while (n->ops->transparent && strcmp(n->ops->name, e->kind) != 0)
        n = n->child[0];
    if (!n->ops->transparent) {
        st_err_set(&e->err, ENOENT, "%s: no '%s' on top of it", e->disk->name,
                   e->kind);
        edit_done(e, -ENOENT);
        return;
    }
    e->node = n;
    with_gate_closed(e, remove_quiet);
}

void
st_disk_remove(struct st_disk *d, const char *kind, uint64_t timeout_ns,
               struct st_edit *e)
{
    e->kind = kind;
    e->deadline_ns = timeout_ns;
    edit_queue(d, e, remove_start);
}

/* ---- Resize ---- */

static void
publish_size(struct st_disk *d, unsigned events)
{
    atomic_store(&d->size, st_node_size(d->node));
    disk_publish(d, events);
}

static void
resize_work(struct st_job *j)
{
    struct st_edit *e = st_container(j, struct st_edit, job);

    e->rc = st_node_resize(e->node, e->size, &e->err);
}

static void
resize_worked(struct st_job *j)
{
    struct st_edit *e = st_container(j, struct st_edit, job);

    if (e->rc == 0)
        publish_size(e->disk, ST_EVENT_RESIZE);
    finish(e, e->rc);
}

static void
resize_quiet(struct st_edit *e, int rc)
{
    if (rc < 0) {
        finish(e, rc);
        return;
    }
    e->node = e->disk->node;
    e->job.work = resize_work;
    e->job.done = resize_worked;
    st_job_start(e->disk->home, &e->job);
}

static void
resize_start(struct st_edit *e)
{
    struct st_disk *d = e->disk;
    int rc = 0;

    if (e->size % d->props.sector_size || e->size > ST_OFFSET_MAX)
        rc = st_err_set(&e->err, EINVAL,
                        "%s: size %llu is not a multiple of the sector size %u",
                        d->name, (unsigned long long)e->size,
                        d->props.sector_size);
    else if (d->props.read_only)
        rc = st_err_set(&e->err, EROFS, "%s: read-only", d->name);
    if (rc < 0)
        edit_done(e, rc);
    else if (e->size < st_disk_size(d))
        with_gate_closed(e, resize_quiet);
    else
        resize_quiet(e, 0);
}

void
st_disk_resize_within(struct st_disk *d, uint64_t size, uint64_t timeout_ns,
                      struct st_edit *e)
{
    e->size = size;
    e->deadline_ns = timeout_ns;
    edit_queue(d, e, resize_start);
}

void
st_disk_resize(struct st_disk *d, uint64_t size, struct st_edit *e)
{
    st_disk_resize_within(d, size, 0, e);
}

/* ---- What the tree and the channels say by themselves ---- */

static void
own_done(struct st_edit *e, int rc)
{
    (void)rc;
    e->disk->own_busy = false;
    if (st_node_size(e->disk->node) != st_disk_size(e->disk))
        disk_event(e->disk, ST_EVENT_RESIZE);
}

static void
own_quiet(struct st_edit *e, int rc)
{
    (void)rc;
    publish_size(e->disk, ST_EVENT_RESIZE);
    finish(e, 0);
}

static void
own_start(struct st_edit *e)
{
    if (st_node_size(e->disk->node) == st_disk_size(e->disk))
        edit_done(e, 0);
    else if (st_node_size(e->disk->node) < st_disk_size(e->disk))
        with_gate_closed(e, own_quiet);
    else
        own_quiet(e, 0);
}

static void
stop_told(struct st_task *t)
{
    struct bcast *b = st_container(t, struct bcast, done);
    struct st_disk *d = b->disk;

    if (d->stop_again) {
        d->stop_again = false;
        bcast_start(d, BCAST_EVENT, NULL, chan_open_gate, stop_told);
    }
}

static void
tell_stopped(struct st_disk *d)
{
    if (atomic_load(&d->bcast[BCAST_EVENT].left))
        d->stop_again = true;
    else
        bcast_start(d, BCAST_EVENT, NULL, chan_open_gate, stop_told);
}

void
edit_event(struct st_task *t)
{
    struct st_disk *d = st_container(t, struct st_disk, event_task);
    unsigned events;

    atomic_store(&d->event_posted, false);
    events = atomic_exchange(&d->events, 0);
    if (events & ST_EVENT_STOPPED)
        tell_stopped(d);
    if (events & ~(unsigned)ST_EVENT_RESIZE)
        disk_publish(d, events & ~(unsigned)ST_EVENT_RESIZE);
    if ((events & ST_EVENT_RESIZE) && !d->own_busy) {
        d->own_busy = true;
        d->own.done = own_done;
        d->own.deadline_ns = 0;
        edit_queue(d, &d->own, own_start);
    }
}

/* ---- Conflicts ---- */

static void
chan_conflicts(struct root_msg *m)
{
    struct root_chan *rc = m->rc;

    pthread_mutex_lock(&rc->disk->mutex);
    rc->conflicts = rc->disk->conflicts;
    pthread_mutex_unlock(&rc->disk->mutex);
    if (!rc->closed)
        wall_update(rc);
    bcast_ack(m, 0);
}

static void
conflicts_told(struct st_task *t)
{
    struct st_edit *e = st_container(t, struct bcast, done)->edit;

    free(e->old);
    edit_done(e, 0);
}

static void
set_bit(uint64_t *map, uint16_t n, bool on)
{
    map[n / 64] &= ~(UINT64_C(1) << (n % 64));
    map[n / 64] |= (uint64_t)on << (n % 64);
}

static void
conflict_start(struct st_edit *e)
{
    static const struct conflicts none;
    struct st_disk *d = e->disk;
    struct conflicts *t = calloc(1, sizeof(*t));

    if (!t) {
        edit_done(e, -ENOMEM);
        return;
    }
    e->old = d->conflicts;
    if (d->conflicts)
        *t = *d->conflicts;
    set_bit(t->read, e->nexus & ST_NEXUS_MAX, e->no_read);
    set_bit(t->write, e->nexus & ST_NEXUS_MAX, e->no_write);
    if (memcmp(t, &none, sizeof(none)) == 0) {
        free(t);
        t = NULL;
    }
    pthread_mutex_lock(&d->mutex);
    d->conflicts = t;
    pthread_mutex_unlock(&d->mutex);
    bcast_start(d, BCAST_EDIT, e, chan_conflicts, conflicts_told);
}

void
st_disk_set_conflict(struct st_disk *d, uint16_t nexus, bool read, bool write,
                     struct st_edit *e)
{
    e->nexus = nexus;
    e->no_read = read;
    e->no_write = write;
    edit_queue(d, e, conflict_start);
}
