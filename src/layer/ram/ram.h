/* SPDX-License-Identifier: MIT
 *
 * The RAM layer: a disk of its own (`mem:1G`), or the writable top of a
 * layered disk (`memdiff:X`). Spec: disk, RAM layer.
 *
 * Each sector is absent, zero or data. Memory follows what was written: a
 * granule (4 KiB, or one larger sector) that holds data costs itself and at
 * most 32 bytes of index; unmaps and writes of zeroes give it back.
 *
 * Nothing survives the process; FUA and flush succeed at once.
 *
 * inspect shows sector_size, sector_count, committed_size (bytes of data) and
 * index (bytes of index); set of sector_count makes the disk larger.
 */
#ifndef ST_RAM_H
#define ST_RAM_H

#include "node.h"

/* A sector may be 512 to 65536 bytes. */
enum { ST_RAM_SECTOR_MAX = 65536 };

/* Make a RAM disk of SIZE bytes (at most 2^63 - SECTOR_SIZE; 0: that of the
 * layer below, taken at attach) with sectors of SECTOR_SIZE bytes (0: those of
 * the layer below, else 512). Once ops->attach said that nothing is below it,
 * zeroes are stored as absence.
 *
 * Gives *OUT. 0, -EINVAL (sector size, or size not a multiple of it) or
 * -ENOMEM, with a sentence; ops->attach says "empty disk" where no size is to
 * be had. Home loop. */
int st_ram_create(struct st_loop *home, uint64_t size, uint32_t sector_size,
                  const char *label, struct st_node **out, struct st_err *err);

#endif
