/* SPDX-License-Identifier: MIT
 *
 * What a layer costs: requests through N empty decorators over a node that
 * answers at once, below a root.
 *
 *   layers N REQUESTS [DEPTH]
 *
 * Prints the nanoseconds and the mallocs per request. bench/layers.sh runs it
 * under callgrind for the instructions, which are the figure that repeats.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "disk.h"

static unsigned long mallocs;

/* The whole program's malloc, counted. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *
malloc(size_t n)
{
    mallocs++;
    return __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
    mallocs++;
    return __libc_calloc(n, size);
}

void *
realloc(void *p, size_t n)
{
    mallocs++;
    return __libc_realloc(p, n);
}

/* ---- An empty decorator, and a node that answers at once ------------------
 */

struct empty_chan {
    struct st_chan base;
    struct st_chan *inner; /* owned; NULL at the bottom */
};

static void
empty_done(struct st_chan *c, struct st_req *req)
{
    (void)c;
    st_complete(req);
}

static void
empty_submit(struct st_chan *c, struct st_req *req)
{
    st_push(req, empty_done, c);
    st_submit(((struct empty_chan *)c)->inner, req);
}

static void
null_submit(struct st_chan *c, struct st_req *req)
{
    st_finish(c->loop, req, st_node_range_ok(c->node, req) ? ST_OK : ST_RANGE);
}

static int
empty_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct empty_chan *e = calloc(1, sizeof(*e));

    if (!e)
        return -1;
    st_chan_init(&e->base, n, l, n->nchild ? empty_submit : null_submit);
    if (n->nchild && st_chan_open(n->child[0], l, &e->inner) < 0)
        abort();
    *out = &e->base;
    return 0;
}

static void
empty_close_chan(struct st_chan *c)
{
    st_chan_close(((struct empty_chan *)c)->inner);
    free(c);
}

static void
empty_close(struct st_node *n)
{
    free(n);
}

static const struct st_node_ops empty_ops = {
    .name = "empty",
    .transparent = true,
    .open_chan = empty_open_chan,
    .close_chan = empty_close_chan,
    .close = empty_close,
};

static const struct st_node_ops null_ops = {
    .name = "null",
    .open_chan = empty_open_chan,
    .close_chan = empty_close_chan,
    .close = empty_close,
};

/* ---- The load ---- */

struct load {
    struct st_chan *chan;
    unsigned long left, out;
    bool done;
};

static void
load_next(struct st_req *req)
{
    struct load *l = req->owner;

    if (l->left) {
        l->left--;
        st_submit(l->chan, req);
    } else if (--l->out == 0) {
        l->done = true;
    }
}

int
main(int argc, char **argv)
{
    unsigned n = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    unsigned long requests = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000;
    unsigned depth = argc > 3 ? (unsigned)atoi(argv[3]) : 32;
    struct st_domain_opts opts = {.engine = "threads"};
    static char page[4096];
    struct iovec iov = {page, sizeof(page)};
    struct st_node *node = calloc(1, sizeof(*node));
    struct load load = {.left = requests, .out = depth};
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_disk *disk;
    struct st_err err;
    struct timespec a, b;
    unsigned long before;
    double ns;

    if (st_domain_create(&opts, &domain, &err) < 0 ||
        st_loop_create(domain, &loop, &err) < 0)
        return 1;
    st_node_init(node, &null_ops, loop, NULL);
    node->props.performs =
        ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) | ST_BIT(ST_OP_FLUSH);
    st_node_set_size(node, 1 << 30);
    for (unsigned i = 0; i < n; i++) {
        struct st_node *e = calloc(1, sizeof(*e));

        st_node_init(e, &empty_ops, loop, NULL);
        if (st_node_adopt(e, node) < 0)
            return 1;
        node = e;
    }
    if (st_disk_create(loop, node, "bench", false, &disk, &err) < 0 ||
        st_disk_open_chan(disk, loop, &load.chan) < 0)
        return 1;
    for (unsigned i = 0; i < depth; i++) {
        unsigned frames = st_disk_frames(disk);
        struct st_req *r = malloc(st_req_size(frames));

        st_req_init(r, frames, load_next, &load);
        r->op = ST_OP_READ;
        r->len = sizeof(page);
        r->offset = i * sizeof(page);
        r->buf.iov = &iov;
        st_submit(load.chan, r);
    }
    before = mallocs;
    clock_gettime(CLOCK_MONOTONIC, &a);
    st_loop_wait(loop, &load.done);
    clock_gettime(CLOCK_MONOTONIC, &b);
    ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    printf("layers %u  ns/request %.1f  mallocs %lu\n", n,
           ns / (double)requests, mallocs - before);
    st_disk_close_chan(load.chan);
    st_disk_destroy(disk);
    st_loop_destroy(loop);
    st_domain_destroy(domain);
    return 0;
}
