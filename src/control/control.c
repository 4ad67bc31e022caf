/* SPDX-License-Identifier: MIT
 *
 * The control socket: connections, deadlines, the end; see control.h.
 *
 *   listening socket -- accept, who is it? --> MHD_add_connection
 *                                                 |
 *   MHD's epoll descriptor --ready--> kick --> turn: MHD_run --> request.c
 *                                       ^        |
 *                                       +--------+ as long as it has to do
 *
 * MHD has no thread and never waits: the loop watches its epoll descriptor, and
 * a turn of ours is one pass over the connections that are ready. Its timeouts
 * are by silence, which a client can break with a byte now and then; ours are
 * by whole requests. A socket is closed by shutting it down: MHD sees the end
 * of it, as of one whose client left.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control_private.h"

enum {
    ACCEPTS = 16,           /* in one go */
    EXTRA = 64,             /* connections that are only told no */
    CONN_MEMORY = 32 << 10, /* for first line, headers and MHD's own */
};
#define MS UINT64_C(1000000)

/* ---- Turns ---- */

void
st_control_kick(struct st_control *c)
{
    if (c->turn_queued)
        return;
    c->turn_queued = true;
    st_ready(c->loop, &c->turn);
}

static void
control_finish(struct st_control *c)
{
    void (*done)(void *arg) = c->done;
    void *arg = c->arg;

    st_watch_remove(c->loop, &c->epoll);
    MHD_stop_daemon(c->daemon);
    free(c);
    if (done)
        done(arg);
}

/* The library's descriptor is watched by edges, and it need not take all that
 * there is in one pass. */
static bool
control_busy(struct st_control *c)
{
    struct pollfd p = {.fd = c->epoll.fd, .events = POLLIN};
    MHD_UNSIGNED_LONG_LONG ms;

    return (MHD_get_timeout(c->daemon, &ms) == MHD_YES && ms == 0) ||
           poll(&p, 1, 0) == 1;
}

static void
control_turn(struct st_task *t)
{
    struct st_control *c = st_container(t, struct st_control, turn);

    MHD_run(c->daemon);
    c->turn_queued = false;
    if (c->stopping && st_list_empty(&c->conns) && st_list_empty(&c->requests))
        control_finish(c);
    else if (control_busy(c))
        st_control_kick(c);
}

static void
control_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    st_control_kick(st_container(w, struct st_control, epoll));
}

/* ---- Connections ---- */

static void
conn_cut(struct st_timer *t)
{
    struct control_conn *conn = st_container(t, struct control_conn, timer);

    shutdown(conn->fd, SHUT_RDWR);
    st_control_kick(conn->control);
}

void
st_control_patience(struct control_conn *conn, bool wait)
{
    struct st_control *c = conn->control;

    if (wait)
        st_timer_stop(c->loop, &conn->timer);
    else
        st_timer_set(c->loop, &conn->timer,
                     c->loop->now +
                         (c->stopping ? ST_CONTROL_GRACE : c->opts.slow_ns));
}

static void
conn_free(struct control_conn *conn)
{
    struct st_control *c = conn->control;

    st_list_remove(&conn->link);
    st_timer_stop(c->loop, &conn->timer);
    if (conn->extra)
        c->nextra--;
    else
        st_cap_give(c->caps, ST_CAP_API_CLIENTS, 1);
    free(conn);
}

/* MHD: a connection begins, within MHD_add_connection, or has ended. */
static void
conn_notify(void *arg, struct MHD_Connection *mhd, void **socket,
            enum MHD_ConnectionNotificationCode what)
{
    struct st_control *c = arg;

    (void)mhd;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket = c->accepted;
        c->accepted = NULL;
    } else if (*socket) {
        conn_free(*socket);
        *socket = NULL;
    }
}

/* MHD: a request has been answered, or its connection has ended. */
static void
conn_completed(void *arg, struct MHD_Connection *mhd, void **request,
               enum MHD_RequestTerminationCode why)
{
    struct st_control *c = arg;
    struct control_request *r = *request;

    (void)mhd;
    (void)why;
    if (!r)
        return;
    st_control_patience(r->conn, false);
    if (c->stopping)
        shutdown(r->conn->fd, SHUT_RD);
    st_request_end(r);
    *request = NULL;
}

/* MHD: the headers are there; a piece of the body; all of it; it goes on after
 * an edit. */
static enum MHD_Result
conn_handle(void *arg, struct MHD_Connection *mhd, const char *url,
            const char *method, const char *version, const char *data,
            size_t *size, void **request)
{
    struct control_request *r = *request;

    (void)arg;
    (void)version;
    if (!r) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

        *request = r =
            info && info->socket_context
                ? st_request_create(info->socket_context, mhd, url, method)
                : NULL;
        if (!r)
            return MHD_NO;
        /* A body that is too long to be read away: MHD closes behind this. */
        return r->status && r->announced > ST_CONTROL_DISCARD
                   ? st_request_answer(r)
                   : MHD_YES;
    }
    if (r->cut)
        return MHD_NO;
    if (*size) {
        bool go_on = st_request_body(r, data, *size);

        *size = 0;
        return go_on ? MHD_YES : MHD_NO;
    }
    if (!r->status) {
        st_request_run(r);
        if (r->suspended)
            return MHD_YES;
    }
    return st_request_answer(r);
}

/* MHD: URLs stay as they are, we decode by segments. */
static size_t
conn_unescape(void *arg, struct MHD_Connection *mhd, char *text)
{
    (void)arg;
    (void)mhd;
    return strlen(text);
}

/* ---- Listening ---- */

/* Who may ask: root, we, and one more. */
static bool
listen_allowed(const struct st_control *c, int fd)
{
    struct ucred who = {.uid = (uid_t)-1};
    socklen_t len = sizeof(who);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0 ||
        who.uid == (uid_t)-1)
        return false;
    return who.uid == 0 || who.uid == geteuid() ||
           who.uid == c->opts.allowed_uid;
}

static void
listen_take(struct st_control *c, int fd)
{
    const struct sockaddr_un nobody = {.sun_family = AF_UNIX};
    struct control_conn *conn = calloc(1, sizeof(*conn));
    bool allowed = listen_allowed(c, fd), extra;

    extra = !allowed || !st_cap_take(c->caps, ST_CAP_API_CLIENTS, 1);
    if (!conn || (extra && c->nextra == EXTRA)) {
        if (!extra)
            st_cap_give(c->caps, ST_CAP_API_CLIENTS, 1);
        free(conn);
        close(fd);
        return;
    }
    conn->control = c;
    conn->fd = fd;
    conn->timer.fire = conn_cut;
    conn->extra = extra;
    c->nextra += extra;
    if (extra) {
        conn->refused = allowed ? 503 : 403;
        conn->why = allowed ? "too many clients" : "you may not ask here";
        st_warn_limited(c->log, &c->limiter, "control: %s",
                        allowed ? "too many clients"
                                : "another user's connection is refused");
    }
    st_list_append(&c->conns, &conn->link);
    st_control_patience(conn, false);
    c->accepted = conn;
    if (MHD_add_connection(c->daemon, fd, (const struct sockaddr *)&nobody,
                           sizeof(nobody)) != MHD_YES &&
        c->accepted) {
        c->accepted = NULL;
        conn_free(conn); /* MHD has closed the socket */
    }
    st_control_kick(c);
}

static void
listen_accept(struct st_control *c)
{
    for (unsigned n = 0; n < ACCEPTS; n++) {
        int fd =
            accept4(c->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            listen_take(c, fd);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            st_warn_limited(c->log, &c->limiter, "control: accept: %s",
                            st_strerror(-errno));
            break;
        }
    }
    /* More to do, or no descriptors just now; the edge does not come again. */
    st_timer_set(c->loop, &c->accept_again, c->loop->now + MS);
}

static void
listen_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    listen_accept(st_container(w, struct st_control, listen));
}

static void
listen_again(struct st_timer *t)
{
    listen_accept(st_container(t, struct st_control, accept_again));
}

/* ---- Making and unmaking ---- */

static struct MHD_Daemon *
daemon_start(struct st_control *c)
{
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET, 0,
        NULL, NULL, conn_handle, c, MHD_OPTION_NOTIFY_CONNECTION, conn_notify,
        c, MHD_OPTION_NOTIFY_COMPLETED, conn_completed, c,
        MHD_OPTION_UNESCAPE_CALLBACK, conn_unescape, c,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONN_MEMORY,
        MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)(c->caps->row[ST_CAP_API_CLIENTS].limit + EXTRA),
        MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
}

int
st_control_create(const struct st_control_opts *opts, struct st_control **out,
                  struct st_err *err)
{
    struct st_control *c = calloc(1, sizeof(*c));
    int flags = fcntl(opts->fd, F_GETFL), rc;
    const union MHD_DaemonInfo *info;

    if (!c) {
        close(opts->fd);
        return st_err_set(err, ENOMEM, "control: no memory");
    }
    c->opts = *opts;
    if (!c->opts.slow_ns)
        c->opts.slow_ns = ST_CONTROL_SLOW;
    c->loop = st_graph_control(opts->graph);
    c->caps = st_domain_caps(c->loop->domain);
    c->log = st_domain_log(c->loop->domain);
    c->turn.run = control_turn;
    c->accept_again.fire = listen_again;
    st_list_init(&c->conns);
    st_list_init(&c->requests);
    if (flags < 0 || fcntl(opts->fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        rc = st_err_set(err, errno, "control: bad socket: %s",
                        st_strerror(-errno));
        goto fail;
    }
    c->daemon = daemon_start(c);
    info = c->daemon ? MHD_get_daemon_info(c->daemon, MHD_DAEMON_INFO_EPOLL_FD)
                     : NULL;
    if (!info) {
        rc = st_err_set(err, ENOMEM, "control: the HTTP server does not start");
        goto fail;
    }
    c->epoll = (struct st_watch){
        .ready = control_ready, .fd = info->epoll_fd, .events = EPOLLIN};
    c->listen = (struct st_watch){
        .ready = listen_ready, .fd = opts->fd, .events = EPOLLIN};
    rc = st_watch_add(c->loop, &c->epoll);
    if (rc == 0 && (rc = st_watch_add(c->loop, &c->listen)) < 0)
        st_watch_remove(c->loop, &c->epoll);
    if (rc < 0) {
        st_err_set(err, -rc, "control: cannot listen: %s", st_strerror(rc));
        goto fail;
    }
    *out = c;
    return 0;

fail:
    if (c->daemon)
        MHD_stop_daemon(c->daemon);
    close(opts->fd);
    free(c);
    return rc;
}

void
st_control_destroy(struct st_control *c, void (*done)(void *arg), void *arg)
{
    if (!c) {
        if (done)
            done(arg);
        return;
    }
    c->stopping = true;
    c->done = done;
    c->arg = arg;
    st_watch_remove(c->loop, &c->listen);
    st_timer_stop(c->loop, &c->accept_again);
    close(c->listen.fd);
    st_list_for(conn, tmp, &c->conns, struct control_conn, link)
    {
        if (!conn->request) {
            shutdown(conn->fd, SHUT_RDWR);
            continue;
        }
        if (conn->request->suspended)
            st_request_abandon(conn->request, 503, "the server is stopping");
        st_control_patience(conn, false);
    }
    st_control_kick(c);
}
