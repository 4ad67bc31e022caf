/* SPDX-License-Identifier: MIT
 *
 * Connections of the control socket: those that leave, that are slow, too many,
 * another user's or mean harm; the end; and that nobody costs nothing.
 */
#include "test_rig.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "rand.h"

#define MS UINT64_C(1000000)

/* ---- Connections ---- */

static void
requests_in_a_row_are_answered_in_order(void **state)
{
    static const char both[] =
        "POST /v1/note HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n"
        "{\"a\": 1}"
        "GET /v1/inspect/graph/edits_done HTTP/1.1\r\nHost: a\r\n\r\n"
        "POST /v1/fail HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n"
        "{\"errno\":22}"
        "GET /v1/none HTTP/1.1\r\nHost: a\r\n\r\n";
    static const int status[] = {200, 200, 400, 404};
    struct rig r;
    int fd;

    (void)state;
    rig_start(&r, 0);
    fd = rig_connect(&r);
    for (unsigned round = 0; round < 20; round++) {
        rig_send(fd, both, sizeof(both) - 1);
        for (unsigned i = 0; i < 4; i++) {
            rig_read(fd, &answer, false);
            assert_int_equal(answer.status, status[i]);
            if (i == 1)
                assert_int_equal(atoi(answer.body), 2 * round + 1);
        }
    }
    close(fd);
    rig_stop(&r);
}

static void
let_go(struct rig *r)
{
    struct st_graph_edit *e = r->graph.hanging;

    assert_non_null(e);
    r->graph.hanging = NULL;
    st_ready(r->loop, &e->task);
}

static void
look_hanging(struct rig *r)
{
    r->hanging = r->graph.hanging != NULL;
}

static bool
is_hanging(struct rig *r)
{
    rig_on_loop(r, look_hanging);
    return r->hanging;
}

static int
start_hanging(struct rig *r)
{
    int fd = rig_connect(r);

    rig_say(fd, "POST /v1/hang HTTP/1.1\r\nHost: a\r\n\r\n");
    while (!is_hanging(r))
        usleep(1000);
    return fd;
}

static void
a_client_that_leaves_abandons_its_edit(void **state)
{
    struct rig r;
    int fd;

    (void)state;
    rig_start(&r, 0);
    fd = start_hanging(&r);
    assert_int_equal(
        rig_ask(&r, "GET /v1/inspect/graph/edits_waiting", "", NULL, &answer),
        200);
    assert_string_equal(answer.body, "1\n");
    close(fd);
    while (is_hanging(&r))
        usleep(1000);
    assert_int_equal(r.graph.abandoned, 1);
    assert_int_equal(r.graph.done, 0);
    rig_stop(&r);
}

static void
a_client_that_has_said_all_gets_its_answer(void **state)
{
    struct rig r;
    int fd;

    (void)state;
    rig_start(&r, 0);
    fd = start_hanging(&r);
    shutdown(fd, SHUT_WR);
    rig_on_loop(&r, let_go);
    rig_read(fd, &answer, false);
    assert_int_equal(answer.status, 200);
    close(fd);
    sync_with(&r);
    assert_int_equal(r.graph.abandoned, 0);
    rig_stop(&r);
}

/* An edit may last longer than a request may take to come. */
static void
slow_clients_are_cut_off_but_not_slow_edits(void **state)
{
    struct rig r;
    int slow, silent, edit, polite;
    char c;

    (void)state;
    rig_start(&r, 300 * MS);
    edit = start_hanging(&r);
    silent = rig_connect(&r);
    slow = rig_connect(&r);
    polite = rig_connect(&r);
    rig_say(polite, "GET /v1/verbs HTTP/1.1\r\nHost: a\r\n\r\n");
    rig_read(polite, &answer, false);
    assert_int_equal(answer.status, 200);
    for (;;) {
        struct pollfd p = {.fd = slow, .events = POLLIN};

        rig_say(slow, "G"); /* never silent for long */
        if (poll(&p, 1, 20) == 1)
            break;
    }
    rig_read(slow, &answer, false); /* it may be told that it spoke no HTTP */
    assert_true(answer.status == 0 || answer.status >= 400);
    assert_false(rig_byte(silent, &c));
    assert_false(rig_byte(polite, &c));
    assert_int_equal(is_hanging(&r), 1);
    rig_on_loop(&r, let_go);
    rig_read(edit, &answer, false);
    assert_int_equal(answer.status, 200);
    close(edit);
    close(slow);
    close(silent);
    close(polite);
    rig_stop(&r);
}

static void
too_many_clients_are_told_so(void **state)
{
    enum { MANY = 64, OVER = 8 };
    struct rig r;
    int fd[MANY];

    (void)state;
    rig_start(&r, 0);
    for (unsigned i = 0; i < MANY; i++) {
        fd[i] = rig_connect(&r);
        rig_say(fd[i], "GET /v1/verbs HTTP/1.1\r\nHost: a\r\n\r\n");
        rig_read(fd[i], &answer, false);
        assert_int_equal(answer.status, 200);
    }
    for (unsigned i = 0; i < OVER; i++) {
        assert_error(&r, "GET /v1/verbs", "", NULL, 503, "too many clients");
        assert_error(&r, "POST /v1/note", "", "{}", 503, "too many clients");
    }
    sync_with(&r);
    assert_int_equal(r.graph.done, 0);
    close(fd[0]);
    do
        rig_ask(&r, "POST /v1/note", "", "{}", &answer);
    while (answer.status == 503);
    assert_int_equal(answer.status, 200);
    for (unsigned i = 1; i < MANY; i++)
        close(fd[i]);
    rig_stop(&r);
}

static void
another_user_is_refused(void **state)
{
    struct rig r;
    pid_t child;
    int status;

    (void)state;
    if (geteuid() != 0) {
        print_message("skip: only root can be another user\n");
        skip();
    }
    rig_start(&r, 0);
    chmod(r.address.sun_path, 0666);
    child = fork();
    if (child == 0) {
        static const char text[] = "POST /v1/note HTTP/1.1\r\nHost: a\r\n\r\n";
        char got[64] = "";
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        if (setuid(65534) < 0 ||
            connect(fd, (struct sockaddr *)&r.address, sizeof(r.address)) < 0 ||
            write(fd, text, strlen(text)) < 0 || read(fd, got, 12) != 12)
            _exit(1);
        _exit(strcmp(got, "HTTP/1.1 403") == 0 ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    sync_with(&r);
    assert_int_equal(r.graph.done, 0);
    rig_stop(&r);
}

/* ---- The end ---- */

static void
the_end_answers_edits_and_closes_all(void **state)
{
    struct rig r;
    int edit, idle, half;
    char c;

    (void)state;
    rig_start(&r, 0);
    edit = start_hanging(&r);
    idle = rig_connect(&r);
    half = rig_connect(&r);
    rig_say(half, "GET /v1/ins");
    assert_int_equal(rig_ask(&r, "GET /v1/verbs", "", NULL, &answer), 200);
    rig_on_loop(&r, rig_destroy_control);
    rig_read(edit, &answer, false);
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(answer.body, "the server is stopping"));
    assert_false(rig_byte(edit, &c));
    assert_false(rig_byte(idle, &c));
    rig_read(half, &answer, false);
    rig_wait_over(&r);
    sync_with(&r);
    assert_int_equal(r.graph.abandoned, 1);
    close(edit);
    close(idle);
    close(half);
    rig_stop(&r);
}

static void
it_ends_while_clients_come_and_go(void **state)
{
    static const char text[] = "POST /v1/note HTTP/1.1\r\nHost: a\r\n"
                               "Content-Length: 2\r\n\r\n{}";

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct rig r;
        int fd[8];

        rig_start(&r, 0);
        for (unsigned i = 0; i < 8; i++) {
            fd[i] = rig_connect(&r);
            rig_send(fd[i], text, i % 2 ? sizeof(text) - 1 : 30);
            if (i % 3 == 0)
                close(fd[i]);
        }
        rig_stop(&r);
        for (unsigned i = 0; i < 8; i++)
            if (i % 3)
                close(fd[i]);
    }
}

/* ---- What costs nothing, and what breaks nothing ---- */

static pid_t loop_tid;

static void
note_tid(struct rig *r)
{
    (void)r;
    loop_tid = gettid();
}

static unsigned long
naps(void)
{
    char path[64], line[128];
    unsigned long n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%d/status", (int)loop_tid);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f))
        sscanf(line, "voluntary_ctxt_switches: %lu", &n);
    fclose(f);
    return n;
}

static void
nothing_wakes_up_for_nobody(void **state)
{
    struct rig r;
    unsigned long before;
    int fd;

    (void)state;
    rig_start(&r, 0);
    fd = start_hanging(&r); /* one that waits costs nothing either */
    assert_int_equal(rig_ask(&r, "GET /metrics", "", NULL, &answer), 200);
    rig_on_loop(&r, note_tid);
    usleep(200000);
    before = naps();
    usleep(2000000);
    assert_int_equal(naps(), before);
    rig_on_loop(&r, let_go);
    rig_read(fd, &answer, false);
    assert_int_equal(answer.status, 200);
    close(fd);
    rig_stop(&r);
}

static void
garbage_breaks_nothing(void **state)
{
    static const char *const parts[] = {
        "GET ",
        "POST ",
        "PUT ",
        "/v1/note",
        "/v1/inspect/",
        " HTTP/1.1",
        "\r\n",
        "\r\n\r\n",
        "Host: a",
        "Host:",
        ": ",
        "Content-Length: 3",
        "Content-Length: -1",
        "Content-Length: 99999999999999999999999",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "{}",
        "{\"a\":",
        "%",
        "%00",
        "?depth=",
        "\xff\xfe",
        "Connection: Upgrade",
        "ffffffffffffffff\r\n",
        "0\r\n",
        " HTTP/9.9",
        " HTTP/1.0",
        "\n",
        "\r",
        "Cookie: ",
        "\t",
        "HEAD ",
        "OPTIONS *",
        "http://a/v1/verbs",
    };
    struct st_rand dice = st_rand_seed(20261126);
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    for (unsigned round = 0; round < 500; round++) {
        int fd = rig_connect(&r);

        for (uint64_t n = st_rand_next(&dice) % 24; n; n--) {
            uint64_t x = st_rand_next(&dice);
            const char *part = parts[x % (sizeof(parts) / sizeof(parts[0]))];
            char raw[8];

            memcpy(raw, &x, 8);
            rig_send(fd, x >> 60 ? part : raw, x >> 60 ? strlen(part) : 8);
        }
        if (round % 2)
            shutdown(fd, SHUT_WR);
        close(fd);
    }
    assert_int_equal(rig_ask(&r, "GET /v1/verbs", "", NULL, &answer), 200);
    rig_stop(&r);
}

static void
an_endless_header_is_cut_off(void **state)
{
    static char line[4096];
    struct rig r;
    int fd;

    (void)state;
    rig_start(&r, 0);
    fd = rig_connect(&r);
    memset(line, 'x', sizeof(line));
    memcpy(line, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    for (unsigned i = 0; i < 64; i++)
        rig_send(fd, line, sizeof(line));
    rig_read(fd, &answer, false);
    assert_true(answer.status == 0 || answer.status >= 400);
    close(fd);
    assert_int_equal(rig_ask(&r, "GET /v1/verbs", "", NULL, &answer), 200);
    rig_stop(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_in_a_row_are_answered_in_order),
        cmocka_unit_test(a_client_that_leaves_abandons_its_edit),
        cmocka_unit_test(a_client_that_has_said_all_gets_its_answer),
        cmocka_unit_test(slow_clients_are_cut_off_but_not_slow_edits),
        cmocka_unit_test(too_many_clients_are_told_so),
        cmocka_unit_test(another_user_is_refused),
        cmocka_unit_test(the_end_answers_edits_and_closes_all),
        cmocka_unit_test(it_ends_while_clients_come_and_go),
        cmocka_unit_test(nothing_wakes_up_for_nobody),
        cmocka_unit_test(garbage_breaks_nothing),
        cmocka_unit_test(an_endless_header_is_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
