/* SPDX-License-Identifier: MIT
 *
 * Messages of the kernel about block devices; see uevent.h.
 *
 * They are not to be trusted blindly: who may send to a netlink group is the
 * kernel's decision, and it lets root of a network namespace do so. A sender's
 * port is none that it could choose, though, and the kernel's own is 0.
 *
 * Threads: the lock guards the list of ears and the flags. The socket and its
 * watch belong to the home loop, which the others reach by one posted task.
 */
#include "uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"

enum {
    UEVENT_GROUP = 1,   /* the kernel's; udev tells its own in another */
    UEVENT_SIZE = 8192, /* of a message; the kernel's have 2 KiB and a path */
    UEVENT_BURST = 64,  /* messages in one go, then others run */
};

struct uevents {
    struct st_resident resident; /* first */
    struct st_loop *home;
    char *msg;             /* owned: UEVENT_SIZE */
    pthread_mutex_t lock;  /* what follows; held while an ear hears */
    struct st_watch watch; /* fd -1: cannot listen */
    bool watching;         /* changes on the home loop only */
    struct st_list ears;   /* uevent_ear.link */
    struct st_task task;
    bool posted; /* the task */
};

/* Tell the ears of a device, or with EV NULL every one: it looks again. */
static void
uevents_tell(struct uevents *u, const struct uevent *ev)
{
    pthread_mutex_lock(&u->lock);
    st_list_for(e, tmp, &u->ears, struct uevent_ear, link)
    {
        if (!ev || (e->major == ev->major && e->minor == ev->minor))
            e->hear(e, ev ? ev->what : 0);
    }
    pthread_mutex_unlock(&u->lock);
}

/* One message. False when there is none left. */
static bool
uevents_receive(struct uevents *u)
{
    struct sockaddr_nl from = {0};
    struct iovec iov = {u->msg, UEVENT_SIZE};
    struct msghdr m = {.msg_name = &from,
                       .msg_namelen = sizeof(from),
                       .msg_iov = &iov,
                       .msg_iovlen = 1};
    ssize_t n = recvmsg(u->watch.fd, &m, MSG_DONTWAIT);
    struct uevent ev;

    if (n < 0 && errno == ENOBUFS)
        uevents_tell(u, NULL); /* some were lost: anything may have changed */
    if (n < 0)
        return errno == ENOBUFS || errno == EINTR;
    if (m.msg_flags & MSG_TRUNC || m.msg_namelen != sizeof(from) ||
        from.nl_family != AF_NETLINK || from.nl_pid != 0)
        return true; /* not the kernel, or nothing that it says */
    if (uevent_parse(u->msg, (size_t)n, &ev) && ev.what)
        uevents_tell(u, &ev);
    return true;
}

static void
uevents_post(struct uevents *u) /* with the lock */
{
    if (!u->posted)
        st_post(u->home, &u->task);
    u->posted = true;
}

static void
uevents_ready(struct st_watch *w, unsigned events)
{
    struct uevents *u = st_container(w, struct uevents, watch);

    (void)events;
    for (unsigned n = 0; n < UEVENT_BURST; n++)
        if (!uevents_receive(u))
            return;
    pthread_mutex_lock(&u->lock);
    uevents_post(u);
    pthread_mutex_unlock(&u->lock);
}

static void
uevents_cannot(struct uevents *u, int errnum)
{
    st_warn(st_domain_log(u->home->domain),
            "block devices: the kernel's messages cannot be had (%s): a new "
            "size is seen only when it is asked for",
            st_strerror(-errnum));
}

/* On the home loop: begin to watch, hear whoever was poked, go on reading. */
static void
uevents_run(struct st_task *t)
{
    struct uevents *u = st_container(t, struct uevents, task);
    bool was_watching = u->watching;

    pthread_mutex_lock(&u->lock);
    u->posted = false;
    st_list_for(e, tmp, &u->ears, struct uevent_ear, link)
    {
        if (e->poked)
            e->hear(e, 0);
        e->poked = false;
    }
    if (!u->watching && u->watch.fd >= 0) {
        int rc = st_watch_add(u->home, &u->watch);

        u->watching = rc == 0;
        if (rc < 0) {
            uevents_cannot(u, -rc);
            close(u->watch.fd);
            u->watch.fd = -1;
        }
    }
    pthread_mutex_unlock(&u->lock);
    if (was_watching)
        uevents_ready(&u->watch, 0);
}

/* ---- Its life ---- */

static void
uevents_end(struct st_resident *r)
{
    struct uevents *u = (struct uevents *)r;

    if (u->watching)
        st_watch_remove(u->home, &u->watch);
    st_retract(u->home, &u->task);
    if (u->watch.fd >= 0)
        close(u->watch.fd);
    pthread_mutex_destroy(&u->lock);
    free(u->msg);
    free(u);
}

static int
uevents_socket(void)
{
    const struct sockaddr_nl a = {.nl_family = AF_NETLINK,
                                  .nl_groups = UEVENT_GROUP};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    NETLINK_KOBJECT_UEVENT);

    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    return fd;
}

static struct st_resident *
uevents_make(struct st_loop *home)
{
    struct uevents *u = calloc(1, sizeof(*u));
    int rc;

    if (!u || !(u->msg = malloc(UEVENT_SIZE))) {
        free(u);
        return NULL;
    }
    u->resident.end = uevents_end;
    u->home = home;
    u->task.run = uevents_run;
    u->watch.ready = uevents_ready;
    u->watch.events = EPOLLIN;
    u->watch.fd = -1;
    pthread_mutex_init(&u->lock, NULL);
    st_list_init(&u->ears);
    if (st_domain_is_virtual(home->domain))
        return &u->resident; /* its runs are to repeat */
    rc = uevents_socket();
    if (rc < 0)
        uevents_cannot(u, -rc);
    else
        u->watch.fd = rc;
    return &u->resident;
}

void
uevent_join(struct st_loop *home, struct uevent_ear *e)
{
    static const char key;
    struct uevents *u =
        (struct uevents *)st_loop_resident(home, &key, uevents_make);

    if (!u)
        return;
    pthread_mutex_lock(&u->lock);
    e->to = u;
    st_list_append(&u->ears, &e->link);
    if (!u->watching && u->watch.fd >= 0)
        uevents_post(u);
    pthread_mutex_unlock(&u->lock);
}

void
uevent_leave(struct uevent_ear *e)
{
    struct uevents *u = e->to;

    if (!u)
        return;
    pthread_mutex_lock(&u->lock);
    st_list_remove(&e->link);
    pthread_mutex_unlock(&u->lock);
    e->to = NULL;
}

void
uevent_poke(struct uevent_ear *e)
{
    struct uevents *u = e->to;

    if (!u)
        return;
    pthread_mutex_lock(&u->lock);
    e->poked = true;
    uevents_post(u);
    pthread_mutex_unlock(&u->lock);
}
