/* SPDX-License-Identifier: MIT
 *
 * strata top: a live table of a running strata's disks and doors.
 *
 *   one loop: the answer of the server, keys, signals (a signalfd), the clock
 *
 * Whatever ends it goes through screen_close, so that the terminal is as it
 * was: signals that would end the process are read as data, and nothing waits
 * for the server without watching keys, too.
 */
#include <curses.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>

#include "api.h"
#include "cmd.h"
#include "rates.h"
#include "size.h"

/* Last, for its macros have names like "columns". */
#include <term.h>

enum { API, INTERVAL, ONCE, SORT };
enum { NAME_MIN = 12, HEAD_LINES = 2, EMPTY_READS = 3 };

static const struct st_cmd_option top_options[] = {
    {"api", ST_CMD_TEXT, "PATH", "the server's control socket", 0, 0, 0},
    {"interval", ST_CMD_NUMBER, "MS", "milliseconds between two looks", 1000,
     100, 3600000},
    {"once", ST_CMD_FLAG, NULL,
     "look twice, print what was done in between as plain text, and end", 0, 0,
     0},
    {"sort", ST_CMD_WORD, ST_RATE_KEY_WORDS, "the largest first", 0, 0, 0},
    {0},
};

struct top {
    struct st_api *api;
    const char *path;
    unsigned interval_ms;
    enum st_rate_key key;
    bool reverse, over, under_way;
    json_t *last; /* the newest answer */
    double last_s, next_s;
    struct st_rates rates;
    struct st_err err; /* why there is no newer one, or "" */
    unsigned scroll, empty_reads;
    SCREEN *screen;
    int signals; /* a signalfd */
    sigset_t old_mask;
};

static double
clock_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The server answered. 0 or -ENOMEM. */
static int
take_answer(struct top *t, json_t *answer)
{
    double s = clock_s();
    struct st_rates rates;
    int rc = st_rates_make(t->last, answer, s - t->last_s, &rates);

    if (rc < 0) {
        json_decref(answer);
        return st_err_set(&t->err, ENOMEM, "no memory");
    }
    st_rates_free(&t->rates);
    t->rates = rates;
    st_rates_sort(&t->rates, t->key, t->reverse);
    json_decref(t->last);
    t->last = answer;
    t->last_s = s;
    *t->err.text = '\0';
    return 0;
}

/* ---- Numbers, at most 7 columns ---- */

static void
scaled(char out[static 16], double n, const char *units)
{
    while (n >= 999.5 && units[1]) {
        n /= 1000;
        units++;
    }
    snprintf(out, 16, "%.*f%.1s", *units == ' ' || n >= 99.95 ? 0 : 1, n,
             *units == ' ' ? "" : units);
}

static void
megabytes(char out[static 16], double bytes)
{
    if (bytes >= 99.95e6)
        snprintf(out, 16, "%.0f", bytes < 9e12 ? bytes / 1e6 : 9e6);
    else
        snprintf(out, 16, "%.*f", bytes >= 9.995e6 ? 1 : 2, bytes / 1e6);
}

static void
duration(char out[static 16], double ns)
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    unsigned i = 0;

    for (; ns >= 999.5 && i < 3; i++)
        ns /= 1000;
    if (ns > 0)
        snprintf(out, 16, "%.*f%s", i == 0 || ns >= 99.95 ? 0 : 1,
                 ns < 99999 ? ns : 99999, units[i]);
    else
        strcpy(out, "-");
}

/* One column: its head above disks and above doors, and from which width of the
 * terminal on it is shown. */
static const struct column {
    enum st_rate_key key;
    int width, from;
    const char *disk, *door;
} column_row[] = {
    {ST_RATE_SIZE, 7, 96, "SIZE", "KIND"},
    {ST_RATE_OPS, 7, 0, "OPS/S", "REQ/S"},
    {ST_RATE_READ, 8, 0, "READ MB", "OUT MB"},
    {ST_RATE_WRITTEN, 9, 0, "WRITE MB", "IN MB"},
    {ST_RATE_MEAN, 7, 56, "MEAN", ""},
    {ST_RATE_P99, 7, 64, "P99", ""},
    {ST_RATE_IN_FLIGHT, 7, 72, "FLIGHT", "FLIGHT"},
    {ST_RATE_ERRORS, 7, 40, "ERRORS", "ERRORS"},
    {ST_RATE_CLIENTS, 8, 80, "CLIENTS", "CLIENTS"},
    {ST_RATE_KEYS, 13, 88, "STATE", ""},
};
enum { NCOLUMNS = sizeof(column_row) / sizeof(*column_row) };

static void
cell(char out[static 16], const struct st_rate *r, enum st_rate_key key)
{
    switch (key) {
    case ST_RATE_OPS:
        scaled(out, r->ops, " kMGT");
        break;
    case ST_RATE_SIZE:
        if (r->door)
            st_api_printable(out, 16, r->kind, 6);
        else
            st_size_format(r->size, out);
        break;
    case ST_RATE_READ:
        megabytes(out, r->read);
        break;
    case ST_RATE_WRITTEN:
        megabytes(out, r->written);
        break;
    case ST_RATE_MEAN:
        duration(out, r->mean_ns);
        break;
    case ST_RATE_P99:
        duration(out, (double)r->p99_ns);
        break;
    case ST_RATE_IN_FLIGHT:
        scaled(out, (double)r->in_flight, " kMGT");
        break;
    case ST_RATE_ERRORS:
        scaled(out, (double)r->errors, " kMGT");
        break;
    case ST_RATE_CLIENTS:
        scaled(out, (double)r->clients, " kMGT");
        break;
    case ST_RATE_NAME:
        *out = '\0';
        break;
    case ST_RATE_KEYS:
        snprintf(out, 16, "%s", r->door ? "" : r->state);
        break;
    }
    if (r->door && (key == ST_RATE_MEAN || key == ST_RATE_P99))
        *out = '\0';
}

/* ---- The screen ---- */

static int
name_width(void)
{
    int left = COLS;

    for (unsigned i = 0; i < NCOLUMNS; i++)
        if (COLS >= column_row[i].from)
            left -= column_row[i].width;
    return left < NAME_MIN ? NAME_MIN : left;
}

static void
draw_text(int y, int x, int width, const char *text)
{
    char out[4 * 512 + 2];

    st_api_printable(out, sizeof(out), text, width < 512 ? width : 512);
    mvaddstr(y, x, out);
}

static void
draw_head(const struct top *t, int y, bool door)
{
    int x = name_width();

    attron(A_REVERSE);
    mvhline(y, 0, ' ', COLS);
    if (t->key == ST_RATE_NAME)
        attron(A_BOLD | A_UNDERLINE);
    draw_text(y, 0, x, door ? "DOOR" : "DISK");
    attroff(A_BOLD | A_UNDERLINE);
    for (unsigned i = 0; i < NCOLUMNS; i++) {
        const struct column *c = &column_row[i];
        const char *head = door ? c->door : c->disk;

        if (COLS < c->from)
            continue;
        if (t->key == c->key)
            attron(A_BOLD | A_UNDERLINE);
        mvaddstr(y, x + c->width - (int)strlen(head), head);
        attroff(A_BOLD | A_UNDERLINE);
        x += c->width;
    }
    attroff(A_REVERSE);
}

static void
draw_row(const struct st_rate *r, int y)
{
    int x = name_width();
    bool odd = !r->door && strcmp(r->state, "ok") != 0 &&
               strcmp(r->state, "read-only") != 0;

    if (odd)
        attron(A_BOLD);
    draw_text(y, 0, x - 1, *r->name ? r->name : "''");
    for (unsigned i = 0; i < NCOLUMNS; i++) {
        const struct column *c = &column_row[i];
        char text[16];

        if (COLS < c->from)
            continue;
        cell(text, r, c->key);
        mvaddstr(y, x + c->width - (int)strlen(text), text);
        x += c->width;
    }
    attroff(A_BOLD);
}

static void
draw_top_line(const struct top *t)
{
    const char *version =
        json_string_value(json_object_get(t->last, "version"));
    char text[512];
    time_t now = time(NULL);
    struct tm tm;

    if (*t->err.text) {
        attron(A_BOLD);
        snprintf(text, sizeof(text), "%.400s; trying again", t->err.text);
        draw_text(0, 0, COLS, text);
        attroff(A_BOLD);
        return;
    }
    localtime_r(&now, &tm);
    snprintf(text, sizeof(text),
             "strata %.40s  %.107s  %02d:%02d:%02d  every %g s",
             version ? version : "", t->path, tm.tm_hour, tm.tm_min, tm.tm_sec,
             t->interval_ms / 1000.0);
    draw_text(0, 0, COLS, text);
}

static void
draw(struct top *t)
{
    const struct st_rates *r = &t->rates;
    unsigned room =
        LINES > HEAD_LINES + 2 ? (unsigned)LINES - HEAD_LINES - 2 : 1;
    int y = 1;
    bool door = false;

    if (t->scroll + room > r->n)
        t->scroll = r->n > room ? r->n - room : 0;
    erase();
    draw_top_line(t);
    draw_head(t, y++, door);
    for (unsigned i = t->scroll; i < r->n && y < LINES - 1; i++) {
        if (r->row[i].door && !door) {
            door = true;
            draw_head(t, y++, true);
            if (y >= LINES - 1)
                break;
        }
        draw_row(&r->row[i], y++);
    }
    attron(A_DIM);
    draw_text(LINES - 1, 0, COLS,
              "q quit   < > sort by   r reverse   up down page home end");
    attroff(A_DIM);
    refresh();
}

static void
screen_close(struct top *t)
{
    if (t->screen) {
        endwin();
        delscreen(t->screen);
    }
    if (t->signals >= 0)
        close(t->signals);
    pthread_sigmask(SIG_SETMASK, &t->old_mask, NULL);
}

/* 0 or an exit status; screen_close is due in any case. */
static int
screen_open(struct top *t)
{
    const char *term = getenv("TERM");
    sigset_t mask;
    int found;

    sigemptyset(&mask);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGQUIT);
    sigaddset(&mask, SIGWINCH);
    pthread_sigmask(SIG_BLOCK, &mask, &t->old_mask);
    t->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
    if (t->signals < 0)
        return st_cmd_fail(ST_EXIT_FAILED, "signals: %s", strerror(errno));
    /* Asked first, for newterm does not give back its memory when it fails. */
    if (setupterm(NULL, STDOUT_FILENO, &found) == OK) {
        del_curterm(cur_term);
        t->screen = newterm(NULL, stdout, stdin);
    }
    if (!t->screen)
        return st_cmd_fail(ST_EXIT_FAILED,
                           "terminal '%s' is not known here, use --once",
                           term ? term : "");
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
    return 0;
}

/* ---- Keys and signals ---- */

/* The key of the column STEP further on that is shown. */
static enum st_rate_key
next_key(enum st_rate_key now, int step)
{
    enum st_rate_key order[NCOLUMNS + 1] = {ST_RATE_NAME};
    int n = 1, at = 0;

    for (unsigned i = 0; i < NCOLUMNS; i++)
        if (COLS >= column_row[i].from && column_row[i].key != ST_RATE_KEYS)
            order[n++] = column_row[i].key;
    for (int i = 0; i < n; i++)
        if (order[i] == now)
            at = i;
    return order[(at + step + n) % n];
}

static void
take_key(struct top *t, int key)
{
    unsigned page = LINES > 4 ? (unsigned)LINES - 4 : 1;

    switch (key) {
    case 'q':
    case 'Q':
    case 27: /* escape */
        t->over = true;
        break;
    case '<':
    case KEY_LEFT:
        t->key = next_key(t->key, -1);
        break;
    case '>':
    case KEY_RIGHT:
        t->key = next_key(t->key, 1);
        break;
    case 'r':
        t->reverse = !t->reverse;
        break;
    case KEY_UP:
        t->scroll -= t->scroll > 0;
        break;
    case KEY_DOWN:
        t->scroll++;
        break;
    case KEY_PPAGE:
        t->scroll -= t->scroll < page ? t->scroll : page;
        break;
    case KEY_NPAGE:
        t->scroll += page;
        break;
    case KEY_HOME:
        t->scroll = 0;
        break;
    case KEY_END:
        t->scroll = t->rates.n;
        break;
    default:
        break;
    }
    st_rates_sort(&t->rates, t->key, t->reverse);
}

static void
take_keys(struct top *t)
{
    int key = getch();

    /* Readable, but there is nothing: the terminal has gone. */
    t->empty_reads = key == ERR ? t->empty_reads + 1 : 0;
    if (t->empty_reads == EMPTY_READS)
        t->over = true;
    for (; key != ERR; key = getch())
        take_key(t, key);
}

static void
take_signals(struct top *t)
{
    struct signalfd_siginfo info;
    struct winsize size;

    while (read(t->signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo != SIGWINCH)
            t->over = true;
        else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row &&
                 size.ws_col)
            resizeterm(size.ws_row, size.ws_col);
    }
}

/* ---- The command ---- */

/* One turn: wait for whatever comes first. */
static void
turn(struct top *t)
{
    struct pollfd fds[] = {{.fd = STDIN_FILENO}, {.fd = t->signals}};
    double left = t->next_s - clock_s();
    json_t *answer = NULL;
    int rc = 0, wait_ms;

    if (!t->under_way && left <= 0) {
        rc = st_api_start(t->api, "GET", "/v1/inspect", NULL, &t->err);
        t->under_way = rc == 0;
        t->next_s = clock_s() + t->interval_ms / 1000.0;
        left = t->interval_ms / 1000.0;
    }
    if (rc == 0) {
        wait_ms = t->under_way ? 1000 : 1 + (int)(left * 1000);
        rc = st_api_wait(t->api, fds, 2, wait_ms, &answer, &t->err);
    }
    if (rc != -EAGAIN)
        t->under_way = false;
    if (rc == 0)
        take_answer(t, answer);
    if (fds[1].revents)
        take_signals(t);
    if (fds[0].revents)
        take_keys(t);
    if (rc != -EAGAIN || fds[0].revents || fds[1].revents)
        draw(t);
}

/* Look twice, and print. */
static int
once(struct top *t)
{
    json_t *answer;
    int rc = 0;

    for (int i = 0; rc == 0 && i < 2; i++) {
        if (i)
            poll(NULL, 0, (int)t->interval_ms);
        rc = st_api_ask(t->api, "GET", "/v1/inspect", NULL, &answer, &t->err);
        if (rc == 0)
            rc = take_answer(t, answer);
    }
    if (rc < 0)
        return st_cmd_fail(ST_EXIT_FAILED, "%s", t->err.text);
    st_rates_print(stdout, &t->rates);
    return ST_EXIT_OK;
}

static int
live(struct top *t)
{
    json_t *answer;
    int status, rc;

    /* Who never answers gets no screen, but a sentence. */
    rc = st_api_ask(t->api, "GET", "/v1/inspect", NULL, &answer, &t->err);
    if (rc == 0)
        rc = take_answer(t, answer);
    if (rc < 0)
        return st_cmd_fail(ST_EXIT_FAILED, "%s", t->err.text);
    t->next_s = clock_s() + t->interval_ms / 1000.0;
    status = screen_open(t);
    if (!status)
        draw(t);
    while (!status && !t->over)
        turn(t);
    screen_close(t);
    return status;
}

static int
top_run(const struct st_cmd_args *a)
{
    struct top t = {.path = a->text[API],
                    .interval_ms = a->number[INTERVAL],
                    .key = a->number[SORT],
                    .signals = -1};
    int status;

    if (a->nrest)
        return st_cmd_fail(ST_EXIT_USAGE,
                           "one word too many: '%s', see 'strata top --help'",
                           a->rest[0]);
    if (!t.path)
        return st_cmd_fail(ST_EXIT_USAGE, "missing --api PATH, see 'strata top "
                                          "--help'");
    if (!a->text[ONCE] && !(isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)))
        return st_cmd_fail(ST_EXIT_USAGE, "this is not a terminal, use --once");
    setlocale(LC_CTYPE, "");
    if (st_api_open(t.path, &t.api, &t.err) < 0)
        return st_cmd_fail(ST_EXIT_USAGE, "%s", t.err.text);
    status = a->text[ONCE] ? once(&t) : live(&t);
    st_api_close(t.api);
    st_rates_free(&t.rates);
    json_decref(t.last);
    return status;
}

const struct st_cmd st_cmd_top = {
    .name = "top",
    .syntax = "",
    .help = "a live table of a running strata's disks and doors",
    .more = "MB are 10^6 bytes a second. MEAN is of the last interval, P99 an "
            "upper bound\nover all that the disk did. ERRORS is a total.\n",
    .options = top_options,
    .run = top_run,
};
