/* SPDX-License-Identifier: MIT
 *
 * The worker pool: threads that may block, so that loops need not.
 *
 *   st_job_start ----> jobs  \
 *                             >-- worker, worker, ... --> st_post(home)
 *   threads engine --> I/O   /
 *
 * Workers start when there is more to do than idle workers, up to the cap, and
 * stay until the domain ends. Both queues are FIFO and take turns, so neither
 * starves the other. A job that hangs holds one worker and nothing else.
 */
#include <signal.h>
#include <stdlib.h>

#include "loop_private.h"

struct pool_worker {
    struct pool_worker *next;
    struct st_pool *pool;
    pthread_t thread;
};

struct st_pool {
    struct st_caps *caps; /* borrowed */
    pthread_mutex_t lock; /* everything below; a leaf */
    pthread_cond_t wake;
    struct st_list ios; /* st_io.link */
    struct st_task *jobs, **jobs_tail;
    unsigned queued, idle; /* entries; workers without one */
    struct pool_worker *workers;
    bool quit, io_next;
};

struct st_pool *
st_pool_create(struct st_caps *caps)
{
    struct st_pool *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->caps = caps;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    st_list_init(&p->ios);
    p->jobs_tail = &p->jobs;
    return p;
}

/* Run one entry. Called with the lock and something queued; drops the lock
 * meanwhile. */
static void
pool_run_one(struct st_pool *p)
{
    struct st_list *io = st_list_first(&p->ios);
    struct st_task *job = p->jobs;

    if (io && job)
        p->io_next = !p->io_next;
    if (io && (!job || p->io_next)) {
        st_list_remove(io);
        job = NULL;
    } else {
        p->jobs = job->next;
        if (!p->jobs)
            p->jobs_tail = &p->jobs;
    }
    p->queued--;
    pthread_mutex_unlock(&p->lock);
    if (job) {
        job->run(job);
    } else {
        struct st_io *i = st_container(io, struct st_io, link);

        st_io_execute(i);
        st_threads_done(i);
    }
    pthread_mutex_lock(&p->lock);
}

static void *
pool_worker(void *arg)
{
    struct pool_worker *w = arg;
    struct st_pool *p = w->pool;

    pthread_setname_np(pthread_self(), "strata-worker");
    pthread_mutex_lock(&p->lock);
    while (!p->quit || p->queued) {
        if (!p->queued) {
            pthread_cond_wait(&p->wake, &p->lock);
            continue;
        }
        p->idle--;
        pool_run_one(p);
        p->idle++;
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static bool
pool_start_worker(struct st_pool *p)
{
    struct pool_worker *w;
    sigset_t all, old;
    int rc;

    if (!st_cap_take(p->caps, ST_CAP_WORKERS, 1))
        return false;
    w = calloc(1, sizeof(*w));
    if (!w)
        goto fail;
    w->pool = p;
    sigfillset(&all); /* signals are for the threads that asked for them */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&w->thread, NULL, pool_worker, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        goto fail;
    w->next = p->workers;
    p->workers = w;
    p->idle++;
    return true;

fail:
    free(w);
    st_cap_give(p->caps, ST_CAP_WORKERS, 1);
    return false;
}

/* N entries were appended. Called with the lock, which it releases. */
static void
pool_added(struct st_pool *p, unsigned n)
{
    p->queued += n;
    while (p->queued > p->idle && pool_start_worker(p))
        ;
    while (!p->workers && p->queued)
        pool_run_one(p);
    if (n == 1)
        pthread_cond_signal(&p->wake);
    else
        pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void
st_pool_add_job(struct st_pool *p, struct st_task *job)
{
    job->next = NULL;
    pthread_mutex_lock(&p->lock);
    *p->jobs_tail = job;
    p->jobs_tail = &job->next;
    pool_added(p, 1);
}

void
st_pool_add_ios(struct st_pool *p, struct st_list *list, unsigned n)
{
    pthread_mutex_lock(&p->lock);
    st_list_splice(&p->ios, list);
    pool_added(p, n);
}

bool
st_pool_cancel(struct st_pool *p, struct st_io *io)
{
    bool mine;

    pthread_mutex_lock(&p->lock);
    mine = !st_list_empty(&io->link);
    if (mine) {
        st_list_remove(&io->link);
        p->queued--;
    }
    pthread_mutex_unlock(&p->lock);
    return mine;
}

void
st_pool_destroy(struct st_pool *p)
{
    struct pool_worker *w;

    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    while ((w = p->workers) != NULL) {
        p->workers = w->next;
        pthread_join(w->thread, NULL);
        free(w);
        st_cap_give(p->caps, ST_CAP_WORKERS, 1);
    }
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p);
}
