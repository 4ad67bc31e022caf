/* SPDX-License-Identifier: MIT
 *
 * What the kinds of `strata bench` share: modes, options, the report.
 */
#ifndef ST_BENCH_H
#define ST_BENCH_H

#include "cmd.h"
#include "stat.h"

/* What is done. */
struct bench_mode {
    const char *name;
    bool random, read, write;
};

/* What the options say. */
struct bench_opts {
    const struct st_cmd_args *args;
    const char *what; /* the SPEC, or the socket's PATH */
    const struct bench_mode *mode;
    uint64_t bs; /* bytes of a request */
    unsigned iodepth, jobs, queues, seconds, poll_us, engine;
    bool json;
};

/* What was measured. */
struct bench_report {
    double seconds;
    uint64_t reads, writes;
    double cpu_ns; /* of this process */
    struct st_hist latency;
    const char *jobs_name; /* "jobs" or "queues" */
    unsigned jobs;
    const char *engine; /* NULL: none of ours */
    /* Of vfio-user, else NULL: what doorbells were, and cost. */
    const char *doorbells;
    uint64_t rings, interrupts;
    double server_cpu_ns; /* less than 0: not known */
};

/* Nanoseconds of that clock. */
uint64_t bench_clock(clockid_t id);

/* Say R on standard output. */
void bench_print(const struct bench_opts *o, const struct bench_report *r);

/* The kinds: an exit status. */
int bench_disk(const struct bench_opts *o);
int bench_vfio_user(const struct bench_opts *o);

#endif
