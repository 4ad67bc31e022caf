/* SPDX-License-Identifier: MIT
 *
 * The injector; see inject.h.
 */
#include "inject.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "mem.h"
#include "rand.h"
#include "range.h"

struct rule {
    struct st_list link;
    struct st_inject_rule r;
    uint64_t matches, hits;
};

struct st_inject {
    struct st_seam seam;  /* first */
    struct st_seam *next; /* borrowed */
    pthread_mutex_t lock; /* everything below */
    struct st_list rules, hanging;
    struct st_rand rand;
    uint64_t hits;
    unsigned nhanging, nheld; /* nheld: all that are not passed on yet */
};

/* One I/O that waits for a timer or a release, or runs as a shorter one. */
struct held {
    struct st_list link;
    struct st_inject *in;
    struct st_io *io;
    struct st_loop *loop;
    struct st_timer timer;
    struct st_task task;
    struct st_io part;
    struct iovec iov[];
};

static void
inject_pass(struct st_inject *in, struct st_loop *l, struct st_io *io)
{
    if (in->next)
        in->next->start(in->next, l, io);
    else
        st_io_start_below(l, io);
}

static void
held_free(struct held *h)
{
    pthread_mutex_lock(&h->in->lock);
    h->in->nheld--;
    pthread_mutex_unlock(&h->in->lock);
    free(h);
}

static void
held_pass(struct held *h)
{
    inject_pass(h->in, h->loop, h->io);
    held_free(h);
}

static void
held_fire(struct st_timer *t)
{
    held_pass(st_container(t, struct held, timer));
}

static void
held_released(struct st_task *t)
{
    held_pass(st_container(t, struct held, task));
}

static void
held_part_done(struct st_task *t)
{
    struct st_io *part = st_container(t, struct st_io, task);
    struct held *h = st_container(part, struct held, part);
    struct st_io *io = h->io;

    io->res = part->res;
    held_free(h);
    io->task.run(&io->task);
}

static bool
rule_matches(const struct st_inject_rule *r, const struct st_io *io)
{
    if (r->ops && !(r->ops >> io->op & 1))
        return false;
    if (r->fd >= 0 && r->fd != io->fd)
        return false;
    return !r->len || io->op == ST_IO_FSYNC ||
           st_range_overlap(r->offset, r->len, io->offset, io->len);
}

/* The rule that hits IO now, copied to HIT. Holds the lock. */
static bool
inject_find(struct st_inject *in, const struct st_io *io,
            struct st_inject_rule *hit)
{
    st_list_for(rule, tmp, &in->rules, struct rule, link)
    {
        const struct st_inject_rule *r = &rule->r;

        if (!rule_matches(r, io) || (r->limit && rule->hits == r->limit))
            continue;
        rule->matches++;
        if (r->every ? rule->matches % r->every != 0
                     : st_rand_below(&in->rand, 1000) >= r->chance)
            continue;
        rule->hits++;
        in->hits++;
        *hit = *r;
        return true;
    }
    return false;
}

static void
inject_start(struct st_seam *s, struct st_loop *l, struct st_io *io)
{
    struct st_inject *in = (struct st_inject *)s;
    struct st_inject_rule hit;
    struct held *h = NULL;
    size_t len;
    bool found;

    pthread_mutex_lock(&in->lock);
    found = inject_find(in, io, &hit);
    if (found && hit.what != ST_INJECT_ERROR) {
        h = calloc(1, sizeof(*h) + io->niov * sizeof(struct iovec));
        if (!h)
            abort(); /* a fault that does not happen makes a test lie */
        h->in = in;
        h->io = io;
        h->loop = l;
        in->nheld++;
        if (hit.what == ST_INJECT_HANG) {
            h->task.run = held_released;
            st_list_append(&in->hanging, &h->link);
            in->nhanging++;
        }
    }
    pthread_mutex_unlock(&in->lock);
    if (!found) {
        inject_pass(in, l, io);
        return;
    }
    switch (hit.what) {
    case ST_INJECT_ERROR:
        io->res = -(int64_t)hit.arg;
        st_ready(l, &io->task);
        break;
    case ST_INJECT_SHORT:
        h->part = *io;
        if (io->op == ST_IO_READ || io->op == ST_IO_WRITE) {
            h->part.len = st_min(hit.arg, io->len);
            h->part.niov =
                (uint16_t)st_buf_iov((struct st_buf){io->iov, 0}, h->part.len,
                                     h->iov, io->niov, &len);
            h->part.iov = h->iov;
        }
        h->part.task.run = held_part_done;
        st_list_init(&h->part.link);
        inject_pass(in, l, &h->part);
        break;
    case ST_INJECT_DELAY:
        h->timer.fire = held_fire;
        st_timer_set(l, &h->timer, l->now + hit.arg);
        break;
    case ST_INJECT_HANG:
        break;
    }
}

int
st_inject_create(uint64_t seed, struct st_seam *next, struct st_inject **out)
{
    struct st_inject *in = calloc(1, sizeof(*in));

    if (!in)
        return -ENOMEM;
    in->seam.start = inject_start;
    in->next = next;
    in->rand = st_rand_seed(seed);
    pthread_mutex_init(&in->lock, NULL);
    st_list_init(&in->rules);
    st_list_init(&in->hanging);
    *out = in;
    return 0;
}

void
st_inject_destroy(struct st_inject *in)
{
    if (!in)
        return;
    st_inject_clear(in);
    assert(!in->nheld);
    pthread_mutex_destroy(&in->lock);
    free(in);
}

struct st_seam *
st_inject_seam(struct st_inject *in)
{
    return &in->seam;
}

int
st_inject_add(struct st_inject *in, const struct st_inject_rule *rule)
{
    struct rule *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->r = *rule;
    pthread_mutex_lock(&in->lock);
    st_list_append(&in->rules, &r->link);
    pthread_mutex_unlock(&in->lock);
    return 0;
}

void
st_inject_clear(struct st_inject *in)
{
    pthread_mutex_lock(&in->lock);
    st_list_for(r, tmp, &in->rules, struct rule, link) free(r);
    st_list_init(&in->rules);
    pthread_mutex_unlock(&in->lock);
}

void
st_inject_release(struct st_inject *in)
{
    pthread_mutex_lock(&in->lock);
    st_list_for(h, tmp, &in->hanging, struct held, link)
        st_post(h->loop, &h->task);
    st_list_init(&in->hanging);
    in->nhanging = 0;
    pthread_mutex_unlock(&in->lock);
}

uint64_t
st_inject_hits(struct st_inject *in)
{
    uint64_t n;

    pthread_mutex_lock(&in->lock);
    n = in->hits;
    pthread_mutex_unlock(&in->lock);
    return n;
}

unsigned
st_inject_hanging(struct st_inject *in)
{
    unsigned n;

    pthread_mutex_lock(&in->lock);
    n = in->nhanging;
    pthread_mutex_unlock(&in->lock);
    return n;
}
