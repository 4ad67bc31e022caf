/* SPDX-License-Identifier: MIT
 *
 * Where everything is in the guest's address space, and what of it is RAM.
 *
 *   0 .............. 0x9fc00       RAM         | below 1 MiB, also RAM, but of
 *   0x9fc00 ........ 0xa0000       BIOS data   | these only the first is the
 *   0xa0000 ........ 0xc0000       nothing     | guest's
 *   0xe0000 ........ 0x100000      BIOS or ACPI
 *   0x100000 ....... top           RAM, at most to 0xc0000000
 *   0xe0000000 ..... 0xe0100000    ECAM: PCI configuration space
 *   0xf0000000 ..... 0xfec00000    PCI window
 *   0xfec00000, 0xfee00000         IOAPIC, local APICs
 *   0xfffbc000 ..... 0xfffc0000    KVM's own
 *   below 4 GiB                    firmware
 *   4 GiB .......... top           RAM, what is left
 *   beyond                         64-bit PCI window
 */
#ifndef ST_ADDRESS_MAP_H
#define ST_ADDRESS_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ST_MAP_EBDA = 0x9fc00,       /* end of conventional memory */
    ST_MAP_LEGACY = 0xa0000,     /* no RAM for the guest from here ... */
    ST_MAP_BIOS = 0xe0000,       /* what a guest searches for tables */
    ST_MAP_HIGH = 0x100000,      /* ... to here */
    ST_MAP_LOW_MAX = 0xc0000000, /* RAM below 4 GiB ends here at the latest */
    ST_MAP_ECAM = 0xe0000000,
    ST_MAP_ECAM_SIZE = 0x100000, /* of one bus: there are no bridges */
    ST_MAP_PCI = 0xf0000000,
    ST_MAP_PCI_END = 0xfec00000,
    ST_MAP_IOAPIC = 0xfec00000,
    ST_MAP_LAPIC = 0xfee00000,
    ST_MAP_4G = 0x100000000,
};

/* The 64-bit PCI window: from the first multiple of its size above RAM. */
enum { ST_MAP_PCI64_SIZE = 0x800000000 /* 32 GiB */ };

/* A piece of guest memory, and where it lies in ours. Lists of them are by
 * address, and disjoint; one begins at 0, and one holds all that is between
 * 1 MiB and the end of RAM below 4 GiB. */
struct st_guest_ram {
    uint64_t gpa, len;
    uint8_t *host; /* borrowed */
};

/* The host's address of [GPA, GPA + LEN), or NULL when it is not within one of
 * the N pieces. */
uint8_t *st_guest_ram_at(const struct st_guest_ram *ram, unsigned n,
                         uint64_t gpa, uint64_t len);

/* Where RAM below 4 GiB ends, and how much is above. */
uint64_t st_guest_ram_low(const struct st_guest_ram *ram, unsigned n);
uint64_t st_guest_ram_above_4g(const struct st_guest_ram *ram, unsigned n);

/* Where the 64-bit PCI window begins. */
uint64_t st_map_pci64(const struct st_guest_ram *ram, unsigned n);

enum { ST_E820_RAM = 1, ST_E820_RESERVED = 2, ST_E820_MAX = 16 };

/* One line of what a guest is told of its memory (ACPI 6.5, table 15.4). */
struct st_e820 {
    uint64_t gpa, len;
    uint32_t type;
};

/* Fill OUT with what N pieces of RAM mean; ECAM: that is reserved, too. Returns
 * how many lines there are. N is at most 8. */
unsigned st_e820(const struct st_guest_ram *ram, unsigned n, bool ecam,
                 struct st_e820 out[static ST_E820_MAX]);

#endif
