/* SPDX-License-Identifier: MIT
 *
 * Direct boot of a Linux kernel: a bzImage by its 64-bit entry (Linux,
 * Documentation/x86/boot.rst).
 *
 *   0x500    GDT                 | 0x20000   command line
 *   0x7000   zero page           | 0xe0000   ACPI tables, by others
 *   0x9000   page tables: 4 GiB  | load      kernel, at its preferred address
 *            as they are         | top       initrd, as high as it may be
 */
#ifndef ST_BOOT_LINUX_H
#define ST_BOOT_LINUX_H

#include "address_map.h"
#include "err.h"

/* A regular file, open for reading. */
struct st_boot_file {
    int fd;           /* borrowed */
    const char *name; /* borrowed; for sentences */
};

/* What shall be booted; all is borrowed. */
struct st_boot_linux {
    const struct st_guest_ram *ram; /* zeroed where it matters */
    unsigned nram;
    const struct st_e820 *e820; /* what the guest is told of it */
    unsigned ne820;
    struct st_boot_file kernel;
    const struct st_boot_file *initrd; /* NULL: none */
    const char *cmdline;
};

/* A segment register: base 0, limit 4 GiB, present, for ring 0. */
struct st_boot_segment {
    uint16_t selector;
    uint8_t type;        /* with the accessed bit */
    bool long_mode, big; /* L and D/B */
};

/* The first processor's registers; those that are not here are 0. */
struct st_boot_regs {
    uint64_t rip, rsp, rsi, rflags;
    uint64_t cr0, cr3, cr4, efer;
    uint64_t gdt_base;
    uint16_t gdt_limit;
    struct st_boot_segment code, data; /* DS, ES, FS, GS and SS are DATA */
};

/* Check the files, and that all fits; nothing is written. 0 or -errno as
 * st_boot_linux, with a sentence. Blocks on the files. */
int st_boot_linux_check(const struct st_boot_linux *b, struct st_err *err);

/* Check the files, write all that the kernel needs into guest memory, and fill
 * REGS. 0; or -EINVAL (no kernel that can be booted so, or does not fit), or
 * -errno of reading, with a sentence. Blocks on the files. */
int st_boot_linux(const struct st_boot_linux *b, struct st_boot_regs *regs,
                  struct st_err *err);

#endif
