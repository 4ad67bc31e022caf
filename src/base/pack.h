/* SPDX-License-Identifier: MIT
 *
 * Values in a buffer: one list of calls writes them and reads them back, so
 * that the two cannot differ.
 *
 *   walk(struct st_pack *k, struct thing *t)    st_pack_u32(k, &t->a); ...
 *
 *   {.p = NULL}                       counts: k.at is how long it becomes
 *   {.p, .len}                        writes; the values are only read
 *   {.p, .len, .reading = true}       reads; k.bad: it was no such list
 *
 * All integers are little-endian, a boolean is a byte that is 0 or 1, nothing
 * is padded.
 */
#ifndef ST_PACK_H
#define ST_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where in the buffer we are. */
struct st_pack {
    uint8_t *p; /* borrowed; while reading, only read */
    size_t at, len;
    bool reading;
    bool bad; /* too short, or a value that cannot be; then all are 0 */
    /* Of the list, for one that has grown: when it is written the latest,
     * UINT32_MAX; who reads an older one says which. */
    uint32_t version;
};

/* A buffer of LEN bytes at P to be read. */
static inline struct st_pack
st_pack_reader(const void *p, size_t len)
{
    return (struct st_pack){.p = (uint8_t *)(uintptr_t)p,
                            .len = len,
                            .reading = true,
                            .version = UINT32_MAX};
}

/* Was all of it read, and was it what it should be? */
static inline bool
st_pack_done(const struct st_pack *k)
{
    return !k->bad && k->at == k->len;
}

/* SIZE bytes at V, as they are. */
void st_pack_bytes(struct st_pack *k, void *v, size_t size);

/* 1 byte. */
void st_pack_u8(struct st_pack *k, uint8_t *v);

/* 2 bytes. */
void st_pack_u16(struct st_pack *k, uint16_t *v);

/* 4 bytes. */
void st_pack_u32(struct st_pack *k, uint32_t *v);

/* 8 bytes. */
void st_pack_u64(struct st_pack *k, uint64_t *v);

/* 8 bytes, two's complement. */
void st_pack_i64(struct st_pack *k, int64_t *v);

/* 1 byte: a value that is neither 0 nor 1 is bad. */
void st_pack_flag(struct st_pack *k, bool *v);

/* How many of something, or an index: at most MAX. */
void st_pack_count(struct st_pack *k, uint32_t *v, uint32_t max);

/* What all of a buffer becomes: malloc'd, *LEN bytes, whose first HEAD bytes
 * are the caller's to fill. NULL: no memory. */
void *st_pack_new(void (*walk)(struct st_pack *k, void *arg), void *arg,
                  size_t head, size_t *len);

#endif
