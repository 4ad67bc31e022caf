/* SPDX-License-Identifier: MIT
 *
 * What strata serve is to serve: the same settings from words and from JSON,
 * and a sentence with its place for all that is wrong.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "settings.h"

enum { THREADS, ENGINE, API, NO_SANDBOX, POLL, CONFIG, DISK, BIOS };

static const struct st_cmd_option table[] = {
    [THREADS] = {"threads", ST_CMD_NUMBER, "N", "help", 0, 0, 64},
    [ENGINE] = {"engine", ST_CMD_WORD, "auto|io_uring|threads", "help", 0, 0,
                0},
    [API] = {"api", ST_CMD_TEXT, "PATH", "help", 0, 0, 0},
    [NO_SANDBOX] = {"no-sandbox", ST_CMD_FLAG, NULL, "help", 0, 0, 0},
    [POLL] = {"poll-us", ST_CMD_TEXT, "N", "help", 0, 0, 0},
    [CONFIG] = {"config", ST_CMD_TEXT, "FILE", "help", 0, 0, 0},
    [DISK] = {"disk", ST_CMD_MANY, "SPEC", "help", 0, 0, 0},
    [BIOS] = {"bios", ST_CMD_MAYBE, "FILE", "help", 0, 0, 0},
    {0},
};

/* ---- Settings as text, to compare ---- */

static void
add(char *out, const char *fmt, ...)
{
    size_t n = strlen(out);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(out + n, 2000 - n, fmt, ap);
    va_end(ap);
}

static const char *
or_none(const char *text)
{
    return text ? text : "-";
}

static void
show(const struct st_settings *s, char out[2000])
{
    *out = '\0';
    for (unsigned i = 0; i < s->nnvme; i++) {
        const struct st_settings_nvme *n = &s->nvme[i];
        const struct st_graph_nvme_opts *o = &n->opts;

        add(out, "nvme %s %s %o/%d q%u e%u v%u n%u %s %s %s%s%s%s\n", n->id,
            n->address.path, n->address.mode, (int)n->address.group, o->queues,
            o->entries, o->vectors, o->namespaces, or_none(o->subsystem),
            or_none(o->serial), or_none(o->model), o->intx ? " intx" : "",
            o->write_multiple ? " multi" : "", o->mapped ? " mapped" : "");
    }
    for (unsigned i = 0; i < s->nnbd; i++) {
        const struct st_settings_nbd *n = &s->nbd[i];

        add(out, "nbd %s %s %s:%s tls%d %s %s\n", n->id, n->address.path,
            n->address.host, n->address.port, n->opts.tls,
            or_none(n->opts.tls_certificates), or_none(n->opts.tls_psk));
    }
    for (unsigned i = 0; i < s->ndisks; i++) {
        const struct st_attach *a = &s->disk[i];

        add(out, "disk %s '%s'%s", a->spec, a->name, a->read_only ? " ro" : "");
        for (unsigned k = 0; k < a->n; k++)
            add(out, " %s/%u/%s", a->at[k].on, a->at[k].nsid,
                or_none(a->at[k].export));
        add(out, "\n");
    }
    for (unsigned i = 0; i < s->nallow; i++)
        add(out, "allow %s\n", s->allow[i]);
}

static void
file_means(const char *json, const char *expected)
{
    struct st_settings s = {0};
    struct st_cmd_args a = {0};
    struct st_err err;
    char got[2000];

    if (st_settings_text(&s, json, strlen(json), "f", table, &a, &err))
        fail_msg("%s", err.text);
    show(&s, got);
    assert_string_equal(got, expected);
    st_settings_free(&s);
}

typedef int take_words(struct st_settings *s, const char *text,
                       struct st_err *err);

static void
words_mean(take_words *take, const char *text, const char *expected)
{
    struct st_settings s = {0};
    struct st_err err;
    char got[2000];

    if (take(&s, text, &err))
        fail_msg("%s", err.text);
    show(&s, got);
    assert_string_equal(got, expected);
    st_settings_free(&s);
}

static void
words_wrong(take_words *take, const char *text, const char *sentence)
{
    struct st_settings s = {0};
    struct st_err err = {""};

    assert_int_equal(take(&s, text, &err), -EINVAL);
    if (!strstr(err.text, sentence) || strncmp(err.text, "--", 2) != 0)
        fail_msg("'%s', expected '%s'", err.text, sentence);
    st_settings_free(&s);
}

static void
file_wrong(const char *json, const char *sentence)
{
    struct st_settings s = {0};
    struct st_cmd_args a = {.text = {[API] = "/api"}};
    struct st_err err = {""};

    assert_int_equal(
        st_settings_text(&s, json, strlen(json), "f.json", table, &a, &err),
        -EINVAL);
    if (strncmp(err.text, "f.json: ", 8) != 0 ||
        strncmp(err.text + 8, sentence, strlen(sentence)) != 0)
        fail_msg("'%s', expected '%s'", err.text, sentence);
    st_settings_free(&s);
}

/* ---- Tests ---- */

#define NVME_ALL                                                               \
    "nvme a /s 660/-1 q4 e64 v5 n8 sub SN M l intx multi mapped\n"             \
    "nbd n  localhost:10810 tls2 dir psk\n"                                    \
    "disk mem:1M '' ro a/3/- n/0/x\n"

static void
words_and_file_say_the_same(void **state)
{
    (void)state;
    words_mean(st_settings_nvme,
               "id=a,vfio-user=/s,mode=660,intx=on,write-multi=on,"
               "doorbells=mapped,queues=4,"
               "entries=64,vectors=5,namespaces=8,subsystem=sub,serial=SN,"
               "model=M l",
               "nvme a /s 660/-1 q4 e64 v5 n8 sub SN M l intx multi mapped\n");
    words_mean(st_settings_nbd,
               "id=n,addr=localhost:10810,tls=require,tls-certificates=dir,"
               "tls-psk=psk",
               "nbd n  localhost:10810 tls2 dir psk\n");
    words_mean(st_settings_disk, "mem:1M,ro,on=a,nsid=3,on=n,export=x",
               "disk mem:1M '' ro a/3/- n/0/x\n");
    file_means(
        "{\"nvme-pci\": [{\"id\": \"a\", \"vfio-user\": \"/s\", \"mode\": "
        "\"660\", \"intx\": true, \"write-multi\": true, \"doorbells\": "
        "\"mapped\", \"queues\": 4, "
        "\"entries\": 64, \"vectors\": 5, \"namespaces\": 8, \"subsystem\": "
        "\"sub\", \"serial\": \"SN\", \"model\": \"M l\"}],"
        "\"nbd\": [{\"id\": \"n\", \"addr\": \"localhost:10810\", \"tls\": "
        "\"require\", \"tls-certificates\": \"dir\", \"tls-psk\": \"psk\"}],"
        "\"disk\": [{\"spec\": \"mem:1M\", \"ro\": true, \"on\": [{\"id\": "
        "\"a\", \"nsid\": 3}, {\"id\": \"n\", \"export\": \"x\"}]}]}",
        NVME_ALL);
}

static void
defaults_are_none(void **state)
{
    (void)state;
    words_mean(st_settings_nvme, "id=a,vfio-user=/s",
               "nvme a /s 600/-1 q0 e0 v0 n0 - - -\n");
    words_mean(st_settings_nvme, "id=a,vfio-user=/s,doorbells=trap,intx=off",
               "nvme a /s 600/-1 q0 e0 v0 n0 - - -\n");
    words_mean(st_settings_nvme, "id=a", "nvme a  0/0 q0 e0 v0 n0 - - -\n");
    words_mean(st_settings_nbd, "id=n,unix=/s", "nbd n /s : tls0 - -\n");
    file_means("{}", "");
    file_means("{\"nvme-pci\": [{\"id\": \"a\", \"vfio-user\": \"/s\", "
               "\"intx\": false, \"vtl2\": false}], \"disk\": [{\"spec\": "
               "\"mem:1M\", \"name\": \"x\", \"on\": \"a\"}, {\"spec\": \"y\", "
               "\"on\": [\"a\", \"b\"]}], \"allow-path\": [\"/a\", \"/b\"]}",
               "nvme a /s 600/-1 q0 e0 v0 n0 - - -\n"
               "disk mem:1M 'x' a/0/-\n"
               "disk y '' a/0/- b/0/-\n"
               "allow /a\nallow /b\n");
}

static void
wrong_words_have_their_sentence(void **state)
{
    static const struct {
        take_words *take;
        const char *text, *sentence;
    } rows[] = {
        {st_settings_nvme, "vfio-user=/s", "missing required id=<value>"},
        {st_settings_nvme, "id=", "'id' needs a value"},
        {st_settings_nvme, "", "missing required"},
        {st_settings_nvme, "id=a,vfio-user=/s,vpci", "only one of vfio-user="},
        {st_settings_nvme, "id=a,pcie_port=p,slot=1", "only one of vfio-user="},
        {st_settings_nvme, "id=a,vpci=", "'vpci' needs a value"},
        {st_settings_nvme, "id=a,vpci=12", "vpci=12 is no GUID"},
        {st_settings_nvme, "id=a,vpci", "needs a VMBus"},
        {st_settings_nvme, "id=a,vpci=00000000-0000-0000-0000-000000000001",
         "needs a VMBus"},
        {st_settings_nvme, "id=a,pcie_port=p", "pcie_port= is a slot"},
        {st_settings_nvme, "id=a,slot=3", "slot= is a slot"},
        {st_settings_nvme, "id=a,vtl2,vfio-user=/s", "no VTL2 here"},
        {st_settings_nvme, "id=a,mode=600", "mode= is of the socket"},
        {st_settings_nvme, "id=a,group=x", "group= is of the socket"},
        {st_settings_nvme, "id=a,vfio-user=/s,mode=888", "invalid mode '888'"},
        {st_settings_nvme, "id=a,vfio-user=/s,group=no such", "no group"},
        {st_settings_nvme, "id=a,vfio-user=/s,doorbells=yes",
         "invalid doorbells 'yes', expected trap or mapped"},
        {st_settings_nvme, "id=a,queues=0", "invalid queues '0'"},
        {st_settings_nvme, "id=a,queues=512", "invalid queues '512'"},
        {st_settings_nvme, "id=a,entries=1", "invalid entries '1'"},
        {st_settings_nvme, "id=a,entries=65537", "invalid entries"},
        {st_settings_nvme, "id=a,vectors=0", "invalid vectors"},
        {st_settings_nvme, "id=a,vectors=2049", "invalid vectors"},
        {st_settings_nvme, "id=a,namespaces=1025", "invalid namespaces"},
        {st_settings_nvme, "id=a,serial=123456789012345678901",
         "serial '123456789012345678901' is too long"},
        {st_settings_nvme, "id=a,model=\xc3\xa4", "not all printable ASCII"},
        {st_settings_nvme, "id=a,cache=on", "unknown option 'cache'"},
        {st_settings_nvme, "id=a,id=b", "'id' is given twice"},
        {st_settings_nvme, "id=a,intx=1", "invalid 'intx=1'"},
        {st_settings_nbd, "id=n,unix=/s,addr=h:1", "either unix= or addr="},
        {st_settings_nbd, "id=n,addr=h", "invalid addr 'h'"},
        {st_settings_nbd, "id=n,addr=h:70000", "invalid addr"},
        {st_settings_nbd, "id=n,addr=h:1,mode=600", "mode= is of the socket"},
        {st_settings_nbd, "id=n,unix=/s,tls=maybe",
         "invalid tls 'maybe', expected off, on or require"},
        {st_settings_nbd, "id=n,unix=/s,tls-psk=f", "no effect without tls="},
        {st_settings_disk, "mem:1M", "missing on=ID"},
    };
    char path[200] = "id=a,vfio-user=/";

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        words_wrong(rows[i].take, rows[i].text, rows[i].sentence);
    memset(path + strlen(path), 'x', 120);
    words_wrong(st_settings_nvme, path, "is too long");
}

static void
wrong_files_have_a_place(void **state)
{
    static const char *const rows[][2] = {
        {"", "line 1, column 0: "},
        {"{", "line 1, column 1: "},
        {"{\"threads\": 1, \"threads\": 2}", "line 1"},
        {"[]", "all of it: an array, expected an object"},
        {"{} {}", "line 1"},
        {"{\"thread\": 1}", "thread: unknown key"},
        {"{\"config\": \"x\"}", "config: unknown key"},
        {"{\"threads\": \"1\"}", "threads: a string, expected a number"},
        {"{\"threads\": 1.5}", "threads: a number with a fraction"},
        {"{\"threads\": 65}", "threads: invalid --threads '65'"},
        {"{\"threads\": -1}", "threads: invalid --threads '-1'"},
        {"{\"threads\": null}", "threads: null"},
        {"{\"engine\": \"fast\"}", "engine: invalid --engine 'fast'"},
        {"{\"engine\": \"\"}", "engine: an empty text"},
        {"{\"no-sandbox\": 1}", "no-sandbox: a number, expected true or false"},
        {"{\"bios\": \"\"}", "bios: an empty text"},
        {"{\"bios\": [1]}", "bios: an array, expected a string"},
        {"{\"api\": \"/x\"}", "api: option '--api' says it, too"},
        {"{\"allow-path\": \"/x\"}", "allow-path: a string, expected an array"},
        {"{\"allow-path\": [1]}", "allow-path[0]: a number"},
        {"{\"nvme-pci\": {}}", "nvme-pci: an object, expected an array"},
        {"{\"nvme-pci\": [3]}", "nvme-pci[0]: a number, expected an object"},
        {"{\"nvme-pci\": [{}]}", "nvme-pci[0]: missing key 'id'"},
        {"{\"nvme-pci\": [{\"id\": \"a\"}, {\"id\": \"b\", \"cache\": 1}]}",
         "nvme-pci[1].cache: unknown key, expected one of id, vfio-user"},
        {"{\"nvme-pci\": [{\"id\": \"a\", \"queues\": 0}]}",
         "nvme-pci[0]: invalid queues '0'"},
        {"{\"nvme-pci\": [{\"id\": \"a\", \"queues\": true}]}",
         "nvme-pci[0].queues: a boolean, expected a string or a number"},
        {"{\"nvme-pci\": [{\"id\": \"a\", \"intx\": \"on\"}]}",
         "nvme-pci[0].intx: a string, expected true or false"},
        {"{\"nvme-pci\": [{\"id\": \"a\", \"vpci\": true}]}",
         "nvme-pci[0]: vpci needs a VMBus"},
        {"{\"nbd\": [{\"id\": \"n\", \"unix\": 3, \"addr\": \"a:1\"}]}",
         "nbd[0]: either unix="},
        {"{\"disk\": {}}", "disk: an object, expected an array"},
        {"{\"disk\": [\"mem:1M\"]}", "disk[0]: a string, expected an object"},
        {"{\"disk\": [{\"on\": \"a\"}]}", "disk[0]: missing key 'spec'"},
        {"{\"disk\": [{\"spec\": \"mem:1M\"}]}", "disk[0]: missing key 'on'"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": []}]}",
         "disk[0].on: 0 places"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": 3}]}",
         "disk[0].on: a number"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": \"\"}]}",
         "disk[0].on: an empty text"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": [\"a\", {\"id\": \"b\", "
         "\"nsid\": 0}]}]}",
         "disk[0].on[1].nsid: invalid"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": [\"a\", {\"nsid\": 1}]}]}",
         "disk[0].on[1]: missing key 'id'"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": \"a\", \"lun\": 1}]}",
         "disk[0].lun: unknown key"},
        {"{\"disk\": [{\"spec\": \"mem:1M\", \"on\": {\"id\": \"a\", \"lun\": "
         "1}}]}",
         "disk[0].on.lun: unknown key"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        file_wrong(rows[i][0], rows[i][1]);
}

static void
options_may_stand_in_the_file(void **state)
{
    const char *json = "{\"threads\": 3, \"engine\": \"threads\", \"api\": "
                       "\"/api,mode=660\", \"no-sandbox\": true, \"poll-us\": "
                       "70}";
    struct st_settings s = {0};
    struct st_cmd_args a = {0};
    struct st_err err;

    (void)state;
    assert_int_equal(
        st_settings_text(&s, json, strlen(json), "f", table, &a, &err), 0);
    assert_int_equal(a.number[THREADS], 3);
    assert_int_equal(a.number[ENGINE], 2);
    assert_string_equal(a.text[API], "/api,mode=660");
    assert_non_null(a.text[NO_SANDBOX]);
    assert_string_equal(a.text[POLL], "70");
    st_settings_free(&s);

    json = "{\"no-sandbox\": false}";
    memset(&a, 0, sizeof(a));
    assert_int_equal(
        st_settings_text(&s, json, strlen(json), "f", table, &a, &err), 0);
    assert_null(a.text[NO_SANDBOX]);
    st_settings_free(&s);
}

static void
a_value_that_may_be_missing_is_a_text_or_true(void **state)
{
    static const struct {
        const char *json, *text;
    } rows[] = {
        {"{\"bios\": true}", ""},
        {"{\"bios\": false}", NULL},
        {"{\"bios\": \"f.bin\"}", "f.bin"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct st_settings s = {0};
        struct st_cmd_args a = {0};
        struct st_err err;

        assert_int_equal(st_settings_text(&s, rows[i].json,
                                          strlen(rows[i].json), "f", table, &a,
                                          &err),
                         0);
        if (rows[i].text)
            assert_string_equal(a.text[BIOS], rows[i].text);
        else
            assert_null(a.text[BIOS]);
        st_settings_free(&s);
    }
}

static void
ids_are_distinct(void **state)
{
    static const struct {
        const char *nvme[2], *nbd[2], *sentence;
    } rows[] = {
        {{"id=a", "id=b"}, {"id=c", "id=d"}, NULL},
        {{"id=a", NULL}, {NULL, NULL}, NULL},
        {{NULL, NULL}, {NULL, NULL}, "nothing to serve"},
        {{"id=a", "id=a"}, {NULL, NULL}, "id=a is that of an NVMe controller"},
        {{"id=a", NULL}, {"id=a", NULL}, "id=a is that of an NVMe controller"},
        {{NULL, NULL}, {"id=a", "id=a"}, "id=a is that of an NBD door"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct st_settings s = {0};
        struct st_err err = {""};
        int rc;

        for (unsigned k = 0; k < 2; k++) {
            if (rows[i].nvme[k])
                assert_int_equal(st_settings_nvme(&s, rows[i].nvme[k], &err),
                                 0);
            if (rows[i].nbd[k])
                assert_int_equal(st_settings_nbd(&s, rows[i].nbd[k], &err), 0);
        }
        rc = st_settings_check(&s, &err);
        assert_int_equal(rc, rows[i].sentence ? -EINVAL : 0);
        if (rows[i].sentence && !strstr(err.text, rows[i].sentence))
            fail_msg("'%s', expected '%s'", err.text, rows[i].sentence);
        st_settings_free(&s);
    }
}

static void
a_file_that_is_not_there_is_said(void **state)
{
    struct st_settings s = {0};
    struct st_cmd_args a = {0};
    struct st_err err;

    (void)state;
    assert_int_equal(st_settings_file(&s, "/nonexistent/f", table, &a, &err),
                     -ENOENT);
    assert_non_null(strstr(err.text, "--config '/nonexistent/f'"));
    st_settings_free(&s);
}

/* With a machine, a controller without a socket is in one of its slots. */
static int
take_controllers(struct st_settings *s, const char *const *text,
                 struct st_err *err)
{
    int rc = 0;

    *s = (struct st_settings){.machine = true};
    for (; rc == 0 && *text; text++)
        rc = st_settings_nvme(s, *text, err);
    return rc ? rc : st_settings_check(s, err);
}

static void
a_machine_has_slots(void **state)
{
    static const char *const right[] = {
        "id=a,slot=3", "id=b", "id=c,vfio-user=/s", "id=d,pcie_port=p", NULL};
    static const struct {
        const char *text[3], *sentence;
    } wrong[] = {
        {{"id=a,slot=0"}, "slot"},
        {{"id=a,slot=32"}, "slot"},
        {{"id=a,slot=1,vfio-user=/s"}, "only one of vfio-user="},
        {{"id=a,vpci"}, "use slot=N or vfio-user=PATH"},
        {{"id=a,mode=600"}, "mode= is of the socket"},
        {{"id=a,doorbells=mapped"}, "doorbells=mapped is for vfio-user=PATH"},
        {{"id=a,slot=2", "id=b,slot=2"}, "slot 2 is taken by 'a'"},
        {{"id=a,pcie_port=p", "id=b,pcie_port=p"}, "'p' is taken by 'a'"},
    };
    struct st_settings s;
    struct st_err err;

    (void)state;
    if (take_controllers(&s, right, &err))
        fail_msg("%s", err.text);
    assert_true(s.nvme[0].plugged && s.nvme[1].plugged && s.nvme[3].plugged);
    assert_false(s.nvme[2].plugged);
    assert_int_equal(s.nvme[0].slot, 3);
    assert_int_equal(s.nvme[1].slot, 0);
    assert_string_equal(s.nvme[3].port, "p");
    st_settings_free(&s);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(take_controllers(&s, wrong[i].text, &err), -EINVAL);
        if (!strstr(err.text, wrong[i].sentence))
            fail_msg("'%s', expected '%s'", err.text, wrong[i].sentence);
        st_settings_free(&s);
    }
    /* It may have nothing else. */
    s = (struct st_settings){.machine = true};
    assert_int_equal(st_settings_check(&s, &err), 0);
}

/* An old word is the same as the new ones, on a machine. */
static void
nvme_as_it_was_is_a_controller_and_a_disk(void **state)
{
    static const char *const right[] = {
        "file:a,b", "mem:1M,ro", "mem:2M,pcie_port=p", "mem:3M,pcie_port=p,ro"};
    struct st_settings s = {.machine = true};
    struct st_err err;

    (void)state;
    assert_int_equal(st_settings_old_nvme(&s, right[0], &err), -EINVAL);
    st_settings_free(&s);
    s = (struct st_settings){.machine = true};
    for (size_t i = 1; i < 4; i++)
        if (st_settings_old_nvme(&s, right[i], &err) < 0)
            fail_msg("%s", err.text);
    assert_int_equal(st_settings_check(&s, &err), 0);
    assert_int_equal(s.nnvme, 2);
    assert_string_equal(s.nvme[0].id, "nvme");
    assert_null(s.nvme[0].port);
    assert_string_equal(s.nvme[1].id, "p");
    assert_string_equal(s.nvme[1].port, "p");
    assert_true(s.nvme[0].plugged && s.nvme[1].plugged);
    assert_int_equal(s.ndisks, 3);
    assert_string_equal(s.disk[0].spec, "mem:1M");
    assert_true(s.disk[0].read_only);
    assert_string_equal(s.disk[0].at[0].on, "nvme");
    assert_false(s.disk[1].read_only);
    assert_string_equal(s.disk[1].at[0].on, "p");
    assert_string_equal(s.disk[2].at[0].on, "p");
    assert_string_equal(s.notice,
                        "--nvme 'mem:1M,ro' is deprecated, use --nvme-pci "
                        "id=nvme --disk 'mem:1M,on=nvme,ro'");
    /* A port called like the default is another controller, as is one of the
     * new words. */
    assert_int_equal(st_settings_old_nvme(&s, "mem:1M,pcie_port=nvme", &err),
                     0);
    assert_int_equal(st_settings_check(&s, &err), -EINVAL);
    s.nnvme--;
    assert_int_equal(st_settings_nvme(&s, "id=q", &err), 0);
    assert_int_equal(st_settings_old_nvme(&s, "mem:1M,pcie_port=q", &err), 0);
    assert_int_equal(st_settings_check(&s, &err), -EINVAL);
    st_settings_free(&s);
}

static void
nvme_as_it_was_has_no_more_options(void **state)
{
    static const char *const wrong[][2] = {
        {"", "missing required"},
        {"mem:1M,lun=1", "lun= is of --disk"},
        {"mem:1M,on=a", "on= is of --disk"},
        {"mem:1M,relay=a", "relay= is of --disk"},
        {"mem:1M,dvd", "a DVD cannot be"},
        {"mem:1M,vtl2", "no VTL2 here"},
        {"mem:1M,pcie_port=", "'pcie_port' needs a value"},
        {"mem:1M,name=a", "unknown option 'name'"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        words_wrong(st_settings_old_nvme, wrong[i][0], wrong[i][1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_and_file_say_the_same),
        cmocka_unit_test(defaults_are_none),
        cmocka_unit_test(wrong_words_have_their_sentence),
        cmocka_unit_test(wrong_files_have_a_place),
        cmocka_unit_test(options_may_stand_in_the_file),
        cmocka_unit_test(a_value_that_may_be_missing_is_a_text_or_true),
        cmocka_unit_test(ids_are_distinct),
        cmocka_unit_test(a_file_that_is_not_there_is_said),
        cmocka_unit_test(a_machine_has_slots),
        cmocka_unit_test(nvme_as_it_was_is_a_controller_and_a_disk),
        cmocka_unit_test(nvme_as_it_was_has_no_more_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
