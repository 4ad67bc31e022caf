/* SPDX-License-Identifier: MIT
 *
 * One connection: what it reads and sends, and its life on one loop.
 *
 *   watch --> read: one recv --> parse (handshake, transmit) --> disk
 *                                                                  |
 *   socket <-- flush: one sendmsg a turn <-- out: finished slots <-+
 *
 * - All sockets of a worker are read into one block, which requests may point
 *   into; when those outlive the turn, another block takes its place. An idle
 *   connection so costs little more than its struct.
 * - A large payload is received where the disk will find it, together with the
 *   next header.
 * - A recv that brought less than asked has emptied the socket: the next one
 *   comes after the watch has spoken.
 * - Limits (memory, requests) work by not reading: what was received and cannot
 *   be started stays where it is (rest).
 * - Once STARTTLS is answered, and not before, all bytes are TLS (stream.c).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "nbd_private.h"

enum {
    RECV_ROOM = 64 << 10,  /* take another block when less than this is left */
    RECV_SHORT = 16 << 10, /* ask for no more while memory is short */
    SEND_IOV = 128,        /* per call */
    SEND_NOW = 256 << 10,  /* do not wait for the end of the turn */
};

/* ---- Life ---- */

void
st_nbd_conn_wake(struct nbd_conn *c)
{
    if (!c->queued && !c->closing) {
        c->queued = true;
        st_ready(c->worker->loop, &c->read);
    }
}

void
st_nbd_conn_settle(struct nbd_conn *c)
{
    bool silent = c->dead || (!c->out && !c->text.len && !c->unsent);

    if (c->deaf && silent && !st_counter_get(&c->inflight) && !c->queued &&
        !c->closing) {
        c->closing = true;
        st_ready(c->worker->loop, &c->close);
    }
}

static void
rest_drop(struct nbd_conn *c)
{
    if (c->home)
        st_nbd_block_put(c->worker, c->home);
    c->home = NULL;
    c->nrest = 0;
}

void
st_nbd_conn_fail(struct nbd_conn *c, const char *why)
{
    struct nbd_slot *s;

    if (c->dead)
        return;
    if (why) {
        st_count(&c->worker->protocol_errors, 1);
        st_warn_limited(c->worker->server->log, &c->worker->server->limiter,
                        "nbd: client %" PRIu64 ": %s: disconnected", c->number,
                        why);
    }
    c->dead = c->deaf = true;
    shutdown(c->fd, SHUT_RDWR);
    rest_drop(c);
    st_nbd_mem_leave(c);
    st_nbd_payload_lost(c);
    while ((s = c->out)) {
        c->out = s->next;
        if (!c->out)
            c->out_tail = &c->out;
        st_nbd_slot_sent(s);
    }
    st_nbd_conn_settle(c);
}

void
st_nbd_conn_deafen(struct nbd_conn *c)
{
    c->deaf = true;
    st_nbd_mem_leave(c);
    if (c->in)
        st_nbd_conn_fail(c, NULL);
}

/* Task: nothing refers to C on this loop any more. */
static void
conn_close(struct st_task *t)
{
    struct nbd_conn *c = st_container(t, struct nbd_conn, close);
    struct nbd_worker *w = c->worker;

    st_nbd_tls_close(c);
    st_timer_stop(w->loop, &c->timer);
    if (c->watched)
        st_watch_remove(w->loop, &c->watch);
    st_nbd_mem_leave(c);
    rest_drop(c);
    st_list_remove(&c->dirty);
    st_list_remove(&c->link);
    atomic_store(&c->shown, NULL);
    if (c->port)
        st_nbd_port_put(c->port);
    /* The engine may hold the file a little longer; the peer must know now. */
    shutdown(c->fd, SHUT_RDWR);
    close(c->fd);
    free(c->large);
    free(c->text.data);
    c->large = NULL;
    c->text.data = NULL;
    st_post(w->server->control, &c->gone);
}

/* ---- Reading ---- */

const uint8_t *
st_nbd_collect(struct nbd_conn *c, const uint8_t **p, const uint8_t *end,
               size_t want)
{
    size_t have = (size_t)(end - *p), n;
    uint8_t *to = c->head;

    if (!c->nstash && have >= want) {
        *p += want;
        return *p - want;
    }
    if (want > sizeof(c->head)) {
        if (!c->large && !(c->large = malloc(want))) {
            st_nbd_conn_fail(c, NULL);
            return NULL;
        }
        to = c->large;
    }
    n = want - c->nstash;
    if (n > have)
        n = have;
    memcpy(to + c->nstash, *p, n);
    *p += n;
    c->nstash += n;
    return c->nstash == want ? to : NULL;
}

/* Look at what was received; the rest stays for later. */
static void
parse(struct nbd_conn *c, const uint8_t *p, size_t n, struct nbd_block *home)
{
    size_t used = 0;

    if (c->state != NBD_STATE_SERVE)
        used = st_nbd_handshake(c, p, n);
    if (c->state == NBD_STATE_SERVE)
        used += st_nbd_transmit(c, p + used, n - used, home);
    if (c->deaf || used == n) {
        rest_drop(c);
        return;
    }
    if (!c->home) {
        c->home = home;
        home->refs++;
    }
    c->rest = p + used;
    c->nrest = n - used;
}

/* Somewhere to read small things to. False: C waits for memory. */
static bool
recv_room(struct nbd_conn *c)
{
    struct nbd_worker *w = c->worker;

    if (w->recv && w->recv->refs == 1)
        w->recv_at = 0;
    if (w->recv && w->recv->size - w->recv_at < RECV_ROOM) {
        st_nbd_block_put(w, w->recv);
        w->recv = NULL;
    }
    if (!w->recv) {
        if (!st_nbd_mem_take(c, NBD_BLOCK_MAX))
            return false;
        w->recv = st_nbd_block_new(w, NBD_BLOCK_MAX);
        w->recv_at = 0;
        if (!w->recv)
            st_nbd_conn_fail(c, NULL);
    }
    return w->recv;
}

/* One recv, and all that it brought. */
static void
conn_recv(struct nbd_conn *c)
{
    struct nbd_worker *w = c->worker;
    struct iovec iov[2];
    unsigned n = 0;
    size_t asked = 0, got, k;
    bool block = false; /* the last iovec is w->recv */
    size_t header = c->extended ? 32 : 28;
    ssize_t r;

    if (c->fill_room) {
        iov[n++] = (struct iovec){c->fill, c->fill_room};
        asked = c->fill_room;
    }
    if (c->bulk) {
        /* The next payload must not come here: only a header. */
        bool last = !c->in || c->in->started == c->in->len;

        if (last)
            iov[n++] = (struct iovec){c->head + c->nstash, header - c->nstash};
    } else {
        if (!recv_room(c))
            return;
        block = true;
        iov[n++] = (struct iovec){w->recv->data + w->recv_at,
                                  w->recv->size - w->recv_at};
        if (st_nbd_mem_short(w) && iov[n - 1].iov_len > RECV_SHORT)
            iov[n - 1].iov_len = RECV_SHORT;
    }
    if (asked == 0 || n == 2)
        asked += iov[n - 1].iov_len;
    r = st_nbd_recv(c, iov, n, asked);
    if (r < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (r <= 0) { /* it may have closed only its sending side */
        st_nbd_conn_deafen(c);
        return;
    }
    got = (size_t)r;
    st_count(&w->bytes_in, got);
    st_count(&c->bytes_in, got);
    k = got < c->fill_room ? got : c->fill_room;
    if (k) {
        c->fill += k;
        c->fill_room -= k;
        got -= k;
        if (!c->fill_room)
            st_nbd_payload_full(c);
    }
    if (block) {
        const uint8_t *p = w->recv->data + w->recv_at;

        w->recv_at += got;
        if (got)
            parse(c, p, got, w->recv);
    } else {
        c->nstash += got;
        if (c->nstash == header)
            parse(c, c->head, 0, NULL);
    }
}

/* Task: go on with what was left, then with the socket. */
static void
conn_read(struct st_task *t)
{
    struct nbd_conn *c = st_container(t, struct nbd_conn, read);

    c->queued = false;
    c->stalled = false;
    c->round = 0;
    if (!c->deaf) {
        if (c->nrest || c->nstash || (c->in && !c->fill_room))
            parse(c, c->nrest ? c->rest : c->head, c->nrest, c->home);
        if (!c->deaf && !c->nrest && !c->stalled && c->readable &&
            !c->text.len && st_list_empty(&c->wait) &&
            !(c->in && !c->fill_room)) {
            if (c->state == NBD_STATE_TLS) {
                if (st_nbd_tls_accept(c))
                    st_nbd_secured(c);
            } else {
                conn_recv(c);
            }
            if (c->readable && !c->deaf && !c->nrest && !c->stalled &&
                st_list_empty(&c->wait))
                st_nbd_conn_wake(c);
        }
    }
    if (c->grant)
        st_nbd_mem_leave(c); /* it needed none after all */
    st_nbd_conn_settle(c);
}

/* ---- Writing ---- */

static void
watch_again(struct nbd_conn *c, unsigned events)
{
    if (c->watched)
        st_watch_remove(c->worker->loop, &c->watch);
    c->watch.events = events;
    c->watched = st_watch_add(c->worker->loop, &c->watch) == 0;
    if (!c->watched)
        st_nbd_conn_fail(c, NULL);
}

void
st_nbd_conn_dirty(struct nbd_conn *c)
{
    struct nbd_worker *w = c->worker;

    if (st_list_empty(&c->dirty) && !c->blocked)
        st_list_append(&w->dirty, &c->dirty);
    if (!w->flush_queued) {
        w->flush_queued = true;
        st_at_end(w->loop, &w->flush);
    }
    if (c->out_bytes >= SEND_NOW && !c->blocked && !c->flushing)
        st_nbd_conn_flush(c);
}

/* N bytes have left. */
static void
sent(struct nbd_conn *c, size_t n)
{
    struct nbd_text *t = &c->text;
    struct nbd_slot *s;

    st_count(&c->worker->bytes_out, n);
    st_count(&c->bytes_out, n);
    if (t->len) {
        size_t k = t->len - t->sent < n ? t->len - t->sent : n;

        t->sent += k;
        n -= k;
        if (t->sent < t->len)
            return;
        t->len = t->sent = 0;
        st_nbd_conn_wake(c); /* the next option */
    }
    c->out_bytes -= n;
    n += c->out_sent;
    while ((s = c->out) && n >= s->head_len + s->iov.iov_len) {
        n -= s->head_len + s->iov.iov_len;
        c->out = s->next;
        if (!c->out)
            c->out_tail = &c->out;
        st_nbd_slot_sent(s);
    }
    c->out_sent = n;
}

/* Part of a message that is not sent yet: add it to IOV, less *SKIP bytes. */
static unsigned
add(struct iovec *iov, const void *p, size_t len, size_t *skip, size_t *total)
{
    if (*skip >= len) {
        *skip -= len;
        return 0;
    }
    iov->iov_base = (char *)(uintptr_t)p + *skip;
    iov->iov_len = len - *skip;
    *total += iov->iov_len;
    *skip = 0;
    return 1;
}

void
st_nbd_conn_flush(struct nbd_conn *c)
{
    c->flushing = true;
    while (!c->dead && !c->blocked && (c->out || c->text.len || c->unsent)) {
        struct iovec iov[SEND_IOV];
        size_t skip = c->text.sent, total = 0;
        unsigned n = 0;
        ssize_t r;

        if (c->text.len)
            n = add(iov, c->text.data, c->text.len, &skip, &total);
        skip = c->out_sent;
        for (struct nbd_slot *s = c->out; s && n + 2 <= SEND_IOV; s = s->next) {
            n += add(iov + n, s->head, s->head_len, &skip, &total);
            n += add(iov + n, s->iov.iov_base, s->iov.iov_len, &skip, &total);
        }
        r = st_nbd_send(c, iov, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            st_nbd_conn_fail(c, NULL);
            break;
        }
        if (r > 0)
            sent(c, (size_t)r);
        if (r < 0 || (size_t)r < total || c->unsent) {
            c->blocked = true;
            watch_again(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
        }
    }
    c->flushing = false;
    st_nbd_conn_settle(c);
}

void
st_nbd_worker_flush(struct st_task *t)
{
    struct nbd_worker *w = st_container(t, struct nbd_worker, flush);
    struct st_list now;

    w->flush_queued = false;
    st_list_init(&now);
    st_list_splice(&now, &w->dirty);
    st_list_for(c, tmp, &now, struct nbd_conn, dirty)
    {
        st_list_remove(&c->dirty);
        st_nbd_conn_flush(c);
    }
}

/* ---- Events ---- */

static void
conn_event(struct st_watch *watch, unsigned events)
{
    struct nbd_conn *c = st_container(watch, struct nbd_conn, watch);

    if (c->blocked && (events & EPOLLOUT)) {
        c->blocked = false;
        st_nbd_conn_flush(c);
        if (!c->blocked && !c->dead)
            watch_again(c, EPOLLIN | EPOLLRDHUP);
    } else if (events & EPOLLOUT) {
        c->hangup = true; /* not asked for: an error or a hang-up */
    }
    if (events & EPOLLRDHUP)
        c->hangup = true;
    c->readable = true;
    if (!c->queued && !c->closing) {
        c->queued = true;
        conn_read(&c->read);
    }
}

static void
conn_timeout(struct st_timer *t)
{
    struct nbd_conn *c = st_container(t, struct nbd_conn, timer);

    st_nbd_conn_fail(c, "handshake takes too long");
}

void
st_nbd_conn_adopt(struct st_task *t)
{
    struct nbd_conn *c = st_container(t, struct nbd_conn, adopt);
    struct nbd_worker *w = c->worker;

    c->read.run = conn_read;
    c->close.run = conn_close;
    c->watch.ready = conn_event;
    c->watch.fd = c->fd;
    c->timer.fire = conn_timeout;
    c->out_tail = &c->out;
    st_list_init(&c->flight);
    st_list_init(&c->dirty);
    st_list_init(&c->wait);
    st_list_append(&w->conns, &c->link);
    watch_again(c, EPOLLIN | EPOLLRDHUP);
    if (c->dead)
        return;
    st_timer_set(w->loop, &c->timer, w->loop->now + w->server->handshake_ns);
    st_nbd_hello(c);
}
