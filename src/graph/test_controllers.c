/* SPDX-License-Identifier: MIT
 *
 * Controllers in the graph: names, every rule of where a disk can be, numbers
 * that nobody gave, disks that come and go, doors with a client, the end.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "test_rig.h"
#include "vfio_client.h"

static const struct st_graph_nvme_opts plain = {.namespaces = 4};

static struct rig *
rig_with(const char *engine)
{
    const struct st_graph_nvme_opts shared = {.namespaces = 4,
                                              .subsystem = "s"};
    struct rig *r = rig_open(engine, 7);

    assert_int_equal(st_graph_add_nvme(r->graph, "a", &plain, NULL), 0);
    assert_int_equal(st_graph_add_nvme(r->graph, "s0", &shared, NULL), 0);
    assert_int_equal(st_graph_add_nvme(r->graph, "s1", &shared, NULL), 0);
    return r;
}

static int
setup(void **state)
{
    *state = rig_with("virtual");
    return 0;
}

static int
teardown(void **state)
{
    rig_close(*state);
    return 0;
}

/* ---- What is where ---- */

/* "a/1=x s0/1=y": the namespaces, by controller and number. */
static void
has_namespaces(struct rig *r, const char *want)
{
    const struct st_graph_controller *c = NULL;
    char got[400] = "";

    while ((c = st_graph_next_controller(r->graph, c)))
        for (uint32_t nsid = 1; nsid <= 4; nsid++) {
            struct st_disk *d = st_nvme_namespace(c->nvme, nsid);
            size_t n = strlen(got);

            if (d)
                snprintf(got + n, sizeof(got) - n, "%s%s/%u=%s", n ? " " : "",
                         c->name, nsid, st_disk_name(d));
        }
    assert_string_equal(got, want);
}

static const struct st_graph_controller *
controller(struct rig *r, const char *name)
{
    const struct st_graph_controller *c = NULL;

    while ((c = st_graph_next_controller(r->graph, c)))
        if (strcmp(c->name, name) == 0)
            return c;
    fail_msg("no controller %s", name);
    return NULL;
}

static int
attach(struct rig *r, unsigned n, const char *const *text)
{
    struct st_attach a[8];
    int rc;

    for (unsigned i = 0; i < n; i++)
        if (st_attach_parse("--disk", text[i], &a[i], &r->err))
            fail_msg("%s", r->err.text);
    rc = st_graph_attach(r->graph, a, n, &r->err);
    for (unsigned i = 0; i < n; i++)
        st_attach_free(&a[i]);
    return rc;
}

/* ---- Names and identities ---- */

static void
names_are_distinct(void **state)
{
    struct rig *r = *state;
    const struct st_graph_nvme_opts sub = {.subsystem = "a"};
    const struct st_nbd_opts nbd = {.nloops = 0};
    struct st_err err;

    assert_int_equal(st_graph_add_nvme(r->graph, "a", &plain, &err), -EEXIST);
    assert_non_null(strstr(err.text, "a controller 'a' already"));
    assert_int_equal(st_graph_add_nvme(r->graph, "nbd", &plain, &err), -EEXIST);
    assert_non_null(strstr(err.text, "a door 'nbd' already"));
    assert_int_equal(st_graph_add_nbd(r->graph, "a", &nbd, &err), -EEXIST);
    assert_int_equal(st_graph_add_nvme(r->graph, "", &plain, &err), -EINVAL);
    assert_int_equal(st_graph_add_nvme(r->graph, "\n", &plain, &err), -EINVAL);
    /* A subsystem that somebody has for himself, and the other way round. */
    assert_int_equal(st_graph_add_nvme(r->graph, "b", &sub, &err), -EEXIST);
    assert_non_null(strstr(err.text, "expected subsystem=a at each"));
    assert_int_equal(st_graph_add_nvme(r->graph, "s", &plain, &err), -EEXIST);
    /* Nothing of it is left. */
    assert_int_equal(st_graph_add_nvme(r->graph, "b", &plain, &err), 0);
}

static void
identifiers_differ_in_a_subsystem(void **state)
{
    struct rig *r = *state;

    assert_int_equal(controller(r, "a")->cntlid, 0);
    assert_int_equal(controller(r, "s0")->cntlid, 0);
    assert_int_equal(controller(r, "s1")->cntlid, 1);
    assert_string_equal(controller(r, "s1")->subsystem, "s");
    assert_string_equal(controller(r, "a")->subsystem, "a");
}

/* ---- Rules ---- */

static void
every_place_has_its_rules(void **state)
{
    static const char *const rows[][2] = {
        {"test:,on=x", "there is no controller or door 'x'"},
        {"test:,on=a,lun=1", "lun= is of a SCSI controller, 'a' is an NVMe"},
        {"test:,on=nbd,lun=1", "lun= is of a SCSI controller, 'nbd' is an NBD"},
        {"test:,on=nbd,nsid=1", "nsid= is of an NVMe controller, 'nbd' is"},
        {"test:,on=a,export=x", "export= is of an NBD door, 'a' is an NVMe"},
        {"test:,on=a,dvd", "dvd is not supported: 'a' is an NVMe"},
        {"test:,on=nbd,dvd", "dvd is not supported: 'nbd' is an NBD"},
        {"test:,on=a,nsid=5", "nsid=5 is not one of controller 'a', which has "
                              "1 to 4"},
        {"test:,on=a,on=a", "on=a is given twice"},
        {"test:,on=a,nsid=1,on=a,nsid=2", "on=a is given twice"},
    };
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(attach(r, 1, rows[i]), -EINVAL);
        if (!strstr(r->err.text, rows[i][1]) ||
            strncmp(r->err.text, "--disk 'test:,", 14) != 0)
            fail_msg("'%s', expected '%s'", r->err.text, rows[i][1]);
    }
    has_disks(r, "");
    has_namespaces(r, "");
}

static void
numbers_come_after_those_that_are_given(void **state)
{
    static const char *const disks[] = {
        "test:,on=a,name=w", "test:,on=a,nsid=1,name=x",
        "test:,on=a,nsid=3,name=y", "test:,on=a,name=z"};
    struct rig *r = *state;

    assert_int_equal(attach(r, 4, disks), 0);
    has_namespaces(r, "a/1=x a/2=w a/3=y a/4=z");
    assert_int_equal(attach(r, 1, disks), -EEXIST); /* the name */
    refused(r, -ENOSPC, "no namespace identifier left of its 4", "add-disk",
            "test:,on=a", NULL);
}

static void
two_disks_of_one_number_are_refused(void **state)
{
    static const char *const disks[] = {"test:,on=a,nsid=2,name=x",
                                        "test:,on=a,nsid=2,name=y"};
    struct rig *r = *state;

    assert_int_equal(attach(r, 2, disks), -EEXIST);
    assert_string_equal(r->err.text,
                        "--disk 'test:,on=a,nsid=2,name=y': namespace 2 of "
                        "controller 'a' is disk 'x' already");
}

static void
a_subsystem_has_one_disk_by_a_number(void **state)
{
    static const char *const disks[] = {"test:,on=s0,nsid=2,on=s1,name=x",
                                        "test:,on=s1,name=y",
                                        "test:,on=s0,name=z"};
    struct rig *r = *state;

    assert_int_equal(attach(r, 3, disks), 0);
    has_namespaces(r, "s0/2=x s0/3=z s1/1=y s1/2=x");
    refused(r, -EEXIST,
            "namespace 1 of subsystem 's' is disk 'y', at controller 's1': it "
            "cannot be another one at 's0'",
            "add-disk", "test:,on=s0,nsid=1", NULL);
    must(r, "remove-disk", "s1", "1");
    refused(r, -EEXIST,
            "disk 'w' is namespace 4 at controller 's0' of the same subsystem, "
            "it cannot be 1 at 's1'",
            "add-disk", "test:,on=s0,nsid=4,on=s1,nsid=1,name=w", NULL);
    /* It came half-way, and is gone again. */
    has_namespaces(r, "s0/2=x s0/3=z s1/2=x");
    has_disks(r, "x z");
}

static void
the_first_disk_of_a_door_is_its_default(void **state)
{
    static const char *const disks[] = {"test:,on=a,on=nbd,name=x",
                                        "test:,on=nbd,export=e,name=y"};
    struct rig *r = *state;

    assert_int_equal(attach(r, 2, disks), 0);
    refused(r, -EEXIST, "an export 'x'", "add-export", "x", "test:");
    refused(r, -EEXIST, "an export 'e'", "add-export", "e", "test:");
    refused(r, -EEXIST, "an export ''", "add-export", "", "test:");
    must(r, "remove-export", "x", NULL);
    must(r, "remove-export", "", NULL);
    has_disks(r, "x y"); /* the controller has it */
    must(r, "remove-disk", "a", "1");
    has_disks(r, "y");
}

/* ---- Verbs ---- */

static void
disks_come_and_go(void **state)
{
    struct rig *r = *state;

    must(r, "add-disk", "test:,on=a,on=s0,name=x", NULL);
    must(r, "add-disk", "test:,on=a", NULL);
    has_namespaces(r, "a/1=x a/2=disk0 s0/1=x");
    has_disks(r, "x disk0");
    must(r, "remove-disk", "a", "1");
    has_namespaces(r, "a/2=disk0 s0/1=x");
    has_disks(r, "x disk0");
    must(r, "remove-disk", "s0", "1");
    has_disks(r, "disk0");
    assert_int_equal(atomic_load(&rig_live), 1);
    must(r, "add-disk", "test:,on=a,name=x", NULL);
    has_namespaces(r, "a/1=x a/2=disk0");
}

static void
wrong_verbs_change_nothing(void **state)
{
    struct rig *r = *state;

    must(r, "add-disk", "test:,on=a,name=x", NULL);
    refused(r, -EINVAL, "'disk' is missing", "add-disk", NULL, NULL);
    refused(r, -EINVAL, "missing on=ID", "add-disk", "test:", NULL);
    refused(r, -ENOENT, "no controller or door 'b'", "add-disk", "test:,on=b",
            NULL);
    refused(r, -EEXIST, "a disk 'x' already", "add-disk", "test:,on=a,name=x",
            NULL);
    refused(r, -EEXIST, "is disk 'x' already", "add-disk", "test:,on=a,nsid=1",
            NULL);
    refused(r, -EIO, "no such luck", "add-disk", "test:bad,on=a", NULL);
    refused(r, -ENOENT, "no controller 'nbd'", "remove-disk", "nbd", "1");
    refused(r, -ENOENT, "controller 'a' has no namespace 2", "remove-disk", "a",
            "2");
    refused(r, -EINVAL, "invalid nsid '5'", "remove-disk", "a", "5");
    refused(r, -EINVAL, "invalid nsid '0'", "remove-disk", "a", "0");
    refused(r, -EACCES, "cannot be set", "set", "controllers/a/state", "x");
    has_namespaces(r, "a/1=x");
    has_disks(r, "x");
}

static void
an_export_that_is_taken_undoes_the_rest(void **state)
{
    struct rig *r = *state;

    must(r, "add-export", "e", "test:");
    refused(r, -EEXIST, "e", "add-disk", "test:,on=a,on=s0,on=nbd,export=e",
            NULL);
    has_namespaces(r, "");
    has_disks(r, "e");
    assert_int_equal(atomic_load(&rig_live), 1);
}

static void
a_disk_that_opened_too_late_is_closed(void **state)
{
    struct rig *r = rig_with("threads");
    struct edit x;

    (void)state;
    rig_hold(r, true);
    edit_start(r, &x, 50 * MS, "add-disk", "test:,on=a", NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    rig_hold(r, false);
    refused(r, -ENOENT, "no namespace 1", "remove-disk", "a", "1");
    must(r, "add-disk", "test:,on=a,name=x", NULL);
    has_namespaces(r, "a/1=x");
    rig_close(r);
}

/* ---- States ---- */

static void
rules_are_of_one_or_of_all(void **state)
{
    static const char rules[] =
        "{\"rules\": [{\"on\": \"io.sqe\", \"do\": \"drop\"}]}";
    struct rig *r = *state;
    struct rig *none = rig_open("virtual", 1);

    must(r, "fault", rules, NULL);
    must(r, "fault", rules, "s1");
    must(r, "fault", "", NULL);
    must(r, "release", NULL, NULL);
    must(r, "release", "a", NULL);
    refused(r, -EINVAL, "'rules' is missing", "fault", NULL, NULL);
    refused(r, -EINVAL, "rule", "fault", "{\"rules\": [{}]}", NULL);
    refused(r, -EINVAL, "", "fault", "no JSON", "a");
    refused(r, -ENOENT, "no controller 'b'", "fault", rules, "b");
    refused(r, -ENOENT, "no controller 'nbd'", "release", "nbd", NULL);
    refused(none, -ENOENT, "there is no controller", "fault", rules, NULL);
    rig_close(none);
}

static void
a_state_is_saved_and_restored(void **state)
{
    struct rig *r = *state;
    char *saved;

    must(r, "add-disk", "test:,on=a,name=x", NULL);
    must(r, "save", "a", NULL);
    assert_memory_equal(r->answer, "U3RyYXRhTl", 10); /* "StrataN" */
    assert_int_equal(strlen(r->answer) % 4, 0);
    saved = strdup(r->answer);
    must(r, "restore", "a", saved);
    assert_string_equal(r->answer, "");
    /* The disk is not there: it is another one's. */
    must(r, "remove-disk", "a", "1");
    assert_int_equal(edit(r, "restore", "a", saved), -EINVAL);
    refused(r, -ENOENT, "no controller 'b'", "save", "b", NULL);
    refused(r, -ENOENT, "no controller 'b'", "restore", "b", saved);
    free(saved);
}

static void
what_is_no_state_is_refused(void **state)
{
    static const char *const not_base64[] = {"",      "A",    "AAA",   "AAAAA",
                                             "AA=A",  "A===", "====",  " AAAA",
                                             "AAAA ", "AA-_", "AAAA\n"};
    struct rig *r = *state;

    for (size_t i = 0; i < sizeof(not_base64) / sizeof(not_base64[0]); i++)
        refused(r, -EINVAL, "not base64", "restore", "a", not_base64[i]);
    assert_int_equal(edit(r, "restore", "a", "AAAA"), -EINVAL);
    assert_null(strstr(r->err.text, "base64"));
    assert_int_equal(edit(r, "restore", "a", "AA=="), -EINVAL);
    refused(r, -EINVAL, "'state' is missing", "restore", "a", NULL);
    must(r, "add-disk", "test:,on=a,name=x", NULL); /* it goes on */
    has_namespaces(r, "a/1=x");
}

/* ---- Doors ---- */

struct door {
    char dir[32], path[64];
    int fd;
};

static void
door_make(struct door *d)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    strcpy(d->dir, "/tmp/strata-door-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    snprintf(d->path, sizeof(d->path), "%s/s", d->dir);
    strcpy(at.sun_path, d->path);
    d->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(d->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(d->fd, 1), 0);
}

static void
door_remove(struct door *d)
{
    unlink(d->path);
    rmdir(d->dir);
}

static const char *const engines[] = {"threads", "io_uring"};

static bool
has_engine(const char *engine)
{
    const struct st_domain_opts o = {.engine = engine};
    struct st_domain *d;

    if (st_domain_create(&o, &d, NULL) < 0)
        return false;
    st_domain_destroy(d);
    return true;
}

static void
a_stop_waits_for_the_client(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct st_vfio_client *c;
        struct st_err err;
        struct door d;
        struct rig *r;
        uint64_t cap = 0;

        if (!has_engine(engines[i]))
            continue;
        r = rig_with(engines[i]);
        door_make(&d);
        assert_int_equal(st_graph_vfio_user(r->graph, "a", d.fd, &err), 0);
        assert_non_null(controller(r, "a")->vfio_user);
        assert_int_equal(st_vfio_client_connect(d.path, false, &c, &err), 0);
        assert_int_equal(st_vfio_client_read(c, 0, 0, &cap, 8), 0);
        st_graph_stop(r->graph, 3600 * GRAPH_S, rig_stopped, r);
        for (unsigned k = 0; k < 20; k++) {
            struct edit x; /* turns the loop until it is refused */

            edit_start(r, &x, 0, "pause", "x", NULL, NULL, NULL);
            assert_int_equal(edit_wait(&x), -ESHUTDOWN);
            assert_false(r->stopped);
            assert_int_equal(st_vfio_client_read(c, 0, 0, &cap, 8), 0);
        }
        st_vfio_client_close(c);
        assert_true(st_loop_wait(r->control, &r->stopped));
        assert_int_equal(r->rc, 0);
        assert_null(controller(r, "a")->vfio_user);
        rig_close(r);
        door_remove(&d);
    }
}

static void
a_cut_does_not_wait(void **state)
{
    (void)state;
    for (unsigned patience = 0; patience < 2; patience++) {
        struct st_vfio_client *c;
        struct rig *r = rig_with("threads");
        struct st_err err;
        struct door d;
        uint64_t cap;

        door_make(&d);
        assert_int_equal(st_graph_vfio_user(r->graph, "a", d.fd, &err), 0);
        assert_int_equal(st_vfio_client_connect(d.path, false, &c, &err), 0);
        /* By its time, or by a second signal. */
        st_graph_stop(r->graph, patience ? 3600 * GRAPH_S : MS, rig_stopped, r);
        if (patience)
            st_graph_cut(r->graph);
        assert_true(st_loop_wait(r->control, &r->stopped));
        assert_int_equal(r->rc, 0);
        assert_int_not_equal(st_vfio_client_read(c, 0, 0, &cap, 8), 0);
        st_vfio_client_close(c);
        rig_close(r);
        door_remove(&d);
    }
}

static void
a_controller_has_one_door(void **state)
{
    struct rig *r = rig_with("threads");
    struct door d[3];
    struct st_err err;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        door_make(&d[i]);
    assert_int_equal(st_graph_vfio_user(r->graph, "a", d[0].fd, &err), 0);
    assert_int_equal(st_graph_vfio_user(r->graph, "a", d[1].fd, &err), -EEXIST);
    assert_int_equal(st_graph_vfio_user(r->graph, "b", d[2].fd, &err), -ENOENT);
    assert_int_equal(fcntl(d[1].fd, F_GETFD), -1); /* taken */
    assert_int_equal(fcntl(d[2].fd, F_GETFD), -1);
    rig_close(r);
    for (unsigned i = 0; i < 3; i++)
        door_remove(&d[i]);
}

/* ---- What is shown ---- */

struct shown {
    struct st_inspect v;
    char path[100], text[4000];
};

static void
shown_text(struct st_inspect *v, const char *name, const char *value)
{
    struct shown *s = st_container(v, struct shown, v);
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s%s=%s\n", s->path, name,
             value);
}

static void
shown_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%ju", (uintmax_t)value);
    shown_text(v, name, text);
}

static void
shown_enter(struct st_inspect *v, const char *name)
{
    struct shown *s = st_container(v, struct shown, v);
    size_t n = strlen(s->path);

    snprintf(s->path + n, sizeof(s->path) - n, "%s/", name);
}

static void
shown_leave(struct st_inspect *v)
{
    struct shown *s = st_container(v, struct shown, v);
    char *slash;

    s->path[strlen(s->path) - 1] = '\0';
    slash = strrchr(s->path, '/');
    s->path[slash ? slash - s->path + 1 : 0] = '\0';
}

static void
controllers_show_themselves(void **state)
{
    struct rig *r = rig_with("threads");
    struct shown s = {.v = {.u64 = shown_u64,
                            .text = shown_text,
                            .enter = shown_enter,
                            .leave = shown_leave}};
    struct door d;

    (void)state;
    must(r, "add-disk", "test:,on=s1,nsid=3,name=x", NULL);
    door_make(&d);
    assert_int_equal(st_graph_vfio_user(r->graph, "s1", d.fd, NULL), 0);
    st_graph_controller_inspect(controller(r, "s1"), &s.v);
    assert_string_equal(s.path, "");
    assert_non_null(strstr(s.text, "kind=nvme\n"));
    assert_non_null(strstr(s.text, "subsystem_name=s\n"));
    assert_non_null(strstr(s.text, "vfio-user/connected=0\n"));
    assert_non_null(strstr(s.text, "namespaces/3/disk=x\n"));
    rig_close(r);
    door_remove(&d);
}

#define here(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        here(names_are_distinct),
        here(identifiers_differ_in_a_subsystem),
        here(every_place_has_its_rules),
        here(numbers_come_after_those_that_are_given),
        here(two_disks_of_one_number_are_refused),
        here(a_subsystem_has_one_disk_by_a_number),
        here(the_first_disk_of_a_door_is_its_default),
        here(disks_come_and_go),
        here(wrong_verbs_change_nothing),
        here(an_export_that_is_taken_undoes_the_rest),
        here(rules_are_of_one_or_of_all),
        here(a_state_is_saved_and_restored),
        here(what_is_no_state_is_refused),
        cmocka_unit_test(a_disk_that_opened_too_late_is_closed),
        cmocka_unit_test(a_stop_waits_for_the_client),
        cmocka_unit_test(a_cut_does_not_wait),
        cmocka_unit_test(a_controller_has_one_door),
        cmocka_unit_test(controllers_show_themselves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
