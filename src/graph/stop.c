/* SPDX-License-Identifier: MIT
 *
 * The end of the graph, step by step; each has the caller's time.
 *
 *   EDITS    the one under way ends (others are refused)
 *   RESUME   paused and stopped disks go on, so that requests can end
 *   DOORS    every door stops, and flushes what it served; every controller
 *            stops when its door has
 *   FLUSH    the disks that no door serves
 *   REST     ops that are late: removals end now that the clients are gone
 *
 * A step that takes too long is left behind, and DONE gets -ETIMEDOUT.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "graph_private.h"

/* ---- Flush ---- */

struct flush {
    struct st_graph *graph;
    struct st_chan *chan;
    struct st_task task;
    void (*done)(void *arg, int rc);
    void *arg;
    int rc;
    struct st_req req; /* last: frames follow */
};

/* Not within the request's own completion: its channel is closed here. */
static void
flush_end(struct st_task *t)
{
    struct flush *f = st_container(t, struct flush, task);
    void (*done)(void *arg, int rc) = f->done;
    void *arg = f->arg;
    int rc = f->rc;

    st_disk_close_chan(f->chan);
    free(f);
    done(arg, rc);
}

static void
flush_done(struct st_req *req)
{
    struct flush *f = req->owner;

    f->rc = req->status == ST_OK ? 0 : -EIO;
    st_ready(f->graph->control, &f->task);
}

int
graph_flush(struct st_graph *g, struct graph_disk *d,
            void (*done)(void *arg, int rc), void *arg)
{
    unsigned frames = st_disk_frames(d->pub.disk);
    struct flush *f;
    int rc;

    if (st_disk_props(d->pub.disk)->read_only)
        return 1;
    f = calloc(1, offsetof(struct flush, req) + st_req_size(frames));
    rc = f ? st_disk_open_chan(d->pub.disk, g->control, &f->chan) : -ENOMEM;
    if (rc < 0) {
        free(f);
        return rc;
    }
    f->graph = g;
    f->task.run = flush_end;
    f->done = done;
    f->arg = arg;
    st_req_init(&f->req, frames, flush_done, f);
    f->req.op = ST_OP_FLUSH;
    f->req.nexus = ST_NEXUS_NONE;
    st_submit(f->chan, &f->req);
    return 0;
}

/* ---- The steps ---- */

/* What a step started has ended. */
static void
one_less(struct st_graph *g)
{
    g->pending--;
    graph_kick(g);
}

static void
stop_timeout(struct st_timer *t)
{
    struct st_graph *g = st_container(t, struct st_graph, timer);

    g->overdue = true;
    graph_kick(g);
}

static void
resume_done(struct st_edit *e, int rc)
{
    struct graph_disk *d = st_container(e, struct graph_disk, resume);
    struct st_graph *g = e->arg;

    (void)rc;
    d->pub.paused = false;
    if (g->stop == GRAPH_STOP_RESUME)
        one_less(g);
}

static void
resume_all(struct st_graph *g)
{
    st_list_for(d, next, &g->disks, struct graph_disk, link)
    {
        if (d->pub.leaving)
            continue;
        st_disk_set_policy(d->pub.disk, ST_POLICY_REPORT);
        if (!d->pub.paused && !graph_disk_stopped(d))
            continue;
        g->pending++;
        d->resume = (struct st_edit){.done = resume_done, .arg = g};
        st_disk_resume(d->pub.disk, &d->resume);
    }
}

/* The worst that happened: requests that are out, then data that is lost. */
static void
remember(struct st_graph *g, int rc)
{
    if (rc < 0 && g->rc != -ETIMEDOUT)
        g->rc = rc == -ETIMEDOUT ? rc : -EIO;
}

void
graph_door_stopped(void *arg, int rc)
{
    struct st_graph *g = arg;

    remember(g, rc);
    one_less(g);
}

static void
stop_doors(struct st_graph *g)
{
    st_list_for(d, next, &g->doors, struct graph_door, link)
    {
        g->pending++;
        st_nbd_stop(d->pub.nbd, g->timeout_ns, graph_door_stopped, g);
        if (g->cutting)
            st_nbd_cut(d->pub.nbd);
    }
    graph_stop_machine(g);
    if (g->cutting)
        graph_cut_controllers(g);
}

static void
disk_flushed(void *arg, int rc)
{
    struct st_graph *g = arg;

    remember(g, rc);
    if (g->stop == GRAPH_STOP_FLUSH)
        one_less(g);
}

static void
flush_rest(struct st_graph *g)
{
    st_list_for(d, next, &g->disks, struct graph_disk, link)
    {
        int rc = d->exports || d->pub.leaving
                     ? 1
                     : graph_flush(g, d, disk_flushed, g);

        g->pending += rc == 0;
        remember(g, rc);
    }
}

static void
enter(struct st_graph *g, enum graph_stop step)
{
    uint64_t ns = g->cutting ? GRAPH_S : st_max(g->timeout_ns, GRAPH_S);

    if (g->overdue && g->stop != GRAPH_STOP_EDITS)
        remember(g, -ETIMEDOUT);
    g->stop = step;
    g->overdue = false;
    g->pending = 0;
    st_timer_stop(g->control, &g->timer);
    if (step == GRAPH_STOPPED || step == GRAPH_STOP_DOORS)
        return; /* doors mind their time themselves */
    if (ns < UINT64_MAX - g->control->now)
        st_timer_set(g->control, &g->timer, g->control->now + ns);
}

void
graph_stop_step(struct st_graph *g)
{
    switch (g->stop) {
    case GRAPH_RUNS:
    case GRAPH_STOPPED:
        return;
    case GRAPH_STOP_EDITS:
        if (g->current)
            return;
        enter(g, GRAPH_STOP_RESUME);
        resume_all(g);
        break;
    case GRAPH_STOP_RESUME:
        if (g->pending && !g->overdue)
            return;
        enter(g, GRAPH_STOP_DOORS);
        stop_doors(g);
        break;
    case GRAPH_STOP_DOORS:
        if (g->pending)
            return;
        enter(g, GRAPH_STOP_FLUSH);
        flush_rest(g);
        break;
    case GRAPH_STOP_FLUSH:
        if (g->pending && !g->overdue)
            return;
        enter(g, GRAPH_STOP_REST);
        break;
    case GRAPH_STOP_REST:
        if (g->nops && !g->overdue)
            return;
        enter(g, GRAPH_STOPPED);
        g->done(g->arg, g->rc);
        return;
    }
    graph_kick(g);
}

/* The edit under way has less time now. */
static void
hurry_edit(struct st_graph *g, uint64_t ns)
{
    struct st_graph_edit *e = g->current;
    uint64_t now = g->control->now;

    if (e && e->timer.at > now && e->timer.at - now > ns)
        st_timer_set(g->control, &e->timer, now + ns);
}

void
st_graph_stop(struct st_graph *g, uint64_t timeout_ns,
              void (*done)(void *arg, int rc), void *arg)
{
    assert(!g->stop);
    g->stop = GRAPH_STOP_EDITS;
    g->timeout_ns = timeout_ns;
    g->timer.fire = stop_timeout;
    g->done = done;
    g->arg = arg;
    hurry_edit(g, timeout_ns);
    graph_kick(g);
}

void
st_graph_cut(struct st_graph *g)
{
    if (!g->stop || g->cutting)
        return;
    g->cutting = true;
    hurry_edit(g, 0);
    if (g->stop == GRAPH_STOP_DOORS) {
        st_list_for(d, next, &g->doors, struct graph_door, link)
        {
            st_nbd_cut(d->pub.nbd);
        }
        graph_cut_controllers(g);
    } else if (g->timer.slot) {
        st_timer_set(g->control, &g->timer,
                     st_min(g->timer.at, g->control->now + GRAPH_S));
    }
}
