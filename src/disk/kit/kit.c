/* SPDX-License-Identifier: MIT
 *
 * The kit's frame: for each check make a node, a disk above, run, take down,
 * report.
 */
#include "kit.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kit_private.h"

/* Not a power of two, so that ends and granules do not meet. */
enum { KIT_SIZE = (1 << 20) + 3 * 4096 };

void
kit_fail(struct kit *k, const char *fmt, ...)
{
    va_list ap;

    if (k->failed)
        return;
    k->failed = true;
    va_start(ap, fmt);
    vsnprintf(k->detail, sizeof(k->detail), fmt, ap);
    va_end(ap);
}

void
kit_skip(struct kit *k, const char *why)
{
    k->skipped = true;
    if (!k->failed)
        snprintf(k->detail, sizeof(k->detail), "%s", why);
}

/* ---- Requests ---- */

static void
kit_done(struct st_req *req)
{
    struct kit_req *r = req->owner;

    r->completed++;
    r->under_way = false;
    r->finished = true;
    if (r->in_submit)
        kit_fail(r->k, "operation %u completed inside submit", r->op);
    if (r->completed > 1)
        kit_fail(r->k, "operation %u completed twice", r->op);
    if (req->op != r->op || (req->flags & ~ST_REQ_ORPHAN) != r->flags ||
        req->offset != r->offset || req->len != r->len ||
        req->buf.iov != r->buf.iov || req->buf.skip != r->buf.skip ||
        req->nexus != r->nexus)
        kit_fail(r->k, "operation %u of %#jx+%#jx came back as %u of %#jx+%#jx",
                 r->op, (uintmax_t)r->offset, (uintmax_t)r->len, req->op,
                 (uintmax_t)req->offset, (uintmax_t)req->len);
}

struct kit_req *
kit_req(struct kit *k, enum st_op op, uint64_t offset, uint64_t len)
{
    unsigned frames =
        k->disk ? st_disk_frames(k->disk) : st_node_depth(k->node);
    size_t bytes = len > (64u << 20)               ? 8192
                   : op == ST_OP_COMPARE_AND_WRITE ? 2 * len
                   : (ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE)) & ST_BIT(op)
                       ? len
                       : 0;
    struct kit_req *r = calloc(1, sizeof(*r));

    if (!r)
        abort(); /* a test that has no memory proves nothing */
    r->k = k;
    r->req = calloc(1, st_req_size(frames));
    r->iov = calloc(1, sizeof(*r->iov));
    r->mem = st_pages_alloc(bytes + 4096);
    if (!r->req || !r->iov || !r->mem)
        abort();
    memset(r->mem, 0, bytes + 4096);
    r->iov->iov_base = r->mem;
    r->iov->iov_len = bytes;
    st_req_init(r->req, frames, kit_done, r);
    r->req->op = (uint8_t)op;
    r->req->offset = offset;
    r->req->len = len;
    r->req->buf = (struct st_buf){r->iov, 0};
    st_list_append(&k->reqs, &r->link);
    return r;
}

void
kit_start(struct kit_req *r)
{
    r->op = r->req->op;
    r->flags = r->req->flags;
    r->offset = r->req->offset;
    r->len = r->req->len;
    r->buf = r->req->buf;
    r->nexus = r->req->nexus;
    r->completed = 0;
    r->finished = false;
    r->under_way = r->in_submit = true;
    st_submit(r->k->chan, r->req);
    r->in_submit = false;
}

enum st_status
kit_wait(struct kit_req *r)
{
    if (!st_loop_wait(r->k->loop, &r->finished))
        kit_fail(r->k, "operation %u of %#jx+%#jx never completes", r->op,
                 (uintmax_t)r->offset, (uintmax_t)r->len);
    return r->finished ? (enum st_status)r->req->status : ST_STATUS_COUNT;
}

void
kit_wait_all(struct kit *k)
{
    st_list_for(r, tmp, &k->reqs, struct kit_req, link)
    {
        if (r->under_way)
            kit_wait(r);
    }
}

void
kit_req_free(struct kit_req *r)
{
    st_list_remove(&r->link);
    free(r->req);
    free(r->iov);
    free(r->mem);
    free(r);
}

struct turns {
    struct st_task task;
    struct st_loop *loop;
    unsigned left;
    bool done;
};

static void
turns_run(struct st_task *task)
{
    struct turns *t = st_container(task, struct turns, task);

    if (t->left-- == 0)
        t->done = true;
    else
        st_post(t->loop, task);
}

void
kit_turns(struct kit *k, unsigned n)
{
    struct turns t = {.loop = k->loop, .left = n, .task.run = turns_run};

    st_post(k->loop, &t.task);
    st_loop_wait(k->loop, &t.done);
}

/* ---- Data ------------------------------------------------------------------
 */

bool
kit_performs(const struct kit *k, enum st_op op)
{
    const struct st_props *p =
        k->disk ? st_disk_props(k->disk) : &k->node->props;

    return p->performs & ST_BIT(op);
}

void
kit_random(struct kit *k, void *p, size_t len)
{
    uint8_t *b = p;

    for (size_t i = 0; i < len; i += 8) {
        uint64_t v = st_rand_next(&k->rand);

        memcpy(b + i, &v, len - i < 8 ? len - i : 8);
    }
}

enum st_status
kit_op(struct kit *k, enum st_op op, unsigned flags, uint64_t offset,
       uint64_t len)
{
    struct kit_req *r = kit_req(k, op, offset, len);
    enum st_status s;

    r->req->flags = (uint8_t)flags;
    s = kit_run(r);
    if (!r->under_way)
        kit_req_free(r);
    return s;
}

enum st_status
kit_write(struct kit *k, uint64_t offset, uint64_t len, unsigned flags)
{
    struct kit_req *r = kit_req(k, ST_OP_WRITE, offset, len);
    enum st_status s;

    kit_random(k, r->mem, len);
    r->req->flags = (uint8_t)flags;
    s = kit_run(r);
    if (s == ST_OK)
        memcpy(k->model + offset, r->mem, len);
    if (!r->under_way)
        kit_req_free(r);
    return s;
}

void
kit_fill(struct kit *k)
{
    for (uint64_t at = 0, n; at < k->size && !k->failed; at += n) {
        n = st_min(1 << 16, k->size - at);
        KIT_CHECK(k, kit_write(k, at, n, 0) == ST_OK, "cannot fill at %#jx",
                  (uintmax_t)at);
    }
}

void
kit_verify_at(struct kit *k, uint64_t offset, uint64_t len)
{
    struct kit_req *r = kit_req(k, ST_OP_READ, offset, len);
    enum st_status s = kit_run(r);
    uint64_t i = 0;

    KIT_CHECK(k, s == ST_OK, "read of %#jx+%#jx: %s", (uintmax_t)offset,
              (uintmax_t)len, st_status_name(s));
    while (i < len && r->mem[i] == k->model[offset + i])
        i++;
    KIT_CHECK(k, i == len, "wrong data at %#jx: %02x, not %02x",
              (uintmax_t)(offset + i), r->mem[i], k->model[offset + i]);
    kit_req_free(r);
}

void
kit_verify(struct kit *k)
{
    for (uint64_t at = 0, n; at < k->size && !k->failed; at += n) {
        n = st_min(1 << 16, k->size - at);
        kit_verify_at(k, at, n);
    }
}

/* ---- Running checks ---- */

/* What a new disk holds is the model's start. */
static void
kit_learn(struct kit *k)
{
    struct kit_req *r = kit_req(k, ST_OP_READ, 0, k->size);
    enum st_status s = kit_run(r);

    KIT_CHECK(k, s == ST_OK, "reading the new disk: %s", st_status_name(s));
    memcpy(k->model, r->mem, k->size);
    kit_req_free(r);
}

static void
kit_open(struct kit *k, const struct kit_check *c)
{
    struct st_err err = {{0}};
    int rc = k->conf->make(k->conf->arg, k->loop, k->sector, KIT_SIZE, &k->node,
                           &err);

    if (rc == -ENOTSUP) {
        kit_skip(k, "this size or sector cannot be made");
        return;
    }
    KIT_CHECK(k, rc == 0, "make: %s (%s)", err.text, st_strerror(rc));
    k->size = st_node_size(k->node);
    if (c->needs & KIT_LAYER && !k->node->ops->presence)
        kit_skip(k, "not a layer");
    if (c->needs & KIT_WRITABLE && k->node->props.read_only)
        kit_skip(k, "read-only");
    if (k->skipped)
        return;
    k->model = calloc(1, k->size + 1);
    KIT_CHECK(k, k->model, "no memory");
    if (c->needs & KIT_NODE) {
        rc = st_chan_open(k->node, k->loop, &k->chan);
        KIT_CHECK(k, rc == 0, "open_chan: %s", st_strerror(rc));
        return;
    }
    rc = st_disk_create(k->loop, k->node, "kit", false, &k->disk, &err);
    KIT_CHECK(k, rc == 0, "st_disk_create: %s", err.text);
    rc = st_disk_open_chan(k->disk, k->loop, &k->chan);
    KIT_CHECK(k, rc == 0, "st_disk_open_chan: %s", st_strerror(rc));
    kit_learn(k);
}

static void
kit_close(struct kit *k)
{
    bool stuck = false;

    kit_wait_all(k);
    st_list_for(r, tmp, &k->reqs, struct kit_req, link)
    {
        stuck |= r->under_way;
        if (!r->under_way)
            kit_req_free(r);
    }
    free(k->model);
    if (stuck)
        return; /* it failed; what hangs cannot be taken down */
    if (k->disk) {
        if (k->chan)
            st_disk_close_chan(k->chan);
        st_disk_destroy(k->disk);
    } else {
        st_chan_close(k->chan);
        st_node_close(k->node);
    }
}

static void
kit_report(const struct st_kit *conf, const char *check, enum st_verdict v,
           const char *detail)
{
    static const char *const word[] = {"ok", "FAILED", "skip"};

    if (conf->report)
        conf->report(conf->report_arg, check, v, detail);
    else
        printf("%s: %s.%u.%s%s%s\n", word[v], conf->name, conf->sector, check,
               detail[0] ? ": " : "", detail);
}

unsigned
st_kit_run(const struct st_kit *conf, unsigned *ran)
{
    const struct kit_check *const all[] = {kit_wall, kit_data, kit_life,
                                           kit_layer};
    unsigned failures = 0, n = 0;

    for (unsigned i = 0; i < 4; i++) {
        for (const struct kit_check *c = all[i]; c->name; c++) {
            struct kit k = {.conf = conf,
                            .loop = conf->loop,
                            .sector = conf->sector,
                            .rand = st_rand_seed(1)};

            st_list_init(&k.reqs);
            kit_open(&k, c);
            if (!k.failed && !k.skipped)
                c->run(&k);
            kit_close(&k);
            if (k.failed)
                failures++;
            n += k.failed || !k.skipped;
            kit_report(conf, c->name,
                       k.failed    ? ST_KIT_FAIL
                       : k.skipped ? ST_KIT_SKIP
                                   : ST_KIT_PASS,
                       k.detail);
        }
    }
    if (ran)
        *ran = n;
    return failures;
}
