/* SPDX-License-Identifier: MIT
 *
 * Kids: a channel's pool of child requests; see kids.h.
 */
#include "kids.h"

#include <errno.h>
#include <stdlib.h>

/* Serve one waiting parent. It takes kids as if it were alone; if it runs out
 * it queues again, at the front of nothing: st_kids_wait appends, so others
 * that came before keep their turn. */
static void
serve(struct st_task *t)
{
    struct st_kids *k = st_container(t, struct st_kids, task);
    struct st_list *first = st_list_first(&k->waiting);
    struct st_req *parent;

    if (!first || !k->nfree) {
        k->scheduled = false;
        return;
    }
    parent = st_container(first, struct st_req, link);
    st_list_remove(first);
    k->serving = parent;
    k->again(k, parent);
    k->serving = NULL;
    if (k->nfree && !st_list_empty(&k->waiting))
        st_ready(k->loop, &k->task);
    else
        k->scheduled = false;
}

int
st_kids_init(struct st_kids *k, struct st_loop *l, unsigned count,
             unsigned nframes,
             void (*again)(struct st_kids *k, struct st_req *parent))
{
    size_t size = st_req_size(nframes);

    *k = (struct st_kids){.loop = l, .again = again, .total = count};
    st_list_init(&k->free);
    st_list_init(&k->waiting);
    k->task.run = serve;
    k->memory = malloc(count * size);
    if (!k->memory)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        struct st_req *kid = (struct st_req *)(void *)(k->memory + i * size);

        st_req_init(kid, nframes, NULL, NULL);
        st_list_append(&k->free, &kid->link);
    }
    k->nfree = count;
    return 0;
}

void
st_kids_free(struct st_kids *k)
{
    assert(!k->memory || (k->nfree == k->total && !k->scheduled));
    free(k->memory);
    k->memory = NULL;
}

struct st_req *
st_kids_get(struct st_kids *k, struct st_req *parent,
            void (*done)(struct st_req *kid))
{
    struct st_list *first = st_list_first(&k->free);
    struct st_req *kid;

    if (!first || (!st_list_empty(&k->waiting) && k->serving != parent))
        return NULL;
    k->nfree--;
    kid = st_container(first, struct st_req, link);
    st_list_remove(first);
    kid->op = parent->op;
    kid->flags = parent->flags;
    kid->nexus = parent->nexus;
    kid->done = done;
    kid->owner = parent;
    return kid;
}

void
st_kids_put(struct st_kids *k, struct st_req *kid)
{
    /* First out again: it is still in the cache. */
    k->nfree++;
    st_list_append(k->free.next, &kid->link);
    if (!st_list_empty(&k->waiting) && !k->scheduled) {
        k->scheduled = true;
        st_ready(k->loop, &k->task);
    }
}

void
st_kids_wait(struct st_kids *k, struct st_req *parent)
{
    st_list_append(&k->waiting, &parent->link);
}
