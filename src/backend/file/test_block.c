/* SPDX-License-Identifier: MIT
 *
 * What is made of sysfs's answers about a device, from a directory that looks
 * like it; and of the device's own, where a loop device can be read.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "block.h"
#include "mem.h"

struct fake {
    char root[64], dir[80]; /* of the disk; of the device, disk or partition */
    struct block_limits l;
    struct st_err err;
};

static int
setup(void **state)
{
    struct fake *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    strcpy(f->root, "/tmp/st_block_XXXXXX");
    assert_non_null(mkdtemp(f->root));
    snprintf(f->dir, sizeof(f->dir), "%s", f->root);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fake *f = *state;
    char cmd[96];

    snprintf(cmd, sizeof(cmd), "rm -rf %s", f->root);
    assert_int_equal(system(cmd), 0);
    free(f);
    return 0;
}

/* Put TEXT into the file NAME below the disk's directory; NULL removes it. */
static void
put(struct fake *f, const char *name, const char *text)
{
    char path[160];
    FILE *out;

    for (const char *s = strchr(name, '/'); s; s = strchr(s + 1, '/')) {
        snprintf(path, sizeof(path), "%s/%.*s", f->root, (int)(s - name), name);
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    }
    snprintf(path, sizeof(path), "%s/%s", f->root, name);
    if (!text) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    out = fopen(path, "we");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void
put_disk(struct fake *f)
{
    put(f, "size", "2048\n");
    put(f, "ro", "0\n");
    put(f, "queue/logical_block_size", "512\n");
    put(f, "queue/physical_block_size", "4096\n");
    put(f, "queue/discard_granularity", "4096\n");
    put(f, "queue/discard_max_bytes", "2147450880\n");
    put(f, "queue/write_zeroes_max_bytes", "33553920\n");
    put(f, "queue/fua", "1\n");
    put(f, "queue/rotational", "0\n");
    put(f, "queue/dma_alignment", "3\n");
    put(f, "queue/zoned", "none\n");
}

static int
ask(struct fake *f)
{
    f->err.text[0] = 0;
    return block_limits(f->dir, -1, "/dev/x", &f->l, &f->err);
}

static void
each_attribute_has_its_place(void **state)
{
    struct fake *f = *state;

    put_disk(f);
    assert_int_equal(ask(f), 0);
    assert_int_equal(f->l.size, 1 << 20);
    assert_int_equal(f->l.logical, 512);
    assert_int_equal(f->l.physical, 4096);
    assert_int_equal(f->l.memory, 512); /* segments are whole sectors */
    assert_int_equal(f->l.discard_granularity, 4096);
    assert_int_equal(f->l.write_zeroes_max, 33553920);
    assert_true(f->l.fua);
    assert_false(f->l.rotational);
    assert_false(f->l.read_only);
    assert_false(f->l.has_id);

    put(f, "ro", "1\n");
    put(f, "queue/fua", "0\n");
    put(f, "queue/rotational", "1\n");
    put(f, "queue/dma_alignment", "4095\n");
    put(f, "queue/discard_max_bytes", "0\n");
    assert_int_equal(ask(f), 0);
    assert_int_equal(f->l.memory, 4096);
    assert_int_equal(f->l.discard_granularity, 0);
    assert_false(f->l.fua);
    assert_true(f->l.rotational);
    assert_true(f->l.read_only);

    put(f, "queue/logical_block_size", "16384\n");
    put(f, "queue/physical_block_size", "512\n");
    assert_int_equal(ask(f), 0);
    assert_int_equal(f->l.physical, 16384); /* never less than a sector */
    assert_int_equal(f->l.memory, 4096);
}

static void
an_old_kernel_tells_less(void **state)
{
    static const char *const newer[] = {"physical_block_size",
                                        "discard_granularity",
                                        "discard_max_bytes",
                                        "write_zeroes_max_bytes",
                                        "fua",
                                        "rotational",
                                        "dma_alignment",
                                        "zoned"};
    struct fake *f = *state;
    char name[64];

    put_disk(f);
    for (unsigned i = 0; i < sizeof(newer) / sizeof(newer[0]); i++) {
        snprintf(name, sizeof(name), "queue/%s", newer[i]);
        put(f, name, NULL);
    }
    assert_int_equal(ask(f), 0);
    assert_int_equal(f->l.physical, 512);
    assert_int_equal(f->l.discard_granularity, 0);
    assert_int_equal(f->l.write_zeroes_max, 0);
    assert_int_equal(f->l.memory, 512);
    assert_false(f->l.fua);
}

static void
a_partition_has_its_disks_queue_but_not_its_name(void **state)
{
    struct fake *f = *state;

    put_disk(f);
    put(f, "wwid", "naa.6001405aabbccddeeff0011223344556\n");
    put(f, "x1/wwid", "naa.6001405aabbccddeeff0011223344556\n");
    put(f, "x1/size", "8\n");
    put(f, "x1/partition", "1\n");
    snprintf(f->dir, sizeof(f->dir), "%s/x1", f->root);
    assert_int_equal(ask(f), 0);
    assert_int_equal(f->l.size, 4096);
    assert_int_equal(f->l.physical, 4096);
    assert_int_equal(f->l.discard_granularity, 4096);
    assert_false(f->l.has_id);
}

static void
names_of_16_bytes_are_identities(void **state)
{
    static const struct {
        const char *file, *text;
        bool is;
    } cases[] = {
        {"wwid", "naa.6001405aabbccddeeff0011223344556\n", true},
        {"wwid", "eui.6001405AABBCCDDEEFF0011223344556\n", true},
        {"wwid", "uuid.6001405a-abbc-cdde-eff0-011223344556\n", true},
        {"device/wwid", "naa.6001405aabbccddeeff0011223344556", true},
        {"wwid", "naa.5000c500a1b2c3d4\n", false},
        {"wwid", "naa.6001405aabbccddeeff00112233445566\n", false},
        {"wwid", "naa.6001405aabbccddeeff001122334455g\n", false},
        {"wwid", "uuid.00000000-0000-0000-0000-000000000000\n", false},
        {"wwid", "t10.ATA QEMU HARDDISK QM00001\n", false},
        {"wwid", "\n", false},
    };
    static const uint8_t want[16] = {0x60, 0x01, 0x40, 0x5a, 0xab, 0xbc,
                                     0xcd, 0xde, 0xef, 0xf0, 0x01, 0x12,
                                     0x23, 0x34, 0x45, 0x56};
    struct fake *f = *state;

    put_disk(f);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put(f, cases[i].file, cases[i].text);
        assert_int_equal(ask(f), 0);
        assert_int_equal(f->l.has_id, cases[i].is);
        if (cases[i].is)
            assert_memory_equal(f->l.id, want, 16);
        put(f, cases[i].file, NULL);
    }
}

static void
each_violation_has_its_sentence(void **state)
{
    static const struct {
        const char *file, *text;
        int rc;
        const char *says;
    } cases[] = {
        {"size", "x\n", -EINVAL, "the device's size is 'x', expected a number"},
        {"size", "\n", -EINVAL, "the device's size is ''"},
        {"size", "-8\n", -EINVAL, "the device's size is '-8'"},
        {"size", "18014398509481984\n", -EINVAL, "up to 18014398509481983"},
        {"size", "99999999999999999999999999\n", -EINVAL, "expected a number"},
        {"ro", "yes\n", -EINVAL, "the device's ro is 'yes'"},
        {"queue/logical_block_size", "0\n", -EINVAL, "sectors of 0 bytes"},
        {"queue/logical_block_size", "256\n", -EINVAL,
         "sectors of 256 bytes, expected a power of two from 512 on"},
        {"queue/logical_block_size", "520\n", -EINVAL, "sectors of 520 bytes"},
        {"queue/logical_block_size", "4294967296\n", -EINVAL,
         "expected a number up to 4294967295"},
        {"queue/physical_block_size", "3000\n", -EINVAL,
         "physical sectors of 3000 bytes, expected a power of two"},
        {"queue/discard_granularity", "768\n", -EINVAL,
         "discards 768 bytes at a time, expected a multiple"},
        {"queue/dma_alignment", "4\n", -EINVAL, "memory aligned to 5 bytes"},
        {"queue/dma_alignment", "8191\n", -EINVAL, "up to 4096"},
        {"queue/dma_alignment", "4294967295\n", -EINVAL, "expected a power"},
        {"queue/fua", "1 2\n", -EINVAL, "the device's fua is '1 2'"},
        {"queue/zoned", "host-managed\n", -ENOTSUP,
         "a zoned device (host-managed)"},
        {"queue/zoned", "host-aware\n", -ENOTSUP, "a zoned device"},
    };
    struct fake *f = *state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        put_disk(f);
        put(f, cases[i].file, cases[i].text);
        assert_int_equal(ask(f), cases[i].rc);
        assert_memory_equal(f->err.text, "/dev/x: ", 8);
        if (!strstr(f->err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", f->err.text, cases[i].says);
    }
}

static void
a_device_without_sysfs_is_asked_itself(void **state)
{
    struct fake *f = *state;
    st_autoclose int fd = open("/dev/loop0", O_RDONLY | O_CLOEXEC);
    uint64_t size;

    /* Nothing there, and nothing that could be asked. */
    assert_int_equal(ask(f), -EBADF);
    assert_non_null(strstr(f->err.text, "does not tell its size"));
    put(f, "size", "2048\n"); /* half of it is no better */
    assert_int_equal(ask(f), -EBADF);
    if (fd < 0) {
        print_message("skip: /dev/loop0 cannot be opened\n");
        skip();
    }
    assert_int_equal(block_size(fd, &size), 0);
    assert_int_equal(block_limits("/nowhere", fd, "/dev/loop0", &f->l, &f->err),
                     0);
    assert_int_equal(f->l.size, size);
    assert_true(f->l.logical >= 512 && f->l.physical >= f->l.logical);
    assert_int_equal(f->l.discard_granularity, 0);
    assert_int_equal(f->l.write_zeroes_max, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(each_attribute_has_its_place),
        T(an_old_kernel_tells_less),
        T(a_partition_has_its_disks_queue_but_not_its_name),
        T(names_of_16_bytes_are_identities),
        T(each_violation_has_its_sentence),
        T(a_device_without_sysfs_is_asked_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
