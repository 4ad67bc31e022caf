/* SPDX-License-Identifier: MIT */
/** @file
 * @brief A context: what would otherwise be global.
 *
 *     your threads                     the library's
 *     strata_disk_open  --------->     one home thread: open, edit, events
 *     strata_read, strata_submit ->    1 to 64 I/O threads
 *     callbacks, queues <---------
 *
 * Blocking work runs on further threads that start when there is some.
 */
#ifndef STRATA_CONTEXT_H
#define STRATA_CONTEXT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The version of these headers. */
#define STRATA_VERSION "0.1.0"

/** A context (opaque). */
struct strata;

/** A node of your own (opaque), see node.h. */
struct strata_node;

/** One sentence for a person, without full stop, always terminated. */
struct strata_error {
    char text[512]; /**< what is wrong, with which thing, what was expected */
};

/** How much a log wants to hear. */
enum strata_log_level {
    STRATA_LOG_ERROR, /**< something does not work */
    STRATA_LOG_WARN,  /**< something is odd */
    STRATA_LOG_INFO,  /**< what happens now and then */
    STRATA_LOG_DEBUG  /**< what helps to find a mistake */
};

/** How to set up a context; all zeroes but for size is a good start. */
struct strata_options {
    size_t size;        /**< sizeof(struct strata_options) */
    const char *engine; /**< "auto" (or NULL), "io_uring" or "threads": how
                         *   files are read and written */
    unsigned threads;   /**< I/O threads, 1 to 64; 0 is 1 */
    unsigned poll_us;   /**< for so many microseconds (at most 1000000) an I/O
                         *   thread spins after work before it sleeps; 0:
                         *   never. 50 is good for the lowest latency */
    enum strata_log_level log_level; /**< messages beyond it are dropped */
    /** Hears each message, a line without newline, lent for the call. Called
     * on any thread of the library and on those that call it, perhaps on
     * several at once. NULL: nobody hears them. */
    void (*log)(void *arg, enum strata_log_level level, const char *line);
    void *log_arg; /**< borrowed until strata_close() returned */
};

/** A kind of disk of your own for the grammar: `NAME:TEXT`. */
struct strata_kind {
    size_t size;      /**< sizeof(struct strata_kind) */
    const char *name; /**< 1 to 31 small letters, digits and hyphens */
    /** Make the node that `NAME:TEXT` asks for. Called on the home thread,
     * where it may take its time: other disks wait to be opened, no I/O does.
     *
     * ARG is that of this struct. TEXT is what follows the colon, without
     * escapes, perhaps empty, lent for the call. READ_ONLY is not 0 when
     * nothing will be written (the disk is read-only or below a memdiff);
     * changes are refused in any case. OUT takes the node; ERR a sentence.
     * Returns 0 or a negative errno. */
    int (*open)(void *arg, const char *text, int read_only,
                struct strata_node **out, struct strata_error *err);
    void *arg; /**< borrowed until strata_close() returned */
};

/** The version of the library that runs: "0.1.0".
 *
 * @return a static string
 */
const char *strata_version(void);

/** Make a context and start its threads.
 *
 * @param options copied; NULL for the defaults
 * @param out gives the context, to be closed with strata_close()
 * @param err a sentence when it fails; may be NULL
 * @return 0, -EINVAL (an option), -E2BIG (options of a newer library),
 *         -ENOTSUP (the kernel lacks what the engine needs), -ENOMEM, -EAGAIN
 *         (no thread), ...
 */
int strata_open(const struct strata_options *options, struct strata **out,
                struct strata_error *err);

/** End a context and its threads. Its disks and queues must be closed first.
 *
 * @param s a context; NULL is fine
 * @return 0, -EBUSY (a disk or a queue is left; nothing is done), -EDEADLK (on
 *         a thread of the library) or -ECHILD (after fork())
 */
int strata_close(struct strata *s);

/** The engine that is in use: "io_uring" or "threads".
 *
 * @param s a context
 * @return a static string
 */
const char *strata_engine(const struct strata *s);

/** Add a kind of disk to the grammar of this context, for disks that are opened
 * from now on: `NAME:TEXT`, `memdiff:delay:5:NAME:TEXT`, ...
 *
 * @param s a context
 * @param kind copied; what its arg points at is borrowed
 * @param err a sentence when it fails; may be NULL
 * @return 0, -EINVAL (the name, or no open function), -E2BIG, -EEXIST (there is
 *         a kind of that name), -ENOMEM, -EDEADLK (on a thread of the library)
 *         or -ECHILD (after fork())
 */
int strata_kind_add(struct strata *s, const struct strata_kind *kind,
                    struct strata_error *err);

#ifdef __cplusplus
}
#endif

#endif
