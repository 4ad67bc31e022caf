/* SPDX-License-Identifier: MIT
 *
 * Values in a buffer; see pack.h.
 */
#include "pack.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

void
st_pack_bytes(struct st_pack *k, void *v, size_t size)
{
    if (k->reading) {
        if (k->bad || k->len - k->at < size) {
            k->bad = true;
            memset(v, 0, size);
            return;
        }
        memcpy(v, k->p + k->at, size);
    } else if (k->p) {
        memcpy(k->p + k->at, v, size);
    }
    k->at += size;
}

/* A number of SIZE bytes, V if it is written: gives what it is after that. */
static uint64_t
number(struct st_pack *k, uint64_t v, size_t size)
{
    le64 le = le64_of(v);

    st_pack_bytes(k, &le, size);
    return size == sizeof(le) ? le64_get(le)
                              : le64_get(le) & ((UINT64_C(1) << 8 * size) - 1);
}

void
st_pack_u8(struct st_pack *k, uint8_t *v)
{
    *v = (uint8_t)number(k, k->reading ? 0 : *v, 1);
}

void
st_pack_u16(struct st_pack *k, uint16_t *v)
{
    *v = (uint16_t)number(k, k->reading ? 0 : *v, 2);
}

void
st_pack_u32(struct st_pack *k, uint32_t *v)
{
    *v = (uint32_t)number(k, k->reading ? 0 : *v, 4);
}

void
st_pack_u64(struct st_pack *k, uint64_t *v)
{
    *v = number(k, k->reading ? 0 : *v, 8);
}

void
st_pack_i64(struct st_pack *k, int64_t *v)
{
    *v = (int64_t)number(k, k->reading ? 0 : (uint64_t)*v, 8);
}

void
st_pack_flag(struct st_pack *k, bool *v)
{
    uint64_t n = number(k, k->reading ? 0 : *v, 1);

    k->bad |= n > 1;
    *v = n == 1;
}

void
st_pack_count(struct st_pack *k, uint32_t *v, uint32_t max)
{
    st_pack_u32(k, v);
    if (*v > max) {
        k->bad = true;
        *v = 0;
    }
}

void *
st_pack_new(void (*walk)(struct st_pack *k, void *arg), void *arg, size_t head,
            size_t *len)
{
    struct st_pack k = {.at = head, .version = UINT32_MAX};
    uint8_t *p;

    walk(&k, arg);
    *len = k.at;
    p = malloc(*len ? *len : 1);
    if (!p)
        return NULL;
    k = (struct st_pack){
        .p = p, .at = head, .len = *len, .version = UINT32_MAX};
    walk(&k, arg);
    return p;
}
