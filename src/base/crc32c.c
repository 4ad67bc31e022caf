/* SPDX-License-Identifier: MIT
 *
 * CRC-32C; see crc32c.h. By the CPU's own instruction where it has one.
 */
#include "crc32c.h"

#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL UINT32_C(0x82f63b78) /* reflected */

static uint32_t
by_bit(uint32_t crc, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    }
    return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t
by_instruction(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t c = crc, word;

    for (; len >= sizeof(word); len -= sizeof(word), p += sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        c = __builtin_ia32_crc32di(c, word);
    }
    while (len--)
        c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
    return (uint32_t)c;
}

static bool
has_instruction(void)
{
    return __builtin_cpu_supports("sse4.2");
}
#else
static uint32_t
by_instruction(uint32_t crc, const uint8_t *p, size_t len)
{
    return by_bit(crc, p, len);
}

static bool
has_instruction(void)
{
    return false;
}
#endif

uint32_t
st_crc32c(uint32_t crc, const void *p, size_t len)
{
    return ~(has_instruction() ? by_instruction(~crc, p, len)
                               : by_bit(~crc, p, len));
}
