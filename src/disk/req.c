/* SPDX-License-Identifier: MIT
 *
 * Requests; see req.h.
 */
#include "req.h"

#include "node.h"

#include <string.h>

void
st_req_init(struct st_req *req, unsigned nframes,
            void (*done)(struct st_req *req), void *owner)
{
    assert(nframes > 0 && nframes <= UINT16_MAX);
    memset(req, 0, sizeof(*req));
    req->nframes = (uint16_t)nframes;
    req->done = done;
    req->owner = owner;
    req->top = req->frame;
    st_list_init(&req->link);
    st_list_init(&req->flight);
}

enum st_status
st_req_lba(struct st_req *req, uint64_t lba, uint64_t n, unsigned shift)
{
    uint64_t max = ST_OFFSET_MAX >> shift;

    if (lba > max || n > max - lba)
        return ST_RANGE;
    req->offset = lba << shift;
    req->len = n << shift;
    return ST_OK;
}

static void
finished(struct st_task *t)
{
    st_complete(st_container(t, struct st_req, task));
}

void
st_finish(struct st_loop *l, struct st_req *req, enum st_status status)
{
    req->status = (uint8_t)status;
    req->at = NULL;
    req->task.run = finished;
    st_ready(l, &req->task);
}

void
st_cancel(struct st_req *req)
{
    struct st_chan *c = req->at;

    if (c && c->ops->cancel)
        c->ops->cancel(c, req);
}
