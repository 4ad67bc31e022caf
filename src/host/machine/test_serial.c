/* SPDX-License-Identifier: MIT
 *
 * The serial port, as Linux's 8250 driver and SeaBIOS use it: who it says it
 * is, when its interrupt comes and goes, what happens to bytes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "serial.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH, FCR = IIR };
enum { NONE = 0x01, EMPTY = 0x02, RECEIVED = 0x04, LINE = 0x06, TIMEOUT = 0xc };

static struct rig {
    struct st_space *ports;
    struct st_serial *port;
    char sent[64];
    unsigned nsent, edges, rooms;
    bool level, busy;
} rig;

static void
rig_line(void *arg, bool level)
{
    struct rig *r = arg;

    assert_true(level != r->level);
    r->level = level;
    r->edges += level;
}

static bool
rig_send(void *arg, uint8_t byte)
{
    struct rig *r = arg;

    if (r->busy)
        return false;
    r->sent[r->nsent++ % sizeof(r->sent)] = (char)byte;
    return true;
}

static void
rig_room(void *arg)
{
    ((struct rig *)arg)->rooms++;
}

static const struct st_serial_ops rig_ops = {rig_line, rig_send, rig_room};

static int
set_up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof(rig));
    assert_int_equal(st_space_create(0x10000, &rig.ports), 0);
    assert_int_equal(
        st_serial_create(rig.ports, ST_SERIAL_COM1, &rig_ops, &rig, &rig.port),
        0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    st_serial_destroy(rig.port);
    st_space_destroy(rig.ports);
    return 0;
}

static uint64_t
get_wide(unsigned reg, unsigned len)
{
    struct st_access a = {.offset = ST_SERIAL_COM1 + reg, .len = len};

    assert_true(st_space_access(rig.ports, &a));
    return a.value;
}

static uint8_t
get(unsigned reg)
{
    return (uint8_t)get_wide(reg, 1);
}

static void
put(unsigned reg, uint8_t value)
{
    struct st_access a = {.offset = ST_SERIAL_COM1 + reg,
                          .len = 1,
                          .write = true,
                          .value = value};

    assert_true(st_space_access(rig.ports, &a));
}

static void
receive(const char *text)
{
    assert_int_equal(
        st_serial_receive(rig.port, (const uint8_t *)text, strlen(text)),
        strlen(text));
}

/* ---- Who it is ---- */

static void
a_driver_takes_it_for_a_16550a(void **state)
{
    (void)state;
    put(IER, 0);
    assert_int_equal(get(IER), 0);
    put(IER, 0xff);
    assert_int_equal(get(IER), 0x0f); /* nothing of later models */
    put(IER, 0);
    /* Loop-back with RTS and Out 2 shows CTS and carrier. */
    put(MCR, 0x1a);
    assert_int_equal(get(MSR) & 0xf0, 0x90);
    put(MCR, 0x15);
    assert_int_equal(get(MSR) & 0xf0, 0x60); /* DTR, Out 1 */
    put(MCR, 0xff);
    assert_int_equal(get(MCR), 0x1f);
    put(MCR, 0);
    assert_int_equal(get(MSR) & 0xf0, 0xb0);
    assert_int_equal(get(IIR), NONE);
    put(FCR, 0x01);
    assert_int_equal(get(IIR), 0xc0 | NONE);
    put(FCR, 0x00);
    assert_int_equal(get(IIR), NONE);
    put(SCRATCH, 0x5a);
    assert_int_equal(get(SCRATCH), 0x5a);
}

static void
the_divisor_hides_data_and_interrupt_enable(void **state)
{
    (void)state;
    put(LCR, 0x83);
    assert_int_equal(get(DATA), 12);
    put(DATA, 0x01);
    put(IER, 0x02);
    assert_int_equal(get(DATA), 0x01);
    assert_int_equal(get(IER), 0x02);
    assert_int_equal(rig.nsent, 0);
    put(LCR, 0x03);
    assert_int_equal(get(LCR), 0x03);
    assert_int_equal(get(IER), 0x00);
    assert_false(rig.level);
}

static void
a_long_access_reaches_the_neighbours(void **state)
{
    (void)state;
    put(LCR, 0x03);
    put(MCR, 0x0b);
    put(SCRATCH, 0x77);
    assert_int_equal(get_wide(LCR, 2), 0x0b03);
    assert_int_equal(get_wide(MCR, 4), 0x77b0600b);
}

/* ---- Sending ---- */

static void
bytes_leave_at_once(void **state)
{
    (void)state;
    assert_int_equal(get(LSR), 0x60);
    put(DATA, 'h');
    put(DATA, 'i');
    assert_int_equal(get(LSR), 0x60);
    assert_int_equal(rig.nsent, 2);
    assert_memory_equal(rig.sent, "hi", 2);
    assert_int_equal(rig.edges, 0);
}

static void
empty_is_told_when_its_enable_goes_on(void **state)
{
    (void)state;
    put(IER, 2);
    assert_true(rig.level);
    assert_int_equal(get(IIR), EMPTY);
    assert_false(rig.level); /* reading it was the acknowledgement */
    assert_int_equal(get(IIR), NONE);
    put(IER, 2); /* it was on */
    assert_false(rig.level);
    put(IER, 0);
    put(IER, 2);
    assert_true(rig.level);
    put(IER, 0);
    assert_false(rig.level);
    assert_int_equal(rig.edges, 2);
}

static void
empty_is_told_after_each_byte_by_an_edge(void **state)
{
    (void)state;
    put(IER, 2);
    assert_int_equal(rig.edges, 1);
    put(DATA, 'a'); /* without a look at IIR */
    assert_true(rig.level);
    assert_int_equal(rig.edges, 2);
    assert_int_equal(get(IIR), EMPTY);
    put(DATA, 'b');
    assert_int_equal(rig.edges, 3);
    assert_int_equal(get(IIR), EMPTY);
    assert_int_equal(get(IIR), NONE);
}

static void
a_slow_host_fills_the_fifo(void **state)
{
    struct st_serial_stats stats;

    (void)state;
    put(FCR, 0x01);
    put(IER, 2);
    assert_int_equal(get(IIR), 0xc0 | EMPTY);
    rig.busy = true;
    for (unsigned i = 0; i < 18; i++)
        put(DATA, (uint8_t)('a' + i));
    assert_int_equal(get(LSR), 0x00);
    assert_false(rig.level);
    st_serial_writable(rig.port); /* it still has no room */
    assert_int_equal(rig.nsent, 0);
    rig.busy = false;
    st_serial_writable(rig.port);
    assert_int_equal(rig.nsent, 16);
    assert_memory_equal(rig.sent, "abcdefghijklmnop", 16);
    assert_int_equal(get(LSR), 0x60);
    assert_true(rig.level);
    st_serial_stats(rig.port, &stats);
    assert_int_equal(stats.sent, 16);
    assert_int_equal(stats.dropped, 2);
}

static void
a_writer_can_give_up_what_waits(void **state)
{
    (void)state;
    put(FCR, 0x01);
    rig.busy = true;
    put(DATA, 'x');
    put(IER, 2);
    assert_false(rig.level); /* nothing is empty */
    put(FCR, 0x05);
    assert_true(rig.level);
    rig.busy = false;
    st_serial_writable(rig.port);
    assert_int_equal(rig.nsent, 0);
    assert_int_equal(get(LSR), 0x60);
}

/* ---- Receiving ---- */

static void
received_data_interrupts_until_it_is_read(void **state)
{
    (void)state;
    receive("k");
    assert_false(rig.level);
    assert_int_equal(get(LSR), 0x61);
    put(IER, 1);
    assert_true(rig.level);
    assert_int_equal(get(IIR), RECEIVED);
    assert_true(rig.level);
    assert_int_equal(get(DATA), 'k');
    assert_false(rig.level);
    assert_int_equal(get(LSR), 0x60);
    assert_int_equal(get(DATA), 0);
}

static void
less_than_the_trigger_is_a_timeout(void **state)
{
    (void)state;
    put(FCR, 0x81); /* trigger at 8 */
    put(IER, 1);
    receive("1234567");
    assert_int_equal(get(IIR), 0xc0 | TIMEOUT);
    receive("8");
    assert_int_equal(get(IIR), 0xc0 | RECEIVED);
    assert_int_equal(get(DATA), '1');
    assert_int_equal(get(IIR), 0xc0 | TIMEOUT);
    assert_true(rig.level);
}

static void
input_waits_in_a_queue_that_is_bounded(void **state)
{
    uint8_t data[ST_SERIAL_QUEUE + 100];

    (void)state;
    put(FCR, 0x01);
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    assert_int_equal(st_serial_receive(rig.port, data, sizeof(data)),
                     ST_SERIAL_QUEUE);
    put(FCR, 0x03); /* clears the FIFO, not the queue */
    for (unsigned i = 16; i < ST_SERIAL_QUEUE; i++) {
        assert_int_equal(get(LSR), 0x61);
        assert_int_equal(get(DATA), (uint8_t)i);
        assert_in_range(rig.rooms, 0, i > ST_SERIAL_QUEUE / 3);
    }
    assert_int_equal(get(LSR), 0x60);
    receive("z");
    assert_int_equal(get(DATA), 'z');
    assert_int_equal(rig.rooms, 1);
}

static void
loop_back_sends_to_itself_only(void **state)
{
    struct st_serial_stats stats;

    (void)state;
    put(FCR, 0x01);
    put(MCR, 0x10);
    receive("later");
    put(IER, 4);
    for (unsigned i = 0; i < 17; i++)
        put(DATA, (uint8_t)('a' + i));
    assert_int_equal(rig.nsent, 0);
    assert_true(rig.level);
    assert_int_equal(get(IIR), 0xc0 | LINE); /* the 17th was one too many */
    assert_int_equal(get(LSR), 0x63);
    assert_false(rig.level);
    assert_int_equal(get(LSR), 0x61);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(get(DATA), 'a' + i);
    assert_int_equal(get(LSR), 0x60);
    put(MCR, 0x00);
    assert_int_equal(get(DATA), 'l');
    st_serial_stats(rig.port, &stats);
    assert_int_equal(stats.overrun, 1);
}

/* ---- Modem lines, priorities, reset ---- */

static void
modem_lines_that_change_are_told(void **state)
{
    (void)state;
    put(IER, 8);
    assert_false(rig.level);
    put(MCR, 0x10); /* all lines fall */
    assert_true(rig.level);
    assert_int_equal(get(IIR), 0x00);
    assert_int_equal(get(MSR), 0x0b);
    assert_false(rig.level);
    put(MCR, 0x14); /* the bell rings: told only when it stops */
    assert_int_equal(get(MSR), 0x40);
    put(MCR, 0x10);
    assert_int_equal(get(MSR), 0x04);
}

static void
the_most_urgent_is_said_first(void **state)
{
    (void)state;
    put(MCR, 0x10);
    put(IER, 0x0f);
    put(DATA, '1');
    put(DATA, '2');
    assert_int_equal(get(IIR), LINE);
    get(LSR);
    assert_int_equal(get(IIR), RECEIVED);
    get(DATA);
    assert_int_equal(get(IIR), EMPTY);
    assert_int_equal(get(IIR), 0x00);
    get(MSR);
    assert_int_equal(get(IIR), NONE);
    assert_false(rig.level);
}

static void
a_reset_keeps_the_input_only(void **state)
{
    (void)state;
    put(FCR, 0x01);
    put(IER, 0x0f);
    put(LCR, 0x9b);
    put(MCR, 0x1f);
    receive("in");
    st_serial_reset(rig.port);
    assert_false(rig.level);
    assert_int_equal(get(IER), 0);
    assert_int_equal(get(IIR), NONE);
    assert_int_equal(get(LCR), 0);
    assert_int_equal(get(MCR), 0);
    assert_int_equal(get(MSR), 0xb0);
    assert_int_equal(get(DATA), 'i');
    assert_int_equal(get(DATA), 'n');
}

static void
two_ports_cannot_share_an_address(void **state)
{
    struct st_serial *other = NULL;

    (void)state;
    assert_int_equal(
        st_serial_create(rig.ports, ST_SERIAL_COM1 + 4, &rig_ops, &rig, &other),
        -EEXIST);
    assert_null(other);
    st_serial_destroy(NULL);
}

/* ---- Threads ---- */

enum { MANY = 20000 };

static void *
type_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < MANY;) {
        uint8_t byte = (uint8_t)i;

        if (st_serial_receive(rig.port, &byte, 1))
            i++;
        else
            sched_yield();
        if (i % 64 == 0)
            st_serial_writable(rig.port);
    }
    return NULL;
}

static void
host_and_guest_use_it_at_once(void **state)
{
    pthread_t thread;

    (void)state;
    put(FCR, 0x01);
    put(IER, 0x03);
    assert_int_equal(pthread_create(&thread, NULL, type_many, NULL), 0);
    for (unsigned i = 0; i < MANY;) {
        if (!(get(LSR) & 1)) {
            sched_yield();
            continue;
        }
        assert_int_equal(get(DATA), (uint8_t)i);
        put(DATA, (uint8_t)i);
        i++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(rig.nsent, MANY);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_driver_takes_it_for_a_16550a),
        TEST(the_divisor_hides_data_and_interrupt_enable),
        TEST(a_long_access_reaches_the_neighbours),
        TEST(bytes_leave_at_once),
        TEST(empty_is_told_when_its_enable_goes_on),
        TEST(empty_is_told_after_each_byte_by_an_edge),
        TEST(a_slow_host_fills_the_fifo),
        TEST(a_writer_can_give_up_what_waits),
        TEST(received_data_interrupts_until_it_is_read),
        TEST(less_than_the_trigger_is_a_timeout),
        TEST(input_waits_in_a_queue_that_is_bounded),
        TEST(loop_back_sends_to_itself_only),
        TEST(modem_lines_that_change_are_told),
        TEST(the_most_urgent_is_said_first),
        TEST(a_reset_keeps_the_input_only),
        TEST(two_ports_cannot_share_an_address),
        TEST(host_and_guest_use_it_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
