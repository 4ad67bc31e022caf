/* SPDX-License-Identifier: MIT
 *
 * A guest of `strata serve` for scripts: reads and writes a namespace through
 * vfio-user, as dd would.
 *
 *   nvme_io PATH NSID info               model, serial, blocks, block size
 *   nvme_io PATH NSID read OFFSET LEN    to standard output
 *   nvme_io PATH NSID write OFFSET       from standard input, then flush
 *   nvme_io PATH NSID hold               "ready", then until standard input
 * ends
 *
 * Offsets and lengths are bytes, of whole blocks. Exit status 0, or 1 and a
 * sentence.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nvme_driver.h"

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

int
main(int argc, char **argv)
{
    const char *what = argc > 3 ? argv[3] : "";
    struct st_nvme_driver_opts o = {
        .path = argv[argc > 1], .queues = 1, .depth = 4, .bytes = PIECE};
    const struct st_nvme_driver_info *info;
    struct st_err err;
    int status;

    if (argc < 4)
        return fail("expected PATH NSID info|read|write|hold");
    o.nsid = (uint32_t)strtoul(argv[2], NULL, 10);
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
    else
        status = fail("expected info, read OFFSET LEN, write OFFSET or hold");
    st_nvme_driver_close(driver);
    return status;
}
