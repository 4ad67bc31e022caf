/* SPDX-License-Identifier: MIT
 *
 * File I/O by plain system calls; see engine.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "engine.h"

static ssize_t
io_call(const struct st_io *io)
{
    switch ((enum st_io_op)io->op) {
    case ST_IO_READ:
        return preadv2(io->fd, io->iov, io->niov, (off_t)io->offset, 0);
    case ST_IO_WRITE:
        return pwritev2(io->fd, io->iov, io->niov, (off_t)io->offset,
                        io->flags & ST_IO_DSYNC ? RWF_DSYNC : 0);
    case ST_IO_FSYNC:
        return fsync(io->fd);
    case ST_IO_FALLOCATE:
        return fallocate(io->fd, io->mode, (off_t)io->offset, (off_t)io->len);
    }
    errno = EINVAL;
    return -1;
}

void
st_io_execute(struct st_io *io)
{
    ssize_t n;

    do
        n = io_call(io);
    while (n < 0 && errno == EINTR);
    io->res = n < 0 ? -errno : n;
}
