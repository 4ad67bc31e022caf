/* SPDX-License-Identifier: MIT
 *
 * strata serve: NVMe controllers over vfio-user and disks over NBD, all in one
 * graph, until a signal or the verb quit ends it; see serving.h.
 *
 *   settings -> controllers, doors -> disks at their places -> fault rules
 *            -> sockets -> (server.c) -> clients
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "keeper.h"
#include "mem.h"
#include "serving.h"

enum {
    NVME_PCI,
    NBD,
    DISK,
    CONFIG,
    FAULTS,
    API,
    USER,
    ALLOW_PATH,
    NO_SANDBOX,
    THREADS,
    POLL_US,
    ENGINE,
    STOP_TIMEOUT,
    SURVIVE,
    OPENHCL
};

static const struct st_cmd_option serve_options[] = {
    {"nvme-pci", ST_CMD_MANY, "id=ID,vfio-user=PATH[,OPTION]...",
     "an NVMe controller for one virtual machine; options: mode=, group= of\n"
     "      the socket, intx=on, write-multi=on, doorbells=trap|mapped, "
     "queues=,\n"
     "      entries=, vectors=, namespaces=, subsystem=, serial=, model=",
     0, 0, 0},
    {"nbd", ST_CMD_MANY, "id=ID,unix=PATH|addr=HOST:PORT[,OPTION]...",
     "an NBD door; options: mode=, group=, tls=off|on|require,\n"
     "      tls-certificates=DIR, tls-psk=FILE",
     0, 0, 0},
    {"disk", ST_CMD_MANY, "SPEC,on=ID[,nsid=N][,on=ID...][,ro][,name=NAME]",
     "a disk, at one or more controllers and doors; behind the on= of a door\n"
     "      export=NAME",
     0, 0, 0},
    {"config", ST_CMD_TEXT, "FILE", "settings, as JSON, beside these options",
     0, 0, 0},
    {"faults", ST_CMD_TEXT, "FILE", "fault rules for all NVMe controllers", 0,
     0, 0},
    ST_CMD_API,
    ST_CMD_USER,
    ST_CMD_ALLOW_PATH,
    ST_CMD_NO_SANDBOX,
    ST_CMD_THREADS,
    {"poll-us", ST_CMD_TEXT, "N|always",
     "look for more work so long before sleeping; up to 1000000, default 50,\n"
     "      or 0 where there is one CPU",
     0, 0, 0},
    ST_CMD_ENGINE,
    {"stop-timeout", ST_CMD_NUMBER, "SECONDS",
     "how long SIGTERM waits for clients to leave", 60, 0, 86400},
    {"survive", ST_CMD_FLAG, NULL,
     "be started again when killed, and go on with the machines that are\n"
     "      connected; their disks must be files, block devices or ro",
     0, 0, 0},
    {"openhcl-controller", ST_CMD_MANY, "OPTIONS", NULL, 0, 0, 0},
    {0},
};

struct serve {
    struct st_serving serving; /* first */
    struct st_cmd_args args;   /* with what the file says */
};

/* ---- Options ---- */

static int
read_settings(struct serve *s, struct st_err *err)
{
    static const struct st_serving_rows rows = {
        .nvme_pci = NVME_PCI,
        .nbd = NBD,
        .disk = DISK,
        .allow_path = ALLOW_PATH,
        .config = CONFIG,
        .faults = FAULTS,
        .poll_us = POLL_US,
    };
    struct st_cmd_args *a = &s->args;
    int rc;

    if (a->nmany[OPENHCL])
        return st_err_set(err, EINVAL,
                          "--openhcl-controller '%s': there is no OpenHCL "
                          "here, use --nvme-pci id=ID,vfio-user=PATH",
                          a->many[OPENHCL][0]);
    rc = st_serving_read(&s->serving, &st_cmd_serve, &rows, a, err);
    if (rc == 0 && a->text[SURVIVE] && !s->serving.settings.nnvme)
        rc = st_err_set(err, EINVAL,
                        "--survive has no effect without --nvme-pci");
    for (unsigned i = 0;
         rc == 0 && a->text[SURVIVE] && i < s->serving.settings.ndisks; i++)
        if (strstr(s->serving.settings.disk[i].spec, ";create="))
            rc = st_err_set(err, EINVAL,
                            "%s: create= cannot be with --survive: a successor "
                            "would find the file; make it first",
                            s->serving.settings.disk[i].where);
    return rc;
}

/* ---- The command ---- */

static int
serve_all(struct serve *s)
{
    const struct st_cmd_args *a = &s->args;
    struct st_server_opts o = {.level = a->level,
                               .engine = a->number[ENGINE],
                               .threads = a->number[THREADS],
                               .stop_s = a->number[STOP_TIMEOUT],
                               .api = a->text[API],
                               .user = a->text[USER],
                               .no_sandbox = a->text[NO_SANDBOX],
                               .keep = s->serving.keep,
                               .set_up = st_serving_set_up,
                               .open_doors = st_serving_open_doors,
                               .ready = st_serving_ready,
                               .print = st_serving_print,
                               .close_sockets = st_serving_close_sockets};

    return st_serving_run(&s->serving, &o);
}

static void
keeper_line(void *arg, enum st_level level, const char *line)
{
    (void)arg;
    (void)level;
    fprintf(stderr, "strata: %s\n", line);
}

/* Be what keeps a server, or the server. */
static int
keep_or_serve(struct serve *s)
{
    const struct st_log log = {.level = ST_LOG_WARN, .write = keeper_line};
    struct st_err err;
    int rc = 0;

    if (s->args.text[SURVIVE]) {
        if (!st_keeper_is_child())
            return st_keeper_run(&log);
        rc = st_keeper_open(&s->serving.keep, &err);
    }
    if (rc == 0)
        rc = st_serving_sockets(&s->serving, &err);
    return rc < 0 ? st_cmd_fail_rc(rc, &err) : serve_all(s);
}

static int
serve_run(const struct st_cmd_args *a)
{
    st_autofree struct serve *s = calloc(1, sizeof(*s));
    struct st_err err;
    int rc, status;

    if (!s)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    s->args = *a;
    rc = read_settings(s, &err);
    status = rc < 0 ? st_cmd_fail_rc(rc, &err) : keep_or_serve(s);
    st_serving_free(&s->serving);
    return status;
}

const struct st_cmd st_cmd_serve = {
    .name = "serve",
    .syntax = "[--nvme-pci ...] [--nbd ...] [--disk SPEC,on=ID ...]",
    .help = "serve NVMe controllers to virtual machines, and disks over NBD",
    .more = "SIGTERM or SIGINT: wait for clients to leave, flush, exit; again: "
            "cut them off.\nSIGUSR1: print every controller, door and disk "
            "with its counters.\n",
    .options = serve_options,
    .run = serve_run,
};
