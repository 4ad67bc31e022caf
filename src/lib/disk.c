/* SPDX-License-Identifier: MIT
 *
 * Disks of libstrata: a root at home, and a channel on every I/O loop.
 *
 *   open:   home: the tree, the root -> each I/O loop: a channel
 *   close:  each I/O loop: no channel -> all messages to them have run
 *           -> home: the last edit is through -> no listener -> no root
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib.h"

enum {
    DISK_EVENTS = ST_EVENT_RESIZE | ST_EVENT_MEDIA | ST_EVENT_STOPPED,
};

/* Operations that the public face has. */
#define DISK_OPS (ST_BIT(ST_OP_COMPARE_AND_WRITE + 1) - 1)

/* ---- Events ---- */

static void
disk_heard(struct st_listener *l, unsigned events, uint64_t size)
{
    struct strata_disk *d = st_container(l, struct strata_disk, listener);

    events &= DISK_EVENTS;
    if (!events)
        return;
    atomic_fetch_or(&d->events, events);
    if (d->event)
        d->event(d, events, size, d->arg);
}

unsigned
strata_disk_events(struct strata_disk *d)
{
    return atomic_exchange(&d->events, 0);
}

/* ---- Open ---- */

struct disk_call {
    struct lib_call call;
    struct strata_disk *d;
    const char *spec;
    bool read_only;
    unsigned i; /* of the channel */
    struct st_err err;
};

static void disk_gone(struct st_listener *l);
static void disk_free(struct strata_disk *d);

static void
disk_open(struct lib_call *call)
{
    struct disk_call *c = (struct disk_call *)call;
    struct strata_disk *d = c->d;
    struct st_loop *home = d->s->home;
    struct st_node *node = NULL;
    int rc =
        st_stack_open(home, d->s->env, c->spec, c->read_only, &node, &c->err);

    if (rc == 0) {
        rc = st_disk_create(home, node, d->name, c->read_only, &d->disk,
                            &c->err);
        if (rc < 0)
            st_node_close(node);
    }
    if (rc == 0) {
        d->listener.loop = home;
        d->listener.event = disk_heard;
        d->listener.gone = disk_gone;
        st_disk_listen(d->disk, &d->listener);
    }
    lib_call_end(call, rc);
}

static void
disk_open_chan(struct lib_call *call)
{
    struct disk_call *c = (struct disk_call *)call;
    struct strata_disk *d = c->d;
    int rc = st_disk_open_chan(d->disk, d->s->io[c->i], &d->chan[c->i]);

    if (rc < 0)
        st_err_set(&c->err, -rc, "%s: cannot open it on an I/O thread: %s",
                   d->name, st_strerror(rc));
    lib_call_end(call, rc);
}

int
strata_disk_open(struct strata *s, const char *spec,
                 const struct strata_disk_options *options,
                 struct strata_disk **out, struct strata_error *err)
{
    static const struct strata_disk_options defaults = {.size =
                                                            sizeof(defaults)};
    struct strata_disk_options o;
    struct disk_call c = {.spec = spec};
    struct strata_disk *d;
    int rc = lib_may_wait(s, err);

    if (rc == 0)
        rc = lib_take(&o, sizeof(o), options ? options : &defaults,
                      "strata_disk_options", err);
    if (rc < 0)
        return rc;
    if (!spec)
        return lib_err(err, EINVAL, "the SPEC is missing");
    if (o.flags & ~(unsigned)STRATA_OPEN_READ_ONLY)
        return lib_err(err, EINVAL, "flags are %#x, expected %#x", o.flags,
                       STRATA_OPEN_READ_ONLY);
    d = calloc(1, sizeof(*d) + s->nio * sizeof(*d->chan));
    if (!d || !(d->name = strdup(o.name ? o.name : spec))) {
        free(d);
        return lib_err(err, ENOMEM, "no memory");
    }
    d->s = s;
    d->event = o.event;
    d->arg = o.arg;
    c.d = d;
    c.read_only = o.flags & STRATA_OPEN_READ_ONLY;
    rc = lib_call(s->home, &c.call, disk_open);
    while (rc == 0 && d->nchans < s->nio) {
        c.i = d->nchans;
        rc = lib_call(s->io[c.i], &c.call, disk_open_chan);
        d->nchans += rc == 0;
    }
    if (rc < 0) {
        disk_free(d);
        return lib_err_from(err, rc, &c.err);
    }
    atomic_fetch_add(&s->users, 1);
    *out = d;
    return 0;
}

/* ---- Close ---- */

static void
disk_close_chan(struct lib_call *call)
{
    struct disk_call *c = (struct disk_call *)call;

    st_disk_close_chan(c->d->chan[c->i]);
    lib_call_end(call, 0);
}

static void
disk_gone(struct st_listener *l)
{
    struct strata_disk *d = st_container(l, struct strata_disk, listener);

    st_disk_destroy(d->disk);
    lib_call_end(d->closing, 0);
}

struct disk_end {
    struct lib_call call;
    struct strata_disk *d;
    struct st_edit edit;
};

/* Every edit that the disk had is through, also those of its own. */
static void
disk_quiet(struct st_edit *e, int rc)
{
    struct disk_end *end = st_container(e, struct disk_end, edit);

    (void)rc;
    end->d->closing = &end->call;
    st_disk_unlisten(&end->d->listener);
}

static void
disk_end(struct lib_call *call)
{
    struct disk_end *end = (struct disk_end *)call;

    end->edit.done = disk_quiet;
    st_disk_quiesce(end->d->disk, ST_PARK, 0, &end->edit);
}

/* Accepts one that is half open; nobody uses it. */
static void
disk_free(struct strata_disk *d)
{
    struct disk_call c = {.d = d};
    struct disk_end end = {.d = d};

    for (c.i = 0; c.i < d->nchans; c.i++)
        lib_call(d->s->io[c.i], &c.call, disk_close_chan);
    /* A message to a channel that was under way has run now. */
    for (unsigned i = 0; i < d->nchans; i++)
        lib_barrier(d->s->io[i]);
    if (d->disk)
        lib_call(d->s->home, &end.call, disk_end);
    free(d->name);
    free(d);
}

int
strata_disk_close(struct strata_disk *d)
{
    struct strata *s;
    int rc;

    if (!d)
        return 0;
    s = d->s;
    rc = lib_may_wait(s, NULL);
    if (rc < 0)
        return rc;
    if (atomic_load(&d->users))
        return -EBUSY;
    disk_free(d);
    atomic_fetch_sub(&s->users, 1);
    return 0;
}

/* ---- What it is like ---- */

const char *
strata_disk_name(const struct strata_disk *d)
{
    return d->name;
}

uint64_t
strata_disk_size(const struct strata_disk *d)
{
    return st_disk_size(d->disk);
}

int
strata_disk_props(const struct strata_disk *d, struct strata_props *out)
{
    const struct st_props *p = st_disk_props(d->disk);
    struct strata_props props = {
        .operations = p->performs & DISK_OPS,
        .sector_size = p->sector_size,
        .physical_sector_size = p->physical_sector_size,
        .unmap_granularity = p->unmap_granularity,
        .mem_align = p->mem_align,
        .max_segments = p->max_segments,
        .unmap = (enum strata_unmap)p->unmap,
        .flags = (p->read_only ? STRATA_PROP_READ_ONLY : 0u) |
                 (p->fua ? STRATA_PROP_FUA : 0u) |
                 (p->fast_zero ? STRATA_PROP_FAST_ZERO : 0u) |
                 (p->rotational ? STRATA_PROP_ROTATIONAL : 0u) |
                 (p->has_id ? STRATA_PROP_ID : 0u),
    };

    if (p->has_id)
        memcpy(props.id, p->id, sizeof(props.id));
    return lib_give(out, &props, sizeof(props));
}

int
strata_disk_counters(struct strata_disk *d, struct strata_counters *out)
{
    struct strata_counters c = {0};
    struct st_disk_stats st;
    struct timespec ts;
    uint64_t now;

    if (lib_usable(d->s) < 0)
        return -ECHILD;
    st_disk_stats(d->disk, &st);
    clock_gettime(CLOCK_MONOTONIC, &ts); /* the loops' clock */
    now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
    for (unsigned i = 0; i <= STRATA_OP_COMPARE_AND_WRITE; i++) {
        c.operations[i] = st.ops[i];
        c.errors[i] = st.errors[i];
        c.latency_p50_ns[i] = st_hist_quantile(&st.latency[i], 0.5);
        c.latency_p99_ns[i] = st_hist_quantile(&st.latency[i], 0.99);
    }
    c.bytes_read = st.bytes_read;
    c.bytes_written = st.bytes_written;
    c.bytes_bounced = st.bounced;
    c.emulated = st.emulated;
    c.retried = st.retried;
    c.in_flight = st.in_flight;
    c.oldest_age_ns =
        st.oldest_ns && now > st.oldest_ns ? now - st.oldest_ns : 0;
    c.flush_failed = st.flush_failed;
    c.stopped = st.stopped;
    return lib_give(out, &c, sizeof(c));
}

/* ---- Edits ---- */

struct disk_edit {
    struct lib_call call;
    struct strata_disk *d;
    struct st_edit edit;
    uint64_t n; /* bytes, or ns */
};

static void
edit_done(struct st_edit *e, int rc)
{
    lib_call_end(&st_container(e, struct disk_edit, edit)->call, rc);
}

/* Let START begin an edit at home, and wait for it. */
static int
edit(struct strata_disk *d, uint64_t n, void (*start)(struct lib_call *c),
     struct strata_error *err)
{
    struct disk_edit e = {.d = d, .n = n, .edit.done = edit_done};
    int rc = lib_may_wait(d->s, err);

    if (rc < 0)
        return rc;
    rc = lib_call(d->s->home, &e.call, start);
    return rc < 0 ? lib_err_from(err, rc, &e.edit.err) : 0;
}

static void
resize_start(struct lib_call *c)
{
    struct disk_edit *e = (struct disk_edit *)c;

    st_disk_resize(e->d->disk, e->n, &e->edit);
}

static void
pause_start(struct lib_call *c)
{
    struct disk_edit *e = (struct disk_edit *)c;

    st_disk_quiesce(e->d->disk, ST_PARK, e->n, &e->edit);
}

static void
resume_start(struct lib_call *c)
{
    struct disk_edit *e = (struct disk_edit *)c;

    st_disk_resume(e->d->disk, &e->edit);
}

int
strata_disk_resize(struct strata_disk *d, uint64_t bytes,
                   struct strata_error *err)
{
    return edit(d, bytes, resize_start, err);
}

int
strata_disk_pause(struct strata_disk *d, unsigned timeout_ms,
                  struct strata_error *err)
{
    int rc = edit(d, timeout_ms * UINT64_C(1000000), pause_start, err);

    if (rc == -ETIMEDOUT)
        lib_err(err, ETIMEDOUT, "%s: requests were still under way after %u ms",
                d->name, timeout_ms);
    return rc;
}

int
strata_disk_resume(struct strata_disk *d, struct strata_error *err)
{
    return edit(d, 0, resume_start, err);
}

int
strata_disk_set_policy(struct strata_disk *d, enum strata_policy policy)
{
    if (lib_usable(d->s) < 0)
        return -ECHILD;
    if ((unsigned)policy > STRATA_POLICY_RETRY)
        return -EINVAL;
    st_disk_set_policy(d->disk, (enum st_policy)policy);
    return 0;
}

enum strata_policy
strata_disk_policy(const struct strata_disk *d)
{
    return (enum strata_policy)st_disk_policy(d->disk);
}
