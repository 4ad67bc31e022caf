/* SPDX-License-Identifier: MIT
 *
 * Features (Base 5.27.1, NVM Command Set 4.1.3): their values, and what may be
 * said of them. None can be saved: what is saved is the default.
 *
 * Error Recovery is, by the standard, a value of each namespace; nothing here
 * depends on it, and one value stands for all. Deallocated blocks never fail a
 * read, so DULBE cannot be set.
 */
#include <string.h>

#include "nvme_page.h"

enum {
    SAVE = UINT32_C(1) << 31, /* CDW10 SV */
    CHANGEABLE = 1 << 2,      /* of a feature's capabilities */
    DULBE = 1 << 16,
    EXHID = 1 << 0,

    THSEL_OVER = 0,
    THSEL_UNDER = 1,
    TMPSEL_ALL = 15,
    SENSORS = 9, /* composite, and 8 */
};

void
st_nvme_features_reset(struct nvme_features *f, const struct nvme_info *info)
{
    uint8_t *coalesce_off = f->coalesce_off;
    unsigned vectors = f->vectors;

    *f = (struct nvme_features){
        .write_cache = true,
        .nsq = (uint16_t)info->queues,
        .ncq = (uint16_t)info->queues,
        .coalesce_off = coalesce_off,
        .vectors = vectors,
        .events = UINT32_MAX,
    };
    f->over[0] = NVME_WCTEMP;
    for (unsigned i = 1; i < SENSORS; i++)
        f->over[i] = UINT16_MAX;
    if (coalesce_off)
        memset(coalesce_off, 0, vectors);
}

unsigned
st_nvme_feature_data(uint8_t fid, uint32_t cdw11)
{
    switch (fid) {
    case NVME_FEAT_TIMESTAMP:
        return 8;
    case NVME_FEAT_HOST_BEHAVIOR:
        return 512;
    case NVME_FEAT_HOST_ID:
        return cdw11 & EXHID ? 16 : 8;
    default:
        return 0;
    }
}

/* Is there such a feature, and may it be asked of NSID? Those about
 * reservations are features of a namespace whose disk has them; none has. */
static uint16_t
check(uint8_t fid, uint32_t nsid, bool set, const struct nvme_ns_table *t)
{
    bool valid = nsid && nsid <= t->nn;

    switch ((enum nvme_feature_id)fid) {
    case NVME_FEAT_RESERVATION_MASK:
    case NVME_FEAT_RESERVATION_PERSISTENCE:
        return (valid ? NVME_INVALID_FIELD : NVME_INVALID_NAMESPACE) | NVME_DNR;
    case NVME_FEAT_ARBITRATION:
    case NVME_FEAT_POWER:
    case NVME_FEAT_TEMPERATURE:
    case NVME_FEAT_ERROR_RECOVERY:
    case NVME_FEAT_WRITE_CACHE:
    case NVME_FEAT_QUEUES:
    case NVME_FEAT_COALESCING:
    case NVME_FEAT_VECTOR:
    case NVME_FEAT_ATOMICITY:
    case NVME_FEAT_EVENTS:
    case NVME_FEAT_TIMESTAMP:
    case NVME_FEAT_HOST_BEHAVIOR:
    case NVME_FEAT_HOST_ID:
        if (!set || !nsid || nsid == NVME_NSID_ALL)
            return NVME_OK;
        if (!valid)
            return NVME_INVALID_NAMESPACE | NVME_DNR;
        return fid == NVME_FEAT_ERROR_RECOVERY
                   ? NVME_OK
                   : NVME_FEATURE_NOT_NS_SPECIFIC | NVME_DNR;
    }
    return NVME_INVALID_FIELD | NVME_DNR;
}

/* ---- Set ---- */

static uint16_t
set_temperature(struct nvme_features *f, uint32_t v)
{
    unsigned sensor = v >> 16 & 15, which = v >> 20 & 3;
    uint16_t *threshold = which == THSEL_OVER ? f->over : f->under;

    if (which > THSEL_UNDER || (sensor >= SENSORS && sensor != TMPSEL_ALL))
        return NVME_INVALID_FIELD | NVME_DNR;
    for (unsigned i = 0; i < SENSORS; i++)
        if (sensor == i || sensor == TMPSEL_ALL)
            threshold[i] = (uint16_t)v;
    return NVME_OK;
}

/* Give what is asked for, at most what there is; both are 0-based. */
static uint16_t
set_queues(struct nvme_features *f, const struct nvme_feature_env *env,
           uint32_t v)
{
    unsigned nsq = v & 0xffff, ncq = v >> 16, max = env->info->queues;

    if (env->queues_exist)
        return NVME_COMMAND_SEQUENCE_ERROR | NVME_DNR;
    if (nsq == 0xffff || ncq == 0xffff)
        return NVME_INVALID_FIELD | NVME_DNR;
    f->nsq = (uint16_t)(nsq < max ? nsq + 1 : max);
    f->ncq = (uint16_t)(ncq < max ? ncq + 1 : max);
    return NVME_OK;
}

static uint16_t
set_vector(struct nvme_features *f, uint32_t v)
{
    unsigned iv = v & 0xffff;

    if (iv >= f->vectors)
        return NVME_INVALID_FIELD | NVME_DNR;
    f->coalesce_off[iv] = v >> 16 & 1;
    return NVME_OK;
}

static void
set_timestamp(struct nvme_features *f, uint64_t now_ms, const uint8_t *data)
{
    le64 v;

    memcpy(&v, data, sizeof(v));
    f->timestamp_set =
        (int64_t)(le64_get(v) & NVME_TIMESTAMP_MASK) - (int64_t)now_ms;
    f->timestamp_by_host = true;
}

/* What is set and known (ACRE, ETDAS, LBAFEE) is on or off. */
static uint16_t
set_host_behavior(struct nvme_features *f, const uint8_t *data)
{
    if (data[0] > 1 || data[1] > 1 || data[2] > 1)
        return NVME_INVALID_FIELD | NVME_DNR;
    memcpy(f->host_behavior, data, sizeof(f->host_behavior));
    return NVME_OK;
}

static void
set_host_id(struct nvme_features *f, uint32_t v, const uint8_t *data)
{
    memset(f->host_id, 0, sizeof(f->host_id));
    f->host_id_extended = v & EXHID;
    memcpy(f->host_id, data, f->host_id_extended ? 16 : 8);
    f->host_id_set = true;
}

uint16_t
st_nvme_feature_set(struct nvme_features *f, const struct nvme_feature_env *env,
                    const struct nvme_sqe *sqe, const uint8_t *data,
                    uint32_t *dw0)
{
    uint32_t cdw10 = le32_get(sqe->cdw10), v = le32_get(sqe->cdw11);
    uint8_t fid = (uint8_t)cdw10;
    uint16_t status = check(fid, le32_get(sqe->nsid), true, env->t);

    *dw0 = 0;
    if (status != NVME_OK)
        return status;
    if (cdw10 & SAVE)
        return NVME_FEATURE_NOT_SAVEABLE | NVME_DNR;
    switch ((enum nvme_feature_id)fid) {
    case NVME_FEAT_ARBITRATION:
        f->arbitration = v;
        break;
    case NVME_FEAT_POWER:
        if (v & 0x1f) /* NPSS is 0 */
            return NVME_INVALID_FIELD | NVME_DNR;
        f->power = v;
        break;
    case NVME_FEAT_TEMPERATURE:
        return set_temperature(f, v);
    case NVME_FEAT_ERROR_RECOVERY:
        if (v & DULBE)
            return NVME_INVALID_FIELD | NVME_DNR;
        f->error_recovery = v;
        break;
    case NVME_FEAT_WRITE_CACHE:
        f->write_cache = v & 1;
        break;
    case NVME_FEAT_QUEUES:
        status = set_queues(f, env, v);
        if (status == NVME_OK)
            st_nvme_feature_get(f, env, sqe, NULL, dw0);
        return status;
    case NVME_FEAT_COALESCING:
        f->coalesce_threshold = (uint8_t)v;
        f->coalesce_time = (uint8_t)(v >> 8);
        break;
    case NVME_FEAT_VECTOR:
        return set_vector(f, v);
    case NVME_FEAT_ATOMICITY:
        f->atomicity_off = v & 1;
        break;
    case NVME_FEAT_EVENTS:
        f->events = v;
        break;
    case NVME_FEAT_TIMESTAMP:
        set_timestamp(f, env->now_ms, data);
        break;
    case NVME_FEAT_HOST_BEHAVIOR:
        return set_host_behavior(f, data);
    case NVME_FEAT_HOST_ID:
        set_host_id(f, v, data);
        break;
    case NVME_FEAT_RESERVATION_MASK:
    case NVME_FEAT_RESERVATION_PERSISTENCE:
        return NVME_INVALID_FIELD | NVME_DNR; /* check has said so */
    }
    return NVME_OK;
}

/* ---- Get ---- */

static uint16_t
get_temperature(const struct nvme_features *f, uint32_t v, uint32_t *dw0)
{
    unsigned sensor = v >> 16 & 15, which = v >> 20 & 3;

    if (which > THSEL_UNDER || sensor >= SENSORS)
        return NVME_INVALID_FIELD | NVME_DNR;
    *dw0 = (v & 0x3f0000) |
           (which == THSEL_OVER ? f->over[sensor] : f->under[sensor]);
    return NVME_OK;
}

static uint16_t
get_vector(const struct nvme_features *f, uint32_t v, uint32_t *dw0)
{
    unsigned iv = v & 0xffff;

    if (iv >= f->vectors)
        return NVME_INVALID_FIELD | NVME_DNR;
    /* Defaults have no array: coalescing is on. */
    *dw0 = iv | (f->coalesce_off && f->coalesce_off[iv] ? 1 << 16 : 0);
    return NVME_OK;
}

/* Milliseconds in 47:0; origin in 51:49: 1 if a host has set it, else 0: it
 * counts from the controller's reset. */
static void
get_timestamp(const struct nvme_features *f, uint64_t now_ms, uint8_t *data)
{
    uint64_t ms = (now_ms + (uint64_t)f->timestamp_set) & NVME_TIMESTAMP_MASK;
    le64 v = le64_of(ms | (uint64_t)f->timestamp_by_host << 49);

    memcpy(data, &v, sizeof(v));
}

static uint16_t
get_host_id(const struct nvme_features *f, uint32_t v, uint8_t *data)
{
    bool extended = v & EXHID;

    if (f->host_id_set && extended != f->host_id_extended)
        return NVME_HOST_ID_INCONSISTENT | NVME_DNR;
    memcpy(data, f->host_id, extended ? 16 : 8);
    return NVME_OK;
}

uint16_t
st_nvme_feature_get(const struct nvme_features *f,
                    const struct nvme_feature_env *env,
                    const struct nvme_sqe *sqe, uint8_t *data, uint32_t *dw0)
{
    uint32_t cdw10 = le32_get(sqe->cdw10), v = le32_get(sqe->cdw11);
    uint8_t fid = (uint8_t)cdw10;
    unsigned select = sqe->opcode == NVME_ADMIN_GET_FEATURES ? cdw10 >> 8 & 7
                                                             : NVME_SEL_CURRENT;
    uint16_t status = check(fid, le32_get(sqe->nsid), false, env->t);
    struct nvme_features defaults = {.vectors = f->vectors};

    *dw0 = 0;
    if (status != NVME_OK)
        return status;
    if (select > NVME_SEL_CAPABILITIES)
        return NVME_INVALID_FIELD | NVME_DNR;
    if (select == NVME_SEL_CAPABILITIES) {
        *dw0 = CHANGEABLE;
        return NVME_OK;
    }
    if (select != NVME_SEL_CURRENT) {
        st_nvme_features_reset(&defaults, env->info);
        defaults.timestamp_set = -(int64_t)env->now_ms;
        f = &defaults;
    }
    switch ((enum nvme_feature_id)fid) {
    case NVME_FEAT_ARBITRATION:
        *dw0 = f->arbitration;
        break;
    case NVME_FEAT_POWER:
        *dw0 = f->power;
        break;
    case NVME_FEAT_TEMPERATURE:
        return get_temperature(f, v, dw0);
    case NVME_FEAT_ERROR_RECOVERY:
        *dw0 = f->error_recovery;
        break;
    case NVME_FEAT_WRITE_CACHE:
        *dw0 = f->write_cache;
        break;
    case NVME_FEAT_QUEUES:
        *dw0 = (uint32_t)(f->ncq - 1) << 16 | (uint32_t)(f->nsq - 1);
        break;
    case NVME_FEAT_COALESCING:
        *dw0 = (uint32_t)f->coalesce_time << 8 | f->coalesce_threshold;
        break;
    case NVME_FEAT_VECTOR:
        return get_vector(f, v, dw0);
    case NVME_FEAT_ATOMICITY:
        *dw0 = f->atomicity_off;
        break;
    case NVME_FEAT_EVENTS:
        *dw0 = f->events;
        break;
    case NVME_FEAT_TIMESTAMP:
        get_timestamp(f, env->now_ms, data);
        break;
    case NVME_FEAT_HOST_BEHAVIOR:
        memcpy(data, f->host_behavior, sizeof(f->host_behavior));
        break;
    case NVME_FEAT_HOST_ID:
        return get_host_id(f, v, data);
    case NVME_FEAT_RESERVATION_MASK:
    case NVME_FEAT_RESERVATION_PERSISTENCE:
        return NVME_INVALID_FIELD | NVME_DNR; /* check has said so */
    }
    return NVME_OK;
}
