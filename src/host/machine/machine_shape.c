/* SPDX-License-Identifier: MIT
 *
 * What a saved machine and the one that it becomes must be alike in; see
 * machine_private.h. A function is the same when it is in the same slot, has
 * the same name and is of the same kind; what else it must be, it says itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "machine_private.h"

void
machine_section(const char *what, unsigned i, char name[ST_SAVED_NAME])
{
    snprintf(name, ST_SAVED_NAME, "%s %u", what, i);
}

void
machine_shape_function(const struct machine_function *f,
                       struct machine_shape_function *out)
{
    out->slot = f->slot;
    snprintf(out->name, sizeof(out->name), "%s", f->name);
    snprintf(out->kind, sizeof(out->kind), "%s", f->pci->ops->name);
}

static void
walk_text(struct st_pack *k, char *text, size_t size)
{
    st_pack_bytes(k, text, size);
    k->bad |= text[size - 1] != '\0';
    text[size - 1] = '\0';
}

void
machine_shape_walk(struct st_pack *k, void *shape)
{
    struct machine_shape *s = shape;

    st_pack_u64(k, &s->memory);
    st_pack_count(k, &s->cpus, ST_MACHINE_CPUS_MAX);
    k->bad |= !s->cpus;
    st_pack_flag(k, &s->noxsave);
    st_pack_flag(k, &s->firmware);
    st_pack_u32(k, &s->tsc_khz);
    st_pack_count(k, &s->nfunctions, ST_MACHINE_SLOTS);
    for (uint32_t i = 0; i < s->nfunctions; i++) {
        st_pack_count(k, &s->function[i].slot, ST_MACHINE_SLOTS - 1);
        walk_text(k, s->function[i].name, sizeof(s->function[i].name));
        walk_text(k, s->function[i].kind, sizeof(s->function[i].kind));
    }
    st_pack_count(k, &s->norder, ST_MACHINE_SLOTS);
    for (uint32_t i = 0; i < s->norder; i++)
        st_pack_count(k, &s->order[i], ST_MACHINE_SLOTS - 1);
    st_pack_count(k, &s->ncpuid, ST_KVM_CPUID_MAX);
    st_pack_bytes(k, s->cpuid, s->ncpuid * sizeof(s->cpuid[0]));
}

void
machine_clock_walk(struct st_pack *k, void *ns)
{
    st_pack_u64(k, ns);
}

static const struct machine_shape_function *
saved_in(const struct machine_shape *s, unsigned slot)
{
    for (uint32_t i = 0; i < s->nfunctions; i++)
        if (s->function[i].slot == slot)
            return &s->function[i];
    return NULL;
}

int
machine_shape_check(const struct st_machine *m,
                    const struct machine_shape *shape, struct st_err *err)
{
    for (unsigned i = 0; i < m->nfunctions; i++) {
        struct machine_shape_function is = {0};
        const struct machine_shape_function *was;

        machine_shape_function(&m->function[i], &is);
        was = saved_in(shape, is.slot);
        if (!was)
            return st_err_set(err, EINVAL,
                              "'%s' is in slot %u, where the saved machine had "
                              "nothing",
                              is.name, is.slot);
        if (strcmp(was->name, is.name) != 0 || strcmp(was->kind, is.kind) != 0)
            return st_err_set(err, EINVAL,
                              "'%s' (%s) is in slot %u, where the saved "
                              "machine had '%s' (%s)",
                              is.name, is.kind, is.slot, was->name, was->kind);
    }
    for (uint32_t i = 0; i < shape->nfunctions; i++) {
        const struct machine_shape_function *was = &shape->function[i];
        bool found = false;

        for (unsigned j = 0; j < m->nfunctions; j++)
            found |= m->function[j].slot == was->slot;
        if (!found)
            return st_err_set(err, EINVAL,
                              "the saved machine has '%s' (%s) in slot %u, "
                              "this one nothing",
                              was->name, was->kind, was->slot);
    }
    return 0;
}
