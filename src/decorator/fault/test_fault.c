/* SPDX-License-Identifier: MIT
 *
 * Fault: the grammar of its rules, and what they do to requests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "fault_rules.h"
#include "kit.h"
#include "testnode.h"

#define MS UINT64_C(1000000)

enum { SIZE = 1 << 20 };

struct rig {
    struct st_domain *domain;
    struct st_loop *loop;
    struct st_node *memory, *fault;
    struct st_chan *chan;
};

struct op {
    struct st_req *req;
    struct iovec iov;
    bool done;
};

static struct rig
rig_start(const char *rules)
{
    const struct st_domain_opts d = {.engine = "virtual", .seed = 1};
    const struct st_testnode_opts m = {.size = SIZE};
    struct rig r;

    assert_int_equal(st_domain_create(&d, &r.domain, NULL), 0);
    assert_int_equal(st_loop_create(r.domain, &r.loop, NULL), 0);
    assert_int_equal(st_testnode_create(r.loop, &m, &r.memory, NULL), 0);
    assert_int_equal(st_fault_create(r.loop, NULL, "fault", &r.fault, NULL), 0);
    assert_int_equal(st_node_adopt(r.fault, r.memory), 0);
    assert_int_equal(st_fault_load(r.fault, "rules", rules, NULL), 0);
    assert_int_equal(st_chan_open(r.fault, r.loop, &r.chan), 0);
    return r;
}

static void
rig_stop(struct rig *r)
{
    st_chan_close(r->chan);
    while (st_domain_step(r->domain))
        ;
    st_node_close(r->fault);
    st_loop_destroy(r->loop);
    st_domain_destroy(r->domain);
}

static void
op_done(struct st_req *req)
{
    ((struct op *)req->owner)->done = true;
}

static void
op_start(struct rig *r, struct op *o, enum st_op op, uint64_t offset,
         uint64_t len)
{
    *o = (struct op){.iov = {calloc(1, len + 1), len}};
    o->req = malloc(st_req_size(4));
    st_req_init(o->req, 4, op_done, o);
    o->req->op = (uint8_t)op;
    o->req->offset = offset;
    o->req->len = len;
    o->req->buf.iov = &o->iov;
    st_submit(r->chan, o->req);
}

static enum st_status
op_wait(struct rig *r, struct op *o)
{
    enum st_status status;

    while (!o->done)
        assert_true(st_domain_step(r->domain));
    status = (enum st_status)o->req->status;
    free(o->req);
    free(o->iov.iov_base);
    return status;
}

static enum st_status
run(struct rig *r, enum st_op op, uint64_t offset, uint64_t len)
{
    struct op o;

    op_start(r, &o, op, offset, len);
    return op_wait(r, &o);
}

static void
a_rule_names_operations_and_a_range(void **state)
{
    struct rig r = rig_start("# a comment\n"
                             "read,unmap 4096-8K error=EIO # another\n"
                             "\twrite  64K+512\tstatus=medium\r\n"
                             "flush * error=ENOSPC\n"
                             "any 0-512 error=EBADE\n"
                             "read 100K+512 status=medium");

    (void)state;
    assert_int_equal(run(&r, ST_OP_READ, 3584, 512), ST_OK);
    assert_int_equal(run(&r, ST_OP_READ, 3584, 1024), ST_IO);
    assert_int_equal(run(&r, ST_OP_READ, 7680, 4096), ST_IO);
    assert_int_equal(run(&r, ST_OP_READ, 8192, 4096), ST_OK);
    assert_int_equal(run(&r, ST_OP_UNMAP, 4096, 512), ST_IO);
    assert_int_equal(run(&r, ST_OP_WRITE, 4096, 512), ST_OK);
    assert_int_equal(run(&r, ST_OP_WRITE, 65536, 512), ST_MEDIUM_WRITE);
    assert_int_equal(run(&r, ST_OP_READ, 102400, 512), ST_MEDIUM_READ);
    assert_int_equal(run(&r, ST_OP_FLUSH, 0, 0), ST_NO_SPACE);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_CONFLICT);
    assert_int_equal(run(&r, ST_OP_SHUTDOWN, 0, 0), ST_OK);
    rig_stop(&r);
}

static void
a_rule_has_its_time(void **state)
{
    static const struct {
        const char *rules, *fails; /* of ten reads */
    } rows[] = {
        {"read * error=EIO every=3", "..x..x..x."},
        {"read * error=EIO count=2", "xx........"},
        {"read * error=EIO after=4 count=1", "....x....."},
        {"read * error=EIO after=1 every=4 count=2", "....x...x."},
        {"read * error=EIO p=1", "xxxxxxxxxx"},
        {"read * error=EIO count=1\nread * error=EIO every=2", "x.x.x.x.x."},
        {"write * error=EIO", ".........."},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct rig r = rig_start(rows[i].rules);
        char fails[11] = "";

        for (unsigned k = 0; k < 10; k++)
            fails[k] = run(&r, ST_OP_READ, 0, 512) == ST_IO ? 'x' : '.';
        assert_string_equal(fails, rows[i].fails);
        rig_stop(&r);
    }
}

static unsigned
failures_of_a_thousand(const char *rules, char trace[1001])
{
    struct rig r = rig_start(rules);
    unsigned n = 0;

    for (unsigned k = 0; k < 1000; k++) {
        bool failed = run(&r, ST_OP_READ, 0, 512) == ST_IO;

        n += failed;
        trace[k] = failed ? 'x' : '.';
    }
    trace[1000] = '\0';
    rig_stop(&r);
    return n;
}

static void
dice_repeat_by_seed(void **state)
{
    char a[1001], b[1001], c[1001];

    (void)state;
    assert_in_range(failures_of_a_thousand("read * error=EIO p=0.25", a), 200,
                    300);
    failures_of_a_thousand("read * error=EIO p=0.25 seed=0", b);
    failures_of_a_thousand("read * error=EIO p=0.25 seed=1", c);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
}

static void
a_delay_waits_then_goes_on_or_fails(void **state)
{
    struct rig r = rig_start("read 0-4K delay=10ms\n"
                             "read 4K-8K delay=5ms error=EIO\n"
                             "read 8K-12K delay=2s");
    uint64_t start = r.loop->now;
    struct op a, b, c;

    (void)state;
    op_start(&r, &c, ST_OP_READ, 8192, 512);
    op_start(&r, &a, ST_OP_READ, 0, 512);
    op_start(&r, &b, ST_OP_READ, 4096, 512);
    assert_int_equal(op_wait(&r, &b), ST_IO);
    assert_int_equal(r.loop->now - start, 5 * MS);
    assert_int_equal(op_wait(&r, &a), ST_OK);
    assert_int_equal(r.loop->now - start, 10 * MS);
    assert_int_equal(op_wait(&r, &c), ST_OK);
    assert_int_equal(r.loop->now - start, 2000 * MS);
    assert_int_equal(st_testnode_count(r.memory, ST_OP_READ), 2);
    rig_stop(&r);
}

static void
a_hung_request_delays_nobody_else(void **state)
{
    struct rig r = rig_start("write 0-4K hang\nwrite 4K-8K hang error=EIO");
    struct op hung[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        op_start(&r, &hung[i], ST_OP_WRITE, i * 4096ul / 2, 512);
    assert_int_equal(run(&r, ST_OP_WRITE, 8192, 512), ST_OK);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_OK);
    while (st_domain_step(r.domain))
        ;
    for (unsigned i = 0; i < 3; i++)
        assert_false(hung[i].done);

    st_cancel(hung[0].req);
    assert_int_equal(op_wait(&r, &hung[0]), ST_ABORTED);
    st_fault_release(r.fault);
    st_fault_release(r.fault);
    assert_int_equal(op_wait(&r, &hung[1]), ST_OK);
    assert_int_equal(op_wait(&r, &hung[2]), ST_IO);
    assert_int_equal(st_testnode_count(r.memory, ST_OP_WRITE), 2);
    rig_stop(&r);
}

static void
a_delayed_request_can_be_cancelled(void **state)
{
    struct rig r = rig_start("any * delay=10ms");
    uint64_t start = r.loop->now;
    struct op o;

    (void)state;
    op_start(&r, &o, ST_OP_FLUSH, 0, 0);
    st_cancel(o.req);
    assert_int_equal(op_wait(&r, &o), ST_ABORTED);
    assert_int_equal(r.loop->now, start);
    rig_stop(&r);
}

static void
a_channel_may_close_before_its_release_arrives(void **state)
{
    struct rig r = rig_start("");

    (void)state;
    st_fault_release(r.fault);
    rig_stop(&r); /* a leak or a use after free is for the sanitizers */
    assert_true(true);
}

static void
rules_are_replaced_while_requests_wait(void **state)
{
    struct rig r = rig_start("read * delay=10ms error=EIO");
    struct op o;

    (void)state;
    op_start(&r, &o, ST_OP_READ, 0, 512);
    assert_int_equal(
        st_fault_load(r.fault, "rules", "read * error=ENOSPC", NULL), 0);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_NO_SPACE);
    assert_int_equal(op_wait(&r, &o), ST_IO);
    assert_int_equal(st_fault_load(r.fault, "rules", "nonsense", NULL),
                     -EINVAL);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_NO_SPACE);
    rig_stop(&r);
}

struct seen {
    struct st_inspect base;
    char text[256];
};

static void
see_u64(struct st_inspect *v, const char *name, uint64_t value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%d ", name, (int)value);
}

static void
see_text(struct st_inspect *v, const char *name, const char *value)
{
    struct seen *s = (struct seen *)v;
    size_t n = strlen(s->text);

    snprintf(s->text + n, sizeof(s->text) - n, "%s=%s ", name, value);
}

static void
inspect_counts_each_rule(void **state)
{
    struct rig r = rig_start("flush * hang\nread * error=EIO every=2 count=1");
    struct seen seen = {.base = {.u64 = see_u64, .text = see_text}};

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        run(&r, ST_OP_READ, 0, 512);
    r.fault->ops->inspect(r.fault, &seen.base);
    assert_string_equal(seen.text,
                        "hung=0 rules/0/text=flush * hang rules/0/matched=0 "
                        "rules/0/fired=0 "
                        "rules/1/text=read * error=EIO every=2 count=1 "
                        "rules/1/matched=5 rules/1/fired=1 ");
    rig_stop(&r);
}

static uint64_t
hung(struct rig *r)
{
    struct seen seen = {.base = {.u64 = see_u64, .text = see_text}};

    r->fault->ops->inspect(r->fault, &seen.base);
    assert_memory_equal(seen.text, "hung=", 5);
    return strtoull(seen.text + 5, NULL, 10);
}

static void
what_hangs_is_counted_and_let_go_by_a_set(void **state)
{
    struct rig r = rig_start("read * hang\nwrite * delay=1ms");
    const struct st_node_ops *ops = r.fault->ops;
    struct op read[3], write;
    struct st_err err;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        op_start(&r, &read[i], ST_OP_READ, i * 512ul, 512);
    op_start(&r, &write, ST_OP_WRITE, 0, 512);
    assert_int_equal(hung(&r), 3);
    st_cancel(read[0].req);
    st_cancel(write.req); /* which does not hang */
    assert_int_equal(op_wait(&r, &read[0]), ST_ABORTED);
    assert_int_equal(op_wait(&r, &write), ST_ABORTED);
    assert_int_equal(hung(&r), 2);

    assert_int_equal(ops->set(r.fault, "hung", "1", &err), -EINVAL);
    assert_non_null(strstr(err.text, "only 0"));
    assert_int_equal(hung(&r), 2);
    assert_int_equal(ops->set(r.fault, "hung", "0", &err), 0);
    assert_int_equal(op_wait(&r, &read[1]), ST_OK);
    assert_int_equal(op_wait(&r, &read[2]), ST_OK);
    assert_int_equal(hung(&r), 0);
    rig_stop(&r);
}

static void
its_rules_can_be_set(void **state)
{
    static char long_text[(64 << 10) + 2];
    struct rig r = rig_start("read * error=EIO");
    const struct st_node_ops *ops = r.fault->ops;
    struct seen seen = {.base = {.u64 = see_u64, .text = see_text}};
    struct st_err err;

    (void)state;
    assert_int_equal(ops->set(r.fault, "rules",
                              "# two\nread * error=ENOSPC\nflush * hang", &err),
                     0);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_NO_SPACE);
    ops->inspect(r.fault, &seen.base);
    assert_string_equal(
        seen.text, "hung=0 rules/0/text=read * error=ENOSPC rules/0/matched=1 "
                   "rules/0/fired=1 rules/1/text=flush * hang "
                   "rules/1/matched=0 rules/1/fired=0 ");
    assert_int_equal(ops->set(r.fault, "rules", "read * bogus", &err), -EINVAL);
    assert_non_null(strstr(err.text, "rules line 1"));
    memset(long_text, '#', sizeof(long_text) - 1);
    assert_int_equal(ops->set(r.fault, "rules", long_text, &err), -EINVAL);
    assert_int_equal(ops->set(r.fault, "rules/0/fired", "0", &err), -EACCES);
    assert_int_equal(ops->set(r.fault, "rule", "", &err), -ENOENT);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_NO_SPACE);
    assert_int_equal(ops->set(r.fault, "rules", "", &err), 0);
    assert_int_equal(run(&r, ST_OP_READ, 0, 512), ST_OK);
    rig_stop(&r);
}

static void
a_wrong_rule_is_named(void **state)
{
    static const struct {
        const char *rules, *says[3];
    } rows[] = {
        {"read * error=EIO\n\nreed * error=EIO",
         {"r.txt line 3", "'reed'", "read, write"}},
        {"read,bogus * hang", {"line 1", "'read,bogus'", "read, write"}},
        {"read", {"''", "*, A-B or A+N"}},
        {"read 5 hang", {"'5'", "*, A-B or A+N"}},
        {"read x-5 hang", {"'x-5'", "A-B"}},
        {"read 5-x hang", {"'5-x'", "A-B"}},
        {"read 5-5 hang", {"'5-5'", "A-B"}},
        {"read 5+0 hang", {"'5+0'", "A+N"}},
        {"read 0+8388608T hang", {"'0+8388608T'", "A+N"}},
        {"read 1+18446744073709551615 hang", {"'1+18446744073709551615'"}},
        {"read *", {"nothing would happen", "hang"}},
        {"read * every=2", {"nothing would happen"}},
        {"read * short", {"'short'", "error=EIO", "hang"}},
        {"read * evr=3", {"'evr=3'", "every=N"}},
        {"read * error=EBOGUS", {"'error=EBOGUS'", "error=EIO"}},
        {"read * error=5", {"'error=5'", "error=EIO"}},
        {"read * status=", {"'status='", "status=medium"}},
        {"read * delay=10", {"'delay=10'", "delay=10ms"}},
        {"read * delay=ms", {"'delay=ms'", "delay=10ms"}},
        {"read * delay=99999999999s", {"'delay=99999999999s'"}},
        {"read * hang every=0", {"'every=0'", "every=N"}},
        {"read * hang count=-1", {"'count=-1'", "count=N"}},
        {"read * hang p=0", {"'p=0'", "p=0.01"}},
        {"read * hang p=1.5", {"'p=1.5'"}},
        {"read * hang p=nan", {"'p=nan'"}},
        {"read * hang p=", {"'p='"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_fault_rules *rules;
        struct st_err err;

        assert_int_equal(
            st_fault_rules_parse("r.txt", rows[i].rules, &rules, &err),
            -EINVAL);
        for (unsigned k = 0; k < 3 && rows[i].says[k]; k++)
            if (!strstr(err.text, rows[i].says[k]))
                fail_msg("'%s' does not say '%s'", err.text, rows[i].says[k]);
    }
}

static void
rules_have_a_limit(void **state)
{
    char text[(ST_FAULT_RULES_MAX + 1) * 12 + 1] = "";
    struct st_fault_rules *rules;
    struct st_err err;

    (void)state;
    for (unsigned i = 0; i < ST_FAULT_RULES_MAX; i++)
        strcpy(text + i * 12, "any * hang \n");
    assert_int_equal(st_fault_rules_parse("r", text, &rules, &err), 0);
    assert_int_equal(rules->n, ST_FAULT_RULES_MAX);
    free(rules);
    strcat(text, "any * hang \n");
    assert_int_equal(st_fault_rules_parse("r", text, &rules, &err), -EINVAL);
    assert_non_null(strstr(err.text, "more than 256 rules"));
}

static void
rules_come_from_a_file(void **state)
{
    char path[] = "/tmp/fault-XXXXXX", big[] = "/tmp/fault-XXXXXX";
    int fd = mkstemp(path), big_fd = mkstemp(big);
    struct rig r = rig_start("");
    struct st_node *n;
    struct st_err err;

    (void)state;
    assert_int_equal(write(fd, "read * hang\n", 12), 12);
    assert_int_equal(st_fault_create(r.loop, path, "f", &n, &err), 0);
    st_node_close(n);
    assert_int_equal(write(fd, "oops", 4), 4);
    assert_int_equal(st_fault_create(r.loop, path, "f", &n, &err), -EINVAL);
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "line 2"));
    assert_int_equal(ftruncate(big_fd, (1 << 16) + 1), 0);
    assert_int_equal(st_fault_create(r.loop, big, "f", &n, &err), -EINVAL);
    assert_int_equal(ftruncate(big_fd, 1), 0); /* a zero byte is no text */
    assert_int_equal(st_fault_create(r.loop, big, "f", &n, &err), -EINVAL);
    assert_non_null(strstr(err.text, "not a text"));
    assert_int_equal(st_fault_create(r.loop, "/tmp", "f", &n, &err), -EISDIR);
    unlink(path);
    unlink(big);
    close(fd);
    close(big_fd);
    assert_int_equal(st_fault_create(r.loop, path, "f", &n, &err), -ENOENT);
    assert_non_null(strstr(err.text, path));
    rig_stop(&r);
}

static int
make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
     struct st_node **out, struct st_err *err)
{
    const struct st_testnode_opts m = {.size = size,
                                       .sector = sector,
                                       .unmap = ST_UNMAP_ZEROES,
                                       .async = true,
                                       .seed = 3};
    struct st_node *memory;
    int rc = st_fault_create(loop, NULL, "fault", out, err);

    (void)arg;
    if (rc == 0)
        rc = st_testnode_create(loop, &m, &memory, err);
    if (rc == 0)
        rc = st_node_adopt(*out, memory);
    return rc ? rc
              : st_fault_load(*out, "rules", "any * delay=5us every=3", err);
}

static void
it_keeps_the_contract(void **state)
{
    static const uint32_t sector[] = {512, 4096};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        const struct st_domain_opts d = {.engine = "virtual", .seed = 1};
        struct st_kit kit = {
            .name = "fault", .sector = sector[i], .make = make};
        struct st_domain *domain;
        unsigned ran;

        assert_int_equal(st_domain_create(&d, &domain, NULL), 0);
        assert_int_equal(st_loop_create(domain, &kit.loop, NULL), 0);
        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_true(ran > 0);
        st_loop_destroy(kit.loop);
        st_domain_destroy(domain);
    }
}

/* ---- Rules and releases while another thread is at work ---- */

enum { ROUNDS = 300 };

struct worker {
    struct st_loop *loop, *boss;
    struct st_node *node;
    struct st_chan *chan;
    struct st_task task, tell;
    struct st_req *req;
    unsigned failed, completed;
    bool done; /* the boss's */
};

static void
worker_next(struct worker *w)
{
    w->req->op = ST_OP_FLUSH;
    st_submit(w->chan, w->req);
}

static void
worker_done(struct st_req *req)
{
    struct worker *w = req->owner;

    w->failed += req->status != ST_OK;
    if (++w->completed < ROUNDS) {
        worker_next(w);
        return;
    }
    st_chan_close(w->chan);
    st_post(w->boss, &w->tell);
}

static void
worker_start(struct st_task *t)
{
    struct worker *w = st_container(t, struct worker, task);

    st_chan_open(w->node, w->loop, &w->chan);
    worker_next(w);
}

/* All that was posted to the worker's loop before has been dealt with. */
static void
worker_ping(struct st_task *t)
{
    struct worker *w = st_container(t, struct worker, task);

    st_post(w->boss, &w->tell);
}

static void
worker_told(struct st_task *t)
{
    st_container(t, struct worker, tell)->done = true;
}

struct prod {
    struct st_timer timer;
    struct worker *w;
    unsigned n;
};

static void
prod(struct st_timer *t)
{
    struct prod *p = st_container(t, struct prod, timer);

    st_fault_load(p->w->node, "rules",
                  p->n++ % 2 ? "flush * hang" : "flush * hang error=EIO", NULL);
    st_fault_release(p->w->node);
    if (!p->w->done)
        st_timer_set(p->w->boss, t, p->w->boss->now + 10000);
}

static void
rules_change_under_a_working_thread(void **state)
{
    const struct st_domain_opts d = {.engine = "threads"};
    const struct st_testnode_opts m = {.size = SIZE};
    struct worker w = {.task.run = worker_start, .tell.run = worker_told};
    struct prod p = {.timer.fire = prod, .w = &w};
    struct st_domain *domain;
    struct st_node *memory;

    (void)state;
    assert_int_equal(st_domain_create(&d, &domain, NULL), 0);
    assert_int_equal(st_loop_create(domain, &w.boss, NULL), 0);
    assert_int_equal(st_loop_create(domain, &w.loop, NULL), 0);
    assert_int_equal(st_testnode_create(w.boss, &m, &memory, NULL), 0);
    assert_int_equal(st_fault_create(w.boss, NULL, "fault", &w.node, NULL), 0);
    assert_int_equal(st_node_adopt(w.node, memory), 0);
    w.req = malloc(st_req_size(4));
    st_req_init(w.req, 4, worker_done, &w);
    prod(&p.timer);
    assert_int_equal(st_loop_start(w.loop, "worker"), 0);
    st_post(w.loop, &w.task);
    assert_true(st_loop_wait(w.boss, &w.done));
    st_timer_stop(w.boss, &p.timer);
    w.task.run = worker_ping;
    w.done = false;
    st_post(w.loop, &w.task);
    assert_true(st_loop_wait(w.boss, &w.done));
    st_loop_join(w.loop);
    assert_int_equal(w.completed, ROUNDS);
    assert_int_equal(st_testnode_count(memory, ST_OP_FLUSH), ROUNDS - w.failed);
    free(w.req);
    st_node_close(w.node);
    st_loop_destroy(w.loop);
    st_loop_destroy(w.boss);
    st_domain_destroy(domain);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_names_operations_and_a_range),
        cmocka_unit_test(a_rule_has_its_time),
        cmocka_unit_test(dice_repeat_by_seed),
        cmocka_unit_test(a_delay_waits_then_goes_on_or_fails),
        cmocka_unit_test(a_hung_request_delays_nobody_else),
        cmocka_unit_test(a_delayed_request_can_be_cancelled),
        cmocka_unit_test(a_channel_may_close_before_its_release_arrives),
        cmocka_unit_test(rules_are_replaced_while_requests_wait),
        cmocka_unit_test(inspect_counts_each_rule),
        cmocka_unit_test(what_hangs_is_counted_and_let_go_by_a_set),
        cmocka_unit_test(its_rules_can_be_set),
        cmocka_unit_test(a_wrong_rule_is_named),
        cmocka_unit_test(rules_have_a_limit),
        cmocka_unit_test(rules_come_from_a_file),
        cmocka_unit_test(it_keeps_the_contract),
        cmocka_unit_test(rules_change_under_a_working_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
