/* SPDX-License-Identifier: MIT
 *
 * The model test: random stacks under random use, against a byte array.
 *
 * usage: model [--seed N] [--rounds N] [--ops N] [-v]
 *
 * One round draws from its seed a virtual domain with one to three loops, a
 * stack (stacks.c), and then some thousand actions:
 *
 *   requests    of every kind, any alignment, overlapping, on every loop
 *   cancels     of those under way
 *   edits       resize, quiesce in three modes and resume, live insertion and
 *               removal of decorators
 *   turns       one thing happens, on a loop that the seed chooses
 *
 * The oracle (oracle.c) says which results are possible. A failure prints the
 * seed, which replays the round; without arguments: seeds 1 to 3 and a new one.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "delay.h"
#include "disk.h"
#include "fault.h"
#include "oracle.h"
#include "stacks.h"
#include "testnode.h"

enum { FLIGHT_MAX = 24, LOOPS_MAX = 3 };

struct model {
    uint64_t seed;
    unsigned nops, step;
    struct st_rand r;
    struct st_domain *domain;
    struct st_loop *loop[LOOPS_MAX];
    struct st_chan *chan[LOOPS_MAX];
    unsigned nloops;
    struct stack stack;
    struct st_disk *disk;
    struct oracle oracle;
    uint32_t sector;
    uint64_t lo, hi;          /* the size is in [lo, hi] */
    struct st_list under_way; /* op.link */
    unsigned flight;
    bool faulty; /* fault injection was or is in the tree */
    bool can_resize, resized;
    bool flush_failed; /* and is to fail for ever */

    /* The edit under way. */
    struct st_edit edit;
    bool editing;
    const char *editing_what;
    struct oracle_op cut; /* a resize's tail, being zeroed */
    bool cutting;
    uint64_t new_size;
    struct st_node *inserting;
    bool quiesced, refusing;

    struct st_listener ear;
    uint64_t heard;
    bool gone;
    unsigned done_ops, edits;
};

struct op {
    struct model *m;
    struct st_list link;
    struct st_task task;
    struct st_chan *chan;
    struct st_req *req;    /* owned */
    uint8_t *mem, *zeroes; /* owned */
    uint8_t *value;        /* what it writes: in one of these, or NULL */
    struct iovec iov[6];
    struct oracle_op oracle;
    uint64_t lo, hi; /* sizes during its life */
    bool wild;       /* surely past the end: the oracle does not know it */
    bool submitted, may_abort;
    bool unsure; /* a flush had failed before it began */
};

static void __attribute__((noreturn, format(printf, 2, 3)))
fail(struct model *m, const char *fmt, ...)
{
    va_list ap;

    printf("model: seed %ju, step %u: ", (uintmax_t)m->seed, m->step);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\nmodel: stack %s\n", m->stack.words);
    printf("replay: tests/model --seed %ju --ops %u\n", (uintmax_t)m->seed,
           m->nops);
    printf("counts: 0 passed, 1 failed, 0 skipped\n");
    if (m->stack.path[0])
        remove(m->stack.path);
    exit(1);
}

static uint64_t
below(struct model *m, uint64_t n)
{
    return st_rand_below(&m->r, n);
}

/* ---- Requests: how they end ------------------------------------------------
 */

static void
judge_status(struct op *op, enum st_status s)
{
    struct model *m = op->m;
    const struct st_req *req = op->req;
    bool ranged = ST_OPS_RANGED & ST_BIT(req->op), ok = false;

    switch (s) {
    case ST_OK:
        ok = !ranged || st_range_ok(req->offset, req->len, op->hi);
        break;
    case ST_RANGE:
        ok = ranged && !st_range_ok(req->offset, req->len, op->lo);
        break;
    case ST_MISCOMPARE:
        ok = req->op == ST_OP_COMPARE_AND_WRITE;
        break;
    case ST_UNSUPPORTED:
        ok = req->flags & ST_REQ_FAST || req->op == ST_OP_EJECT ||
             !(st_disk_props(m->disk)->performs & ST_BIT(req->op));
        break;
    case ST_ABORTED:
        ok = op->may_abort;
        break;
    case ST_IO:
    case ST_MEDIUM_READ:
    case ST_MEDIUM_WRITE:
        ok = m->faulty;
        break;
    default:
        break;
    }
    if (s == ST_OK && op->unsure &&
        (req->op == ST_OP_FLUSH || (req->flags & ST_REQ_FUA && req->len &&
                                    !st_disk_node(m->disk)->props.fua)))
        fail(m, "operation %u flags %#x after a failed flush: ok", req->op,
             req->flags);
    m->flush_failed |= req->op == ST_OP_FLUSH && s != ST_OK && s != ST_ABORTED;
    if (!ok)
        fail(m, "operation %u flags %#x of %#jx+%#jx (size %ju to %ju): %s",
             req->op, req->flags, (uintmax_t)req->offset, (uintmax_t)req->len,
             (uintmax_t)op->lo, (uintmax_t)op->hi, st_status_name(s));
}

static void
judge_data(struct op *op, enum st_status s)
{
    struct model *m = op->m;
    const struct st_req *req = op->req;
    uint64_t n = req->len, at;

    switch (req->op) {
    case ST_OP_READ:
        at = oracle_saw(&m->oracle, &op->oracle, op->mem, n);
        if (at < n)
            fail(m, "read of %#jx+%#jx: byte %#jx is %02x, which nobody wrote",
                 (uintmax_t)req->offset, (uintmax_t)n,
                 (uintmax_t)(req->offset + at), op->mem[at]);
        oracle_settle(&m->oracle, &op->oracle, op->mem);
        break;
    case ST_OP_COMPARE_AND_WRITE:
        if (s == ST_MISCOMPARE) {
            n = req->miscompare_at;
            if (n >= req->len)
                fail(m, "miscompare at byte %ju of %ju", (uintmax_t)n,
                     (uintmax_t)req->len);
            if (byteset_has(&op->oracle.seen[n], op->mem[n]) &&
                !op->oracle.overlapped) {
                byteset only = {{0}};

                only.w[op->mem[n] / 64] = UINT64_C(1) << (op->mem[n] % 64);
                if (memcmp(&only, &op->oracle.seen[n], sizeof(only)) == 0)
                    fail(m, "byte %#jx does not differ",
                         (uintmax_t)(req->offset + n));
            }
        }
        at = oracle_saw(&m->oracle, &op->oracle, op->mem, n);
        if (at < n)
            fail(m, "byte %#jx was never as compared",
                 (uintmax_t)(req->offset + at));
        break;
    case ST_OP_BLOCK_STATUS:
        n = req->extent.len;
        if (req->len == 0)
            break;
        if (n == 0 || n > req->len)
            fail(m, "extent of %#jx bytes for %#jx", (uintmax_t)n,
                 (uintmax_t)req->len);
        for (at = 0; at < n && req->extent.flags & ST_EXTENT_ZERO; at++)
            if (!byteset_has(&op->oracle.seen[at], 0))
                fail(m, "byte %#jx is called zero",
                     (uintmax_t)(req->offset + at));
        break;
    default:
        break;
    }
}

static void
op_done(struct st_req *req)
{
    struct op *op = req->owner;
    struct model *m = op->m;
    enum st_status s = req->status;

    judge_status(op, s);
    if (!op->wild) {
        if (s == ST_OK || s == ST_MISCOMPARE)
            judge_data(op, s);
        oracle_end(&m->oracle, &op->oracle,
                   s == ST_OK ? ORACLE_DONE
                   : s == ST_RANGE || s == ST_MISCOMPARE || s == ST_UNSUPPORTED
                       ? ORACLE_NOT
                       : ORACLE_FAILED);
    }
    st_list_remove(&op->link);
    m->flight--;
    m->done_ops++;
    free(op->zeroes);
    free(op->mem);
    free(req);
    free(op);
}

/* ---- Requests: how they begin ---- */

static void
op_submit(struct st_task *t)
{
    struct op *op = st_container(t, struct op, task);

    op->submitted = true;
    st_submit(op->chan, op->req);
}

static enum st_op
draw_op(struct model *m)
{
    uint64_t n = below(m, 100);

    return n < 35   ? ST_OP_READ
           : n < 65 ? ST_OP_WRITE
           : n < 73 ? ST_OP_WRITE_ZEROES
           : n < 79 ? ST_OP_UNMAP
           : n < 86 ? ST_OP_COMPARE_AND_WRITE
           : n < 92 ? ST_OP_BLOCK_STATUS
           : n < 99 ? ST_OP_FLUSH
                    : ST_OP_EJECT;
}

static void
draw_range(struct model *m, uint64_t *offset, uint64_t *len)
{
    uint64_t size = m->oracle.size;
    uint64_t most = below(m, 20) == 0 ? 24000 : 3000;

    *len = 1 + below(m, st_min(most, size));
    *offset = below(m, size - *len + 1);
    if (below(m, 2)) { /* whole sectors */
        *offset = st_align_down(*offset, m->sector);
        *len = st_min(st_align_up(*len, m->sector), size - *offset);
    }
    if (below(m, 40) == 0)
        *len = 0;
    if (below(m, 40) == 0)
        *offset += size;
    if (below(m, 200) == 0)
        *offset = UINT64_MAX - below(m, 5000);
}

static void
draw_bytes(struct model *m, uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        p[i] = (uint8_t)st_rand_next(&m->r);
}

/* What OP writes, to op->value: its data, zeroes, or NULL. */
static void
draw_data(struct op *op)
{
    struct model *m = op->m;
    struct st_req *req = op->req;
    uint64_t n = req->len;

    switch (req->op) {
    case ST_OP_WRITE:
        op->value = op->mem;
        draw_bytes(m, op->value, n);
        break;
    case ST_OP_COMPARE_AND_WRITE:
        op->value = op->mem + n;
        draw_bytes(m, op->value, n);
        for (uint64_t i = 0; i < n && !op->wild; i++)
            for (unsigned v = 0; v < 256; v++)
                if (byteset_has(&m->oracle.allowed[req->offset + i],
                                (uint8_t)v))
                    op->mem[i] = (uint8_t)v;
        break;
    case ST_OP_UNMAP:
        if (st_disk_props(m->disk)->unmap == ST_UNMAP_ZEROES)
            op->zeroes = calloc(1, n + 1);
        op->value = op->zeroes;
        break;
    case ST_OP_WRITE_ZEROES:
        op->value = op->zeroes = calloc(1, n + 1);
        break;
    default:
        break;
    }
}

static void
op_begin(struct op *op)
{
    struct model *m = op->m;
    struct st_req *req = op->req;
    enum st_unmap unmap = st_disk_props(m->disk)->unmap;

    if (op->wild)
        return;
    if (req->op == ST_OP_UNMAP && unmap != ST_UNMAP_IGNORED) {
        /* Where it cuts a sector, either is right: the set keeps both. */
        if (unmap == ST_UNMAP_UNSPECIFIED ||
            (req->offset | req->len) & (m->sector - 1))
            oracle_begin_anything(&m->oracle, &op->oracle, req->offset,
                                  req->len);
        else
            oracle_begin(&m->oracle, &op->oracle, req->offset, req->len,
                         op->value);
        return;
    }
    oracle_begin(&m->oracle, &op->oracle, req->offset, req->len,
                 req->op == ST_OP_UNMAP ? NULL : op->value);
}

static void
start_op(struct model *m, enum st_op what, uint64_t offset, uint64_t len)
{
    struct op *op = calloc(1, sizeof(*op));
    unsigned frames = st_disk_frames(m->disk) + (unsigned)below(m, 3);
    unsigned i = (unsigned)below(m, m->nloops), segments = 1;
    uint64_t bytes, at = 0;

    if (!op)
        abort();
    bytes = what == ST_OP_COMPARE_AND_WRITE ? 2 * len : len;
    op->m = m;
    op->chan = m->chan[i];
    op->task.run = op_submit;
    op->req = malloc(st_req_size(frames));
    op->mem = calloc(1, bytes + 1);
    if (!op->req || !op->mem)
        abort();
    st_req_init(op->req, frames, op_done, op);
    op->req->op = (uint8_t)what;
    op->req->offset = offset;
    op->req->len = len;
    if (what == ST_OP_WRITE_ZEROES)
        op->req->flags = (uint8_t)(below(m, 8) & (ST_REQ_FUA | ST_REQ_FAST |
                                                  ST_REQ_MAY_UNMAP));
    if (what == ST_OP_WRITE && below(m, 4) == 0)
        op->req->flags = ST_REQ_FUA;
    segments += (unsigned)below(m, 6);
    for (unsigned s = 0; s < segments; s++) {
        uint64_t n = s + 1 < segments ? below(m, bytes - at + 1) : bytes - at;

        op->iov[s] = (struct iovec){op->mem + at, n};
        at += n;
    }
    op->req->buf = (struct st_buf){op->iov, 0};
    op->lo = m->lo;
    op->hi = m->hi;
    op->may_abort = m->refusing;
    op->unsure = m->flush_failed;
    op->wild = !(ST_OPS_RANGED & ST_BIT(what)) ||
               !st_range_ok(offset, len, m->oracle.size);
    draw_data(op);
    op_begin(op);
    st_list_append(&m->under_way, &op->link);
    m->flight++;
    st_post(m->loop[i], &op->task);
}

static struct op *
some_op(struct model *m)
{
    uint64_t n = below(m, m->flight);

    st_list_for(op, tmp, &m->under_way, struct op, link)
    {
        if (n-- == 0)
            return op;
    }
    return NULL;
}

/* ---- Edits ---- */

static void
edit_done(struct st_edit *e, int rc)
{
    struct model *m = e->arg;
    const char *what = m->editing_what;

    m->editing = false;
    m->edits++;
    if (m->cutting) {
        oracle_end(&m->oracle, &m->cut, rc == 0 ? ORACLE_DONE : ORACLE_FAILED);
        m->cutting = false;
    }
    if (strcmp(what, "resize") == 0) {
        uint64_t size = st_disk_size(m->disk);

        if (rc == -ENOTSUP || rc == -EROFS)
            m->can_resize = false;
        else if (rc < 0)
            fail(m, "resize: %s", e->err.text);
        if (rc == 0 && size != m->new_size)
            fail(m, "resized to %ju, not %ju", (uintmax_t)size,
                 (uintmax_t)m->new_size);
        m->resized |= rc == 0;
        m->lo = m->hi = size;
    } else if (strcmp(what, "insert") == 0) {
        if (rc < 0 && rc != -E2BIG)
            fail(m, "insert: %s (%s)", e->err.text, st_strerror(rc));
        if (rc < 0)
            st_node_close(m->inserting);
    } else if (strcmp(what, "remove") == 0) {
        if (rc < 0 && rc != -ENOENT)
            fail(m, "remove: %s (%s)", e->err.text, st_strerror(rc));
    } else if (rc < 0) {
        fail(m, "%s: %s (%s)", what, e->err.text, st_strerror(rc));
    }
    if (strcmp(what, "resume") == 0)
        m->quiesced = m->refusing = false;
}

static void
begin_edit(struct model *m, const char *what)
{
    memset(&m->edit, 0, sizeof(m->edit));
    m->edit.done = edit_done;
    m->edit.arg = m;
    m->editing = true;
    m->editing_what = what;
}

static void
start_resize(struct model *m)
{
    static const uint8_t zeroes[1 << 20];
    uint64_t size = m->sector * (1 + below(m, m->oracle.size / m->sector));

    begin_edit(m, "resize");
    m->new_size = size;
    if (size < m->lo) {
        oracle_begin(&m->oracle, &m->cut, size, m->lo - size, zeroes);
        m->cutting = true;
    }
    m->lo = st_min(m->lo, size);
    m->hi = st_max(m->hi, size);
    st_list_for(op, tmp, &m->under_way, struct op, link)
    {
        op->lo = st_min(op->lo, size);
        op->hi = st_max(op->hi, size);
    }
    st_disk_resize(m->disk, size, &m->edit);
}

static void
start_quiesce(struct model *m)
{
    enum st_quiesce mode = (enum st_quiesce)below(m, 3);

    begin_edit(m, "quiesce");
    m->quiesced = true;
    m->refusing = mode != ST_PARK;
    st_list_for(op, tmp, &m->under_way, struct op, link)
    {
        op->may_abort |= m->refusing;
    }
    st_disk_quiesce(m->disk, mode, 0, &m->edit);
}

static void
start_resume(struct model *m)
{
    begin_edit(m, "resume");
    st_disk_resume(m->disk, &m->edit);
}

static void
start_edit(struct model *m)
{
    static const char *const kinds[] = {"delay", "throttle", "fault"};
    const char *kind = kinds[below(m, 3)];

    if (m->quiesced && below(m, 2)) {
        start_resume(m);
        return;
    }
    switch (below(m, 4)) {
    case 0:
        if (m->can_resize)
            start_resize(m);
        break;
    case 1:
        if (!m->quiesced)
            start_quiesce(m);
        break;
    case 2:
        begin_edit(m, "insert");
        m->inserting = stack_decorator(m->loop[0], &m->r, kind);
        m->faulty |= kind[0] == 'f';
        st_disk_insert(m->disk, m->inserting, 0, &m->edit);
        break;
    default:
        begin_edit(m, "remove");
        st_disk_remove(m->disk, kind, 0, &m->edit);
        break;
    }
}

/* Nothing can happen by itself: let go of what hangs. */
static void
unstick(struct model *m)
{
    struct st_disk_stats stats;
    bool released = false;

    st_disk_stats(m->disk, &stats);
    for (struct st_node *n = st_disk_node(m->disk); n && n->nchild == 1;
         n = n->child[0]) {
        if (strcmp(n->ops->name, "fault") == 0) {
            st_fault_load(n, "none", "", NULL);
            st_fault_release(n);
            released = true;
        }
    }
    if ((m->quiesced || stats.stopped) && !m->editing)
        start_resume(m);
    else if (!released || !st_domain_step(m->domain))
        fail(m, "%u requests hang, edit: %s", m->flight,
             m->editing ? m->editing_what : "none");
}

static void
settle(struct model *m)
{
    while (m->flight || m->editing || m->quiesced)
        if (!st_domain_step(m->domain))
            unstick(m);
}

/* ---- A round ---- */

static void
heard(struct st_listener *l, unsigned events, uint64_t size)
{
    (void)events;
    st_container(l, struct model, ear)->heard = size;
}

static void
ear_gone(struct st_listener *l)
{
    st_container(l, struct model, ear)->gone = true;
}

static void
open_round(struct model *m)
{
    static const enum st_policy policies[] = {
        ST_POLICY_REPORT, ST_POLICY_REPORT, ST_POLICY_RETRY, ST_POLICY_STOP};
    struct st_domain_opts o = {.engine = "virtual", .seed = m->seed};
    struct st_err err = {{0}};
    uint8_t *initial;
    uint64_t size;

    m->r = st_rand_seed(m->seed);
    st_list_init(&m->under_way);
    m->can_resize = true;
    if (st_domain_create(&o, &m->domain, &err) < 0)
        fail(m, "%s", err.text);
    m->nloops = 1 + (unsigned)below(m, LOOPS_MAX);
    for (unsigned i = 0; i < m->nloops; i++)
        if (st_loop_create(m->domain, &m->loop[i], &err) < 0)
            fail(m, "%s", err.text);
    stack_draw(&m->stack, m->loop[0], &m->r);
    m->faulty = strstr(m->stack.words, "fault") != NULL;
    size = st_node_size(m->stack.node);
    m->sector = m->stack.node->props.sector_size;
    if (st_disk_create(m->loop[0], m->stack.node, "model", false, &m->disk,
                       &err) < 0)
        fail(m, "%s", err.text);
    st_disk_set_policy(m->disk, policies[below(m, 4)]);
    for (unsigned i = 0; i < m->nloops; i++)
        if (st_disk_open_chan(m->disk, m->loop[i], &m->chan[i]) < 0)
            fail(m, "no channel");
    m->lo = m->hi = size;
    initial = calloc(1, size + size / 2 + 4096);
    if (!initial)
        abort();
    memcpy(initial, m->stack.initial, size);
    oracle_open(&m->oracle, initial, st_align_down(size + size / 2, m->sector));
    free(initial);
    m->ear = (struct st_listener){
        .loop = m->loop[m->nloops - 1], .event = heard, .gone = ear_gone};
    st_disk_listen(m->disk, &m->ear);
}

static void
close_round(struct model *m)
{
    struct st_disk_stats stats;
    const char *complaint =
        m->stack.testnode ? st_testnode_complaint(m->stack.testnode) : NULL;

    if (complaint)
        fail(m, "asked of the backend: %s", complaint);
    st_disk_stats(m->disk, &stats);
    if (stats.in_flight || stats.oldest_ns)
        fail(m, "%ju requests are still counted as in flight",
             (uintmax_t)stats.in_flight);
    if (m->resized && m->heard != st_disk_size(m->disk))
        fail(m, "the listener heard %ju last, the size is %ju",
             (uintmax_t)m->heard, (uintmax_t)st_disk_size(m->disk));
    st_disk_unlisten(&m->ear);
    while (!m->gone)
        if (!st_domain_step(m->domain))
            fail(m, "the listener never leaves");
    for (unsigned i = 0; i < m->nloops; i++)
        st_disk_close_chan(m->chan[i]);
    st_disk_destroy(m->disk);
    while (st_domain_step(m->domain))
        ;
    for (unsigned i = 0; i < m->nloops; i++)
        st_loop_destroy(m->loop[i]);
    st_domain_destroy(m->domain);
    oracle_close(&m->oracle);
    stack_forget(&m->stack);
}

static void
round_of(uint64_t seed, unsigned nops, bool verbose)
{
    struct model m = {.seed = seed, .nops = nops};

    open_round(&m);
    if (verbose) {
        printf("seed %ju: %s, %u loops\n", (uintmax_t)seed, m.stack.words,
               m.nloops);
        fflush(stdout);
    }
    for (m.step = 0; m.step < nops; m.step++) {
        uint64_t n = below(&m, 100), offset, len;

        if (n < 4 && !m.editing) {
            start_edit(&m);
        } else if (n < 8 && m.flight) {
            struct op *op = some_op(&m);

            if (op->submitted) {
                op->may_abort = true;
                st_cancel(op->req);
            }
        } else if (n < 55 && m.flight < FLIGHT_MAX) {
            draw_range(&m, &offset, &len);
            start_op(&m, draw_op(&m), offset, len);
        } else {
            for (uint64_t i = below(&m, 12); i > 0; i--)
                if (!st_domain_step(m.domain) && (m.flight || m.editing))
                    unstick(&m);
        }
    }
    settle(&m);
    for (uint64_t at = 0; at < m.lo; at += 16384) {
        start_op(&m, ST_OP_READ, at, st_min(16384, m.lo - at));
        settle(&m);
    }
    close_round(&m);
    if (verbose)
        printf("  %u requests, %u edits\n", m.done_ops, m.edits);
}

int
main(int argc, char **argv)
{
    uint64_t seed = 1, rounds = 0;
    unsigned ops = 2000, passed = 0;
    bool verbose = false;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;

        if (strcmp(argv[i], "-v") == 0) {
            verbose = true;
        } else if (more && strcmp(argv[i], "--seed") == 0) {
            seed = strtoull(argv[++i], NULL, 10);
            rounds = rounds ? rounds : 1;
        } else if (more && strcmp(argv[i], "--rounds") == 0) {
            rounds = strtoull(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--ops") == 0) {
            ops = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: model [--seed N] [--rounds N] [--ops N] "
                            "[-v]\n");
            return 2;
        }
    }
    for (uint64_t i = 0; i < (rounds ? rounds : 3); i++, passed++)
        round_of(seed + i, ops, verbose);
    if (!rounds) {
        uint32_t fresh = 0;

        if (getrandom(&fresh, sizeof(fresh), 0) != sizeof(fresh))
            fresh = 4;
        printf("model: and the new seed %u\n", fresh);
        round_of(fresh, ops, verbose);
        passed++;
    }
    printf("counts: %u passed, 0 failed, 0 skipped\n", passed);
    return 0;
}
