/* SPDX-License-Identifier: MIT
 *
 * Power loss: the journal's promises, and whether a medium keeps them.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "power.h"

static void
raise_to(uint64_t *a, uint64_t b)
{
    if (*a < b) {
        *a = b;
    }
}

/* One event for one block; BEFORE: it happened before the mark. */
static void
event(struct power_block *b, char what, uint64_t gen, bool before)
{
    if (what == 'w' || what == 'z') {
        raise_to(&b->sent, gen);
        if (what == 'z') {
            raise_to(&b->zero_sent, gen);
        }
    } else if (before) {
        raise_to(&b->answered, gen);
        if (what == 'd') {
            raise_to(&b->floor, gen);
        }
    }
}

int
power_promises(FILE *journal, const char *mark, struct power_block *blocks,
               uint64_t n)
{
    char line[128], name[64];
    uint64_t first, count, gen, number = 0;
    bool before = true;
    char what;

    while (fgets(line, sizeof(line), journal)) {
        number++;
        if (sscanf(line, "m %63s", name) == 1) {
            before = before && strcmp(name, mark) != 0;
        } else if (line[0] == 's' || line[0] == 'f') {
            for (uint64_t i = 0; before && i < n; i++) {
                if (line[0] == 's') {
                    blocks[i].at_flush = blocks[i].answered;
                } else {
                    raise_to(&blocks[i].floor, blocks[i].at_flush);
                }
            }
        } else if (sscanf(line, "%c %" SCNu64 " %" SCNu64 " %" SCNu64, &what,
                          &first, &count, &gen) == 4 &&
                   strchr("wzad", what) && first < n && count <= n - first) {
            for (uint64_t i = first; i < first + count; i++) {
                event(&blocks[i], what, gen, before);
            }
        } else {
            fprintf(stderr, "power: line %" PRIu64 " of the journal: %s",
                    number, line);
            return -1;
        }
    }
    if (before) {
        fprintf(stderr, "power: the journal has no mark %s\n", mark);
        return -1;
    }
    return 0;
}

const char *
power_judge(const struct power_block *b, uint64_t block, const uint64_t *data)
{
    static char wrong[160];

    for (uint64_t i = 0; i < POWER_WORDS; i++) {
        uint64_t gen = data[i] ^ power_word(block, i, 0);

        if (data[i] == 0 ? b->floor == 0 || b->zero_sent >= b->floor
                         : gen >= b->floor && gen <= b->sent) {
            continue;
        }
        if (data[i] == 0) {
            snprintf(wrong, sizeof(wrong),
                     "block %" PRIu64 " is zero at word %" PRIu64
                     ", generation %" PRIu64 " was flushed",
                     block, i, b->floor);
        } else if (gen < b->floor) {
            snprintf(wrong, sizeof(wrong),
                     "block %" PRIu64 " is of generation %" PRIu64
                     " at word %" PRIu64 ", %" PRIu64 " was flushed",
                     block, gen, i, b->floor);
        } else {
            snprintf(wrong, sizeof(wrong),
                     "block %" PRIu64 " has bytes at word %" PRIu64
                     " that nobody wrote",
                     block, i);
        }
        return wrong;
    }
    return NULL;
}

int
power_check(int argc, char **argv)
{
    static uint64_t data[POWER_WORDS];
    struct power_block *blocks;
    uint64_t n, bad = 0;
    const char *wrong;
    FILE *journal;
    off_t size;
    int fd;

    (void)argc;
    fd = open(argv[0], O_RDONLY | O_CLOEXEC);
    size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < 0) {
        err(2, "%s", argv[0]);
    }
    n = (uint64_t)size / POWER_BLOCK;
    journal = fopen(argv[1], "re");
    if (!journal || n > POWER_BLOCKS_MAX) {
        err(2, "%s", argv[1]);
    }
    blocks = calloc(n, sizeof(*blocks));
    if (!blocks || power_promises(journal, argv[2], blocks, n) < 0) {
        return 2;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (pread(fd, data, sizeof(data), (off_t)(i * POWER_BLOCK)) !=
            (ssize_t)sizeof(data)) {
            err(2, "%s: block %" PRIu64, argv[0], i);
        }
        wrong = power_judge(&blocks[i], i, data);
        if (wrong && bad++ < 5) {
            printf("%s\n", wrong);
        }
    }
    if (bad) {
        printf("%" PRIu64 " blocks of %" PRIu64 " break a promise\n", bad, n);
    }
    free(blocks);
    fclose(journal);
    close(fd);
    return bad > 0;
}
