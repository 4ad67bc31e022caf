/* SPDX-License-Identifier: MIT
 *
 * Mapped files that somebody else may cut short: SIGBUS becomes zeroes.
 *
 * Guest memory is a file that the virtual machine monitor made. When it cuts
 * the file (or its file system is full), our next touch of a mapped page raises
 * SIGBUS. I/O by the kernel gets -EFAULT by itself; for loads and stores of our
 * own the handler puts memory of zeroes in place of the whole range, marks the
 * range, rings its bell, and the access is carried out again:
 *
 *    load --> SIGBUS --> which range? --> mmap(MAP_FIXED) --> load gives 0
 *                           |                |
 *                        none: as before     +--> broken, bell --> its owner
 *
 * A signal handler belongs to the whole process. So nothing installs this one
 * by itself but a door that maps a client's memory; a program that embeds
 * the other rooms keeps its own.
 */
#ifndef ST_GUARD_H
#define ST_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum { ST_GUARDS = 1 << 18 }; /* at most so many in the process */

/* Catch SIGBUS from now on, once for the process and for ever. What is not in
 * a guarded range goes to the handler that was there before. Any thread. 0 or
 * -errno. */
int st_guard_install(void);

/* One guarded range; the caller owns the memory. */
struct st_guard {
    void *start; /* what mmap gave, as LEN: a file's, shared */
    size_t len;
    int bell; /* borrowed: an eventfd that is written when it breaks; or -1 */
    /* Private. */
    unsigned slot;
};

/* Guard R, which is mapped. 0, -ENOSPC (ST_GUARDS) or -ENOMEM. Any
 * thread. */
int st_guard_add(struct st_guard *r);

/* R will be unmapped; nobody touches it any more. Once for each guard. */
void st_guard_remove(struct st_guard *r);

/* Has R been replaced by zeroes? Any thread. */
bool st_guard_broken(const struct st_guard *r);

#endif
