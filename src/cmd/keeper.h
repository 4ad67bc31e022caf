/* SPDX-License-Identifier: MIT
 *
 * The keeper of strata serve --survive: a process that starts the server as its
 * child, holds what must outlive it (keep.h), and starts a successor when it is
 * killed or crashes (guide/restart.md).
 *
 *   keeper --fork, exec of itself--> server --put, drop--> keeper
 *     SIGTERM, SIGINT, SIGUSR1 -->
 *     <-- READY=1, STOPPING=1, passed on to the service manager
 *
 * It maps no memory of a guest and reads nothing that a guest or a client has
 * sent.
 */
#ifndef ST_KEEPER_H
#define ST_KEEPER_H

#include "err.h"
#include "keep.h"
#include "log.h"

/* A server that dies so often in so many seconds is not started again. */
enum { ST_KEEPER_DEATHS = 10, ST_KEEPER_SECONDS = 10 };

/* Is this a server that a keeper has started? */
bool st_keeper_is_child(void);

/* Then: hear what the keeper has. 0 or -errno with a sentence. */
int st_keeper_open(struct st_keep **out, struct st_err *err);

/* Keep a server, this program with the same arguments, until it ends. Its exit
 * status. */
int st_keeper_run(const struct st_log *log);

#endif
