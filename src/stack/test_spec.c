/* SPDX-License-Identifier: MIT
 *
 * The disk grammar: every row of the tables in config.md 2 and 3, as text that
 * is understood and as text that is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stack_private.h"

/* "kind(field=text,...){below}{below}" of S, at the end of BUF. */
static void
describe(const struct st_spec *s, char *buf, size_t size)
{
    size_t n = strlen(buf);

    n += (size_t)snprintf(buf + n, size - n, "%s(", s->kind->name);
    for (unsigned i = 0; i < s->narg; i++)
        n += (size_t)snprintf(buf + n, size - n, "%s%.*s=%s", i ? "," : "",
                              (int)s->arg[i].name_len, s->arg[i].name,
                              s->arg[i].text);
    snprintf(buf + n, size - n, ")");
    for (unsigned i = 0; i < s->nchild; i++) {
        strcat(buf, "{");
        describe(s->child[i], buf, size);
        strcat(buf, "}");
    }
}

static void
every_kind_is_understood(void **state)
{
    static const char *const rows[][2] = {
        {"mem:1G", "mem(len=1G)"},
        {"mem:64M;sector=4096", "mem(len=64M,sector=4096)"},
        {"memdiff:mem:1M", "memdiff(){mem(len=1M)}"},
        {"memdiff:memdiff:/x", "memdiff(){memdiff(){(path=/x)}}"},
        {"/no/such;direct", "(path=/no/such,direct=direct)"},
        {"file:x", "file(path=x)"},
        {"file:x;direct;create=1G", "file(path=x,direct=direct,create=1G)"},
        {"file:x;create=1G;direct", "file(path=x,create=1G,direct=direct)"},
        {"file:x;create=1;create=2M", "file(path=x,create=2M)"},
        {"file:a:b:c", "file(path=a:b:c)"},
        {"file:x;sector=512", "file(path=x,sector=512)"},
        {"raw:x.vhd;direct;sector=4096",
         "raw(path=x.vhd,direct=direct,sector=4096)"},
        {"sql:x;create=5M", "sql(path=x,create=5M)"},
        {"sqldiff:x:mem:1", "sqldiff(path=x){mem(len=1)}"},
        {"sqldiff:x;create:mem:1", "sqldiff(path=x,create=create){mem(len=1)}"},
        {"autocache:k:mem:1", "autocache(key=k){mem(len=1)}"},
        {"autocache::mem:1", "autocache(key=){mem(len=1)}"},
        {"blob:flat:https://h:8080/a;b?c=[d]",
         "blob(flat|vhd1=flat,url=https://h:8080/a;b?c=[d])"},
        {"blob:vhd1:http://h/x", "blob(flat|vhd1=vhd1,url=http://h/x)"},
        {"crypt:xts-aes-256:/key:mem:1",
         "crypt(xts-aes-256=xts-aes-256,key file=/key){mem(len=1)}"},
        {"prwrap:mem:1", "prwrap(){mem(len=1)}"},
        {"delay:5:mem:1", "delay(ms=5){mem(len=1)}"},
        {"delay:5;write=0;flush=9;read=1:mem:1",
         "delay(ms=5,write=0,flush=9,read=1){mem(len=1)}"},
        {"vhd:x", "vhd(path=x)"},
        {"vhdx:x:y", "vhdx(path=x:y)"},
        {"stripe:64K:[mem:1]", "stripe(chunk=64K){mem(len=1)}"},
        {"stripe:64K:[file:a;direct][stripe:4K:[mem:1][mem:2]]",
         "stripe(chunk=64K){file(path=a,direct=direct)}"
         "{stripe(chunk=4K){mem(len=1)}{mem(len=2)}}"},
        {"nvme:0000:01:00.0/1",
         "nvme(pci address|vfio-user=path=0000:01:00.0,nsid=1)"},
        {"nvme:01:00.7/4294967294",
         "nvme(pci address|vfio-user=path=01:00.7,nsid=4294967294)"},
        {"nvme:vfio-user=/run/n:1/s/3",
         "nvme(pci address|vfio-user=path=vfio-user=/run/n:1/s,nsid=3)"},
        {"nbd:nbd+unix:///e?socket=/a;b", "nbd(uri=nbd+unix:///e?socket=/a;b)"},
        {"rbd:pool/ns/img@s1;conf=/etc/c.conf;id=me",
         "rbd(pool=pool/ns,snap=s1,image=img,conf=/etc/c.conf,id=me)"},
        {"rbd:pool/img", "rbd(pool=pool,image=img)"},
        {"cache:1G:/fast:mem:1", "cache(len=1G){(path=/fast)}{mem(len=1)}"},
        {"cache:1G:[file:f;direct]:mem:1",
         "cache(len=1G){file(path=f,direct=direct)}{mem(len=1)}"},
        {"throttle:100:mem:1", "throttle(iops=100){mem(len=1)}"},
        {"throttle:100/10M;burst=50;group=g:mem:1",
         "throttle(bytes=10M,iops=100,burst=50,group=g){mem(len=1)}"},
        {"fault:rules.txt:mem:1", "fault(rules file=rules.txt){mem(len=1)}"},
        /* Escapes. */
        {"file:a\\;b;direct", "file(path=a;b,direct=direct)"},
        {"file:a\\,b\\[c\\]\\:d\\\\e\\f", "file(path=a,b[c]:d\\e\\f)"},
        {"rel\\:path.img", "(path=rel:path.img)"},
        {"fault:a\\:b:mem:1", "fault(rules file=a:b){mem(len=1)}"},
        {"stripe:4K:[file:a\\]b][mem:1]",
         "stripe(chunk=4K){file(path=a]b)}{mem(len=1)}"},
        /* An unknown kind that starts with / is a path. */
        {"/dir:with/colon.img", "(path=/dir:with/colon.img)"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char got[400] = "";
        struct st_spec *s;
        struct st_err err;

        if (st_spec_parse(rows[i][0], &s, &err))
            fail_msg("%s", err.text);
        describe(s, got, sizeof(got));
        assert_string_equal(got, rows[i][1]);
        st_spec_free(s);
    }
}

static void
every_mistake_is_quoted_and_answered(void **state)
{
    static const struct {
        const char *text, *says[3];
    } rows[] = {
        {"", {"a disk is missing", "<path>"}},
        {"mem:abc", {"'mem:abc'", "invalid size 'abc'", "[K|M|G|T]"}},
        {"mem:", {"'mem:'", "invalid size ''"}},
        {"mem:1G;bogus", {"unknown option 'bogus'", "sector=<sector>"}},
        {"mem:1G;sector=256", {"'256'", "512 to 65536"}},
        {"file:", {"'file:'", "<path> is empty"}},
        {"file:x;bogus",
         {"'file:x;bogus'", "unknown option 'bogus'",
          "direct, create=<len>, sector=<sector>"}},
        {"file:x;create=", {"invalid size ''"}},
        {"file:x;create", {"'create' needs a value", "create=<len>"}},
        {"file:x;direct=on", {"'direct' takes no value", "expected direct"}},
        {"file:x;", {"unknown option ''"}},
        {"/x;bogus", {"'/x;bogus'", "unknown option 'bogus'"}},
        {"raw:x;create=1M", {"unknown option 'create'", "direct"}},
        {"sql:x;direct", {"unknown option 'direct'", "create=<len>"}},
        {"sqldiff:path",
         {"'sqldiff:path'", "expected sqldiff:<path>[;create]:<disk>"}},
        {"sqldiff:p;creat:disk", {"unknown option 'creat'", "expected create"}},
        {"sqldiff:p;create=1:disk", {"'create' takes no value"}},
        {"sqldiff:p:", {"a disk is missing"}},
        {"autocache:x", {"'autocache:x'", "expected autocache:[<key>]:<disk>"}},
        {"blob:x", {"'blob:x'", "expected blob:flat|vhd1:<url>"}},
        {"blob:zip:u", {"'zip' is not known", "flat|vhd1"}},
        {"blob:flat|vhd1:u", {"'flat|vhd1' is not known"}},
        {"blob::u", {"'' is not known"}},
        {"blob:flat:", {"<url> is empty"}},
        {"crypt:c", {"'crypt:c'", "crypt:xts-aes-256:<key file>:<disk>"}},
        {"crypt:xts-aes-256:k", {"crypt:xts-aes-256:<key file>:<disk>"}},
        {"crypt:aes:k:d", {"'aes' is not known", "expected xts-aes-256"}},
        {"crypt:XTS-AES-256:k:d", {"'XTS-AES-256' is not known"}},
        {"crypt:xts-aes-256::d", {"<key file> is empty"}},
        {"foo:bar", {"invalid disk kind 'foo'", "--help", "'foo:bar'"}},
        {"memory:x", {"invalid disk kind 'memory'"}},
        {"invalid:", {"invalid disk kind 'invalid'"}},
        {"Mem:1G", {"invalid disk kind 'Mem'"}},
        {"d:\\x.img", {"invalid disk kind 'd'", "file:<path>"}},
        {"rel:path.img", {"invalid disk kind 'rel'", "file:<path>"}},
        {"./rel:path.img", {"invalid disk kind './rel'", "file:<path>"}},
        {":x", {"invalid disk kind ''"}},
        {"memdiff:", {"'memdiff:'", "a disk is missing"}},
        {"memdiff:foo:bar", {"invalid disk kind 'foo'", "'foo:bar'"}},
        {"prwrap:", {"a disk is missing"}},
        {"delay:5", {"expected delay:<ms>"}},
        {"delay:x:mem:1", {"invalid ms 'x'", "number"}},
        {"delay:86400001:mem:1", {"invalid ms '86400001'"}},
        {"delay:5;read:mem:1", {"'read' needs a value", "read=<ms>"}},
        {"delay:5;bogus=1:mem:1",
         {"unknown option 'bogus'", "read=<ms>, write=<ms>, flush=<ms>"}},
        {"vhd:", {"<path> is empty"}},
        {"vhd:x;direct", {"unknown option 'direct'", "expected none"}},
        {"stripe:64K", {"expected stripe:<chunk>"}},
        {"stripe:64K:", {"expected "}},
        {"stripe:64K:mem:1", {"expected ", "'mem:1'"}},
        {"stripe:64K:[mem:1", {"expected ", "'[mem:1'"}},
        {"stripe:64K:[mem:1]x", {"expected ", "'x'"}},
        {"stripe:64K:[]", {"a disk is missing"}},
        {"stripe:64K:[mem:1][foo:x]", {"invalid disk kind 'foo'", "'foo:x'"}},
        {"stripe:x:[mem:1]", {"invalid size 'x'"}},
        {"nvme:x", {"expected nvme:"}},
        {"nvme:/1", {"vfio-user=path> is empty"}},
        {"nvme:01:00.0/0", {"invalid nsid '0'"}},
        {"nvme:01:00.0/4294967295", {"invalid nsid '4294967295'"}},
        {"nbd:", {"<uri> is empty"}},
        {"rbd:pool", {"expected rbd:<pool>/<image>"}},
        {"rbd:pool/", {"<image> is empty"}},
        {"rbd:/img", {"<pool> is empty"}},
        {"rbd:p/i@", {"<snap> is empty"}},
        {"rbd:p/i;x=1", {"unknown option 'x'", "conf=<file>, id=<user>"}},
        {"cache:1G:mem", {"expected cache:<len>:<upper>:<disk>"}},
        {"cache:1G:[mem:1]", {"expected cache:<len>:<upper>:<disk>"}},
        {"cache:1G:[mem:1:mem:1", {"expected "}},
        {"cache:1G:/f:", {"a disk is missing"}},
        {"throttle:100", {"expected throttle:<iops>"}},
        {"throttle:x:mem:1", {"invalid iops 'x'"}},
        {"throttle:1/x:mem:1", {"invalid size 'x'"}},
        {"throttle:1;burst=x:mem:1", {"invalid ms 'x'"}},
        {"throttle:1;group=:mem:1", {"<name> is empty"}},
        {"fault::mem:1", {"<rules file> is empty"}},
        {"fault:x", {"expected fault:<rules file>:<disk>"}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct st_spec *s;
        struct st_err err;

        if (st_spec_parse(rows[i].text, &s, &err) != -EINVAL)
            fail_msg("'%s' is accepted", rows[i].text);
        for (unsigned k = 0; k < 3 && rows[i].says[k]; k++)
            if (!strstr(err.text, rows[i].says[k]))
                fail_msg("\"%s\" does not say \"%s\"", err.text,
                         rows[i].says[k]);
    }
}

static void
a_bare_path_that_exists_is_taken_as_it_is(void **state)
{
    char dir[] = "/tmp/spec-XXXXXX", text[80];
    struct st_spec *s;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(text, sizeof(text), "%s/a\\;b;direct:c", dir);
    fd = open(text, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(st_spec_parse(text, &s, NULL), 0);
    assert_string_equal(st_spec_arg(s, "path")->text, text);
    assert_null(st_spec_arg(s, "direct")->text);
    st_spec_free(s);
    unlink(text);
    assert_int_equal(st_spec_parse(text, &s, NULL), -EINVAL);
    close(fd);
    rmdir(dir);
}

static void
depth_has_a_limit(void **state)
{
    char text[300];
    struct st_spec *s;
    struct st_err err;

    (void)state;
    for (unsigned depth = 16; depth <= 17; depth++) {
        text[0] = '\0';
        for (unsigned i = 1; i < depth; i++)
            strcat(text, i % 2 ? "delay:1:" : "memdiff:");
        strcat(text, "mem:1M");
        assert_int_equal(st_spec_parse(text, &s, &err),
                         depth == 16 ? 0 : -EINVAL);
        if (depth == 16)
            st_spec_free(s);
    }
    assert_non_null(strstr(err.text, "too deep"));
    assert_non_null(strstr(err.text, "at most 16"));
}

static void
a_long_text_is_cut_in_the_sentence(void **state)
{
    char text[5000];
    struct st_spec *s;
    struct st_err err;

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    memcpy(text, "mem:", 4);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(st_spec_parse(text, &s, &err), -EINVAL);
    assert_memory_equal(err.text, "'mem:xxx", 8);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_understood),
        cmocka_unit_test(every_mistake_is_quoted_and_answered),
        cmocka_unit_test(a_bare_path_that_exists_is_taken_as_it_is),
        cmocka_unit_test(depth_has_a_limit),
        cmocka_unit_test(a_long_text_is_cut_in_the_sentence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
