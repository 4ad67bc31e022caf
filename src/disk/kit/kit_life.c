/* SPDX-License-Identifier: MIT
 *
 * A disk's life: many requests at once, cancelled, parked; other sizes; doors
 * that open and close; counters.
 */
#include "kit_private.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Each operation once, at the root and at the node: the watch on requests
 * (kit_done) is what judges. */
static void
nothing_completes_inside_submit(struct kit *k)
{
    for (enum st_op op = 0; op < ST_OP_COUNT; op++) {
        bool ranged = ST_OPS_RANGED & ST_BIT(op);

        if (!kit_performs(k, op) || op == ST_OP_SHUTDOWN)
            continue;
        if (!k->disk && k->node->props.read_only && ST_OPS_MODIFY & ST_BIT(op))
            continue; /* the root does not ask for that */
        kit_op(k, op, 0, 0, ranged ? k->sector : 0);
        if (ranged)
            kit_op(k, op, 0, k->size, k->sector);
    }
}

/* 200 at once, each in its own slice; slices share sectors, not bytes. */
static void
many_at_once_all_complete(struct kit *k)
{
    struct kit_req *r[200];
    const uint64_t slice = k->size / 200;

    kit_fill(k);
    for (unsigned i = 0; i < 200; i++) {
        static const enum st_op ops[] = {ST_OP_READ,  ST_OP_WRITE,
                                         ST_OP_WRITE, ST_OP_WRITE_ZEROES,
                                         ST_OP_FLUSH, ST_OP_COMPARE_AND_WRITE};
        enum st_op op = ops[st_rand_below(&k->rand, 6)];
        uint64_t skip = st_rand_below(&k->rand, slice / 2);
        uint64_t at = i * slice + skip;
        uint64_t n = 1 + st_rand_below(&k->rand, slice - skip - 1);

        r[i] = kit_req(k, op, op == ST_OP_FLUSH ? 0 : at,
                       op == ST_OP_FLUSH ? 0 : n);
        if (op == ST_OP_COMPARE_AND_WRITE)
            memcpy(r[i]->mem, k->model + at, n);
        if (op == ST_OP_WRITE || op == ST_OP_COMPARE_AND_WRITE) {
            uint8_t *data = r[i]->mem + (op == ST_OP_WRITE ? 0 : n);

            kit_random(k, data, n);
            memcpy(k->model + at, data, n);
        }
        if (op == ST_OP_WRITE_ZEROES)
            memset(k->model + at, 0, n);
        if (op == ST_OP_WRITE && i % 4 == 0)
            r[i]->req->flags = ST_REQ_FUA;
    }
    for (unsigned i = 0; i < 200; i++)
        kit_start(r[i]);
    for (unsigned i = 0; i < 200; i++) {
        enum st_status s = kit_wait(r[i]);

        KIT_CHECK(k, s == ST_OK, "operation %u of %#jx+%#jx: %s", r[i]->op,
                  (uintmax_t)r[i]->offset, (uintmax_t)r[i]->len,
                  st_status_name(s));
        if (r[i]->op == ST_OP_READ)
            KIT_CHECK(
                k, memcmp(r[i]->mem, k->model + r[i]->offset, r[i]->len) == 0,
                "wrong data at %#jx", (uintmax_t)r[i]->offset);
    }
    kit_verify(k);
}

/* At once, later, twice: it completes, and the disk goes on. */
static void
cancel_is_harmless(struct kit *k)
{
    kit_fill(k);
    for (unsigned round = 0; round < 20 && !k->failed; round++) {
        struct kit_req *r[16];

        for (unsigned i = 0; i < 16; i++) {
            uint64_t at = 30000 + i * 20000 + (i % 4 == 3 ? 123 : 0);

            r[i] = kit_req(k, i % 3 ? ST_OP_WRITE : ST_OP_READ, at, 9000);
            memcpy(r[i]->mem, k->model + at, 9000); /* the same data */
            kit_start(r[i]);
            if (round % 4 == 0)
                st_cancel(r[i]->req);
        }
        if (round % 4 > 1)
            kit_turns(k, round % 7);
        for (unsigned i = 0; i < 16; i++) {
            for (unsigned twice = 0; twice < 2; twice++)
                if (r[i]->under_way && round % 4)
                    st_cancel(r[i]->req);
        }
        for (unsigned i = 0; i < 16; i++) {
            enum st_status s = kit_wait(r[i]);

            KIT_CHECK(k, s == ST_OK || s == ST_ABORTED, "%s",
                      st_status_name(s));
            /* After a failed write the range is undefined: write it again. */
            if (r[i]->op == ST_OP_WRITE)
                KIT_CHECK(k, kit_run(r[i]) == ST_OK, "second write");
        }
    }
    kit_verify(k);
}

/* ---- Edits ------------------------------------------------------------------
 */

struct edit {
    struct kit *k;
    enum st_quiesce mode;
    uint64_t size;
};

static void
start_quiesce(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_quiesce(x->k->disk, x->mode, 0, e);
}

static void
start_resume(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_resume(x->k->disk, e);
}

static void
start_resize(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_resize(x->k->disk, x->size, e);
}

static void
quiesce_closes_and_resume_opens(struct kit *k)
{
    kit_fill(k);
    for (unsigned mode = ST_PARK; mode <= ST_CANCEL && !k->failed; mode++) {
        struct edit x = {.k = k, .mode = (enum st_quiesce)mode};
        struct st_edit e = {0};
        struct kit_req *r[20];
        int rc;

        for (unsigned i = 0; i < 20; i++) {
            uint64_t at = 1000 + i * 9000;

            r[i] = kit_req(k, i % 2 ? ST_OP_WRITE : ST_OP_READ, at, 5000);
            memcpy(r[i]->mem, k->model + at, 5000);
            if (i < 16)
                kit_start(r[i]);
        }
        rc = st_sync_edit(k->loop, start_quiesce, &x, &e);
        KIT_CHECK(k, rc == 0, "quiesce %u: %s", mode, e.err.text);
        for (unsigned i = 0; i < 16; i++) {
            KIT_CHECK(k, !r[i]->under_way, "mode %u: quiet, but not", mode);
            KIT_CHECK(
                k,
                r[i]->req->status == ST_OK ||
                    (mode == ST_CANCEL && r[i]->req->status == ST_ABORTED),
                "mode %u: %s", mode,
                st_status_name((enum st_status)r[i]->req->status));
        }
        for (unsigned i = 16; i < 20; i++)
            kit_start(r[i]);
        kit_turns(k, 50);
        for (unsigned i = 16; i < 20; i++) {
            if (mode == ST_REFUSE)
                KIT_CHECK(k, kit_wait(r[i]) == ST_ABORTED, "not refused");
            else
                KIT_CHECK(k, r[i]->under_way, "mode %u: not parked", mode);
        }
        memset(&e, 0, sizeof(e));
        rc = st_sync_edit(k->loop, start_resume, &x, &e);
        KIT_CHECK(k, rc == 0, "resume: %s", e.err.text);
        for (unsigned i = 0; i < 20; i++) {
            enum st_status s = kit_wait(r[i]);

            KIT_CHECK(k, s == ST_OK || mode != ST_PARK, "after resume: %s",
                      st_status_name(s));
            if (s != ST_OK)
                KIT_CHECK(k, kit_run(r[i]) == ST_OK, "again after resume");
        }
    }
    kit_verify(k);
}

struct ear {
    struct st_listener l;
    bool heard, gone;
    unsigned events;
    uint64_t size;
};

static void
ear_event(struct st_listener *l, unsigned events, uint64_t size)
{
    struct ear *e = st_container(l, struct ear, l);

    e->heard = true;
    e->events |= events;
    e->size = size;
}

static void
ear_gone(struct st_listener *l)
{
    st_container(l, struct ear, l)->gone = true;
}

static void
ear_open(struct ear *e, struct kit *k)
{
    *e = (struct ear){
        .l = {.loop = k->loop, .event = ear_event, .gone = ear_gone}};
    st_disk_listen(k->disk, &e->l);
}

static void
ear_close(struct ear *e, struct kit *k)
{
    st_disk_unlisten(&e->l);
    if (!st_loop_wait(k->loop, &e->gone))
        kit_fail(k, "a listener never leaves");
}

/* To SIZE; the listener must hear of it. False: not resizable, or failed. */
static bool
resize_to(struct kit *k, struct ear *ear, uint64_t size)
{
    struct edit x = {.k = k, .size = size};
    struct st_edit e = {0};
    int rc = st_sync_edit(k->loop, start_resize, &x, &e);

    if (rc == -ENOTSUP || rc == -EROFS) {
        kit_skip(k, e.err.text);
        return false;
    }
    if (rc < 0)
        kit_fail(k, "to %ju: %s (%s)", (uintmax_t)size, e.err.text,
                 st_strerror(rc));
    else if (st_disk_size(k->disk) != size || st_node_size(k->node) != size)
        kit_fail(k, "%ju bytes, not %ju", (uintmax_t)st_disk_size(k->disk),
                 (uintmax_t)size);
    while (!k->failed && ear->size != size) {
        ear->heard = false;
        if (!st_loop_wait(k->loop, &ear->heard))
            kit_fail(k, "the listener does not hear of it");
    }
    return !k->failed;
}

static void
resize_checks(struct kit *k, struct ear *ear)
{
    const uint64_t old = k->size, less = st_align_down(old / 2, k->sector);
    const uint64_t more = old + 40 * k->sector;

    kit_fill(k);
    if (!resize_to(k, ear, less))
        return;
    k->size = less;
    kit_verify(k);
    for (enum st_op op = 0; op < ST_OP_COUNT; op++) {
        enum st_status s;

        if (!(ST_OPS_RANGED & ST_BIT(op)) || !kit_performs(k, op))
            continue;
        s = kit_op(k, op, 0, less, k->sector);
        KIT_CHECK(k, s == ST_RANGE, "operation %u past the new end: %s", op,
                  st_status_name(s));
    }
    /* What was past the end never comes back. */
    if (!resize_to(k, ear, old))
        return;
    memset(k->model + less, 0, old - less);
    k->size = old;
    kit_verify(k);
    if (!resize_to(k, ear, more))
        return;
    KIT_CHECK(k, kit_op(k, ST_OP_WRITE_ZEROES, 0, old, more - old) == ST_OK,
              "write into what is new");
    kit_verify(k);
    KIT_CHECK(k, ear->events & ST_EVENT_RESIZE, "events %#x", ear->events);
}

static void
resize_is_seen_and_heard(struct kit *k)
{
    struct ear ear;

    ear_open(&ear, k);
    resize_checks(k, &ear);
    ear_close(&ear, k);
}

/* A backend that changes by itself, below transparent nodes. */
static void
events_come_up_from_below(struct kit *k)
{
    struct st_node *leaf = k->node;
    uint64_t size = k->size + 8 * k->sector;
    struct st_err err = {{0}};
    struct ear ear;

    while (leaf->nchild == 1 && leaf->ops->transparent)
        leaf = leaf->child[0];
    if (leaf == k->node || leaf->nchild || !leaf->ops->resize ||
        st_node_resize(leaf, size, &err) < 0) {
        kit_skip(k, "no resizable leaf below transparent nodes");
        return;
    }
    ear_open(&ear, k);
    st_node_changed(leaf, ST_EVENT_RESIZE);
    while (!k->failed && ear.size != size) {
        ear.heard = false;
        if (!st_loop_wait(k->loop, &ear.heard))
            kit_fail(k, "not heard");
    }
    if (st_node_size(k->node) != size || st_disk_size(k->disk) != size)
        kit_fail(k, "size not passed up");
    if (!k->failed && kit_op(k, ST_OP_READ, 0, size - 512, 512) != ST_OK)
        kit_fail(k, "the new end cannot be read");
    ear_close(&ear, k);
}

/* ---- Doors and counters ---- */

static unsigned
open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static void
doors_open_and_close(struct kit *k)
{
    unsigned files = 0;

    for (unsigned i = 0; i < 30; i++) {
        int rc;

        st_disk_close_chan(k->chan);
        k->chan = NULL;
        if (i == 5)
            files = open_files();
        rc = st_disk_open_chan(k->disk, k->loop, &k->chan);
        KIT_CHECK(k, rc == 0, "open %u: %s", i, st_strerror(rc));
        if (i == 5)
            files = open_files();
        KIT_CHECK(k, kit_op(k, ST_OP_READ, 0, 700, 3000) == ST_OK, "read");
    }
    KIT_CHECK(k, open_files() == files, "%u descriptors became %u", files,
              open_files());
}

static void
counters_count(struct kit *k)
{
    const unsigned ro = k->node->props.read_only;
    struct st_disk_stats a, b;

    st_disk_stats(k->disk, &a);
    for (unsigned i = 0; i < 3; i++) {
        kit_op(k, ST_OP_READ, 0, i * 8192, 8192);
        if (!ro)
            kit_write(k, i * 8192, 4096, 0);
    }
    kit_op(k, ST_OP_READ, 0, k->size, k->sector);
    kit_op(k, ST_OP_FLUSH, 0, 0, 0);
    st_disk_stats(k->disk, &b);
    KIT_CHECK(k, b.ops[ST_OP_READ] - a.ops[ST_OP_READ] == 4, "reads: %ju",
              (uintmax_t)(b.ops[ST_OP_READ] - a.ops[ST_OP_READ]));
    KIT_CHECK(k, b.errors[ST_OP_READ] - a.errors[ST_OP_READ] == 1, "errors");
    KIT_CHECK(k, b.bytes_read - a.bytes_read == 3 * 8192, "bytes read: %ju",
              (uintmax_t)(b.bytes_read - a.bytes_read));
    KIT_CHECK(k, b.ops[ST_OP_FLUSH] - a.ops[ST_OP_FLUSH] == 1, "flushes");
    KIT_CHECK(k,
              ro || (b.ops[ST_OP_WRITE] - a.ops[ST_OP_WRITE] == 3 &&
                     b.bytes_written - a.bytes_written == 3 * 4096),
              "writes");
    KIT_CHECK(k, b.in_flight == 0 && b.oldest_ns == 0, "still in flight: %ju",
              (uintmax_t)b.in_flight);
}

const struct kit_check kit_life[] = {
    {"nothing_completes_inside_submit", 0, nothing_completes_inside_submit},
    {"node_completes_nothing_inside_submit", KIT_NODE,
     nothing_completes_inside_submit},
    {"many_at_once_all_complete", KIT_WRITABLE, many_at_once_all_complete},
    {"cancel_is_harmless", KIT_WRITABLE, cancel_is_harmless},
    {"quiesce_closes_and_resume_opens", KIT_WRITABLE,
     quiesce_closes_and_resume_opens},
    {"resize_is_seen_and_heard", KIT_WRITABLE, resize_is_seen_and_heard},
    {"events_come_up_from_below", 0, events_come_up_from_below},
    {"doors_open_and_close", 0, doors_open_and_close},
    {"counters_count", 0, counters_count},
    {NULL, 0, NULL},
};
