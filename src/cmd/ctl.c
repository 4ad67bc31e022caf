/* SPDX-License-Identifier: MIT
 *
 * strata ctl: ask a running strata, or change what it serves.
 *
 *   strata ctl --api PATH VERB WORD...   POST /v1/VERB {"argument": "word"}
 *   strata ctl --api PATH inspect PATH   GET or PUT /v1/inspect/PATH
 *
 * The verbs are the graph's table: its syntax says how words become arguments,
 * nothing here knows a verb by name. What a word means is the server's
 * business, and so are the paths in a SPEC. Only where the table says that an
 * argument is a file, that is ours: its content is sent, or fetched.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "cmd.h"
#include "graph.h"
#include "mem.h"
#include "size.h"

enum { API };
enum { NAME_COLUMNS = 32, VALUE_COLUMNS = 1000 };
enum { FILE_MAX = 64 << 20 }; /* the server takes less */

static const struct st_cmd_option ctl_options[] = {
    {"api", ST_CMD_TEXT, "PATH", "the server's control socket", 0, 0, 0},
    {0},
};

/* Not one of the graph's: it changes no graph, and has words of its own. */
static const struct st_verb ctl_inspect = {
    .name = "inspect",
    .syntax = "[-u VALUE] [--depth N] [--json] [PATH]",
    .help = "show the tree of values, or what is at PATH; -u sets a value",
};

/* ---- A tree of values, for people ---- */

/* What a number is in the unit that people read, or "". */
static const char *
in_words(const char *name, uint64_t n, char out[static 32])
{
    const char *last = strrchr(name, '_') ? strrchr(name, '_') + 1 : name;
    char size[16];

    *out = '\0';
    if (strcmp(last, "ns") == 0 && n >= 1000)
        snprintf(out, 32,
                 n < 1000000      ? "  (%.3g us)"
                 : n < 1000000000 ? "  (%.3g ms)"
                                  : "  (%.3g s)",
                 (double)n / (n < 1000000      ? 1e3
                              : n < 1000000000 ? 1e6
                                               : 1e9));
    else if (n >= 1024 &&
             (strcmp(last, "size") == 0 || strncmp(name, "bytes", 5) == 0))
        snprintf(out, 32, "  (%s)", st_size_format(n, size));
    return out;
}

static void
print_value(const char *name, json_t *v)
{
    char text[4 * VALUE_COLUMNS + 2], words[32];

    if (json_is_integer(v)) {
        json_int_t n = json_integer_value(v);

        printf("%" JSON_INTEGER_FORMAT "%s\n", n,
               in_words(name, n < 0 ? 0 : (uint64_t)n, words));
    } else if (json_is_null(v)) {
        printf("...\n"); /* deeper than was asked for */
    } else if (json_is_string(v)) {
        st_api_printable(text, sizeof(text), json_string_value(v),
                         VALUE_COLUMNS);
        printf("%s\n", text);
    } else {
        st_autofree char *other = json_dumps(v, JSON_ENCODE_ANY);

        printf("%s\n", other ? other : "");
    }
}

static bool
is_directory(json_t *v)
{
    return json_is_object(v) || json_is_array(v);
}

/* One name of a directory with its value. Names stand below each other, and so
 * do the values of one directory, WIDTH columns further. */
static void print_tree(json_t *v, int indent);

static void
print_entry(const char *name, json_t *v, int indent, int width)
{
    char text[4 * NAME_COLUMNS + 2];
    int columns = st_api_printable(text, sizeof(text), name, NAME_COLUMNS);

    printf("%*s%s", indent, "", *text ? text : "''");
    if (is_directory(v)) {
        putchar('\n');
        print_tree(v, indent + 2);
    } else {
        printf("%*s", width - columns + 2, "");
        print_value(name, v);
    }
}

/* V is at most as deep as jansson reads. */
static void
print_tree(json_t *v, int indent)
{
    char text[4 * NAME_COLUMNS + 2];
    int width = 0, columns;
    const char *name;
    json_t *value;

    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            snprintf(text, sizeof(text), "%zu", i);
            print_entry(text, json_array_get(v, i), indent, 4);
        }
        return;
    }
    json_object_foreach(v, name, value)
    {
        columns = st_api_printable(text, sizeof(text), name, NAME_COLUMNS);
        if (columns > width && !is_directory(value))
            width = columns;
    }
    json_object_foreach(v, name, value)
    {
        print_entry(name, value, indent, width);
    }
}

static void
print_answer(json_t *v, bool json)
{
    if (json) {
        json_dumpf(v, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
    } else if (is_directory(v)) {
        print_tree(v, 0);
    } else {
        print_value("", v);
    }
}

/* ---- Words ---- */

/* What a command line says, after the verb. */
struct ctl_words {
    const char *api;
    char *text[ST_VERB_ARGS];  /* owned; by the verb's argument */
    const char *update, *path; /* of inspect */
    uint64_t depth;
    bool has_depth, json, help;
};

static const struct st_verb *
find_verb(const char *name)
{
    return strcmp(name, ctl_inspect.name) == 0 ? &ctl_inspect
                                               : st_graph_verb(name);
}

static void
verb_help(const struct st_verb *v)
{
    printf("usage: strata ctl --api PATH %s%s%s\n\n%s\n", v->name,
           *v->syntax ? " " : "", v->syntax, v->help);
    for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i]; i++)
        if (st_verb_arg_kind(v->arg[i]) == ST_VERB_OPTIONAL)
            printf("  --%s VALUE\n", st_verb_arg_name(v->arg[i]));
}

/* The verbs, for `strata ctl --help`. */
static void
ctl_verbs(FILE *out)
{
    fprintf(out, "\nverbs:\n  %s %s\n      %s\n", ctl_inspect.name,
            ctl_inspect.syntax, ctl_inspect.help);
    for (const struct st_verb *v = st_graph_verbs(); v->name; v++)
        fprintf(out, "  %s%s%s\n      %s\n", v->name, *v->syntax ? " " : "",
                v->syntax, v->help);
    fputs("\nA SPEC is opened by the server: its paths are the server's, and "
          "relative ones\nbegin in the folder that it was started in.\n",
          out);
}

/* The options of V as getopt_long wants them: their val is ARG + the index of
 * the argument. */
enum { OPTION_API = 256, OPTION_DEPTH, OPTION_JSON, OPTION_ARG };

static void
verb_options(const struct st_verb *v, struct option opts[static 8])
{
    unsigned n = 0;

    memset(opts, 0, 8 * sizeof(*opts));
    opts[n++] = (struct option){"help", no_argument, NULL, 'h'};
    opts[n++] = (struct option){"api", required_argument, NULL, OPTION_API};
    if (v == &ctl_inspect) {
        opts[n++] = (struct option){"update", required_argument, NULL, 'u'};
        opts[n++] =
            (struct option){"depth", required_argument, NULL, OPTION_DEPTH};
        opts[n++] = (struct option){"json", no_argument, NULL, OPTION_JSON};
    }
    for (int i = 0; i < ST_VERB_ARGS && v->arg[i]; i++)
        if (st_verb_arg_kind(v->arg[i]) == ST_VERB_OPTIONAL)
            opts[n++] =
                (struct option){st_verb_arg_name(v->arg[i]), required_argument,
                                NULL, OPTION_ARG + i};
}

/* Take one option; 0 or an exit status. */
static int
take_option(const struct st_verb *v, struct ctl_words *w, int k,
            const char *word)
{
    struct st_err err;
    char **text;

    switch (k) {
    case 'h':
        w->help = true;
        return 0;
    case 'u':
        w->update = optarg;
        return 0;
    case OPTION_API:
        w->api = optarg;
        return 0;
    case OPTION_DEPTH:
        w->has_depth = true;
        if (st_number_parse("--depth", optarg, 0, 1000, &w->depth, &err) < 0)
            return st_cmd_fail(ST_EXIT_USAGE, "%s", err.text);
        return 0;
    case OPTION_JSON:
        w->json = true;
        return 0;
    case ':':
        return st_cmd_fail(ST_EXIT_USAGE, "option '%s' needs a value", word);
    case '?':
        return st_cmd_fail(ST_EXIT_USAGE,
                           "unknown option '%s', see 'strata ctl %s --help'",
                           word, v->name);
    default:
        text = &w->text[k - OPTION_ARG];
        if (*text)
            return st_cmd_fail(ST_EXIT_USAGE, "option '--%s' is given twice",
                               st_verb_arg_name(v->arg[k - OPTION_ARG]));
        *text = strdup(optarg);
        return *text ? 0 : st_cmd_fail(ST_EXIT_FAILED, "no memory");
    }
}

/* The index of the first argument that must be there, from I on. */
static int
next_required(const struct st_verb *v, int i)
{
    while (i < ST_VERB_ARGS && v->arg[i] &&
           st_verb_arg_kind(v->arg[i]) == ST_VERB_OPTIONAL)
        i++;
    return i < ST_VERB_ARGS && v->arg[i] ? i : -1;
}

/* Give WORDs to the arguments that must be there, as the words of the syntax
 * stand: "NAME=SPEC" is two. 0 or an exit status. */
static int
take_words(const struct st_verb *v, struct ctl_words *w, int n, char **word)
{
    const char *syntax = v->syntax;
    int i = next_required(v, 0), taken = 0;

    for (; i >= 0; i = next_required(v, i + 1)) {
        size_t len;

        syntax += strspn(syntax, " ");
        len = strcspn(syntax, " ");
        if (taken == n)
            return st_cmd_fail(ST_EXIT_USAGE,
                               "missing %.*s, see 'strata ctl %s --help'",
                               (int)len, syntax, v->name);
        if (syntax[strcspn(syntax, "=,[ ")] == '=') {
            char *eq = strchr(word[taken], '=');

            if (!eq)
                return st_cmd_fail(ST_EXIT_USAGE, "invalid '%s', expected %.*s",
                                   word[taken], (int)len, syntax);
            w->text[i] = strndup(word[taken], (size_t)(eq - word[taken]));
            if (!w->text[i])
                return st_cmd_fail(ST_EXIT_FAILED, "no memory");
            i = next_required(v, i + 1);
            if (i < 0) /* a row that says more words than arguments */
                return st_cmd_fail(ST_EXIT_FAILED, "no argument for '%s'",
                                   eq + 1);
            w->text[i] = strdup(eq + 1);
        } else {
            w->text[i] = strdup(word[taken]);
        }
        if (!w->text[i])
            return st_cmd_fail(ST_EXIT_FAILED, "no memory");
        syntax += len;
        taken++;
    }
    if (taken < n)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "one word too many: '%s', see 'strata ctl %s "
                           "--help'",
                           word[taken], v->name);
    return 0;
}

static int
take_path(struct ctl_words *w, int n, char **word)
{
    if (n > 1)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "one word too many: '%s', see 'strata ctl inspect "
                           "--help'",
                           word[1]);
    w->path = n ? word[0] : "";
    w->path += strspn(w->path, "/");
    if (w->update && !*w->path)
        return st_cmd_fail(ST_EXIT_USAGE, "-u needs the PATH of a value");
    if (w->update && w->has_depth)
        return st_cmd_fail(ST_EXIT_USAGE, "either -u or --depth, not both");
    return 0;
}

/* ARGV[0] is the verb. 0 or an exit status. */
static int
parse_words(const struct st_verb *v, struct ctl_words *w, int argc, char **argv)
{
    struct option opts[8];
    int k, status = 0;

    verb_options(v, opts);
    optind = 0; /* begin anew */
    opterr = 0;
    while (!status && !w->help &&
           (k = getopt_long(argc, argv, v == &ctl_inspect ? ":hu:" : ":h", opts,
                            NULL)) != -1)
        status = take_option(v, w, k, argv[optind - 1]);
    if (status || w->help)
        return status;
    if (v == &ctl_inspect)
        return take_path(w, argc - optind, argv + optind);
    return take_words(v, w, argc - optind, argv + optind);
}

/* ---- Files ---- */

/* Put the content of the file that *WORD (owned) names in its place; BASE64: in
 * base64. 0 or an exit status. */
static int
file_read(char **word, bool base64)
{
    st_autofree char *data = malloc(FILE_MAX + 1), *text = NULL;
    FILE *f = fopen(*word, "re");
    size_t n = 0;
    int bad = 0;

    if (f && data) {
        n = fread(data, 1, FILE_MAX + 1, f);
        bad = ferror(f) ? errno : 0;
    } else {
        bad = errno;
    }
    if (f)
        fclose(f);
    if (bad)
        return st_cmd_fail(ST_EXIT_USAGE, "cannot read '%s': %s", *word,
                           strerror(bad));
    if (n > FILE_MAX || (!base64 && memchr(data, '\0', n)))
        return st_cmd_fail(ST_EXIT_USAGE, "'%s' is %s", *word,
                           n > FILE_MAX ? "too long" : "no text");
    text = malloc(n / 3 * 4 + 5);
    if (!text)
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    if (base64) {
        EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)data,
                        (int)n);
    } else {
        memcpy(text, data, n);
        text[n] = '\0';
    }
    free(*word);
    *word = text;
    text = NULL;
    return 0;
}

/* What is a file's goes into W's texts; what begins like JSON is no file's
 * name, but the text itself. 0 or an exit status. */
static int
files_read(const struct st_verb *v, struct ctl_words *w)
{
    int status = 0;

    for (unsigned i = 0; !status && i < ST_VERB_ARGS && v->arg[i]; i++) {
        char kind = st_verb_arg_kind(v->arg[i]);

        if (w->text[i] && (kind == ST_VERB_FILE_BYTES ||
                           (kind == ST_VERB_FILE_TEXT && *w->text[i] != '{')))
            status = file_read(&w->text[i], kind == ST_VERB_FILE_BYTES);
    }
    return status;
}

/* Write the bytes that TEXT, base64, stands for to PATH. */
static int
file_write(const char *path, const char *text)
{
    size_t n = strlen(text), padding = 0, len;
    st_autofree unsigned char *data = malloc(n + 1);
    FILE *f;

    while (padding < 2 && padding < n && text[n - 1 - padding] == '=')
        padding++;
    if (!data || n > FILE_MAX || n % 4 ||
        EVP_DecodeBlock(data, (const unsigned char *)text, (int)n) < 0)
        return st_cmd_fail(ST_EXIT_FAILED,
                           "the server's answer is no base64, nothing is "
                           "written to '%s'",
                           path);
    len = n / 4 * 3 - padding;
    f = fopen(path, "we");
    if (f && fwrite(data, 1, len, f) == len && fflush(f) == 0 && fclose(f) == 0)
        return ST_EXIT_OK;
    return st_cmd_fail(ST_EXIT_FAILED, "cannot write '%s': %s", path,
                       strerror(errno));
}

static int
answer_write(const struct st_verb *v, const struct ctl_words *w, json_t *answer)
{
    int status = 0;

    for (unsigned i = 0; !status && i < ST_VERB_ARGS && v->arg[i]; i++) {
        const char *text = json_string_value(
            json_object_get(answer, st_verb_arg_name(v->arg[i])));

        if (st_verb_arg_kind(v->arg[i]) == ST_VERB_FILE_ANSWER)
            status = file_write(w->text[i], text ? text : "?");
    }
    return status;
}

/* ---- Asking ---- */

/* Give the target of inspect. A name that has a slash is written with %2F. */
static char *
inspect_target(const struct ctl_words *w)
{
    st_autofree char *path = st_api_escape(w->path, "/%");
    size_t len = path ? strlen(path) : 0;
    char depth[32] = "", *out;

    while (len && path[len - 1] == '/')
        path[--len] = '\0';
    if (w->has_depth)
        snprintf(depth, sizeof(depth), "?depth=%" PRIu64, w->depth);
    if (!path ||
        asprintf(&out, "/v1/inspect%s%s%s", len ? "/" : "", path, depth) < 0)
        return NULL;
    return out;
}

/* Give the body of a verb's request, or NULL: no memory, or *WRONG is an
 * argument that JSON cannot say. */
static char *
verb_body(const struct st_verb *v, const struct ctl_words *w,
          const char **wrong)
{
    json_t *o = json_object();
    char *body = NULL;

    for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i] && !*wrong; i++)
        if (w->text[i] && st_verb_arg_kind(v->arg[i]) != ST_VERB_FILE_ANSWER &&
            json_object_set_new(o, st_verb_arg_name(v->arg[i]),
                                json_string(w->text[i])) < 0)
            *wrong = w->text[i];
    if (!*wrong)
        body = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return body;
}

static int
ask(const struct st_verb *v, const struct ctl_words *w)
{
    st_autofree char *target = NULL, *body = NULL;
    const char *wrong = NULL, *method = "POST";
    struct st_api *api = NULL;
    json_t *answer = NULL;
    struct st_err err;
    int rc, status = 0;

    if (v == &ctl_inspect) {
        method = w->update ? "PUT" : "GET";
        target = inspect_target(w);
        body = w->update ? strdup(w->update) : NULL;
    } else {
        if (asprintf(&target, "/v1/%s", v->name) < 0)
            target = NULL;
        body = verb_body(v, w, &wrong);
    }
    if (wrong)
        return st_cmd_fail(ST_EXIT_USAGE, "'%s' is not UTF-8", wrong);
    if (!target || (*method != 'G' && !body))
        return st_cmd_fail(ST_EXIT_FAILED, "no memory");
    rc = st_api_open(w->api, &api, &err);
    if (rc == 0)
        rc = st_api_ask(api, method, target, body, &answer, &err);
    if (rc == 0 && strcmp(method, "GET") == 0)
        print_answer(answer, w->json);
    else if (rc == 0)
        status = answer_write(v, w, answer);
    json_decref(answer);
    st_api_close(api);
    return rc == 0 ? status
                   : st_cmd_fail(rc == -EINVAL ? ST_EXIT_USAGE : ST_EXIT_FAILED,
                                 "%s", err.text);
}

static int
ctl_run(const struct st_cmd_args *a)
{
    struct ctl_words w = {.api = a->text[API]};
    const struct st_verb *v;
    int status;

    if (!a->nrest)
        return st_cmd_fail(ST_EXIT_USAGE, "missing verb, see 'strata ctl "
                                          "--help'");
    v = find_verb(a->rest[0]);
    if (!v)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "unknown verb '%s', see 'strata ctl --help'",
                           a->rest[0]);
    setlocale(LC_CTYPE, ""); /* what the terminal can show */
    status = parse_words(v, &w, a->nrest, a->rest);
    if (!status && w.help)
        verb_help(v);
    else if (!status && !w.api)
        status = st_cmd_fail(ST_EXIT_USAGE, "missing --api PATH, see 'strata "
                                            "ctl --help'");
    else if (!status)
        status = files_read(v, &w);
    if (!status && !w.help)
        status = ask(v, &w);
    for (unsigned i = 0; i < ST_VERB_ARGS; i++)
        free(w.text[i]);
    return status;
}

const struct st_cmd st_cmd_ctl = {
    .name = "ctl",
    .syntax = "VERB [WORD]...",
    .help = "ask a running strata, or change what it serves",
    .more = "Exit status 1 when the server says no; its sentence is on "
            "standard error.\n",
    .options = ctl_options,
    .words = ctl_verbs,
    .run = ctl_run,
};
