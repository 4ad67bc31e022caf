/* SPDX-License-Identifier: MIT
 *
 * CRC-32C, Castagnoli's polynomial (RFC 3720, B.4; RFC 7143, 13.1).
 */
#ifndef ST_CRC32C_H
#define ST_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of LEN bytes at P that follow bytes whose checksum is CRC; 0 for
 * the first. */
uint32_t st_crc32c(uint32_t crc, const void *p, size_t len);

#endif
