/* SPDX-License-Identifier: MIT
 *
 * Prometheus text format 0.0.4: all samples of a metric stand together, below
 * its HELP and TYPE lines, so each metric is a walk over its objects.
 *
 *   # HELP strata_disk_size_bytes Size of the disk.
 *   # TYPE strata_disk_size_bytes gauge
 *   strata_disk_size_bytes{disk="a"} 1048576
 *
 * Names and units are Prometheus' own: base units, _total for counters.
 * guide/metrics.md lists them all.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control_private.h"

enum {
    METRICS_LE_FIRST = 10, /* 1.024 us */
    METRICS_LE_LAST = 34,  /* 17.2 s */
};

struct metrics {
    FILE *out;
    struct st_graph *graph;
    const char *version;
    unsigned ndisks;
    struct metrics_disk {
        const struct st_graph_disk *d;
        struct st_disk_stats stats;
    } * disk; /* owned: one look at each disk for all metrics */
};

static void
metrics_head(struct metrics *m, const char *name, const char *type,
             const char *help)
{
    fprintf(m->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* NAME="VALUE"; what is not UTF-8 gets '?' for its odd bytes. */
static void
metrics_label(struct metrics *m, const char *name, const char *value)
{
    json_t *text = st_inspect_text(value);
    const char *p = json_string_value(text);

    fprintf(m->out, "%s=\"", name);
    for (; p && *p; p++) {
        if (*p == '\\' || *p == '"' || *p == '\n')
            fputc('\\', m->out);
        fputc(*p == '\n' ? 'n' : *p, m->out);
    }
    fputc('"', m->out);
    json_decref(text);
}

/* NS as seconds, without a loss. */
static void
metrics_seconds(struct metrics *m, uint64_t ns)
{
    fprintf(m->out, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

/* ---- Disks ---- */

#define BY_DISK(metric, type, help, value)                                     \
    do {                                                                       \
        metrics_head(m, metric, type, help);                                   \
        for (unsigned i = 0; i < m->ndisks; i++) {                             \
            const struct st_graph_disk *d = m->disk[i].d;                      \
            const struct st_disk_stats *s = &m->disk[i].stats;                 \
                                                                               \
            (void)d;                                                           \
            (void)s;                                                           \
            fputs(metric "{", m->out);                                         \
            metrics_label(m, "disk", d->name);                                 \
            fprintf(m->out, "} %" PRIu64 "\n", (uint64_t)(value));             \
        }                                                                      \
    } while (0)

static void
metrics_by_op(struct metrics *m, const char *name, const char *help,
              bool errors)
{
    metrics_head(m, name, "counter", help);
    for (unsigned i = 0; i < m->ndisks; i++)
        for (unsigned op = 0; op < ST_OP_COUNT; op++) {
            const struct st_disk_stats *s = &m->disk[i].stats;

            fprintf(m->out, "%s{", name);
            metrics_label(m, "disk", m->disk[i].d->name);
            fprintf(m->out, ",op=\"%s\"} %" PRIu64 "\n", st_inspect_ops[op],
                    errors ? s->errors[op] : s->ops[op]);
        }
}

static void
metrics_le(struct metrics *m, const struct metrics_disk *d, unsigned op,
           const char *suffix, unsigned le)
{
    fprintf(m->out, "strata_disk_operation_duration_seconds%s{", suffix);
    metrics_label(m, "disk", d->d->name);
    fprintf(m->out, ",op=\"%s\"", st_inspect_ops[op]);
    if (le > METRICS_LE_LAST) {
        fputs(",le=\"+Inf\"", m->out);
    } else if (le) {
        fputs(",le=\"", m->out);
        metrics_seconds(m, UINT64_C(1) << le);
        fputc('"', m->out);
    }
    fputs("} ", m->out);
}

/* Whatever is at most 2^I ns is in the first I buckets, for whole ns. */
static void
metrics_histogram(struct metrics *m, const struct metrics_disk *d, unsigned op)
{
    const struct st_hist *h = &d->stats.latency[op];
    uint64_t sum = 0, total = st_hist_total(h);

    for (unsigned i = 0; i <= METRICS_LE_LAST; i++) {
        sum += st_counter_get(&h->bucket[i]);
        if (i >= METRICS_LE_FIRST) {
            metrics_le(m, d, op, "_bucket", i);
            fprintf(m->out, "%" PRIu64 "\n", sum);
        }
    }
    metrics_le(m, d, op, "_bucket", METRICS_LE_LAST + 1);
    fprintf(m->out, "%" PRIu64 "\n", total);
    metrics_le(m, d, op, "_sum", 0);
    metrics_seconds(m, st_counter_get(&h->sum));
    fputc('\n', m->out);
    metrics_le(m, d, op, "_count", 0);
    fprintf(m->out, "%" PRIu64 "\n", total);
}

static void
metrics_disks(struct metrics *m)
{
    uint64_t now = st_graph_control(m->graph)->now;

    metrics_by_op(m, "strata_disk_operations_total",
                  "Operations that completed, also with an error.", false);
    metrics_by_op(m, "strata_disk_errors_total",
                  "Operations that completed with an error.", true);
    BY_DISK("strata_disk_read_bytes_total", "counter", "Bytes read.",
            s->bytes_read);
    BY_DISK("strata_disk_written_bytes_total", "counter", "Bytes written.",
            s->bytes_written);
    BY_DISK("strata_disk_bounced_bytes_total", "counter",
            "Bytes that went through bounce buffers.", s->bounced);
    BY_DISK("strata_disk_emulated_operations_total", "counter",
            "Operations that the root carried out for the tree.", s->emulated);
    BY_DISK("strata_disk_retries_total", "counter",
            "Tries again by the error policy.", s->retried);
    BY_DISK("strata_disk_in_flight", "gauge", "Operations under way.",
            s->in_flight);
    metrics_head(m, "strata_disk_oldest_request_age_seconds", "gauge",
                 "Age of the oldest operation under way; 0: there is none.");
    for (unsigned i = 0; i < m->ndisks; i++) {
        uint64_t start = m->disk[i].stats.oldest_ns;

        fputs("strata_disk_oldest_request_age_seconds{", m->out);
        metrics_label(m, "disk", m->disk[i].d->name);
        fputs("} ", m->out);
        metrics_seconds(m, start && start < now ? now - start : 0);
        fputc('\n', m->out);
    }
    BY_DISK("strata_disk_size_bytes", "gauge", "Size of the disk.",
            st_disk_size(d->disk));
    BY_DISK("strata_disk_read_only", "gauge", "1: it cannot be written.",
            st_disk_props(d->disk)->read_only);
    BY_DISK("strata_disk_stopped", "gauge",
            "1: the error policy has stopped it.", s->stopped);
    BY_DISK("strata_disk_paused", "gauge", "1: the verb pause has stopped it.",
            d->paused);
    BY_DISK("strata_disk_flush_failed", "gauge",
            "1: a flush has failed, what was written before it may be lost.",
            s->flush_failed);
    metrics_head(m, "strata_disk_operation_duration_seconds", "histogram",
                 "Time from submission to completion, of operations that there "
                 "were.");
    for (unsigned i = 0; i < m->ndisks; i++)
        for (unsigned op = 0; op < ST_OP_COUNT; op++)
            if (m->disk[i].stats.ops[op])
                metrics_histogram(m, &m->disk[i], op);
}

/* ---- Doors ---- */

static void
metrics_by_door(struct metrics *m, const char *name, const char *type,
                const char *help, size_t field)
{
    const struct st_graph_door *d = NULL;

    metrics_head(m, name, type, help);
    while ((d = st_graph_next_door(m->graph, d))) {
        struct st_nbd_stats s;
        uint64_t value;

        st_nbd_stats(d->nbd, &s);
        memcpy(&value, (const char *)&s + field, sizeof(value));
        fprintf(m->out, "%s{", name);
        metrics_label(m, "door", d->name);
        fprintf(m->out, "} %" PRIu64 "\n", value);
    }
}

/* What a door says of its exports and clients is in the tree. */
static void
metrics_exports(struct metrics *m, json_t *doors)
{
    const char *door, *name;
    json_t *d, *e;

    metrics_head(m, "strata_export_clients", "gauge",
                 "Clients that have chosen this export.");
    json_object_foreach(doors, door, d)
    {
        json_object_foreach(json_object_get(d, "exports"), name, e)
        {
            json_t *disk = json_object_get(e, "disk");

            fputs("strata_export_clients{", m->out);
            metrics_label(m, "door", door);
            fputc(',', m->out);
            metrics_label(m, "export", name);
            fputc(',', m->out);
            metrics_label(m, "disk",
                          json_is_string(disk) ? json_string_value(disk) : "");
            fprintf(m->out, "} %" JSON_INTEGER_FORMAT "\n",
                    json_integer_value(json_object_get(e, "clients")));
        }
    }
}

static void
metrics_client(struct metrics *m, json_t *doors, const char *name,
               const char *type, const char *help, const char *key)
{
    const char *door, *number;
    json_t *d, *c;

    metrics_head(m, name, type, help);
    json_object_foreach(doors, door, d)
    {
        json_object_foreach(json_object_get(d, "clients"), number, c)
        {
            json_t *export = json_object_get(c, "export");

            fprintf(m->out, "%s{", name);
            metrics_label(m, "door", door);
            fputc(',', m->out);
            metrics_label(m, "client", number);
            fputc(',', m->out);
            metrics_label(m, "export",
                          json_is_string(export) ? json_string_value(export)
                                                 : "");
            fprintf(m->out, "} %" JSON_INTEGER_FORMAT "\n",
                    json_integer_value(json_object_get(c, key)));
        }
    }
}

static void
metrics_doors(struct metrics *m)
{
    static const char *const path[] = {"doors"};
    const struct st_control_path p = {.n = 1, .segment = {path[0]}};
    struct st_err err;
    json_t *doors =
        st_inspect_path(m->graph, m->version, &p, ST_CONTROL_DEPTH, &err);

    metrics_by_door(m, "strata_door_clients", "gauge", "Clients now.",
                    offsetof(struct st_nbd_stats, clients));
    metrics_by_door(m, "strata_door_connections_total", "counter",
                    "Clients that there have been.",
                    offsetof(struct st_nbd_stats, clients_total));
    metrics_by_door(m, "strata_door_requests_total", "counter",
                    "Requests of clients.",
                    offsetof(struct st_nbd_stats, requests));
    metrics_by_door(m, "strata_door_errors_total", "counter",
                    "Requests that were answered with an error.",
                    offsetof(struct st_nbd_stats, errors));
    metrics_by_door(m, "strata_door_protocol_errors_total", "counter",
                    "Breaches of the protocol by clients.",
                    offsetof(struct st_nbd_stats, protocol_errors));
    metrics_by_door(m, "strata_door_received_bytes_total", "counter",
                    "Bytes from clients.",
                    offsetof(struct st_nbd_stats, bytes_in));
    metrics_by_door(m, "strata_door_sent_bytes_total", "counter",
                    "Bytes to clients.",
                    offsetof(struct st_nbd_stats, bytes_out));
    metrics_exports(m, doors);
    metrics_client(m, doors, "strata_client_in_flight", "gauge",
                   "Requests of a connected client under way.", "in_flight");
    metrics_client(m, doors, "strata_client_requests_total", "counter",
                   "Requests of a connected client.", "requests");
    metrics_client(m, doors, "strata_client_received_bytes_total", "counter",
                   "Bytes from a connected client.", "bytes_in");
    metrics_client(m, doors, "strata_client_sent_bytes_total", "counter",
                   "Bytes to a connected client.", "bytes_out");
    json_decref(doors);
}

/* ---- Controllers ---- */

/* What a controller says of itself, and its door of itself, is in the tree. */
static void
metrics_controllers(struct metrics *m)
{
    static const struct {
        const char *dir, *key, *name, *type, *help;
    } rows[] = {
        {"vfio-user", "connected", "strata_controller_connected", "gauge",
         "1: a virtual machine is there."},
        {"vfio-user", "clients_total", "strata_controller_connections_total",
         "counter", "Virtual machines that there have been."},
        {"vfio-user", "messages", "strata_controller_messages_total", "counter",
         "Messages of virtual machine monitors."},
        {"vfio-user", "protocol_errors",
         "strata_controller_protocol_errors_total", "counter",
         "Clients that were dropped for what they sent."},
        {NULL, "commands", "strata_controller_commands_total", "counter",
         "Commands that were fetched."},
        {NULL, "doorbells", "strata_controller_doorbells_total", "counter",
         "Doorbells that were rung by a message."},
        {NULL, "interrupts", "strata_controller_interrupts_total", "counter",
         "Interrupts that were raised."},
        {NULL, "aborts", "strata_controller_aborts_total", "counter",
         "Commands that the guest gave up."},
        {NULL, "resets", "strata_controller_resets_total", "counter",
         "Resets of the controller."},
        {NULL, "orphans", "strata_controller_orphans", "gauge",
         "Requests that a reset did not wait for and that are still out."},
    };
    static const char *const path[] = {"controllers"};
    const struct st_control_path p = {.n = 1, .segment = {path[0]}};
    struct st_err err;
    json_t *all =
        st_inspect_path(m->graph, m->version, &p, ST_CONTROL_DEPTH, &err);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *name;
        json_t *c;

        metrics_head(m, rows[i].name, rows[i].type, rows[i].help);
        json_object_foreach(all, name, c)
        {
            json_t *o = rows[i].dir ? json_object_get(c, rows[i].dir) : c;
            json_t *value = json_object_get(o, rows[i].key);

            if (!json_is_integer(value))
                continue;
            fprintf(m->out, "%s{", rows[i].name);
            metrics_label(m, "controller", name);
            fprintf(m->out, "} %" JSON_INTEGER_FORMAT "\n",
                    json_integer_value(value));
        }
    }
    json_decref(all);
}

/* ---- The process ---- */

static void
metrics_caps(struct metrics *m)
{
    static const struct {
        const char *name, *type, *help;
        size_t field;
    } kinds[] = {
        {"strata_cap_used", "gauge", "Units of the cap that are taken.",
         offsetof(struct st_cap_row, used)},
        {"strata_cap_peak", "gauge", "The most that ever was.",
         offsetof(struct st_cap_row, peak)},
        {"strata_cap_limit", "gauge", "Units that the cap has.",
         offsetof(struct st_cap_row, limit)},
        {"strata_cap_refused_total", "counter",
         "Times that there was not enough.",
         offsetof(struct st_cap_row, refused)},
    };
    struct st_caps *caps = st_domain_caps(st_graph_control(m->graph)->domain);

    for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        metrics_head(m, kinds[k].name, kinds[k].type, kinds[k].help);
        for (unsigned i = 0; i < ST_CAP_COUNT; i++)
            fprintf(m->out, "%s{cap=\"%s\",unit=\"%s\"} %" PRIu64 "\n",
                    kinds[k].name, caps->row[i].name, caps->row[i].unit,
                    atomic_load((_Atomic uint64_t *)((char *)&caps->row[i] +
                                                     kinds[k].field)));
    }
}

/* What the graph says of itself. */
static void
metrics_graph(struct metrics *m)
{
    static const struct {
        const char *key, *name, *type, *help;
    } rows[] = {
        {"edits_done", "strata_graph_edits_total", "counter",
         "Edits that ended, also with a failure."},
        {"edits_failed", "strata_graph_edits_failed_total", "counter",
         "Edits that failed."},
        {"edits_waiting", "strata_graph_edits_waiting", "gauge",
         "Edits that wait for those before them."},
        {"edits_under_way", "strata_graph_edits_under_way", "gauge",
         "Edits under way, also those that nobody waits for any more."},
    };
    static const char *const path[] = {"graph"};
    const struct st_control_path p = {.n = 1, .segment = {path[0]}};
    struct st_err err;
    json_t *o =
        st_inspect_path(m->graph, m->version, &p, ST_CONTROL_DEPTH, &err);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *value = json_object_get(o, rows[i].key);

        if (!value)
            continue;
        metrics_head(m, rows[i].name, rows[i].type, rows[i].help);
        fprintf(m->out, "%s %" JSON_INTEGER_FORMAT "\n", rows[i].name,
                json_integer_value(value));
    }
    json_decref(o);
}

/* One look at each disk. False: no memory. */
static bool
metrics_look(struct metrics *m)
{
    const struct st_graph_disk *d = NULL;
    unsigned n = 0;

    while ((d = st_graph_next_disk(m->graph, d)))
        n += st_inspect_shown(m->graph, d);
    m->disk = calloc(n ? n : 1, sizeof(*m->disk));
    if (!m->disk)
        return false;
    for (d = NULL; m->ndisks < n && (d = st_graph_next_disk(m->graph, d));)
        if (st_inspect_shown(m->graph, d)) {
            m->disk[m->ndisks].d = d;
            st_disk_stats(d->disk, &m->disk[m->ndisks++].stats);
        }
    return true;
}

char *
st_metrics_text(struct st_graph *g, const char *version, size_t *len)
{
    struct metrics m = {.graph = g, .version = version};
    char *text = NULL;
    bool bad;

    m.out = open_memstream(&text, len);
    if (!m.out)
        return NULL;
    metrics_head(&m, "strata_build_info", "gauge",
                 "Always 1; the labels say what runs.");
    fputs("strata_build_info{", m.out);
    metrics_label(&m, "version", version);
    fputc(',', m.out);
    metrics_label(&m, "engine", st_domain_engine(st_graph_control(g)->domain));
    fputs("} 1\n", m.out);
    bad = !metrics_look(&m);
    if (!bad) {
        metrics_disks(&m);
        metrics_doors(&m);
        metrics_controllers(&m);
        metrics_caps(&m);
        metrics_graph(&m);
    }
    free(m.disk);
    bad |= ferror(m.out);
    if (fclose(m.out) || bad) {
        free(text);
        return NULL;
    }
    return text;
}
