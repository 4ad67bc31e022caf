/* SPDX-License-Identifier: MIT
 *
 * The rules of a fault node: from text, and against a request. The grammar is
 * in fault.h.
 */
#include "fault_rules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rand.h"
#include "size.h"

struct name {
    const char *name;
    uint64_t value;
};

static const struct name ops[] = {
    {"read", ST_BIT(ST_OP_READ)},
    {"write", ST_BIT(ST_OP_WRITE)},
    {"flush", ST_BIT(ST_OP_FLUSH)},
    {"unmap", ST_BIT(ST_OP_UNMAP)},
    {"zero", ST_BIT(ST_OP_WRITE_ZEROES)},
    {"status", ST_BIT(ST_OP_BLOCK_STATUS)},
    {"compare", ST_BIT(ST_OP_COMPARE_AND_WRITE)},
    {"eject", ST_BIT(ST_OP_EJECT)},
    {"shutdown", ST_BIT(ST_OP_SHUTDOWN)},
    {"any", ST_BIT(ST_OP_COUNT) - 1},
    {NULL, 0},
};

/* The errno that st_status_from_errno makes such a status of. */
static const struct name statuses[] = {
    {"medium", ENODATA},
    {"guard", EILSEQ},
    {"conflict", EBADE},
    {"no-space", ENOSPC},
    {"read-only", EROFS},
    {"io", EIO},
    {NULL, 0},
};

static const struct name units[] = {
    {"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}, {NULL, 0},
};

static uint64_t
value_of(const struct name *n, const char *text)
{
    while (n->name && strcmp(n->name, text) != 0)
        n++;
    return n->value;
}

static bool
parse_ops(struct st_fault_rule *r, char *word)
{
    for (char *op; (op = strsep(&word, ",")) != NULL;) {
        uint64_t found = value_of(ops, op);

        if (!found)
            return false;
        r->ops |= (uint32_t)found;
    }
    return true;
}

static bool
parse_range(struct st_fault_rule *r, char *word)
{
    char *sep = strpbrk(word, "-+"), kind;

    if (!sep)
        return strcmp(word, "*") == 0;
    kind = *sep;
    *sep++ = '\0';
    if (st_size_parse(word, &r->start, NULL) ||
        st_size_parse(sep, &r->end, NULL) ||
        (kind == '+' && __builtin_add_overflow(r->start, r->end, &r->end)))
        return false;
    return r->start < r->end && r->end <= ST_OFFSET_MAX;
}

static bool
parse_duration(char *text, uint64_t *ns)
{
    char *unit = text + strspn(text, "0123456789");
    uint64_t factor = value_of(units, unit);

    *unit = '\0';
    if (!factor || st_number_parse("", text, 0, 1000000000, ns, NULL))
        return false;
    *ns *= factor;
    return true;
}

static bool
parse_error(struct st_fault_rule *r, const char *name)
{
    r->error = (int)value_of(statuses, name);
    for (int e = 1; !r->error && e < 134; e++)
        if (strerrorname_np(e) && strcmp(strerrorname_np(e), name) == 0)
            r->error = e;
    return r->error != 0;
}

static bool
parse_chance(struct st_fault_rule *r, const char *text)
{
    char *end;
    double p = strtod(text, &end);

    r->chance = p > 0 && p < 1 ? (uint64_t)(p * 0x1p64) : 0;
    return *text && !*end && p > 0 && p <= 1;
}

static bool
parse_word(struct st_fault_rule *r, char *word)
{
    const struct {
        const char *name;
        uint64_t *to, min;
    } numbers[] = {{"after", &r->after, 0},
                   {"every", &r->every, 1},
                   {"seed", &r->seed, 0},
                   {"count", &r->count, 1}};
    char *value = strchr(word, '=');

    if (!value)
        return r->hang = strcmp(word, "hang") == 0;
    *value++ = '\0';
    if (strcmp(word, "error") == 0 || strcmp(word, "status") == 0)
        return parse_error(r, value);
    if (strcmp(word, "delay") == 0)
        return parse_duration(value, &r->delay_ns);
    if (strcmp(word, "p") == 0)
        return parse_chance(r, value);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        if (strcmp(word, numbers[i].name) == 0)
            return st_number_parse(word, value, numbers[i].min, UINT64_MAX,
                                   numbers[i].to, NULL) == 0;
    return false;
}

static int
parse_rule(struct st_fault_rule *r, char *line, struct st_err *err)
{
    const char *expected = "read, write, flush, unmap, zero, status, compare, "
                           "eject, shutdown or any, with commas";
    char *save, *word = strtok_r(line, " \t\r", &save), bad[40];
    bool ok;

    r->every = 1;
    snprintf(bad, sizeof(bad), "%s", word);
    ok = parse_ops(r, word);
    for (unsigned i = 0; ok; i++) {
        word = strtok_r(NULL, " \t\r", &save);
        if (!word && i)
            break;
        snprintf(bad, sizeof(bad), "%s", word ? word : "");
        expected = i ? "error=EIO, status=medium, delay=10ms, hang, after=N, "
                       "every=N, p=0.01, seed=N or count=N"
                     : "a range: *, A-B or A+N";
        ok = word && (i ? parse_word(r, word) : parse_range(r, word));
    }
    if (!ok)
        return st_err_set(err, EINVAL, "'%s' is not understood, expected %s",
                          bad, expected);
    if (!r->error && !r->hang && !r->delay_ns)
        return st_err_set(err, EINVAL,
                          "nothing would happen, expected error=, "
                          "status=, delay= or hang");
    return 0;
}

int
st_fault_rules_parse(const char *name, const char *text,
                     struct st_fault_rules **out, struct st_err *err)
{
    st_autofree char *copy = strdup(text);
    st_autofree struct st_fault_rules *rules = calloc(
        1, sizeof(*rules) + ST_FAULT_RULES_MAX * sizeof(struct st_fault_rule));
    char *rest = copy;

    if (!copy || !rules)
        return st_err_set(err, ENOMEM, "%s: no memory", name);
    for (unsigned number = 1; rest; number++) {
        struct st_fault_rule *r = &rules->rule[rules->n];
        char *line = strsep(&rest, "\n");
        int rc;

        line[strcspn(line, "#")] = '\0';
        line += strspn(line, " \t\r");
        if (!*line)
            continue;
        if (rules->n == ST_FAULT_RULES_MAX)
            return st_err_set(err, EINVAL, "%s line %u: more than %d rules",
                              name, number, ST_FAULT_RULES_MAX);
        rules->n++;
        snprintf(r->text, sizeof(r->text), "%s", line);
        rc = parse_rule(r, line, err);
        if (rc) {
            st_err_prefix(err, "%s line %u, '%s'", name, number, r->text);
            return rc;
        }
    }
    *out = st_steal(rules);
    return 0;
}

/* Is it R's time? MATCHES is how many requests it had matched before. */
static bool
fires(struct st_fault_rule *r, uint64_t matches)
{
    struct st_rand dice = st_rand_seed(r->seed + matches);

    if (matches < r->after || (matches - r->after + 1) % r->every ||
        (r->chance && st_rand_next(&dice) >= r->chance))
        return false;
    if (atomic_fetch_add(&r->fired, 1) < r->count || !r->count)
        return true;
    atomic_fetch_sub(&r->fired, 1);
    return false;
}

const struct st_fault_rule *
st_fault_rules_match(struct st_fault_rules *rules, const struct st_req *req)
{
    uint32_t op = ST_BIT(req->op);

    for (struct st_fault_rule *r = rules->rule; r < rules->rule + rules->n; r++)
        if (r->ops & op &&
            (!r->end || (op & ST_OPS_RANGED &&
                         st_range_overlap(req->offset, req->len, r->start,
                                          r->end - r->start))) &&
            fires(r, atomic_fetch_add(&r->matched, 1)))
            return r;
    return NULL;
}
