/* SPDX-License-Identifier: MIT
 *
 * A machine becomes one that was saved; see machine.h.
 *
 *   create   the file's shape: memory, CPUs, firmware
 *   start    RAM, the board, then what is KVM's: interrupt controllers before
 *            vCPUs, whose local APICs take what the others send
 *            functions: they go on at once, and may raise interrupts
 *            an interrupt for each vector, in case one was on its way
 *            vCPUs run
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "machine_private.h"
#include "range.h"

/* Of a time-stamp counter, in millionths: what clocks of guests bear. */
enum { TSC_TOLERANCE = 250 };

/* ---- Made ---- */

/* Options are what the file says. */
static int
adopt(struct st_machine *m, struct st_err *err)
{
    struct st_machine_opts *o = &m->opts;
    const struct machine_shape *s = m->shape;

    m->firmware = s->firmware;
    if (s->firmware && o->kernel)
        return st_err_set(err, EINVAL,
                          "the saved machine boots firmware, it takes no "
                          "kernel");
    o->memory = s->memory;
    o->cpus = s->cpus;
    o->noxsave = s->noxsave;
    if (!s->firmware && !o->kernel)
        o->no_reboot = true;
    m->norder = s->norder;
    for (unsigned i = 0; i < s->norder; i++)
        m->order[i] = s->order[i];
    return 0;
}

int
machine_restore_open(struct st_machine *m, struct st_err *err)
{
    const char *path = m->opts.restore;
    struct st_saved_device d = {"machine", MACHINE_SHAPE, machine_shape_walk,
                                NULL};
    int rc;

    m->from = calloc(1, sizeof(*m->from));
    m->shape = calloc(1, sizeof(*m->shape));
    if (!m->from || !m->shape)
        return st_err_set(err, ENOMEM, "no memory");
    m->from_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (m->from_fd < 0)
        return st_err_set(err, errno, "'%s': %s", path,
                          st_strerror_open(path, false, -errno));
    d.device = m->shape;
    rc = st_saved_read(m->from, m->from_fd, err);
    if (rc == 0)
        rc = st_saved_put(m->from, &d, err);
    if (rc == 0 && m->shape->memory != m->from->ram_size)
        rc = st_err_set(err, EINVAL,
                        "the saved machine has memory of two sizes");
    if (rc == 0)
        rc = adopt(m, err);
    if (rc < 0)
        st_err_prefix(err, "'%s'", path);
    return rc;
}

void
machine_restore_close(struct st_machine *m)
{
    if (m->from)
        st_saved_free(m->from);
    free(m->from);
    free(m->shape);
    m->from = NULL;
    m->shape = NULL;
    if (m->from_fd >= 0)
        close(m->from_fd);
    m->from_fd = -1;
}

/* ---- KVM's ---- */

/* The guest has measured its time-stamp counter: it must be as fast as it was.
 */
static int
restore_tsc_rate(struct st_machine *m, struct st_err *err)
{
    uint64_t was = m->shape->tsc_khz, off;
    int is = ioctl(m->vcpus.vcpu[0].fd, KVM_GET_TSC_KHZ, 0);

    if (!was || is <= 0)
        return 0;
    off = was > (uint64_t)is ? was - (uint64_t)is : (uint64_t)is - was;
    if (off * 1000000 <= was * TSC_TOLERANCE)
        return 0;
    for (unsigned i = 0; i < m->opts.cpus; i++)
        if (ioctl(m->vcpus.vcpu[i].fd, KVM_SET_TSC_KHZ, was) < 0)
            return st_err_set(err, EINVAL,
                              "the saved machine's time-stamp counter runs at "
                              "%ju kHz, this host's at %d, and cannot be "
                              "scaled",
                              (uintmax_t)was, is);
    return 0;
}

static int
read_vcpu(struct st_machine *m, unsigned i, struct st_vcpu_state *state,
          struct st_err *err)
{
    char name[ST_SAVED_NAME];
    const struct st_saved_device d = {name, 1, st_vcpu_state_walk, state};
    int rc;

    machine_section("vcpu", i, name);
    rc = st_saved_put(m->from, &d, err);
    if (rc == 0 && state->xsave_len != m->power_on[i].xsave_len)
        rc = st_err_set(err, EINVAL,
                        "the saved vcpu's XSAVE area has %u bytes, this host's "
                        "%u",
                        state->xsave_len, m->power_on[i].xsave_len);
    return rc;
}

static int
restore_chips(struct st_machine *m, struct st_err *err)
{
    struct st_chips_state chips = {0};
    uint64_t ns = 0;
    const struct st_saved_device d = {"chips", 1, st_chips_state_walk, &chips};
    const struct st_saved_device c = {"clock", 1, machine_clock_walk, &ns};
    int rc = st_saved_put(m->from, &d, err);

    if (rc == 0)
        rc = st_saved_put(m->from, &c, err);
    if (rc < 0)
        return rc;
    rc = st_chips_state_set(&m->kvm, &chips);
    if (rc == 0)
        rc = st_clock_set(&m->kvm, ns);
    return rc < 0
               ? st_err_set(err, -rc, "KVM takes no interrupt controllers: %s",
                            st_strerror(rc))
               : 0;
}

/* Counters first, and all of them within a moment: KVM keeps them in step. */
static int
put_vcpus(struct st_machine *m, const struct st_vcpu_state *state,
          struct st_err *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < m->opts.cpus; i++)
        rc = st_vcpu_state_set_tsc(m->vcpus.vcpu[i].fd, &state[i]);
    for (unsigned i = 0; rc == 0 && i < m->opts.cpus; i++)
        rc = st_vcpu_state_set(m->vcpus.vcpu[i].fd, &state[i]);
    return rc < 0 ? st_err_set(err, -rc, "KVM takes no registers: %s",
                               st_strerror(rc))
                  : 0;
}

static int
restore_kvm(struct st_machine *m, struct st_err *err)
{
    struct st_vcpu_state *state = calloc(m->opts.cpus, sizeof(*state));
    int rc = state ? 0 : st_err_set(err, ENOMEM, "no memory");

    for (unsigned i = 0; rc == 0 && i < m->opts.cpus; i++)
        rc = read_vcpu(m, i, &state[i], err);
    if (rc == 0)
        rc = restore_tsc_rate(m, err);
    if (rc == 0)
        rc = restore_chips(m, err);
    if (rc == 0)
        rc = put_vcpus(m, state, err);
    for (unsigned i = 0; state && i < m->opts.cpus; i++)
        st_vcpu_state_free(&state[i]);
    free(state);
    return rc;
}

/* ---- The board ---- */

static int
restore_board(struct st_machine *m, struct st_err *err)
{
    struct st_saved_device board[ST_PLATFORM_SAVED];
    unsigned n = st_platform_saved(&m->platform, board);
    int rc = 0;

    if (st_saved_find(m->from, "serial 1") && !m->platform.serial[1].serial)
        return st_err_set(err, EINVAL,
                          "the saved machine has a second serial port, this "
                          "one has not");
    for (unsigned i = 0; rc == 0 && i < n; i++)
        rc = st_saved_put(m->from, &board[i], err);
    return rc;
}

/* ---- Functions ---- */

/* What functions are waited for. */
struct restoring {
    struct st_machine *m;
    struct st_err *err;
    unsigned left;
    bool done;
    int rc;
};

/* Its function is known by where it is. */
struct restoring_one {
    struct st_pci_saving saving;
    struct restoring *all;
    const struct machine_function *f;
};

static void
restored(struct st_pci_saving *s, int rc)
{
    struct restoring_one *one = st_container(s, struct restoring_one, saving);
    struct restoring *all = one->all;

    if (rc < 0 && all->rc == 0) {
        all->rc = rc;
        *all->err = s->err;
        st_err_prefix(all->err, "%s", one->f->name);
    }
    all->done = --all->left == 0;
}

/* An interrupt may have been on its way when it was saved. One too many is none
 * of a driver's worries. */
static void
raise_all(struct st_pci *p)
{
    for (unsigned v = 0; st_pci_uses_msix(p) && v < p->vectors; v++) {
        struct st_pci_vector e;

        st_pci_vector_get(p, v, &e);
        if (!e.masked)
            st_pci_raise(p, v);
    }
}

static const struct st_saved_section *
section_of(const struct st_machine *m, const struct machine_function *f)
{
    char name[ST_SAVED_NAME];

    machine_section("function", f->slot, name);
    return st_saved_find(m->from, name);
}

static int
restore_functions(struct st_machine *m, struct st_err *err)
{
    struct restoring all = {.m = m, .err = err, .left = m->nfunctions};
    struct restoring_one one[ST_MACHINE_SLOTS] = {0};

    for (unsigned i = 0; i < m->nfunctions; i++) {
        const struct machine_function *f = &m->function[i];
        const struct st_saved_section *s = section_of(m, f);

        if (!s || s->version != 1 || !f->pci->ops->restore)
            return st_err_set(err, EINVAL, "%s: the saved machine has not %s",
                              f->name, s ? "what it can take" : "its state");
    }
    for (unsigned i = 0; i < m->nfunctions; i++) {
        const struct machine_function *f = &m->function[i];
        const struct st_saved_section *s = section_of(m, f);

        one[i].all = &all;
        one[i].f = f;
        one[i].saving = (struct st_pci_saving){
            .done = restored, .blob = s->data, .len = s->len};
        f->pci->ops->restore(f->pci, &one[i].saving);
    }
    if (m->nfunctions)
        st_loop_wait(m->opts.home, &all.done);
    for (unsigned i = 0; all.rc == 0 && i < m->nfunctions; i++)
        raise_all(m->function[i].pci);
    return all.rc;
}

/* ---- All of it ---- */

int
machine_restore(struct st_machine *m, struct st_err *err)
{
    int rc = machine_shape_check(m, m->shape, err);

    if (rc == 0)
        rc = st_saved_read_ram(m->from, m->from_fd, &m->ram, err);
    if (rc == 0)
        rc = restore_board(m, err);
    if (rc == 0)
        rc = restore_kvm(m, err);
    if (rc == 0)
        rc = restore_functions(m, err);
    if (rc < 0)
        st_err_prefix(err, "'%s'", m->opts.restore);
    machine_restore_close(m);
    if (rc == 0 && atomic_load(&m->held) & HELD_STOP)
        rc = st_err_set(err, ESHUTDOWN, "the machine is being stopped");
    return rc;
}
