/* SPDX-License-Identifier: MIT
 *
 * Intrusive doubly-linked list. A list head and a member are the same struct;
 * an unlinked member points at itself.
 */
#ifndef ST_LIST_H
#define ST_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* A link, or the head, of a list that goes round in both directions. */
struct st_list {
    struct st_list *next, *prev;
};

/* The struct of TYPE whose FIELD is at PTR. */
#define st_container(ptr, type, field)                                         \
    ((type *)(void *)((char *)(ptr)-offsetof(type, field)))

/* for (T *e = first; ...): E may be removed by the body. */
#define st_list_for(e, tmp, head, type, field)                                 \
    for (type *e = st_container((head)->next, type, field),                    \
              *tmp = st_container(e->field.next, type, field);                 \
         &e->field != (head);                                                  \
         e = tmp, tmp = st_container(e->field.next, type, field))

static inline void
st_list_init(struct st_list *l)
{
    l->next = l->prev = l;
}

static inline bool
st_list_empty(const struct st_list *l)
{
    return l->next == l;
}

static inline void
st_list_append(struct st_list *head, struct st_list *e)
{
    e->prev = head->prev;
    e->next = head;
    head->prev->next = e;
    head->prev = e;
}

/* Unlink E and make it point at itself; a second removal is harmless. */
static inline void
st_list_remove(struct st_list *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->next = e->prev = e;
}

static inline struct st_list *
st_list_first(struct st_list *head)
{
    return st_list_empty(head) ? NULL : head->next;
}

/* Move all of FROM to the end of TO. */
static inline void
st_list_splice(struct st_list *to, struct st_list *from)
{
    if (st_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    st_list_init(from);
}

#endif
