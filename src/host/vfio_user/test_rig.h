/* SPDX-License-Identifier: MIT
 *
 * A toy PCI device behind a real door on real loops, and a client of it.
 *
 *   this thread: client       loop "door": socket, registers
 *                             loop "io": DMA, what is deferred, interrupts
 *
 * Registers of BAR 0 are 8 bytes each; see enum toy_register. MSI-X lies in
 * BAR 4, the function has an interrupt pin, doorbells begin at 0x1000.
 */
#ifndef VFIO_TEST_RIG_H
#define VFIO_TEST_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mem.h"
#include "vfio_client.h"
#include "vfio_proto.h"
#include "vfio_user.h"

enum {
    VECTORS = 70,
    PBA = 0x800,
    PAGE = 4096,
    BAR_SIZE = 16384,
    ARENA = 64 * PAGE,
    COMMAND = 0x04, /* in configuration space */
    BAR0 = 0x10,
    MSIX_CONTROL = 0x42, /* the one capability is at 0x40 */
};

/* Writes to the ones marked D are deferred: the io loop carries them out. */
enum toy_register {
    TOY_SCRATCH = 0x00,
    TOY_RAISE = 0x08,   /* D: raise the vector of that number */
    TOY_LINE = 0x10,    /* D: INTx up or down */
    TOY_ADDRESS = 0x18, /* for the next ones */
    TOY_COPY = 0x20,    /* D: invert so many bytes at ADDRESS to behind them */
    TOY_RESULT = 0x28,  /* of COPY, HOLD and the like: -errno, or 0 */
    TOY_HOLD = 0x30,    /* D: use so many bytes at ADDRESS until RELEASE */
    TOY_RELEASE = 0x38, /* D */
    TOY_STUCK = 0x40,   /* read or written: deferred until the test says so */
    TOY_HOTS = 0x48,    /* doorbells that were written */
    TOY_WATCH = 0x50,   /* D: look at ADDRESS all the time; 0: no more */
    TOY_GONE = 0x58,    /* so often it was not there */
    TOY_DOORBELLS = 0x1000,
};

struct toy {
    struct st_pci pci; /* first */
    struct st_loop *io;
    struct st_gmem *gmem;
    struct st_gmem_view *view; /* io's */
    _Atomic uint64_t scratch, address, result, hots, last_hot, gone;
    _Atomic unsigned resets, masters;
    _Atomic bool reset_stuck, copy_faulted;
    struct st_access *_Atomic stuck; /* a register, or a reset */
    /* io's. */
    struct st_gmem_use use;
    bool held, watching;
    struct st_task watch;
};

/* What is carried out on the io loop. */
struct toy_work {
    struct st_task task;
    struct toy *toy;
    struct st_access *access;
    uint64_t offset, value;
};

struct rig {
    struct st_domain *d;
    struct st_loop *door, *io;
    struct st_gmem *gmem;
    struct toy toy;
    struct st_vfio_user *v;
    struct st_log log;
    pthread_mutex_t log_lock;
    char said[8192];
    unsigned lines;
    char dir[32], path[64];
    int fds_before;
    _Atomic unsigned came, left;
    _Atomic bool stopped;
    struct st_vfio_client *c;
    uint8_t *ram; /* the client's arena */
};

/* ---- The device ---- */

static void
toy_watch_run(struct st_task *t)
{
    struct toy *toy = st_container(t, struct toy, watch);

    if (!toy->watching)
        return;
    if (!st_gmem_peek(toy->view, atomic_load(&toy->address), 8, false))
        atomic_fetch_add(&toy->gone, 1);
    st_ready(toy->io, &toy->watch);
}

static void
toy_release(struct toy *toy)
{
    if (toy->held)
        st_gmem_put(toy->view, &toy->use);
    toy->held = false;
}

static int
toy_copy(struct toy *toy, uint64_t address, uint64_t len)
{
    uint8_t *buf = malloc(len);
    int rc = buf ? st_gmem_read(toy->view, address, buf, len) : -ENOMEM;

    for (uint64_t i = 0; rc == 0 && i < len; i++)
        buf[i] = (uint8_t)~buf[i];
    if (rc == 0)
        rc = st_gmem_write(toy->view, address + len, buf, len);
    free(buf);
    return rc;
}

static void
toy_work_run(struct st_task *t)
{
    struct toy_work *w = st_container(t, struct toy_work, task);
    struct toy *toy = w->toy;
    uint64_t address = atomic_load(&toy->address);
    struct iovec iov[8];
    unsigned n = 0;
    int rc = 0;

    switch (w->offset) {
    case TOY_RAISE:
        st_pci_raise(&toy->pci, (unsigned)w->value);
        break;
    case TOY_LINE:
        st_pci_line(&toy->pci, w->value);
        break;
    case TOY_COPY:
        rc = toy_copy(toy, address, w->value);
        break;
    case TOY_HOLD:
        rc = st_gmem_get(toy->view, &toy->use, address, w->value, true, iov, &n,
                         8);
        toy->held |= rc == 0;
        break;
    case TOY_RELEASE:
        toy_release(toy);
        break;
    case TOY_WATCH:
        if (w->value && !toy->watching) {
            toy->watching = true;
            st_ready(toy->io, &toy->watch);
        } else {
            toy->watching = w->value;
        }
        break;
    default: /* reset */
        toy_release(toy);
        toy->watching = false;
        st_pci_line(&toy->pci, false);
    }
    atomic_store(&toy->result, (uint64_t)-rc);
    if (w->access)
        st_access_done(w->access);
    free(w);
}

/* Post it to the io loop; A is done when it is. */
static void
toy_post(struct toy *toy, struct st_access *a, uint64_t offset, uint64_t value)
{
    struct toy_work *w = malloc(sizeof(*w));

    if (!w)
        abort();
    *w = (struct toy_work){.task.run = toy_work_run,
                           .toy = toy,
                           .access = a,
                           .offset = offset,
                           .value = value};
    st_post(toy->io, &w->task);
}

static bool
toy_write(struct toy *toy, struct st_access *a)
{
    switch (a->offset) {
    case TOY_SCRATCH ... TOY_SCRATCH + 7: {
        unsigned shift = 8 * (a->offset & 7);
        uint64_t ones =
            a->len == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * a->len) - 1;

        atomic_store(&toy->scratch,
                     (atomic_load(&toy->scratch) & ~(ones << shift)) |
                         (a->value & ones) << shift);
        return true;
    }
    case TOY_ADDRESS:
        atomic_store(&toy->address, a->value);
        return true;
    case TOY_STUCK:
        atomic_store(&toy->stuck, a);
        return false;
    case TOY_RAISE:
    case TOY_LINE:
    case TOY_COPY:
    case TOY_HOLD:
    case TOY_RELEASE:
    case TOY_WATCH:
        toy_post(toy, a, a->offset, a->value);
        return false;
    }
    return true;
}

static bool
toy_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    struct toy *toy = (struct toy *)p;
    uint64_t reg = a->offset & ~UINT64_C(7);
    unsigned shift = 8 * (a->offset & 7);

    if (bar != 0) {
        a->value = a->write ? a->value : 0;
        return true;
    }
    if (a->write)
        return toy_write(toy, a);
    switch (reg) {
    case TOY_SCRATCH:
        a->value = atomic_load(&toy->scratch) >> shift;
        return true;
    case TOY_RESULT:
        a->value = atomic_load(&toy->result) >> shift;
        return true;
    case TOY_HOTS:
        a->value = atomic_load(&toy->hots) >> shift;
        return true;
    case TOY_GONE:
        a->value = atomic_load(&toy->gone) >> shift;
        return true;
    case TOY_STUCK:
        atomic_store(&toy->stuck, a);
        return false;
    }
    a->value = 0;
    return true;
}

static bool
toy_hot(struct st_pci *p, unsigned bar, const struct st_access *a)
{
    struct toy *toy = (struct toy *)p;

    if (bar != 0 || a->offset < TOY_DOORBELLS)
        return false;
    atomic_fetch_add(&toy->hots, 1);
    atomic_store(&toy->last_hot, a->value);
    return true;
}

static void
toy_enabled(struct st_pci *p, bool master)
{
    (void)master;
    atomic_fetch_add(&((struct toy *)p)->masters, 1);
}

static bool
toy_reset(struct st_pci *p, struct st_access *a)
{
    struct toy *toy = (struct toy *)p;

    atomic_fetch_add(&toy->resets, 1);
    atomic_store(&toy->scratch, 0);
    atomic_store(&toy->hots, 0);
    if (atomic_exchange(&toy->reset_stuck, false))
        atomic_store(&toy->stuck, a);
    else
        toy_post(toy, a, UINT64_MAX, 0);
    return false;
}

static const struct st_pci_ops toy_ops = {.name = "toy",
                                          .access = toy_access,
                                          .hot = toy_hot,
                                          .enabled = toy_enabled,
                                          .reset = toy_reset};

/* ---- The rig ---- */

static int
open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static void
rig_log(void *arg, enum st_level level, const char *line)
{
    struct rig *r = arg;
    size_t had;

    (void)level;
    pthread_mutex_lock(&r->log_lock);
    had = strlen(r->said);
    snprintf(r->said + had, sizeof(r->said) - had, "%s\n", line);
    r->lines++;
    pthread_mutex_unlock(&r->log_lock);
}

/* How often the log says WHAT. */
static inline unsigned
rig_said(struct rig *r, const char *what)
{
    unsigned n = 0;

    pthread_mutex_lock(&r->log_lock);
    for (const char *p = r->said; (p = strstr(p, what)); p++)
        n++;
    pthread_mutex_unlock(&r->log_lock);
    return n;
}

static void
rig_client(void *arg, bool connected)
{
    struct rig *r = arg;

    atomic_fetch_add(connected ? &r->came : &r->left, 1);
}

struct rig_call {
    struct st_task task;
    void (*fn)(struct rig *r);
    struct rig *rig;
    sem_t over;
};

static void
rig_call_run(struct st_task *t)
{
    struct rig_call *c = st_container(t, struct rig_call, task);

    c->fn(c->rig);
    sem_post(&c->over);
}

/* Call FN on LOOP, and wait for it. */
static void
rig_on(struct rig *r, struct st_loop *loop, void (*fn)(struct rig *r))
{
    struct rig_call c = {.task.run = rig_call_run, .fn = fn, .rig = r};

    sem_init(&c.over, 0, 0);
    st_post(loop, &c.task);
    while (sem_wait(&c.over) < 0)
        ;
    sem_destroy(&c.over);
}

static inline struct st_vfio_user_stats
rig_stats(struct rig *r)
{
    struct st_vfio_user_stats s;

    st_vfio_user_stats(r->v, &s);
    return s;
}

/* Wait until COND holds; a minute is never. */
#define RIG_WAIT(cond)                                                         \
    do {                                                                       \
        for (unsigned rig_i = 0; !(cond); rig_i++) {                           \
            assert_true(rig_i < 60000);                                        \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

static void
rig_stopped(void *arg)
{
    atomic_store(&((struct rig *)arg)->stopped, true);
}

static void
rig_stop(struct rig *r)
{
    st_vfio_user_stop(r->v, rig_stopped, r);
}

static void
rig_cut(struct rig *r)
{
    st_vfio_user_cut(r->v);
}

static void
rig_view_open(struct rig *r)
{
    r->toy.view = st_gmem_open(r->gmem, r->io);
}

static void
rig_view_close(struct rig *r)
{
    toy_release(&r->toy);
    st_gmem_close(r->toy.view);
}

static int
rig_listen(struct rig *r)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(r->dir, "/tmp/vfio-user-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof(r->path), "%s/s", r->dir);
    strcpy(a.sun_path, r->path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

/* A door with OPTS (what of it is not the rig's) on ENGINE. */
static struct rig *
rig_new(const char *engine, const struct st_vfio_user_opts *opts)
{
    const struct st_pci_id id = {0x1414, 0x0007, 0x1414, 7, 0x088000, 1};
    struct rig *r = calloc(1, sizeof(*r));
    struct st_domain_opts dopts = {.engine = engine};
    struct st_vfio_user_opts o = *opts;
    struct st_err err;

    r->fds_before = open_fds();
    pthread_mutex_init(&r->log_lock, NULL);
    r->log = (struct st_log){ST_LOG_DEBUG, rig_log, r};
    assert_int_equal(st_domain_create(&dopts, &r->d, NULL), 0);
    assert_int_equal(st_loop_create(r->d, &r->door, NULL), 0);
    assert_int_equal(st_loop_create(r->d, &r->io, NULL), 0);
    r->gmem = st_gmem_create(r->door);
    r->toy.io = r->io;
    r->toy.gmem = r->gmem;
    r->toy.watch.run = toy_watch_run;
    st_pci_init(&r->toy.pci, &toy_ops, &id);
    st_pci_add_bar(&r->toy.pci, 0, BAR_SIZE, ST_PCI_BAR_64);
    st_pci_add_bar(&r->toy.pci, 4, 4096, 0);
    assert_int_equal(st_pci_add_msix(&r->toy.pci, VECTORS, 4, 0, PBA), 0);
    st_pci_add_intx(&r->toy.pci);
    o.loop = r->door;
    o.pci = &r->toy.pci;
    o.gmem = r->gmem;
    o.log = &r->log;
    o.name = "toy";
    o.client = rig_client;
    o.arg = r;
    if (st_vfio_user_create(&o, rig_listen(r), &r->v, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(st_loop_start(r->io, "io"), 0);
    assert_int_equal(st_loop_start(r->door, "door"), 0);
    rig_on(r, r->io, rig_view_open);
    assert_non_null(r->toy.view);
    return r;
}

/* The client disconnects, and nothing of it is left. */
static inline void
rig_leave(struct rig *r)
{
    st_vfio_client_close(r->c);
    r->c = NULL;
    RIG_WAIT(atomic_load(&r->left) == atomic_load(&r->came));
}

/* The door has closed the connection FD, and said nothing any more. */
static inline void
rig_closed(int fd)
{
    char byte;
    ssize_t n;

    do
        n = recv(fd, &byte, 1, 0);
    while (n < 0 && errno == EINTR);
    assert_int_equal(n, 0);
}

static void
rig_free(struct rig *r)
{
    int before = r->fds_before;

    st_vfio_client_close(r->c);
    if (!atomic_load(&r->stopped) && r->v)
        rig_on(r, r->door, rig_stop);
    /* A test that failed may have left a client behind. */
    for (unsigned i = 0; i < 2000 && !atomic_load(&r->stopped); i++)
        usleep(1000);
    if (!atomic_load(&r->stopped))
        rig_on(r, r->door, rig_cut);
    RIG_WAIT(atomic_load(&r->stopped));
    rig_on(r, r->io, rig_view_close);
    st_loop_join(r->door);
    st_loop_join(r->io);
    st_vfio_user_destroy(r->v);
    st_pci_fini(&r->toy.pci);
    st_gmem_destroy(r->gmem);
    st_loop_destroy(r->io);
    st_loop_destroy(r->door);
    st_domain_destroy(r->d);
    pthread_mutex_destroy(&r->log_lock);
    unlink(r->path);
    rmdir(r->dir);
    free(r);
    assert_int_equal(open_fds(), before);
}

static inline void
rig_connect(struct rig *r)
{
    struct st_err err = {""};
    void *ram;

    if (st_vfio_client_connect(r->path, false, &r->c, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(st_vfio_client_arena(r->c, ARENA, &ram), 0);
    r->ram = ram;
}

/* Write a register, and be sure that it was. */
static inline void
reg_write(struct rig *r, unsigned reg, uint64_t value)
{
    le64 wire = le64_of(value);

    assert_int_equal(st_vfio_client_write(r->c, 0, reg, &wire, 8), 0);
}

static inline uint64_t
reg_read(struct rig *r, unsigned reg)
{
    le64 wire;

    assert_int_equal(st_vfio_client_read(r->c, 0, reg, &wire, 8), 0);
    return le64_get(wire);
}

static inline void
config_write(struct rig *r, unsigned at, uint32_t value, unsigned len)
{
    le32 wire = le32_of(value);

    assert_int_equal(st_vfio_client_write(r->c, VFIO_CONFIG, at, &wire, len),
                     0);
}

static inline uint32_t
config_read(struct rig *r, unsigned at, unsigned len)
{
    le32 wire = {{0}};

    assert_int_equal(st_vfio_client_read(r->c, VFIO_CONFIG, at, &wire, len), 0);
    return le32_get(wire);
}

/* Connect, share the arena at 0, and switch the device on. */
static inline void
rig_boot(struct rig *r)
{
    rig_connect(r);
    assert_int_equal(st_vfio_client_map(r->c, 0, 0, ARENA, true), 0);
    config_write(r, COMMAND, 6, 2); /* memory, bus master */
    config_write(r, MSIX_CONTROL, 0x8000, 2);
}

/* Let what is stuck go on. */
static inline void
rig_unstick(struct rig *r)
{
    struct st_access *a;

    RIG_WAIT((a = atomic_exchange(&r->toy.stuck, NULL)));
    toy_post(&r->toy, a, UINT64_MAX, 0);
}

/* One struct to the door; what it answers is -errno, or 0. */
static inline int
rig_call(struct rig *r, unsigned command, const void *out, size_t len,
         const int *fds, unsigned nfds)
{
    uint8_t in[512];
    struct st_vfio_call call = {.command = command,
                                .out = out,
                                .out_len = len,
                                .fds = fds,
                                .nfds = nfds,
                                .in = in,
                                .in_max = sizeof(in)};
    int rc = st_vfio_client_call(r->c, &call);

    if (call.in_fd >= 0)
        close(call.in_fd);
    return rc;
}

/* ---- Every test on both engines ---- */

static int
rig_setup(void **state)
{
    static const struct st_vfio_user_opts none = {0};

    *state = rig_new(*state, &none);
    return 0;
}

static int
rig_teardown(void **state)
{
    rig_free(*state);
    return 0;
}

#define RIG_TEST_ON(f, engine, setup)                                          \
    {                                                                          \
#f " (" engine ")", f, setup, rig_teardown, (void *)(uintptr_t)engine  \
    }
#define RIG_TEST_WITH(f, setup)                                                \
    RIG_TEST_ON(f, "auto", setup), RIG_TEST_ON(f, "threads", setup)
#define RIG_TEST(f) RIG_TEST_WITH(f, rig_setup)

#endif
