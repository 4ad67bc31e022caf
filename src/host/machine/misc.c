/* SPDX-License-Identifier: MIT
 *
 * Ports of a PC that are no device worth the name; see misc.h.
 */
#include "misc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "byte_ports.h"

enum { PORTS = 6 };

enum {
    KEYBOARD_COMMAND = 0x64,
    KEYBOARD_PULSE_RESET = 0xfe,
    SYSTEM_A = 0x92,
    SYSTEM_A_RESET = 1,
    SYSTEM_A_A20 = 2,
    SYSTEM_B = 0x61,
    SYSTEM_B_WRITABLE = 0x0f,
    SYSTEM_B_REFRESH = 0x10,
    POST = 0x80,
    DEBUG = 0x402,
    DEBUG_HERE = 0xe9
};

struct st_misc {
    struct st_region region[PORTS];
    struct st_space *ports; /* borrowed */
    const struct st_misc_ops *ops;
    void *arg;
    pthread_mutex_t lock; /* all below */
    uint8_t system_a, system_b, post;
    bool reset; /* was asked for, in this access */
};

static uint8_t
misc_read(struct st_misc *m, unsigned port)
{
    switch (port) {
    case SYSTEM_A:
        return m->system_a;
    case SYSTEM_B:
        m->system_b ^= SYSTEM_B_REFRESH;
        return m->system_b;
    case POST:
        return m->post;
    case DEBUG:
        return DEBUG_HERE;
    default: /* no key, and room for a command */
        return 0;
    }
}

static void
misc_write(struct st_misc *m, unsigned port, uint8_t value)
{
    switch (port) {
    case KEYBOARD_COMMAND:
        m->reset |= value == KEYBOARD_PULSE_RESET;
        break;
    case SYSTEM_A:
        m->reset |= value & ~m->system_a & SYSTEM_A_RESET;
        m->system_a = value | SYSTEM_A_A20;
        break;
    case SYSTEM_B:
        m->system_b = (uint8_t)((m->system_b & ~SYSTEM_B_WRITABLE) |
                                (value & SYSTEM_B_WRITABLE));
        break;
    case POST:
        m->post = value;
        break;
    case DEBUG:
        m->ops->debug(m->arg, value);
        break;
    default:
        break;
    }
}

/* Each is one port: a longer access was split before. */
static bool
misc_access(struct st_region *r, struct st_access *a)
{
    struct st_misc *m = r->arg;
    bool reset;

    pthread_mutex_lock(&m->lock);
    if (a->write)
        misc_write(m, (unsigned)r->start, (uint8_t)a->value);
    else
        a->value = misc_read(m, (unsigned)r->start);
    reset = m->reset;
    m->reset = false;
    pthread_mutex_unlock(&m->lock);
    if (reset)
        m->ops->reset(m->arg);
    return true;
}

static const struct st_region_ops misc_ops[PORTS] = {
    {"keyboard data", misc_access}, {"keyboard", misc_access},
    {"system a", misc_access},      {"system b", misc_access},
    {"post", misc_access},          {"debug", misc_access}};

static const uint16_t misc_port[PORTS] = {
    0x60, KEYBOARD_COMMAND, SYSTEM_A, SYSTEM_B, POST, DEBUG};

int
st_misc_create(struct st_space *ports, const struct st_misc_ops *ops, void *arg,
               struct st_misc **out)
{
    struct st_misc *m = calloc(1, sizeof(*m));
    int rc = 0;

    if (!m)
        return -ENOMEM;
    m->ports = ports;
    m->ops = ops;
    m->arg = arg;
    m->system_a = SYSTEM_A_A20;
    pthread_mutex_init(&m->lock, NULL);
    for (unsigned i = 0; rc == 0 && i < PORTS; i++) {
        m->region[i] = (struct st_region){
            .ops = &misc_ops[i], .arg = m, .start = misc_port[i], .size = 1};
        if (misc_port[i] != DEBUG || ops->debug)
            rc = st_space_add(ports, &m->region[i]);
    }
    if (rc < 0) {
        st_misc_destroy(m);
        return rc;
    }
    *out = m;
    return 0;
}

void
st_misc_destroy(struct st_misc *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < PORTS; i++)
        st_space_remove(m->ports, &m->region[i]);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

void
st_misc_reset(struct st_misc *m)
{
    pthread_mutex_lock(&m->lock);
    m->system_a = SYSTEM_A_A20;
    m->system_b = 0;
    m->post = 0;
    pthread_mutex_unlock(&m->lock);
}

void
st_misc_walk(struct st_pack *k, void *misc)
{
    struct st_misc *m = misc;

    pthread_mutex_lock(&m->lock);
    st_pack_u8(k, &m->system_a);
    st_pack_u8(k, &m->system_b);
    st_pack_u8(k, &m->post);
    m->system_a |= SYSTEM_A_A20;
    m->system_b &= SYSTEM_B_WRITABLE | SYSTEM_B_REFRESH;
    pthread_mutex_unlock(&m->lock);
}

uint8_t
st_misc_post_code(struct st_misc *m)
{
    uint8_t value;

    pthread_mutex_lock(&m->lock);
    value = m->post;
    pthread_mutex_unlock(&m->lock);
    return value;
}
