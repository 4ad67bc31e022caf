/* SPDX-License-Identifier: MIT
 *
 * Bells: doorbells whose register write is no more than an eventfd's.
 *
 * A shadowed submission queue's doorbell says "look": the value is in the page.
 * So a host that can (KVM's ioeventfd) may answer it without an exit; it needs
 * an eventfd, the same for all queues of a worker, which the worker watches.
 *
 *   guest --- register write ---> host's kernel --- eventfd ---> worker wakes
 *
 * The admin queue, and what drivers do not shadow, stay what they were.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nvme_private.h"

static void
bell_rings(struct st_watch *watch, unsigned events)
{
    struct nvme_worker *w = st_container(watch, struct nvme_worker, bell);
    uint64_t n;

    (void)events;
    while (read(watch->fd, &n, sizeof(n)) < 0 && errno == EINTR)
        ;
    st_count(&w->bells, 1);
    st_nvme_wake(w);
}

static bool
bell_open(struct nvme_worker *w)
{
    if (w->has_bell)
        return true;
    w->bell = (struct st_watch){.ready = bell_rings,
                                .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                                .events = EPOLLIN};
    if (w->bell.fd < 0)
        return false;
    w->has_bell = st_watch_add(w->io.loop, &w->bell) == 0;
    if (!w->has_bell)
        close(w->bell.fd);
    return w->has_bell;
}

void
st_nvme_bell_close(struct nvme_worker *w)
{
    if (!w->has_bell)
        return;
    st_watch_remove(w->io.loop, &w->bell);
    close(w->bell.fd);
    w->has_bell = false;
}

void
st_nvme_bell_set(struct nvme_worker *w, unsigned i, bool on)
{
    struct st_nvme *n = w->nvme;
    struct st_pci_host *host = n->pci.host;

    if (i < 2 || i % 2 || n->db_bell[i] == on || !host || !host->bell ||
        (on && !bell_open(w)))
        return;
    n->db_bell[i] = on;
    host->bell(host, 0, NVME_REG_DOORBELLS + 4 * i, 4, w->bell.fd, on);
}

void
st_nvme_bells(struct nvme_worker *w)
{
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link)
        st_nvme_bell_set(w, 2u * sq->qid, true);
}
