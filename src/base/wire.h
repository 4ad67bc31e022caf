/* SPDX-License-Identifier: MIT
 *
 * Integers as they lie on a wire or a disk: byte arrays that cannot be read
 * without converting, need no packing, and compile to a single load or store.
 */
#ifndef ST_WIRE_H
#define ST_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* For each of le16 le32 le64 be16 be32 be64: the type, X_get(v), X_of(n). */
#define ST_WIRE(name, bits, to_host, from_host)                                \
    typedef struct {                                                           \
        uint8_t b[bits / 8];                                                   \
    } name;                                                                    \
                                                                               \
    static inline uint##bits##_t name##_get(name v)                            \
    {                                                                          \
        uint##bits##_t x;                                                      \
                                                                               \
        memcpy(&x, v.b, sizeof(x));                                            \
        return to_host(x);                                                     \
    }                                                                          \
                                                                               \
    static inline name name##_of(uint##bits##_t x)                             \
    {                                                                          \
        name v;                                                                \
                                                                               \
        x = from_host(x);                                                      \
        memcpy(v.b, &x, sizeof(x));                                            \
        return v;                                                              \
    }

ST_WIRE(le16, 16, le16toh, htole16)
ST_WIRE(le32, 32, le32toh, htole32)
ST_WIRE(le64, 64, le64toh, htole64)
ST_WIRE(be16, 16, be16toh, htobe16)
ST_WIRE(be32, 32, be32toh, htobe32)
ST_WIRE(be64, 64, be64toh, htobe64)

#endif
