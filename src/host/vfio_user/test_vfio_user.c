/* SPDX-License-Identifier: MIT
 *
 * The vfio-user door: versions, framing, what the device is made of, accesses.
 */
#include "test_rig.h"

/* ---- VERSION ---- */

/* A connected socket that has said nothing yet. */
static int
raw_connect(struct rig *r)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(a.sun_path, r->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* A header and LEN bytes. */
static void
raw_send(int fd, unsigned command, uint32_t flags, const void *payload,
         size_t len, uint32_t size)
{
    struct vfio_header h = {.id = le16_of(7),
                            .command = le16_of((uint16_t)command),
                            .size = le32_of(size),
                            .flags = le32_of(flags)};
    struct iovec iov[] = {{&h, sizeof(h)}, {(void *)(uintptr_t)payload, len}};
    ssize_t n = writev(fd, iov, 2);

    assert_int_equal(n, sizeof(h) + len);
}

/* LEN bytes; false: the end. */
static bool
raw_read(int fd, void *to, size_t len)
{
    for (size_t had = 0; had < len;) {
        ssize_t n = recv(fd, (uint8_t *)to + had, len - had, 0);

        if (n == 0 && !had)
            return false;
        if (n < 0 && errno == EINTR)
            continue;
        assert_true(n > 0);
        had += (size_t)n;
    }
    return true;
}

/* One reply: its payload's length or -errno; -EPIPE: the end. */
static int
raw_receive(int fd, void *to, size_t max)
{
    struct vfio_header h;
    size_t len;

    if (!raw_read(fd, &h, sizeof(h)))
        return -EPIPE;
    assert_int_equal(le16_get(h.id), 7);
    assert_int_equal(le32_get(h.flags) & VFIO_TYPE, VFIO_REPLY);
    len = le32_get(h.size) - sizeof(h);
    if (le32_get(h.flags) & VFIO_ERROR) {
        assert_int_equal(len, 0);
        return -(int)le32_get(h.error);
    }
    assert_true(len <= max);
    if (len)
        assert_true(raw_read(fd, to, len));
    return (int)len;
}

/* Ask with TEXT (its NUL is sent if NUL); the reply's text is in REPLY. What
 * raw_receive gave. */
static int
ask_version(struct rig *r, unsigned major, unsigned minor, const char *text,
            size_t len, char reply[256])
{
    struct vfio_version v = {le16_of((uint16_t)major),
                             le16_of((uint16_t)minor)};
    uint8_t out[8192], in[8192];
    unsigned left = atomic_load(&r->left);
    int fd = raw_connect(r), rc;

    memcpy(out, &v, sizeof(v));
    memcpy(out + sizeof(v), text, len);
    raw_send(fd, VFIO_VERSION, 0, out, sizeof(v) + len,
             (uint32_t)(sizeof(struct vfio_header) + sizeof(v) + len));
    rc = raw_receive(fd, in, sizeof(in));
    if (rc >= 0) {
        assert_in_range(rc, sizeof(v), sizeof(v) + len); /* never longer */
        memcpy(&v, in, sizeof(v));
        assert_int_equal(le16_get(v.major), 0);
        assert_int_equal(le16_get(v.minor), minor ? 1 : 0);
        assert_true(rc == sizeof(v) || !in[rc - 1]);
        snprintf(reply, 256, "%.*s", rc - (int)sizeof(v), in + sizeof(v));
    } else {
        /* And then it is closed. */
        rig_closed(fd);
    }
    close(fd);
    RIG_WAIT(atomic_load(&r->left) > left);
    return rc;
}

static const char qemu[] =
    "{\"capabilities\": {\"pgsizes\": 4096, \"max_msg_fds\": 16, "
    "\"max_dma_maps\": 65535, \"max_data_xfer_size\": 1048576, "
    "\"migration\": {\"max_bitmap_size\": 268435456, \"pgsize\": 4096}, "
    "\"write_multiple\": true}}";

static void
a_version_is_agreed_on(void **state)
{
    struct rig *r = *state;
    char reply[256];

    assert_true(ask_version(r, 0, 0, qemu, sizeof(qemu), reply) > 0);
    /* Only what was asked for, and WRITE_MULTI is not offered here. */
    assert_string_equal(reply, "{\"capabilities\":{\"max_msg_fds\":16,"
                               "\"max_data_xfer_size\":1048576}}");
    assert_true(ask_version(r, 0, 1, "{\"capabilities\":{\"max_msg_fds\":1}}",
                            35, reply) > 0);
    assert_string_equal(reply, "{\"capabilities\":{}}"); /* as long as that */
    assert_true(ask_version(r, 0, 9, "", 0, reply) > 0); /* no text */
    assert_string_equal(reply, "");
    assert_true(ask_version(r, 0, 0, "", 1, reply) > 0); /* an empty one */
    assert_true(ask_version(r, 0, 0, "{}", 3, reply) > 0);
    assert_string_equal(reply, "{}");
    assert_true(ask_version(r, 0, 0, "{\"capabilities\":{} }", 21, reply) > 0);
    assert_string_equal(reply, "{\"capabilities\":{}}");
}

static void
versions_that_make_no_sense_are_refused(void **state)
{
    static const char *const bad[] = {
        "[]",
        "nonsense",
        "{\"capabilities\":[]}",
        "{\"capabilities\":{\"max_msg_fds\":\"16\"}}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}",
        "{\"capabilities\":{\"max_msg_fds\":1e300}}",
        "{\"capabilities\":{\"max_msg_fds\":99999999999}}",
        "{\"capabilities\":{\"max_msg_fds\":999999999999999999999999}}",
        "{\"capabilities\":{\"max_data_xfer_size\":0}}",
        "{\"capabilities\":{\"max_data_xfer_size\":true}}",
        "{\"capabilities\":{\"max_dma_maps\":null}}",
        "{\"capabilities\":{\"pgsizes\":2048}}",
        "{\"capabilities\":{\"pgsizes\":6144}}",
        "{\"capabilities\":{\"write_multiple\":1}}",
        "{\"capabilities\":{\"migration\":4096}}",
        "{\"capabilities\":{\"migration\":{\"pgsize\":\"4096\"}}}",
        "{\"capabilities\":{\"twin_socket\":true}}",
        "{\"capabilities\":{}} {}",
    };
    struct rig *r = *state;
    char reply[256], deep[4096];

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (ask_version(r, 0, 1, bad[i], strlen(bad[i]) + 1, reply) != -EINVAL)
            fail_msg("%s", bad[i]);
    memset(deep, '[', sizeof(deep));
    deep[sizeof(deep) - 1] = 0;
    assert_int_equal(ask_version(r, 0, 1, deep, sizeof(deep), reply), -EINVAL);
    assert_int_equal(ask_version(r, 1, 0, qemu, sizeof(qemu), reply), -EINVAL);
    /* The final NUL is missing; one is in the middle. */
    assert_int_equal(ask_version(r, 0, 0, "{} ", 3, reply), -EINVAL);
    assert_int_equal(ask_version(r, 0, 0, "{}", 2, reply), -EINVAL);
    assert_int_equal(ask_version(r, 0, 0, "{}\0{}", 6, reply), -EINVAL);
}

static void
the_first_message_is_version_and_only_that(void **state)
{
    struct vfio_info info = {.argsz = le32_of(16)};
    struct rig *r = *state;
    uint8_t in[64];
    int fd = raw_connect(r);

    raw_send(fd, VFIO_GET_INFO, 0, &info, sizeof(info), 32);
    assert_int_equal(raw_receive(fd, in, sizeof(in)), -EINVAL);
    assert_int_equal(raw_receive(fd, in, sizeof(in)), -EPIPE);
    close(fd);
    /* Too short a one. */
    fd = raw_connect(r);
    raw_send(fd, VFIO_VERSION, 0, "\0\0", 2, 18);
    assert_int_equal(raw_receive(fd, in, sizeof(in)), -EINVAL);
    assert_int_equal(raw_receive(fd, in, sizeof(in)), -EPIPE);
    close(fd);
    rig_connect(r);
    assert_int_equal(rig_call(r, VFIO_VERSION, "\0\0\0\0", 4, NULL, 0),
                     -EINVAL);
    assert_int_equal(rig_call(r, VFIO_GET_INFO, &info, sizeof(info), NULL, 0),
                     0);
}

/* ---- Framing ---- */

static void
broken_framing_ends_the_connection(void **state)
{
    static const struct {
        unsigned command;
        uint32_t flags, size;
    } bad[] = {
        {VFIO_GET_INFO, 0, 15},
        {VFIO_GET_INFO, 0, 0},
        {VFIO_GET_INFO, 0, VFIO_MESSAGE_MAX + 1},
        {VFIO_GET_INFO, 0, UINT32_MAX},
        {VFIO_DMA_READ, VFIO_REPLY, 16}, /* to nothing */
        {VFIO_GET_INFO, 7, 16},          /* a type that there is not */
    };
    struct rig *r = *state;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rig_connect(r);
        raw_send(st_vfio_client_fd(r->c), bad[i].command, bad[i].flags, "", 0,
                 bad[i].size);
        rig_closed(st_vfio_client_fd(r->c));
        rig_leave(r);
        assert_int_equal(rig_stats(r).protocol_errors, i + 1);
    }
    rig_connect(r); /* the next one is served */
    assert_int_equal(config_read(r, 0, 4), 0x00071414);
}

static void
what_is_unknown_or_empty_is_answered(void **state)
{
    static const unsigned takes_payload[] = {
        VFIO_DMA_MAP,         VFIO_DMA_UNMAP,    VFIO_GET_INFO,
        VFIO_GET_REGION_INFO, VFIO_GET_IRQ_INFO, VFIO_SET_IRQS,
        VFIO_REGION_READ,     VFIO_REGION_WRITE,
    };
    static const unsigned unknown[] = {0,
                                       VFIO_GET_REGION_IO_FDS,
                                       VFIO_DMA_READ,
                                       VFIO_DMA_WRITE,
                                       14,
                                       VFIO_REGION_WRITE_MULTI,
                                       VFIO_FEATURE,
                                       17,
                                       18,
                                       19,
                                       0xffff};
    struct rig *r = *state;

    rig_connect(r);
    for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        assert_int_equal(rig_call(r, unknown[i], "12345678", 8, NULL, 0),
                         -ENOTSUP);
    for (unsigned i = 0; i < sizeof(takes_payload) / sizeof(unsigned); i++) {
        assert_int_equal(rig_call(r, takes_payload[i], NULL, 0, NULL, 0),
                         -EINVAL);
        assert_int_equal(rig_call(r, takes_payload[i], "1234567", 7, NULL, 0),
                         -EINVAL);
    }
    assert_int_equal(rig_stats(r).protocol_errors, 0);
}

/* Descriptors that nobody asked for are closed, with an error. */
static void
unexpected_descriptors_are_closed(void **state)
{
    struct vfio_info info = {.argsz = le32_of(16)};
    struct rig *r = *state;
    int fds[40], before;

    rig_connect(r);
    assert_int_equal(rig_call(r, VFIO_GET_INFO, &info, sizeof(info), NULL, 0),
                     0);
    before = open_fds();
    for (unsigned i = 0; i < 40; i++)
        fds[i] = STDIN_FILENO;
    assert_int_equal(rig_call(r, VFIO_GET_INFO, &info, sizeof(info), fds, 40),
                     -EINVAL);
    assert_int_equal(rig_call(r, VFIO_RESET, NULL, 0, fds, 1), -EINVAL);
    assert_int_equal(rig_call(r, 99, NULL, 0, fds, 3), -EINVAL);
    assert_int_equal(rig_call(r, VFIO_GET_INFO, &info, sizeof(info), NULL, 0),
                     0);
    assert_int_equal(open_fds(), before);
}

/* A message byte by byte, and many in one go. */
static void
messages_come_in_any_pieces(void **state)
{
    struct rig *r = *state;
    struct {
        struct vfio_header h;
        struct vfio_region_access a;
    } m[300];
    uint8_t in[64];
    int fd;

    rig_boot(r);
    fd = st_vfio_client_fd(r->c);
    for (unsigned i = 0; i < 300; i++) {
        m[i].h = (struct vfio_header){.id = le16_of(7),
                                      .command = le16_of(VFIO_REGION_READ),
                                      .size = le32_of(sizeof(m[i]))};
        m[i].a = (struct vfio_region_access){le64_of(0), le32_of(VFIO_CONFIG),
                                             le32_of(4)};
    }
    for (unsigned i = 0; i < sizeof(m[0]); i++)
        assert_int_equal(write(fd, (uint8_t *)m + i, 1), 1);
    assert_int_equal(raw_receive(fd, in, sizeof(in)), 20);
    assert_int_equal(write(fd, m, sizeof(m)), sizeof(m));
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(raw_receive(fd, in, sizeof(in)), 20);
    assert_memory_equal(in + 16, "\x14\x14\x07\x00", 4);
}

/* ---- What the device is made of ---- */

static void
the_device_tells_what_it_is(void **state)
{
    struct rig *r = *state;
    struct vfio_info info = {.argsz = le32_of(32)}; /* Cloud Hypervisor's */
    struct st_vfio_call call = {.command = VFIO_GET_INFO,
                                .out = &info,
                                .out_len = sizeof(info),
                                .in = &info,
                                .in_max = sizeof(info)};
    static const uint64_t sizes[VFIO_REGIONS] = {BAR_SIZE, 0, 0,    0, 4096,
                                                 0,        0, 4096, 0};
    uint64_t size;

    rig_connect(r);
    assert_int_equal(st_vfio_client_call(r->c, &call), 0);
    assert_int_equal(call.in_len, 16);
    assert_int_equal(le32_get(info.argsz), 16);
    assert_int_equal(le32_get(info.flags), 3);
    assert_int_equal(le32_get(info.regions), 9);
    assert_int_equal(le32_get(info.irqs), 5);
    info.argsz = le32_of(15);
    assert_int_equal(rig_call(r, VFIO_GET_INFO, &info, 16, NULL, 0), -EINVAL);
    for (unsigned i = 0; i < VFIO_REGIONS; i++) {
        assert_int_equal(st_vfio_client_region_size(r->c, i, &size), 0);
        assert_int_equal(size, sizes[i]);
    }
    assert_int_equal(st_vfio_client_region_size(r->c, 9, &size), -EINVAL);
    assert_int_equal(st_vfio_client_region_size(r->c, UINT32_MAX, &size),
                     -EINVAL);
}

static int
sparse_setup(void **state)
{
    struct st_vfio_user_opts o = {.write_multiple = true};

    o.sparse.fd = memfd_create("doorbells", MFD_CLOEXEC);
    o.sparse.bar = 0;
    o.sparse.offset = TOY_DOORBELLS;
    o.sparse.fd_offset = TOY_DOORBELLS + PAGE;
    o.sparse.size = PAGE;
    assert_int_equal(ftruncate(o.sparse.fd, TOY_DOORBELLS + 2 * PAGE), 0);
    *state = rig_new(*state, &o);
    ((struct rig *)*state)->fds_before--; /* closed by the teardown below */
    ((struct rig *)*state)->toy.last_hot = (uint64_t)o.sparse.fd;
    return 0;
}

static int
sparse_teardown(void **state)
{
    struct rig *r = *state;

    close((int)r->toy.last_hot);
    return rig_teardown(state);
}

/* A query of region 0 with ARGSZ: what came, and its descriptor. */
static struct st_vfio_call
query_region(struct rig *r, uint32_t argsz, void *in)
{
    struct vfio_region_info q = {.argsz = le32_of(argsz)};
    struct st_vfio_call call = {.command = VFIO_GET_REGION_INFO,
                                .out = &q,
                                .out_len = sizeof(q),
                                .in = in,
                                .in_max = 64};

    if (st_vfio_client_call(r->c, &call) < 0)
        call.in_len = 0;
    return call;
}

static void
a_part_that_can_be_mapped_is_asked_for_twice(void **state)
{
    struct rig *r = *state;
    struct {
        struct vfio_region_info info;
        struct vfio_sparse sparse;
    } in;
    struct st_vfio_call call;
    uint64_t offset, size;
    uint8_t *at, *ours;
    void *p;

    rig_boot(r);
    assert_int_equal(query_region(r, 31, &in).in_len, 0);
    /* First: no room for the capability, but it is said to be there. */
    call = query_region(r, 32, &in);
    assert_int_equal(call.in_len, 32);
    assert_true(call.in_fd >= 0);
    close(call.in_fd);
    assert_int_equal(le32_get(in.info.argsz), 64);
    assert_int_equal(le32_get(in.info.flags), 15);
    assert_int_equal(le32_get(in.info.cap_offset), 32);
    /* Then: exactly, and with more room. */
    for (uint32_t argsz = 64; argsz <= 128; argsz += 64) {
        call = query_region(r, argsz, &in);
        assert_int_equal(call.in_len, 64);
        assert_true(call.in_fd >= 0);
        close(call.in_fd);
        assert_int_equal(le16_get(in.sparse.id), 1);
        assert_int_equal(le32_get(in.sparse.areas), 1);
        assert_int_equal(le64_get(in.sparse.offset), TOY_DOORBELLS);
        assert_int_equal(le64_get(in.sparse.size), PAGE);
        assert_int_equal(le64_get(in.info.offset), PAGE);
    }
    assert_int_equal(st_vfio_client_doorbells(r->c, 0, &p, &offset, &size), 0);
    at = p;
    assert_int_equal(offset, TOY_DOORBELLS);
    assert_int_equal(size, PAGE);
    ours = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, (int)r->toy.last_hot,
                TOY_DOORBELLS + PAGE);
    assert_true(ours != MAP_FAILED);
    at[8] = 0x77;
    assert_int_equal(((volatile uint8_t *)ours)[8], 0x77);
    munmap(ours, PAGE);
    assert_int_equal(st_vfio_client_doorbells(r->c, 4, &p, &offset, &size),
                     -ENOENT);
}

static void
a_sparse_part_must_be_one(void **state)
{
    struct rig *r = *state;
    struct st_vfio_user_opts o = {
        .loop = r->door, .pci = &r->toy.pci, .gmem = r->gmem};
    struct st_vfio_user *v;
    struct st_err err;

    o.sparse.fd = STDIN_FILENO;
    o.sparse.size = PAGE;
    o.sparse.offset = 100;
    assert_int_equal(st_vfio_user_create(&o, eventfd(0, 0), &v, &err), -EINVAL);
    o.sparse.offset = o.sparse.fd_offset = BAR_SIZE;
    assert_int_equal(st_vfio_user_create(&o, eventfd(0, 0), &v, &err), -EINVAL);
    o.sparse.offset = PAGE;
    o.sparse.fd_offset = 0;
    assert_int_equal(st_vfio_user_create(&o, eventfd(0, 0), &v, &err), -EINVAL);
    o.sparse.fd_offset = PAGE;
    o.sparse.bar = 6;
    assert_int_equal(st_vfio_user_create(&o, eventfd(0, 0), &v, &err), -EINVAL);
    o.sparse.bar = 1;
    assert_int_equal(st_vfio_user_create(&o, eventfd(0, 0), &v, &err), -EINVAL);
}

/* ---- Accesses ---- */

static void
accesses_reach_registers_and_configuration(void **state)
{
    struct rig *r = *state;
    uint8_t bytes[4200], three[3];

    rig_boot(r);
    reg_write(r, TOY_SCRATCH, UINT64_C(0x1122334455667788));
    assert_true(reg_read(r, TOY_SCRATCH) == UINT64_C(0x1122334455667788));
    /* Odd pieces are cut into natural ones. */
    assert_int_equal(st_vfio_client_write(r->c, 0, 1, "\1\2\3\4\5", 5), 0);
    assert_true(reg_read(r, TOY_SCRATCH) == UINT64_C(0x1122050403020188));
    assert_int_equal(st_vfio_client_read(r->c, 0, 3, three, 3), 0);
    assert_memory_equal(three, "\3\4\5", 3);
    /* Configuration space at any width, at once as a whole, and beyond. */
    assert_int_equal(config_read(r, 1, 2), 0x0714);
    memset(bytes, 0x55, sizeof(bytes));
    assert_int_equal(st_vfio_client_read(r->c, VFIO_CONFIG, 0, bytes, 4200), 0);
    assert_memory_equal(bytes, "\x14\x14\x07\x00\x06", 5);
    assert_int_equal(bytes[0x100] | bytes[0x101] | bytes[4095], 0);
    for (unsigned i = 4096; i < 4200; i++)
        assert_int_equal(bytes[i], 0xff);
    /* A BAR shows its size. */
    config_write(r, BAR0, 0xffffffff, 4);
    assert_int_equal(config_read(r, BAR0, 4), (uint32_t)-BAR_SIZE | 4);
    config_write(r, BAR0, 0xfe000000, 4);
    assert_int_equal(config_read(r, BAR0, 4), 0xfe000004);
}

static void
what_is_not_there_reads_ones(void **state)
{
    struct rig *r = *state;
    uint8_t bytes[16], ones[16];

    memset(ones, 0xff, sizeof(ones));
    rig_boot(r);
    assert_int_equal(st_vfio_client_read(r->c, 0, BAR_SIZE, bytes, 8), 0);
    assert_memory_equal(bytes, ones, 8);
    assert_int_equal(st_vfio_client_read(r->c, 0, BAR_SIZE - 4, bytes, 16), 0);
    assert_memory_equal(bytes, "\0\0\0\0", 4);
    assert_memory_equal(bytes + 4, ones, 12);
    assert_int_equal(st_vfio_client_read(r->c, 0, UINT64_MAX - 3, bytes, 8), 0);
    assert_memory_equal(bytes, ones, 8);
    assert_int_equal(st_vfio_client_write(r->c, 0, UINT64_MAX - 3, bytes, 8),
                     0);
    assert_int_equal(st_vfio_client_read(r->c, VFIO_ROM, 0, bytes, 4), 0);
    assert_memory_equal(bytes, ones, 4);
    assert_int_equal(st_vfio_client_write(r->c, 1, 0, bytes, 4), 0);
    /* Memory space is off. */
    config_write(r, COMMAND, 0, 2);
    assert_true(reg_read(r, TOY_SCRATCH) == UINT64_MAX);
    config_write(r, COMMAND, 2, 2);
    assert_true(reg_read(r, TOY_SCRATCH) == 0);
}

static void
accesses_are_checked(void **state)
{
    struct rig *r = *state;
    struct {
        struct vfio_region_access a;
        uint8_t data[64];
    } m = {0};

    rig_boot(r);
    m.a.count = le32_of(0);
    assert_int_equal(rig_call(r, VFIO_REGION_READ, &m, 16, NULL, 0), -EINVAL);
    assert_int_equal(rig_call(r, VFIO_REGION_WRITE, &m, 16, NULL, 0), -EINVAL);
    m.a.count = le32_of(8);
    assert_int_equal(rig_call(r, VFIO_REGION_READ, &m, 24, NULL, 0), -EINVAL);
    assert_int_equal(rig_call(r, VFIO_REGION_WRITE, &m, 23, NULL, 0), -EINVAL);
    assert_int_equal(rig_call(r, VFIO_REGION_WRITE, &m, 25, NULL, 0), -EINVAL);
    assert_int_equal(rig_call(r, VFIO_REGION_WRITE, &m, 24, NULL, 0), 0);
    m.a.count = le32_of(VFIO_XFER_MAX + 1);
    assert_int_equal(rig_call(r, VFIO_REGION_READ, &m, 16, NULL, 0), -EINVAL);
    m.a.count = le32_of(UINT32_MAX);
    assert_int_equal(rig_call(r, VFIO_REGION_WRITE, &m, 24, NULL, 0), -EINVAL);
    m.a.count = le32_of(8);
    m.a.region = le32_of(9);
    assert_int_equal(rig_call(r, VFIO_REGION_READ, &m, 16, NULL, 0), -EINVAL);
}

/* The largest messages that there are. */
static void
a_mebibyte_goes_both_ways(void **state)
{
    struct rig *r = *state;
    uint8_t *big = calloc(1, VFIO_XFER_MAX);

    rig_boot(r);
    assert_int_equal(
        st_vfio_client_write(r->c, 0, TOY_DOORBELLS, big, VFIO_XFER_MAX), 0);
    assert_int_equal(reg_read(r, TOY_HOTS), (BAR_SIZE - TOY_DOORBELLS) / 8);
    assert_int_equal(
        st_vfio_client_read(r->c, VFIO_CONFIG, 0, big, VFIO_XFER_MAX), 0);
    assert_memory_equal(big, "\x14\x14\x07\x00", 4);
    assert_int_equal(big[ST_PCI_CONFIG], 0xff);
    assert_int_equal(big[VFIO_XFER_MAX - 1], 0xff);
    free(big);
}

/* What comes behind a deferred access is answered behind it. */
static void
a_deferred_access_keeps_the_order(void **state)
{
    struct rig *r = *state;
    struct vfio_region_access stuck = {le64_of(TOY_STUCK), le32_of(0),
                                       le32_of(8)},
                              id = {le64_of(0), le32_of(VFIO_CONFIG),
                                    le32_of(4)};
    uint8_t in[24];
    struct st_vfio_call call[2] = {{.command = VFIO_REGION_READ,
                                    .out = &stuck,
                                    .out_len = 16,
                                    .in = in,
                                    .in_max = 24},
                                   {.command = VFIO_REGION_READ,
                                    .out = &id,
                                    .out_len = 16,
                                    .in = in,
                                    .in_max = 24}};
    uint64_t messages;
    char byte;

    rig_boot(r);
    messages = rig_stats(r).messages;
    assert_int_equal(st_vfio_client_send(r->c, &call[0], false), 0);
    assert_int_equal(st_vfio_client_send(r->c, &call[1], false), 0);
    RIG_WAIT(atomic_load(&r->toy.stuck));
    usleep(20000);
    assert_int_equal(rig_stats(r).messages, messages + 1);
    assert_int_equal(
        recv(st_vfio_client_fd(r->c), &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    rig_unstick(r);
    assert_int_equal(st_vfio_client_collect(r->c, &call[0]), 0);
    assert_int_equal(call[0].in_len, 24);
    assert_int_equal(st_vfio_client_collect(r->c, &call[1]), 0);
    assert_memory_equal(in + 16, "\x14\x14\x07\x00", 4);
}

static int
hasty_setup(void **state)
{
    static const struct st_vfio_user_opts o = {.timeout_ns = 20000000};

    *state = rig_new(*state, &o);
    return 0;
}

/* It is answered in time, whatever becomes of it. */
static void
a_deferred_access_is_not_waited_for_for_ever(void **state)
{
    struct rig *r = *state;
    uint8_t bytes[16];

    rig_boot(r);
    assert_int_equal(st_vfio_client_read(r->c, 0, TOY_STUCK, bytes, 16), 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(bytes[i], 0xff);
    assert_int_equal(rig_stats(r).late, 1);
    reg_write(r, TOY_SCRATCH, 5);
    assert_int_equal(reg_read(r, TOY_SCRATCH), 5);
    rig_unstick(r); /* late, and nobody is there for it */
    assert_int_equal(reg_read(r, TOY_SCRATCH), 5);
}

/* ---- Posted writes ---- */

static void
post_storm(struct rig *r, unsigned storm)
{
    struct st_vfio_user_stats s;
    le32 value;

    rig_boot(r);
    for (unsigned i = 1; i <= storm; i++) {
        value = le32_of(i);
        assert_int_equal(
            st_vfio_client_post(r->c, 0, TOY_DOORBELLS + 8, &value, 4), 0);
    }
    assert_int_equal(reg_read(r, TOY_HOTS), storm);
    assert_int_equal(r->toy.last_hot, storm);
    s = rig_stats(r);
    assert_int_equal(s.posted, storm);
    assert_true(s.wakeups <= s.messages);
    /* Nor does a posted error have a reply. */
    assert_int_equal(st_vfio_client_post(r->c, 77, 0, &value, 4), 0);
    assert_int_equal(reg_read(r, TOY_HOTS), storm);
    assert_int_equal(rig_stats(r).errors, 1);
}

static void
a_million_posted_writes_are_drained(void **state)
{
    post_storm(*state, 1000000);
}

static void
a_storm_of_posted_writes_is_drained(void **state)
{
    post_storm(*state, 50000);
}

static const char not_multi[] =
    "{\"capabilities\": {\"max_msg_fds\": 16, \"write_multiple\": false, "
    "\"max_data_xfer_size\": 1048576, \"pgsizes\": 4096}}";

static void
write_multi_carries_many(void **state)
{
    struct rig *r = *state;
    struct st_vfio_write w[200];
    struct {
        le64 n;
        struct vfio_write_multi e;
    } m = {.n = le64_of(1)};
    char reply[256];

    assert_true(ask_version(r, 0, 1, qemu, sizeof(qemu), reply) > 0);
    assert_non_null(strstr(reply, "\"write_multiple\":true"));
    /* Only for who asked for it, however much room there is. */
    assert_true(ask_version(r, 0, 1, not_multi, sizeof(not_multi), reply) > 0);
    assert_null(strstr(reply, "write_multiple"));
    rig_boot(r);
    assert_false(st_vfio_client_multi(r->c));
    assert_int_equal(
        rig_call(r, VFIO_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), -ENOTSUP);
    rig_leave(r);
    assert_int_equal(st_vfio_client_connect(r->path, true, &r->c, NULL), 0);
    assert_true(st_vfio_client_multi(r->c));
    config_write(r, COMMAND, 2, 2);
    for (unsigned i = 0; i < 200; i++)
        w[i] = (struct st_vfio_write){0, TOY_DOORBELLS + 4 * i, i, 4};
    w[100].offset = TOY_RAISE; /* one is deferred */
    w[100].len = 8;
    assert_int_equal(st_vfio_client_write_multi(r->c, w, 200), 0);
    assert_int_equal(reg_read(r, TOY_HOTS), 199);
    assert_int_equal(r->toy.last_hot, 199);
    /* With a reply, and checked before any is written. */
    m.e.offset = le64_of(TOY_DOORBELLS);
    m.e.count = le32_of(4);
    assert_int_equal(
        rig_call(r, VFIO_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), 0);
    assert_int_equal(reg_read(r, TOY_HOTS), 200);
    m.e.count = le32_of(9);
    assert_int_equal(
        rig_call(r, VFIO_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), -EINVAL);
    m.e.count = le32_of(0);
    assert_int_equal(
        rig_call(r, VFIO_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), -EINVAL);
    m.e.count = le32_of(4);
    m.n = le64_of(2);
    assert_int_equal(
        rig_call(r, VFIO_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), -EINVAL);
    m.n = le64_of(UINT64_MAX / 12);
    assert_int_equal(
        rig_call(r, VFIO_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0), -EINVAL);
    assert_int_equal(reg_read(r, TOY_HOTS), 200);
    m.n = le64_of(0);
    assert_int_equal(rig_call(r, VFIO_REGION_WRITE_MULTI, &m, 8, NULL, 0), 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(a_version_is_agreed_on),
        RIG_TEST(versions_that_make_no_sense_are_refused),
        RIG_TEST(the_first_message_is_version_and_only_that),
        RIG_TEST(broken_framing_ends_the_connection),
        RIG_TEST(what_is_unknown_or_empty_is_answered),
        RIG_TEST(unexpected_descriptors_are_closed),
        RIG_TEST(messages_come_in_any_pieces),
        RIG_TEST(the_device_tells_what_it_is),
        {"a_part_that_can_be_mapped_is_asked_for_twice",
         a_part_that_can_be_mapped_is_asked_for_twice, sparse_setup,
         sparse_teardown, NULL},
        RIG_TEST(a_sparse_part_must_be_one),
        RIG_TEST(accesses_reach_registers_and_configuration),
        RIG_TEST(what_is_not_there_reads_ones),
        RIG_TEST(accesses_are_checked),
        RIG_TEST(a_mebibyte_goes_both_ways),
        RIG_TEST(a_deferred_access_keeps_the_order),
        RIG_TEST_WITH(a_deferred_access_is_not_waited_for_for_ever,
                      hasty_setup),
        RIG_TEST(a_storm_of_posted_writes_is_drained),
        RIG_TEST_ON(a_million_posted_writes_are_drained, "auto", rig_setup),
        {"write_multi_carries_many", write_multi_carries_many, sparse_setup,
         sparse_teardown, NULL},
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
