/* lock.h: the one mutex, with ranks.
 *
 * A thread may take a lock only if its rank is below those of all locks that it holds; two locks
 * of one rank are never held together. Debug builds check this at every lock and unlock, so that a
 * deadlock shows as an assertion on the first wrong order, not as a hang on the first bad day.
 * A lock is never held over a wait, a callback, close(2) or any Python call.
 */
#ifndef HS_BASE_LOCK_H
#define HS_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>

enum hs_rank {
    HS_RANK_FAULTS = 1, /* which plans there are */
    HS_RANK_ROLL,       /* a part of the list of connections */
    HS_RANK_LOOP,
    HS_RANK_WAKELIST,
    HS_RANK_SLOTS,
    HS_RANK_REACTOR,
    HS_RANK_TOKEN,
    HS_RANK_SWEEP, /* one walk over a token tree at a time */
    HS_RANK_RESOLVER,
    HS_RANK_LINGER,
    HS_RANK_LINGER_TURN, /* its thread's, while it works; else only fork takes it */
    HS_RANK_PEERS,       /* of a listener */
    HS_RANK_DEPARTURES,
    HS_RANK_TLS_STORE, /* sessions, ticket keys, a config's context */
    HS_RANK_TLS,       /* one SSL object */
    HS_RANK_TLS_ABOVE, /* one whose records go through another's */
    HS_RANK_BREAKER,
    HS_RANK_CONN,
    HS_RANK_LISTENER,
    HS_RANK_POOL,
    HS_RANK_POOL_WORKER,      /* which pools there are */
    HS_RANK_POOL_WORKER_TURN, /* the pool worker's, while it works; else only fork takes it */
    HS_RANK_NOTIFIER,
    HS_RANK_NOTIFIERS,    /* which there are */
    HS_RANK_INSPECT,      /* which one there is */
    HS_RANK_INSPECT_TURN, /* its thread's, while it works; else only fork takes it */
};

/* For a constructor that registers pthread_atfork handlers which take a lock of this rank: such
 * handlers run in the opposite order of their registration, and higher ranks have to come first. */
#define HS_REGISTERS_FORK_LOCK(rank) __attribute__((constructor(1000 + (rank))))
/* The same for a handler that waits: it is registered last, so that it runs before any of those
 * locks is taken. */
#define HS_REGISTERS_FORK_WAIT __attribute__((constructor(1100)))

struct hs_lock {
    pthread_mutex_t mutex;
    enum hs_rank rank;
};

#define HS_LOCK_STATIC(rank_)                                                                      \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .rank = (rank_),                                       \
    }

void hs_lock_init(struct hs_lock *l, enum hs_rank rank);
void hs_lock_fini(struct hs_lock *l);
void hs_lock_take(struct hs_lock *l);
bool hs_lock_try(struct hs_lock *l); /* false: somebody has it */
void hs_lock_drop(struct hs_lock *l);
/* Around a fork, which takes every lock of a kind: without a look at ranks. */
void hs_lock_take_for_fork(struct hs_lock *l);
void hs_lock_drop_after_fork(struct hs_lock *l);

#endif
