/* SPDX-License-Identifier: MIT
 *
 * RAM and ROM; see machine_ram.h.
 */
#include "machine_ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "range.h"
#include "size.h"

enum {
    HOLE = 0xa0000, /* VGA's */
    HOLE_END = 0xc0000,
    SHADOW = 0xe0000, /* firmware below 1 MiB */
    SHADOW_SIZE = 0x20000,
};

static void
ram_part(struct st_machine_ram *r, uint64_t gpa, uint64_t len, uint64_t offset)
{
    if (len)
        r->part[r->parts++] = (struct st_machine_ram_part){
            .gpa = gpa, .len = len, .offset = offset, .host = r->host + offset};
}

/* Memory that is not touched costs nothing; but what can never be had is
 * refused at once. */
static bool
enough(uint64_t size)
{
    struct sysinfo s;

    return sysinfo(&s) < 0 ||
           size / s.mem_unit <= (uint64_t)s.totalram + s.totalswap;
}

/* It may be interrupted, by a signal or by an io_uring of ours. */
static int
allocate(int fd, int mode, uint64_t size)
{
    int rc;

    do
        rc = fallocate(fd, mode, 0, (off_t)size);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : 0;
}

int
st_machine_ram_create(uint64_t size, bool huge, struct st_machine_ram *r,
                      struct st_err *err)
{
    char text[16];

    *r = (struct st_machine_ram){.fd = -1, .size = size, .huge = huge};
    if (size < ST_MACHINE_RAM_MIN || size > ST_MACHINE_RAM_MAX ||
        size % ST_MACHINE_RAM_HUGEPAGE)
        return st_err_set(err, EINVAL,
                          "memory of %s: expected 16M to 1T, a multiple of 2M",
                          st_size_format(size, text));
    if (!enough(size))
        return st_err_set(err, EINVAL,
                          "memory of %s is more than this host has",
                          st_size_format(size, text));
    r->low = st_min(size, ST_MACHINE_RAM_LOW_MAX);
    r->fd = memfd_create("strata-ram", MFD_CLOEXEC | (huge ? MFD_HUGETLB : 0));
    if (r->fd < 0 || ftruncate(r->fd, (off_t)size) < 0)
        return st_err_set(err, EINVAL, "memory of %s: %s",
                          st_size_format(size, text), st_strerror(-errno));
    /* Huge pages are taken now, so that none is missing later. */
    if (huge && allocate(r->fd, 0, size) < 0)
        return st_err_set(err, EINVAL, "memory of %s: not that many huge pages",
                          st_size_format(size, text));
    r->host = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE, r->fd, 0);
    if (r->host == MAP_FAILED) {
        r->host = NULL;
        return st_err_set(err, EINVAL, "memory of %s: %s",
                          st_size_format(size, text), st_strerror(-errno));
    }
    madvise(r->host, size, MADV_DONTFORK);
    ram_part(r, 0, HOLE, 0);
    ram_part(r, HOLE_END, r->low - HOLE_END, HOLE_END);
    ram_part(r, ST_MACHINE_RAM_HIGH, size - r->low, r->low);
    return 0;
}

void
st_machine_ram_destroy(struct st_machine_ram *r)
{
    if (r->host)
        munmap(r->host, r->size);
    if (r->rom)
        munmap(r->rom, r->rom_size);
    if (r->fd >= 0)
        close(r->fd);
    *r = (struct st_machine_ram){.fd = -1};
}

int
st_machine_ram_set_rom(struct st_machine_ram *r, const void *image,
                       uint64_t len)
{
    void *rom = mmap(NULL, len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (rom == MAP_FAILED)
        return -ENOMEM;
    memcpy(rom, image, len);
    mprotect(rom, len, PROT_READ);
    r->rom = rom;
    r->rom_size = len;
    return 0;
}

int
st_machine_ram_clear(struct st_machine_ram *r)
{
    uint64_t n = st_min(r->rom_size, SHADOW_SIZE);

    int rc = 0;

    /* A file of huge pages gives them back only to take them again. */
    if (r->huge)
        memset(r->host, 0, r->size);
    else
        rc = allocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      r->size);
    if (rc < 0)
        return rc;
    if (n)
        memcpy(r->host + SHADOW + SHADOW_SIZE - n, r->rom + r->rom_size - n, n);
    return 0;
}

static int
plug(const struct st_kvm *k, unsigned slot, uint64_t gpa, uint64_t len,
     const uint8_t *host, unsigned flags)
{
    struct kvm_userspace_memory_region m = {.slot = slot,
                                            .flags = flags,
                                            .guest_phys_addr = gpa,
                                            .memory_size = len,
                                            .userspace_addr =
                                                (uint64_t)(uintptr_t)host};

    return st_kvm_ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &m);
}

int
st_machine_ram_plug(const struct st_machine_ram *r, const struct st_kvm *k)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < r->parts; i++)
        rc = plug(k, i, r->part[i].gpa, r->part[i].len, r->part[i].host, 0);
    if (rc == 0 && r->rom)
        rc = plug(k, ST_MACHINE_RAM_PARTS, ST_MACHINE_RAM_HIGH - r->rom_size,
                  r->rom_size, r->rom, KVM_MEM_READONLY);
    return rc;
}

int
st_machine_ram_share(const struct st_machine_ram *r, struct st_gmem *g)
{
    int rc = 0;

    st_gmem_begin(g);
    for (unsigned i = 0; rc == 0 && i < r->parts; i++) {
        const struct st_gmem_map m = {.gpa = r->part[i].gpa,
                                      .len = r->part[i].len,
                                      .host = r->part[i].host,
                                      .writable = true};

        rc = st_gmem_map(g, &m);
    }
    st_gmem_commit(g);
    return rc;
}

void *
st_machine_ram_at(const struct st_machine_ram *r, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < r->parts; i++)
        if (gpa >= r->part[i].gpa &&
            st_range_ok(gpa - r->part[i].gpa, len, r->part[i].len))
            return r->part[i].host + (gpa - r->part[i].gpa);
    return NULL;
}
