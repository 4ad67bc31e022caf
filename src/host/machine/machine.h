/* SPDX-License-Identifier: MIT
 *
 * A virtual machine: a PC with KVM behind it, whose disks are PCI functions.
 *
 *   home loop                     vCPU threads              I/O loops
 *   ---------                     ------------              ---------
 *   create, add functions
 *   start  ---------------------> run: exits -> ports,  --> doorbells
 *                                        memory, PCI    <-- interrupts
 *   pause, resume, reset, stop -> park
 *   event  <--------------------- power off, reset, ...
 *
 * How to embed it (as `strata run` does):
 *
 *   st_machine_create(&opts, &m, &err);    opens /dev/kvm and all files
 *   st_machine_add_pci(m, &function, &err);  for each
 *   (enter a sandbox, start the I/O loops)
 *   st_machine_start(m, &err);
 *   ... opts.event says how it ends, or somebody wants it to:
 *   st_machine_stop(m, &call);
 *   in or after its done: st_machine_destroy(m), then stop and destroy the
 *   functions' devices.
 *
 * Threads: unless said otherwise a function is the home loop's thread's, and
 * waits for nothing but files. The process gets a handler for SIGRTMIN.
 */
#ifndef ST_MACHINE_H
#define ST_MACHINE_H

#include "gmem.h"
#include "pci.h"

struct st_machine;
struct st_console;

enum {
    ST_MACHINE_CPUS_MAX = 64,
    ST_MACHINE_SERIALS = 2, /* COM1 and COM2 */
    ST_MACHINE_SLOTS = 32,  /* of the PCI bus; 0 is the host bridge */
};

enum st_machine_event {
    ST_MACHINE_OFF,    /* the guest has switched it off; it is parked */
    ST_MACHINE_RESET,  /* the guest has reset it, or has had a triple fault; it
                        * goes on by itself, or with opts.no_reboot is parked */
    ST_MACHINE_FAILED, /* KVM, or the reset, has failed; it is parked. The log
                        * has said why */
    ST_MACHINE_PANICKED, /* the guest says that it has panicked; it goes on (and
                          * may reset), or with opts.no_reboot is parked */
    ST_MACHINE_CRASHED,  /* the same, but its crash kernel comes next: it goes
                          * on in any case. Each is told once a boot */
};

/* What a machine is made of. Texts are borrowed until st_machine_create
 * returns, the rest for its life. */
struct st_machine_opts {
    struct st_loop *home;
    const struct st_log *log; /* may be NULL */
    const char *kvm;          /* NULL: "/dev/kvm" */
    bool any_kvm;    /* also one that cannot run a stock kernel: firmware may do
                      * with less */
    uint64_t memory; /* bytes */
    bool huge_pages;
    unsigned cpus;
    bool noxsave; /* the CPU has no XSAVE, nor what needs it */

    /* A machine that st_machine_save has saved: then memory, cpus, noxsave and
     * firmware are those of the file, and a kernel is only for resets: without
     * one a machine that had one is not reset, but ends. */
    const char *restore;

    /* Either a Linux kernel, a bzImage, ... */
    const char *kernel, *initrd, *cmdline; /* initrd, cmdline: may be NULL */
    const char *bios; /* ... or firmware: an image for the end of 4 GiB */

    struct st_console *serial[ST_MACHINE_SERIALS]; /* NULL: nobody's */
    bool no_reboot; /* see ST_MACHINE_RESET, ..._PANICKED */

    void (*event)(void *arg, enum st_machine_event e); /* on HOME */
    void *arg;
};

/* 0, or -errno with a sentence: -EINVAL (a file is not what it should be, or
 * memory or cpus are out of range), -ENOTSUP (KVM is not there, or not what we
 * need), -ENOMEM, or what opening a file gives. */
int st_machine_create(const struct st_machine_opts *opts,
                      struct st_machine **out, struct st_err *err);

/* Can the KVM at PATH (NULL: "/dev/kvm") run a stock kernel? 0 or -errno as
 * st_machine_create, with a sentence. It takes a moment. */
int st_machine_try_kvm(const char *path, struct st_err *err);

/* Never started, or stopped: after rc 0 of st_machine_stop. The functions'
 * hosts are no more. NULL is fine. */
void st_machine_destroy(struct st_machine *m);

/* A function for the bus. */
struct st_machine_pci {
    const char *name;     /* for the log; borrowed for the machine's life */
    struct st_pci *pci;   /* borrowed likewise; its host is set */
    struct st_gmem *gmem; /* what it does DMA to: gets the machine's memory */
    unsigned slot;        /* 1 to 31; 0: the lowest that is free */
};

/* Before the start. *SLOT (may be NULL) is what it got. 0, or with a sentence
 * -EINVAL, -EEXIST (the slot is taken), -ENOSPC (no slot is left), -ENOMEM. */
int st_machine_add_pci(struct st_machine *m, const struct st_machine_pci *f,
                       unsigned *slot, struct st_err *err);

/* Before the start, with firmware: it shall boot from the function called NAME,
 * if it cannot from those said before. 0, or with a sentence -ENOENT (no such
 * function), -ENOTSUP (no firmware), -EINVAL (too many). */
int st_machine_boot_from(struct st_machine *m, const char *name,
                         struct st_err *err);

/* Load what it boots, or what was saved, and let the vCPUs run. 0, or -errno
 * with a sentence; then it can only be stopped. The I/O loops run. With
 * opts.restore the home loop turns until the functions are what they were:
 * -EINVAL where they are not the same, by slot, name and kind. */
int st_machine_start(struct st_machine *m, struct st_err *err);

/* An asynchronous call: the caller fills done (and arg) and owns the memory
 * until done is called: once, on HOME, never before the call returns. */
struct st_machine_call {
    void (*done)(struct st_machine_call *c, int rc);
    void *arg;
    struct st_err err; /* out: of a freeze and a save, a sentence when rc < 0 */
    /* Private. */
    struct st_list link;
    struct st_task task;
    unsigned wait;
    int rc;
};

/* Park the vCPUs. rc -EBUSY: it is paused, or has ended. */
void st_machine_pause(struct st_machine *m, struct st_machine_call *c);

/* Let them run on. rc -EBUSY: it was not paused by st_machine_pause. */
void st_machine_resume(struct st_machine *m, struct st_machine_call *c);

/* One that is paused by st_machine_pause becomes still: what is under way at
 * its functions ends within TIMEOUT_NS, and they take up nothing more, until it
 * is resumed. Its disks are then what they will be for who restores it. -EBUSY
 * (it is not paused), -ENOTSUP (a function cannot be saved), -ETIMEDOUT, ... */
void st_machine_freeze(struct st_machine *m, uint64_t timeout_ns,
                       struct st_machine_call *c);

/* Save one that is frozen as PATH (copied): see saved.h for the file. It stays
 * as it is: who resumes it has a disk that goes on, too. Other calls but the
 * stop, which ends it, are -EBUSY meanwhile. -EBUSY (it is not frozen),
 * -ENOTSUP (a guest of the guest's runs), or what writing says. */
void st_machine_save(struct st_machine *m, const char *path,
                     struct st_machine_call *c);

/* As its reset button: also one that has switched itself off, or failed, starts
 * again. A pause stays. rc -EBUSY: it has not been started, or is being
 * saved; -ENOTSUP: it was restored without its kernel; or what loading what it
 * boots gives. */
void st_machine_reset(struct st_machine *m, struct st_machine_call *c);

/* Stop for good: the vCPUs end where they are, functions are touched by nobody
 * any more. Other calls get -ESHUTDOWN. */
void st_machine_stop(struct st_machine *m, struct st_machine_call *c);

/* ---- What it shows ---- */

enum st_machine_state {
    ST_MACHINE_MADE,
    ST_MACHINE_RUNS,
    ST_MACHINE_PAUSED,
    ST_MACHINE_RESETS,
    ST_MACHINE_ENDED, /* off, failed, or not to be rebooted */
    ST_MACHINE_STOPPED,
};

enum { ST_MACHINE_EXITS = 8 }; /* kinds of exits */

/* What a machine counts. */
struct st_machine_stats {
    enum st_machine_state state;
    const char *state_name; /* static */
    uint64_t memory;
    unsigned cpus;
    uint64_t resets, pauses;
    uint64_t panics; /* of the guest, that it has told; one a boot, two with a
                      * crash kernel */
    uint64_t routed; /* changes of the interrupt routes */
};

/* Any thread. */
void st_machine_stats(struct st_machine *m, struct st_machine_stats *out);

/* Exits of vCPU I by kind: how often, and what it is called (static); N of
 * them. NULL beyond. Any thread. */
const char *st_machine_exit(struct st_machine *m, unsigned cpu, unsigned i,
                            uint64_t *count);

/* Tell F of each range of ports (or of memory) that is a device's: what it is,
 * where, and how often it was accessed. Any thread. */
void st_machine_regions(struct st_machine *m, bool ports,
                        void (*f)(void *arg, const char *name, uint64_t start,
                                  uint64_t size, uint64_t accesses),
                        void *arg);

/* What a function's place on the bus counts. */
struct st_machine_pci_stats {
    unsigned slot;
    uint64_t accesses; /* exits to its BARs */
    uint64_t sent;     /* interrupts by eventfd */
    uint64_t slow;     /* interrupts by a call of KVM */
    uint64_t lines;    /* changes of INTA */
};

/* False: PCI is not on M's bus. Any thread. */
bool st_machine_pci_stats(struct st_machine *m, const struct st_pci *pci,
                          struct st_machine_pci_stats *out);

#endif
