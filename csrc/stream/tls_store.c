/* tls_store.c: see tls_store.h.
 *
 * Rank TLS_STORE: taken by OpenSSL's callbacks while the lock of a connection is held.
 */
#include "tls_store.h"

#include "../base/lock.h"

static struct hs_lock lock = HS_LOCK_STATIC(HS_RANK_TLS_STORE);

void
hs_tls_store_lock(void)
{
    hs_lock_take(&lock);
}

void
hs_tls_store_unlock(void)
{
    hs_lock_drop(&lock);
}

HS_REGISTERS_FORK_LOCK(HS_RANK_TLS_STORE)
static void
tls_store_watch_forks(void)
{
    (void)pthread_atfork(hs_tls_store_lock, hs_tls_store_unlock, hs_tls_store_unlock);
}
