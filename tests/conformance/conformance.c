/* SPDX-License-Identifier: MIT
 *
 * The contract, against every node and many stacks of them: one line a disk.
 *
 * usage: conformance [-v] [WORD]      only disks whose name contains WORD
 *
 *   "diff:cache:file"   made here, word by word from the right, at 512 and 4096
 *                       bytes a sector, on every engine that it concerns
 *   "memdiff:file:$"    made by the resolver, as a user would; $ is a new file
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "delay.h"
#include "fault.h"
#include "file.h"
#include "kit.h"
#include "layered.h"
#include "ram.h"
#include "stack.h"
#include "testnode.h"
#include "throttle.h"

/* On which engines beside the virtual one. */
enum { VIRTUAL = 0, REAL = 1 };

static const struct row {
    const char *words;
    int engines;
} rows[] = {
    {"ram", REAL},
    {"file", REAL},
    {"direct", REAL},
    {"testmem", REAL},
    {"testmem-async", REAL},
    {"testmem-plain", VIRTUAL},
    {"testmem-ignored", VIRTUAL},
    {"testmem-ro", VIRTUAL},
    {"delay:ram", VIRTUAL},
    {"throttle:ram", VIRTUAL},
    {"fault:ram", VIRTUAL},
    {"delay:file", REAL},
    {"throttle:file", REAL},
    {"fault:file", REAL},
    {"delay:direct", VIRTUAL},
    {"throttle:direct", VIRTUAL},
    {"fault:direct", VIRTUAL},
    {"delay:testmem-plain", VIRTUAL},
    {"throttle:testmem-async", VIRTUAL},
    {"fault:testmem-async", VIRTUAL},
    {"layer:testmem", VIRTUAL},
    {"layer:file", VIRTUAL},
    {"diff:ram", REAL},
    {"diff:file", REAL},
    {"diff:direct", REAL},
    {"diff:testmem-async", VIRTUAL},
    {"diff:diff:file", REAL},
    {"diff:diff:testmem-async", VIRTUAL},
    {"cache:ram", VIRTUAL},
    {"cache:file", REAL},
    {"cache:direct", VIRTUAL},
    {"cache:testmem-async", VIRTUAL},
    {"cache:testmem-plain", VIRTUAL},
    {"through:file", REAL},
    {"through:testmem-async", VIRTUAL},
    {"diff:cache:file", REAL},
    {"diff:cache:testmem-async", VIRTUAL},
    {"diff:delay:file", VIRTUAL},
    {"delay:diff:file", VIRTUAL},
    {"delay:throttle:fault:diff:file", VIRTUAL},
    {"fault:diff:delay:diff:testmem-async", VIRTUAL},
    /* As a user says it. */
    {"mem:1060864", REAL},
    {"file:$;create=1060864", REAL},
    {"file:$;direct;create=1060864", VIRTUAL},
    {"memdiff:file:$;create=1060864", REAL},
    {"memdiff:memdiff:mem:1060864", VIRTUAL},
    {"delay:1:mem:1060864", VIRTUAL},
    {"throttle:1000000:memdiff:mem:1060864", VIRTUAL},
    {"delay:1:throttle:1000000:file:$;create=1060864", VIRTUAL},
};

struct run {
    const struct row *row;
    char where[256]; /* a new directory for files */
    unsigned files, passed, failed, skipped;
    bool verbose, unable; /* this row and sector cannot be made */
};

/* ---- Making disks ---------------------------------------------------------
 */

static int
make_file(struct run *x, struct st_loop *l, uint32_t sector, uint64_t size,
          bool direct, struct st_node **out, struct st_err *err)
{
    char path[300];
    struct st_file_opts o = {.path = path,
                             .direct = direct,
                             .create = true,
                             .create_size = size,
                             .sector_size = sector};
    int rc;

    snprintf(path, sizeof(path), "%s/%u", x->where, x->files++);
    rc = st_file_open(l, &o, out, err);
    if (rc == 0)
        unlink(path); /* lives on by its descriptor */
    return rc == -EINVAL && direct ? -ENOTSUP : rc;
}

static int
make_testmem(struct st_loop *l, const char *kind, uint32_t sector,
             uint64_t size, struct st_node **out, struct st_err *err)
{
    struct st_testnode_opts o = {.size = size,
                                 .sector = sector,
                                 .unmap = ST_UNMAP_ZEROES,
                                 .fua = true,
                                 .fast_zero = true,
                                 .strict = true,
                                 .seed = 1};

    if (strcmp(kind, "-async") == 0) {
        o.async = true;
        o.fua = false;
        o.unmap = ST_UNMAP_UNSPECIFIED;
    } else if (strcmp(kind, "-plain") == 0) {
        o.performs =
            ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_FLUSH);
        o.strict = false; /* the kit asks it for others, to be refused */
        o.mem_align = 512;
        o.max_segments = 3;
        o.fua = o.fast_zero = false;
        o.unmap = ST_UNMAP_IGNORED;
    } else if (strcmp(kind, "-ignored") == 0) {
        o.unmap = ST_UNMAP_IGNORED;
    } else if (strcmp(kind, "-ro") == 0) {
        o.read_only = true;
    }
    return st_testnode_create(l, &o, out, err);
}

static int
make_decorator(struct st_loop *l, const char *word, struct st_node **out,
               struct st_err *err)
{
    const struct st_delay_opts delay = {1000, 2000, 3000};
    const struct st_throttle_opts throttle = {.iops = 1000000,
                                              .bytes = UINT64_C(1) << 36};

    switch (word[0]) {
    case 'd':
        return st_delay_create(l, &delay, word, out, err);
    case 't':
        return st_throttle_create(l, &throttle, word, out, err);
    default:
        return st_fault_create(l, NULL, word, out, err);
    }
}

/* RAM above BELOW, by its role. */
static int
make_layered(struct st_loop *l, const char *word, struct st_node *below,
             struct st_node **out, struct st_err *err)
{
    struct st_layer layers[2] = {
        {.read_cache = word[0] == 'c', .write_through = word[0] != 'd'},
        {.node = below}};
    int rc = st_ram_create(l, 0, 0, word, &layers[0].node, err);

    if (rc == 0)
        rc = st_layered_create(l, layers, 2, false, word, out, err);
    if (rc < 0)
        st_node_close(layers[0].node);
    return rc;
}

/* A layer by itself, attached above something that then goes away. */
static int
make_layer(struct st_loop *l, struct st_node *below, struct st_node **out,
           struct st_err *err)
{
    int rc = st_ram_create(l, 0, 0, "ram", out, err);

    if (rc == 0)
        rc = (*out)->ops->attach(*out, below, err);
    if (rc == 0)
        st_node_close(below);
    return rc;
}

static int
make_words(struct run *x, struct st_loop *l, const char *words, uint32_t sector,
           uint64_t size, struct st_node **out, struct st_err *err)
{
    const char *colon = strchr(words, ':');
    struct st_node *below, *n;
    char word[16];
    int rc;

    if (!colon) {
        if (strncmp(words, "testmem", 7) == 0)
            return make_testmem(l, words + 7, sector, size, out, err);
        if (strcmp(words, "ram") == 0)
            return st_ram_create(l, size, sector, words, out, err);
        return make_file(x, l, sector, size, words[0] == 'd', out, err);
    }
    snprintf(word, sizeof(word), "%.*s", (int)(colon - words), words);
    rc = make_words(x, l, colon + 1, sector, size, &below, err);
    if (rc < 0)
        return rc;
    if (strcmp(word, "layer") == 0) {
        rc = make_layer(l, below, out, err);
    } else if (strcmp(word, "diff") == 0 || strcmp(word, "cache") == 0 ||
               strcmp(word, "through") == 0) {
        rc = make_layered(l, word, below, out, err);
    } else {
        rc = make_decorator(l, word, &n, err);
        if (rc == 0)
            rc = st_node_adopt(n, below);
        if (rc == 0)
            *out = n;
    }
    if (rc < 0)
        st_node_close(below);
    return rc;
}

static int
make_spec(struct run *x, struct st_loop *l, const char *words,
          struct st_node **out, struct st_err *err)
{
    const char *dollar = strchr(words, '$');
    char path[280], spec[600];
    int rc;

    snprintf(path, sizeof(path), "%s/%u", x->where, x->files++);
    snprintf(spec, sizeof(spec), "%.*s%s%s",
             (int)(dollar ? dollar - words : (int)strlen(words)), words,
             dollar ? path : "", dollar ? dollar + 1 : "");
    rc = st_stack_open(l, NULL, spec, false, out, err);
    if (dollar)
        unlink(path);
    return rc == -EINVAL && strstr(words, "direct") ? -ENOTSUP : rc;
}

static int
make(void *arg, struct st_loop *l, uint32_t sector, uint64_t size,
     struct st_node **out, struct st_err *err)
{
    struct run *x = arg;
    bool spec = strpbrk(x->row->words, "0123456789") != NULL;
    int rc;

    if (spec && sector != 512) {
        rc = -ENOTSUP; /* the grammar has no word for sectors */
        x->unable = false;
    } else {
        rc = spec ? make_spec(x, l, x->row->words, out, err)
                  : make_words(x, l, x->row->words, sector, size, out, err);
        x->unable |= rc == -ENOTSUP;
    }
    return rc;
}

/* ---- Running ---- */

/* A check that does not apply (no layer, fixed size) is not counted. */
static void
report(void *arg, const char *check, enum st_verdict v, const char *detail)
{
    struct run *x = arg;

    if (v == ST_KIT_PASS)
        x->passed++;
    if (v == ST_KIT_FAIL) {
        x->failed++;
        printf("FAILED: %s: %s: %s\n", x->row->words, check, detail);
    } else if (x->verbose) {
        printf("%s: %s: %s%s%s\n", v == ST_KIT_PASS ? "ok" : "n/a",
               x->row->words, check, detail[0] ? ": " : "", detail);
    }
    fflush(stdout);
}

static void
run_row(struct run *x, const char *engine, uint32_t sector)
{
    struct st_domain_opts o = {.engine = engine, .seed = 7};
    struct st_domain *d;
    struct st_loop *l;
    struct st_err err;
    struct st_kit kit = {.name = x->row->words,
                         .sector = sector,
                         .make = make,
                         .arg = x,
                         .report = report,
                         .report_arg = x};
    unsigned failed = x->failed;

    if (st_domain_create(&o, &d, &err) < 0) {
        printf("skip: %s on %s: %s\n", x->row->words, engine, err.text);
        x->skipped++;
        return;
    }
    if (st_loop_create(d, &l, &err) < 0) {
        printf("FAILED: a loop on %s: %s\n", engine, err.text);
        x->failed++;
        st_domain_destroy(d);
        return;
    }
    kit.loop = l;
    x->unable = false;
    st_kit_run(&kit, NULL);
    if (x->unable) {
        printf("skip: %s with sectors of %u bytes cannot be made here\n",
               x->row->words, sector);
        x->skipped++;
    }
    if (x->failed != failed) {
        printf("  (the above: on %s, sectors of %u bytes)\n", engine, sector);
        return; /* what hangs cannot be taken down */
    }
    st_loop_destroy(l);
    st_domain_destroy(d);
}

int
main(int argc, char **argv)
{
    static const char *const engines[] = {"virtual", "io_uring", "threads"};
    struct run x = {0};
    const char *tmp = getenv("TMPDIR");

    if (argc > 1 && strcmp(argv[1], "-v") == 0) {
        x.verbose = true;
        argv++;
        argc--;
    }
    snprintf(x.where, sizeof(x.where), "%s/st-conf-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(x.where)) {
        perror("conformance: temporary directory");
        return 1;
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (argc > 1 && !strstr(rows[i].words, argv[1]))
            continue;
        x.row = &rows[i];
        for (int e = 0; e < (rows[i].engines == REAL ? 3 : 1); e++) {
            run_row(&x, engines[e], 512);
            run_row(&x, engines[e], 4096);
        }
    }
    rmdir(x.where);
    printf("counts: %u passed, %u failed, %u skipped\n", x.passed, x.failed,
           x.skipped);
    return x.failed ? 1 : 0;
}
