/* SPDX-License-Identifier: MIT
 *
 * What the files of the conformance kit share.
 *
 *   kit.c        runs checks, and the helpers below
 *   kit_wall.c   ranges, lengths, read-only, what is not performed
 *   kit_data.c   what is written is what is read, and nothing else
 *   kit_life.c   many at once, cancel, quiesce, resize, channels, counters
 *   kit_layer.c  presence
 *
 * A check gets a fresh node, with or without a disk above. Every request of
 * every check is watched: it may not complete inside submit, nor twice, and
 * must come back with its fields as they were passed.
 */
#ifndef ST_KIT_PRIVATE_H
#define ST_KIT_PRIVATE_H

#include "kit.h"
#include "rand.h"

enum {
    KIT_NODE = 1,     /* no disk above: chan is the node's own */
    KIT_WRITABLE = 2, /* skip when read-only */
    KIT_LAYER = 4,    /* skip when not a layer */
};

/* A check that runs, with what it works on. */
struct kit {
    const struct st_kit *conf;
    struct st_loop *loop;
    struct st_node *node;
    struct st_disk *disk; /* NULL for KIT_NODE */
    struct st_chan *chan;
    uint32_t sector;
    uint64_t size;
    uint8_t *model;      /* what the disk must read as; SIZE bytes */
    struct st_list reqs; /* kit_req.link */
    struct st_rand rand;
    bool failed, skipped;
    char detail[200];
};

/* A request of a check, watched from submit to done. */
struct kit_req {
    struct st_list link;
    struct kit *k;
    struct st_req *req; /* owned; buf points at iov unless changed */
    struct iovec *iov;  /* owned: one segment, MEM */
    uint8_t *mem;       /* owned: page-aligned, LEN (compare: twice) bytes */
    unsigned completed; /* times; 1 when all is well */
    bool under_way, in_submit, finished;
    /* What was passed. */
    uint64_t offset, len;
    struct st_buf buf;
    uint8_t op, flags;
    uint16_t nexus;
};

/* One check; a table of them ends with a NULL name. */
struct kit_check {
    const char *name;
    unsigned needs; /* KIT_ */
    void (*run)(struct kit *k);
};

extern const struct kit_check kit_wall[], kit_data[], kit_life[], kit_layer[];

/* Record the first failure, or a reason to skip; the check then returns. */
void kit_fail(struct kit *k, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void kit_skip(struct kit *k, const char *why);

#define KIT_CHECK(k, cond, ...)                                                \
    do {                                                                       \
        if (!(cond))                                                           \
            kit_fail(k, __VA_ARGS__);                                          \
        if ((k)->failed)                                                       \
            return;                                                            \
    } while (0)

/* A request with memory of its own, freed after the check. */
struct kit_req *kit_req(struct kit *k, enum st_op op, uint64_t offset,
                        uint64_t len);
void kit_req_free(struct kit_req *r); /* before; not when under way */
void kit_start(struct kit_req *r);
enum st_status kit_wait(struct kit_req *r);
static inline enum st_status
kit_run(struct kit_req *r)
{
    kit_start(r);
    return kit_wait(r);
}
void kit_wait_all(struct kit *k);
void kit_turns(struct kit *k, unsigned n); /* let others run */

/* Does what is tested (disk or node) perform OP? */
bool kit_performs(const struct kit *k, enum st_op op);

/* Fill LEN bytes at P from the check's own seed. */
void kit_random(struct kit *k, void *p, size_t len);

/* One operation without data, to its end. */
enum st_status kit_op(struct kit *k, enum st_op op, unsigned flags,
                      uint64_t offset, uint64_t len);
/* Write random bytes, to the model too. */
enum st_status kit_write(struct kit *k, uint64_t offset, uint64_t len,
                         unsigned flags);
/* Fill the whole disk with random bytes. */
void kit_fill(struct kit *k);
/* Read OFFSET..LEN, or everything, and compare it with the model. */
void kit_verify_at(struct kit *k, uint64_t offset, uint64_t len);
void kit_verify(struct kit *k);

#endif
