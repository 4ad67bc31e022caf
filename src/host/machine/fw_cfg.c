/* SPDX-License-Identifier: MIT
 *
 * The firmware configuration device; see fw_cfg.h.
 *
 * Nothing of it can be written. A request for DMA is read once from the guest's
 * memory; its answer is its first word, written last.
 */
#include "fw_cfg.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "range.h"
#include "wire.h"

enum { /* items */
       KEY_SIGNATURE = 0x00,
       KEY_ID = 0x01,
       KEY_CPUS = 0x05,
       KEY_CPUS_MAX = 0x0f,
       KEY_DIRECTORY = 0x19,
       KEY_FILES = 0x20
};

enum { ID_TRADITIONAL = 1, ID_DMA = 2 };

enum { /* ports, from the first */
       AT_SELECTOR = 0,
       AT_DATA = 1,
       AT_DMA_HIGH = 4,
       AT_DMA_LOW = 8,
       PORTS = 12
};

enum { /* of a request */
       DMA_ERROR = 1,
       DMA_READ = 2,
       DMA_SKIP = 4,
       DMA_SELECT = 8,
       DMA_WRITE = 16
};

/* A request for DMA (docs/specs/fw_cfg). */
struct dma {
    be32 control, length;
    be64 address;
};
static_assert(sizeof(struct dma) == 16, "FWCfgDmaAccess");

/* A file's line in the directory. */
struct entry {
    be32 size;
    be16 key, reserved;
    char name[ST_FW_CFG_NAME];
};
static_assert(sizeof(struct entry) == 64, "FWCfgFile");

/* One step of the script (QEMU, hw/acpi/bios-linker-loader.c). */
struct step {
    le32 command;
    char file[ST_FW_CFG_NAME];
    union {
        struct {
            le32 align;
            uint8_t zone;
        } allocate;
        struct {
            char from[ST_FW_CFG_NAME];
            le32 at;
            uint8_t size;
        } pointer;
        struct {
            le32 at, start, len;
        } checksum;
        uint8_t all[68];
    };
};
static_assert(sizeof(struct step) == 128, "BiosLinkerLoaderEntry");
static_assert(offsetof(struct step, pointer.at) == 116, "offset");
static_assert(offsetof(struct step, pointer.size) == 120, "size");

enum { STEP_ALLOCATE = 1, STEP_POINTER = 2, STEP_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

/* Bytes that can be read. */
struct item {
    const uint8_t *data;
    size_t len;
};

struct st_fw_cfg {
    struct st_region region;
    struct st_space *ports; /* borrowed */
    struct st_guest_ram ram[8];
    unsigned nram;
    le16 cpus;
    uint8_t *file[ST_FW_CFG_FILES]; /* owned */
    unsigned files;
    struct {
        be32 count;
        struct entry entry[ST_FW_CFG_FILES];
    } directory;
    pthread_mutex_t lock; /* all below */
    uint16_t key;
    size_t offset; /* of the next byte */
    uint32_t dma_high;
};

/* ---- Items ---- */

static struct item
item_of(const struct st_fw_cfg *f, uint16_t key)
{
    static const uint8_t id[4] = {ID_TRADITIONAL | ID_DMA};

    switch (key) {
    case KEY_SIGNATURE:
        return (struct item){(const uint8_t *)"QEMU", 4};
    case KEY_ID:
        return (struct item){id, sizeof(id)};
    case KEY_CPUS:
    case KEY_CPUS_MAX:
        return (struct item){f->cpus.b, sizeof(f->cpus)};
    case KEY_DIRECTORY:
        return (struct item){f->directory.count.b,
                             4 + f->files * sizeof(struct entry)};
    default:
        if (key < KEY_FILES || key - KEY_FILES >= (int)f->files)
            return (struct item){NULL, 0};
        return (struct item){
            f->file[key - KEY_FILES],
            be32_get(f->directory.entry[key - KEY_FILES].size)};
    }
}

/* The next LEN bytes; zeroes behind the end. TO may be NULL. */
static void
read_next(struct st_fw_cfg *f, uint8_t *to, size_t len)
{
    struct item item = item_of(f, f->key);
    size_t left = item.len - st_min(f->offset, item.len);
    size_t n = st_min(len, left);

    if (to && n)
        memcpy(to, item.data + f->offset, n);
    if (to)
        memset(to + n, 0, len - n);
    f->offset += n;
}

static void
select_item(struct st_fw_cfg *f, uint16_t key)
{
    f->key = key;
    f->offset = 0;
}

/* ---- DMA ---- */

/* Carry out a request. What its control word becomes. */
static uint32_t
dma_carry_out(struct st_fw_cfg *f, const struct dma *d)
{
    uint32_t control = be32_get(d->control), len = be32_get(d->length);
    uint8_t *to;

    if (control & DMA_SELECT)
        select_item(f, (uint16_t)(control >> 16));
    if (control & DMA_READ) {
        to = st_guest_ram_at(f->ram, f->nram, be64_get(d->address), len);
        if (!to || len > ST_FW_CFG_DMA_MAX)
            return DMA_ERROR;
        read_next(f, to, len);
    } else if (control & DMA_WRITE) {
        return DMA_ERROR;
    } else if (control & DMA_SKIP) {
        read_next(f, NULL, len);
    }
    return 0;
}

static void
dma_request(struct st_fw_cfg *f, uint32_t low)
{
    uint64_t gpa = (uint64_t)f->dma_high << 32 | low;
    uint8_t *at = st_guest_ram_at(f->ram, f->nram, gpa, sizeof(struct dma));
    struct dma d;
    be32 control;

    f->dma_high = 0;
    if (!at)
        return; /* where should an error be written? */
    memcpy(&d, at, sizeof(d));
    control = be32_of(dma_carry_out(f, &d));
    memcpy(at, &control, sizeof(control));
}

/* ---- Ports ---- */

static uint64_t
reversed(uint64_t value, unsigned len)
{
    return be64toh(htole64(value)) >> (64 - 8 * len);
}

static uint64_t
ports_read(struct st_fw_cfg *f, unsigned at, unsigned len)
{
    /* The DMA address reads as a signature, so that it can be found. */
    static const uint8_t signature[] = "QEMU CFG";
    uint64_t value = 0;
    uint8_t byte;

    for (unsigned i = 0; i < len; i++) {
        byte = 0;
        if (at == AT_DATA)
            read_next(f, &byte, 1); /* a string of bytes at one port */
        else if (at + i >= AT_DMA_HIGH)
            byte = signature[at + i - AT_DMA_HIGH];
        value |= (uint64_t)byte << 8 * i;
    }
    return value;
}

static void
ports_write(struct st_fw_cfg *f, unsigned at, unsigned len, uint64_t value)
{
    if (at == AT_SELECTOR && len == 2)
        select_item(f, (uint16_t)value);
    else if (at == AT_DMA_HIGH && len == 4)
        f->dma_high = (uint32_t)reversed(value, 4);
    else if (at == AT_DMA_LOW && len == 4)
        dma_request(f, (uint32_t)reversed(value, 4));
    else if (at == AT_DMA_HIGH && len == 8) {
        f->dma_high = (uint32_t)reversed(value & UINT32_MAX, 4);
        dma_request(f, (uint32_t)reversed(value >> 32, 4));
    }
}

static bool
fw_cfg_access(struct st_region *r, struct st_access *a)
{
    struct st_fw_cfg *f = r->arg;

    pthread_mutex_lock(&f->lock);
    if (a->write)
        ports_write(f, (unsigned)a->offset, a->len, a->value);
    else
        a->value = ports_read(f, (unsigned)a->offset, a->len);
    pthread_mutex_unlock(&f->lock);
    return true;
}

static const struct st_region_ops fw_cfg_ops = {"fw_cfg", fw_cfg_access};

/* ---- Files ---- */

int
st_fw_cfg_add(struct st_fw_cfg *f, const char *name, const void *data,
              size_t len)
{
    struct entry *e = &f->directory.entry[f->files];
    uint8_t *copy;

    if (!*name || strlen(name) >= ST_FW_CFG_NAME || len > UINT32_MAX)
        return -EINVAL;
    for (unsigned i = 0; i < f->files; i++)
        if (!strcmp(f->directory.entry[i].name, name))
            return -EEXIST;
    if (f->files == ST_FW_CFG_FILES)
        return -ENOSPC;
    copy = malloc(len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, len);
    f->file[f->files] = copy;
    e->size = be32_of((uint32_t)len);
    e->key = be16_of((uint16_t)(KEY_FILES + f->files));
    memcpy(e->name, name, strlen(name));
    f->directory.count = be32_of(++f->files);
    return 0;
}

static const char rsdp_file[] = "etc/acpi/rsdp";
static const char tables_file[] = "etc/acpi/tables";

static struct step
step(unsigned command, const char *file)
{
    struct step s = {.command = le32_of(command)};

    memcpy(s.file, file, strlen(file));
    return s;
}

static struct step
step_allocate(const char *file, uint32_t align, uint8_t zone)
{
    struct step s = step(STEP_ALLOCATE, file);

    s.allocate.align = le32_of(align);
    s.allocate.zone = zone;
    return s;
}

/* The SIZE bytes at AT of FILE point into the tables. */
static struct step
step_pointer(const char *file, uint32_t at, uint8_t size)
{
    struct step s = step(STEP_POINTER, file);

    memcpy(s.pointer.from, tables_file, sizeof(tables_file));
    s.pointer.at = le32_of(at);
    s.pointer.size = size;
    return s;
}

static struct step
step_checksum(const char *file, uint32_t at, uint32_t start, uint32_t len)
{
    struct step s = step(STEP_CHECKSUM, file);

    s.checksum.at = le32_of(at);
    s.checksum.start = le32_of(start);
    s.checksum.len = le32_of(len);
    return s;
}

int
st_fw_cfg_add_acpi(struct st_fw_cfg *f, const struct st_acpi *a)
{
    struct step script[5 + ST_ACPI_POINTERS + ST_ACPI_TABLES];
    unsigned n = 0;
    int rc;

    script[n++] = step_allocate(rsdp_file, 16, ZONE_FSEG);
    script[n++] = step_allocate(tables_file, ST_ACPI_ALIGN, ZONE_HIGH);
    for (unsigned i = 0; i < a->pointers; i++)
        script[n++] =
            step_pointer(tables_file, a->pointer[i].at, a->pointer[i].size);
    for (unsigned i = 0; i < a->tables; i++)
        script[n++] = step_checksum(tables_file, a->table[i].start + 9,
                                    a->table[i].start, a->table[i].len);
    script[n++] = step_pointer(rsdp_file, 24, 8);
    script[n++] = step_checksum(rsdp_file, 8, 0, 20);
    script[n++] = step_checksum(rsdp_file, 32, 0, ST_ACPI_RSDP);
    rc = st_fw_cfg_add(f, rsdp_file, a->rsdp, ST_ACPI_RSDP);
    if (rc == 0)
        rc = st_fw_cfg_add(f, tables_file, a->data, a->len);
    if (rc == 0)
        rc =
            st_fw_cfg_add(f, "etc/table-loader", script, n * sizeof(script[0]));
    return rc;
}

int
st_fw_cfg_add_e820(struct st_fw_cfg *f, bool ecam)
{
    struct {
        le64 gpa, len;
        le32 type;
    } line[10];
    unsigned n = 0;

    static_assert(sizeof(line[0]) == 20, "e820");
    /* Firmware knows itself what is below 1 MiB. */
    line[n].gpa = le64_of(0);
    line[n].len = le64_of(st_guest_ram_low(f->ram, f->nram));
    line[n++].type = le32_of(ST_E820_RAM);
    for (unsigned i = 0; i < f->nram; i++)
        if (f->ram[i].gpa >= ST_MAP_4G) {
            line[n].gpa = le64_of(f->ram[i].gpa);
            line[n].len = le64_of(f->ram[i].len);
            line[n++].type = le32_of(ST_E820_RAM);
        }
    if (ecam) {
        line[n].gpa = le64_of(ST_MAP_ECAM);
        line[n].len = le64_of(ST_MAP_ECAM_SIZE);
        line[n++].type = le32_of(ST_E820_RESERVED);
    }
    return st_fw_cfg_add(f, "etc/e820", line, n * sizeof(line[0]));
}

int
st_fw_cfg_add_boot_order(struct st_fw_cfg *f, const unsigned *slot, unsigned n)
{
    char text[64 * 32 + 8];
    size_t len = 0;

    assert(n <= 64);
    for (unsigned i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "/pci@i0cf8/disk@%x\n", slot[i]);
    len += (size_t)snprintf(text + len, sizeof(text) - len, "HALT");
    return st_fw_cfg_add(f, "bootorder", text, len + 1); /* with its end */
}

/* ---- Made and freed ---- */

int
st_fw_cfg_create(struct st_space *ports, const struct st_guest_ram *ram,
                 unsigned nram, unsigned cpus, struct st_fw_cfg **out)
{
    struct st_fw_cfg *f;
    int rc;

    if (nram > 8)
        return -EINVAL;
    f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->region = (struct st_region){
        .ops = &fw_cfg_ops, .arg = f, .start = ST_FW_CFG_PORT, .size = PORTS};
    f->ports = ports;
    memcpy(f->ram, ram, nram * sizeof(*ram));
    f->nram = nram;
    f->cpus = le16_of((uint16_t)cpus);
    pthread_mutex_init(&f->lock, NULL);
    rc = st_space_add(ports, &f->region);
    if (rc < 0) {
        pthread_mutex_destroy(&f->lock);
        free(f);
        return rc;
    }
    *out = f;
    return 0;
}

void
st_fw_cfg_destroy(struct st_fw_cfg *f)
{
    if (!f)
        return;
    st_space_remove(f->ports, &f->region);
    for (unsigned i = 0; i < f->files; i++)
        free(f->file[i]);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void
st_fw_cfg_walk(struct st_pack *k, void *fw_cfg)
{
    struct st_fw_cfg *f = fw_cfg;
    uint64_t offset;

    pthread_mutex_lock(&f->lock);
    offset = f->offset;
    st_pack_u16(k, &f->key);
    st_pack_u64(k, &offset);
    st_pack_u32(k, &f->dma_high);
    f->offset = offset;
    pthread_mutex_unlock(&f->lock);
}

void
st_fw_cfg_reset(struct st_fw_cfg *f)
{
    pthread_mutex_lock(&f->lock);
    select_item(f, KEY_SIGNATURE);
    f->dma_high = 0;
    pthread_mutex_unlock(&f->lock);
}
