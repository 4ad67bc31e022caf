/* SPDX-License-Identifier: MIT
 *
 * Fuzz: any file as a kernel. The first two bytes say how long the initrd is
 * (in 64 bytes; 0: none), the next two how long the command line; the rest is
 * the kernel. What is booted lies within memory, and apart from each other.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot_linux.h"
#include "range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAM = 8 << 20, GUARD = 1 << 20 };

static uint32_t
get32(const uint8_t *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

/* What was booted is what the kernel counts on. */
static void
look(const uint8_t *ram, const struct st_boot_regs *regs, size_t initrd)
{
    const uint8_t *zero = ram + regs->rsi;
    uint64_t load = regs->rip - 0x200, init = get32(zero + 0x260);
    uint64_t at = get32(zero + 0x218), len = get32(zero + 0x21c);

    if (!st_range_ok(load, init, RAM) || load < 1 << 20 || len != initrd)
        abort();
    if (len && (at < 1 << 20 || !st_range_ok(at, len, RAM) ||
                st_range_overlap(load, init, at, len)))
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *ram;
    static int kernel = -1, initrd = -1;
    struct st_guest_ram piece = {.len = RAM};
    struct st_e820 e820[ST_E820_MAX];
    struct st_boot_file file = {.name = "initrd"};
    struct st_boot_linux boot = {.ram = &piece, .nram = 1, .e820 = e820};
    struct st_boot_regs regs;
    struct st_err err = {""};
    size_t initrd_len;
    char *cmdline;

    if (size < 4)
        return 0;
    if (!ram) {
        kernel = memfd_create("kernel", MFD_CLOEXEC);
        initrd = memfd_create("initrd", MFD_CLOEXEC);
        ram = mmap(NULL, RAM + GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
        if (mprotect(ram, RAM, PROT_READ | PROT_WRITE) < 0)
            abort();
    }
    cmdline = calloc(1, 65536);
    initrd_len = (size_t)(data[0] | data[1] << 8) * 64;
    if (!cmdline || ftruncate(kernel, 0) < 0 ||
        pwrite(kernel, data + 4, size - 4, 0) != (ssize_t)(size - 4) ||
        ftruncate(initrd, (off_t)initrd_len) < 0)
        abort();
    memset(cmdline, 'c', data[2] | data[3] << 8);
    piece.host = ram;
    file.fd = initrd;
    boot.kernel = (struct st_boot_file){kernel, "kernel"};
    boot.initrd = initrd_len ? &file : NULL;
    boot.cmdline = cmdline;
    boot.ne820 = st_e820(&piece, 1, true, e820);
    if (st_boot_linux(&boot, &regs, &err) == 0)
        look(ram, &regs, initrd_len);
    else if (!*err.text)
        abort(); /* every failure has its sentence */
    madvise(ram, RAM, MADV_DONTNEED);
    free(cmdline);
    return 0;
}
