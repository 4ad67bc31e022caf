/* SPDX-License-Identifier: MIT
 *
 * Edits: one queue, strictly serial, each with a deadline; see graph.h.
 *
 *   st_graph_do --> waiting --> current --> done
 *                     |            |
 *        its deadline, abandon,    its deadline: done(-ETIMEDOUT) now, and the
 *        a stop: not carried out   op goes on without it (graph_private.h)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph_private.h"

#define DEADLINE (30 * GRAPH_S)

/* ---- The end of an edit ---- */

static void
drop_texts(struct st_graph_edit *e)
{
    for (unsigned i = 0; i < ST_VERB_ARGS; i++) {
        free(e->text[i]);
        e->text[i] = NULL;
    }
}

void
graph_end(struct st_graph_edit *e, int rc)
{
    struct st_graph *g = e->graph;
    char *answer = e->answer; /* E may be gone behind done */

    st_timer_stop(g->control, &e->timer);
    drop_texts(e);
    g->edits++;
    g->failed += rc < 0;
    if (rc < 0 && !e->err.text[0])
        st_err_set(&e->err, -rc, "%s: %s", e->verb->name, st_strerror(rc));
    if (g->current == e) {
        g->current = NULL;
        graph_kick(g);
    }
    if (e->freed)
        e->freed(e);
    else
        e->done(e, rc);
    free(answer);
}

void
graph_fail(struct st_graph_edit *e, int errnum, const char *fmt, ...)
{
    char text[sizeof(e->err.text)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    graph_end(e, st_err_set(&e->err, errnum, "%s", text));
}

/* ---- What an edit does ---- */

struct graph_op *
graph_op_new(struct st_graph_edit *e, struct graph_disk *d, const char *late)
{
    struct graph_op *op = calloc(1, sizeof(*op));

    if (!op) {
        graph_end(e, -ENOMEM);
        return NULL;
    }
    op->graph = e->graph;
    op->e = e;
    op->disk = d;
    op->late = late;
    memcpy(op->text, e->text, sizeof(op->text));
    memset(e->text, 0, sizeof(e->text));
    e->job = op;
    e->graph->nops++;
    return op;
}

void
graph_op_end(struct graph_op *op, int rc)
{
    struct st_graph_edit *e = op->e;
    struct st_graph *g = op->graph;

    /* One that never came to its disk may have outlived it. */
    if (op->has_disk && op->disk && op->disk->late == op)
        op->disk->late = NULL;
    if (e) {
        e->err = op->err;
        e->answer = op->answer;
        op->answer = NULL;
        e->job = NULL;
    }
    g->nops--;
    for (unsigned i = 0; i < ST_VERB_ARGS; i++)
        free(op->text[i]);
    st_attach_free(&op->attach);
    free(op->answer);
    free(op->blob);
    free(op);
    if (e)
        graph_end(e, rc);
    else
        graph_kick(g);
}

uint64_t
graph_left_ns(const struct st_graph_edit *e)
{
    uint64_t now = e->graph->control->now;

    return e->timer.at > now ? e->timer.at - now : 1;
}

void
graph_op_at_disk(struct graph_op *op)
{
    struct st_graph_edit *e = op->e;

    op->has_disk = true;
    if (e->timer.at < UINT64_MAX - GRAPH_S)
        st_timer_set(op->graph->control, &e->timer, e->timer.at + GRAPH_S);
}

/* ---- Deadlines ---- */

static void
edit_timeout(struct st_timer *t)
{
    struct st_graph_edit *e = st_container(t, struct st_graph_edit, timer);
    double seconds = (double)e->timeout_ns / (double)GRAPH_S;
    struct st_graph *g = e->graph;
    struct graph_op *op = e->job;

    if (g->current != e) {
        st_list_remove(&e->link);
        g->nwaiting--;
        graph_fail(e, ETIMEDOUT,
                   "%s: did not get its turn within %g s, edits before it take "
                   "long",
                   e->verb->name, seconds);
        return;
    }
    assert(op); /* a verb without one ends at once */
    op->e = NULL;
    e->job = NULL;
    if (op->has_disk)
        op->disk->late = op;
    graph_fail(e, ETIMEDOUT, "%s: not done within %g s, %s", e->verb->name,
               seconds, op->late);
}

/* ---- The queue ---- */

void
graph_kick(struct st_graph *g)
{
    if (g->turning)
        return;
    g->turning = true;
    st_ready(g->control, &g->turn);
}

/* Has E what its verb wants? */
static bool
is_complete(struct st_graph_edit *e)
{
    const struct st_verb *v = e->verb;

    for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i]; i++) {
        char kind = st_verb_arg_kind(v->arg[i]);

        if (!e->text[i] && kind != ST_VERB_OPTIONAL &&
            kind != ST_VERB_FILE_ANSWER) {
            graph_fail(e, EINVAL, "%s: '%s' is missing, expected %s", v->name,
                       st_verb_arg_name(v->arg[i]), v->syntax);
            return false;
        }
    }
    return true;
}

static void
edit_start(struct st_graph *g, struct st_graph_edit *e)
{
    st_list_remove(&e->link);
    g->nwaiting--;
    g->current = e;
    if (e->rc < 0)
        graph_end(e, e->rc);
    else if (is_complete(e))
        e->verb->start(e);
}

/* Nobody gets a turn any more; who asks from now on, later. */
static void
refuse_all(struct st_graph *g)
{
    struct st_list all;

    st_list_init(&all);
    st_list_splice(&all, &g->waiting);
    while (!st_list_empty(&all)) {
        struct st_graph_edit *e =
            st_container(st_list_first(&all), struct st_graph_edit, link);

        st_list_remove(&e->link);
        g->nwaiting--;
        graph_fail(e, ESHUTDOWN, "%s: strata is being stopped", e->verb->name);
    }
}

void
graph_turn(struct st_task *t)
{
    struct st_graph *g = st_container(t, struct st_graph, turn);

    g->turning = false;
    if (g->stop) {
        refuse_all(g);
        graph_stop_step(g);
    } else if (!g->current && g->nwaiting) {
        edit_start(g, st_container(st_list_first(&g->waiting),
                                   struct st_graph_edit, link));
    }
}

void
st_graph_do(struct st_graph *g, const struct st_verb *verb,
            const char *const arg[ST_VERB_ARGS], struct st_graph_edit *e)
{
    bool more = true;
    uint64_t at;

    e->graph = g;
    e->verb = verb;
    e->job = NULL;
    e->freed = NULL;
    e->answer = NULL;
    e->rc = 0;
    e->err.text[0] = 0;
    for (unsigned i = 0; i < ST_VERB_ARGS; i++) {
        more = more && verb->arg[i];
        e->text[i] = more && arg[i] ? strdup(arg[i]) : NULL;
        if (more && arg[i] && !e->text[i])
            e->rc = -ENOMEM;
    }
    if (!e->timeout_ns)
        e->timeout_ns = DEADLINE;
    if (__builtin_add_overflow(g->control->now, e->timeout_ns, &at))
        at = UINT64_MAX;
    e->timer.slot = 0;
    e->timer.fire = edit_timeout;
    st_timer_set(g->control, &e->timer, at);
    st_list_append(&g->waiting, &e->link);
    g->nwaiting++;
    graph_kick(g);
}

/* ---- Abandon ---- */

static void
tell_freed(struct st_task *t)
{
    struct st_graph_edit *e = st_container(t, struct st_graph_edit, task);

    e->freed(e);
}

void
st_graph_abandon(struct st_graph_edit *e,
                 void (*freed)(struct st_graph_edit *e))
{
    struct st_graph *g = e->graph;

    e->freed = freed;
    if (g->current == e)
        return; /* graph_end calls it */
    st_list_remove(&e->link);
    g->nwaiting--;
    st_timer_stop(g->control, &e->timer);
    drop_texts(e);
    e->task.run = tell_freed;
    st_ready(g->control, &e->task);
}
