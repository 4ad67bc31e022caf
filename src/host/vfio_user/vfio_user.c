/* SPDX-License-Identifier: MIT
 *
 * The door: one client after the other, and the end; see vfio_user.h.
 *
 *   none --accept--> open --EOF, error, cut--> leaving
 *    ^                                           | close eventfds
 *    |                                           | reset the function
 *    +------------- power-on state <-------------+ unmap guest memory, wait
 *
 * While there is a client, others wait in the listening socket's queue.
 */
#include "vfio_user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keep.h"
#include "range.h"
#include "vfio_private.h"

#define MS UINT64_C(1000000)
enum { RETRY_MS = 10, TIMEOUT_MS = 4000 };

/* ---- Clients come ---- */

static void
door_accept(struct st_vfio_user *v)
{
    int fd, rc;

    if (v->stopping || v->leaving || v->conn.fd >= 0)
        return;
    for (;;) {
        fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            break;
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        st_warn_limited(v->opts.log, &v->limiter, "%s: accept: %s", v->name,
                        strerror(errno));
        st_timer_set(v->loop, &v->again, v->loop->now + RETRY_MS * MS);
        return;
    }
    rc = st_vfio_conn_open(v, fd);
    if (rc < 0) {
        st_warn_limited(v->opts.log, &v->limiter, "%s: cannot serve: %s",
                        v->name, st_strerror(rc));
        st_timer_set(v->loop, &v->again, v->loop->now + RETRY_MS * MS);
        return;
    }
    st_count(&v->clients_total, 1);
    atomic_store(&v->connected, true);
    atomic_store(&v->peer_pid, v->conn.pid);
    st_info(v->opts.log, "%s: client %d is connected", v->name, v->conn.pid);
    if (v->opts.client)
        v->opts.client(v->opts.arg, true);
}

static void
listen_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    door_accept(st_container(w, struct st_vfio_user, listen));
}

static void
listen_again(struct st_timer *t)
{
    door_accept(st_container(t, struct st_vfio_user, again));
}

/* ---- Reset ---- */

static void reset_begin(struct st_vfio_user *v);

static void
reset_over(struct st_vfio_user *v)
{
    void (*then)(struct st_vfio_user * v) = v->reset_then;

    v->resetting = false;
    st_vfio_irq_reset(v);
    if (v->reset_again) {
        reset_begin(v);
        return;
    }
    v->reset_then = NULL;
    if (then)
        then(v);
}

/* On the loop. */
static void
reset_back(struct st_task *t)
{
    struct st_vfio_user *v = st_container(t, struct st_vfio_user, reset_task);

    v->busy--;
    reset_over(v);
    st_vfio_check(v);
}

/* On any thread. */
static void
reset_done(struct st_access *a)
{
    struct st_vfio_user *v = st_container(a, struct st_vfio_user, reset);

    st_post(v->loop, &v->reset_task);
}

static void
reset_begin(struct st_vfio_user *v)
{
    v->resetting = true;
    v->reset_again = false;
    v->reset = (struct st_access){.done = reset_done};
    v->reset_task.run = reset_back;
    v->busy++;
    if (st_pci_reset(v->pci, &v->reset)) {
        v->busy--;
        reset_over(v);
    }
}

void
st_vfio_reset(struct st_vfio_user *v, void (*then)(struct st_vfio_user *v))
{
    v->reset_then = then;
    if (v->resetting)
        v->reset_again = true;
    else
        reset_begin(v);
}

/* ---- Clients leave ---- */

void
st_vfio_cleared(struct st_vfio_user *v)
{
    st_timer_stop(v->loop, &v->leaves);
    v->leaving = false;
    atomic_store(&v->connected, false);
    atomic_store(&v->peer_pid, 0);
    st_info(v->opts.log, "%s: the client has left", v->name);
    if (v->opts.client)
        v->opts.client(v->opts.arg, false);
    door_accept(v);
    st_vfio_check(v);
}

static void
left_clear(struct st_vfio_user *v)
{
    if (st_vfio_dma_clear(v) < 0) /* no memory: try again */
        st_timer_set(v->loop, &v->leaves, v->loop->now + RETRY_MS * MS);
}

static void
leaves_again(struct st_timer *t)
{
    left_clear(st_container(t, struct st_vfio_user, leaves));
}

void
st_vfio_left(struct st_vfio_user *v)
{
    v->leaving = true;
    st_vfio_irq_detach(v);
    st_vfio_reset(v, left_clear);
}

/* ---- The end ---- */

static void
door_end(struct st_task *t)
{
    struct st_vfio_user *v = st_container(t, struct st_vfio_user, end);
    void (*done)(void *arg) = v->done;

    v->end_queued = false;
    if (v->busy) /* begun meanwhile */
        return;
    v->ended = true;
    done(v->arg); /* it may destroy */
}

void
st_vfio_check(struct st_vfio_user *v)
{
    if (!v->stopping || v->ended || v->end_queued || v->conn.fd >= 0 ||
        v->leaving || v->busy)
        return;
    v->end_queued = true;
    v->end.run = door_end;
    st_ready(v->loop, &v->end);
}

void
st_vfio_user_stop(struct st_vfio_user *v, void (*done)(void *arg), void *arg)
{
    v->stopping = true;
    v->done = done;
    v->arg = arg;
    st_timer_stop(v->loop, &v->again);
    st_watch_remove(v->loop, &v->listen);
    close(v->listen_fd);
    v->listen_fd = -1;
    if (v->conn.fd >= 0)
        st_info(v->opts.log, "%s: waiting for client %d to leave", v->name,
                v->conn.pid);
    st_vfio_check(v);
}

void
st_vfio_user_cut(struct st_vfio_user *v)
{
    st_vfio_drop(v, NULL);
}

void
st_vfio_user_destroy(struct st_vfio_user *v)
{
    if (!v)
        return;
    assert(v->ended);
    v->pci->host = NULL;
    st_vfio_dma_fini(v);
    st_vfio_irq_fini(v);
    st_vfio_journal_close(v);
    free(v);
}

/* ---- The beginning ---- */

/* The client that a predecessor had, if there is one. */
static void
resume(struct st_vfio_user *v)
{
    int fd = st_keep_get(v->opts.keep, "%s.client", v->name), rc;

    if (!v->j || fd < 0)
        return;
    if (!atomic_load(&v->j->connected)) { /* it came, or left, just then */
        close(fd);
        st_keep_drop(v->opts.keep, "%s.client", v->name);
        return;
    }
    v->resuming = true;
    rc = st_vfio_journal_resume(v, fd);
    if (rc < 0) {
        st_warn(v->opts.log, "%s: client %d cannot be served any more: %s",
                v->name, v->conn.pid, st_strerror(rc));
        v->resuming = false;
        st_vfio_conn_give_up(v);
        st_vfio_left(v);
    }
}

bool
st_vfio_user_resumes(const struct st_vfio_user *v)
{
    return v->resuming;
}

void
st_vfio_user_go(struct st_vfio_user *v)
{
    int rc;

    if (!v->resuming)
        return;
    v->resuming = false;
    rc = st_vfio_conn_serve(v);
    if (rc < 0) {
        st_warn(v->opts.log, "%s: cannot serve: %s", v->name, st_strerror(rc));
        st_vfio_left(v);
        return;
    }
    st_count(&v->clients_total, 1);
    atomic_store(&v->connected, true);
    atomic_store(&v->peer_pid, v->conn.pid);
    st_info(v->opts.log, "%s: client %d goes on", v->name, v->conn.pid);
    st_vfio_irq_raise_all(v);
    if (v->opts.client)
        v->opts.client(v->opts.arg, true);
}

static bool
sparse_ok(const struct st_vfio_user_opts *o)
{
    return !o->sparse.size ||
           (o->sparse.bar < ST_PCI_BARS && o->sparse.fd >= 0 &&
            !((o->sparse.offset | o->sparse.size | o->sparse.fd_offset) %
              VFIO_PAGE) &&
            o->sparse.fd_offset >= o->sparse.offset &&
            st_range_ok(o->sparse.offset, o->sparse.size,
                        o->pci->bar[o->sparse.bar].size));
}

int
st_vfio_user_create(const struct st_vfio_user_opts *opts, int listen_fd,
                    struct st_vfio_user **out, struct st_err *err)
{
    struct st_vfio_user *v = calloc(1, sizeof(*v));
    int flags = fcntl(listen_fd, F_GETFL), rc;

    if (!v) {
        close(listen_fd);
        return st_err_set(err, ENOMEM, "vfio-user: out of memory");
    }
    v->opts = *opts;
    v->loop = opts->loop;
    v->pci = opts->pci;
    v->conn.fd = v->bell.fd = -1;
    v->listen_fd = listen_fd;
    snprintf(v->name, sizeof(v->name), "%s",
             opts->name ? opts->name : "vfio-user");
    if (!v->opts.timeout_ns)
        v->opts.timeout_ns = TIMEOUT_MS * MS;
    v->again.fire = listen_again;
    v->leaves.fire = leaves_again;
    rc = st_vfio_irq_init(v);
    if (rc == 0 && !sparse_ok(opts))
        rc = -EINVAL;
    if (rc == 0 &&
        (flags < 0 || fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0))
        rc = -errno;
    if (rc == 0)
        rc = st_vfio_dma_init(v);
    if (rc == 0)
        rc = st_vfio_journal_open(v);
    if (rc < 0)
        goto fail;
    v->listen.fd = listen_fd;
    v->listen.events = EPOLLIN;
    v->listen.ready = listen_ready;
    rc = st_watch_add(v->loop, &v->listen);
    if (rc < 0)
        goto fail;
    v->pci->host = &v->host;
    resume(v);
    *out = v;
    return 0;

fail:
    close(listen_fd);
    st_vfio_journal_close(v);
    st_vfio_dma_fini(v);
    st_vfio_irq_fini(v);
    free(v);
    return st_err_set(err, -rc, "%s: cannot serve: %s",
                      opts->name ? opts->name : "vfio-user", st_strerror(rc));
}

static uint64_t
irqs_of(const struct st_vfio_user *v, bool kept)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < v->pci->vectors; i++)
        n += atomic_load(kept ? &v->vector[i].kept : &v->vector[i].sent);
    return n;
}

void
st_vfio_user_stats(struct st_vfio_user *v, struct st_vfio_user_stats *out)
{
    *out = (struct st_vfio_user_stats){
        .messages = st_counter_get(&v->messages),
        .posted = st_counter_get(&v->posted),
        .reads = st_counter_get(&v->reads),
        .writes = st_counter_get(&v->writes),
        .bytes_in = st_counter_get(&v->bytes_in),
        .bytes_out = st_counter_get(&v->bytes_out),
        .wakeups = st_counter_get(&v->wakeups),
        .maps = st_counter_get(&v->mapped),
        .unmaps = st_counter_get(&v->unmapped),
        .maps_unreachable = st_counter_get(&v->unreachable),
        .late = st_counter_get(&v->late),
        .irqs = irqs_of(v, false),
        .irqs_pending = irqs_of(v, true),
        .errors = st_counter_get(&v->errors),
        .protocol_errors = st_counter_get(&v->protocol_errors),
        .faults = st_counter_get(&v->faults),
        .clients_total = st_counter_get(&v->clients_total),
        .connected = atomic_load(&v->connected),
        .peer_pid = atomic_load(&v->peer_pid)};
    pthread_mutex_lock(&v->intx.lock);
    out->irqs += v->intx.sent;
    pthread_mutex_unlock(&v->intx.lock);
}
