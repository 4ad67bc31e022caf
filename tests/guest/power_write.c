/* SPDX-License-Identifier: MIT
 *
 * Power loss: a client that gets promises from an NBD server and writes them
 * down (power.h). One round:
 *
 *   - some threads write, zero and trim, each in a part of the disk of its own
 *     and through a connection of its own; in one half of that part always with
 *     FUA, in the other never: dm-log-writes logs a write with FUA at once, and
 *     one without only at the next flush, so that the older of two writes to
 *     the same place would come last
 *   - when the first half of them is done, a flush through a last connection,
 *     which must cover them; the others go on meanwhile. Every third round has
 *     none: then only FUA counts
 *   - when all is answered, MARK is run with the mark's name: mROUND
 *
 * NBD as in the protocol's document (github.com/NetworkBlockDevice/nbd,
 * doc/proto.md): the oldest handshake of fixed newstyle, simple replies.
 */
#include <endian.h>
#include <err.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "power.h"

enum {
    WRITERS = 4,
    OPS = 6,         /* of a thread, in a round */
    BLOCKS_MAX = 16, /* of a write */
    ZEROES_MAX = 64, /* blocks of a zeroing or a trim */
    NBD_WRITE = 1,
    NBD_DISC = 2,
    NBD_FLUSH = 3,
    NBD_TRIM = 4,
    NBD_ZEROES = 6,
    NBD_FUA = 1,
    NBD_FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8,
};

struct run {
    FILE *journal;
    pthread_mutex_t lock; /* of the journal and the generation */
    uint64_t gen, blocks;
    const char *socket;
};

struct writer {
    struct run *run;
    pthread_t thread;
    int fd;
    uint64_t first, blocks, seed;
};

static uint64_t
draw(uint64_t *seed, uint64_t n)
{
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (*seed >> 33) % n;
}

static void
put_all(int fd, const void *data, size_t n)
{
    const char *p = data;

    while (n > 0) {
        ssize_t some = send(fd, p, n, MSG_NOSIGNAL);

        if (some <= 0) {
            err(2, "the server has gone");
        }
        p += some;
        n -= (size_t)some;
    }
}

static void
get_all(int fd, void *data, size_t n)
{
    if (n > 0 && recv(fd, data, n, MSG_WAITALL) != (ssize_t)n) {
        err(2, "the server has gone");
    }
}

/* Connect; give the descriptor, and the disk's size. */
static int
nbd_open(const char *path, uint64_t *size)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct {
        uint64_t magic, option;
        uint16_t flags;
    } __attribute__((packed)) hello;
    struct {
        uint32_t flags;
        uint64_t magic;
        uint32_t option, length;
    } __attribute__((packed))
    answer = {htobe32(3), htobe64(0x49484156454f5054ULL), htobe32(1),
              0}; /* EXPORT_NAME "" */
    struct {
        uint64_t size;
        uint16_t flags;
    } __attribute__((packed)) export;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        err(2, "%s", path);
    }
    get_all(fd, &hello, sizeof(hello));
    put_all(fd, &answer, sizeof(answer));
    get_all(fd, &export, sizeof(export));
    if ((be16toh(export.flags) & NBD_FLAGS) != NBD_FLAGS) {
        errx(2, "%s: lacks flush, FUA, trim, zeroes or several connections",
             path);
    }
    *size = be64toh(export.size);
    return fd;
}

/* One command and its reply. */
static void
nbd_do(int fd, unsigned type, unsigned flags, uint64_t offset, uint32_t length,
       const void *data)
{
    struct {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t cookie, offset;
        uint32_t length;
    } __attribute__((packed))
    request = {htobe32(0x25609513),     htobe16((uint16_t)flags),
               htobe16((uint16_t)type), offset,
               htobe64(offset),         htobe32(length)};
    struct {
        uint32_t magic, error;
        uint64_t cookie;
    } __attribute__((packed)) reply;

    put_all(fd, &request, sizeof(request));
    if (data) {
        put_all(fd, data, length);
    }
    if (type == NBD_DISC) {
        return;
    }
    get_all(fd, &reply, sizeof(reply));
    if (be32toh(reply.magic) != 0x67446698 || reply.error ||
        reply.cookie != request.cookie) {
        errx(2, "command %u: error %u", type, be32toh(reply.error));
    }
}

static void
note(struct run *r, char what, uint64_t first, uint64_t n, uint64_t gen)
{
    fprintf(r->journal, "%c %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", what, first,
            n, gen);
}

/* A thread's part of a round. */
static void *
write_some(void *arg)
{
    static _Thread_local uint64_t data[BLOCKS_MAX * POWER_WORDS];
    struct writer *w = arg;
    struct run *r = w->run;

    for (int op = 0; op < OPS; op++) {
        bool zero = draw(&w->seed, 6) == 0, fua = draw(&w->seed, 4) == 0;
        uint64_t most = zero ? ZEROES_MAX : BLOCKS_MAX, half = w->blocks / 2;
        uint64_t n = 1 + draw(&w->seed, most < half ? most : half), gen;
        uint64_t first =
            w->first + (fua ? half : 0) + draw(&w->seed, half - n + 1);
        unsigned type = NBD_WRITE;

        if (zero) {
            type = draw(&w->seed, 2) ? NBD_TRIM : NBD_ZEROES;
        }
        pthread_mutex_lock(&r->lock);
        gen = ++r->gen;
        note(r, zero ? 'z' : 'w', first, n, gen);
        pthread_mutex_unlock(&r->lock);

        for (uint64_t i = 0; !zero && i < n * POWER_WORDS; i++) {
            data[i] = power_word(first + i / POWER_WORDS, i % POWER_WORDS, gen);
        }
        nbd_do(w->fd, type, fua ? NBD_FUA : 0, first * POWER_BLOCK,
               (uint32_t)(n * POWER_BLOCK), zero ? NULL : data);

        pthread_mutex_lock(&r->lock);
        note(r, fua ? 'd' : 'a', first, n, gen);
        pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

/* The command MARK..., with the name of the mark. */
static void
set_mark(struct run *r, char **mark, const char *name)
{
    char command[512] = "";

    for (; *mark; mark++) {
        size_t n = strlen(command);

        snprintf(command + n, sizeof(command) - n, "%s ", *mark);
    }
    strncat(command, name, sizeof(command) - strlen(command) - 1);
    if (system(command) != 0) {
        errx(2, "'%s' failed", command);
    }
    fprintf(r->journal, "m %s\n", name);
}

int
power_write(int argc, char **argv)
{
    struct run r = {.lock = PTHREAD_MUTEX_INITIALIZER, .socket = argv[0]};
    struct writer w[WRITERS];
    int rounds = atoi(argv[2]), flusher;
    uint64_t size = 0, seed = strtoull(argv[3], NULL, 10);
    char name[32];

    (void)argc;
    r.journal = fopen(argv[1], "we");
    if (!r.journal) {
        err(2, "%s", argv[1]);
    }
    flusher = nbd_open(r.socket, &size);
    r.blocks = size / POWER_BLOCK;
    if (r.blocks < 2 * WRITERS || r.blocks > POWER_BLOCKS_MAX) {
        errx(2, "a disk of %" PRIu64 " blocks", r.blocks);
    }
    for (uint64_t i = 0; i < WRITERS; i++) {
        w[i] = (struct writer){.run = &r,
                               .first = r.blocks / WRITERS * i,
                               .blocks = r.blocks / WRITERS,
                               .seed = seed * WRITERS + i,
                               .fd = nbd_open(r.socket, &size)};
    }
    for (int round = 1; round <= rounds; round++) {
        for (int i = 0; i < WRITERS; i++) {
            if (pthread_create(&w[i].thread, NULL, write_some, &w[i]) != 0) {
                errx(2, "no thread");
            }
        }
        for (int i = 0; i < WRITERS / 2; i++) {
            pthread_join(w[i].thread, NULL);
        }
        if (round % 3 != 0) {
            pthread_mutex_lock(&r.lock);
            fputs("s\n", r.journal);
            pthread_mutex_unlock(&r.lock);
            nbd_do(flusher, NBD_FLUSH, 0, 0, 0, NULL);
            pthread_mutex_lock(&r.lock);
            fputs("f\n", r.journal);
            pthread_mutex_unlock(&r.lock);
        }
        for (int i = WRITERS / 2; i < WRITERS; i++) {
            pthread_join(w[i].thread, NULL);
        }
        snprintf(name, sizeof(name), "m%d", round);
        set_mark(&r, argv + 4, name);
    }
    for (int i = 0; i < WRITERS; i++) {
        nbd_do(w[i].fd, NBD_DISC, 0, 0, 0, NULL);
        close(w[i].fd);
    }
    nbd_do(flusher, NBD_DISC, 0, 0, 0, NULL);
    close(flusher);
    return fclose(r.journal) == 0 ? 0 : 2;
}
