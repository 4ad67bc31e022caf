/* SPDX-License-Identifier: MIT
 *
 * A board without KVM, for tests and fuzzers: its devices on their spaces, a
 * clock that is set by hand, lines that are looked at.
 */
#ifndef TEST_BOARD_H
#define TEST_BOARD_H

#include <stdlib.h>
#include <string.h>

#include "cmos.h"
#include "fw_cfg.h"
#include "misc.h"
#include "pci_host.h"
#include "pm.h"
#include "pvpanic.h"
#include "saved.h"
#include "serial.h"

enum { BOARD_RAM = 1 << 20, BOARD_SAVED = 6 };

struct board {
    struct st_space *ports, *memory;
    struct st_serial *serial;
    struct st_cmos *cmos;
    struct st_pm *pm;
    struct st_pci_bus *bus;
    struct st_misc *misc;
    struct st_pvpanic *pvpanic;
    struct st_fw_cfg *cfg;
    uint8_t *ram;      /* borrowed: BOARD_RAM bytes */
    uint64_t ns, step; /* the time; how much it goes on when it is asked for */
    bool level;        /* of the serial port's line */
    bool full;         /* the host has no room for serial output */
    char sent[64];
    unsigned nsent;
};

static inline void
board_line(void *arg, bool level)
{
    struct board *b = arg;

    if (level == b->level)
        abort(); /* only changes are told */
    b->level = level;
}

static inline void
board_no_line(void *arg, bool level)
{
    (void)arg;
    (void)level;
}

static inline bool
board_send(void *arg, uint8_t byte)
{
    struct board *b = arg;

    if (!b->full)
        b->sent[b->nsent++ % sizeof(b->sent)] = (char)byte;
    return !b->full;
}

static inline void
board_nothing(void *arg)
{
    (void)arg;
}

static inline void
board_no_byte(void *arg, uint8_t byte)
{
    (void)arg;
    (void)byte;
}

static inline void
board_no_panic(void *arg, bool goes_on)
{
    (void)arg;
    (void)goes_on;
}

static inline uint64_t
board_now(void *arg)
{
    struct board *b = arg;

    return b->ns += b->step;
}

/* B is zeroed but for ram and time. */
static inline void
board_make(struct board *b)
{
    static const struct st_serial_ops serial = {board_line, board_send,
                                                board_nothing};
    static const struct st_pm_ops pm = {board_no_line, board_nothing,
                                        board_nothing, board_now};
    static const struct st_pvpanic_ops pvpanic = {board_no_panic};
    static const struct st_misc_ops misc = {board_nothing, board_no_byte};
    const struct st_cmos_options cmos = {
        .ram_low = BOARD_RAM, .cpus = 1, .now_ns = board_now, .arg = b};
    const struct st_guest_ram ram = {0, BOARD_RAM, b->ram};

    if (st_space_create(0x10000, &b->ports) < 0 ||
        st_space_create(UINT64_MAX, &b->memory) < 0 ||
        st_serial_create(b->ports, ST_SERIAL_COM1, &serial, b, &b->serial) <
            0 ||
        st_cmos_create(b->ports, &cmos, &b->cmos) < 0 ||
        st_pm_create(b->ports, &pm, b, &b->pm) < 0 ||
        st_misc_create(b->ports, &misc, b, &b->misc) < 0 ||
        st_pvpanic_create(b->ports, &pvpanic, b, &b->pvpanic) < 0 ||
        st_fw_cfg_create(b->ports, &ram, 1, 1, &b->cfg) < 0 ||
        st_fw_cfg_add_e820(b->cfg, true) < 0 ||
        st_pci_bus_create(b->ports, b->memory, b->pm, &b->bus) < 0)
        abort();
}

static inline void
board_unmake(struct board *b)
{
    st_pci_bus_destroy(b->bus);
    st_fw_cfg_destroy(b->cfg);
    st_pvpanic_destroy(b->pvpanic);
    st_misc_destroy(b->misc);
    st_pm_destroy(b->pm);
    st_cmos_destroy(b->cmos);
    st_serial_destroy(b->serial);
    st_space_destroy(b->memory);
    st_space_destroy(b->ports);
}

static inline void
board_reset(struct board *b)
{
    st_serial_reset(b->serial);
    st_cmos_reset(b->cmos);
    st_pm_reset(b->pm);
    st_misc_reset(b->misc);
    st_fw_cfg_reset(b->cfg);
    st_pci_bus_reset(b->bus);
}

/* What is saved of it. */
static inline void
board_saved(struct board *b, struct st_saved_device out[BOARD_SAVED])
{
    const struct st_saved_device all[BOARD_SAVED] = {
        {"serial 0", 1, st_serial_walk, b->serial},
        {"pm", 1, st_pm_walk, b->pm},
        {"pci", 1, st_pci_bus_walk, b->bus},
        {"cmos", 1, st_cmos_walk, b->cmos},
        {"misc", 1, st_misc_walk, b->misc},
        {"fw_cfg", 1, st_fw_cfg_walk, b->cfg},
    };

    memcpy(out, all, sizeof(all));
}

#endif
