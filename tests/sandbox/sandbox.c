/* SPDX-License-Identifier: MIT
 *
 * What the sandbox denies is denied, in every thread; what a server needs
 * works; and outside all of it would have worked.
 *
 *   sandbox [WORD]      only probes whose name contains it
 *
 * There is no way out of a sandbox, so each probe has a process of its own,
 * which enters like a server would and then runs it on the main thread's loop,
 * on an I/O loop's thread or on a worker, by either engine, as root with all
 * that is left to it and as nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cases.h"

unsigned test_passed, test_failed, test_skipped;

void
test_check(bool good, const char *fmt, ...)
{
    va_list ap;

    test_passed += good;
    test_failed += !good;
    if (good)
        return;
    va_start(ap, fmt);
    printf("FAILED: ");
    vprintf(fmt, ap);
    puts("");
    va_end(ap);
}

int
test_spawn(void (*run)(void *arg), void *arg)
{
    int status;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};

        setrlimit(RLIMIT_CORE, &none); /* of those that are killed */
        alarm(60);
        run(arg);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return TEST_BROKEN;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    return WTERMSIG(status) == SIGSYS    ? PROBE_KILLED
           : WTERMSIG(status) == SIGABRT ? PROBE_ABORTED
                                         : TEST_BROKEN + WTERMSIG(status);
}

/* ---- What there is before ---- */

static int
listen_unix(const char *dir, const char *name, int type)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%.80s/%s", dir, name);
    unlink(a.sun_path);
    must(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    must(chmod(a.sun_path, 0777) == 0);
    must(type != SOCK_STREAM || listen(fd, 8) == 0);
    return fd;
}

static uint16_t
listen_tcp(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    must(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
         listen(fd, 64) == 0 &&
         getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    return ntohs(a.sin_port);
}

static void
make_file(const char *dir, const char *name, const char *leads_to)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (leads_to) {
        must(symlink(leads_to, path) == 0);
        return;
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    must(fd >= 0 && ftruncate(fd, 8192) == 0 && fchmod(fd, 0666) == 0);
    close(fd);
}

static void
make_folder(const char *dir, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    must(mkdir(path, 0777) == 0 && chmod(path, 0777) == 0);
}

void
test_prepare(struct test_case *c)
{
    struct st_domain_opts o = {.engine = c->engine, .log = &c->log};
    struct probe_world *w = &c->world;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct st_err err;
    char path[256];
    int client;

    w->dir = c->dir;
    w->port = c->port;
    make_file(c->dir, "allowed/there", NULL);
    make_file(c->dir, "outside/file", NULL);
    make_file(c->dir, "outside/victim", NULL);
    snprintf(path, sizeof(path), "%s/outside/file", c->dir);
    w->file = open(path, O_RDWR | O_CLOEXEC);
    must(w->file >= 0);
    w->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    w->stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    w->dgram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    w->listener = listen_unix(c->dir, "run/sock", SOCK_STREAM);
    probe_send_guest(w);
    snprintf(a.sun_path, sizeof(a.sun_path), "%.80s/run/sock", c->dir);
    client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(connect(client, (struct sockaddr *)&a, sizeof(a)) == 0);
    if (st_domain_create(&o, &w->domain, &err) < 0 ||
        st_loop_create(w->domain, &w->home, &err) < 0 ||
        st_loop_create(w->domain, &c->io, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(TEST_BROKEN);
    }
}

int
test_enter(struct test_case *c, struct st_err *err)
{
    static _Thread_local char allow[256], sock[256];
    const char *allowed[] = {allow}, *sockets[] = {NULL, sock};
    struct st_sandbox_opts o = {.log = &c->log,
                                .off = c->off,
                                .user = c->user,
                                .allow = allowed,
                                .nallow = 1,
                                .socket = sockets,
                                .nsockets = 2,
                                .new_loops = c->new_loops,
                                .landlock = c->landlock};

    snprintf(allow, sizeof(allow), "%s/%s", c->dir,
             c->allow ? c->allow : "allowed");
    snprintf(sock, sizeof(sock), "%s/run/sock", c->dir);
    return st_sandbox_enter(&o, err);
}

/* ---- Probes ---- */

static const char *const threads[] = {"main", "loop", "worker"};

struct trial {
    struct test_case c;
    const struct probe *probe;
    enum { MAIN, LOOP, WORKER } thread;
    struct st_task task;
    struct st_job job;
};

static void
trial_task(struct st_task *t)
{
    struct trial *x = st_container(t, struct trial, task);
    struct probe_world *w = &x->c.world;

    w->loop = x->thread == MAIN ? w->home : x->c.io;
    _exit(x->probe->run(w));
}

static void
trial_work(struct st_job *j)
{
    struct trial *x = st_container(j, struct trial, job);

    _exit(x->probe->run(&x->c.world));
}

static void
trial_run(void *arg)
{
    struct trial *x = arg;
    struct probe_world *w = &x->c.world;
    const bool never = false;
    struct st_err err;

    test_prepare(&x->c);
    if (test_enter(&x->c, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(TEST_BROKEN);
    }
    must(st_loop_start(x->c.io, "io") == 0);
    x->task.run = trial_task;
    x->job.work = trial_work;
    if (x->thread == WORKER)
        st_job_start(w->home, &x->job);
    else
        st_post(x->thread == MAIN ? w->home : x->c.io, &x->task);
    st_loop_wait(w->home, &never);
}

static void
run_probe(void *arg)
{
    _exit(((const struct probe *)arg)->run(NULL));
}

/* Can P, which needs 32-bit system calls, be tried on this kernel? */
static bool
has_i386(const struct probe *p)
{
    static int answer = -1;

    if (answer < 0) {
        answer = test_spawn(run_probe, (struct probe *)(uintptr_t)p);
        if (answer != 0)
            puts("skip: this kernel has no 32-bit system calls");
    }
    return answer == 0;
}

static bool
can_try(const struct test_case *v, const struct probe *p)
{
    if (p->flags & PROBE_I386 && !has_i386(p))
        return false;
    if (v->off)
        return !(p->flags & PROBE_ROOT) || geteuid() == 0;
    return !(p->flags & PROBE_NO_ASAN && SANDBOX_SANITIZER) &&
           !(p->flags & PROBE_TCP && test_landlock() < 4);
}

/* Run P as V says; what comes of it must be WANT. */
static void
trial(const struct test_case *v, const struct probe *p, int thread)
{
    struct trial x = {.c = *v, .probe = p, .thread = thread};
    int want = v->off ? p->outside : p->inside, got;

    if (p->flags & PROBE_RING &&
        (strcmp(v->engine, "io_uring") != 0 || thread == WORKER))
        return;
    if (!can_try(v, p)) {
        test_skipped++;
        return;
    }
    x.c.new_loops = p->flags & PROBE_LOOPS;
    got = test_spawn(trial_run, &x);
    test_check(got == want || (want == PROBE_ANY && got < TEST_BROKEN),
               "%s (%s, %s, %s, %s): %d, expected %d", p->name,
               v->off ? "outside" : "inside", v->engine,
               v->user ? v->user : "no --user", threads[thread], got, want);
}

static void
all_probes(struct test_case *v, const char *word)
{
    static const char *const engines[] = {"io_uring", "threads"};
    static const char *const users[] = {NULL, "nobody"};

    for (const struct probe *p = probes; p->name; p++) {
        if (word && !strstr(p->name, word))
            continue;
        for (int e = 0; e < 2; e++) {
            v->engine = engines[e];
            v->off = true;
            v->user = NULL;
            trial(v, p, MAIN);
            v->off = false;
            for (int u = 0; u < (geteuid() == 0 ? 2 : 1); u++)
                for (int t = MAIN; t <= WORKER; t++) {
                    v->user = users[u];
                    trial(v, p, t);
                }
        }
    }
    v->user = NULL;
    v->engine = "threads";
}

int
main(int argc, char **argv)
{
    char dir[] = "/tmp/strata-sandbox-XXXXXX", rm[64];
    struct test_case v = {.dir = dir};

    umask(0);
    must(mkdtemp(dir) && chmod(dir, 0777) == 0);
    make_folder(dir, "allowed");
    make_folder(dir, "outside");
    make_folder(dir, "run");
    make_file(dir, "allowed/away", "../outside/file");
    listen_unix(dir, "outside/sock", SOCK_STREAM);
    listen_unix(dir, "outside/dgram", SOCK_DGRAM);
    v.port = listen_tcp();
    all_probes(&v, argc > 1 ? argv[1] : NULL);
    if (argc == 1)
        test_cases(&v);
    snprintf(rm, sizeof(rm), "rm -rf %s", dir);
    must(system(rm) == 0);
    printf("counts: %u passed, %u failed, %u skipped\n", test_passed,
           test_failed, test_skipped);
    return test_failed > 0;
}
