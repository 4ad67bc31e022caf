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
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "size.h"

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
    _Atomic unsigned members;       /* of refs, without keepers */
    _Atomic int64_t burst;          /* ns */
    _Atomic uint64_t rate[BUCKETS]; /* tokens a second; 0: no limit */
    _Atomic int64_t empty_at[BUCKETS];
    _Atomic unsigned edition[BUCKETS]; /* counts the limits that were set */
    pthread_mutex_t lock;              /* guards chans */
    struct st_list chans;              /* throttle_chan.link */
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
    int64_t cost[BUCKETS];    /* ns that these took of the buckets, */
    unsigned of[BUCKETS];     /* of this edition */
    struct st_list link;
    struct st_task again; /* the limits have changed; on its way while posted */
    _Atomic bool posted;
    bool closed; /* the task frees us */
};

static uint64_t
rate_of(const struct buckets *b, unsigned i)
{
    return atomic_load_explicit(&b->rate[i], memory_order_relaxed);
}

/* Tokens that a loop takes at once. */
static uint64_t
quantum(uint64_t rate)
{
    return st_max(rate / (SECOND / QUANTUM), 1);
}

static int64_t
tokens_ns(uint64_t rate, uint64_t n)
{
    unsigned __int128 ns = ((unsigned __int128)n * SECOND + rate - 1) / rate;

    return ns < LONGEST ? (int64_t)ns : LONGEST;
}

/* Take *N tokens of bucket I, filled at RATE, or a whole quantum if it is
 * there; *N becomes what was taken, *COST its ns. Gives the time from when on
 * they may be spent. */
static int64_t
take(struct buckets *b, unsigned i, uint64_t rate, int64_t now, uint64_t *n,
     int64_t *cost)
{
    int64_t old = atomic_load(&b->empty_at[i]), from;
    int64_t burst = atomic_load(&b->burst);
    uint64_t most = st_max(*n, quantum(rate)), got;

    do {
        from = old > now - burst ? old : now - burst;
        got = most;
        *cost = tokens_ns(rate, most);
        if (*cost > now - from) {
            got = *n;
            *cost = tokens_ns(rate, *n);
        }
    } while (
        !atomic_compare_exchange_weak(&b->empty_at[i], &old, from + *cost));
    *n = got;
    return from + (*cost < burst ? *cost : burst);
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
    uint64_t due[BUCKETS]; /* the limits may change meanwhile */

    for (unsigned i = 0; i < BUCKETS; i++) {
        due[i] = rate_of(c->b, i) ? price(req, i) : 0;
        if (c->credit[i] < due[i])
            return false;
    }
    for (unsigned i = 0; i < BUCKETS; i++)
        c->credit[i] -= due[i];
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
    const uint64_t rate[BUCKETS] = {rate_of(b, OPS), rate_of(b, BYTES)};

    st_list_for(req, next, &c->queue, struct st_req, link)
    {
        for (unsigned i = 0; i < BUCKETS; i++)
            want[i] += price(req, i);
        if ((rate[OPS] && want[OPS] >= quantum(rate[OPS])) ||
            (rate[BYTES] && want[BYTES] >= quantum(rate[BYTES])))
            break;
    }
    for (unsigned i = 0; i < BUCKETS; i++) {
        int64_t at;

        if (!rate[i] || want[i] <= c->credit[i])
            continue;
        c->coming[i] = want[i] - c->credit[i];
        c->of[i] = atomic_load(&b->edition[i]);
        at = take(b, i, rate[i], now, &c->coming[i], &c->cost[i]);
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

/* Give back what was asked for and has not come, and ask anew. */
static void
ask_again(struct throttle_chan *c)
{
    st_timer_stop(c->base.loop, &c->timer);
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (c->coming[i] && c->of[i] == atomic_load(&c->b->edition[i]))
            atomic_fetch_sub(&c->b->empty_at[i], c->cost[i]);
        c->coming[i] = 0;
    }
    pump(c);
}

/* What was asked for may have been for REQ: nobody shall wait for a request
 * that is gone. */
static void
throttle_cancel(struct st_chan *chan, struct st_req *req)
{
    st_list_remove(&req->link);
    st_finish(chan->loop, req, ST_ABORTED);
    ask_again((struct throttle_chan *)chan);
}

/* The limits have changed: who waits shall not wait by the old ones. */
static void
throttle_again(struct st_task *t)
{
    struct throttle_chan *c = st_container(t, struct throttle_chan, again);

    if (c->closed) {
        free(c);
        return;
    }
    atomic_store(&c->posted, false);
    for (unsigned i = 0; i < BUCKETS; i++)
        c->credit[i] = st_min(c->credit[i], quantum(rate_of(c->b, i)));
    ask_again(c);
}

static void
throttle_close_chan(struct st_chan *chan)
{
    struct throttle_chan *c = (struct throttle_chan *)chan;

    assert(!c->timer.slot);
    pthread_mutex_lock(&c->b->lock);
    st_list_remove(&c->link);
    pthread_mutex_unlock(&c->b->lock);
    st_chan_close(c->inner);
    c->closed = true;
    if (!atomic_load(&c->posted))
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
    c->again.run = throttle_again;
    c->b = ((struct throttle *)n)->buckets;
    pthread_mutex_lock(&c->b->lock);
    st_list_append(&c->b->chans, &c->link);
    pthread_mutex_unlock(&c->b->lock);
    *out = &c->base;
    return 0;
}

static void
throttle_inspect(struct st_node *n, struct st_inspect *v)
{
    const struct buckets *b = ((struct throttle *)n)->buckets;

    v->u64(v, "iops", rate_of(b, OPS));
    v->u64(v, "bytes", rate_of(b, BYTES));
    v->u64(v, "burst_ns", (uint64_t)atomic_load(&b->burst));
    v->u64(v, "group_members", b->members);
}

/* For the whole group. The bucket starts anew, full: what was taken out at
 * another rate means nothing now. */
static int
throttle_set(struct st_node *n, const char *name, const char *value,
             struct st_err *err)
{
    struct buckets *b = ((struct throttle *)n)->buckets;
    unsigned i = strcmp(name, "iops") == 0 ? OPS : BYTES;
    bool burst = strcmp(name, "burst_ns") == 0;
    uint64_t number;
    int rc;

    if (strcmp(name, "group_members") == 0)
        return st_err_set(err, EACCES, "%s cannot be set", name);
    if (i == BYTES && !burst && strcmp(name, "bytes") != 0)
        return st_err_set(err, ENOENT, "%s has no value '%.80s'", n->label,
                          name);
    rc = st_number_parse(name, value, burst, burst ? LONGEST : UINT64_MAX,
                         &number, err);
    if (rc < 0)
        return rc;
    if (burst) {
        atomic_store(&b->burst, (int64_t)number);
    } else {
        atomic_fetch_add(&b->edition[i], 1);
        atomic_store(&b->rate[i], number);
        atomic_store(&b->empty_at[i], (int64_t)n->home->now - b->burst);
    }
    pthread_mutex_lock(&b->lock);
    st_list_for(c, next, &b->chans, struct throttle_chan, link)
    {
        if (!atomic_exchange(&c->posted, true))
            st_post(c->base.loop, &c->again);
    }
    pthread_mutex_unlock(&b->lock);
    return 0;
}

static void
throttle_close(struct st_node *n)
{
    struct throttle *t = (struct throttle *)n;

    if (!t->keeper)
        atomic_fetch_sub(&t->buckets->members, 1);
    if (atomic_fetch_sub(&t->buckets->refs, 1) == 1) {
        pthread_mutex_destroy(&t->buckets->lock);
        free(t->buckets);
    }
    free(t);
}

static const struct st_node_ops throttle_ops = {
    .name = "throttle",
    .transparent = true,
    .open_chan = throttle_open_chan,
    .close_chan = throttle_close_chan,
    .cancel = throttle_cancel,
    .inspect = throttle_inspect,
    .set = throttle_set,
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
    pthread_mutex_init(&b->lock, NULL);
    st_list_init(&b->chans);
    b->burst = burst_of(o);
    for (unsigned i = 0; i < BUCKETS; i++) {
        b->rate[i] = rate[i];
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
