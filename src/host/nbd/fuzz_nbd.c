/* SPDX-License-Identifier: MIT
 *
 * Fuzz: the input is the client's side of a session. Byte 0 picks how it is cut
 * into packets, what the disk does, and whether there is TLS; the loop is
 * turned here, so that one input is one run. What the server says is read now
 * and then, or never.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk.h"
#include "nbd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DISK = 1 << 20 };

/* A disk of memory; every eighth of it in turn is data, zero, hole, ... */
struct mem {
    struct st_node node; /* first */
    uint8_t *bytes;
    bool fail;
};

static void
mem_submit(struct st_chan *c, struct st_req *req)
{
    struct mem *m = (struct mem *)c->node;
    enum st_status status = m->fail ? ST_IO : ST_OK;

    if (ST_BIT(req->op) & ST_OPS_RANGED && !st_node_range_ok(c->node, req)) {
        st_finish(c->loop, req, ST_RANGE);
        return;
    }
    if (status == ST_OK && req->op == ST_OP_READ)
        st_buf_write(req->buf, m->bytes + req->offset, req->len);
    else if (status == ST_OK && req->op == ST_OP_WRITE)
        st_buf_read(req->buf, m->bytes + req->offset, req->len);
    else if (status == ST_OK && req->op == ST_OP_WRITE_ZEROES)
        memset(m->bytes + req->offset, 0, req->len);
    if (req->op == ST_OP_BLOCK_STATUS) {
        uint64_t left = 4096 - req->offset % 4096;

        req->extent.len = st_min(left, req->len);
        req->extent.flags = (uint32_t)(req->offset / 4096 % 3);
    }
    st_finish(c->loop, req, status);
}

static void
mem_close_chan(struct st_chan *c)
{
    free(c);
}

static int
mem_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    *out = malloc(sizeof(**out));
    if (!*out)
        return -1;
    st_chan_init(*out, n, l, mem_submit);
    return 0;
}

static void
mem_close(struct st_node *n)
{
    free(((struct mem *)n)->bytes);
    free(n);
}

static const struct st_node_ops mem_ops = {
    .name = "mem",
    .open_chan = mem_open_chan,
    .close_chan = mem_close_chan,
    .close = mem_close,
};

struct flag {
    struct st_task task;
    bool done;
};

static void
raise_flag(struct st_task *t)
{
    st_container(t, struct flag, task)->done = true;
}

static void
turn(struct st_loop *l)
{
    struct flag f = {.task.run = raise_flag};

    st_ready(l, &f.task);
    st_loop_wait(l, &f.done);
}

/* A file with a pre-shared key; its name. */
static void
keys_file(char *path, size_t size)
{
    static const char line[] = "u:000102030405060708090a0b0c0d0e0f\n";
    int fd = memfd_create("keys", MFD_CLOEXEC);

    if (fd < 0 || write(fd, line, sizeof(line) - 1) < 0)
        abort();
    snprintf(path, size, "/proc/self/fd/%d", fd);
}

static void
stopped(void *arg, int rc)
{
    (void)rc;
    *(bool *)arg = true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct st_domain_opts dopts = {.engine = "threads"};
    struct st_nbd_opts nopts = {.nloops = 1, .handshake_ns = UINT64_MAX / 4};
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_disk *disk;
    struct st_nbd *nbd;
    struct mem *m = calloc(1, sizeof(*m));
    bool done = false;
    uint8_t how = size ? *data : 0;
    size_t step = how & 1 ? 7 : SIZE_MAX;
    int fd[2];
    static const unsigned limit[] = {256, 2, 1, 256};
    static char keys[40]; /* made once */

    if (size) {
        data++;
        size--;
    }
    if (!m || st_domain_create(&dopts, &domain, NULL) < 0 ||
        st_loop_create(domain, &loop, NULL) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0)
        abort();
    st_domain_caps(domain)->row[ST_CAP_NBD_MEMORY].limit =
        (uint64_t)limit[how >> 1 & 3] << 20;
    st_node_init(&m->node, &mem_ops, loop, "mem");
    m->bytes = calloc(1, DISK);
    m->fail = how & 8;
    m->node.props.performs = ST_OPS_RANGED | ST_BIT(ST_OP_FLUSH);
    m->node.props.performs &= ~ST_BIT(ST_OP_COMPARE_AND_WRITE);
    m->node.props.mem_align = how & 16 ? 512 : 1;
    m->node.props.rotational = how & 32;
    st_node_set_size(&m->node, DISK);
    nopts.control = loop;
    nopts.loops = &loop;
    if ((how & 6) == 6) {
        if (!*keys)
            keys_file(keys, sizeof(keys));
        nopts.tls = ST_NBD_TLS_ON;
        nopts.tls_psk = keys;
    }
    if (st_disk_create(loop, &m->node, "d", false, &disk, NULL) < 0 ||
        st_nbd_create(&nopts, &nbd, NULL) < 0 ||
        st_nbd_export(nbd, "", "fuzz", disk, false, NULL) < 0 ||
        st_nbd_export(nbd, "ro", NULL, disk, true, NULL) < 0 ||
        st_nbd_connection(nbd, fd[1], NULL, NULL, NULL) < 0)
        abort();
    for (unsigned idle = 0; size && idle < 50;) {
        size_t n = size < step ? size : step;
        ssize_t k = send(fd[0], data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        static uint8_t sink[1 << 16];

        turn(loop);
        idle = k > 0 ? 0 : idle + 1;
        if (k > 0) {
            data += k;
            size -= (size_t)k;
        }
        if (!(how & 64))
            while (recv(fd[0], sink, sizeof(sink), MSG_DONTWAIT) > 0)
                ;
    }
    for (unsigned i = 0; i < 10; i++)
        turn(loop);
    if (how & 128)
        shutdown(fd[0], SHUT_WR);
    else
        close(fd[0]);
    st_nbd_stop(nbd, 0, stopped, &done);
    st_loop_wait(loop, &done);
    if (how & 128)
        close(fd[0]);
    st_nbd_destroy(nbd);
    st_disk_destroy(disk);
    turn(loop);
    turn(loop);
    st_loop_destroy(loop);
    st_domain_destroy(domain);
    return 0;
}
