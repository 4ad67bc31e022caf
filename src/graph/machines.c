/* SPDX-License-Identifier: MIT
 *
 * The machine of this process: made, its verbs, its end.
 *
 * It stops before its controllers do: a guest whose disk is gone would still
 * run. What it has not flushed is lost as by the reset button; what the disks
 * have got is flushed by the stop that goes on behind it.
 */
#include <errno.h>
#include <string.h>

#include "graph_private.h"

/* ---- Made ---- */

int
st_graph_add_machine(struct st_graph *g, const struct st_machine_opts *opts,
                     struct st_err *err)
{
    struct st_machine_opts o = *opts;

    if (g->machine.machine)
        return st_err_set(err, EEXIST, "there is a machine already");
    o.home = g->control;
    o.log = st_domain_log(g->control->domain);
    return st_machine_create(&o, &g->machine.machine, err);
}

int
st_graph_plug(struct st_graph *g, const char *controller, unsigned slot,
              struct st_err *err)
{
    struct graph_controller *c = graph_find_controller(g, controller);
    struct st_machine_pci f = {.slot = slot};
    int rc;

    if (!c)
        return st_err_set(err, ENOENT, "no controller '%s'", controller);
    if (c->door || c->pub.plugged)
        return st_err_set(err, EEXIST, "controller '%s' has a door already",
                          controller);
    if (!g->machine.machine)
        return st_err_set(err, ENOENT, "there is no machine");
    f.name = c->name;
    f.pci = st_nvme_pci(c->pub.nvme);
    f.gmem = c->gmem;
    rc = st_machine_add_pci(g->machine.machine, &f, NULL, err);
    c->pub.plugged = rc == 0;
    return rc;
}

int
st_graph_boot_from(struct st_graph *g, const char *controller,
                   struct st_err *err)
{
    return st_machine_boot_from(g->machine.machine, controller, err);
}

int
st_graph_start_machine(struct st_graph *g, struct st_err *err)
{
    return st_machine_start(g->machine.machine, err);
}

struct st_machine *
st_graph_machine(const struct st_graph *g)
{
    return g->machine.machine;
}

/* ---- Verbs ---- */

static void
verb_done(struct st_machine_call *call, int rc)
{
    struct graph_op *op = st_container(call, struct graph_op, machine_call);

    if (rc == -EBUSY)
        st_err_set(&op->err, EBUSY, "the machine is not in a state for that");
    else if (rc == -ENOTSUP)
        st_err_set(&op->err, ENOTSUP,
                   "the machine was restored without its kernel");
    else if (rc == -ESHUTDOWN)
        st_err_set(&op->err, ESHUTDOWN, "the machine is being stopped");
    graph_op_end(op, rc);
}

static void
verb_start(struct st_graph_edit *e,
           void (*call)(struct st_machine *m, struct st_machine_call *c))
{
    struct st_machine *m = e->graph->machine.machine;
    struct graph_op *op;

    if (!m) {
        graph_fail(e, ENOENT, "there is no machine here");
        return;
    }
    op = graph_op_new(e, NULL, GRAPH_GOES_ON);
    if (!op)
        return;
    op->machine_call.done = verb_done;
    call(m, &op->machine_call);
}

void
graph_pause_machine(struct st_graph_edit *e)
{
    verb_start(e, st_machine_pause);
}

void
graph_resume_machine(struct st_graph_edit *e)
{
    verb_start(e, st_machine_resume);
}

void
graph_reset_machine(struct st_graph_edit *e)
{
    verb_start(e, st_machine_reset);
}

/* ---- Save ----
 *
 *   frozen -> its disks flushed, so that they are what the file goes with
 *          -> written
 */

static void
save_written(struct st_machine_call *call, int rc)
{
    struct graph_op *op = st_container(call, struct graph_op, machine_call);

    op->err = call->err;
    graph_op_end(op, rc);
}

/* One thing less to wait for before the file. */
static void
save_step(struct graph_op *op)
{
    if (--op->left)
        return;
    if (op->rc < 0) {
        graph_op_end(op, op->rc);
        return;
    }
    op->machine_call.done = save_written;
    st_machine_save(op->graph->machine.machine, op->text[0], &op->machine_call);
}

static void
save_flushed(void *arg, int rc)
{
    struct graph_op *op = arg;

    if (rc < 0 && op->rc == 0)
        op->rc = st_err_set(&op->err, -rc,
                            "the machine is not saved: a disk cannot be "
                            "flushed");
    save_step(op);
}

static void
save_frozen(struct st_machine_call *call, int rc)
{
    struct graph_op *op = st_container(call, struct graph_op, machine_call);

    if (rc < 0) {
        op->err = call->err;
        graph_op_end(op, rc);
        return;
    }
    op->left = 1;
    st_list_for(d, next, &op->graph->disks, struct graph_disk, link)
    {
        if (d->pub.leaving)
            continue;
        op->left++;
        rc = graph_flush(op->graph, d, save_flushed, op);
        if (rc)
            save_flushed(op, rc < 0 ? rc : 0);
    }
    save_step(op);
}

void
graph_save_machine(struct st_graph_edit *e)
{
    struct st_machine *m = e->graph->machine.machine;
    struct graph_op *op;

    if (!m) {
        graph_fail(e, ENOENT, "there is no machine here");
        return;
    }
    st_list_for(d, next, &e->graph->disks, struct graph_disk, link)
    {
        if (d->pub.leaving || (!d->pub.paused && !graph_disk_stopped(d)))
            continue;
        graph_fail(e, EBUSY,
                   "%s: a machine with a disk that is %s cannot be "
                   "saved",
                   d->name, d->pub.paused ? "paused" : "stopped");
        return;
    }
    op = graph_op_new(e, NULL, GRAPH_GOES_ON);
    if (!op)
        return;
    op->machine_call.done = save_frozen;
    /* A little earlier than the edit: the controller's sentence is better. */
    st_machine_freeze(m, graph_left_ns(e) / 10 * 9, &op->machine_call);
}

/* ---- The end ---- */

static void
machine_stopped(struct st_machine_call *call, int rc)
{
    struct graph_machine *m = st_container(call, struct graph_machine, stop);
    struct st_graph *g = st_container(m, struct st_graph, machine);

    m->stopped = true;
    graph_stop_controllers(g);
    if (g->cutting)
        graph_cut_controllers(g);
    graph_door_stopped(g, rc);
}

void
graph_stop_machine(struct st_graph *g)
{
    if (!g->machine.machine) {
        graph_stop_controllers(g);
        return;
    }
    g->pending++;
    g->machine.stop.done = machine_stopped;
    st_machine_stop(g->machine.machine, &g->machine.stop);
}

/* ---- What it shows ---- */

void
graph_inspect_plug(const struct graph_controller *c, struct st_inspect *v)
{
    struct st_machine_pci_stats s;

    if (!c->graph->machine.machine ||
        !st_machine_pci_stats(c->graph->machine.machine,
                              st_nvme_pci(c->pub.nvme), &s))
        return;
    v->enter(v, "machine");
    v->u64(v, "slot", s.slot);
    v->u64(v, "exits", s.accesses);
    v->u64(v, "irqfd_writes", s.sent);
    v->u64(v, "slow_interrupts", s.slow);
    v->u64(v, "intx_changes", s.lines);
    v->leave(v);
}

static void
inspect_region(void *arg, const char *name, uint64_t start, uint64_t size,
               uint64_t accesses)
{
    struct st_inspect *v = arg;
    char dir[32];

    snprintf(dir, sizeof(dir), "0x%jx", (uintmax_t)start);
    v->enter(v, dir);
    v->text(v, "device", name);
    v->u64(v, "size", size);
    v->u64(v, "accesses", accesses);
    v->leave(v);
}

static void
inspect_cpus(struct st_machine *m, unsigned n, struct st_inspect *v)
{
    v->enter(v, "vcpus");
    for (unsigned i = 0; i < n; i++) {
        char number[16];
        const char *name;
        uint64_t count;

        snprintf(number, sizeof(number), "%u", i);
        v->enter(v, number);
        for (unsigned k = 0; (name = st_machine_exit(m, i, k, &count)); k++)
            v->u64(v, name, count);
        v->leave(v);
    }
    v->leave(v);
}

void
st_graph_machine_inspect(struct st_graph *g, struct st_inspect *v)
{
    struct st_machine *m = g->machine.machine;
    struct st_machine_stats s;

    if (!m)
        return;
    st_machine_stats(m, &s);
    v->text(v, "state", s.state_name);
    v->u64(v, "memory", s.memory);
    v->u64(v, "resets", s.resets);
    v->u64(v, "pauses", s.pauses);
    v->u64(v, "panics", s.panics);
    v->u64(v, "interrupt_routings", s.routed);
    inspect_cpus(m, s.cpus, v);
    v->enter(v, "ports");
    st_machine_regions(m, true, inspect_region, v);
    v->leave(v);
    v->enter(v, "mmio");
    st_machine_regions(m, false, inspect_region, v);
    v->leave(v);
}
