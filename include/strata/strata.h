/* SPDX-License-Identifier: MIT */
/** @file
 * @brief Everything of libstrata: the disks of Strata inside your program.
 *
 * What is here begins with `strata_` (names of the library's inside begin with
 * `st_` and are not exported). The header of each part is the manual:
 *
 * | Header | What |
 * |---|---|
 * | context.h | a context: its threads, its log, kinds of your own |
 * | disk.h | open a disk, its properties, events, edits, counters |
 * | io.h | reading and writing: synchronous, callbacks, queues |
 * | node.h | a disk of your own making, below Strata's layers |
 * | kit.h | the conformance kit, which judges such a disk |
 * | status.h | how I/O ends |
 *
 * @section rules Rules that hold everywhere
 *
 * **Ownership.** What a function creates is the caller's, until the function
 * that closes or destroys it has returned 0. Strings and structs that go in are
 * copied, unless it says *borrowed*: then they stay as they are until the time
 * that is stated.
 *
 * **Structs grow.** A struct with a `size` member wants `sizeof` itself in
 * there and zeroes in what is not used. A newer library takes an older, smaller
 * struct; an older library refuses a larger one with -E2BIG where it has
 * something in it that this library does not know.
 *
 * **Errors.** Functions that set something up return 0 or a negative errno, and
 * fill a struct strata_error (which may be NULL) with one sentence. I/O ends
 * with an enum strata_status.
 *
 * **Threads.** Any function may be called from any thread, and several
 * contexts in one process know nothing of each other. Two threads may use
 * different objects, or one object, at the same time; but nobody may use an
 * object any more once another thread began to close it. Callbacks run on a
 * thread of the library: they must not block, and functions that wait, when
 * they are called there, do not wait but return -EDEADLK or #STRATA_INVALID.
 *
 * **Signals.** The library installs no handler and changes no mask of a thread
 * of yours. Its own threads block every signal but those of a fault (SIGSEGV
 * and its like), so your handlers run on your threads, and a SIGPIPE that one
 * of its threads could cause ends nothing.
 *
 * **Fork.** After fork() the child has the memory but none of the threads: all
 * functions return -ECHILD or #STRATA_INVALID there and leave everything alone.
 * The descriptors are close-on-exec. A child that does not call exec has them,
 * too: closing a disk gives back its lock all the same, but if the parent dies
 * with a disk open, its image stays locked until such a child has ended.
 *
 * **Ends.** The library never ends the process. Where its own promises are
 * broken an assertion does, as it should: no image, no SPEC and no argument is
 * to cause that.
 */
#ifndef STRATA_STRATA_H
#define STRATA_STRATA_H

#include <strata/context.h>
#include <strata/disk.h>
#include <strata/io.h>
#include <strata/kit.h>
#include <strata/node.h>
#include <strata/status.h>

#endif
