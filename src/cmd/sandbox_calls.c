/* SPDX-License-Identifier: MIT
 *
 * seccomp: which system calls can still be made; see sandbox_private.h.
 *
 *   in `calls_allowed`, or by a rule on its arguments   goes on
 *   in `calls_deadly`: no server of ours ever asks      the process is killed
 *   clone3                      ENOSYS: libc tries clone, whose flags are seen
 *   socket                      EACCES
 *   anything else               EPERM
 *
 * The lists are what either engine, libc, OpenSSL, libmicrohttpd and jansson
 * call once everything is open. A name that this machine's libseccomp does not
 * know is left out. A filter does not see what pointers point at, nor what goes
 * through an io_uring: paths are Landlock's, rings have restrictions of their
 * own (base/engine_uring.c).
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox_private.h"

static const char *const calls_allowed[] = {
    /* Files: Landlock says which. */
    "open", "openat", "close", "read", "readv", "pread64", "preadv", "preadv2",
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "lseek", "_llseek",
    "fsync", "fdatasync", "sync_file_range", "fallocate", "ftruncate",
    "ftruncate64", "fcntl", "fcntl64", "flock", "dup", "stat", "stat64",
    "lstat", "lstat64", "fstat", "fstat64", "newfstatat", "fstatat64", "statx",
    "statfs", "statfs64", "fstatfs", "fstatfs64", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getcwd", "getdents", "getdents64",
    "unlink", "unlinkat",
    /* Loops. */
    "io_uring_enter", "io_uring_register", "epoll_create1", "epoll_ctl",
    "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2", "poll", "ppoll",
    "ppoll_time64", "select", "_newselect", "pselect6", "pselect6_time64",
    /* Sockets that are there already. */
    "accept", "accept4", "recv", "recvfrom", "recvmsg", "recvmmsg", "send",
    "sendmsg", "sendmmsg", "shutdown", "getsockopt", "setsockopt",
    "getsockname", "getpeername",
    /* Memory. */
    "brk", "munmap", "mremap", "madvise", "mincore",
    /* Threads, time, signals to ourselves. */
    "futex", "futex_time64", "futex_waitv", "set_robust_list", "rseq",
    "sched_yield", "sched_getaffinity", "membarrier", "getcpu", "gettid",
    "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "clock_gettime",
    "clock_gettime64", "clock_getres", "clock_getres_time64", "gettimeofday",
    "time", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn",
    "sigaltstack", "restart_syscall", "exit", "exit_group",
    /* Who and where we are. */
    "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getuid32",
    "geteuid32", "getgid32", "getegid32", "uname", "sysinfo", "getrusage",
    "times", "getrandom", "getrlimit", "ugetrlimit"};

static const char *const calls_deadly[] = {
    /* Other programs and processes. */
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
    "pidfd_open", "pidfd_getfd", "process_madvise", "kcmp",
    /* The kernel itself. */
    "init_module", "finit_module", "delete_module", "create_module",
    "kexec_load", "kexec_file_load", "bpf", "perf_event_open", "userfaultfd",
    "reboot", "iopl", "ioperm", "modify_ldt", "vm86", "vm86old", "acct",
    "quotactl", "quotactl_fd", "swapon", "swapoff", "syslog", "lookup_dcookie",
    "nfsservctl",
    /* Namespaces and mounts. */
    "mount", "umount", "umount2", "move_mount", "mount_setattr", "open_tree",
    "fsopen", "fsconfig", "fsmount", "fspick", "pivot_root", "chroot", "setns",
    "unshare", "open_by_handle_at", "name_to_handle_at", "sethostname",
    "setdomainname",
    /* Keys and clocks. */
    "add_key", "keyctl", "request_key", "settimeofday", "clock_settime",
    "clock_settime64", "adjtimex", "clock_adjtime", "clock_adjtime64"};

/* LeakSanitizer stops the world from a traced child. */
static const char *const calls_sanitizer[] = {
    "clone", "ptrace", "wait4", "prctl", "prlimit64", "personality"};

static const unsigned calls_ioctls[] = {
    TCGETS,   FIONREAD,      FIONBIO,      BLKGETSIZE64, BLKSSZGET, BLKPBSZGET,
    BLKROGET, BLKROTATIONAL, BLKGETZONESZ, BLKDISCARD,   BLKZEROOUT};

/* What a machine that is made already asks of KVM, and its terminal's end. None
 * of them makes a machine, a vCPU, or shows a guest other memory. */
static const unsigned calls_kvm[] = {
    KVM_RUN,          KVM_IRQ_LINE,        KVM_SIGNAL_MSI,
    KVM_IRQFD,        KVM_IOEVENTFD,       KVM_SET_GSI_ROUTING,
    KVM_GET_REGS,     KVM_SET_REGS,        KVM_GET_SREGS,
    KVM_SET_SREGS,    KVM_GET_XSAVE,       KVM_GET_XSAVE2,
    KVM_SET_XSAVE,    KVM_GET_XCRS,        KVM_SET_XCRS,
    KVM_GET_LAPIC,    KVM_SET_LAPIC,       KVM_GET_MSRS,
    KVM_SET_MSRS,     KVM_GET_DEBUGREGS,   KVM_SET_DEBUGREGS,
    KVM_GET_MP_STATE, KVM_SET_MP_STATE,    KVM_GET_VCPU_EVENTS,
    KVM_GET_IRQCHIP,  KVM_SET_VCPU_EVENTS, KVM_SET_IRQCHIP,
    KVM_GET_PIT2,     KVM_SET_PIT2,        KVM_TRANSLATE,
    KVM_GET_CLOCK,    KVM_SET_CLOCK,       KVM_KVMCLOCK_CTRL,
    KVM_GET_TSC_KHZ,  KVM_SET_TSC_KHZ,     KVM_GET_NESTED_STATE,
    TCSETS,           TIOCGPGRP,           KVM_CHECK_EXTENSION};

/* The file of a saved machine takes the place of an older one. */
static const char *const calls_machine[] = {"rename", "renameat", "renameat2"};

#define CALLS_COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* ---- Rules ---- */

/* One filter in the making; the first failure stays in rc. */
struct calls {
    scmp_filter_ctx ctx;
    int rc;
};

/* ACTION for the call NAME, if its arguments are as the N compares of CMP say.
 */
static void
calls_rule_if(struct calls *c, uint32_t action, const char *name, unsigned n,
              const struct scmp_arg_cmp *cmp)
{
    int call = seccomp_syscall_resolve_name(name);

    if (c->rc < 0 || call == __NR_SCMP_ERROR)
        return;
    c->rc = seccomp_rule_add_array(c->ctx, action, call, n, cmp);
    if (SANDBOX_SANITIZER && c->rc == -EEXIST)
        c->rc = 0; /* it has been allowed altogether */
}

static void
calls_rule(struct calls *c, uint32_t action, const char *name)
{
    calls_rule_if(c, action, name, 0, NULL);
}

static void
calls_list(struct calls *c, uint32_t action, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        calls_rule(c, action, names[i]);
}

/* Argument ARG, of the bits of MASK, has exactly BITS. */
static struct scmp_arg_cmp
calls_bits(unsigned arg, uint64_t mask, uint64_t bits)
{
    return (struct scmp_arg_cmp){
        .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = bits};
}

/* Argument ARG, an int, is VALUE: what is above its 32 bits means nothing. */
static struct scmp_arg_cmp
calls_int(unsigned arg, uint32_t value)
{
    return calls_bits(arg, UINT32_MAX, value);
}

static void
calls_ioctl(struct calls *c, const unsigned *requests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct scmp_arg_cmp request = calls_int(1, requests[i]);

        calls_rule_if(c, SCMP_ACT_ALLOW, "ioctl", 1, &request);
    }
}

/* Memory that is not to be executed; threads, not processes; signals to us. */
static void
calls_guarded(struct calls *c)
{
#ifdef __s390__
    const unsigned flags = 1; /* which argument of clone they are */
#else
    const unsigned flags = 0;
#endif
    const struct scmp_arg_cmp thread =
        calls_bits(flags, CLONE_THREAD, CLONE_THREAD);
    const struct scmp_arg_cmp data = calls_bits(2, PROT_EXEC, 0);
    const struct scmp_arg_cmp ours = calls_int(0, (uint32_t)getpid());
    const struct scmp_arg_cmp name = calls_int(0, PR_SET_NAME);
    const struct scmp_arg_cmp ask[] = {calls_int(0, 0),
                                       calls_bits(2, UINT64_MAX, 0)};
    const struct scmp_arg_cmp no_address = calls_bits(4, UINT64_MAX, 0);

    calls_rule_if(c, SCMP_ACT_ALLOW, "mmap", 1, &data);
    calls_rule_if(c, SCMP_ACT_ALLOW, "mmap2", 1, &data);
    calls_rule_if(c, SCMP_ACT_ALLOW, "mprotect", 1, &data);
    calls_rule_if(c, SCMP_ACT_ALLOW, "clone", 1, &thread);
    calls_rule_if(c, SCMP_ACT_ALLOW, "tgkill", 1, &ours);
    calls_rule_if(c, SCMP_ACT_ALLOW, "prctl", 1, &name);
    calls_rule_if(c, SCMP_ACT_ALLOW, "prlimit64", 2, ask);
    calls_rule_if(c, SCMP_ACT_ALLOW, "sendto", 1, &no_address);
    calls_rule(c, SCMP_ACT_ERRNO(ENOSYS), "clone3");
    calls_ioctl(c, calls_ioctls, CALLS_COUNT(calls_ioctls));
}

/* A block device that is opened later wants to hear of its resizes. */
static void
calls_sockets(struct calls *c, bool uevents)
{
    const struct scmp_arg_cmp yes[] = {calls_int(0, AF_NETLINK),
                                       calls_int(2, NETLINK_KOBJECT_UEVENT)};
    const struct scmp_arg_cmp no = {
        .arg = 0, .op = SCMP_CMP_NE, .datum_a = AF_NETLINK};

    if (!uevents) {
        calls_rule(c, SCMP_ACT_ERRNO(EACCES), "socket");
        return;
    }
    calls_rule_if(c, SCMP_ACT_ALLOW, "socket", 2, yes);
    calls_rule_if(c, SCMP_ACT_ERRNO(EACCES), "socket", 1, &no);
    calls_rule(c, SCMP_ACT_ALLOW, "bind"); /* of TCP and paths: Landlock's */
}

static int
calls_build(struct calls *c, const struct st_sandbox_opts *o)
{
    seccomp_attr_set(c->ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    seccomp_attr_set(c->ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    /* A tree instead of a chain; and kernels before 5.16 would slow us down in
     * a way that is meant for programs that run foreign code. */
    seccomp_attr_set(c->ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    seccomp_attr_set(c->ctx, SCMP_FLTATR_CTL_SSB, 1);
    seccomp_attr_set(c->ctx, SCMP_FLTATR_API_SYSRAWRC, 1);
    if (SANDBOX_SANITIZER)
        calls_list(c, SCMP_ACT_ALLOW, calls_sanitizer,
                   CALLS_COUNT(calls_sanitizer));
    calls_list(c, SCMP_ACT_ALLOW, calls_allowed, CALLS_COUNT(calls_allowed));
    calls_guarded(c);
    if (o->kvm) {
        calls_ioctl(c, calls_kvm, CALLS_COUNT(calls_kvm));
        calls_list(c, SCMP_ACT_ALLOW, calls_machine,
                   CALLS_COUNT(calls_machine));
    }
    calls_sockets(c, o->nallow);
    if (o->new_loops)
        calls_rule(c, SCMP_ACT_ALLOW, "io_uring_setup");
    calls_list(c, SCMP_ACT_KILL_PROCESS, calls_deadly,
               CALLS_COUNT(calls_deadly));
    return c->rc == 0 ? seccomp_load(c->ctx) : c->rc;
}

/* ---- Entering ---- */

int
sandbox_calls_enter(const struct st_sandbox_opts *o, struct st_err *err)
{
    uint32_t kill = SECCOMP_RET_KILL_PROCESS;
    struct calls c = {0};
    int rc;

    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill) < 0) {
        st_warn(o->log,
                "sandbox: this kernel has no seccomp filters (%s), every "
                "system call can be made",
                st_strerror(-errno));
        return 0;
    }
    c.ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    rc = c.ctx ? calls_build(&c, o) : -ENOMEM;
    seccomp_release(c.ctx);
    return rc < 0 ? st_err_set(err, -rc, "the sandbox: seccomp: %s",
                               st_strerror(rc))
                  : 0;
}
