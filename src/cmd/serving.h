/* SPDX-License-Identifier: MIT
 *
 * Serving what settings say: controllers, doors and disks. What serve and run
 * share, above server.h.
 */
#ifndef ST_SERVING_H
#define ST_SERVING_H

#include "server.h"
#include "settings.h"

/* A server of settings; a command embeds it, zeroed, first. */
struct st_serving {
    struct st_server server; /* first */
    struct st_settings settings;
    struct st_cmd_sockets sockets; /* a service manager's */
    unsigned poll_us, nvme_poll_us;
    const char *faults_path;
    char *faults;         /* owned: the text of --faults */
    struct st_keep *keep; /* owned: of a keeper, or NULL */
};

/* Which rows of a command's options are those that settings come from. */
struct st_serving_rows {
    unsigned nvme_pci, nbd, disk, allow_path, config, faults, poll_us;
    unsigned old_nvme; /* 0: there is none */
};

/* Read what A says in the options of COMMAND, and the settings file that it
 * names, whose values of other options go to A; no word may be left over. 0 or
 * -errno with a sentence. Blocks on files. */
int st_serving_read(struct st_serving *s, const struct st_cmd *command,
                    const struct st_serving_rows *rows, struct st_cmd_args *a,
                    struct st_err *err);

/* Give a service manager's sockets to those that have none of their own. 0 or
 * -errno with a sentence. */
int st_serving_sockets(struct st_serving *s, struct st_err *err);

/* Serve until the end: an exit status. The caller fills O, but for poll_us and
 * allow; and of socket, those that settings do not know. */
int st_serving_run(struct st_serving *s, struct st_server_opts *o);

/* What O's functions are, or begin with. */
int st_serving_set_up(struct st_server *server, struct st_err *err);
int st_serving_open_doors(struct st_server *server, struct st_err *err);
void st_serving_ready(struct st_server *server);
void st_serving_print(struct st_server *server);
void st_serving_close_sockets(struct st_server *server);

/* Accepts zeroes. */
void st_serving_free(struct st_serving *s);

#endif
