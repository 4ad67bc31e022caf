/* SPDX-License-Identifier: MIT
 *
 * The virtual engine: I/O waits in the domain until st_domain_step executes
 * it, in an order that the seed decides.
 */
#include <errno.h>
#include <stdlib.h>

#include "loop_private.h"

static int
virtual_create(struct st_loop *l, struct st_engine **out, struct st_err *err)
{
    *out = malloc(sizeof(**out));
    if (!*out)
        return st_err_set(err, ENOMEM, "no memory for a loop");
    **out = (struct st_engine){&st_engine_virtual, l};
    return 0;
}

static void
virtual_destroy(struct st_engine *e)
{
    free(e);
}

static void
virtual_start(struct st_engine *e, struct st_io *io)
{
    st_list_append(&e->loop->domain->ios, &io->link);
}

static void
virtual_cancel(struct st_engine *e, struct st_io *io)
{
    if (st_list_empty(&io->link))
        return;
    st_list_remove(&io->link);
    io->res = -ECANCELED;
    st_ready(e->loop, &io->task);
}

static void
virtual_poll(struct st_engine *e, int64_t wait_ns)
{
    (void)e;
    (void)wait_ns;
}

static bool
virtual_busy(struct st_engine *e)
{
    st_list_for(io, tmp, &e->loop->domain->ios, struct st_io,
                link) if (io->loop == e->loop) return true;
    return false;
}

const struct st_engine_ops st_engine_virtual = {
    .name = "virtual",
    .create = virtual_create,
    .destroy = virtual_destroy,
    .start = virtual_start,
    .cancel = virtual_cancel,
    .poll = virtual_poll,
    .busy = virtual_busy,
};
