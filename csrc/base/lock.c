/* lock.c: the mutex wrapper and, in debug builds, the check of lock ranks.
 *
 * The held ranks of a thread are one bit each in a thread-local word.
 */
#include "lock.h"

#include "check.h"

#if HS_DEBUG
static _Thread_local unsigned held;

static void
note_take(enum hs_rank rank)
{
    HS_ASSERT((held & ((1U << rank) - 1)) == 0); /* nothing of a lower rank is held ... */
    HS_ASSERT((held & (1U << rank)) == 0);       /* ... nor of the same */
    held |= 1U << rank;
}

static void
note_drop(enum hs_rank rank)
{
    HS_ASSERT((held & (1U << rank)) != 0);
    held &= ~(1U << rank);
}
#else
#define note_take(rank) ((void)0)
#define note_drop(rank) ((void)0)
#endif

void
hs_lock_init(struct hs_lock *l, enum hs_rank rank)
{
    HS_ASSERT(pthread_mutex_init(&l->mutex, NULL) == 0);
    l->rank = rank;
}

void
hs_lock_fini(struct hs_lock *l)
{
    HS_ASSERT(pthread_mutex_destroy(&l->mutex) == 0);
}

void
hs_lock_take(struct hs_lock *l)
{
    note_take(l->rank);
    HS_ASSERT(pthread_mutex_lock(&l->mutex) == 0);
}

bool
hs_lock_try(struct hs_lock *l)
{
    if (pthread_mutex_trylock(&l->mutex) != 0)
        return false;
    note_take(l->rank);
    return true;
}

void
hs_lock_drop(struct hs_lock *l)
{
    HS_ASSERT(pthread_mutex_unlock(&l->mutex) == 0);
    note_drop(l->rank);
}

void
hs_lock_take_for_fork(struct hs_lock *l)
{
    HS_ASSERT(pthread_mutex_lock(&l->mutex) == 0);
}

void
hs_lock_drop_after_fork(struct hs_lock *l)
{
    HS_ASSERT(pthread_mutex_unlock(&l->mutex) == 0);
}
