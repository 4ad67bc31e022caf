/* SPDX-License-Identifier: MIT
 *
 * What a service manager hears of us.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "notify.h"

struct manager {
    int fd;
    char folder[32], name[108]; /* NOTIFY_SOCKET */
    struct st_log log;
    unsigned warnings;
    char warning[256]; /* the last one */
};

static void
manager_log(void *arg, enum st_level level, const char *line)
{
    struct manager *m = arg;

    assert_int_equal(level, ST_LOG_WARN);
    m->warnings++;
    snprintf(m->warning, sizeof(m->warning), "%s", line);
}

static int
manager_open(void **state)
{
    struct manager *m = calloc(1, sizeof(*m));

    strcpy(m->folder, "/tmp/st-notify-XXXXXX");
    assert_non_null(mkdtemp(m->folder));
    snprintf(m->name, sizeof(m->name), "%s/s", m->folder);
    m->log = (struct st_log){ST_LOG_DEBUG, manager_log, m};
    m->fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    *state = m;
    return 0;
}

static int
manager_close(void **state)
{
    struct manager *m = *state;

    close(m->fd);
    unlink(m->name);
    rmdir(m->folder);
    unsetenv("NOTIFY_SOCKET");
    free(m);
    return 0;
}

/* Bind M's socket where NAME says, and let strata know. */
static void
manager_listen(struct manager *m, const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    size_t len = strlen(name);

    memcpy(at.sun_path, name, len);
    if (*name == '@')
        *at.sun_path = '\0';
    assert_int_equal(
        bind(m->fd, (struct sockaddr *)&at,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
        0);
    setenv("NOTIFY_SOCKET", name, 1);
}

static void
assert_hears(struct manager *m, const char *wanted)
{
    char text[1024];
    ssize_t n = recv(m->fd, text, sizeof(text) - 1, MSG_DONTWAIT);

    assert_in_range(n, 1, sizeof(text) - 1);
    text[n] = '\0';
    assert_string_equal(text, wanted);
    assert_int_equal(n, strlen(wanted)); /* no zero at the end */
}

static void
a_manager_hears_that_we_are_ready_and_stop(void **state)
{
    struct manager *m = *state;
    int fd;

    manager_listen(m, m->name);
    fd = st_cmd_notify_open(&m->log);
    assert_true(fd >= 0);
    st_cmd_notify_ready(fd, "Serving %d exports", 3);
    assert_hears(m, "READY=1\nSTATUS=Serving 3 exports");
    st_cmd_notify_stopping(fd);
    assert_hears(m, "STOPPING=1\nSTATUS=Finishing what is under way");
    assert_int_equal(recv(m->fd, m->warning, 1, MSG_DONTWAIT), -1);
    assert_int_equal(m->warnings, 0);
    close(fd);
}

static void
an_abstract_name_works_too(void **state)
{
    struct manager *m = *state;
    char name[64];
    int fd;

    snprintf(name, sizeof(name), "@st-test-notify-%d", getpid());
    manager_listen(m, name);
    fd = st_cmd_notify_open(&m->log);
    assert_true(fd >= 0);
    st_cmd_notify_ready(fd, "x");
    assert_hears(m, "READY=1\nSTATUS=x");
    close(fd);
}

static void
children_are_not_told_of_the_manager(void **state)
{
    struct manager *m = *state;
    int fd;

    manager_listen(m, m->name);
    fd = st_cmd_notify_open(&m->log);
    assert_null(getenv("NOTIFY_SOCKET"));
    close(fd);
}

static void
a_status_is_one_line_of_bounded_length(void **state)
{
    struct manager *m = *state;
    char text[1024], wanted[512]; /* the longest message */
    int fd;

    manager_listen(m, m->name);
    fd = st_cmd_notify_open(&m->log);
    st_cmd_notify_ready(fd, "%s", "file:a\nWATCHDOG=trigger");
    assert_hears(m, "READY=1\nSTATUS=file:a?WATCHDOG=trigger");
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    st_cmd_notify_ready(fd, "%s", text);
    snprintf(wanted, sizeof(wanted), "READY=1\nSTATUS=%.496s", text);
    assert_hears(m, wanted);
    close(fd);
}

static void
without_a_manager_nothing_happens(void **state)
{
    struct manager *m = *state;

    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(st_cmd_notify_open(&m->log), -1);
    assert_int_equal(m->warnings, 0);
    st_cmd_notify_ready(-1, "x");
    st_cmd_notify_stopping(-1);
}

static void
a_manager_that_cannot_be_reached_is_a_warning(void **state)
{
    struct manager *m = *state;
    char longest[109] = "/";
    const char *const wrong[] = {"",          "/",     "@",    "run/notify",
                                 "vsock:2:1", m->name, longest};

    memset(longest + 1, 'x', 107);
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        setenv("NOTIFY_SOCKET", wrong[i], 1);
        assert_int_equal(st_cmd_notify_open(&m->log), -1);
        assert_int_equal(m->warnings, i + 1);
        assert_non_null(strstr(m->warning, wrong[i]));
        assert_null(getenv("NOTIFY_SOCKET"));
    }
}

static void
a_manager_that_went_away_does_no_harm(void **state)
{
    struct manager *m = *state;
    int fd;

    manager_listen(m, m->name);
    fd = st_cmd_notify_open(&m->log);
    close(m->fd);
    st_cmd_notify_ready(fd, "x"); /* not SIGPIPE */
    st_cmd_notify_stopping(fd);
    close(fd);
    m->fd = -1;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, manager_open, manager_close)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_manager_hears_that_we_are_ready_and_stop),
        TEST(an_abstract_name_works_too),
        TEST(children_are_not_told_of_the_manager),
        TEST(a_status_is_one_line_of_bounded_length),
        TEST(without_a_manager_nothing_happens),
        TEST(a_manager_that_cannot_be_reached_is_a_warning),
        TEST(a_manager_that_went_away_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
