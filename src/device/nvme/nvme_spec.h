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

enum { NVME_VERSION = 0x00020000 }; /* VS, and Identify's VER: 2.0 */

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
    NVME_ABORT_LIMIT = 0x103,
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

/* ---- Identify (Base 5.17; NVM Command Set 4.1.5) ---- */

enum nvme_cns { /* CDW10 7:0 */
                NVME_CNS_NAMESPACE = 0x00,
                NVME_CNS_CONTROLLER = 0x01,
                NVME_CNS_ACTIVE = 0x02,
                NVME_CNS_DESCRIPTORS = 0x03,
                NVME_CNS_CSI_NAMESPACE = 0x05,
                NVME_CNS_CSI_CONTROLLER = 0x06,
                NVME_CNS_CSI_ACTIVE = 0x07,
                NVME_CNS_INDEPENDENT = 0x08,
                NVME_CNS_ALLOCATED = 0x10,
                NVME_CNS_ALLOCATED_NAMESPACE = 0x11,
                NVME_CNS_ATTACHED_CONTROLLERS = 0x12,
                NVME_CNS_CONTROLLERS = 0x13,
                NVME_CNS_COMMAND_SETS = 0x1c,
};

enum { NVME_NSID_ALL = 0xffffffff };
enum { NVME_CSI_NVM = 0 };

/* Power State Descriptor. */
struct nvme_power_state {
    le16 mp; /* 0.01 W */
    uint8_t reserved2;
    uint8_t flags;     /* MXPS 0, NOPS 1 */
    le32 enlat, exlat; /* us */
    uint8_t rrt, rrl, rwt, rwl;
    le16 idlp;
    uint8_t ips;
    uint8_t reserved19;
    le16 actp;
    uint8_t apws;
    uint8_t reserved23[9];
};
static_assert(sizeof(struct nvme_power_state) == 32, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_power_state, enlat) == 4, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_power_state, actp) == 20, "Base 5.17.2.1");

enum { /* OACS */
       NVME_OACS_FORMAT = 1 << 1,
       NVME_OACS_DOORBELL_BUFFER = 1 << 8,
};

enum { /* LPA */
       NVME_LPA_SMART_NAMESPACE = 1 << 0,
       NVME_LPA_EFFECTS = 1 << 1,
       NVME_LPA_EXTENDED = 1 << 2,
};

enum { /* ONCS */
       NVME_ONCS_COMPARE = 1 << 0,
       NVME_ONCS_DSM = 1 << 2,
       NVME_ONCS_WRITE_ZEROES = 1 << 3,
       NVME_ONCS_SAVE_SELECT = 1 << 4,
       NVME_ONCS_RESERVATIONS = 1 << 5,
       NVME_ONCS_TIMESTAMP = 1 << 6,
       NVME_ONCS_VERIFY = 1 << 7,
       NVME_ONCS_COPY = 1 << 8,
};

enum { /* Others of Identify Controller */
       NVME_CMIC_CONTROLLERS = 1 << 1,
       NVME_OAES_NAMESPACES = 1 << 8,
       NVME_CTRATT_HOST_ID_128 = 1 << 0,
       NVME_CNTRLTYPE_IO = 1,
       NVME_FNA_ONE = 1 << 3, /* Format NVM is for one namespace at a time */
       NVME_FUSES_COMPARE_WRITE = 1 << 0,
       NVME_VWC_PRESENT = 1 << 0,
       NVME_VWC_FLUSH_ALL = 3 << 1,
       NVME_SGLS_ANY = 1, /* no alignment needed */
};

/* Identify Controller data structure. */
struct nvme_id_ctrl {
    le16 vid, ssvid;
    char sn[20], mn[40], fr[8];
    uint8_t rab, ieee[3], cmic, mdts;
    le16 cntlid;
    le32 ver, rtd3r, rtd3e, oaes, ctratt;
    le16 rrls;
    uint8_t reserved102[9];
    uint8_t cntrltype, fguid[16];
    le16 crdt[3];
    uint8_t reserved134[122];

    le16 oacs;
    uint8_t acl, aerl, frmw, lpa, elpe, npss, avscc, apsta;
    le16 wctemp, cctemp, mtfa;
    le32 hmpre, hmmin;
    le64 tnvmcap[2], unvmcap[2];
    le32 rpmbs;
    le16 edstt;
    uint8_t dsto, fwug;
    le16 kas, hctma, mntmt, mxtmt;
    le32 sanicap, hmminds;
    le16 hmmaxd, nsetidmax, endgidmax;
    uint8_t anatt, anacap;
    le32 anagrpmax, nanagrpid, pels;
    le16 domain;
    uint8_t reserved358[10];
    le64 megcap[2];
    uint8_t reserved384[128];

    uint8_t sqes, cqes;
    le16 maxcmd;
    le32 nn;
    le16 oncs, fuses;
    uint8_t fna, vwc;
    le16 awun, awupf;
    uint8_t icsvscc, nwpc;
    le16 acwu, ocfs;
    le32 sgls, mnan;
    le64 maxdna[2];
    le32 maxcna;
    uint8_t reserved564[204];
    char subnqn[256];
    uint8_t reserved1024[768];
    uint8_t fabrics[256];

    struct nvme_power_state psd[32];
    uint8_t vendor[1024];
};
static_assert(sizeof(struct nvme_id_ctrl) == 4096, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, rab) == 72, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, ver) == 80, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, cntrltype) == 111, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, oacs) == 256, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, wctemp) == 266, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, tnvmcap) == 280, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, kas) == 320, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, pels) == 352, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, megcap) == 368, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, sqes) == 512, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, oncs) == 520, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, vwc) == 525, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, acwu) == 532, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, sgls) == 536, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, subnqn) == 768, "Base 5.17.2.1");
static_assert(offsetof(struct nvme_id_ctrl, psd) == 2048, "Base 5.17.2.1");

enum { /* NSFEAT */
       NVME_NSFEAT_THIN = 1 << 0,
       NVME_NSFEAT_ATOMICS = 1 << 1,
       NVME_NSFEAT_OPTIMAL = 1 << 4,
};

enum { /* Others of Identify Namespace */
       NVME_NMIC_SHARED = 1 << 0,
       NVME_DLFEAT_ZEROES = 1 << 0,
       NVME_DLFEAT_WRITE_ZEROES = 1 << 3,
       NVME_NSATTR_READ_ONLY = 1 << 0,
       NVME_NSTAT_READY = 1 << 0,
};

/* LBA Format. */
struct nvme_lbaf {
    le16 ms;
    uint8_t lbads, rp;
};
static_assert(sizeof(struct nvme_lbaf) == 4, "NVM 4.1.5.1");

/* Identify Namespace data structure of the NVM command set. */
struct nvme_id_ns {
    le64 nsze, ncap, nuse;
    uint8_t nsfeat, nlbaf, flbas, mc, dpc, dps, nmic, rescap, fpi, dlfeat;
    le16 nawun, nawupf, nacwu, nabsn, nabo, nabspf, noiob;
    le64 nvmcap[2]; /* bytes */
    le16 npwg, npwa, npdg, npda, nows;
    le16 mssrl;
    le32 mcl;
    uint8_t msrc;
    uint8_t reserved81[11];
    le32 anagrpid;
    uint8_t reserved96[3];
    uint8_t nsattr;
    le16 nvmsetid, endgid;
    uint8_t nguid[16], eui64[8];
    struct nvme_lbaf lbaf[64];
    uint8_t vendor[3712];
};
static_assert(sizeof(struct nvme_id_ns) == 4096, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, nsfeat) == 24, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, nawun) == 34, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, nvmcap) == 48, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, npwg) == 64, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, mssrl) == 74, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, anagrpid) == 92, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, nsattr) == 99, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "NVM 4.1.5.1");
static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "NVM 4.1.5.1");

/* I/O Command Set Independent Identify Namespace data structure. */
struct nvme_id_ns_any {
    uint8_t nsfeat, nmic, rescap, fpi;
    le32 anagrpid;
    uint8_t nsattr, reserved9;
    le16 nvmsetid, endgid;
    uint8_t nstat;
    uint8_t reserved15[4081];
};
static_assert(sizeof(struct nvme_id_ns_any) == 4096, "Base 5.17.2.8");
static_assert(offsetof(struct nvme_id_ns_any, nstat) == 14, "Base 5.17.2.8");

/* Identify Controller data structure of the NVM command set. */
struct nvme_id_ctrl_nvm {
    uint8_t vsl, wzsl, wusl, dmrl;
    le32 dmrsl;
    le64 dmsl;
    uint8_t reserved16[4080];
};
static_assert(sizeof(struct nvme_id_ctrl_nvm) == 4096, "NVM 4.1.5.4");

/* Namespace Identification Descriptor: this, then LEN bytes. */
struct nvme_ns_id_desc {
    uint8_t type, len;
    uint8_t reserved2[2];
};
static_assert(sizeof(struct nvme_ns_id_desc) == 4, "Base 5.17.2.3");

enum nvme_ns_id_type {
    NVME_NIDT_EUI64 = 1,
    NVME_NIDT_NGUID = 2,
    NVME_NIDT_UUID = 3,
    NVME_NIDT_CSI = 4,
};

/* ---- Log pages (Base 5.16.1) ---- */

enum nvme_log_id {
    NVME_LOG_SUPPORTED = 0x00,
    NVME_LOG_ERROR = 0x01,
    NVME_LOG_SMART = 0x02,
    NVME_LOG_FIRMWARE = 0x03,
    NVME_LOG_CHANGED = 0x04,
    NVME_LOG_EFFECTS = 0x05,
};

/* Error Information Log Entry. */
struct nvme_error_entry {
    le64 count;
    le16 sqid, cid;
    le16 status; /* as in a completion, phase 0 */
    le16 where;
    le64 lba;
    le32 nsid;
    uint8_t vendor, trtype;
    uint8_t reserved30[2];
    le64 specific;
    le16 transport;
    uint8_t reserved42[22];
};
static_assert(sizeof(struct nvme_error_entry) == 64, "Base 5.16.1.2");
static_assert(offsetof(struct nvme_error_entry, lba) == 16, "Base 5.16.1.2");
static_assert(offsetof(struct nvme_error_entry, nsid) == 24, "Base 5.16.1.2");

/* SMART / Health Information; 16-byte counters are pairs, low half first. */
struct nvme_smart_log {
    uint8_t critical_warning;
    le16 temperature; /* K */
    uint8_t spare, spare_threshold, used, endurance_warning;
    uint8_t reserved7[25];
    le64 units_read[2], units_written[2]; /* 1000 * 512 bytes */
    le64 reads[2], writes[2];
    le64 busy_minutes[2], power_cycles[2], power_on_hours[2];
    le64 unsafe_shutdowns[2], media_errors[2], errors[2];
    le32 warning_minutes, critical_minutes;
    le16 sensor[8];
    uint8_t reserved216[296];
};
static_assert(sizeof(struct nvme_smart_log) == 512, "Base 5.16.1.3");
static_assert(offsetof(struct nvme_smart_log, units_read) == 32,
              "Base 5.16.1.3");
static_assert(offsetof(struct nvme_smart_log, errors) == 176, "Base 5.16.1.3");
static_assert(offsetof(struct nvme_smart_log, sensor) == 200, "Base 5.16.1.3");

/* Firmware Slot Information. */
struct nvme_firmware_log {
    uint8_t afi;
    uint8_t reserved1[7];
    char frs[7][8];
    uint8_t reserved64[448];
};
static_assert(sizeof(struct nvme_firmware_log) == 512, "Base 5.16.1.4");

/* Commands Supported and Effects, by opcode. */
struct nvme_effects_log {
    le32 admin[256], io[256];
    uint8_t reserved2048[2048];
};
static_assert(sizeof(struct nvme_effects_log) == 4096, "Base 5.16.1.6");

enum { /* Commands Supported and Effects data structure */
       NVME_EFFECTS_CSUPP = 1 << 0, /* supported */
       NVME_EFFECTS_LBCC = 1 << 1,  /* changes logical blocks */
       NVME_EFFECTS_NCC = 1 << 2,   /* a namespace's capabilities */
       NVME_EFFECTS_NIC = 1 << 3,   /* which namespaces there are */
       NVME_EFFECTS_CCC = 1 << 4,   /* the controller's capabilities */
       NVME_EFFECTS_ALONE_NAMESPACE = 1 << 16, /* CSE: submit it when nothing
                                                * else is under way there */
};

/* ---- Features (Base 5.27.1; NVM Command Set 4.1.3) ---- */

enum nvme_feature_id {
    NVME_FEAT_ARBITRATION = 0x01,
    NVME_FEAT_POWER = 0x02,
    NVME_FEAT_TEMPERATURE = 0x04,
    NVME_FEAT_ERROR_RECOVERY = 0x05,
    NVME_FEAT_WRITE_CACHE = 0x06,
    NVME_FEAT_QUEUES = 0x07,
    NVME_FEAT_COALESCING = 0x08,
    NVME_FEAT_VECTOR = 0x09,
    NVME_FEAT_ATOMICITY = 0x0a,
    NVME_FEAT_EVENTS = 0x0b,
    NVME_FEAT_TIMESTAMP = 0x0e,
    NVME_FEAT_HOST_BEHAVIOR = 0x16,
    NVME_FEAT_HOST_ID = 0x81,
    NVME_FEAT_RESERVATION_MASK = 0x82,
    NVME_FEAT_RESERVATION_PERSISTENCE = 0x83,
};

#define NVME_TIMESTAMP_MASK ((UINT64_C(1) << 48) - 1) /* of 0Eh's data: ms */

enum nvme_feature_select { /* Get Features CDW10 10:8 */
                           NVME_SEL_CURRENT = 0,
                           NVME_SEL_DEFAULT = 1,
                           NVME_SEL_SAVED = 2,
                           NVME_SEL_CAPABILITIES = 3,
};

#endif
