/* SPDX-License-Identifier: MIT
 *
 * A command on its way: what queues hand to the NVM command set, and get back.
 * Private to the controller.
 *
 *   queue.c                              io.c
 *   ------------------------------       ----------------------------------
 *   copy the entry into a slot
 *   st_nvme_io_start --------------->    check, translate, st_submit
 *   cmd->done: post, free the slot  <--  status and dw0, on the slot's loop
 *
 * Slots are allocated with their queue; nothing is allocated for a command but
 * what io.c takes from its pool, which has a bound and a queue of waiters.
 */
#ifndef ST_NVME_CMD_H
#define ST_NVME_CMD_H

#include "data.h"
#include "disk.h"

/* What io.c takes at most, and Identify says (NVM Command Set 4.1.5). Blocks
 * are logical blocks. 0x002 or, where it says so, 0x183 beyond. */
enum {
    /* MDTS is NVME_DATA_MAX. Identify CNS 06h, as 2^n pages: the bytes of a
     * Verify and of a Write Zeroes (16 bits of blocks, up to 4 KiB each). */
    NVME_VSL = 16,
    NVME_WZSL = 16,
    /* Dataset Management: all 256 ranges, of any size. DMRL, DMRSL and DMSL
     * are 0: no limit. */
    NVME_DSM_RANGES = 256,
    /* Copy, 0x183: blocks of one source range, of all, and ranges (MSRC is
     * 0-based). */
    NVME_MSSRL = 4096,
    NVME_MCL = 32768,
    NVME_MSRC = 127,
    /* Bytes of a fused Compare and Write, 0x014: ACWU and NACWU (0-based, in
     * blocks) must not say more. */
    NVME_FUSED_MAX = 64 << 10,
};

/* A namespace as its disk was attached. Read-only while commands use it. */
struct nvme_ns {
    uint32_t nsid;
    struct st_disk *disk;    /* borrowed */
    bool read_only;          /* the attachment, or the disk, is */
    bool shared;             /* NMIC: other controllers may have it */
    unsigned shift;          /* log2 of bytes in a logical block */
    uint16_t nexus;          /* of this controller at the disk */
    _Atomic bool gone;       /* removed: new commands get Invalid Namespace */
    _Atomic bool formatting; /* others get Format In Progress */
    uint8_t uuid[16], nguid[16]; /* never all zero */
};

/* One loop's door to a namespace; the loop's own. */
struct nvme_door {
    struct nvme_ns *ns;
    struct st_chan *chan;
    unsigned in_flight; /* commands that use it; namespace.c counts */
    bool leaving;       /* namespace.c's: closes with the last one */
};

/* What one I/O loop has of one controller. The first part is what io.c
 * needs. */
struct nvme_io {
    struct st_loop *loop;
    struct st_gmem_view *view;
    /* NN doors by nsid - 1; ns is NULL where none is. Opened by queue.c. */
    struct nvme_door *door;
    unsigned ndoors;
    /* What a broadcast flush does beside: the door of NSID (1..ndoors), opened
     * if it was not (chan is NULL if it cannot be), with one more command in
     * flight until close; NULL where no namespace is, or it is gone. On the
     * loop. */
    struct nvme_door *(*open)(struct nvme_io *io, uint32_t nsid);
    void (*close)(struct nvme_io *io, struct nvme_door *door);
    bool sgl; /* SGLs are taken */
    /* Set Features 06h: the guest's wish that writes are durable when they
     * complete (WCE = 0). */
    const _Atomic bool *write_through;
    struct nvme_pool *pool; /* io.c's own: see st_nvme_io_init */
    /* Counters, io.c's: 512-byte units for SMART. */
    _Atomic uint64_t read_blocks, written_blocks, reads, writes, media_errors;
};

/* A command's slot. */
struct nvme_cmd {
    struct nvme_sqe sqe;    /* a copy: guests change theirs */
    struct nvme_io *io;     /* where it runs */
    struct nvme_door *door; /* its namespace's; NULL for a broadcast flush and
                             * for admin commands */
    uint16_t status;        /* out: enum nvme_status | NVME_DNR */
    uint32_t dw0;           /* out */
    uint64_t error_lba;     /* out, for the error log; UINT64_MAX: none */
    /* Called once, on the loop, never within st_nvme_io_start. */
    void (*done)(struct nvme_cmd *c);
    /* The first command of a fused pair (Compare), if this is the second
     * (Write): both are carried out by the second's start, as one; done is
     * called for the first, then for the second. */
    struct nvme_cmd *fused;
    /* io.c's own, from start to done. */
    struct nvme_data data;
    struct st_req *req; /* owned by the slot, grows when the disk deepens */
    struct st_task task;
    struct st_list link;        /* waits for the pool */
    struct nvme_buffer *work;   /* out of the pool */
    struct nvme_cmd *second;    /* of a fused pair, in its first */
    struct nvme_door *flushing; /* by a broadcast flush, now */
    void (*next)(struct nvme_cmd *c);
    unsigned state; /* enum nvme_io_state */
    unsigned step, ranges;
    uint64_t at, left, passed; /* bytes */
    bool aborted;              /* st_nvme_io_abort was called */
};

/* Make room for io.c on this loop / give it back; no command is left. 0 or
 * -ENOMEM. On the loop. */
int st_nvme_io_init(struct nvme_io *io);
void st_nvme_io_fini(struct nvme_io *io);

/* Carry out the NVM command C->sqe (NVM Command Set 3): io, door, sqe, fused
 * and done are set, the namespace is there. On the loop. */
void st_nvme_io_start(struct nvme_cmd *c);

/* Format NVM, and the flush at shutdown: erase (discard or write zeroes) the
 * whole namespace of C->door, or flush it. status and done as above. */
void st_nvme_io_erase(struct nvme_cmd *c);
void st_nvme_io_flush(struct nvme_cmd *c);

/* Give C up: it completes soon, as it would have or as Command Abort
 * Requested. On the loop, between start and done. */
void st_nvme_io_abort(struct nvme_cmd *c);

/* Free what a slot owns (not the slot). Not under way. */
void st_nvme_io_slot_free(struct nvme_cmd *c);

#endif
