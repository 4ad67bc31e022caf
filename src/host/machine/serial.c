/* SPDX-License-Identifier: MIT
 *
 * The 16550A; see serial.h. Interrupts, by priority (PC16550D, table IV):
 *
 *   line status      IER 2   an overrun; until LSR is read
 *   received data    IER 0   the FIFO holds as much as its trigger, or
 * (timeout) anything at all: the time-out is over at once transmitter      IER
 * 1   `empty_told`: set when the FIFO becomes empty, or IER 1 goes on while it
 * is; until IIR says so, or the next byte is written modem status     IER 3   a
 * line has changed; until MSR is read
 *
 * IRQ 4 is taken by its edge. So a byte that is written lowers the line before
 * the empty FIFO raises it again.
 */
#include "serial.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "byte_ports.h"

enum { /* registers; the first two are the divisor's while LCR.DLAB is set */
       DATA,
       IER,
       IIR_FCR,
       LCR,
       MCR,
       LSR,
       MSR,
       SCRATCH,
       REGISTERS
};

enum { IER_DATA = 1, IER_EMPTY = 2, IER_LINE = 4, IER_MODEM = 8 };

enum { /* what IIR says */
       IIR_MODEM = 0x00,
       IIR_NONE = 0x01,
       IIR_EMPTY = 0x02,
       IIR_DATA = 0x04,
       IIR_LINE = 0x06,
       IIR_TIMEOUT = 0x0c,
       IIR_FIFO = 0xc0
};

enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_DATA = 0x01, LSR_OVERRUN = 0x02, LSR_EMPTY = 0x60 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

enum { FIFO = 16 };

struct fifo {
    uint8_t byte[FIFO];
    unsigned first, n;
};

struct st_serial {
    struct st_region region;
    struct st_space *ports; /* borrowed */
    const struct st_serial_ops *ops;
    void *arg;
    pthread_mutex_t lock; /* all below */
    uint8_t ier, fcr, lcr, mcr, msr, scratch;
    uint8_t divisor[2];
    bool overrun, empty_told;
    bool level; /* of the line */
    struct fifo rx, tx;
    uint8_t queue[ST_SERIAL_QUEUE];
    unsigned queue_first, queued;
    bool was_full;
    struct st_serial_stats stats;
};

/* ---- FIFOs ---- */

static void
fifo_put(struct fifo *f, uint8_t byte)
{
    f->byte[(f->first + f->n++) % FIFO] = byte;
}

static uint8_t
fifo_get(struct fifo *f)
{
    uint8_t byte = f->byte[f->first];

    f->first = (f->first + 1) % FIFO;
    f->n--;
    return byte;
}

/* Without FIFO mode there is one holding register each way. */
static unsigned
fifo_depth(const struct st_serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned
rx_trigger(const struct st_serial *s)
{
    static const uint8_t level[] = {1, 4, 8, 14};

    return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

/* ---- Interrupts ---- */

static uint8_t
pending(const struct st_serial *s)
{
    if (s->ier & IER_LINE && s->overrun)
        return IIR_LINE;
    if (s->ier & IER_DATA && s->rx.n)
        return s->rx.n >= rx_trigger(s) ? IIR_DATA : IIR_TIMEOUT;
    if (s->ier & IER_EMPTY && s->empty_told)
        return IIR_EMPTY;
    if (s->ier & IER_MODEM && s->msr & 0x0f)
        return IIR_MODEM;
    return IIR_NONE;
}

static void
update_line(struct st_serial *s)
{
    bool level = pending(s) != IIR_NONE;

    if (level != s->level) {
        s->level = level;
        s->ops->line(s->arg, level);
    }
}

/* ---- Bytes ---- */

/* What waits goes to the guest, unless the wire is looped back. */
static void
refill(struct st_serial *s)
{
    while (s->queued && s->rx.n < fifo_depth(s) && !(s->mcr & MCR_LOOP)) {
        fifo_put(&s->rx, s->queue[s->queue_first]);
        s->queue_first = (s->queue_first + 1) % ST_SERIAL_QUEUE;
        s->queued--;
        s->stats.received++;
    }
    if (s->was_full && s->queued < ST_SERIAL_QUEUE / 2) {
        s->was_full = false;
        if (s->ops->room)
            s->ops->room(s->arg);
    }
}

/* Send what the host takes. */
static void
drain(struct st_serial *s)
{
    bool any = s->tx.n > 0;

    while (s->tx.n) {
        if (!s->ops->send(s->arg, s->tx.byte[s->tx.first]))
            break;
        fifo_get(&s->tx);
        s->stats.sent++;
    }
    if (any && !s->tx.n)
        s->empty_told = true;
}

static void
transmit(struct st_serial *s, uint8_t byte)
{
    s->empty_told = false;
    update_line(s);
    if (s->mcr & MCR_LOOP) {
        if (s->rx.n < fifo_depth(s)) {
            fifo_put(&s->rx, byte);
        } else {
            s->overrun = true;
            s->stats.overrun++;
        }
        s->empty_told = true;
    } else if (s->tx.n < fifo_depth(s)) {
        fifo_put(&s->tx, byte);
        drain(s);
    } else {
        s->stats.dropped++;
    }
}

/* ---- Modem lines ---- */

/* The state of the four inputs: a terminal that is there, or our own outputs
 * when looped back. */
static uint8_t
modem_inputs(const struct st_serial *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) |
                     (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                     (s->mcr & MCR_OUT1 ? MSR_RI : 0) |
                     (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* Bits 0, 1 and 3 say what has changed, bit 2 that the bell stopped. */
static void
update_modem(struct st_serial *s)
{
    uint8_t now = modem_inputs(s), changed = (now ^ s->msr) & 0xf0;

    if (now & MSR_RI)
        changed &= (uint8_t)~MSR_RI;
    s->msr = (uint8_t)(now | (s->msr & 0x0f) | changed >> 4);
}

/* ---- Registers ---- */

static uint8_t
serial_read(void *device, unsigned offset)
{
    struct st_serial *s = device;
    uint8_t value;

    switch (offset) {
    case DATA:
        if (s->lcr & LCR_DLAB)
            return s->divisor[0];
        value = s->rx.n ? fifo_get(&s->rx) : 0;
        refill(s);
        return value;
    case IER:
        return s->lcr & LCR_DLAB ? s->divisor[1] : s->ier;
    case IIR_FCR:
        value = pending(s);
        if (value == IIR_EMPTY)
            s->empty_told = false;
        return value | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
    case LCR:
        return s->lcr;
    case MCR:
        return s->mcr;
    case LSR:
        value = (uint8_t)((s->rx.n ? LSR_DATA : 0) |
                          (s->overrun ? LSR_OVERRUN : 0) |
                          (s->tx.n ? 0 : LSR_EMPTY));
        s->overrun = false;
        return value;
    case MSR:
        value = s->msr;
        s->msr &= 0xf0;
        return value;
    default:
        return s->scratch;
    }
}

static void
write_fcr(struct st_serial *s, uint8_t value)
{
    bool toggled = (value ^ s->fcr) & FCR_ENABLE;

    /* Other bits count only while the FIFO is on; a change empties both. */
    s->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    if (toggled || value & FCR_CLEAR_RX)
        s->rx.n = 0;
    if ((toggled || value & FCR_CLEAR_TX) && s->tx.n) {
        s->stats.dropped += s->tx.n;
        s->tx.n = 0;
        s->empty_told = true;
    }
    refill(s);
}

static void
serial_write(void *device, unsigned offset, uint8_t value)
{
    struct st_serial *s = device;

    switch (offset) {
    case DATA:
        if (s->lcr & LCR_DLAB)
            s->divisor[0] = value;
        else
            transmit(s, value);
        break;
    case IER:
        if (s->lcr & LCR_DLAB) {
            s->divisor[1] = value;
            break;
        }
        if (value & ~s->ier & IER_EMPTY && !s->tx.n)
            s->empty_told = true;
        s->ier = value & 0x0f;
        break;
    case IIR_FCR:
        write_fcr(s, value);
        break;
    case LCR:
        s->lcr = value;
        break;
    case MCR:
        s->mcr = value & 0x1f;
        update_modem(s);
        refill(s);
        break;
    case SCRATCH:
        s->scratch = value;
        break;
    default: /* LSR and MSR are read-only */
        break;
    }
}

static bool
serial_access(struct st_region *r, struct st_access *a)
{
    static const struct st_byte_ports ports = {serial_read, serial_write};
    struct st_serial *s = r->arg;

    pthread_mutex_lock(&s->lock);
    st_byte_ports_access(&ports, s, a);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
    return true;
}

static const struct st_region_ops serial_ops = {"serial", serial_access};

/* ---- The host's side ---- */

static void
power_on(struct st_serial *s)
{
    s->ier = s->fcr = s->lcr = s->mcr = s->scratch = 0;
    s->divisor[0] = 12; /* 9600 */
    s->divisor[1] = 0;
    s->msr = modem_inputs(s);
    s->overrun = s->empty_told = false;
    s->rx.n = s->tx.n = 0;
}

int
st_serial_create(struct st_space *ports, uint16_t base,
                 const struct st_serial_ops *ops, void *arg,
                 struct st_serial **out)
{
    struct st_serial *s = calloc(1, sizeof(*s));
    int rc;

    if (!s)
        return -ENOMEM;
    s->region = (struct st_region){
        .ops = &serial_ops, .arg = s, .start = base, .size = REGISTERS};
    s->ports = ports;
    s->ops = ops;
    s->arg = arg;
    pthread_mutex_init(&s->lock, NULL);
    power_on(s);
    rc = st_space_add(ports, &s->region);
    if (rc < 0) {
        pthread_mutex_destroy(&s->lock);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void
st_serial_destroy(struct st_serial *s)
{
    if (!s)
        return;
    st_space_remove(s->ports, &s->region);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void
st_serial_reset(struct st_serial *s)
{
    pthread_mutex_lock(&s->lock);
    power_on(s);
    refill(s);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

size_t
st_serial_receive(struct st_serial *s, const uint8_t *data, size_t len)
{
    size_t n = 0;

    pthread_mutex_lock(&s->lock);
    while (n < len && s->queued < ST_SERIAL_QUEUE) {
        unsigned at = (s->queue_first + s->queued++) % ST_SERIAL_QUEUE;

        s->queue[at] = data[n++];
    }
    refill(s);
    s->was_full |= n < len;
    update_line(s);
    pthread_mutex_unlock(&s->lock);
    return n;
}

void
st_serial_writable(struct st_serial *s)
{
    pthread_mutex_lock(&s->lock);
    drain(s);
    update_line(s);
    pthread_mutex_unlock(&s->lock);
}

static void
walk_fifo(struct st_pack *k, struct fifo *f)
{
    uint32_t first = f->first, n = f->n;

    st_pack_bytes(k, f->byte, sizeof(f->byte));
    st_pack_count(k, &first, FIFO - 1);
    st_pack_count(k, &n, FIFO);
    f->first = first;
    f->n = n;
}

static void
walk_queue(struct st_pack *k, struct st_serial *s)
{
    uint32_t first = s->queue_first, n = s->queued;

    st_pack_bytes(k, s->queue, sizeof(s->queue));
    st_pack_count(k, &first, ST_SERIAL_QUEUE - 1);
    st_pack_count(k, &n, ST_SERIAL_QUEUE);
    st_pack_flag(k, &s->was_full);
    s->queue_first = first;
    s->queued = n;
}

void
st_serial_walk(struct st_pack *k, void *serial)
{
    struct st_serial *s = serial;

    pthread_mutex_lock(&s->lock);
    st_pack_u8(k, &s->ier);
    st_pack_u8(k, &s->fcr);
    st_pack_u8(k, &s->lcr);
    st_pack_u8(k, &s->mcr);
    st_pack_u8(k, &s->msr);
    st_pack_u8(k, &s->scratch);
    st_pack_bytes(k, s->divisor, sizeof(s->divisor));
    st_pack_flag(k, &s->overrun);
    st_pack_flag(k, &s->empty_told);
    walk_fifo(k, &s->rx);
    walk_fifo(k, &s->tx);
    walk_queue(k, s);
    if (k->reading) {
        drain(s);
        update_line(s);
    }
    pthread_mutex_unlock(&s->lock);
}

void
st_serial_stats(struct st_serial *s, struct st_serial_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}
