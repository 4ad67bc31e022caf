/* SPDX-License-Identifier: MIT
 *
 * Random edits by eight clients at once, each with one under way, that
 * contradict each other on purpose. A model knows what each must give, and how
 * the graph must look whenever all have ended: names, specs, order, sizes,
 * policies, pauses, nodes from the top down, exports.
 *
 *   test_graph_model [SEED [EDITS]]     one run on virtual loops
 *   test_graph_model                    a few of them, then one with threads
 *
 * Edits are carried out in the order of st_graph_do, so the model makes each
 * there, and only the answer comes later.
 */
#include "test_rig.h"

#include <semaphore.h>

#include "rand.h"

enum {
    CLIENTS = 8,
    EDITS = 1000,
    ROUND = 50, /* edits between two looks at the whole */
    DISKS = 16,
};

/* ---- The words of clients ---- */

/* A decorator: what it is when it opens, and its group's limit. */
struct word {
    const char *text;
    int rc;
    const char *kind;
    unsigned group; /* limit in group g; 0: in none */
};

static const struct word decorators[] = {
    {"delay:0", 0, "delay", 0},
    {"delay:1;read=0", 0, "delay", 0},
    {"throttle:5000000", 0, "throttle", 0},
    {"throttle:1000000;group=g", 0, "throttle", 1000000},
    {"throttle:2000000;group=g", 0, "throttle", 2000000},
    {"throttle:0", -EINVAL, NULL, 0},
    {"mem:1M", -EINVAL, NULL, 0},
    {"delay:0:mem:1M", -EINVAL, NULL, 0},
    {"fault:/no/such", -ENOENT, NULL, 0},
};

static const struct {
    const char *text;
    int rc;
    const struct word *on_top; /* or NULL */
    const char *base;
    unsigned depth;
} specs[] = {
    {"mem:1M", 0, NULL, "ram", 1},
    {"memdiff:mem:1M", 0, NULL, "layered", 2},
    {"delay:0:mem:1M", 0, &decorators[0], "ram", 1},
    {"throttle:1000000;group=g:mem:1M", 0, &decorators[3], "ram", 1},
    {"throttle:2000000;group=g:mem:1M", 0, &decorators[4], "ram", 1},
    {"nonsense:1", -EINVAL, NULL, NULL, 0},
    {"mem:0", -EINVAL, NULL, NULL, 0},
    {"/no/such", -ENOENT, NULL, NULL, 0},
};

static const char *const names[] = {"a", "b", "c", "", "disk0", "disk1"};
static const char *const kinds[] = {"delay", "throttle", "fault", "ram"};
static const struct {
    const char *text;
    uint64_t bytes; /* 0: wrong in itself */
} sizes[] = {
    {"512", 512},    {"64K", 64 << 10}, {"768K", 768 << 10},
    {"1M", 1 << 20}, {"1000", 0},       {"1.5K", 0},
};
static const char *const policies[] = {"report", "stop", "retry", "halt"};

#define OF(list) (sizeof(list) / sizeof(list[0]))

/* ---- The model ---- */

struct model_disk {
    const char *name, *export, *spec; /* of the tables; name may be in number */
    char number[16];
    bool read_only, paused;
    uint64_t size;
    enum st_policy policy;
    const struct word *on_top[ST_DEPTH_MAX]; /* the last one is the topmost */
    unsigned n;
    const char *base;
    unsigned depth; /* of what lies below */
};

struct model {
    struct model_disk disk[DISKS]; /* in the order they came */
    unsigned n;
    unsigned quits;
};

static struct model_disk *
model_find(struct model *m, const char *name)
{
    for (unsigned i = 0; i < m->n; i++)
        if (strcmp(m->disk[i].name, name) == 0)
            return &m->disk[i];
    return NULL;
}

/* May a throttle with LIMIT join group g? */
static bool
model_joins(const struct model *m, unsigned limit)
{
    for (unsigned i = 0; limit && i < m->n; i++)
        for (unsigned k = 0; k < m->disk[i].n; k++)
            if (m->disk[i].on_top[k]->group)
                return m->disk[i].on_top[k]->group == limit;
    return true;
}

static int
model_add(struct model *m, const char *export, unsigned spec, const char *ro)
{
    struct model_disk d = {.name = export,
                           .export = export,
                           .spec = specs[spec].text,
                           .size = MIB,
                           .base = specs[spec].base,
                           .depth = specs[spec].depth};

    if (ro && strcmp(ro, "maybe") == 0)
        return -EINVAL;
    for (unsigned i = 0; i < m->n; i++)
        if (strcmp(m->disk[i].export, export) == 0)
            return -EEXIST;
    for (unsigned i = 0; !*d.name; i++) {
        snprintf(d.number, sizeof(d.number), "disk%u", i);
        if (!model_find(m, d.number))
            d.name = d.number;
    }
    if (model_find(m, d.name))
        return -EEXIST;
    if (specs[spec].rc)
        return specs[spec].rc;
    if (specs[spec].on_top) {
        if (!model_joins(m, specs[spec].on_top->group))
            return -EINVAL;
        d.on_top[d.n++] = specs[spec].on_top;
    }
    d.read_only = ro && strcmp(ro, "on") == 0;
    assert_true(m->n < DISKS);
    m->disk[m->n] = d;
    if (d.name != export)
        m->disk[m->n].name = m->disk[m->n].number;
    m->n++;
    return 0;
}

static int
model_remove(struct model *m, const char *export)
{
    for (unsigned i = 0; i < m->n; i++) {
        if (strcmp(m->disk[i].export, export) != 0)
            continue;
        m->n--;
        for (; i < m->n; i++) {
            m->disk[i] = m->disk[i + 1];
            if (!*m->disk[i].export)
                m->disk[i].name = m->disk[i].number;
        }
        return 0;
    }
    return -ENOENT;
}

static int
model_insert(const struct model *m, struct model_disk *d, const struct word *w)
{
    if (w->rc)
        return w->rc;
    if (!model_joins(m, w->group))
        return -EINVAL;
    if (d->n + d->depth >= ST_DEPTH_MAX)
        return -E2BIG;
    d->on_top[d->n++] = w;
    return 0;
}

static int
model_take_out(struct model_disk *d, const char *kind)
{
    unsigned i = d->n;

    while (i && strcmp(d->on_top[i - 1]->kind, kind) != 0)
        i--;
    if (!i)
        return -ENOENT;
    for (; i < d->n; i++)
        d->on_top[i - 1] = d->on_top[i];
    d->n--;
    return 0;
}

static int
model_resize(struct model_disk *d, unsigned size)
{
    if (!sizes[size].bytes)
        return -EINVAL;
    if (d->read_only)
        return -EROFS;
    d->size = sizes[size].bytes;
    return 0;
}

static int
model_policy(struct model_disk *d, unsigned policy)
{
    if (policy > ST_POLICY_RETRY)
        return -EINVAL;
    d->policy = (enum st_policy)policy;
    return 0;
}

/* ---- Random edits ---- */

struct world {
    struct rig *rig;
    struct model model;
    unsigned left, under_way; /* edits of this round */
    unsigned count, refused;
    bool idle;
};

struct client {
    struct st_graph_edit e;
    struct world *world;
    struct st_rand rand;
    int want;
    char what[120];
    char path[64];
    /* With threads. */
    pthread_t thread;
    struct st_task task;
    sem_t answered;
    bool more;
};

static unsigned
pick(struct client *c, size_t n)
{
    return (unsigned)st_rand_below(&c->rand, n);
}

/* Choose what C asks for next, and let the model do it. */
static const struct st_verb *
choose(struct client *c, const char *arg[ST_VERB_ARGS])
{
    static const char *const ros[] = {NULL, NULL, "off", "on", "maybe"};
    static const char *const values[] = {"size", "policy", "reads", "none"};
    struct model *m = &c->world->model;
    struct model_disk *d;
    const char *verb;
    unsigned i;

    arg[0] = names[pick(c, OF(names))];
    if (m->n && pick(c, 4)) /* mostly something that is there, */
        arg[0] = m->disk[pick(c, m->n)].name;
    d = model_find(m, arg[0]);
    c->want = d ? 0 : -ENOENT;
    /* which may be gone, paused, resized, ... before its turn has come. */
    switch (pick(c, 16)) {
    case 0:
    case 1:
    case 2:
        verb = "add-export";
        arg[0] = names[pick(c, OF(names))];
        i = pick(c, OF(specs));
        arg[1] = specs[i].text;
        arg[2] = ros[pick(c, OF(ros))];
        c->want = model_add(m, arg[0], i, arg[2]);
        break;
    case 3:
        verb = "remove-export";
        arg[0] = d ? d->export : arg[0];
        c->want = model_remove(m, arg[0]);
        break;
    case 4:
    case 5:
    case 6:
        verb = "insert";
        i = pick(c, OF(decorators));
        arg[1] = decorators[i].text;
        if (d)
            c->want = model_insert(m, d, &decorators[i]);
        break;
    case 7:
    case 8:
        verb = "remove";
        arg[1] = kinds[pick(c, OF(kinds))];
        if (d)
            c->want = model_take_out(d, arg[1]);
        break;
    case 9:
        verb = "pause";
        if (d && d->paused)
            c->want = -EBUSY;
        else if (d)
            d->paused = true;
        break;
    case 10:
    case 11:
        verb = "resume";
        if (d && !d->paused)
            c->want = -EBUSY;
        else if (d)
            d->paused = false;
        break;
    case 12:
        verb = "policy";
        i = pick(c, OF(policies));
        arg[1] = policies[i];
        if (d)
            c->want = model_policy(d, i);
        break;
    case 13:
        verb = "quit";
        c->want = 0;
        m->quits++;
        break;
    case 14: {
        unsigned value = pick(c, OF(values));

        verb = "set";
        snprintf(c->path, sizeof(c->path), "disks/%s/%s", arg[0],
                 values[value]);
        arg[0] = c->path;
        i = pick(c, value == 1 ? OF(policies) : OF(sizes));
        arg[1] = value == 1 ? policies[i] : sizes[i].text;
        if (d)
            c->want = value == 0   ? model_resize(d, i)
                      : value == 1 ? model_policy(d, i)
                      : value == 2 ? -EACCES
                                   : -ENOENT;
        break;
    }
    default:
        verb = "resize";
        i = pick(c, OF(sizes));
        arg[1] = sizes[i].text;
        if (d)
            c->want = model_resize(d, i);
        break;
    }
    snprintf(c->what, sizeof(c->what), "edit %u: %s '%s' '%s' '%s'",
             c->world->count, verb, arg[0], arg[1] ? arg[1] : "",
             arg[2] ? arg[2] : "");
    return st_graph_verb(verb);
}

static void
client_ask(struct client *c, void (*done)(struct st_graph_edit *e, int rc))
{
    const char *arg[ST_VERB_ARGS] = {NULL};
    const struct st_verb *v = choose(c, arg);

    c->world->count++;
    c->e = (struct st_graph_edit){.done = done};
    st_graph_do(c->world->rig->graph, v, arg, &c->e);
}

static void
client_check(struct client *c, int rc)
{
    if (rc != c->want)
        fail_msg("%s: %d (%s), the model says %d", c->what, rc,
                 rc ? c->e.err.text : "", c->want);
    c->world->refused += rc < 0;
}

/* ---- Does the graph look as the model says? ---- */

static void
compare_disk(const struct st_graph_disk *got, const struct model_disk *want)
{
    const struct st_node *n = st_disk_node(got->disk);

    assert_string_equal(got->name, want->name);
    assert_string_equal(got->spec, want->spec);
    assert_int_equal(got->read_only, want->read_only);
    assert_int_equal(got->paused, want->paused);
    assert_false(got->leaving);
    assert_int_equal(st_disk_size(got->disk), want->size);
    assert_int_equal(st_node_size(n), want->size);
    assert_int_equal(st_disk_policy(got->disk), want->policy);
    for (unsigned i = want->n; i-- > 0; n = n->child[0]) {
        assert_string_equal(n->ops->name, want->on_top[i]->kind);
        assert_int_equal(n->nchild, 1);
        /* A SPEC's label ends where its disk begins, so it is the same. */
        assert_string_equal(n->label, want->on_top[i]->text);
    }
    assert_string_equal(n->ops->name, want->base);
}

struct exports {
    struct st_inspect v;
    struct model *model;
    unsigned depth, n;
    bool inside;
};

static void
exports_enter(struct st_inspect *v, const char *name)
{
    struct exports *x = st_container(v, struct exports, v);

    if (x->inside && x->depth == 1) {
        assert_true(x->n < x->model->n);
        assert_string_equal(name, x->model->disk[x->n++].export);
    }
    if (x->depth++ == 0)
        x->inside = strcmp(name, "exports") == 0;
}

static void
exports_leave(struct st_inspect *v)
{
    st_container(v, struct exports, v)->depth--;
}

static void
ignore_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    (void)v;
    (void)name;
    (void)value;
}

static void
ignore_text(struct st_inspect *v, const char *name, const char *value)
{
    (void)v;
    (void)name;
    (void)value;
}

static void
compare(struct world *w)
{
    struct st_graph *g = w->rig->graph;
    const struct st_graph_disk *d = NULL;
    struct exports x = {.v = {.u64 = ignore_u64,
                              .text = ignore_text,
                              .enter = exports_enter,
                              .leave = exports_leave},
                        .model = &w->model};
    unsigned n = 0;

    while ((d = st_graph_next_disk(g, d))) {
        assert_true(n < w->model.n);
        compare_disk(d, &w->model.disk[n++]);
    }
    assert_int_equal(n, w->model.n);
    st_nbd_inspect(st_graph_next_door(g, NULL)->nbd, &x.v);
    assert_int_equal(x.n, w->model.n);
    assert_int_equal(w->rig->quits, w->model.quits);
    assert_int_equal(g->nops + g->nwaiting, 0);
}

/* ---- On virtual loops ---- */

static void
virtual_done(struct st_graph_edit *e, int rc)
{
    struct client *c = st_container(e, struct client, e);
    struct world *w = c->world;

    client_check(c, rc);
    if (w->left) {
        w->left--;
        client_ask(c, virtual_done);
    } else {
        w->idle = --w->under_way == 0;
    }
}

static void
run_virtual(uint64_t seed, unsigned edits)
{
    struct world w = {.rig = rig_open("virtual", seed)};
    struct client c[CLIENTS];

    for (unsigned i = 0; i < CLIENTS; i++)
        c[i] = (struct client){.world = &w,
                               .rand = st_rand_seed(seed * CLIENTS + i)};
    while (edits) {
        unsigned now = edits < ROUND ? edits : ROUND;

        edits -= now;
        w.left = now;
        w.idle = false;
        for (unsigned i = 0; i < CLIENTS && w.left; i++) {
            w.left--;
            w.under_way++;
            client_ask(&c[i], virtual_done);
        }
        assert_true(st_loop_wait(w.rig->control, &w.idle));
        compare(&w);
    }
    printf("seed %ju: %u edits, %u of them refused, %u disks left\n",
           (uintmax_t)seed, w.count, w.refused, w.model.n);
    rig_close(w.rig);
}

static void
edits_leave_what_the_model_says(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++)
        run_virtual(seed, EDITS);
}

/* ---- With threads ---- */

static void
threads_done(struct st_graph_edit *e, int rc)
{
    struct client *c = st_container(e, struct client, e);

    client_check(c, rc);
    sem_post(&c->answered);
}

/* A message: C's thread wants to edit, if there is something left to do. */
static void
client_turn(struct st_task *t)
{
    struct client *c = st_container(t, struct client, task);
    struct world *w = c->world;

    c->more = w->left > 0;
    if (c->more) {
        w->left--;
        client_ask(c, threads_done);
        return;
    }
    w->idle = --w->under_way == 0;
    sem_post(&c->answered);
}

static void *
client_main(void *arg)
{
    struct client *c = arg;

    do {
        st_post(c->world->rig->control, &c->task);
        sem_wait(&c->answered);
    } while (c->more);
    return NULL;
}

static void
threads_leave_what_the_model_says(void **state)
{
    struct world w = {.rig = rig_open("threads", 1), .left = EDITS};
    struct client c[CLIENTS];

    (void)state;
    w.under_way = CLIENTS;
    for (unsigned i = 0; i < CLIENTS; i++) {
        c[i] = (struct client){
            .world = &w, .rand = st_rand_seed(i), .task.run = client_turn};
        sem_init(&c[i].answered, 0, 0);
        assert_int_equal(pthread_create(&c[i].thread, NULL, client_main, &c[i]),
                         0);
    }
    assert_true(st_loop_wait(w.rig->control, &w.idle));
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(c[i].thread, NULL);
        sem_destroy(&c[i].answered);
    }
    assert_int_equal(w.count, EDITS);
    compare(&w);
    printf("threads: %u edits, %u of them refused, %u disks left\n", w.count,
           w.refused, w.model.n);
    rig_close(w.rig);
}

static uint64_t one_seed;
static unsigned one_edits = EDITS;

static void
one_run(void **state)
{
    (void)state;
    run_virtual(one_seed, one_edits);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(edits_leave_what_the_model_says),
        cmocka_unit_test(threads_leave_what_the_model_says),
    };
    const struct CMUnitTest one[] = {cmocka_unit_test(one_run)};

    if (argc == 1)
        return cmocka_run_group_tests(all, NULL, NULL);
    one_seed = strtoull(argv[1], NULL, 10);
    if (argc > 2)
        one_edits = (unsigned)strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(one, NULL, NULL);
}
