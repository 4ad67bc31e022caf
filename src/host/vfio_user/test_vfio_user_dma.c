/* SPDX-License-Identifier: MIT
 *
 * Guest memory through the vfio-user door: what maps and unmaps accept, bursts,
 * memory in use, memory that is not shared, and memory that is cut.
 */
#include "guard.h"
#include "test_rig.h"

/* DMA_MAP as it lies on the wire. */
static int
map_raw(struct rig *r, uint32_t argsz, uint32_t flags, uint64_t offset,
        uint64_t address, uint64_t size, const int *fds, unsigned nfds)
{
    struct vfio_dma_map m = {le32_of(argsz), le32_of(flags), le64_of(offset),
                             le64_of(address), le64_of(size)};

    return rig_call(r, VFIO_DMA_MAP, &m, sizeof(m), fds, nfds);
}

static int
unmap_raw(struct rig *r, uint32_t argsz, uint32_t flags, uint64_t address,
          uint64_t size)
{
    struct vfio_dma_unmap u = {le32_of(argsz), le32_of(flags), le64_of(address),
                               le64_of(size)};

    return rig_call(r, VFIO_DMA_UNMAP, &u, sizeof(u), NULL, 0);
}

/* Let the device invert LEN bytes at GPA to behind them: its errno or 0. */
static uint64_t
copy(struct rig *r, uint64_t gpa, uint64_t len)
{
    reg_write(r, TOY_ADDRESS, gpa);
    reg_write(r, TOY_COPY, len);
    return reg_read(r, TOY_RESULT);
}

static void
the_device_reaches_shared_memory(void **state)
{
    struct rig *r = *state;
    struct st_gmem_stats stats;

    rig_boot(r);
    for (unsigned i = 0; i < 1000; i++)
        r->ram[i + 100] = (uint8_t)i;
    assert_int_equal(copy(r, 100, 1000), 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(r->ram[i + 1100], (uint8_t)~i);
    st_gmem_stats(r->gmem, &stats);
    assert_int_equal(stats.maps, 1);
    assert_int_equal(stats.bytes, ARENA);
    assert_int_equal(copy(r, ARENA - 8, 8), EFAULT);
    assert_int_equal(copy(r, ARENA, 8), EFAULT);
}

static void
maps_are_checked(void **state)
{
    struct rig *r = *state;
    int fd[2], pipes[2], read_only, before;
    char path[64];

    rig_connect(r);
    assert_int_equal(config_read(r, 0, 2), 0x1414);
    fd[0] = fd[1] = st_vfio_client_arena_fd(r->c);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd[0]);
    read_only = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(read_only >= 0);
    assert_int_equal(pipe(pipes), 0);
    before = open_fds();
    /* Sizes, alignment, wraps, flags. */
    assert_int_equal(map_raw(r, 31, 3, 0, 0, PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 0, 0, 0, PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 7, 0, 0, PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, 0, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, 100, PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, PAGE + 1, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 512, 0, PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, -(uint64_t)PAGE, 2 * PAGE, fd, 1),
                     -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, PAGE, fd, 2), -EINVAL);
    /* Beyond the end of the file there is nothing but a signal. */
    assert_int_equal(map_raw(r, 32, 3, 0, 0, ARENA + PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, ARENA, 0, PAGE, fd, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, -(uint64_t)PAGE, 0, 2 * PAGE, fd, 1),
                     -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, UINT64_C(1) << 60, fd, 1),
                     -EINVAL);
    /* No file at all, or one that may not be written. */
    assert_int_equal(map_raw(r, 32, 3, 0, 0, PAGE, pipes, 1), -EINVAL);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, PAGE, &read_only, 1), -EACCES);
    assert_int_equal(map_raw(r, 32, 1, 0, 0, PAGE, &read_only, 1), 0);
    /* Overlaps. */
    assert_int_equal(map_raw(r, 32, 3, 0, 0, PAGE, fd, 1), -EEXIST);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, 4 * PAGE, fd, 1), -EEXIST);
    assert_int_equal(map_raw(r, 32, 3, 0, 0, PAGE, NULL, 0), -EEXIST);
    assert_int_equal(map_raw(r, 32, 3, PAGE, PAGE, PAGE, fd, 1), 0);
    assert_int_equal(map_raw(r, 32, 1, 0, -(uint64_t)PAGE, PAGE, fd, 1), 0);
    assert_int_equal(open_fds(), before);
    close(read_only);
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(rig_stats(r).maps, 3);
}

static void
unmaps_are_checked(void **state)
{
    struct rig *r = *state;
    struct vfio_dma_unmap u = {le32_of(24), le32_of(0), le64_of(0),
                               le64_of(4 * PAGE)},
                          in;
    struct st_vfio_call call = {.command = VFIO_DMA_UNMAP,
                                .out = &u,
                                .out_len = sizeof(u),
                                .in = &in,
                                .in_max = sizeof(in)};
    struct st_gmem_stats stats;

    rig_connect(r);
    assert_int_equal(st_vfio_client_map(r->c, 0, 0, 4 * PAGE, true), 0);
    assert_int_equal(st_vfio_client_map(r->c, 4 * PAGE, 0, PAGE, true), 0);
    assert_int_equal(unmap_raw(r, 23, 0, 0, 4 * PAGE), -EINVAL);
    assert_int_equal(unmap_raw(r, 24, 4, 0, 4 * PAGE), -EINVAL);
    assert_int_equal(unmap_raw(r, 24, 3, 0, 0), -EINVAL);
    assert_int_equal(unmap_raw(r, 24, 0, 0, 0), -EINVAL);
    assert_int_equal(unmap_raw(r, 24, 0, 0, 100), -EINVAL);
    assert_int_equal(unmap_raw(r, 24, 1, 0, 4 * PAGE), -ENOTSUP);
    assert_int_equal(unmap_raw(r, 24, 0, 0, 5 * PAGE), -ENOENT);
    assert_int_equal(unmap_raw(r, 24, 0, 0, PAGE), -ENOENT);
    assert_int_equal(unmap_raw(r, 24, 0, PAGE, PAGE), -ENOENT);
    assert_int_equal(unmap_raw(r, 24, 0, -(uint64_t)PAGE, 2 * PAGE), -EINVAL);
    assert_int_equal(unmap_raw(r, 24, 2, 0, PAGE), -EINVAL);
    st_gmem_stats(r->gmem, &stats);
    assert_int_equal(stats.maps, 2);
    /* The reply carries the question. */
    assert_int_equal(st_vfio_client_call(r->c, &call), 0);
    assert_int_equal(call.in_len, sizeof(in));
    assert_memory_equal(&in, &u, sizeof(u));
    assert_int_equal(st_vfio_client_call(r->c, &call), -ENOENT);
    assert_int_equal(unmap_raw(r, 24, 2, 0, 0), 0);
    assert_int_equal(unmap_raw(r, 24, 2, 0, 0), 0); /* none left: no error */
    st_gmem_stats(r->gmem, &stats);
    assert_int_equal(stats.maps, 0);
}

/* A buffer over two maps; a map that may not be written. */
static void
buffers_cross_maps(void **state)
{
    struct rig *r = *state;

    rig_connect(r);
    config_write(r, COMMAND, 6, 2);
    assert_int_equal(st_vfio_client_map(r->c, 0, 8 * PAGE, PAGE, true), 0);
    assert_int_equal(st_vfio_client_map(r->c, PAGE, 0, 2 * PAGE, true), 0);
    assert_int_equal(st_vfio_client_map(r->c, 3 * PAGE, 4 * PAGE, PAGE, false),
                     0);
    memset(r->ram + 8 * PAGE + PAGE - 4, 0xf0, 4);
    memset(r->ram, 0xe0, 4);
    assert_int_equal(copy(r, PAGE - 4, 8), 0);
    assert_memory_equal(r->ram + 4, "\x0f\x0f\x0f\x0f\x1f\x1f\x1f\x1f", 8);
    assert_int_equal(copy(r, 3 * PAGE - 16, 16), EFAULT);
    assert_int_equal(r->ram[4 * PAGE], 0);
}

/* Send a MAP (LEN > 0) or an UNMAP without waiting for its answer. */
static void
send_memory(struct rig *r, bool map, uint64_t gpa, uint64_t len)
{
    struct vfio_dma_map m = {le32_of(32), le32_of(3), le64_of(gpa),
                             le64_of(gpa), le64_of(len)};
    struct vfio_dma_unmap u = {le32_of(24), le32_of(0), le64_of(gpa),
                               le64_of(len)};
    int fd = st_vfio_client_arena_fd(r->c);
    struct st_vfio_call call = {.command = map ? VFIO_DMA_MAP : VFIO_DMA_UNMAP,
                                .out = map ? (void *)&m : (void *)&u,
                                .out_len = map ? sizeof(m) : sizeof(u),
                                .fds = &fd,
                                .nfds = map};

    assert_int_equal(st_vfio_client_send(r->c, &call, false), 0);
}

static int
collect_memory(struct rig *r, bool map)
{
    uint8_t in[24];
    struct st_vfio_call call = {.command = map ? VFIO_DMA_MAP : VFIO_DMA_UNMAP,
                                .in = in,
                                .in_max = map ? 0 : sizeof(in)};

    return st_vfio_client_collect(r->c, &call);
}

/* As QEMU splits its RAM and joins it again: for the device none of it is ever
 * gone, and the answers come in order. */
static void
a_burst_is_one_change(void **state)
{
    enum { ROUNDS = 100, CUT = 16 * PAGE };
    struct rig *r = *state;

    rig_boot(r);
    reg_write(r, TOY_ADDRESS, 0x100);
    reg_write(r, TOY_WATCH, 1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        send_memory(r, false, 0, ARENA);
        send_memory(r, true, 0, CUT);
        send_memory(r, true, 0, CUT); /* overlaps */
        send_memory(r, true, CUT, ARENA - CUT);
        assert_int_equal(collect_memory(r, false), 0);
        assert_int_equal(collect_memory(r, true), 0);
        assert_int_equal(collect_memory(r, true), -EEXIST);
        assert_int_equal(collect_memory(r, true), 0);
        send_memory(r, false, CUT, ARENA - CUT);
        send_memory(r, false, 0, CUT);
        send_memory(r, true, 0, ARENA);
        assert_int_equal(collect_memory(r, false), 0);
        assert_int_equal(collect_memory(r, false), 0);
        assert_int_equal(collect_memory(r, true), 0);
    }
    assert_int_equal(reg_read(r, TOY_GONE), 0);
    /* But what is not put back is gone. */
    assert_int_equal(st_vfio_client_unmap(r->c, 0, ARENA), 0);
    RIG_WAIT(reg_read(r, TOY_GONE) > 0);
    reg_write(r, TOY_WATCH, 0);
}

/* What comes behind an unmap, and is about something else, sees it done. */
static void
other_messages_come_after_the_unmap(void **state)
{
    struct rig *r = *state;
    le64 go = le64_of(8);

    rig_boot(r);
    reg_write(r, TOY_ADDRESS, 0);
    send_memory(r, false, 0, ARENA);
    assert_int_equal(st_vfio_client_post(r->c, 0, TOY_COPY, &go, 8), 0);
    assert_int_equal(collect_memory(r, false), 0);
    assert_int_equal(reg_read(r, TOY_RESULT), EFAULT);
}

static void
an_unmap_waits_for_what_uses_the_memory(void **state)
{
    struct rig *r = *state;
    char byte;

    rig_boot(r);
    reg_write(r, TOY_ADDRESS, PAGE);
    reg_write(r, TOY_HOLD, 100);
    assert_int_equal(reg_read(r, TOY_RESULT), 0);
    send_memory(r, false, 0, ARENA);
    /* Not while it is held ... */
    usleep(20000);
    assert_int_equal(
        recv(st_vfio_client_fd(r->c), &byte, 1, MSG_DONTWAIT | MSG_PEEK), -1);
    assert_int_equal(rig_stats(r).unmaps, 1);
    /* ... and the file is mapped here until then. */
    toy_post(&r->toy, NULL, TOY_RELEASE, 0);
    assert_int_equal(collect_memory(r, false), 0);
    assert_int_equal(rig_stats(r).late, 0);
}

static int
hasty_setup(void **state)
{
    static const struct st_vfio_user_opts o = {.timeout_ns = 20000000};

    *state = rig_new(*state, &o);
    return 0;
}

static void
an_unmap_is_answered_in_time(void **state)
{
    struct rig *r = *state;

    rig_boot(r);
    reg_write(r, TOY_ADDRESS, PAGE);
    reg_write(r, TOY_HOLD, 100);
    assert_int_equal(st_vfio_client_unmap(r->c, 0, ARENA), 0);
    assert_int_equal(rig_stats(r).late, 1);
    assert_int_equal(rig_said(r, "still in use"), 1);
    /* It is gone for new requests, and may come again. */
    assert_int_equal(copy(r, 0, 8), EFAULT);
    assert_int_equal(st_vfio_client_map(r->c, 0, 0, ARENA, true), 0);
    assert_int_equal(copy(r, 0, 8), 0);
    reg_write(r, TOY_RELEASE, 0);
    /* A client that leaves while memory is held, too. */
    reg_write(r, TOY_HOLD, 100);
    send_memory(r, false, 0, ARENA);
    rig_leave(r);
    rig_boot(r);
    assert_int_equal(copy(r, 0, 8), 0);
}

/* Memory without a file is known, refused, and spoken of once. */
static void
memory_that_is_not_shared_is_refused(void **state)
{
    struct rig *r = *state;

    rig_boot(r);
    /* Firmware's ROM, and the device's own BAR. */
    config_write(r, BAR0, 0xfe000000, 4);
    assert_int_equal(map_raw(r, 32, 1, 0, 0xfffc0000, 0x40000, NULL, 0), 0);
    assert_int_equal(map_raw(r, 32, 3, 0, 0xfe001000, PAGE, NULL, 0), 0);
    assert_int_equal(rig_said(r, "does not share"), 0);
    assert_int_equal(map_raw(r, 32, 3, 0, 0x80000000, 0x10000, NULL, 0), 0);
    assert_int_equal(map_raw(r, 32, 3, 0, 0x90000000, 0x10000, NULL, 0), 0);
    assert_int_equal(rig_said(r, "does not share"), 1);
    assert_int_equal(rig_stats(r).maps_unreachable, 4);
    assert_int_equal(copy(r, 0x80000000, 8), EFAULT);
    assert_int_equal(copy(r, 0xfe001000, 8), EFAULT);
    assert_int_equal(unmap_raw(r, 24, 0, 0x80000000, 0x10000), 0);
}

static void
maps_have_a_limit(void **state)
{
    struct rig *r = *state;
    int fd;

    rig_connect(r);
    fd = st_vfio_client_arena_fd(r->c);
    /* One behind the other is slow work: each makes a table. So not all of
     * ST_GMEM_MAPS, whose limit is the bus's test, but many. */
    for (unsigned i = 0; i < 2000; i++)
        assert_int_equal(
            map_raw(r, 32, 3, PAGE * (i % 64), (i * 2ull) * PAGE, PAGE, &fd, 1),
            0);
    assert_int_equal(unmap_raw(r, 24, 2, 0, 0), 0);
    assert_int_equal(rig_stats(r).maps, 2000);
}

/* cmocka has a handler of its own for the time of a test. */
static struct sigaction guarding;

static void
a_client_that_cuts_its_memory_is_dropped(void **state)
{
    struct rig *r = *state;
    struct st_gmem_stats stats;

    sigaction(SIGBUS, &guarding, NULL);
    for (unsigned i = 1; i <= 3; i++) {
        rig_boot(r);
        assert_int_equal(copy(r, 0, 8), 0);
        assert_int_equal(ftruncate(st_vfio_client_arena_fd(r->c), PAGE), 0);
        reg_write(r, TOY_ADDRESS, 32 * PAGE);
        {
            le64 go = le64_of(4 * PAGE);

            assert_int_equal(st_vfio_client_post(r->c, 0, TOY_COPY, &go, 8), 0);
        }
        rig_closed(st_vfio_client_fd(r->c));
        rig_leave(r);
        assert_int_equal(rig_stats(r).faults, i);
        assert_int_equal(atomic_load(&r->toy.result), 0); /* of the reset */
        st_gmem_stats(r->gmem, &stats);
        assert_int_equal(stats.maps, 0);
    }
    assert_in_range(rig_said(r, "it cut the file of guest memory"), 1, 3);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(the_device_reaches_shared_memory),
        RIG_TEST(maps_are_checked),
        RIG_TEST(unmaps_are_checked),
        RIG_TEST(buffers_cross_maps),
        RIG_TEST(a_burst_is_one_change),
        RIG_TEST(other_messages_come_after_the_unmap),
        RIG_TEST(an_unmap_waits_for_what_uses_the_memory),
        RIG_TEST_WITH(an_unmap_is_answered_in_time, hasty_setup),
        RIG_TEST(memory_that_is_not_shared_is_refused),
        RIG_TEST(maps_have_a_limit),
        RIG_TEST(a_client_that_cuts_its_memory_is_dropped),
    };

    if (st_guard_install() < 0 || sigaction(SIGBUS, NULL, &guarding) < 0)
        return 1;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
