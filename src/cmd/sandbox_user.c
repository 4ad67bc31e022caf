/* SPDX-License-Identifier: MIT
 *
 * Who the process is: user, groups, capabilities; see sandbox_private.h.
 *
 * Two system calls do for capabilities; a library for them would be one more
 * package, with state of its own.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox_private.h"
#include "size.h"

/* ---- --user ---- */

/* NAME, or its number, with its group. */
static int
parse_name(const char *name, bool has_group, struct sandbox_user *out,
           struct st_err *err)
{
    const struct passwd *p = *name ? getpwnam(name) : NULL;
    uint64_t uid;

    if (!p && st_number_parse("user", name, 0, UINT32_MAX - 1, &uid, NULL) < 0)
        return st_err_set(err, EINVAL,
                          "--user: no user '%s', expected its name or number",
                          name);
    if (!p && !(p = getpwuid((uid_t)uid))) {
        if (!has_group)
            return st_err_set(err, EINVAL,
                              "--user: user '%s' has no name here, and so no "
                              "group, expected %s:GROUP",
                              name, name);
        out->uid = (uid_t)uid;
        return 0;
    }
    out->uid = p->pw_uid;
    out->gid = p->pw_gid;
    snprintf(out->name, sizeof(out->name), "%s", p->pw_name);
    return 0;
}

int
sandbox_user_parse(const char *text, struct sandbox_user *out,
                   struct st_err *err)
{
    const char *colon = strchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    const struct group *g = NULL;
    char name[64];
    uint64_t gid;
    int rc;

    memset(out, 0, sizeof(*out));
    if (len >= sizeof(name))
        return st_err_set(err, EINVAL, "--user: the name '%s' is too long",
                          text);
    memcpy(name, text, len);
    name[len] = '\0';
    rc = parse_name(name, colon, out, err);
    if (rc < 0 || !colon)
        return rc;
    g = colon[1] ? getgrnam(colon + 1) : NULL;
    if (!g &&
        st_number_parse("group", colon + 1, 0, UINT32_MAX - 1, &gid, NULL) < 0)
        return st_err_set(err, EINVAL,
                          "--user: no group '%s', expected its name or number",
                          colon + 1);
    out->gid = g ? g->gr_gid : (gid_t)gid;
    return 0;
}

int
sandbox_user_become(const struct sandbox_user *u, struct st_err *err)
{
    int dumpable = prctl(PR_GET_DUMPABLE);

    if (geteuid() != 0)
        return st_err_set(err, EPERM,
                          "--user: only root can become another "
                          "user");
    /* What no program that we could execute may ever have. */
    for (int cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
        ;
    if ((*u->name ? initgroups(u->name, u->gid) : setgroups(0, NULL)) < 0 ||
        setresgid(u->gid, u->gid, u->gid) < 0 ||
        setresuid(u->uid, u->uid, u->uid) < 0)
        return st_err_set(err, errno, "--user: cannot become user %u: %s",
                          (unsigned)u->uid, st_strerror(-errno));
    /* A change of user turns core dumps off, and takes our own /proc away. */
    if (dumpable == 1)
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    return 0;
}

/* ---- Capabilities ---- */

int
sandbox_drop_capabilities(struct st_err *err)
{
    const uint32_t keep = geteuid() == 0 ? 1u << CAP_DAC_OVERRIDE : 0;
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];

    /* libc has no function for them. */
    if (syscall(SYS_capget, &h, d) < 0)
        goto fail;
    d[0].effective = d[0].permitted = d[0].permitted & keep;
    d[0].inheritable = 0;
    d[1] = (struct __user_cap_data_struct){0};
    if (syscall(SYS_capset, &h, d) == 0)
        return 0;
fail:
    return st_err_set(err, errno, "the sandbox: capabilities: %s",
                      st_strerror(-errno));
}
