/* SPDX-License-Identifier: MIT
 *
 * strata bench vfio-user: what a controller in another process costs, driven as
 * a guest would (nvme_driver.h).
 *
 *   main's thread:   the driver, the clock, progress, signals
 *   thread 0..n-1:   a queue pair: submit, ring, then look for completions for
 *                    up to poll_us, then sleep until its interrupt
 *
 * Only the first slot of a queue is timed, as `bench disk` does.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "mem.h"
#include "nvme_driver.h"
#include "rand.h"

#define SECOND UINT64_C(1000000000)
enum { STUCK_MS = 10000 }; /* no completion for so long: it will not come */

struct lane {
    struct bench *bench;
    pthread_t thread;
    bool started;
    unsigned q, out; /* commands under way */
    struct st_rand rand;
    uint64_t next;  /* block, of sequential modes */
    uint64_t timed; /* ns: when slot 0 began */
    struct st_hist latency;
    _Atomic uint64_t reads, writes; /* done; this thread's to add */
    bool is_write[ST_NVME_DRIVER_DEPTH];
    char error[160];
};

struct bench {
    const struct bench_opts *opts;
    struct st_nvme_driver *driver;
    const struct st_nvme_driver_info *info;
    unsigned per;      /* logical blocks of a request */
    uint64_t requests; /* places for one */
    _Atomic bool stop;
    struct lane *lane; /* owned */
};

/* ---- A queue, on its thread ---- */

static void
lane_submit(struct lane *l, unsigned slot)
{
    struct bench *b = l->bench;
    const struct bench_mode *m = b->opts->mode;
    uint64_t at = m->random ? st_rand_below(&l->rand, b->requests)
                            : l->next++ % b->requests;
    bool write = m->write && (!m->read || st_rand_next(&l->rand) >> 63);

    if (slot == 0)
        l->timed = bench_clock(CLOCK_MONOTONIC);
    l->is_write[slot] = write;
    l->out++;
    st_nvme_driver_submit(b->driver, l->q, slot, write ? NVME_WRITE : NVME_READ,
                          at * b->per, b->per, b->opts->bs);
}

/* Take what is there, put as much in again. The number, or -errno with a
 * sentence. */
static int
lane_reap(struct lane *l)
{
    struct bench *b = l->bench;
    bool more = !atomic_load_explicit(&b->stop, memory_order_relaxed);
    uint64_t reads = 0, writes = 0;
    uint16_t status;
    int slot, rc;

    while ((slot = st_nvme_driver_reap(b->driver, l->q, &status)) >= 0) {
        l->out--;
        if (status) {
            snprintf(l->error, sizeof(l->error), "a request failed: status %xh",
                     status);
            return -EIO;
        }
        if (slot == 0)
            st_hist_add(&l->latency, bench_clock(CLOCK_MONOTONIC) - l->timed);
        *(l->is_write[slot] ? &writes : &reads) += 1;
        if (more)
            lane_submit(l, (unsigned)slot);
    }
    if (!(reads + writes))
        return 0;
    atomic_fetch_add_explicit(&l->reads, reads, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->writes, writes, memory_order_relaxed);
    rc = st_nvme_driver_reaped(b->driver, l->q);
    if (rc == 0)
        rc = st_nvme_driver_ring(b->driver, l->q);
    return rc < 0 ? rc : (int)(reads + writes);
}

/* Look for up to poll_us, then sleep. As lane_reap. */
static int
lane_wait(struct lane *l)
{
    uint64_t spin = l->bench->opts->poll_us * UINT64_C(1000);
    uint64_t begun = spin ? bench_clock(CLOCK_MONOTONIC) : 0;
    int rc;

    do {
        rc = lane_reap(l);
        if (rc)
            return rc;
    } while (spin && bench_clock(CLOCK_MONOTONIC) - begun < spin);
    rc = st_nvme_driver_wait(l->bench->driver, l->q, STUCK_MS);
    return rc < 0 ? rc : lane_reap(l);
}

static void *
lane_run(void *arg)
{
    struct lane *l = arg;
    struct bench *b = l->bench;
    int rc;

    for (unsigned slot = 0; slot < b->opts->iodepth; slot++)
        lane_submit(l, slot);
    rc = st_nvme_driver_ring(b->driver, l->q);
    while (rc >= 0 && l->out)
        rc = lane_wait(l);
    if (rc < 0) {
        if (!*l->error)
            snprintf(l->error, sizeof(l->error), "%s",
                     rc == -ETIMEDOUT ? "no request ends any more"
                                      : st_strerror(rc));
        atomic_store(&b->stop, true);
    }
    return NULL;
}

/* ---- Control ---- */

static uint64_t
ops_of(const struct bench *b, uint64_t *reads, uint64_t *writes)
{
    *reads = *writes = 0;
    for (unsigned i = 0; i < b->opts->queues; i++) {
        *reads += atomic_load(&b->lane[i].reads);
        *writes += atomic_load(&b->lane[i].writes);
    }
    return *reads + *writes;
}

/* CPU time of all threads of process PID in ns, or 0. */
static uint64_t
cpu_of(int pid)
{
    clockid_t id;

    return pid && clock_getcpuclockid(pid, &id) == 0 ? bench_clock(id) : 0;
}

/* Until the time is up, a signal comes or a queue gives up. */
static void
wait_end(struct bench *b, const sigset_t *signals)
{
    struct timespec left = {.tv_nsec = 100000000};
    uint64_t end = bench_clock(CLOCK_MONOTONIC) + b->opts->seconds * SECOND;
    uint64_t told = 0, last = 0, reads, writes;

    while (!atomic_load(&b->stop) && bench_clock(CLOCK_MONOTONIC) < end) {
        if (sigtimedwait(signals, NULL, &left) > 0)
            break;
        if (!isatty(STDERR_FILENO) || ++told % 10)
            continue;
        ops_of(b, &reads, &writes);
        fprintf(stderr, "\r%ju IOPS\033[K", (uintmax_t)(reads + writes - last));
        last = reads + writes;
    }
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    atomic_store(&b->stop, true);
}

static int
start(struct bench *b)
{
    unsigned n = b->opts->queues;

    for (unsigned i = 0; i < n; i++) {
        struct lane *l = &b->lane[i];

        l->bench = b;
        l->q = i;
        l->rand = st_rand_seed(i);
        l->next = b->requests * i / n;
        for (unsigned slot = 0; slot < b->opts->iodepth; slot++) {
            uint64_t *p = st_nvme_driver_data(b->driver, i, slot);

            for (uint64_t k = 0; k < b->opts->bs / 8; k++)
                p[k] = st_rand_next(&l->rand);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        int rc =
            pthread_create(&b->lane[i].thread, NULL, lane_run, &b->lane[i]);

        if (rc) {
            atomic_store(&b->stop, true);
            return st_cmd_fail(ST_EXIT_FAILED, "cannot start a thread: %s",
                               st_strerror(-rc));
        }
        b->lane[i].started = true;
    }
    return 0;
}

static int
finish(struct bench *b, struct bench_report *r)
{
    int status = 0;

    for (unsigned i = 0; i < b->opts->queues; i++) {
        struct lane *l = &b->lane[i];
        const struct st_nvme_driver_counts *c;

        if (!l->started)
            continue;
        pthread_join(l->thread, NULL);
        c = st_nvme_driver_counts(b->driver, i);
        r->rings += c->doorbells;
        r->interrupts += c->interrupts;
        st_hist_merge(&r->latency, &l->latency);
        if (*l->error && !status)
            status = st_cmd_fail(ST_EXIT_FAILED, "'%s': %s", b->opts->what,
                                 l->error);
    }
    return status;
}

static int
measure(struct bench *b)
{
    struct bench_report r = {.jobs_name = "queues",
                             .jobs = b->opts->queues,
                             .doorbells = b->info->doorbells,
                             .server_cpu_ns = -1};
    uint64_t begun, cpu, server;
    sigset_t signals;
    int status, end;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    server = cpu_of(b->info->pid);
    begun = bench_clock(CLOCK_MONOTONIC);
    status = start(b);
    if (!status)
        wait_end(b, &signals);
    end = finish(b, &r);
    if (status || end)
        return status ? status : end;
    r.seconds = (double)(bench_clock(CLOCK_MONOTONIC) - begun) / SECOND;
    r.cpu_ns = (double)(bench_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    if (server)
        r.server_cpu_ns = (double)(cpu_of(b->info->pid) - server);
    ops_of(b, &r.reads, &r.writes);
    bench_print(b->opts, &r);
    return 0;
}

/* ---- The command ---- */

static int
check(struct bench *b)
{
    const struct bench_opts *o = b->opts;

    if (o->bs % b->info->block)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "--bs %ju is no multiple of the logical block, %u",
                           (uintmax_t)o->bs, b->info->block);
    b->per = (unsigned)(o->bs / b->info->block);
    b->requests = b->info->blocks / b->per;
    if (!b->requests)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "the namespace of '%s' is smaller than --bs",
                           o->what);
    return 0;
}

int
bench_vfio_user(const struct bench_opts *o)
{
    const struct st_nvme_driver_opts d = {.path = o->what,
                                          .queues = o->queues,
                                          .depth = o->iodepth,
                                          .bytes = o->bs,
                                          .nsid = 1};
    struct bench b = {.opts = o};
    struct st_err err;
    int rc, status;

    if (o->bs > ST_NVME_DRIVER_BYTES || o->iodepth > ST_NVME_DRIVER_DEPTH)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "a controller takes --bs up to 1M, and --iodepth up "
                           "to %d",
                           ST_NVME_DRIVER_DEPTH);
    rc = st_nvme_driver_open(&d, &b.driver, &err);
    if (rc < 0)
        return st_cmd_fail_rc(rc, &err);
    b.info = st_nvme_driver_info(b.driver);
    b.lane = calloc(o->queues, sizeof(*b.lane));
    status = b.lane ? check(&b) : st_cmd_fail(ST_EXIT_FAILED, "no memory");
    if (!status)
        status = measure(&b);
    st_nvme_driver_close(b.driver);
    free(b.lane);
    return status;
}
