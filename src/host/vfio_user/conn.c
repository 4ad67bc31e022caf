/* SPDX-License-Identifier: MIT
 *
 * A client's socket: bytes and descriptors to messages, replies back.
 *
 *   recvmsg, 64 KiB --> | m0 | m1 | m2 ... | part of one |
 *                         serve one after the other; one that waits stops all
 *
 * Descriptors come with the bytes of a header, and a recvmsg ends with the
 * sendmsg that had some: they belong to the last message that begins in what
 * was received. They may be there before their message is whole.
 *
 * A reply is one sendmsg: QEMU takes a header in pieces for a broken one.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "range.h"
#include "vfio_private.h"

enum {
    GULP = 64 << 10,        /* read at a time */
    RX_CAP = 2 * GULP,      /* the buffer, but for messages that are longer */
    ROUNDS = 16,            /* gulps before others have their turn */
    TX_MAX = 4 << 20,       /* replies that a client has not read */
    REPLY_CAP = 8192,       /* kept; longer ones are rare */
    SOCKET_BUFFER = 1 << 20 /* asked for */
};

/* ---- The end of a connection ---- */

static void
fds_close(struct vfio_fds *f)
{
    for (unsigned i = 0; i < f->n; i++)
        if (f->fd[i] >= 0)
            close(f->fd[i]);
    f->n = 0;
    f->used = false;
}

static void
conn_close(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    struct vfio_tx *t;

    st_watch_remove(v->loop, &c->watch);
    st_timer_stop(v->loop, &c->timer);
    if (c->queued)
        st_retract(v->loop, &c->again);
    st_vfio_journal_went(v);
    close(c->fd);
    for (unsigned i = 0; i < 2; i++)
        fds_close(&c->fds[i]);
    st_vfio_access_abandon(v);
    st_vfio_dma_abandon(v);
    while ((t = c->tx)) {
        c->tx = t->next;
        free(t);
    }
    free(c->rx);
    free(c->reply);
    memset(c, 0, sizeof(*c));
    c->fd = -1;
    st_vfio_left(v);
}

static void
conn_again(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    if (!c->queued && !c->running) {
        c->queued = true;
        st_ready(v->loop, &c->again);
    }
}

void
st_vfio_drop(struct st_vfio_user *v, const char *fmt, ...)
{
    char why[256];
    va_list ap;

    if (v->conn.fd < 0 || v->conn.dead)
        return;
    if (fmt) {
        va_start(ap, fmt);
        vsnprintf(why, sizeof(why), fmt, ap);
        va_end(ap);
        st_warn_limited(v->opts.log, &v->limiter,
                        "%s: client %d is dropped: %s", v->name, v->conn.pid,
                        why);
    }
    v->conn.dead = true;
    conn_again(v);
}

/* What it sent is no vfio-user. */
static void
drop_protocol(struct st_vfio_user *v, const char *why)
{
    st_count(&v->protocol_errors, 1);
    st_vfio_drop(v, "%s", why);
}

/* ---- Replies ---- */

/* Send LEN bytes with FD: how many went, or -errno. */
static ssize_t
send_some(struct st_vfio_user *v, const uint8_t *data, size_t len, int fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd >= 0) {
        struct cmsghdr *h;

        msg.msg_control = control.room;
        msg.msg_controllen = sizeof(control.room);
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &fd, sizeof(int));
    }
    do
        n = sendmsg(v->conn.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        st_count(&v->bytes_out, (uint64_t)n);
    return n < 0 ? -errno : n;
}

/* Send what waits. */
static void
tx_flush(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    struct vfio_tx *t;

    while ((t = c->tx)) {
        ssize_t n = send_some(v, t->data + t->sent, t->len - t->sent,
                              t->sent ? -1 : t->fd);

        if (n == -EAGAIN)
            return;
        if (n < 0) {
            st_vfio_drop(v, NULL); /* it has left */
            return;
        }
        t->sent += (size_t)n;
        if (t->sent < t->len)
            continue;
        c->tx = t->next;
        if (!c->tx)
            c->tx_tail = &c->tx;
        c->tx_bytes -= t->len;
        free(t);
    }
    st_vfio_journal_behind(v, false);
}

static void
send_message(struct st_vfio_user *v, const uint8_t *data, size_t len, int fd)
{
    struct vfio_conn *c = &v->conn;
    ssize_t n = 0;
    struct vfio_tx *t;

    st_vfio_journal_sending(v);
    if (!c->tx)
        n = send_some(v, data, len, fd);
    if (n == (ssize_t)len || c->dead)
        return;
    if (n < 0 && n != -EAGAIN) {
        st_vfio_drop(v, NULL);
        return;
    }
    st_vfio_journal_behind(v, true);
    n = n < 0 ? 0 : n;
    len -= (size_t)n;
    if (c->tx_bytes + len > TX_MAX) {
        st_vfio_drop(v, "it does not read its replies");
        return;
    }
    t = malloc(sizeof(*t) + len);
    if (!t) {
        st_vfio_drop(v, "out of memory");
        return;
    }
    t->next = NULL;
    t->len = len;
    t->sent = 0;
    t->fd = n ? -1 : fd;
    memcpy(t->data, data + n, len);
    *c->tx_tail = t;
    c->tx_tail = &t->next;
    c->tx_bytes += len;
}

void *
st_vfio_payload(struct st_vfio_user *v, size_t len)
{
    struct vfio_conn *c = &v->conn;
    size_t need = sizeof(struct vfio_header) + len;

    if (need > c->reply_cap) {
        free(c->reply);
        c->reply_cap = need > REPLY_CAP ? need : REPLY_CAP;
        c->reply = malloc(c->reply_cap);
        if (!c->reply) {
            c->reply_cap = 0;
            st_vfio_drop(v, "out of memory");
            return NULL;
        }
    }
    memset(c->reply, 0, need);
    return c->reply + sizeof(struct vfio_header);
}

/* The header of a reply to the message that is served. */
static struct vfio_header
reply_header(const struct st_vfio_user *v, size_t len, uint32_t flags,
             uint32_t error)
{
    return (struct vfio_header){
        .id = le16_of(v->conn.id),
        .command = le16_of(v->conn.command),
        .size = le32_of((uint32_t)(sizeof(struct vfio_header) + len)),
        .flags = le32_of(VFIO_REPLY | flags),
        .error = le32_of(error)};
}

void
st_vfio_reply(struct st_vfio_user *v, size_t len, int fd)
{
    struct vfio_conn *c = &v->conn;
    struct vfio_header h = reply_header(v, len, 0, 0);

    if (!(c->flags & VFIO_NO_REPLY)) {
        memcpy(c->reply, &h, sizeof(h));
        send_message(v, c->reply, sizeof(h) + len, fd);
    }
    if (c->reply_cap > REPLY_CAP) {
        free(c->reply);
        c->reply = NULL;
        c->reply_cap = 0;
    }
}

void
st_vfio_error(struct st_vfio_user *v, int error)
{
    struct vfio_header h = reply_header(v, 0, VFIO_ERROR, (uint32_t)error);

    st_count(&v->errors, 1);
    if (!(v->conn.flags & VFIO_NO_REPLY))
        send_message(v, (const uint8_t *)&h, sizeof(h), -1);
}

/* ---- Messages ---- */

struct vfio_fds *
st_vfio_fds(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    for (unsigned i = 0; i < 2; i++)
        if (c->fds[i].used && c->fds[i].at == c->pos)
            return &c->fds[i];
    return NULL;
}

void
st_vfio_fds_close(struct st_vfio_user *v)
{
    struct vfio_fds *f = st_vfio_fds(v);

    if (f)
        fds_close(f);
}

/* The size that the header at AT says; 0: it is not there yet. */
static size_t
size_at(const struct vfio_conn *c, size_t at)
{
    struct vfio_header h;

    if (c->rx_len - at < sizeof(h))
        return 0;
    memcpy(&h, c->rx + at, sizeof(h));
    return le32_get(h.size);
}

/* The message is answered. */
static void
message_end(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;

    st_vfio_fds_close(v);
    c->pos += sizeof(struct vfio_header) + c->len;
    if (!c->deferred)
        st_vfio_journal_served(v, c->id, c->command,
                               sizeof(struct vfio_header) + c->len);
    c->again_first = false;
}

/* Serve the next message: false if there is none that is whole. */
static bool
message_next(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    size_t size = size_at(c, c->pos);
    struct vfio_header h;

    if (!size && c->rx_len - c->pos < sizeof(h))
        return false;
    if (size < sizeof(h) || size > VFIO_MESSAGE_MAX) {
        drop_protocol(v, "a message has a size that cannot be");
        return false;
    }
    if (size > c->rx_len - c->pos)
        return false;
    memcpy(&h, c->rx + c->pos, sizeof(h));
    if (!st_vfio_dma_settled(v, le16_get(h.command)))
        return false;
    c->id = le16_get(h.id);
    c->command = le16_get(h.command);
    c->flags = le32_get(h.flags);
    c->payload = c->rx + c->pos + sizeof(h);
    c->len = size - sizeof(h);
    c->deferred = false;
    st_count(&v->messages, 1);
    if ((c->flags & VFIO_TYPE) != VFIO_COMMAND) {
        drop_protocol(v, "it replied to nothing");
        return false;
    }
    if (c->flags & VFIO_NO_REPLY)
        st_count(&v->posted, 1);
    if (!c->versioned && c->command != VFIO_VERSION) {
        st_vfio_error(v, EINVAL);
        drop_protocol(v, "its first message is not VERSION");
        return false;
    }
    st_vfio_command(v);
    if (!c->waiting)
        message_end(v);
    return true;
}

void
st_vfio_wait(struct st_vfio_user *v, void (*late)(struct st_vfio_user *v))
{
    struct vfio_conn *c = &v->conn;

    c->waiting = true;
    c->late = late;
    if (!c->timer.slot) /* a message has only so much time */
        st_timer_set(v->loop, &c->timer, v->loop->now + v->opts.timeout_ns);
}

void
st_vfio_continue(struct st_vfio_user *v)
{
    st_timer_stop(v->loop, &v->conn.timer);
    message_end(v);
    st_vfio_resume(v);
}

void
st_vfio_resume(struct st_vfio_user *v)
{
    v->conn.waiting = false;
    conn_again(v);
}

static void
conn_late(struct st_timer *t)
{
    struct st_vfio_user *v = st_container(t, struct st_vfio_user, conn.timer);

    st_count(&v->late, 1);
    v->conn.late(v);
}

/* ---- Bytes ---- */

/* Make room for a gulp, or for the rest of a long message. */
static bool
rx_room(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    size_t want, over;

    st_vfio_journal_consume(v);
    over = v->j ? c->eaten : c->pos;
    if (over) {
        memmove(c->rx, c->rx + over, c->rx_len - over);
        c->rx_len -= over;
        for (unsigned i = 0; i < 2; i++)
            c->fds[i].at -= over;
        c->pos -= over;
        c->eaten = 0;
    }
    want = st_max(size_at(c, c->pos), RX_CAP) + c->pos;
    if (want != c->rx_cap && (want > c->rx_cap || !c->rx_len)) {
        uint8_t *rx = realloc(c->rx, want);

        if (!rx) {
            st_vfio_drop(v, "out of memory");
            return false;
        }
        c->rx = rx;
        c->rx_cap = want;
    }
    return true;
}

/* Where the last message begins of which a byte is there. */
static size_t
last_begin(const struct vfio_conn *c)
{
    size_t at = 0, size;

    while ((size = size_at(c, at)) >= sizeof(struct vfio_header) &&
           size < c->rx_len - at)
        at += size;
    return at;
}

/* The descriptors of MSG belong to the last message. False: too many. */
static bool
take_fds(struct vfio_conn *c, struct msghdr *msg)
{
    struct vfio_fds *f = NULL, *free_one = NULL;
    bool fits = true;

    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (unsigned i = 0; !f && i < 2; i++) {
            if (!c->fds[i].used)
                free_one = &c->fds[i];
            else if (c->fds[i].at == last_begin(c))
                f = &c->fds[i];
        }
        if (!f && free_one) {
            f = free_one;
            f->used = true;
            f->at = last_begin(c);
        }
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (f && f->n < VFIO_FDS_ROOM) {
                f->fd[f->n++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

/* Read once. False: there was nothing, or the end. */
static bool
conn_receive(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(VFIO_FDS_ROOM * sizeof(int))];
    } control;
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    ssize_t n;

    if (!rx_room(v))
        return false;
    iov.iov_base = c->rx + c->rx_len;
    iov.iov_len = st_min(GULP, c->rx_cap - c->rx_len);
    do
        n = recvmsg(c->fd, &msg,
                    MSG_DONTWAIT | MSG_CMSG_CLOEXEC | (v->j ? MSG_PEEK : 0));
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    if (n <= 0) {
        if (n == 0 && c->rx_len > c->pos)
            drop_protocol(v, "it left within a message");
        st_vfio_drop(v, NULL);
        return false;
    }
    c->rx_len += (size_t)n;
    st_count(&v->bytes_in, (uint64_t)n);
    st_count(&v->wakeups, 1);
    if (!take_fds(c, &msg) || msg.msg_flags & MSG_CTRUNC) {
        drop_protocol(v, "it sent too many file descriptors");
        return false;
    }
    return true;
}

/* Has the peer closed its end? Seen also before all that it sent is read. */
static bool
hung_up(const struct vfio_conn *c)
{
    struct pollfd p = {.fd = c->fd};

    return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR | POLLNVAL);
}

/* Read and serve, until there is no more, or a message waits. */
static void
conn_run(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    unsigned round = 0;
    bool more = true;

    c->running = true;
    while (!c->dead && !c->waiting && more && round < ROUNDS) {
        while (!c->dead && !c->waiting && message_next(v))
            ;
        if (!c->dead && !c->waiting)
            more = conn_receive(v);
        round++;
    }
    if (!c->dead && c->waiting && hung_up(c))
        st_vfio_drop(v, NULL);
    c->running = false;
    if (c->dead)
        conn_close(v);
    else if (round == ROUNDS && !c->waiting)
        conn_again(v);
}

static void
conn_again_run(struct st_task *t)
{
    struct st_vfio_user *v = st_container(t, struct st_vfio_user, conn.again);

    v->conn.queued = false;
    conn_run(v);
}

static void
conn_ready(struct st_watch *w, unsigned events)
{
    struct st_vfio_user *v = st_container(w, struct st_vfio_user, conn.watch);

    if (events & EPOLLOUT)
        tx_flush(v);
    conn_run(v);
}

int
st_vfio_conn_serve(struct st_vfio_user *v)
{
    struct vfio_conn *c = &v->conn;
    int rc;

    c->tx_tail = &c->tx;
    c->again.run = conn_again_run;
    c->timer.fire = conn_late;
    c->watch.fd = c->fd;
    c->watch.events = EPOLLIN | EPOLLOUT;
    c->watch.ready = conn_ready;
    rc = st_watch_add(v->loop, &c->watch);
    if (rc < 0)
        st_vfio_conn_give_up(v);
    return rc;
}

void
st_vfio_conn_give_up(struct st_vfio_user *v)
{
    st_vfio_journal_went(v);
    close(v->conn.fd);
    v->conn.fd = -1;
}

int
st_vfio_conn_open(struct st_vfio_user *v, int fd)
{
    struct vfio_conn *c = &v->conn;
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    int size = SOCKET_BUFFER;

    memset(c, 0, sizeof(*c));
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    c->pid = peer.pid;
    c->fd = fd;
    st_vfio_journal_came(v);
    return st_vfio_conn_serve(v);
}
