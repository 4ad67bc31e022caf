/* SPDX-License-Identifier: MIT
 *
 * What a disk is, and where it is attached: the words of --disk and of the verb
 * add-disk (spec: config.md 4.1).
 *
 *   memdiff:file:base.img,ro,on=nvme0,nsid=2,on=n0,export=base,name=a
 *   '---------+---------' '+ '------+------' '-------+-------' '--+--'
 *            SPEC          |  as namespace 2    as export base    its name
 *                          for all of them
 *
 * `on` may be repeated; nsid, lun, export and relay belong to the one before
 * them. What has no meaning here is understood, and refused with a sentence
 * that says what to use instead.
 */
#ifndef ST_ATTACH_H
#define ST_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

enum { ST_ATTACH_MAX = 16 }; /* places of one disk */

/* One place: a controller or a door. */
struct st_attach_at {
    const char *on;
    uint32_t nsid;      /* 0: the lowest that is free */
    bool has_lun;       /* an error at all that there is today */
    const char *export; /* NULL: the disk's name */
};

/* A disk to be. All but memory is borrowed: from memory, or from whoever fills
 * it without st_attach_parse. */
struct st_attach {
    char *memory[2 + ST_ATTACH_MAX]; /* owned */
    const char *where; /* in front of sentences: "--disk 'mem:1G,on=x'" */
    const char *spec;
    const char *name; /* "": the next free of disk0, disk1, ... */
    bool read_only, dvd;
    unsigned n; /* at least 1 */
    struct st_attach_at at[ST_ATTACH_MAX];
};

/* Parse TEXT, the argument of WHAT ("--disk"). 0, or -EINVAL with a sentence
 * that quotes TEXT, or -ENOMEM. OUT is to be freed on success only. */
int st_attach_parse(const char *what, const char *text, struct st_attach *out,
                    struct st_err *err);

/* Accepts a zeroed struct. */
void st_attach_free(struct st_attach *a);

#endif
