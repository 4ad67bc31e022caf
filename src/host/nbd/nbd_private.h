/* SPDX-License-Identifier: MIT
 *
 * What the files of the NBD door share.
 *
 *   nbd.c        the server: sockets, stop (control loop)
 *   export.c     exports that come and go, and the workers' ports to them
 *   inspect.c    what the server shows of itself (control loop)
 *   conn.c       one connection: what it reads and sends, its life
 *   stream.c     its bytes, plain or through TLS
 *   tls.c        certificates and keys
 *   handshake.c  options, until a client has chosen an export
 *   transmit.c   requests, from bytes to started slots
 *   slot.c       slots at the disk, and their replies
 *   memory.c     blocks, and the one memory cap that all loops share
 *
 *                        st_post                 st_chan per (loop, export)
 *   server ---------> worker (a loop) -- conn -- slot --> disk
 *   (control loop)      blocks, waiting   |
 *                                         +-- out: slots whose reply waits
 *
 * A worker and all below it belong to one loop. Only the fields marked so are
 * touched by others. An export is the control loop's, each of its ports the
 * worker's.
 */
#ifndef ST_NBD_PRIVATE_H
#define ST_NBD_PRIVATE_H

#include "disk.h"
#include "nbd.h"
#include "nbd_proto.h"

/* Limits on what a client can make us hold or do. */
enum {
    NBD_NAME_MAX = 4096,             /* a string, by the standard */
    NBD_OPTION_MAX = 64 << 10,       /* option data that is looked at */
    NBD_OPTION_SKIP_MAX = 16 << 20,  /* option data that is read and dropped */
    NBD_OPTION_ERRORS = 32,          /* options without progress */
    NBD_CONTEXT = 1,                 /* id of base:allocation */
    NBD_PAYLOAD_MAX = 32 << 20,      /* of a read or write, as announced */
    NBD_PAYLOAD_SKIP_MAX = 64 << 20, /* of a write, read and dropped */
    NBD_CONN_REQUESTS = 256,         /* in flight, per connection */
    NBD_CONN_BYTES = 64 << 20,
    NBD_TLS_USER_MAX = 128, /* of a pre-shared key; RFC 4279 5.3 */
};

/* Blocks: buffers of 4, 16, 64 and 256 KiB, page-aligned. Larger transfers are
 * made of several (pieces). */
enum {
    NBD_CLASSES = 4,
    NBD_BLOCK_MIN = 4096,
    NBD_BLOCK_MAX = 256 << 10,
    NBD_WINDOW = 4, /* pieces of one large read under way, when chunked */
};

/* A block of the memory that requests take their buffers from. */
struct nbd_block {
    struct nbd_block *next; /* in the worker's cache */
    unsigned refs;
    uint32_t size;
    uint8_t *data; /* owned */
};

/* What control tells a port whose export leaves. */
enum nbd_order {
    NBD_SHUT,   /* new requests get ESHUTDOWN */
    NBD_DEAFEN, /* read no more; close when all is answered */
    NBD_CUT,    /* cancel, and close now */
};

/* Whose turn is it to send a message about a port? */
enum {
    NBD_PORT_KNOWS,   /* either's */
    NBD_PORT_ORDERED, /* obey is on its way to the worker */
    NBD_PORT_LEFT,    /* nobody's: left was the worker's last word */
};

/* A worker's door to one export: open while connections use it. On cache lines
 * of its own, for other workers have theirs beside it. */
struct nbd_port {
    _Alignas(64) struct st_chan *chan;
    struct nbd_slot *free; /* last used first */
    unsigned users;
    bool leaving; /* when the last user goes, tell control */
    struct nbd_export *export;
    struct nbd_worker *worker;
    _Atomic int order, state; /* both sides */
    struct st_task obey;      /* to the worker */
    struct st_task left;      /* to control */
};

/* A disk under a name, as the server keeps it. */
struct nbd_export {
    char *name, *description; /* owned */
    size_t name_len;
    uint64_t id;          /* no other of this server ever has it */
    struct st_disk *disk; /* borrowed */
    bool read_only;
    uint16_t nexus;

    /* Control's. */
    struct st_nbd *server;
    struct st_nbd_unexport *unexport; /* when it leaves */
    struct st_list link;              /* server.leaving */
    uint64_t deadline;
    unsigned holders; /* when it leaves: who must let go first */
    bool flushed;     /* by the end */
    unsigned clients; /* inspect's scratch */

    struct nbd_port port[]; /* one per worker */
};

/* All exports. Whoever adds one replaces it whole; one that leaves becomes NULL
 * in it. Any thread, within one task. */
struct nbd_table {
    struct st_deferred deferred;
    unsigned n;
    _Atomic(struct nbd_export *) export[];
};

/* Does a worker lack memory? (worker.hungry) */
enum { NBD_FED, NBD_HUNGRY, NBD_CALLED /* wake is on its way */ };

/* A loop that serves connections, with its doors to the exports. */
struct nbd_worker {
    struct st_nbd *server;
    struct st_loop *loop;
    struct st_list conns; /* nbd_conn.link */
    unsigned index;       /* of server.worker */
    bool stopping;

    /* Replies go out once a turn. */
    struct st_list dirty; /* nbd_conn.dirty */
    struct st_task flush;
    bool flush_queued;

    /* Memory. Every block counts in used or cached; used + cached <= granted,
     * which is taken from ST_CAP_NBD_MEMORY in steps. */
    uint64_t granted, used, cached;
    uint64_t held; /* by requests, of connections: it will come back */
    struct nbd_block *cache[NBD_CLASSES];
    struct nbd_block *recv; /* where sockets are read to, shared */
    size_t recv_at;         /* its first byte that nobody uses */
    uint8_t *wire; /* owned; encrypted bytes, and room to gather plain ones */
    size_t nwire;  /* 0 outside of stream.c */
    struct st_list waiting; /* nbd_conn.wait, first come first served */
    struct st_task feed;
    bool feed_queued;
    _Atomic int hungry;     /* any thread */
    struct st_task wake;    /* posted by whoever turns HUNGRY into CALLED */
    _Atomic bool shrinking; /* any thread: shrink is on its way */
    struct st_task shrink;  /* posted by workers that become HUNGRY */

    /* Messages from and to the control loop. */
    struct st_task stop, cut, retire, retired;
    unsigned nconns;      /* control's: connections placed here */
    st_counter abandoned; /* requests that were cancelled by a cut */

    st_counter requests, errors, protocol_errors, bytes_in, bytes_out;
};

enum nbd_state {
    NBD_STATE_HELLO,  /* the client's flags come next */
    NBD_STATE_OPTION, /* an option's header */
    NBD_STATE_DATA,   /* its data */
    NBD_STATE_SKIP,   /* its data, too long to keep */
    NBD_STATE_TLS,    /* the TLS handshake, once STARTTLS is answered */
    NBD_STATE_SERVE,  /* transmission */
};

/* Growing bytes: what the handshake says. */
struct nbd_text {
    uint8_t *data; /* owned */
    size_t len, sent, room;
};

/* A client's connection, from accept to its end. */
struct nbd_conn {
    struct nbd_worker *worker;
    struct st_list link; /* worker.conns */
    int fd;              /* owned */
    struct st_watch watch;
    struct st_task adopt, read, close, gone;
    struct st_timer timer; /* handshake */
    enum nbd_state state;

    bool watched;  /* watch is with the loop */
    bool queued;   /* read is on the ready list */
    bool readable; /* the socket may have bytes */
    bool hangup;   /* the peer sends nothing more after those */
    bool deaf;     /* reads no more: DISC, end of file, error */
    bool dead;     /* sends no more either; what is in flight ends silently */
    bool blocked;  /* the socket takes no more now */
    bool flushing; /* in st_nbd_conn_flush */
    bool stalled;  /* goes on in another round, or when something was sent */
    bool closing;  /* close is on the ready list */
    bool shut;     /* new requests get ESHUTDOWN */
    bool secure;   /* bytes go through TLS */
    bool no_zeroes, structured, extended, meta;

    /* Incoming: bytes that lie together, bytes that are left, payload. */
    uint8_t head[32];
    uint8_t *large;         /* owned; option data that came in parts */
    size_t nstash;          /* bytes in head or large */
    struct nbd_block *home; /* holds the rest */
    const uint8_t *rest;    /* received, not yet looked at */
    size_t nrest;
    uint64_t discard;    /* bytes to drop */
    struct nbd_slot *in; /* write whose payload is on its way */
    uint8_t *fill;       /* where payload goes next */
    size_t fill_room;
    bool bulk; /* large payloads: read headers by themselves */

    /* Handshake. */
    uint32_t option, option_len;
    unsigned fruitless;
    uint64_t meta_export; /* id of what SET_META_CONTEXT selected for */
    struct nbd_text text;
    struct nbd_tls *tls; /* owned; from STARTTLS on */
    size_t unsent;       /* encrypted bytes that the socket did not take */

    /* Transmission. */
    struct nbd_export *export;
    struct nbd_port *port;
    uint16_t tflags;
    st_counter inflight;   /* requests that are not answered yet */
    uint64_t held;         /* bytes of payload in flight */
    uint64_t round;        /* bytes started in this round */
    struct st_list flight; /* nbd_slot.link: what the disk has */
    struct st_list dirty;  /* worker.dirty */
    struct nbd_slot *out, **out_tail;
    size_t out_sent; /* of the first one */
    uint64_t out_bytes;

    /* Memory. */
    struct st_list wait; /* worker.waiting */
    uint64_t need, grant;

    /* What control may look at. */
    st_counter requests, bytes_in, bytes_out;
    _Atomic(struct nbd_export *) shown; /* export, while port is held */
    atomic_bool tls_shown;              /* these do not change any more: */
    char tls_version[16], tls_user[NBD_TLS_USER_MAX + 1];

    /* Control's. */
    struct st_list all; /* server.conns */
    uint64_t number;    /* from 1, for people */
    uint64_t born;      /* ns, control's clock */
    char peer[64];
    void (*ended)(void *arg);
    void *arg;
};

/* A request, or a piece of a large one. */
struct nbd_slot {
    struct nbd_slot *next; /* free, out, or the next piece of a gathered read */
    struct nbd_slot *parent; /* of a piece */
    struct nbd_conn *conn;
    struct st_list link;     /* conn.flight */
    struct nbd_block *block; /* a reference, or NULL */
    uint64_t held;           /* what counts in conn.held */
    struct iovec iov;        /* payload; in replies, what follows the head */

    uint64_t cookie, offset, len;
    uint16_t type, flags;    /* the client's */
    bool flush;              /* when done: flush, then reply (FUA) */
    bool chunked;            /* large read, each piece its own chunk */
    uint32_t error;          /* enum nbd_error */
    const char *why;         /* static; with error */
    uint64_t started;        /* bytes handed to pieces, or covered by extents */
    unsigned pending;        /* pieces under way (and 1 for missing payload) */
    unsigned steps, extents; /* block status: lookups; extents found, */
    uint32_t last_flags;     /* and the last of them */
    uint64_t last_len;
    struct nbd_slot *pieces, **pieces_tail; /* gathered read, in order */

    uint8_t head[48]; /* of the reply */
    unsigned head_len;
    struct st_req req; /* last: frames follow */
};

/* A socket that clients come in by. */
struct nbd_listener {
    struct nbd_listener *next;
    struct st_nbd *server;
    int fd; /* owned */
    struct st_watch watch;
    struct st_timer again; /* after running out of descriptors */
};

/* A server. */
struct st_nbd {
    struct st_loop *control;
    uint64_t handshake_ns;
    enum st_nbd_tls tls;
    struct nbd_keys *keys; /* owned; NULL: off */
    struct nbd_worker *worker;
    unsigned nworkers;
    _Atomic(struct nbd_table *) table; /* owned; never NULL */
    uint64_t last_id;                  /* of an export */
    struct st_list leaving;            /* nbd_export.link */
    struct st_list conns;              /* nbd_conn.all */
    struct nbd_listener *listeners;
    struct st_caps *caps;
    const struct st_log *log;
    struct st_limiter limiter;
    _Atomic unsigned nhungry; /* workers that are not NBD_FED */
    st_counter clients, clients_total;

    /* Stop. */
    bool stopping, cutting, flushing, retired, ended, abandoned;
    struct st_timer timer;
    uint64_t timeout_ns;
    struct st_task check;
    bool check_posted;
    void (*done)(void *arg, int rc);
    void *arg;
    int rc;
    unsigned retiring;          /* workers that are not yet */
    struct nbd_export *flushes; /* whose disk is being flushed, through */
    struct st_chan *chan;
};

/* ---- nbd.c ---- */

/* Something that the end may wait for has ended. Control loop. */
void st_nbd_check(struct st_nbd *s);

/* ---- inspect.c ---- */

/* Who is at the other end of socket FD, in words. */
void st_nbd_peer(int fd, char *text, size_t size);

/* ---- export.c ---- */

/* An empty table, or NULL. */
struct nbd_table *st_nbd_table_new(unsigned room);

/* The exports of this moment, lent until the end of the task; some are NULL.
 * Any thread. */
static inline struct nbd_table *
st_nbd_table(struct st_nbd *s)
{
    return atomic_load_explicit(&s->table, memory_order_acquire);
}

/* The export of that name, or NULL. Any thread; lent until the end of the task,
 * longer to who holds a port to it. */
struct nbd_export *st_nbd_find(struct st_nbd *s, const void *name, size_t len);

/* One of those that a leaving E waited for has let go. Control loop. */
void st_nbd_export_let_go(struct nbd_export *e);

/* Detach from the disk and free. NULL is fine. */
void st_nbd_export_free(struct nbd_export *e);

/* The port to EXPORT on worker W, opened if need be; NULL when it cannot. */
struct nbd_port *st_nbd_port_get(struct nbd_worker *w, struct nbd_export *e);

/* The export may be gone after this. */
void st_nbd_port_put(struct nbd_port *port);

/* ---- conn.c ---- */

/* Start to serve C on its worker's loop (a task, C->adopt). */
void st_nbd_conn_adopt(struct st_task *t);

/* End C now: nothing more is read or sent; requests in flight end silently.
 * WHY (may be NULL) is logged as the client's fault. */
void st_nbd_conn_fail(struct nbd_conn *c, const char *why);

/* Read no more from C: what is in flight is still answered, then it is closed.
 * A request whose payload has not come whole is forgotten. */
void st_nbd_conn_deafen(struct nbd_conn *c);

/* Run C's reader in a coming round. */
void st_nbd_conn_wake(struct nbd_conn *c);

/* Close C if there is nothing more to do. Call it when that may be so. */
void st_nbd_conn_settle(struct nbd_conn *c);

/* There is something to send. */
void st_nbd_conn_dirty(struct nbd_conn *c);

/* Send what is there, now. */
void st_nbd_conn_flush(struct nbd_conn *c);

void st_nbd_worker_flush(struct st_task *t); /* worker.flush */

/* WANT bytes that lie together, from *P (which moves on) and what came before;
 * NULL when END is reached first. Afterwards the caller sets C->nstash = 0
 * when it has used them, or gets the same again. */
const uint8_t *st_nbd_collect(struct nbd_conn *c, const uint8_t **p,
                              const uint8_t *end, size_t want);

/* ---- stream.c ---- */

/* Read into N parts of IOV, ASKED bytes altogether: as recvmsg, but short only
 * where nothing more is there; then C->readable is false. */
ssize_t st_nbd_recv(struct nbd_conn *c, struct iovec *iov, unsigned n,
                    size_t asked);

/* Send N parts of IOV, which it may change: as sendmsg. What is left over in
 * C->unsent goes first with the next call, for which N may be 0. */
ssize_t st_nbd_send(struct nbd_conn *c, struct iovec *iov, unsigned n);

/* Make what C needs for TLS. False: out of memory. */
bool st_nbd_tls_start(struct nbd_conn *c);

/* Go on with C's TLS handshake; nothing is plain any more. True: it is done.
 * Else it goes on when there is more to read, or C has failed. */
bool st_nbd_tls_accept(struct nbd_conn *c);

/* Say good-bye, if that is still possible, and free. */
void st_nbd_tls_close(struct nbd_conn *c);

/* ---- tls.c ---- */

/* Read what OPTS name; *OUT is NULL when TLS is off. 0 or -errno. */
int st_nbd_keys_load(const struct st_nbd_opts *opts, struct nbd_keys **out,
                     struct st_err *err);

/* NULL is fine. */
void st_nbd_keys_free(struct nbd_keys *k);

/* ---- handshake.c ---- */

/* TLS is up: options start again (proto.md, "NBD_OPT_STARTTLS"). */
void st_nbd_secured(struct nbd_conn *c);

/* Greet the client. */
void st_nbd_hello(struct nbd_conn *c);

/* Look at N bytes at P; how many were used. */
size_t st_nbd_handshake(struct nbd_conn *c, const uint8_t *p, size_t n);

/* ---- slot.c ---- */

/* A slot with enough frames for the disk as it is now, or NULL. */
struct nbd_slot *st_nbd_slot_get(struct nbd_conn *c, struct nbd_slot *parent);
void st_nbd_slot_put(struct nbd_slot *s);

/* S has BYTES in flight. */
void st_nbd_slot_hold(struct nbd_slot *s, uint64_t bytes);

/* Give S a block of SIZE for LEN bytes, out of memory that was taken. False:
 * there is none after all, and the memory is given back. */
bool st_nbd_slot_block(struct nbd_slot *s, uint32_t size, uint64_t len);

/* S fails, unless it has failed before. WHY is static. */
void st_nbd_slot_error(struct nbd_slot *s, enum nbd_error error,
                       const char *why);

/* S is decided: send the reply. */
void st_nbd_slot_finish(struct nbd_slot *s);

/* Send an operation of a slot to its disk. */
void st_nbd_slot_submit(struct nbd_slot *s, enum st_op op, unsigned flags,
                        uint64_t offset, uint64_t len);

/* A piece of a read: its next part. */
void st_nbd_piece_read(struct nbd_slot *piece);

/* S's reply was sent (or dropped: its connection is dead). */
void st_nbd_slot_sent(struct nbd_slot *s);

/* Cancel what the disk has of C; how many. */
uint64_t st_nbd_cancel(struct nbd_conn *c);

/* ---- transmit.c ---- */

/* Look at N bytes at P, which lie in HOME; how many were used. */
size_t st_nbd_transmit(struct nbd_conn *c, const uint8_t *p, size_t n,
                       struct nbd_block *home);

/* The payload of C->in came up to C->fill_room == 0. */
void st_nbd_payload_full(struct nbd_conn *c);

/* C is dead: forget the request whose payload will not come. */
void st_nbd_payload_lost(struct nbd_conn *c);

/* ---- memory.c ---- */

/* The size of the block that LEN bytes go into. */
uint32_t st_nbd_block_size(uint64_t len);

/* Take BYTES for C. False: C waits, and is woken when it has them. */
bool st_nbd_mem_take(struct nbd_conn *c, uint64_t bytes);

/* Give back what was taken and not made into a block. */
void st_nbd_mem_give(struct nbd_worker *w, uint64_t bytes);

/* A block of SIZE bytes (st_nbd_block_size) out of taken memory, with one
 * reference; NULL when the system has none (the memory is given back). */
struct nbd_block *st_nbd_block_new(struct nbd_worker *w, uint32_t size);
void st_nbd_block_put(struct nbd_worker *w, struct nbd_block *b);

/* The most that one request may take at once. */
uint64_t st_nbd_mem_share(struct nbd_worker *w);

/* Is memory short: more than half of the cap in use? */
bool st_nbd_mem_short(struct nbd_worker *w);

void st_nbd_mem_feed(struct st_task *t);   /* worker.feed */
void st_nbd_mem_wake(struct st_task *t);   /* worker.wake */
void st_nbd_mem_shrink(struct st_task *t); /* worker.shrink */

/* C leaves: it waits no more. */
void st_nbd_mem_leave(struct nbd_conn *c);

/* No connection is left: free and give back all. */
void st_nbd_mem_retire(struct nbd_worker *w);

#endif
