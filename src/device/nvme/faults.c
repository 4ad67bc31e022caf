/* SPDX-License-Identifier: MIT
 *
 * Faults on demand: which rule acts on an event.
 *
 *   hook --> rules of that hook, in order
 *              entry, queue, blocks, status match?   no: the next one
 *              matched++
 *              after, every, probability: its turn?  no: the next one
 *              hits++, unless that is more than count
 *              that is it
 *
 * A rule's turn follows from how many events it had matched before and from its
 * seed alone: the same commands in the same order meet the same faults.
 */
#include <stdlib.h>
#include <string.h>

#include "fault_rule.h"
#include "rand.h"

/* What a status is, without what stands beside it. */
enum { STATUS_BITS = 0x7ff };

void
st_nvme_faults_free(struct nvme_faults *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < f->n; i++) {
        free(f->rule[i].data);
        free(f->rule[i].changed);
    }
    free(f);
}

void
st_nvme_faults_ids(const struct nvme_faults *f, struct nvme_fault_ids *out)
{
    *out = (struct nvme_fault_ids){-1, -1, -1};
    for (unsigned i = 0; f && i < f->n; i++) {
        const struct nvme_fault_ids *ids = &f->rule[i].ids;

        if (out->mqes < 0)
            out->mqes = ids->mqes;
        if (out->vendor < 0)
            out->vendor = ids->vendor;
        if (out->device < 0)
            out->device = ids->device;
    }
}

unsigned
st_nvme_faults_changed(const struct nvme_faults *f, uint32_t *out, unsigned max)
{
    unsigned n = 0;

    for (unsigned i = 0; f && i < f->n; i++)
        for (unsigned k = 0; k < f->rule[i].nchanged && n < max; k++)
            out[n++] = f->rule[i].changed[k];
    return n;
}

static bool
matches_entry(const struct nvme_fault_rule *r, const struct nvme_sqe *sqe)
{
    uint64_t word[8], differ = 0;

    memcpy(word, sqe, sizeof(word));
    for (unsigned i = 0; i < 8; i++)
        differ |= (word[i] & r->mask[i]) ^ r->pattern[i];
    return !differ;
}

static bool
matches(const struct nvme_fault_rule *r, const struct nvme_fault_event *e)
{
    if (e->sqe && !matches_entry(r, e->sqe))
        return false;
    if (r->has_sqid && r->sqid != e->sqid)
        return false;
    if (r->has_status && r->status != (e->status & STATUS_BITS))
        return false;
    /* The last block of a command may not be representable: say it without. */
    return !r->has_lba ||
           (e->has_lba && e->nlb && e->lba <= r->lba[1] &&
            (e->lba >= r->lba[0] || r->lba[0] - e->lba < e->nlb));
}

/* Count a hit, unless R has had all that it may. */
static bool
hit(struct nvme_fault_rule *r)
{
    uint64_t n = atomic_load_explicit(&r->hits, memory_order_relaxed);

    do {
        if (r->count && n >= r->count)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(
        &r->hits, &n, n + 1, memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* Is it R's turn, which had matched N events before? */
static bool
is_turn(const struct nvme_fault_rule *r, uint64_t n)
{
    struct st_rand dice;

    if (n < r->after || (n - r->after + 1) % r->every)
        return false;
    if (!r->chance)
        return true;
    dice = st_rand_seed(r->seed + n);
    return st_rand_next(&dice) < r->chance;
}

bool
st_nvme_faults_hit(struct nvme_faults *f, const struct nvme_fault_event *e,
                   struct nvme_fault *out)
{
    for (unsigned i = f->start[e->on]; i < f->start[e->on + 1]; i++) {
        struct nvme_fault_rule *r = f->at[i];

        if (matches(r, e) &&
            is_turn(r, atomic_fetch_add_explicit(&r->matched, 1,
                                                 memory_order_relaxed)) &&
            hit(r)) {
            *out = r->what;
            return true;
        }
    }
    return false;
}

bool
st_nvme_faults_rule(const struct nvme_faults *f, unsigned i, const char **name,
                    uint64_t *hits)
{
    if (!f || i >= f->n)
        return false;
    *name = f->rule[i].name;
    *hits = atomic_load_explicit(&f->rule[i].hits, memory_order_relaxed);
    return true;
}
