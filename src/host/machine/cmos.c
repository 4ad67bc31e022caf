/* SPDX-License-Identifier: MIT
 *
 * Clock and CMOS; see cmos.h.
 *
 *   0 .. 9    seconds, alarm, minutes, alarm, hours, alarm, day of the week,
 *             day, month, year; 0x32: century
 *   A .. D    registers A to D
 *   E ..      memory, see fill_memory
 *
 * The time is not in these bytes while it runs: it is computed when they are
 * read. While SET of register B is on it stands still, and is in the bytes.
 */
#include "cmos.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "address_map.h"
#include "byte_ports.h"
#include "range.h"

enum {
    SECONDS = 0,
    MINUTES = 2,
    HOURS = 4,
    WEEKDAY = 6,
    DAY = 7,
    MONTH = 8,
    YEAR = 9,
    REG_A = 0x0a,
    REG_B = 0x0b,
    REG_C = 0x0c,
    REG_D = 0x0d,
    CENTURY = 0x32,
    BYTES = 128
};

enum {
    A_UPDATING = 0x80,
    A_RESET = 0x26, /* 32768 Hz, 1024 Hz */
    B_24_HOURS = 0x02,
    B_BINARY = 0x04,
    B_INTERRUPTS = 0x70,
    B_SET = 0x80,
    C_UPDATED = 0x10,
    D_VALID = 0x80,
    HOURS_PM = 0x80
};

/* An update begins so long before the second is over. */
#define UPDATE_NS UINT64_C(244000)
#define SECOND_NS UINT64_C(1000000000)

/* Seconds: more than the years that CMOS has. */
#define AHEAD_MAX (INT64_C(400000) * 365 * 86400)

struct st_cmos {
    struct st_region region;
    struct st_space *ports; /* borrowed */
    struct st_cmos_options opts;
    pthread_mutex_t lock; /* all below */
    uint8_t index;
    uint8_t byte[BYTES];
    int64_t ahead;   /* of the host's time, seconds */
    int64_t updated; /* the second when register C was read */
};

/* ---- Time ---- */

static int64_t
now(const struct st_cmos *c)
{
    return (int64_t)(c->opts.now_ns(c->opts.arg) / SECOND_NS) + c->ahead;
}

static bool
is_time(unsigned i)
{
    return i == SECONDS || i == MINUTES || i == HOURS ||
           (i >= WEEKDAY && i <= YEAR) || i == CENTURY;
}

/* A number as register B wants it, and back. */
static uint8_t
encode(const struct st_cmos *c, int n)
{
    return (uint8_t)(c->byte[REG_B] & B_BINARY ? n : n / 10 << 4 | n % 10);
}

static int
decode(const struct st_cmos *c, uint8_t v)
{
    return c->byte[REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t
encode_hours(const struct st_cmos *c, int hour)
{
    if (c->byte[REG_B] & B_24_HOURS)
        return encode(c, hour);
    return encode(c, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOURS_PM : 0);
}

static int
decode_hours(const struct st_cmos *c, uint8_t v)
{
    if (c->byte[REG_B] & B_24_HOURS)
        return decode(c, v);
    return decode(c, v & ~HOURS_PM) % 12 + (v & HOURS_PM ? 12 : 0);
}

/* Write the time into its bytes. */
static void
time_to_bytes(struct st_cmos *c)
{
    time_t t = (time_t)now(c);
    struct tm tm;
    uint8_t *b = c->byte;

    if (!gmtime_r(&t, &tm))
        return;
    b[SECONDS] = encode(c, tm.tm_sec);
    b[MINUTES] = encode(c, tm.tm_min);
    b[HOURS] = encode_hours(c, tm.tm_hour);
    b[WEEKDAY] = encode(c, tm.tm_wday + 1);
    b[DAY] = encode(c, tm.tm_mday);
    b[MONTH] = encode(c, tm.tm_mon + 1);
    b[YEAR] = encode(c, tm.tm_year % 100);
    b[CENTURY] = encode(c, (tm.tm_year + 1900) / 100);
}

/* The guest has set the time. What cannot be is taken as mktime does. */
static void
time_from_bytes(struct st_cmos *c)
{
    const uint8_t *b = c->byte;
    struct tm tm = {.tm_sec = decode(c, b[SECONDS]),
                    .tm_min = decode(c, b[MINUTES]),
                    .tm_hour = decode_hours(c, b[HOURS]),
                    .tm_mday = decode(c, b[DAY]),
                    .tm_mon = decode(c, b[MONTH]) - 1,
                    .tm_year = decode(c, b[CENTURY]) * 100 +
                               decode(c, b[YEAR]) - 1900};

    c->ahead += (int64_t)timegm(&tm) - now(c);
}

static bool
is_updating(const struct st_cmos *c)
{
    return !(c->byte[REG_B] & B_SET) &&
           c->opts.now_ns(c->opts.arg) % SECOND_NS >= SECOND_NS - UPDATE_NS;
}

/* ---- Registers ---- */

static uint8_t
read_data(struct st_cmos *c)
{
    unsigned i = c->index;
    uint8_t value;

    switch (i) {
    case REG_A:
        return c->byte[i] | (is_updating(c) ? A_UPDATING : 0);
    case REG_C:
        value = now(c) != c->updated ? C_UPDATED : 0;
        c->updated = now(c);
        return value;
    case REG_D:
        return D_VALID;
    default:
        if (is_time(i) && !(c->byte[REG_B] & B_SET))
            time_to_bytes(c);
        return c->byte[i];
    }
}

static void
write_data(struct st_cmos *c, uint8_t value)
{
    unsigned i = c->index;
    bool set = c->byte[REG_B] & B_SET;

    switch (i) {
    case REG_A:
        c->byte[i] = value & ~A_UPDATING;
        break;
    case REG_B:
        if (value & B_SET && !set)
            time_to_bytes(c);
        else if (!(value & B_SET) && set)
            time_from_bytes(c);
        c->byte[i] = value;
        break;
    case REG_C:
    case REG_D:
        break; /* read-only */
    default:
        if (is_time(i) && !set)
            time_to_bytes(c);
        c->byte[i] = value;
        if (is_time(i) && !set)
            time_from_bytes(c);
    }
}

static uint8_t
cmos_read(void *device, unsigned offset)
{
    return offset ? read_data(device) : 0xff; /* the index is write-only */
}

static void
cmos_write(void *device, unsigned offset, uint8_t value)
{
    struct st_cmos *c = device;

    if (offset)
        write_data(c, value);
    else
        c->index = value & (BYTES - 1); /* the highest bit masks NMIs */
}

static bool
cmos_access(struct st_region *r, struct st_access *a)
{
    static const struct st_byte_ports ports = {cmos_read, cmos_write};
    struct st_cmos *c = r->arg;

    pthread_mutex_lock(&c->lock);
    st_byte_ports_access(&ports, c, a);
    pthread_mutex_unlock(&c->lock);
    return true;
}

static const struct st_region_ops cmos_ops = {"cmos", cmos_access};

/* ---- Made and freed ---- */

/* LEN bytes at I: VALUE, or as much as fits. */
static void
put(struct st_cmos *c, unsigned i, unsigned len, uint64_t value)
{
    value = st_min(value, (UINT64_C(1) << 8 * len) - 1);
    for (unsigned k = 0; k < len; k++)
        c->byte[i + k] = (uint8_t)(value >> 8 * k);
}

/* What PC firmware has looked for since the AT, and SeaBIOS does. */
static void
fill_memory(struct st_cmos *c)
{
    const struct st_cmos_options *o = &c->opts;
    uint64_t extended = o->ram_low - st_min(o->ram_low, ST_MAP_HIGH);
    uint64_t above_16m = o->ram_low - st_min(o->ram_low, 16 << 20);

    c->byte[REG_A] = A_RESET;
    c->byte[REG_B] = B_24_HOURS;
    put(c, 0x10, 1, o->floppies);
    /* Equipment: a coprocessor, and how many floppy drives. */
    put(c, 0x14, 1,
        0x02u | (o->floppies ? 0x01u : 0) | (o->floppies & 0x0f ? 0x40u : 0));
    put(c, 0x15, 2, 640);
    put(c, 0x17, 2, extended >> 10);
    put(c, 0x30, 2, extended >> 10);
    put(c, 0x34, 2, above_16m >> 16);
    put(c, 0x3d, 1, o->boot[0] | o->boot[1] << 4);
    put(c, 0x38, 1, o->boot[2] << 4 | 1); /* without a floppy signature */
    put(c, 0x5b, 3, o->ram_above_4g >> 16);
    put(c, 0x5f, 1, o->cpus - 1);
}

int
st_cmos_create(struct st_space *ports, const struct st_cmos_options *opts,
               struct st_cmos **out)
{
    struct st_cmos *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return -ENOMEM;
    c->region = (struct st_region){
        .ops = &cmos_ops, .arg = c, .start = ST_CMOS_PORT, .size = 2};
    c->ports = ports;
    c->opts = *opts;
    pthread_mutex_init(&c->lock, NULL);
    fill_memory(c);
    c->updated = now(c);
    rc = st_space_add(ports, &c->region);
    if (rc < 0) {
        pthread_mutex_destroy(&c->lock);
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void
st_cmos_destroy(struct st_cmos *c)
{
    if (!c)
        return;
    st_space_remove(c->ports, &c->region);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void
st_cmos_walk(struct st_pack *k, void *cmos)
{
    struct st_cmos *c = cmos;
    uint32_t index;

    pthread_mutex_lock(&c->lock);
    index = c->index;
    st_pack_count(k, &index, BYTES - 1);
    st_pack_bytes(k, c->byte, sizeof(c->byte));
    st_pack_i64(k, &c->ahead);
    st_pack_i64(k, &c->updated);
    c->index = (uint8_t)index;
    if (c->ahead < -AHEAD_MAX || c->ahead > AHEAD_MAX) {
        k->bad = true;
        c->ahead = 0;
    }
    pthread_mutex_unlock(&c->lock);
}

void
st_cmos_reset(struct st_cmos *c)
{
    pthread_mutex_lock(&c->lock);
    c->index = 0;
    c->byte[REG_B] &= (uint8_t)~B_INTERRUPTS;
    pthread_mutex_unlock(&c->lock);
}
