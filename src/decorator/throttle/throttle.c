/* SPDX-License-Identifier: MIT
 *
 * Throttle; see throttle.h.
 *
 * A bucket is one number: the time at which it was, or will be, empty. Taking
 * moves it on by what the tokens cost:
 *
 *        empty_at        now
 *   ---------|------------|--------->      holds (now - empty_at) * rate
 *            '--burst_ns--'                and never more than burst_ns
 *
 * Whoever takes moves it at once and waits until the time that this says, so
 * that those who ask later wait longer: a queue without a list. The fast path
 * spends what its channel holds already and touches nothing shared.
 */
#include "throttle.h"

#include <errno.h>
#include <stdlib.h>

enum { OPS, BYTES, BUCKETS };

#define SECOND    INT64_C(1000000000)
#define BURST     (SECOND / 10)
#define QUANTUM   (SECOND / 500)
#define LONGEST   (INT64_C(1) << 50) /* ns that one take may cost */
#define THROTTLED (ST_BIT(ST_OP_FLUSH) | ST_BIT(ST_OP_READ) | ST_OPS_MODIFY)
#define MOVES_BYTES                                                            \
    (ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_COMPARE_AND_WRITE))

struct buckets {
    _Atomic unsigned refs;
    _Atomic unsigned members;  /* of refs, without keepers */
    int64_t burst;             /* ns */
    uint64_t rate[BUCKETS];    /* tokens a second; 0: no limit */
    uint64_t quantum[BUCKETS]; /* tokens that a loop takes at once */
    _Atomic int64_t empty_at[BUCKETS];
};

struct throttle {
    struct st_node base;     /* first */
    struct buckets *buckets; /* owned with others */
    bool keeper;
};

struct throttle_chan {
    struct st_chan base;      /* first */
    struct st_chan *inner;    /* owned */
    struct buckets *b;        /* borrowed from the node */
    struct st_list queue;     /* st_req.link */
    struct st_timer timer;    /* set: `coming` has been asked for */
    uint64_t credit[BUCKETS]; /* tokens to spend */
    uint64_t coming[BUCKETS]; /* tokens when the timer fires */
};

static int64_t
tokens_ns(const struct buckets *b, unsigned i, uint64_t n)
{
    unsigned __int128 ns =
        ((unsigned __int128)n * SECOND + b->rate[i] - 1) / b->rate[i];

    return ns < LONGEST ? (int64_t)ns : LONGEST;
}

/* Take *N tokens of bucket I, or a whole quantum if it is there; *N becomes
 * what was taken. Gives the time from when on they may be spent. */
static int64_t
take(struct buckets *b, unsigned i, int64_t now, uint64_t *n)
{
    int64_t old = atomic_load(&b->empty_at[i]), from, cost;
    uint64_t most = st_max(*n, b->quantum[i]), got;

    do {
        from = old > now - b->burst ? old : now - b->burst;
        got = most;
        cost = tokens_ns(b, i, most);
        if (cost > now - from) {
            got = *n;
            cost = tokens_ns(b, i, *n);
        }
    } while (!atomic_compare_exchange_weak(&b->empty_at[i], &old, from + cost));
    *n = got;
    return from + (cost < b->burst ? cost : b->burst);
}

/* What REQ wants of bucket I. */
static uint64_t
price(const struct st_req *req, unsigned i)
{
    return i == OPS ? 1 : ST_BIT(req->op) & MOVES_BYTES ? req->len : 0;
}

/* Pay for REQ out of the channel's own pocket, if that holds enough. */
static bool
pay(struct throttle_chan *c, const struct st_req *req)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        if (c->b->rate[i] && c->credit[i] < price(req, i))
            return false;
    for (unsigned i = 0; i < BUCKETS; i++)
        if (c->b->rate[i])
            c->credit[i] -= price(req, i);
    return true;
}

static void
collect(struct throttle_chan *c)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        c->credit[i] += c->coming[i];
        c->coming[i] = 0;
    }
}

/* Ask for the first requests of the queue, up to a quantum. */
static void
ask(struct throttle_chan *c)
{
    struct buckets *b = c->b;
    int64_t now = (int64_t)c->base.loop->now, due = now;
    uint64_t want[BUCKETS] = {0};

    st_list_for(req, next, &c->queue, struct st_req, link)
    {
        for (unsigned i = 0; i < BUCKETS; i++)
            want[i] += price(req, i);
        if ((b->rate[OPS] && want[OPS] >= b->quantum[OPS]) ||
            (b->rate[BYTES] && want[BYTES] >= b->quantum[BYTES]))
            break;
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        int64_t at;

        if (!b->rate[i] || want[i] <= c->credit[i])
            continue;
        c->coming[i] = want[i] - c->credit[i];
        at = take(b, i, now, &c->coming[i]);
        due = at > due ? at : due;
    }
    if (due <= now)
        collect(c);
    else
        st_timer_set(c->base.loop, &c->timer, (uint64_t)due);
}

static void
pump(struct throttle_chan *c)
{
    struct st_list *e;

    while (!c->timer.slot && (e = st_list_first(&c->queue))) {
        struct st_req *req = st_container(e, struct st_req, link);

        if (pay(c, req)) {
            st_list_remove(e);
            st_submit(c->inner, req);
        } else {
            ask(c);
        }
    }
}

static void
throttle_submit(struct st_chan *chan, struct st_req *req)
{
    struct throttle_chan *c = (struct throttle_chan *)chan;

    if (!(ST_BIT(req->op) & THROTTLED) ||
        (st_list_empty(&c->queue) && pay(c, req))) {
        st_submit(c->inner, req);
        return;
    }
    st_list_append(&c->queue, &req->link);
    pump(c);
}

static void
throttle_fire(struct st_timer *t)
{
    struct throttle_chan *c = st_container(t, struct throttle_chan, timer);

    collect(c);
    pump(c);
}

/* What was asked for may have been for REQ: give it back and ask anew, so that
 * nobody waits for a request that is gone. */
static void
throttle_cancel(struct st_chan *chan, struct st_req *req)
{
    struct throttle_chan *c = (struct throttle_chan *)chan;

    st_list_remove(&req->link);
    st_finish(chan->loop, req, ST_ABORTED);
    st_timer_stop(chan->loop, &c->timer);
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (c->coming[i])
            atomic_fetch_sub(&c->b->empty_at[i],
                             tokens_ns(c->b, i, c->coming[i]));
        c->coming[i] = 0;
    }
    pump(c);
}

static void
throttle_close_chan(struct st_chan *chan)
{
    struct throttle_chan *c = (struct throttle_chan *)chan;

    assert(!c->timer.slot);
    st_chan_close(c->inner);
    free(c);
}

static int
throttle_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct throttle_chan *c = calloc(1, sizeof(*c));
    int rc = c ? st_chan_open(n->child[0], l, &c->inner) : -ENOMEM;

    if (rc) {
        free(c);
        return rc;
    }
    st_chan_init(&c->base, n, l, throttle_submit);
    st_list_init(&c->queue);
    c->timer.fire = throttle_fire;
    c->b = ((struct throttle *)n)->buckets;
    *out = &c->base;
    return 0;
}

static void
throttle_inspect(struct st_node *n, struct st_inspect *v)
{
    const struct buckets *b = ((struct throttle *)n)->buckets;

    v->u64(v, "iops", b->rate[OPS]);
    v->u64(v, "bytes", b->rate[BYTES]);
    v->u64(v, "burst_ns", (uint64_t)b->burst);
    v->u64(v, "group_members", b->members);
}

static void
throttle_close(struct st_node *n)
{
    struct throttle *t = (struct throttle *)n;

    if (!t->keeper)
        atomic_fetch_sub(&t->buckets->members, 1);
    if (atomic_fetch_sub(&t->buckets->refs, 1) == 1)
        free(t->buckets);
    free(t);
}

static const struct st_node_ops throttle_ops = {
    .name = "throttle",
    .transparent = true,
    .open_chan = throttle_open_chan,
    .close_chan = throttle_close_chan,
    .cancel = throttle_cancel,
    .inspect = throttle_inspect,
    .close = throttle_close,
};

static int64_t
burst_of(const struct st_throttle_opts *o)
{
    return (int64_t)st_min(o->burst_ns ? o->burst_ns : BURST, LONGEST);
}

static struct buckets *
buckets_create(const struct st_throttle_opts *o)
{
    const uint64_t rate[BUCKETS] = {o->iops, o->bytes};
    struct buckets *b = calloc(1, sizeof(*b));

    if (!b)
        return NULL;
    b->burst = burst_of(o);
    for (unsigned i = 0; i < BUCKETS; i++) {
        b->rate[i] = rate[i];
        b->quantum[i] = st_max(rate[i] / (SECOND / QUANTUM), 1);
        b->empty_at[i] = INT64_MIN / 2; /* full */
    }
    return b;
}

unsigned
st_throttle_members(const struct st_node *n)
{
    return atomic_load(&((const struct throttle *)n)->buckets->members);
}

int
st_throttle_create(struct st_loop *home, const struct st_throttle_opts *o,
                   const char *label, struct st_node **out, struct st_err *err)
{
    struct throttle *t;

    if (!o->iops && !o->bytes)
        return st_err_set(err, EINVAL, "%s: limits neither requests nor bytes",
                          label);
    t = calloc(1, sizeof(*t));
    if (t)
        t->buckets = o->group ? ((struct throttle *)o->group)->buckets
                              : buckets_create(o);
    if (!t || !t->buckets) {
        free(t);
        return st_err_set(err, ENOMEM, "%s: no memory", label);
    }
    if (t->buckets->rate[OPS] != o->iops ||
        t->buckets->rate[BYTES] != o->bytes ||
        (o->burst_ns && t->buckets->burst != burst_of(o))) {
        free(t);
        return st_err_set(err, EINVAL, "%s: its group has other limits, %s",
                          label, o->group->label);
    }
    atomic_fetch_add(&t->buckets->refs, 1);
    t->keeper = o->keeper;
    if (!t->keeper)
        atomic_fetch_add(&t->buckets->members, 1);
    st_node_init(&t->base, &throttle_ops, home, label);
    *out = &t->base;
    return 0;
}
