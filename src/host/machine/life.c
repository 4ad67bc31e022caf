/* SPDX-License-Identifier: MIT
 *
 * A machine's life after its start: what its guest does to it, and what others
 * ask of it; see machine.h.
 *
 *   somebody wants something: a reason is held, and vCPUs park
 *   they are parked:          machine_step looks at the reasons
 *        stop   -> threads end
 *        reset  -> functions are reset, then the rest, the reason is gone
 *        pause  -> who asked is told
 *        end    -> nothing: whoever hears of the event decides
 *        none   -> they run on
 *
 * What happens on other threads is a bit and a message to the home loop.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine_private.h"

static void machine_step(struct st_machine *m);

/* ---- From other threads ---- */

void
machine_happened(struct st_machine *m, unsigned bits)
{
    if (atomic_fetch_or(&m->happened, bits) == 0)
        st_post(m->opts.home, &m->task);
}

void
machine_wanted(struct st_machine *m, unsigned bit)
{
    machine_happened(m, bit);
    st_vcpus_park(&m->vcpus);
}

void
machine_parked(struct st_vcpus *g)
{
    machine_happened(st_container(g, struct st_machine, vcpus), MACHINE_PARKED);
}

void
machine_vcpu_ended(struct st_vcpus *g, enum st_vcpu_end end,
                   struct st_vcpu_report *r)
{
    struct st_machine *m = st_container(g, struct st_machine, vcpus);
    const struct st_log *log = m->opts.log;

    if (end == ST_VCPU_TRIPLE_FAULT) {
        st_warn_limited(log, &m->limiter,
                        "vcpu %u: triple fault at rip %016llx", r->id,
                        r->regs.rip);
        machine_happened(m, MACHINE_RESET);
        return;
    }
    for (; r->ncode < sizeof(r->code); r->ncode++) {
        const uint8_t *p =
            r->gpa == UINT64_MAX
                ? NULL
                : st_machine_ram_at(&m->ram, r->gpa + r->ncode, 1);

        if (!p)
            break;
        r->code[r->ncode] = *p;
    }
    st_vcpu_report_print(r, log);
    machine_happened(m, MACHINE_FAILED);
}

/* ---- Calls ---- */

static void
call_run(struct st_task *t)
{
    struct st_machine_call *c = st_container(t, struct st_machine_call, task);

    c->done(c, c->rc);
}

void
machine_answer(struct st_machine *m, struct st_machine_call *c, int rc)
{
    c->rc = rc;
    c->task.run = call_run;
    st_ready(m->opts.home, &c->task);
}

/* C waits until what it asked for, the reason of BIT, is there or gone. */
static void
call_wait(struct st_machine *m, struct st_machine_call *c, unsigned bit)
{
    c->wait = bit;
    st_list_append(&m->calls, &c->link);
}

/* Those that wait for BIT get RC. */
static void
answer_all(struct st_machine *m, unsigned bit, int rc)
{
    st_list_for(c, next, &m->calls, struct st_machine_call, link)
    {
        if (c->wait != bit)
            continue;
        st_list_remove(&c->link);
        machine_answer(m, c, rc);
    }
}

/* ---- Reasons ---- */

static void
hold(struct st_machine *m, unsigned bit)
{
    atomic_fetch_or(&m->held, bit);
    if (!m->parked)
        st_vcpus_park(&m->vcpus);
}

static void
let_go(struct st_machine *m, unsigned bit)
{
    atomic_fetch_and(&m->held, ~bit);
}

static bool
holds(const struct st_machine *m, unsigned bits)
{
    return atomic_load(&m->held) & bits;
}

static void
tell(struct st_machine *m, enum st_machine_event e)
{
    if (m->opts.event)
        m->opts.event(m->opts.arg, e);
}

/* ---- Reset ---- */

/* The functions are: now the rest. */
static void
reset_rest(struct st_machine *m)
{
    struct st_err err;
    int rc;

    m->resetting = false;
    if (holds(m, HELD_STOP)) {
        answer_all(m, HELD_RESET, -ESHUTDOWN);
        return;
    }
    st_platform_reset(&m->platform);
    rc = machine_power_on(m, &err);
    atomic_fetch_add(&m->resets, 1);
    m->panics_told = 0;
    let_go(m, HELD_RESET);
    if (rc < 0) {
        st_error(m->opts.log, "the machine does not reset: %s", err.text);
        hold(m, HELD_END);
        tell(m, ST_MACHINE_FAILED);
    }
    answer_all(m, HELD_RESET, rc);
}

static void
reset_one_done(struct st_machine *m)
{
    if (atomic_fetch_sub(&m->resetting_left, 1) == 1)
        machine_happened(m, MACHINE_RESET_DONE);
}

/* Any thread. */
static void
reset_done(struct st_access *a)
{
    reset_one_done(st_container(a, struct machine_function, reset)->machine);
}

static void
reset_begin(struct st_machine *m)
{
    m->resetting = true;
    atomic_store(&m->resetting_left, m->nfunctions + 1);
    for (unsigned i = 0; i < m->nfunctions; i++) {
        struct machine_function *f = &m->function[i];

        f->reset = (struct st_access){.done = reset_done};
        if (st_pci_reset(f->pci, &f->reset))
            reset_one_done(m);
    }
    reset_one_done(m);
}

/* ---- Steps ---- */

/* The vCPUs are parked: what next? */
static void
machine_step(struct st_machine *m)
{
    if (m->resetting || m->stopped || machine_is_saving(m))
        return;
    if (holds(m, HELD_STOP)) {
        st_vcpus_quit(&m->vcpus);
        m->stopped = true;
        answer_all(m, HELD_RESET, -ESHUTDOWN);
        answer_all(m, HELD_STOP, 0);
        return;
    }
    if (holds(m, HELD_PAUSE))
        answer_all(m, HELD_PAUSE, 0);
    if (holds(m, HELD_RESET)) {
        reset_begin(m);
        return;
    }
    if (!holds(m, ~0u)) {
        m->parked = false;
        st_vcpus_run(&m->vcpus);
    }
}

/* The guest wants to be reset. */
static void
guest_reset(struct st_machine *m)
{
    if (holds(m, HELD_END | HELD_STOP))
        return;
    hold(m, m->opts.no_reboot ? HELD_END : HELD_RESET);
    tell(m, ST_MACHINE_RESET);
}

/* The guest says that it has panicked. It can say so for ever, and is heard
 * once. */
static void
guest_panic(struct st_machine *m, unsigned bit, enum st_machine_event e)
{
    if (holds(m, HELD_END | HELD_STOP) || m->panics_told & bit)
        return;
    m->panics_told |= bit;
    atomic_fetch_add(&m->panics, 1);
    if (e == ST_MACHINE_PANICKED && m->opts.no_reboot)
        hold(m, HELD_END);
    tell(m, e);
}

static void
guest_end(struct st_machine *m, enum st_machine_event e)
{
    if (holds(m, HELD_END | HELD_STOP))
        return;
    hold(m, HELD_END);
    tell(m, e);
}

void
machine_look(struct st_task *t)
{
    struct st_machine *m = st_container(t, struct st_machine, task);
    unsigned happened = atomic_exchange(&m->happened, 0);

    if (happened & MACHINE_FAILED)
        guest_end(m, ST_MACHINE_FAILED);
    if (happened & MACHINE_CRASHED)
        guest_panic(m, MACHINE_CRASHED, ST_MACHINE_CRASHED);
    if (happened & MACHINE_PANICKED)
        guest_panic(m, MACHINE_PANICKED, ST_MACHINE_PANICKED);
    if (happened & MACHINE_OFF)
        guest_end(m, ST_MACHINE_OFF);
    if (happened & MACHINE_RESET)
        guest_reset(m);
    if (happened & MACHINE_PARKED)
        m->parked = true;
    if (happened & MACHINE_RESET_DONE)
        reset_rest(m);
    if (m->parked)
        machine_step(m);
}

/* ---- What others ask for ---- */

void
st_machine_pause(struct st_machine *m, struct st_machine_call *c)
{
    if (holds(m, HELD_STOP)) {
        machine_answer(m, c, -ESHUTDOWN);
        return;
    }
    if (holds(m, HELD_START | HELD_PAUSE | HELD_END)) {
        machine_answer(m, c, -EBUSY);
        return;
    }
    atomic_fetch_add(&m->pauses, 1);
    call_wait(m, c, HELD_PAUSE);
    hold(m, HELD_PAUSE);
    machine_happened(m, MACHINE_LOOK);
}

void
st_machine_resume(struct st_machine *m, struct st_machine_call *c)
{
    if (holds(m, HELD_STOP) || !holds(m, HELD_PAUSE)) {
        machine_answer(m, c, holds(m, HELD_STOP) ? -ESHUTDOWN : -EBUSY);
        return;
    }
    if (machine_is_saving(m)) {
        machine_answer(m, c, -EBUSY);
        return;
    }
    machine_thaw(m);
    if (m->parked)
        st_vcpus_were_paused(&m->vcpus);
    let_go(m, HELD_PAUSE);
    answer_all(m, HELD_PAUSE, 0); /* it was, or would have been */
    machine_answer(m, c, 0);
    machine_happened(m, MACHINE_LOOK);
}

void
st_machine_reset(struct st_machine *m, struct st_machine_call *c)
{
    if (holds(m, HELD_STOP | HELD_START)) {
        machine_answer(m, c, holds(m, HELD_STOP) ? -ESHUTDOWN : -EBUSY);
        return;
    }
    if (machine_is_saving(m) || !(m->firmware || m->platform.kernel >= 0)) {
        machine_answer(m, c, machine_is_saving(m) ? -EBUSY : -ENOTSUP);
        return;
    }
    m->frozen = false; /* functions are held still */
    let_go(m, HELD_END);
    call_wait(m, c, HELD_RESET);
    hold(m, HELD_RESET);
    machine_happened(m, MACHINE_LOOK);
}

void
st_machine_stop(struct st_machine *m, struct st_machine_call *c)
{
    answer_all(m, HELD_PAUSE, -ESHUTDOWN);
    if (m->stopped) {
        machine_answer(m, c, 0);
        return;
    }
    machine_save_cancel(m);
    call_wait(m, c, HELD_STOP);
    hold(m, HELD_STOP);
    machine_happened(m, MACHINE_LOOK);
}
