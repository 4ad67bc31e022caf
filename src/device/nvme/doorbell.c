/* SPDX-License-Identifier: MIT
 *
 * Doorbells (Base 3.1.3.25, 5.8, PCIe Transport 3.1.2): one number for each
 * queue, which the guest moves in one of three ways:
 *
 *   register  a write to BAR 0 is stored in db[], and its worker is kicked
 *   mapped    db[] itself is in the guest: its worker has to look
 *   shadow    a page in the guest's memory (Doorbell Buffer Config): its worker
 *             looks for a while, then asks for a ring
 *
 *       polls: event index stays behind      the guest rings only where
 *              |                             event index is passed
 *       arms:  event index := value seen
 *              look again: changed? --> polls
 *              sleeps
 *
 * A ring is then a register write, which means no more than "look": its value
 * may be older than the page's. The admin queues always go by registers, since
 * drivers do not shadow them; their values are copied to the page.
 *
 * Heads of completion queues matter only to who waits for room, or to the pin:
 * nobody else asks for a ring of them. The pin falls within the write itself: a
 * guest's handler would be entered until a worker had come to lower it.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "journal.h"
#include "range.h"

/* An event index that a driver passes once in 65536 entries. */
enum { NEVER = 0xffffffff };

/* ---- Memory ---- */

int
st_nvme_db_create(struct st_nvme *n, struct st_err *err)
{
    size_t size = st_align_up(n->ndb * sizeof(*n->db), NVME_PAGE);
    void *p;

    n->db_size = size;
    if (n->mapped) {
        n->db_fd = memfd_create("nvme-doorbells", MFD_CLOEXEC);
        if (n->db_fd < 0 ||
            ftruncate(n->db_fd, NVME_REG_DOORBELLS + (off_t)size) < 0)
            return st_err_set(err, errno,
                              "cannot make memory for doorbells: %s",
                              st_strerror(-errno));
    }
    /* A successor needs them: they are in the journal. */
    p = n->journal ? (uint8_t *)n->journal + NVME_PAGE
                   : mmap(NULL, size, PROT_READ | PROT_WRITE,
                          n->mapped ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                          n->db_fd, n->mapped ? NVME_REG_DOORBELLS : 0);
    if (p == MAP_FAILED)
        return st_err_set(err, errno, "cannot map memory for doorbells: %s",
                          st_strerror(-errno));
    n->db = p;
    n->db_limit = calloc(n->ndb, sizeof(*n->db_limit));
    n->db_worker = calloc(n->ndb, sizeof(*n->db_worker));
    n->db_wanted = calloc(n->ndb, sizeof(*n->db_wanted));
    n->db_bell = calloc(n->ndb, sizeof(*n->db_bell));
    if (!n->db_limit || !n->db_worker || !n->db_wanted || !n->db_bell)
        return st_err_set(err, ENOMEM, "no memory for doorbells");
    return 0;
}

void
st_nvme_db_free(struct st_nvme *n)
{
    if (n->db && !n->journal)
        munmap(n->db, n->db_size);
    if (n->db_fd >= 0)
        close(n->db_fd);
    free(n->db_limit);
    free(n->db_worker);
    free(n->db_wanted);
    free(n->db_bell);
}

int
st_nvme_doorbells(struct st_nvme *n, uint64_t *size)
{
    *size = n->mapped ? n->db_size : 0;
    return n->db_fd;
}

/* ---- Registers ---- */

void
st_nvme_ring(struct st_nvme *n, unsigned i, uint32_t value)
{
    uint32_t limit =
        i < n->ndb ? atomic_load_explicit(&n->db_limit[i], memory_order_acquire)
                   : 0;
    struct nvme_worker *w;

    if (__builtin_expect(value >= limit, 0)) {
        if (atomic_load(&n->csts) & NVME_CSTS_RDY)
            st_nvme_bad_doorbell(n, i, limit ? 1 : 0);
        return;
    }
    w = atomic_load_explicit(&n->db_worker[i], memory_order_relaxed);
    atomic_fetch_add_explicit(&n->db_writes, 1, memory_order_relaxed);
    /* Either we see who waits, or who waits sees the value. */
    atomic_store(&n->db[i], value);
    if (i % 2)
        st_nvme_pin_taken(n, i / 2, value);
    if (i % 2 == 0 || atomic_load(&n->db_wanted[i]))
        st_nvme_kick(w);
}

bool
st_nvme_hot(struct st_pci *p, unsigned bar, const struct st_access *a)
{
    struct st_nvme *n = st_container(p, struct st_nvme, pci);

    if (bar != 0 || a->offset < NVME_REG_DOORBELLS || a->len != 4)
        return false;
    if (atomic_load_explicit(&n->gone, memory_order_relaxed))
        return true;
    st_nvme_ring(n, (unsigned)(a->offset - NVME_REG_DOORBELLS) / 4,
                 (uint32_t)a->value);
    return true;
}

/* ---- Pages ---- */

/* Number I of the page at GPA, or NULL. For this task. */
static _Atomic uint32_t *
page_word(struct nvme_worker *w, uint64_t gpa, unsigned i)
{
    return st_gmem_peek(w->io.view, gpa + i * 4, 4, true);
}

/* Sequentially consistent, as all that looks for what may have changed before:
 * either the guest sees an event index, or we see its doorbell. */
static void
page_put(struct nvme_worker *w, uint64_t gpa, unsigned i, uint32_t value)
{
    _Atomic uint32_t *p = page_word(w, gpa, i);

    if (p)
        atomic_store(p, htole32(value));
}

/* Is doorbell I in the pages? */
static bool
is_shadowed(const struct nvme_worker *w, unsigned i)
{
    return w->shadow && i >= 2;
}

/* Where the pages cannot be reached, registers still ring. */
static uint32_t
value_of(struct nvme_worker *w, unsigned i)
{
    struct st_nvme *n = w->nvme;

    if (is_shadowed(w, i)) {
        _Atomic uint32_t *p = page_word(w, w->shadow_page, i);

        if (__builtin_expect(p != NULL, 1))
            return le32toh(atomic_load(p));
        st_count(&w->unreachable, 1);
    }
    return atomic_load(&n->db[i]);
}

uint32_t
st_nvme_sq_tail(struct nvme_sq *sq)
{
    struct nvme_worker *w = sq->w;
    uint32_t value = value_of(w, 2u * sq->qid);

    if (__builtin_expect(!sq->qid && w->shadow && value != sq->seen, 0))
        page_put(w, w->shadow_page, 0, value);
    return value;
}

uint32_t
st_nvme_cq_head(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    uint32_t value = value_of(w, 2u * cq->qid + 1);

    if (__builtin_expect(!cq->qid && w->shadow && value != cq->seen, 0))
        page_put(w, w->shadow_page, 1, value);
    return value;
}

void
st_nvme_db_set(struct nvme_worker *w, unsigned i, uint32_t size)
{
    struct st_nvme *n = w->nvme;

    if (!size)
        st_nvme_bell_set(w, i, false);
    atomic_store(&n->db_wanted[i], i % 2 && size && n->intx);
    if (size) {
        atomic_store(&n->db[i], 0);
        if (is_shadowed(w, i)) {
            page_put(w, w->shadow_page, i, 0);
            page_put(w, w->event_page, i, i % 2 && !n->intx ? NEVER : 0);
        }
        atomic_store(&n->db_worker[i], w);
    }
    atomic_store_explicit(&n->db_limit[i], size, memory_order_release);
    if (!size)
        atomic_store(&n->db[i], 0);
    else if (is_shadowed(w, i))
        st_nvme_bell_set(w, i, true);
}

/* ---- Who is asleep ---- */

bool
st_nvme_cq_listen(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    struct st_nvme *n = w->nvme;
    unsigned i = 2u * cq->qid + 1;

    atomic_store(&n->db_wanted[i], 1);
    if (is_shadowed(w, i))
        page_put(w, w->event_page, i, cq->head);
    return st_nvme_cq_head(cq) != cq->seen;
}

void
st_nvme_cq_ignore(struct nvme_cq *cq)
{
    struct nvme_worker *w = cq->w;
    unsigned i = 2u * cq->qid + 1;

    if (w->nvme->intx)
        return; /* the pin wants to know of each */
    atomic_store_explicit(&w->nvme->db_wanted[i], 0, memory_order_relaxed);
    if (is_shadowed(w, i))
        page_put(w, w->event_page, i, NEVER);
}

bool
st_nvme_polls(const struct nvme_worker *w)
{
    /* The admin queue is never shadowed. */
    return w->nvme->mapped ? !st_list_empty(&w->sqs) : w->shadow && w->nio;
}

bool
st_nvme_arm(struct nvme_worker *w)
{
    bool quiet = true;

    if (!w->shadow)
        return true;
    st_count(&w->arms, 1);
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link)
    {
        if (sq->qid)
            page_put(w, w->event_page, 2u * sq->qid, sq->tail);
    }
    st_list_for(cq, tmp2, &w->cqs, struct nvme_cq, link)
    {
        if (cq->qid && w->nvme->intx)
            page_put(w, w->event_page, 2u * cq->qid + 1, cq->head);
    }
    st_list_for(sq, tmp3, &w->sqs, struct nvme_sq, link)
    {
        if (sq->qid && st_nvme_sq_tail(sq) != sq->seen)
            quiet = false;
    }
    if (w->nvme->intx)
        st_list_for(cq, tmp4, &w->cqs, struct nvme_cq, link)
        {
            if (cq->qid && st_nvme_cq_head(cq) != cq->seen)
                quiet = false;
        }
    return quiet;
}

void
st_nvme_shadow(struct nvme_worker *w, uint64_t shadow, uint64_t event)
{
    struct st_nvme *n = w->nvme;

    /* Values are those of the pages before, if there are any. */
    st_list_for(sq, tmp, &w->sqs, struct nvme_sq, link)
    {
        uint32_t value = value_of(w, 2u * sq->qid);

        page_put(w, shadow, 2u * sq->qid, value);
        page_put(w, event, 2u * sq->qid, value);
    }
    st_list_for(cq, tmp2, &w->cqs, struct nvme_cq, link)
    {
        unsigned i = 2u * cq->qid + 1;
        uint32_t value = value_of(w, i);
        bool wanted = atomic_load(&n->db_wanted[i]);

        page_put(w, shadow, i, value);
        page_put(w, event, i, wanted || !cq->qid ? value : NEVER);
    }
    w->shadow = true;
    w->shadow_page = shadow;
    w->event_page = event;
    st_nvme_bells(w);
    st_nvme_wake(w);
}
