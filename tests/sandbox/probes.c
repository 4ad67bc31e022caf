/* SPDX-License-Identifier: MIT
 *
 * The probes; see probes.h. Each one works outside, or fails there for another
 * reason, so that it is the sandbox that is seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probes.h"
#include "stack.h"

#ifdef ST_HAVE_URING
#include <liburing.h>

#include "engine.h"
#endif

static int
result(long rc)
{
    return rc < 0 ? errno : 0;
}

/* "DIR/NAME", until the next call of this thread. */
static const char *
at(struct probe_world *w, const char *name)
{
    static _Thread_local char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    return path;
}

static int
try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0666), rc = result(fd);

    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- Paths ---- */

static int
read_outside(struct probe_world *w)
{
    return try_open(at(w, "outside/file"), O_RDONLY);
}

static int
write_outside(struct probe_world *w)
{
    return try_open(at(w, "outside/file"), O_WRONLY);
}

static int
create_outside(struct probe_world *w)
{
    return try_open(at(w, "outside/new"), O_RDWR | O_CREAT);
}

static int
list_outside(struct probe_world *w)
{
    return try_open(at(w, "outside"), O_RDONLY | O_DIRECTORY);
}

static int
unlink_outside(struct probe_world *w)
{
    return result(unlink(at(w, "outside/victim")));
}

static int
truncate_outside(struct probe_world *w)
{
    return result(truncate(at(w, "outside/file"), 0));
}

static int
up_and_outside(struct probe_world *w)
{
    return try_open(at(w, "allowed/../outside/file"), O_RDONLY);
}

static int
link_outside(struct probe_world *w)
{
    return try_open(at(w, "allowed/away"), O_RDONLY);
}

static int
passwd(struct probe_world *w)
{
    (void)w;
    return try_open("/etc/passwd", O_RDONLY);
}

static int
shadow(struct probe_world *w)
{
    (void)w;
    return try_open("/etc/shadow", O_RDONLY);
}

static int
own_memory(struct probe_world *w)
{
    (void)w;
    return try_open("/proc/self/mem", O_RDWR);
}

static int
read_write_allowed(struct probe_world *w)
{
    return try_open(at(w, "allowed/there"), O_RDWR);
}

static int
truncate_allowed(struct probe_world *w)
{
    return try_open(at(w, "allowed/there"), O_RDWR | O_TRUNC);
}

static int
list_allowed(struct probe_world *w)
{
    return try_open(at(w, "allowed"), O_RDONLY | O_DIRECTORY);
}

static int
create_allowed(struct probe_world *w)
{
    char name[64];
    int rc;

    snprintf(name, sizeof(name), "allowed/new-%d", (int)getpid());
    rc = try_open(at(w, name), O_RDWR | O_CREAT | O_EXCL);
    return rc ? rc : result(unlink(at(w, name)));
}

static int
mkdir_allowed(struct probe_world *w)
{
    int rc = result(mkdir(at(w, "allowed/folder"), 0777));

    return rc ? rc : result(rmdir(at(w, "allowed/folder")));
}

static int
rename_allowed(struct probe_world *w)
{
    char from[PATH_MAX];

    snprintf(from, sizeof(from), "%s", at(w, "allowed/there"));
    return result(rename(from, at(w, "allowed/there")));
}

static int
symlink_allowed(struct probe_world *w)
{
    int rc = result(symlink("x", at(w, "allowed/link")));

    return rc ? rc : result(unlink(at(w, "allowed/link")));
}

static int
chmod_allowed(struct probe_world *w)
{
    return result(chmod(at(w, "allowed/there"), 0666));
}

static int
create_beside_socket(struct probe_world *w)
{
    return try_open(at(w, "run/new"), O_RDWR | O_CREAT);
}

/* Each case has its own process, but all have one folder: the harness makes
 * the socket again. */
static int
unlink_socket(struct probe_world *w)
{
    return result(unlink(at(w, "run/sock")));
}

static int
what_is_open(struct probe_world *w)
{
    char c = 'x';

    if (pwrite(w->file, &c, 1, 0) != 1 || pread(w->file, &c, 1, 0) != 1 ||
        ftruncate(w->file, 8192) < 0 ||
        fallocate(w->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  4096) < 0 ||
        fsync(w->file) < 0)
        return errno;
    return 0;
}

static int
reopen_what_is_open(struct probe_world *w)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", w->file);
    return try_open(path, O_RDWR);
}

/* ---- Network ---- */

static int
try_socket(int family, int type, int protocol)
{
    int fd = socket(family, type | SOCK_CLOEXEC, protocol), rc = result(fd);

    if (fd >= 0)
        close(fd);
    return rc;
}

static int
socket_tcp(struct probe_world *w)
{
    (void)w;
    return try_socket(AF_INET, SOCK_STREAM, 0);
}

static int
socket_udp(struct probe_world *w)
{
    (void)w;
    return try_socket(AF_INET6, SOCK_DGRAM, 0);
}

static int
socket_unix(struct probe_world *w)
{
    (void)w;
    return try_socket(AF_UNIX, SOCK_STREAM, 0);
}

static int
socket_route(struct probe_world *w)
{
    (void)w;
    return try_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
}

static int
socket_uevents(struct probe_world *w)
{
    const struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    NETLINK_KOBJECT_UEVENT);

    (void)w;
    return fd < 0 ? errno
                  : result(bind(fd, (const struct sockaddr *)&a, sizeof(a)));
}

static int
pair(struct probe_world *w)
{
    int fd[2];

    (void)w;
    return result(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
}

static struct sockaddr_in
local(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int
connect_tcp(struct probe_world *w)
{
    struct sockaddr_in a = local(w->port);

    return result(connect(w->tcp, (struct sockaddr *)&a, sizeof(a)));
}

static int
bind_tcp(struct probe_world *w)
{
    struct sockaddr_in a = local(0);

    return result(bind(w->tcp, (struct sockaddr *)&a, sizeof(a)));
}

static struct sockaddr_un
unix_at(struct probe_world *w, const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "%.80s/%s", w->dir, name);
    return a;
}

static int
connect_unix(struct probe_world *w)
{
    struct sockaddr_un a = unix_at(w, "outside/sock");

    return result(connect(w->stream, (struct sockaddr *)&a, sizeof(a)));
}

static int
send_unix(struct probe_world *w)
{
    struct sockaddr_un a = unix_at(w, "outside/dgram");

    return result(sendto(w->dgram, "x", 1, MSG_DONTWAIT, (struct sockaddr *)&a,
                         sizeof(a)));
}

static int
accept_one(struct probe_world *w)
{
    int fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);
    char c;

    if (fd < 0)
        return errno;
    return send(fd, "x", 1, MSG_NOSIGNAL) == 1 &&
                   recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN
               ? 0
               : EIO;
}

/* ---- Processes ---- */

static int
exec_true(struct probe_world *w)
{
    (void)w;
    return result(execl("/bin/true", "true", (char *)NULL));
}

static int
fork_one(struct probe_world *w)
{
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

    (void)w;
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    return result(pid);
}

static int
trace_me(struct probe_world *w)
{
    (void)w;
    return result(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int
read_process(struct probe_world *w)
{
    char a = 'a', b;
    struct iovec from = {&a, 1}, to = {&b, 1};

    (void)w;
    return result(
        syscall(SYS_process_vm_readv, (long)getpid(), &to, 1L, &from, 1L, 0L));
}

static int
signal_parent(struct probe_world *w)
{
    (void)w;
    return result(kill(getppid(), 0));
}

static int
signal_thread_of_parent(struct probe_world *w)
{
    (void)w;
    return result(syscall(SYS_tgkill, (long)getppid(), (long)getppid(), 0L));
}

static int
signal_us(struct probe_world *w)
{
    (void)w;
    return pthread_kill(pthread_self(), 0);
}

static int
abort_us(struct probe_world *w)
{
    (void)w;
    abort();
}

static void *
thread_main(void *arg)
{
    return arg;
}

static int
more_threads(struct probe_world *w)
{
    pthread_t t;
    int rc = pthread_create(&t, NULL, thread_main, NULL);

    (void)w;
    return rc ? rc : pthread_join(t, NULL);
}

static int
name_thread(struct probe_world *w)
{
    (void)w;
    return pthread_setname_np(pthread_self(), "probe");
}

static int
become_root(struct probe_world *w)
{
    (void)w;
    return result(syscall(SYS_setresuid, 0L, 0L, 0L));
}

static int
set_dumpable(struct probe_world *w)
{
    (void)w;
    return result(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

static int
set_limit(struct probe_world *w)
{
    struct rlimit r = {0, 0};

    (void)w;
    return result(setrlimit(RLIMIT_CORE, &r));
}

static int
ask_limit(struct probe_world *w)
{
    struct rlimit r;

    (void)w;
    return result(getrlimit(RLIMIT_NOFILE, &r));
}

static int
type_into_terminal(struct probe_world *w)
{
    return result(ioctl(w->file, TIOCSTI, "x"));
}

static int
change_folder(struct probe_world *w)
{
    (void)w;
    return result(chdir("/"));
}

/* ---- The kernel ---- */

#define PROBE_CALL(name, ...)                                                  \
    static int name(struct probe_world *w)                                     \
    {                                                                          \
        (void)w;                                                               \
        return result(syscall(__VA_ARGS__));                                   \
    }

PROBE_CALL(call_mount, SYS_mount, 0L, "/nonexistent/strata", 0L, 0L, 0L)
PROBE_CALL(call_umount, SYS_umount2, "/nonexistent/strata", 0L)
PROBE_CALL(call_pivot_root, SYS_pivot_root, "/nonexistent", "/nonexistent")
PROBE_CALL(call_chroot, SYS_chroot, "/nonexistent/strata")
PROBE_CALL(call_unshare, SYS_unshare, 0L)
PROBE_CALL(call_setns, SYS_setns, -1L, 0L)
PROBE_CALL(call_init_module, SYS_init_module, 0L, 0L, "")
PROBE_CALL(call_finit_module, SYS_finit_module, -1L, "", 0L)
PROBE_CALL(call_delete_module, SYS_delete_module, "no-such-module", 0L)
PROBE_CALL(call_kexec, SYS_kexec_load, 0L, 0L, 0L, 0xffffL)
PROBE_CALL(call_bpf, SYS_bpf, -1L, 0L, 0L)
PROBE_CALL(call_perf, SYS_perf_event_open, 0L, -1L, -1L, -1L, 0L)
PROBE_CALL(call_userfaultfd, SYS_userfaultfd, -1L)
PROBE_CALL(call_keyctl, SYS_keyctl, -1L, 0L, 0L, 0L, 0L)
PROBE_CALL(call_add_key, SYS_add_key, 0L, 0L, 0L, 0L, 0L)
PROBE_CALL(call_reboot, SYS_reboot, 0L, 0L, 0L, 0L)
PROBE_CALL(call_open_by_handle, SYS_open_by_handle_at, -1L, 0L, 0L)
PROBE_CALL(call_settimeofday, SYS_settimeofday, 0L, -1L)

#ifdef __x86_64__
/* getpid by the 32-bit door, where a filter for the other numbers is blind. */
static int
call_i386(struct probe_world *w)
{
    long rc = 20;

    (void)w;
    __asm__ volatile("int $0x80"
                     : "+a"(rc)
                     :
                     : "memory", "cc", "r8", "r9", "r10", "r11");
    return rc == getpid() ? 0 : EIO;
}
#endif

/* ---- io_uring ---- */

#ifdef ST_HAVE_URING

/* The kernel's answer to SQE, the only one under way. */
static int
ring_answer(struct io_uring *ring, struct io_uring_sqe *sqe)
{
    struct io_uring_cqe *cqe;
    int res;

    sqe->user_data = 0;
    if (io_uring_submit(ring) != 1 || io_uring_wait_cqe(ring, &cqe) < 0)
        return EIO;
    res = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return res < 0 ? -res : 0;
}

static int
ours_socket(struct probe_world *w)
{
    struct io_uring *ring = st_uring_of(w->loop);
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0);
    return ring_answer(ring, sqe);
}

static int
ours_open(struct probe_world *w)
{
    struct io_uring *ring = st_uring_of(w->loop);
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

    io_uring_prep_openat(sqe, AT_FDCWD, at(w, "allowed/there"), O_RDONLY, 0);
    return ring_answer(ring, sqe);
}

static int
ours_connect(struct probe_world *w)
{
    struct io_uring *ring = st_uring_of(w->loop);
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    struct sockaddr_un a = unix_at(w, "outside/sock");

    io_uring_prep_connect(sqe, w->stream, (struct sockaddr *)&a, sizeof(a));
    return ring_answer(ring, sqe);
}

static int
another_ring(struct probe_world *w)
{
    struct io_uring ring;

    (void)w;
    return -io_uring_queue_init(8, &ring, 0);
}

/* A ring without restrictions is still a part of this process. */
static int
another_ring_opens(struct probe_world *w)
{
    struct io_uring ring;
    struct io_uring_sqe *sqe;

    if (io_uring_queue_init(8, &ring, 0) < 0)
        return EIO;
    sqe = io_uring_get_sqe(&ring);
    io_uring_prep_openat(sqe, AT_FDCWD, at(w, "outside/file"), O_RDONLY, 0);
    return ring_answer(&ring, sqe);
}

static int
another_ring_connects(struct probe_world *w)
{
    struct sockaddr_in a = local(w->port);
    struct io_uring ring;
    struct io_uring_sqe *sqe;

    if (io_uring_queue_init(8, &ring, 0) < 0)
        return EIO;
    sqe = io_uring_get_sqe(&ring);
    io_uring_prep_connect(sqe, w->tcp, (struct sockaddr *)&a, sizeof(a));
    return ring_answer(&ring, sqe);
}

#endif

static int
another_loop(struct probe_world *w)
{
    struct st_loop *l;

    return -st_loop_create(w->domain, &l, NULL);
}

/* ---- Disks ---- */

static int
try_disk(struct probe_world *w, const char *name)
{
    struct st_stack_env *env = st_stack_env_create();
    struct st_node *node = NULL;
    struct st_err err = {""};
    char spec[PATH_MAX + 8];
    int rc;

    snprintf(spec, sizeof(spec), "file:%s", at(w, name));
    rc = st_stack_open(w->home, env, spec, false, &node, &err);
    if (rc == -EACCES && !strstr(err.text, "--allow-path")) {
        fprintf(stderr, "no word of --allow-path: %s\n", err.text);
        return EIO;
    }
    return -rc;
}

static int
disk_allowed(struct probe_world *w)
{
    return try_disk(w, "allowed/there");
}

static int
disk_outside(struct probe_world *w)
{
    return try_disk(w, "outside/file");
}

const struct probe probes[] = {
    {"open a file for reading", EACCES, 0, 0, read_outside},
    {"open a file for writing", EACCES, 0, 0, write_outside},
    {"create a file", EACCES, 0, 0, create_outside},
    {"list a folder", EACCES, 0, 0, list_outside},
    {"unlink a file", EACCES, 0, 0, unlink_outside},
    {"truncate a file", EPERM, 0, 0, truncate_outside},
    {"open a file by '..'", EACCES, 0, 0, up_and_outside},
    {"open a file by a link", EACCES, 0, 0, link_outside},
    {"open /etc/passwd", EACCES, 0, 0, passwd},
    {"open /etc/shadow", EACCES, 0, PROBE_ROOT, shadow},
    {"open our own memory", EACCES, 0, 0, own_memory},
    {"open what is open again", EACCES, 0, 0, reopen_what_is_open},
    {"create a file beside our socket", EACCES, 0, 0, create_beside_socket},
    {"--allow-path: open", 0, 0, 0, read_write_allowed},
    {"--allow-path: truncate", 0, 0, 0, truncate_allowed},
    {"--allow-path: list", 0, 0, 0, list_allowed},
    {"--allow-path: create, unlink", 0, 0, 0, create_allowed},
    {"--allow-path: mkdir", EPERM, 0, 0, mkdir_allowed},
    {"--allow-path: rename", EPERM, 0, 0, rename_allowed},
    {"--allow-path: symlink", EPERM, 0, 0, symlink_allowed},
    {"--allow-path: chmod", EPERM, 0, 0, chmod_allowed},
    {"use what is open", 0, 0, 0, what_is_open},
    {"unlink our socket", 0, 0, 0, unlink_socket},

    {"socket: TCP", EACCES, 0, 0, socket_tcp},
    {"socket: UDP", EACCES, 0, 0, socket_udp},
    {"socket: Unix", EACCES, 0, 0, socket_unix},
    {"socket: netlink, routes", EPERM, 0, 0, socket_route},
    {"socket: netlink, devices", 0, 0, 0, socket_uevents},
    {"socketpair", EPERM, 0, 0, pair},
    {"connect: TCP", EPERM, 0, 0, connect_tcp},
    {"connect: Unix", EPERM, 0, 0, connect_unix},
    {"bind: TCP", EACCES, 0, PROBE_TCP, bind_tcp},
    {"sendto: Unix", EPERM, 0, 0, send_unix},
    {"accept, send, receive", 0, 0, 0, accept_one},

    {"execute", PROBE_KILLED, 0, 0, exec_true},
    {"fork", EPERM, 0, PROBE_NO_ASAN, fork_one},
    {"ptrace", PROBE_KILLED, 0, PROBE_NO_ASAN, trace_me},
    {"read a process's memory", PROBE_KILLED, 0, 0, read_process},
    {"kill", EPERM, 0, 0, signal_parent},
    {"tgkill of another process", EPERM, 0, 0, signal_thread_of_parent},
    {"tgkill of ourselves", 0, 0, 0, signal_us},
    {"abort", PROBE_ABORTED, PROBE_ABORTED, 0, abort_us},
    {"start a thread", 0, 0, 0, more_threads},
    {"name a thread", 0, 0, 0, name_thread},
    {"become root", EPERM, 0, PROBE_ROOT, become_root},
    {"change whether we dump core", EPERM, 0, PROBE_NO_ASAN, set_dumpable},
    {"change a limit", EPERM, 0, PROBE_NO_ASAN, set_limit},
    {"ask for a limit", 0, 0, 0, ask_limit},
    {"map executable memory", EPERM, 0, 0, probe_executable_memory},
    {"make memory executable", EPERM, 0, 0, probe_make_executable},
    {"map what a guest shares", 0, 0, 0, probe_guest_memory},
    {"execute what a guest shares", EPERM, 0, 0, probe_guest_code},
    {"interrupt a guest", 0, 0, 0, probe_guest_interrupt},
    {"make a file in memory", EPERM, 0, 0, probe_memory_file},
    {"type into a terminal", EPERM, ENOTTY, 0, type_into_terminal},
    {"change the folder", EPERM, 0, 0, change_folder},

    {"mount", PROBE_KILLED, PROBE_ANY, 0, call_mount},
    {"umount", PROBE_KILLED, PROBE_ANY, 0, call_umount},
    {"pivot_root", PROBE_KILLED, PROBE_ANY, 0, call_pivot_root},
    {"chroot", PROBE_KILLED, PROBE_ANY, 0, call_chroot},
    {"unshare", PROBE_KILLED, 0, 0, call_unshare},
    {"setns", PROBE_KILLED, PROBE_ANY, 0, call_setns},
    {"init_module", PROBE_KILLED, PROBE_ANY, 0, call_init_module},
    {"finit_module", PROBE_KILLED, PROBE_ANY, 0, call_finit_module},
    {"delete_module", PROBE_KILLED, PROBE_ANY, 0, call_delete_module},
    {"kexec_load", PROBE_KILLED, PROBE_ANY, 0, call_kexec},
    {"bpf", PROBE_KILLED, PROBE_ANY, 0, call_bpf},
    {"perf_event_open", PROBE_KILLED, PROBE_ANY, 0, call_perf},
    {"userfaultfd", PROBE_KILLED, PROBE_ANY, 0, call_userfaultfd},
    {"keyctl", PROBE_KILLED, PROBE_ANY, 0, call_keyctl},
    {"add_key", PROBE_KILLED, PROBE_ANY, 0, call_add_key},
    {"reboot", PROBE_KILLED, PROBE_ANY, 0, call_reboot},
    {"open_by_handle_at", PROBE_KILLED, PROBE_ANY, 0, call_open_by_handle},
    {"settimeofday", PROBE_KILLED, PROBE_ANY, 0, call_settimeofday},
#ifdef __x86_64__
    {"a 32-bit system call", PROBE_KILLED, 0, PROBE_I386, call_i386},
#endif

#ifdef ST_HAVE_URING
    {"our ring: SOCKET", EACCES, EACCES, PROBE_RING, ours_socket},
    {"our ring: OPENAT", EACCES, EACCES, PROBE_RING, ours_open},
    {"our ring: CONNECT", EACCES, EACCES, PROBE_RING, ours_connect},
    {"another ring", EPERM, 0, 0, another_ring},
    {"another ring, with new_loops", 0, 0, PROBE_LOOPS, another_ring},
    {"another ring: OPENAT", EACCES, 0, PROBE_LOOPS, another_ring_opens},
    {"another ring: CONNECT", EACCES, 0, PROBE_LOOPS | PROBE_TCP,
     another_ring_connects},
    {"another loop", EPERM, 0, PROBE_RING, another_loop},
#endif
    {"another loop, with new_loops", 0, 0, PROBE_LOOPS, another_loop},

    {"a disk in --allow-path", 0, 0, 0, disk_allowed},
    {"a disk outside", EACCES, 0, 0, disk_outside},
    {0},
};
