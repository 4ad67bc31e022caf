/* SPDX-License-Identifier: MIT
 *
 * The words of --disk: what they mean, every rule of the attachment table with
 * its sentence; and identities that follow from names.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attach.h"
#include "identity.h"

/* "SPEC name ro: on/nsid/export ..." */
static void
means(const char *text, const char *expected)
{
    struct st_attach a;
    struct st_err err;
    char got[400];

    if (st_attach_parse("--disk", text, &a, &err))
        fail_msg("%s", err.text);
    snprintf(got, sizeof(got), "%s '%s'%s%s:", a.spec, a.name,
             a.read_only ? " ro" : "", a.dvd ? " dvd" : "");
    for (unsigned i = 0; i < a.n; i++)
        snprintf(got + strlen(got), sizeof(got) - strlen(got), " %s/%u/%s",
                 a.at[i].on, a.at[i].nsid,
                 a.at[i].export ? a.at[i].export : "-");
    assert_string_equal(got, expected);
    st_attach_free(&a);
}

static void
wrong(const char *text, const char *sentence)
{
    struct st_attach a;
    struct st_err err = {""};

    assert_int_equal(st_attach_parse("--disk", text, &a, &err), -EINVAL);
    if (!strstr(err.text, sentence) || !strstr(err.text, "--disk '"))
        fail_msg("'%s', expected '%s'", err.text, sentence);
}

static void
words_are_understood(void **state)
{
    (void)state;
    means("mem:1M,on=a", "mem:1M '': a/0/-");
    means("mem:1M,on=a,nsid=7", "mem:1M '': a/7/-");
    means("mem:1M,ro,on=a,name=x", "mem:1M 'x' ro: a/0/-");
    means("mem:1M,on=a,name=x,ro=on", "mem:1M 'x' ro: a/0/-");
    means("mem:1M,ro=off,on=a", "mem:1M '': a/0/-");
    means("mem:1M,dvd,on=a", "mem:1M '' ro dvd: a/0/-");
    /* A path may look like an option; the disk's own options stand at ';'. */
    means("on=a,on=b", "on=a '': b/0/-");
    means("file:x;create=1M,on=a", "file:x;create=1M '': a/0/-");
    /* Commas inside of brackets, or escaped, are the disk's. */
    means("stripe:4K:[a,b][c],on=a", "stripe:4K:[a,b][c] '': a/0/-");
    means("file:a\\,on=b,on=c", "file:a\\,on=b '': c/0/-");
}

static void
a_place_has_words_of_its_own(void **state)
{
    char text[600] = "mem:1M";

    (void)state;
    means("mem:1M,on=a,on=b,nsid=2,on=n0,export=x",
          "mem:1M '': a/0/- b/2/- n0/0/x");
    means("mem:1M,on=a,nsid=1,ro,on=b,nsid=1", "mem:1M '' ro: a/1/- b/1/-");
    wrong("mem:1M,on=a,nsid=1,nsid=2", "'nsid' is given twice");
    wrong("mem:1M,on=a,export=x,export=x", "'export' is given twice");
    for (unsigned i = 0; i < ST_ATTACH_MAX; i++)
        strcat(text, ",on=a");
    means(text, "mem:1M '': a/0/- a/0/- a/0/- a/0/- a/0/- a/0/- a/0/- a/0/- "
                "a/0/- a/0/- a/0/- a/0/- a/0/- a/0/- a/0/- a/0/-");
    strcat(text, ",on=a");
    wrong(text, "more than 16 times on=");
}

static void
every_rule_has_its_sentence(void **state)
{
    static const char *const rows[][2] = {
        {"uh,uh-nvme", "either uh or uh-nvme"},
        {"uh,vtl2", "cannot be with vtl2"},
        {"uh-nvme,vtl2", "cannot be with vtl2"},
        {"pcie_port=p,uh", "pcie_port cannot be with"},
        {"pcie_port=p,vtl2", "pcie_port cannot be with"},
        {"pcie_port=p,dvd", "pcie_port cannot be with"},
        {"on=a,pcie_port=p", "on and pcie_port"},
        {"on=a,vtl2", "the controller's VTL decides"},
        {"on=a,uh", "use relay="},
        {"on=a,uh-nvme", "use relay="},
        {"nsid=1", "nsid= needs on=ID"},
        {"nsid=1,on=a", "nsid= needs on=ID"},
        {"lun=1", "lun= needs on=ID"},
        {"export=x", "export= needs on=ID"},
        {"on=a,nsid=1,lun=1", "either nsid= or lun="},
        {"relay=c", "relay= needs on=ID"},
        {"uh,relay=c", "relay= needs on=ID"},
        {"on=a,relay=c:x", "invalid relay location 'x'"},
        {"on=a,relay=c:4294967296", "invalid relay location"},
        {"on=a,relay=c:1", "no OpenHCL here"},
        {"pcie_port=p", "use on=ID"},
        {"vtl2", "no VTL2 here"},
        {"uh", "no VTL2 here"},
        {"uh-nvme", "no VTL2 here"},
        {"ro", "missing on=ID"},
        {"on=a,nsid=0", "invalid nsid '0'"},
        {"on=a,nsid=4294967295", "invalid nsid"},
        {"on=a,nsid=-1", "invalid nsid"},
        {"on=a,lun=256", "invalid lun '256'"},
        {"on=a,cache=none", "unknown option 'cache', expected one of ro, on="},
        {"on=", "'on' needs a value"},
        {"on", "'on' needs a value"},
        {"on=a,nsid", "'nsid' needs a value"},
        {"on=a,", "an option is empty"},
        {",on=a", "an option is empty"},
        {"on=a,ro=1", "invalid 'ro=1'"},
        {"on=a,ro,ro", "'ro' is given twice"},
        {"on=a,[", "not closed"},
    };
    char text[100];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(text, sizeof(text), "mem:1M,%s", rows[i][0]);
        wrong(text, rows[i][1]);
    }
    wrong("mem:1M", "missing on=ID");
    wrong("", "missing required disk");
    wrong(",on=a", "missing required disk");
}

static void
names_have_identities(void **state)
{
    static const char *const rows[][2] = {
        {"nvme0", "7a5e139f-02ca-85fc-80a1-7e271abe9a26"},
        {"scsi0", "4bd7929f-611f-8bee-ab56-7050be068707"},
        {"scsi1", "cc4f21c6-6c1d-84e7-a862-a09cceb5b7ab"},
        {"vtl0-scsi", "498ef801-769f-817e-950b-28f2de20bdb6"},
        {"vtl0-nvme", "f6c9a4ea-0809-897c-8774-153f682274ed"},
    };
    struct st_guid g;
    char text[37];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(st_identity(rows[i][0], &g), 0);
        assert_string_equal(st_guid_format(&g, text), rows[i][1]);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_understood),
        cmocka_unit_test(a_place_has_words_of_its_own),
        cmocka_unit_test(every_rule_has_its_sentence),
        cmocka_unit_test(names_have_identities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
