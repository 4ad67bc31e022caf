/* SPDX-License-Identifier: MIT
 *
 * An NBD server for tests, with a disk of plain memory, on loops that the test
 * turns: all of it happens in one thread, in the same order each time.
 *
 *   client[i] ==socketpair== server --> disk "d" --> testnode
 *                            exports: "" and, read-only, "ro"
 */
#ifndef ST_TEST_SERVER_H
#define ST_TEST_SERVER_H

#include <stdio.h>
#include <unistd.h>

#include "nbd.h"
#include "rand.h"
#include "test_client.h"
#include "testnode.h"

enum { SIZE = 4 << 20, MANY = 40, LOOPS = 3 };

struct fixture {
    struct st_domain *domain;
    struct st_loop *loop[LOOPS]; /* the first is control, too */
    unsigned nloops;
    unsigned patience; /* turns until the test fails; 0: any number */
    struct st_node *node;
    struct st_disk *disk;
    struct st_nbd *nbd;
    unsigned ended;
    bool stopped;
    int rc;
    struct client client[MANY]; /* client[0] exists */
    struct st_log log;          /* the last line, how many, and all of them */
    char line[512], lines[1 << 16];
    unsigned nlines;
    uint8_t *buf, *want; /* SIZE bytes each */
};

struct flag_task {
    struct st_task task;
    bool done;
};

static inline void
raise_flag(struct st_task *t)
{
    st_container(t, struct flag_task, task)->done = true;
}

/* One turn of each loop. */
static inline void
turn(void *arg)
{
    struct fixture *f = arg;

    if (f->patience && --f->patience == 0)
        fail_msg("what the test waits for does not happen");
    for (unsigned i = 0; i < f->nloops; i++) {
        struct flag_task t = {.task.run = raise_flag};

        st_ready(f->loop[i], &t.task);
        st_loop_wait(f->loop[i], &t.done);
    }
}

static inline void
turns(struct fixture *f, unsigned n)
{
    while (n--)
        turn(f);
}

static inline void
on_ended(void *arg)
{
    ((struct fixture *)arg)->ended++;
}

static inline void
on_stopped(void *arg, int rc)
{
    struct fixture *f = arg;

    f->stopped = true;
    f->rc = rc;
}

static inline struct client *
connect_client(struct fixture *f, unsigned i)
{
    struct client *c = &f->client[i];
    struct st_err err;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    *c = (struct client){.fd = fd[0], .turn = turn, .arg = f};
    assert_int_equal(st_nbd_connection(f->nbd, fd[1], on_ended, f, &err), 0);
    return c;
}

static inline void
on_log(void *arg, enum st_level level, const char *line)
{
    struct fixture *f = arg;
    size_t n = strlen(f->lines);

    (void)level;
    f->nlines++;
    snprintf(f->line, sizeof(f->line), "%s", line);
    snprintf(f->lines + n, sizeof(f->lines) - n, "%s\n", line);
}

static inline void
hang_up(struct client *c)
{
    if (c->fd > 0)
        close(c->fd);
    c->fd = 0;
}

/* OPTS: its handshake_ns, nloops and what is about TLS. */
static inline int
setup_opts(void **state, struct st_testnode_opts o, struct st_nbd_opts opts)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct st_domain_opts d = {.log = &f->log};
    unsigned nloops = opts.nloops;
    struct st_err err;

    o.size = o.size ? o.size : SIZE;
    f->buf = malloc(SIZE);
    f->want = malloc(SIZE);
    f->log = (struct st_log){ST_LOG_WARN, on_log, f};
    assert_int_equal(st_domain_create(&d, &f->domain, &err), 0);
    for (; f->nloops < nloops; f->nloops++)
        assert_int_equal(st_loop_create(f->domain, &f->loop[f->nloops], &err),
                         0);
    assert_int_equal(st_testnode_create(f->loop[0], &o, &f->node, &err), 0);
    assert_int_equal(
        st_disk_create(f->loop[0], f->node, "d", false, &f->disk, &err), 0);
    opts.control = f->loop[0];
    opts.loops = f->loop;
    assert_int_equal(st_nbd_create(&opts, &f->nbd, &err), 0);
    assert_int_equal(st_nbd_export(f->nbd, "", "a disk", f->disk, false, &err),
                     0);
    assert_int_equal(st_nbd_export(f->nbd, "ro", NULL, f->disk, true, &err), 0);
    connect_client(f, 0);
    *state = f;
    return 0;
}

static inline int
setup_with(void **state, struct st_testnode_opts o, uint64_t timeout,
           unsigned nloops)
{
    return setup_opts(
        state, o,
        (struct st_nbd_opts){.handshake_ns = timeout, .nloops = nloops});
}

static inline int
setup(void **state)
{
    return setup_with(state,
                      (struct st_testnode_opts){
                          .fua = true,
                          .fast_zero = true,
                          .unmap = ST_UNMAP_ZEROES,
                      },
                      0, 1);
}

static inline int
teardown(void **state)
{
    struct fixture *f = *state;
    struct st_caps *caps = st_domain_caps(f->domain);

    st_testnode_hang(f->node, false);
    for (unsigned i = 0; i < MANY; i++)
        hang_up(&f->client[i]);
    if (!f->stopped)
        st_nbd_stop(f->nbd, 0, on_stopped, f);
    while (!f->stopped)
        turn(f);
    st_nbd_destroy(f->nbd);
    assert_null(st_testnode_complaint(f->node));
    assert_int_equal(caps->row[ST_CAP_NBD_MEMORY].used, 0);
    assert_int_equal(caps->row[ST_CAP_NBD_CLIENTS].used, 0);
    st_disk_destroy(f->disk);
    turns(f, 3);
    for (unsigned i = 0; i < f->nloops; i++)
        st_loop_destroy(f->loop[i]);
    st_domain_destroy(f->domain);
    free(f->buf);
    free(f->want);
    free(f);
    return 0;
}

static inline void
fill(uint8_t *p, size_t n, uint64_t seed)
{
    struct st_rand r = st_rand_seed(seed);

    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)st_rand_next(&r);
}

#endif
