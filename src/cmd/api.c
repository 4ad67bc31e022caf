/* SPDX-License-Identifier: MIT
 *
 * The client's side of the control socket; see api.h.
 */
#include "api.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <wchar.h>
#include <wctype.h>

#include "mem.h"

struct st_api {
    const char *path; /* borrowed */
    CURL *easy;
    CURLM *multi;
    struct curl_slist *json, *text; /* headers */
    char *body;                     /* owned; of the answer */
    size_t len, cap;
    bool under_way, too_long;
    char why[CURL_ERROR_SIZE];
};

/* ---- Answers ---- */

static size_t
body_write(char *data, size_t size, size_t n, void *arg)
{
    struct st_api *a = arg;

    n *= size;
    if (n > ST_API_BODY_MAX - a->len) {
        a->too_long = true;
        return 0;
    }
    if (a->len + n > a->cap) {
        size_t cap = a->len + n + (a->len + n) / 2;
        char *body = realloc(a->body, cap);

        if (!body)
            return 0;
        a->body = body;
        a->cap = cap;
    }
    memcpy(a->body + a->len, data, n);
    a->len += n;
    return n;
}

/* Why no answer came. */
static int
transfer_failed(struct st_api *a, CURLcode code, struct st_err *err)
{
    long number = 0;

    curl_easy_getinfo(a->easy, CURLINFO_OS_ERRNO, &number);
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        if (!number)
            number = ECONNREFUSED;
        return st_err_set(err, (int)number, "no server at '%s': %s", a->path,
                          strerror((int)number));
    case CURLE_OPERATION_TIMEDOUT:
        return st_err_set(err, ETIMEDOUT,
                          "the server at '%s' did not answer within %d s",
                          a->path, ST_API_TIMEOUT_MS / 1000);
    case CURLE_WRITE_ERROR:
        if (!a->too_long)
            return st_err_set(err, ENOMEM, "no memory");
        return st_err_set(err, EPROTO,
                          "the server at '%s' answered with more than %d MiB",
                          a->path, ST_API_BODY_MAX >> 20);
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return st_err_set(err, ECONNRESET,
                          "the server at '%s' closed without a whole answer",
                          a->path);
    default:
        return st_err_set(err, EPROTO,
                          "what listens at '%s' is not Strata's control "
                          "socket: %s",
                          a->path, *a->why ? a->why : curl_easy_strerror(code));
    }
}

/* What a whole answer says. */
static int
answer(struct st_api *a, json_t **out, struct st_err *err)
{
    const char *sentence;
    json_error_t where;
    long status = 0;
    json_t *j = NULL;

    curl_easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &status);
    if (a->len)
        j = json_loadb(a->body, a->len, JSON_DECODE_ANY, &where);
    else if (status == 204)
        j = json_object();
    sentence = json_string_value(json_object_get(j, "error"));
    if (status / 100 != 2 && sentence)
        st_api_printable(err->text, sizeof(err->text), sentence,
                         sizeof(err->text));
    else if (status / 100 != 2)
        st_err_set(err, EPROTO,
                   "what listens at '%s' is not Strata's control socket: it "
                   "answered with status %ld and no sentence",
                   a->path, status);
    else if (!j)
        st_err_set(err, EPROTO,
                   "what listens at '%s' is not Strata's control socket: it "
                   "answered with what is not JSON",
                   a->path);
    if (status / 100 == 2 && j) {
        *out = j;
        return 0;
    }
    status = status / 100 != 2 && sentence ? -EREMOTEIO : -EPROTO;
    json_decref(j);
    return (int)status;
}

/* ---- Requests ---- */

/* Give the headers of a request with a body of TYPE, or NULL. */
static struct curl_slist *
headers(const char *type)
{
    st_autofree char *line = NULL;
    /* libcurl would ask first whether it may send a long body. */
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");

    if (asprintf(&line, "Content-Type: %s", type) < 0)
        line = NULL;
    if (list && (!line || !curl_slist_append(list, line))) {
        curl_slist_free_all(list);
        list = NULL;
    }
    return list;
}

int
st_api_open(const char *path, struct st_api **out, struct st_err *err)
{
    struct sockaddr_un at;
    struct st_api *a;
    size_t len = strlen(path);

    if (!len || len >= sizeof(at.sun_path))
        return st_err_set(err, EINVAL,
                          "--api '%s' is %s, expected a path of up to %zu "
                          "bytes",
                          path, len ? "too long" : "empty",
                          sizeof(at.sun_path) - 1);
    a = calloc(1, sizeof(*a));
    if (!a)
        return st_err_set(err, ENOMEM, "no memory");
    if (curl_global_init(CURL_GLOBAL_NOTHING) != CURLE_OK) {
        free(a);
        return st_err_set(err, ENOMEM, "libcurl cannot start");
    }
    a->path = path;
    a->easy = curl_easy_init();
    a->multi = curl_multi_init();
    a->json = headers("application/json");
    a->text = headers("text/plain; charset=utf-8");
    if (!a->easy || !a->multi || !a->json || !a->text) {
        st_api_close(a);
        return st_err_set(err, ENOMEM, "no memory");
    }
    *out = a;
    return 0;
}

void
st_api_close(struct st_api *a)
{
    if (!a)
        return;
    if (a->under_way)
        curl_multi_remove_handle(a->multi, a->easy);
    curl_easy_cleanup(a->easy);
    curl_multi_cleanup(a->multi);
    curl_slist_free_all(a->json);
    curl_slist_free_all(a->text);
    curl_global_cleanup();
    free(a->body);
    free(a);
}

int
st_api_start(struct st_api *a, const char *method, const char *target,
             const char *body, struct st_err *err)
{
    st_autofree char *url = NULL;
    CURLcode rc = CURLE_OK;

    if (asprintf(&url, "http://strata%s", target) < 0) {
        url = NULL;
        return st_err_set(err, ENOMEM, "no memory");
    }
    curl_easy_reset(a->easy); /* keeps the connection */
    a->len = 0;
    a->too_long = false;
    *a->why = '\0';
#define SET(option, value)                                                     \
    (rc = rc ? rc : curl_easy_setopt(a->easy, CURLOPT_##option, value))
    SET(URL, url);
    SET(UNIX_SOCKET_PATH, a->path);
    SET(PATH_AS_IS, 1L); /* ".." is a name, not a step */
    SET(PROXY, "");      /* whatever http_proxy says */
    SET(NOSIGNAL, 1L);
    SET(TIMEOUT_MS, (long)ST_API_TIMEOUT_MS);
    SET(ERRORBUFFER, a->why);
    SET(HTTPHEADER, strcmp(method, "POST") == 0 ? a->json : a->text);
    SET(WRITEFUNCTION, body_write);
    SET(WRITEDATA, a);
    if (body) {
        SET(POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        SET(POSTFIELDS, body);
    }
    SET(CUSTOMREQUEST, method);
#undef SET
    if (rc || curl_multi_add_handle(a->multi, a->easy) != CURLM_OK)
        return st_err_set(err, ENOMEM, "libcurl: %s", curl_easy_strerror(rc));
    a->under_way = true;
    return 0;
}

int
st_api_wait(struct st_api *a, struct pollfd *fds, unsigned nfds, int timeout_ms,
            json_t **out, struct st_err *err)
{
    struct curl_waitfd extra[4];
    int running = 0, left;
    CURLMsg *m = NULL;
    CURLcode code;

    if (a->under_way) {
        curl_multi_perform(a->multi, &running);
        m = running ? NULL : curl_multi_info_read(a->multi, &left);
    }
    if (!m) {
        if (nfds > 4)
            return st_err_set(err, EINVAL, "too many descriptors");
        for (unsigned i = 0; i < nfds; i++)
            extra[i] = (struct curl_waitfd){fds[i].fd, CURL_WAIT_POLLIN, 0};
        if (timeout_ms < 0)
            timeout_ms = ST_API_TIMEOUT_MS;
        curl_multi_poll(a->multi, extra, nfds, timeout_ms, NULL);
        for (unsigned i = 0; i < nfds; i++)
            fds[i].revents = extra[i].revents;
        return -EAGAIN;
    }
    code = m->data.result;
    curl_multi_remove_handle(a->multi, a->easy);
    a->under_way = false;
    return code ? transfer_failed(a, code, err) : answer(a, out, err);
}

int
st_api_ask(struct st_api *a, const char *method, const char *target,
           const char *body, json_t **out, struct st_err *err)
{
    int rc = st_api_start(a, method, target, body, err);

    if (rc < 0)
        return rc;
    do
        rc = st_api_wait(a, NULL, 0, -1, out, err);
    while (rc == -EAGAIN);
    return rc;
}

/* ---- Words ---- */

char *
st_api_escape(const char *text, const char *keep)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz0123456789-._~";
    char *out = malloc(3 * strlen(text) + 1), *p = out;

    for (; out && *text; text++)
        if (strchr(plain, *text) || strchr(keep, *text))
            *p++ = *text;
        else
            p += sprintf(p, "%%%02X", (unsigned char)*text);
    if (out)
        *p = '\0';
    return out;
}

/* The next character of TEXT: how many bytes it has, *WIDTH columns, and *BAD
 * if a terminal must not see it. */
static size_t
next_char(const char *text, size_t left, int *width, bool *bad)
{
    mbstate_t state = {0};
    wchar_t c = 0;
    size_t n = mbrtowc(&c, text, left, &state);

    *width = n <= left && iswprint((wint_t)c) ? wcwidth(c) : -1;
    *bad = *width < 0;
    if (*bad)
        *width = 1;
    return n && n <= left ? n : 1;
}

int
st_api_printable(char *out, size_t cap, const char *text, int columns)
{
    size_t left = strlen(text), len = 0, n;
    int all = 0, used = 0, width;
    bool bad;

    for (size_t at = 0; at < left && all <= columns; at += n, all += width)
        n = next_char(text + at, left - at, &width, &bad);
    for (; left; left -= n, text += n, used += width) {
        n = next_char(text, left, &width, &bad);
        if (used + width > columns - (all > columns) || len + n + 2 > cap)
            break;
        memcpy(out + len, bad ? "?" : text, bad ? 1 : n);
        len += bad ? 1 : n;
    }
    if (left && used < columns && len + 2 <= cap) {
        out[len++] = '~';
        used++;
    }
    out[len] = '\0';
    return used;
}
