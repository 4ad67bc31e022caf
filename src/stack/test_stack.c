/* SPDX-License-Identifier: MIT
 *
 * Specs as trees of nodes: layers, decorators, files, read-only, and what is
 * not built in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "delay.h"
#include "fault.h"
#include "kit.h"
#include "stack.h"
#include "throttle.h"

enum { SIZE = 1 << 20 };

static struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_log log;
    char warned[512];
    char old_dir[1024], dir[32];
} rig;

static void
log_line(void *arg, enum st_level level, const char *line)
{
    (void)level;
    snprintf(((struct rig *)arg)->warned, sizeof(rig.warned), "%s", line);
}

static int
setup(void **state)
{
    struct st_domain_opts o = {.engine = "virtual", .log = &rig.log};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    rig.log = (struct st_log){ST_LOG_WARN, log_line, &rig};
    strcpy(rig.dir, "/tmp/stack-XXXXXX");
    assert_non_null(getcwd(rig.old_dir, sizeof(rig.old_dir)));
    assert_non_null(mkdtemp(rig.dir));
    assert_int_equal(chdir(rig.dir), 0);
    assert_int_equal(st_domain_create(&o, &rig.domain, NULL), 0);
    return st_loop_create(rig.domain, &rig.loop, NULL);
}

static int
teardown(void **state)
{
    (void)state;
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.domain);
    assert_int_equal(system("rm -f ./* ./.vhd"), 0);
    assert_int_equal(chdir(rig.old_dir), 0);
    return rmdir(rig.dir);
}

/* A sparse file of SIZE bytes with TEXT at OFFSET. */
static void
make_file(const char *path, const char *text, off_t offset)
{
    int fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    assert_int_equal(pwrite(fd, text, strlen(text), offset), strlen(text));
    close(fd);
}

static struct st_node *
opened(const char *spec, bool read_only)
{
    struct st_node *n;
    struct st_err err;

    if (st_stack_open(rig.loop, NULL, spec, read_only, &n, &err))
        fail_msg("%s", err.text);
    return n;
}

/* "layered(ram,delay(file))" */
static void
shape(const struct st_node *n, char *buf)
{
    strcat(buf, n->ops->name);
    for (unsigned i = 0; i < n->nchild; i++) {
        strcat(buf, i ? "," : "(");
        shape(n->child[i], buf);
    }
    if (n->nchild)
        strcat(buf, ")");
}

static void
specs_become_trees(void **state)
{
    static const char *const rows[][2] = {
        {"mem:1M", "ram"},
        {"x.img", "file"},
        {"file:x.img", "file"},
        {"raw:x.img", "file"},
        {"memdiff:x.img", "layered(ram,file)"},
        {"memdiff:memdiff:file:x.img", "layered(ram,ram,file)"},
        {"memdiff:mem:1M", "layered(ram,ram)"},
        {"delay:0:mem:1M", "delay(ram)"},
        {"memdiff:delay:0:x.img", "layered(ram,delay(file))"},
        {"delay:0:memdiff:x.img", "delay(layered(ram,file))"},
        {"throttle:9/1M;burst=2:fault:rules:delay:1;flush=2:x.img",
         "throttle(fault(delay(file)))"},
    };

    (void)state;
    make_file("x.img", "", 0);
    make_file("rules", "", 0);
    assert_int_equal(truncate("rules", 0), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_node *n = opened(rows[i][0], false);
        struct st_disk *d;
        char got[200] = "";

        shape(n, got);
        assert_string_equal(got, rows[i][1]);
        assert_int_equal(st_node_size(n), SIZE);
        assert_int_equal(st_disk_create(rig.loop, n, "d", false, &d, NULL), 0);
        st_disk_destroy(d);
    }
}

static void
labels_say_what_was_written(void **state)
{
    struct st_node *n = opened("memdiff:delay:5;read=1:mem:1M", false);

    (void)state;
    assert_string_equal(n->label, "memdiff:delay:5;read=1:mem:1M");
    assert_string_equal(n->child[0]->label, "memdiff");
    assert_string_equal(n->child[1]->label, "delay:5;read=1");
    assert_string_equal(n->child[1]->child[0]->label, "mem:1M");
    st_node_close(n);
}

static void
sector_sizes_are_ours_to_choose(void **state)
{
    static const char *const rows[] = {
        "mem:1M;sector=4096",
        "file:new;create=1M;sector=4096",
        "raw:new;sector=4096",
        "memdiff:new;sector=4096",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_node *n = opened(rows[i], false);

        assert_int_equal(n->props.sector_size, 4096);
        assert_int_equal(st_node_size(n), SIZE);
        st_node_close(n);
    }
}

static void
read_only_runs_downwards(void **state)
{
    static const struct {
        const char *spec;
        bool read_only, top, bottom; /* given; found */
    } rows[] = {
        {"x.img", false, false, false},
        {"x.img", true, true, true},
        {"delay:0:x.img", true, true, true},
        {"delay:0:x.img", false, false, false},
        {"memdiff:x.img", false, false, true},
        {"memdiff:x.img", true, true, true},
        {"memdiff:delay:0:x.img", false, false, true},
        {"delay:0:memdiff:memdiff:x.img", false, false, true},
    };

    (void)state;
    make_file("x.img", "", 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_node *n = opened(rows[i].spec, rows[i].read_only), *b = n;

        while (b->nchild)
            b = b->child[b->nchild - 1];
        assert_int_equal(n->props.read_only, rows[i].top);
        assert_int_equal(b->props.read_only, rows[i].bottom);
        st_node_close(n);
    }
}

static void
refuses(const char *spec, bool read_only, int rc, const char *says)
{
    struct st_node *n;
    struct st_err err;
    int got = st_stack_open(rig.loop, NULL, spec, read_only, &n, &err);

    if (got != rc || !strstr(err.text, says))
        fail_msg("'%s': %d, '%s' does not say '%s'", spec, got,
                 got ? err.text : "", says);
}

static void
what_is_not_built_in_says_so(void **state)
{
    static const char *const rows[] = {
        "vhd:x",        "vhdx:x",
        "sql:x",        "sqldiff:x:mem:1M",
        "cache:1:x:x",  "blob:flat:http://h/x",
        "prwrap:x.img", "crypt:xts-aes-256:k:x",
        "nbd:nbd://h",  "stripe:4K:[x][y]",
        "rbd:p/i",      "nvme:01:00.0/1",
    };

    (void)state;
    unsetenv("OPENVMM_AUTO_CACHE_PATH");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char says[64];

        snprintf(says, sizeof(says), "'%.*s' is not built into this strata",
                 (int)strcspn(rows[i], ":"), rows[i]);
        refuses(rows[i], true, -ENOTSUP, says);
    }
    refuses("memdiff:vhdx:x", false, -ENOTSUP, "'vhdx' is not built");
    refuses("delay:1:vhdx:x", false, -ENOTSUP, "'vhdx' is not built");
    refuses("autocache::mem:1M", false, -EINVAL, "OPENVMM_AUTO_CACHE_PATH");
    setenv("OPENVMM_AUTO_CACHE_PATH", "/tmp", 1);
    refuses("autocache::mem:1M", false, -ENOTSUP, "'autocache' is not built");
    refuses("throttle:5;group=g:mem:1M", false, -ENOTSUP, "opened alone");
    refuses("/dev/null", false, -EINVAL, "/dev/null");
}

static void
the_extension_asks_for_a_format(void **state)
{
    static const char *const names[] = {"a.vhd", "a.VHD", "a.vhdx", "a.vHdX",
                                        "a.vmgs"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char spec[64];

        make_file(names[i], "", 0);
        refuses(names[i], true, -ENOTSUP, "is not built into this strata");
        snprintf(spec, sizeof(spec), "file:%s", names[i]);
        refuses(spec, false, -ENOTSUP, "is not built into this strata");
        snprintf(spec, sizeof(spec), "file:%s;direct", names[i]);
        refuses(spec, false, -EINVAL, "direct is for raw images");
        snprintf(spec, sizeof(spec), "memdiff:file:%s", names[i]);
        refuses(spec, false, -ENOTSUP, "is not built into this strata");
        snprintf(spec, sizeof(spec), "file:new-%s;create=1M", names[i]);
        refuses(spec, false, -ENOTSUP, "is not built into this strata");
        snprintf(spec, sizeof(spec), "new-%s", names[i]);
        assert_int_equal(access(spec, F_OK), -1);
        snprintf(spec, sizeof(spec), "raw:%s", names[i]);
        st_node_close(opened(spec, false));
    }
    make_file(".vhd", "", 0); /* has no extension */
    st_node_close(opened(".vhd", false));
    make_file("vhd", "", 0);
    st_node_close(opened("vhd", false));
    make_file("a.vhd.img", "", 0);
    st_node_close(opened("a.vhd.img", false));
}

static void
an_iso_is_only_read(void **state)
{
    struct st_node *n;

    (void)state;
    make_file("a.ISO", "", 0);
    refuses("a.ISO", false, -EROFS, "read-only");
    refuses("delay:1:a.ISO", false, -EROFS, "read-only");
    refuses("file:b.iso;create=1M", true, -EINVAL, "iso");
    n = opened("a.ISO", true);
    assert_string_equal(n->ops->name, "file");
    st_node_close(n);
    st_node_close(opened("memdiff:a.ISO", false));
}

static void
a_signature_warns_but_does_not_decide(void **state)
{
    static const struct {
        const char *bytes;
        off_t at;
        const char *format; /* or NULL */
    } rows[] = {
        {"conectix", 0, "looks like vhd;"},
        {"conectix", SIZE - 512, "looks like vhd;"},
        {"vhdxfile", 0, "looks like vhdx;"},
        {"QFI\xfb", 0, "looks like qcow2;"},
        {"conectix", 512, NULL},
        {"", 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_node *n;

        make_file("x.img", rows[i].bytes, rows[i].at);
        rig.warned[0] = '\0';
        n = opened("x.img", true);
        assert_string_equal(n->ops->name, "file");
        assert_int_equal(st_node_size(n), SIZE);
        st_node_close(n);
        if (rows[i].format) {
            assert_non_null(strstr(rig.warned, "x.img"));
            assert_non_null(strstr(rig.warned, rows[i].format));
        } else {
            assert_string_equal(rig.warned, "");
        }
        rig.warned[0] = '\0';
        st_node_close(opened("raw:x.img", true));
        assert_string_equal(rig.warned, "");
    }
}

static void
files_are_safe(void **state)
{
    struct st_node *n;

    (void)state;
    st_node_close(opened("file:new;create=1M", false));
    refuses("file:new;create=2M", false, -EEXIST, "new");
    refuses("missing", false, -ENOENT, "missing");
    refuses("fault:missing:mem:1M", false, -ENOENT, "missing");
    n = opened("new", false);
    refuses("new", false, -EBUSY, "new");
    refuses("delay:1:new", false, -EBUSY, "new");
    st_node_close(n);
    /* Made although the disk is read-only. */
    n = opened("memdiff:file:newer;create=1M", false);
    assert_true(n->child[1]->props.read_only);
    st_node_close(n);
}

static void
empty_and_impossible_disks_are_refused(void **state)
{
    (void)state;
    refuses("mem:0", false, -EINVAL, "'mem:0'");
    refuses("mem:1000", false, -EINVAL, "1000");
    refuses("mem:1M;sector=768", false, -EINVAL, "768");
    refuses("memdiff:mem:0", false, -EINVAL, "'mem:0'");
    refuses("throttle:0:mem:1M", false, -EINVAL, "neither");
    refuses("throttle:0/0:mem:1M", false, -EINVAL, "neither");
    refuses("nonsense:x", false, -EINVAL, "'nonsense'");
}

static void
help_names_what_is_built_in(void **state)
{
    static const char *const built[] = {"<path>",   "file",    "raw",
                                        "mem",      "memdiff", "delay",
                                        "throttle", "fault"};
    char *text = NULL;
    size_t size = 0, found = 0;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    st_stack_help(out);
    fclose(out);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        bool known = false;

        if (strncmp(line, "   ", 3) == 0)
            continue; /* a kind's line of help */
        line += strspn(line, " ");
        line[strcspn(line, ":[")] = '\0';
        for (size_t i = 0; i < sizeof(built) / sizeof(*built); i++)
            known |= strcmp(line, built[i]) == 0;
        if (!known)
            fail_msg("help names '%s'", line);
        found++;
    }
    assert_int_equal(found, sizeof(built) / sizeof(*built));
    free(text);
    for (const struct st_kind *k = st_stack_kinds(); k->name; k++) {
        assert_memory_equal(k->syntax, k->name, strlen(k->name));
        assert_true(!k->help || k->open);
    }
}

/* ---- Whole stacks keep the contract ---- */

static int
make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
     struct st_node **out, struct st_err *err)
{
    char spec[200];

    snprintf(spec, sizeof(spec), arg, (unsigned long long)size,
             (unsigned)sector);
    return st_stack_open(loop, NULL, spec, false, out, err);
}

static void
stacks_keep_the_contract(void **state)
{
    static char spec[][100] = {
        "delay:0:mem:%llu;sector=%u", /* of ram itself: its own room */
        "memdiff:mem:%llu;sector=%u",
        "throttle:100000/1G;burst=1:delay:1;flush=1:mem:%llu;sector=%u",
        "memdiff:delay:1:memdiff:mem:%llu;sector=%u",
    };

    (void)state;
    for (unsigned i = 0; i < 2 * sizeof(spec) / sizeof(*spec); i++) {
        struct st_kit kit = {.name = spec[i / 2],
                             .sector = i % 2 ? 4096 : 512,
                             .loop = rig.loop,
                             .make = make,
                             .arg = spec[i / 2]};
        unsigned ran;

        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 0);
    }
}

/* ---- Live -----------------------------------------------------------------
 */

/* A front end that always has one read under way, and room for more frames. */
struct reader {
    struct st_disk *disk;
    struct st_chan *chan;
    struct st_req *req;
    struct iovec iov;
    unsigned completed, failed;
    bool stop, stopped;
};

static void
reader_next(struct reader *r)
{
    r->req->op = ST_OP_READ;
    r->req->offset = 4096 * (r->completed % 16);
    r->req->len = 4096;
    r->req->buf = (struct st_buf){&r->iov, 0};
    st_submit(r->chan, r->req);
}

static void
reader_done(struct st_req *req)
{
    struct reader *r = req->owner;

    r->completed++;
    r->failed += req->status != ST_OK;
    if (r->stop)
        r->stopped = true;
    else
        reader_next(r);
}

struct change {
    struct st_disk *disk;
    struct st_node *node; /* to insert; NULL: remove KIND */
    const char *kind;
};

static void
start_change(void *arg, struct st_edit *e)
{
    struct change *c = arg;

    if (c->node)
        st_disk_insert(c->disk, c->node, 0, e);
    else
        st_disk_remove(c->disk, c->kind, 0, e);
}

static void
change(struct st_disk *d, struct st_node *node, const char *kind)
{
    struct change c = {d, node, kind};
    struct st_edit e = {0};

    if (st_sync_edit(rig.loop, start_change, &c, &e))
        fail_msg("%s: %s", kind, e.err.text);
}

static void
decorators_come_and_go_under_io(void **state)
{
    static const char *const kinds[] = {"throttle", "fault", "delay"};
    const struct st_delay_opts delay = {.read_ns = 1000};
    const struct st_throttle_opts throttle = {.iops = 1000, .burst_ns = 1};
    struct reader r = {.iov = {malloc(4096), 4096}};
    struct st_node *n[3];
    char got[100] = "";

    (void)state;
    assert_int_equal(st_disk_create(rig.loop, opened("memdiff:mem:1M", false),
                                    "d", false, &r.disk, NULL),
                     0);
    assert_int_equal(st_disk_open_chan(r.disk, rig.loop, &r.chan), 0);
    r.req = malloc(st_req_size(ST_DEPTH_MAX));
    st_req_init(r.req, ST_DEPTH_MAX, reader_done, &r);
    reader_next(&r);

    assert_int_equal(st_delay_create(rig.loop, &delay, "d", &n[0], NULL), 0);
    assert_int_equal(st_throttle_create(rig.loop, &throttle, "t", &n[1], NULL),
                     0);
    assert_int_equal(st_fault_create(rig.loop, NULL, "f", &n[2], NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        unsigned before = r.completed;

        change(r.disk, n[i], n[i]->ops->name);
        while (r.completed < before + 10)
            assert_true(st_domain_step(rig.domain));
    }
    shape(st_disk_node(r.disk), got);
    assert_string_equal(got, "fault(throttle(delay(layered(ram,ram))))");
    for (unsigned i = 0; i < 3; i++)
        change(r.disk, NULL, kinds[i]);
    got[0] = '\0';
    shape(st_disk_node(r.disk), got);
    assert_string_equal(got, "layered(ram,ram)");

    r.stop = true;
    while (!r.stopped)
        assert_true(st_domain_step(rig.domain));
    assert_int_equal(r.failed, 0);
    st_disk_close_chan(r.chan);
    while (st_domain_step(rig.domain))
        ;
    st_disk_destroy(r.disk);
    while (st_domain_step(rig.domain))
        ;
    free(r.req);
    free(r.iov.iov_base);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(specs_become_trees),
        TEST(labels_say_what_was_written),
        TEST(sector_sizes_are_ours_to_choose),
        TEST(read_only_runs_downwards),
        TEST(what_is_not_built_in_says_so),
        TEST(the_extension_asks_for_a_format),
        TEST(an_iso_is_only_read),
        TEST(a_signature_warns_but_does_not_decide),
        TEST(files_are_safe),
        TEST(empty_and_impossible_disks_are_refused),
        TEST(help_names_what_is_built_in),
        TEST(stacks_keep_the_contract),
        TEST(decorators_come_and_go_under_io),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
