/* SPDX-License-Identifier: MIT
 *
 * A guest's garbage, for a machine that must bear it. The seed replays it.
 *
 *   havoc ports SEED                  each port, but for a few: a write of 1, 2
 *                                     or 4 bytes; some are read, too
 *   havoc memory SEED START LENGTH    physical addresses: the same, a write in
 *                                     each 4 bytes of them
 *   havoc config SEED FILE ROUNDS     a function's configuration space: writes
 *                                     of 1, 2 or 4 bytes at any offset
 *   havoc bars SEED FILE ROUNDS       BARs 0 and 1 and what they decode: to
 *                                     where others are, to nowhere, and back
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <unistd.h>

enum { COMMAND = 4, BAR0 = 0x10, CONFIG = 256, EXTENDED = 4096 };

static uint64_t state;

/* xorshift64* */
static uint32_t
garbage(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * UINT64_C(2685821657736338717)) >> 32);
}

/* What somebody might think of: all zeroes, all ones, or anything. */
static uint32_t
value(void)
{
    switch (garbage() % 4) {
    case 0:
        return 0;
    case 1:
        return UINT32_MAX;
    default:
        return garbage();
    }
}

/* Ports that end the guest by what they are for, or its way to who judges. */
static bool
is_wanted(unsigned port)
{
    static const uint16_t range[][2] = {
        {0x60, 0x64},   /* keyboard: reset */
        {0x8f, 0x92},   /* system control: reset */
        {0x2f5, 0x2ff}, /* the second serial port */
        {0xcf9, 0xcf9}, /* reset control */
        {0x5fd, 0x60b}, /* ACPI: power-off */
    };

    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++)
        if (port >= range[i][0] && port <= range[i][1])
            return true;
    return false;
}

static int
ports(void)
{
    if (iopl(3) < 0) {
        perror("iopl");
        return 1;
    }
    for (unsigned p = 0; p < 0x10000; p++) {
        uint32_t v = value();

        if (is_wanted(p))
            continue;
        /* The last ones are not wider: the CPU itself refuses that. */
        switch (p + 4 > 0x10000 ? 0 : garbage() % 3) {
        case 0:
            outb((uint8_t)v, (uint16_t)p);
            break;
        case 1:
            outw((uint16_t)v, (uint16_t)p);
            break;
        default:
            outl(v, (uint16_t)p);
            break;
        }
        if (garbage() % 8 == 0 && p + 4 <= 0x10000)
            inl((uint16_t)p);
    }
    return 0;
}

static int
memory(uint64_t start, size_t length)
{
    int fd = open("/dev/mem", O_RDWR | O_SYNC);
    volatile uint8_t *m;

    if (fd < 0) {
        perror("/dev/mem");
        return 1;
    }
    m = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
             (off_t)start);
    if (m == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    for (size_t at = 0; at + 8 <= length; at += 4) {
        uint32_t v = value();

        switch (garbage() % 4) {
        case 0:
            m[at + garbage() % 4] = (uint8_t)v;
            break;
        case 1:
            *(volatile uint16_t *)(m + at + garbage() % 3) = (uint16_t)v;
            break;
        case 2:
            *(volatile uint32_t *)(m + at) = v;
            break;
        default:
            *(volatile uint64_t *)(m + at) = (uint64_t)value() << 32 | v;
            break;
        }
        if (garbage() % 8 == 0)
            (void)*(volatile uint32_t *)(m + at);
    }
    close(fd);
    return 0;
}

static int
config(const char *path, unsigned rounds)
{
    int fd = open(path, O_RDWR);

    if (fd < 0) {
        perror(path);
        return 1;
    }
    for (unsigned i = 0; i < rounds; i++) {
        size_t len = (size_t)1 << garbage() % 3;
        off_t at = garbage() % (i % 2 ? CONFIG : EXTENDED);
        uint32_t v = value();

        /* The last bytes may be none: that is fine. */
        if (pwrite(fd, &v, len, at & ~(off_t)(len - 1)) < 0)
            continue;
    }
    close(fd);
    return 0;
}

/* To the addresses of RAM, of interrupt controllers, of firmware, of ECAM and
 * of nothing. */
static int
bars(const char *path, unsigned rounds)
{
    static const uint32_t to[] = {0,          0x00100000, 0xe0000000,
                                  0xf0000000, 0xfe000000, 0xfec00000,
                                  0xfee00000, 0xffff0000, UINT32_MAX};
    int fd = open(path, O_RDWR);
    uint32_t was[2], command;

    if (fd < 0 || pread(fd, was, sizeof(was), BAR0) != sizeof(was) ||
        pread(fd, &command, sizeof(command), COMMAND) != sizeof(command)) {
        perror(path);
        return 1;
    }
    command &= 0xffff; /* status: ones clear */
    for (unsigned i = 0; i < rounds; i++) {
        uint32_t low = to[garbage() % (sizeof(to) / sizeof(to[0]))];
        uint32_t high = garbage() % 2 ? was[1] : value();
        uint32_t off = garbage() % 4 ? command : command & ~2u;

        if (pwrite(fd, &off, 2, COMMAND) != 2 ||
            pwrite(fd, &low, 4, BAR0) != 4 ||
            pwrite(fd, &high, 4, BAR0 + 4) != 4 ||
            (usleep(500), pwrite(fd, was, sizeof(was), BAR0)) != sizeof(was) ||
            pwrite(fd, &command, 2, COMMAND) != 2) {
            perror(path);
            return 1;
        }
        usleep(500);
    }
    close(fd);
    return 0;
}

int
main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    state = argc > 2 ? strtoull(argv[2], NULL, 0) | 1 : 1;
    if (argc == 3 && !strcmp(what, "ports"))
        return ports();
    if (argc == 5 && !strcmp(what, "memory"))
        return memory(strtoull(argv[3], NULL, 0), strtoul(argv[4], NULL, 0));
    if (argc == 5 && !strcmp(what, "config"))
        return config(argv[3], (unsigned)strtoul(argv[4], NULL, 0));
    if (argc == 5 && !strcmp(what, "bars"))
        return bars(argv[3], (unsigned)strtoul(argv[4], NULL, 0));
    fprintf(stderr, "usage: havoc ports SEED\n"
                    "       havoc memory SEED START LENGTH\n"
                    "       havoc config|bars SEED FILE ROUNDS\n");
    return 2;
}
