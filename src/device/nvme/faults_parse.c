/* SPDX-License-Identifier: MIT
 *
 * Faults on demand: rules from JSON (guide/faults.md). Strict: a key or value
 * that is not known, or that its hook has no use for, is an error that names
 * the rule and the key.
 *
 *   {"rules": [{"name": ..., "on": HOOK,
 *               opcode, nsid, sqid, cid, lba, status, pattern, mask,  which
 *               after, every, count, probability, seed,               when
 *               "do": {...}}, ...]}                                   what
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "fault_names.h"
#include "fault_rule.h"
#include "mem.h"

/* Hooks, as masks. */
enum {
    ADMIN = 1 << NVME_FAULT_ADMIN_SQE | 1 << NVME_FAULT_ADMIN_CQE,
    IO = 1 << NVME_FAULT_IO_SQE | 1 << NVME_FAULT_IO_CQE,
    SQE = 1 << NVME_FAULT_ADMIN_SQE | 1 << NVME_FAULT_IO_SQE,
    CQE = 1 << NVME_FAULT_ADMIN_CQE | 1 << NVME_FAULT_IO_CQE,
    COMMAND = SQE | CQE,
    ENABLE = 1 << NVME_FAULT_ENABLE,
    REGISTER = 1 << NVME_FAULT_REGISTER,
    TIMED = COMMAND | ENABLE | REGISTER,
    CAP = 1 << NVME_FAULT_CAP,
    PCI = 1 << NVME_FAULT_PCI,
    NAMESPACE = 1 << NVME_FAULT_NAMESPACE,
    ANY = (1 << NVME_FAULT_HOOKS) - 1,
};

static const char *const hooks[] = {
    [NVME_FAULT_ADMIN_SQE] = "admin.sqe",
    [NVME_FAULT_ADMIN_CQE] = "admin.cqe",
    [NVME_FAULT_IO_SQE] = "io.sqe",
    [NVME_FAULT_IO_CQE] = "io.cqe",
    [NVME_FAULT_ENABLE] = "enable",
    [NVME_FAULT_REGISTER] = "register",
    [NVME_FAULT_CAP] = "cap",
    [NVME_FAULT_PCI] = "pci",
    [NVME_FAULT_NAMESPACE] = "namespace",
};

struct parser {
    struct nvme_fault_rule *r;
    uint8_t pattern[64], mask[64]; /* of r, as bytes */
    bool dnr;
    const char *key; /* whose value is looked at */
    struct st_err *err;
};

/* A key of an object, and where it may stand. */
struct key {
    const char *name;
    unsigned hooks;
    int (*parse)(struct parser *p, const struct key *k, const json_t *v);
    unsigned what; /* enum nvme_fault_do */
    unsigned offset, size;
};

static int
expected(struct parser *p, const char *what)
{
    return st_err_set(p->err, EINVAL, "%s: expected %s", p->key, what);
}

/* ---- Values ---- */

/* A number from MIN to MAX, or a string of one: "0x281". */
static int
number(struct parser *p, const json_t *v, uint64_t min, uint64_t max,
       uint64_t *out)
{
    const char *text = json_string_value(v);
    uint64_t n = (uint64_t)json_integer_value(v);
    bool ok = json_is_integer(v) && json_integer_value(v) >= 0;

    if (text && text[0] >= '0' && text[0] <= '9') {
        char *end;

        errno = 0;
        n = strtoull(text, &end, text[1] == 'x' ? 16 : 10);
        ok = !errno && !*end && strlen(text) == json_string_length(v);
    }
    if (!ok || n < min || n > max)
        return st_err_set(p->err, EINVAL,
                          "%s: expected a number from %llu to %llu", p->key,
                          (unsigned long long)min, (unsigned long long)max);
    *out = n;
    return 0;
}

/* A number up to MAX, or one of NAMES. */
static int
named(struct parser *p, const json_t *v, const struct nvme_fault_name *names,
      uint64_t max, uint64_t *out)
{
    const char *text = json_string_value(v);

    for (; text && names->name; names++)
        if (strcmp(names->name, text) == 0) {
            *out = names->value;
            return 0;
        }
    if (text && !(text[0] >= '0' && text[0] <= '9'))
        return st_err_set(p->err, EINVAL, "%s: '%.60s' is not known", p->key,
                          text);
    return number(p, v, 0, max, out);
}

static int
hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* A string of hexadecimal digits: MIN to MAX bytes into TO, *N of them. */
static int
hex(struct parser *p, const json_t *v, size_t min, size_t max, uint8_t *to,
    size_t *n)
{
    const char *text = json_string_value(v);
    size_t digits = text ? json_string_length(v) : 1, i = 0;

    *n = digits / 2;
    if (digits % 2 == 0 && *n >= min && *n <= max)
        for (; i < *n; i++) {
            int high = hex_digit(text[2 * i]);
            int low = hex_digit(text[2 * i + 1]);

            if (high < 0 || low < 0)
                break;
            to[i] = (uint8_t)(high << 4 | low);
        }
    if (digits % 2 || *n < min || *n > max || i < *n)
        return st_err_set(p->err, EINVAL,
                          "%s: expected %zu to %zu bytes of hexadecimal digits",
                          p->key, min, max);
    return 0;
}

static int
duration(struct parser *p, const json_t *v, uint64_t *ns)
{
    static const struct nvme_fault_name units[] = {
        {"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {0}};
    const char *text = json_string_value(v), *unit;
    uint64_t n = 0;

    for (unit = text; unit && *unit >= '0' && *unit <= '9'; unit++)
        n = n > NVME_FAULT_NS_MAX ? n : n * 10 + (uint64_t)(*unit - '0');
    for (const struct nvme_fault_name *u = units; u->name; u++)
        if (unit > text && strcmp(unit, u->name) == 0 &&
            n <= NVME_FAULT_NS_MAX / u->value) {
            *ns = n * u->value;
            return 0;
        }
    return expected(p, "a time up to an hour, as \"10ms\" (ns us ms s)");
}

/* VALUE's SIZE low bytes, little-endian, into the bytes at OFFSET. */
static void
put(uint8_t *to, unsigned offset, unsigned size, uint64_t value)
{
    le64 v = le64_of(value);

    memcpy(to + offset, &v, size);
}

static uint64_t
largest(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

/* ---- Which ---- */

/* The command's bytes at OFFSET must be VALUE; what was said before stays. */
static int
want(struct parser *p, unsigned offset, unsigned size, uint64_t value)
{
    uint8_t b[8];

    put(b, 0, 8, value);
    for (unsigned i = 0; i < size; i++) {
        if ((p->pattern[offset + i] ^ b[i]) & p->mask[offset + i])
            return st_err_set(p->err, EINVAL, "%s: contradicts the pattern",
                              p->key);
        p->pattern[offset + i] = b[i];
        p->mask[offset + i] = 0xff;
    }
    return 0;
}

static int
parse_opcode(struct parser *p, const struct key *k, const json_t *v)
{
    bool admin = ADMIN >> p->r->on & 1;
    uint64_t n;
    int rc =
        named(p, v, admin ? st_nvme_fault_admin : st_nvme_fault_io, 0xff, &n);

    return rc ? rc : want(p, k->offset, k->size, n);
}

static int
parse_field(struct parser *p, const struct key *k, const json_t *v)
{
    uint64_t n;
    int rc = number(p, v, 0, largest(k->size), &n);

    return rc ? rc : want(p, k->offset, k->size, n);
}

static int
parse_sqid(struct parser *p, const struct key *k, const json_t *v)
{
    uint64_t n;
    int rc = number(p, v, 0, UINT16_MAX, &n);

    (void)k;
    p->r->has_sqid = !rc;
    p->r->sqid = (uint16_t)n;
    return rc;
}

static int
parse_lba(struct parser *p, const struct key *k, const json_t *v)
{
    uint64_t *lba = p->r->lba;
    int rc;

    (void)k;
    if (json_array_size(v) != 2)
        return expected(p, "[FIRST, LAST]");
    rc = number(p, json_array_get(v, 0), 0, UINT64_MAX, &lba[0]);
    if (!rc)
        rc = number(p, json_array_get(v, 1), lba[0], UINT64_MAX, &lba[1]);
    p->r->has_lba = !rc;
    return rc;
}

static int
parse_status(struct parser *p, const struct key *k, const json_t *v)
{
    uint64_t n;
    int rc = named(p, v, st_nvme_fault_status, 0x7ff, &n);

    (void)k;
    p->r->has_status = !rc;
    p->r->status = (uint16_t)n;
    return rc;
}

static int
parse_pattern(struct parser *p, const struct key *k, const json_t *v)
{
    size_t n;
    int rc = hex(p, v, 64, 64, p->pattern, &n);

    (void)k;
    if (!rc)
        memset(p->mask, 0xff, sizeof(p->mask));
    return rc;
}

static int
parse_mask(struct parser *p, const struct key *k, const json_t *v)
{
    size_t n;
    int rc;

    (void)k;
    if (!p->mask[0]) /* a pattern has set it, nothing else has yet */
        return st_err_set(p->err, EINVAL, "mask: there is no pattern");
    rc = hex(p, v, 64, 64, p->mask, &n);
    for (unsigned i = 0; !rc && i < 64; i++)
        p->pattern[i] &= p->mask[i];
    return rc;
}

/* ---- When ---- */

static int
parse_when(struct parser *p, const struct key *k, const json_t *v)
{
    uint64_t *to = (uint64_t *)(void *)((char *)p->r + k->offset);

    return number(p, v, k->size, UINT64_MAX, to);
}

static int
parse_probability(struct parser *p, const struct key *k, const json_t *v)
{
    double d = json_number_value(v);

    (void)k;
    if (!(d > 0 && d <= 1))
        return expected(p, "a number above 0, up to 1");
    p->r->chance = d < 1 ? (uint64_t)(d * 0x1p64) : 0;
    if (d < 1 && !p->r->chance)
        p->r->chance = 1;
    return 0;
}

/* ---- What ---- */

static int
do_flag(struct parser *p, const struct key *k, const json_t *v)
{
    (void)k;
    return json_is_true(v) ? 0 : expected(p, "true");
}

static int
do_status(struct parser *p, const struct key *k, const json_t *v)
{
    uint64_t n;
    int rc = named(p, v, st_nvme_fault_status, 0x7ff, &n);

    (void)k;
    p->r->what.status = (uint16_t)n;
    return rc;
}

static int
do_dnr(struct parser *p, const struct key *k, const json_t *v)
{
    (void)k;
    p->dnr = true;
    return json_is_true(v) ? 0 : expected(p, "true");
}

static int
do_time(struct parser *p, const struct key *k, const json_t *v)
{
    (void)k;
    return duration(p, v, &p->r->what.ns);
}

static int
do_torn(struct parser *p, const struct key *k, const json_t *v)
{
    (void)k;
    return number(p, v, 0, UINT16_MAX, &p->r->what.blocks);
}

static int
do_data(struct parser *p, const struct key *k, const json_t *v)
{
    struct nvme_fault_rule *r = p->r;

    (void)k;
    r->data = malloc(NVME_FAULT_DATA_MAX);
    if (!r->data)
        return st_err_set(p->err, ENOMEM, "no memory");
    r->what.data = r->data;
    return hex(p, v, 1, NVME_FAULT_DATA_MAX, r->data, &r->what.data_len);
}

static const struct key sqe_fields[] = {
    {"opcode", 0, NULL, 0, 0, 1},
    {"cid", 0, NULL, 0, 2, 2},
    {"nsid", 0, NULL, 0, 4, 4},
    {"cdw2", 0, NULL, 0, 8, 4},
    {"cdw3", 0, NULL, 0, 12, 4},
    {"mptr", 0, NULL, 0, 16, 8},
    {"prp1", 0, NULL, 0, 24, 8},
    {"prp2", 0, NULL, 0, 32, 8},
    {"cdw10", 0, NULL, 0, 40, 4},
    {"cdw11", 0, NULL, 0, 44, 4},
    {"cdw12", 0, NULL, 0, 48, 4},
    {"cdw13", 0, NULL, 0, 52, 4},
    {"cdw14", 0, NULL, 0, 56, 4},
    {"cdw15", 0, NULL, 0, 60, 4},
    {0},
};

static const struct key cqe_fields[] = {
    {"dw0", 0, NULL, 0, 0, 4},  {"dw1", 0, NULL, 0, 4, 4},
    {"sqhd", 0, NULL, 0, 8, 2}, {"sqid", 0, NULL, 0, 10, 2},
    {"cid", 0, NULL, 0, 12, 2}, {0},
};

/* A field by its name, into value and mask: {"nsid": 7, "bytes": ...}. */
static int
entry_field(struct parser *p, const struct key *fields, const json_t *v)
{
    struct nvme_fault *what = &p->r->what;
    uint64_t n;
    int rc;

    for (; fields->name; fields++)
        if (strcmp(fields->name, p->key) == 0) {
            rc = number(p, v, 0, largest(fields->size), &n);
            put(what->value, fields->offset, fields->size, n);
            put(what->mask, fields->offset, fields->size, UINT64_MAX);
            return rc;
        }
    return st_err_set(p->err, EINVAL, "'%.60s' is not known", p->key);
}

/* Replace parts of an entry of SIZE bytes: "bytes" under "mask" first, then
 * fields. */
static int
do_entry(struct parser *p, const struct key *k, const json_t *v)
{
    const struct key *fields =
        k->what == NVME_FAULT_SQE ? sqe_fields : cqe_fields;
    struct nvme_fault *what = &p->r->what;
    const json_t *bytes = json_object_get(v, "bytes");
    const json_t *mask = json_object_get(v, "mask");
    const char *name = p->key;
    size_t n;
    int rc = json_object_size(v) ? 0 : expected(p, "an object with fields");

    p->key = "bytes";
    if (!rc && mask && !bytes)
        rc = expected(p, "with a mask");
    if (!rc && bytes) {
        rc = hex(p, bytes, k->size, k->size, what->value, &n);
        memset(what->mask, 0xff, k->size);
    }
    p->key = "mask";
    if (!rc && mask)
        rc = hex(p, mask, k->size, k->size, what->mask, &n);
    for (void *i = json_object_iter((json_t *)(uintptr_t)v); i && !rc;
         i = json_object_iter_next((json_t *)(uintptr_t)v, i)) {
        p->key = json_object_iter_key(i);
        if (strcmp(p->key, "bytes") != 0 && strcmp(p->key, "mask") != 0)
            rc = entry_field(p, fields, json_object_iter_value(i));
    }
    if (rc && p->key != name)
        st_err_prefix(p->err, "%s", name);
    p->key = name;
    return rc;
}

static int
do_id(struct parser *p, const struct key *k, const json_t *v)
{
    int *to = (int *)(void *)((char *)&p->r->ids + k->offset);
    uint64_t n;
    int rc = number(p, v, k->size, UINT16_MAX, &n);

    if (!rc)
        *to = (int)n;
    return rc;
}

static int
do_changed(struct parser *p, const struct key *k, const json_t *v)
{
    struct nvme_fault_rule *r = p->r;
    size_t n = json_array_size(v);
    uint64_t nsid;
    int rc = 0;

    (void)k;
    if (!n || n > NVME_FAULT_CHANGED_MAX)
        return expected(p, "a list of up to 1024 namespace identifiers");
    r->changed = calloc(n, sizeof(*r->changed));
    if (!r->changed)
        return st_err_set(p->err, ENOMEM, "no memory");
    for (; r->nchanged < n && !rc; r->nchanged++) {
        rc = number(p, json_array_get(v, r->nchanged), 1, UINT32_MAX, &nsid);
        r->changed[r->nchanged] = (uint32_t)nsid;
    }
    return rc;
}

#define ID(field) offsetof(struct nvme_fault_ids, field)

static const struct key do_keys[] = {
    {"status", COMMAND, do_status, NVME_FAULT_STATUS, 0, 0},
    {"dnr", COMMAND, do_dnr, 0, 0, 0},
    {"drop", COMMAND, do_flag, NVME_FAULT_DROP, 0, 0},
    {"stuck", COMMAND | ENABLE, do_flag, NVME_FAULT_STUCK, 0, 0},
    {"delay", COMMAND | ENABLE, do_time, NVME_FAULT_DELAY, 0, 0},
    {"stall", COMMAND, do_time, NVME_FAULT_STALL, 0, 0},
    {"sqe", SQE, do_entry, NVME_FAULT_SQE, 0, 64},
    {"cqe", CQE, do_entry, NVME_FAULT_CQE, 0, 16},
    {"wrong-phase", CQE, do_flag, NVME_FAULT_PHASE, 0, 0},
    {"duplicate", CQE, do_flag, NVME_FAULT_DUPLICATE, 0, 0},
    {"no-interrupt", CQE, do_flag, NVME_FAULT_NO_INTERRUPT, 0, 0},
    {"interrupt", CQE, do_flag, NVME_FAULT_INTERRUPT, 0, 0},
    {"cfs", TIMED, do_flag, NVME_FAULT_CFS, 0, 0},
    {"gone", TIMED, do_flag, NVME_FAULT_GONE, 0, 0},
    {"torn", 1 << NVME_FAULT_IO_SQE, do_torn, NVME_FAULT_TORN, 0, 0},
    {"data", CQE, do_data, NVME_FAULT_DATA, 0, 0},
    {"reorder", CQE, do_flag, NVME_FAULT_REORDER, 0, 0},
    {"mqes", CAP, do_id, 0, ID(mqes), 1},
    {"vendor", PCI, do_id, 0, ID(vendor), 0},
    {"device", PCI, do_id, 0, ID(device), 0},
    {"changed", NAMESPACE, do_changed, 0, 0, 0},
    {0},
};

/* What cannot be had together with what. */
static const struct {
    unsigned one, others;
} conflicts[] = {
    {NVME_FAULT_DROP, NVME_FAULT_STATUS | NVME_FAULT_STUCK | NVME_FAULT_DELAY |
                          NVME_FAULT_SQE | NVME_FAULT_CQE |
                          NVME_FAULT_DUPLICATE | NVME_FAULT_NO_INTERRUPT |
                          NVME_FAULT_TORN | NVME_FAULT_DATA |
                          NVME_FAULT_REORDER | NVME_FAULT_PHASE},
    {NVME_FAULT_STUCK, NVME_FAULT_DELAY | NVME_FAULT_REORDER},
    {NVME_FAULT_DELAY, NVME_FAULT_STALL | NVME_FAULT_REORDER},
    {NVME_FAULT_INTERRUPT, NVME_FAULT_NO_INTERRUPT},
    {NVME_FAULT_TORN, NVME_FAULT_STATUS | NVME_FAULT_SQE},
    {NVME_FAULT_SQE, NVME_FAULT_STATUS},
};

/* ---- Objects ---- */

/* Every key of O is one of KEYS and has a use on the rule's hook; parse them in
 * the order of KEYS. */
static int
parse_keys(struct parser *p, const json_t *o, const struct key *keys)
{
    size_t found = 0;
    int rc = 0;

    for (const struct key *k = keys; k->name && !rc; k++) {
        const json_t *v = json_object_get(o, k->name);

        if (!v)
            continue;
        found++;
        p->key = k->name;
        if (!(k->hooks >> p->r->on & 1))
            return st_err_set(p->err, EINVAL, "%s: has no use on %s", p->key,
                              hooks[p->r->on]);
        p->r->what.what |= k->what;
        if (k->parse)
            rc = k->parse(p, k, v);
    }
    if (rc || found == json_object_size(o))
        return rc;
    for (void *i = json_object_iter((json_t *)(uintptr_t)o); i;
         i = json_object_iter_next((json_t *)(uintptr_t)o, i)) {
        const struct key *k = keys;

        while (k->name && strcmp(k->name, json_object_iter_key(i)) != 0)
            k++;
        if (!k->name)
            return st_err_set(p->err, EINVAL, "'%.60s' is not known",
                              json_object_iter_key(i));
    }
    return 0;
}

static int
check_conflicts(struct parser *p)
{
    unsigned what = p->r->what.what;

    for (size_t i = 0; i < sizeof(conflicts) / sizeof(*conflicts); i++) {
        unsigned bad = what & conflicts[i].others;
        const char *one = "", *other = "";

        if (!(what & conflicts[i].one) || !bad)
            continue;
        for (const struct key *k = do_keys; k->name; k++) {
            if (k->what == conflicts[i].one)
                one = k->name;
            if (k->what & bad)
                other = k->name;
        }
        return st_err_set(p->err, EINVAL, "%s and %s do not go together", one,
                          other);
    }
    return 0;
}

/* "do": an object, or the name of what needs no value. */
static int
parse_do(struct parser *p, const struct key *k, const json_t *v)
{
    const char *text = json_string_value(v);
    int rc;

    (void)k;
    if (text) {
        const struct key *d = do_keys;

        while (d->name && !(d->parse == do_flag && strcmp(d->name, text) == 0))
            d++;
        if (!d->name)
            return st_err_set(p->err, EINVAL, "do: '%.60s' is not known", text);
        if (!(d->hooks >> p->r->on & 1))
            return st_err_set(p->err, EINVAL, "do: %s has no use on %s", text,
                              hooks[p->r->on]);
        p->r->what.what = d->what;
        return 0;
    }
    if (!json_object_size(v))
        return expected(p, "what happens, as {\"status\": \"write-fault\"}");
    rc = parse_keys(p, v, do_keys);
    if (!rc && p->dnr && !(p->r->what.what & NVME_FAULT_STATUS))
        rc = st_err_set(p->err, EINVAL, "dnr: there is no status");
    if (!rc)
        rc = check_conflicts(p);
    if (p->dnr)
        p->r->what.status |= NVME_DNR;
    if (rc)
        st_err_prefix(p->err, "do");
    return rc;
}

#define WHEN(field) offsetof(struct nvme_fault_rule, field)

static const struct key rule_keys[] = {
    {"name", ANY, NULL, 0, 0, 0}, /* both before the others */
    {"on", ANY, NULL, 0, 0, 0},
    {"pattern", COMMAND, parse_pattern, 0, 0, 0},
    {"mask", COMMAND, parse_mask, 0, 0, 0},
    {"opcode", COMMAND, parse_opcode, 0, 0, 1},
    {"cid", COMMAND, parse_field, 0, 2, 2},
    {"nsid", COMMAND, parse_field, 0, 4, 4},
    {"sqid", COMMAND, parse_sqid, 0, 0, 0},
    {"lba", IO, parse_lba, 0, 0, 0},
    {"status", CQE, parse_status, 0, 0, 0},
    {"after", TIMED, parse_when, 0, WHEN(after), 0}, /* size: the least */
    {"every", TIMED, parse_when, 0, WHEN(every), 1},
    {"count", TIMED, parse_when, 0, WHEN(count), 1},
    {"seed", TIMED, parse_when, 0, WHEN(seed), 0},
    {"probability", TIMED, parse_probability, 0, 0, 0},
    {"do", ANY, parse_do, 0, 0, 0},
    {0},
};

static int
parse_name(struct parser *p, const json_t *v)
{
    const char *text = json_string_value(v);
    size_t len = text ? json_string_length(v) : 0;

    p->key = "name";
    if (!v)
        return 0;
    if (!len || len >= sizeof(p->r->name) || strlen(text) != len)
        return expected(p, "a string of 1 to 63 bytes");
    memcpy(p->r->name, text, len + 1);
    return 0;
}

static int
parse_on(struct parser *p, const json_t *v)
{
    const char *text = json_string_value(v);

    p->key = "on";
    for (unsigned i = 0; text && i < NVME_FAULT_HOOKS; i++)
        if (strcmp(hooks[i], text) == 0) {
            p->r->on = i;
            return 0;
        }
    return expected(p, "admin.sqe, admin.cqe, io.sqe, io.cqe, enable, "
                       "register, cap, pci or namespace");
}

static int
parse_rule(struct nvme_fault_rule *r, const json_t *o, struct st_err *err)
{
    struct parser p = {.r = r, .err = err};
    int rc;

    r->every = 1;
    r->ids = (struct nvme_fault_ids){-1, -1, -1};
    if (!json_is_object(o))
        return st_err_set(err, EINVAL, "expected an object");
    rc = parse_name(&p, json_object_get(o, "name"));
    if (!rc)
        rc = parse_on(&p, json_object_get(o, "on"));
    if (!rc)
        rc = parse_keys(&p, o, rule_keys);
    if (!rc && !json_object_get(o, "do"))
        rc = st_err_set(err, EINVAL, "'do' is missing");
    memcpy(r->pattern, p.pattern, sizeof(r->pattern));
    memcpy(r->mask, p.mask, sizeof(r->mask));
    return rc;
}

/* ---- All of them ---- */

/* Sort rules by hook; those of one stay in order. */
static void
sort(struct nvme_faults *f)
{
    unsigned n = 0;

    for (unsigned on = 0; on < NVME_FAULT_HOOKS; on++) {
        f->start[on] = n;
        for (unsigned i = 0; i < f->n; i++)
            if (f->rule[i].on == on)
                f->at[n++] = &f->rule[i];
    }
    f->start[NVME_FAULT_HOOKS] = n;
}

static int
parse_rules(const json_t *root, struct nvme_faults **out, struct st_err *err)
{
    const json_t *rules = json_object_get(root, "rules");
    size_t n = json_array_size(rules);
    struct nvme_faults *f;

    if (!json_is_array(rules) || json_object_size(root) != 1)
        return st_err_set(err, EINVAL,
                          "faults: expected {\"rules\": [...]} alone");
    if (n > NVME_FAULT_RULES_MAX)
        return st_err_set(err, EINVAL, "faults: more than %d rules",
                          NVME_FAULT_RULES_MAX);
    if (!n)
        return 0;
    f = calloc(1, sizeof(*f) + n * sizeof(f->rule[0]));
    if (!f)
        return st_err_set(err, ENOMEM, "faults: no memory");
    while (f->n < n) {
        struct nvme_fault_rule *r = &f->rule[f->n++];
        int rc;

        snprintf(r->name, sizeof(r->name), "rule %u", f->n);
        rc = parse_rule(r, json_array_get(rules, f->n - 1), err);
        if (rc) {
            st_err_prefix(err, "faults: rule %u, '%s'", f->n, r->name);
            st_nvme_faults_free(f);
            return rc;
        }
    }
    sort(f);
    *out = f;
    return 0;
}

int
st_nvme_faults_parse(const char *text, struct nvme_faults **out,
                     struct st_err *err)
{
    json_error_t e;
    json_t *root;
    int rc;

    *out = NULL;
    if (!text[strspn(text, " \t\r\n")])
        return 0;
    root = json_loads(text, JSON_REJECT_DUPLICATES, &e);
    if (!root)
        return st_err_set(err, EINVAL, "faults: line %d: %s", e.line, e.text);
    rc = parse_rules(root, out, err);
    json_decref(root);
    return rc;
}
