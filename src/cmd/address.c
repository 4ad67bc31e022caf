/* SPDX-License-Identifier: MIT
 *
 * Where a server listens: a Unix socket, TCP, a descriptor that --fd names, or
 * the sockets of a service manager (socket activation, sd_listen_fds(3)). See
 * cmd.h.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef ST_HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "cmd.h"
#include "options.h"
#include "size.h"

enum { BACKLOG = 128, NOBODY = UINT32_MAX };

/* ---- Words ---- */

int
st_cmd_address_path(struct st_cmd_address *a, const char *what,
                    const char *path, const char *mode, const char *group,
                    struct st_err *err)
{
    const struct group *g = group ? getgrnam(group) : NULL;
    uint64_t gid = g ? g->gr_gid : (uint64_t)NOBODY;
    char *end;

    memset(a, 0, sizeof(*a));
    a->what = what;
    if (strlen(path) >= sizeof(a->path))
        return st_err_set(err, EINVAL,
                          "%s '%s' is too long, expected up to %zu bytes", what,
                          path, sizeof(a->path) - 1);
    strcpy(a->path, path);
    a->mode = mode ? (unsigned)strtoul(mode, &end, 8) : group ? 0660 : 0600;
    if (mode && (*end || *mode < '0' || *mode > '7' || a->mode > 0777))
        return st_err_set(err, EINVAL,
                          "%s: invalid mode '%s', expected an octal number "
                          "up to 777",
                          what, mode);
    if (group && !g &&
        st_number_parse("group", group, 0, NOBODY - 1, &gid, NULL) < 0)
        return st_err_set(err, EINVAL,
                          "%s: no group '%s', expected its name or number",
                          what, group);
    a->group = (unsigned)gid;
    return 0;
}

int
st_cmd_address_unix(struct st_cmd_address *a, const char *what,
                    const char *text, struct st_err *err)
{
    static const struct st_option table[] = {
        {"path", ST_OPTION_FIRST, true, 0},
        {"mode", ST_OPTION_VALUE, false, 0},
        {"group", ST_OPTION_VALUE, false, 0},
        {0},
    };
    struct st_options o;
    int rc = st_options_parse(what, text, table, &o, err);

    if (rc < 0)
        return rc;
    rc = st_cmd_address_path(a, what, o.value[0], o.value[1], o.value[2], err);
    st_options_free(&o);
    return rc;
}

/* HOST:PORT, [::1]:PORT */
int
st_cmd_address_tcp(struct st_cmd_address *a, const char *what, const char *text,
                   struct st_err *err)
{
    const char *colon = strrchr(text, ':'), *host = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    uint64_t port;

    memset(a, 0, sizeof(*a));
    a->what = what;
    if (len > 2 && *host == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        len = 0; /* ::1:80 could be two things */
    }
    if (!len || len >= sizeof(a->host) ||
        st_number_parse("port", colon + 1, 0, UINT16_MAX, &port, NULL) < 0)
        return st_err_set(err, EINVAL,
                          "invalid %s '%s', expected HOST:PORT or "
                          "[IPV6]:PORT with a port from 0 to 65535",
                          what, text);
    memcpy(a->host, host, len);
    snprintf(a->port, sizeof(a->port), "%u", (unsigned)port);
    return 0;
}

static int
parse_fd(struct st_cmd_address *a, const char *text, struct st_err *err)
{
    int listening, rc;
    socklen_t len = sizeof(listening);
    uint64_t fd;

    rc = st_number_parse("--fd", text, 0, INT32_MAX, &fd, err);
    if (rc < 0)
        return rc;
    if (getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
        return st_err_set(err, EINVAL, "--fd '%s' is not a socket", text);
    a->fd[a->nfds++] = (int)fd;
    a->connected = !listening;
    snprintf(a->before, sizeof(a->before), "descriptor %s", text);
    fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* ---- Socket activation ---- */

/* The URI of the listening socket FD, for people. */
static void
activated_uri(struct st_cmd_address *a, int fd)
{
    union {
        struct sockaddr sa;
        struct sockaddr_un un;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } at = {.sa = {.sa_family = AF_UNSPEC}};
    socklen_t len = sizeof(at);
    char host[INET6_ADDRSTRLEN];

    if (getsockname(fd, &at.sa, &len) < 0)
        at.sa.sa_family = AF_UNSPEC;
    snprintf(a->before, sizeof(a->before), "descriptor %d", fd);
    if (at.sa.sa_family == AF_UNIX && *at.un.sun_path) {
        snprintf(a->before, sizeof(a->before), "nbd+unix:///");
        snprintf(a->after, sizeof(a->after), "?socket=%.*s",
                 (int)sizeof(at.un.sun_path), at.un.sun_path);
    } else if (at.sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &at.in.sin_addr, host, sizeof(host));
        snprintf(a->before, sizeof(a->before), "nbd://%s:%u/", host,
                 ntohs(at.in.sin_port));
    } else if (at.sa.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &at.in6.sin6_addr, host, sizeof(host));
        snprintf(a->before, sizeof(a->before), "nbd://[%s]:%u/", host,
                 ntohs(at.in6.sin6_port));
    }
}

#ifdef ST_HAVE_SYSTEMD

enum { SD_FIRST = SD_LISTEN_FDS_START };

/* How many sockets a service manager has for us, SD_FIRST and up, closed for
 * children; or -errno with a sentence. Gives their names. Only the first call
 * finds them. */
static int
activated(char ***names, struct st_err *err)
{
    const char *text = getenv("LISTEN_FDS");
    char said[32];
    int n;

    snprintf(said, sizeof(said), "%s", text ? text : "");
    n = sd_listen_fds_with_names(1, names);
    if (n < 0)
        return st_err_set(err, EINVAL, "LISTEN_FDS '%s': %s", said,
                          st_strerror(n));
    return n;
}

static int
activated_check(int fd, const char *name, struct st_err *err)
{
    if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) > 0)
        return 0;
    return st_err_set(err, EINVAL,
                      "descriptor %d of LISTEN_FDS, '%s', is no listening "
                      "stream socket",
                      fd, name);
}

#else

enum { SD_FIRST = 3 };

static int
activated(char ***names, struct st_err *err)
{
    const char *pid = getenv("LISTEN_PID");

    (void)names;
    if (!pid || strtol(pid, NULL, 10) != getpid())
        return 0;
    return st_err_set(err, ENOTSUP,
                      "LISTEN_FDS: socket activation is not "
                      "built into this strata");
}

static int
activated_check(int fd, const char *name, struct st_err *err)
{
    (void)fd;
    (void)name;
    (void)err;
    return 0;
}

#endif

/* Take the N sockets of a service manager. FD: --fd or NULL, which may name
 * the only one; OTHER: another option that was given, or NULL. */
static int
take_activated(struct st_cmd_address *a, int n, char **names, const char *fd,
               const char *other, struct st_err *err)
{
    int rc = 0;

    if (other || (fd && (n > 1 || strtol(fd, NULL, 10) != SD_FIRST)))
        return st_err_set(err, EINVAL,
                          "'%s' is given, but a service manager hands over %d "
                          "socket%s (LISTEN_FDS) to be served instead",
                          other ? other : fd, n, n > 1 ? "s" : "");
    if (fd)
        return parse_fd(a, fd, err);
    if (n > (int)(sizeof(a->fd) / sizeof(*a->fd)))
        return st_err_set(err, EINVAL,
                          "LISTEN_FDS '%d': too many sockets, expected up to "
                          "%zu",
                          n, sizeof(a->fd) / sizeof(*a->fd));
    for (int i = 0; rc == 0 && i < n; i++) {
        rc = activated_check(SD_FIRST + i, names ? names[i] : "", err);
        if (rc == 0)
            a->fd[a->nfds++] = SD_FIRST + i;
    }
    activated_uri(a, SD_FIRST);
    if (n > 1)
        snprintf(a->after + strlen(a->after),
                 sizeof(a->after) - strlen(a->after), " and %d more", n - 1);
    return rc;
}

int
st_cmd_sockets_open(struct st_cmd_sockets *s, struct st_err *err)
{
    int n, rc = 0;

    memset(s, 0, sizeof(*s));
    n = activated(&s->name, err);
    if (n < 0)
        return n;
    s->n = n;
    if (n > 64)
        return st_err_set(err, EINVAL,
                          "LISTEN_FDS '%d': too many sockets, expected up to "
                          "64",
                          n);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = activated_check(SD_FIRST + i, s->name[i], err);
    return rc;
}

int
st_cmd_sockets_take(struct st_cmd_sockets *s, const char *name,
                    struct st_cmd_address *a, struct st_err *err)
{
    for (int i = 0; i < s->n; i++) {
        if ((s->taken >> i & 1) || (name && strcmp(s->name[i], name) != 0))
            continue;
        if (a->nfds == sizeof(a->fd) / sizeof(a->fd[0]))
            return st_err_set(err, EINVAL,
                              "LISTEN_FDS: more than %u sockets of the name "
                              "'%s'",
                              a->nfds, s->name[i]);
        s->taken |= UINT64_C(1) << i;
        if (!a->nfds)
            activated_uri(a, SD_FIRST + i);
        a->fd[a->nfds++] = SD_FIRST + i;
    }
    return (int)a->nfds;
}

const char *
st_cmd_sockets_left(const struct st_cmd_sockets *s)
{
    for (int i = 0; i < s->n; i++)
        if (!(s->taken >> i & 1))
            return s->name[i];
    return NULL;
}

void
st_cmd_sockets_close(struct st_cmd_sockets *s)
{
    for (int i = 0; i < s->n; i++)
        if (i >= 64 || !(s->taken >> i & 1))
            close(SD_FIRST + i);
    for (char **name = s->name; name && *name; name++)
        free(*name);
    free(s->name);
    memset(s, 0, sizeof(*s));
}

int
st_cmd_address_parse(struct st_cmd_address *a, const char *unix_text,
                     const char *addr, const char *fd, struct st_err *err)
{
    char **names = NULL;
    int rc;

    memset(a, 0, sizeof(*a));
    if (!!unix_text + !!addr + !!fd > 1)
        return st_err_set(err, EINVAL,
                          "only one of --unix, --addr and --fd can be given, "
                          "not also '%s'",
                          fd ? fd : addr);
    rc = activated(&names, err);
    if (rc > 0) {
        rc =
            take_activated(a, rc, names, fd, unix_text ? unix_text : addr, err);
        for (char **name = names; name && *name; name++)
            free(*name);
        free(names);
        return rc;
    }
    if (rc < 0)
        return rc;
    if (fd)
        return parse_fd(a, fd, err);
    if (!unix_text)
        return st_cmd_address_tcp(a, "--addr", addr ? addr : "localhost:10809",
                                  err);
    return st_cmd_address_unix(a, "--unix", unix_text, err);
}

/* ---- Sockets ---- */

/* Bind; where a socket lies that nobody listens at any more, instead of it. */
static int
bind_unix(int fd, const struct sockaddr_un *at)
{
    const struct sockaddr *sa = (const struct sockaddr *)at;
    st_autoclose int probe = -1;
    struct stat sb;

    if (bind(fd, sa, sizeof(*at)) == 0)
        return 0;
    if (errno != EADDRINUSE || lstat(at->sun_path, &sb) < 0 ||
        !S_ISSOCK(sb.st_mode))
        return -1;
    probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(probe, sa, sizeof(*at)) < 0 && errno == ECONNREFUSED &&
        unlink(at->sun_path) == 0)
        return bind(fd, sa, sizeof(*at));
    errno = EADDRINUSE;
    return -1;
}

/* The socket at A's path is ours to remove. */
static void
remember(struct st_cmd_address *a)
{
    struct stat sb;

    if (lstat(a->path, &sb) == 0) {
        a->dev = sb.st_dev;
        a->ino = sb.st_ino;
    }
}

void
st_cmd_address_adopt(struct st_cmd_address *a, int fd)
{
    a->fd[0] = fd;
    a->nfds = 1;
    remember(a);
}

static int
open_unix(struct st_cmd_address *a, struct st_err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    mode_t old = umask(0177); /* open to nobody else, not for a moment */
    int bound;

    memcpy(at.sun_path, a->path, sizeof(a->path));
    a->fd[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a->nfds = 1;
    bound = bind_unix(a->fd[0], &at);
    umask(old);
    if (bound == 0)
        remember(a);
    if (bound < 0 ||
        (a->group != NOBODY && lchown(a->path, (uid_t)-1, a->group) < 0) ||
        chmod(a->path, a->mode) < 0 || listen(a->fd[0], BACKLOG) < 0)
        return st_err_set(err, errno, "%s '%s': %s", a->what, a->path,
                          errno == EADDRINUSE
                              ? "another server or a file is there"
                              : strerror(errno));
    snprintf(a->before, sizeof(a->before), "nbd+unix:///");
    snprintf(a->after, sizeof(a->after), "?socket=%s", a->path);
    return 0;
}

/* Listen at the address I of a host, on the port in A->port; if that was 0, put
 * the one that was free there. 0 or errno. */
static int
open_tcp_one(struct st_cmd_address *a, const struct addrinfo *i)
{
    int fd = socket(i->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, rc;
    struct sockaddr_in *in = (void *)i->ai_addr; /* its port is in_6's place */
    socklen_t len = i->ai_addrlen;

    if (fd < 0)
        return errno;
    in->sin_port = htons((uint16_t)atoi(a->port));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (i->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, i->ai_addr, len) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, i->ai_addr, &len) < 0) {
        rc = errno;
        close(fd);
        return rc;
    }
    snprintf(a->port, sizeof(a->port), "%u", ntohs(in->sin_port));
    a->fd[a->nfds++] = fd;
    return 0;
}

static int
open_tcp(struct st_cmd_address *a, struct st_err *err)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    bool v6 = strchr(a->host, ':');
    struct addrinfo *list;
    int rc = getaddrinfo(a->host, a->port, &hints, &list);

    if (rc)
        return st_err_set(err, EINVAL, "%s: no address of '%s': %s", a->what,
                          a->host, gai_strerror(rc));
    for (struct addrinfo *i = list; i && a->nfds < 8 && rc != EADDRINUSE;
         i = i->ai_next)
        rc = open_tcp_one(a, i);
    freeaddrinfo(list);
    if (!a->nfds || rc == EADDRINUSE) /* a family may be missing here */
        return st_err_set(err, rc, "%s '%s:%s': %s", a->what, a->host, a->port,
                          strerror(rc));
    snprintf(a->before, sizeof(a->before), "nbd://%s%s%s:%s/", v6 ? "[" : "",
             a->host, v6 ? "]" : "", a->port);
    return 0;
}

int
st_cmd_address_open(struct st_cmd_address *a, struct st_err *err)
{
    return a->nfds ? 0 : *a->path ? open_unix(a, err) : open_tcp(a, err);
}

void
st_cmd_address_close(struct st_cmd_address *a)
{
    struct stat sb;

    for (unsigned i = 0; i < a->nfds; i++)
        if (a->fd[i] >= 0)
            close(a->fd[i]);
    a->nfds = 0;
    if (a->ino && lstat(a->path, &sb) == 0 && sb.st_dev == a->dev &&
        sb.st_ino == a->ino)
        unlink(a->path);
}
