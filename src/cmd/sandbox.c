/* SPDX-License-Identifier: MIT
 *
 * Entering the sandbox, in an order that works; see sandbox.h.
 *
 * Each step takes away what a later one does not need: names of users and paths
 * are looked up while anything can be opened, the user changes while that is a
 * right, Landlock and seccomp come when no_new_privs allows them to anybody,
 * and the filter of system calls is last, for it ends all of this.
 */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "mem.h"
#include "sandbox_private.h"

/* Does thread TID of ours belong to the kernel? Workers of io_uring do: they
 * act with the rights of whoever asked, for each request anew. */
static bool
thread_is_the_kernels(const char *tid)
{
    char path[64], name[16] = "";
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", tid);
    f = fopen(path, "re");
    if (!f)
        return true; /* gone meanwhile */
    if (!fgets(name, sizeof(name), f))
        *name = '\0';
    fclose(f);
    return strncmp(name, "iou-", 4) == 0;
}

/* How many threads of our own run; 1 where the system does not tell. */
static unsigned
count_threads(void)
{
    DIR *dir = opendir("/proc/self/task");
    struct dirent *e;
    unsigned n = 0;

    while (dir && (e = readdir(dir)) != NULL)
        if (*e->d_name != '.' && !thread_is_the_kernels(e->d_name))
            n++;
    if (dir)
        closedir(dir);
    return n ? n : 1;
}

/* What libraries read when they need it first, and could not any more: the time
 * zone; chance, without which clients could guess jansson's hashes. */
static void
read_ahead(void)
{
    tzset();
    json_object_seed(0);
}

int
st_sandbox_enter(const struct st_sandbox_opts *o, struct st_err *err)
{
    st_autoclose int ruleset = -1;
    struct sandbox_user user;
    int rc = 0;

    /* ThreadSanitizer has one of its own. */
    if (!o->off && count_threads() > 1 && !SANDBOX_SANITIZER)
        return st_err_set(err, EBUSY,
                          "the sandbox cannot be entered while other threads "
                          "run");
    if (o->user)
        rc = sandbox_user_parse(o->user, &user, err);
    if (rc == 0 && !o->off)
        rc = sandbox_paths_make(o, &ruleset, err);
    if (rc == 0 && o->user)
        rc = sandbox_user_become(&user, err);
    if (rc < 0 || o->off)
        return rc;
    read_ahead();
    rc = sandbox_drop_capabilities(err);
    if (rc < 0)
        return rc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return st_err_set(err, errno, "the sandbox: no_new_privs: %s",
                          st_strerror(-errno));
    if (ruleset >= 0)
        rc = sandbox_paths_enter(ruleset, err);
    return rc < 0 ? rc : sandbox_calls_enter(o, err);
}
