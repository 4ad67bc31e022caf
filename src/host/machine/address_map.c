/* SPDX-License-Identifier: MIT
 *
 * What of the address space is RAM; see address_map.h.
 */
#include "address_map.h"

#include <assert.h>

#include "range.h"

uint8_t *
st_guest_ram_at(const struct st_guest_ram *ram, unsigned n, uint64_t gpa,
                uint64_t len)
{
    for (unsigned i = 0; i < n; i++)
        if (gpa >= ram[i].gpa && st_range_ok(gpa - ram[i].gpa, len, ram[i].len))
            return ram[i].host + (gpa - ram[i].gpa);
    return NULL;
}

uint64_t
st_guest_ram_low(const struct st_guest_ram *ram, unsigned n)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < n; i++)
        if (ram[i].gpa < ST_MAP_LOW_MAX)
            end = ram[i].gpa + ram[i].len;
    return end;
}

uint64_t
st_guest_ram_above_4g(const struct st_guest_ram *ram, unsigned n)
{
    uint64_t len = 0;

    for (unsigned i = 0; i < n; i++)
        if (ram[i].gpa >= ST_MAP_4G)
            len += ram[i].len;
    return len;
}

uint64_t
st_map_pci64(const struct st_guest_ram *ram, unsigned n)
{
    uint64_t end = ST_MAP_4G;

    for (unsigned i = 0; i < n; i++)
        end = st_max(end, ram[i].gpa + ram[i].len);
    return st_align_up(end, ST_MAP_PCI64_SIZE);
}

static void
add(struct st_e820 *out, unsigned *n, uint64_t from, uint64_t to, uint32_t type)
{
    if (to <= from)
        return;
    assert(*n < ST_E820_MAX);
    out[(*n)++] = (struct st_e820){from, to - from, type};
}

unsigned
st_e820(const struct st_guest_ram *ram, unsigned n, bool ecam,
        struct st_e820 out[static ST_E820_MAX])
{
    uint64_t low = st_guest_ram_low(ram, n);
    unsigned lines = 0;

    assert(n <= 8);
    add(out, &lines, 0, st_min(low, ST_MAP_EBDA), ST_E820_RAM);
    add(out, &lines, ST_MAP_EBDA, ST_MAP_LEGACY, ST_E820_RESERVED);
    add(out, &lines, ST_MAP_BIOS, ST_MAP_HIGH, ST_E820_RESERVED);
    add(out, &lines, ST_MAP_HIGH, low, ST_E820_RAM);
    if (ecam)
        add(out, &lines, ST_MAP_ECAM, ST_MAP_ECAM + ST_MAP_ECAM_SIZE,
            ST_E820_RESERVED);
    for (unsigned i = 0; i < n; i++)
        if (ram[i].gpa >= ST_MAP_4G)
            add(out, &lines, ram[i].gpa, ram[i].gpa + ram[i].len, ST_E820_RAM);
    return lines;
}
