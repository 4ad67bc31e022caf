/* SPDX-License-Identifier: MIT
 *
 * The threads engine: epoll for watches, the worker pool for I/O. It works
 * wherever Linux does; one turn's I/O is handed over under one lock, and
 * completions come through the mailbox.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "loop_private.h"
#include "mem.h"
#include "range.h"

struct threads {
    struct st_engine base; /* first */
    int epfd;
    bool no_pwait2; /* kernel < 5.11 */
    unsigned nwatches;
    struct st_list watches;  /* halves, also removed ones still queued */
    struct st_list starting; /* st_io.link: started in this turn */
    unsigned nstarting;
    _Atomic unsigned inflight;
};

static int
threads_create(struct st_loop *l, struct st_engine **out, struct st_err *err)
{
    struct threads *t = calloc(1, sizeof(*t));

    if (!t)
        return st_err_set(err, ENOMEM, "no memory for a loop");
    t->base = (struct st_engine){&st_engine_threads, l};
    st_list_init(&t->watches);
    st_list_init(&t->starting);
    t->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (t->epfd < 0) {
        int rc = -errno;

        free(t);
        return st_err_set(err, -rc, "epoll_create1: %s", st_strerror(rc));
    }
    *out = &t->base;
    return 0;
}

static void
threads_destroy(struct st_engine *e)
{
    struct threads *t = (struct threads *)e;

    close(t->epfd);
    st_watch_half_free_all(&t->watches);
    free(t);
}

static void
threads_start(struct st_engine *e, struct st_io *io)
{
    struct threads *t = (struct threads *)e;

    st_list_append(&t->starting, &io->link);
    t->nstarting++;
}

static void
threads_flush(struct threads *t)
{
    unsigned n = t->nstarting;

    if (!n)
        return;
    t->nstarting = 0;
    atomic_fetch_add(&t->inflight, n);
    st_pool_add_ios(t->base.loop->domain->pool, &t->starting, n);
}

void
st_threads_done(struct st_io *io)
{
    struct threads *t = (struct threads *)st_loop_impl(io->loop)->engine;

    atomic_fetch_sub(&t->inflight, 1);
    st_post(io->loop, &io->task);
}

static void
threads_cancel(struct st_engine *e, struct st_io *io)
{
    struct threads *t = (struct threads *)e;

    /* O(n) in what this turn has started; cancels are rare. */
    st_list_for(s, tmp, &t->starting, struct st_io, link)
    {
        if (s != io)
            continue;
        st_list_remove(&io->link);
        t->nstarting--;
        goto cancelled;
    }
    if (!st_pool_cancel(e->loop->domain->pool, io))
        return;
    atomic_fetch_sub(&t->inflight, 1);

cancelled:
    io->res = -ECANCELED;
    st_ready(e->loop, &io->task);
}

static int
threads_wait(struct threads *t, struct epoll_event *ev, int max,
             int64_t wait_ns)
{
    struct timespec ts = {wait_ns / 1000000000, wait_ns % 1000000000};
    int n = -1;

    if (!t->no_pwait2) {
        n = epoll_pwait2(t->epfd, ev, max, wait_ns < 0 ? NULL : &ts, NULL);
        t->no_pwait2 = n < 0 && errno == ENOSYS;
    }
    if (t->no_pwait2) {
        int64_t ms = wait_ns < 0 ? -1 : (wait_ns + 999999) / 1000000;

        n = epoll_wait(t->epfd, ev, max, (int)(ms > 3600000 ? 3600000 : ms));
    }
    return n;
}

static void
threads_poll(struct st_engine *e, int64_t wait_ns)
{
    struct threads *t = (struct threads *)e;
    struct epoll_event ev[64];
    int n;

    threads_flush(t);
    /* Awake, nobody rings; the only other watch is the bell. */
    if (wait_ns == 0 && t->nwatches <= 1)
        return;
    n = threads_wait(t, ev, 64, wait_ns);
    for (int i = 0; i < n; i++)
        st_watch_half_event(ev[i].data.ptr, ev[i].events);
}

static int
threads_watch(struct st_engine *e, struct st_watch *w)
{
    struct threads *t = (struct threads *)e;
    struct st_watch_half *h = st_watch_half_new(e->loop, w);
    struct epoll_event ev = {.events = w->events | EPOLLET, .data.ptr = h};

    if (!h)
        return -ENOMEM;
    if (epoll_ctl(t->epfd, EPOLL_CTL_ADD, w->fd, &ev) < 0) {
        int rc = -errno;

        free(h);
        return rc;
    }
    st_list_append(&t->watches, &h->link);
    t->nwatches++;
    return 0;
}

static void
threads_unwatch(struct st_engine *e, struct st_watch *w)
{
    struct threads *t = (struct threads *)e;
    struct st_watch_half *h = w->engine;

    epoll_ctl(t->epfd, EPOLL_CTL_DEL, w->fd, NULL);
    t->nwatches--;
    h->w = NULL;
    st_watch_half_put(h);
}

static bool
threads_busy(struct st_engine *e)
{
    struct threads *t = (struct threads *)e;

    return t->nstarting || atomic_load(&t->inflight);
}

const struct st_engine_ops st_engine_threads = {
    .name = "threads",
    .create = threads_create,
    .destroy = threads_destroy,
    .start = threads_start,
    .cancel = threads_cancel,
    .poll = threads_poll,
    .watch = threads_watch,
    .unwatch = threads_unwatch,
    .busy = threads_busy,
};
