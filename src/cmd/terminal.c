/* SPDX-License-Identifier: MIT
 *
 * A raw terminal, and the signals around it; see terminal.h.
 */
#include "terminal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void
terminal_signals(sigset_t *set)
{
    struct sigaction hup;

    sigemptyset(set);
    sigaddset(set, SIGTSTP);
    sigaddset(set, SIGCONT);
    /* nohup wants us to go on. */
    if (sigaction(SIGHUP, NULL, &hup) == 0 && hup.sa_handler != SIG_IGN)
        sigaddset(set, SIGHUP);
}

bool
st_terminal_claim(struct st_terminal *t)
{
    sigset_t set;

    t->watch.fd = -1;
    t->group = getpgrp();
    t->there = isatty(STDIN_FILENO);
    if (!t->there)
        return false;
    terminal_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return true;
}

/* Who is not stops when it changes the terminal. One that is not the session's
 * has no foreground, and is nobody else's. */
static bool
in_foreground(const struct st_terminal *t)
{
    pid_t group = tcgetpgrp(STDIN_FILENO);

    return group < 0 || group == t->group;
}

/* Raw, but output still begins lines at their left. Another program may have
 * changed it while we were stopped: what was before us stays. */
static void
make_raw(struct st_terminal *t)
{
    struct termios raw;

    if (!in_foreground(t) ||
        (!t->raw && tcgetattr(STDIN_FILENO, &t->before) < 0))
        return;
    raw = t->before;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST;
    t->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

void
st_terminal_restore(struct st_terminal *t)
{
    if (t->raw && in_foreground(t))
        tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
    t->raw = false;
}

/* The whole process stops in here, by SIGNAL, and goes on by SIGCONT. */
static void
stop(struct st_terminal *t, int signal)
{
    st_terminal_restore(t);
    t->lend(t->arg, true);
    pthread_kill(pthread_self(), signal);
    t->lend(t->arg, false);
}

/* In the background we stop at once, as by the first read, but without having
 * touched anything. */
static void
go_on(struct st_terminal *t)
{
    if (!in_foreground(t))
        stop(t, SIGTTIN);
    make_raw(t);
}

static void
signals_ready(struct st_watch *watch, unsigned events)
{
    struct st_terminal *t = st_container(watch, struct st_terminal, watch);
    struct signalfd_siginfo info;

    (void)events;
    while (read(watch->fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGTSTP)
            stop(t, SIGSTOP); /* SIGCONT comes next */
        else if (info.ssi_signo == SIGCONT)
            go_on(t);
        else
            t->hung_up(t->arg);
    }
}

int
st_terminal_open(struct st_terminal *t, struct st_loop *loop)
{
    sigset_t set;
    int rc;

    if (!t->there)
        return 0;
    terminal_signals(&set);
    t->loop = loop;
    t->watch.ready = signals_ready;
    t->watch.events = EPOLLIN;
    t->watch.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    rc = t->watch.fd < 0 ? -errno : st_watch_add(loop, &t->watch);
    if (rc < 0)
        return rc;
    t->watching = true;
    go_on(t);
    return 0;
}

void
st_terminal_close(struct st_terminal *t)
{
    st_terminal_restore(t);
    if (t->watching)
        st_watch_remove(t->loop, &t->watch);
    t->watching = false;
    if (t->there && t->watch.fd >= 0)
        close(t->watch.fd);
    t->there = false;
}
