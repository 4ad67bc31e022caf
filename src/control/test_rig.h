/* SPDX-License-Identifier: MIT
 *
 * What the tests of the control socket share: a control socket on a loop of its
 * own thread, above a graph that does as it is told, and an HTTP client.
 *
 * The fake graph has real disks and a real door, and these verbs:
 *
 *   set PATH VALUE   notes both, done at once
 *   note A [B]       notes both, done at once
 *   file A B C       the same; C is the answer's, base64 of "ABC"
 *   fail ERRNO       ends with that, and a sentence
 *   hang             until rig_let_go, or it is abandoned
 */
#ifndef TEST_RIG_H
#define TEST_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control_private.h"

enum { RIG_DISKS = 4 };

struct st_graph {
    struct st_loop *loop;
    struct st_graph_disk disk[RIG_DISKS];
    unsigned ndisks;
    struct st_graph_door door;
    unsigned ndoors;
    struct st_graph_controller controller;
    unsigned ncontrollers;
    /* What verbs noted; read on the loop, or when an answer has come. */
    char first[4096], second[4096];
    unsigned done, abandoned;
    struct st_graph_edit *hanging;
};

struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_graph graph;
    struct st_control *control;
    struct sockaddr_un address;
    uint64_t slow_ns;
    bool hanging; /* a look at graph.hanging */
    sem_t over;
};

/* ---- The graph ---- */

static inline void
fake_end(struct st_task *t)
{
    struct st_graph_edit *e = st_container(t, struct st_graph_edit, task);
    int rc = (int)(intptr_t)e->job;
    char *answer = e->answer;

    e->graph->done++;
    if (rc < 0)
        st_err_set(&e->err, -rc, "it said %s", e->text[0]);
    for (unsigned i = 0; i < ST_VERB_ARGS; i++)
        free(e->text[i]);
    e->done(e, rc);
    free(answer);
}

static inline void
fake_note(struct st_graph_edit *e)
{
    snprintf(e->graph->first, sizeof(e->graph->first), "%s",
             e->text[0] ? e->text[0] : "(none)");
    snprintf(e->graph->second, sizeof(e->graph->second), "%s",
             e->text[1] ? e->text[1] : "(none)");
    st_ready(e->graph->loop, &e->task);
}

static inline void
fake_file(struct st_graph_edit *e)
{
    e->answer = strdup("QUJD");
    fake_note(e);
}

static inline void
fake_fail(struct st_graph_edit *e)
{
    e->job = (void *)(intptr_t)-atoi(e->text[0]);
    st_ready(e->graph->loop, &e->task);
}

static inline void
fake_hang(struct st_graph_edit *e)
{
    e->graph->hanging = e;
}

static const struct st_verb fake_verbs[] = {
    {"set", "PATH VALUE", "set a value", {"path", "value"}, fake_note},
    {"note", "A [B]", "note both", {"a", "?b"}, fake_note},
    {"file",
     "A B C",
     "note two files, answer with one",
     {"<a", "@b", ">c"},
     fake_file},
    {"fail", "ERRNO", "end with it", {"errno"}, fake_fail},
    {"hang", "", "never end", {NULL}, fake_hang},
    {NULL, NULL, NULL, {NULL}, NULL},
};

const struct st_verb *
st_graph_verbs(void)
{
    return fake_verbs;
}

const struct st_verb *
st_graph_verb(const char *name)
{
    for (const struct st_verb *v = fake_verbs; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}

void
st_graph_do(struct st_graph *g, const struct st_verb *verb,
            const char *const arg[ST_VERB_ARGS], struct st_graph_edit *e)
{
    e->graph = g;
    e->verb = verb;
    e->task.run = fake_end;
    for (unsigned i = 0; i < ST_VERB_ARGS; i++)
        e->text[i] = arg[i] ? strdup(arg[i]) : NULL;
    verb->start(e);
}

static inline void
fake_freed(struct st_task *t)
{
    struct st_graph_edit *e = st_container(t, struct st_graph_edit, task);
    void (*freed)(struct st_graph_edit *) =
        (void (*)(struct st_graph_edit *))e->job;

    freed(e);
}

void
st_graph_abandon(struct st_graph_edit *e,
                 void (*freed)(struct st_graph_edit *e))
{
    struct st_graph *g = e->graph;

    assert_ptr_equal(e, g->hanging);
    g->hanging = NULL;
    g->abandoned++;
    e->job = (void *)freed;
    e->task.run = fake_freed;
    st_ready(g->loop, &e->task);
}

struct st_loop *
st_graph_control(const struct st_graph *g)
{
    return g->loop;
}

const struct st_graph_disk *
st_graph_next_disk(struct st_graph *g, const struct st_graph_disk *prev)
{
    unsigned i = prev ? (unsigned)(prev - g->disk) + 1 : 0;

    return i < g->ndisks ? &g->disk[i] : NULL;
}

const struct st_graph_disk *
st_graph_find_disk(struct st_graph *g, const char *name)
{
    for (unsigned i = 0; i < g->ndisks; i++)
        if (!g->disk[i].leaving && strcmp(g->disk[i].name, name) == 0)
            return &g->disk[i];
    return NULL;
}

const struct st_graph_door *
st_graph_next_door(struct st_graph *g, const struct st_graph_door *prev)
{
    return prev || !g->ndoors ? NULL : &g->door;
}

const struct st_graph_controller *
st_graph_next_controller(struct st_graph *g,
                         const struct st_graph_controller *prev)
{
    return prev || !g->ncontrollers ? NULL : &g->controller;
}

void
st_graph_controller_inspect(const struct st_graph_controller *c,
                            struct st_inspect *v)
{
    v->text(v, "kind", c->kind);
    v->enter(v, "vfio-user");
    v->u64(v, "connected", 1);
    v->leave(v);
    v->u64(v, "commands", 7);
}

struct st_machine *
st_graph_machine(const struct st_graph *g)
{
    (void)g;
    return NULL;
}

void
st_graph_machine_inspect(struct st_graph *g, struct st_inspect *v)
{
    (void)g;
    (void)v;
}

void
st_graph_inspect(struct st_graph *g, struct st_inspect *v)
{
    v->u64(v, "edits_done", g->done);
    v->u64(v, "edits_waiting", g->hanging != NULL);
}

/* ---- The rig ---- */

struct rig_call {
    struct st_task task;
    void (*fn)(struct rig *r);
    struct rig *rig;
    sem_t done;
};

static inline void
rig_called(struct st_task *t)
{
    struct rig_call *c = st_container(t, struct rig_call, task);

    c->fn(c->rig);
    sem_post(&c->done);
}

/* Run FN on the loop's thread, and wait for it. */
static inline void
rig_on_loop(struct rig *r, void (*fn)(struct rig *r))
{
    struct rig_call c = {.task.run = rig_called, .fn = fn, .rig = r};

    sem_init(&c.done, 0, 0);
    st_post(r->loop, &c.task);
    while (sem_wait(&c.done) < 0)
        assert_int_equal(errno, EINTR);
    sem_destroy(&c.done);
}

static inline void
rig_add(struct rig *r, const char *name, const char *spec)
{
    struct st_graph_disk *d = &r->graph.disk[r->graph.ndisks];
    struct st_stack_env *env = st_stack_env_create();
    struct st_node *n;
    struct st_err err;

    assert_int_equal(st_stack_open(r->loop, env, spec, false, &n, &err), 0);
    *d = (struct st_graph_disk){.name = name, .spec = spec};
    assert_int_equal(st_disk_create(r->loop, n, name, false, &d->disk, &err),
                     0);
    st_stack_env_destroy(env);
    r->graph.ndisks++;
}

static inline void
rig_create(struct rig *r)
{
    struct st_nbd_opts o = {.control = r->loop, .loops = &r->loop, .nloops = 1};
    struct st_control_opts c = {.graph = &r->graph,
                                .fd = socket(AF_UNIX, SOCK_STREAM, 0),
                                .allowed_uid = (uid_t)-1,
                                .version = "1.2.3",
                                .slow_ns = r->slow_ns};
    struct st_err err;

    r->graph.loop = r->loop;
    rig_add(r, "a", "delay:7:memdiff:mem:1M");
    rig_add(r, "b \"\\/\n", "mem:4M");
    assert_int_equal(st_nbd_create(&o, &r->graph.door.nbd, &err), 0);
    r->graph.door.name = "nbd";
    r->graph.door.kind = "nbd";
    r->graph.ndoors = 1;
    r->graph.controller.name = "nvme0";
    r->graph.controller.kind = "nvme";
    r->graph.ncontrollers = 1;
    assert_int_equal(st_nbd_export(r->graph.door.nbd, "", "",
                                   r->graph.disk[0].disk, false, &err),
                     0);
    assert_int_equal(st_nbd_export(r->graph.door.nbd, "e/\"1", "",
                                   r->graph.disk[1].disk, true, &err),
                     0);
    unlink(r->address.sun_path);
    assert_int_equal(
        bind(c.fd, (struct sockaddr *)&r->address, sizeof(r->address)), 0);
    assert_int_equal(listen(c.fd, 128), 0);
    assert_int_equal(st_control_create(&c, &r->control, &err), 0);
}

static inline void
rig_over(void *arg)
{
    struct rig *r = arg;

    sem_post(&r->over);
}

static inline void
rig_over_rc(void *arg, int rc)
{
    (void)rc;
    rig_over(arg);
}

static inline void
rig_destroy_control(struct rig *r)
{
    st_control_destroy(r->control, rig_over, r);
    r->control = NULL;
}

static inline void
rig_stop_door(struct rig *r)
{
    st_nbd_stop(r->graph.door.nbd, 0, rig_over_rc, r);
}

static inline void
rig_destroy_rest(struct rig *r)
{
    st_nbd_destroy(r->graph.door.nbd);
    for (unsigned i = 0; i < r->graph.ndisks; i++)
        st_disk_destroy(r->graph.disk[i].disk);
}

static inline void
rig_wait_over(struct rig *r)
{
    while (sem_wait(&r->over) < 0)
        assert_int_equal(errno, EINTR);
}

static inline void
rig_start(struct rig *r, uint64_t slow_ns)
{
    const struct st_domain_opts d = {.engine = "threads"};
    struct st_err err;

    memset(r, 0, sizeof(*r));
    r->slow_ns = slow_ns;
    sem_init(&r->over, 0, 0);
    r->address.sun_family = AF_UNIX;
    snprintf(r->address.sun_path, sizeof(r->address.sun_path),
             "/tmp/test_control.%d", (int)getpid());
    assert_int_equal(st_domain_create(&d, &r->domain, &err), 0);
    assert_int_equal(st_loop_create(r->domain, &r->loop, &err), 0);
    assert_int_equal(st_loop_start(r->loop, "control"), 0);
    rig_on_loop(r, rig_create);
}

static inline void
rig_stop(struct rig *r)
{
    if (r->control) {
        rig_on_loop(r, rig_destroy_control);
        rig_wait_over(r);
    }
    rig_on_loop(r, rig_stop_door);
    rig_wait_over(r);
    rig_on_loop(r, rig_destroy_rest);
    st_loop_join(r->loop);
    st_loop_destroy(r->loop);
    for (unsigned i = 0; i < ST_CAP_COUNT; i++)
        if (i != ST_CAP_WORKERS)
            assert_int_equal(st_domain_caps(r->domain)->row[i].used, 0);
    st_domain_destroy(r->domain);
    unlink(r->address.sun_path);
    sem_destroy(&r->over);
}

/* ---- The client ---- */

static inline int
rig_connect(struct rig *r)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    while (connect(fd, (struct sockaddr *)&r->address, sizeof(r->address)) < 0)
        assert_int_equal(errno, EINTR);
    return fd;
}

static inline void
rig_send(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return; /* it was cut off, as it may be */
        text += n;
        len -= (size_t)n;
    }
}

static inline void
rig_say(int fd, const char *text)
{
    rig_send(fd, text, strlen(text));
}

struct answer {
    int status;      /* 0: the connection ended before */
    char head[2048]; /* header lines */
    char body[512 << 10];
    size_t len;
};

/* One byte after the other, so that nothing of a next answer is taken. */
static inline bool
rig_byte(int fd, char *c)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, 30000), 1);
    return read(fd, c, 1) == 1;
}

static inline const char *
rig_header(const struct answer *a, const char *name)
{
    const char *p = strcasestr(a->head, name);

    return p ? p + strlen(name) : NULL;
}

static inline void
rig_read(int fd, struct answer *a, bool head_only)
{
    const char *length;
    size_t n = 0;

    memset(a, 0, sizeof(*a));
    while (n + 1 < sizeof(a->head) && rig_byte(fd, &a->head[n]))
        if (++n >= 4 && memcmp(a->head + n - 4, "\r\n\r\n", 4) == 0)
            break;
    if (n < 16 || sscanf(a->head, "HTTP/1.%*d %d", &a->status) != 1) {
        a->status = 0;
        return;
    }
    length = rig_header(a, "content-length:");
    a->len = length ? strtoul(length, NULL, 10) : 0;
    assert_true(a->len < sizeof(a->body));
    for (size_t i = 0; !head_only && i < a->len; i++)
        assert_true(rig_byte(fd, &a->body[i]));
}

/* A whole exchange on a connection of its own; HEADERS end with "\r\n" each. */
static inline int
rig_ask(struct rig *r, const char *line, const char *headers, const char *body,
        struct answer *a)
{
    st_autofree char *text = NULL;
    int fd = rig_connect(r);

    assert_true(asprintf(&text,
                         "%s HTTP/1.1\r\nHost: strata\r\n%s"
                         "Content-Length: %zu\r\n\r\n%s",
                         line, headers, body ? strlen(body) : 0,
                         body ? body : "") > 0);
    rig_send(fd, text, strlen(text));
    rig_read(fd, a, strncmp(line, "HEAD", 4) == 0);
    close(fd);
    return a->status;
}

/* ---- Short ways ---- */

static struct answer answer; /* large; one test at a time */

static inline void
sync_fn(struct rig *r)
{
    (void)r;
}

/* What the loop's thread wrote is ours to read. */
static inline void
sync_with(struct rig *r)
{
    rig_on_loop(r, sync_fn);
}

static inline void
assert_error(struct rig *r, const char *line, const char *headers,
             const char *body, int status, const char *sentence)
{
    json_t *o;
    const char *text;

    if (rig_ask(r, line, headers, body, &answer) != status)
        fail_msg("%s %s: %d, not %d: %s", line, body ? body : "", answer.status,
                 status, answer.body);
    o = json_loadb(answer.body, answer.len, 0, NULL);
    text = json_string_value(json_object_get(o, "error"));
    if (!text || !strstr(text, sentence))
        fail_msg("%s: '%s' does not say '%s'", line, answer.body, sentence);
    assert_int_equal(json_object_size(o), 1);
    json_decref(o);
}

#endif
