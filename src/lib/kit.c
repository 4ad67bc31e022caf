/* SPDX-License-Identifier: MIT
 *
 * The conformance kit for nodes of the embedder's own: a loop on the calling
 * thread, in a domain that nobody else knows.
 */
#include "kit.h"

#include <errno.h>

#include "lib.h"

static_assert((int)STRATA_KIT_PASS == (int)ST_KIT_PASS &&
                  (int)STRATA_KIT_FAIL == (int)ST_KIT_FAIL &&
                  (int)STRATA_KIT_SKIP == (int)ST_KIT_SKIP,
              "verdicts");

static int
kit_make(void *arg, struct st_loop *loop, uint32_t sector, uint64_t size,
         struct st_node **out, struct st_err *err)
{
    const struct strata_kit *k = arg;
    struct strata_error e = {""};
    struct strata_node *n = NULL;
    int rc = k->make(k->arg, sector, size, &n, &e);

    if (rc == 0 && !n)
        rc = lib_err(&e, EINVAL, "it gave no node");
    if (rc > 0) /* an errno with the wrong sign is a likely slip */
        rc = -EINVAL;
    if (rc < 0)
        return st_err_set(err, -rc, "%.*s", (int)sizeof(e.text) - 1, e.text);
    *out = lib_node_settle(n, loop, k->name);
    return 0;
}

static void
kit_report(void *arg, const char *check, enum st_verdict v, const char *detail)
{
    const struct strata_kit *k = arg;

    k->report(k->report_arg, check, (enum strata_verdict)v, detail);
}

int
strata_kit_run(const struct strata_kit *kit, unsigned *ran,
               struct strata_error *err)
{
    struct strata_kit k;
    struct st_domain *d = NULL;
    struct st_loop *loop = NULL;
    struct st_err e = {""};
    unsigned failures = 0;
    int rc = lib_take(&k, sizeof(k), kit, "strata_kit", err);

    if (rc == 0)
        rc = lib_check_engine(k.engine, err);
    if (rc < 0)
        return rc;
    if (!k.make)
        return lib_err(err, EINVAL, "strata_kit has no make function");
    if (!k.name)
        k.name = "node";
    rc = st_domain_create(&(struct st_domain_opts){.engine = k.engine}, &d, &e);
    if (rc == 0)
        rc = st_loop_create(d, &loop, &e);
    if (rc == 0)
        failures = st_kit_run(
            &(struct st_kit){.name = k.name,
                             .sector = k.sector_size ? k.sector_size : 512,
                             .loop = loop,
                             .make = kit_make,
                             .arg = &k,
                             .report = k.report ? kit_report : NULL,
                             .report_arg = &k},
            ran);
    st_loop_destroy(loop);
    st_domain_destroy(d);
    return rc < 0 ? lib_err_from(err, rc, &e) : (int)failures;
}
