/* SPDX-License-Identifier: MIT
 *
 * What a controller says of itself: Identify, log pages, features, as pure
 * functions from plain structs to the standard's bytes. Private to the
 * controller, which keeps the structs and decides who may ask.
 */
#ifndef ST_NVME_PAGE_H
#define ST_NVME_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "guid.h"
#include "nvme_cmd.h"

enum {
    NVME_IDENTIFY_SIZE = 4096,
    NVME_ERROR_ENTRIES = 64, /* ELPE + 1 */
    NVME_NN_MAX = 1024,
    NVME_AERL = 4,       /* Asynchronous Event Requests outstanding at most */
    NVME_ABORTS = 4,     /* Aborts outstanding at most: ACL + 1 */
    NVME_WCTEMP = 0x157, /* K; 06h's default, too */
    NVME_CCTEMP = 0x175,
};

/* Constant for a controller's life. */
struct nvme_info {
    uint16_t vendor, subsystem_vendor, cntlid;
    char serial[21], model[41], firmware[9], subnqn[256];
    uint32_t nn;
    unsigned queues, vectors, mqes; /* I/O pairs; MSI-X; entries - 1 */
    bool shared;                    /* CMIC */
    bool shadow;                    /* Doorbell Buffer Config is there */
};

/* Namespaces as Identify and logs see them; index is nsid - 1, NULL: none. */
struct nvme_ns_table {
    struct nvme_ns *const *ns;
    uint32_t nn;
    /* Controllers of this subsystem, ascending, for CNS 12h and 13h. */
    const uint16_t *cntlids;
    unsigned ncntlids;
};

/* Identify (Base 5.17): fill PAGE for CNS, CSI, NSID, CNTID of SQE. NVME_OK or
 * a status. Sizes of disks are those of now. Any thread that may read T. */
uint16_t st_nvme_identify(const struct nvme_info *info,
                          const struct nvme_ns_table *t,
                          const struct nvme_sqe *sqe,
                          uint8_t page[static NVME_IDENTIFY_SIZE]);

/* ---- Features (Base 5.27) ---- */

/* Every value that Set Features can change; st_nvme_features_reset gives the
 * defaults. The effects are the controller's. */
struct nvme_features {
    uint32_t arbitration, power;
    uint32_t error_recovery;    /* 05h, one for all namespaces */
    uint16_t over[9], under[9]; /* temperature thresholds by TMPSEL */
    bool write_cache;           /* 06h WCE */
    uint16_t nsq, ncq;          /* 07h, allotted (not 0-based) */
    uint8_t coalesce_threshold, coalesce_time; /* 08h: 0-based; 100 us */
    uint8_t *coalesce_off; /* 09h CD by vector; owned by the controller */
    unsigned vectors;
    bool atomicity_off; /* 0Ah DN */
    uint32_t events;    /* 0Bh */
    /* 0Eh: ms to add to now_ms, and origin. A reset leaves 0 here; whoever
     * resets then subtracts the time: the clock counts from the reset. */
    int64_t timestamp_set;
    bool timestamp_by_host;
    uint8_t host_behavior[512]; /* 16h */
    uint8_t host_id[16];        /* 81h */
    bool host_id_extended, host_id_set;
    uint32_t reservation_mask; /* 82h */
};

/* F's coalesce_off (NULL is fine) and vectors are set and stay. */
void st_nvme_features_reset(struct nvme_features *f,
                            const struct nvme_info *info);

/* What a Set or Get Features needs to know beside. */
struct nvme_feature_env {
    const struct nvme_info *info;
    const struct nvme_ns_table *t;
    bool queues_exist;   /* 07h: an I/O queue has been created */
    bool volatile_cache; /* some disk has one; not looked at: Identify says
                          * that there is one, since one may come */
    uint64_t now_ms;     /* since the epoch, for 0Eh */
};

/* Bytes of data that the feature FID transfers (0: none): Set from the host,
 * Get to it; CDW11 matters for 81h. A Get of what a feature can (SEL 3) has no
 * data, whatever this says. */
unsigned st_nvme_feature_data(uint8_t fid, uint32_t cdw11);

/* Carry out SQE; DATA holds (Set) or takes (Get) st_nvme_feature_data bytes.
 * *DW0 is the completion's. NVME_OK or a status, and nothing is changed. */
uint16_t st_nvme_feature_set(struct nvme_features *f,
                             const struct nvme_feature_env *env,
                             const struct nvme_sqe *sqe, const uint8_t *data,
                             uint32_t *dw0);
uint16_t st_nvme_feature_get(const struct nvme_features *f,
                             const struct nvme_feature_env *env,
                             const struct nvme_sqe *sqe, uint8_t *data,
                             uint32_t *dw0);

/* ---- Log pages (Base 5.16) ---- */

/* One entry of the error log. */
struct nvme_error {
    uint64_t count;                    /* from 1; 0: empty */
    uint16_t sqid, cid, status, where; /* where: byte | bit << 8, or FFFFh */
    uint64_t lba;
    uint32_t nsid;
};

/* What logs are made of; the controller's home loop or lock guards it. */
struct nvme_logs {
    struct nvme_error error[NVME_ERROR_ENTRIES]; /* a ring */
    uint64_t errors;                             /* ever */
    uint64_t changed[NVME_NN_MAX / 64];          /* bit nsid - 1 */
    /* SMART, as st_nvme_log_page shows it; 512-byte units and counts. */
    uint64_t read_blocks, written_blocks, reads, writes, media_errors;
    uint64_t power_cycles, unsafe_shutdowns, busy_minutes, power_on_hours;
    uint8_t critical_warning;
    uint16_t temperature; /* K */
};

/* Remember E; its count is set here. */
void st_nvme_log_error(struct nvme_logs *l, const struct nvme_error *e);

/* The size of the page LID in bytes, 0 where there is none. */
unsigned st_nvme_log_size(uint8_t lid);

/* Fill PAGE, which has st_nvme_log_size bytes. SQE's offset and length are the
 * caller's matter, and so is what is cleared when it was read; for LID 04h
 * *DELIVERED (NVME_NN_MAX bits) are the changed namespaces that it names. */
uint16_t st_nvme_log_page(const struct nvme_logs *l,
                          const struct nvme_info *info,
                          const struct nvme_ns_table *t,
                          const struct nvme_sqe *sqe, uint8_t *page,
                          uint64_t *delivered);

/* Is OPCODE supported, and what does it change? The Commands Supported and
 * Effects structure (LID 05h); admin and I/O dispatch use it, too, so that what
 * is said is what is done. 0: not supported. */
uint32_t st_nvme_effects(bool admin, uint8_t opcode,
                         const struct nvme_info *info);

#endif
