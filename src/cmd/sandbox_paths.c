/* SPDX-License-Identifier: MIT
 *
 * Landlock: which paths can still be opened, and how; see sandbox_private.h.
 *
 *   ABI  1       2      3         4         5            6           7
 *        files   refer  truncate  TCP       ioctl of     signals,    logs
 *                                 bind,     devices      abstract    (kernel's
 *                                 connect                sockets     own)
 *
 * All that an ABI can deny is denied, then given back below the folders that
 * were named. A descriptor that is open keeps what it could do when it was
 * opened. Documented in landlock(7) and the kernel's userspace-api/landlock;
 * Debian 12's header ends with ABI 2, so the later numbers stand here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mem.h"
#include "sandbox_private.h"

enum { PATHS_ABI = 7 }; /* the latest one that we understand */

#define PATHS_FS_ABI1      ((UINT64_C(1) << 13) - 1)
#define PATHS_FS_TRUNCATE  (UINT64_C(1) << 14)
#define PATHS_FS_IOCTL_DEV (UINT64_C(1) << 15)
#define PATHS_NET_TCP      (UINT64_C(1) << 0 | UINT64_C(1) << 1)
#define PATHS_SCOPES       (UINT64_C(1) << 0 | UINT64_C(1) << 1)

/* Of a file, and what else there is of a folder. */
#define PATHS_READ_FILE LANDLOCK_ACCESS_FS_READ_FILE
#define PATHS_READ_DIR  LANDLOCK_ACCESS_FS_READ_DIR
#define PATHS_USE_FILE                                                         \
    (PATHS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | PATHS_FS_TRUNCATE |     \
     PATHS_FS_IOCTL_DEV)
#define PATHS_USE_DIR                                                          \
    (PATHS_READ_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |                            \
     LANDLOCK_ACCESS_FS_REMOVE_FILE)

/* struct landlock_ruleset_attr as of ABI 6; older kernels take its head. */
struct paths_ruleset {
    uint64_t fs, net, scoped;
};

/* The ABI, or -errno. */
static int
paths_abi(unsigned most)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0,
                       LANDLOCK_CREATE_RULESET_VERSION);

    if (abi < 0)
        return -errno;
    if (!most || most > PATHS_ABI)
        most = PATHS_ABI;
    return abi < most ? (int)abi : (int)most;
}

static struct paths_ruleset
paths_handled(int abi, size_t *size)
{
    struct paths_ruleset r = {.fs = PATHS_FS_ABI1};

    if (abi >= 2)
        r.fs |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= 3)
        r.fs |= PATHS_FS_TRUNCATE;
    if (abi >= 4)
        r.net = PATHS_NET_TCP;
    if (abi >= 5)
        r.fs |= PATHS_FS_IOCTL_DEV;
    if (abi >= 6)
        r.scoped = PATHS_SCOPES;
    *size = abi >= 6   ? sizeof(r)
            : abi >= 4 ? offsetof(struct paths_ruleset, scoped)
                       : offsetof(struct paths_ruleset, net);
    return r;
}

/* Allow ACCESS below PATH, or what of it a single file can have. 0 or -errno.
 */
static int
paths_allow(int ruleset, const char *path, uint64_t access)
{
    st_autoclose int fd = open(path, O_PATH | O_CLOEXEC);
    struct landlock_path_beneath_attr a = {.allowed_access = access,
                                           .parent_fd = fd};
    struct stat sb;

    if (fd < 0 || fstat(fd, &sb) < 0)
        return -errno;
    if (!S_ISDIR(sb.st_mode))
        a.allowed_access &= PATHS_USE_FILE;
    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
                   &a, 0) < 0
               ? -errno
               : 0;
}

/* The socket at PATH is unlinked at the end: a right on its folder. */
static int
paths_allow_unlink(int ruleset, const char *path)
{
    const char *slash = strrchr(path, '/');
    char dir[4096] = ".";

    if (slash && slash - path >= (ptrdiff_t)sizeof(dir))
        return -ENAMETOOLONG;
    if (slash == path) {
        strcpy(dir, "/");
    } else if (slash) {
        memcpy(dir, path, (size_t)(slash - path));
        dir[slash - path] = '\0';
    }
    return paths_allow(ruleset, dir, LANDLOCK_ACCESS_FS_REMOVE_FILE);
}

static int
paths_rules(const struct st_sandbox_opts *o, int ruleset, uint64_t fs,
            struct st_err *err)
{
    /* A block device that is opened later: its limits are here. */
    static const char *const sysfs[] = {"/sys/dev/block", "/sys/devices"};
    int rc;

    for (unsigned i = 0; i < o->nallow; i++) {
        rc = paths_allow(ruleset, o->allow[i],
                         fs & (PATHS_USE_FILE | PATHS_USE_DIR));
        if (rc < 0)
            return st_err_set(err, -rc, "--allow-path '%s': %s", o->allow[i],
                              st_strerror(rc));
    }
    for (unsigned i = 0; i < o->nsockets; i++) {
        rc = o->socket[i] ? paths_allow_unlink(ruleset, o->socket[i]) : 0;
        if (rc < 0)
            return st_err_set(err, -rc, "the folder of socket '%s': %s",
                              o->socket[i], st_strerror(rc));
    }
    /* malloc asks, once; without an answer it believes in the default. */
    paths_allow(ruleset, "/proc/sys/vm/overcommit_memory", PATHS_READ_FILE);
    for (unsigned i = 0; o->nallow && i < 2; i++)
        paths_allow(ruleset, sysfs[i], PATHS_READ_FILE | PATHS_READ_DIR);
    if (SANDBOX_SANITIZER)
        paths_allow(ruleset, "/proc", PATHS_READ_FILE | PATHS_READ_DIR);
    return 0;
}

int
sandbox_paths_make(const struct st_sandbox_opts *o, int *fd, struct st_err *err)
{
    int abi = paths_abi(o->landlock), rc;
    struct paths_ruleset r;
    size_t size;

    *fd = -1;
    if (abi <= 0) {
        st_warn(o->log,
                "sandbox: this kernel has no Landlock (%s), every path that "
                "our user can open can be opened",
                st_strerror(abi));
        return 0;
    }
    r = paths_handled(abi, &size);
    *fd = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
    if (*fd < 0)
        return st_err_set(err, errno, "the sandbox: Landlock: %s",
                          st_strerror(-errno));
    rc = paths_rules(o, *fd, r.fs, err);
    if (rc == 0 && abi < 6)
        st_info(o->log,
                "sandbox: this kernel's Landlock (ABI %d) does not deny%s "
                "signals to other processes",
                abi, abi < 4 ? " TCP and" : "");
    return rc;
}

int
sandbox_paths_enter(int fd, struct st_err *err)
{
    if (syscall(SYS_landlock_restrict_self, fd, 0) == 0)
        return 0;
    return st_err_set(err, errno, "the sandbox: Landlock: %s",
                      st_strerror(-errno));
}
