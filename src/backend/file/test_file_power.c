/* SPDX-License-Identifier: MIT
 *
 * Power loss under the file backend: the recorder's log is cut at every event,
 * and each image must hold all that was promised until then.
 *
 * A sector's content is a version: its number, stamped all over it, or zeroes.
 * Versions of a sector only grow, and two requests never overlap. Durable is
 * the version of a FUA request that completed, and of any request that had
 * completed when a flush was submitted that completed. An image is right when
 * each sector holds a version from its durable one up to the last one written.
 *
 * The same check must fail when a flush or a FUA flag is lost on the way.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "disk.h"
#include "file.h"
#include "inject.h"
#include "recorder.h"

enum {
    SECTORS = 48,
    SIZE = SECTORS * 512,
    DEPTH = 4,      /* requests at once */
    LONGEST = 5,    /* sectors of one */
    VERSIONS = 512, /* of one sector, at most */
    OPS = 160,
    IMAGES = 3, /* of each cut */
};

/* A seam that loses promises, above the recorder. */
struct liar {
    struct st_seam seam; /* first */
    struct st_seam *next;
    bool no_fsync, no_dsync;
    unsigned lies;
};

static void
liar_start(struct st_seam *s, struct st_loop *l, struct st_io *io)
{
    struct liar *liar = (struct liar *)s;

    if (liar->no_fsync && io->op == ST_IO_FSYNC) {
        liar->lies++;
        io->res = 0;
        st_ready(l, &io->task);
        return;
    }
    if (liar->no_dsync && io->flags & ST_IO_DSYNC) {
        liar->lies++;
        io->flags &= (uint8_t)~ST_IO_DSYNC;
    }
    liar->next->start(liar->next, l, io);
}

struct promise {
    size_t events; /* recorded when it was given */
    uint16_t durable[SECTORS];
};

struct job {
    struct run *run;
    struct st_req *req;
    uint8_t buf[LONGEST * 512];
    struct iovec iov;
    unsigned first, count;
    bool busy;
    uint16_t completed[SECTORS]; /* flush: at its submission */
};

struct run {
    struct st_recorder *recorder;
    struct st_inject *inject;
    struct liar liar;
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_disk *disk;
    struct st_chan *chan;
    struct st_rand rand;
    struct job job[DEPTH];
    unsigned left, busy;
    bool done;
    uint16_t issued[SECTORS], completed[SECTORS];
    bool zero[SECTORS][VERSIONS];
    struct promise promise[OPS + 1];
    unsigned npromises;
};

static void start_more(struct run *r);

static void
finished(struct st_req *req)
{
    struct job *j = req->owner;
    struct run *r = j->run;
    struct promise *p = &r->promise[r->npromises];

    assert_int_equal(req->status, ST_OK);
    *p = p[-1];
    p->events = st_recorder_count(r->recorder);
    if (req->op == ST_OP_FLUSH) {
        for (unsigned s = 0; s < SECTORS; s++)
            if (p->durable[s] < j->completed[s])
                p->durable[s] = j->completed[s];
    } else {
        for (unsigned s = j->first; s < j->first + j->count; s++) {
            r->completed[s] = r->issued[s];
            if (req->flags & ST_REQ_FUA)
                p->durable[s] = r->issued[s];
        }
    }
    r->npromises++;
    j->busy = false;
    r->busy--;
    start_more(r);
}

static bool
overlaps(const struct run *r, unsigned first, unsigned count)
{
    for (unsigned i = 0; i < DEPTH; i++)
        if (r->job[i].busy && r->job[i].count &&
            st_range_overlap(first, count, r->job[i].first, r->job[i].count))
            return true;
    return false;
}

static void
start(struct run *r, struct job *j)
{
    struct st_req *req = j->req;
    uint64_t dice = st_rand_below(&r->rand, 10);

    st_req_init(req, st_disk_frames(r->disk), finished, j);
    if (dice < 2) {
        req->op = ST_OP_FLUSH;
        j->count = 0;
        memcpy(j->completed, r->completed, sizeof(j->completed));
    } else {
        req->op = dice < 8 ? ST_OP_WRITE : ST_OP_WRITE_ZEROES;
        do {
            j->count = 1 + (unsigned)st_rand_below(&r->rand, LONGEST);
            j->first =
                (unsigned)st_rand_below(&r->rand, SECTORS - j->count + 1);
        } while (overlaps(r, j->first, j->count));
        req->flags = st_rand_below(&r->rand, 3) ? 0 : ST_REQ_FUA;
        if (req->op == ST_OP_WRITE_ZEROES && st_rand_below(&r->rand, 2))
            req->flags |= ST_REQ_MAY_UNMAP;
        for (unsigned i = 0; i < j->count; i++) {
            unsigned s = j->first + i;
            uint16_t *p = (uint16_t *)(void *)(j->buf + i * 512);

            r->issued[s]++;
            assert_true(r->issued[s] < VERSIONS);
            r->zero[s][r->issued[s]] = req->op == ST_OP_WRITE_ZEROES;
            for (unsigned k = 0; k < 256; k++)
                p[k] = r->issued[s];
        }
        req->offset = j->first * 512;
        req->len = j->count * 512;
        j->iov = (struct iovec){j->buf, req->len};
        req->buf.iov = &j->iov;
    }
    j->busy = true;
    r->busy++;
    r->left--;
    st_submit(r->chan, req);
}

static void
start_more(struct run *r)
{
    for (unsigned i = 0; i < DEPTH && r->left; i++)
        if (!r->job[i].busy)
            start(r, &r->job[i]);
    r->done = !r->left && !r->busy;
}

/* Is what a sector holds a version from LOW to HIGH? */
static bool
sector_right(const struct run *r, unsigned s, const uint8_t *data, unsigned low,
             unsigned high)
{
    const uint16_t *p = (const uint16_t *)(const void *)data;

    for (unsigned k = 1; k < 256; k++)
        if (p[k] != p[0])
            return false;
    if (p[0])
        return p[0] >= low && p[0] <= high && !r->zero[s][p[0]];
    for (unsigned v = low; v <= high; v++)
        if (r->zero[s][v])
            return true;
    return false;
}

/* Cut at every event; the number of images that broke a promise. */
static unsigned
broken_images(struct run *r)
{
    size_t events = st_recorder_count(r->recorder);
    const struct promise *p = r->promise;
    uint8_t *image = malloc(SIZE);
    unsigned broken = 0;

    for (size_t cut = 0; cut <= events; cut++) {
        while (p + 1 < r->promise + r->npromises && p[1].events <= cut)
            p++;
        for (unsigned i = 0; i < IMAGES; i++) {
            bool right = true;

            memset(image, 0, SIZE);
            st_recorder_image(r->recorder, -1, cut, i ? &r->rand : NULL, image,
                              SIZE);
            for (unsigned s = 0; s < SECTORS; s++)
                right = right && sector_right(r, s, image + s * 512,
                                              p->durable[s], r->issued[s]);
            broken += !right;
        }
    }
    free(image);
    return broken;
}

/* One run of OPS random requests from SEED; how many images were broken. */
static unsigned
power_run(const char *engine, uint64_t seed, bool direct, bool no_fsync,
          bool no_dsync)
{
    struct run *r = calloc(1, sizeof(*r));
    struct st_domain_opts o = {.engine = engine, .seed = seed};
    struct st_inject_rule shorter = {
        .ops = 1u << ST_IO_WRITE,
        .fd = -1,
        .chance = 200,
        .what = ST_INJECT_SHORT,
        .arg = 1024,
    };
    struct st_file_opts fo = {.create = true, .create_size = SIZE};
    char path[] = "/tmp/st_power_XXXXXX", disk[32];
    struct st_node *node;
    struct st_err err;
    unsigned broken;

    assert_non_null(r);
    assert_non_null(mkdtemp(path));
    snprintf(disk, sizeof(disk), "%s/disk", path);
    fo.path = disk;
    fo.direct = direct;
    r->rand = st_rand_seed(seed);
    assert_int_equal(st_recorder_create(&r->recorder), 0);
    assert_int_equal(
        st_inject_create(seed, st_recorder_seam(r->recorder), &r->inject), 0);
    assert_int_equal(st_inject_add(r->inject, &shorter), 0);
    r->liar = (struct liar){
        .seam.start = liar_start,
        .next = st_inject_seam(r->inject),
        .no_fsync = no_fsync,
        .no_dsync = no_dsync,
    };
    o.seam = &r->liar.seam;
    assert_int_equal(st_domain_create(&o, &r->domain, &err), 0);
    assert_int_equal(st_loop_create(r->domain, &r->loop, &err), 0);
    if (st_file_open(r->loop, &fo, &node, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(
        st_disk_create(r->loop, node, "power", false, &r->disk, &err), 0);
    assert_int_equal(st_disk_open_chan(r->disk, r->loop, &r->chan), 0);
    for (unsigned i = 0; i < DEPTH; i++) {
        r->job[i].run = r;
        r->job[i].req = malloc(st_req_size(st_disk_frames(r->disk)));
        assert_non_null(r->job[i].req);
    }
    for (unsigned s = 0; s < SECTORS; s++)
        r->zero[s][0] = true;
    r->npromises = 1; /* nothing yet, at event 0 */
    r->left = OPS;
    start_more(r);
    assert_true(st_loop_wait(r->loop, &r->done));
    assert_int_equal(r->npromises, OPS + 1);
    broken = broken_images(r);
    if (no_fsync || no_dsync)
        assert_true(r->liar.lies > 0);

    st_disk_close_chan(r->chan);
    st_disk_destroy(r->disk);
    st_loop_destroy(r->loop);
    st_domain_destroy(r->domain);
    st_inject_destroy(r->inject);
    st_recorder_destroy(r->recorder);
    for (unsigned i = 0; i < DEPTH; i++)
        free(r->job[i].req);
    unlink(disk);
    rmdir(path);
    free(r);
    return broken;
}

static void
flushed_and_fua_data_survive(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        if (power_run("virtual", seed, seed % 2, false, false) != 0)
            fail_msg("seed %llu", (unsigned long long)seed);
}

static void
they_survive_on_the_real_engines(void **state)
{
    (void)state;
    assert_int_equal(power_run("threads", 1, false, false, false), 0);
    assert_int_equal(power_run("auto", 2, false, false, false), 0);
}

static void
a_lost_flush_is_noticed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        assert_true(power_run("virtual", seed, false, true, false) > 0);
}

static void
a_lost_fua_flag_is_noticed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        assert_true(power_run("virtual", seed, false, false, true) > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flushed_and_fua_data_survive),
        cmocka_unit_test(they_survive_on_the_real_engines),
        cmocka_unit_test(a_lost_flush_is_noticed),
        cmocka_unit_test(a_lost_fua_flag_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
