/* SPDX-License-Identifier: MIT
 *
 * Settings from words; see settings.h. settings_file.c has those from JSON;
 * both end in the same take functions, here.
 */
#include "settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guid.h"
#include "mem.h"
#include "settings_private.h"
#include "size.h"

const struct st_option settings_nvme_table[] = {
    [NVME_ID] = {"id", ST_OPTION_VALUE, true, 0},
    [NVME_VFIO_USER] = {"vfio-user", ST_OPTION_VALUE, false, 0},
    [NVME_MODE] = {"mode", ST_OPTION_VALUE, false, 0},
    [NVME_GROUP] = {"group", ST_OPTION_VALUE, false, 0},
    [NVME_INTX] = {"intx", ST_OPTION_FLAG, false, 0},
    [NVME_WRITE_MULTI] = {"write-multi", ST_OPTION_FLAG, false, 0},
    [NVME_DOORBELLS] = {"doorbells", ST_OPTION_VALUE, false, 0},
    [NVME_QUEUES] = {"queues", ST_OPTION_VALUE, false, 0},
    [NVME_ENTRIES] = {"entries", ST_OPTION_VALUE, false, 0},
    [NVME_VECTORS] = {"vectors", ST_OPTION_VALUE, false, 0},
    [NVME_NAMESPACES] = {"namespaces", ST_OPTION_VALUE, false, 0},
    [NVME_SUBSYSTEM] = {"subsystem", ST_OPTION_VALUE, false, 0},
    [NVME_SERIAL] = {"serial", ST_OPTION_VALUE, false, 0},
    [NVME_MODEL] = {"model", ST_OPTION_VALUE, false, 0},
    [NVME_PCIE_PORT] = {"pcie_port", ST_OPTION_VALUE, false, 0},
    [NVME_SLOT] = {"slot", ST_OPTION_VALUE, false, 0},
    [NVME_VPCI] = {"vpci", ST_OPTION_MAYBE, false, 0},
    [NVME_VTL2] = {"vtl2", ST_OPTION_FLAG, false, 0},
    {0},
};

const struct st_option settings_nbd_table[] = {
    [NBD_ID] = {"id", ST_OPTION_VALUE, true, 0},
    [NBD_UNIX] = {"unix", ST_OPTION_VALUE, false, 0},
    [NBD_ADDR] = {"addr", ST_OPTION_VALUE, false, 0},
    [NBD_MODE] = {"mode", ST_OPTION_VALUE, false, 0},
    [NBD_GROUP] = {"group", ST_OPTION_VALUE, false, 0},
    [NBD_TLS] = {"tls", ST_OPTION_VALUE, false, 0},
    [NBD_CERTIFICATES] = {"tls-certificates", ST_OPTION_VALUE, false, 0},
    [NBD_PSK] = {"tls-psk", ST_OPTION_VALUE, false, 0},
    {0},
};

/* ---- Memory ---- */

/* Make room for one more behind the N of SIZE bytes at *ARRAY; gives it zeroed,
 * or NULL. */
static void *
settings_grow(void **array, unsigned n, size_t size)
{
    char *p = realloc(*array, (n + 1) * size);

    if (!p)
        return NULL;
    *array = p;
    return memset(p + n * size, 0, size);
}

static int
no_memory(struct st_err *err)
{
    return st_err_set(err, ENOMEM, "no memory");
}

const char *
settings_keep(struct st_settings *s, char *text)
{
    void *array = s->kept;
    char **room = text ? settings_grow(&array, s->nkept, sizeof(*room)) : NULL;

    s->kept = array;
    if (!room) {
        free(text);
        return NULL;
    }
    s->nkept++;
    return *room = text;
}

int
settings_parse(struct st_settings *s, const char *what, const char *text,
               const struct st_option *table, const char *const **value,
               const char **where, struct st_err *err)
{
    void *array = s->options;
    struct st_options *o = settings_grow(&array, s->noptions, sizeof(*o));
    char *copy = NULL;
    int rc;

    s->options = array;
    if (!o || asprintf(&copy, "%s '%.160s'", what, text) < 0)
        copy = NULL;
    *where = settings_keep(s, copy);
    if (!*where)
        return no_memory(err);
    rc = st_options_parse(what, text, table, o, err);
    if (rc == 0) {
        s->noptions++;
        *value = o->value;
    }
    return rc;
}

/* ---- Numbers and texts ---- */

static int
take_number(const char *name, const char *text, unsigned min, unsigned max,
            unsigned *out, struct st_err *err)
{
    uint64_t n;
    int rc = text ? st_number_parse(name, text, min, max, &n, err) : 1;

    if (rc == 0)
        *out = (unsigned)n;
    return rc < 0 ? rc : 0;
}

/* Identify's texts are ASCII, from space to tilde (NVMe Base 1.5). */
static int
take_text(const char *name, const char *text, size_t max, const char **out,
          struct st_err *err)
{
    if (!text)
        return 0;
    if (strlen(text) > max)
        return st_err_set(err, EINVAL,
                          "%s '%.80s' is too long, expected up to %zu "
                          "characters",
                          name, text, max);
    for (const char *p = text; *p; p++)
        if (!isascii(*p) || !isprint(*p))
            return st_err_set(err, EINVAL,
                              "%s '%.80s' is not all printable ASCII", name,
                              text);
    *out = text;
    return 0;
}

/* The index of WORD (NULL: 0) in WORDS, or -EINVAL. */
static int
take_word(const char *name, const char *word, const char *const words[3],
          struct st_err *err)
{
    for (int i = 0; i < 3 && words[i]; i++)
        if (!word || strcmp(word, words[i]) == 0)
            return i;
    return st_err_set(err, EINVAL, "invalid %s '%s', expected %s%s%s%s%s", name,
                      word, words[0], words[2] ? ", " : "",
                      words[2] ? words[1] : "", " or ",
                      words[2] ? words[2] : words[1]);
}

/* ---- Controllers ---- */

/* What says where a controller is: one of them, and one that there is. */
static int
check_where(bool machine, const char *const *value, struct st_err *err)
{
    const char *instead =
        machine ? "slot=N or vfio-user=PATH" : "vfio-user=PATH";
    struct st_guid guid;
    unsigned n = !!value[NVME_VFIO_USER] + !!value[NVME_PCIE_PORT] +
                 !!value[NVME_SLOT] + !!value[NVME_VPCI];

    if (n > 1)
        return st_err_set(err, EINVAL,
                          "only one of vfio-user=, pcie_port=, slot= and vpci "
                          "is allowed");
    if (value[NVME_VPCI] && *value[NVME_VPCI] &&
        !st_guid_parse(value[NVME_VPCI], &guid))
        return st_err_set(err, EINVAL,
                          "vpci=%s is no GUID, expected "
                          "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
                          value[NVME_VPCI]);
    if (value[NVME_VPCI])
        return st_err_set(err, EINVAL,
                          "vpci needs a VMBus, which there is none of here, "
                          "use %s",
                          instead);
    if (!machine && (value[NVME_PCIE_PORT] || value[NVME_SLOT]))
        return st_err_set(err, EINVAL,
                          "%s= is a slot of a machine, which there is none of "
                          "here, use vfio-user=PATH",
                          value[NVME_SLOT] ? "slot" : "pcie_port");
    if (value[NVME_VTL2])
        return st_err_set(err, EINVAL, "there is no VTL2 here, use %s alone",
                          instead);
    return 0;
}

/* A Unix socket's options without a socket. */
static int
check_socket(const char *path, const char *mode, const char *group,
             const char *name, struct st_err *err)
{
    if (path || (!mode && !group))
        return 0;
    return st_err_set(err, EINVAL, "%s= is of the socket that %s= makes",
                      mode ? "mode" : "group", name);
}

int
settings_take_nvme(struct st_settings *s, const char *where,
                   const char *const *value, struct st_err *err)
{
    static const char *const doorbells[3] = {"trap", "mapped"};
    void *array = s->nvme;
    struct st_settings_nvme *n = settings_grow(&array, s->nnvme, sizeof(*n));
    struct st_graph_nvme_opts *o;
    int rc;

    s->nvme = array;
    if (!n)
        return no_memory(err);
    if (s->nnvme == ST_SETTINGS_MAX)
        return st_err_set(err, EINVAL, "more than %d controllers",
                          ST_SETTINGS_MAX);
    o = &n->opts;
    n->where = where;
    n->id = value[NVME_ID];
    o->subsystem = value[NVME_SUBSYSTEM];
    o->intx = value[NVME_INTX];
    o->write_multiple = value[NVME_WRITE_MULTI];
    rc = check_where(s->machine, value, err);
    n->plugged = s->machine && !value[NVME_VFIO_USER];
    n->port = value[NVME_PCIE_PORT];
    if (rc == 0)
        rc = take_number("slot", value[NVME_SLOT], 1, ST_MACHINE_SLOTS - 1,
                         &n->slot, err);
    if (rc == 0)
        rc = check_socket(value[NVME_VFIO_USER], value[NVME_MODE],
                          value[NVME_GROUP], "vfio-user", err);
    if (rc == 0 && value[NVME_VFIO_USER])
        rc =
            st_cmd_address_path(&n->address, "vfio-user", value[NVME_VFIO_USER],
                                value[NVME_MODE], value[NVME_GROUP], err);
    if (rc == 0)
        rc = take_word("doorbells", value[NVME_DOORBELLS], doorbells, err);
    o->mapped = rc == 1;
    if (o->mapped && n->plugged)
        rc = st_err_set(err, EINVAL, "doorbells=mapped is for vfio-user=PATH");
    if (rc >= 0)
        rc = take_number("queues", value[NVME_QUEUES], 1, ST_NVME_QUEUES_MAX,
                         &o->queues, err);
    if (rc == 0)
        rc = take_number("entries", value[NVME_ENTRIES], 2, 65536, &o->entries,
                         err);
    if (rc == 0)
        rc = take_number("vectors", value[NVME_VECTORS], 1, ST_PCI_VECTORS_MAX,
                         &o->vectors, err);
    if (rc == 0)
        rc = take_number("namespaces", value[NVME_NAMESPACES], 1,
                         ST_NVME_NAMESPACES_MAX, &o->namespaces, err);
    if (rc == 0)
        rc = take_text("serial", value[NVME_SERIAL], 20, &o->serial, err);
    if (rc == 0)
        rc = take_text("model", value[NVME_MODEL], 40, &o->model, err);
    s->nnvme += rc == 0;
    return rc;
}

int
st_settings_nvme(struct st_settings *s, const char *text, struct st_err *err)
{
    const char *const *value;
    const char *where;
    int rc = settings_parse(s, "--nvme-pci", text, settings_nvme_table, &value,
                            &where, err);

    if (rc < 0)
        return rc;
    rc = settings_take_nvme(s, where, value, err);
    if (rc < 0)
        st_err_prefix(err, "%s", where);
    return rc;
}

/* ---- NBD doors ---- */

int
settings_take_nbd(struct st_settings *s, const char *where,
                  const char *const *value, struct st_err *err)
{
    static const char *const tls[3] = {"off", "on", "require"};
    void *array = s->nbd;
    struct st_settings_nbd *n = settings_grow(&array, s->nnbd, sizeof(*n));
    int rc;

    s->nbd = array;
    if (!n)
        return no_memory(err);
    if (s->nnbd == ST_SETTINGS_MAX)
        return st_err_set(err, EINVAL, "more than %d doors", ST_SETTINGS_MAX);
    n->where = where;
    n->id = value[NBD_ID];
    n->opts.tls_certificates = value[NBD_CERTIFICATES];
    n->opts.tls_psk = value[NBD_PSK];
    if (value[NBD_UNIX] && value[NBD_ADDR])
        return st_err_set(err, EINVAL, "either unix= or addr=, not both");
    rc = check_socket(value[NBD_UNIX], value[NBD_MODE], value[NBD_GROUP],
                      "unix", err);
    if (rc == 0 && value[NBD_UNIX])
        rc = st_cmd_address_path(&n->address, "unix", value[NBD_UNIX],
                                 value[NBD_MODE], value[NBD_GROUP], err);
    if (rc == 0 && value[NBD_ADDR])
        rc = st_cmd_address_tcp(&n->address, "addr", value[NBD_ADDR], err);
    if (rc == 0)
        rc = take_word("tls", value[NBD_TLS], tls, err);
    if (rc < 0)
        return rc;
    n->opts.tls = (enum st_nbd_tls)rc;
    if (!rc && (n->opts.tls_certificates || n->opts.tls_psk))
        return st_err_set(err, EINVAL,
                          "tls-certificates= and tls-psk= have no effect "
                          "without tls=on or tls=require");
    s->nnbd++;
    return 0;
}

int
st_settings_nbd(struct st_settings *s, const char *text, struct st_err *err)
{
    const char *const *value;
    const char *where;
    int rc = settings_parse(s, "--nbd", text, settings_nbd_table, &value,
                            &where, err);

    if (rc < 0)
        return rc;
    rc = settings_take_nbd(s, where, value, err);
    if (rc < 0)
        st_err_prefix(err, "%s", where);
    return rc;
}

/* ---- Disks and paths ---- */

struct st_attach *
settings_new_disk(struct st_settings *s)
{
    void *array = s->disk;
    struct st_attach *a = settings_grow(&array, s->ndisks, sizeof(*a));

    s->disk = array;
    s->ndisks += a != NULL;
    return a;
}

int
st_settings_disk(struct st_settings *s, const char *text, struct st_err *err)
{
    struct st_attach *a = settings_new_disk(s);

    return a ? st_attach_parse("--disk", text, a, err) : no_memory(err);
}

int
st_settings_allow(struct st_settings *s, const char *path, struct st_err *err)
{
    void *array = s->allow;
    const char **room = settings_grow(&array, s->nallow, sizeof(*room));

    s->allow = array;
    if (!room)
        return no_memory(err);
    *room = path;
    s->nallow++;
    return 0;
}

/* ---- All of it ---- */

/* The kind of the first one of that id before controller or door I, NULL: it is
 * the first. */
static const char *
same_id(const struct st_settings *s, const char *id, unsigned nvme,
        unsigned nbd)
{
    for (unsigned i = 0; i < nvme; i++)
        if (strcmp(s->nvme[i].id, id) == 0)
            return "an NVMe controller";
    for (unsigned i = 0; i < nbd; i++)
        if (strcmp(s->nbd[i].id, id) == 0)
            return "an NBD door";
    return NULL;
}

static int
check_id(const struct st_settings *s, const char *where, const char *id,
         unsigned nvme, unsigned nbd, struct st_err *err)
{
    const char *kind = same_id(s, id, nvme, nbd);

    return kind ? st_err_set(err, EINVAL, "%s: id=%s is that of %s already",
                             where, id, kind)
                : 0;
}

/* No controller before number I has its slot, or its slot's name. */
static int
check_slot(const struct st_settings *s, unsigned i, struct st_err *err)
{
    const struct st_settings_nvme *n = &s->nvme[i];

    for (unsigned k = 0; k < i; k++) {
        const struct st_settings_nvme *o = &s->nvme[k];

        if (n->slot && n->slot == o->slot)
            return st_err_set(err, EINVAL, "%s: slot %u is taken by '%s'",
                              n->where, n->slot, o->id);
        if (n->port && o->port && strcmp(n->port, o->port) == 0)
            return st_err_set(err, EINVAL,
                              "%s: pcie_port '%s' is taken by "
                              "'%s'",
                              n->where, n->port, o->id);
    }
    return 0;
}

int
st_settings_check(const struct st_settings *s, struct st_err *err)
{
    int rc = 0;

    if (!s->nnvme && !s->nnbd && !s->machine)
        return st_err_set(err, EINVAL,
                          "nothing to serve, expected --nvme-pci or --nbd");
    for (unsigned i = 0; rc == 0 && i < s->nnvme; i++) {
        rc = check_id(s, s->nvme[i].where, s->nvme[i].id, i, 0, err);
        if (rc == 0)
            rc = check_slot(s, i, err);
    }
    for (unsigned i = 0; rc == 0 && i < s->nnbd; i++)
        rc = check_id(s, s->nbd[i].where, s->nbd[i].id, s->nnvme, i, err);
    return rc;
}

void
st_settings_free(struct st_settings *s)
{
    for (unsigned i = 0; i < s->nnvme; i++)
        st_cmd_address_close(&s->nvme[i].address);
    for (unsigned i = 0; i < s->nnbd; i++)
        st_cmd_address_close(&s->nbd[i].address);
    for (unsigned i = 0; i < s->ndisks; i++)
        st_attach_free(&s->disk[i]);
    for (unsigned i = 0; i < s->noptions; i++)
        st_options_free(&s->options[i]);
    for (unsigned i = 0; i < s->nkept; i++)
        free(s->kept[i]);
    free(s->nvme);
    free(s->nbd);
    free(s->disk);
    free(s->allow);
    free(s->options);
    free(s->kept);
    json_decref(s->file);
    memset(s, 0, sizeof(*s));
}
