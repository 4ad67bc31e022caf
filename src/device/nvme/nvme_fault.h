/* SPDX-License-Identifier: MIT
 *
 * Faults on demand: rules that match commands and say what happens to them
 * (guide/faults.md). Private to the controller.
 *
 * Where a controller has no rules, its pointer is NULL and nothing else is
 * looked at. A set of rules is read by all I/O loops; counters in it are
 * atomic. It is replaced whole and freed by st_defer.
 */
#ifndef ST_NVME_FAULT_H
#define ST_NVME_FAULT_H

#include "err.h"
#include "nvme_spec.h"

struct nvme_faults;

/* Where a rule acts. */
enum nvme_fault_on {
    NVME_FAULT_ADMIN_SQE, /* an admin command was fetched */
    NVME_FAULT_ADMIN_CQE, /* ... is about to be completed */
    NVME_FAULT_IO_SQE,
    NVME_FAULT_IO_CQE,
    NVME_FAULT_ENABLE,   /* CC.EN 0 -> 1 */
    NVME_FAULT_REGISTER, /* any access: for "gone" */
    NVME_FAULT_COUNT
};

/* What it does, a mask. */
enum nvme_fault_do {
    NVME_FAULT_STATUS = 1,         /* complete with status; a *_SQE: without
                                    * carrying it out */
    NVME_FAULT_DROP = 2,           /* consumed, never completed */
    NVME_FAULT_STUCK = 4,          /* held until released, aborted or reset */
    NVME_FAULT_DELAY = 8,          /* ns, the command alone */
    NVME_FAULT_STALL = 16,         /* ns, its whole queue */
    NVME_FAULT_SQE = 32,           /* replace entry bytes */
    NVME_FAULT_CQE = 64,           /* replace completion bytes */
    NVME_FAULT_DUPLICATE = 128,    /* complete twice */
    NVME_FAULT_NO_INTERRUPT = 256, /* the completion's interrupt is lost */
    NVME_FAULT_INTERRUPT = 512,    /* one too many */
    NVME_FAULT_CFS = 1024,         /* Controller Fatal Status */
    NVME_FAULT_GONE = 2048,        /* all registers read ones, nothing runs */
    NVME_FAULT_TORN = 4096,        /* a write: only its first blocks */
    NVME_FAULT_DATA = 8192,        /* bytes over the data sent to the host */
    NVME_FAULT_REORDER = 16384,    /* held until the next one completed */
    NVME_FAULT_PHASE = 32768,      /* the completion's phase tag is wrong */
};

/* One hit: what is to be done. Bytes are lent as long as the rules are. */
struct nvme_fault {
    unsigned what; /* enum nvme_fault_do */
    uint16_t status;
    uint64_t ns;
    uint64_t blocks;             /* TORN */
    uint8_t value[64], mask[64]; /* SQE and CQE: bits of MASK become VALUE */
    const uint8_t *data;         /* DATA */
    size_t data_len;
};

/* Parse TEXT (JSON). *OUT is NULL where there is no rule. 0, or -EINVAL with a
 * sentence, -ENOMEM. Any thread. */
int st_nvme_faults_parse(const char *text, struct nvme_faults **out,
                         struct st_err *err);

/* NULL is fine. Nobody reads them any more. */
void st_nvme_faults_free(struct nvme_faults *f);

/* The MQES (0-based) and PCI ids that rules put in place, if they do: -1
 * else. */
struct nvme_fault_ids {
    int mqes, vendor, device;
};
void st_nvme_faults_ids(const struct nvme_faults *f,
                        struct nvme_fault_ids *out);

/* Namespace identifiers to report as changed although they are not (each once,
 * when the rules are set): writes at most MAX to OUT and gives their number. */
unsigned st_nvme_faults_changed(const struct nvme_faults *f, uint32_t *out,
                                unsigned max);

/* What it is that happens. LBA and NLB matter for I/O commands that have
 * them. */
struct nvme_fault_event {
    enum nvme_fault_on on;
    uint16_t sqid;
    const struct nvme_sqe *sqe; /* NULL: REGISTER, ENABLE */
    uint64_t lba, nlb;
    bool has_lba;
    uint16_t status; /* *_CQE: what it would be */
};

/* The first rule, in order, that matches E and whose turn it is (every, after,
 * count, probability): true, and *OUT. Any thread; a hit is counted. */
bool st_nvme_faults_hit(struct nvme_faults *f, const struct nvme_fault_event *e,
                        struct nvme_fault *out);

/* Hits of rule I and its name, for inspect; false beyond the last. */
bool st_nvme_faults_rule(const struct nvme_faults *f, unsigned i,
                         const char **name, uint64_t *hits);

#endif
