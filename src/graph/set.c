/* SPDX-License-Identifier: MIT
 *
 * The verb set: from a path of the inspect tree to what has the value.
 *
 *   disks / a / size                                     the verb resize
 *   disks / a / policy                                   the verb policy
 *   disks / a / backend / inner / layers / 0 / VALUE     a node's own set
 *                         '-----+------------'
 *                  down the tree: inner (of a transparent node), layers/N (of
 *                  a layered disk), children/N (of any other)
 *
 * What looks like a way down may be the name of a value: a layered disk has
 * layers/0/... itself. The node that lies deepest is asked first, then those
 * above it with the longer name.
 *
 * Segments are percent-encoded (RFC 3986 2.1), so that a name may hold a '/'.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph_private.h"
#include "size.h"

enum { SEGMENTS = 64, NAME_MAX_LEN = 256 };

struct path {
    const char *text; /* as given */
    char *memory;     /* owned */
    char *seg[SEGMENTS];
    unsigned n;
};

static int
hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decode P in place; false for what is no encoding, and for a NUL. */
static bool
decode(char *p)
{
    char *to = p;

    for (; *p; p++) {
        int high, low;

        if (*p != '%') {
            *to++ = *p;
            continue;
        }
        high = hex(p[1]);
        low = high < 0 ? -1 : hex(p[2]);
        if (low < 0 || (high | low) == 0)
            return false;
        *to++ = (char)(high << 4 | low);
        p += 2;
    }
    *to = '\0';
    return true;
}

/* Cut TEXT into segments; a '/' at the start or at the end is nothing. */
static int
path_parse(const char *text, struct path *p, struct st_err *err)
{
    char *at, *next;
    size_t len;

    *p = (struct path){.text = text, .memory = strdup(text)};
    if (!p->memory)
        return st_err_set(err, ENOMEM, "no memory");
    at = p->memory + (*p->memory == '/');
    len = strlen(at);
    if (len && at[len - 1] == '/')
        at[len - 1] = '\0';
    for (; at; at = next) {
        next = strchr(at, '/');
        if (next)
            *next++ = '\0';
        if (p->n == SEGMENTS)
            return st_err_set(err, ENOENT, "'%.200s': no such value", text);
        if (!decode(at))
            return st_err_set(err, EINVAL,
                              "'%.200s': '%.40s' is not percent-encoded text",
                              text, at);
        p->seg[p->n++] = at;
    }
    return 0;
}

static int
no_value(const struct path *p, struct st_err *err)
{
    return st_err_set(err, ENOENT, "'%.200s': no such value", p->text);
}

static int
no_access(const struct path *p, struct st_err *err)
{
    return st_err_set(err, EACCES, "'%.200s' cannot be set", p->text);
}

/* ---- Is there a value of that name? ---- */

struct finder {
    struct st_inspect v;
    const char *name;
    unsigned depth;
    bool found;
};

static void
find_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct finder *f = st_container(v, struct finder, v);

    (void)value;
    f->found |= !f->depth && strcmp(name, f->name) == 0;
}

static void
find_text(struct st_inspect *v, const char *name, const char *value)
{
    (void)value;
    find_u64(v, name, 0);
}

static void
find_enter(struct st_inspect *v, const char *name)
{
    struct finder *f = st_container(v, struct finder, v);

    (void)name;
    f->depth++;
}

static void
find_leave(struct st_inspect *v)
{
    st_container(v, struct finder, v)->depth--;
}

static struct finder
finder(const char *name)
{
    return (struct finder){.v = {.u64 = find_u64,
                                 .text = find_text,
                                 .enter = find_enter,
                                 .leave = find_leave},
                           .name = name};
}

/* ---- Values of nodes ---- */

/* The child of N that segments I and following lead to; *USED of them. */
static struct st_node *
way_down(struct st_node *n, const struct path *p, unsigned i, unsigned *used)
{
    bool layered = strcmp(n->ops->name, "layered") == 0;
    const char *list = layered ? "layers" : "children";
    uint64_t number;

    if (i < p->n && n->ops->transparent && n->nchild == 1 &&
        strcmp(p->seg[i], "inner") == 0) {
        *used = 1;
        return n->child[0];
    }
    if (i + 1 >= p->n || n->ops->transparent || !n->nchild ||
        strcmp(p->seg[i], list) != 0 ||
        st_number_parse("", p->seg[i + 1], 0, n->nchild - 1, &number, NULL))
        return NULL;
    *used = 2;
    return n->child[number];
}

/* Give VALUE to N's value of the name that the segments from I on make. */
static int
node_set(struct st_node *n, const struct path *p, unsigned i, const char *value,
         struct st_err *err)
{
    char name[NAME_MAX_LEN] = "";
    struct finder f = finder(name);
    size_t len = 0;
    int rc = -ENOENT;

    for (; i < p->n; i++)
        if (len < sizeof(name))
            len += (size_t)snprintf(name + len, sizeof(name) - len, "%s%s",
                                    len ? "/" : "", p->seg[i]);
    if (!len || len >= sizeof(name))
        return -ENOENT;
    if (n->ops->set)
        rc = n->ops->set(n, name, value, err);
    if (rc != -ENOENT || !n->ops->inspect)
        return rc;
    n->ops->inspect(n, &f.v);
    return f.found ? -EACCES : -ENOENT;
}

/* Descend from N as far as segments I and following lead, then ask upward. */
static int
tree_set(struct st_node *n, const struct path *p, unsigned i, const char *value,
         struct st_err *err)
{
    unsigned used;
    struct st_node *child = way_down(n, p, i, &used);
    int rc = child ? tree_set(child, p, i + used, value, err) : -ENOENT;

    return rc == -ENOENT ? node_set(n, p, i, value, err) : rc;
}

/* ---- The verb ---- */

/* E's path below the disk D is no "size" and no "policy". */
static int
disk_set(struct graph_disk *d, const struct path *p, const char *value,
         struct st_err *err)
{
    /* What control shows beside st_disk_inspect. */
    static const char *const fixed[] = {
        "name", "spec", "read_only", "paused", "leaving", "latency", "kind"};
    struct finder f = finder(p->seg[2]);
    int rc = -ENOENT;

    if (strcmp(p->seg[2], "backend") == 0) {
        rc = p->n == 3 ? -EACCES
                       : tree_set(st_disk_node(d->pub.disk), p, 3, value, err);
    } else {
        for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
            f.found |= strcmp(p->seg[2], fixed[i]) == 0;
        st_disk_inspect(d->pub.disk, &f.v);
        if (f.found && p->n == 3)
            rc = -EACCES;
    }
    if (rc == -ENOENT)
        return no_value(p, err);
    return rc == -EACCES ? no_access(p, err) : rc;
}

static void
path_set(struct st_graph_edit *e, const struct path *p)
{
    static const char *const fixed[] = {"version", "engine", "caps",
                                        "graph",   "doors",  "controllers"};
    const char *value = e->text[1];
    struct graph_disk *d;
    bool top = false;

    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
        top |= strcmp(p->seg[0], fixed[i]) == 0;
    if (strcmp(p->seg[0], "disks") != 0) {
        graph_end(e, top ? no_access(p, &e->err) : no_value(p, &e->err));
        return;
    }
    if (p->n == 1) {
        graph_end(e, no_access(p, &e->err));
        return;
    }
    d = graph_verb_disk(e, p->seg[1]);
    if (!d)
        return;
    if (p->n == 2)
        graph_end(e, no_access(p, &e->err));
    else if (p->n == 3 && strcmp(p->seg[2], "size") == 0)
        graph_resize(e, d, value);
    else if (p->n == 3 && strcmp(p->seg[2], "policy") == 0)
        graph_policy(e, d, value);
    else
        graph_end(e, disk_set(d, p, value, &e->err));
}

void
graph_set(struct st_graph_edit *e)
{
    struct path p;
    int rc = path_parse(e->text[0], &p, &e->err);
    char *memory = p.memory;

    if (rc < 0)
        graph_end(e, rc);
    else
        path_set(e, &p);
    free(memory);
}
