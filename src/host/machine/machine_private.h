/* SPDX-License-Identifier: MIT
 *
 * What the files of the machine share.
 *
 *   machine.c   made, added to, started; inspected
 *   life.c      events of vCPUs; pause, resume, reset, stop
 *   platform.c  the devices of the board, and what is booted
 *   machine_save.c     one that is paused becomes a file
 *   machine_restore.c  and one from it
 *   machine_shape.c    what both must be alike in
 */
#ifndef ST_MACHINE_PRIVATE_H
#define ST_MACHINE_PRIVATE_H

#include "boot_linux.h"
#include "console.h"
#include "irq.h"
#include "list.h"
#include "loop.h"
#include "machine.h"
#include "machine_ram.h"
#include "pci_kvm.h"
#include "platform.h"
#include "saved.h"
#include "state.h"
#include "vcpu.h"

/* What has happened on other threads: bits of st_machine.happened. */
enum {
    MACHINE_PARKED = 1,
    MACHINE_RESET = 2, /* the guest wants it */
    MACHINE_OFF = 4,
    MACHINE_FAILED = 8,
    MACHINE_RESET_DONE = 16, /* of the functions */
    MACHINE_LOOK = 32,       /* nothing has, but there is something to do */
    MACHINE_PANICKED = 64,   /* the guest says so */
    MACHINE_CRASHED = 128,   /* the same, with a crash kernel */
};

/* Why vCPUs are parked: bits of st_machine.held. */
enum {
    HELD_START = 1, /* not started yet */
    HELD_PAUSE = 2,
    HELD_RESET = 4,
    HELD_END = 8, /* off, failed, not to be rebooted */
    HELD_STOP = 16,
};

/* A function of the bus. */
struct machine_function {
    struct st_pci *pci;      /* borrowed */
    struct st_pci_kvm *plug; /* owned */
    struct st_machine *machine;
    const char *name; /* borrowed */
    unsigned slot;
    struct st_access reset;
    struct st_pci_saving saving;
    bool frozen; /* and saving.blob is its (owned) */
};

/* A function of a saved machine. */
struct machine_shape_function {
    uint32_t slot;
    char name[128], kind[32];
};

/* What a saved machine must have in common with the one that it becomes. */
struct machine_shape {
    uint64_t memory;
    uint32_t cpus;
    bool noxsave, firmware;
    uint32_t tsc_khz; /* 0: not known */
    uint32_t nfunctions;
    struct machine_shape_function function[ST_MACHINE_SLOTS];
    uint32_t norder;
    uint32_t order[ST_MACHINE_SLOTS];
    uint32_t ncpuid;
    struct kvm_cpuid_entry2 cpuid[ST_KVM_CPUID_MAX]; /* as KVM's, not shaped */
};

/* The machine. The home loop's, but where it says otherwise. */
struct st_machine {
    struct st_machine_opts opts;
    struct st_kvm kvm;
    struct st_machine_ram ram;
    struct st_irq irq;
    struct st_space *ports, *memory; /* owned */
    struct st_vcpus vcpus;
    struct st_platform platform;
    struct machine_function function[ST_MACHINE_SLOTS];
    unsigned nfunctions;
    unsigned order[ST_MACHINE_SLOTS]; /* slots that firmware boots from */
    unsigned norder;

    struct st_vcpu_state *power_on; /* owned: each vCPU's */
    struct st_chips_state chips;    /* likewise */

    _Atomic unsigned happened; /* any thread */
    struct st_task task;       /* posted while anything has happened */
    _Atomic unsigned held;     /* read by any thread */
    bool firmware;             /* that is what it boots */
    bool parked;               /* the vCPUs are */
    bool resetting;            /* functions are being reset */
    bool stopped;
    _Atomic unsigned resetting_left; /* any thread */
    unsigned panics_told;      /* since the last reset: bits as of happened */
    struct st_limiter limiter; /* of what a guest can make us say for ever */
    _Atomic uint64_t resets, pauses, panics;
    struct st_list calls; /* that wait: of pause, reset, stop */

    /* Restored from: until it runs. */
    struct st_saved *from;       /* owned, or NULL */
    struct machine_shape *shape; /* owned: of it */
    int from_fd;                 /* owned, or -1 */
    bool from_waits;             /* for its functions */

    /* Saved. */
    bool frozen;
    unsigned freezing; /* functions that are not frozen yet, and one */
    int freeze_rc;     /* the first that failed */
    struct st_machine_call *freeze_call;
    struct machine_save *save; /* owned: under way */
};

/* Any thread: BITS have happened. */
void machine_happened(struct st_machine *m, unsigned bits);

/* Any thread, also a vCPU's within an access: the guest wants BIT; it does not
 * get further. */
void machine_wanted(struct st_machine *m, unsigned bit);

/* Of st_vcpus. */
void machine_parked(struct st_vcpus *g);
void machine_vcpu_ended(struct st_vcpus *g, enum st_vcpu_end end,
                        struct st_vcpu_report *r);

/* The task. */
void machine_look(struct st_task *t);

/* C gets RC, and with a text after it that sentence. */
void machine_answer(struct st_machine *m, struct st_machine_call *c, int rc);

/* ---- machine_save.c ---- */

/* Is one of its calls under way? */
bool machine_is_saving(const struct st_machine *m);

/* Functions go on, what was saved of them is forgotten. */
void machine_thaw(struct st_machine *m);

/* A save under way ends soon. */
void machine_save_cancel(struct st_machine *m);

/* ---- machine_shape.c ---- */

/* What F is. */
void machine_shape_function(const struct machine_function *f,
                            struct machine_shape_function *out);

/* What is saved of a shape. */
void machine_shape_walk(struct st_pack *k, void *shape);
enum { MACHINE_SHAPE = 1 }; /* its version */

/* What is saved of KVM's clock: a uint64_t, ns. */
void machine_clock_walk(struct st_pack *k, void *ns);

/* Are M's functions those of SHAPE? 0, or -EINVAL with a sentence. */
int machine_shape_check(const struct st_machine *m,
                        const struct machine_shape *shape, struct st_err *err);

/* The name of the section of what is in SLOT. */
void machine_section(const char *what, unsigned i, char name[ST_SAVED_NAME]);

/* ---- machine_restore.c ---- */

/* Open M's opts.restore, and make of the options what it says. 0, or -errno
 * with a sentence. */
int machine_restore_open(struct st_machine *m, struct st_err *err);

/* All but the threads, as it was saved. 0, or -errno with a sentence. */
int machine_restore(struct st_machine *m, struct st_err *err);

/* What is left of it is forgotten. */
void machine_restore_close(struct st_machine *m);

/* Everything as after power-on, and what is booted loaded. The vCPUs are
 * parked. 0 or -errno with a sentence. */
int machine_power_on(struct st_machine *m, struct st_err *err);

#endif
