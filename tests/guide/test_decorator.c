/* SPDX-License-Identifier: MIT
 *
 * The decorator of guide/writing-nodes.md: its code, cut out of the page, must
 * keep the contract and count what fails.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kit.h"
#include "tally.h"
#include "testnode.h"

static int
make_tally(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
           struct st_node **out, struct st_err *err)
{
    struct st_testnode_opts opts = {
        .size = size, .sector = sector, .fua = true, .async = true, .seed = 1};
    struct st_node *n, *tally = tally_create(loop);
    int rc = st_testnode_create(loop, &opts, &n, err);

    assert_non_null(tally);
    if (rc == 0)
        rc = st_node_adopt(tally, n);
    if (arg)
        *(struct st_node **)arg = n; /* lent: to make it fail */
    *out = tally;
    return rc;
}

static struct st_domain *
virtual_domain(struct st_loop **loop)
{
    struct st_domain_opts opts = {.engine = "virtual", .seed = 1};
    struct st_domain *domain;
    struct st_err err;

    assert_int_equal(st_domain_create(&opts, &domain, &err), 0);
    assert_int_equal(st_loop_create(domain, loop, &err), 0);
    return domain;
}

static void
hear_verdict(void *arg, const char *check, enum st_verdict v,
             const char *detail)
{
    (void)arg;
    if (v == ST_KIT_FAIL)
        print_error("%s: %s\n", check, detail);
}

static void
it_keeps_the_contract(void **state)
{
    (void)state;
    for (uint32_t sector = 512; sector <= 4096; sector *= 8) {
        struct st_kit kit = {.name = "tally",
                             .sector = sector,
                             .make = make_tally,
                             .report = hear_verdict};
        struct st_domain *domain = virtual_domain(&kit.loop);
        unsigned ran;

        assert_int_equal(st_kit_run(&kit, &ran), 0);
        assert_in_range(ran, 10, 1000);
        st_loop_destroy(kit.loop);
        st_domain_destroy(domain);
    }
}

struct visitor {
    struct st_inspect base; /* first */
    uint64_t failed;
};

static void
take_failed(struct st_inspect *v, const char *name, uint64_t value)
{
    if (strcmp(name, "failed") == 0)
        ((struct visitor *)v)->failed = value;
}

static void
it_counts_what_fails(void **state)
{
    struct visitor visitor = {.base.u64 = take_failed};
    struct st_loop *loop;
    struct st_domain *domain = virtual_domain(&loop);
    struct st_node *backend, *tally;
    struct st_disk *disk;
    struct st_sync *sync;
    struct st_err err;
    char sector[512] = {0};

    (void)state;
    assert_int_equal(
        make_tally(&backend, loop, sizeof(sector), 1 << 20, &tally, &err), 0);
    assert_int_equal(st_disk_create(loop, tally, "tally", false, &disk, &err),
                     0);
    assert_int_equal(st_sync_open(disk, loop, &sync), 0);

    st_testnode_fail(backend, ST_BIT(ST_OP_WRITE), ST_MEDIUM_WRITE, 3);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(st_sync_write(sync, sector, 0, sizeof(sector), 0),
                         i < 3 ? ST_MEDIUM_WRITE : ST_OK);
    tally->ops->inspect(tally, &visitor.base);
    assert_int_equal(visitor.failed, 3);

    st_sync_close(sync);
    st_disk_destroy(disk);
    st_loop_destroy(loop);
    st_domain_destroy(domain);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_keeps_the_contract),
        cmocka_unit_test(it_counts_what_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
