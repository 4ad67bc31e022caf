/* SPDX-License-Identifier: MIT
 *
 * Verbs that take files and answer with one; controllers in the tree and in the
 * metrics.
 */
#include "test_rig.h"

static void
ask(struct rig *r, const char *body, int status, const char *says)
{
    assert_int_equal(rig_ask(r, "POST /v1/file",
                             "Content-Type: application/json\r\n", body,
                             &answer),
                     status);
    if (!strstr(answer.body, says))
        fail_msg("'%s', expected '%s'", answer.body, says);
}

static void
a_file_is_text_an_object_or_base64(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    ask(&r, "{\"a\": \"text\", \"b\": \"QUJD\"}", 200,
        "{\"ok\":true,\"c\":\"QUJD\"}");
    assert_string_equal(r.graph.first, "text");
    assert_string_equal(r.graph.second, "QUJD");
    ask(&r, "{\"a\": {\"rules\": [1, 2]}, \"b\": \"\"}", 200, "\"ok\":true");
    assert_string_equal(r.graph.first, "{\"rules\":[1,2]}");
    ask(&r, "{\"a\": [1], \"b\": \"\"}", 400, "'a' is neither");
    ask(&r, "{\"a\": \"\", \"b\": {}}", 400, "'b' is neither");
    ask(&r, "{\"a\": \"\", \"b\": \"\", \"c\": \"x\"}", 400,
        "'c' is what the answer has");
    rig_stop(&r);
}

static void
a_file_may_be_larger_than_other_bodies(void **state)
{
    enum { MOST = 512 << 10 };
    static char body[MOST + 2];
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    memset(body, 'x', MOST);
    memcpy(body, "{\"a\":\"", 6);
    memcpy(body + MOST - 2, "\"}", 2);
    ask(&r, body, 200, "\"ok\":true");
    body[MOST] = ' ';
    ask(&r, body, 413, "512 KiB");
    rig_stop(&r);
}

static void
verbs_say_which_arguments_are_files(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    assert_int_equal(rig_ask(&r, "GET /v1/verbs", "", NULL, &answer), 200);
    assert_non_null(strstr(
        answer.body,
        "\"arguments\":[{\"name\":\"a\",\"optional\":false,\"file\":\"text\"},"
        "{\"name\":\"b\",\"optional\":false,\"file\":\"base64\"},"
        "{\"name\":\"c\",\"optional\":false,\"file\":\"answer\"}]"));
    assert_non_null(strstr(answer.body, "{\"name\":\"b\",\"optional\":true}"));
    rig_stop(&r);
}

static void
get(struct rig *r, const char *path, int status)
{
    char line[200];

    snprintf(line, sizeof(line), "GET %s", path);
    assert_int_equal(rig_ask(r, line, "", NULL, &answer), status);
}

static void
controllers_are_in_the_tree_and_the_metrics(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    get(&r, "/v1/inspect/controllers", 200);
    assert_string_equal(answer.body,
                        "{\"nvme0\":{\"kind\":\"nvme\",\"vfio-user\":{"
                        "\"connected\":1},\"commands\":7}}\n");
    get(&r, "/v1/inspect/controllers/nvme0/vfio-user/connected", 200);
    assert_string_equal(answer.body, "1\n");
    get(&r, "/v1/inspect/controllers/nvme1", 404);
    get(&r, "/metrics", 200);
    assert_non_null(strstr(answer.body, "\n# TYPE strata_controller_connected "
                                        "gauge\nstrata_controller_connected{"
                                        "controller=\"nvme0\"} 1\n"));
    assert_non_null(strstr(answer.body, "\nstrata_controller_commands_total{"
                                        "controller=\"nvme0\"} 7\n"));
    /* What it does not say has no sample. */
    assert_null(strstr(answer.body, "strata_controller_aborts_total{"));
    rig_stop(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_text_an_object_or_base64),
        cmocka_unit_test(a_file_may_be_larger_than_other_bodies),
        cmocka_unit_test(verbs_say_which_arguments_are_files),
        cmocka_unit_test(controllers_are_in_the_tree_and_the_metrics),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
