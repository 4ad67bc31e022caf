/* SPDX-License-Identifier: MIT
 *
 * A machine whose firmware is a few instructions: what tests of its life share.
 */
#ifndef TEST_MACHINE_RIG_H
#define TEST_MACHINE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "machine.h"

#define KVM "/dev/kvm"
#define MIB (UINT64_C(1) << 20)

enum { ROM = 64 << 10, VECTOR = 0xfff0, SECONDS = 60 };

/* cli; mov $0x3f8, %dx; mov $'A', %al; out %al, %dx; then one of these. */
static const uint8_t hello[] = {0xfa, 0xba, 0xf8, 0x03, 0xb0, 'A', 0xee};
/* jmp 0 */
static const uint8_t vector[] = {0xe9, 0x0d, 0x00};
static struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_console *console;
    struct st_machine *machine;
    struct st_machine_call call;
    int out[2];
    unsigned events[5]; /* by enum st_machine_event */
    unsigned wanted;    /* resets, until `happened` */
    bool happened, done, late, no_reboot;
    int rc;
    struct st_timer timer;
} rig;

static inline void
event(void *arg, enum st_machine_event e)
{
    (void)arg;
    rig.events[e]++;
    rig.happened |= e == ST_MACHINE_RESET      ? rig.events[e] >= rig.wanted
                    : e == ST_MACHINE_PANICKED ? rig.no_reboot
                                               : e != ST_MACHINE_CRASHED;
}

static inline void
write_rom(const uint8_t *code, size_t len, char path[64])
{
    uint8_t *rom = calloc(1, ROM);
    int fd;

    assert_non_null(rom);
    memcpy(rom, hello, sizeof(hello));
    memcpy(rom + sizeof(hello), code, len);
    memcpy(rom + VECTOR, vector, sizeof(vector));
    strcpy(path, "/tmp/test_machine.XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, rom, ROM), ROM);
    close(fd);
    free(rom);
}

/* With a loop and a console for it: as st_machine_create says. */
static inline int
make_rig(struct st_machine_opts *o, struct st_err *err)
{
    struct st_domain_opts d = {.engine = "threads"};
    struct st_console_opts c = {.in = -1, .listen = -1};

    memset(&rig, 0, sizeof(rig));
    rig.wanted = 1;
    rig.no_reboot = o->no_reboot;
    assert_int_equal(st_domain_create(&d, &rig.domain, NULL), 0);
    assert_int_equal(st_loop_create(rig.domain, &rig.loop, NULL), 0);
    assert_int_equal(pipe(rig.out), 0);
    fcntl(rig.out[0], F_SETFL, O_NONBLOCK);
    c.loop = rig.loop;
    c.out = rig.out[1];
    assert_int_equal(st_console_create(&c, &rig.console), 0);
    o->home = rig.loop;
    o->any_kvm = true;
    o->event = event;
    o->serial[0] = rig.console;
    return st_machine_create(o, &rig.machine, err);
}

static inline void
open_rig(const uint8_t *code, size_t len, unsigned cpus, bool no_reboot)
{
    char path[64];
    struct st_machine_opts o = {
        .memory = 16 * MIB, .bios = path, .cpus = cpus, .no_reboot = no_reboot};
    struct st_err err;

    write_rom(code, len, path);
    if (make_rig(&o, &err))
        fail_msg("%s", err.text);
    unlink(path);
}

static inline void
too_late(struct st_timer *t)
{
    (void)t;
    rig.late = rig.happened = rig.done = true;
}

/* Until *FLAG; not for ever. */
static inline void
wait_for(bool *flag)
{
    rig.timer.fire = too_late;
    st_timer_set(rig.loop, &rig.timer,
                 rig.loop->now + SECONDS * UINT64_C(1000000000));
    st_loop_wait(rig.loop, flag);
    st_timer_stop(rig.loop, &rig.timer);
    assert_false(rig.late);
}

static inline void
call_done(struct st_machine_call *c, int rc)
{
    (void)c;
    rig.rc = rc;
    rig.done = true;
}

static inline int
do_call(void (*call)(struct st_machine *m, struct st_machine_call *c))
{
    rig.done = false;
    rig.call.done = call_done;
    call(rig.machine, &rig.call);
    wait_for(&rig.done);
    return rig.rc;
}

static inline void
start(void)
{
    struct st_err err;

    assert_int_equal(st_machine_start(rig.machine, &err), 0);
}

static inline enum st_machine_state
state(void)
{
    struct st_machine_stats s;

    st_machine_stats(rig.machine, &s);
    return s.state;
}

/* Exits of vCPU 0 to ports. */
static inline uint64_t
io_exits(void)
{
    uint64_t n, sum = 0;
    const char *name;

    for (unsigned i = 0; (name = st_machine_exit(rig.machine, 0, i, &n)); i++)
        if (strcmp(name, "io") == 0)
            sum = n;
    return sum;
}

static inline void
nap_over(struct st_timer *t)
{
    (void)t;
    rig.done = true;
}

static inline void
nap(void)
{
    rig.done = false;
    rig.timer.fire = nap_over;
    st_timer_set(rig.loop, &rig.timer, rig.loop->now + 20000000);
    st_loop_wait(rig.loop, &rig.done);
}

static inline void
wait_for_exits(uint64_t more_than)
{
    for (unsigned i = 0; i < SECONDS * 50 && io_exits() <= more_than; i++)
        nap();
    assert_true(io_exits() > more_than);
}

/* The machine has stopped, or was never made. SAID: all that it was to say. */
static inline void
free_rig(const char *said)
{
    char text[64] = "";

    st_machine_destroy(rig.machine);
    st_console_destroy(rig.console);
    if (said) {
        ssize_t n = read(rig.out[0], text, sizeof(text) - 1);

        assert_true(n >= 0 || errno == EAGAIN);
        assert_string_equal(text, said);
    }
    close(rig.out[0]);
    close(rig.out[1]);
    st_timer_stop(rig.loop, &rig.timer);
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.domain);
}

static inline void
close_rig(const char *said)
{
    assert_int_equal(do_call(st_machine_stop), 0);
    assert_int_equal(do_call(st_machine_pause), -ESHUTDOWN);
    assert_int_equal(do_call(st_machine_stop), 0);
    free_rig(said);
}

#endif
