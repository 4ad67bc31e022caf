/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a message of the kernel's.
 */
#include <stdlib.h>
#include <string.h>

#include "uevent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *msg = malloc(size ? size : 1); /* its end is the end of memory */
    struct uevent ev, again;
    bool good;

    if (!msg)
        abort();
    memcpy(msg, data, size);
    good = uevent_parse(msg, size, &ev);
    /* What is not a message asks for nothing; and the bytes decide alone. */
    if ((!good && ev.what) ||
        ev.what & ~(unsigned)(UEVENT_RESIZE | UEVENT_MEDIA | UEVENT_REMOVED) ||
        uevent_parse(msg, size, &again) != good || again.what != ev.what)
        abort();
    free(msg);
    return 0;
}
