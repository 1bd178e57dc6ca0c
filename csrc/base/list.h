/* list.h: intrusive doubly linked lists.
 *
 * A list head and its nodes are the same struct; an unlinked node points at itself, so that
 * unlinking twice is harmless. Nothing here allocates.
 */
#ifndef HS_BASE_LIST_H
#define HS_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct hs_list {
    struct hs_list *prev, *next;
};

#define HS_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void
hs_list_init(struct hs_list *l)
{
    l->prev = l->next = l;
}

static inline bool
hs_list_empty(const struct hs_list *l)
{
    return l->next == l;
}

static inline void
hs_list_append(struct hs_list *head, struct hs_list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void
hs_list_unlink(struct hs_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    hs_list_init(node);
}

/* Moves all nodes of from to the end of to. */
static inline void
hs_list_move_all(struct hs_list *to, struct hs_list *from)
{
    if (hs_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    hs_list_init(from);
}

#endif
