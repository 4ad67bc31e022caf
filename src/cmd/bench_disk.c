/* SPDX-License-Identifier: MIT
 *
 * strata bench disk: what a stack costs, without any door.
 *
 *   main's thread:  control loop: the disk, the clock, progress, SIGINT
 *   job 0..n-1:     a loop, a thread, a channel, and iodepth slots that are
 *                   submitted again as soon as they are done
 *
 * The disk itself counts. To time a request costs about as much as an empty
 * disk, so only the first slot of each job is timed.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "mem.h"
#include "rand.h"

enum { JOBS_MAX = 64 };
#define SECOND UINT64_C(1000000000)

struct job {
    struct bench *bench;
    struct st_loop *loop;
    struct st_chan *chan;
    struct st_task begin, ended;
    struct st_rand rand;
    uint64_t next;     /* block, of sequential modes */
    unsigned out;      /* requests under way */
    char *reqs;        /* owned; room for iodepth */
    void *data;        /* owned; a block for each */
    struct iovec *iov; /* owned; one for each */
    uint64_t started;  /* ns, the first slot */
    struct st_hist latency;
};

struct bench {
    struct st_cmd_world world;
    const struct bench_opts *opts;
    const char *spec;
    struct st_disk *disk;
    const struct bench_mode *mode;
    uint64_t bs, blocks;
    unsigned iodepth, njobs, seconds;
    struct job job[JOBS_MAX];
    unsigned running;
    bool over;
    _Atomic bool stop;
    _Atomic int failed; /* a status that was not ST_OK */
    struct st_timer tick;
    uint64_t begun_ns, cpu_ns, last_ops;
};

/* ---- A job, on its loop ---- */

static void
job_end(struct job *j)
{
    if (j->chan)
        st_disk_close_chan(j->chan);
    st_post(j->bench->world.home, &j->ended);
}

static void
job_submit(struct job *j, struct st_req *req)
{
    const struct bench_mode *m = j->bench->mode;
    uint64_t block = m->random ? st_rand_below(&j->rand, j->bench->blocks)
                               : j->next++ % j->bench->blocks;
    bool write = m->write && (!m->read || st_rand_next(&j->rand) >> 63);

    req->op = write ? ST_OP_WRITE : ST_OP_READ;
    req->offset = block * j->bench->bs;
    req->len = j->bench->bs;
    if ((char *)req == j->reqs)
        j->started = bench_clock(CLOCK_MONOTONIC);
    j->out++;
    st_submit(j->chan, req);
}

static void
job_fail(struct job *j, int status)
{
    atomic_store(&j->bench->failed, status);
    atomic_store(&j->bench->stop, true);
}

static void
job_done(struct st_req *req)
{
    struct job *j = req->owner;

    j->out--;
    if ((char *)req == j->reqs)
        st_hist_add(&j->latency, bench_clock(CLOCK_MONOTONIC) - j->started);
    if (req->status != ST_OK)
        job_fail(j, req->status);
    if (!atomic_load_explicit(&j->bench->stop, memory_order_relaxed))
        job_submit(j, req);
    else if (j->out == 0)
        job_end(j);
}

static void
job_begin(struct st_task *t)
{
    struct job *j = st_container(t, struct job, begin);
    struct bench *b = j->bench;
    unsigned frames = st_disk_frames(b->disk);

    if (st_disk_open_chan(b->disk, j->loop, &j->chan) < 0) {
        j->chan = NULL;
        job_fail(j, ST_IO);
        job_end(j);
        return;
    }
    for (unsigned i = 0; i < b->iodepth; i++) {
        struct st_req *req = (void *)(j->reqs + i * st_req_size(frames));

        st_req_init(req, frames, job_done, j);
        j->iov[i] = (struct iovec){(char *)j->data + i * b->bs, b->bs};
        req->buf.iov = &j->iov[i];
        job_submit(j, req);
    }
}

/* ---- Control ---- */

static void
job_ended(struct st_task *t)
{
    struct bench *b = st_container(t, struct job, ended)->bench;

    b->over = --b->running == 0;
}

static void
bench_tick(struct st_timer *t)
{
    struct bench *b = st_container(t, struct bench, tick);
    struct st_disk_stats s;
    uint64_t ops;

    if (t->at >= b->begun_ns + b->seconds * SECOND)
        atomic_store(&b->stop, true);
    else
        st_timer_set(b->world.home, t, t->at + SECOND);
    if (!isatty(STDERR_FILENO))
        return;
    st_disk_stats(b->disk, &s);
    ops = s.ops[ST_OP_READ] + s.ops[ST_OP_WRITE];
    fprintf(stderr, "\r%ju IOPS\033[K%s", (uintmax_t)(ops - b->last_ops),
            atomic_load(&b->stop) ? "\r\033[K" : "");
    b->last_ops = ops;
}

static void
bench_signal(struct st_cmd_world *w, int signal)
{
    struct bench *b = st_container(w, struct bench, world);

    (void)signal;
    if (atomic_exchange(&b->stop, true)) /* asked before, and something hangs */
        _exit(st_cmd_fail(ST_EXIT_FAILED, "requests did not end"));
}

static int
job_start(struct bench *b, struct job *j)
{
    uint64_t bytes = b->bs * b->iodepth;
    struct st_err err = {"no memory, or no thread, for so many requests"};

    j->bench = b;
    j->begin.run = job_begin;
    j->ended.run = job_ended;
    j->rand = st_rand_seed((uint64_t)(j - b->job));
    j->next = b->blocks * (uint64_t)(j - b->job) / b->njobs;
    j->reqs = malloc(st_req_size(st_disk_frames(b->disk)) * b->iodepth);
    j->data = st_pages_alloc(bytes);
    j->iov = calloc(b->iodepth, sizeof(*j->iov));
    for (uint64_t i = 0; j->data && i < bytes / 8; i++)
        ((uint64_t *)j->data)[i] = st_rand_next(&j->rand);
    if (j->reqs && j->data && j->iov &&
        st_loop_create(b->world.domain, &j->loop, &err) == 0 &&
        st_loop_start(j->loop, "bench") == 0)
        return 0;
    return st_cmd_fail(ST_EXIT_FAILED, "%s", err.text);
}

static void
report(struct bench *b)
{
    struct bench_report r = {
        .seconds =
            (double)(bench_clock(CLOCK_MONOTONIC) - b->begun_ns) / SECOND,
        .cpu_ns = (double)(bench_clock(CLOCK_PROCESS_CPUTIME_ID) - b->cpu_ns),
        .jobs_name = "jobs",
        .jobs = b->njobs,
        .engine = st_domain_engine(b->world.domain)};
    struct st_disk_stats s;

    st_disk_stats(b->disk, &s);
    for (unsigned i = 0; i < b->njobs; i++)
        st_hist_merge(&r.latency, &b->job[i].latency);
    r.reads = s.ops[ST_OP_READ];
    r.writes = s.ops[ST_OP_WRITE];
    bench_print(b->opts, &r);
}

/* ---- The command ---- */

static int
measure(struct bench *b)
{
    int status = 0;

    b->blocks = st_disk_size(b->disk) / b->bs;
    if (!b->blocks)
        return st_cmd_fail(ST_EXIT_USAGE, "'%s' is smaller than --bs", b->spec);
    if (b->mode->write && st_disk_props(b->disk)->read_only)
        return st_cmd_fail(ST_EXIT_USAGE, "'%s' is read-only", b->spec);
    for (unsigned i = 0; i < b->njobs && !status; i++)
        status = job_start(b, &b->job[i]);
    if (status)
        return status;
    b->cpu_ns = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    b->begun_ns = bench_clock(CLOCK_MONOTONIC);
    b->tick.fire = bench_tick;
    st_timer_set(b->world.home, &b->tick, b->begun_ns + SECOND);
    b->running = b->njobs;
    for (unsigned i = 0; i < b->njobs; i++)
        st_post(b->job[i].loop, &b->job[i].begin);
    st_loop_wait(b->world.home, &b->over);
    st_timer_stop(b->world.home, &b->tick);
    if (b->failed)
        return st_cmd_fail(ST_EXIT_FAILED, "'%s': a request failed: %s",
                           b->spec, st_status_name((enum st_status)b->failed));
    report(b);
    return 0;
}

int
bench_disk(const struct bench_opts *o)
{
    st_autofree struct bench *b = calloc(1, sizeof(*b));
    int status;

    if (!b)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    b->opts = o;
    b->spec = o->what;
    b->mode = o->mode;
    b->bs = o->bs;
    b->iodepth = o->iodepth;
    b->njobs = o->jobs;
    b->seconds = o->seconds;
    status = st_cmd_world_open(&b->world, o->args->level, o->engine, o->poll_us,
                               bench_signal);
    if (!status)
        status = st_cmd_disk_open(&b->world, b->spec, b->spec, !b->mode->write,
                                  &b->disk);
    if (!status)
        status = measure(b);
    st_disk_destroy(b->disk);
    for (unsigned i = 0; i < b->njobs; i++) {
        struct job *j = &b->job[i];

        if (j->loop)
            st_loop_join(j->loop);
        st_loop_destroy(j->loop);
        free(j->reqs);
        free(j->data);
        free(j->iov);
    }
    st_cmd_world_close(&b->world);
    return status;
}
