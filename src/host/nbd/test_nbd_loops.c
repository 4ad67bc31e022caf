/* SPDX-License-Identifier: MIT
 *
 * The NBD door on several loops at once: clients in threads, a small memory
 * cap that they share, others that die, exports that come and go under them,
 * and a stop in the middle.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/un.h>
#include <unistd.h>

#include "nbd.h"
#include "rand.h"
#include "test_client.h"
#include "test_tls.h"
#include "testnode.h"

enum { LOOPS = 3, CLIENTS = 5, SIZE = 8 << 20, PART = SIZE / 8, ROUNDS = 120 };

struct world {
    struct st_domain *domain;
    struct st_loop *control, *loop[LOOPS];
    struct st_node *node;
    struct st_disk *disk;
    struct st_nbd *nbd;
    struct st_cap_row *row; /* of the memory */
    const char *psk;        /* a file; NULL: no TLS */
    bool stopped;
    int rc;
    atomic_uint good, finished;
};

struct guest {
    pthread_t thread;
    struct world *world;
    unsigned index;
    int fd;
};

static void
on_stopped(void *arg, int rc)
{
    struct world *w = arg;

    w->stopped = true;
    w->rc = rc;
}

/* Write and read back a part of the disk that is this client's alone. Stays in
 * this thread, so no assertion here: what went well is counted. */
static void *
diligent(void *arg)
{
    struct guest *g = arg;
    struct client c = {.fd = g->fd};
    struct st_rand r = st_rand_seed(g->index + 1);
    uint8_t *out = malloc(PART), *in = malloc(PART);
    uint64_t base = (uint64_t)g->index * PART;

    if (g->world->psk) {
        tls_client_up(&c, (struct manner){.psk = "alice:" PSK_HEX});
        tls_client_go(&c, "", g->index % 3);
    } else {
        client_go(&c, "", g->index % 3);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t len = 1 + st_rand_below(&r, i % 8 ? 20000 : PART / 2);
        uint64_t off = st_rand_below(&r, PART - len + 1);

        for (size_t k = 0; k < len; k += 97)
            out[k] = (uint8_t)st_rand_next(&r);
        if (client_write_at(&c, i % 5 ? 0 : NBD_CMD_FUA, base + off, out,
                            len) == 0 &&
            client_read_at(&c, 0, base + off, in, len) == 0 &&
            memcmp(in, out, len) == 0)
            atomic_fetch_add(&g->world->good, 1);
        if (i % 30 == 0)
            client_do(&c, NBD_CMD_FLUSH, 0, 0, 0);
    }
    client_request(&c, NBD_CMD_DISC, 0, 0, 0, 0);
    client_expect_end(&c);
    tls_client_free(&c);
    close(g->fd);
    free(in);
    free(out);
    atomic_fetch_add(&g->world->finished, 1);
    return NULL;
}

/* Ask for much, and die before it comes. */
static void *
rude(void *arg)
{
    struct guest *g = arg;
    struct client c = {.fd = g->fd};

    client_go(&c, "", g->index % 3);
    for (unsigned i = 0; i < 20; i++)
        client_request(&c, NBD_CMD_READ, 0, i, 0, SIZE);
    close(g->fd);
    atomic_fetch_add(&g->world->finished, 1);
    return NULL;
}

/* Speak without listening: whatever the server does is right. */
static void *
blind(void *arg)
{
    struct guest *g = arg;
    struct client c = {.fd = g->fd};
    be32 flags = be32_of(NBD_NO_ZEROES);

    client_send(&c, &flags, sizeof(flags));
    client_option(&c, NBD_OPT_EXPORT_NAME, NULL);
    for (unsigned i = 0; i < 20; i++)
        client_request(&c, NBD_CMD_READ, 0, i, 0, SIZE);
    while (client_recv(&c, &flags, sizeof(flags)))
        ;
    close(g->fd);
    return NULL;
}

static void
start(struct world *w, struct guest *g, void *(*run)(void *), unsigned index)
{
    struct st_err err;
    int fd[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    assert_int_equal(st_nbd_connection(w->nbd, fd[1], NULL, NULL, &err), 0);
    g->world = w;
    g->index = index;
    g->fd = fd[0];
    assert_int_equal(pthread_create(&g->thread, NULL, run, g), 0);
}

struct flag {
    struct st_task task;
    bool done;
};

static void
raise_flag(struct st_task *t)
{
    st_container(t, struct flag, task)->done = true;
}

static void
turn(struct st_loop *l)
{
    struct flag f = {.task.run = raise_flag};

    st_ready(l, &f.task);
    st_loop_wait(l, &f.done);
}

static void
open_world(struct world *w, uint64_t memory)
{
    struct st_testnode_opts o = {.size = SIZE};
    struct st_domain_opts d = {.poll_us = 20};
    struct st_nbd_opts n = {.nloops = LOOPS};
    struct st_err err;

    assert_int_equal(st_domain_create(&d, &w->domain, &err), 0);
    w->row = &st_domain_caps(w->domain)->row[ST_CAP_NBD_MEMORY];
    w->row->limit = memory;
    assert_int_equal(st_loop_create(w->domain, &w->control, &err), 0);
    for (unsigned i = 0; i < LOOPS; i++) {
        assert_int_equal(st_loop_create(w->domain, &w->loop[i], &err), 0);
        assert_int_equal(st_loop_start(w->loop[i], "io"), 0);
    }
    assert_int_equal(st_testnode_create(w->control, &o, &w->node, &err), 0);
    assert_int_equal(
        st_disk_create(w->control, w->node, "d", false, &w->disk, &err), 0);
    n.tls = w->psk ? ST_NBD_TLS_ON : ST_NBD_TLS_OFF;
    n.tls_psk = w->psk;
    n.control = w->control;
    n.loops = w->loop;
    assert_int_equal(st_nbd_create(&n, &w->nbd, &err), 0);
    assert_int_equal(st_nbd_export(w->nbd, "", "", w->disk, false, &err), 0);
}

static void
close_world(struct world *w)
{
    st_nbd_stop(w->nbd, 0, on_stopped, w);
    assert_true(st_loop_wait(w->control, &w->stopped));
    st_nbd_destroy(w->nbd);
    assert_int_equal(w->row->used, 0);
    for (unsigned i = 0; i < LOOPS; i++) {
        st_loop_join(w->loop[i]);
        st_loop_destroy(w->loop[i]);
    }
    assert_null(st_testnode_complaint(w->node));
    st_disk_destroy(w->disk);
    st_loop_destroy(w->control);
    st_domain_destroy(w->domain);
}

static void
sweep(uint64_t memory, const char *psk)
{
    struct guest guest[CLIENTS], bad[CLIENTS];
    struct world w = {.psk = psk};

    open_world(&w, memory);
    for (unsigned i = 0; i < CLIENTS; i++) {
        start(&w, &bad[i], rude, i);
        start(&w, &guest[i], diligent, i);
    }
    while (atomic_load(&w.finished) < 2 * CLIENTS) {
        turn(w.control);
        usleep(1000); /* this thread has no part in it */
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(guest[i].thread, NULL);
        pthread_join(bad[i].thread, NULL);
    }
    assert_int_equal(w.good, CLIENTS * ROUNDS);
    assert_true(w.row->peak <= w.row->limit);
    start(&w, &bad[0], blind, 1); /* still busy when it stops */
    close_world(&w);
    pthread_join(bad[0].thread, NULL);
}

static void
clients_on_many_loops_keep_their_data(void **state)
{
    (void)state;
    sweep(UINT64_C(256) << 20, NULL);
}

static void
loops_share_a_small_memory_cap(void **state)
{
    (void)state;
    sweep(UINT64_C(3) << 20, NULL);
}

/* Those with TLS beside those without. */
static void
tls_on_many_loops(void **state)
{
    char dir[] = "/tmp/nbd-loops-XXXXXX";

    (void)state;
    tls_files_make(dir);
    sweep(UINT64_C(16) << 20, tls_path(dir, "psk"));
    tls_files_remove(dir);
}

/* The first loop takes all the memory, uses it, and goes idle with it. */
static void
an_idle_loop_gives_up_its_memory(void **state)
{
    struct client c[2] = {{.fd = -1}, {.fd = -1}};
    uint8_t *buf = malloc(PART);
    struct world w = {0};
    struct st_err err;
    int fd[2];

    (void)state;
    open_world(&w, 1 << 20);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        c[i].fd = fd[0];
        assert_int_equal(st_nbd_connection(w.nbd, fd[1], NULL, NULL, &err), 0);
        client_go(&c[i], "", STRUCTURED);
        assert_int_equal(client_read_at(&c[i], 0, 0, buf, 256 << 10), 0);
        assert_int_equal(client_write_at(&c[i], 0, 0, buf, 256 << 10), 0);
    }
    close(c[0].fd);
    close(c[1].fd);
    close_world(&w);
    free(buf);
}

/* ---- Exports that come and go ---- */

enum { COMINGS = 300, LEAVES = 6 };

struct churn {
    struct world world;
    struct sockaddr_un address;
    socklen_t address_len;
    atomic_bool quit;
    atomic_uint served, refused; /* connections */
};

/* Connect, use the export "x" until it is taken away, again and again. */
static void *
visitor(void *arg)
{
    struct churn *ch = arg;
    uint8_t hello[18], start[10], buf[5000] = {0};
    be32 flags = be32_of(NBD_NO_ZEROES);
    struct msg name = {.n = 0};

    put_text(&name, "x");
    while (!atomic_load(&ch->quit)) {
        struct client c = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
        bool served = false;

        if (connect(c.fd, (struct sockaddr *)&ch->address, ch->address_len) <
            0) {
            close(c.fd);
            break; /* it stops */
        }
        client_recv(&c, hello, sizeof(hello));
        client_send(&c, &flags, sizeof(flags));
        client_option(&c, NBD_OPT_EXPORT_NAME, &name);
        if (client_recv(&c, start, sizeof(start)) == sizeof(start)) {
            struct nbd_simple h;

            for (unsigned i = 0; i < 1000; i++) {
                client_request(&c, NBD_CMD_READ, 0, i, 4096 * i, sizeof(buf));
                client_write(&c, 0, i, 4096 * i, buf, sizeof(buf));
                /* Two replies in any order; with data or without. */
                if (client_recv(&c, &h, sizeof(h)) < sizeof(h) ||
                    be32_get(h.error))
                    break;
                served = true;
                client_recv(&c, buf, sizeof(buf));
                if (client_recv(&c, buf, sizeof(h)) < sizeof(h))
                    break;
            }
        }
        atomic_fetch_add(served ? &ch->served : &ch->refused, 1);
        close(c.fd);
    }
    return NULL;
}

struct leave {
    struct st_nbd_unexport u;
    bool busy;
};

static void
on_left(struct st_nbd_unexport *u)
{
    ((struct leave *)u->arg)->busy = false;
}

static void
ignore_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    (void)v;
    (void)name;
    (void)value;
}

static void
ignore_text(struct st_inspect *v, const char *name, const char *value)
{
    (void)name;
    assert_non_null(value);
    (void)v;
}

static void
ignore_enter(struct st_inspect *v, const char *name)
{
    (void)v;
    (void)name;
}

static void
ignore_leave(struct st_inspect *v)
{
    (void)v;
}

static void
exports_come_and_go_under_their_clients(void **state)
{
    struct st_inspect v = {ignore_u64, ignore_text, ignore_enter, ignore_leave};
    struct churn ch = {.address = {.sun_family = AF_UNIX},
                       .address_len = sizeof(sa_family_t)};
    struct leave leave[LEAVES] = {0};
    struct world *w = &ch.world;
    pthread_t thread[CLIENTS];
    struct st_rand r = st_rand_seed(7);
    unsigned came = 0, left = 0;
    bool there = false;
    struct st_err err;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    open_world(w, UINT64_C(64) << 20);
    assert_int_equal(bind(fd, (struct sockaddr *)&ch.address, ch.address_len),
                     0);
    assert_int_equal(listen(fd, 64), 0);
    ch.address_len = sizeof(ch.address);
    getsockname(fd, (struct sockaddr *)&ch.address, &ch.address_len);
    assert_int_equal(st_nbd_listen(w->nbd, fd, &err), 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, visitor, &ch), 0);
    for (unsigned i = 0; came < COMINGS || !ch.served; i++) {
        struct leave *l = &leave[i % LEAVES];

        if (!there) {
            assert_int_equal(
                st_nbd_export(w->nbd, "x", NULL, w->disk, false, &err), 0);
            there = true;
            came++;
        } else if (!l->busy) {
            *l = (struct leave){.u = {.done = on_left, .arg = l}, .busy = true};
            assert_int_equal(
                st_nbd_unexport(w->nbd, "x", st_rand_below(&r, 2000000), &l->u),
                0);
            there = false;
            left++;
        }
        st_testnode_hang(w->node, i % 8 == 0);
        st_nbd_inspect(w->nbd, &v);
        usleep((useconds_t)st_rand_below(&r, 2000));
        turn(w->control);
    }
    st_testnode_hang(w->node, false);
    close_world(w); /* some are still on their way out */
    for (unsigned i = 0; i < LEAVES; i++)
        assert_false(leave[i].busy);
    atomic_store(&ch.quit, true);
    for (unsigned i = 0; i < CLIENTS; i++)
        pthread_join(thread[i], NULL);
    print_message("%u came, %u left, %u connections served, %u not\n", came,
                  left, ch.served, ch.refused);
    assert_true(left > 0 && ch.refused > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_on_many_loops_keep_their_data),
        cmocka_unit_test(loops_share_a_small_memory_cap),
        cmocka_unit_test(tls_on_many_loops),
        cmocka_unit_test(an_idle_loop_gives_up_its_memory),
        cmocka_unit_test(exports_come_and_go_under_their_clients),
    };

    signal(SIGPIPE, SIG_IGN); /* OpenSSL's sockets */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
