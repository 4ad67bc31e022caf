/* SPDX-License-Identifier: MIT
 *
 * The file backend: what is read and written, zeroing, status, and a system
 * that misbehaves. On every engine.
 */
#include "test_file.h"

/* ---- Reading and writing ---- */

static void
the_last_sector_and_not_one_more(void **state)
{
    struct world *w = *state;
    uint8_t buf[8192], got[8192];

    for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
        make(w, 64 * KIB);
        use(w, (struct st_file_opts){.sector_size = sector});
        assert_int_equal(st_disk_props(w->disk)->sector_size, sector);
        fill(buf, sizeof(buf), sector);
        assert_int_equal(
            st_sync_write(w->sync, buf, 64 * KIB - sector, sector, 0), ST_OK);
        assert_int_equal(st_sync_read(w->sync, got, 64 * KIB - sector, sector),
                         ST_OK);
        assert_memory_equal(buf, got, sector);
        assert_int_equal(
            st_sync_write(w->sync, buf, 64 * KIB - sector, 2 * sector, 0),
            ST_RANGE);
        assert_int_equal(st_sync_write(w->sync, buf, 64 * KIB, sector, 0),
                         ST_RANGE);
        assert_int_equal(st_sync_read(w->sync, got, 64 * KIB, sector),
                         ST_RANGE);
        assert_int_equal(st_sync_zero(w->sync, 64 * KIB, sector, 0), ST_RANGE);
        assert_int_equal(st_sync_unmap(w->sync, 64 * KIB, sector), ST_RANGE);
        assert_int_equal(st_sync_read(w->sync, got, 64 * KIB, 0), ST_OK);
        leave(w);
        struct stat sb;
        assert_int_equal(stat(w->path, &sb), 0);
        assert_int_equal(sb.st_size, 64 * KIB); /* nothing extended it */
    }
}

static void
a_far_read_is_not_sector_zero(void **state)
{
    struct world *w = *state;
    uint8_t buf[512];

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    memset(buf, 0x55, sizeof(buf));
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_OK);
    memset(buf, 0, sizeof(buf));
    assert_int_equal(st_sync_read(w->sync, buf, UINT64_C(1) << 55, 512),
                     ST_RANGE);
    assert_int_equal(st_sync_read(w->sync, buf, UINT64_C(1) << 63, 512),
                     ST_RANGE);
    assert_int_equal(buf[0], 0);
}

static void
pages_in_reverse_order(void **state)
{
    struct world *w = *state;
    enum { N = 8, LEN = N * 4096 - 512 - 512 };
    uint8_t *pages = st_pages_alloc(N * 4096), want[LEN], got[LEN];
    struct iovec iov[N];
    struct door d;

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    door_open(w, &d);
    for (unsigned i = 0; i < N; i++)
        iov[i] = (struct iovec){pages + (N - 1 - i) * 4096, 4096};
    for (unsigned fua = 0; fua <= ST_REQ_FUA; fua += ST_REQ_FUA) {
        fill(want, LEN, fua);
        st_buf_write((struct st_buf){iov, 512}, want, LEN);
        assert_int_equal(door_run(&d, ST_OP_WRITE, 1024, LEN, iov, 512, fua),
                         ST_OK);
        peek(w, got, LEN, 1024);
        assert_memory_equal(got, want, LEN);
        memset(pages, 0xee, N * 4096);
        assert_int_equal(door_run(&d, ST_OP_READ, 1024, LEN, iov, 512, 0),
                         ST_OK);
        st_buf_read((struct st_buf){iov, 512}, got, LEN);
        assert_memory_equal(got, want, LEN);
        assert_int_equal(pages[(N - 1) * 4096 + 511], 0xee);
        assert_int_equal(pages[4096 - 512], 0xee); /* behind the last byte */
    }
    st_chan_close(d.chan);
    free(pages);
}

static void
more_segments_than_the_kernel_takes(void **state)
{
    struct world *w = *state;
    enum { N = 2500, LEN = N * 512 };
    uint8_t *mem = malloc(LEN * 2), *want = malloc(LEN), *got = malloc(LEN);
    struct iovec *iov = calloc(N + 1, sizeof(*iov));
    struct st_req *req;
    struct door d;

    make(w, 2 * MIB);
    use(w, (struct st_file_opts){0});
    assert_int_equal(w->node->props.max_segments, 1024);
    door_open(w, &d);
    for (unsigned i = 0; i < N + 1; i++)
        iov[i] = (struct iovec){mem + (size_t)i * 700, 512};
    fill(want, LEN, 3);
    for (size_t skip = 0; skip <= 7; skip += 7) {
        st_buf_write((struct st_buf){iov, skip}, want, LEN);
        /* By itself, */
        assert_int_equal(door_run(&d, ST_OP_WRITE, 512, LEN, iov, skip, 0),
                         ST_OK);
        peek(w, got, LEN, 512);
        assert_memory_equal(got, want, LEN);
        memset(mem, 0, LEN * 2);
        /* and with the root's help. */
        req = st_sync_req(w->sync);
        req->op = ST_OP_READ;
        req->offset = 512;
        req->len = LEN;
        req->buf = (struct st_buf){iov, skip};
        assert_int_equal(st_sync_run(w->sync), ST_OK);
        st_buf_read((struct st_buf){iov, skip}, got, LEN);
        assert_memory_equal(got, want, LEN);
    }
    st_chan_close(d.chan);
    free(mem);
    free(want);
    free(got);
    free(iov);
}

static void
many_requests_at_once(void **state)
{
    struct world *w = *state;
    enum { N = 300 };
    uint8_t *mem = malloc(N * 512);
    struct iovec iov[N];
    struct st_req *req[N];
    struct door d;

    make(w, N * 512);
    use(w, (struct st_file_opts){0});
    door_open(w, &d);
    fill(mem, N * 512, 9);
    for (unsigned i = 0; i < N; i++) {
        iov[i] = (struct iovec){mem + i * 512, 512};
        req[i] =
            door_start(&d, ST_OP_WRITE, (N - 1 - i) * 512, 512, &iov[i], 0, 0);
    }
    assert_true(st_loop_wait(w->loop, &d.done));
    for (unsigned i = 0; i < N; i++) {
        uint8_t got[512];

        assert_int_equal(req[i]->status, ST_OK);
        free(req[i]);
        peek(w, got, 512, (N - 1 - i) * 512);
        assert_memory_equal(got, mem + i * 512, 512);
    }
    st_chan_close(d.chan);
    free(mem);
}

static void
a_read_only_disk_takes_no_write(void **state)
{
    struct world *w = *state;
    char buf[512] = "x";
    struct iovec iov = {buf, 512};
    struct door d;

    make(w, 4096);
    use(w, (struct st_file_opts){.read_only = true});
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_READ_ONLY);
    assert_int_equal(st_sync_zero(w->sync, 0, 512, 0), ST_READ_ONLY);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
    assert_int_equal(st_sync_read(w->sync, buf, 0, 512), ST_OK);
    assert_int_equal(buf[0], 0);
    door_open(w, &d);
    assert_int_equal(door_run(&d, ST_OP_WRITE, 0, 512, &iov, 0, 0),
                     ST_UNSUPPORTED);
    st_chan_close(d.chan);
}

static void
the_file_may_be_unlinked_while_open(void **state)
{
    struct world *w = *state;
    char buf[512] = "still here", got[512];

    make(w, 4096);
    use(w, (struct st_file_opts){0});
    assert_int_equal(unlink(w->path), 0);
    assert_int_equal(st_sync_write(w->sync, buf, 512, 512, ST_REQ_FUA), ST_OK);
    assert_int_equal(st_sync_read(w->sync, got, 512, 512), ST_OK);
    assert_memory_equal(got, buf, 512);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
}

/* ---- Zeroing and status ---- */

static void
unmap_punches_its_page_and_no_other(void **state)
{
    struct world *w = *state;
    uint8_t buf[8192], got[8192], zero[4096] = {0};
    struct st_extent x;
    struct stat before, after;

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    if (w->node->props.unmap != ST_UNMAP_ZEROES)
        skip_for("a file system without holes");
    fill(buf, sizeof(buf), 1);
    assert_int_equal(st_sync_write(w->sync, buf, 0, 8192, ST_REQ_FUA), ST_OK);
    assert_int_equal(stat(w->path, &before), 0);
    assert_int_equal(st_sync_unmap(w->sync, 0, 4096), ST_OK);
    assert_int_equal(stat(w->path, &after), 0);
    assert_true(after.st_blocks < before.st_blocks);
    assert_int_equal(st_sync_read(w->sync, got, 0, 8192), ST_OK);
    assert_memory_equal(got, zero, 4096);
    assert_memory_equal(got + 4096, buf + 4096, 4096);

    assert_int_equal(st_sync_block_status(w->sync, 0, 64 * KIB, &x), ST_OK);
    assert_int_equal(x.flags, ST_EXTENT_HOLE | ST_EXTENT_ZERO);
    assert_int_equal(x.len, 4096);
    assert_int_equal(st_sync_block_status(w->sync, 4096, 60 * KIB, &x), ST_OK);
    assert_int_equal(x.flags, 0);
    assert_int_equal(x.len, 4096);
    assert_int_equal(st_sync_block_status(w->sync, 8192, 8192, &x), ST_OK);
    assert_int_equal(x.flags, ST_EXTENT_HOLE | ST_EXTENT_ZERO);
    assert_int_equal(x.len, 8192); /* never more than was asked for */

    assert_int_equal(st_sync_unmap(w->sync, 0, 0), ST_OK);
    assert_int_equal(st_sync_unmap(w->sync, 64 * KIB, 0), ST_OK);
    assert_int_equal(st_sync_unmap(w->sync, 64 * KIB + 512, 0), ST_RANGE);
}

static void
an_extent_is_whole_sectors_however_the_file_lies(void **state)
{
    struct world *w = *state;
    uint8_t one[4096] = {1};
    struct st_extent x;

    /* The file system's blocks are smaller than these sectors. */
    make(w, 256 * KIB);
    poke(w, one, 4096, 16 * KIB + 4096);
    use(w, (struct st_file_opts){.sector_size = 16 * KIB});
    assert_int_equal(st_sync_block_status(w->sync, 0, 256 * KIB, &x), ST_OK);
    if (!x.flags)
        skip_for("a file system that does not tell where holes are");
    assert_int_equal(x.len, 16 * KIB);
    assert_int_equal(st_sync_block_status(w->sync, 16 * KIB, 240 * KIB, &x),
                     ST_OK);
    assert_int_equal(x.flags, 0);
    assert_int_equal(x.len, 16 * KIB);
}

/* Write data, zero the middle with FLAGS, check every byte. */
static void
check_zeroing(struct world *w, unsigned flags)
{
    const size_t size = 4 * MIB, from = 4096 + 512, len = 3 * MIB + 1024;
    uint8_t *buf = malloc(size), *got = malloc(size);

    fill(buf, size, flags);
    assert_int_equal(st_sync_write(w->sync, buf, 0, size, 0), ST_OK);
    assert_int_equal(st_sync_zero(w->sync, from, len, flags), ST_OK);
    memset(buf + from, 0, len);
    assert_int_equal(st_sync_read(w->sync, got, 0, size), ST_OK);
    assert_memory_equal(got, buf, size);
    free(buf);
    free(got);
}

static void
zeroes_are_zeroes_in_every_way(void **state)
{
    struct world *w = *state;

    for (uint32_t sector = 512; sector <= 1024; sector *= 2) {
        make(w, 4 * MIB);
        use(w, (struct st_file_opts){.sector_size = 512});
        if (sector == 1024) /* the file system knows nothing of all this */
            inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 0);
        check_zeroing(w, 0);
        check_zeroing(w, ST_REQ_FUA);
        check_zeroing(w, ST_REQ_MAY_UNMAP);
        check_zeroing(w, ST_REQ_MAY_UNMAP | ST_REQ_FUA);
        leave(w);
    }
    /* Each way was tried once. */
    assert_int_equal(st_inject_hits(w->inject), 2);
}

static void
zeroes_keep_their_room_unless_told(void **state)
{
    struct world *w = *state;
    uint8_t *buf = calloc(1, MIB);
    struct stat before, after;

    make(w, MIB);
    use(w, (struct st_file_opts){0});
    assert_int_equal(st_sync_write(w->sync, buf, 0, MIB, ST_REQ_FUA), ST_OK);
    assert_int_equal(stat(w->path, &before), 0);
    assert_int_equal(st_sync_zero(w->sync, 0, MIB, ST_REQ_FUA), ST_OK);
    assert_int_equal(stat(w->path, &after), 0);
    assert_true(after.st_blocks >= before.st_blocks);
    free(buf);
}

static void
nothing_is_done_to_no_bytes(void **state)
{
    struct world *w = *state;
    static const enum st_op ops[] = {ST_OP_READ, ST_OP_WRITE, ST_OP_UNMAP,
                                     ST_OP_WRITE_ZEROES};
    struct door d;

    make(w, 4096);
    use(w, (struct st_file_opts){0});
    door_open(w, &d);
    /* Reaching the system would hit the rule. */
    inject(w, ST_IO_READ, ST_INJECT_ERROR, EIO, 0);
    inject(w, ST_IO_WRITE, ST_INJECT_ERROR, EIO, 0);
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EIO, 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(door_run(&d, ops[i], 4096, 0, NULL, 0, 0), ST_OK);
        assert_int_equal(door_run(&d, ops[i], 8192, 0, NULL, 0, 0), ST_RANGE);
    }
    st_chan_close(d.chan);
}

static void
a_refused_punch_still_unmaps_to_zeroes(void **state)
{
    struct world *w = *state;
    uint8_t buf[8192], got[8192], zero[8192] = {0};

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    if (w->node->props.unmap != ST_UNMAP_ZEROES)
        skip_for("a file system without holes");
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 0);
    fill(buf, sizeof(buf), 1);
    assert_int_equal(st_sync_write(w->sync, buf, 0, 8192, 0), ST_OK);
    assert_int_equal(st_sync_unmap(w->sync, 0, 8192), ST_OK);
    assert_int_equal(st_sync_read(w->sync, got, 0, 8192), ST_OK);
    assert_memory_equal(got, zero, 8192);
}

static void
fast_zeroing_is_refused_where_it_is_not_fast(void **state)
{
    struct world *w = *state;
    struct door d;

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    door_open(w, &d);
    inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 0);
    for (unsigned i = 0; i < 2; i++) /* on finding out, and on knowing */
        assert_int_equal(door_run(&d, ST_OP_WRITE_ZEROES, 0, 4096, NULL, 0,
                                  ST_REQ_FAST | ST_REQ_MAY_UNMAP),
                         ST_UNSUPPORTED);
    assert_int_equal(st_inject_hits(w->inject), 2); /* punch, zero-range */
    st_chan_close(d.chan);
}

/* ---- When the system misbehaves ---- */

static void
short_transfers_are_gone_on_with(void **state)
{
    struct world *w = *state;
    enum { LEN = 64 * KIB };
    uint8_t *buf = malloc(LEN), *got = malloc(LEN);

    make(w, LEN);
    use(w, (struct st_file_opts){0});
    fill(buf, LEN, 5);
    inject(w, ST_IO_WRITE, ST_INJECT_SHORT, 1000, 0);
    inject(w, ST_IO_READ, ST_INJECT_SHORT, 777, 0);
    assert_int_equal(st_sync_write(w->sync, buf, 0, LEN, 0), ST_OK);
    assert_int_equal(st_sync_read(w->sync, got, 0, LEN), ST_OK);
    assert_memory_equal(got, buf, LEN);
    peek(w, got, LEN, 0);
    assert_memory_equal(got, buf, LEN);
    assert_int_equal(st_inject_hits(w->inject),
                     (LEN + 999) / 1000 + (LEN + 776) / 777);
    free(buf);
    free(got);
}

static void
interrupted_io_is_tried_again_but_not_for_ever(void **state)
{
    struct world *w = *state;
    uint8_t buf[512] = "again", got[512];

    make(w, 4096);
    use(w, (struct st_file_opts){0});
    inject(w, ST_IO_WRITE, ST_INJECT_ERROR, EINTR, 3);
    inject(w, ST_IO_READ, ST_INJECT_ERROR, EAGAIN, 3);
    inject(w, ST_IO_FSYNC, ST_INJECT_ERROR, EINTR, 3);
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_OK);
    assert_int_equal(st_sync_read(w->sync, got, 0, 512), ST_OK);
    assert_memory_equal(got, buf, 512);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
    assert_int_equal(st_inject_hits(w->inject), 9);
    inject(w, ST_IO_READ, ST_INJECT_ERROR, EAGAIN, 0);
    assert_int_equal(st_sync_read(w->sync, got, 0, 512), ST_IO);
}

static void
each_errno_has_its_class(void **state)
{
    struct world *w = *state;
    static const struct {
        int err;
        enum st_status read, write;
    } cases[] = {
        {EIO, ST_IO, ST_IO},
        {ENOSPC, ST_NO_SPACE, ST_NO_SPACE},
        {ENODATA, ST_MEDIUM_READ, ST_MEDIUM_WRITE},
        {EILSEQ, ST_GUARD, ST_GUARD},
        {EROFS, ST_IO, ST_READ_ONLY},
    };
    uint8_t buf[512] = {0};

    make(w, 4096);
    use(w, (struct st_file_opts){0});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        inject(w, ST_IO_READ, ST_INJECT_ERROR, cases[i].err, 1);
        inject(w, ST_IO_WRITE, ST_INJECT_ERROR, cases[i].err, 1);
        assert_int_equal(st_sync_read(w->sync, buf, 0, 512), cases[i].read);
        assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0),
                         cases[i].write);
    }
    assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_OK);
    inject(w, ST_IO_FSYNC, ST_INJECT_ERROR, EIO, 1);
    assert_int_equal(st_sync_flush(w->sync), ST_IO);
}

static void
a_cancelled_request_ends(void **state)
{
    struct world *w = *state;
    uint8_t buf[4096];
    struct iovec iov = {buf, 4096};
    struct st_req *req;
    enum st_status s;
    struct door d;

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    door_open(w, &d);
    /* As it would have or with ST_ABORTED: at once, */
    req = door_start(&d, ST_OP_READ, 0, 4096, &iov, 0, 0);
    st_cancel(req);
    s = door_end(&d, req);
    assert_true(s == ST_OK || s == ST_ABORTED);
    req = door_start(&d, ST_OP_BLOCK_STATUS, 0, 4096, NULL, 0, 0);
    st_cancel(req);
    assert_int_equal(door_end(&d, req), ST_OK);
    /* and never the whole of a long row of short transfers. */
    inject(w, ST_IO_READ, ST_INJECT_SHORT, 1, 0);
    req = door_start(&d, ST_OP_READ, 0, 4096, &iov, 0, 0);
    st_cancel(req);
    assert_int_equal(door_end(&d, req), ST_ABORTED);
    assert_true(st_inject_hits(w->inject) <= 1);
    st_inject_clear(w->inject);
    assert_int_equal(door_run(&d, ST_OP_READ, 0, 4096, &iov, 0, 0), ST_OK);
    st_chan_close(d.chan);
}

/* A loop of its own that writes and reads back its part of the disk. */
struct writer {
    struct st_task task;
    struct st_loop *loop;
    struct st_node *node;
    struct st_chan *chan;
    struct st_req *req;
    uint8_t buf[512];
    struct iovec iov;
    uint64_t first;
    unsigned step, wrong;
    atomic_bool done;
};

enum { WRITER_STEPS = 200 };

static void
writer_next(struct st_req *req)
{
    struct writer *w = req->owner;
    unsigned i = w->step / 2;

    w->wrong += w->step && req->status != ST_OK;
    if (w->step && w->step % 2 == 0) /* what was written came back */
        for (unsigned k = 0; k < 512; k++)
            w->wrong += w->buf[k] != (uint8_t)(i - 1);
    if (w->step == WRITER_STEPS) {
        st_chan_close(w->chan);
        free(req);
        atomic_store(&w->done, true);
        return;
    }
    memset(w->buf, w->step % 2 ? 0xff : (uint8_t)i, 512);
    st_req_init(req, 1, writer_next, w);
    req->op = w->step % 2 ? ST_OP_READ : ST_OP_WRITE;
    req->offset = w->first + i % 16 * 512;
    req->len = 512;
    req->buf.iov = &w->iov;
    w->step++;
    st_submit(w->chan, req);
}

static void
writer_start(struct st_task *t)
{
    struct writer *w = st_container(t, struct writer, task);

    w->req = malloc(st_req_size(1));
    if (!w->req || st_chan_open(w->node, w->loop, &w->chan) != 0)
        abort();
    w->req->owner = w;
    writer_next(w->req);
}

static void
two_loops_share_one_file(void **state)
{
    struct world *w = *state;
    struct writer wr[2] = {0};
    struct st_err err;

    if (st_domain_is_virtual(w->domain))
        return; /* has no threads */
    make(w, 64 * KIB);
    assert_int_equal(try_open(w, (struct st_file_opts){0}, &w->node, &err), 0);
    for (unsigned i = 0; i < 2; i++) {
        wr[i].node = w->node;
        wr[i].first = i * 32 * KIB;
        wr[i].iov = (struct iovec){wr[i].buf, 512};
        wr[i].task.run = writer_start;
        assert_int_equal(st_loop_create(w->domain, &wr[i].loop, &err), 0);
        assert_int_equal(st_loop_start(wr[i].loop, "writer"), 0);
        st_post(wr[i].loop, &wr[i].task);
    }
    while (!atomic_load(&wr[0].done) || !atomic_load(&wr[1].done))
        assert_int_equal(st_file_restat(w->node), 0);
    for (unsigned i = 0; i < 2; i++) {
        st_loop_join(wr[i].loop);
        st_loop_destroy(wr[i].loop);
        assert_int_equal(wr[i].wrong, 0);
    }
    st_node_close(w->node);
}

static const struct CMUnitTest tests[] = {
    T(the_last_sector_and_not_one_more),
    T(a_far_read_is_not_sector_zero),
    T(pages_in_reverse_order),
    T(more_segments_than_the_kernel_takes),
    T(many_requests_at_once),
    T(a_read_only_disk_takes_no_write),
    T(the_file_may_be_unlinked_while_open),
    T(unmap_punches_its_page_and_no_other),
    T(an_extent_is_whole_sectors_however_the_file_lies),
    T(zeroes_are_zeroes_in_every_way),
    T(zeroes_keep_their_room_unless_told),
    T(nothing_is_done_to_no_bytes),
    T(a_refused_punch_still_unmaps_to_zeroes),
    T(fast_zeroing_is_refused_where_it_is_not_fast),
    T(short_transfers_are_gone_on_with),
    T(interrupted_io_is_tried_again_but_not_for_ever),
    T(each_errno_has_its_class),
    T(a_cancelled_request_ends),
    T(two_loops_share_one_file),
};

int
main(void)
{
    return run_on_every_engine(tests, sizeof(tests) / sizeof(tests[0]));
}
