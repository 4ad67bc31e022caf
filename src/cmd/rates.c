/* SPDX-License-Identifier: MIT
 *
 * What disks and doors did between two answers; see rates.h.
 */
#include "rates.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

static uint64_t
number(json_t *o, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(o, name));

    return n > 0 ? (uint64_t)n : 0;
}

static const char *
text(json_t *o, const char *name, const char *missing)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s ? s : missing;
}

/* How much NAME grew. */
static uint64_t
grown(json_t *before, json_t *now, const char *name)
{
    uint64_t a = number(before, name), b = number(now, name);

    return json_object_get(before, name) && b > a ? b - a : 0;
}

static const char *
disk_state(json_t *d)
{
    static const char *const flags[][2] = {{"flush_failed", "flush-failed"},
                                           {"stopped", "stopped"},
                                           {"leaving", "leaving"},
                                           {"paused", "paused"},
                                           {"is_read_only", "read-only"}};

    for (unsigned i = 0; i < sizeof(flags) / sizeof(*flags); i++)
        if (number(d, flags[i][0]))
            return flags[i][1];
    return "ok";
}

static void
disk_row(struct st_rate *r, const char *name, json_t *before, json_t *now,
         double seconds)
{
    static const char *const ops[] = {"reads",  "writes",       "flushes",
                                      "unmaps", "write_zeroes", "block_status"};
    json_t *was = json_object_get(before, "latency"), *value;
    uint64_t done = 0, ended = 0, ns = 0;
    const char *op;

    for (unsigned i = 0; i < sizeof(ops) / sizeof(*ops); i++)
        done += grown(before, now, ops[i]);
    *r = (struct st_rate){
        .name = name,
        .kind = text(json_object_get(now, "backend"), "kind", "-"),
        .state = disk_state(now),
        .ops = (double)done / seconds,
        .read = (double)grown(before, now, "bytes_read") / seconds,
        .written = (double)grown(before, now, "bytes_written") / seconds,
        .size = number(now, "size"),
        .in_flight = number(now, "in_flight"),
    };
    json_object_foreach(json_object_get(now, "latency"), op, value)
    {
        json_t *old = json_object_get(was, op);
        uint64_t p99 = number(value, "p99_ns");

        ended += grown(old, value, "count");
        ns += grown(old, value, "sum_ns");
        r->p99_ns = p99 > r->p99_ns ? p99 : r->p99_ns;
    }
    r->mean_ns = ended ? (double)ns / (double)ended : 0;
    json_object_foreach(json_object_get(now, "errors"), op, value) r->errors +=
        number(json_object_get(now, "errors"), op);
}

static void
door_row(struct st_rate *r, const char *name, json_t *before, json_t *now,
         double seconds)
{
    json_t *value;
    const char *key;

    *r = (struct st_rate){
        .name = name,
        .kind = text(now, "kind", "-"),
        .state = "ok",
        .door = true,
        .ops = (double)grown(before, now, "requests") / seconds,
        .read = (double)grown(before, now, "bytes_out") / seconds,
        .written = (double)grown(before, now, "bytes_in") / seconds,
        .errors = number(now, "errors") + number(now, "protocol_errors"),
    };
    json_object_foreach(json_object_get(now, "clients"), key, value)
    {
        r->clients++;
        r->in_flight += number(value, "in_flight");
    }
}

/* A controller is a door of one client. */
static void
controller_row(struct st_rate *r, const char *name, json_t *before, json_t *now,
               double seconds)
{
    json_t *door = json_object_get(now, "vfio-user");
    uint64_t begun = number(now, "commands"),
             ended = number(now, "completions");

    *r = (struct st_rate){
        .name = name,
        .kind = text(now, "kind", "-"),
        .state = text(now, "state", "ok"),
        .door = true,
        .ops = (double)grown(before, now, "commands") / seconds,
        .in_flight = begun > ended ? begun - ended : 0,
        .errors =
            number(now, "protocol_errors") + number(door, "protocol_errors"),
        .clients = number(door, "connected"),
    };
}

/* N clients more have DISK, if it is one. */
static void
count_client(struct st_rates *r, unsigned ndisks, const char *disk, uint64_t n)
{
    for (unsigned i = 0; disk && i < ndisks; i++)
        if (strcmp(r->row[i].name, disk) == 0)
            r->row[i].clients += n;
}

/* Count the clients of DOOR's exports at their disks. */
static void
count_clients(struct st_rates *r, unsigned ndisks, json_t *door)
{
    json_t *export;
    const char *name;

    json_object_foreach(json_object_get(door, "exports"), name, export)
    {
        count_client(r, ndisks, text(export, "disk", NULL),
                     number(export, "clients"));
    }
}

int
st_rates_make(json_t *before, json_t *now, double seconds, struct st_rates *out)
{
    json_t *before_doors = json_object_get(before, "doors");
    json_t *disks = json_object_get(now, "disks"), *value;
    json_t *doors = json_object_get(now, "doors");
    json_t *before_controllers = json_object_get(before, "controllers");
    json_t *controllers = json_object_get(now, "controllers"), *ns;
    size_t n = json_object_size(disks) + json_object_size(doors) +
               json_object_size(controllers);
    unsigned ndisks;
    const char *name;

    *out = (struct st_rates){.row = calloc(n ? n : 1, sizeof(*out->row))};
    if (!out->row)
        return -ENOMEM;
    out->now = json_incref(now);
    if (!(seconds > 0))
        seconds = 1;
    before = json_object_get(before, "disks");
    json_object_foreach(disks, name, value)
    {
        disk_row(&out->row[out->n++], name, json_object_get(before, name),
                 value, seconds);
    }
    ndisks = out->n;
    json_object_foreach(doors, name, value)
    {
        door_row(&out->row[out->n++], name, json_object_get(before_doors, name),
                 value, seconds);
        count_clients(out, ndisks, value);
    }
    json_object_foreach(controllers, name, value)
    {
        const char *nsid;

        controller_row(&out->row[out->n++], name,
                       json_object_get(before_controllers, name), value,
                       seconds);
        json_object_foreach(json_object_get(value, "namespaces"), nsid, ns)
        {
            count_client(out, ndisks, text(ns, "disk", NULL),
                         out->row[out->n - 1].clients);
        }
    }
    return 0;
}

void
st_rates_free(struct st_rates *r)
{
    free(r->row);
    json_decref(r->now);
    *r = (struct st_rates){0};
}

/* ---- Order ---- */

struct order {
    enum st_rate_key key;
    bool reverse;
};

static double
sort_value(const struct st_rate *r, enum st_rate_key key)
{
    switch (key) {
    case ST_RATE_OPS:
        return r->ops;
    case ST_RATE_SIZE:
        return (double)r->size;
    case ST_RATE_READ:
        return r->read;
    case ST_RATE_WRITTEN:
        return r->written;
    case ST_RATE_MEAN:
        return r->mean_ns;
    case ST_RATE_P99:
        return (double)r->p99_ns;
    case ST_RATE_IN_FLIGHT:
        return (double)r->in_flight;
    case ST_RATE_ERRORS:
        return (double)r->errors;
    case ST_RATE_CLIENTS:
        return (double)r->clients;
    case ST_RATE_NAME:
    case ST_RATE_KEYS:
        break;
    }
    return 0;
}

static int
compare(const void *a, const void *b, void *arg)
{
    const struct st_rate *x = a, *y = b;
    const struct order *o = arg;
    double u = sort_value(x, o->key), v = sort_value(y, o->key);
    int name = strcmp(x->name, y->name), way = o->reverse ? -1 : 1;

    if (x->door != y->door)
        return x->door ? 1 : -1;
    if (u != v)
        return u > v ? -way : way;
    return o->key == ST_RATE_NAME ? name * way : name;
}

void
st_rates_sort(struct st_rates *r, enum st_rate_key key, bool reverse)
{
    struct order o = {key, reverse};

    qsort_r(r->row, r->n, sizeof(*r->row), compare, &o);
}

/* ---- For programs ---- */

void
st_rates_print(FILE *out, const struct st_rates *r)
{
    enum { COLUMNS = 4096 };

    fprintf(out,
            "%-4s %9s %11s %11s %11s %11s %9s %8s %7s %14s %-12s %-9s %s\n",
            "type", "ops/s", "read_B/s", "write_B/s", "mean_ns", "p99_ns",
            "in_flight", "errors", "clients", "size", "state", "kind", "name");
    for (unsigned i = 0; i < r->n; i++) {
        const struct st_rate *x = &r->row[i];
        char name[COLUMNS * 4 + 2], kind[64];

        st_api_printable(name, sizeof(name), x->name, COLUMNS);
        st_api_printable(kind, sizeof(kind), x->kind, 15);
        for (char *p = kind; *p; p++)
            *p = *p == ' ' ? '_' : *p;
        fprintf(out,
                "%-4s %9.1f %11.0f %11.0f %11.0f %11" PRIu64 " %9" PRIu64
                " %8" PRIu64 " %7" PRIu64 " %14" PRIu64 " %-12s %-9s %s\n",
                x->door ? "door" : "disk", x->ops, x->read, x->written,
                x->mean_ns, x->p99_ns, x->in_flight, x->errors, x->clients,
                x->size, x->state, kind, name);
    }
}
