/* SPDX-License-Identifier: MIT
 *
 * A graph for tests: a control loop, two I/O loops, a door "nbd", and a kind of
 * disk whose every behaviour is a knob: "test:TEXT" (disk/kit/testnode.h); its
 * opening can be held up, which is what a dead file server does.
 */
#ifndef ST_TEST_GRAPH_RIG_H
#define ST_TEST_GRAPH_RIG_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph_private.h"
#include "testnode.h"

enum { LOOPS = 2 };
#define MIB (UINT64_C(1) << 20)
#define MS  UINT64_C(1000000)

/* A node's table, to hear when it is closed. */
struct rig_ops {
    struct st_node_ops ops;
    void (*close)(struct st_node *n);
};

struct rig {
    struct st_domain *domain;
    struct st_loop *control, *loop[LOOPS];
    struct st_graph *graph;
    struct st_kind_more kind;
    pthread_mutex_t lock; /* guards node and hold */
    pthread_cond_t turn;
    struct st_node *node; /* made last */
    bool hold, held;      /* make waits; it does */
    unsigned quits;
    struct st_err err;    /* of the last edit */
    char answer[1 << 16]; /* the same */
    bool stopped;
    int rc; /* of the stop */
};

/* How many disks of the kind test there are. */
static atomic_int rig_live;
static pthread_t rig_closer; /* who closed the last one */

static inline void
rig_node_close(struct st_node *n)
{
    struct rig_ops *o = st_container((uintptr_t)n->ops, struct rig_ops, ops);
    void (*close_node)(struct st_node * n) = o->close;

    rig_closer = pthread_self();
    atomic_fetch_sub(&rig_live, 1);
    free(o);
    close_node(n);
}

/* Count N until it is closed. */
static inline void
rig_count(struct st_node *n)
{
    struct rig_ops *o = calloc(1, sizeof(*o));

    o->ops = *n->ops;
    o->close = o->ops.close;
    o->ops.close = rig_node_close;
    n->ops = &o->ops;
    atomic_fetch_add(&rig_live, 1);
}

static inline int
rig_make(struct st_kind_more *k, struct st_loop *home, const char *text,
         bool read_only, const char *label, struct st_node **out,
         struct st_err *err)
{
    struct rig *r = st_container(k, struct rig, kind);
    const struct st_testnode_opts o = {.size = MIB, .read_only = read_only};
    int rc;

    (void)label;
    pthread_mutex_lock(&r->lock);
    while (r->hold) {
        r->held = true;
        pthread_cond_broadcast(&r->turn);
        pthread_cond_wait(&r->turn, &r->lock);
    }
    rc = strcmp(text, "bad") == 0
             ? st_err_set(err, EIO, "test:bad: no such luck")
             : st_testnode_create(home, &o, out, err);
    if (rc == 0) {
        r->node = *out;
        rig_count(*out);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* Let no disk of the kind test be opened, or go on. */
static inline void
rig_hold(struct rig *r, bool hold)
{
    pthread_mutex_lock(&r->lock);
    r->hold = hold;
    r->held = false;
    pthread_cond_broadcast(&r->turn);
    pthread_mutex_unlock(&r->lock);
}

static inline void
rig_quit(void *arg)
{
    ((struct rig *)arg)->quits++;
}

static inline struct rig *
rig_open(const char *engine, uint64_t seed)
{
    const struct st_domain_opts d = {.engine = engine, .seed = seed};
    const struct st_nbd_opts nbd = {.nloops = 0};
    struct rig *r = calloc(1, sizeof(*r));
    struct st_graph_opts g = {.quit = rig_quit, .arg = r};

    assert_non_null(r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->turn, NULL);
    assert_int_equal(st_domain_create(&d, &r->domain, NULL), 0);
    assert_int_equal(st_loop_create(r->domain, &r->control, NULL), 0);
    for (unsigned i = 0; i < LOOPS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "io-%u", i);
        assert_int_equal(st_loop_create(r->domain, &r->loop[i], NULL), 0);
        assert_int_equal(st_loop_start(r->loop[i], name), 0);
    }
    g.control = r->control;
    g.loops = r->loop;
    g.nloops = LOOPS;
    assert_int_equal(st_graph_create(&g, &r->graph, NULL), 0);
    assert_int_equal(st_graph_add_nbd(r->graph, "nbd", &nbd, NULL), 0);
    r->kind.name = "test";
    r->kind.make = rig_make;
    assert_int_equal(st_stack_env_add(r->graph->env, &r->kind, NULL), 0);
    return r;
}

static inline void
rig_stopped(void *arg, int rc)
{
    struct rig *r = arg;

    assert_false(r->stopped);
    r->stopped = true;
    r->rc = rc;
}

/* Stop the graph as it is now; gives DONE's rc. */
static inline int
rig_stop(struct rig *r)
{
    st_graph_stop(r->graph, 10 * GRAPH_S, rig_stopped, r);
    assert_true(st_loop_wait(r->control, &r->stopped));
    return r->rc;
}

/* The end, stopped or not. */
static inline void
rig_close(struct rig *r)
{
    if (!r->stopped)
        assert_int_equal(rig_stop(r), 0);
    while (st_domain_step(r->domain))
        ;
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_join(r->loop[i]);
    st_graph_destroy(r->graph);
    assert_int_equal(atomic_load(&rig_live), 0);
    while (st_domain_step(r->domain))
        ;
    for (unsigned i = 0; i < LOOPS; i++)
        st_loop_destroy(r->loop[i]);
    st_loop_destroy(r->control);
    st_domain_destroy(r->domain);
    pthread_cond_destroy(&r->turn);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* ---- Edits ---- */

struct edit {
    struct st_graph_edit e;
    struct rig *rig;
    bool done, freed;
    int rc;
};

static inline void
edit_done(struct st_graph_edit *e, int rc)
{
    struct edit *x = st_container(e, struct edit, e);

    assert_false(x->done || x->freed);
    x->done = true;
    x->rc = rc;
    x->rig->err = e->err;
    snprintf(x->rig->answer, sizeof(x->rig->answer), "%s",
             e->answer ? e->answer : "");
}

static inline void
edit_start(struct rig *r, struct edit *x, uint64_t timeout_ns, const char *verb,
           const char *a, const char *b, const char *c, const char *d)
{
    const char *const arg[ST_VERB_ARGS] = {a, b, c, d};
    const struct st_verb *v = st_graph_verb(verb);

    assert_non_null(v);
    *x = (struct edit){.rig = r,
                       .e = {.done = edit_done, .timeout_ns = timeout_ns}};
    st_graph_do(r->graph, v, arg, &x->e);
    assert_false(x->done);
}

static inline int
edit_wait(struct edit *x)
{
    assert_true(st_loop_wait(x->rig->control, &x->done));
    return x->rc;
}

/* X's deadline comes now: a machine that is slow cannot be late for it. */
static inline void
edit_expire(struct edit *x)
{
    st_timer_set(x->rig->control, &x->e.timer, x->rig->control->now);
}

/* One edit, to its end: its rc; the sentence is in r->err. */
static inline int
edit4(struct rig *r, const char *verb, const char *a, const char *b,
      const char *c, const char *d)
{
    struct edit x;

    edit_start(r, &x, 0, verb, a, b, c, d);
    return edit_wait(&x);
}

static inline int
edit(struct rig *r, const char *verb, const char *a, const char *b)
{
    return edit4(r, verb, a, b, NULL, NULL);
}

#define must(r, ...)                                                           \
    do {                                                                       \
        if (edit(r, __VA_ARGS__) != 0)                                         \
            fail_msg("%s", (r)->err.text);                                     \
    } while (0)

/* The edit fails with RC and a sentence that has SAYS in it. */
static inline void
refused4(struct rig *r, int rc, const char *says, const char *verb,
         const char *a, const char *b, const char *c, const char *d)
{
    int got = edit4(r, verb, a, b, c, d);

    if (got != rc || (got && !strstr(r->err.text, says)))
        fail_msg("%s %s %s: %d '%s', expected %d '%s'", verb, a ? a : "",
                 b ? b : "", got, got ? r->err.text : "", rc, says);
}

static inline void
refused(struct rig *r, int rc, const char *says, const char *verb,
        const char *a, const char *b)
{
    refused4(r, rc, says, verb, a, b, NULL, NULL);
}

/* ---- What is there ---- */

static inline const struct st_graph_disk *
disk(struct rig *r, const char *name)
{
    const struct st_graph_disk *d = st_graph_find_disk(r->graph, name);

    assert_non_null(d);
    return d;
}

/* "delay(ram)": the disk's tree. */
static inline void
shape(const struct st_node *n, char *buf, size_t size)
{
    size_t len = strlen(buf);

    snprintf(buf + len, size - len, "%s", n->ops->name);
    for (unsigned i = 0; i < n->nchild; i++) {
        len = strlen(buf);
        snprintf(buf + len, size - len, "%s", i ? "," : "(");
        shape(n->child[i], buf, size);
    }
    len = strlen(buf);
    snprintf(buf + len, size - len, "%s", n->nchild ? ")" : "");
}

static inline void
has_shape(struct rig *r, const char *disk, const char *want)
{
    const struct st_graph_disk *d = st_graph_find_disk(r->graph, disk);
    char got[200] = "";

    assert_non_null(d);
    shape(st_disk_node(d->disk), got, sizeof(got));
    assert_string_equal(got, want);
}

/* "a b": the names of all disks, leaving ones in brackets. */
static inline void
has_disks(struct rig *r, const char *want)
{
    const struct st_graph_disk *d = NULL;
    char got[400] = "";

    while ((d = st_graph_next_disk(r->graph, d))) {
        size_t len = strlen(got);

        snprintf(got + len, sizeof(got) - len, d->leaving ? "%s[%s]" : "%s%s",
                 len ? " " : "", d->name);
    }
    assert_string_equal(got, want);
}

/* ---- A write of the first sector, past all doors ---- */

struct io {
    struct st_chan *chan;
    struct st_req *req;
    struct iovec iov;
    bool done;
};

static inline void
io_done(struct st_req *req)
{
    ((struct io *)req->owner)->done = true;
}

static inline void
io_write(struct rig *r, struct io *io, const char *name)
{
    unsigned frames = st_disk_frames(disk(r, name)->disk);

    assert_int_equal(
        st_disk_open_chan(disk(r, name)->disk, r->control, &io->chan), 0);
    io->done = false;
    io->iov = (struct iovec){calloc(1, 512), 512};
    io->req = malloc(st_req_size(frames));
    st_req_init(io->req, frames, io_done, io);
    io->req->op = ST_OP_WRITE;
    io->req->offset = 0;
    io->req->len = 512;
    io->req->buf = (struct st_buf){&io->iov, 0};
    st_submit(io->chan, io->req);
}

static inline enum st_status
io_end(struct rig *r, struct io *io)
{
    enum st_status status;

    assert_true(st_loop_wait(r->control, &io->done));
    status = (enum st_status)io->req->status;
    st_disk_close_chan(io->chan);
    free(io->req);
    free(io->iov.iov_base);
    return status;
}

#endif
