/* SPDX-License-Identifier: MIT
 *
 * vfio-user on the wire (QEMU's docs/interop/vfio-user.rst; Linux' vfio.h for
 * what it carries). The protocol is in host byte order; here that is little
 * endian.
 *
 *   | header 16 | payload |      size covers both; fds come with the header
 */
#ifndef VFIO_PROTO_H
#define VFIO_PROTO_H

#include <assert.h>
#include <stddef.h>

#include "wire.h"

enum vfio_command {
    VFIO_VERSION = 1,
    VFIO_DMA_MAP = 2,
    VFIO_DMA_UNMAP = 3,
    VFIO_GET_INFO = 4,
    VFIO_GET_REGION_INFO = 5,
    VFIO_GET_REGION_IO_FDS = 6,
    VFIO_GET_IRQ_INFO = 7,
    VFIO_SET_IRQS = 8,
    VFIO_REGION_READ = 9,
    VFIO_REGION_WRITE = 10,
    VFIO_DMA_READ = 11,  /* from a server */
    VFIO_DMA_WRITE = 12, /* from a server */
    VFIO_RESET = 13,
    VFIO_REGION_WRITE_MULTI = 15,
    VFIO_FEATURE = 16,
};

enum { /* flags of a header */
       VFIO_TYPE = 0xf,
       VFIO_COMMAND = 0,
       VFIO_REPLY = 1,
       VFIO_NO_REPLY = 1 << 4,
       VFIO_ERROR = 1 << 5,
};

/* What every message begins with. */
struct vfio_header {
    le16 id;
    le16 command;
    le32 size; /* header and payload */
    le32 flags;
    le32 error; /* an errno in a reply with VFIO_ERROR */
};
static_assert(sizeof(struct vfio_header) == 16, "vfio-user header");

/* VERSION, both ways. */
struct vfio_version {
    le16 major, minor; /* JSON text and its NUL follow, or nothing */
};
static_assert(sizeof(struct vfio_version) == 4, "vfio-user VERSION");

enum { VFIO_MAP_READ = 1, VFIO_MAP_WRITE = 2 };

/* DMA_MAP; its reply has no payload. */
struct vfio_dma_map {
    le32 argsz, flags;
    le64 offset; /* in the file that comes along */
    le64 address, size;
};
static_assert(sizeof(struct vfio_dma_map) == 32, "vfio-user DMA_MAP");

enum { VFIO_UNMAP_BITMAP = 1, VFIO_UNMAP_ALL = 2 };

/* DMA_UNMAP; its reply carries it back. */
struct vfio_dma_unmap {
    le32 argsz, flags;
    le64 address, size;
};
static_assert(sizeof(struct vfio_dma_unmap) == 24, "vfio-user DMA_UNMAP");

enum { VFIO_DEVICE_RESET = 1, VFIO_DEVICE_PCI = 2 };

/* DEVICE_GET_INFO, both ways. */
struct vfio_info {
    le32 argsz, flags, regions, irqs;
};
static_assert(sizeof(struct vfio_info) == 16, "vfio-user GET_INFO");

enum { /* regions; 0 to 5 are the BARs */
       VFIO_ROM = 6,
       VFIO_CONFIG = 7,
       VFIO_VGA = 8,
       VFIO_REGIONS = 9,
};

enum { /* flags of a region */
       VFIO_REGION_READABLE = 1,
       VFIO_REGION_WRITABLE = 2,
       VFIO_REGION_MMAP = 4,
       VFIO_REGION_CAPS = 8,
};

/* DEVICE_GET_REGION_INFO, both ways; capabilities may follow a reply. */
struct vfio_region_info {
    le32 argsz, flags, index;
    le32 cap_offset; /* in this payload */
    le64 size;
    le64 offset; /* in the file that comes along */
};
static_assert(sizeof(struct vfio_region_info) == 32, "vfio-user REGION_INFO");
static_assert(offsetof(struct vfio_region_info, size) == 16, "REGION_INFO");

/* The capability that says which part of a region can be mapped. */
struct vfio_sparse {
    le16 id, version; /* 1, 1 */
    le32 next;
    le32 areas, reserved;
    le64 offset, size; /* of the one area; in the region */
};
static_assert(sizeof(struct vfio_sparse) == 32, "vfio sparse mmap");

enum { VFIO_INTX, VFIO_MSI, VFIO_MSIX, VFIO_ERR, VFIO_REQ, VFIO_IRQS };

enum { /* flags of IRQ_INFO */
       VFIO_IRQ_EVENTFD = 1,
       VFIO_IRQ_MASKABLE = 2,
       VFIO_IRQ_AUTOMASKED = 4,
};

/* DEVICE_GET_IRQ_INFO, both ways. */
struct vfio_irq_info {
    le32 argsz, flags, index, count;
};
static_assert(sizeof(struct vfio_irq_info) == 16, "vfio-user IRQ_INFO");

enum { /* flags of SET_IRQS */
       VFIO_DATA_NONE = 1,
       VFIO_DATA_BOOL = 2,
       VFIO_DATA_EVENTFD = 4,
       VFIO_DATA = 7,
       VFIO_MASK = 8,
       VFIO_UNMASK = 16,
       VFIO_TRIGGER = 32,
       VFIO_ACTION = 56,
};

/* DEVICE_SET_IRQS; its reply has no payload. */
struct vfio_set_irqs {
    le32 argsz, flags, index, start, count; /* data of BOOL follows */
};
static_assert(sizeof(struct vfio_set_irqs) == 20, "vfio-user SET_IRQS");

/* REGION_READ and REGION_WRITE, both ways. */
struct vfio_region_access {
    le64 offset;
    le32 region, count; /* data follows in a write and in a read's reply */
};
static_assert(sizeof(struct vfio_region_access) == 16, "vfio-user REGION");

/* One write of REGION_WRITE_MULTI, behind a le64 that says how many. */
struct vfio_write_multi {
    le64 offset;
    le32 region, count;
    uint8_t data[8];
};
static_assert(sizeof(struct vfio_write_multi) == 24, "vfio-user WRITE_MULTI");

/* DMA_READ and DMA_WRITE, both ways. */
struct vfio_dma_access {
    le64 address, count; /* data follows in a write and in a read's reply */
};
static_assert(sizeof(struct vfio_dma_access) == 16, "vfio-user DMA_READ");

enum {
    VFIO_PAGE = 4096,
    VFIO_XFER_MAX = 1 << 20, /* what we take as a count */
    VFIO_FDS = 16,           /* in a message that we take, as we say */
    VFIO_FDS_ROOM = 64,      /* in a message that we can receive */
    VFIO_MESSAGE_MAX = 16 + 16 + VFIO_XFER_MAX + 4096,
};

#endif
