/* SPDX-License-Identifier: MIT
 *
 * The sandbox as a whole: that all threads are in it, that a server lives in it
 * until its end, older kernels, and what is refused at the start.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <poll.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "cases.h"
#include "disk.h"
#include "stack.h"
#include "sync.h"

int
test_landlock(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0,
                       LANDLOCK_CREATE_RULESET_VERSION);

    return abi < 0 ? 0 : (int)abi;
}

/* CASE in a process of its own ends with 0. */
static void
good(const char *name, void (*run)(void *arg), const struct test_case *v)
{
    struct test_case c = *v;
    int got = test_spawn(run, &c);

    test_check(got == 0, "%s (%s, %s): %d", name, c.engine,
               c.user ? c.user : "no --user", got);
}

static int
try_open(const struct test_case *c, const char *name, int flags)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", c->dir, name);
    fd = open(path, flags | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

/* ---- Every thread ---- */

struct server {
    struct test_case *c;
    int say[2], hear[2];
    struct st_job job[2];
};

static void
job_wait(struct st_job *j)
{
    (void)j;
    poll(NULL, 0, -1);
}

/* Enter, start an I/O loop and two workers, say so, and wait for the end. */
static void
server_run(void *arg)
{
    const gid_t groups[] = {4}; /* to be left */
    struct server *s = arg;
    struct st_err err;
    char c;

    test_prepare(s->c);
    must(geteuid() != 0 || setgroups(1, groups) == 0);
    must(test_enter(s->c, &err) == 0);
    must(st_loop_start(s->c->io, "io") == 0);
    for (int i = 0; i < 2; i++) {
        s->job[i].work = job_wait;
        st_job_start(s->c->world.home, &s->job[i]);
    }
    must(write(s->say[1], "x", 1) == 1);
    close(s->hear[1]);
    must(read(s->hear[0], &c, 1) == 0);
    _exit(0);
}

/* Is LINE a line of the status FILE of a thread? "NAME:\tVALUE". */
static bool
status_has(const char *task, const char *line)
{
    char path[320], text[256];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof(path), "%.300s/status", task);
    f = fopen(path, "re");
    while (f && fgets(text, sizeof(text), f)) {
        text[strcspn(text, "\n")] = '\0';
        found |= strcmp(text, line) == 0;
    }
    if (f)
        fclose(f);
    if (!found)
        printf("%s has no line '%s'\n", path, line);
    return found;
}

/* Every thread of process PID has every one of the LINES, which a NULL ends. */
static bool
all_have(pid_t pid, const char *const *lines, unsigned at_least)
{
    char dir[64], task[300];
    struct dirent *e;
    unsigned n = 0;
    bool all = true;
    DIR *d;

    snprintf(dir, sizeof(dir), "/proc/%d/task", (int)pid);
    d = opendir(dir);
    while (d && (e = readdir(d)) != NULL) {
        if (*e->d_name == '.')
            continue;
        n++;
        snprintf(task, sizeof(task), "%s/%.20s", dir, e->d_name);
        for (const char *const *l = lines; *l; l++)
            all &= status_has(task, *l);
    }
    if (d)
        closedir(d);
    return all && n >= at_least;
}

/* What process PID tells of itself is its user's, not root's, as long as it may
 * dump core; its folder always is. */
static bool
may_dump(pid_t pid)
{
    char path[64], file[80], line[64];
    struct stat sb;

    snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    snprintf(file, sizeof(file), "%s/status", path);
    if (stat(file, &sb) < 0)
        return false;
    snprintf(line, sizeof(line), "Uid:\t%u\t%u\t%u\t%u", sb.st_uid, sb.st_uid,
             sb.st_uid, sb.st_uid);
    return status_has(path, line);
}

static void
every_thread(const struct test_case *v, const char *const *lines)
{
    struct test_case c = *v;
    struct server s = {.c = &c};
    bool all = false;
    int status;
    char x;
    pid_t pid;

    must(pipe2(s.say, O_CLOEXEC) == 0 && pipe2(s.hear, O_CLOEXEC) == 0);
    pid = fork();
    if (pid == 0)
        server_run(&s);
    close(s.say[1]);
    close(s.hear[0]);
    if (read(s.say[0], &x, 1) == 1)
        all = all_have(pid, lines, 4) && may_dump(pid);
    close(s.hear[1]);
    close(s.say[0]);
    must(waitpid(pid, &status, 0) == pid);
    test_check(all && status == 0, "every thread (%s, %s)", c.engine,
               c.user ? c.user : "no --user");
}

static void
every_thread_is_inside(struct test_case v)
{
    static const char *const root[] = {"NoNewPrivs:\t1",
                                       "Seccomp:\t2",
                                       "CapEff:\t0000000000000002",
                                       "CapInh:\t0000000000000000",
                                       "CapAmb:\t0000000000000000",
                                       NULL};
    static const char *const other[] = {"NoNewPrivs:\t1", "Seccomp:\t2",
                                        "CapEff:\t0000000000000000",
                                        "CapPrm:\t0000000000000000", NULL};
    static const char *const nobody[] = {"NoNewPrivs:\t1",
                                         "Seccomp:\t2",
                                         "CapEff:\t0000000000000000",
                                         "CapPrm:\t0000000000000000",
                                         "CapBnd:\t0000000000000000",
                                         "Uid:\t65534\t65534\t65534\t65534",
                                         "Gid:\t65534\t65534\t65534\t65534",
                                         "Groups:\t65534 ",
                                         NULL};
    static const char *const group[] = {"Uid:\t65534\t65534\t65534\t65534",
                                        "Gid:\t1\t1\t1\t1", "Groups:\t1 ",
                                        NULL};
    static const char *const numbers[] = {"Uid:\t12345\t12345\t12345\t12345",
                                          "Gid:\t23456\t23456\t23456\t23456",
                                          "Groups:\t ", NULL};

#ifdef __SANITIZE_THREAD__
    test_skipped++; /* its own thread was there before */
    return;
#endif
    for (int e = 0; e < 2; e++) {
        v.engine = e ? "io_uring" : "threads";
        v.user = NULL;
        every_thread(&v, geteuid() == 0 ? root : other);
        if (geteuid() != 0)
            continue;
        v.user = "nobody";
        every_thread(&v, nobody);
        v.user = "nobody:daemon";
        every_thread(&v, group);
        v.user = "12345:23456";
        every_thread(&v, numbers);
    }
}

/* ---- A whole life ---- */

struct there_and_back {
    struct st_task task;
    struct st_loop *home;
    bool done;
};

static void
back_task(struct st_task *t)
{
    st_container(t, struct there_and_back, task)->done = true;
}

static void
there_task(struct st_task *t)
{
    t->run = back_task;
    st_post(st_container(t, struct there_and_back, task)->home, t);
}

/* A disk below --allow-path is made, used and closed, and the process ends as
 * it would without a sandbox. */
static void
life_run(void *arg)
{
    struct test_case *c = arg;
    struct probe_world *w = &c->world;
    struct st_stack_env *env = st_stack_env_create();
    struct there_and_back there = {.task.run = there_task};
    char spec[256], a[4096], b[4096] = "";
    struct st_node *node = NULL;
    struct st_disk *disk;
    struct st_sync *sync;
    struct st_err err;

    test_prepare(c);
    must(test_enter(c, &err) == 0);
    must(st_loop_start(c->io, "io") == 0);
    there.home = w->home;
    st_post(c->io, &there.task);
    must(st_loop_wait(w->home, &there.done));
    snprintf(spec, sizeof(spec), "file:%s/allowed/life-%d;create=1M", c->dir,
             (int)getpid());
    if (st_stack_open(w->home, env, spec, false, &node, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        _exit(TEST_BROKEN);
    }
    must(st_disk_create(w->home, node, "life", false, &disk, &err) == 0);
    must(st_sync_open(disk, w->home, &sync) == 0);
    memset(a, 'a', sizeof(a));
    must(st_sync_write(sync, a, 8192, sizeof(a), ST_REQ_FUA) == ST_OK);
    must(st_sync_read(sync, b, 8192, sizeof(b)) == ST_OK);
    must(memcmp(a, b, sizeof(a)) == 0);
    must(st_sync_zero(sync, 0, 65536, ST_REQ_MAY_UNMAP) == ST_OK);
    must(st_sync_unmap(sync, 0, 65536) == ST_OK);
    must(st_sync_flush(sync) == ST_OK);
    st_sync_close(sync);
    st_disk_destroy(disk);
    st_stack_env_destroy(env);
    st_loop_join(c->io);
    st_loop_destroy(c->io);
    st_loop_destroy(w->home);
    st_domain_destroy(w->domain);
    exit(0);
}

/* ---- Older kernels ---- */

static void
log_keep(void *arg, enum st_level level, const char *line)
{
    char *text = arg;

    if (level == ST_LOG_WARN)
        strncat(text, line, 1023 - strlen(text));
}

/* From now on CALL is answered with ENOSYS. */
static void
kernel_lacks(int call)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

    must(ctx && seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), call, 0) == 0 &&
         seccomp_load(ctx) == 0);
    seccomp_release(ctx);
}

static void
no_landlock_run(void *arg)
{
    struct test_case *c = arg;
    char text[1024] = "";
    struct st_err err;

    c->log = (struct st_log){ST_LOG_WARN, log_keep, text};
    test_prepare(c);
    kernel_lacks(SCMP_SYS(landlock_create_ruleset));
    must(test_enter(c, &err) == 0);
    must(strstr(text, "has no Landlock"));
    must(!strstr(text, "seccomp"));
    must(try_open(c, "outside/file", O_RDONLY) == 0);
    must(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EACCES);
}

static void
no_seccomp_run(void *arg)
{
    struct test_case *c = arg;
    char text[1024] = "";
    struct st_err err;

    c->log = (struct st_log){ST_LOG_WARN, log_keep, text};
    test_prepare(c);
    kernel_lacks(SCMP_SYS(seccomp));
    must(test_enter(c, &err) == 0);
    must(strstr(text, "has no seccomp"));
    must(!strstr(text, "Landlock") == (test_landlock() > 0));
    must(test_landlock() == 0 ||
         try_open(c, "outside/file", O_RDONLY) == EACCES);
    must(socket(AF_INET, SOCK_STREAM, 0) >= 0);
}

static void
old_landlock_run(void *arg)
{
    struct test_case *c = arg;
    struct st_err err;

    test_prepare(c);
    must(test_enter(c, &err) == 0);
    must(try_open(c, "outside/file", O_RDONLY) == EACCES);
    must(try_open(c, "outside/file", O_WRONLY) == EACCES);
    must(try_open(c, "outside/new", O_RDWR | O_CREAT) == EACCES);
    must(try_open(c, "allowed/there", O_RDWR | O_TRUNC) == 0);
    must(try_open(c, "allowed/new", O_RDWR | O_CREAT) == 0);
}

static void
older_kernels(struct test_case v)
{
    good("a kernel without Landlock", no_landlock_run, &v);
    good("a kernel without seccomp", no_seccomp_run, &v);
    for (int abi = 1; abi <= test_landlock(); abi++) {
        v.landlock = (unsigned)abi;
        good("an older Landlock", old_landlock_run, &v);
        good("a life with an older Landlock", life_run, &v);
    }
}

/* ---- What is refused ---- */

struct refusal {
    struct test_case c;
    int rc;
    const char *part; /* of the sentence */
    bool thread, not_root;
};

static void *
thread_main(void *arg)
{
    pause();
    return arg;
}

static void
refusal_run(void *arg)
{
    struct refusal *r = arg;
    struct st_err err = {""};
    pthread_t t;
    int rc;

    test_prepare(&r->c);
    must(!r->not_root || setuid(65534) == 0);
    must(!r->thread || pthread_create(&t, NULL, thread_main, NULL) == 0);
    rc = test_enter(&r->c, &err);
    if (rc == r->rc && strstr(err.text, r->part))
        return;
    fprintf(stderr, "%d, expected %d; '%s', expected '%s'\n", rc, r->rc,
            err.text, r->part);
    _exit(1);
}

static void
refusals(const struct test_case *v)
{
    static const struct {
        const char *user, *allow;
        int rc;
        const char *part;
        bool thread, not_root;
    } table[] = {
        {"no-such-user", NULL, -EINVAL, "no user 'no-such-user'", 0, 0},
        {"", NULL, -EINVAL, "no user ''", 0, 0},
        {":daemon", NULL, -EINVAL, "no user ''", 0, 0},
        {"nobody:", NULL, -EINVAL, "no group ''", 0, 0},
        {"nobody:no-such-group", NULL, -EINVAL, "no group 'no-such-", 0, 0},
        {"12345", NULL, -EINVAL, "expected 12345:GROUP", 0, 0},
        {"4294967295:0", NULL, -EINVAL, "no user '4294967295'", 0, 0},
        {"nobody:4294967295", NULL, -EINVAL, "no group '4294967295'", 0, 0},
        {"-1", NULL, -EINVAL, "no user '-1'", 0, 0},
        {NULL, "none", -ENOENT, "/none': No such file", 0, 0},
        {NULL, "outside/file/x", -ENOTDIR, "/x': Not a directory", 0, 0},
        {"nobody", NULL, -EPERM, "only root can become another", 0, 1},
        {NULL, NULL, -EBUSY, "while other threads run", 1, 0},
        {NULL, "outside/file", 0, "", 0, 0}, /* a single file is fine */
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct refusal r = {.c = *v,
                            .rc = table[i].rc,
                            .part = table[i].part,
                            .thread = table[i].thread,
                            .not_root = table[i].not_root && geteuid() == 0};

        if ((table[i].allow && !test_landlock()) ||
            (table[i].thread && SANDBOX_SANITIZER)) {
            test_skipped++;
            continue;
        }
        r.c.user = table[i].user;
        r.c.allow = table[i].allow;
        test_check(test_spawn(refusal_run, &r) == 0, "refusal %zu: %s", i,
                   table[i].part);
    }
}

void
test_cases(const struct test_case *v)
{
    struct test_case c = *v;

    every_thread_is_inside(c);
    for (int e = 0; e < 2; e++) {
        c.engine = e ? "io_uring" : "threads";
        good("a whole life", life_run, &c);
        if (geteuid() != 0)
            continue;
        c.user = "nobody";
        good("a whole life", life_run, &c);
        c.user = NULL;
    }
    older_kernels(*v);
    refusals(v);
}
