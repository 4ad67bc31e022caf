/* SPDX-License-Identifier: MIT
 *
 * The sandbox: how little a server can do once a client has taken it over.
 *
 *   options -> files, sockets, loops -> st_sandbox_enter -> threads -> clients
 *
 *   1. user          --user NAME[:GROUP]; capabilities go in any case
 *   2. no_new_privs  nothing that is executed gains any right
 *   3. Landlock      no path but --allow-path, no TCP, no signals to others
 *   4. seccomp       no system call but those that a server makes
 *   5. io_uring      rings do what our engine does (engine_uring.c, always)
 *
 * What is open stays open, with all its rights. Threads that start later are
 * inside; one that runs already would stay outside of Landlock, so there must
 * be none. There is no way back. guide/sandbox.md is the user's page.
 */
#ifndef ST_SANDBOX_H
#define ST_SANDBOX_H

#include <stdbool.h>

#include "err.h"
#include "log.h"

/* Rows of a command that has a sandbox. */
#define ST_CMD_USER                                                            \
    {                                                                          \
        "user", ST_CMD_TEXT, "NAME[:GROUP]",                                   \
            "as root: become this user when everything is open", 0, 0, 0       \
    }
#define ST_CMD_ALLOW_PATH                                                      \
    {                                                                          \
        "allow-path", ST_CMD_MANY, "DIR",                                      \
            "what may be opened later, and made there; repeat for more", 0, 0, \
            0                                                                  \
    }
#define ST_CMD_NO_SANDBOX                                                      \
    {                                                                          \
        "no-sandbox", ST_CMD_FLAG, NULL,                                       \
            "do not give up what is not needed any more", 0, 0, 0              \
    }

/* Zeroed and filled by the caller; everything is borrowed during the call. */
struct st_sandbox_opts {
    const struct st_log *log; /* says what the kernel lacks; may be NULL */
    bool off;                 /* --no-sandbox: only `user` is heeded */
    const char *user;         /* --user, or NULL: stay who we are */
    const char *const *allow; /* --allow-path: folders, or single files */
    unsigned nallow;
    const char *const *socket; /* paths of ours, to be unlinked at the end; NULL
                                * entries are skipped */
    unsigned nsockets;
    bool new_loops;    /* st_loop_create is called later, too. Without it no
                        * io_uring can be made any more, so the restrictions of
                        * ours cannot be gone round */
    bool kvm;          /* a machine of ours runs */
    unsigned landlock; /* for tests: as if the kernel had this ABI at most;
                        * 0 = what it has */
};

/* Enter. The main thread, before any other runs. 0, or -errno with a sentence,
 * after which the process should end (some of it may be in force):
 *
 *   -EINVAL  --user is no user, or --allow-path cannot be used
 *   -EPERM   --user, but we are not root
 *   -ENOENT, -EACCES, ...  an --allow-path, as the system says
 *   -EBUSY   another thread runs
 *
 * What the kernel lacks is a warning, not an error. */
int st_sandbox_enter(const struct st_sandbox_opts *o, struct st_err *err);

#endif
