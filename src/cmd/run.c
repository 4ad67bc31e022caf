/* SPDX-License-Identifier: MIT
 *
 * strata run: a virtual machine of our own, whose disks are in the graph; and
 * whatever strata serve serves, in the same process. It ends when its guest
 * switches off, by a signal, or by the verb quit.
 *
 *   settings -> machine (KVM, memory, files) -> controllers, slots -> disks
 *            -> sandbox -> (server.c) -> vCPUs run
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "run_serial.h"
#include "serving.h"
#include "size.h"

enum {
    KERNEL,
    INITRD,
    CMDLINE,
    BIOS,
    BOOT,
    RESTORE,
    ANY_KVM,
    CHECK_KVM,
    MEMORY,
    CPUS,
    CPU,
    HUGE_PAGES,
    SERIAL,
    NO_REBOOT,
    NVME_PCI,
    NBD,
    DISK,
    NVME,
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
};

static const struct st_cmd_option run_options[] = {
    {"kernel", ST_CMD_TEXT, "FILE", "boot this Linux kernel, a bzImage", 0, 0,
     0},
    {"initrd", ST_CMD_TEXT, "FILE", "with this initial RAM disk", 0, 0, 0},
    {"cmdline", ST_CMD_TEXT, "TEXT",
     "and this command line; default: console=ttyS0", 0, 0, 0},
    {"bios", ST_CMD_MAYBE, "FILE",
     "boot this firmware instead; by default SeaBIOS, of the package seabios",
     0, 0, 0},
    {"boot", ST_CMD_TEXT, "ID[,ID]...",
     "controllers that firmware boots from, in order", 0, 0, 0},
    {"restore", ST_CMD_TEXT, "FILE",
     "go on with the machine that save-machine of strata ctl wrote, with the\n"
     "      same controllers and disks; --kernel is then for resets",
     0, 0, 0},
    {"any-kvm", ST_CMD_FLAG, NULL,
     "also a KVM that cannot run a stock kernel: firmware may do with less", 0,
     0, 0},
    {"check-kvm", ST_CMD_FLAG, NULL,
     "say whether the KVM here can run a stock kernel, and nothing else", 0, 0,
     0},
    {"memory", ST_CMD_TEXT, "SIZE", "of the guest; default: 512M", 0, 0, 0},
    {"cpus", ST_CMD_NUMBER, "N", "virtual CPUs", 1, 1, ST_MACHINE_CPUS_MAX},
    {"cpu", ST_CMD_WORD, "host|noxsave",
     "noxsave: without XSAVE and AVX, for a host that is an emulated guest", 0,
     0, 0},
    {"huge-pages", ST_CMD_FLAG, NULL, "memory of huge pages, taken at once", 0,
     0, 0},
    {"serial", ST_CMD_MANY, "stdio|unix=PATH[,OPTION]...|file=PATH|none",
     "where the first serial port leads, then the second; default: stdio;\n"
     "      options: mode=, group= of the socket",
     0, 0, 0},
    {"no-reboot", ST_CMD_FLAG, NULL,
     "end when the guest wants to be reset, or has panicked", 0, 0, 0},
    {"nvme-pci", ST_CMD_MANY, "id=ID[,slot=N|,vfio-user=PATH][,OPTION]...",
     "an NVMe controller of the machine, or for another one; options as of\n"
     "      strata serve",
     0, 0, 0},
    {"nbd", ST_CMD_MANY, "id=ID,unix=PATH|addr=HOST:PORT[,OPTION]...",
     "an NBD door; options as of strata serve", 0, 0, 0},
    {"disk", ST_CMD_MANY, "SPEC,on=ID[,nsid=N][,on=ID...][,ro][,name=NAME]",
     "a disk, at one or more controllers and doors", 0, 0, 0},
    {"nvme", ST_CMD_MANY, "SPEC[,pcie_port=NAME][,ro]", NULL, 0, 0, 0},
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
    ST_CMD_STOP_TIMEOUT,
    {0},
};

#define SEABIOS        "/usr/share/seabios/bios-256k.bin"
#define MEMORY_DEFAULT (UINT64_C(512) << 20)

struct run {
    struct st_serving serving; /* first */
    struct st_cmd_args args;   /* with what the file says */
    uint64_t memory;
    struct st_run_serial serial[ST_MACHINE_SERIALS];
    unsigned nserials;
    struct st_machine_call call; /* of the escape key */
    bool calling;
    bool failed;   /* the machine has */
    bool panicked; /* the guest has, and that is the end */
};

/* ---- Options ---- */

static int
read_serials(struct run *r, struct st_err *err)
{
    static const char *const usual[] = {"stdio"};
    const char *const *text = (const char *const *)r->args.many[SERIAL];
    unsigned n = r->args.nmany[SERIAL];
    int rc = 0;

    if (!n) {
        text = usual;
        n = 1;
    }
    if (n > ST_MACHINE_SERIALS)
        return st_err_set(err, EINVAL, "--serial '%s': there are %d ports",
                          text[ST_MACHINE_SERIALS], ST_MACHINE_SERIALS);
    for (unsigned i = 0; rc == 0 && i < n; i++)
        rc = st_run_serial_parse(&r->serial[r->nserials++], text[i], err);
    if (rc == 0 && n == 2 && r->serial[0].kind == ST_RUN_SERIAL_STDIO &&
        r->serial[1].kind == ST_RUN_SERIAL_STDIO)
        rc = st_err_set(err, EINVAL, "--serial stdio is given twice");
    return rc;
}

/* Whoever it is to boot from is a controller of the machine. */
static int
check_boot_order(struct run *r, struct st_err *err)
{
    const struct st_settings *s = &r->serving.settings;
    st_autofree char *text = strdup(r->args.text[BOOT]);
    char *rest = text, *id;
    unsigned i;

    if (!text)
        return st_err_set(err, ENOMEM, "no memory");
    while ((id = strsep(&rest, ","))) {
        for (i = 0; i < s->nnvme; i++)
            if (s->nvme[i].plugged && strcmp(s->nvme[i].id, id) == 0)
                break;
        if (i == s->nnvme)
            return st_err_set(err, EINVAL,
                              "--boot '%s': '%s' is no device of the machine",
                              r->args.text[BOOT], id);
    }
    return 0;
}

/* What a saved machine has, it cannot be given. */
static int
check_restore(const struct st_cmd_args *a, struct st_err *err)
{
    static const unsigned its[] = {BIOS, BOOT, MEMORY, CPUS, CPU};

    for (unsigned i = 0; i < sizeof(its) / sizeof(its[0]); i++)
        if (a->text[its[i]])
            return st_err_set(err, EINVAL,
                              "--%s excludes --restore, the saved machine has "
                              "its own",
                              run_options[its[i]].name);
    if (!a->text[KERNEL] && (a->text[INITRD] || a->text[CMDLINE]))
        return st_err_set(err, EINVAL, "--%s is of --kernel",
                          a->text[INITRD] ? "initrd" : "cmdline");
    return 0;
}

static int
check_machine(struct run *r, struct st_err *err)
{
    const struct st_cmd_args *a = &r->args;

    if (a->text[CHECK_KVM])
        return st_err_set(err, EINVAL,
                          "check-kvm is of the command line, not a setting");
    if (a->text[RESTORE])
        return check_restore(a, err);
    if (!a->text[KERNEL] == !a->text[BIOS])
        return st_err_set(err, EINVAL, "%s",
                          a->text[BIOS] ? "--kernel and --bios exclude each "
                                          "other"
                                        : "nothing to boot, expected --kernel, "
                                          "--bios or --restore");
    if (a->text[BIOS] && (a->text[INITRD] || a->text[CMDLINE]))
        return st_err_set(err, EINVAL, "--%s is of --kernel",
                          a->text[INITRD] ? "initrd" : "cmdline");
    if (a->text[BOOT] && !a->text[BIOS])
        return st_err_set(err, EINVAL, "--boot is of --bios");
    if (a->text[BIOS] && !*a->text[BIOS] && access(SEABIOS, R_OK) < 0)
        return st_err_set(err, errno,
                          "--bios: '%s': %s; install the package seabios, or "
                          "name a file",
                          SEABIOS, st_strerror(-errno));
    r->memory = MEMORY_DEFAULT;
    if (a->text[MEMORY] &&
        st_size_parse(a->text[MEMORY], &r->memory, err) < 0) {
        st_err_prefix(err, "--memory");
        return -EINVAL;
    }
    return a->text[BOOT] ? check_boot_order(r, err) : 0;
}

static int
read_settings(struct run *r, struct st_err *err)
{
    static const struct st_serving_rows rows = {
        .nvme_pci = NVME_PCI,
        .nbd = NBD,
        .disk = DISK,
        .old_nvme = NVME,
        .allow_path = ALLOW_PATH,
        .config = CONFIG,
        .faults = FAULTS,
        .poll_us = POLL_US,
    };
    int rc;

    r->serving.settings.machine = true;
    rc =
        st_serving_read(&r->serving, &st_cmd_run_machine, &rows, &r->args, err);
    if (rc == 0)
        rc = check_machine(r, err);
    if (rc == 0)
        rc = read_serials(r, err);
    return rc ? rc : st_serving_sockets(&r->serving, err);
}

/* ---- The machine ---- */

static void
machine_event(void *arg, enum st_machine_event e)
{
    struct run *r = arg;
    const struct st_log *log = &r->serving.server.world.notice;
    struct st_machine_stats s;

    switch (e) {
    case ST_MACHINE_OFF:
        st_info(log, "the guest has switched off");
        break;
    case ST_MACHINE_RESET:
        st_machine_stats(st_graph_machine(r->serving.server.graph), &s);
        if (s.state != ST_MACHINE_ENDED) {
            st_info(log, "the guest has reset the machine");
            return;
        }
        st_info(log, "the guest wants a reset");
        break;
    case ST_MACHINE_FAILED:
        st_info(log, "the machine has failed");
        r->failed = true;
        break;
    case ST_MACHINE_PANICKED:
        st_info(log, "the guest has panicked");
        st_machine_stats(st_graph_machine(r->serving.server.graph), &s);
        if (s.state != ST_MACHINE_ENDED)
            return;
        r->panicked = true;
        break;
    case ST_MACHINE_CRASHED:
        st_info(log, "the guest has panicked, its crash kernel goes on");
        return;
    }
    st_server_stop(&r->serving.server);
}

static void
key_done(struct st_machine_call *call, int rc)
{
    struct run *r = st_container(call, struct run, call);
    struct st_machine_stats s;

    r->calling = false;
    if (rc < 0)
        return;
    st_machine_stats(st_graph_machine(r->serving.server.graph), &s);
    st_info(&r->serving.server.world.notice, "the machine %s",
            s.state == ST_MACHINE_PAUSED ? "is paused" : "runs");
}

/* A key was typed after Ctrl-]. */
static void
machine_key(void *arg, char key)
{
    struct run *r = arg;
    struct st_machine *m = st_graph_machine(r->serving.server.graph);
    const struct st_log *log = &r->serving.server.world.notice;
    struct st_machine_stats s;

    r->call.done = key_done;
    switch (key) {
    case 'q':
        st_server_stop(&r->serving.server);
        return;
    case 'p':
        if (r->calling)
            return;
        r->calling = true;
        st_machine_stats(m, &s);
        if (s.state == ST_MACHINE_PAUSED)
            st_machine_resume(m, &r->call);
        else
            st_machine_pause(m, &r->call);
        return;
    case 'r':
        if (r->calling)
            return;
        r->calling = true;
        st_machine_reset(m, &r->call);
        return;
    default:
        st_info(log, "after Ctrl-]: q quits, p pauses and resumes, r resets, "
                     "Ctrl-] is itself");
    }
}

static int
set_boot_order(struct run *r, struct st_err *err)
{
    st_autofree char *text = strdup(r->args.text[BOOT]);
    int rc = text ? 0 : st_err_set(err, ENOMEM, "no memory");
    char *rest = text, *id;

    while (rc == 0 && (id = strsep(&rest, ",")))
        rc = st_graph_boot_from(r->serving.server.graph, id, err);
    if (rc < 0)
        st_err_prefix(err, "--boot '%s'", r->args.text[BOOT]);
    return rc == -ENOENT ? -EINVAL : rc;
}

static int
run_set_up(struct st_server *server, struct st_err *err)
{
    struct run *r = (struct run *)server;
    const struct st_cmd_args *a = &r->args;
    struct st_machine_opts o = {
        .memory = r->memory,
        .huge_pages = a->text[HUGE_PAGES],
        .cpus = a->number[CPUS],
        .noxsave = a->number[CPU],
        .any_kvm = a->text[ANY_KVM],
        .bios = a->text[BIOS] && !*a->text[BIOS] ? SEABIOS : a->text[BIOS],
        .restore = a->text[RESTORE],
        .kernel = a->text[KERNEL],
        .initrd = a->text[INITRD],
        .cmdline = a->text[CMDLINE] ? a->text[CMDLINE] : "console=ttyS0",
        .no_reboot = a->text[NO_REBOOT],
        .event = machine_event,
        .arg = r};
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < r->nserials; i++) {
        struct st_run_serial *s = &r->serial[i];

        s->key = machine_key;
        s->hung_up = st_server_stop;
        s->arg = r;
        rc = st_run_serial_open(s, server->world.home, err);
        o.serial[i] = s->console;
    }
    if (rc == 0)
        rc = st_graph_add_machine(server->graph, &o, err);
    if (rc == 0)
        rc = st_serving_set_up(server, err);
    return rc == 0 && a->text[BOOT] ? set_boot_order(r, err) : rc;
}

static int
run_open_doors(struct st_server *server, struct st_err *err)
{
    int rc = st_serving_open_doors(server, err);

    if (rc == 0)
        rc = st_graph_start_machine(server->graph, err);
    return rc;
}

static void
run_ready(struct st_server *server)
{
    struct run *r = (struct run *)server;

    if (r->serving.settings.notice)
        st_info(&server->world.notice, "%s", r->serving.settings.notice);
    for (unsigned i = 0; i < r->nserials; i++) {
        st_run_serial_keep(&r->serial[i]);
        if (r->serial[i].terminal.there)
            st_info(&server->world.notice,
                    "the terminal is the guest's; Ctrl-] and q quits");
    }
    st_serving_ready(server);
}

static void
run_close(struct st_server *server)
{
    struct run *r = (struct run *)server;

    for (unsigned i = 0; i < r->nserials; i++)
        st_run_serial_leave(&r->serial[i]);
    st_serving_close_sockets(server);
}

/* The machine is no more, the loops still are. */
static void
run_over(struct st_server *server)
{
    struct run *r = (struct run *)server;

    for (unsigned i = 0; i < r->nserials; i++)
        st_run_serial_close(&r->serial[i]);
}

/* ---- The command ---- */

static int
run_all(struct run *r)
{
    const struct st_cmd_args *a = &r->args;
    const char *socket[ST_MACHINE_SERIALS];
    struct st_server_opts o = {.level = a->level,
                               .engine = a->number[ENGINE],
                               .threads = a->number[THREADS],
                               .stop_s = a->number[STOP_TIMEOUT],
                               .api = a->text[API],
                               .user = a->text[USER],
                               .no_sandbox = a->text[NO_SANDBOX],
                               .kvm = true,
                               .socket = socket,
                               .nsockets = r->nserials,
                               .set_up = run_set_up,
                               .open_doors = run_open_doors,
                               .ready = run_ready,
                               .print = st_serving_print,
                               .close_sockets = run_close,
                               .over = run_over};
    int status;

    for (unsigned i = 0; i < r->nserials; i++) {
        st_run_serial_claim(&r->serial[i]);
        socket[i] = r->serial[i].address.path;
    }
    status = st_serving_run(&r->serving, &o);
    if (r->failed)
        return ST_EXIT_FAILED;
    return status == ST_EXIT_OK && r->panicked ? ST_EXIT_PANIC : status;
}

static int
check_kvm(void)
{
    struct st_err err;
    int rc = st_machine_try_kvm(NULL, &err);

    if (rc < 0)
        return st_cmd_fail_rc(rc, &err);
    puts("/dev/kvm can run a stock kernel");
    return ST_EXIT_OK;
}

static int
run_run(const struct st_cmd_args *a)
{
    st_autofree struct run *r = NULL;
    struct st_err err;
    int rc, status;

    if (a->text[CHECK_KVM])
        return check_kvm();
    r = calloc(1, sizeof(*r));
    if (!r)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    r->args = *a;
    rc = read_settings(r, &err);
    status = rc < 0 ? st_cmd_fail_rc(rc, &err) : run_all(r);
    for (unsigned i = 0; i < r->nserials; i++)
        st_run_serial_close(&r->serial[i]);
    st_serving_free(&r->serving);
    return status;
}

const struct st_cmd st_cmd_run_machine = {
    .name = "run",
    .syntax = "--kernel FILE [--initrd FILE] [--cmdline TEXT] | --bios [FILE] "
              "[--memory SIZE] [--cpus N] [--nvme-pci id=ID ...] "
              "[--disk SPEC,on=ID ...]",
    .help = "run a virtual machine with KVM, and serve its disks to others",
    .more = "The guest ends it by switching off. SIGTERM or SIGINT: stop the "
            "machine, flush\nits disks, exit.\n",
    .options = run_options,
    .run = run_run,
};
