/* SPDX-License-Identifier: MIT
 *
 * A hostile guest, made of vfio-user messages: garbage in registers of every
 * width, in doorbells, rings and PRP lists, in configuration space, and memory
 * that goes away and comes back under I/O, while another thread scribbles over
 * all of it.
 *
 *   hostile PATH SEED FIRST
 *
 * Rounds until SIGTERM; each begins with a client that connects,
 * enables the controller and identifies it: that has to work, whatever the
 * round before did. Namespace 1 is shared with somebody: its blocks before
 * FIRST are never written, nor is it formatted or trimmed. Namespace 2 is our
 * own. Prints "rounds N actions N", exit status 0, or 1 and a sentence.
 *
 *   arena, at guest address ARENA, in pieces that can be unmapped:
 *     admin SQ | admin CQ | Identify's page | SQs | CQs | garbage: lists, data
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "nvme_spec.h"
#include "vfio_client.h"

enum {
    PAGE = 4096,
    PIECE = 64 << 10,
    PIECES = 32,
    SIZE = PIECE * PIECES,
    QUEUES = 4, /* I/O queue pairs */
    ENTRIES = 64,
    CONFIG = 7, /* the region */
    CONFIG_BYTES = 256,
    VECTORS = 8,
    ACTIONS = 4000, /* of a round, at most */
    READY_MS = 10000,
};
enum { /* in the arena; the first piece stays mapped */
       AT_ASQ = 0,
       AT_ACQ = PAGE,
       AT_PAGE = 2 * PAGE,
       AT_SQ = 3 * PAGE,
       AT_CQ = AT_SQ + QUEUES * PAGE,
       AT_GARBAGE = AT_CQ + QUEUES * PAGE,
};
#define ARENA UINT64_C(0x100000000)

static struct {
    const char *path;
    struct st_vfio_client *client;
    uint8_t *arena;
    uint64_t first; /* block of namespace 1 */
    uint64_t random;
    unsigned rounds, tail[1 + QUEUES];
    uint64_t actions;
    bool mapped[PIECES];
    int vector[VECTORS];
    pthread_t scribbler;
    _Atomic bool scribble, enough;
} h;

/* ---- Chance ---- */

static uint64_t
random64(uint64_t *state)
{
    *state ^= *state << 13; /* xorshift64 */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint32_t
any(uint32_t n)
{
    return (uint32_t)(random64(&h.random) >> 32) % n;
}

static bool
one_in(uint32_t n)
{
    return any(n) == 0;
}

/* A number as a bad driver has it: small, at an edge, or anything. */
static uint64_t
number(void)
{
    static const uint64_t edge[] = {
        0, 1, 0x7f, 0xff, 0xffff, 0x10000, 0x7fffffff, 0xffffffff, UINT64_MAX};

    switch (any(3)) {
    case 0:
        return any(70);
    case 1:
        return edge[any(sizeof(edge) / sizeof(edge[0]))];
    }
    return random64(&h.random);
}

/* A guest's address: usually of our memory, at any alignment. */
static uint64_t
address(void)
{
    uint64_t at = ARENA + AT_GARBAGE + any(SIZE - AT_GARBAGE);

    switch (any(8)) {
    case 0:
        return number();
    case 1:
        return at;
    case 2:
        return at & ~UINT64_C(3);
    case 3:
        return ARENA + SIZE - PAGE * any(3); /* the end */
    case 4:
        return ARENA + any(AT_GARBAGE); /* rings */
    }
    return at & ~(uint64_t)(PAGE - 1);
}

/* ---- What a driver that is well would do ---- */

static int
fail(const char *what, int rc)
{
    fprintf(stderr, "hostile: round %u: %s: %s\n", h.rounds, what,
            strerror(rc < 0 ? -rc : EIO));
    return -1;
}

static int
write_register(unsigned at, uint64_t value, unsigned len)
{
    le64 v = le64_of(value);

    return st_vfio_client_write(h.client, 0, at, &v, len);
}

static int
await_ready(bool ready)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    le32 csts;
    int rc;

    for (unsigned i = 0; i < READY_MS; i++) {
        rc = st_vfio_client_read(h.client, 0, NVME_REG_CSTS, &csts, 4);
        if (rc < 0)
            return rc;
        if (((le32_get(csts) & NVME_CSTS_RDY) != 0) == ready)
            return 0;
        nanosleep(&ms, NULL);
    }
    return -ETIMEDOUT;
}

static int
enable(void)
{
    le16 command = le16_of(6); /* memory, bus master */
    int rc = st_vfio_client_write(h.client, CONFIG, 4, &command, 2);

    if (rc == 0)
        rc = write_register(NVME_REG_CC, 0, 4);
    if (rc == 0)
        rc = await_ready(false);
    if (rc < 0)
        return rc;
    memset(h.arena, 0, AT_GARBAGE);
    memset(h.tail, 0, sizeof(h.tail));
    write_register(NVME_REG_AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1), 4);
    write_register(NVME_REG_ASQ, ARENA + AT_ASQ, 8);
    write_register(NVME_REG_ACQ, ARENA + AT_ACQ, 8);
    write_register(
        NVME_REG_CC,
        NVME_CC_EN | 6 << NVME_CC_IOSQES_SHIFT | 4 << NVME_CC_IOCQES_SHIFT, 4);
    return await_ready(true);
}

/* An admin command, to its end: its status, or -errno. */
static int
admin(const struct nvme_sqe *sqe)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    struct nvme_cqe *cqe =
        (struct nvme_cqe *)(void *)(h.arena + AT_ACQ) + h.tail[0];
    const _Atomic uint16_t *status = (const void *)&cqe->status;

    memcpy(h.arena + AT_ASQ + 64 * h.tail[0], sqe, 64);
    h.tail[0]++; /* few commands: it does not come round */
    write_register(NVME_REG_DOORBELLS, h.tail[0], 4);
    for (unsigned i = 0; i < READY_MS; i++) {
        if (atomic_load(status) & 1)
            return le16toh(atomic_load(status)) >> 1;
        nanosleep(&ms, NULL);
    }
    return -ETIMEDOUT;
}

static int
create_queues(void)
{
    for (unsigned i = 1; i <= QUEUES; i++) {
        struct nvme_sqe cq = {
            .opcode = NVME_ADMIN_CREATE_CQ,
            .prp1 = le64_of(ARENA + AT_CQ + (i - 1) * PAGE),
            .cdw10 = le32_of((ENTRIES - 1) << 16 | i),
            .cdw11 = le32_of(any(VECTORS) << 16 | 3)}; /* IEN, PC */
        struct nvme_sqe sq = {.opcode = NVME_ADMIN_CREATE_SQ,
                              .prp1 = le64_of(ARENA + AT_SQ + (i - 1) * PAGE),
                              .cdw10 = le32_of((ENTRIES - 1) << 16 | i),
                              .cdw11 = le32_of(i << 16 | 1)};
        int rc = admin(&cq);

        if (rc == 0)
            rc = admin(&sq);
        if (rc)
            return fail("a queue", rc);
    }
    return 0;
}

static int
map_piece(unsigned i, bool map)
{
    uint64_t gpa = ARENA + (uint64_t)i * PIECE;
    int rc = map ? st_vfio_client_map(h.client, gpa, (uint64_t)i * PIECE, PIECE,
                                      true)
                 : st_vfio_client_unmap(h.client, gpa, PIECE);

    if (rc == 0)
        h.mapped[i] = map;
    return rc;
}

/* Somebody new comes: everything has to work. */
static int
begin(void)
{
    struct nvme_sqe identify = {.opcode = NVME_ADMIN_IDENTIFY,
                                .cdw10 = le32_of(1),
                                .prp1 = le64_of(ARENA + AT_PAGE)};
    struct st_err err;
    void *arena;
    int rc = st_vfio_client_connect(h.path, false, &h.client, &err);

    if (rc < 0)
        return fail(err.text, rc);
    rc = st_vfio_client_arena(h.client, SIZE, &arena);
    h.arena = arena;
    for (unsigned i = 0; rc == 0 && i < PIECES; i++)
        rc = map_piece(i, true);
    if (rc == 0)
        rc = st_vfio_client_irqs(h.client, false, 0, VECTORS, h.vector);
    if (rc < 0)
        return fail("memory and interrupts", rc);
    rc = enable();
    if (rc < 0)
        return fail("the controller is not enabled", rc);
    rc = admin(&identify);
    if (rc)
        return fail("the controller is not identified", rc);
    if (h.arena[AT_PAGE + 516] == 0) /* NN */
        return fail("the controller has no namespaces", 0);
    return create_queues();
}

/* ---- What a bad one does ---- */

/* Lists of pages: some that are well, some that end in themselves. */
static void
fill_list(uint64_t at)
{
    le64 *list = (void *)(h.arena + at);

    for (unsigned i = 0; i < PAGE / 8; i++)
        list[i] = le64_of(one_in(16) ? number() : address());
    if (one_in(2))
        list[PAGE / 8 - 1] = le64_of(ARENA + at);
}

/* Does OPCODE only read a namespace? */
static bool
is_harmless(uint8_t opcode)
{
    return opcode == NVME_READ || opcode == NVME_COMPARE ||
           opcode == NVME_VERIFY || opcode == NVME_FLUSH;
}

static void
garbage_command(struct nvme_sqe *out, bool is_admin)
{
    static const uint8_t io[] = {
        NVME_FLUSH,   NVME_WRITE,  NVME_READ,         NVME_READ,
        NVME_COMPARE, NVME_VERIFY, NVME_WRITE_ZEROES, NVME_DSM,
        NVME_COPY,    NVME_WRITE,  NVME_RESV_REPORT,  NVME_RESV_ACQUIRE};
    struct nvme_sqe sqe;
    uint64_t lba;
    uint32_t nsid;

    for (unsigned i = 0; i < sizeof(sqe) / 8; i++) {
        uint64_t v = random64(&h.random);

        memcpy((uint8_t *)&sqe + 8 * i, &v, 8);
    }
    if (!one_in(8))
        sqe.opcode = !is_admin    ? io[any(sizeof(io))]
                     : one_in(16) ? NVME_ADMIN_DOORBELL_BUFFER
                     : one_in(16) ? NVME_ADMIN_FORMAT
                                  : (uint8_t)any(0x20);
    if (!one_in(8))
        sqe.flags = (uint8_t)(one_in(4) ? any(4) : 0);
    nsid = any(8) ? 1 + any(2) : (uint32_t)number();
    /* Nothing of this may alter the blocks of somebody else. */
    if (is_admin ? sqe.opcode == NVME_ADMIN_FORMAT : sqe.opcode == NVME_DSM)
        nsid = 2;
    sqe.nsid = le32_of(nsid);
    lba = h.first + (one_in(4) ? number() >> 1 : any((uint32_t)h.first));
    if (is_harmless(sqe.opcode) && one_in(2))
        lba = number();
    sqe.prp1 = le64_of(address());
    sqe.prp2 = le64_of(address());
    if (is_admin) {
        sqe.cdw10 = le32_of(one_in(2) ? (uint32_t)number() : any(8) << 16 | 7);
        sqe.cdw11 = le32_of((uint32_t)number());
    } else {
        sqe.cdw10 = le32_of((uint32_t)lba);
        sqe.cdw11 = le32_of((uint32_t)(lba >> 32));
        sqe.cdw12 = le32_of(one_in(4) ? (uint32_t)number() : any(64));
    }
    memcpy(out, &sqe, sizeof(sqe));
}

static int
ring(unsigned index, uint32_t value)
{
    le32 v = le32_of(value);

    return st_vfio_client_post(h.client, 0, NVME_REG_DOORBELLS + 4 * index, &v,
                               4);
}

static int
commands(void)
{
    unsigned q = any(1 + QUEUES), n = 1 + any(ENTRIES - 1);
    uint8_t *sq = h.arena + (q ? AT_SQ + (q - 1) * PAGE : AT_ASQ);
    int rc;

    for (unsigned i = 0; i < n; i++) {
        garbage_command((void *)(sq + 64 * h.tail[q]), q == 0);
        h.tail[q] = (h.tail[q] + 1) % ENTRIES;
    }
    if (one_in(2))
        fill_list((AT_GARBAGE + any(SIZE - AT_GARBAGE - PAGE)) &
                  ~(uint32_t)(PAGE - 1));
    rc = ring(2 * q, h.tail[q]);
    /* Completions are taken, and not looked at. */
    return rc ? rc : ring(2 * q + 1, any(ENTRIES));
}

static int
access_register(void)
{
    static const unsigned width[] = {1, 2, 4, 8};
    unsigned len = width[any(4)];
    uint64_t at = one_in(4) ? any(0x4000 - 8) : any(0x80), v = number();

    if (one_in(2))
        return st_vfio_client_read(h.client, 0, at, &v, len);
    if (at <= NVME_REG_CC + 3 && at + len > NVME_REG_CC && !one_in(16))
        return 0; /* not always off */
    return st_vfio_client_write(h.client, 0, at, &v, len);
}

static int
access_config(void)
{
    uint64_t v = number();
    unsigned at = any(CONFIG_BYTES - 4), len = 1u << any(3);

    /* Without bus mastering the rest would be boring. */
    if (one_in(2) || (at < 6 && at + len > 4))
        return st_vfio_client_read(h.client, CONFIG, at, &v, len);
    return st_vfio_client_write(h.client, CONFIG, at, &v, len);
}

static int
map_or_unmap(void)
{
    unsigned i = 1 + any(PIECES - 1);

    if (one_in(8)) /* over what is there, past the end, of no length */
        return st_vfio_client_map(h.client, address(), any(SIZE), number(),
                                  one_in(2));
    return map_piece(i, !h.mapped[i]);
}

static int
act(void)
{
    switch (any(16)) {
    case 0:
    case 1:
        return access_register();
    case 2:
        return access_config();
    case 3:
    case 4:
        return map_or_unmap();
    case 5:
        return ring(any(140), (uint32_t)number());
    case 6:
        return st_vfio_client_irqs(h.client, false, any(VECTORS), 1,
                                   one_in(2) ? h.vector : NULL);
    case 7:
        if (!one_in(64))
            break;
        return one_in(2) ? st_vfio_client_reset(h.client) : enable();
    }
    return commands();
}

/* Somebody who writes while the controller reads: lists and data, and of
 * commands all but what says where they go. */
static void *
scribble(void *arg)
{
    const struct timespec pause = {.tv_nsec = 100000};
    uint64_t state = *(uint64_t *)arg | 1;

    while (atomic_load(&h.scribble)) {
        uint64_t v = random64(&state);
        uint32_t entry = (uint32_t)(v >> 8) % (1 + QUEUES) * ENTRIES +
                         (uint32_t)(v >> 16) % ENTRIES;

        if (v & 1) {
            uint64_t to = AT_GARBAGE + (v >> 16) % (SIZE - AT_GARBAGE - 8);

            to &= ~UINT64_C(7);
            v = v & 2 ? v : ARENA + (v >> 20) % SIZE;
            memcpy(h.arena + to, &v, 8);
        } else if (entry < ENTRIES) {
            memcpy(h.arena + AT_ASQ + 64 * entry + 24, &v, 8); /* PRP 1 */
        } else {
            memcpy(h.arena + AT_SQ + 64 * (entry - ENTRIES) + 24, &v, 8);
        }
        if (v % 64 == 0)
            nanosleep(&pause, NULL);
    }
    return NULL;
}

static void
terminated(int signal)
{
    (void)signal;
    atomic_store(&h.enough, true);
}

/* One guest, from its beginning to some end in the middle of I/O. */
static int
live(void)
{
    unsigned n = 1 + any(ACTIONS);
    uint64_t seed = random64(&h.random);
    int rc = begin();

    if (rc < 0)
        return rc;
    atomic_store(&h.scribble, true);
    if (pthread_create(&h.scribbler, NULL, scribble, &seed) != 0)
        return fail("no thread", 0);
    for (unsigned i = 0; i < n; i++) {
        rc = act();
        h.actions++;
        if (rc == -ETIMEDOUT || rc == -ECONNRESET)
            break;
    }
    atomic_store(&h.scribble, false);
    pthread_join(h.scribbler, NULL);
    /* What it was refused is its affair; what it was not answered is not. */
    if (rc == -ETIMEDOUT || rc == -ECONNRESET)
        return fail("no answer", rc);
    return 0;
}

int
main(int argc, char **argv)
{
    int rc = 0;

    if (argc != 4) {
        fprintf(stderr, "usage: hostile PATH SEED FIRST\n");
        return 2;
    }
    signal(SIGTERM, terminated);
    h.path = argv[1];
    h.random = strtoull(argv[2], NULL, 10) * 2 + 1;
    h.first = strtoull(argv[3], NULL, 10);
    for (unsigned i = 0; i < VECTORS; i++)
        h.vector[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    while (rc == 0 && !atomic_load(&h.enough)) {
        h.rounds++;
        rc = live();
        st_vfio_client_close(h.client);
        h.client = NULL;
    }
    printf("rounds %u actions %ju\n", h.rounds, (uintmax_t)h.actions);
    return rc < 0;
}
