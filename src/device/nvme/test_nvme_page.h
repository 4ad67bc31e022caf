/* SPDX-License-Identifier: MIT
 *
 * What tests of a controller's pages share: disks of every kind as namespaces,
 * and a page from which fields are taken by the standard's offsets until only
 * zeroes may be left.
 */
#ifndef TEST_NVME_PAGE_H
#define TEST_NVME_PAGE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "nvme_page.h"
#include "testnode.h"

enum { NN = 40, OWN = 7 };

static struct rig {
    struct st_domain *d;
    struct st_loop *loop;
    struct st_disk *disk[NN];
    struct nvme_ns space[NN];
    struct nvme_ns *ns[NN];
    struct nvme_ns_table t;
    struct nvme_info info;
    struct nvme_sqe sqe;
    uint8_t page[NVME_IDENTIFY_SIZE];
} rig;

static const uint16_t cntlids[] = {2, OWN, 300};

/* Attach a disk of SIZE bytes as NSID. */
static inline struct nvme_ns *
attach_size(uint32_t nsid, uint32_t sector, uint64_t size,
            const struct st_props *p)
{
    struct st_testnode_opts o = {.size = size, .sector = sector};
    struct nvme_ns *ns = &rig.space[nsid - 1];
    struct st_node *node;

    assert_int_equal(st_testnode_create(rig.loop, &o, &node, NULL), 0);
    if (p) {
        node->props.physical_sector_size = p->physical_sector_size;
        node->props.unmap_granularity = p->unmap_granularity;
        node->props.unmap = p->unmap;
        if (p->unmap_granularity)
            node->props.performs |= ST_BIT(ST_OP_UNMAP);
        else
            node->props.performs &= ~ST_BIT(ST_OP_UNMAP);
        node->props.read_only = p->read_only;
    }
    assert_int_equal(
        st_disk_create(rig.loop, node, "d", false, &rig.disk[nsid - 1], NULL),
        0);
    ns->nsid = nsid;
    ns->disk = rig.disk[nsid - 1];
    ns->read_only = p && p->read_only;
    ns->shift = (unsigned)__builtin_ctz(sector);
    for (unsigned i = 0; i < 16; i++) {
        ns->nguid[i] = (uint8_t)(nsid + i);
        ns->uuid[i] = (uint8_t)(0xa0 + nsid + i);
    }
    return rig.ns[nsid - 1] = ns;
}

static inline struct nvme_ns *
attach(uint32_t nsid, uint32_t sector, const struct st_props *p)
{
    return attach_size(nsid, sector, 1 << 20, p);
}

static inline int
setup(void **state)
{
    struct st_domain_opts o = {.engine = "virtual", .seed = 1};

    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_domain_create(&o, &rig.d, NULL), 0);
    assert_int_equal(st_loop_create(rig.d, &rig.loop, NULL), 0);
    rig.t = (struct nvme_ns_table){
        .ns = rig.ns, .nn = NN, .cntlids = cntlids, .ncntlids = 3};
    rig.info = (struct nvme_info){
        .vendor = 0x1414,
        .subsystem_vendor = 0x1415,
        .cntlid = OWN,
        .serial = "serial",
        .model = "MSFT NVMe Accelerator v1.0",
        .firmware = "1.2",
        .subnqn = "nqn.2014-08.org.nvmexpress:uuid:x",
        .nn = NN,
        .queues = 8,
        .vectors = 9,
        .mqes = 1023,
    };
    return 0;
}

static inline int
teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NN; i++)
        st_disk_destroy(rig.disk[i]);
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.d);
    return 0;
}

/* ---- Fields ---- */

/* The little-endian number in SIZE bytes at OFFSET, which become zeroes. */
static inline uint64_t
take(unsigned offset, unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = size; i--;) {
        v = v << 8 | rig.page[offset + i];
        rig.page[offset + i] = 0;
    }
    return v;
}

/* SIZE bytes at OFFSET are TEXT, filled up by PAD. */
static inline void
take_text(unsigned offset, unsigned size, const char *text, char pad)
{
    char *p = (char *)rig.page + offset;

    assert_memory_equal(p, text, strlen(text));
    for (size_t i = strlen(text); i < size; i++)
        assert_int_equal(p[i], pad);
    memset(p, 0, size);
}

static inline void
take_bytes(unsigned offset, const void *bytes, unsigned size)
{
    assert_memory_equal(rig.page + offset, bytes, size);
    memset(rig.page + offset, 0, size);
}

/* Everything else is reserved, or none. */
static inline void
rest_is_zero(unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        if (rig.page[i])
            fail_msg("byte %u is %02x", i, rig.page[i]);
}

#endif
