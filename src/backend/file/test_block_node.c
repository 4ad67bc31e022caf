/* SPDX-License-Identifier: MIT
 *
 * Block devices as disks, on loop devices: limits, the contract, zeroes and
 * discard, sizes that change, errors, claims. On every engine; left out where
 * loop devices cannot be made.
 */
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <linux/fs.h>

#include "file_private.h"
#include "test_file.h"

/* ---- Loop devices ---- */

/* Make a loop device above w->path, of SIZE bytes and SECTOR. It goes with the
 * last descriptor, however this process ends. */
static void
attach_as(struct world *w, uint64_t size, uint32_t sector, uint32_t flags)
{
    st_autoclose int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    struct loop_config c = {.block_size = sector,
                            .info.lo_flags = LO_FLAGS_AUTOCLEAR | flags};
    st_autoclose int file = -1;
    int rc = -1;

    if (control < 0)
        skip();
    make(w, size);
    file = open(w->path, O_RDWR | O_CLOEXEC);
    c.fd = (uint32_t)file;
    for (unsigned i = 0; i < 100 && rc < 0; i++) {
        int n = ioctl(control, LOOP_CTL_GET_FREE);

        if (n < 0)
            skip();
        snprintf(w->device, sizeof(w->device), "/dev/loop%d", n);
        w->device_fd = open(w->device, O_RDWR | O_CLOEXEC);
        if (w->device_fd < 0)
            skip();
        rc = ioctl(w->device_fd, LOOP_CONFIGURE, &c);
        if (rc < 0) { /* somebody was faster */
            close(w->device_fd);
            w->device_fd = -1;
        }
    }
    assert_int_equal(rc, 0);
}

static void
attach(struct world *w, uint64_t size, uint32_t sector)
{
    attach_as(w, size, sector, 0);
}

static void
detach(struct world *w)
{
    leave(w);
    if (w->device_fd >= 0)
        close(w->device_fd);
    w->device_fd = -1;
}

static int
detach_and_teardown(void **state)
{
    detach(*state);
    return teardown(state);
}

#define D(f)                                                                   \
    {                                                                          \
#f, f, setup, detach_and_teardown, NULL                                \
    }

static void
use_device(struct world *w, struct st_file_opts o)
{
    o.path = w->device;
    use(w, o);
}

static int
try_device(struct world *w, struct st_file_opts o, struct st_err *err)
{
    struct st_node *n;
    int rc;

    o.path = w->device;
    rc = try_open(w, o, &n, err);
    if (rc == 0)
        st_node_close(n);
    return rc;
}

static void
says(const struct st_err *err, const char *part)
{
    if (!strstr(err->text, part))
        fail_msg("'%s' does not say '%s'", err->text, part);
}

/* Bytes of the backing file that are on the disk. */
static uint64_t
allocated(struct world *w)
{
    struct stat sb;

    assert_int_equal(stat(w->path, &sb), 0);
    return (uint64_t)sb.st_blocks * 512;
}

/* Make the backing file SIZE bytes long, and the device, too. */
static void
set_capacity(struct world *w, uint64_t size)
{
    assert_int_equal(truncate(w->path, (off_t)size), 0);
    assert_int_equal(ioctl(w->device_fd, LOOP_SET_CAPACITY, 0), 0);
}

/* ---- Properties ---- */

static void
a_device_has_its_own_limits(void **state)
{
    struct world *w = *state;
    const struct st_props *p;
    struct st_err err;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    p = &w->node->props;
    assert_string_equal(w->node->ops->name, "block");
    assert_int_equal(st_disk_size(w->disk), MIB);
    assert_int_equal(p->sector_size, 512);
    assert_int_equal(p->mem_align, 1);
    assert_int_equal(p->unmap, ST_UNMAP_UNSPECIFIED);
    assert_true(p->unmap_granularity >= 512);
    assert_true(p->fua && p->fast_zero && !p->read_only);
    assert_false(p->performs & ST_BIT(ST_OP_BLOCK_STATUS));
    leave(w);
    use_device(w, (struct st_file_opts){.direct = true, .sector_size = 4096});
    assert_int_equal(w->node->props.sector_size, 4096);
    assert_int_equal(w->node->props.mem_align, 512);
    leave(w);
    use_device(w, (struct st_file_opts){.read_only = true});
    assert_true(w->node->props.read_only);
    assert_int_equal(w->node->props.performs & ST_OPS_MODIFY, 0);
    detach(w);

    attach(w, MIB + 512, 4096); /* the last sector is not whole */
    use_device(w, (struct st_file_opts){0});
    assert_int_equal(w->node->props.sector_size, 4096);
    assert_int_equal(w->node->props.physical_sector_size, 4096);
    assert_int_equal(st_disk_size(w->disk), MIB);
    leave(w);
    assert_int_equal(
        try_device(w, (struct st_file_opts){.sector_size = 512}, &err),
        -EINVAL);
    says(&err, "has sectors of 4096 bytes, 512 are too small");
    detach(w);

    attach(w, MIB + 512, 512);
    assert_int_equal(
        try_device(w, (struct st_file_opts){.sector_size = 4096}, &err),
        -EINVAL);
    says(&err, "invalid disk size: 1049088 bytes are not a multiple");
    assert_int_equal(
        try_device(w, (struct st_file_opts){.create = true, .create_size = MIB},
                   &err),
        -EEXIST);
    assert_int_equal(access(w->device, F_OK), 0);
}

struct seen {
    struct st_inspect v;
    char text[512];
};

static void
see_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%llu ", name,
             (unsigned long long)value);
}

static void
see_text(struct st_inspect *v, const char *name, const char *value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%s ", name, value);
}

static void
inspect_says_which_device(void **state)
{
    struct world *w = *state;
    struct seen s = {{.u64 = see_u64, .text = see_text}, ""};
    char want[160];

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    w->node->ops->inspect(w->node, &s.v);
    snprintf(want, sizeof(want),
             "file=%s size=1048576 direct=0 lock=writer device=7:%s ",
             w->device, w->device + strlen("/dev/loop"));
    assert_memory_equal(s.text, want, strlen(want));
    assert_non_null(strstr(s.text, "discards=1 removed=0 "));
}

/* ---- The contract ---- */

struct kit_device {
    struct world *w;
    bool direct;
};

static int
kit_make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
         struct st_node **out, struct st_err *err)
{
    struct kit_device *k = arg;
    struct st_file_opts o = {
        .path = k->w->device, .direct = k->direct, .sector_size = sector};
    uint64_t all[2] = {0, size};

    if (ioctl(k->w->device_fd, BLKZEROOUT, all) < 0)
        return -errno;
    return st_file_open(loop, &o, out, err);
}

static void
keep_the_contract(struct world *w, uint32_t sector, bool direct)
{
    struct kit_device k = {w, direct};
    struct st_kit kit = {
        .name = direct ? "block;direct" : "block",
        .loop = w->loop,
        .make = kit_make,
        .arg = &k,
    };
    unsigned ran;

    attach(w, MIB + 3 * 4096, sector);
    for (kit.sector = sector; kit.sector <= 4096; kit.sector *= 8) {
        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 20);
    }
    detach(w);
}

static void
the_contract_is_kept(void **state)
{
    keep_the_contract(*state, 512, false);
    keep_the_contract(*state, 4096, false);
}

static void
the_contract_is_kept_by_direct_io(void **state)
{
    keep_the_contract(*state, 512, true);
    keep_the_contract(*state, 4096, true);
}

/* ---- Zeroes and discard ---- */

static void
fill_device(struct world *w, uint64_t size)
{
    uint8_t *mem = malloc(MIB);

    assert_non_null(mem);
    memset(mem, 0x5a, MIB);
    for (uint64_t at = 0; at < size; at += MIB)
        assert_int_equal(st_sync_write(w->sync, mem, at, MIB, 0), ST_OK);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
    free(mem);
}

static void
unmap_frees_what_lies_below(void **state)
{
    struct world *w = *state;
    struct st_req *r;

    attach(w, 16 * MIB, 512);
    use_device(w, (struct st_file_opts){0});
    fill_device(w, 8 * MIB);
    assert_true(allocated(w) >= 8 * MIB);
    assert_int_equal(st_sync_unmap(w->sync, 0, 4 * MIB), ST_OK);
    assert_in_range(allocated(w), 4 * MIB, 5 * MIB);
    r = st_sync_req(w->sync);
    r->op = ST_OP_UNMAP;
    r->flags = ST_REQ_FUA;
    r->offset = 4 * MIB;
    r->len = 12 * MIB;
    assert_int_equal(st_sync_run(w->sync), ST_OK);
    assert_in_range(allocated(w), 0, MIB);
    assert_int_equal(st_sync_unmap(w->sync, 16 * MIB, 0), ST_OK);
    assert_int_equal(st_sync_unmap(w->sync, 16 * MIB - 512, 1024), ST_RANGE);
}

/* More than one slice; and a neighbour is served between them. */
static void
a_long_unmap_goes_in_slices(void **state)
{
    const uint64_t size = UINT64_C(5) << 30;
    struct world *w = *state;
    struct st_req *unmap, *read;
    uint8_t buf[512];
    struct iovec iov = {buf, sizeof(buf)};
    struct door d;

    attach(w, size, 512);
    use_device(w, (struct st_file_opts){0});
    fill_device(w, MIB);
    assert_int_equal(st_sync_write(w->sync, buf, size - 512, 512, 0), ST_OK);
    door_open(w, &d);
    unmap = door_start(&d, ST_OP_UNMAP, 0, size, NULL, 0, 0);
    read = door_start(&d, ST_OP_READ, size - MIB, 512, &iov, 0, 0);
    assert_true(st_loop_wait(w->loop, &d.done));
    assert_int_equal(unmap->status, ST_OK);
    assert_int_equal(read->status, ST_OK);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
    assert_in_range(allocated(w), 0, MIB - 1);

    /* One that is cancelled ends between two slices. */
    free(unmap);
    unmap = door_start(&d, ST_OP_UNMAP, 0, size, NULL, 0, 0);
    st_cancel(unmap);
    assert_int_equal(door_end(&d, unmap), ST_ABORTED);
    free(read);
    st_chan_close(d.chan);
}

static void
a_device_that_does_not_discard_after_all(void **state)
{
    struct world *w = *state;
    uint8_t buf[512], got[512];
    struct file_node *f;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    f = (struct file_node *)w->node;
    memset(buf, 0x31, sizeof(buf));
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_OK);
    /* /dev/null answers BLKDISCARD with ENOTTY. */
    {
        int real = f->fd;
        st_autoclose int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        f->fd = null;
        assert_int_equal(block_unmap(f, 0, 512), 0);
        f->fd = real;
    }
    assert_true(atomic_load(&f->block.no_discard));
    assert_int_equal(st_sync_unmap(w->sync, 0, MIB), ST_OK);
    assert_int_equal(st_sync_read(w->sync, got, 0, 512), ST_OK);
    assert_memory_equal(got, buf, 512);
}

static void
zeroes_are_zeroes(void **state)
{
    struct world *w = *state;
    uint8_t *got = malloc(MIB);

    assert_non_null(got);
    for (unsigned direct = 0; direct < 2; direct++) {
        attach(w, 8 * MIB, 512);
        use_device(w, (struct st_file_opts){.direct = direct});
        fill_device(w, 8 * MIB);
        assert_int_equal(st_sync_zero(w->sync, 0, 2 * MIB, ST_REQ_MAY_UNMAP),
                         ST_OK);
        assert_in_range(allocated(w), 6 * MIB, 7 * MIB);
        assert_int_equal(st_sync_zero(w->sync, 2 * MIB, MIB, ST_REQ_FUA),
                         ST_OK);
        assert_int_equal(
            st_sync_zero(w->sync, 3 * MIB, MIB, ST_REQ_FAST | ST_REQ_MAY_UNMAP),
            ST_OK);
        for (uint64_t at = 0; at < 4 * MIB; at += MIB) {
            assert_int_equal(st_sync_read(w->sync, got, at, MIB), ST_OK);
            assert_true(st_mem_is_zero(got, MIB));
        }
        assert_int_equal(st_sync_read(w->sync, got, 4 * MIB, 512), ST_OK);
        assert_int_equal(got[0], 0x5a);
        detach(w);
    }
    free(got);
}

/* The kernel would write them: not fast, and never said to be. */
static void
zeroes_without_help_of_the_device(void **state)
{
    struct world *w = *state;
    struct file_node *f;
    uint8_t got[8192];

    attach(w, 8 * MIB, 512);
    use_device(w, (struct st_file_opts){0});
    fill_device(w, 8 * MIB);
    f = (struct file_node *)w->node;
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 1);
    assert_int_equal(st_sync_zero(w->sync, 0, MIB, ST_REQ_MAY_UNMAP), ST_OK);
    assert_true(atomic_load(&f->no_punch));
    assert_false(atomic_load(&f->no_zero_range));
    assert_int_equal(st_sync_zero(w->sync, MIB, MIB, ST_REQ_FAST),
                     ST_UNSUPPORTED);
    assert_int_equal(st_sync_read(w->sync, got, MIB, 512), ST_OK);
    assert_int_equal(got[0], 0x5a);
    st_inject_clear(w->inject);
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 0);
    assert_int_equal(st_sync_zero(w->sync, MIB, MIB, ST_REQ_MAY_UNMAP), ST_OK);
    st_inject_clear(w->inject);
    for (uint64_t at = 0; at < 2 * MIB; at += sizeof(got)) {
        assert_int_equal(st_sync_read(w->sync, got, at, sizeof(got)), ST_OK);
        assert_true(st_mem_is_zero(got, sizeof(got)));
    }
}

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

    if (st_domain_is_virtual(w->domain))
        skip(); /* it listens to nobody */
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

    if (st_domain_is_virtual(w->domain))
        skip();
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

    if (st_domain_is_virtual(w->domain))
        skip();
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

    if (!st_domain_is_virtual(w->domain))
        skip(); /* the message may be first */
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
        skip(); /* not allowed here */
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

    if (st_domain_is_virtual(w->domain))
        skip();
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

    if (st_domain_is_virtual(w->domain))
        skip();
    attach(w, MIB, 512);
    ear_open(w, &x);
    uevent_join(w->loop, &other.ear);
    set_capacity(w, 2 * MIB);
    /* More than the socket holds, while nobody reads. */
    for (unsigned i = 0; i < 2000; i++)
        if (!kernel_says(w, "change"))
            skip();
    assert_true(st_loop_wait(w->loop, &other.done));
    assert_int_equal(other.looks, 1);
    assert_int_equal(other.resizes + other.others, 0);
    assert_int_equal(x.looks, 1);
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

    if (st_domain_is_virtual(w->domain))
        skip();
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

    if (st_domain_is_virtual(w->domain))
        skip();
    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    f = (struct file_node *)w->node;
    real = f->fd;
    /* Somebody only made the kernel say so: the device is there. */
    if (!kernel_says(w, "remove"))
        skip();
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

    if (strcmp(st_domain_engine(w->domain), "threads") != 0)
        skip(); /* the virtual one has no messages; a ring is not forked */
    attach(w, MIB, 512);
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(without_messages(w, "threads"));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- Errors ---- */

static void
what_the_device_cannot_read_is_an_error(void **state)
{
    struct world *w = *state;
    uint8_t *buf = calloc(1, MIB);

    assert_non_null(buf);
    for (unsigned direct = 0; direct < 2; direct++) {
        attach(w, 4 * MIB, 512);
        use_device(w, (struct st_file_opts){.direct = direct});
        assert_int_equal(truncate(w->path, MIB), 0);
        assert_int_equal(st_sync_read(w->sync, buf, 2 * MIB, MIB), ST_IO);
        assert_int_equal(st_sync_read(w->sync, buf, MIB - 512, 1024), ST_IO);
        assert_int_equal(st_sync_read(w->sync, buf, 0, MIB), ST_OK);
        assert_int_equal(st_disk_size(w->disk),
                         4 * MIB); /* it has not shrunk */
        detach(w);
    }
    free(buf);
}

static void
each_errno_of_a_device_has_its_class(void **state)
{
    static const struct {
        int errnum;
        enum st_status read, write;
    } table[] = {
        {EIO, ST_IO, ST_IO},
        {ENODEV, ST_IO, ST_IO},
        {ENXIO, ST_IO, ST_IO},
        {EREMOTEIO, ST_IO, ST_IO},
        {ETIMEDOUT, ST_IO, ST_IO},
        {ENOLINK, ST_IO, ST_IO},
        {ENOSPC, ST_NO_SPACE, ST_NO_SPACE},
        {EBADE, ST_CONFLICT, ST_CONFLICT},
        {ENODATA, ST_MEDIUM_READ, ST_MEDIUM_WRITE},
        {EILSEQ, ST_GUARD, ST_GUARD},
        {EROFS, ST_IO, ST_READ_ONLY},
        {EPERM, ST_IO, ST_READ_ONLY},
        {EFAULT, ST_MEMORY, ST_MEMORY},
    };
    struct world *w = *state;
    uint8_t buf[512] = {0};

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        inject(w, ST_IO_READ, ST_INJECT_ERROR, (uint64_t)table[i].errnum, 1);
        inject(w, ST_IO_WRITE, ST_INJECT_ERROR, (uint64_t)table[i].errnum, 1);
        assert_int_equal(st_sync_read(w->sync, buf, 0, 512), table[i].read);
        assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0),
                         table[i].write);
        st_inject_clear(w->inject);
    }
    assert_int_equal(st_disk_size(w->disk), MIB);
}

/* ---- Claims ---- */

static void
a_writer_has_the_device_alone(void **state)
{
    struct world *w = *state;
    struct st_file_opts ro = {.read_only = true};
    st_autoclose int claim = -1;
    struct st_err err;
    struct st_node *n;

    attach(w, MIB, 512);
    use_device(w, (struct st_file_opts){0});
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), -EBUSY);
    says(&err, "in use: mounted, part of another device, or open for writing");
    assert_int_equal(try_device(w, ro, &err), -EBUSY);
    says(&err, "in use by another process (");
    assert_int_equal(open(w->device, O_RDONLY | O_EXCL | O_CLOEXEC), -1);
    leave(w);

    claim = open(w->device, O_RDONLY | O_EXCL | O_CLOEXEC); /* like a mount */
    assert_true(claim >= 0);
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), -EBUSY);
    assert_int_equal(try_device(w, ro, &err), 0);
    close(claim);
    claim = -1;

    ro.path = w->device;
    assert_int_equal(try_open(w, ro, &n, &err), 0);
    assert_int_equal(try_device(w, ro, &err), 0); /* readers share */
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), -EBUSY);
    says(&err, "in use by another process (");
    st_node_close(n);
    assert_int_equal(try_device(w, (struct st_file_opts){0}, &err), 0);
}

static void
a_read_only_device_is_not_opened_for_writing(void **state)
{
    struct world *w = *state;
    struct st_err err;
    uint8_t buf[512];
    int rc;

    attach_as(w, MIB, 512, LO_FLAGS_READ_ONLY);
    rc = try_device(w, (struct st_file_opts){0}, &err);
    assert_true(rc == -EROFS || rc == -EACCES || rc == -EPERM);
    assert_memory_equal(err.text, w->device, strlen(w->device));
    use_device(w, (struct st_file_opts){.read_only = true});
    assert_int_equal(st_sync_read(w->sync, buf, 0, 512), ST_OK);
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_READ_ONLY);
}

static const struct CMUnitTest tests[] = {
    D(a_device_has_its_own_limits),
    D(inspect_says_which_device),
    D(the_contract_is_kept),
    D(the_contract_is_kept_by_direct_io),
    D(unmap_frees_what_lies_below),
    D(a_long_unmap_goes_in_slices),
    D(a_device_that_does_not_discard_after_all),
    D(zeroes_are_zeroes),
    D(zeroes_without_help_of_the_device),
    D(a_new_size_is_heard),
    D(two_disks_share_what_is_heard),
    D(a_device_opened_by_a_worker_hears),
    D(resize_takes_up_the_devices_size_only),
    D(a_shrink_is_found_by_what_fails),
    D(only_the_kernel_is_believed),
    D(lost_messages_make_every_ear_look),
    D(a_parent_is_told_once_it_is_used),
    D(a_removed_device_fails_and_keeps_its_size),
    D(where_netlink_is_denied_the_size_stays),
    D(what_the_device_cannot_read_is_an_error),
    D(each_errno_of_a_device_has_its_class),
    D(a_writer_has_the_device_alone),
    D(a_read_only_device_is_not_opened_for_writing),
};

int
main(void)
{
    if (access("/dev/loop-control", R_OK | W_OK) < 0) {
        printf("skip: no loop devices here, or not for this user\n");
        return 77;
    }
    return run_on_every_engine(tests, sizeof(tests) / sizeof(tests[0]));
}
