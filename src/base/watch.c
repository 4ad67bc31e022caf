/* SPDX-License-Identifier: MIT
 *
 * The engine's half of a watch; see loop_private.h.
 */
#include <stdlib.h>
#include <sys/epoll.h>

#include "loop_private.h"

struct st_watch_half *
st_watch_half_new(struct st_loop *l, struct st_watch *w)
{
    struct st_watch_half *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->task.run = st_watch_half_run;
    h->w = w;
    h->loop = l;
    st_list_init(&h->link);
    w->got = 0;
    w->engine = h;
    return h;
}

void
st_watch_half_event(struct st_watch_half *h, unsigned events)
{
    if (events & (EPOLLERR | EPOLLHUP))
        events |= EPOLLIN | EPOLLOUT;
    h->got |= events;
    if (!h->queued) {
        h->queued = true;
        st_ready(h->loop, &h->task);
    }
}

void
st_watch_half_run(struct st_task *t)
{
    struct st_watch_half *h = st_container(t, struct st_watch_half, task);
    unsigned got = h->got;

    h->queued = false;
    h->got = 0;
    if (h->w) {
        h->w->got = got;
        h->w->ready(h->w, got);
    } else {
        st_watch_half_put(h);
    }
}

void
st_watch_half_put(struct st_watch_half *h)
{
    if (h->w || h->queued || h->in_kernel || h->removing)
        return;
    st_list_remove(&h->link);
    free(h);
}

void
st_watch_half_free_all(struct st_list *list)
{
    st_list_for(h, tmp, list, struct st_watch_half, link) free(h);
    st_list_init(list);
}
