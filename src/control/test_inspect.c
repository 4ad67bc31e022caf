/* SPDX-License-Identifier: MIT
 *
 * The tree of values and the metrics, of real disks.
 */
#include "test_rig.h"

/* ---- Something to count ---- */

struct io {
    struct st_req *req;
    struct st_chan *chan;
    sem_t *over;
};

static void
io_done(struct st_req *req)
{
    struct io *io = req->owner;

    st_disk_close_chan(io->chan);
    sem_post(io->over);
}

static struct io io;

/* A read past the end of the second disk, which fails, and one that does not.
 */
static void
io_start(struct rig *r, uint64_t offset)
{
    static char data[4096];
    static struct iovec iov = {data, sizeof(data)};
    struct st_disk *d = r->graph.disk[1].disk;
    unsigned frames = st_disk_frames(d);

    io.over = &r->over;
    io.req = malloc(st_req_size(frames));
    assert_int_equal(st_disk_open_chan(d, r->loop, &io.chan), 0);
    st_req_init(io.req, frames, io_done, &io);
    io.req->op = ST_OP_READ;
    io.req->offset = offset;
    io.req->len = sizeof(data);
    io.req->buf.iov = &iov;
    st_submit(io.chan, io.req);
}

static void
io_good(struct rig *r)
{
    io_start(r, 0);
}

static void
io_bad(struct rig *r)
{
    io_start(r, 4 << 20);
}

static void
io_run(struct rig *r, void (*start)(struct rig *r))
{
    rig_on_loop(r, start);
    rig_wait_over(r);
    free(io.req);
}

static void
get(struct rig *r, const char *path)
{
    char line[200];

    snprintf(line, sizeof(line), "GET %s", path);
    assert_int_equal(rig_ask(r, line, "", NULL, &answer), 200);
}

/* ---- The tree ---- */

static json_int_t
number(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);

    if (!json_is_integer(v))
        fail_msg("%s is no number", key);
    return json_integer_value(v);
}

static void
a_disk_counts_and_its_tree_hangs_below(void **state)
{
    json_t *o, *read, *node;
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    io_run(&r, io_good);
    io_run(&r, io_good);
    io_run(&r, io_bad);
    get(&r, "/v1/inspect/disks/b%20%22%5c%2F%0A");
    o = json_loadb(answer.body, answer.len, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(o, "name")),
                        "b \"\\/\n");
    assert_string_equal(json_string_value(json_object_get(o, "spec")),
                        "mem:4M");
    assert_int_equal(number(o, "reads"), 3);
    assert_int_equal(number(o, "paused"), 0);
    assert_int_equal(number(o, "leaving"), 0);
    assert_int_equal(number(json_object_get(o, "errors"), "read"), 1);
    assert_int_equal(number(json_object_get(o, "errors"), "write"), 0);
    read = json_object_get(json_object_get(o, "latency"), "read");
    assert_int_equal(number(read, "count"), 3);
    assert_true(number(read, "p50_ns") <= number(read, "p99_ns"));
    assert_true(number(read, "p99_ns") <= number(read, "max_ns"));
    assert_true(number(read, "sum_ns") <= 3 * number(read, "max_ns"));
    node = json_object_get(o, "backend");
    assert_string_equal(json_string_value(json_object_get(node, "kind")),
                        "ram");
    assert_null(json_object_get(node, "children"));
    json_decref(o);

    get(&r, "/v1/inspect/disks/a/backend");
    o = json_loadb(answer.body, answer.len, 0, NULL);
    node = json_object_get(json_object_get(o, "inner"), "layers");
    assert_int_equal(json_object_size(node), 2);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(node, "1"), "label")),
        "mem:1M");
    assert_int_equal(number(json_object_get(node, "0"), "read_cache"), 0);
    assert_int_equal(number(json_object_get(node, "0"), "size"), 1 << 20);
    json_decref(o);
    rig_stop(&r);
}

static void
all_of_the_tree_is_there(void **state)
{
    static const char *const paths[][4] = {
        {"version"},
        {"engine"},
        {"caps", "bounce", "limit"},
        {"caps", "bounce", "when_full"},
        {"graph", "edits_done"},
        {"disks", "a", "backend", "kind"},
        {"doors", "nbd", "kind"},
        {"doors", "nbd", "exports", ""},
        {"doors", "nbd", "clients"},
    };
    json_t *o;
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    get(&r, "/v1/inspect");
    o = json_loadb(answer.body, answer.len, 0, NULL);
    assert_non_null(o);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        json_t *at = o;

        for (unsigned k = 0; k < 4 && paths[i][k]; k++)
            at = json_object_get(at, paths[i][k]);
        if (!at)
            fail_msg("no %s/%s", paths[i][0], paths[i][1]);
    }
    assert_int_equal(json_object_size(json_object_get(o, "disks")), 2);
    json_decref(o);
    rig_stop(&r);
}

static void
add_odd_name(struct rig *r)
{
    rig_add(r, "\xff\xc3x", "mem:1M");
}

static void
add_leaving_twin(struct rig *r)
{
    rig_add(r, "a", "mem:2M");
    r->graph.disk[r->graph.ndisks - 1].leaving = true;
    rig_add(r, "gone", "mem:2M");
    r->graph.disk[r->graph.ndisks - 1].leaving = true;
}

static void
names_that_are_no_text_get_question_marks(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    rig_on_loop(&r, add_odd_name);
    get(&r, "/v1/inspect/disks/%ff%C3x/size");
    assert_string_equal(answer.body, "1048576\n");
    get(&r, "/v1/inspect/disks?depth=1");
    assert_non_null(strstr(answer.body, "\"??x\":null"));
    get(&r, "/metrics");
    assert_non_null(strstr(answer.body,
                           "\nstrata_disk_size_bytes{disk=\"??x\"} 1048576\n"));
    rig_stop(&r);
}

static void
one_that_leaves_does_not_hide_its_successor(void **state)
{
    const char *p, *metric = "\nstrata_disk_size_bytes{disk=\"a\"} ";
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    rig_on_loop(&r, add_leaving_twin);
    get(&r, "/v1/inspect/disks/a/size");
    assert_string_equal(answer.body, "1048576\n");
    get(&r, "/v1/inspect/disks/gone/leaving");
    assert_string_equal(answer.body, "1\n");
    get(&r, "/metrics");
    p = strstr(answer.body, metric);
    assert_non_null(p);
    assert_null(strstr(p + 1, metric)); /* a series once */
    rig_stop(&r);
}

static void
print_one(struct rig *r)
{
    st_autofree char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    st_inspect_print(f, r->graph.disk[0].disk);
    fclose(f);
    assert_memory_equal(text, "disk 'a' size=1048576 ", 22);
    assert_non_null(strstr(text, "\n  delay '"));
    assert_non_null(strstr(text, "\n    layered '"));
    assert_non_null(strstr(text, "\n      ram '"));
    assert_null(strstr(text, "errors/")); /* there are none */
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
        assert_in_range(end - line, 1, 79);
}

static void
people_get_it_in_79_columns(void **state)
{
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    rig_on_loop(&r, print_one);
    rig_stop(&r);
}

/* ---- Metrics ---- */

static void
metrics_say_it_exactly(void **state)
{
    static const char *const lines[] = {
        "# HELP strata_build_info Always 1; the labels say what runs.",
        "# TYPE strata_build_info gauge",
        "strata_build_info{version=\"1.2.3\",engine=\"threads\"} 1",
        "# TYPE strata_disk_operations_total counter",
        "strata_disk_operations_total{disk=\"a\",op=\"compare_and_write\"} 0",
        "strata_disk_operations_total{disk=\"b \\\"\\\\/\\n\",op=\"read\"} 3",
        "strata_disk_errors_total{disk=\"b \\\"\\\\/\\n\",op=\"read\"} 1",
        "strata_disk_read_bytes_total{disk=\"b \\\"\\\\/\\n\"} 8192",
        "strata_disk_size_bytes{disk=\"b \\\"\\\\/\\n\"} 4194304",
        "strata_disk_oldest_request_age_seconds{disk=\"a\"} 0.000000000",
        "# TYPE strata_disk_operation_duration_seconds histogram",
        "strata_disk_operation_duration_seconds_bucket{disk=\"b "
        "\\\"\\\\/\\n\",op=\"read\",le=\"+Inf\"} 3",
        "strata_disk_operation_duration_seconds_count{disk=\"b "
        "\\\"\\\\/\\n\",op=\"read\"} 3",
        "strata_door_clients{door=\"nbd\"} 0",
        "strata_export_clients{door=\"nbd\",export=\"\",disk=\"a\"} 0",
        "strata_export_clients{door=\"nbd\",export=\"e/\\\"1\",disk=\"b "
        "\\\"\\\\/\\n\"} 0",
        "strata_cap_limit{cap=\"api-clients\",unit=\"sockets\"} 64",
        "strata_cap_refused_total{cap=\"api-clients\",unit=\"sockets\"} 0",
        "strata_graph_edits_total 1",
        "strata_graph_edits_waiting 0",
    };
    struct rig r;

    (void)state;
    rig_start(&r, 0);
    io_run(&r, io_good);
    io_run(&r, io_good);
    io_run(&r, io_bad);
    rig_ask(&r, "POST /v1/note", "", "{}", &answer);
    get(&r, "/metrics");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        st_autofree char *line = NULL;

        assert_true(asprintf(&line, "\n%s\n", lines[i]) > 0);
        if (!strstr(answer.body, line + (i == 0)))
            fail_msg("no line: %s", lines[i]);
    }
    assert_int_equal(answer.body[answer.len - 1], '\n');
    rig_stop(&r);
}

static void
a_histogram_counts_upward_to_all(void **state)
{
    const char *at, *metric = "\nstrata_disk_operation_duration_seconds_bucket{"
                              "disk=\"b \\\"\\\\/\\n\",op=\"read\",le=\"";
    double last_le = 0;
    unsigned n = 0;
    struct rig r;
    long last = 0;

    (void)state;
    rig_start(&r, 0);
    io_run(&r, io_good);
    io_run(&r, io_bad);
    get(&r, "/metrics");
    for (at = answer.body; (at = strstr(at, metric)); n++) {
        char *end;
        double le = strtod(at + strlen(metric), &end); /* also +Inf */
        long count = strtol(end + 3, NULL, 10);

        assert_memory_equal(end, "\"} ", 3);
        assert_true(le > last_le);
        assert_true(count >= last);
        last_le = le;
        last = count;
        at = end;
    }
    assert_int_equal(n, 26); /* 1 us to 17 s in powers of two, and +Inf */
    assert_int_equal(last, 2);
    rig_stop(&r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_counts_and_its_tree_hangs_below),
        cmocka_unit_test(all_of_the_tree_is_there),
        cmocka_unit_test(names_that_are_no_text_get_question_marks),
        cmocka_unit_test(one_that_leaves_does_not_hide_its_successor),
        cmocka_unit_test(people_get_it_in_79_columns),
        cmocka_unit_test(metrics_say_it_exactly),
        cmocka_unit_test(a_histogram_counts_upward_to_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
