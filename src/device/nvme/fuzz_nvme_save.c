/* SPDX-License-Identifier: MIT
 *
 * Fuzz: the input is what follows the identity in a blob; header, checksum and
 * identity are put before it. What can be read is written again, byte by byte
 * the same, and a controller becomes it and runs a little, on a guest whose
 * memory is noise.
 */
#include <stdlib.h>
#include <string.h>

#include "nvme.h"
#include "save.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    BASE = 0x10000,
    RAM = 512 << 10,
    RINGS = 48 << 10,                     /* of these, where queues lie */
    IDENTITY = 16 + 2 + 20 + 40 + 16 + 2, /* bytes of a blob */
    INPUT_MAX = 64 << 10,
};

static uint8_t ram[RAM] __attribute__((aligned(4096)));

static void
msix(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    (void)h;
    (void)v;
    (void)address;
    (void)data;
}

static void
called(struct st_nvme_call *c, int rc)
{
    *(int *)c->arg = rc;
}

static void
run(struct st_domain *d, unsigned n)
{
    while (n-- && st_domain_step(d))
        ;
}

static int
wait_for(struct st_domain *d, const int *rc)
{
    for (unsigned i = 0; *rc > 0; i++)
        if (i > 10000000 || !st_domain_step(d))
            abort(); /* it never ends */
    return *rc;
}

/* The input with what belongs before it; *LEN bytes. */
static uint8_t *
whole(const uint8_t *own, const uint8_t *data, size_t size, size_t *len)
{
    uint8_t *p = malloc(NVME_SAVED_HEADER + IDENTITY + size);

    if (!p)
        abort();
    *len = NVME_SAVED_HEADER + IDENTITY + size;
    memcpy(p, own, NVME_SAVED_HEADER + IDENTITY);
    memcpy(p + NVME_SAVED_HEADER + IDENTITY, data, size);
    st_nvme_saved_seal(p, *len);
    return p;
}

static void
read_and_write(const uint8_t *p, size_t len)
{
    struct nvme_saved *s = malloc(sizeof(*s));
    struct st_err err = {""};
    size_t again_len;
    void *again;

    if (!s)
        abort();
    if (st_nvme_saved_read(p, len, s, &err) == 0) {
        again = st_nvme_saved_write(s, &again_len);
        if (!again || again_len != len || memcmp(again, p, len) != 0)
            abort();
        free(again);
    } else if (!err.text[0]) {
        abort();
    }
    free(s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct st_domain_opts dopts = {.engine = "virtual", .seed = 1};
    struct st_gmem_map map = {
        .gpa = BASE, .len = RAM, .host = ram, .writable = true};
    struct st_pci_host host = {.msix = msix};
    struct st_nvme_opts o = {
        .nloops = 1, .queues = 4, .entries = 64, .namespaces = 8};
    struct st_domain *d;
    struct st_loop *home, *loop;
    struct st_nvme *n;
    int rc = 1;
    struct st_nvme_call c = {.done = called, .arg = &rc};
    void *own;
    uint8_t *p;
    size_t own_len, len;

    if (size > INPUT_MAX)
        return 0;
    for (size_t i = 0; i < RAM; i += i < RINGS ? 1 : 4096)
        ram[i] = (uint8_t)(i * 7 / 64);
    if (st_domain_create(&dopts, &d, NULL) < 0 ||
        st_loop_create(d, &home, NULL) < 0 ||
        st_loop_create(d, &loop, NULL) < 0)
        abort();
    o.home = home;
    o.loops = &loop;
    o.gmem = st_gmem_create(home);
    if (!o.gmem || st_gmem_map(o.gmem, &map) < 0 ||
        st_nvme_create(&o, &n, NULL) < 0)
        abort();
    st_nvme_pci(n)->host = &host;
    st_nvme_save(n, UINT64_C(1000000000), &own, &own_len, &c);
    if (wait_for(d, &rc) < 0)
        abort();
    p = whole(own, data, size, &len);
    free(own);
    read_and_write(p, len);
    rc = 1;
    st_nvme_restore(n, p, len, &c);
    if (wait_for(d, &rc) == 0) {
        struct st_access ring = {
            .offset = 0x1008, .len = 4, .write = true, .value = 1};

        st_pci_access(st_nvme_pci(n), 0, &ring);
        run(d, 300);
        rc = 1; /* what it has become can be saved, or says why not */
        st_nvme_save(n, 1000000, &own, &own_len, &c);
        if (wait_for(d, &rc) == 0) {
            read_and_write(own, own_len);
            free(own);
        }
    }
    free(p);
    rc = 1;
    st_nvme_stop(n, UINT64_C(10000000000), &c);
    if (wait_for(d, &rc) < 0)
        abort();
    run(d, 200);
    st_nvme_destroy(n);
    run(d, 200);
    st_gmem_destroy(o.gmem);
    st_loop_destroy(loop);
    st_loop_destroy(home);
    st_domain_destroy(d);
    return 0;
}
