/* SPDX-License-Identifier: MIT
 *
 * Consoles: bytes both ways, backpressure, the escape key, clients that come
 * and go.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "console.h"

static struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_space *ports;
    struct st_serial *serial;
    struct st_console *console;
    int in[2], out[2];
    char keys[16];
    bool done;
    struct st_timer timer;
} rig;

static void
line(void *arg, bool level)
{
    (void)arg;
    (void)level;
}

static bool
sends(void *arg, uint8_t byte)
{
    (void)arg;
    return st_console_send(rig.console, byte);
}

static void
room(void *arg)
{
    (void)arg;
    st_console_room(rig.console);
}

static const struct st_serial_ops ops = {line, sends, room};

static void
escape(void *arg, char key)
{
    (void)arg;
    rig.keys[strlen(rig.keys)] = key;
}

static void
late(struct st_timer *t)
{
    (void)t;
    rig.done = true;
}

/* Let the loop do what it can. */
static void
turn(void)
{
    rig.done = false;
    rig.timer.fire = late;
    st_timer_set(rig.loop, &rig.timer, rig.loop->now + 20000000);
    st_loop_wait(rig.loop, &rig.done);
}

static void
open_rig(bool escapes, int listen)
{
    struct st_domain_opts d = {.engine = "threads"};
    struct st_console_opts o = {.escape = escapes ? escape : NULL,
                                .listen = listen};

    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_domain_create(&d, &rig.domain, NULL), 0);
    assert_int_equal(st_loop_create(rig.domain, &rig.loop, NULL), 0);
    assert_int_equal(pipe(rig.in), 0);
    assert_int_equal(pipe(rig.out), 0);
    o.loop = rig.loop;
    o.in = listen < 0 ? rig.in[0] : -1;
    o.out = listen < 0 ? rig.out[1] : -1;
    assert_int_equal(st_console_create(&o, &rig.console), 0);
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(
        st_serial_create(rig.ports, ST_SERIAL_COM1, &ops, NULL, &rig.serial),
        0);
    st_console_attach(rig.console, rig.serial);
}

static void
close_rig(void)
{
    st_console_attach(rig.console, NULL);
    st_serial_destroy(rig.serial);
    st_console_destroy(rig.console);
    st_space_destroy(rig.ports);
    st_timer_stop(rig.loop, &rig.timer);
    st_loop_destroy(rig.loop);
    st_domain_destroy(rig.domain);
    for (unsigned i = 0; i < 2; i++) {
        close(rig.in[i]);
        close(rig.out[i]);
    }
}

static uint8_t
in8(unsigned port)
{
    struct st_access a = {.offset = ST_SERIAL_COM1 + port, .len = 1};

    assert_true(st_space_access(rig.ports, &a));
    return (uint8_t)a.value;
}

static void
out8(unsigned port, uint8_t value)
{
    struct st_access a = {.offset = ST_SERIAL_COM1 + port,
                          .len = 1,
                          .write = true,
                          .value = value};

    assert_true(st_space_access(rig.ports, &a));
}

/* What the guest reads from its port. */
static const char *
guest_reads(void)
{
    static char text[8192];
    size_t n = 0;

    for (unsigned i = 0; i < 50 && n < sizeof(text) - 1; i++) {
        turn();
        while (in8(5) & 1 && n < sizeof(text) - 1)
            text[n++] = (char)in8(0);
        if (n && !(in8(5) & 1) && i > 2)
            break;
    }
    text[n] = '\0';
    return text;
}

static void
bytes_go_both_ways(void **state)
{
    char text[16] = "";

    (void)state;
    open_rig(false, -1);
    for (const char *p = "hello"; *p; p++)
        out8(0, (uint8_t)*p);
    turn();
    assert_int_equal(read(rig.out[0], text, sizeof(text)), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(write(rig.in[1], "w\x1dx", 3), 3);
    assert_string_equal(guest_reads(), "w\x1dx"); /* it has no escape key */
    close_rig();
}

static void
more_input_than_fits_waits(void **state)
{
    char text[4096];
    const char *got;

    (void)state;
    open_rig(false, -1);
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i % 23);
    assert_int_equal(write(rig.in[1], text, sizeof(text)), sizeof(text));
    got = guest_reads();
    for (size_t n = strlen(got); n < sizeof(text); n += strlen(got)) {
        assert_memory_equal(got, text + n - strlen(got), strlen(got));
        got = guest_reads();
        assert_true(*got);
    }
    close_rig();
}

static void
output_that_nobody_reads_waits(void **state)
{
    char text[4096];
    size_t sent = 0, got = 0;

    (void)state;
    open_rig(false, -1);
    fcntl(rig.out[0], F_SETFL, O_NONBLOCK);
    /* Until the pipe, the ring and the FIFO are full. */
    while (sent < (1 << 20) && in8(5) & 0x20) {
        out8(0, (uint8_t)sent++);
        if (sent % 4096 == 0)
            turn();
    }
    assert_true(sent < 1 << 20);
    for (unsigned i = 0; i < 1000 && got < sent; i++) {
        ssize_t n = read(rig.out[0], text, sizeof(text));

        for (ssize_t k = 0; k < n; k++)
            assert_int_equal((uint8_t)text[k], (uint8_t)(got + (size_t)k));
        got += n > 0 ? (size_t)n : 0;
        if (n <= 0)
            turn();
    }
    assert_int_equal(got, sent);
    assert_true(in8(5) & 0x20); /* and it may go on */
    close_rig();
}

static void
the_escape_key_is_ours(void **state)
{
    (void)state;
    open_rig(true, -1);
    assert_int_equal(write(rig.in[1],
                           "a\x1dq\x1d\x1d"
                           "b\x1d",
                           7),
                     7);
    assert_string_equal(guest_reads(), "a\x1d"
                                       "b");
    assert_string_equal(rig.keys, "q");
    assert_int_equal(write(rig.in[1], "pc", 2), 2);
    assert_string_equal(guest_reads(), "c");
    assert_string_equal(rig.keys, "qp");
    close_rig();
}

static int
connect_to(const struct sockaddr_un *a, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (const struct sockaddr *)a, len), 0);
    return fd;
}

static void
clients_come_and_go(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(a.sun_family);
    int l = socket(AF_UNIX, SOCK_STREAM, 0), one, two;
    char text[16] = "";

    (void)state;
    /* An address of the kernel's choice. */
    assert_int_equal(bind(l, (struct sockaddr *)&a, len), 0);
    len = sizeof(a);
    assert_int_equal(getsockname(l, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(listen(l, 4), 0);
    open_rig(false, l);
    out8(0, 'x'); /* nobody hears it */
    turn();
    one = connect_to(&a, len);
    two = connect_to(&a, len);
    turn();
    out8(0, '1');
    turn();
    assert_int_equal(read(one, text, sizeof(text)), 1);
    assert_int_equal(text[0], '1');
    close(one);
    turn();
    out8(0, '2');
    turn();
    assert_int_equal(read(two, text, sizeof(text)), 1);
    assert_int_equal(text[0], '2');
    assert_int_equal(write(two, "in", 2), 2);
    assert_string_equal(guest_reads(), "in");
    close(two);
    close_rig();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_go_both_ways),
        cmocka_unit_test(more_input_than_fits_waits),
        cmocka_unit_test(output_that_nobody_reads_waits),
        cmocka_unit_test(the_escape_key_is_ours),
        cmocka_unit_test(clients_come_and_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
