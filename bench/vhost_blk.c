/* SPDX-License-Identifier: MIT
 *
 * A vhost-user-blk front end that keeps a back end busy: the rival's side of
 * the bench `nvme`, where `strata bench vfio-user` is ours.
 *
 *   vhost_blk SOCKET randread|randwrite|read|write BS IODEPTH QUEUES RUNTIME
 *             POLL_US
 *
 * A thread a queue; each keeps IODEPTH requests in a split ring (virtio 1.2,
 * 2.7 and 5.2) and looks at the used ring for up to POLL_US before it waits for
 * the call eventfd. Prints "iops=N ios=N kicks=N cpu=NS", CPU of this side.
 */
#include <endian.h>
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { /* vhost-user messages */
       GET_FEATURES = 1,
       SET_FEATURES = 2,
       SET_OWNER = 3,
       SET_MEM_TABLE = 5,
       SET_VRING_NUM = 8,
       SET_VRING_ADDR = 9,
       SET_VRING_BASE = 10,
       SET_VRING_KICK = 12,
       SET_VRING_CALL = 13,
       GET_PROTOCOL_FEATURES = 15,
       SET_PROTOCOL_FEATURES = 16,
       SET_VRING_ENABLE = 18,
       GET_CONFIG = 24,
};

#define F_EVENT_IDX (UINT64_C(1) << 29)
#define F_PROTOCOL  (UINT64_C(1) << 30)
#define F_VERSION_1 (UINT64_C(1) << 32)
#define P_MQ        (UINT64_C(1) << 0)
#define P_CONFIG    (UINT64_C(1) << 9)

enum { DESC_NEXT = 1, DESC_WRITE = 2, RING = 512, QUEUES_MAX = 8 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct avail {
    uint16_t flags;
    _Atomic uint16_t idx;
    uint16_t ring[RING];
    _Atomic uint16_t used_event;
};

struct used {
    uint16_t flags;
    _Atomic uint16_t idx;
    struct {
        uint32_t id, len;
    } elem[RING];
    _Atomic uint16_t avail_event;
};

/* One queue's memory, shared with the back end. */
struct ring {
    struct desc desc[RING];
    struct avail avail;
    char pad1[4096];
    struct used used;
    char pad2[4096];
    struct {
        uint32_t type, reserved;
        uint64_t sector;
        uint8_t status;
        char pad[47];
    } request[RING];
};

struct queue {
    struct ring *ring;
    uint8_t *data;
    int kick, call;
    uint64_t next, ios, kicks;
    uint64_t seed;
    pthread_t thread;
};

static uint8_t *memory;
static size_t memory_size;
static uint64_t capacity; /* bytes */
static unsigned bs, iodepth, nqueues, poll_us;
static int is_random, is_write;
static double runtime;
static struct queue queues[QUEUES_MAX];

static double
now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* ---- The protocol ---- */

static void
say(int s, uint32_t request, const void *payload, uint32_t size, int fd)
{
    struct {
        uint32_t request, flags, size;
        uint8_t payload[256];
    } m = {request, 1, size, {0}};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {&m, 12 + size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (size)
        memcpy(m.payload, payload, size);
    if (fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control.room);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    if (sendmsg(s, &msg, 0) != (ssize_t)iov.iov_len)
        err(1, "message %u", request);
}

static void
hear(int s, uint32_t request, void *payload, uint32_t size)
{
    uint32_t head[3];

    if (recv(s, head, sizeof(head), MSG_WAITALL) != sizeof(head) ||
        head[0] != request || head[2] != size ||
        recv(s, payload, size, MSG_WAITALL) != (ssize_t)size)
        errx(1, "no good answer to message %u", request);
}

static uint64_t
ask(int s, uint32_t request)
{
    uint64_t value;

    say(s, request, NULL, 0, -1);
    hear(s, request, &value, sizeof(value));
    return value;
}

static void
say_u64(int s, uint32_t request, uint64_t value, int fd)
{
    say(s, request, &value, sizeof(value), fd);
}

static void
say_state(int s, uint32_t request, uint32_t index, uint32_t num)
{
    uint32_t state[2] = {index, num};

    say(s, request, state, sizeof(state), -1);
}

/* Guest addresses are offsets in our memory. */
static uint64_t
address(const void *p)
{
    return (uint64_t)((const uint8_t *)p - memory);
}

static void
set_up_queue(int s, unsigned i)
{
    struct queue *q = &queues[i];
    struct {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
    } a = {i,
           0,
           (uintptr_t)q->ring->desc,
           (uintptr_t)&q->ring->used,
           (uintptr_t)&q->ring->avail,
           0};

    q->kick = eventfd(0, EFD_CLOEXEC);
    q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->seed = 88172645463325252u + i;
    say_state(s, SET_VRING_NUM, i, RING);
    say_state(s, SET_VRING_BASE, i, 0);
    say(s, SET_VRING_ADDR, &a, sizeof(a), -1);
    say_u64(s, SET_VRING_CALL, i, q->call);
    say_u64(s, SET_VRING_KICK, i, q->kick);
    say_state(s, SET_VRING_ENABLE, i, 1);
}

static int
set_up(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct {
        uint32_t n, pad;
        uint64_t gpa, size, user, offset;
    } table = {1, 0, 0, 0, 0, 0};
    struct {
        uint32_t offset, size, flags;
        uint64_t capacity;
    } __attribute__((packed)) config = {0, 8, 0, 0};
    size_t queue_size =
        (sizeof(struct ring) + 4095) / 4096 * 4096 + (size_t)iodepth * bs;
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int memfd = memfd_create("vhost_blk", MFD_CLOEXEC);
    uint64_t features;

    memory_size = queue_size * nqueues;
    if (memfd < 0 || ftruncate(memfd, (off_t)memory_size) < 0)
        err(1, "memfd");
    memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_POPULATE, memfd, 0);
    if (memory == MAP_FAILED)
        err(1, "mmap");
    strncpy(un.sun_path, path, sizeof(un.sun_path) - 1);
    if (connect(s, (struct sockaddr *)&un, sizeof(un)) < 0)
        err(1, "%s", path);
    features = ask(s, GET_FEATURES);
    if (!(features & F_PROTOCOL) || !(features & F_VERSION_1))
        errx(1, "the back end is too old");
    say_u64(s, SET_PROTOCOL_FEATURES,
            ask(s, GET_PROTOCOL_FEATURES) & (P_MQ | P_CONFIG), -1);
    say(s, SET_OWNER, NULL, 0, -1);
    say(s, GET_CONFIG, &config, sizeof(config), -1);
    hear(s, GET_CONFIG, &config, sizeof(config));
    capacity = le64toh(config.capacity) * 512;
    say_u64(s, SET_FEATURES,
            features & (F_EVENT_IDX | F_PROTOCOL | F_VERSION_1), -1);
    if (!(features & F_EVENT_IDX))
        errx(1, "the back end has no EVENT_IDX");
    table.size = memory_size;
    table.user = (uintptr_t)memory;
    say(s, SET_MEM_TABLE, &table, sizeof(table), memfd);
    for (unsigned i = 0; i < nqueues; i++) {
        queues[i].ring = (struct ring *)(memory + i * queue_size);
        queues[i].data =
            memory + i * queue_size + queue_size - (size_t)iodepth * bs;
        set_up_queue(s, i);
    }
    return s;
}

/* ---- Requests ---- */

static uint64_t
next_block(struct queue *q)
{
    uint64_t blocks = capacity / bs;

    if (!is_random)
        return q->next++ % blocks;
    q->seed ^= q->seed << 13;
    q->seed ^= q->seed >> 7;
    q->seed ^= q->seed << 17;
    return q->seed % blocks;
}

/* Put slot I into the ring; its three descriptors are 3 * I and on. */
static void
submit(struct queue *q, unsigned i, uint16_t at)
{
    struct ring *r = q->ring;

    r->request[i].sector = next_block(q) * bs / 512;
    r->avail.ring[at % RING] = (uint16_t)(3 * i);
}

static void
prepare(struct queue *q, unsigned i)
{
    struct ring *r = q->ring;
    struct desc *d = &r->desc[3 * i];

    r->request[i].type = (uint32_t)is_write;
    d[0] = (struct desc){address(&r->request[i]), 16, DESC_NEXT,
                         (uint16_t)(3 * i + 1)};
    d[1] = (struct desc){address(q->data + (size_t)i * bs), bs,
                         (uint16_t)(DESC_NEXT | (is_write ? 0 : DESC_WRITE)),
                         (uint16_t)(3 * i + 2)};
    d[2] = (struct desc){address(&r->request[i].status), 1, DESC_WRITE, 0};
}

/* Publish what was put in and kick, if the other side asks for it. */
static void
publish(struct queue *q, uint16_t old, uint16_t new)
{
    struct ring *r = q->ring;
    uint64_t one = 1;
    uint16_t event;

    atomic_store_explicit(&r->avail.idx, new, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    event = atomic_load_explicit(&r->used.avail_event, memory_order_relaxed);
    if ((uint16_t)(new - event - 1) < (uint16_t)(new - old)) {
        q->kicks++;
        if (write(q->kick, &one, sizeof(one)) != sizeof(one))
            err(1, "kick");
    }
}

/* Wait until the used index is not SEEN any more. */
static uint16_t
wait_used(struct queue *q, uint16_t seen)
{
    struct ring *r = q->ring;
    double until = now() + poll_us * 1e-6;
    uint16_t idx;
    uint64_t count;

    for (unsigned n = 1;; n++) {
        idx = atomic_load_explicit(&r->used.idx, memory_order_acquire);
        if (idx != seen)
            return idx;
        __builtin_ia32_pause();
        if (n % 64 == 0 && now() > until)
            break;
    }
    atomic_store(&r->avail.used_event, seen);
    while ((idx = atomic_load(&r->used.idx)) == seen) {
        struct pollfd p = {q->call, POLLIN, 0};

        poll(&p, 1, 1000);
        if (read(q->call, &count, sizeof(count)) < 0 && errno != EAGAIN)
            err(1, "call");
    }
    /* No calls while we look by ourselves. */
    atomic_store(&r->avail.used_event, (uint16_t)(seen - 1));
    return idx;
}

static void *
run_queue(void *arg)
{
    struct queue *q = arg;
    struct ring *r = q->ring;
    double end = now() + runtime;
    uint16_t avail = 0, seen = 0;
    unsigned out = iodepth;

    atomic_store(&r->avail.used_event, UINT16_MAX);
    for (unsigned i = 0; i < iodepth; i++) {
        prepare(q, i);
        submit(q, i, avail++);
    }
    publish(q, 0, avail);
    while (out) {
        uint16_t idx = wait_used(q, seen), old = avail;
        int go = now() < end;

        for (; seen != idx; seen++) {
            unsigned i = r->used.elem[seen % RING].id / 3;

            if (r->request[i].status)
                errx(1, "a request failed with %u", r->request[i].status);
            q->ios++;
            if (go)
                submit(q, i, avail++);
            else
                out--;
        }
        if (avail != old)
            publish(q, old, avail);
    }
    return NULL;
}

int
main(int argc, char **argv)
{
    struct rusage usage;
    uint64_t ios = 0, kicks = 0;
    double cpu, begin;

    if (argc != 8)
        errx(2, "usage: vhost_blk SOCKET MODE BS IODEPTH QUEUES RUNTIME "
                "POLL_US");
    is_random = strncmp(argv[2], "rand", 4) == 0;
    is_write = strstr(argv[2], "write") != NULL;
    bs = (unsigned)atoi(argv[3]);
    iodepth = (unsigned)atoi(argv[4]);
    nqueues = (unsigned)atoi(argv[5]);
    runtime = atof(argv[6]);
    poll_us = (unsigned)atoi(argv[7]);
    if (bs < 512 || bs % 512 || !iodepth || iodepth > RING / 3 || !nqueues ||
        nqueues > QUEUES_MAX)
        errx(2, "out of range");
    set_up(argv[1]);
    if (capacity < bs)
        errx(1, "the disk is too small");
    begin = now();
    for (unsigned i = 0; i < nqueues; i++)
        if (pthread_create(&queues[i].thread, NULL, run_queue, &queues[i]))
            errx(1, "no thread");
    for (unsigned i = 0; i < nqueues; i++) {
        pthread_join(queues[i].thread, NULL);
        ios += queues[i].ios;
        kicks += queues[i].kicks;
    }
    begin = now() - begin;
    getrusage(RUSAGE_SELF, &usage);
    cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 +
          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
    printf("iops=%.0f ios=%ju kicks=%ju cpu=%.1f\n", (double)ios / begin,
           (uintmax_t)ios, (uintmax_t)kicks, cpu / (double)ios);
    return 0;
}
