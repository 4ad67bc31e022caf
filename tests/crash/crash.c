/* SPDX-License-Identifier: MIT
 *
 * The power test: what was flushed, or written with FUA, is there.
 *
 * usage: crash [--seed N] [--ops N] [--images N] [-v]
 *
 * A stack above a file works under a recorder (base/recorder.h): random writes,
 * zeroes, FUA and flushes, several at once. Then the power is cut at every
 * event of the log, several images are made for each cut, and each 512-byte
 * block of each image must hold one of
 *
 *   - what the last durable promise that covers it left there,
 *   - something written since, whole,
 *   - and nothing from before the promise.
 *
 *      W1 done   F sent      F done           cut
 *      ---|--------|-----------|---------------|---->  W1 must be there
 *
 * A seam that answers fsync by itself, and forgets FUA, must be caught: that is
 * the last case, the test of the test.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "disk.h"
#include "file.h"
#include "layered.h"
#include "ram.h"
#include "recorder.h"

enum { BLOCK = 512, BLOCKS = 160, SIZE = BLOCK * BLOCKS, FLIGHT_MAX = 6 };

/* Where the promise is: how the file is opened, what lies above it. */
static const struct row {
    const char *name;
    bool direct, cache, through, split, liar;
} rows[] = {
    {.name = "file"},
    {.name = "file, direct", .direct = true},
    {.name = "cache over file", .cache = true},
    {.name = "cache over file, direct", .cache = true, .direct = true},
    {.name = "write-through RAM over file", .through = true},
    {.name = "write-through over write-through over file",
     .through = true,
     .split = true},
    {.name = "file that lies about flush", .liar = true},
};

/* One write (or flush) in the order of submission. */
struct event {
    uint64_t first, n; /* blocks; n 0: a flush */
    bool zero, fua, ok;
    unsigned sent, done;       /* on the test's own clock */
    size_t log_sent, log_done; /* st_recorder_count then */
    uint8_t *data;             /* owned */
    struct iovec iov;
    struct st_req *req; /* owned */
    struct crash *c;
};

struct crash {
    const struct row *row;
    uint64_t seed;
    struct st_rand r;
    struct st_recorder *rec;
    struct st_seam liar; /* in front of the recorder */
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_disk *disk;
    struct st_chan *chan;
    char path[64];
    uint8_t initial[SIZE];
    struct event *event; /* owned */
    unsigned nevents, flight, clock;
    char complaint[200];
};

static void __attribute__((noreturn)) die(const char *what, const char *why)
{
    printf("crash: %s: %s\ncounts: 0 passed, 1 failed, 0 skipped\n", what, why);
    exit(1);
}

/* ---- The liar ---- */

static void
liar_start(struct st_seam *s, struct st_loop *l, struct st_io *io)
{
    struct st_seam *rec =
        st_recorder_seam(st_container(s, struct crash, liar)->rec);

    if (io->op == ST_IO_FSYNC) {
        io->res = 0;
        st_ready(l, &io->task);
        return;
    }
    io->flags &= (uint8_t)~ST_IO_DSYNC;
    rec->start(rec, l, io);
}

/* ---- Work ------------------------------------------------------------------
 */

/* Block B as event E (from 1) writes it; other content is nobody's. */
static void
block_of(uint8_t *p, uint64_t e, uint64_t b)
{
    struct st_rand r = st_rand_seed(e * 100000 + b);

    for (unsigned i = 0; i < BLOCK; i += 8) {
        uint64_t v = st_rand_next(&r);

        memcpy(p + i, &v, 8);
    }
}

static void
open_stack(struct crash *c)
{
    struct st_domain_opts o = {.engine = "virtual", .seed = c->seed};
    struct st_layer layers[3] = {{0}};
    struct st_file_opts f = {.path = c->path, .direct = c->row->direct};
    struct st_node *n;
    struct st_err err = {"no memory"};
    unsigned above = c->row->split ? 2 : c->row->cache || c->row->through;
    int fd;

    snprintf(c->path, sizeof(c->path), "/var/tmp/st-crash-XXXXXX");
    fd = mkstemp(c->path);
    for (unsigned b = 0; b < BLOCKS; b++)
        block_of(c->initial + b * BLOCK, 0, b);
    if (fd < 0 || pwrite(fd, c->initial, SIZE, 0) != SIZE)
        die(c->path, "cannot be made");
    close(fd);
    if (st_recorder_create(&c->rec) < 0)
        die("recorder", "no memory");
    c->liar.start = liar_start;
    o.seam = c->row->liar ? &c->liar : st_recorder_seam(c->rec);
    if (st_domain_create(&o, &c->domain, &err) < 0 ||
        st_loop_create(c->domain, &c->loop, &err) < 0 ||
        st_file_open(c->loop, &f, &layers[above].node, &err) < 0)
        die(c->row->name, err.text);
    n = layers[above].node;
    for (unsigned i = 0; i < above; i++) {
        if (st_ram_create(c->loop, 0, 0, "ram", &layers[i].node, &err) < 0)
            die(c->row->name, err.text);
        layers[i].read_cache = c->row->cache;
        layers[i].write_through = true;
    }
    if (above && st_layered_create(c->loop, layers, above + 1, false, "layers",
                                   &n, &err) < 0)
        die(c->row->name, err.text);
    if (st_disk_create(c->loop, n, "crash", false, &c->disk, &err) < 0 ||
        st_disk_open_chan(c->disk, c->loop, &c->chan) < 0)
        die(c->row->name, err.text);
}

static void
event_done(struct st_req *req)
{
    struct event *e = req->owner;
    struct crash *c = e->c;

    e->ok = req->status == ST_OK;
    e->done = ++c->clock;
    e->log_done = st_recorder_count(c->rec);
    c->flight--;
    if (!e->ok)
        die(c->row->name, "a request failed");
}

static void
start_event(struct crash *c)
{
    struct event *e = &c->event[c->nevents++];
    unsigned frames = st_disk_frames(c->disk);
    uint64_t kind = st_rand_below(&c->r, 20);

    e->c = c;
    e->req = malloc(st_req_size(frames));
    e->data = malloc(SIZE);
    if (!e->req || !e->data)
        abort();
    st_req_init(e->req, frames, event_done, e);
    e->iov = (struct iovec){e->data, SIZE};
    if (kind > 2) {
        e->n = 1 + st_rand_below(&c->r, 12);
        e->first = st_rand_below(&c->r, BLOCKS - e->n);
        e->zero = kind < 6;
        e->fua = kind % 4 == 0;
    }
    e->req->op = e->n == 0 ? ST_OP_FLUSH
                 : e->zero ? ST_OP_WRITE_ZEROES
                           : ST_OP_WRITE;
    e->req->flags = e->fua ? ST_REQ_FUA : 0;
    if (e->zero && kind == 5)
        e->req->flags |= ST_REQ_MAY_UNMAP;
    e->req->offset = e->first * BLOCK;
    e->req->len = e->n * BLOCK;
    e->req->buf = (struct st_buf){&e->iov, 0};
    for (uint64_t b = 0; b < e->n; b++) {
        if (e->zero)
            memset(e->data + b * BLOCK, 0, BLOCK);
        else
            block_of(e->data + b * BLOCK, c->nevents, e->first + b);
    }
    e->sent = ++c->clock;
    e->log_sent = st_recorder_count(c->rec);
    c->flight++;
    st_submit(c->chan, e->req);
}

static void
work(struct crash *c, unsigned nops)
{
    c->event = calloc(nops, sizeof(*c->event));
    if (!c->event)
        abort();
    while (c->nevents < nops || c->flight) {
        if (c->nevents < nops && c->flight < FLIGHT_MAX &&
            st_rand_below(&c->r, 3) == 0)
            start_event(c);
        else if (!st_domain_step(c->domain) && c->flight)
            die(c->row->name, "a request hangs");
    }
}

/* ---- Judgement ---- */

/* Was E durable at log position CUT? By itself, or by a flush after it. */
static bool
durable(const struct crash *c, const struct event *e, size_t cut)
{
    if (e->fua && e->log_done <= cut)
        return true;
    for (unsigned i = 0; i < c->nevents; i++) {
        const struct event *f = &c->event[i];

        if (f->n == 0 && f->log_done <= cut && e->done < f->sent)
            return true;
    }
    return false;
}

static bool
covers(const struct event *e, uint64_t b)
{
    return b >= e->first && b < e->first + e->n;
}

/* May block B of IMAGE look as it does? */
static bool
block_ok(const struct crash *c, const uint8_t *image, uint64_t b, size_t cut,
         const bool *is_durable)
{
    unsigned barrier = 0; /* what was done before it is gone */

    for (unsigned i = 0; i < c->nevents; i++)
        if (covers(&c->event[i], b) && is_durable[i] &&
            c->event[i].sent > barrier)
            barrier = c->event[i].sent;
    if (!barrier &&
        memcmp(image + b * BLOCK, c->initial + b * BLOCK, BLOCK) == 0)
        return true;
    for (unsigned i = 0; i < c->nevents; i++) {
        const struct event *e = &c->event[i];

        if (covers(e, b) && e->log_sent <= cut && e->done >= barrier &&
            memcmp(image + b * BLOCK, e->data + (b - e->first) * BLOCK,
                   BLOCK) == 0)
            return true;
    }
    return false;
}

/* Cut everywhere; the number of images judged, with c->complaint if one is
 * wrong. */
static unsigned
cut_everywhere(struct crash *c, unsigned images)
{
    st_autofree uint8_t *image = malloc(SIZE);
    st_autofree bool *is_durable = calloc(c->nevents, sizeof(bool));
    unsigned judged = 0;

    if (!image || !is_durable)
        abort();
    for (size_t cut = 0; cut <= st_recorder_count(c->rec); cut++) {
        for (unsigned i = 0; i < c->nevents; i++)
            is_durable[i] = durable(c, &c->event[i], cut);
        for (unsigned i = 0; i < images; i++, judged++) {
            memcpy(image, c->initial, SIZE);
            st_recorder_image(c->rec, -1, cut, i ? &c->r : NULL, image, SIZE);
            for (uint64_t b = 0; b < BLOCKS; b++) {
                if (block_ok(c, image, b, cut, is_durable))
                    continue;
                snprintf(c->complaint, sizeof(c->complaint),
                         "cut at event %zu of %zu, image %u: block %ju lost "
                         "what was promised",
                         cut, st_recorder_count(c->rec), i, (uintmax_t)b);
                return judged;
            }
        }
    }
    return judged;
}

static void
close_stack(struct crash *c)
{
    st_disk_close_chan(c->chan);
    st_disk_destroy(c->disk);
    while (st_domain_step(c->domain))
        ;
    st_loop_destroy(c->loop);
    st_domain_destroy(c->domain);
    for (unsigned i = 0; i < c->nevents; i++) {
        free(c->event[i].data);
        free(c->event[i].req);
    }
    free(c->event);
    unlink(c->path);
}

int
main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0, skipped = 0, ops = 60, images = 4;
    uint64_t seed = 1;
    bool verbose = false;

    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;

        if (strcmp(argv[i], "-v") == 0) {
            verbose = true;
        } else if (more && strcmp(argv[i], "--seed") == 0) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--ops") == 0) {
            ops = (unsigned)strtoul(argv[++i], NULL, 10);
        } else if (more && strcmp(argv[i], "--images") == 0) {
            images = (unsigned)strtoul(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: crash [--seed N] [--ops N] [--images N] "
                            "[-v]\n");
            return 2;
        }
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct crash *c = calloc(1, sizeof(*c));
        unsigned judged;

        if (!c)
            abort();
        c->row = &rows[i];
        c->seed = seed;
        c->r = st_rand_seed(seed);
        open_stack(c);
        work(c, ops);
        judged = cut_everywhere(c, images);
        if (verbose)
            printf("%s: %zu events, %u images%s%s\n", c->row->name,
                   st_recorder_count(c->rec), judged,
                   c->complaint[0] ? ": " : "", c->complaint);
        if ((c->complaint[0] != 0) == c->row->liar) {
            passed++;
        } else {
            failed++;
            printf("FAILED: %s, seed %ju: %s\n", c->row->name, (uintmax_t)seed,
                   c->row->liar ? "was not caught" : c->complaint);
        }
        close_stack(c);
        st_recorder_destroy(c->rec);
        free(c);
    }
    printf("counts: %u passed, %u failed, %u skipped\n", passed, failed,
           skipped);
    return failed ? 1 : 0;
}
