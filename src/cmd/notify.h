/* SPDX-License-Identifier: MIT
 *
 * Readiness, for a service manager that waits for it (Type=notify):
 * datagrams to the Unix socket that NOTIFY_SOCKET names, see sd_notify(3).
 *
 *   fd = st_cmd_notify_open(log)       before the sandbox is closed
 *   st_cmd_notify_ready(fd, "...")     clients can come
 *   st_cmd_notify_stopping(fd)         the end has begun
 *   close(fd)
 *
 * libsystemd's own functions make a socket for each message, which the sandbox
 * does not let us do any more; this one is connected once.
 */
#ifndef ST_NOTIFY_H
#define ST_NOTIFY_H

#include "log.h"

/* Connect to the service manager and take NOTIFY_SOCKET out of the environment.
 * Gives a descriptor, or -1: nobody waits, or (LOG has a warning) cannot be
 * reached. Before other threads start. */
int st_cmd_notify_open(const struct st_log *log);

/* Say that we are ready, and what we do in a few words, which `systemctl
 * status` shows. FD may be -1. Waits at most 5 s. */
void st_cmd_notify_ready(int fd, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Say that we are about to end. FD may be -1. Waits at most 5 s. */
void st_cmd_notify_stopping(int fd);

#endif
