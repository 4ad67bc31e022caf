/* SPDX-License-Identifier: MIT
 *
 * NVMe on the wire: registers, queue entries, opcodes, status values (NVM
 * Express Base Specification 2.0c; NVM Command Set 1.0c). The names are the
 * standard's. Everything is little-endian; "0-based" fields hold n - 1.
 */
#ifndef ST_NVME_SPEC_H
#define ST_NVME_SPEC_H

#include <assert.h>
#include <stddef.h>

#include "wire.h"

/* ---- Registers (Base 3.1.3), offsets in BAR 0 ---- */

enum {
    NVME_REG_CAP = 0x00, /* 8 bytes */
    NVME_REG_VS = 0x08,
    NVME_REG_INTMS = 0x0c,
    NVME_REG_INTMC = 0x10,
    NVME_REG_CC = 0x14,
    NVME_REG_CSTS = 0x1c,
    NVME_REG_NSSR = 0x20,
    NVME_REG_AQA = 0x24,
    NVME_REG_ASQ = 0x28, /* 8 */
    NVME_REG_ACQ = 0x30, /* 8 */
    NVME_REG_CRTO = 0x68,
    NVME_REG_DOORBELLS = 0x1000,
};

enum { /* CC */
       NVME_CC_EN = 1 << 0,
       NVME_CC_CSS_SHIFT = 4,
       NVME_CC_MPS_SHIFT = 7,
       NVME_CC_AMS_SHIFT = 11,
       NVME_CC_SHN_SHIFT = 14,
       NVME_CC_IOSQES_SHIFT = 16,
       NVME_CC_IOCQES_SHIFT = 20,
       NVME_CC_CRIME = 1 << 24,
};

enum { /* CSTS */
       NVME_CSTS_RDY = 1 << 0,
       NVME_CSTS_CFS = 1 << 1,
       NVME_CSTS_SHST_SHIFT = 2,
       NVME_CSTS_NSSRO = 1 << 4,
       NVME_CSTS_PP = 1 << 5,
};

/* ---- Submission queue entry (Base 3.3.3.1) ---- */

enum { NVME_PSDT_SHIFT = 6, NVME_FUSE_MASK = 3 }; /* of flags */

struct nvme_sgl_desc { /* Base 4.1.2 */
    le64 address;
    le32 length;
    uint8_t reserved[3];
    uint8_t id; /* type << 4 | subtype */
};
static_assert(sizeof(struct nvme_sgl_desc) == 16, "Base 4.1.2");

enum nvme_sgl_type {
    NVME_SGL_DATA_BLOCK = 0,
    NVME_SGL_BIT_BUCKET = 1,
    NVME_SGL_SEGMENT = 2,
    NVME_SGL_LAST_SEGMENT = 3,
};

/* Submission queue entry. */
struct nvme_sqe {
    uint8_t opcode;
    uint8_t flags; /* PSDT << 6 | FUSE */
    le16 cid;
    le32 nsid;
    le32 cdw2, cdw3;
    le64 mptr;
    union {
        struct {
            le64 prp1, prp2;
        };
        struct nvme_sgl_desc sgl;
    };
    le32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};
static_assert(sizeof(struct nvme_sqe) == 64, "Base 3.3.3.1");
static_assert(offsetof(struct nvme_sqe, prp1) == 24, "Base 3.3.3.1");
static_assert(offsetof(struct nvme_sqe, cdw10) == 40, "Base 3.3.3.1");

/* ---- Completion queue entry (Base 3.3.3.2) ---- */

/* Completion queue entry. */
struct nvme_cqe {
    le32 dw0, dw1;
    le16 sqhd, sqid;
    le16 cid;
    le16 status; /* DNR << 15 | More << 14 | SCT << 9 | SC << 1 | phase */
};
static_assert(sizeof(struct nvme_cqe) == 16, "Base 3.3.3.2");

/* Status as SCT << 8 | SC; DNR ("do not retry") is a bit beside it. */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_OPCODE = 0x001,
    NVME_INVALID_FIELD = 0x002,
    NVME_CID_CONFLICT = 0x003,
    NVME_DATA_TRANSFER_ERROR = 0x004,
    NVME_INTERNAL_ERROR = 0x006,
    NVME_ABORT_REQUESTED = 0x007,
    NVME_ABORTED_SQ_DELETION = 0x008,
    NVME_ABORTED_FUSED_FAILED = 0x009,
    NVME_ABORTED_FUSED_MISSING = 0x00a,
    NVME_INVALID_NAMESPACE = 0x00b,
    NVME_COMMAND_SEQUENCE_ERROR = 0x00c,
    NVME_INVALID_SGL_SEGMENT = 0x00d,
    NVME_INVALID_SGL_COUNT = 0x00e,
    NVME_INVALID_SGL_LENGTH = 0x00f,
    NVME_INVALID_SGL_METADATA_LENGTH = 0x010,
    NVME_INVALID_SGL_TYPE = 0x011,
    NVME_INVALID_PRP_OFFSET = 0x013,
    NVME_ATOMIC_WRITE_UNIT_EXCEEDED = 0x014,
    NVME_OPERATION_DENIED = 0x015,
    NVME_HOST_ID_INCONSISTENT = 0x018,
    NVME_PREEMPT_AND_ABORT = 0x01b,
    NVME_NS_WRITE_PROTECTED = 0x020,
    NVME_COMMAND_INTERRUPTED = 0x021,
    NVME_LBA_OUT_OF_RANGE = 0x080,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_NS_NOT_READY = 0x082,
    NVME_RESERVATION_CONFLICT = 0x083,
    NVME_FORMAT_IN_PROGRESS = 0x084,

    NVME_CQ_INVALID = 0x100,
    NVME_QID_INVALID = 0x101,
    NVME_QUEUE_SIZE_INVALID = 0x102,
    NVME_AER_LIMIT = 0x105,
    NVME_INVALID_VECTOR = 0x108,
    NVME_INVALID_LOG_PAGE = 0x109,
    NVME_INVALID_FORMAT = 0x10a,
    NVME_INVALID_QUEUE_DELETION = 0x10c,
    NVME_FEATURE_NOT_SAVEABLE = 0x10d,
    NVME_FEATURE_NOT_CHANGEABLE = 0x10e,
    NVME_FEATURE_NOT_NS_SPECIFIC = 0x10f,
    NVME_INVALID_CONTROLLER_LIST = 0x11c,
    NVME_CONFLICTING_ATTRIBUTES = 0x180,
    NVME_INVALID_PROTECTION_INFO = 0x181,
    NVME_WRITE_TO_READ_ONLY = 0x182,
    NVME_COMMAND_SIZE_LIMIT = 0x183,

    NVME_WRITE_FAULT = 0x280,
    NVME_UNRECOVERED_READ = 0x281,
    NVME_GUARD_CHECK = 0x282,
    NVME_APP_TAG_CHECK = 0x283,
    NVME_REF_TAG_CHECK = 0x284,
    NVME_COMPARE_FAILURE = 0x285,
    NVME_ACCESS_DENIED = 0x286,
    NVME_DEALLOCATED = 0x287,

    NVME_DNR = 0x4000, /* beside a status */
};

/* ---- Commands ---- */

enum nvme_admin_opcode { /* Base 5 */
                         NVME_ADMIN_DELETE_SQ = 0x00,
                         NVME_ADMIN_CREATE_SQ = 0x01,
                         NVME_ADMIN_GET_LOG_PAGE = 0x02,
                         NVME_ADMIN_DELETE_CQ = 0x04,
                         NVME_ADMIN_CREATE_CQ = 0x05,
                         NVME_ADMIN_IDENTIFY = 0x06,
                         NVME_ADMIN_ABORT = 0x08,
                         NVME_ADMIN_SET_FEATURES = 0x09,
                         NVME_ADMIN_GET_FEATURES = 0x0a,
                         NVME_ADMIN_ASYNC_EVENT = 0x0c,
                         NVME_ADMIN_DOORBELL_BUFFER = 0x7c,
                         NVME_ADMIN_FORMAT = 0x80,
};

enum nvme_opcode { /* NVM Command Set 3 */
                   NVME_FLUSH = 0x00,
                   NVME_WRITE = 0x01,
                   NVME_READ = 0x02,
                   NVME_COMPARE = 0x05,
                   NVME_WRITE_ZEROES = 0x08,
                   NVME_DSM = 0x09,
                   NVME_VERIFY = 0x0c,
                   NVME_RESV_REGISTER = 0x0d,
                   NVME_RESV_REPORT = 0x0e,
                   NVME_RESV_ACQUIRE = 0x11,
                   NVME_RESV_RELEASE = 0x15,
                   NVME_COPY = 0x19,
};

#endif
