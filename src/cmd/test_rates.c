/* SPDX-License-Identifier: MIT
 *
 * The rows of `strata top`, from answers as the server gives them and as it
 * never should.
 */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
/* after the four above */
#include <cmocka.h>

#include "api.h"
#include "rates.h"

static json_t *
json(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);

    assert_non_null(j);
    return j;
}

/* Compare two texts, SECONDS apart. */
static struct st_rates
rates_of(const char *before, const char *now, double seconds)
{
    json_t *a = before ? json(before) : NULL, *b = json(now);
    struct st_rates r;

    assert_int_equal(st_rates_make(a, b, seconds, &r), 0);
    json_decref(a);
    json_decref(b);
    return r;
}

static const char before[] =
    "{\"disks\": {\"a\": {\"reads\": 100, \"writes\": 50, \"flushes\": 1,"
    "  \"bytes_read\": 4096, \"bytes_written\": 0, \"latency\": {"
    "  \"read\": {\"count\": 100, \"sum_ns\": 5000, \"p99_ns\": 64},"
    "  \"write\": {\"count\": 50, \"sum_ns\": 100, \"p99_ns\": 32}}}},"
    " \"doors\": {\"nbd\": {\"kind\": \"nbd\", \"requests\": 10,"
    "  \"bytes_in\": 0, \"bytes_out\": 10}}}";
static const char now[] =
    "{\"disks\": {\"a\": {\"size\": 1048576, \"reads\": 140, \"writes\": 60,"
    "  \"flushes\": 1, \"bytes_read\": 8192, \"bytes_written\": 1024,"
    "  \"in_flight\": 3, \"errors\": {\"read\": 2, \"flush\": 1},"
    "  \"backend\": {\"kind\": \"ram\"}, \"latency\": {"
    "  \"read\": {\"count\": 140, \"sum_ns\": 9000, \"p99_ns\": 64},"
    "  \"write\": {\"count\": 60, \"sum_ns\": 1100, \"p99_ns\": 1024}}}},"
    " \"doors\": {\"nbd\": {\"kind\": \"nbd\", \"requests\": 30,"
    "  \"errors\": 1, \"protocol_errors\": 2, \"bytes_in\": 20,"
    "  \"bytes_out\": 110,"
    "  \"exports\": {\"\": {\"disk\": \"a\", \"clients\": 2},"
    "   \"b\": {\"disk\": \"a\", \"clients\": 1}},"
    "  \"clients\": {\"1\": {\"in_flight\": 4}, \"7\": {\"in_flight\": 1},"
    "   \"9\": {}}}}}";

static void
a_rate_is_what_grew_by_the_time(void **state)
{
    struct st_rates r = rates_of(before, now, 2);
    const struct st_rate *a = &r.row[0], *nbd = &r.row[1];

    (void)state;
    assert_int_equal(r.n, 2);
    assert_string_equal(a->name, "a");
    assert_string_equal(a->kind, "ram");
    assert_string_equal(a->state, "ok");
    assert_false(a->door);
    assert_true(a->ops == 25);
    assert_true(a->read == 2048);
    assert_true(a->written == 512);
    assert_true(a->mean_ns == 100); /* (4000 + 1000) / (40 + 10) */
    assert_int_equal(a->p99_ns, 1024);
    assert_int_equal(a->size, 1048576);
    assert_int_equal(a->in_flight, 3);
    assert_int_equal(a->errors, 3);
    assert_int_equal(a->clients, 3);
    assert_true(nbd->door);
    assert_true(nbd->ops == 10);
    assert_true(nbd->read == 50);
    assert_true(nbd->written == 10);
    assert_int_equal(nbd->errors, 3);
    assert_int_equal(nbd->clients, 3);
    assert_int_equal(nbd->in_flight, 5);
    st_rates_free(&r);
}

static void
a_controller_is_a_door(void **state)
{
    struct st_rates r = rates_of(
        "{\"controllers\": {\"c\": {\"commands\": 5}}}",
        "{\"disks\": {\"a\": {}, \"b\": {}}, \"controllers\": {\"c\": {"
        "\"kind\": \"nvme\", \"state\": \"ready\", \"commands\": 105,"
        "\"completions\": 98, \"protocol_errors\": 1, \"vfio-user\": {"
        "\"connected\": 1, \"protocol_errors\": 2}, \"namespaces\": {\"3\": {"
        "\"disk\": \"b\"}}}, \"d\": {\"completions\": 3}}}",
        2);
    const struct st_rate *c = &r.row[2];

    (void)state;
    assert_int_equal(r.n, 4);
    assert_string_equal(c->name, "c");
    assert_string_equal(c->kind, "nvme");
    assert_string_equal(c->state, "ready");
    assert_true(c->door);
    assert_true(c->ops == 50);
    assert_int_equal(c->in_flight, 7);
    assert_int_equal(c->errors, 3);
    assert_int_equal(c->clients, 1);
    assert_int_equal(r.row[0].clients, 0);
    assert_int_equal(r.row[1].clients, 1);
    assert_int_equal(r.row[3].in_flight, 0); /* nonsense is none */
    st_rates_free(&r);
}

static void
what_went_back_or_is_new_has_no_rate(void **state)
{
    struct st_rates r = rates_of(now, before, 1);

    (void)state;
    assert_true(r.row[0].ops == 0);
    assert_true(r.row[0].mean_ns == 0);
    assert_true(r.row[1].read == 0);
    st_rates_free(&r);
    r = rates_of("{}", now, 1);
    assert_true(r.row[0].ops == 0);
    assert_true(r.row[0].read == 0);
    assert_true(r.row[0].mean_ns == 0);
    assert_int_equal(r.row[0].size, 1048576);
    st_rates_free(&r);
    r = rates_of(NULL, now, 1);
    assert_true(r.row[0].ops == 0);
    st_rates_free(&r);
    /* Two answers at the same moment. */
    r = rates_of(before, now, 0);
    assert_true(r.row[0].ops == 50);
    st_rates_free(&r);
}

static void
an_answer_of_another_shape_is_nothing(void **state)
{
    static const char *const odd[] = {
        "{}",
        "[]",
        "[1, 2]",
        "{\"disks\": 7, \"doors\": [null]}",
        "{\"disks\": {}, \"doors\": {}}",
    };
    struct st_rates r;

    (void)state;
    for (unsigned i = 0; i < sizeof(odd) / sizeof(*odd); i++) {
        r = rates_of(before, odd[i], 1);
        assert_int_equal(r.n, 0);
        st_rates_free(&r);
    }
    r = rates_of(before,
                 "{\"disks\": {\"a\": null, \"b\": {\"reads\": -4, "
                 "\"in_flight\": -4, \"size\": "
                 "\"big\", \"latency\": [1], \"errors\": 3, \"backend\": 2}},"
                 " \"doors\": {\"c\": {\"clients\": 9, \"exports\": {\"x\": 1, "
                 "\"y\": {\"disk\": 5, \"clients\": {}}}}}}",
                 1);
    assert_int_equal(r.n, 3);
    for (unsigned i = 0; i < r.n; i++) {
        assert_true(r.row[i].ops == 0);
        assert_int_equal(r.row[i].size, 0);
        assert_int_equal(r.row[i].errors, 0);
        assert_int_equal(r.row[i].clients, 0);
        assert_int_equal(r.row[i].in_flight, 0);
        assert_string_equal(r.row[i].kind, "-");
    }
    st_rates_free(&r);
}

static void
the_worst_state_is_the_one_that_is_named(void **state)
{
    struct st_rates r =
        rates_of(NULL,
                 "{\"disks\": {\"a\": {\"is_read_only\": 1},"
                 " \"b\": {\"is_read_only\": 1, \"paused\": 1},"
                 " \"c\": {\"paused\": 1, \"leaving\": 1},"
                 " \"d\": {\"stopped\": 1, \"leaving\": 1},"
                 " \"e\": {\"stopped\": 1, \"flush_failed\": 1}}}",
                 1);
    static const char *const expected[] = {"read-only", "paused", "leaving",
                                           "stopped", "flush-failed"};

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        assert_string_equal(r.row[i].state, expected[i]);
    st_rates_free(&r);
}

static void
assert_order(const struct st_rates *r, const char *names)
{
    for (unsigned i = 0; i < r->n; i++) {
        assert_int_equal(r->row[i].name[0], names[i]);
        assert_int_equal(names[r->n], '\0');
    }
}

static void
rows_are_sorted_disks_first(void **state)
{
    struct st_rates r = rates_of(NULL,
                                 "{\"doors\": {\"x\": {}, \"w\": {}}, "
                                 "\"disks\": {\"b\": {\"size\": 5},"
                                 " \"c\": {\"size\": 9}, \"a\": {\"size\": 5,"
                                 " \"in_flight\": 1}}}",
                                 1);

    (void)state;
    assert_order(&r, "bcaxw");
    st_rates_sort(&r, ST_RATE_NAME, false);
    assert_order(&r, "abcwx");
    st_rates_sort(&r, ST_RATE_NAME, true);
    assert_order(&r, "cbaxw");
    st_rates_sort(&r, ST_RATE_SIZE, false);
    assert_order(&r, "cabwx");
    st_rates_sort(&r, ST_RATE_SIZE, true);
    assert_order(&r, "abcwx");
    st_rates_sort(&r, ST_RATE_IN_FLIGHT, false);
    assert_order(&r, "abcwx");
    st_rates_free(&r);
}

static void
a_line_has_as_many_fields_as_the_heads(void **state)
{
    struct st_rates r =
        rates_of(NULL,
                 "{\"disks\": {\"a\\u001b[2J b\\n\": {\"backend\": {\"kind\": "
                 "\"x y\"}}}}",
                 1);
    char *text = NULL, name[64];
    double f[8];
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    assert_non_null(out);
    st_rates_print(out, &r);
    fclose(out);
    assert_non_null(strchr(text, '\n'));
    assert_int_equal(sscanf(strchr(text, '\n') + 1,
                            "disk %lf %lf %lf %lf %lf %lf %lf %lf %*f ok x_y "
                            "%63[^\n]",
                            f, f + 1, f + 2, f + 3, f + 4, f + 5, f + 6, f + 7,
                            name),
                     9);
    assert_string_equal(name, "a?[2J b?");
    free(text);
    st_rates_free(&r);
}

static void
assert_printable(const char *text, int columns, const char *expected)
{
    char out[64];
    int width = st_api_printable(out, sizeof(out), text, columns);

    assert_string_equal(out, expected);
    assert_true(width <= columns);
}

static void
a_terminal_gets_no_controls_and_no_more_columns(void **state)
{
    char small[4];

    (void)state;
    assert_printable("plain", 5, "plain");
    assert_printable("plain", 4, "pla~");
    assert_printable("plain", 1, "~");
    assert_printable("plain", 0, "");
    assert_printable("", 5, "");
    assert_printable("a\x1b]0;x\x07\x7f\xff", 20, "a?]0;x???");
    if (setlocale(LC_CTYPE, "C.UTF-8")) {
        assert_printable("\xc2\x9b", 9, "?"); /* a C1 control */
        assert_printable("\xe6\x97\xa5\xe6\x9c\xac", 4,
                         "\xe6\x97\xa5\xe6\x9c\xac");
        assert_printable("\xe6\x97\xa5\xe6\x9c\xac", 3, "\xe6\x97\xa5~");
        assert_printable("\xe6\x97\xa5\xe6\x9c\xac", 2, "~");
        assert_printable("\xe6\x97", 9, "??");
        assert_printable("\xe6\x97\xa5\xe6\x9c\xac\xe6\x97\xa5\xe6\x9c\xac", 6,
                         "\xe6\x97\xa5\xe6\x9c\xac~");
        setlocale(LC_CTYPE, "C");
    }
    assert_int_equal(st_api_printable(small, sizeof(small), "abcdef", 6), 3);
    assert_string_equal(small, "ab~");
}

static void
a_target_is_escaped(void **state)
{
    char *text = st_api_escape("a/b c%?\xff", "/");

    (void)state;
    assert_string_equal(text, "a/b%20c%25%3F%FF");
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rate_is_what_grew_by_the_time),
        cmocka_unit_test(a_controller_is_a_door),
        cmocka_unit_test(what_went_back_or_is_new_has_no_rate),
        cmocka_unit_test(an_answer_of_another_shape_is_nothing),
        cmocka_unit_test(the_worst_state_is_the_one_that_is_named),
        cmocka_unit_test(rows_are_sorted_disks_first),
        cmocka_unit_test(a_line_has_as_many_fields_as_the_heads),
        cmocka_unit_test(a_terminal_gets_no_controls_and_no_more_columns),
        cmocka_unit_test(a_target_is_escaped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
