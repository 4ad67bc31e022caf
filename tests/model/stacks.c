/* SPDX-License-Identifier: MIT
 *
 * See stacks.h.
 *
 *   decorators (0-2)      delay, throttle, fault
 *   layers                none; diff; diff of diff; cache; diff of cache
 *   backend               testmem with random knobs, file, ram
 */
#include "stacks.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "delay.h"
#include "fault.h"
#include "file.h"
#include "layered.h"
#include "ram.h"
#include "testnode.h"
#include "throttle.h"

static void
must(int rc, const struct st_err *err)
{
    if (rc == 0)
        return;
    printf("model: cannot make a stack: %s (%s)\n", err->text, st_strerror(rc));
    exit(1);
}

static void
say(struct stack *s, const char *word)
{
    size_t n = strlen(s->words), w = strlen(word) + 1;

    if (n + w >= sizeof(s->words))
        abort();
    memmove(s->words + w, s->words, n + 1);
    memcpy(s->words, word, w);
    s->words[w - 1] = n ? ':' : '\0';
}

static void
fill(struct st_rand *r, uint8_t *p, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++)
        p[i] = i / 700 % 3 ? (uint8_t)st_rand_next(r) : 0;
}

/* Memory with every knob turned at random. */
static struct st_node *
draw_testnode(struct stack *s, struct st_loop *home, struct st_rand *r,
              uint32_t sector, uint64_t size)
{
    struct st_testnode_opts o = {
        .size = size,
        .sector = sector,
        .mem_align = 1u << st_rand_below(r, 10),
        .max_segments = (uint32_t)st_rand_below(r, 5) * 3,
        .unmap = (enum st_unmap)st_rand_below(r, 3),
        .fua = st_rand_below(r, 2),
        .fast_zero = st_rand_below(r, 2),
        .async = st_rand_below(r, 4) != 0,
        .seed = st_rand_next(r),
    };
    struct st_node *n;
    struct st_err err;
    char word[80];

    o.performs = ST_BIT(ST_OP_READ) | ST_BIT(ST_OP_WRITE) |
                 ST_BIT(ST_OP_FLUSH) |
                 ((uint32_t)st_rand_next(r) & (ST_BIT(ST_OP_COUNT) - 1));
    must(st_testnode_create(home, &o, &n, &err), &err);
    fill(r, st_testnode_bytes(n), size);
    snprintf(word, sizeof(word), "testmem(%u,align %u,segs %u,unmap %d,%#x)",
             sector, o.mem_align, o.max_segments, o.unmap, o.performs);
    say(s, word);
    memcpy(s->initial, st_testnode_bytes(n), size);
    s->testnode = n;
    return n;
}

static struct st_node *
draw_file(struct stack *s, struct st_loop *home, struct st_rand *r,
          uint32_t sector, uint64_t size)
{
    struct st_file_opts o = {.path = s->path, .sector_size = sector};
    struct st_node *n;
    struct st_err err;
    int fd;

    snprintf(s->path, sizeof(s->path), "/tmp/st-model-XXXXXX");
    fd = mkstemp(s->path);
    fill(r, s->initial, size);
    if (fd < 0 || pwrite(fd, s->initial, size, 0) != (ssize_t)size) {
        perror("model: temporary file");
        exit(1);
    }
    close(fd);
    must(st_file_open(home, &o, &n, &err), &err);
    say(s, "file");
    return n;
}

static struct st_node *
draw_backend(struct stack *s, struct st_loop *home, struct st_rand *r,
             uint32_t sector, uint64_t size)
{
    struct st_node *n;
    struct st_err err;

    switch (st_rand_below(r, 5)) {
    case 0:
        return draw_file(s, home, r, sector, size);
    case 1:
        must(st_ram_create(home, size, sector, "ram", &n, &err), &err);
        say(s, "ram");
        return n;
    default:
        return draw_testnode(s, home, r, sector, size);
    }
}

/* Put layers above BELOW, or none. */
static struct st_node *
draw_layers(struct stack *s, struct st_loop *home, struct st_rand *r,
            struct st_node *below, uint32_t sector)
{
    static const char *const words[] = {"plain", "diff", "diff:diff", "cache",
                                        "diff:cache"};
    unsigned kind = (unsigned)st_rand_below(r, 6);
    struct st_layer layers[3] = {{0}};
    unsigned n = kind == 0 || kind == 5 ? 0 : kind % 2 ? 1 : 2;
    uint64_t size = st_node_size(below), top = 0;
    struct st_node *out;
    struct st_err err;

    if (n == 0)
        return below;
    /* A top of another size: hidden past it, zero past what is below. */
    if (kind < 3 && st_rand_below(r, 3) == 0)
        top = sector * (1 + st_rand_below(r, 2 * size / sector));
    for (unsigned i = 0; i < n; i++)
        must(st_ram_create(home, i ? 0 : top, 0, "ram", &layers[i].node, &err),
             &err);
    layers[n].node = below;
    layers[n - 1].read_cache = kind > 2;
    layers[0].write_through = kind == 3;
    must(st_layered_create(home, layers, n + 1, false, "layered", &out, &err),
         &err);
    say(s, words[kind]);
    return out;
}

struct st_node *
stack_decorator(struct st_loop *home, struct st_rand *r, const char *name)
{
    struct st_node *n = NULL;
    struct st_err err;

    if (strcmp(name, "delay") == 0) {
        struct st_delay_opts o = {st_rand_below(r, 30000),
                                  st_rand_below(r, 30000),
                                  st_rand_below(r, 30000)};

        must(st_delay_create(home, &o, "delay", &n, &err), &err);
    } else if (strcmp(name, "throttle") == 0) {
        struct st_throttle_opts o = {.iops = 5000 + st_rand_below(r, 100000),
                                     .bytes = 1 << 28};

        must(st_throttle_create(home, &o, "throttle", &n, &err), &err);
    } else {
        static const char *const rules[] = {
            "any * delay=20us p=0.3\n",
            "write,zero,unmap * error=EIO p=0.05 seed=3\n",
            "read * status=medium every=9\nany * delay=1us p=0.1\n",
            "any * hang p=0.02 seed=9\nread 0-8K error=EIO every=3\n",
            "flush * error=EIO after=3 count=1\n",
        };

        must(st_fault_create(home, NULL, "fault", &n, &err), &err);
        must(st_fault_load(n, "rules", rules[st_rand_below(r, 5)], &err), &err);
    }
    return n;
}

void
stack_draw(struct stack *s, struct st_loop *home, struct st_rand *r)
{
    static const char *const names[] = {"delay", "throttle", "fault"};
    uint32_t sector = st_rand_below(r, 2) ? 512 : 4096;
    uint64_t below = sector * (4 + st_rand_below(r, 120000 / sector)), size;

    memset(s, 0, sizeof(*s));
    s->initial = calloc(1, below * 3 + sector);
    if (!s->initial)
        abort();
    s->node = draw_backend(s, home, r, sector, below);
    s->node = draw_layers(s, home, r, s->node, sector);
    size = st_node_size(s->node);
    if (size < below)
        memset(s->initial + size, 0, below - size);
    for (uint64_t i = st_rand_below(r, 3); i > 0; i--) {
        const char *name = names[st_rand_below(r, 3)];
        struct st_node *n = stack_decorator(home, r, name);
        struct st_err err = {"no memory"};

        must(st_node_adopt(n, s->node), &err);
        s->node = n;
        say(s, name);
    }
}

void
stack_forget(struct stack *s)
{
    if (s->path[0])
        unlink(s->path);
    free(s->initial);
}
