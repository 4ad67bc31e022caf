/* SPDX-License-Identifier: MIT
 *
 * The file backend: opening, sizes, direct I/O, locks, and the contract as a
 * whole. On every engine.
 */
#include "test_file.h"

/* ---- Opening ---- */

static void
each_wrong_path_has_its_sentence(void **state)
{
    struct world *w = *state;
    char dangling[96], fifo[96], missing[96], odd[96], text[256];
    struct st_node *n;
    struct st_err err;

    snprintf(dangling, sizeof(dangling), "%s/dangling", w->dir);
    snprintf(fifo, sizeof(fifo), "%s/fifo", w->dir);
    snprintf(missing, sizeof(missing), "%s/missing", w->dir);
    snprintf(odd, sizeof(odd), "%s/odd", w->dir);
    assert_int_equal(symlink("nowhere", dangling), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    make(w, 513);
    assert_int_equal(rename(w->path, odd), 0);
    make(w, 512);

    const struct {
        struct st_file_opts o;
        int rc;
        const char *says;
    } cases[] = {
        {{.path = missing}, -ENOENT, "No such file or directory"},
        {{.path = dangling}, -ENOENT, "a symbolic link that leads nowhere"},
        {{.path = w->dir}, -EISDIR, "is a directory"},
        {{.path = w->dir, .read_only = true}, -EISDIR, "is a directory"},
        {{.path = w->dir, .read_only = true, .direct = true},
         -EISDIR,
         "is a directory"},
        {{.path = fifo}, -EINVAL, "not a regular file"},
        {{.path = fifo, .read_only = true}, -EINVAL, "not a regular file"},
        {{.path = "/dev/null"}, -EINVAL, "not a regular file"},
        {{.path = "/proc/self/mem/x"}, -ENOTDIR, "Not a directory"},
        {{.path = odd}, -EINVAL, "invalid disk size: 513 bytes are not"},
        {{.path = w->path, .sector_size = 4096},
         -EINVAL,
         "invalid disk size: 512 bytes are not"},
        {{.path = w->path, .sector_size = 256},
         -EINVAL,
         "invalid sector size 256"},
        {{.path = w->path, .sector_size = 1000},
         -EINVAL,
         "invalid sector size 1000"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(try_open(w, cases[i].o, &n, &err), cases[i].rc);
        snprintf(text, sizeof(text), "%s: %s", cases[i].o.path, cases[i].says);
        assert_memory_equal(err.text, text, strlen(text));
    }
}

static void
no_permission_is_said(void **state)
{
    struct world *w = *state;
    uid_t me = geteuid();
    struct st_node *n;
    struct st_err err;
    int rc;

    make(w, 512);
    assert_int_equal(chmod(w->path, 0), 0);
    if (me == 0) /* root may do everything: be nobody meanwhile */
        assert_int_equal(seteuid(65534), 0);
    rc = try_open(w, (struct st_file_opts){0}, &n, &err);
    assert_int_equal(seteuid(me), 0);
    assert_int_equal(rc, -EACCES);
    assert_non_null(strstr(err.text, "Permission denied"));
}

static void
create_makes_the_size_and_never_truncates(void **state)
{
    struct world *w = *state;
    struct st_file_opts o = {.create = true, .create_size = 3 * 512};
    struct st_node *n;
    struct st_err err;
    struct stat sb;
    char buf[512] = "precious", got[512];

    use(w, o);
    assert_int_equal(st_disk_size(w->disk), 3 * 512);
    assert_int_equal(st_sync_write(w->sync, buf, 512, 512, 0), ST_OK);
    leave(w);
    assert_int_equal(try_open(w, o, &n, &err), -EEXIST);
    assert_non_null(strstr(err.text, "already exists"));
    peek(w, got, 512, 512);
    assert_memory_equal(got, buf, 512);
    unlink(w->path);

    o.read_only = true;
    use(w, o);
    assert_true(st_disk_props(w->disk)->read_only);
    leave(w);
    unlink(w->path);

    o.create_size = 513;
    assert_int_equal(try_open(w, o, &n, &err), -EINVAL);
    assert_int_equal(stat(w->path, &sb), -1);
    o.create_size = (uint64_t)1 << 62; /* more than most file systems have */
    if (try_open(w, o, &n, &err) == 0) {
        st_node_close(n);
        return;
    }
    assert_non_null(strstr(err.text, "cannot be made"));
    assert_int_equal(stat(w->path, &sb), -1);
}

static void
an_empty_file_is_a_legal_disk(void **state)
{
    struct world *w = *state;
    char buf[512];

    make(w, 0);
    use(w, (struct st_file_opts){0});
    assert_int_equal(st_disk_size(w->disk), 0);
    assert_int_equal(st_sync_read(w->sync, buf, 0, 512), ST_RANGE);
    assert_int_equal(st_sync_flush(w->sync), ST_OK);
}

/* ---- Size ---- */

static void
a_file_that_shrinks_under_us(void **state)
{
    struct world *w = *state;
    uint8_t buf[8192];

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    assert_int_equal(truncate(w->path, 32 * KIB + 100), 0);
    assert_int_equal(st_sync_read(w->sync, buf, 28 * KIB, 8192), ST_IO);
    assert_int_equal(st_node_size(w->node), 32 * KIB);
    assert_int_equal(st_sync_read(w->sync, buf, 28 * KIB, 8192), ST_RANGE);
    assert_int_equal(st_sync_write(w->sync, buf, 32 * KIB, 512, 0), ST_RANGE);
    assert_int_equal(st_sync_read(w->sync, buf, 32 * KIB - 512, 512), ST_OK);
    settle(w);
    assert_int_equal(st_disk_size(w->disk), 32 * KIB);
}

static void
a_status_past_the_real_end_finds_the_shrink(void **state)
{
    struct world *w = *state;
    struct st_extent x;

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    assert_int_equal(truncate(w->path, 32 * KIB), 0);
    assert_int_equal(st_sync_block_status(w->sync, 48 * KIB, 4096, &x), ST_IO);
    assert_int_equal(st_sync_block_status(w->sync, 48 * KIB, 4096, &x),
                     ST_RANGE);
}

static void
restat_publishes_what_happened_outside(void **state)
{
    struct world *w = *state;
    uint8_t buf[512] = {7};

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    assert_int_equal(truncate(w->path, 128 * KIB + 5), 0);
    assert_int_equal(st_sync_write(w->sync, buf, 64 * KIB, 512, 0), ST_RANGE);
    assert_int_equal(st_file_restat(w->node), 0);
    settle(w);
    assert_int_equal(st_disk_size(w->disk), 128 * KIB);
    assert_int_equal(st_sync_write(w->sync, buf, 64 * KIB, 512, 0), ST_OK);
    assert_int_equal(truncate(w->path, 1024), 0);
    assert_int_equal(st_file_restat(w->node), 0);
    settle(w);
    assert_int_equal(st_disk_size(w->disk), 1024);
}

struct resize {
    struct st_disk *disk;
    uint64_t size;
};

static void
resize_start(void *arg, struct st_edit *e)
{
    struct resize *r = arg;

    st_disk_resize(r->disk, r->size, e);
}

static int
resize(struct world *w, uint64_t size)
{
    struct resize r = {w->disk, size};
    struct st_edit e = {0};

    return st_sync_edit(w->loop, resize_start, &r, &e);
}

static void
resize_goes_both_ways_and_brings_nothing_back(void **state)
{
    struct world *w = *state;
    uint8_t buf[512], got[512], zero[512] = {0};
    struct stat sb;

    make(w, 64 * KIB);
    use(w, (struct st_file_opts){0});
    memset(buf, 0x77, sizeof(buf));
    assert_int_equal(st_sync_write(w->sync, buf, 32 * KIB, 512, 0), ST_OK);
    assert_int_equal(resize(w, 32 * KIB + 1), -EINVAL);
    assert_int_equal(st_node_resize(w->node, 513, NULL), -EINVAL);
    assert_int_equal(resize(w, 32 * KIB), 0);
    assert_int_equal(stat(w->path, &sb), 0);
    assert_int_equal(sb.st_size, 32 * KIB);
    assert_int_equal(st_sync_read(w->sync, got, 32 * KIB, 512), ST_RANGE);
    assert_int_equal(resize(w, MIB), 0);
    assert_int_equal(st_disk_size(w->disk), MIB);
    assert_int_equal(st_sync_read(w->sync, got, 32 * KIB, 512), ST_OK);
    assert_memory_equal(got, zero, 512);
    assert_int_equal(st_sync_write(w->sync, buf, MIB - 512, 512, 0), ST_OK);
    leave(w);
    use(w, (struct st_file_opts){.read_only = true});
    assert_int_equal(resize(w, 512), -EROFS);
}

/* ---- Direct ---- */

static void
direct_io_with_any_buffer(void **state)
{
    struct world *w = *state;
    uint8_t *mem = malloc(64 * KIB), *got = malloc(64 * KIB);
    struct st_file_opts o = {.direct = true};
    struct st_node *n;
    struct st_err err;

    for (unsigned i = 0; i < 2; i++, o.sector_size = 4096) {
        make(w, 64 * KIB);
        if (try_open(w, o, &n, &err) == -EINVAL &&
            strstr(err.text, "has no direct I/O"))
            skip_for("a file system without direct I/O");
        st_node_close(n);
        use(w, o);
        fill(mem, 64 * KIB, i);
        assert_int_equal(
            st_sync_write(w->sync, mem + 3, 4096, 20 * KIB, ST_REQ_FUA), ST_OK);
        assert_int_equal(st_sync_read(w->sync, got + 1, 4096, 20 * KIB), ST_OK);
        assert_memory_equal(got + 1, mem + 3, 20 * KIB);
        assert_int_equal(st_sync_zero(w->sync, 8192, 4096, 0), ST_OK);
        inject(w, ST_IO_FALLOCATE, ST_INJECT_ERROR, EOPNOTSUPP, 0);
        assert_int_equal(st_sync_zero(w->sync, 4096, 4096, 0), ST_OK);
        peek(w, got, 20 * KIB, 4096);
        memset(mem + 3, 0, 8192);
        assert_memory_equal(got, mem + 3, 20 * KIB);
        /* Half a sector read is the end of the file. */
        assert_int_equal(truncate(w->path, 12 * KIB + 100), 0);
        assert_int_equal(st_sync_read(w->sync, got, 8192, 16 * KIB), ST_IO);
        assert_int_equal(st_node_size(w->node), 12 * KIB);
        leave(w);
        st_inject_clear(w->inject);
    }
    free(mem);
    free(got);
}

static void
direct_io_wants_large_enough_sectors(void **state)
{
    struct world *w = *state;
    char path[] = "/dev/shm/st_file_XXXXXX";
    struct st_node *n = NULL;
    struct st_err err;
    int fd = mkstemp(path), rc;

    if (fd < 0)
        skip_for("no /dev/shm here");
    assert_int_equal(ftruncate(fd, 8192 + 512), 0);
    rc = try_open(
        w,
        (struct st_file_opts){.path = path, .direct = true, .sector_size = 512},
        &n, &err);
    if (rc == -EINVAL && strstr(err.text, "needs sectors of 4096 bytes")) {
        /* Unasked, the sectors grow, if the size allows. */
        assert_int_equal(
            try_open(w, (struct st_file_opts){.path = path, .direct = true}, &n,
                     &err),
            -EINVAL);
        assert_non_null(strstr(err.text, "invalid disk size"));
        assert_int_equal(ftruncate(fd, 8192), 0);
        assert_int_equal(
            try_open(w, (struct st_file_opts){.path = path, .direct = true}, &n,
                     &err),
            0);
        assert_int_equal(n->props.sector_size, 4096);
    } else if (rc) { /* an older tmpfs */
        assert_non_null(strstr(err.text, "leave out 'direct'"));
    }
    st_node_close(n);
    close(fd);
    unlink(path);
}

/* ---- Locks ---- */

static void
one_writer_or_many_readers(void **state)
{
    struct world *w = *state;
    struct st_file_opts ro = {.read_only = true}, rw = {0};
    struct st_node *a, *b, *c;
    struct st_err err;
    char text[192];

    make(w, 4096);
    assert_int_equal(try_open(w, ro, &a, &err), 0);
    assert_int_equal(try_open(w, ro, &b, &err), 0);
    assert_int_equal(try_open(w, rw, &c, &err), -EBUSY);
    st_node_close(a);
    assert_int_equal(try_open(w, rw, &c, &err), -EBUSY);
    st_node_close(b);
    assert_int_equal(try_open(w, rw, &c, &err), 0);
    assert_int_equal(try_open(w, rw, &a, &err), -EBUSY);
    snprintf(text, sizeof(text), "%s: in use by another process (", w->path);
    assert_memory_equal(err.text, text, strlen(text));
    assert_int_equal(try_open(w, ro, &a, &err), -EBUSY);
    st_node_close(c);
    assert_int_equal(try_open(w, ro, &a, &err), 0);
    st_node_close(a);
}

static void
the_lock_outlives_no_channel(void **state)
{
    struct world *w = *state;
    struct st_node *n;
    struct st_err err;
    char buf[512] = "x";

    make(w, 4096);
    for (unsigned i = 0; i < 3; i++) {
        use(w, (struct st_file_opts){0}); /* with its slot in the ring */
        assert_int_equal(st_sync_write(w->sync, buf, 0, 512, 0), ST_OK);
        assert_int_equal(try_open(w, (struct st_file_opts){0}, &n, &err),
                         -EBUSY);
        leave(w);
    }
}

/* Run a command; its output's start goes to OUT. The exit status, or -1. */
static int
run(const char *cmd, char *out, size_t size)
{
    FILE *p = popen(cmd, "r");
    size_t n;
    int rc;

    assert_non_null(p);
    n = fread(out, 1, size - 1, p);
    out[n] = 0;
    while (fgetc(p) != EOF)
        ;
    rc = pclose(p);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static void
qemu_does_not_write_to_our_disk(void **state)
{
    struct world *w = *state;
    char cmd[256], out[1024];

    if (system("command -v qemu-io >/dev/null") != 0)
        skip_for("no qemu-io here");
    make(w, MIB);
    snprintf(cmd, sizeof(cmd), "qemu-io -f raw -c 'write 0 512' %s 2>&1",
             w->path);
    use(w, (struct st_file_opts){0});
    assert_int_not_equal(run(cmd, out, sizeof(out)), 0);
    assert_non_null(strstr(out, "Failed to get \"write\" lock"));
    leave(w);
    use(w, (struct st_file_opts){.read_only = true});
    assert_int_not_equal(run(cmd, out, sizeof(out)), 0);
    assert_non_null(strstr(out, "Failed to get \"write\" lock"));
    snprintf(cmd, sizeof(cmd), "qemu-io -r -f raw -c 'read 0 512' %s 2>&1",
             w->path);
    assert_int_equal(run(cmd, out, sizeof(out)), 0); /* readers share */
    leave(w);
    snprintf(cmd, sizeof(cmd), "qemu-io -f raw -c 'write 0 512' %s 2>&1",
             w->path);
    assert_int_equal(run(cmd, out, sizeof(out)), 0);
}

static void
we_do_not_write_to_qemus_disk(void **state)
{
    struct world *w = *state;
    struct st_node *n;
    struct st_err err;
    char cmd[256], line[1024] = "";
    FILE *p;
    int rc_rw, rc_ro, rc_shared;

    if (system("command -v qemu-io >/dev/null") != 0)
        skip_for("no qemu-io here");
    make(w, MIB);
    for (unsigned reader = 0; reader < 2; reader++) {
        /* It holds the file for as long as its input is open. */
        snprintf(cmd, sizeof(cmd), "qemu-io %s -f raw %s > %s/out",
                 reader ? "-r" : "", w->path, w->dir);
        p = popen(cmd, "w");
        assert_non_null(p);
        fputs("length\n", p);
        fflush(p);
        snprintf(cmd, sizeof(cmd), "until grep -q 1.MiB %s/out; do :; done",
                 w->dir);
        assert_int_equal(system(cmd), 0); /* it has answered: it is open */
        rc_rw = try_open(w, (struct st_file_opts){0}, &n, &err);
        if (rc_rw == 0)
            st_node_close(n);
        else
            snprintf(line, sizeof(line), "%s", err.text);
        rc_ro = try_open(w, (struct st_file_opts){.read_only = true}, &n, &err);
        if (rc_ro == 0)
            st_node_close(n);
        pclose(p);
        /* A reader of qemu-io's kind shares with everybody. */
        assert_int_equal(rc_rw, reader ? 0 : -EBUSY);
        assert_int_equal(rc_ro, reader ? 0 : -EBUSY);
    }
    assert_non_null(strstr(line, "in use by another process"));
    rc_shared = try_open(w, (struct st_file_opts){0}, &n, &err);
    assert_int_equal(rc_shared, 0);
    st_node_close(n);
}

/* ---- The rest ---- */

struct seen {
    struct st_inspect v;
    char text[512];
};

static void
see_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%llu ", name,
             (unsigned long long)value);
}

static void
see_text(struct st_inspect *v, const char *name, const char *value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%s ", name, value);
}

static void
inspect_says_which_file_and_lock(void **state)
{
    struct world *w = *state;
    struct seen s = {{.u64 = see_u64, .text = see_text}, ""};
    char want[192];

    make(w, 4096);
    use(w, (struct st_file_opts){0});
    w->node->ops->inspect(w->node, &s.v);
    snprintf(want, sizeof(want), "file=%s size=4096 direct=0 lock=writer ",
             w->path);
    assert_memory_equal(s.text, want, strlen(want));
}

static int
kit_make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
         struct st_node **out, struct st_err *err)
{
    struct world *w = arg;
    struct st_file_opts o = {
        .path = w->path,
        .create = true,
        .create_size = size,
        .sector_size = sector,
    };

    unlink(w->path);
    return st_file_open(loop, &o, out, err);
}

static void
the_contract_is_kept(void **state)
{
    struct world *w = *state;
    struct st_kit kit = {
        .name = "file",
        .loop = w->loop,
        .make = kit_make,
        .arg = w,
    };
    unsigned ran;

    for (kit.sector = 512; kit.sector <= 4096; kit.sector *= 8) {
        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 0);
    }
}

static const struct CMUnitTest tests[] = {
    T(each_wrong_path_has_its_sentence),
    T(no_permission_is_said),
    T(create_makes_the_size_and_never_truncates),
    T(an_empty_file_is_a_legal_disk),
    T(a_file_that_shrinks_under_us),
    T(a_status_past_the_real_end_finds_the_shrink),
    T(restat_publishes_what_happened_outside),
    T(resize_goes_both_ways_and_brings_nothing_back),
    T(direct_io_with_any_buffer),
    T(direct_io_wants_large_enough_sectors),
    T(one_writer_or_many_readers),
    T(the_lock_outlives_no_channel),
    T(qemu_does_not_write_to_our_disk),
    T(we_do_not_write_to_qemus_disk),
    T(inspect_says_which_file_and_lock),
    T(the_contract_is_kept),
};

int
main(void)
{
    return run_on_every_engine(tests, sizeof(tests) / sizeof(tests[0]));
}
