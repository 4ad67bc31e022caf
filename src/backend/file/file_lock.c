/* SPDX-License-Identifier: MIT
 *
 * The lock of an image, in the terms that QEMU uses (image locking of its
 * block driver for files): single bytes of the file, locked shared by their
 * open file description.
 *
 *   100 + bit: "I use this permission"     bit 0 consistent read, 1 write,
 *   200 + bit: "nobody else may use it"        3 resize (2 is not ours)
 *
 *                 uses   denies   locks
 *     reader      0      1 3      100 201 203
 *     writer      0 1 3  1 3      100 101 103 201 203
 *
 * Locks are only ever shared, so taking them succeeds. Then each side asks, for
 * what it uses, whether somebody denies it, and for what it denies, whether
 * somebody uses it. Of two that come at once both may lose, never both win.
 */
#include <errno.h>
#include <fcntl.h>

#include "file_private.h"

enum {
    LOCK_USES = 100,
    LOCK_DENIES = 200,
    PERM_READ = 1 << 0,
    PERM_WRITE = 1 << 1,
    PERM_RESIZE = 1 << 3,
    PERM_BITS = 4,
};

/* F_OFD_SETLK: take the bytes of MASK; 0 or -errno. F_OFD_GETLK: would an
 * exclusive lock on one of them fail? 1, 0 or -errno. */
static int
lock_bytes(int fd, int cmd, int base, unsigned mask)
{
    for (int bit = 0; bit < PERM_BITS; bit++) {
        struct flock fl = {
            .l_type = cmd == F_OFD_SETLK ? F_RDLCK : F_WRLCK,
            .l_start = base + bit,
            .l_len = 1,
        };

        if (!(mask >> bit & 1))
            continue;
        if (fcntl(fd, cmd, &fl) < 0)
            return -errno;
        if (cmd == F_OFD_GETLK && fl.l_type != F_UNLCK)
            return 1;
    }
    return 0;
}

int
file_lock(int fd, const char *path, bool writable, const struct st_log *log,
          struct st_err *err)
{
    const unsigned denies = PERM_WRITE | PERM_RESIZE;
    const unsigned uses = PERM_READ | (writable ? denies : 0);
    const char *why = "it allows no other to write";
    int rc = lock_bytes(fd, F_OFD_SETLK, LOCK_USES, uses);

    if (rc == 0)
        rc = lock_bytes(fd, F_OFD_SETLK, LOCK_DENIES, denies);
    if (rc == 0)
        rc = lock_bytes(fd, F_OFD_GETLK, LOCK_DENIES, uses);
    if (rc == 0) {
        rc = lock_bytes(fd, F_OFD_GETLK, LOCK_USES, denies);
        why = "it may write to it";
    }
    if (rc == 0)
        return 1;
    if (rc > 0 || rc == -EAGAIN || rc == -EACCES)
        return st_err_set(err, EBUSY, "%s: in use by another process (%s)",
                          path, rc > 0 ? why : "it has locked all of it");
    if (rc != -EINVAL && rc != -ENOLCK && rc != -EOPNOTSUPP)
        return st_err_set(err, -rc, "%s: cannot be locked: %s", path,
                          st_strerror(rc));
    st_warn(log, "%s: cannot be locked (%s): nothing keeps others out", path,
            st_strerror(rc));
    return 0;
}

void
file_unlock(int fd)
{
    struct flock fl = {.l_type = F_UNLCK};

    fcntl(fd, F_OFD_SETLK, &fl); /* the close that follows would do it, too */
}
