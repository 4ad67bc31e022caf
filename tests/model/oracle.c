/* SPDX-License-Identifier: MIT
 *
 * See oracle.h.
 */
#include "oracle.h"

#include <stdlib.h>
#include <string.h>

#include "range.h"

static byteset
one(uint8_t v)
{
    byteset s = {{0}};

    s.w[v / 64] = UINT64_C(1) << (v % 64);
    return s;
}

static void
join(byteset *a, byteset b)
{
    for (unsigned i = 0; i < 4; i++)
        a->w[i] |= b.w[i];
}

/* What OP writes at byte B of the disk. */
static byteset
written(const struct oracle_op *op, uint64_t b)
{
    static const byteset all = {
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};

    return op->value ? one(op->value[b - op->offset]) : all;
}

static byteset *
sets(uint64_t n)
{
    byteset *s = calloc(n + 1, sizeof(*s));

    if (!s)
        abort();
    return s;
}

void
oracle_open(struct oracle *o, const uint8_t *initial, uint64_t size)
{
    o->size = size;
    o->allowed = sets(size);
    for (uint64_t b = 0; b < size; b++)
        o->allowed[b] = one(initial[b]);
    st_list_init(&o->under_way);
}

void
oracle_close(struct oracle *o)
{
    free(o->allowed);
}

static void
begin(struct oracle *o, struct oracle_op *op, uint64_t offset, uint64_t len)
{
    op->offset = offset;
    op->len = len;
    op->overlapped = false;
    op->seen = sets(len);
    op->before = sets(len);
    op->beside = sets(len);
    memcpy(op->seen, o->allowed + offset, len * sizeof(byteset));
    memcpy(op->before, o->allowed + offset, len * sizeof(byteset));
    st_list_for(x, tmp, &o->under_way, struct oracle_op, link)
    {
        uint64_t from = st_max(x->offset, offset);
        uint64_t to = st_min(x->offset + x->len, offset + len);

        if (from >= to)
            continue;
        op->overlapped |= x->writes;
        x->overlapped |= op->writes;
        for (uint64_t b = from; b < to; b++) {
            if (x->writes)
                join(&op->beside[b - offset], written(x, b));
            if (op->writes) {
                join(&x->seen[b - x->offset], written(op, b));
                join(&x->beside[b - x->offset], written(op, b));
            }
        }
    }
    for (uint64_t b = offset; op->writes && b < offset + len; b++)
        join(&o->allowed[b], written(op, b));
    st_list_append(&o->under_way, &op->link);
}

void
oracle_begin(struct oracle *o, struct oracle_op *op, uint64_t offset,
             uint64_t len, const uint8_t *value)
{
    op->value = value;
    op->writes = value != NULL;
    begin(o, op, offset, len);
}

void
oracle_begin_anything(struct oracle *o, struct oracle_op *op, uint64_t offset,
                      uint64_t len)
{
    op->value = NULL;
    op->writes = true;
    begin(o, op, offset, len);
}

void
oracle_end(struct oracle *o, struct oracle_op *op, enum oracle_end how)
{
    for (uint64_t i = 0; op->writes && i < op->len; i++) {
        uint64_t b = op->offset + i;
        byteset s = how == ORACLE_NOT ? op->before[i] : written(op, b);

        if (how == ORACLE_FAILED || (how == ORACLE_NOT && op->overlapped))
            continue;
        join(&s, op->beside[i]);
        for (unsigned j = 0; j < 4; j++)
            o->allowed[b].w[j] &= s.w[j];
    }
    st_list_remove(&op->link);
    free(op->seen);
    free(op->beside);
    free(op->before);
    op->seen = op->beside = op->before = NULL;
}

uint64_t
oracle_saw(struct oracle *o, struct oracle_op *op, const uint8_t *data,
           uint64_t len)
{
    (void)o;
    for (uint64_t i = 0; i < len; i++)
        if (!byteset_has(&op->seen[i], data[i]))
            return i;
    return len;
}

void
oracle_settle(struct oracle *o, struct oracle_op *op, const uint8_t *data)
{
    for (uint64_t i = 0; !op->overlapped && i < op->len; i++)
        o->allowed[op->offset + i] = one(data[i]);
}
