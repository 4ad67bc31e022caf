/* SPDX-License-Identifier: MIT
 *
 * What settings.c, settings_file.c and settings_old.c share: the keys, the same
 * in words and in JSON, and what takes their values.
 */
#ifndef ST_SETTINGS_PRIVATE_H
#define ST_SETTINGS_PRIVATE_H

#include "options.h"
#include "settings.h"

/* Rows of settings_nvme_table. */
enum {
    NVME_ID,
    NVME_VFIO_USER,
    NVME_MODE,
    NVME_GROUP,
    NVME_INTX,
    NVME_WRITE_MULTI,
    NVME_DOORBELLS,
    NVME_QUEUES,
    NVME_ENTRIES,
    NVME_VECTORS,
    NVME_NAMESPACES,
    NVME_SUBSYSTEM,
    NVME_SERIAL,
    NVME_MODEL,
    NVME_PCIE_PORT, /* a machine's: without one, understood and refused */
    NVME_SLOT,      /* the same */
    NVME_VPCI,      /* these are always refused */
    NVME_VTL2,
};

/* Rows of settings_nbd_table. */
enum {
    NBD_ID,
    NBD_UNIX,
    NBD_ADDR,
    NBD_MODE,
    NBD_GROUP,
    NBD_TLS,
    NBD_CERTIFICATES,
    NBD_PSK,
};

extern const struct st_option settings_nvme_table[], settings_nbd_table[];

/* A controller or door from its VALUEs by row (lent as long as S; NULL: not
 * given). WHERE (the same) is kept, sentences come without it. */
int settings_take_nvme(struct st_settings *s, const char *where,
                       const char *const *value, struct st_err *err);
int settings_take_nbd(struct st_settings *s, const char *where,
                      const char *const *value, struct st_err *err);

/* Parse TEXT, the argument of WHAT, by TABLE; S keeps it. *WHERE is what
 * sentences begin with, but those of this one have it already. */
int settings_parse(struct st_settings *s, const char *what, const char *text,
                   const struct st_option *table, const char *const **value,
                   const char **where, struct st_err *err);

/* One disk more, zeroed; NULL: no memory. Lent until the next. */
struct st_attach *settings_new_disk(struct st_settings *s);

/* TEXT (taken, NULL is no memory) as long as S; NULL: no memory. */
const char *settings_keep(struct st_settings *s, char *text);

#endif
