/* SPDX-License-Identifier: MIT
 *
 * An NBD server that edits its disk all the time: for test-edits, which lets
 * fio verify data meanwhile.
 *
 *   edits SOCKET SPEC COUNT
 *
 * Serves SPEC on SOCKET (prints "ready"), and when the first client has come,
 * makes COUNT edits one after the other: inserts delay, throttle and fault
 * nodes and removes them, grows the disk and shrinks it to where it was, pauses
 * it and goes on. Then prints "edits: COUNT", waits for a SIGTERM, and stops.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "delay.h"
#include "fault.h"
#include "nbd.h"
#include "rand.h"
#include "stack.h"
#include "sync.h"
#include "throttle.h"

enum { LOOPS = 2, TIMEOUT_NS = 1000000000 };

struct edits {
    struct st_loop *home;
    struct st_disk *disk;
    uint64_t size; /* as it was opened */
    struct st_rand rand;
    unsigned step, inserted;
    const char *kind[3];
};

static void
die(const char *what, const char *why)
{
    fprintf(stderr, "edits: %s: %s\n", what, why);
    exit(1);
}

static struct st_node *
new_node(struct edits *e, const char *kind)
{
    struct st_delay_opts delay = {.read_ns = 20000, .write_ns = 20000};
    struct st_throttle_opts throttle = {.iops = 1000000};
    struct st_node *n = NULL;
    struct st_err err = {"no memory"};
    int rc;

    if (*kind == 'd')
        rc = st_delay_create(e->home, &delay, kind, &n, &err);
    else if (*kind == 't')
        rc = st_throttle_create(e->home, &throttle, kind, &n, &err);
    else
        rc = st_fault_create(e->home, NULL, kind, &n, &err);
    if (rc < 0)
        die(kind, err.text);
    return n;
}

static void
start(void *arg, struct st_edit *edit)
{
    static const char *const kinds[] = {"delay", "throttle", "fault"};
    struct edits *e = arg;

    switch (e->step % 8) {
    case 0:
    case 2:
    case 4:
        e->kind[e->inserted] = kinds[st_rand_below(&e->rand, 3)];
        st_disk_insert(e->disk, new_node(e, e->kind[e->inserted]), TIMEOUT_NS,
                       edit);
        e->inserted++;
        break;
    case 1:
        st_disk_resize(e->disk, e->size + 65536 * (e->step % 7 + 1), edit);
        break;
    case 3:
        st_disk_resize(e->disk, e->size, edit);
        break;
    case 5:
        st_disk_quiesce(e->disk, ST_PARK, TIMEOUT_NS, edit);
        break;
    case 6:
        st_disk_resume(e->disk, edit);
        break;
    case 7:
        e->inserted--;
        st_disk_remove(e->disk, e->kind[e->inserted], TIMEOUT_NS, edit);
        break;
    }
}

static int
listen_on(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        listen(fd, 64) < 0)
        die(path, strerror(errno));
    return fd;
}

struct stop {
    bool done;
    int rc;
};

static void
stopped(void *arg, int rc)
{
    struct stop *s = arg;

    s->done = true;
    s->rc = rc;
}

struct nap {
    struct st_timer t;
    bool over;
};

static void
nap_over(struct st_timer *t)
{
    st_container(t, struct nap, t)->over = true;
}

static void
nap(struct st_loop *l, uint64_t ns)
{
    struct nap n = {.t.fire = nap_over};

    st_timer_set(l, &n.t, l->now + ns);
    st_loop_wait(l, &n.over);
}

static bool signalled;

static void
on_signal(struct st_watch *w, unsigned events)
{
    (void)w;
    (void)events;
    signalled = true;
}

int
main(int argc, char **argv)
{
    struct st_log log = {.level = ST_LOG_WARN};
    struct st_domain_opts dopts = {.poll_us = 50, .log = &log};
    struct edits e = {.rand = st_rand_seed(1)};
    struct st_loop *loops[LOOPS];
    struct st_nbd_opts nopts = {.loops = loops, .nloops = LOOPS};
    struct st_watch sig = {.ready = on_signal, .events = EPOLLIN};
    struct stop stop = {0};
    struct st_domain *domain;
    struct st_nbd_stats stats;
    struct st_node *node;
    struct st_nbd *nbd;
    struct st_err err = {"?"};
    sigset_t set;
    unsigned count;

    if (argc != 4)
        die("usage", "edits SOCKET SPEC COUNT");
    count = (unsigned)atoi(argv[3]);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (st_domain_create(&dopts, &domain, &err) < 0 ||
        st_loop_create(domain, &e.home, &err) < 0 ||
        st_stack_open(e.home, NULL, argv[2], false, &node, &err) < 0 ||
        st_disk_create(e.home, node, "disk0", false, &e.disk, &err) < 0)
        die(argv[2], err.text);
    e.size = st_disk_size(e.disk);
    nopts.control = e.home;
    for (unsigned i = 0; i < LOOPS; i++)
        if (st_loop_create(domain, &loops[i], &err) < 0 ||
            st_loop_start(loops[i], "io") < 0)
            die("loop", err.text);
    if (st_nbd_create(&nopts, &nbd, &err) < 0 ||
        st_nbd_export(nbd, "", "edited", e.disk, false, &err) < 0 ||
        st_nbd_listen(nbd, listen_on(argv[1]), &err) < 0)
        die(argv[1], err.text);
    sig.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    st_watch_add(e.home, &sig);
    puts("ready");
    fflush(stdout);
    do {
        nap(e.home, 10000000);
        st_nbd_stats(nbd, &stats);
    } while (!stats.clients_total && !signalled);
    for (e.step = 0; e.step < count && !signalled; e.step++) {
        struct st_edit edit = {0};
        int rc = st_sync_edit(e.home, start, &e, &edit);

        if (rc < 0)
            die("edit", edit.err.text);
        /* Keep between 0 and 2 nodes inserted, at every depth in turn. */
        while (e.inserted > 2) {
            struct st_edit out = {0};
            unsigned step = e.step;

            e.step = 7;
            if (st_sync_edit(e.home, start, &e, &out) < 0)
                die("remove", out.err.text);
            e.step = step;
        }
        nap(e.home, 2000000);
    }
    st_nbd_stats(nbd, &stats);
    printf("edits: %u requests: %llu\n", e.step,
           (unsigned long long)stats.requests);
    fflush(stdout);
    while (!signalled)
        nap(e.home, 10000000);
    st_watch_remove(e.home, &sig);
    close(sig.fd);
    st_nbd_stop(nbd, 10000000000, stopped, &stop);
    st_loop_wait(e.home, &stop.done);
    st_nbd_destroy(nbd);
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_join(loops[i]);
    st_disk_destroy(e.disk);
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_destroy(loops[i]);
    st_loop_destroy(e.home);
    st_domain_destroy(domain);
    return stop.rc ? 1 : 0;
}
