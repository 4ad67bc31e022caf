/* SPDX-License-Identifier: MIT
 *
 * The parser of disk specs. It follows the syntax line of each kind, the very
 * text that --help shows:
 *
 *   delay : <ms> [;read=<ms>] [;write=<ms>] : <disk>
 *           '-+' '----------+-------------' | '-+--'
 *           field        options       separator  a spec, recursively
 *
 *   <type>         a field; types are listed below, any other name is text
 *   one|two        a field that is one of these words
 *   [<key>]        a field that may be empty
 *   [/<bytes>]     more of the field before, after its first '/'
 *   [;direct]      options of the field before, in any order; the last of two
 *   [;create=<len>]  equal ones wins
 *   <upper>        a spec in brackets, or up to the next colon
 *   [<disk>]...    specs in brackets, one or more
 *
 * A decorator alone ends where its disk would begin: "delay:5".
 *
 * A field ends at the separator that follows it: the first ':' that is not
 * escaped, or the last '/'. The parser works in a copy of the text, which it
 * cuts in place; the untouched text beside it serves for sentences.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "size.h"
#include "stack_private.h"
#include "words.h"

struct parser {
    char *text; /* as written */
    char *work; /* the copy that is cut */
    const struct st_kind_more *more;
    bool alone; /* the outermost is a decorator without its disk */
    struct st_err *err;
};

/* A stretch of a syntax line. */
struct piece {
    const char *p;
    size_t len;
};

static int parse_disk(struct parser *ps, char *p, unsigned depth,
                      struct st_spec **out);

static bool
piece_is(struct piece a, const char *b)
{
    return strlen(b) == a.len && memcmp(a.p, b, a.len) == 0;
}

static struct piece
piece_until(const char *p, const char *ends)
{
    return (struct piece){p, strcspn(p, ends)};
}

/* ---- Values ---- */

/* Is V one of the words at W, "flat|vhd1:"? */
static bool
is_one_of(const char *w, const char *v)
{
    for (;; w++) {
        struct piece word = piece_until(w, "|:");

        if (piece_is(word, v))
            return true;
        w += word.len;
        if (*w != '|')
            return false;
    }
}

/* Check VALUE, without escapes, against TYPE. */
static int
check(struct piece type, const char *value, uint64_t *number,
      struct st_err *err)
{
    static const struct {
        const char *name;
        uint64_t min, max; /* max 0: a size */
    } types[] = {
        {"len", 0, 0},           {"bytes", 0, 0},
        {"chunk", 0, 0},         {"ms", 0, 86400000},
        {"iops", 0, UINT32_MAX}, {"nsid", 1, UINT32_MAX - 1},
        {"sector", 512, 65536},
    };

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (!piece_is(type, types[i].name))
            continue;
        if (!types[i].max)
            return st_size_parse(value, number, err);
        return st_number_parse(types[i].name, value, types[i].min, types[i].max,
                               number, err);
    }
    if (type.p[-1] == ':' && !is_one_of(type.p, value))
        return st_err_set(err, EINVAL, "'%s' is not known, expected %.*s",
                          value, (int)type.len, type.p);
    if (!*value)
        return st_err_set(err, EINVAL, "<%.*s> is empty", (int)type.len,
                          type.p);
    return 0;
}

/* Take VALUE for the field or option NAME; the last one wins. */
static int
set_arg(struct st_spec *sp, struct piece name, struct piece type, char *value,
        struct st_err *err)
{
    unsigned i = 0;
    int rc = 0;

    while (i < sp->narg && (sp->arg[i].name_len != name.len ||
                            memcmp(sp->arg[i].name, name.p, name.len) != 0))
        i++;
    assert(i < ST_SPEC_ARGS);
    st_word_unescape(value);
    sp->arg[i].name = name.p;
    sp->arg[i].name_len = name.len;
    sp->arg[i].text = value;
    if (type.len)
        rc = check(type, value, &sp->arg[i].number, err);
    if (i == sp->narg)
        sp->narg++;
    return rc;
}

/* ---- A field and what hangs on it ---- */

/* OPTION is one of the groups [GROUPS, END) of a syntax line. */
static int
parse_option(struct st_spec *sp, const char *groups, const char *end,
             char *option, struct st_err *err)
{
    char *value = strchr(option, '='), known[160] = "";

    if (value)
        *value++ = '\0';
    for (const char *g = groups; g < end; g = strchr(g, ']') + 1) {
        struct piece name = piece_until(g + 2, "=]"), type = {NULL, 0};

        if (g[1] != ';')
            continue;
        if (name.p[name.len] == '=')
            type = piece_until(name.p + name.len + 2, ">");
        if (!piece_is(name, option)) {
            snprintf(known + strlen(known), sizeof(known) - strlen(known),
                     "%s%.*s", *known ? ", " : "", (int)strcspn(g + 2, "]"),
                     g + 2);
            continue;
        }
        if (!value != !type.len)
            return st_err_set(err, EINVAL,
                              "option '%s' %s value, expected "
                              "%.*s",
                              option, value ? "takes no" : "needs a",
                              (int)strcspn(g + 2, "]"), g + 2);
        return set_arg(sp, name, type, value ? value : option, err);
    }
    return st_err_set(err, EINVAL, "unknown option '%s', expected %s", option,
                      *known ? known : "none");
}

/* The end of a field in P that is followed by SEP: ':' or '/'. */
static char *
field_end(char *p, char sep)
{
    char *end = st_word_find(p, ';');

    if (sep == ':')
        return st_word_find(p, ':');
    return memrchr(p, '/', end ? (size_t)(end - p) : strlen(p));
}

/* One field: *SYNTAX is at its start and moves behind its separator, as does
 * *P in the text; that becomes NULL at its end, where ALONE is content with a
 * field that no disk follows. */
static int
parse_field(struct st_spec *sp, const char **syntax, char **p, bool alone,
            struct st_err *err)
{
    bool maybe = **syntax == '[';
    const char *start = *syntax + maybe, *groups, *sep;
    struct piece name =
        *start == '<' ? piece_until(start + 1, ">") : piece_until(start, "[:");
    char *value = *p, *options = NULL, *end = NULL;
    int rc = 0;

    groups = name.p + name.len + (*start == '<') + maybe;
    for (sep = groups; *sep == '['; sep = strchr(sep, ']') + 1)
        ;
    if (*sep && !(end = field_end(value, *sep)) &&
        !(alone && strcmp(sep, ":<disk>") == 0))
        return st_err_set(err, EINVAL, "expected %s", sp->kind->syntax);
    if (end)
        *end++ = '\0';
    if (!piece_is(name, "url") && !piece_is(name, "uri"))
        options = st_word_find(value, ';');
    if (options)
        *options++ = '\0';
    for (const char *g = groups; g < sep; g = strchr(g, ']') + 1) {
        char *tail = g[1] == ';' ? NULL : strchr(value, g[1]);

        if (!tail)
            continue;
        *tail++ = '\0';
        rc = set_arg(sp, piece_until(g + 3, ">"), piece_until(g + 3, ">"), tail,
                     err);
        if (rc)
            return rc;
    }
    rc = set_arg(sp, name, maybe ? (struct piece){NULL, 0} : name, value, err);
    while (rc == 0 && options) {
        char *option = options;

        options = st_word_find(option, ';');
        if (options)
            *options++ = '\0';
        rc = parse_option(sp, groups, sep, option, err);
    }
    *syntax = *sep ? sep + 1 : sep;
    *p = end;
    return rc;
}

/* ---- Disks ---- */

static int
add_child(struct parser *ps, struct st_spec *sp, char *p, unsigned depth)
{
    struct st_spec **list =
        realloc(sp->child, (sp->nchild + 1) * sizeof(*list));
    int rc;

    if (!list)
        return st_err_set(ps->err, ENOMEM, "no memory");
    sp->child = list;
    rc = parse_disk(ps, p, depth + 1, &list[sp->nchild]);
    if (rc == 0)
        sp->nchild++;
    return rc;
}

/* The disk at *P, which moves behind it: one in brackets, and if not MEMBER one
 * that ends at a colon. */
static int
parse_inner(struct parser *ps, struct st_spec *sp, char **p, bool member,
            unsigned depth)
{
    bool bracket = **p == '[';
    char *start = *p + bracket, *end = NULL;

    if (bracket)
        end = st_word_close(*p);
    else if (!member)
        end = st_word_find(*p, ':');
    if (!end || (bracket && !member && end[1] != ':'))
        return st_err_set(ps->err, EINVAL, "'%.80s': expected %s",
                          ps->text + (*p - ps->work), sp->kind->syntax);
    *end = '\0';
    *p = end + 1 + (bracket && !member);
    return add_child(ps, sp, start, depth);
}

/* The text of a decorator alone has come to the place of its disk. */
static int
parse_alone(struct parser *ps, struct st_spec *sp, const char *p)
{
    sp->own = sp->len;
    if (!p || (!*p && !sp->narg))
        return 0;
    return st_err_set(ps->err, EINVAL,
                      "a disk follows, expected no more than %.*s",
                      (int)strlen(sp->kind->syntax) - 7, sp->kind->syntax);
}

/* Follow the syntax line. *INNER: what is wrong lies in a disk below. */
static int
parse_kind(struct parser *ps, struct st_spec *sp, char *p, unsigned depth,
           bool *inner)
{
    const char *syntax = sp->kind->syntax;
    size_t skip = *sp->kind->name ? strlen(sp->kind->name) + 1 : 0;
    char *start = p;
    int rc = 0;

    syntax += skip;
    p += skip;
    while (rc == 0 && *syntax) {
        bool upper = strncmp(syntax, "<upper>:", 8) == 0;
        bool members = strncmp(syntax, "[<disk>]", 8) == 0;

        *inner = upper || members || strncmp(syntax, "<disk>", 6) == 0;
        if (*inner && ps->alone && depth == 1) {
            *inner = false;
            return parse_alone(ps, sp, p);
        }
        if (*inner && !sp->nchild)
            sp->own = (int)(p - start) - 1;
        if (!*inner) {
            rc = parse_field(sp, &syntax, &p, ps->alone && depth == 1, ps->err);
        } else if (upper) {
            syntax += 8;
            rc = parse_inner(ps, sp, &p, false, depth);
        } else if (members) {
            rc = parse_inner(ps, sp, &p, true, depth);
            if (!*p)
                break;
        } else {
            return add_child(ps, sp, p, depth);
        }
    }
    return rc;
}

/* The kind that P starts with; the bare path's row when it is a path, NULL if
 * neither. */
static const struct st_kind *
find_kind(const struct parser *ps, char *p)
{
    const char *colon = st_word_find(p, ':');
    const struct st_kind *k = st_stack_kinds(), *bare = NULL;

    for (; k->name; k++)
        if (!*k->name)
            bare = k;
        else if (colon &&
                 piece_is((struct piece){p, (size_t)(colon - p)}, k->name))
            return k;
    for (const struct st_kind_more *m = ps->more; colon && m; m = m->next)
        if (piece_is((struct piece){p, (size_t)(colon - p)}, m->name))
            return &m->row;
    return !colon || *p == '/' ? bare : NULL;
}

/* P is to be a decorator, and is not. */
static int
no_decorator(struct parser *ps, const char *p)
{
    char known[80] = "";

    for (const struct st_kind *k = st_stack_kinds(); k->name; k++)
        if (k->decorator && k->help)
            snprintf(known + strlen(known), sizeof(known) - strlen(known),
                     "%s%s:...", *known ? ", " : "", k->name);
    return st_err_set(ps->err, EINVAL,
                      "'%.160s' is not a decorator, expected %s", p, known);
}

static int
parse_disk(struct parser *ps, char *p, unsigned depth, struct st_spec **out)
{
    struct st_spec *sp;
    bool inner = false;
    struct stat sb;
    int rc;

    if (!*p && !(ps->alone && depth == 1))
        return st_err_set(ps->err, EINVAL,
                          "'%.160s': a disk is missing, "
                          "expected <kind>:... or <path>",
                          ps->text);
    if (depth > ST_DEPTH_MAX)
        return st_err_set(ps->err, EINVAL,
                          "'%.160s': too deep, expected at "
                          "most %d disks below one another",
                          ps->text, ST_DEPTH_MAX);
    sp = calloc(1, sizeof(*sp));
    if (!sp)
        return st_err_set(ps->err, ENOMEM, "no memory");
    sp->text = ps->text + (p - ps->work);
    sp->own = sp->len = (int)strlen(p);
    sp->kind = find_kind(ps, p);
    if (sp->kind && ps->alone && depth == 1 && !sp->kind->decorator) {
        inner = true; /* the sentence quotes it already */
        rc = no_decorator(ps, p);
    } else if (!sp->kind)
        rc = st_err_set(ps->err, EINVAL,
                        "invalid disk kind '%.*s', expected "
                        "one that --help lists, or file:<path> for a path "
                        "with a colon",
                        (int)strcspn(p, ":"), p);
    else if (!*sp->kind->name && lstat(p, &sb) == 0) {
        /* A bare path that exists is taken as it is. */
        sp->arg[sp->narg++] =
            (struct st_spec_arg){.name = "path", .name_len = 4, .text = p};
        rc = 0;
    } else
        rc = parse_kind(ps, sp, p, depth, &inner);
    if (rc) {
        if (rc == -EINVAL && !inner)
            st_err_prefix(ps->err, "'%.*s'", sp->len > 160 ? 160 : sp->len,
                          sp->text);
        st_spec_free(sp);
        return rc;
    }
    *out = sp;
    return 0;
}

static int
parse(struct parser ps, const char *text, struct st_spec **out)
{
    size_t n = strlen(text) + 1;
    int rc;

    ps.text = n < INT32_MAX / 2 ? malloc(2 * n) : NULL;
    if (!ps.text)
        return st_err_set(ps.err, ENOMEM, "no memory");
    ps.work = ps.text + n;
    memcpy(ps.text, text, n);
    memcpy(ps.work, text, n);
    rc = parse_disk(&ps, ps.work, 1, out);
    if (rc == 0)
        (*out)->memory = ps.text;
    else
        free(ps.text);
    return rc;
}

int
st_spec_parse(const char *text, struct st_spec **out, struct st_err *err)
{
    return parse((struct parser){.err = err}, text, out);
}

int
st_spec_parse_more(const char *text, const struct st_kind_more *more,
                   struct st_spec **out, struct st_err *err)
{
    return parse((struct parser){.more = more, .err = err}, text, out);
}

int
st_spec_parse_decorator(const char *text, struct st_spec **out,
                        struct st_err *err)
{
    return parse((struct parser){.alone = true, .err = err}, text, out);
}

void
st_spec_free(struct st_spec *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->nchild; i++)
        st_spec_free(s->child[i]);
    free(s->child);
    free(s->memory);
    free(s);
}

const struct st_spec_arg *
st_spec_arg(const struct st_spec *s, const char *name)
{
    static const struct st_spec_arg absent = {.text = NULL};

    for (unsigned i = 0; i < s->narg; i++)
        if (strlen(name) == s->arg[i].name_len &&
            memcmp(s->arg[i].name, name, s->arg[i].name_len) == 0)
            return &s->arg[i];
    return &absent;
}
