/* SPDX-License-Identifier: MIT
 *
 * What the server shows of itself. Control owns the list of connections and
 * frees them; what it reads of one that a worker uses is atomic, so that
 * nobody is asked and nobody waits.
 */
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "nbd_private.h"

#define SECOND UINT64_C(1000000000)

void
st_nbd_peer(int fd, char *text, size_t size)
{
    union {
        struct sockaddr any;
        struct sockaddr_storage room;
    } a = {.any.sa_family = AF_UNSPEC};
    socklen_t len = sizeof(a), ucred_len = sizeof(struct ucred);
    char host[INET6_ADDRSTRLEN + 16], port[8]; /* + %scope */
    struct ucred who;

    snprintf(text, size, "unknown");
    if (getpeername(fd, &a.any, &len) < 0)
        return;
    if (a.any.sa_family == AF_UNIX) {
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &ucred_len) == 0)
            snprintf(text, size, "unix, pid %d, uid %u", (int)who.pid,
                     (unsigned)who.uid);
    } else if (getnameinfo(&a.any, len, host, sizeof(host), port, sizeof(port),
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        snprintf(text, size, a.any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s",
                 host, port);
    }
}

static void
inspect_export(struct nbd_export *e, struct st_inspect *v)
{
    v->enter(v, e->name);
    v->text(v, "disk", st_disk_name(e->disk));
    v->text(v, "description", e->description);
    v->u64(v, "read_only", e->read_only);
    v->u64(v, "clients", e->clients);
    v->leave(v);
}

static void
inspect_conn(struct nbd_conn *c, struct st_inspect *v)
{
    uint64_t now = c->worker->server->control->now;
    struct nbd_export *e = atomic_load(&c->shown);
    char number[24];

    snprintf(number, sizeof(number), "%" PRIu64, c->number);
    v->enter(v, number);
    v->text(v, "peer", c->peer);
    if (e) /* else it is still in the handshake, or about to end */
        v->text(v, "export", e->name);
    if (atomic_load(&c->tls_shown)) {
        v->text(v, "tls", c->tls_version);
        if (c->tls_user[0])
            v->text(v, "user", c->tls_user);
    } else {
        v->text(v, "tls", "off");
    }
    v->u64(v, "requests", st_counter_get(&c->requests));
    v->u64(v, "in_flight", st_counter_get(&c->inflight));
    v->u64(v, "bytes_in", st_counter_get(&c->bytes_in));
    v->u64(v, "bytes_out", st_counter_get(&c->bytes_out));
    v->u64(v, "age", (now - c->born) / SECOND);
    v->leave(v);
}

void
st_nbd_inspect(struct st_nbd *s, struct st_inspect *v)
{
    static const char *const tls[] = {"off", "on", "require"};
    struct nbd_table *t = st_nbd_table(s);
    struct st_nbd_stats sum;
    unsigned leaving = 0;

    st_nbd_stats(s, &sum);
    for (unsigned i = 0; i < t->n; i++)
        if (t->export[i])
            t->export[i] -> clients = 0;
    st_list_for(e, tmp, &s->leaving, struct nbd_export, link) leaving++;
    st_list_for(c, tmp, &s->conns, struct nbd_conn, all)
    {
        struct nbd_export *e = atomic_load(&c->shown);

        if (e)
            e->clients++;
    }
    v->text(v, "tls", tls[s->tls]);
    v->u64(v, "clients_now", sum.clients);
    v->u64(v, "clients_total", sum.clients_total);
    v->u64(v, "requests", sum.requests);
    v->u64(v, "errors", sum.errors);
    v->u64(v, "protocol_errors", sum.protocol_errors);
    v->u64(v, "bytes_in", sum.bytes_in);
    v->u64(v, "bytes_out", sum.bytes_out);
    v->u64(v, "leaving", leaving);
    v->enter(v, "exports");
    for (unsigned i = 0; i < t->n; i++)
        if (t->export[i])
            inspect_export(t->export[i], v);
    v->leave(v);
    v->enter(v, "clients");
    st_list_for(c, tmp, &s->conns, struct nbd_conn, all) inspect_conn(c, v);
    v->leave(v);
}
