/* state.c: the states of a pool and of its members, and leaving its lock.
 *
 * What every file of the pool rests on; it knows none of them but the queue. What is to be done
 * without the lock (closing, waking, asking the worker) is noted in a struct deferred and done as
 * the lock is left. See pool_impl.h for the states and the invariants.
 */
#include "waiter.h"

#include "../base/sys.h"

#include <stdlib.h>

static struct hs_wakelist wakers = {
    .lock = HS_LOCK_STATIC(HS_RANK_WAKELIST),
    .nodes = {&wakers.nodes, &wakers.nodes},
};

struct hs_wakelist *
hs_pool_asked(void)
{
    return &wakers;
}

void
hs_pool_worker_ask(struct hs_pool *p)
{
    if (!atomic_exchange(&p->asks, true))
        hs_wakelist_wake(&wakers);
}

struct hs_pool *
hs_pool_ref(struct hs_pool *p)
{
    HS_CHECK(p, POOL_MAGIC);
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

bool
hs_pool_is_closed(struct hs_pool *p)
{
    bool closed;

    HS_CHECK(p, POOL_MAGIC);
    hs_lock_take(&p->lock);
    closed = p->closed;
    hs_lock_drop(&p->lock);
    return closed;
}

#if HS_DEBUG
void
hs_pool_check_locked(const struct hs_pool *p)
{
    HS_ASSERT(hs_pool_adds_up(p));
    HS_ASSERT(hs_list_empty(&p->waiters) == (p->n_waiting == 0));
    HS_ASSERT(hs_list_empty(&p->idle) == (p->n[MEMBER_IDLE] == 0));
    HS_ASSERT(hs_list_empty(&p->lent) == (p->n[MEMBER_LENT] == 0));
    /* Nobody waits while something is idle, unless it came in this very moment. */
    HS_ASSERT(p->n_waiting == 0 || p->n[MEMBER_IDLE] == 0);
}
#endif

/* xorshift: spreading in time needs no secrets. */
int64_t
hs_pool_random_locked(struct hs_pool *p, int64_t span)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return span <= 0 ? 0 : (int64_t)(p->random % ((uint64_t)span + 1));
}

/* ---- Members ------------------------------------------------------------------------------- */

void
hs_pool_set_state_locked(struct hs_pool *p, struct hs_member *m, enum member_state state)
{
    p->n[m->state]--;
    p->n[state]++;
    p->n_stalled -= m->stalled;
    m->stalled = false;
    m->handshaking_ns = 0;
    m->state = state;
    m->state_epoch = ++p->state_epochs;
}

void
hs_pool_retire_locked(struct hs_pool *p, struct hs_member *m, enum hs_pool_reason why,
                      struct deferred *d)
{
    hs_list_unlink(&m->link);
    hs_pool_set_state_locked(p, m, MEMBER_CLOSING);
    m->closing = why;
    m->next_closing = d->closing;
    d->closing = m;
}

static void
free_member(struct hs_pool *p, struct hs_member *m, enum hs_pool_reason why, struct deferred *d)
{
    hs_pool_set_state_locked(p, m, MEMBER_FREE);
    hs_list_append(&p->free, &m->link);
    p->endpoints[m->endpoint].open--;
    p->stats.closed++;
    p->stats.closed_by_reason[why]++;
    d->changed = true;
    if (p->n_waiting > 0 || p->o.min_idle > 0 || p->closed)
        d->worker = true; /* There is room for a dial. */
}

void
hs_pool_end_dial_locked(struct hs_pool *p, struct hs_member *m, enum hs_pool_reason why,
                        struct deferred *d)
{
    HS_ASSERT(m->state == MEMBER_DIALING);
    free_member(p, m, why, d);
}

/* With these the connection itself has done nothing wrong. */
static bool
is_orderly(enum hs_pool_reason why)
{
    return why == HS_POOL_DISCARDED || why == HS_POOL_IDLE_TIMEOUT || why == HS_POOL_LIFETIME ||
           why == HS_POOL_EVICTED || why == HS_POOL_SURPLUS || why == HS_POOL_POOL_CLOSED;
}

/* Without the lock. */
static void
close_members(struct hs_member *m)
{
    for (; m != NULL; m = m->next_closing) {
        if (m->spent)
            hs_conn_close(m->conn, true);
        m->spent = false;
        hs_conn_dispose(m->conn, is_orderly(m->closing));
        m->conn = NULL;
    }
}

void
hs_pool_leave(struct hs_pool *p, struct deferred *d)
{
    struct hs_member *m, *next;

    for (;;) {
        m = d->closing;
        hs_pool_check_locked(p);
        hs_lock_drop(&p->lock);
        if (d->woken != NULL)
            hs_waiter_wake(d->woken);
        if (d->worker)
            hs_pool_worker_ask(p);
        if (d->changed)
            hs_wakelist_wake(&p->changed);
        if (m == NULL)
            return;
        *d = (struct deferred){0};
        close_members(m);
        hs_lock_take(&p->lock);
        for (; m != NULL; m = next) {
            next = m->next_closing;
            free_member(p, m, m->closing, d);
        }
    }
}

static void
add_members_locked(struct hs_pool *p, struct hs_member **members, size_t n, struct hs_member **made)
{
    for (size_t i = 0; i < p->n_members; i++)
        members[i] = p->members[i];
    for (size_t i = p->n_members; i < n; i++) {
        struct hs_member *m = made[i - p->n_members];

        m->pool = p;
        m->index = (uint32_t)i;
        hs_list_init(&m->link);
        hs_list_append(&p->free, &m->link);
        p->n[MEMBER_FREE]++;
        members[i] = m;
    }
    p->members = members;
    p->n_members = n;
}

/* Only the pool worker adds members, so that n_members cannot change meanwhile. */
void
hs_pool_make_room(struct hs_pool *p, size_t n)
{
    struct hs_member **members = NULL, **made = NULL, **old = p->members;
    size_t n_new = n > p->n_members ? n - p->n_members : 0, i = 0;

    if (n_new == 0)
        return;
    if ((members = hs_sys_calloc(n, sizeof(*members))) == NULL ||
        (made = hs_sys_calloc(n_new, sizeof(*made))) == NULL)
        goto out;
    while (i < n_new && (made[i] = hs_sys_calloc(1, sizeof(**made))) != NULL)
        i++;
    if (i > 0) {
        hs_lock_take(&p->lock);
        add_members_locked(p, members, p->n_members + i, made);
        hs_lock_drop(&p->lock);
        members = old;
    }
out:
    free(members);
    free(made);
}
