/* SPDX-License-Identifier: MIT
 *
 * Fuzz: the input is a text of rules. What is understood then meets commands of
 * every kind at every hook.
 */
#include <stdlib.h>
#include <string.h>

#include "nvme_fault.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    struct nvme_faults *f;
    struct nvme_fault out;
    struct nvme_fault_ids ids;
    struct st_err err;
    uint32_t nsid[4];
    const char *name;
    uint64_t hits;

    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (st_nvme_faults_parse(text, &f, &err) < 0 && !err.text[0])
        abort();
    free(text);
    st_nvme_faults_ids(f, &ids);
    st_nvme_faults_changed(f, nsid, 4);
    for (unsigned i = 0; f && i < 64 * NVME_FAULT_COUNT; i++) {
        struct nvme_sqe sqe = {.opcode = (uint8_t)(i / 12),
                               .nsid = le32_of(i % 3)};
        struct nvme_fault_event e = {
            .on = i % NVME_FAULT_COUNT,
            .sqid = (uint16_t)(i % 2),
            .sqe = i % NVME_FAULT_COUNT < NVME_FAULT_ENABLE ? &sqe : NULL,
            .lba = i,
            .nlb = i % 8,
            .has_lba = i % 5,
            .status = i % 7 ? 0 : NVME_UNRECOVERED_READ,
        };

        if (st_nvme_faults_hit(f, &e, &out) && !out.what)
            abort();
    }
    for (unsigned i = 0; st_nvme_faults_rule(f, i, &name, &hits); i++)
        if (!name[0])
            abort();
    st_nvme_faults_free(f);
    return 0;
}
