/* SPDX-License-Identifier: MIT
 *
 * What a command costs the NVMe controller and the disk below it, without
 * sockets and wake-ups: guest, controller and disk on one loop of one thread,
 * doorbells mapped. For profiles, and for callgrind, whose instructions repeat:
 *
 *   nvme_core READ|WRITE BS IODEPTH COMMANDS [SPEC]     default mem:64M
 *
 * Prints "ns=N turns=N": CPU time of a command with the guest's part of it, and
 * the loop's turns for each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "disk.h"
#include "mem.h"
#include "nvme.h"
#include "nvme_spec.h"
#include "rand.h"
#include "stack.h"

enum {
    ENTRIES = 1024,
    SQ = 0x10000, /* guest addresses */
    CQ = 0x20000,
    ADMIN_SQ = 0x30000,
    ADMIN_CQ = 0x31000,
    DATA = 1 << 20,
    MEMORY = 256 << 20,
};

struct guest {
    struct st_loop *loop;
    struct st_pci *pci;
    struct st_pci_host host;
    uint8_t *ram;
    _Atomic uint32_t *bell;
    struct st_task task;
    uint32_t tail, head, phase, blocks, depth, bs;
    uint64_t total, places, submitted, done, turns;
    bool random, write, over;
    struct st_rand rand;
};

#define die(...)                                                               \
    do {                                                                       \
        fprintf(stderr, "nvme_core: " __VA_ARGS__);                            \
        fputc('\n', stderr);                                                   \
        exit(1);                                                               \
    } while (0)

static void
ignore(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    (void)h, (void)v, (void)address, (void)data;
}

static void
put_register(struct guest *g, uint64_t at, unsigned len, uint64_t value)
{
    struct st_access a = {
        .offset = at, .len = len, .write = true, .value = value};

    if (!st_pci_access(g->pci, 0, &a))
        die("register %ju is deferred", (uintmax_t)at);
}

static void
submit(struct guest *g, uint32_t slot)
{
    struct nvme_sqe *e = (struct nvme_sqe *)(g->ram + SQ) + g->tail;
    uint64_t lba = (g->random ? st_rand_below(&g->rand, g->places)
                              : g->submitted % g->places) *
                   g->blocks;

    *e = (struct nvme_sqe){
        .opcode = g->write ? NVME_WRITE : NVME_READ,
        .cid = le16_of((uint16_t)slot),
        .nsid = le32_of(1),
        .prp1 = le64_of(DATA + (uint64_t)slot * 0x20000),
        .prp2 = le64_of(DATA + (uint64_t)slot * 0x20000 + 4096),
        .cdw10 = le32_of((uint32_t)lba),
        .cdw11 = le32_of((uint32_t)(lba >> 32)),
        .cdw12 = le32_of(g->blocks - 1),
    };
    g->tail = (g->tail + 1) % ENTRIES;
    g->submitted++;
}

/* The guest, once a turn. */
static void
guest_turn(struct st_task *t)
{
    struct guest *g = st_container(t, struct guest, task);
    struct nvme_cqe *cq = (struct nvme_cqe *)(g->ram + CQ);

    g->turns++;
    while ((le16_get(cq[g->head].status) & 1) == g->phase) {
        uint32_t slot = le16_get(cq[g->head].cid);

        if (le16_get(cq[g->head].status) >> 1)
            die("status %x", le16_get(cq[g->head].status) >> 1);
        if (++g->head == ENTRIES) {
            g->head = 0;
            g->phase ^= 1;
        }
        g->done++;
        if (g->submitted < g->total)
            submit(g, slot);
    }
    atomic_store_explicit(&g->bell[2], g->tail, memory_order_release);
    atomic_store_explicit(&g->bell[3], g->head, memory_order_release);
    if (g->done == g->total)
        g->over = true;
    else
        st_ready(g->loop, &g->task);
}

static void
run(struct guest *g, uint64_t n)
{
    g->total = n;
    g->submitted = g->done = 0;
    for (uint32_t i = 0; i < g->depth && g->submitted < n; i++)
        submit(g, i);
    g->over = false;
    g->task.run = guest_turn;
    st_ready(g->loop, &g->task);
    st_loop_wait(g->loop, &g->over);
}

/* Let the loop turn for a while. */
static void
tick(struct st_timer *t)
{
    *(bool *)(t + 1) = true;
}

static void
turn(struct guest *g)
{
    struct {
        struct st_timer timer;
        bool over;
    } w = {.timer.fire = tick};

    st_timer_set(g->loop, &w.timer, g->loop->now + 1000000);
    st_loop_wait(g->loop, &w.over);
}

static void
admin(struct guest *g, uint32_t n, uint8_t opcode, uint64_t prp1,
      uint32_t cdw11)
{
    struct nvme_sqe *e = (struct nvme_sqe *)(g->ram + ADMIN_SQ) + n;
    struct nvme_cqe *c = (struct nvme_cqe *)(g->ram + ADMIN_CQ) + n;

    *e = (struct nvme_sqe){.opcode = opcode,
                           .prp1 = le64_of(prp1),
                           .cdw10 = le32_of((ENTRIES - 1) << 16 | 1),
                           .cdw11 = le32_of(cdw11)};
    atomic_store(&g->bell[0], n + 1);
    while (!(le16_get(c->status) & 1))
        turn(g);
    if (le16_get(c->status) >> 1)
        die("admin command %x: status %x", opcode, le16_get(c->status));
}

static void
enable(struct guest *g)
{
    struct st_access csts = {.offset = NVME_REG_CSTS, .len = 4};

    st_pci_config_write(g->pci, 4, 2, 6);
    put_register(g, NVME_REG_AQA, 4, 63 << 16 | 63);
    put_register(g, NVME_REG_ASQ, 8, ADMIN_SQ);
    put_register(g, NVME_REG_ACQ, 8, ADMIN_CQ);
    put_register(g, NVME_REG_CC, 4, 6 << 16 | 4 << 20 | NVME_CC_EN);
    do {
        turn(g);
        st_pci_access(g->pci, 0, &csts);
    } while (!(csts.value & NVME_CSTS_RDY));
    admin(g, 0, NVME_ADMIN_CREATE_CQ, CQ, 1 << 16 | 2 | 1);
    admin(g, 1, NVME_ADMIN_CREATE_SQ, SQ, 1 << 16 | 1);
}

static uint64_t
cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int
main(int argc, char **argv)
{
    struct st_domain_opts d = {0};
    struct guest g = {.rand = st_rand_seed(1), .host.msix = ignore};
    struct st_domain *domain;
    struct st_loop *io;
    struct st_node *node;
    struct st_disk *disk;
    struct st_nvme *nvme;
    struct st_err error;
    uint64_t n, size, begun, fill;

    if (argc < 5)
        die("usage: nvme_core read|write BS IODEPTH COMMANDS [SPEC]");
    g.bs = (uint32_t)atoi(argv[2]);
    g.depth = (uint32_t)atoi(argv[3]);
    n = strtoull(argv[4], NULL, 0);
    if (st_domain_create(&d, &domain, &error) < 0 ||
        st_loop_create(domain, &g.loop, &error) < 0 ||
        st_stack_open(g.loop, NULL, argc > 5 ? argv[5] : "mem:64M", false,
                      &node, &error) < 0 ||
        st_disk_create(g.loop, node, "bench", false, &disk, &error) < 0)
        die("%s", error.text);
    io = g.loop;
    struct st_gmem *gmem = st_gmem_create(g.loop);
    g.ram = st_pages_alloc(MEMORY);
    struct st_gmem_map m = {.len = MEMORY, .host = g.ram, .writable = true};
    struct st_nvme_opts o = {.home = g.loop,
                             .loops = &io,
                             .nloops = 1,
                             .gmem = gmem,
                             .mapped = true,
                             .poll_us = ST_NVME_POLL_ALWAYS};

    if (!gmem || !g.ram || st_gmem_map(gmem, &m) < 0)
        die("no memory");
    memset(g.ram, 0, DATA);
    if (st_nvme_create(&o, &nvme, &error) < 0 ||
        st_nvme_add_namespace(nvme, 1, disk, false, NULL, &error) < 0)
        die("%s", error.text);
    g.pci = st_nvme_pci(nvme);
    g.pci->host = &g.host;
    int fd = st_nvme_doorbells(nvme, &size);

    g.bell = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                  NVME_REG_DOORBELLS);
    g.phase = 1;
    enable(&g);
    /* Sector size 512 is mem:'s default. */
    g.blocks = g.bs / 512;
    g.places = st_disk_size(disk) / g.bs;
    fill = st_disk_size(disk) / g.bs;
    g.write = true;
    run(&g, fill);
    g.write = !strcmp(argv[1], "write");
    g.random = true;
    g.turns = 0;
    begun = cpu_ns();
    if (n)
        run(&g, n);
    printf("ns=%.1f turns=%.3f\n",
           n ? (double)(cpu_ns() - begun) / (double)n : 0,
           n ? (double)g.turns / (double)n : 0);
    _Exit(fflush(stdout));
}
