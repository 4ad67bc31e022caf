/* SPDX-License-Identifier: MIT
 *
 * Booting a bzImage; see boot_linux.h.
 *
 *   file:   | boot sector .. setup code | protected part ............ |
 * signature 0      0x1f1: the header    (setup_sects + 1) * 512       +
 * syssize*16
 *
 * Nothing is written before both files are known to fit. The initrd does not
 * touch [load, load + init_size): the kernel unpacks itself there.
 */
#include "boot_linux.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "range.h"
#include "wire.h"

enum { /* the header, and what else of the zero page is used */
       ZERO_RSDP = 0x070,
       ZERO_E820_LINES = 0x1e8,
       HDR_SETUP_SECTS = 0x1f1,
       HDR_SYSSIZE = 0x1f4,
       HDR_VIDEO = 0x1fa,
       HDR_JUMP_LENGTH = 0x201, /* the header ends so far behind 0x202 */
       HDR_MAGIC = 0x202,
       HDR_VERSION = 0x206,
       HDR_LOADER = 0x210,
       HDR_LOADFLAGS = 0x211,
       HDR_INITRD = 0x218,
       HDR_INITRD_SIZE = 0x21c,
       HDR_CMDLINE = 0x228,
       HDR_INITRD_MAX = 0x22c,
       HDR_ALIGNMENT = 0x230,
       HDR_RELOCATABLE = 0x234,
       HDR_XLOADFLAGS = 0x236,
       HDR_CMDLINE_SIZE = 0x238,
       HDR_PREFERRED = 0x258,
       HDR_INIT_SIZE = 0x260,
       HDR_READ = 0x300, /* more than any header has */
       ZERO_E820 = 0x2d0
};

enum { SECTOR = 512, PAGE = 4096, ENTRY_64 = 0x200 };

enum { /* where things are put */
       AT_GDT = 0x500,
       AT_ZERO_PAGE = 0x7000,
       AT_STACK = 0x8ff0,
       AT_PAGE_TABLES = 0x9000, /* six pages */
       AT_CMDLINE = 0x20000
};

/* What is known of the images, and where they go. */
struct plan {
    uint8_t header[HDR_READ];
    uint64_t payload_at, payload_len; /* in the file */
    uint64_t load, init_size;
    uint64_t initrd, initrd_len;
    size_t cmdline_len;
    uint64_t low; /* end of RAM below 4 GiB */
};

/* ---- Files ---- */

static int
file_size(const struct st_boot_file *f, const char *what, uint64_t *size,
          struct st_err *err)
{
    struct stat sb;

    if (fstat(f->fd, &sb) < 0)
        return st_err_set(err, errno, "cannot read %s '%s': %s", what, f->name,
                          st_strerror(-errno));
    if (!S_ISREG(sb.st_mode))
        return st_err_set(err, EINVAL, "%s '%s' is not a regular file", what,
                          f->name);
    *size = (uint64_t)sb.st_size;
    return 0;
}

static int
file_read(const struct st_boot_file *f, const char *what, uint64_t offset,
          void *to, uint64_t len, struct st_err *err)
{
    uint8_t *at = to;

    while (len) {
        ssize_t n = pread(f->fd, at, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return st_err_set(err, errno, "cannot read %s '%s': %s", what,
                              f->name, st_strerror(-errno));
        if (n == 0)
            return st_err_set(err, EIO, "%s '%s' became shorter meanwhile",
                              what, f->name);
        at += n;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

/* ---- The header ---- */

static uint16_t
get16(const uint8_t *p)
{
    le16 v;

    memcpy(&v, p, sizeof(v));
    return le16_get(v);
}

static uint32_t
get32(const uint8_t *p)
{
    le32 v;

    memcpy(&v, p, sizeof(v));
    return le32_get(v);
}

static uint64_t
get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void
put32(uint8_t *p, uint32_t value)
{
    le32 v = le32_of(value);

    memcpy(p, &v, sizeof(v));
}

static void
put64(uint8_t *p, uint64_t value)
{
    le64 v = le64_of(value);

    memcpy(p, &v, sizeof(v));
}

/* Read and check the kernel's header. */
static int
look_at_kernel(const struct st_boot_linux *b, struct plan *p,
               struct st_err *err)
{
    const uint8_t *h = p->header;
    const char *name = b->kernel.name;
    unsigned sectors, version;
    uint64_t size;
    int rc = file_size(&b->kernel, "kernel", &size, err);

    if (rc == 0)
        rc = file_read(&b->kernel, "kernel", 0, p->header,
                       st_min(size, HDR_READ), err);
    if (rc < 0)
        return rc;
    if (!memcmp(h, "\177ELF", 4))
        return st_err_set(err, EINVAL,
                          "kernel '%s' is an ELF file, not a bzImage: give "
                          "the image that boot loaders use, as /boot/vmlinuz",
                          name);
    if (size < HDR_READ || memcmp(h + HDR_MAGIC, "HdrS", 4) != 0)
        return st_err_set(err, EINVAL, "kernel '%s' is not a bzImage", name);
    version = get16(h + HDR_VERSION);
    if (version < 0x020c)
        return st_err_set(err, EINVAL,
                          "kernel '%s' is too old: its boot protocol is "
                          "%u.%u, and 2.12 is needed",
                          name, version >> 8, version & 0xff);
    if (!(h[HDR_XLOADFLAGS] & 1))
        return st_err_set(err, EINVAL,
                          "kernel '%s' has no 64-bit entry: it is for another "
                          "kind of processor",
                          name);
    sectors = h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4;
    p->payload_at = (sectors + 1) * SECTOR;
    p->payload_len = (uint64_t)get32(h + HDR_SYSSIZE) * 16;
    if (p->payload_len <= ENTRY_64)
        return st_err_set(err, EINVAL, "kernel '%s' is empty", name);
    /* The last paragraph may be cut: builds differ in how they round. */
    if (p->payload_at >= size || p->payload_len >= size - p->payload_at + 16)
        return st_err_set(err, EINVAL,
                          "kernel '%s' is cut short: %" PRIu64
                          " bytes, of %" PRIu64,
                          name, size, p->payload_at + p->payload_len);
    p->payload_len = st_min(p->payload_len, size - p->payload_at);
    return 0;
}

/* ---- Where things go ---- */

static int
place_kernel(const struct st_boot_linux *b, struct plan *p, struct st_err *err)
{
    const uint8_t *h = p->header;
    uint64_t align = get32(h + HDR_ALIGNMENT);

    p->init_size = st_max(get32(h + HDR_INIT_SIZE), p->payload_len);
    p->load = get64(h + HDR_PREFERRED);
    if (p->load >= ST_MAP_HIGH && st_range_ok(p->load, p->init_size, p->low))
        return 0;
    if (!h[HDR_RELOCATABLE])
        return st_err_set(err, EINVAL,
                          "kernel '%s' runs at %#" PRIx64 " only, which is "
                          "not within %" PRIu64 " MiB of memory",
                          b->kernel.name, p->load, p->low / 1048576);
    if (!st_is_pow2(align) || align < PAGE)
        return st_err_set(err, EINVAL,
                          "kernel '%s' wants to be aligned to %" PRIu64,
                          b->kernel.name, align);
    p->load = st_align_up(ST_MAP_HIGH, align);
    if (st_range_ok(p->load, p->init_size, p->low))
        return 0;
    return st_err_set(err, EINVAL,
                      "kernel '%s' needs %" PRIu64 " MiB of memory, and there "
                      "are %" PRIu64,
                      b->kernel.name,
                      (p->load + p->init_size - 1) / 1048576 + 1,
                      p->low / 1048576);
}

static int
place_initrd(const struct st_boot_linux *b, struct plan *p, struct st_err *err)
{
    uint64_t top =
        st_min(p->low, (uint64_t)get32(p->header + HDR_INITRD_MAX) + 1);
    int rc;

    if (!b->initrd)
        return 0;
    rc = file_size(b->initrd, "initrd", &p->initrd_len, err);
    if (rc < 0)
        return rc;
    if (!p->initrd_len)
        return st_err_set(err, EINVAL, "initrd '%s' is empty", b->initrd->name);
    if (p->initrd_len <= top) {
        /* Above the kernel, else below it. */
        p->initrd = st_align_down(top - p->initrd_len, PAGE);
        if (p->initrd >= p->load + p->init_size)
            return 0;
        top = st_min(top, p->load);
    }
    if (p->initrd_len <= top) {
        p->initrd = st_align_down(top - p->initrd_len, PAGE);
        if (p->initrd >= ST_MAP_HIGH)
            return 0;
    }
    return st_err_set(err, EINVAL,
                      "initrd '%s' of %" PRIu64 " MiB does not fit beside the "
                      "kernel into %" PRIu64 " MiB of memory",
                      b->initrd->name, p->initrd_len / 1048576 + 1,
                      p->low / 1048576);
}

static int
check_cmdline(const struct st_boot_linux *b, struct plan *p, struct st_err *err)
{
    uint64_t most = st_min(get32(p->header + HDR_CMDLINE_SIZE),
                           ST_MAP_EBDA - AT_CMDLINE - 1);

    p->cmdline_len = strlen(b->cmdline);
    if (p->cmdline_len > most)
        return st_err_set(err, EINVAL,
                          "the command line has %zu characters, and the "
                          "kernel takes %" PRIu64,
                          p->cmdline_len, most);
    return 0;
}

/* ---- Guest memory ---- */

static void
write_zero_page(const struct st_boot_linux *b, const struct plan *p,
                uint8_t *ram)
{
    uint8_t *z = ram + AT_ZERO_PAGE;
    unsigned end = HDR_MAGIC + p->header[HDR_JUMP_LENGTH];

    memset(z, 0, PAGE);
    memcpy(z + HDR_SETUP_SECTS, p->header + HDR_SETUP_SECTS,
           st_min(end, ZERO_E820) - HDR_SETUP_SECTS);
    put64(z + ZERO_RSDP, ST_MAP_BIOS);
    z[HDR_VIDEO] = z[HDR_VIDEO + 1] = 0xff; /* "normal" */
    z[HDR_LOADER] = 0xff;                   /* no number of its own */
    z[HDR_LOADFLAGS] |= 1;                  /* loaded high */
    put32(z + HDR_CMDLINE, AT_CMDLINE);
    put32(z + HDR_INITRD, (uint32_t)p->initrd);
    put32(z + HDR_INITRD_SIZE, (uint32_t)p->initrd_len);
    z[ZERO_E820_LINES] = (uint8_t)b->ne820;
    for (unsigned i = 0; i < b->ne820; i++) {
        uint8_t *line = z + ZERO_E820 + 20 * i;

        put64(line, b->e820[i].gpa);
        put64(line + 8, b->e820[i].len);
        put32(line + 16, b->e820[i].type);
    }
}

/* One page that points to the next, that to four, and these to 2 MiB each. */
static void
write_page_tables(uint8_t *ram)
{
    uint8_t *top = ram + AT_PAGE_TABLES;

    memset(top, 0, 6 * PAGE);
    put64(top, (AT_PAGE_TABLES + PAGE) | 3);
    for (unsigned i = 0; i < 4; i++)
        put64(top + PAGE + 8 * i, (AT_PAGE_TABLES + (2 + i) * PAGE) | 3);
    for (unsigned i = 0; i < 4 * 512; i++)
        put64(top + 2 * PAGE + 8 * i, (uint64_t)i << 21 | 0x83);
}

static void
fill_regs(const struct plan *p, uint8_t *ram, struct st_boot_regs *regs)
{
    static const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff,
                                   0x00cf93000000ffff};

    for (unsigned i = 0; i < 4; i++)
        put64(ram + AT_GDT + 8 * i, gdt[i]);
    *regs = (struct st_boot_regs){
        .rip = p->load + ENTRY_64,
        .rsp = AT_STACK,
        .rsi = AT_ZERO_PAGE,
        .rflags = 2,
        .cr0 = 0x80050033, /* PG AM WP NE ET MP PE */
        .cr3 = AT_PAGE_TABLES,
        .cr4 = 0x20,   /* PAE */
        .efer = 0x500, /* LMA LME */
        .gdt_base = AT_GDT,
        .gdt_limit = sizeof(gdt) - 1,
        .code = {.selector = 0x10, .type = 11, .long_mode = true},
        .data = {.selector = 0x18, .type = 3, .big = true},
    };
}

static int
make_plan(const struct st_boot_linux *b, struct plan *p, struct st_err *err)
{
    int rc;

    *p = (struct plan){.low = st_guest_ram_low(b->ram, b->nram)};
    if (!st_guest_ram_at(b->ram, b->nram, 0, ST_MAP_EBDA) ||
        p->low <= ST_MAP_HIGH)
        return st_err_set(err, EINVAL,
                          "a kernel needs more than 1 MiB of memory");
    rc = look_at_kernel(b, p, err);
    if (rc == 0)
        rc = place_kernel(b, p, err);
    if (rc == 0)
        rc = place_initrd(b, p, err);
    return rc ? rc : check_cmdline(b, p, err);
}

int
st_boot_linux_check(const struct st_boot_linux *b, struct st_err *err)
{
    struct plan p;

    return make_plan(b, &p, err);
}

int
st_boot_linux(const struct st_boot_linux *b, struct st_boot_regs *regs,
              struct st_err *err)
{
    struct plan p;
    uint8_t *ram, *high;
    int rc = make_plan(b, &p, err);

    if (rc < 0)
        return rc;
    ram = st_guest_ram_at(b->ram, b->nram, 0, ST_MAP_EBDA);
    high = st_guest_ram_at(b->ram, b->nram, ST_MAP_HIGH, p.low - ST_MAP_HIGH);
    assert(ram && high);
    rc = file_read(&b->kernel, "kernel", p.payload_at,
                   high + (p.load - ST_MAP_HIGH), p.payload_len, err);
    if (rc == 0 && b->initrd)
        rc = file_read(b->initrd, "initrd", 0, high + (p.initrd - ST_MAP_HIGH),
                       p.initrd_len, err);
    if (rc < 0)
        return rc;
    memcpy(ram + AT_CMDLINE, b->cmdline, p.cmdline_len + 1);
    write_zero_page(b, &p, ram);
    write_page_tables(ram);
    fill_regs(&p, ram, regs);
    return 0;
}
