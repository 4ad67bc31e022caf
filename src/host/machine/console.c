/* SPDX-License-Identifier: MIT
 *
 * The other end of a serial port; see console.h.
 */
#include "console.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RING = 64 << 10, CHUNK = 512 };

struct st_console {
    struct st_console_opts opts;
    struct st_loop *loop;
    struct st_serial *serial; /* borrowed; or NULL */
    int in, out;              /* now; -1: nobody is there */
    int in_flags, out_flags;  /* before us; -1: as they were */
    int client;               /* owned; -1 */
    struct st_watch watch_in, watch_out, watch_listen;
    bool watching_in, watching_out, watching_listen;
    bool escaped; /* the escape key was typed */
    uint8_t typed[CHUNK];
    size_t ntyped; /* that the port has not taken */

    pthread_mutex_t lock; /* guards the ring; innermost */
    uint8_t ring[RING];
    size_t first, n;
    bool full;   /* send was refused */
    bool posted; /* `drain` is on its way */
    struct st_task drain;
    _Atomic bool asked; /* `refill` is on its way */
    struct st_task refill;
};

/* ---- Out ---- */

bool
st_console_send(struct st_console *c, uint8_t byte)
{
    bool sent, post;

    pthread_mutex_lock(&c->lock);
    sent = c->n < RING;
    if (sent)
        c->ring[(c->first + c->n++) % RING] = byte;
    c->full |= !sent;
    post = !c->posted;
    c->posted = true;
    pthread_mutex_unlock(&c->lock);
    if (post)
        st_post(c->loop, &c->drain);
    return sent;
}

static void client_gone(struct st_console *c);

/* Write what there is. False: no room now. */
static bool
write_some(struct st_console *c)
{
    for (;;) {
        size_t from, n;
        ssize_t did;

        pthread_mutex_lock(&c->lock);
        from = c->first;
        n = c->n < RING - from ? c->n : RING - from;
        pthread_mutex_unlock(&c->lock);
        if (!n)
            return true;
        did = c->out < 0 ? (ssize_t)n : write(c->out, c->ring + from, n);
        if (did < 0 && errno == EINTR)
            continue;
        if (did < 0 && errno == EAGAIN)
            return false;
        if (did < 0) { /* nobody reads it any more */
            did = (ssize_t)n;
            if (c->client >= 0)
                client_gone(c);
        }
        pthread_mutex_lock(&c->lock);
        c->first = (c->first + (size_t)did) % RING;
        c->n -= (size_t)did;
        pthread_mutex_unlock(&c->lock);
    }
}

static void
drain(struct st_console *c)
{
    bool room;

    pthread_mutex_lock(&c->lock);
    c->posted = false;
    pthread_mutex_unlock(&c->lock);
    if (!write_some(c) && !c->watching_out)
        c->watching_out = st_watch_add(c->loop, &c->watch_out) == 0;
    pthread_mutex_lock(&c->lock);
    room = c->full && c->n < RING;
    if (room)
        c->full = false;
    pthread_mutex_unlock(&c->lock);
    if (room && c->serial)
        st_serial_writable(c->serial);
}

static void
drain_task(struct st_task *t)
{
    drain(st_container(t, struct st_console, drain));
}

static void
out_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    drain(st_container(w, struct st_console, watch_out));
}

/* ---- In ---- */

/* Take the escape key out of what was typed. */
static void
typed_filter(struct st_console *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->ntyped; i++) {
        uint8_t b = c->typed[i];

        if (c->escaped && b != ST_CONSOLE_ESCAPE) {
            c->escaped = false;
            c->opts.escape(c->opts.arg, (char)b);
        } else if (!c->escaped && b == ST_CONSOLE_ESCAPE) {
            c->escaped = true;
        } else {
            c->escaped = false;
            c->typed[n++] = b;
        }
    }
    c->ntyped = n;
}

/* Hand on what was typed. False: the port has no room for all of it. */
static bool
typed_send(struct st_console *c)
{
    size_t took =
        c->serial ? st_serial_receive(c->serial, c->typed, c->ntyped) : 0;

    c->ntyped -= took;
    memmove(c->typed, c->typed + took, c->ntyped);
    return c->ntyped == 0;
}

static void
stop_in(struct st_console *c)
{
    if (c->watching_in)
        st_watch_remove(c->loop, &c->watch_in);
    c->watching_in = false;
    c->in = -1;
}

static void
read_some(struct st_console *c)
{
    while (c->in >= 0 && typed_send(c)) {
        ssize_t n = read(c->in, c->typed, sizeof(c->typed));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) { /* the end of it */
            if (c->client >= 0)
                client_gone(c);
            else
                stop_in(c);
            return;
        }
        c->ntyped = (size_t)n;
        if (c->opts.escape)
            typed_filter(c);
    }
}

static void
refill_task(struct st_task *t)
{
    struct st_console *c = st_container(t, struct st_console, refill);

    atomic_store(&c->asked, false);
    read_some(c);
}

void
st_console_room(struct st_console *c)
{
    if (!atomic_exchange(&c->asked, true))
        st_post(c->loop, &c->refill);
}

static void
in_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    read_some(st_container(w, struct st_console, watch_in));
}

/* Regular files cannot be waited for: they are always ready. */
static void
start_in(struct st_console *c, int fd)
{
    c->in = fd;
    if (fd < 0)
        return;
    c->watch_in =
        (struct st_watch){.ready = in_ready, .fd = fd, .events = EPOLLIN};
    c->watching_in = st_watch_add(c->loop, &c->watch_in) == 0;
    if (!c->watching_in)
        st_console_room(c);
}

static void
start_out(struct st_console *c, int fd)
{
    c->out = fd;
    c->watch_out =
        (struct st_watch){.ready = out_ready, .fd = fd, .events = EPOLLOUT};
}

static void
stop_out(struct st_console *c)
{
    if (c->watching_out)
        st_watch_remove(c->loop, &c->watch_out);
    c->watching_out = false;
    c->out = -1;
}

/* ---- Clients ---- */

static void
client_accept(struct st_console *c)
{
    int fd;

    if (c->client >= 0)
        return;
    fd = accept4(c->opts.listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    c->client = fd;
    start_out(c, fd);
    start_in(c, fd);
}

static void
client_gone(struct st_console *c)
{
    stop_in(c);
    stop_out(c);
    close(c->client);
    c->client = -1;
    client_accept(c); /* another one may wait */
}

static void
listen_ready(struct st_watch *w, unsigned events)
{
    (void)events;
    client_accept(st_container(w, struct st_console, watch_listen));
}

/* ---- Made and freed ---- */

/* FD does not block any more; gives its flags from before, or -1. */
static int
unblock(int fd)
{
    int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);

    if (flags < 0 || flags & O_NONBLOCK ||
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -1;
    return flags;
}

int
st_console_create(const struct st_console_opts *opts, struct st_console **out)
{
    struct st_console *c = calloc(1, sizeof(*c));
    int rc = 0;

    if (!c)
        return -ENOMEM;
    c->opts = *opts;
    c->loop = opts->loop;
    c->client = c->in = c->out = -1;
    c->in_flags = c->out_flags = -1;
    c->drain.run = drain_task;
    c->refill.run = refill_task;
    pthread_mutex_init(&c->lock, NULL);
    if (opts->listen >= 0) {
        unblock(opts->listen);
        c->watch_listen = (struct st_watch){
            .ready = listen_ready, .fd = opts->listen, .events = EPOLLIN};
        rc = st_watch_add(c->loop, &c->watch_listen);
        c->watching_listen = rc == 0;
    } else {
        c->in_flags = unblock(opts->in);
        c->out_flags = unblock(opts->out);
        start_out(c, opts->out);
        start_in(c, opts->in);
    }
    if (rc < 0) {
        st_console_destroy(c);
        return rc;
    }
    *out = c;
    return 0;
}

void
st_console_lend(struct st_console *c, bool lent)
{
    if (!lent) {
        c->in_flags = unblock(c->opts.in);
        c->out_flags = unblock(c->opts.out);
        return;
    }
    if (c->in_flags >= 0)
        fcntl(c->opts.in, F_SETFL, c->in_flags);
    if (c->out_flags >= 0)
        fcntl(c->opts.out, F_SETFL, c->out_flags);
}

void
st_console_destroy(struct st_console *c)
{
    if (!c)
        return;
    write_some(c);
    st_retract(c->loop, &c->drain);
    st_retract(c->loop, &c->refill);
    stop_in(c);
    stop_out(c);
    if (c->client >= 0)
        close(c->client);
    if (c->watching_listen)
        st_watch_remove(c->loop, &c->watch_listen);
    if (c->opts.listen >= 0)
        close(c->opts.listen);
    st_console_lend(c, true);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void
st_console_attach(struct st_console *c, struct st_serial *s)
{
    c->serial = s;
    if (s)
        st_console_room(c);
}
