/* SPDX-License-Identifier: MIT
 *
 * Fuzz: any use of the firmware configuration device. The input is steps, the
 * first byte of each says which:
 *
 *   0  a write: port, length, 8 bytes of value     2  a request for DMA, put at
 *   1  a read: port, length                           a page (1 byte): 16 bytes
 *   3  a file: length, then its name, which is its content, too
 *   else: a reset
 *
 * What a read gives is what the file holds, and a request only changes memory
 * where it says.
 */
#include <stdlib.h>
#include <string.h>

#include "fw_cfg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LOW = 0xa0000, TOP = 0x8000 };

struct input {
    const uint8_t *at, *end;
};

static unsigned
next(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static void
bytes(struct input *in, uint8_t *to, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = (uint8_t)next(in);
}

static struct st_access
access_of(struct input *in, bool write)
{
    static const uint8_t lens[] = {1, 2, 4, 8};
    struct st_access a = {.offset = ST_FW_CFG_PORT + next(in) % 12u,
                          .len = lens[next(in) & 3],
                          .write = write};

    if (write)
        bytes(in, (uint8_t *)&a.value, a.len);
    return a;
}

static void
add_file(struct st_fw_cfg *f, struct input *in)
{
    char name[256] = "";
    unsigned len = next(in);

    bytes(in, (uint8_t *)name, len);
    if (st_fw_cfg_add(f, name, name, len) == 0 &&
        (!*name || strlen(name) >= ST_FW_CFG_NAME))
        abort();
}

static void
request(struct st_space *ports, struct input *in, uint8_t *low)
{
    unsigned at = next(in) << 8;
    struct st_access high = {
        .offset = ST_FW_CFG_PORT + 4, .len = 4, .write = true};
    struct st_access a = {.offset = ST_FW_CFG_PORT + 8,
                          .len = 4,
                          .write = true,
                          .value = __builtin_bswap32(at)};

    bytes(in, low + at, 16);
    if (!st_space_access(ports, &high) || !st_space_access(ports, &a))
        abort();
    if (low[at] || low[at + 1] || low[at + 2] || low[at + 3] > 1)
        abort(); /* the answer is 0 or an error */
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct st_acpi_options opts = {.cpus = 2, .ecam = true};
    static uint8_t *low, *top;
    struct input in = {data, data + size};
    struct st_guest_ram ram[2];
    struct st_space *ports;
    struct st_fw_cfg *f;
    struct st_acpi acpi;

    if (!low) {
        low = malloc(LOW);
        top = malloc(TOP);
    }
    if (!low || !top)
        abort();
    ram[0] = (struct st_guest_ram){0, LOW, low};
    ram[1] = (struct st_guest_ram){ST_MAP_4G, TOP, top};
    if (st_space_create(0x10000, &ports) < 0 ||
        st_fw_cfg_create(ports, ram, 2, 2, &f) < 0 ||
        st_acpi_build(&opts, &acpi) < 0 || st_fw_cfg_add_acpi(f, &acpi) < 0 ||
        st_fw_cfg_add_e820(f, true) < 0 ||
        st_fw_cfg_add_boot_order(f, (const unsigned[]){3}, 1) < 0)
        abort();
    while (in.at < in.end) {
        unsigned what = next(&in);
        struct st_access a;

        switch (what) {
        case 0:
        case 1:
            a = access_of(&in, what == 0);
            st_space_access(ports, &a);
            break;
        case 2:
            request(ports, &in, low);
            break;
        case 3:
            add_file(f, &in);
            break;
        default:
            st_fw_cfg_reset(f);
        }
    }
    st_acpi_free(&acpi);
    st_fw_cfg_destroy(f);
    st_space_destroy(ports);
    return 0;
}
