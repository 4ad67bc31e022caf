/* SPDX-License-Identifier: MIT
 *
 * What NBD looks like on the wire (NBD project, doc/proto.md, with its branch
 * extension-ext-header for extended headers). Everything is big-endian.
 */
#ifndef ST_NBD_PROTO_H
#define ST_NBD_PROTO_H

#include <assert.h>

#include "wire.h"

#define NBD_MAGIC           UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC    UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_REPLY_MAGIC     UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC   UINT32_C(0x25609513)
#define NBD_REQUEST_EXT     UINT32_C(0x21e41c71)
#define NBD_SIMPLE_MAGIC    UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC     UINT32_C(0x668e33ef)
#define NBD_CHUNK_EXT_MAGIC UINT32_C(0x6e8a278c)

/* Handshake flags; the client's have the same bits. */
enum { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum nbd_opt {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11,
};

/* Replies to an option; errors have bit 31. */
#define NBD_REP_ACK                 1u
#define NBD_REP_SERVER              2u
#define NBD_REP_INFO                3u
#define NBD_REP_META_CONTEXT        4u
#define NBD_REP_ERROR               0x80000000u
#define NBD_REP_ERR_UNSUP           0x80000001u
#define NBD_REP_ERR_POLICY          0x80000002u
#define NBD_REP_ERR_INVALID         0x80000003u
#define NBD_REP_ERR_PLATFORM        0x80000004u
#define NBD_REP_ERR_TLS_REQD        0x80000005u
#define NBD_REP_ERR_UNKNOWN         0x80000006u
#define NBD_REP_ERR_SHUTDOWN        0x80000007u
#define NBD_REP_ERR_TOO_BIG         0x80000009u
#define NBD_REP_ERR_EXT_HEADER_REQD 0x8000000au

enum nbd_info {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

/* Transmission flags. */
enum {
    NBD_HAS_FLAGS = 1 << 0,
    NBD_READ_ONLY = 1 << 1,
    NBD_SEND_FLUSH = 1 << 2,
    NBD_SEND_FUA = 1 << 3,
    NBD_ROTATIONAL = 1 << 4,
    NBD_SEND_TRIM = 1 << 5,
    NBD_SEND_WRITE_ZEROES = 1 << 6,
    NBD_SEND_DF = 1 << 7,
    NBD_CAN_MULTI_CONN = 1 << 8,
    NBD_SEND_CACHE = 1 << 10,
    NBD_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_cmd {
    NBD_CMD_READ,
    NBD_CMD_WRITE,
    NBD_CMD_DISC,
    NBD_CMD_FLUSH,
    NBD_CMD_TRIM,
    NBD_CMD_CACHE,
    NBD_CMD_WRITE_ZEROES,
    NBD_CMD_BLOCK_STATUS,
    NBD_CMD_COUNT
};

/* Command flags. */
enum {
    NBD_CMD_FUA = 1 << 0,
    NBD_CMD_NO_HOLE = 1 << 1,
    NBD_CMD_DF = 1 << 2,
    NBD_CMD_REQ_ONE = 1 << 3,
    NBD_CMD_FAST_ZERO = 1 << 4,
    NBD_CMD_PAYLOAD_LEN = 1 << 5,
};

/* Chunk types, and the flag of the last chunk of a reply. */
enum {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_OFFSET_DATA = 1,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_BLOCK_STATUS_EXT = 6,
    NBD_CHUNK_ERROR = 0x8001,
    NBD_CHUNK_DONE = 1,
};

enum nbd_error {
    NBD_OK = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* The server's first words. */
struct nbd_hello {
    be64 magic, option_magic;
    be16 flags;
};
static_assert(sizeof(struct nbd_hello) == 18, "newstyle negotiation");

/* Head of an option, from the client. */
struct nbd_option {
    be64 magic;
    be32 option, len;
};
static_assert(sizeof(struct nbd_option) == 16, "newstyle negotiation");

/* Head of the reply to an option. */
struct nbd_option_reply {
    be64 magic;
    be32 option, type, len;
};
static_assert(sizeof(struct nbd_option_reply) == 20, "fixed newstyle");

/* A request with compact headers. */
struct nbd_request {
    be32 magic;
    be16 flags, type;
    be64 cookie, offset;
    be32 len;
};
static_assert(sizeof(struct nbd_request) == 28, "request message");

/* A request with extended headers. */
struct nbd_request_ext {
    be32 magic;
    be16 flags, type;
    be64 cookie, offset, len;
};
static_assert(sizeof(struct nbd_request_ext) == 32, "extended request");

/* A simple reply. */
struct nbd_simple {
    be32 magic, error;
    be64 cookie;
};
static_assert(sizeof(struct nbd_simple) == 16, "simple reply message");

/* Head of a structured reply's chunk. */
struct nbd_chunk {
    be32 magic;
    be16 flags, type;
    be64 cookie;
    be32 len;
};
static_assert(sizeof(struct nbd_chunk) == 20, "structured reply chunk");

/* Head of a chunk with extended headers. */
struct nbd_chunk_ext {
    be32 magic;
    be16 flags, type;
    be64 cookie, offset, len;
};
static_assert(sizeof(struct nbd_chunk_ext) == 32, "extended reply chunk");

/* Payload of an error chunk, before its text. */
struct nbd_chunk_error {
    be32 error;
    be16 len; /* of the text that follows */
};
static_assert(sizeof(struct nbd_chunk_error) == 6, "NBD_REPLY_TYPE_ERROR");

#endif
