/* SPDX-License-Identifier: MIT
 *
 * The firmware configuration device of QEMU, as far as SeaBIOS and OVMF use it
 * (QEMU, docs/specs/fw_cfg): what the host wants firmware to know.
 *
 *   0x510  selector, 16 bits: chooses an item, from its first byte
 *   0x511  data: the item's bytes, one after the other, then zeroes
 *   0x514  address of a request in guest memory, 64 bits, big-endian: what the
 *          data port does, in one go (DMA)
 *
 * ACPI tables are handed out in pieces, with a script: the firmware allocates
 * memory for them, and relocates and sums them up itself.
 */
#ifndef ST_FW_CFG_H
#define ST_FW_CFG_H

#include "acpi.h"
#include "address_map.h"
#include "pack.h"
#include "space.h"

struct st_fw_cfg;

enum {
    ST_FW_CFG_PORT = 0x510,
    ST_FW_CFG_FILES = 32,        /* at most */
    ST_FW_CFG_NAME = 56,         /* bytes of a name, with its end */
    ST_FW_CFG_DMA_MAX = 16 << 20 /* bytes of one request */
};

/* For a machine with CPUS processors and this RAM, on the I/O space PORTS. RAM
 * is copied, its memory borrowed until the end. 0, -EINVAL (more than 8
 * pieces), or -errno of st_space_add. */
int st_fw_cfg_create(struct st_space *ports, const struct st_guest_ram *ram,
                     unsigned nram, unsigned cpus, struct st_fw_cfg **out);

/* Takes it out of the space. NULL is fine. */
void st_fw_cfg_destroy(struct st_fw_cfg *f);

/* As after power-on. Any thread. */
void st_fw_cfg_reset(struct st_fw_cfg *f);

/* What is saved of it (saved.h), version 1: what the guest reads, not what
 * there is to be read. No vCPU runs. */
void st_fw_cfg_walk(struct st_pack *k, void *fw_cfg);

/* ---- Set-up: before a vCPU runs ---- */

/* A file of LEN bytes, which are copied. 0, -EINVAL (its name is empty or too
 * long), -EEXIST, -ENOSPC (ST_FW_CFG_FILES), -ENOMEM. */
int st_fw_cfg_add(struct st_fw_cfg *f, const char *name, const void *data,
                  size_t len);

/* The tables and their script. As st_fw_cfg_add. */
int st_fw_cfg_add_acpi(struct st_fw_cfg *f, const struct st_acpi *a);

/* The memory map, with ECAM or without. As st_fw_cfg_add. */
int st_fw_cfg_add_e820(struct st_fw_cfg *f, bool ecam);

/* What to boot from: PCI functions in N slots, in this order, and nothing else
 * before them. As st_fw_cfg_add. */
int st_fw_cfg_add_boot_order(struct st_fw_cfg *f, const unsigned *slot,
                             unsigned n);

#endif
