/* SPDX-License-Identifier: MIT
 *
 * The fixed newstyle handshake (proto.md, "Newstyle negotiation" and "Option
 * types"): options and their replies, until a client has chosen an export.
 *
 *   HELLO --client flags--> OPTION --header--> DATA --> reply --> OPTION ...
 *                             |  too long                  \
 *                             +----------> SKIP             GO, EXPORT_NAME:
 *                                                           SERVE
 *                                         STARTTLS: TLS --> OPTION
 *
 * An option is looked at when its data lie together; the next one is not read
 * before the replies to the last are sent. Thus STARTTLS is answered before TLS
 * begins, and what a client sends behind it unasked ends the connection: nobody
 * can put words into the mouth of a client that is about to be known.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbd_private.h"

static const char base_allocation[] = "base:allocation";

/* ---- Saying ---- */

static void
say(struct nbd_conn *c, const void *p, size_t len)
{
    struct nbd_text *t = &c->text;

    if (c->dead)
        return;
    if (t->room - t->len < len) {
        size_t room = 2 * (t->len + len);
        uint8_t *data = realloc(t->data, room);

        if (!data) {
            st_nbd_conn_fail(c, NULL);
            return;
        }
        t->data = data;
        t->room = room;
    }
    if (len)
        memcpy(t->data + t->len, p, len);
    t->len += len;
    st_nbd_conn_dirty(c);
}

static void
say_be32(struct nbd_conn *c, uint32_t v)
{
    be32 b = be32_of(v);

    say(c, &b, sizeof(b));
}

static void
say_be16(struct nbd_conn *c, uint16_t v)
{
    be16 b = be16_of(v);

    say(c, &b, sizeof(b));
}

static void
say_be64(struct nbd_conn *c, uint64_t v)
{
    be64 b = be64_of(v);

    say(c, &b, sizeof(b));
}

/* The head of a reply to the present option, with LEN bytes to follow. */
static void
reply(struct nbd_conn *c, uint32_t type, size_t len)
{
    struct nbd_option_reply r = {
        .magic = be64_of(NBD_REPLY_MAGIC),
        .option = be32_of(c->option),
        .type = be32_of(type),
        .len = be32_of((uint32_t)len),
    };

    say(c, &r, sizeof(r));
}

static void
ack(struct nbd_conn *c)
{
    c->fruitless = 0;
    reply(c, NBD_REP_ACK, 0);
}

static void
refuse(struct nbd_conn *c, uint32_t type, const char *text)
{
    reply(c, type, strlen(text));
    say(c, text, strlen(text));
    if (++c->fruitless >= NBD_OPTION_ERRORS)
        st_nbd_conn_fail(c, "handshake makes no progress");
}

void
st_nbd_hello(struct nbd_conn *c)
{
    struct nbd_hello h = {
        .magic = be64_of(NBD_MAGIC),
        .option_magic = be64_of(NBD_OPTION_MAGIC),
        .flags = be16_of(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES),
    };

    say(c, &h, sizeof(h));
}

/* ---- Understanding ---- */

/* An option's data, taken from the front. */
struct words {
    const uint8_t *p;
    size_t left;
    bool bad; /* asked for more than there was */
};

static const uint8_t *
take(struct words *w, size_t n)
{
    const uint8_t *p = w->p;

    if (w->bad || n > w->left) {
        w->bad = true;
        return NULL;
    }
    w->p += n;
    w->left -= n;
    return p;
}

static uint32_t
take_be32(struct words *w)
{
    const uint8_t *p = take(w, 4);
    be32 v = {{0}};

    if (p)
        memcpy(&v, p, sizeof(v));
    return be32_get(v);
}

static uint16_t
take_be16(struct words *w)
{
    const uint8_t *p = take(w, 2);
    be16 v = {{0}};

    if (p)
        memcpy(&v, p, sizeof(v));
    return be16_get(v);
}

/* A string with its length before it. */
static const uint8_t *
take_string(struct words *w, size_t *len)
{
    *len = take_be32(w);
    return take(w, *len);
}

/* ---- Exports ---- */

static uint16_t
export_flags(struct nbd_conn *c, struct nbd_export *e)
{
    const struct st_props *p = st_disk_props(e->disk);
    unsigned f = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA |
                 NBD_CAN_MULTI_CONN | NBD_SEND_CACHE;

    if (p->rotational)
        f |= NBD_ROTATIONAL;
    if (c->structured)
        f |= NBD_SEND_DF;
    if (e->read_only)
        return (uint16_t)(f | NBD_READ_ONLY);
    if (p->performs & ST_BIT(ST_OP_UNMAP))
        f |= NBD_SEND_TRIM;
    if (p->performs & ST_BIT(ST_OP_WRITE_ZEROES))
        f |= NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
    return (uint16_t)f;
}

/* Make C's port to E, the last thing that can fail. */
static bool
choose(struct nbd_conn *c, struct nbd_export *e)
{
    c->port = st_nbd_port_get(c->worker, e);
    if (!c->port)
        return false;
    c->export = e;
    atomic_store(&c->shown, e);
    c->tflags = export_flags(c, e);
    if (c->meta_export != e->id)
        c->meta = false;
    return true;
}

static void
serve(struct nbd_conn *c)
{
    st_timer_stop(c->worker->loop, &c->timer);
    free(c->large);
    c->large = NULL;
    c->state = NBD_STATE_SERVE;
}

static void
do_export_name(struct nbd_conn *c, const uint8_t *name, size_t len)
{
    static const uint8_t zeroes[124];
    struct nbd_export *e = st_nbd_find(c->worker->server, name, len);

    /* No error can be told; and extended headers forbid this option. */
    if (!e || c->extended || c->worker->stopping || !choose(c, e)) {
        st_nbd_conn_fail(c, NULL);
        return;
    }
    say_be64(c, st_disk_size(e->disk));
    say_be16(c, c->tflags);
    if (!c->no_zeroes)
        say(c, zeroes, sizeof(zeroes));
    serve(c);
}

static void
do_list(struct nbd_conn *c)
{
    struct nbd_table *t = st_nbd_table(c->worker->server);

    for (unsigned i = 0; i < t->n; i++) {
        struct nbd_export *e = t->export[i];
        size_t len;

        if (!e)
            continue;
        len = strlen(e->description);
        reply(c, NBD_REP_SERVER, 4 + e->name_len + len);
        say_be32(c, (uint32_t)e->name_len);
        say(c, e->name, e->name_len);
        say(c, e->description, len);
    }
    ack(c);
}

static void
info_text(struct nbd_conn *c, enum nbd_info info, const char *text)
{
    reply(c, NBD_REP_INFO, 2 + strlen(text));
    say_be16(c, (uint16_t)info);
    say(c, text, strlen(text));
}

static void
do_info(struct nbd_conn *c, struct words w)
{
    const struct st_props *props;
    struct nbd_export *e;
    unsigned wanted = 0, n;
    size_t len;
    const uint8_t *name = take_string(&w, &len);

    for (n = take_be16(&w); n && !w.bad; n--) {
        unsigned info = take_be16(&w);

        if (info <= NBD_INFO_BLOCK_SIZE)
            wanted |= 1u << info;
    }
    if (w.bad || w.left) {
        refuse(c, NBD_REP_ERR_INVALID, "option data do not add up");
        return;
    }
    if (len > NBD_NAME_MAX) {
        refuse(c, NBD_REP_ERR_TOO_BIG, "name is too long");
        return;
    }
    e = st_nbd_find(c->worker->server, name, len);
    if (!e) {
        refuse(c, NBD_REP_ERR_UNKNOWN, "no such export");
        return;
    }
    if (c->option == NBD_OPT_GO && !choose(c, e)) {
        refuse(c, NBD_REP_ERR_PLATFORM, "export cannot be opened now");
        return;
    }
    reply(c, NBD_REP_INFO, 12);
    say_be16(c, NBD_INFO_EXPORT);
    say_be64(c, st_disk_size(e->disk));
    say_be16(c, export_flags(c, e));
    if (wanted & 1u << NBD_INFO_NAME)
        info_text(c, NBD_INFO_NAME, e->name);
    if (wanted & 1u << NBD_INFO_DESCRIPTION && e->description[0])
        info_text(c, NBD_INFO_DESCRIPTION, e->description);
    if (wanted & 1u << NBD_INFO_BLOCK_SIZE) {
        props = st_disk_props(e->disk);
        reply(c, NBD_REP_INFO, 14);
        say_be16(c, NBD_INFO_BLOCK_SIZE);
        say_be32(c, 1); /* the root reads, modifies and writes */
        say_be32(c, (uint32_t)st_max(4096, props->physical_sector_size));
        say_be32(c, NBD_PAYLOAD_MAX);
    }
    ack(c);
    if (c->option == NBD_OPT_GO)
        serve(c);
}

/* LIST and SET_META_CONTEXT (proto.md, "Metadata querying"). */
static void
do_meta(struct nbd_conn *c, struct words w)
{
    bool set = c->option == NBD_OPT_SET_META_CONTEXT, match;
    struct nbd_export *e;
    bool big = false;
    size_t len;
    const uint8_t *name = take_string(&w, &len);
    uint32_t n = take_be32(&w);

    if (set)
        c->meta = false; /* even when this fails */
    match = !set && n == 0;
    for (big = len > NBD_NAME_MAX; n && !w.bad; n--) {
        size_t qlen;
        const uint8_t *q = take_string(&w, &qlen);

        if (w.bad)
            break;
        big |= qlen > NBD_NAME_MAX;
        match |= qlen == strlen(base_allocation) &&
                 memcmp(q, base_allocation, qlen) == 0;
        match |= !set && qlen == 5 && memcmp(q, "base:", 5) == 0;
    }
    if (!c->structured) {
        refuse(c, NBD_REP_ERR_INVALID, "negotiate structured replies first");
        return;
    }
    if (w.bad || w.left) {
        refuse(c, NBD_REP_ERR_INVALID, "option data do not add up");
        return;
    }
    if (big) {
        refuse(c, NBD_REP_ERR_TOO_BIG, "name or query is too long");
        return;
    }
    e = st_nbd_find(c->worker->server, name, len);
    if (!e) {
        refuse(c, NBD_REP_ERR_UNKNOWN, "no such export");
        return;
    }
    if (!(st_disk_props(e->disk)->performs & ST_BIT(ST_OP_BLOCK_STATUS)))
        match = false;
    if (match) {
        reply(c, NBD_REP_META_CONTEXT, 4 + strlen(base_allocation));
        say_be32(c, set ? NBD_CONTEXT : 0);
        say(c, base_allocation, strlen(base_allocation));
    }
    if (set) {
        c->meta = match;
        c->meta_export = e->id;
    }
    ack(c);
}

static void
do_starttls(struct nbd_conn *c, size_t len)
{
    if (c->worker->server->tls == ST_NBD_TLS_OFF) {
        refuse(c, NBD_REP_ERR_POLICY, "TLS is not in use here");
    } else if (c->secure || len) {
        refuse(c, NBD_REP_ERR_INVALID,
               len ? "option takes no data" : "TLS is in use already");
    } else if (c->worker->stopping) {
        refuse(c, NBD_REP_ERR_SHUTDOWN, "server is shutting down");
    } else if (!st_nbd_tls_start(c)) {
        refuse(c, NBD_REP_ERR_PLATFORM, "no memory for TLS");
    } else {
        ack(c);
        c->state = NBD_STATE_TLS;
    }
}

void
st_nbd_secured(struct nbd_conn *c)
{
    c->state = NBD_STATE_OPTION;
    c->structured = c->extended = c->meta = false;
    c->fruitless = 0;
}

/* Must C say STARTTLS first? */
static bool
tls_required(const struct nbd_conn *c)
{
    return c->worker->server->tls == ST_NBD_TLS_REQUIRE && !c->secure &&
           c->option != NBD_OPT_STARTTLS && c->option != NBD_OPT_ABORT;
}

/* An option whose LEN bytes of data lie at P. */
static void
option(struct nbd_conn *c, const uint8_t *p, size_t len)
{
    struct words w = {.p = p, .left = len};

    if (tls_required(c)) {
        if (c->option == NBD_OPT_EXPORT_NAME) /* no error can be told */
            st_nbd_conn_fail(c, "asks for an export before TLS");
        else
            refuse(c, NBD_REP_ERR_TLS_REQD, "TLS is required first");
        return;
    }
    switch ((enum nbd_opt)c->option) {
    case NBD_OPT_EXPORT_NAME:
        do_export_name(c, p, len);
        return;
    case NBD_OPT_ABORT:
        ack(c);
        c->deaf = true; /* closed once that is sent */
        return;
    case NBD_OPT_LIST:
    case NBD_OPT_STRUCTURED_REPLY:
    case NBD_OPT_EXTENDED_HEADERS:
        if (len) {
            refuse(c, NBD_REP_ERR_INVALID, "option takes no data");
            return;
        }
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        break;
    case NBD_OPT_STARTTLS:
        do_starttls(c, len);
        return;
    default:
        refuse(c, NBD_REP_ERR_UNSUP, "option is not supported");
        return;
    }
    if (c->worker->stopping) {
        refuse(c, NBD_REP_ERR_SHUTDOWN, "server is shutting down");
    } else if (c->option == NBD_OPT_LIST) {
        do_list(c);
    } else if (c->option == NBD_OPT_STRUCTURED_REPLY) {
        if (c->extended) {
            refuse(c, NBD_REP_ERR_EXT_HEADER_REQD,
                   "extended headers are in use");
            return;
        }
        c->structured = true;
        ack(c);
    } else if (c->option == NBD_OPT_EXTENDED_HEADERS) {
        c->structured = c->extended = true;
        ack(c);
    } else if (c->option == NBD_OPT_INFO || c->option == NBD_OPT_GO) {
        do_info(c, w);
    } else {
        do_meta(c, w);
    }
}

/* An option's header. */
static void
option_header(struct nbd_conn *c, const uint8_t *p)
{
    struct nbd_option h;

    memcpy(&h, p, sizeof(h));
    c->option = be32_get(h.option);
    c->option_len = be32_get(h.len);
    if (be64_get(h.magic) != NBD_OPTION_MAGIC) {
        st_nbd_conn_fail(c, "bad option magic");
    } else if (c->option_len > NBD_OPTION_SKIP_MAX) {
        st_nbd_conn_fail(c, "option is longer than 16 MiB");
    } else if (c->option == NBD_OPT_EXPORT_NAME &&
               c->option_len > NBD_NAME_MAX) {
        st_nbd_conn_fail(c, "export name is too long");
    } else if (c->option_len > NBD_OPTION_MAX) {
        c->discard = c->option_len;
        c->state = NBD_STATE_SKIP;
    } else {
        c->state = NBD_STATE_DATA;
    }
}

size_t
st_nbd_handshake(struct nbd_conn *c, const uint8_t *p, size_t n)
{
    const uint8_t *at = p, *end = p + n, *q;
    be32 flags;

    while (!c->deaf && c->state != NBD_STATE_SERVE) {
        if (c->text.len && c->state != NBD_STATE_HELLO)
            break; /* replies first */
        switch (c->state) {
        case NBD_STATE_HELLO:
            q = st_nbd_collect(c, &at, end, sizeof(flags));
            if (!q)
                return n;
            memcpy(&flags, q, sizeof(flags));
            c->nstash = 0;
            if (be32_get(flags) &
                ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) {
                st_nbd_conn_fail(c, "unknown client flags");
                break;
            }
            c->no_zeroes = be32_get(flags) & NBD_NO_ZEROES;
            c->state = NBD_STATE_OPTION;
            break;
        case NBD_STATE_OPTION:
            q = st_nbd_collect(c, &at, end, sizeof(struct nbd_option));
            if (!q)
                return n;
            c->nstash = 0;
            option_header(c, q);
            break;
        case NBD_STATE_DATA:
            q = st_nbd_collect(c, &at, end, c->option_len);
            if (!q)
                return n;
            c->nstash = 0;
            c->state = NBD_STATE_OPTION;
            option(c, q, c->option_len);
            free(c->large);
            c->large = NULL;
            if (c->state == NBD_STATE_TLS && at != end)
                st_nbd_conn_fail(c, "more bytes behind STARTTLS");
            break;
        case NBD_STATE_SKIP: {
            uint64_t k = st_min(c->discard, (uint64_t)(end - at));

            at += k;
            c->discard -= k;
            if (c->discard)
                return n;
            c->state = NBD_STATE_OPTION;
            if (tls_required(c))
                refuse(c, NBD_REP_ERR_TLS_REQD, "TLS is required first");
            else
                refuse(c, NBD_REP_ERR_TOO_BIG, "option data over 64 KiB");
            break;
        }
        case NBD_STATE_TLS: /* the answer has been sent */
        case NBD_STATE_SERVE:
            return (size_t)(at - p);
        }
    }
    return (size_t)(at - p);
}
