/* SPDX-License-Identifier: MIT
 *
 * Direct boot: images made here, good and wrong ones; where everything lies
 * afterwards.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot_linux.h"
#include "wire.h"

#define MIB (UINT64_C(1) << 20)

enum { SETUP = 3 * 512, PAYLOAD = 64 << 10 };

static struct rig {
    uint8_t image[SETUP + PAYLOAD];
    uint8_t *memory; /* LOW bytes, of which pieces are RAM */
    uint64_t low;
    struct st_guest_ram ram[3];
    struct st_e820 e820[ST_E820_MAX];
    struct st_boot_file initrd;
    struct st_boot_linux boot;
    struct st_boot_regs regs;
    struct st_err err;
} rig;

static void
set16(unsigned at, uint16_t v)
{
    le16 le = le16_of(v);

    memcpy(rig.image + at, &le, 2);
}

static void
set32(unsigned at, uint32_t v)
{
    le32 le = le32_of(v);

    memcpy(rig.image + at, &le, 4);
}

static uint32_t
get32(const uint8_t *p)
{
    le32 v;

    memcpy(&v, p, 4);
    return le32_get(v);
}

static uint64_t
get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* A machine of LOW bytes, an image as Debian's are, no initrd. */
static void
fresh(uint64_t low)
{
    if (rig.memory)
        munmap(rig.memory, rig.low);
    memset(&rig, 0, sizeof(rig));
    rig.low = low;
    rig.memory = mmap(NULL, low, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(rig.memory, MAP_FAILED);
    rig.ram[0] = (struct st_guest_ram){0, 0xa0000, rig.memory};
    rig.ram[1] =
        (struct st_guest_ram){0xc0000, low - 0xc0000, rig.memory + 0xc0000};
    for (unsigned i = 0; i < PAYLOAD; i++)
        rig.image[SETUP + i] = (uint8_t)(i % 251 + 1);
    rig.image[0x1f1] = 2;
    set32(0x1f4, PAYLOAD / 16);
    set16(0x1fa, 0x1234);
    rig.image[0x200] = 0xeb;
    rig.image[0x201] = 0x6a;
    memcpy(rig.image + 0x202, "HdrS", 4);
    set16(0x206, 0x020f);
    rig.image[0x211] = 0x80;
    set32(0x22c, 0x7fffffff);
    set32(0x230, 0x200000);
    rig.image[0x234] = 1;
    set16(0x236, 0x7f);
    set32(0x238, 2047);
    set32(0x258, 0x1000000);
    set32(0x260, 0x2000000);
    rig.boot = (struct st_boot_linux){.ram = rig.ram,
                                      .nram = 2,
                                      .e820 = rig.e820,
                                      .kernel = {-1, "vmlinuz"},
                                      .cmdline = "console=ttyS0 quiet"};
    rig.boot.ne820 = st_e820(rig.ram, 2, false, rig.e820);
}

static int
file_of(const void *data, size_t len)
{
    int fd = memfd_create("boot", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    return fd;
}

/* Boot the first LEN bytes of the image. */
static int
boot_part(size_t len)
{
    int rc;

    rig.boot.kernel.fd = file_of(rig.image, len);
    rig.err.text[0] = '\0';
    rc = st_boot_linux(&rig.boot, &rig.regs, &rig.err);
    close(rig.boot.kernel.fd);
    return rc;
}

static int
boot(void)
{
    return boot_part(sizeof(rig.image));
}

static void
refused(const char *why)
{
    assert_int_equal(boot(), -EINVAL);
    if (!strstr(rig.err.text, why))
        fail_msg("'%s' does not say '%s'", rig.err.text, why);
    assert_int_equal(rig.memory[0x500 + 16], 0);
    assert_int_equal(rig.memory[0x7000 + 0x210], 0);
}

/* An initrd of LEN bytes that are its offset's. */
static void
with_initrd(size_t len)
{
    rig.initrd = (struct st_boot_file){memfd_create("i", MFD_CLOEXEC), "i.img"};
    assert_int_equal(ftruncate(rig.initrd.fd, (off_t)len), 0);
    if (len >= 8)
        assert_int_equal(pwrite(rig.initrd.fd, "initrd!", 8, (off_t)len - 8),
                         8);
    rig.boot.initrd = &rig.initrd;
}

static const uint8_t *
zero_page(void)
{
    return rig.memory + 0x7000;
}

/* ---- Good images ---- */

static void
a_kernel_lies_at_its_preferred_address(void **state)
{
    (void)state;
    fresh(256 * MIB);
    assert_int_equal(boot(), 0);
    assert_memory_equal(rig.memory + 0x1000000, rig.image + SETUP, PAYLOAD);
    assert_int_equal(rig.memory[0x1000000 + PAYLOAD], 0);
    assert_true(rig.regs.rip == 0x1000200);
}

static void
the_zero_page_says_what_is_where(void **state)
{
    const uint8_t *z;

    (void)state;
    fresh(256 * MIB);
    memset(rig.memory + 0x7000, 0xee, 4096);
    assert_int_equal(boot(), 0);
    z = zero_page();
    assert_memory_equal(z + 0x202, "HdrS\x0f\x02", 6);
    assert_int_equal(z[0x1f1], 2);
    assert_int_equal(z[0x1fa] | z[0x1fb] << 8, 0xffff);
    assert_int_equal(z[0x210], 0xff);
    assert_int_equal(z[0x211], 0x81);
    assert_int_equal(get32(z + 0x228), 0x20000);
    assert_int_equal(get32(z + 0x218), 0);
    assert_int_equal(get32(z + 0x21c), 0);
    assert_int_equal(get32(z + 0x070), 0xe0000);
    assert_int_equal(get32(z + 0x260), 0x2000000);
    assert_int_equal(z[0x1f0], 0);
    assert_int_equal(z[0x202 + 0x6a], 0); /* the header has ended */
    assert_int_equal(z[4095], 0);
    assert_string_equal((char *)rig.memory + 0x20000, "console=ttyS0 quiet");
}

static void
the_guest_is_told_its_memory(void **state)
{
    static const struct st_e820 want[] = {
        {0, 0x9fc00, 1},           {0x9fc00, 0x400, 2},
        {0xe0000, 0x20000, 2},     {0x100000, 0xbff00000, 1},
        {0xe0000000, 0x100000, 2}, {0x100000000, 0x80000000, 1},
    };
    const uint8_t *z;

    (void)state;
    fresh(0xc0000000);
    rig.ram[2] = (struct st_guest_ram){0x100000000, 0x80000000, NULL};
    rig.boot.nram = 3;
    rig.boot.ne820 = st_e820(rig.ram, 3, true, rig.e820);
    assert_int_equal(boot(), 0);
    z = zero_page();
    assert_int_equal(z[0x1e8], 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_true(get64(z + 0x2d0 + 20 * i) == want[i].gpa);
        assert_true(get64(z + 0x2d8 + 20 * i) == want[i].len);
        assert_int_equal(get32(z + 0x2e0 + 20 * i), want[i].type);
    }
    assert_true(st_map_pci64(rig.ram, 3) == 0x800000000);
    assert_true(st_guest_ram_above_4g(rig.ram, 3) == 0x80000000);
}

static void
registers_are_those_of_the_64_bit_protocol(void **state)
{
    const struct st_boot_regs *r = &rig.regs;
    const uint8_t *gdt, *table;

    (void)state;
    fresh(256 * MIB);
    assert_int_equal(boot(), 0);
    assert_true(r->rsi == 0x7000 && r->rflags == 2 && r->rsp);
    assert_true(r->cr0 == 0x80050033 && r->cr4 == 0x20 && r->efer == 0x500);
    assert_int_equal(r->code.selector, 0x10);
    assert_int_equal(r->data.selector, 0x18);
    assert_true(r->code.long_mode && !r->code.big);
    assert_true(r->data.big && !r->data.long_mode);
    gdt = rig.memory + r->gdt_base;
    assert_true(get64(gdt) == 0);
    assert_true(get64(gdt + 0x10) == 0x00af9b000000ffff);
    assert_true(get64(gdt + 0x18) == 0x00cf93000000ffff);
    assert_int_equal(r->gdt_limit, 31);
    /* Walk the tables: each address below 4 GiB is itself. */
    table = rig.memory;
    for (uint64_t va = 0; va < ST_MAP_4G; va += 0x1fe000 * 3) {
        uint64_t e = get64(table + r->cr3 + (va >> 39 & 511) * 8);

        assert_int_equal(e & 0xfff, 3);
        e = get64(table + (e & ~UINT64_C(0xfff)) + (va >> 30 & 511) * 8);
        assert_int_equal(e & 0xfff, 3);
        e = get64(table + (e & ~UINT64_C(0xfff)) + (va >> 21 & 511) * 8);
        assert_int_equal(e & 0xfff, 0x83);
        assert_true((e & ~UINT64_C(0x1fffff)) == (va & ~UINT64_C(0x1fffff)));
    }
}

static void
an_initrd_lies_as_high_as_it_may(void **state)
{
    (void)state;
    fresh(256 * MIB);
    with_initrd(5 * MIB + 100);
    assert_int_equal(boot(), 0);
    assert_int_equal(get32(zero_page() + 0x218), 251 * MIB - 4096);
    assert_int_equal(get32(zero_page() + 0x21c), 5 * MIB + 100);
    assert_string_equal((char *)rig.memory + 256 * MIB - 4096 + 92, "initrd!");
    set32(0x22c, 0x7ffffff); /* the kernel's limit is below the end of RAM */
    assert_int_equal(boot(), 0);
    assert_int_equal(get32(zero_page() + 0x218), 123 * MIB - 4096);
    close(rig.initrd.fd);
}

static void
an_initrd_never_lies_where_the_kernel_unpacks(void **state)
{
    (void)state;
    fresh(49 * MIB);
    with_initrd(1 * MIB); /* 1 MiB above the kernel's 16 to 48 */
    assert_int_equal(boot(), 0);
    assert_int_equal(get32(zero_page() + 0x218), 48 * MIB);
    close(rig.initrd.fd);
    with_initrd(2 * MIB);
    assert_int_equal(boot(), 0);
    assert_int_equal(get32(zero_page() + 0x218), 14 * MIB);
    close(rig.initrd.fd);
    fresh(49 * MIB);
    with_initrd(15 * MIB + 1);
    refused("initrd 'i.img' of 16 MiB does not fit");
    close(rig.initrd.fd);
}

static void
a_kernel_that_can_move_moves(void **state)
{
    (void)state;
    fresh(40 * MIB);
    assert_int_equal(boot(), 0);
    assert_true(rig.regs.rip == 2 * MIB + 0x200);
    assert_memory_equal(rig.memory + 2 * MIB, rig.image + SETUP, PAYLOAD);
    fresh(40 * MIB);
    rig.image[0x234] = 0;
    refused("runs at 0x1000000 only");
}

static void
zero_setup_sectors_are_four(void **state)
{
    (void)state;
    fresh(256 * MIB);
    rig.image[0x1f1] = 0;
    set32(0x1f4, (PAYLOAD - 1024) / 16);
    assert_int_equal(boot(), 0);
    assert_memory_equal(rig.memory + 0x1000000, rig.image + 5 * 512,
                        PAYLOAD - 1024);
}

static void
what_is_behind_the_kernel_is_not_loaded(void **state)
{
    (void)state;
    fresh(256 * MIB);
    set32(0x1f4, (PAYLOAD - 512) / 16);
    assert_int_equal(boot(), 0);
    assert_int_not_equal(rig.memory[0x1000000 + PAYLOAD - 513], 0);
    assert_int_equal(rig.memory[0x1000000 + PAYLOAD - 512], 0);
}

/* ---- Wrong images ---- */

static void
wrong_images_are_refused_in_a_sentence(void **state)
{
    (void)state;
    fresh(256 * MIB);
    memcpy(rig.image, "\177ELF", 4);
    refused("kernel 'vmlinuz' is an ELF file");
    fresh(256 * MIB);
    rig.image[0x202] = 'h';
    refused("kernel 'vmlinuz' is not a bzImage");
    fresh(256 * MIB);
    set16(0x206, 0x020b);
    refused("its boot protocol is 2.11, and 2.12");
    fresh(256 * MIB);
    set16(0x236, 0x7e);
    refused("has no 64-bit entry");
    fresh(256 * MIB);
    set32(0x1f4, 0);
    refused("is empty");
    fresh(256 * MIB);
    set32(0x1f4, PAYLOAD / 16 + 2);
    refused("is cut short");
    fresh(256 * MIB);
    set32(0x1f4, UINT32_MAX);
    refused("is cut short");
    fresh(256 * MIB);
    rig.image[0x1f1] = 255;
    refused("is cut short");
    fresh(256 * MIB);
    set32(0x258, 0x1000);
    set32(0x230, 3);
    refused("aligned to 3");
    fresh(33 * MIB);
    refused("needs 34 MiB of memory, and there are 33");
    fresh(MIB);
    refused("more than 1 MiB");
    fresh(256 * MIB);
    set32(0x25c, UINT32_MAX); /* beyond every end */
    set32(0x258, UINT32_MAX);
    set32(0x260, UINT32_MAX);
    refused("needs 4098 MiB");
}

static void
every_cut_image_is_refused(void **state)
{
    (void)state;
    fresh(64 * MIB);
    for (size_t len = 0; len < sizeof(rig.image) - 16; len += 97) {
        assert_int_equal(boot_part(len), -EINVAL);
        assert_true(strstr(rig.err.text, "is not a bzImage") ||
                    strstr(rig.err.text, "cut short"));
    }
}

static void
files_that_are_none_are_refused(void **state)
{
    int pipes[2];

    (void)state;
    fresh(256 * MIB);
    assert_int_equal(pipe(pipes), 0);
    rig.boot.kernel.fd = pipes[0];
    assert_int_equal(st_boot_linux(&rig.boot, &rig.regs, &rig.err), -EINVAL);
    assert_string_equal(rig.err.text, "kernel 'vmlinuz' is not a regular file");
    rig.boot.kernel.fd = -1;
    assert_int_equal(st_boot_linux(&rig.boot, &rig.regs, &rig.err), -EBADF);
    close(pipes[0]);
    close(pipes[1]);
    with_initrd(0);
    refused("initrd 'i.img' is empty");
    close(rig.initrd.fd);
}

static void
a_long_command_line_is_refused(void **state)
{
    static char line[2049];

    (void)state;
    fresh(256 * MIB);
    memset(line, 'a', 2047);
    rig.boot.cmdline = line;
    assert_int_equal(boot(), 0);
    fresh(256 * MIB);
    line[2047] = 'a';
    rig.boot.cmdline = line;
    refused("has 2048 characters, and the kernel takes 2047");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kernel_lies_at_its_preferred_address),
        cmocka_unit_test(the_zero_page_says_what_is_where),
        cmocka_unit_test(the_guest_is_told_its_memory),
        cmocka_unit_test(registers_are_those_of_the_64_bit_protocol),
        cmocka_unit_test(an_initrd_lies_as_high_as_it_may),
        cmocka_unit_test(an_initrd_never_lies_where_the_kernel_unpacks),
        cmocka_unit_test(a_kernel_that_can_move_moves),
        cmocka_unit_test(zero_setup_sectors_are_four),
        cmocka_unit_test(what_is_behind_the_kernel_is_not_loaded),
        cmocka_unit_test(wrong_images_are_refused_in_a_sentence),
        cmocka_unit_test(every_cut_image_is_refused),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(a_long_command_line_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
