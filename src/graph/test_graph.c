/* SPDX-License-Identifier: MIT
 *
 * Each verb and each of its errors; names; the set-up calls. One edit at a
 * time, on virtual loops.
 */
#include "test_rig.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static int
setup(void **state)
{
    *state = rig_open("virtual", 1);
    return 0;
}

static int
teardown(void **state)
{
    rig_close(*state);
    return 0;
}

/* ---- Exports and names ---- */

static void
exports_come_and_go_with_their_disk(void **state)
{
    struct rig *r = *state;
    struct st_nbd_stats s;

    must(r, "add-export", "a", "delay:0:mem:1M");
    has_disks(r, "a");
    has_shape(r, "a", "delay(ram)");
    assert_string_equal(disk(r, "a")->spec, "delay:0:mem:1M");
    assert_false(disk(r, "a")->read_only);
    assert_int_equal(st_disk_size(disk(r, "a")->disk), MIB);
    assert_int_equal(edit4(r, "add-export", "b/c d", "mem:1M", "on", "nbd"), 0);
    assert_true(disk(r, "b/c d")->read_only);
    assert_true(st_disk_props(disk(r, "b/c d")->disk)->read_only);
    must(r, "remove-export", "a", NULL);
    has_disks(r, "b/c d");
    assert_null(st_graph_find_disk(r->graph, "a"));
    must(r, "add-export", "a", "mem:2M");
    has_disks(r, "b/c d a");
    assert_int_equal(st_disk_size(disk(r, "a")->disk), 2 * MIB);
    st_nbd_stats(st_graph_next_door(r->graph, NULL)->nbd, &s);
    assert_int_equal(s.clients, 0);
}

static void
names_are_the_exports_or_numbered(void **state)
{
    struct rig *r = *state;
    const char *name;
    struct st_err err;

    must(r, "add-export", "", "mem:1M");
    assert_string_equal(disk(r, "disk0")->spec, "mem:1M");
    refused(r, -EEXIST, "export '' already", "add-export", "", "mem:1M");
    refused(r, -EEXIST, "disk 'disk0' already", "add-export", "disk0",
            "mem:1M");
    assert_int_equal(st_graph_open(r->graph, "", "mem:1M", true, &name, &err),
                     0);
    assert_string_equal(name, "disk1");
    assert_true(disk(r, "disk1")->read_only);
    must(r, "add-export", "disk2", "mem:1M");
    assert_int_equal(st_graph_open(r->graph, "", "mem:1M", false, &name, &err),
                     0);
    assert_string_equal(name, "disk3");
    has_disks(r, "disk0 disk1 disk2 disk3");
    must(r, "remove-export", "", NULL);
    has_disks(r, "disk1 disk2 disk3");
    must(r, "add-export", "", "mem:1M");
    has_disks(r, "disk1 disk2 disk3 disk0");
}

static void
names_are_text(void **state)
{
    static const char *const good[] = {"a b",
                                       "/",
                                       "%",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x92\xbe",
                                       "\xc2\xa0",
                                       "\xed\x9f\xbf"};
    static const char *const bad[] = {
        "a\n",
        "\x01",
        "\x7f",
        "\xc2\x80",
        "\xff",
        "\xc3",
        "\xc3(",
        "\xc0\xaf",
        "\xe0\x80\xaf",
        "\xed\xa0\x80",
        "\xf0\x80\x80\xaf",
        "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80",
        "\x80",
    };
    struct rig *r = *state;
    struct st_err err;

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        must(r, "add-export", good[i], "mem:1M");
        must(r, "remove-export", good[i], NULL);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        refused(r, -EINVAL, "UTF-8", "add-export", bad[i], "mem:1M");
    has_disks(r, "");
    /* An export may have another name than its disk: the same holds. */
    must(r, "add-export", "a", "mem:1M");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(st_graph_export(r->graph, "nbd", bad[i], "a", &err),
                         -EINVAL);
    assert_int_equal(st_graph_export(r->graph, "nbd", good[0], "a", &err), 0);
}

static void
a_disk_that_does_not_open_leaves_nothing(void **state)
{
    struct rig *r = *state;
    char *longname = malloc(5001);

    refused(r, -EINVAL, "'nonsense'", "add-export", "a", "nonsense:1");
    refused(r, -ENOENT, "/no/such", "add-export", "a", "/no/such");
    refused(r, -EIO, "no such luck", "add-export", "a", "test:bad");
    refused(r, -EIO, "no such luck", "add-export", "a",
            "memdiff:delay:1:test:bad");
    refused(r, -ENOTSUP, "not built into", "add-export", "a", "vhdx:x");
    refused(r, -EINVAL, "'spec' is missing, expected NAME=SPEC", "add-export",
            "a", NULL);
    refused(r, -EINVAL, "'name' is missing", "add-export", NULL, "mem:1M");
    refused4(r, -EINVAL, "expected on or off", "add-export", "a", "mem:1M",
             "yes", NULL);
    refused4(r, -ENOENT, "no door 'x'", "add-export", "a", "mem:1M", NULL, "x");
    memset(longname, 'x', 5000);
    longname[5000] = '\0';
    refused(r, -EINVAL, "longer than 4096", "add-export", longname, "mem:1M");
    free(longname);
    has_disks(r, "");
    refused(r, -ENOENT, "no export 'a'", "remove-export", "a", NULL);
    must(r, "add-export", "a", "mem:1M");
    refused(r, -ENOENT, "no export ''", "remove-export", "", NULL);
    has_disks(r, "a");
}

static void
one_of_several_doors_is_named(void **state)
{
    const struct st_nbd_opts nbd = {.nloops = 0};
    struct rig *r = *state;
    struct st_err err;

    assert_int_equal(st_graph_add_nbd(r->graph, "two", &nbd, &err), 0);
    assert_int_equal(st_graph_add_nbd(r->graph, "two", &nbd, &err), -EEXIST);
    refused(r, -EINVAL, "door=", "add-export", "a", "mem:1M");
    assert_int_equal(edit4(r, "add-export", "a", "mem:1M", NULL, "two"), 0);
    /* The same name at the other door; the disk's is taken. */
    refused4(r, -EEXIST, "disk 'a'", "add-export", "a", "mem:1M", NULL, "nbd");
    assert_int_equal(st_graph_export(r->graph, "nbd", "a", "a", &err), 0);
    must(r, "remove-export", "a", NULL); /* at both */
    has_disks(r, "");
    assert_string_equal(st_graph_next_door(r->graph, NULL)->kind, "nbd");
}

static void
a_disk_stays_while_another_export_has_it(void **state)
{
    struct rig *r = *state;
    struct st_err err;

    assert_int_equal(st_graph_open(r->graph, "d", "mem:1M", false, NULL, &err),
                     0);
    assert_int_equal(st_graph_open(r->graph, "d", "mem:1M", false, NULL, &err),
                     -EEXIST);
    assert_int_equal(st_graph_export(r->graph, "nbd", "x", "d", &err), 0);
    assert_int_equal(st_graph_export(r->graph, "nbd", "y", "d", &err), 0);
    assert_int_equal(st_graph_export(r->graph, "nbd", "y", "d", &err), -EEXIST);
    assert_int_equal(st_graph_export(r->graph, "no", "z", "d", &err), -ENOENT);
    assert_int_equal(st_graph_export(r->graph, "nbd", "z", "e", &err), -ENOENT);
    must(r, "pause", "d", NULL);
    must(r, "remove-export", "x", NULL);
    has_disks(r, "d");
    assert_true(disk(r, "d")->paused);
    must(r, "remove-export", "y", NULL);
    has_disks(r, "");
}

static void
a_descriptor_for_no_door_is_closed(void **state)
{
    struct rig *r = *state;
    struct st_err err;
    int fd[2];
    char c;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(
        st_graph_connection(r->graph, "x", fd[1], NULL, NULL, &err), -ENOENT);
    assert_int_equal(read(fd[0], &c, 1), 0);
    close(fd[0]);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(st_graph_listen(r->graph, "x", fd[1], &err), -ENOENT);
    assert_int_equal(read(fd[0], &c, 1), 0);
    close(fd[0]);
}

/* ---- Disks ---- */

static void
disks_grow_and_shrink(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a", "delay:0:mem:1M");
    must(r, "resize", "a", "3M");
    assert_int_equal(st_disk_size(disk(r, "a")->disk), 3 * MIB);
    must(r, "resize", "a", "512");
    assert_int_equal(st_disk_size(disk(r, "a")->disk), 512);
    refused(r, -EINVAL, "invalid size '1.5M'", "resize", "a", "1.5M");
    refused(r, -EINVAL, "multiple", "resize", "a", "513");
    refused(r, -ENOENT, "no disk 'b'", "resize", "b", "1M");
    refused(r, -EINVAL, "'size' is missing", "resize", "a", NULL);
    assert_int_equal(st_disk_size(disk(r, "a")->disk), 512);
    assert_int_equal(edit4(r, "add-export", "ro", "mem:1M", "on", NULL), 0);
    refused(r, -EROFS, "read-only", "resize", "ro", "2M");
    /* A paused disk stays paused. */
    must(r, "pause", "a", NULL);
    must(r, "resize", "a", "1M");
    assert_true(disk(r, "a")->paused);
    must(r, "resume", "a", NULL);
}

static void
decorators_go_on_top_and_out_again(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a", "mem:1M");
    must(r, "insert", "a", "delay:1");
    must(r, "insert", "a", "throttle:1000;group=g");
    must(r, "insert", "a", "delay:2");
    has_shape(r, "a", "delay(throttle(delay(ram)))");
    assert_string_equal(st_disk_node(disk(r, "a")->disk)->label, "delay:2");
    must(r, "remove", "a", "delay"); /* the topmost one */
    has_shape(r, "a", "throttle(delay(ram))");
    must(r, "remove", "a", "delay");
    has_shape(r, "a", "throttle(ram)");
    refused(r, -ENOENT, "no 'delay' on top", "remove", "a", "delay");
    refused(r, -ENOENT, "no 'ram' on top", "remove", "a", "ram");
    refused(r, -EINVAL, "not a decorator", "insert", "a", "mem:1M");
    refused(r, -EINVAL, "a disk follows", "insert", "a", "delay:1:mem:1M");
    refused(r, -ENOENT, "/no/such", "insert", "a", "fault:/no/such");
    refused(r, -EINVAL, "other limits", "insert", "a", "throttle:5;group=g");
    refused(r, -ENOENT, "no disk 'x'", "insert", "x", "delay:1");
    refused(r, -ENOENT, "no disk 'x'", "remove", "x", "delay");
    refused(r, -EINVAL, "'node' is missing", "insert", "a", NULL);
    has_shape(r, "a", "throttle(ram)");
    must(r, "remove", "a", "throttle");
    must(r, "insert", "a", "throttle:5;group=g"); /* the name was free */
    must(r, "pause", "a", NULL);
    must(r, "insert", "a", "delay:1");
    must(r, "remove", "a", "throttle");
    has_shape(r, "a", "delay(ram)");
    assert_true(disk(r, "a")->paused);
}

static void
a_tree_that_is_too_deep_is_refused(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a", "mem:1M");
    for (unsigned i = 1; i < ST_DEPTH_MAX; i++)
        must(r, "insert", "a", "delay:0");
    refused(r, -E2BIG, "16 disks deep", "insert", "a", "delay:0");
    must(r, "remove", "a", "delay");
    must(r, "insert", "a", "throttle:9");
}

static void
pause_and_resume_alternate(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a", "mem:1M");
    refused(r, -EBUSY, "neither paused nor stopped", "resume", "a", NULL);
    must(r, "pause", "a", NULL);
    assert_true(disk(r, "a")->paused);
    refused(r, -EBUSY, "paused already", "pause", "a", NULL);
    must(r, "resume", "a", NULL);
    assert_false(disk(r, "a")->paused);
    refused(r, -EBUSY, "neither", "resume", "a", NULL);
    refused(r, -ENOENT, "no disk 'x'", "pause", "x", NULL);
    refused(r, -ENOENT, "no disk 'x'", "resume", "x", NULL);
    refused(r, -EINVAL, "'disk' is missing, expected DISK", "pause", NULL,
            NULL);
    must(r, "pause", "a", NULL); /* and it can go so */
    must(r, "remove-export", "a", NULL);
    has_disks(r, "");
}

static void
policies_are_words(void **state)
{
    static const char *const words[] = {"stop", "retry", "report"};
    static const enum st_policy means[] = {ST_POLICY_STOP, ST_POLICY_RETRY,
                                           ST_POLICY_REPORT};
    struct rig *r = *state;

    must(r, "add-export", "a", "mem:1M");
    for (unsigned i = 0; i < 3; i++) {
        must(r, "policy", "a", words[i]);
        assert_int_equal(st_disk_policy(disk(r, "a")->disk), means[i]);
    }
    refused(r, -EINVAL, "expected report, stop or retry", "policy", "a",
            "Stop");
    refused(r, -ENOENT, "no disk", "policy", "x", "stop");
    assert_int_equal(st_disk_policy(disk(r, "a")->disk), ST_POLICY_REPORT);
}

/* ---- A disk that the error policy stopped ---- */

static void
resume_goes_on_after_a_stop_by_the_policy(void **state)
{
    struct rig *r = *state;
    struct st_disk_stats s;
    struct io io;

    must(r, "add-export", "a", "test:");
    must(r, "policy", "a", "stop");
    st_testnode_fail(r->node, ST_BIT(ST_OP_WRITE), ST_NO_SPACE, 1);
    io_write(r, &io, "a");
    while (st_domain_step(r->domain))
        ;
    assert_false(io.done);
    st_disk_stats(disk(r, "a")->disk, &s);
    assert_true(s.stopped);
    assert_false(disk(r, "a")->paused);
    must(r, "resume", "a", NULL);
    assert_int_equal(io_end(r, &io), ST_OK);
    refused(r, -EBUSY, "neither", "resume", "a", NULL);
}

static void
a_flush_that_fails_is_said_when_the_disk_goes(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a", "test:");
    st_testnode_fail(r->node, ST_BIT(ST_OP_FLUSH), ST_IO, 1);
    refused(r, -EIO, "a: removed, but its last flush failed", "remove-export",
            "a", NULL);
    has_disks(r, "");
    must(r, "add-export", "a", "test:");
    st_testnode_fail(r->node, ST_BIT(ST_OP_FLUSH), ST_IO, 1);
    assert_int_equal(rig_stop(r), -EIO);
}

static void
what_is_removed_was_flushed(void **state)
{
    struct rig *r = *state;
    struct io io;

    must(r, "add-export", "a", "test:");
    io_write(r, &io, "a");
    assert_int_equal(io_end(r, &io), ST_OK);
    assert_int_equal(st_testnode_count(r->node, ST_OP_FLUSH), 0);
    assert_int_equal(st_graph_open(r->graph, "b", "test:", false, NULL, NULL),
                     0);
    assert_int_equal(rig_stop(r), 0); /* b is served by nobody */
    assert_int_equal(st_testnode_count(r->node, ST_OP_FLUSH), 1);
}

/* ---- Set ---- */

static void
values_of_disks_are_set_by_their_path(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "a/b %", "mem:1M");
    must(r, "set", "disks/a%2Fb%20%25/size", "2M");
    assert_int_equal(st_disk_size(disk(r, "a/b %")->disk), 2 * MIB);
    must(r, "set", "/disks/a%2fb %25/policy/", "stop");
    assert_int_equal(st_disk_policy(disk(r, "a/b %")->disk), ST_POLICY_STOP);
}

static void
set_says_what_is_not_and_what_cannot_be_set(void **state)
{
    static const struct {
        const char *path, *value;
        int rc;
        const char *says;
    } rows[] = {
        {"disks/a/size", "1.5", -EINVAL, "invalid size"},
        {"disks/a/policy", "x", -EINVAL, "invalid policy"},
        {"disks/b/size", "1M", -ENOENT, "no disk 'b'"},
        {"disks/a/no", "1", -ENOENT, "'disks/a/no': no such value"},
        {"disks/a/size/x", "1", -ENOENT, "no such value"},
        {"disks/a/reads", "1", -EACCES, "'disks/a/reads' cannot be set"},
        {"disks/a/name", "1", -EACCES, "cannot be set"},
        {"disks/a/paused", "1", -EACCES, "cannot be set"},
        {"disks/a", "1", -EACCES, "cannot be set"},
        {"disks", "1", -EACCES, "cannot be set"},
        {"version", "1", -EACCES, "cannot be set"},
        {"doors/nbd/clients", "1", -EACCES, "cannot be set"},
        {"graph/edits_done", "1", -EACCES, "cannot be set"},
        {"nothing", "1", -ENOENT, "no such value"},
        {"", "1", -ENOENT, "no such value"},
        {"/", "1", -ENOENT, "no such value"},
        {"disks//size", "1", -ENOENT, "no disk ''"},
        {"disks/%zz/size", "1", -EINVAL, "percent-encoded"},
        {"disks/a%/size", "1", -EINVAL, "percent-encoded"},
        {"disks/a%4", "1", -EINVAL, "percent-encoded"},
        {"disks/a%00/size", "1", -EINVAL, "percent-encoded"},
        {"disks/a/backend", "1", -EACCES, "cannot be set"},
        {"disks/a/backend/nothing", "1", -ENOENT, "no such value"},
        {"disks/a/backend/inner", "1", -ENOENT, "no such value"},
        {"disks/a/backend/layers/0", "1", -ENOENT, "no such value"},
        {"disks/a/backend/inner/layers/2/x", "1", -ENOENT, "no such value"},
        {"disks/a/backend/inner/layers/-1/x", "1", -ENOENT, "no such value"},
        {"disks/a/backend/inner/children/0/x", "1", -ENOENT, "no such value"},
        {"disks/a/backend/inner/inner/x", "1", -ENOENT, "no such value"},
        {NULL, "1", -EINVAL, "'path' is missing"},
        {"disks/a/size", NULL, -EINVAL, "'value' is missing"},
    };
    struct rig *r = *state;
    char longpath[2 * 300 + 1];

    must(r, "add-export", "a", "delay:0:memdiff:mem:1M");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        refused(r, rows[i].rc, rows[i].says, "set", rows[i].path,
                rows[i].value);
    for (unsigned i = 0; i < 300; i++)
        memcpy(longpath + 2 * i, "x/", 3);
    refused(r, -ENOENT, "no such value", "set", longpath, "1");
    memcpy(longpath, "disks/a/backend/", 16);
    memset(longpath + 16, 'x', 500);
    longpath[516] = '\0';
    refused(r, -ENOENT, "no such value", "set", longpath, "1");
    assert_int_equal(st_disk_size(disk(r, "a")->disk), MIB);
}

/* A node whose set can be watched, as a disk "test:" is decorated with it. */
static char set_name[64], set_value[64];

static int
watched_set(struct st_node *n, const char *name, const char *value,
            struct st_err *err)
{
    (void)n;
    if (strcmp(name, "shy") == 0)
        return -EACCES;
    if (strcmp(name, "odd") == 0)
        return st_err_set(err, EINVAL, "odd: expected an odd number");
    if (strncmp(name, "layers/0/", 9) != 0 && strcmp(name, "x/y") != 0 &&
        strcmp(name, "plain") != 0)
        return -ENOENT;
    snprintf(set_name, sizeof(set_name), "%s", name);
    snprintf(set_value, sizeof(set_value), "%s", value);
    return 0;
}

static void
watched_inspect(struct st_node *n, struct st_inspect *v)
{
    (void)n;
    v->u64(v, "fixed", 1);
    v->text(v, "also/fixed", "x");
}

static void
values_of_nodes_are_theirs_to_set(void **state)
{
    static const struct {
        const char *path;
        int rc;
        const char *says; /* the name it got, or the sentence */
    } rows[] = {
        {"plain", 0, "plain"},
        {"x/y", 0, "x/y"},
        {"x%2Fy", 0, "x/y"},
        {"shy", -EACCES, "cannot be set"},
        {"odd", -EINVAL, "expected an odd number"},
        {"fixed", -EACCES, "cannot be set"},
        {"also/fixed", -EACCES, "cannot be set"},
        {"inner/plain", -ENOENT, "no such value"},
        /* Not the layer's, so the layered disk's own. */
        {"layers/0/read_cache", 0, "layers/0/read_cache"},
    };
    struct rig *r = *state;
    const char *const disks[] = {"a", "b"};

    /* Seen as the top of a tree, and as a layered disk's node. */
    must(r, "add-export", "a", "test:");
    must(r, "add-export", "b", "memdiff:test:");
    for (unsigned k = 0; k < 2; k++) {
        struct st_node *n = st_disk_node(disk(r, disks[k])->disk);
        const struct st_node_ops *old = n->ops;
        struct st_node_ops ops = *old;

        ops.set = watched_set;
        ops.inspect = watched_inspect;
        n->ops = &ops;
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            char path[100];

            snprintf(path, sizeof(path), "disks/%s/backend/%s", disks[k],
                     rows[i].path);
            set_name[0] = set_value[0] = '\0';
            refused(r, rows[i].rc, rows[i].says, "set", path, "42");
            if (rows[i].rc == 0) {
                assert_string_equal(set_name, rows[i].says);
                assert_string_equal(set_value, "42");
            }
        }
        n->ops = old;
    }
}

static void
paths_lead_down_the_tree(void **state)
{
    static const char *const paths[] = {
        "disks/a/backend/inner/inner/layers/0/plain",
        "disks/a/backend/inner/inner/layers/1/plain",
        "disks/a/backend/inner/inner/layers/2/inner/plain",
    };
    struct rig *r = *state;
    struct st_node *n, *at[3];

    must(r, "add-export", "a",
         "throttle:9:delay:0:memdiff:memdiff:delay:0:test:");
    n = st_disk_node(disk(r, "a")->disk)->child[0]->child[0];
    at[0] = n->child[0];
    at[1] = n->child[1];
    at[2] = n->child[2]->child[0];
    for (unsigned i = 0; i < 3; i++) {
        const struct st_node_ops *old = at[i]->ops;
        struct st_node_ops ops = *old;

        ops.set = watched_set;
        at[i]->ops = &ops;
        set_name[0] = '\0';
        for (unsigned k = 0; k < 3; k++)
            refused(r, k == i ? 0 : -ENOENT, "no such", "set", paths[k], "1");
        assert_string_equal(set_name, "plain");
        at[i]->ops = old;
    }
}

/* ---- The rest ---- */

static void
quit_asks_whoever_made_the_graph(void **state)
{
    struct rig *r = *state;

    must(r, "quit", NULL, NULL);
    assert_int_equal(r->quits, 1);
    r->graph->opts.quit = NULL;
    refused(r, -ENOTSUP, "quit", "quit", NULL, NULL);
}

static void
the_table_says_what_a_verb_wants(void **state)
{
    (void)state;
    assert_null(st_graph_verb("nothing"));
    for (const struct st_verb *v = st_graph_verbs(); v->name; v++) {
        unsigned n = 0;

        assert_ptr_equal(st_graph_verb(v->name), v);
        assert_true(v->help[0] && v->start);
        while (n < ST_VERB_ARGS && v->arg[n])
            n++;
        assert_int_equal(n == 0, v->syntax[0] == '\0');
    }
}

struct sums {
    struct st_inspect v;
    uint64_t done, failed, waiting;
};

static void
sums_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct sums *s = st_container(v, struct sums, v);

    if (strcmp(name, "edits_done") == 0)
        s->done = value;
    else if (strcmp(name, "edits_failed") == 0)
        s->failed = value;
    else if (strcmp(name, "edits_waiting") == 0)
        s->waiting = value;
}

static void
edits_are_counted(void **state)
{
    struct rig *r = *state;
    struct sums s = {.v.u64 = sums_u64};
    struct edit x[3];

    must(r, "add-export", "a", "mem:1M");
    refused(r, -ENOENT, "no disk", "pause", "b", NULL);
    for (unsigned i = 0; i < 3; i++)
        edit_start(r, &x[i], 0, "policy", "a", "stop", NULL, NULL);
    st_graph_inspect(r->graph, &s.v);
    assert_int_equal(s.done, 2);
    assert_int_equal(s.failed, 1);
    assert_int_equal(s.waiting, 3);
    assert_int_equal(edit_wait(&x[2]), 0);
    assert_true(x[0].done && x[1].done);
    assert_ptr_equal(st_graph_control(r->graph), r->control);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(exports_come_and_go_with_their_disk),
        TEST(names_are_the_exports_or_numbered),
        TEST(names_are_text),
        TEST(a_disk_that_does_not_open_leaves_nothing),
        TEST(one_of_several_doors_is_named),
        TEST(a_disk_stays_while_another_export_has_it),
        TEST(a_descriptor_for_no_door_is_closed),
        TEST(disks_grow_and_shrink),
        TEST(decorators_go_on_top_and_out_again),
        TEST(a_tree_that_is_too_deep_is_refused),
        TEST(pause_and_resume_alternate),
        TEST(policies_are_words),
        TEST(resume_goes_on_after_a_stop_by_the_policy),
        TEST(a_flush_that_fails_is_said_when_the_disk_goes),
        TEST(what_is_removed_was_flushed),
        TEST(values_of_disks_are_set_by_their_path),
        TEST(set_says_what_is_not_and_what_cannot_be_set),
        TEST(values_of_nodes_are_theirs_to_set),
        TEST(paths_lead_down_the_tree),
        TEST(quit_asks_whoever_made_the_graph),
        TEST(the_table_says_what_a_verb_wants),
        TEST(edits_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
