/* SPDX-License-Identifier: MIT
 *
 * The file of a saved machine (private to the room): sections, each of a device
 * and with a version, then RAM.
 *
 *   0    8  "StrataVM"
 *   8    4  version, 1
 *   12   4  sections
 *   16   8  bytes of all sections, S
 *   24   8  bytes of RAM, R
 *   32   8  where RAM begins in the file, a multiple of 64 KiB
 *   40   4  CRC-32C of RAM, see st_saved_ram_sum
 *   44   4  CRC-32C of all sections
 *   48   4  0
 *   52   4  CRC-32C of bytes 0 to 51
 *   56   S  sections
 *        R  RAM, as machine_ram.h lays it out; what is zero is a hole
 *
 * A section:
 *
 *   0   32  name, zeroes behind it
 *   32   4  version of what it holds
 *   36   4  0
 *   40   8  how many, L
 *   48   L  bytes, then zeroes up to a multiple of 8
 *
 * All integers are little-endian. A file is written beside its name and renamed
 * when it is on the disk: under its name there is a whole one, or what was
 * there before. Only its owner may read it: it holds all that the guest knows.
 */
#ifndef ST_SAVED_H
#define ST_SAVED_H

#include <stdatomic.h>

#include "machine_ram.h"
#include "pack.h"

enum {
    ST_SAVED_NAME = 32,      /* bytes of a name, a zero among them */
    ST_SAVED_SECTIONS = 256, /* at most */
    ST_SAVED_HEADER = 56,
};
#define ST_SAVED_MAX    (UINT64_C(256) << 20) /* bytes of all sections */
#define ST_SAVED_RAM_AT (UINT64_C(64) << 10)  /* RAM is aligned to it */

/* What is saved of a device: one function lists its values, to be written and
 * to be read (pack.h). It takes the device's lock itself, and while it reads
 * says bad of what the device cannot be. A device that could not read is only
 * to be destroyed. */
struct st_saved_device {
    const char *name;
    uint32_t version; /* of the list; older ones are read by it, too */
    void (*walk)(struct st_pack *k, void *device);
    void *device;
};

/* A section. */
struct st_saved_section {
    char name[ST_SAVED_NAME];
    uint32_t version;
    uint8_t *data; /* owned */
    size_t len;
};

/* A saved machine, without its RAM. */
struct st_saved {
    struct st_saved_section section[ST_SAVED_SECTIONS];
    unsigned n;
    uint64_t ram_size, ram_at;
    uint32_t ram_sum;
};

/* Accepts zeroes; they are zeroes afterwards. */
void st_saved_free(struct st_saved *s);

/* One more section; DATA (malloc'd; NULL is -ENOMEM) is S's, also on failure.
 * 0, -ENOMEM, or -ENOSPC: there are too many. */
int st_saved_add(struct st_saved *s, const char *name, uint32_t version,
                 void *data, size_t len);

/* What D says of itself is one more section. As st_saved_add. */
int st_saved_take(struct st_saved *s, const struct st_saved_device *d);

/* NULL: there is none of that NAME. */
const struct st_saved_section *st_saved_find(const struct st_saved *s,
                                             const char *name);

/* Make D what its section says. 0, or -EINVAL with a sentence. */
int st_saved_put(const struct st_saved *s, const struct st_saved_device *d,
                 struct st_err *err);

/* ---- Its bytes, but for RAM: saved.c ---- */

/* How many they are. */
size_t st_saved_size(const struct st_saved *s);

/* They: malloc'd; NULL: no memory. What S says of RAM is in them. */
uint8_t *st_saved_bytes(const struct st_saved *s);

#define ST_SAVED_NONE "this is no saved machine"

/* Read all but RAM from LEN bytes at P, the beginning of a file of FILE_SIZE
 * bytes: as many as st_saved_head of the first ST_SAVED_HEADER says. 0, or
 * -errno with a sentence; st_saved_free in any case. S is zeroed. */
int st_saved_parse(struct st_saved *s, const void *p, size_t len,
                   uint64_t file_size, struct st_err *err);

/* How many bytes from the beginning on st_saved_parse wants, by the first LEN;
 * 0: this is no saved machine. */
size_t st_saved_head(const void *p, size_t len);

/* ---- The file: saved_file.c ---- */

/* Write S and RAM as PATH. Blocks; *CANCEL, which others set, ends it. 0, or
 * -errno with a sentence: there is no new file then. */
int st_saved_write(struct st_saved *s, const struct st_machine_ram *ram,
                   const char *path, const _Atomic bool *cancel,
                   struct st_err *err);

/* As st_saved_parse, from FD. Blocks. */
int st_saved_read(struct st_saved *s, int fd, struct st_err *err);

/* Read RAM, zeroed and of S's size, from FD. 0, or -errno with a sentence.
 * Blocks. */
int st_saved_read_ram(const struct st_saved *s, int fd,
                      const struct st_machine_ram *ram, struct st_err *err);

/* The checksum goes on with the page at P, at OFFSET in RAM's file: pages that
 * are zero do not count. */
uint32_t st_saved_ram_sum(uint32_t sum, uint64_t offset, const uint8_t *p);

#endif
