/* SPDX-License-Identifier: MIT
 *
 * Nodes of one's own: below Strata's layers, under the kit, by all the rules
 * and against them.
 */
#include "test_lib.h"

/* ---- A node: memory, and a thread that carries out what is asked ---- */

struct store {
    struct strata_node *node;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct strata_node_request *first, *last; /* linked by ..._mine */
    bool quit, threaded;
    bool lazy;   /* writes are lost */
    bool sloppy; /* a block status gets no answer */
    _Atomic bool hold, broken;
    char *bytes;
    uint32_t sector;
    unsigned *closed; /* counts */
};

static void
store_do(struct store *s, struct strata_node_request *r)
{
    uint64_t at = strata_node_request_offset(r),
             n = strata_node_request_length(r);
    enum strata_status status = STRATA_OK;

    switch (strata_node_request_op(r)) {
    case STRATA_OP_READ: {
        struct iovec iov[3];
        uint64_t done = 0, held;

        if (atomic_load(&s->broken)) {
            status = STRATA_IO;
            break;
        }
        while (done < n) { /* by its buffers, three at a time */
            int count = strata_node_request_iov(r, done, iov, 3, &held);

            for (int i = 0; i < count; i++) {
                memcpy(iov[i].iov_base, s->bytes + at + done, iov[i].iov_len);
                done += iov[i].iov_len;
            }
        }
        break;
    }
    case STRATA_OP_WRITE:
        if (atomic_load(&s->broken))
            status = STRATA_IO;
        else if (!s->lazy &&
                 strata_node_request_get(r, 0, s->bytes + at, n) != n)
            status = STRATA_INVALID;
        break;
    case STRATA_OP_BLOCK_STATUS:
        if (!s->sloppy)
            strata_node_request_extent(r, s->sector, 0);
        break;
    case STRATA_OP_FLUSH:
        break;
    default:
        status = STRATA_UNSUPPORTED;
    }
    strata_node_complete(r, status);
}

static void *
store_main(void *arg)
{
    struct store *s = arg;

    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        struct strata_node_request *r = s->first;

        if (!r || atomic_load(&s->hold)) {
            pthread_cond_wait(&s->wake, &s->lock);
            continue;
        }
        s->first = strata_node_request_mine(r);
        pthread_mutex_unlock(&s->lock);
        store_do(s, r);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void
store_submit(void *arg, struct strata_node_request *r)
{
    struct store *s = arg;

    if (!s->threaded) {
        store_do(s, r);
        return;
    }
    pthread_mutex_lock(&s->lock);
    if (s->first)
        strata_node_request_set(s->last, r);
    else
        s->first = r;
    s->last = r;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

/* Take it out of the list, if it is still there. */
static void
store_cancel(void *arg, struct strata_node_request *r)
{
    struct store *s = arg;
    struct strata_node_request *before = NULL, *x;

    pthread_mutex_lock(&s->lock);
    for (x = s->first; x && x != r; x = strata_node_request_mine(x))
        before = x;
    if (x && before)
        strata_node_request_set(before, strata_node_request_mine(x));
    else if (x)
        s->first = strata_node_request_mine(x);
    if (x && x == s->last)
        s->last = before;
    pthread_mutex_unlock(&s->lock);
    if (x)
        strata_node_complete(x, STRATA_ABORTED);
}

static int
store_resize(void *arg, uint64_t bytes, struct strata_error *err)
{
    struct store *s = arg;

    if (bytes > MIB(4)) {
        snprintf(err->text, sizeof(err->text), "4 MiB are all there is");
        return -ENOSPC;
    }
    memset(s->bytes + bytes, 0, MIB(4) - bytes);
    return 0;
}

static void
store_close(void *arg)
{
    struct store *s = arg;

    if (s->threaded) {
        pthread_mutex_lock(&s->lock);
        s->quit = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    if (s->closed)
        ++*s->closed;
    free(s->bytes);
    free(s);
}

static const struct strata_node_ops store_ops = {
    .size = sizeof(store_ops),
    .name = "store",
    .submit = store_submit,
    .cancel = store_cancel,
    .resize = store_resize,
    .close = store_close,
};

static struct store *
store_create(uint32_t sector, uint64_t bytes, bool threaded,
             struct strata_error *err)
{
    struct strata_props p = {.size = sizeof(p),
                             .operations = STRATA_BIT(STRATA_OP_READ) |
                                           STRATA_BIT(STRATA_OP_WRITE) |
                                           STRATA_BIT(STRATA_OP_FLUSH) |
                                           STRATA_BIT(STRATA_OP_BLOCK_STATUS),
                             .sector_size = sector,
                             .mem_align = 16,
                             .max_segments = 5};
    struct store *s = calloc(1, sizeof(*s));

    s->bytes = calloc(1, MIB(4));
    s->threaded = threaded;
    s->sector = sector;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    if (threaded)
        pthread_create(&s->thread, NULL, store_main, s);
    if (strata_node_create(&store_ops, &p, bytes, s, &s->node, err) < 0) {
        store_close(s);
        return NULL;
    }
    return s;
}

/* ---- The kind of it: store:TEXT ---- */

struct shelf {
    struct store *last; /* the one made last, the disk's */
    unsigned closed;
    int read_only;
    char text[64];
    int fail; /* what open returns */
};

static int
shelf_open(void *arg, const char *text, int read_only, struct strata_node **out,
           struct strata_error *err)
{
    struct shelf *h = arg;

    snprintf(h->text, sizeof(h->text), "%s", text);
    h->read_only = read_only;
    if (h->fail) {
        if (h->fail == -EIO)
            snprintf(err->text, sizeof(err->text), "the shelf is empty");
        return h->fail;
    }
    h->last = store_create(512, MIB(1), true, err);
    if (!h->last)
        return -EINVAL;
    h->last->closed = &h->closed;
    *out = h->last->node;
    return 0;
}

static void
add_store(struct strata *s, struct shelf *h)
{
    const struct strata_kind k = {sizeof(k), "store", shelf_open, h};
    struct strata_error err;

    assert_int_equal(strata_kind_add(s, &k, &err), 0);
}

static void
it_is_a_disk_like_any_other(void **state)
{
    struct shelf h = {0};
    struct strata_disk *d;
    struct strata_props p = {.size = sizeof(p)};
    char data[1500], got[1500];
    uint64_t at;

    add_store(*state, &h);
    d = disk(*state, "store:a\\:b;c,d");
    assert_string_equal(h.text, "a:b;c,d");
    assert_false(h.read_only);
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(strata_write(d, data, 1500, 700, STRATA_FUA), STRATA_OK);
    assert_memory_equal(h.last->bytes + 700, data, 1500);
    assert_int_equal(strata_read(d, got, 1500, 700), STRATA_OK);
    assert_memory_equal(got, data, 1500);
    assert_int_equal(strata_write_zeroes(d, 512, 512, 0), STRATA_OK);
    assert_int_equal(h.last->bytes[1000], 0);
    assert_int_equal(strata_compare_and_write(d, data, got, 10, 1100, &at),
                     STRATA_OK);
    assert_int_equal(strata_unmap(d, 0, 4096), STRATA_OK);
    assert_int_equal(strata_flush(d), STRATA_OK);
    assert_int_equal(strata_disk_props(d, &p), 0);
    assert_int_equal(p.mem_align, 1);
    assert_int_equal(strata_disk_close(d), 0);
    assert_int_equal(h.closed, 1);
}

static void
it_lies_below_layers_and_decorators(void **state)
{
    struct shelf h = {0};
    struct strata_disk *d;
    char data[512], got[512];

    add_store(*state, &h);
    d = disk(*state, "memdiff:delay:0:store:");
    assert_string_equal(h.text, "");
    assert_true(h.read_only);
    memset(h.last->bytes + 4096, 7, 512);
    assert_int_equal(strata_read(d, got, 512, 4096), STRATA_OK);
    assert_int_equal(got[511], 7);
    memset(data, 9, 512);
    assert_int_equal(strata_write(d, data, 512, 4096, 0), STRATA_OK);
    assert_int_equal(strata_read(d, got, 512, 4096), STRATA_OK);
    assert_memory_equal(got, data, 512);
    assert_int_equal(h.last->bytes[4096], 7);
    assert_int_equal(strata_disk_close(d), 0);
    assert_int_equal(h.closed, 1);
}

static void
its_events_and_sizes_reach_the_disk(void **state)
{
    struct shelf h = {0};
    struct strata_disk *d;
    struct strata_error err;
    char c;

    add_store(*state, &h);
    d = disk(*state, "delay:0:store:x");
    assert_int_equal(strata_node_set_size(h.last->node, 1000), -EINVAL);
    assert_int_equal(strata_node_set_size(h.last->node, UINT64_C(1) << 63),
                     -EINVAL);
    assert_int_equal(strata_node_set_size(h.last->node, MIB(2)), 0);
    for (unsigned i = 0; i < 1000 && strata_disk_size(d) != MIB(2); i++)
        usleep(5000);
    assert_int_equal(strata_disk_size(d), MIB(2));
    for (unsigned i = 0; i < 1000; i++) {
        if (strata_disk_events(d) & STRATA_EVENT_RESIZE)
            break;
        usleep(5000);
        assert_int_not_equal(i, 999);
    }
    strata_node_media_changed(h.last->node);
    for (unsigned i = 0; i < 1000; i++) {
        if (strata_disk_events(d) & STRATA_EVENT_MEDIA)
            break;
        usleep(5000);
        assert_int_not_equal(i, 999);
    }
    assert_int_equal(strata_disk_resize(d, MIB(3), &err), 0);
    assert_int_equal(strata_node_size(h.last->node), MIB(3));
    assert_int_equal(strata_read(d, &c, 1, MIB(3) - 1), STRATA_OK);
    assert_int_equal(strata_disk_resize(d, MIB(5), &err), -ENOSPC);
    assert_non_null(strstr(err.text, "all there is"));
    assert_int_equal(strata_disk_close(d), 0);
}

/* A disk that goes away while its node talks. */
static void *
chatter(void *arg)
{
    struct store *s = arg;

    for (unsigned i = 0; i < 300; i++)
        strata_node_set_size(s->node, i % 2 ? MIB(1) : MIB(2));
    return NULL;
}

static void
chatter_close(void *arg)
{
    struct store *s = arg;

    pthread_join(s->thread, NULL);
    free(s->bytes);
    free(s);
}

static int
chatter_open(void *arg, const char *text, int read_only,
             struct strata_node **out, struct strata_error *err)
{
    struct strata_node_ops ops = store_ops;
    struct strata_props p = {.size = sizeof(p)};
    struct store *s = calloc(1, sizeof(*s));
    int rc;

    (void)arg;
    (void)text;
    (void)read_only;
    s->bytes = calloc(1, MIB(4));
    ops.close = chatter_close;
    rc = strata_node_create(&ops, &p, MIB(1), s, &s->node, err);
    pthread_create(&s->thread, NULL, chatter, s);
    *out = s->node;
    return rc;
}

static void
a_node_may_talk_until_it_is_closed(void **state)
{
    const struct strata_kind k = {sizeof(k), "chatter", chatter_open, NULL};
    char c;

    assert_int_equal(strata_kind_add(*state, &k, NULL), 0);
    for (unsigned i = 0; i < 20; i++) {
        struct strata_disk *d = disk(*state, "delay:0:chatter:");

        assert_int_equal(strata_read(d, &c, 1, 0), STRATA_OK);
        assert_int_equal(strata_disk_close(d), 0);
    }
}

static void
requests_that_it_keeps_can_be_cancelled(void **state)
{
    struct shelf h = {0};
    struct strata_disk *d;
    struct strata_request *r[8];
    struct strata_counters c = {.size = sizeof(c)};
    char buf[8][512];
    struct iovec iov[8];
    struct waiter w;

    waiter_init(&w);
    add_store(*state, &h);
    d = disk(*state, "store:");
    atomic_store(&h.last->hold, true);
    for (unsigned i = 0; i < 8; i++) {
        struct strata_io io = {sizeof(io), STRATA_OP_READ, 0, 512 * i,
                               512,        &iov[i],        1};

        iov[i] = (struct iovec){buf[i], 512};
        assert_int_equal(strata_request_create(d, NULL, waiter_done, &w, &r[i]),
                         0);
        assert_int_equal(strata_submit(r[i], &io), 0);
    }
    do {
        assert_int_equal(strata_disk_counters(d, &c), 0);
    } while (c.in_flight < 8 || !c.oldest_age_ns);
    for (unsigned i = 0; i < 8; i += 2)
        assert_int_equal(strata_cancel(r[i]), 0);
    for (unsigned i = 0; i < 4; i++)
        waiter_wait(&w);
    atomic_store(&h.last->hold, false);
    pthread_mutex_lock(&h.last->lock);
    pthread_cond_signal(&h.last->wake);
    pthread_mutex_unlock(&h.last->lock);
    for (unsigned i = 0; i < 4; i++)
        waiter_wait(&w);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(status_of(r[i]), i % 2 ? STRATA_OK : STRATA_ABORTED);
        assert_int_equal(strata_request_destroy(r[i]), 0);
    }
    assert_int_equal(strata_disk_close(d), 0);
}

static void
a_disk_that_its_policy_stopped_goes_on(void **state)
{
    struct shelf h = {0};
    struct strata_disk *d;
    struct strata_request *r;
    struct strata_counters c = {.size = sizeof(c)};
    char buf[512] = "data", got[512];
    struct iovec iov = {buf, 512};
    struct strata_io io = {sizeof(io), STRATA_OP_WRITE, 0, 0, 512, &iov, 1};
    struct strata_error err;
    struct waiter w;

    waiter_init(&w);
    add_store(*state, &h);
    d = disk(*state, "store:");
    assert_int_equal(strata_disk_set_policy(d, STRATA_POLICY_STOP), 0);
    atomic_store(&h.last->broken, true);
    assert_int_equal(strata_request_create(d, NULL, waiter_done, &w, &r), 0);
    assert_int_equal(strata_submit(r, &io), 0);
    for (unsigned i = 0; i < 1000; i++) {
        if (strata_disk_events(d) & STRATA_EVENT_STOPPED)
            break;
        usleep(5000);
        assert_int_not_equal(i, 999);
    }
    assert_int_equal(atomic_load(&w.done), 0);
    assert_int_equal(strata_disk_counters(d, &c), 0);
    assert_int_equal(c.stopped, 1);
    atomic_store(&h.last->broken, false);
    assert_int_equal(strata_disk_resume(d, &err), 0);
    waiter_wait(&w);
    assert_int_equal(status_of(r), STRATA_OK);
    assert_int_equal(strata_read(d, got, 512, 0), STRATA_OK);
    assert_memory_equal(got, buf, 512);
    assert_int_equal(strata_request_destroy(r), 0);
    assert_int_equal(strata_disk_close(d), 0);
}

static void
a_kind_that_fails_is_a_sentence(void **state)
{
    static const char *const names[] = {"", "Store", "a b", "x:y",
                                        "an-extremely-long-name-for-a-kind"};
    struct shelf h = {0};
    struct strata_kind k = {sizeof(k), "store", shelf_open, &h};
    struct strata_error err;
    struct strata_disk *d;

    for (unsigned i = 0; i < 5; i++) {
        k.name = names[i];
        assert_int_equal(strata_kind_add(*state, &k, &err), -EINVAL);
    }
    k.name = "mem";
    assert_int_equal(strata_kind_add(*state, &k, &err), -EEXIST);
    assert_non_null(strstr(err.text, "built in"));
    k.name = NULL;
    assert_int_equal(strata_kind_add(*state, &k, &err), -EINVAL);
    k = (struct strata_kind){sizeof(k), "store", NULL, NULL};
    assert_int_equal(strata_kind_add(*state, &k, &err), -EINVAL);
    add_store(*state, &h);
    k = (struct strata_kind){sizeof(k), "store", shelf_open, &h};
    assert_int_equal(strata_kind_add(*state, &k, &err), -EEXIST);

    h.fail = -EIO;
    assert_int_equal(strata_disk_open(*state, "store:7", NULL, &d, &err), -EIO);
    assert_string_equal(err.text, "'store:7': the shelf is empty");
    h.fail = -ENOENT;
    assert_int_equal(
        strata_disk_open(*state, "memdiff:store:7", NULL, &d, &err), -ENOENT);
    assert_non_null(strstr(err.text, "No such file"));
    h.fail = 5; /* no errno of ours */
    assert_int_equal(strata_disk_open(*state, "store:7", NULL, &d, &err),
                     -EINVAL);
    h.fail = 0;
    assert_int_equal(
        strata_disk_open(*state, "memdiff:store:7;sector=5:x", NULL, &d, &err),
        0); /* the rest of the text is the kind's own */
    assert_string_equal(h.text, "7;sector=5:x");
    assert_int_equal(strata_disk_close(d), 0);
}

/* ---- One that completes each request twice ---- */

static void
twice_submit(void *arg, struct strata_node_request *r)
{
    store_do(arg, r);
    strata_node_complete(r, STRATA_IO);
}

static int
twice_open(void *arg, const char *text, int read_only, struct strata_node **out,
           struct strata_error *err)
{
    struct strata_node_ops ops = store_ops;
    struct strata_props p = {.size = sizeof(p)};
    struct store *s = calloc(1, sizeof(*s));

    (void)arg;
    (void)text;
    (void)read_only;
    s->bytes = calloc(1, MIB(4));
    ops.submit = twice_submit;
    return strata_node_create(&ops, &p, MIB(1), s, out, err);
}

static void
count_line(void *arg, enum strata_log_level level, const char *line)
{
    if (level == STRATA_LOG_ERROR && strstr(line, "twice"))
        atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void
a_second_completion_is_a_line_in_the_log(void **state)
{
    const struct strata_kind k = {sizeof(k), "twice", twice_open, NULL};
    _Atomic unsigned lines = 0;
    struct strata_options o = {
        .size = sizeof(o), .log = count_line, .log_arg = &lines};
    struct strata *s;
    struct strata_disk *d;
    char c = 5;

    (void)state;
    assert_int_equal(strata_open(&o, &s, NULL), 0);
    assert_int_equal(strata_kind_add(s, &k, NULL), 0);
    d = disk(s, "twice:");
    assert_int_equal(strata_flush(d), STRATA_OK);
    assert_int_equal(strata_read(d, &c, 1, 0), STRATA_OK);
    assert_int_equal(atomic_load(&lines), 2);
    assert_int_equal(strata_disk_close(d), 0);
    assert_int_equal(strata_close(s), 0);
}

static void
a_node_says_what_it_is(void **state)
{
    const struct strata_props good = {.size = sizeof(good)};
    struct strata_node_ops ops = store_ops;
    struct strata_node *n = NULL;
    struct strata_error err;
    struct strata_props p;
    struct store *s;

    (void)state;
#define WRONG(bytes, ...)                                                      \
    do {                                                                       \
        p = good;                                                              \
        __VA_ARGS__;                                                           \
        err.text[0] = '\0';                                                    \
        assert_int_equal(strata_node_create(&ops, &p, bytes, NULL, &n, &err),  \
                         -EINVAL);                                             \
        assert_true(strlen(err.text) > 5);                                     \
    } while (0)
    WRONG(MIB(1), p.size = 0);
    WRONG(MIB(1), p.sector_size = 100);
    WRONG(MIB(1), p.sector_size = 256);
    WRONG(MIB(1), p.sector_size = 4096; p.physical_sector_size = 512);
    WRONG(MIB(1), p.mem_align = 3);
    WRONG(MIB(1), p.mem_align = 8192);
    WRONG(MIB(1), p.operations = STRATA_BIT(STRATA_OP_READ));
    WRONG(MIB(1), p.operations = 0x7f);
    WRONG(MIB(1), p.flags = 32);
    WRONG(MIB(1), p.unmap = STRATA_UNMAP_ZEROES);
    WRONG(MIB(1), p.unmap = (enum strata_unmap)3);
    WRONG(1000, );
    WRONG(UINT64_C(1) << 63, );
    ops.submit = NULL;
    WRONG(MIB(1), );
    ops = store_ops;
    ops.name = NULL;
    WRONG(MIB(1), );
    ops = store_ops;
    ops.size = 0;
    WRONG(MIB(1), );
    s = store_create(512, MIB(1), true, &err);
    assert_int_equal(strata_node_size(s->node), MIB(1));
    strata_node_destroy(s->node); /* closes it */
    strata_node_destroy(NULL);
}

/* ---- The kit judges ---- */

struct verdicts {
    unsigned pass, fail, skip;
    bool threaded, lazy, sloppy;
    char failed[64];
};

static int
kit_make(void *arg, uint32_t sector, uint64_t bytes, struct strata_node **out,
         struct strata_error *err)
{
    struct verdicts *v = arg;
    struct store *s = store_create(sector, bytes, v->threaded, err);

    if (!s)
        return -EINVAL;
    s->lazy = v->lazy;
    s->sloppy = v->sloppy;
    *out = s->node;
    return 0;
}

static void
kit_report(void *arg, const char *check, enum strata_verdict verdict,
           const char *detail)
{
    struct verdicts *v = arg;

    if (verdict == STRATA_KIT_FAIL && !v->fail++)
        snprintf(v->failed, sizeof(v->failed), "%.30s: %.30s", check, detail);
    v->pass += verdict == STRATA_KIT_PASS;
    v->skip += verdict == STRATA_KIT_SKIP;
}

static int
judge(struct verdicts *v, uint32_t sector)
{
    struct strata_kit k = {.size = sizeof(k),
                           .name = "store",
                           .sector_size = sector,
                           .make = kit_make,
                           .arg = v,
                           .report = kit_report,
                           .report_arg = v};
    struct strata_error err;
    unsigned ran = 0;
    int rc = strata_kit_run(&k, &ran, &err);

    assert_int_equal(rc, v->fail);
    assert_int_equal(ran, v->pass + v->fail);
    return rc;
}

static void
the_kit_passes_what_keeps_the_contract(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct verdicts v = {.threaded = i % 2};

        if (judge(&v, i < 2 ? 512 : 4096))
            fail_msg("%s", v.failed);
        assert_true(v.pass > 20);
    }
}

static void
the_kit_fails_what_does_not(void **state)
{
    struct verdicts lazy = {.lazy = true}, sloppy = {.sloppy = true};
    struct strata_kit k = {.size = sizeof(k)};
    struct strata_error err;

    (void)state;
    assert_true(judge(&lazy, 512) > 0);
    assert_true(lazy.pass > 0);
    assert_true(judge(&sloppy, 512) > 0);
    assert_int_equal(strata_kit_run(&k, NULL, &err), -EINVAL);
    k.make = kit_make;
    k.engine = "steam";
    assert_int_equal(strata_kit_run(&k, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "steam"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        T(it_is_a_disk_like_any_other),
        T(it_lies_below_layers_and_decorators),
        T(its_events_and_sizes_reach_the_disk),
        T(a_node_may_talk_until_it_is_closed),
        T(requests_that_it_keeps_can_be_cancelled),
        T(a_disk_that_its_policy_stopped_goes_on),
        T(a_kind_that_fails_is_a_sentence),
        cmocka_unit_test(a_second_completion_is_a_line_in_the_log),
        cmocka_unit_test(a_node_says_what_it_is),
        cmocka_unit_test(the_kit_passes_what_keeps_the_contract),
        cmocka_unit_test(the_kit_fails_what_does_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
