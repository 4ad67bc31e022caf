/* SPDX-License-Identifier: MIT
 *
 * copy: one disk onto another, with 16 requests under way.
 *
 *     copy SOURCE-SPEC TARGET-SPEC
 *
 *   SOURCE --read--> slot --write--> TARGET      16 slots, each with two
 *             ^                        |         requests; both end in one
 *             '------ the next piece --'         queue, which main polls
 *
 * Pieces that read as zeroes are not copied but zeroed, which leaves holes
 * where the target can. The source is opened read-only; the target must be at
 * least as large, and is flushed in the end.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <strata/strata.h>

enum { SLOTS = 16, PIECE = 1 << 18 };

struct copy {
    struct strata *s;
    struct strata_disk *from, *to;
    struct strata_queue *queue;
    uint64_t size, next;     /* bytes: in all; up to here it was begun */
    uint64_t copied, zeroed; /* bytes */
    unsigned busy;           /* slots */
    int failed;
};

struct slot {
    struct copy *copy;
    struct strata_request *read, *write;
    struct iovec iov;
    uint64_t offset;
    char *memory;
};

static int
complain(struct copy *c, const char *what, enum strata_status status)
{
    fprintf(stderr, "copy: %s: %s\n", what, strata_status_text(status));
    c->failed = 1;
    return -1;
}

/* Start an operation of the slot's piece; 0 or -1. */
static int
start(struct slot *s, struct strata_request *r, enum strata_op op)
{
    struct strata_io io;

    memset(&io, 0, sizeof(io));
    io.size = sizeof(io);
    io.op = op;
    io.flags = op == STRATA_OP_WRITE_ZEROES ? STRATA_MAY_UNMAP : 0;
    io.offset = s->offset;
    io.length = s->iov.iov_len;
    io.iov = &s->iov;
    io.iovcnt = 1;
    if (strata_submit(r, &io) < 0)
        return complain(s->copy, "cannot start", STRATA_INVALID);
    return 0;
}

/* Begin the next piece, if there is one. */
static void
begin(struct slot *s)
{
    struct copy *c = s->copy;
    uint64_t left = c->size - c->next;

    if (!left || c->failed)
        return;
    s->offset = c->next;
    s->iov.iov_base = s->memory;
    s->iov.iov_len = left < PIECE ? (size_t)left : PIECE;
    c->next += s->iov.iov_len;
    if (start(s, s->read, STRATA_OP_READ) == 0)
        c->busy++;
}

static int
is_zero(const char *p, size_t n)
{
    return n == 0 || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* A request ended: go on with its slot. */
static void
went(struct strata_request *r)
{
    struct slot *s = strata_request_arg(r);
    struct copy *c = s->copy;
    struct strata_result result = {sizeof(result), STRATA_OK, 0, 0, 0};
    int zero;

    strata_request_result(r, &result);
    if (result.status != STRATA_OK) {
        complain(c, strata_disk_name(r == s->read ? c->from : c->to),
                 result.status);
    } else if (r == s->read) {
        zero = is_zero(s->memory, s->iov.iov_len);
        *(zero ? &c->zeroed : &c->copied) += s->iov.iov_len;
        if (start(s, s->write,
                  zero ? STRATA_OP_WRITE_ZEROES : STRATA_OP_WRITE) == 0)
            return;
    }
    c->busy--;
    begin(s);
}

static int
slot_open(struct copy *c, struct slot *s)
{
    s->copy = c;
    s->memory = aligned_alloc(4096, PIECE);
    if (!s->memory ||
        strata_request_create(c->from, c->queue, NULL, s, &s->read) < 0 ||
        strata_request_create(c->to, c->queue, NULL, s, &s->write) < 0)
        return complain(c, "no memory", STRATA_NO_SPACE);
    return 0;
}

static void
slot_close(struct slot *s)
{
    strata_request_destroy(s->read);
    strata_request_destroy(s->write);
    free(s->memory);
}

static void
copy(struct copy *c)
{
    struct slot slots[SLOTS];
    struct strata_request *r;
    struct pollfd p;

    memset(slots, 0, sizeof(slots));
    for (int i = 0; i < SLOTS; i++)
        if (slot_open(c, &slots[i]) == 0)
            begin(&slots[i]);
    p.fd = strata_queue_fd(c->queue);
    p.events = POLLIN;
    while (c->busy) {
        poll(&p, 1, -1);
        while ((r = strata_queue_take(c->queue)))
            went(r);
    }
    for (int i = 0; i < SLOTS; i++)
        slot_close(&slots[i]);
    if (!c->failed) {
        enum strata_status status = strata_flush(c->to);

        if (status != STRATA_OK)
            complain(c, strata_disk_name(c->to), status);
    }
}

static int
open_all(struct copy *c, const char *from, const char *to,
         struct strata_error *err)
{
    struct strata_disk_options read_only;
    int rc;

    memset(&read_only, 0, sizeof(read_only));
    read_only.size = sizeof(read_only);
    read_only.flags = STRATA_OPEN_READ_ONLY;
    rc = strata_open(NULL, &c->s, err);
    if (rc == 0)
        rc = strata_queue_create(c->s, &c->queue, err);
    if (rc == 0)
        rc = strata_disk_open(c->s, from, &read_only, &c->from, err);
    if (rc == 0)
        rc = strata_disk_open(c->s, to, NULL, &c->to, err);
    return rc;
}

int
main(int argc, char **argv)
{
    struct strata_error err = {""};
    struct copy c;

    memset(&c, 0, sizeof(c));
    if (argc != 3) {
        fprintf(stderr, "usage: copy SOURCE-SPEC TARGET-SPEC\n");
        return 2;
    }
    if (open_all(&c, argv[1], argv[2], &err) < 0) {
        fprintf(stderr, "copy: %s\n", err.text);
        c.failed = 1;
    } else if (strata_disk_size(c.to) < strata_disk_size(c.from)) {
        fprintf(stderr, "copy: %s: smaller than %s\n", argv[2], argv[1]);
        c.failed = 1;
    } else {
        c.size = strata_disk_size(c.from);
        copy(&c);
    }
    if (!c.failed)
        printf("%llu bytes copied, %llu zeroed\n", (unsigned long long)c.copied,
               (unsigned long long)c.zeroed);
    /* Each accepts NULL, and closes nothing that is in use. */
    strata_disk_close(c.from);
    strata_disk_close(c.to);
    strata_queue_destroy(c.queue);
    strata_close(c.s);
    return c.failed;
}
