/* SPDX-License-Identifier: MIT
 *
 * A plugin comes and goes: dlopen, use, dlclose, and nothing is left: no
 * thread, no mapping, no descriptor.
 *
 *     dl LIBSTRATA.SO
 */
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <strata/strata.h>

enum { CYCLES = 50 };

static unsigned
entries(const char *path)
{
    DIR *d = opendir(path);
    unsigned n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static int
mapped(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[4096];
    int found = 0;

    while (f && fgets(line, sizeof(line), f))
        found |= strstr(line, "libstrata") != NULL;
    if (f)
        fclose(f);
    return found;
}

#define CHECK(what)                                                            \
    do {                                                                       \
        if (!(what)) {                                                         \
            printf("FAILED: %s\n", #what);                                     \
            exit(1);                                                           \
        }                                                                      \
    } while (0)

/* A function of the library, by its name. */
#define GET(name)                                                              \
    __typeof__(&name) name##_p = (__typeof__(&name))dlsym(lib, #name);         \
    CHECK(name##_p != NULL)

static void
cycle(const char *path)
{
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    struct strata *s;
    struct strata_disk *d;
    char buf[4] = "";

    CHECK(lib != NULL);
    GET(strata_open);
    GET(strata_close);
    GET(strata_disk_open);
    GET(strata_disk_close);
    GET(strata_write);
    GET(strata_read);
    CHECK(strata_open_p(NULL, &s, NULL) == 0);
    CHECK(strata_disk_open_p(s, "memdiff:mem:1M", NULL, &d, NULL) == 0);
    CHECK(strata_write_p(d, "abc", 4, 100, 0) == STRATA_OK);
    CHECK(strata_read_p(d, buf, 4, 100) == STRATA_OK);
    CHECK(strcmp(buf, "abc") == 0);
    CHECK(strata_disk_close_p(d) == 0);
    CHECK(strata_close_p(s) == 0);
    CHECK(mapped());
    CHECK(dlclose(lib) == 0);
    CHECK(!mapped());
    /* ., .. and one thread; one that was joined may be on show a moment. */
    for (int i = 0; i < 1000 && entries("/proc/self/task") > 3; i++)
        usleep(5000);
    CHECK(entries("/proc/self/task") == 3);
}

int
main(int argc, char **argv)
{
    unsigned fds;

    CHECK(argc == 2);
    cycle(argv[1]);
    fds = entries("/proc/self/fd");
    for (int i = 1; i < CYCLES; i++)
        cycle(argv[1]);
    CHECK(entries("/proc/self/fd") == fds);
    printf("%d times\n", CYCLES);
    return 0;
}
