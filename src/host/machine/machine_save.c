/* SPDX-License-Identifier: MIT
 *
 * A machine is saved; see machine.h, and saved.h for the file.
 *
 *   paused   vCPUs rest between two instructions
 *   frozen   functions have ended what was under way, and rest as well
 *            (whoever has disks flushes them now)
 *   saved    the interrupt controllers and vCPUs are read last: nothing raises
 *            an interrupt any more. A worker writes the file
 *
 * An interrupt that was handed to KVM, but has not arrived, is lost in this: so
 * one is raised for each vector when the machine is restored.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine_private.h"

/* A save under way. */
struct machine_save {
    struct st_machine *m;
    struct st_machine_call *call;
    struct st_job job;
    struct st_saved saved;
    char *path;
    _Atomic bool cancel;
    struct st_err err;
    int rc;
};

bool
machine_is_saving(const struct st_machine *m)
{
    return m->freezing || m->save;
}

/* ---- Frozen ---- */

static void
forget(struct machine_function *f)
{
    free(f->saving.blob);
    f->saving.blob = NULL;
}

void
machine_thaw(struct st_machine *m)
{
    m->frozen = false;
    for (unsigned i = 0; i < m->nfunctions; i++) {
        struct machine_function *f = &m->function[i];

        forget(f);
        if (f->frozen)
            f->pci->ops->thaw(f->pci);
        f->frozen = false;
    }
}

/* One less to wait for. */
static void
freeze_step(struct st_machine *m)
{
    struct st_machine_call *c = m->freeze_call;

    if (--m->freezing)
        return;
    m->freeze_call = NULL;
    if (m->freeze_rc < 0)
        machine_thaw(m);
    m->frozen = m->freeze_rc == 0;
    machine_answer(m, c, m->freeze_rc);
    machine_happened(m, MACHINE_LOOK);
}

static void
function_saved(struct st_pci_saving *s, int rc)
{
    struct machine_function *f =
        st_container(s, struct machine_function, saving);
    struct st_machine *m = f->machine;

    f->frozen |= rc == 0;
    if (rc < 0 && m->freeze_rc == 0) {
        m->freeze_rc = rc;
        m->freeze_call->err = s->err;
        st_err_prefix(&m->freeze_call->err, "%s", f->name);
    }
    freeze_step(m);
}

static const struct machine_function *
not_to_be_saved(const struct st_machine *m)
{
    for (unsigned i = 0; i < m->nfunctions; i++)
        if (!m->function[i].pci->ops->save)
            return &m->function[i];
    return NULL;
}

void
st_machine_freeze(struct st_machine *m, uint64_t timeout_ns,
                  struct st_machine_call *c)
{
    const struct machine_function *odd = not_to_be_saved(m);

    if (atomic_load(&m->held) != HELD_PAUSE || !m->parked || m->resetting ||
        machine_is_saving(m)) {
        machine_answer(
            m, c,
            st_err_set(&c->err, EBUSY,
                       machine_is_saving(m)
                           ? "the machine is being saved"
                           : "only a machine that is paused can be saved"));
        return;
    }
    if (odd) {
        machine_answer(m, c,
                       st_err_set(&c->err, ENOTSUP, "'%s' (%s) cannot be saved",
                                  odd->name, odd->pci->ops->name));
        return;
    }
    m->frozen = false;
    m->freeze_call = c;
    m->freeze_rc = 0;
    m->freezing = m->nfunctions + 1;
    for (unsigned i = 0; i < m->nfunctions; i++) {
        struct machine_function *f = &m->function[i];

        forget(f);
        f->saving = (struct st_pci_saving){.done = function_saved,
                                           .timeout_ns = timeout_ns};
        f->pci->ops->save(f->pci, &f->saving);
    }
    freeze_step(m);
}

/* ---- What is saved ---- */

static int
save_vcpu(struct st_machine *m, struct st_saved *s, unsigned i,
          struct st_err *err)
{
    struct st_vcpu_state state = {0};
    struct st_saved_device d = {NULL, 1, st_vcpu_state_walk, &state};
    char name[ST_SAVED_NAME];
    int fd = m->vcpus.vcpu[i].fd, rc;

    if (st_vcpu_is_nested(&m->kvm, fd))
        return st_err_set(err, ENOTSUP,
                          "vcpu %u has guests of its own: a machine with them "
                          "cannot be saved",
                          i);
    machine_section("vcpu", i, name);
    d.name = name;
    rc = st_vcpu_state_get(&m->kvm, fd, &state);
    if (rc == 0)
        rc = st_saved_take(s, &d);
    st_vcpu_state_free(&state);
    return rc;
}

static int
save_clock(struct st_machine *m, struct st_saved *s)
{
    uint64_t ns;
    const struct st_saved_device d = {"clock", 1, machine_clock_walk, &ns};
    int rc = st_clock_get(&m->kvm, &ns);

    return rc < 0 ? rc : st_saved_take(s, &d);
}

/* What is KVM's. */
static int
save_kvm(struct st_machine *m, struct st_saved *s, struct st_err *err)
{
    struct st_chips_state chips = {0};
    const struct st_saved_device d = {"chips", 1, st_chips_state_walk, &chips};
    int rc = st_chips_state_get(&m->kvm, &chips);

    if (rc == 0)
        rc = st_saved_take(s, &d);
    if (rc == 0)
        rc = save_clock(m, s);
    for (unsigned i = 0; rc == 0 && i < m->opts.cpus; i++)
        rc = save_vcpu(m, s, i, err);
    return rc;
}

static void *
copy(const void *p, size_t len)
{
    void *q = malloc(len ? len : 1);

    return q ? memcpy(q, p, len) : NULL;
}

static int
save_functions(struct st_machine *m, struct st_saved *s)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < m->nfunctions; i++) {
        const struct machine_function *f = &m->function[i];
        char name[ST_SAVED_NAME];

        machine_section("function", f->slot, name);
        rc = st_saved_add(s, name, 1, copy(f->saving.blob, f->saving.len),
                          f->saving.len);
    }
    return rc;
}

static void
shape_of(const struct st_machine *m, struct machine_shape *out)
{
    int khz = ioctl(m->vcpus.vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

    *out = (struct machine_shape){.memory = m->ram.size,
                                  .cpus = m->opts.cpus,
                                  .noxsave = m->opts.noxsave,
                                  .firmware = m->firmware,
                                  .tsc_khz = khz > 0 ? (uint32_t)khz : 0,
                                  .nfunctions = m->nfunctions,
                                  .norder = m->norder,
                                  .ncpuid = m->kvm.cpuid->nent};
    for (unsigned i = 0; i < m->nfunctions; i++)
        machine_shape_function(&m->function[i], &out->function[i]);
    for (unsigned i = 0; i < m->norder; i++)
        out->order[i] = m->order[i];
    memcpy(out->cpuid, m->kvm.cpuid->entries,
           out->ncpuid * sizeof(out->cpuid[0]));
}

static int
save_shape(struct st_machine *m, struct st_saved *s)
{
    struct machine_shape *shape = calloc(1, sizeof(*shape));
    const struct st_saved_device d = {"machine", MACHINE_SHAPE,
                                      machine_shape_walk, shape};
    int rc = -ENOMEM;

    if (shape) {
        shape_of(m, shape);
        rc = st_saved_take(s, &d);
    }
    free(shape);
    return rc;
}

/* All but RAM. */
static int
collect(struct st_machine *m, struct st_saved *s, struct st_err *err)
{
    struct st_saved_device board[ST_PLATFORM_SAVED];
    unsigned n = st_platform_saved(&m->platform, board);
    int rc = save_shape(m, s);

    err->text[0] = '\0';
    if (rc == 0 && m->ram.rom)
        rc = st_saved_add(s, ST_PLATFORM_ROM, 1,
                          copy(m->ram.rom, m->ram.rom_size), m->ram.rom_size);
    for (unsigned i = 0; rc == 0 && i < n; i++)
        rc = st_saved_take(s, &board[i]);
    if (rc == 0)
        rc = save_functions(m, s);
    if (rc == 0)
        rc = save_kvm(m, s, err);
    return rc < 0 && !*err->text
               ? st_err_set(err, -rc, "the machine's state: %s",
                            st_strerror(rc))
               : rc;
}

/* ---- The file ---- */

static void
save_work(struct st_job *j)
{
    struct machine_save *s = st_container(j, struct machine_save, job);

    s->rc = st_saved_write(&s->saved, &s->m->ram, s->path, &s->cancel, &s->err);
}

static void
save_end(struct machine_save *s, struct st_machine_call *c, int rc)
{
    struct st_machine *m = s->m;

    m->save = NULL;
    c->err = s->err;
    st_saved_free(&s->saved);
    free(s->path);
    free(s);
    machine_answer(m, c, rc);
    machine_happened(m, MACHINE_LOOK);
}

static void
save_done(struct st_job *j)
{
    struct machine_save *s = st_container(j, struct machine_save, job);

    save_end(s, s->call, s->rc);
}

void
machine_save_cancel(struct st_machine *m)
{
    if (m->save)
        atomic_store(&m->save->cancel, true);
}

void
st_machine_save(struct st_machine *m, const char *path,
                struct st_machine_call *c)
{
    struct machine_save *s;
    int rc;

    if (!m->frozen || machine_is_saving(m)) {
        machine_answer(m, c,
                       st_err_set(&c->err, EBUSY, "the machine is not frozen"));
        return;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        machine_answer(m, c, st_err_set(&c->err, ENOMEM, "no memory"));
        return;
    }
    m->save = s;
    s->m = m;
    s->call = c;
    s->path = strdup(path);
    rc = s->path ? collect(m, &s->saved, &s->err)
                 : st_err_set(&s->err, ENOMEM, "no memory");
    if (rc < 0) {
        save_end(s, c, rc);
        return;
    }
    s->job.work = save_work;
    s->job.done = save_done;
    st_job_start(m->opts.home, &s->job);
}
