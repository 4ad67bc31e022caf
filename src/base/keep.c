/* SPDX-License-Identifier: MIT
 *
 * Descriptors that outlive a process; see keep.h.
 */
#include "keep.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One descriptor and what it is called. */
struct kept {
    struct kept *next;
    int fd; /* owned */
    char name[ST_KEEP_NAME];
};

/* A process's end. */
struct st_keep {
    int socket;        /* owned */
    bool resumes;      /* there was something */
    struct kept *left; /* owned: by the predecessor, not yet got */
};

/* The holder's table. */
struct st_holder {
    struct kept *all; /* owned */
    unsigned n;
};

enum { PUT = '+', DROP = '-', END = '.' };

/* ---- Tables ---- */

static void
kept_free(struct kept *k)
{
    if (k->fd >= 0)
        close(k->fd);
    free(k);
}

static void
kept_free_all(struct kept *k)
{
    while (k) {
        struct kept *next = k->next;

        kept_free(k);
        k = next;
    }
}

/* Take NAME out of the table: the caller owns it. NULL: it is not there. */
static struct kept *
kept_out(struct kept **table, const char *name)
{
    for (struct kept **k = table; *k; k = &(*k)->next) {
        struct kept *found = *k;

        if (strcmp(found->name, name) != 0)
            continue;
        *k = found->next;
        return found;
    }
    return NULL;
}

/* ---- Packets ---- */

/* Send TEXT with FD (or -1). 0 or -errno. */
static int
packet_send(int socket, const char *text, int fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};
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
        n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

/* Receive into TEXT of SIZE, with a NUL; *FD is the caller's, or -1. The
 * length, 0 at the end, -errno; -EMFILE: its descriptor got lost. */
static ssize_t
packet_receive(int socket, char *text, size_t size, int *fd)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {text, size - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    struct cmsghdr *h;
    ssize_t n;

    *fd = -1;
    do
        n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? 0 : -errno;
    text[n] = '\0';
    h = CMSG_FIRSTHDR(&msg);
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
        h->cmsg_len >= CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(h), sizeof(int));
    return msg.msg_flags & MSG_CTRUNC ? -EMFILE : n;
}

/* FD (taken) as NAME into TABLE. 0 or -errno. */
static int
kept_in(struct kept **table, const char *name, int fd)
{
    struct kept *k = calloc(1, sizeof(*k));

    if (!k) {
        close(fd);
        return -ENOMEM;
    }
    k->fd = fd;
    snprintf(k->name, sizeof(k->name), "%s", name);
    k->next = *table;
    *table = k;
    return 0;
}

/* ---- The process ---- */

int
st_keep_open(int fd, struct st_keep **out, struct st_err *err)
{
    struct st_keep *k = calloc(1, sizeof(*k));
    char text[ST_KEEP_NAME + 1];
    ssize_t n = -ENOMEM;

    if (!k) {
        close(fd);
        return st_err_set(err, ENOMEM, "no memory");
    }
    k->socket = fd;
    for (;;) {
        int got;

        n = packet_receive(fd, text, sizeof(text), &got);
        if (n <= 0 || *text != PUT || got < 0) {
            if (got >= 0)
                close(got);
            break;
        }
        n = kept_in(&k->left, text + 1, got);
        if (n < 0)
            break;
        k->resumes = true;
    }
    if (n > 0 && *text == END) {
        *out = k;
        return 0;
    }
    st_keep_close(k);
    return st_err_set(err, n < 0 ? (int)-n : EPROTO,
                      "what a process before this one has left cannot be "
                      "had: %s",
                      n < 0 ? st_strerror((int)n) : "no keeper is there");
}

void
st_keep_close(struct st_keep *k)
{
    if (!k)
        return;
    kept_free_all(k->left);
    close(k->socket);
    free(k);
}

bool
st_keep_resumes(const struct st_keep *k)
{
    return k && k->resumes;
}

int
st_keep_socket(const struct st_keep *k)
{
    return k->socket;
}

/* TEXT is OP and a name. */
static void
packet_name(char text[ST_KEEP_NAME + 1], char op, const char *fmt, va_list ap)
{
    text[0] = op;
    vsnprintf(text + 1, ST_KEEP_NAME, fmt, ap);
}

int
st_keep_get(struct st_keep *k, const char *fmt, ...)
{
    char text[ST_KEEP_NAME + 1];
    struct kept *found;
    int fd = -1;
    va_list ap;

    if (!k)
        return -1;
    va_start(ap, fmt);
    packet_name(text, PUT, fmt, ap);
    va_end(ap);
    found = kept_out(&k->left, text + 1);
    if (found) {
        fd = found->fd;
        found->fd = -1;
        kept_free(found);
    }
    return fd;
}

int
st_keep_put(struct st_keep *k, int fd, const char *fmt, ...)
{
    char text[ST_KEEP_NAME + 1];
    va_list ap;

    if (!k)
        return 0;
    va_start(ap, fmt);
    packet_name(text, PUT, fmt, ap);
    va_end(ap);
    return packet_send(k->socket, text, fd);
}

void
st_keep_drop(struct st_keep *k, const char *fmt, ...)
{
    char text[ST_KEEP_NAME + 1];
    va_list ap;

    if (!k)
        return;
    va_start(ap, fmt);
    packet_name(text, DROP, fmt, ap);
    va_end(ap);
    packet_send(k->socket, text, -1);
}

void
st_keep_forget(struct st_keep *k)
{
    while (k && k->left) {
        struct kept *next = k->left->next;

        st_keep_drop(k, "%s", k->left->name);
        kept_free(k->left);
        k->left = next;
    }
}

/* ---- The holder ---- */

struct st_holder *
st_holder_create(void)
{
    return calloc(1, sizeof(struct st_holder));
}

void
st_holder_destroy(struct st_holder *h)
{
    if (!h)
        return;
    kept_free_all(h->all);
    free(h);
}

unsigned
st_holder_count(const struct st_holder *h)
{
    return h->n;
}

int
st_holder_give(const struct st_holder *h, int socket)
{
    static const char end[] = {END, '\0'};
    char text[ST_KEEP_NAME + 1] = {PUT};
    int rc = 0;

    for (const struct kept *k = h->all; k && rc == 0; k = k->next) {
        memcpy(text + 1, k->name, sizeof(k->name));
        rc = packet_send(socket, text, k->fd);
    }
    return rc < 0 ? rc : packet_send(socket, end, -1);
}

int
st_holder_take(struct st_holder *h, int socket, char *text, size_t size,
               size_t *len)
{
    struct kept *old;
    int fd, rc;
    ssize_t n = packet_receive(socket, text, size, &fd);

    if (n <= 0 || (*text == PUT) != (fd >= 0)) {
        if (fd >= 0)
            close(fd);
        return n > 0 ? -EPROTO : (int)n;
    }
    if (*text != PUT && *text != DROP) {
        *len = (size_t)n;
        return 2;
    }
    old = kept_out(&h->all, text + 1);
    if (old) {
        kept_free(old);
        h->n--;
    }
    if (*text == DROP)
        return 1;
    rc = kept_in(&h->all, text + 1, fd);
    h->n += rc == 0;
    return rc < 0 ? rc : 1;
}
