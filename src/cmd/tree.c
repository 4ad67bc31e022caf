/* SPDX-License-Identifier: MIT
 *
 * A stack as a tree, for people and programs; see cmd.h. Both see the same:
 * people get the JSON values laid out as
 *
 *   disk 'name' size=1M sector_size=512 reads=0 ...
 *     layered 'memdiff:file:x' size=1048576 ...
 *       ram 'memdiff:' ...
 *       file 'x' ...
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"

struct tree_visitor {
    struct st_inspect base;
    json_t *object; /* borrowed */
};

static void
tree_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    json_object_set_new(((struct tree_visitor *)v)->object, name,
                        json_integer((json_int_t)value));
}

/* JSON is UTF-8; a file's name need not be. */
static void
tree_text(struct st_inspect *v, const char *name, const char *value)
{
    json_t *text = json_string(value);
    st_autofree char *ascii = text ? NULL : strdup(value);

    for (char *p = ascii; p && *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    json_object_set_new(((struct tree_visitor *)v)->object, name,
                        ascii ? json_string(ascii) : text);
}

/* N may be at most ST_DEPTH_MAX deep. */
static json_t *
tree_node(struct st_node *n)
{
    struct tree_visitor v = {.base = {.u64 = tree_u64, .text = tree_text},
                             .object = json_object()};

    tree_text(&v.base, "kind", n->ops->name);
    tree_text(&v.base, "label", n->label);
    tree_u64(&v.base, "size", st_node_size(n));
    if (n->ops->inspect)
        n->ops->inspect(n, &v.base);
    if (n->nchild) {
        json_t *children = json_array();

        for (unsigned i = 0; i < n->nchild; i++)
            json_array_append_new(children, tree_node(n->child[i]));
        json_object_set_new(v.object, "children", children);
    }
    return v.object;
}

json_t *
st_cmd_tree(struct st_disk *d)
{
    struct tree_visitor v = {.base = {.u64 = tree_u64, .text = tree_text},
                             .object = json_object()};

    tree_text(&v.base, "name", st_disk_name(d));
    tree_u64(&v.base, "size", st_disk_size(d));
    st_disk_inspect(d, &v.base);
    json_object_set_new(v.object, "tree", tree_node(st_disk_node(d)));
    return v.object;
}

static void
print_object(FILE *out, json_t *o, const char *kind, const char *label,
             int indent)
{
    int column = fprintf(out, "%*s%s '%s'", indent, "", kind, label);
    json_t *value;
    const char *key;

    json_object_foreach(o, key, value)
    {
        char text[600];

        if (strcmp(key, "kind") == 0 || strcmp(key, "name") == 0 ||
            strcmp(key, "label") == 0)
            continue; /* stand in front */
        if (json_is_integer(value))
            snprintf(text, sizeof(text), "%s=%" JSON_INTEGER_FORMAT, key,
                     json_integer_value(value));
        else if (json_is_string(value))
            snprintf(text, sizeof(text), "%s='%s'", key,
                     json_string_value(value));
        else
            continue; /* children */
        if (column + 1 + (int)strlen(text) > 79)
            column = fprintf(out, "\n%*s", indent + 3, "") - 1;
        column += fprintf(out, " %s", text);
    }
    fputc('\n', out);
}

static void
print_node(FILE *out, json_t *o, int indent)
{
    json_t *child;
    size_t i;

    print_object(out, o, json_string_value(json_object_get(o, "kind")),
                 json_string_value(json_object_get(o, "label")), indent);
    json_array_foreach(json_object_get(o, "children"), i, child)
        print_node(out, child, indent + 2);
}

void
st_cmd_tree_print(FILE *out, struct st_disk *d)
{
    json_t *o = st_cmd_tree(d);

    print_object(out, o, "disk", st_disk_name(d), 0);
    print_node(out, json_object_get(o, "tree"), 2);
    json_decref(o);
}
