/* SPDX-License-Identifier: MIT
 *
 * A machine is saved, and another one goes on where it stopped. A software KVM
 * is enough.
 */
#include "test_machine_rig.h"

#include <sys/stat.h>

#include "list.h"

/* Letters from a byte of RAM, in turn, A to Z and again, 100 exits apart:
 *     movb $'A', 0x500
 * 1:  mov 0x500, %al; mov $0x3f8, %dx; out %al, %dx; mov $100, %cx
 * 2:  out %al, $0x80; loop 2b; incb 0x500; cmpb $'Z', 0x500; jbe 1b
 *     movb $'A', 0x500; jmp 1b */
static const uint8_t letters[] = {
    0xc6, 0x06, 0x00, 0x05, 0x41, 0xa0, 0x00, 0x05, 0xba, 0xf8,
    0x03, 0xee, 0xb9, 0x64, 0x00, 0xe6, 0x80, 0xe2, 0xfc, 0xfe,
    0x06, 0x00, 0x05, 0x80, 0x3e, 0x00, 0x05, 0x5a, 0x76, 0xe7,
    0xc6, 0x06, 0x00, 0x05, 0x41, 0xeb, 0xe0};

#define SECOND UINT64_C(1000000000)

static char folder[] = "/tmp/test_machine_save.XXXXXX";
static char file[64];

/* ---- A function that can be saved ---- */

static struct fake {
    struct st_pci pci;
    struct st_gmem *gmem;
    struct st_task task;
    struct st_pci_saving *asked;
    unsigned saves, restores, thaws;
    int rc;      /* of the next answer */
    char is[16]; /* what it is */
} fake;

static void
fake_answer(struct st_task *t)
{
    struct st_pci_saving *s = fake.asked;

    (void)t;
    if (fake.rc < 0)
        st_err_set(&s->err, -fake.rc, "it does not want to");
    s->done(s, fake.rc);
}

static void
fake_ask(struct st_pci_saving *s)
{
    fake.asked = s;
    fake.task.run = fake_answer;
    st_ready(rig.loop, &fake.task);
}

static void
fake_save(struct st_pci *p, struct st_pci_saving *s)
{
    (void)p;
    fake.saves++;
    s->len = sizeof(fake.is);
    s->blob = fake.rc < 0 ? NULL : malloc(s->len);
    if (s->blob)
        memcpy(s->blob, fake.is, s->len);
    fake_ask(s);
}

static void
fake_restore(struct st_pci *p, struct st_pci_saving *s)
{
    (void)p;
    fake.restores++;
    assert_int_equal(s->len, sizeof(fake.is));
    memcpy(fake.is, s->blob, s->len);
    fake_ask(s);
}

static void
fake_thaw(struct st_pci *p)
{
    (void)p;
    fake.thaws++;
}

static bool
fake_access(struct st_pci *p, unsigned bar, struct st_access *a)
{
    (void)p;
    (void)bar;
    (void)a;
    return true;
}

static bool
fake_reset(struct st_pci *p, struct st_access *a)
{
    (void)p;
    (void)a;
    return true;
}

static const struct st_pci_ops fake_ops = {.name = "fake",
                                           .access = fake_access,
                                           .reset = fake_reset,
                                           .save = fake_save,
                                           .restore = fake_restore,
                                           .thaw = fake_thaw};
static const struct st_pci_ops stiff_ops = {
    .name = "stiff", .access = fake_access, .reset = fake_reset};

static void
plug(const char *name, unsigned slot, const struct st_pci_ops *ops,
     const char *is)
{
    static const struct st_pci_id id = {.vendor = 0x1234, .device = 1};
    struct st_machine_pci f = {.name = name, .pci = &fake.pci, .slot = slot};
    struct st_err err;

    memset(&fake, 0, sizeof(fake));
    snprintf(fake.is, sizeof(fake.is), "%s", is);
    st_pci_init(&fake.pci, ops, &id);
    fake.gmem = f.gmem = st_gmem_create(rig.loop);
    assert_non_null(f.gmem);
    assert_int_equal(st_machine_add_pci(rig.machine, &f, NULL, &err), 0);
}

static void
unplug(void)
{
    st_pci_fini(&fake.pci);
    st_gmem_destroy(fake.gmem);
}

/* ---- Calls ---- */

static void
freeze_call(struct st_machine *m, struct st_machine_call *c)
{
    st_machine_freeze(m, 5 * SECOND, c);
}

static void
save_call(struct st_machine *m, struct st_machine_call *c)
{
    st_machine_save(m, file, c);
}

static void
ok(int rc)
{
    if (rc)
        fail_msg("%d: %s", rc, rig.call.err.text);
}

static void
refused(int rc, int want, const char *sentence)
{
    assert_int_equal(rc, want);
    if (!strstr(rig.call.err.text, sentence))
        fail_msg("'%s' does not say '%s'", rig.call.err.text, sentence);
}

static void
pause_and_save(void)
{
    ok(do_call(st_machine_pause));
    ok(do_call(freeze_call));
    ok(do_call(save_call));
}

static int
open_restored(struct st_err *err)
{
    struct st_machine_opts o = {.restore = file};

    return make_rig(&o, err);
}

/* What the guest has said. */
static void
heard(char *text, size_t size)
{
    ssize_t n = read(rig.out[0], text, size - 1);

    text[n > 0 ? n : 0] = '\0';
}

/* Wait until the guest has said so many letters more. */
static void
wait_for_letters(unsigned n)
{
    wait_for_exits(io_exits() + n * 101);
}

static void
assert_in_turn(const char *text)
{
    assert_true(*text);
    for (; text[1]; text++)
        if (text[1] != (*text == 'Z' ? 'A' : *text + 1))
            fail_msg("after %c comes %c", text[0], text[1]);
}

/* ---- It goes on ---- */

static void
a_machine_goes_on_elsewhere(void **s)
{
    char said[4096], more[4096];
    struct st_machine_stats stats;
    struct st_err err;

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    start();
    wait_for_letters(5);
    pause_and_save();
    heard(said, sizeof(said));
    close_rig(NULL);
    for (unsigned i = 0; i < 3; i++) {
        if (open_restored(&err))
            fail_msg("%s", err.text);
        st_machine_stats(rig.machine, &stats);
        assert_int_equal(stats.memory, 16 * MIB);
        assert_int_equal(stats.cpus, 1);
        start();
        wait_for_letters(4);
        pause_and_save();
        heard(more, sizeof(more));
        assert_true(strlen(more) >= 3);
        assert_true(strlen(said) + strlen(more) < sizeof(said));
        strcat(said, more);
        close_rig(NULL);
    }
    assert_in_turn(said + 1); /* the first is hello's */
}

static void
several_cpus_go_on(void **s)
{
    char text[4096];
    struct st_machine_stats stats;
    struct st_err err;

    (void)s;
    open_rig(letters, sizeof(letters), 3, false);
    start();
    wait_for_letters(2);
    pause_and_save();
    close_rig(NULL);
    if (open_restored(&err))
        fail_msg("%s", err.text);
    st_machine_stats(rig.machine, &stats);
    assert_int_equal(stats.cpus, 3);
    start();
    wait_for_letters(3);
    heard(text, sizeof(text));
    assert_in_turn(text);
    close_rig(NULL);
}

static void
a_saved_machine_may_go_on_too(void **s)
{
    char text[4096];

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    plug("x", 3, &fake_ops, "abc");
    start();
    wait_for_letters(2);
    pause_and_save();
    assert_int_equal(fake.thaws, 0);
    assert_int_equal(state(), ST_MACHINE_PAUSED);
    ok(do_call(st_machine_resume));
    assert_int_equal(fake.thaws, 1);
    wait_for_letters(3);
    heard(text, sizeof(text));
    assert_in_turn(text + 1);
    /* It is not frozen any more. */
    refused(do_call(save_call), -EBUSY, "not frozen");
    close_rig(NULL);
    unplug();
}

/* Firmware is in the file: a reset loads it. */
static void
what_was_restored_is_reset(void **s)
{
    char text[4096];
    struct st_err err;

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    start();
    wait_for_letters(3);
    pause_and_save();
    close_rig(NULL);
    if (open_restored(&err))
        fail_msg("%s", err.text);
    start();
    ok(do_call(st_machine_pause));
    ok(do_call(freeze_call));
    ok(do_call(st_machine_reset));
    heard(text, sizeof(text));
    refused(do_call(save_call), -EBUSY, "not frozen");
    ok(do_call(st_machine_resume));
    wait_for_letters(3);
    heard(text, sizeof(text));
    assert_memory_equal(text, "AABC", 4);
    close_rig(NULL);
}

/* ---- Functions ---- */

static void
functions_are_what_they_were(void **s)
{
    struct st_err err;

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    plug("x", 3, &fake_ops, "abc");
    start();
    pause_and_save();
    assert_int_equal(fake.saves, 1);
    close_rig(NULL);
    assert_int_equal(fake.thaws, 0); /* its disks stay as they were saved */
    unplug();
    assert_int_equal(open_restored(&err), 0);
    plug("x", 3, &fake_ops, "new");
    start();
    assert_int_equal(fake.restores, 1);
    assert_string_equal(fake.is, "abc");
    close_rig(NULL);
    unplug();
}

static void
refuses_to_start(const char *sentence)
{
    struct st_err err;

    assert_int_equal(st_machine_start(rig.machine, &err), -EINVAL);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
    assert_int_equal(state(), ST_MACHINE_MADE);
    close_rig("");
}

static void
other_functions_are_refused(void **s)
{
    struct st_err err;

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    plug("x", 3, &fake_ops, "abc");
    start();
    pause_and_save();
    close_rig(NULL);
    unplug();

    assert_int_equal(open_restored(&err), 0);
    refuses_to_start("the saved machine has 'x' (fake) in slot 3, this one");
    assert_int_equal(open_restored(&err), 0);
    plug("y", 3, &fake_ops, "");
    refuses_to_start(
        "'y' (fake) is in slot 3, where the saved machine had 'x'");
    unplug();
    assert_int_equal(open_restored(&err), 0);
    plug("x", 4, &fake_ops, "");
    refuses_to_start("'x' is in slot 4, where the saved machine had nothing");
    unplug();
    assert_int_equal(open_restored(&err), 0);
    plug("x", 3, &stiff_ops, "");
    refuses_to_start("'x' (stiff) is in slot 3, where the saved machine had");
    unplug();
    assert_int_equal(open_restored(&err), 0);
    plug("x", 3, &fake_ops, "");
    fake.rc = -EINVAL;
    refuses_to_start("x: it does not want to");
    unplug();
}

static void
a_function_that_cannot_be_saved(void **s)
{
    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    plug("x", 3, &stiff_ops, "");
    start();
    ok(do_call(st_machine_pause));
    refused(do_call(freeze_call), -ENOTSUP, "'x' (stiff) cannot be saved");
    ok(do_call(st_machine_resume));
    close_rig(NULL);
    unplug();

    open_rig(letters, sizeof(letters), 1, false);
    plug("x", 3, &fake_ops, "");
    start();
    ok(do_call(st_machine_pause));
    fake.rc = -ETIMEDOUT;
    refused(do_call(freeze_call), -ETIMEDOUT, "x: it does not want to");
    refused(do_call(save_call), -EBUSY, "not frozen");
    fake.rc = 0;
    ok(do_call(freeze_call));
    ok(do_call(save_call));
    close_rig(NULL);
    unplug();
}

/* ---- When it may be ---- */

static void
only_a_paused_machine_is_saved(void **s)
{
    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    refused(do_call(freeze_call), -EBUSY, "only a machine that is paused");
    start();
    refused(do_call(freeze_call), -EBUSY, "only a machine that is paused");
    refused(do_call(save_call), -EBUSY, "not frozen");
    ok(do_call(st_machine_pause));
    refused(do_call(save_call), -EBUSY, "not frozen");
    close_rig(NULL);
}

static void
note(struct st_machine_call *c, int rc)
{
    *(int *)c->arg = rc;
}

/* Others are told to wait; a stop does, and ends it. */
static void
calls_while_it_is_saved(void **s)
{
    enum { OPEN = 1 };
    int frozen = OPEN, saved = OPEN;
    struct st_machine_call f = {.done = note, .arg = &frozen},
                           c = {.done = note, .arg = &saved};

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    start();
    ok(do_call(st_machine_pause));
    st_machine_freeze(rig.machine, SECOND, &f);
    ok(do_call(freeze_call)); /* the first has ended when this one begins */
    assert_int_equal(frozen, 0);
    st_machine_save(rig.machine, file, &c);
    refused(do_call(save_call), -EBUSY, "not frozen");
    assert_int_equal(do_call(st_machine_stop), 0);
    assert_true(saved == 0 || saved == -ECANCELED);
    free_rig(NULL);
}

static void
a_file_is_whole_or_as_it_was(void **s)
{
    char wrong[80], name[80];
    struct stat before, after;

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    start();
    pause_and_save();
    assert_int_equal(stat(file, &before), 0);
    assert_int_equal(before.st_mode & 0777, 0600);
    snprintf(name, sizeof(name), "%s", file);
    snprintf(wrong, sizeof(wrong), "%s.new", file);
    assert_int_equal(mkdir(wrong, 0700), 0); /* nothing can be written there */
    assert_int_equal(do_call(save_call), -EISDIR);
    assert_non_null(strstr(rig.call.err.text, wrong));
    assert_int_equal(stat(file, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(rmdir(wrong), 0);
    strcpy(file, "/nowhere/x");
    assert_int_equal(do_call(save_call), -ENOENT);
    strcpy(file, name);
    ok(do_call(save_call));
    assert_int_equal(access(wrong, F_OK), -1);
    close_rig(NULL);
}

/* ---- Files that are not as they should be ---- */

static void
restore_refused(const char *sentence)
{
    struct st_err err;
    int rc = open_restored(&err);

    assert_true(rc < 0);
    if (!strstr(err.text, sentence))
        fail_msg("'%s' does not say '%s'", err.text, sentence);
    rig.machine = NULL;
    free_rig("");
}

static void
poke(off_t at, uint8_t with)
{
    int fd = open(file, O_RDWR);
    uint8_t b;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &b, 1, at), 1);
    b ^= with;
    assert_int_equal(pwrite(fd, &b, 1, at), 1);
    close(fd);
}

static void
damaged_files_are_one_sentence(void **s)
{
    struct st_err err;
    struct stat sb;

    (void)s;
    open_rig(letters, sizeof(letters), 1, false);
    start();
    wait_for_letters(1);
    pause_and_save();
    close_rig(NULL);
    assert_int_equal(stat(file, &sb), 0);
    for (off_t at = 0; at < 4000; at += 37) {
        poke(at, 0x55);
        restore_refused(file);
        poke(at, 0x55);
    }
    poke(8, 3);
    restore_refused("is of version 2, not 1");
    poke(8, 3);
    poke(100, 1);
    restore_refused("is damaged");
    poke(100, 1);
    poke(sb.st_size - (16 << 20) + 0x500, 1); /* the guest's letter */
    assert_int_equal(open_restored(&err), 0);
    refuses_to_start("memory is damaged");
    poke(sb.st_size - (16 << 20) + 0x500, 1);
    assert_int_equal(truncate(file, sb.st_size - 1), 0);
    restore_refused("it was cut short");
    assert_int_equal(truncate(file, 60), 0);
    restore_refused("cut short");
    assert_int_equal(truncate(file, 10), 0);
    restore_refused("this is no saved machine");
    unlink(file);
    restore_refused("No such file");
}

static void
what_the_file_has_cannot_be_given(void **s)
{
    struct st_machine_opts o = {.restore = file, .bios = "x"};
    struct st_err err;

    (void)s;
    assert_int_equal(make_rig(&o, &err), -EINVAL);
    assert_non_null(strstr(err.text, "has its firmware"));
    rig.machine = NULL;
    free_rig("");
    open_rig(letters, sizeof(letters), 1, false);
    start();
    pause_and_save();
    close_rig(NULL);
    o.bios = NULL;
    o.kernel = "x";
    assert_int_equal(make_rig(&o, &err), -EINVAL);
    assert_non_null(strstr(err.text, "it takes no kernel"));
    rig.machine = NULL;
    free_rig("");
}

static int
make_folder(void **s)
{
    (void)s;
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof(file), "%s/saved", folder);
    return 0;
}

static int
remove_folder(void **s)
{
    (void)s;
    unlink(file);
    return rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_goes_on_elsewhere),
        cmocka_unit_test(several_cpus_go_on),
        cmocka_unit_test(a_saved_machine_may_go_on_too),
        cmocka_unit_test(what_was_restored_is_reset),
        cmocka_unit_test(functions_are_what_they_were),
        cmocka_unit_test(other_functions_are_refused),
        cmocka_unit_test(a_function_that_cannot_be_saved),
        cmocka_unit_test(only_a_paused_machine_is_saved),
        cmocka_unit_test(calls_while_it_is_saved),
        cmocka_unit_test(a_file_is_whole_or_as_it_was),
        cmocka_unit_test(damaged_files_are_one_sentence),
        cmocka_unit_test(what_the_file_has_cannot_be_given),
    };

    if (access(KVM, R_OK | W_OK) == 0)
        return cmocka_run_group_tests(tests, make_folder, remove_folder);
    puts("skip: no " KVM " that we may use");
    return 77;
}
