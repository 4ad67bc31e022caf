/* SPDX-License-Identifier: MIT
 *
 * What the kernel says of block devices, by netlink (spec: disk.md 8.2).
 *
 *   kernel --> socket --> watch on the home loop --> parse --> ears of that
 *                                                              device
 *
 * One listener a home loop, made by its first block device; it ends with the
 * loop. Ears come and go on any thread. Without a listener (netlink is denied,
 * a virtual domain) a device keeps its size until somebody asks for another.
 */
#ifndef ST_UEVENT_H
#define ST_UEVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "list.h"
#include "loop.h"

/* What a message says, as far as it matters here; a mask. */
enum {
    UEVENT_RESIZE = 1,  /* ACTION=change, RESIZE=1 */
    UEVENT_MEDIA = 2,   /* ACTION=change, DISK_MEDIA_CHANGE=1 */
    UEVENT_REMOVED = 4, /* ACTION=remove */
};

/* What one message of the kernel says. */
struct uevent {
    unsigned what; /* 0: nothing that matters */
    uint32_t major, minor;
};

/* Parse the LEN bytes of one message: a header "ACTION@DEVPATH", then strings
 * "KEY=VALUE", each ended by a NUL. False if it is not that; a good message
 * that is not about a block device, or is of no interest, has what == 0. */
bool uevent_parse(const char *msg, size_t len, struct uevent *out);

/* Who wants to hear of a device. */
struct uevent_ear {
    uint32_t major, minor;
    /* WHAT may be 0: look again, messages were lost or uevent_poke said so. On
     * the home loop, with the listener's lock: no call back into this file. */
    void (*hear)(struct uevent_ear *e, unsigned what);
    /* The listener's own. */
    struct st_list link;
    struct uevents *to; /* NULL: not listening */
    bool poked;
};

/* E hears from now on until uevent_leave, which may be called in any case (E
 * is zeroed at first). Where there is no listener this does nothing. Any
 * thread. */
void uevent_join(struct st_loop *home, struct uevent_ear *e);
void uevent_leave(struct uevent_ear *e);

/* Call E's hear soon. Any thread. */
void uevent_poke(struct uevent_ear *e);

#endif
