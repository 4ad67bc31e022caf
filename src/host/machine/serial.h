/* SPDX-License-Identifier: MIT
 *
 * A serial port: a 16550A, of the National Semiconductor data sheet PC16550D,
 * with a wire that takes no time.
 *
 *   host --> receive --> input queue --> receive FIFO (16) --> guest
 *   guest --> transmit FIFO (16) --> send --> host
 *
 * Bytes leave as soon as they are written, unless the host says that it has no
 * room: then the FIFO fills, and the guest's driver waits as it would for a
 * slow line. Bytes that arrive wait in the queue, which the guest can neither
 * see nor clear. Out 2 does not gate the interrupt, as it does not on other
 * virtual machines. Registers that belong to speed and parity are kept and
 * change nothing.
 */
#ifndef ST_SERIAL_H
#define ST_SERIAL_H

#include <stddef.h>

#include "pack.h"
#include "space.h"

struct st_serial;

enum {
    ST_SERIAL_COM1 = 0x3f8, /* the first port's address and interrupt */
    ST_SERIAL_COM1_IRQ = 4,
    ST_SERIAL_QUEUE = 1024 /* bytes of input that wait for the guest */
};

/* What a serial port asks of its host. All are called under the port's lock, on
 * any thread: nothing may wait, nor come back to the port. */
struct st_serial_ops {
    /* The interrupt line is now at LEVEL. */
    void (*line)(void *arg, bool level);
    /* Send BYTE. False: no room; st_serial_writable says when there is. */
    bool (*send)(void *arg, uint8_t byte);
    /* Optional: the input queue was full, and has room again. */
    void (*room)(void *arg);
};

/* What it counts; any thread may read it. */
struct st_serial_stats {
    uint64_t sent, received;
    uint64_t dropped; /* written by the guest while the FIFO was full */
    uint64_t overrun; /* received in loop-back while the FIFO was full */
};

/* A port at BASE of the I/O space PORTS. OPS is borrowed until the end. 0, or
 * -errno of st_space_add. */
int st_serial_create(struct st_space *ports, uint16_t base,
                     const struct st_serial_ops *ops, void *arg,
                     struct st_serial **out);

/* Takes it out of the space. NULL is fine. */
void st_serial_destroy(struct st_serial *s);

/* As after power-on. Input that waits stays. */
void st_serial_reset(struct st_serial *s);

/* What is saved of it (saved.h), version 1, with what waits in either
 * direction. No vCPU runs. */
void st_serial_walk(struct st_pack *k, void *serial);

/* LEN bytes have come for the guest. Returns how many of them it takes; the
 * others can come again after room. Any thread. */
size_t st_serial_receive(struct st_serial *s, const uint8_t *data, size_t len);

/* There is room after send said that there was none. Any thread. */
void st_serial_writable(struct st_serial *s);

/* What was counted until now. Any thread. */
void st_serial_stats(struct st_serial *s, struct st_serial_stats *out);

#endif
