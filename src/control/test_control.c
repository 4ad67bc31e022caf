/* SPDX-License-Identifier: MIT
 *
 * Requests to the control socket and their answers: real sockets on a real
 * loop, above a graph that does as it is told.
 */
#include "test_rig.h"

/* ---- Reading ---- */

static void
each_address_answers_get_and_head(void **state)
{
    static const struct {
        const char *path, *type;
    } rows[] = {
        {"/", "text/html; charset=utf-8\r"},
        {"/metrics", "text/plain; version=0.0.4; charset=utf-8\r"},
        {"/v1/verbs", "application/json\r"},
        {"/v1/inspect", "application/json\r"},
        {"/v1/inspect/", "application/json\r"},
        {"/v1/inspect/disks/a", "application/json\r"},
        {"/v1/inspect/disks/a/size", "application/json\r"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[80];
        const char *type;

        snprintf(line, sizeof(line), "GET %s", rows[i].path);
        assert_int_equal(rig_ask(&r, line, "", NULL, &answer), 200);
        type = rig_header(&answer, "content-type: ");
        assert_memory_equal(type, rows[i].type, strlen(rows[i].type));
        assert_true(answer.len > 0);
        assert_non_null(rig_header(&answer, "cache-control: no-store"));
        snprintf(line, sizeof(line), "HEAD %s", rows[i].path);
        assert_int_equal(rig_ask(&r, line, "", NULL, &answer), 200);
        assert_true(answer.len > 0);
    }
    rig_stop(&r);
}

static void
the_page_may_load_nothing_from_elsewhere(void **state)
{
    struct rig r;
    const char *policy;

    (void)state;
    rig_start(&r, 0);
    rig_ask(&r, "GET /", "", NULL, &answer);
    policy = rig_header(&answer, "content-security-policy: ");
    assert_non_null(policy);
    assert_memory_equal(policy, "default-src 'self' 'unsafe-inline';", 35);

    assert_non_null(strcasestr(answer.body, "<!doctype html>"));
    rig_stop(&r);
}

static void
a_path_leads_to_one_value(void **state)
{
    static const struct {
        const char *path, *value;
    } rows[] = {
        {"disks/a/size", "1048576\n"},
        {"disks/a/policy", "\"report\"\n"},
        {"disks/a/backend/kind", "\"delay\"\n"},
        {"disks/a/backend/read_ns", "7000000\n"},
        {"disks/a/backend/inner/layers/0/sector_count", "2048\n"},
        {"disks/a/backend/inner/layers/0/backing/sector_count", "2048\n"},
        {"disks/a/backend/inner/layers/1/visible_sector_count", "2048\n"},
        {"disks/b%20%22%5c%2F%0A/size/", "4194304\n"},
        {"doors/nbd/exports//disk", "\"a\"\n"},
        {"doors/nbd/exports/e%2f%221/read_only", "1\n"},
        {"doors/nbd/requests", "0\n"},
        {"caps/api-clients/limit", "64\n"},
        {"version", "\"1.2.3\"\n"},
        {"engine", "\"threads\"\n"},
        {"disks/a/latency/read?depth=1",
         "{\"count\":0,\"sum_ns\":0,\"p50_ns\":0,\"p99_ns\":0,\"max_ns\":0}\n"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[120];

        snprintf(line, sizeof(line), "GET /v1/inspect/%s", rows[i].path);
        if (rig_ask(&r, line, "", NULL, &answer) != 200 ||
            strcmp(answer.body, rows[i].value) != 0)
            fail_msg("%s: %d %s", line, answer.status, answer.body);
    }
    rig_stop(&r);
}

static void
depth_cuts_the_tree(void **state)
{
    json_t *o;
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    assert_int_equal(rig_ask(&r, "GET /v1/inspect?depth=2", "", NULL, &answer),
                     200);
    o = json_loadb(answer.body, answer.len, 0, NULL);
    assert_true(
        json_is_null(json_object_get(json_object_get(o, "disks"), "a")));
    assert_true(json_is_string(json_object_get(o, "version")));
    json_decref(o);
    rig_ask(&r, "GET /v1/inspect/disks?depth=2", "", NULL, &answer);
    o = json_loadb(answer.body, answer.len, 0, NULL);
    assert_true(
        json_is_integer(json_object_get(json_object_get(o, "a"), "size")));
    assert_true(
        json_is_null(json_object_get(json_object_get(o, "a"), "backend")));
    json_decref(o);
    assert_error(&r, "GET /v1/inspect?depth=0", "", NULL, 400, "depth");
    assert_error(&r, "GET /v1/inspect?depth=x", "", NULL, 400, "'x'");
    assert_error(&r, "GET /v1/inspect?depth=1&depth=1", "", NULL, 400, "depth");
    assert_error(&r, "GET /v1/inspect?width=1", "", NULL, 400, "'width'");
    assert_error(&r, "GET /metrics?depth=1", "", NULL, 400, "'depth'");
    rig_stop(&r);
}

static void
what_is_not_there_is_named(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    assert_error(&r, "GET /v1/inspect/disk/a", "", NULL, 404,
                 "there is no 'disk' in the tree");
    assert_error(&r, "GET /v1/inspect/disks/none/size", "", NULL, 404,
                 "there is no 'none' in disks");
    assert_error(&r, "GET /v1/inspect/disks/a/backend/x/y/z", "", NULL, 404,
                 "there is no 'x' in backend");
    assert_error(&r, "GET /v1/inspect/disks/a/size/x", "", NULL, 404, "'x'");
    assert_error(&r, "GET /v1/nothing", "", NULL, 404, "/v1/nothing");
    assert_error(&r, "GET /v1/inspection", "", NULL, 404, "/v1/inspection");
    assert_error(&r, "GET /favicon.ico", "", NULL, 404, "/favicon.ico");
    assert_error(&r, "GET /v1/inspect/a%2", "", NULL, 400, "percent-encoded");
    assert_error(&r, "GET /v1/inspect/a%00", "", NULL, 400, "percent-encoded");
    assert_error(&r, "GET /v1/inspect/%zz/a", "", NULL, 400, "'%zz'");
    rig_stop(&r);
}

static void
other_methods_are_told_which(void **state)
{
    static const struct {
        const char *line, *allow;
    } rows[] = {
        {"POST /", "GET, HEAD\r"},
        {"DELETE /metrics", "GET, HEAD\r"},
        {"PUT /v1/inspect", "GET, HEAD\r"},
        {"OPTIONS /v1/inspect/disks", "GET, HEAD, PUT\r"},
        {"POST /v1/inspect/disks", "GET, HEAD, PUT\r"},
        {"GET /v1/note", "POST\r"},
        {"EA /v1/inspect", "GET, HEAD\r"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *allow;

        assert_error(&r, rows[i].line, "", "{}", 405, "is not for this");
        allow = rig_header(&answer, "allow: ");
        assert_non_null(allow);
        assert_memory_equal(allow, rows[i].allow, strlen(rows[i].allow));
    }
    rig_stop(&r);
}

/* ---- Writing ---- */

static void
put_sets_a_value(void **state)
{
    static const struct {
        const char *line, *headers, *body, *path, *value;
    } rows[] = {
        {"PUT /v1/inspect/disks/a/size", "", "2M\n", "disks/a/size", "2M"},
        {"PUT /v1/inspect/disks/a%2Fb/x/", "Content-Type: text/plain\r\n",
         "a\nb\n\n", "disks/a%2Fb/x", "a\nb\n"},
        {"PUT /v1/inspect/a/layers/1/backing/x", "", "", "a/layers/1/x", ""},
        {"PUT /v1/inspect/a/backing", "", "\"q\"", "a/backing", "\"q\""},
        {"PUT /v1/inspect/a", "Content-Type: application/json\r\n",
         " \"q\\u00e9\" ", "a", "q\xc3\xa9"},
        {"PUT /v1/inspect/a",
         "content-type: Application/JSON; charset=utf-8\r\n", "42", "a", "42"},
        {"PUT /v1/inspect/a", "Content-Type: application/json\r\n", "true", "a",
         "1"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(
            rig_ask(&r, rows[i].line, rows[i].headers, rows[i].body, &answer),
            200);
        assert_string_equal(answer.body, "{\"ok\":true}\n");
        sync_with(&r);
        assert_string_equal(r.graph.first, rows[i].path);
        assert_string_equal(r.graph.second, rows[i].value);
    }
    assert_error(&r, "PUT /v1/inspect/a", "Content-Type: application/json\r\n",
                 "{}", 400, "a value is");
    assert_error(&r, "PUT /v1/inspect/a", "Content-Type: application/json\r\n",
                 "1 2", 400, "no JSON");
    assert_error(&r, "PUT /v1/inspect/a", "Content-Type: image/png\r\n", "1",
                 415, "neither text nor");
    sync_with(&r);
    assert_int_equal(r.graph.done, sizeof(rows) / sizeof(rows[0]));
    rig_stop(&r);
}

static void
post_runs_a_verb(void **state)
{
    static const struct {
        const char *headers, *body, *a, *b;
    } rows[] = {
        {"", "{\"a\": \"x\", \"b\": \"y\"}", "x", "y"},
        {"Content-Type: application/json\r\n", "{\"b\": 7, \"a\": -1}", "-1",
         "7"},
        {"Content-Type: application/x-www-form-urlencoded\r\n", "{\"a\": 1.5}",
         "1.5", "(none)"},
        {"", "{}", "(none)", "(none)"},
        {"", "", "(none)", "(none)"},
        {"Origin: http://strata\r\n", "{\"a\": \"\\u20ac\"}", "\xe2\x82\xac",
         "(none)"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(rig_ask(&r, "POST /v1/note", rows[i].headers,
                                 rows[i].body, &answer),
                         200);
        assert_string_equal(answer.body, "{\"ok\":true}\n");
        sync_with(&r);
        assert_string_equal(r.graph.first, rows[i].a);
        assert_string_equal(r.graph.second, rows[i].b);
    }
    rig_stop(&r);
}

static void
a_bad_body_starts_nothing(void **state)
{
    static const struct {
        const char *headers, *body;
        int status;
        const char *sentence;
    } rows[] = {
        {"", "{", 400, "no JSON"},
        {"", "[]", 400, "not a JSON object"},
        {"", "\"a\"", 400, "no JSON"},
        {"", "{} x", 400, "no JSON"},
        {"", "{\"a\": \"\xff\"}", 400, "no JSON"},
        {"", "{\"a\": \"\\u0000\"}", 400, "no JSON"},
        {"", "{\"a\": 1, \"a\": 2}", 400, "duplicate"},
        {"", "{\"a\": 99999999999999999999}", 400, "no JSON"},
        {"", "{\"a\": null}", 400, "'a' is neither a string nor a number"},
        {"", "{\"a\": true}", 400, "'a' is neither"},
        {"", "{\"a\": {}}", 400, "'a' is neither"},
        {"", "{\"b\": []}", 400, "'b' is neither"},
        {"", "{\"?b\": 1}", 400, "no argument '?b'"},
        {"", "{\"a\": 1, \"c\": 1}", 400, "no argument 'c', it is: note A [B]"},
        {"Content-Type: text/plain\r\n", "{}", 415, "application/json"},
        {"Content-Type: multipart/form-data\r\n", "{}", 415, "json"},
        {"Origin: http://evil\r\n", "{}", 403, "another origin"},
        {"Origin: https://strata.evil\r\n", "{}", 403, "another origin"},
        {"Origin: null\r\n", "{}", 403, "another origin"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_error(&r, "POST /v1/note", rows[i].headers, rows[i].body,
                     rows[i].status, rows[i].sentence);
    sync_with(&r);
    assert_int_equal(r.graph.done, 0);
    rig_stop(&r);
}

static void
failures_have_the_status_that_fits(void **state)
{
    static const struct {
        int rc, status;
    } rows[] = {
        {EINVAL, 400}, {EACCES, 403},    {ENOENT, 404},  {EEXIST, 409},
        {EBUSY, 409},  {EROFS, 409},     {ENOTSUP, 501}, {ESHUTDOWN, 503},
        {EIO, 500},    {ETIMEDOUT, 504}, {ENOSPC, 507},  {ENOMEM, 500},
        {E2BIG, 409},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char body[40], sentence[40];

        snprintf(body, sizeof(body), "{\"errno\": %d}", rows[i].rc);
        snprintf(sentence, sizeof(sentence), "it said %d", rows[i].rc);
        assert_error(&r, "POST /v1/fail", "", body, rows[i].status, sentence);
    }
    rig_stop(&r);
}

static void
a_large_body_is_refused_and_the_answer_is_seen(void **state)
{
    static char body[900 << 10];
    struct rig r;
    int fd;

    (void)state;
    rig_start(&r, 0);
    memset(body, ' ', sizeof(body) - 1);
    memcpy(body, "{}", 2);
    body[64 << 10] = '\0';
    assert_int_equal(rig_ask(&r, "POST /v1/note", "", body, &answer), 200);
    body[64 << 10] = ' ';
    body[(64 << 10) + 1] = '\0';
    assert_error(&r, "POST /v1/note", "", body, 413, "64 KiB");
    body[(64 << 10) + 1] = ' ';
    assert_error(&r, "POST /v1/note", "", body, 413, "64 KiB");
    assert_error(&r, "POST /v1/none", "", body, 404, "/v1/none");
    /* More than is ever read: answered before it comes. */
    fd = rig_connect(&r);
    rig_say(fd, "POST /v1/note HTTP/1.1\r\nHost: a\r\n"
                "Content-Length: 99999999999\r\n\r\n");
    rig_read(fd, &answer, false);
    assert_int_equal(answer.status, 413);
    close(fd);
    sync_with(&r);
    assert_int_equal(r.graph.done, 1);
    rig_stop(&r);
}

static void
chunks_are_a_body_too_but_not_for_ever(void **state)
{
    static const char head[] = "POST /v1/note HTTP/1.1\r\nHost: a\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    static char chunk[4 + 3 + 4096 + 2];
    struct pollfd p = {.events = POLLIN};
    unsigned sent = 0;
    struct rig r;
    int fd;

    (void)state;
    rig_start(&r, 0);
    fd = rig_connect(&r);
    rig_send(fd, head, strlen(head));
    rig_say(fd, "4\r\n{\"a\"\r\n5\r\n: 12}\r\n0\r\n\r\n");
    rig_read(fd, &answer, false);
    assert_int_equal(answer.status, 200);
    sync_with(&r);
    assert_string_equal(r.graph.first, "12");
    p.fd = fd;
    /* An endless one ends with the connection, soon. */
    rig_send(fd, head, strlen(head));
    snprintf(chunk, sizeof(chunk), "1000\r\n%*s\r\n", 4096, "");
    while (sent < 512 && !poll(&p, 1, 0)) {
        rig_send(fd, chunk, 4096 + 8);
        sent++;
    }
    assert_in_range(sent, 256, 511);
    rig_read(fd, &answer, false);
    assert_int_equal(answer.status, 0);
    close(fd);
    rig_stop(&r);
}

/* Two ends of one body are how a request is smuggled past somebody in front of
 * us (RFC 9112 6.3); the sentence comes at once, and nothing behind it is taken
 * for a request. */
static void
a_body_with_two_ends_is_refused(void **state)
{
    static const struct {
        const char *headers, *part;
    } rows[] = {
        {"Content-Length: 8\r\nContent-Length: 2\r\n", "several"},
        {"Content-Length: 8\r\ncontent-length: 8\r\n", "several"},
        {"Transfer-Encoding: chunked\r\nContent-Length: 8\r\n", "exclude"},
        {"Transfer-Encoding: gzip\r\n", "chunked"},
        {"Transfer-Encoding: gzip, chunked\r\n", "chunked"},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
         "chunked"},
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[256];
        int fd = rig_connect(&r);

        snprintf(text, sizeof(text),
                 "POST /v1/note HTTP/1.1\r\nHost: a\r\n%s\r\n",
                 rows[i].headers);
        rig_say(fd, text);
        rig_say(fd, "{\"a\": 1}POST /v1/note HTTP/1.1\r\nHost: a\r\n\r\n");
        rig_read(fd, &answer, false);
        if (answer.status != 400 || !strstr(answer.body, rows[i].part))
            fail_msg("%s: %u, %s", rows[i].headers, answer.status, answer.body);
        rig_read(fd, &answer, false);
        assert_int_equal(answer.status, 0); /* closed */
        close(fd);
    }
    sync_with(&r);
    assert_int_equal(r.graph.done, 0);
    rig_stop(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_address_answers_get_and_head),
        cmocka_unit_test(the_page_may_load_nothing_from_elsewhere),
        cmocka_unit_test(a_path_leads_to_one_value),
        cmocka_unit_test(depth_cuts_the_tree),
        cmocka_unit_test(what_is_not_there_is_named),
        cmocka_unit_test(other_methods_are_told_which),
        cmocka_unit_test(put_sets_a_value),
        cmocka_unit_test(post_runs_a_verb),
        cmocka_unit_test(a_bad_body_starts_nothing),
        cmocka_unit_test(failures_have_the_status_that_fits),
        cmocka_unit_test(a_large_body_is_refused_and_the_answer_is_seen),
        cmocka_unit_test(chunks_are_a_body_too_but_not_for_ever),
        cmocka_unit_test(a_body_with_two_ends_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
