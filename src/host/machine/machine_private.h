/* SPDX-License-Identifier: MIT
 *
 * What the files of the machine share.
 *
 *   machine.c   made, added to, started; inspected
 *   life.c      events of vCPUs; pause, resume, reset, stop
 *   platform.c  the devices of the board, and what is booted
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
    bool parked;               /* the vCPUs are */
    bool resetting;            /* functions are being reset */
    bool stopped;
    _Atomic unsigned resetting_left; /* any thread */
    unsigned panics_told; /* since the last reset: bits as of happened */
    _Atomic uint64_t resets, pauses, panics;
    struct st_list calls; /* that wait: of pause, reset, stop */
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

/* Everything as after power-on, and what is booted loaded. The vCPUs are
 * parked. 0 or -errno with a sentence. */
int machine_power_on(struct st_machine *m, struct st_err *err);

#endif
