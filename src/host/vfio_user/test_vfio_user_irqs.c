/* SPDX-License-Identifier: MIT
 *
 * Interrupts through the vfio-user door: what SET_IRQS accepts, eventfds that
 * come late, go and are replaced, and INTx as a level.
 */
#include "test_rig.h"

static int
set_raw(struct rig *r, uint32_t flags, uint32_t index, uint32_t start,
        uint32_t count, const int *fds, unsigned nfds)
{
    struct vfio_set_irqs s = {le32_of(sizeof(s)), le32_of(flags),
                              le32_of(index), le32_of(start), le32_of(count)};

    return rig_call(r, VFIO_SET_IRQS, &s, sizeof(s), fds, nfds);
}

/* The same with LEN bytes of data, for BOOL. */
static int
set_bools(struct rig *r, uint32_t flags, uint32_t index, uint32_t count,
          const char *data, size_t len)
{
    struct {
        struct vfio_set_irqs s;
        char data[32];
    } m = {.s = {le32_of((uint32_t)(sizeof(m.s) + len)),
                 le32_of(flags | VFIO_DATA_BOOL), le32_of(index), le32_of(0),
                 le32_of(count)}};

    memcpy(m.data, data, len);
    return rig_call(r, VFIO_SET_IRQS, &m, sizeof(m.s) + len, NULL, 0);
}

static int
event_new(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

/* How often FD was signalled since the last time. */
static uint64_t
rang(int fd)
{
    uint64_t n = 0;

    return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void
interrupts_are_described(void **state)
{
    static const uint32_t flags[] = {7, 0, 1, 0, 0};
    static const uint32_t count[] = {1, 0, VECTORS, 0, 0};
    struct rig *r = *state;

    rig_connect(r);
    for (uint32_t i = 0; i < 6; i++) {
        struct vfio_irq_info info = {le32_of(16), le32_of(0), le32_of(i),
                                     le32_of(0)};
        struct st_vfio_call call = {.command = VFIO_GET_IRQ_INFO,
                                    .out = &info,
                                    .out_len = sizeof(info),
                                    .in = &info,
                                    .in_max = sizeof(info)};
        int rc = st_vfio_client_call(r->c, &call);

        if (i == 5) {
            assert_int_equal(rc, -EINVAL);
            break;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(call.in_len, 16);
        assert_int_equal(le32_get(info.argsz), 16);
        assert_int_equal(le32_get(info.flags), flags[i]);
        assert_int_equal(le32_get(info.index), i);
        assert_int_equal(le32_get(info.count), count[i]);
        info.argsz = le32_of(15);
        assert_int_equal(
            rig_call(r, VFIO_GET_IRQ_INFO, &info, sizeof(info), NULL, 0),
            -EINVAL);
    }
}

static void
bad_set_irqs_are_refused(void **state)
{
    enum {
        ET = VFIO_DATA_EVENTFD | VFIO_TRIGGER,
        NT = VFIO_DATA_NONE | VFIO_TRIGGER
    };
    struct rig *r = *state;
    struct vfio_set_irqs s = {le32_of(19), le32_of(NT), le32_of(2), le32_of(0),
                              le32_of(0)};
    int fd[3] = {event_new(), event_new(), event_new()}, pipes[2], before;

    rig_boot(r);
    assert_int_equal(pipe(pipes), 0);
    before = open_fds();
    assert_int_equal(rig_call(r, VFIO_SET_IRQS, &s, sizeof(s), NULL, 0),
                     -EINVAL);
    assert_int_equal(set_raw(r, NT, 5, 0, 0, NULL, 0), -EINVAL);
    /* None or two flags of a group, or one that there is not. */
    assert_int_equal(set_raw(r, VFIO_TRIGGER, 2, 0, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_raw(r, VFIO_DATA_NONE, 2, 0, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_raw(r, NT | VFIO_DATA_EVENTFD, 2, 0, 1, fd, 1),
                     -EINVAL);
    assert_int_equal(set_raw(r, NT | VFIO_UNMASK, 0, 0, 1, NULL, 0), -EINVAL);
    assert_int_equal(set_raw(r, NT | 64, 2, 0, 1, NULL, 0), -EINVAL);
    /* Ranges. */
    assert_int_equal(set_raw(r, ET, 2, VECTORS, 1, fd, 1), -EINVAL);
    assert_int_equal(set_raw(r, ET, 2, VECTORS - 1, 2, fd, 2), -EINVAL);
    assert_int_equal(set_raw(r, NT, 2, UINT32_MAX, 2, NULL, 0), -EINVAL);
    assert_int_equal(set_raw(r, ET, 2, 1, UINT32_MAX, fd, 1), -EINVAL);
    assert_int_equal(set_raw(r, ET, 0, 0, 2, fd, 2), -EINVAL);
    assert_int_equal(set_raw(r, ET, 1, 0, 1, fd, 1), -EINVAL); /* no MSI */
    assert_int_equal(set_raw(r, ET, 3, 0, 1, fd, 1), -EINVAL);
    /* Count 0 means one thing only. */
    assert_int_equal(set_raw(r, NT, 2, 1, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_raw(r, ET, 2, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_raw(r, NT, 2, 0, 0, fd, 1), -EINVAL);
    assert_int_equal(set_raw(r, VFIO_DATA_NONE | VFIO_MASK, 0, 0, 0, NULL, 0),
                     -EINVAL);
    /* Descriptors: as many as vectors, and eventfds. */
    assert_int_equal(set_raw(r, ET, 2, 0, 3, fd, 2), -EINVAL);
    assert_int_equal(set_raw(r, ET, 2, 0, 1, fd, 2), -EINVAL);
    assert_int_equal(set_raw(r, NT, 2, 0, 1, fd, 1), -EINVAL);
    assert_int_equal(set_raw(r, ET, 2, 0, 1, &pipes[1], 1), -EINVAL);
    /* Booleans: a byte for each. */
    assert_int_equal(set_bools(r, VFIO_TRIGGER, 2, 3, "\1\1", 2), -EINVAL);
    assert_int_equal(set_bools(r, VFIO_TRIGGER, 2, 3, "\1\1\1\1", 4), -EINVAL);
    /* Masks are INTx' only. */
    for (uint32_t i = 2; i < 5; i++) {
        assert_int_equal(
            set_raw(r, VFIO_DATA_NONE | VFIO_MASK, i, 0, 1, NULL, 0), -EINVAL);
        assert_int_equal(
            set_raw(r, VFIO_DATA_NONE | VFIO_UNMASK, i, 0, 1, NULL, 0),
            -EINVAL);
    }
    assert_int_equal(set_raw(r, VFIO_DATA_EVENTFD | VFIO_MASK, 0, 0, 1, fd, 1),
                     -EINVAL);
    assert_int_equal(open_fds(), before);
    assert_int_equal(config_read(r, 0, 2), 0x1414);
    for (unsigned i = 0; i < 3; i++)
        close(fd[i]);
    close(pipes[0]);
    close(pipes[1]);
}

static void
vectors_are_signalled(void **state)
{
    struct rig *r = *state;
    int fd[VECTORS];

    rig_boot(r);
    for (unsigned i = 0; i < VECTORS; i++)
        fd[i] = event_new();
    /* 16 in a message, as clients do. */
    assert_int_equal(st_vfio_client_irqs(r->c, false, 0, VECTORS, fd), 0);
    for (unsigned i = 0; i < VECTORS; i += 23)
        reg_write(r, TOY_RAISE, i);
    for (unsigned i = 0; i < VECTORS; i++)
        assert_int_equal(rang(fd[i]), i % 23 == 0);
    /* By the client itself. */
    assert_int_equal(
        set_raw(r, VFIO_DATA_NONE | VFIO_TRIGGER, 2, 3, 2, NULL, 0), 0);
    assert_int_equal(rang(fd[2]) | rang(fd[5]), 0);
    assert_int_equal(rang(fd[3]) & rang(fd[4]), 1);
    assert_int_equal(set_bools(r, VFIO_TRIGGER, 2, 3, "\1\0\1", 3), 0);
    assert_int_equal(rang(fd[0]) & rang(fd[2]), 1);
    assert_int_equal(rang(fd[1]), 0);
    assert_int_equal(rig_stats(r).irqs, 4 + 2 + 2);
    /* Beyond the table nothing happens. */
    reg_write(r, TOY_RAISE, VECTORS);
    for (unsigned i = 0; i < VECTORS; i++)
        close(fd[i]);
}

static uint64_t
read_pba(struct rig *r, unsigned word)
{
    le64 wire;

    assert_int_equal(st_vfio_client_read(r->c, 4, PBA + 8 * word, &wire, 8), 0);
    return le64_get(wire);
}

/* What is raised while there is no eventfd waits for one. */
static void
late_eventfds_get_what_is_pending(void **state)
{
    struct rig *r = *state;
    int fd[2] = {event_new(), event_new()}, other = event_new();

    rig_boot(r);
    reg_write(r, TOY_RAISE, 5);
    reg_write(r, TOY_RAISE, 5);
    reg_write(r, TOY_RAISE, 66);
    assert_int_equal(rig_stats(r).irqs, 0);
    assert_int_equal(rig_stats(r).irqs_pending, 3);
    assert_true(read_pba(r, 0) == UINT64_C(1) << 5);
    assert_true(read_pba(r, 1) == UINT64_C(1) << 2);
    /* Part of a range, later. */
    assert_int_equal(st_vfio_client_irqs(r->c, false, 4, 2, fd), 0);
    assert_int_equal(rang(fd[0]), 0);
    assert_int_equal(rang(fd[1]), 1); /* once */
    assert_true(read_pba(r, 0) == 0);
    /* Replaced while something is pending, then while nothing is. */
    assert_int_equal(st_vfio_client_irqs(r->c, false, 5, 1, NULL), 0);
    reg_write(r, TOY_RAISE, 5);
    assert_int_equal(rang(fd[1]), 0);
    assert_int_equal(st_vfio_client_irqs(r->c, false, 5, 1, &other), 0);
    assert_int_equal(rang(other), 1);
    assert_int_equal(st_vfio_client_irqs(r->c, false, 5, 1, &fd[1]), 0);
    reg_write(r, TOY_RAISE, 5);
    assert_int_equal(rang(fd[1]), 1);
    assert_int_equal(rang(other), 0);
    /* All of them off, and kept meanwhile; as when NORESIZE clients add one. */
    assert_int_equal(
        set_raw(r, VFIO_DATA_NONE | VFIO_TRIGGER, 2, 0, 0, NULL, 0), 0);
    reg_write(r, TOY_RAISE, 4);
    assert_int_equal(st_vfio_client_irqs(r->c, false, 4, 2, fd), 0);
    assert_int_equal(rang(fd[0]), 1);
    assert_int_equal(rang(fd[1]), 0);
    /* MSI-X disabled: the bus keeps it, in the same bits. */
    config_write(r, MSIX_CONTROL, 0, 2);
    reg_write(r, TOY_RAISE, 4);
    assert_int_equal(rang(fd[0]), 0);
    assert_true(read_pba(r, 0) == UINT64_C(1) << 4);
    config_write(r, MSIX_CONTROL, 0x8000, 2);
    assert_int_equal(rang(fd[0]), 1);
    /* A reset forgets. */
    reg_write(r, TOY_RAISE, 6);
    assert_true(read_pba(r, 0) == UINT64_C(1) << 6);
    assert_int_equal(st_vfio_client_reset(r->c), 0);
    config_write(r, COMMAND, 6, 2);
    assert_true(read_pba(r, 0) == 0);
    /* But SET_IRQS stays. */
    config_write(r, MSIX_CONTROL, 0x8000, 2);
    reg_write(r, TOY_RAISE, 4);
    assert_int_equal(rang(fd[0]), 1);
    close(fd[0]);
    close(fd[1]);
    close(other);
}

/* A counter that cannot count any further holds nobody up. */
static void
a_full_eventfd_is_no_obstacle(void **state)
{
    const uint64_t full = UINT64_MAX - 1;
    struct rig *r = *state;
    int fd = eventfd(0, EFD_CLOEXEC); /* one that would block */

    rig_boot(r);
    assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
    assert_int_equal(st_vfio_client_irqs(r->c, false, 0, 1, &fd), 0);
    reg_write(r, TOY_RAISE, 0);
    assert_int_equal(st_vfio_client_irqs(r->c, true, 0, 1, &fd), 0);
    config_write(r, MSIX_CONTROL, 0, 2);
    reg_write(r, TOY_LINE, 1);
    assert_int_equal(config_read(r, 0, 2), 0x1414);
    close(fd);
}

/* ---- INTx ---- */

static void
intx_is_a_level(void **state)
{
    struct rig *r = *state;
    int fd = event_new(), next = event_new();

    rig_boot(r);
    config_write(r, MSIX_CONTROL, 0, 2);
    assert_int_equal(st_vfio_client_irqs(r->c, true, 0, 1, &fd), 0);
    reg_write(r, TOY_LINE, 1);
    assert_int_equal(rang(fd), 1);
    /* It masked itself: still up, fires at UNMASK only. */
    reg_write(r, TOY_LINE, 0);
    reg_write(r, TOY_LINE, 1);
    assert_int_equal(rang(fd), 0);
    assert_int_equal(set_raw(r, VFIO_DATA_NONE | VFIO_UNMASK, 0, 0, 1, NULL, 0),
                     0);
    assert_int_equal(rang(fd), 1);
    assert_int_equal(set_bools(r, VFIO_UNMASK, 0, 1, "\0", 1), 0);
    assert_int_equal(rang(fd), 0);
    assert_int_equal(set_bools(r, VFIO_UNMASK, 0, 1, "\1", 1), 0);
    assert_int_equal(rang(fd), 1);
    /* The guest has acknowledged: UNMASK alone is not a reason. */
    reg_write(r, TOY_LINE, 0);
    assert_int_equal(set_raw(r, VFIO_DATA_NONE | VFIO_UNMASK, 0, 0, 1, NULL, 0),
                     0);
    assert_int_equal(rang(fd), 0);
    /* Masked by the client. */
    assert_int_equal(set_raw(r, VFIO_DATA_NONE | VFIO_MASK, 0, 0, 1, NULL, 0),
                     0);
    reg_write(r, TOY_LINE, 1);
    assert_int_equal(rang(fd), 0);
    /* Detached while up, and attached again. */
    assert_int_equal(
        set_raw(r, VFIO_DATA_NONE | VFIO_TRIGGER, 0, 0, 0, NULL, 0), 0);
    assert_int_equal(st_vfio_client_irqs(r->c, true, 0, 1, &next), 0);
    assert_int_equal(rang(next), 1);
    assert_int_equal(rang(fd), 0);
    /* By the client itself, line or no line. */
    reg_write(r, TOY_LINE, 0);
    assert_int_equal(
        set_raw(r, VFIO_DATA_NONE | VFIO_TRIGGER, 0, 0, 1, NULL, 0), 0);
    assert_int_equal(rang(next), 1);
    close(fd);
    close(next);
}

/* KVM says by an eventfd that the guest is done. */
static void
resample_unmasks(void **state)
{
    enum { RESAMPLE = VFIO_DATA_EVENTFD | VFIO_UNMASK };
    const uint64_t one = 1;
    struct rig *r = *state;
    int fd = event_new(), again = event_new();

    rig_boot(r);
    config_write(r, MSIX_CONTROL, 0, 2);
    assert_int_equal(st_vfio_client_irqs(r->c, true, 0, 1, &fd), 0);
    assert_int_equal(set_raw(r, RESAMPLE, 0, 0, 1, &again, 1), 0);
    reg_write(r, TOY_LINE, 1);
    assert_int_equal(rang(fd), 1);
    for (unsigned i = 0; i < 20; i++) { /* still up: again and again */
        assert_int_equal(write(again, &one, sizeof(one)), sizeof(one));
        RIG_WAIT(rang(fd) == 1);
    }
    /* Replaced, and taken away. */
    assert_int_equal(set_raw(r, RESAMPLE, 0, 0, 1, &again, 1), 0);
    assert_int_equal(write(again, &one, sizeof(one)), sizeof(one));
    RIG_WAIT(rang(fd) == 1);
    assert_int_equal(set_raw(r, RESAMPLE, 0, 0, 1, NULL, 0), 0);
    assert_int_equal(write(again, &one, sizeof(one)), sizeof(one));
    usleep(10000);
    assert_int_equal(rang(fd), 0);
    close(fd);
    close(again);
}

/* ---- Races ---- */

/* A device that raises its next interrupt as soon as the last one was seen. */
struct race {
    struct rig *rig;
    struct st_task task;
    _Atomic uint64_t raised, seen;
    _Atomic bool stop, over;
};

static void
race_run(struct st_task *t)
{
    struct race *x = st_container(t, struct race, task);

    if (atomic_load(&x->stop)) {
        atomic_store(&x->over, true);
        return;
    }
    if (atomic_load(&x->seen) == atomic_load(&x->raised)) {
        atomic_fetch_add(&x->raised, 1);
        st_pci_raise(&x->rig->toy.pci, 0);
    }
    st_ready(x->rig->io, &x->task);
}

/* A new eventfd every time; the old one is looked at once more when it is
 * detached, then never again. Were one interrupt lost, no other would come. */
static void
no_interrupt_is_lost(void **state)
{
    enum { INTERRUPTS = 10000, PATIENCE = 10000 };
    struct rig *r = *state;
    struct race x = {.rig = r, .task.run = race_run};
    unsigned idle = 0;

    rig_boot(r);
    st_post(r->io, &x.task);
    for (unsigned turn = 0; atomic_load(&x.seen) < INTERRUPTS; turn++) {
        uint64_t seen = atomic_load(&x.seen);
        int fd = event_new();

        assert_int_equal(st_vfio_client_irqs(r->c, false, 0, 1, &fd), 0);
        for (unsigned i = 0; i < turn % 64; i++)
            if (rang(fd))
                atomic_store(&x.seen, atomic_load(&x.raised));
        assert_int_equal(st_vfio_client_irqs(r->c, false, 0, 1, NULL), 0);
        if (rang(fd))
            atomic_store(&x.seen, atomic_load(&x.raised));
        close(fd);
        idle = atomic_load(&x.seen) == seen ? idle + 1 : 0;
        assert_true(idle < PATIENCE);
    }
    atomic_store(&x.stop, true);
    RIG_WAIT(atomic_load(&x.over));
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(interrupts_are_described),
        RIG_TEST(bad_set_irqs_are_refused),
        RIG_TEST(vectors_are_signalled),
        RIG_TEST(late_eventfds_get_what_is_pending),
        RIG_TEST(a_full_eventfd_is_no_obstacle),
        RIG_TEST(intx_is_a_level),
        RIG_TEST(resample_unmasks),
        RIG_TEST(no_interrupt_is_lost),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
