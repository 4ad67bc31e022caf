/* SPDX-License-Identifier: MIT
 *
 * Sizes of block devices that change, and what the kernel says of them: heard,
 * forged, lost, denied. On loop devices, on every engine.
 */
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "test_device.h"

/* ---- Size ---- */

struct hearing {
    struct st_listener l;
    uint64_t want;
    unsigned events;
    bool done, gone;
};

static void
hearing_event(struct st_listener *l, unsigned events, uint64_t size)
{
    struct hearing *h = st_container(l, struct hearing, l);

    h->events |= events;
    h->done = size == h->want;
}

static void
hearing_gone(struct st_listener *l)
{
    st_container(l, struct hearing, l)->gone = true;
}

/* Change the device and wait until the disk's listeners know. */
static void
becomes(struct world *w, struct hearing *h, uint64_t size)
{
    h->want = size;
    h->done = false;
    set_capacity(w, size);
    assert_true(st_loop_wait(w->loop, &h->done));
    assert_int_equal(st_disk_size(w->disk), size);
}

static struct hearing *
begin_hearing(struct world *w)
{
    struct hearing *h = calloc(1, sizeof(*h));

    assert_non_null(h);
    h->l.loop = w->loop;
    h->l.event = hearing_event;
    h->l.gone = hearing_gone;
    st_disk_listen(w->disk, &h->l);
    return h;
}

static void
end_hearing(struct world *w, struct hearing *h)
{
    st_disk_unlisten(&h->l);
    assert_true(st_loop_wait(w->loop, &h->gone));
    free(h);
}

static void
a_new_size_is_heard(void **state)
{
    struct world *w = *state;
    struct hearing *h;
    uint8_t buf[512] = "end";

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    h = begin_hearing(w);
    becomes(w, h, 4 * MIB);
    assert_int_equal(h->events, ST_EVENT_RESIZE);
    assert_int_equal(st_sync_write(w->sync, buf, 4 * MIB - 512, 512, 0), ST_OK);
    becomes(w, h, 2 * MIB);
    assert_int_equal(st_sync_write(w->sync, buf, 2 * MIB, 512, 0), ST_RANGE);
    becomes(w, h, 2 * MIB + 512);
    becomes(w, h, MIB);
    end_hearing(w, h);
}

static void
two_disks_share_what_is_heard(void **state)
{
    struct world *w = *state, other = *w;
    struct hearing *h, *g;

    attach(w, MIB, 512);
    snprintf(other.path, sizeof(other.path), "%s/other", w->dir);
    attach(&other, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    use_device(&other, (struct st_file_opts){.direct = true});
    h = begin_hearing(w);
    g = begin_hearing(&other);
    becomes(w, h, 2 * MIB);
    becomes(&other, g, 3 * MIB);
    becomes(w, h, 4 * MIB);
    assert_int_equal(st_disk_size(other.disk), 3 * MIB);
    end_hearing(w, h);
    detach(w);
    becomes(&other, g, 4 * MIB); /* the other one still hears */
    end_hearing(&other, g);
    detach(&other);
}

/* Opened on a worker, as `add-export` does; at once it hears. */
struct opening {
    struct st_job job;
    struct world *w;
    int rc;
    bool done;
};

static void
opening_work(struct st_job *j)
{
    struct opening *o = st_container(j, struct opening, job);
    struct st_err err;

    o->rc =
        st_file_open(o->w->loop, &(struct st_file_opts){.path = o->w->device},
                     &o->w->node, &err);
}

static void
opening_done(struct st_job *j)
{
    st_container(j, struct opening, job)->done = true;
}

static void
a_device_opened_by_a_worker_hears(void **state)
{
    struct world *w = *state;
    struct opening o = {.job = {.work = opening_work, .done = opening_done},
                        .w = w};
    struct hearing *h;

    attach(w, MIB, 512);
    st_job_start(w->loop, &o.job);
    assert_true(st_loop_wait(w->loop, &o.done));
    assert_int_equal(o.rc, 0);
    assert_int_equal(
        st_disk_create(w->loop, w->node, "d", false, &w->disk, NULL), 0);
    h = begin_hearing(w); /* and no channel yet */
    becomes(w, h, 2 * MIB);
    end_hearing(w, h);
}

struct resize {
    struct st_disk *disk;
    uint64_t size;
};

static void
start_resize(void *arg, struct st_edit *e)
{
    struct resize *r = arg;

    st_disk_resize(r->disk, r->size, e);
}

static void
resize_takes_up_the_devices_size_only(void **state)
{
    struct world *w = *state;
    struct resize r;
    struct st_edit e = {0};

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    r = (struct resize){w->disk, 2 * MIB};
    assert_int_equal(st_sync_edit(w->loop, start_resize, &r, &e), -ENOTSUP);
    says(&e.err, "is a device of 1048576 bytes");
    assert_int_equal(st_disk_size(w->disk), MIB);
    set_capacity(w, 2 * MIB);
    assert_int_equal(st_sync_edit(w->loop, start_resize, &r, &e), 0);
    assert_int_equal(st_disk_size(w->disk), 2 * MIB);
    r.size = MIB;
    set_capacity(w, MIB);
    assert_int_equal(st_sync_edit(w->loop, start_resize, &r, &e), 0);
    assert_int_equal(st_disk_size(w->disk), MIB);
}

/* Who does not hear of it finds out by what fails. */
static void
a_shrink_is_found_by_what_fails(void **state)
{
    struct world *w = *state;
    uint8_t buf[512] = {1};

    for (unsigned i = 0; i < 4; i++) {
        enum st_status s;

        attach(w, 4 * MIB, 512);
        use_device(w, (struct st_file_opts){.direct = i % 2});
        set_capacity(w, MIB);
        s = i < 2 ? st_sync_write(w->sync, buf, 2 * MIB, 512, 0)
                  : st_sync_read(w->sync, buf, 2 * MIB, 512);
        assert_int_equal(s, ST_IO);
        assert_int_equal(st_sync_read(w->sync, buf, 2 * MIB, 512), ST_RANGE);
        assert_int_equal(st_node_size(w->node), MIB);
        detach(w);
    }
    attach(w, 4 * MIB, 512);
    use_device(w, (struct st_file_opts){0});
    set_capacity(w, MIB);
    assert_int_equal(st_sync_unmap(w->sync, 2 * MIB, MIB), ST_IO);
    assert_int_equal(st_sync_unmap(w->sync, 2 * MIB, MIB), ST_RANGE);
}

/* ---- Messages ---- */

static bool
kernel_says(struct world *w, const char *action)
{
    char path[96];
    st_autoclose int fd = -1;

    snprintf(path, sizeof(path), "/sys/class/block/%s/uevent",
             w->device + strlen("/dev/"));
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, action, strlen(action)) > 0;
}

/* Send what would be a message if the kernel sent it. */
static void
forge(struct world *w, const char *action)
{
    struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = 1};
    st_autoclose int fd =
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    char msg[256];
    int n = snprintf(msg, sizeof(msg),
                     "%s@/x%cACTION=%s%cSUBSYSTEM=block%cRESIZE=1%cMAJOR=7%c"
                     "MINOR=%s",
                     action, 0, action, 0, 0, 0, 0,
                     w->device + strlen("/dev/loop"));

    if (fd < 0 || sendto(fd, msg, (size_t)n + 1, 0, (struct sockaddr *)&to,
                         sizeof(to)) != n + 1)
        skip_for("no netlink for us here");
}

struct ear {
    struct uevent_ear ear;
    unsigned looks, resizes, others; /* looks: what == 0 */
    bool done;                       /* something came */
};

static void
ear_hears(struct uevent_ear *e, unsigned what)
{
    struct ear *x = st_container(e, struct ear, ear);

    if (!what)
        x->looks++;
    else if (what == UEVENT_RESIZE)
        x->resizes++;
    else
        x->others++;
    x->done = true;
}

static void
ear_open(struct world *w, struct ear *x)
{
    struct stat sb;

    assert_int_equal(stat(w->device, &sb), 0);
    *x = (struct ear){.ear = {.major = major(sb.st_rdev),
                              .minor = minor(sb.st_rdev),
                              .hear = ear_hears}};
    uevent_join(w->loop, &x->ear);
    uevent_poke(&x->ear); /* once that is heard, the socket is watched */
    assert_true(st_loop_wait(w->loop, &x->done));
    assert_int_equal(x->looks, 1);
    x->looks = 0;
    x->done = false;
}

static void
only_the_kernel_is_believed(void **state)
{
    struct world *w = *state;
    struct ear x;

    attach(w, MIB, 512);
    ear_open(w, &x);
    for (unsigned i = 0; i < 10; i++)
        forge(w, i % 2 ? "remove" : "change");
    set_capacity(w, 2 * MIB); /* the kernel's comes last */
    assert_true(st_loop_wait(w->loop, &x.done));
    assert_int_equal(x.resizes, 1);
    assert_int_equal(x.looks + x.others, 0);
    uevent_leave(&x.ear);
}

static void
lost_messages_make_every_ear_look(void **state)
{
    struct world *w = *state;
    struct ear x, other = {.ear = {.major = 250, .hear = ear_hears}};

    attach(w, MIB, 512);
    ear_open(w, &x);
    uevent_join(w->loop, &other.ear);
    set_capacity(w, 2 * MIB);
    /* More than the socket holds, while nobody reads. */
    for (unsigned i = 0; i < 2000; i++)
        if (!kernel_says(w, "change"))
            skip_for("the kernel cannot be made to say something here");
    assert_true(st_loop_wait(w->loop, &other.done));
    assert_true(other.looks >= 1);
    assert_int_equal(other.resizes + other.others, 0);
    assert_true(x.looks >= 1);
    uevent_leave(&x.ear);
    uevent_leave(&other.ear);
}

/* Run the loop until a message about another device has come, after which all
 * that was sent before has been heard. */
static void
hear_all(struct world *w)
{
    struct world other = *w;
    struct ear x;

    other.sync = NULL;
    other.disk = NULL;
    snprintf(other.path, sizeof(other.path), "%s/marker", w->dir);
    attach(&other, MIB, 512);
    ear_open(&other, &x);
    set_capacity(&other, 2 * MIB);
    assert_true(st_loop_wait(w->loop, &x.done));
    uevent_leave(&x.ear);
    detach(&other);
}

/* What is above may be given up on a worker before anybody uses it: it is not
 * told before. */
static void
a_parent_is_told_once_it_is_used(void **state)
{
    static const struct st_node_ops above = {.name = "above",
                                             .transparent = true};
    struct world *w = *state;
    struct st_node parent = {0};
    struct st_chan *c;

    attach(w, MIB, 512);
    assert_int_equal(st_file_open(w->loop,
                                  &(struct st_file_opts){.path = w->device},
                                  &w->node, NULL),
                     0);
    st_node_init(&parent, &above, w->loop, "above");
    assert_int_equal(st_node_adopt(&parent, w->node), 0);
    hear_all(w);
    set_capacity(w, 2 * MIB);
    hear_all(w);
    assert_int_equal(st_node_size(w->node), 2 * MIB);
    assert_int_equal(st_node_size(&parent), MIB);
    assert_int_equal(st_chan_open(w->node, w->loop, &c), 0);
    hear_all(w);
    assert_int_equal(st_node_size(&parent), 2 * MIB);
    set_capacity(w, 4 * MIB);
    hear_all(w);
    assert_int_equal(st_node_size(&parent), 4 * MIB);
    st_chan_close(c);
    st_node_close(st_node_disown(&parent));
    free(parent.child);
}

static void
a_removed_device_fails_and_keeps_its_size(void **state)
{
    struct world *w = *state, empty = *w;
    struct file_node *f;
    uint8_t buf[512];
    int real;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    f = (struct file_node *)w->node;
    real = f->fd;
    /* Somebody only made the kernel say so: the device is there. */
    if (!kernel_says(w, "remove"))
        skip_for("the kernel cannot be made to say something here");
    hear_all(w);
    assert_false(atomic_load(&f->block.gone));
    assert_int_equal(st_sync_read(w->sync, buf, 0, 512), ST_OK);
    /* As the kernel leaves one that was pulled out: it has no size any more,
     * and what is asked of it fails. */
    snprintf(empty.path, sizeof(empty.path), "%s/empty", w->dir);
    attach(&empty, 0, 512);
    assert_int_equal(truncate(w->path, 0), 0);
    f->fd = empty.device_fd;
    f->block.ear.hear(&f->block.ear, UEVENT_REMOVED);
    assert_true(atomic_load(&f->block.gone));
    f->block.ear.hear(&f->block.ear, UEVENT_RESIZE);
    assert_int_equal(st_sync_read(w->sync, buf, MIB / 2, 512), ST_IO);
    f->fd = real;
    assert_int_equal(st_disk_size(w->disk), MIB);
    detach(&empty);
}

/* Make socket() fail with EPERM from now on, in this process. */
static void
deny_sockets(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
        _exit(77);
}

static void
count_line(void *arg, enum st_level level, const char *line)
{
    unsigned *warned = arg;

    *warned += level == ST_LOG_WARN && strstr(line, "messages cannot be had");
}

/* In a process of its own, which no assertion leaves: an exit status. */
static int
without_messages(struct world *w, const char *engine)
{
    unsigned warned = 0;
    const struct st_log log = {ST_LOG_INFO, count_line, &warned};
    struct st_domain_opts o = {.engine = engine, .log = &log};
    struct st_file_opts f = {.path = w->device, .read_only = true};
    struct st_node *a, *b;
    struct st_chan *c;

    deny_sockets();
    if (st_domain_create(&o, &w->domain, NULL) < 0 ||
        st_loop_create(w->domain, &w->loop, NULL) < 0 ||
        st_file_open(w->loop, &f, &a, NULL) < 0 ||
        st_file_open(w->loop, &f, &b, NULL) < 0 ||
        st_chan_open(a, w->loop, &c) < 0)
        return 1;
    set_capacity(w, 2 * MIB);
    if (st_node_size(a) != MIB || st_file_restat(a) < 0 ||
        st_node_size(a) != 2 * MIB)
        return 2;
    st_chan_close(c);
    st_node_close(a);
    st_node_close(b);
    st_loop_destroy(w->loop);
    st_domain_destroy(w->domain);
    return warned == 1 ? 0 : 3;
}

static void
where_netlink_is_denied_the_size_stays(void **state)
{
    struct world *w = *state;
    int status;
    pid_t pid;

    attach(w, MIB, 512);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(without_messages(w, "threads"));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip_for("no system call filter here");
    assert_int_equal(WEXITSTATUS(status), 0);
}

static const struct CMUnitTest everywhere[] = {
    D(resize_takes_up_the_devices_size_only),
};

/* The virtual engine listens to nobody. */
static const struct CMUnitTest heard[] = {
    D(a_new_size_is_heard),
    D(two_disks_share_what_is_heard),
    D(a_device_opened_by_a_worker_hears),
    D(only_the_kernel_is_believed),
    D(lost_messages_make_every_ear_look),
    D(a_parent_is_told_once_it_is_used),
    D(a_removed_device_fails_and_keeps_its_size),
};

/* With any other the message may be first. */
static const struct CMUnitTest unheard[] = {
    D(a_shrink_is_found_by_what_fails),
};

/* It forks, which a ring does not survive. */
static const struct CMUnitTest denied[] = {
    D(where_netlink_is_denied_the_size_stays),
};

#define RUN(engines, tests)                                                    \
    run_on_engines(engines, tests, sizeof(tests) / sizeof(tests[0]))

int
main(void)
{
    if (!has_loop_devices())
        return 77;
    return RUN(ON_ALL, everywhere) + RUN(ON_REAL, heard) +
           RUN(ON_VIRTUAL, unheard) + RUN(ON_THREADS, denied);
}
