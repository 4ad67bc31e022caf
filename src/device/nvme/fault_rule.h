/* SPDX-License-Identifier: MIT
 *
 * The rules of nvme_fault.h, as they were parsed: faults_parse.c makes them,
 * faults.c matches. Private to the two.
 */
#ifndef ST_NVME_FAULT_RULE_H
#define ST_NVME_FAULT_RULE_H

#include <stdatomic.h>
#include <stdio.h>

#include "nvme_fault.h"

enum {
    NVME_FAULT_RULES_MAX = 256,
    NVME_FAULT_DATA_MAX = 4096,    /* bytes of "data" */
    NVME_FAULT_CHANGED_MAX = 1024, /* identifiers of "changed" */
};

/* Hooks of rules that only say what is so, beside enum nvme_fault_on. */
enum {
    NVME_FAULT_CAP = NVME_FAULT_COUNT,
    NVME_FAULT_PCI,
    NVME_FAULT_NAMESPACE,
    NVME_FAULT_HOOKS
};

/* One rule. What matches stays; only the counters change. */
struct nvme_fault_rule {
    char name[64];
    unsigned on; /* enum nvme_fault_on, or of the above */

    /* Which: (entry & mask) == pattern; the entry as eight words. */
    uint64_t pattern[8], mask[8];
    bool has_sqid, has_lba, has_status;
    uint16_t sqid, status;
    uint64_t lba[2]; /* first, last */

    /* When. */
    uint64_t after, every, seed;
    uint64_t count;  /* 0: any number */
    uint64_t chance; /* in 2^64; 0: always */
    _Atomic uint64_t matched, hits;

    /* What. */
    struct nvme_fault what;
    uint8_t *data; /* owned; what.data */
    struct nvme_fault_ids ids;
    uint32_t *changed; /* owned */
    unsigned nchanged;
};

/* A set of rules. */
struct nvme_faults {
    unsigned n;
    /* By hook, in order: at[start[on]] to at[start[on + 1] - 1]. */
    unsigned start[NVME_FAULT_HOOKS + 1];
    struct nvme_fault_rule *at[NVME_FAULT_RULES_MAX];
    struct nvme_fault_rule rule[];
};

#endif
