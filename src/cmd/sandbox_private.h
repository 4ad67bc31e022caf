/* SPDX-License-Identifier: MIT
 *
 * The parts of the sandbox, by file:
 *
 *   sandbox.c        the order of things
 *   sandbox_user.c   who we are: user, groups, capabilities
 *   sandbox_paths.c  Landlock
 *   sandbox_calls.c  seccomp
 */
#ifndef ST_SANDBOX_PRIVATE_H
#define ST_SANDBOX_PRIVATE_H

#include <sys/types.h>

#include "sandbox.h"

/* gcc tells by macros, clang by features, that a sanitizer is built in. It
 * wants more than we do: LeakSanitizer is a traced child, for one. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANDBOX_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||     \
    __has_feature(memory_sanitizer)
#define SANDBOX_SANITIZER 1
#endif
#endif
#ifndef SANDBOX_SANITIZER
#define SANDBOX_SANITIZER 0
#endif

/* ---- sandbox_user.c ---- */

/* Who to be, from --user. */
struct sandbox_user {
    uid_t uid;
    gid_t gid;
    char name[64]; /* for its other groups; "": it has none */
};

/* Understand NAME[:GROUP]. 0 or -EINVAL with a sentence. Asks the system's
 * lists, which may open files and sockets. */
int sandbox_user_parse(const char *text, struct sandbox_user *out,
                       struct st_err *err);

/* Become U for ever; whether we dump core stays as it is. 0 or -errno. */
int sandbox_user_become(const struct sandbox_user *u, struct st_err *err);

/* Give up every capability, but as root that to reach files whose permissions
 * are others'. 0 or -errno. */
int sandbox_drop_capabilities(struct st_err *err);

/* ---- sandbox_paths.c ---- */

/* Make the ruleset of O. *FD is -1 where there is no Landlock, or a descriptor
 * (the caller's) for sandbox_paths_enter. 0 or -errno. */
int sandbox_paths_make(const struct st_sandbox_opts *o, int *fd,
                       struct st_err *err);

/* This thread, and those that it starts, obey FD from now on. */
int sandbox_paths_enter(int fd, struct st_err *err);

/* ---- sandbox_calls.c ---- */

/* Filter the system calls of all threads. 0 or -errno. */
int sandbox_calls_enter(const struct st_sandbox_opts *o, struct st_err *err);

#endif
