/* SPDX-License-Identifier: MIT
 *
 * The words of --disk; see attach.h. The parts at commas are dealt out, those
 * of each place to an option string of its own, which the one grammar
 * (options.h) then reads:
 *
 *   SPEC,on=a,nsid=1,ro,on=b  -->  SPEC,ro    on=a,nsid=1    on=b
 */
#include "attach.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "options.h"
#include "size.h"
#include "words.h"

enum {
    DISK,
    RO,
    ON,
    NSID,
    EXPORT,
    NAME,
    LUN,
    DVD,
    RELAY,
    PCIE_PORT,
    VTL2,
    UH,
    UH_NVME,
};

/* All that a user may say; a place takes the first of them that is no disk. */
static const struct st_option disk_table[] = {
    [DISK] = {"disk", ST_OPTION_DISK, true, 0},
    [RO] = {"ro", ST_OPTION_FLAG, false, 0},
    [ON] = {"on", ST_OPTION_VALUE, false, 0},
    [NSID] = {"nsid", ST_OPTION_VALUE, false, 0},
    [EXPORT] = {"export", ST_OPTION_VALUE, false, 0},
    [NAME] = {"name", ST_OPTION_VALUE, false, 0},
    [LUN] = {"lun", ST_OPTION_VALUE, false, 0},
    [DVD] = {"dvd", ST_OPTION_FLAG, false, 0},
    [RELAY] = {"relay", ST_OPTION_VALUE, false, 0},
    [PCIE_PORT] = {"pcie_port", ST_OPTION_VALUE, false, 0},
    [VTL2] = {"vtl2", ST_OPTION_FLAG, false, 0},
    [UH] = {"uh", ST_OPTION_FLAG, false, 0},
    [UH_NVME] = {"uh-nvme", ST_OPTION_FLAG, false, 0},
    {0},
};

enum { AT_ON, AT_NSID, AT_LUN, AT_EXPORT, AT_RELAY };

static const struct st_option at_table[] = {
    [AT_ON] = {"on", ST_OPTION_VALUE, true, 0},
    [AT_NSID] = {"nsid", ST_OPTION_VALUE, false, 0},
    [AT_LUN] = {"lun", ST_OPTION_VALUE, false, 0},
    [AT_EXPORT] = {"export", ST_OPTION_VALUE, false, 0},
    [AT_RELAY] = {"relay", ST_OPTION_VALUE, false, 0},
    {0},
};

/* ---- Dealing the parts out ---- */

/* Is PART the option KEY, with or without a value? */
static bool
is_option(const char *part, const char *key)
{
    size_t len = strlen(key);

    return strncmp(part, key, len) == 0 && (!part[len] || part[len] == '=');
}

/* Does PART belong to the place before it? */
static bool
is_place(const char *part)
{
    for (const struct st_option *o = &at_table[AT_NSID]; o->name; o++)
        if (is_option(part, o->name))
            return true;
    return false;
}

/* A text that grows by parts with commas between. */
struct parts {
    char *text; /* owned, as long as what is dealt out */
    size_t len;
    bool any;
};

static void
append(struct parts *p, const char *part)
{
    if (p->any)
        p->text[p->len++] = ',';
    strcpy(p->text + p->len, part);
    p->len += strlen(part);
    p->any = true;
}

/* Deal the parts of TEXT (which is cut up) out to OUT, the first for the disk.
 * Gives the number of places, or -errno. */
static int
deal(char *text, struct parts out[1 + ST_ATTACH_MAX], struct st_err *err)
{
    size_t room = strlen(text) + 1;
    bool first = true;
    int n = 0;

    while (text) {
        char *next = st_word_find_outside(text, ',');
        struct parts *p = &out[0];

        if (next)
            *next++ = '\0';
        if (!first && is_option(text, "on")) {
            if (n == ST_ATTACH_MAX)
                return st_err_set(err, EINVAL,
                                  "more than %d times on=", ST_ATTACH_MAX);
            p = &out[++n];
        } else if (!first && n && is_place(text)) {
            p = &out[n];
        }
        if (!p->text)
            p->text = calloc(1, room);
        if (!p->text)
            return st_err_set(err, ENOMEM, "no memory");
        append(p, text);
        first = false;
        text = next;
    }
    return n;
}

/* ---- Rules ---- */

enum {
    HAS_UH = 1 << 0,
    HAS_UH_NVME = 1 << 1,
    HAS_VTL2 = 1 << 2,
    HAS_PORT = 1 << 3,
    HAS_DVD = 1 << 4,
    HAS_ON = 1 << 5,
    HAS_NSID = 1 << 6, /* without on */
    HAS_LUN = 1 << 7,
    HAS_EXPORT = 1 << 8,
    HAS_RELAY = 1 << 9,
    HAS_ANY_RELAY = 1 << 10, /* with on, too */
    HAS_ANY_UH = HAS_UH | HAS_UH_NVME,
};

/* In the order in which they are judged: an error where something of A and (if
 * it is not 0) something of B is given. */
static const struct {
    unsigned a, b;
    const char *sentence;
} rules[] = {
    {HAS_UH, HAS_UH_NVME, "either uh or uh-nvme, not both"},
    {HAS_ANY_UH, HAS_VTL2,
     "uh and uh-nvme relay from VTL2 already, they cannot be with vtl2"},
    {HAS_PORT, HAS_ANY_UH | HAS_VTL2 | HAS_DVD,
     "pcie_port cannot be with uh, uh-nvme, vtl2 or dvd"},
    {HAS_ON, HAS_PORT, "on and pcie_port cannot be together"},
    {HAS_ON, HAS_VTL2,
     "on and vtl2 cannot be together, the controller's VTL decides"},
    {HAS_ON, HAS_ANY_UH, "on cannot be with uh or uh-nvme, use relay="},
    {HAS_NSID, 0, "nsid= needs on=ID before it"},
    {HAS_LUN, 0, "lun= needs on=ID before it"},
    {HAS_EXPORT, 0, "export= needs on=ID before it"},
    {HAS_RELAY, 0, "relay= needs on=ID before it"},
    {HAS_ANY_RELAY, HAS_ANY_UH, "relay cannot be with uh or uh-nvme"},
    /* What is understood, and not here. */
    {HAS_PORT, 0,
     "pcie_port names a slot of a machine, which there is none of here, use "
     "on=ID with the id of a controller or door"},
    {HAS_VTL2, 0, "there is no VTL2 here, use on=ID"},
    {HAS_ANY_UH, 0, "there is no VTL2 here to relay from, use on=ID"},
};

/* "ctrl[:location]" */
static int
check_relay(const char *relay, struct st_err *err)
{
    const char *colon = strrchr(relay, ':');
    uint64_t location;

    if (colon &&
        st_number_parse("relay", colon + 1, 0, UINT32_MAX, &location, NULL) < 0)
        return st_err_set(err, EINVAL,
                          "invalid relay location '%s', expected a number up "
                          "to 4294967295",
                          colon + 1);
    return st_err_set(err, EINVAL,
                      "relay=%s: there is no OpenHCL here to relay to, use "
                      "on=ID alone",
                      relay);
}

static int
take_place(const char *const *value, struct st_attach_at *at,
           struct st_err *err)
{
    uint64_t n;
    int rc = 0;

    at->on = value[AT_ON];
    at->export = value[AT_EXPORT];
    if (value[AT_NSID] && value[AT_LUN])
        return st_err_set(
            err, EINVAL, "either nsid= or lun= behind on=%s, not both", at->on);
    if (value[AT_NSID]) {
        rc =
            st_number_parse("nsid", value[AT_NSID], 1, UINT32_MAX - 1, &n, err);
        at->nsid = rc == 0 ? (uint32_t)n : 0;
    }
    if (rc == 0 && value[AT_LUN]) {
        rc = st_number_parse("lun", value[AT_LUN], 0, UINT8_MAX, &n, err);
        at->has_lun = true;
    }
    if (rc == 0 && value[AT_RELAY])
        rc = check_relay(value[AT_RELAY], err);
    return rc;
}

static int
judge(const char *const *value, unsigned has, struct st_err *err)
{
    static const unsigned row[] = {
        [UH] = HAS_UH,
        [UH_NVME] = HAS_UH_NVME,
        [VTL2] = HAS_VTL2,
        [PCIE_PORT] = HAS_PORT,
        [DVD] = HAS_DVD,
        [NSID] = HAS_NSID,
        [LUN] = HAS_LUN,
        [EXPORT] = HAS_EXPORT,
        [RELAY] = HAS_RELAY | HAS_ANY_RELAY,
    };

    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        has |= value[i] ? row[i] : 0;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if ((has & rules[i].a) && (!rules[i].b || (has & rules[i].b)))
            return st_err_set(err, EINVAL, "%s", rules[i].sentence);
    if (!(has & HAS_ON))
        return st_err_set(err, EINVAL,
                          "missing on=ID with the id of a controller or door");
    return 0;
}

/* ---- The whole ---- */

/* Read the option string TEXT by TABLE; its memory becomes OUT's. */
static int
read_part(const char *what, const char *text, const struct st_option *table,
          struct st_attach *out, unsigned i, struct st_options *o,
          struct st_err *err)
{
    int rc = st_options_parse(what, text, table, o, err);

    if (rc == 0)
        out->memory[i] = o->memory;
    return rc;
}

static int
read_parts(const char *what, const struct parts *p, struct st_attach *out,
           struct st_err *err)
{
    struct st_options o, at[ST_ATTACH_MAX];
    unsigned has = out->n ? HAS_ON : 0;
    int rc = read_part(what, p[0].text, disk_table, out, 0, &o, err);

    for (unsigned i = 0; rc == 0 && i < out->n; i++) {
        rc = read_part(what, p[i + 1].text, at_table, out, i + 1, &at[i], err);
        if (rc == 0 && at[i].value[AT_RELAY])
            has |= HAS_ANY_RELAY;
    }
    if (rc)
        return rc; /* it quotes already */
    rc = judge(o.value, has, err);
    for (unsigned i = 0; rc == 0 && i < out->n; i++)
        rc = take_place(at[i].value, &out->at[i], err);
    if (rc) {
        st_err_prefix(err, "%s", out->where);
        return rc;
    }
    out->spec = o.value[DISK];
    out->name = o.value[NAME] ? o.value[NAME] : "";
    out->dvd = o.value[DVD];
    out->read_only = o.value[RO] || out->dvd;
    return 0;
}

int
st_attach_parse(const char *what, const char *text, struct st_attach *out,
                struct st_err *err)
{
    struct parts p[1 + ST_ATTACH_MAX] = {0};
    st_autofree char *copy = strdup(text);
    char **where = &out->memory[1 + ST_ATTACH_MAX];
    int rc;

    memset(out, 0, sizeof(*out));
    if (!copy || asprintf(where, "%s '%.160s'", what, text) < 0) {
        *where = NULL;
        return st_err_set(err, ENOMEM, "%s: no memory", what);
    }
    out->where = *where;
    rc = deal(copy, p, err);
    if (rc < 0) {
        st_err_prefix(err, "%s", out->where);
    } else {
        out->n = (unsigned)rc;
        rc = read_parts(what, p, out, err);
    }
    for (unsigned i = 0; i <= ST_ATTACH_MAX; i++)
        free(p[i].text);
    if (rc < 0)
        st_attach_free(out);
    return rc;
}

void
st_attach_free(struct st_attach *a)
{
    for (unsigned i = 0; i < 2 + ST_ATTACH_MAX; i++)
        free(a->memory[i]);
    memset(a, 0, sizeof(*a));
}
