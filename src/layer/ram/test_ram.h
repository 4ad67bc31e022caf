/* SPDX-License-Identifier: MIT
 *
 * What the RAM layer's tests share: a domain with one loop, a node, its door,
 * and one request at a time.
 */
#ifndef ST_TEST_RAM_H
#define ST_TEST_RAM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bitmap.h"
#include "ram.h"
#include "rand.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define TIB(n) ((uint64_t)(n) << 40)

struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_node *node;
    struct st_chan *chan;
};

/* A disk attached above something of the same size (OVER), or alone. */
static inline void
rig_open(struct rig *r, uint64_t size, uint32_t sector, bool over)
{
    struct st_domain_opts opts = {.engine = "threads"};
    struct st_node lower = {.props = {.sector_size = sector}, .size = size};
    struct st_err err = {""};

    if (st_domain_create(&opts, &r->domain, &err) < 0 ||
        st_loop_create(r->domain, &r->loop, &err) < 0 ||
        st_ram_create(r->loop, size, sector, "ram", &r->node, &err) < 0 ||
        r->node->ops->attach(r->node, over ? &lower : NULL, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(st_chan_open(r->node, r->loop, &r->chan), 0);
}

static inline void
rig_close(struct rig *r)
{
    st_chan_close(r->chan);
    st_node_close(r->node);
    st_loop_destroy(r->loop);
    st_domain_destroy(r->domain);
}

struct shot {
    struct iovec iov[3];
    bool done;
    struct st_req *req; /* in mem */
    _Alignas(16) char mem[sizeof(struct st_req) + 2 * sizeof(struct st_frame)];
};

static inline void
shot_done(struct st_req *req)
{
    ((struct shot *)req->owner)->done = true;
}

/* BUF in three uneven pieces, so that copies meet every boundary. */
static inline void
shot_fill(struct shot *s, enum st_op op, unsigned flags, uint64_t offset,
          uint64_t len, void *buf)
{
    uint64_t a = len / 3, b = len - len / 5;

    s->done = false;
    s->req = (struct st_req *)(void *)s->mem;
    st_req_init(s->req, 2, shot_done, s);
    s->req->op = (uint8_t)op;
    s->req->flags = (uint8_t)flags;
    s->req->offset = offset;
    s->req->len = len;
    if (!buf)
        return;
    s->iov[0] = (struct iovec){buf, a};
    s->iov[1] = (struct iovec){(char *)buf + a, b - a};
    s->iov[2] = (struct iovec){(char *)buf + b, len - b};
    s->req->buf.iov = s->iov;
}

static inline enum st_status
rig_op(struct rig *r, enum st_op op, unsigned flags, uint64_t offset,
       uint64_t len, void *buf)
{
    struct shot s;

    shot_fill(&s, op, flags, offset, len, buf);
    st_submit(r->chan, s.req);
    assert_false(s.done);
    assert_true(st_loop_wait(r->loop, &s.done));
    return (enum st_status)s.req->status;
}

static inline enum st_status
rig_write(struct rig *r, uint64_t offset, uint64_t len, const void *buf)
{
    return rig_op(r, ST_OP_WRITE, 0, offset, len, (void *)(uintptr_t)buf);
}

static inline enum st_status
rig_read(struct rig *r, uint64_t offset, uint64_t len, void *buf)
{
    return rig_op(r, ST_OP_READ, 0, offset, len, buf);
}

static inline void
rig_resize(struct rig *r, uint64_t size)
{
    struct st_err err = {""};

    if (st_node_resize(r->node, size, &err) < 0)
        fail_msg("%s", err.text);
}

#endif
