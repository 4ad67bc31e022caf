/* SPDX-License-Identifier: MIT
 *
 * Fuzz: the file of a saved machine. The input is its beginning, all but RAM;
 * checksums, magic and lengths are made right first, so that what is behind
 * them is reached (bit 0 of the first byte, which is no part of it: they stay).
 *
 * Whatever it says: it is read or refused with a sentence, and what was read
 * into the devices, they can be used with and saved again.
 */
#include "crc32c.h"
#include "machine_private.h"
#include "range.h"
#include "test_board.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
put32(uint8_t *p, uint32_t v)
{
    le32 le = le32_of(v);

    memcpy(p, &le, sizeof(le));
}

static void
put64(uint8_t *p, uint64_t v)
{
    le64 le = le64_of(v);

    memcpy(p, &le, sizeof(le));
}

/* As saved.h draws it. */
static void
seal(uint8_t *p, size_t len)
{
    memcpy(p, "StrataVM", 8);
    put32(p + 8, 1);
    put64(p + 16, len - ST_SAVED_HEADER);
    put64(p + 24, 16 << 20);
    put64(p + 32, st_align_up(len, ST_SAVED_RAM_AT));
    put32(p + 44, st_crc32c(0, p + ST_SAVED_HEADER, len - ST_SAVED_HEADER));
    put32(p + 52, st_crc32c(0, p, 52));
}

static void
said(int rc, const struct st_err *err)
{
    if (rc < 0 && !*err->text)
        abort();
}

/* The guest's turn: every byte of every port, so that each field is used. */
static void
use(struct board *b)
{
    static const uint16_t port[] = {0x3f8, 0x70, 0x600, 0x510, 0x60, 0x92};

    for (unsigned i = 0; i < sizeof(port) / sizeof(port[0]); i++)
        for (unsigned k = 0; k < 12; k++) {
            struct st_access a = {.offset = port[i] + k, .len = 1};

            st_space_access(b->ports, &a);
            a = (struct st_access){
                .offset = port[i] + k, .len = 1, .write = true, .value = k};
            st_space_access(b->ports, &a);
        }
    st_serial_receive(b->serial, (const uint8_t *)"text", 4);
    st_serial_writable(b->serial);
}

static void
restore_board(const struct st_saved *s, uint8_t *ram)
{
    struct board b = {.ram = ram, .step = 1000};
    struct st_saved_device d[BOARD_SAVED];
    struct st_saved again = {0};
    struct st_err err = {0};

    board_make(&b);
    board_saved(&b, d);
    for (unsigned i = 0; i < BOARD_SAVED; i++)
        if (st_saved_find(s, d[i].name))
            said(st_saved_put(s, &d[i], &err), &err);
    use(&b);
    for (unsigned i = 0; i < BOARD_SAVED; i++)
        st_saved_take(&again, &d[i]);
    /* What a device says of itself it can read. */
    for (unsigned i = 0; again.n == BOARD_SAVED && i < BOARD_SAVED; i++)
        if (st_saved_put(&again, &d[i], &err) < 0)
            abort();
    st_saved_free(&again);
    board_unmake(&b);
}

/* Two functions of this machine, which the file may have. */
static void
check_shape(const struct machine_shape *shape)
{
    static const struct st_pci_ops ops = {.name = "nvme"};
    static struct st_pci pci = {.ops = &ops};
    struct st_machine *m = calloc(1, sizeof(*m));
    struct st_err err = {0};

    m->function[0] =
        (struct machine_function){.pci = &pci, .name = "nvme0", .slot = 3};
    m->function[1] =
        (struct machine_function){.pci = &pci, .name = "nvme1", .slot = 4};
    for (m->nfunctions = 0; m->nfunctions <= 2; m->nfunctions++)
        said(machine_shape_check(m, shape, &err), &err);
    free(m);
}

static void
restore_rest(const struct st_saved *s)
{
    struct machine_shape *shape = calloc(1, sizeof(*shape));
    struct st_vcpu_state vcpu = {0};
    struct st_chips_state chips;
    uint64_t ns;
    struct st_err err = {0};
    const struct st_saved_device d[] = {
        {"machine", MACHINE_SHAPE, machine_shape_walk, shape},
        {"vcpu 0", 1, st_vcpu_state_walk, &vcpu},
        {"chips", 1, st_chips_state_walk, &chips},
        {"clock", 1, machine_clock_walk, &ns}};

    for (unsigned i = 0; i < sizeof(d) / sizeof(d[0]); i++)
        said(st_saved_put(s, &d[i], &err), &err);
    if (st_saved_find(s, "machine"))
        check_shape(shape);
    st_vcpu_state_free(&vcpu);
    free(shape);
}

/* What was read is written, and read again. */
static void
write_again(struct st_saved *s, size_t len)
{
    struct st_saved *again = calloc(1, sizeof(*again));
    uint8_t *p = st_saved_bytes(s);
    struct st_err err;

    if (!p || !again || st_saved_size(s) != len ||
        st_saved_parse(again, p, len, s->ram_at + s->ram_size, &err) < 0 ||
        again->n != s->n || again->ram_sum != s->ram_sum)
        abort();
    st_saved_free(again);
    free(again);
    free(p);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *ram;
    struct st_saved *s = calloc(1, sizeof(*s));
    struct st_err err = {0};
    uint8_t *p;
    int rc;

    if (!ram)
        ram = calloc(1, BOARD_RAM);
    if (size <= ST_SAVED_HEADER) {
        free(s);
        return 0;
    }
    p = malloc(size - 1); /* of its own size, so that ASan sees its end */
    memcpy(p, data + 1, size - 1);
    if (!(data[0] & 1) && size - 1 >= ST_SAVED_HEADER)
        seal(p, size - 1);
    rc = st_saved_parse(s, p, size - 1,
                        st_align_up(size - 1, ST_SAVED_RAM_AT) + (16 << 20),
                        &err);
    said(rc, &err);
    if (rc == 0) {
        write_again(s, size - 1);
        restore_board(s, ram);
        restore_rest(s);
    }
    st_saved_free(s);
    free(s);
    free(p);
    return 0;
}
