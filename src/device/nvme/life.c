/* SPDX-License-Identifier: MIT
 *
 * How a controller is made, called and ended.
 *
 *   stop:  the state machine resets, for good     (admin loop)
 *          namespaces are removed                 (home)
 *          workers close their doors and views    (their loops)
 *          done
 *
 * Each waits for the one before, and none for longer than the call allows.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "nvme_fault.h"
#include "nvme_private.h"
#include "range.h"

/* ---- Calls ---- */

void
st_nvme_call(struct st_nvme *n, struct st_nvme_call *c,
             void (*start)(struct st_nvme_call *c))
{
    bool first = st_list_empty(&n->calls);

    c->nvme = n;
    c->start = start;
    c->err.text[0] = '\0';
    c->timer = (struct st_timer){0};
    st_list_append(&n->calls, &c->link);
    if (first)
        st_ready(n->home, &n->next_call);
}

static void
next_call(struct st_task *t)
{
    struct st_nvme *n = st_container(t, struct st_nvme, next_call);
    struct st_nvme_call *c =
        st_container(st_list_first(&n->calls), struct st_nvme_call, link);

    c->start(c);
}

static void
call_ended(struct st_task *t)
{
    struct st_nvme_call *c = st_container(t, struct st_nvme_call, task);

    c->done(c, c->rc);
}

void
st_nvme_call_end(struct st_nvme_call *c, int rc)
{
    struct st_nvme *n = c->nvme;

    c->rc = rc;
    c->task.run = call_ended;
    st_list_remove(&c->link);
    st_ready(n->home, &c->task);
    if (!st_list_empty(&n->calls))
        st_ready(n->home, &n->next_call);
}

/* ---- The end ---- */

static void
stop_late(struct st_timer *t)
{
    struct st_nvme_call *c = st_container(t, struct st_nvme_call, timer);

    c->nvme->stop_call = NULL;
    st_err_set(&c->err, ETIMEDOUT,
               "commands have not ended, and use the disks still");
    st_nvme_call_end(c, -ETIMEDOUT);
}

static void
closed(struct st_nvme *n)
{
    st_post(n->home, &n->quiet);
}

/* The admin loop: the workers close. */
static void
close_run(struct st_task *t)
{
    st_nvme_broadcast(st_container(t, struct st_nvme, close), NVME_ROUND_RESET,
                      st_nvme_worker_close, closed);
}

static void
namespaces_ended(struct st_nvme *n)
{
    n->quiet_for = 1;
    st_post(n->admin->io.loop, &n->close);
}

/* Home: first the state machine has stopped, then the workers have closed. */
static void
quiet_run(struct st_task *t)
{
    struct st_nvme *n = st_container(t, struct st_nvme, quiet);
    struct st_nvme_call *c = n->stop_call;

    if (!n->quiet_for) {
        st_nvme_namespaces_end(n, namespaces_ended);
        return;
    }
    n->closed = true;
    if (!c)
        return;
    n->stop_call = NULL;
    st_timer_stop(n->home, &c->timer);
    st_nvme_call_end(c, 0);
}

static void
stop_start(struct st_nvme_call *c)
{
    struct st_nvme *n = c->nvme;

    if (n->closed) {
        st_nvme_call_end(c, 0);
        return;
    }
    n->stop_call = c;
    c->timer.fire = stop_late;
    st_timer_set(n->home, &c->timer, n->home->now + c->timeout_ns);
    atomic_store(&n->stopping, true);
    st_nvme_step(n);
}

void
st_nvme_stop(struct st_nvme *n, uint64_t timeout_ns, struct st_nvme_call *c)
{
    c->timeout_ns = timeout_ns;
    st_nvme_call(n, c, stop_start);
}

/* ---- Creation ---- */

static int
opts_check(const struct st_nvme_opts *o, struct st_err *err)
{
    if (!o->nloops)
        return st_err_set(err, EINVAL, "an nvme controller needs a loop");
    if (o->queues > ST_NVME_QUEUES_MAX)
        return st_err_set(err, EINVAL, "queues %u is not from 1 to %d",
                          o->queues, ST_NVME_QUEUES_MAX);
    if (o->entries && (o->entries < 2 || o->entries > 65536))
        return st_err_set(err, EINVAL, "entries %u is not from 2 to 65536",
                          o->entries);
    if (o->vectors > ST_PCI_VECTORS_MAX)
        return st_err_set(err, EINVAL, "vectors %u is not from 1 to %d",
                          o->vectors, ST_PCI_VECTORS_MAX);
    if (o->keep && o->mapped)
        return st_err_set(err, EINVAL,
                          "mapped doorbells do not outlive the process, use "
                          "trapped ones");
    if (o->namespaces > ST_NVME_NAMESPACES_MAX)
        return st_err_set(err, EINVAL, "namespaces %u is not from 1 to %d",
                          o->namespaces, ST_NVME_NAMESPACES_MAX);
    if ((o->serial && strlen(o->serial) > 20) ||
        (o->model && strlen(o->model) > 40) ||
        (o->version && strlen(o->version) > 8))
        return st_err_set(err, EINVAL,
                          "serial has up to 20 characters, model 40, "
                          "version 8");
    return 0;
}

/* The serial number: unique, since systems name disks by it. */
static void
serial_set(struct nvme_info *info, const struct st_nvme_opts *o)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    if (o->serial) {
        snprintf(info->serial, sizeof(info->serial), "%s", o->serial);
        return;
    }
    for (size_t i = 0; i < sizeof(o->subsystem.b); i++)
        h = (h ^ o->subsystem.b[i]) * UINT64_C(0x100000001b3);
    snprintf(info->serial, sizeof(info->serial), "%012llX%04X",
             (unsigned long long)(h >> 16 ^ (h & 0xffff)), o->cntlid);
}

static void
info_set(struct nvme_info *info, const struct st_nvme_opts *o)
{
    char guid[37];

    info->vendor = info->subsystem_vendor = NVME_VENDOR;
    info->cntlid = o->cntlid;
    serial_set(info, o);
    snprintf(info->model, sizeof(info->model), "%s",
             o->model ? o->model : "MSFT NVMe Accelerator v1.0");
    snprintf(info->firmware, sizeof(info->firmware), "%s",
             o->version ? o->version : "1.0");
    snprintf(info->subnqn, sizeof(info->subnqn),
             "nqn.2014-08.org.nvmexpress:uuid:%s",
             st_guid_format(&o->subsystem, guid));
    info->nn = o->namespaces ? o->namespaces : ST_NVME_NAMESPACES;
    info->queues = o->queues ? o->queues : ST_NVME_QUEUES;
    info->vectors = o->vectors ? o->vectors : info->queues + 1;
    info->mqes = (o->entries ? o->entries : ST_NVME_ENTRIES) - 1;
    info->shared = o->shared;
    info->shadow = !o->mapped;
}

/* BAR 0: registers and doorbells. BAR 4: MSI-X, by itself, so that a host can
 * map the other. */
static int
pci_set(struct st_nvme *n)
{
    static const struct st_pci_id id = {
        .vendor = NVME_VENDOR,
        .device = NVME_DEVICE,
        .subsystem_vendor = NVME_VENDOR,
        .class_code = 0x010802,
    };
    uint64_t table = n->info.vectors * 16;
    uint64_t pba = st_align_up(table, 8), size = NVME_PAGE;

    while (size < pba + (n->info.vectors + 63) / 64 * 8)
        size *= 2;
    st_pci_init(&n->pci, &st_nvme_ops, &id);
    n->has_pci = true;
    st_pci_add_bar(&n->pci, 0, NVME_BAR, ST_PCI_BAR_64);
    st_pci_add_bar(&n->pci, 4, size, ST_PCI_BAR_64);
    if (n->intx)
        st_pci_add_intx(&n->pci);
    if (st_pci_add_msix(&n->pci, n->info.vectors, 4, 0, pba) < 0)
        return -ENOMEM;
    st_pci_add_express(&n->pci);
    st_pci_add_pm(&n->pci);
    return 0;
}

/* Arrays whose sizes are the options'. */
static int
arrays_set(struct st_nvme *n, const struct st_nvme_opts *o)
{
    int rc = 0;

    n->ns = calloc(n->info.nn, sizeof(*n->ns));
    n->ns_list = calloc(n->info.nn, sizeof(*n->ns_list));
    n->pair = calloc(n->info.queues + 1, sizeof(*n->pair));
    n->shown = calloc(n->info.queues + 1, sizeof(*n->shown));
    n->coalesce_off = calloc(n->info.vectors, sizeof(*n->coalesce_off));
    n->features.coalesce_off = calloc(n->info.vectors, 1);
    n->worker =
        aligned_alloc(64, st_align_up(o->nloops * sizeof(*n->worker), 64));
    if (!n->worker)
        return -ENOMEM;
    memset(n->worker, 0, o->nloops * sizeof(*n->worker));
    n->nworkers = o->nloops;
    for (unsigned i = 0; rc == 0 && i < o->nloops; i++)
        rc = st_nvme_worker_init(&n->worker[i], n, i, o->loops[i]);
    n->admin = &n->worker[o->cntlid % o->nloops];
    return n->ns && n->ns_list && n->pair && n->shown && n->coalesce_off &&
                   n->features.coalesce_off
               ? rc
               : -ENOMEM;
}

static void
tasks_set(struct st_nvme *n)
{
    n->step.run = st_nvme_step_run;
    n->bad_doorbell_task.run = st_nvme_bad_doorbell_run;
    n->changed_task.run = st_nvme_changed_run;
    n->quiet.run = quiet_run;
    n->close.run = close_run;
    n->thaw.run = st_nvme_thaw_run;
    n->next_call.run = next_call;
    st_list_init(&n->aers);
    st_list_init(&n->configs);
    st_list_init(&n->calls);
}

int
st_nvme_create(const struct st_nvme_opts *o, struct st_nvme **out,
               struct st_err *err)
{
    struct st_nvme *n;
    int rc = opts_check(o, err);

    if (rc < 0)
        return rc;
    n = aligned_alloc(64, st_align_up(sizeof(*n), 64));
    if (!n)
        return st_err_set(err, ENOMEM, "no memory for an nvme controller");
    memset(n, 0, sizeof(*n));
    n->db_fd = n->journal_fd = -1;
    n->keep = o->keep;
    n->home = o->home;
    n->gmem = o->gmem;
    n->log = o->log;
    snprintf(n->name, sizeof(n->name), "%s", o->name ? o->name : "nvme");
    n->subsystem = o->subsystem;
    n->intx = o->intx;
    n->mapped = o->mapped;
    n->poll_us = o->poll_us;
    info_set(&n->info, o);
    tasks_set(n);
    n->ndb = 2 * (n->info.queues + 1);
    rc = arrays_set(n, o) < 0 || pci_set(n) < 0
             ? st_err_set(err, ENOMEM, "no memory for an nvme controller")
             : 0;
    if (rc == 0 && n->keep)
        rc = st_nvme_journal_create(n, err);
    if (rc == 0)
        rc = st_nvme_db_create(n, err);
    if (rc < 0) {
        st_nvme_destroy(n);
        return rc;
    }
    n->features.vectors = n->info.vectors;
    st_nvme_set_cap(n, n->info.mqes);
    st_nvme_features_reset(&n->features, &n->info);
    n->features.timestamp_set = -(int64_t)st_nvme_wall_ms();
    st_nvme_features_apply(n);
    n->logs.temperature = NVME_TEMPERATURE;
    n->logs.power_cycles = 1;
    n->made_at = n->home->now;
    *out = n;
    return 0;
}

void
st_nvme_destroy(struct st_nvme *n)
{
    if (!n)
        return;
    for (unsigned i = 0; i < n->nworkers; i++)
        st_nvme_worker_fini(&n->worker[i]);
    st_nvme_db_free(n);
    st_nvme_journal_free(n);
    st_nvme_faults_free(atomic_load(&n->faults));
    if (n->has_pci)
        st_pci_fini(&n->pci);
    free(n->worker);
    free(n->ns);
    free(n->ns_list);
    free(n->pair);
    free(n->shown);
    free(n->coalesce_off);
    free(n->features.coalesce_off);
    free(n);
}
