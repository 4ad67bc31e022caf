/* SPDX-License-Identifier: MIT
 *
 * Virtual CPUs: a thread each that runs the guest and answers its exits
 * (private to the room).
 *
 *            run                          parked
 *   thread:  KVM_RUN -> exit -> space     waits; its state may be read and
 *               ^        |                written by anybody
 *               +--------+
 *
 *   st_vcpus_park: says so, sets immediate_exit, sends a signal
 *   each thread:   ends the exit it is in, counts itself in
 *   the last one:  the group's parked() --> the machine goes on from there
 *
 * A vCPU that waits for a deferred access is not parked before that is done.
 */
#ifndef ST_VCPU_H
#define ST_VCPU_H

#include <pthread.h>
#include <semaphore.h>

#include "cpuid.h"
#include "kvm.h"
#include "log.h"
#include "space.h"
#include "stat.h"

/* Exits, by what they were. */
#define ST_VCPU_EXITS(X)                                                       \
    X(IO, "io")                                                                \
    X(MMIO, "mmio")                                                            \
    X(HLT, "hlt")                                                              \
    X(INTR, "interrupted")                                                     \
    X(SHUTDOWN, "shutdown")                                                    \
    X(DEFERRED, "deferred")                                                    \
    X(OTHER, "other")

enum st_vcpu_exit {
#define X(id, name) ST_VCPU_##id,
    ST_VCPU_EXITS(X)
#undef X
        ST_VCPU_EXIT_COUNT
};

/* Why a vCPU cannot go on. */
enum st_vcpu_end {
    ST_VCPU_TRIPLE_FAULT, /* the guest's doing: it wants a reset */
    ST_VCPU_FAILED,       /* KVM's, or ours; the text says which */
};

/* What is said about a vCPU that cannot go on. */
struct st_vcpu_report {
    unsigned id;
    char why[128];
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t gpa;     /* where the instruction is, or UINT64_MAX */
    uint8_t code[16]; /* there: whoever knows the memory fills it */
    unsigned ncode;
};

struct st_vcpus;

/* A vCPU. */
struct st_vcpu {
    struct st_vcpus *group;
    unsigned id;         /* APIC id */
    int fd;              /* owned; -1 */
    struct kvm_run *run; /* owned */
    pthread_t thread;
    bool started;
    sem_t deferred;
    st_counter exits[ST_VCPU_EXIT_COUNT];
};

enum st_vcpu_want { ST_VCPU_PARK, ST_VCPU_RUN, ST_VCPU_QUIT };

/* All vCPUs of a machine. */
struct st_vcpus {
    const struct st_kvm *kvm;        /* borrowed */
    struct st_space *ports, *memory; /* borrowed */
    struct st_vcpu *vcpu;            /* owned; n of them */
    unsigned n;

    /* All are parked, once for each st_vcpus_park. Any thread, with the lock:
     * it may post a message, and no more. */
    void (*parked)(struct st_vcpus *g);
    /* A vCPU's thread, before it parks itself: it cannot go on. */
    void (*ended)(struct st_vcpus *g, enum st_vcpu_end end,
                  struct st_vcpu_report *r);

    pthread_mutex_t lock; /* guards what follows; innermost */
    pthread_cond_t turn;
    _Atomic enum st_vcpu_want want;
    unsigned stopped; /* threads that are parked */
    bool told;        /* parked() was called */
};

/* N vCPUs that are parked; the rest of G is filled. 0, or -errno with a
 * sentence; st_vcpus_fini in any case. The process gets a handler for
 * SIGRTMIN. */
int st_vcpus_init(struct st_vcpus *g, const struct st_cpuid_opts *cpu,
                  unsigned n, struct st_err *err);

/* Start their threads, which stay parked. 0 or -errno. */
int st_vcpus_start(struct st_vcpus *g);

/* End and join the threads. A deferred access is waited for. */
void st_vcpus_quit(struct st_vcpus *g);
void st_vcpus_fini(struct st_vcpus *g);

/* Let them run; they are parked. */
void st_vcpus_run(struct st_vcpus *g);

/* Park them: G's parked() follows. False: they are, or are about to be, and it
 * does not follow again. Any thread, also a vCPU's within an access; what it
 * is in ends first. */
bool st_vcpus_park(struct st_vcpus *g);

/* Their clocks have gone on while they were parked: a guest that has KVM's
 * clock is told, so that it does not take it for a hang. They are parked still.
 */
void st_vcpus_were_paused(struct st_vcpus *g);

/* Say all of R. */
void st_vcpu_report_print(const struct st_vcpu_report *r,
                          const struct st_log *log);

/* What it is called, in lower case; static. */
const char *st_vcpu_exit_name(enum st_vcpu_exit e);

#endif
