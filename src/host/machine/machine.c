/* SPDX-License-Identifier: MIT
 *
 * A machine is made, gets its functions, is started, is inspected; see
 * machine.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine_private.h"

/* ---- Made and freed ---- */

/* Any one will do, or it must be able to run a stock kernel. */
static int
open_kvm(const char *path, unsigned cpus, bool any, struct st_kvm *k,
         struct st_err *err)
{
    int rc;

    path = path ? path : "/dev/kvm";
    rc = st_kvm_open(path, cpus, k, err);
    if (rc == 0 && !any) {
        rc = st_kvm_check(k, err);
        if (rc < 0)
            st_err_prefix(err, "%s", path);
    }
    return rc;
}

int
st_machine_try_kvm(const char *path, struct st_err *err)
{
    struct st_kvm k;
    int rc = open_kvm(path, 1, false, &k, err);

    st_kvm_close(&k);
    return rc;
}

static int
make_vcpus(struct st_machine *m, struct st_err *err)
{
    const struct st_cpuid_opts cpu = {.noxsave = m->opts.noxsave};
    int rc;

    m->vcpus.kvm = &m->kvm;
    m->vcpus.ports = m->ports;
    m->vcpus.memory = m->memory;
    m->vcpus.parked = machine_parked;
    m->vcpus.ended = machine_vcpu_ended;
    rc = st_vcpus_init(&m->vcpus, &cpu, m->opts.cpus, err);
    if (rc < 0)
        return rc;
    m->power_on = calloc(m->opts.cpus, sizeof(*m->power_on));
    rc = m->power_on ? 0 : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < m->opts.cpus; i++)
        rc = st_vcpu_state_get(&m->kvm, m->vcpus.vcpu[i].fd, &m->power_on[i]);
    if (rc == 0)
        rc = st_chips_state_get(&m->kvm, &m->chips);
    return rc < 0 ? st_err_set(err, -rc, "KVM shows no registers: %s",
                               st_strerror(rc))
                  : 0;
}

static int
check(const struct st_machine_opts *o, struct st_err *err)
{
    if (o->restore && o->bios)
        return st_err_set(err, EINVAL,
                          "a machine that is restored has its firmware");
    if (o->restore)
        return 0;
    if (!o->cpus || o->cpus > ST_MACHINE_CPUS_MAX)
        return st_err_set(err, EINVAL, "%u CPUs: expected 1 to %d", o->cpus,
                          ST_MACHINE_CPUS_MAX);
    if (!o->kernel == !o->bios)
        return st_err_set(err, EINVAL, "expected a kernel or firmware");
    return 0;
}

int
st_machine_create(const struct st_machine_opts *opts, struct st_machine **out,
                  struct st_err *err)
{
    struct st_machine *m;
    int rc = check(opts, err);

    if (rc < 0)
        return rc;
    m = calloc(1, sizeof(*m));
    if (!m)
        return st_err_set(err, ENOMEM, "no memory");
    m->opts = *opts;
    m->kvm.fd = m->kvm.vm = m->ram.fd = -1;
    atomic_store(&m->held, HELD_START);
    m->parked = true;
    m->task.run = machine_look;
    m->from_fd = -1;
    m->firmware = opts->bios;
    st_list_init(&m->calls);
    rc = opts->restore ? machine_restore_open(m, err) : 0;
    if (rc == 0)
        rc = open_kvm(opts->kvm, m->opts.cpus, opts->any_kvm, &m->kvm, err);
    if (rc == 0 && m->shape &&
        (rc = st_cpuid_adopt(&m->kvm, m->shape->cpuid, m->shape->ncpuid, err)) <
            0)
        st_err_prefix(err, "'%s'", opts->restore);
    if (rc == 0)
        rc = st_machine_ram_create(m->opts.memory, opts->huge_pages, &m->ram,
                                   err);
    if (rc == 0 && (rc = st_irq_init(&m->irq, &m->kvm)) < 0)
        st_err_set(err, -rc, "KVM routes no interrupts: %s", st_strerror(rc));
    if (rc == 0 && ((rc = st_space_create(0x10000, &m->ports)) < 0 ||
                    (rc = st_space_create(UINT64_MAX, &m->memory)) < 0))
        st_err_set(err, -rc, "no memory");
    if (rc == 0)
        rc = make_vcpus(m, err);
    if (rc == 0)
        rc = st_platform_init(&m->platform, m, err);
    if (rc == 0 && (rc = st_machine_ram_plug(&m->ram, &m->kvm)) < 0)
        st_err_set(err, -rc, "KVM takes no memory: %s", st_strerror(rc));
    if (rc < 0) {
        st_machine_destroy(m);
        return rc;
    }
    *out = m;
    return 0;
}

void
st_machine_destroy(struct st_machine *m)
{
    if (!m)
        return;
    st_vcpus_quit(&m->vcpus);
    machine_restore_close(m);
    for (unsigned i = 0; i < m->nfunctions; i++)
        free(m->function[i].saving.blob);
    for (unsigned i = 0; i < m->nfunctions; i++)
        st_platform_remove_pci(&m->platform, m->function[i].slot);
    for (unsigned i = 0; i < m->nfunctions; i++)
        st_pci_kvm_destroy(m->function[i].plug);
    st_platform_fini(&m->platform);
    st_vcpus_fini(&m->vcpus);
    for (unsigned i = 0; m->power_on && i < m->opts.cpus; i++)
        st_vcpu_state_free(&m->power_on[i]);
    free(m->power_on);
    st_space_destroy(m->ports);
    st_space_destroy(m->memory);
    st_irq_fini(&m->irq);
    st_kvm_close(&m->kvm);
    st_machine_ram_destroy(&m->ram);
    free(m);
}

/* ---- Functions ---- */

static struct machine_function *
in_slot(struct st_machine *m, unsigned slot)
{
    for (unsigned i = 0; i < m->nfunctions; i++)
        if (m->function[i].slot == slot)
            return &m->function[i];
    return NULL;
}

static int
find_slot(struct st_machine *m, const struct st_machine_pci *f, unsigned *slot,
          struct st_err *err)
{
    *slot = f->slot;
    if (*slot >= ST_MACHINE_SLOTS)
        return st_err_set(err, EINVAL, "%s: slot %u: expected 1 to %d", f->name,
                          *slot, ST_MACHINE_SLOTS - 1);
    if (*slot && in_slot(m, *slot))
        return st_err_set(err, EEXIST, "%s: slot %u is taken", f->name, *slot);
    for (unsigned i = 1; !*slot && i < ST_MACHINE_SLOTS; i++)
        if (!in_slot(m, i))
            *slot = i;
    return *slot ? 0 : st_err_set(err, ENOSPC, "%s: no slot is left", f->name);
}

int
st_machine_add_pci(struct st_machine *m, const struct st_machine_pci *f,
                   unsigned *slot, struct st_err *err)
{
    unsigned at;
    struct machine_function *fn = &m->function[m->nfunctions];
    struct st_pci_kvm_opts o = {.pci = f->pci,
                                .memory = m->memory,
                                .irq = &m->irq,
                                .log = m->opts.log,
                                .name = f->name};
    int rc = find_slot(m, f, &at, err);

    if (rc < 0)
        return rc;
    o.gsi = st_platform_intx(at);
    rc = st_pci_kvm_create(&o, &fn->plug);
    if (rc == 0)
        rc = st_machine_ram_share(&m->ram, f->gmem);
    if (rc == 0)
        rc = st_platform_add_pci(&m->platform, at, f->pci);
    if (rc < 0) {
        st_pci_kvm_destroy(fn->plug);
        return st_err_set(err, -rc, "%s: %s", f->name, st_strerror(rc));
    }
    fn->pci = f->pci;
    fn->name = f->name;
    fn->machine = m;
    fn->slot = at;
    m->nfunctions++;
    if (slot)
        *slot = at;
    return 0;
}

int
st_machine_boot_from(struct st_machine *m, const char *name, struct st_err *err)
{
    if (!m->firmware)
        return st_err_set(err, ENOTSUP, "a boot order needs firmware");
    if (m->norder == ST_MACHINE_SLOTS)
        return st_err_set(err, EINVAL, "more than %d boot devices",
                          ST_MACHINE_SLOTS);
    for (unsigned i = 0; i < m->nfunctions; i++) {
        if (strcmp(m->function[i].name, name) != 0)
            continue;
        m->order[m->norder++] = m->function[i].slot;
        return 0;
    }
    return st_err_set(err, ENOENT, "'%s' is no device of the machine", name);
}

/* ---- Start ---- */

int
machine_power_on(struct st_machine *m, struct st_err *err)
{
    int rc = st_machine_ram_clear(&m->ram);

    for (unsigned i = 0; rc == 0 && i < m->opts.cpus; i++)
        rc = st_vcpu_state_set(m->vcpus.vcpu[i].fd, &m->power_on[i]);
    if (rc == 0)
        rc = st_chips_state_set(&m->kvm, &m->chips);
    if (rc < 0)
        return st_err_set(err, -rc, "KVM does not reset: %s", st_strerror(rc));
    return st_platform_boot(&m->platform, err);
}

int
st_machine_start(struct st_machine *m, struct st_err *err)
{
    int rc = m->from ? machine_restore(m, err) : machine_power_on(m, err);

    if (rc == 0 && m->norder &&
        (rc = st_platform_boot_order(&m->platform, m->order, m->norder)) < 0)
        st_err_set(err, -rc, "boot order: %s", st_strerror(rc));
    if (rc < 0)
        return rc;
    rc = st_vcpus_start(&m->vcpus);
    if (rc < 0)
        return st_err_set(err, -rc, "cannot start a thread: %s",
                          st_strerror(rc));
    atomic_fetch_and(&m->held, ~HELD_START);
    m->parked = false;
    st_vcpus_run(&m->vcpus);
    return 0;
}

/* ---- What it shows ---- */

static enum st_machine_state
state_of(unsigned held)
{
    return held & HELD_STOP    ? ST_MACHINE_STOPPED
           : held & HELD_START ? ST_MACHINE_MADE
           : held & HELD_END   ? ST_MACHINE_ENDED
           : held & HELD_RESET ? ST_MACHINE_RESETS
           : held & HELD_PAUSE ? ST_MACHINE_PAUSED
                               : ST_MACHINE_RUNS;
}

void
st_machine_stats(struct st_machine *m, struct st_machine_stats *out)
{
    static const char *const names[] = {"made",   "runs",  "paused",
                                        "resets", "ended", "stopped"};
    enum st_machine_state state = state_of(atomic_load(&m->held));

    *out = (struct st_machine_stats){.state = state,
                                     .state_name = names[state],
                                     .memory = m->ram.size,
                                     .cpus = m->opts.cpus,
                                     .resets = atomic_load(&m->resets),
                                     .pauses = atomic_load(&m->pauses),
                                     .panics = atomic_load(&m->panics),
                                     .routed = atomic_load(&m->irq.routed)};
}

const char *
st_machine_exit(struct st_machine *m, unsigned cpu, unsigned i, uint64_t *count)
{
    if (cpu >= m->opts.cpus || i >= ST_VCPU_EXIT_COUNT)
        return NULL;
    *count = st_counter_get(&m->vcpus.vcpu[cpu].exits[i]);
    return st_vcpu_exit_name(i);
}

/* Whom st_machine_regions tells. */
struct machine_each {
    void (*f)(void *arg, const char *name, uint64_t start, uint64_t size,
              uint64_t accesses);
    void *arg;
};

static void
tell_region(void *arg, const struct st_region *r, uint64_t start)
{
    const struct machine_each *e = arg;

    e->f(e->arg, r->ops->name, start, r->size, atomic_load(&r->accesses));
}

void
st_machine_regions(struct st_machine *m, bool ports,
                   void (*f)(void *arg, const char *name, uint64_t start,
                             uint64_t size, uint64_t accesses),
                   void *arg)
{
    struct machine_each e = {f, arg};

    st_space_each(ports ? m->ports : m->memory, tell_region, &e);
}

bool
st_machine_pci_stats(struct st_machine *m, const struct st_pci *pci,
                     struct st_machine_pci_stats *out)
{
    for (unsigned i = 0; i < m->nfunctions; i++) {
        struct st_pci_kvm_stats s;

        if (m->function[i].pci != pci)
            continue;
        st_pci_kvm_stats(m->function[i].plug, &s);
        *out = (struct st_machine_pci_stats){.slot = m->function[i].slot,
                                             .accesses = s.accesses,
                                             .sent = s.sent,
                                             .slow = s.slow,
                                             .lines = s.lines};
        return true;
    }
    return false;
}
