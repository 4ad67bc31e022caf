/* SPDX-License-Identifier: MIT
 *
 * What a RAM disk takes of the machine's memory.
 *
 *   ram sequential MIB     fill a disk of that size from its start
 *   ram random MIB         so much in 4 KiB writes, anywhere in 1 TiB
 *   ram lone 0             one sector in 1 TiB
 *
 * Prints, in bytes of resident memory beyond those of the empty disk:
 *
 *   bytes=N             all
 *   over_bytes=N        more than the data
 *   percent_over=P      the same, less a fixed 4 MiB, in percent of the data
 *   left_after_unmap=N  when everything has been unmapped
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "ram.h"
#include "rand.h"
#include "sync.h"

#define MIB (UINT64_C(1) << 20)

static int64_t
resident(void)
{
    unsigned long total, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (!f || fscanf(f, "%lu %lu", &total, &pages) != 2)
        exit(1);
    fclose(f);
    return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

/* Returns how many bytes were stored. */
static uint64_t
store(struct st_sync *s, const char *how, uint64_t len, uint64_t size)
{
    static char data[64 << 10];
    struct st_rand r = st_rand_seed(1);
    bool random = strcmp(how, "random") == 0, lone = strcmp(how, "lone") == 0;
    uint64_t step = lone ? 512 : random ? 4096 : sizeof(data);

    memset(data, 0xa5, sizeof(data));
    len = lone ? 512 : len;
    for (uint64_t at = 0; at < len; at += step) {
        uint64_t where =
            random || lone ? st_rand_below(&r, size / step) * step : at;

        if (st_sync_write(s, data, where, step, 0) != ST_OK)
            exit(1);
    }
    return len;
}

int
main(int argc, char **argv)
{
    struct st_domain_opts opts = {.engine = "threads"};
    bool sequential = argc == 3 && strcmp(argv[1], "sequential") == 0;
    uint64_t len = argc == 3 ? strtoull(argv[2], NULL, 10) * MIB : 0;
    uint64_t size = sequential ? len : MIB << 20, data;
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_disk *disk;
    struct st_node *node;
    struct st_sync *sync;
    struct st_err err = {{0}};
    int64_t before, full;

    if (argc != 3 || st_domain_create(&opts, &domain, &err) < 0 ||
        st_loop_create(domain, &loop, &err) < 0 ||
        st_ram_create(loop, size, 512, "ram", &node, &err) < 0 ||
        node->ops->attach(node, NULL, &err) < 0 ||
        st_disk_create(loop, node, "ram", false, &disk, &err) < 0 ||
        st_sync_open(disk, loop, &sync) < 0) {
        fprintf(stderr, "ram: %s\n", err.text);
        return 1;
    }
    resident(); /* stdio's own buffers */
    before = resident();
    data = store(sync, argv[1], len, size);
    full = resident() - before - (int64_t)data;
    if (st_sync_unmap(sync, 0, size) != ST_OK)
        return 1;
    for (unsigned i = 0; i < 100; i++) /* turns: memory is given back later */
        st_sync_flush(sync);
    printf("bytes=%jd over_bytes=%jd percent_over=%.3f left_after_unmap=%jd\n",
           (intmax_t)(full + (int64_t)data), (intmax_t)full,
           100.0 * (double)(full - (int64_t)(4 * MIB)) / (double)data,
           (intmax_t)(resident() - before));
    st_sync_close(sync);
    st_disk_destroy(disk);
    st_loop_destroy(loop);
    st_domain_destroy(domain);
    return 0;
}
