/* SPDX-License-Identifier: MIT
 *
 * The vfio-user door: clients that come, wait, die in the middle of anything,
 * never read, and the end. Every test counts descriptors before and after.
 */
#include <sys/wait.h>

#include "test_rig.h"

/* The device as after power-on, and nothing of an earlier client. */
static void
expect_power_on(struct rig *r)
{
    struct st_gmem_stats stats;

    st_gmem_stats(r->gmem, &stats);
    assert_int_equal(stats.maps, 0);
    rig_connect(r);
    assert_int_equal(config_read(r, COMMAND, 2), 0);
    assert_int_equal(config_read(r, BAR0, 4), 4);
    assert_int_equal(config_read(r, MSIX_CONTROL, 2), VECTORS - 1);
    config_write(r, COMMAND, 2, 2);
    assert_int_equal(reg_read(r, TOY_SCRATCH), 0);
    assert_int_equal(reg_read(r, TOY_HOTS), 0);
    rig_leave(r);
}

static void
the_next_client_finds_power_on_state(void **state)
{
    struct rig *r = *state;
    int fds[8], before = open_fds();

    for (unsigned i = 1; i <= 20; i++) {
        rig_boot(r);
        config_write(r, BAR0, 0xfe000000, 4);
        reg_write(r, TOY_SCRATCH, i);
        reg_write(r, TOY_DOORBELLS, i);
        for (unsigned j = 0; j < 8; j++)
            fds[j] = eventfd(0, EFD_CLOEXEC);
        assert_int_equal(st_vfio_client_irqs(r->c, false, 0, 8, fds), 0);
        assert_int_equal(st_vfio_client_irqs(r->c, true, 0, 1, fds), 0);
        for (unsigned j = 0; j < 8; j++)
            close(fds[j]);
        reg_write(r, TOY_RAISE, 60); /* pending: without an eventfd */
        reg_write(r, TOY_HOLD, 64);
        assert_int_equal(rig_stats(r).connected, true);
        assert_int_equal(rig_stats(r).peer_pid, getpid());
        rig_leave(r);
        assert_int_equal(rig_stats(r).connected, false);
        assert_int_equal(atomic_load(&r->toy.resets), 2 * i - 1);
        expect_power_on(r);
    }
    assert_int_equal(rig_stats(r).clients_total, 40);
    assert_int_equal(atomic_load(&r->came), 40);
    RIG_WAIT(open_fds() == before); /* eventfds wait for the loops' turns */
}

static void
one_client_at_a_time(void **state)
{
    struct rig *r = *state;
    struct st_vfio_client *first;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    rig_boot(r);
    first = r->c;
    strcpy(a.sun_path, r->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    reg_write(r, TOY_SCRATCH, 1);
    assert_int_equal(rig_stats(r).clients_total, 1);
    st_vfio_client_close(first);
    assert_int_equal(st_vfio_client_attach(fd, false, &r->c, NULL), 0);
    assert_int_equal(atomic_load(&r->left), 1);
    assert_int_equal(rig_stats(r).clients_total, 2);
    assert_int_equal(config_read(r, COMMAND, 2), 0);
}

/* The client is killed while something of its is under way. */
static void
clients_die_at_any_moment(void **state)
{
    struct rig *r = *state;
    uint64_t errors;

    /* Within a header, within a payload. */
    for (size_t cut = 1; cut < 32; cut++) {
        struct {
            struct vfio_header h;
            struct vfio_region_access a;
        } m = {.h = {.command = le16_of(VFIO_REGION_READ),
                     .size = le32_of(sizeof(m))}};

        rig_connect(r);
        errors = rig_stats(r).protocol_errors;
        assert_int_equal(write(st_vfio_client_fd(r->c), &m, cut), cut);
        rig_leave(r);
        assert_int_equal(rig_stats(r).protocol_errors, errors + 1);
    }
    /* Within a message that has descriptors. */
    {
        struct vfio_header h = {.command = le16_of(VFIO_DMA_MAP),
                                .size = le32_of(48)};
        int fds[16] = {0}, before = open_fds();
        char room[CMSG_SPACE(sizeof(fds))] = {0};
        struct iovec iov = {&h, sizeof(h)};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = room,
                             .msg_controllen = sizeof(room)};
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fds));
        memcpy(CMSG_DATA(c), fds, sizeof(fds));
        rig_connect(r);
        assert_int_equal(sendmsg(st_vfio_client_fd(r->c), &msg, 0), sizeof(h));
        RIG_WAIT(open_fds() >= before + 16);
        rig_leave(r);
        assert_int_equal(open_fds(), before);
    }
    expect_power_on(r);
}

/* A register, a reset and an unmap that are waited for. */
static void
clients_die_while_they_wait(void **state)
{
    struct rig *r = *state;
    struct vfio_region_access a = {le64_of(TOY_STUCK), le32_of(0), le32_of(8)};
    struct vfio_dma_unmap u = {le32_of(24), le32_of(0), le64_of(0),
                               le64_of(ARENA)};
    struct st_vfio_call read = {.command = VFIO_REGION_READ,
                                .out = &a,
                                .out_len = sizeof(a)},
                        reset = {.command = VFIO_RESET},
                        unmap = {.command = VFIO_DMA_UNMAP,
                                 .out = &u,
                                 .out_len = sizeof(u)};
    unsigned resets;

    rig_boot(r);
    assert_int_equal(st_vfio_client_send(r->c, &read, false), 0);
    RIG_WAIT(atomic_load(&r->toy.stuck));
    rig_leave(r); /* seen although nothing is read */
    assert_int_equal(rig_stats(r).late, 0);
    rig_unstick(r);
    expect_power_on(r);

    rig_boot(r);
    resets = atomic_load(&r->toy.resets);
    atomic_store(&r->toy.reset_stuck, true);
    assert_int_equal(st_vfio_client_send(r->c, &reset, false), 0);
    RIG_WAIT(atomic_load(&r->toy.stuck));
    st_vfio_client_close(r->c);
    r->c = NULL;
    usleep(10000);
    /* The one under way is not enough; another one comes behind it. */
    assert_int_equal(atomic_load(&r->toy.resets), resets + 1);
    rig_unstick(r);
    RIG_WAIT(!rig_stats(r).connected);
    assert_int_equal(atomic_load(&r->toy.resets), resets + 2);
    expect_power_on(r);

    rig_boot(r);
    reg_write(r, TOY_HOLD, 64);
    assert_int_equal(st_vfio_client_send(r->c, &unmap, false), 0);
    RIG_WAIT(rig_stats(r).unmaps == 1);
    rig_leave(r);
    expect_power_on(r);
}

static int
hasty_setup(void **state)
{
    static const struct st_vfio_user_opts o = {.timeout_ns = 20000000};

    *state = rig_new(*state, &o);
    return 0;
}

static void
a_reset_is_answered_in_time(void **state)
{
    struct rig *r = *state;
    unsigned resets;

    rig_boot(r);
    resets = atomic_load(&r->toy.resets);
    atomic_store(&r->toy.reset_stuck, true);
    assert_int_equal(st_vfio_client_reset(r->c), 0);
    assert_int_equal(rig_stats(r).late, 1);
    /* The next one waits for it, and is not late. */
    {
        struct st_vfio_call call = {.command = VFIO_RESET};

        assert_int_equal(st_vfio_client_send(r->c, &call, false), 0);
        rig_unstick(r);
        assert_int_equal(st_vfio_client_collect(r->c, &call), 0);
    }
    assert_int_equal(atomic_load(&r->toy.resets), resets + 2);
    assert_int_equal(config_read(r, COMMAND, 2), 0);
}

static void
a_client_that_never_reads_is_dropped(void **state)
{
    struct rig *r = *state;
    struct vfio_region_access a = {le64_of(0), le32_of(VFIO_CONFIG),
                                   le32_of(VFIO_XFER_MAX)};
    struct st_vfio_call call = {
        .command = VFIO_REGION_READ, .out = &a, .out_len = sizeof(a)};
    int rc = 0;

    rig_boot(r);
    for (unsigned i = 0; rc == 0 && i < 64; i++)
        rc = st_vfio_client_send(r->c, &call, false);
    RIG_WAIT(!rig_stats(r).connected);
    assert_int_equal(rig_said(r, "does not read its replies"), 1);
    st_vfio_client_close(r->c);
    r->c = NULL;
    expect_power_on(r);
}

/* A stop waits for the client; it is served until it leaves. */
static void
a_stop_waits_for_the_client(void **state)
{
    struct rig *r = *state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    rig_boot(r);
    rig_on(r, r->door, rig_stop);
    reg_write(r, TOY_SCRATCH, 5);
    assert_int_equal(reg_read(r, TOY_SCRATCH), 5);
    assert_false(atomic_load(&r->stopped));
    strcpy(a.sun_path, r->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), -1);
    close(fd);
    st_vfio_client_close(r->c);
    r->c = NULL;
    RIG_WAIT(atomic_load(&r->stopped));
    assert_int_equal(atomic_load(&r->left), 1);
}

static void
a_cut_does_not_wait(void **state)
{
    struct rig *r = *state;

    rig_on(r, r->door, rig_cut); /* nobody is there: nothing happens */
    rig_boot(r);
    rig_on(r, r->door, rig_cut);
    rig_closed(st_vfio_client_fd(r->c));
    rig_leave(r);
    expect_power_on(r); /* the next one may come */
    rig_boot(r);
    rig_on(r, r->door, rig_stop);
    rig_on(r, r->door, rig_cut);
    RIG_WAIT(atomic_load(&r->stopped));
    rig_closed(st_vfio_client_fd(r->c));
}

/* Clients of other processes, killed with no regard for where they are. */
static void
killed_clients_leave_nothing_behind(void **state)
{
    enum { KILLS = 30 };
    struct rig *r = *state;
    int before = open_fds();

    for (unsigned i = 0; i < KILLS; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            struct st_vfio_client *c;
            le64 n = le64_of(1);
            void *ram;
            int fd[4];

            if (st_vfio_client_connect(r->path, false, &c, NULL) < 0 ||
                st_vfio_client_arena(c, ARENA, &ram) < 0)
                _exit(1);
            for (unsigned j = 0; j < 4; j++)
                fd[j] = eventfd(0, EFD_CLOEXEC);
            for (;;) {
                st_vfio_client_map(c, 0, 0, ARENA, true);
                st_vfio_client_write(c, VFIO_CONFIG, COMMAND, "\6\0", 2);
                st_vfio_client_irqs(c, false, 0, 4, fd);
                st_vfio_client_write(c, 0, TOY_HOLD, &n, 8);
                st_vfio_client_post(c, 0, TOY_RAISE, &n, 8);
                st_vfio_client_write(c, 0, TOY_RELEASE, &n, 8);
                st_vfio_client_reset(c);
                st_vfio_client_unmap(c, 0, ARENA);
            }
        }
        RIG_WAIT(atomic_load(&r->came) == i + 1);
        usleep(i * 300);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        RIG_WAIT(atomic_load(&r->left) == i + 1);
    }
    expect_power_on(r);
    RIG_WAIT(open_fds() == before);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(the_next_client_finds_power_on_state),
        RIG_TEST(one_client_at_a_time),
        RIG_TEST(clients_die_at_any_moment),
        RIG_TEST(clients_die_while_they_wait),
        RIG_TEST_WITH(a_reset_is_answered_in_time, hasty_setup),
        RIG_TEST(a_client_that_never_reads_is_dropped),
        RIG_TEST(a_stop_waits_for_the_client),
        RIG_TEST(a_cut_does_not_wait),
        RIG_TEST(killed_clients_leave_nothing_behind),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
