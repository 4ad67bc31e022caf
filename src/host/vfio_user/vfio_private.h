/* SPDX-License-Identifier: MIT
 *
 * What the files of the vfio-user door share; see vfio_user.h.
 *
 *   vfio_user.c  listening, one client after the other, the end
 *   conn.c       bytes and descriptors to messages, replies, waiting
 *   command.c    VERSION, what the device is made of, accesses, reset
 *   version.c    the JSON text of VERSION
 *   dma.c        guest memory
 *   irq.c        eventfds
 *   journal.c    what a successor needs to go on with the client
 *
 *   a client's life:
 *     none --accept--> open --EOF, error, cut--> leaving: reset, unmap --> none
 *
 * All on the loop's thread, but for the function's host: msix and intx.
 */
#ifndef VFIO_PRIVATE_H
#define VFIO_PRIVATE_H

#include <pthread.h>

#include "guard.h"
#include "stat.h"
#include "vfio_proto.h"
#include "vfio_user.h"

/* ---- The journal: memory that outlives us; see journal.c ---- */

enum {
    VFIO_JOURNAL_SERVED = 64, /* messages before they are consumed */
    VFIO_JOURNAL_MAPS = 4096,
};

/* A message that was served, and is in the socket still. */
struct vfio_served {
    le16 id, command;
    le32 size;
};

/* A map of guest memory; its file is kept under its number. */
struct vfio_journal_map {
    uint64_t gpa, len, offset;
    uint8_t writable, shared;
    _Atomic uint32_t state; /* 1: it is there */
};

/* All of it. */
struct vfio_journal {
    char magic[8];
    uint32_t version, pid;
    _Atomic uint32_t connected, versioned;
    uint32_t multi;
    _Atomic uint32_t behind;  /* replies wait for the client to read */
    _Atomic uint32_t sending; /* a reply: nserved + 1 */
    _Atomic uint32_t nserved;
    struct vfio_served served[VFIO_JOURNAL_SERVED];
    uint8_t config[256];
    _Atomic uint8_t vector[ST_PCI_VECTORS_MAX]; /* 1: has an eventfd */
    struct vfio_journal_map map[VFIO_JOURNAL_MAPS];
};

/* Descriptors that came with one message. */
struct vfio_fds {
    bool used;
    size_t at; /* where its header is in the buffer */
    unsigned n;
    int fd[VFIO_FDS_ROOM]; /* owned; -1: taken by who needed it */
};

/* A reply, or the rest of one, that the socket did not take. */
struct vfio_tx {
    struct vfio_tx *next;
    size_t len, sent;
    int fd; /* borrowed; goes with the first byte, or -1 */
    uint8_t data[];
};

/* An access to a BAR; on the heap, for one that is late outlives its client. */
struct vfio_access {
    struct st_access access;
    struct st_task task; /* on the loop: it is done */
    struct st_vfio_user *v;
    bool out;  /* deferred */
    bool late; /* nobody waits for it */
};

/* The client. */
struct vfio_conn {
    int fd; /* owned; -1: none */
    int pid;
    struct st_watch watch;
    struct st_task again; /* go on with it */
    bool queued;          /* that one is */
    bool running;         /* within conn_run */
    bool dead;            /* to be closed */
    bool versioned, multi;
    bool again_first; /* the next message may have been served before */
    bool deferred;    /* the message in hand is answered behind others */

    uint8_t *rx; /* owned */
    size_t rx_cap, rx_len;
    size_t pos;   /* of the message that is served */
    size_t eaten; /* at its beginning: consumed, with a journal */
    struct vfio_fds fds[2];

    /* The message that is served. */
    uint16_t id, command;
    uint32_t flags;
    const uint8_t *payload; /* in rx */
    size_t len;             /* of the payload */
    bool waiting;           /* for something; nothing is read meanwhile */
    void (*late)(struct st_vfio_user *v); /* it has taken too long */
    struct st_timer timer;

    /* An access to a region, piece after piece. */
    struct vfio_access *access; /* owned; NULL until it is needed */
    bool write;
    unsigned region;
    uint64_t offset;
    uint32_t left;
    unsigned piece;
    uint8_t *data;        /* where the next piece comes from or goes to */
    uint64_t multi_left;  /* entries of WRITE_MULTI after this one */
    const uint8_t *entry; /* the next one, in rx */

    uint8_t *reply; /* owned: header and payload of the reply being made */
    size_t reply_cap;
    struct vfio_tx *tx, **tx_tail;
    size_t tx_bytes;
    bool said_unshared;
};

/* An eventfd of the client's, for MSI-X. */
struct vfio_irq_file {
    struct st_deferred defer;
    struct st_vfio_user *v;
    int fd; /* owned */
};

/* An MSI-X vector. Raised by any thread, set by the loop's. */
struct vfio_vector {
    _Alignas(64) struct vfio_irq_file *_Atomic file;
    _Atomic bool pending; /* raised while there was no file */
    _Atomic uint64_t sent, kept;
};

/* The interrupt pin, a level. */
struct vfio_intx {
    pthread_mutex_t lock; /* innermost */
    bool level, masked;
    int fd; /* owned; -1: none */
    uint64_t sent;
    /* The loop's. */
    struct st_watch resample; /* fd owned; -1: none */
};

/* The door. The loop's thread, but for what irq.c says. */
struct st_vfio_user {
    struct st_vfio_user_opts opts;
    struct st_loop *loop;
    struct st_pci *pci;
    struct st_pci_host host;
    char name[64];

    int listen_fd; /* owned; -1: closed */
    struct st_watch listen;
    struct st_timer again; /* accept: no descriptors just now */

    struct vfio_conn conn;
    struct vfio_journal *j;             /* owned; NULL: none */
    bool slot_taken[VFIO_JOURNAL_MAPS]; /* of its maps: not yet answered */
    bool resuming;                      /* the client is not yet served */
    bool leaving;           /* the client is gone, what it left is not */
    struct st_timer leaves; /* that takes long */
    unsigned busy; /* accesses, unmaps, resets, files that are not yet over */
    bool stopping, ended;
    void (*done)(void *arg);
    void *arg;
    struct st_task end;
    bool end_queued;

    /* Reset: one at a time. */
    struct st_access reset;
    struct st_task reset_task;
    bool resetting, reset_again;
    void (*reset_then)(struct st_vfio_user *v);

    /* Guest memory. */
    struct st_list maps;    /* of struct vfio_map: those with a file */
    struct st_watch bell;   /* fd owned: one of them broke */
    bool changing;          /* between st_gmem_begin and commit */
    struct st_timer settle; /* commit, if nothing more comes */
    struct st_list answers; /* to DMA messages, in order; the first waits */
    unsigned nanswers;
    struct st_timer overdue;  /* the first answer */
    struct vfio_clear *clear; /* of the client that left; its own */

    struct vfio_vector *vector; /* owned; pci->vectors */
    struct vfio_intx intx;

    struct st_limiter limiter;
    st_counter messages, posted, reads, writes, bytes_in, bytes_out, wakeups,
        mapped, unmapped, unreachable, late, errors, protocol_errors, faults,
        clients_total;
    _Atomic bool connected;
    _Atomic int peer_pid;
};

/* ---- vfio_user.c ---- */

/* Something has ended: is all of it over? */
void st_vfio_check(struct st_vfio_user *v);
/* Reset the function; THEN when it is over, maybe within this call. A reset
 * that is under way is waited for, and does not count. */
void st_vfio_reset(struct st_vfio_user *v,
                   void (*then)(struct st_vfio_user *v));
/* The client's socket is closed: clean up. */
void st_vfio_left(struct st_vfio_user *v);
/* No guest memory is mapped any more. */
void st_vfio_cleared(struct st_vfio_user *v);

/* ---- journal.c: all of it does nothing without one ---- */

/* 0 or -errno. */
int st_vfio_journal_open(struct st_vfio_user *v);
void st_vfio_journal_close(struct st_vfio_user *v);
/* The client has come, or is about to leave. */
void st_vfio_journal_came(struct st_vfio_user *v);
void st_vfio_journal_went(struct st_vfio_user *v);
/* VERSION is agreed on; configuration space was written. */
void st_vfio_journal_version(struct st_vfio_user *v);
void st_vfio_journal_config(struct st_vfio_user *v);
/* A reply is about to go out; some of one could not. */
void st_vfio_journal_sending(struct st_vfio_user *v);
void st_vfio_journal_behind(struct st_vfio_user *v, bool behind);
/* A message of SIZE bytes is served, and answered. */
void st_vfio_journal_served(struct st_vfio_user *v, uint16_t id,
                            uint16_t command, size_t size);
/* Consume what is: how many bytes. */
size_t st_vfio_journal_consume(struct st_vfio_user *v);
/* A map, with FD (borrowed) or -1, that is to be: *SLOT is its number (0: there
 * is no journal). 0 or -ENOSPC. Then, before the answer: it is, or is not. */
int st_vfio_journal_map(struct st_vfio_user *v, int fd, uint64_t gpa,
                        uint64_t len, uint64_t offset, bool writable,
                        unsigned *slot);
void st_vfio_journal_mapped(struct st_vfio_user *v, unsigned slot, bool well);
void st_vfio_journal_unmapped(struct st_vfio_user *v, bool all, uint64_t gpa,
                              uint64_t len);
bool st_vfio_journal_has_map(const struct st_vfio_user *v, uint64_t gpa,
                             uint64_t len, uint64_t offset);
/* FD (borrowed) is the vector's eventfd, or that of "intx" or "resample"; -1:
 * it has none. */
void st_vfio_journal_vector(struct st_vfio_user *v, unsigned n, int fd);
void st_vfio_journal_intx(struct st_vfio_user *v, const char *what, int fd);
/* Go on with the client of FD (taken), whose state the journal has: all but
 * serving it. 0 or -errno. */
int st_vfio_journal_resume(struct st_vfio_user *v, int fd);

/* ---- conn.c ---- */

/* FD (taken) is the client now. 0 or -errno. */
int st_vfio_conn_open(struct st_vfio_user *v, int fd);
/* Serve the client whose socket is v->conn.fd (taken). 0 or -errno. */
int st_vfio_conn_serve(struct st_vfio_user *v);
/* Close a connection that was never served. */
void st_vfio_conn_give_up(struct st_vfio_user *v);
/* Close it soon, with one line in the log unless FMT is NULL. */
void st_vfio_drop(struct st_vfio_user *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Room for a reply with a payload of LEN bytes, zeroed; NULL: the client is
 * dropped. */
void *st_vfio_payload(struct st_vfio_user *v, size_t len);
/* Send it, unless none is wanted; FD (borrowed, or -1) goes along. */
void st_vfio_reply(struct st_vfio_user *v, size_t len, int fd);
/* The message ends with an error. */
void st_vfio_error(struct st_vfio_user *v, int error);
/* The message waits: LATE is called when that takes too long. */
void st_vfio_wait(struct st_vfio_user *v, void (*late)(struct st_vfio_user *v));
/* The message is answered, go on with the next. */
void st_vfio_continue(struct st_vfio_user *v);
/* What held the next message up is over. */
void st_vfio_resume(struct st_vfio_user *v);
/* The descriptors of the message. Lent; NULL: none. */
struct vfio_fds *st_vfio_fds(struct st_vfio_user *v);
/* Close those that are left: before the answer, so that a client that has it
 * finds nothing of its own here. */
void st_vfio_fds_close(struct st_vfio_user *v);

/* ---- command.c ---- */

/* Carry out the message of v->conn: reply, or wait. */
void st_vfio_command(struct st_vfio_user *v);
/* The client leaves while an access of its is under way. */
void st_vfio_access_abandon(struct st_vfio_user *v);

/* ---- version.c ---- */

/* What a client offers in VERSION. */
struct vfio_offer {
    bool fds, xfer, multi; /* keys that it sent */
    bool write_multiple;
};

/* Read the JSON text of LEN bytes. False: it is none, or says nonsense. */
bool st_vfio_offer(const char *text, size_t len, struct vfio_offer *out);
/* Our own text into TO, of at most MAX bytes with its NUL (0: no text fits).
 * *MULTI: in: may it be offered? out: was it? */
size_t st_vfio_accept(const struct vfio_offer *offer, char *to, size_t max,
                      bool *multi);

/* ---- dma.c ---- */

/* No map, the bell of broken ones watched. 0 or -errno. */
int st_vfio_dma_init(struct st_vfio_user *v);
/* All maps are gone. Also what was never initialised. */
void st_vfio_dma_fini(struct st_vfio_user *v);
/* The message is DMA_MAP: answer it, now or behind others. */
void st_vfio_dma_map(struct st_vfio_user *v);
/* The message is DMA_UNMAP. */
void st_vfio_dma_unmap(struct st_vfio_user *v);
/* May a message with COMMAND be served now? If not, then once all answers are
 * out: it waits. */
bool st_vfio_dma_settled(struct st_vfio_user *v, unsigned command);
/* Map M, whose file is FD (borrowed), as a predecessor had it. 0 or -errno. */
int st_vfio_dma_resume(struct st_vfio_user *v, int fd,
                       const struct vfio_journal_map *m);
/* The client has left: nobody waits for its answers. */
void st_vfio_dma_abandon(struct st_vfio_user *v);
/* Take out all that is left. 0: st_vfio_cleared will be called, on this loop,
 * when all of it is out of use, or after the door's timeout. Or -ENOMEM. */
int st_vfio_dma_clear(struct st_vfio_user *v);

/* ---- irq.c ---- */

/* No eventfd, nothing pending; v->host can be the function's. 0 or -ENOMEM. */
int st_vfio_irq_init(struct st_vfio_user *v);
/* All eventfds are closed. */
void st_vfio_irq_fini(struct st_vfio_user *v);
/* The message is DEVICE_GET_IRQ_INFO: answer it. */
void st_vfio_irq_info(struct st_vfio_user *v);
/* The message is DEVICE_SET_IRQS: answer it. */
void st_vfio_set_irqs(struct st_vfio_user *v);
/* FD (taken) is vector N's, of a predecessor. 0 or -errno. */
int st_vfio_irq_resume(struct st_vfio_user *v, unsigned n, int fd);
/* The same for the pin, its eventfd and what unmasks it; -1: none. */
void st_vfio_intx_resume(struct st_vfio_user *v, int fd, int resample);
/* Raise all that has an eventfd. */
void st_vfio_irq_raise_all(struct st_vfio_user *v);
/* Close all eventfds. */
void st_vfio_irq_detach(struct st_vfio_user *v);
/* Forget what is pending: the function was reset. */
void st_vfio_irq_reset(struct st_vfio_user *v);
/* LEN bytes of pending bits from vector FIRST on, little-endian. */
uint64_t st_vfio_irq_pending(const struct st_vfio_user *v, unsigned first,
                             unsigned len);

#endif
