/* SPDX-License-Identifier: MIT
 *
 * Delay; see delay.h.
 *
 *   submit -> held[op], earliest first -> timer -> the child
 *
 * Requests of one operation wait equally long, so that a new one goes to the
 * end of its list, and one timer a channel serves all lists. A delay that was
 * made shorter meanwhile costs a walk from the end.
 */
#include "delay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "size.h"

struct delay {
    struct st_node base; /* first */
    _Atomic uint64_t ns[ST_OP_COUNT];
};

struct delay_chan {
    struct st_chan base;              /* first */
    struct st_chan *inner;            /* owned */
    struct st_timer timer;            /* for the earliest of all held */
    struct st_list held[ST_OP_COUNT]; /* st_req.link, by due time */
};

static struct st_req *
delay_req(struct st_list *link)
{
    return st_container(link, struct st_req, link);
}

/* When a held request may go on: in our frame, the one on top. */
static uint64_t
delay_due(struct st_list *link)
{
    return delay_req(link)->top[-1].u[0];
}

static void
delay_done(struct st_chan *chan, struct st_req *req)
{
    (void)chan;
    st_complete(req);
}

static void
delay_submit(struct st_chan *chan, struct st_req *req)
{
    struct delay_chan *c = (struct delay_chan *)chan;
    struct delay *d = (struct delay *)chan->node;
    uint64_t due = atomic_load_explicit(&d->ns[req->op], memory_order_relaxed);
    struct st_list *held = &c->held[req->op], *at;

    if (!due) {
        st_submit(c->inner, req);
        return;
    }
    if (__builtin_add_overflow(due, chan->loop->now, &due))
        due = UINT64_MAX;
    st_push(req, delay_done, chan)->u[0] = due;
    for (at = held; at->prev != held && delay_due(at->prev) > due;)
        at = at->prev;
    st_list_append(at, &req->link);
    if (!c->timer.slot || due < c->timer.at)
        st_timer_set(chan->loop, &c->timer, due);
}

static void
delay_fire(struct st_timer *t)
{
    struct delay_chan *c = st_container(t, struct delay_chan, timer);
    uint64_t next = UINT64_MAX;
    bool more = false;

    for (unsigned op = 0; op < ST_OP_COUNT; op++) {
        struct st_list *e;

        while ((e = st_list_first(&c->held[op])) &&
               delay_due(e) <= c->base.loop->now) {
            st_list_remove(e);
            st_submit(c->inner, delay_req(e));
        }
        if (e) {
            next = st_min(next, delay_due(e));
            more = true;
        }
    }
    if (more)
        st_timer_set(c->base.loop, t, next);
}

/* The timer may then fire for nobody, which is harmless. */
static void
delay_cancel(struct st_chan *chan, struct st_req *req)
{
    st_list_remove(&req->link);
    st_finish(chan->loop, req, ST_ABORTED);
}

static void
delay_close_chan(struct st_chan *chan)
{
    struct delay_chan *c = (struct delay_chan *)chan;

    st_timer_stop(chan->loop, &c->timer);
    st_chan_close(c->inner);
    free(c);
}

static int
delay_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct delay_chan *c = calloc(1, sizeof(*c));
    int rc = c ? st_chan_open(n->child[0], l, &c->inner) : -ENOMEM;

    if (rc) {
        free(c);
        return rc;
    }
    st_chan_init(&c->base, n, l, delay_submit);
    c->timer.fire = delay_fire;
    for (unsigned op = 0; op < ST_OP_COUNT; op++)
        st_list_init(&c->held[op]);
    *out = &c->base;
    return 0;
}

/* The values, and the operations that each is for; the first one shows it. */
static const struct {
    const char *name;
    enum st_op op[3];
    unsigned n;
} values[] = {
    {"read_ns", {ST_OP_READ}, 1},
    {"write_ns", {ST_OP_WRITE, ST_OP_WRITE_ZEROES, ST_OP_COMPARE_AND_WRITE}, 3},
    {"flush_ns", {ST_OP_FLUSH}, 1},
};
enum { VALUES = sizeof(values) / sizeof(values[0]) };

static void
delay_set_value(struct st_node *n, unsigned i, uint64_t ns)
{
    for (unsigned k = 0; k < values[i].n; k++)
        st_delay_set(n, values[i].op[k], ns);
}

static void
delay_inspect(struct st_node *n, struct st_inspect *v)
{
    struct delay *d = (struct delay *)n;

    for (unsigned i = 0; i < VALUES; i++)
        v->u64(v, values[i].name, atomic_load(&d->ns[values[i].op[0]]));
}

static int
delay_set(struct st_node *n, const char *name, const char *value,
          struct st_err *err)
{
    for (unsigned i = 0; i < VALUES; i++) {
        uint64_t ns;
        int rc;

        if (strcmp(name, values[i].name) != 0)
            continue;
        rc = st_number_parse(name, value, 0, UINT64_MAX, &ns, err);
        if (rc == 0)
            delay_set_value(n, i, ns);
        return rc;
    }
    return st_err_set(err, ENOENT, "%s has no value '%.80s'", n->label, name);
}

static void
delay_close(struct st_node *n)
{
    free(n);
}

static const struct st_node_ops delay_ops = {
    .name = "delay",
    .transparent = true,
    .open_chan = delay_open_chan,
    .close_chan = delay_close_chan,
    .cancel = delay_cancel,
    .inspect = delay_inspect,
    .set = delay_set,
    .close = delay_close,
};

void
st_delay_set(struct st_node *n, enum st_op op, uint64_t ns)
{
    atomic_store_explicit(&((struct delay *)n)->ns[op], ns,
                          memory_order_relaxed);
}

int
st_delay_create(struct st_loop *home, const struct st_delay_opts *o,
                const char *label, struct st_node **out, struct st_err *err)
{
    struct delay *d = calloc(1, sizeof(*d));

    if (!d)
        return st_err_set(err, ENOMEM, "%s: no memory", label);
    st_node_init(&d->base, &delay_ops, home, label);
    delay_set_value(&d->base, 0, o->read_ns);
    delay_set_value(&d->base, 1, o->write_ns);
    delay_set_value(&d->base, 2, o->flush_ns);
    *out = &d->base;
    return 0;
}
