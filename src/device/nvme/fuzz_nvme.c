/* SPDX-License-Identifier: MIT
 *
 * Fuzz: a guest of a whole controller. Bytes 0 to 7 say what there is; then
 * come records of 8 bytes, each something that the guest, its host or its disk
 * does:
 *
 *   op     bits 0-4 what, bits 5-7 how many steps follow
 *   a b c  small numbers
 *   d      32 bits
 *
 * As long as the guest keeps to the rules, every command completes once. In the
 * end, whatever it did, no command is left behind, a reset makes the controller
 * as new, it works again, and everything can be freed. With STRATA_FUZZ_COUNT
 * set, how many commands were fetched is printed at exit.
 */
#include "fuzz_nvme_records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { /* what a record is; below: an I/O command if even, else an admin one */
       RAW = 16,
       DOORBELL,
       MAKE_QUEUES,
       SHADOW,
       REGISTERS, /* and 21 */
       POKE = 22,
       LIST,
       MAP,
       BUS_MASTER,
       RESET,
       ENABLE,
       HOST, /* and 29 */
       PASS = 30,
       STEPS,
};

static void
play(struct guest *g, const struct record *r, const uint8_t *more, size_t size)
{
    switch (r->op & 31) {
    case RAW:
        if (size >= 64)
            raw(g, r, more);
        break;
    case DOORBELL:
        g->honest = false;
        if (g->db && r->b & 1)
            memcpy(g->db + r->a % 16 * 4, &r->d, 4);
        else
            reg_write(g, NVME_REG_DOORBELLS + r->a % 16 * 4, r->d);
        break;
    case MAKE_QUEUES:
        queues(g, r);
        break;
    case SHADOW:
        shadow(g);
        break;
    case REGISTERS:
    case REGISTERS + 1:
        registers(g, r);
        break;
    case POKE:
        poke(g, r);
        break;
    case LIST:
        list(g, r);
        break;
    case MAP:
        if (r->a % PIECES == 0)
            g->honest = false;
        if (r->b & 1)
            unmap(g, r->a % PIECES);
        else
            map(g, r->a % PIECES);
        break;
    case BUS_MASTER:
        g->honest = false;
        st_pci_config_write(g->pci, 4, 2, r->a & 1 ? 6 : 2);
        break;
    case RESET:
        if (r->a & 1)
            host_reset(g);
        else if (r->a & 2) /* function level */
            st_pci_config_write(g->pci, g->pci->express + 8, 2, 0x8000);
        else
            reg_write(g, NVME_REG_CC, r->d);
        memset(g->q, 0, sizeof(g->q));
        g->shadow = 0;
        break;
    case ENABLE:
        enable(g, 2 + r->a % 63);
        break;
    case HOST:
    case HOST + 1:
        host(g, r);
        break;
    case PASS:
        pass(g, (uint64_t)r->d << (r->a & 1));
        break;
    case STEPS:
        steps(g, r->a);
        break;
    default:
        if (r->op & 1)
            admin(g, r);
        else
            io(g, r);
        break;
    }
    steps(g, (r->op >> 5) * 2u);
    if (r->op & 32)
        for (unsigned i = 0; i <= QUEUES; i++)
            reap(g, i);
}

static bool
is_busy(const struct guest *g)
{
    for (unsigned i = 0; i <= QUEUES; i++)
        if (g->q[i].busy)
            return true;
    return false;
}

/* Whatever holds commands back lets go. Then they end. */
static void
settle(struct guest *g)
{
    for (unsigned i = 0; i < DISKS; i++) {
        st_testnode_hang(g->node[i], false);
        st_testnode_fail(g->node[i], UINT32_MAX, ST_OK, 0);
    }
    st_nvme_set_faults(g->nvme, "", NULL);
    st_nvme_release_faults(g->nvme);
    for (unsigned i = 0; i < PIECES; i++)
        map(g, i);
    UNTIL(g, !g->calling && !g->editing && !g->resetting)
    power(g);
    for (unsigned i = 1; i <= QUEUES; i++) /* a pair's first waits for one */
        if (g->fused && g->honest && g->q[i].sq_size) {
            put_or_wait(g, i, (struct nvme_sqe){.opcode = 0x7f});
            tell(g, i);
        }
    for (unsigned turn = 0; g->honest && is_busy(g); turn++) {
        MUST(turn < NEVER);
        for (unsigned i = 0; i <= QUEUES; i++)
            reap(g, i);
        steps(g, 1);
    }
    if (g->honest)
        MUST(!(reg(g, NVME_REG_CSTS) & NVME_CSTS_CFS));
    pass(g, UINT64_C(3000000000));
    look(g);
    if ((reg(g, NVME_REG_CSTS) & 3) == NVME_CSTS_RDY) {
        MUST(g->in_flight[0] <= 4); /* requests for events */
        for (unsigned i = 1; i <= QUEUES; i++)
            MUST(g->in_flight[i] <= g->fused);
    }
}

/* Registers are what they can be, at every width. */
static void
check_registers(struct guest *g)
{
    uint32_t cc = reg(g, NVME_REG_CC), csts = reg(g, NVME_REG_CSTS);

    MUST((cc & ~UINT32_C(0x01fffff1)) == 0 && csts <= 15);
    MUST((csts >> NVME_CSTS_SHST_SHIFT & 3) != 3);
    MUST(!(csts & NVME_CSTS_RDY) || cc & NVME_CC_EN);
    MUST(reg(g, NVME_REG_VS) == NVME_VERSION);
    MUST((reg(g, NVME_REG_CAP) & 0x1ffff) == 0x1003f);
    for (unsigned at = 0; at < 0x80; at += 8) {
        uint64_t all = reg_access(g, 0, at, 8, false, 0);

        MUST(all == (reg(g, at) | (uint64_t)reg(g, at + 4) << 32));
        for (unsigned i = 0; i < 8; i++)
            MUST(reg_access(g, 0, at + i, 1, false, 0) ==
                 (all >> 8 * i & 0xff));
    }
}

/* After all that, a reset, and it works. */
static void
revive(struct guest *g)
{
    struct nvme_sqe e = {.opcode = NVME_ADMIN_IDENTIFY,
                         .prp1 = le64_of(DATA),
                         .cdw10 = le32_of(NVME_CNS_CONTROLLER)};
    struct nvme_sqe read = {
        .opcode = NVME_READ, .nsid = le32_of(1), .prp1 = le64_of(DATA)};
    int status = NVME_FORMAT_IN_PROGRESS;

    host_reset(g);
    UNTIL(g, !g->resetting)
    power(g);
    MUST(!reg(g, NVME_REG_CC) && !reg(g, NVME_REG_CSTS));
    MUST(!reg(g, NVME_REG_AQA) && !reg(g, NVME_REG_INTMS));
    MUST(!reg_access(g, 0, NVME_REG_ASQ, 8, false, 0));
    MUST(!reg_access(g, 0, NVME_REG_ACQ, 8, false, 0));
    g->honest = true;
    MUST(enable(g, 32));
    MUST(carry_out(g, 0, e) == NVME_OK);
    MUST(make_pair(g, 1, 16, 16, 1));
    if (st_nvme_namespace(g->nvme, 1)) {
        for (unsigned i = 0; status == NVME_FORMAT_IN_PROGRESS; i++) {
            MUST(i < NEVER);
            status = carry_out(g, 1, read);
        }
        MUST(status == NVME_OK);
    }
}

static uint64_t commands;

static void
print_count(void)
{
    fprintf(stderr, "%ju commands\n", (uintmax_t)commands);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool counts;
    struct guest g = {0};

    if (!counts && getenv("STRATA_FUZZ_COUNT"))
        atexit(print_count);
    counts = true;
    if (size < 8)
        return 0;
    create(&g, data);
    while (size -= 8, data += 8, size >= 8) {
        struct record r = {data[0], data[1], data[2], data[3], 0};

        memcpy(&r.d, data + 4, 4);
        r.d = le32toh(r.d);
        play(&g, &r, data + 8, size - 8);
    }
    settle(&g);
    check_registers(&g);
    revive(&g);
    destroy(&g);
    commands += g.commands;
    return 0;
}
