/* SPDX-License-Identifier: MIT
 *
 * Paths, queries and bodies: what a client can say; see control_private.h.
 * Whatever the bytes are, the answer is a value or one sentence.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "control_private.h"

/* ---- Paths ---- */

static int
hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Decode TEXT in place. False: it is not well encoded, or has a NUL. */
static bool
path_decode(char *text)
{
    char *to = text;

    for (const char *p = text; *p; p++) {
        int high, low;

        if (*p != '%') {
            *to++ = *p;
            continue;
        }
        high = hex(p[1]);
        low = high < 0 ? -1 : hex(p[2]);
        if (low < 0 || (!high && !low))
            return false;
        *to++ = (char)(high << 4 | low);
        p += 2;
    }
    *to = '\0';
    return true;
}

/* Is the last segment so far the N of "layers/N"? */
static bool
path_at_layer(const struct st_control_path *p)
{
    return p->n >= 2 && strcmp(p->segment[p->n - 2], "layers") == 0 &&
           p->segment[p->n - 1][strspn(p->segment[p->n - 1], "0123456789")] ==
               '\0';
}

int
st_control_path_parse(const char *raw, struct st_control_path *out,
                      struct st_err *err)
{
    char *rest, *to;
    size_t len;

    memset(out, 0, sizeof(*out));
    raw += *raw == '/';
    len = strlen(raw);
    len -= len && raw[len - 1] == '/';
    out->decoded = strndup(raw, len);
    out->encoded = to = malloc(len + 1);
    if (!out->decoded || !out->encoded)
        return st_err_set(err, ENOMEM, "no memory");
    *to = '\0';
    rest = len ? out->decoded : NULL;
    while (rest) {
        char *segment = strsep(&rest, "/");
        size_t n = strlen(segment);

        if (out->n == ST_CONTROL_SEGMENTS)
            return st_err_set(err, EINVAL, "a path of more than %d segments",
                              ST_CONTROL_SEGMENTS);
        if (strcmp(segment, "backing") == 0 && path_at_layer(out))
            continue;
        if (out->n)
            *to++ = '/';
        to = stpcpy(to, segment);
        if (!path_decode(segment))
            return st_err_set(err, EINVAL,
                              "'%.*s' is not percent-encoded, expected two hex "
                              "digits other than 00 behind each %%",
                              (int)st_min(n, 80), to - n);
        out->segment[out->n++] = segment;
    }
    return 0;
}

void
st_control_path_free(struct st_control_path *p)
{
    free(p->decoded);
    free(p->encoded);
    memset(p, 0, sizeof(*p));
}

/* ---- Bodies ---- */

static json_t *
body_json(const char *body, size_t len, size_t flags, struct st_err *err)
{
    json_error_t error;
    json_t *o = json_loadb(body, len, flags | JSON_REJECT_DUPLICATES, &error);

    if (!o)
        st_err_set(err, EINVAL, "no JSON: %s (line %d, column %d)", error.text,
                   error.line, error.column);
    return o;
}

/* Give the text of a string, a number, or if BOOLS of true and false. 0,
 * -EINVAL (without a sentence), -ENOMEM. */
static int
scalar(const json_t *value, bool bools, char **out)
{
    if (json_is_string(value))
        *out = strdup(json_string_value(value));
    else if (json_is_number(value))
        *out = json_dumps(value, JSON_ENCODE_ANY);
    else if (json_is_boolean(value) && bools)
        *out = strdup(json_is_true(value) ? "1" : "0");
    else
        return -EINVAL;
    return *out ? 0 : -ENOMEM;
}

static int
argument_take(const struct st_verb *v, const char *name, const json_t *value,
              char *arg[ST_VERB_ARGS], struct st_err *err)
{
    for (unsigned i = 0; i < ST_VERB_ARGS && v->arg[i]; i++) {
        const char *is = st_verb_arg_name(v->arg[i]);
        char kind = st_verb_arg_kind(v->arg[i]);
        int rc;

        if (strcmp(is, name) != 0)
            continue;
        if (kind == ST_VERB_FILE_ANSWER)
            return st_err_set(err, EINVAL, "'%s' is what the answer has", is);
        if (kind == ST_VERB_FILE_TEXT && json_is_object(value)) {
            arg[i] = json_dumps(value, JSON_COMPACT);
            rc = arg[i] ? 0 : -ENOMEM;
        } else {
            rc = scalar(value, false, &arg[i]);
        }
        return rc == -EINVAL ? st_err_set(err, EINVAL,
                                          "'%s' is neither a string nor a "
                                          "number",
                                          is)
               : rc          ? st_err_set(err, -rc, "no memory")
                             : 0;
    }
    return st_err_set(err, EINVAL, "%s has no argument '%.80s', it is: %s %s",
                      v->name, name, v->name, v->syntax);
}

int
st_control_arguments_parse(const struct st_verb *v, const char *body,
                           size_t len, char *arg[ST_VERB_ARGS],
                           struct st_err *err)
{
    json_t *o, *value;
    const char *name;
    int rc = 0;

    memset(arg, 0, ST_VERB_ARGS * sizeof(*arg));
    if (!len)
        return 0;
    o = body_json(body, len, 0, err);
    if (!o)
        return -EINVAL;
    if (!json_is_object(o))
        rc = st_err_set(err, EINVAL, "the body is not a JSON object");
    json_object_foreach(o, name, value)
    {
        if (rc == 0)
            rc = argument_take(v, name, value, arg, err);
    }
    json_decref(o);
    return rc;
}

int
st_control_value_parse(const char *body, size_t len, bool json, char **out,
                       struct st_err *err)
{
    json_t *value;
    int rc;

    *out = NULL;
    body = body ? body : "";
    if (!json) {
        if (memchr(body, '\0', len))
            return st_err_set(err, EINVAL, "the value has a NUL in it");
        len -= len && body[len - 1] == '\n';
        *out = strndup(body, len);
        return *out ? 0 : st_err_set(err, ENOMEM, "no memory");
    }
    value = body_json(body, len, JSON_DECODE_ANY, err);
    if (!value)
        return -EINVAL;
    rc = scalar(value, true, out);
    json_decref(value);
    if (rc < 0)
        st_err_set(err, -rc,
                   rc == -EINVAL
                       ? "a value is a string, a number, true or false"
                       : "no memory");
    return rc;
}

/* ---- Headers ---- */

bool
st_control_type_is(const char *type, const char *const *types)
{
    size_t len;

    type = type ? type : "";
    len = strcspn(type, "; \t");

    for (; *types; types++)
        if (strlen(*types) == len && strncasecmp(type, *types, len) == 0)
            return true;
    return false;
}

/* "null" is what a page without a name of its own says: not us. */
bool
st_control_origin_ok(const char *origin, const char *host)
{
    if (!origin)
        return true;
    if (strncasecmp(origin, "http://", 7) == 0)
        origin += 7;
    else if (strncasecmp(origin, "https://", 8) == 0)
        origin += 8;
    else
        return false;
    return host && strcasecmp(origin, host) == 0;
}
