/* SPDX-License-Identifier: MIT
 *
 * Edits under the feet of NBD clients, which verify what they read meanwhile,
 * and exports that are taken away from them. With threads and real sockets.
 */
#include "test_rig.h"

#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rand.h"
#include "test_client.h"

enum { BLOCK = 4096, GUESTS = 2 };

static int
setup(void **state)
{
    *state = rig_open("threads", 1);
    return 0;
}

/* The engine that programs get. */
static int
setup_auto(void **state)
{
    *state = rig_open("auto", 1);
    return 0;
}

static int
teardown(void **state)
{
    rig_close(*state);
    return 0;
}

/* ---- A client that verifies ---- */

struct guest {
    pthread_t thread;
    struct client c;
    unsigned index;
    bool rude;         /* ignores ESHUTDOWN and goes on asking */
    atomic_bool leave; /* to be asked to */
    atomic_uint good, bad, shut;
    atomic_bool ended; /* by the server */
};

/* A request and its simple reply. False: the server has hung up. */
static bool
guest_do(struct guest *g, uint16_t type, uint64_t offset, uint8_t *data,
         uint32_t *error)
{
    struct nbd_simple h;

    client_request(&g->c, type, 0, offset, offset, BLOCK);
    if (type == NBD_CMD_WRITE)
        client_send(&g->c, data, BLOCK);
    if (client_recv(&g->c, &h, sizeof(h)) != sizeof(h))
        return false;
    *error = be32_get(h.error);
    if (be64_get(h.cookie) != offset)
        atomic_fetch_add(&g->bad, 1);
    return type != NBD_CMD_READ || *error ||
           client_recv(&g->c, data, BLOCK) == BLOCK;
}

/* Write and read back blocks that are this guest's alone. */
static void *
guest_main(void *arg)
{
    struct guest *g = arg;
    struct st_rand r = st_rand_seed(g->index + 1);
    uint8_t out[BLOCK], in[BLOCK];
    uint32_t error = 0;

    while (!atomic_load(&g->leave)) {
        uint64_t block = st_rand_below(&r, 16) * GUESTS + g->index;

        for (size_t k = 0; k < BLOCK; k += 8)
            memcpy(out + k, &(uint64_t){st_rand_next(&r)}, 8);
        if (!guest_do(g, NBD_CMD_WRITE, block * BLOCK, out, &error))
            break;
        if (!error && !guest_do(g, NBD_CMD_READ, block * BLOCK, in, &error))
            break;
        if (error == NBD_ESHUTDOWN) {
            atomic_fetch_add(&g->shut, 1);
            if (!g->rude)
                break;
        } else if (error || memcmp(in, out, BLOCK) != 0) {
            atomic_fetch_add(&g->bad, 1);
        } else {
            atomic_fetch_add(&g->good, 1);
        }
    }
    client_request(&g->c, NBD_CMD_DISC, 0, 0, 0, 0);
    while (client_recv(&g->c, in, 1)) /* what was said before it hung up */
        ;
    atomic_store(&g->ended, true);
    close(g->c.fd);
    return NULL;
}

/* Turn the control loop for a while. */
struct flag {
    struct st_timer timer;
    bool done;
};

static void
raise_flag(struct st_timer *t)
{
    st_container(t, struct flag, timer)->done = true;
}

static void
turn(struct rig *r, uint64_t ns)
{
    struct flag f = {.timer.fire = raise_flag};

    st_timer_set(r->control, &f.timer, r->control->now + ns);
    assert_true(st_loop_wait(r->control, &f.done));
}

static void
turn_loop(void *arg)
{
    turn(arg, MS / 10);
}

/* Until a request is under way at that disk. */
static void
wait_for_flight(struct rig *r, const char *name)
{
    struct st_disk_stats s;

    do {
        turn(r, MS);
        st_disk_stats(disk(r, name)->disk, &s);
    } while (!s.in_flight);
}

struct flight {
    struct st_inspect v;
    uint64_t n;
};

static void
flight_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    if (strcmp(name, "in_flight") == 0)
        st_container(v, struct flight, v)->n += value;
}

static void
flight_text(struct st_inspect *v, const char *name, const char *value)
{
    (void)v;
    (void)name;
    (void)value;
}

static void
flight_enter(struct st_inspect *v, const char *name)
{
    (void)v;
    (void)name;
}

static void
flight_leave(struct st_inspect *v)
{
    (void)v;
}

/* Until the door has a request of a client in hand. */
static void
wait_for_request(struct rig *r)
{
    struct flight f = {
        .v = {flight_u64, flight_text, flight_enter, flight_leave}};

    while (!f.n) {
        turn(r, MS);
        st_nbd_inspect(st_graph_next_door(r->graph, NULL)->nbd, &f.v);
    }
}

/* Until C's connection has ended; nothing more may come of it. */
static void
wait_for_end(struct rig *r, struct client *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};

    while (poll(&p, 1, 0) == 0)
        turn(r, MS);
    c->turn = NULL;
    client_expect_end(c);
}

/* A client of EXPORT, past the handshake. */
static void
attach(struct rig *r, struct client *c, const char *export)
{
    struct st_err err;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    *c = (struct client){.fd = fd[0], .turn = turn_loop, .arg = r};
    assert_int_equal(
        st_graph_connection(r->graph, "nbd", fd[1], NULL, NULL, &err), 0);
    client_go(c, export, SIMPLE);
}

static void
guest_start(struct rig *r, struct guest *g, unsigned index, const char *export,
            bool rude)
{
    memset(g, 0, sizeof(*g));
    g->rude = rude;
    g->index = index;
    attach(r, &g->c, export);
    g->c.turn = NULL; /* from now on it has a thread to wait in */
    assert_int_equal(pthread_create(&g->thread, NULL, guest_main, g), 0);
}

static void
guests_work(struct rig *r, struct guest *g, unsigned n, unsigned more)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned want = atomic_load(&g[i].good) + more;

        while (atomic_load(&g[i].good) < want) {
            assert_int_equal(atomic_load(&g[i].bad), 0);
            assert_false(atomic_load(&g[i].ended));
            turn(r, MS);
        }
    }
}

static void
guests_leave(struct guest *g, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        atomic_store(&g[i].leave, true);
    for (unsigned i = 0; i < n; i++) {
        pthread_join(g[i].thread, NULL);
        assert_int_equal(atomic_load(&g[i].bad), 0);
    }
}

/* ---- Every verb under I/O ---- */

static void
data_survive_every_verb(void **state)
{
    static const char *const edits[][3] = {
        {"insert", "a", "delay:0"},
        {"insert", "a", "throttle:1000000;group=g"},
        {"resize", "a", "2M"},
        {"pause", "a", NULL},
        {"resize", "a", "1M"},
        {"set", "disks/a/policy", "stop"},
        {"resume", "a", NULL},
        {"insert", "b", "throttle:1000000;group=g"},
        {"remove", "a", "delay"},
        {"policy", "a", "report"},
        {"remove", "a", "throttle"},
        {"add-export", "c", "mem:1M"},
        {"remove", "b", "throttle"},
        {"remove-export", "c", NULL},
    };
    struct rig *r = *state;
    struct guest g[2 * GUESTS];

    must(r, "add-export", "a", "memdiff:mem:1M");
    must(r, "add-export", "b", "mem:1M");
    for (unsigned i = 0; i < 2 * GUESTS; i++)
        guest_start(r, &g[i], i % GUESTS, i < GUESTS ? "a" : "b", false);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
            bool paused;

            must(r, edits[i][0], edits[i][1], edits[i][2]);
            paused = disk(r, "a")->paused;
            guests_work(r, paused ? g + GUESTS : g,
                        paused ? GUESTS : 2 * GUESTS, 2);
        }
    }
    guests_leave(g, 2 * GUESTS);
    has_shape(r, "a", "layered(ram,ram)");
}

/* ---- Taken away ---- */

static void
an_export_goes_and_its_clients_with_it(void **state)
{
    struct rig *r = *state;
    struct guest a[GUESTS], b[GUESTS];

    for (unsigned round = 0; round < 3; round++) {
        must(r, "add-export", "a", "mem:1M");
        if (!round)
            must(r, "add-export", "b", "mem:1M");
        for (unsigned i = 0; i < GUESTS; i++) {
            guest_start(r, &a[i], i, "a", i == 1);
            if (!round)
                guest_start(r, &b[i], i, "b", false);
        }
        guests_work(r, a, GUESTS, 20);
        must(r, "remove-export", "a", NULL);
        has_disks(r, "b");
        for (unsigned i = 0; i < GUESTS; i++) {
            pthread_join(a[i].thread, NULL);
            assert_true(atomic_load(&a[i].ended));
            assert_int_equal(atomic_load(&a[i].bad), 0);
            assert_true(atomic_load(&a[i].shut) > 0);
        }
        guests_work(r, b, GUESTS, 20);
    }
    guests_leave(b, GUESTS);
}

static void
what_a_pause_holds_is_answered_when_the_export_goes(void **state)
{
    struct rig *r = *state;
    uint8_t data[BLOCK] = {1};
    struct client c;

    must(r, "add-export", "a", "mem:1M");
    attach(r, &c, "a");
    must(r, "pause", "a", NULL);
    client_write(&c, 0, 7, 0, data, BLOCK);
    wait_for_request(r);
    must(r, "remove-export", "a", NULL);
    c.turn = NULL; /* all of it has been sent */
    assert_int_equal(client_reply(&c, 7, 0, NULL, 0), 0);
    client_expect_end(&c);
    close(c.fd);
    has_disks(r, "");
}

static void
requests_that_hang_are_cancelled(void **state)
{
    struct rig *r = *state;
    uint8_t data[BLOCK] = {1};
    struct st_node *n;
    struct client c;
    struct edit x;

    must(r, "add-export", "a", "test:");
    n = r->node;
    attach(r, &c, "a");
    st_testnode_hang(n, true);
    client_write(&c, 0, 7, 0, data, BLOCK);
    wait_for_flight(r, "a");
    edit_start(r, &x, 2 * GRAPH_S, "remove-export", "a", NULL, NULL, NULL);
    wait_for_end(r, &c); /* it was cut off; but the disk does not flush */
    assert_false(x.done);
    edit_expire(&x);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    has_disks(r, "[a]");
    st_testnode_hang(n, false);
    while (r->graph->nops)
        turn(r, MS);
    has_disks(r, "");
    close(c.fd);
}

static void
requests_that_never_come_back_keep_their_disk(void **state)
{
    struct rig *r = *state;
    uint8_t data[BLOCK] = {1};
    struct st_node *n;
    struct client c;
    struct edit x;

    must(r, "add-export", "a", "test:");
    must(r, "add-export", "b", "mem:1M");
    n = r->node;
    st_testnode_cancellable(n, false);
    attach(r, &c, "a");
    st_testnode_hang(n, true);
    client_write(&c, 0, 7, 0, data, BLOCK);
    wait_for_flight(r, "a");
    edit_start(r, &x, 100 * MS, "pause", "a", NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_false(disk(r, "a")->paused);
    edit_start(r, &x, 100 * MS, "insert", "a", "delay:0", NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    has_shape(r, "a", "testmem");
    edit_start(r, &x, 100 * MS, "remove-export", "a", NULL, NULL, NULL);
    assert_int_equal(edit_wait(&x), -ETIMEDOUT);
    assert_non_null(strstr(x.e.err.text, "it goes on by itself"));
    has_disks(r, "[a] b");
    must(r, "insert", "b", "delay:0"); /* nobody else minds */
    must(r, "remove-export", "b", NULL);
    st_testnode_hang(n, false);
    while (r->graph->nops)
        turn(r, MS);
    has_disks(r, "");
    close(c.fd);
}

static void
a_stop_in_the_middle_of_a_removal(void **state)
{
    struct rig *r = *state;
    struct guest a[GUESTS];
    struct edit x, y;

    must(r, "add-export", "a", "mem:1M");
    for (unsigned i = 0; i < GUESTS; i++)
        guest_start(r, &a[i], i, "a", true); /* so that it takes a while */
    guests_work(r, a, GUESTS, 5);
    edit_start(r, &x, 0, "remove-export", "a", NULL, NULL, NULL);
    edit_start(r, &y, 0, "add-export", "b", "mem:1M", NULL, NULL);
    while (r->graph->current != &x.e)
        turn(r, MS / 10);
    assert_int_equal(rig_stop(r), 0);
    assert_int_equal(x.rc, 0);
    assert_int_equal(y.rc, -ESHUTDOWN);
    guests_leave(a, GUESTS);
    has_disks(r, "");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define AUTO(f) cmocka_unit_test_setup_teardown(f, setup_auto, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(data_survive_every_verb),
        AUTO(data_survive_every_verb),
        TEST(an_export_goes_and_its_clients_with_it),
        AUTO(an_export_goes_and_its_clients_with_it),
        TEST(what_a_pause_holds_is_answered_when_the_export_goes),
        TEST(requests_that_hang_are_cancelled),
        TEST(requests_that_never_come_back_keep_their_disk),
        TEST(a_stop_in_the_middle_of_a_removal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
