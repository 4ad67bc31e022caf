/* SPDX-License-Identifier: MIT
 *
 * The graph's objects: disks, doors, exports. Made by the set-up calls and by
 * exports.c, found by name, and inspected; see graph.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph_private.h"

/* ---- The graph ---- */

int
st_graph_create(const struct st_graph_opts *opts, struct st_graph **out,
                struct st_err *err)
{
    struct st_graph *g = calloc(1, sizeof(*g));

    if (g)
        g->env = st_stack_env_create();
    if (!g || !g->env) {
        free(g);
        return st_err_set(err, ENOMEM, "no memory for a graph");
    }
    g->opts = *opts;
    g->control = opts->control;
    g->turn.run = graph_turn;
    st_list_init(&g->disks);
    st_list_init(&g->doors);
    st_list_init(&g->exports);
    st_list_init(&g->controllers);
    st_list_init(&g->subsystems);
    st_list_init(&g->namespaces);
    st_list_init(&g->waiting);
    *out = g;
    return 0;
}

static void
door_free(struct graph_door *d)
{
    st_list_remove(&d->link);
    st_nbd_destroy(d->pub.nbd);
    free(d->name);
    free(d);
}

void
st_graph_destroy(struct st_graph *g)
{
    if (!g)
        return;
    assert(!g->current && !g->nwaiting);
    st_retract(g->control, &g->turn);
    if (!graph_free_controllers(g))
        return;
    st_list_for(d, next, &g->doors, struct graph_door, link)
    {
        door_free(d);
    }
    st_list_for(x, next, &g->exports, struct graph_export, link)
    {
        if (!x->leaving)
            graph_export_free(x);
    }
    st_list_for(d, next, &g->disks, struct graph_disk, link)
    {
        if (!d->pub.leaving && !d->late && st_disk_deserted(d->pub.disk))
            graph_disk_free(d);
    }
    if (g->nops || !st_list_empty(&g->disks))
        return; /* what was abandoned still points at us */
    st_stack_env_destroy(g->env);
    free(g);
}

struct st_loop *
st_graph_control(const struct st_graph *g)
{
    return g->control;
}

void
st_graph_inspect(struct st_graph *g, struct st_inspect *v)
{
    v->u64(v, "edits_done", g->edits);
    v->u64(v, "edits_failed", g->failed);
    v->u64(v, "edits_waiting", g->nwaiting);
    v->u64(v, "edits_under_way", g->nops);
}

/* ---- Disks ---- */

/* Is NAME text that others can show: UTF-8 (RFC 3629) without controls? */
static bool
is_text(const char *name)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)name;

    while (*p) {
        unsigned more = *p < 0x80 ? 0 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
        uint32_t c = more ? *p & (0x3fu >> more) : *p;

        if ((*p & 0xc0) == 0x80 || *p >= 0xf8)
            return false;
        p++;
        for (unsigned i = 0; i < more; i++, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*p & 0x3f);
        }
        if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ||
            c < 0x20 || (c >= 0x7f && c < 0xa0))
            return false;
    }
    return true;
}

static int
no_text(struct st_err *err)
{
    return st_err_set(err, EINVAL,
                      "a name must be UTF-8 text without control characters");
}

struct graph_disk *
graph_find_disk(struct st_graph *g, const char *name)
{
    st_list_for(d, next, &g->disks, struct graph_disk, link)
    {
        if (strcmp(d->name, name) == 0)
            return d;
    }
    return NULL;
}

int
graph_disk_name(struct st_graph *g, const char *name, char **out,
                struct st_err *err)
{
    struct graph_disk *d;
    char text[24];

    if (!is_text(name))
        return no_text(err);
    for (unsigned n = 0; !*name; n++) {
        snprintf(text, sizeof(text), "disk%u", n);
        if (!graph_find_disk(g, text))
            name = text;
    }
    d = graph_find_disk(g, name);
    if (d && d->pub.leaving)
        return st_err_set(err, EEXIST,
                          "disk '%s' is still leaving: not all of its requests "
                          "have come back",
                          name);
    if (d)
        return st_err_set(err, EEXIST, "there is a disk '%s' already", name);
    *out = strdup(name);
    return *out ? 0 : st_err_set(err, ENOMEM, "%s: no memory", name);
}

int
graph_disk_add(struct st_graph *g, char *name, const char *spec,
               struct st_node *node, bool read_only, struct graph_disk **out,
               struct st_err *err)
{
    struct graph_disk *d = calloc(1, sizeof(*d));
    char *text = strdup(spec);
    int rc;

    if (!d || !text) {
        rc = st_err_set(err, ENOMEM, "%s: no memory", name);
        goto fail;
    }
    rc = st_disk_create(g->control, node, name, read_only, &d->pub.disk, err);
    if (rc < 0)
        goto fail;
    d->pub.name = d->name = name;
    d->pub.spec = d->spec = text;
    d->pub.read_only = read_only;
    st_list_append(&g->disks, &d->link);
    *out = d;
    return 0;

fail:
    free(text);
    free(name);
    free(d);
    return rc;
}

void
graph_disk_free(struct graph_disk *d)
{
    st_list_remove(&d->link);
    st_disk_destroy(d->pub.disk);
    free(d->name);
    free(d->spec);
    free(d);
}

bool
graph_disk_stopped(const struct graph_disk *d)
{
    struct st_disk_stats s;

    st_disk_stats(d->pub.disk, &s);
    return s.stopped;
}

int
st_graph_open(struct st_graph *g, const char *name, const char *spec,
              bool read_only, const char **name_out, struct st_err *err)
{
    struct graph_disk *d;
    struct st_node *node;
    char *own;
    int rc = graph_disk_name(g, name, &own, err);

    if (rc < 0)
        return rc;
    rc = st_stack_open(g->control, g->env, spec, read_only, &node, err);
    if (rc < 0) {
        free(own);
        return rc;
    }
    rc = graph_disk_add(g, own, spec, node, read_only, &d, err);
    if (rc < 0)
        st_node_close(node);
    else if (name_out)
        *name_out = d->name;
    return rc;
}

const struct st_graph_disk *
st_graph_next_disk(struct st_graph *g, const struct st_graph_disk *prev)
{
    const struct graph_disk *d = (const struct graph_disk *)prev;
    struct st_list *next = d ? d->link.next : g->disks.next;

    return next == &g->disks
               ? NULL
               : &st_container(next, struct graph_disk, link)->pub;
}

const struct st_graph_disk *
st_graph_find_disk(struct st_graph *g, const char *name)
{
    struct graph_disk *d = graph_find_disk(g, name);

    return d && !d->pub.leaving ? &d->pub : NULL;
}

/* ---- Doors ---- */

struct graph_door *
graph_find_door(struct st_graph *g, const char *name)
{
    st_list_for(d, next, &g->doors, struct graph_door, link)
    {
        if (strcmp(d->name, name) == 0)
            return d;
    }
    return NULL;
}

static int
no_door(const char *name, struct st_err *err)
{
    return st_err_set(err, ENOENT, "no door '%s'", name);
}

int
graph_check_name(struct st_graph *g, const char *name, struct st_err *err)
{
    if (!*name || !is_text(name))
        return st_err_set(err, EINVAL,
                          "an id must be UTF-8 text without control "
                          "characters, and not empty");
    if (graph_find_door(g, name))
        return st_err_set(err, EEXIST, "there is a door '%s' already", name);
    if (graph_find_controller(g, name))
        return st_err_set(err, EEXIST, "there is a controller '%s' already",
                          name);
    return 0;
}

int
st_graph_add_nbd(struct st_graph *g, const char *name,
                 const struct st_nbd_opts *opts, struct st_err *err)
{
    struct st_nbd_opts o = *opts;
    struct graph_door *d;
    int rc = graph_check_name(g, name, err);

    if (rc < 0)
        return rc;
    d = calloc(1, sizeof(*d));
    if (!d || !(d->name = strdup(name))) {
        free(d);
        return st_err_set(err, ENOMEM, "%s: no memory", name);
    }
    o.control = g->control;
    o.loops = g->opts.loops;
    o.nloops = g->opts.nloops;
    rc = st_nbd_create(&o, &d->pub.nbd, err);
    if (rc < 0) {
        free(d->name);
        free(d);
        return rc;
    }
    d->pub.name = d->name;
    d->pub.kind = "nbd";
    st_list_append(&g->doors, &d->link);
    return 0;
}

const struct st_graph_door *
st_graph_next_door(struct st_graph *g, const struct st_graph_door *prev)
{
    const struct graph_door *d = (const struct graph_door *)prev;
    struct st_list *next = d ? d->link.next : g->doors.next;

    return next == &g->doors
               ? NULL
               : &st_container(next, struct graph_door, link)->pub;
}

int
st_graph_listen(struct st_graph *g, const char *door, int fd,
                struct st_err *err)
{
    struct graph_door *d = graph_find_door(g, door);

    if (d)
        return st_nbd_listen(d->pub.nbd, fd, err);
    close(fd);
    return no_door(door, err);
}

int
st_graph_connection(struct st_graph *g, const char *door, int fd,
                    void (*ended)(void *arg), void *arg, struct st_err *err)
{
    struct graph_door *d = graph_find_door(g, door);

    if (d)
        return st_nbd_connection(d->pub.nbd, fd, ended, arg, err);
    close(fd);
    return no_door(door, err);
}

/* ---- Exports ---- */

int
graph_export_add(struct st_graph *g, struct graph_door *door, const char *name,
                 struct graph_disk *disk, struct st_err *err)
{
    struct graph_export *x;
    int rc;

    if (!is_text(name))
        return no_text(err);
    x = calloc(1, sizeof(*x));
    if (!x || !(x->name = strdup(name))) {
        free(x);
        return st_err_set(err, ENOMEM, "%s: no memory", name);
    }
    rc = st_nbd_export(door->pub.nbd, name, disk->spec, disk->pub.disk,
                       disk->pub.read_only, err);
    if (rc < 0) {
        free(x->name);
        free(x);
        return rc;
    }
    x->door = door;
    x->disk = disk;
    disk->exports++;
    st_list_append(&g->exports, &x->link);
    return 0;
}

void
graph_export_free(struct graph_export *x)
{
    st_list_remove(&x->link);
    x->disk->exports--;
    free(x->name);
    free(x);
}

int
st_graph_export(struct st_graph *g, const char *door, const char *export,
                const char *disk, struct st_err *err)
{
    struct graph_door *o = graph_find_door(g, door);
    struct graph_disk *d = graph_find_disk(g, disk);

    if (!o)
        return no_door(door, err);
    if (!d || d->pub.leaving)
        return st_err_set(err, ENOENT, "no disk '%s'", disk);
    return graph_export_add(g, o, export, d, err);
}
