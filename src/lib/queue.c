/* SPDX-License-Identifier: MIT
 *
 * Completion queues: requests that ended, in order, behind an eventfd that is
 * readable as long as there is one.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib.h"

struct strata_queue {
    struct strata *s;
    int fd; /* owned */
    _Atomic unsigned users;
    pthread_mutex_t lock; /* the rest, and that FD says the truth; a leaf */
    struct strata_request *first, **last;
};

int
strata_queue_create(struct strata *s, struct strata_queue **out,
                    struct strata_error *err)
{
    struct strata_queue *q;

    if (lib_usable(s) < 0)
        return lib_err(err, ECHILD, "a queue cannot be made after fork()");
    q = calloc(1, sizeof(*q));
    if (!q)
        return lib_err(err, ENOMEM, "no memory");
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0) {
        int rc = -errno;

        free(q);
        return lib_err(err, -rc, "no descriptor for a queue: %s",
                       st_strerror(rc));
    }
    q->s = s;
    q->last = &q->first;
    pthread_mutex_init(&q->lock, NULL);
    atomic_fetch_add(&s->users, 1);
    *out = q;
    return 0;
}

int
strata_queue_destroy(struct strata_queue *q)
{
    struct strata *s;
    int rc;

    if (!q)
        return 0;
    s = q->s;
    rc = lib_may_wait(s, NULL);
    if (rc < 0)
        return rc;
    if (atomic_load(&q->users))
        return -EBUSY;
    /* Whoever pushed the last one may not have returned yet. */
    for (unsigned i = 0; i < s->nio; i++)
        lib_barrier(s->io[i]);
    close(q->fd);
    pthread_mutex_destroy(&q->lock);
    free(q);
    atomic_fetch_sub(&s->users, 1);
    return 0;
}

int
strata_queue_fd(const struct strata_queue *q)
{
    return q->fd;
}

void
lib_queue_push(struct strata_queue *q, struct strata_request *r)
{
    r->next = NULL;
    pthread_mutex_lock(&q->lock);
    if (!q->first)
        eventfd_write(q->fd, 1);
    *q->last = r;
    q->last = &r->next;
    pthread_mutex_unlock(&q->lock);
}

struct strata_request *
strata_queue_take(struct strata_queue *q)
{
    struct strata_request *r;
    eventfd_t n;

    if (lib_usable(q->s) < 0)
        return NULL;
    pthread_mutex_lock(&q->lock);
    r = q->first;
    if (r) {
        q->first = r->next;
        if (!q->first) {
            q->last = &q->first;
            eventfd_read(q->fd, &n);
        }
    }
    pthread_mutex_unlock(&q->lock);
    if (r)
        atomic_store(&r->state, LIB_IDLE);
    return r;
}

void
lib_queue_hold(struct strata_queue *q)
{
    if (q)
        atomic_fetch_add(&q->users, 1);
}

void
lib_queue_let_go(struct strata_queue *q)
{
    if (q)
        atomic_fetch_sub(&q->users, 1);
}

bool
lib_queue_of(const struct strata_queue *q, const struct strata *s)
{
    return q->s == s;
}
