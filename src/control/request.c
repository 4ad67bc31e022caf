/* SPDX-License-Identifier: MIT
 *
 * A request, from its first line to its answer; see control_private.h.
 *
 *   create: where to, may it     -- no --> status, and the body is read away
 *     body: kept up to 64 KiB, or 512      |
 *     run:  GET: answer at once -----------+
 *           PUT, POST: suspend, st_graph_do -- done --> resume
 *                                              |         |
 *                                              v         v
 *                                      client gone:    answer
 *                                      abandon, no answer
 *
 * The library (MHD) has one callback for all of these; control.c has it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "control_private.h"
#include "size.h"

extern const unsigned char st_control_page[];
extern const size_t st_control_page_len;

static const char application_json[] = "application/json";

/* ---- Answers ---- */

/* O, which is taken, is the answer. */
static void
request_json(struct control_request *r, unsigned status, json_t *o)
{
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    size_t len = text ? strlen(text) : 0;
    char *line = text ? realloc(text, len + 2) : NULL;

    json_decref(o);
    free(r->answer);
    if (!line) {
        free(text);
        text = NULL;
        line = strdup("{\"error\": \"no memory\"}");
        len = line ? strlen(line) : 0;
        status = 500;
    }
    if (line && text)
        memcpy(line + len++, "\n", 2);
    r->status = status;
    r->type = application_json;
    r->answer = line;
    r->answer_len = len;
}

void
st_request_fail(struct control_request *r, unsigned status,
                const char *sentence)
{
    json_t *o = json_object();

    json_object_set_new(o, "error", st_inspect_text(sentence));
    request_json(r, status, o);
}

static unsigned
request_status(int rc)
{
    static const struct {
        int rc;
        unsigned status;
    } rows[] = {
        {-EINVAL, 400},    {-EACCES, 403}, {-EPERM, 403},  {-ENOENT, 404},
        {-EEXIST, 409},    {-EBUSY, 409},  {-EROFS, 409},  {-E2BIG, 409},
        {-ENOTSUP, 501},   {-ENOSYS, 501}, {-EAGAIN, 503}, {-ESHUTDOWN, 503},
        {-ETIMEDOUT, 504}, {-ENOSPC, 507}, {-ENOMEM, 500},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].rc == rc)
            return rows[i].status;
    return 500;
}

static void
request_fail_rc(struct control_request *r, int rc, const struct st_err *err)
{
    st_request_fail(r, request_status(rc),
                    *err->text ? err->text : st_strerror(rc));
}

static void
answer_header(struct MHD_Response *m, const char *name, const char *value)
{
    if (value)
        MHD_add_response_header(m, name, value);
}

enum MHD_Result
st_request_answer(struct control_request *r)
{
    bool page = r->status == 200 && !r->answer;
    struct MHD_Response *m;
    enum MHD_Result rc;

    if (page)
        m = MHD_create_response_from_buffer(st_control_page_len,
                                            (void *)(uintptr_t)st_control_page,
                                            MHD_RESPMEM_PERSISTENT);
    else
        m = MHD_create_response_from_buffer(r->answer_len, r->answer,
                                            MHD_RESPMEM_MUST_FREE);
    if (!m)
        return MHD_NO;
    r->answer = NULL; /* the library's */
    answer_header(m, "Content-Type",
                  page ? "text/html; charset=utf-8" : r->type);
    answer_header(m, "Cache-Control", "no-store");
    answer_header(m, "X-Content-Type-Options", "nosniff");
    answer_header(m, "Allow", r->allow);
    if (page) {
        /* All of the page is in it; it talks to us alone. */
        answer_header(m, "Content-Security-Policy",
                      "default-src 'self' 'unsafe-inline'; base-uri 'none'; "
                      "form-action 'none'; frame-ancestors 'none'");
        answer_header(m, "Referrer-Policy", "no-referrer");
    }
    if (r->control->stopping || (r->conn && r->conn->refused))
        answer_header(m, "Connection", "close");
    rc = MHD_queue_response(r->mhd, r->status, m);
    MHD_destroy_response(m);
    return rc;
}

/* ---- The first line and the headers ---- */

static const char *
request_header(struct control_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

struct query {
    struct control_request *r;
    bool seen;
};

static enum MHD_Result
request_query(void *arg, enum MHD_ValueKind kind, const char *key,
              const char *value)
{
    struct query *q = arg;
    struct st_err err;
    uint64_t depth;

    (void)kind;
    if (q->r->what != REQUEST_INSPECT || strcmp(key, "depth") != 0 || q->seen) {
        st_err_set(&err, EINVAL, "unknown parameter '%.80s', expected %s", key,
                   q->r->what == REQUEST_INSPECT ? "one depth=N" : "none");
    } else if (st_number_parse("depth", value ? value : "", 1, ST_CONTROL_DEPTH,
                               &depth, &err) == 0) {
        q->r->depth = (unsigned)depth;
        q->seen = true;
        return MHD_YES;
    }
    st_request_fail(q->r, 400, err.text);
    return MHD_NO;
}

/* Does URL begin with PREFIX, and end there or with a slash? Then *REST is what
 * follows. */
static bool
request_below(const char *url, const char *prefix, const char **rest)
{
    size_t n = strlen(prefix);

    if (strncmp(url, prefix, n) != 0 || (url[n] && url[n] != '/'))
        return false;
    *rest = url + n;
    return true;
}

/* What URL is, and the methods that it takes; NULL: nothing. */
static const char *
request_route(struct control_request *r, const char *url, bool put,
              struct st_err *err)
{
    const char *rest;

    if (strcmp(url, "/") == 0 || strcmp(url, "/metrics") == 0 ||
        strcmp(url, "/v1/verbs") == 0) {
        r->what = url[1] == '\0'  ? REQUEST_PAGE
                  : url[1] == 'm' ? REQUEST_METRICS
                                  : REQUEST_VERBS;
        return "GET, HEAD";
    }
    if (request_below(url, "/v1/inspect", &rest)) {
        int rc = st_control_path_parse(rest, &r->path, err);

        r->what = put ? REQUEST_SET : REQUEST_INSPECT;
        if (rc < 0)
            request_fail_rc(r, rc, err);
        return r->path.n ? "GET, HEAD, PUT" : "GET, HEAD";
    }
    if (strncmp(url, "/v1/", 4) == 0)
        r->verb = st_graph_verb(url + 4);
    r->what = REQUEST_VERB;
    st_err_set(err, ENOENT, "there is no '%.80s', GET /v1/verbs has the verbs",
               url);
    return r->verb ? "POST" : NULL;
}

/* Is METHOD one of ALLOW, "GET, HEAD"? */
static bool
request_allowed(const char *allow, const char *method)
{
    size_t n = strlen(method);

    for (const char *p = allow; (p = strstr(p, method)); p += n)
        if ((p == allow || p[-1] == ' ') && (!p[n] || p[n] == ','))
            return true;
    return false;
}

/* May it write, and is the body one that we read? */
static void
request_check_write(struct control_request *r)
{
    /* What curl -d says by itself counts as nothing said. */
    static const char *const verb_types[] = {
        application_json, "application/x-www-form-urlencoded", "", NULL};
    static const char *const set_types[] = {application_json,
                                            "application/x-www-form-urlencoded",
                                            "text/plain",
                                            "application/octet-stream",
                                            "",
                                            NULL};
    static const char *const json_types[] = {application_json, NULL};
    const char *type = request_header(r, "Content-Type");

    r->json = st_control_type_is(type, json_types);
    if (!st_control_origin_ok(request_header(r, "Origin"),
                              request_header(r, "Host")))
        st_request_fail(r, 403, "a page of another origin may not change this");
    else if (!st_control_type_is(type, r->what == REQUEST_SET ? set_types
                                                              : verb_types))
        st_request_fail(r, 415,
                        r->what == REQUEST_SET
                            ? "the body is neither text nor application/json"
                            : "the body is not application/json");
}

/* How many bytes of a body are looked at: more where a file is part of it. */
static size_t
request_room(const struct control_request *r)
{
    for (unsigned i = 0; r->verb && i < ST_VERB_ARGS && r->verb->arg[i]; i++) {
        char kind = st_verb_arg_kind(r->verb->arg[i]);

        if (kind == ST_VERB_FILE_TEXT || kind == ST_VERB_FILE_BYTES)
            return ST_CONTROL_FILE;
    }
    return ST_CONTROL_BODY;
}

static void
request_too_large(struct control_request *r)
{
    char text[64];

    snprintf(text, sizeof(text), "the body is larger than %zu KiB",
             request_room(r) >> 10);
    st_request_fail(r, 413, text);
}

/* ---- Where does the body end? ---- */

struct framing {
    unsigned lengths, codings;
    const char *length;
    bool chunked;
};

static enum MHD_Result
request_framing(void *arg, enum MHD_ValueKind kind, const char *key,
                const char *value)
{
    struct framing *f = arg;

    (void)kind;
    value = value ? value : "";
    if (strcasecmp(key, "Content-Length") == 0) {
        f->lengths++;
        f->length = value;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0) {
        f->codings++;
        f->chunked = strcasecmp(value, "chunked") == 0;
    }
    return MHD_YES;
}

/* The length that was announced, 0 for none. What says two things at once
 * (RFC 9112 6.1, 6.3) or what we cannot read has no end that we know: it is
 * refused and, as a body that is too long, not read. */
static void
request_length(struct control_request *r)
{
    struct framing f = {0};
    const char *why = NULL;

    MHD_get_connection_values(r->mhd, MHD_HEADER_KIND, request_framing, &f);
    if (f.lengths > 1)
        why = "there are several Content-Length headers";
    else if (f.lengths && f.codings)
        why = "Content-Length and Transfer-Encoding exclude each other";
    else if (f.codings > 1 || (f.codings && !f.chunked))
        why = "the only Transfer-Encoding that is known here is chunked";
    if (why) {
        st_request_fail(r, 400, why);
        r->announced = UINT64_MAX;
        return;
    }
    r->announced = f.length ? strtoull(f.length, NULL, 10) : 0;
    if (!r->status && r->announced > request_room(r))
        request_too_large(r);
}

struct control_request *
st_request_create(struct control_conn *conn, struct MHD_Connection *mhd,
                  const char *url, const char *method)
{
    struct control_request *r = calloc(1, sizeof(*r));
    struct query q = {.r = r};
    struct st_err err = {""};
    const char *allow;

    if (!r)
        return NULL;
    r->control = conn->control;
    r->conn = conn;
    r->mhd = mhd;
    r->depth = ST_CONTROL_DEPTH;
    conn->request = r;
    st_list_append(&r->control->requests, &r->link);
    if (conn->refused) {
        st_request_fail(r, conn->refused, conn->why);
        return r;
    }
    allow = request_route(r, url, strcmp(method, "PUT") == 0, &err);
    if (!allow) {
        st_request_fail(r, 404, err.text);
    } else if (!request_allowed(allow, method)) {
        st_err_set(&err, EINVAL, "%.20s is not for this, only %s", method,
                   allow);
        st_request_fail(r, 405, err.text);
        r->allow = allow;
    } else if (!r->status && r->what >= REQUEST_SET) {
        request_check_write(r);
    }
    if (!r->status)
        MHD_get_connection_values(mhd, MHD_GET_ARGUMENT_KIND, request_query,
                                  &q);
    request_length(r);
    return r;
}

/* ---- The body ---- */

bool
st_request_body(struct control_request *r, const char *data, size_t len)
{
    r->got += len;
    if (r->got > ST_CONTROL_DISCARD)
        return false;
    if (r->status)
        return true; /* decided: read it away, or the client might never see
                      * the answer */
    if (r->got > request_room(r)) {
        request_too_large(r);
        return true;
    }
    if (r->len + len > r->room) {
        size_t room = st_max(2 * r->room, st_max(r->len + len, 1024));
        char *body = realloc(r->body, room);

        if (!body) {
            st_request_fail(r, 500, "no memory");
            return true;
        }
        r->body = body;
        r->room = room;
    }
    memcpy(r->body + r->len, data, len);
    r->len += len;
    return true;
}

/* ---- Edits ---- */

static void
request_put(struct control_request *r)
{
    if (r->conn || r->editing)
        return;
    st_list_remove(&r->link);
    st_control_kick(r->control); /* which may wait for the last one */
    st_control_path_free(&r->path);
    free(r->answer);
    free(r->body);
    free(r);
}

void
st_request_end(struct control_request *r)
{
    r->conn->request = NULL;
    r->conn = NULL;
    r->mhd = NULL;
    request_put(r);
}

static void
request_resume(struct control_request *r)
{
    struct control_conn *conn = r->conn;

    if (!r->suspended)
        return;
    r->suspended = false;
    if (conn->watching)
        st_watch_remove(r->control->loop, &conn->watch);
    conn->watching = false;
    st_control_patience(conn, false);
    MHD_resume_connection(r->mhd);
    st_control_kick(r->control);
}

/* {"ok": true}, with what the verb has to say. Gives a reference. */
static json_t *
request_done(const struct st_graph_edit *e)
{
    json_t *o = json_pack("{s:b}", "ok", 1);

    for (unsigned i = 0; e->answer && i < ST_VERB_ARGS && e->verb->arg[i]; i++)
        if (st_verb_arg_kind(e->verb->arg[i]) == ST_VERB_FILE_ANSWER)
            json_object_set_new(o, st_verb_arg_name(e->verb->arg[i]),
                                json_string(e->answer));
    return o;
}

static void
request_edited(struct st_graph_edit *e, int rc)
{
    struct control_request *r = e->arg;

    r->editing = false;
    if (rc < 0)
        request_fail_rc(r, rc, &e->err);
    else
        request_json(r, 200, request_done(e));
    request_resume(r);
}

static void
request_freed(struct st_graph_edit *e)
{
    struct control_request *r = e->arg;

    r->editing = false;
    request_put(r);
}

void
st_request_abandon(struct control_request *r, unsigned status,
                   const char *sentence)
{
    if (!r->suspended)
        return;
    if (status)
        st_request_fail(r, status, sentence);
    else
        r->cut = true;
    request_resume(r); /* R stays: its connection has not ended yet */
    st_graph_abandon(&r->edit, request_freed);
}

/* The library does not look at a suspended connection; has the client gone?
 * One that only has nothing more to say waits for its answer. */
static void
request_watched(struct st_watch *w, unsigned events)
{
    struct control_conn *conn = st_container(w, struct control_conn, watch);
    struct pollfd p = {.fd = conn->fd, .events = 0};

    (void)events;
    if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)))
        st_request_abandon(conn->request, 0, NULL);
}

static void
request_edit(struct control_request *r, const struct st_verb *v,
             const char *const arg[ST_VERB_ARGS])
{
    struct control_conn *conn = r->conn;

    MHD_suspend_connection(r->mhd);
    r->suspended = r->editing = true;
    st_control_patience(conn, true);
    conn->watch = (struct st_watch){
        .ready = request_watched, .fd = conn->fd, .events = EPOLLIN};
    conn->watching = st_watch_add(r->control->loop, &conn->watch) == 0;
    r->edit.done = request_edited;
    r->edit.arg = r;
    st_graph_do(r->control->opts.graph, v, arg, &r->edit);
}

static void
request_set(struct control_request *r)
{
    const struct st_verb *set = st_graph_verb("set");
    const char *arg[ST_VERB_ARGS] = {r->path.encoded};
    st_autofree char *value = NULL;
    struct st_err err = {""};
    int rc = st_control_value_parse(r->body, r->len, r->json, &value, &err);

    arg[1] = value;
    if (rc < 0)
        request_fail_rc(r, rc, &err);
    else if (!set)
        st_request_fail(r, 501, "values cannot be set here");
    else
        request_edit(r, set, arg);
}

static void
request_verb(struct control_request *r)
{
    char *arg[ST_VERB_ARGS];
    struct st_err err = {""};
    int rc = st_control_arguments_parse(r->verb, r->body, r->len, arg, &err);

    if (rc < 0)
        request_fail_rc(r, rc, &err);
    else
        request_edit(r, r->verb, (const char *const *)arg);
    for (unsigned i = 0; i < ST_VERB_ARGS; i++)
        free(arg[i]);
}

/* ---- All of it is there ---- */

static void
request_inspect(struct control_request *r)
{
    struct st_err err = {""};
    json_t *o =
        st_inspect_path(r->control->opts.graph, r->control->opts.version,
                        &r->path, r->depth, &err);

    if (o || !*err.text)
        request_json(r, 200, o);
    else
        st_request_fail(r, 404, err.text);
}

static void
request_metrics(struct control_request *r)
{
    char *text = st_metrics_text(r->control->opts.graph,
                                 r->control->opts.version, &r->answer_len);

    if (!text) {
        st_request_fail(r, 500, "no memory");
        return;
    }
    r->answer = text;
    r->type = "text/plain; version=0.0.4; charset=utf-8";
    r->status = 200;
}

void
st_request_run(struct control_request *r)
{
    switch (r->what) {
    case REQUEST_PAGE:
        r->status = 200;
        break;
    case REQUEST_METRICS:
        request_metrics(r);
        break;
    case REQUEST_VERBS:
        request_json(r, 200, st_inspect_verbs());
        break;
    case REQUEST_INSPECT:
        request_inspect(r);
        break;
    case REQUEST_SET:
        request_set(r);
        break;
    case REQUEST_VERB:
        request_verb(r);
        break;
    }
}
