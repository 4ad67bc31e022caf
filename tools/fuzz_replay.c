/* SPDX-License-Identifier: MIT
 *
 * The main of a fuzz target where there is no libFuzzer: runs the target once
 * for each file given, and for each file of each directory given.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Replay PATH. 0, or 1 if it cannot be read. */
static int
replay_file(const char *path, unsigned *count)
{
    FILE *in = fopen(path, "re");
    char *data = NULL;
    size_t size = 0;
    int failed = 1;

    if (in) {
        FILE *out = open_memstream(&data, &size);
        int c;

        while (out && (c = getc(in)) != EOF)
            putc(c, out);
        failed = !out || ferror(in) || fclose(out) != 0;
        fclose(in);
    }
    if (failed) {
        fprintf(stderr, "%s: cannot be read\n", path);
    } else {
        LLVMFuzzerTestOneInput((const uint8_t *)data, size);
        ++*count;
    }
    free(data);
    return failed;
}

static int
replay(const char *path, unsigned *count)
{
    DIR *dir = opendir(path);
    int failed = 0;

    if (!dir)
        return replay_file(path, count);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char name[4096];

        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            failed |= replay_file(name, count);
    }
    closedir(dir);
    return failed;
}

int
main(int argc, char **argv)
{
    unsigned count = 0;
    int failed = argc < 2;

    for (int i = 1; i < argc; i++)
        failed |= replay(argv[i], &count);
    if (!count) {
        fprintf(stderr, "%s: nothing to replay\n", argv[0]);
        failed = 1;
    }
    printf("counts: %u passed, %d failed, 0 skipped\n", count, failed);
    return failed;
}
