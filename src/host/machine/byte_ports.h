/* SPDX-License-Identifier: MIT
 *
 * Accesses to devices whose registers are single bytes: a longer access reaches
 * its neighbours too, from the lowest up, as on an eight-bit bus.
 */
#ifndef ST_BYTE_PORTS_H
#define ST_BYTE_PORTS_H

#include "space.h"

/* What such a device does. */
struct st_byte_ports {
    uint8_t (*read)(void *device, unsigned offset);
    void (*write)(void *device, unsigned offset, uint8_t value);
};

/* Carry out A on DEVICE, byte by byte. */
static inline void
st_byte_ports_access(const struct st_byte_ports *ports, void *device,
                     struct st_access *a)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < a->len; i++) {
        unsigned offset = (unsigned)a->offset + i;

        if (a->write)
            ports->write(device, offset, (uint8_t)(a->value >> 8 * i));
        else
            value |= (uint64_t)ports->read(device, offset) << 8 * i;
    }
    if (!a->write)
        a->value = value;
}

#endif
