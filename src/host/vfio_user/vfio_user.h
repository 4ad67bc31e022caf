/* SPDX-License-Identifier: MIT
 *
 * The vfio-user door: one PCI function for one virtual machine monitor at a
 * time (QEMU from 10.1 on, Cloud Hypervisor), over a Unix socket.
 *
 *   client                    this door                     device model
 *   --------------------      -------------------------     --------------
 *   REGION_READ, _WRITE  -->  st_pci_access, _config_*  --> its registers
 *   DMA_MAP, DMA_UNMAP   -->  mmap, struct st_gmem      --> its DMA
 *   eventfds             <--  struct st_pci_host        <-- st_pci_raise
 *
 * How to embed it (as `strata serve` does):
 *
 *   gmem = st_gmem_create(loop);          the same loop as opts.loop
 *   make the device with gmem; its struct st_pci is opts.pci
 *   listen(fd, 1);                        socket mode 0600 is the caller's
 *   st_vfio_user_create(&opts, fd, &v, &err);
 *   ...
 *   st_vfio_user_stop(v, stopped, arg);   waits for a client to leave
 *   st_vfio_user_cut(v);                  does not (a second SIGTERM)
 *   in or after stopped: st_vfio_user_destroy(v), stop and destroy the
 *   device, then st_gmem_destroy(gmem).
 *
 * A client that loses its server loses its disk, and may abort: no exit path
 * leaves one behind but st_vfio_user_cut.
 *
 * The client must share its guest's memory (memory-backend-memfd,share=on;
 * --memory shared=on). DMA to what it does not share is refused like DMA to
 * nothing; DMA_READ and DMA_WRITE messages are not sent.
 *
 * Threads: every function is the loop's thread's, unless it says otherwise.
 * Interrupts are raised from any thread that turns a loop of the domain. The
 * process gets a handler for SIGBUS (guard.h), because a client can cut the
 * file that we have mapped. The Unix socket's clients are data, not truth.
 */
#ifndef ST_VFIO_USER_H
#define ST_VFIO_USER_H

#include "gmem.h"
#include "pci.h"

struct st_keep;
struct st_vfio_user;

/* What a door is made of; all that it points to is borrowed for its life. */
struct st_vfio_user_opts {
    struct st_loop *loop; /* where the socket is served; the home of GMEM */
    struct st_pci *pci;   /* its host is set here, to a host that keeps MSI-X;
                           * nothing is raised before */
    struct st_gmem *gmem; /* empty; only this door maps into it */
    const struct st_log *log; /* may be NULL */
    const char *name;         /* for the log; NULL: "vfio-user" */
    bool write_multiple;      /* offer REGION_WRITE_MULTI */
    /* A part of a BAR that clients map, so that guests store without a message:
     * doorbells. SIZE 0: none. OFFSET, SIZE and FD_OFFSET are whole pages. */
    struct {
        unsigned bar;
        uint64_t offset, size; /* in the BAR */
        uint64_t fd_offset;    /* where it lies in FD; at least OFFSET, for the
                                * protocol knows only where a whole BAR begins */
        int fd;
    } sparse;
    uint64_t timeout_ns;  /* the longest that DMA_UNMAP, DEVICE_RESET and
                           * deferred accesses wait; 0: 4 s. Clients give up
                           * after 5 s */
    struct st_keep *keep; /* the client outlives us: a successor goes on with
                           * it; NULL: it does not */
    int journal_fd;       /* then: of st_vfio_user_journal */
    /* A client has come, or left and left nothing behind; may be NULL. */
    void (*client)(void *arg, bool connected);
    void *arg;
};

/* Serve clients that connect to LISTEN_FD, a listening Unix stream socket
 * (taken, also on failure). 0 or -errno: -EINVAL for a sparse part that is not
 * one. */
int st_vfio_user_create(const struct st_vfio_user_opts *opts, int listen_fd,
                        struct st_vfio_user **out, struct st_err *err);

/* Memory for opts.keep, of the door that will be called NAME: a descriptor (the
 * caller's; it is kept, too), or -errno with a sentence. Any thread. */
int st_vfio_user_journal(struct st_keep *keep, const char *name,
                         struct st_err *err);

/* Has the door got the client of a predecessor? Its guest's memory is mapped
 * then, its eventfds are there, configuration space is as it was; but nothing
 * is served before st_vfio_user_go. */
bool st_vfio_user_resumes(const struct st_vfio_user *v);

/* The device is as it was, too: serve the client. */
void st_vfio_user_go(struct st_vfio_user *v);

/* Accept nobody any more; when the client has left, and the function is reset
 * and no guest memory mapped, call DONE, once, never within this call. */
void st_vfio_user_stop(struct st_vfio_user *v, void (*done)(void *arg),
                       void *arg);

/* Close the client's connection now. After st_vfio_user_stop: for good, else
 * the next one may come. */
void st_vfio_user_cut(struct st_vfio_user *v);

/* In or after DONE of st_vfio_user_stop. The function's host is no more. NULL
 * is fine. */
void st_vfio_user_destroy(struct st_vfio_user *v);

/* What a door did. */
struct st_vfio_user_stats {
    uint64_t messages;      /* received, whole */
    uint64_t posted;        /* of these, how many wanted no reply */
    uint64_t reads, writes; /* accesses to regions; a message may be many */
    uint64_t bytes_in, bytes_out;
    uint64_t wakeups;          /* reads of the socket that gave something */
    uint64_t maps, unmaps;     /* messages that did it */
    uint64_t maps_unreachable; /* without a file */
    uint64_t late;             /* answered before what they asked was over */
    uint64_t irqs;             /* eventfds written, MSI-X and INTx */
    uint64_t irqs_pending;     /* raised while there was no eventfd */
    uint64_t errors;           /* error replies */
    uint64_t protocol_errors;  /* clients dropped for what they sent */
    uint64_t faults;           /* clients dropped for memory they cut */
    uint64_t clients_total;
    bool connected;
    int peer_pid; /* of the client that is connected; 0 */
};

/* Any thread. */
void st_vfio_user_stats(struct st_vfio_user *v, struct st_vfio_user_stats *out);

#endif
