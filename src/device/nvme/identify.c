/* SPDX-License-Identifier: MIT
 *
 * Identify (Base 5.17, NVM Command Set 4.1.5): who the controller and its
 * namespaces are.
 *
 *   CNS  00 11 namespace, of the NVM command set   02 07 10 which there are
 *        05    the same, what only formats with    03       their names
 *              protection information use           12 13    controllers
 *        08    namespace, of any command set       1c       command sets
 *        01 06 controller
 *
 * A namespace identifier in 1..NN that is not attached is inactive: a page of
 * zeroes, success. Namespaces cannot be allocated without being attached: the
 * lists 02h, 07h and 10h are one, and so are 00h and 11h.
 */
#include <string.h>

#include "nvme_page.h"
#include "range.h"

/* Bytes of the largest logical block that the limit of a fused Compare and
 * Write is stated for; NACWU says more for smaller ones. */
enum { ACWU_BLOCK = 4096 };

static const struct nvme_ns *
ns_of(const struct nvme_ns_table *t, uint32_t nsid)
{
    const struct nvme_ns *ns = nsid && nsid <= t->nn ? t->ns[nsid - 1] : NULL;

    return ns && !atomic_load_explicit(&ns->gone, memory_order_acquire) ? ns
                                                                        : NULL;
}

/* TEXT into a field of the standard: ASCII, filled up with spaces. */
static void
put_text(char *to, size_t size, const char *text)
{
    memset(to, ' ', size);
    memcpy(to, text, strnlen(text, size));
}

/* ---- Controller ---- */

/* Some namespace carries out fused Compare and Write; or there is none yet, and
 * one may come. */
static bool
has_fused(const struct nvme_ns_table *t)
{
    bool none = true;

    for (uint32_t nsid = 1; nsid <= t->nn; nsid++) {
        const struct nvme_ns *ns = ns_of(t, nsid);

        if (!ns)
            continue;
        none = false;
        if (!ns->read_only &&
            st_disk_props(ns->disk)->performs & ST_BIT(ST_OP_COMPARE_AND_WRITE))
            return true;
    }
    return none;
}

static void
controller(const struct nvme_info *info, const struct nvme_ns_table *t,
           struct nvme_id_ctrl *c)
{
    bool is_fused = has_fused(t);

    c->vid = le16_of(info->vendor);
    c->ssvid = le16_of(info->subsystem_vendor);
    put_text(c->sn, sizeof(c->sn), info->serial);
    put_text(c->mn, sizeof(c->mn), info->model);
    put_text(c->fr, sizeof(c->fr), info->firmware);
    c->rab = 6;
    memcpy(c->ieee, "\x74\xe2\x8c", sizeof(c->ieee));
    c->cmic = info->shared ? NVME_CMIC_CONTROLLERS : 0;
    c->mdts = (uint8_t)__builtin_ctz(NVME_DATA_MAX / NVME_PAGE);
    c->cntlid = le16_of(info->cntlid);
    c->ver = le32_of(NVME_VERSION);
    c->rtd3r = c->rtd3e = le32_of(400000);
    c->oaes = le32_of(NVME_OAES_NAMESPACES);
    c->ctratt = le32_of(NVME_CTRATT_HOST_ID_128);
    c->cntrltype = NVME_CNTRLTYPE_IO;

    c->oacs = le16_of(NVME_OACS_FORMAT |
                      (info->shadow ? NVME_OACS_DOORBELL_BUFFER : 0));
    c->acl = NVME_ABORTS - 1;
    c->aerl = NVME_AERL - 1;
    c->frmw = 1 << 1 | 1; /* one slot, read-only */
    c->lpa = NVME_LPA_SMART_NAMESPACE | NVME_LPA_EFFECTS | NVME_LPA_EXTENDED;
    c->elpe = NVME_ERROR_ENTRIES - 1;
    c->wctemp = le16_of(NVME_WCTEMP);
    c->cctemp = le16_of(NVME_CCTEMP);

    c->sqes = 0x66; /* smallest, largest: 2^6 */
    c->cqes = 0x44;
    c->nn = le32_of(info->nn);
    c->oncs = le16_of(NVME_ONCS_COMPARE | NVME_ONCS_DSM |
                      NVME_ONCS_WRITE_ZEROES | NVME_ONCS_SAVE_SELECT |
                      NVME_ONCS_TIMESTAMP | NVME_ONCS_VERIFY | NVME_ONCS_COPY);
    c->fna = NVME_FNA_ONE;
    c->fuses = le16_of(is_fused ? NVME_FUSES_COMPARE_WRITE : 0);
    /* Present even if no disk has one: a guest that reads this once, and would
     * then not flush, may get a disk with one later. */
    c->vwc = NVME_VWC_PRESENT | NVME_VWC_FLUSH_ALL;
    c->acwu = le16_of(is_fused ? NVME_FUSED_MAX / ACWU_BLOCK - 1 : 0);
    c->ocfs = le16_of(1 << 0); /* descriptor format 0 */
    c->sgls = le32_of(NVME_SGLS_ANY);
    memcpy(c->subnqn, info->subnqn, strnlen(info->subnqn, sizeof(c->subnqn)));

    c->psd[0].mp = le16_of(2500); /* 25 W */
}

/* ---- Namespaces ---- */

/* BYTES as a 0-based number of logical blocks in 16 bits, rounded down; at
 * least one block. */
static le16
blocks0(uint64_t bytes, unsigned shift)
{
    uint64_t n = bytes >> shift;

    return le16_of((uint16_t)(st_min(st_max(n, 1), 65536) - 1));
}

static void namespace(const struct nvme_ns *ns, struct nvme_id_ns *p)
{
    const struct st_props *props = st_disk_props(ns->disk);
    uint64_t size = st_disk_size(ns->disk) >> ns->shift;
    bool unmap = props->unmap_granularity && props->unmap != ST_UNMAP_IGNORED;

    p->nsze = p->ncap = p->nuse = le64_of(size);
    p->nsfeat = (uint8_t)(NVME_NSFEAT_ATOMICS | NVME_NSFEAT_OPTIMAL |
                          (unmap ? NVME_NSFEAT_THIN : 0));
    p->nmic = ns->shared ? NVME_NMIC_SHARED : 0;
    if (unmap && props->unmap == ST_UNMAP_ZEROES)
        p->dlfeat = NVME_DLFEAT_ZEROES | NVME_DLFEAT_WRITE_ZEROES;
    /* NAWUN and NAWUPF 0: those of the controller, one block. */
    p->nacwu = blocks0(NVME_FUSED_MAX, ns->shift);
    p->nvmcap[0] = le64_of(size << ns->shift);
    p->npwg = p->npwa = p->nows =
        blocks0(props->physical_sector_size, ns->shift);
    p->npdg = p->npda = blocks0(props->unmap_granularity, ns->shift);
    p->mssrl = le16_of(NVME_MSSRL);
    p->mcl = le32_of(NVME_MCL);
    p->msrc = NVME_MSRC;
    p->nsattr = ns->read_only ? NVME_NSATTR_READ_ONLY : 0;
    memcpy(p->nguid, ns->nguid, sizeof(p->nguid));
    p->lbaf[0].lbads = (uint8_t)ns->shift;
}

static void
independent(const struct nvme_ns *ns, struct nvme_id_ns_any *p)
{
    p->nmic = ns->shared ? NVME_NMIC_SHARED : 0;
    p->nsattr = ns->read_only ? NVME_NSATTR_READ_ONLY : 0;
    p->nstat = NVME_NSTAT_READY;
}

/* Append a descriptor to PAGE at offset AT; give the offset behind it. */
static size_t
descriptor(uint8_t *page, size_t at, enum nvme_ns_id_type type, const void *id,
           uint8_t len)
{
    struct nvme_ns_id_desc d = {.type = (uint8_t)type, .len = len};

    memcpy(page + at, &d, sizeof(d));
    memcpy(page + at + sizeof(d), id, len);
    return at + sizeof(d) + len;
}

/* The list ends with a type of 0, as the rest of the page is. */
static void
descriptors(const struct nvme_ns *ns, uint8_t *page)
{
    static const uint8_t csi = NVME_CSI_NVM;
    size_t at = 0;

    at = descriptor(page, at, NVME_NIDT_NGUID, ns->nguid, sizeof(ns->nguid));
    at = descriptor(page, at, NVME_NIDT_UUID, ns->uuid, sizeof(ns->uuid));
    descriptor(page, at, NVME_NIDT_CSI, &csi, sizeof(csi));
}

/* ---- Lists ---- */

static uint16_t
active(const struct nvme_ns_table *t, uint32_t after, uint8_t *page)
{
    le32 *list = (le32 *)(void *)page;
    unsigned n = 0;

    if (after >= NVME_NSID_ALL - 1)
        return NVME_INVALID_NAMESPACE | NVME_DNR;
    for (uint32_t nsid = after + 1;
         nsid <= t->nn && n < NVME_IDENTIFY_SIZE / sizeof(*list); nsid++)
        if (ns_of(t, nsid))
            list[n++] = le32_of(nsid);
    return NVME_OK;
}

/* A Controller List (Base 4.4.1): the number, and the N of IDS (ascending)
 * that are FROM or more. */
static void
controllers(const uint16_t *ids, unsigned n, uint16_t from, uint8_t *page)
{
    le16 *list = (le16 *)(void *)page;
    unsigned found = 0;

    for (unsigned i = 0; i < n; i++)
        if (ids[i] >= from && found < NVME_IDENTIFY_SIZE / sizeof(*list) - 1)
            list[++found] = le16_of(ids[i]);
    list[0] = le16_of((uint16_t)found);
}

static bool
is_controller(const struct nvme_info *info, const struct nvme_ns_table *t,
              uint16_t cntid)
{
    for (unsigned i = 0; i < t->ncntlids; i++)
        if (t->cntlids[i] == cntid)
            return true;
    return cntid == info->cntlid || cntid == 0xffff; /* this one */
}

/* ---- The command ---- */

/* CNS that are about the namespace NSID. */
static uint16_t
of_namespace(const struct nvme_info *info, const struct nvme_ns_table *t,
             uint32_t nsid, enum nvme_cns cns, uint16_t cntid, uint8_t *page)
{
    const struct nvme_ns *ns = ns_of(t, nsid);

    if (!nsid || nsid > t->nn)
        return NVME_INVALID_NAMESPACE | NVME_DNR;
    if (!ns)
        return NVME_OK;
    switch (cns) {
    case NVME_CNS_NAMESPACE:
    case NVME_CNS_ALLOCATED_NAMESPACE:
        namespace
        (ns, (struct nvme_id_ns *)(void *)page);
        break;
    case NVME_CNS_INDEPENDENT:
        independent(ns, (struct nvme_id_ns_any *)(void *)page);
        break;
    case NVME_CNS_DESCRIPTORS:
        descriptors(ns, page);
        break;
    case NVME_CNS_ATTACHED_CONTROLLERS:
        if (ns->shared)
            controllers(t->cntlids, t->ncntlids, cntid, page);
        else
            controllers(&info->cntlid, 1, cntid, page);
        break;
    default: /* CSI_NAMESPACE: no protection information, no such format */
        break;
    }
    return NVME_OK;
}

uint16_t
st_nvme_identify(const struct nvme_info *info, const struct nvme_ns_table *t,
                 const struct nvme_sqe *sqe,
                 uint8_t page[static NVME_IDENTIFY_SIZE])
{
    uint32_t nsid = le32_get(sqe->nsid), cdw10 = le32_get(sqe->cdw10);
    enum nvme_cns cns = cdw10 & 0xff;
    uint16_t cntid = (uint16_t)(cdw10 >> 16);
    uint8_t csi = (uint8_t)(le32_get(sqe->cdw11) >> 24);
    struct nvme_id_ctrl_nvm *nvm = (struct nvme_id_ctrl_nvm *)(void *)page;
    bool csi_ok = csi == NVME_CSI_NVM;

    memset(page, 0, NVME_IDENTIFY_SIZE);
    switch (cns) {
    case NVME_CNS_CSI_NAMESPACE:
        if (!csi_ok)
            break;
        return of_namespace(info, t, nsid, cns, cntid, page);
    case NVME_CNS_NAMESPACE:
    case NVME_CNS_ALLOCATED_NAMESPACE:
    case NVME_CNS_DESCRIPTORS:
    case NVME_CNS_INDEPENDENT:
    case NVME_CNS_ATTACHED_CONTROLLERS:
        return of_namespace(info, t, nsid, cns, cntid, page);
    case NVME_CNS_CONTROLLER:
        controller(info, t, (struct nvme_id_ctrl *)(void *)page);
        return NVME_OK;
    case NVME_CNS_CSI_ACTIVE:
        if (!csi_ok)
            break;
        return active(t, nsid, page);
    case NVME_CNS_ACTIVE:
    case NVME_CNS_ALLOCATED:
        return active(t, nsid, page);
    case NVME_CNS_CSI_CONTROLLER:
        if (!csi_ok)
            break;
        nvm->vsl = NVME_VSL;
        nvm->wzsl = NVME_WZSL;
        return NVME_OK;
    case NVME_CNS_CONTROLLERS:
        controllers(t->cntlids, t->ncntlids, cntid, page);
        return NVME_OK;
    case NVME_CNS_COMMAND_SETS:
        if (!is_controller(info, t, cntid))
            break;
        page[0] = 1 << NVME_CSI_NVM; /* the first combination: NVM */
        return NVME_OK;
    }
    return NVME_INVALID_FIELD | NVME_DNR;
}
