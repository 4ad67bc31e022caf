/* SPDX-License-Identifier: MIT
 *
 * Identities that follow from names, so that guests find the same devices again
 * (spec: config.md 6.1).
 */
#ifndef ST_IDENTITY_H
#define ST_IDENTITY_H

#include "guid.h"

/* The GUID of NAME: the first half of SHA-256 over the name space
 * a3f1e2d4-5b6c-4a8d-9e0f-1234567890ab, as a GUID is stored, and NAME's bytes;
 * version and variant are then forced to 8 and RFC 4122's. 0 or -ENOMEM. */
int st_identity(const char *name, struct st_guid *out);

#endif
