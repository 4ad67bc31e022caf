/* SPDX-License-Identifier: MIT
 *
 * Buffers of the NVM command set: a few of one size for each loop.
 *
 *   get --> one is free, or may be made ----------> next
 *      \--> the queue, first come first served --> next, by a task
 *
 * They count on the cap "bounce"; a loop may always have one. A command needs
 * one buffer and no other resource of this kind, so whoever has one progresses.
 */
#include "nvme_io.h"

#include <errno.h>

struct nvme_pool {
    struct st_loop *loop;
    struct nvme_buffer *free; /* kept, warm */
    struct st_list waiting;   /* nvme_cmd.link */
    unsigned made, out;
};

int
st_nvme_pool_create(struct st_loop *loop, struct nvme_pool **out)
{
    struct nvme_pool *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->loop = loop;
    st_list_init(&p->waiting);
    *out = p;
    return 0;
}

void
st_nvme_pool_free(struct nvme_pool *p)
{
    struct nvme_buffer *b;

    if (!p)
        return;
    assert(!p->out && st_list_empty(&p->waiting));
    while ((b = p->free)) {
        p->free = b->next;
        st_cap_give(st_domain_caps(p->loop->domain), ST_CAP_BOUNCE,
                    NVME_BUFFER);
        free(b->data);
        free(b);
    }
    free(p);
}

/* One more, if the caps allow; the loop's first whatever they say. */
static struct nvme_buffer *
make(struct nvme_pool *p)
{
    struct st_caps *caps = st_domain_caps(p->loop->domain);
    struct nvme_buffer *b;

    if (p->made == NVME_BUFFERS)
        return NULL;
    if (!st_cap_take(caps, ST_CAP_BOUNCE, NVME_BUFFER)) {
        if (p->made)
            return NULL;
        st_cap_force(caps, ST_CAP_BOUNCE, NVME_BUFFER);
    }
    b = malloc(sizeof(*b));
    if (b && !(b->data = st_pages_alloc(NVME_BUFFER))) {
        free(b);
        b = NULL;
    }
    if (b)
        p->made++;
    else
        st_cap_give(caps, ST_CAP_BOUNCE, NVME_BUFFER);
    return b;
}

void
st_nvme_pool_get(struct nvme_cmd *c, void (*next)(struct nvme_cmd *c))
{
    struct nvme_pool *p = c->io->pool;
    struct nvme_buffer *b = p->free;

    c->next = next;
    /* While somebody waits none is free: put hands them on. */
    if (b)
        p->free = b->next;
    else if (st_list_empty(&p->waiting))
        b = make(p);
    if (b) {
        p->out++;
        c->work = b;
        next(c);
    } else if (p->made) {
        c->state = NVME_IO_POOL;
        st_list_append(&p->waiting, &c->link);
    } else {
        st_nvme_io_end_soon(c, NVME_INTERNAL_ERROR);
    }
}

static void
granted(struct st_task *t)
{
    struct nvme_cmd *c = st_container(t, struct nvme_cmd, task);

    if (!st_nvme_io_stopped(c))
        c->next(c);
}

void
st_nvme_pool_put(struct nvme_cmd *c)
{
    struct nvme_pool *p = c->io->pool;
    struct nvme_buffer *b = c->work;
    struct st_list *l;

    if (c->state == NVME_IO_POOL)
        st_list_remove(&c->link);
    if (!b)
        return;
    c->work = NULL;
    if ((l = st_list_first(&p->waiting))) {
        struct nvme_cmd *heir = st_container(l, struct nvme_cmd, link);

        st_list_remove(l);
        heir->work = b;
        heir->state = NVME_IO_TASK;
        heir->task.run = granted;
        st_ready(p->loop, &heir->task);
    } else {
        b->next = p->free;
        p->free = b;
        p->out--;
    }
}
