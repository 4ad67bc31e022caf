/* SPDX-License-Identifier: MIT
 *
 * The NBD server: listening sockets, clients, and how it ends; see nbd.h.
 *
 *   running --stop--> draining --all gone--> flushing --> retiring --> done
 *                        |  timeout or st_nbd_cut             ^
 *                        +--> cut: close, cancel --all gone---+
 *                               |  the same time again
 *                               +--> done, requests abandoned
 *
 * All of this happens on the control loop; workers hear of it by message.
 */
#include "nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd_private.h"

enum {
    ACCEPTS = 64,            /* in one go */
    SOCKET_BUFFER = 1 << 20, /* asked for; the system grants what it allows */
};
#define MS    UINT64_C(1000000)
#define GRACE (10000 * MS) /* at least, between a cut and giving up */

/* ---- Connections ---- */

/* Message: a connection is closed. */
static void
conn_gone(struct st_task *t)
{
    struct nbd_conn *c = st_container(t, struct nbd_conn, gone);
    struct st_nbd *s = c->worker->server;
    void (*ended)(void *arg) = c->ended;
    void *arg = c->arg;

    c->worker->nconns--;
    st_list_remove(&c->all);
    atomic_store(&s->clients, atomic_load(&s->clients) - 1);
    st_cap_give(s->caps, ST_CAP_NBD_CLIENTS, 1);
    free(c);
    if (ended)
        ended(arg);
    st_nbd_check(s);
}

int
st_nbd_connection(struct st_nbd *s, int fd, void (*ended)(void *arg), void *arg,
                  struct st_err *err)
{
    int flags = fcntl(fd, F_GETFL), domain = 0, one = 1, size = SOCKET_BUFFER;
    socklen_t len = sizeof(domain);
    struct nbd_worker *w = s->worker;
    struct nbd_conn *c = NULL;
    int rc = 0;

    if (s->stopping)
        rc = st_err_set(err, ESHUTDOWN, "nbd: server is shutting down");
    else if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        rc = st_err_set(err, errno, "nbd: bad socket: %s", strerror(errno));
    else if (!st_cap_take(s->caps, ST_CAP_NBD_CLIENTS, 1))
        rc = st_err_set(err, EBUSY, "nbd: too many clients");
    if (rc == 0 && !(c = calloc(1, sizeof(*c)))) {
        st_cap_give(s->caps, ST_CAP_NBD_CLIENTS, 1);
        rc = st_err_set(err, ENOMEM, "nbd: out of memory");
    }
    if (rc < 0) {
        close(fd);
        return rc;
    }
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    if (domain == AF_UNIX) /* TCP sizes its buffers by itself */
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    else
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    for (unsigned i = 1; i < s->nworkers; i++)
        if (s->worker[i].nconns < w->nconns)
            w = &s->worker[i];
    w->nconns++;
    st_count(&s->clients, 1);
    st_count(&s->clients_total, 1);
    c->worker = w;
    c->fd = fd;
    c->number = atomic_load(&s->clients_total);
    c->born = s->control->now;
    st_nbd_peer(fd, c->peer, sizeof(c->peer));
    st_list_append(&s->conns, &c->all);
    c->ended = ended;
    c->arg = arg;
    c->adopt.run = st_nbd_conn_adopt;
    c->gone.run = conn_gone;
    st_post(w->loop, &c->adopt);
    return 0;
}

/* ---- Listening ---- */

static void
listener_accept(struct nbd_listener *l)
{
    struct st_nbd *s = l->server;

    for (unsigned n = 0; n < ACCEPTS; n++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct st_err err;

        if (fd >= 0) {
            if (st_nbd_connection(s, fd, NULL, NULL, &err) < 0)
                st_warn_limited(s->log, &s->limiter, "%s", err.text);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            st_warn_limited(s->log, &s->limiter, "nbd: accept: %s",
                            strerror(errno));
            break;
        }
    }
    /* More to do, or no descriptors just now; the edge does not come again. */
    st_timer_set(s->control, &l->again, s->control->now + 10 * MS);
}

static void
listener_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    listener_accept(st_container(w, struct nbd_listener, watch));
}

static void
listener_again(struct st_timer *t)
{
    listener_accept(st_container(t, struct nbd_listener, again));
}

int
st_nbd_listen(struct st_nbd *s, int fd, struct st_err *err)
{
    struct nbd_listener *l = calloc(1, sizeof(*l));
    int flags = fcntl(fd, F_GETFL), rc;

    if (!l || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        rc = st_err_set(err, l ? errno : ENOMEM, "nbd: cannot listen");
        goto fail;
    }
    l->server = s;
    l->fd = fd;
    l->watch.fd = fd;
    l->watch.events = EPOLLIN;
    l->watch.ready = listener_ready;
    l->again.fire = listener_again;
    rc = st_watch_add(s->control, &l->watch);
    if (rc < 0) {
        st_err_set(err, -rc, "nbd: cannot listen: %s", st_strerror(rc));
        goto fail;
    }
    l->next = s->listeners;
    s->listeners = l;
    return 0;

fail:
    close(fd);
    free(l);
    return rc;
}

static void
listeners_close(struct st_nbd *s)
{
    struct nbd_listener *l;

    while ((l = s->listeners)) {
        s->listeners = l->next;
        st_watch_remove(s->control, &l->watch);
        st_timer_stop(s->control, &l->again);
        close(l->fd);
        free(l);
    }
}

/* ---- The end ---- */

static void
finished(struct st_nbd *s, int rc)
{
    if (s->ended)
        return;
    s->ended = true;
    st_timer_stop(s->control, &s->timer);
    s->done(s->arg, rc);
}

/* Message to a worker: new requests get ESHUTDOWN from now on. */
static void
worker_stop(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, stop);

    w->stopping = true;
    st_list_for(c, tmp, &w->conns, struct nbd_conn, link) c->shut = true;
}

/* Message to a worker: no more mercy. */
static void
worker_cut(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, cut);

    st_list_for(c, tmp, &w->conns, struct nbd_conn, link)
    {
        st_count(&w->abandoned, st_nbd_cancel(c));
        st_nbd_conn_fail(c, NULL);
    }
}

/* Message from a worker: it holds nothing any more. */
static void
worker_retired(struct st_task *t)
{
    struct st_nbd *s = st_container(t, struct nbd_worker, retired)->server;

    s->retired = --s->retiring == 0;
    st_nbd_check(s);
}

/* Message to a worker without connections. */
static void
worker_retire(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, retire);

    st_nbd_mem_retire(w);
    st_post(w->server->control, &w->retired);
}

static void flush_next(struct st_nbd *s);

static void
flush_done(struct st_req *req)
{
    struct st_nbd *s = req->owner;
    struct nbd_export *e = s->flushes;

    if (req->status != ST_OK)
        s->rc = -EIO;
    st_disk_close_chan(s->chan);
    s->chan = NULL;
    s->flushes = NULL;
    free(req);
    if (e->unexport)
        st_nbd_export_let_go(e);
    if (s->ended)
        s->abandoned = false; /* too late, but nothing is out any more */
    else
        flush_next(s);
}

/* Start to flush the disk of E. False: there is nothing to wait for. */
static bool
flush_start(struct st_nbd *s, struct nbd_export *e)
{
    unsigned frames = st_disk_frames(e->disk);
    struct st_req *req;

    if (e->read_only)
        return false;
    req = malloc(st_req_size(frames));
    if (!req || st_disk_open_chan(e->disk, s->control, &s->chan) < 0) {
        free(req);
        s->rc = -EIO;
        return false;
    }
    st_req_init(req, frames, flush_done, s);
    req->op = ST_OP_FLUSH;
    req->flags = 0;
    req->nexus = e->nexus;
    req->offset = req->len = 0;
    s->flushes = e;
    st_submit(s->chan, req);
    return true;
}

/* Flush the next export that can have been written; after the last one the
 * workers retire. */
static void
flush_next(struct st_nbd *s)
{
    struct nbd_table *t = st_nbd_table(s);

    for (unsigned i = 0; i < t->n; i++) {
        struct nbd_export *e = t->export[i];

        if (!e || e->flushed)
            continue;
        e->flushed = true;
        if (flush_start(s, e))
            return;
    }
    s->retiring = s->nworkers;
    for (unsigned i = 0; i < s->nworkers; i++)
        st_post(s->worker[i].loop, &s->worker[i].retire);
}

/* Have all connections gone? And then, has all else? */
void
st_nbd_check(struct st_nbd *s)
{
    if (!s->stopping || s->ended || s->clients || !st_list_empty(&s->leaving))
        return;
    if (s->flushing) {
        if (s->retired)
            finished(s, s->rc);
        return;
    }
    s->flushing = true;
    for (unsigned i = 0; i < s->nworkers && !s->rc; i++)
        if (st_counter_get(&s->worker[i].abandoned))
            s->rc = -ETIMEDOUT;
    flush_next(s);
}

static void
check_task(struct st_task *t)
{
    st_nbd_check(st_container(t, struct st_nbd, check));
}

void
st_nbd_cut(struct st_nbd *s)
{
    if (s->cutting || !s->stopping)
        return;
    s->cutting = true;
    for (unsigned i = 0; i < s->nworkers; i++)
        st_post(s->worker[i].loop, &s->worker[i].cut);
    st_timer_set(s->control, &s->timer, s->control->now + s->timeout_ns);
}

static void
stop_timeout(struct st_timer *t)
{
    struct st_nbd *s = st_container(t, struct st_nbd, timer);

    if (!s->cutting) {
        st_nbd_cut(s);
        return;
    }
    st_error(s->log, "nbd: requests do not end; abandoned");
    s->abandoned = true;
    finished(s, -ETIMEDOUT);
}

void
st_nbd_stop(struct st_nbd *s, uint64_t timeout_ns,
            void (*done)(void *arg, int rc), void *arg)
{
    s->stopping = true;
    s->done = done;
    s->arg = arg;
    s->timeout_ns = st_max(timeout_ns, GRACE);
    listeners_close(s);
    for (unsigned i = 0; i < s->nworkers; i++)
        st_post(s->worker[i].loop, &s->worker[i].stop);
    st_timer_set(s->control, &s->timer, s->control->now + timeout_ns);
    st_post(s->control, &s->check);
}

/* ---- Making and unmaking ---- */

int
st_nbd_create(const struct st_nbd_opts *opts, struct st_nbd **out,
              struct st_err *err)
{
    struct st_nbd *s = calloc(1, sizeof(*s));
    struct nbd_keys *keys = NULL;
    int rc = st_nbd_keys_load(opts, &keys, err);

    if (rc < 0) {
        free(s);
        return rc;
    }
    if (s) {
        s->worker = calloc(opts->nloops, sizeof(*s->worker));
        s->table = st_nbd_table_new(0);
    }
    if (!s || !s->worker || !s->table) {
        if (s) {
            free(s->worker);
            free(s->table);
        }
        free(s);
        st_nbd_keys_free(keys);
        return st_err_set(err, ENOMEM, "nbd: out of memory");
    }
    st_list_init(&s->leaving);
    st_list_init(&s->conns);
    s->control = opts->control;
    s->tls = opts->tls;
    s->keys = keys;
    s->handshake_ns = opts->handshake_ns ? opts->handshake_ns : 10000 * MS;
    s->caps = st_domain_caps(opts->control->domain);
    s->log = st_domain_log(opts->control->domain);
    s->nworkers = opts->nloops;
    s->timer.fire = stop_timeout;
    s->check.run = check_task;
    for (unsigned i = 0; i < opts->nloops; i++) {
        struct nbd_worker *w = &s->worker[i];

        w->server = s;
        w->index = i;
        w->loop = opts->loops[i];
        st_list_init(&w->conns);
        st_list_init(&w->dirty);
        st_list_init(&w->waiting);
        w->flush.run = st_nbd_worker_flush;
        w->feed.run = st_nbd_mem_feed;
        w->wake.run = st_nbd_mem_wake;
        w->shrink.run = st_nbd_mem_shrink;
        w->stop.run = worker_stop;
        w->cut.run = worker_cut;
        w->retire.run = worker_retire;
        w->retired.run = worker_retired;
    }
    *out = s;
    return 0;
}

void
st_nbd_destroy(struct st_nbd *s)
{
    if (!s || s->abandoned) /* the disk still has requests that live here */
        return;
    listeners_close(s);
    for (unsigned i = 0; i < st_nbd_table(s)->n; i++)
        st_nbd_export_free(s->table->export[i]);
    for (unsigned i = 0; i < s->nworkers; i++)
        free(s->worker[i].wire);
    st_nbd_keys_free(s->keys);
    free(s->table);
    free(s->worker);
    free(s);
}

void
st_nbd_stats(struct st_nbd *s, struct st_nbd_stats *out)
{
    *out = (struct st_nbd_stats){
        .clients = st_counter_get(&s->clients),
        .clients_total = st_counter_get(&s->clients_total),
    };
    for (unsigned i = 0; i < s->nworkers; i++) {
        struct nbd_worker *w = &s->worker[i];

        out->requests += st_counter_get(&w->requests);
        out->errors += st_counter_get(&w->errors);
        out->protocol_errors += st_counter_get(&w->protocol_errors);
        out->bytes_in += st_counter_get(&w->bytes_in);
        out->bytes_out += st_counter_get(&w->bytes_out);
    }
}
