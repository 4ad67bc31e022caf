/* SPDX-License-Identifier: MIT
 *
 * Power management; see pm.h.
 */
#include "pm.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "byte_ports.h"

enum { /* offsets of bytes */
       PM_STATUS = 0,
       PM_ENABLE = 2,
       PM_CONTROL = 4,
       PM_TIMER = 8,
       PM_SIZE = 12
};

enum {
    STATUS_TIMER = 1 << 0,
    CONTROL_SCI_ENABLE = 1 << 0,
    CONTROL_SLEEP_TYPE = 7 << 10,
    CONTROL_SLEEP = 1 << 13, /* reads 0 */
    CONTROL_WRITABLE = CONTROL_SLEEP_TYPE | 1 << 1,
    ENABLE_WRITABLE = 0x0721
};

enum { RESET_WRITABLE = 0x0e, RESET_CPU = 1 << 2 };

struct st_pm {
    struct st_region region;
    struct st_space *ports; /* borrowed */
    const struct st_pm_ops *ops;
    void *arg;
    pthread_mutex_t lock; /* all below */
    uint16_t status, enable, control;
    uint8_t reset_control;
    uint64_t ahead; /* of the host's clock, ns: it was saved elsewhere */
    uint32_t timer; /* as of this access */
    uint32_t seen;  /* the timer, when its carry was looked at */
    bool level;     /* of the SCI */
    bool off;       /* power-off was asked for, in this access */
};

/* ---- The timer ---- */

static uint32_t
ticks(uint64_t ns)
{
    uint64_t second = UINT64_C(1000000000);

    return (uint32_t)(ns / second * ST_PM_TIMER_HZ +
                      ns % second * ST_PM_TIMER_HZ / second);
}

static uint64_t
now(const struct st_pm *p)
{
    return p->ops->now_ns(p->arg) + p->ahead;
}

/* Look at the clock: the status bit is set when the highest bit changed. */
static void
update_timer(struct st_pm *p)
{
    p->timer = ticks(now(p));
    if ((p->timer ^ p->seen) >> 31)
        p->status |= STATUS_TIMER;
    p->seen = p->timer;
}

/* ---- Registers ---- */

static void
update_line(struct st_pm *p)
{
    bool level = p->status & p->enable & ~STATUS_TIMER;

    if (level != p->level) {
        p->level = level;
        p->ops->line(p->arg, level);
    }
}

static uint8_t
pm_read(void *device, unsigned offset)
{
    struct st_pm *p = device;
    unsigned shift = 8 * (offset & 1);

    if (offset < PM_ENABLE)
        return (uint8_t)(p->status >> shift);
    if (offset < PM_CONTROL)
        return (uint8_t)(p->enable >> shift);
    if (offset < PM_CONTROL + 2)
        return (uint8_t)(p->control >> shift);
    if (offset >= PM_TIMER)
        return (uint8_t)(p->timer >> 8 * (offset - PM_TIMER));
    return 0;
}

static void
pm_write(void *device, unsigned offset, uint8_t value)
{
    struct st_pm *p = device;
    uint16_t bits = (uint16_t)(value << 8 * (offset & 1));
    uint16_t mask = (uint16_t)(0xff << 8 * (offset & 1));

    if (offset < PM_ENABLE) {
        p->status &= (uint16_t)~bits;
    } else if (offset < PM_CONTROL) {
        mask &= ENABLE_WRITABLE;
        p->enable = (uint16_t)((p->enable & ~mask) | (bits & mask));
    } else if (offset < PM_CONTROL + 2) {
        mask &= CONTROL_WRITABLE;
        p->control = (uint16_t)((p->control & ~mask) | (bits & mask));
        if (bits & CONTROL_SLEEP &&
            (p->control & CONTROL_SLEEP_TYPE) == ST_PM_S5 << 10)
            p->off = true;
    }
}

static bool
pm_access(struct st_region *r, struct st_access *a)
{
    static const struct st_byte_ports ports = {pm_read, pm_write};
    struct st_pm *p = r->arg;
    bool off;

    pthread_mutex_lock(&p->lock);
    update_timer(p);
    st_byte_ports_access(&ports, p, a);
    update_line(p);
    off = p->off;
    p->off = false;
    pthread_mutex_unlock(&p->lock);
    if (off)
        p->ops->power_off(p->arg);
    return true;
}

static const struct st_region_ops pm_ops = {"pm", pm_access};

uint8_t
st_pm_reset_control_read(struct st_pm *p)
{
    uint8_t value;

    pthread_mutex_lock(&p->lock);
    value = p->reset_control;
    pthread_mutex_unlock(&p->lock);
    return value;
}

void
st_pm_reset_control_write(struct st_pm *p, uint8_t value)
{
    bool reset;

    pthread_mutex_lock(&p->lock);
    reset = value & ~p->reset_control & RESET_CPU; /* the edge counts */
    p->reset_control = value & RESET_WRITABLE;
    pthread_mutex_unlock(&p->lock);
    if (reset)
        p->ops->reset(p->arg);
}

/* ---- The host's side ---- */

static void
power_on(struct st_pm *p)
{
    p->status = p->enable = 0;
    p->control = CONTROL_SCI_ENABLE;
    p->reset_control = 0;
    p->seen = ticks(now(p));
}

int
st_pm_create(struct st_space *ports, const struct st_pm_ops *ops, void *arg,
             struct st_pm **out)
{
    struct st_pm *p = calloc(1, sizeof(*p));
    int rc;

    if (!p)
        return -ENOMEM;
    p->region = (struct st_region){
        .ops = &pm_ops, .arg = p, .start = ST_PM_EVENT, .size = PM_SIZE};
    p->ports = ports;
    p->ops = ops;
    p->arg = arg;
    pthread_mutex_init(&p->lock, NULL);
    power_on(p);
    rc = st_space_add(ports, &p->region);
    if (rc < 0) {
        pthread_mutex_destroy(&p->lock);
        free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void
st_pm_destroy(struct st_pm *p)
{
    if (!p)
        return;
    st_space_remove(p->ports, &p->region);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void
st_pm_walk(struct st_pack *k, void *pm)
{
    struct st_pm *p = pm;
    uint64_t time;

    pthread_mutex_lock(&p->lock);
    time = now(p);
    st_pack_u16(k, &p->status);
    st_pack_u16(k, &p->enable);
    st_pack_u16(k, &p->control);
    st_pack_u8(k, &p->reset_control);
    st_pack_u32(k, &p->seen);
    st_pack_u64(k, &time);
    if (k->reading) {
        p->enable &= ENABLE_WRITABLE;
        p->control =
            (uint16_t)((p->control & CONTROL_WRITABLE) | CONTROL_SCI_ENABLE);
        p->reset_control &= RESET_WRITABLE;
        p->ahead += time - now(p); /* it stood still */
        update_line(p);
    }
    pthread_mutex_unlock(&p->lock);
}

void
st_pm_reset(struct st_pm *p)
{
    pthread_mutex_lock(&p->lock);
    power_on(p);
    update_line(p);
    pthread_mutex_unlock(&p->lock);
}
