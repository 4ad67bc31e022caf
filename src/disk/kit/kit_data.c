/* SPDX-License-Identifier: MIT
 *
 * What is written is what is read, at any alignment and through any buffer;
 * and no operation touches its neighbours. A byte array is the judge.
 */
#include "kit_private.h"

#include <stdlib.h>
#include <string.h>

static void
aligned_writes_read_back(struct kit *k)
{
    kit_fill(k);
    kit_verify(k);
    for (unsigned i = 0; i < 64 && !k->failed; i++) {
        uint64_t n = 1 + st_rand_below(&k->rand, 40);
        uint64_t at = st_rand_below(&k->rand, k->size / k->sector - n);

        KIT_CHECK(k, kit_write(k, at * k->sector, n * k->sector, 0) == ST_OK,
                  "write");
    }
    kit_verify(k);
}

static void
unaligned_writes_read_back(struct kit *k)
{
    kit_fill(k);
    for (unsigned i = 0; i < 100 && !k->failed; i++) {
        uint64_t n = 1 + st_rand_below(&k->rand, i % 2 ? 700 : 20000);
        uint64_t at = st_rand_below(&k->rand, k->size - n);

        KIT_CHECK(k, kit_write(k, at, n, i % 5 ? 0 : ST_REQ_FUA) == ST_OK,
                  "write of %#jx+%#jx", (uintmax_t)at, (uintmax_t)n);
        kit_verify_at(k, at, n);
    }
    kit_verify(k);
}

/* Every operation that changes something, between canaries; in whole sectors
 * and not. */
static void
neighbours_are_untouched(struct kit *k)
{
    static const enum st_op ops[] = {ST_OP_WRITE, ST_OP_WRITE_ZEROES,
                                     ST_OP_COMPARE_AND_WRITE};

    kit_fill(k);
    for (unsigned i = 0; i < 36 && !k->failed; i++) {
        enum st_op op = ops[i % 3];
        uint64_t at = (i * 7 + 3) * k->sector + (i % 2 ? i * 13 : 0);
        uint64_t n = i % 4 > 1 ? k->sector * 2 : k->sector + 17 * (i % 2);
        struct kit_req *r = kit_req(k, op, at, n);
        enum st_status s;

        if (op == ST_OP_WRITE)
            kit_random(k, r->mem, n);
        if (op == ST_OP_COMPARE_AND_WRITE) {
            memcpy(r->mem, k->model + at, n);
            kit_random(k, r->mem + n, n);
        }
        s = kit_run(r);
        KIT_CHECK(k, s == ST_OK, "operation %u of %#jx+%#jx: %s", op,
                  (uintmax_t)at, (uintmax_t)n, st_status_name(s));
        if (op == ST_OP_WRITE_ZEROES)
            memset(k->model + at, 0, n);
        else
            memcpy(k->model + at,
                   r->mem + (op == ST_OP_COMPARE_AND_WRITE ? n : 0), n);
        kit_verify_at(k, at - k->sector, n + 2 * k->sector);
    }
    kit_verify(k);
}

/* Cut LEN bytes of R into N segments, each followed by a byte that is not
 * R's, so that addresses are odd. */
static struct iovec *
cut(struct kit *k, struct kit_req *r, unsigned n, uint8_t **mem)
{
    struct iovec *iov = calloc(n, sizeof(*iov));
    size_t each = r->req->len / n;

    *mem = malloc(r->req->len + 2 * n + 1);
    if (!iov || !*mem)
        abort();
    memset(*mem, 0xcc, r->req->len + 2 * n + 1);
    for (unsigned i = 0; i < n; i++) {
        iov[i].iov_base = *mem + i * (each + 1) + 1;
        iov[i].iov_len = i + 1 < n ? each : r->req->len - i * each;
    }
    r->req->buf = (struct st_buf){iov, 0};
    (void)k;
    return iov;
}

static void
segment_lists_work(struct kit *k)
{
    static const unsigned counts[] = {1, 3, 17, 1025, 2500};

    kit_fill(k);
    for (unsigned i = 0; i < 10 && !k->failed; i++) {
        unsigned n = counts[i % 5];
        uint64_t len = k->sector * (n > 17 ? 64 * 1024 / 512 : 20);
        uint64_t at = 5 * k->sector + (i < 5 ? 0 : 77);
        struct kit_req *w = kit_req(k, ST_OP_WRITE, at, len);
        struct kit_req *r = kit_req(k, ST_OP_READ, at, len);
        st_autofree uint8_t *wmem = NULL, *rmem = NULL;
        st_autofree struct iovec *wiov = cut(k, w, n, &wmem);
        st_autofree struct iovec *riov __attribute__((unused)) =
            cut(k, r, n, &rmem);
        enum st_status s;

        for (unsigned j = 0; j < n; j++)
            kit_random(k, wiov[j].iov_base, wiov[j].iov_len);
        s = kit_run(w);
        KIT_CHECK(k, s == ST_OK, "write of %u segments: %s", n,
                  st_status_name(s));
        st_buf_read(w->req->buf, k->model + at, len);
        s = kit_run(r);
        KIT_CHECK(k, s == ST_OK, "read into %u segments: %s", n,
                  st_status_name(s));
        KIT_CHECK(k, memcmp(rmem, wmem, len + 2 * n) == 0,
                  "%u segments read other data, or beside them", n);
    }
    kit_verify(k);
}

/* A guest may list a page several times. */
static void
repeated_pages_work(struct kit *k)
{
    struct kit_req *w = kit_req(k, ST_OP_WRITE, 4096, 5 * 4096);
    struct kit_req *r = kit_req(k, ST_OP_READ, 4096, 5 * 4096);
    struct iovec wiov[5], riov[5];

    for (unsigned i = 0; i < 5; i++) {
        wiov[i] = (struct iovec){w->mem, 4096};
        riov[i] = (struct iovec){r->mem, 4096};
    }
    kit_random(k, w->mem, 4096);
    w->req->buf.iov = wiov;
    r->req->buf.iov = riov;
    KIT_CHECK(k, kit_run(w) == ST_OK, "write");
    for (unsigned i = 0; i < 5; i++)
        memcpy(k->model + 4096 * (i + 1), w->mem, 4096);
    kit_verify(k);
    KIT_CHECK(k, kit_run(r) == ST_OK, "read");
    KIT_CHECK(k, memcmp(r->mem, w->mem, 4096) == 0, "wrong data");
}

static void
fua_and_flush_succeed(struct kit *k)
{
    KIT_CHECK(k, kit_write(k, 0, 8192, ST_REQ_FUA) == ST_OK, "FUA");
    KIT_CHECK(k, kit_write(k, 8192, 100, ST_REQ_FUA) == ST_OK, "small FUA");
    KIT_CHECK(k, kit_write(k, 9000, 5000, 0) == ST_OK, "write");
    KIT_CHECK(k, kit_op(k, ST_OP_FLUSH, 0, 0, 0) == ST_OK, "flush");
    KIT_CHECK(k, kit_op(k, ST_OP_FLUSH, 0, 0, 0) == ST_OK, "second flush");
    kit_verify(k);
}

static void
write_zeroes_reads_zero(struct kit *k)
{
    if (!kit_performs(k, ST_OP_WRITE_ZEROES)) {
        kit_fail(k, "the root does not emulate it");
        return;
    }
    kit_fill(k);
    for (unsigned i = 0; i < 32 && !k->failed; i++) {
        unsigned flags =
            (i & 1 ? ST_REQ_MAY_UNMAP : 0) | (i & 2 ? ST_REQ_FUA : 0);
        uint64_t at = i * 7 * k->sector + (i & 4 ? 100 : 0);
        uint64_t n = k->sector * (1 + i % 6) + (i & 8 ? 33 : 0);
        enum st_status s = kit_op(k, ST_OP_WRITE_ZEROES, flags, at, n);

        KIT_CHECK(k, s == ST_OK, "%#jx+%#jx: %s", (uintmax_t)at, (uintmax_t)n,
                  st_status_name(s));
        memset(k->model + at, 0, n);
    }
    kit_verify(k);
    KIT_CHECK(k, kit_op(k, ST_OP_WRITE_ZEROES, 0, 0, k->size) == ST_OK,
              "the whole disk");
    memset(k->model, 0, k->size);
    kit_verify(k);
}

static void
fast_zero_is_all_or_nothing(struct kit *k)
{
    enum st_status s;

    kit_fill(k);
    for (unsigned i = 0; i < 4 && !k->failed; i++) {
        uint64_t at = i * 16384 + 4096 + (i & 1 ? 7 : 0), n = 8192;

        s = kit_op(k, ST_OP_WRITE_ZEROES,
                   ST_REQ_FAST | (i & 2 ? ST_REQ_MAY_UNMAP : 0), at, n);
        KIT_CHECK(k, s == ST_OK || s == ST_UNSUPPORTED, "%s",
                  st_status_name(s));
        if (s == ST_OK)
            memset(k->model + at, 0, n);
    }
    kit_verify(k);
}

/* What an unmap leaves, by st_props.unmap; where the range cuts a sector, old
 * bytes are as good as zeroes. */
static void
unmap_does_what_it_says(struct kit *k)
{
    enum st_unmap how = st_disk_props(k->disk)->unmap;

    KIT_CHECK(k, kit_performs(k, ST_OP_UNMAP), "the root does not answer it");
    kit_fill(k);
    for (unsigned i = 0; i < 24 && !k->failed; i++) {
        uint64_t at = i * 10 * k->sector + (i % 3 == 2 ? 200 : 0);
        uint64_t n = k->sector * (1 + i % 8) + (i % 5 == 4 ? 50 : 0);
        uint64_t first = st_align_up(at, k->sector);
        uint64_t last = st_align_down(at + n, k->sector);
        enum st_status s = kit_op(k, ST_OP_UNMAP, 0, at, n);
        struct kit_req *r = kit_req(k, ST_OP_READ, at, n);

        KIT_CHECK(k, s == ST_OK, "%#jx+%#jx: %s", (uintmax_t)at, (uintmax_t)n,
                  st_status_name(s));
        KIT_CHECK(k, kit_run(r) == ST_OK, "read after unmap");
        for (uint64_t b = at; b < at + n; b++) {
            bool whole = b >= first && b < last;
            uint8_t got = r->mem[b - at];

            KIT_CHECK(k,
                      how == ST_UNMAP_UNSPECIFIED || got == k->model[b] ||
                          (how == ST_UNMAP_ZEROES && got == 0),
                      "byte %#jx became %02x", (uintmax_t)b, got);
            KIT_CHECK(k, !(how == ST_UNMAP_ZEROES && whole && got),
                      "byte %#jx is not zero", (uintmax_t)b);
            k->model[b] = got;
        }
    }
    kit_verify(k);
}

/* Extents are inside the request, and what they call zero reads as zero. */
static void
block_status_tells_the_truth(struct kit *k)
{
    if (!kit_performs(k, ST_OP_BLOCK_STATUS)) {
        kit_skip(k, "not performed");
        return;
    }
    for (unsigned i = 0; i < 30; i++)
        kit_write(k, 8192 + i * 20000, 5000, 0);
    kit_op(k, ST_OP_WRITE_ZEROES, ST_REQ_MAY_UNMAP, 70000, 40000);
    memset(k->model + 70000, 0, 40000);
    for (uint64_t step = k->size; step > 3000; step /= 7) {
        struct kit_req *r;

        for (uint64_t at = 0; at < k->size; at += r->req->extent.len) {
            uint64_t n = st_min(step, k->size - at);
            enum st_status s;

            r = kit_req(k, ST_OP_BLOCK_STATUS, at, n);
            s = kit_run(r);
            KIT_CHECK(k, s == ST_OK, "%#jx: %s", (uintmax_t)at,
                      st_status_name(s));
            KIT_CHECK(k, r->req->extent.len && r->req->extent.len <= n,
                      "%#jx+%#jx answered with %#jx bytes", (uintmax_t)at,
                      (uintmax_t)n, (uintmax_t)r->req->extent.len);
            KIT_CHECK(k,
                      !(r->req->extent.flags & ST_EXTENT_ZERO) ||
                          st_mem_is_zero(k->model + at, r->req->extent.len),
                      "%#jx+%#jx is called zero", (uintmax_t)at,
                      (uintmax_t)r->req->extent.len);
        }
    }
    kit_verify(k);
}

static void
compare_and_write_compares(struct kit *k)
{
    kit_fill(k);
    for (unsigned i = 0; i < 24 && !k->failed; i++) {
        uint64_t at = i * 3 * k->sector + (i % 4 == 3 ? 99 : 0);
        uint64_t n = k->sector * (1 + i % 3) + (i % 6 == 5 ? 11 : 0);
        uint64_t wrong = st_rand_below(&k->rand, n);
        struct kit_req *r = kit_req(k, ST_OP_COMPARE_AND_WRITE, at, n);
        enum st_status s;

        memcpy(r->mem, k->model + at, n);
        kit_random(k, r->mem + n, n);
        r->mem[wrong] ^= 0x40;
        s = kit_run(r);
        KIT_CHECK(k, s == ST_MISCOMPARE && r->req->miscompare_at == wrong,
                  "%#jx+%#jx, byte %ju wrong: %s, byte %ju", (uintmax_t)at,
                  (uintmax_t)n, (uintmax_t)wrong, st_status_name(s),
                  (uintmax_t)r->req->miscompare_at);
        kit_verify_at(k, at, n);
        r->mem[wrong] ^= 0x40;
        s = kit_run(r);
        KIT_CHECK(k, s == ST_OK, "%#jx+%#jx: %s", (uintmax_t)at, (uintmax_t)n,
                  st_status_name(s));
        memcpy(k->model + at, r->mem + n, n);
    }
    kit_verify(k);
}

/* Of several that expect the same, one wins; the loser sees its data. */
static void
compare_and_write_is_atomic(struct kit *k)
{
    for (unsigned round = 0; round < 24 && !k->failed; round++) {
        uint64_t at = 4096 + (round % 3) * 100, n = k->sector;
        struct kit_req *r[4];
        unsigned winners = 0, winner = 0;

        for (unsigned i = 0; i < 4; i++) {
            r[i] = kit_req(k, ST_OP_COMPARE_AND_WRITE, at, n);
            memcpy(r[i]->mem, k->model + at, n);
            kit_random(k, r[i]->mem + n, n);
        }
        for (unsigned i = 0; i < 4; i++)
            kit_start(r[i]);
        for (unsigned i = 0; i < 4; i++) {
            enum st_status s = kit_wait(r[i]);

            KIT_CHECK(k, s == ST_OK || s == ST_MISCOMPARE, "%s",
                      st_status_name(s));
            if (s == ST_OK) {
                winners++;
                winner = i;
            }
        }
        KIT_CHECK(k, winners == 1, "%u of 4 succeeded", winners);
        memcpy(k->model + at, r[winner]->mem + n, n);
        kit_verify_at(k, 4096, 4 * k->sector);
    }
}

const struct kit_check kit_data[] = {
    {"aligned_writes_read_back", KIT_WRITABLE, aligned_writes_read_back},
    {"unaligned_writes_read_back", KIT_WRITABLE, unaligned_writes_read_back},
    {"neighbours_are_untouched", KIT_WRITABLE, neighbours_are_untouched},
    {"segment_lists_work", KIT_WRITABLE, segment_lists_work},
    {"repeated_pages_work", KIT_WRITABLE, repeated_pages_work},
    {"fua_and_flush_succeed", KIT_WRITABLE, fua_and_flush_succeed},
    {"write_zeroes_reads_zero", KIT_WRITABLE, write_zeroes_reads_zero},
    {"fast_zero_is_all_or_nothing", KIT_WRITABLE, fast_zero_is_all_or_nothing},
    {"unmap_does_what_it_says", KIT_WRITABLE, unmap_does_what_it_says},
    {"block_status_tells_the_truth", KIT_WRITABLE,
     block_status_tells_the_truth},
    {"compare_and_write_compares", KIT_WRITABLE, compare_and_write_compares},
    {"compare_and_write_is_atomic", KIT_WRITABLE, compare_and_write_is_atomic},
    {NULL, 0, NULL},
};
