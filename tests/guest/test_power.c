/* SPDX-License-Identifier: MIT
 *
 * The judge of power loss, judged: which states break a promise, and logs of
 * dm-log-writes that were made by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "power.h"

enum {
    BLOCKS = 8,
};

static struct power_block blocks[BLOCKS];

/* The promises of a journal until MARK. */
static int
promises(const char *journal, const char *mark)
{
    FILE *f = fmemopen((void *)(uintptr_t)journal, strlen(journal), "r");
    int err;

    memset(blocks, 0, sizeof(blocks));
    err = power_promises(f, mark, blocks, BLOCKS);
    fclose(f);
    return err;
}

/* Is block BLOCK all right when its first HALF words are of generation A and
 * the others of B? 0 are zeroes. */
static int
keeps(uint64_t block, uint64_t half, uint64_t a, uint64_t b)
{
    uint64_t data[POWER_WORDS];

    for (uint64_t i = 0; i < POWER_WORDS; i++) {
        uint64_t gen = i < half ? a : b;

        data[i] = gen ? power_word(block, i, gen) : 0;
    }
    return power_judge(&blocks[block], block, data) == NULL;
}

static void
a_flush_covers_what_was_answered(void **state)
{
    const char *journal = "m start\nw 0 2 1\na 0 2 1\nw 1 1 2\ns\na 1 1 2\n"
                          "w 1 1 3\nf\nm m1\nw 0 1 4\na 0 1 4\ns\nf\nm m2\n";

    (void)state;
    assert_int_equal(promises(journal, "start"), 0);
    assert_true(keeps(0, 0, 0, 0)); /* nothing was promised yet */
    assert_int_equal(promises(journal, "m1"), 0);
    assert_false(keeps(0, 0, 0, 0));
    assert_true(keeps(0, 0, 0, 1));
    assert_true(keeps(1, 0, 0, 1));    /* 2 was answered during the flush */
    assert_true(keeps(1, 0, 0, 3));    /* what was only sent may be there */
    assert_true(keeps(1, 100, 1, 2));  /* and be torn */
    assert_false(keeps(1, 511, 1, 0)); /* one word is lost */
    assert_int_equal(promises(journal, "m2"), 0);
    assert_false(keeps(0, 0, 0, 1)); /* too old */
    assert_true(keeps(0, 0, 0, 4));
    assert_false(keeps(0, 0, 0, 5)); /* nobody wrote that */
}

static void
fua_needs_no_flush(void **state)
{
    const char *journal = "w 3 1 1\nd 3 1 1\nw 4 1 2\na 4 1 2\nm m1\n";

    (void)state;
    assert_int_equal(promises(journal, "m1"), 0);
    assert_false(keeps(3, 0, 0, 0));
    assert_true(keeps(3, 0, 0, 1));
    assert_true(keeps(4, 0, 0, 0));
}

static void
zeroes_are_a_generation(void **state)
{
    const char *journal = "w 0 2 1\nd 0 2 1\nz 0 1 2\nd 0 1 2\nm m1\n"
                          "w 0 1 3\nd 0 1 3\nm m2\n";

    (void)state;
    assert_int_equal(promises(journal, "m1"), 0);
    assert_true(keeps(0, 0, 0, 0));
    assert_false(keeps(0, 0, 0, 1));
    assert_false(keeps(1, 0, 0, 0));
    assert_int_equal(promises(journal, "m2"), 0);
    assert_false(keeps(0, 0, 0, 0)); /* the zeroes are older than the flush */
}

static void
bad_journals_are_refused(void **state)
{
    (void)state;
    assert_int_equal(promises("w 0 1 1\n", "m1"), -1);
    assert_int_equal(promises("w 7 2 1\nm m1\n", "m1"), -1);
    assert_int_equal(promises("q 0 1 1\nm m1\n", "m1"), -1);
}

static void
put64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) {
        p[i] = (uint8_t)(v >> 8 * i);
    }
}

/* Sector 4 gets 'a', a mark, sector 5 gets 'b', 4 is discarded and gets
 * 'c'. */
static void
a_log_is_replayed_up_to_a_place(void **state)
{
    static const struct {
        uint64_t sector, sectors, flags;
        char data;
    } entries[] = {
        {4, 1, 0, 'a'}, {0, 0, 8, 'm'}, {5, 1, 1, 'b'},
        {4, 1, 4, 0},   {4, 1, 2, 'c'},
    };
    static const char want[][2] = {{0, 0},     {'a', 0}, {'a', 0},
                                   {'a', 'b'}, {0, 'b'}, {'c', 'b'}};
    char log[] = "/tmp/power-log-XXXXXX", to[] = "/tmp/power-to-XXXXXX";
    uint8_t sector[512] = {0};
    int l = mkstemp(log), t = mkstemp(to);
    char at[8], before[8];

    (void)state;
    put64(sector, 0x6a736677736872ULL);
    put64(sector + 8, 1);
    put64(sector + 16, 5);
    put64(sector + 24, 512);
    assert_int_equal(write(l, sector, 512), 512);
    for (size_t i = 0; i < 5; i++) {
        memset(sector, 0, sizeof(sector));
        put64(sector, entries[i].sector);
        put64(sector + 8, entries[i].sectors);
        put64(sector + 16, entries[i].flags);
        if (entries[i].flags == 8) {
            put64(sector + 24, 1);
            sector[32] = (uint8_t)entries[i].data;
        }
        assert_int_equal(write(l, sector, 512), 512);
        if (entries[i].data && entries[i].flags != 8) {
            memset(sector, entries[i].data, sizeof(sector));
            assert_int_equal(write(l, sector, 512), 512);
        }
    }
    assert_int_equal(ftruncate(t, 16 * 512), 0);
    for (int i = 0; i <= 5; i++) {
        char *argv[] = {log, to, before, at, NULL};

        snprintf(before, sizeof(before), "%d", i ? i - 1 : 0);
        snprintf(at, sizeof(at), "%d", i);
        assert_int_equal(power_replay(4, argv), 0);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(pread(t, sector, 512, (4 + k) * 512), 512);
            assert_int_equal(sector[0], want[i][k]);
            assert_int_equal(sector[511], want[i][k]);
        }
    }
    unlink(log);
    unlink(to);
    close(l);
    close(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flush_covers_what_was_answered),
        cmocka_unit_test(fua_needs_no_flush),
        cmocka_unit_test(zeroes_are_a_generation),
        cmocka_unit_test(bad_journals_are_refused),
        cmocka_unit_test(a_log_is_replayed_up_to_a_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
