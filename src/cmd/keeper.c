/* SPDX-License-Identifier: MIT
 *
 * The keeper; see keeper.h.
 */
#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "mem.h"
#include "notify.h"

#define VARIABLE "STRATA_KEEPER" /* the child's end of the socket */

enum { ARGUMENTS = 2 << 20 /* bytes, the kernel's limit */ };

struct keeper {
    const struct st_log *log;
    struct st_holder *holder;
    char *text;  /* owned: of the command line */
    char **argv; /* owned array */
    int signals, socket, notify;
    sigset_t old; /* the mask, before */
    pid_t child;
    bool stopping; /* a signal was passed on */
    bool broken;   /* something could not be held */
    time_t death[ST_KEEPER_DEATHS];
    unsigned deaths;
};

/* ---- The server's side ---- */

bool
st_keeper_is_child(void)
{
    return getenv(VARIABLE);
}

int
st_keeper_open(struct st_keep **out, struct st_err *err)
{
    const char *value = getenv(VARIABLE);
    int fd = value ? atoi(value) : -1;

    unsetenv(VARIABLE);
    if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return st_err_set(err, EINVAL, VARIABLE " '%s' is no descriptor",
                          value ? value : "");
    return st_keep_open(fd, out, err);
}

/* ---- What is to be started ---- */

/* Our own command line. */
static int
read_arguments(struct keeper *k, struct st_err *err)
{
    st_autoclose int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    size_t len = 0, n = 0;
    ssize_t got = -1;

    k->text = malloc(ARGUMENTS + 1);
    while (fd >= 0 && k->text && len < ARGUMENTS &&
           (got = read(fd, k->text + len, ARGUMENTS - len)) > 0)
        len += (size_t)got;
    if (got != 0 || !len)
        return st_err_set(err, errno ? errno : EIO,
                          "cannot read the command line");
    k->text[len] = '\0';
    for (size_t i = 0; i < len; i++)
        n += !k->text[i];
    k->argv = calloc(n + 2, sizeof(*k->argv));
    if (!k->argv)
        return st_err_set(err, ENOMEM, "no memory");
    n = 0;
    for (char *p = k->text; p < k->text + len; p += strlen(p) + 1)
        k->argv[n++] = p;
    return 0;
}

/* The child: it becomes the server. */
static void
become(const struct keeper *k, int socket)
{
    const char *pid = getenv("LISTEN_PID");
    char text[32];

    setpgid(0, 0); /* a terminal's signals come through the keeper */
    snprintf(text, sizeof(text), "%d", socket);
    setenv(VARIABLE, text, 1);
    fcntl(socket, F_SETFD, 0);
    /* A service manager's sockets are for this process. */
    if (pid && atoi(pid) == getppid()) {
        snprintf(text, sizeof(text), "%d", getpid());
        setenv("LISTEN_PID", text, 1);
    }
    sigprocmask(SIG_SETMASK, &k->old, NULL);
    execv("/proc/self/exe", k->argv);
    _exit(st_cmd_fail(ST_EXIT_FAILED, "cannot start: %s", strerror(errno)));
}

static int
spawn(struct keeper *k, struct st_err *err)
{
    int pair[2], rc;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return st_err_set(err, errno, "cannot make a socket: %s",
                          st_strerror(-errno));
    k->child = fork();
    if (k->child == 0)
        become(k, pair[1]);
    rc = k->child < 0 ? -errno : 0;
    close(pair[1]);
    if (rc < 0) {
        close(pair[0]);
        return st_err_set(err, -rc, "cannot start a process: %s",
                          st_strerror(rc));
    }
    k->socket = pair[0];
    /* One that dies meanwhile is seen as every death. */
    st_holder_give(k->holder, k->socket);
    return 0;
}

/* ---- While it runs ---- */

/* One packet. False: there are no more. */
static bool
take(struct keeper *k)
{
    char text[1024];
    size_t len;
    int rc = st_holder_take(k->holder, k->socket, text, sizeof(text), &len);

    if (rc == 2 && k->notify >= 0)
        send(k->notify, text, len, MSG_NOSIGNAL);
    if (rc < 0 && rc != -EPROTO && !k->broken) {
        k->broken = true;
        st_warn(k->log,
                "a descriptor cannot be kept: %s; the server will not be "
                "started again if it dies",
                st_strerror(rc));
    }
    return rc > 0 || rc == -EMFILE || rc == -ENOMEM || rc == -EPROTO;
}

static void
pass_on(struct keeper *k)
{
    struct signalfd_siginfo info;

    while (read(k->signals, &info, sizeof(info)) == sizeof(info)) {
        int n = (int)info.ssi_signo;

        if (n == SIGCHLD)
            continue;
        k->stopping |= n != SIGUSR1;
        if (k->child > 0)
            kill(k->child, n);
    }
}

static time_t
seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec;
}

/* The server was killed by SIGNAL. 0: there is a successor; or an exit
 * status. */
static int
died(struct keeper *k, int signal)
{
    time_t now = seconds(), *slot = &k->death[k->deaths % ST_KEEPER_DEATHS];
    bool often =
        k->deaths >= ST_KEEPER_DEATHS - 1 &&
        now - k->death[(k->deaths + 1) % ST_KEEPER_DEATHS] < ST_KEEPER_SECONDS;
    struct st_err err;

    *slot = now;
    k->deaths++;
    if (k->stopping)
        return st_cmd_fail(ST_EXIT_FAILED, "the server was killed: %s",
                           strsignal(signal));
    if (k->broken)
        return st_cmd_fail(ST_EXIT_FAILED,
                           "the server was killed: %s; not all that it had "
                           "could be kept",
                           strsignal(signal));
    if (often)
        return st_cmd_fail(ST_EXIT_FAILED,
                           "the server was killed: %s; %d times in %d seconds "
                           "is too often",
                           strsignal(signal), ST_KEEPER_DEATHS,
                           ST_KEEPER_SECONDS);
    st_warn(k->log, "the server was killed: %s; its successor goes on",
            strsignal(signal));
    return spawn(k, &err) < 0 ? st_cmd_fail(ST_EXIT_FAILED, "%s", err.text) : 0;
}

/* Wait until the server ends for good. Its exit status. */
static int
keep(struct keeper *k)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = k->signals, .events = POLLIN},
                              {.fd = k->socket, .events = POLLIN}};
        int how, status;

        poll(p, 2, -1);
        pass_on(k);
        if (k->socket >= 0 && p[1].revents && !take(k)) {
            close(k->socket);
            k->socket = -1;
        }
        if (waitpid(k->child, &how, WNOHANG) != k->child)
            continue;
        /* What it has put before, it has put. */
        while (k->socket >= 0 && take(k))
            ;
        if (k->socket >= 0)
            close(k->socket);
        k->socket = -1;
        if (WIFEXITED(how))
            return WEXITSTATUS(how);
        status = died(k, WTERMSIG(how));
        if (status)
            return status;
    }
}

static int
begin(struct keeper *k, struct st_err *err)
{
    struct rlimit files;
    sigset_t mask;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, &k->old);
    k->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (k->signals < 0)
        return st_err_set(err, errno, "signals: %s", st_strerror(-errno));
    k->holder = st_holder_create();
    if (!k->holder)
        return st_err_set(err, ENOMEM, "no memory");
    return read_arguments(k, err);
}

int
st_keeper_run(const struct st_log *log)
{
    struct keeper k = {.log = log, .signals = -1, .socket = -1};
    struct st_err err;
    int rc, status;

    k.notify = st_cmd_notify_open(log);
    rc = begin(&k, &err);
    if (rc == 0)
        rc = spawn(&k, &err);
    status = rc < 0 ? st_cmd_fail(ST_EXIT_FAILED, "%s", err.text) : keep(&k);
    st_holder_destroy(k.holder);
    free(k.argv);
    free(k.text);
    if (k.signals >= 0)
        close(k.signals);
    if (k.notify >= 0)
        close(k.notify);
    return status;
}
