/* SPDX-License-Identifier: MIT
 *
 * What `strata serve` and `strata run` are to serve: controllers, doors and
 * disks, from its command line and from a settings file (guide/serve.md), which
 * say the same in two ways:
 *
 *   --nvme-pci id=a,vfio-user=/s,queues=4   "nvme-pci": [{"id": "a",
 *                                              "vfio-user": "/s", "queues": 4}]
 *   --disk mem:1G,on=a,nsid=2,ro            "disk": [{"spec": "mem:1G", "ro":
 *                                      true, "on": {"id": "a", "nsid": 2}}]
 *   --threads 2                             "threads": 2
 *
 * Nothing is opened here but the file itself. Whatever a file says ends in a
 * setting or in one sentence that begins with its name and the place in it.
 */
#ifndef ST_SETTINGS_H
#define ST_SETTINGS_H

#include "attach.h"
#include "cmd.h"
#include "graph.h"

enum { ST_SETTINGS_MAX = 256 }; /* controllers; doors */

/* A controller with its door. */
struct st_settings_nvme {
    const char *where; /* in front of sentences */
    const char *id;
    bool plugged;  /* its door is the machine: in SLOT (0: any), which is */
    unsigned slot; /* called PORT (NULL: by no name) */
    const char *port;
    bool old;                       /* made by --nvme */
    struct st_graph_nvme_opts opts; /* poll_us is the command's */
    struct st_cmd_address address;  /* no path: a service manager's socket */
};

/* An NBD door. */
struct st_settings_nbd {
    const char *where;
    const char *id;
    struct st_nbd_opts opts;
    struct st_cmd_address address; /* no path, no host: the same */
};

/* All of it. Text is lent: from the command line, or owned in `kept`. */
struct st_settings {
    bool machine; /* the caller's: there is one, with slots for controllers */
    struct st_settings_nvme *nvme; /* owned */
    struct st_settings_nbd *nbd;   /* owned */
    struct st_attach *disk;        /* owned */
    const char **allow;            /* owned: --allow-path */
    unsigned nnvme, nnbd, ndisks, nallow;
    const char *notice; /* what is out of use, and what to say; NULL: nothing */
    json_t *file;       /* owned; lends its strings */
    struct st_options *options; /* owned; lend theirs */
    char **kept;                /* owned */
    unsigned noptions, nkept;
};

/* One --nvme-pci, --nbd or --disk, as TEXT; a machine's --nvme, which is
 * deprecated; an --allow-path. 0, or -EINVAL or -ENOMEM with a sentence. S is
 * zeroed, but for machine, before the first. */
int st_settings_nvme(struct st_settings *s, const char *text,
                     struct st_err *err);
int st_settings_nbd(struct st_settings *s, const char *text,
                    struct st_err *err);
int st_settings_disk(struct st_settings *s, const char *text,
                     struct st_err *err);
int st_settings_old_nvme(struct st_settings *s, const char *text,
                         struct st_err *err);
int st_settings_allow(struct st_settings *s, const char *path,
                      struct st_err *err);

/* The settings file PATH: more of all that, and values of the options in TABLE
 * (but MANY ones), which go to A; one that A has already is an error. Once for
 * each S. 0 or -errno with a sentence. */
int st_settings_file(struct st_settings *s, const char *path,
                     const struct st_cmd_option *table, struct st_cmd_args *a,
                     struct st_err *err);

/* The same for its text, LEN bytes; PATH is for sentences. */
int st_settings_text(struct st_settings *s, const char *text, size_t len,
                     const char *path, const struct st_cmd_option *table,
                     struct st_cmd_args *a, struct st_err *err);

/* What needs all of it to be seen: no two with one id, something to serve.
 * 0 or -EINVAL. */
int st_settings_check(const struct st_settings *s, struct st_err *err);

/* Accepts a zeroed struct. Addresses are closed. */
void st_settings_free(struct st_settings *s);

#endif
