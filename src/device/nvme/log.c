/* SPDX-License-Identifier: MIT
 *
 * Log pages (Base 5.16.1), and the one table of commands (LID 05h).
 *
 *   00h  which logs there are      03h  firmware slots
 *   01h  errors, newest first      04h  namespaces that changed
 *   02h  SMART                     05h  commands and their effects
 *
 * Only SMART may be asked of a namespace, and says the same of each (Base
 * 5.16.1.3: nothing in it is particular to a namespace).
 */
#include <string.h>

#include "nvme_page.h"

/* By LID; 0: there is none. */
static const uint16_t sizes[] = {
    [NVME_LOG_SUPPORTED] = 256 * sizeof(le32),
    [NVME_LOG_ERROR] = NVME_ERROR_ENTRIES * sizeof(struct nvme_error_entry),
    [NVME_LOG_SMART] = sizeof(struct nvme_smart_log),
    [NVME_LOG_FIRMWARE] = sizeof(struct nvme_firmware_log),
    [NVME_LOG_CHANGED] = NVME_NN_MAX * sizeof(le32),
    [NVME_LOG_EFFECTS] = sizeof(struct nvme_effects_log),
};
enum { LOGS = sizeof(sizes) / sizeof(*sizes) };

unsigned
st_nvme_log_size(uint8_t lid)
{
    return lid < LOGS ? sizes[lid] : 0;
}

void
st_nvme_log_error(struct nvme_logs *l, const struct nvme_error *e)
{
    struct nvme_error *to = &l->error[l->errors++ % NVME_ERROR_ENTRIES];

    *to = *e;
    to->count = l->errors;
}

/* ---- Effects ---- */

enum {
    YES = NVME_EFFECTS_CSUPP,
    BLOCKS = NVME_EFFECTS_CSUPP | NVME_EFFECTS_LBCC,
};

static const uint32_t admin_effects[256] = {
    [NVME_ADMIN_DELETE_SQ] = YES,
    [NVME_ADMIN_CREATE_SQ] = YES,
    [NVME_ADMIN_GET_LOG_PAGE] = YES,
    [NVME_ADMIN_DELETE_CQ] = YES,
    [NVME_ADMIN_CREATE_CQ] = YES,
    [NVME_ADMIN_IDENTIFY] = YES,
    [NVME_ADMIN_ABORT] = YES,
    [NVME_ADMIN_SET_FEATURES] = YES,
    [NVME_ADMIN_GET_FEATURES] = YES,
    [NVME_ADMIN_ASYNC_EVENT] = YES,
    [NVME_ADMIN_FORMAT] = BLOCKS | NVME_EFFECTS_ALONE_NAMESPACE,
};

static const uint32_t io_effects[256] = {
    [NVME_FLUSH] = YES,           [NVME_WRITE] = BLOCKS, [NVME_READ] = YES,
    [NVME_COMPARE] = YES,         [NVME_DSM] = BLOCKS,   [NVME_VERIFY] = YES,
    [NVME_WRITE_ZEROES] = BLOCKS, [NVME_COPY] = BLOCKS,
};

uint32_t
st_nvme_effects(bool admin, uint8_t opcode, const struct nvme_info *info)
{
    if (admin && opcode == NVME_ADMIN_DOORBELL_BUFFER)
        return info->shadow ? YES : 0;
    return admin ? admin_effects[opcode] : io_effects[opcode];
}

/* ---- Pages, which are zeroed ---- */

static void
supported(uint8_t *page)
{
    le32 *lid = (le32 *)(void *)page;

    for (unsigned i = 0; i < LOGS; i++)
        if (sizes[i])
            lid[i] = le32_of(1); /* LSUPP */
}

static void
errors(const struct nvme_logs *l, uint8_t *page)
{
    struct nvme_error_entry *to = (struct nvme_error_entry *)(void *)page;

    for (uint64_t i = 0; i < NVME_ERROR_ENTRIES && i < l->errors; i++) {
        const struct nvme_error *e =
            &l->error[(l->errors - 1 - i) % NVME_ERROR_ENTRIES];

        to[i].count = le64_of(e->count);
        to[i].sqid = le16_of(e->sqid);
        to[i].cid = le16_of(e->cid);
        to[i].status = le16_of((uint16_t)(e->status << 1));
        to[i].where = le16_of(e->where);
        to[i].lba = le64_of(e->lba);
        to[i].nsid = le32_of(e->nsid);
    }
}

/* 512-byte BLOCKS as thousands, rounded up. */
static le64
units(uint64_t blocks)
{
    return le64_of(blocks / 1000 + (blocks % 1000 != 0));
}

static void
smart(const struct nvme_logs *l, struct nvme_smart_log *p)
{
    p->critical_warning = l->critical_warning;
    p->temperature = le16_of(l->temperature);
    p->spare = 100; /* percent */
    p->spare_threshold = 10;
    p->units_read[0] = units(l->read_blocks);
    p->units_written[0] = units(l->written_blocks);
    p->reads[0] = le64_of(l->reads);
    p->writes[0] = le64_of(l->writes);
    p->busy_minutes[0] = le64_of(l->busy_minutes);
    p->power_cycles[0] = le64_of(l->power_cycles);
    p->power_on_hours[0] = le64_of(l->power_on_hours);
    p->unsafe_shutdowns[0] = le64_of(l->unsafe_shutdowns);
    p->media_errors[0] = le64_of(l->media_errors);
    p->errors[0] = le64_of(l->errors);
}

static void
firmware(const struct nvme_info *info, struct nvme_firmware_log *p)
{
    p->afi = 1; /* slot 1 is active */
    memset(p->frs[0], ' ', sizeof(p->frs[0]));
    memcpy(p->frs[0], info->firmware, strnlen(info->firmware, 8));
}

/* All that may have changed fit: there are no more than NVME_NN_MAX. */
static void
changed(const struct nvme_logs *l, uint8_t *page, uint64_t *delivered)
{
    le32 *to = (le32 *)(void *)page;

    for (uint32_t i = 0; i < NVME_NN_MAX; i++)
        if (l->changed[i / 64] >> i % 64 & 1)
            *to++ = le32_of(i + 1);
    memcpy(delivered, l->changed, sizeof(l->changed));
}

static void
effects(const struct nvme_info *info, struct nvme_effects_log *p)
{
    for (unsigned i = 0; i < 256; i++) {
        p->admin[i] = le32_of(st_nvme_effects(true, (uint8_t)i, info));
        p->io[i] = le32_of(st_nvme_effects(false, (uint8_t)i, info));
    }
}

/* May LID be asked of NSID (Base 5.16.1: scopes)? */
static uint16_t
check_scope(const struct nvme_ns_table *t, uint8_t lid, uint32_t nsid)
{
    const struct nvme_ns *ns;

    if (!nsid || nsid == NVME_NSID_ALL)
        return NVME_OK;
    if (nsid > t->nn)
        return NVME_INVALID_NAMESPACE | NVME_DNR;
    ns = t->ns[nsid - 1];
    if (lid != NVME_LOG_SMART || !ns || atomic_load(&ns->gone))
        return NVME_INVALID_FIELD | NVME_DNR;
    return NVME_OK;
}

uint16_t
st_nvme_log_page(const struct nvme_logs *l, const struct nvme_info *info,
                 const struct nvme_ns_table *t, const struct nvme_sqe *sqe,
                 uint8_t *page, uint64_t *delivered)
{
    uint8_t lid = (uint8_t)le32_get(sqe->cdw10);
    unsigned size = st_nvme_log_size(lid);
    uint16_t status;

    if (!size)
        return NVME_INVALID_LOG_PAGE | NVME_DNR;
    status = check_scope(t, lid, le32_get(sqe->nsid));
    if (status != NVME_OK)
        return status;
    memset(page, 0, size);
    switch ((enum nvme_log_id)lid) {
    case NVME_LOG_SUPPORTED:
        supported(page);
        break;
    case NVME_LOG_ERROR:
        errors(l, page);
        break;
    case NVME_LOG_SMART:
        smart(l, (struct nvme_smart_log *)(void *)page);
        break;
    case NVME_LOG_FIRMWARE:
        firmware(info, (struct nvme_firmware_log *)(void *)page);
        break;
    case NVME_LOG_CHANGED:
        changed(l, page, delivered);
        break;
    case NVME_LOG_EFFECTS:
        effects(info, (struct nvme_effects_log *)(void *)page);
        break;
    }
    return NVME_OK;
}
