/* SPDX-License-Identifier: MIT
 *
 * Live surgery under load, on real threads.
 *
 * usage: soak [--engine NAME] [--edits N]
 *
 *   I/O loops    each slot of each loop writes its own bytes, reads them back,
 *                compares, for ever; slots share sectors with their neighbours
 *                on other loops, so that range locks cross threads
 *   home loop    inserts and removes decorators, grows, shrinks, parks and
 *                resumes, N edits in all
 *
 * Not one request may fail, and not one byte may differ.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delay.h"
#include "disk.h"
#include "layered.h"
#include "ram.h"
#include "rand.h"
#include "sync.h"
#include "testnode.h"
#include "throttle.h"

enum {
    LOOPS = 3,
    SLOTS = 8,        /* of each loop */
    SLOT_LEN = 3300,  /* bytes: neighbours share sectors */
    SIZE = 256 << 10, /* the disk, when it is not larger */
};

struct soak;

struct slot {
    struct soak *s;
    struct lane *lane;
    struct st_req *req; /* owned */
    struct iovec iov;
    struct st_rand r;
    uint64_t base;    /* its bytes: [base, base + SLOT_LEN) */
    uint64_t at, len; /* of the write that is read back now */
    uint8_t want[SLOT_LEN], got[SLOT_LEN];
    uint64_t rounds;
};

/* One I/O loop. */
struct lane {
    struct soak *s;
    struct st_loop *loop;
    struct st_chan *chan;
    struct st_task task;
    struct slot slot[SLOTS];
    unsigned running;
};

struct soak {
    struct st_loop *home;
    struct st_disk *disk;
    struct lane lane[LOOPS];
    unsigned left;
    bool quiet;
    _Atomic bool stop;
};

static void __attribute__((noreturn)) die(const char *what, const char *why)
{
    printf("soak: %s: %s\ncounts: 0 passed, 1 failed, 0 skipped\n", what, why);
    fflush(stdout);
    _Exit(1);
}

/* ---- Lanes: on their own threads ---- */

static void
lane_gone(struct st_task *t)
{
    struct soak *s = st_container(t, struct lane, task)->s;

    s->quiet = --s->left == 0;
}

static void
slot_write(struct slot *w)
{
    w->len = 1 + st_rand_below(&w->r, SLOT_LEN);
    w->at = st_rand_below(&w->r, SLOT_LEN - w->len + 1);
    for (uint64_t i = w->at; i < w->at + w->len; i++)
        w->want[i] = (uint8_t)st_rand_next(&w->r);
    w->req->op = ST_OP_WRITE;
    w->req->flags = w->rounds % 16 == 0 ? ST_REQ_FUA : 0;
    w->req->offset = w->base + w->at;
    w->req->len = w->len;
    w->iov = (struct iovec){w->want + w->at, w->len};
    st_submit(w->lane->chan, w->req);
}

static void
slot_done(struct st_req *req)
{
    struct slot *w = req->owner;
    struct lane *lane = w->lane;

    if (req->status != ST_OK)
        die("a request failed", st_status_name((enum st_status)req->status));
    if (req->op == ST_OP_WRITE) {
        memset(w->got, 0x5a, SLOT_LEN);
        req->op = ST_OP_READ;
        req->flags = 0;
        req->offset = w->base;
        req->len = SLOT_LEN;
        w->iov = (struct iovec){w->got, SLOT_LEN};
        st_submit(lane->chan, req);
        return;
    }
    if (memcmp(w->want, w->got, SLOT_LEN) != 0)
        die("data", "not what this slot wrote");
    w->rounds++;
    if (!atomic_load(&lane->s->stop)) {
        slot_write(w);
        return;
    }
    if (--lane->running == 0) {
        st_disk_close_chan(lane->chan);
        lane->task.run = lane_gone;
        st_post(lane->s->home, &lane->task);
    }
}

static void
lane_begin(struct st_task *t)
{
    struct lane *lane = st_container(t, struct lane, task);

    if (st_disk_open_chan(lane->s->disk, lane->loop, &lane->chan) < 0)
        die("channel", "cannot be opened");
    lane->running = SLOTS;
    for (unsigned i = 0; i < SLOTS; i++)
        slot_write(&lane->slot[i]);
}

static void
start_lanes(struct soak *s, struct st_domain *d, unsigned pitch)
{
    unsigned frames = st_disk_frames(s->disk);
    struct st_err err;

    for (unsigned l = 0; l < LOOPS; l++) {
        struct lane *lane = &s->lane[l];

        lane->s = s;
        lane->task.run = lane_begin;
        if (st_loop_create(d, &lane->loop, &err) < 0)
            die("loop", err.text);
        for (unsigned i = 0; i < SLOTS; i++) {
            struct slot *w = &lane->slot[i];

            w->s = s;
            w->lane = lane;
            w->r = st_rand_seed(l * 100 + i);
            w->base = (uint64_t)(i * LOOPS + l) * pitch;
            w->req = malloc(st_req_size(frames));
            if (!w->req)
                abort();
            st_req_init(w->req, frames, slot_done, w);
            w->req->buf = (struct st_buf){&w->iov, 0};
        }
        if (st_loop_start(lane->loop, "lane") < 0)
            die("loop", "cannot be started");
        st_post(lane->loop, &lane->task);
    }
    s->left = LOOPS;
}

/* ---- Surgery: on the home loop ---- */

struct edit {
    struct soak *s;
    struct st_node *node;
    const char *kind;
    uint64_t size;
};

static void
start_insert(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_insert(x->s->disk, x->node, 0, e);
}

static void
start_remove(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_remove(x->s->disk, x->kind, 0, e);
}

static void
start_resize(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_resize(x->s->disk, x->size, e);
}

static void
start_park(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_quiesce(x->s->disk, ST_PARK, 0, e);
}

static void
start_resume(void *arg, struct st_edit *e)
{
    struct edit *x = arg;

    st_disk_resume(x->s->disk, e);
}

static int
edit(struct soak *s, void (*start)(void *, struct st_edit *), struct edit *x)
{
    struct st_edit e = {0};
    int rc = st_sync_edit(s->home, start, x, &e);

    if (rc < 0 && rc != -ENOENT && rc != -E2BIG)
        die("an edit failed", e.err.text);
    return rc;
}

static void
operate(struct soak *s, unsigned edits)
{
    const struct st_delay_opts delay = {20000, 10000, 0};
    const struct st_throttle_opts throttle = {.iops = 10000000};
    struct st_rand r = st_rand_seed(edits);
    struct st_err err = {"no memory"};

    for (unsigned i = 0; i < edits; i++) {
        struct edit x = {.s = s, .kind = i % 3 ? "delay" : "throttle"};
        int rc = 0;

        switch (st_rand_below(&r, 4)) {
        case 0:
            rc = i % 3 ? st_delay_create(s->home, &delay, "d", &x.node, &err)
                       : st_throttle_create(s->home, &throttle, "t", &x.node,
                                            &err);
            if (rc < 0)
                die("decorator", err.text);
            if (edit(s, start_insert, &x) < 0)
                st_node_close(x.node);
            break;
        case 1:
            edit(s, start_remove, &x);
            break;
        case 2:
            x.size = SIZE - 4096 * st_rand_below(&r, 20);
            edit(s, start_resize, &x);
            if (st_disk_size(s->disk) != x.size)
                die("resize", "another size");
            break;
        default:
            edit(s, start_park, &x);
            edit(s, start_resume, &x);
            break;
        }
    }
}

/* RAM above memory that aligns, splits and reorders: everything is at work. */
static struct st_node *
make_stack(struct st_loop *home, bool layered)
{
    const struct st_testnode_opts o = {.size = SIZE,
                                       .sector = layered ? 512 : 4096,
                                       .mem_align = 64,
                                       .max_segments = 4,
                                       .performs = ST_BIT(ST_OP_READ) |
                                                   ST_BIT(ST_OP_WRITE) |
                                                   ST_BIT(ST_OP_FLUSH),
                                       .async = true,
                                       .seed = 1};
    struct st_layer layers[2] = {{.write_through = true, .read_cache = true}};
    struct st_node *n;
    struct st_err err;

    if (st_testnode_create(home, &o, &n, &err) < 0)
        die("testnode", err.text);
    layers[1].node = n;
    if (layered &&
        (st_ram_create(home, 0, 0, "ram", &layers[0].node, &err) ||
         st_layered_create(home, layers, 2, false, "cache", &n, &err)))
        die("layers", err.text);
    return n;
}

static void
soak(const char *engine, bool layered, unsigned edits)
{
    struct st_domain_opts o = {.engine = engine};
    struct soak *s = calloc(1, sizeof(*s));
    uint64_t rounds = 0, least = UINT64_MAX;
    struct st_domain *d;
    struct st_err err;

    if (!s || st_domain_create(&o, &d, &err) < 0 ||
        st_loop_create(d, &s->home, &err) < 0 ||
        st_disk_create(s->home, make_stack(s->home, layered), "soak", false,
                       &s->disk, &err) < 0)
        die("set-up", err.text);
    start_lanes(s, d, layered ? 4096 : SLOT_LEN);
    operate(s, edits);
    atomic_store(&s->stop, true);
    st_loop_wait(s->home, &s->quiet);
    for (unsigned l = 0; l < LOOPS; l++) {
        st_loop_join(s->lane[l].loop);
        st_loop_destroy(s->lane[l].loop);
        for (unsigned i = 0; i < SLOTS; i++) {
            rounds += s->lane[l].slot[i].rounds;
            least = least < s->lane[l].slot[i].rounds
                        ? least
                        : s->lane[l].slot[i].rounds;
            free(s->lane[l].slot[i].req);
        }
    }
    st_disk_destroy(s->disk);
    st_loop_destroy(s->home);
    st_domain_destroy(d);
    free(s);
    printf("soak: %s: %u edits, %ju writes read back (each slot %ju or more)\n",
           layered ? "cache" : "plain", edits, (uintmax_t)rounds,
           (uintmax_t)least);
    if (least == 0)
        die("a slot", "never came round");
}

int
main(int argc, char **argv)
{
    const char *engine = NULL;
    unsigned edits = 60;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--engine") == 0)
            engine = argv[i + 1];
        if (strcmp(argv[i], "--edits") == 0)
            edits = (unsigned)strtoul(argv[i + 1], NULL, 10);
    }
    soak(engine, false, edits);
    soak(engine, true, edits);
    printf("counts: 2 passed, 0 failed, 0 skipped\n");
    return 0;
}
