/* SPDX-License-Identifier: MIT
 *
 * Fault; see fault.h.
 *
 *   submit -> rule? -- none ------------------------> the child
 *               |                                      ^
 *               +-- delay -> delayed, earliest first --+--> or its error
 *               +-- hang --> hung, until release ------+
 *
 * The table of rules is replaced whole: requests that wait have copied what
 * they need into their frame.
 */
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "fault_rules.h"

enum {
    DUE, /* the words of our frame; of one that hangs: HANGS */
    STATUS,
    RULES_TEXT = 1 << 16, /* bytes of a rules file, at most */
};
#define HANGS UINT64_MAX

struct fault {
    struct st_node base;                    /* first */
    _Atomic(struct st_fault_rules *) rules; /* owned; freed by st_defer */
    pthread_mutex_t lock; /* guards chans, and rules against inspect */
    struct st_list chans; /* fault_chan.link */
    _Atomic unsigned nhung;
};

struct fault_chan {
    struct st_chan base;          /* first */
    struct st_chan *inner;        /* owned */
    struct st_list delayed, hung; /* st_req.link */
    struct st_timer timer;        /* for the first delayed */
    struct st_list link;
    struct st_task release; /* on its way while posted */
    _Atomic bool posted;
    bool closed; /* the release task frees us */
};

static struct st_req *
fault_req(struct st_list *link)
{
    return st_container(link, struct st_req, link);
}

static void
fault_count_hung(struct st_chan *chan, int by)
{
    struct fault *f = (struct fault *)chan->node;

    atomic_fetch_add(&f->nhung, (unsigned)by);
}

static uint64_t
fault_due(struct st_list *link)
{
    return fault_req(link)->top[-1].u[DUE];
}

static void
fault_done(struct st_chan *chan, struct st_req *req)
{
    (void)chan;
    st_complete(req);
}

static void
fault_submit(struct st_chan *chan, struct st_req *req)
{
    struct fault_chan *c = (struct fault_chan *)chan;
    struct fault *f = (struct fault *)chan->node;
    const struct st_fault_rule *r = st_fault_rules_match(
        atomic_load_explicit(&f->rules, memory_order_acquire), req);
    enum st_status status;
    struct st_frame *frame;
    struct st_list *at = &c->hung;

    if (!r) {
        st_submit(c->inner, req);
        return;
    }
    status = st_status_from_errno(r->error, ST_BIT(req->op) & ST_OPS_MODIFY);
    if (!r->hang && !r->delay_ns) {
        st_finish(chan->loop, req, status);
        return;
    }
    frame = st_push(req, fault_done, chan);
    frame->u[DUE] = r->hang ? HANGS : chan->loop->now + r->delay_ns;
    frame->u[STATUS] = status;
    if (r->hang) {
        fault_count_hung(chan, 1);
    } else {
        at = &c->delayed;
        while (at->prev != &c->delayed && fault_due(at->prev) > frame->u[DUE])
            at = at->prev;
    }
    st_list_append(at, &req->link);
    if (!r->hang)
        st_timer_set(chan->loop, &c->timer, fault_due(c->delayed.next));
}

/* A request has waited long enough. */
static void
fault_go_on(struct fault_chan *c, struct st_list *e)
{
    struct st_req *req = fault_req(e);
    enum st_status status = (enum st_status)req->top[-1].u[STATUS];

    st_list_remove(e);
    if (status)
        st_finish(c->base.loop, req, status);
    else
        st_submit(c->inner, req);
}

static void
fault_fire(struct st_timer *t)
{
    struct fault_chan *c = st_container(t, struct fault_chan, timer);
    struct st_list *e;

    while ((e = st_list_first(&c->delayed)) &&
           fault_due(e) <= c->base.loop->now)
        fault_go_on(c, e);
    if (e)
        st_timer_set(c->base.loop, t, fault_due(e));
}

static void
fault_cancel(struct st_chan *chan, struct st_req *req)
{
    if (req->top[-1].u[DUE] == HANGS)
        fault_count_hung(chan, -1);
    st_list_remove(&req->link);
    st_finish(chan->loop, req, ST_ABORTED);
}

static void
fault_release(struct st_task *t)
{
    struct fault_chan *c = st_container(t, struct fault_chan, release);
    struct st_list *e;

    if (c->closed) {
        free(c);
        return;
    }
    atomic_store(&c->posted, false);
    while ((e = st_list_first(&c->hung))) {
        fault_count_hung(&c->base, -1);
        fault_go_on(c, e);
    }
}

void
st_fault_release(struct st_node *n)
{
    struct fault *f = (struct fault *)n;

    pthread_mutex_lock(&f->lock);
    st_list_for(c, next, &f->chans, struct fault_chan, link)
    {
        if (!atomic_exchange(&c->posted, true))
            st_post(c->base.loop, &c->release);
    }
    pthread_mutex_unlock(&f->lock);
}

static void
fault_close_chan(struct st_chan *chan)
{
    struct fault_chan *c = (struct fault_chan *)chan;
    struct fault *f = (struct fault *)chan->node;

    pthread_mutex_lock(&f->lock);
    st_list_remove(&c->link);
    pthread_mutex_unlock(&f->lock);
    st_timer_stop(chan->loop, &c->timer);
    st_chan_close(c->inner);
    c->closed = true;
    if (!atomic_load(&c->posted))
        free(c);
}

static int
fault_open_chan(struct st_node *n, struct st_loop *l, struct st_chan **out)
{
    struct fault_chan *c = calloc(1, sizeof(*c));
    struct fault *f = (struct fault *)n;
    int rc = c ? st_chan_open(n->child[0], l, &c->inner) : -ENOMEM;

    if (rc) {
        free(c);
        return rc;
    }
    st_chan_init(&c->base, n, l, fault_submit);
    st_list_init(&c->delayed);
    st_list_init(&c->hung);
    c->timer.fire = fault_fire;
    c->release.run = fault_release;
    pthread_mutex_lock(&f->lock);
    st_list_append(&f->chans, &c->link);
    pthread_mutex_unlock(&f->lock);
    *out = &c->base;
    return 0;
}

static void
fault_inspect(struct st_node *n, struct st_inspect *v)
{
    struct fault *f = (struct fault *)n;
    struct st_fault_rules *rules;

    v->u64(v, "hung", atomic_load(&f->nhung));
    pthread_mutex_lock(&f->lock);
    rules = atomic_load(&f->rules);
    for (unsigned i = 0; i < rules->n; i++) {
        char name[32];

        snprintf(name, sizeof(name), "rules/%u/text", i);
        v->text(v, name, rules->rule[i].text);
        snprintf(name, sizeof(name), "rules/%u/matched", i);
        v->u64(v, name, atomic_load(&rules->rule[i].matched));
        snprintf(name, sizeof(name), "rules/%u/fired", i);
        v->u64(v, name, atomic_load(&rules->rule[i].fired));
    }
    pthread_mutex_unlock(&f->lock);
}

static void
fault_close(struct st_node *n)
{
    struct fault *f = (struct fault *)n;

    free(atomic_load(&f->rules));
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void
rules_free(struct st_deferred *d)
{
    free(st_container(d, struct st_fault_rules, deferred));
}

int
st_fault_load(struct st_node *n, const char *name, const char *text,
              struct st_err *err)
{
    struct fault *f = (struct fault *)n;
    struct st_fault_rules *rules;
    int rc = st_fault_rules_parse(name, text, &rules, err);

    if (rc)
        return rc;
    pthread_mutex_lock(&f->lock);
    rules = atomic_exchange(&f->rules, rules);
    pthread_mutex_unlock(&f->lock);
    st_defer(n->home, &rules->deferred, rules_free);
    return 0;
}

/* "rules": all of them, one a line. A text and not a file's name: a set must
 * not block, and whoever sets can read the file. "hung": 0 lets all go. */
static int
fault_set(struct st_node *n, const char *name, const char *value,
          struct st_err *err)
{
    if (strncmp(name, "rules/", 6) == 0)
        return st_err_set(err, EACCES,
                          "%s cannot be set, only all rules at once: rules",
                          name);
    if (strcmp(name, "hung") == 0) {
        if (strcmp(value, "0") != 0)
            return st_err_set(err, EINVAL,
                              "hung: '%.80s' cannot be set, only 0, which lets "
                              "go of those that hang",
                              value);
        st_fault_release(n);
        return 0;
    }
    if (strcmp(name, "rules") != 0)
        return st_err_set(err, ENOENT, "%s has no value '%.80s'", n->label,
                          name);
    if (strlen(value) > RULES_TEXT)
        return st_err_set(err, EINVAL, "rules: not a text of at most %d bytes",
                          RULES_TEXT);
    return st_fault_load(n, name, value, err);
}

static const struct st_node_ops fault_ops = {
    .name = "fault",
    .transparent = true,
    .open_chan = fault_open_chan,
    .close_chan = fault_close_chan,
    .cancel = fault_cancel,
    .inspect = fault_inspect,
    .set = fault_set,
    .close = fault_close,
};

/* The text of a rules file (given). */
static int
read_rules(const char *path, char **out, struct st_err *err)
{
    st_autofree char *text = calloc(1, RULES_TEXT + 1);
    st_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    if (!text)
        return st_err_set(err, ENOMEM, "%s: no memory", path);
    if (fd >= 0)
        n = read(fd, text, RULES_TEXT + 1);
    if (n < 0)
        return st_err_set(err, errno, "%s: %s", path, st_strerror(-errno));
    if (n > RULES_TEXT || strlen(text) < (size_t)n)
        return st_err_set(err, EINVAL, "%s: not a text of at most %d bytes",
                          path, RULES_TEXT);
    *out = st_steal(text);
    return 0;
}

int
st_fault_create(struct st_loop *home, const char *path, const char *label,
                struct st_node **out, struct st_err *err)
{
    st_autofree char *text = NULL;
    struct st_fault_rules *rules = NULL;
    struct fault *f;
    int rc = path ? read_rules(path, &text, err) : 0;

    if (rc == 0)
        rc = st_fault_rules_parse(path ? path : label, text ? text : "", &rules,
                                  err);
    if (rc)
        return rc;
    f = calloc(1, sizeof(*f));
    if (!f) {
        free(rules);
        return st_err_set(err, ENOMEM, "%s: no memory", label);
    }
    st_node_init(&f->base, &fault_ops, home, label);
    atomic_init(&f->rules, rules);
    pthread_mutex_init(&f->lock, NULL);
    st_list_init(&f->chans);
    *out = &f->base;
    return 0;
}
