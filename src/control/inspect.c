/* SPDX-License-Identifier: MIT
 *
 * The tree of values; see control.h. People get the same, laid out as
 *
 *   disk 'name' size=1048576 policy='report' sector_size=512 reads=0 ...
 *     layered 'memdiff:file:x' size=1048576 ...
 *       ram 'memdiff:' ...
 *       file 'x' ...
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control_private.h"

/* ---- From values to JSON ---- */

enum { INSPECT_NEST = 8, INSPECT_NAME = 128 };

struct inspect_visitor {
    struct st_inspect base;
    json_t *at[INSPECT_NEST]; /* borrowed; at[depth] gets the values */
    unsigned depth, beyond;   /* beyond: directories too deep to show */
};

/* JSON is UTF-8; a file's name need not be. */
static char *
inspect_ascii(const char *text)
{
    char *ascii = strdup(text);

    for (char *p = ascii; p && *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    return ascii;
}

json_t *
st_inspect_text(const char *text)
{
    json_t *string = json_string(text);
    st_autofree char *ascii = string ? NULL : inspect_ascii(text);

    return ascii ? json_string(ascii) : string;
}

/* Takes VALUE. False: it is not there (no memory, or O is NULL). */
static bool
inspect_set(json_t *o, const char *name, json_t *value)
{
    st_autofree char *ascii = NULL;
    json_t *key = json_string(name);

    if (!key)
        ascii = inspect_ascii(name);
    json_decref(key);
    return json_object_set_new(o, ascii ? ascii : name, value) == 0;
}

static void
inspect_u64_in(json_t *o, const char *name, uint64_t value)
{
    inspect_set(o, name, json_integer((json_int_t)st_min(value, INT64_MAX)));
}

/* The directory NAME of O, made if need be; NULL: no memory. Borrowed. */
static json_t *
inspect_dir(json_t *o, const char *name)
{
    json_t *dir = json_object_get(o, name);

    if (json_is_object(dir))
        return dir;
    dir = json_object();
    return inspect_set(o, name, dir) ? dir : NULL;
}

/* Where "rules/0/text" belongs; *NAME becomes "text". */
static json_t *
inspect_place(struct st_inspect *base, const char **name)
{
    struct inspect_visitor *v = (struct inspect_visitor *)base;
    json_t *o = v->beyond ? NULL : v->at[v->depth];
    const char *slash;

    while ((slash = strchr(*name, '/'))) {
        char dir[INSPECT_NAME];

        snprintf(dir, sizeof(dir), "%.*s", (int)(slash - *name), *name);
        o = inspect_dir(o, dir);
        *name = slash + 1;
    }
    return o;
}

static void
inspect_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    json_t *o = inspect_place(v, &name);

    inspect_u64_in(o, name, value);
}

static void
inspect_text(struct st_inspect *v, const char *name, const char *value)
{
    json_t *o = inspect_place(v, &name);

    inspect_set(o, name, st_inspect_text(value));
}

static void
inspect_enter(struct st_inspect *base, const char *name)
{
    struct inspect_visitor *v = (struct inspect_visitor *)base;

    if (v->beyond || v->depth + 1 == INSPECT_NEST) {
        v->beyond++;
        return;
    }
    v->at[v->depth + 1] = inspect_dir(v->at[v->depth], name);
    v->depth++;
}

static void
inspect_leave(struct st_inspect *base)
{
    struct inspect_visitor *v = (struct inspect_visitor *)base;

    if (v->beyond)
        v->beyond--;
    else if (v->depth)
        v->depth--;
}

static struct inspect_visitor
inspect_into(json_t *o)
{
    return (struct inspect_visitor){.base = {.u64 = inspect_u64,
                                             .text = inspect_text,
                                             .enter = inspect_enter,
                                             .leave = inspect_leave},
                                    .at = {o}};
}

/* ---- Disks ---- */

static bool
inspect_is_layered(const struct st_node *n)
{
    return strcmp(n->ops->name, "layered") == 0;
}

/* N and what is below it, into O. At most ST_DEPTH_MAX deep. */
static void
inspect_node(json_t *o, struct st_node *n)
{
    struct inspect_visitor v = inspect_into(o);
    json_t *dir;

    inspect_text(&v.base, "kind", n->ops->name);
    inspect_text(&v.base, "label", n->label);
    inspect_u64(&v.base, "size", st_node_size(n));
    if (n->ops->inspect)
        n->ops->inspect(n, &v.base);
    if (n->ops->transparent && n->nchild == 1) {
        inspect_node(inspect_dir(o, "inner"), n->child[0]);
        return;
    }
    dir = n->nchild
              ? inspect_dir(o, inspect_is_layered(n) ? "layers" : "children")
              : NULL;
    for (unsigned i = 0; i < n->nchild; i++) {
        char number[16];

        snprintf(number, sizeof(number), "%u", i);
        inspect_node(inspect_dir(dir, number), n->child[i]);
    }
}

const char *const st_inspect_ops[ST_OP_COUNT] = {
    [ST_OP_READ] = "read",
    [ST_OP_WRITE] = "write",
    [ST_OP_FLUSH] = "flush",
    [ST_OP_UNMAP] = "unmap",
    [ST_OP_WRITE_ZEROES] = "write_zeroes",
    [ST_OP_BLOCK_STATUS] = "block_status",
    [ST_OP_COMPARE_AND_WRITE] = "compare_and_write",
    [ST_OP_EJECT] = "eject",
    [ST_OP_SHUTDOWN] = "shutdown",
};

static void
inspect_disk_into(json_t *o, struct st_disk *d)
{
    static const char *const policy[] = {[ST_POLICY_REPORT] = "report",
                                         [ST_POLICY_STOP] = "stop",
                                         [ST_POLICY_RETRY] = "retry"};
    struct inspect_visitor v = inspect_into(o);
    struct st_disk_stats s;
    json_t *errors, *latency;

    inspect_text(&v.base, "name", st_disk_name(d));
    inspect_u64(&v.base, "size", st_disk_size(d));
    inspect_text(&v.base, "policy", policy[st_disk_policy(d)]);
    st_disk_inspect(d, &v.base);
    st_disk_stats(d, &s);
    errors = inspect_dir(o, "errors");
    latency = inspect_dir(o, "latency");
    for (unsigned op = 0; op < ST_OP_COUNT; op++) {
        const struct st_hist *h = &s.latency[op];
        json_t *l = inspect_dir(latency, st_inspect_ops[op]);

        inspect_u64_in(errors, st_inspect_ops[op], s.errors[op]);
        inspect_u64_in(l, "count", st_hist_total(h));
        inspect_u64_in(l, "sum_ns", st_counter_get(&h->sum));
        inspect_u64_in(l, "p50_ns", st_hist_quantile(h, 0.5));
        inspect_u64_in(l, "p99_ns", st_hist_quantile(h, 0.99));
        inspect_u64_in(l, "max_ns", st_hist_quantile(h, 1));
    }
    inspect_node(inspect_dir(o, "backend"), st_disk_node(d));
}

json_t *
st_inspect_disk(struct st_disk *d)
{
    json_t *o = json_object();

    inspect_disk_into(o, d);
    return o;
}

/* ---- The graph ---- */

/* One that leaves is shown until its name is taken again. */
bool
st_inspect_shown(struct st_graph *g, const struct st_graph_disk *d)
{
    return !d->leaving || !st_graph_find_disk(g, d->name);
}

static void
inspect_disks(json_t *o, struct st_graph *g, const char *only)
{
    const struct st_graph_disk *d = NULL;

    while ((d = st_graph_next_disk(g, d))) {
        json_t *disk;

        if ((only && strcmp(only, d->name) != 0) || !st_inspect_shown(g, d))
            continue;
        disk = inspect_dir(o, d->name);
        inspect_disk_into(disk, d->disk);
        inspect_set(disk, "spec", st_inspect_text(d->spec));
        inspect_u64_in(disk, "paused", d->paused);
        inspect_u64_in(disk, "leaving", d->leaving);
    }
}

static void
inspect_doors(json_t *o, struct st_graph *g)
{
    const struct st_graph_door *d = NULL;

    while ((d = st_graph_next_door(g, d))) {
        json_t *door = inspect_dir(o, d->name);
        struct inspect_visitor v = inspect_into(door);

        inspect_text(&v.base, "kind", d->kind);
        inspect_dir(door, "exports");
        inspect_dir(door, "clients");
        st_nbd_inspect(d->nbd, &v.base);
    }
}

static void
inspect_controllers(json_t *o, struct st_graph *g, const char *only)
{
    const struct st_graph_controller *c = NULL;

    while ((c = st_graph_next_controller(g, c))) {
        struct inspect_visitor v;

        if (only && strcmp(only, c->name) != 0)
            continue;
        v = inspect_into(inspect_dir(o, c->name));
        st_graph_controller_inspect(c, &v.base);
    }
}

static void
inspect_caps(json_t *o, struct st_graph *g)
{
    struct st_caps *caps = st_domain_caps(st_graph_control(g)->domain);

    for (unsigned i = 0; i < ST_CAP_COUNT; i++) {
        struct st_cap_row *r = &caps->row[i];
        json_t *cap = inspect_dir(o, r->name);

        inspect_u64_in(cap, "used", atomic_load(&r->used));
        inspect_u64_in(cap, "peak", atomic_load(&r->peak));
        inspect_u64_in(cap, "limit", r->limit);
        inspect_u64_in(cap, "refused", atomic_load(&r->refused));
        inspect_set(cap, "unit", json_string(r->unit));
        inspect_set(cap, "when_full", json_string(r->when_full));
    }
}

/* All of it, or what lies below its child FIRST, or, of the disks and
 * controllers, SECOND. */
static json_t *
inspect_graph(struct st_graph *g, const char *version, const char *first,
              const char *second)
{
    json_t *o = json_object();
    struct inspect_visitor v;
    static const char *const dirs[] = {"caps",  "graph",       "disks",
                                       "doors", "controllers", "machine"};
    unsigned n = st_graph_machine(g) ? 6 : 5;

    inspect_set(o, "version", st_inspect_text(version));
    inspect_set(o, "engine",
                json_string(st_domain_engine(st_graph_control(g)->domain)));
    for (unsigned i = 0; i < n; i++) {
        json_t *dir = inspect_dir(o, dirs[i]);

        if (first && strcmp(first, dirs[i]) != 0)
            continue;
        v = inspect_into(dir);
        if (i == 0)
            inspect_caps(dir, g);
        else if (i == 1)
            st_graph_inspect(g, &v.base);
        else if (i == 2)
            inspect_disks(dir, g, second);
        else if (i == 3)
            inspect_doors(dir, g);
        else if (i == 4)
            inspect_controllers(dir, g, second);
        else
            st_graph_machine_inspect(g, &v.base);
    }
    return o;
}

json_t *
st_inspect_graph(struct st_graph *g, const char *version)
{
    return inspect_graph(g, version, NULL, NULL);
}

void
st_inspect_cut(json_t *o, unsigned depth)
{
    const char *key;
    json_t *value;
    void *tmp;

    json_object_foreach_safe(o, tmp, key, value)
    {
        if (json_is_object(value) && depth <= 1)
            json_object_set_new(o, key, json_null());
        else
            st_inspect_cut(value, depth - 1);
    }
}

json_t *
st_inspect_path(struct st_graph *g, const char *version,
                const struct st_control_path *p, unsigned depth,
                struct st_err *err)
{
    json_t *root = inspect_graph(g, version, p->n ? p->segment[0] : NULL,
                                 p->n > 1 ? p->segment[1] : NULL);
    json_t *o = root;

    for (unsigned i = 0; i < p->n; i++) {
        st_autofree char *ascii = NULL;
        json_t *name = json_string(p->segment[i]);

        if (!name)
            ascii = inspect_ascii(p->segment[i]);
        json_decref(name);
        o = json_object_get(o, ascii ? ascii : p->segment[i]);
        if (!o) {
            st_err_set(err, ENOENT, "there is no '%.80s' in %s%.80s",
                       p->segment[i], i ? "" : "the tree of values",
                       i ? p->segment[i - 1] : "");
            break;
        }
    }
    json_incref(o);
    json_decref(root);
    if (json_is_object(o))
        st_inspect_cut(o, depth);
    return o;
}

json_t *
st_inspect_verbs(void)
{
    json_t *o = json_object(), *verbs = json_array();

    for (const struct st_verb *v = st_graph_verbs(); v->name; v++) {
        json_t *args = json_array();

        for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i]; i++) {
            static const struct {
                char kind;
                const char *name;
            } files[] = {{ST_VERB_FILE_TEXT, "text"},
                         {ST_VERB_FILE_BYTES, "base64"},
                         {ST_VERB_FILE_ANSWER, "answer"}};
            char kind = st_verb_arg_kind(v->arg[i]);
            json_t *arg =
                json_pack("{s:s, s:b}", "name", st_verb_arg_name(v->arg[i]),
                          "optional", kind == ST_VERB_OPTIONAL);

            for (unsigned k = 0; k < 3; k++)
                if (files[k].kind == kind)
                    json_object_set_new(arg, "file",
                                        json_string(files[k].name));
            json_array_append_new(args, arg);
        }
        json_array_append_new(
            verbs, json_pack("{s:s, s:s, s:s, s:o}", "name", v->name, "syntax",
                             v->syntax, "help", v->help, "arguments", args));
    }
    json_object_set_new(o, "verbs", verbs);
    return o;
}

/* ---- For people ---- */

static bool
print_in_front(const char *key)
{
    return strcmp(key, "kind") == 0 || strcmp(key, "name") == 0 ||
           strcmp(key, "label") == 0;
}

static bool
print_is_child(const char *key)
{
    return strcmp(key, "backend") == 0 || strcmp(key, "inner") == 0 ||
           strcmp(key, "layers") == 0 || strcmp(key, "children") == 0;
}

struct printer {
    FILE *out;
    int column, indent;
};

/* "errors/read=2": values of directories only if they are not 0. */
static void
print_values(struct printer *p, json_t *o, const char *prefix)
{
    json_t *value;
    const char *key;

    json_object_foreach(o, key, value)
    {
        char name[INSPECT_NAME], text[700];

        if (print_is_child(key) || (!*prefix && print_in_front(key)))
            continue;
        snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "/" : "", key);
        if (json_is_object(value)) {
            print_values(p, value, name);
            continue;
        }
        if (*prefix && json_is_integer(value) && !json_integer_value(value))
            continue;
        if (json_is_integer(value))
            snprintf(text, sizeof(text), "%s=%" JSON_INTEGER_FORMAT, name,
                     json_integer_value(value));
        else
            snprintf(text, sizeof(text), "%s='%s'", name,
                     json_string_value(value) ? json_string_value(value) : "");
        if (p->column + 1 + (int)strlen(text) > 79)
            p->column = fprintf(p->out, "\n%*s", p->indent + 3, "") - 1;
        p->column += fprintf(p->out, " %s", text);
    }
}

static void
print_object(FILE *out, json_t *o, const char *kind, const char *label,
             int indent)
{
    struct printer p = {.out = out, .indent = indent};

    p.column = fprintf(out, "%*s%s '%s'", indent, "", kind, label ? label : "");
    print_values(&p, o, "");
    fputc('\n', out);
}

static void
print_node(FILE *out, json_t *o, int indent)
{
    json_t *child, *inner = json_object_get(o, "inner");
    const char *kind = json_string_value(json_object_get(o, "kind")), *key;

    print_object(out, o, kind ? kind : "?",
                 json_string_value(json_object_get(o, "label")), indent);
    if (inner)
        print_node(out, inner, indent + 2);
    json_object_foreach(json_object_get(o, "layers"), key, child)
        print_node(out, child, indent + 2);
    json_object_foreach(json_object_get(o, "children"), key, child)
        print_node(out, child, indent + 2);
}

void
st_inspect_print(FILE *out, struct st_disk *d)
{
    json_t *o = st_inspect_disk(d);

    print_object(out, o, "disk", st_disk_name(d), 0);
    print_node(out, json_object_get(o, "backend"), 2);
    json_decref(o);
}
