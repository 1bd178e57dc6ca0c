/* waiter.c: the queue of those who wait for a connection.
 *
 * Owns the waiters' memory. See waiter.h for the agreement, pool_impl.h for the lock.
 */
#include "waiter.h"

#include "../base/sys.h"

#include <stdlib.h>

struct waiter *
hs_waiter_new(const struct hs_holder *holder, int64_t deadline_ns)
{
    struct waiter *w = hs_sys_calloc(1, sizeof(*w));

    if (w == NULL)
        return NULL;
    hs_list_init(&w->link);
    w->holder = *holder;
    w->deadline_ns = deadline_ns;
    w->since_ns = hs_now();
    w->generation = hs_fork_generation();
    w->refs = 1;
    hs_wakelist_init(&w->wake);
    return w;
}

void
hs_waiter_unref(struct waiter *w)
{
    if (w == NULL || atomic_fetch_sub(&w->refs, 1) != 1)
        return;
    hs_wakelist_fini(&w->wake);
    free(w);
}

void
hs_waiter_queue_locked(struct hs_pool *p, struct waiter *w)
{
    struct hs_list *after = p->waiters.prev;

    while (after != &p->waiters && HS_CONTAINER(after, struct waiter, link)->ticket > w->ticket)
        after = after->prev;
    hs_list_append(after->next, &w->link);
    p->n_waiting++;
}

void
hs_waiter_settle_locked(struct hs_pool *p, struct waiter *w, enum waiter_state state,
                        struct deferred *d)
{
    hs_list_unlink(&w->link);
    p->n_waiting--;
    atomic_store(&w->state, (int)state);
    atomic_fetch_add_explicit(&w->refs, 1, memory_order_relaxed);
    w->next_woken = d->woken;
    d->woken = w;
}

struct waiter *
hs_waiter_first_locked(struct hs_pool *p, struct deferred *d)
{
    int64_t now = 0;

    while (!hs_list_empty(&p->waiters)) {
        struct waiter *w = HS_CONTAINER(p->waiters.next, struct waiter, link);

        if (w->deadline_ns == HS_NEVER)
            return w;
        if (now == 0)
            now = hs_now();
        if (w->deadline_ns > now)
            return w;
        p->stats.expired_skipped++;
        hs_waiter_settle_locked(p, w, WAITER_EXPIRED, d);
    }
    return NULL;
}

void
hs_waiter_fail_all_locked(struct hs_pool *p, hs_err why, struct deferred *d)
{
    while (!hs_list_empty(&p->waiters)) {
        struct waiter *w = HS_CONTAINER(p->waiters.next, struct waiter, link);

        w->why = why;
        hs_waiter_settle_locked(p, w, WAITER_FAILED, d);
    }
}

void
hs_waiter_wake(struct waiter *list)
{
    while (list != NULL) {
        struct waiter *w = list;

        list = w->next_woken;
        hs_wakelist_wake(&w->wake);
        hs_waiter_unref(w);
    }
}
