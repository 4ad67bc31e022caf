/* SPDX-License-Identifier: MIT
 *
 * The disk as an object: made, named, watched, counted; see disk.h.
 */
#include "root.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
disk_derive(const struct st_disk *d, const struct st_node *n,
            struct st_props *out)
{
    *out = n->props;
    out->read_only = n->props.read_only || d->read_only;
    out->performs |= ST_BIT(ST_OP_BLOCK_STATUS) | ST_BIT(ST_OP_FLUSH) |
                     ST_BIT(ST_OP_SHUTDOWN) | ST_OPS_MODIFY;
    if (out->read_only)
        out->performs &= ~ST_OPS_MODIFY;
    out->fua = true;
    out->mem_align = 1;
    out->max_segments = 0;
}

static void
tree_event(void *arg, unsigned events)
{
    disk_event(arg, events);
}

void
disk_event(struct st_disk *d, unsigned events)
{
    atomic_fetch_or(&d->events, events);
    if (!atomic_exchange(&d->event_posted, true))
        st_post(d->home, &d->event_task);
}

void
disk_hook(struct st_disk *d, struct st_node *n)
{
    n->event = tree_event;
    n->event_arg = d;
}

int
st_disk_create(struct st_loop *home, struct st_node *node, const char *name,
               bool read_only, struct st_disk **out, struct st_err *err)
{
    struct st_disk *d;
    int rc = st_node_check(node, err);

    if (rc < 0)
        return rc;
    d = calloc(1, sizeof(*d));
    if (!d || !(d->name = strdup(name))) {
        free(d);
        return st_err_set(err, ENOMEM, "%s: no memory", name);
    }
    d->home = home;
    d->node = node;
    d->read_only = read_only;
    d->event_task.run = edit_event;
    st_list_init(&d->edits);
    st_list_init(&d->chans);
    st_list_init(&d->listeners);
    st_list_init(&d->locks);
    st_list_init(&d->lock_queue);
    pthread_mutex_init(&d->mutex, NULL);
    d->nexus[0] = 1; /* ST_NEXUS_NONE */
    atomic_store(&d->size, st_node_size(node));
    atomic_store(&d->frames, st_node_depth(node) + 2);
    disk_derive(d, node, &d->props);
    disk_hook(d, node);
    *out = d;
    return 0;
}

bool
st_disk_deserted(struct st_disk *d)
{
    bool left = !st_list_empty(&d->edits);

    for (unsigned i = 0; i < BCAST_SLOTS; i++)
        left |= d->bcast[i].running;
    pthread_mutex_lock(&d->mutex);
    left |= d->nchans || d->zombies || !st_list_empty(&d->listeners);
    pthread_mutex_unlock(&d->mutex);
    return !left;
}

struct st_node *
st_disk_take_tree(struct st_disk *d)
{
    struct st_node *n = d->node;

    n->event = NULL;
    d->node = NULL;
    return n;
}

void
st_disk_destroy(struct st_disk *d)
{
    if (!d)
        return;
    if (d->node)
        st_node_close(st_disk_take_tree(d));
    /* What the disk wanted to do by itself is of no use any more. */
    st_retract(d->home, &d->event_task);
    st_retract(d->home, &d->own.task);
    for (unsigned i = 0; i < BCAST_SLOTS; i++)
        st_retract(d->home, &d->bcast[i].done);
    if (d->own_busy)
        st_list_remove(&d->own.link);
    assert(st_list_empty(&d->chans) && d->zombies == 0 &&
           st_list_empty(&d->listeners) && st_list_empty(&d->edits));
    pthread_mutex_destroy(&d->mutex);
    free(d->conflicts);
    free(d->name);
    free(d);
}

const char *
st_disk_name(const struct st_disk *d)
{
    return d->name;
}

const struct st_props *
st_disk_props(const struct st_disk *d)
{
    return &d->props;
}

uint64_t
st_disk_size(const struct st_disk *d)
{
    return atomic_load_explicit(&d->size, memory_order_acquire);
}

unsigned
st_disk_frames(const struct st_disk *d)
{
    return atomic_load_explicit(&d->frames, memory_order_acquire);
}

struct st_node *
st_disk_node(const struct st_disk *d)
{
    return d->node;
}

void
st_disk_set_policy(struct st_disk *d, enum st_policy p)
{
    atomic_store(&d->policy, (int)p);
}

enum st_policy
st_disk_policy(const struct st_disk *d)
{
    return (enum st_policy)atomic_load(&d->policy);
}

uint16_t
st_disk_attach(struct st_disk *d)
{
    uint16_t n = 0;

    pthread_mutex_lock(&d->mutex);
    for (unsigned i = 0; i < sizeof(d->nexus) / sizeof(d->nexus[0]); i++) {
        if (~d->nexus[i]) {
            n = (uint16_t)(i * 64 + (unsigned)__builtin_ctzll(~d->nexus[i]));
            d->nexus[i] |= UINT64_C(1) << (n % 64);
            break;
        }
    }
    pthread_mutex_unlock(&d->mutex);
    return n;
}

void
st_disk_detach(struct st_disk *d, uint16_t nexus)
{
    if (nexus == ST_NEXUS_NONE)
        return;
    pthread_mutex_lock(&d->mutex);
    d->nexus[nexus / 64] &= ~(UINT64_C(1) << (nexus % 64));
    pthread_mutex_unlock(&d->mutex);
}

/* ---- Listeners ---- */

static void
listener_run(struct st_task *t)
{
    struct st_listener *l = st_container(t, struct st_listener, task);
    struct st_disk *d = l->disk;
    unsigned events;
    bool leaving;

    pthread_mutex_lock(&d->mutex);
    l->posted = false;
    leaving = l->leaving;
    events = atomic_exchange(&l->pending, 0);
    pthread_mutex_unlock(&d->mutex);
    if (!leaving)
        l->event(l, events, st_disk_size(d));
    else if (l->gone)
        l->gone(l);
}

/* Mutex held. */
static void
listener_wake(struct st_listener *l)
{
    if (!l->posted) {
        l->posted = true;
        st_post(l->loop, &l->task);
    }
}

void
st_disk_listen(struct st_disk *d, struct st_listener *l)
{
    l->disk = d;
    l->task.run = listener_run;
    l->posted = l->leaving = false;
    atomic_store(&l->pending, 0);
    pthread_mutex_lock(&d->mutex);
    st_list_append(&d->listeners, &l->link);
    pthread_mutex_unlock(&d->mutex);
}

void
st_disk_unlisten(struct st_listener *l)
{
    struct st_disk *d = l->disk;

    pthread_mutex_lock(&d->mutex);
    st_list_remove(&l->link);
    l->leaving = true;
    listener_wake(l);
    pthread_mutex_unlock(&d->mutex);
}

void
disk_publish(struct st_disk *d, unsigned events)
{
    pthread_mutex_lock(&d->mutex);
    st_list_for(l, next, &d->listeners, struct st_listener, link)
    {
        atomic_fetch_or(&l->pending, events);
        listener_wake(l);
    }
    pthread_mutex_unlock(&d->mutex);
}

/* ---- Statistics ---- */

void
stats_merge(struct chan_stats *to, const struct chan_stats *from)
{
    for (unsigned i = 0; i < ST_OP_COUNT; i++) {
        st_count(&to->ops[i], st_counter_get(&from->ops[i]));
        st_count(&to->errors[i], st_counter_get(&from->errors[i]));
        st_hist_merge(&to->latency[i], &from->latency[i]);
    }
    st_count(&to->bytes_read, st_counter_get(&from->bytes_read));
    st_count(&to->bytes_written, st_counter_get(&from->bytes_written));
    st_count(&to->bounced, st_counter_get(&from->bounced));
    st_count(&to->emulated, st_counter_get(&from->emulated));
    st_count(&to->retried, st_counter_get(&from->retried));
    st_count(&to->in_flight, st_counter_get(&from->in_flight));
}

void
st_disk_stats(struct st_disk *d, struct st_disk_stats *out)
{
    struct chan_stats sum;
    uint64_t oldest = 0;

    memset(&sum, 0, sizeof(sum));
    pthread_mutex_lock(&d->mutex);
    stats_merge(&sum, &d->past);
    st_list_for(rc, next, &d->chans, struct root_chan, link)
    {
        uint64_t ns = st_counter_get(&rc->stats.oldest_ns);

        stats_merge(&sum, &rc->stats);
        if (ns && (!oldest || ns < oldest))
            oldest = ns;
    }
    pthread_mutex_unlock(&d->mutex);
    *out = (struct st_disk_stats){
        .bytes_read = sum.bytes_read,
        .bytes_written = sum.bytes_written,
        .bounced = sum.bounced,
        .emulated = sum.emulated,
        .retried = sum.retried,
        .in_flight = sum.in_flight,
        .oldest_ns = oldest,
        .flush_failed = atomic_load(&d->flush_failed),
        .stopped = atomic_load(&d->stopped),
    };
    for (unsigned i = 0; i < ST_OP_COUNT; i++) {
        out->ops[i] = sum.ops[i];
        out->errors[i] = sum.errors[i];
        st_hist_merge(&out->latency[i], &sum.latency[i]);
    }
}

void
st_disk_inspect(struct st_disk *d, struct st_inspect *v)
{
    static const char *const unmap[] = {"ignored", "unspecified", "zeroes"};
    const struct st_props *p = &d->props;
    struct st_disk_stats s;
    char id[33];

    st_disk_stats(d, &s);
    v->text(v, "disk_type", d->node->ops->name);
    v->u64(v, "sector_count", st_disk_size(d) / p->sector_size);
    v->u64(v, "sector_size", p->sector_size);
    v->u64(v, "sector_shift", (uint64_t)__builtin_ctz(p->sector_size));
    v->u64(v, "physical_sector_size", p->physical_sector_size);
    for (unsigned i = 0; p->has_id && i < 16; i++)
        snprintf(id + 2 * i, 3, "%02x", p->id[i]);
    if (p->has_id)
        v->text(v, "disk_id", id);
    v->u64(v, "is_read_only", p->read_only);
    v->u64(v, "is_fua_respected", d->node->props.fua);
    v->text(v, "unmap_behavior", unmap[p->unmap]);
    v->u64(v, "optimal_unmap_sectors", p->unmap_granularity / p->sector_size);
    v->u64(v, "supports_pr", 0);
    v->u64(v, "reads", s.ops[ST_OP_READ]);
    v->u64(v, "writes", s.ops[ST_OP_WRITE]);
    v->u64(v, "flushes", s.ops[ST_OP_FLUSH]);
    v->u64(v, "unmaps", s.ops[ST_OP_UNMAP]);
    v->u64(v, "write_zeroes", s.ops[ST_OP_WRITE_ZEROES]);
    v->u64(v, "block_status", s.ops[ST_OP_BLOCK_STATUS]);
    v->u64(v, "bytes_read", s.bytes_read);
    v->u64(v, "bytes_written", s.bytes_written);
    v->u64(v, "bytes_bounced", s.bounced);
    v->u64(v, "emulated", s.emulated);
    v->u64(v, "retried", s.retried);
    v->u64(v, "in_flight", s.in_flight);
    /* Another loop's clock may be ahead of this one's. */
    v->u64(v, "oldest_age_ns",
           s.oldest_ns && s.oldest_ns < d->home->now
               ? d->home->now - s.oldest_ns
               : 0);
    v->u64(v, "flush_failed", s.flush_failed);
    v->u64(v, "stopped", s.stopped);
    v->u64(v, "read_p50_ns", st_hist_quantile(&s.latency[ST_OP_READ], 0.5));
    v->u64(v, "read_p99_ns", st_hist_quantile(&s.latency[ST_OP_READ], 0.99));
    v->u64(v, "write_p50_ns", st_hist_quantile(&s.latency[ST_OP_WRITE], 0.5));
    v->u64(v, "write_p99_ns", st_hist_quantile(&s.latency[ST_OP_WRITE], 0.99));
}
