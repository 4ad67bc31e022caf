/* SPDX-License-Identifier: MIT
 *
 * Domains: which engine, which loops; and the stepping of virtual ones.
 *
 * A step of a virtual domain does one thing, chosen by the seed among
 *
 *     a turn of a loop that has something to do  (one choice per loop)
 *     one of the pending I/Os, executed          (one choice for all)
 *     the oldest pending job, run                (one choice)
 *
 * and only when there is none of them does the clock jump to the next timer.
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "loop_private.h"

static const struct st_engine_ops *const engines[] = {
    &st_engine_uring, /* "auto" takes the first one that works */
    &st_engine_threads,
    &st_engine_virtual,
};

static int
domain_choose(const char *name, const struct st_engine_ops **out,
              struct st_err *err)
{
    bool any = !name || strcmp(name, "auto") == 0;

    for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
        const struct st_engine_ops *ops = *out = engines[i];
        int rc;

        if (!any && strcmp(name, ops->name) != 0)
            continue;
        rc = ops->probe ? ops->probe(err) : 0;
        if (!any || rc == 0)
            return rc;
    }
    return st_err_set(err, EINVAL,
                      "unknown engine '%s', expected auto, io_uring, threads "
                      "or virtual",
                      name);
}

int
st_domain_create(const struct st_domain_opts *opts, struct st_domain **out,
                 struct st_err *err)
{
    const struct st_engine_ops *ops;
    struct st_domain *d;
    int rc = domain_choose(opts->engine, &ops, err);

    if (rc)
        return rc;
    d = aligned_alloc(alignof(struct st_domain), sizeof(*d));
    if (!d)
        return st_err_set(err, ENOMEM, "no memory for a domain");
    memset(d, 0, sizeof(*d));
    d->ops = ops;
    d->log = opts->log;
    d->seam = opts->seam;
    d->poll_ns = (uint64_t)opts->poll_us * 1000;
    d->rounds = st_domain_virtual(d) ? 1 : 16;
    d->epoch = 1;
    d->rand = st_rand_seed(opts->seed);
    d->clock = 1000000000;
    st_list_init(&d->ios);
    d->jobs_tail = &d->jobs;
    st_caps_init(&d->caps);
    pthread_mutex_init(&d->lock, NULL);
    if (!st_domain_virtual(d)) {
        d->pool = st_pool_create(&d->caps);
        if (!d->pool) {
            st_domain_destroy(d);
            return st_err_set(err, ENOMEM, "no memory for a worker pool");
        }
    }
    *out = d;
    return 0;
}

void
st_domain_destroy(struct st_domain *d)
{
    struct st_loop_impl *l, *next;
    struct st_deferred *o;

    if (!d)
        return;
    st_pool_destroy(d->pool);
    for (l = atomic_load(&d->loops); l; l = next) {
        next = l->next;
        assert(!l->live);
        st_loop_free(l);
    }
    while ((o = d->orphans) != NULL) {
        d->orphans = o->next;
        o->free(o);
    }
    pthread_mutex_destroy(&d->lock);
    free(d);
}

const struct st_log *
st_domain_log(const struct st_domain *d)
{
    return d->log;
}

struct st_caps *
st_domain_caps(struct st_domain *d)
{
    return &d->caps;
}

const char *
st_domain_engine(const struct st_domain *d)
{
    return d->ops->name;
}

bool
st_domain_is_virtual(const struct st_domain *d)
{
    return st_domain_virtual(d);
}

/* ---- Spinning ---- */

unsigned
st_cpus(void)
{
    cpu_set_t set;

    /* It fails where there are more than a set holds. */
    return sched_getaffinity(0, sizeof(set), &set) == 0
               ? (unsigned)CPU_COUNT(&set)
               : CPU_SETSIZE;
}

unsigned
st_spin_us(unsigned poll_us)
{
    return st_cpus() > 1 ? poll_us : 0;
}

/* ---- Virtual stepping ---- */

static void
step_io(struct st_domain *d)
{
    struct st_list *e;
    struct st_io *io;
    uint64_t n = 0;

    for (e = d->ios.next; e != &d->ios; e = e->next)
        n++;
    e = d->ios.next;
    for (n = st_rand_below(&d->rand, n); n; n--)
        e = e->next;
    st_list_remove(e);
    io = st_container(e, struct st_io, link);
    st_io_execute(io);
    st_post(io->loop, &io->task);
}

static void
step_job(struct st_domain *d)
{
    struct st_task *t = d->jobs;

    d->jobs = t->next;
    if (!d->jobs)
        d->jobs_tail = &d->jobs;
    t->run(t);
}

static bool
step_clock(struct st_domain *d)
{
    uint64_t at = UINT64_MAX;
    bool any = false;

    for (struct st_loop_impl *l = atomic_load(&d->loops); l; l = l->next) {
        if (!l->ntimers)
            continue;
        any = true;
        if (l->heap[1]->at < at)
            at = l->heap[1]->at;
    }
    if (any)
        d->clock = at;
    return any;
}

bool
st_domain_step(struct st_domain *d)
{
    struct st_loop_impl *first = atomic_load(&d->loops), *l;
    uint64_t n = 0, k;
    bool ios = !st_list_empty(&d->ios);

    if (!st_domain_virtual(d))
        return false;
    for (l = first; l; l = l->next)
        n += l->live && st_loop_runnable(l);
    k = st_rand_below(&d->rand, n + ios + (d->jobs != NULL));
    if (n + ios + (d->jobs != NULL) == 0)
        return step_clock(d);
    if (k < n) {
        for (l = first; !l->live || !st_loop_runnable(l) || k--; l = l->next)
            ;
        st_loop_turn(l, NULL);
        st_defer_leave(l);
    } else if (k == n && ios) {
        step_io(d);
    } else {
        step_job(d);
    }
    return true;
}
