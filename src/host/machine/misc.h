/* SPDX-License-Identifier: MIT
 *
 * Ports of a PC that are no device worth the name:
 *
 *   0x60, 0x64   keyboard controller: none but for its reset line, which is how
 *                most systems try to reboot
 *   0x61         system control B: the bit that toggles with refresh; KVM's own
 *                PIT is before it
 *   0x80         where firmware says how far it is
 *   0x92         system control A: the other reset line; A20 is always on
 *   0x402        debug console of firmware: what is written is text
 */
#ifndef ST_MISC_H
#define ST_MISC_H

#include "pack.h"
#include "space.h"

struct st_misc;

/* What they ask of their host; any vCPU's thread, and nothing may wait. */
struct st_misc_ops {
    void (*reset)(void *arg);
    /* Optional: a byte of firmware's debug output. Under a lock: may not come
     * back. NULL: the console is not there, and firmware is faster. */
    void (*debug)(void *arg, uint8_t byte);
};

/* On the I/O space PORTS. OPS is borrowed until the end. 0, or -errno of
 * st_space_add. */
int st_misc_create(struct st_space *ports, const struct st_misc_ops *ops,
                   void *arg, struct st_misc **out);

/* Takes them out of the space. NULL is fine. */
void st_misc_destroy(struct st_misc *m);

/* As after power-on. Any thread. */
void st_misc_reset(struct st_misc *m);

/* What is saved of it (saved.h), version 1. No vCPU runs. */
void st_misc_walk(struct st_pack *k, void *misc);

/* What was written to port 0x80 last. Any thread. */
uint8_t st_misc_post_code(struct st_misc *m);

#endif
