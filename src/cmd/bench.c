/* SPDX-License-Identifier: MIT
 *
 * strata bench: what a disk, or a controller behind a socket, can do. Options,
 * and what is said at the end; bench_disk.c and bench_vfio_user.c do the work.
 */
#include <string.h>
#include <time.h>

#include "bench.h"
#include "nvme_driver.h"
#include "size.h"

enum { RW, BS, IODEPTH, JOBS, QUEUES, RUNTIME, JSON, POLL_US, ENGINE };
enum { BS_MAX = 64 << 20, JOBS_MAX = 64 };
#define SECOND UINT64_C(1000000000)

static const struct st_cmd_option bench_options[] = {
    {"rw", ST_CMD_WORD, "randread|randwrite|randrw|read|write",
     "what to do; writes overwrite what is there", 0, 0, 0},
    {"bs", ST_CMD_TEXT, "SIZE", "bytes of a request; default 4K", 0, 0, 0},
    {"iodepth", ST_CMD_NUMBER, "N", "requests under way in a job or queue", 32,
     1, 1024},
    {"jobs", ST_CMD_NUMBER, "N", "of a disk: threads", 1, 1, JOBS_MAX},
    {"queues", ST_CMD_NUMBER, "N",
     "of vfio-user: queue pairs, a thread for each", 1, 1,
     ST_NVME_DRIVER_QUEUES},
    {"runtime", ST_CMD_NUMBER, "SECONDS", "SIGINT ends it earlier", 5, 1,
     86400},
    {"json", ST_CMD_FLAG, NULL, "results as JSON", 0, 0, 0},
    ST_CMD_POLL,
    ST_CMD_ENGINE,
    {0},
};

static const struct bench_mode modes[] = {
    {"randread", true, true, false}, {"randwrite", true, false, true},
    {"randrw", true, true, true},    {"read", false, true, false},
    {"write", false, false, true},
};

uint64_t
bench_clock(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* ---- The report ---- */

static void
print_json(const struct bench_opts *o, const struct bench_report *r, double ops,
           double bytes)
{
    json_t *j =
        json_pack("{s:s,s:s,s:I,s:i,s:i,s:f,s:I,s:I,s:f,s:f,s:I,s:I,s:f}",
                  r->doorbells ? "socket" : "spec", o->what, "rw",
                  o->mode->name, "bs", (json_int_t)o->bs, "iodepth", o->iodepth,
                  r->jobs_name, r->jobs, "seconds", r->seconds, "reads",
                  (json_int_t)r->reads, "writes", (json_int_t)r->writes, "iops",
                  ops / r->seconds, "bytes_per_second", bytes / r->seconds,
                  "p50_ns", (json_int_t)st_hist_quantile(&r->latency, 0.5),
                  "p99_ns", (json_int_t)st_hist_quantile(&r->latency, 0.99),
                  "cpu_ns_per_io", ops > 0 ? r->cpu_ns / ops : 0.0);

    if (r->engine)
        json_object_set_new(j, "engine", json_string(r->engine));
    if (r->doorbells && ops > 0) {
        json_object_set_new(j, "doorbells", json_string(r->doorbells));
        json_object_set_new(j, "doorbells_per_io",
                            json_real((double)r->rings / ops));
        json_object_set_new(j, "interrupts_per_io",
                            json_real((double)r->interrupts / ops));
        if (r->server_cpu_ns >= 0)
            json_object_set_new(j, "server_cpu_ns_per_io",
                                json_real(r->server_cpu_ns / ops));
    }
    json_dumpf(j, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(j);
}

void
bench_print(const struct bench_opts *o, const struct bench_report *r)
{
    double ops = (double)(r->reads + r->writes), bytes = ops * (double)o->bs;

    if (o->json) {
        print_json(o, r, ops, bytes);
        return;
    }
    printf("%s %s, %ju bytes, depth %u, %u %s, %s, %.1f s\n"
           "%.0f IOPS, %.1f MB/s, latency p50 <= %.1f us, p99 <= %.1f us, "
           "%.0f ns CPU per I/O\n",
           o->what, o->mode->name, (uintmax_t)o->bs, o->iodepth, r->jobs,
           r->jobs_name, r->engine ? r->engine : "NVMe", r->seconds,
           ops / r->seconds, bytes / r->seconds / 1e6,
           (double)st_hist_quantile(&r->latency, 0.5) / 1e3,
           (double)st_hist_quantile(&r->latency, 0.99) / 1e3,
           ops > 0 ? r->cpu_ns / ops : 0.0);
    if (!r->doorbells || ops <= 0)
        return;
    printf("doorbells: %s, %.3f messages and %.3f interrupts per I/O",
           r->doorbells, (double)r->rings / ops, (double)r->interrupts / ops);
    if (r->server_cpu_ns >= 0)
        printf(", server: %.0f ns CPU per I/O", r->server_cpu_ns / ops);
    putchar('\n');
}

/* ---- Options ---- */

static int
parse(struct bench_opts *o, const struct st_cmd_args *a, bool vfio_user)
{
    struct st_err err;

    if (a->text[vfio_user ? JOBS : QUEUES])
        return st_cmd_fail(ST_EXIT_USAGE, vfio_user
                                              ? "--jobs is of a disk, a "
                                                "controller has --queues"
                                              : "--queues is of a controller, "
                                                "a disk has --jobs");
    if (vfio_user && a->text[ENGINE])
        return st_cmd_fail(ST_EXIT_USAGE,
                           "--engine is of a disk, a controller's is its "
                           "server's");
    *o = (struct bench_opts){.args = a,
                             .what = a->rest[1],
                             .mode = &modes[a->number[RW]],
                             .bs = 4096,
                             .iodepth = a->number[IODEPTH],
                             .jobs = a->number[JOBS],
                             .queues = a->number[QUEUES],
                             .seconds = a->number[RUNTIME],
                             .poll_us = st_cmd_poll_us(a, POLL_US),
                             .engine = a->number[ENGINE],
                             .json = a->text[JSON]};
    if (a->text[BS] && st_size_parse(a->text[BS], &o->bs, &err) < 0)
        return st_cmd_fail(ST_EXIT_USAGE, "--bs: %s", err.text);
    if (o->bs < 1 || o->bs > BS_MAX)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "invalid --bs '%s', expected 1 to 64M", a->text[BS]);
    return 0;
}

static int
bench_run(const struct st_cmd_args *a)
{
    bool disk = a->nrest == 2 && strcmp(a->rest[0], "disk") == 0;
    bool vfio_user = a->nrest == 2 && strcmp(a->rest[0], "vfio-user") == 0;
    struct bench_opts o;
    int status;

    if (!disk && !vfio_user)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "expected 'disk' and one SPEC, or 'vfio-user' and "
                           "one PATH, not '%s', see 'strata bench --help'",
                           a->nrest ? a->rest[a->nrest - 1] : "");
    status = parse(&o, a, vfio_user);
    return status ? status : disk ? bench_disk(&o) : bench_vfio_user(&o);
}

const struct st_cmd st_cmd_bench = {
    .name = "bench",
    .syntax = "disk|vfio-user SPEC|PATH",
    .help = "measure a disk, or an NVMe controller behind a socket",
    .more = "Prints requests and bytes a second, latency and CPU time; of a "
            "controller also\nwhat its doorbells cost. 'disk SPEC' opens a "
            "disk by itself; 'vfio-user PATH' is\nthe guest of a running "
            "'strata serve', on its first namespace.\n",
    .options = bench_options,
    .run = bench_run,
};
