/* SPDX-License-Identifier: MIT
 *
 * Fuzz: a guest that writes garbage everywhere. All of the platform is on its
 * spaces, with a PCI function whose BARs move; the input is accesses, each of
 * four bytes and, for writes, as many as it writes:
 *
 *   what (bit 7: memory, 6: write, 1..0: log2 of length), place, offset (2)
 *
 * A place of 0xff is the host's turn: it types, resets, saves and restores, or
 * has room again.
 */
#include <stdlib.h>
#include <string.h>

#include "address_map.h"
#include "list.h"
#include "test_board.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VECTORS = 4 };

static struct machine {
    struct board board;
    struct st_pci pci;
    struct st_pci_host host;
    struct st_region bar[2]; /* of BARs 0 and 2 */
} m;

/* ---- A PCI function, and its place ---- */

static bool
pci_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    if (a->offset + a->len > p->bar[bar].size)
        abort();
    a->value = 0;
    return true;
}

static bool
pci_reset(struct st_pci *p, struct st_access *a)
{
    (void)p;
    (void)a;
    return true;
}

static const struct st_pci_ops pci_ops = {
    .name = "toy", .access = pci_access, .reset = pci_reset};

static bool
bar_access(struct st_region *r, struct st_access *a)
{
    return st_pci_access(&m.pci, r == &m.bar[0] ? 0 : 2, a);
}

static const struct st_region_ops bar_ops = {"bar", bar_access};

static void
msix(struct st_pci_host *h, unsigned v, uint64_t address, uint32_t data)
{
    (void)h;
    (void)address;
    (void)data;
    if (v >= VECTORS)
        abort();
}

static void
bars_moved(struct st_pci_host *h)
{
    (void)h;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t to = st_pci_bar_address(&m.pci, 2 * i);

        if (to != m.bar[i].start)
            st_space_move(m.board.memory, &m.bar[i], to); /* may be taken */
    }
}

static int
make_pci(void)
{
    static const struct st_pci_id id = {.vendor = 0x1234, .device = 1};

    m.host = (struct st_pci_host){.msix = msix, .bars_moved = bars_moved};
    st_pci_init(&m.pci, &pci_ops, &id);
    st_pci_add_bar(&m.pci, 0, 16384, ST_PCI_BAR_64);
    st_pci_add_bar(&m.pci, 2, 4096, 0);
    st_pci_add_express(&m.pci);
    st_pci_add_intx(&m.pci);
    if (st_pci_add_msix(&m.pci, VECTORS, 0, 8192, 12288) < 0)
        return -1;
    m.pci.host = &m.host;
    for (unsigned i = 0; i < 2; i++)
        m.bar[i] = (struct st_region){.ops = &bar_ops,
                                      .start = ST_SPACE_NOWHERE,
                                      .size = i ? 4096 : 16384};
    if (st_pci_bus_add(m.board.bus, 3, 0, &m.pci) < 0)
        return -1;
    st_pci_bus_place_bars(m.board.bus, 0);
    return 0;
}

static void
make(uint8_t *ram)
{
    memset(&m, 0, sizeof(m));
    m.board.ram = ram;
    m.board.step = 1234567;
    board_make(&m.board);
    if (make_pci() < 0)
        abort();
}

static void
unmake(void)
{
    st_pci_bus_remove(m.board.bus, 3, 0);
    for (unsigned i = 0; i < 2; i++)
        st_space_remove(m.board.memory, &m.bar[i]);
    st_pci_fini(&m.pci);
    board_unmake(&m.board);
}

/* ---- What happens ---- */

static uint64_t
address(bool memory, unsigned place, unsigned offset)
{
    static const uint16_t port[] = {0x3f8, 0x70,  0x600, 0xcf8,
                                    0xcfc, 0x510, 0x60,  0x92};
    static const uint64_t at[] = {ST_MAP_ECAM + (3 << 15), ST_MAP_ECAM,
                                  ST_MAP_PCI, ST_MAP_PCI + 16384};

    if (memory)
        return at[place & 3] + offset;
    return place & 0x80 ? offset : port[place & 7] + (offset & 15u);
}

/* What the board says of itself it can read, and is the same then. */
static void
save_and_restore(void)
{
    struct st_saved_device d[BOARD_SAVED];

    board_saved(&m.board, d);
    for (unsigned i = 0; i < BOARD_SAVED; i++) {
        size_t len, again;
        uint8_t *was = st_pack_new(d[i].walk, d[i].device, 0, &len), *is;
        struct st_pack k = st_pack_reader(was, len);

        if (!was)
            abort();
        d[i].walk(&k, d[i].device);
        is = st_pack_new(d[i].walk, d[i].device, 0, &again);
        /* But for the time, which goes on; and what the host takes now. */
        if (!st_pack_done(&k) || !is || again != len)
            abort();
        free(was);
        free(is);
    }
}

static void
host(unsigned what)
{
    const uint8_t byte = (uint8_t)what;

    switch (what & 7) {
    case 0:
        st_serial_receive(m.board.serial, &byte, 1);
        break;
    case 1:
        m.board.full = !m.board.full;
        st_serial_writable(m.board.serial);
        break;
    case 2:
        st_pci_raise(&m.pci, what >> 3);
        break;
    case 3:
        m.board.ns += UINT64_C(300) * 1000000000;
        break;
    case 4:
        board_reset(&m.board);
        break;
    case 5:
        save_and_restore();
        break;
    default:
        st_pci_line(&m.pci, what & 8);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    make(m.board.ram ? m.board.ram : calloc(1, BOARD_RAM));
    while (size >= 4) {
        unsigned place = data[1], offset = data[2] | data[3] << 8;
        bool memory = data[0] & 0x80;
        struct st_access a = {.offset = address(memory, place, offset),
                              .len = 1u << (data[0] & 3),
                              .write = data[0] & 0x40};

        data += 4;
        size -= 4;
        if (place == 0xff) {
            host(offset);
            continue;
        }
        if (a.write) {
            if (size < a.len)
                break;
            memcpy(&a.value, data, a.len);
            data += a.len;
            size -= a.len;
        }
        if (!st_space_access(memory ? m.board.memory : m.board.ports, &a))
            abort(); /* nothing is deferred here */
        if (!a.write && a.len < 8 && a.value >> 8 * a.len)
            abort(); /* no more than was asked for */
    }
    unmake();
    return 0;
}
