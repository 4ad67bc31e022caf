/* SPDX-License-Identifier: MIT
 *
 * Guest memory; see gmem.h.
 *
 * An unmap is a broadcast:
 *
 *   host:   new table -> published -> a message to every view
 *   view:   no use of the map here? answer : answer at the last put
 *   home:   all have answered, and nobody still reads an old table (st_defer)
 *           -> release -> done
 *
 * A view that handles the message has seen the new table since: it was
 * published first. Between begin and commit the new tables are drafts that
 * nobody sees, and the maps that leave wait with their messages. A request that
 * got from more maps than st_gmem_use has room for counts as a use of every
 * map.
 */
#include "gmem.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "range.h"
#include "stat.h"

struct gmap {
    struct st_gmem_map m;
    struct st_gmem *gmem;
    struct st_gmem_unmap *unmap; /* who waits */
    struct st_task task;         /* on home: all views have let go */
    struct st_deferred defer;
    struct gmap *next;     /* leaves with the next commit, too */
    _Atomic unsigned left; /* views that have not answered */
    struct leave *leave;   /* owned: a message for each view */
    struct use {
        _Alignas(64) uint64_t n;
    } use[ST_GMEM_VIEWS]; /* each its view's own */
};

/* The message that a map leaves, to one view. */
struct leave {
    struct st_task task;
    struct st_gmem_view *view;
    struct gmap *map;
    struct st_list link; /* view.leaving, while it is used there */
};

struct table {
    struct st_deferred defer;
    struct st_task task; /* to home, to be deferred */
    struct st_gmem *gmem;
    uint64_t number; /* no other one of this memory has it */
    size_t n;
    struct gmap *map[]; /* by gpa; disjoint */
};

struct st_gmem {
    struct st_loop *home;
    _Atomic(struct table *) table;
    struct table *draft; /* of a change that is not committed; or NULL */
    bool changing;       /* between begin and commit */
    struct gmap *leaving, **leaving_tail; /* with the commit */
    pthread_mutex_t mutex; /* views come and go; the host edits */
    struct st_gmem_view *view[ST_GMEM_VIEWS];
    _Atomic unsigned busy; /* messages, tables and maps on their way to home */
    uint64_t tables;       /* so many were made */
    st_counter maps, bytes;
    uint64_t refused, unreachable; /* of views that are closed */
};

struct st_gmem_view {
    struct st_gmem *gmem;
    struct st_loop *loop;
    unsigned index;
    uint64_t users;    /* that have not been put */
    uint64_t every;    /* of these, how many count for every map */
    uint64_t seen;     /* number of the table that */
    struct gmap *last; /* is from: where the last address was */
    st_counter refused, unreachable;
    struct st_list leaving;
    unsigned pending; /* messages to this view on their way */
    bool closed;
};

struct st_gmem *
st_gmem_create(struct st_loop *home)
{
    struct st_gmem *g = calloc(1, sizeof(*g));
    struct table *t = calloc(1, sizeof(*t));

    if (!g || !t) {
        free(g);
        free(t);
        return NULL;
    }
    t->gmem = g;
    g->home = home;
    pthread_mutex_init(&g->mutex, NULL);
    atomic_store(&g->table, t);
    return g;
}

static void
gmap_free(struct gmap *m)
{
    if (m->m.release)
        m->m.release(&m->m);
    free(m->leave);
    free(m);
}

void
st_gmem_destroy(struct st_gmem *g)
{
    struct table *t;

    if (!g)
        return;
    for (unsigned i = 0; i < ST_GMEM_VIEWS; i++)
        assert(!g->view[i]);
    assert(!atomic_load(&g->busy) && !g->changing);
    t = atomic_load(&g->table);
    for (size_t i = 0; i < t->n; i++)
        gmap_free(t->map[i]);
    free(t);
    pthread_mutex_destroy(&g->mutex);
    free(g);
}

/* ---- Tables ---- */

/* How many maps of T begin at or below GPA. */
static size_t
table_upto(const struct table *t, uint64_t gpa)
{
    size_t lo = 0, hi = t->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (t->map[mid]->m.gpa <= gpa)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static struct table *
table_new(struct st_gmem *g, size_t n)
{
    struct table *t = malloc(sizeof(*t) + n * sizeof(t->map[0]));

    if (t) {
        t->gmem = g;
        t->n = n;
        t->number = ++g->tables;
    }
    return t;
}

static void
table_free(struct st_deferred *d)
{
    struct table *t = st_container(d, struct table, defer);

    atomic_fetch_sub(&t->gmem->busy, 1);
    free(t);
}

static void
table_retired(struct st_task *task)
{
    struct table *t = st_container(task, struct table, task);

    st_defer(t->gmem->home, &t->defer, table_free);
}

/* OLD, in which nobody looks any more but who does it just now. It is gone once
 * home has turned, and home may be another thread. */
static void
table_retire(struct st_gmem *g, struct table *old)
{
    atomic_fetch_add(&g->busy, 1);
    old->task.run = table_retired;
    st_post(g->home, &old->task);
}

/* The table that an edit begins with. */
static struct table *
table_edited(const struct st_gmem *g)
{
    return g->draft ? g->draft : atomic_load(&g->table);
}

/* T replaces the one that was edited: as a draft, or for all to see. */
static void
table_publish(struct st_gmem *g, struct table *t)
{
    struct table *old;

    if (g->changing) {
        free(g->draft);
        g->draft = t;
        return;
    }
    old = atomic_exchange(&g->table, t);
    table_retire(g, old);
}

int
st_gmem_map(struct st_gmem *g, const struct st_gmem_map *m)
{
    struct table *old, *t = NULL;
    struct gmap *map = NULL;
    size_t at;
    int rc = 0;

    if (!m->len || (m->gpa | m->len) % ST_GMEM_PAGE ||
        m->gpa + m->len - 1 < m->gpa)
        return -EINVAL;
    pthread_mutex_lock(&g->mutex);
    old = table_edited(g);
    at = table_upto(old, m->gpa + (m->len - 1));
    if (at && old->map[at - 1]->m.gpa + (old->map[at - 1]->m.len - 1) >= m->gpa)
        rc = -EEXIST;
    else if (old->n == ST_GMEM_MAPS)
        rc = -ENOSPC;
    if (rc == 0) {
        t = table_new(g, old->n + 1);
        map = aligned_alloc(64, sizeof(*map));
        rc = t && map ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        memset(map, 0, sizeof(*map));
        map->m = *m;
        map->gmem = g;
        memcpy(t->map, old->map, at * sizeof(t->map[0]));
        t->map[at] = map;
        memcpy(t->map + at + 1, old->map + at,
               (old->n - at) * sizeof(t->map[0]));
        st_count(&g->maps, 1);
        st_count(&g->bytes, m->len);
        table_publish(g, t);
    } else {
        free(t);
        free(map);
    }
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

/* ---- Maps that leave ---- */

static void
unmap_done(struct st_task *task)
{
    struct st_gmem_unmap *u = st_container(task, struct st_gmem_unmap, task);

    atomic_fetch_sub(&u->gmem->busy, 1);
    u->done(u);
}

static void
unmap_less(struct st_gmem_unmap *u)
{
    if (atomic_fetch_sub(&u->left, 1) == 1) {
        u->task.run = unmap_done;
        st_post(u->gmem->home, &u->task);
    }
}

static void
gmap_gone(struct st_deferred *d)
{
    struct gmap *m = st_container(d, struct gmap, defer);
    struct st_gmem_unmap *u = m->unmap;
    struct st_gmem *g = m->gmem;

    gmap_free(m);
    unmap_less(u);
    atomic_fetch_sub(&g->busy, 1);
}

static void
gmap_unused(struct st_task *task)
{
    struct gmap *m = st_container(task, struct gmap, task);

    st_defer(m->gmem->home, &m->defer, gmap_gone);
}

static void
gmap_less(struct gmap *m)
{
    if (atomic_fetch_sub(&m->left, 1) == 1) {
        m->task.run = gmap_unused;
        st_post(m->gmem->home, &m->task);
    }
}

static void view_less(struct st_gmem_view *v);

/* A view hears that a map leaves. */
static void
leave_heard(struct st_task *task)
{
    struct leave *l = st_container(task, struct leave, task);
    struct st_gmem_view *v = l->view;

    if (l->map->use[v->index].n || v->every) {
        st_list_append(&v->leaving, &l->link);
        return;
    }
    gmap_less(l->map);
    view_less(v);
}

/* Uses of V have ended: answer for maps that waited for that. */
static void
view_answer(struct st_gmem_view *v)
{
    st_list_for(l, tmp, &v->leaving, struct leave, link)
    {
        if (l->map->use[v->index].n || v->every)
            continue;
        st_list_remove(&l->link);
        gmap_less(l->map);
        view_less(v);
    }
}

/* With the mutex: tell every view that M is in no table any more. The messages
 * were allocated before. */
static void
gmap_tell(struct st_gmem *g, struct gmap *m)
{
    unsigned n = 0;

    atomic_store(&m->left, 1);
    for (unsigned i = 0; i < ST_GMEM_VIEWS; i++) {
        struct leave *l = &m->leave[n];

        if (!g->view[i])
            continue;
        *l = (struct leave){{.run = leave_heard}, g->view[i], m, {0}};
        g->view[i]->pending++;
        atomic_fetch_add(&m->left, 1);
        st_post(l->view->loop, &l->task);
        n++;
    }
    gmap_less(m);
}

/* With the mutex: M leaves for U, now or with the commit. */
static void
gmap_leave(struct st_gmem *g, struct gmap *m, struct st_gmem_unmap *u)
{
    m->unmap = u;
    st_uncount(&g->maps, 1);
    st_uncount(&g->bytes, m->m.len);
    atomic_fetch_add(&u->left, 1);
    atomic_fetch_add(&g->busy, 1);
    if (!g->changing) {
        gmap_tell(g, m);
        return;
    }
    m->next = NULL;
    *g->leaving_tail = m;
    g->leaving_tail = &m->next;
}

/* With the mutex: room for the messages that tell every view of M; more of them
 * may come before a commit. */
static bool
gmap_prepare(struct st_gmem *g, struct gmap *m)
{
    size_t n = 1;

    for (unsigned i = 0; i < ST_GMEM_VIEWS; i++)
        n += g->changing || g->view[i] != NULL;
    free(m->leave);
    m->leave = malloc(n * sizeof(*m->leave));
    return m->leave != NULL;
}

static void
unmap_settled(struct st_deferred *d)
{
    struct st_gmem_unmap *u = st_container(d, struct st_gmem_unmap, defer);

    unmap_done(&u->task);
}

/* Nothing leaves, but old tables may still wait: after them. */
static void
unmap_settle(struct st_task *task)
{
    struct st_gmem_unmap *u = st_container(task, struct st_gmem_unmap, task);

    st_defer(u->gmem->home, &u->defer, unmap_settled);
}

static void
unmap_begin(struct st_gmem *g, struct st_gmem_unmap *u)
{
    u->gmem = g;
    atomic_store(&u->left, 1);
    atomic_fetch_add(&g->busy, 1);
}

int
st_gmem_unmap(struct st_gmem *g, uint64_t gpa, uint64_t len,
              struct st_gmem_unmap *u)
{
    struct table *old, *t;
    struct gmap *m;
    size_t at;
    int rc = 0;

    pthread_mutex_lock(&g->mutex);
    old = table_edited(g);
    at = table_upto(old, gpa);
    m = at ? old->map[at - 1] : NULL;
    if (!m || m->m.gpa != gpa || m->m.len != len) {
        rc = -ENOENT;
    } else if (!(t = table_new(g, old->n - 1)) || !gmap_prepare(g, m)) {
        free(t);
        rc = -ENOMEM;
    } else {
        memcpy(t->map, old->map, (at - 1) * sizeof(t->map[0]));
        memcpy(t->map + at - 1, old->map + at,
               (old->n - at) * sizeof(t->map[0]));
        unmap_begin(g, u);
        table_publish(g, t);
        gmap_leave(g, m, u);
        unmap_less(u);
    }
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

int
st_gmem_unmap_all(struct st_gmem *g, struct st_gmem_unmap *u)
{
    struct table *old, *t;
    int rc = 0;

    pthread_mutex_lock(&g->mutex);
    old = table_edited(g);
    if (!old->n) {
        unmap_begin(g, u);
        u->task.run = unmap_settle;
        st_post(g->home, &u->task);
        pthread_mutex_unlock(&g->mutex);
        return 0;
    }
    t = table_new(g, 0);
    for (size_t i = 0; t && rc == 0 && i < old->n; i++)
        rc = gmap_prepare(g, old->map[i]) ? 0 : -ENOMEM;
    if (!t || rc) {
        free(t);
        rc = -ENOMEM;
    } else {
        unmap_begin(g, u);
        if (!g->changing)
            atomic_store(&g->table, t);
        for (size_t i = 0; i < old->n; i++)
            gmap_leave(g, old->map[i], u);
        if (g->changing)
            table_publish(g, t);
        else
            table_retire(g, old);
        unmap_less(u);
    }
    pthread_mutex_unlock(&g->mutex);
    return rc;
}

void
st_gmem_begin(struct st_gmem *g)
{
    pthread_mutex_lock(&g->mutex);
    assert(!g->changing);
    g->changing = true;
    g->leaving = NULL;
    g->leaving_tail = &g->leaving;
    pthread_mutex_unlock(&g->mutex);
}

void
st_gmem_commit(struct st_gmem *g)
{
    struct table *t;
    struct gmap *m;

    pthread_mutex_lock(&g->mutex);
    assert(g->changing);
    g->changing = false;
    t = g->draft;
    g->draft = NULL;
    if (t)
        table_publish(g, t);
    while ((m = g->leaving)) {
        g->leaving = m->next; /* M may be gone at once */
        gmap_tell(g, m);
    }
    pthread_mutex_unlock(&g->mutex);
}

/* ---- Views ---- */

struct st_gmem_view *
st_gmem_open(struct st_gmem *g, struct st_loop *loop)
{
    struct st_gmem_view *v = calloc(1, sizeof(*v));
    unsigned i = 0;

    if (!v)
        return NULL;
    v->gmem = g;
    v->loop = loop;
    st_list_init(&v->leaving);
    pthread_mutex_lock(&g->mutex);
    while (i < ST_GMEM_VIEWS && g->view[i])
        i++;
    if (i < ST_GMEM_VIEWS) {
        v->index = i;
        g->view[i] = v;
    }
    pthread_mutex_unlock(&g->mutex);
    if (i == ST_GMEM_VIEWS) {
        free(v);
        return NULL;
    }
    return v;
}

/* A message to V has been answered. */
static void
view_less(struct st_gmem_view *v)
{
    struct st_gmem *g = v->gmem;
    bool last;

    pthread_mutex_lock(&g->mutex);
    last = --v->pending == 0 && v->closed;
    if (last) {
        g->view[v->index] = NULL;
        g->refused += st_counter_get(&v->refused);
        g->unreachable += st_counter_get(&v->unreachable);
    }
    pthread_mutex_unlock(&g->mutex);
    if (last)
        free(v);
}

void
st_gmem_close(struct st_gmem_view *v)
{
    if (!v)
        return;
    assert(!v->users && st_list_empty(&v->leaving));
    pthread_mutex_lock(&v->gmem->mutex);
    v->closed = true;
    v->pending++;
    pthread_mutex_unlock(&v->gmem->mutex);
    view_less(v);
}

/* The table of this moment; it and its maps stay until the task returns. A call
 * looks at one table only, or a part of what it checked could be gone. */
static const struct table *
view_table(const struct st_gmem_view *v)
{
    return atomic_load_explicit(&v->gmem->table, memory_order_acquire);
}

/* The map that holds GPA, or NULL. */
static struct gmap *
view_find(struct st_gmem_view *v, const struct table *t, uint64_t gpa)
{
    size_t at;

    if (t->number != v->seen) {
        v->seen = t->number;
        v->last = NULL;
    }
    if (v->last && gpa - v->last->m.gpa < v->last->m.len)
        return v->last;
    at = table_upto(t, gpa);
    if (!at || gpa - t->map[at - 1]->m.gpa >= t->map[at - 1]->m.len)
        return NULL;
    return v->last = t->map[at - 1];
}

/* The host address of GPA for access, and how much of LEN follows it; NULL
 * when there is none, which is counted. */
static uint8_t *
view_address(struct st_gmem_view *v, const struct table *t, uint64_t gpa,
             uint64_t *len, bool write, struct gmap **map)
{
    struct gmap *m = view_find(v, t, gpa);
    uint64_t skip;

    if (!m || (write && !m->m.writable)) {
        st_count(&v->refused, 1);
        return NULL;
    }
    if (!m->m.host) {
        st_count(&v->unreachable, 1);
        return NULL;
    }
    skip = gpa - m->m.gpa;
    *len = st_min(*len, m->m.len - skip);
    *map = m;
    return m->m.host + skip;
}

/* Count that M is used, once a request. */
static void
use_add(struct st_gmem_view *v, struct st_gmem_use *use, struct gmap *m)
{
    const unsigned room = sizeof(use->map) / sizeof(use->map[0]);

    v->users += !use->n;
    if (use->n > room)
        return; /* of every map already */
    for (unsigned i = 0; i < use->n; i++)
        if (use->map[i] == m)
            return;
    if (use->n < room) {
        use->map[use->n++] = m;
        m->use[v->index].n++;
        return;
    }
    v->every++;
    use->n++;
}

int
st_gmem_get(struct st_gmem_view *v, struct st_gmem_use *use, uint64_t gpa,
            uint64_t len, bool write, struct iovec *iov, unsigned *n,
            unsigned max)
{
    unsigned had = *n, i = *n;
    const struct table *t = view_table(v);
    size_t had_len = had ? iov[had - 1].iov_len : 0;
    int rc = 0;

    if (gpa + len < gpa)
        rc = -EFAULT;
    while (rc == 0 && len) {
        uint64_t part = len;
        struct gmap *m;
        uint8_t *p = view_address(v, t, gpa, &part, write, &m);

        if (!p) {
            rc = -EFAULT;
        } else if (i &&
                   (uint8_t *)iov[i - 1].iov_base + iov[i - 1].iov_len == p) {
            iov[i - 1].iov_len += part;
        } else if (i == max) {
            rc = -E2BIG;
        } else {
            iov[i++] = (struct iovec){p, part};
        }
        if (rc == 0)
            use_add(v, use, m);
        gpa += part;
        len -= part;
    }
    if (rc == 0)
        *n = i;
    else if (had)
        iov[had - 1].iov_len = had_len;
    return rc;
}

void
st_gmem_put(struct st_gmem_view *v, struct st_gmem_use *use)
{
    const unsigned room = sizeof(use->map) / sizeof(use->map[0]);

    for (unsigned i = 0; i < use->n && i < room; i++)
        ((struct gmap *)use->map[i])->use[v->index].n--;
    if (use->n > room)
        v->every--;
    v->users -= use->n > 0;
    use->n = 0;
    if (!st_list_empty(&v->leaving))
        view_answer(v);
}

/* Is all of [GPA, GPA + LEN) there? */
static bool
view_reaches(struct st_gmem_view *v, const struct table *t, uint64_t gpa,
             uint64_t len, bool write)
{
    if (gpa + len < gpa)
        return false;
    while (len) {
        uint64_t part = len;
        struct gmap *m;

        if (!view_address(v, t, gpa, &part, write, &m))
            return false;
        gpa += part;
        len -= part;
    }
    return true;
}

int
st_gmem_read(struct st_gmem_view *v, uint64_t gpa, void *to, size_t len)
{
    const struct table *t = view_table(v);

    if (!view_reaches(v, t, gpa, len, false))
        return -EFAULT;
    for (uint8_t *p = to; len;) {
        uint64_t part = len;
        struct gmap *m;

        memcpy(p, view_address(v, t, gpa, &part, false, &m), part);
        p += part;
        gpa += part;
        len -= part;
    }
    return 0;
}

int
st_gmem_write(struct st_gmem_view *v, uint64_t gpa, const void *from,
              size_t len)
{
    const struct table *t = view_table(v);

    if (!view_reaches(v, t, gpa, len, true))
        return -EFAULT;
    for (const uint8_t *p = from; len;) {
        uint64_t part = len;
        struct gmap *m;

        memcpy(view_address(v, t, gpa, &part, true, &m), p, part);
        p += part;
        gpa += part;
        len -= part;
    }
    return 0;
}

void *
st_gmem_peek(struct st_gmem_view *v, uint64_t gpa, uint64_t len, bool write)
{
    uint64_t part = len;
    struct gmap *m;
    uint8_t *p = view_address(v, view_table(v), gpa, &part, write, &m);

    return part == len ? p : NULL;
}

void
st_gmem_stats(struct st_gmem *g, struct st_gmem_stats *out)
{
    pthread_mutex_lock(&g->mutex);
    *out = (struct st_gmem_stats){st_counter_get(&g->maps),
                                  st_counter_get(&g->bytes), g->refused,
                                  g->unreachable};
    for (unsigned i = 0; i < ST_GMEM_VIEWS; i++) {
        if (!g->view[i])
            continue;
        out->refused += st_counter_get(&g->view[i]->refused);
        out->unreachable += st_counter_get(&g->view[i]->unreachable);
    }
    pthread_mutex_unlock(&g->mutex);
}
