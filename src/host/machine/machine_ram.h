/* SPDX-License-Identifier: MIT
 *
 * The machine's memory: RAM, and the firmware's ROM (private to the room).
 *
 *   guest  0        0xa0000   0xc0000      low      ..4 GiB  4 GiB     high
 *          | part 0 |  hole   |  part 1    |  hole  |  ROM   | part 2  |
 *   file   0        0xa0000   0xc0000      low               low       size
 *
 * RAM is one anonymous file (memfd) of the size of RAM: other processes can map
 * it. The hole below 1 MiB, where a PC has its VGA, wastes 128 KiB of it. Low
 * memory ends at 3 GiB at most.
 */
#ifndef ST_MACHINE_RAM_H
#define ST_MACHINE_RAM_H

#include "gmem.h"
#include "kvm.h"

enum { ST_MACHINE_RAM_PARTS = 3 };

#define ST_MACHINE_RAM_MIN      (UINT64_C(16) << 20)
#define ST_MACHINE_RAM_MAX      (UINT64_C(1) << 40)
#define ST_MACHINE_RAM_LOW_MAX  UINT64_C(0xc0000000)
#define ST_MACHINE_RAM_HIGH     (UINT64_C(1) << 32)
#define ST_MACHINE_RAM_ROM_MAX  (UINT64_C(16) << 20)
#define ST_MACHINE_RAM_PAGE     UINT64_C(4096)
#define ST_MACHINE_RAM_HUGEPAGE (UINT64_C(2) << 20)

/* A piece of RAM. */
struct st_machine_ram_part {
    uint64_t gpa, len, offset; /* bytes; offset in the file */
    uint8_t *host;
};

/* The memory of a machine. */
struct st_machine_ram {
    int fd;        /* owned */
    uint64_t size; /* bytes of RAM */
    uint64_t low;  /* of these, below 4 GiB */
    uint8_t *host; /* the file, mapped */
    struct st_machine_ram_part part[ST_MACHINE_RAM_PARTS];
    unsigned parts;
    uint8_t *rom; /* owned: mapped to end at 4 GiB; NULL: none */
    uint64_t rom_size;
    bool huge;
};

/* SIZE bytes of RAM (ST_MACHINE_RAM_MIN to ST_MACHINE_RAM_MAX, whole pages of 2
 * MiB), of huge pages if HUGE. 0, or -errno with a sentence: -EINVAL, -ENOMEM.
 */
int st_machine_ram_create(uint64_t size, bool huge, struct st_machine_ram *r,
                          struct st_err *err);

/* Nobody uses it any more. Accepts what failed to be created, and zeroes with
 * an fd of -1. */
void st_machine_ram_destroy(struct st_machine_ram *r);

/* IMAGE is firmware: LEN bytes, whole pages, at most ST_MACHINE_RAM_ROM_MAX. It
 * is copied. 0 or -ENOMEM. Before st_machine_ram_plug. */
int st_machine_ram_set_rom(struct st_machine_ram *r, const void *image,
                           uint64_t len);

/* What a machine's memory is at power-on: RAM zeroed, and with a ROM, the last
 * 128 KiB of it at 0xe0000. No vCPU runs. */
int st_machine_ram_clear(struct st_machine_ram *r);

/* Show it to the guest. 0 or -errno. */
int st_machine_ram_plug(const struct st_machine_ram *r, const struct st_kvm *k);

/* Show the RAM to devices that do DMA to G. 0 or what st_gmem_map says. */
int st_machine_ram_share(const struct st_machine_ram *r, struct st_gmem *g);

/* The host address of the guest's [GPA, GPA + LEN), or NULL: not all of it is
 * RAM of one part. */
void *st_machine_ram_at(const struct st_machine_ram *r, uint64_t gpa,
                        uint64_t len);

#endif
