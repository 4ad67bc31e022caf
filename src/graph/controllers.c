/* SPDX-License-Identifier: MIT
 *
 * Controllers and their doors: made, inspected, stopped.
 *
 * A vfio-user door belongs to an I/O loop, the one of its controller's admin
 * queue; the controller itself to the control loop. So the end goes back and
 * forth:
 *
 *   control:  stop ------>         .-> no door, inspect does not see it
 *                         \       /      \              .-> st_nvme_stop -> end
 *   loop:                  stopped        `-> destroyed -'
 *                          ^
 *   control:  timeout, or a second signal: cut
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph_private.h"
#include "identity.h"
#include "mem.h"

/* After a cut: how long requests have to end before they are abandoned. */
#define GRACE (10 * GRAPH_S)

/* ---- Names ---- */

struct graph_controller *
graph_find_controller(struct st_graph *g, const char *name)
{
    st_list_for(c, next, &g->controllers, struct graph_controller, link)
    {
        if (strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

static int
no_controller(const char *name, struct st_err *err)
{
    return st_err_set(err, ENOENT, "no controller '%s'", name);
}

struct graph_controller *
graph_verb_controller(struct st_graph_edit *e, const char *name)
{
    struct graph_controller *c = graph_find_controller(e->graph, name);

    if (!c)
        graph_end(e, no_controller(name, &e->err));
    return c;
}

const struct st_graph_controller *
st_graph_next_controller(struct st_graph *g,
                         const struct st_graph_controller *prev)
{
    const struct graph_controller *c = (const struct graph_controller *)prev;
    struct st_list *next = c ? c->link.next : g->controllers.next;

    return next == &g->controllers
               ? NULL
               : &st_container(next, struct graph_controller, link)->pub;
}

/* ---- Subsystems ---- */

static void
subsystem_free(struct graph_subsystem *s)
{
    st_list_remove(&s->link);
    free(s->name);
    free(s);
}

static void
subsystem_leave(struct graph_subsystem *s)
{
    if (--s->controllers == 0)
        subsystem_free(s);
}

/* The subsystem NAME, with one controller more; SHARED: it was named. */
static int
subsystem_join(struct st_graph *g, const char *name, bool shared,
               struct graph_subsystem **out, struct st_err *err)
{
    struct graph_subsystem *n;

    st_list_for(s, next, &g->subsystems, struct graph_subsystem, link)
    {
        if (strcmp(s->name, name) != 0)
            continue;
        if (!s->shared || !shared)
            return st_err_set(err, EEXIST,
                              "subsystem '%s' is taken, expected subsystem=%s "
                              "at each of its controllers",
                              name, name);
        s->controllers++;
        *out = s;
        return 0;
    }
    n = calloc(1, sizeof(*n));
    if (!n || !(n->name = strdup(name)) || st_identity(name, &n->guid) < 0) {
        if (n)
            free(n->name);
        free(n);
        return st_err_set(err, ENOMEM, "%s: no memory", name);
    }
    n->shared = shared;
    n->controllers = 1;
    st_list_append(&g->subsystems, &n->link);
    *out = n;
    return 0;
}

/* An identifier that no controller of its subsystem has. */
static uint16_t
free_cntlid(struct st_graph *g, const struct graph_subsystem *s)
{
    for (uint16_t id = 0;; id++) {
        bool taken = false;

        st_list_for(c, next, &g->controllers, struct graph_controller, link)
        {
            taken |= c->subsystem == s && c->pub.cntlid == id;
        }
        if (!taken)
            return id;
    }
}

/* ---- Made and freed ---- */

static void
controller_free(struct graph_controller *c)
{
    st_nvme_destroy(c->pub.nvme);
    if (c->journal_fd >= 0)
        close(c->journal_fd);
    st_gmem_destroy(c->gmem);
    subsystem_leave(c->subsystem);
    free(c->name);
    free(c);
}

/* The device itself. Its admin queue shall be on c->loop, the I/O queues on all
 * of them. */
static int
make_nvme(struct graph_controller *c, const struct st_graph_nvme_opts *opts,
          unsigned turn, struct st_err *err)
{
    struct st_graph *g = c->graph;
    unsigned n = g->opts.nloops;
    st_autofree struct st_loop **loops = calloc(n, sizeof(*loops));
    struct st_nvme_opts o = {
        .home = g->control,
        .loops = loops,
        .nloops = n,
        .gmem = c->gmem,
        .log = st_domain_log(g->control->domain),
        .name = c->name,
        .keep = g->opts.keep,
        .subsystem = c->subsystem->guid,
        .cntlid = c->pub.cntlid,
        .shared = c->subsystem->shared,
        .serial = opts->serial,
        .model = opts->model,
        .queues = opts->queues,
        .entries = opts->entries,
        .vectors = opts->vectors,
        .namespaces = c->nn,
        .intx = opts->intx,
        .mapped = opts->mapped,
        .poll_us = opts->poll_us,
    };

    if (!loops)
        return st_err_set(err, ENOMEM, "%s: no memory", c->name);
    /* The controller puts it on the loop of number cntlid. */
    for (unsigned i = 0; i < n; i++)
        loops[(c->pub.cntlid + i) % n] = g->opts.loops[(turn + i) % n];
    return st_nvme_create(&o, &c->pub.nvme, err);
}

int
st_graph_add_nvme(struct st_graph *g, const char *name,
                  const struct st_graph_nvme_opts *opts, struct st_err *err)
{
    bool shared = opts->subsystem;
    unsigned turn = g->ncontrollers;
    struct graph_subsystem *s = NULL;
    struct graph_controller *c;
    int rc = graph_check_name(g, name, err);

    if (rc == 0)
        rc =
            subsystem_join(g, shared ? opts->subsystem : name, shared, &s, err);
    if (rc < 0)
        return rc;
    c = calloc(1, sizeof(*c));
    if (!c || !(c->name = strdup(name))) {
        free(c);
        subsystem_leave(s);
        return st_err_set(err, ENOMEM, "%s: no memory", name);
    }
    c->graph = g;
    c->subsystem = s;
    c->fd = c->journal_fd = -1;
    c->nn = opts->namespaces ? opts->namespaces : ST_NVME_NAMESPACES;
    c->mapped = opts->mapped;
    c->write_multiple = opts->write_multiple;
    c->loop = g->opts.loops[turn % g->opts.nloops];
    c->pub = (struct st_graph_controller){.name = c->name,
                                          .kind = "nvme",
                                          .subsystem = s->name,
                                          .cntlid = free_cntlid(g, s)};
    c->gmem = st_gmem_create(c->loop);
    rc = c->gmem ? make_nvme(c, opts, turn, err)
                 : st_err_set(err, ENOMEM, "%s: no memory", name);
    if (rc == 0 && g->opts.keep) {
        c->journal_fd = st_vfio_user_journal(g->opts.keep, name, err);
        rc = c->journal_fd < 0 ? c->journal_fd : 0;
    }
    if (rc < 0) {
        controller_free(c);
        return rc;
    }
    g->ncontrollers++;
    st_list_append(&g->controllers, &c->link);
    return 0;
}

bool
graph_free_controllers(struct st_graph *g)
{
    st_list_for(c, next, &g->controllers, struct graph_controller, link)
    {
        if (!c->over)
            return false;
    }
    st_machine_destroy(g->machine.machine);
    g->machine.machine = NULL;
    st_list_for(n, next, &g->namespaces, struct graph_namespace, link)
    {
        if (!n->leaving)
            graph_namespace_free(n);
    }
    st_list_for(c, next, &g->controllers, struct graph_controller, link)
    {
        st_list_remove(&c->link);
        controller_free(c);
    }
    return true;
}

/* ---- A door is made ---- */

static void
came_back(struct st_task *t)
{
    st_container(t, struct graph_controller, back)->back_there = true;
}

/* On the loop. */
static void
make_door(struct st_task *t)
{
    struct graph_controller *c =
        st_container(t, struct graph_controller, there);
    struct st_vfio_user_opts o = {.loop = c->loop,
                                  .pci = st_nvme_pci(c->pub.nvme),
                                  .gmem = c->gmem,
                                  .log =
                                      st_domain_log(c->graph->control->domain),
                                  .name = c->name,
                                  .write_multiple = c->write_multiple,
                                  .keep = c->graph->opts.keep,
                                  .journal_fd = c->journal_fd};

    /* Half of many writes cannot be done again: doorbells would go back. */
    if (o.keep)
        o.write_multiple = false;
    o.sparse.fd = st_nvme_doorbells(c->pub.nvme, &o.sparse.size);
    if (o.sparse.fd < 0)
        o.sparse.size = 0;
    o.sparse.offset = o.sparse.fd_offset = o.sparse.size ? ST_GMEM_PAGE : 0;
    c->rc = st_vfio_user_create(&o, c->fd, &c->door, &c->err);
    st_post(c->graph->control, &c->back);
}

/* Let RUN, on C's loop, do its part; wait for it. */
static void
at_loop(struct graph_controller *c, void (*run)(struct st_task *t))
{
    c->back_there = false;
    c->there.run = run;
    c->back.run = came_back;
    st_post(c->loop, &c->there);
    st_loop_wait(c->graph->control, &c->back_there);
}

/* On the loop. */
static void
door_goes_on(struct st_task *t)
{
    struct graph_controller *c =
        st_container(t, struct graph_controller, there);

    st_vfio_user_go(c->door);
    st_post(c->graph->control, &c->back);
}

static void
nvme_resumed(struct st_nvme_call *call, int rc)
{
    struct graph_controller *c =
        st_container(call, struct graph_controller, call);

    c->rc = rc;
    c->back_there = true;
}

/* A machine that was connected to a process before this one goes on, or there
 * is none any more. */
static void
resume(struct graph_controller *c)
{
    if (st_vfio_user_resumes(c->door) && st_nvme_resumes(c->pub.nvme)) {
        c->back_there = false;
        c->call.done = nvme_resumed;
        st_nvme_resume(c->pub.nvme, &c->call);
        st_loop_wait(c->graph->control, &c->back_there);
        if (c->rc < 0)
            st_warn(st_domain_log(c->graph->control->domain),
                    "%s: the controller cannot go on: %s; the guest has to "
                    "reset it",
                    c->name, c->call.err.text);
    }
    st_nvme_forget(c->pub.nvme);
    at_loop(c, door_goes_on);
}

int
st_graph_vfio_user(struct st_graph *g, const char *controller, int fd,
                   struct st_err *err)
{
    struct graph_controller *c = graph_find_controller(g, controller);

    if (!c || c->door || c->pub.plugged) {
        close(fd);
        return c ? st_err_set(err, EEXIST, "controller '%s' has a door already",
                              controller)
                 : no_controller(controller, err);
    }
    c->fd = fd;
    at_loop(c, make_door);
    if (c->rc < 0) {
        *err = c->err;
        st_err_prefix(err, "%s", controller);
        return c->rc;
    }
    c->pub.vfio_user = c->door;
    if (g->opts.keep)
        resume(c);
    return 0;
}

/* ---- The end ---- */

static void
controller_over(struct graph_controller *c, int rc)
{
    st_timer_stop(c->graph->control, &c->timer);
    if (rc == 0)
        c->over = true;
    graph_door_stopped(c->graph, rc);
}

static void
nvme_stopped(struct st_nvme_call *call, int rc)
{
    controller_over(st_container(call, struct graph_controller, call), rc);
}

static void
stop_nvme(struct graph_controller *c)
{
    c->call.done = nvme_stopped;
    st_nvme_stop(c->pub.nvme, GRACE, &c->call);
}

static void
door_destroyed(struct st_task *t)
{
    stop_nvme(st_container(t, struct graph_controller, back));
}

/* On the loop. */
static void
destroy_door(struct st_task *t)
{
    struct graph_controller *c =
        st_container(t, struct graph_controller, there);

    st_vfio_user_destroy(c->door);
    c->door = NULL;
    c->back.run = door_destroyed;
    st_post(c->graph->control, &c->back);
}

static void
door_is_left(struct st_task *t)
{
    struct graph_controller *c = st_container(t, struct graph_controller, back);

    if (!c->pub.vfio_user)
        return; /* given up before */
    c->pub.vfio_user = NULL;
    st_timer_stop(c->graph->control, &c->timer);
    c->there.run = destroy_door;
    st_post(c->loop, &c->there);
}

/* On the loop. */
static void
door_stopped(void *arg)
{
    struct graph_controller *c = arg;

    c->back.run = door_is_left;
    st_post(c->graph->control, &c->back);
}

/* On the loop. */
static void
stop_door(struct st_task *t)
{
    struct graph_controller *c =
        st_container(t, struct graph_controller, there);

    st_vfio_user_stop(c->door, door_stopped, c);
}

/* On the loop; before destroy_door, for it was posted before. */
static void
cut_door(struct st_task *t)
{
    st_vfio_user_cut(st_container(t, struct graph_controller, cut)->door);
}

static void
give_door_up(struct st_timer *t)
{
    struct graph_controller *c =
        st_container(t, struct graph_controller, timer);

    c->pub.vfio_user = NULL;
    controller_over(c, -ETIMEDOUT);
}

static void
controller_cut(struct graph_controller *c)
{
    struct st_loop *home = c->graph->control;

    if (!c->stopping || c->cutting || !c->pub.vfio_user)
        return;
    c->cutting = true;
    c->cut.run = cut_door;
    st_post(c->loop, &c->cut);
    c->timer.fire = give_door_up;
    st_timer_set(home, &c->timer, home->now + GRACE);
}

static void
patience_ends(struct st_timer *t)
{
    controller_cut(st_container(t, struct graph_controller, timer));
}

void
graph_stop_controllers(struct st_graph *g)
{
    st_list_for(c, next, &g->controllers, struct graph_controller, link)
    {
        g->pending++;
        c->stopping = true;
        if (!c->door) {
            stop_nvme(c);
            continue;
        }
        c->there.run = stop_door;
        st_post(c->loop, &c->there);
        c->timer.fire = patience_ends;
        if (g->timeout_ns < UINT64_MAX - g->control->now)
            st_timer_set(g->control, &c->timer,
                         g->control->now + g->timeout_ns);
    }
}

void
graph_cut_controllers(struct st_graph *g)
{
    st_list_for(c, next, &g->controllers, struct graph_controller, link)
    {
        controller_cut(c);
    }
}

/* ---- What they show ---- */

static void
inspect_door(struct st_vfio_user *door, struct st_inspect *v)
{
    struct st_vfio_user_stats s;

    st_vfio_user_stats(door, &s);
    v->enter(v, "vfio-user");
    v->u64(v, "connected", s.connected);
    v->u64(v, "peer_pid", (uint64_t)s.peer_pid);
    v->u64(v, "clients_total", s.clients_total);
    v->u64(v, "messages", s.messages);
    v->u64(v, "posted", s.posted);
    v->u64(v, "reads", s.reads);
    v->u64(v, "writes", s.writes);
    v->u64(v, "wakeups", s.wakeups);
    v->u64(v, "bytes_in", s.bytes_in);
    v->u64(v, "bytes_out", s.bytes_out);
    v->u64(v, "maps", s.maps);
    v->u64(v, "unmaps", s.unmaps);
    v->u64(v, "maps_unreachable", s.maps_unreachable);
    v->u64(v, "irqs", s.irqs);
    v->u64(v, "irqs_pending", s.irqs_pending);
    v->u64(v, "late", s.late);
    v->u64(v, "errors", s.errors);
    v->u64(v, "protocol_errors", s.protocol_errors);
    v->u64(v, "faults", s.faults);
    v->leave(v);
}

void
st_graph_controller_inspect(const struct st_graph_controller *pub,
                            struct st_inspect *v)
{
    const struct graph_controller *c = (const struct graph_controller *)pub;
    struct st_gmem_stats memory;
    char guid[37];

    v->text(v, "kind", pub->kind);
    v->text(v, "subsystem_name", pub->subsystem);
    v->text(v, "subsystem_guid", st_guid_format(&c->subsystem->guid, guid));
    if (pub->vfio_user)
        inspect_door(pub->vfio_user, v);
    if (pub->plugged)
        graph_inspect_plug(c, v);
    st_gmem_stats(c->gmem, &memory);
    v->enter(v, "memory");
    v->u64(v, "maps", memory.maps);
    v->u64(v, "bytes", memory.bytes);
    v->u64(v, "refused", memory.refused);
    v->u64(v, "unreachable", memory.unreachable);
    v->leave(v);
    st_nvme_inspect(pub->nvme, v);
}
