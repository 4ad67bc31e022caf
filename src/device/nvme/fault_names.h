/* SPDX-License-Identifier: MIT
 *
 * The standard's names for statuses and opcodes, in lower case with hyphens,
 * for rules. Private to the parser of rules.
 */
#ifndef ST_NVME_FAULT_NAMES_H
#define ST_NVME_FAULT_NAMES_H

#include <stdint.h>

/* A name; a NULL one ends a table. */
struct nvme_fault_name {
    const char *name;
    uint64_t value;
};

/* The longest time that a rule may say: an hour. */
#define NVME_FAULT_NS_MAX UINT64_C(3600000000000)

extern const struct nvme_fault_name st_nvme_fault_status[];
extern const struct nvme_fault_name st_nvme_fault_admin[];
extern const struct nvme_fault_name st_nvme_fault_io[];

#endif
