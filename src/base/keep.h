/* SPDX-License-Identifier: MIT
 *
 * Descriptors that outlive a process: duplicates of them, each under a name, at
 * a holder, a process that does nothing else. When the process dies, the holder
 * gives them to its successor.
 *
 *   process --put NAME + fd, drop NAME--> holder: a table of names
 *      X                                     |
 *   successor <--every NAME + fd, end--------'
 *
 * They talk over a SOCK_SEQPACKET pair, a message a packet: "+NAME" with a
 * descriptor, "-NAME", and from the holder "." as the end of what it has. Other
 * packets of a process are passed on by the holder as they are: they are for
 * the service manager. What has been put is the holder's even if the process
 * dies at once, since packets outlive their sender.
 */
#ifndef ST_KEEP_H
#define ST_KEEP_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

struct st_keep;

enum { ST_KEEP_NAME = 160 }; /* of a name, with its NUL */

/* ---- The process ---- */

/* FD (taken, also on failure) goes to a holder: hear all that it has. Blocks.
 * 0 or -errno with a sentence. */
int st_keep_open(int fd, struct st_keep **out, struct st_err *err);

/* What nobody has got stays at the holder. NULL is fine. */
void st_keep_close(struct st_keep *k);

/* Is there a predecessor: did the holder have anything? NULL: no. */
bool st_keep_resumes(const struct st_keep *k);

/* What the predecessor has put as NAME: gives the descriptor, once, or -1. The
 * holder still has its own. One thread at a time. K may be NULL. */
int st_keep_get(struct st_keep *k, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Let the holder have FD (borrowed) as NAME, instead of what it has of that
 * name. 0 or -errno: there is no holder any more. Any thread. K may be NULL:
 * 0. */
int st_keep_put(struct st_keep *k, int fd, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The holder may close NAME, if it has it. The same. */
void st_keep_drop(struct st_keep *k, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The holder may close all that nobody has got. */
void st_keep_forget(struct st_keep *k);

/* The socket, lent: packets for the service manager. */
int st_keep_socket(const struct st_keep *k);

/* ---- The holder ---- */

struct st_holder;

/* NULL: no memory. */
struct st_holder *st_holder_create(void);
void st_holder_destroy(struct st_holder *h); /* closes all; NULL is fine */

/* Give what there is to the process at SOCKET. 0 or -errno. Blocks. */
int st_holder_give(const struct st_holder *h, int socket);

/* Take one packet of the process at SOCKET, waiting for it. 1: it was carried
 * out; 2: it is for the service manager, *LEN bytes in TEXT (of SIZE, then with
 * a NUL); 0: the process has gone; -errno: it cannot be held. */
int st_holder_take(struct st_holder *h, int socket, char *text, size_t size,
                   size_t *len);

/* How many descriptors there are. */
unsigned st_holder_count(const struct st_holder *h);

#endif
