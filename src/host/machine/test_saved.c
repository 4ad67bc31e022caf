/* SPDX-License-Identifier: MIT
 *
 * The file of a saved machine, and what the board's devices say into it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test_access.h"
#include "test_board.h"

#define MIB (UINT64_C(1) << 20)

static char folder[] = "/tmp/test_saved.XXXXXX";
static char file[64];
static uint8_t ram_of[2][BOARD_RAM];
static const _Atomic bool never, always = true;

/* ---- The file ---- */

static struct st_saved *
sections(void)
{
    struct st_saved *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    assert_int_equal(st_saved_add(s, "one", 1, strdup("abc"), 3), 0);
    assert_int_equal(st_saved_add(s, "nothing", 7, malloc(1), 0), 0);
    assert_int_equal(st_saved_add(s, "long", 2, calloc(1, 100000), 100000), 0);
    return s;
}

static void
forget(struct st_saved *s)
{
    st_saved_free(s);
    free(s);
}

static void
make_ram(uint64_t size, struct st_machine_ram *ram)
{
    struct st_err err;

    assert_int_equal(st_machine_ram_create(size, false, ram, &err), 0);
}

static void
what_was_written_is_read(void **state)
{
    struct st_saved *s = sections(), *r = calloc(1, sizeof(*r));
    const struct st_saved_section *section;
    struct st_machine_ram ram, back;
    struct stat sb;
    struct st_err err;
    int fd;

    (void)state;
    make_ram(1024 * MIB, &ram);
    make_ram(1024 * MIB, &back);
    memset(ram.host, 1, 4096);
    memset(ram.host + 300 * MIB + 4096, 2, 3 * 4096);
    memset(ram.host + 500 * MIB, 0, 8 * MIB); /* is there, and zero */
    ram.host[1024 * MIB - 1] = 3;
    assert_int_equal(st_saved_write(s, &ram, file, &never, &err), 0);
    assert_int_equal(stat(file, &sb), 0);
    assert_true(sb.st_blocks * 512 < 1 << 20); /* the rest is a hole */
    fd = open(file, O_RDWR);
    assert_int_equal(st_saved_read(r, fd, &err), 0);
    assert_int_equal(r->n, 3);
    section = st_saved_find(r, "one");
    assert_int_equal(section->version, 1);
    assert_int_equal(section->len, 3);
    assert_memory_equal(section->data, "abc", 3);
    assert_int_equal(st_saved_find(r, "nothing")->len, 0);
    assert_int_equal(st_saved_find(r, "long")->len, 100000);
    assert_null(st_saved_find(r, "other"));
    /* As a copy of the file may have them: zeroes that are written. */
    assert_int_equal(pwrite(fd, ram.host + 500 * MIB, 8 * MIB,
                            (off_t)(r->ram_at + 100 * MIB)),
                     8 * MIB);
    assert_int_equal(st_saved_read_ram(r, fd, &back, &err), 0);
    assert_memory_equal(ram.host, back.host, 4096);
    assert_memory_equal(ram.host + 300 * MIB, back.host + 300 * MIB, 65536);
    assert_int_equal(back.host[1024 * MIB - 1], 3);
    assert_int_equal(fstat(back.fd, &sb), 0);
    assert_true(sb.st_blocks * 512 < 1 << 20); /* nor is it touched */
    close(fd);
    st_machine_ram_destroy(&ram);
    st_machine_ram_destroy(&back);
    forget(s);
    forget(r);
}

static void
a_save_that_ends_early_leaves_no_file(void **state)
{
    struct st_saved *s = sections();
    struct st_machine_ram ram;
    struct st_err err;
    char new[80];

    (void)state;
    unlink(file);
    snprintf(new, sizeof(new), "%s.new", file);
    make_ram(16 * MIB, &ram);
    ram.host[0] = 1;
    assert_int_equal(st_saved_write(s, &ram, file, &always, &err), -ECANCELED);
    assert_non_null(strstr(err.text, "is being stopped"));
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(access(new, F_OK), -1);
    st_machine_ram_destroy(&ram);
    forget(s);
}

static void
there_are_not_too_many_sections(void **state)
{
    struct st_saved *s = calloc(1, sizeof(*s));

    (void)state;
    for (unsigned i = 0; i < ST_SAVED_SECTIONS; i++)
        assert_int_equal(st_saved_add(s, "x", 1, malloc(1), 1), 0);
    assert_int_equal(st_saved_add(s, "x", 1, malloc(1), 1), -ENOSPC);
    assert_int_equal(st_saved_add(s, "x", 1, NULL, 1), -ENOMEM);
    forget(s);
}

/* Read all but RAM of what is in the file, with byte AT changed. */
static int
parse_with(const uint8_t *p, size_t len, uint64_t size, size_t at,
           struct st_err *err)
{
    struct st_saved *s = calloc(1, sizeof(*s));
    uint8_t *q = malloc(len);
    int rc;

    memcpy(q, p, len);
    if (at < len)
        q[at] ^= 0x10;
    rc = st_saved_parse(s, q, len, size, err);
    free(q);
    forget(s);
    return rc;
}

static void
every_byte_is_guarded(void **state)
{
    struct st_saved *s = calloc(1, sizeof(*s));
    struct st_machine_ram ram;
    uint8_t p[4096];
    struct st_err err;
    struct stat sb;
    size_t len;
    int fd;

    (void)state;
    make_ram(16 * MIB, &ram);
    assert_int_equal(st_saved_add(s, "one", 1, strdup("abc"), 3), 0);
    assert_int_equal(st_saved_add(s, "two", 1, strdup("abcdefghi"), 9), 0);
    assert_int_equal(st_saved_write(s, &ram, file, &never, &err), 0);
    fd = open(file, O_RDONLY);
    assert_int_equal(fstat(fd, &sb), 0);
    assert_int_equal(read(fd, p, sizeof(p)), sizeof(p));
    close(fd);
    len = st_saved_head(p, sizeof(p));
    assert_int_equal(len, ST_SAVED_HEADER + 2 * 48 + 8 + 16);
    assert_int_equal(parse_with(p, len, (uint64_t)sb.st_size, len, &err), 0);
    for (size_t at = 0; at < len; at++) {
        int rc = parse_with(p, len, (uint64_t)sb.st_size, at, &err);

        assert_int_equal(rc, -EINVAL);
        assert_true(strlen(err.text) > 10);
    }
    for (size_t n = 0; n < len; n++)
        assert_int_equal(parse_with(p, n, (uint64_t)sb.st_size, len, &err),
                         -EINVAL);
    assert_int_equal(parse_with(p, len, (uint64_t)sb.st_size - 1, len, &err),
                     -EINVAL);
    assert_non_null(strstr(err.text, "cut short"));
    st_machine_ram_destroy(&ram);
    forget(s);
}

/* ---- Devices ---- */

static struct board was, is;

static void
make_boards(void)
{
    was = (struct board){.ram = ram_of[0], .ns = 5000000000000};
    is = (struct board){.ram = ram_of[1], .ns = 77};
    board_make(&was);
    board_make(&is);
}

/* IS becomes what WAS is. */
static void
move(void)
{
    struct st_saved_device from[BOARD_SAVED], to[BOARD_SAVED];
    struct st_saved *s = calloc(1, sizeof(*s));
    struct st_err err;

    board_saved(&was, from);
    board_saved(&is, to);
    for (unsigned i = 0; i < BOARD_SAVED; i++) {
        assert_int_equal(st_saved_take(s, &from[i]), 0);
        if (st_saved_put(s, &to[i], &err))
            fail_msg("%s", err.text);
    }
    forget(s);
}

static void
unmake_boards(void)
{
    board_unmake(&was);
    board_unmake(&is);
}

enum { COM = ST_SERIAL_COM1, IER = 1, FCR = 2, MCR = 4, LSR = 5 };

static void
what_waits_at_a_serial_port_is_not_lost(void **state)
{
    char text[1000], back[1000];

    (void)state;
    make_boards();
    for (unsigned i = 0; i < sizeof(text); i++)
        text[i] = (char)('a' + i % 23);
    put(was.ports, COM + FCR, 1, 0xc1);
    put(was.ports, COM + IER, 1, 3);
    put(was.ports, COM + 7, 1, 0x5a);
    was.full = true;
    for (unsigned i = 0; i < 5; i++)
        put(was.ports, COM, 1, "12345"[i]);
    assert_int_equal(
        st_serial_receive(was.serial, (uint8_t *)text, sizeof(text)),
        sizeof(text));
    assert_true(was.level);
    move();
    assert_true(is.level); /* there is something to read */
    assert_memory_equal(is.sent, "12345", 5);
    assert_int_equal(get(is.ports, COM + 7, 1), 0x5a);
    assert_int_equal(get(is.ports, COM + IER, 1), 3);
    for (unsigned i = 0; i < sizeof(back); i++) {
        assert_true(get(is.ports, COM + LSR, 1) & 1);
        back[i] = (char)get(is.ports, COM, 1);
    }
    assert_memory_equal(text, back, sizeof(back));
    assert_false(get(is.ports, COM + LSR, 1) & 1);
    unmake_boards();
}

static void
clocks_go_on(void **state)
{
    uint64_t then;

    (void)state;
    make_boards();
    /* The clock of CMOS is the host's, as far ahead as the guest has set it. */
    put(was.ports, 0x70, 1, 9);
    put(was.ports, 0x71, 1, 0x42); /* the year */
    put(was.ports, 0x70, 1, 0x5f);
    put(was.ports, 0x71, 1, 0xab);
    put(was.ports, ST_PM_EVENT + 2, 2, 1);
    was.ns += 4000000000;
    then = get(was.ports, ST_PM_TIMER, 4);
    is.ns = 10;
    move();
    /* The timer stood still. */
    assert_int_equal(get(is.ports, ST_PM_TIMER, 4), then);
    is.ns += 1000000000;
    assert_int_equal((get(is.ports, ST_PM_TIMER, 4) - then) & 0xffffffff,
                     ST_PM_TIMER_HZ);
    assert_int_equal(get(is.ports, ST_PM_EVENT + 2, 2), 1);
    assert_int_equal(get(is.ports, 0x71, 1), 0xab); /* the index, too */
    put(is.ports, 0x70, 1, 9);
    assert_int_equal(get(is.ports, 0x71, 1), 0x42);
    unmake_boards();
}

static void
the_rest_of_the_board_goes_on(void **state)
{
    (void)state;
    make_boards();
    put(was.ports, 0x80, 1, 0x77);
    put(was.ports, 0x92, 1, 4);
    put(was.ports, 0xcf8, 4, 0x80000004);
    put(was.ports, 0xcf9, 1, 2);
    put(was.ports, 0xcfc, 2, 0x0107); /* the bridge's command */
    put(was.ports, ST_FW_CFG_PORT, 2, 0);
    assert_int_equal(get(was.ports, ST_FW_CFG_PORT + 1, 1), 'Q');
    assert_int_equal(get(was.ports, ST_FW_CFG_PORT + 1, 1), 'E');
    move();
    assert_int_equal(st_misc_post_code(is.misc), 0x77);
    assert_int_equal(get(is.ports, 0x92, 1), 6);
    assert_int_equal(get(is.ports, 0xcf8, 4), 0x80000004);
    assert_int_equal(get(is.ports, 0xcf9, 1), 2);
    assert_int_equal(get(is.ports, 0xcfc, 2), get(was.ports, 0xcfc, 2));
    assert_int_equal(get(is.ports, ST_FW_CFG_PORT + 1, 1), 'M');
    assert_int_equal(get(is.ports, ST_FW_CFG_PORT + 1, 1), 'U');
    unmake_boards();
}

/* Each says so of each length that is not its own, and of what it cannot be. */
static void
devices_refuse_what_is_not_theirs(void **state)
{
    struct st_saved_device d[BOARD_SAVED];
    struct st_err err;

    (void)state;
    make_boards();
    board_saved(&was, d);
    for (unsigned i = 0; i < BOARD_SAVED; i++) {
        size_t len;
        void *all = st_pack_new(d[i].walk, d[i].device, 0, &len);

        assert_non_null(all);
        for (size_t n = 0; n <= len + 1; n++) {
            struct st_saved *s = calloc(1, sizeof(*s));
            uint8_t *part = calloc(1, n + 1);

            memcpy(part, all, n < len ? n : len);
            assert_int_equal(st_saved_add(s, d[i].name, 1, part, n), 0);
            assert_int_equal(st_saved_put(s, &d[i], &err),
                             n == len ? 0 : -EINVAL);
            s->section[0].version = 2;
            assert_int_equal(st_saved_put(s, &d[i], &err), -EINVAL);
            assert_non_null(strstr(err.text, "version 2"));
            s->section[0].version = 0;
            assert_int_equal(st_saved_put(s, &d[i], &err), -EINVAL);
            s->section[0].name[0] = 'X';
            assert_int_equal(st_saved_put(s, &d[i], &err), -EINVAL);
            assert_non_null(strstr(err.text, "has no '"));
            forget(s);
        }
        free(all);
    }
    unmake_boards();
}

/* Of device NAME, with the 8 bytes AT changed to VALUE. */
static void
refused_with(const char *name, size_t at, uint64_t value)
{
    struct st_saved_device d[BOARD_SAVED];
    struct st_err err;

    make_boards();
    board_saved(&was, d);
    for (unsigned i = 0; i < BOARD_SAVED; i++) {
        struct st_saved *s;

        if (strcmp(d[i].name, name) != 0)
            continue;
        s = calloc(1, sizeof(*s));
        assert_int_equal(st_saved_take(s, &d[i]), 0);
        assert_int_equal(st_saved_put(s, &d[i], &err), 0);
        memcpy(s->section[0].data + at, &value, sizeof(value));
        assert_int_equal(st_saved_put(s, &d[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "make no sense"));
        forget(s);
    }
    unmake_boards();
}

static void
values_that_cannot_be_are_refused(void **state)
{
    (void)state;
    refused_with("cmos", 0, 128);               /* the index */
    refused_with("cmos", 132, INT64_MAX);       /* seconds ahead */
    refused_with("cmos", 132, 1ULL << 63);      /* and behind */
    refused_with("serial 0", 26, 16);           /* where its FIFO begins */
    refused_with("serial 0", 26, 17ULL << 32);  /* and how much is in it */
    refused_with("serial 0", 1083, 2ULL << 56); /* neither full nor not */
}

static void
a_page_that_has_moved_is_damage(void **state)
{
    struct st_saved *s = sections(), *r = calloc(1, sizeof(*r));
    struct st_machine_ram ram;
    struct st_err err;
    uint8_t page[4096];
    int fd;

    (void)state;
    make_ram(16 * MIB, &ram);
    memset(ram.host + MIB, 7, sizeof(page));
    assert_int_equal(st_saved_write(s, &ram, file, &never, &err), 0);
    memset(ram.host + MIB, 0, sizeof(page));
    fd = open(file, O_RDWR);
    assert_int_equal(st_saved_read(r, fd, &err), 0);
    assert_int_equal(st_saved_read_ram(r, fd, &ram, &err), 0);
    assert_int_equal(ram.host[MIB], 7);
    memset(page, 0, sizeof(page));
    assert_int_equal(pwrite(fd, page, sizeof(page), (off_t)(r->ram_at + MIB)),
                     sizeof(page));
    memset(page, 7, sizeof(page));
    assert_int_equal(
        pwrite(fd, page, sizeof(page), (off_t)(r->ram_at + 2 * MIB)),
        sizeof(page));
    assert_int_equal(st_saved_read_ram(r, fd, &ram, &err), -EINVAL);
    assert_non_null(strstr(err.text, "memory is damaged"));
    close(fd);
    st_machine_ram_destroy(&ram);
    forget(s);
    forget(r);
}

static int
make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof(file), "%s/saved", folder);
    return 0;
}

static int
remove_folder(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_save_that_ends_early_leaves_no_file),
        cmocka_unit_test(there_are_not_too_many_sections),
        cmocka_unit_test(every_byte_is_guarded),
        cmocka_unit_test(what_waits_at_a_serial_port_is_not_lost),
        cmocka_unit_test(clocks_go_on),
        cmocka_unit_test(the_rest_of_the_board_goes_on),
        cmocka_unit_test(devices_refuse_what_is_not_theirs),
        cmocka_unit_test(values_that_cannot_be_are_refused),
        cmocka_unit_test(a_page_that_has_moved_is_damage),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
