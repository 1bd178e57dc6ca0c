/* waiter.h: somebody who waits for a connection of a pool.
 *
 * The hand-over is an agreement of two: the giver, under the pool's lock, unlinks the first waiter
 * who is not out of time and writes what it gets; the waiter, under the lock, finds either that or
 * itself in the queue. The one who leaves without having got anything unlinks its own entry at
 * once.
 *
 * A waiter has two references at most: its owner's, and that of who is about to wake it.
 */
#ifndef HS_POOL_WAITER_H
#define HS_POOL_WAITER_H

#include "pool_impl.h"

enum waiter_state {
    WAITER_QUEUED,
    WAITER_SERVED,  /* lease holds what it got */
    WAITER_EXPIRED, /* passed over: out of time, which the waiter will find out */
    WAITER_FAILED,  /* why tells; the error is the pool's last dial's */
};

struct waiter {
    struct hs_list link; /* guarded by the pool's lock, as all below */
    _Atomic int state;   /* written under the lock */
    hs_err why;
    struct hs_lease lease;
    bool to_probe; /* with lease: the kernel is to be asked first */
    struct hs_holder holder;
    struct ledger_site *site;
    int64_t deadline_ns, since_ns;
    uint64_t ticket; /* the queue is ordered by it */
    unsigned generation;
    atomic_int refs;
    struct hs_wakelist wake; /* its owner waits here */
    struct waiter *next_woken;
};

struct waiter *hs_waiter_new(const struct hs_holder *holder, int64_t deadline_ns);
void hs_waiter_unref(struct waiter *w);
/* Into the queue: behind all but those that came later. */
void hs_waiter_queue_locked(struct hs_pool *p, struct waiter *w);
/* Ends the waiting; hs_pool_leave wakes the waiter. */
void hs_waiter_settle_locked(struct hs_pool *p, struct waiter *w, enum waiter_state state,
                             struct deferred *d);
/* The first who is not out of time, still queued; those who are are unlinked on the way. */
struct waiter *hs_waiter_first_locked(struct hs_pool *p, struct deferred *d);
/* Everybody gets why instead. */
void hs_waiter_fail_all_locked(struct hs_pool *p, hs_err why, struct deferred *d);
void hs_waiter_wake(struct waiter *list);

#endif
