/* SPDX-License-Identifier: MIT
 *
 * Readiness, for a service manager; see notify.h.
 */
#include "notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "err.h"

/* A path, or a name in the abstract namespace, which begins with `@`. The
 * length of the address, or 0 for what is neither. */
static socklen_t
notify_address(const char *name, struct sockaddr_un *out)
{
    size_t len = strlen(name);

    if (len < 2 || len >= sizeof(out->sun_path) ||
        (*name != '/' && *name != '@'))
        return 0;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, name, len);
    if (*name == '@')
        *out->sun_path = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
                       (*name == '/'));
}

int
st_cmd_notify_open(const struct st_log *log)
{
    const char *name = getenv("NOTIFY_SOCKET");
    const struct timeval patience = {.tv_sec = 5};
    struct sockaddr_un at;
    socklen_t len;
    int fd = -1;

    if (!name)
        return -1;
    len = notify_address(name, &at);
    errno = EAFNOSUPPORT;
    if (len)
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, len) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) <
            0) {
        st_warn(log,
                "NOTIFY_SOCKET '%s': %s; the service manager will not "
                "hear that this is ready",
                name, st_strerror(-errno));
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    unsetenv("NOTIFY_SOCKET");
    return fd;
}

void
st_cmd_notify_ready(int fd, const char *fmt, ...)
{
    static const char head[] = "READY=1\nSTATUS=";
    char text[512];
    int len = (int)sizeof(head) - 1;
    va_list ap;

    if (fd < 0)
        return;
    memcpy(text, head, sizeof(head));
    va_start(ap, fmt);
    vsnprintf(text + len, sizeof(text) - (size_t)len, fmt, ap);
    va_end(ap);
    /* A line break, in a file's name say, would begin another assignment. */
    for (char *p = text + len; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = '?';
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

void
st_cmd_notify_stopping(int fd)
{
    static const char text[] = "STOPPING=1\nSTATUS=Finishing what is under way";

    if (fd >= 0)
        send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
}
