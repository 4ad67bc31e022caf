/* SPDX-License-Identifier: MIT
 *
 * The machine's ACPI tables (ACPI 6.5, 5.2 and 6), made from its options.
 *
 *   RSDP --> XSDT --> FADT --> DSDT, FACS
 *                 |-> MADT
 *                 '-> MCFG (with ECAM)
 *
 * They are made as one block in which a pointer is an offset. For direct boot
 * st_acpi_place puts it into guest memory; for a BIOS fw_cfg hands it out with
 * a script that says the same to the firmware.
 */
#ifndef ST_ACPI_H
#define ST_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the tables shall say. */
struct st_acpi_options {
    unsigned cpus;  /* 1 to 64; their APIC ids are 0 and up */
    bool ecam;      /* configuration space at ST_MAP_ECAM */
    bool vmbus;     /* a VMBus device */
    uint64_t pci64; /* where the 64-bit PCI window begins; 0: none */
};

enum {
    ST_ACPI_TABLES = 8,    /* at most */
    ST_ACPI_POINTERS = 16, /* at most */
    ST_ACPI_ALIGN = 64,    /* of the block */
    ST_ACPI_RSDP = 36      /* bytes */
};

/* The tables, not yet at an address. */
struct st_acpi {
    uint8_t rsdp[ST_ACPI_RSDP]; /* its pointer, at 24, is an offset in data */
    uint8_t *data;              /* owned */
    size_t len;
    /* Where in data a pointer of SIZE bytes is: an offset in data, too. */
    struct {
        uint32_t at;
        uint8_t size;
    } pointer[ST_ACPI_POINTERS];
    unsigned pointers;
    /* What sums up to 0 by the byte at start + 9; that is 0 now. */
    struct {
        uint32_t start, len;
    } table[ST_ACPI_TABLES];
    unsigned tables;
};

/* 0 or -ENOMEM. */
int st_acpi_build(const struct st_acpi_options *opts, struct st_acpi *out);

/* Accepts zeroes. */
void st_acpi_free(struct st_acpi *a);

/* How many bytes st_acpi_place writes. */
size_t st_acpi_size(const struct st_acpi *a);

/* Write all of it to TO, which is GPA in the guest, a multiple of
 * ST_ACPI_ALIGN below 4 GiB: the RSDP first. */
void st_acpi_place(const struct st_acpi *a, uint64_t gpa, uint8_t *to);

#endif
