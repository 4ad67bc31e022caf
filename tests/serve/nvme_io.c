/* SPDX-License-Identifier: MIT
 *
 * A guest of `strata serve` for scripts: reads and writes a namespace through
 * vfio-user, as dd would.
 *
 *   nvme_io PATH NSID info               model, serial, blocks, block size
 *   nvme_io PATH NSID read OFFSET LEN    to standard output
 *   nvme_io PATH NSID write OFFSET       from standard input, then flush
 *   nvme_io PATH NSID hold               "ready", then until standard input
 *                                        ends
 *   nvme_io PATH NSID endure SEED [ring] the same, writing and reading all the
 *                                        time; what is read must be what was
 *                                        written last, at the end all of it;
 *                                        ring: each doorbell by a message
 *
 * Offsets and lengths are bytes, of whole blocks. Exit status 0, or 1 and a
 * sentence.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nvme_driver.h"
#include "rand.h"

enum { PIECE = 128 << 10, PATIENCE_MS = 20000 };

static struct st_nvme_driver *driver;

static int
fail(const char *sentence)
{
    fprintf(stderr, "nvme_io: %s\n", sentence);
    return 1;
}

/* One command, to its end: 0 or a sentence's 1. */
static int
run(uint8_t opcode, uint64_t lba, unsigned blocks, size_t len)
{
    char text[64];
    uint16_t status;
    int rc = 0;

    st_nvme_driver_submit(driver, 0, 0, opcode, lba, blocks, len);
    if (st_nvme_driver_ring(driver, 0) < 0)
        return fail("the server is gone");
    while (st_nvme_driver_reap(driver, 0, &status) < 0) {
        if (rc < 0)
            return fail(rc == -ETIMEDOUT ? "no completion"
                                         : "the server is gone");
        rc = st_nvme_driver_wait(driver, 0, PATIENCE_MS);
    }
    st_nvme_driver_reaped(driver, 0);
    snprintf(text, sizeof(text), "status %xh", status);
    return status ? fail(text) : 0;
}

static int
copy_out(uint64_t offset, uint64_t len)
{
    unsigned block = st_nvme_driver_info(driver)->block;
    const void *data = st_nvme_driver_data(driver, 0, 0);

    while (len) {
        size_t n = len < PIECE ? len : PIECE;

        if (run(NVME_READ, offset / block, (unsigned)(n / block), n))
            return 1;
        if (fwrite(data, 1, n, stdout) != n)
            return fail("cannot write");
        offset += n;
        len -= n;
    }
    return fflush(stdout) ? fail("cannot write") : 0;
}

static int
copy_in(uint64_t offset)
{
    unsigned block = st_nvme_driver_info(driver)->block;
    void *data = st_nvme_driver_data(driver, 0, 0);
    size_t n;

    while ((n = fread(data, 1, PIECE, stdin)) > 0) {
        if (n % block)
            return fail("not whole blocks");
        if (run(NVME_WRITE, offset / block, (unsigned)(n / block), n))
            return 1;
        offset += n;
    }
    return run(NVME_FLUSH, 0, 0, 0);
}

static int
hold(void)
{
    char c;

    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) > 0)
        ;
    return 0;
}

/* ---- Endure ---- */

enum { DEPTH = 32, QUEUES = 2, AREAS = 512, AREA_BLOCKS = 8 };

/* A command under way: on one area, which no other has at the time. */
struct job {
    unsigned area;
    bool busy, write;
};

struct endure {
    struct job job[QUEUES][DEPTH];
    uint32_t written[AREAS]; /* the number of the last write; 0: none */
    bool taken[AREAS];
    uint32_t writes;
    uint64_t commands;
    struct st_rand rand;
};

/* What an area holds after write number N: every word says where it is. */
static void
pattern(uint32_t *to, size_t len, unsigned area, uint32_t n)
{
    for (size_t i = 0; i < len / 4; i++)
        to[i] = n ? (uint32_t)(n * 2654435761u ^ area << 16 ^ i) : 0;
}

static bool
job_start(struct endure *e, unsigned q, unsigned slot, unsigned area,
          bool write)
{
    struct job *j = &e->job[q][slot];
    unsigned block = st_nvme_driver_info(driver)->block;
    size_t len = AREA_BLOCKS * block;

    if (j->busy || e->taken[area])
        return false;
    *j = (struct job){.area = area, .busy = true, .write = write};
    e->taken[area] = true;
    if (write) {
        e->written[area] = ++e->writes;
        pattern(st_nvme_driver_data(driver, q, slot), len, area, e->writes);
    } else {
        memset(st_nvme_driver_data(driver, q, slot), 0xee, len);
    }
    st_nvme_driver_submit(driver, q, slot, write ? NVME_WRITE : NVME_READ,
                          (uint64_t)area * AREA_BLOCKS, AREA_BLOCKS, len);
    return true;
}

static int
job_end(struct endure *e, unsigned q, unsigned slot, uint16_t status)
{
    struct job *j = &e->job[q][slot];
    size_t len = AREA_BLOCKS * st_nvme_driver_info(driver)->block;
    static uint32_t want[AREA_BLOCKS * 4096 / 4];
    char text[96];

    if (!j->busy)
        return fail("a command has completed twice");
    j->busy = false;
    e->taken[j->area] = false;
    e->commands++;
    if (status) {
        snprintf(text, sizeof(text), "area %u: status %xh", j->area, status);
        return fail(text);
    }
    if (j->write)
        return 0;
    pattern(want, len, j->area, e->written[j->area]);
    if (memcmp(st_nvme_driver_data(driver, q, slot), want, len) == 0)
        return 0;
    snprintf(text, sizeof(text), "area %u is not what was written", j->area);
    return fail(text);
}

/* Reap what there is; wait for some if WAIT. 0 or 1. */
static int
jobs_reap(struct endure *e, unsigned q, bool wait)
{
    uint16_t status;
    bool any = false;
    int slot;

    while ((slot = st_nvme_driver_reap(driver, q, &status)) >= 0) {
        any = true;
        if (job_end(e, q, (unsigned)slot, status))
            return 1;
    }
    if (any)
        return st_nvme_driver_reaped(driver, q) < 0 ? fail("the server is gone")
                                                    : 0;
    if (wait && st_nvme_driver_wait(driver, q, PATIENCE_MS) < 0)
        return fail("no completion");
    return 0;
}

static bool
jobs_left(const struct endure *e, unsigned q)
{
    for (unsigned i = 0; i < DEPTH; i++)
        if (e->job[q][i].busy)
            return true;
    return false;
}

/* Fill queue Q; FROM: areas to read, one after the other, or NULL. */
static int
jobs_submit(struct endure *e, unsigned q, unsigned *from)
{
    bool any = false;

    for (unsigned i = 0; i < DEPTH; i++) {
        unsigned area = from ? *from : (unsigned)st_rand_below(&e->rand, AREAS);
        bool write = !from && st_rand_below(&e->rand, 2);

        if (area >= AREAS || !job_start(e, q, i, area, write))
            continue;
        any = true;
        *(from ? from : &area) += 1;
    }
    return any && st_nvme_driver_ring(driver, q) < 0
               ? fail("the server is gone")
               : 0;
}

static int
endure(const char *seed)
{
    static struct endure e;
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    bool ended = false;
    unsigned next = 0;
    char c;

    if (st_nvme_driver_info(driver)->block > 4096)
        return fail("blocks are too large");
    e.rand = st_rand_seed(strtoull(seed, NULL, 10));
    /* All of it is known. */
    for (unsigned area = 0; area < AREAS; area++) {
        if (!job_start(&e, 0, 0, area, true) ||
            st_nvme_driver_ring(driver, 0) < 0)
            return fail("the server is gone");
        while (jobs_left(&e, 0))
            if (jobs_reap(&e, 0, true))
                return 1;
    }
    puts("ready");
    fflush(stdout);
    while (!ended || jobs_left(&e, 0) || jobs_left(&e, 1)) {
        if (!ended && poll(&input, 1, 0) > 0)
            ended = read(STDIN_FILENO, &c, 1) <= 0;
        for (unsigned q = 0; q < QUEUES; q++) {
            if (!ended && jobs_submit(&e, q, NULL))
                return 1;
            if (jobs_reap(&e, q, q == 0 && jobs_left(&e, 0)))
                return 1;
            if (ended && !jobs_left(&e, 0) && jobs_left(&e, 1) &&
                jobs_reap(&e, 1, true))
                return 1;
        }
    }
    while (next < AREAS || jobs_left(&e, 0))
        if (jobs_submit(&e, 0, &next) || jobs_reap(&e, 0, jobs_left(&e, 0)))
            return 1;
    printf("%ju commands\n", (uintmax_t)e.commands);
    return 0;
}

int
main(int argc, char **argv)
{
    const char *what = argc > 3 ? argv[3] : "";
    struct st_nvme_driver_opts o = {
        .path = argv[argc > 1], .queues = 1, .depth = 4, .bytes = PIECE};
    bool long_one = strcmp(what, "endure") == 0;
    const struct st_nvme_driver_info *info;
    struct st_err err;
    int status;

    if (argc < 4)
        return fail("expected PATH NSID info|read|write|hold|endure");
    o.nsid = (uint32_t)strtoul(argv[2], NULL, 10);
    if (long_one) {
        o.queues = QUEUES;
        o.depth = DEPTH;
        o.no_shadow = argc == 6;
    }
    if (st_nvme_driver_open(&o, &driver, &err) < 0)
        return fail(err.text);
    info = st_nvme_driver_info(driver);
    if (strcmp(what, "info") == 0)
        status = printf("%s|%s|%ju|%u|%u|%s\n", info->model, info->serial,
                        (uintmax_t)info->blocks, info->block, info->namespaces,
                        info->doorbells) < 0;
    else if (strcmp(what, "read") == 0 && argc == 6)
        status =
            copy_out(strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    else if (strcmp(what, "write") == 0 && argc == 5)
        status = copy_in(strtoull(argv[4], NULL, 10));
    else if (strcmp(what, "hold") == 0)
        status = hold();
    else if (long_one && (argc == 5 || argc == 6))
        status = endure(argv[4]);
    else
        status = fail("expected info, read OFFSET LEN, write OFFSET, hold or "
                      "endure SEED [ring]");
    st_nvme_driver_close(driver);
    return status;
}
