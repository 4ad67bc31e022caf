/* SPDX-License-Identifier: MIT
 *
 * What a controller shows of itself. All that others write is atomic, so that
 * nobody is asked and nobody waits.
 */
#include <inttypes.h>
#include <stdio.h>

#include "nvme_fault.h"
#include "nvme_private.h"

static const char *
state_name(enum nvme_state s)
{
    switch (s) {
    case NVME_DISABLED:
        return "disabled";
    case NVME_ENABLING:
        return "enabling";
    case NVME_READY:
        return "ready";
    case NVME_FAILED:
        return "failed";
    case NVME_RESETTING:
        return "resetting";
    case NVME_STOPPED:
        return "stopped";
    }
    return "unknown";
}

static void
show_queue(struct st_nvme *n, struct st_inspect *v, unsigned qid)
{
    struct nvme_shown *q = &n->shown[qid];
    uint32_t sq = atomic_load(&q->sq_size), cq = atomic_load(&q->cq_size);
    char number[16];

    if (!sq && !cq)
        return;
    snprintf(number, sizeof(number), "%u", qid);
    v->enter(v, number);
    if (sq) {
        v->u64(v, "sq_entries", sq);
        v->u64(v, "sq_head", atomic_load(&q->sq_head));
        v->u64(v, "sq_tail", atomic_load(&q->sq_tail));
        v->u64(v, "in_flight", atomic_load(&q->in_flight));
    }
    if (cq) {
        v->u64(v, "cq_entries", cq);
        v->u64(v, "cq_head", atomic_load(&q->cq_head));
        v->u64(v, "cq_tail", atomic_load(&q->cq_tail));
    }
    v->leave(v);
}

static void
show_namespace(struct st_inspect *v, const struct nvme_ns *ns)
{
    char number[16];

    snprintf(number, sizeof(number), "%" PRIu32, ns->nsid);
    v->enter(v, number);
    v->text(v, "disk", st_disk_name(ns->disk));
    v->u64(v, "block_size", UINT64_C(1) << ns->shift);
    v->u64(v, "size", st_disk_size(ns->disk));
    v->u64(v, "read_only", ns->read_only);
    v->u64(v, "removed", atomic_load(&ns->gone));
    v->u64(v, "formatting", atomic_load(&ns->formatting));
    v->leave(v);
}

static uint64_t
sum(const struct st_nvme *n, size_t counter)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < n->nworkers; i++)
        total += st_counter_get(
            (const st_counter *)(const void *)((const char *)&n->worker[i] +
                                               counter));
    return total;
}

static void
show_counters(struct st_nvme *n, struct st_inspect *v)
{
    static const struct {
        const char *name;
        size_t at;
    } counter[] = {
        {"commands", offsetof(struct nvme_worker, commands)},
        {"completions", offsetof(struct nvme_worker, completions)},
        {"interrupts", offsetof(struct nvme_worker, interrupts)},
        {"interrupts_spared", offsetof(struct nvme_worker, spared)},
        {"wakes", offsetof(struct nvme_worker, wakes)},
        {"bells", offsetof(struct nvme_worker, bells)},
        {"turns", offsetof(struct nvme_worker, turns)},
        {"arms", offsetof(struct nvme_worker, arms)},
        {"shadow_doorbells", offsetof(struct nvme_worker, shadow_doorbells)},
        {"aborts", offsetof(struct nvme_worker, aborts)},
        {"orphans", offsetof(struct nvme_worker, orphans)},
        {"unreachable", offsetof(struct nvme_worker, unreachable)},
        {"protocol_errors", offsetof(struct nvme_worker, protocol_errors)},
        {"errors_lost", offsetof(struct nvme_worker, errors_lost)},
    };

    for (size_t i = 0; i < sizeof(counter) / sizeof(counter[0]); i++)
        v->u64(v, counter[i].name, sum(n, counter[i].at));
    v->u64(v, "doorbells", atomic_load(&n->db_writes));
    v->u64(v, "resets", st_counter_get(&n->resets_done));
    v->u64(v, "resets_forced", st_counter_get(&n->resets_forced));
}

static void
show_faults(struct st_nvme *n, struct st_inspect *v)
{
    struct nvme_faults *f = atomic_load(&n->faults);
    const char *name;
    uint64_t hits;

    if (!f)
        return;
    v->enter(v, "faults");
    for (unsigned i = 0; st_nvme_faults_rule(f, i, &name, &hits); i++)
        v->u64(v, name, hits);
    v->leave(v);
}

void
st_nvme_inspect(struct st_nvme *n, struct st_inspect *v)
{
    v->text(v, "name", n->name);
    v->text(v, "serial", n->info.serial);
    v->text(v, "subsystem", n->info.subnqn);
    v->u64(v, "controller", n->info.cntlid);
    v->text(v, "state", state_name((enum nvme_state)atomic_load(&n->state)));
    v->u64(v, "cc", atomic_load(&n->cc));
    v->u64(v, "csts", atomic_load(&n->csts));
    v->text(v, "doorbells_by",
            n->mapped                 ? "mapped"
            : atomic_load(&n->shadow) ? "shadow"
                                      : "register");
    show_counters(n, v);
    v->enter(v, "queues");
    for (unsigned i = 0; i <= n->info.queues; i++)
        show_queue(n, v, i);
    v->leave(v);
    v->enter(v, "namespaces");
    for (uint32_t i = 0; i < n->info.nn; i++) {
        const struct nvme_ns *ns = atomic_load(&n->ns[i]);

        if (ns)
            show_namespace(v, ns);
    }
    v->leave(v);
    show_faults(n, v);
}
