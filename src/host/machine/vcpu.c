/* SPDX-License-Identifier: MIT
 *
 * Virtual CPUs; see vcpu.h.
 */
#include "vcpu.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpuid.h"
#include "list.h"

/* ---- Exits ---- */

/* An access that a vCPU's thread waits for. */
struct vcpu_access {
    struct st_access a;
    struct st_vcpu *vcpu;
};

static void
access_done(struct st_access *a)
{
    sem_post(&st_container(a, struct vcpu_access, a)->vcpu->deferred);
}

/* Carry out one access; DATA holds LEN bytes of it. */
static void
vcpu_access(struct st_vcpu *v, struct st_space *s, uint64_t address,
            uint8_t *data, unsigned len, bool write)
{
    struct vcpu_access x = {.a = {.offset = address,
                                  .len = len,
                                  .write = write,
                                  .done = access_done},
                            .vcpu = v};

    if (write)
        memcpy(&x.a.value, data, len); /* both little-endian */
    if (!st_space_access(s, &x.a)) {
        st_count(&v->exits[ST_VCPU_DEFERRED], 1);
        while (sem_wait(&v->deferred) < 0)
            ;
    }
    if (!write)
        memcpy(data, &x.a.value, len);
}

static void
exit_io(struct st_vcpu *v)
{
    struct kvm_run *r = v->run;
    uint8_t *data = (uint8_t *)r + r->io.data_offset;

    for (uint32_t i = 0; i < r->io.count; i++)
        vcpu_access(v, v->group->ports, r->io.port, data + i * r->io.size,
                    r->io.size, r->io.direction == KVM_EXIT_IO_OUT);
}

static void
exit_mmio(struct st_vcpu *v)
{
    struct kvm_run *r = v->run;

    vcpu_access(v, v->group->memory, r->mmio.phys_addr, r->mmio.data,
                r->mmio.len, r->mmio.is_write);
}

__attribute__((format(printf, 3, 4))) static void
vcpu_end(struct st_vcpu *v, enum st_vcpu_end end, const char *fmt, ...)
{
    struct st_vcpu_report r = {.id = v->id};
    struct kvm_translation t = {0};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(r.why, sizeof(r.why), fmt, ap);
    va_end(ap);
    ioctl(v->fd, KVM_GET_REGS, &r.regs);
    ioctl(v->fd, KVM_GET_SREGS, &r.sregs);
    t.linear_address = r.sregs.cs.base + r.regs.rip;
    if (ioctl(v->fd, KVM_TRANSLATE, &t) < 0)
        t.valid = 0;
    r.gpa = t.valid ? t.physical_address : UINT64_MAX;
    v->group->ended(v->group, end, &r);
    st_vcpus_park(v->group);
}

static void
exit_handle(struct st_vcpu *v)
{
    struct kvm_run *r = v->run;

    switch (r->exit_reason) {
    case KVM_EXIT_IO:
        st_count(&v->exits[ST_VCPU_IO], 1);
        exit_io(v);
        return;
    case KVM_EXIT_MMIO:
        st_count(&v->exits[ST_VCPU_MMIO], 1);
        exit_mmio(v);
        return;
    case KVM_EXIT_HLT:
        st_count(&v->exits[ST_VCPU_HLT], 1);
        return;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        st_count(&v->exits[ST_VCPU_INTR], 1);
        return;
    case KVM_EXIT_SHUTDOWN:
        st_count(&v->exits[ST_VCPU_SHUTDOWN], 1);
        vcpu_end(v, ST_VCPU_TRIPLE_FAULT, "triple fault");
        return;
    case KVM_EXIT_INTERNAL_ERROR:
        if (r->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
            vcpu_end(v, ST_VCPU_FAILED, "KVM cannot emulate an instruction");
        else
            vcpu_end(v, ST_VCPU_FAILED, "KVM has an internal error %u",
                     r->internal.suberror);
        return;
    case KVM_EXIT_FAIL_ENTRY:
        vcpu_end(v, ST_VCPU_FAILED, "the CPU refuses to enter: reason 0x%llx",
                 r->fail_entry.hardware_entry_failure_reason);
        return;
    default:
        st_count(&v->exits[ST_VCPU_OTHER], 1);
        vcpu_end(v, ST_VCPU_FAILED, "an exit that is not expected: %u",
                 r->exit_reason);
    }
}

/* ---- Threads ---- */

static void
kicked(int signal)
{
    (void)signal; /* it has interrupted KVM_RUN: that is all */
}

/* KVM_RUN ends at once from now on, or not. Any thread; the kernel reads it. */
static void
exit_at_once(struct st_vcpu *v, bool on)
{
    __atomic_store_n(&v->run->immediate_exit, on, __ATOMIC_RELEASE);
}

/* The exit that the guest is in ends inside KVM: what was read arrives in its
 * registers. */
static void
vcpu_settle(struct st_vcpu *v)
{
    exit_at_once(v, true);
    while (ioctl(v->fd, KVM_RUN, 0) == 0)
        exit_handle(v);
}

/* Under the lock: when all are parked, say so once. */
static void
tell(struct st_vcpus *g)
{
    if (g->stopped < g->n || g->told)
        return;
    g->told = true;
    g->parked(g);
}

/* Wait until it is to run (true) or to end. */
static bool
vcpu_wait(struct st_vcpu *v)
{
    struct st_vcpus *g = v->group;
    enum st_vcpu_want want;

    pthread_mutex_lock(&g->lock);
    g->stopped++;
    if (atomic_load(&g->want) == ST_VCPU_PARK)
        tell(g);
    while ((want = atomic_load(&g->want)) == ST_VCPU_PARK)
        pthread_cond_wait(&g->turn, &g->lock);
    g->stopped--;
    exit_at_once(v, false);
    pthread_mutex_unlock(&g->lock);
    return want == ST_VCPU_RUN;
}

static void *
vcpu_thread(void *arg)
{
    struct st_vcpu *v = arg;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    for (;;) {
        if (atomic_load(&v->group->want) != ST_VCPU_RUN) {
            vcpu_settle(v);
            if (!vcpu_wait(v))
                return NULL;
        }
        if (ioctl(v->fd, KVM_RUN, 0) == 0)
            exit_handle(v);
        else if (errno == EINTR)
            st_count(&v->exits[ST_VCPU_INTR], 1);
        else if (errno != EAGAIN) /* an AP that waits for its start */
            vcpu_end(v, ST_VCPU_FAILED, "KVM_RUN: %s", strerror(errno));
    }
}

/* ---- The group ---- */

static int
vcpu_init(struct st_vcpus *g, const struct st_cpuid_opts *cpu, unsigned id)
{
    struct st_vcpu *v = &g->vcpu[id];
    void *run;
    int rc;

    v->group = g;
    v->id = id;
    sem_init(&v->deferred, 0, 0);
    v->fd = ioctl(g->kvm->vm, KVM_CREATE_VCPU, (unsigned long)id);
    if (v->fd < 0)
        return -errno;
    run = mmap(NULL, g->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
               v->fd, 0);
    if (run == MAP_FAILED)
        return -errno;
    v->run = run;
    rc = st_cpuid_set(g->kvm, v->fd, cpu, id, g->n);
    return rc;
}

int
st_vcpus_init(struct st_vcpus *g, const struct st_cpuid_opts *cpu, unsigned n,
              struct st_err *err)
{
    struct sigaction kick = {.sa_handler = kicked};
    int rc = 0;

    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->turn, NULL);
    atomic_store(&g->want, ST_VCPU_PARK);
    g->vcpu = calloc(n, sizeof(*g->vcpu));
    if (!g->vcpu)
        return st_err_set(err, ENOMEM, "no memory");
    g->n = n;
    for (unsigned i = 0; i < n; i++)
        g->vcpu[i].fd = -1;
    if (sigaction(SIGRTMIN, &kick, NULL) < 0)
        rc = -errno;
    for (unsigned i = 0; rc == 0 && i < n; i++)
        rc = vcpu_init(g, cpu, i);
    if (rc < 0)
        st_err_set(err, -rc, "KVM makes no vCPU: %s", st_strerror(rc));
    return rc;
}

int
st_vcpus_start(struct st_vcpus *g)
{
    g->told = true; /* that they are parked goes without saying */
    for (unsigned i = 0; i < g->n; i++) {
        struct st_vcpu *v = &g->vcpu[i];
        char name[16];
        int rc = pthread_create(&v->thread, NULL, vcpu_thread, v);

        if (rc)
            return -rc;
        v->started = true;
        snprintf(name, sizeof(name), "vcpu-%u", i);
        pthread_setname_np(v->thread, name);
    }
    return 0;
}

/* Under the lock. */
static void
want(struct st_vcpus *g, enum st_vcpu_want w)
{
    atomic_store(&g->want, w);
    pthread_cond_broadcast(&g->turn);
    for (unsigned i = 0; i < g->n; i++) {
        if (!g->vcpu[i].started || w == ST_VCPU_RUN)
            continue;
        exit_at_once(&g->vcpu[i], true);
        pthread_kill(g->vcpu[i].thread, SIGRTMIN);
    }
}

void
st_vcpus_run(struct st_vcpus *g)
{
    pthread_mutex_lock(&g->lock);
    want(g, ST_VCPU_RUN);
    pthread_mutex_unlock(&g->lock);
}

bool
st_vcpus_park(struct st_vcpus *g)
{
    bool begun;

    pthread_mutex_lock(&g->lock);
    begun = atomic_load(&g->want) == ST_VCPU_RUN;
    if (begun) {
        g->told = false;
        want(g, ST_VCPU_PARK);
        tell(g); /* they have not even begun to run */
    }
    pthread_mutex_unlock(&g->lock);
    return begun;
}

void
st_vcpus_were_paused(struct st_vcpus *g)
{
    for (unsigned i = 0; i < g->n; i++)
        ioctl(g->vcpu[i].fd, KVM_KVMCLOCK_CTRL, 0); /* fails without one */
}

void
st_vcpus_quit(struct st_vcpus *g)
{
    if (!g->vcpu)
        return;
    pthread_mutex_lock(&g->lock);
    want(g, ST_VCPU_QUIT);
    pthread_mutex_unlock(&g->lock);
    for (unsigned i = 0; i < g->n; i++) {
        if (g->vcpu[i].started)
            pthread_join(g->vcpu[i].thread, NULL);
        g->vcpu[i].started = false;
    }
}

void
st_vcpus_fini(struct st_vcpus *g)
{
    if (!g->vcpu)
        return;
    st_vcpus_quit(g);
    for (unsigned i = 0; i < g->n; i++) {
        struct st_vcpu *v = &g->vcpu[i];

        if (v->run)
            munmap(v->run, g->kvm->run_size);
        if (v->fd >= 0)
            close(v->fd);
        sem_destroy(&v->deferred);
    }
    free(g->vcpu);
    g->vcpu = NULL;
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->turn);
}

/* ---- Reports ---- */

const char *
st_vcpu_exit_name(enum st_vcpu_exit e)
{
    static const char *const name[] = {
#define X(id, text) [ST_VCPU_##id] = text,
        ST_VCPU_EXITS(X)
#undef X
    };

    return name[e];
}

void
st_vcpu_report_print(const struct st_vcpu_report *r, const struct st_log *log)
{
    const struct kvm_regs *g = &r->regs;
    const struct kvm_sregs *s = &r->sregs;

    st_error(log, "vcpu %u: %s", r->id, r->why);
    st_error(log, "rip %016llx rsp %016llx rflags %08llx", g->rip, g->rsp,
             g->rflags);
    st_error(log, "rax %016llx rbx %016llx rcx %016llx rdx %016llx", g->rax,
             g->rbx, g->rcx, g->rdx);
    st_error(log, "rsi %016llx rdi %016llx rbp %016llx", g->rsi, g->rdi,
             g->rbp);
    st_error(log, "r8  %016llx r9  %016llx r10 %016llx r11 %016llx", g->r8,
             g->r9, g->r10, g->r11);
    st_error(log, "r12 %016llx r13 %016llx r14 %016llx r15 %016llx", g->r12,
             g->r13, g->r14, g->r15);
    st_error(log,
             "cs %04x base %llx, ss %04x, ds %04x, es %04x, fs base %llx, "
             "gs base %llx",
             s->cs.selector, s->cs.base, s->ss.selector, s->ds.selector,
             s->es.selector, s->fs.base, s->gs.base);
    st_error(log, "cr0 %llx cr2 %llx cr3 %llx cr4 %llx efer %llx apic %llx",
             s->cr0, s->cr2, s->cr3, s->cr4, s->efer, s->apic_base);
    if (r->ncode) {
        char text[3 * sizeof(r->code) + 1] = "";

        for (unsigned i = 0; i < r->ncode; i++)
            snprintf(text + 3 * i, 4, " %02x", r->code[i]);
        st_error(log, "code%s", text);
    }
}
