/* SPDX-License-Identifier: MIT
 *
 * node: a backend of one's own, judged by the conformance kit and then used
 * like any disk of Strata's.
 *
 *     node            judge it, and use it below a memdiff
 *     node --broken   the same with a mistake in it: the kit says so
 *
 * The node, `shelf:BYTES`, keeps its bytes in memory, and carries out what is
 * asked on a thread of its own, as a device or a network would.
 *
 *   submit (I/O thread) --> list --> shelf_main (its thread) --> complete
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <strata/strata.h>

struct shelf {
    pthread_t thread;
    pthread_mutex_t lock; /* the list and quit */
    pthread_cond_t wake;
    struct strata_node_request *first, *last; /* linked by their pointers */
    int quit;
    int broken; /* drops what is written past the first 64 KiB */
    char *bytes;
};

/* ---- Carrying out, on the shelf's own thread ---- */

static enum strata_status
carry_out(struct shelf *s, struct strata_node_request *r)
{
    uint64_t at = strata_node_request_offset(r);
    size_t n = (size_t)strata_node_request_length(r);

    switch (strata_node_request_op(r)) {
    case STRATA_OP_READ:
        strata_node_request_put(r, 0, s->bytes + at, n);
        return STRATA_OK;
    case STRATA_OP_WRITE:
        if (!s->broken || at < 65536)
            strata_node_request_get(r, 0, s->bytes + at, n);
        return STRATA_OK;
    case STRATA_OP_FLUSH: /* there is nothing more durable than this memory */
        return STRATA_OK;
    default:
        return STRATA_UNSUPPORTED;
    }
}

static void *
shelf_main(void *arg)
{
    struct shelf *s = arg;

    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        struct strata_node_request *r = s->first;

        if (!r) {
            pthread_cond_wait(&s->wake, &s->lock);
            continue;
        }
        s->first = strata_node_request_mine(r);
        pthread_mutex_unlock(&s->lock);
        strata_node_complete(r, carry_out(s, r));
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- What Strata calls ---- */

static void
shelf_submit(void *arg, struct strata_node_request *r)
{
    struct shelf *s = arg;

    pthread_mutex_lock(&s->lock);
    if (s->first)
        strata_node_request_set(s->last, r);
    else
        s->first = r;
    s->last = r;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

static void
shelf_close(void *arg)
{
    struct shelf *s = arg;

    pthread_mutex_lock(&s->lock);
    s->quit = 1;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    free(s->bytes);
    free(s);
}

static const struct strata_node_ops shelf_ops = {
    .size = sizeof(struct strata_node_ops),
    .name = "shelf",
    .submit = shelf_submit,
    .close = shelf_close,
};

static int
shelf_create(uint32_t sector_size, uint64_t bytes, int broken,
             struct strata_node **out, struct strata_error *err)
{
    struct strata_props props;
    struct shelf *s = calloc(1, sizeof(*s));
    int rc = -ENOMEM;

    memset(&props, 0, sizeof(props));
    props.size = sizeof(props);
    props.sector_size = sector_size;
    if (s && (s->bytes = calloc(1, (size_t)bytes))) {
        s->broken = broken;
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->wake, NULL);
        rc = -pthread_create(&s->thread, NULL, shelf_main, s);
    }
    if (rc < 0) {
        if (s)
            free(s->bytes);
        free(s);
        return rc;
    }
    rc = strata_node_create(&shelf_ops, &props, bytes, s, out, err);
    if (rc < 0)
        shelf_close(s);
    return rc;
}

/* `shelf:BYTES` */
static int
shelf_open(void *arg, const char *text, int read_only, struct strata_node **out,
           struct strata_error *err)
{
    char *end;
    unsigned long long bytes = strtoull(text, &end, 10);

    (void)read_only; /* nothing would be written then */
    if (*end || !bytes || bytes > 1u << 30) {
        snprintf(err->text, sizeof(err->text),
                 "expected shelf:BYTES with 512 to %u", 1u << 30);
        return -EINVAL;
    }
    return shelf_create(512, bytes, *(int *)arg, out, err);
}

/* ---- Judge it ---- */

static int
make(void *arg, uint32_t sector_size, uint64_t bytes, struct strata_node **out,
     struct strata_error *err)
{
    return shelf_create(sector_size, bytes, *(int *)arg, out, err);
}

static void
report(void *arg, const char *check, enum strata_verdict verdict,
       const char *detail)
{
    (void)arg;
    if (verdict == STRATA_KIT_FAIL)
        printf("FAILED: %s: %s\n", check, detail);
}

static int
judge(int *broken)
{
    struct strata_kit kit;
    struct strata_error err = {""};
    unsigned ran = 0;
    int failed;

    memset(&kit, 0, sizeof(kit));
    kit.size = sizeof(kit);
    kit.name = "shelf";
    kit.sector_size = 512;
    kit.make = make;
    kit.arg = broken;
    kit.report = report;
    failed = strata_kit_run(&kit, &ran, &err);
    if (failed < 0)
        fprintf(stderr, "node: %s\n", err.text);
    else
        printf("the kit: %u checks, %d failed\n", ran, failed);
    return failed;
}

/* ---- Use it ---- */

static int
use(struct strata *s, int *broken, struct strata_error *err)
{
    struct strata_kind kind = {sizeof(kind), "shelf", shelf_open, broken};
    struct strata_disk *disk;
    char text[32] = "";
    int rc = strata_kind_add(s, &kind, err);

    if (rc == 0)
        rc = strata_disk_open(s, "memdiff:shelf:1048576", NULL, &disk, err);
    if (rc < 0)
        return rc;
    if (strata_write(disk, "written above", 14, 12345, 0) != STRATA_OK ||
        strata_read(disk, text, 14, 12345) != STRATA_OK)
        rc = -EIO;
    printf("%s: %llu bytes, reads '%s'\n", strata_disk_name(disk),
           (unsigned long long)strata_disk_size(disk), text);
    strata_disk_close(disk);
    return rc;
}

int
main(int argc, char **argv)
{
    int broken = argc > 1 && strcmp(argv[1], "--broken") == 0;
    struct strata_error err = {""};
    struct strata *s;
    int failed = judge(&broken), rc;

    rc = strata_open(NULL, &s, &err);
    if (rc == 0) {
        rc = use(s, &broken, &err);
        strata_close(s);
    }
    if (rc < 0)
        fprintf(stderr, "node: %s\n", err.text);
    return failed != 0 || rc < 0;
}
