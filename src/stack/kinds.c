/* SPDX-License-Identifier: MIT
 *
 * The registry of disk kinds: one row each, and how those that are built in
 * are opened. A row without help is parsed like any other, so that what is
 * wrong with a text does not depend on how strata was built.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "delay.h"
#include "fault.h"
#include "file.h"
#include "mem.h"
#include "ram.h"
#include "stack_private.h"
#include "throttle.h"

#define MS UINT64_C(1000000)

/* ---- Files ---- */

/* A raw image whose bytes look like another format: say so, and stay raw. A
 * guest that can write those bytes must not choose the format. */
static void
warn_of_signature(struct st_stack *s, const char *path)
{
    static const struct {
        const char *bytes, *format;
        size_t len;
        bool at_end; /* in the last 512 bytes */
    } known[] = {
        {"conectix", "vhd", 8, false},
        {"conectix", "vhd", 8, true},
        {"vhdxfile", "vhdx", 8, false},
        {"QFI\xfb", "qcow2", 4, false},
    };
    struct stat sb;
    st_autoclose int fd = -1;

    if (stat(path, &sb) < 0 || !S_ISREG(sb.st_mode) || sb.st_size < 512)
        return;
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < sizeof(known) / sizeof(*known); i++) {
        char bytes[8];

        if (pread(fd, bytes, known[i].len,
                  known[i].at_end ? sb.st_size - 512 : 0) !=
                (ssize_t)known[i].len ||
            memcmp(bytes, known[i].bytes, known[i].len) != 0)
            continue;
        st_warn(st_domain_log(s->home->domain),
                "%s: is used raw, but its content looks like %s; raw:<path> "
                "says that this is meant",
                path, known[i].format);
        return;
    }
}

/* Some names ask for a format (spec: config.md 3.1). */
static int
check_format(struct st_stack *s, const struct st_file_opts *o)
{
    static const char *const formats[] = {"vhd", "vhdx", "vmgs"};
    const char *base = strrchr(o->path, '/'), *dot;

    base = base ? base + 1 : o->path;
    dot = strrchr(base, '.');
    if (dot && dot != base) {
        for (unsigned i = 0; i < 3; i++) {
            if (strcasecmp(dot + 1, formats[i]) != 0)
                continue;
            if (o->direct)
                return st_err_set(s->err, EINVAL,
                                  "'%s': direct is for raw "
                                  "images only, expected a name without .%s",
                                  o->path, formats[i]);
            return st_stack_not_built(s, formats[i]);
        }
        if (strcasecmp(dot + 1, "iso") == 0 && (o->create || !o->read_only))
            return st_err_set(s->err, o->create ? EINVAL : EROFS,
                              "'%s': an iso image is never written, expected "
                              "a disk that is read-only or has a layer above",
                              o->path);
    }
    if (!o->create)
        warn_of_signature(s, o->path);
    return 0;
}

static int
file_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    const struct st_file_opts o = {
        .path = st_spec_arg(s->spec, "path")->text,
        .read_only = s->read_only,
        .direct = st_spec_arg(s->spec, "direct")->text,
        .create = st_spec_arg(s->spec, "create")->text,
        .create_size = st_spec_arg(s->spec, "create")->number,
        .sector_size = (uint32_t)st_spec_arg(s->spec, "sector")->number,
    };
    int rc = strcmp(k->name, "raw") == 0 ? 0 : check_format(s, &o);

    (void)label; /* a file's label is its path */
    return rc ? rc : st_file_open(s->home, &o, &s->node, s->err);
}

/* ---- Layers ---- */

static int
mem_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    uint64_t size = st_spec_arg(s->spec, "len")->number;

    (void)k;
    if (!size)
        return st_err_set(s->err, EINVAL,
                          "'%s': an empty disk, expected a "
                          "size above 0",
                          label);
    return st_ram_create(s->home, size,
                         (uint32_t)st_spec_arg(s->spec, "sector")->number,
                         label, &s->node, s->err);
}

static int
memdiff_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    (void)k;
    s->diff = true;
    return st_ram_create(s->home, 0, 0, label, &s->node, s->err);
}

/* ---- Decorators ---- */

static uint64_t
delay_ns(const struct st_stack *s, const char *option, const char *otherwise)
{
    const struct st_spec_arg *a = st_spec_arg(s->spec, option);

    return MS * (a->text ? a : st_spec_arg(s->spec, otherwise))->number;
}

static int
delay_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    const struct st_delay_opts o = {
        .read_ns = delay_ns(s, "read", "ms"),
        .write_ns = delay_ns(s, "write", "ms"),
        .flush_ns = delay_ns(s, "flush", "none"),
    };
    int rc = st_delay_create(s->home, &o, label, &s->node, s->err);

    (void)k;
    return rc ? rc : st_stack_adopt(s);
}

static int
throttle_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    const struct st_throttle_opts o = {
        .iops = st_spec_arg(s->spec, "iops")->number,
        .bytes = st_spec_arg(s->spec, "bytes")->number,
        .burst_ns = MS * st_spec_arg(s->spec, "burst")->number,
    };
    const char *group = st_spec_arg(s->spec, "group")->text;
    int rc = group ? st_stack_group_join(s, group, &o, label)
                   : st_throttle_create(s->home, &o, label, &s->node, s->err);

    (void)k;
    return rc ? rc : st_stack_adopt(s);
}

static int
fault_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    int rc = st_fault_create(s->home, st_spec_arg(s->spec, "rules file")->text,
                             label, &s->node, s->err);

    (void)k;
    return rc ? rc : st_stack_adopt(s);
}

/* ---- Not built in: what can be said without ---- */

static int
autocache_open(const struct st_kind *k, struct st_stack *s, const char *label)
{
    const char *dir = getenv("OPENVMM_AUTO_CACHE_PATH");

    if (!dir || !*dir)
        return st_err_set(s->err, EINVAL,
                          "'%s': OPENVMM_AUTO_CACHE_PATH is "
                          "not set, expected the directory of the cache",
                          label);
    return st_stack_not_built(s, k->name);
}

static const struct st_kind kinds[] = {
    {"", "<path>[;direct][;create=<len>][;sector=<sector>]",
     "as file:, unless it looks like another kind", file_open, false},
    {"file", "file:<path>[;direct][;create=<len>][;sector=<sector>]",
     "a raw image; the name's extension may ask for a format", file_open,
     false},
    {"raw", "raw:<path>[;direct][;sector=<sector>]",
     "a raw image, whatever its name and content say", file_open, false},
    {"mem", "mem:<len>[;sector=<sector>]", "memory, lost at exit", mem_open,
     false},
    {"memdiff", "memdiff:<disk>",
     "what is written stays in memory, above a disk that is only read",
     memdiff_open, false},
    {"delay", "delay:<ms>[;read=<ms>][;write=<ms>][;flush=<ms>]:<disk>",
     "reads and writes wait first", delay_open, true},
    {"throttle", "throttle:<iops>[/<bytes>][;burst=<ms>][;group=<name>]:<disk>",
     "so many requests and bytes a second; 0 is no limit", throttle_open, true},
    {"fault", "fault:<rules file>:<disk>", "errors, delays and hangs by rules",
     fault_open, true},

    {"vhd", "vhd:<path>", NULL, NULL, false},
    {"vhdx", "vhdx:<path>", NULL, NULL, false},
    {"sql", "sql:<path>[;create=<len>]", NULL, NULL, false},
    {"sqldiff", "sqldiff:<path>[;create]:<disk>", NULL, NULL, false},
    {"autocache", "autocache:[<key>]:<disk>", NULL, autocache_open, false},
    {"cache", "cache:<len>:<upper>:<disk>", NULL, NULL, false},
    {"blob", "blob:flat|vhd1:<url>", NULL, NULL, false},
    {"crypt", "crypt:xts-aes-256:<key file>:<disk>", NULL, NULL, false},
    {"prwrap", "prwrap:<disk>", NULL, NULL, true},
    {"stripe", "stripe:<chunk>:[<disk>][<disk>]...", NULL, NULL, false},
    {"nvme", "nvme:<pci address|vfio-user=path>/<nsid>", NULL, NULL, false},
    {"nbd", "nbd:<uri>", NULL, NULL, false},
    {"rbd", "rbd:<pool>/<image>[@<snap>][;conf=<file>][;id=<user>]", NULL, NULL,
     false},
    {NULL, NULL, NULL, NULL, false},
};

const struct st_kind *
st_stack_kinds(void)
{
    return kinds;
}

void
st_stack_help(FILE *out)
{
    for (const struct st_kind *k = kinds; k->name; k++)
        if (k->help)
            fprintf(out, "  %s\n      %s\n", k->syntax, k->help);
}
