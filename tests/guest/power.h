/* SPDX-License-Identifier: MIT
 *
 * Power loss, judged by the kernel: what a client was promised, and what
 * dm-log-writes says was on the medium.
 *
 *   power write SOCKET JOURNAL ROUNDS SEED MARK...   promises, through NBD
 *   power marks LOG                                  where the marks are
 *   power replay LOG TARGET FROM TO                  the medium, up to there
 *   power check TARGET JOURNAL MARK                  are they kept?
 *
 * The disk is a row of blocks of 4096 bytes. Each write has a generation of its
 * own, larger than all before it; every 8 bytes of a written block are its
 * generation, mixed with where they are. So a block says of each of its words
 * which write it comes from, however torn.
 *
 * The journal is text, one event a line, in the order in which they happened:
 *
 *   w BLOCK COUNT GEN    a write is sent
 *   z BLOCK COUNT GEN    zeroes or a trim are sent
 *   a BLOCK COUNT GEN    it was answered
 *   d BLOCK COUNT GEN    it was answered, and had FUA
 *   s                    a flush is sent
 *   f                    it was answered: all that was answered before s stays
 *   m NAME               the log got this mark
 */
#ifndef ST_POWER_H
#define ST_POWER_H

#include <stdint.h>
#include <stdio.h>

enum {
    POWER_BLOCK = 4096,
    POWER_WORDS = POWER_BLOCK / 8,
    POWER_BLOCKS_MAX = 1 << 20, /* of a disk; 4 GiB */
};

/* The word number I of block BLOCK, written by generation GEN. */
static inline uint64_t
power_word(uint64_t block, uint64_t i, uint64_t gen)
{
    uint64_t x = (block * POWER_WORDS + i + 1) * 0x9e3779b97f4a7c15ULL;

    x ^= x >> 31;
    x *= 0xbf58476d1ce4e5b9ULL;
    return (x ^ x >> 29) ^ gen;
}

/* What a block may and must hold at some time. */
struct power_block {
    uint64_t floor;     /* the newest generation that has to be there */
    uint64_t answered;  /* ... and that was answered */
    uint64_t at_flush;  /* ... before the flush that is under way */
    uint64_t sent;      /* ... and that was sent, until the journal's end */
    uint64_t zero_sent; /* the newest that makes zeroes */
};

/* Read JOURNAL: the promises until MARK, and all that was sent, into N BLOCKS.
 * 0, or -1 after a line on standard error. */
int power_promises(FILE *journal, const char *mark, struct power_block *blocks,
                   uint64_t n);

/* Look at DATA, of block BLOCK: NULL if it keeps B's promise, or what is wrong
 * with it, in a buffer that the next call uses again. */
const char *power_judge(const struct power_block *b, uint64_t block,
                        const uint64_t *data);

/* The subcommands; they give the exit status. */
int power_write(int argc, char **argv);
int power_marks(int argc, char **argv);
int power_replay(int argc, char **argv);
int power_check(int argc, char **argv);

#endif
